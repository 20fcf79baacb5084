"""Makes requests: within limits, repeated when that may help, given up when not.

    no network                       the pass ends at once
    401/402/403/423                  the pass ends at once
    no complete answer, 408/425/5xx  repeated with growing random waits, then raised
    429/529                          repeated after the wait asked for, then the pass ends
    any other 4xx, not the API       raised

A server that asks for a longer wait than the policy allows ends the pass, and so do too many
failures in a row without one success. A wait that the server asks for holds up every thread's next
request, not only the one that was told. The clock, the sleep and the dice come from outside.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from vevents.delivery.client import RATE_MIN
from vevents.delivery.lanes import Lanes
from vevents.delivery.pace import Pace
from vevents.errors import (
    AuthorizationError,
    BlockedError,
    DeliveryError,
    NoAnswerError,
    RefusedError,
    ServerError,
    ThrottledError,
    UnreachableError,
)

# Without one success in between. Halving a batch down to one bad event takes up to 8 failures, and
# each bad event beside it two more.
_FAILURES_IN_A_ROW_MAX = 20
_FAILING_S_MAX = 600.0
_SLEEP_SLICE_S = 0.2
# A request that is under way when the time of the pass is up is not cut before it took so long and
# what its body takes on the slowest link: else an image that needs longer would never arrive.
_REQUEST_S_MIN = 1.0

_Answer = TypeVar("_Answer")


class StopReason(StrEnum):
    """Why a pass ended before everything was handed over. Whatever is left stays pending."""

    OFFLINE = "offline"
    SERVER = "server"
    THROTTLED = "throttled"
    UNAUTHORIZED = "unauthorized"
    NO_USE_CASE = "no-use-case"
    TIMEOUT = "timeout"
    MAX_EVENTS = "max-events"
    MAX_BYTES = "max-bytes"
    PAUSED = "paused"
    OUTSIDE_WINDOW = "outside-window"
    INTERRUPTED = "interrupted"


class StopError(Exception):
    """Ends a pass from inside; the flusher turns it into its report.

    Attributes:
        reason: Why.
        retry_after_s: Seconds that the server asked to wait, or None.
    """

    def __init__(
        self, reason: StopReason, message: str, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after_s = retry_after_s

    @classmethod
    def because_of(cls, error: DeliveryError) -> StopError:
        """Return what ends a pass that this error cannot get past."""
        if isinstance(error, ThrottledError):
            reason = StopReason.THROTTLED
        elif isinstance(error, UnreachableError):
            reason = StopReason.OFFLINE
        elif isinstance(error, AuthorizationError):
            reason = StopReason.UNAUTHORIZED
        else:
            reason = StopReason.SERVER
        message, asked_s = str(error), error.retry_after_s
        if asked_s is not None:
            # Nobody waits for longer than a day, whatever number a proxy names.
            message += f"; it asks to wait {min(asked_s, 86_400):.0f} s"
        return cls(reason, message, asked_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How a request that failed is repeated within a pass.

    The wait before attempt `n + 1` is drawn at random from 0 to `first_wait_s * 2**(n - 1)`, at
    most `wait_s_max`. A `Retry-After` is waited out in full, and a little random time on top keeps
    devices that were sent away together from coming back together.

    Attributes:
        attempts: How often a request is tried, the first time included.
        first_wait_s: Upper end of the first wait.
        wait_s_max: Longest wait. A server that asks for more ends the pass.
    """

    attempts: int = 5
    first_wait_s: float = 1.0
    wait_s_max: float = 60.0


def _draw() -> float:
    import random

    return random.random()


@dataclass(frozen=True, slots=True, kw_only=True)
class Time:
    """Where time and chance come from.

    Attributes:
        clock: Seconds since 1970.
        monotonic: Seconds of a clock that never goes back.
        sleep: Waits that many seconds.
        draw: Random number from 0 to 1.
    """

    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], object] = time.sleep
    draw: Callable[[], float] = _draw


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What ends a pass early.

    Attributes:
        should_stop: Asked before every request and while waiting, by any thread. True ends the
            pass, and so does a `StopError`, which brings a reason of its own.
        timeout_s: No request begins after so many seconds, and one that is under way then is given
            up as soon as it has taken longer than it should (`Request.call`).
        max_bytes: No request begins that would send more bytes than this in total. A first request
            larger than the limit is sent all the same, else it could never be sent.
    """

    should_stop: Callable[[], bool] = lambda: False
    timeout_s: float | None = None
    max_bytes: int | None = None


@dataclass(slots=True)
class Failures:
    """Requests that repetition did not cure, without one success in between."""

    _count: int = 0
    _since_s: float | None = None

    def begin(self, now_s: float) -> None:
        """A request failed; it may be repeated."""
        if self._since_s is None:
            self._since_s = now_s

    def add(self) -> None:
        """A request was given up."""
        self._count += 1

    def end(self) -> None:
        """A request succeeded."""
        self._count, self._since_s = 0, None

    def are_too_many(self, now_s: float) -> bool:
        """Whether there is no sense in going on."""
        since_s = now_s if self._since_s is None else self._since_s
        return self._count >= _FAILURES_IN_A_ROW_MAX or now_s - since_s >= _FAILING_S_MAX


@dataclass(frozen=True, slots=True)
class Request(Generic[_Answer]):
    """One request, and how it is to be made.

    Attributes:
        call: Makes it; is given the seconds after which to give up, or None. They are what is left
            of the pass, and at least one second, and another for every 1,000 bytes of the body.
        size: Bytes of its body.
        attempts: How often to try; None leaves it to the policy.
        kept_free: Bytes that must be left within the limit for other requests.
        lanes: Where a free lane is needed for every attempt.
        check: Called before every attempt and while waiting; what it raises ends the request.
        failures: Of requests of this kind; they end no pass, since others may get through. None:
            they count with all others that have none of their own.
    """

    call: Callable[[float | None], _Answer]
    size: int
    attempts: int | None = None
    kept_free: Callable[[], int] = lambda: 0
    lanes: Lanes | None = None
    check: Callable[[], None] = lambda: None
    failures: Failures | None = None


class Sender:
    """Makes the requests of one pass, for any number of threads.

    Args:
        retry: How failed requests are repeated.
        limits: What ends the pass early.
        time: Where time and chance come from.
        on_sent: Called after every request that reached the server, by the thread that made it.
        pace: How many bytes may go in a second.

    Attributes:
        requests: Requests made so far.
        retries: Of these, the ones that repeated a failed one.
        bytes_sent: Bytes of their bodies.
        last_failure: The last error that repetition did not cure, or None.
    """

    def __init__(
        self,
        retry: RetryPolicy,
        limits: Limits,
        time: Time,
        on_sent: Callable[[], object],
        pace: Pace | None = None,
    ) -> None:
        self.requests = 0
        self.retries = 0
        self.bytes_sent = 0
        self.last_failure: DeliveryError | None = None
        self._retry = retry
        self._limits = limits
        self._time = time
        self._on_sent = on_sent
        self._pace = Pace(None) if pace is None else pace
        self._lock = threading.Lock()
        self._deadline_s = None if limits.timeout_s is None else time.monotonic() + limits.timeout_s
        self._bytes_under_way = 0
        self._held_until_s = float("-inf")
        self._failures = Failures()

    def send(self, request: Request[_Answer]) -> _Answer:
        """Make one request, repeating it as the policy says.

        Raises:
            RefusedError: The server refuses it for good.
            BlockedError: Something answered in place of the server.
            ServerError, NoAnswerError: It still fails at the last attempt.
            StopError: The pass is over.
        """
        attempts = self._retry.attempts if request.attempts is None else request.attempts

        def check() -> None:
            request.check()
            self.check_stop()

        attempt = 1
        while True:
            try:
                return self._attempt(request, attempt, check)
            except (NoAnswerError, ThrottledError, ServerError) as error:
                self._wait_or_raise(error, attempt, attempts, check, request.failures)
            attempt += 1

    def _attempt(
        self, request: Request[_Answer], attempt: int, check: Callable[[], None]
    ) -> _Answer:
        size, lanes = request.size, request.lanes
        check()
        # Somebody else may be told to wait while this thread waits for a lane.
        self._wait_until(lambda: self._held_until_s, check)
        entered_s = None if lanes is None else lanes.enter(check)
        good = bad = went = False
        try:
            self._wait_until(lambda: self._held_until_s, check)
            with self._lock:
                self._check_room(size + request.kept_free())
                self._bytes_under_way += size
            try:
                self._wait_for_pace(size, check)
                with self._lock:
                    self.requests += 1
                    self.retries += attempt > 1
                try:
                    answer = request.call(self._within_s(size))
                    good = went = True
                except (RefusedError, BlockedError):
                    good = went = True
                    raise
                except (NoAnswerError, ThrottledError, ServerError):
                    bad = went = True
                    raise
                except DeliveryError as error:
                    raise StopError.because_of(error) from error
            finally:
                self._settle(request, went=went, success=good)
        finally:
            if lanes is not None and entered_s is not None:
                lanes.leave(entered_s, size, good=good and attempt == 1, bad=bad)
        return answer

    def _within_s(self, size: int) -> float | None:
        if self._deadline_s is None:
            return None
        left_s = self._deadline_s - self._time.monotonic()
        return max(left_s, _REQUEST_S_MIN + size / RATE_MIN)

    def _wait_for_pace(self, size: int, check: Callable[[], None]) -> None:
        begin_s = self._pace.reserve(size, self._time.monotonic())
        try:
            if self._deadline_s is not None and begin_s >= self._deadline_s:
                raise StopError(StopReason.TIMEOUT, "no time left for another request at this pace")
            self._wait_until(lambda: max(begin_s, self._held_until_s), check)
        except BaseException:
            self._pace.give_back(size)
            raise

    def check_stop(self) -> None:
        """Raise `StopError` if the pass is to end here."""
        if self._limits.should_stop():
            raise StopError(StopReason.INTERRUPTED, "stopped on request")
        if self._deadline_s is not None and self._time.monotonic() >= self._deadline_s:
            raise StopError(StopReason.TIMEOUT, "the time limit is reached")

    def has_room(self, size: int) -> bool:
        """Whether so many bytes more are within the limit."""
        limit = self._limits.max_bytes
        spent = self.bytes_sent + self._bytes_under_way
        return limit is None or spent == 0 or spent + size <= limit

    def check_room(self, size: int) -> None:
        """Raise `StopError` if so many bytes more would break the limit."""
        with self._lock:
            self._check_room(size)

    def _check_room(self, size: int) -> None:
        if not self.has_room(size):
            raise StopError(
                StopReason.MAX_BYTES, f"the limit of {self._limits.max_bytes} bytes is reached"
            )

    def _settle(self, request: Request[_Answer], *, went: bool, success: bool) -> None:
        with self._lock:
            self._bytes_under_way -= request.size
            if not went:
                return
            self.bytes_sent += request.size
            if success:
                self._failures.end()
                if request.failures is not None:
                    request.failures.end()
        self._on_sent()

    def _wait_or_raise(
        self,
        error: DeliveryError,
        attempt: int,
        attempts: int,
        check: Callable[[], None],
        own_failures: Failures | None,
    ) -> None:
        """Wait for the next attempt; if there is none, raise `error` or end the pass."""
        asked_s = error.retry_after_s
        if asked_s is not None and asked_s > self._retry.wait_s_max:
            raise StopError.because_of(error) from error
        wait_s = self._wait_s(asked_s, attempt)
        now_s = self._time.monotonic()
        until_s = now_s + wait_s
        # The same again would only do the same: the answer was complete, and made no sense.
        hopeless = isinstance(error, ServerError) and (error.status_code or 500) < 300
        is_last = attempt >= attempts or hopeless
        failures = self._failures if own_failures is None else own_failures
        with self._lock:
            failures.begin(now_s)
            if asked_s is not None or isinstance(error, ThrottledError):
                self._held_until_s = max(self._held_until_s, until_s)
            if is_last:
                self.last_failure = error
                failures.add()
            ends_pass = is_last and (
                isinstance(error, ThrottledError)
                or (own_failures is None and failures.are_too_many(now_s))
            )
        if ends_pass:
            raise StopError.because_of(error) from error
        if not is_last and self._deadline_s is not None and until_s > self._deadline_s:
            raise StopError(StopReason.TIMEOUT, f"no time left to repeat: {error}") from error
        # After the last attempt, too: the next request follows, and the server is in trouble.
        self._wait_until(lambda: until_s, check)
        if is_last:
            raise error

    def _wait_s(self, asked_s: float | None, attempt: int) -> float:
        if asked_s is not None:
            return asked_s + self._time.draw() * self._retry.first_wait_s
        # The exponent is bounded because a float is.
        upper_s = self._retry.first_wait_s * 2.0 ** min(attempt - 1, 30)
        return self._time.draw() * min(upper_s, self._retry.wait_s_max)

    def _wait_until(self, until_s: Callable[[], float], check: Callable[[], None]) -> None:
        # In slices, because a signal does not end a sleep, and another thread may prolong it.
        while (left_s := until_s() - self._time.monotonic()) > 0:
            check()
            self._time.sleep(min(left_s, _SLEEP_SLICE_S))
