"""How long may an append from C take at worst, while something else keeps the disk busy?

    ./dev bench benchmarks/test_latency.py

`control` is the same loop that compresses the payload into its own memory: what the machine (its
other programs, its hypervisor) does to such a loop is not the log's doing, and is in all figures.
How long the disk let that other writer wait for a sync at worst is told beside them.
Each measurement is a process of its own, by turns; their histograms are added up.
"""

from __future__ import annotations

import shutil
import statistics
from pathlib import Path
from typing import Any

from workload import append_bench, told_of_histogram

EVENTS = 10_000_000
TURNS = 4
WAYS = {
    "append, disk busy": ("--busy-disk",),
    "append, level 100, disk busy": ("--busy-disk", "--level", 100),
    "control, disk busy": ("--busy-disk", "--control"),
    "append, disk idle": (),
}


def test_latency_from_c(benchmark: Any, tmp_path: Path, scale: float) -> None:
    events = max(10_000, int(EVENTS * scale)) // TURNS
    ran: dict[str, list[Any]] = {way: [] for way in WAYS}

    def by_turns() -> None:
        for _ in range(TURNS):
            for way, options in WAYS.items():
                told = append_bench(tmp_path / "log", *options, "--events", events, "--histogram")
                ran[way].append(told)
                shutil.rmtree(tmp_path / "log")

    benchmark.pedantic(by_turns)
    benchmark.extra_info["figures"] = {
        way: told_of_histogram([bucket for told in turns for bucket in told["histogram"]])
        | {
            name: max(told[name] for told in turns)
            for name in ("max_us", "disk_sync_max_us")
            if any(told[name] for told in turns)
        }
        | {"turn_max_us": statistics.median(told["max_us"] for told in turns)}
        | {
            name: sum(told[name] for told in turns)
            for name in ("page_faults", "preemptions", "disk_megabytes")
        }
        for way, turns in ran.items()
    }
