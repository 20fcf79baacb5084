"""How many bytes reach the block device for one event, by the way and the pace of syncing?

    pytest benchmarks/test_flash.py

On an ext4 of its own, mounted as docs/devices.md says (noatime,commit=60), on a loop device whose
writes the kernel counts; root only. The ring has gone round once before. Time does not pass but is
played: what the kernel does by the clock is asked of it after as many events as come in that time.
That is everything that is dirty, every 30 seconds, and the journal along with it (a page that is
written makes its file's times dirty); by default a system also writes the journal every 5 seconds.
The helper thread, which goes by the clock, too, takes no part: what it would have cleared ahead of
an append at such a rate, the append clears.

The same in real time, with the helper and its sync of every 5 s, takes five minutes; there several
ways to mount are measured at once, each on a device of its own.

In memory (RAM-first) the log is on /dev/shm, and its copy on the device.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from vevents import EventLog
from vevents._ffi import Handle
from workload import typical_payloads

WRITEBACK_S = 30
MEMORY = Path("/dev/shm")
SIZES = {"events_size": 64 << 20, "media_size": 1 << 20, "delivery_size": 1 << 20}
LAP = 400_000  # events, a little more than 64 MiB


@dataclass(frozen=True)
class Way:
    """How a log is synced.

    Attributes:
        sync_s: Seconds between two syncs; 0: every event waits for one.
        in_memory: Whether the log is RAM-first.
        journal_s: Seconds between two commits of the journal alone; 0: none.
    """

    name: str
    sync_s: int
    in_memory: bool = False
    journal_s: int = 0


@dataclass(frozen=True)
class Disk:
    """An ext4 on a loop device."""

    path: Path
    device: str

    def bytes_written(self) -> int:
        """Return what the kernel has counted."""
        return int(Path(f"/sys/block/{self.device}/stat").read_text().split()[6]) * 512

    def commit(self) -> None:
        """Do what the journal does by the clock, and nothing to anybody's pages.

        A file beside the rings is changed for it, whose inode is in one block with theirs.
        """
        descriptor = os.open(self.path / "log" / "marker", os.O_WRONLY | os.O_CREAT)
        try:
            os.utime(descriptor)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def write_back(self) -> None:
        """Do what the kernel does with pages that have been dirty for long."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            ctypes.CDLL(None).syncfs(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def mounted(directory: Path, options: str) -> Iterator[Disk]:
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        pytest.skip("needs root and mkfs.ext4")
    image, at = directory / "disk", directory / "mounted"
    with image.open("wb") as file:
        file.truncate(512 << 20)
    # Nothing is left to be initialised in the background.
    lazy = "lazy_itable_init=0,lazy_journal_init=0"
    subprocess.run(["mkfs.ext4", "-q", "-F", "-E", lazy, image], check=True)
    at.mkdir()
    subprocess.run(["mount", "-o", f"loop,{options}", image, at], check=True)
    try:
        [line] = [x for x in Path("/proc/mounts").read_text().splitlines() if f" {at} " in x]
        yield Disk(at, Path(line.split()[0]).name)
    finally:
        subprocess.run(["umount", at], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with mounted(tmp_path, "noatime,commit=60") as disk:
        yield disk


@pytest.fixture
def memory() -> Iterator[Path]:
    path = MEMORY / f"vevents-flash-{os.getpid()}"
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


WAYS = [
    Way("a sync every event", 0),
    Way("a sync every 5 s", 5),
    Way("a sync every 5 s, journal every 5 s", 5, journal_s=5),
    Way("a sync every 60 s", 60),
    Way("in memory, a copy every 60 s", 60, in_memory=True),
    Way("in memory, a copy every 10 min", 600, in_memory=True),
]


def duration_s(way: Way, rate: int) -> int:
    """Return how long a time is played: several syncs, and no more events than it takes."""
    if way.sync_s == 0:
        return {1: 300, 30: 60, 1000: 10}[rate]
    return max(3 * way.sync_s, {1: 1800, 30: 600, 1000: 120}[rate])


@pytest.mark.parametrize("rate", [1, 30, 1000])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_bytes_on_the_device(
    benchmark: Any,
    disk: Disk,
    memory: Path,
    monkeypatch: pytest.MonkeyPatch,
    way: Way,
    rate: int,
) -> None:
    if way.in_memory and rate * way.sync_s * 250 > SIZES["events_size"]:
        pytest.skip("the ring is smaller than what comes between two copies")
    directory = memory if way.in_memory else disk.path / "log"
    options = {"persist_dir": disk.path / "copy", "persist_interval_s": 0} if way.in_memory else {}
    payloads = itertools.cycle(typical_payloads(20_000))
    monkeypatch.setitem(Handle.__init__.__kwdefaults__, "helper", False)
    with EventLog(directory, sync_interval_s=0, **SIZES, **options) as log:
        for _ in range(LAP):
            log.append_encoded(next(payloads))
        log.sync()
        if way.journal_s:
            disk.commit()
        disk.write_back()
        before, seq = disk.bytes_written(), log.stats().last_seq
        lasts_s = duration_s(way, rate)

        def play() -> None:
            for second in range(1, lasts_s + 1):
                for _ in range(rate):
                    log.append_encoded(next(payloads), sync=way.sync_s == 0)
                if way.sync_s and second % way.sync_s == 0:
                    log.sync()
                    time.sleep(0.012)  # so that what follows is no burst of many seconds
                if way.journal_s and second % way.journal_s == 0:
                    disk.commit()
                if second % WRITEBACK_S == 0:
                    disk.write_back()
            disk.write_back()

        benchmark.pedantic(play, rounds=1)
        stats = log.stats()
        count = stats.last_seq - seq
        written = (disk.bytes_written() - before) / count
        records, _ = log.read_batch("events", stats.last_seq - 255)
        stored = sum(record.stored_size for record in records) / len(records)
    benchmark.extra_info |= {
        "events": count,
        "compressed_per_event": stored,
        "written_per_event": written,
        "ratio": written / stored,
        "MB_per_day": written * rate * 86_400 / 1e6,
    }


# A process that appends at a rate, and tells when it is done with what it did before, and with all.
PACED = """
import itertools, sys, time
from vevents import EventLog
from vevents._ffi import Handle
from workload import typical_payloads
directory, rate, lap, settle_s, lasts_s = sys.argv[1], *map(int, sys.argv[2:])
sizes = {"events_size": 64 << 20, "media_size": 1 << 20, "delivery_size": 1 << 20}
payloads = itertools.cycle(typical_payloads(20_000))
Handle.__init__.__kwdefaults__["helper"] = False  # it would get ready for more of that burst
with EventLog(directory, sync_interval_s=0, **sizes) as log:
    for _ in range(lap):
        log.append_encoded(next(payloads))
Handle.__init__.__kwdefaults__["helper"] = True
with EventLog(directory) as log:
    due = time.monotonic()
    for n in range(rate * (settle_s + lasts_s)):
        if n == rate * settle_s:
            print("begin", flush=True)
        log.append_encoded(next(payloads))
        due += 1 / rate
        time.sleep(max(0, due - time.monotonic()))
    stats = log.stats()
    assert stats.conserved, stats
    records, _ = log.read_batch("events", stats.last_seq - 255)
    print(sum(record.stored_size for record in records) / len(records), flush=True)
"""
SETTLE_S, LASTS_S = 60, 240
REAL_TIME = (
    ("noatime,lazytime,commit=60", 30),
    ("noatime,commit=60", 30),
    ("relatime", 30),
    ("noatime,lazytime,commit=60", 1),
)


def paced(disk: Disk, rate: int) -> dict[str, float]:
    """Run such a process to its end. Returns what was written meanwhile."""
    arguments = [str(each) for each in (disk.path / "log", rate, LAP, SETTLE_S, LASTS_S)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", PACED, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begin\n"
        before = disk.bytes_written()
        stored = float(process.stdout.readline())
        written = (disk.bytes_written() - before) / (rate * LASTS_S)
    assert process.returncode == 0
    return {
        "compressed_per_event": stored,
        "written_per_event": written,
        "ratio": written / stored,
    }


def test_bytes_in_real_time(benchmark: Any, tmp_path: Path) -> None:
    with ExitStack() as stack:
        disks = []
        for number, (way, _) in enumerate(REAL_TIME):
            directory = tmp_path / str(number)
            directory.mkdir()
            disks.append(stack.enter_context(mounted(directory, way)))
        pool = stack.enter_context(ThreadPoolExecutor(len(disks)))
        found = benchmark.pedantic(
            lambda: list(pool.map(paced, disks, (rate for _, rate in REAL_TIME))), rounds=1
        )

    benchmark.extra_info["figures"] = {
        f"{way}, {rate} a second": row for (way, rate), row in zip(REAL_TIME, found, strict=True)
    }
