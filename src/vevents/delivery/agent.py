"""Delivers for as long as it runs: waits for events and for the network, and makes passes.

The main thread waits, listens and decides (`vevents.delivery.planner` says when); each pass runs in
a thread of its own. A request cannot be interrupted from outside, and a name that does not resolve
holds its thread for half a minute, but a signal is to be obeyed at once: so the main thread asks
the pass to stop, waits a moment, and leaves it behind if it must. Nothing is lost by that, since
nothing is marked delivered before the server said so.

Nothing that goes wrong ends the agent: a log that cannot be opened is tried again, a disk that
fails is reported and the log opened anew, and settings that make no sense are reported and the old
ones kept.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vevents.codec import KIND_OF
from vevents.delivery.network import NetworkWatch
from vevents.delivery.planner import Planner, Rhythm, Why
from vevents.delivery.schedule import Gate
from vevents.delivery.sdnotify import ServiceManager
from vevents.delivery.sender import StopError, StopReason, Time
from vevents.delivery.setup import make_client, make_flusher
from vevents.errors import ConfigurationError, FlushLockedError, LogError, VeventsError
from vevents.event import EventType
from vevents.files import held_lock, is_there

if TYPE_CHECKING:
    from vevents.delivery.client import Client
    from vevents.delivery.flusher import Flusher
    from vevents.delivery.report import FlushProgress, FlushReport
    from vevents.log import EventLog
    from vevents.settings import Settings

_LOGGER = logging.getLogger(__name__)

_LOCK_NAME = "agent.lock"
# How often the log is asked for new events: 20 µs of work each time.
_POLL_S = 0.5
_POLL_COUNT_MAX = 256
# How often all of the log's figures are added up, and its files looked at.
_SURVEY_S = 60.0
_STATUS_S = 1.0
_REOPEN_S_MIN, _REOPEN_S_MAX = 1.0, 30.0
# A pass that is told to stop may finish its request if that takes no longer.
_GRACE_S = 1.0
# The largest image on the slowest useful link takes this long; a pass that shows no sign of life
# for longer hangs, and the watchdog may end the agent.
_STALL_S = 1_800.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_URGENT_KINDS = frozenset({KIND_OF[EventType.SAFETY_ALERT]})
_LOG_TROUBLE = "log: "
_STALLED = "stalled"
_TROUBLES: list[str] = [why for why in Why if why is not Why.LOCKED]
_WORDS = {
    Why.START: "starting",
    Why.RECONNECTED: "network changed",
    Why.ALLOWED: "delivery allowed again",
    Why.OFFLINE: "offline",
    Why.SERVER: "server in trouble",
    Why.THROTTLED: "server asks to wait",
    Why.UNAUTHORIZED: "key not accepted",
    Why.SETTINGS: "a setting is missing or wrong",
    Why.NO_USE_CASE: "events without a use case",
    Why.LOCKED: "another flush is running",
    Why.FAILED: "disk or log in trouble",
}


@dataclass(slots=True)
class _Totals:
    """What the agent did since it began; see `FlushReport` for what is counted."""

    delivered: int = 0
    rejected: int = 0
    delivered_at_s: float | None = None

    def add(self, report: FlushReport, now_s: float) -> None:
        """Count one pass that ended at `now_s`, seconds since 1970."""
        self.delivered += report.delivered
        self.rejected += report.rejected
        if report.delivered:
            self.delivered_at_s = now_s


@dataclass(slots=True)
class _Open:
    """The log while it is open, and what belongs to it."""

    log: EventLog
    closing: contextlib.ExitStack
    gate: Gate
    identity: tuple[int, int]
    next_seq: int  # what is older is known
    pending: int
    surveyed_s: float


class Agent:
    """Delivers what a log holds and what is appended to it, until it is told to stop.

    Args:
        load_settings: Gathers the settings; called at the start and for every reload.
        open_log: Opens the log of the settings for writing, and never creates one.
        manager: The service manager to report to; the one of the environment if None.
        time: Where time and chance come from.

    Example:
        >>> Agent(load, open_log).run()  # doctest: +SKIP
        True
    """

    def __init__(
        self,
        load_settings: Callable[[], Settings],
        open_log: Callable[[Settings], EventLog],
        *,
        manager: ServiceManager | None = None,
        time: Time | None = None,
    ) -> None:
        self._load_settings = load_settings
        self._open_log = open_log
        self._manager = ServiceManager() if manager is None else manager
        self._time = Time() if time is None else time
        self._settings = load_settings()
        self._planner = Planner(_rhythm_of(self._settings), self._time.draw)
        self._totals = _Totals()
        self._opened: _Open | None = None
        self._reopen_s = 0.0
        self._reopen_wait_s = _REOPEN_S_MIN
        self._client: Client | None = None
        self._flusher: Flusher | None = None
        self._held: StopError | None = None
        self._pass: threading.Thread | None = None
        self._outcome: FlushReport | BaseException | None = None
        self._done = threading.Event()
        self._stop_pass = threading.Event()
        self._wake: Callable[[], None] = lambda: None
        self._progress_s = 0.0
        self._stop = False
        self._reload = False
        self._said: set[str] = set()  # troubles that were reported and are not over
        self._status = ""
        self._status_s = 0.0
        self._alive_s = 0.0

    def run(self) -> bool:
        """Deliver until SIGTERM or SIGINT. Call it from the main thread, once.

        SIGHUP reads the settings again, SIGUSR1 makes a pass now, and SIGUSR2 is for hooks that
        learn of the network from somebody else than the kernel.

        Returns:
            Whether the last pass had ended. If not, a thread still waits for the network, and the
            process is to end by `os._exit()`.

        Raises:
            FlushLockedError: Another agent delivers this log.
            ConfigurationError: No source says where the log is.
        """
        directory = self._settings.require_directory()
        with (
            contextlib.closing(NetworkWatch()) as network,
            _wakeups() as (ears, mouth),
            selectors.DefaultSelector() as selector,
        ):
            self._wake = partial(_poke, mouth)
            selector.register(ears, selectors.EVENT_READ)
            self._open(first=True)
            self._manager.ready()
            _LOGGER.info("delivering %s to %s", directory, self._settings.api_url)
            self._planner.started(self._now())
            while not self._stop:
                self._turn()
                selector.select(self._idle_s())
                for number in _heard(ears):
                    self._handle_signal(number)
                if network.read():
                    self._planner.network_changed(self._now())
            return self._finish()

    # --- one turn ------------------------------------------------------------------------------

    def _turn(self) -> None:
        now_s = self._now()
        if self._done.is_set():
            self._end_pass()
        if self._pass is None and self._reload:
            self._take_new_settings()
        if self._opened is None and now_s >= self._reopen_s:
            self._open()
        if self._opened is not None:
            try:
                self._mind_gate(self._opened.gate)
                self._look(self._opened)
            except (VeventsError, OSError) as error:
                self._lose_log(error)
        due_s = self._planner.due_s()
        if (
            self._opened is not None
            and self._held is None
            and self._pass is None
            and due_s is not None
            and self._now() >= due_s
        ):
            self._begin_pass(self._opened)
        self._tell_manager()

    def _idle_s(self) -> float:
        """How long nothing needs to be done unless something happens."""
        due_s = self._planner.due_s()
        if self._opened is None or self._held or self._pass is not None or due_s is None:
            return _POLL_S
        return min(_POLL_S, max(0.0, due_s - self._now()))

    def _handle_signal(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._stop = True
        elif number == signal.SIGHUP:
            self._reload = True
            self._stop_pass.set()
        elif number == signal.SIGUSR1:
            if self._held is not None:
                _LOGGER.warning("no pass now: %s", self._held)
            elif not self._planner.asked(self._now()):
                _LOGGER.warning("no pass now: the server asked to wait")
        elif number == signal.SIGUSR2:
            self._planner.network_changed(self._now())

    # --- the log -------------------------------------------------------------------------------

    def _open(self, *, first: bool = False) -> None:
        try:
            self._opened = self._opening(self._settings)
        except FlushLockedError:
            # At the start it is a mistake; later the directory was replaced, and sorts itself out.
            if first:
                raise
            self._lose_log(FlushLockedError("another agent is delivering this log"))
        except (VeventsError, OSError) as error:
            self._lose_log(error)
        else:
            if self._opened.pending:
                self._planner.saw_leftovers(self._now())

    def _opening(self, settings: Settings) -> _Open:
        directory = settings.require_directory()
        file = directory / "events.ring"
        if not is_there(file):
            raise LogError(f"there is no log in {directory} yet; waiting for what appends to it")
        # Before it is opened: a file that takes its place from now on is noticed.
        identity = _identity(file)
        gate = Gate(directory, settings.windows, clock=self._time.clock)
        with contextlib.ExitStack() as stack:
            stack.enter_context(_lock(directory))
            log = stack.enter_context(self._open_log(settings))
            stats = log.stats("events")
            return _Open(
                log,
                stack.pop_all(),
                gate,
                identity,
                stats.last_seq + 1,
                stats.pending,
                self._now(),
            )

    def _lose_log(self, error: Exception) -> None:
        """Close the log, if it is open, and plan to open it again."""
        self._say(f"{_LOG_TROUBLE}{error}", logging.ERROR, "the log: %s; trying again", error)
        self._reopen_s = self._now() + self._reopen_wait_s
        self._reopen_wait_s = min(2 * self._reopen_wait_s, _REOPEN_S_MAX)
        self._stop_pass.set()
        if self._pass is None:
            self._close_log()

    def _close_log(self) -> None:
        self._flusher = None
        opened, self._opened = self._opened, None
        if opened is not None:
            try:
                opened.closing.close()
            except (VeventsError, OSError) as error:
                _LOGGER.error("closing the log: %s", error)

    def _mind_gate(self, gate: Gate) -> None:
        """See whether delivery may run. A pass that is under way asks by itself."""
        closed = gate.closed()
        if closed is not None and (self._held is None or self._held.reason is not closed.reason):
            # A window closes every day; somebody who paused may have forgotten it.
            level = logging.WARNING if closed.reason is StopReason.PAUSED else logging.INFO
            _LOGGER.log(level, "no delivery for now: %s", closed)
        elif closed is None and self._held is not None:
            self._planner.allowed_again(self._now())
            _LOGGER.info("delivery may go on")
        self._held = closed

    def _look(self, opened: _Open) -> None:
        """See what was appended since the last look."""
        records, next_seq = opened.log.read_batch(
            "events", opened.next_seq, ("pending",), _POLL_COUNT_MAX
        )
        opened.next_seq = next_seq
        now_s = self._now()
        if records:
            urgent = any(record.kind in _URGENT_KINDS for record in records)
            opened.pending += len(records)
            self._planner.saw_fresh(now_s, len(records), urgent=urgent)
        if now_s - opened.surveyed_s >= _SURVEY_S and self._pass is None:
            self._survey(opened, now_s)

    def _survey(self, opened: _Open, now_s: float) -> None:
        """See what looking at the newest events cannot show."""
        file = opened.log.directory / "events.ring"
        if _identity(file) != opened.identity:
            raise LogError(f"{file} was replaced")
        stats = opened.log.stats("events")
        opened.pending = stats.pending
        opened.surveyed_s = now_s
        if stats.degraded:
            self._say(
                f"degraded: {stats.degraded}",
                logging.ERROR,
                "the log's disk failed (%s); it takes no more appends",
                os.strerror(stats.degraded),
            )
        copy = opened.log.copy
        if copy is not None and copy.error is not None:
            self._say(
                f"copy: {copy.error}",
                logging.ERROR,
                "the log's copy in %s is not up to date: %s",
                copy.directory,
                copy.error,
            )
        elif self._is_over("copy: "):
            _LOGGER.warning("the log's copy is up to date again")
        if stats.pending:
            self._planner.saw_leftovers(now_s)
        self._trust_log()

    def _trust_log(self) -> None:
        """Note that the log works; that it could be opened says little about its disk."""
        self._reopen_wait_s = _REOPEN_S_MIN
        if self._is_over(_LOG_TROUBLE):
            _LOGGER.warning("the log can be used again")

    # --- passes --------------------------------------------------------------------------------

    def _begin_pass(self, opened: _Open) -> None:
        try:
            stats = opened.log.stats("events")
        except (VeventsError, OSError) as error:
            self._lose_log(error)
            return
        opened.pending = stats.pending
        if not stats.pending:
            self._planner.saw_nothing_pending()
            return
        opened.next_seq = max(opened.next_seq, stats.last_seq + 1)
        self._planner.began()
        self._stop_pass.clear()
        self._progress_s = self._now()
        # A daemon, because the process must be able to end without it.
        thread = threading.Thread(
            target=self._deliver, args=(opened.log,), name="vevents-pass", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:
            # No more threads, or no memory for one: others may end.
            self._planner.failed(self._now())
            self._say_trouble(Why.FAILED, logging.ERROR, str(error))
        else:
            self._pass = thread

    def _deliver(self, log: EventLog) -> None:
        """Make one pass; the only method that runs in a thread of its own."""
        try:
            if self._flusher is None:
                if self._client is None:
                    self._client = make_client(self._settings)
                # What is urgent must not wait until a backlog of days has gone.
                settings = replace(self._settings, live_first=True)
                self._flusher = make_flusher(settings, log, self._client)
            self._outcome = self._flusher.flush(
                should_stop=self._should_stop, progress=self._note_progress
            )
        except BaseException as error:
            self._outcome = error
        self._done.set()
        self._wake()

    def _should_stop(self) -> bool:
        self._progress_s = self._now()
        return self._stop_pass.is_set()

    def _note_progress(self, _: FlushProgress) -> None:
        self._progress_s = self._now()

    def _end_pass(self) -> None:
        assert self._pass is not None
        self._pass.join()
        self._pass = None
        self._done.clear()
        self._is_over(_STALLED)
        outcome, self._outcome = self._outcome, None
        now_s = self._now()
        match outcome:
            case FlushLockedError():
                self._planner.found_lock(now_s)
                self._say(Why.LOCKED, logging.INFO, "%s; waiting for it", outcome)
            case ConfigurationError():
                self._planner.lacks_setting(now_s)
                self._say_trouble(Why.SETTINGS, logging.ERROR, str(outcome))
            case LogError() | OSError():
                self._planner.failed(now_s)
                self._lose_log(outcome)
            case BaseException():
                self._planner.failed(now_s)
                text = f"unexpected error: {type(outcome).__name__}: {outcome}"
                self._say_trouble(Why.FAILED, logging.ERROR, text)
                _LOGGER.debug("unexpected error", exc_info=outcome)
            case report:
                assert report is not None
                self._totals.add(report, self._time.clock())
                self._planner.ended(now_s, report)
                if self._opened is not None:
                    self._opened.pending = report.pending_after
                self._trust_log()
                self._say_report(report)
        if self._reopen_s > now_s and self._opened is not None:
            self._close_log()

    def _take_new_settings(self) -> None:
        self._reload = False
        self._manager.reloading()
        try:
            settings = self._load_settings()
            settings.require_directory()
        except Exception as error:  # whatever it is, what ran before goes on
            _LOGGER.error("the new settings make no sense, the old ones stay: %s", error)
        else:
            _LOGGER.info("new settings taken")
            self._settings = settings
            self._close_log()
            self._close_client()
            self._reopen_s = 0.0
        self._said.clear()
        self._planner.reloaded(self._now(), _rhythm_of(self._settings))
        self._manager.ready()

    def _close_client(self) -> None:
        self._flusher = None
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _finish(self) -> bool:
        """Wait a moment for the pass, then close what can be closed."""
        self._manager.stopping()
        self._stop_pass.set()
        if self._pass is not None:
            self._pass.join(_GRACE_S)
            if self._pass.is_alive():
                _LOGGER.info("stopped in the middle of a request; it will be repeated")
                return False
            self._end_pass()
        self._close_client()
        self._close_log()
        _LOGGER.info("stopped; %s", self._figures())
        return True

    # --- what is told --------------------------------------------------------------------------

    def _say_report(self, report: FlushReport) -> None:
        if report.rejected:
            _LOGGER.warning(
                "%d events were refused and set aside; see vevents status", report.rejected
            )
        self._is_over(Why.LOCKED)
        if report.stopped_reason in _TROUBLES and report.message is not None:
            why = Why(report.stopped_reason)
            level = logging.ERROR if why is Why.UNAUTHORIZED else logging.WARNING
            self._say_trouble(why, level, report.message)
        elif report.stopped_reason is None and self._is_over(*_TROUBLES):
            _LOGGER.warning("delivery works again; %s", self._figures())
        _LOGGER.log(
            logging.INFO if report.delivered or report.images_delivered else logging.DEBUG,
            "%d events and %d images delivered, %d pending",
            report.delivered,
            report.images_delivered,
            report.pending_after,
        )

    def _say_trouble(self, why: Why, level: int, text: str) -> None:
        hint = ""
        if why in (Why.UNAUTHORIZED, Why.SETTINGS, Why.NO_USE_CASE):
            hint = "; then send SIGHUP (systemctl reload), or restart if it is in the environment"
        self._say(why, level, "%s%s", text, hint)

    def _say(self, about: str, level: int, message: str, *arguments: object) -> None:
        """Report trouble once, not every time that it is met again."""
        if about not in self._said:
            self._said.add(about)
            _LOGGER.log(level, message, *arguments)
        else:
            _LOGGER.debug(message, *arguments)

    def _is_over(self, *abouts: str) -> bool:
        """Forget troubles whose names begin so. Returns whether there were any."""
        over = {said for said in self._said if said.startswith(abouts)}
        self._said -= over
        return bool(over)

    def _figures(self) -> str:
        totals = self._totals
        parts = [f"{totals.delivered} events delivered"]
        if totals.rejected:
            parts.append(f"{totals.rejected} set aside")
        if self._opened is not None:
            parts.insert(0, f"{self._opened.pending} pending")
        if totals.delivered_at_s is not None:
            parts.append(f"last at {_wall(totals.delivered_at_s)}")
        return ", ".join(parts)

    def _tell_manager(self) -> None:
        now_s = self._now()
        if now_s - self._status_s >= _STATUS_S:
            status = f"{self._state(now_s)}; {self._figures()}"
            if status != self._status:
                self._manager.status(status)
                self._status, self._status_s = status, now_s
        every_s = self._manager.watchdog_s
        if every_s is not None and now_s - self._alive_s >= every_s / 2 - _POLL_S:
            if self._pass is None or now_s - self._progress_s < _STALL_S:
                self._manager.alive()
                self._alive_s = now_s
            else:
                self._say(_STALLED, logging.ERROR, "a request hangs; no sign of life any more")

    def _state(self, now_s: float) -> str:
        if self._opened is None:
            return "waiting for the log"
        if self._held is not None:
            return str(self._held)
        if self._pass is not None:
            return "delivering"
        wait = self._planner.wait
        if wait is None:
            return "waiting for events"
        next_s = self._time.clock() + max(0.0, wait.until_s - now_s)
        return f"{_WORDS[wait.why]}, next try at {_wall(next_s)}"

    def _now(self) -> float:
        return self._time.monotonic()


def _rhythm_of(settings: Settings) -> Rhythm:
    return Rhythm(interval_s=settings.agent_interval_s, spread_s=settings.agent_spread_s)


def _wall(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%H:%M:%S")


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


@contextmanager
def _lock(directory: Path) -> Iterator[None]:
    """Hold the log's agent lock. The system takes it back when the process dies."""
    message = f"another agent is delivering {directory}; it holds {_LOCK_NAME}"
    with held_lock(directory / _LOCK_NAME, lambda: FlushLockedError(message)):
        yield


@contextmanager
def _wakeups() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Turn signals into bytes on a socket, so that waiting for them is like waiting for the rest.

    Yields:
        The end to read from, and the end that a thread may write a zero to.
    """
    ears, mouth = socket.socketpair()
    with ears, mouth:
        ears.setblocking(False)
        mouth.setblocking(False)
        # First, since a signal between the two would be heard by nobody.
        descriptor = signal.set_wakeup_fd(mouth.fileno(), warn_on_full_buffer=False)
        before = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
        try:
            yield ears, mouth
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(descriptor)


def _poke(mouth: socket.socket) -> None:
    # Closed: the agent ends without this thread. Full: it will wake up as it is.
    with contextlib.suppress(OSError):
        mouth.send(b"\0")


def _heard(ears: socket.socket) -> Iterator[int]:
    """Yield the numbers of the signals that came; 0 is a thread's call."""
    try:
        yield from ears.recv(4096)
    except BlockingIOError:
        return
