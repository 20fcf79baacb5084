"""What the official Workflow block sent, recorded, through the store to the cloud's emulator."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from store_site import HEADERS, RECORDED, USE_CASE, assert_all_arrived, store_and_middleman

from vevents.cli import main
from vevents.emulator import EmulatorConfig, RunningEmulator

KEY = "rf_secret_0123456789"
CASES = sorted(path.stem for path in RECORDED.glob("*.json"))


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningEmulator]:
    monkeypatch.setenv("NO_PROXY", "*")
    config = EmulatorConfig(
        api_keys=[KEY],
        use_cases=[USE_CASE],
        require_known_images=True,
        strict_fields=True,
        strict_event_data=True,
    )
    with RunningEmulator(config) as running:
        monkeypatch.setenv("ROBOFLOW_API_KEY", KEY)
        monkeypatch.setenv("API_URL", running.url)
        yield running


def recorded(case: str) -> bytes:
    """Return the body as it was sent, but for the time: the cloud takes no old events."""
    text = (RECORDED / f"{case}.json").read_text(encoding="utf-8").rstrip("\n")
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    shifted, count = re.subn(
        r'("inference_timestamp": ")[^"]*', lambda match: match[1] + now, text, count=1
    )
    assert count == 1
    return shifted.encode()


def post(url: str, body: bytes) -> dict[str, Any]:
    answer = httpx.post(f"{url}/v2/events", content=body, headers=HEADERS, trust_env=False)
    assert answer.status_code == 201, answer.text
    loaded = answer.json()
    assert isinstance(loaded, dict)
    return loaded


def test_there_is_a_recording_of_every_kind() -> None:
    bodies = [json.loads(recorded(case)) for case in CASES]

    assert {body["event_schema"] for body in bodies} == {
        "quality_check",
        "inventory_count",
        "safety_alert",
        "custom",
        "operator_feedback",
    }
    keys = {key for body in bodies for image in body["images"] for key in image}
    assert keys >= {
        "base64Image",
        "inputBase64Image",
        "label",
        "objectDetections",
        "classifications",
        "instanceSegmentations",
        "keypoints",
    }


def test_all_of_it_reaches_the_cloud(tmp_path: Path, emulator: RunningEmulator) -> None:
    with store_and_middleman(tmp_path / "log") as (_, middleman):
        for case in CASES:
            post(middleman.url, recorded(case))

        assert main(["flush", "--dir", str(tmp_path / "log")]) == 0

    assert len(middleman.taken) == len(CASES)
    assert_all_arrived(tmp_path / "log", emulator, middleman.taken)


def test_nothing_is_lost_and_nothing_doubles_when_the_store_is_killed(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    with store_and_middleman(tmp_path / "log") as (store, middleman):
        for case in CASES:
            # Once between two requests, and once between the append and its answer: the client
            # knows nothing and asks again.
            post(middleman.url, recorded(case))
            store.stop(signal.SIGKILL)
            store.start()
            body = recorded(case)
            middleman.kill_before_answer = True
            with pytest.raises(httpx.RemoteProtocolError):
                post(middleman.url, body)
            store.start()
            post(middleman.url, body)

        assert main(["flush", "--dir", str(tmp_path / "log")]) == 0

    assert len(middleman.taken) == 2 * len(CASES)
    assert_all_arrived(tmp_path / "log", emulator, middleman.taken)
