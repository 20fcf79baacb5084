"""The emulator's judgement on events: schema.json, and the rules that a schema cannot say.

It shares nothing with the code that makes events, so that a mistake there is found here.

jsonschema needs about 0.1 ms for the outer fields of an event, and as much again for every pair of
boxes: a batch of crowded frames would take seconds. The images are therefore looked at by
`_is_plainly_valid` first, tight loops that only say yes or "not sure"; an image they are not sure
about goes through the schema, which has the last word and finds the words for the refusal. A test
holds the loops to the schema.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib import resources
from typing import Any

from jsonschema import Draft202012Validator, ValidationError

TIMESTAMP_AGE_MAX = timedelta(days=365)
TIMESTAMP_AHEAD_MAX = timedelta(hours=24)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FLOAT_MAX = sys.float_info.max
_NUMBERS = (float, int)
_ANNOTATIONS_PER_LIST_MAX = 1000

# What strict_event_data demands of each type.
_REQUIRED_EVENT_DATA = {
    "quality_check": ("result",),
    "inventory_count": ("itemCount",),
    "safety_alert": ("alertType",),
    "custom": ("value",),
    "operator_feedback": ("relatedEventId", "feedback"),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a body.

    Attributes:
        path: Where, for example `images[0].objectDetections[2].confidence`; empty for the whole.
        reason: What, with the limit.
    """

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}" if self.path else self.reason

    def under(self, prefix: str) -> Problem:
        """Return the same problem seen from the body that holds this one at `prefix`."""
        joint = "." if self.path and not self.path.startswith("[") else ""
        return Problem(f"{prefix}{joint}{self.path}", self.reason)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one event.

    Attributes:
        event: The event to store, without fields that are not documented; None if refused.
        timestamp_us: Its time, in microseconds since 1970.
        problems: Why it was refused, the first finding first.
        warnings: What was dropped from an event that was stored all the same.
    """

    event: dict[str, Any] | None
    timestamp_us: int = 0
    problems: Sequence[Problem] = ()
    warnings: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRules:
    """The rules beyond the schema.

    Attributes:
        now: The server's clock, aware.
        use_case_ids: Use cases that exist, archived ones included.
        strict_event_data: See `EmulatorConfig`.
        strict_fields: See `EmulatorConfig`.
        degrade_images: See `EmulatorConfig`.
    """

    now: datetime
    use_case_ids: frozenset[str] = field(repr=False)
    strict_event_data: bool = False
    strict_fields: bool = False
    degrade_images: bool = False


@functools.cache
def schema() -> dict[str, Any]:
    """Load schema.json; the same object every time, not to be changed."""
    text = resources.files(__package__).joinpath("schema.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


@functools.cache
def _validator(name: str) -> Draft202012Validator:
    return Draft202012Validator({"$defs": schema()["$defs"], "$ref": f"#/$defs/{name}"})


@functools.cache
def _outer_validator() -> Draft202012Validator:
    """Build the event's schema without its two slow parts, which are checked on their own."""
    event = dict(schema()["$defs"]["event"])
    del event["allOf"]
    event["properties"] = {k: v for k, v in event["properties"].items() if k != "images"}
    return Draft202012Validator({"$defs": schema()["$defs"], **event})


@functools.cache
def _known_fields(name: str) -> frozenset[str]:
    definition = schema()["$defs"][name]
    inherited = definition.get("$ref", "").rpartition("/")[2]
    above = _known_fields(inherited) if inherited else frozenset[str]()
    return above | frozenset(definition.get("properties", ()))


def first_problem(name: str, body: object) -> Problem | None:
    """Hold a body against one definition of schema.json.

    Args:
        name: A key of `$defs`.
        body: Parsed JSON.

    Returns:
        The first finding, or None.
    """
    return next(_problems(_validator(name), body), None)


def parse_timestamp(text: str) -> datetime | None:
    """Read a timestamp that has the form the schema demands; None if there is no such time."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def microseconds(moment: datetime) -> int:
    """Count whole microseconds since 1970."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def judge_event(body: object, rules: EventRules) -> Verdict:
    """Judge one event.

    Args:
        body: Parsed JSON.
        rules: What holds at this moment.

    Returns:
        The verdict; `problems` is empty exactly when `event` is set.
    """
    problems = list(_problems(_outer_validator(), body))
    if not isinstance(body, dict):
        return Verdict(None, problems=problems)
    moment = None
    if _is_sound("timestamp", problems):
        moment = parse_timestamp(body["timestamp"])
        problems += _clock_problems(moment, rules.now)
    if _is_sound("useCaseId", problems) and body["useCaseId"] not in rules.use_case_ids:
        problems.append(Problem("useCaseId", f"no use case {_shown(body['useCaseId'])} exists"))
    if _is_sound("eventType", problems) and _is_sound("eventData", problems):
        problems += _event_data_problems(body, rules)
    image_problems = list(_image_problems(body))
    warnings = []
    if image_problems and rules.degrade_images:
        warnings = [f"all images were dropped: {image_problems[0]}"]
        body = {k: v for k, v in body.items() if k not in ("images", "displayImagePosition")}
    else:
        problems += image_problems
    if rules.strict_fields and not problems:
        problems += _strict_problems(body)
    if problems or moment is None:
        return Verdict(None, problems=problems)
    event = _kept(body, "event")
    event.setdefault("eventData", {})
    return Verdict(event, microseconds(moment), warnings=warnings)


def _is_sound(name: str, problems: Iterable[Problem]) -> bool:
    """Say whether a field of the event passed the schema, so that more can be asked of it."""
    return all(problem.path != name for problem in problems)


def _clock_problems(moment: datetime | None, now: datetime) -> Iterator[Problem]:
    if moment is None:
        yield Problem("timestamp", "there is no such date or time")
    elif moment < now - TIMESTAMP_AGE_MAX:
        yield Problem("timestamp", f"is more than {TIMESTAMP_AGE_MAX.days} days in the past")
    elif moment > now + TIMESTAMP_AHEAD_MAX:
        yield Problem("timestamp", "is more than 24 hours in the future")


def _event_data_problems(body: Mapping[str, Any], rules: EventRules) -> Iterator[Problem]:
    event_type = body["eventType"]
    if "eventData" in body:
        for problem in _problems(_validator(event_type), body["eventData"]):
            yield problem.under("eventData")
    if rules.strict_event_data:
        if "eventData" not in body:
            yield Problem("eventData", "is required")
            return
        for name in _REQUIRED_EVENT_DATA[event_type]:
            if name not in body["eventData"]:
                yield Problem(f"eventData.{name}", f"is required for {event_type}")


def _image_problems(body: Mapping[str, Any]) -> Iterator[Problem]:
    images = body.get("images", [])
    if not isinstance(images, list):
        yield Problem("images", f"must be an array, not {_kind(images)}")
        return
    for index, image in enumerate(images):
        problem = None if _is_plainly_valid(image) else first_problem("image", image)
        if problem is not None:
            yield problem.under(f"images[{index}]")


def _is_plainly_valid(image: Any) -> bool:
    """Say yes to a valid image; False may also mean "not sure, ask the schema"."""
    if type(image) is not dict:
        return False
    for name in ("sourceId", "inputSourceId"):
        if name in image and not (type(image[name]) is str and image[name]):
            return False
    if "label" in image and type(image["label"]) is not str:
        return False
    try:
        for name, is_valid in _PLAINLY_VALID_LISTS:
            if name in image:
                entries = image[name]
                if type(entries) is not list or len(entries) > _ANNOTATIONS_PER_LIST_MAX:
                    return False
                for entry in entries:
                    if not is_valid(entry):
                        return False
    except (KeyError, TypeError, AttributeError):
        # A key is missing, or a value is not of the kind that the loops compare.
        return False
    return True


def _plain_box(entry: Any) -> bool:
    x, y, width, height = entry["x"], entry["y"], entry["width"], entry["height"]
    confidence = entry["confidence"]
    # type() and not isinstance(): true and false are no numbers in JSON.
    return (
        type(entry["class"]) is str
        and type(x) in _NUMBERS
        and type(y) in _NUMBERS
        and type(width) in _NUMBERS
        and type(height) in _NUMBERS
        and type(confidence) in _NUMBERS
        and -_FLOAT_MAX <= x <= _FLOAT_MAX
        and -_FLOAT_MAX <= y <= _FLOAT_MAX
        and 0 <= width <= _FLOAT_MAX
        and 0 <= height <= _FLOAT_MAX
        and 0 <= confidence <= 1
    )


def _plain_classification(entry: Any) -> bool:
    confidence = entry["confidence"]
    return type(entry["class"]) is str and type(confidence) in _NUMBERS and 0 <= confidence <= 1


def _plain_segmentation(entry: Any) -> bool:
    points = entry["points"]
    if type(points) is not list or len(points) < 3 or not _plain_box(entry):
        return False
    for point in points:
        if type(point) is not list or len(point) != 2 or not _plain_point(point[0], point[1]):
            return False
    return True


def _plain_keypoints(entry: Any) -> bool:
    keypoints = entry.get("keypoints", [])
    if type(keypoints) is not list or not _plain_box(entry):
        return False
    for keypoint in keypoints:
        if type(keypoint["id"]) is not int or not _plain_point(keypoint["x"], keypoint["y"]):
            return False
    return True


def _plain_point(x: Any, y: Any) -> bool:
    return (
        type(x) in _NUMBERS
        and type(y) in _NUMBERS
        and -_FLOAT_MAX <= x <= _FLOAT_MAX
        and -_FLOAT_MAX <= y <= _FLOAT_MAX
    )


_PLAINLY_VALID_LISTS = (
    ("objectDetections", _plain_box),
    ("classifications", _plain_classification),
    ("instanceSegmentations", _plain_segmentation),
    ("keypoints", _plain_keypoints),
)
# Where a definition of schema.json holds lists of another one.
_INNER_DEFINITIONS = {
    "event": {"images": "image"},
    "image": {
        "objectDetections": "objectDetection",
        "classifications": "classification",
        "instanceSegmentations": "instanceSegmentation",
        "keypoints": "keypointDetection",
    },
    "keypointDetection": {"keypoints": "keypoint"},
}


def _strict_problems(body: Mapping[str, Any]) -> Iterator[Problem]:
    """Find what only strict_fields refuses, in an event that is valid otherwise."""
    yield from _unknown_fields(body, "event")
    position, image_count = body.get("displayImagePosition", 0), len(body.get("images", ()))
    if "displayImagePosition" in body and position >= image_count:
        yield Problem("displayImagePosition", f"{position}, but there are {image_count} images")


def _unknown_fields(body: Mapping[str, Any], name: str) -> Iterator[Problem]:
    for key in body:
        if key not in _known_fields(name):
            yield Problem(_key(key), "is not a field of the API")
    for list_name, definition in _INNER_DEFINITIONS.get(name, {}).items():
        for index, entry in enumerate(body.get(list_name, ())):
            for problem in _unknown_fields(entry, definition):
                yield problem.under(f"{list_name}[{index}]")


def _kept(body: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a valid body without the fields that the API does not know; never changes it."""
    known, inner = _known_fields(name), _INNER_DEFINITIONS.get(name, {})
    if not inner and known.issuperset(body):
        return body
    kept = {key: value for key, value in body.items() if key in known}
    for list_name, definition in inner.items():
        if list_name in kept:
            kept[list_name] = [_kept(entry, definition) for entry in kept[list_name]]
    return kept


# --- from jsonschema's findings to sentences ---------------------------------------------------


def _problems(validator: Draft202012Validator, body: object) -> Iterator[Problem]:
    for error in validator.iter_errors(body):
        yield _problem(error)


def _problem(error: ValidationError) -> Problem:
    path = _path(error.absolute_path)
    limit, value = error.validator_value, error.instance
    match error.validator:
        case "required":
            # One finding per missing key, and only its message tells which.
            missing = [name for name in limit if name not in value]
            named = [name for name in missing if error.message.startswith(repr(name))]
            return Problem(f"{path}.{(named or missing)[0]}".lstrip("."), "is required")
        case "additionalProperties":
            unknown = sorted(value.keys() - error.schema["properties"].keys())
            known = ", ".join(sorted(error.schema["properties"]))
            reason = f"unknown field; known: {known}"
            return Problem(f"{path}.{_key(unknown[0])}".lstrip("."), reason)
        case "type":
            kinds = [limit] if isinstance(limit, str) else list(limit)
            reason = f"must be {' or '.join(map(_article, kinds))}, not {_kind(value)}"
        case "enum" | "const":
            options = limit if error.validator == "enum" else [limit]
            reason = f"{_shown(value)} is not one of {', '.join(map(str, options))}"
        case "minLength":
            reason = "must not be empty"
        case "maxLength" if "propertyNames" in error.absolute_schema_path:
            reason = f"key {_shown(value)} has {len(value)} characters, at most {limit} are allowed"
        case "maxLength":
            reason = f"has {len(value)} characters, at most {limit} are allowed"
        case "minItems":
            reason = f"has {len(value)} entries, at least {limit} are needed"
        case "maxItems":
            reason = f"has {len(value)} entries, at most {limit} are allowed"
        case "maxProperties":
            reason = f"has {len(value)} keys, at most {limit} are allowed"
        case "minimum" | "maximum" if abs(limit) == _FLOAT_MAX:
            reason = "is not a finite number"
        case "minimum":
            reason = f"{_shown(value)} is less than {limit}"
        case "maximum":
            reason = f"{_shown(value)} is more than {limit}"
        case "pattern":
            reason = _pattern_reason(error)
        case _:
            reason = str(error.message)[:200]
    return Problem(path, reason)


def _pattern_reason(error: ValidationError) -> str:
    shown = _shown(error.instance)
    if error.absolute_path and error.absolute_path[-1] in ("timestamp", "startTime", "endTime"):
        return f"{shown} is not an ISO 8601 time with its offset, as in 2026-01-31T12:00:00.000Z"
    if "propertyNames" in error.absolute_schema_path:
        return f"key {shown}: only letters, digits, spaces, _ and - are allowed"
    return f"{shown}: only letters, digits, _ and - are allowed"


def _path(steps: Iterable[str | int]) -> str:
    path = ""
    for step in steps:
        path += f"[{step}]" if isinstance(step, int) else f".{_key(step)}"
    return path.lstrip(".")


def _key(name: str) -> str:
    return name if name.isidentifier() and len(name) <= 100 else _shown(name)


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:56]}..."


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case float() | int():
            return "a number" if value == value // 1 else f"the number {_shown(value)}"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aio" else f"a {kind}"
