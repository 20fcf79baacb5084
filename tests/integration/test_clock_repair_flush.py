"""A device that did not know the time, its log, a pass, and what the API has in the end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from vevents import Event, EventLog, Image, _ffi
from vevents._ffi import Moment
from vevents.delivery.client import Client
from vevents.delivery.flusher import Flusher
from vevents.delivery.report import FlushReport
from vevents.delivery.sender import RetryPolicy, Time
from vevents.emulator import EmulatorConfig, Fault, RunningEmulator

KEY = "rf_secret_0123456789"
JPEG = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 8
S = 10**9
now_ns = 0  # when the test began
YEARS_BEHIND_NS = 50 * 365 * 86_400 * S


@pytest.fixture(autouse=True)
def the_kernels_clock_is_synchronised() -> Iterator[None]:
    """Not here: each test says what the clock says of itself."""
    global now_ns
    now_ns = time.time_ns()
    yield
    _ffi.set_clock(None)


@pytest.fixture
def emulator() -> Iterator[RunningEmulator]:
    config = EmulatorConfig(api_keys=[KEY], use_cases=["uc"], require_known_images=True)
    with RunningEmulator(config) as running:
        yield running


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    stand_at(0, error_ns=0)
    with EventLog(tmp_path / "log", events_size=1 << 20, media_size=1 << 20) as opened:
        yield opened


def stand_at(true_s: float, *, error_ns: int, boot: int = 7, synced: bool = False) -> None:
    """Stop the clocks so many seconds after the boot, an hour before now."""
    wall_ns = now_ns - 3600 * S + round(true_s * S) + error_ns
    _ffi.set_clock(Moment(wall_ns, round(true_s * S), boot, synced))


def seen_at(true_s: float) -> datetime:
    return datetime.fromtimestamp(now_ns / S - 3600 + true_s, UTC)


def flush(log: EventLog, emulator: RunningEmulator, *, uploads: int = 4) -> FlushReport:
    clock = lambda: log.now().wall_ns / S  # noqa: E731
    policy = RetryPolicy(attempts=2, first_wait_s=0.001, wait_s_max=0.01)
    with Client(KEY, api_url=emulator.url, clock=clock) as client:
        return Flusher(log, client, retry=policy, time=Time(clock=clock), uploads=uploads).flush()


def arrived(emulator: RunningEmulator) -> dict[str, datetime]:
    with Client(KEY, api_url=emulator.url) as client:
        page = client.query({"useCaseId": "uc", "limit": 100})
    return {
        event["eventData"]["value"]: datetime.fromisoformat(event["timestamp"])
        for event in page.events
    }


def append(log: EventLog, value: str, *, frame: bool = False) -> None:
    images = [Image(JPEG)] if frame else []
    log.append(Event.custom(value=value, use_case_id="uc", images=images))


def near(moment: datetime, expected: datetime, within_s: float = 2.0) -> bool:
    return abs(moment - expected) <= timedelta(seconds=within_s)


@pytest.mark.parametrize("uploads", [1, 4])
def test_events_from_1976_arrive_with_the_time_at_which_they_were_seen(log, emulator, uploads):
    stand_at(10, error_ns=-YEARS_BEHIND_NS)
    append(log, "before", frame=True)
    stand_at(500, error_ns=-YEARS_BEHIND_NS)
    append(log, "later")
    stand_at(3600, error_ns=0, synced=True)
    append(log, "after")

    report = flush(log, emulator, uploads=uploads)

    assert (report.delivered, report.rejected, report.stopped_reason) == (3, 0, None)
    found = arrived(emulator)
    assert near(found["before"], seen_at(10))
    assert near(found["later"], seen_at(500))
    assert near(found["after"], seen_at(3600))
    assert log.stats().conserved


def test_a_clock_that_nobody_vouches_for_is_corrected_by_the_servers(log, emulator):
    stand_at(10, error_ns=-YEARS_BEHIND_NS)
    append(log, "a")
    stand_at(3600, error_ns=-YEARS_BEHIND_NS)

    report = flush(log, emulator)

    assert (report.delivered, report.rejected) == (1, 0)
    assert near(arrived(emulator)["a"], seen_at(10), within_s=5)


def test_one_wrong_date_neither_moves_nor_rejects_anything(log, emulator):
    stand_at(3600, error_ns=0)
    for number in range(10):
        append(log, f"event {number}")
    wrong = Fault(headers={"Date": "{date+63072000}"})
    emulator.faults.script("/vision-events/use-cases", wrong)

    report = flush(log, emulator)

    assert (report.delivered, report.rejected) == (10, 0)
    assert all(near(moment, seen_at(3600)) for moment in arrived(emulator).values())


def test_a_vouched_clock_costs_no_request(log, emulator):
    stand_at(3600, error_ns=0, synced=True)
    append(log, "a")

    assert flush(log, emulator).requests == 1
