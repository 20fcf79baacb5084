"""`vevents tail`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_site import PATIENCE_S, USE_CASE, clean_environment, small_log

from vevents.cli import main
from vevents.cli.exit_codes import ExitCode
from vevents.event import Classification, Event, Image
from vevents.log import EventLog

JPEG = b"\xff\xd8\xff\xe0" + b"frame" * 20


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean_environment(monkeypatch, tmp_path)
    monkeypatch.setenv("VEVENTS_DIR", str(tmp_path / "log"))


def printed(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_newest_events(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_log(tmp_path / "log", events=15)

    assert main(["tail"]) == ExitCode.OK
    assert [line["seq"] for line in printed(capsys)] == list(range(6, 16))
    assert main(["tail", "-n", "2"]) == ExitCode.OK
    assert [line["seq"] for line in printed(capsys)] == [14, 15]
    assert main(["tail", "-n", "100"]) == ExitCode.OK
    assert [line["seq"] for line in printed(capsys)] == list(range(1, 16))
    assert main(["tail", "-n", "0"]) == ExitCode.OK
    assert printed(capsys) == []


def test_more_events_than_are_read_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small_log(tmp_path / "log", events=600)

    assert main(["tail", "-n", "550"]) == ExitCode.OK
    assert [line["seq"] for line in printed(capsys)] == list(range(51, 601))


def test_every_state_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with EventLog(small_log(tmp_path / "log", events=3)) as log:
        log.mark([1], "delivered")
        log.mark([2], "rejected")

    main(["tail"])

    assert [line["state"] for line in printed(capsys)] == ["delivered", "rejected", "pending"]


def test_event_has_the_shape_of_the_api(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with EventLog(small_log(tmp_path / "log")) as log:
        receipt = log.append(
            Event.custom(
                value="ä",
                metadata={"shift": 2},
                images=[
                    Image(JPEG, label="a", classifications=[Classification("c", 0.5)]),
                    Image(input_frame=JPEG, source_id="ve-img-1"),
                ],
            )
        )

    main(["tail"])

    [line] = printed(capsys)
    frame = {"seq": 1, "size": len(JPEG)}
    assert line["event"] == {
        "eventId": receipt.event_id,
        "eventType": "custom",
        "timestamp": receipt.timestamp.isoformat(timespec="microseconds"),
        "images": [
            {
                "label": "a",
                "classifications": [{"class": "c", "confidence": 0.5}],
                "frame": frame,
            },
            {"sourceId": "ve-img-1", "inputFrame": frame},
        ],
        "eventData": {"value": "ä"},
        "customMetadata": {"shift": 2},
    }


def test_use_case_is_shown_if_the_event_has_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small_log(tmp_path / "log", events=1)

    main(["tail"])

    assert printed(capsys)[0]["event"]["useCaseId"] == USE_CASE


def test_record_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with EventLog(small_log(tmp_path / "log")) as log:
        log.append_encoded(b"\xc1")

    assert main(["tail"]) == ExitCode.OK

    [line] = printed(capsys)
    assert line["seq"] == 1
    assert "msgpack" in line["unreadable"]


def test_no_log_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tail"]) == ExitCode.USAGE
    assert "there is no log in" in capsys.readouterr().err


def test_follow_shows_what_a_writer_appends(tmp_path: Path) -> None:
    directory = small_log(tmp_path / "log", events=2)
    process = subprocess.Popen(
        [sys.executable, "-m", "vevents", "tail", "-n", "1", "--follow"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process, EventLog(directory) as log:
        assert json.loads(process.stdout.readline())["seq"] == 2
        for number in (3, 4):
            log.append(Event.custom(value="v", use_case_id=USE_CASE))
            assert json.loads(process.stdout.readline())["seq"] == number
        process.terminate()


def test_reader_that_has_seen_enough(tmp_path: Path) -> None:
    small_log(tmp_path / "log", events=600)
    process = subprocess.Popen(
        [sys.executable, "-m", "vevents", "tail", "-n", "600", "--follow"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        assert json.loads(process.stdout.readline())["seq"] == 1
        process.stdout.close()
        assert process.wait(timeout=PATIENCE_S) == ExitCode.OK
        assert process.stderr.read() == ""
