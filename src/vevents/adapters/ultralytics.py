"""Results of the `ultralytics` package: what one element of `model(frame)` holds."""

from __future__ import annotations

from typing import Any, Final, Unpack

from vevents.adapters.annotations import (
    ImageFields,
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
from vevents.errors import EventValidationError
from vevents.event import Classification, Image

_DRAWN_MIN: Final = 0.25


def from_ultralytics(result: Any, **fields: Unpack[ImageFields]) -> Seen:
    """Make an image of one `Results` object: boxes, masks, rotated boxes, keypoints or classes.

    Tensors may be on any device. Masks become instance segmentations, and so do rotated boxes, with
    their four corners. Keypoints at (0, 0) are missing ones, and those less sure than 0.25 are left
    out, as in Ultralytics' own pictures: an event cannot say how sure they are. Of a classification
    the five most probable classes are taken. `result.orig_img` is BGR: give it as
    `frame=rgb(result.orig_img)`.

    Args:
        result: The result of one image.
        **fields: `frame`, `input_frame`, `label` of the `Image`.

    Raises:
        EventValidationError: It is the list of the results of several images, or no result.
    """
    if not hasattr(result, "names"):
        raise EventValidationError(
            "result", f"must be the result of one image, not {type(result).__name__}"
        )
    probs = getattr(result, "probs", None)
    if probs is not None:
        return _classes(probs, result.names, fields)
    corners = getattr(result, "obb", None)
    boxes = result.boxes if corners is None else corners
    if boxes is None:
        return Seen(Image(**fields), {})
    xyxy = boxes_of(boxes.xyxy)
    scores = scores_of(boxes.conf, len(xyxy))
    keep = most_confident(scores)
    rows = keep.tolist()
    outlines = skeletons = None
    if corners is not None:
        points = numbers_of(corners.xyxyxyxy, "xyxyxyxy")
        outlines = [outline_of(points[i]) for i in rows]
    elif getattr(result, "masks", None) is not None:
        # Computed for all masks at once, and anew at each look.
        polygons = result.masks.xy
        outlines = [outline_of(polygons[i]) for i in rows]
    if getattr(result, "keypoints", None) is not None:
        xy = numbers_of(result.keypoints.xy, "keypoints")
        there = (xy != 0).any(axis=-1)
        sure = getattr(result.keypoints, "conf", None)
        if sure is not None:
            there &= numbers_of(sure, "keypoints") >= _DRAWN_MIN
        skeletons = [skeleton_of(xy[i], there[i]) for i in rows]
    return seen(
        names_of(numbers_of(boxes.cls, "cls")[keep].tolist(), result.names, len(rows)),
        centered(xyxy[keep]),
        scores[keep],
        outlines=outlines,
        skeletons=skeletons,
        left_out=len(xyxy) - len(rows),
        fields=fields,
    )


def _classes(probs: Any, names: Any, fields: ImageFields) -> Seen:
    scores = scores_of(probs.data, len(probs.data))
    top = [int(i) for i in probs.top5]
    found = zip(names_of(top, names, len(top)), scores[top].tolist(), strict=True)
    return Seen(Image(classifications=[Classification(*one) for one in found], **fields), {})
