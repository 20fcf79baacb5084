"""Where the blocks of this process write to: one open log, and the cooldowns in front of it."""

from __future__ import annotations

import atexit
import contextlib
import logging
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from vevents import forks
from vevents.errors import LogDegradedError, VeventsError
from vevents.event import Event
from vevents.log import EventLog, Receipt
from vevents.settings import resolve
from vevents.workflows.candidate import Candidate, with_counts, with_sound_time
from vevents.workflows.cooldown import Cooldown, Kept

# Cooldowns that do nothing any more are dropped when there are so many.
_STREAMS_MAX: Final = 256
# A log that could not be opened is not tried again before.
_REOPEN_S: Final = 5.0
_COMPLAIN_S: Final = 10.0
_WAIT_MAX_S: Final = 86_400.0

_LOGGER = logging.getLogger(__name__)

StartTimer = Callable[[float, Callable[[], None]], object]


class Clockwork(NamedTuple):
    """Time, as far as a gate needs it; tests bring their own.

    Attributes:
        monotonic_s: Seconds of a clock that never goes back.
        start_timer: Calls a function once, so many seconds later, on another thread.
    """

    monotonic_s: Callable[[], float]
    start_timer: StartTimer


def _start_timer(delay_s: float, call: Callable[[], None]) -> threading.Timer:
    timer = threading.Timer(delay_s, call)
    # The program's end does not wait for it: `_finish` writes what is held.
    timer.daemon = True
    timer.start()
    return timer


CLOCKWORK: Final = Clockwork(time.monotonic, _start_timer)


class Outlet:
    """A log that is opened when first needed, for all blocks of a process.

    Args:
        source: An open log, which stays open, or a function that opens it. One that fails is
            asked again, at most every five seconds, so that a disk that was full, or failed,
            does not stop the blocks for good.
        clockwork: Time.
    """

    def __init__(
        self, source: EventLog | Callable[[], EventLog], clockwork: Clockwork = CLOCKWORK
    ) -> None:
        self._open = None if isinstance(source, EventLog) else source
        self._log = source if isinstance(source, EventLog) else None
        self._clockwork = clockwork
        self._lock = threading.Lock()
        self._failure: tuple[float, Exception] | None = None
        self._complained_s: float | None = None
        self._gates: weakref.WeakSet[Gate] = weakref.WeakSet()
        _OUTLETS.add(self)
        forks.call_in_children(self.forget)

    def gate(self) -> Gate:
        """Return cooldowns of their own, for one block."""
        gate = Gate(self, self._clockwork)
        self._gates.add(gate)
        return gate

    def write(self, event: Event) -> Receipt:
        """Append an event.

        Raises:
            VeventsError, OSError: As for `EventLog.append`, or the log cannot be opened.
        """
        log = self._opened()
        now = log.now()
        try:
            return log.append(with_sound_time(event, now.wall_ns, clock_is_sound=now.synced))
        except LogDegradedError as error:
            self._open_anew(log, error)
            raise

    def complain(self, message: str) -> None:
        """Say what went wrong, at most every ten seconds: nobody looks at a sink's outputs."""
        now_s = self._clockwork.monotonic_s()
        if self._complained_s is None or now_s - self._complained_s >= _COMPLAIN_S:
            self._complained_s = now_s
            _LOGGER.warning("%s", message)

    def finish(self) -> None:
        """Write what the cooldowns hold, for good; at the end of the program.

        The log stays open: another thread may be inside it, and closing adds nothing to a sync.
        """
        for gate in list(self._gates):
            gate.flush()
        if self._open is None or self._log is None:
            return
        try:
            self._log.sync()
        except (VeventsError, OSError) as error:
            self.complain(f"the log was not synced: {type(error).__name__}: {error}")

    def forget(self) -> None:
        """In the child of a fork: what is held is the parent's to write."""
        self._lock = threading.Lock()
        for gate in list(self._gates):
            gate.forget()

    def _opened(self) -> EventLog:
        if self._log is not None:
            return self._log
        with self._lock:
            if self._log is not None:
                return self._log
            assert self._open is not None
            now_s = self._clockwork.monotonic_s()
            if self._failure is not None and now_s < self._failure[0] + _REOPEN_S:
                raise self._failure[1].with_traceback(None)
            try:
                self._log = self._open()
            except (VeventsError, OSError) as error:
                self._failure = (now_s, error)
                raise
            return self._log

    def _open_anew(self, log: EventLog, error: Exception) -> None:
        """Let go of a log that takes nothing more; the next one may be on a good disk."""
        with self._lock:
            if self._open is None or self._log is not log:
                return
            self._log = None
            self._failure = (self._clockwork.monotonic_s(), error)
        # Its disk failed: what closing says of that is no news.
        with contextlib.suppress(VeventsError, OSError):
            log.close()


class Gate:
    """The cooldowns of one block, one for each stream. Any number of threads may submit."""

    def __init__(self, outlet: Outlet, clockwork: Clockwork) -> None:
        self._outlet = outlet
        self._clockwork = clockwork
        self.forget()

    def forget(self) -> None:
        """Drop everything held and counted."""
        self._lock = threading.Lock()
        self._streams: dict[str, Cooldown[Event]] = {}
        self._timed: set[str] = set()

    def submit(self, candidate: Candidate, cooldown_s: float) -> Receipt | None:
        """Write an event, or hold or count it while the cooldown lasts.

        Args:
            candidate: The event.
            cooldown_s: Seconds between two events of one stream; 0 writes all.

        Returns:
            The receipt; None: held or counted.

        Raises:
            EventValidationError: The event or its images break the contract; it counts as never
                submitted.
            VeventsError, OSError: It could not be written; the next one that is says so.
        """
        stream, kind, importance = candidate.stream, candidate.kind, candidate.importance
        with self._lock:
            now_s = self._clockwork.monotonic_s()
            cooldown = self._cooldown(stream, now_s)
            self._write_held(cooldown, cooldown.release(now_s, cooldown_s))
            if not cooldown.keeps(importance, now_s):
                cooldown.count(kind)
                return None
            event = candidate.complete(EventLog.now().wall_ns)
            kept = cooldown.offer(event, kind, importance, now_s)
            if kept is None:
                self._start_timer(stream, cooldown, now_s)
                return None
            try:
                return self._outlet.write(with_counts(kept.item, kept.counts))
            except BaseException:
                cooldown.give_back(kept)
                raise

    def flush(self) -> None:
        """Write what is held, without waiting for the windows to end."""
        with self._lock:
            now_s = self._clockwork.monotonic_s()
            for cooldown in self._streams.values():
                self._write_held(cooldown, cooldown.drain(now_s))

    def _cooldown(self, stream: str, now_s: float) -> Cooldown[Event]:
        cooldown = self._streams.get(stream)
        if cooldown is None:
            if len(self._streams) >= _STREAMS_MAX:
                self._streams = {
                    name: one for name, one in self._streams.items() if not one.is_idle(now_s)
                }
            cooldown = self._streams[stream] = Cooldown()
        return cooldown

    def _write_held(self, cooldown: Cooldown[Event], kept: Kept[Event] | None) -> None:
        if kept is None:
            return
        try:
            self._outlet.write(with_counts(kept.item, kept.counts))
        except Exception as error:
            # Nobody waits for this one. Its count goes with the next that is written.
            cooldown.give_back(kept)
            self._outlet.complain(
                f"an event held by the cooldown was not written: {type(error).__name__}: {error}"
            )

    def _start_timer(self, stream: str, cooldown: Cooldown[Event], now_s: float) -> None:
        if cooldown.due_s is None or stream in self._timed:
            return
        self._timed.add(stream)
        delay_s = min(max(0.0, cooldown.due_s - now_s), _WAIT_MAX_S)
        self._clockwork.start_timer(delay_s, lambda: self._on_time(stream))

    def _on_time(self, stream: str) -> None:
        with self._lock:
            self._timed.discard(stream)
            cooldown = self._streams.get(stream)
            if cooldown is None:
                return
            now_s = self._clockwork.monotonic_s()
            self._write_held(cooldown, cooldown.release(now_s))
            # The window may have become longer, or be another one by now.
            self._start_timer(stream, cooldown, now_s)


_OUTLETS: weakref.WeakSet[Outlet] = weakref.WeakSet()
_BY_DIRECTORY: dict[Path, Outlet] = {}
_BY_DIRECTORY_LOCK = threading.Lock()


def outlet_of_settings() -> Outlet:
    """Return the outlet into the log that the environment or vevents.toml names.

    The blocks of all workflows of a process share it; it stays until the process ends.

    Raises:
        ConfigurationError: A setting is wrong, or none says where the log is.
    """
    settings = resolve()
    directory = settings.require_directory().absolute()
    with _BY_DIRECTORY_LOCK:
        if directory not in _BY_DIRECTORY:
            _BY_DIRECTORY[directory] = Outlet(
                lambda: EventLog(settings.require_directory(), **settings.log_options())
            )
        return _BY_DIRECTORY[directory]


@atexit.register
def _finish() -> None:
    for outlet in list(_OUTLETS):
        outlet.finish()
