"""When the agent makes its next pass: the decisions alone, without a clock, a socket or a thread.

Two things make a pass due. Fresh events do, after a delay in which more of them gather, or at once
when they are many or urgent. And a wait that runs out does: every pass that did not end well is
followed by one, and while it lasts it holds fresh events up as well.

    offline              1 s doubling to 5 min, a random part of it; cut short by network news
    server in trouble    the same; nothing cuts it short
    slow down, try later as long as the server asks, to the second
    key not accepted     15 min; until then only new settings help
    another flush, pause some seconds; who waits knows by other ways when that is over
    disk or log          as offline

Whatever lets many devices begin together (power is back, the network is back, a window opens) is
followed by a random wait, so that they do not arrive together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from vevents.delivery.sender import StopReason

if TYPE_CHECKING:
    from vevents.delivery.report import FlushReport

_WAIT_S_MIN = 1.0
_WAIT_S_MAX = 300.0
_UNAUTHORIZED_WAIT_S = 900.0
# A proxy can ask for any number of seconds; after a day it is time to ask again.
_ASKED_WAIT_S_MAX = 86_400.0
_LOCKED_WAIT_S = 3.0
# During a wait that nobody asked for, an urgent event may try this long after the last pass...
_URGENT_GAP_S = 10.0
# ... and any other, if the trouble may have been with the older events only.
_FRESH_GAP_S = 60.0
# Looking through everything that stays behind must not become what the processor does.
_REST_PER_PASS = 10.0
# A cable with a loose contact must not hold the waits at their shortest.
_RESET_GAP_S = 60.0


class Why(StrEnum):
    """Why a pass is waited for."""

    START = "start"
    RECONNECTED = "reconnected"
    ALLOWED = "allowed"
    OFFLINE = "offline"
    SERVER = "server"
    THROTTLED = "throttled"
    UNAUTHORIZED = "unauthorized"
    SETTINGS = "settings"
    NO_USE_CASE = "no-use-case"
    LOCKED = "locked"
    FAILED = "failed"


# In these the cause may lie with the events that stayed behind, and the next one may pass.
_MAYBE_THE_EVENTS = (Why.SERVER, Why.NO_USE_CASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rhythm:
    """How eager the agent is.

    Attributes:
        interval_s: How long a fresh event waits for company.
        batch_count: So many fresh events wait no longer.
        spread_s: Upper end of the random wait after a start or a reconnect.
    """

    interval_s: float = 5.0
    batch_count: int = 100
    spread_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Wait:
    """No pass before a moment.

    Attributes:
        until_s: The moment, on the clock of the calls.
        why: What is waited for.
        binding: Whether the server asked for it, so that nothing may end it.
    """

    until_s: float
    why: Why
    binding: bool = False


class Planner:
    """Says when the next pass is due.

    Every call that tells it something takes the moment, in seconds of any clock that never goes
    back.

    Args:
        rhythm: How eager to be.
        draw: Random number from 0 to 1.

    Attributes:
        wait: What holds the next pass up, or None.

    Example:
        >>> planner = Planner(Rhythm(interval_s=5), draw=lambda: 0.5)
        >>> planner.saw_fresh(100.0, 1, urgent=False)
        >>> planner.due_s()
        105.0
        >>> planner.saw_fresh(101.0, 1, urgent=True)
        >>> planner.due_s()
        100.0
    """

    def __init__(self, rhythm: Rhythm, draw: Callable[[], float]) -> None:
        self.rhythm = rhythm
        self.wait: Wait | None = None
        self._draw = draw
        self._fresh = 0
        self._fresh_since_s = 0.0
        self._urgent = False
        self._at_once: float | None = None
        self._running = False
        self._failures = 0
        self._ended_s = 0.0
        self._rest_s = 0.0
        self._reset_s: float | None = None
        self._network_news = False

    def due_s(self) -> float | None:
        """When the next pass is to begin; None while one runs or there is nothing to do."""
        if self._running:
            return None
        if self.wait is not None:
            return self.wait.until_s
        if self._at_once is not None:
            return self._at_once
        if not self._fresh:
            return None
        if self._urgent or self._fresh >= self.rhythm.batch_count:
            return self._fresh_since_s
        return self._fresh_since_s + self.rhythm.interval_s

    # --- what happens outside ----------------------------------------------------------------

    def started(self, now_s: float) -> None:
        """The agent begins: power may be back for a whole site."""
        self.wait = Wait(now_s + self._draw() * self.rhythm.spread_s, Why.START)

    def allowed_again(self, now_s: float) -> None:
        """A pause or a closed window is over, perhaps for a whole fleet."""
        until_s = now_s + self._draw() * self.rhythm.spread_s
        if self.wait is None or self.wait.until_s < until_s:
            binding = self.wait is not None and self.wait.binding
            self.wait = Wait(until_s, Why.ALLOWED, binding)

    def saw_fresh(self, now_s: float, count: int, *, urgent: bool) -> None:
        """Some events were appended.

        Args:
            now_s: The moment.
            count: How many, at least 1.
            urgent: Whether one of them must not wait for company.
        """
        if not self._fresh:
            self._fresh_since_s = now_s
        self._fresh += count
        self._urgent = self._urgent or urgent
        if self.wait is None or self.wait.binding:
            return
        why = self.wait.why
        if urgent and (why is Why.OFFLINE or why in _MAYBE_THE_EVENTS):
            self._not_later_than(max(now_s, self._ended_s + max(_URGENT_GAP_S, self._rest_s)))
        elif why in _MAYBE_THE_EVENTS:
            self._not_later_than(max(now_s, self._ended_s + max(_FRESH_GAP_S, self._rest_s)))

    def saw_leftovers(self, now_s: float) -> None:
        """Something is pending that nothing announced."""
        if self.due_s() is None:
            self._at_once = now_s

    def saw_nothing_pending(self) -> None:
        """There is nothing to deliver, whatever was waited for."""
        self._forget()
        self._failures = 0

    def network_changed(self, now_s: float) -> None:
        """A link, an address or a route appeared, or somebody says that the network is back."""
        if self._running:
            self._network_news = True
        elif self.wait is not None and self.wait.why is Why.OFFLINE and not self.wait.binding:
            if self._reset_s is None or now_s - self._reset_s >= _RESET_GAP_S:
                self._failures = 0
                self._reset_s = now_s
            until_s = now_s + self._draw() * self.rhythm.spread_s
            self.wait = Wait(min(until_s, self.wait.until_s), Why.RECONNECTED)

    def asked(self, now_s: float) -> bool:
        """Somebody wants a pass now.

        Returns:
            Whether it will be made; not while the server wants to be left alone.
        """
        if self.wait is not None and self.wait.binding:
            return False
        self.wait = None
        self._at_once = now_s
        return True

    def reloaded(self, now_s: float, rhythm: Rhythm) -> None:
        """The settings are new, and the old troubles may have been theirs."""
        self.rhythm = rhythm
        self._failures = 0
        self._at_once = now_s
        # What the server asked for holds for any settings; and a fleet may be reloaded at once.
        if self.wait is None or not self.wait.binding:
            self.wait = Wait(now_s + self._draw() * rhythm.spread_s, Why.START)

    # --- the passes themselves -----------------------------------------------------------------

    def began(self) -> None:
        """A pass begins; it takes what was fresh along."""
        self._forget()
        self._running = True
        self._network_news = False

    def ended(self, now_s: float, report: FlushReport) -> None:
        """A pass ended as its report says."""
        self._end(now_s)
        self._rest_s = _REST_PER_PASS * report.duration_s
        moved = report.delivered or report.images_delivered
        # One event that the server cannot digest must not hold the waits at their shortest.
        if moved and report.stopped_reason is not StopReason.SERVER:
            self._failures = 0
        match report.stopped_reason:
            case None:
                self._failures = 0
            case StopReason.OFFLINE:
                self._back_off(now_s, Why.OFFLINE, report.retry_after_s)
                if self._network_news:
                    self.network_changed(now_s)
            case StopReason.SERVER:
                self._back_off(now_s, Why.SERVER, report.retry_after_s)
            case StopReason.THROTTLED:
                self._back_off(now_s, Why.THROTTLED, report.retry_after_s)
            case StopReason.UNAUTHORIZED:
                self.wait = Wait(now_s + self._about(_UNAUTHORIZED_WAIT_S), Why.UNAUTHORIZED)
            case StopReason.NO_USE_CASE:
                self.wait = Wait(now_s + self._about(_UNAUTHORIZED_WAIT_S), Why.NO_USE_CASE)
            case StopReason.PAUSED | StopReason.OUTSIDE_WINDOW:
                self.wait = Wait(now_s + self._about(_LOCKED_WAIT_S), Why.ALLOWED)
            case _:
                # Interrupted, or a limit was reached; what is left goes on when it may.
                if self.wait is None and report.pending_after:
                    self._at_once = now_s

    def lacks_setting(self, now_s: float) -> None:
        """A pass could not begin for want of a key, or with settings that make no sense."""
        self._end(now_s)
        self.wait = Wait(now_s + self._about(_UNAUTHORIZED_WAIT_S), Why.SETTINGS)

    def found_lock(self, now_s: float) -> None:
        """A pass could not begin because another flush of the log is running."""
        self._end(now_s)
        self.wait = Wait(now_s + self._about(_LOCKED_WAIT_S), Why.LOCKED)

    def failed(self, now_s: float) -> None:
        """A pass ended with trouble of our own: the disk, the log, a fault in the program."""
        self._end(now_s)
        self._back_off(now_s, Why.FAILED, None)

    # --- inside --------------------------------------------------------------------------------

    def _forget(self) -> None:
        self._fresh = 0
        self._urgent = False
        self._at_once = None
        self.wait = None

    def _end(self, now_s: float) -> None:
        self._running = False
        self._ended_s = now_s
        self._rest_s = 0.0

    def _back_off(self, now_s: float, why: Why, asked_s: float | None) -> None:
        if asked_s is not None:
            # A little later than asked: others were sent away at the same moment.
            wait_s = min(asked_s, _ASKED_WAIT_S_MAX) + self._draw() * self.rhythm.spread_s
            self.wait = Wait(now_s + wait_s, why, binding=True)
            return
        # The exponent is bounded because a float is.
        upper_s = min(_WAIT_S_MAX, _WAIT_S_MIN * 2.0 ** min(self._failures, 30))
        self._failures += 1
        wait_s = max(_WAIT_S_MIN, self._draw() * upper_s)
        self.wait = Wait(now_s + wait_s, why, binding=why is Why.THROTTLED)

    def _about(self, wait_s: float) -> float:
        return wait_s * (1.0 + 0.2 * self._draw())

    def _not_later_than(self, moment_s: float) -> None:
        assert self.wait is not None
        if moment_s < self.wait.until_s:
            self.wait = Wait(moment_s, self.wait.why)
