"""The client: what it sends, and what each answer is taken for."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from vevents import __version__
from vevents.delivery.client import (
    Client,
    QueryPage,
    Timeouts,
    UseCase,
    UseCaseList,
    batch_body,
    parse_retry_after,
)
from vevents.delivery.tls import Tls
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
from vevents.settings import ProxyUrl

KEY = "rf_secret_0123456789"
NOW_S = 1_760_000_000.0
EVENT = b'{"eventId":"a"}'

Answer = httpx.Response | Exception


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def client_for(answer: Answer | Callable[[httpx.Request], httpx.Response]) -> Client:
    def handle(request: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, httpx.Response) else answer(request)

    return Client(
        KEY,
        api_url="https://api.test",
        transport=httpx.MockTransport(handle),
        clock=lambda: NOW_S,
        monotonic=lambda: 0.0,
    )


def caught(answer: Answer) -> DeliveryError:
    with client_for(answer) as client, pytest.raises(DeliveryError) as error:
        client.create_batch([EVENT])
    assert KEY not in str(error.value)
    return error.value


# --- what goes out --------------------------------------------------------------------------


def recorded(
    call: Callable[[Client], object], status: int, answer: dict[str, Any]
) -> tuple[httpx.Request, object]:
    requests: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        request.read()
        requests.append(request)
        return httpx.Response(status, json=answer)

    with client_for(handle) as client:
        result = call(client)
    [request] = requests
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["user-agent"] == f"vevents/{__version__}"
    assert KEY not in str(request.url)
    return request, result


def test_create_event() -> None:
    request, result = recorded(lambda c: c.create_event(EVENT), 201, {"eventId": "a"})

    assert (request.method, str(request.url)) == ("POST", "https://api.test/vision-events")
    assert request.headers["content-type"] == "application/json"
    assert request.content == EVENT
    assert result == "a"


def test_create_batch() -> None:
    request, result = recorded(
        lambda c: c.create_batch([b'{"eventId":"a"}', b'{"eventId":"\xc3\xa4"}']),
        201,
        {"created": 1, "eventIds": ["a"]},
    )

    assert (request.method, request.url.path) == ("POST", "/vision-events/batch")
    assert request.headers["content-type"] == "application/json"
    assert json.loads(request.content) == {"events": [{"eventId": "a"}, {"eventId": "ä"}]}
    assert result == ["a"]


def test_batch_body_of_nothing() -> None:
    assert json.loads(batch_body([])) == {"events": []}


def test_upload_image() -> None:
    image = b"\xff\xd8\xff\xe0 not really a picture"
    request, result = recorded(
        lambda c: c.upload_image(image, name="0a.jpeg", mime="image/jpeg"),
        201,
        {"success": True, "sourceId": "ve-img-1", "url": "https://elsewhere.test/x"},
    )

    assert (request.method, request.url.path) == ("POST", "/vision-events/upload")
    assert request.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert request.content.count(image) == 1
    assert b'name="file"; filename="0a.jpeg"' in request.content
    assert b"Content-Type: image/jpeg" in request.content
    assert result == "ve-img-1"
    assert request.headers["content-length"] == str(len(request.content))
    # As the HTTP library itself would have written it.
    boundary = request.headers["content-type"].partition("boundary=")[2]
    own = httpx.Request(
        "POST",
        "https://api.test",
        files={"file": ("0a.jpeg", image, "image/jpeg")},
        headers={"Content-Type": f"multipart/form-data; boundary={boundary}"},
    )
    assert request.content == own.read()


class SlowNetwork(httpx.BaseTransport):
    """Takes a body piece by piece, and never answers."""

    def __init__(self, wait_s: float, size_max: float = float("inf")) -> None:
        self.wait_s = wait_s
        self.size_max = size_max
        self.sizes: list[int] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.SyncByteStream)
        for piece in request.stream:
            self.sizes.append(len(piece))
            if sum(self.sizes) > self.size_max:
                break
            time.sleep(self.wait_s)
        raise httpx.ReadTimeout("silence", request=request)


def test_an_image_goes_in_pieces_and_is_let_go_of() -> None:
    data, network = bytearray(range(256)) * 1_000, SlowNetwork(0.0, size_max=100_000)

    with (
        Client(KEY, transport=network) as client,
        pytest.raises(NoAnswerError) as error,
        memoryview(data) as image,
    ):
        client.upload_image(image, name="a.png", mime="image/png")

    assert max(network.sizes) <= 65_536
    # The error is kept, and the image is not kept with it: a buffer in use cannot be resized.
    assert error.value.__cause__ is not None
    data.clear()


def test_a_body_that_the_network_takes_too_slowly_is_given_up() -> None:
    image, network = bytes(10_000_000), SlowNetwork(0.03)

    with Client(KEY, transport=network) as client, pytest.raises(NoAnswerError, match="not over"):
        client.upload_image(image, name="a.png", mime="image/png", within_s=0.1)

    assert 1 <= len(network.sizes) <= 5


@pytest.mark.parametrize(("within_s", "seconds"), [(None, 1.5), (0.5, 0.5), (7.0, 1.5)])
def test_no_step_takes_longer_than_the_whole_request(
    within_s: float | None, seconds: float
) -> None:
    seen: dict[str, float] = {}

    def handle(request: httpx.Request) -> httpx.Response:
        seen.update(request.extensions["timeout"])
        return httpx.Response(201, json={"eventId": "a"})

    timeouts = Timeouts(connect_s=1.0, read_s=2.0, write_s=3.0, request_s=1.0)
    with Client(KEY, timeouts=timeouts, transport=httpx.MockTransport(handle)) as client:
        client.create_event(b" " * 500, within_s=within_s)

    assert seen["connect"] == seen["pool"] == min(1.0, seconds)
    assert seen["read"] == seen["write"] == seconds


def trickle_headers(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 201 Created\r\n")
    while True:
        connection.sendall(b"X")
        time.sleep(0.02)


def promise_for_ever(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"HTTP/1.1 102 Processing\r\n\r\n")
        time.sleep(0.02)


@pytest.mark.parametrize("begin", [trickle_headers, promise_for_ever])
@pytest.mark.parametrize("answered_before", [False, True])
def test_an_answer_that_never_gets_to_its_body_is_given_up(
    begin: Callable[[socket.socket], None], answered_before: bool
) -> None:
    body = b'{"eventId":"a"}'
    answer = b"HTTP/1.1 201 C\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            if answered_before:
                connection.recv(65_536)
                connection.sendall(answer % (len(body), body))
            connection.recv(65_536)
            begin(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor() as threads:
        threads.submit(serve)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        client = Client(KEY, api_url=url)
        if answered_before:
            assert client.create_event(EVENT) == "a"
        asking = threads.submit(client.create_event, EVENT, within_s=0.3)
        try:
            with pytest.raises(NoAnswerError, match=r"not over after 0\.3 s"):
                asking.result(timeout=10.0)
        finally:
            client.close()


@pytest.mark.parametrize(
    ("answer", "taken"),
    [
        (httpx.Response(201, json={"eventId": "a", "created": True}), True),
        (httpx.Response(200, json={}), True),
        (httpx.Response(202), True),
        (httpx.Response(204), True),
        (httpx.Response(200), False),
        (httpx.Response(200, text="<html>Welcome to the hotel</html>"), False),
        (httpx.Response(201, text="<html>Welcome to the hotel</html>"), False),
    ],
)
def test_whatever_success_a_bundle_is_answered_with(answer: httpx.Response, taken: bool) -> None:
    with client_for(answer) as client:
        if taken:
            client.create_bundle(b"")
        else:
            with pytest.raises(DeliveryError):
                client.create_bundle(b"")


@pytest.mark.parametrize(
    ("archive", "kind"),
    [(b"\x1f\x8b\x08", "application/gzip"), ([b"pay", memoryview(b"load")], "application/x-tar")],
)
def test_create_bundle(archive: Any, kind: str) -> None:
    request, _ = recorded(lambda client: client.create_bundle(archive, use_case_id="u c"), 201, {})

    assert (request.method, request.url.path) == ("POST", "/vision-events/bundle")
    assert dict(request.url.params) == {"useCaseId": "u c"}
    assert request.headers["content-type"] == kind
    assert request.content in (b"\x1f\x8b\x08", b"payload")
    assert request.headers["content-length"] == str(len(request.content))


def test_list_use_cases() -> None:
    answer = {"useCases": [{"id": "u", "name": "n", "status": "active"}], "lookbackDays": 14}
    request, result = recorded(lambda c: c.list_use_cases(), 200, answer)

    assert (request.method, str(request.url)) == ("GET", "https://api.test/vision-events/use-cases")
    assert result == UseCaseList((UseCase("u", "n", "active"),), 14)


def test_lookback_days_are_remembered() -> None:
    answer = httpx.Response(200, json={"useCases": [], "lookbackDays": 14})
    with client_for(answer) as client:
        assert client.lookback_days is None
        client.list_use_cases()
        assert client.lookback_days == 14


def test_list_use_cases_of_an_older_server() -> None:
    request, result = recorded(
        lambda c: c.list_use_cases(status="inactive"),
        200,
        {"solutions": [{"id": "u", "name": "n"}]},
    )

    assert request.url.params["status"] == "inactive"
    assert result == UseCaseList((UseCase("u", "n", None),), None)


def test_query() -> None:
    answer = {"events": [{"eventId": "a"}], "nextCursor": "c", "hasMore": True, "lookbackDays": 14}
    request, result = recorded(lambda c: c.query({"useCaseId": "u", "limit": 1}), 200, answer)

    assert (request.method, request.url.path) == ("POST", "/vision-events/query")
    assert json.loads(request.content) == {"useCaseId": "u", "limit": 1}
    assert result == QueryPage(({"eventId": "a"},), "c", 14)


@pytest.mark.parametrize(
    "end",
    [
        {"nextCursor": None, "hasMore": False},
        {"nextCursor": "c", "hasMore": False},
        {"nextCursor": "", "hasMore": True},
        {},
    ],
)
def test_query_knows_the_last_page(end: dict[str, object]) -> None:
    _, result = recorded(lambda c: c.query({"useCaseId": "u"}), 200, {"events": [{}]} | end)

    assert isinstance(result, QueryPage)
    assert result.next_cursor is None


def test_timeouts_are_explicit() -> None:
    seen: dict[str, float] = {}

    def handle(request: httpx.Request) -> httpx.Response:
        seen.update(request.extensions["timeout"])
        return httpx.Response(201, json={"eventId": "a"})

    with Client(
        KEY,
        timeouts=Timeouts(connect_s=1.0, read_s=2.0, write_s=3.0),
        transport=httpx.MockTransport(handle),
    ) as client:
        client.create_event(EVENT)

    assert seen == {"connect": 1.0, "read": 2.0, "write": 3.0, "pool": 1.0}


def test_address_that_only_the_library_refuses() -> None:
    with (
        Client(KEY, api_url="https://ho\0st") as client,
        pytest.raises(UnreachableError, match="is not an address"),
    ):
        client.create_event(EVENT)


def test_address_that_is_none() -> None:
    with pytest.raises(ConfigurationError, match="not an address"):
        Client(KEY, api_url="https://host:port")


def test_library_is_loaded_with_the_first_request() -> None:
    program = (
        "import sys\n"
        "from vevents.delivery.client import Client\n"
        "client = Client('k', api_url='https://api.test')\n"
        "client.close()\n"
        "print(sorted({'httpx', 'ssl'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert done.stdout == "[]\n", done.stderr


def test_threads_share_one_connection_pool() -> None:
    made: list[Client] = []

    class Counting(Client):
        def _connect(self) -> httpx.Client:
            made.append(self)
            time.sleep(0.01)  # long enough for the others to get here
            return super()._connect()

    def handle(_: httpx.Request) -> httpx.Response:
        return httpx.Response(201, json={"eventId": "a"})

    with (
        Counting(KEY, transport=httpx.MockTransport(handle)) as client,
        ThreadPoolExecutor(8) as pool,
    ):
        assert list(pool.map(client.create_event, [EVENT] * 16)) == ["a"] * 16
    assert len(made) == 1


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "ALL_PROXY", "https_proxy"])
def test_proxy_of_the_environment_that_is_none(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "ftp://ann:secret@proxy:1")

    with pytest.raises(ConfigurationError, match=f"^{name.upper()}: expected http://") as caught:
        Client(KEY)
    assert "secret" not in str(caught.value)
    Client(KEY, proxy=ProxyUrl("http://proxy:1")).close()
    monkeypatch.setenv("NO_PROXY", "localhost, *")
    Client(KEY).close()


@pytest.mark.parametrize("proxy", [ProxyUrl("socks5://proxy:1"), None])
def test_socks_needs_its_package(proxy: ProxyUrl | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    if proxy is None:
        monkeypatch.setenv("ALL_PROXY", "socks5://proxy:1")

    with pytest.raises(ConfigurationError, match=r"pip install 'vevents\[socks\]'"):
        Client(KEY, proxy=proxy)


def test_password_of_the_proxy_is_not_shown_if_an_error_quotes_it() -> None:
    def fail(_: httpx.Request) -> httpx.Response:
        raise httpx.ProxyError("407 from http://ann:hush@proxy:1")

    proxy = ProxyUrl("http://ann:hush@proxy:1")
    transport = httpx.MockTransport(fail)
    with (
        Client(KEY, proxy=proxy, api_url="https://api.test", transport=transport) as client,
        pytest.raises(UnreachableError, match=r"the proxy http://proxy:1 does not") as caught,
    ):
        # Without a transport of its own, which the proxy's would be made beside.
        client._http = httpx.Client(transport=transport)
        client.create_event(EVENT)
    assert "hush" not in str(caught.value)


def test_certificate_that_is_exchanged_meanwhile_is_no_answer_and_no_crash(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    with Client(KEY, api_url="https://127.0.0.1:9", tls=Tls(ca_files=(path,))) as client:
        path.unlink()

        with pytest.raises(UnreachableError, match=r"ca_file: .*ca\.pem: No such file"):
            client.create_event(EVENT)


# --- what comes back ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        httpx.ConnectError("connection refused"),
        httpx.ConnectTimeout("timed out"),
        httpx.PoolTimeout("no connection"),
        httpx.ProxyError("403 Forbidden"),
    ],
)
def test_no_connection_is_unreachable(error: Exception) -> None:
    result = caught(error)

    assert type(result) is UnreachableError
    assert result.__cause__ is error
    assert result.retryable
    assert str(error) in str(result)


@pytest.mark.parametrize(
    "error",
    [
        httpx.ReadTimeout(""),
        httpx.WriteTimeout("timed out"),
        httpx.ReadError("reset"),
        httpx.WriteError("broken pipe"),
        httpx.RemoteProtocolError("Server disconnected without sending a response."),
    ],
)
def test_connection_that_breaks_is_no_answer(error: Exception) -> None:
    result = caught(error)

    assert type(result) is NoAnswerError
    assert isinstance(result, UnreachableError)
    assert result.__cause__ is error
    assert (str(error) or type(error).__name__) in str(result)


def test_invalid_certificate_hints_at_the_clock() -> None:
    cause = ssl.SSLCertVerificationError("certificate verify failed: not yet valid")

    assert "clock is wrong" in str(caught(httpx.ConnectError(str(cause))))


LOGIN = "<html><form>Room number?</form></html>"


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(201, html=LOGIN),
        httpx.Response(201, content=b'{"created": 1, "eventIds": ["a"]}'),
        httpx.Response(200, json={"created": 1, "eventIds": ["a"]}),
        httpx.Response(202, json={"created": 1, "eventIds": ["a"]}),
        httpx.Response(204),
        httpx.Response(407, json={"error": "proxy login"}),
        httpx.Response(511, json={"error": "log in first"}),
        httpx.Response(
            201,
            headers={"content-type": "application/json", "content-encoding": "gzip"},
            stream=httpx.ByteStream(b"not gzip"),
        ),
        httpx.Response(
            201, headers={"content-type": "application/json"}, content=b" " * (16 * 2**20 + 1)
        ),
    ],
)
def test_what_is_not_the_api_is_unreachable(response: httpx.Response) -> None:
    assert type(caught(response)) is UnreachableError


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(200, html=LOGIN),
        httpx.Response(302, headers={"location": "https://login.test/"}),
        httpx.Response(307, headers={"location": "https://login.test/"}),
        httpx.Response(400, html=LOGIN),
        httpx.Response(401, html=LOGIN),
        httpx.Response(403, html=LOGIN),
        httpx.Response(403, json={"message": "Forbidden"}),
        httpx.Response(404, html=LOGIN),
        httpx.Response(404, json=["not", "an", "object"]),
        httpx.Response(404, headers={"content-type": "application/json"}, content=b"{"),
    ],
)
def test_what_answers_in_place_of_the_api_may_have_blocked_this_request_only(
    response: httpx.Response,
) -> None:
    result = caught(response)

    assert type(result) is BlockedError
    assert isinstance(result, UnreachableError)
    assert result.status_code == response.status_code


@pytest.mark.parametrize(
    ("answer", "from_api"),
    [
        ({"json": {"error": "no"}}, True),
        ({"json": {"message": "no Route matched"}}, False),
        ({"json": {"error": {"code": 404}}}, False),
    ],
)
def test_a_refusal_says_whether_it_has_the_form_of_the_apis_own(
    answer: dict[str, Any], from_api: bool
) -> None:
    result = caught(httpx.Response(404, **answer))

    assert isinstance(result, RefusedError)
    assert (result.from_api, result.blocked) == (from_api, False)


def test_redirect_is_not_followed() -> None:
    seen: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.host)
        return httpx.Response(307, headers={"location": "https://login.test/"})

    with client_for(handle) as client, pytest.raises(UnreachableError, match="redirect"):
        client.create_event(EVENT)
    assert seen == ["api.test"]


@pytest.mark.parametrize(
    "body",
    [b"", b'{"created": 1, "eventI', b"[]", b"[" * 100_000, b'{"created": 1}', b'{"eventIds": 1}'],
)
def test_success_with_a_broken_body_is_no_answer(body: bytes) -> None:
    result = caught(httpx.Response(201, headers={"content-type": "application/json"}, content=body))

    assert type(result) is NoAnswerError


@pytest.mark.parametrize("answer", [{"success": True}, {"sourceId": ""}, {"sourceId": 7}])
def test_upload_without_an_id_is_no_answer(answer: dict[str, object]) -> None:
    with (
        client_for(httpx.Response(201, json=answer)) as client,
        pytest.raises(ServerError, match="sourceId"),
    ):
        client.upload_image(b"x", name="x", mime="image/png")


@pytest.mark.parametrize("status", [429, 529])
@pytest.mark.parametrize(
    ("header", "wait_s"), [("7", 7.0), ("Thu, 09 Oct 2025 08:54:20 GMT", 60.0), (None, None)]
)
def test_throttled(status: int, header: str | None, wait_s: float | None) -> None:
    headers = {} if header is None else {"retry-after": header}
    result = caught(httpx.Response(status, headers=headers, json={"error": "at capacity"}))

    assert type(result) is ThrottledError
    assert (result.status_code, result.retry_after_s) == (status, wait_s)
    assert "at capacity" in str(result)


@pytest.mark.parametrize("status", [408, 425, 500, 502, 503, 504, 599])
def test_server_errors_need_no_json(status: int) -> None:
    result = caught(httpx.Response(status, html="<h1>oops</h1>", headers={"retry-after": "3"}))

    assert type(result) is ServerError
    assert result.retryable
    assert (result.status_code, result.retry_after_s) == (status, 3.0)


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (401, "check ROBOFLOW_API_KEY"),
        (402, "billing"),
        (403, r"vision-events:write or device:update \(also spelled visionEvents.write"),
        (423, "locked or paused"),
    ],
)
def test_authorization_says_what_to_do(status: int, advice: str) -> None:
    with (
        client_for(httpx.Response(status, json={"error": "no, thanks"})) as client,
        pytest.raises(AuthorizationError, match=advice) as error,
    ):
        client.create_event(EVENT)

    assert error.value.status_code == status
    assert not error.value.retryable
    assert "no, thanks" in str(error.value)


@pytest.mark.parametrize("status", [400, 404, 405, 409, 410, 413, 415, 422])
def test_refused(status: int) -> None:
    result = caught(httpx.Response(status, json={"error": "eventType: unknown"}))

    assert type(result) is RefusedError
    assert not result.retryable
    assert (result.status_code, str(result)) == (status, "eventType: unknown")


def test_a_proxy_may_refuse_a_large_body() -> None:
    result = caught(httpx.Response(413, html="<h1>413</h1>"))

    assert type(result) is RefusedError
    assert str(result) == "Request Entity Too Large"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"error": "x" * 501}, "x" * 499 + "…"),
        ({"error": f"bad key {KEY}!"}, "bad key ***!"),
        ({"error": "a\x1b[31m\n\tb  c"}, "a [31m b c"),
        ({"error": {"code": 3}}, '{"code": 3}'),
        ({"message": "from the gateway"}, "from the gateway"),
        ({"detail": "from the store"}, "from the store"),
        ({"error": ""}, "Bad Request"),
        ({"other": 1}, "Bad Request"),
    ],
)
def test_the_servers_words(answer: dict[str, object], words: str) -> None:
    assert str(caught(httpx.Response(400, json=answer))) == words


@pytest.mark.parametrize(
    ("value", "wait_s"),
    [
        (None, None),
        ("0", None),
        ("1.5", 1.5),
        ("-3", None),
        ("nan", None),
        ("inf", None),
        ("soon", None),
        ("", None),
        ("Thu, 09 Oct 2025 08:53:21 GMT", 1.0),
        ("Thu, 09 Oct 2025 08:00:00 GMT", None),
        ("Thu, 99 Oct 2025 08:00:00 GMT", None),
    ],
)
def test_retry_after(value: str | None, wait_s: float | None) -> None:
    assert parse_retry_after(value, now_s=NOW_S) == wait_s


# --- the server's clock ---------------------------------------------------------------------


def test_clock_offset_comes_from_any_answer_of_the_api() -> None:
    headers = {"date": "Thu, 09 Oct 2025 09:53:20 GMT"}
    answers: Iterator[httpx.Response] = iter(
        [
            httpx.Response(201, json={"eventId": "a"}),
            httpx.Response(400, json={"error": "no"}, headers=headers),
            httpx.Response(201, json={"eventId": "a"}, headers={"date": "yesterday"}),
        ]
    )

    with client_for(lambda _: next(answers)) as client:
        assert client.clock_offset_s is None
        client.create_event(EVENT)
        assert client.clock_offset_s is None
        with pytest.raises(RefusedError):
            client.create_event(EVENT)
        assert client.clock_offset_s == 3600.0
        client.create_event(EVENT)
        assert client.clock_offset_s == 3600.0


@pytest.mark.parametrize(
    "page",
    [
        httpx.Response(200, text="<html>Welcome to the hotel</html>"),
        httpx.Response(302),
        httpx.Response(503, text="no upstream"),
        httpx.Response(511, json={"message": "log in"}),
        httpx.Response(201, text="{", headers={"content-type": "application/json"}),
    ],
)
def test_the_clock_of_what_stands_before_the_server_is_not_the_servers(
    page: httpx.Response,
) -> None:
    page.headers["date"] = "Thu, 01 Jan 1970 00:02:00 GMT"

    with client_for(page) as client:
        for _ in range(3):
            with pytest.raises(DeliveryError):
                client.create_event(EVENT)

        assert (client.clock_offset_s, client.clock_is_sure) == (None, False)


def test_clock_offset_holds_for_a_clock_that_is_set_after_the_answer() -> None:
    headers = {"date": "Thu, 09 Oct 2025 09:53:20 GMT"}
    device = {"wall_s": 0.0, "since_boot_s": 5.0}
    client = Client(
        KEY,
        api_url="https://api.test",
        transport=httpx.MockTransport(
            lambda _: httpx.Response(201, json={"eventId": "a"}, headers=headers)
        ),
        clock=lambda: device["wall_s"],
        monotonic=lambda: device["since_boot_s"],
    )

    client.create_event(EVENT)
    assert client.clock_offset_s == NOW_S + 3600
    device.update(wall_s=NOW_S + 3600 + 60, since_boot_s=5.0 + 60)

    assert client.clock_offset_s == 0


def test_key_is_not_in_the_repr() -> None:
    with client_for(httpx.Response(204)) as client:
        assert KEY not in repr(client)
        assert KEY not in repr(vars(client))


def test_the_http_library_comes_without_its_command_line() -> None:
    program = (
        "import sys\n"
        "from vevents.delivery.client import Client\n"
        "from vevents.errors import UnreachableError\n"
        "try:\n"
        "    Client('rf_key', api_url='http://127.0.0.1:9').list_use_cases()\n"
        "except UnreachableError:\n"
        "    print(*sorted({'httpx', 'rich', 'pygments', 'httpx._main'} & sys.modules.keys()))\n"
    )

    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert ran.stdout.split() == ["httpx"]
