"""The emulator's judgement: what it takes, what it refuses, and in which words."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from vevents.emulator.validation import (
    EventRules,
    Verdict,
    _is_plainly_valid,
    first_problem,
    judge_event,
    schema,
)

NOW = datetime(2026, 10, 1, 12, 0, 0, tzinfo=UTC)
BOX = {"class": "burr", "x": 812.5, "y": 403, "width": 37.0, "height": 22, "confidence": 0.913}


def event(**fields: Any) -> dict[str, Any]:
    whole: dict[str, Any] = {
        "eventId": "e-1",
        "eventType": "quality_check",
        "useCaseId": "uc-1",
        "timestamp": "2026-10-01T06:14:09.482Z",
        "eventData": {"result": "fail", "externalId": "lot-1"},
    }
    whole |= fields
    return {name: value for name, value in whole.items() if value is not ...}


def judge(body: object, **rules: Any) -> Verdict:
    return judge_event(body, EventRules(now=NOW, use_case_ids=frozenset({"uc-1"}), **rules))


def refusal(body: object, **rules: Any) -> str:
    verdict = judge(body, **rules)
    assert verdict.event is None
    return str(verdict.problems[0])


def with_image(**fields: Any) -> dict[str, Any]:
    return event(images=[fields])


COMPLETE = event(
    deviceId="press-3",
    streamId="s",
    workflowId="w",
    displayImagePosition=0,
    customMetadata={"line": "P3", "tool wear": 0.37, "shift-2": 4, "present": True},
    images=[
        {
            "sourceId": "ve-img-1",
            "inputSourceId": "ve-img-2",
            "label": "workflow",
            "objectDetections": [BOX],
            "classifications": [{"class": "night", "confidence": 1}],
            "instanceSegmentations": [{**BOX, "points": [[0, 0], [1.5, 0], [1, -2]]}],
            "keypoints": [{**BOX, "keypoints": [{"id": 5, "x": 1, "y": 2.5}]}, BOX],
        },
        {},
    ],
)


def test_a_complete_event_is_kept_as_it_was_sent() -> None:
    verdict = judge(COMPLETE, strict_event_data=True, strict_fields=True)

    assert list(verdict.problems) == []
    assert verdict.event == COMPLETE
    assert verdict.timestamp_us == 1790835249482000


@pytest.mark.parametrize(
    ("event_type", "data"),
    [
        ("quality_check", {"result": "pass"}),
        ("inventory_count", {"location": "a", "itemCount": 0, "itemType": "b"}),
        ("safety_alert", {"alertType": "no_hardhat-2", "severity": "high", "description": "d"}),
        ("custom", {"value": "v" * 10_000, "externalId": "e" * 1000}),
        ("operator_feedback", {"relatedEventId": "e-0", "feedback": "inconclusive"}),
    ],
)
def test_every_type_takes_its_data(event_type: Any, data: Any) -> None:
    verdict = judge(event(eventType=event_type, eventData=data), strict_event_data=True)

    assert verdict.event is not None
    assert verdict.event["eventData"] == data


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ([], "must be an object, not an array"),
        (event(eventId=...), "eventId: is required"),
        (event(eventId=""), "eventId: must not be empty"),
        (event(eventId=7), "eventId: must be a string, not a number"),
        (event(eventId="é" * 257), "eventId: has 257 characters, at most 256 are allowed"),
        (event(eventType="defect"), 'eventType: "defect" is not one of quality_check, inv'),
        (event(useCaseId="uc-2"), 'useCaseId: no use case "uc-2" exists'),
        (event(deviceId=None), "deviceId: must be a string, not null"),
        (event(streamId="s" * 257), "streamId: has 257 characters"),
        (event(timestamp="yesterday"), 'timestamp: "yesterday" is not an ISO 8601 time'),
        (event(timestamp=1790835249), "timestamp: must be a string, not a number"),
        (event(timestamp="2026-02-30T00:00:00Z"), "timestamp: there is no such date or time"),
        (event(displayImagePosition=-1), "displayImagePosition: -1 is less than 0"),
        (event(displayImagePosition=True), "displayImagePosition: must be an integer, not a bo"),
        (event(displayImagePosition=0.5), "must be an integer, not the number 0.5"),
        (event(eventData=[]), "eventData: must be an object"),
        (event(eventData={"result": "ok"}), 'eventData.result: "ok" is not one of pass, fail'),
        (event(eventData={"score": 1}), "eventData.score: unknown field; known: externalId, re"),
        (event(eventData={"externalId": "x" * 1001}), "eventData.externalId: has 1001 charac"),
        (
            event(eventType="safety_alert", eventData={"alertType": "no hat"}),
            'eventData.alertType: "no hat": only letters, digits, _ and - are allowed',
        ),
        (
            event(eventType="safety_alert", eventData={"alertType": "fall\n"}),
            "eventData.alertType",
        ),
        (event(eventType="inventory_count", eventData={"itemCount": 1.5}), "eventData.itemCount"),
        (event(customMetadata={"a.b": 1}), 'customMetadata: key "a.b": only letters, digits, s'),
        (event(customMetadata={"a\n": 1}), "customMetadata: key"),
        (event(customMetadata={"": 1}), "customMetadata: key"),
        (event(customMetadata={"k" * 101: 1}), "has 101 characters, at most 100 are allowed"),
        (event(customMetadata={"k": "v" * 1001}), "customMetadata.k: has 1001 characters"),
        (event(customMetadata={"k k": None}), 'customMetadata."k k": must be a string or a num'),
        (event(customMetadata={"k": float("inf")}), "customMetadata.k: is not a finite number"),
        (event(customMetadata={"k": 10**400}), "customMetadata.k: is not a finite number"),
        (event(customMetadata={str(i): i for i in range(101)}), "customMetadata: has 101 keys"),
        (event(images={}), "images: must be an array, not an object"),
        (event(images=["a"]), "images[0]: must be an object, not a string"),
        (with_image(sourceId=""), "images[0].sourceId: must not be empty"),
        (with_image(label=1), "images[0].label: must be a string"),
        (
            with_image(objectDetections=[BOX, {**BOX, "confidence": 1.01}]),
            "images[0].objectDetections[1].confidence: 1.01 is more than 1",
        ),
        (
            with_image(objectDetections=[{k: v for k, v in BOX.items() if k != "width"}]),
            "images[0].objectDetections[0].width: is required",
        ),
        (with_image(objectDetections=[{**BOX, "height": -1}]), "height: -1 is less than 0"),
        (with_image(objectDetections=[{**BOX, "x": True}]), "x: must be a number, not a bool"),
        (with_image(objectDetections=[{**BOX, "y": float("inf")}]), "y: is not a finite number"),
        (with_image(objectDetections=["a"]), "objectDetections[0]: must be an object"),
        (
            with_image(classifications=[{"class": "c", "confidence": 0}] * 1001),
            "images[0].classifications: has 1001 entries, at most 1000 are allowed",
        ),
        (
            with_image(instanceSegmentations=[{**BOX, "points": [[0, 0], [1, 1]]}]),
            "instanceSegmentations[0].points: has 2 entries, at least 3 are needed",
        ),
        (
            with_image(instanceSegmentations=[{**BOX, "points": [[0, 0], [1, 1], [2]]}]),
            "instanceSegmentations[0].points[2]: has 1 entries, at least 2",
        ),
        (
            with_image(keypoints=[{**BOX, "keypoints": [{"id": 0.5, "x": 1, "y": 1}]}]),
            "images[0].keypoints[0].keypoints[0].id: must be an integer",
        ),
        (with_image(keypoints=[[]]), "images[0].keypoints[0]: must be an object, not an array"),
    ],
)
def test_a_refusal_names_the_field_and_the_limit(body: Any, text: str) -> None:
    assert text in refusal(body)


@pytest.mark.parametrize(
    "timestamp",
    [
        "2026-09-15T10:30:00Z",
        "2026-03-30T14:30:00.000Z",
        "2026-08-21T12:00:00.123456+00:00",
        "2026-08-21T12:00:00.123456789-09:30",
    ],
)
def test_the_forms_of_timestamps_that_clients_send(timestamp: str) -> None:
    assert judge(event(timestamp=timestamp)).event is not None


@pytest.mark.parametrize(
    "timestamp",
    [
        "2026-09-15T10:30:00",
        "2026-09-15 10:30:00Z",
        "2026-09-15",
        "2026-09-15T10:30:00+00",
        "2026-09-15T10:30:00Z\n",
        "２026-09-15T10:30:00Z",
        "2026-09-15T25:30:00Z",
        "2026-09-15T10:30:60Z",
        "2026-09-15T10:30:00+24:00",
    ],
)
def test_forms_that_are_no_timestamps(timestamp: str) -> None:
    assert refusal(event(timestamp=timestamp)).startswith("timestamp: ")


@pytest.mark.parametrize(
    ("away", "text"),
    [
        (timedelta(days=-365), None),
        (timedelta(days=-365, microseconds=-1), "more than 365 days in the past"),
        (timedelta(hours=24), None),
        (timedelta(hours=24, microseconds=1), "more than 24 hours in the future"),
    ],
)
def test_the_window_of_timestamps_to_the_microsecond(away: timedelta, text: str | None) -> None:
    body = event(timestamp=(NOW + away).isoformat(timespec="microseconds"))

    if text is None:
        assert judge(body).event is not None
    else:
        assert text in refusal(body)


def test_all_that_is_wrong_is_found() -> None:
    found = judge(event(eventId="", useCaseId="?", timestamp="?", eventData={"x": 1}, images=1))

    assert {problem.path for problem in found.problems} == {
        "eventId",
        "useCaseId",
        "timestamp",
        "eventData.x",
        "images",
    }


def test_all_that_is_missing_is_found() -> None:
    found = judge({"eventType": "custom"})

    assert [str(problem) for problem in found.problems] == [
        "eventId: is required",
        "useCaseId: is required",
        "timestamp: is required",
    ]


def test_a_missing_event_data_is_an_empty_one() -> None:
    verdict = judge(event(eventData=...))

    assert verdict.event is not None
    assert verdict.event["eventData"] == {}


@pytest.mark.parametrize(
    ("event_type", "data", "text"),
    [
        ("quality_check", ..., "eventData: is required"),
        ("quality_check", {}, "eventData.result: is required for quality_check"),
        ("inventory_count", {"location": "a"}, "eventData.itemCount: is required"),
        ("safety_alert", {"severity": "low"}, "eventData.alertType: is required"),
        ("custom", {}, "eventData.value: is required"),
        ("operator_feedback", {"feedback": "correct"}, "eventData.relatedEventId: is required"),
        ("operator_feedback", {"relatedEventId": "e"}, "eventData.feedback: is required"),
    ],
)
def test_strict_event_data_asks_for_what_the_type_is_about(
    event_type: Any, data: Any, text: str
) -> None:
    body = event(eventType=event_type, eventData=data)

    assert judge(body).event is not None
    assert text in refusal(body, strict_event_data=True)


@pytest.mark.parametrize(
    ("added", "text"),
    [
        ({"classId": 3}, "classId: is not a field of the API"),
        ({"images": [{"base64Image": "x"}]}, "images[0].base64Image: is not a field"),
        (
            {"images": [{"objectDetections": [{**BOX, "trackerId": 1}]}]},
            "images[0].objectDetections[0].trackerId: is not a field",
        ),
        (
            {
                "images": [
                    {"keypoints": [{**BOX, "keypoints": [{"id": 0, "x": 0, "y": 0, "name": "a"}]}]}
                ]
            },
            "images[0].keypoints[0].keypoints[0].name: is not a field",
        ),
    ],
)
def test_unknown_fields_are_ignored_or_refused(added: Any, text: str) -> None:
    body = event(**added)
    before = copy.deepcopy(body)

    kept = judge(body).event
    assert kept is not None
    assert text.partition(":")[0].rpartition(".")[2] not in str(kept)
    assert body == before
    assert text in refusal(body, strict_fields=True)


def test_a_display_position_outside_the_images_is_refused_when_strict() -> None:
    body = event(images=[{}], displayImagePosition=1)

    assert judge(body).event == body
    assert "displayImagePosition: 1, but there are 1 images" in refusal(body, strict_fields=True)


def test_degraded_images_leave_a_warning() -> None:
    body = event(
        images=[{}, {"objectDetections": [{**BOX, "confidence": 2}]}], displayImagePosition=0
    )

    verdict = judge(body, degrade_images=True)

    assert verdict.event == event()
    [warning] = verdict.warnings
    assert "images[1].objectDetections[0].confidence: 2 is more than 1" in warning


def test_degrading_excuses_nothing_but_images() -> None:
    assert "eventId" in refusal(event(eventId="", images=1), degrade_images=True)


@pytest.mark.parametrize(
    ("name", "body", "text"),
    [
        ("batch", {}, "events: is required"),
        ("batch", {"events": []}, "events: has 0 entries, at least 1 are needed"),
        ("batch", {"events": [0] * 101}, "events: has 101 entries, at most 100 are allowed"),
        ("bundle", {"bundleFormatVersion": 2, "images": []}, "2 is not one of 1"),
        ("query", {"useCaseId": "u", "classes": []}, "classes: unknown field; known: cursor"),
        ("query", {"useCaseId": "u", "limit": 0}, "limit: 0 is less than 1"),
        (
            "query",
            {"useCaseId": "u", "deviceId": {"operator": "gt", "value": "a"}},
            'deviceId.operator: "gt" is not one of eq, neq',
        ),
    ],
)
def test_the_other_bodies(name: str, body: Any, text: str) -> None:
    assert text in str(first_problem(name, body))


# --- the quick loops and the schema must be of one mind ------------------------------------------

ODD: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, False, 0, -1, 1, 1.5, -0.5, 1e308, float("inf"), 10**400, "", "a", [], {}, [0]]
)


def mutants(sound: Any) -> st.SearchStrategy[Any]:
    """Draw a value like the given one, with odd values and missing keys here and there."""
    match sound:
        case dict():
            keys = list(sound)
            return st.fixed_dictionaries(
                {}, optional={key: mostly(mutants(sound[key])) for key in keys}
            ) | st.fixed_dictionaries({key: mostly(mutants(sound[key])) for key in keys})
        case list():
            return st.lists(st.one_of([mostly(mutants(each)) for each in sound]), max_size=4)
        case _:
            return st.just(sound)


def mostly(sound: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.integers(0, 9).flatmap(lambda dice: ODD if dice == 0 else sound)


WHOLE_SCHEMA = Draft202012Validator(schema())
IMAGE_SCHEMA = Draft202012Validator({"$defs": schema()["$defs"], "$ref": "#/$defs/image"})


@given(mutants(COMPLETE["images"][0]))
def test_the_loops_never_pass_what_the_schema_refuses(image: Any) -> None:
    if _is_plainly_valid(image):
        assert IMAGE_SCHEMA.is_valid(image)


def test_the_loops_do_pass_what_is_common() -> None:
    # Else every image would take the slow way, and nobody would notice.
    assert all(_is_plainly_valid(image) for image in COMPLETE["images"])


@given(mutants(COMPLETE))
def test_the_parts_of_the_judgement_add_up_to_the_schema(body: Any) -> None:
    body = body | {"useCaseId": "uc-1", "timestamp": COMPLETE["timestamp"]}

    assert (judge(body).event is not None) == WHOLE_SCHEMA.is_valid(body)


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(schema())
