"""How much is written to the flash under a log, and how long that will last: counted, not assumed.

The kernel counts what reaches a block device, by whichever program; file systems and cards count it
over their lives. What a log's own bytes are is in the log.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vevents.log import READABLE

if TYPE_CHECKING:
    from vevents.log import EventLog, Stream

_DAY_S = 86_400.0
_SECTOR = 512
# Figures of a shorter time say little of a day.
_LEAST_S = 60.0
# Records from before are of a boot that did not know the time.
_CLOCK_SET_NS = 10**18
_STREAMS: tuple[Stream, ...] = ("events", "media", "delivery")
_WORN = {1: "normal", 2: "80 % of the reserve used", 3: "90 % of the reserve used"}


@dataclass(frozen=True, slots=True)
class Device:
    """A block device, by what the kernel says of it; None where it does not say.

    Attributes:
        name: As in /sys/block, or of the partition.
        bytes_written: To it, since the system started, by all programs.
        uptime_s: Seconds since then.
        file_system_bytes: Written to the file system on it since that was made (ext4).
        life_used: Of an eMMC, parts of its life that are used, 0 to 1, of its worse type of cells.
        reserve: Of an eMMC, how its reserve of blocks stands, in words.
    """

    name: str
    bytes_written: int
    uptime_s: float
    file_system_bytes: int | None
    life_used: float | None
    reserve: str | None

    @property
    def bytes_per_day(self) -> float | None:
        """Bytes written to it in a day, by all programs; None just after a start."""
        return per_day(self.bytes_written, self.uptime_s)


@dataclass(frozen=True, slots=True)
class FlashReport:
    """What is written for a log.

    Attributes:
        path: The directory that it is about: the log's, or its copy's.
        device: Under it; None where there is none (tmpfs, overlays, containers).
        log_bytes_per_day: Bytes of records, compressed, that the log takes in a day, by the records
            that are still in it; None when it has too few.
        copy_bytes_per_day: Of a log in memory: bytes that were written to its copy in a day, by
            what was written since it was restored.
    """

    path: Path
    device: Device | None
    log_bytes_per_day: float | None
    copy_bytes_per_day: float | None

    def years(self, endurance: int) -> float | None:
        """Return how long a device lasts that takes so many bytes; None when nobody knows.

        Counted from the first byte on, with all that all programs write to it.
        """
        per_day_ = None if self.device is None else self.device.bytes_per_day
        return endurance / per_day_ / 365.25 if per_day_ else None


def per_day(count: int, seconds: float) -> float | None:
    """Return a count as of one day, or None when it is of too short a time.

    Example:
        >>> per_day(1000, 43200), per_day(1000, 1)
        (2000.0, None)
    """
    return count / seconds * _DAY_S if seconds >= _LEAST_S else None


def look(log: EventLog) -> FlashReport:
    """Gather what is known of a log's flash."""
    copy = log.copy
    path = log.directory if copy is None else copy.directory
    return FlashReport(
        path,
        device_of(path),
        _log_bytes_per_day(log),
        None if copy is None else per_day(copy.bytes_written, copy.since_s),
    )


def device_of(path: Path, sys: Path = Path("/sys")) -> Device | None:
    """Return the block device under a path, or None.

    Args:
        path: A file or directory.
        sys: Where the kernel tells of devices.
    """
    try:
        number = path.stat().st_dev
        # A partition's folder stands in that of its disk.
        folder = (sys / "dev" / "block" / f"{os.major(number)}:{os.minor(number)}").resolve()
        written = int((folder / "stat").read_text().split()[6]) * _SECTOR
    except (OSError, ValueError, IndexError):
        return None
    disk = folder if (folder / "device").exists() else folder.parent
    kilobytes = _number(sys / "fs" / "ext4" / folder.name / "lifetime_write_kbytes")
    reserve = _number(disk / "device" / "pre_eol_info")
    return Device(
        folder.name,
        written,
        time.clock_gettime(time.CLOCK_BOOTTIME),
        None if kilobytes is None else kilobytes * 1024,
        _life_used(disk / "device" / "life_time"),
        None if reserve is None else _WORN.get(reserve),
    )


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text().split()[0], 0)
    except (OSError, ValueError, IndexError):
        return None


def _life_used(path: Path) -> float | None:
    """An eMMC counts in tenths, rounded up, for each of its two types of cells; 11 is beyond."""
    try:
        tenths = [int(word, 0) for word in path.read_text().split()]
    except (OSError, ValueError):
        return None
    return max(tenths) / 10 if tenths and any(tenths) else None


def _log_bytes_per_day(log: EventLog) -> float | None:
    used, times_ns = 0, []
    for stream in _STREAMS:
        stats = log.stats(stream)
        used += stats.bytes_used
        for seq in (stats.first_seq, stats.last_seq):
            records, _ = log.read_batch(stream, seq, READABLE, 1)
            times_ns += [record.wall_ns for record in records if record.wall_ns > _CLOCK_SET_NS]
    return per_day(used, (max(times_ns) - min(times_ns)) / 1e9) if times_ns else None
