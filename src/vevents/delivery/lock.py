"""The lock that a flush of a log holds, and whoever else must not run beside one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vevents.errors import FlushLockedError
from vevents.files import held_lock

_NAME = "flush.lock"


@contextmanager
def flush_lock(directory: Path, try_again: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Hold the log's flush lock. The system takes it back when the process dies.

    Args:
        directory: Of the log.
        try_again: Called when another process holds it: waits a moment and returns True, or False
            to give up.

    Raises:
        FlushLockedError: Another process holds it.
    """
    message = f"another flush of {directory} is running; it holds {_NAME}"
    with held_lock(directory / _NAME, lambda: FlushLockedError(message), try_again):
        yield
