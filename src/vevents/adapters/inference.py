"""Responses of Roboflow's inference: as JSON from HTTP, or the objects of its Python package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from vevents.adapters.annotations import (
    UNKNOWN_CLASS,
    ImageFields,
    Outline,
    Seen,
    most_confident,
    note,
    scores_of,
    seen,
)
from vevents.errors import EventValidationError
from vevents.event import Classification, Image, Keypoint

_BOX_KEYS = ("x", "y", "width", "height")


def from_inference(response: Any, **fields: Unpack[ImageFields]) -> Seen:
    """Make an image of one response: detection, classification, segmentation or keypoints.

    Of a multi-label classification the predicted classes are taken, of any other all classes. A
    mask that is sent run-length encoded in place of points becomes a plain box.

    Args:
        response: What the API answers for one image, parsed from JSON, or what `model.infer()` of
            the `inference` package returns for one image.
        **fields: `frame`, `input_frame`, `label` of the `Image`.

    Raises:
        EventValidationError: It is no such response; the error names the field.

    Example:
        >>> found = {"x": 5, "y": 6, "width": 2, "height": 4, "confidence": 0.9, "class": "nut"}
        >>> from_inference({"predictions": [found]}).image.object_detections
        (ObjectDetection(class_name='nut', x=5.0, y=6.0, width=2.0, height=4.0, confidence=0.9),)
    """
    answer = _plain(response)
    if not isinstance(answer, Mapping):
        raise EventValidationError(
            "response", f"must be that of one image, not {type(answer).__name__}"
        )
    predictions = answer.get("predictions")
    if isinstance(predictions, Mapping) and "segmentation_mask" in predictions:
        raise EventValidationError(
            "predictions", "are a class for each pixel, for which an event has no place"
        )
    if isinstance(predictions, Mapping):
        return _classes(_of_labels(predictions, answer.get("predicted_classes")), fields)
    if not isinstance(predictions, Sequence) or isinstance(predictions, str):
        raise EventValidationError("predictions", "is missing or no list")
    rows = [_row(row, f"predictions[{i}]") for i, row in enumerate(predictions)]
    if "top" in answer or any("x" not in row for row in rows):
        return _classes([(_name(row), row.get("confidence", 0.0)) for row in rows], fields)
    return _boxes(rows, fields)


def _plain(value: Any) -> Any:
    """Return an object of the Python package as what it is on the wire.

    They are of pydantic, old or new, and on the fast way through a Workflow plain ones.
    """
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if hasattr(value, "model_dump"):
        return value.model_dump(by_alias=True, exclude_none=True)
    if not isinstance(value, Mapping) and hasattr(value, "dict"):
        return value.dict(by_alias=True, exclude_none=True)
    return value


def _row(row: Any, path: str) -> Mapping[str, Any]:
    row = _plain(row)
    if not isinstance(row, Mapping):
        raise EventValidationError(path, f"must be an object, not {type(row).__name__}")
    return row


def _name(row: Mapping[str, Any]) -> str:
    return str(row.get("class", row.get("class_name", UNKNOWN_CLASS)))


def _of_labels(predictions: Mapping[str, Any], predicted: Any) -> list[tuple[str, Any]]:
    def confidence(label: str) -> Any:
        found = _plain(predictions.get(label, 0.0))
        return found.get("confidence", 0.0) if isinstance(found, Mapping) else found

    labels = predictions if predicted is None else predicted
    return [(str(label), confidence(label)) for label in labels]


def _classes(found: Sequence[tuple[str, Any]], fields: ImageFields) -> Seen:
    scores = scores_of([score for _, score in found], len(found))
    keep = most_confident(scores).tolist()
    classifications = [Classification(found[i][0], float(scores[i])) for i in keep]
    image = Image(classifications=classifications, **fields)
    return Seen(image, note(len(found) - len(keep)))


def _boxes(rows: Sequence[Mapping[str, Any]], fields: ImageFields) -> Seen:
    import numpy as np

    boxes = np.array(
        [
            [_number(row, key, f"predictions[{i}]") for key in _BOX_KEYS]
            for i, row in enumerate(rows)
        ],
        np.float64,
    ).reshape(-1, 4)
    scores = scores_of([row.get("confidence") or 0.0 for row in rows], len(rows))
    keep = most_confident(scores)
    kept = [rows[i] for i in keep.tolist()]
    with_keypoints = any("keypoints" in row for row in kept)
    with_points = any("points" in row for row in kept)
    return seen(
        [_name(row) for row in kept],
        boxes[keep],
        scores[keep],
        skeletons=[_skeleton(row) for row in kept] if with_keypoints else None,
        outlines=[_outline(row) for row in kept] if with_points else None,
        left_out=len(rows) - len(kept),
        fields=fields,
    )


def _number(row: Mapping[str, Any], key: str, path: str) -> float:
    value = row.get(key)
    if value is None:
        raise EventValidationError(f"{path}.{key}", "is missing")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise EventValidationError(f"{path}.{key}", "must be a number") from None


def _outline(row: Mapping[str, Any]) -> Outline:
    return [
        (_number(_plain(point), "x", "points"), _number(_plain(point), "y", "points"))
        for point in row.get("points") or ()
    ]


def _skeleton(row: Mapping[str, Any]) -> list[Keypoint]:
    # Points below the request's threshold are missing from the list: the place says nothing.
    return [
        Keypoint(
            int(point.get("class_id", place)),
            _number(point, "x", "keypoints"),
            _number(point, "y", "keypoints"),
        )
        for place, point in enumerate(map(_plain, row.get("keypoints") or ()))
    ]
