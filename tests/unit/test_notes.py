"""What notes add up to, read from wherever the ring happens to begin."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from vevents import EventLog
from vevents.delivery.notes import CLOCKS_MAX, Note, Notes, Reason, clock_note

REFUSED = Reason("events", "refused", "custom")
PAYLOAD = b"\x81\xa9eventType\xa6custom"


class NotesOnly:
    """A log of which nothing is left but notes."""

    def __init__(self, *notes: Note) -> None:
        self.written = list(notes)

    def stats(self, _: str) -> SimpleNamespace:
        return SimpleNamespace(last_seq=len(self.written))

    def notes(self, from_seq: int = 0, _: object = None) -> Iterator[tuple[int, Note]]:
        for seq, note in enumerate(self.written, start=1):
            if seq >= from_seq:
                yield seq, note


def rejected(seq: int, **fields: Any) -> Note:
    note = {"kind": "rejected", "seq": seq, "eventId": f"evt-{seq}", "status": 400, "at": seq}
    return note | {"reason": "no", "code": "refused", "payload": PAYLOAD} | fields


def totals(count: int) -> Note:
    return {
        "kind": "rejected-totals",
        "counts": [[*REFUSED, count]],
        "dropped": {},
        "appended_anew": {},
    }


def read(*notes: Note) -> Notes:
    return Notes(NotesOnly(*notes)).update()  # type: ignore[arg-type]


def test_a_copy_is_listed_and_not_counted_again() -> None:
    notes = read(totals(2), rejected(1, kept=True), rejected(3))

    assert list(notes.letters) == [("events", 1), ("events", 3)]
    assert notes.counts == {REFUSED: 3}


def test_totals_stand_for_all_before_them() -> None:
    assert read(rejected(1), totals(7), rejected(2)).counts == {REFUSED: 8}


def test_of_several_refusals_of_one_record_the_last_one_counts() -> None:
    notes = read(rejected(1), rejected(1, code="too-large"))

    assert +notes.counts == {Reason("events", "too-large", "custom"): 1}
    assert [letter.note_seq for letter in notes.letters.values()] == [2]


def test_what_was_retried_in_place_is_rejected_no_more() -> None:
    retried = {"kind": "retried", "stream": "events", "seqs": [1], "in_place": True}
    notes = read(rejected(1), retried)

    assert not notes.letters
    assert +notes.counts == {}
    anew = read(rejected(1), retried | {"in_place": False})
    assert (anew.counts, anew.appended_anew) == ({REFUSED: 1}, {"events": 1})


def test_codes_and_types_of_notes_that_have_none() -> None:
    assert list(read(rejected(1, code=None)).counts) == [REFUSED]
    assert list(read(rejected(1, code=None, status=None)).counts) == [
        Reason("events", "unknown", "custom")
    ]
    for payload in (None, b"", b"\x80", b"\x81\xa9eventType"):
        assert list(read(rejected(1, payload=payload)).counts) == [
            Reason("events", "refused", "unknown")
        ]


def test_images_and_orphans_are_counted_by_themselves() -> None:
    refused = {"kind": "image-rejected", "media": 4, "digest": b"d", "status": 415, "at": 1}
    notes = read(refused, {"kind": "orphan", "media": [5, 6]})

    assert list(notes.letters) == [("media", 4)]
    assert notes.counts == {
        Reason("media", "refused", "image"): 1,
        Reason("media", "orphan", "image"): 2,
    }


def test_what_others_wrote_is_read_with_the_next_update() -> None:
    log = NotesOnly(rejected(1))
    notes = Notes(log).update()  # type: ignore[arg-type]
    log.written += [rejected(2), {"kind": "dropped", "stream": "events", "seqs": [1]}]

    assert list(notes.letters) == [("events", 1)]
    assert list(notes.update().letters) == [("events", 2)]
    assert notes.dropped == {"events": 1}
    assert notes.counts == {REFUSED: 2}


def go_round(notes: Notes, count: int = 30_000) -> None:
    """Write so many notes that a ring of 1 MiB is overwritten twice."""
    chance = random.Random(5)
    for number in range(count):
        digest = chance.randbytes(16)
        source_id = f"ve-{chance.getrandbits(160):x}"
        notes.append({"kind": "upload", "media": number, "digest": digest, "sourceId": source_id})


def open_log(directory: Path) -> EventLog:
    return EventLog(directory, events_size=1 << 20, media_size=1 << 20, delivery_size=1 << 20)


def test_long_reasons_do_not_push_out_what_is_to_be_kept(tmp_path: Path) -> None:
    chance = random.Random(5)
    with open_log(tmp_path / "log") as log:
        notes = Notes(log)
        notes.append({"kind": "loss-report", "state": "done", "at": 1, "figures": {"x": 1}})
        for number in range(1, 6_001):
            digest = chance.randbytes(16)
            reason = "".join(chr(chance.randrange(0x4E00, 0x9FA5)) for _ in range(300))
            note: Note = {"kind": "image-rejected", "media": number, "digest": digest}
            notes.append(note | {"at": number, "status": 400, "reason": reason})

        found = Notes(log).update()

        assert log.stats("delivery").first_seq > 1
        assert sum(found.counts.values()) == sum(notes.counts.values()) == 6_000
        assert notes.letters.keys() <= found.letters.keys()
        assert found.loss_report == notes.loss_report is not None


def test_clocks_of_boots_outlive_other_notes(tmp_path: Path) -> None:
    with open_log(tmp_path / "log") as log:
        notes = Notes(log)
        for boot in (7, 8):
            notes.append(clock_note(boot, boot * 10**18))
        go_round(notes)

        assert log.stats("delivery").first_seq > 2
        assert Notes(log).update().clocks == {7: 7 * 10**18, 8: 8 * 10**18}


def test_of_the_clocks_the_newest_boots_stay() -> None:
    # The second one was kept: its note is the last.
    order = [1, *range(3, CLOCKS_MAX + 2), 2]
    notes = read(*(clock_note(boot, boot * 10**18) for boot in order))

    assert sorted(notes.clocks) == list(range(2, CLOCKS_MAX + 2))


def test_a_clock_note_that_makes_no_sense_is_left_out() -> None:
    assert read({"kind": "clock", "boot": "x", "base_ns": None}, clock_note(1, 5)).clocks == {1: 5}


def count_reads(log: EventLog) -> list[int]:
    """Note from now on which notes are read."""
    read: list[int] = []
    notes = log.notes

    def counted(*arguments: Any) -> Iterator[tuple[int, Note]]:
        for seq, note in notes(*arguments):
            read.append(seq)
            yield seq, note

    log.notes = counted  # type: ignore[method-assign]
    return read


def test_uploads_are_read_only_when_an_image_is_asked_for_and_each_note_once(
    tmp_path: Path,
) -> None:
    with EventLog(tmp_path, events_size=1 << 20, media_size=1 << 20) as log:
        writer = Notes(log)
        for number in range(50):
            image = {"media": number + 1, "digest": bytes([number]) * 16, "at": 0}
            writer.append({"kind": "upload", "sourceId": f"ve-{number}", **image})
        writer.append(rejected(1))
        forgotten = {"media": 3, "digest": bytes([2]) * 16, "at": 0, "sourceId": "ve-2"}
        writer.append({"kind": "upload-forgotten"} | forgotten)
        writer.append({"kind": "upload"} | forgotten | {"sourceId": "ve-new"})
        writer.append({"kind": "upload-forgotten"} | forgotten | {"digest": bytes([4]) * 16})
        read = count_reads(log)

        notes = Notes(log).update()

        assert read == [51, 52, 54]
        assert notes.counts == {REFUSED: 1}
        ids = [notes.source_id(bytes([number]) * 16) for number in range(51)]
        assert ids[:6] == ["ve-0", "ve-1", "ve-new", "ve-3", None, "ve-5"]
        assert ids[50] is None
        assert sorted(read) == list(range(1, 55))
        assert log.stats("delivery").conserved
        assert log.stats("delivery").pending == 3


def test_an_upload_that_takes_an_image_off_the_list_is_not_passed_over(tmp_path: Path) -> None:
    image = {"media": 1, "digest": b"d" * 16, "at": 0}
    with EventLog(tmp_path, events_size=1 << 20, media_size=1 << 20) as log:
        writer = Notes(log)
        writer.append({"kind": "image-rejected", "status": 400, "reason": "no"} | image)
        writer.append({"kind": "upload", "sourceId": "ve-1"} | image)

        notes = Notes(log).update()

        assert not notes.letters
        assert notes.counts.total() == 0
        assert notes.source_id(b"d" * 16) == "ve-1"


def test_what_another_process_uploaded_is_found_by_the_next_use(tmp_path: Path) -> None:
    with EventLog(tmp_path, events_size=1 << 20, media_size=1 << 20) as log:
        notes = Notes(log)
        assert notes.source_id(b"d" * 16) is None
        image = {"media": 1, "digest": b"d" * 16, "at": 0, "sourceId": "ve-1"}
        Notes(log).append({"kind": "upload"} | image)
        read = count_reads(log)
        assert notes.source_id(b"d" * 16) is None
        assert read == []

        notes.expire()

        assert notes.source_id(b"d" * 16) == "ve-1"
        assert read == [1]
