"""From the arrays that all detectors have in common to the annotations of one image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypedDict, Unpack

from vevents.detections import ClassNames, check_class_names
from vevents.errors import EventValidationError
from vevents.event import (
    ANNOTATION_COUNT_MAX,
    POLYGON_POINT_COUNT_MIN,
    Frame,
    Image,
    InstanceSegmentation,
    Keypoint,
    KeypointDetection,
    ObjectDetection,
    Pixels,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray
else:
    ArrayLike = Any  # for who asks for types at run time

LEFT_OUT_KEY: Final = "vevents_annotations_left_out"
UNKNOWN_CLASS: Final = "unknown"

Outline = Sequence[tuple[float, float]]


class ImageFields(TypedDict, total=False):
    """The rest of an `Image`; keyword arguments of every adapter."""

    frame: Frame | None
    input_frame: Frame | None
    label: str | None


class Seen(NamedTuple):
    """What was found on one image.

    Attributes:
        image: Its annotations, with the frames that were given.
        metadata: What an event that holds the image should say in its own metadata: nothing, or
            how many annotations were left out because the contract takes at most 1,000
            (`vevents_annotations_left_out`). The most confident ones are kept.
    """

    image: Image
    metadata: dict[str, str | float | bool]

    @property
    def total(self) -> int:
        """How many annotations the image has."""
        image = self.image
        return (
            len(image.object_detections)
            + len(image.classifications)
            + len(image.instance_segmentations)
            + len(image.keypoints)
        )


def from_arrays(
    xyxy: ArrayLike,
    confidence: ArrayLike | None = None,
    class_id: ArrayLike | None = None,
    class_names: ClassNames | None = None,
    **fields: Unpack[ImageFields],
) -> Seen:
    """Make an image of plain arrays. Where they make the whole event, `DetectionWriter` is faster.

    Args:
        xyxy: Shape (n, 4): left, top, right, bottom in absolute pixels.
        confidence: Shape (n,), clipped to 0 to 1; None counts as 0.
        class_id: Shape (n,); without it the class is `unknown`.
        class_names: By class id; an id without a name is its number.
        **fields: `frame`, `input_frame`, `label` of the `Image`.

    Raises:
        EventValidationError: The shapes do not fit together.

    Example:
        >>> seen = from_arrays([[794.0, 392.0, 831.0, 414.0]], [0.913], [0], ["burr"])
        >>> seen.image.object_detections
        (ObjectDetection(class_name='burr', x=812.5, y=403.0, width=37.0, height=22.0, \
confidence=0.913),)
    """
    import numpy as np

    boxes = boxes_of(xyxy)
    count = len(boxes)
    scores = scores_of(confidence, count)
    ids = None if class_id is None else np.asarray(class_id)
    if ids is not None and ids.shape != (count,):
        raise EventValidationError("class_id", f"must have shape ({count},), has {ids.shape}")
    keep = most_confident(scores)
    names = names_of(None if ids is None else ids[keep].tolist(), class_names, len(keep))
    return seen(
        names, centered(boxes[keep]), scores[keep], left_out=count - len(keep), fields=fields
    )


def rgb(frame: Pixels) -> Pixels:
    """Turn a picture as OpenCV has it (BGR) into one as `Image` takes it (RGB); gray stays.

    Args:
        frame: Shape (height, width, 3), or (height, width).

    Raises:
        EventValidationError: No array: what a camera returns that has no frame.
    """
    import numpy as np

    if not isinstance(frame, np.ndarray):
        raise EventValidationError("frame", f"must be an array, not {type(frame).__name__}")
    if frame.ndim != 3:
        return frame
    try:
        import cv2
    except ImportError:
        return np.ascontiguousarray(frame[:, :, ::-1])
    return np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8)


# --- For the other adapters -----------------------------------------------------------------


def boxes_of(xyxy: Any) -> NDArray[np.float64]:
    """Return boxes as an array of shape (n, 4); nothing at all is no box.

    Raises:
        EventValidationError: It has another shape, or is no array of numbers.
    """
    import numpy as np

    boxes = numbers_of(xyxy, "xyxy")
    if boxes.size == 0:
        return boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise EventValidationError("xyxy", f"must have shape (n, 4), has {boxes.shape}")
    return np.ascontiguousarray(boxes)


def centered(xyxy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return boxes of two corners, in any order, as center and size."""
    import numpy as np

    sizes = np.abs(xyxy[:, 2:] - xyxy[:, :2])
    return np.concatenate([np.minimum(xyxy[:, :2], xyxy[:, 2:]) + sizes / 2, sizes], axis=1)


def scores_of(confidence: Any, count: int) -> NDArray[np.float64]:
    """Return confidences, clipped to 0 to 1; none given is 0, as Roboflow's own blocks say it.

    Raises:
        EventValidationError: There are not `count` of them.
    """
    import numpy as np

    if confidence is None:
        return np.zeros(count)
    scores = numbers_of(confidence, "confidence")
    if scores.size == count == 0:
        return scores.reshape(0)
    if scores.shape != (count,):
        raise EventValidationError("confidence", f"must have shape ({count},), has {scores.shape}")
    # A float32 just above 1 is rounding; NaN stays, to be refused.
    return np.clip(scores, 0.0, 1.0)


def numbers_of(values: Any, name: str) -> NDArray[np.float64]:
    """Return an array of doubles of what may be a list, an array or a tensor on any device.

    Raises:
        EventValidationError: It holds something else than numbers.
    """
    import numpy as np

    if hasattr(values, "detach"):
        values = values.detach()
    if hasattr(values, "cpu"):
        values = values.cpu()
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise EventValidationError(name, f"must be an array of numbers: {error}") from error


def most_confident(scores: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the indices of the annotations that fit into an event, in the order of the input."""
    import numpy as np

    if len(scores) <= ANNOTATION_COUNT_MAX:
        return np.arange(len(scores))
    return np.sort(np.argsort(-scores, kind="stable")[:ANNOTATION_COUNT_MAX])


def names_of(
    class_ids: Sequence[Any] | None, class_names: ClassNames | None, count: int
) -> list[str]:
    """Return the classes' names by their ids; without ids they are unknown.

    Raises:
        EventValidationError: The names are no list and no mapping.
    """
    if class_names is not None:
        check_class_names(class_names)
    if class_ids is None:
        return [UNKNOWN_CLASS] * count
    return [_name_of(class_id, class_names) for class_id in class_ids]


def _name_of(class_id: Any, class_names: ClassNames | None) -> str:
    if class_id is None:
        return UNKNOWN_CLASS
    number = int(class_id)
    if isinstance(class_names, Mapping):
        return str(class_names.get(number, number))
    if class_names is not None and 0 <= number < len(class_names):
        return str(class_names[number])
    return str(number)


def seen(
    names: Sequence[str],
    boxes: NDArray[np.float64],
    scores: NDArray[np.float64],
    *,
    outlines: Sequence[Outline | None] | None = None,
    skeletons: Sequence[Sequence[Keypoint]] | None = None,
    left_out: int = 0,
    fields: ImageFields,
) -> Seen:
    """Put boxes, and what belongs to them, into an image.

    Args:
        names: Of the classes, one for each box.
        boxes: Shape (n, 4): center x, center y, width, height.
        scores: Shape (n,).
        outlines: One for each box. A box whose outline is None or has less than three points is a
            plain detection.
        skeletons: The keypoints of each box; goes before outlines.
        left_out: How many annotations there were beyond these.
        fields: The rest of the image.
    """
    rows = [
        (name, x, y, width, height, score)
        for name, (x, y, width, height), score in zip(
            names, boxes.tolist(), scores.tolist(), strict=True
        )
    ]
    detections: list[ObjectDetection] = []
    segmentations: list[InstanceSegmentation] = []
    keypoints: list[KeypointDetection] = []
    if skeletons is not None:
        keypoints = [
            KeypointDetection(*row, tuple(points))
            for row, points in zip(rows, skeletons, strict=True)
        ]
    elif outlines is not None:
        for row, outline in zip(rows, outlines, strict=True):
            if outline is not None and len(outline) >= POLYGON_POINT_COUNT_MIN:
                segmentations.append(InstanceSegmentation(*row, tuple(outline)))
            else:
                detections.append(ObjectDetection(*row))
    else:
        detections = [ObjectDetection(*row) for row in rows]
    image = Image(
        object_detections=detections,
        instance_segmentations=segmentations,
        keypoints=keypoints,
        **fields,
    )
    return Seen(image, note(left_out))


def note(left_out: int) -> dict[str, str | float | bool]:
    """Return the metadata that says how many annotations an event is without."""
    return {LEFT_OUT_KEY: left_out} if left_out else {}


def outline_of(points: Any) -> Outline:
    """Return the points of an array of shape (n, 2) as pairs of floats."""
    array = numbers_of(points, "points")
    if array.size == 0:
        return ()
    if array.ndim != 2 or array.shape[1] != 2:
        raise EventValidationError("points", f"must have shape (n, 2), has {array.shape}")
    return [(x, y) for x, y in array.tolist()]


def skeleton_of(xy: NDArray[np.float64], there: NDArray[np.bool_]) -> list[Keypoint]:
    """Return the points of one skeleton that are there, by their place in it."""
    points = enumerate(zip(xy.tolist(), there.tolist(), strict=True))
    return [Keypoint(place, x, y) for place, ((x, y), is_there) in points if is_there]
