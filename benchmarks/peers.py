"""Other ways to keep an event, each at its best setting that survives SIGKILL of the process.

A peer is opened in an empty directory, appends bytes, and says how many bytes an event takes on
disk. Peers whose package is not installed are left out, and the report says so.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgpack

from vevents import EventLog


class Peer(NamedTuple):
    append: Callable[[bytes], object]
    close: Callable[[], object]


def disk_bytes(directory: Path) -> int:
    return sum(p.stat().st_blocks * 512 for p in directory.rglob("*") if p.is_file())


def vevents(directory: Path) -> Peer:
    log = EventLog(directory / "log", events_size=256 << 20)
    return Peer(log.append_encoded, log.close)


def write_append(directory: Path) -> Peer:
    fd = os.open(directory / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    header = struct.Struct("<II")

    def append(payload: bytes) -> None:
        os.write(fd, header.pack(len(payload), zlib.crc32(payload)) + payload)

    return Peer(append, lambda: os.close(fd))


def sqlite_wal(directory: Path) -> Peer:
    db = sqlite3.connect(directory / "log.db", isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=NORMAL")
    db.execute("CREATE TABLE events (id INTEGER PRIMARY KEY, payload BLOB)")

    def append(payload: bytes) -> None:
        db.execute("INSERT INTO events (payload) VALUES (?)", (payload,))

    return Peer(append, db.close)


def lmdb_writemap(directory: Path) -> Peer:
    import lmdb

    env = lmdb.open(str(directory / "db"), map_size=1 << 30, writemap=True, sync=False)
    count = 0

    def append(payload: bytes) -> None:
        nonlocal count
        count += 1
        with env.begin(write=True) as transaction:
            transaction.put(struct.pack(">Q", count), payload, append=True)

    return Peer(append, env.close)


def rocksdb(directory: Path) -> Peer:
    import rocksdict

    db = rocksdict.Rdict(str(directory / "db"), rocksdict.Options(raw_mode=True))
    count = 0

    def append(payload: bytes) -> None:
        nonlocal count
        count += 1
        db[struct.pack(">Q", count)] = payload

    return Peer(append, db.close)


def logging_json(directory: Path) -> Peer:
    logger = logging.Logger("peer")
    handler = logging.FileHandler(directory / "log")
    logger.addHandler(handler)

    def append(payload: bytes) -> None:
        logger.info(json.dumps(msgpack.unpackb(payload)))

    return Peer(append, handler.close)


def litequeue(directory: Path) -> Peer:
    from litequeue import LiteQueue

    queue = LiteQueue(str(directory / "queue.db"))
    return Peer(lambda payload: queue.put(payload.hex()), queue.close)


def diskcache_deque(directory: Path) -> Peer:
    import diskcache

    deque = diskcache.Deque(directory=str(directory / "deque"))
    return Peer(deque.append, deque.cache.close)


PEERS: dict[str, Callable[[Path], Peer]] = {
    "vevents": vevents,
    "write(2) append, length + CRC": write_append,
    "SQLite WAL, NORMAL": sqlite_wal,
    "LMDB writemap, nosync": lmdb_writemap,
    "RocksDB (WAL)": rocksdb,
    "logging to JSON lines": logging_json,
    "litequeue": litequeue,
    "diskcache.Deque": diskcache_deque,
}
