"""When something goes wrong: scripts, chances, chaos, in this order."""

from __future__ import annotations

import asyncio
import fnmatch
import random
import re
import threading
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vevents.emulator.catalogue import CATALOGUE, Severity, draw, parse_severity
from vevents.emulator.faults import Fault
from vevents.errors import ConfigurationError

_HISTORY_COUNT_MAX = 1_000
_PATH_COUNT_MAX = 1_000


@dataclass(slots=True)
class _Rule:
    path: str
    method: str
    queue: deque[Fault | None] = field(default_factory=deque)
    rate: float = 0.0
    fault: Fault | None = None
    dice: random.Random = field(default_factory=random.Random)
    passing: int = 0

    def matches(self, method: str, path: str) -> bool:
        return self.method in ("*", method) and fnmatch.fnmatchcase(path, self.path)

    def strikes(self) -> bool:
        if self.passing:
            self.passing -= 1
            return False
        return self.dice.random() < self.rate


@dataclass(frozen=True, slots=True)
class Chaos:
    """Faults for every request, drawn from the catalogue.

    What a request meets is decided by the seed, the severity, its method and path, and its number
    among the requests with this method and path: the same seed gives the same faults again. Chaos
    never lies about what is stored; that takes a script.

    Attributes:
        seed: Another seed draws other faults.
        severity: `low` (1 request in 20), `medium` (1 in 5) or `high` (1 in 2).

    Example:
        >>> Chaos.parse("7:high")
        Chaos(seed=7, severity='high')
        >>> str(Chaos.parse("7"))
        '7:medium'
    """

    seed: int
    severity: Severity = "medium"

    @classmethod
    def parse(cls, text: str) -> Chaos:
        """Read `SEED` or `SEED:SEVERITY`.

        Raises:
            ConfigurationError: It is neither.
        """
        match = re.fullmatch(r"(-?[0-9]{1,18})(?::(.*))?", text)
        if match is None:
            raise ConfigurationError(f"chaos: {text!r} is not SEED or SEED:SEVERITY")
        return cls(int(match[1]), parse_severity(match[2] or "medium"))

    def __str__(self) -> str:
        return f"{self.seed}:{self.severity}"

    def fault(self, method: str, path: str, number: int) -> Fault | None:
        """Return what the request with this number meets; 1 is the first."""
        dice = random.Random(f"{self.seed}:{self.severity}:{method} {path}:{number}")
        return draw(dice, self.severity, path)


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
        self._releases = 0
        self._scripts: list[_Rule] = []
        self._chances: list[_Rule] = []
        self._chaos: Chaos | None = None
        self._requests: Counter[tuple[str, str]] = Counter()
        self._injected: Counter[str] = Counter()
        self._history: deque[str] = deque(maxlen=_HISTORY_COUNT_MAX)
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
        self,
        rate: float,
        fault: Fault,
        *,
        path: str = "*",
        method: str = "*",
        seed: int = 0,
        after: int = 0,
    ) -> None:
        """Let a share of the requests fail, where no script says otherwise.

        Args:
            rate: Probability, 0 to 1.
            fault: What goes wrong.
            path: As for `script`.
            method: As for `script`.
            seed: The same seed gives the same failures for the same order of requests.
            after: So many requests pass first: with a rate of 1, all is well until a moment.

        Raises:
            ConfigurationError: The rate is not a probability, or `after` is negative.
        """
        if not 0 <= rate <= 1:
            raise ConfigurationError("fault: rate must be between 0 and 1")
        if after < 0:
            raise ConfigurationError("fault: after must not be negative")
        rule = _Rule(path, method, rate=rate, fault=fault, dice=random.Random(seed), passing=after)
        with self._lock:
            self._chances.append(rule)

    @property
    def chaos(self) -> Chaos | None:
        """What the requests meet for which nothing else is planned; None for nothing.

        Setting it begins to count the requests anew.
        """
        return self._chaos

    @chaos.setter
    def chaos(self, chaos: Chaos | None) -> None:
        with self._lock:
            self._chaos = chaos
            self._requests.clear()

    def take(self, method: str, path: str) -> Fault | None:
        """Decide about one request; the oldest script that matches goes first."""
        with self._lock:
            self._requests[self._counted_as(method, path)] += 1
            fault = self._next(method, path)
            # Whether it strikes an event or an image is known when the request has been read.
            if fault is not None and fault.events is None and fault.image is None:
                self.count(method, path, fault)
            return fault

    def count(self, method: str, path: str, fault: Fault) -> None:
        """Count a fault that befell a request."""
        with self._lock:
            self._injected[fault.label] += 1
            number = self._requests[self._counted_as(method, path)]
            self._history.append(f"{method} {path} {number}: {fault.label}")

    def clear(self) -> None:
        """Let nothing go wrong from now on, and end what is held; counts stay."""
        with self._lock:
            self._scripts.clear()
            self._chances.clear()
            self._chaos = None
            self.release()

    @property
    def pending(self) -> int:
        """Scripted requests that have not come yet, those that shall pass included."""
        with self._lock:
            return sum(len(rule.queue) for rule in self._scripts)

    @property
    def requests(self) -> int:
        """Requests since the chaos began, if there is one; those that passed included."""
        with self._lock:
            return sum(self._requests.values())

    @property
    def injected(self) -> dict[str, int]:
        """Faults so far, by `Fault.label`."""
        with self._lock:
            return dict(sorted(self._injected.items()))

    @property
    def history(self) -> list[str]:
        """The last 1,000 faults: method, path, number of the request on that path, label."""
        with self._lock:
            return list(self._history)

    @property
    def releases(self) -> int:
        """How often `release` was called."""
        return self._releases

    async def wait(self, delay_s: float, *, since: int) -> bool:
        """Sleep, unless `release` comes first.

        Args:
            delay_s: For how long, in seconds.
            since: `releases` before the fault was taken from the plan. A release after that ends
                the delay even if it came before the request got so far as to be delayed.

        Returns:
            Whether the whole time has passed.
        """
        held = (asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            if self._over or self._releases != since:
                return False
            self._waiting.add(held)
        try:
            await asyncio.wait_for(held[1].wait(), delay_s)
        except TimeoutError:
            return True
        finally:
            with self._lock:
                self._waiting.discard(held)
        return False

    def release(self, *, for_good: bool = False) -> None:
        """End every delay at once.

        Args:
            for_good: End those to come as well: a stopping server must not wait for a request
                that is just about to be delayed.
        """
        with self._lock:
            self._over |= for_good
            self._releases += 1
            for loop, event in self._waiting:
                loop.call_soon_threadsafe(event.set)

    def _next(self, method: str, path: str) -> Fault | None:
        for rule in self._scripts:
            if rule.queue and rule.matches(method, path):
                fault = rule.queue.popleft()
                self._scripts = [rule for rule in self._scripts if rule.queue]
                return fault
        for rule in self._chances:
            if rule.matches(method, path) and rule.strikes():
                return rule.fault
        if self._chaos is not None:
            number = self._requests[self._counted_as(method, path)]
            return self._chaos.fault(method, path, number)
        return None

    def _counted_as(self, method: str, path: str) -> tuple[str, str]:
        """Count paths beyond so many as one: whoever tries them all must not fill the memory."""
        known = (method, path) in self._requests or len(self._requests) < _PATH_COUNT_MAX
        return (method, path) if known else ("*", "*")


def plan_from_json(plan: FaultPlan, given: Mapping[str, Any]) -> None:
    """Add to a plan what a request to `/__emulator__/faults` asks for.

    Args:
        plan: To be extended.
        given: `chaos`; or `path`, optionally `method`, and either `faults` (a list, null lets a
            request pass; optionally `repeat`) or `rate` with `fault` and optionally `seed` and
            `after`. A fault is an object, or a name of the catalogue.

    Raises:
        ConfigurationError: Something is missing or of the wrong kind.
    """
    if "chaos" in given:
        if not isinstance(given["chaos"], str):
            raise ConfigurationError("chaos: must be a string, SEED or SEED:SEVERITY")
        plan.chaos = Chaos.parse(given["chaos"])
        return
    path, method = given.get("path", "*"), given.get("method", "*")
    if not isinstance(path, str) or not isinstance(method, str):
        raise ConfigurationError("faults: path and method must be strings")
    if isinstance(given.get("faults"), list):
        script = [None if each is None else _fault(each) for each in given["faults"]]
        plan.script(path, *_repeated(script, given.get("repeat", 1)), method=method)
        return
    rate, seed, after = given.get("rate"), given.get("seed", 0), given.get("after", 0)
    if type(rate) not in (int, float) or rate is None or type(seed) is not int:
        raise ConfigurationError("faults: give a list of faults, or a rate with one fault")
    if type(after) is not int:
        raise ConfigurationError("faults: after must be an integer")
    plan.at_random(
        rate, _fault(given.get("fault")), path=path, method=method, seed=seed, after=after
    )


def _fault(given: Any) -> Fault:
    if not isinstance(given, str):
        return Fault.from_json(given)
    if given not in CATALOGUE:
        raise ConfigurationError(f"faults: no fault is called {given!r}; see docs/emulator.md")
    return CATALOGUE[given]


def _repeated(script: list[Fault | None], repeat: object) -> Iterable[Fault | None]:
    if type(repeat) is not int or not 1 <= repeat <= 100_000:
        raise ConfigurationError("faults: repeat must be an integer from 1 to 100000")
    return script * repeat
