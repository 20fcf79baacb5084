"""What can be set at the event store, and the socket that it listens on."""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import re
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

from vevents.errors import ConfigurationError
from vevents.settings import Secret

# Connections that may wait to be accepted; so many are accepted at a time.
BACKLOG = 128
_KEY_LENGTH_MAX = 512
_KEY = re.compile(rf"[!-~]{{1,{_KEY_LENGTH_MAX}}}")

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreConfig:
    """Settings of the event store.

    Attributes:
        host: Address to bind; anything but loopback needs `key`.
        port: Port to bind, 0 for any free one.
        unix: Path of a Unix socket to listen on instead of `host` and `port`.
        key: What `X-API-Key` has to hold, or None for nothing.
        sync: Answer 201 only when the event would survive a power cut.
        merge_repeats: Take a body that comes again as the same event.
        body_size_max: Bytes of a request's body; 413 beyond.
        held_size_max: Bytes of bodies held at one time. Beyond, one body grows at a time.
        patience_s: How long a body waits for that; then 529.
        connection_count_max: Connections served at one time; 529 beyond.
        thread_count: Appends at one time.
        header_timeout_s: Until a request's headers have arrived.
        body_timeout_s: Until a request's body has arrived.
        write_timeout_s: Until a client takes the next piece of an answer.
        grace_s: For requests under way when the server is told to stop.
    """

    host: str = "127.0.0.1"
    port: int = 8001
    unix: Path | None = None
    key: Secret | None = None
    sync: bool = False
    merge_repeats: bool = True
    body_size_max: int = 32 << 20
    held_size_max: int = 64 << 20
    patience_s: float = 10.0
    connection_count_max: int = 256
    thread_count: int = 8
    header_timeout_s: float = 10.0
    body_timeout_s: float = 60.0
    write_timeout_s: float = 30.0
    grace_s: float = 10.0


def bind(config: StoreConfig) -> socket.socket:
    """Make the socket to listen on.

    Before anything else is made, so that a taken port leaves no trace.

    Returns:
        A listening socket.

    Raises:
        ConfigurationError: The address is not loopback, and there is no key; or the host is
            unknown; or the path of the Unix socket is taken by something else.
        OSError: It cannot be bound.
    """
    if config.unix is not None:
        return _bind_unix(config.unix)
    try:
        # With the protocol named, asyncio switches Nagle's delay off; without, every answer on a
        # kept connection waits 40 ms for an acknowledgement.
        [(family, kind, protocol, _, address), *_] = socket.getaddrinfo(
            config.host,
            config.port,
            type=socket.SOCK_STREAM,
            proto=socket.IPPROTO_TCP,
            flags=socket.AI_PASSIVE,
        )
    except socket.gaierror as error:
        raise ConfigurationError(f"--host {config.host}: {error.strerror}") from error
    if config.key is None and not is_loopback(str(address[0])):
        raise ConfigurationError(
            f"--host {config.host} is reachable from other machines, and there is no key: anybody "
            "could write events. Set EVENT_INGESTION_API_KEY, or store_key in vevents.toml (mode "
            "0600), or give --key-file; or listen on 127.0.0.1"
        )
    bound = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(BACKLOG)
    except OSError as failed:
        bound.close()
        where = f"{config.host}:{config.port}"
        raise OSError(failed.errno, os.strerror(failed.errno or 0), where) from failed
    return bound


def read_key(path: Path) -> Secret:
    """Read the key from a file: the first line, without blanks around it.

    Raises:
        ConfigurationError: The file cannot be read, or holds no key.
    """
    try:
        with path.open(encoding="ascii") as file:
            text = file.readline(_KEY_LENGTH_MAX + 2).strip()
        exposed = path.stat().st_mode & stat.S_IROTH
    except OSError as error:
        raise ConfigurationError(f"--key-file {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ConfigurationError(f"--key-file {path}: holds no key in ASCII") from None
    if not _KEY.fullmatch(text):
        raise ConfigurationError(
            f"--key-file {path}: a key has 1 to {_KEY_LENGTH_MAX} ASCII characters and no spaces"
        )
    if exposed:
        _LOGGER.warning("%s holds the key and every user can read it: chmod 600 %s", path, path)
    return Secret(text)


def is_open(bound: socket.socket) -> bool:
    """Whether a socket is TCP on this machine alone: there browsers are the only strangers."""
    return bound.family != socket.AF_UNIX and is_loopback(bound.getsockname()[0])


def describe(bound: socket.socket) -> str:
    """Return the address of a bound socket as a client names it."""
    if bound.family == socket.AF_UNIX:
        return f"unix:{bound.getsockname()}"
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if bound.family == socket.AF_INET6 else f"http://{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether a text is an address of this machine alone; a name is none."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _bind_unix(path: Path) -> socket.socket:
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        # Nobody else may connect, at no moment; who should is let in with chmod and chgrp.
        mask = os.umask(0o177)
        try:
            bound.bind(os.fspath(path))
        finally:
            os.umask(mask)
        bound.listen(BACKLOG)
    except OSError as failed:
        bound.close()
        text = os.strerror(failed.errno) if failed.errno else str(failed)
        raise OSError(failed.errno or errno.EINVAL, text, os.fspath(path)) from failed
    except BaseException:
        bound.close()
        raise
    return bound


def _remove_stale(path: Path) -> None:
    """Remove the socket of a server that was killed; leave everything else alone."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ConfigurationError(f"--unix {path}: there is something else, and no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as knock:
        try:
            knock.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
