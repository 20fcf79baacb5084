"""The agent's turns one by one, with a clock that stands still and passes that end as scripted."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_planner import report

from vevents.delivery import agent as agent_module
from vevents.delivery.agent import Agent
from vevents.delivery.report import FlushReport
from vevents.delivery.sdnotify import ServiceManager
from vevents.delivery.sender import StopReason, Time
from vevents.errors import (
    ConfigurationError,
    FlushLockedError,
    LogBusyError,
    LogDegradedError,
    LogVersionError,
)
from vevents.event import Event
from vevents.log import EventLog
from vevents.settings import Secret, Settings

KEY = "rf_secret_0123456789"
Step = FlushReport | BaseException | Callable[..., FlushReport]


class Manager(ServiceManager):
    """Notes what it is told."""

    def __init__(self, watchdog_s: float | None) -> None:
        super().__init__({})
        self.watchdog_s = watchdog_s
        self.told: list[str] = []

    def _send(self, message: str) -> None:
        self.told.append(message)


class ScriptedFlusher:
    def __init__(self, steps: list[Step]) -> None:
        self.steps = steps
        self.passes = 0

    def flush(self, **options: Any) -> FlushReport:
        self.passes += 1
        step = self.steps.pop(0) if self.steps else report()
        if isinstance(step, BaseException):
            raise step
        return step(**options) if callable(step) else step


class Bench:
    """An agent on a bench: the test turns it, and moves its clock."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory / "log"
        self.now_s = 1_000.0
        self.unusable: Exception | None = None
        self.flusher = ScriptedFlusher([])
        self.manager = Manager(watchdog_s=20.0)
        self.settings = Settings(
            directory=self.directory,
            api_key=Secret(KEY),
            agent_spread_s=0.0,
            agent_interval_s=5.0,
        )
        monkeypatch.setattr(agent_module, "make_client", lambda _: Client())
        monkeypatch.setattr(agent_module, "make_flusher", lambda *_: self.flusher)
        self.log = self.open(self.settings)
        self.agent = Agent(
            lambda: self.settings,
            self.open,
            manager=self.manager,
            time=Time(monotonic=lambda: self.now_s, draw=lambda: 1.0),
        )
        self.agent._open()

    def open(self, _: Settings) -> EventLog:
        if self.unusable is not None:
            raise self.unusable
        return EventLog(
            self.directory, events_size=1 << 20, media_size=1 << 20, delivery_size=1 << 20
        )

    def append(self, count: int = 1) -> None:
        for _ in range(count):
            self.log.append(Event.custom(value="v", use_case_id="u"))

    def turn(self, *, after_s: float = 0.0) -> None:
        """Let time pass, make a turn, and let the pass that may have begun end."""
        self.now_s += after_s
        self.agent._turn()
        if self.agent._pass is not None:
            self.agent._pass.join(timeout=20)
            self.agent._turn()

    def close(self) -> None:
        self.agent._finish()
        self.log.close()


class Client:
    def close(self) -> None:
        pass


@pytest.fixture
def bench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[Bench]:
    caplog.set_level(logging.DEBUG, "vevents")
    bench = Bench(tmp_path, monkeypatch)
    yield bench
    bench.close()
    assert KEY not in caplog.text


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]


def test_an_empty_log_makes_no_pass(bench: Bench) -> None:
    for _ in range(100):
        bench.turn(after_s=30.0)

    assert bench.flusher.passes == 0


def test_fresh_events_go_after_the_interval(bench: Bench) -> None:
    bench.append(3)
    bench.turn()
    assert bench.flusher.passes == 0
    bench.turn(after_s=4.9)
    assert bench.flusher.passes == 0
    bench.turn(after_s=0.2)
    assert bench.flusher.passes == 1


def test_a_batch_and_an_alert_go_at_once(bench: Bench) -> None:
    bench.append(100)
    bench.turn()
    assert bench.flusher.passes == 1
    bench.log.append(Event.safety_alert(alert_type="smoke"))
    bench.turn()
    assert bench.flusher.passes == 2


def test_what_nothing_announced_is_found_by_the_survey(bench: Bench) -> None:
    bench.append()
    assert bench.agent._opened is not None
    bench.agent._opened.next_seq = 10  # as after a record that was passed by in mid-append
    bench.turn(after_s=10.0)
    assert bench.flusher.passes == 0
    bench.turn(after_s=51.0)
    bench.turn()
    assert bench.flusher.passes == 1


def test_a_disk_that_fails_is_reported_and_survived(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.flusher.steps += [
        OSError(5, "Input/output error", "events.ring"),
        LogDegradedError("events.ring: the disk failed"),
        report(),
    ]
    bench.append()
    bench.turn()
    bench.turn(after_s=5.0)
    assert bench.agent._opened is None
    for _ in range(400):
        bench.turn(after_s=0.5)

    assert bench.flusher.passes >= 3
    assert bench.agent._opened is not None
    said = warnings(caplog)
    assert sum("Input/output error" in text for text in said) == 1
    assert sum("the disk failed" in text for text in said) == 1
    assert "the log can be used again" in said


@pytest.mark.parametrize("error", [ZeroDivisionError("odd"), SystemExit(3), MemoryError()])
def test_a_fault_in_the_program_does_not_end_it(
    bench: Bench, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    bench.flusher.steps += [error, error, report()]
    bench.append()
    bench.turn()
    for _ in range(100):
        bench.turn(after_s=0.5)

    assert bench.flusher.passes >= 3
    said = warnings(caplog)
    assert sum("unexpected error" in text for text in said) == 1
    assert any("delivery works again" in text for text in said)


def test_a_disk_that_can_be_opened_and_not_read_is_reported_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(EventLog, "read_batch", fail)
    for _ in range(1_000):
        bench.turn(after_s=0.5)

    assert len(warnings(caplog)) == 1
    assert sum("Input/output" in one.getMessage() for one in caplog.records) < 30


def test_a_system_without_threads_to_give_is_survived(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    start = threading.Thread.start

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    bench.append(100)
    for _ in range(10):
        bench.turn(after_s=0.5)
    monkeypatch.setattr(threading.Thread, "start", start)
    bench.turn(after_s=300.0)

    assert bench.flusher.passes == 1
    assert len(warnings(caplog)) == 2


def test_trouble_is_told_once_and_its_end_as_well(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.flusher.steps += [report(StopReason.OFFLINE), report(StopReason.SERVER)] * 4
    bench.append()
    bench.turn()
    for _ in range(10):
        bench.turn(after_s=400.0)

    assert warnings(caplog)[:2] == ["offline", "server"]
    assert len(warnings(caplog)) == 3
    assert "delivery works again" in warnings(caplog)[2]


def test_another_flush_is_waited_for(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.flusher.steps += [FlushLockedError("another flush is running")] * 3
    bench.append()
    bench.turn()
    for _ in range(5):
        bench.turn(after_s=5.0)

    assert bench.flusher.passes >= 4
    assert warnings(caplog) == []


def test_no_error_of_new_settings_ends_the_agent(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load() -> Settings:
        raise RuntimeError("no home directory")

    monkeypatch.setattr(bench.agent, "_load_settings", load)
    bench.agent._handle_signal(signal.SIGHUP)
    bench.append()
    bench.turn()

    assert "the old ones stay: no home directory" in warnings(caplog)[0]


def test_settings_that_make_no_sense_wait_for_better_ones(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.flusher.steps += [ConfigurationError("client_cert: no such file")]
    bench.append()
    bench.turn()
    bench.turn(after_s=600.0)
    assert bench.flusher.passes == 1
    assert "client_cert: no such file; then send SIGHUP" in warnings(caplog)[0]
    bench.agent._handle_signal(signal.SIGHUP)
    bench.turn()
    bench.turn()
    assert bench.flusher.passes == 2


def test_a_log_that_was_replaced_is_opened_anew(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.log.close()
    for ring in bench.directory.glob("*.ring"):
        ring.unlink()
    bench.log = bench.open(bench.settings)
    bench.append(2)
    bench.turn(after_s=61.0)
    assert any("was replaced" in text for text in warnings(caplog))
    for _ in range(5):
        bench.turn(after_s=1.0)

    assert bench.flusher.passes == 1


def test_a_log_that_is_gone_is_waited_for(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    for ring in bench.directory.glob("*.ring"):
        ring.unlink()
    bench.turn(after_s=61.0)
    for _ in range(600):
        bench.turn(after_s=0.5)

    assert bench.agent._opened is None
    assert sum("there is no log" in text for text in warnings(caplog)) == 1


@pytest.mark.parametrize(
    "error",
    [
        LogVersionError("events.ring: written by a newer vevents"),
        LogBusyError("too many processes have the log open"),
        PermissionError(13, "Permission denied", "events.ring"),
        OSError(23, "Too many open files in system"),
    ],
)
def test_a_log_that_cannot_be_opened_is_tried_again(
    bench: Bench, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    bench.agent._close_log()
    bench.unusable = error
    tries = []
    monkeyed = bench.agent._open_log

    def counting(settings: Settings) -> EventLog:
        tries.append(bench.now_s)
        return monkeyed(settings)

    bench.agent._open_log = counting
    for _ in range(600):
        bench.turn(after_s=0.5)
    bench.unusable = None
    bench.append()
    for _ in range(120):
        bench.turn(after_s=0.5)

    assert bench.flusher.passes == 1
    assert 10 < len(tries) < 20
    assert "the log can be used again" in warnings(caplog)[1]
    assert len(warnings(caplog)) == 2
    assert str(error) in warnings(caplog)[0]


def test_a_hook_that_knows_of_the_network_is_listened_to(bench: Bench) -> None:
    bench.flusher.steps += [report(StopReason.OFFLINE)] * 8
    bench.append(100)
    bench.turn()
    for _ in range(7):
        bench.turn(after_s=300.0)
    assert bench.flusher.passes == 8
    bench.turn(after_s=1.0)
    assert bench.flusher.passes == 8
    bench.agent._handle_signal(signal.SIGUSR2)
    bench.turn()
    assert bench.flusher.passes == 9


def test_news_from_the_kernel_wake_it_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    here, kernel = socket.socketpair()

    class Watch:
        close = here.close

        def read(self) -> bool:
            with contextlib.suppress(BlockingIOError):
                return bool(here.recv(10))
            return False

    def end(**_: Any) -> FlushReport:
        os.kill(os.getpid(), signal.SIGTERM)
        return report()

    def fail(**_: Any) -> FlushReport:
        # It comes while the pass is under way: the clock stands, so nothing else can wake it.
        kernel.send(b"news")
        bench.flusher.steps.append(end)
        return report(StopReason.OFFLINE)

    here.setblocking(False)
    monkeypatch.setattr(agent_module, "NetworkWatch", Watch)
    bench.agent._close_log()
    bench.flusher.steps.append(fail)
    bench.append(100)
    patience = threading.Timer(30.0, os.kill, (os.getpid(), signal.SIGTERM))
    patience.start()
    with kernel:
        assert bench.agent.run()
    patience.cancel()

    assert bench.flusher.passes == 2


def test_it_never_spins(bench: Bench) -> None:
    assert bench.agent._idle_s() > 0.1
    bench.append(100)
    bench.agent._turn()
    assert bench.agent._pass is not None
    assert bench.agent._idle_s() > 0.1
    bench.turn()
    (bench.directory / "paused").touch()
    bench.append(100)
    bench.turn()
    assert bench.agent._planner.due_s() is not None
    assert bench.agent._idle_s() > 0.1
    bench.agent._lose_log(OSError(5, "Input/output error"))
    assert bench.agent._idle_s() > 0.1


def test_a_pause_is_kept_to_and_its_end_is_noticed(bench: Bench) -> None:
    (bench.directory / "paused").touch()
    bench.append(100)
    for _ in range(10):
        bench.turn(after_s=60.0)
    assert bench.flusher.passes == 0
    (bench.directory / "paused").unlink()
    bench.turn()
    assert bench.flusher.passes == 1


def test_the_watchdog_is_told_while_there_is_progress_and_not_when_a_request_hangs(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    def alive(during_s: float, *, progress: bool) -> bool:
        bench.manager.told.clear()
        for _ in range(int(during_s / 10)):
            bench.now_s += 10.0
            if progress:
                assert not options["should_stop"]()
            bench.agent._turn()
        return "WATCHDOG=1" in bench.manager.told

    options: dict[str, Any] = {}
    hanging, hangs = threading.Event(), threading.Event()

    def hang(**given: Any) -> FlushReport:
        options.update(given)
        hanging.set()
        hangs.wait(timeout=60)
        return report()

    bench.flusher.steps.append(hang)
    bench.append(100)
    bench.agent._turn()
    assert hanging.wait(timeout=20)
    try:
        assert alive(3_600.0, progress=True)
        assert alive(1_700.0, progress=False)
        alive(200.0, progress=False)
        assert not alive(600.0, progress=False)
        assert any("hangs" in text for text in warnings(caplog))
    finally:
        hangs.set()
    bench.turn()
    assert alive(20.0, progress=False)


def test_a_signal_during_a_pass_stops_it(bench: Bench) -> None:
    stopped = []

    def until_stopped(**given: Any) -> FlushReport:
        for _ in range(2_000):
            if given["should_stop"]():
                stopped.append(True)
                break
            threading.Event().wait(0.01)
        return report(StopReason.INTERRUPTED)

    bench.flusher.steps.append(until_stopped)
    bench.append(100)
    bench.agent._turn()
    assert bench.agent._finish()
    assert stopped == [True]


def test_a_pass_that_does_not_stop_is_left_behind(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_module, "_GRACE_S", 0.01)
    ends = threading.Event()

    def hang(**_: Any) -> FlushReport:
        ends.wait(timeout=60)
        return report()

    bench.flusher.steps.append(hang)
    bench.append(100)
    bench.agent._turn()
    try:
        assert not bench.agent._finish()
    finally:
        ends.set()


def test_the_disks_trouble_is_reported(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert bench.agent._opened is not None
    log = bench.agent._opened.log
    stats = dataclasses.replace(log.stats(), degraded=28)
    monkeypatch.setattr(log, "stats", lambda _: stats)
    for _ in range(5):
        bench.turn(after_s=61.0)

    assert warnings(caplog) == [
        "the log's disk failed (No space left on device); it takes no more appends"
    ]
