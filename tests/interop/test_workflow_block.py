"""The official Workflow block in the real engine, unmodified, writes to the store.

The engine is large and has an environment of its own: `./dev interop` makes it and runs this.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from engine_process import Engine
from store_site import RECORDED, assert_all_arrived, store_and_middleman

from vevents import Event, EventLog
from vevents.cli import main
from vevents.emulator import RunningEmulator
from vevents.errors import LogFullError

RECORD = bool(os.environ.get("VEVENTS_RECORD_BODIES"))


def test_the_block_writes_to_the_store_and_all_of_it_reaches_the_cloud(
    engine: Engine, tmp_path: Path, emulator: RunningEmulator
) -> None:
    with store_and_middleman(tmp_path / "log") as (_, middleman):
        for case in engine.cases:
            output = engine.run(case, middleman.url)

            assert output["error_status"] is False, output
            body = middleman.taken[output["event_id"]]
            if RECORD:
                (RECORDED / f"{case}.json").write_bytes(body + b"\n")

        assert main(["flush", "--dir", str(tmp_path / "log")]) == 0

    assert len(middleman.taken) == len(engine.cases)
    assert_all_arrived(tmp_path / "log", emulator, middleman.taken)


def test_nothing_that_the_block_was_told_is_stored_is_lost_when_the_store_is_killed(
    engine: Engine, tmp_path: Path, emulator: RunningEmulator
) -> None:
    with store_and_middleman(tmp_path / "log") as (store, middleman):
        told = []
        for _ in range(3):
            told += [engine.run(case, middleman.url)["event_id"] for case in engine.cases]
            store.stop()
            store.start()

        assert main(["flush", "--dir", str(tmp_path / "log")]) == 0

    assert len(set(told)) == 3 * len(engine.cases)
    assert set(told) == middleman.taken.keys()
    assert_all_arrived(tmp_path / "log", emulator, middleman.taken)


def test_the_block_says_why_when_the_store_is_full(engine: Engine, tmp_path: Path) -> None:
    settings = tmp_path / "vevents.toml"
    settings.write_text('full = "refuse"\n')
    with EventLog(tmp_path / "log", events_size=1 << 20, full="refuse") as log:
        for size in (500, 1):
            with pytest.raises(LogFullError):
                while True:
                    log.append(Event.custom(value=os.urandom(size).hex()))

    with store_and_middleman(tmp_path / "log", "--config", str(settings)) as (_, middleman):
        output = engine.run("quality_check", middleman.url)

    assert output["error_status"] is True
    assert "529" in output["message"]
    assert "Device storage full. Waiting for cloud uploads to complete." in output["message"]
