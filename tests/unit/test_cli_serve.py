"""`vevents serve` as a command and as a process."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from cli_site import PATIENCE_S, clean_environment

from vevents import EventLog
from vevents.cli import main
from vevents.cli.exit_codes import ExitCode

KEY = "store_secret_0123"
BODY = {
    "inference_timestamp": "2026-11-23T12:00:00.123456+00:00",
    "event_schema": "custom",
    "event_data": {"value": "door"},
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean_environment(monkeypatch, tmp_path)
    (tmp_path / "vevents.toml").write_text(
        'dir = "log"\nevents_size = "1MiB"\nmedia_size = "1MiB"\ndelivery_size = "1MiB"\n'
    )


@contextmanager
def serve(*options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the command; yields the process and the first line that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-m", "vevents", "serve", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def post(url: str, **arguments: Any) -> httpx.Response:
    return httpx.post(f"{url}/v2/events", trust_env=False, json=BODY, **arguments)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serves_until_a_signal(number: signal.Signals, tmp_path: Path) -> None:
    with serve("--port", "0", "--json") as (process, line):
        shown = json.loads(line)
        assert shown["dir"] == str(tmp_path / "log")
        assert post(shown["url"]).status_code == 201

        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE_S)

    assert (process.returncode, out, err) == (ExitCode.OK, "", "")
    with EventLog(tmp_path / "log", read_only=True) as log:
        assert log.stats().appended == 1
        assert log.durable_seq == 1  # closing the log syncs it


def test_systemd_is_told_when_it_listens_and_when_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE_S)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with serve("--port", "0", "--json") as (process, line):
            url = json.loads(line)["url"]
            assert manager.recv(1_000).decode() == f"STATUS=listening on {url}"
            assert manager.recv(1_000) == b"READY=1"
            assert post(url).status_code == 201
            process.terminate()
            assert manager.recv(1_000) == b"STOPPING=1"
            assert process.wait(PATIENCE_S) == 0


def test_says_where_it_listens() -> None:
    with serve("--port", "0") as (process, line):
        url = line.split()[2].rstrip(",")
        assert line.startswith("listening on http://127.0.0.1:")
        assert httpx.get(f"{url}/health", trust_env=False).json()["status"] == "ok"
        process.terminate()
        assert process.wait(30) == 0


def test_options_reach_the_store(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text(KEY + "\n")
    key_file.chmod(0o600)
    options = ["--key-file", str(key_file), "--sync", "--keep-repeats", "--max-body", "200"]
    with serve("--port", "0", "--json", *options) as (process, line):
        url = json.loads(line)["url"]
        headers = {"X-API-Key": KEY}
        assert post(url).status_code == 401
        ids = {post(url, headers=headers).json()["id"] for _ in range(2)}
        health = httpx.get(f"{url}/health", headers=headers, trust_env=False).json()
        large = httpx.post(
            f"{url}/v2/events", json=BODY | {"x": "x" * 200}, headers=headers, trust_env=False
        )
        process.terminate()
        _, err = process.communicate(timeout=PATIENCE_S)

    assert len(ids) == 2
    assert health["durable_seq"] == 2
    assert large.status_code == 413
    assert "refused with 401" in err
    assert KEY not in err


@pytest.mark.parametrize("source", ["environment", "file"])
def test_the_key_comes_from_environment_or_file(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if source == "environment":
        monkeypatch.setenv("EVENT_INGESTION_API_KEY", KEY)
    else:
        with (tmp_path / "vevents.toml").open("a") as file:
            file.write(f'store_key = "{KEY}"\n')
        (tmp_path / "vevents.toml").chmod(0o600)
    with serve("--port", "0", "--host", "0.0.0.0", "--json") as (process, line):
        url = json.loads(line)["url"].replace("0.0.0.0", "127.0.0.1")
        assert post(url).status_code == 401
        assert post(url, headers={"X-API-Key": KEY}).status_code == 201
        process.terminate()
        _, err = process.communicate(timeout=PATIENCE_S)

    assert KEY not in line + err


def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "store.sock"
    with serve("--unix", str(path)) as (process, line):
        assert line.startswith(f"listening on unix:{path}")
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
            assert client.post("http://store/v2/events", json=BODY).status_code == 201
        process.terminate()
        assert process.wait(30) == 0

    assert not path.exists()


def test_away_from_loopback_without_a_key_it_does_not_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--host", "0.0.0.0", "--port", "0"]) == ExitCode.USAGE

    assert "there is no key" in capsys.readouterr().err
    assert not (tmp_path / "log").exists()


def test_a_taken_port_leaves_no_log_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve("--port", "0", "--json", "--dir", str(tmp_path / "other")) as (_, line):
        port = json.loads(line)["url"].rpartition(":")[2]

        assert main(["serve", "--port", port]) == ExitCode.ERROR

    assert f"127.0.0.1:{port}" in capsys.readouterr().err
    assert not (tmp_path / "log").exists()


def test_without_a_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "vevents.toml").unlink()

    assert main(["serve", "--port", "0"]) == ExitCode.USAGE
    assert "where is the log?" in capsys.readouterr().err


def test_without_its_packages(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)

    assert main(["serve", "--port", "0"]) == ExitCode.USAGE
    assert 'pip install "vevents[serve]"' in capsys.readouterr().err
