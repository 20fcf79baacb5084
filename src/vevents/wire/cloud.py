"""Events as JSON objects of the Vision Events API.

A frame of the log becomes the id under which it was uploaded. A frame that is gone is left out,
and the event says so in its metadata: facts outlive pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from vevents import _ffi
from vevents.errors import EventValidationError
from vevents.event import (
    METADATA_KEY_COUNT_MAX,
    Event,
    FrameRef,
    Image,
    InstanceSegmentation,
    KeypointDetection,
    ObjectDetection,
    plain_number,
)

MISSING_COUNT_KEY: Final = "vevents_frames_missing"
MISSING_REASON_KEY: Final = "vevents_frames_missing_reason"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PLAIN = frozenset((str, int, float, bool))


def format_timestamp(moment: datetime | int) -> str:
    """Write a time as the API takes it: UTC, microseconds, numeric offset.

    Args:
        moment: A timezone-aware datetime, or nanoseconds since 1970, of which what is finer than
            a microsecond is cut off.

    Raises:
        ValueError: The datetime is not timezone-aware.

    Example:
        >>> format_timestamp(1_790_000_000_123_456_789)
        '2026-09-21T14:13:20.123456+00:00'
    """
    if isinstance(moment, int):
        moment = _EPOCH + timedelta(microseconds=moment // 1_000)
    elif moment.utcoffset() is None:
        raise ValueError(f"{moment} is not timezone-aware")
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def required_frames(event: Event) -> list[FrameRef]:
    """Return the frames of the log that an event names, each once, in the order of their use."""
    frames: dict[int, FrameRef] = {}
    for image in event.images:
        for frame in (image.frame, image.input_frame):
            if isinstance(frame, FrameRef):
                frames.setdefault(frame.seq, frame)
    return list(frames.values())


def event_to_json(
    event: Event,
    *,
    source_ids: Mapping[int, str],
    missing: Mapping[int, str] | None = None,
    use_case_id: str | None = None,
) -> dict[str, Any]:
    """Turn an event into the object to send, ready for `json.dumps(..., allow_nan=False)`.

    Args:
        event: A valid event with an id and a timestamp, as `codec.decode()` returns it.
        source_ids: The id of each uploaded frame, by the frame's sequence number. A frame that is
            not in it is left out. An image of which nothing is left then is left out, too, and
            `displayImagePosition` goes on pointing at the same image, or at the nearest one left.
            The number of frames left out goes into the metadata as `vevents_frames_missing`, if
            there is room for another key.
        missing: Why frames are left out, by sequence number, for example `evicted`. Goes into the
            metadata as `vevents_frames_missing_reason`, if there is room.
        use_case_id: For an event that names no use case.

    Returns:
        The object; it shares no list or dictionary with the event.

    Raises:
        EventValidationError: The event has no id, no timestamp, or no use case.
        TypeError: A frame is not in the log.

    Example:
        >>> event = Event.custom(
        ...     value="door open",
        ...     event_id="evt-1",
        ...     timestamp=datetime(2026, 10, 1, tzinfo=UTC),
        ... )
        >>> event_to_json(event, source_ids={}, use_case_id="uc7d21f0")["useCaseId"]
        'uc7d21f0'
    """
    if event.event_id is None:
        raise EventValidationError("eventId", "is missing")
    if event.timestamp is None:
        raise EventValidationError("timestamp", "is missing")
    if event.use_case_id is not None:
        use_case_id = event.use_case_id
    if use_case_id is None:
        raise EventValidationError("useCaseId", "is missing, and there is no default")
    obj: dict[str, Any] = {
        "eventId": event.event_id,
        "eventType": str(event.event_type),
        "useCaseId": use_case_id,
        "timestamp": format_timestamp(event.timestamp),
    }
    if event.device_id is not None:
        obj["deviceId"] = event.device_id
    if event.stream_id is not None:
        obj["streamId"] = event.stream_id
    if event.workflow_id is not None:
        obj["workflowId"] = event.workflow_id
    images, position = _images(event, source_ids)
    if images:
        obj["images"] = images
        if position is not None:
            obj["displayImagePosition"] = position
    # Always sent, empty or not: the API's own pages disagree on whether it may be absent.
    obj["eventData"] = {key: _value(value) for key, value in (event.data or {}).items()}
    metadata = {key: _value(value) for key, value in (event.metadata or {}).items()}
    _note_missing_frames(metadata, event, source_ids, missing or {})
    if metadata:
        obj["customMetadata"] = metadata
    return obj


def payload_to_json(
    payload: bytes, *, record_id: bytes, wall_ns: int, use_case_id: str | None = None
) -> tuple[bytes, bool] | None:
    """Turn the payload of a record into JSON at once, without an `Event` in between.

    This is the short way for what needs no more than that, written in C; the long way gives the
    same bytes.

    Args:
        payload: What `codec.encode()` or the C library wrote; it may be anything.
        record_id: The 16 bytes in the record's header.
        wall_ns: The time in the record's header.
        use_case_id: For an event that names no use case.

    Returns:
        The JSON, and whether the event names its use case. None for what has to go the long way:
        it has frames in the log, has no use case, or is no valid event, and `codec.decode()` says
        why.

    Example:
        >>> from vevents.codec import encode
        >>> json, _ = payload_to_json(
        ...     encode(Event.custom(value="door open", event_id="evt-1", use_case_id="uc7d21f0")),
        ...     record_id=bytes(16),
        ...     wall_ns=1_790_000_000_123_456_789,
        ... )
        >>> json[:46]
        b'{"eventId":"evt-1","eventType":"custom","useCa'
    """
    default = None if use_case_id is None else use_case_id.encode()
    return _ffi.event_json(payload, record_id, wall_ns, default)


def _note_missing_frames(
    metadata: dict[str, Any],
    event: Event,
    source_ids: Mapping[int, str],
    reasons: Mapping[int, str],
) -> None:
    missing = [frame.seq for frame in required_frames(event) if frame.seq not in source_ids]
    if not missing:
        return
    notes: dict[str, str | int] = {MISSING_COUNT_KEY: len(missing)}
    if known := sorted({reasons[seq] for seq in missing if seq in reasons}):
        notes[MISSING_REASON_KEY] = ", ".join(known)
    for key, value in notes.items():
        if key in metadata or len(metadata) < METADATA_KEY_COUNT_MAX:
            metadata[key] = value


def _images(event: Event, source_ids: Mapping[int, str]) -> tuple[list[dict[str, Any]], int | None]:
    """Return the image entries that have something to say, and which of them to show first."""
    images: list[dict[str, Any]] = []
    position = event.display_image_position
    shown = position
    for index, image in enumerate(event.images):
        if index == position:
            shown = len(images)
        entry = _image(image, source_ids)
        had_frame = image.frame is not None or image.input_frame is not None
        if not had_frame or entry.keys() - {"label"}:
            images.append(entry)
    return images, None if shown is None else max(0, min(int(shown), len(images) - 1))


def _image(image: Image, source_ids: Mapping[int, str]) -> dict[str, Any]:
    entry: dict[str, Any] = {}
    source_id = image.source_id or _source_id(image.frame, source_ids)
    if source_id is not None:
        entry["sourceId"] = source_id
    input_source_id = image.input_source_id or _source_id(image.input_frame, source_ids)
    if input_source_id is not None:
        entry["inputSourceId"] = input_source_id
    if image.label is not None:
        entry["label"] = image.label
    if image.object_detections:
        entry["objectDetections"] = [_box(d) for d in image.object_detections]
    if image.classifications:
        entry["classifications"] = [
            {"class": c.class_name, "confidence": _value(c.confidence)}
            for c in image.classifications
        ]
    if image.instance_segmentations:
        entry["instanceSegmentations"] = [
            {**_box(s), "points": [[_value(x), _value(y)] for x, y in s.points]}
            for s in image.instance_segmentations
        ]
    if image.keypoints:
        entry["keypoints"] = [
            {
                **_box(k),
                "keypoints": [
                    {"id": _value(p.id), "x": _value(p.x), "y": _value(p.y)} for p in k.keypoints
                ],
            }
            for k in image.keypoints
        ]
    return entry


def _source_id(frame: object, source_ids: Mapping[int, str]) -> str | None:
    if frame is None:
        return None
    if not isinstance(frame, FrameRef):
        raise TypeError(f"a frame must be in the log before it is sent, got {type(frame).__name__}")
    return source_ids.get(frame.seq)


def _box(box: ObjectDetection | InstanceSegmentation | KeypointDetection) -> dict[str, Any]:
    return {
        "class": box.class_name,
        "x": _value(box.x),
        "y": _value(box.y),
        "width": _value(box.width),
        "height": _value(box.height),
        "confidence": _value(box.confidence),
    }


def _value(value: Any) -> str | int | float:
    # json writes these as they are; numpy's other scalars it does not know.
    if type(value) in _PLAIN or isinstance(value, str | int | float):
        return value  # type: ignore[no-any-return]
    return plain_number(value)
