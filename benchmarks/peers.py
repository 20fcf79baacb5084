"""Other ways to keep an event, each at its best setting that survives SIGKILL of the process.

That it survives is tested (test_peers.py), with a real SIGKILL. Nothing here is synced for each
event, so a power cut takes the newest events of each of them. Peers whose package is not installed
are left out, and the report says so.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import msgpack

from vevents import EventLog


class Opened(NamedTuple):
    append: Callable[[Any], object]
    close: Callable[[], object]


@dataclass(frozen=True)
class Peer:
    """A way to keep events.

    Attributes:
        open: Make an empty store in a directory that is there.
        read: Return what a store holds whose process is dead, oldest first.
        encode: Make of an event, a dict, what `append` takes.
        prepare: The same of an event's msgpack.
        package: The distribution whose version the report names; None: nothing to install.
    """

    open: Callable[[Path], Opened]
    read: Callable[[Path], list[Any]]
    encode: Callable[[Any], Any] = msgpack.packb
    prepare: Callable[[bytes], Any] = bytes
    package: str | None = None

    @property
    def installed(self) -> bool:
        try:
            return self.package is None or bool(metadata.version(self.package))
        except metadata.PackageNotFoundError:
            return False


def _as_json(event: Any) -> str:
    return json.dumps(event)


def _json_of(payload: bytes) -> str:
    return json.dumps(msgpack.unpackb(payload))


def _as_it_is(event: Any) -> Any:
    return event


# ---- vevents ----


def _vevents_open(directory: Path) -> Opened:
    log = EventLog(directory / "log", events_size=256 << 20)
    return Opened(log.append_encoded, log.close)


def _vevents_read(directory: Path) -> list[bytes]:
    with EventLog(directory / "log") as log:
        assert log.stats().conserved
        return [record.payload for record in log.read()]


# ---- write(2) ----

_HEADER = struct.Struct("<II")


def _write_open(directory: Path) -> Opened:
    fd = os.open(directory / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def append(payload: bytes) -> None:
        os.write(fd, _HEADER.pack(len(payload), zlib.crc32(payload)) + payload)

    return Opened(append, lambda: os.close(fd))


def _write_read(directory: Path) -> list[bytes]:
    data = (directory / "log").read_bytes()
    found, at = [], 0
    while at + _HEADER.size <= len(data):
        size, crc = _HEADER.unpack_from(data, at)
        payload = data[at + _HEADER.size : at + _HEADER.size + size]
        if zlib.crc32(payload) != crc:
            break
        found.append(payload)
        at += _HEADER.size + size
    return found


# ---- SQLite ----


def _sqlite(synchronous: str) -> Callable[[Path], Opened]:
    def open_(directory: Path) -> Opened:
        db = sqlite3.connect(directory / "log.db", isolation_level=None)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute(f"PRAGMA synchronous={synchronous}")
        db.execute("CREATE TABLE events (id INTEGER PRIMARY KEY, payload BLOB)")

        def append(payload: bytes) -> None:
            db.execute("INSERT INTO events (payload) VALUES (?)", (payload,))

        return Opened(append, db.close)

    return open_


def _sqlite_read(directory: Path) -> list[bytes]:
    return _rows(directory / "log.db", "SELECT payload FROM events ORDER BY id")


def _rows(path: Path, query: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(path)) as db:
        return [row[0] for row in db.execute(query)]


# ---- key and value ----


def _numbered(put: Callable[[bytes, bytes], object]) -> Callable[[bytes], None]:
    """Put under the keys 1, 2, 3, ..."""
    count = 0

    def append(payload: bytes) -> None:
        nonlocal count
        count += 1
        put(struct.pack(">Q", count), payload)

    return append


def _lmdb_open(directory: Path) -> Opened:
    import lmdb

    env = lmdb.open(str(directory / "db"), map_size=4 << 30, writemap=True, sync=False)

    def put(key: bytes, payload: bytes) -> None:
        with env.begin(write=True) as transaction:
            transaction.put(key, payload, append=True)

    return Opened(_numbered(put), env.close)


def _lmdb_read(directory: Path) -> list[bytes]:
    import lmdb

    with lmdb.open(str(directory / "db"), map_size=4 << 30) as env, env.begin() as transaction:
        return [value for _, value in transaction.cursor()]


def _rocksdb_db(directory: Path) -> Any:
    import rocksdict

    return rocksdict.Rdict(str(directory / "db"), rocksdict.Options(raw_mode=True))


def _rocksdb_open(directory: Path) -> Opened:
    db = _rocksdb_db(directory)
    return Opened(_numbered(db.__setitem__), db.close)


def _rocksdb_read(directory: Path) -> list[bytes]:
    db = _rocksdb_db(directory)
    found = list(db.values())
    db.close()
    return found


# ---- queues ----


def _persist_queue_open(directory: Path) -> Opened:
    import persistqueue

    queue = persistqueue.SQLiteQueue(str(directory / "queue"), auto_commit=True)
    # It has no setting for this; as it comes, it syncs every event, which is 30 times as slow.
    queue._putter.execute("PRAGMA synchronous=NORMAL")
    return Opened(queue.put, queue.close)


def _persist_queue_read(directory: Path) -> list[bytes]:
    import persistqueue

    queue = persistqueue.SQLiteQueue(str(directory / "queue"), auto_commit=True)
    found = [queue.get(block=False) for _ in range(queue.size)]
    queue.close()
    return found


def _litequeue_open(directory: Path) -> Opened:
    from litequeue import LiteQueue

    queue = LiteQueue(str(directory / "queue.db"))
    return Opened(queue.put, queue.close)


def _litequeue_read(directory: Path) -> list[str]:
    return _rows(directory / "queue.db", "SELECT data FROM Queue ORDER BY rowid")


def _diskcache_deque(directory: Path) -> Any:
    import diskcache

    return diskcache.Deque(directory=str(directory / "deque"))


def _diskcache_open(directory: Path) -> Opened:
    deque = _diskcache_deque(directory)
    return Opened(deque.append, deque.cache.close)


# ---- MCAP ----


class _Unbuffered:
    """A file that has given the system all that was written to it."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        self._size = 0

    def write(self, data: bytes) -> int:
        written = os.write(self._fd, data)
        self._size += written
        return written

    def tell(self) -> int:
        return self._size

    def close(self) -> None:
        os.close(self._fd)


def mcap_writer(path: Path, **options: Any) -> Opened:
    """Write messages to an MCAP file with these options of its writer."""
    from mcap.writer import Writer

    file = _Unbuffered(path)
    writer = Writer(file, **options)
    writer.start("", "vevents-bench")
    schema = writer.register_schema("event", "", b"")
    channel = writer.register_channel("events", "msgpack", schema)
    time_ns = 0

    def append(payload: bytes) -> None:
        nonlocal time_ns
        time_ns += 1
        writer.add_message(channel, time_ns, payload, time_ns)

    def close() -> None:
        writer.finish()
        file.close()

    return Opened(append, close)


def _mcap_read(directory: Path) -> list[bytes]:
    from mcap.exceptions import McapError
    from mcap.records import Message
    from mcap.stream_reader import StreamReader

    found = []
    with (directory / "log.mcap").open("rb") as file, contextlib.suppress(McapError):
        for record in StreamReader(file).records:
            if isinstance(record, Message):
                found.append(record.data)
    return found


# ---- logging ----


def _logging_open(directory: Path) -> Opened:
    logger = logging.Logger("peer")
    handler = logging.FileHandler(directory / "log")
    logger.addHandler(handler)

    def append(event: Any) -> None:
        logger.info(json.dumps(event))

    return Opened(append, handler.close)


def _logging_read(directory: Path) -> list[Any]:
    lines = (directory / "log").read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]


PEERS: dict[str, Peer] = {
    "vevents": Peer(_vevents_open, _vevents_read),
    "write(2) append, length + CRC": Peer(_write_open, _write_read),
    "LMDB, writemap, nosync": Peer(_lmdb_open, _lmdb_read, package="lmdb"),
    "RocksDB, WAL": Peer(_rocksdb_open, _rocksdb_read, package="rocksdict"),
    "MCAP, no chunks": Peer(
        lambda directory: mcap_writer(directory / "log.mcap", use_chunking=False),
        _mcap_read,
        package="mcap",
    ),
    "SQLite WAL, OFF": Peer(_sqlite("OFF"), _sqlite_read),
    "SQLite WAL, NORMAL": Peer(_sqlite("NORMAL"), _sqlite_read),
    "logging to JSON lines": Peer(
        _logging_open, _logging_read, encode=_as_it_is, prepare=msgpack.unpackb
    ),
    "litequeue": Peer(
        _litequeue_open, _litequeue_read, encode=_as_json, prepare=_json_of, package="litequeue"
    ),
    "persist-queue, NORMAL": Peer(
        _persist_queue_open, _persist_queue_read, package="persist-queue"
    ),
    "diskcache.Deque": Peer(
        _diskcache_open, lambda d: list(_diskcache_deque(d)), package="diskcache"
    ),
}

# Not a peer, because it does not survive: what shows that test_peers.py would notice.
MCAP_IN_CHUNKS = Peer(lambda directory: mcap_writer(directory / "log.mcap"), _mcap_read)
