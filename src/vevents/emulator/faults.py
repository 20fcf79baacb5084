"""Failures on purpose: scripted and random, in front of every path of the API.

One middleware asks one `FaultPlan` what shall go wrong with a request, so that a new kind of
failure is a field of `Fault` and a line in `FaultMiddleware`. The emulator's own paths under
`/__emulator__` never fail.
"""

from __future__ import annotations

import asyncio
import fnmatch
import json
import random
import threading
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field, fields
from typing import Any

from vevents.errors import ConfigurationError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# Where a server that can cut connections leaves the function that does it.
ABORT_EXTENSION = "vevents.abort"

_API_PREFIX = "/vision-events"
_BODY_SIZE_MAX = 67_108_864
_BODYLESS = (204, 205, 304)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What goes wrong with one request.

    Attributes:
        status: Answer with this status instead of the emulator's own; None leaves it alone.
        headers: Headers of that answer.
        body: Body of that answer: a mapping goes out as JSON, text as text, bytes as they are;
            None for `{"error": "injected fault"}`, or nothing below 400.
        delay_s: Wait so long first, with the request read completely.
        drop: Cut the connection instead of answering.
        stored: Let the emulator handle the request first, and only keep its answer from the
            client. Needs `status` or `drop`.

    Raises:
        ConfigurationError: The fields contradict each other.

    Example:
        >>> Fault(status=503, headers={"Retry-After": "2"}).stored
        False
        >>> lost_answer = Fault(drop=True, stored=True)
    """

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | str | bytes | None = None
    delay_s: float = 0.0
    drop: bool = False
    stored: bool = False

    def __post_init__(self) -> None:
        if self.status is not None and not 200 <= self.status <= 599:
            raise ConfigurationError(f"fault: status {self.status} is not in 200 to 599")
        if self.delay_s < 0:
            raise ConfigurationError("fault: delay_s must not be negative")
        if self.drop and self.status is not None:
            raise ConfigurationError("fault: a dropped connection has no status")
        if self.stored and not self.drop and self.status is None:
            raise ConfigurationError("fault: stored needs a status or drop")
        if not all(isinstance(text, str) for pair in self.headers.items() for text in pair):
            raise ConfigurationError("fault: names and values of headers must be strings")
        if self.body is not None and (self.status is None or self.status in _BODYLESS):
            raise ConfigurationError("fault: there is no answer that could have this body")

    @property
    def label(self) -> str:
        """How the fault is counted: its status, `drop` or `delay`."""
        if self.drop:
            return "drop"
        return "delay" if self.status is None else str(self.status)

    @classmethod
    def from_json(cls, given: Any) -> Fault:
        """Make a fault from a JSON object with the names of the attributes.

        Raises:
            ConfigurationError: It is not an object, or a field is unknown or of the wrong kind.
        """
        if not isinstance(given, dict):
            raise ConfigurationError("fault: must be an object")
        for name, value in given.items():
            kinds = _JSON_KINDS.get(name)
            if kinds is None:
                known = ", ".join(each.name for each in fields(cls))
                raise ConfigurationError(f"fault: unknown field {name!r}; known: {known}")
            if type(value) not in kinds:
                raise ConfigurationError(f"fault: {name} has the wrong type")
        return cls(**given)


_JSON_KINDS: dict[str, tuple[type, ...]] = {
    "status": (int, type(None)),
    "headers": (dict,),
    "body": (dict, str, type(None)),
    "delay_s": (int, float),
    "drop": (bool,),
    "stored": (bool,),
}


@dataclass(slots=True)
class _Rule:
    path: str
    method: str
    queue: deque[Fault | None] = field(default_factory=deque)
    rate: float = 0.0
    fault: Fault | None = None
    dice: random.Random = field(default_factory=random.Random)

    def matches(self, method: str, path: str) -> bool:
        return self.method in ("*", method) and fnmatch.fnmatchcase(path, self.path)


class FaultPlan:
    """What is still to go wrong. May be changed at any time, from any thread.

    Example:
        >>> plan = FaultPlan()
        >>> plan.script("/vision-events/batch", Fault(status=503), None, Fault(drop=True))
        >>> plan.take("POST", "/vision-events/batch").status
        503
        >>> plan.take("POST", "/vision-events/batch") is None
        True
        >>> plan.pending
        1
    """

    def __init__(self) -> None:
        # Reentrant: a signal handler that stops the server comes in between anything.
        self._lock = threading.RLock()
        self._over = False
        self._scripts: list[_Rule] = []
        self._chances: list[_Rule] = []
        self._injected: Counter[str] = Counter()
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    def script(self, path: str, *faults: Fault | None, method: str = "*") -> None:
        """Let the next requests fail in this order.

        Args:
            path: A path of the API, `*` and `?` as in file names: `/vision-events/*`.
            faults: One per request; None lets that request pass.
            method: Only requests with this method; `*` for all.
        """
        with self._lock:
            self._scripts.append(_Rule(path, method, deque(faults)))

    def at_random(
        self, rate: float, fault: Fault, *, path: str = "*", method: str = "*", seed: int = 0
    ) -> None:
        """Let a share of the requests fail, where no script says otherwise.

        Args:
            rate: Probability, 0 to 1.
            fault: What goes wrong.
            path: As for `script`.
            method: As for `script`.
            seed: The same seed gives the same failures for the same order of requests.

        Raises:
            ConfigurationError: The rate is not a probability.
        """
        if not 0 <= rate <= 1:
            raise ConfigurationError("fault: rate must be between 0 and 1")
        with self._lock:
            rule = _Rule(path, method, rate=rate, fault=fault, dice=random.Random(seed))
            self._chances.append(rule)

    def take(self, method: str, path: str) -> Fault | None:
        """Decide about one request; the oldest script that matches goes first."""
        with self._lock:
            fault = self._next(method, path)
            if fault is not None:
                self._injected[fault.label] += 1
            return fault

    def clear(self) -> None:
        """Let nothing go wrong from now on; what is counted stays counted."""
        with self._lock:
            self._scripts.clear()
            self._chances.clear()

    @property
    def pending(self) -> int:
        """Scripted requests that have not come yet, those that shall pass included."""
        with self._lock:
            return sum(len(rule.queue) for rule in self._scripts)

    @property
    def injected(self) -> dict[str, int]:
        """Faults so far, by status, `drop` and `delay`."""
        with self._lock:
            return dict(sorted(self._injected.items()))

    async def wait(self, delay_s: float) -> None:
        """Sleep, unless `release` comes first."""
        held = (asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            if self._over:
                return
            self._waiting.add(held)
        try:
            await asyncio.wait_for(held[1].wait(), delay_s)
        except TimeoutError:
            pass
        finally:
            with self._lock:
                self._waiting.discard(held)

    def release(self, *, for_good: bool = False) -> None:
        """End every delay at once.

        Args:
            for_good: End those to come as well: a stopping server must not wait for a request
                that is just about to be delayed.
        """
        with self._lock:
            self._over |= for_good
            for loop, event in self._waiting:
                loop.call_soon_threadsafe(event.set)

    def _next(self, method: str, path: str) -> Fault | None:
        for rule in self._scripts:
            if rule.queue and rule.matches(method, path):
                fault = rule.queue.popleft()
                self._scripts = [rule for rule in self._scripts if rule.queue]
                return fault
        for rule in self._chances:
            if rule.matches(method, path) and rule.dice.random() < rule.rate:
                return rule.fault
        return None


class FaultMiddleware:
    """Carries a plan out, in front of the application."""

    def __init__(self, app: App, plan: FaultPlan) -> None:
        self._app = app
        self._plan = plan

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection as ASGI wants it."""
        fault = None
        if scope["type"] == "http" and scope["path"].startswith(_API_PREFIX):
            fault = self._plan.take(scope["method"], scope["path"])
        if fault is None:
            await self._app(scope, receive, send)
            return
        # A request that fails halfway through its body would fail differently on every run.
        receive = await _read_ahead(receive)
        if fault.delay_s:
            await self._plan.wait(fault.delay_s)
        if fault.stored:
            await self._app(scope, receive, _nobody_listens)
        if fault.drop:
            await _abort(scope, receive)
        elif fault.status is not None:
            await _answer(fault, send)
        else:
            await self._app(scope, receive, send)


async def _read_ahead(receive: Receive) -> Receive:
    messages: deque[Message] = deque()
    size = 0
    while size <= _BODY_SIZE_MAX:
        messages.append(await receive())
        size += len(messages[-1].get("body", b""))
        if not messages[-1].get("more_body", False):
            break

    async def replay() -> Message:
        return messages.popleft() if messages else await receive()

    return replay


async def _nobody_listens(_message: Message) -> None:
    return


async def _abort(scope: Scope, receive: Receive) -> None:
    abort = scope.get("extensions", {}).get(ABORT_EXTENSION)
    if abort is None:
        raise ConnectionAbortedError("this server cannot cut a connection")
    abort()
    # The server would take a return before the connection is gone for a missing answer.
    while (await receive())["type"] != "http.disconnect":
        pass


async def _answer(fault: Fault, send: Send) -> None:
    assert fault.status is not None
    body, headers = fault.body, {}
    if body is None:
        body = {"error": "injected fault"} if fault.status >= 400 else b""
    if isinstance(body, str):
        body, headers["content-type"] = body.encode(), "text/plain; charset=utf-8"
    elif not isinstance(body, bytes):
        body, headers["content-type"] = json.dumps(dict(body)).encode(), "application/json"
    if fault.status not in _BODYLESS:
        headers["content-length"] = str(len(body))
    headers |= {name.lower(): value for name, value in fault.headers.items()}
    await send(
        {
            "type": "http.response.start",
            "status": fault.status,
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }
    )
    await send({"type": "http.response.body", "body": body})


def plan_from_json(plan: FaultPlan, given: Mapping[str, Any]) -> None:
    """Add to a plan what a request to `/__emulator__/faults` asks for.

    Args:
        plan: To be extended.
        given: `path`, optionally `method`, and either `faults` (a list, null lets a request pass;
            optionally `repeat`) or `rate` with `fault` and optionally `seed`.

    Raises:
        ConfigurationError: Something is missing or of the wrong kind.
    """
    path, method = given.get("path", "*"), given.get("method", "*")
    if not isinstance(path, str) or not isinstance(method, str):
        raise ConfigurationError("faults: path and method must be strings")
    if isinstance(given.get("faults"), list):
        script = [None if each is None else Fault.from_json(each) for each in given["faults"]]
        plan.script(path, *_repeated(script, given.get("repeat", 1)), method=method)
        return
    rate, seed = given.get("rate"), given.get("seed", 0)
    if type(rate) not in (int, float) or rate is None or type(seed) is not int:
        raise ConfigurationError("faults: give a list of faults, or a rate with one fault")
    plan.at_random(rate, Fault.from_json(given.get("fault")), path=path, method=method, seed=seed)


def _repeated(script: list[Fault | None], repeat: object) -> Iterable[Fault | None]:
    if type(repeat) is not int or not 1 <= repeat <= 100_000:
        raise ConfigurationError("faults: repeat must be an integer from 1 to 100000")
    return script * repeat
