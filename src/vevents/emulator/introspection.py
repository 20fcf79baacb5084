"""The emulator's own paths, under `/__emulator__`: look at it, let it fail, change it, empty it.

They are no part of the API. On loopback they need no key; elsewhere any of the configured keys.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from vevents.emulator import gate
from vevents.emulator.bodies import RequestRefusedError, read_json_object
from vevents.emulator.plan import plan_from_json
from vevents.emulator.validation import schema
from vevents.errors import ConfigurationError

if TYPE_CHECKING:
    from vevents.emulator.routes import Emulator, Handler

_PREFIX = "/__emulator__"
_LIMIT_DEFAULT = 100
_LIMIT_MAX = 10_000
# Of our own, because the API's may just have been made very small.
_BODY_SIZE_MAX = 10_000_000


def introspection_routes(emulator: Emulator, *, open_to_all: bool) -> list[Route]:
    """List the routes.

    Args:
        emulator: Whose state they show.
        open_to_all: Whether they answer without a key.
    """

    def route(path: str, method: str, handler: Handler, *, health: bool = False) -> Route:
        async def endpoint(request: Request) -> Response:
            known = health or open_to_all or gate.find_key(request, emulator.config.keys)
            if not known:
                raise RequestRefusedError(401, "The API key is missing or not valid.")
            return await handler(request)

        return Route(f"{_PREFIX}{path}", endpoint, methods=[method])

    return [
        route("/health", "GET", _health, health=True),
        route("/schema", "GET", _schema),
        route("/counts", "GET", functools.partial(_counts, emulator)),
        route("/events", "GET", functools.partial(_events, emulator)),
        route("/events", "DELETE", functools.partial(_clear, emulator)),
        route("/images", "GET", functools.partial(_images, emulator)),
        route("/images/{source_id}", "GET", functools.partial(_image, emulator)),
        route("/faults", "GET", functools.partial(_faults, emulator)),
        route("/faults", "POST", functools.partial(_add_faults, emulator)),
        route("/faults", "DELETE", functools.partial(_clear_faults, emulator)),
        route("/settings", "GET", functools.partial(_settings, emulator)),
        route("/settings", "PATCH", functools.partial(_change_settings, emulator)),
    ]


async def _health(_request: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _schema(_request: Request) -> Response:
    return JSONResponse(schema())


async def _counts(emulator: Emulator, _request: Request) -> Response:
    return JSONResponse(await run_in_threadpool(emulator.counts))


async def _events(emulator: Emulator, request: Request) -> Response:
    events = await run_in_threadpool(
        functools.partial(
            emulator.storage.list_events,
            use_case_id=request.query_params.get("use_case_id"),
            event_id=request.query_params.get("event_id"),
            after=_number(request, "after", 0, 2**62),
            limit=_number(request, "limit", _LIMIT_DEFAULT, _LIMIT_MAX),
        )
    )
    return JSONResponse({"events": events})


async def _clear(emulator: Emulator, _request: Request) -> Response:
    await run_in_threadpool(emulator.storage.clear)
    return JSONResponse({"success": True})


async def _images(emulator: Emulator, request: Request) -> Response:
    orphaned = request.query_params.get("orphaned")
    if orphaned not in (None, "true", "false"):
        raise RequestRefusedError(400, "orphaned: must be true or false")
    images = await run_in_threadpool(
        functools.partial(
            emulator.storage.list_images,
            orphaned=None if orphaned is None else orphaned == "true",
            after=_number(request, "after", 0, 2**62),
            limit=_number(request, "limit", _LIMIT_DEFAULT, _LIMIT_MAX),
        )
    )
    return JSONResponse({"images": images})


async def _image(emulator: Emulator, request: Request) -> Response:
    source_id = request.path_params["source_id"]
    found = await run_in_threadpool(emulator.storage.image_content, source_id)
    if found is None:
        raise RequestRefusedError(404, "No such image, or its bytes are no longer kept.")
    mime, content = found
    return Response(content, media_type=mime)


async def _faults(emulator: Emulator, _request: Request) -> Response:
    plan = emulator.faults
    return JSONResponse(
        {
            "pending": plan.pending,
            "injected": plan.injected,
            "chaos": None if plan.chaos is None else str(plan.chaos),
            "history": plan.history,
        }
    )


async def _add_faults(emulator: Emulator, request: Request) -> Response:
    body = await read_json_object(request, _BODY_SIZE_MAX)
    try:
        plan_from_json(emulator.faults, body)
    except ConfigurationError as wrong:
        raise RequestRefusedError(400, str(wrong)) from wrong
    return JSONResponse({"pending": emulator.faults.pending}, 201)


async def _clear_faults(emulator: Emulator, _request: Request) -> Response:
    emulator.faults.clear()
    return JSONResponse({"success": True})


async def _settings(emulator: Emulator, _request: Request) -> Response:
    return JSONResponse(emulator.config.changeable)


async def _change_settings(emulator: Emulator, request: Request) -> Response:
    body = await read_json_object(request, _BODY_SIZE_MAX)
    try:
        emulator.change(body)
    except ConfigurationError as wrong:
        raise RequestRefusedError(400, str(wrong)) from wrong
    return JSONResponse(emulator.config.changeable)


def _number(request: Request, name: str, default: int, maximum: int) -> int:
    given = request.query_params.get(name)
    if given is None:
        return default
    if not (given.isascii() and given.isdecimal() and len(given) < 20 and int(given) <= maximum):
        raise RequestRefusedError(400, f"{name}: must be a number up to {maximum}")
    return int(given)
