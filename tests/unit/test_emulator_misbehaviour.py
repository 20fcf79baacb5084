"""What a client sees of each fault, byte by byte where that matters; and nothing stays behind."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import trustme

from vevents.emulator import (
    CATALOGUE,
    Content,
    EmulatorConfig,
    Events,
    Fault,
    Flow,
    RunningEmulator,
    TlsFiles,
    Which,
)
from vevents.errors import ConfigurationError

KEY = "rf_secret_0123456789"
EVENTS, BATCH, UPLOAD = "/vision-events", "/vision-events/batch", "/vision-events/upload"
JPEG = b"\xff\xd8\xff\xe0" + b"pixels"
STALL = Flow(stop_at=0, then="stall")


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[RunningEmulator, httpx.Client]]:
    config = EmulatorConfig(database=":memory:", api_keys=[KEY], use_cases=["uc-1"])
    headers = {"Authorization": f"Bearer {KEY}"}
    with (
        RunningEmulator(config) as emulator,
        httpx.Client(base_url=emulator.url, headers=headers, trust_env=False) as client,
    ):
        yield emulator, client


@pytest.fixture
def emulator(shared: tuple[RunningEmulator, httpx.Client]) -> RunningEmulator:
    shared[0].clear()
    shared[0].faults.clear()
    return shared[0]


@pytest.fixture
def client(shared: tuple[RunningEmulator, httpx.Client]) -> httpx.Client:
    return shared[1]


def event(event_id: str, **fields: Any) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat()
    return {
        "eventId": event_id,
        "eventType": "custom",
        "useCaseId": "uc-1",
        "timestamp": now,
        **fields,
    }


def batch(*event_ids: str) -> dict[str, Any]:
    return {"events": [event(event_id) for event_id in event_ids]}


def stored(emulator: RunningEmulator) -> list[str]:
    return [row["event"]["eventId"] for row in emulator.events()]


def until_taken(emulator: RunningEmulator) -> None:
    """Wait until every scripted fault has met its request."""
    while emulator.faults.pending:
        time.sleep(0.001)


@contextmanager
def taken(
    emulator: RunningEmulator, client: httpx.Client, fault: Fault
) -> Iterator[Future[httpx.Response]]:
    """Post an event, and go on when its request has met the fault."""
    emulator.faults.script(EVENTS, fault)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.post, EVENTS, json=event("a"), timeout=60)
        until_taken(emulator)
        yield answer


def raw_answer(emulator: RunningEmulator, body: bytes = b"") -> bytes:
    """Post past every client, and return all bytes until the connection ends."""
    parts = urlsplit(emulator.url)
    head = f"POST {EVENTS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(
        (parts.hostname or "", parts.port or 0), timeout=10
    ) as connection:
        connection.sendall(head.encode() + body)
        received = b""
        while piece := connection.recv(65_536):
            received += piece
    return received


# --- how a connection ends ------------------------------------------------------------------------


@pytest.mark.parametrize("stored_first", [True, False])
def test_an_answer_that_never_comes(
    emulator: RunningEmulator, client: httpx.Client, stored_first: bool
) -> None:
    emulator.faults.script(EVENTS, Fault(answer=STALL, stored=stored_first))

    with pytest.raises(httpx.ReadTimeout):
        client.post(EVENTS, json=event("a"), timeout=0.1)

    assert stored(emulator) == (["a"] if stored_first else [])


def test_a_reset_and_an_end_are_different_things(emulator: RunningEmulator) -> None:
    emulator.faults.script(EVENTS, Fault(answer=Flow(stop_at=0, then="reset")))
    with pytest.raises(ConnectionResetError):
        raw_answer(emulator)

    emulator.faults.script(EVENTS, Fault(answer=Flow(stop_at=0, then="close")))
    assert raw_answer(emulator) == b""


def test_half_an_answer(emulator: RunningEmulator) -> None:
    body = json.dumps(event("a")).encode()
    emulator.faults.script(EVENTS, Fault(answer=Flow(stop_at=0.5, then="close")))

    head, _, rest = raw_answer(emulator, body).partition(b"\r\n\r\n")

    whole = b'{"eventId":"a","created":true}'
    assert b"content-length: 30" in head
    assert rest == whole[:15]
    assert stored(emulator) == ["a"]


@pytest.mark.parametrize("then", ["reset", "close"])
def test_half_a_request(emulator: RunningEmulator, then: Any) -> None:
    emulator.faults.script(EVENTS, Fault(request=Flow(stop_at=0.5, then=then)))
    body = json.dumps(event("a")).encode()

    if then == "reset":
        with pytest.raises(ConnectionResetError):
            raw_answer(emulator, body)
    else:
        assert raw_answer(emulator, body) == b""

    assert stored(emulator) == []


def test_a_large_request_that_is_stopped(emulator: RunningEmulator, client: httpx.Client) -> None:
    files = {"file": ("a.jpeg", JPEG + bytes(16_000_000))}
    emulator.faults.script(UPLOAD, CATALOGUE["request-stalled"], CATALOGUE["request-reset"])

    with pytest.raises(httpx.WriteTimeout):
        client.post(UPLOAD, files=files, timeout=0.3)
    with pytest.raises(httpx.TransportError):
        client.post(UPLOAD, files=files)

    assert emulator.images() == []


# --- how fast -------------------------------------------------------------------------------------


def test_slow_requests_and_answers_take_their_time_and_arrive(
    emulator: RunningEmulator, client: httpx.Client
) -> None:
    emulator.faults.script(EVENTS, Fault(answer=Flow(bytes_per_s=100)))
    began = time.monotonic()
    answer = client.post(EVENTS, json=event("a"))
    # 30 bytes; the last piece is not waited for.
    assert time.monotonic() - began > 0.15
    assert answer.json() == {"eventId": "a", "created": True}

    emulator.faults.script(EVENTS, Fault(request=Flow(bytes_per_s=1_000)))
    began = time.monotonic()
    body = json.dumps(event("b")).encode()
    answer = client.post(EVENTS, content=body, headers={"Content-Type": "application/json"})
    assert time.monotonic() - began >= len(body) / 1_000
    assert answer.status_code == 201


@pytest.mark.parametrize(
    "fault",
    [
        Fault(answer=Flow(bytes_per_s=0.01)),
        Fault(request=Flow(bytes_per_s=0.01)),
        Fault(delay_s=600),
    ],
)
def test_what_is_slow_is_quick_once_the_plan_is_cleared(
    emulator: RunningEmulator, client: httpx.Client, fault: Fault
) -> None:
    with taken(emulator, client, fault) as slow:
        with pytest.raises(TimeoutError):
            slow.result(timeout=0.2)

        emulator.faults.clear()

        assert slow.result(timeout=60).status_code == 201


@pytest.mark.parametrize(
    "fault",
    [
        Fault(answer=STALL),
        Fault(answer=Flow(stop_at=0.5, then="stall")),
        CATALOGUE["request-stalled"],
    ],
)
def test_what_stalls_ends_when_the_plan_is_cleared(
    emulator: RunningEmulator, client: httpx.Client, fault: Fault
) -> None:
    with taken(emulator, client, fault) as stalled:
        with pytest.raises(TimeoutError):
            stalled.result(timeout=0.2)

        emulator.faults.clear()

        with pytest.raises(httpx.ReadError):
            stalled.result(timeout=60)


@pytest.mark.parametrize("fault", [Fault(answer=STALL), CATALOGUE["request-stalled"]])
def test_a_request_on_its_way_to_be_held_is_let_go_as_well(
    emulator: RunningEmulator, client: httpx.Client, fault: Fault
) -> None:
    with taken(emulator, client, fault) as stalled:
        emulator.faults.clear()

        with pytest.raises(httpx.ReadError):
            stalled.result(timeout=60)


def test_stopping_ends_everything_that_is_held_and_leaves_nothing() -> None:
    threads_before = set(threading.enumerate())
    emulator = RunningEmulator(EmulatorConfig(api_keys=[KEY], use_cases=["uc-1"]))
    held = [
        CATALOGUE["no-answer"],
        CATALOGUE["answer-stalled"],
        CATALOGUE["request-stalled"],
        Fault(answer=Flow(bytes_per_s=0.01)),
        Fault(request=Flow(bytes_per_s=0.01)),
        Fault(delay_s=600),
    ]
    emulator.faults.script(EVENTS, *held)
    headers = {"Authorization": f"Bearer {KEY}"}

    def post(number: int) -> None:
        with httpx.Client(base_url=emulator.url, headers=headers, trust_env=False) as client:
            try:
                client.post(EVENTS, json=event(f"e-{number}"), timeout=60)
            except httpx.TransportError:
                return

    with ThreadPoolExecutor(len(held)) as pool:
        ended = [pool.submit(post, number) for number in range(len(held))]
        until_taken(emulator)
        emulator.stop()
        for each in ended:
            each.result(timeout=60)

    assert [each for each in threading.enumerate() if each not in threads_before] == []


def test_a_client_that_leaves_is_not_waited_for(
    emulator: RunningEmulator, client: httpx.Client
) -> None:
    emulator.faults.script(EVENTS, *[Fault(answer=STALL)] * 20)
    for _ in range(20):
        with pytest.raises(httpx.ReadTimeout):
            client.post(EVENTS, json=event("a"), timeout=0.01)

    waiting = emulator.faults._waiting
    until_s = time.monotonic() + 10
    while waiting and time.monotonic() < until_s:
        time.sleep(0.005)
    assert not waiting


# --- what the answer says -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "status", "named", "kept"),
    [
        ("refused", 400, None, []),
        ("refused-unnamed", 400, None, []),
        ("partly", 201, ["a", "c"], ["a", "c"]),
        ("unnamed", 201, ["a", "c"], ["a", "b", "c"]),
        ("lost", 201, ["a", "b", "c"], ["a", "c"]),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_some_events_of_a_batch(
    emulator: RunningEmulator,
    client: httpx.Client,
    outcome: Any,
    status: int,
    named: list[str] | None,
    kept: list[str],
    packed: bool,
) -> None:
    fault = Fault(events=Events(outcome=outcome, which=Which(event_ids=["b", "x"])))
    emulator.faults.script(BATCH, fault)
    body, headers = json.dumps(batch("a", "b", "c")).encode(), {"Content-Type": "application/json"}
    if packed:
        body, headers["Content-Encoding"] = gzip.compress(body), "gzip"

    answer = client.post(BATCH, content=body, headers=headers)

    assert answer.status_code == status
    if named is None:
        assert ("'b'" in answer.json()["error"]) == (outcome == "refused")
        assert ("events[1]" in answer.json()["error"]) == (outcome == "refused")
    else:
        assert answer.json() == {"created": len(named), "eventIds": named}
    assert stored(emulator) == kept


@pytest.mark.parametrize(
    ("outcome", "status", "answered", "kept"),
    [
        ("refused", 422, {"error": "eventId 'a' is refused"}, []),
        ("refused-unnamed", 422, {"error": "The request is not valid."}, []),
        ("partly", 201, {"created": True}, []),
        ("unnamed", 201, {"created": True}, ["a"]),
        ("lost", 201, {"eventId": "a", "created": True}, []),
    ],
)
def test_one_event(
    emulator: RunningEmulator,
    client: httpx.Client,
    outcome: Any,
    status: int,
    answered: dict[str, Any],
    kept: list[str],
) -> None:
    refusal = 422 if status == 422 else None
    emulator.faults.script(EVENTS, Fault(status=refusal, events=Events(outcome=outcome)))

    answer = client.post(EVENTS, json=event("a"))

    assert (answer.status_code, answer.json()) == (status, answered)
    assert stored(emulator) == kept


def test_what_is_no_event_passes(emulator: RunningEmulator, client: httpx.Client) -> None:
    emulator.faults.at_random(1, Fault(events=Events(outcome="refused")))

    assert client.get(f"{EVENTS}/use-cases").status_code == 200
    assert client.post(f"{EVENTS}/query", json={"useCaseId": "uc-1"}).status_code == 200
    assert client.post(UPLOAD, files={"file": ("a", JPEG)}).status_code == 201
    assert client.post(BATCH, content=b"{").status_code == 400
    assert "events refused" not in emulator.faults.history[-1:]


def test_all_events_of_a_batch_are_left_out(
    emulator: RunningEmulator, client: httpx.Client
) -> None:
    emulator.faults.script(BATCH, Fault(events=Events(outcome="partly")))

    answer = client.post(BATCH, json=batch("a", "b"))

    assert (answer.status_code, answer.json()) == (201, {"created": 0, "eventIds": []})
    assert stored(emulator) == []


def test_images_that_are_lost_or_not_named(emulator: RunningEmulator, client: httpx.Client) -> None:
    emulator.faults.script("*", CATALOGUE["image-lost"], CATALOGUE["image-unnamed"])

    lost = client.post(UPLOAD, files={"file": ("a", JPEG)})
    assert lost.status_code == 201
    assert lost.json()["sourceId"].startswith("ve-img-")
    assert emulator.images() == []

    unnamed = client.post(UPLOAD, files={"file": ("a", JPEG)})
    assert unnamed.status_code == 201
    assert unnamed.json().keys() == {"success", "url"}
    assert len(emulator.images()) == 1


def test_contents(emulator: RunningEmulator, client: httpx.Client) -> None:
    whole = b'{"eventId":"a","created":true}'
    for content, expected in (
        (Content(keep=0.5), whole[:15]),
        (Content(size=40), whole + b" " * 10),
        (Content(charset="utf-16"), whole.decode().encode("utf-16")),
        (Content(gzip=True), whole),
    ):
        emulator.faults.script(EVENTS, Fault(content=content))
        answer = client.post(EVENTS, json=event("a"))
        assert (answer.status_code, answer.content) == (201, expected)
    assert answer.headers["content-encoding"] == "gzip"


def test_the_emulators_own_answer_with_other_headers(
    emulator: RunningEmulator, client: httpx.Client
) -> None:
    headers = {"Content-Type": "text/plain", "Date": "{date+3600}", "X-Other": "{date-7200}"}
    emulator.faults.script(EVENTS, Fault(headers=headers))

    answer = client.post(EVENTS, json=event("a"))

    assert answer.json()["eventId"] == "a"
    assert answer.headers["content-type"] == "text/plain"
    ahead = parsedate_to_datetime(answer.headers["date"]) - datetime.now(UTC)
    behind = datetime.now(UTC) - parsedate_to_datetime(answer.headers["x-other"])
    assert abs(ahead - timedelta(hours=1)) < timedelta(seconds=60)
    assert abs(behind - timedelta(hours=2)) < timedelta(seconds=60)


def test_dates_beyond_the_calendar_are_dates(
    emulator: RunningEmulator, client: httpx.Client
) -> None:
    headers = {"Retry-After": "{date+999999999999}", "X-Other": "{date-999999999999}"}
    emulator.faults.script(EVENTS, Fault(status=503, headers=headers))

    answer = client.post(EVENTS, json=event("a"))

    assert answer.headers["retry-after"].startswith("Fri, 31 Dec 9999")
    assert answer.headers["x-other"].startswith("Thu, 01 Jan 1970")


def test_every_answer_has_one_date_of_the_emulators_clock() -> None:
    config = EmulatorConfig(database=":memory:", api_keys=[KEY], clock=lambda: 1_000_000_000.0)
    with RunningEmulator(config) as emulator:
        answers = [
            httpx.get(f"{emulator.url}{path}", trust_env=False)
            for path in (f"{EVENTS}/use-cases", "/__emulator__/health", "/nowhere")
        ]
        emulator.faults.script("*", CATALOGUE["early-hints"])
        answers.append(httpx.get(f"{emulator.url}/nowhere", trust_env=False))

    for answer in answers:
        assert answer.headers.get_list("date") == ["Sun, 09 Sep 2001 01:46:40 GMT"]


def test_http_1_0_and_statuses_below_200(emulator: RunningEmulator) -> None:
    body = json.dumps(event("a")).encode()
    emulator.faults.script(EVENTS, CATALOGUE["http-1.0"], CATALOGUE["early-hints"])

    head, _, rest = raw_answer(emulator, body).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 201 Created\r\n")
    assert b"content-length" not in head
    assert rest == b'{"eventId":"a","created":true}'

    assert raw_answer(emulator, body).startswith(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
        b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 201 Created\r\n"
    )


@pytest.mark.parametrize("size", [7, 100_000])
def test_a_length_that_is_not_so(emulator: RunningEmulator, size: int) -> None:
    emulator.faults.script(EVENTS, Fault(headers={"Content-Length": str(size), "X-Odd": "\xfc"}))

    head, _, rest = raw_answer(emulator, json.dumps(event("a")).encode()).partition(b"\r\n\r\n")

    assert f"content-length: {size}\r\n".encode() in head
    assert b"x-odd: \xfc" in head
    assert rest == b'{"eventId":"a","created":true}'


def test_a_huge_answer_waits_for_its_reader(
    emulator: RunningEmulator, client: httpx.Client
) -> None:
    fault = Fault(content=Content(size=30_000_000), answer=Flow())
    emulator.faults.script(EVENTS, fault, CATALOGUE["huge"])
    for size in (30_000_000, 40_000_000):
        with client.stream("POST", EVENTS, json=event("a")) as answer:
            time.sleep(0.05)
            assert sum(map(len, answer.iter_bytes())) == size


def test_a_captive_portal_is_on_every_path_but_the_emulators_own(
    emulator: RunningEmulator, client: httpx.Client
) -> None:
    emulator.faults.at_random(1, CATALOGUE["captive-portal"])

    for path in ("/", "/vision-events/use-cases", "/generate_204"):
        answer = client.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html")
    assert client.get("/__emulator__/health").json() == {"status": "ok"}


# --- settings in mid-run --------------------------------------------------------------------------


def test_settings_change_for_the_next_request(client: httpx.Client) -> None:
    config = EmulatorConfig(database=":memory:", api_keys=[KEY], use_cases=["uc-1"])
    with (
        RunningEmulator(config) as emulator,
        httpx.Client(
            base_url=emulator.url, headers={"Authorization": f"Bearer {KEY}"}, trust_env=False
        ) as client,
    ):
        settings = "/__emulator__/settings"
        assert client.post(BATCH, json=batch("a", "b", "c")).status_code == 201

        shown = client.patch(settings, json={"batch_count_max": 2, "json_size_max": 500})
        assert shown.status_code == 200
        assert shown.json()["batch_count_max"] == 2
        assert KEY not in client.get(settings).text
        refused = client.post(BATCH, json=batch("a", "b", "c"))
        assert (refused.status_code, refused.json()) == (
            400,
            {"error": "events: has 3 items, more than 2"},
        )
        assert client.post(BATCH, json={"events": [event("a" * 200)] * 2}).status_code == 413

        client.patch(settings, json={"rate_limit_per_s": 0.001, "rate_limit_burst": 2})
        answers = [client.get(f"{EVENTS}/use-cases").status_code for _ in range(3)]
        assert answers == [200, 200, 429]
        client.patch(settings, json={"rate_limit_per_s": None})
        assert client.get(f"{EVENTS}/use-cases").status_code == 200

        client.patch(settings, json={"api_keys": [{"value": KEY, "scopes": []}]})
        assert client.get(f"{EVENTS}/use-cases").status_code == 403
        client.patch(settings, json={"api_keys": ["another"]})
        assert client.get(f"{EVENTS}/use-cases").status_code == 401


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"database": "x"}, "database cannot be changed; what can: api_keys"),
        ({"batch_count_max": 0}, "batch_count_max must be at least 1"),
        ({"batch_count_max": "many"}, "batch_count_max has the wrong type"),
        ({"batch_count_max": True}, "batch_count_max has the wrong type"),
        ({"rate_limit_per_s": -1}, "rate_limit_per_s must be more than 0"),
        ({"api_keys": [7]}, "a key is a string, or value and scopes"),
        ({"api_keys": [{"value": "k", "scopes": "all"}]}, "a key is a string, or value and scopes"),
    ],
)
def test_settings_that_are_refused(
    emulator: RunningEmulator, client: httpx.Client, given: Any, text: str
) -> None:
    before = client.get("/__emulator__/settings").json()

    refused = client.patch("/__emulator__/settings", json=given)

    assert refused.status_code == 400
    assert text in refused.json()["error"]
    assert client.get("/__emulator__/settings").json() == before
    with pytest.raises(ConfigurationError):
        emulator.change(**given)


# --- TLS ------------------------------------------------------------------------------------------


def test_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    issued.cert_chain_pems[0].write_to_path(certificate)
    issued.private_key_pem.write_to_path(key)
    context = httpx.create_ssl_context(verify=False, trust_env=False)
    context.check_hostname, context.verify_mode = True, 2  # type: ignore[assignment]
    authority.configure_trust(context)
    config = EmulatorConfig(api_keys=[KEY], use_cases=["uc-1"])
    with (
        RunningEmulator(config, tls=TlsFiles(certificate, key)) as emulator,
        httpx.Client(
            base_url=emulator.url,
            headers={"Authorization": f"Bearer {KEY}"},
            trust_env=False,
            verify=context,
        ) as client,
    ):
        assert emulator.url.startswith("https://127.0.0.1:")
        assert client.post(EVENTS, json=event("a")).status_code == 201
        for name in ("dropped", "answer-reset", "answer-closed", "request-closed", "request-reset"):
            emulator.faults.script(EVENTS, CATALOGUE[name])
            with pytest.raises(httpx.TransportError):
                client.post(EVENTS, json=event("a"))
        emulator.faults.script(EVENTS, CATALOGUE["http-1.0"])
        assert client.post(EVENTS, json=event("a")).json()["eventId"] == "a"


def test_tls_files_that_are_no_good(tmp_path: Path) -> None:
    (tmp_path / "certificate.pem").write_text("nothing")
    (tmp_path / "key.pem").write_text("nothing")
    for key in ("key.pem", "absent.pem"):
        with pytest.raises(ConfigurationError, match=key):
            RunningEmulator(tls=TlsFiles(tmp_path / "certificate.pem", tmp_path / key))
