"""The event store over real sockets: slow clients, many clients, its end, the way to the cloud."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import json
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from vevents import EventLog
from vevents.delivery.client import Client
from vevents.delivery.flusher import Flusher
from vevents.emulator import EmulatorConfig, RunningEmulator
from vevents.event import Event
from vevents.store import StoreConfig, bind, describe
from vevents.store.app import Store
from vevents.store.server import _SPARE_CONNECTION_COUNT, Listener

USE_CASE = "uc-1"
KEY = "rf_secret_0123456789"
LATE_S = 5.0  # for what should come at once, on a machine that is busy


class Running:
    """A store in a thread of this process."""

    def __init__(self, log: EventLog, **settings: Any) -> None:
        config = StoreConfig(port=0, **settings)
        self._bound = bind(config)
        self.url = describe(self._bound)
        self.address = self._bound.getsockname()
        self._store = Store(log, config, open_to_all=True)
        ready = threading.Event()
        self.listener = Listener(self._store.app, config, ready.set)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert ready.wait(10)

    def _run(self) -> None:
        with self._bound:
            asyncio.run(self.listener.serve(sockets=[self._bound]))

    def stop(self) -> None:
        self.listener.should_exit = True
        self._thread.join(30)
        assert not self._thread.is_alive()
        self._store.close()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    with EventLog(tmp_path / "log", events_size=2 << 20, media_size=32 << 20) as opened:
        yield opened
        for stream in ("events", "media"):
            assert opened.stats(stream).conserved  # type: ignore[arg-type]


def body(number: int = 0, **fields: Any) -> dict[str, Any]:
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
    return {
        "inference_timestamp": f"{moment}.{number:06}+00:00",
        "event_schema": "custom",
        "event_data": {"value": f"event {number}"},
        "solution": USE_CASE,
    } | fields


def frame(number: int, size: int = 20_000) -> str:
    return base64.b64encode(b"\xff\xd8\xff\xe0" + random.Random(number).randbytes(size)).decode()


def head(length: int) -> bytes:
    return (
        "POST /v2/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


def read_all(connection: socket.socket) -> bytes:
    connection.settimeout(LATE_S)
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(65_536):
            received += piece
    return received


# --- slow clients ---------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", b"POST /v2/events HTTP/1.1\r\nHost: local"])
def test_headers_that_do_not_come(log: EventLog, sent: bytes) -> None:
    with (
        Running(log, header_timeout_s=0.2) as store,
        socket.create_connection(store.address) as slow,
    ):
        slow.sendall(sent)

        assert read_all(slow) == b""


def test_headers_that_come_letter_by_letter(log: EventLog) -> None:
    with (
        Running(log, header_timeout_s=0.3) as store,
        socket.create_connection(store.address) as slow,
    ):
        ends = time.monotonic() + LATE_S
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            while time.monotonic() < ends:
                slow.sendall(b"X")
                time.sleep(0.02)


def test_the_headers_of_a_second_request_that_do_not_come(log: EventLog) -> None:
    with (
        Running(log, header_timeout_s=0.3) as store,
        socket.create_connection(store.address) as slow,
    ):
        slow.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while not answer.endswith(b"}}"):
            answer += slow.recv(65_536)
        assert answer.startswith(b"HTTP/1.1 200")
        slow.sendall(b"GET /hea")

        assert read_all(slow) == b""


def test_a_body_that_does_not_come(log: EventLog) -> None:
    raw = json.dumps(body()).encode()
    with (
        Running(log, body_timeout_s=0.3, header_timeout_s=0.1) as store,
        socket.create_connection(store.address) as slow,
    ):
        slow.sendall(head(len(raw)) + raw[:-1])

        answer = read_all(slow)

    assert answer.startswith(b"HTTP/1.1 408")
    assert b"connection: close" in answer.lower()
    assert log.stats().appended == 0


def test_a_slow_body_within_the_time_is_taken_and_stops_nobody(log: EventLog) -> None:
    raw = json.dumps(body(1)).encode()
    with (
        Running(log, body_timeout_s=30, header_timeout_s=0.2) as store,
        socket.create_connection(store.address) as slow,
    ):
        slow.sendall(head(len(raw)) + raw[:10])
        for number in range(2, 12):
            assert post(store, body(number)).status_code == 201
            time.sleep(0.03)  # longer than the headers' time in the end
        slow.sendall(raw[10:])

        assert slow.recv(65_536).startswith(b"HTTP/1.1 201")

    assert log.stats().appended == 11


def test_an_answer_that_nobody_takes(log: EventLog) -> None:
    for _ in range(1_000):
        log.append(Event.custom(value="x" * 9_500))  # more than the kernel keeps for a socket
    with Running(log, write_timeout_s=0.5) as store:
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        with slow:
            slow.connect(store.address)
            _wait_for_connections(store, 1)
            slow.sendall(
                b"GET /v2/events/latest/query?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n"
            )

            _wait_for_connections(store, 0)


def test_a_large_answer_is_whole(log: EventLog) -> None:
    for _ in range(1_000):
        log.append(Event.custom(value="x" * 9_500))
    with Running(log) as store:
        answer = httpx.get(f"{store.url}/v2/events/latest/query?limit=1000", trust_env=False)

    assert len(answer.content) > 8 << 20
    assert answer.json()["events"][0]["seq"] == 1_000


def test_a_client_that_hangs_up_in_the_middle(log: EventLog) -> None:
    with Running(log) as store:
        for _ in range(5):
            with socket.create_connection(store.address) as gone:
                gone.sendall(head(1_000) + b"{")
        assert post(store, body()).status_code == 201

    assert log.stats().appended == 1


def test_a_client_that_closes_its_side_behind_its_request_reads_the_answer(log: EventLog) -> None:
    """As `nc -N` does."""
    content = json.dumps(body()).encode()
    with Running(log) as store, socket.create_connection(store.address) as half:
        half.sendall(head(len(content)) + content)
        half.shutdown(socket.SHUT_WR)

        answer = read_all(half)

    assert answer.startswith(b"HTTP/1.1 201 ")
    [record] = log.read()
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"id": record.event_id}


def test_a_client_that_closes_its_side_within_its_request_is_let_go(log: EventLog) -> None:
    content = json.dumps(body()).encode()
    with Running(log) as store, socket.create_connection(store.address) as half:
        half.sendall(head(len(content)) + content[:-1])
        half.shutdown(socket.SHUT_WR)

        assert read_all(half) == b""

    assert log.stats().appended == 0


def test_who_asks_before_sending_is_refused_before_sending(log: EventLog) -> None:
    with Running(log, body_size_max=1_000) as store:
        for length, status in ((2_000, b"413"), (100, b"100")):
            with socket.create_connection(store.address) as polite:
                polite.sendall(head(length)[:-2] + b"Expect: 100-continue\r\n\r\n")
                polite.settimeout(LATE_S)

                assert polite.recv(65_536).startswith(b"HTTP/1.1 " + status)


def test_answers_that_nobody_takes_fill_no_memory(log: EventLog) -> None:
    """At most four are made at one time, however many ask."""
    for _ in range(1_000):
        log.append(Event.custom(value="x" * 9_500))  # more than the kernel keeps for a socket
    path = "/v2/events/latest/query?limit=1000"
    with (
        Running(log, patience_s=0.2, write_timeout_s=60.0) as store,
        contextlib.ExitStack() as stack,
    ):
        lazy = []
        for _ in range(5):
            lazy.append(stack.enter_context(socket.socket()))
            lazy[-1].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            lazy[-1].settimeout(LATE_S)
            lazy[-1].connect(store.address)
            lazy[-1].sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())

        assert sorted(one.recv(12) for one in lazy) == [b"HTTP/1.1 200"] * 4 + [b"HTTP/1.1 529"]
        # Who goes makes room.
        for one in lazy:
            one.close()
        ends = time.monotonic() + LATE_S
        while (answer := httpx.get(f"{store.url}{path}", trust_env=False)).status_code == 529:
            assert time.monotonic() < ends
        assert answer.status_code == 200


def test_what_is_no_http_fills_no_journal(log: EventLog, caplog: pytest.LogCaptureFixture) -> None:
    with Running(log) as store:
        for sent in (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"GET /\r\n\r\n", b"\0" * 100_000):
            with socket.create_connection(store.address) as other:
                with contextlib.suppress(ConnectionError):
                    other.sendall(sent)
                    other.shutdown(socket.SHUT_WR)
                assert b"201" not in read_all(other)
        assert post(store, body()).status_code == 201

    assert not caplog.records


def test_headers_without_end(log: EventLog) -> None:
    with Running(log) as store, socket.create_connection(store.address) as endless:
        with contextlib.suppress(ConnectionError):
            endless.sendall(b"GET / HTTP/1.1\r\n" + b"X-Long: y\r\n" * 100_000)

        assert b" 200 " not in read_all(endless)


# --- many clients ---------------------------------------------------------------------------


def test_connections_beyond_the_limit_are_told_so_and_later_served(log: EventLog) -> None:
    with Running(log, connection_count_max=4) as store, contextlib.ExitStack() as stack:
        idle = [
            stack.enter_context(socket.create_connection(store.address, timeout=LATE_S))
            for _ in range(4)
        ]
        _wait_for_connections(store, 4)

        large = body(images=[{"base64Image": frame(1, 900_000)}])
        refused = post(store, large)
        assert refused.status_code == 529
        assert refused.json() == {"detail": "at capacity: too many connections"}
        for connection in idle:
            connection.close()
        _wait_for_connections(store, 0)
        assert post(store, large).status_code == 201

    assert log.stats().appended == 1


def test_far_too_many_connections_are_cut(log: EventLog) -> None:
    with Running(log, connection_count_max=1) as store, contextlib.ExitStack() as stack:
        for _ in range(1 + _SPARE_CONNECTION_COUNT):
            stack.enter_context(socket.create_connection(store.address, timeout=LATE_S))
        _wait_for_connections(store, 1 + _SPARE_CONNECTION_COUNT)

        with socket.create_connection(store.address, timeout=LATE_S) as last:
            assert read_all(last) == b""


def test_more_connections_than_files_that_may_be_open(tmp_path: Path) -> None:
    serve = [sys.executable, "-m", "vevents", "serve", "--json", "--port", "0"]
    process = subprocess.Popen(
        ["/bin/sh", "-c", 'ulimit -n 48; exec "$@"', "sh", *serve, "--dir", str(tmp_path / "log")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process, contextlib.ExitStack() as ends_anyway, contextlib.ExitStack() as stack:
        ends_anyway.callback(process.kill)
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        for _ in range(100):
            silent = stack.enter_context(socket.create_connection(address, timeout=LATE_S))
        # The last ones are cut, and do not wait in front of everybody else.
        assert read_all(silent) == b""
        stack.close()
        ends = time.monotonic() + LATE_S
        answer = None
        while answer is None or answer.status_code == 529:
            assert time.monotonic() < ends
            with contextlib.suppress(httpx.TransportError):
                answer = httpx.post(f"{url}/v2/events", json=body(), trust_env=False)
        assert answer.status_code == 201
        process.terminate()
        _, said = process.communicate(timeout=30)

    assert process.returncode == 0
    warning, *rest = said.splitlines()
    assert warning.endswith(
        "at most 10 connections and not 256: this process may open 48 files (ulimit -n)"
    )
    assert not [line for line in rest if "open files" in line]
    with EventLog(tmp_path / "log", read_only=True) as log:
        assert (log.stats().appended, log.stats().conserved) == (1, True)


@pytest.mark.parametrize("status", [401, 413, 415])
def test_a_refusal_is_read_even_by_a_client_with_much_to_send(log: EventLog, status: int) -> None:
    # An answer before the end of the body, and a close, would be a broken pipe to the client.
    from vevents.settings import Secret

    large = json.dumps(body(images=[{"base64Image": frame(1, 6_000_000)}])).encode()
    settings: dict[int, dict[str, Any]] = {
        401: {"key": Secret("k")},
        413: {"body_size_max": len(large) // 3},
    }
    media_type = "text/plain" if status == 415 else "application/json"
    with Running(log, **settings.get(status, {})) as store:
        connection = http.client.HTTPConnection(*store.address, timeout=LATE_S)
        for _ in range(3):
            connection.request("POST", "/v2/events", large, {"Content-Type": media_type})
            answer = connection.getresponse()
            assert answer.status == status
            assert "detail" in json.loads(answer.read())
        connection.close()


def test_many_clients_at_once_lose_nothing(log: EventLog) -> None:
    bodies = [body(number, images=[{"base64Image": frame(number % 20)}]) for number in range(200)]

    def send(number: int) -> tuple[int, str]:
        answer = client.post("/v2/events", json=bodies[number])
        return answer.status_code, answer.json()["id"]

    with (
        Running(log) as store,
        httpx.Client(base_url=store.url, trust_env=False) as client,
        ThreadPoolExecutor(16) as threads,
    ):
        answers = list(threads.map(send, [*range(200), *range(50)]))

    assert {status for status, _ in answers} == {201}
    assert [event_id for _, event_id in answers[200:]] == [event_id for _, event_id in answers[:50]]
    assert {record.event_id for record in log.read()} == {event_id for _, event_id in answers}
    assert log.stats().appended == 200


# --- the end --------------------------------------------------------------------------------


def test_what_is_under_way_is_answered_before_the_end(
    log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, finish = threading.Event(), threading.Event()
    append = log.append

    def slow(event: Event, *, sync: bool = False) -> Any:
        entered.set()
        assert finish.wait(10)
        return append(event, sync=sync)

    monkeypatch.setattr(log, "append", slow)
    with ThreadPoolExecutor(1) as threads:
        store = Running(log)
        answer = threads.submit(post, store, body())
        assert entered.wait(60)
        store.listener.should_exit = True
        time.sleep(0.3)  # uvicorn looks at the flag ten times a second
        assert not answer.done()
        finish.set()

        assert answer.result(10).status_code == 201
        store.stop()

    assert log.stats().appended == 1


def test_an_append_that_outlasts_the_patience_is_finished_before_the_log_is_closed(
    log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, finish = threading.Event(), threading.Event()
    append = log.append

    def slow(event: Event, *, sync: bool = False) -> Any:
        entered.set()
        assert finish.wait(10)
        return append(event, sync=sync)

    monkeypatch.setattr(log, "append", slow)
    with ThreadPoolExecutor(1) as threads:
        store = Running(log, grace_s=0.1)
        answer = threads.submit(post, store, body())
        assert entered.wait(60)
        timer = threading.Timer(1.5, finish.set)
        timer.start()
        store.stop()

        assert log.stats().appended == 1
        with contextlib.suppress(httpx.HTTPError):
            assert answer.result(10).status_code >= 500
        timer.join()


# --- the whole way --------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("options", "count"), [([], 300), (["--sync"], 100)])
def test_killed_again_and_again(tmp_path: Path, options: list[str], count: int) -> None:
    """A client that repeats what was not answered: each event once in the cloud, none lost."""
    directory = tmp_path / "log"
    command = [sys.executable, "-m", "vevents", "serve", "--json", "--dir", str(directory)]
    dice = random.Random(11)
    answered: dict[int, str] = {}
    port = "0"
    unanswered = 0
    with EventLog(directory, events_size=2 << 20, media_size=32 << 20):
        pass
    queue = [
        (number, body(number, images=[{"base64Image": frame(number, 2_000)}]))
        for number in range(count)
    ]
    while queue:
        process = subprocess.Popen(
            [*command, "--port", port, *options], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        port = url.rpartition(":")[2]
        # Some requests go well; then the end comes at any point of one of the next.
        last_words = len(queue) - dice.randrange(5, 30)
        killer = threading.Timer(dice.uniform(0, 0.01), process.kill)
        with httpx.Client(base_url=url, trust_env=False) as client:
            while queue:
                number, sent = queue[0]
                try:
                    answer = client.post("/v2/events", json=sent)
                except httpx.HTTPError:
                    unanswered += 1
                    break
                assert answer.status_code == 201
                answered[number] = answer.json()["id"]
                del queue[0]
                if len(queue) == last_words:
                    killer.start()
        process.kill()
        process.wait(30)
        if killer.is_alive():
            killer.join()
        process.stdout.close()

    assert unanswered > 1
    config = EmulatorConfig(api_keys=[KEY], use_cases=[USE_CASE], require_known_images=True)
    with (
        RunningEmulator(config) as emulator,
        EventLog(directory) as log,
        Client(KEY, api_url=emulator.url) as api,
    ):
        assert log.stats().appended == count
        report = Flusher(log, api).flush()
        assert report.delivered == count
        assert report.images_missing == 0
        for stream in ("events", "media"):
            assert log.stats(stream).conserved  # type: ignore[arg-type]
        stored = {row["event"]["eventId"]: row["event"] for row in emulator.events()}
    assert stored.keys() == set(answered.values())
    for number, event_id in answered.items():
        assert stored[event_id]["eventData"] == {"value": f"event {number}"}


def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vevents", "serve", "--json", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--dir", str(tmp_path / "log")], stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        with socket.create_connection(address) as slow:
            slow.sendall(head(1_000) + b"{")
            assert httpx.get(f"{url}/health", trust_env=False).status_code == 200
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
            assert time.monotonic() - began < LATE_S


def post(store: Running, sent: dict[str, Any]) -> httpx.Response:
    return httpx.post(f"{store.url}/v2/events", json=sent, trust_env=False, timeout=30)


def _wait_for_connections(store: Running, count: int) -> None:
    ends = time.monotonic() + LATE_S
    while len(store.listener.server_state.connections) != count:
        assert time.monotonic() < ends
        time.sleep(0.01)
