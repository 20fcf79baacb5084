"""The routes of the event store: who may ask, how much is taken at once, what is answered.

The event loop reads and answers; parsing, decoding and appending happen on threads of the store's
own, so that a slow disk stops no other request. A client gets 201 after the append has returned.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic as _monotonic
from typing import Any, Final, TypeVar

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from vevents.errors import (
    EventValidationError,
    LogBusyError,
    LogDegradedError,
    LogFullError,
)
from vevents.event import Event
from vevents.log import READABLE, EventLog, Record
from vevents.store import bodies
from vevents.store.bodies import BodyError
from vevents.store.config import StoreConfig, is_loopback
from vevents.store.recent import RecentEvents, load_salt, read_back

# Set by the server on the scope of a connection beyond the limit.
CROWDED_EXTENSION: Final = "vevents.crowded"

_AT_CAPACITY = 529
_FULL_DETAIL = "Device storage full. Waiting for cloud uploads to complete."
_LIMIT_DEFAULT = 10
_LIMIT_MAX = 1_000
# An event may have two megabytes: neither a window nor an answer may be all of memory.
_READ_WINDOW = 32
_LATEST_SIZE_MAX = 8 << 20
_COMPLAINT_INTERVAL_S = 10.0
# Each of them may hold an answer of some megabytes until its client has taken it.
_SHOW_COUNT_MAX = 4

_LOGGER = logging.getLogger(__name__)
_Result = TypeVar("_Result")


class Store:
    """The event store of one log.

    Args:
        log: Open for writing; it stays open.
        config: Settings.
        open_to_all: Whether everybody on this machine can connect, its browsers included.

    Attributes:
        app: The ASGI application.

    Raises:
        OSError: The log's directory cannot be written.
    """

    def __init__(self, log: EventLog, config: StoreConfig, *, open_to_all: bool = False) -> None:
        self._log = log
        self._config = config
        self._open_to_all = open_to_all
        self._salt = load_salt(log.directory) if config.merge_repeats else b""
        self._recent = RecentEvents(read_back(log) if config.merge_repeats else ())
        self._threads = ThreadPoolExecutor(config.thread_count, "vevents-store")
        # Whoever watches is answered although every append waits for a disk that hangs.
        self._watch_thread = ThreadPoolExecutor(1, "vevents-store-health")
        self._held_size = 0
        self._turn = asyncio.Lock()
        self._shows = asyncio.Semaphore(_SHOW_COUNT_MAX)
        self._full_at: int | None = None
        self._counts: Counter[str] = Counter()
        self._complaints = _Complaints()
        self.app = Starlette(
            routes=[
                Route("/v2/events", self._create, methods=["POST"]),
                Route("/v2/events/latest/query", self._latest, methods=["GET"]),
                Route("/health", self._health, methods=["GET"]),
            ],
            exception_handlers={HTTPException: _refused, Exception: _failed},
        )

    def close(self) -> None:
        """Let appends under way finish."""
        self._threads.shutdown()
        self._watch_thread.shutdown()

    # --- POST /v2/events -----------------------------------------------------------------------

    async def _create(self, request: Request) -> Response:
        body = _Body(request)
        try:
            self._admit(request)
            raw = await self._read(request, body)
            event_id, new = await _on_thread(self._threads, self._take, raw)
        except BodyError as error:
            return await self._refuse(request, body, error)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody is there to read it
        finally:
            self._give_back(body)
        self._counts["stored" if new else "repeated"] += 1
        return JSONResponse({"id": event_id}, 201)

    def _admit(self, request: Request) -> None:
        """Judge a request by its headers alone."""
        self._authorize(request)
        if CROWDED_EXTENSION in request.scope.get("extensions", {}):
            raise BodyError(_AT_CAPACITY, "at capacity: too many connections")
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            # A browser asks for permission before it sends this type, and gets none.
            raise BodyError(415, "Content-Type must be application/json")
        if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
            raise BodyError(415, "Content-Encoding is not supported; send the body as it is")

    def _authorize(self, request: Request) -> None:
        key = self._config.key
        if key is not None:
            offered = request.headers.get("x-api-key", "")
            if not hmac.compare_digest(offered.encode(), key.reveal().encode()):
                raise BodyError(401, "X-API-Key is missing or wrong")
        elif self._open_to_all:
            # A web page that had its own name resolved to this machine could read and write.
            host = request.headers.get("host", "").lower()
            name = host if host.endswith("]") else host.rpartition(":")[0] or host
            if name != "localhost" and not is_loopback(name.strip("[]")):
                raise BodyError(
                    400, "Host must be localhost or 127.0.0.1, unless the store has a key"
                )

    async def _read(self, request: Request, body: _Body) -> bytes:
        size_max = self._config.body_size_max
        too_large = BodyError(413, f"the body is larger than {size_max:,} bytes")
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > size_max:
            raise too_large
        raw = bytearray()
        try:
            async with asyncio.timeout(self._config.body_timeout_s):
                async for piece in body.pieces():
                    if len(raw) + len(piece) > size_max:
                        raise too_large
                    await self._hold(body, len(piece))
                    raw += piece
        except BaseException as error:
            raw.clear()  # an exception keeps its frames alive, and they their variables
            if not isinstance(error, TimeoutError):
                raise
            limit_s = self._config.body_timeout_s
            raise BodyError(408, f"the body did not arrive within {limit_s:g} s") from None
        return bytes(raw)

    async def _hold(self, body: _Body, size: int) -> None:
        """Count bytes as held; beyond the limit one body grows at a time, the others wait."""
        if self._held_size + size > self._config.held_size_max and not body.has_turn:
            try:
                async with asyncio.timeout(self._config.patience_s):
                    body.has_turn = await self._turn.acquire()
            except TimeoutError:
                raise BodyError(_AT_CAPACITY, "at capacity: too many requests at once") from None
        body.held_size += size
        self._held_size += size

    def _give_back(self, body: _Body) -> None:
        self._held_size -= body.held_size
        body.held_size = 0
        if body.has_turn:
            body.has_turn = False
            self._turn.release()

    def _take(self, raw: bytes) -> tuple[str, bool]:
        """Append the event of a body. Returns its id, and whether it is a new one."""
        body = bodies.parse(raw)
        try:
            if not self._config.merge_repeats:
                return self._append(bodies.to_event(body)), True
            event_id = bodies.make_id(body, self._salt)
            with self._recent.claim(event_id) as new:
                if new:
                    return self._append(bodies.to_event(body, event_id)), True
            if self._config.sync:
                # The append that this request repeats may have died before its own sync.
                self._log.sync()
            return event_id, False
        except EventValidationError as error:
            raise bodies.refusal(error) from None
        except LogFullError:
            self._full_at = self._log.stats().settled
            raise BodyError(_AT_CAPACITY, _FULL_DETAIL) from None
        except LogBusyError as error:
            raise BodyError(_AT_CAPACITY, f"at capacity: {error}") from None
        except LogDegradedError as error:
            raise BodyError(503, f"the disk failed: {error}") from None
        except OSError as error:
            raise BodyError(503, f"the disk failed: {error.strerror}") from None

    def _append(self, event: Event) -> str:
        receipt = self._log.append(event, sync=self._config.sync)
        self._full_at = None
        return receipt.event_id

    async def _refuse(self, request: Request, body: _Body, error: BodyError) -> Response:
        self._give_back(body)
        self._counts["turned_away" if error.status_code >= 500 else "refused"] += 1
        self._complaints.add(error)
        # Who asks before it sends its body is told at once, and need not send it.
        asks_first = not body.begun and "expect" in request.headers
        if error.status_code != 408 and not asks_first:
            await self._drain(body)
        return JSONResponse(
            {"detail": error.detail},
            error.status_code,
            headers=None if body.finished else {"Connection": "close"},
        )

    async def _drain(self, body: _Body) -> None:
        """Let the client finish its body, so that it reads our answer and not a broken pipe."""
        with contextlib.suppress(TimeoutError, ClientDisconnect):
            async with asyncio.timeout(self._config.body_timeout_s):
                async for _ in body.pieces():
                    pass

    # --- GET -----------------------------------------------------------------------------------

    async def _latest(self, request: Request) -> Response:
        try:
            self._authorize(request)
            text = request.query_params.get("limit", str(_LIMIT_DEFAULT))
            if not (text.isascii() and text.isdecimal()) or len(text) > 18 or int(text) < 1:
                raise BodyError(422, "limit: must be a whole number, 1 or more")
            await self._enter_shows()
        except BodyError as error:
            return await self._refuse(request, _Body(request), error)
        try:
            answer = await _on_thread(self._threads, self._newest, min(int(text), _LIMIT_MAX))
        except BaseException:
            self._shows.release()
            raise
        # Run when the client has taken the answer, or has been given up.
        taken = BackgroundTask(self._leave_shows)
        return Response(answer, media_type="application/json", background=taken)

    async def _enter_shows(self) -> None:
        try:
            async with asyncio.timeout(self._config.patience_s):
                await self._shows.acquire()
        except TimeoutError:
            raise BodyError(_AT_CAPACITY, "at capacity: too many queries at once") from None

    async def _leave_shows(self) -> None:
        self._shows.release()

    def _newest(self, limit: int) -> bytes:
        """Return the newest events as JSON, newest first; fewer if they are very large."""
        found: list[dict[str, Any]] = []
        size = 0
        stats = self._log.stats()
        upper = stats.last_seq + 1
        while upper > stats.first_seq and len(found) < limit and size < _LATEST_SIZE_MAX:
            lower = max(1, upper - _READ_WINDOW)
            records = []
            for record in self._log.read(from_seq=lower, states=READABLE, limit=_READ_WINDOW):
                if record.seq >= upper:
                    break
                records.append(record)
            for record in reversed(records[-(limit - len(found)) :]):
                found.append(self._show(record))
                size += len(record.payload)
            upper = lower
        return json.dumps({"events": found}, ensure_ascii=False).encode()

    def _show(self, record: Record) -> dict[str, Any]:
        try:
            event = self._log.decode(record)
        except EventValidationError as error:
            shown = {"id": record.event_id, "seq": record.seq, "state": record.state}
            return shown | {"unreadable": str(error)}
        return bodies.describe(event, seq=record.seq, state=record.state)

    async def _health(self, request: Request) -> Response:
        report = await _on_thread(self._watch_thread, self._report)
        code = 503 if report["status"] == "degraded" else 200
        try:
            self._authorize(request)
        except BodyError:
            # Whoever watches needs no key; figures are for those who have it.
            report = {"status": report["status"]}
        return JSONResponse(report, code)

    def _report(self) -> dict[str, Any]:
        events, media = self._log.stats("events"), self._log.stats("media")
        status = "ok"
        # Until a flush has made room: who waits for that sends nothing that would show it.
        if self._full_at is not None and self._full_at == events.settled:
            status = "full"
        if events.degraded or media.degraded:
            status = "degraded"
        return {
            "status": status,
            "pending": events.pending,
            "durable_seq": events.durable_seq,
            "last_seq": events.last_seq,
            "evicted": events.evicted,
            "lost": events.lost,
            "rejected": events.rejected,
            "requests": {
                name: self._counts[name]
                for name in ("stored", "repeated", "refused", "turned_away")
            },
        }


class _Body:
    """A request's body, piece by piece; knows when it has seen the last.

    Attributes:
        begun: Whether it was asked for, which tells a client that waits for it to go on.
        finished: Whether it has. To ask for more then would wait until the client hangs up.
        held_size: Bytes of it that count as held.
        has_turn: Whether it may go beyond the limit of what is held.
    """

    def __init__(self, request: Request) -> None:
        self._receive = request.receive
        self.begun = False
        self.finished = False
        self.held_size = 0
        self.has_turn = False

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield what is still to come.

        Raises:
            ClientDisconnect: Nothing more will.
        """
        self.begun = True
        while not self.finished:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            self.finished = not message.get("more_body", False)
            yield message.get("body", b"")


class _Complaints:
    """Tells the operator why requests are refused, at most every ten seconds.

    The official producers send in the background and show nobody what they are answered.
    """

    def __init__(self) -> None:
        self._quiet_until_s = 0.0
        self._unsaid = 0

    def add(self, error: BodyError) -> None:
        now_s = _monotonic()
        if now_s < self._quiet_until_s:
            self._unsaid += 1
            return
        more = f" ({self._unsaid} more before it)" if self._unsaid else ""
        _LOGGER.warning("refused with %d: %s%s", error.status_code, error.detail, more)
        self._quiet_until_s = now_s + _COMPLAINT_INTERVAL_S
        self._unsaid = 0


async def _on_thread(
    threads: ThreadPoolExecutor, function: Callable[..., _Result], *arguments: Any
) -> _Result:
    return await asyncio.get_running_loop().run_in_executor(threads, function, *arguments)


async def _refused(_: Request, error: Exception) -> Response:
    """Answer what no route takes."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"detail": error.detail}, error.status_code, headers=error.headers)


async def _failed(_: Request, error: Exception) -> Response:
    _LOGGER.error("a request failed", exc_info=error)
    return JSONResponse({"detail": "internal error; see the store's log"}, 500)
