"""Results of the `supervision` package: `Detections` and `KeyPoints`.

What the contract has no place for stays out: tracker ids, areas, other entries of `data`. Put what
an event should say about them into its metadata (`VisionEventSink.append(custom_data=...)`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Unpack

from vevents.adapters.annotations import (
    ImageFields,
    Outline,
    Seen,
    boxes_of,
    centered,
    most_confident,
    names_of,
    numbers_of,
    outline_of,
    scores_of,
    seen,
    skeleton_of,
)
from vevents.detections import ClassNames
from vevents.errors import EventValidationError
from vevents.event import Keypoint

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_CLASS_NAME: Final = "class_name"
_CORNERS: Final = "xyxyxyxy"
# What Roboflow's Workflows put into `data`.
_POLYGON: Final = "polygon"
_KEYPOINTS: Final = "keypoints_xy"
_KEYPOINT_IDS: Final = "keypoints_class_id"
_KEYPOINT_NAMES: Final = "keypoints_class_name"
_SHAPES: Final = (_CORNERS, _POLYGON, _KEYPOINTS)


def from_detections(
    detections: Any, class_names: ClassNames | None = None, **fields: Unpack[ImageFields]
) -> Seen:
    """Make an image of `supervision.Detections`.

    Boxes with a mask become instance segmentations with the outline of the mask's largest part,
    rotated boxes (`data["xyxyxyxy"]`) instance segmentations with their four corners, and what a
    Workflow's keypoint model found becomes keypoints.

    Args:
        detections: The detections.
        class_names: By class id. Else the names are those in `data["class_name"]`, else the ids as
            text, else `unknown`.
        **fields: `frame`, `input_frame`, `label` of the `Image`.

    Raises:
        EventValidationError: Not arrays of such shapes.

    Example:
        >>> import numpy as np
        >>> import supervision as sv
        >>> found = sv.Detections(np.array([[0, 0, 10, 20]]), class_id=np.array([1]))
        >>> from_detections(found, ["bolt", "nut"]).image.object_detections
        (ObjectDetection(class_name='nut', x=5.0, y=10.0, width=10.0, height=20.0, \
confidence=0.0),)
    """
    if not hasattr(detections, "xyxy"):
        kind = type(detections).__name__
        raise EventValidationError("detections", f"must be supervision.Detections, not {kind}")
    data = detections.data or {}
    boxes = boxes_of(detections.xyxy)
    scores = scores_of(detections.confidence, len(boxes))
    keep = most_confident(scores)
    skeletons: list[list[Keypoint]] | None = None
    outlines: list[Outline | None] | None = None
    if _KEYPOINTS in data:
        skeletons = [_skeleton(data, i) for i in keep.tolist()]
    elif _POLYGON in data:
        outlines = [outline_of(data[_POLYGON][i]) for i in keep.tolist()]
    elif detections.mask is not None:
        outlines = [outline_of_mask(detections.mask[i]) for i in keep.tolist()]
    elif _CORNERS in data:
        outlines = [outline_of(data[_CORNERS][i]) for i in keep.tolist()]
    return seen(
        _names(detections, data, keep, class_names),
        centered(boxes[keep]),
        scores[keep],
        outlines=outlines,
        skeletons=skeletons,
        left_out=len(boxes) - len(keep),
        fields=fields,
    )


def from_key_points(
    key_points: Any, class_names: ClassNames | None = None, **fields: Unpack[ImageFields]
) -> Seen:
    """Make an image of `supervision.KeyPoints`.

    Points at (0, 0), points that are not finite and points marked not visible are missing ones and
    left out, and so is a skeleton without any other; a point's id is its place in the skeleton.
    The box is the one around the points that are there, or the one in `data["xyxy"]`.

    Args:
        key_points: The keypoints.
        class_names: As for `from_detections()`.
        **fields: `frame`, `input_frame`, `label` of the `Image`.

    Raises:
        EventValidationError: Not arrays of such shapes.
    """
    import numpy as np

    if not hasattr(key_points, "xy"):
        kind = type(key_points).__name__
        raise EventValidationError("key_points", f"must be supervision.KeyPoints, not {kind}")
    xy = numbers_of(key_points.xy, "xy")
    if xy.size == 0:
        return seen([], np.zeros((0, 4)), np.zeros(0), skeletons=[], fields=fields)
    there = np.isfinite(xy).all(axis=2) & (xy != 0).any(axis=2)
    visible = getattr(key_points, "visible", None)
    if visible is not None:
        there &= np.asarray(visible, bool)
    data = key_points.data or {}
    # An older supervision has one confidence, that of the points; a newer one warns about its use.
    is_new = hasattr(key_points, "keypoint_confidence")
    of_points = key_points.keypoint_confidence if is_new else key_points.confidence
    of_boxes = getattr(key_points, "detection_confidence", None)
    if of_boxes is None and of_points is not None:
        weights = np.where(there, numbers_of(of_points, "confidence"), 0.0)
        of_boxes = weights.sum(axis=1) / np.maximum(1, there.sum(axis=1))
    scores = scores_of(of_boxes, len(xy))
    some = np.flatnonzero(there.any(axis=1))
    keep = some[most_confident(scores[some])]
    boxes = boxes_of(data["xyxy"]) if "xyxy" in data else boxes_around(xy, there)
    return seen(
        _names(key_points, data, keep, class_names),
        centered(boxes[keep]),
        scores[keep],
        skeletons=[skeleton_of(xy[i], there[i]) for i in keep.tolist()],
        left_out=len(some) - len(keep),
        fields=fields,
    )


def is_boxes_only(found: Any) -> bool:
    """Whether something is `Detections` of boxes with confidences and classes, and no more."""
    if not hasattr(found, "xyxy") or found.mask is not None or found.confidence is None:
        return False
    data = found.data or {}
    return found.class_id is not None and not any(key in data for key in _SHAPES)


def boxes_around(xy: NDArray[np.float64], there: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the box around the points of each skeleton that are there.

    Args:
        xy: Shape (n, points, 2).
        there: Shape (n, points).
    """
    import numpy as np

    mask = ~there[:, :, None]
    low = np.where(mask, np.inf, xy).min(axis=1, initial=np.inf)
    high = np.where(mask, -np.inf, xy).max(axis=1, initial=-np.inf)
    return np.concatenate([low, high], axis=1)


def outline_of_mask(mask: Any) -> Outline | None:
    """Return the outline of a mask's largest part; None if it has none of three points."""
    import numpy as np
    import supervision

    mask = np.asarray(mask, bool)
    rows = np.flatnonzero(mask.any(axis=1))
    if not rows.size:
        return None
    # Looking for contours costs by the area looked at, and masks are as large as the frame.
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    columns = np.flatnonzero(mask[top:bottom].any(axis=0))
    left, right = int(columns[0]), int(columns[-1]) + 1
    polygons = supervision.mask_to_polygons(np.ascontiguousarray(mask[top:bottom, left:right]))
    if not polygons:
        return None
    largest = np.asarray(max(polygons, key=_area), np.float64)
    return outline_of(largest + np.array([left, top]))


def _area(polygon: Any) -> float:
    import numpy as np

    x, y = np.asarray(polygon, np.float64).T
    return abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))))


def _names(
    found: Any, data: Any, keep: NDArray[np.intp], class_names: ClassNames | None
) -> list[str]:
    if class_names is None and _CLASS_NAME in data:
        names = data[_CLASS_NAME]
        # numpy's strings are no plain ones.
        return [str(names[i]) for i in keep.tolist()]
    ids = found.class_id
    return names_of(
        None if ids is None else [ids[i] for i in keep.tolist()], class_names, len(keep)
    )


def _skeleton(data: Any, row: int) -> list[Keypoint]:
    points = outline_of(data[_KEYPOINTS][row])
    ids = data[_KEYPOINT_IDS][row] if _KEYPOINT_IDS in data else range(len(points))
    names = data[_KEYPOINT_NAMES][row] if _KEYPOINT_NAMES in data else None
    # Rows of one array are equally long: what is behind the last point has no name.
    return [
        Keypoint(int(ids[place]), x, y)
        for place, (x, y) in enumerate(points)
        if names is None or str(names[place])
    ]
