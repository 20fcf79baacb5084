"""Our own block in the real engine, through `vevents flush`, beside the official one."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from engine_process import Engine
from store_site import compare, store_and_middleman

from vevents import EventLog
from vevents.cli import main
from vevents.emulator import RunningEmulator
from vevents.event import parse_timestamp

GRADED = {"qc_result": "$inputs.result", "priority": "$inputs.priority", "custom_metadata": {}}


def arrived(directory: Path, emulator: RunningEmulator, count: int) -> list[dict[str, Any]]:
    """Deliver the log, and return what is in the cloud, in the order of the log."""
    assert main(["flush", "--dir", str(directory)]) == 0
    with EventLog(directory, read_only=True) as log:
        for stream in ("events", "media"):
            stats = log.stats(stream)  # type: ignore[arg-type]
            assert stats.conserved
            assert (stats.pending, stats.rejected, stats.evicted, stats.lost) == (0, 0, 0, 0)
        assert log.stats().appended == count
    rows = {row["event"]["eventId"]: row for row in emulator.events()}
    assert all((row["posts"], row["warnings"]) == (1, []) for row in rows.values())
    assert len(rows) == count
    return [row["event"] for row in rows.values()]


def own_metadata(event: dict[str, Any]) -> dict[str, Any]:
    """Return what the block says about the cooldown."""
    metadata = event.get("customMetadata", {})
    return {k: v for k, v in metadata.items() if k.startswith("vevents_suppressed")}


def test_what_our_block_writes_arrives_as_what_the_official_one_sends(
    engine: Engine, tmp_path: Path, emulator: RunningEmulator
) -> None:
    sent, told, seen_at = {}, {}, {}
    with store_and_middleman(tmp_path / "store") as (_, middleman):
        for case in engine.cases:
            output = engine.run(case, middleman.url)
            sent[case] = json.loads(middleman.taken[output["event_id"]])
    for case in engine.cases:
        seen_at[case] = datetime.now(UTC) - timedelta(seconds=0.75)
        output = engine.tell(
            case=case,
            dir=str(tmp_path / "log"),
            frame_time=seen_at[case].isoformat(),
            settings={"device_id": "press-03", "stream_id": f"camera {case}"},
        )
        assert (output["error_status"], output["throttling_status"]) == (False, False), output
        told[case] = output["event_id"]

    events = arrived(tmp_path / "log", emulator, len(engine.cases))

    digests = {row["source_id"]: row["sha256"] for row in emulator.images()}
    by_id = {event["eventId"]: event for event in events}
    for case, event_id in told.items():
        event, body = by_id[event_id], sent[case]
        metadata = dict(event.get("customMetadata", {}))
        # Where nobody vouches for the clock, the time is the log's, and the age says the rest.
        age = timedelta(seconds=metadata.pop("vevents_frame_age_s", 0))
        if body["images"] and any("inputBase64Image" in image for image in body["images"]):
            moment = parse_timestamp(event["timestamp"]) - age
            assert abs(moment - seen_at[case]) < timedelta(milliseconds=100)
        assert metadata == body.get("custom_metadata", {})
        assert (event["deviceId"], event["streamId"]) == ("press-03", f"camera {case}")
        if case == "inventory_count":
            # The official block drops predictions that come without an image.
            [image] = event.pop("images")
            assert len(image["objectDetections"]) == event["eventData"]["itemCount"]
        compare(body, event, digests)


def test_the_cooldown_keeps_the_most_important_event_and_counts_the_others(
    engine: Engine, tmp_path: Path, emulator: RunningEmulator
) -> None:
    workflow = {"case": "quality_check", "dir": str(tmp_path / "log")}
    workflow |= {"settings": GRADED | {"cooldown_seconds": 2}}
    runs = [("pass", 0), ("pass", 0), ("fail", 0), ("pass", 0), ("fail", 7), ("fail", 0)]

    outputs = [
        engine.tell(**workflow, inputs={"result": result, "priority": priority})
        for result, priority in runs
    ]

    assert [output["throttling_status"] for output in outputs] == [False] + [True] * 5
    assert not any(output["error_status"] for output in outputs)
    # No frame comes any more: the end of the window alone writes what is held.
    deadline = time.monotonic() + 30
    with EventLog(tmp_path / "log", read_only=True) as log:
        while log.stats().appended < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
    [first, kept] = arrived(tmp_path / "log", emulator, 2)
    assert (first["eventData"]["result"], own_metadata(first)) == ("pass", {})
    assert kept["eventData"]["result"] == "fail"
    assert own_metadata(kept) == {
        "vevents_suppressed": 4,
        "vevents_suppressed_quality_check_fail": 2,
        "vevents_suppressed_quality_check_pass": 2,
    }
    assert len(kept["images"][0]["objectDetections"]) == 5


def test_the_end_of_the_workflow_writes_what_is_held(
    engine: Engine, tmp_path: Path, emulator: RunningEmulator
) -> None:
    workflow = {"case": "quality_check", "dir": str(tmp_path / "log")}
    workflow |= {"settings": GRADED | {"cooldown_seconds": 3600}}
    for result in ("pass", "fail", "pass"):
        engine.tell(**workflow, inputs={"result": result})

    assert engine.tell(close=str(tmp_path / "log")) == {"closed": 1}

    [_, kept] = arrived(tmp_path / "log", emulator, 2)
    assert kept["eventData"]["result"] == "fail"
    assert own_metadata(kept)["vevents_suppressed"] == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"qc_result": None}, "eventData.result: is missing"),
        ({"custom_metadata": {"a.b": 1}}, "customMetadata"),
    ],
)
def test_an_invalid_event_is_an_output_and_no_end_of_the_workflow(
    engine: Engine, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    output = engine.tell(
        case="quality_check",
        dir=str(tmp_path / "log"),
        settings=settings,
    )

    assert (output["error_status"], output["throttling_status"]) == (True, False)
    assert output["event_id"] == ""
    assert message in output["message"]


def test_a_log_that_cannot_be_opened_is_an_output_too(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    output = engine.tell(case="custom", dir=str(tmp_path / "file" / "log"))

    assert output["error_status"] is True
    assert "NotADirectoryError" in output["message"]


def test_a_sink_that_is_switched_off_writes_nothing(engine: Engine, tmp_path: Path) -> None:
    output = engine.tell(case="custom", dir=str(tmp_path / "log"), settings={"disable_sink": True})

    assert output["error_status"] is False
    assert "Switched off" in output["message"]
    assert not (tmp_path / "log").exists()
