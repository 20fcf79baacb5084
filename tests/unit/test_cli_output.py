"""What subcommands print, where standard output is not as they would like it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_site import PATIENCE_S, clean_environment, small_log
from rejected_site import Site, jpeg

from vevents.cli.exit_codes import ExitCode
from vevents.event import Event
from vevents.log import EventLog

# Letters that latin-1 has, and some that it has not.
TEXT = "Tür, ドア"


@pytest.fixture(autouse=True)
def log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    clean_environment(monkeypatch, tmp_path)
    monkeypatch.setenv("VEVENTS_DIR", str(tmp_path / "log"))
    return small_log(tmp_path / "log")


def output_of(*arguments: str, encoding: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "vevents", *arguments],
        env=os.environ | {"PYTHONIOENCODING": encoding},
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (ExitCode.OK, b"")
    return done.stdout.decode(encoding)


def code_without_a_reader(*arguments: str) -> int:
    """Run a command whose standard output nobody reads any more."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "vevents", *arguments],
            stdout=writer,
            stderr=subprocess.PIPE,
            timeout=PATIENCE_S,
            check=False,
        )
    finally:
        os.close(writer)
    assert b"pipe" not in done.stderr
    return done.returncode


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_letters_that_the_output_cannot_spell(encoding: str, tmp_path: Path) -> None:
    with EventLog(tmp_path / "log") as log:
        log.append(Event.custom(value=TEXT))

    line = json.loads(output_of("tail", encoding=encoding))

    assert line["event"]["eventData"] == {"value": TEXT}
    assert "Tür" in output_of("pause", "--reason", TEXT, encoding=encoding) or encoding == "ascii"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_refusals_in_letters_that_the_output_cannot_spell(encoding: str, tmp_path: Path) -> None:
    site = Site(tmp_path / "log")
    site.append(f"bad {TEXT}", event_id=f"11111111 {TEXT}")
    site.flush()
    site.log.close()

    [line] = output_of("rejected", "list", "--json", encoding=encoding).splitlines()
    assert json.loads(line)["id"] == f"11111111 {TEXT}"
    assert "11111111" in output_of("rejected", "list", encoding=encoding)
    shown = json.loads(output_of("rejected", "show", "11111111", encoding=encoding))
    assert shown["event"]["eventData"] == {"value": f"bad {TEXT}"}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["status"], ExitCode.OK),
        (["status", "--prometheus"], ExitCode.OK),
        (["status", "--check", "--max-age", "0s"], ExitCode.ATTENTION),
        (["verify"], ExitCode.DAMAGED),
        (["verify", "--json"], ExitCode.DAMAGED),
        (["tail", "--follow"], ExitCode.OK),
        (["rejected", "list"], ExitCode.OK),
        (["rejected", "list", "--unlisted", "--json"], ExitCode.OK),
        (["rejected", "export", "--to", "-"], ExitCode.OK),
        (["pause"], ExitCode.OK),
    ],
)
def test_reader_that_has_seen_enough(arguments: list[str], code: ExitCode, tmp_path: Path) -> None:
    site = Site(tmp_path / "log")
    site.append("bad")
    site.flush()
    site.append("good")
    site.log.append_frame(jpeg("a frame"))
    site.log.append_frame(jpeg("another"))
    site.log.close()
    if arguments[0] == "verify":
        ring = tmp_path / "log" / "media.ring"
        ring.write_bytes(ring.read_bytes().replace(b"a frame", b"damaged"))

    assert code_without_a_reader(*arguments) == code
