"""The dead letters: events and images that were refused for good, and what can be done with them.

A refusal leaves a note with the server's words and the event itself (`vevents.delivery.notes`), and
the record stays in its ring, marked rejected, until it is overwritten. What is listed here are the
notes; whether the record is still there decides how a retry goes:

    in the log        the record is pending again, with its frames
    only in the note  the event is appended anew, with the same `eventId` and timestamp
    gone              neither is left: the event was too large for a note

A record that is in the log tells by its state whether it is a dead letter; a note alone may be of a
refusal that a crash kept from being marked. In the order of every step, what a crash leaves behind
is an event that is pending and still noted, never one that is neither.
"""

from __future__ import annotations

import base64
import errno
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Literal

from vevents.delivery.lock import flush_lock
from vevents.delivery.notes import SEQS_PER_NOTE, UNKNOWN, Notes, type_of
from vevents.errors import FlushLockedError, LogFullError
from vevents.files import replaced
from vevents.frames import sniff
from vevents.log import READABLE, Record
from vevents.wire import event_to_json, format_timestamp, required_frames

if TYPE_CHECKING:
    from vevents.delivery.notes import Note, Stream
    from vevents.event import Event, FrameRef
    from vevents.log import EventLog, State

Place = Literal["log", "note", "gone"]

EVENTS_FILE: Final = "events.jsonl"
REASONS_FILE: Final = "reasons.jsonl"
FRAMES_DIRECTORY: Final = "frames"

_LOCK_LOOK_S = 0.2
_NO_NOTE: Final = 0
_LATER: Final = "a later event of this id was sent or is pending, and would be overwritten"
_FULL: Final = "the log is full and told to refuse; flush, and retry it then"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """An event or an image that was refused for good.

    Attributes:
        stream: `events` or `media`.
        seq: Sequence number there.
        id: The event's id, or an image's digest in hexadecimal.
        type: The event type, or `image`.
        code: Why, as one word; `unknown` in notes of earlier versions.
        reason: Why, in the words of the server or of the flusher.
        status: HTTP status of the refusal; None if the server was not asked.
        at_ns: When it was refused, nanoseconds since 1970.
        place: Where the event or image itself is left.
        note_seq: Sequence number of its note in delivery.ring; 0 if that was overwritten.
    """

    stream: Stream
    seq: int
    id: str
    type: str
    code: str
    reason: str
    status: int | None
    at_ns: int
    place: Place
    note_seq: int

    def to_json(self) -> dict[str, Any]:
        """Return it as one object of `vevents rejected list --json`."""
        return {
            "id": self.id,
            "type": self.type,
            "code": self.code,
            "status": self.status,
            "reason": self.reason,
            "rejected_at": format_timestamp(self.at_ns),
            "stream": self.stream,
            "seq": self.seq,
            "kept_in": self.place,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlisted:
    """Rejected records that are in no list any more.

    Attributes:
        dropped: Struck off with `drop`.
        appended_anew: Retried under a new sequence number.
        overwritten: Without a note: it was overwritten, or there never was one.
    """

    dropped: int
    appended_anew: int
    overwritten: int


@dataclass(slots=True)
class Retried:
    """What a retry did.

    Attributes:
        in_place: Records that are pending again.
        appended: Events that were appended anew.
        failed: What could not be retried, each with why.
    """

    in_place: int = 0
    appended: int = 0
    failed: list[tuple[DeadLetter, str]] = field(default_factory=list)


@dataclass(slots=True)
class Exported:
    """What an export wrote: numbers of events and frames; and of frames that are not in it."""

    events: int = 0
    unreadable: int = 0
    frames: int = 0
    frames_missing: int = 0


@contextmanager
def waiting_lock(
    directory: Path,
    wait_s: float,
    *,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> Iterator[None]:
    """Hold the flush lock of a log, waiting until a running flush has ended.

    A flush knows the notes and goes through the records by itself; what changed behind its back it
    would see too late.

    Raises:
        FlushLockedError: The flush still runs after `wait_s` seconds.
    """
    until_s = monotonic() + wait_s
    while True:
        with ExitStack() as held:
            try:
                held.enter_context(flush_lock(directory))
            except FlushLockedError:
                if monotonic() >= until_s:
                    raise
            else:
                yield
                return
        sleep(_LOCK_LOOK_S)


class DeadLetters:
    """The dead letters of a log, as they stand now.

    Looking needs no lock and works on a log that is open for reading only. For `retry` and `drop`
    hold the flush lock (`waiting_lock`) from before this is made.

    Args:
        log: The log.

    Attributes:
        letters: All that are listed, the newest refusal first.

    Example:
        >>> with waiting_lock(log.directory, 10.0):  # doctest: +SKIP
        ...     dead = DeadLetters(log)
        ...     dead.retry([letter for letter in dead.letters if letter.code == "refused"])
    """

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._notes = Notes(log).update()
        self.letters: list[DeadLetter] = sorted(
            self._read(), key=lambda letter: (letter.at_ns, letter.note_seq), reverse=True
        )

    def unlisted(self, stream: Stream = "events") -> Unlisted:
        """Count the rejected records of a ring that are not listed."""
        rejected = self._log.stats(stream).rejected
        listed = sum(letter.stream == stream for letter in self.letters)
        dropped = self._notes.dropped[stream]
        appended_anew = self._notes.appended_anew[stream]
        return Unlisted(
            dropped=dropped,
            appended_anew=appended_anew,
            overwritten=max(0, rejected - listed - dropped - appended_anew),
        )

    # --- looking ---------------------------------------------------------------------------

    def without_note(self) -> list[DeadLetter]:
        """Return the rejected events that are in the log and in no list, the newest first.

        Their notes were overwritten, so nobody knows why and when they were refused: `at_ns` is
        the time of the event. What was dropped is left out for as long as that is noted.
        """
        known = {seq for stream, seq in self._notes.letters if stream == "events"}
        for _, note in self._log.notes():
            if note.get("kind") == "dropped" and note.get("stream") == "events":
                with suppress(KeyError, TypeError):  # not as it should be
                    known |= set(note["seqs"])
        return [
            DeadLetter(
                stream="events",
                seq=record.seq,
                id=self._log.event_id(record),
                type=type_of(record.payload),
                code=UNKNOWN,
                reason="the note of its refusal was overwritten",
                status=None,
                at_ns=record.wall_ns,
                place="log",
                note_seq=_NO_NOTE,
            )
            for record in self._log.read("events", states=("rejected",))
            if record.seq not in known
        ][::-1]

    def _read(self) -> Iterator[DeadLetter]:
        letters: dict[Stream, dict[int, DeadLetter]] = {"events": {}, "media": {}}
        keys = {letter.note_seq: key for key, letter in self._notes.letters.items()}
        for note_seq, note in self._log.notes():
            if note_seq in keys:
                stream, seq = keys[note_seq]
                known = self._notes.letters[stream, seq]
                letters[stream][seq] = DeadLetter(
                    stream=stream,
                    seq=seq,
                    id=known.id,
                    type=known.reason.type,
                    code=known.reason.code,
                    reason=str(note.get("reason", "")),
                    status=note.get("status"),
                    at_ns=known.at_ns,
                    place="gone" if note.get("payload") is None else "note",
                    note_seq=note_seq,
                )
        for stream, wanted in letters.items():
            yield from self._placed(stream, wanted)

    def _placed(self, stream: Stream, wanted: dict[int, DeadLetter]) -> Iterator[DeadLetter]:
        """Yield the letters of a ring with their places; those that are not rejected are left out.

        Reads the rejected records from the first one to the last, and each other one by itself.
        """
        if not wanted:
            return
        here = set()
        last_seq = max(wanted)
        for record in self._log.read(stream, from_seq=min(wanted), states=("rejected",)):
            if record.seq > last_seq:
                break
            if record.seq in wanted and _is_of(record, wanted[record.seq]):
                here.add(record.seq)
        first_seq = self._log.stats(stream).first_seq
        for seq, letter in wanted.items():
            if seq in here:
                yield replace(letter, place="log")
                continue
            other = None
            if seq >= first_seq:
                other = _record(self._log, stream, seq, ("pending", "delivered"))
            if other is None or not _is_of(other, letter):
                yield letter

    def _event(self, letter: DeadLetter, note: Note) -> Event:
        """Return the event of a letter.

        Raises:
            ValueError: It cannot be read.
        """
        record = None
        if letter.place == "log":
            record = _record(self._log, "events", letter.seq, READABLE)
        if record is None:
            if letter.note_seq == _NO_NOTE:
                raise ValueError("it was overwritten meanwhile")
            record = _record_of(letter, note)
        return self._log.decode(record)

    def _with_notes(self, letters: Iterable[DeadLetter]) -> Iterator[tuple[DeadLetter, Note]]:
        """Yield letters with what their notes say, the oldest note first, one in memory."""
        wanted = {}
        for letter in letters:
            if letter.note_seq == _NO_NOTE:
                yield letter, {}
            else:
                wanted[self._notes.letters[letter.stream, letter.seq].note_seq] = letter
        if not wanted:
            return
        for note_seq, note in self._log.notes(min(wanted)):
            if note_seq in wanted:
                yield wanted.pop(note_seq), note
            if not wanted:
                return

    def event(self, letter: DeadLetter) -> Event:
        """Return the event that was refused.

        Args:
            letter: Of `self.letters` or `without_note()`, one of the events.

        Raises:
            ValueError: It cannot be read, or it is gone.
        """
        for _, note in self._with_notes([letter]):
            return self._event(letter, note)
        raise ValueError("its note was overwritten meanwhile")

    def images(self, letter: DeadLetter) -> list[dict[str, Any]]:
        """Say what became of the frames that an event names, or of an image.

        Returns:
            For each one `seq` and `digest`, its `state` in media.ring (`overwritten` if it is not
            there), its `size` if it is, and `sourceId` if the same content was uploaded.
        """
        if letter.stream == "media":
            return [self._image(letter.seq, bytes.fromhex(letter.id), None)]
        try:
            frames = required_frames(self.event(letter))
        except ValueError:
            return []
        sources = self._sources({frame.digest for frame in frames})
        return [self._image(f.seq, f.digest, sources.get(f.digest)) for f in frames]

    def _image(self, seq: int, digest: bytes, source_id: str | None) -> dict[str, Any]:
        record = _record(self._log, "media", seq, READABLE)
        here = record is not None and record.id == digest
        image: dict[str, Any] = {
            "seq": seq,
            "digest": digest.hex(),
            "state": record.state if record is not None and here else "overwritten",
        }
        if record is not None and here:
            image["size"] = len(record.payload)
        if source_id is not None:
            image["sourceId"] = source_id
        return image

    def _sources(self, digests: set[bytes]) -> dict[bytes, str]:
        """Return under which ids frames of these contents were uploaded."""
        found = {}
        if digests:
            for _, note in self._log.notes():
                if note.get("kind") == "upload" and note.get("digest") in digests:
                    found[bytes(note["digest"])] = str(note["sourceId"])
        return found

    # --- doing -----------------------------------------------------------------------------

    def retry(self, letters: Sequence[DeadLetter]) -> Retried:
        """Make events and images pending again, so that the next flush brings them once more.

        An image goes with its events, which are sent again under their ids. An event is left as it
        is if a later one of its id is pending or delivered, as far as the log still holds that one:
        the API overwrites, and the last one has to be the last. What cannot be retried is in the
        result with the reason, also if the log is full and told to refuse.

        Args:
            letters: Of `self.letters` or `without_note()`.

        Raises:
            LogError: The log cannot be written; what was done before is done.
            OSError: The disk fails.
        """
        done = Retried()
        events = [x for x in letters if x.stream == "events" and x.place != "gone"]
        # As they were appended, so that the last of an id stays the last.
        here = sorted((x for x in events if x.place == "log"), key=_seq)
        here = self._without_later(here, done)
        for start in range(0, len(here), SEQS_PER_NOTE):
            self._retry_in_place(here[start : start + SEQS_PER_NOTE], done)
        # Only now: what is pending again is later than any that is not in the log any more.
        elsewhere = sorted((x for x in events if x.place == "note"), key=_seq)
        elsewhere = self._without_later(elsewhere, done)
        for start in range(0, len(elsewhere), SEQS_PER_NOTE):
            self._append_anew(elsewhere[start : start + SEQS_PER_NOTE], done)
        self._retry_images([x for x in letters if x.stream == "media" and x.place == "log"], done)
        for letter in letters:
            if letter.place == "gone":
                done.failed.append((letter, "it was overwritten and is nowhere else"))
        return done

    def _last_seqs(self, event_ids: set[str]) -> dict[str, int]:
        """Return for ids the last event that is pending or delivered under them, if any."""
        found: dict[str, int] = {}
        if event_ids:
            for record in self._log.read("events", states=("pending", "delivered")):
                event_id = self._log.event_id(record)
                if event_id in event_ids:
                    found[event_id] = record.seq
        return found

    def _without_later(self, letters: Sequence[DeadLetter], done: Retried) -> list[DeadLetter]:
        last_seqs = self._last_seqs({letter.id for letter in letters})
        # What is in a note only is older than all of the log, also if the ring began anew.
        behind = [
            letter
            for letter in letters
            if last_seqs.get(letter.id, 0) > (letter.seq if letter.place == "log" else 0)
        ]
        copied = []
        for letter, note in self._with_notes(x for x in behind if x.place == "note"):
            # A retry that died between the event and its note has appended it already.
            if self._is_copied(letter, note, last_seqs[letter.id]):
                copied.append(letter)
        self._notes.retried("events", [letter.seq for letter in copied], in_place=False)
        done.appended += len(copied)
        copies, others = {x.seq for x in copied}, {x.seq for x in behind}
        done.failed += [(letter, _LATER) for letter in behind if letter.seq not in copies]
        return [letter for letter in letters if letter.seq not in others]

    def _is_copied(self, letter: DeadLetter, note: Note, seq: int) -> bool:
        record = _record(self._log, "events", seq, ("pending", "delivered"))
        try:
            return record is not None and self._log.decode(record) == self._event(letter, note)
        except ValueError:
            return False

    def _retry_in_place(self, letters: Sequence[DeadLetter], done: Retried) -> None:
        seqs = [letter.seq for letter in letters]
        frames = [frame for seq in seqs for frame in self._frames_of(seq)]
        done.in_place += self._log.mark(seqs, "pending")
        # A power cut must not take the mark and leave the note: the event would be in no list.
        self._log.sync()
        noted = [letter.seq for letter in letters if letter.note_seq != _NO_NOTE]
        self._notes.retried("events", noted, in_place=True)
        unlisted = [letter.seq for letter in letters if letter.note_seq == _NO_NOTE]
        self._notes.retried("events", unlisted, in_place=True, unlisted=True)
        self._retry_frames({frame.seq for frame in frames})

    def _append_anew(self, letters: Sequence[DeadLetter], done: Retried) -> None:
        appended: list[int] = []
        frames: set[int] = set()
        full = False
        # All in memory first: the notes written here may overwrite the ones still to be read.
        found = sorted(self._with_notes(letters), key=lambda pair: pair[0].seq)
        for letter, note in found:
            if full:
                done.failed.append((letter, _FULL))
                continue
            try:
                event = self._event(letter, note)
                self._log.append(event)
            except ValueError as error:
                done.failed.append((letter, f"it cannot be read: {error}"))
                continue
            except LogFullError:
                # What was appended before is to be noted, else a retry appends it once more.
                full = True
                done.failed.append((letter, _FULL))
                continue
            appended.append(letter.seq)
            frames |= {frame.seq for frame in required_frames(event)}
        self._log.sync()
        self._notes.retried("events", appended, in_place=False)
        self._retry_frames(frames)
        done.appended += len(appended)

    def _retry_frames(self, seqs: set[int]) -> int:
        """Make frames pending that were refused, or given up with their event."""
        rejected = [s for s in sorted(seqs) if _record(self._log, "media", s, ("rejected",))]
        self._log.mark(rejected, "pending", stream="media")
        self._notes.retried(
            "media", [s for s in rejected if ("media", s) in self._notes.letters], in_place=True
        )
        return len(rejected)

    def _retry_images(self, letters: Sequence[DeadLetter], done: Retried) -> None:
        """Send events again whose images were refused."""
        # An event that was retried just now may have taken the image with it.
        left = {x.seq: x for x in letters if ("media", x.seq) in self._notes.letters}
        done.in_place += len(letters) - len(left)
        if not left:
            return
        events: dict[int, tuple[str, list[FrameRef]]] = {}
        for record in self._log.read("events", states=("pending", "delivered")):
            frames = [f for f in self._frames_in(record) if f.seq in left]
            if frames:
                events[record.seq] = self._log.event_id(record), frames
        last_seqs = self._last_seqs({event_id for event_id, _ in events.values()})
        later = {s for s, (event_id, _) in events.items() if last_seqs.get(event_id, s) > s}
        named: dict[int, bytes] = {}
        for seq in events.keys() - later:
            named |= {frame.seq: frame.digest for frame in events[seq][1]}
        self._log.mark(sorted(events.keys() - later), "pending")
        self._log.sync()
        found = {seq for seq, digest in named.items() if digest.hex() == left[seq].id}
        done.in_place += self._retry_frames(found)
        for seq in left.keys() - found:
            behind = any(frame.seq == seq for s in later for frame in events[s][1])
            why = _LATER if behind else "no event in the log that was sent without it"
            done.failed.append((left[seq], why))

    def _frames_of(self, seq: int) -> list[FrameRef]:
        record = _record(self._log, "events", seq, READABLE)
        return [] if record is None else self._frames_in(record)

    def _frames_in(self, record: Record) -> list[FrameRef]:
        # Most events of most logs name none, and decoding costs more than looking.
        if b"\xa5frame" not in record.payload and b"\xaainputFrame" not in record.payload:
            return []
        try:
            return required_frames(self._log.decode(record))
        except ValueError:
            return []

    def drop(self, letters: Sequence[DeadLetter]) -> int:
        """Strike letters off the list. They stay counted as rejected. Returns how many."""
        streams: tuple[Stream, ...] = ("events", "media")
        for stream in streams:
            self._notes.drop(stream, [x.seq for x in letters if x.stream == stream])
        return len(letters)

    # --- exporting -------------------------------------------------------------------------

    def write_lines(
        self, letters: Sequence[DeadLetter], file: IO[str], *, use_case_id: str | None = None
    ) -> Exported:
        """Write the events as JSON lines in the cloud's shape.

        Frames that were uploaded are named with their `sourceId`; the others are left out, and the
        event says how many in its metadata. Images and unreadable events are not written.

        Args:
            letters: Of `self.letters`.
            file: Where to.
            use_case_id: For events that name none.
        """
        done = Exported()
        digests = {
            frame.digest
            for _, event in self._events(letters, Exported())
            for frame in required_frames(event)
        }
        sources = self._sources(digests)
        for _, event in self._events(letters, done):
            frames = required_frames(event)
            known = {f.seq: sources[f.digest] for f in frames if f.digest in sources}
            missing = {f.seq: "not exported" for f in frames if f.seq not in known}
            self._write_line(file, _cloud_json(event, known, missing, use_case_id))
            done.events += 1
            done.frames_missing += len(missing)
        return done

    def write_directory(
        self,
        letters: Sequence[DeadLetter],
        directory: Path,
        *,
        use_case_id: str | None = None,
        overwrite: bool = False,
    ) -> Exported:
        """Write events, frames and reasons into a directory; each file is whole or not there.

        `events.jsonl` is what `vevents append` takes when it runs in the directory. It is written
        last: where it is, everything is.

        Args:
            letters: Of `self.letters`.
            directory: Made with mode 0700 if absent.
            use_case_id: For events that name none.
            overwrite: Replace the files of an earlier export.

        Raises:
            FileExistsError: There is an export in the directory already.
            OSError: It cannot be written.
        """
        if not overwrite and (directory / EVENTS_FILE).exists():
            raise FileExistsError(
                errno.EEXIST, "there is an export already", str(directory / EVENTS_FILE)
            )
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        (directory / FRAMES_DIRECTORY).mkdir(mode=0o700, exist_ok=True)
        done = Exported()
        with replaced(directory / REASONS_FILE) as reasons:
            for letter, note in self._with_notes(letters):
                line = letter.to_json()
                if letter.stream == "media":
                    frame = self._log.frame(letter.seq)
                    done.frames_missing += frame is None
                    if frame is not None:
                        line["frame"] = self._write_frame(directory, letter.id, frame, done)
                else:
                    try:
                        self._event(letter, note)
                    except ValueError as error:
                        # Whoever can read it later should find it here.
                        payload = bytes(note.get("payload") or b"")
                        line |= {"unreadable": str(error), "payload": _base64(payload)}
                self._write_line(reasons, line)
        with replaced(directory / EVENTS_FILE) as events:
            for _, event in self._events(letters, done):
                paths, missing = self._write_frames(directory, event, done)
                obj = _cloud_json(event, paths, missing, use_case_id)
                self._write_line(events, _with_paths(obj, set(paths.values())))
                done.events += 1
        return done

    def _events(
        self, letters: Iterable[DeadLetter], done: Exported
    ) -> Iterator[tuple[DeadLetter, Event]]:
        for letter, note in self._with_notes(x for x in letters if x.stream == "events"):
            try:
                event = self._event(letter, note)
            except ValueError:
                done.unreadable += 1
            else:
                yield letter, event

    def _write_frames(
        self, directory: Path, event: Event, done: Exported
    ) -> tuple[dict[int, str], dict[int, str]]:
        paths: dict[int, str] = {}
        missing: dict[int, str] = {}
        for frame in required_frames(event):
            data = self._log.frame(frame)
            if data is None:
                missing[frame.seq] = "evicted"
                done.frames_missing += 1
            else:
                paths[frame.seq] = self._write_frame(directory, frame.digest.hex(), data, done)
        return paths, missing

    def _write_frame(self, directory: Path, digest: str, data: bytes, done: Exported) -> str:
        suffix = (sniff(data) or "image/bin").rpartition("/")[2]
        name = f"{FRAMES_DIRECTORY}/{digest}.{suffix}"
        path = directory / name
        # Named after its content: what is there is the same.
        if not path.exists():
            with replaced(path, binary=True) as file:
                file.write(data)
            done.frames += 1
        return name

    def _write_line(self, file: IO[str], obj: dict[str, Any]) -> None:
        try:
            file.write(json.dumps(obj, ensure_ascii=False, allow_nan=False) + "\n")
        except UnicodeEncodeError:  # standard output in another encoding
            file.write(json.dumps(obj, allow_nan=False) + "\n")


def matching(letters: Iterable[DeadLetter], prefix: str) -> list[DeadLetter]:
    """Return the letters whose id begins with a prefix, in any case of letters."""
    prefix = prefix.lower()
    return [letter for letter in letters if letter.id.lower().startswith(prefix)]


def short_id_size(letters: Iterable[DeadLetter], least: int = 8) -> int:
    """Return how many characters of an id tell the letters apart."""
    ids = {letter.id for letter in letters}
    size = least
    while len({one[:size] for one in ids}) < len(ids):
        size += 1
    return size


def _record(log: EventLog, stream: Stream, seq: int, states: Sequence[State]) -> Record | None:
    found, _ = log.read_batch(stream, seq, states, 1)
    return found[0] if found and found[0].seq == seq else None


def _is_of(record: Record, letter: DeadLetter) -> bool:
    """Whether a record is the one that was refused: a ring that began anew counts from 1 again."""
    if letter.stream == "media":
        return record.id.hex() == letter.id
    return record.event_id == letter.id or letter.id.encode() in record.payload


def _record_of(letter: DeadLetter, note: Note) -> Record:
    """Return the record that a note kept; an id that is no UUID is in its payload."""
    digits = letter.id.replace("-", "")
    try:
        record_id = bytes.fromhex(digits)
    except ValueError:
        record_id = b""
    return Record(
        letter.seq,
        record_id if len(record_id) == 16 else bytes(16),
        note["wall_ns"],
        0,
        0,
        0,
        "rejected",
        True,
        bytes(note.get("payload") or b""),
        0,
    )


def _cloud_json(
    event: Event,
    source_ids: dict[int, str],
    missing: dict[int, str] | None,
    use_case_id: str | None = None,
) -> dict[str, Any]:
    """Return an event in the cloud's shape, without `useCaseId` if none is known."""
    obj = event_to_json(
        event, source_ids=source_ids, missing=missing, use_case_id=use_case_id or ""
    )
    if not obj["useCaseId"]:
        del obj["useCaseId"]
    return obj


def _with_paths(obj: dict[str, Any], paths: set[str]) -> dict[str, Any]:
    """Name the frames that are files as `vevents append` takes them."""
    for image in obj.get("images", ()):
        for id_key, key in (("sourceId", "frame"), ("inputSourceId", "inputFrame")):
            if image.get(id_key) in paths:
                image[key] = image.pop(id_key)
    return obj


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _seq(letter: DeadLetter) -> int:
    return letter.seq
