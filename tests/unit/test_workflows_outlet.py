"""The cooldowns of the Workflows block in front of a real log, with a clock of our own."""

from __future__ import annotations

import errno
import gc
import logging
import multiprocessing
import subprocess
import sys
from collections import Counter

import pytest

from vevents import EventLog, EventValidationError
from vevents.errors import ConfigurationError, LogDegradedError
from vevents.workflows import REGISTERED_INITIALIZERS, Outlet, outlet
from vevents.workflows.candidate import candidate_of
from vevents.workflows.outlet import Clockwork


class Clock:
    """Time that stands still, and timers that go off when it passes them."""

    def __init__(self):
        self.now_s = 1000.0
        self.timers = []
        self.work = Clockwork(lambda: self.now_s, self._start)

    def _start(self, delay_s, call):
        self.timers.append((self.now_s + delay_s, call))

    def advance(self, seconds):
        self.now_s += seconds
        due = [timer for timer in self.timers if timer[0] <= self.now_s]
        self.timers = [timer for timer in self.timers if timer[0] > self.now_s]
        for _, call in due:
            call()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def log(tmp_path):
    with EventLog(tmp_path / "log", events_size=1 << 20, media_size=1 << 20) as log:
        yield log
        assert log.stats().conserved


def check(result="pass", **changes):
    given = {"event_type": "quality_check", "solution": "uc1", "qc_result": result}
    return candidate_of(given | changes)


def written(log):
    return [log.decode(record) for record in log.read()]


def accounted(log):
    """Every event in the log, and all that they say they stand for."""
    total = Counter()
    for event in written(log):
        total[f"{event.event_type}_{event.data['result']}"] += 1
        for key, value in (event.metadata or {}).items():
            if key.startswith("vevents_suppressed_"):
                total[key.removeprefix("vevents_suppressed_")] += value
    return total


def test_what_is_held_is_written_when_the_window_ends_without_another_frame(log, clock):
    gate = Outlet(log, clock.work).gate()
    first = gate.submit(check(), 5.0)
    assert first.seq == 1
    for result in ("pass", "fail", "pass"):
        clock.advance(1)
        assert gate.submit(check(result), 5.0) is None

    clock.advance(1.9)
    assert len(written(log)) == 1
    clock.advance(0.1)

    assert [event.data["result"] for event in written(log)] == ["pass", "fail"]
    assert written(log)[1].metadata == {
        "vevents_suppressed": 2,
        "vevents_suppressed_quality_check_pass": 2,
    }
    assert clock.timers == []


def test_an_event_without_a_picture_has_the_time_of_its_run_and_not_of_its_write(
    log, clock, monkeypatch
):
    moment = EventLog.now()._replace(synced=True)
    monkeypatch.setattr(EventLog, "now", staticmethod(lambda: moment))
    gate = Outlet(log, clock.work).gate()
    gate.submit(check(), 5.0)
    gate.submit(check("fail"), 5.0)
    ran_ns = moment.wall_ns
    moment = moment._replace(wall_ns=ran_ns + 5 * 10**9)

    clock.advance(5)

    assert [record.wall_ns // 1000 for record in log.read()] == [ran_ns // 1000] * 2


def test_what_is_overdue_goes_before_the_next_frame_when_the_timer_is_late(log, clock):
    gate = Outlet(log, clock.work).gate()
    gate.submit(check(), 5.0)
    gate.submit(check("fail"), 5.0)
    clock.now_s += 6

    assert gate.submit(check(), 5.0) is None

    assert [event.data["result"] for event in written(log)] == ["pass", "fail"]
    clock.advance(5)
    assert accounted(log) == {"quality_check_pass": 2, "quality_check_fail": 1}


def test_a_timer_that_is_early_waits_for_the_rest(log, clock):
    gate = Outlet(log, clock.work).gate()
    gate.submit(check(), 5.0)
    gate.submit(check("fail"), 5.0)
    [(_, call)] = clock.timers
    clock.timers.clear()
    clock.now_s += 4.999

    call()

    assert len(written(log)) == 1
    clock.advance(0.01)
    assert len(written(log)) == 2


def test_every_stream_has_a_cooldown_of_its_own(log, clock):
    gate = Outlet(log, clock.work).gate()

    assert gate.submit(check(stream_id="a"), 5.0)
    assert gate.submit(check(stream_id="b"), 5.0)
    assert gate.submit(check(stream_id="a"), 5.0) is None


def test_streams_without_number_do_not_fill_the_memory(log, clock):
    gate = Outlet(log, clock.work).gate()
    gate.submit(check(stream_id="kept"), 1e6)
    gate.submit(check("fail", stream_id="kept"), 1e6)
    for number in range(1000):
        clock.advance(2)
        gate.submit(check(stream_id=str(number)), 1.0)

    assert len(gate._streams) <= outlet._STREAMS_MAX + 1
    gate.flush()
    assert accounted(log) == {"quality_check_pass": 1001, "quality_check_fail": 1}


def test_flush_writes_what_is_held(log, clock):
    gate = Outlet(log, clock.work).gate()
    gate.submit(check(), 60.0)
    gate.submit(check("fail"), 60.0)
    gate.submit(check("fail"), 60.0)

    gate.flush()

    assert accounted(log) == {"quality_check_pass": 1, "quality_check_fail": 2}


def test_a_block_that_is_thrown_away_still_writes_what_it_held(log, clock):
    own = Outlet(log, clock.work)
    gate = own.gate()
    gate.submit(check(), 5.0)
    gate.submit(check("fail"), 5.0)
    del gate, own
    gc.collect()

    clock.advance(5)

    assert accounted(log) == {"quality_check_pass": 1, "quality_check_fail": 1}


def test_what_breaks_the_contract_leaves_the_cooldown_as_it_was(log, clock):
    gate = Outlet(log, clock.work).gate()

    with pytest.raises(EventValidationError, match="predictions"):
        gate.submit(check(predictions={"what": 1}), 5.0)

    assert gate.submit(check(), 5.0).seq == 1


class FailingLog:
    """A log whose disk fails when told to."""

    def __init__(self, log):
        self._log = log
        self.fails = False

    now = staticmethod(EventLog.now)

    def append(self, event):
        if self.fails:
            raise OSError(errno.EIO, "Input/output error")
        return self._log.append(event)


def test_what_the_disk_did_not_take_is_counted_by_the_next_event(log, clock, caplog):
    failing = FailingLog(log)
    gate = Outlet(lambda: failing, clock.work).gate()
    gate.submit(check(), 5.0)
    gate.submit(check("fail"), 5.0)
    failing.fails = True

    with caplog.at_level(logging.WARNING):
        clock.advance(5)
    assert "was not written: OSError" in caplog.text
    with pytest.raises(OSError, match="Input/output"):
        gate.submit(check(), 5.0)
    failing.fails = False
    assert gate.submit(check(), 5.0).seq == 2

    assert accounted(log) == {"quality_check_pass": 3, "quality_check_fail": 1}


def test_a_log_that_cannot_be_opened_is_tried_again_but_not_with_every_frame(log, clock):
    calls = []

    def open_log():
        calls.append(clock.now_s)
        if len(calls) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return log

    gate = Outlet(open_log, clock.work).gate()
    for _ in range(3):
        with pytest.raises(OSError, match="No space"):
            gate.submit(check(), 0.0)
        clock.advance(1)
    clock.advance(5)

    assert gate.submit(check(), 0.0).seq == 1
    assert len(calls) == 2
    assert accounted(log) == {"quality_check_pass": 4}


class DegradedLog:
    """A log whose disk failed: it takes nothing more until it is opened again."""

    now = staticmethod(EventLog.now)

    def __init__(self):
        self.asked = 0
        self.closed = 0

    def append(self, _event):
        self.asked += 1
        raise LogDegradedError("the disk failed under the log")

    def close(self):
        self.closed += 1
        raise OSError(errno.EIO, "Input/output error")


def test_a_log_whose_disk_failed_is_opened_anew(log, clock):
    degraded = DegradedLog()
    opened = iter([degraded, log])
    gate = Outlet(lambda: next(opened), clock.work).gate()
    for _ in range(3):
        with pytest.raises(LogDegradedError):
            gate.submit(check(), 0.0)
        clock.advance(1)
    clock.advance(5)

    assert gate.submit(check(), 0.0).seq == 1
    assert (degraded.asked, degraded.closed) == (1, 1)
    assert accounted(log) == {"quality_check_pass": 4}


def test_a_log_that_is_somebody_elses_stays_open(log, clock, monkeypatch):
    gate = Outlet(log, clock.work).gate()
    with monkeypatch.context() as failing, pytest.raises(LogDegradedError):
        failing.setattr(EventLog, "append", DegradedLog.append)
        failing.setattr(EventLog, "asked", 0, raising=False)
        gate.submit(check(), 0.0)

    assert gate.submit(check(), 0.0).seq == 1


def test_complaints_are_made_every_ten_seconds_at_most(log, clock, caplog):
    own = Outlet(log, clock.work)
    with caplog.at_level(logging.WARNING):
        for _ in range(25):
            own.complain("no")
            clock.advance(1)

    assert len(caplog.records) == 3


def test_the_settings_say_where_the_log_is_and_all_blocks_share_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VEVENTS_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    make = REGISTERED_INITIALIZERS["vevents_log"]
    with pytest.raises(ConfigurationError, match="VEVENTS_DIR"):
        make()
    monkeypatch.setenv("VEVENTS_DIR", "log")
    monkeypatch.setenv("VEVENTS_EVENTS_SIZE", "2MiB")
    monkeypatch.setenv("VEVENTS_MEDIA_SIZE", "1MiB")
    monkeypatch.setattr(outlet, "_BY_DIRECTORY", {})

    own = make()
    assert make() is own
    gate = own.gate()
    gate.submit(check(), 3600.0)
    gate.submit(check(), 3600.0)
    own.finish()

    with EventLog(tmp_path / "log", read_only=True) as log:
        assert 1 << 20 < log.stats().bytes_on_disk <= 2 << 20
        assert log.stats().appended == log.durable_seq == 2


PROGRAM = """
import sys
from vevents import EventLog
from vevents.workflows.outlet import outlet_of_settings
from vevents.workflows.candidate import candidate_of

gate = outlet_of_settings().gate()
for result in ("pass", "fail", "pass"):
    event = {"event_type": "quality_check", "solution": "uc1", "qc_result": result}
    gate.submit(candidate_of(event), 3600)
"""


def test_the_end_of_the_program_writes_what_is_held(tmp_path, monkeypatch):
    monkeypatch.setenv("VEVENTS_DIR", str(tmp_path / "log"))
    monkeypatch.setenv("VEVENTS_MEDIA_SIZE", "1MiB")

    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=60, cwd=tmp_path)

    with EventLog(tmp_path / "log", read_only=True) as log:
        assert accounted(log) == {"quality_check_pass": 2, "quality_check_fail": 1}


def test_a_timer_of_the_system_goes_off_too(log):
    import time

    gate = Outlet(log).gate()
    gate.submit(check(), 0.05)
    gate.submit(check("fail"), 0.05)

    deadline = time.monotonic() + 60
    while log.stats().appended < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert accounted(log) == {"quality_check_pass": 1, "quality_check_fail": 1}


def _flush_in_child(own):
    for gate in list(own._gates):
        gate.flush()


def test_a_child_does_not_write_what_its_parent_holds(log, clock):
    own = Outlet(log, clock.work)
    gate = own.gate()
    gate.submit(check(), 60.0)
    gate.submit(check("fail"), 60.0)

    child = multiprocessing.get_context("fork").Process(target=_flush_in_child, args=(own,))
    child.start()
    child.join(30)

    assert child.exitcode == 0
    assert log.stats().appended == 1
    gate.flush()
    assert accounted(log) == {"quality_check_pass": 1, "quality_check_fail": 1}
