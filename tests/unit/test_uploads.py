"""Lanes, upload threads, reading ahead, and the cap on bytes per second."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

import pytest

from vevents.delivery.lanes import Lanes
from vevents.delivery.pace import Pace
from vevents.delivery.sender import StopError, StopReason
from vevents.delivery.uploads import ReadAhead, Upload, Uploads
from vevents.errors import LogDegradedError
from vevents.event import FrameRef

WAIT_S = 20.0


# --- lanes ----------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def flow(lanes: Lanes, clock: Clock, best: int, uploads: int) -> list[int]:
    """Let uploads follow each other without a gap; `best` at a time take a second each.

    Returns:
        The limit after each of them.
    """
    limits = []
    under_way = [lanes.enter(pytest.fail) for _ in range(lanes.limit)]
    for _ in range(uploads):
        clock.now_s += 1.0 / min(best, len(under_way))
        lanes.leave(under_way.pop(0), 1_000, good=True, bad=False)
        while len(under_way) < lanes.limit:
            under_way.append(lanes.enter(pytest.fail))
        limits.append(lanes.limit)
    return limits


def test_lanes_grow_one_by_one_while_that_brings_more() -> None:
    clock = Clock()
    lanes = Lanes(8, clock)
    assert lanes.limit == 2

    seen = flow(lanes, clock, best=8, uploads=200)

    assert seen[-1] == 8
    assert all(after - before in (0, 1) for before, after in itertools.pairwise(seen))


def test_a_lane_that_brings_nothing_is_taken_back() -> None:
    clock = Clock()
    lanes = Lanes(8, clock)

    flow(lanes, clock, best=3, uploads=200)

    assert lanes.limit in (3, 4)


def test_trouble_halves_once_for_what_was_under_way_together() -> None:
    clock = Clock()
    lanes = Lanes(8, clock)
    lanes.limit = 8
    entered = [lanes.enter(pytest.fail) for _ in range(6)]
    clock.now_s = 1.0

    for entered_s in entered:
        lanes.leave(entered_s, 10, good=False, bad=True)
    assert lanes.limit == 4

    clock.now_s = 2.0
    later = lanes.enter(pytest.fail)
    lanes.leave(later, 10, good=False, bad=True)
    assert lanes.limit == 2


def test_there_is_always_one_lane_and_never_more_than_allowed() -> None:
    clock = Clock()
    lanes = Lanes(1, clock)
    assert lanes.limit == 1
    for _ in range(20):
        clock.now_s += 1.0
        lanes.leave(lanes.enter(pytest.fail), 10, good=True, bad=False)
    assert lanes.limit == 1
    clock.now_s += 1.0
    lanes.leave(lanes.enter(pytest.fail), 10, good=False, bad=True)
    assert lanes.limit == 1


def test_uploads_that_were_repeated_or_too_few_show_no_room_for_more() -> None:
    clock = Clock()
    lanes = Lanes(8, clock)
    for good in (False, True):
        for _ in range(40):
            clock.now_s += 1.0
            # One at a time: the second lane stays empty.
            lanes.leave(lanes.enter(pytest.fail), 10, good=good, bad=False)
    assert lanes.limit == 2


def test_no_lane_is_left_to_more_than_the_limit() -> None:
    lanes = Lanes(2, Clock())
    lanes.enter(pytest.fail)
    lanes.enter(pytest.fail)

    def give_up() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        lanes.enter(give_up)


# --- pace -----------------------------------------------------------------------------------


def test_without_a_cap_nothing_waits() -> None:
    pace = Pace(None)
    assert [pace.reserve(10**9, 5.0) for _ in range(3)] == [5.0, 5.0, 5.0]


def test_each_request_is_paid_for_by_the_ones_behind_it() -> None:
    pace = Pace(1_000)
    # A large one goes at once, is not starved, and the small ones keep their turn.
    begins = [pace.reserve(size, 0.0) for size in (10, 100_000, 10, 10)]
    assert begins == pytest.approx([0.0, 0.01, 100.01, 100.02])
    # What was not used before is not saved up.
    assert [pace.reserve(1_000, 500.0) for _ in range(2)] == [500.0, 501.0]


# --- upload threads -------------------------------------------------------------------------


def upload(number: int) -> Upload:
    return Upload(FrameRef(number, bytes([number]) * 16, 10), 0)


class Gate:
    """Lets uploads through when it is opened, and counts how many stand before it."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.waiting = threading.Semaphore(0)
        self.seen: list[int] = []

    def run(self, upload: Upload) -> None:
        self.seen.append(upload.frame.seq)
        self.waiting.release()
        assert self.open.wait(WAIT_S)
        upload.source_id = f"id-{upload.frame.seq}"


def test_one_upload_at_a_time_needs_no_thread() -> None:
    before = threading.active_count()
    uploads = Uploads(1)
    one = upload(1)
    uploads.add(one, lambda job: setattr(job, "source_id", threading.current_thread().name))

    assert (one.done, one.source_id) == (True, threading.current_thread().name)
    assert threading.active_count() == before


def test_as_many_as_there_are_threads_run_side_by_side_in_order() -> None:
    gate = Gate()
    uploads = Uploads(3)
    several = [upload(number) for number in range(1, 6)]
    for one in several:
        uploads.add(one, gate.run)
    for _ in range(3):
        assert gate.waiting.acquire(timeout=WAIT_S)

    assert sorted(gate.seen) == [1, 2, 3]
    assert not uploads.wait(several[0], 0.01)
    gate.open.set()
    assert all(uploads.wait(one, WAIT_S) for one in several)
    uploads.finish()
    assert [one.source_id for one in several] == [f"id-{number}" for number in range(1, 6)]


def test_finish_begins_nothing_and_waits_for_what_is_under_way() -> None:
    gate = Gate()
    uploads = Uploads(2)
    several = [upload(number) for number in range(1, 5)]
    for one in several:
        uploads.add(one, gate.run)
    for _ in range(2):
        assert gate.waiting.acquire(timeout=WAIT_S)
    opener = threading.Timer(0.05, gate.open.set)
    opener.start()

    uploads.finish()

    assert [one.done for one in several] == [True, True, False, False]
    opener.join()


def test_trouble_with_the_log_is_raised_to_whoever_waits_and_by_finish() -> None:
    def fail(_: Upload) -> None:
        raise LogDegradedError("EIO")

    uploads = Uploads(2)
    one = upload(1)
    uploads.add(one, fail)

    with pytest.raises(LogDegradedError):
        uploads.wait(one, WAIT_S)
    with pytest.raises(LogDegradedError):
        uploads.finish()


def test_a_stop_found_by_an_upload_is_raised_to_whoever_waits() -> None:
    def stop(_: Upload) -> None:
        raise StopError(StopReason.OFFLINE, "gone")

    uploads = Uploads(2)
    one = upload(1)
    uploads.add(one, stop)

    with pytest.raises(StopError, match="gone"):
        uploads.wait(one, WAIT_S)
    with pytest.raises(StopError, match="gone"):
        uploads.raise_failure()
    uploads.finish()
    with pytest.raises(StopError):
        uploads.check()


def test_abandoned_uploads_do_not_touch_the_log() -> None:
    gate = Gate()
    touched: list[int] = []

    def run(one: Upload) -> None:
        gate.run(one)
        with uploads.log_lock():
            touched.append(one.frame.seq)

    uploads = Uploads(2)
    uploads.add(upload(1), run)
    assert gate.waiting.acquire(timeout=WAIT_S)

    uploads.abandon()
    gate.open.set()
    for thread in uploads._threads:
        thread.join(WAIT_S)

    assert touched == []


# --- reading ahead --------------------------------------------------------------------------


def test_reading_ahead_changes_nothing_but_the_time() -> None:
    assert list(ReadAhead(iter(range(1_000)), lambda _: 1, 100)) == list(range(1_000))


def test_reading_ahead_is_bounded_in_count_and_in_bytes() -> None:
    for size, most in ((1, 200), (1_000, 5)):
        taken: list[int] = []

        def source(taken: list[int] = taken) -> Iterator[int]:
            for number in range(10_000):
                taken.append(number)
                yield number

        ahead = ReadAhead(source(), lambda _, size=size: size, 1_000)  # type: ignore[misc]
        assert next(iter(ahead)) == 0
        ahead.close()
        assert len(taken) <= most


def test_what_was_read_before_trouble_comes_before_the_trouble() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise LogDegradedError("EIO")

    found = []
    with pytest.raises(LogDegradedError):
        for number in ReadAhead(source(), lambda _: 1, 100):
            found.append(number)
    assert found == [1]
