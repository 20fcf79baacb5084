"""`vevents check` against an emulator on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_site import KEY, USE_CASE, clean_environment

from vevents.cli import main
from vevents.cli.exit_codes import ExitCode
from vevents.emulator import ApiKey, EmulatorConfig, Fault, RunningEmulator

WRITER = "rf_may_only_write"


@pytest.fixture
def emulator() -> Iterator[RunningEmulator]:
    keys = [KEY, ApiKey(WRITER, scopes=["vision-events:write"])]
    with RunningEmulator(EmulatorConfig(api_keys=keys, use_cases=[USE_CASE])) as running:
        yield running


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, emulator: RunningEmulator) -> None:
    clean_environment(monkeypatch, tmp_path)
    monkeypatch.setenv("ROBOFLOW_API_KEY", KEY)
    monkeypatch.setenv("API_URL", emulator.url)


def test_all_is_well(emulator: RunningEmulator, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--use-case", USE_CASE]) == ExitCode.OK

    captured = capsys.readouterr()
    assert captured.out == (
        f"{emulator.url} accepts the key\n1 active use cases; shows events of the last 14 days\n"
    )
    assert captured.err == ""
    assert emulator.counts()["events"] == 0


def test_json(emulator: RunningEmulator, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--json"]) == ExitCode.OK

    report = json.loads(capsys.readouterr().out)
    assert report.pop("clock_offset_s") == pytest.approx(0, abs=5)
    assert report == {
        "api_url": emulator.url,
        "exit_code": 0,
        "message": f"{emulator.url} accepts the key",
        "use_cases": [{"id": USE_CASE, "name": USE_CASE}],
        "lookback_days": 14,
    }


def test_key_that_may_only_write_is_fine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ROBOFLOW_API_KEY", WRITER)

    assert main(["check"]) == ExitCode.OK
    assert "knows the key, which may not read" in capsys.readouterr().out


@pytest.mark.parametrize("as_json", [False, True])
def test_wrong_key(
    as_json: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ROBOFLOW_API_KEY", "rf_wrong_key")

    assert main(["check", *["--json"] * as_json]) == ExitCode.UNAUTHORIZED

    captured = capsys.readouterr()
    assert "check ROBOFLOW_API_KEY" in (captured.out if as_json else captured.err)
    assert "rf_wrong_key" not in captured.out + captured.err


def test_unknown_use_case(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--use-case", "uc-typo"]) == ExitCode.USAGE
    assert "'uc-typo' is not among its active ones: uc-1" in capsys.readouterr().err


def test_wrong_address(emulator: RunningEmulator, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--api-url", "http://127.0.0.1:9"]) == ExitCode.TRY_LATER
    assert "vevents: http://127.0.0.1:9: " in capsys.readouterr().err
    assert main(["check", "--api-url", f"{emulator.url}/typo"]) == ExitCode.TRY_LATER
    assert "not at this address, check API_URL" in capsys.readouterr().err


def test_server_in_trouble(emulator: RunningEmulator, capsys: pytest.CaptureFixture[str]) -> None:
    emulator.faults.at_random(1.0, Fault(status=503))

    assert main(["check"]) == ExitCode.TRY_LATER
    assert "the server failed (503" in capsys.readouterr().err


def test_missing_settings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VEVENTS_CA_FILE", "gone.pem")
    assert main(["check"]) == ExitCode.USAGE
    assert "gone.pem: No such file" in capsys.readouterr().err
    monkeypatch.delenv("ROBOFLOW_API_KEY")
    assert main(["check"]) == ExitCode.USAGE
    assert "no API key" in capsys.readouterr().err


def test_wrong_clock(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("vevents.delivery.client.Client.clock_offset_s", property(lambda _: 7200.0))

    assert main(["check"]) == ExitCode.OK
    assert "clock is 2 h behind the server's" in capsys.readouterr().err
