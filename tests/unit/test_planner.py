"""When the agent's next pass is due: every rule, with the time and the dice in the test's hand."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest

from vevents.delivery.planner import Planner, Rhythm, Why
from vevents.delivery.report import FlushReport
from vevents.delivery.sender import StopReason


def report(
    reason: StopReason | None = None,
    *,
    delivered: int = 0,
    pending_after: int = 0,
    retry_after_s: float | None = None,
    duration_s: float = 0.1,
) -> FlushReport:
    values: dict[str, Any] = {field.name: 0 for field in dataclasses.fields(FlushReport)}
    values |= {
        "rejected_by_reason": {},
        "delivered": delivered,
        "pending_after": pending_after,
        "duration_s": duration_s,
        "stopped_reason": reason,
        "message": None if reason is None else str(reason),
        "retry_after_s": retry_after_s,
    }
    return FlushReport(**values)


class Dice:
    """A die that falls as it is told."""

    def __init__(self) -> None:
        self.value = 1.0

    def __call__(self) -> float:
        return self.value


@pytest.fixture
def dice() -> Dice:
    return Dice()


@pytest.fixture
def planner(dice: Dice) -> Planner:
    return Planner(Rhythm(interval_s=5.0, batch_count=100, spread_s=10.0), dice)


def after(planner: Planner, now_s: float, ended: FlushReport) -> float | None:
    """Make a pass that ends so, and return when the next one is due."""
    planner.began()
    planner.ended(now_s, ended)
    return planner.due_s()


# --- fresh events ---------------------------------------------------------------------------


def test_nothing_is_due_when_nothing_happens(planner: Planner) -> None:
    assert planner.due_s() is None


def test_a_fresh_event_waits_for_company_and_its_company_does_not_prolong_it(
    planner: Planner,
) -> None:
    planner.saw_fresh(100.0, 1, urgent=False)
    assert planner.due_s() == 105.0
    planner.saw_fresh(104.0, 98, urgent=False)
    assert planner.due_s() == 105.0


def test_a_full_batch_goes_at_once(planner: Planner) -> None:
    planner.saw_fresh(100.0, 99, urgent=False)
    planner.saw_fresh(101.0, 1, urgent=False)

    assert planner.due_s() == 100.0


def test_an_urgent_event_goes_at_once(planner: Planner) -> None:
    planner.saw_fresh(100.0, 1, urgent=True)

    assert planner.due_s() == 100.0


def test_what_comes_during_a_pass_is_due_after_it(planner: Planner) -> None:
    planner.saw_fresh(100.0, 1, urgent=False)
    planner.began()
    assert planner.due_s() is None
    planner.saw_fresh(107.0, 1, urgent=False)
    assert planner.due_s() is None
    planner.ended(108.0, report(delivered=1))

    assert planner.due_s() == 112.0


def test_a_pass_takes_along_what_was_fresh(planner: Planner) -> None:
    planner.saw_fresh(100.0, 1, urgent=True)

    assert after(planner, 101.0, report(delivered=1)) is None


def test_what_nothing_announced_goes_at_once_but_ends_no_wait(planner: Planner) -> None:
    planner.saw_leftovers(50.0)
    assert planner.due_s() == 50.0
    assert after(planner, 60.0, report(StopReason.UNAUTHORIZED)) == 60.0 + 900.0 * 1.2
    planner.saw_leftovers(61.0)
    assert planner.due_s() == 60.0 + 900.0 * 1.2


def test_nothing_pending_ends_every_wait(planner: Planner) -> None:
    planner.saw_fresh(1.0, 5, urgent=True)
    after(planner, 2.0, report(StopReason.OFFLINE))
    planner.saw_nothing_pending()

    assert planner.due_s() is None
    assert after(planner, 10.0, report(StopReason.OFFLINE)) == 11.0


# --- many devices together ------------------------------------------------------------------


@pytest.mark.parametrize("drawn", [0.0, 0.25, 1.0])
def test_a_start_is_spread(planner: Planner, dice: Dice, drawn: float) -> None:
    dice.value = drawn
    planner.started(100.0)
    planner.saw_fresh(100.0, 500, urgent=True)

    assert planner.due_s() == 100.0 + 10.0 * drawn


def test_the_end_of_a_pause_is_spread(planner: Planner, dice: Dice) -> None:
    dice.value = 0.5
    planner.allowed_again(100.0)
    assert planner.due_s() == 105.0


def test_a_wait_that_ran_out_during_a_pause_does_not_undo_the_spreading(planner: Planner) -> None:
    assert after(planner, 100.0, report(StopReason.OFFLINE)) == 101.0
    planner.allowed_again(5_000.0)

    assert planner.due_s() == 5_010.0


@pytest.mark.parametrize("reason", [StopReason.PAUSED, StopReason.OUTSIDE_WINDOW])
def test_a_pass_that_met_a_pause_is_not_repeated_at_once(
    planner: Planner, reason: StopReason
) -> None:
    due_s = after(planner, 100.0, report(reason, pending_after=5, retry_after_s=3_600.0))

    assert due_s is not None
    assert 102.0 < due_s < 105.0


def test_the_end_of_a_pause_ends_no_other_wait(planner: Planner) -> None:
    due_s = after(planner, 100.0, report(StopReason.THROTTLED, retry_after_s=60.0))
    planner.allowed_again(101.0)

    assert planner.due_s() == due_s


def test_a_reconnect_is_spread(planner: Planner, dice: Dice) -> None:
    for _ in range(12):
        after(planner, 100.0, report(StopReason.OFFLINE))
    dice.value = 0.3
    planner.network_changed(150.0)

    assert planner.due_s() == 153.0


# --- back-off -------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", [StopReason.OFFLINE, StopReason.SERVER, StopReason.THROTTLED])
def test_failures_wait_longer_and_longer_up_to_five_minutes(
    planner: Planner, reason: StopReason
) -> None:
    waits = []
    for _ in range(12):
        due_s = after(planner, 1_000.0, report(reason))
        assert due_s is not None
        waits.append(due_s - 1_000.0)

    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 300.0, 300.0, 300.0]


def test_the_ladder_is_bounded_after_years(planner: Planner) -> None:
    for _ in range(5_000):
        due_s = after(planner, 0.0, report(StopReason.OFFLINE))
    assert due_s == 300.0


def test_the_wait_is_any_part_of_the_ladder_but_never_less_than_a_second() -> None:
    planner = Planner(Rhythm(), random.Random(1).random)
    for _ in range(20):
        planner.failed(0.0)
    waits = []
    for _ in range(500):
        due_s = after(planner, 0.0, report(StopReason.OFFLINE))
        assert due_s is not None
        waits.append(due_s)

    assert min(waits) >= 1.0
    assert min(waits) < 15.0
    assert max(waits) > 285.0
    assert 130.0 < sum(waits) / len(waits) < 170.0


@pytest.mark.parametrize("better", [report(), report(StopReason.OFFLINE, delivered=1)])
def test_a_success_begins_the_ladder_anew(planner: Planner, better: FlushReport) -> None:
    for _ in range(6):
        after(planner, 100.0, report(StopReason.OFFLINE))
    after(planner, 100.0, better)
    began_anew = better.stopped_reason is None

    assert after(planner, 100.0, report(StopReason.OFFLINE)) == (101.0 if began_anew else 102.0)


def test_one_event_that_the_server_fails_on_does_not_keep_the_ladder_at_its_foot(
    planner: Planner,
) -> None:
    waits = [after(planner, 0.0, report(StopReason.SERVER, delivered=10)) for _ in range(12)]

    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 300.0, 300.0, 300.0]


def test_trouble_of_our_own_backs_off_as_well(planner: Planner) -> None:
    for expected in (1.0, 2.0, 4.0):
        planner.began()
        planner.failed(100.0)
        assert planner.due_s() == 100.0 + expected


def test_fresh_events_wait_while_offline(planner: Planner) -> None:
    for _ in range(9):
        due_s = after(planner, 100.0, report(StopReason.OFFLINE))
    planner.saw_fresh(101.0, 5_000, urgent=False)

    assert planner.due_s() == due_s == 356.0


@pytest.mark.parametrize("reason", [StopReason.OFFLINE, StopReason.SERVER, StopReason.NO_USE_CASE])
def test_an_urgent_event_tries_sooner_but_not_again_and_again(
    planner: Planner, reason: StopReason
) -> None:
    for _ in range(9):
        after(planner, 100.0, report(reason))
    planner.saw_fresh(103.0, 1, urgent=True)
    assert planner.due_s() == 110.0
    after(planner, 110.0, report(reason))
    planner.saw_fresh(190.0, 1, urgent=True)
    assert planner.due_s() == 190.0


@pytest.mark.parametrize("reason", [StopReason.SERVER, StopReason.NO_USE_CASE])
def test_events_behind_a_bad_one_are_not_held_up_for_long(
    planner: Planner, reason: StopReason
) -> None:
    for _ in range(9):
        after(planner, 100.0, report(reason, pending_after=1))
    planner.saw_fresh(101.0, 1, urgent=False)

    assert planner.due_s() == 160.0


def test_looking_through_a_large_rest_leaves_the_processor_in_peace(planner: Planner) -> None:
    after(planner, 100.0, report(StopReason.NO_USE_CASE, duration_s=30.0, pending_after=100_000))
    planner.saw_fresh(101.0, 1, urgent=True)

    assert planner.due_s() == 400.0


# --- the network ----------------------------------------------------------------------------


def test_news_of_the_network_begin_the_ladder_anew(planner: Planner, dice: Dice) -> None:
    for _ in range(9):
        after(planner, 100.0, report(StopReason.OFFLINE))
    dice.value = 0.0
    planner.network_changed(120.0)
    assert planner.due_s() == 120.0
    dice.value = 1.0
    assert after(planner, 121.0, report(StopReason.OFFLINE)) == 122.0


def test_a_burst_of_news_is_one_reason_to_try(planner: Planner, dice: Dice) -> None:
    after(planner, 100.0, report(StopReason.UNAUTHORIZED))
    for _ in range(9):
        after(planner, 100.0, report(StopReason.OFFLINE))
    dice.value = 0.5
    planner.network_changed(120.0)
    dice.value = 0.0
    planner.network_changed(121.0)

    assert planner.due_s() == 125.0


def test_a_loose_contact_does_not_hold_the_ladder_at_its_foot(planner: Planner) -> None:
    for second in range(0, 55, 5):
        after(planner, 100.0 + second, report(StopReason.OFFLINE))
        planner.network_changed(100.0 + second)
    due_s = after(planner, 155.0, report(StopReason.OFFLINE))

    assert due_s is not None
    assert due_s > 155.0 + 200.0


def test_news_that_come_during_a_pass_count_after_it(planner: Planner, dice: Dice) -> None:
    for _ in range(9):
        after(planner, 100.0, report(StopReason.OFFLINE))
    planner.began()
    planner.network_changed(130.0)
    dice.value = 0.4
    planner.ended(135.0, report(StopReason.OFFLINE))

    assert planner.due_s() == 139.0


@pytest.mark.parametrize(
    "reason",
    [None, StopReason.SERVER, StopReason.THROTTLED, StopReason.UNAUTHORIZED],
)
def test_news_of_the_network_change_nothing_else(
    planner: Planner, reason: StopReason | None
) -> None:
    due_s = after(planner, 100.0, report(reason))
    planner.network_changed(100.5)

    assert planner.due_s() == due_s


# --- what the server asks for ---------------------------------------------------------------


@pytest.mark.parametrize("reason", [StopReason.THROTTLED, StopReason.SERVER, StopReason.OFFLINE])
def test_a_wait_that_the_server_asks_for_is_kept_whatever_happens(
    planner: Planner, dice: Dice, reason: StopReason
) -> None:
    dice.value = 0.0
    assert after(planner, 100.0, report(reason, retry_after_s=3_600.0)) == 3_700.0
    planner.saw_fresh(101.0, 1_000, urgent=True)
    planner.network_changed(102.0)
    planner.saw_leftovers(103.0)
    planner.allowed_again(104.0)
    assert not planner.asked(105.0)

    assert planner.due_s() == 3_700.0


def test_devices_sent_away_together_come_back_apart(planner: Planner, dice: Dice) -> None:
    dice.value = 0.7
    assert after(planner, 0.0, report(StopReason.THROTTLED, retry_after_s=60.0)) == 67.0


def test_nobody_is_sent_away_for_longer_than_a_day(planner: Planner, dice: Dice) -> None:
    dice.value = 0.0
    assert after(planner, 0.0, report(StopReason.THROTTLED, retry_after_s=1e12)) == 86_400.0


def test_a_server_that_slows_down_without_a_time_is_left_alone_as_well(planner: Planner) -> None:
    for _ in range(9):
        due_s = after(planner, 100.0, report(StopReason.THROTTLED))
    planner.saw_fresh(101.0, 1, urgent=True)

    assert not planner.asked(102.0)
    assert planner.due_s() == due_s == 356.0


# --- the key, the settings, a request -------------------------------------------------------


def test_a_key_that_is_not_accepted_waits_long(planner: Planner, dice: Dice) -> None:
    dice.value = 0.0
    assert after(planner, 100.0, report(StopReason.UNAUTHORIZED)) == 1_000.0
    planner.saw_fresh(101.0, 1_000, urgent=True)
    planner.network_changed(102.0)
    assert planner.due_s() == 1_000.0


def test_a_missing_key_waits_as_long(planner: Planner, dice: Dice) -> None:
    dice.value = 0.0
    planner.began()
    planner.lacks_setting(100.0)

    assert planner.due_s() == 1_000.0


@pytest.mark.parametrize(
    "ended",
    [
        report(StopReason.UNAUTHORIZED),
        report(StopReason.NO_USE_CASE),
        report(StopReason.OFFLINE),
        report(),
    ],
)
def test_new_settings_are_tried_soon_and_spread(
    planner: Planner, dice: Dice, ended: FlushReport
) -> None:
    after(planner, 100.0, ended)
    dice.value = 0.5
    planner.reloaded(110.0, Rhythm(interval_s=1.0, spread_s=10.0))

    assert planner.due_s() == 115.0
    assert planner.rhythm.interval_s == 1.0


@pytest.mark.parametrize("reason", [StopReason.UNAUTHORIZED, StopReason.OFFLINE, None])
def test_a_pass_that_somebody_asks_for_is_made_at_once(
    planner: Planner, reason: StopReason | None
) -> None:
    after(planner, 100.0, report(reason))

    assert planner.asked(110.0)
    assert planner.due_s() == 110.0


def test_a_pass_asked_for_during_a_pass_follows_it(planner: Planner) -> None:
    planner.began()
    assert planner.asked(100.0)
    assert planner.due_s() is None
    planner.ended(101.0, report(delivered=3))

    assert planner.due_s() == 100.0


def test_another_flush_is_waited_for(planner: Planner) -> None:
    planner.began()
    planner.found_lock(100.0)
    assert planner.wait is not None
    assert planner.wait.why is Why.LOCKED
    due_s = planner.due_s()
    assert due_s is not None
    assert 102.0 < due_s < 105.0


@pytest.mark.parametrize(
    "reason", [StopReason.TIMEOUT, StopReason.MAX_BYTES, StopReason.INTERRUPTED]
)
def test_an_interrupted_pass_goes_on_where_it_was(planner: Planner, reason: StopReason) -> None:
    assert after(planner, 100.0, report(reason, pending_after=7)) == 100.0
    assert after(planner, 100.0, report(reason)) is None


def test_a_week_of_any_events_never_floods_and_never_sleeps_for_good() -> None:
    """Whatever happens, passes keep coming while something is pending, and never in a rush."""
    dice = random.Random(3)
    planner = Planner(Rhythm(), dice.random)
    now_s, pending, ends = 0.0, 5, [0.0]
    planner.started(now_s)
    for _ in range(20_000):
        now_s += dice.expovariate(1.0)
        match dice.randrange(12):
            case 0:
                planner.network_changed(now_s)
            case 1 | 2:
                pending += 3
                planner.saw_fresh(now_s, 3, urgent=dice.random() < 0.1)
            case 3:
                planner.allowed_again(now_s)
            case 4 if planner.due_s() is None and pending:
                planner.saw_leftovers(now_s)
        due_s = planner.due_s()
        assert pending == 0 or due_s is None or due_s - now_s < 1_100.0
        if due_s is None or now_s < due_s:
            continue
        planner.began()
        now_s += 0.1
        ends.append(now_s)
        if dice.random() < 0.2:
            pending = 0
            planner.ended(now_s, report(delivered=1))
        else:
            trouble = dice.choice([StopReason.OFFLINE, StopReason.SERVER, StopReason.UNAUTHORIZED])
            planner.ended(now_s, report(trouble, pending_after=pending))

    assert len(ends) > 50
    assert len(ends) < now_s / 5.0


def test_new_settings_end_no_wait_that_the_server_asked_for(planner: Planner) -> None:
    due_s = after(planner, 100.0, report(StopReason.THROTTLED, retry_after_s=600.0))
    planner.reloaded(110.0, Rhythm(spread_s=0.0))

    assert planner.due_s() == due_s
