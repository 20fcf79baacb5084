"""Running the emulator: in a thread, in a process that gets signals, after a restart."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import json
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.routing import Route

from vevents.emulator import EmulatorConfig, Fault, RunningEmulator, create_app
from vevents.emulator.server import _bind
from vevents.errors import ConfigurationError

KEY = "rf_secret_0123456789"
EVENTS = "/vision-events"


def config(**settings: Any) -> EmulatorConfig:
    defaults: dict[str, Any] = {"api_keys": [KEY], "use_cases": [("uc-1", "Line 1")]}
    return EmulatorConfig(**(defaults | settings))


def client_of(url: str) -> httpx.Client:
    return httpx.Client(
        base_url=url, headers={"Authorization": f"Bearer {KEY}"}, trust_env=False, timeout=30
    )


def event(event_id: str) -> dict[str, Any]:
    return {
        "eventId": event_id,
        "eventType": "custom",
        "useCaseId": "uc-1",
        "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def test_it_listens_at_once_and_stops_for_good() -> None:
    with RunningEmulator() as emulator:
        answer = httpx.get(
            f"{emulator.url}{EVENTS}/use-cases",
            headers={"Authorization": f"Bearer {emulator.api_key}"},
            trust_env=False,
        )
        assert answer.status_code == 200

    with pytest.raises(httpx.ConnectError):
        httpx.get(emulator.url, trust_env=False)
    assert not [thread for thread in threading.enumerate() if thread.name == "vevents-emulator"]


def test_counts_can_be_read_after_the_end() -> None:
    with RunningEmulator(config()) as emulator, client_of(emulator.url) as client:
        client.post(EVENTS, json=event("a"))

    assert emulator.counts()["events"] == 1


def test_it_comes_back_at_the_same_place_with_everything(tmp_path: Path) -> None:
    settings = config(database=tmp_path / "cloud.db")
    with RunningEmulator(settings) as emulator, client_of(emulator.url) as client:
        assert client.post(EVENTS, json=event("a")).status_code == 201
        port = int(emulator.url.rpartition(":")[2])

    with RunningEmulator(settings, port=port) as emulator, client_of(emulator.url) as client:
        assert client.post(EVENTS, json=event("a")).status_code == 201
        assert emulator.url.endswith(f":{port}")
        counts = emulator.counts()

    assert (counts["events"], counts["overwrites"]) == (1, 1)


def test_the_socket_is_known_to_be_tcp() -> None:
    # asyncio asks for that before it sets TCP_NODELAY; without, every answer on a kept
    # connection takes 40 ms.
    with _bind("127.0.0.1", 0) as bound:
        assert bound.proto == socket.IPPROTO_TCP


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(OSError, match=f"127.0.0.1:{port}") as failed:
            RunningEmulator(config(), port=port)

    assert failed.value.errno == errno.EADDRINUSE


def test_a_bad_setting_leaves_the_port_free(tmp_path: Path) -> None:
    (tmp_path / "cloud.db").write_text("something else entirely, " * 50)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

    with pytest.raises(ConfigurationError, match=r"cloud\.db"):
        RunningEmulator(config(database=tmp_path / "cloud.db"), port=port)

    RunningEmulator(config(), port=port).stop()


@pytest.mark.parametrize("package", ["starlette", "uvicorn", "jsonschema", "python_multipart"])
def test_a_missing_package_is_named_with_its_cure(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(ConfigurationError, match=package) as missing:
        create_app(config())

    assert 'pip install "vevents[emulate]"' in str(missing.value)


def test_importing_it_loads_none_of_its_packages() -> None:
    program = (
        "import sys, vevents.emulator\n"
        "print({'starlette', 'uvicorn', 'jsonschema', 'sqlite3'} & set(sys.modules))"
    )

    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert ran.stdout == "set()\n"


def test_the_application_alone_closes_its_database() -> None:
    app = create_app(config())

    async def live() -> None:
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                params = {"api_key": KEY}
                answer = await client.post(EVENTS, json=event("a"), params=params)
                assert answer.status_code == 201
                # Nothing is known of the server's address, so the rest wants the key as well.
                assert (await client.get("/__emulator__/counts")).status_code == 401
                answer = await client.get("/__emulator__/counts", params=params)
                assert answer.json()["events"] == 1

    asyncio.run(live())

    assert app.state.emulator.counts()["events"] == 1


def test_a_server_that_cannot_cut_connections_says_so() -> None:
    app = create_app(config())
    app.state.emulator.faults.script("*", Fault(drop=True))

    async def post() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            await client.post(EVENTS, json=event("a"))

    with pytest.raises(ConnectionAbortedError):
        asyncio.run(post())
    app.state.emulator.close()


def test_introspection_away_from_loopback_wants_a_key() -> None:
    with RunningEmulator(config(), host="0.0.0.0") as emulator:
        url = emulator.url.replace("0.0.0.0", "127.0.0.1")
        with client_of(url) as client:
            for method, path in (("GET", "counts"), ("DELETE", "events"), ("GET", "images/i")):
                bare = httpx.request(method, f"{url}/__emulator__/{path}", trust_env=False)
                assert bare.status_code == 401
            assert client.get("/__emulator__/counts").status_code == 200
        assert httpx.get(f"{url}/__emulator__/health", trust_env=False).status_code == 200


def test_ipv6() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with RunningEmulator(config(), host="::1") as emulator, client_of(emulator.url) as client:
        assert emulator.url.startswith("http://[::1]:")
        assert client.get("/__emulator__/counts").status_code == 200


def test_many_clients_at_once() -> None:
    with RunningEmulator(config()) as emulator:

        def post(number: int) -> None:
            with client_of(emulator.url) as client:
                for batch in range(5):
                    events = [event(f"{number}-{batch}-{n}") for n in range(10)]
                    answer = client.post(f"{EVENTS}/batch", json={"events": [*events, event("x")]})
                    assert answer.status_code == 201
                    client.post(
                        f"{EVENTS}/upload", files={"file": ("a", b"\xff\xd8\xff" + bytes(70_000))}
                    )

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(post, range(8)))
        counts = emulator.counts()

    assert counts["events"] == 8 * 5 * 10 + 1
    assert counts["overwrites"] == 39
    assert (counts["images"], counts["images_duplicate"]) == (40, 39)
    assert counts["refused"] == {}


def test_stopping_does_not_wait_for_injected_delays() -> None:
    emulator = RunningEmulator(config())
    emulator.faults.script(EVENTS, Fault(delay_s=600))
    with client_of(emulator.url) as client, ThreadPoolExecutor(1) as pool:
        slow = pool.submit(client.post, EVENTS, json=event("a"))
        while emulator.faults.pending:
            time.sleep(0.001)
        # The request was taken; the answer to a second one proves that it is being held.
        client.get(f"{EVENTS}/use-cases")
        emulator.stop()

        assert slow.result(timeout=60).status_code == 201


# --- as a process of its own --------------------------------------------------------------------

SERVE = textwrap.dedent(
    """
    import json, sys
    from vevents.emulator import EmulatorConfig, serve

    config = EmulatorConfig(
        database=sys.argv[1], api_keys=[sys.argv[2]], use_cases=["uc-1=Line 1"]
    )
    serve(config, port=0, on_ready=lambda ready: print(json.dumps({"url": ready.url}), flush=True))
    print("over", flush=True)
    """
)


def start(database: Any) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(database), KEY],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, json.loads(process.stdout.readline())["url"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    process, url = start(tmp_path / "cloud.db")
    with client_of(url) as client:
        assert client.post(EVENTS, json=event("a"), params={"api_key": KEY}).status_code == 201
        assert client.get(f"{EVENTS}?api_key={KEY}").status_code == 405
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)

    assert (process.returncode, output, errors) == (0, "over\n", "")
    # A clean end leaves one file behind, not SQLite's working files.
    assert [file.name for file in tmp_path.iterdir()] == ["cloud.db"]


def test_a_signal_ends_injected_delays(tmp_path: Path) -> None:
    process, url = start(tmp_path / "cloud.db")
    with client_of(url) as client, ThreadPoolExecutor(1) as pool:
        script = {"path": EVENTS, "faults": [{"delay_s": 600}]}
        client.post("/__emulator__/faults", json=script)
        slow = pool.submit(client.post, EVENTS, json=event("a"))
        while client.get("/__emulator__/faults").json()["pending"]:
            time.sleep(0.001)
        process.send_signal(signal.SIGTERM)

        assert slow.result(timeout=60).status_code == 201
        assert process.communicate(timeout=60) == ("over\n", "")


def test_what_it_answered_survives_a_kill(tmp_path: Path) -> None:
    process, url = start(tmp_path / "cloud.db")
    with client_of(url) as client:
        for number in range(50):
            assert client.post(EVENTS, json=event(f"e-{number}")).status_code == 201
        process.kill()
        process.communicate(timeout=60)

    with RunningEmulator(config(database=tmp_path / "cloud.db")) as emulator:
        assert emulator.counts()["events"] == 50


# --- what docs/emulator.md says -------------------------------------------------------------------

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "emulator.md").read_text("utf-8")


def table_of(section: str, first_header: str) -> list[list[str]]:
    """Return the cells of the table with this first header in a section, without back quotes."""
    [text] = [each for each in DOCUMENT.split("\n## ") if each.startswith(section)]
    [table] = [each for each in text.split("\n\n") if each.startswith(f"| {first_header} |")]
    return [
        [cell.strip().replace("`", "") for cell in row.strip("|").split("|")]
        for row in table.splitlines()[2:]
    ]


def test_every_option_is_documented_with_its_default() -> None:
    documented = {
        name: row[1]
        for row in table_of("3.", "Option")
        for name in row[0].split(", ")
        if not name.startswith("rate_limit")
    }
    options = {each.name: each.default for each in dataclasses.fields(EmulatorConfig)}
    assert options.pop("rate_limit_per_s") is None
    assert options.pop("rate_limit_burst") == 1

    assert documented.keys() == options.keys()
    for name, default in options.items():
        if type(default) is bool:
            assert documented[name] == "no", name
            assert default is False
        elif type(default) is int:
            assert int(documented[name].replace(",", "")) == default, name


def test_every_count_is_documented() -> None:
    documented = {name for row in table_of("5.", "Count") for name in row[0].split(", ")}

    with RunningEmulator(config()) as emulator:
        assert documented == emulator.counts().keys()


def test_every_path_is_documented() -> None:
    def paths(text: str) -> str:
        return re.sub(r"\{\w+\}", "{}", text.partition("?")[0])

    documented = set()
    for row in table_of("2.", "Path"):
        method, _, path = row[0].replace("...", "/vision-events/use-cases/{id}").partition(" ")
        documented |= {(method, paths(each)) for each in path.split(", ")}
    for row in table_of("5.", "Path"):
        *methods, path = row[0].replace(",", "").split(" ")
        documented |= {(method, f"/__emulator__{paths(path)}") for method in methods}
    app = create_app(config())
    app.state.emulator.close()
    served = {
        (method, paths(route.path))
        for route in app.routes
        if isinstance(route, Route) and route.methods is not None
        for method in route.methods - {"HEAD"}
    }

    assert documented == served


def test_every_field_of_a_fault_is_documented() -> None:
    documented = [name for row in table_of("6.", "Field") for name in row[0].split(", ")]

    assert documented == [each.name for each in dataclasses.fields(Fault)]


def test_the_requests_of_the_document_work() -> None:
    requests = re.findall(r"-X (\w+) .*?\$API_URL(/\S+?)\" \\\n  -d '(.*)'", DOCUMENT)
    with RunningEmulator(config()) as emulator, client_of(emulator.url) as client:
        for method, path, body in requests:
            answer = client.request(method, path, json=json.loads(body))
            assert answer.status_code in (200, 201), answer.text
        assert DOCUMENT.count("curl -X") == len(requests) == 6
        assert emulator.faults.pending == 6
        assert str(emulator.faults.chaos) == "7:high"


def test_the_example_of_the_document_works() -> None:
    [example] = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)

    exec(compile(example, "docs/emulator.md", "exec"), {})
