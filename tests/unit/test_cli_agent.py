"""`vevents agent`: its messages and what it refuses; what it does is in the integration tests."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path

import pytest
from cli_site import clean_environment

from vevents.cli import main
from vevents.cli.agent import JsonFormatter, LineFormatter, goes_to_journal
from vevents.cli.exit_codes import ExitCode


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean_environment(monkeypatch, tmp_path)


def record(level: int, message: str, *, failed: bool = False) -> logging.LogRecord:
    error = None
    if failed:
        try:
            raise ValueError("odd")
        except ValueError:
            error = sys.exc_info()
    return logging.LogRecord("vevents", level, "", 0, message, None, error)


@pytest.mark.parametrize(
    ("level", "priority"),
    [(logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.DEBUG, 7)],
)
def test_the_journal_learns_how_bad_it_is(level: int, priority: int) -> None:
    line = LineFormatter(journal=True).format(record(level, "two\nlines"))

    assert line == f"<{priority}>vevents: two lines"


def test_a_message_is_one_line_even_with_a_traceback() -> None:
    line = LineFormatter(journal=False).format(record(logging.DEBUG, "bad", failed=True))

    assert line.startswith("vevents: DEBUG: bad | Traceback")
    assert "\n" not in line


def test_json_holds_everything_on_one_line() -> None:
    line = JsonFormatter().format(record(logging.WARNING, "two\nlines", failed=True))
    found = json.loads(line)

    assert "\n" not in line
    assert (found["level"], found["message"]) == ("warning", "two\nlines")
    assert "ValueError: odd" in found["exception"]


def test_the_journal_is_known_by_its_file(tmp_path: Path) -> None:
    with (tmp_path / "stderr").open("w") as file:
        status = os.fstat(file.fileno())
        stream = f"{status.st_dev}:{status.st_ino}"
        assert goes_to_journal({"JOURNAL_STREAM": stream}, file.fileno())
        assert not goes_to_journal({"JOURNAL_STREAM": "1:1"}, file.fileno())
        assert not goes_to_journal({}, file.fileno())
        number = file.fileno()
    assert not goes_to_journal({"JOURNAL_STREAM": stream}, number)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--dir", "log", "--interval", "soon"],
        ["--dir", "log", "--spread", "-1"],
        ["--dir", "log", "--api-url", "nonsense"],
        ["--config", "none.toml"],
    ],
)
def test_wrong_settings_are_refused_at_the_start(arguments: list[str]) -> None:
    assert main(["agent", *arguments]) == ExitCode.USAGE
