"""`vevents pause` and `vevents resume`, and what `vevents status` says of them."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from cli_site import clean_environment, small_log

from vevents.cli import main
from vevents.cli.exit_codes import ExitCode
from vevents.delivery.pause import FILE_NAME, read_pause


@pytest.fixture(autouse=True)
def log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    clean_environment(monkeypatch, tmp_path)
    monkeypatch.setenv("VEVENTS_DIR", str(tmp_path / "log"))
    return small_log(tmp_path / "log", events=2)


def test_pause_and_resume(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pause", "--for", "2h", "--reason", "roaming, ask Ann"]) == ExitCode.OK

    said = capsys.readouterr().out
    assert said.startswith("delivery is paused until ")
    assert said.endswith(" local time: roaming, ask Ann\n")
    found = read_pause(log)
    assert found is not None
    assert found.left_s == pytest.approx(7200, abs=10)
    assert main(["resume"]) == ExitCode.OK
    assert main(["resume"]) == ExitCode.OK
    assert capsys.readouterr().out == "delivery may go on\ndelivery was not paused\n"
    assert not (log / FILE_NAME).exists()


def test_pause_without_an_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pause"]) == ExitCode.OK
    assert capsys.readouterr().out == "delivery is paused\n"


def test_pause_on_a_full_disk(
    log: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["pause", "--for", "2h", "--reason", "roaming"])
    before = read_pause(log)
    capsys.readouterr()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert main(["pause", "--for", "3h"]) == ExitCode.ERROR
    said = capsys.readouterr().err
    assert f"No space left on device; a pause without an end takes no room: '{log}/paused'" in said
    found = read_pause(log)
    assert found is not None
    assert before is not None
    assert found.since == before.since  # the earlier pause still holds

    monkeypatch.undo()
    monkeypatch.setattr("vevents.delivery.pause.replaced", lambda _: full(0))
    assert main(["pause", "--dir", str(log), "--reason", "no roaming"]) == ExitCode.OK
    assert capsys.readouterr().out == "delivery is paused\n"
    assert (log / FILE_NAME).stat().st_size == 0
    assert main(["resume", "--dir", str(log)]) == ExitCode.OK
    assert read_pause(log) is None


def test_a_pause_that_is_over_at_once(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pause", "--for", "0.000001s"]) == ExitCode.OK
    assert capsys.readouterr().out == "the pause is over already\n"
    assert read_pause(log) is None


def test_a_pause_without_an_end_needs_an_inode(
    log: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """So it is not recommended where there is none."""

    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, "no inode", str(log / FILE_NAME))

    monkeypatch.setattr("vevents.delivery.pause.replaced", full)
    monkeypatch.setattr("vevents.delivery.pause.has_inodes", lambda _: False)
    for arguments in (["pause", "--for", "2h"], ["pause"]):
        assert main(arguments) == ExitCode.ERROR
        assert capsys.readouterr().err.endswith(f"no inode: '{log / FILE_NAME}'\n")
    assert read_pause(log) is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pause", "--for", "a while"], "'a while' is not a number"),
        (["pause", "--for", "0"], "--for 0 pauses nothing"),
        (["pause", "--dir", "nowhere"], "there is no log in"),
        (["resume", "--dir", "nowhere"], "there is no log in"),
    ],
)
def test_wrong_usage_pauses_nothing(
    arguments: list[str], words: str, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == ExitCode.USAGE
    assert words in capsys.readouterr().err
    assert read_pause(log) is None


def test_status_shows_a_pause_and_a_window(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def held() -> dict[str, object] | None:
        assert main(["status", "--json"]) == ExitCode.OK
        report = json.loads(capsys.readouterr().out)
        found: dict[str, object] | None = report["held"]
        return found

    assert held() is None
    main(["pause", "--reason", "roaming"])
    capsys.readouterr()
    assert held() == {
        "reason": "paused",
        "message": "delivery is paused: roaming; `vevents resume` ends that",
        "retry_after_s": None,
    }
    assert main(["status"]) == ExitCode.OK
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "paused: delivery is paused: roaming; `vevents resume` ends that"
    main(["resume"])
    capsys.readouterr()
    monkeypatch.setattr("vevents.delivery.schedule.is_open", lambda *_: False)
    monkeypatch.setattr("vevents.delivery.schedule.opens_in_s", lambda *_: 60.0)
    found = held()
    assert found is not None
    assert (found["reason"], found["retry_after_s"]) == ("outside-window", 60.0)
