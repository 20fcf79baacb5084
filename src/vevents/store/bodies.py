"""What the event store is told and what it answers: body -> event, record -> answer.

A body has a snake_case envelope with camelCase inside. It is brought into the shape of the cloud
API and judged by `Event.from_json`, so that what is taken here can be delivered later. Errors name
the field as the client wrote it.

Everything here is pure: no file, no clock, and nothing from a body becomes a path.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from vevents.errors import EventTooLargeError, EventValidationError
from vevents.event import (
    ANNOTATION_COUNT_MAX,
    METADATA_KEY_COUNT_MAX,
    Event,
    FrameRef,
    Image,
    parse_timestamp,
    uuid_text,
)
from vevents.wire import event_to_json, required_frames

DROPPED_ANNOTATIONS_KEY: Final = "vevents_annotations_dropped"
UNSET_CLOCK_KEY: Final = "vevents_inference_timestamp"
WORKFLOW_VERSION_LENGTH_MAX: Final = 64

# Before it is parsed: a small body of nothing but brackets would become a thousand megabytes.
# Base64 has none of these characters. A thousand outlines of 100 points are 100,000 lists.
_CONTAINER_COUNT_MAX: Final = 250_000
_COMMA_COUNT_MAX: Final = 1_000_000

# No event was made before: a clock that says so was never set. (The API takes a year at most.)
_CLOCK_MIN: Final = datetime(2024, 1, 1, tzinfo=UTC)

# Ours, and the cloud's name.
_ENVELOPE: Final = {
    "event_schema": "eventType",
    "event_data": "eventData",
    "solution": "useCaseId",
    "device_id": "deviceId",
    "stream_id": "streamId",
    "workflow_id": "workflowId",
    "custom_metadata": "customMetadata",
    "displayImagePosition": "displayImagePosition",
    "images": "images",
}
_LOCAL_NAMES: Final = {
    **{cloud: local for local, cloud in _ENVELOPE.items()},
    "timestamp": "inference_timestamp",
}
_IDS = ("solution", "device_id", "stream_id", "workflow_id")
_BOX_KEYS = ("class", "x", "y", "width", "height", "confidence")
_POINT_KEYS = ("id", "x", "y")
_ENTRY_KEYS: Final = {
    "objectDetections": _BOX_KEYS,
    "classifications": ("class", "confidence"),
    "instanceSegmentations": (*_BOX_KEYS, "points"),
    "keypoints": (*_BOX_KEYS, "keypoints"),
}
_FRAME_KEYS: Final = {"frame": "base64Image", "inputFrame": "inputBase64Image"}
_FRAME_PATH = re.compile(r"(images\[\d+\])\.(frame|inputFrame)\b")
_CAPITAL = re.compile(r"[A-Z]")


class BodyError(Exception):
    """A body that is answered with an error.

    Attributes:
        status_code: The HTTP status.
        detail: What is wrong; it names the field.
    """

    def __init__(self, status_code: int, detail: str) -> None:
        super().__init__(detail)
        self.status_code = status_code
        self.detail = detail


def parse(raw: bytes) -> dict[str, Any]:
    """Parse a body.

    Args:
        raw: UTF-8. NaN and Infinity pass here, as they do in Python's own JSON; the field that
            holds one is named by `to_event`.

    Raises:
        BodyError: 400 for what is not JSON, 413 for too many values, 422 for no object.
    """
    if raw.count(b"[") + raw.count(b"{") > _CONTAINER_COUNT_MAX or raw.count(b",") > (
        _COMMA_COUNT_MAX
    ):
        raise BodyError(
            413,
            f"the body has too many values: at most {_CONTAINER_COUNT_MAX:,} lists and objects, "
            f"and {_COMMA_COUNT_MAX:,} commas",
        )
    try:
        body = json.loads(raw.decode())
    except UnicodeDecodeError as error:
        raise BodyError(400, f"the body is not UTF-8 (byte {error.start})") from None
    except RecursionError:
        raise BodyError(400, "the body is nested too deeply") from None
    except ValueError as error:
        raise BodyError(400, f"the body is not valid JSON: {error}") from None
    if not isinstance(body, dict):
        raise BodyError(422, "the body must be a JSON object")
    return body


def make_id(body: Mapping[str, Any], salt: bytes) -> str:
    """Make the id of an event from its body, images and unknown fields included.

    Args:
        body: As `parse` returned it; the order of keys does not matter.
        salt: At most 64 bytes that belong to this log alone.

    Returns:
        A UUID. It is marked as version 4, which the API recommends: these bits are as good as
        random ones.
    """
    text = json.dumps(body, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    whole = text.encode("utf-8", "surrogatepass")
    digest = bytearray(hashlib.blake2b(whole, digest_size=16, key=salt).digest())
    digest[6] = digest[6] & 0x0F | 0x40
    digest[8] = digest[8] & 0x3F | 0x80
    return uuid_text(bytes(digest))


def to_event(body: Mapping[str, Any], event_id: str | None = None) -> Event:
    """Turn a body into an event with its frames.

    Optional fields may be null. Unknown fields are passed over, except in `event_data`, where the
    contract forbids them. What has no place in a cloud event (`workflow_version`, `image_id`) goes
    into the metadata. An annotation list is cut at 1,000 entries, because the API would drop all
    images of an event with more, and the metadata says how many went.

    Args:
        body: As `parse` returned it.
        event_id: Of the event; None leaves it to the log.

    Returns:
        A valid event; its frames are decoded from base64 and not looked into.

    Raises:
        BodyError: 422. The detail names the field.
    """
    if body.get("draft") not in (None, False):
        raise _wrong(
            "draft",
            "is not supported: this store cannot attach media to an event later; "
            "send the complete event without it",
        )
    for key in ("inference_timestamp", "event_schema", "event_data"):
        if body.get(key) is None:
            raise _wrong(key, "is missing")
    try:
        return _build(body, event_id)
    except EventValidationError as error:
        raise refusal(error) from None


def refusal(error: EventValidationError) -> BodyError:
    """Return the answer to a body that breaks a limit, with the field as the client named it."""
    field = _FRAME_PATH.sub(lambda m: f"{m[1]}.{_FRAME_KEYS[m[2]]}", error.field)
    for cloud, local in _LOCAL_NAMES.items():
        if re.match(rf"{cloud}\b", field):
            field = local + field[len(cloud) :]
            break
    status = 413 if isinstance(error, EventTooLargeError) else 422
    return BodyError(status, f"{field}: {error.reason}")


def describe(event: Event, *, seq: int, state: str) -> dict[str, Any]:
    """Return a stored event as the store shows it: snake_case, frames by number and size.

    Args:
        event: As the log decoded it.
        seq: Sequence number in the log.
        state: `pending`, `delivered` or `rejected`.
    """
    sizes = {frame.seq: frame.size for frame in required_frames(event)}
    shown = event_to_json(event, source_ids=dict.fromkeys(sizes, ""), use_case_id="")
    images = [
        _describe_image(image, entry)
        for image, entry in zip(event.images, shown.get("images", ()), strict=True)
    ]
    return {
        "id": shown["eventId"],
        "seq": seq,
        "state": state,
        "inference_timestamp": shown["timestamp"],
        "event_schema": shown["eventType"],
        "event_data": {_snake(key): value for key, value in shown["eventData"].items()},
        "solution": event.use_case_id,
        "workflow_id": event.workflow_id,
        "device_id": event.device_id,
        "stream_id": event.stream_id,
        "custom_metadata": shown.get("customMetadata", {}),
        "display_image_position": event.display_image_position,
        "images": images,
    }


# --- Building -------------------------------------------------------------------------------


def _wrong(field: str, reason: str) -> BodyError:
    return BodyError(422, f"{field}: {reason}")


def _build(body: Mapping[str, Any], event_id: str | None) -> Event:
    timestamp = parse_timestamp(body["inference_timestamp"])
    extra = _extra(body)
    if timestamp < _CLOCK_MIN:
        # The moment of the append is as near as any, and it can be corrected once the time is
        # known; a time that was given stays.
        extra[UNSET_CLOCK_KEY] = body["inference_timestamp"]
    fields: dict[str, Any] = {
        cloud: body[local] for local, cloud in _ENVELOPE.items() if body.get(local) is not None
    }
    for local in _IDS:
        if body.get(local) == "":
            del fields[_ENVELOPE[local]]
    for key in ("eventData", "customMetadata"):
        fields[key] = _without_nulls(fields.get(key, {}))
    frames: list[tuple[bytes | None, bytes | None]] = []
    images = fields.get("images", [])
    if isinstance(images, list):
        dropped = 0
        entries = []
        for index, image in enumerate(images):
            frames.append(_frames(image, f"images[{index}]"))
            entry, cut = _annotations(image)
            entries.append(entry)
            dropped += cut
        fields["images"] = entries
        if dropped:
            extra[DROPPED_ANNOTATIONS_KEY] = dropped
        if not entries:
            fields.pop("displayImagePosition", None)
    event = Event.from_json(fields)
    metadata = dict(event.metadata or {})
    for key, value in extra.items():
        if key not in metadata and len(metadata) < METADATA_KEY_COUNT_MAX:
            metadata[key] = value
    complete = replace(
        event,
        event_id=event_id,
        timestamp=None if timestamp < _CLOCK_MIN else timestamp,
        metadata=metadata or None,
        images=tuple(
            replace(image, frame=frame, input_frame=input_frame)
            for image, (frame, input_frame) in zip(event.images, frames, strict=True)
        ),
    )
    complete.validate()
    return complete


def _extra(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the cloud has no field for, by its key in the metadata."""
    extra = {}
    for key in ("workflow_version", "image_id"):
        value = body.get(key)
        if value is None:
            continue
        if not isinstance(value, str):
            raise _wrong(key, f"must be a string, not {type(value).__name__}")
        limit = WORKFLOW_VERSION_LENGTH_MAX if key == "workflow_version" else 1_000
        if len(value) > limit:
            raise _wrong(key, f"must have at most {limit:,} characters, has {len(value):,}")
        extra[key] = value
    return extra


def _without_nulls(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: item for key, item in value.items() if item is not None}


def _frames(image: Any, path: str) -> tuple[bytes | None, bytes | None]:
    if not isinstance(image, dict):
        return None, None  # named by Event.from_json
    frame, input_frame = (_decode(image.get(key), f"{path}.{key}") for key in _FRAME_KEYS.values())
    return frame, input_frame


def _decode(text: Any, path: str) -> bytes | None:
    if text is None:
        return None
    if not isinstance(text, str):
        raise _wrong(path, f"must be a string, not {type(text).__name__}")
    if text.startswith("data:"):
        raise _wrong(path, "must be plain base64, without the data: prefix")
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise _wrong(path, f"is not base64: {error}") from None


def _annotations(image: Any) -> tuple[Any, int]:
    """Return an image entry for `Event.from_json`, and how many annotations it goes without."""
    if not isinstance(image, dict):
        return image, 0
    entry: dict[str, Any] = {}
    if image.get("label") is not None:
        entry["label"] = image["label"]
    dropped = 0
    for key, keys in _ENTRY_KEYS.items():
        values = image.get(key)
        if values is None:
            continue
        if isinstance(values, list):
            dropped += max(0, len(values) - ANNOTATION_COUNT_MAX)
            values = [_known(value, keys) for value in values[:ANNOTATION_COUNT_MAX]]
        entry[key] = values
    return entry, dropped


def _known(value: Any, keys: tuple[str, ...]) -> Any:
    """Return an entry without what the API has no key for; what is no entry is left to be named."""
    if not isinstance(value, dict):
        return value
    known = {key: value[key] for key in keys if value.get(key) is not None}
    if isinstance(known.get("keypoints"), list):
        known["keypoints"] = [_known(point, _POINT_KEYS) for point in known["keypoints"]]
    return known


# --- Showing --------------------------------------------------------------------------------


def _describe_image(image: Image, entry: Mapping[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for frame, key, id_key in (
        (image.frame, "image", "sourceId"),
        (image.input_frame, "input_image", "inputSourceId"),
    ):
        if isinstance(frame, FrameRef):
            shown[key] = {"seq": frame.seq, "size": frame.size}
        elif id_key in entry:
            shown[_snake(id_key)] = entry[id_key]
    for key, value in entry.items():
        if key not in ("sourceId", "inputSourceId"):
            shown[_snake(key)] = value
    return shown


def _snake(name: str) -> str:
    return _CAPITAL.sub(lambda capital: f"_{capital[0].lower()}", name)
