"""The dead letters: listing, retrying, exporting, dropping; and dying on the way."""

from __future__ import annotations

import base64
import json
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rejected_site import USE_CASE, Site, ids, jpeg, noise

from vevents import Event, EventLog, _ffi
from vevents.delivery import rejected
from vevents.delivery.backlog import Order
from vevents.delivery.lock import flush_lock
from vevents.delivery.notes import Notes, Reason
from vevents.delivery.rejected import DeadLetters, matching, short_id_size, waiting_lock
from vevents.errors import EventTooLargeError, FlushLockedError, LogFullError
from vevents.files import replaced
from vevents.log import Receipt


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "log")
    yield site
    site.assert_conserved()
    site.log.close()


def retry_all(site: Site) -> rejected.Retried:
    dead = DeadLetters(site.log)
    return dead.retry(dead.letters)


# --- listing --------------------------------------------------------------------------------


def test_nothing_refused_nothing_listed(site: Site) -> None:
    site.append("good")
    site.flush()

    assert site.letters() == []


def test_refused_events_are_listed_newest_first(site: Site) -> None:
    receipts = [site.append(f"bad {number}") for number in range(3)]
    site.append("good")
    site.flush()

    assert site.listed() == ids(receipts)[::-1]
    letter = site.letters()[-1]
    assert (letter.stream, letter.seq, letter.type) == ("events", 1, "custom")
    assert (letter.status, letter.place) == (400, "log")
    assert "says bad" in letter.reason
    site.assert_counted()


def test_an_event_that_is_pending_again_is_not_listed(site: Site) -> None:
    # As a crash between the mark and the note of a retry leaves it.
    site.append("bad")
    site.flush()
    site.log.mark([1], "pending")

    assert site.letters() == []

    site.strict = False
    assert site.flush().delivered == 1
    site.overwrite_events()
    assert site.letters() == []
    site.assert_counted()


def test_a_refusal_that_was_noted_and_not_marked_is_counted_once(site: Site) -> None:
    site.append("bad")
    site.flush()
    site.log.mark([1], "pending")
    site.flush()

    assert len(site.letters()) == 1
    kinds = [note["kind"] for _, note in site.log.notes()]
    assert kinds.count("rejected") == 2
    site.assert_counted()


def test_a_ring_that_began_anew_gives_out_the_numbers_again(site: Site) -> None:
    site.refused_images.add(jpeg("a"))
    receipt = site.append("bad", jpeg("a"))
    own_id = site.append("bad", event_id="press 7").event_id
    site.flush()
    site.log.close()
    for stream in ("events", "media"):
        (site.directory / f"{stream}.ring").unlink()
    site.log = EventLog(site.directory, **site.options)
    for _ in range(2):
        site.append("good", jpeg("b"))
    site.flush()

    assert {letter.id: letter.place for letter in site.letters() if letter.stream == "events"} == {
        receipt.event_id: "note",
        own_id: "note",
    }
    assert [letter.place for letter in site.letters() if letter.stream == "media"] == ["gone"]


def test_a_broken_note_keeps_no_other_back(site: Site) -> None:
    for note in (
        {"kind": "rejected"},
        {"kind": "rejected", "seq": 9, "eventId": "evt-9", "at": "noon"},
        {"kind": "retried", "seqs": 3},
        {"kind": "rejected-totals"},
    ):
        site.log.append_note(note)
    receipt = site.append("bad")
    site.flush()

    assert site.listed() == [receipt.event_id]


@pytest.mark.parametrize(
    "payload",
    [b"\xc1", b"\x93\x01", b"\x92\x01\x02", b"\x80\x80", b"\x81\x80\x01", b"\x91" * 3_000],
    ids=["none", "cut off", "no map", "more behind", "a map as key", "deep"],
)
def test_what_is_no_note_at_all_keeps_no_other_back(site: Site, payload: bytes) -> None:
    site.log._handle.append(_ffi.DELIVERY, payload, 0, 0)
    refused, sent = site.append("bad"), site.append("good")

    assert site.flush().delivered == 1

    assert site.listed() == [refused.event_id]
    assert sent.event_id in site.server.events


# --- outliving the uploads ------------------------------------------------------------------


def test_uploads_do_not_push_dead_letters_out(site: Site) -> None:
    receipts = []
    for number in range(200):
        receipts.append(site.append(f"bad {number}"))
        if number % 40 == 39:
            site.flush()
            site.note_uploads(200)
    # More than the whole ring.
    for _ in range(18):
        site.note_uploads(500)
        site.assert_counted()

    assert site.log.stats("delivery").first_seq > 2_000
    assert site.listed() == ids(receipts)[::-1]
    assert Notes(site.log).update().counts == {Reason("events", "refused", "custom"): 200}


def test_uploads_in_a_flush_do_not_push_dead_letters_out(site: Site) -> None:
    receipt = site.append("bad")
    site.flush()
    site.note_uploads(7_000)
    for number in range(300):
        site.append("good", jpeg(f"frame {number}"))
    site.note_uploads(1_000)
    site.flush()

    assert site.listed() == [receipt.event_id]


def test_a_note_as_large_as_the_ring_takes_is_kept_without_its_event(site: Site) -> None:
    receipt = site.append("bad")
    site.flush()
    note = site.rejection()
    size = site.log.stats("delivery").max_payload - 300
    while True:
        try:
            site.log.append_note(note | {"payload": bytes(size)})
        except EventTooLargeError:
            break
        size += 1
    site.note_uploads(9_000)

    assert site.listed() == [receipt.event_id]
    assert next(iter(DeadLetters(site.log).letters)).place == "log"
    site.overwrite_events()
    assert site.letters()[0].place == "gone"


def test_totals_outlive_the_list(site: Site) -> None:
    for number in range(30):
        site.append(f"bad {number}")
    site.flush()
    dead = DeadLetters(site.log)
    dead.drop(dead.letters)
    site.note_uploads(30_000)

    assert site.letters() == []
    unlisted = DeadLetters(site.log).unlisted()
    assert (unlisted.dropped, unlisted.overwritten) == (30, 0)
    site.assert_counted()


def test_more_dead_letters_than_half_the_ring(site: Site) -> None:
    # About 3 kB each that do not compress; 400 of them are more than the ring holds.
    for number in range(400):
        site.append(f"bad {noise(number, 5_000)}")
        if number % 50 == 49:
            site.flush()
    site.note_uploads(9_000)

    letters = site.letters()
    assert 50 <= len(letters) < 120
    # The newest stay, without a gap.
    assert [letter.seq for letter in letters] == list(range(400, 400 - len(letters), -1))
    assert DeadLetters(site.log).unlisted().overwritten == 400 - len(letters)
    site.assert_counted()


def test_at_most_so_many_are_kept(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vevents.delivery.notes.LETTERS_MAX", 10)
    receipts = [site.append(f"bad {number}") for number in range(30)]
    site.flush()
    site.note_uploads(20_000)

    assert site.listed() == ids(receipts)[:-11:-1]
    site.assert_counted()


# --- retrying -------------------------------------------------------------------------------


def test_retry_in_place(site: Site) -> None:
    receipt = site.append("bad", jpeg("a"))
    site.flush()
    site.strict = False

    done = retry_all(site)

    assert (done.in_place, done.appended, done.failed) == (1, 0, [])
    assert site.letters() == []
    assert site.log.stats().pending == 1
    assert site.flush().delivered == 1
    stored = site.server.events[receipt.event_id]
    assert stored["timestamp"] == receipt.timestamp.isoformat(timespec="microseconds")
    assert site.log.stats().rejected == 0
    site.assert_counted()


@pytest.mark.parametrize("order", ["newest", "priority"])
def test_what_is_retried_goes_with_the_next_pass_in_any_order(site: Site, order: Order) -> None:
    # Refused before this flusher was there: it never saw its id, nor any event of its type.
    site.append("bad")
    site.flush()
    with site.flusher(order=order) as flusher:
        site.log.append(Event.quality_check(result="pass", use_case_id=USE_CASE))
        assert flusher.flush().delivered == 1
        assert retry_all(site).in_place == 1
        site.strict = False

        report = flusher.flush()

    assert (report.delivered, report.pending_after) == (1, 0)


def test_retry_of_what_is_refused_again_is_listed_once(site: Site) -> None:
    receipt = site.append("bad")
    site.flush()
    for _ in range(3):
        retry_all(site)
        site.flush()

    assert site.listed() == [receipt.event_id]
    site.assert_counted()


def test_retry_of_an_overwritten_event_appends_it_anew(site: Site) -> None:
    own_id = site.append("bad", event_id="press 7, part 12").event_id
    receipt = site.append("bad", metadata={"temperature": 21.5})
    site.flush()
    site.overwrite_events()
    assert {letter.place for letter in site.letters()} == {"note"}
    site.strict = False

    done = retry_all(site)

    assert (done.in_place, done.appended, done.failed) == (0, 2, [])
    assert site.letters() == []
    assert DeadLetters(site.log).unlisted().appended_anew == 2
    assert site.flush().delivered == 2
    stored = site.server.events[receipt.event_id]
    assert stored["timestamp"] == receipt.timestamp.isoformat(timespec="microseconds")
    assert stored["customMetadata"] == {"temperature": 21.5}
    assert own_id in site.server.events
    assert site.log.stats().rejected == 2
    site.assert_counted()


def test_retry_of_many_reads_each_note_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(400):
        site.append(f"bad {number}")
    site.flush()
    site.overwrite_events()
    dead = DeadLetters(site.log)
    read = []
    notes = EventLog.notes

    def counted(log: EventLog, *arguments: Any) -> Iterator[tuple[int, dict[str, Any]]]:
        for found in notes(log, *arguments):
            read.append(found)
            yield found

    monkeypatch.setattr(EventLog, "notes", counted)

    assert dead.retry(dead.letters).appended == 400
    # By the hundred, and not each hundred from the first note on.
    assert len(read) == 400


def test_retry_of_an_overwritten_event_that_is_refused_again(site: Site) -> None:
    receipt = site.append("bad")
    site.flush()
    site.overwrite_events()
    retry_all(site)
    site.flush()

    assert site.listed() == [receipt.event_id]
    assert site.letters()[0].place == "log"
    site.assert_counted()


def test_retry_takes_the_frames_along(site: Site) -> None:
    # Too old for the server: its frame is given up with it.
    old = datetime(2020, 1, 1, tzinfo=UTC)
    site.append("late", jpeg("a"), timestamp=old)
    site.flush()
    assert site.log.stats("media").rejected == 1

    assert retry_all(site).in_place == 1

    assert site.log.stats("media").rejected == 0
    assert site.log.stats("media").pending == 1


def test_retry_of_what_is_gone(site: Site) -> None:
    receipt = site.append("bad")
    site.flush()
    note = site.rejection()
    Notes(site.log).append(note | {"payload": None})
    assert site.letter(receipt.event_id).place == "log"
    site.overwrite_events()
    assert site.letter(receipt.event_id).place == "gone"

    done = retry_all(site)

    assert (done.in_place, done.appended) == (0, 0)
    assert [letter.id for letter, _ in done.failed] == [receipt.event_id]
    assert site.listed() == [receipt.event_id]


def test_retry_of_an_overwritten_event_that_cannot_be_read(site: Site) -> None:
    site.log.append_encoded(b"\x81\xa9eventType\xa7unheard", 4)
    site.flush()
    site.overwrite_events()

    done = retry_all(site)

    assert done.appended == 0
    assert "cannot be read" in done.failed[0][1]
    assert len(site.letters()) == 1


def test_an_unreadable_event_in_the_log_can_be_retried(site: Site) -> None:
    # By a newer version, which may know what it is.
    site.log.append_encoded(b"\x81\xa9eventType\xa7unheard", 4)
    site.flush()
    assert site.letters()[0].type == "unheard"

    assert retry_all(site).in_place == 1
    assert site.log.stats().pending == 1


# --- images ---------------------------------------------------------------------------------


def test_a_refused_image_is_listed_and_goes_with_its_event(site: Site) -> None:
    image = jpeg("a")
    site.refused_images.add(image)
    receipt = site.append("good", image)
    site.append("good")
    assert site.flush().images_rejected == 1
    [letter] = site.letters()
    assert (letter.stream, letter.type, letter.status, letter.place) == (
        "media",
        "image",
        415,
        "log",
    )
    assert "vevents_frames_missing" in site.server.events[receipt.event_id]["customMetadata"]
    site.refused_images.clear()

    done = retry_all(site)

    assert (done.in_place, done.failed) == (1, [])
    assert (site.log.stats().pending, site.log.stats("media").pending) == (1, 1)
    assert site.letters() == []
    site.flush()
    assert "sourceId" in site.server.events[receipt.event_id]["images"][0]
    assert "customMetadata" not in site.server.events[receipt.event_id]
    assert site.log.stats("media").rejected == 0
    assert Notes(site.log).update().counts.total() == 0


def test_an_image_that_another_event_brought_after_all(site: Site) -> None:
    image = jpeg("a")
    site.refused_images.add(image)
    site.append("good", image)
    site.flush()
    site.refused_images.clear()
    site.append("good", image)
    site.flush()

    assert site.letters() == []
    site.overwrite_media()
    assert site.letters() == []


def test_an_event_and_its_image_retried_together(site: Site) -> None:
    image = jpeg("a")
    site.refused_images.add(image)
    site.append("bad", image)
    site.flush()
    assert len(site.letters()) == 2

    done = retry_all(site)

    assert (done.in_place, done.failed) == (2, [])
    assert site.letters() == []
    assert Notes(site.log).update().counts.total() == 0


def test_an_image_without_an_event_to_go_with(site: Site) -> None:
    image = jpeg("a")
    site.refused_images.add(image)
    site.append("good", image)
    site.flush()
    site.overwrite_events()

    done = retry_all(site)

    assert done.in_place == 0
    assert "no event" in done.failed[0][1]
    assert len(site.letters()) == 1


# --- dropping -------------------------------------------------------------------------------


def values(site: Site, event_id: str) -> str:
    value: str = site.server.events[event_id]["eventData"]["value"]
    return value


def test_retry_does_not_overwrite_what_came_later_under_the_same_id(site: Site) -> None:
    site.append("bad v1", event_id="evt-1")
    site.flush()
    site.append("v2, corrected", event_id="evt-1")
    site.flush()
    site.strict = False

    done = retry_all(site)

    assert done.in_place == done.appended == 0
    assert [(letter.id, why[:28]) for letter, why in done.failed] == [
        ("evt-1", "a later event of this id was")
    ]
    site.flush()
    assert values(site, "evt-1") == "v2, corrected"
    assert site.listed() == ["evt-1"]
    site.assert_counted()


def test_retry_keeps_the_order_of_events_that_share_an_id(site: Site) -> None:
    site.append("bad v1", event_id="evt-1")
    site.flush()
    site.overwrite_events()
    site.append("bad v2", event_id="evt-1")
    site.flush()
    assert sorted(letter.place for letter in site.letters()) == ["log", "note"]
    site.strict = False

    done = retry_all(site)

    assert (done.in_place, done.appended, len(done.failed)) == (1, 0, 1)
    site.flush()
    assert values(site, "evt-1") == "bad v2"


def test_retry_of_an_image_does_not_send_an_event_that_was_replaced(site: Site) -> None:
    image = jpeg("a")
    site.refused_images.add(image)
    site.append("v1", image, event_id="evt-1")
    site.flush()
    site.append("v2", event_id="evt-1")
    site.flush()
    site.refused_images.clear()

    done = retry_all(site)

    assert done.in_place == 0
    assert "later event" in done.failed[0][1]
    assert site.log.stats().pending == 0


def test_retry_into_a_full_log_says_what_was_retried_and_what_not(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    receipts = [site.append(f"bad {number}") for number in range(9)]
    site.flush()
    site.overwrite_events()
    assert {letter.place for letter in site.letters()} == {"note"}
    append, room = site.log.append, list(range(4))

    def append_while_there_is_room(event: Event) -> Receipt:
        if not room:
            raise LogFullError("no room")
        room.pop()
        return append(event)

    with monkeypatch.context() as patched:
        patched.setattr(site.log, "append", append_while_there_is_room)
        done = retry_all(site)

    assert done.appended == 4
    # The oldest went first, and those that did not are listed still.
    assert [letter.id for letter, _ in done.failed] == ids(receipts)[4:]
    assert all("full" in why for _, why in done.failed)
    assert site.listed() == ids(receipts)[:3:-1]
    assert retry_all(site).appended == 5
    site.strict = False
    assert site.flush().delivered == 9
    site.assert_counted()


def test_what_is_refused_and_in_no_list_can_be_retried(site: Site) -> None:
    receipts = [site.append(f"bad {number}") for number in range(30)]
    site.flush()
    dead = DeadLetters(site.log)
    dead.drop([letter for letter in dead.letters if letter.seq == 30])
    # As if the notes of 20 had been overwritten.
    notes = Notes(site.log).update()
    for seq in range(1, 21):
        del notes.letters["events", seq]
    dead = DeadLetters(site.log)
    dead._notes = notes
    dead.letters = [letter for letter in dead.letters if letter.seq > 20]

    found = dead.without_note()

    assert [letter.id for letter in found] == ids(receipts)[19::-1]
    assert {(x.code, x.type, x.status, x.place) for x in found} == {
        ("unknown", "custom", None, "log")
    }
    assert dead.event(found[0]).data["value"] == "bad 19"
    assert dead.retry(found).in_place == 20
    site.assert_counted()
    site.strict = False
    assert site.flush().delivered == 20


def test_drop_strikes_off_the_list_and_keeps_the_count(site: Site) -> None:
    receipts = [site.append(f"bad {number}") for number in range(250)]
    site.flush()
    dead = DeadLetters(site.log)

    assert dead.drop(dead.letters[:240]) == 240

    assert site.listed() == ids(receipts[:10])[::-1]
    assert site.log.stats().rejected == 250
    assert DeadLetters(site.log).unlisted().dropped == 240
    site.assert_counted()


# --- dying ----------------------------------------------------------------------------------


class DiedError(BaseException):
    pass


class DyingLog:
    """Passes on to a log until it dies at one of the calls that change it."""

    CHANGING = ("append", "append_note", "mark", "sync")

    def __init__(self, log: EventLog, die_at: int) -> None:
        self._log = log
        self._left = die_at

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._log, name)
        if name not in self.CHANGING:
            return call

        def counted(*args: Any, **kwargs: Any) -> Any:
            self._left -= 1
            if self._left == 0:
                raise DiedError(name)
            return call(*args, **kwargs)

        return counted


@pytest.mark.parametrize("die_at", range(1, 9))
def test_dying_in_a_retry_leaves_every_event_listed_or_pending(site: Site, die_at: int) -> None:
    site.refused_images.add(jpeg("b"))
    overwritten = [site.append(f"bad {number}") for number in range(2)]
    site.flush()
    site.overwrite_events()
    here = [site.append("bad", jpeg("a")), site.append("bad", jpeg("b"))]
    site.flush()
    before = {(letter.stream, letter.id) for letter in site.letters()}
    dead = DeadLetters(DyingLog(site.log, die_at))  # type: ignore[arg-type]

    try:
        dead.retry(dead.letters)
    except DiedError:
        died = True
    else:
        died = False

    site.reopen()
    listed = [letter.id for letter in site.letters() if letter.stream == "events"]
    pending = {site.log.decode(record).event_id for record in site.log.read()}
    every = set(ids(overwritten)) | set(ids(here))
    assert set(listed) | pending == every
    assert len(listed) == len(set(listed))
    site.assert_conserved()

    # Once more, and now to the end: everything arrives, and nothing is listed any more.
    site.strict = False
    site.refused_images.clear()
    retry_all(site)
    assert site.flush().stopped_reason is None
    assert every <= site.server.events.keys()
    assert site.letters() == []
    assert before
    assert died or die_at > 4


# --- exporting ------------------------------------------------------------------------------


def export(site: Site, directory: Path, **options: Any) -> rejected.Exported:
    dead = DeadLetters(site.log)
    return dead.write_directory(dead.letters, directory, **options)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_export_into_a_directory_can_be_appended_elsewhere(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = jpeg("a")
    first = site.append("bad ü", image, metadata={"line": 3})
    second = site.append("bad")
    site.flush()
    target = tmp_path / "usb" / "refused"

    done = export(site, target)

    assert (done.events, done.frames, done.frames_missing, done.unreadable) == (2, 1, 0, 0)
    events = lines(target / "events.jsonl")
    assert [event["eventId"] for event in events] == [first.event_id, second.event_id]
    assert (target / events[0]["images"][0]["frame"]).read_bytes() == image
    assert [line["reason"] for line in lines(target / "reasons.jsonl")] == [
        letter.reason for letter in site.letters()[::-1]
    ]
    assert stat.S_IMODE(target.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in target.glob("*.jsonl")} == {0o600}
    assert sorted(path.name for path in target.iterdir()) == [
        "events.jsonl",
        "frames",
        "reasons.jsonl",
    ]
    monkeypatch.chdir(target)
    again = Event.from_json(events[0])
    assert again.event_id == first.event_id
    assert Path(str(again.images[0].frame)).read_bytes() == image
    assert again.metadata == {"line": 3}
    assert len(site.letters()) == 2


def test_export_refuses_to_overwrite(site: Site, tmp_path: Path) -> None:
    site.append("bad")
    site.flush()
    export(site, tmp_path / "out")
    before = (tmp_path / "out" / "events.jsonl").read_bytes()
    site.append("bad 2")
    site.flush()

    with pytest.raises(FileExistsError, match=r"events\.jsonl"):
        export(site, tmp_path / "out")
    assert (tmp_path / "out" / "events.jsonl").read_bytes() == before

    export(site, tmp_path / "out", overwrite=True)
    assert len(lines(tmp_path / "out" / "events.jsonl")) == 2


def test_export_names_what_is_missing(site: Site, tmp_path: Path) -> None:
    site.append("bad", jpeg("a"))
    site.flush()
    site.overwrite_media()

    done = export(site, tmp_path / "out")

    assert (done.events, done.frames, done.frames_missing) == (1, 0, 1)
    [event] = lines(tmp_path / "out" / "events.jsonl")
    assert "images" not in event
    assert event["customMetadata"] == {
        "vevents_frames_missing": 1,
        "vevents_frames_missing_reason": "evicted",
    }


def test_export_keeps_what_cannot_be_read(site: Site, tmp_path: Path) -> None:
    payload = b"\x81\xa9eventType\xa7unheard"
    site.log.append_encoded(payload, 4)
    site.flush()

    done = export(site, tmp_path / "out")

    assert (done.events, done.unreadable) == (0, 1)
    [line] = lines(tmp_path / "out" / "reasons.jsonl")
    assert base64.b64decode(line["payload"]) == payload


def test_export_of_a_refused_image(site: Site, tmp_path: Path) -> None:
    image = jpeg("a")
    site.refused_images.add(image)
    site.append("good", image)
    site.flush()

    export(site, tmp_path / "out")

    [line] = lines(tmp_path / "out" / "reasons.jsonl")
    assert line["status"] == 415
    assert (tmp_path / "out" / line["frame"]).read_bytes() == image
    assert lines(tmp_path / "out" / "events.jsonl") == []


def test_lines_name_the_uploaded_images(site: Site, tmp_path: Path) -> None:
    site.append("bad", jpeg("a"))
    site.append("late", jpeg("b"), timestamp=datetime(2020, 1, 1, tzinfo=UTC), use_case_id=None)
    site.flush(use_case_id=USE_CASE)
    dead = DeadLetters(site.log)

    with (tmp_path / "out").open("w", encoding="utf-8") as file:
        done = dead.write_lines(dead.letters, file, use_case_id="uc-new")

    # What is too old is refused before anything is sent.
    second, first = lines(tmp_path / "out")
    assert first["images"] == [{"sourceId": "ve-img-1"}]
    assert first["useCaseId"] == USE_CASE
    assert second["customMetadata"]["vevents_frames_missing_reason"] == "not exported"
    assert second["useCaseId"] == "uc-new"
    assert (done.events, done.frames_missing) == (2, 1)


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("before")

    with pytest.raises(KeyboardInterrupt), replaced(path) as file:
        file.write("half")
        raise KeyboardInterrupt

    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


# --- looking closer -------------------------------------------------------------------------


def test_what_became_of_the_images(site: Site) -> None:
    site.append("bad", jpeg("a"))
    site.flush()
    dead = DeadLetters(site.log)

    [image] = dead.images(dead.letters[0])
    assert image["state"] == "delivered"
    assert image["sourceId"] == "ve-img-1"
    assert image["size"] == 200

    site.overwrite_media()
    [image] = dead.images(dead.letters[0])
    assert image["state"] == "overwritten"
    assert "size" not in image


def test_ids_are_found_by_their_beginning(site: Site) -> None:
    for event_id in ("aaaabbbb-1", "aaaabbbb-2", "AAAA"):
        site.append("bad", event_id=event_id)
    site.flush()
    letters = site.letters()

    assert [letter.id for letter in matching(letters, "aaaabbbb-1")] == ["aaaabbbb-1"]
    assert len(matching(letters, "aaaa")) == 3
    assert short_id_size(letters) == 10
    assert short_id_size(letters[:1]) == 8


# --- the lock -------------------------------------------------------------------------------


def test_waits_for_a_running_flush(site: Site) -> None:
    now = [0.0]
    held = flush_lock(site.directory)
    held.__enter__()

    def sleep(seconds: float) -> None:
        now[0] += seconds
        if now[0] > 3:
            held.__exit__(None, None, None)

    with waiting_lock(site.directory, 10.0, monotonic=lambda: now[0], sleep=sleep):
        assert 3 < now[0] < 4
        with pytest.raises(FlushLockedError), flush_lock(site.directory):
            pass


def test_does_not_wait_for_ever(site: Site) -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    with (
        flush_lock(site.directory),
        pytest.raises(FlushLockedError),
        waiting_lock(site.directory, 10.0, monotonic=lambda: now[0], sleep=sleep),
    ):
        pass
    assert 10 <= now[0] < 11
