"""The emulator in this process, without sockets and threads, and with bad days of its own."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any
from unittest import mock

from simulation.camera import DEFAULT_USE_CASE, LATER_USE_CASE, LINE_USE_CASE, POISON
from simulation.world import DAY_S, HOUR_S, MINUTE_S, World
from vevents.emulator.config import EmulatorConfig
from vevents.emulator.faults import Fault
from vevents.emulator.routes import Emulator

API_KEY = "rf-simulated"
_SINGLE, _BATCH, _UPLOAD = "/vision-events", "/vision-events/batch", "/vision-events/upload"
_BUNDLE = "/vision-events/bundle"
_EVENT_PATHS = (_SINGLE, _BATCH, _BUNDLE)
# These are about the key, the moment or the server, and say nothing of an event.
_NOT_THE_EVENTS = frozenset((401, 402, 403, 408, 423, 425, 429))
_MOODS = (
    "failing",
    "down",
    "storing and failing",
    "throttling",
    "throttling for long",
    "unauthorized",
    "gone",
    "capricious",
    "small",
    "partly",
    "partly",
    "silent about ids",
)


@dataclass(slots=True)
class Answer:
    """What the server answers."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class Stored:
    """What the server knows, for the oracle.

    Attributes:
        event_ids: Of the events that it stored.
        refusals: By event that was sent alone and refused: why, in all the words there were.
        refused_images: By content, SHA-256 in hexadecimal.
    """

    event_ids: set[str] = field(default_factory=set)
    refusals: dict[str, set[str]] = field(default_factory=dict)
    refused_images: set[str] = field(default_factory=set)


class Server:
    """The API of one workspace.

    Args:
        world: True time, which is also the server's.
        needs_setup: The default use case does not exist before some days have passed.

    Attributes:
        mood: What is wrong with it; "well" for nothing.
        stored: What it knows.
        counts: Requests and answers by what they were.
        on_upload: Called with every image that arrives.
    """

    def __init__(self, world: World, needs_setup: bool) -> None:
        self._world = world
        self._dice = world.dice("server")
        self.mood = "well"
        self.stored = Stored()
        self.counts: Counter[str] = Counter()
        self.on_upload: Callable[[bytes], object] = lambda _: None
        self._healed = False
        self._size_max = 0
        use_cases = [LINE_USE_CASE] if needs_setup else [LINE_USE_CASE, DEFAULT_USE_CASE]
        self.emulator = Emulator(
            EmulatorConfig(
                database=":memory:",
                api_keys=[API_KEY],
                use_cases=use_cases,
                strict_event_data=True,
                strict_fields=True,
                require_known_images=True,
                clock=lambda: world.now_s,
            ),
            open_introspection=True,
        )
        self._loop = asyncio.new_event_loop()
        self._plan()
        self._world.after(self._dice.uniform(0, 20) * DAY_S, lambda: self._set_up(LATER_USE_CASE))
        if needs_setup:
            self._world.after(
                self._dice.uniform(0, 5) * DAY_S, lambda: self._set_up(DEFAULT_USE_CASE)
            )

    def close(self) -> None:
        self.emulator.close()
        self._loop.close()

    def heal(self) -> None:
        """Be well for ever."""
        self._set_mood("well")
        self._healed = True
        for use_case in (DEFAULT_USE_CASE, LATER_USE_CASE):
            self._set_up(use_case)

    # --- bad days --------------------------------------------------------------------------------

    def _plan(self) -> None:
        dice = self._dice

        def begin() -> None:
            if self._healed:
                return
            self._set_mood(dice.choice(_MOODS))
            self._world.after(dice.expovariate(1 / (6 * HOUR_S)) + MINUTE_S, end)

        def end() -> None:
            if not self._healed:
                self._set_mood("well")
                self._plan()

        self._world.after(dice.expovariate(1 / (1.5 * DAY_S)), begin)

    def _set_mood(self, mood: str) -> None:
        if mood != self.mood:
            self._world.note(f"server: {mood}")
        self.mood = mood
        self.counts[f"mood {mood}"] += 1
        faults, dice = self.emulator.faults, self._dice
        faults.clear()
        seed = dice.getrandbits(32)
        self._size_max = dice.randrange(2_000, 60_000) if mood == "small" else 0
        if mood == "failing":
            for status in (500, 502, 503, 504, 408):
                faults.at_random(0.12, Fault(status=status), seed=seed + status)
        elif mood == "down":
            faults.at_random(1, Fault(status=503, headers={"Retry-After": "5"}))
        elif mood == "storing and failing":
            faults.at_random(0.4, Fault(status=500, stored=True), seed=seed)
        elif mood == "throttling":
            faults.at_random(0.3, Fault(status=429, headers={"Retry-After": "7"}), seed=seed)
            faults.at_random(0.2, Fault(status=529), seed=seed + 1)
        elif mood == "throttling for long":
            faults.at_random(1, Fault(status=429, headers={"Retry-After": "3600"}))
        elif mood == "unauthorized":
            faults.at_random(1, Fault(status=dice.choice((401, 402, 403, 423))))
        elif mood == "gone":
            faults.at_random(1, Fault(status=404))
        elif mood == "capricious":
            faults.at_random(0.1, Fault(status=400), seed=seed)
            faults.at_random(0.05, Fault(status=422), seed=seed + 1)

    def _set_up(self, use_case: str) -> None:
        # The API names new use cases itself; here the id has to be the one that the device has.
        self.emulator.storage._ensure_use_case(use_case, use_case)
        self._world.note(f"server: knows the use case {use_case}")

    # --- one request -----------------------------------------------------------------------------

    def handle(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        """Answer one request that has arrived completely."""
        self.counts["requests"] += 1
        if path == _UPLOAD:
            self.on_upload(_image_in(headers["content-type"], body))
        events = self._events_in(path, body)
        answer = self._answer(method, path, headers, body, events)
        answer.headers["date"] = formatdate(self._world.now_s, usegmt=True)
        self.counts[str(answer.status)] += 1
        self._world.note(f"server: {method} {path} {len(body)} bytes -> {answer.status}")
        return answer

    def _answer(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        body: bytes,
        events: list[dict[str, Any]],
    ) -> Answer:
        if self._size_max and len(body) > self._size_max:
            if path == _UPLOAD:
                self._refuse_image(headers, body)
            return self._refuse(path, events, 413, "too large")
        if any(event["eventData"].get("value") == POISON for event in events):
            return self._refuse(path, events, 400, "poison")
        if self.mood == "partly" and path == _BATCH:
            taken = [event for event in events if self._dice.random() < 0.6]
            if not taken:
                return _json(201, {"created": 0, "eventIds": []})
            body = json.dumps({"events": taken}).encode()
            headers = headers | {"content-length": str(len(body))}
        answer = self._ask_emulator(method, path, headers, body)
        if path in _EVENT_PATHS:
            self._learn(path, events, answer)
        elif path == _UPLOAD and self._is_refusal(answer.status):
            self._refuse_image(headers, body)
        if self.mood == "silent about ids" and path == _BATCH and answer.status == 201:
            named = [
                each for each in json.loads(answer.body)["eventIds"] if self._dice.random() < 0.6
            ]
            return _json(201, {"created": len(events), "eventIds": named})
        return answer

    def _refuse(self, path: str, events: list[dict[str, Any]], status: int, why: str) -> Answer:
        self._remember_refusal(path, events, why)
        return _json(status, {"error": why})

    def _learn(self, path: str, events: list[dict[str, Any]], answer: Answer) -> None:
        """Look what the emulator has stored now, whatever it said."""
        if answer.status == 201:
            said = json.loads(answer.body)
            self.stored.event_ids.update(said.get("eventIds") or [said["eventId"]])
        elif self.mood == "storing and failing":
            ids = {event["eventId"] for event in events} - self.stored.event_ids
            self.stored.event_ids.update(filter(self._has, ids))
        if self._is_refusal(answer.status):
            text = json.loads(answer.body)["error"]
            self._remember_refusal(path, events, "use case" if "useCaseId" in text else text)

    def _remember_refusal(self, path: str, events: list[dict[str, Any]], why: str) -> None:
        if path == _SINGLE:
            self.stored.refusals.setdefault(events[0]["eventId"], set()).add(why)

    def _is_refusal(self, status: int) -> bool:
        return 400 <= status < 500 and status not in _NOT_THE_EVENTS and self.mood != "gone"

    def _refuse_image(self, headers: dict[str, str], body: bytes) -> None:
        image = _image_in(headers["content-type"], body)
        self.stored.refused_images.add(hashlib.sha256(image).hexdigest())

    def _has(self, event_id: str) -> bool:
        storage = self.emulator.storage
        return bool(storage.list_events(use_case_id=None, event_id=event_id, after=0, limit=1))

    @staticmethod
    def _events_in(path: str, body: bytes) -> list[dict[str, Any]]:
        if path == _SINGLE:
            return [json.loads(body)]
        if path == _BUNDLE:
            with tarfile.open(fileobj=io.BytesIO(body)) as tar:
                payload = tar.extractfile("payload.json")
                assert payload is not None
                return [json.load(payload)]
        return json.loads(body)["events"] if path == _BATCH else []

    def _ask_emulator(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        target, _, query = path.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": target,
            "raw_path": target.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "client": ("device", 1),
            "server": ("api", 80),
            "extensions": {},
        }
        status, head, parts = 0, {}, []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            nonlocal status, head
            if message["type"] == "http.response.start":
                status = message["status"]
                head = {name.decode(): value.decode() for name, value in message["headers"]}
            else:
                parts.append(message.get("body", b""))

        self._loop.run_until_complete(self.emulator.app(scope, receive, send))
        return Answer(status, head, b"".join(parts))


@contextmanager
def by_itself() -> Iterator[None]:
    """Keep this machine out: threads would bring in real time, its settings another network."""

    async def here(function: Any, *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    settings = [
        name
        for name in os.environ
        if name.lower().endswith("_proxy") or name.startswith("SSL_CERT_")
    ]
    with ExitStack() as patches:
        patches.enter_context(mock.patch.dict(os.environ))
        for name in settings:
            del os.environ[name]
        for module in ("routes", "bodies"):
            patches.enter_context(mock.patch(f"vevents.emulator.{module}.run_in_threadpool", here))
        yield


def _image_in(content_type: str, form: bytes) -> bytes:
    """Return the file in a form that has nothing else in it."""
    boundary = content_type.partition("boundary=")[2].encode()
    return form[form.index(b"\r\n\r\n") + 4 : form.rindex(b"\r\n--" + boundary)]


def _json(status: int, content: object) -> Answer:
    body = json.dumps(content).encode()
    return Answer(status, {"content-type": "application/json"}, body)
