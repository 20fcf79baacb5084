"""`vevents demo`: what the command makes of the demo's report. The demo has tests of its own."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from cli_site import clean_environment

import vevents.demo
from vevents.cli import main
from vevents.cli.exit_codes import ExitCode
from vevents.demo.report import DemoProgress, DemoReport
from vevents.errors import ConfigurationError


def report(**fields: Any) -> DemoReport:
    names = [field.name for field in dataclasses.fields(DemoReport)]
    defaults = dict.fromkeys(names, 0) | {"ok": True, "directory": "d", "mismatches": ()}
    return DemoReport(**(defaults | fields))


class Run:
    """Stands in for `vevents.demo.run`."""

    def __init__(self) -> None:
        self.report = report(appended=20, delivered=20, compared_events=20, compared_images=9)
        self.calls: list[dict[str, Any]] = []
        self.error: Exception | None = None

    def __call__(self, directory: str, **options: Any) -> DemoReport:
        self.calls.append({"directory": directory} | options)
        Path(directory).mkdir(exist_ok=True)
        (Path(directory) / "events.ring").write_bytes(b"ring")
        options["progress"](DemoProgress("detect", 1, 20))
        if self.error is not None:
            raise self.error
        return self.report


@pytest.fixture(autouse=True)
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    clean_environment(monkeypatch, tmp_path)
    stand_in = Run()
    monkeypatch.setattr(vevents.demo, "run", stand_in)
    return stand_in


def test_temporary_directory_is_removed(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo"]) == ExitCode.OK

    [call] = run.calls
    assert call["events"] == 200
    assert not Path(call["directory"]).exists()
    printed = capsys.readouterr().out
    assert "20 appended = 20 delivered + 0 pending + 0 rejected + 0 evicted + 0 lost" in printed
    assert "compared  20 events and 9 images: all the same" in printed


def test_temporary_directory_is_removed_after_an_error(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run.error = ConfigurationError("a package is missing")

    assert main(["demo"]) == ExitCode.USAGE
    assert not Path(run.calls[0]["directory"]).exists()
    assert capsys.readouterr().err == "vevents: a package is missing\n"


def test_temporary_directory_can_be_kept(run: Run) -> None:
    assert main(["demo", "--keep"]) == ExitCode.OK
    assert (Path(run.calls[0]["directory"]) / "events.ring").exists()


def test_named_directory_is_kept_and_options_are_passed_on(run: Run, tmp_path: Path) -> None:
    options = ["--events", "7", "--seed", "3", "--events-size", "2MiB", "--media-size", "4MiB"]

    assert main(["demo", "--dir", str(tmp_path / "d"), *options]) == ExitCode.OK

    [call] = run.calls
    del call["progress"]
    assert call == {
        "directory": str(tmp_path / "d"),
        "events": 7,
        "seed": 3,
        "events_size": 2 << 20,
        "media_size": 4 << 20,
    }
    assert (tmp_path / "d" / "events.ring").exists()


def test_json(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--json"]) == ExitCode.OK

    captured = capsys.readouterr()
    assert json.loads(captured.out) == json.loads(json.dumps(run.report.as_dict()))
    assert captured.err == ""


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_disagreement_fails(
    run: Run, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run.report = report(ok=False, mismatches=("one event is missing",))

    assert main(["demo", *options]) == ExitCode.ERROR
    assert "one event is missing" in capsys.readouterr().out


def test_no_events_make_no_demo(run: Run) -> None:
    assert main(["demo", "--events", "0"]) == ExitCode.USAGE
    assert run.calls == []
