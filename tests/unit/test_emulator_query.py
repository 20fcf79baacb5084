"""Queries: which events a body selects, and which bodies are refused."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from vevents.emulator.bodies import RequestRefusedError
from vevents.emulator.query import read_query, write_cursor
from vevents.emulator.storage import Position, Selection

NOW = datetime(2026, 10, 15, 12, 0, 0, tzinfo=UTC)
DAY_US = 86_400_000_000
NOW_US = 1_792_065_600_000_000
EVENT = {
    "eventData": {"itemCount": 17, "location": "yard/rack-b", "externalId": "lot-88"},
    "customMetadata": {"temperature": 70.5, "shift": "early", "operator present": True, "one": 1},
}


def read(**body: Any) -> Selection:
    return read_query({"useCaseId": "uc", **body}, now=NOW, lookback_days=14)


def test_the_window_of_time() -> None:
    assert read().since_us == NOW_US - 14 * DAY_US
    assert read().until_us > NOW_US + 365 * DAY_US
    bounded = read(startTime="2026-10-14T12:00:00Z", endTime="2026-10-15T13:00:00.5+01:00")
    assert bounded.since_us == NOW_US - DAY_US
    assert bounded.until_us == NOW_US + 500_000
    assert read(startTime="2026-01-01T00:00:00Z").since_us == NOW_US - 14 * DAY_US


def test_plain_fields() -> None:
    selection = read(
        eventType="custom",
        eventTypes=["safety_alert"],
        deviceId={"operator": "eq", "value": "d"},
        workflowId={"operator": "neq", "value": "w"},
    )

    assert selection.use_case_id == "uc"
    assert set(selection.event_types) == {"custom", "safety_alert"}
    assert selection.columns == [("device_id", True, "d"), ("workflow_id", False, "w")]


@pytest.mark.parametrize(("given", "limit"), [({}, 50), ({"limit": 7}, 7), ({"limit": 5000}, 1000)])
def test_the_limit(given: Any, limit: Any) -> None:
    assert read(**given).limit == limit


@pytest.mark.parametrize(
    ("column", "operator", "value", "matches"),
    [
        ("itemCount", "eq", 17, True),
        ("itemCount", "eq", "17", False),
        ("itemCount", "neq", 16, True),
        ("itemCount", "gt", 16.5, True),
        ("itemCount", "gte", 17, True),
        ("itemCount", "lt", 17, False),
        ("itemCount", "lte", 17, True),
        ("location", "contains", "rack", True),
        ("location", "contains", "Rack", False),
        ("result", "neq", "fail", False),
    ],
)
def test_filters_on_event_data(column: Any, operator: Any, value: Any, matches: bool) -> None:
    filters = [{"column": column, "operator": operator, "value": value}]

    assert read(eventFieldFilters=filters).matches(EVENT) is matches


@pytest.mark.parametrize(
    ("given", "matches"),
    [
        ({"field": "temperature", "operator": "gt", "value": 70, "type": "number"}, True),
        ({"field": "temperature", "operator": "gt", "value": 71}, False),
        ({"field": "shift", "operator": "eq", "value": "early", "type": "string"}, True),
        ({"field": "operator present", "operator": "eq", "value": True}, True),
        ({"field": "one", "operator": "eq", "value": True}, False),
        ({"field": "absent", "operator": "neq", "value": "x"}, False),
    ],
)
def test_filters_on_metadata(given: Any, matches: bool) -> None:
    assert read(customMetadataFilters=[given]).matches(EVENT) is matches


def test_all_filters_must_match() -> None:
    warm = {"field": "temperature", "operator": "gt", "value": 70}
    late = {"field": "shift", "operator": "eq", "value": "late"}

    assert read(customMetadataFilters=[warm]).matches(EVENT)
    assert not read(customMetadataFilters=[warm, late]).matches(EVENT)
    assert read(externalId={"operator": "contains", "value": "88"}).matches(EVENT)
    assert not read(
        customMetadataFilters=[warm], externalId={"operator": "eq", "value": "88"}
    ).matches(EVENT)


def test_the_cursor_leads_on() -> None:
    position = Position(NOW_US, 42)

    assert read(cursor=write_cursor(position)).after == position


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"useCaseId": 1}, "useCaseId: must be a string"),
        ({"limit": 0}, "limit: 0 is less than 1"),
        ({"limit": 1.5}, "limit: must be an integer"),
        ({"startTime": "2026-10-01"}, "startTime: "),
        ({"endTime": "2026-02-30T00:00:00Z"}, "endTime: there is no such date"),
        ({"eventTypes": ["defect"]}, "eventTypes[0]: "),
        ({"eventTypes": ["custom"] * 21}, "eventTypes: has 21 entries, at most 20"),
        ({"deviceId": "d"}, "deviceId: must be an object"),
        ({"streamId": {"operator": "gt", "value": "s"}}, "streamId.operator: "),
        ({"externalId": {"value": "s"}}, "externalId.operator: is required"),
        ({"detections": []}, "detections: unknown field"),
        ({"eventFieldFilters": [{"column": "score", "operator": "eq", "value": 1}]}, "column"),
        (
            {"eventFieldFilters": [{"column": "result", "operator": "gt", "value": "a"}]},
            "eventFieldFilters[0].operator: gt needs a number",
        ),
        (
            {"customMetadataFilters": [{"field": "a", "operator": "contains", "value": 1}]},
            "customMetadataFilters[0].operator: contains needs a string",
        ),
        (
            {
                "customMetadataFilters": [
                    {"field": "a", "operator": "eq", "value": True, "type": "number"}
                ]
            },
            "customMetadataFilters[0].value: is not a number",
        ),
        ({"cursor": "next"}, "cursor: "),
        ({"cursor": "WzFd"}, "cursor: "),
        ({"cursor": "é"}, "cursor: "),
        ({"cursor": write_cursor(Position(2**63, 1))}, "cursor: "),
    ],
)
def test_bodies_that_are_refused(body: Any, text: str) -> None:
    with pytest.raises(RequestRefusedError) as refused:
        read(**body)

    assert refused.value.status_code == 400
    assert text in refused.value.text
