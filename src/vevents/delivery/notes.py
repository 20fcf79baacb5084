"""The flusher's notes in delivery.ring: what they add up to, and which of them outlive the others.

delivery.ring overwrites its oldest notes, and nearly all of them say under which id an image was
uploaded: some 130 bytes each, so a busy camera goes round a ring of 4 MiB within hours. Four kinds
of notes must not go with them:

    a dead letter       why an event or an image was refused for good, and the event itself
    the totals          how many were refused, by reason, since the log was made
    the loss report     what was reported upstream last
    the clocks          when each of the newest 64 boots really began (`vevents.delivery.clock`)

So whoever writes notes writes through `Notes`: before the ring comes round to one of these, it is
written again at the ring's end (`kept`). Dead letters may take half of the ring, uncompressed, and
number 65,536; beyond that the oldest are no longer kept. They are counted as rejected all the same.

Those that say under which id an image was uploaded tell nothing else, as a rule. They are marked
delivered, so that whoever wants to know the rest passes them over at no cost: a flush with nothing
to send, `vevents status`. They are read when the first image is asked for, each once.

The totals are a checkpoint of this very reading: everything before such a note is in it, everything
behind it is counted on top. So the figures are those of the notes, and a crash cannot part the two.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from vevents.delivery.digests import Digests
from vevents.errors import EventTooLargeError
from vevents.log import READABLE, note_size

if TYPE_CHECKING:
    from vevents.log import EventLog, State

Stream = Literal["events", "media"]
Note = dict[str, Any]

LETTERS_MAX: Final = 65_536
CLOCKS_MAX: Final = 64
SEQS_PER_NOTE: Final = 100
# The state of notes that only tell the id of an image, and those of all others.
_IMAGE_ONLY: Final[State] = "delivered"
_TELLING: Final[tuple[State, ...]] = tuple(state for state in READABLE if state != _IMAGE_ONLY)
IMAGE: Final = "image"
"""Stands in place of an event type where an image was refused."""
UNKNOWN: Final = "unknown"
"""Stands where nobody knows a code, or a type of event."""


class Reason(NamedTuple):
    """What rejections are counted by: the ring, the reason's code, and the type of event."""

    stream: Stream
    code: str
    type: str


class Letter(NamedTuple):
    """A dead letter as the notes know it; what it says is in the note `note_seq`.

    `id` is the event's id, or an image's digest in hexadecimal: the same number can be another
    record's, since a ring that was unusable begins anew.
    """

    note_seq: int
    id: str
    at_ns: int
    size: int
    reason: Reason


class Notes:
    """Reads the notes, and writes new ones.

    Writing is for one process at a time: hold the flush lock (`flush_lock`). Any thread.

    Args:
        log: The log; one that is open for reading only will do as long as nothing is written.

    Attributes, as of the last `update()` and what was written since:
        letters: The dead letters that are still noted, by ring and sequence number there, in the
            order of their notes.
        counts: How many records are rejected, by reason, since the log was made.
        dropped: Of these, the ones that somebody struck off the list.
        appended_anew: Of these, the ones whose event was appended once more under a new number.
        loss_report: The last note of that kind, or None.
        clocks: When boots really began, nanoseconds since 1970, by the boot's tag; the newest 64.
    """

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._lock = threading.Lock()
        self.letters: OrderedDict[tuple[Stream, int], Letter] = OrderedDict()
        self.counts: Counter[Reason] = Counter()
        self.dropped: Counter[Stream] = Counter()
        self.appended_anew: Counter[Stream] = Counter()
        self.loss_report: Note | None = None
        self._loss_report_seq = 0
        self.clocks: dict[int, int] = {}
        self._clock_seqs: dict[int, int] = {}
        self._totals_seq = 0
        self._has_retried = False
        # Bytes that may be written until somebody has to look; none before the first look.
        self._room = 0
        self._next_seq = 0
        self._current = False
        # The ids of images, as far as they are read; and until then, what was learned on the way.
        self._images = Digests()
        self._images_passed_over_to = 0
        self._images_learned: list[tuple[int, bytes, str | None]] = []

    def update(self) -> Notes:
        """Read the notes that are new since the last time, at first all. Returns itself."""
        with self._lock:
            self._update()
        return self

    def has_retried(self) -> bool:
        """Whether a note says that records are pending again, read since this was last asked."""
        retried, self._has_retried = self._has_retried, False
        return retried

    def expire(self) -> None:
        """Let the next use begin with an update: another process may have written since."""
        self._current = False

    def _update(self) -> None:
        if self._next_seq:
            for seq, note in self._log.notes(self._next_seq):
                self._fold(seq, note)
        else:
            self._images_passed_over_to = self._log.stats("delivery").last_seq
            for seq, note in self._log.notes(0, _TELLING):
                self._fold(seq, note)
            self._next_seq = max(self._next_seq, self._images_passed_over_to + 1)
        self._current = True

    def source_id(self, digest: bytes) -> str | None:
        """Return the id under which the server has a frame, or None."""
        with self._lock:
            if not self._current:
                self._update()
            if self._images_passed_over_to:
                self._read_images()
            return self._images.get(digest)

    def _read_images(self) -> None:
        """Read the notes that were passed over, in their place among those that were not."""
        last_seq, self._images_passed_over_to = self._images_passed_over_to, 0
        learned, self._images_learned = deque(self._images_learned), []
        for seq, note in self._log.notes(0, (_IMAGE_ONLY,)):
            if seq > last_seq:
                break
            while learned and learned[0][0] < seq:
                self._learn_image(*learned.popleft())
            with suppress(KeyError, TypeError, ValueError):
                self._take_image(seq, note)
        for image in learned:
            self._learn_image(*image)

    def _take_image(self, seq: int, note: Note) -> None:
        digest, source_id = bytes(note["digest"]), note.get("sourceId")
        if digest and note["kind"] == "upload-forgotten":
            self._learn_image(seq, digest, None)
        elif digest and source_id:
            self._learn_image(seq, digest, str(source_id))

    def _learn_image(self, seq: int, digest: bytes, source_id: str | None) -> None:
        if self._images_passed_over_to:
            self._images_learned.append((seq, digest, source_id))
        elif source_id is None:
            self._images.forget(digest)
        else:
            self._images.put(digest, source_id)

    def append(self, note: Note, *, sync: bool = False) -> int:
        """Write a note, and again those that would be overwritten and must not be.

        Args:
            note: With `kind`; see docs/operations.md.
            sync: Return only when it would survive a power cut.

        Returns:
            Its sequence number in delivery.ring.

        Raises:
            EventTooLargeError: The ring takes no note of this size.
            LogError: The log cannot be written.
            OSError: The disk fails.
        """
        with self._lock:
            if not self._current:
                self._update()
            letters = len(self.letters)
            seq = self._write(note, sync)
            if note["kind"] == "upload" and len(self.letters) == letters:
                self._log.mark([seq], _IMAGE_ONLY, stream="delivery")
            self._room -= _size_of(note)
            if self._room < 0:
                self._keep()
            return seq

    def settle(self, event_ids: Mapping[int, str]) -> None:
        """Take events off the list because the server takes them after all.

        They are on it if a crash fell between the note of a refusal and the mark.

        Args:
            event_ids: By sequence number.
        """
        if not self._current:
            self.update()
        settled = []
        for seq, event_id in event_ids.items():
            letter = self.letters.get(("events", seq))
            if letter is not None and letter.id == event_id:
                settled.append(seq)
        if settled:
            self.retried("events", settled, in_place=True)

    def retried(
        self, stream: Stream, seqs: Sequence[int], *, in_place: bool, unlisted: bool = False
    ) -> None:
        """Take dead letters off the list because they are pending again.

        Args:
            stream: Which ring.
            seqs: Their sequence numbers.
            in_place: The records themselves are pending again, so they are not rejected any more;
                else their events were appended anew, and the records stay rejected.
            unlisted: They were in no list, so nobody knows any more why they were refused.
        """
        for start in range(0, len(seqs), SEQS_PER_NOTE):
            chunk = list(seqs[start : start + SEQS_PER_NOTE])
            note: Note = {"kind": "retried", "stream": stream, "seqs": chunk, "in_place": in_place}
            if unlisted:
                note["unlisted"] = True
            self.append(note | {"at": self._log.now().wall_ns})

    def drop(self, stream: Stream, seqs: Sequence[int]) -> None:
        """Take dead letters off the list for good; they stay counted as rejected."""
        for start in range(0, len(seqs), SEQS_PER_NOTE):
            chunk = list(seqs[start : start + SEQS_PER_NOTE])
            note = {"kind": "dropped", "stream": stream, "seqs": chunk}
            self.append(note | {"at": self._log.now().wall_ns})

    def _write(self, note: Note, sync: bool = False) -> int:
        seq = self._log.append_note(note, sync=True) if sync else self._log.append_note(note)
        self._fold(seq, note)
        return seq

    # --- reading ---------------------------------------------------------------------------

    def _fold(self, seq: int, note: Note) -> None:
        self._next_seq = seq + 1
        if note.get("kind") == "retried":
            self._has_retried = True
        # A note that is not as it should be must not keep the others, and the events, back.
        with suppress(KeyError, TypeError, ValueError):
            self._take(seq, note)

    def _take(self, seq: int, note: Note) -> None:
        match note.get("kind"):
            case "rejected":
                key: tuple[Stream, int] = ("events", note["seq"])
                self._take_letter(
                    seq, note, key, str(note["eventId"]), type_of(note.get("payload"))
                )
            case "image-rejected":
                key = ("media", note["media"])
                self._take_letter(seq, note, key, bytes(note["digest"]).hex(), IMAGE)
            case "upload-forgotten":
                self._take_image(seq, note)
            case "upload":
                self._take_image(seq, note)
                # It was refused once, and another event brought it again.
                image = self.letters.get(("media", note["media"]))
                if image is not None and image.id == bytes(note["digest"]).hex():
                    del self.letters["media", note["media"]]
                    self.counts[image.reason] -= 1
            case "orphan":
                self.counts[Reason("media", "orphan", IMAGE)] += len(note["media"])
            case "retried" if note.get("unlisted"):
                stream = note["stream"]
                for _ in note["seqs"]:
                    # Likely the most frequent reason; the sum at least is right.
                    reasons = [reason for reason in self.counts if reason.stream == stream]
                    if reasons:
                        self.counts[max(reasons, key=self.counts.__getitem__)] -= 1
            case "retried":
                for letter in self._strike(note):
                    if note["in_place"]:
                        self.counts[letter.reason] -= 1
                    else:
                        self.appended_anew[letter.reason.stream] += 1
            case "dropped":
                for letter in self._strike(note):
                    self.dropped[letter.reason.stream] += 1
            case "rejected-totals":
                self.counts = Counter({Reason(*key): count for *key, count in note["counts"]})
                self.dropped = Counter(note["dropped"])
                self.appended_anew = Counter(note["appended_anew"])
                self._totals_seq = seq
            case "loss-report" if _is_report(note):
                self.loss_report = note
                self._loss_report_seq = seq
            case "clock":
                self._take_clock(seq, int(note["boot"]), int(note["base_ns"]))

    def _take_clock(self, note_seq: int, boot: int, base_ns: int) -> None:
        self.clocks[boot] = base_ns
        self._clock_seqs[boot] = note_seq
        if len(self.clocks) > CLOCKS_MAX:
            # By what was measured, since the order of the notes changes when they are kept.
            oldest = min(self.clocks, key=self.clocks.__getitem__)
            del self.clocks[oldest], self._clock_seqs[oldest]

    def _take_letter(
        self, note_seq: int, note: Note, key: tuple[Stream, int], id_: str, event_type: str
    ) -> None:
        # Notes of earlier versions have no code: the server's status tells who refused.
        code = note.get("code") or (UNKNOWN if note.get("status") is None else "refused")
        reason = Reason(key[0], str(code), event_type)
        before = self.letters.pop(key, None)
        self.letters[key] = Letter(note_seq, id_, int(note["at"]), _size_of(note), reason)
        if note.get("kept"):
            return  # counted when it was written first
        if before is not None:
            self.counts[before.reason] -= 1
        self.counts[reason] += 1

    def _strike(self, note: Note) -> list[Letter]:
        found = [self.letters.pop((note["stream"], seq), None) for seq in note["seqs"]]
        return [letter for letter in found if letter is not None]

    # --- keeping ---------------------------------------------------------------------------

    def _keep(self) -> None:
        """Write again what the ring is about to come round to.

        The ring reclaims whole segments. What lies in the two oldest ones counts as in danger, so
        that even while this runs into a new segment, the one that goes holds nothing to be kept.
        """
        stats = self._log.stats("delivery")
        self._room = stats.segment_size // 2
        if not (self.letters or self.counts or self.loss_report or self.clocks):
            return
        usable = stats.segment_count * stats.max_payload
        if stats.first_seq == 1 and stats.bytes_used < usable // 3:
            return  # far from full; a third, since the ends of segments may be unused
        edge = self._edge(2 * stats.segment_size)
        self._give_up_excess(usable // 2)
        endangered = {}
        for letter in self.letters.values():
            if letter.note_seq > edge:
                break
            endangered[letter.note_seq] = letter
        # All in memory before the first is written: writing may overwrite the others.
        if endangered:
            kept = []
            for seq, note in self._log.notes():
                if seq > edge:
                    break
                if seq in endangered:
                    kept.append(note)
            for note in kept:
                try:
                    self._write(note | {"kept": True})
                except EventTooLargeError:  # by the word that it has more
                    self._write(note | {"kept": True, "payload": None})
        if self.loss_report is not None and self._loss_report_seq <= edge:
            self._write(self.loss_report)
        for boot, note_seq in list(self._clock_seqs.items()):
            if note_seq <= edge:
                self._write(clock_note(boot, self.clocks[boot]))
        if self._totals_seq <= edge:
            self._write(
                {
                    "kind": "rejected-totals",
                    "at": self._log.now().wall_ns,
                    "counts": [[*reason, count] for reason, count in self.counts.items() if count],
                    "dropped": dict(self.dropped),
                    "appended_anew": dict(self.appended_anew),
                }
            )

    def _edge(self, size: int) -> int:
        """Return the sequence number of the last note in the ring's oldest `size` bytes."""
        edge = 0
        for record in self._log.read("delivery", states=READABLE):
            size -= record.stored_size
            if size < 0:
                break
            edge = record.seq
        return edge

    def _give_up_excess(self, size_max: int) -> None:
        """Keep no more letters than may be kept; the ones that were refused first go."""
        size = sum(letter.size for letter in self.letters.values())
        excess = len(self.letters) - LETTERS_MAX
        if size <= size_max and excess <= 0:
            return
        for key, letter in sorted(self.letters.items(), key=lambda item: item[1].at_ns):
            if size <= size_max and excess <= 0:
                break
            del self.letters[key]
            size -= letter.size
            excess -= 1


def _size_of(note: Note) -> int:
    """At most so much of the ring a note takes: as if nothing could be compressed."""
    return 100 + note_size(note)


def _is_report(note: Note) -> bool:
    """Whether a note of a loss report can be gone on from; no other may fail every flush."""
    figures = note.get("figures")
    wanted = {"eventId": str, "value": str, "metadata": dict} if note["state"] == "begun" else {}
    return (
        note["state"] in ("begun", "done")
        and isinstance(note["at"], int)
        and isinstance(figures, dict)
        and all(isinstance(k, str) and isinstance(v, int) for k, v in figures.items())
        and all(isinstance(note[key], kind) for key, kind in wanted.items())
        and (note["state"] == "done" or {"useCaseId", "deviceId"} <= note.keys())
    )


def clock_note(boot: int, base_ns: int) -> Note:
    """Return the note that says when a boot really began."""
    return {"kind": "clock", "boot": boot, "base_ns": base_ns}


def type_of(payload: bytes | None) -> str:
    """Return the type of an event, which begins its payload (docs/format.md), or `unknown`."""
    payload = bytes(payload or b"")
    head = b"\xa9eventType"
    if payload[1 : 1 + len(head)] != head or len(payload) <= 1 + len(head):
        return UNKNOWN
    # A text of up to 31 bytes: 0xa0 plus its length.
    start = 2 + len(head)
    return payload[start : start + (payload[start - 1] & 0x1F)].decode("utf-8", "replace")
