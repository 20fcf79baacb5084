"""`vevents status`."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from cli_site import USE_CASE, clean_environment, small_log

from vevents.cli import main, status
from vevents.cli.common import human_duration, human_size
from vevents.cli.exit_codes import ExitCode
from vevents.event import Event
from vevents.log import EventLog, StreamStats


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean_environment(monkeypatch, tmp_path)


def stats(**fields: Any) -> StreamStats:
    names = [field.name for field in dataclasses.fields(StreamStats)]
    return StreamStats(**(dict.fromkeys(names, 0) | {"evicted_by_kind": [0] * 8} | fields))


def test_law_of_every_stream(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = small_log(tmp_path / "log", events=5)
    with EventLog(directory) as log:
        log.ack([1, 2])
        log.mark([3], "rejected")

    assert main(["status", "--dir", str(directory)]) == ExitCode.OK

    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == str(directory)
    assert printed[1] == (
        "events    5 appended = 2 delivered + 2 pending + 1 rejected + 0 evicted + 0 lost  ✓"
    )
    assert printed[2].startswith("          durable up to 5 of 5; ")
    assert printed[3].startswith("media     0 appended")
    assert printed[5].startswith("delivery  0 appended")
    assert printed[7].startswith("oldest pending event: ")
    assert "rejected" not in "".join(printed[2:3])


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = small_log(tmp_path / "log", events=2)

    assert main(["status", "--json", "--dir", str(directory)]) == ExitCode.OK

    report = json.loads(capsys.readouterr().out)
    assert report["directory"] == str(directory)
    assert report["conserved"] is True
    assert set(report["streams"]) == {"events", "media", "delivery"}
    assert report["streams"]["events"]["pending"] == 2
    assert report["streams"]["events"]["durable_seq"] == 2
    assert report["streams"]["events"]["conserved"] is True
    assert 0 <= report["oldest_pending_age_s"] < 3600


def test_nothing_pending_has_no_age(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = small_log(tmp_path / "log")

    assert main(["status", "--json", "--dir", str(directory)]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["oldest_pending_age_s"] is None
    assert main(["status", "--dir", str(directory)]) == ExitCode.OK
    assert "oldest" not in capsys.readouterr().out


def test_while_a_writer_has_the_log_open(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with EventLog(small_log(tmp_path / "log")) as writer:
        for _ in range(3):
            writer.append(Event.custom(value="v", use_case_id=USE_CASE))

        assert main(["status", "--dir", str(tmp_path / "log")]) == ExitCode.OK
    assert "events    3 appended = 0 delivered + 3 pending" in capsys.readouterr().out


def test_changes_nothing(tmp_path: Path) -> None:
    directory = small_log(tmp_path / "log", events=2)
    before = {path.name: path.read_bytes() for path in directory.iterdir()}

    assert main(["status", "--dir", str(directory)]) == ExitCode.OK

    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_for_another_user_who_may_read() -> None:
    program = (
        "import os, sys\n"
        "from vevents.cli import main\n"
        "main(['status', '--dir', sys.argv[1]])  # loads what others may not be able to load\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "sys.exit(main(['status', '--dir', sys.argv[1]]))\n"
    )
    # Not in tmp_path, the way to which is closed to others.
    with tempfile.TemporaryDirectory() as parent:
        directory = small_log(Path(parent) / "log", events=2)
        Path(parent).chmod(0o755)
        directory.chmod(0o755)
        for path in directory.iterdir():
            path.chmod(0o644)
        command = [sys.executable, "-c", program, str(directory)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("2 appended = 0 delivered + 2 pending") == 2


def test_no_log_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--dir", str(tmp_path / "typo")]) == ExitCode.USAGE
    assert "there is no log in" in capsys.readouterr().err
    assert not (tmp_path / "typo").exists()


def test_a_broken_law_is_shown_and_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = small_log(tmp_path / "log", events=1)
    monkeypatch.setattr(EventLog, "stats", lambda *_: stats(appended=5, pending=4))

    assert main(["status", "--dir", str(directory)]) == ExitCode.ERROR
    assert "0 lost  ✗ DOES NOT ADD UP" in capsys.readouterr().out
    assert main(["status", "--json", "--dir", str(directory)]) == ExitCode.ERROR
    assert json.loads(capsys.readouterr().out)["conserved"] is False


def test_figures_taken_in_the_middle_of_an_append_are_taken_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = small_log(tmp_path / "log", events=1)
    looks = iter([stats(appended=2, pending=1)] * 3 + [stats(appended=2, pending=2)] * 10)
    monkeypatch.setattr(EventLog, "stats", lambda *_: next(looks))

    assert main(["status", "--dir", str(directory)]) == ExitCode.OK


def test_description_of_trouble() -> None:
    text = status.describe(
        "events",
        stats(
            appended=9,
            evicted=9,
            evicted_by_kind=[2, 4, 0, 3, 0, 0, 0, 0],
            degraded=5,
            set_aside=1,
        ),
        True,
    )

    assert "evicted: 2 of unknown type, 4 quality_check, 3 safety_alert" in text
    assert "the disk failed (errno 5)" in text
    assert "an unusable file was found and set aside" in text


def test_terminal_without_the_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))

    assert status.describe("media", stats(), True).splitlines()[0].endswith("lost  adds up")
    assert status.describe("media", stats(), False).splitlines()[0].endswith("DOES NOT ADD UP")


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 << 29, "2.5 GiB"), (3 << 40, "3.0 TiB")],
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert human_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7_200, "2 h"), (864_000, "10 days")],
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text
