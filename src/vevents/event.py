"""The event model: what a vision event may hold, and the checks that say so before it is written.

An event says what was seen (`EventType` and `Event.data`), where it was seen (`device_id`,
`stream_id`, `workflow_id`), and what the model found on which image (`Image` with its four lists
of annotations). The limits are those of the Vision Events API. They are checked here and not left
to the server, because the server keeps an event that breaks them and silently drops its images.

Everything is a frozen dataclass. Construction does not check values, so that building an event
costs little and never raises in the middle of an inference loop; `Event.validate()` checks
everything at once, and the log calls it on append. Errors name the field by its path on the wire,
for example `images[0].objectDetections[2].confidence`.

This module reads no clock: whether a timestamp is recent enough for the server is decided when
the event is sent, not when it is made.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Final, TypedDict, TypeVar, Unpack

from vevents.errors import EventValidationError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

ID_LENGTH_MAX: Final = 256
EXTERNAL_ID_LENGTH_MAX: Final = 1_000
TEXT_LENGTH_MAX: Final = 10_000
ANNOTATION_COUNT_MAX: Final = 1_000
POLYGON_POINT_COUNT_MIN: Final = 3
METADATA_KEY_COUNT_MAX: Final = 100
METADATA_KEY_LENGTH_MAX: Final = 100
METADATA_TEXT_LENGTH_MAX: Final = 1_000
DIGEST_SIZE: Final = 16

# Coordinates are stored as float32. This is the shortest decimal of the largest one, and therefore
# a hair above it.
COORDINATE_MAX: Final = 3.4028235e38
# What one msgpack integer can hold.
INT_MIN: Final = -(2**63)
INT_MAX: Final = 2**64 - 1

_METADATA_KEY = re.compile(r"[a-zA-Z0-9_ -]+")
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_]{1,60}")
_ALERT_TYPE = re.compile(r"[A-Za-z0-9_-]+")
_TIMESTAMP = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})"
)
# A record keeps its time as nanoseconds since 1970 in 64 bits.
_TIME_MIN = datetime(1970, 1, 1, tzinfo=UTC)
_TIME_MAX = datetime(2262, 1, 1, tzinfo=UTC)

_PLAIN_NUMBERS = frozenset((int, float))


class EventType(StrEnum):
    """What an event reports. The values are those of the wire."""

    QUALITY_CHECK = "quality_check"
    INVENTORY_COUNT = "inventory_count"
    SAFETY_ALERT = "safety_alert"
    CUSTOM = "custom"
    OPERATOR_FEEDBACK = "operator_feedback"


@dataclass(frozen=True, slots=True)
class FrameRef:
    """A frame that is in the log already.

    Attributes:
        seq: Sequence number in the media ring; the first is 1.
        digest: BLAKE2b-128 of the image's bytes, 16 bytes.
        size: Bytes of the image.
    """

    seq: int
    digest: bytes
    size: int


# RGB of shape (height, width, 3), or gray of shape (height, width).
if TYPE_CHECKING:
    Pixels = NDArray[np.uint8]
else:
    # Who asks for types at run time (typing.get_type_hints; pydantic, sphinx) may have no numpy.
    Pixels = Any
Picture = bytes | os.PathLike[str] | Pixels
Frame = Picture | FrameRef


@dataclass(frozen=True, slots=True)
class _Box:
    class_name: str
    x: float
    y: float
    width: float
    height: float
    confidence: float


@dataclass(frozen=True, slots=True)
class ObjectDetection(_Box):
    """One box. `x`, `y` are its center, all four values absolute pixels; confidence 0 to 1."""


@dataclass(frozen=True, slots=True)
class Classification:
    """One class of the whole image; confidence 0 to 1."""

    class_name: str
    confidence: float


@dataclass(frozen=True, slots=True)
class InstanceSegmentation(_Box):
    """One box with its outline: at least three `(x, y)` points in absolute pixels."""

    points: Sequence[tuple[float, float]]

    def __post_init__(self) -> None:
        # Lists become tuples, here and below, so that a frozen object does not change under its
        # holder. Anything else is left as it is for validate() to name.
        if type(self.points) is list:
            points = tuple(tuple(p) if type(p) is list else p for p in self.points)
            object.__setattr__(self, "points", points)


@dataclass(frozen=True, slots=True)
class Keypoint:
    """One point of a skeleton, in absolute pixels. `id` is its number in the model's skeleton."""

    id: int
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class KeypointDetection(_Box):
    """One box with the keypoints that were found inside it."""

    keypoints: Sequence[Keypoint]

    def __post_init__(self) -> None:
        if type(self.keypoints) is list:
            object.__setattr__(self, "keypoints", tuple(self.keypoints))


@dataclass(frozen=True, slots=True)
class Image:
    """One moment: the image shown, the image the model saw, and what the model found.

    A frame is an encoded image (`bytes`), the path of one, an array that the log encodes (RGB
    `uint8` of shape `(height, width, 3)`, or gray of shape `(height, width)`), or a frame that is
    in the log already (`FrameRef`). An image uploaded earlier is named by its id instead.

    Coordinates and confidences are kept as float32, about seven digits: 1234.56789 is read back and
    delivered as 1234.5679.

    Attributes:
        frame: The image to show.
        input_frame: The image that the model saw; annotations refer to it.
        label: Free text, for example the camera's name.
        source_id: Id of an uploaded image, in place of `frame`.
        input_source_id: Id of an uploaded image, in place of `input_frame`.
        object_detections: At most 1,000, as every list here.
        classifications: Classes of the whole image.
        instance_segmentations: Boxes with outlines.
        keypoints: Boxes with skeletons.
    """

    # Frames stay out of the repr: megabytes of bytes do not belong in a log line.
    frame: Frame | None = field(default=None, repr=False)
    _: KW_ONLY
    input_frame: Frame | None = field(default=None, repr=False)
    label: str | None = None
    source_id: str | None = None
    input_source_id: str | None = None
    object_detections: Sequence[ObjectDetection] = ()
    classifications: Sequence[Classification] = ()
    instance_segmentations: Sequence[InstanceSegmentation] = ()
    keypoints: Sequence[KeypointDetection] = ()

    def __post_init__(self) -> None:
        if type(self.object_detections) is list:
            object.__setattr__(self, "object_detections", tuple(self.object_detections))
        if type(self.classifications) is list:
            object.__setattr__(self, "classifications", tuple(self.classifications))
        if type(self.instance_segmentations) is list:
            object.__setattr__(self, "instance_segmentations", tuple(self.instance_segmentations))
        if type(self.keypoints) is list:
            object.__setattr__(self, "keypoints", tuple(self.keypoints))


class EventFields(TypedDict, total=False):
    """What every kind of event may carry; the keyword arguments of `Event.custom()` and others."""

    use_case_id: str | None
    images: Sequence[Image]
    device_id: str | None
    stream_id: str | None
    workflow_id: str | None
    metadata: Mapping[str, str | float | bool] | None
    display_image_position: int | None
    event_id: str | None
    timestamp: datetime | None


@dataclass(frozen=True, slots=True)
class Event:
    """One vision event.

    Attributes:
        event_type: What the event reports.
        use_case_id: Use case that receives it; None leaves the choice to the flusher's setting.
        data: The payload of the event's type, by its names on the wire, for example
            `{"result": "fail", "externalId": "lot-7"}`.
        images: The moments that belong to the event.
        device_id: At most 256 characters, as the other ids.
        stream_id: The camera or stream on the device.
        workflow_id: The workflow or program that made the event.
        metadata: At most 100 flat entries; strings up to 1,000 characters, numbers and booleans.
        display_image_position: Index into `images` of the one to show first.
        event_id: None lets the log make a random UUID.
        timestamp: When it was seen, timezone-aware; None takes the time of the append.

    Example:
        >>> event = Event.quality_check(
        ...     result="fail",
        ...     external_id="lot-88213-0047",
        ...     device_id="press-03",
        ...     images=[Image(object_detections=[ObjectDetection("burr", 81.5, 40, 37, 22, 0.9)])],
        ... )
        >>> event.validate()
        >>> dict(event.data)
        {'result': 'fail', 'externalId': 'lot-88213-0047'}
    """

    event_type: EventType
    use_case_id: str | None = None
    data: Mapping[str, Any] | None = None
    _: KW_ONLY
    images: Sequence[Image] = ()
    device_id: str | None = None
    stream_id: str | None = None
    workflow_id: str | None = None
    metadata: Mapping[str, str | float | bool] | None = None
    display_image_position: int | None = None
    event_id: str | None = None
    timestamp: datetime | None = None

    def __post_init__(self) -> None:
        if type(self.images) is list:
            object.__setattr__(self, "images", tuple(self.images))

    @classmethod
    def quality_check(
        cls, *, result: str, external_id: str | None = None, **fields: Unpack[EventFields]
    ) -> Event:
        """Make an event that reports a check: `result` is `pass` or `fail`."""
        data = _present(result=result, externalId=external_id)
        return cls(EventType.QUALITY_CHECK, data=data, **fields)

    @classmethod
    def inventory_count(
        cls,
        *,
        item_count: int,
        item_type: str | None = None,
        location: str | None = None,
        external_id: str | None = None,
        **fields: Unpack[EventFields],
    ) -> Event:
        """Make an event that reports how many items of a type are at a location."""
        data = _present(
            location=location, itemCount=item_count, itemType=item_type, externalId=external_id
        )
        return cls(EventType.INVENTORY_COUNT, data=data, **fields)

    @classmethod
    def safety_alert(
        cls,
        *,
        alert_type: str,
        severity: str | None = None,
        description: str | None = None,
        external_id: str | None = None,
        **fields: Unpack[EventFields],
    ) -> Event:
        """Make an alert. `alert_type` is of letters, digits, `_` and `-`; severity low to high."""
        data = _present(
            alertType=alert_type,
            severity=severity,
            description=description,
            externalId=external_id,
        )
        return cls(EventType.SAFETY_ALERT, data=data, **fields)

    @classmethod
    def custom(
        cls, *, value: str, external_id: str | None = None, **fields: Unpack[EventFields]
    ) -> Event:
        """Make an event with a free text of at most 10,000 characters."""
        data = _present(value=value, externalId=external_id)
        return cls(EventType.CUSTOM, data=data, **fields)

    @classmethod
    def operator_feedback(
        cls, *, related_event_id: str, feedback: str, **fields: Unpack[EventFields]
    ) -> Event:
        """Make a verdict on an earlier event: `correct`, `incorrect` or `inconclusive`."""
        data = _present(relatedEventId=related_event_id, feedback=feedback)
        return cls(EventType.OPERATOR_FEEDBACK, data=data, **fields)

    @classmethod
    def from_json(cls, obj: object) -> Event:
        """Build an event from a parsed JSON object of the cloud's shape.

        An image entry may hold `frame` and `inputFrame`, paths of image files, where the cloud
        has `sourceId` and `inputSourceId`. `eventId`, `timestamp` and `useCaseId` may be absent.

        Args:
            obj: What `json.loads` returned.

        Returns:
            A valid event.

        Raises:
            EventValidationError: A key is unknown or missing, or a value breaks a limit. The
                error names the field.

        Example:
            >>> event = Event.from_json({"eventType": "custom", "eventData": {"value": "door"}})
            >>> event.event_type
            <EventType.CUSTOM: 'custom'>
        """
        fields = _json_object(obj, "", _EVENT_KEYS, required=("eventType",))
        try:
            event_type = EventType(fields["eventType"])
        except ValueError:
            raise _bad_event_type(fields["eventType"]) from None
        timestamp = fields.get("timestamp")
        images = _json_array(fields.get("images", []), "images")
        event = cls(
            event_type,
            use_case_id=fields.get("useCaseId"),
            data=fields.get("eventData"),
            images=tuple(_image_from_json(image, i) for i, image in enumerate(images)),
            device_id=fields.get("deviceId"),
            stream_id=fields.get("streamId"),
            workflow_id=fields.get("workflowId"),
            metadata=fields.get("customMetadata"),
            display_image_position=fields.get("displayImagePosition"),
            event_id=fields.get("eventId"),
            timestamp=None if timestamp is None else parse_timestamp(timestamp),
        )
        event.validate()
        return event

    def validate(self) -> None:
        """Check every limit of the contract.

        Frames are checked for their type only; the log looks into them when it encodes them.

        Raises:
            EventValidationError: A field breaks a limit; the first one found is named.
        """
        event_type = self.event_type
        if not isinstance(event_type, str) or event_type not in _DATA_RULES:
            raise _bad_event_type(event_type)
        if self.event_id is not None:
            _check_id(self.event_id, "eventId")
        if self.use_case_id is not None:
            _check_id(self.use_case_id, "useCaseId")
        if self.device_id is not None:
            _check_id(self.device_id, "deviceId")
        if self.stream_id is not None:
            _check_id(self.stream_id, "streamId")
        if self.workflow_id is not None:
            _check_id(self.workflow_id, "workflowId")
        if self.timestamp is not None:
            _check_timestamp(self.timestamp)
        _check_data(event_type, self.data)
        if self.metadata is not None:
            _check_metadata(self.metadata)
        images = self.images
        if type(images) is not tuple:
            raise EventValidationError("images", f"must be a list, not {_type_name(images)}")
        for index, image in enumerate(images):
            _check_image(image, f"images[{index}]")
        if self.display_image_position is not None:
            _check_position(self.display_image_position, len(images))


def parse_timestamp(text: object) -> datetime:
    """Parse a timestamp as it stands on the wire.

    Args:
        text: ISO 8601 date and time with `Z` or a numeric offset, seconds with up to nine
            decimals; what is finer than a microsecond is cut off.

    Raises:
        EventValidationError: It is another form, has no offset, or names no moment.

    Example:
        >>> parse_timestamp("2026-10-01T06:14:09.482Z").isoformat()
        '2026-10-01T06:14:09.482000+00:00'
    """
    if not isinstance(text, str) or not _TIMESTAMP.fullmatch(text):
        raise EventValidationError(
            "timestamp",
            "must be ISO 8601 with an offset, like 2026-10-01T06:14:09.482Z or "
            f"2026-10-01T06:14:09.482000+00:00, got {_short(text)}",
        )
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise EventValidationError("timestamp", f"names no moment: {error}") from None


def plain_number(value: Any) -> int | float:
    """Return a valid number as `int` or `float`; numpy's scalars keep their value."""
    return int(value) if isinstance(value, Integral) else float(value)


def uuid_text(id_: bytes) -> str:
    """Spell 16 bytes as a UUID, without the 7 ms that importing `uuid` takes.

    Example:
        >>> uuid_text(bytes.fromhex("5f0b7c1e3f6a4d529a3e0d8f2b6c41aa"))
        '5f0b7c1e-3f6a-4d52-9a3e-0d8f2b6c41aa'
    """
    digits = id_.hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _present(**fields: object) -> dict[str, object]:
    return {key: value for key, value in fields.items() if value is not None}


# --- Messages -------------------------------------------------------------------------------


def _type_name(value: object) -> str:
    # With its module: "must be a bool, not bool" would puzzle the owner of a numpy.bool.
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def _short(value: object) -> str:
    # Cut before it is made printable: Python refuses to print integers of thousands of digits.
    if isinstance(value, int) and value.bit_length() > 128:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, str):
        return repr(value) if len(value) <= 60 else f"{value[:60]!r}..."
    return repr(value) if isinstance(value, int | float | None) else _type_name(value)


def _member(path: str, key: object) -> str:
    """Return the path of a key that somebody else chose: printable and short, whatever it is."""
    if isinstance(key, str) and _PLAIN_KEY.fullmatch(key):
        return f"{path}.{key}" if path else key
    return f"{path}[{_short(key)}]"


def _bad_event_type(value: object) -> EventValidationError:
    return EventValidationError(
        "eventType", f"must be one of {', '.join(EventType)}, got {_short(value)}"
    )


# --- Values ---------------------------------------------------------------------------------


def _check_text(value: object, path: str, length_max: int | None = None) -> None:
    if not isinstance(value, str):
        raise EventValidationError(path, f"must be a string, not {_type_name(value)}")
    if length_max is not None and len(value) > length_max:
        raise EventValidationError(
            path, f"must have at most {length_max:,} characters, has {len(value):,}"
        )
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise EventValidationError(
                path, f"has a lone surrogate at character {error.start}, which UTF-8 cannot hold"
            ) from None


def _check_id(value: object, path: str) -> None:
    _check_text(value, path, ID_LENGTH_MAX)
    if not value:
        raise EventValidationError(path, f"must have 1 to {ID_LENGTH_MAX} characters, is empty")


def _real(value: object, path: str) -> int | float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise EventValidationError(path, f"must be a number, not {_type_name(value)}")
    try:
        return plain_number(value)
    except OverflowError:
        raise EventValidationError(path, "must be finite") from None


def _check_range(value: object, path: str, low: float, high: float, rule: str) -> None:
    number = _real(value, path)
    if not low <= number <= high:  # NaN fails this, too
        raise EventValidationError(path, f"must be {rule}, got {_short(number)}")


def _check_coordinate(value: object, path: str) -> None:
    _check_range(value, path, -COORDINATE_MAX, COORDINATE_MAX, "a finite float32")


def _check_extent(value: object, path: str) -> None:
    _check_range(value, path, 0.0, COORDINATE_MAX, "a finite float32, 0 or more")


def _check_integer(
    value: object, path: str, low: int = INT_MIN, high: int = INT_MAX, rule: str = "64 bits wide"
) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise EventValidationError(path, f"must be an integer, not {_type_name(value)}")
    if not low <= int(value) <= high:
        raise EventValidationError(path, f"must be {rule}, got {_short(int(value))}")


def _check_timestamp(value: object) -> None:
    if not isinstance(value, datetime):
        raise EventValidationError("timestamp", f"must be a datetime, not {_type_name(value)}")
    if value.utcoffset() is None:
        raise EventValidationError("timestamp", "must be timezone-aware, has no offset")
    if not _TIME_MIN <= value < _TIME_MAX:
        raise EventValidationError("timestamp", f"must lie in 1970 to 2261, got {value}")


def _check_position(value: object, image_count: int) -> None:
    path = "displayImagePosition"
    if not image_count:
        raise EventValidationError(path, "must be absent: the event has no images")
    _check_integer(value, path, 0, image_count - 1, f"an index into images, 0 to {image_count - 1}")


# --- eventData ------------------------------------------------------------------------------

_Check = Callable[[object, str], None]


def _text_rule(length_max: int | None = None) -> _Check:
    def check(value: object, path: str) -> None:
        _check_text(value, path, length_max)

    return check


def _choice_rule(*choices: str) -> _Check:
    def check(value: object, path: str) -> None:
        if not isinstance(value, str) or value not in choices:
            raise EventValidationError(
                path, f"must be one of {', '.join(choices)}, got {_short(value)}"
            )

    return check


def _check_alert_type(value: object, path: str) -> None:
    _check_text(value, path)
    if not _ALERT_TYPE.fullmatch(str(value)):
        raise EventValidationError(
            path, f"must be letters, digits, '_' and '-', at least one, got {_short(value)}"
        )


_EXTERNAL_ID = _text_rule(EXTERNAL_ID_LENGTH_MAX)
_DATA_RULES: Final[dict[str, dict[str, _Check]]] = {
    EventType.QUALITY_CHECK: {
        "result": _choice_rule("pass", "fail"),
        "externalId": _EXTERNAL_ID,
    },
    EventType.INVENTORY_COUNT: {
        "location": _text_rule(),
        "itemCount": _check_integer,
        "itemType": _text_rule(),
        "externalId": _EXTERNAL_ID,
    },
    EventType.SAFETY_ALERT: {
        "alertType": _check_alert_type,
        "severity": _choice_rule("low", "medium", "high"),
        "description": _text_rule(TEXT_LENGTH_MAX),
        "externalId": _EXTERNAL_ID,
    },
    EventType.CUSTOM: {
        "value": _text_rule(TEXT_LENGTH_MAX),
        "externalId": _EXTERNAL_ID,
    },
    EventType.OPERATOR_FEEDBACK: {
        "relatedEventId": _check_id,
        "feedback": _choice_rule("correct", "incorrect", "inconclusive"),
    },
}
# The reference does not say which keys are mandatory. An event of a type without the value that
# gives the type its meaning is refused, because a server may do so after the event has left us.
_DATA_REQUIRED: Final[dict[str, tuple[str, ...]]] = {
    EventType.QUALITY_CHECK: ("result",),
    EventType.INVENTORY_COUNT: ("itemCount",),
    EventType.SAFETY_ALERT: ("alertType",),
    EventType.CUSTOM: ("value",),
    EventType.OPERATOR_FEEDBACK: ("relatedEventId", "feedback"),
}


def _check_data(event_type: str, data: object) -> None:
    if data is None:
        data = {}
    elif not isinstance(data, Mapping):
        raise EventValidationError("eventData", f"must be a mapping, not {_type_name(data)}")
    rules = _DATA_RULES[event_type]
    for key, value in data.items():
        check = rules.get(key) if isinstance(key, str) else None
        if check is None:
            raise EventValidationError(
                _member("eventData", key),
                f"is no key of {event_type}; there are {', '.join(rules)}",
            )
        check(value, f"eventData.{key}")
    for key in _DATA_REQUIRED[event_type]:
        if key not in data:
            raise EventValidationError(f"eventData.{key}", f"is missing; {event_type} needs it")


def _check_metadata(metadata: object) -> None:
    if not isinstance(metadata, Mapping):
        raise EventValidationError(
            "customMetadata", f"must be a mapping, not {_type_name(metadata)}"
        )
    if len(metadata) > METADATA_KEY_COUNT_MAX:
        raise EventValidationError(
            "customMetadata",
            f"must have at most {METADATA_KEY_COUNT_MAX} keys, has {len(metadata)}",
        )
    for key, value in metadata.items():
        if (
            not isinstance(key, str)
            or len(key) > METADATA_KEY_LENGTH_MAX
            or not _METADATA_KEY.fullmatch(key)
        ):
            raise EventValidationError(
                _member("customMetadata", key),
                f"key must have 1 to {METADATA_KEY_LENGTH_MAX} letters, digits, '_', '-' or spaces",
            )
        if isinstance(value, str):
            if len(value) > METADATA_TEXT_LENGTH_MAX or not value.isascii():
                _check_text(value, _member("customMetadata", key), METADATA_TEXT_LENGTH_MAX)
        elif isinstance(value, float):
            if not math.isfinite(value):
                raise EventValidationError(_member("customMetadata", key), "must be finite")
        elif not isinstance(value, bool):
            _check_metadata_number(value, _member("customMetadata", key))


def _check_metadata_number(value: object, path: str) -> None:
    if isinstance(value, Integral):
        _check_integer(value, path)
    elif isinstance(value, Real):
        if not math.isfinite(_real(value, path)):
            raise EventValidationError(path, "must be finite")
    else:
        raise EventValidationError(
            path, f"must be a string, number or boolean, not {_type_name(value)}"
        )


# --- Images ---------------------------------------------------------------------------------


def _check_image(image: object, path: str) -> None:
    if not isinstance(image, Image):
        raise EventValidationError(path, f"must be an Image, not {_type_name(image)}")
    if image.label is not None:
        _check_text(image.label, f"{path}.label")
    if image.frame is not None or image.source_id is not None:
        _check_frame(image.frame, image.source_id, path, "frame", "sourceId")
    if image.input_frame is not None or image.input_source_id is not None:
        _check_frame(image.input_frame, image.input_source_id, path, "inputFrame", "inputSourceId")
    _check_list(image.object_detections, path, "objectDetections", ObjectDetection)
    _check_list(image.classifications, path, "classifications", Classification)
    _check_list(image.instance_segmentations, path, "instanceSegmentations", InstanceSegmentation)
    _check_list(image.keypoints, path, "keypoints", KeypointDetection)


def _check_frame(frame: object, source_id: object, path: str, frame_key: str, id_key: str) -> None:
    if source_id is not None:
        if frame is not None:
            raise EventValidationError(f"{path}.{id_key}", f"excludes {frame_key}; give one")
        _check_text(source_id, f"{path}.{id_key}")
        if not source_id:
            raise EventValidationError(f"{path}.{id_key}", "must not be empty")
    elif isinstance(frame, FrameRef):
        _check_integer(frame.seq, f"{path}.{frame_key}.seq", 1, INT_MAX, "1 or more, 64 bits wide")
        if type(frame.digest) is not bytes or len(frame.digest) != DIGEST_SIZE:
            raise EventValidationError(f"{path}.{frame_key}.digest", f"must be {DIGEST_SIZE} bytes")
        _check_integer(
            frame.size, f"{path}.{frame_key}.size", 1, INT_MAX, "1 or more, 64 bits wide"
        )
    elif isinstance(frame, str):
        raise EventValidationError(
            f"{path}.{frame_key}", "must not be a str; wrap a path in pathlib.Path"
        )
    elif not (
        # Arrays are known by their element type, so that numpy need not be loaded to tell.
        isinstance(frame, bytes | os.PathLike) or hasattr(frame, "dtype")
    ):
        raise EventValidationError(
            f"{path}.{frame_key}",
            f"must be bytes, a path, an array or a FrameRef, not {_type_name(frame)}",
        )


def _check_list(
    entries: object, path: str, key: str, kind: type[_Box] | type[Classification]
) -> None:
    if type(entries) is not tuple:
        raise EventValidationError(f"{path}.{key}", f"must be a list, not {_type_name(entries)}")
    if not entries:
        return
    path = f"{path}.{key}"
    if len(entries) > ANNOTATION_COUNT_MAX:
        raise EventValidationError(
            path, f"must have at most {ANNOTATION_COUNT_MAX:,} entries, has {len(entries):,}"
        )
    for index, entry in enumerate(entries):
        if not isinstance(entry, kind):
            raise EventValidationError(
                f"{path}[{index}]", f"must be {kind.__name__}, not {_type_name(entry)}"
            )
        if isinstance(entry, _Box):
            _check_box(entry, path, index)
            if isinstance(entry, InstanceSegmentation):
                _check_polygon(entry.points, f"{path}[{index}].points")
            elif isinstance(entry, KeypointDetection):
                _check_keypoints(entry.keypoints, f"{path}[{index}].keypoints")
        else:
            _check_text(entry.class_name, f"{path}[{index}].class")
            _check_range(entry.confidence, f"{path}[{index}].confidence", 0, 1, "0 to 1")


def _check_box(box: _Box, path: str, index: int) -> None:
    name, x, y = box.class_name, box.x, box.y
    width, height, confidence = box.width, box.height, box.confidence
    # One expression for the box as it nearly always comes. What does not pass is looked at again,
    # value by value, which finds the culprit or lets an unusual kind of number through.
    if (
        type(name) is str
        and name.isascii()
        and type(x) in _PLAIN_NUMBERS
        and type(y) in _PLAIN_NUMBERS
        and type(width) in _PLAIN_NUMBERS
        and type(height) in _PLAIN_NUMBERS
        and type(confidence) in _PLAIN_NUMBERS
        and -COORDINATE_MAX <= x <= COORDINATE_MAX
        and -COORDINATE_MAX <= y <= COORDINATE_MAX
        and 0.0 <= width <= COORDINATE_MAX
        and 0.0 <= height <= COORDINATE_MAX
        and 0.0 <= confidence <= 1.0
    ):
        return
    path = f"{path}[{index}]"
    _check_text(name, f"{path}.class")
    _check_coordinate(x, f"{path}.x")
    _check_coordinate(y, f"{path}.y")
    _check_extent(width, f"{path}.width")
    _check_extent(height, f"{path}.height")
    _check_range(confidence, f"{path}.confidence", 0, 1, "0 to 1")


def _check_polygon(points: object, path: str) -> None:
    if type(points) is not tuple:
        raise EventValidationError(path, f"must be a list, not {_type_name(points)}")
    if len(points) < POLYGON_POINT_COUNT_MIN:
        raise EventValidationError(
            path, f"must have at least {POLYGON_POINT_COUNT_MIN} points, has {len(points)}"
        )
    for index, point in enumerate(points):
        if type(point) is not tuple or len(point) != 2:
            raise EventValidationError(f"{path}[{index}]", "must be a pair (x, y)")
        x, y = point
        if (
            type(x) is float
            and type(y) is float
            and -COORDINATE_MAX <= x <= COORDINATE_MAX
            and -COORDINATE_MAX <= y <= COORDINATE_MAX
        ):
            continue
        _check_coordinate(x, f"{path}[{index}][0]")
        _check_coordinate(y, f"{path}[{index}][1]")


def _check_keypoints(keypoints: object, path: str) -> None:
    if type(keypoints) is not tuple:
        raise EventValidationError(path, f"must be a list, not {_type_name(keypoints)}")
    for index, keypoint in enumerate(keypoints):
        if not isinstance(keypoint, Keypoint):
            raise EventValidationError(
                f"{path}[{index}]", f"must be Keypoint, not {_type_name(keypoint)}"
            )
        _check_integer(keypoint.id, f"{path}[{index}].id")
        _check_coordinate(keypoint.x, f"{path}[{index}].x")
        _check_coordinate(keypoint.y, f"{path}[{index}].y")


# --- JSON -----------------------------------------------------------------------------------

_EVENT_KEYS = (
    "eventId",
    "eventType",
    "useCaseId",
    "timestamp",
    "deviceId",
    "streamId",
    "workflowId",
    "images",
    "displayImagePosition",
    "eventData",
    "customMetadata",
)
_IMAGE_KEYS = (
    "sourceId",
    "inputSourceId",
    "frame",
    "inputFrame",
    "label",
    "objectDetections",
    "classifications",
    "instanceSegmentations",
    "keypoints",
)
_BOX_KEYS = ("class", "x", "y", "width", "height", "confidence")


def _json_object(
    value: object, path: str, keys: Sequence[str], required: Sequence[str]
) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise EventValidationError(
            path or "event", f"must be a JSON object, not {_type_name(value)}"
        )
    for key, item in value.items():
        if key not in keys:
            raise EventValidationError(
                _member(path, key), f"is no known key; there are {', '.join(keys)}"
            )
        if item is None:
            raise EventValidationError(_member(path, key), "must not be null; leave the key out")
    for key in required:
        if key not in value:
            raise EventValidationError(_member(path, key), "is missing")
    return value


def _json_array(value: object, path: str) -> list[Any]:
    if not isinstance(value, list):
        raise EventValidationError(path, f"must be a JSON array, not {_type_name(value)}")
    return value


def _image_from_json(value: object, index: int) -> Image:
    path = f"images[{index}]"
    fields = _json_object(value, path, _IMAGE_KEYS, required=())
    return Image(
        _path_from_json(fields.get("frame"), f"{path}.frame"),
        input_frame=_path_from_json(fields.get("inputFrame"), f"{path}.inputFrame"),
        label=fields.get("label"),
        source_id=fields.get("sourceId"),
        input_source_id=fields.get("inputSourceId"),
        object_detections=_entries(fields, path, "objectDetections", _detection_from_json),
        classifications=_entries(fields, path, "classifications", _classification_from_json),
        instance_segmentations=_entries(
            fields, path, "instanceSegmentations", _segmentation_from_json
        ),
        keypoints=_entries(fields, path, "keypoints", _skeleton_from_json),
    )


def _path_from_json(value: object, path: str) -> Path | None:
    from pathlib import Path

    if value is None:
        return None
    if not isinstance(value, str) or not value or "\0" in value:
        raise EventValidationError(path, f"must be the path of an image file, got {_short(value)}")
    return Path(value)


_Entry = TypeVar("_Entry")


def _entries(
    fields: dict[str, Any], path: str, key: str, build: Callable[[object, str], _Entry]
) -> tuple[_Entry, ...]:
    path = f"{path}.{key}"
    values = _json_array(fields.get(key, []), path)
    return tuple(build(value, f"{path}[{index}]") for index, value in enumerate(values))


def _box_values(fields: dict[str, Any]) -> tuple[str, float, float, float, float, float]:
    class_name, x, y, width, height, confidence = (fields[key] for key in _BOX_KEYS)
    return class_name, x, y, width, height, confidence


def _detection_from_json(value: object, path: str) -> ObjectDetection:
    fields = _json_object(value, path, _BOX_KEYS, _BOX_KEYS)
    return ObjectDetection(*_box_values(fields))


def _classification_from_json(value: object, path: str) -> Classification:
    keys = ("class", "confidence")
    fields = _json_object(value, path, keys, keys)
    return Classification(fields["class"], fields["confidence"])


def _segmentation_from_json(value: object, path: str) -> InstanceSegmentation:
    keys = (*_BOX_KEYS, "points")
    fields = _json_object(value, path, keys, keys)
    points = _json_array(fields["points"], f"{path}.points")
    return InstanceSegmentation(*_box_values(fields), points)


def _skeleton_from_json(value: object, path: str) -> KeypointDetection:
    keys = (*_BOX_KEYS, "keypoints")
    fields = _json_object(value, path, keys, _BOX_KEYS)
    keypoints = _entries(fields, path, "keypoints", _keypoint_from_json)
    return KeypointDetection(*_box_values(fields), keypoints)


def _keypoint_from_json(value: object, path: str) -> Keypoint:
    keys = ("id", "x", "y")
    fields = _json_object(value, path, keys, keys)
    return Keypoint(fields["id"], fields["x"], fields["y"])
