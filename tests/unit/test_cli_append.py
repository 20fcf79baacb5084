"""`vevents append`."""

from __future__ import annotations

import io
import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_site import clean_environment

from vevents.cli import main
from vevents.cli.exit_codes import ExitCode
from vevents.event import Event
from vevents.log import EventLog

JPEG = b"\xff\xd8\xff\xe0" + b"frame" * 20


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean_environment(monkeypatch, tmp_path)
    monkeypatch.setenv("VEVENTS_DIR", str(tmp_path / "log"))
    monkeypatch.setenv("VEVENTS_EVENTS_SIZE", "1MiB")
    monkeypatch.setenv("VEVENTS_MEDIA_SIZE", "1MiB")
    monkeypatch.setenv("VEVENTS_DELIVERY_SIZE", "1MiB")


def lines(*events: dict[str, Any] | str) -> bytes:
    texts = [event if isinstance(event, str) else json.dumps(event) for event in events]
    return "".join(text + "\n" for text in texts).encode()


def custom(value: str, **fields: Any) -> dict[str, Any]:
    return {"eventType": "custom", "eventData": {"value": value}} | fields


def append(tmp_path: Path, data: bytes, *options: str) -> int:
    (tmp_path / "events.jsonl").write_bytes(data)
    return main(["append", "events.jsonl", *options])


def events(tmp_path: Path) -> list[Event]:
    with EventLog(tmp_path / "log", read_only=True) as log:
        return [log.decode(record) for record in log.read()]


def test_lines_become_events(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = lines(custom("one"), "", custom("zwei ä", eventId="evt-2", deviceId="d"), "   ")

    assert append(tmp_path, data) == ExitCode.OK

    assert capsys.readouterr().out == "2 events appended, 0 lines refused\n"
    one, two = events(tmp_path)
    assert (one.data, two.data) == ({"value": "one"}, {"value": "zwei ä"})
    assert (two.event_id, two.device_id) == ("evt-2", "d")


def test_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(lines(custom("one"))))
    monkeypatch.setattr(sys, "stdin", stdin)

    assert main(["append", "--sync"]) == ExitCode.OK

    with EventLog(tmp_path / "log", read_only=True) as log:
        assert (log.stats().appended, log.durable_seq) == (1, 1)


def test_sizes_of_the_settings_are_used(tmp_path: Path) -> None:
    append(tmp_path, lines(custom("one")))

    assert (tmp_path / "log" / "events.ring").stat().st_size <= 1 << 20


def test_images_of_files(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(JPEG)
    image = {"frame": str(tmp_path / "a.jpg"), "inputFrame": "a.jpg", "label": "cam"}

    assert append(tmp_path, lines(custom("one", images=[image]))) == ExitCode.OK

    [event] = events(tmp_path)
    [stored] = event.images
    with EventLog(tmp_path / "log", read_only=True) as log:
        assert log.frame(stored.frame) == JPEG  # type: ignore[arg-type]
        assert stored.input_frame == stored.frame
        assert log.stats("media").appended == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", "event: not JSON: Expecting property name"),
        ('{"eventType": "custom", "eventData": {"value": NaN}}', "NaN is not JSON"),
        ("[" * 100_000, "event: not an event: nested too deeply"),
        ("[]", "event: must be a JSON object"),
        (custom("x", unknown=1), "unknown: is no known key"),
        ({"eventType": "custom"}, "eventData.value: is missing"),
        (custom("x", images=[{"frame": "gone.jpg"}]), "images[0].frame: gone.jpg: No such file"),
        (custom("x", images=[{"frame": "text.txt"}]), "images[0].frame"),
        (custom("x", timestamp="yesterday"), "timestamp"),
    ],
)
def test_bad_line_is_named_and_passed_over(
    tmp_path: Path,
    line: dict[str, Any] | str,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "text.txt").write_text("no image")

    code = append(tmp_path, lines(custom("before"), "", line, custom("after")), "--json")

    captured = capsys.readouterr()
    assert code == ExitCode.REJECTED
    assert captured.err.startswith("vevents: line 3: ")
    assert message in captured.err
    assert json.loads(captured.out) == {
        "appended": 2,
        "refused": 1,
        "first_seq": 1,
        "last_seq": 2,
    }
    assert [event.data for event in events(tmp_path)] == [{"value": "before"}, {"value": "after"}]


def test_bytes_that_are_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert append(tmp_path, b'{"eventType": "\xff"}\n') == ExitCode.REJECTED
    assert "line 1: event: not JSON: " in capsys.readouterr().err


def test_strict_stops_at_the_first_bad_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = append(tmp_path, lines(custom("before"), "{", custom("after")), "--strict")

    assert code == ExitCode.REJECTED
    assert capsys.readouterr().out == "1 events appended, 1 lines refused\n"
    assert len(events(tmp_path)) == 1


def test_nothing_to_append(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert append(tmp_path, b"", "--json") == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["first_seq"] is None


def test_full_log_that_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "vevents.toml").write_text('full = "refuse"\n')
    # Random text does not compress; 300 times 8 kB is more than the ring holds.
    dice = random.Random(0)
    texts = [json.dumps(custom(f"{dice.getrandbits(32_000):x}")) for _ in range(300)]

    assert append(tmp_path, lines(*texts), "--json") == ExitCode.ERROR

    printed = capsys.readouterr()
    appended = json.loads(printed.out)["appended"]
    assert 0 < appended == len(events(tmp_path)) < 300
    # Whoever goes on behind a flush has to know where: a line twice is two events.
    assert printed.err.startswith(f"vevents: line {appended + 1}: {tmp_path}/log: the log is full ")
    assert "from here on" in printed.err


def test_a_sync_that_fails_does_not_hide_what_was_appended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: EventLog) -> int:
        raise OSError(5, "Input/output error", "log")

    monkeypatch.setattr(EventLog, "sync", fail)

    assert append(tmp_path, lines(custom("one")), "--sync") == ExitCode.ERROR
    printed = capsys.readouterr()
    assert printed.out == "1 events appended, 0 lines refused\n"
    assert printed.err == "vevents: not synced: [Errno 5] Input/output error: 'log'\n"


def test_file_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["append", "gone.jsonl"]) == ExitCode.USAGE
    assert "No such file" in capsys.readouterr().err


def test_the_ladder_of_the_settings_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VEVENTS_PRESSURE", "0:none")
    (tmp_path / "frame.jpg").write_bytes(JPEG)

    assert append(tmp_path, lines(custom("one", images=[{"frame": "frame.jpg"}]))) == ExitCode.OK

    [event] = events(tmp_path)
    assert (event.images, (event.metadata or {})["vevents_frame_step"]) == ((), "none")
