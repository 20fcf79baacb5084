"""Who may do what, and how often: keys, scopes, the rate limit."""

from __future__ import annotations

import hmac
import math
import threading
import time
from collections.abc import Callable, Sequence

from starlette.requests import HTTPConnection

from vevents.emulator.config import ApiKey

WRITE = frozenset({"vision-events:write", "device:update"})
READ = frozenset({"vision-events:read", "device:read"})
MANAGE = frozenset({"vision-events:manage"})


def find_key(request: HTTPConnection, keys: Sequence[ApiKey]) -> ApiKey | None:
    """Return the known key that a request carries: Bearer header first, then `api_key`."""
    offered = []
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        offered.append(token.strip())
    offered += request.query_params.getlist("api_key")
    for value in offered:
        for key in keys:
            if hmac.compare_digest(value.encode(), key.value.encode()):
                return key
    return None


class RateLimit:
    """A token bucket per key.

    Args:
        per_s: Requests per second that refill the bucket.
        burst: Requests that the full bucket holds.
        monotonic: Seconds that never go back.
    """

    def __init__(
        self, per_s: float, burst: int, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_s = per_s
        self._burst = burst
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._buckets: dict[str, tuple[float, float]] = {}

    def wait_s(self, key: ApiKey) -> int:
        """Take a token.

        Returns:
            0 if there was one; else the whole seconds after which there will be.
        """
        with self._lock:
            now = self._monotonic()
            tokens, since = self._buckets.get(key.value, (float(self._burst), now))
            tokens = min(self._burst, tokens + (now - since) * self._per_s)
            allowed = tokens >= 1
            self._buckets[key.value] = (tokens - 1 if allowed else tokens, now)
            return 0 if allowed else max(1, math.ceil((1 - tokens) / self._per_s))
