"""The plan of failures: order, matching, chance, and what a request may ask for."""

from __future__ import annotations

from typing import Any

import pytest

from vevents.emulator import Fault, FaultPlan
from vevents.emulator.plan import plan_from_json
from vevents.errors import ConfigurationError

EVENTS, BATCH, UPLOAD = "/vision-events", "/vision-events/batch", "/vision-events/upload"
BUSY, GONE = Fault(status=503), Fault(drop=True)


def test_a_script_is_taken_in_order_and_then_over() -> None:
    plan = FaultPlan()
    plan.script(BATCH, BUSY, None, GONE)

    assert [plan.take("POST", BATCH) for _ in range(4)] == [BUSY, None, GONE, None]
    assert plan.pending == 0


def test_scripts_know_their_path_and_method() -> None:
    plan = FaultPlan()
    plan.script("/vision-events/*", BUSY, method="POST")
    plan.script("*", GONE)

    assert plan.take("GET", BATCH) == GONE
    assert plan.take("POST", EVENTS) is None
    assert plan.take("POST", UPLOAD) == BUSY
    assert plan.take("POST", UPLOAD) is None


def test_a_pass_in_the_first_script_goes_before_the_second() -> None:
    plan = FaultPlan()
    plan.script(BATCH, None)
    plan.script(BATCH, BUSY)

    assert [plan.take("POST", BATCH) for _ in range(2)] == [None, BUSY]


def test_chance_is_repeatable() -> None:
    def outcome(seed: int) -> list[bool]:
        plan = FaultPlan()
        plan.at_random(0.3, BUSY, path=BATCH, seed=seed)
        return [plan.take("POST", BATCH) is BUSY for _ in range(1000)]

    assert outcome(1) == outcome(1)
    assert outcome(1) != outcome(2)
    assert 200 < sum(outcome(1)) < 400


def test_chance_at_its_ends_and_elsewhere() -> None:
    plan = FaultPlan()
    plan.at_random(0, GONE, path=BATCH)
    plan.at_random(1, BUSY, path=BATCH)

    assert plan.take("POST", BATCH) == BUSY
    assert plan.take("POST", UPLOAD) is None


def test_what_was_injected_is_counted_and_stays_counted() -> None:
    plan = FaultPlan()
    plan.script(BATCH, BUSY, None, GONE, GONE, Fault(delay_s=0.1))
    for _ in range(5):
        plan.take("POST", BATCH)
    plan.script(BATCH, BUSY)

    plan.clear()

    assert plan.pending == 0
    assert plan.take("POST", BATCH) is None
    assert plan.injected == {"503": 1, "drop": 2, "delay": 1}


@pytest.mark.parametrize(
    "fields",
    [
        {"status": 99},
        {"status": 600},
        {"delay_s": -1},
        {"status": 503, "drop": True},
        {"stored": True},
        {"stored": True, "delay_s": 1},
        {"status": 429, "headers": {"Retry-After": 2}},
        {"status": 204, "body": "x"},
        {"drop": True, "body": "x"},
    ],
)
def test_faults_that_contradict_themselves(fields: Any) -> None:
    with pytest.raises(ConfigurationError, match="fault: "):
        Fault(**fields)


def test_a_plan_from_json() -> None:
    plan = FaultPlan()
    fault = {
        "status": 429,
        "headers": {"Retry-After": "2"},
        "body": {"error": "slow down"},
        "delay_s": 1,
        "stored": True,
    }
    plan_from_json(plan, {"path": BATCH, "method": "POST", "faults": [fault, None], "repeat": 2})
    plan_from_json(plan, {"path": UPLOAD, "rate": 1, "fault": {"drop": True}, "seed": 3})

    made = Fault(
        status=429,
        headers={"Retry-After": "2"},
        body={"error": "slow down"},
        delay_s=1,
        stored=True,
    )
    assert [plan.take("POST", BATCH) for _ in range(5)] == [made, None, made, None, None]
    assert plan.take("PUT", UPLOAD) == GONE


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, "a list of faults, or a rate"),
        ({"path": 1, "faults": []}, "must be strings"),
        ({"faults": [{"status": "503"}]}, "status has the wrong type"),
        ({"faults": [{"stauts": 503}]}, "unknown field 'stauts'; known: status"),
        ({"faults": [503]}, "must be an object"),
        ({"faults": ["503"]}, "no fault is called '503'"),
        ({"faults": [{"drop": True}], "repeat": 0}, "repeat"),
        ({"faults": [{"drop": True}], "repeat": 10**6}, "repeat"),
        ({"rate": 0.5}, "must be an object"),
        ({"rate": 1.5, "fault": {"drop": True}}, "rate must be between"),
        ({"rate": True, "fault": {"drop": True}}, "a list of faults, or a rate"),
        ({"rate": 0.5, "fault": {"drop": True}, "seed": "a"}, "a list of faults, or a rate"),
    ],
)
def test_json_that_is_refused(given: Any, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        plan_from_json(FaultPlan(), given)
