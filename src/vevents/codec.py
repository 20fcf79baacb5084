"""Events as bytes: one msgpack map per event, as docs/format.md specifies.

What the record's header holds is not in the payload: the sequence number, the time, and the
event's id when it is a UUID in its usual spelling (`header_id()`).

Numbers are where the bytes are. Coordinates and confidences become an integer when they are one,
else a float32: half the size of a double, finer than any detector, and far better to compress.
Reading turns a float32 into the shortest decimal that names it, so 0.913 comes back as 0.913 and
not as 0.9129999876022339. Metadata and event data keep their full precision.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Final, TypeVar

import msgpack

from vevents import _ffi
from vevents.errors import EventValidationError
from vevents.event import (
    Classification,
    Event,
    EventType,
    FrameRef,
    Image,
    InstanceSegmentation,
    Keypoint,
    KeypointDetection,
    ObjectDetection,
    plain_number,
)

# VEV_KIND_* of vevents.h: what the ring counts an event as.
KIND_OF: Final[dict[EventType, int]] = {
    EventType.QUALITY_CHECK: 1,
    EventType.INVENTORY_COUNT: 2,
    EventType.SAFETY_ALERT: 3,
    EventType.CUSTOM: 4,
    EventType.OPERATOR_FEEDBACK: 5,
}

# Every integer up to this magnitude is a float32, too, so nothing is lost by writing it shorter.
INTEGER_MAX: Final = 2**24

_ID_KEY = b"\xa7eventId"
_PLAIN_NUMBERS = frozenset((int, float))
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_EVENT_KEYS = frozenset(
    (
        "eventType",
        "useCaseId",
        "eventId",
        "deviceId",
        "streamId",
        "workflowId",
        "eventData",
        "customMetadata",
        "displayImagePosition",
        "images",
    )
)
_IMAGE_KEYS = frozenset(
    (
        "label",
        "frame",
        "inputFrame",
        "sourceId",
        "inputSourceId",
        "objectDetections",
        "classifications",
        "instanceSegmentations",
        "keypoints",
    )
)
# A msgpack map of up to 15 entries starts with one byte, which encode() relies on.
assert len(_EVENT_KEYS) <= 15


class PayloadError(EventValidationError):
    """The bytes are not the payload of a valid event; `field` is `payload` if they are no map."""


def header_id(event_id: str | None) -> bytes | None:
    """Return the 16 bytes of an id that the record's header can hold.

    Args:
        event_id: The event's id.

    Returns:
        The bytes of a lower-case UUID with hyphens. None for any other id, which then goes into
        the payload, and for None.

    Example:
        >>> header_id("5f0b7c1e-3f6a-4d52-9a3e-0d8f2b6c41aa").hex()
        '5f0b7c1e3f6a4d529a3e0d8f2b6c41aa'
        >>> header_id("evt-001") is None
        True
    """
    if event_id is None or not _UUID.fullmatch(event_id):
        return None
    return bytes.fromhex(event_id.replace("-", ""))


def encode(event: Event) -> bytes:
    """Turn an event into the payload of its record.

    Args:
        event: A valid event (`Event.validate()`), whose frames are in the log (`FrameRef`).

    Returns:
        One msgpack map. It holds neither the timestamp nor an id that fits the header.

    Raises:
        TypeError: A frame is not a `FrameRef`.
    """
    fields: dict[str, object] = {"eventType": event.event_type}
    if event.use_case_id is not None:
        fields["useCaseId"] = event.use_case_id
    if event.event_id is not None and not _UUID.fullmatch(event.event_id):
        fields["eventId"] = event.event_id
    if event.device_id is not None:
        fields["deviceId"] = event.device_id
    if event.stream_id is not None:
        fields["streamId"] = event.stream_id
    if event.workflow_id is not None:
        fields["workflowId"] = event.workflow_id
    if event.data is not None:
        fields["eventData"] = dict(event.data)
    if event.metadata is not None:
        fields["customMetadata"] = dict(event.metadata)
    if event.display_image_position is not None:
        fields["displayImagePosition"] = event.display_image_position
    # A packer for each call: one that is kept must not be used by two threads at once.
    head: bytes = msgpack.packb(fields, default=plain_number)
    if not event.images:
        return head
    # The images go through the packer that writes float32, and then into the map as its last
    # entry: its first byte is 0x80 plus the number of entries.
    images: bytes = msgpack.packb(
        [_image_map(image) for image in event.images], default=plain_number, use_single_float=True
    )
    return b"%c%b\xa6images%b" % (head[0] + 1, head[1:], images)


def decode(payload: bytes, *, event_id: str, timestamp: datetime) -> Event:
    """Turn the payload of a record back into its event.

    Args:
        payload: What `encode()` or the C library wrote. It may be anything: it is checked.
        event_id: The UUID in the record's header; an id in the payload goes before it.
        timestamp: The time in the record's header, timezone-aware.

    Returns:
        A valid event. Coordinates and confidences are rounded to float32.

    Raises:
        PayloadError: The bytes are not msgpack, have another shape, or break the contract.
    """
    try:
        # unpackb() takes the length of the payload as its bound for everything inside.
        fields = msgpack.unpackb(payload)
    except ValueError as error:
        raise PayloadError("payload", f"is not one msgpack value: {error}") from error
    except TypeError:
        raise PayloadError("payload", f"must be bytes, not {type(payload).__name__}") from None
    _check_map(fields, "", _EVENT_KEYS)
    try:
        event_type = EventType(fields.get("eventType"))
    except ValueError as error:
        raise PayloadError("eventType", f"{error!s:.80}") from None
    event = Event(
        event_type,
        use_case_id=fields.get("useCaseId"),
        data=fields.get("eventData"),
        images=_each(fields, "images", "images", _image),
        device_id=fields.get("deviceId"),
        stream_id=fields.get("streamId"),
        workflow_id=fields.get("workflowId"),
        metadata=fields.get("customMetadata"),
        display_image_position=fields.get("displayImagePosition"),
        event_id=fields.get("eventId", event_id),
        timestamp=timestamp,
    )
    try:
        event.validate()
    except EventValidationError as error:
        raise PayloadError(error.field, error.reason) from error
    return event


def payload_id(payload: bytes) -> str | None:
    """Return the id that stands in a payload, without decoding the rest.

    Args:
        payload: What `encode()` or the C library wrote; it may be anything.

    Returns:
        The id, or None: then it is the one in the record's header.

    Example:
        >>> payload_id(encode(Event.custom(value="door open", event_id="evt-001")))
        'evt-001'
    """
    if _ID_KEY not in payload:
        return None
    unpacker = msgpack.Unpacker(None)
    unpacker.feed(payload)
    try:
        for _ in range(unpacker.read_map_header()):
            if unpacker.unpack() == "eventId":
                found = unpacker.unpack()
                return found if isinstance(found, str) else None
            unpacker.skip()
    except (ValueError, msgpack.OutOfData):
        pass
    return None


# --- Writing --------------------------------------------------------------------------------


def _image_map(image: Image) -> dict[str, object]:
    fields: dict[str, object] = {}
    if image.label is not None:
        fields["label"] = image.label
    if image.frame is not None:
        fields["frame"] = _reference(image.frame)
    if image.input_frame is not None:
        fields["inputFrame"] = _reference(image.input_frame)
    if image.source_id is not None:
        fields["sourceId"] = image.source_id
    if image.input_source_id is not None:
        fields["inputSourceId"] = image.input_source_id
    if image.object_detections:
        fields["objectDetections"] = [
            [d.class_name, *_numbers((d.x, d.y, d.width, d.height, d.confidence))]
            for d in image.object_detections
        ]
    if image.classifications:
        fields["classifications"] = [
            [c.class_name, *_numbers((c.confidence,))] for c in image.classifications
        ]
    if image.instance_segmentations:
        fields["instanceSegmentations"] = [
            [
                s.class_name,
                *_numbers((s.x, s.y, s.width, s.height, s.confidence)),
                _numbers([value for point in s.points for value in point]),
            ]
            for s in image.instance_segmentations
        ]
    if image.keypoints:
        fields["keypoints"] = [
            [
                k.class_name,
                *_numbers((k.x, k.y, k.width, k.height, k.confidence)),
                [
                    value
                    for point in k.keypoints
                    for value in (point.id, *_numbers((point.x, point.y)))
                ],
            ]
            for k in image.keypoints
        ]
    return fields


def _reference(frame: object) -> list[object]:
    if not isinstance(frame, FrameRef):
        raise TypeError(f"a frame must be in the log before its event, got {type(frame).__name__}")
    return [frame.seq, frame.digest, frame.size]


def _numbers(values: Iterable[Any]) -> list[int | float]:
    return [v if type(v) is float and not v.is_integer() else _number(v) for v in values]


def _number(value: Any) -> int | float:
    number = value if type(value) in _PLAIN_NUMBERS else plain_number(value)
    if -INTEGER_MAX <= number <= INTEGER_MAX and number == int(number):
        return int(number)
    return float(number)


# --- Reading --------------------------------------------------------------------------------

_Item = TypeVar("_Item")


def _check_map(value: object, path: str, keys: frozenset[str]) -> None:
    if type(value) is not dict:
        raise PayloadError(path or "payload", f"must be a map, not {type(value).__name__}")
    for key, item in value.items():
        # An unknown key is refused, not passed over: the event may be of a newer vevents, and
        # delivering half of it would lose the other half for good.
        if key not in keys:
            raise PayloadError(path or "payload", f"has an unknown key {key!r:.80}")
        if item is None:
            raise PayloadError(f"{path}.{key}" if path else key, "must not be nil")


def _each(
    fields: dict[str, Any], key: str, path: str, build: Callable[[Any, str], _Item]
) -> tuple[_Item, ...]:
    values = fields.get(key)
    if values is None:
        return ()
    if type(values) is not list:
        raise PayloadError(path, f"must be an array, not {type(values).__name__}")
    return tuple([build(value, f"{path}[{index}]") for index, value in enumerate(values)])


def _row(value: object, path: str, length: int) -> list[Any]:
    if type(value) is not list or len(value) != length:
        raise PayloadError(path, f"must be an array of {length}")
    return value


def _flat(value: object, path: str, stride: int) -> list[Any]:
    if type(value) is not list or len(value) % stride:
        raise PayloadError(path, f"must be an array of {stride} values for each point")
    return value


def _image(value: Any, path: str) -> Image:
    _check_map(value, path, _IMAGE_KEYS)
    return Image(
        _frame(value.get("frame"), f"{path}.frame"),
        input_frame=_frame(value.get("inputFrame"), f"{path}.inputFrame"),
        label=value.get("label"),
        source_id=value.get("sourceId"),
        input_source_id=value.get("inputSourceId"),
        object_detections=_each(value, "objectDetections", f"{path}.objectDetections", _detection),
        classifications=_each(value, "classifications", f"{path}.classifications", _classification),
        instance_segmentations=_each(
            value, "instanceSegmentations", f"{path}.instanceSegmentations", _segmentation
        ),
        keypoints=_each(value, "keypoints", f"{path}.keypoints", _skeleton),
    )


def _frame(value: object, path: str) -> FrameRef | None:
    return None if value is None else FrameRef(*_row(value, path, 3))


def _detection(value: object, path: str) -> ObjectDetection:
    class_name, *box = _row(value, path, 6)
    return ObjectDetection(class_name, *map(_shortest, box))


def _classification(value: object, path: str) -> Classification:
    class_name, confidence = _row(value, path, 2)
    return Classification(class_name, _shortest(confidence))


def _segmentation(value: object, path: str) -> InstanceSegmentation:
    class_name, x, y, width, height, confidence, points = _row(value, path, 7)
    flat = [_shortest(v) for v in _flat(points, path, 2)]
    return InstanceSegmentation(
        class_name,
        _shortest(x),
        _shortest(y),
        _shortest(width),
        _shortest(height),
        _shortest(confidence),
        tuple(zip(flat[0::2], flat[1::2], strict=True)),
    )


def _skeleton(value: object, path: str) -> KeypointDetection:
    class_name, x, y, width, height, confidence, points = _row(value, path, 7)
    flat = _flat(points, path, 3)
    return KeypointDetection(
        class_name,
        _shortest(x),
        _shortest(y),
        _shortest(width),
        _shortest(height),
        _shortest(confidence),
        tuple(
            Keypoint(number, _shortest(px), _shortest(py))
            for number, px, py in zip(flat[0::3], flat[1::3], flat[2::3], strict=True)
        ),
    )


def _shortest(value: Any) -> Any:
    """Return the float with the fewest digits that rounds to the same float32.

    What is no float32 (an integer, or a value that validate() will refuse) is returned as it is.
    """
    return _ffi.shortest(value) if type(value) is float else value
