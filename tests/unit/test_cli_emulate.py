"""`vevents emulate` as a process."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import trustme
from cli_site import PATIENCE_S, clean_environment

from vevents.cli import main
from vevents.cli.exit_codes import ExitCode
from vevents.delivery.client import Client
from vevents.errors import RefusedError, ThrottledError, UnreachableError


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean_environment(monkeypatch, tmp_path)


@contextmanager
def emulate(*options: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "vevents", "emulate", "--port", "0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def first_object(process: subprocess.Popen[str]) -> dict[str, str]:
    assert process.stdout is not None
    loaded = json.loads(process.stdout.readline())
    assert isinstance(loaded, dict)
    return loaded


def event(**fields: object) -> bytes:
    obj = {
        "eventId": "evt-1",
        "eventType": "custom",
        "useCaseId": "uc-demo",
        "timestamp": datetime.now(UTC).isoformat(),
        "eventData": {"value": "v"},
    }
    return json.dumps(obj | fields).encode()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_prints_what_a_shell_needs_and_stops_on_a_signal(number: signal.Signals) -> None:
    with emulate() as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        key = process.stdout.readline().strip()
        assert url.startswith("export API_URL=http://127.0.0.1:")
        assert key.startswith("export ROBOFLOW_API_KEY=")
        with Client(key.partition("=")[2], api_url=url.partition("=")[2]) as client:
            [use_case] = client.list_use_cases().use_cases
            assert (use_case.id, use_case.name) == ("uc-demo", "Demo")
            assert client.create_event(event()) == "evt-1"

        process.send_signal(number)
        _, err = process.communicate(timeout=PATIENCE_S)

    assert (process.returncode, err) == (ExitCode.OK, "")


def test_a_key_that_was_given_is_not_printed() -> None:
    with emulate("--api-key", "k1", "--api-key", "k2", "--json") as process:
        shown = first_object(process)
        assert set(shown) == {"API_URL"}
        for key in ("k1", "k2"):
            with Client(key, api_url=shown["API_URL"]) as client:
                client.list_use_cases()


def test_options_reach_the_emulator(tmp_path: Path) -> None:
    options = ["--api-key", "k", "--json", "--use-case", "uc-a=A", "--use-case", "uc-b"]
    database = ["--database", str(tmp_path / "emulator.db")]
    with (
        emulate(*options, *database, "--strict", "--partial-batches") as process,
        Client("k", api_url=first_object(process)["API_URL"]) as client,
    ):
        assert {case.id for case in client.list_use_cases().use_cases} == {"uc-a", "uc-b"}
        with pytest.raises(RefusedError):
            client.create_event(event(useCaseId="uc-a", eventData={}))
        good, bad = event(useCaseId="uc-a"), event(useCaseId="uc-x", eventId="evt-2")
        assert client.create_batch([good, bad]) == ["evt-1"]

    with (
        emulate(*options, *database) as process,
        Client("k", api_url=first_object(process)["API_URL"]) as client,
    ):
        assert client.create_event(event(useCaseId="uc-a", eventData={})) == "evt-1"
        [stored] = client.query({"useCaseId": "uc-a"}).events
        assert stored["eventId"] == "evt-1"


def test_rate_limit_and_access_log() -> None:
    with emulate("--api-key", "k", "--json", "--rate-limit", "0.001", "--access-log") as process:
        with Client("k", api_url=first_object(process)["API_URL"]) as client:
            client.list_use_cases()
            with pytest.raises(ThrottledError):
                client.list_use_cases()
        process.terminate()
        _, err = process.communicate(timeout=PATIENCE_S)

    assert err.count("/vision-events/use-cases") == 2


def test_chaos_says_its_seed_and_what_it_did() -> None:
    def run() -> tuple[list[str], str]:
        options = ("--api-key", "k", "--json", "--chaos", "7:high")
        with emulate(*options) as process:
            shown = first_object(process)
            assert shown["chaos"] == "7:high"
            url = f"{shown['API_URL']}/vision-events/use-cases"
            with httpx.Client(trust_env=False, timeout=0.3) as client:
                for _ in range(30):
                    with suppress(httpx.HTTPError):
                        client.get(url)
                faults = client.get(f"{shown['API_URL']}/__emulator__/faults").json()
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=PATIENCE_S)
        assert faults["chaos"] == "7:high"
        return faults["history"], err

    history, err = run()

    assert len(history) > 5
    assert history[0].startswith("GET /vision-events/use-cases ")
    first, last = err.splitlines()
    assert first == "chaos 7:high: requests will fail on purpose"
    assert last.startswith(f"chaos 7:high: {len(history)} of 30 requests: ")
    assert run() == (history, err)


@pytest.mark.parametrize("given", ["seven", "7:extreme", ":high"])
def test_chaos_that_makes_no_sense(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["emulate", "--port", "0", "--chaos", given]) == ExitCode.USAGE
    assert "chaos: " in capsys.readouterr().err


def test_tls(tmp_path: Path) -> None:
    issued = trustme.CA().issue_cert("127.0.0.1")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    issued.cert_chain_pems[0].write_to_path(certificate)
    issued.private_key_pem.write_to_path(key)
    files = ("--tls-certificate", str(certificate), "--tls-key", str(key))

    with emulate("--json", *files) as process:
        url = first_object(process)["API_URL"]
        assert url.startswith("https://127.0.0.1:")
        with Client("k", api_url=url) as client, pytest.raises(UnreachableError, match="certific"):
            client.list_use_cases()


def test_tls_with_half_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "some.pem"
    file.write_text("nothing")
    for option in ("--tls-certificate", "--tls-key"):
        assert main(["emulate", "--port", "0", option, str(file)]) == ExitCode.USAGE
        assert "need each other" in capsys.readouterr().err
    both = ["--tls-certificate", str(file), "--tls-key", str(file)]
    assert main(["emulate", "--port", "0", *both]) == ExitCode.USAGE
    assert str(file) in capsys.readouterr().err


def test_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        assert main(["emulate", "--port", str(port)]) == ExitCode.ERROR
    assert f"127.0.0.1:{port}" in capsys.readouterr().err


def test_use_case_without_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["emulate", "--use-case", "=x"]) == ExitCode.USAGE
    assert "use case" in capsys.readouterr().err
