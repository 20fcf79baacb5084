"""When an append keeps Python's lock, and when it lets others run: docs/design/0013."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from vevents import DetectionWriter, Event, EventLog

SHORT = b"\x81\xa1a\xc4\xc8" + bytes(200)
LONG = b"\x81\xa1a\xc5\x23\x28" + bytes(9_000)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    sizes = {"events_size": 128 << 20, "segment_size": 16 << 20, "media_size": 16 << 20}
    with EventLog(tmp_path / "log", **sizes, sync_interval_s=0) as opened:
        yield opened
        assert opened.stats().conserved


@pytest.fixture
def others_run() -> Iterator[Callable[[Callable[[], object], int], bool]]:
    """Whether another thread that wants Python's lock gets it while something is called.

    It gets it only where the lock is let go: nobody is made to give it up meanwhile.
    """
    interval_s = sys.getswitchinterval()

    def others_run(call: Callable[[], object], times: int) -> bool:
        gate = threading.Lock()
        ran = False

        def other() -> None:
            nonlocal ran
            with gate:
                ran = True

        thread = threading.Thread(target=other)
        with gate:
            thread.start()
            sys.setswitchinterval(1e6)
        # The lock is ours until it is let go; that the other waits for it takes it a moment.
        until = time.perf_counter() + 0.05
        while time.perf_counter() < until:
            pass
        assert not ran
        for _ in range(times):
            call()
            if ran:
                break
        seen = ran
        sys.setswitchinterval(interval_s)
        thread.join()
        return seen

    yield others_run
    sys.setswitchinterval(interval_s)


def detections(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return (
        np.tile(np.float32([1, 2, 30, 40]), (count, 1)),
        np.full(count, 0.5, np.float32),
        np.zeros(count, np.int64),
    )


def calls(log: EventLog, count: int) -> dict[str, Callable[[], object]]:
    writer = DetectionWriter(log, Event.custom(value="seen", use_case_id="uc"), ["burr"])
    arrays = detections(count)
    rows = np.column_stack(arrays).astype(np.float32)
    payload = LONG if count > 250 else SHORT
    event = Event.custom(value="v" * len(payload), use_case_id="uc")
    return {
        "append": lambda: log.append(event),
        "append_encoded": lambda: log.append_encoded(payload),
        "arrays": lambda: writer.append(*arrays),
        "rows": lambda: writer.append_rows(rows),
    }


@pytest.mark.parametrize("way", ["append", "append_encoded", "arrays", "rows"])
def test_a_short_append_keeps_the_lock(log, others_run, way: str) -> None:
    call = calls(log, 5)[way]
    # The helper thread clears as far ahead as a stream like this one needs.
    for _ in range(4_000):
        call()
    time.sleep(0.7)
    # Where 256 KiB more are full some let it go, to look how far the checkpoint is behind.
    assert not all(others_run(call, 250) for _ in range(5))


@pytest.mark.parametrize("way", ["append", "append_encoded", "arrays", "rows"])
def test_a_long_append_lets_others_run(log, others_run, way: str) -> None:
    assert others_run(calls(log, 900)[way], 100_000)


def test_who_waits_for_the_disk_lets_others_run(log, others_run) -> None:
    assert others_run(lambda: log.append_encoded(SHORT, sync=True), 100_000)


def test_an_append_that_may_have_to_wait_for_a_segment_lets_others_run(
    tmp_path: Path, others_run
) -> None:
    # In the last 1/64 of each segment.
    with EventLog(tmp_path / "small", events_size=1 << 20, segment_size=1 << 16) as small:
        assert others_run(lambda: small.append_encoded(SHORT), 100_000)
        assert small.stats().conserved
