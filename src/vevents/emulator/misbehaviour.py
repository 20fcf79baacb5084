"""Carries the plan of failures out, in front of every path of the API.

One request under a fault goes this way, and may end at each step:

    read the request (slowly, up to a point) -> wait -> let the emulator handle it, with some of
    its events taken out -> change the answer -> write it (slowly, up to a point)

Answers that HTTP would not let out are written past the server, and the connection ends behind
them. The emulator's own paths under `/__emulator__` never fail.
"""

from __future__ import annotations

import asyncio
import gzip
import http
import json
import re
import secrets
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, Final, Literal, NoReturn

from vevents.emulator.bodies import RequestRefusedError, gunzip
from vevents.emulator.connection import App, Connection, Message, Receive, Scope, Send
from vevents.emulator.faults import Ending, Events, Fault, Flow, ImageOutcome
from vevents.emulator.plan import FaultPlan

_OWN_PREFIX: Final = "/__emulator__"
_SINGLE: Final = "/vision-events"
_BATCH: Final = "/vision-events/batch"
_UPLOAD: Final = "/vision-events/upload"
_BODY_SIZE_MAX: Final = 67_108_864
_PIECE_SIZE: Final = 65_536
_PIECES_PER_S: Final = 10
# Nobody needs a connection that hangs for longer to see what it does.
_STALL_S: Final = 600.0
_DRAIN_S: Final = 0.01
_DATE = re.compile(r"\{date([+-][0-9]{1,12})\}")
_LAST_DATE_S: Final = 253_402_300_799  # the year 9999 is the last that a date can be written of


class _OverError(Exception):
    """The connection is gone, by our own hand or by the client's. Never leaves this module."""


@dataclass(slots=True)
class _Answer:
    status: int
    headers: dict[str, str]  # by name in lower case
    body: bytes

    @classmethod
    def of_json(cls, status: int, content: object) -> _Answer:
        return cls(status, {"content-type": "application/json"}, json.dumps(content).encode())


class FaultMiddleware:
    """Asks the plan about every request.

    Args:
        app: The application behind.
        plan: What shall go wrong.
        clock: The server's clock: seconds since 1970.
    """

    def __init__(self, app: App, plan: FaultPlan, clock: Callable[[], float]) -> None:
        self._app = app
        self._plan = plan
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection as ASGI wants it."""
        fault, releases = None, self._plan.releases
        if scope["type"] == "http" and not scope["path"].startswith(_OWN_PREFIX):
            fault = self._plan.take(scope["method"], scope["path"])
        if fault is None:
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(
            fault, self._app, self._plan, releases, self._clock, scope, receive, send
        )
        try:
            await exchange.run()
        except _OverError:
            return


class _Exchange:
    """One request under one fault."""

    def __init__(
        self,
        fault: Fault,
        app: App,
        plan: FaultPlan,
        releases: int,
        clock: Callable[[], float],
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        self._fault = fault
        self._app = app
        self._plan = plan
        self._releases = releases
        self._clock = clock
        self._scope = scope
        self._receive = receive
        self._send = send
        self._read: deque[Message] = deque()

    async def run(self) -> None:
        fault = self._fault
        await self._read_request(fault.request or Flow())
        if fault.delay_s:
            await self._held(fault.delay_s)
        if fault.silent:
            if fault.stored:
                await self._handle()
            await self._end("cut" if fault.answer is None else fault.answer.then)
        answer = self._changed(await self._make_answer())
        if fault.raw:
            await self._write_raw(answer, fault.answer or Flow())
        else:
            await self._write(answer)

    async def _held(self, delay_s: float) -> bool:
        return await self._plan.wait(delay_s, since=self._releases)

    # --- the request -------------------------------------------------------------------------

    async def _read_request(self, flow: Flow) -> None:
        """Read it to its end, or to where the fault ends it.

        Read ahead, because one that fails halfway would fail differently on every run.
        """
        announced = int(self._header("content-length") or 0)
        stop_size = None if flow.stop_at is None else flow.stop_at * announced
        slow_s = 0.0 if flow.bytes_per_s is None else 1 / flow.bytes_per_s
        size, more = 0, True
        while more and size <= _BODY_SIZE_MAX:
            if stop_size is not None and size >= stop_size:
                await self._end_reading(flow.then, more=True)
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise _OverError
            self._read.append(message)
            piece = len(message.get("body", b""))
            size, more = size + piece, message.get("more_body", False)
            if slow_s:
                slow_s = slow_s if await self._held(piece * slow_s) else 0.0
        if stop_size is not None:
            # So small that it came in one piece.
            await self._end_reading(flow.then, more=False)

    def _body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self._read)

    def _header(self, name: str) -> str | None:
        for key, value in self._scope["headers"]:
            if key == name.encode():
                text: str = value.decode("latin-1")
                return text
        return None

    # --- the answer --------------------------------------------------------------------------

    async def _make_answer(self) -> _Answer:
        fault = self._fault
        if fault.events is not None:
            return await self._answer_about(fault.events)
        if fault.image is not None:
            return await self._answer_about_image(fault.image)
        if fault.status is None:
            return await self._handle()
        if fault.stored:
            await self._handle()
        return self._planned_answer(fault.status)

    async def _answer_about_image(self, outcome: ImageOutcome) -> _Answer:
        if self._scope["path"] != _UPLOAD:
            return await self._handle()
        self._plan.count(self._scope["method"], self._scope["path"], self._fault)
        if outcome == "unnamed":
            return _without(await self._handle(), "sourceId")
        source_id = f"ve-img-{secrets.token_hex(8)}"
        return _Answer.of_json(201, {"success": True, "sourceId": source_id, "url": ""})

    def _planned_answer(self, status: int) -> _Answer:
        body = self._fault.body
        if body is None:
            body = {"error": "injected fault"} if status >= 400 else b""
        if isinstance(body, bytes):
            return _Answer(status, {}, body)
        if isinstance(body, str):
            return _Answer(status, {"content-type": "text/plain; charset=utf-8"}, body.encode())
        return _Answer.of_json(status, dict(body))

    async def _handle(self, body: bytes | None = None) -> _Answer:
        """Let the emulator handle the request, or the same one with another body."""
        scope, messages = self._scope, deque(self._read)
        if body is not None:
            scope = dict(scope) | {"headers": _plain_headers(scope["headers"], len(body))}
            messages = deque([{"type": "http.request", "body": body, "more_body": False}])

        async def receive() -> Message:
            return messages.popleft() if messages else await self._receive()

        answer = _Answer(500, {}, b"")

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                for name, value in message.get("headers", ()):
                    answer.headers[name.decode("latin-1").lower()] = value.decode("latin-1")
            else:
                answer.body += message.get("body", b"")

        await self._app(scope, receive, send)
        return answer

    async def _answer_about(self, events: Events) -> _Answer:
        posted = self._posted_events()
        if posted is None:
            return await self._handle()
        is_batch = self._scope["path"] == _BATCH
        struck = [index for index, event in enumerate(posted) if events.which.matches(event)]
        if not struck:
            return await self._handle()
        self._plan.count(self._scope["method"], self._scope["path"], self._fault)
        if events.refuses:
            text = "The request is not valid."
            if events.outcome == "refused":
                place = f"events[{struck[0]}]: " if is_batch else ""
                text = f"{place}eventId {posted[struck[0]].get('eventId')!r} is refused"
            answer = self._planned_answer(self._fault.status or 400)
            if self._fault.body is None:
                answer.body = json.dumps({"error": text}).encode()
            return answer
        gone = [posted[index].get("eventId") for index in struck]
        if events.outcome == "unnamed":
            answer = await self._handle()
            return _without(answer, "eventId", event_ids=gone)
        kept = [event for index, event in enumerate(posted) if index not in set(struck)]
        if not is_batch:
            claim = {"eventId": gone[0]} if events.outcome == "lost" else {}
            return _Answer.of_json(201, {**claim, "created": True})
        answer = _Answer.of_json(201, {"created": 0, "eventIds": []})
        if kept:
            answer = await self._handle(json.dumps({"events": kept}).encode())
        if events.outcome == "lost" and answer.status == 201:
            ids = [event.get("eventId") for event in posted]
            return _Answer.of_json(201, {"created": len(ids), "eventIds": ids})
        return answer

    def _posted_events(self) -> list[dict[str, Any]] | None:
        """The events of the request, or None when it holds none that can be read."""
        if self._scope["path"] not in (_SINGLE, _BATCH):
            return None
        try:
            body = self._body()
            if self._header("content-encoding") is not None:
                body = gunzip(body, _BODY_SIZE_MAX, what="the request body")
            posted = json.loads(body)
        except (ValueError, RecursionError, RequestRefusedError):
            return None
        events = posted.get("events", [posted]) if isinstance(posted, dict) else None
        if not isinstance(events, list) or not all(isinstance(each, dict) for each in events):
            return None
        return events

    def _changed(self, answer: _Answer) -> _Answer:
        fault, content = self._fault, self._fault.content
        body, headers = answer.body, dict(answer.headers)
        if content is not None:
            if content.charset is not None:
                body = body.decode("utf-8", "replace").encode(content.charset, "replace")
                kind = headers.get("content-type", "text/plain").partition(";")[0]
                headers["content-type"] = f"{kind}; charset={content.charset}"
            body = body[: int(len(body) * content.keep)]
            if content.size is not None:
                body = body.ljust(content.size)
            if content.gzip:
                body = gzip.compress(body, compresslevel=1)
                headers["content-encoding"] = "gzip"
        if not fault.bodyless:
            headers["content-length"] = str(len(body))
        headers |= {name.lower(): self._dated(value) for name, value in fault.headers.items()}
        return _Answer(answer.status, headers, body)

    def _dated(self, value: str) -> str:
        def date(match: re.Match[str]) -> str:
            at_s = self._clock() + int(match[1])
            return formatdate(max(0, min(at_s, _LAST_DATE_S)), usegmt=True)

        return _DATE.sub(date, value)

    async def _write(self, answer: _Answer) -> None:
        headers = [
            (name.encode("latin-1"), value.encode("latin-1"))
            for name, value in answer.headers.items()
        ]
        await self._send(
            {"type": "http.response.start", "status": answer.status, "headers": headers}
        )
        # In pieces, because the server waits for the client between them and not in one.
        for start in range(0, len(answer.body), _PIECE_SIZE):
            piece = answer.body[start : start + _PIECE_SIZE]
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        await self._send({"type": "http.response.body"})

    async def _write_raw(self, answer: _Answer, flow: Flow) -> None:
        connection = Connection.of(self._scope)
        for status in self._fault.informational:
            connection.write(_head("1.1", status, {}))
        headers = {"date": connection.date(), "connection": "close", **answer.headers}
        if self._fault.http_1_0:
            headers.pop("content-length", None)
        version = "1.0" if self._fault.http_1_0 else "1.1"
        connection.write(_head(version, answer.status, headers))
        await self._while_the_client_waits(self._pour(connection, answer.body, flow))
        await self._end("close" if flow.stop_at is None else flow.then)

    async def _pour(self, connection: Connection, body: bytes, flow: Flow) -> None:
        size = len(body) if flow.stop_at is None else int(len(body) * flow.stop_at)
        piece_size, pause_s = _PIECE_SIZE, 0.0
        if flow.bytes_per_s is not None:
            piece_size = max(1, min(_PIECE_SIZE, int(flow.bytes_per_s / _PIECES_PER_S)))
            pause_s = piece_size / flow.bytes_per_s
        for start in range(0, size, piece_size):
            connection.write(body[start : min(start + piece_size, size)])
            # A write past the server is not held up by a client that does not read.
            while connection.unsent_size > _PIECE_SIZE and await self._held(_DRAIN_S):
                pass
            if pause_s and start + piece_size < size and not await self._held(pause_s):
                pause_s = 0.0

    # --- the end -----------------------------------------------------------------------------

    async def _end_reading(self, how: Ending, *, more: bool) -> NoReturn:
        """End the connection; `more` says whether there is more of the request to come."""
        if how == "stall":
            # Asking the server for more would let it read on.
            await self._held(_STALL_S)
        elif how == "close":
            Connection.of(self._scope).close_writing()
            # Closing with the rest unread would become a reset.
            while more:
                more = (await self._receive()).get("more_body", False)
            await self._end("close")
        await self._end("reset")

    async def _end(self, how: Ending | Literal["cut"]) -> NoReturn:
        """End the connection."""
        connection = Connection.of(self._scope)
        if how == "stall":
            await self._while_the_client_waits(self._held(_STALL_S))
        if how == "close":
            connection.close()
        elif how == "cut":
            connection.cut()
        else:
            connection.reset()
        # The server would take a return before the connection is gone for a missing answer.
        await self._disconnected()
        raise _OverError

    async def _disconnected(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _while_the_client_waits(self, work: Coroutine[Any, Any, object]) -> None:
        """Work until it is done, or stop where the client goes away.

        Raises:
            _OverError: It did.
        """
        working = asyncio.ensure_future(work)
        leaving = asyncio.ensure_future(self._disconnected())
        try:
            await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
            gone = leaving.done()
        finally:
            for task in (working, leaving):
                task.cancel()
            await asyncio.gather(working, leaving, return_exceptions=True)
        if gone:
            raise _OverError


def _head(version: str, status: int, headers: Mapping[str, str]) -> bytes:
    phrases = {each.value: each.phrase for each in http.HTTPStatus}
    lines = [f"HTTP/{version} {status} {phrases.get(status, '')}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _plain_headers(headers: list[tuple[bytes, bytes]], size: int) -> list[tuple[bytes, bytes]]:
    """Return the headers of a request for a body that is no longer packed."""
    replaced = (b"content-length", b"content-encoding")
    kept = [(name, value) for name, value in headers if name not in replaced]
    return [*kept, (b"content-length", str(size).encode())]


def _without(answer: _Answer, name: str, event_ids: list[Any] | None = None) -> _Answer:
    """Return an answer of 201 that does not name what it should."""
    if answer.status != 201:
        return answer
    content = json.loads(answer.body)
    if "eventIds" in content:
        named = [each for each in content["eventIds"] if each not in (event_ids or ())]
        content |= {"eventIds": named, "created": len(named)}
    content.pop(name, None)
    return _Answer.of_json(201, content)
