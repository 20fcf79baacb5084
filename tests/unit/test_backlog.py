"""The backlog: what goes first, and that events with the same id never overtake each other."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fake_log import FakeLog

from vevents.codec import KIND_OF
from vevents.delivery import backlog as backlog_module
from vevents.delivery.backlog import (
    DEFAULT_PRIORITIES,
    Backlog,
    IdFilter,
    SharedIds,
    parse_priorities,
)
from vevents.errors import ConfigurationError
from vevents.event import Event

MAKERS: dict[str, Callable[..., Event]] = {
    "alert": lambda **f: Event.safety_alert(alert_type="fall_detected", **f),
    "check": lambda **f: Event.quality_check(result="pass", **f),
    "count": lambda **f: Event.inventory_count(item_count=1, **f),
    "custom": lambda **f: Event.custom(value="v", **f),
    "feedback": lambda **f: Event.operator_feedback(related_event_id="e", feedback="correct", **f),
}


@pytest.fixture
def log(tmp_path: Path) -> FakeLog:
    return FakeLog(tmp_path, lambda: 1_790_000_000.0)


def backlog(log: FakeLog, order: str, *, live: bool = False, **given: Any) -> Backlog:
    values: dict[str, Any] = {
        "priorities": [KIND_OF[kind] for kind in DEFAULT_PRIORITIES],
        "shared": SharedIds(log),  # type: ignore[arg-type]
        "on_live": lambda _: None,
        "check": lambda: None,
    } | given
    return Backlog(log, order, live_first=live, **values)  # type: ignore[arg-type]


def seqs(found: Backlog) -> list[int]:
    return [record.seq for record in found]


def fill(log: FakeLog, *names: str) -> None:
    for name in names:
        kind, _, event_id = name.partition(":")
        log.append(MAKERS[kind](event_id=event_id or None))


def test_oldest_first_is_the_order_of_the_log(log: FakeLog) -> None:
    fill(log, *["custom"] * 250)

    assert seqs(backlog(log, "oldest")) == list(range(1, 251))


def test_newest_first(log: FakeLog) -> None:
    fill(log, *["custom"] * 450)

    assert seqs(backlog(log, "newest")) == list(range(450, 0, -1))
    assert max(log.window_sizes) <= 100


@pytest.mark.parametrize("seed", range(5))
def test_newest_first_finds_every_pending_event_among_the_delivered(
    log: FakeLog, seed: int
) -> None:
    fill(log, *["custom"] * 2_000)
    dice = random.Random(seed)
    done = dice.sample(range(1, 2_001), dice.choice([10, 1_000, 1_950, 2_000]))
    log.ack(done)

    assert seqs(backlog(log, "newest")) == sorted(set(range(1, 2_001)) - set(done), reverse=True)


def test_newest_first_reads_little_where_nothing_is_pending(log: FakeLog) -> None:
    fill(log, *["custom"] * 20_000)
    log.ack(list(range(2, 20_001)))
    log.window_sizes.clear()

    assert seqs(backlog(log, "newest")) == [1]
    assert len(log.window_sizes) < 40


def test_newest_first_holds_little_when_records_are_large(
    log: FakeLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog_module, "_WINDOW_SIZE_MAX", 1_000)
    for _ in range(50):
        log.append(Event.custom(value="x" * 400))
    held: list[int] = []
    found = backlog(log, "newest")
    original = backlog_module._pending

    def counting(*args: Any) -> Any:
        held.append(0)
        for record in original(*args):
            held[-1] += len(record.payload)
            yield record

    monkeypatch.setattr(backlog_module, "_pending", counting)

    assert seqs(found) == list(range(50, 0, -1))
    assert max(held[1:]) < 2_000


def test_priority_goes_by_type_and_by_age_within_a_type(log: FakeLog) -> None:
    fill(log, "custom", "count", "feedback", "check", "alert")
    fill(log, "custom", "count", "feedback", "check", "alert")

    assert seqs(backlog(log, "priority")) == [5, 10, 4, 9, 3, 8, 2, 7, 1, 6]


def test_types_without_a_priority_come_last(log: FakeLog) -> None:
    fill(log, "custom", "alert", "count", "custom")

    found = backlog(
        log,
        "priority",
        priorities=[KIND_OF[kind] for kind in parse_priorities(["inventory_count"])],
    )

    assert seqs(found) == [3, 1, 2, 4]


def test_priority_reads_the_log_once_per_type_that_is_there(log: FakeLog) -> None:
    fill(log, *["custom"] * 300, "alert")
    log.window_sizes.clear()

    seqs(backlog(log, "priority"))

    # Once for the ids, and once for each of the two types.
    assert len(log.window_sizes) <= 3 * 5


@pytest.mark.parametrize("order", ["oldest", "newest", "priority"])
@pytest.mark.parametrize("seed", range(10))
def test_every_event_comes_once_and_equal_ids_keep_their_order(
    log: FakeLog, order: str, seed: int
) -> None:
    dice = random.Random(seed)
    ids = [f"evt-{number}" for number in range(20)]
    ids += [f"5f0b7c1e-3f6a-4d52-9a3e-0d8f2b6c41{number:02x}" for number in range(20)]
    fill(log, *[f"{dice.choice(list(MAKERS))}:{dice.choice(['', *ids])}" for _ in range(400)])
    log.ack(dice.sample(range(1, 401), 100))

    found = list(backlog(log, order))

    pending = [seq for seq, state in enumerate(log.states(), 1) if state == "pending"]
    assert sorted(record.seq for record in found) == pending
    for one, other in itertools.combinations(found, 2):
        if log.event_id(one) == log.event_id(other):
            assert one.seq < other.seq


def test_events_that_share_an_id_go_when_the_first_of_them_has_its_turn(log: FakeLog) -> None:
    fill(log, "custom:evt-1", "custom", "custom:evt-1", "custom")
    assert seqs(backlog(log, "newest")) == [4, 1, 3, 2]

    fill(log, "alert:evt-1")
    assert seqs(backlog(log, "priority")) == [1, 3, 5, 2, 4]


def test_too_many_shared_ids_fall_back_to_the_order_of_the_log(
    log: FakeLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog_module, "_SHARED_RECORDS_MAX", 3)
    fill(log, "custom:a", "custom:b", "custom:b", "custom:a", "alert")

    assert seqs(backlog(log, "newest")) == [1, 2, 3, 4, 5]


def test_ids_are_looked_at_once(log: FakeLog) -> None:
    shared = SharedIds(log)  # type: ignore[arg-type]
    fill(log, *["custom"] * 1_000)
    seqs(backlog(log, "newest", shared=shared))
    fill(log, "custom:evt-1", "custom:evt-1")
    log.window_sizes.clear()

    shared.update(1_002, lambda: None)

    assert shared.seqs == {"evt-1": [1_001, 1_002]}
    assert log.window_sizes[0] == 2
    log.window_sizes.clear()
    shared.update(1_002, lambda: None)
    assert log.window_sizes == []


def test_an_event_that_is_pending_again_waits_for_the_pass_that_knows_its_id(log: FakeLog) -> None:
    shared = SharedIds(log)  # type: ignore[arg-type]
    fill(log, "custom:evt-1", "custom", "custom:evt-1")
    log.mark([1], "rejected")
    first = backlog(log, "newest", shared=shared)
    assert seqs(first) == [3, 2]
    assert first.complete
    log.mark([1], "pending")
    fill(log, "custom:evt-2")
    log.mark([4], "rejected")
    shared.update(4, lambda: None)
    log.mark([4], "pending")

    second = backlog(log, "newest", shared=shared)
    assert seqs(second) == [3, 2, 1]
    assert not second.complete

    assert seqs(backlog(log, "newest", shared=shared)) == [4, 1, 3, 2]


def test_a_look_that_is_broken_off_goes_on_the_next_time(log: FakeLog) -> None:
    shared = SharedIds(log)  # type: ignore[arg-type]
    fill(log, "custom:evt-1", *["custom"] * 450, "custom:evt-1")
    looks = 0
    left = 0

    def check() -> None:
        nonlocal left
        if not left:
            raise InterruptedError
        left -= 1

    while not shared.seqs and looks < 10:
        # Never more than five windows in one look, which is what finding the first one takes.
        looks, left = looks + 1, 5
        with suppress(InterruptedError):
            shared.update(452, check)

    assert looks == 2
    assert shared.seqs == {"evt-1": [1, 452]}


# --- live before backlog --------------------------------------------------------------------


@pytest.mark.parametrize("order", ["oldest", "newest", "priority"])
def test_live_events_go_ahead_of_the_rest_of_the_backlog(log: FakeLog, order: str) -> None:
    fill(log, *["custom"] * 250)
    found = []
    for record in backlog(log, order, live=True):
        found.append(record.seq)
        if len(found) == 150:
            fill(log, "custom", "alert")

    assert found[200:202] == [251, 252]
    assert sorted(found) == list(range(1, 253))


def test_a_pass_ends_however_fast_new_events_come(log: FakeLog) -> None:
    fill(log, *["custom"] * 300)
    counted: list[int] = []
    found = []
    for record in backlog(log, "oldest", live=True, on_live=counted.append):
        found.append(record.seq)
        fill(log, "custom", "custom", "custom")

    assert [seq for seq in found if seq <= 300] == list(range(1, 301))
    live = [seq for seq in found if seq > 300]
    assert live == list(range(301, 301 + len(live)))
    assert 100 <= len(live) <= 300
    assert sum(counted) == len(live)


def test_a_live_event_under_the_id_of_a_pending_one_waits(log: FakeLog) -> None:
    fill(log, *["custom"] * 150, "custom:evt-1")
    found = []
    for record in backlog(log, "oldest", live=True):
        found.append(record.seq)
        if len(found) == 50:
            fill(log, "custom:evt-1", "custom")

    assert found[100] == 153
    assert 152 not in found


def test_without_live_first_what_is_appended_meanwhile_waits(log: FakeLog) -> None:
    fill(log, *["custom"] * 150)
    found = []
    for record in backlog(log, "oldest"):
        found.append(record.seq)
        fill(log, "custom")

    assert found == list(range(1, 151))


# --- small parts ----------------------------------------------------------------------------


def test_id_filter_never_forgets() -> None:
    ids = IdFilter()
    assert "a" not in ids
    assert not ids.add("a")
    assert ids.add("a")
    assert "a" in ids
    assert "\udc80" not in ids

    known = [f"evt-{number}" for number in range(20_000)]
    wrong = sum(ids.add(event_id) for event_id in known)
    assert wrong < 5
    assert all(event_id in ids for event_id in known)


@pytest.mark.parametrize(
    ("names", "words"),
    [(["alarm"], "'alarm'; one of"), (["custom", "custom"], "'custom' stands there twice")],
)
def test_priorities_are_checked(names: list[str], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        parse_priorities(names)
