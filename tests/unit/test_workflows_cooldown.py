"""One cooldown, step by step. See also tests/property/test_cooldown_property.py."""

from __future__ import annotations

from vevents.workflows.cooldown import Cooldown, Kept


def opened(cooldown_s=10.0):
    cooldown = Cooldown()
    assert cooldown.release(0.0, cooldown_s) is None
    assert cooldown.offer("first", "pass", (0.0,), 0.0) == Kept("first", "pass", {})
    return cooldown


def test_the_first_goes_out_at_once_and_the_most_important_of_the_window_at_its_end():
    cooldown = opened()

    assert cooldown.offer("a", "pass", (0.0,), 1.0) is None
    assert cooldown.offer("b", "fail", (2.0,), 2.0) is None
    assert cooldown.offer("c", "pass", (1.0,), 3.0) is None

    assert cooldown.due_s == 10.0
    assert cooldown.release(9.9) is None
    assert cooldown.release(10.0) == Kept("b", "fail", {"pass": 2})
    assert cooldown.due_s is None


def test_of_equals_the_first_is_kept():
    cooldown = opened()
    cooldown.offer("a", "fail", (2.0,), 1.0)
    cooldown.offer("b", "fail", (2.0,), 2.0)

    assert cooldown.release(10.0) == Kept("a", "fail", {"fail": 1})


def test_what_was_held_begins_the_next_window():
    cooldown = opened()
    cooldown.offer("a", "fail", (2.0,), 1.0)
    cooldown.release(12.0)

    assert cooldown.offer("b", "pass", (0.0,), 21.9) is None
    assert cooldown.due_s == 22.0


def test_a_window_without_a_second_event_ends_quietly():
    cooldown = opened()

    assert cooldown.release(10.0) is None
    assert cooldown.is_idle(10.0)
    assert cooldown.offer("b", "pass", (0.0,), 10.0) == Kept("b", "pass", {})


def test_a_cooldown_of_zero_lets_everything_through_and_first_what_was_held():
    cooldown = opened()
    cooldown.offer("a", "fail", (2.0,), 1.0)

    assert cooldown.release(2.0, 0.0) == Kept("a", "fail", {})
    assert cooldown.offer("b", "pass", (0.0,), 2.0) == Kept("b", "pass", {})
    assert cooldown.offer("c", "pass", (0.0,), 2.0) == Kept("c", "pass", {})


def test_what_was_held_is_at_least_counted_if_nobody_called_release():
    cooldown = opened()
    cooldown.offer("a", "fail", (2.0,), 1.0)

    assert cooldown.offer("b", "pass", (0.0,), 50.0) == Kept("b", "pass", {"fail": 1})


def test_what_could_not_be_written_is_counted_by_the_next_one_that_goes_at_once():
    cooldown = opened()
    cooldown.offer("a", "fail", (2.0,), 1.0)
    cooldown.offer("b", "pass", (0.0,), 1.0)

    cooldown.give_back(cooldown.release(10.0))

    assert not cooldown.is_idle(10.0)
    assert cooldown.offer("c", "pass", (0.0,), 10.1) == Kept("c", "pass", {"fail": 1, "pass": 1})
