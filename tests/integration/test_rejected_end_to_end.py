"""Refused by the emulator, put right, retried; and the loss report judged by it."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from vevents import Event, EventLog, Image
from vevents.emulator import EmulatorConfig, Fault, RunningEmulator

USE_CASE = "uc-1"
KEY = "rf_secret_0123456789"


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[RunningEmulator]:
    config = EmulatorConfig(api_keys=[KEY], use_cases=[USE_CASE], require_known_images=True)
    with RunningEmulator(config) as running:
        monkeypatch.setenv("NO_PROXY", "*")
        monkeypatch.setenv("ROBOFLOW_API_KEY", KEY)
        monkeypatch.setenv("API_URL", running.url)
        monkeypatch.setenv("VEVENTS_DIR", str(tmp_path / "log"))
        monkeypatch.setenv("VEVENTS_CONFIG", str(tmp_path / "vevents.toml"))
        (tmp_path / "vevents.toml").touch()
        yield running


def vevents(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vevents", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def lines(*arguments: str) -> list[dict[str, Any]]:
    done = vevents(*arguments)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def open_log(directory: Path) -> EventLog:
    return EventLog(directory, events_size=1 << 20, media_size=1 << 20, delivery_size=1 << 20)


def test_a_use_case_that_was_made_too_late(tmp_path: Path, emulator: RunningEmulator) -> None:
    frame = b"\xff\xd8\xff\xe0" + random.Random(1).randbytes(3_000)
    with open_log(tmp_path / "log") as log:
        log.append(Event.custom(value="good", use_case_id=USE_CASE))
    answer = httpx.post(
        f"{emulator.url}/vision-events/use-cases",
        json={"name": "Bolts"},
        headers={"Authorization": f"Bearer {KEY}"},
        trust_env=False,
    )
    use_case = answer.json()["id"]
    with open_log(tmp_path / "log") as log:
        early = log.append(
            Event.safety_alert(
                alert_type="spill", severity="low", use_case_id="not-there", images=[Image(frame)]
            )
        )

    assert vevents("flush").returncode == 5
    [refused] = lines("rejected", "list", "--json")
    assert (refused["id"], refused["type"]) == (early.event_id, "safety_alert")
    [status] = lines("status", "--json")
    [reason] = status["streams"]["events"]["rejected_by_reason"]
    assert (reason["type"], reason["count"]) == ("safety_alert", 1)

    # Exported, put right, appended again: the id stays, so the cloud has it once.
    assert vevents("rejected", "export", "--to", str(tmp_path / "out")).returncode == 0
    [event] = (tmp_path / "out" / "events.jsonl").read_text(encoding="utf-8").splitlines()
    corrected = tmp_path / "out" / "corrected.jsonl"
    corrected.write_text(event.replace("not-there", use_case), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "vevents", "append", "corrected.jsonl"],
        cwd=tmp_path / "out",
        check=False,
    )
    assert done.returncode == 0
    assert vevents("rejected", "drop", early.event_id[:13]).returncode == 0
    assert vevents("flush").returncode == 0

    stored = {row["event"]["eventId"]: row["event"] for row in emulator.events()}
    assert stored[early.event_id]["useCaseId"] == use_case
    assert len(stored[early.event_id]["images"]) == 1
    assert vevents("rejected", "list", "--json").stdout == ""
    assert vevents("status").returncode == 0


def test_a_whole_server_that_refused(tmp_path: Path, emulator: RunningEmulator) -> None:
    """As if somebody had broken the workspace: everything is set aside, and comes back."""
    with open_log(tmp_path / "log") as log:
        receipts = [
            log.append(Event.custom(value=f"event {number}", use_case_id=USE_CASE))
            for number in range(40)
        ]
        json_type = {"Content-Type": "application/json"}
        fault = Fault(status=422, headers=json_type, body='{"error": "not today"}')
        emulator.faults.at_random(1.0, fault, path="/vision-events*", seed=1)
        assert vevents("flush").returncode == 3  # 20 set aside and no end: it may be the server
        assert vevents("flush").returncode == 5
        emulator.faults.clear()
        assert len(lines("rejected", "list", "--json")) == 40

        done = vevents("rejected", "retry", "--all", "--json")
        assert json.loads(done.stdout) == {"in_place": 40, "appended": 0, "failed": []}
        assert vevents("flush").returncode == 0

        assert {row["event"]["eventId"] for row in emulator.events()} == {
            receipt.event_id for receipt in receipts
        }
        stats = log.stats()
        assert (stats.delivered, stats.rejected) == (40, 0)
        assert stats.conserved


def test_a_loss_report_arrives(tmp_path: Path, emulator: RunningEmulator) -> None:
    dice = random.Random(3)
    with open_log(tmp_path / "log") as log:
        while log.stats().evicted == 0:
            text = f"{dice.getrandbits(30_000):x}"
            log.append(Event.custom(value=text, use_case_id=USE_CASE, device_id="press-1"))

        assert vevents("flush").returncode == 0

        [sent] = [
            row["event"]
            for row in emulator.events()
            if row["event"]["eventData"].get("externalId") == "vevents-loss-report"
        ]
        assert sent["deviceId"] == "press-1"
        assert sent["customMetadata"]["total_events_evicted"] >= 1
        assert vevents("flush").returncode == 0
        assert log.stats().pending == 0
        assert log.stats().conserved
