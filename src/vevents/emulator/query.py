"""Reading a query: its filters, its cursor, and the window that it may look into."""

from __future__ import annotations

import base64
import binascii
import json
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from vevents.emulator.bodies import RequestRefusedError
from vevents.emulator.storage import Position, Selection
from vevents.emulator.validation import first_problem, microseconds, parse_timestamp

LIMIT_DEFAULT = 50
LIMIT_MAX = 1000

_COLUMNS: tuple[tuple[str, Literal["device_id", "stream_id", "workflow_id"]], ...] = (
    ("deviceId", "device_id"),
    ("streamId", "stream_id"),
    ("workflowId", "workflow_id"),
)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "neq": operator.ne,
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
    "contains": operator.contains,
}


@dataclass(frozen=True, slots=True)
class _Filter:
    group: Literal["eventData", "customMetadata"]
    name: str
    operator: str
    value: str | float | bool

    def matches(self, event: Mapping[str, Any]) -> bool:
        """Compare like with like: an absent field, or one of another type, never matches."""
        held = event.get(self.group, {}).get(self.name)
        return _kind(held) == _kind(self.value) and _COMPARE[self.operator](held, self.value)


def read_query(body: Mapping[str, Any], *, now: datetime, lookback_days: int) -> Selection:
    """Turn the body of POST /vision-events/query into a selection.

    Args:
        body: Parsed JSON.
        now: The server's clock, aware.
        lookback_days: Older events are not seen.

    Raises:
        RequestRefusedError: 400; the text names the field.
    """
    problem = first_problem("query", body)
    if problem is not None:
        raise RequestRefusedError(400, str(problem))
    since_us = microseconds(now - timedelta(days=lookback_days))
    until_us = microseconds(datetime.max.replace(tzinfo=now.tzinfo))
    if "startTime" in body:
        since_us = max(since_us, _microseconds(body, "startTime"))
    if "endTime" in body:
        until_us = _microseconds(body, "endTime")
    event_types = list(body.get("eventTypes", ()))
    if "eventType" in body:
        event_types.append(body["eventType"])
    filters = _filters(body)
    return Selection(
        use_case_id=body["useCaseId"],
        since_us=since_us,
        until_us=until_us,
        event_types=event_types,
        columns=[
            (column, body[name]["operator"] == "eq", body[name]["value"])
            for name, column in _COLUMNS
            if name in body
        ],
        matches=lambda event: all(each.matches(event) for each in filters),
        after=_read_cursor(body["cursor"]) if "cursor" in body else None,
        limit=min(int(body.get("limit", LIMIT_DEFAULT)), LIMIT_MAX),
    )


def write_cursor(position: Position) -> str:
    """Make the cursor that leads on from a position; clients must not look inside."""
    text = json.dumps([position.timestamp_us, position.seq])
    return base64.urlsafe_b64encode(text.encode()).decode()


def _read_cursor(cursor: str) -> Position:
    try:
        numbers = json.loads(base64.urlsafe_b64decode(cursor.encode()))
    except (ValueError, binascii.Error, RecursionError):
        numbers = None
    match numbers:
        case [int(timestamp_us), int(seq)] if abs(timestamp_us) < 2**63 and abs(seq) < 2**63:
            return Position(timestamp_us, seq)
    raise RequestRefusedError(400, "cursor: is not one that an earlier answer gave")


def _microseconds(body: Mapping[str, Any], name: str) -> int:
    moment = parse_timestamp(body[name])
    if moment is None:
        raise RequestRefusedError(400, f"{name}: there is no such date or time")
    return microseconds(moment)


def _filters(body: Mapping[str, Any]) -> list[_Filter]:
    filters = []
    if "externalId" in body:
        given = body["externalId"]
        filters.append(
            _filter("externalId", "eventData", "externalId", given["operator"], given["value"])
        )
    for index, given in enumerate(body.get("eventFieldFilters", ())):
        path = f"eventFieldFilters[{index}]"
        filters.append(
            _filter(path, "eventData", given["column"], given["operator"], given["value"])
        )
    for index, given in enumerate(body.get("customMetadataFilters", ())):
        path = f"customMetadataFilters[{index}]"
        if given.get("type", _kind(given["value"])) != _kind(given["value"]):
            raise RequestRefusedError(400, f"{path}.value: is not a {given['type']}")
        filters.append(
            _filter(path, "customMetadata", given["field"], given["operator"], given["value"])
        )
    return filters


def _filter(
    path: str,
    group: Literal["eventData", "customMetadata"],
    name: str,
    operator_name: str,
    value: str | float | bool,
) -> _Filter:
    kind = _kind(value)
    if operator_name == "contains" and kind != "string":
        raise RequestRefusedError(400, f"{path}.operator: contains needs a string")
    if operator_name in ("gt", "gte", "lt", "lte") and kind != "number":
        raise RequestRefusedError(400, f"{path}.operator: {operator_name} needs a number")
    return _Filter(group, name, operator_name, value)


def _kind(value: object) -> str | None:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "string"
    return "number" if isinstance(value, int | float) else None
