"""The benchmark in C says what it did, and names an option that it does not take."""

from __future__ import annotations

import json
import subprocess

import pytest
from built import APPEND_BENCH

from vevents import EventLog

pytestmark = pytest.mark.skipif(not APPEND_BENCH.exists(), reason="./dev test-c has not built it")


def run(*arguments):
    return subprocess.run([APPEND_BENCH, *map(str, arguments)], capture_output=True, text=True)


def figures(*arguments):
    ran = run(*arguments)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.parametrize("way", [(), ("--build",), ("--threads", 3), ("--busy-disk",)])
def test_every_append_is_counted_and_in_the_log(tmp_path, way):
    told = figures(*way, "--events", 500, "--histogram", tmp_path)

    total = 500 * told["threads"]
    assert told["events"] == total
    assert sum(count for _, count in told["histogram"]) == total
    lowest, highest = told["histogram"][0][0], told["histogram"][-1][0]
    assert lowest / 1000 <= told["p50_us"] <= highest / 1000 <= told["max_us"]
    with EventLog(tmp_path) as log:
        stats = log.stats()
        assert (stats.appended, stats.pending) == (total, total)
        assert stats.conserved
        event = log.decode(next(log.read()))
        assert len(event.images[0].object_detections) == told["detections"] == 5
    assert not (tmp_path / "busy-disk").exists()
    assert (told["disk_megabytes"] > 0) == (way == ("--busy-disk",))


def test_the_control_appends_nothing(tmp_path):
    assert figures("--control", "--events", 500, tmp_path)["events"] == 500
    with EventLog(tmp_path) as log:
        assert log.stats().appended == 0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--events", "many", "x"), "many"),
        (("--threads", "65", "x"), "65"),
        (("--frames", "x"), "--frames"),
        ((), "DIRECTORY"),
        (("one", "two"), "DIRECTORY"),
    ],
)
def test_what_is_wrong_is_named(arguments, named):
    ran = run(*arguments)

    assert (ran.returncode, ran.stdout) == (2, "")
    assert named in ran.stderr


def test_help_names_every_option():
    shown = run("--help")

    assert shown.returncode == 0
    for option in ("events", "threads", "detections", "build", "level", "megabytes", "sync-ms"):
        assert f"--{option} " in shown.stdout
    for option in ("busy-disk", "control", "histogram"):
        assert f"--{option} " in shown.stdout
