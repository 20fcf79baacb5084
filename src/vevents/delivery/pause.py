"""The pause switch: a small file in the log's directory that every delivery looks for.

Beside it lies, of the same form, how long the server wants to be left alone: so hooks and an agent
that was started anew keep to it as well. What cannot be read of that one counts as no wait.

It holds one JSON object for people and for us. It outlives reboots, and it is either there in full
or not at all. What cannot be read counts as a pause without an end: somebody wanted silence, and
silence loses nothing. So an empty file made by hand is a switch as well.

Within the boot in which the pause was made its end is measured by a clock that nobody sets; after a
reboot there is only the wall clock.
"""

from __future__ import annotations

import errno
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vevents.files import has_inodes, open_lock, replaced, sync_directory
from vevents.log import EventLog

FILE_NAME = "paused"
NOT_BEFORE_NAME = "not-before"
REASON_LENGTH_MAX = 500
# A proxy can ask for any number of seconds; after a day it is time to ask again.
_WAIT_S_MAX = 86_400.0
# Of a longer pause the end could not be written as a date.
_PAUSE_S_MAX = 100 * 365.25 * 86_400
# What a damaged note leads to; it may hold numbers and brackets of any size.
_NOT_UNDERSTOOD = (ValueError, KeyError, TypeError, OverflowError, RecursionError)


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

    On a full disk a pause without an end is an empty file, which takes no room; its reason is lost.

    Args:
        directory: The log's.
        for_s: Seconds, a century at most; None for no end.
        reason: Words for whoever wonders; cut to 500 characters.

    Raises:
        OSError: The file cannot be written; an earlier pause still holds.
    """
    path = directory / FILE_NAME
    try:
        _write(path, _note(None if for_s is None else min(for_s, _PAUSE_S_MAX), reason))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not has_inodes(directory):
            raise
        if for_s is not None:
            words = f"{error.strerror}; a pause without an end takes no room"
            raise OSError(error.errno, words, error.filename) from None
        descriptor = open_lock(path)
        try:
            os.ftruncate(descriptor, 0)
        finally:
            os.close(descriptor)
        sync_directory(directory)


def hold_back(directory: Path, for_s: float) -> None:
    """Note that the server wants no request for a time, a day at most.

    Raises:
        OSError: The file cannot be written.
    """
    for_s = min(for_s, _WAIT_S_MAX)
    _write(directory / NOT_BEFORE_NAME, _note(for_s, "the server asked to wait"))


def end_hold(directory: Path) -> None:
    """Forget the server's wish: it takes requests again."""
    (directory / NOT_BEFORE_NAME).unlink(missing_ok=True)


def held_back_s(directory: Path) -> float | None:
    """Return for how many seconds the server still wants to be left alone, or None."""
    try:
        note = json.loads((directory / NOT_BEFORE_NAME).read_bytes())
        left_s = _left_s(note)
    except (OSError, *_NOT_UNDERSTOOD):
        return None
    # More than was ever asked for: the clock was set back, and tells nothing.
    return left_s if 0 < left_s <= _WAIT_S_MAX else None


def resume(directory: Path) -> bool:
    """Let the deliveries from a log go on.

    Returns:
        Whether there was a pause to end.

    Raises:
        OSError: The file cannot be removed.
    """
    held = read_pause(directory) is not None
    (directory / FILE_NAME).unlink(missing_ok=True)
    sync_directory(directory)
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
        left_s = _left_s(note)
        if left_s > 2 * _PAUSE_S_MAX:
            return Pause(None, None, None)
    except _NOT_UNDERSTOOD:
        return Pause(None, None, None)
    return Pause(since, left_s, reason) if left_s > 0 else None


def _iso(wall_ns: int) -> str:
    return datetime.fromtimestamp(wall_ns // 10**9, UTC).isoformat()


def _note(for_s: float | None, reason: str | None) -> dict[str, Any]:
    now = EventLog.now()
    return {
        "since": _iso(now.wall_ns),
        "until": None if for_s is None else _iso(now.wall_ns + int(for_s * 1e9)),
        "reason": None if reason is None else reason[:REASON_LENGTH_MAX],
        "boot": now.boot,
        "until_mono_ns": None if for_s is None else now.mono_ns + int(for_s * 1e9),
    }


def _left_s(note: dict[str, Any]) -> float:
    now = EventLog.now()
    if note["boot"] == now.boot:
        return float(note["until_mono_ns"] - now.mono_ns) / 1e9
    return datetime.fromisoformat(note["until"]).timestamp() - now.wall_ns / 1e9


def _write(path: Path, note: dict[str, Any]) -> None:
    with replaced(path) as file:
        file.write(json.dumps(note) + "\n")
