"""Faults as data: what contradicts itself, how they are counted, JSON."""

from __future__ import annotations

from typing import Any

import pytest

from vevents.emulator import Content, Events, Fault, Flow, Which
from vevents.errors import ConfigurationError


@pytest.mark.parametrize(
    "fields",
    [
        {"status": 99},
        {"status": 600},
        {"delay_s": -1},
        {"delay_s": float("inf")},
        {"status": 503, "drop": True},
        {"stored": True},
        {"stored": True, "delay_s": 1},
        {"stored": True, "answer": Flow(stop_at=0.5)},
        {"status": 429, "headers": {"Retry-After": 2}},
        {"headers": {"Retry After": "2"}},
        {"headers": {"Retry-After": "2\r\nSet-Cookie: x"}},
        {"headers": {"Retry-After": " 2"}},
        {"headers": {"Retry-After": "\u20ac"}},
        {"status": 204, "body": "x"},
        {"drop": True, "body": "x"},
        {"image": "burnt"},
        {"image": "lost", "status": 500},
        {"events": Events(outcome="partly"), "drop": True},
        {"events": Events(outcome="refused"), "status": 400, "stored": True},
        {"informational": [200]},
        {"informational": ["103"]},
    ],
)
def test_faults_that_contradict_themselves(fields: Any) -> None:
    with pytest.raises(ConfigurationError, match="fault: "):
        Fault(**fields)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (Flow, {"bytes_per_s": 0}),
        (Flow, {"stop_at": 1.5}),
        (Flow, {"then": "explode"}),
        (Which, {"share": -0.1}),
        (Which, {"event_ids": "evt-1"}),
        (Which, {"event_ids": [1]}),
        (Events, {"outcome": "eaten"}),
        (Content, {"keep": 2}),
        (Content, {"size": -1}),
        (Content, {"size": 1 << 40}),
        (Content, {"charset": "klingon"}),
    ],
)
def test_parts_out_of_range(kind: Any, fields: Any) -> None:
    with pytest.raises(ConfigurationError, match="fault: "):
        kind(**fields)


@pytest.mark.parametrize(
    ("fault", "label"),
    [
        (Fault(status=503, name="busy"), "busy"),
        (Fault(drop=True), "drop"),
        (Fault(status=503, delay_s=1), "503"),
        (Fault(events=Events(outcome="partly")), "events partly"),
        (Fault(image="lost"), "image lost"),
        (Fault(request=Flow(stop_at=0.5, then="close")), "request close"),
        (Fault(answer=Flow(bytes_per_s=5)), "answer slow"),
        (Fault(content=Content(gzip=True)), "answer changed"),
        (Fault(delay_s=1), "delay"),
    ],
)
def test_how_a_fault_is_counted(fault: Fault, label: str) -> None:
    assert fault.label == label


EVENT = {
    "eventId": "e-1",
    "eventType": "custom",
    "eventData": {"value": "x"},
    "customMetadata": {"line": 3},
}


@pytest.mark.parametrize(
    ("which", "matches"),
    [
        (Which(), True),
        (Which(event_type="custom"), True),
        (Which(event_type="quality_check"), False),
        (Which(field="eventData.value", value="x"), True),
        (Which(field="eventData.value", value="y"), False),
        (Which(field="eventData.value.deeper"), True),
        (Which(field="customMetadata.line", value=3), True),
        (Which(event_ids=["e-1", "e-2"]), True),
        (Which(event_ids=["e-2"]), False),
        (Which(event_type="custom", event_ids=["e-2"]), False),
        (Which(share=1), True),
        (Which(share=0), False),
    ],
)
def test_which_events(which: Which, matches: bool) -> None:
    assert which.matches(EVENT) is matches
    assert not which.matches("no event")


def test_a_share_of_the_events_is_always_the_same_one() -> None:
    events = [{"eventId": f"e-{number}"} for number in range(1000)]

    def struck(seed: int) -> list[bool]:
        return [Which(share=0.1, seed=seed).matches(event) for event in events]

    assert struck(1) == struck(1) != struck(2)
    assert 60 < sum(struck(1)) < 140


def test_a_fault_from_json() -> None:
    given = {
        "request": {"bytes_per_s": 5},
        "answer": {"stop_at": 0.5, "then": "stall"},
        "events": {"outcome": "refused", "which": {"event_ids": ["e-1"], "value": [1, None]}},
        "content": {"keep": 0.5, "charset": "utf-16"},
        "informational": [103],
        "http_1_0": True,
        "name": "all of it",
    }

    assert Fault.from_json(given) == Fault(
        request=Flow(bytes_per_s=5),
        answer=Flow(stop_at=0.5, then="stall"),
        events=Events(outcome="refused", which=Which(event_ids=["e-1"], value=[1, None])),
        content=Content(keep=0.5, charset="utf-16"),
        informational=[103],
        http_1_0=True,
        name="all of it",
    )


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"answer": {"stop": 1}}, "fault: answer: unknown field 'stop'; known: bytes_per_s"),
        ({"answer": {"stop_at": True}}, "fault: answer: stop_at has the wrong type"),
        ({"answer": "stall"}, "fault: answer: must be an object"),
        ({"answer": None}, "fault: answer: must be an object"),
        ({"events": {}}, "fault: events: needs an outcome"),
        ({"events": {"outcome": "lost", "which": {"seed": 1.5}}}, "events: which: seed has the wr"),
        ({"informational": 103}, "informational has the wrong type"),
    ],
)
def test_json_that_is_refused(given: Any, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        Fault.from_json(given)
