"""One function per endpoint of the Vision Events API, and what its answers mean.

Every call either returns what a success carries or raises one of the `DeliveryError`s of
`vevents.errors`. Only the documented status is a success: 201 where something is created, 200 for
reads. Everything that does not look like the API's own answer (a login page of a guest network, a
redirect, a proxy's error page) counts as "not reached", so that it can never be taken for a
refusal of the events; whether all requests meet it is for the caller to find out.

The key travels in the `Authorization` header alone, never in an address, and no redirect is
followed with it. What a proxy asks for is its own: user and password are never shown.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import urlsplit

from vevents.delivery.tls import Tls, utc_text
from vevents.errors import (
    AuthorizationError,
    BlockedError,
    ConfigurationError,
    DeliveryError,
    NoAnswerError,
    RefusedError,
    ServerError,
    ThrottledError,
    UnreachableError,
)
from vevents.settings import DEFAULT_API_URL, ProxyUrl, Secret

if TYPE_CHECKING:
    import httpx

_REASON_LENGTH_MAX = 500
_ANSWER_SIZE_MAX = 16 * 2**20
_CLOCK_SAMPLES = 3
# A body goes in pieces: the HTTP library copies what is left of a piece whenever the network takes
# a part of it, over TLS 16 kB at a time.
_PIECE_SIZE = 65_536
# The slowest link that counts as progress, bytes of a body per second.
RATE_MIN = 1_000

# Time in suspend counts where the system has a clock that counts it, as it does on the wall.
_SINCE_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

_PROXY_VARIABLES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")

# What OpenSSL's checks of a certificate call their findings (X509_V_ERR_...).
_NOT_YET_VALID, _EXPIRED = 9, 10
_UNKNOWN_AUTHORITY = (2, 18, 19, 20, 21)
# A server that wants to know who calls says so with one of these, often only after the handshake.
_CERTIFICATE_WANTED = re.compile(r"CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE")
_CERTIFICATE_REFUSED = re.compile(
    r"ALERT_(BAD_CERTIFICATE|UNSUPPORTED_CERTIFICATE|CERTIFICATE_\w+|UNKNOWN_CA|ACCESS_DENIED)"
)

_GZIP_START = b"\x1f\x8b"
_WHAT_TO_DO = {
    401: "the server does not know this API key; check ROBOFLOW_API_KEY",
    402: "the workspace's plan does not cover this request; see its billing page",
    403: (
        "the API key lacks the right for this; it needs the scope vision-events:write or "
        "device:update (also spelled visionEvents.write, device.update) to send, and "
        "vision-events:read or device:read to read"
    ),
    423: "the workspace is locked or paused; see its settings",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds after which a request is given up.

    Attributes:
        connect_s: Until the connection stands.
        read_s: Until the server's next bytes.
        write_s: Until the network takes the next bytes.
        request_s: For the whole request, whatever progress it makes; for each 1,000 bytes of its
            body there is a second more.
    """

    connect_s: float = 10.0
    read_s: float = 30.0
    write_s: float = 30.0
    request_s: float = 120.0


@dataclass(frozen=True, slots=True)
class UseCase:
    """One use case of the workspace."""

    id: str
    name: str
    status: str | None


@dataclass(frozen=True, slots=True)
class UseCaseList:
    """The workspace's use cases, and for how many days it shows events (None: not said)."""

    use_cases: tuple[UseCase, ...]
    lookback_days: int | None


@dataclass(frozen=True, slots=True)
class QueryPage:
    """One page of events, as the server stores them; `next_cursor` is None on the last page."""

    events: tuple[dict[str, Any], ...]
    next_cursor: str | None
    lookback_days: int | None


class Client:
    """A connection to the Vision Events API. Use it as a context manager, or `close()` it.

    Args:
        api_key: Key of the workspace.
        api_url: Base of the API.
        timeouts: When to give up.
        proxy: The proxy to go through, whatever the address; None leaves it to HTTPS_PROXY,
            ALL_PROXY and NO_PROXY.
        tls: Whom to trust and what to show; None for the usual.
        transport: Stands in for the network in tests.
        clock: Seconds since 1970, to compare with the server's clock.
        monotonic: Seconds of a clock that is never set; the server's time goes on by it.

    Raises:
        ConfigurationError: `api_url` is not an address, a certificate or key cannot be used, or
            the proxy needs a package that is not installed.

    Nothing is connected, and the HTTP library not even loaded, before the first request: a flush
    that finds nothing to send is over in no time. Threads may share a client.

    Example:
        >>> with Client("rf_...") as client:  # doctest: +SKIP
        ...     client.create_batch([b'{"eventId": ...}'])
    """

    def __init__(
        self,
        api_key: Secret | str,
        *,
        api_url: str = DEFAULT_API_URL,
        timeouts: Timeouts | None = None,
        proxy: ProxyUrl | None = None,
        tls: Tls | None = None,
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = lambda: time.clock_gettime(_SINCE_BOOT),
    ) -> None:
        self._secret = api_key if isinstance(api_key, Secret) else Secret(api_key)
        self._clock = clock
        self._monotonic = monotonic
        # What the server's clock showed when our monotonic one stood at 0.
        self._server_bases_s: deque[float] = deque(maxlen=_CLOCK_SAMPLES)
        self._lookback_days: int | None = None
        self._timeouts = Timeouts() if timeouts is None else timeouts
        self._proxy = proxy
        self._tls = Tls() if tls is None else tls
        self._transport = transport
        self._http: httpx.Client | None = None
        self._lock = threading.Lock()
        # What each thread's request has to keep to.
        self._present = threading.local()
        try:
            urlsplit(api_url).port  # noqa: B018
        except ValueError as error:
            raise ConfigurationError(f"{api_url!r} is not an address: {error}") from error
        self._api_url = api_url.rstrip("/")
        self._tls.check(clock)
        _check_proxy(proxy)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            if self._http is not None:
                self._http.close()

    @property
    def clock_offset_s(self) -> float | None:
        """Seconds by which the server's clock is ahead of ours; None before its first answer.

        The median of its last answers, so that one wrong date among three is not believed. True
        for our clock as it stands now, also if it was set since those answers.
        """
        bases_s = sorted(self._server_bases_s)
        if not bases_s:
            return None
        return bases_s[(len(bases_s) - 1) // 2] + self._monotonic() - self._clock()

    @property
    def clock_is_sure(self) -> bool:
        """Whether the server told its time often enough to be believed against our clock."""
        return len(self._server_bases_s) == _CLOCK_SAMPLES

    @property
    def lookback_days(self) -> int | None:
        """For how many days the workspace shows events; None before an answer has said it."""
        return self._lookback_days

    def create_event(self, event: bytes, *, within_s: float | None = None) -> str:
        """Create one event, or overwrite the one with the same `eventId`.

        Args:
            event: The event as one JSON object, UTF-8.
            within_s: Give up after so many seconds if `Timeouts.request_s` leaves more; here as in
                the other calls.

        Returns:
            The `eventId` that the server names in its answer.

        Raises:
            DeliveryError: It is not known to be stored; the class says why.
        """
        answer = self._call(
            "POST",
            "/vision-events",
            201,
            content=event,
            content_type="application/json",
            within_s=within_s,
        )
        event_id: str = _field(answer, "eventId", str)
        return event_id

    def create_batch(self, events: Sequence[bytes], *, within_s: float | None = None) -> list[str]:
        """Create up to 100 events.

        Args:
            events: The events, each one JSON object, UTF-8.

        Returns:
            The `eventId`s that the server says it stored. One that was sent and is not among them
            is not known to be stored.

        Raises:
            DeliveryError: None is known to be stored; the class says why.
        """
        content = batch_body(events)
        answer = self._call(
            "POST",
            "/vision-events/batch",
            201,
            content=content,
            content_type="application/json",
            within_s=within_s,
        )
        return [str(event_id) for event_id in _field(answer, "eventIds", list)]

    def upload_image(
        self, image: bytes | memoryview, *, name: str, mime: str, within_s: float | None = None
    ) -> str:
        """Upload one image. There is no idempotency: the same bytes twice give two ids.

        Args:
            image: The encoded image.
            name: File name to show, ASCII without quotes and control characters.
            mime: For example `image/jpeg`.

        Returns:
            The `sourceId` to name in an event.

        Raises:
            DeliveryError: It is not known to be stored; the class says why.
        """
        boundary = os.urandom(16).hex()
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
            f"Content-Type: {mime}\r\n\r\n"
        )
        answer = self._call(
            "POST",
            "/vision-events/upload",
            201,
            content=(head.encode(), image, f"\r\n--{boundary}--\r\n".encode()),
            content_type=f"multipart/form-data; boundary={boundary}",
            within_s=within_s,
        )
        source_id = answer.get("sourceId")
        if not isinstance(source_id, str) or not source_id:
            # Complete, and yet no answer: to ask again would leave another copy there each time.
            raise ServerError(
                "the server took an image without naming its sourceId: is API_URL right, or is "
                "this vevents too old for it?",
                status_code=201,
            )
        return source_id

    def create_bundle(
        self,
        archive: bytes | Sequence[bytes | memoryview],
        *,
        use_case_id: str | None = None,
        within_s: float | None = None,
    ) -> str | None:
        """Create one event with its images in one request, or overwrite it.

        Args:
            archive: A tar of the bundle format, gzipped or not, at most 25 MiB; whole or in pieces
                that follow each other.
            use_case_id: Goes before the one in the bundle.

        Returns:
            The `eventId` that the answer names. None if it names none: then it may be anybody's,
            and who believes it makes sure that the API is at this address.

        Raises:
            DeliveryError: It is not known to be stored; the class says why.
        """
        params = {} if use_case_id is None else {"useCaseId": use_case_id}
        zipped = isinstance(archive, bytes) and archive.startswith(_GZIP_START)
        # Which 2xx this endpoint answers is not documented, nor whether there is a body.
        answer = self._call(
            "POST",
            "/vision-events/bundle",
            201,
            also=(200, 202, 204),
            may_be_empty=True,
            content=archive,
            content_type="application/gzip" if zipped else "application/x-tar",
            params=params,
            within_s=within_s,
        )
        if "error" in answer:
            raise ServerError(
                f"the server answered a bundle with {self._clean(json.dumps(answer))}",
                status_code=200,
            )
        event_id = answer.get("eventId")
        return event_id if isinstance(event_id, str) else None

    def list_use_cases(
        self, *, status: str | None = None, within_s: float | None = None
    ) -> UseCaseList:
        """List the workspace's use cases.

        Args:
            status: `active` or `inactive`; None leaves it to the server, which means active.

        Raises:
            DeliveryError: There is no list; the class says why.
        """
        params = {} if status is None else {"status": status}
        answer = self._call(
            "GET", "/vision-events/use-cases", 200, params=params, within_s=within_s
        )
        # Older servers call use cases solutions.
        rows = _field(answer, "solutions" if "solutions" in answer else "useCases", list)
        self._lookback_days = _whole(answer.get("lookbackDays"))
        return UseCaseList(
            use_cases=tuple(
                UseCase(str(row.get("id")), str(row.get("name")), row.get("status"))
                for row in rows
                if isinstance(row, dict)
            ),
            lookback_days=self._lookback_days,
        )

    def query(self, query: Mapping[str, Any]) -> QueryPage:
        """Read one page of stored events.

        Args:
            query: The filter as on the wire; `useCaseId` is required by the server. Put the
                `next_cursor` of the page before into `cursor`.

        Raises:
            DeliveryError: There is no page; the class says why.
        """
        content = json.dumps(query, allow_nan=False).encode()
        answer = self._call(
            "POST", "/vision-events/query", 200, content=content, content_type="application/json"
        )
        events = _field(answer, "events", list)
        cursor = answer.get("nextCursor")
        more = bool(answer.get("hasMore")) and bool(events) and bool(cursor)
        return QueryPage(
            events=tuple(event for event in events if isinstance(event, dict)),
            next_cursor=str(cursor) if more else None,
            lookback_days=_whole(answer.get("lookbackDays")),
        )

    def request(
        self,
        method: str,
        path: str,
        *,
        success: int = 200,
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Make a request that has no function of its own here, and return the answer as it is.

        Args:
            method: Of HTTP.
            path: Below the API's base, with what is variable in it percent-encoded.
            success: The status that says so.
            body: Sent as JSON.
            params: Of the query.

        Raises:
            DeliveryError: It did not succeed; the class says why.
        """
        content = () if body is None else json.dumps(body, allow_nan=False).encode()
        kind = None if body is None else "application/json"
        return self._call(
            method,
            path,
            success,
            content=content,
            content_type=kind,
            params=params,
        )

    def _connected(self) -> httpx.Client:
        """Return the HTTP library's client, made when the first request needs it."""
        with self._lock:
            if self._http is None:
                self._http = self._connect()
            return self._http

    def _connect(self) -> httpx.Client:
        _load_http_library()
        import httpx

        from vevents import __version__

        try:
            httpx.URL(self._api_url)
        except httpx.InvalidURL as error:
            raise ConfigurationError(f"{self._api_url!r} is not an address: {error}") from error
        tls: Any = True if self._transport is not None else self._tls.make_context()
        proxy = None
        if self._proxy is not None:
            # The proxy is not the server: it has no business with the device's certificate.
            encrypted = self._proxy.address.startswith("https:")
            context = Tls(ca_files=self._tls.ca_files).make_context() if encrypted else None
            proxy = httpx.Proxy(self._proxy.address, auth=self._proxy.login, ssl_context=context)
        try:
            return httpx.Client(
                headers={
                    "Authorization": f"Bearer {self._secret.reveal()}",
                    "User-Agent": f"vevents/{__version__}",
                    "Accept": "application/json",
                },
                follow_redirects=False,
                verify=tls,
                proxy=proxy,
                transport=self._transport,
            )
        except (ValueError, ImportError, httpx.InvalidURL):
            # `from None`: the error may quote an address with a password.
            raise ConfigurationError(
                f"{', '.join([*_proxies_set(), 'NO_PROXY'])}: not as they should be"
            ) from None

    def _call(
        self,
        method: str,
        path: str,
        success: int,
        *,
        also: Sequence[int] = (),
        may_be_empty: bool = False,
        content: bytes | Sequence[bytes | memoryview] = (),
        content_type: str | None = None,
        params: Mapping[str, str] | None = None,
        within_s: float | None = None,
    ) -> dict[str, Any]:
        _load_http_library()
        import httpx

        parts = (content,) if isinstance(content, bytes) else content
        size = sum(map(len, parts))
        deadline = self._present.deadline = _Deadline(self._timeouts, size, within_s)
        headers: dict[str, str] = {}
        if content_type is not None:
            headers = {"Content-Type": content_type, "Content-Length": str(size)}
        url = self._api_url + path
        pieces = deadline.pieces(parts)
        try:
            http = self._connected()
        except ConfigurationError as error:
            # It was right at the start: somebody is exchanging a certificate just now.
            raise UnreachableError(str(error)) from error
        try:
            with http.stream(
                method,
                url,
                content=pieces if parts else None,
                params=params,
                headers=headers,
                timeout=httpx.Timeout(**deadline.timeouts()),
                extensions={"trace": self._watch},
            ) as response:
                body = _read(response, deadline)
        except _TooLateError as error:
            raise NoAnswerError(f"{self._api_url}: no complete answer: {error}") from None
        except (
            httpx.ConnectError,
            httpx.ConnectTimeout,
            httpx.PoolTimeout,
            httpx.ProxyError,
            httpx.UnsupportedProtocol,
        ) as error:
            raise UnreachableError(f"{self._api_url}: {self._transport_words(error)}") from error
        except httpx.TransportError as error:
            if _is_refused_handshake(error):
                raise UnreachableError(
                    f"{self._api_url}: {self._transport_words(error)}"
                ) from error
            raise NoAnswerError(
                f"{self._api_url}: no complete answer: {self._transport_words(error)}"
            ) from error
        except httpx.RequestError as error:
            raise UnreachableError(
                f"{self._api_url}: not an answer of the API: {self._transport_words(error)}",
            ) from error
        finally:
            # An error remembers where it came from, and that would hold the body for as long.
            pieces.close()
        if response.status_code == success or response.status_code in also:
            # A guest network answers 200, and with a page.
            if may_be_empty and not body and response.status_code != 200:
                return {}
            return self._success(response, body)
        raise self._failure(response, body, success)

    def _watch(self, step: str, info: Mapping[str, Any]) -> None:
        """Let no connection wait for longer than the request that uses it may take.

        The HTTP library waits for each byte anew, and for as long as a server says that it is at
        work (102): headers that trickle would hold a pass up for ever.
        """
        if not step.endswith(("connect_tcp.complete", "start_tls.complete")):
            return
        stream = info["return_value"]
        read = stream.read

        def read_in_time(size: int, timeout: float | None = None) -> bytes:
            deadline: _Deadline = self._present.deadline
            deadline.check()
            try:
                data: bytes = read(size, deadline.at_most(timeout))
            except Exception:
                deadline.check()
                raise
            return data

        stream.read = read_in_time

    def _success(self, response: httpx.Response, body: bytes) -> dict[str, Any]:
        status = response.status_code
        if not _is_json(response):
            raise self._blocked(
                f"{status} with {_content_type(response)} where the API answers JSON", status
            )
        answer = _object(body)
        if answer is None:
            raise NoAnswerError(
                f"{self._api_url} answered {status} with broken JSON", status_code=status
            )
        self._note_clock(response)
        return answer

    def _failure(self, response: httpx.Response, body: bytes, success: int) -> DeliveryError:
        status = response.status_code
        answer = _object(body) if _is_json(response) else None
        # The API's own errors have this form; what stands before it may speak JSON as well.
        from_api = answer is not None and isinstance(answer.get("error"), str)
        if from_api:
            self._note_clock(response)
        words = self._words(answer, response)
        # A date is one of the server's clock; ours may be years away from it.
        server_s = _http_date(response.headers.get("date"))
        now_s = self._clock() if server_s is None else server_s
        wait_s = parse_retry_after(response.headers.get("retry-after"), now_s=now_s)
        if status in (429, 529):
            return ThrottledError(
                f"the server asks to slow down ({status}): {words}",
                status_code=status,
                retry_after_s=wait_s,
            )
        # 511 is what guest networks send until somebody logs in.
        if status in (408, 425) or (status >= 500 and status != 511):
            return ServerError(
                f"the server failed ({status}): {words}", status_code=status, retry_after_s=wait_s
            )
        if 400 <= status < 500 and answer is not None and status != 407:
            if status in _WHAT_TO_DO and (from_api or status != 403):
                return AuthorizationError(
                    f"{_WHAT_TO_DO[status]} ({status}: {words})", status_code=status
                )
            if status != 403:
                return RefusedError(words, status_code=status, from_api=from_api)
        # Proxies in front of the API refuse a large body with a page of their own.
        if status == 413:
            return RefusedError(words, status_code=status, from_api=False)
        if status == 407:
            what = "a proxy that wants a login"
        elif 300 <= status < 400:
            what = "a redirect, which is not followed with the key"
        elif 200 <= status < 300 and (status != 200 or _is_json(response)):
            return UnreachableError(
                f"{self._api_url} answered {status} where the API answers {success}; is API_URL "
                "right, or is this vevents too old for it?",
                status_code=status,
            )
        elif answer is not None:
            what = f"{status} ({words}), and not in the API's form"
        else:
            what = f"{status} with {_content_type(response)}"
        return self._blocked(what, status)

    def _blocked(self, what: str, status: int) -> UnreachableError:
        # 407 and 511 are asked of every request, and with another 2xx it may have been done.
        one_only = status == 200 or (300 <= status < 500 and status != 407)
        kind = BlockedError if one_only else UnreachableError
        return kind(
            f"{self._api_url} answered {what}; is this a guest network's login page, a firewall, "
            "or a wrong API_URL?",
            status_code=status,
        )

    def _words(self, answer: dict[str, Any] | None, response: httpx.Response) -> str:
        """What the server says about its refusal, on one line, bounded, without the key."""
        words: Any = None
        if answer is not None:
            words = answer.get("error", answer.get("message", answer.get("detail")))
            if words is not None and not isinstance(words, str):
                words = json.dumps(words)
        text = words if isinstance(words, str) and words.strip() else response.reason_phrase
        return self._clean(text or "no reason given")

    def _transport_words(self, error: Exception) -> str:
        """What went wrong below HTTP, and what to do about it."""
        import httpx

        text = str(error) or type(error).__name__
        words = self._tls_words(error)
        if words is not None:
            text = words
        elif isinstance(error, httpx.ProxyError):
            hint = "; check the user and the password in its address" if "407" in text else ""
            name = ", ".join(_proxies_set()) if self._proxy is None else self._proxy.address
            text = f"the proxy {name} does not let us through ({text}){hint}"
        elif isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            # Of the environment's it is not known here whether NO_PROXY excepts the API.
            names = [f"{name} is set" for name in _proxies_set()]
            if self._proxy is not None:
                names = [f"through the proxy {self._proxy.address}"]
            text += f" ({', '.join(names)})" if names else ""
        # A server may hang up without saying why.
        faults = self._tls.out_of_date(self._clock())
        return self._clean("; ".join([text, *faults]))

    def _tls_words(self, error: Exception) -> str | None:
        """What a failed handshake means, or None if it was something else."""
        import ssl

        found = _cause(error, ssl.SSLError)
        if found is None:
            # A transport may hand on the words alone.
            hint = " (a device whose clock is wrong sees every certificate as invalid)"
            return f"{error}{hint}" if "certificate" in str(error).lower() else None
        now_s = self._clock()
        if isinstance(found, ssl.SSLCertVerificationError):
            code, words = found.verify_code, found.verify_message
            if code in (_NOT_YET_VALID, _EXPIRED):
                when = "is not valid yet" if code == _NOT_YET_VALID else "has expired"
                return (
                    f"the server's certificate {when}, or the clock of this device is wrong: it "
                    f"says {utc_text(now_s)} ({words})"
                )
            if code in _UNKNOWN_AUTHORITY:
                return (
                    "the server's certificate is from an authority that is not trusted here; "
                    "behind a proxy that inspects, or with a server of your own, name its "
                    f"authority in ca_file ({words})"
                )
            return f"the server's certificate is not accepted: {words}"
        reason = found.reason or str(found)
        if self._tls.client_cert is None and _CERTIFICATE_WANTED.search(reason):
            return (
                "the server wants a certificate from this device: set client_cert and client_key "
                f"({reason})"
            )
        if self._tls.client_cert is not None and (
            _CERTIFICATE_REFUSED.search(reason) or _CERTIFICATE_WANTED.search(reason)
        ):
            return (
                f"the server does not accept the certificate in {self._tls.client_cert} ({reason})"
            )
        return f"no encrypted connection: {reason}"

    def _clean(self, text: str) -> str:
        """Return the text on one line, bounded, without the key and the proxy's password."""
        login = () if self._proxy is None or self._proxy.login is None else self._proxy.login
        for secret in (self._secret.reveal(), *login[1:]):
            text = text.replace(secret, "***") if secret else text
        text = "".join(char if char.isprintable() else " " for char in text)
        text = " ".join(text.split())
        if len(text) > _REASON_LENGTH_MAX:
            return text[: _REASON_LENGTH_MAX - 1] + "…"
        return text

    def _note_clock(self, response: httpx.Response) -> None:
        """Note what the clock of the API shows; a guest network's may stand in 1970."""
        server_s = _http_date(response.headers.get("date"))
        if server_s is not None:
            self._server_bases_s.append(server_s - self._monotonic())


class _TooLateError(Exception):
    """A request is not over although it should be."""


class _Deadline:
    """When one request is to be over; the HTTP library only knows how long to wait for a step.

    It is looked at between the pieces of both bodies and before whatever is read, and no step may
    take longer than what was left at the begin.
    """

    def __init__(self, timeouts: Timeouts, size: int, within_s: float | None) -> None:
        self._timeouts = timeouts
        self._within_s = timeouts.request_s + size / RATE_MIN
        if within_s is not None:
            self._within_s = min(self._within_s, within_s)
        self._at_s = time.monotonic() + self._within_s

    def timeouts(self) -> dict[str, float]:
        """Return how long each step may take, as the HTTP library wants it."""
        # Zero would mean not to wait at all.
        most_s = max(self._within_s, 0.001)
        timeouts = self._timeouts
        return {
            "connect": min(timeouts.connect_s, most_s),
            "read": min(timeouts.read_s, most_s),
            "write": min(timeouts.write_s, most_s),
            "pool": min(timeouts.connect_s, most_s),
        }

    def at_most(self, timeout_s: float | None) -> float:
        """Return how long to wait for the next bytes."""
        left_s = max(self._at_s - time.monotonic(), 0.001)
        return left_s if timeout_s is None else min(timeout_s, left_s)

    def check(self) -> None:
        if time.monotonic() >= self._at_s:
            raise _TooLateError(f"the request was not over after {self._within_s:.1f} s")

    def pieces(self, parts: Sequence[bytes | memoryview]) -> Generator[bytes]:
        """Iterate over a body in pieces, without a copy of the whole."""
        for part in parts:
            with memoryview(part) as view:
                for start in range(0, len(view), _PIECE_SIZE):
                    self.check()
                    yield bytes(view[start : start + _PIECE_SIZE])


def batch_body(events: Sequence[bytes]) -> bytes:
    """Return the body of a batch request.

    Example:
        >>> batch_body([b'{"a":1}', b'{"b":2}'])
        b'{"events":[{"a":1},{"b":2}]}'
    """
    return b'{"events":[' + b",".join(events) + b"]}"


def parse_retry_after(value: str | None, *, now_s: float) -> float | None:
    """Return how many seconds a `Retry-After` header asks to wait.

    Args:
        value: The header: a number of seconds or an HTTP date; None if there is none.
        now_s: The time, seconds since 1970.

    Returns:
        Seconds, more than 0; None when the header is absent, makes no sense, or asks for no wait:
        who then came back at once, again and again, would not help a server in trouble.

    Example:
        >>> parse_retry_after("120", now_s=0)
        120.0
        >>> parse_retry_after("Thu, 01 Jan 1970 00:01:30 GMT", now_s=60)
        30.0
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        date_s = _http_date(value)
        seconds = 0.0 if date_s is None else date_s - now_s
    return seconds if math.isfinite(seconds) and seconds > 0 else None


def _load_http_library() -> None:
    """Import the HTTP library without its command line.

    That would bring rich and pygments along wherever these are installed: 5 MiB and 60 ms.
    """
    if "httpx" in sys.modules:
        return
    sys.modules["httpx._main"] = None  # type: ignore[assignment]
    try:
        import httpx  # noqa: F401
    finally:
        sys.modules.pop("httpx._main", None)


def _check_proxy(proxy: ProxyUrl | None) -> None:
    """Raise if the proxy, or one that the environment names, cannot be used."""
    proxies = {} if proxy is None else {"proxy": proxy}
    if proxy is None:
        for name, value in _proxies_set().items():
            try:
                proxies[name] = ProxyUrl(value)
            except ValueError as error:
                raise ConfigurationError(f"{name}: {error}") from None
    for name, item in proxies.items():
        if item.address.startswith("socks") and importlib.util.find_spec("socksio") is None:
            raise ConfigurationError(
                f"{name}: a SOCKS proxy needs one more package: pip install 'vevents[socks]'"
            )


def _proxies_set() -> dict[str, str]:
    """The proxies that the environment names, by variable; NO_PROXY may still except the API."""

    def value(name: str) -> str:
        return os.environ.get(name.lower()) or os.environ.get(name) or ""

    if "*" in [host.strip() for host in value("NO_PROXY").split(",")]:
        return {}
    return {name: value(name) for name in _PROXY_VARIABLES if value(name)}


_Error = TypeVar("_Error", bound=BaseException)


def _cause(error: BaseException | None, kind: type[_Error]) -> _Error | None:
    """Return the error of this kind that is behind another one."""
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error


def _is_refused_handshake(error: Exception) -> bool:
    """Whether the server hung up because of a certificate: then it has read no request.

    With TLS 1.3 the client is done before the server has looked at its certificate.
    """
    import ssl

    found = _cause(error, ssl.SSLError)
    reason = "" if found is None else found.reason or ""
    return bool(_CERTIFICATE_WANTED.search(reason) or _CERTIFICATE_REFUSED.search(reason))


def _http_date(value: str | None) -> float | None:
    if value is None:
        return None
    # Costly to load, and a flush with nothing to send has no answer to date.
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError):
        return None


def _read(response: httpx.Response, deadline: _Deadline) -> bytes:
    """Read an answer, but never more than fits: a strange network may send without end."""
    chunks: list[bytes] = []
    size = 0
    for chunk in response.iter_bytes():
        deadline.check()
        size += len(chunk)
        if size > _ANSWER_SIZE_MAX:
            raise UnreachableError(
                f"an answer of more than {_ANSWER_SIZE_MAX} bytes is not the API's",
                status_code=response.status_code,
            )
        chunks.append(chunk)
    return b"".join(chunks)


def _content_type(response: httpx.Response) -> str:
    value = str(response.headers.get("content-type", ""))
    kind = value.split(";")[0].strip().lower()[:80]
    return kind if kind.isprintable() and kind else "no content type"


def _is_json(response: httpx.Response) -> bool:
    kind = _content_type(response)
    return kind == "application/json" or kind.endswith("+json")


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _field(answer: Mapping[str, Any], name: str, kind: type[Any]) -> Any:
    value = answer.get(name)
    if not isinstance(value, kind):
        raise NoAnswerError(
            f"the answer lacks {name}: is this a guest network's login page, or a wrong API_URL?"
        )
    return value


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
