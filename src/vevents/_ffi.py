"""The bridge to the C library: the only importer of `_core`.

Turns statuses into exceptions, buffers into bytes, and nothing else; what to log and when is for
`log.py` to know.
"""

from __future__ import annotations

import errno
import mmap
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from typing import Any, Final, NamedTuple

from vevents import _core
from vevents._core import ffi, lib
from vevents.errors import (
    EventTooLargeError,
    EventValidationError,
    LogBusyError,
    LogCorruptError,
    LogDegradedError,
    LogError,
    LogForeignError,
    LogFullError,
    LogReadOnlyError,
    LogVersionError,
)

EVENTS: Final[int] = lib.VEV_EVENTS
MEDIA: Final[int] = lib.VEV_MEDIA
DELIVERY: Final[int] = lib.VEV_DELIVERY

PENDING: Final[int] = lib.VEV_PENDING
DELIVERED: Final[int] = lib.VEV_DELIVERED
REJECTED: Final[int] = lib.VEV_REJECTED
LOST: Final[int] = lib.VEV_LOST

APPEND_SYNC: Final[int] = lib.VEV_APPEND_SYNC
APPEND_TIME: Final[int] = lib.VEV_APPEND_TIME
APPEND_ID: Final[int] = lib.VEV_APPEND_ID
APPEND_RAW: Final[int] = lib.VEV_APPEND_RAW

FULL_DROP_OLDEST: Final[int] = lib.VEV_FULL_DROP_OLDEST
FULL_REFUSE: Final[int] = lib.VEV_FULL_REFUSE


def _in_the_file_of_core(name: str) -> Any:
    """Return a module that stands in the file of `_core`, where the library is."""
    path: str = _core.__file__
    loader = ExtensionFileLoader(f"{__package__}.{name}", path)
    module = loader.create_module(ModuleSpec(loader.name, loader, origin=path))
    loader.exec_module(module)
    return module


# The calls that are made for every event; see _append.c.
_append: Final[Any] = _in_the_file_of_core("_append")
# Looked up once: what is called for every event counts its nanoseconds.
_py_event_json: Final[Any] = lib.py_event_json
_NULL: Final[Any] = ffi.NULL
_NO_BYTES: Final[Any] = ffi.new("char[]", 0)

# Returns the double nearest to the shortest decimal that names a float32; what is no finite
# float32 comes back as it is. Bare, because it is called for every number that is read.
shortest: Final[Callable[[float], float]] = lib.py_shortest

_READ_COUNT: Final = 256
_READ_SIZE: Final = 1 << 20

# Which exception a status becomes; a test walks every code of the header through this table.
ERROR_OF: Final[dict[int, type[Exception]]] = {
    lib.VEV_E_INVALID: EventValidationError,
    lib.VEV_E_TOO_BIG: EventTooLargeError,
    lib.VEV_E_BUFFER: LogError,
    lib.VEV_E_READONLY: LogReadOnlyError,
    lib.VEV_E_FULL: LogFullError,
    lib.VEV_E_BUSY: LogBusyError,
    lib.VEV_E_DEGRADED: LogDegradedError,
    lib.VEV_E_VERSION: LogVersionError,
    lib.VEV_E_CORRUPT: LogCorruptError,
    lib.VEV_E_FOREIGN: LogForeignError,
    lib.VEV_E_NOMEM: MemoryError,
}


def check(status: int, what: str) -> None:
    """Raise what `status` stands for; 0 is success.

    Args:
        status: What a function of the library returned.
        what: Path or field that the message names.
    """
    if status == 0:
        return
    if status > 0:
        raise OSError(status, os.strerror(status), what)
    text = ffi.string(lib.vev_strerror(status)).decode()
    kind = ERROR_OF[status]
    if issubclass(kind, EventValidationError):
        raise kind(what, text)
    raise kind(f"{what}: {text}")


def _unopened(directory: str, status: int) -> str:
    """Return the path that made this thread's last opening of a log fail."""
    from pathlib import Path

    rings = [f"{directory}/{stream}.ring" for stream in ("events", "media", "delivery")]
    failed: int = lib.py_unopened()
    # Where there are no rings at all, it is the log that is missing.
    if failed < 0 or (status == errno.ENOENT and not any(Path(ring).exists() for ring in rings)):
        return directory
    return rings[failed]


def version() -> str:
    """Return the version of the C library."""
    text: str = ffi.string(lib.vev_version()).decode()
    return text


class Moment(NamedTuple):
    """What records are stamped with, and whether the wall clock follows a reference.

    `mono_ns` counts from the boot that `boot` names.
    """

    wall_ns: int
    mono_ns: int
    boot: int
    synced: bool


def frame_digest(data: bytes) -> bytes:
    """Return the 16 bytes by which frames are told apart: BLAKE2b of the encoded image."""
    digest = ffi.new("uint8_t[16]")
    lib.vev_frame_digest(data, len(data), digest)
    return bytes(digest)


def now() -> Moment:
    """Return the moment as a record appended now would be stamped with it."""
    out = ffi.new("vev_moment *")
    lib.vev_now(out)
    return Moment(out.wall_ns, out.mono_ns, out.boot, bool(out.synced))


def set_clock(moment: Moment | None) -> None:
    """Stop the clocks of all logs in this process at a moment; None lets them run again."""
    lib.vev_set_clock(ffi.NULL if moment is None else ffi.new("vev_moment *", moment))


def restore(directory: str, copy_directory: str, interval_ms: int) -> bool:
    """Make a log RAM-first. Returns whether it was taken from the copy; see vevents.h."""
    restored = ffi.new("int *")
    status = lib.vev_log_restore(
        os.fsencode(directory), os.fsencode(copy_directory), interval_ms, restored
    )
    if status > 0:
        raise OSError(status, os.strerror(status), copy_directory, None, directory)
    check(status, f"{directory}, with its copy in {copy_directory}")
    return bool(restored[0])


class _JsonBuffer(threading.local):
    """Where a thread has its JSON written: made once, and replaced by a larger one if need be."""

    def __init__(self) -> None:
        self.data: Any = _NO_BYTES


_json_buffer = _JsonBuffer()


def event_json(
    payload: bytes, record_id: bytes, wall_ns: int, use_case_id: bytes | None
) -> tuple[bytes, bool] | None:
    """Write a payload as the JSON that is delivered; see `vev_json_event` in vev_json.h.

    Args:
        payload: It may be anything.
        record_id: The 16 bytes in the record's header.
        wall_ns: The time in the record's header.
        use_case_id: In UTF-8; for an event that names none.

    Returns:
        The JSON and whether the event names its use case; None if the library leaves it alone.
    """
    default = b"" if use_case_id is None else use_case_id
    size_max = 16 * len(payload) + 6 * len(default) + 4096  # what vev_json.h asks for
    # Not left there meanwhile: a signal's handler may come here as well.
    data, _json_buffer.data = _json_buffer.data, _NO_BYTES
    if len(data) < size_max:
        data = ffi.new("char[]", size_max)
    size: int = _py_event_json(
        payload,
        len(payload),
        record_id,
        wall_ns,
        _NULL if use_case_id is None else default,
        len(default),
        data,
        len(data),
    )
    answer = (ffi.buffer(data, abs(size))[:], size > 0) if size else None
    _json_buffer.data = data
    return answer


class RawRecord(NamedTuple):
    """One record as the library returns it; see `vev_record` in vevents.h."""

    seq: int
    id: bytes
    wall_ns: int
    mono_ns: int
    boot: int
    kind: int
    state: int
    flags: int
    payload: bytes
    stored_size: int


class _ReadBuffers:
    """What one call to read fills."""

    def __init__(self) -> None:
        self.records = ffi.new("vev_record[]", _READ_COUNT)
        self.payloads = ffi.new("unsigned char[]", _READ_SIZE)
        self.count = ffi.new("size_t *")
        self.following = ffi.new("uint64_t *")


class Handle:
    """An open log.

    Threads: any method from any thread. Beside them, one of the library touches pages ahead and
    syncs, unless `helper` is False: then nothing happens but what is asked for.

    Attributes:
        append_encoded: Appends one encoded event: (payload, kind, flags). Returns its sequence
            number.
    """

    def __init__(
        self,
        directory: str,
        *,
        events_size: int | None,
        media_size: int | None,
        delivery_size: int | None,
        segment_size: int | None,
        full_policy: int,
        sync_interval_ms: int,
        level: int | None,
        read_only: bool,
        helper: bool = True,
    ) -> None:
        options = ffi.new("vev_options *")
        lib.vev_options_init(options)
        given = {
            "events_size": events_size,
            "media_size": media_size,
            "delivery_size": delivery_size,
            "segment_size": segment_size,
            "level": level,
        }
        for name, value in given.items():
            if value is not None:
                setattr(options, name, value)
        options.full_policy = full_policy
        options.sync_interval_ms = sync_interval_ms
        options.flags = (lib.VEV_OPEN_READONLY if read_only else 0) | (
            0 if helper else lib.VEV_OPEN_NO_THREAD
        )
        out = ffi.new("vev_log **")
        self._directory = directory
        status = lib.vev_log_open(os.fsencode(directory), options, out)
        if status == errno.EAGAIN and lib.py_unopened() < 0:
            raise OSError(
                status, "no thread can be made: processes or memory are limited", directory
            )
        if status:
            check(status, _unopened(directory, status))
        self._log = ffi.gc(out[0], lib.vev_log_close)
        self.appender = _append.Appender(_address(self._log), self._log, _fail, directory)
        self.append_encoded: Callable[[bytes, int, int], int] = self.appender.append
        self._idle_buffers: list[_ReadBuffers] = []

    def close(self) -> None:
        """Sync and close; later calls on this handle raise `LogError`.

        A call that another thread is inside of ends as if nothing were, and the log is closed when
        it has: whoever drops the last reference does that.
        """
        self.appender.close()
        self._log = None

    def _open_log(self) -> Any:
        """Return the log, for one call: a frame that an exception keeps must not keep it open."""
        log = self._log
        if log is None:
            raise LogError(f"{self._directory}: the log is closed")
        return log

    def append(
        self,
        stream: int,
        payload: bytes,
        flags: int,
        kind: int,
        *,
        record_id: bytes | None = None,
        wall_ns: int = 0,
    ) -> tuple[int, bytes, int]:
        """Append one record. Returns its sequence number, id and time in ns since 1970."""
        appended: tuple[int, bytes, int] = self.appender.append_record(
            stream, payload, flags, kind, record_id, wall_ns
        )
        return appended

    def read(
        self, stream: int, from_seq: int, state_mask: int, limit: int
    ) -> tuple[list[RawRecord], int]:
        """Read up to `limit` records. Returns them and the sequence number to go on from."""
        try:
            # Not behind a lock: a thread may be in here when another one forks, or when a signal's
            # handler reads.
            buffers = self._idle_buffers.pop()
        except IndexError:
            buffers = _ReadBuffers()
        while True:
            status = lib.vev_log_read(
                self._open_log(),
                stream,
                from_seq,
                state_mask,
                buffers.records,
                min(limit, _READ_COUNT),
                buffers.payloads,
                len(buffers.payloads),
                buffers.count,
                buffers.following,
            )
            if status != lib.VEV_E_BUFFER:
                break
            buffers.payloads = ffi.new("unsigned char[]", buffers.records[0].size)
        check(status, self._directory)
        view = ffi.buffer(buffers.payloads)
        found = [
            RawRecord(
                r.seq,
                bytes(r.id),
                r.wall_ns,
                r.mono_ns,
                r.boot,
                r.kind,
                r.state,
                r.flags,
                view[r.offset : r.offset + r.size],
                r.stored_size,
            )
            for r in buffers.records[0 : buffers.count[0]]
        ]
        following: int = buffers.following[0]
        if len(buffers.payloads) == _READ_SIZE and not self._idle_buffers:
            self._idle_buffers.append(buffers)
        return found, following

    def view(
        self, stream: int, seq: int, state_mask: int, size: int
    ) -> tuple[int, bytes, memoryview] | None:
        """Read one large record into memory of its own.

        Not into what `malloc` hands out: that keeps what was large for the next time, and for each
        thread.

        Args:
            stream: Which ring.
            seq: First sequence number wanted.
            state_mask: As for `read`.
            size: Bytes of the payload, at least 1; a wrong guess costs a second read.

        Returns:
            Sequence number, id and payload of the first such record, or None. The memory goes back
            to the system when the view is released.
        """
        record = ffi.new("vev_record *")
        count = ffi.new("size_t *")
        following = ffi.new("uint64_t *")
        while True:
            memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            buffer = ffi.from_buffer("unsigned char[]", memory, require_writable=True)
            status = lib.vev_log_read(
                self._open_log(),
                stream,
                seq,
                state_mask,
                record,
                1,
                buffer,
                len(buffer),
                count,
                following,
            )
            ffi.release(buffer)
            if status != lib.VEV_E_BUFFER:
                break
            size = record.size
        check(status, self._directory)
        if not count[0]:
            return None
        return record.seq, bytes(record.id), memoryview(memory)[: record.size]

    def mark(self, stream: int, seqs: Sequence[int], state: int) -> int:
        """Set the delivery state of records. Returns how many changed."""
        changed = ffi.new("size_t *")
        array = ffi.new("uint64_t[]", seqs)
        status = lib.vev_log_mark(self._open_log(), stream, array, len(seqs), state, changed)
        check(status, self._directory)
        count: int = changed[0]
        return count

    def sync(self) -> int:
        """Make everything durable. Returns the durable sequence number of the events."""
        durable = ffi.new("uint64_t *")
        status = lib.vev_log_sync(self._open_log(), durable)
        if status:
            check(status, self._flash())
        seq: int = durable[0]
        return seq

    def persist(self) -> tuple[int, int, int, int]:
        """Bring the copy of a RAM-first log up to date.

        Returns:
            Bytes written to it, in how many writes, how many syncs, and the durable sequence number
            of the events.
        """
        report = ffi.new("vev_persist_report *")
        status = lib.vev_log_persist(self._open_log(), report)
        if status == lib.VEV_E_INVALID:
            raise LogError(f"{self._directory}: the log has no copy; it is not RAM-first")
        if status:
            check(status, self._flash())
        return report.bytes_written, report.write_count, report.sync_count, report.durable_seq

    def _flash(self) -> str:
        """Where a sync goes: what its failure is about."""
        info = self.copy_info()
        return self._directory if info is None else info[0]

    def copy_info(self) -> tuple[str, int, int, str, int, int, int] | None:
        """Return how the copy of a RAM-first log is; None for any other log.

        Returns:
            Its directory, its age and interval in milliseconds (age -1: none yet), why the last
            pass failed or an empty text, the passes, the bytes that they wrote, and the
            milliseconds in which they did.
        """
        info = ffi.new("vev_copy_info *")
        log = self._open_log()  # whose memory `info` points into
        if lib.vev_log_copy_info(log, info) != 0:
            return None
        error = ffi.string(lib.vev_strerror(info.error)).decode() if info.error else ""
        return (
            os.fsdecode(ffi.string(info.dir)),
            info.age_ms,
            info.interval_ms,
            error,
            info.pass_count,
            info.bytes_written,
            info.since_ms,
        )

    def durable_seq(self, stream: int) -> int:
        """Return the sequence number up to which a power cut loses nothing."""
        seq: int = lib.vev_log_durable_seq(self._open_log(), stream)
        return seq

    def verify(self, stream: int, limit: int) -> tuple[list[tuple[int, int, int, int]], int, int]:
        """Read the whole ring.

        Returns:
            Up to `limit` damaged ranges as (offset, size, first seq, count), how many there are,
            and how many records are good.
        """
        ranges = ffi.new("vev_damage[]", limit)
        count = ffi.new("size_t *")
        checked = ffi.new("uint64_t *")
        check(
            lib.vev_log_verify(self._open_log(), stream, ranges, limit, count, checked),
            self._directory,
        )
        found = [(r.offset, r.size, r.first_seq, r.count) for r in ranges[0 : min(count[0], limit)]]
        return found, count[0], checked[0]

    def stats(self, stream: int) -> dict[str, Any]:
        """Return the fields of `vev_stats`, `evicted_by_kind` as a list of 8."""
        out = ffi.new("vev_stats *")
        check(lib.vev_log_stats(self._open_log(), stream, out), self._directory)
        fields = {name: getattr(out, name) for name, _ in ffi.typeof("vev_stats").fields}
        fields["evicted_by_kind"] = list(fields["evicted_by_kind"])
        return fields


def box_writer(
    handle: Handle,
    kind: int,
    texts: Mapping[str, str | None],
    data: Mapping[str, Any],
    metadata: Mapping[str, Any],
    class_names: Sequence[str | None],
) -> Any:
    """Make what builds events from arrays in C and appends them, in one call each.

    Args:
        handle: The log.
        kind: Number of the event type.
        texts: `use_case_id`, `device_id`, `stream_id`, `workflow_id` and `label`, each a text or
            None.
        data: `eventData`, names as on the wire.
        metadata: `customMetadata`.
        class_names: By class id; None where there is no such class.

    Returns:
        An object with two methods, which any number of threads may call at once:

        - `append(xyxy, confidence, class_id, frame, flags)`: arrays of shape (n, 4), (n,) and (n,);
          float32, float32 and int64
        - `append_rows(rows, frame, flags)`: one of float32, shape (n, 6)

        `frame` is the sequence number in the media ring, digest and size in bytes, or None; `flags`
        are `APPEND_SYNC` or 0. They return the sequence number, or None, nothing being appended,
        where an array is not contiguous, not aligned, or of another type or shape.

    Raises:
        EventValidationError: A field breaks the contract.
    """

    def text(name: str) -> Any:
        value = texts[name]
        return ffi.NULL if value is None else _c_text(name, value)

    fields = [*texts.values(), *data, *data.values(), *metadata, *metadata.values()]
    size = 1024 + sum(16 + 4 * len(each) if isinstance(each, str) else 16 for each in fields)
    buffer = ffi.new("unsigned char[]", size)
    event = ffi.new("vev_event *")
    lib.vev_event_begin(event, buffer, size, kind, text("use_case_id"))
    lib.vev_event_device(event, text("device_id"))
    lib.vev_event_stream(event, text("stream_id"))
    lib.vev_event_workflow(event, text("workflow_id"))
    for key, value in data.items():
        if isinstance(value, str):
            lib.vev_event_data_str(event, key.encode(), _c_text(key, value))
        else:
            lib.vev_event_data_int(event, key.encode(), value)
    for key, value in metadata.items():
        if isinstance(value, str):
            lib.vev_event_meta_str(event, key.encode(), _c_text(key, value))
        elif isinstance(value, bool):
            lib.vev_event_meta_bool(event, key.encode(), value)
        elif isinstance(value, int):
            lib.vev_event_meta_int(event, key.encode(), value)
        else:
            lib.vev_event_meta_num(event, key.encode(), value)
    lib.vev_event_image_begin(event, text("label"))
    _raise_for_event(ffi.string(lib.vev_event_error(event)))
    names = [
        ffi.NULL if name is None else ffi.new("char[]", _c_text(f"class_names[{class_id}]", name))
        for class_id, name in enumerate(class_names)
    ]
    name_array = ffi.new("char *[]", names)
    common = ffi.new("py_writer *")
    common.base = event
    common.class_names = ffi.cast("const char **", name_array)
    common.class_count = len(names)
    memory = (buffer, event, names, name_array, common)
    return _append.Writer(handle.appender, _address(common), memory)


def _address(pointer: Any) -> int:
    return int(ffi.cast("uintptr_t", pointer))


def _c_text(field: str, text: object) -> bytes:
    """Encode a text for C, where it ends at the first NUL."""
    if not isinstance(text, str):
        raise EventValidationError(field, f"must be a string, not {type(text).__name__}")
    if "\0" in text:
        raise EventValidationError(field, "must not contain a NUL character")
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise EventValidationError(field, "has a lone surrogate, which UTF-8 cannot hold") from None


def _raise_for_event(error: bytes) -> None:
    """Raise what is wrong with an event that is being built, if anything is."""
    if error:
        field, _, reason = error.decode(errors="replace").partition(": ")
        kind = EventTooLargeError if "does not fit" in reason else EventValidationError
        raise kind(field, reason)


def _fail(status: int, what: str, event_error: bytes) -> None:
    """Raise why an append stored nothing; status 0 is that the log is closed."""
    if status == 0:
        raise LogError(f"{what}: the log is closed")
    _raise_for_event(event_error)
    check(status, what)
