"""The official Workflow block in the real engine, unmodified, writes to the store.

The engine is large and has an environment of its own: `./dev interop` makes it and runs this.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import threading
from pathlib import Path

import pytest
from engine_process import Engine
from store_site import RECORDED, StoreProcess, assert_all_arrived, store_and_middleman

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


def test_nothing_that_the_block_was_told_is_stored_is_lost_whenever_the_store_is_killed(
    engine: Engine, tmp_path: Path, emulator: RunningEmulator
) -> None:
    """At any moment: before a request, within one, between the append and its answer."""
    store = StoreProcess(tmp_path / "log")
    done = threading.Event()
    kills = 0

    def kill() -> None:
        nonlocal kills
        dice = random.Random(7)
        while not done.wait(dice.uniform(0, 0.15)):
            store.stop()
            store.start()
            kills += 1

    killer = threading.Thread(target=kill)
    killer.start()
    told: list[str] = []
    unknown = 0
    try:
        for case in itertools.cycle(engine.cases):
            output = engine.run(case, store.url)
            if output["error_status"]:
                unknown += 1
            else:
                told.append(output["event_id"])
            if kills >= 10 and len(told) >= 60:
                break
    finally:
        done.set()
        killer.join()

    assert main(["flush", "--dir", str(tmp_path / "log")]) == 0
    assert store.stop(signal.SIGTERM) == 0
    assert unknown
    arrived = {row["event"]["eventId"]: row for row in emulator.events()}
    assert len(set(told)) == len(told)
    assert arrived.keys() >= set(told)
    # The block does not ask again, so what it was told nothing of is there once, or not at all.
    assert len(arrived) <= len(told) + unknown
    assert all((row["posts"], row["warnings"]) == (1, []) for row in arrived.values())
    with EventLog(tmp_path / "log", read_only=True) as log:
        stats = log.stats()
        assert stats.conserved
        assert (stats.delivered, stats.pending, stats.rejected) == (len(arrived), 0, 0)


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
