"""From the inputs of the block to an event, and how much it matters beside others.

The names of the inputs are those of `roboflow_core/roboflow_vision_events@v1`, so that a Workflow
changes the type of its block and nothing else.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from vevents import frames
from vevents.adapters import Seen, from_result
from vevents.errors import EventValidationError
from vevents.event import METADATA_KEY_COUNT_MAX, Event, EventType, Image

if TYPE_CHECKING:
    from vevents.workflows.cooldown import Importance

COUNT_KEY: Final = "vevents_suppressed"
FRAME_TIME_KEY: Final = "vevents_frame_timestamp"
FRAME_AGE_KEY: Final = "vevents_frame_age_s"

# The label that the official block gives its images.
_LABEL: Final = "workflow"
# Keys that are ours: the total and nine kinds of what was suppressed, annotations left out, time.
_METADATA_KEYS_OURS: Final = 12
# No record was made before: a clock that says so was never set.
_CLOCK_MIN: Final = datetime(2024, 1, 1, tzinfo=UTC)
# A frame not older than this has its time from the same clock as the log.
_LIVE_MAX: Final = timedelta(hours=1)
# A younger one is as old as the event.
_AGE_MIN: Final = timedelta(milliseconds=10)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

# By event type: keys of the payload, and the inputs that they come from.
_DATA: Final[dict[str, dict[str, str]]] = {
    EventType.QUALITY_CHECK: {"result": "qc_result", "externalId": "external_id"},
    EventType.INVENTORY_COUNT: {
        "location": "location",
        "itemCount": "item_count",
        "itemType": "item_type",
        "externalId": "external_id",
    },
    EventType.SAFETY_ALERT: {
        "alertType": "alert_type",
        "severity": "severity",
        "description": "alert_description",
        "externalId": "external_id",
    },
    EventType.CUSTOM: {"value": "custom_value", "externalId": "external_id"},
    EventType.OPERATOR_FEEDBACK: {"relatedEventId": "related_event_id", "feedback": "feedback"},
}

# From the most important kind to the least. An operator's verdict names one event and is rare; a
# check that passed is what most frames show.
_KINDS: Final = (
    "safety_alert_high",
    "safety_alert_medium",
    "safety_alert",
    "safety_alert_low",
    "operator_feedback",
    "quality_check_fail",
    "custom",
    "inventory_count",
    "quality_check_pass",
)
_RANKS: Final = {kind: float(-place) for place, kind in enumerate(_KINDS)}


@dataclass(frozen=True, slots=True)
class Candidate:
    """An event that may be written, without its images: those cost time.

    Attributes:
        event: Valid; without images and time.
        kind: Event type with its result or severity, for example `quality_check_fail`.
        importance: The `priority` given, else 0; then the rank of the kind; then the confidence of
            the surest prediction.
        stream: Whose cooldown counts: `stream_id`, else the engine's name of the video.
    """

    event: Event
    kind: str
    importance: Importance
    stream: str
    _inputs: Mapping[str, Any]

    def complete(self, now_ns: int) -> Event:
        """Return the event with its images, their annotations, and the time of the frame.

        Args:
            now_ns: Nanoseconds since 1970: the time of an event without images, which may be
                written only when its window ends.

        Raises:
            EventValidationError: An image or a prediction is none.
        """
        event, inputs = self.event, self._inputs
        shown, seen = inputs.get("output_image"), inputs.get("input_image")
        fields: dict[str, Any] = {}
        if shown is not None:
            fields["frame"] = _encoded(shown, "output_image")
        if seen is not None:
            fields["input_frame"] = (
                fields["frame"] if seen is shown else _encoded(seen, "input_image")
            )
        predictions = inputs.get("predictions")
        found = Seen(Image(**fields), {})
        if predictions is not None:
            found = from_result(predictions, **fields)
        if fields or found.total:
            event = replace(
                event,
                images=(replace(found.image, label=_LABEL),),
                display_image_position=0 if fields else None,
                metadata={**(event.metadata or {}), **found.metadata} or None,
            )
        source = seen if seen is not None else shown
        if source is None:
            moment = _moment(now_ns)
        else:
            # Without an offset it is this machine's local time.
            moment = source.video_metadata.frame_timestamp.astimezone(UTC)
        event = replace(event, timestamp=moment)
        event.validate()
        return event


def candidate_of(inputs: Mapping[str, Any]) -> Candidate:
    """Look at the inputs of one run, all but the images and their annotations.

    Raises:
        EventValidationError: A value breaks the contract.
    """
    event_type = inputs["event_type"]
    known = event_type in _DATA if isinstance(event_type, str) else False
    data = {
        key: _plain(inputs.get(name))
        for key, name in (_DATA[event_type] if known else {}).items()
        if inputs.get(name) is not None
    }
    given = inputs.get("custom_metadata") or {}
    metadata = {key: _plain(value) for key, value in given.items() if value is not None}
    if len(metadata) > METADATA_KEY_COUNT_MAX - _METADATA_KEYS_OURS:
        raise EventValidationError(
            "customMetadata",
            f"must have at most {METADATA_KEY_COUNT_MAX - _METADATA_KEYS_OURS} keys, has "
            f"{len(metadata)}; the block needs the rest",
        )
    event = Event(
        EventType(event_type) if known else event_type,
        use_case_id=inputs.get("solution") or None,
        data=data,
        device_id=inputs.get("device_id") or None,
        stream_id=inputs.get("stream_id") or None,
        metadata=metadata or None,
    )
    event.validate()
    kind = _kind_of(event)
    importance = (
        _priority(inputs.get("priority")),
        _RANKS[kind],
        _confidence(inputs.get("predictions")),
    )
    return Candidate(event, kind, importance, _stream(inputs, event), inputs)


def with_counts(event: Event, counts: Mapping[str, int]) -> Event:
    """Return the event with what it stands for in its metadata."""
    if not counts:
        return event
    ours = {f"{COUNT_KEY}_{kind}": number for kind, number in sorted(counts.items())}
    metadata = {**(event.metadata or {}), COUNT_KEY: sum(counts.values()), **ours}
    return replace(event, metadata=metadata)


def with_sound_time(event: Event, now_ns: int, *, clock_is_sound: bool) -> Event:
    """Return the event without the time of its frame where the log's own is worth more.

    A flush repairs the times of a clock that was wrong, if they are the log's own, and leaves those
    alone that were given. So as long as nobody vouches for the clock, the log stamps the event, and
    the metadata say how old the frame was (`vevents_frame_age_s`).

    Args:
        event: With the time of its frame, or none.
        now_ns: Nanoseconds since 1970 by this machine's clock.
        clock_is_sound: Whether the kernel says that the clock follows a reference.
    """
    if event.timestamp is None:
        return event
    metadata: dict[str, str | float | bool] = dict(event.metadata or {})
    age = _moment(now_ns) - event.timestamp
    if not clock_is_sound and timedelta(0) <= age <= _LIVE_MAX:
        if age >= _AGE_MIN:
            metadata[FRAME_AGE_KEY] = round(age.total_seconds(), 3)
    elif event.timestamp < _CLOCK_MIN:
        metadata[FRAME_TIME_KEY] = event.timestamp.isoformat()
    else:
        return event
    return replace(event, timestamp=None, metadata=metadata or None)


def _moment(wall_ns: int) -> datetime:
    return _EPOCH + timedelta(microseconds=wall_ns // 1000)


def _kind_of(event: Event) -> str:
    data = event.data or {}
    detail = data.get("result") or data.get("severity")
    return f"{event.event_type.value}_{detail}" if detail else event.event_type.value


def _priority(value: Any) -> float:
    if value is None:
        return 0.0
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if math.isnan(number):
        raise EventValidationError("priority", f"must be a number, not {type(value).__name__}")
    return number


def _confidence(predictions: Any) -> float:
    """Return the highest confidence, 0 where there is none to be seen at a glance."""
    found: Any = getattr(predictions, "confidence", None)
    if isinstance(predictions, Mapping):
        found = predictions.get("confidence")
        rows = predictions.get("predictions")
        if isinstance(rows, Mapping):
            rows = rows.values()
        if found is None and rows is not None and not hasattr(rows, "xyxy"):
            found = [row.get("confidence") or 0.0 for row in rows if isinstance(row, Mapping)]
    if found is None:
        return 0.0
    if hasattr(found, "max"):
        return float(found.max()) if len(found) else 0.0
    return float(max(found, default=0.0)) if isinstance(found, list) else float(found)


def _stream(inputs: Mapping[str, Any], event: Event) -> str:
    if event.stream_id is not None:
        return event.stream_id
    for name in ("input_image", "output_image"):
        if inputs.get(name) is not None:
            return str(inputs[name].video_metadata.video_identifier)
    return ""


def _encoded(image: Any, name: str) -> bytes:
    # The engine keeps this text with the image: other blocks share the one encoding, and a picture
    # that came as a file goes on byte for byte.
    text = image.base64_image
    if text.startswith("data:"):
        text = text.partition(",")[2]
    return frames.encode_frame(base64.b64decode(text), field=name)


def _plain(value: Any) -> Any:
    # numpy's booleans are not Python's, and all its scalars have item().
    return value.item() if hasattr(value, "dtype") and getattr(value, "ndim", 1) == 0 else value
