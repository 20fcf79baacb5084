"""The demo from end to end: what it reports must be true, and it must notice when it is not."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time

import pytest

from vevents.demo import run, scenario
from vevents.demo.compare import compare
from vevents.demo.detector import Detector
from vevents.demo.network import Network
from vevents.demo.packages import opencv, photograph_directory
from vevents.demo.photographs import Camera
from vevents.errors import ConfigurationError
from vevents.log import EventLog

try:
    opencv()
    photograph_directory()
except ConfigurationError as missing:
    pytest.skip(str(missing), allow_module_level=True)


def _rows(directory, sql):
    path = directory / scenario.DATABASE_NAME
    with contextlib.closing(sqlite3.connect(path)) as database:
        return database.execute(sql).fetchall()


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    directory = tmp_path_factory.mktemp("demo") / "log"
    steps = []
    report = run(directory, events=40, seed=3, progress=steps.append)
    return directory, report, steps


def test_the_numbers_add_up(ran):
    directory, report, _ = ran

    assert report.ok, report.mismatches
    assert report.outage_reported
    assert (report.appended, report.delivered, report.new_events) == (40, 40, 40)
    assert report.pending == report.rejected == report.evicted == report.lost == 0
    assert report.emulator_events == report.compared_events == 40
    # Of every eight events one is a person's verdict, without a frame.
    assert report.frames == report.images_delivered == report.emulator_images == 35
    assert report.compared_images == 35
    assert report.detections > 100
    assert report.bytes_on_disk == sum(
        (directory / f"{ring}.ring").stat().st_size for ring in ("events", "media", "delivery")
    )
    assert report.events_per_s > 0
    assert 0 < report.append_p50_us <= report.append_p99_us
    assert report.detector_s > 0
    assert json.loads(json.dumps(report.as_dict()))["mismatches"] == []


def test_the_emulators_database_says_the_same(ran):
    directory, report, _ = ran

    assert _rows(directory, "SELECT count(*) FROM events") == [(report.emulator_events,)]
    assert _rows(directory, "SELECT count(DISTINCT digest) FROM images") == [
        (report.emulator_images,)
    ]
    kinds = dict(_rows(directory, "SELECT event_type, count(*) FROM events GROUP BY event_type"))
    assert kinds.keys() >= {
        "inventory_count",
        "operator_feedback",
        "quality_check",
        "safety_alert",
    }


def test_what_arrived_is_what_the_detector_sees_on_the_photographs(ran):
    directory, _, _ = ran
    bodies = {
        body["customMetadata"]["frame"]: body
        for (text,) in _rows(directory, "SELECT body FROM events")
        if "frame" in (body := json.loads(text)).get("customMetadata", {})
    }
    digests = dict(_rows(directory, "SELECT source_id, digest FROM images"))
    camera, detector = Camera(3), Detector()

    assert len(bodies) == 35
    for number, body in bodies.items():
        frame = camera.take(number, body["streamId"])
        event = scenario.look(detector, frame)
        assert body["eventType"] == event.event_type
        assert body["eventData"] == event.data
        [image] = body["images"]
        assert digests[image["sourceId"]] == hashlib.sha256(frame.jpeg).hexdigest()
        seen = event.images[0]
        assert [
            (box["class"], box["x"], box["y"], box["width"], box["height"], box["confidence"])
            for box in image.get("objectDetections", [])
        ] == [
            (box.class_name, box.x, box.y, box.width, box.height, box.confidence)
            for box in seen.object_detections
        ]
        assert [coin["points"] for coin in image.get("instanceSegmentations", [])] == [
            [list(point) for point in coin.points] for coin in seen.instance_segmentations
        ]


def test_a_verdict_refers_to_a_count_that_arrived(ran):
    directory, _, _ = ran
    events = {
        body["eventId"]: body
        for (text,) in _rows(directory, "SELECT body FROM events")
        for body in [json.loads(text)]
    }

    verdicts = [body for body in events.values() if body["eventType"] == "operator_feedback"]

    assert len(verdicts) == 5
    for verdict in verdicts:
        count = events[verdict["eventData"]["relatedEventId"]]
        assert count["eventData"]["itemType"] == "face"
        assert count["eventData"]["itemCount"] == verdict["customMetadata"]["counted"]
        is_right = verdict["customMetadata"]["counted"] == verdict["customMetadata"]["labelled"]
        assert verdict["eventData"]["feedback"] == ("correct" if is_right else "incorrect")


def test_progress_goes_through_the_phases_to_their_ends(ran):
    _, _, steps = ran

    phases = list(dict.fromkeys(step.phase for step in steps))
    assert phases == ["detect", "flush", "compare"]
    for phase in phases:
        done = [step.done for step in steps if step.phase == phase]
        assert done == sorted(done)
        assert done[-1] == 40


def test_a_second_run_goes_on_where_the_first_ended(tmp_path):
    first = run(tmp_path / "log", events=8)
    second = run(tmp_path / "log", events=10)

    assert first.ok, first.mismatches
    assert second.ok, second.mismatches
    assert (second.appended, second.delivered, second.new_events) == (18, 18, 10)
    assert second.emulator_events == second.compared_events == 18
    assert second.images_delivered == first.images_delivered + second.frames


def test_what_an_earlier_run_left_pending_is_delivered_too(tmp_path, monkeypatch):
    def no_emulator(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Network, "come_back", no_emulator)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "log", events=9)
    monkeypatch.undo()

    report = run(tmp_path / "log", events=3)

    assert report.ok, report.mismatches
    assert (report.appended, report.delivered, report.new_events) == (12, 12, 3)


def test_a_frame_without_its_event_is_no_disagreement(tmp_path):
    # What a demo leaves behind that is killed between the frame and the event.
    run(tmp_path / "log", events=8)
    with EventLog(tmp_path / "log") as log:
        log.append_frame(Camera(9).take(0, "tray").jpeg)

    report = run(tmp_path / "log", events=1)

    assert report.ok, report.mismatches
    assert report.images_appended == report.images_delivered + 1


@pytest.mark.slow
def test_frames_that_do_not_fit_are_counted_and_their_events_arrive(tmp_path):
    report = run(tmp_path / "log", events=160, media_size=1024 * 1024)

    assert report.ok, report.mismatches
    assert report.delivered == report.emulator_events == 160
    assert report.images_evicted > 0
    assert report.images_appended == report.images_delivered + report.images_evicted
    assert report.images_delivered == report.emulator_images
    [(without,)] = _rows(
        tmp_path / "log", "SELECT count(*) FROM events WHERE body LIKE '%vevents_frames_missing%'"
    )
    assert without == report.images_evicted


# --- It must notice ---------------------------------------------------------------------------

_TAMPERINGS = {
    "an event is gone": (
        "DELETE FROM events WHERE seq = 5",
        "is delivered in the log and not at the emulator",
    ),
    "a score is another": (
        """UPDATE events SET
           body = json_set(body, '$.images[0].objectDetections[0].confidence', 0.5)
           WHERE event_type = 'safety_alert'""",
        "images[0]: ",
    ),
    "a count is another": (
        """UPDATE events SET body = json_set(body, '$.eventData.itemCount', 99)
           WHERE event_type = 'inventory_count'""",
        "data is ",
    ),
    "a camera is another": (
        "UPDATE events SET body = json_set(body, '$.streamId', 'roof') WHERE seq = 1",
        "stream_id is 'pad' in the log and 'roof' at the emulator",
    ),
    "a time is another": (
        """UPDATE events SET body = json_set(body, '$.timestamp', '2026-01-01T00:00:00Z')
           WHERE seq = 1""",
        "timestamp is ",
    ),
    "an image has other bytes": (
        "UPDATE images SET digest = 'ab' WHERE rowid = 1",
        "are not those of the frame",
    ),
    "an image is gone": (
        "DELETE FROM images WHERE rowid = 1",
        "images that events name and the emulator lacks: 1 and 0",
    ),
    "a frame did not arrive": (
        "UPDATE events SET body = json_remove(body, '$.images[0].sourceId') WHERE seq = 1",
        "the frame did not arrive",
    ),
    "there is an event too many": (
        """INSERT INTO events SELECT NULL, 'evt-x', use_case_id, event_type, timestamp_us,
           device_id, stream_id, workflow_id, json_set(body, '$.eventId', 'evt-x'), warnings,
           post_count, received_us FROM events WHERE seq = 1""",
        "events delivered, and events at the emulator: 8 and 9",
    ),
}


@pytest.mark.parametrize(("change", "fault"), _TAMPERINGS.values(), ids=_TAMPERINGS)
def test_a_difference_is_found_and_named(tmp_path, monkeypatch, change, fault):
    def tampering(log, emulator, progress):
        with contextlib.closing(
            sqlite3.connect(tmp_path / "log" / scenario.DATABASE_NAME)
        ) as database:
            assert database.execute(change).rowcount > 0
            database.commit()
        return compare(log, emulator, progress)

    monkeypatch.setattr(scenario, "compare", tampering)

    report = run(tmp_path / "log", events=8)

    assert not report.ok
    assert any(fault in mismatch for mismatch in report.mismatches), report.mismatches


def test_an_event_that_stays_behind_is_found(tmp_path, monkeypatch):
    def losing(log, emulator, progress):
        log.mark([3], "pending")
        return compare(log, emulator, progress)

    monkeypatch.setattr(scenario, "compare", losing)

    report = run(tmp_path / "log", events=8)

    assert not report.ok
    assert report.pending == 1
    assert "events pending after the flush: 1 and 0" in report.mismatches


def test_a_frame_that_stays_behind_is_found(tmp_path, monkeypatch):
    def losing(log, emulator, progress):
        log.mark([2], "pending", stream="media")
        return compare(log, emulator, progress)

    monkeypatch.setattr(scenario, "compare", losing)

    report = run(tmp_path / "log", events=8)

    assert not report.ok
    assert "1 frames of delivered events are pending" in report.mismatches


def test_an_outage_that_is_none_is_found(tmp_path, monkeypatch):
    there_all_the_time = Network.__init__

    def early(self, database, use_case_id):
        there_all_the_time(self, database, use_case_id)
        self.come_back()
        self.come_back = lambda: None

    monkeypatch.setattr(Network, "__init__", early)

    report = run(tmp_path / "log", events=8)

    assert not report.ok
    assert not report.outage_reported
    assert report.mismatches == ("the flush during the outage did not report it as one",)


# --- It must refuse ---------------------------------------------------------------------------


def test_a_log_of_somebody_else_is_left_alone(tmp_path):
    with EventLog(tmp_path / "log") as log:
        log.append_encoded(b"\x80")

    with pytest.raises(ConfigurationError, match="holds a log that no demo made"):
        run(tmp_path / "log", events=8)

    assert not (tmp_path / "log" / scenario.DATABASE_NAME).exists()
    with EventLog(tmp_path / "log", read_only=True) as log:
        assert log.stats("events").appended == 1


def test_two_demos_do_not_share_a_directory(tmp_path):
    run(tmp_path / "log", events=1)

    with (tmp_path / "log" / "demo.lock").open() as marker:
        fcntl.flock(marker, fcntl.LOCK_EX)
        with pytest.raises(ConfigurationError, match="another demo is running"):
            run(tmp_path / "log", events=1)


def test_no_events_are_no_demo(tmp_path):
    with pytest.raises(ConfigurationError, match="at least 1 event, not 0"):
        run(tmp_path / "log", events=0)

    assert not (tmp_path / "log").exists()


# --- As a program -----------------------------------------------------------------------------


def test_the_command_ends_with_one_json_object_and_needs_no_proxy(tmp_path):
    environ = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}"

        demo = [sys.executable, "-m", "vevents", "demo", "--events", "8", "--json", "--dir"]
        ran = subprocess.run(
            [*demo, str(tmp_path / "log")],
            env=environ | {"HTTP_PROXY": nowhere, "http_proxy": nowhere, "ALL_PROXY": nowhere},
            capture_output=True,
            text=True,
            timeout=120,
        )

    assert ran.returncode == 0, ran.stderr
    figures = json.loads(ran.stdout)
    assert figures["ok"] is True
    assert figures.keys() >= {
        "appended",
        "delivered",
        "pending",
        "rejected",
        "evicted",
        "lost",
        "images_delivered",
        "bytes_on_disk",
        "events_per_s",
    }
    assert figures["appended"] == figures["delivered"] == 8


def test_the_emulator_ends_with_the_demo_even_if_that_is_killed(tmp_path):
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from vevents.demo.network import Network\n"
        "network = Network(Path(sys.argv[1]), 'uc')\n"
        "network.come_back()\n"
        "print(network.url.rpartition(':')[2], flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "emulator.db")],
        stdout=subprocess.PIPE,
        text=True,
    ) as demo:
        assert demo.stdout is not None
        port = int(demo.stdout.readline())
        assert _answers(port)
        demo.send_signal(signal.SIGKILL)

    deadline_s = time.monotonic() + 60
    while _answers(port) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert not _answers(port)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
