"""Makes requests one at a time: within limits, repeated when that may help, given up when not.

    no network, not the API          the pass ends at once
    401/402/403/423                  the pass ends at once
    no complete answer, 408/425/5xx  repeated with growing random waits, then raised
    429/529                          repeated after the wait asked for, then the pass ends
    any other 4xx                    raised

A server that asks for a longer wait than the policy allows ends the pass, and so do too many
failures in a row without one success. The clock, the sleep and the dice come from outside.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from vevents.errors import (
    AuthorizationError,
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
        return cls(reason, str(error), error.retry_after_s)


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
    draw: Callable[[], float] = random.random


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What ends a pass early.

    Attributes:
        should_stop: Asked before every request and while waiting.
        timeout_s: No request begins after so many seconds.
        max_bytes: No request begins that would send more bytes than this in total. A first request
            larger than the limit is sent all the same, else it could never be sent.
    """

    should_stop: Callable[[], bool] = lambda: False
    timeout_s: float | None = None
    max_bytes: int | None = None


class Sender:
    """Makes the requests of one pass.

    Args:
        retry: How failed requests are repeated.
        limits: What ends the pass early.
        time: Where time and chance come from.
        on_sent: Called after every request that reached the server.

    Attributes:
        requests: Requests made so far.
        retries: Of these, the ones that repeated a failed one.
        bytes_sent: Bytes of their bodies.
        last_failure: The last error that repetition did not cure, or None.
    """

    def __init__(
        self, retry: RetryPolicy, limits: Limits, time: Time, on_sent: Callable[[], object]
    ) -> None:
        self.requests = 0
        self.retries = 0
        self.bytes_sent = 0
        self.last_failure: DeliveryError | None = None
        self._retry = retry
        self._limits = limits
        self._time = time
        self._on_sent = on_sent
        self._deadline_s = None if limits.timeout_s is None else time.monotonic() + limits.timeout_s
        self._failures_in_a_row = 0
        self._failing_since_s: float | None = None

    def send(
        self, call: Callable[[], _Answer], size: int, *, attempts: int | None = None
    ) -> _Answer:
        """Make one request, repeating it as the policy says.

        Args:
            call: Makes the request.
            size: Bytes of its body.
            attempts: How often to try; None leaves it to the policy.

        Raises:
            RefusedError: The server refuses it for good.
            ServerError, NoAnswerError: It still fails at the last attempt.
            StopError: The pass is over.
        """
        attempts = self._retry.attempts if attempts is None else attempts
        attempt = 1
        while True:
            self.check_stop()
            self.check_room(size)
            self.requests += 1
            try:
                answer = call()
            except RefusedError:
                self._sent(size, success=True)
                raise
            except (NoAnswerError, ThrottledError, ServerError) as error:
                self._sent(size, success=False)
                self._wait_or_raise(error, attempt, attempts)
            except DeliveryError as error:
                raise StopError.because_of(error) from error
            else:
                self._sent(size, success=True)
                return answer
            attempt += 1
            self.retries += 1

    def check_stop(self) -> None:
        """Raise `StopError` if the pass is to end here."""
        if self._limits.should_stop():
            raise StopError(StopReason.INTERRUPTED, "stopped on request")
        if self._deadline_s is not None and self._time.monotonic() >= self._deadline_s:
            raise StopError(StopReason.TIMEOUT, "the time limit is reached")

    def has_room(self, size: int) -> bool:
        """Whether so many bytes more are within the limit."""
        limit = self._limits.max_bytes
        return limit is None or self.bytes_sent == 0 or self.bytes_sent + size <= limit

    def check_room(self, size: int) -> None:
        """Raise `StopError` if so many bytes more would break the limit."""
        if not self.has_room(size):
            raise StopError(
                StopReason.MAX_BYTES, f"the limit of {self._limits.max_bytes} bytes is reached"
            )

    def _sent(self, size: int, *, success: bool) -> None:
        self.bytes_sent += size
        if success:
            self._failures_in_a_row = 0
            self._failing_since_s = None
        self._on_sent()

    def _wait_or_raise(self, error: DeliveryError, attempt: int, attempts: int) -> None:
        """Wait for the next attempt; if there is none, raise `error` or end the pass."""
        asked_s = error.retry_after_s
        if asked_s is not None and asked_s > self._retry.wait_s_max:
            raise StopError.because_of(error) from error
        wait_s = self._wait_s(asked_s, attempt)
        now_s = self._time.monotonic()
        if self._failing_since_s is None:
            self._failing_since_s = now_s
        if attempt < attempts:
            if self._deadline_s is not None and now_s + wait_s > self._deadline_s:
                raise StopError(StopReason.TIMEOUT, f"no time left to repeat: {error}") from error
            self._wait(wait_s)
            return
        self.last_failure = error
        self._failures_in_a_row += 1
        if (
            isinstance(error, ThrottledError)
            or self._failures_in_a_row >= _FAILURES_IN_A_ROW_MAX
            or now_s - self._failing_since_s >= _FAILING_S_MAX
        ):
            raise StopError.because_of(error) from error
        # The next request follows at once, and the server is in trouble.
        self._wait(wait_s)
        raise error

    def _wait_s(self, asked_s: float | None, attempt: int) -> float:
        if asked_s is not None:
            return asked_s + self._time.draw() * self._retry.first_wait_s
        # The exponent is bounded because a float is.
        upper_s = self._retry.first_wait_s * 2.0 ** min(attempt - 1, 30)
        return self._time.draw() * min(upper_s, self._retry.wait_s_max)

    def _wait(self, wait_s: float) -> None:
        # In slices, because a signal does not end a sleep.
        until_s = self._time.monotonic() + wait_s
        while (left_s := until_s - self._time.monotonic()) > 0:
            self.check_stop()
            self._time.sleep(min(left_s, _SLEEP_SLICE_S))
