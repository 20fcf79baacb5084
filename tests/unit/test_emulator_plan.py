"""The plan of failures: order, matching, chance, chaos, and what a request may ask for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from vevents.emulator import CATALOGUE, Chaos, Events, Fault, FaultPlan
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


def test_chance_from_a_moment_on() -> None:
    plan = FaultPlan()
    plan.at_random(1, BUSY, path=BATCH, after=2)

    assert [plan.take("POST", BATCH) for _ in range(4)] == [None, None, BUSY, BUSY]


def test_chaos_follows_from_seed_path_and_number() -> None:
    def outcome(seed: int, severity: Any, *paths: str) -> list[Fault | None]:
        plan = FaultPlan()
        plan.chaos = Chaos(seed, severity)
        return [plan.take("POST", path) for path in paths]

    alone = outcome(1, "high", *[BATCH] * 100)
    assert alone == outcome(1, "high", *[BATCH] * 100)
    assert alone != outcome(2, "high", *[BATCH] * 100)
    assert 30 < sum(fault is not None for fault in alone) < 70
    calm = outcome(1, "low", *[BATCH] * 1000)
    assert 20 < sum(fault is not None for fault in calm) < 100
    # Other paths between them change nothing.
    mixed = FaultPlan()
    mixed.chaos = Chaos(1, "high")
    seen = []
    for _ in range(100):
        mixed.take("POST", UPLOAD)
        seen.append(mixed.take("POST", BATCH))
    assert seen == alone


def test_chaos_never_lies_and_never_refuses() -> None:
    plan = FaultPlan()
    plan.chaos = Chaos(3, "high")

    faults = [plan.take("POST", path) for path in (EVENTS, BATCH, UPLOAD) for _ in range(3_000)]

    drawn = {fault.name for fault in faults if fault is not None}
    assert len(drawn) > 35
    for name in drawn:
        fault = CATALOGUE[name]
        assert fault.status not in (400, 402, 403, 404, 409, 413), name
        assert fault.status != 201, name
        assert fault.image != "lost", name
        assert fault.events is None or fault.events.outcome in ("partly", "unnamed"), name


def test_chaos_begins_to_count_when_it_is_set_and_ends_when_cleared() -> None:
    plan = FaultPlan()
    plan.chaos = Chaos(1, "high")
    first = [plan.take("POST", BATCH) for _ in range(50)]
    assert plan.requests == 50
    assert len(plan.history) == sum(plan.injected.values()) > 0

    plan.chaos = Chaos.parse("1:high")
    assert [plan.take("POST", BATCH) for _ in range(50)] == first
    plan.clear()

    assert plan.chaos is None
    assert [plan.take("POST", BATCH) for _ in range(50)] == [None] * 50


def test_a_plan_stays_small_whatever_is_asked_for() -> None:
    plan = FaultPlan()
    plan.at_random(1, BUSY)

    for number in range(5_000):
        plan.take("GET", f"/vision-events/{number}")

    assert plan.requests == 5_000
    assert len(plan._requests) <= 1_001
    assert len(plan.history) == 1_000


def test_a_script_goes_before_chance_and_chance_before_chaos() -> None:
    plan = FaultPlan()
    plan.chaos = Chaos(1, "high")
    plan.at_random(1, BUSY)
    plan.script("*", None, GONE)

    assert [plan.take("POST", BATCH) for _ in range(3)] == [None, GONE, BUSY]


def test_a_fault_of_some_events_counts_when_it_strikes() -> None:
    plan = FaultPlan()
    fault = Fault(events=Events(outcome="refused"))
    plan.script(BATCH, fault)

    assert plan.take("POST", BATCH) is fault
    assert plan.injected == {}
    plan.count("POST", BATCH, fault)

    assert plan.injected == {"events refused": 1}
    assert plan.history == [f"POST {BATCH} 1: events refused"]


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
    plan_from_json(plan, {"path": EVENTS, "faults": ["captive-portal"]})
    plan_from_json(plan, {"path": EVENTS, "rate": 1, "fault": "unauthorized", "after": 1})

    made = Fault(
        status=429,
        headers={"Retry-After": "2"},
        body={"error": "slow down"},
        delay_s=1,
        stored=True,
    )
    assert [plan.take("POST", BATCH) for _ in range(5)] == [made, None, made, None, None]
    assert plan.take("PUT", UPLOAD) == GONE
    named = [CATALOGUE["captive-portal"], None, CATALOGUE["unauthorized"]]
    assert [plan.take("POST", EVENTS) for _ in range(3)] == named


def test_a_release_ends_the_delay_of_a_fault_taken_before_it() -> None:
    plan = FaultPlan()
    since = plan.releases

    assert asyncio.run(plan.wait(0.001, since=since))
    plan.release()
    assert not asyncio.run(plan.wait(600, since=since))
    assert asyncio.run(plan.wait(0.001, since=plan.releases))


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
        ({"rate": 0.5, "fault": {"drop": True}, "after": "a"}, "after must be an integer"),
        ({"rate": 0.5, "fault": {"drop": True}, "after": -1}, "after must not be negative"),
        ({"rate": 0.5, "fault": "drop"}, "no fault is called 'drop'"),
        ({"chaos": 7}, "chaos: must be a string"),
        ({"chaos": "seven"}, "'seven' is not SEED or SEED:SEVERITY"),
        ({"chaos": "7:extreme"}, "'extreme' is none of low, medium, high"),
    ],
)
def test_json_that_is_refused(given: Any, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        plan_from_json(FaultPlan(), given)
