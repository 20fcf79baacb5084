"""The routes of the event store: who may ask, how much is taken at once, what is answered."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from vevents import _ffi
from vevents.errors import LogBusyError, LogDegradedError, LogFullError
from vevents.event import Event
from vevents.log import EventLog
from vevents.settings import Secret
from vevents.store.app import CROWDED_EXTENSION, Store
from vevents.store.config import StoreConfig

EVENTS = "/v2/events"
LATEST = "/v2/events/latest/query"
KEY = "store_secret_0123"
JPEG = b"\xff\xd8\xff\xe0" + b"pixels"


def body(number: int = 0, **fields: Any) -> dict[str, Any]:
    return {
        "inference_timestamp": f"2026-11-23T12:00:00.{number:06}+00:00",
        "event_schema": "custom",
        "event_data": {"value": "door"},
    } | fields


def picture(data: bytes = JPEG) -> dict[str, Any]:
    return {"images": [{"base64Image": base64.b64encode(data).decode()}]}


class AppClient:
    """Asks an application directly, without a server between."""

    def __init__(self, app: Any) -> None:
        self._transport = httpx.ASGITransport(app, raise_app_exceptions=False)

    def request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            base = "http://127.0.0.1:8001"
            async with httpx.AsyncClient(transport=self._transport, base_url=base) as client:
                return await client.request(method, path, **arguments)

        return asyncio.run(ask())

    def get(self, path: str, **arguments: Any) -> httpx.Response:
        return self.request("GET", path, **arguments)

    def post(self, path: str, **arguments: Any) -> httpx.Response:
        return self.request("POST", path, **arguments)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    with EventLog(
        tmp_path / "log", events_size=1 << 20, media_size=4 << 20, delivery_size=1 << 20
    ) as opened:
        yield opened
        for stream in ("events", "media"):
            assert opened.stats(stream).conserved  # type: ignore[arg-type]


@contextmanager
def serving(log: EventLog, *, open_to_all: bool = True, **settings: Any) -> Iterator[AppClient]:
    store = Store(log, StoreConfig(**settings), open_to_all=open_to_all)
    yield AppClient(store.app)
    store.close()


@pytest.fixture
def client(log: EventLog) -> Iterator[AppClient]:
    with serving(log) as made:
        yield made


def events_of(log: EventLog) -> list[Event]:
    return [log.decode(record) for record in log.read(states=("pending", "delivered"))]


# --- taking ---------------------------------------------------------------------------------


def test_an_event_with_its_picture_is_in_the_log_when_it_is_answered(
    client: AppClient, log: EventLog
) -> None:
    answer = client.post(EVENTS, json=body(**picture(), solution="uc-1"))

    assert answer.status_code == 201
    assert answer.headers["content-type"] == "application/json"
    [event] = events_of(log)
    assert answer.json() == {"id": event.event_id}
    assert event.use_case_id == "uc-1"
    assert event.images[0].frame is not None
    assert log.frame(event.images[0].frame) == JPEG  # type: ignore[arg-type]


def test_sync_means_durable_before_the_answer(log: EventLog) -> None:
    with serving(log, sync=True) as client:
        for number in range(3):
            client.post(EVENTS, json=body(number))

            assert log.durable_seq == number + 1


def test_without_sync_the_answer_does_not_wait(client: AppClient, log: EventLog) -> None:
    client.post(EVENTS, json=body())

    assert log.stats().last_seq == 1
    assert log.durable_seq == 0


# --- repeats --------------------------------------------------------------------------------


def test_a_repeated_request_makes_no_second_event(client: AppClient, log: EventLog) -> None:
    first = client.post(EVENTS, json=body(**picture()))
    turned = json.dumps(body(**picture()), indent=2, sort_keys=True)
    again = client.post(EVENTS, content=turned, headers={"Content-Type": "application/json"})

    assert again.status_code == 201
    assert again.json() == first.json()
    assert log.stats().appended == 1
    assert client.get("/health").json()["requests"]["repeated"] == 1


def test_the_same_detection_a_moment_later_is_another_event(
    client: AppClient, log: EventLog
) -> None:
    same = picture()
    ids = {
        client.post(EVENTS, json=body(inference_timestamp=moment, **same)).json()["id"]
        for moment in (
            "2026-11-23T12:00:00.000000+00:00",
            "2026-11-23T12:00:00.000001+00:00",
            "2026-11-23T12:00:10.000000+00:00",
        )
    }

    assert len(ids) == 3
    assert log.stats().appended == 3
    assert log.stats("media").appended == 1


def test_a_repeat_after_a_restart_makes_no_second_event(log: EventLog) -> None:
    with serving(log) as client:
        first = client.post(EVENTS, json=body()).json()
    with serving(log) as client:
        again = client.post(EVENTS, json=body()).json()

    assert again == first
    assert log.stats().appended == 1


def test_what_is_too_old_to_be_remembered_has_the_same_id_all_the_same(
    log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(log) as client:
        first = client.post(EVENTS, json=body()).json()
    monkeypatch.setattr("vevents.store.app.read_back", lambda _: ())
    with serving(log) as client:
        again = client.post(EVENTS, json=body()).json()

    assert log.stats().appended == 2
    assert again == first


def test_two_devices_never_share_an_id(log: EventLog, tmp_path: Path) -> None:
    with (
        EventLog(tmp_path / "other", events_size=1 << 20, media_size=1 << 20) as other,
        serving(log) as one,
        serving(other) as two,
    ):
        assert one.post(EVENTS, json=body()).json() != two.post(EVENTS, json=body()).json()


def test_repeats_can_be_kept(log: EventLog) -> None:
    with serving(log, merge_repeats=False) as client:
        ids = {client.post(EVENTS, json=body()).json()["id"] for _ in range(2)}

    assert len(ids) == 2
    assert log.stats().appended == 2
    assert not (log.directory / "store.salt").exists()


def test_a_request_that_failed_can_be_repeated(
    client: AppClient, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(log, "append", _raise(OSError(5, "Input/output error")))
        assert client.post(EVENTS, json=body()).status_code == 503

    assert client.post(EVENTS, json=body()).status_code == 201
    assert log.stats().appended == 1


def test_a_repeat_is_durable_under_sync_even_if_its_first_append_was_not(log: EventLog) -> None:
    with serving(log) as client:
        client.post(EVENTS, json=body())
    assert log.durable_seq == 0
    with serving(log, sync=True) as client:
        client.post(EVENTS, json=body())

    assert log.durable_seq == 1


def test_the_same_request_twice_at_once(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, finish = threading.Event(), threading.Event()
    append = log.append

    def slow(event: Event, *, sync: bool = False) -> Any:
        entered.set()
        assert finish.wait(10)
        return append(event, sync=sync)

    monkeypatch.setattr(log, "append", slow)
    answers: list[Any] = []
    with serving(log) as client:

        def post() -> None:
            answers.append(client.post(EVENTS, json=body()).json())

        threads = [threading.Thread(target=post) for _ in range(2)]
        for thread in threads:
            thread.start()
        assert entered.wait(10)
        finish.set()
        for thread in threads:
            thread.join(10)

    assert answers[0] == answers[1]
    assert log.stats().appended == 1


# --- refusing -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "status", "detail"),
    [
        (b"{", 400, "not valid JSON"),
        (b"[]", 422, "must be a JSON object"),
        (b'{"event_schema": "custom"}', 422, "inference_timestamp: is missing"),
        (b"[" * 100_000, 400, "nested too deeply"),
    ],
)
def test_a_bad_body(
    client: AppClient, log: EventLog, content: bytes, status: int, detail: str
) -> None:
    answer = client.post(EVENTS, content=content, headers={"Content-Type": "application/json"})

    assert answer.status_code == status
    assert set(answer.json()) == {"detail"}
    assert detail in answer.json()["detail"]
    assert log.stats().appended == 0


def test_what_the_log_refuses_has_the_clients_name(client: AppClient, log: EventLog) -> None:
    answer = client.post(EVENTS, json=body(**picture(b"%PDF-1.7")))

    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("images[0].base64Image: must be a JPEG, PNG")
    assert log.stats().appended == 0


def test_a_picture_that_is_too_large_for_the_log(client: AppClient, log: EventLog) -> None:
    large = JPEG + bytes(log.stats("media").max_payload)

    answer = client.post(EVENTS, json=body(**picture(large)))

    assert answer.status_code == 413
    assert answer.json()["detail"].startswith("images[0].base64Image: ")


def test_no_path_in_a_body_is_read(client: AppClient, log: EventLog, tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(JPEG)
    image = {"frame": str(tmp_path / "x.jpg"), "inputFrame": "/etc/passwd", "file": "x"}

    answer = client.post(EVENTS, json=body(images=[image | {"label": "x"}]))

    assert answer.status_code == 201
    assert log.stats("media").appended == 0
    assert events_of(log)[0].images[0].frame is None


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_what_a_web_page_may_send_without_asking_is_refused(
    client: AppClient, log: EventLog, media_type: str
) -> None:
    answer = client.post(EVENTS, content=json.dumps(body()), headers={"Content-Type": media_type})

    assert answer.status_code == 415
    assert log.stats().appended == 0


def test_a_packed_body_is_refused(client: AppClient) -> None:
    answer = client.post(EVENTS, json=body(), headers={"Content-Encoding": "gzip"})

    assert answer.status_code == 415
    assert "Content-Encoding" in answer.json()["detail"]


def test_a_media_type_with_parameters_is_taken(client: AppClient) -> None:
    headers = {"Content-Type": "application/json; charset=utf-8"}

    assert client.post(EVENTS, content=json.dumps(body()), headers=headers).status_code == 201


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("GET", EVENTS, 405), ("DELETE", EVENTS, 405), ("PUT", LATEST, 405)],
)
def test_what_does_not_exist_says_so_in_the_same_shape(
    client: AppClient, method: str, path: str, status: int
) -> None:
    answer = client.request(method, path)

    assert answer.status_code == status
    assert set(answer.json()) == {"detail"}


# --- key and host ---------------------------------------------------------------------------


@pytest.mark.parametrize("offered", [None, "", "wrong", KEY + "x", KEY[:-1], "ключ".encode()])
def test_every_path_but_health_needs_the_key(log: EventLog, offered: Any) -> None:
    headers = {} if offered is None else {"X-API-Key": offered}
    with serving(log, key=Secret(KEY)) as client:
        for answer in (
            client.post(EVENTS, json=body(), headers=headers),
            client.get(LATEST, headers=headers),
        ):
            assert answer.status_code == 401
            assert answer.json() == {"detail": "X-API-Key is missing or wrong"}
        assert client.get("/health", headers=headers).json() == {"status": "ok"}

    assert log.stats().appended == 0


def test_the_key_opens(log: EventLog, caplog: pytest.LogCaptureFixture) -> None:
    headers = {"X-API-Key": KEY, "Host": "device.local"}
    with caplog.at_level(logging.DEBUG), serving(log, key=Secret(KEY)) as client:
        assert client.post(EVENTS, json=body(), headers=headers).status_code == 201
        assert len(client.get(LATEST, headers=headers).json()["events"]) == 1
        assert client.get("/health", headers=headers).json()["pending"] == 1
        client.post(EVENTS, json=body(), headers={"X-API-Key": KEY + "?"})

    assert "401" in caplog.text
    assert KEY not in caplog.text


def test_health_tells_no_figures_to_a_foreign_host(client: AppClient) -> None:
    assert client.get("/health", headers={"Host": "evil.example"}).json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8001", 201),
        ("localhost", 201),
        ("LOCALHOST:9000", 201),
        ("[::1]:8001", 201),
        ("127.0.0.7:8001", 201),
        ("10.0.0.7:8001", 400),
        ("evil.example:8001", 400),
        ("localhost.evil.example", 400),
        ("", 400),
    ],
)
def test_a_name_that_was_bent_to_this_machine_opens_nothing(
    client: AppClient, host: str, status: int
) -> None:
    assert client.post(EVENTS, json=body(), headers={"Host": host}).status_code == status


def test_on_a_unix_socket_any_host_will_do(log: EventLog) -> None:
    with serving(log, open_to_all=False) as client:
        assert client.post(EVENTS, json=body(), headers={"Host": "store"}).status_code == 201


# --- capacity -------------------------------------------------------------------------------


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_beyond_the_limit(log: EventLog, announced: bool) -> None:
    large = json.dumps(body(unknown="x" * 2_000)).encode()

    async def pieces() -> AsyncIterator[bytes]:
        yield large[:900]
        yield large[900:]

    with serving(log, body_size_max=1_000, held_size_max=200) as client:
        answer = client.post(
            EVENTS,
            content=large if announced else pieces(),
            headers={"Content-Type": "application/json"},
        )
        assert answer.status_code == 413
        assert answer.json()["detail"] == "the body is larger than 1,000 bytes"
        # What was held is given back.
        for number in range(3):
            assert client.post(EVENTS, json=body(number)).status_code == 201


def test_too_many_bodies_at_once_and_one_that_comes_too_slowly(log: EventLog) -> None:
    small = json.dumps(body()).encode()
    headers = {"Content-Type": "application/json", "Host": "127.0.0.1"}
    config = StoreConfig(held_size_max=10, patience_s=0.05, body_timeout_s=0.3)
    store = Store(log, config)

    async def run() -> None:
        begun = asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            yield small[:30]
            begun.set()
            await asyncio.sleep(10)
            yield small[30:]

        transport = httpx.ASGITransport(store.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            slow = asyncio.create_task(client.post(EVENTS, content=slowly(), headers=headers))
            await begun.wait()
            crowded = await client.post(EVENTS, content=small, headers=headers)
            assert crowded.status_code == 529
            assert crowded.json()["detail"].startswith("at capacity")
            late = await slow
            assert late.status_code == 408
            assert late.headers["connection"] == "close"
            assert late.json()["detail"] == "the body did not arrive within 0.3 s"
            after = await client.post(EVENTS, content=small, headers=headers)
            assert after.status_code == 201

    asyncio.run(run())
    store.close()
    assert log.stats().appended == 1


def test_a_body_that_was_refused_holds_up_nobody_while_it_ends(log: EventLog) -> None:
    store = Store(log, StoreConfig(body_size_max=1_000, held_size_max=1_000, patience_s=0.05))
    headers = {"Content-Type": "application/json"}

    async def run() -> None:
        refused, finish = asyncio.Event(), asyncio.Event()

        async def endless() -> AsyncIterator[bytes]:
            yield b"x" * 900
            yield b"x" * 900
            refused.set()
            await finish.wait()

        transport = httpx.ASGITransport(store.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            large = asyncio.create_task(client.post(EVENTS, content=endless(), headers=headers))
            await refused.wait()
            assert (await client.post(EVENTS, json=body())).status_code == 201
            assert store._held_size == 0
            finish.set()
            assert (await large).status_code == 413

    asyncio.run(run())
    store.close()


def test_a_burst_waits_for_its_turn(log: EventLog) -> None:
    sent = [json.dumps(body(number, unknown="x" * 10_000)).encode() for number in range(12)]
    store = Store(log, StoreConfig(held_size_max=25_000))
    most = 0

    async def in_pieces(raw: bytes) -> AsyncIterator[bytes]:
        nonlocal most
        for start in range(0, len(raw), 1_000):
            yield raw[start : start + 1_000]
            most = max(most, store._held_size)
            await asyncio.sleep(0)

    async def run() -> list[int]:
        headers = {"Content-Type": "application/json"}
        transport = httpx.ASGITransport(store.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            answers = await asyncio.gather(
                *(client.post(EVENTS, content=in_pieces(raw), headers=headers) for raw in sent)
            )
        return [answer.status_code for answer in answers]

    assert asyncio.run(run()) == [201] * 12
    assert 24_000 <= most <= 25_000 + max(map(len, sent))
    assert store._held_size == 0
    store.close()
    assert log.stats().appended == 12


def test_a_connection_beyond_the_limit_is_told_so(log: EventLog) -> None:
    store = Store(log, StoreConfig())

    async def crowded(scope: Any, receive: Any, send: Any) -> None:
        scope.setdefault("extensions", {})[CROWDED_EXTENSION] = True
        await store.app(scope, receive, send)

    client = AppClient(crowded)
    answer = client.post(EVENTS, json=body())
    assert client.get("/health").status_code == 200
    store.close()

    assert answer.status_code == 529
    assert answer.json() == {"detail": "at capacity: too many connections"}


def test_a_full_log_waits_for_the_cloud(tmp_path: Path) -> None:
    with EventLog(tmp_path / "log", events_size=1 << 20, media_size=1 << 20, full="refuse") as log:
        with serving(log) as client:
            for number in range(10_000):
                answer = client.post(
                    EVENTS, json=body(number, event_data={"value": _noise(number)})
                )
                if answer.status_code != 201:
                    break
            assert answer.status_code == 529
            assert answer.json() == {
                "detail": "Device storage full. Waiting for cloud uploads to complete."
            }
            assert client.get("/health").json()["status"] == "full"
            log.ack(list(range(1, number + 1)))
            # A producer that waits for this sends nothing that would find out.
            assert client.get("/health").json()["status"] == "ok"
            assert client.post(EVENTS, json=body(number)).status_code == 201
            assert client.get("/health").json()["status"] == "ok"
        assert log.stats().appended == number + 1


@pytest.mark.parametrize(
    ("error", "status", "part"),
    [
        (LogFullError("full"), 529, "Device storage full"),
        (LogBusyError("busy"), 529, "at capacity"),
        (LogDegradedError("EIO"), 503, "the disk failed"),
        (OSError(5, "Input/output error"), 503, "the disk failed: Input/output error"),
        (ZeroDivisionError("secret"), 500, "internal error"),
    ],
)
def test_trouble_of_the_log(
    client: AppClient,
    log: EventLog,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    status: int,
    part: str,
) -> None:
    monkeypatch.setattr(log, "append", _raise(error))

    answer = client.post(EVENTS, json=body())

    assert answer.status_code == status
    assert part in answer.json()["detail"]
    assert "secret" not in answer.text


def test_the_operator_is_told_but_not_flooded(
    client: AppClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1_000.0]
    monkeypatch.setattr("vevents.store.app._monotonic", lambda: now[0])
    for _ in range(50):
        client.post(EVENTS, json=body(event_schema="nonsense\nforged line"))
    now[0] += 60
    client.post(EVENTS, json=body(event_data={"value": 3}))

    lines = [record.getMessage() for record in caplog.records if record.name == "vevents.store.app"]
    assert len(lines) == 2
    assert lines[0].startswith("refused with 422: event_schema: must be one of")
    assert "\n" not in lines[0]
    assert lines[1].endswith("(49 more before it)")


# --- reading --------------------------------------------------------------------------------


def test_the_latest_come_first(client: AppClient, log: EventLog) -> None:
    ids = [client.post(EVENTS, json=body(number)).json()["id"] for number in range(12)]
    log.ack([12])

    shown = client.get(LATEST, params={"limit": 5}).json()["events"]

    assert [event["id"] for event in shown] == ids[:-6:-1]
    assert [event["state"] for event in shown] == ["delivered"] + ["pending"] * 4
    assert len(client.get(LATEST).json()["events"]) == 10
    assert len(client.get(LATEST, params={"limit": 99}).json()["events"]) == 12


def test_the_latest_of_many_and_of_none(client: AppClient, log: EventLog) -> None:
    assert client.get(LATEST).json() == {"events": []}
    for _ in range(1_100):
        log.append(Event.custom(value="x"))

    shown = client.get(LATEST, params={"limit": 10**17}).json()["events"]

    assert [event["seq"] for event in shown] == list(range(1_100, 100, -1))


def test_the_latest_after_the_oldest_were_evicted(client: AppClient, log: EventLog) -> None:
    number = 0
    while not log.stats().evicted:
        number += 1
        log.append(Event.custom(value=_noise(number)))

    shown = client.get(LATEST, params={"limit": 1_000}).json()["events"]

    first, last = log.stats().first_seq, log.stats().last_seq
    assert [event["seq"] for event in shown] == list(range(last, max(first - 1, last - 1_000), -1))


def test_very_large_events_are_shown_a_few_at_a_time(
    client: AppClient, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vevents.store.app._LATEST_SIZE_MAX", 20_000)
    for _ in range(100):
        log.append(Event.custom(value="x" * 2_000))

    shown = client.get(LATEST, params={"limit": 100}).json()["events"]

    assert [event["seq"] for event in shown] == list(range(100, 68, -1))


@pytest.mark.parametrize("limit", ["0", "-1", "x", "1.5", "", "٣", "9" * 5_000])
def test_a_limit_that_is_none(client: AppClient, limit: str) -> None:
    answer = client.get(LATEST, params={"limit": limit})

    assert answer.status_code == 422
    assert answer.json() == {"detail": "limit: must be a whole number, 1 or more"}


def test_an_event_that_cannot_be_read_hides_no_other(client: AppClient, log: EventLog) -> None:
    client.post(EVENTS, json=body())
    log.append_encoded(b"\xc1")

    [broken, good] = client.get(LATEST).json()["events"]

    assert broken["seq"] == 2
    assert "unreadable" in broken
    assert good["event_data"] == {"value": "door"}


def test_health_tells_how_it_stands(client: AppClient, log: EventLog) -> None:
    client.post(EVENTS, json=body(1))
    client.post(EVENTS, json=body(2))
    client.post(EVENTS, json={})
    log.ack([1])

    assert client.get("/health").json() == {
        "status": "ok",
        "pending": 1,
        "last_seq": 2,
        "durable_seq": 0,
        "evicted": 0,
        "rejected": 0,
        "lost": 0,
        "requests": {"stored": 2, "repeated": 0, "refused": 1, "turned_away": 0},
    }


def test_health_tells_that_the_disk_failed(
    client: AppClient, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    stats = log._handle.stats
    monkeypatch.setattr(
        log._handle,
        "stats",
        lambda stream: stats(stream) | ({"degraded": 5} if stream == _ffi.MEDIA else {}),
    )

    answer = client.get("/health")

    assert answer.status_code == 503
    assert answer.json()["status"] == "degraded"


def test_health_is_answered_while_every_append_waits_for_the_disk(
    log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, finish = threading.Semaphore(0), threading.Event()
    append = log.append

    def hang(event: Event, *, sync: bool = False) -> Any:
        inside.release()
        assert finish.wait(30)
        return append(event, sync=sync)

    monkeypatch.setattr(log, "append", hang)
    store = Store(log, StoreConfig(thread_count=2), open_to_all=True)
    headers = {"Host": "127.0.0.1"}

    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(store.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            waiting = [
                asyncio.create_task(client.post(EVENTS, json=body(number), headers=headers))
                for number in range(4)
            ]
            for _ in range(2):
                assert await asyncio.to_thread(inside.acquire, timeout=30)
            try:
                return await asyncio.wait_for(client.get("/health"), 30)
            finally:
                finish.set()
                await asyncio.gather(*waiting)

    assert asyncio.run(run()).json()["status"] == "ok"
    store.close()
    assert log.stats().appended == 4


def _raise(error: Exception) -> Any:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def _noise(number: int) -> str:
    return base64.b64encode(bytes(byte * (number + 7) % 251 for byte in range(900))).decode() + str(
        number
    )
