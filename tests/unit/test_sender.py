"""The sender: how often, after which wait, and when it gives up."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from vevents.delivery.lanes import Lanes
from vevents.delivery.sender import (
    Limits,
    Request,
    RetryPolicy,
    Sender,
    StopError,
    StopReason,
    Time,
)
from vevents.errors import (
    AuthorizationError,
    DeliveryError,
    NoAnswerError,
    RefusedError,
    ServerError,
    ThrottledError,
    UnreachableError,
)


@dataclass
class Clock:
    """A clock that moves only when somebody sleeps."""

    now_s: float = 0.0
    slept: list[float] = field(default_factory=list)
    draws: Iterator[float] = field(default_factory=lambda: iter(lambda: 1.0, None))

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds


def sender_for(
    clock: Clock, *, retry: RetryPolicy | None = None, limits: Limits | None = None
) -> Sender:
    time = Time(
        clock=lambda: clock.now_s,
        monotonic=lambda: clock.now_s,
        sleep=clock.sleep,
        draw=lambda: next(clock.draws),
    )
    return Sender(retry or RetryPolicy(), limits or Limits(), time, lambda: None)


def answering(*answers: str | DeliveryError) -> Callable[[float | None], str]:
    left = iter(answers)

    def call(_: float | None) -> str:
        answer = next(left)
        if isinstance(answer, DeliveryError):
            raise answer
        return answer

    return call


def test_success_at_once() -> None:
    clock = Clock()
    sender = sender_for(clock)

    assert sender.send(Request(answering("yes"), 10)) == "yes"
    assert (sender.requests, sender.retries, sender.bytes_sent) == (1, 0, 10)
    assert clock.slept == []


@pytest.mark.parametrize(
    ("timeout_s", "size", "within_s"),
    [(None, 10, None), (60.0, 10, 60.0), (0.5, 0, 1.0), (0.5, 20_000, 21.0), (60.0, 20_000, 60.0)],
)
def test_a_request_is_told_how_long_it_may_take(
    timeout_s: float | None, size: int, within_s: float | None
) -> None:
    sender = sender_for(Clock(), limits=Limits(timeout_s=timeout_s))

    # An image that takes longer than the whole pass must arrive all the same.
    assert sender.send(Request(lambda told: told, size)) == within_s


@pytest.mark.parametrize("kind", [ServerError, ThrottledError, NoAnswerError])
def test_waits_grow_up_to_their_limit(kind: type[DeliveryError]) -> None:
    clock = Clock()
    sender = sender_for(clock, retry=RetryPolicy(attempts=6, first_wait_s=1.0, wait_s_max=5.0))
    moments: list[float] = []
    inner = answering(*[kind("busy") for _ in range(5)], "yes")

    def call(_: float | None) -> str:
        moments.append(clock.now_s)
        return inner(None)

    assert sender.send(Request(call, 10)) == "yes"
    waits = [after - before for before, after in itertools.pairwise(moments)]
    assert waits == pytest.approx([1.0, 2.0, 4.0, 5.0, 5.0])
    assert (sender.requests, sender.retries, sender.bytes_sent) == (6, 5, 60)


def test_jitter_is_full() -> None:
    clock = Clock(draws=iter([0.0, 0.25]))

    sender_for(clock).send(Request(answering(ServerError("a"), ServerError("b"), "yes"), 1))

    assert clock.now_s == pytest.approx(0.0 + 0.25 * 2.0)


def test_sleeps_are_short_so_that_a_stop_is_noticed() -> None:
    clock = Clock()
    sender = sender_for(clock, limits=Limits(should_stop=lambda: clock.now_s >= 3.0))

    with pytest.raises(StopError) as stop:
        sender.send(Request(answering(ThrottledError("busy", retry_after_s=50.0)), 1))

    assert stop.value.reason is StopReason.INTERRUPTED
    assert clock.now_s < 3.5


def test_retry_after_is_waited_out_with_a_little_more() -> None:
    clock = Clock(draws=iter([0.5]))

    sender_for(clock).send(Request(answering(ThrottledError("busy", retry_after_s=7.0), "yes"), 1))

    assert clock.now_s == pytest.approx(7.5)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ThrottledError("busy", retry_after_s=61.0), StopReason.THROTTLED),
        (ServerError("down", retry_after_s=3600.0), StopReason.SERVER),
    ],
)
def test_retry_after_beyond_the_longest_wait_ends_the_pass(
    error: DeliveryError, reason: StopReason
) -> None:
    clock = Clock()

    with pytest.raises(StopError) as stop:
        sender_for(clock).send(Request(answering(error), 1))

    assert stop.value.reason is reason
    assert stop.value.retry_after_s == error.retry_after_s
    assert clock.slept == []


def test_last_server_error_is_raised() -> None:
    sender = sender_for(Clock())
    last = ServerError("still down")

    with pytest.raises(ServerError) as caught:
        sender.send(Request(answering(*[ServerError("down")] * 4, last), 1))

    assert caught.value is last
    assert sender.last_failure is last
    assert sender.requests == 5


def test_last_throttling_ends_the_pass() -> None:
    with pytest.raises(StopError) as stop:
        sender_for(Clock()).send(
            Request(answering(*[ThrottledError("busy", retry_after_s=1.0)] * 5), 1)
        )

    assert stop.value.reason is StopReason.THROTTLED
    assert stop.value.retry_after_s == 1.0


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (UnreachableError("no route"), StopReason.OFFLINE),
        (AuthorizationError("bad key"), StopReason.UNAUTHORIZED),
    ],
)
def test_what_ends_the_pass_at_once(error: DeliveryError, reason: StopReason) -> None:
    clock = Clock()
    sender = sender_for(clock)

    with pytest.raises(StopError, match=str(error)) as stop:
        sender.send(Request(answering(error), 10))

    assert stop.value.reason is reason
    assert (sender.requests, sender.bytes_sent, clock.slept) == (1, 0, [])


def test_refusal_is_not_repeated() -> None:
    sender = sender_for(Clock())

    with pytest.raises(RefusedError):
        sender.send(Request(answering(RefusedError("no")), 10))

    assert (sender.requests, sender.bytes_sent) == (1, 10)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ServerError("down"), StopReason.SERVER),
        (NoAnswerError("silence"), StopReason.OFFLINE),
    ],
)
def test_too_many_failures_in_a_row_end_the_pass(error: DeliveryError, reason: StopReason) -> None:
    sender = sender_for(Clock())

    for _ in range(19):
        with pytest.raises(type(error)):
            sender.send(Request(answering(error), 1, attempts=1))
    with pytest.raises(StopError) as stop:
        sender.send(Request(answering(error), 1, attempts=1))

    assert stop.value.reason is reason


@pytest.mark.parametrize("relief", ["yes", RefusedError("no")])
def test_any_real_answer_ends_the_row_of_failures(relief: str | DeliveryError) -> None:
    sender = sender_for(Clock())

    for _ in range(3):
        for _ in range(19):
            with pytest.raises(ServerError):
                sender.send(Request(answering(ServerError("down")), 1, attempts=1))
        try:
            sender.send(Request(answering(relief), 1))
        except RefusedError:
            assert isinstance(relief, RefusedError)


def test_failing_for_too_long_ends_the_pass() -> None:
    clock = Clock()
    sender = sender_for(clock)

    def slow(_: float | None) -> str:
        clock.now_s += 301.0
        raise NoAnswerError("silence")

    for _ in range(2):
        with pytest.raises(NoAnswerError):
            sender.send(Request(slow, 1, attempts=1))
    with pytest.raises(StopError):
        sender.send(Request(slow, 1, attempts=1))


def test_success_ends_the_time_of_failing() -> None:
    clock = Clock()
    sender = sender_for(clock)

    def slow(_: float | None) -> str:
        clock.now_s += 400.0
        raise NoAnswerError("silence")

    for _ in range(3):
        with pytest.raises(NoAnswerError):
            sender.send(Request(slow, 1, attempts=1))
        assert sender.send(Request(answering("yes"), 1)) == "yes"


def test_a_pause_follows_a_failure_that_is_given_up() -> None:
    clock = Clock()

    with pytest.raises(ServerError):
        sender_for(clock).send(Request(answering(ServerError("down")), 1, attempts=1))

    assert clock.now_s == pytest.approx(1.0)


def test_no_request_begins_after_the_time_limit() -> None:
    clock = Clock()
    sender = sender_for(clock, limits=Limits(timeout_s=10.0))
    clock.now_s = 10.0

    with pytest.raises(StopError) as stop:
        sender.send(Request(answering(), 1))

    assert stop.value.reason is StopReason.TIMEOUT
    assert sender.requests == 0


def test_a_wait_beyond_the_time_limit_is_not_begun() -> None:
    clock = Clock()
    sender = sender_for(clock, limits=Limits(timeout_s=10.0))

    with pytest.raises(StopError, match="no time left to repeat: busy") as stop:
        sender.send(Request(answering(ThrottledError("busy", retry_after_s=20.0)), 1))

    assert stop.value.reason is StopReason.TIMEOUT
    assert clock.slept == []


def test_byte_limit_counts_repetitions_and_lets_a_first_large_request_go() -> None:
    sender = sender_for(Clock(), limits=Limits(max_bytes=100))

    assert sender.send(Request(answering("yes"), 150)) == "yes"
    with pytest.raises(StopError) as stop:
        sender.send(Request(answering("yes"), 1))
    assert stop.value.reason is StopReason.MAX_BYTES

    sender = sender_for(Clock(), limits=Limits(max_bytes=100))
    with pytest.raises(StopError, match="limit of 100 bytes"):
        sender.send(Request(answering(ServerError("down"), "yes"), 60))
    assert sender.bytes_sent == 60


@pytest.mark.parametrize("kind", [ThrottledError, ServerError])
def test_a_wait_that_the_server_asks_for_holds_up_the_other_threads(
    kind: type[DeliveryError],
) -> None:
    clock = Clock(draws=iter(lambda: 0.0, None))
    sender = sender_for(clock)

    def give_up() -> None:
        # The thread that was told stops waiting; the others are held all the same.
        if clock.now_s > 0.0:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        sender.send(Request(answering(kind("busy", retry_after_s=30.0)), 1, check=give_up))
    assert clock.now_s < 1.0

    assert sender.send(Request(answering("yes"), 1)) == "yes"
    assert clock.now_s == pytest.approx(30.0)


def test_a_wait_of_its_own_choice_holds_up_nobody_else() -> None:
    clock = Clock()
    sender = sender_for(clock)

    def give_up() -> None:
        if clock.now_s > 0.0:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        sender.send(Request(answering(ServerError("down")), 1, check=give_up))
    before_s = clock.now_s
    sender.send(Request(answering("yes"), 1))

    assert clock.now_s == before_s


def test_only_a_first_attempt_shows_room_for_more_lanes() -> None:
    clock = Clock()
    seen: list[tuple[bool, bool]] = []

    class Watched(Lanes):
        def leave(self, entered_s: float, size: int, *, good: bool, bad: bool) -> None:
            seen.append((good, bad))
            super().leave(entered_s, size, good=good, bad=bad)

    lanes = Watched(4, lambda: clock.now_s)
    sender = sender_for(clock)

    sender.send(Request(answering("yes"), 1, lanes=lanes))
    sender.send(Request(answering(ThrottledError("busy"), "yes"), 1, lanes=lanes))
    with pytest.raises(RefusedError):
        sender.send(Request(answering(RefusedError("no")), 1, lanes=lanes))

    assert seen == [(True, False), (False, True), (False, False), (True, False)]
    assert lanes.limit == 1


def test_no_lane_is_held_while_waiting_for_the_next_attempt() -> None:
    clock = Clock()
    lanes = Lanes(1, lambda: clock.now_s)
    sender = sender_for(clock)
    free: list[bool] = []

    def look() -> None:
        if clock.now_s > 0.0 and not free:
            lanes.leave(lanes.enter(pytest.fail), 0, good=False, bad=False)
            free.append(True)

    sender.send(Request(answering(ServerError("down"), "yes"), 1, lanes=lanes, check=look))

    assert free
