"""Every example runs, as it stands, and does what it says."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from vevents.emulator import EmulatorConfig, RunningEmulator
from vevents.event import Event
from vevents.log import EventLog

EXAMPLES = Path(__file__).parents[2] / "examples"
KEY = "rf_secret_0123456789"


@pytest.fixture
def emulator():
    config = EmulatorConfig(database=":memory:", api_keys=[KEY], use_cases=[("uc-1", "One")])
    with RunningEmulator(config) as running:
        yield running


@pytest.fixture
def run(tmp_path):
    """Return a function that runs an example as a user would, with `vevents` on the path."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, body in {
        "vevents": f'exec "{sys.executable}" -m vevents "$@"',
        "python3": f'exec "{sys.executable}" "$@"',
        "logger": f'shift 2; echo "$@" >> "{tmp_path}/syslog"',
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{body}\n")
        (programs / name).chmod(0o755)

    def run(name, *arguments, expected=0, **variables):
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("VEVENTS_", "ROBOFLOW"))}
        ran = subprocess.run(
            [EXAMPLES / name, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=tmp_path,
            env=clean
            | {"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(tmp_path)}
            | {"NO_PROXY": "127.0.0.1"}
            | variables,
        )
        assert ran.returncode == expected, ran.stdout + ran.stderr
        return ran.stdout + ran.stderr

    return run


def cloud(emulator):
    return {"API_URL": emulator.url, "ROBOFLOW_API_KEY": KEY, "VEVENTS_USE_CASE": "uc-1"}


def stats(directory, stream="events"):
    with EventLog(directory, read_only=True) as log:
        assert log.stats(stream).conserved
        return log.stats(stream)


def fill(directory, count):
    with EventLog(directory) as log:
        for number in range(count):
            log.append(Event.custom(value=str(number)))


def test_every_example_has_a_test():
    source = Path(__file__).read_text(encoding="utf-8")

    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for path in EXAMPLES.iterdir():
        if path.name == "README.md":
            continue
        assert f"]({path.name}" in listed, path.name
        if path.name == "workflow":
            continue  # needs the engine: tests/interop
        assert f'run("{path.name}"' in source, path.name
    for path in re.findall(r"\]\(([^)]+)\)", listed):
        assert (EXAMPLES / path).exists(), path


def test_the_camera_loop(run, tmp_path):
    pytest.importorskip("cv2")

    said = run("camera_loop.py", tmp_path / "log")

    assert said == "20 events are pending, 5 of this run with a picture\n"
    with EventLog(tmp_path / "log", read_only=True) as log:
        events = [log.decode(record) for record in log.read()]
        bad = [event for event in events if event.data["result"] == "fail"]
        assert len(bad) == 5
        for event in bad:
            (box,) = event.images[0].object_detections
            assert (box.class_name, box.width, box.height, box.confidence) == ("burr", 30, 20, 1)
            assert log.frame(event.images[0].frame).startswith(b"\xff\xd8\xff")
    assert stats(tmp_path / "log", "media").pending == 5


def test_the_supervision_sink(run, tmp_path):
    pytest.importorskip("cv2")
    pytest.importorskip("supervision")

    said = run("supervision_sink.py", tmp_path / "log")

    found = re.fullmatch(r"(\d+) alerts, (\d+) frames with nothing to report\n", said)
    assert found is not None
    assert int(found[1]) + int(found[2]) == 40
    assert stats(tmp_path / "log").pending == int(found[1]) > 0
    with EventLog(tmp_path / "log", read_only=True) as log:
        for event in map(log.decode, log.read()):
            names = [box.class_name for box in event.images[0].object_detections]
            assert names.count("head") == event.metadata["heads"] >= 1
            assert log.frame(event.images[0].frame).startswith(b"\xff\xd8\xff")


def test_a_producer_without_vevents(run, tmp_path):
    picture = tmp_path / "frame.jpg"
    picture.write_bytes(b"\xff\xd8\xff\xe0 pixels")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    assert "not taken" in run("post_event.py", picture, "--url", url, "--patience", "0", expected=1)

    serve = [sys.executable, "-m", "vevents", "serve", "--dir", tmp_path / "log", "--port", port]
    store = subprocess.Popen(list(map(str, serve)), stdout=subprocess.DEVNULL)
    try:
        # It starts while the producer is trying already.
        said = run("post_event.py", picture, "--url", url, "--result", "fail")
        (tmp_path / "text").write_text("no picture")
        refused = run("post_event.py", tmp_path / "text", "--url", url, expected=1)
        assert "refused with 422" in refused
        assert "images[0].base64Image: must be a JPEG" in refused
    finally:
        store.terminate()
        assert store.wait(30) == 0
    with EventLog(tmp_path / "log", read_only=True) as log:
        [record] = log.read()
        event = log.decode(record)
        assert said.strip() == event.event_id
        assert (event.data, event.device_id) == ({"result": "fail"}, "press-03")
        assert log.frame(event.images[0].frame) == picture.read_bytes()


def test_the_reconnect_hook(run, tmp_path, emulator):
    fill(tmp_path / "log", 3)
    settings = tmp_path / "vevents.env"
    lines = {**cloud(emulator), "VEVENTS_DIR": str(tmp_path / "log")}
    settings.write_text("".join(f"{key}={value}\n" for key, value in lines.items()))
    here = {"VEVENTS_ENV_FILE": str(settings)}

    run("reconnect.sh", "wlan0", "down", **here)
    assert stats(tmp_path / "log").pending == 3
    settings.write_text(settings.read_text() + "API_URL=http://127.0.0.1:9\n")
    run("reconnect.sh", "wlan0", "up", **here)
    assert stats(tmp_path / "log").pending == 3
    settings.write_text(settings.read_text() + f"API_URL={emulator.url}\n")
    run("reconnect.sh", "wlan0", "up", **here)
    assert stats(tmp_path / "log").delivered == 3

    fill(tmp_path / "log", 1)
    settings.write_text(settings.read_text() + "ROBOFLOW_API_KEY=rf_wrong\n")
    said = run("reconnect.sh", "wlan0", "up", expected=4, **here)
    assert "exit code 4" in (tmp_path / "syslog").read_text()
    assert "rf_wrong" not in said


def test_the_air_gap(run, tmp_path, emulator):
    device, office, stick = tmp_path / "device", tmp_path / "office", tmp_path / "stick"
    stick.mkdir()
    fill(device, 4)

    run("air_gap.sh", "device", device, stick)
    (stick / "vevents" / "event_0_broken.tar.gz").write_bytes(b"")
    run("air_gap.sh", "office", office, stick, **cloud(emulator))
    assert emulator.counts()["events"] == 4
    assert stats(device).pending == 4
    fill(device, 2)
    run("air_gap.sh", "device", device, stick)
    assert (stats(device).delivered, stats(device).pending) == (4, 2)
    run("air_gap.sh", "office", office, stick, **cloud(emulator))
    assert emulator.counts()["events"] == 6
    assert stats(office).delivered == 6

    fill(device, 2)
    run("air_gap.sh", "device", device, stick, STICK_SIZE="1B")
    run("air_gap.sh", "device", device, tmp_path / "not" / "there", expected=2)
