"""The real log, the real flusher and the emulator, with everything between them going wrong."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vevents import Event, EventLog, Image
from vevents.delivery.client import Client, Timeouts
from vevents.delivery.flusher import Flusher
from vevents.delivery.report import FlushReport
from vevents.delivery.sender import RetryPolicy, StopReason
from vevents.emulator import EmulatorConfig, Fault, RunningEmulator
from vevents.errors import LogFullError

USE_CASE = "uc-1"
KEY = "rf_secret_0123456789"
FAST = RetryPolicy(attempts=4, first_wait_s=0.005, wait_s_max=0.01)


@pytest.fixture
def emulator() -> Iterator[RunningEmulator]:
    config = EmulatorConfig(api_keys=[KEY], use_cases=[USE_CASE], require_known_images=True)
    with RunningEmulator(config) as running:
        yield running


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


def open_log(directory: Path, **options: int) -> EventLog:
    sizes = {"events_size": 2 << 20, "media_size": 4 << 20, "delivery_size": 1 << 20}
    return EventLog(directory, **(sizes | options))  # type: ignore[arg-type]


def frame(number: int, size: int = 3_000) -> bytes:
    return b"\xff\xd8\xff\xe0" + random.Random(number).randbytes(size)


def fill(log: EventLog, count: int, frames: int) -> None:
    """Every third event has a frame; there are fewer different frames than uses of them."""
    for number in range(count):
        images = [Image(frame(number % frames))] if number % 3 == 0 else []
        log.append(Event.custom(value=f"event {number}", use_case_id=USE_CASE, images=images))


def flush(
    log: EventLog,
    emulator: RunningEmulator,
    options: dict[str, Any] | None = None,
    **limits: Any,
) -> FlushReport:
    timeouts = Timeouts(connect_s=5.0, read_s=5.0, write_s=5.0)
    with Client(KEY, api_url=emulator.url, timeouts=timeouts) as client:
        return Flusher(log, client, retry=FAST, **(options or {})).flush(**limits)


def assert_everything_arrived(log: EventLog, emulator: RunningEmulator) -> None:
    """Every event once, as it was appended; every frame that an event names with its bytes."""
    for stream in ("events", "media"):
        stats = log.stats(stream)  # type: ignore[arg-type]
        assert stats.conserved
        assert (stats.pending, stats.rejected, stats.lost) == (0, 0, 0), stream
    stored = {row["event"]["eventId"]: row["event"] for row in emulator.events()}
    digest_of = {row["source_id"]: row["sha256"] for row in emulator.images()}
    records = list(log.read(states=("delivered",)))
    assert {record.event_id for record in records} == stored.keys()
    for record in records:
        event, arrived = log.decode(record), stored[record.event_id]
        assert arrived["eventData"] == event.data
        sent = [hashlib.sha256(log.frame(image.frame) or b"").hexdigest() for image in event.images]  # type: ignore[arg-type]
        assert [digest_of[image["sourceId"]] for image in arrived.get("images", [])] == sent


@pytest.mark.parametrize(("bundle", "images"), [(False, 20), (True, 84)])
def test_all_is_well(tmp_path: Path, emulator: RunningEmulator, bundle: bool, images: int) -> None:
    with open_log(tmp_path / "log") as log:
        fill(log, 250, frames=20)
        report = flush(log, emulator, {"bundle": bundle})

        assert report.stopped_reason is None
        assert (report.delivered, report.images_delivered) == (250, images)
        assert report.bundles == bundle * 84
        assert_everything_arrived(log, emulator)
        assert flush(log, emulator).requests == 0
    assert not [image for image in emulator.images() if image["orphaned"]]
    assert {row["posts"] for row in emulator.events()} == {1}


@pytest.mark.parametrize(("seed", "bundle"), [(0, False), (1, False), (2, False), (3, True)])
def test_a_bad_network(tmp_path: Path, emulator: RunningEmulator, seed: int, bundle: bool) -> None:
    faults = (
        Fault(status=503),
        Fault(status=429, headers={"Retry-After": "0"}),
        Fault(status=201, headers={"Content-Type": "application/json"}, body='{"eve', stored=True),
        Fault(drop=True),
        Fault(drop=True, stored=True),
        Fault(status=500, stored=True),
    )
    for index, fault in enumerate(faults):
        emulator.faults.at_random(0.06, fault, path="/vision-events*", seed=100 * seed + index)
    # Seldom, as what is blocked time and again while others pass is taken for a firewall's work.
    hotel = Fault(status=200, body="<html>Welcome to the hotel</html>")
    emulator.faults.at_random(0.02, hotel, path="/vision-events*", seed=100 * seed + 99)

    with open_log(tmp_path / "log") as log:
        fill(log, 400, frames=60)
        reasons: Counter[StopReason | None] = Counter()
        for _ in range(200):
            report = flush(log, emulator, {"bundle": bundle})
            reasons[report.stopped_reason] += 1
            assert log.stats().conserved
            if report.stopped_reason is None:
                break

        assert reasons[None] == 1, reasons
        assert_everything_arrived(log, emulator)
        answers_lost = sum(
            count
            for label, count in emulator.counts()["injected"].items()
            if label in ("drop", "201", "500")
        )
        # As bundles, every use of a frame is one there.
        assert len(emulator.images()) <= (134 if bundle else 60) + answers_lost


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--bundle"]])
def test_killed_again_and_again(
    tmp_path: Path,
    emulator: RunningEmulator,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
) -> None:
    monkeypatch.setenv("ROBOFLOW_API_KEY", KEY)
    monkeypatch.setenv("API_URL", emulator.url)
    monkeypatch.setenv("VEVENTS_DIR", str(tmp_path / "log"))
    emulator.faults.at_random(1.0, Fault(delay_s=0.003))
    dice = random.Random(7)
    kills = 0
    with open_log(tmp_path / "log") as log:
        fill(log, 600, frames=200)
        command = [sys.executable, "-m", "vevents", "flush", "--max-events", "120", *options]
        for _ in range(40):
            sent_before = len(emulator.images()) + len(emulator.events())
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            # From the first sign of life at the server on, any moment is as good as another.
            for _ in range(2_000):
                if len(emulator.images()) + len(emulator.events()) > sent_before:
                    break
                try:
                    process.wait(timeout=0.005)
                    break
                except subprocess.TimeoutExpired:
                    pass
            try:
                process.wait(timeout=dice.uniform(0.0, 0.15))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                kills += 1
            process.wait(timeout=30)
            assert log.stats().conserved
            assert log.stats("media").conserved
            delivered = {record.event_id for record in log.read(states=("delivered",))}
            assert delivered <= {row["event"]["eventId"] for row in emulator.events()}
            if log.stats().pending == 0:
                break

        assert flush(log, emulator).stopped_reason is None
        assert kills > 0
        assert_everything_arrived(log, emulator)
        different = {row["sha256"] for row in emulator.images()}
        assert len(different) == 200
        noted = [note["digest"] for _, note in log.notes() if note["kind"] == "upload"]
        assert len(noted) == len(set(noted))
        # A kill between the server's answer and the note is the only way to upload twice, and at
        # most four uploads are under way.
        assert len(emulator.images()) - len(different) <= 4 * kills


@pytest.mark.parametrize("order", ["oldest", "newest", "priority"])
def test_every_order_brings_everything_over(
    tmp_path: Path, emulator: RunningEmulator, order: str
) -> None:
    with open_log(tmp_path / "log") as log:
        fill(log, 150, frames=20)
        alert = log.append(Event.safety_alert(alert_type="fall", use_case_id=USE_CASE))
        fill(log, 150, frames=20)
        for text in ("old", "new"):
            log.append(Event.custom(value=text, event_id="evt-1", use_case_id=USE_CASE))

        report = flush(log, emulator, {"order": order, "uploads": 4})

        assert (report.delivered, report.stopped_reason) == (303, None)
        stored = {row["event"]["eventId"]: row["event"] for row in emulator.events()}
        assert stored["evt-1"]["eventData"] == {"value": "new"}
        arrived = [row["event"]["eventId"] for row in emulator.events()]
        assert arrived.index(alert.event_id) == {"oldest": 150, "newest": 151, "priority": 0}[order]
        for stream in ("events", "media"):
            assert log.stats(stream).conserved
            assert log.stats(stream).pending == 0
    assert len(emulator.images()) == 20


def test_live_events_overtake_a_backlog_that_drains(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    with open_log(tmp_path / "log") as log:
        fill(log, 2_000, frames=1)
        live: list[str] = []

        def see(_: object) -> None:
            if not live and emulator.events():
                event = Event.custom(value="live", use_case_id=USE_CASE)
                live.append(log.append(event).event_id)

        report = flush(log, emulator, {"live_first": True}, progress=see)

        assert (report.delivered, report.stopped_reason) == (2_001, None)
        arrived = [row["event"]["eventId"] for row in emulator.events()]
        assert arrived.index(live[0]) < 1_000
        assert log.stats().conserved


def test_events_that_are_evicted_during_a_pass_do_not_stop_it(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    dice = random.Random(0)
    with open_log(tmp_path / "log", events_size=1 << 20) as log:

        def append_some(_: object = None) -> None:
            for _ in range(20):
                text = f"{dice.getrandbits(16_000):x}"
                log.append(Event.custom(value=text, use_case_id=USE_CASE))

        for order in ("oldest", "newest", "priority"):
            for _ in range(10):
                append_some()
            report = flush(
                log, emulator, {"order": order, "live_first": True}, progress=append_some
            )
            assert report.stopped_reason is None
            assert log.stats().conserved
        assert log.stats().evicted > 0
        assert flush(log, emulator).stopped_reason is None
        assert log.stats().pending == 0


def test_events_outlive_their_frames(tmp_path: Path, emulator: RunningEmulator) -> None:
    with open_log(tmp_path / "log", media_size=1 << 20) as log:
        for number in range(60):
            images = [Image(frame(number, 40_000))]
            log.append(Event.custom(value=str(number), use_case_id=USE_CASE, images=images))
        report = flush(log, emulator)
        # Asked only now: the log makes room ahead of the next append, in the background.
        evicted = log.stats("media").evicted

        assert 0 < evicted < 60
        assert report.stopped_reason is None
        assert (report.delivered, report.images_missing) == (60, evicted)
        assert report.images_delivered == 60 - evicted
    without = [row["event"] for row in emulator.events() if "images" not in row["event"]]
    assert len(without) == evicted
    assert {event["customMetadata"]["vevents_frames_missing_reason"] for event in without} == {
        "evicted"
    }


def test_a_producer_goes_on_appending(tmp_path: Path, emulator: RunningEmulator) -> None:
    done = threading.Event()
    with open_log(tmp_path / "log") as log:
        fill(log, 50, frames=10)

        def produce() -> None:
            with open_log(tmp_path / "log") as other:
                for number in range(300):
                    images = [Image(frame(1000 + number))] if number % 10 == 0 else []
                    other.append(
                        Event.custom(value=f"more {number}", use_case_id=USE_CASE, images=images)
                    )
            done.set()

        producer = threading.Thread(target=produce)
        producer.start()
        while not done.is_set():
            assert flush(log, emulator).stopped_reason is None
        producer.join()
        flush(log, emulator)

        assert log.stats().delivered == 350
        assert_everything_arrived(log, emulator)


def test_refused_events_keep_their_reason_and_payload(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    with open_log(tmp_path / "log") as log:
        fill(log, 120, frames=5)
        bad = [
            log.append(Event.custom(value=f"bad {number}", use_case_id="uc-unknown"))
            for number in range(3)
        ]
        fill(log, 30, frames=5)

        report = flush(log, emulator)

        assert (report.delivered, report.rejected) == (150, 3)
        notes = [note for _, note in log.notes() if note["kind"] == "rejected"]
        assert [note["eventId"] for note in notes] == [receipt.event_id for receipt in bad]
        rejected = list(log.read(states=("rejected",)))
        assert [note["payload"] for note in notes] == [record.payload for record in rejected]
        assert all("uc-unknown" in note["reason"] for note in notes)


def test_a_log_that_refuses_when_full_can_be_flushed_and_goes_on(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    with open_log(tmp_path / "log", events_size=1 << 20, full="refuse") as log:  # type: ignore[arg-type]
        dice = random.Random(0)

        def event() -> Event:
            return Event.custom(value=f"{dice.getrandbits(32_000):x}", use_case_id=USE_CASE)

        appended = 0
        with pytest.raises(LogFullError):
            for _ in range(1_000):
                log.append(event())
                appended += 1

        assert flush(log, emulator).delivered == appended
        log.append(event())
        assert flush(log, emulator).delivered == 1
        assert log.stats().conserved


def test_memory_does_not_grow_with_the_backlog(tmp_path: Path, emulator: RunningEmulator) -> None:
    program = (
        "import resource, sys\n"
        "from vevents import EventLog\n"
        "from vevents.delivery.client import Client\n"
        "from vevents.delivery.flusher import Flusher\n"
        "with EventLog(sys.argv[1]) as log, Client(sys.argv[2], api_url=sys.argv[3]) as client:\n"
        "    Flusher(log, client).flush(max_events=200)\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "    report = Flusher(log, client).flush()\n"
        "    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(report.delivered, after - before)\n"
    )
    with open_log(tmp_path / "log", events_size=32 << 20) as log:
        for number in range(10_000):
            text = f"event {number} " + "x" * 2_000
            log.append(Event.custom(value=text, use_case_id=USE_CASE))

    arguments = [str(tmp_path / "log"), KEY, emulator.url]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"NO_PROXY": "*"},
    )

    assert done.returncode == 0, done.stderr
    delivered, grown_kib = map(int, done.stdout.split())
    assert delivered == 9_800
    # The backlog is 20 MB of text; the pages of the ring's file that were read count as well.
    assert grown_kib < 12_000
