"""The command line as a whole: help, version, exit codes, what is imported when."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import click
import pytest

import vevents
from vevents import cli
from vevents.cli import main
from vevents.cli.exit_codes import ExitCode
from vevents.delivery.sender import StopReason
from vevents.errors import (
    ConfigurationError,
    EventValidationError,
    FlushLockedError,
    LogDegradedError,
)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def test_help_lists_every_command_and_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0

    printed = capsys.readouterr().out
    files = {path.stem for path in Path(cli.__file__).parent.glob("*.py")}
    commands = files - {"__init__", "common", "exit_codes"}
    assert commands == set(cli._COMMANDS)
    for name in commands:
        assert f"  {name}" in printed
    for code in ExitCode:
        assert str(int(code)) in printed


def test_every_exit_code_and_reason_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
    rows = " ".join(line.split("|")[1] for line in text.splitlines() if line.startswith("| "))

    for code in ExitCode:
        assert str(int(code)) in rows.replace(",", " ").split()
    for reason in StopReason:
        assert f"`{reason}`" in text


@pytest.mark.parametrize("name", list(cli._COMMANDS))
def test_every_command_has_help_that_begins_with_its_summary(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name, "--help"]) == 0

    printed = " ".join(capsys.readouterr().out.split())
    assert printed.startswith(f"Usage: vevents {name} [OPTIONS]")
    assert cli._COMMANDS[name] in printed


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"vevents {vevents.__version__}\n"


@pytest.mark.parametrize("arguments", [["nonsense"], ["--nonsense"], ["flush", "--nonsense"], []])
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == ExitCode.USAGE
    assert "Usage: vevents" in capsys.readouterr().err


def test_module_runs_as_the_command_does() -> None:
    done = run("-m", "vevents", "--version")

    assert (done.returncode, done.stdout) == (0, f"vevents {vevents.__version__}\n")


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "from vevents.cli import main\n"
        "assert main(['--help']) == 0\n"
        "heavy = {'httpx', 'numpy', 'starlette', 'uvicorn', 'jsonschema', 'cv2', 'PIL'}\n"
        "commands = {'vevents.cli.' + name for name in ('flush', 'status', 'demo', 'emulate')}\n"
        "print(sorted((heavy | commands) & set(sys.modules)))\n"
    )
    done = run("-c", program)

    assert done.stdout.splitlines()[-1] == "[]", done.stderr


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ConfigurationError("set X"), ExitCode.USAGE, "vevents: set X"),
        (FlushLockedError("busy"), ExitCode.LOCKED, "vevents: busy"),
        (LogDegradedError("EIO"), ExitCode.ERROR, "vevents: EIO"),
        (EventValidationError("f", "r"), ExitCode.ERROR, "vevents: f: r"),
        (OSError(28, "No space left on device", "/x"), ExitCode.ERROR, "No space left"),
        (ZeroDivisionError("oops"), ExitCode.ERROR, "unexpected error: ZeroDivisionError: oops"),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED, ""),
        (click.ClickException("odd"), ExitCode.USAGE, "Error: odd"),
    ],
)
def test_every_error_has_its_exit_code(
    error: BaseException,
    code: ExitCode,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(
        cli._LazyGroup, "get_command", lambda *_: click.Command("status", callback=fail)
    )

    assert main(["status"]) == code
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""
    assert "Traceback" not in captured.err


def test_the_callers_logging_is_left_as_it_was(tmp_path: Path) -> None:
    logger = logging.getLogger("vevents")
    before = (logger.level, logger.handlers[:])

    assert main(["status", "--log-level", "debug", "--dir", str(tmp_path)]) == ExitCode.USAGE

    assert (logger.level, logger.handlers) == before


def test_an_unexpected_error_shows_where_with_debug_messages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("vevents.cli.status.require_log", fail)

    assert main(["status", "--log-level", "debug", "--dir", str(tmp_path)]) == ExitCode.ERROR
    assert "Traceback" in capsys.readouterr().err
    assert main(["status", "--dir", str(tmp_path)]) == ExitCode.ERROR
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams(tmp_path: Path, closed: str) -> None:
    """A service may be started without them, and no file of the log may come to stand there."""
    program = (
        "import os, sys\n"
        "from vevents.cli import main\n"
        "code = main(['append', '--dir', sys.argv[1], sys.argv[2]])\n"
        "code = code or main(['status', '--dir', sys.argv[1]])\n"
        "names = [os.readlink(f'/proc/self/fd/{number}') for number in range(3)]\n"
        "sys.exit(code or (10 if any('.ring' in name for name in names) else 0))\n"
    )
    (tmp_path / "events.jsonl").write_text('{"eventType":"custom","eventData":{"value":"x"}}\n')
    command = f'exec "$0" -c "$1" "$2" "$3" {closed}'
    arguments = [sys.executable, program, str(tmp_path / "log"), str(tmp_path / "events.jsonl")]
    done = subprocess.run(["sh", "-c", command, *arguments], check=False, timeout=60)

    assert done.returncode == 0
