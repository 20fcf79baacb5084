"""The agent as a process of its own, beside a producer, a server and whatever goes wrong."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vevents import Event, EventLog, Image
from vevents.delivery.pause import pause, resume
from vevents.emulator import EmulatorConfig, Fault, RunningEmulator

USE_CASE = "uc-1"
KEY = "rf_secret_0123456789"
UPLOADS = 4  # at the same time, unless set otherwise
# Long enough that a machine with other things to do does not fail a test; no test waits for it.
PATIENCE_S = 60.0
# What a signal may take; anything that really waited for the network would take 30 s.
OBEDIENCE_S = 8.0


def eventually(condition: Callable[[], object], what: str) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until_s, what
        time.sleep(0.02)


def open_log(directory: Path) -> EventLog:
    return EventLog(directory, events_size=2 << 20, media_size=4 << 20, delivery_size=1 << 20)


def frame(number: int, size: int = 3_000) -> bytes:
    return b"\xff\xd8\xff\xe0" + random.Random(number).randbytes(size)


def fill(log: EventLog, count: int, *, frames: int = 0, name: str = "event") -> None:
    for number in range(count):
        images = [Image(frame(number))] if number < frames else []
        log.append(Event.custom(value=f"{name} {number}", use_case_id=USE_CASE, images=images))


class Site:
    """A device: its log, its environment, and the agents that were started on it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log_directory = directory / "log"
        self.messages = directory / "messages"
        self.environ = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("VEVENTS_") and not name.lower().endswith("_proxy")
        } | {
            "NO_PROXY": "*",
            "HOME": str(directory),
            "VEVENTS_DIR": str(self.log_directory),
            "VEVENTS_AGENT_SPREAD": "0",
            "VEVENTS_AGENT_INTERVAL": "0.1",
            "ROBOFLOW_API_KEY": KEY,
            "API_URL": "http://127.0.0.1:9",
            "NOTIFY_SOCKET": str(directory / "notify"),
        }
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.manager.bind(str(directory / "notify"))
        self.manager.setblocking(False)
        self.told: list[str] = []
        self.agents: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        with self.messages.open("ab") as messages:
            agent = subprocess.Popen(
                [sys.executable, "-m", "vevents", "agent", "--log-level", "info", *arguments],
                env=self.environ,
                stdout=subprocess.DEVNULL,
                stderr=messages,
            )
        self.agents.append(agent)
        self.told.clear()
        eventually(lambda: self.heard("READY=1") or agent.poll() is not None, "never ready")
        return agent

    def configure(self, text: str) -> Path:
        config = self.directory / "settings.toml"
        config.touch(mode=0o600)
        config.write_text(text, encoding="utf-8")
        self.environ["VEVENTS_CONFIG"] = str(config)
        return config

    def heard(self, text: str) -> bool:
        """Whether the service manager was told something with this text in it."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.told.append(self.manager.recv(4096).decode())
        return any(text in one for one in self.told)

    def said(self) -> str:
        return self.messages.read_text(encoding="utf-8")

    def stop(self, agent: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> None:
        agent.send_signal(number)
        assert agent.wait(timeout=OBEDIENCE_S) == 0, self.said()

    def flush(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "vevents", "flush", *arguments],
            env=self.environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )

    def close(self) -> None:
        for agent in self.agents:
            agent.kill()
            agent.wait()
        self.manager.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()
    assert KEY not in site.said()
    assert "Traceback" not in site.said()


@pytest.fixture
def emulator(site: Site) -> Iterator[RunningEmulator]:
    with RunningEmulator(_config()) as running:
        site.environ["API_URL"] = running.url
        yield running


def _config() -> EmulatorConfig:
    return EmulatorConfig(api_keys=[KEY], use_cases=[USE_CASE], require_known_images=True)


def assert_everything_arrived_once(log: EventLog, emulator: RunningEmulator, count: int) -> None:
    for stream in ("events", "media"):
        stats = log.stats(stream)  # type: ignore[arg-type]
        assert stats.conserved, stream
        assert (stats.pending, stats.rejected, stats.lost, stats.evicted) == (0, 0, 0, 0), stream
    assert log.stats().delivered == count
    stored = {row["event"]["eventId"]: row["event"] for row in emulator.events()}
    records = list(log.read(states=("delivered",)))
    assert {record.event_id for record in records} == stored.keys()
    digest_of = {row["source_id"]: row["sha256"] for row in emulator.images()}
    for record in records:
        event, arrived = log.decode(record), stored[record.event_id]
        assert arrived["eventData"] == event.data
        sent = [hashlib.sha256(log.frame(image.frame) or b"").hexdigest() for image in event.images]  # type: ignore[arg-type]
        assert [digest_of[image["sourceId"]] for image in arrived.get("images", [])] == sent


def test_what_others_append_is_delivered(site: Site, emulator: RunningEmulator) -> None:
    with open_log(site.log_directory) as log:
        fill(log, 30, frames=5, name="before")
        agent = site.start()
        eventually(lambda: log.stats().pending == 0, "what was there did not go")
        fill(log, 250, name="meanwhile")
        eventually(lambda: log.stats().pending == 0, "what came did not go")
        log.append(Event.safety_alert(alert_type="smoke", use_case_id=USE_CASE))
        eventually(lambda: log.stats().pending == 0, "the alert did not go")
        assert {row["posts"] for row in emulator.events()} == {1}
        eventually(lambda: site.heard("0 pending, 281 events delivered"), "the status is wrong")
        site.stop(agent)

        assert site.heard("STOPPING=1")
        assert_everything_arrived_once(log, emulator, 281)


def test_an_alert_does_not_wait_until_the_backlog_has_gone(
    site: Site, emulator: RunningEmulator
) -> None:
    emulator.faults.at_random(1.0, Fault(delay_s=0.01))
    with open_log(site.log_directory) as log:
        fill(log, 500, frames=500)
        site.start()
        eventually(lambda: len(emulator.images()) > 5, "nothing goes")
        alert = log.append(Event.safety_alert(alert_type="smoke", use_case_id=USE_CASE)).event_id
        eventually(lambda: emulator.events(event_id=alert), "the alert did not go")
        left = log.stats().pending
        eventually(lambda: log.stats().pending == 0, "the rest did not go")

        assert left > 100
        assert_everything_arrived_once(log, emulator, 501)


def test_events_go_together(site: Site, emulator: RunningEmulator) -> None:
    site.environ["VEVENTS_AGENT_INTERVAL"] = "2"
    emulator.faults.at_random(1.0, Fault(delay_s=0.001))
    with open_log(site.log_directory) as log:
        site.start()
        for _ in range(10):
            fill(log, 2)
            time.sleep(0.2)
        eventually(lambda: log.stats().pending == 0, "they did not go")

        assert emulator.counts()["injected"]["delay"] <= 3
        assert_everything_arrived_once(log, emulator, 20)


def _idle(site: Site, _: RunningEmulator) -> None:
    eventually(lambda: site.heard("waiting for events"), "not idle")


def _without_a_log(site: Site, _: RunningEmulator) -> None:
    eventually(lambda: "there is no log" in site.said(), "not waiting for the log")


def _slow_answer(_: Site, emulator: RunningEmulator) -> None:
    eventually(lambda: emulator.counts()["injected"].get("delay"), "no request is under way")


def _asked_to_wait(_: Site, emulator: RunningEmulator) -> None:
    eventually(lambda: emulator.counts()["injected"].get("429"), "nothing was throttled")


def _sent_away(site: Site, _: RunningEmulator) -> None:
    eventually(lambda: site.heard("asked to be left alone"), "not sent away")


def _offline(site: Site, _: RunningEmulator) -> None:
    eventually(lambda: site.heard("offline"), "not offline")


@pytest.mark.parametrize(
    ("reached", "fault", "number"),
    [
        (_idle, None, signal.SIGTERM),
        (_idle, None, signal.SIGINT),
        (_without_a_log, None, signal.SIGTERM),
        (_slow_answer, Fault(delay_s=60.0), signal.SIGTERM),
        (_slow_answer, Fault(delay_s=60.0), signal.SIGINT),
        (_asked_to_wait, Fault(status=429, headers={"Retry-After": "50"}), signal.SIGTERM),
        (_sent_away, Fault(status=429, headers={"Retry-After": "3600"}), signal.SIGTERM),
        (_offline, Fault(status=302, headers={"Location": "http://login.test"}), signal.SIGTERM),
    ],
)
def test_a_signal_is_obeyed_in_every_phase(
    site: Site,
    emulator: RunningEmulator,
    reached: Callable[[Site, RunningEmulator], None],
    fault: Fault | None,
    number: int,
) -> None:
    if fault is not None:
        emulator.faults.at_random(1.0, fault)
    if reached is _without_a_log:
        agent = site.start()
        reached(site, emulator)
        site.stop(agent, number)
        return
    with open_log(site.log_directory) as log:
        events = 0 if reached is _idle else 20
        fill(log, events, frames=min(3, events))
        agent = site.start()
        reached(site, emulator)
        site.stop(agent, number)
        emulator.faults.clear()
        assert log.stats().pending == events
        assert site.flush("--now").returncode == 0  # whatever the server asked before

        assert_everything_arrived_once(log, emulator, events)


def test_a_signal_is_obeyed_while_connecting(site: Site) -> None:
    with socket.socket() as deaf, contextlib.ExitStack() as callers:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        # Whoever calls when the queue is full hears nothing at all.
        for _ in range(2):
            caller = callers.enter_context(socket.socket())
            caller.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                caller.connect(deaf.getsockname())
        site.environ["API_URL"] = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        with open_log(site.log_directory) as log:
            fill(log, 3)
            agent = site.start()
            eventually(lambda: site.heard("delivering"), "no pass begins")
            site.stop(agent)

            assert log.stats().pending == 3
            assert log.stats().conserved


def test_a_server_that_comes_back_is_found(site: Site) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    site.environ["API_URL"] = f"http://127.0.0.1:{port}"
    with open_log(site.log_directory) as log:
        fill(log, 40, frames=4)
        agent = site.start()
        eventually(lambda: site.heard("offline"), "never offline")
        with RunningEmulator(_config(), port=port) as emulator:
            fill(log, 10, name="more")
            eventually(lambda: log.stats().pending == 0, "they did not go")
            assert_everything_arrived_once(log, emulator, 50)
            site.stop(agent)
    assert "works again" in site.said()


def test_a_wrong_key_is_reported_once_and_a_right_one_is_taken(
    site: Site, emulator: RunningEmulator
) -> None:
    del site.environ["ROBOFLOW_API_KEY"]
    config = site.configure('api_key = "rf_wrong_key"\n')
    with open_log(site.log_directory) as log:
        fill(log, 20)
        agent = site.start()
        eventually(lambda: site.heard("key not accepted"), "the key was accepted")
        agent.send_signal(signal.SIGHUP)
        eventually(lambda: site.said().count("check ROBOFLOW_API_KEY") == 2, "not said again")
        config.write_text("api_key = 5\n", encoding="utf-8")
        agent.send_signal(signal.SIGHUP)
        eventually(lambda: "the old ones stay" in site.said(), "nonsense was taken")
        eventually(lambda: site.said().count("check ROBOFLOW_API_KEY") == 3, "not said again")
        refused = emulator.counts()["refused"]
        fill(log, 20, name="more")
        config.write_text(f'api_key = "{KEY}"\n', encoding="utf-8")
        agent.send_signal(signal.SIGHUP)
        eventually(lambda: log.stats().pending == 0, "they did not go")
        site.stop(agent)

        # A pass for the start and one for each of the two signals.
        assert refused == {"401": 3}
        assert_everything_arrived_once(log, emulator, 40)


def test_without_a_key_it_waits_for_one(site: Site, emulator: RunningEmulator) -> None:
    del site.environ["ROBOFLOW_API_KEY"]
    config = site.configure("")
    with open_log(site.log_directory) as log:
        fill(log, 2)
        agent = site.start()
        eventually(lambda: "no API key" in site.said(), "the missing key was not reported")
        config.write_text(f'api_key = "{KEY}"\n', encoding="utf-8")
        agent.send_signal(signal.SIGHUP)
        eventually(lambda: log.stats().pending == 0, "they did not go")

        assert_everything_arrived_once(log, emulator, 2)


def test_somebody_may_ask_for_a_pass(site: Site, emulator: RunningEmulator) -> None:
    site.environ["VEVENTS_AGENT_INTERVAL"] = "1h"
    with open_log(site.log_directory) as log:
        agent = site.start()
        fill(log, 3)
        eventually(lambda: site.heard("3 pending"), "they were not seen")
        assert emulator.counts()["events"] == 0
        agent.send_signal(signal.SIGUSR1)
        eventually(lambda: log.stats().pending == 0, "they did not go")

        assert_everything_arrived_once(log, emulator, 3)


def test_a_pause_holds_it_and_what_came_meanwhile_goes_afterwards(
    site: Site, emulator: RunningEmulator
) -> None:
    emulator.faults.at_random(1.0, Fault(delay_s=0.02))
    with open_log(site.log_directory) as log:
        fill(log, 40, frames=40)
        agent = site.start()
        eventually(lambda: len(emulator.images()) > 3, "nothing goes")
        pause(site.log_directory, reason="maintenance")
        eventually(lambda: site.heard("paused"), "the pause was not seen")
        eventually(lambda: "no delivery for now" in site.said(), "the pause was not reported")
        fill(log, 10, name="meanwhile")
        agent.send_signal(signal.SIGUSR1)
        eventually(lambda: "no pass now" in site.said(), "the request was not answered")
        assert log.stats().pending >= 10
        before = len(emulator.images())
        assert resume(site.log_directory)
        eventually(lambda: log.stats().pending == 0, "they did not go")
        site.stop(agent)

        assert before < 40
        assert_everything_arrived_once(log, emulator, 50)


def test_outside_its_windows_it_waits(site: Site, emulator: RunningEmulator) -> None:
    hour = (time.localtime().tm_hour + 2) % 24
    site.environ["VEVENTS_WINDOW"] = f"{hour:02}:00-{hour:02}:30"
    with open_log(site.log_directory) as log:
        fill(log, 5)
        agent = site.start()
        eventually(lambda: site.heard("the next window"), "the window was not reported")
        site.stop(agent)

        assert emulator.counts()["events"] == 0
        assert log.stats().pending == 5


def test_a_flush_may_run_beside_it(site: Site, emulator: RunningEmulator) -> None:
    emulator.faults.at_random(1.0, Fault(delay_s=0.01))
    codes = []
    with open_log(site.log_directory) as log:
        agent = site.start()
        for number in range(4):
            fill(log, 30, frames=10, name=f"round {number}")
            done = site.flush()
            codes.append(done.returncode)
            assert done.returncode in (0, 6), done.stderr
            if done.returncode == 6:
                assert "another flush" in done.stderr
        eventually(lambda: log.stats().pending == 0, "they did not go")
        site.stop(agent)

        assert_everything_arrived_once(log, emulator, 120)
        assert len(emulator.images()) == 10


def test_a_second_agent_refuses(site: Site, emulator: RunningEmulator) -> None:
    with open_log(site.log_directory) as log:
        first = site.start()
        second = site.start()
        assert second.wait(timeout=PATIENCE_S) == 6
        assert "another agent is delivering" in site.said()
        fill(log, 5)
        eventually(lambda: log.stats().pending == 0, "the first one was disturbed")
        site.stop(first)
        site.stop(site.start())

        assert_everything_arrived_once(log, emulator, 5)


@pytest.mark.parametrize("seed", range(2))
def test_killed_in_the_middle_of_uploads_everything_arrives_once(
    site: Site, emulator: RunningEmulator, seed: int
) -> None:
    dice = random.Random(seed)
    emulator.faults.at_random(1.0, Fault(delay_s=0.01))
    with open_log(site.log_directory) as log:
        fill(log, 60, frames=60)
        for _ in range(3):
            before = len(emulator.images())
            agent = site.start()
            goal = before + dice.randrange(1, 12)
            eventually(lambda goal=goal: len(emulator.images()) >= goal, "nothing is uploaded")  # type: ignore[misc]
            agent.kill()
            agent.wait()
            assert log.stats().conserved
            assert log.stats("media").conserved
        assert log.stats().pending > 0
        agent = site.start()
        eventually(lambda: log.stats().pending == 0, "they did not go")
        site.stop(agent)

        assert_everything_arrived_once(log, emulator, 60)
        assert len({row["sha256"] for row in emulator.images()}) == 60
        # Twice goes only what the server has answered and nobody noted before the kill.
        assert len(emulator.images()) <= 60 + 3 * UPLOADS


def test_a_log_that_comes_late_and_one_that_is_replaced(
    site: Site, emulator: RunningEmulator
) -> None:
    agent = site.start()
    eventually(lambda: "there is no log" in site.said(), "the missing log was not reported")
    with open_log(site.log_directory) as log:
        fill(log, 5)
        eventually(lambda: log.stats().pending == 0, "they did not go")
        assert_everything_arrived_once(log, emulator, 5)
    shutil.rmtree(site.log_directory)
    emulator.clear()
    with open_log(site.log_directory) as log:
        fill(log, 7)
        # By itself it looks after a minute.
        agent.send_signal(signal.SIGHUP)
        eventually(lambda: log.stats().pending == 0, "they did not go")
        assert_everything_arrived_once(log, emulator, 7)
    site.stop(agent)


def test_a_log_that_cannot_be_opened_is_tried_again(site: Site, emulator: RunningEmulator) -> None:
    with open_log(site.log_directory) as log:
        fill(log, 5)
    ring = site.log_directory / "events.ring"
    hidden = site.directory / "hidden.ring"
    ring.rename(hidden)
    ring.mkdir()
    agent = site.start()
    eventually(lambda: "the log: " in site.said(), "the trouble was not reported")
    ring.rmdir()
    hidden.rename(ring)
    with open_log(site.log_directory) as log:
        eventually(lambda: log.stats().pending == 0, "they did not go")
        site.stop(agent)

        assert_everything_arrived_once(log, emulator, 5)
        assert "the log can be used again" in site.said()


def test_the_watchdog_is_fed(site: Site) -> None:
    site.environ["WATCHDOG_USEC"] = "2000000"
    site.start()
    eventually(lambda: site.heard("WATCHDOG=1"), "never")
    site.told.clear()
    eventually(lambda: site.heard("WATCHDOG=1"), "only once")


def test_messages_may_be_json(site: Site) -> None:
    site.stop(site.start("--json"))

    lines = [line for line in site.said().splitlines() if line]
    assert lines
    assert all(line.startswith('{"time": "') and line.endswith("}") for line in lines)
