"""Reading a request's body within its limit: Content-Encoding, then JSON as JSON.parse sees it."""

from __future__ import annotations

import json
import zlib
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

_GZIP_WBITS = 31


class RequestRefusedError(Exception):
    """A request that is answered with an error.

    Attributes:
        status_code: The HTTP status.
        text: What goes into `{"error": text}`.
    """

    def __init__(self, status_code: int, text: str) -> None:
        super().__init__(text)
        self.status_code = status_code
        self.text = text


def _too_large(what: str, size_max: int) -> RequestRefusedError:
    return RequestRefusedError(413, f"{what} is larger than {size_max} bytes")


async def read_body(request: Request, size_max: int, *, what: str = "the request body") -> bytes:
    """Read and unpack the body.

    Args:
        request: Its stream must not have been read.
        size_max: Bytes, before and after unpacking.
        what: Names the body in the error.

    Raises:
        RequestRefusedError: 413 beyond `size_max`, 415 for an encoding other than gzip, 400 for
            broken gzip data.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", "x-gzip"):
        raise RequestRefusedError(415, f"Content-Encoding {encoding[:40]!r} is not supported")
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > size_max:
        raise _too_large(what, size_max)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > size_max:
            raise _too_large(what, size_max)
    if encoding == "identity":
        return bytes(body)
    return await run_in_threadpool(gunzip, bytes(body), size_max, what=what)


def gunzip(data: bytes, size_max: int, *, what: str) -> bytes:
    """Unpack gzip data, never holding more than `size_max` bytes of it.

    Raises:
        RequestRefusedError: 413 beyond `size_max`, 400 for broken or cut data.
    """
    unpacked = bytearray()
    while data:
        member = zlib.decompressobj(_GZIP_WBITS)
        try:
            unpacked += member.decompress(data, size_max + 1 - len(unpacked))
        except zlib.error as broken:
            raise RequestRefusedError(400, f"{what} is not valid gzip data") from broken
        if len(unpacked) > size_max:
            raise RequestRefusedError(413, f"{what} unpacks to more than {size_max} bytes")
        if not member.eof:
            raise RequestRefusedError(400, f"{what} is not valid gzip data: it ends too early")
        data = member.unused_data
    return bytes(unpacked)


def parse_json(raw: bytes, *, what: str = "the request body") -> Any:
    """Parse JSON as strictly as JSON.parse: UTF-8, no NaN, no Infinity.

    Raises:
        RequestRefusedError: 400; the text says where it went wrong.
    """
    try:
        text = raw.decode("utf-8")
        parsed = json.loads(text, parse_constant=_refuse_constant)
    except UnicodeDecodeError as broken:
        raise RequestRefusedError(400, f"{what} is not UTF-8 (byte {broken.start})") from broken
    except RecursionError as broken:
        raise RequestRefusedError(400, f"{what} is nested too deeply") from broken
    except ValueError as broken:
        raise RequestRefusedError(400, f"{what} is not valid JSON: {broken}") from broken
    # Half of a surrogate pair can be written as an escape, but is no text and cannot be stored.
    if "\\ud" in text or "\\uD" in text:
        try:
            json.dumps(parsed, ensure_ascii=False).encode()
        except (UnicodeEncodeError, RecursionError) as broken:
            raise RequestRefusedError(400, f"{what} holds half of a surrogate pair") from broken
    return parsed


async def read_json_object(request: Request, size_max: int) -> dict[str, Any]:
    """Read a JSON object from the body.

    Raises:
        RequestRefusedError: As `read_body` and `parse_json`; 400 when it is not announced as JSON
            or is not an object.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise RequestRefusedError(400, "Content-Type must be application/json")
    parsed = await run_in_threadpool(parse_json, await read_body(request, size_max))
    if not isinstance(parsed, dict):
        raise RequestRefusedError(400, "the request body must be a JSON object")
    return parsed


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
