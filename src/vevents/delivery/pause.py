"""The pause switch: a small file in the log's directory that every delivery looks for.

It holds one JSON object for people and for us. It outlives reboots, and it is either there in full
or not at all. What cannot be read counts as a pause without an end: somebody wanted silence, and
silence loses nothing. So an empty file made by hand is a switch as well.

Within the boot in which the pause was made its end is measured by a clock that nobody sets; after a
reboot there is only the wall clock.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from vevents.log import EventLog

FILE_NAME = "paused"
REASON_LENGTH_MAX = 500


@dataclass(frozen=True, slots=True)
class Pause:
    """A pause that holds now.

    Attributes:
        since: When it began, UTC; None if the file does not say.
        left_s: Seconds until it ends; None for no end.
        reason: Why, in the words of whoever paused, or None.
    """

    since: datetime | None
    left_s: float | None
    reason: str | None

    def __str__(self) -> str:
        text = "delivery is paused"
        if self.left_s is not None:
            ends = datetime.now().astimezone().timestamp() + self.left_s
            text += f" until {datetime.fromtimestamp(ends).strftime('%Y-%m-%d %H:%M')} local time"
        return text if self.reason is None else f"{text}: {self.reason}"


def pause(directory: Path, *, for_s: float | None = None, reason: str | None = None) -> None:
    """Stop the deliveries from a log, until `resume()` or for a time. Replaces an earlier pause.

    Args:
        directory: The log's.
        for_s: Seconds; None for no end.
        reason: Words for whoever wonders; cut to 500 characters.

    Raises:
        OSError: The file cannot be written; an earlier pause still holds.
    """
    now = EventLog.now()
    note = {
        "since": _iso(now.wall_ns),
        "until": None if for_s is None else _iso(now.wall_ns + int(for_s * 1e9)),
        "reason": None if reason is None else reason[:REASON_LENGTH_MAX],
        "boot": now.boot,
        "until_mono_ns": None if for_s is None else now.mono_ns + int(for_s * 1e9),
    }
    new = directory / f"{FILE_NAME}.new-{os.getpid()}"
    try:
        _write(new, json.dumps(note).encode() + b"\n", directory)
        new.replace(directory / FILE_NAME)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    _sync(directory)


def resume(directory: Path) -> bool:
    """Let the deliveries from a log go on.

    Returns:
        Whether there was a pause to end.

    Raises:
        OSError: The file cannot be removed.
    """
    held = read_pause(directory) is not None
    (directory / FILE_NAME).unlink(missing_ok=True)
    _sync(directory)
    return held


def read_pause(directory: Path) -> Pause | None:
    """Return the pause that holds now, or None."""
    try:
        data = (directory / FILE_NAME).read_bytes()
    except FileNotFoundError:
        return None
    except OSError:
        return Pause(None, None, f"{directory / FILE_NAME} is there and cannot be read")
    try:
        note = json.loads(data)
        since = datetime.fromisoformat(note["since"])
        reason = note["reason"] if isinstance(note["reason"], str) else None
        if note["until"] is None:
            return Pause(since, None, reason)
        now = EventLog.now()
        if note["boot"] == now.boot:
            left_s = (note["until_mono_ns"] - now.mono_ns) / 1e9
        else:
            left_s = datetime.fromisoformat(note["until"]).timestamp() - now.wall_ns / 1e9
    except (ValueError, KeyError, TypeError):
        return Pause(None, None, None)
    return Pause(since, left_s, reason) if left_s > 0 else None


def _iso(wall_ns: int) -> str:
    return datetime.fromtimestamp(wall_ns // 10**9, UTC).isoformat()


def _write(path: Path, data: bytes, directory: Path) -> None:
    # Not O_EXCL: a power cut may have left one, and after a reboot process ids come again.
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        if os.geteuid() == 0:
            # An administrator pauses, the service has to read it.
            owner = directory.stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        os.write(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync(directory: Path) -> None:
    """Make names that came or went in a directory survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
