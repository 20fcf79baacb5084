"""Everything the emulator keeps: one SQLite database, one connection, one lock.

    use_cases ──< events ──< event_images >── images >── contents
                    │                           (by source id)   (by digest)
              metadata_fields
              counters

1. An answer of 201 leaves only after the commit: what was promised survives the death of the
   process.
2. An event is stored as the JSON text that a query gives back; the columns beside it exist to be
   searched. A repeated `event_id` replaces all of it and keeps its `seq`.
3. `event_images` holds the source ids that the current version of an event names, whether such an
   image exists or not: images that no row names are orphans, rows that name no image are missing.
4. Bytes of images are kept once per digest and may be dropped; size and digest never are.

Every public method may be called from any thread.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vevents.errors import ConfigurationError

UseCaseStatus = Literal["active", "inactive"]

_APPLICATION_ID = 0x56454D55
_SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE use_cases (
    use_case_id TEXT PRIMARY KEY,
    name        TEXT NOT NULL UNIQUE,
    status      TEXT NOT NULL CHECK (status IN ('active', 'inactive'))
) WITHOUT ROWID;

CREATE TABLE events (
    seq          INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id     TEXT NOT NULL UNIQUE,
    use_case_id  TEXT NOT NULL,
    event_type   TEXT NOT NULL,
    timestamp_us INTEGER NOT NULL,
    device_id    TEXT,
    stream_id    TEXT,
    workflow_id  TEXT,
    body         TEXT NOT NULL,
    warnings     TEXT NOT NULL,
    post_count   INTEGER NOT NULL,
    received_us  INTEGER NOT NULL
);
CREATE INDEX events_by_time ON events (use_case_id, timestamp_us, seq);

CREATE TABLE images (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    source_id   TEXT NOT NULL UNIQUE,
    digest      TEXT NOT NULL,
    size        INTEGER NOT NULL,
    mime        TEXT NOT NULL,
    name        TEXT,
    metadata    TEXT NOT NULL,
    origin      TEXT NOT NULL CHECK (origin IN ('upload', 'bundle')),
    received_us INTEGER NOT NULL
);
CREATE INDEX images_by_digest ON images (digest);

CREATE TABLE contents (
    seq     INTEGER PRIMARY KEY AUTOINCREMENT,
    digest  TEXT NOT NULL UNIQUE,
    content BLOB NOT NULL
);

CREATE TABLE event_images (
    event_id  TEXT NOT NULL,
    source_id TEXT NOT NULL,
    PRIMARY KEY (event_id, source_id)
) WITHOUT ROWID;
CREATE INDEX event_images_by_source ON event_images (source_id);

CREATE TABLE metadata_fields (
    use_case_id TEXT NOT NULL,
    field       TEXT NOT NULL,
    type        TEXT NOT NULL,
    PRIMARY KEY (use_case_id, field, type)
) WITHOUT ROWID;

CREATE TABLE counters (
    name  TEXT PRIMARY KEY,
    count INTEGER NOT NULL
) WITHOUT ROWID;
"""

_PUT_EVENT = """
INSERT INTO events (event_id, use_case_id, event_type, timestamp_us, device_id, stream_id,
                    workflow_id, body, warnings, post_count, received_us)
VALUES (:event_id, :use_case_id, :event_type, :timestamp_us, :device_id, :stream_id,
        :workflow_id, :body, :warnings, 1, :received_us)
ON CONFLICT (event_id) DO UPDATE SET
    use_case_id = excluded.use_case_id, event_type = excluded.event_type,
    timestamp_us = excluded.timestamp_us, device_id = excluded.device_id,
    stream_id = excluded.stream_id, workflow_id = excluded.workflow_id, body = excluded.body,
    warnings = excluded.warnings, post_count = post_count + 1, received_us = excluded.received_us
"""

_COUNTS = {
    "events": "SELECT count(*) FROM events",
    "events_with_warnings": "SELECT count(*) FROM events WHERE warnings <> '[]'",
    "use_cases": "SELECT count(*) FROM use_cases",
    "images": "SELECT count(*) FROM images",
    "image_bytes": "SELECT coalesce(sum(size), 0) FROM images",
    "images_duplicate": "SELECT count(*) - count(DISTINCT digest) FROM images",
    "images_orphaned": """
        SELECT count(*) FROM images
        WHERE NOT EXISTS (SELECT 1 FROM event_images r WHERE r.source_id = images.source_id)""",
    "images_missing": """
        SELECT count(DISTINCT source_id) FROM event_images r
        WHERE NOT EXISTS (SELECT 1 FROM images i WHERE i.source_id = r.source_id)""",
}
_KEPT_SIZE = "SELECT coalesce(sum(length(content)), 0) FROM contents"
_COUNTERS = ("posts", "events_accepted", "overwrites", "overwrites_changed")


class NameTakenError(Exception):
    """Another use case has this name."""


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event that was judged and is to be stored.

    Attributes:
        body: The event as a query shall return it.
        timestamp_us: Its time, in microseconds since 1970.
        warnings: What was dropped from it.
    """

    body: dict[str, Any]
    timestamp_us: int
    warnings: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class NewImage:
    """An image that was judged and is to be stored.

    Attributes:
        data: The whole file.
        mime: Its format.
        name: What the uploader calls it.
        metadata: Flat, as for events.
        source_id: Made when the image came in.
    """

    data: bytes = field(repr=False)
    mime: str
    name: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    source_id: str = field(default_factory=lambda: f"ve-img-{secrets.token_hex(8)}")


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the order of a query: newest first, then the latest stored first."""

    timestamp_us: int
    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What a query asks for.

    Attributes:
        use_case_id: The use case.
        since_us: Earliest time, included.
        until_us: Latest time, included.
        event_types: Any of these; empty for all.
        columns: `(column, wanted, value)` over device_id, stream_id and workflow_id; `wanted` is
            False for "not equal", which only matches events that have the field.
        matches: Further condition on the stored event.
        after: Where the previous page ended.
        limit: Events per page.
    """

    use_case_id: str
    since_us: int
    until_us: int
    event_types: Sequence[str] = ()
    columns: Sequence[tuple[Literal["device_id", "stream_id", "workflow_id"], bool, str]] = ()
    matches: Callable[[dict[str, Any]], bool] = lambda _event: True
    after: Position | None = None
    limit: int = 50


class Storage:
    """The emulator's database.

    Args:
        database: Path, `":memory:"`, or None for a temporary file that `close()` deletes.
        use_cases: `(id, name)` to create unless the id exists.
        image_directory: Where bytes of images go; None for the database.
        image_kept_size_max: Bytes of images in the database.
        clock: Seconds since 1970.

    Raises:
        ConfigurationError: The file is something else, or a use case's name is taken.
    """

    def __init__(
        self,
        database: str | os.PathLike[str] | None,
        *,
        use_cases: Sequence[tuple[str, str]],
        image_directory: str | os.PathLike[str] | None,
        image_kept_size_max: int,
        clock: Callable[[], float],
    ) -> None:
        self._lock = threading.Lock()
        self._clock = clock
        self._image_kept_size_max = image_kept_size_max
        self._image_directory = None if image_directory is None else Path(image_directory)
        if self._image_directory is not None:
            self._image_directory.mkdir(parents=True, exist_ok=True)
        self._temporary: Path | None = None
        if database is None:
            self._temporary = Path(tempfile.mkdtemp(prefix="vevents-emulator-"))
            database = self._temporary / "emulator.db"
        self._db = _open(database)
        self._final_counts: dict[str, Any] | None = None
        # Nearly every event repeats fields that are known: spare SQLite the question.
        self._seen_fields: set[tuple[str, str, str]] = set()
        try:
            for use_case_id, name in use_cases:
                self._ensure_use_case(use_case_id, name)
            self._kept_size = self._scalar(_KEPT_SIZE)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the database; `counts()` goes on answering. Closing twice is fine."""
        with self._lock:
            if self._final_counts is None:
                self._final_counts = self._count_all()
                self._db.close()
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)

    # --- use cases -----------------------------------------------------------------------------

    def use_case_ids(self) -> frozenset[str]:
        """Return the ids of all use cases, archived ones included."""
        with self._lock:
            return frozenset(
                row[0] for row in self._db.execute("SELECT use_case_id FROM use_cases")
            )

    def list_use_cases(self, status: UseCaseStatus) -> list[dict[str, Any]]:
        """List the use cases with this status, in the order of their names."""
        with self._lock:
            rows = self._db.execute(
                "SELECT use_case_id, name, status,"
                " (SELECT count(*) FROM events e WHERE e.use_case_id = u.use_case_id)"
                " FROM use_cases u WHERE status = ? ORDER BY name",
                (status,),
            ).fetchall()
        keys = ("id", "name", "status", "eventCount")
        return [dict(zip(keys, row, strict=True)) for row in rows]

    def create_use_case(self, name: str) -> str:
        """Create an active use case and return its id.

        Raises:
            NameTakenError: The workspace has that name already.
        """
        use_case_id = secrets.token_hex(4)
        with self._transaction() as db:
            _insert_use_case(db, use_case_id, name)
        return use_case_id

    def rename_use_case(self, use_case_id: str, name: str) -> bool:
        """Rename a use case; False when there is none.

        Raises:
            NameTakenError: Another one has that name.
        """
        with self._transaction() as db:
            try:
                done = db.execute(
                    "UPDATE use_cases SET name = ? WHERE use_case_id = ?", (name, use_case_id)
                )
            except sqlite3.IntegrityError as taken:
                raise NameTakenError(name) from taken
            return done.rowcount == 1

    def use_case_status(self, use_case_id: str) -> UseCaseStatus | None:
        """Return the status of a use case, or None when there is none."""
        with self._lock:
            row = self._db.execute(
                "SELECT status FROM use_cases WHERE use_case_id = ?", (use_case_id,)
            ).fetchone()
        status: UseCaseStatus | None = None if row is None else row[0]
        return status

    def set_use_case_status(self, use_case_id: str, status: UseCaseStatus) -> None:
        """Archive (`inactive`) or unarchive (`active`) a use case."""
        with self._transaction() as db:
            db.execute(
                "UPDATE use_cases SET status = ? WHERE use_case_id = ?", (status, use_case_id)
            )

    def metadata_fields(self, use_case_id: str) -> dict[str, list[str]]:
        """Return the metadata keys that events of a use case had, with the types seen."""
        with self._lock:
            rows = self._db.execute(
                "SELECT field, type FROM metadata_fields WHERE use_case_id = ?"
                " ORDER BY field, type",
                (use_case_id,),
            ).fetchall()
        fields: dict[str, list[str]] = {}
        for name, kind in rows:
            fields.setdefault(name, []).append(kind)
        return fields

    # --- images --------------------------------------------------------------------------------

    def put_image(self, image: NewImage) -> None:
        """Store an uploaded image."""
        digest = self._keep_in_directory(image.data)
        with self._transaction() as db:
            self._put_image(db, image, digest, "upload")

    def missing_images(self, source_ids: Sequence[str]) -> list[str]:
        """Return those of the ids that no image has."""
        with self._lock:
            return [
                source_id
                for source_id in source_ids
                if self._db.execute(
                    "SELECT 1 FROM images WHERE source_id = ?", (source_id,)
                ).fetchone()
                is None
            ]

    def image_content(self, source_id: str) -> tuple[str, bytes] | None:
        """Return MIME type and bytes of an image; None if unknown or no longer kept."""
        with self._lock:
            row = self._db.execute(
                "SELECT mime, i.digest, content FROM images i"
                " LEFT JOIN contents c ON c.digest = i.digest WHERE source_id = ?",
                (source_id,),
            ).fetchone()
        if row is None:
            return None
        mime, digest, content = row
        if content is None and self._image_directory is not None:
            with contextlib.suppress(FileNotFoundError):
                content = (self._image_directory / digest).read_bytes()
        return None if content is None else (mime, content)

    def list_images(self, *, orphaned: bool | None, after: int, limit: int) -> list[dict[str, Any]]:
        """List images in the order they came.

        Args:
            orphaned: True for images that no event names, False for the others, None for both.
            after: `seq` of the last one seen, 0 to begin.
            limit: At most so many.
        """
        with self._lock:
            rows = self._db.execute(
                "SELECT seq, source_id, digest, size, mime, name, metadata, origin,"
                " NOT EXISTS (SELECT 1 FROM event_images r WHERE r.source_id = i.source_id)"
                " AS orphaned FROM images i"
                " WHERE seq > :after AND (:orphaned IS NULL OR orphaned = :orphaned)"
                " ORDER BY seq LIMIT :limit",
                {"after": after, "orphaned": orphaned, "limit": limit},
            ).fetchall()
        keys = ("seq", "source_id", "sha256", "size", "mime", "name", "metadata", "origin")
        return [
            dict(zip(keys, row[:-1], strict=True))
            | {"metadata": json.loads(row[6]), "orphaned": bool(row[-1])}
            for row in rows
        ]

    # --- events --------------------------------------------------------------------------------

    def put_events(self, events: Sequence[NewEvent], images: Sequence[NewImage] = ()) -> None:
        """Store the events of one accepted POST, all or none.

        Args:
            events: With different ids; one that is stored already is replaced.
            images: Images that came with them in a bundle.
        """
        digests = [self._keep_in_directory(image.data) for image in images]
        with self._transaction() as db:
            for image, digest in zip(images, digests, strict=True):
                self._put_image(db, image, digest, "bundle")
            for event in events:
                self._put_event(db, event)
            _count(db, "posts", 1)
            _count(db, "events_accepted", len(events))

    def select(self, selection: Selection) -> tuple[list[dict[str, Any]], Position | None]:
        """Answer a query.

        Returns:
            The events, newest first, and where to go on; None when there are no more.
        """
        sql, values = _selection_sql(selection)
        found: list[dict[str, Any]] = []
        position = None
        with self._lock, contextlib.closing(self._db.execute(sql, values)) as rows:
            for timestamp_us, seq, body, warnings in rows:
                event = _as_stored(body, warnings)
                if not selection.matches(event):
                    continue
                if len(found) == selection.limit:
                    return found, position
                found.append(event)
                position = Position(timestamp_us, seq)
        return found, None

    def list_events(
        self, *, use_case_id: str | None, event_id: str | None, after: int, limit: int
    ) -> list[dict[str, Any]]:
        """List stored events in the order they came, whatever their time.

        Args:
            use_case_id: Only of this use case.
            event_id: Only this one.
            after: `seq` of the last one seen, 0 to begin.
            limit: At most so many.
        """
        with self._lock:
            rows = self._db.execute(
                "SELECT seq, body, warnings, post_count, received_us FROM events"
                " WHERE seq > :after AND (:use_case_id IS NULL OR use_case_id = :use_case_id)"
                " AND (:event_id IS NULL OR event_id = :event_id) ORDER BY seq LIMIT :limit",
                {
                    "after": after,
                    "use_case_id": use_case_id,
                    "event_id": event_id,
                    "limit": limit,
                },
            ).fetchall()
        return [
            {
                "seq": seq,
                "event": json.loads(body),
                "warnings": json.loads(warnings),
                "posts": post_count,
                "received_at_s": received_us / 1e6,
            }
            for seq, body, warnings, post_count, received_us in rows
        ]

    # --- counting ------------------------------------------------------------------------------

    def count_refusal(self, status_code: int) -> None:
        """Count one answer of 400 or above."""
        with self._transaction() as db:
            _count(db, f"refused.{status_code}", 1)

    def counts(self) -> dict[str, Any]:
        """Return all counts, see docs/emulator.md; after `close()`, the last ones."""
        with self._lock:
            return dict(self._final_counts or self._count_all())

    def clear(self) -> None:
        """Forget events, images, metadata fields and counters; use cases stay."""
        with self._transaction() as db:
            for table in (
                "events",
                "images",
                "contents",
                "event_images",
                "metadata_fields",
                "counters",
            ):
                db.execute(f"DELETE FROM {table}")
            self._kept_size = 0
            self._seen_fields.clear()

    # --- inside, all with the lock held ----------------------------------------------------------

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                self._kept_size = self._scalar(_KEPT_SIZE)
                # What was learned of the database in this transaction no longer holds.
                self._seen_fields.clear()
                raise
            self._db.execute("COMMIT")

    def _scalar(self, sql: str) -> int:
        value: int = self._db.execute(sql).fetchone()[0]
        return value

    def _count_all(self) -> dict[str, Any]:
        counts: dict[str, Any] = {name: self._scalar(sql) for name, sql in _COUNTS.items()}
        counters = dict(self._db.execute("SELECT name, count FROM counters ORDER BY name"))
        counts |= {name: counters.get(name, 0) for name in _COUNTERS}
        counts["refused"] = {
            name.removeprefix("refused."): count
            for name, count in counters.items()
            if name.startswith("refused.")
        }
        return counts

    def _ensure_use_case(self, use_case_id: str, name: str) -> None:
        if use_case_id in self.use_case_ids():
            return
        try:
            with self._transaction() as db:
                _insert_use_case(db, use_case_id, name)
        except NameTakenError as taken:
            raise ConfigurationError(
                f"use case {use_case_id!r}: another one has the name {name!r}"
            ) from taken

    def _put_event(self, db: sqlite3.Connection, event: NewEvent) -> None:
        body = event.body
        event_id, use_case_id = body["eventId"], body["useCaseId"]
        text = _as_text(body)
        earlier = db.execute("SELECT body FROM events WHERE event_id = ?", (event_id,)).fetchone()
        if earlier is not None:
            _count(db, "overwrites", 1)
            if earlier[0] != text:
                _count(db, "overwrites_changed", 1)
        db.execute(
            _PUT_EVENT,
            {
                "event_id": event_id,
                "use_case_id": use_case_id,
                "event_type": body["eventType"],
                "timestamp_us": event.timestamp_us,
                "device_id": body.get("deviceId"),
                "stream_id": body.get("streamId"),
                "workflow_id": body.get("workflowId"),
                "body": text,
                "warnings": _as_text(list(event.warnings)),
                "received_us": int(self._clock() * 1e6),
            },
        )
        self._refer(db, event_id, source_ids_of(body), replaced=earlier is not None)
        for name, value in body.get("customMetadata", {}).items():
            seen = (use_case_id, name, _metadata_type(value))
            if seen not in self._seen_fields:
                db.execute("INSERT OR IGNORE INTO metadata_fields VALUES (?, ?, ?)", seen)
                self._seen_fields.add(seen)

    def _refer(
        self, db: sqlite3.Connection, event_id: str, source_ids: Sequence[str], *, replaced: bool
    ) -> None:
        earlier: list[tuple[str]] = []
        if replaced:
            earlier = db.execute(
                "SELECT source_id FROM event_images WHERE event_id = ?", (event_id,)
            ).fetchall()
            db.execute("DELETE FROM event_images WHERE event_id = ?", (event_id,))
        db.executemany(
            "INSERT OR IGNORE INTO event_images VALUES (?, ?)",
            [(event_id, source_id) for source_id in source_ids],
        )
        # A bundle sent again brings its images again; those of the first time go with the event
        # that brought them. Uploads stay for ever: nobody said that they may be forgotten.
        db.executemany(
            "DELETE FROM images WHERE source_id = ? AND origin = 'bundle' AND NOT EXISTS"
            " (SELECT 1 FROM event_images r WHERE r.source_id = images.source_id)",
            earlier,
        )

    def _put_image(self, db: sqlite3.Connection, image: NewImage, digest: str, origin: str) -> None:
        db.execute(
            "INSERT INTO images (source_id, digest, size, mime, name, metadata, origin,"
            " received_us) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                image.source_id,
                digest,
                len(image.data),
                image.mime,
                image.name,
                _as_text(image.metadata),
                origin,
                int(self._clock() * 1e6),
            ),
        )
        if self._image_directory is None and len(image.data) <= self._image_kept_size_max:
            added = db.execute(
                "INSERT OR IGNORE INTO contents (digest, content) VALUES (?, ?)",
                (digest, image.data),
            )
            self._kept_size += len(image.data) * added.rowcount
            self._drop_oldest_contents(db)

    def _drop_oldest_contents(self, db: sqlite3.Connection) -> None:
        while self._kept_size > self._image_kept_size_max:
            seq, size = db.execute(
                "SELECT seq, length(content) FROM contents ORDER BY seq LIMIT 1"
            ).fetchone()
            db.execute("DELETE FROM contents WHERE seq = ?", (seq,))
            self._kept_size -= size

    def _keep_in_directory(self, data: bytes) -> str:
        """Return the digest; write the bytes first, if a directory keeps them."""
        digest = hashlib.sha256(data).hexdigest()
        if self._image_directory is not None:
            path = self._image_directory / digest
            if not path.exists():
                unfinished = path.with_name(f".{digest}.{secrets.token_hex(4)}")
                unfinished.write_bytes(data)
                unfinished.replace(path)
        return digest


def source_ids_of(event: dict[str, Any]) -> list[str]:
    """Return the ids of all images that a valid event names."""
    return [
        image[name]
        for image in event.get("images", ())
        for name in ("sourceId", "inputSourceId")
        if name in image
    ]


def _open(database: str | os.PathLike[str]) -> sqlite3.Connection:
    path = os.fspath(database)
    try:
        # One connection, shared under the lock of Storage.
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    except sqlite3.OperationalError as broken:
        raise ConfigurationError(f"{path}: {broken}") from broken
    try:
        application_id = db.execute("PRAGMA application_id").fetchone()[0]
        version = db.execute("PRAGMA user_version").fetchone()[0]
        empty = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
        if not empty and (application_id, version) != (_APPLICATION_ID, _SCHEMA_VERSION):
            raise ConfigurationError(f"{path} is not a database of this version of the emulator")
        db.execute("PRAGMA journal_mode = WAL")
        # A killed process loses nothing; a power cut may cost the last answers, which is no
        # matter for a stand-in.
        db.execute("PRAGMA synchronous = NORMAL")
        if empty:
            db.executescript(
                f"BEGIN; PRAGMA application_id = {_APPLICATION_ID};"
                f" PRAGMA user_version = {_SCHEMA_VERSION}; {_SCHEMA} COMMIT;"
            )
    except sqlite3.DatabaseError as broken:
        db.close()
        raise ConfigurationError(f"{path}: {broken}") from broken
    except BaseException:
        db.close()
        raise
    return db


def _insert_use_case(db: sqlite3.Connection, use_case_id: str, name: str) -> None:
    try:
        db.execute("INSERT INTO use_cases VALUES (?, ?, 'active')", (use_case_id, name))
    except sqlite3.IntegrityError as taken:
        raise NameTakenError(name) from taken


def _count(db: sqlite3.Connection, name: str, added: int) -> None:
    db.execute(
        "INSERT INTO counters VALUES (?, ?)"
        " ON CONFLICT (name) DO UPDATE SET count = count + excluded.count",
        (name, added),
    )


def _selection_sql(selection: Selection) -> tuple[str, list[Any]]:
    conditions = ["use_case_id = ?", "timestamp_us >= ?", "timestamp_us <= ?"]
    values: list[Any] = [selection.use_case_id, selection.since_us, selection.until_us]
    if selection.event_types:
        marks = ", ".join("?" * len(selection.event_types))
        conditions.append(f"event_type IN ({marks})")
        values += selection.event_types
    for column, wanted, value in selection.columns:
        conditions.append(f"{column} {'=' if wanted else '<>'} ?")
        values.append(value)
    if selection.after is not None:
        conditions.append("(timestamp_us, seq) < (?, ?)")
        values += [selection.after.timestamp_us, selection.after.seq]
    return (
        "SELECT timestamp_us, seq, body, warnings FROM events"
        f" WHERE {' AND '.join(conditions)} ORDER BY timestamp_us DESC, seq DESC",
        values,
    )


def _as_stored(body: str, warnings: str) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(body)
    if warnings != "[]":
        event["ingestionWarnings"] = json.loads(warnings)
    return event


def _as_text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _metadata_type(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "string" if isinstance(value, str) else "number"
