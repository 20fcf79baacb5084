"""Where the event store listens, and what it needs for that."""

from __future__ import annotations

import errno
import logging
import socket
import stat
import sys
from pathlib import Path

import pytest

from vevents import store
from vevents.errors import ConfigurationError
from vevents.settings import Secret
from vevents.store.config import StoreConfig, bind, describe, is_open, read_key

KEY = Secret("store_secret_0123")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost"])
def test_loopback_needs_no_key(host: str) -> None:
    with bind(StoreConfig(host=host, port=0)) as bound:
        assert describe(bound).startswith("http://127.0.0.")
        assert is_open(bound)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_other_addresses_need_a_key(host: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        bind(StoreConfig(host=host, port=0))

    assert "there is no key" in str(refused.value)
    assert "EVENT_INGESTION_API_KEY" in str(refused.value)
    with bind(StoreConfig(host="0.0.0.0", port=0, key=KEY)) as bound:
        assert not is_open(bound)


def test_ipv6_is_written_as_a_client_writes_it() -> None:
    with bind(StoreConfig(host="::1", port=0)) as bound:
        assert describe(bound) == f"http://[::1]:{bound.getsockname()[1]}"
        assert is_open(bound)


def test_an_unknown_host() -> None:
    with pytest.raises(ConfigurationError, match=r"--host no\.such\.host\.invalid"):
        bind(StoreConfig(host="no.such.host.invalid", port=0))


def test_a_port_that_is_taken() -> None:
    with (
        bind(StoreConfig(port=0)) as bound,
        pytest.raises(OSError, match=r"127\.0\.0\.1:\d+") as failed,
    ):
        bind(StoreConfig(port=bound.getsockname()[1]))

    assert failed.value.errno == errno.EADDRINUSE


def test_the_socket_is_known_to_be_tcp() -> None:
    # asyncio asks for that before it sets TCP_NODELAY; without, an answer takes 40 ms.
    with bind(StoreConfig(port=0)) as bound:
        assert bound.proto == socket.IPPROTO_TCP


def test_a_unix_socket_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "store.sock"
    with bind(StoreConfig(unix=path)) as bound:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert describe(bound) == f"unix:{path}"
        assert not is_open(bound)
        with pytest.raises(OSError, match="in use"):
            bind(StoreConfig(unix=path))

    with bind(StoreConfig(unix=path)) as bound:  # left behind by one that was killed
        assert path.is_socket()


def test_a_file_in_the_place_of_the_unix_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")

    with pytest.raises(ConfigurationError, match="no socket"):
        bind(StoreConfig(unix=path))

    assert path.read_text() == "data"


def test_a_path_too_long_for_a_socket(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="too long"):
        bind(StoreConfig(unix=tmp_path / ("x" * 120)))


def test_the_key_comes_from_the_first_line_of_a_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "key"
    path.write_text("  store_secret_0123 \nmore\n")
    path.chmod(0o600)

    with caplog.at_level(logging.WARNING):
        assert read_key(path).reveal() == "store_secret_0123"
        assert not caplog.text
        path.chmod(0o644)
        read_key(path)

    assert f"chmod 600 {path}" in caplog.text
    assert "store_secret" not in caplog.text


@pytest.mark.parametrize("content", [b"", b"\n", b"two words\n", b"\xff\xfe\n", b"k" * 600])
def test_a_file_without_a_key(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)

    with pytest.raises(ConfigurationError, match="--key-file") as refused:
        read_key(path)

    assert "words" not in str(refused.value)
    assert "kkk" not in str(refused.value)


def test_no_file_for_the_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        read_key(tmp_path / "key")


def test_the_key_shows_in_no_repr() -> None:
    assert "store_secret" not in repr(StoreConfig(key=KEY))


@pytest.mark.parametrize("package", ["starlette", "uvicorn"])
def test_a_missing_package_is_named_with_its_cure(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(ConfigurationError, match=package) as missing:
        store.require_packages()

    assert 'pip install "vevents[serve]"' in str(missing.value)
