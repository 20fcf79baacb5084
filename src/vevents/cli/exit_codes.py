"""What the exit code of `vevents` says. The numbers are part of the interface."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of every subcommand."""

    OK = 0
    ERROR = 1
    """Unexpected error, or the log's disk failed."""
    USAGE = 2
    """Wrong usage, or a setting is missing or wrong."""
    TRY_LATER = 3
    """The API is not reachable, overloaded or failing. Nothing is lost."""
    UNAUTHORIZED = 4
    """The API does not accept the key."""
    REJECTED = 5
    """Some events were refused: set aside by `flush`, not written by `append`."""
    LOCKED = 6
    """Another flush of the same log is running."""
    LIMIT = 7
    """A limit was reached and events are left."""
    DAMAGED = 8
    """`verify`, `recover`: some records are damaged; the others are good."""
    UNUSABLE = 9
    """`verify`, `recover`: a file is no ring, or not one that can be read."""
    HELD = 10
    """Not now: delivery is paused, or it is outside the time windows. Nothing is lost."""
    ATTENTION = 11
    """`status --check`: something needs attention."""
    HUNG_UP = 129
    """Stopped by SIGHUP. Nothing is lost."""
    INTERRUPTED = 130
    """Stopped with Ctrl-C. Nothing is lost."""
    TERMINATED = 143
    """Stopped by SIGTERM. Nothing is lost."""
