"""What notes add up to, read from wherever the ring happens to begin."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vevents import EventLog
from vevents.delivery.notes import CLOCKS_MAX, Note, Notes, Reason, clock_note

REFUSED = Reason("events", "refused", "custom")
PAYLOAD = b"\x81\xa9eventType\xa6custom"


class NotesOnly:
    """A log of which nothing is left but notes."""

    def __init__(self, *notes: Note) -> None:
        self.written = list(notes)

    def notes(self, from_seq: int = 0) -> Iterator[tuple[int, Note]]:
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
