"""The endpoints of the Vision Events API, as Starlette handlers.

A handler reads, judges and stores; the answers are exactly the documented ones: the status, and
`{"error": text}` for everything that is refused. Parsing, judging and SQLite run in a worker
thread, so that one large batch does not hold up the other connections.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from vevents.emulator import gate
from vevents.emulator.bodies import RequestRefusedError, parse_json, read_body, read_json_object
from vevents.emulator.bundle import unpack_bundle
from vevents.emulator.config import EmulatorConfig
from vevents.emulator.connection import App, Message, Receive, Scope, Send
from vevents.emulator.images import ACCEPTED_FORMATS, image_mime
from vevents.emulator.introspection import introspection_routes
from vevents.emulator.misbehaviour import FaultMiddleware
from vevents.emulator.plan import FaultPlan
from vevents.emulator.query import read_query, write_cursor
from vevents.emulator.storage import NameTakenError, NewEvent, NewImage, Storage, source_ids_of
from vevents.emulator.validation import EventRules, Problem, Verdict, first_problem, judge_event

Handler = Callable[[Request], Awaitable[Response]]

API_PREFIX = "/vision-events"
IMAGES_PATH = "/__emulator__/images"
# What a multipart form may add to the image in it: headers, name, metadata.
_FORM_OVERHEAD_MAX = 1_048_576

_log = logging.getLogger("vevents.emulator.access")


class Emulator:
    """One emulator: its settings, what it keeps, what shall go wrong, and its ASGI application.

    Args:
        config: Settings.
        open_introspection: Whether `/__emulator__` answers without a key.

    Raises:
        ConfigurationError: The database cannot be used.
    """

    def __init__(self, config: EmulatorConfig, *, open_introspection: bool) -> None:
        self.config = config
        self.faults = FaultPlan()
        self.storage = Storage(
            config.database,
            use_cases=config.named_use_cases,
            image_directory=config.image_directory,
            image_kept_size_max=config.image_kept_size_max,
            clock=config.clock,
        )
        self._rate_limit = _rate_limit(config)
        self.app = Starlette(
            routes=[
                *self._routes(),
                *introspection_routes(self, open_to_all=open_introspection),
            ],
            middleware=[
                Middleware(FaultMiddleware, plan=self.faults, clock=config.clock),
                Middleware(_Accounts, emulator=self),
            ],
            exception_handlers={
                RequestRefusedError: _refused,
                HTTPException: _http_error,
                Exception: _internal_error,
            },
            lifespan=self._lifespan,
        )
        self.app.state.emulator = self

    def change(self, settings: Mapping[str, Any]) -> None:
        """Go on with other settings, from the next request on.

        Raises:
            ConfigurationError: One of them makes no sense, or cannot change in mid-run.
        """
        config = self.config.changed(settings)
        if not settings.keys().isdisjoint(("rate_limit_per_s", "rate_limit_burst")):
            self._rate_limit = _rate_limit(config)
        self.config = config

    def close(self) -> None:
        """Close the database; `counts()` goes on answering."""
        self.storage.close()

    def counts(self) -> dict[str, Any]:
        """Return everything that is counted, see docs/emulator.md."""
        return self.storage.counts() | {"injected": self.faults.injected}

    @contextlib.asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        yield
        self.close()

    def _routes(self) -> list[Route]:
        def route(path: str, method: str, scopes: frozenset[str], handler: Handler) -> Route:
            guarded = functools.partial(self._guarded, scopes, handler)
            return Route(f"{API_PREFIX}{path}", _endpoint(guarded), methods=[method])

        return [
            route("", "POST", gate.WRITE, self._create_event),
            route("/batch", "POST", gate.WRITE, self._create_batch),
            route("/upload", "POST", gate.WRITE, self._upload_image),
            route("/bundle", "POST", gate.WRITE, self._upload_bundle),
            route("/query", "POST", gate.READ, self._query),
            route("/use-cases", "GET", gate.READ, self._list_use_cases),
            route("/use-cases", "POST", gate.MANAGE, self._create_use_case),
            route("/use-cases/{use_case_id}", "PUT", gate.MANAGE, self._rename_use_case),
            route("/use-cases/{use_case_id}/archive", "POST", gate.MANAGE, self._archive),
            route("/use-cases/{use_case_id}/unarchive", "POST", gate.MANAGE, self._unarchive),
            route("/custom-metadata-schema/{use_case_id}", "GET", gate.READ, self._metadata_schema),
        ]

    async def _guarded(
        self, scopes: frozenset[str], handler: Handler, request: Request
    ) -> Response:
        key = gate.find_key(request, self.config.keys)
        if key is None:
            raise RequestRefusedError(401, "The API key is missing or not valid.")
        if not key.allows(scopes):
            raise RequestRefusedError(403, "Insufficient permissions for this resource.")
        rate_limit = self._rate_limit
        if rate_limit is not None:
            wait_s = rate_limit.wait_s(key)
            if wait_s:
                error = {"error": "Too many requests."}
                return JSONResponse(error, 429, headers={"Retry-After": str(wait_s)})
        return await handler(request)

    # --- events ----------------------------------------------------------------------------------

    async def _create_event(self, request: Request) -> Response:
        body = await read_json_object(request, self.config.json_size_max)
        return await run_in_threadpool(self._store_single, body, (), ())

    def _store_single(
        self, body: dict[str, Any], images: Sequence[NewImage], known_problems: Sequence[Problem]
    ) -> Response:
        verdict = self._judge(body, self._rules(), images)
        problems = [*known_problems, *verdict.problems]
        warnings = list(verdict.warnings)
        event = verdict.event
        if known_problems and self.config.degrade_images and event is not None:
            # The problems that are known beforehand are those of a bundle's images.
            warnings = warnings or [f"all images were dropped: {known_problems[0]}"]
            event = {k: v for k, v in event.items() if k not in ("images", "displayImagePosition")}
            problems = []
        if problems or event is None:
            raise RequestRefusedError(400, _refusal_text(problems))
        kept_images = images if event.get("images") else ()
        self.storage.put_events([NewEvent(event, verdict.timestamp_us, warnings)], kept_images)
        return JSONResponse({"eventId": event["eventId"], "created": True}, 201)

    async def _create_batch(self, request: Request) -> Response:
        body = await read_json_object(request, self.config.json_size_max)
        return await run_in_threadpool(self._store_batch, body)

    def _store_batch(self, body: dict[str, Any]) -> Response:
        problem = first_problem("batch", body)
        if problem is not None:
            raise RequestRefusedError(400, str(problem))
        count, count_max = len(body["events"]), self.config.batch_count_max
        if count > count_max:
            raise RequestRefusedError(400, f"events: has {count} items, more than {count_max}")
        rules = self._rules()
        verdicts = [self._judge(each, rules) for each in body["events"]]
        refused = [
            verdict.problems[0].under(f"events[{index}]")
            for index, verdict in enumerate(verdicts)
            if verdict.event is None
        ]
        # Of two events with the same id the last one wins, at the place of the first.
        accepted = {
            verdict.event["eventId"]: NewEvent(
                verdict.event, verdict.timestamp_us, verdict.warnings
            )
            for verdict in verdicts
            if verdict.event is not None
        }
        if refused and not (self.config.partial_batches and accepted):
            raise RequestRefusedError(400, _refusal_text(refused))
        self.storage.put_events(list(accepted.values()))
        return JSONResponse({"created": len(accepted), "eventIds": list(accepted)}, 201)

    async def _upload_bundle(self, request: Request) -> Response:
        archive = await read_body(request, self.config.bundle_size_max, what="the bundle")
        use_case_id = request.query_params.get("useCaseId")
        return await run_in_threadpool(self._store_bundle, archive, use_case_id)

    def _store_bundle(self, archive: bytes, use_case_id: str | None) -> Response:
        bundle = unpack_bundle(
            archive,
            use_case_id=use_case_id,
            unpacked_size_max=self.config.bundle_unpacked_size_max,
            image_size_max=self.config.image_size_max,
        )
        return self._store_single(bundle.event, bundle.images, bundle.problems)

    def _judge(self, body: object, rules: EventRules, images: Sequence[NewImage] = ()) -> Verdict:
        verdict = judge_event(body, rules)
        if not self.config.require_known_images or verdict.event is None:
            return verdict
        brought = {image.source_id for image in images}
        named = [each for each in source_ids_of(verdict.event) if each not in brought]
        missing = self.storage.missing_images(named)
        if not missing:
            return verdict
        reason = f"no image {missing[0]!r} was uploaded"
        return Verdict(None, problems=[Problem("images", reason)])

    def _rules(self) -> EventRules:
        return EventRules(
            now=self._now(),
            use_case_ids=self.storage.use_case_ids(),
            strict_event_data=self.config.strict_event_data,
            strict_fields=self.config.strict_fields,
            degrade_images=self.config.degrade_images,
        )

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.config.clock(), UTC)

    async def _query(self, request: Request) -> Response:
        body = await read_json_object(request, self.config.json_size_max)
        return await run_in_threadpool(self._answer_query, body)

    def _answer_query(self, body: dict[str, Any]) -> Response:
        selection = read_query(body, now=self._now(), lookback_days=self.config.lookback_days)
        if self.storage.use_case_status(selection.use_case_id) is None:
            raise RequestRefusedError(
                400, f"useCaseId: no use case {selection.use_case_id!r} exists"
            )
        events, position = self.storage.select(selection)
        return JSONResponse(
            {
                "events": events,
                "nextCursor": None if position is None else write_cursor(position),
                "hasMore": position is not None,
                "lookbackDays": self.config.lookback_days,
            }
        )

    # --- images ----------------------------------------------------------------------------------

    async def _upload_image(self, request: Request) -> Response:
        size_max = self.config.image_size_max + _FORM_OVERHEAD_MAX
        body = await read_body(request, size_max, what="the form")
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            raise RequestRefusedError(400, "Content-Type must be multipart/form-data")
        async with _with_body(request, body).form(max_files=1) as form:
            file = form.get("file")
            if not isinstance(file, UploadFile):
                raise RequestRefusedError(400, "file: a part with a file is required")
            data = await file.read()
            name, metadata = form.get("name"), form.get("metadata")
        if len(data) > self.config.image_size_max:
            raise RequestRefusedError(
                413, f"file: is larger than {self.config.image_size_max} bytes"
            )
        if isinstance(name, UploadFile) or isinstance(metadata, UploadFile):
            raise RequestRefusedError(400, "name and metadata must be plain fields of the form")
        source_id = await run_in_threadpool(
            self._store_image, data, name or file.filename, metadata
        )
        url = f"{request.base_url}{IMAGES_PATH.lstrip('/')}/{source_id}"
        return JSONResponse({"success": True, "sourceId": source_id, "url": url}, 201)

    def _store_image(self, data: bytes, name: str | None, metadata: str | None) -> str:
        mime = image_mime(data)
        if mime is None:
            raise RequestRefusedError(400, f"file: is not {ACCEPTED_FORMATS}")
        fields: Any = {}
        if metadata is not None:
            fields = parse_json(metadata.encode(), what="metadata")
            problem = first_problem("metadata", fields)
            if problem is not None:
                raise RequestRefusedError(400, str(problem.under("metadata")))
        image = NewImage(data, mime, name=name, metadata=fields)
        self.storage.put_image(image)
        return image.source_id

    # --- use cases -------------------------------------------------------------------------------

    async def _list_use_cases(self, request: Request) -> Response:
        status = request.query_params.get("status", "active")
        if status not in ("active", "inactive"):
            raise RequestRefusedError(400, f"status: {status[:40]!r} is not active or inactive")
        # mypy does not narrow a string by a membership test.
        wanted: Literal["active", "inactive"] = "active" if status == "active" else "inactive"
        use_cases = await run_in_threadpool(self.storage.list_use_cases, wanted)
        return JSONResponse({"useCases": use_cases, "lookbackDays": self.config.lookback_days})

    async def _create_use_case(self, request: Request) -> Response:
        name = await self._use_case_name(request)
        try:
            use_case_id = await run_in_threadpool(self.storage.create_use_case, name)
        except NameTakenError as taken:
            raise _name_taken() from taken
        return JSONResponse({"id": use_case_id, "name": name}, 201)

    async def _rename_use_case(self, request: Request) -> Response:
        use_case_id = request.path_params["use_case_id"]
        name = await self._use_case_name(request)
        try:
            done = await run_in_threadpool(self.storage.rename_use_case, use_case_id, name)
        except NameTakenError as taken:
            raise _name_taken() from taken
        if not done:
            raise _no_such_use_case()
        return JSONResponse({"id": use_case_id, "name": name})

    async def _archive(self, request: Request) -> Response:
        await self._change_status(request, "inactive")
        return JSONResponse({"success": True})

    async def _unarchive(self, request: Request) -> Response:
        if await self._change_status(request, "active") == "active":
            raise RequestRefusedError(400, "The use case is not archived.")
        return JSONResponse({"success": True})

    async def _change_status(
        self, request: Request, status: Literal["active", "inactive"]
    ) -> Literal["active", "inactive"]:
        """Set the status and return the one before."""
        use_case_id = request.path_params["use_case_id"]
        before = await run_in_threadpool(self.storage.use_case_status, use_case_id)
        if before is None:
            raise _no_such_use_case()
        await run_in_threadpool(self.storage.set_use_case_status, use_case_id, status)
        return before

    async def _metadata_schema(self, request: Request) -> Response:
        use_case_id = request.path_params["use_case_id"]
        if await run_in_threadpool(self.storage.use_case_status, use_case_id) is None:
            raise _no_such_use_case()
        fields = await run_in_threadpool(self.storage.metadata_fields, use_case_id)
        return JSONResponse({"fields": {name: {"types": types} for name, types in fields.items()}})

    async def _use_case_name(self, request: Request) -> str:
        body = await read_json_object(request, self.config.json_size_max)
        problem = first_problem("useCaseName", body)
        if problem is not None:
            raise RequestRefusedError(400, str(problem))
        name: str = body["name"].strip()
        if not 1 <= len(name) <= 256:
            raise RequestRefusedError(400, "name: must have 1 to 256 characters")
        return name


class _Accounts:
    """Counts refusals and writes the access log; faults stay in front of it, uncounted here."""

    def __init__(self, app: App, emulator: Emulator) -> None:
        self._app = app
        self._emulator = emulator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(API_PREFIX):
            await self._app(scope, receive, send)
            return
        began = time.monotonic()

        async def counting_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                status = message["status"]
                if status >= 400:
                    # Before the client can see the answer and ask for the counts.
                    await run_in_threadpool(self._emulator.storage.count_refusal, status)
                if self._emulator.config.access_log:
                    # Without the query string: it may hold a key.
                    took_ms = (time.monotonic() - began) * 1e3
                    _log.info("%s %s %d %.1f ms", scope["method"], scope["path"], status, took_ms)
            await send(message)

        # A client that left during its own request needs no answer and is no failure.
        with contextlib.suppress(ClientDisconnect):
            await self._app(scope, receive, counting_send)


def _rate_limit(config: EmulatorConfig) -> gate.RateLimit | None:
    if config.rate_limit_per_s is None:
        return None
    return gate.RateLimit(config.rate_limit_per_s, config.rate_limit_burst)


def _endpoint(handler: Handler) -> Handler:
    """Make a function of a partial object, which Starlette would take for an ASGI application."""

    async def endpoint(request: Request) -> Response:
        return await handler(request)

    return endpoint


def _with_body(request: Request, body: bytes) -> Request:
    """Return the same request with a body that is read (and unpacked) already."""

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return Request(request.scope, receive)


def _refusal_text(problems: Sequence[Problem]) -> str:
    shown = "; ".join(map(str, problems[:3]))
    more = len(problems) - 3
    return shown if more <= 0 else f"{shown}; and {more} more"


def _name_taken() -> RequestRefusedError:
    return RequestRefusedError(400, "A solution with this name already exists")


def _no_such_use_case() -> RequestRefusedError:
    return RequestRefusedError(404, "No such use case.")


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestRefusedError)
    return JSONResponse({"error": error.text}, error.status_code)


async def _http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)


async def _internal_error(_request: Request, _error: Exception) -> Response:
    return JSONResponse({"error": "internal error"}, 500)
