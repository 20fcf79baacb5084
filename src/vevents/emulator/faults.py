"""What can go wrong with one request: plain data, made in Python or from JSON.

    Flow      how the bytes of one direction run, and where they stop
    Which     some of the events, by type, field, id or chance
    Events    what becomes of some of the events of a request that would succeed
    Content   what the body of an answer turns into on its way
    Fault     all of it together, with the answer itself

A new kind of failure is a field here and a line in `vevents.emulator.misbehaviour`, which carries
it out.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeVar, get_args

from vevents.errors import ConfigurationError

_BODYLESS = (204, 205, 304)
_CONTENT_SIZE_MAX = 1 << 30
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"(?:[!-~\xa0-\xff](?:[ -~\xa0-\xff]*[!-~\xa0-\xff])?)?")
# The server would not let out a length that is not so.
_FRAMING_HEADERS = frozenset({"connection", "content-length", "transfer-encoding"})

Ending = Literal["reset", "close", "stall"]
Outcome = Literal["refused", "refused-unnamed", "partly", "unnamed", "lost"]
ImageOutcome = Literal["lost", "unnamed"]

_Part = TypeVar("_Part")


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """How the bytes of a request are read, or those of an answer are written.

    Attributes:
        bytes_per_s: How fast; None as fast as it goes. Of a request smaller than the buffers
            between the two sides, all that the client sees is that it takes long.
        stop_at: Share of the body after which it ends, 0 to 1; None for never. An answer that
            stops at 0 has not even a head; at more than 0, the head is complete.
        then: How it ends: `reset` (RST), `close` (FIN) or `stall` (nothing more happens; the
            connection stays until the client gives up, the plan is cleared or the emulator stops).

    Raises:
        ConfigurationError: A value is out of range.
    """

    bytes_per_s: float | None = None
    stop_at: float | None = None
    then: Ending = "reset"

    def __post_init__(self) -> None:
        if self.bytes_per_s is not None and not 0 < self.bytes_per_s < math.inf:
            raise ConfigurationError("fault: bytes_per_s must be more than 0")
        _check_share("stop_at", self.stop_at)
        _check_choice("then", self.then, get_args(Ending))

    @property
    def label(self) -> str:
        """How it is counted."""
        return "slow" if self.stop_at is None else self.then


@dataclass(frozen=True, slots=True, kw_only=True)
class Which:
    """Some of the events: those for which everything that is given holds.

    Attributes:
        event_type: Their `eventType`.
        field: Path of a field, with dots: `eventData.value`.
        value: What that field holds.
        event_ids: They are among these.
        share: That share of all ids, the same ones at every request, 0 to 1.
        seed: Another seed chooses other ids.

    Raises:
        ConfigurationError: A value is out of range.

    Example:
        >>> bad = Which(field="eventData.value", value="x")
        >>> bad.matches({"eventData": {"value": "x"}}), bad.matches({"eventData": {}})
        (True, False)
    """

    event_type: str | None = None
    field: str | None = None
    value: Any = None
    event_ids: Sequence[str] | None = None
    share: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _check_share("share", self.share)
        if self.event_ids is not None:
            _check_strings("event_ids", self.event_ids)
            object.__setattr__(self, "event_ids", frozenset(self.event_ids))

    def matches(self, event: object) -> bool:
        """Say whether it is one of them."""
        if not isinstance(event, Mapping):
            return False
        event_id = event.get("eventId")
        return (
            (self.event_type is None or event.get("eventType") == self.event_type)
            and (self.field is None or self._field_of(event) == self.value)
            and (self.event_ids is None or event_id in self.event_ids)
            and (
                self.share is None or random.Random(f"{self.seed}:{event_id}").random() < self.share
            )
        )

    def _field_of(self, event: Mapping[str, Any]) -> object:
        found: object = event
        for name in (self.field or "").split("."):
            found = found.get(name) if isinstance(found, Mapping) else None
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """What becomes of some events of a request to create one or a batch.

    Attributes:
        outcome: For the events that match:

            `refused`          the whole request is refused, naming the first of them
            `refused-unnamed`  the whole request is refused, naming none
            `partly`           201; they are not stored, and the answer does not name them
            `unnamed`          201; they are stored, and the answer does not name them
            `lost`             201; the answer names them, and they are not stored: a lie

        which: The events; all of them unless given.

    Raises:
        ConfigurationError: There is no such outcome.
    """

    outcome: Outcome
    which: Which = field(default_factory=Which)

    def __post_init__(self) -> None:
        _check_choice("outcome", self.outcome, get_args(Outcome))

    @property
    def refuses(self) -> bool:
        """Whether the whole request is refused."""
        return self.outcome in ("refused", "refused-unnamed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What the body of an answer turns into.

    Attributes:
        keep: Share of it that is sent, as if it were all.
        size: Bytes to which it grows, with blanks behind.
        charset: Text in another encoding, which `Content-Type` names.
        gzip: Packed, and `Content-Encoding` says so.

    Raises:
        ConfigurationError: A value is out of range.
    """

    keep: float = 1.0
    size: int | None = None
    charset: str | None = None
    gzip: bool = False

    def __post_init__(self) -> None:
        _check_share("keep", self.keep)
        if self.size is not None and not 0 <= self.size <= _CONTENT_SIZE_MAX:
            raise ConfigurationError(f"fault: size is not in 0 to {_CONTENT_SIZE_MAX}")
        try:
            "".encode(self.charset or "utf-8")
        except LookupError as unknown:
            raise ConfigurationError(f"fault: unknown charset {self.charset!r}") from unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What goes wrong with one request.

    Attributes:
        status: Answer with this status instead of the emulator's own; None leaves it alone.
        headers: Headers of the answer, the emulator's own included. `{date+5}` in a value becomes
            the date in 5 seconds, `{date-5}` the one 5 seconds ago.
        body: Body of that answer: a mapping goes out as JSON, text as text, bytes as they are;
            None for `{"error": "injected fault"}`, or nothing below 400.
        delay_s: Wait so long first, with the request read completely.
        drop: Cut the connection instead of answering.
        stored: Let the emulator handle the request first, and only keep its answer from the
            client. Needs `status`, `drop` or an answer that stops at 0.
        request: How the request is read.
        answer: How the answer is written.
        events: What becomes of some of the events.
        image: 201 to an upload, but the image is `lost`, or stored and its `sourceId` `unnamed`.
        content: What the body of the answer turns into.
        informational: Statuses below 200 to send before the answer.
        http_1_0: Answer as HTTP/1.0 without a length: the body ends with the connection.
        name: How the fault is counted; unless given, by what it does.

    Raises:
        ConfigurationError: The fields contradict each other.

    Example:
        >>> Fault(status=503, headers={"Retry-After": "2"}).stored
        False
        >>> lost_answer = Fault(drop=True, stored=True)
        >>> timeout = Fault(answer=Flow(stop_at=0, then="stall"))
        >>> timeout.label
        'answer stall'
    """

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | str | bytes | None = None
    delay_s: float = 0.0
    drop: bool = False
    stored: bool = False
    request: Flow | None = None
    answer: Flow | None = None
    events: Events | None = None
    image: ImageOutcome | None = None
    content: Content | None = None
    informational: Sequence[int] = ()
    http_1_0: bool = False
    name: str = ""

    def __post_init__(self) -> None:
        if self.status is not None and not 200 <= self.status <= 599:
            raise ConfigurationError(f"fault: status {self.status} is not in 200 to 599")
        if not 0 <= self.delay_s < math.inf:
            raise ConfigurationError("fault: delay_s must not be negative")
        if self.drop and self.status is not None:
            raise ConfigurationError("fault: a dropped connection has no status")
        if self.stored and self.status is None and not self.silent:
            raise ConfigurationError(
                "fault: stored needs a status, drop, or an answer that stops at 0"
            )
        if not all(isinstance(text, str) for pair in self.headers.items() for text in pair):
            raise ConfigurationError("fault: names and values of headers must be strings")
        for name, value in self.headers.items():
            if not (_HEADER_NAME.fullmatch(name) and _HEADER_VALUE.fullmatch(value)):
                raise ConfigurationError(f"fault: {name[:100]!r} is no header that can be written")
        if self.body is not None and (self.status is None or self.status in _BODYLESS):
            raise ConfigurationError("fault: there is no answer that could have this body")
        if self.image is not None:
            _check_choice("image", self.image, get_args(ImageOutcome))
        if not all(type(status) is int and 100 <= status < 200 for status in self.informational):
            raise ConfigurationError("fault: informational statuses are 100 to 199")
        refuses = self.events is not None and self.events.refuses
        if refuses and self.stored:
            raise ConfigurationError("fault: events that are refused are not stored")
        succeeds = self.image is not None or (self.events is not None and not refuses)
        if succeeds and (self.status is not None or self.silent):
            raise ConfigurationError("fault: events and image change an answer of 201")

    @property
    def silent(self) -> bool:
        """Whether there is no answer at all."""
        return self.drop or (self.answer is not None and self.answer.stop_at == 0)

    @property
    def raw(self) -> bool:
        """Whether its answer is one that HTTP would not let out, or not like this."""
        framing = not _FRAMING_HEADERS.isdisjoint(map(str.lower, self.headers))
        return framing or bool(self.answer or self.informational or self.http_1_0)

    @property
    def bodyless(self) -> bool:
        """Whether its status allows no body."""
        return self.status in _BODYLESS

    @property
    def label(self) -> str:
        """How the fault is counted: its name, else its status, else what it does."""
        if self.name:
            return self.name
        if self.drop:
            return "drop"
        if self.status is not None:
            return str(self.status)
        parts = {
            "events": self.events and self.events.outcome,
            "image": self.image,
            "request": self.request and self.request.label,
            "answer": self.answer and self.answer.label,
        }
        for what, how in parts.items():
            if how:
                return f"{what} {how}"
        if self.headers or self.content or self.informational or self.http_1_0:
            return "answer changed"
        return "delay"

    @classmethod
    def from_json(cls, given: Any) -> Fault:
        """Make a fault from a JSON object with the names of the attributes.

        Raises:
            ConfigurationError: It is not an object, or a field is unknown or of the wrong kind.
        """
        return _from_json(cls, given, "fault")


def _check_share(name: str, share: float | None) -> None:
    if share is not None and not 0 <= share <= 1:
        raise ConfigurationError(f"fault: {name} must be between 0 and 1")


def _check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ConfigurationError(f"fault: {name} must be one of {', '.join(choices)}")


def _check_strings(name: str, values: Sequence[object]) -> None:
    if isinstance(values, str) or not all(isinstance(value, str) for value in values):
        raise ConfigurationError(f"fault: {name} must be a list of strings")


def _from_json(kind: type[_Part], given: Any, what: str) -> _Part:
    if not isinstance(given, dict):
        raise ConfigurationError(f"{what}: must be an object")
    kinds = _JSON_KINDS[kind]
    made = {}
    for name, value in given.items():
        if name not in kinds:
            known = ", ".join(each.name for each in fields(kind))  # type: ignore[arg-type]
            raise ConfigurationError(f"{what}: unknown field {name!r}; known: {known}")
        accepted = kinds[name]
        if isinstance(accepted, tuple):
            if accepted and type(value) not in accepted:
                raise ConfigurationError(f"{what}: {name} has the wrong type")
            made[name] = value
        else:
            made[name] = _from_json(accepted, value, f"{what}: {name}")
    if kind is Events and "outcome" not in made:
        raise ConfigurationError(f"{what}: needs an outcome")
    build: Callable[..., _Part] = kind
    return build(**made)


# By class and field: the types of its JSON, none for anything; or the class that it becomes.
_JSON_KINDS: dict[type, dict[str, tuple[type, ...] | type]] = {
    Flow: {
        "bytes_per_s": (int, float, type(None)),
        "stop_at": (int, float, type(None)),
        "then": (str,),
    },
    Which: {
        "event_type": (str, type(None)),
        "field": (str, type(None)),
        "value": (),
        "event_ids": (list, type(None)),
        "share": (int, float, type(None)),
        "seed": (int,),
    },
    Events: {"outcome": (str,), "which": Which},
    Content: {
        "keep": (int, float),
        "size": (int, type(None)),
        "charset": (str, type(None)),
        "gzip": (bool,),
    },
    Fault: {
        "status": (int, type(None)),
        "headers": (dict,),
        "body": (dict, str, type(None)),
        "delay_s": (int, float),
        "drop": (bool,),
        "stored": (bool,),
        "request": Flow,
        "answer": Flow,
        "events": Events,
        "image": (str, type(None)),
        "content": Content,
        "informational": (list,),
        "http_1_0": (bool,),
        "name": (str,),
    },
}
