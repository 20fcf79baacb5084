"""Events on their way from one log to another, on a stick."""

from __future__ import annotations

import errno
import json
import os
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pictures import TURNED_JPEG as JPEG
from test_archive import PAYLOAD, PICTURES, official

from vevents import Event, EventLog, Image, _ffi
from vevents.bundles import Exporter, Importer, unpack
from vevents.bundles.outbox import Outbox, bundle_name
from vevents.delivery.lock import flush_lock
from vevents.errors import ConfigurationError, FlushLockedError

SIZES = {"events_size": 1 << 20, "media_size": 1 << 20, "delivery_size": 1 << 20}


@pytest.fixture
def stick(tmp_path):
    return Outbox(tmp_path / "stick", create=True)


@pytest.fixture
def log(tmp_path):
    with EventLog(tmp_path / "device", **SIZES) as log:
        yield log
        assert_conserved(log)


@pytest.fixture
def office(tmp_path):
    with EventLog(tmp_path / "office", full="refuse", **SIZES) as log:
        yield log
        assert_conserved(log)


def assert_conserved(log):
    assert all(log.stats(stream).conserved for stream in ("events", "media", "delivery"))


def fill(log, count, **fields):
    made = []
    for number in range(count):
        images = [Image(JPEG + number.to_bytes(4), label="x")] if number % 2 == 0 else []
        event = Event.custom(value=f"event {number}", images=images, **fields)
        made.append(log.append(event))
    return made


def texts(log):
    return [log.decode(record).data["value"] for record in log.read()]


def test_events_arrive_with_id_time_and_images_and_the_receipt_settles_them(log, office, stick):
    made = fill(log, 5)

    first = Exporter(log, stick).run()
    assert (first.exported, first.already_there, first.marked) == (5, 0, 0)
    assert log.stats().pending == 5
    assert len(stick.bundles()) == 5

    report = Importer(office, stick).run()
    assert (report.imported, report.refused, report.already) == (5, 0, 0)
    arrived = [office.decode(record) for record in office.read()]
    assert {(e.event_id, e.timestamp) for e in arrived} == {(m.event_id, m.timestamp) for m in made}
    pictures = [office.frame(image.frame) for e in arrived for image in e.images]
    assert pictures == [JPEG + number.to_bytes(4) for number in (0, 2, 4)]
    assert office.durable_seq == 5

    last = Exporter(log, stick).run()
    assert (last.exported, last.received, last.awaiting_receipt) == (0, 5, 0)
    assert (log.stats().pending, log.stats().delivered) == (0, 5)
    assert (log.stats("media").pending, log.stats("media").delivered) == (0, 3)


def test_an_exported_event_is_neither_sent_again_in_silence_nor_lost(log, stick, tmp_path):
    fill(log, 3)
    Exporter(log, stick).run()
    fill(log, 1)

    second = Outbox(tmp_path / "second", create=True)
    report = Exporter(log, second).run()
    assert (report.exported, report.awaiting_receipt, log.stats().pending) == (1, 3, 4)

    # The first stick is lost.
    third = Outbox(tmp_path / "third", create=True)
    report = Exporter(log, third, again=True).run()
    assert (report.exported, report.awaiting_receipt, log.stats().pending) == (4, 0, 4)
    assert {path.name for path in stick.bundles()} < {path.name for path in third.bundles()}


def test_with_other_means_to_know_they_are_delivered_at_once(log, stick):
    fill(log, 3)

    report = Exporter(log, stick, delivered=True).run()

    assert (report.exported, report.marked, log.stats().delivered) == (3, 3, 3)
    assert log.stats("media").delivered == 2
    assert Exporter(log, stick).run().awaiting_receipt == 0


def test_a_receipt_settles_only_the_bundle_that_arrived(log, office, stick, tmp_path):
    """What came later under the same id is another event, and travels on another stick."""
    log.append(Event.custom(value="old", event_id="door-7"))
    Exporter(log, stick).run()
    log.append(Event.custom(value="new", event_id="door-7"))
    second = Outbox(tmp_path / "second", create=True)
    Exporter(log, second).run()
    log.append(Event.custom(value="newest", event_id="door-7"))
    Importer(office, stick).run()
    stick.write_receipt({"event_of_somebody_else.tar.gz": "door-7"}, datetime.now(UTC))

    report = Exporter(log, stick).run()

    assert (report.received, report.awaiting_receipt, report.exported) == (1, 1, 1)
    assert texts(log) == ["new", "newest"]


def test_two_events_of_one_id_and_time_both_travel_and_the_last_one_wins(log, office, stick):
    at = datetime(2026, 10, 1, tzinfo=UTC)
    for value in ("old", "new", "newest"):
        log.append(Event.custom(value=value, event_id="door-7", timestamp=at))

    assert Exporter(log, stick).run().exported == 3
    assert Exporter(log, stick, again=True).run().already_there == 3
    assert len(stick.bundles()) == 3
    Importer(office, stick).run()
    assert texts(office) == ["old", "new", "newest"]
    assert Exporter(log, stick).run().received == 3


def test_damaged_receipts_settle_nothing(log, stick):
    fill(log, 2)
    Exporter(log, stick).run()
    for number, text in enumerate(("", "[1]", '{"bundles": [1]}', "{" * 100_000, "\xff")):
        (stick.directory / f"receipt_{number}.json").write_text(text, encoding="latin-1")

    assert Exporter(log, stick).run().awaiting_receipt == 2
    assert log.stats().pending == 2


def test_importing_twice_appends_once_unless_asked_for_and_then_under_the_same_ids(
    log, office, stick
):
    fill(log, 3)
    Exporter(log, stick).run()

    Importer(office, stick).run()
    report = Importer(office, stick).run()
    assert (report.imported, report.already, office.stats().appended) == (0, 3, 3)

    report = Importer(office, stick, again=True).run()
    assert (report.imported, office.stats().appended) == (3, 6)
    counts = Counter(office.event_id(record) for record in office.read())
    assert set(counts.values()) == {2}
    # Frames are found by their content.
    assert office.stats("media").appended == 2


def test_bundles_of_the_official_block_and_broken_ones_beside_them(office, stick):
    (stick.directory / "event_1_good.tar.gz").write_bytes(official(PAYLOAD, PICTURES))
    (stick.directory / "event_2_plain.tar").write_bytes(
        official(PAYLOAD | {"eventId": "other"}, PICTURES, "w")
    )
    (stick.directory / "event_3_cut.tar.gz").write_bytes(official(PAYLOAD, PICTURES)[:100])
    broken = PAYLOAD | {"eventData": {"result": "perhaps"}}
    (stick.directory / "event_4_bad.tar.gz").write_bytes(official(broken, PICTURES))
    no_image = {"images/a.jpg": b"text", "images/b.jpg": JPEG}
    (stick.directory / "event_5_text.tar.gz").write_bytes(official(PAYLOAD, no_image))
    with (stick.directory / "event_6_large.tar.gz").open("wb") as file:
        file.truncate(25 * 2**20 + 1)
    (stick.directory / ".tmp_event_7.tar.gz").write_bytes(b"")
    (stick.directory / "notes.txt").write_text("mine")

    report = Importer(office, stick).run()

    assert (report.imported, report.refused) == (2, 4)
    reasons = dict(report.reasons)
    assert "cut off" in reasons["event_3_cut.tar.gz"]
    assert reasons["event_4_bad.tar.gz"].startswith("eventData.result: must be one of")
    assert reasons["event_5_text.tar.gz"].startswith("images[0].frame: must be a JPEG")
    assert "more than 26214400 bytes" in reasons["event_6_large.tar.gz"]
    assert {office.event_id(r) for r in office.read()} == {PAYLOAD["eventId"], "other"}
    assert Importer(office, stick).run().refused == 4


def test_a_file_and_a_receipt_that_cannot_be_read_hold_up_no_other(log, office, stick):
    fill(log, 3)
    Exporter(log, stick).run()
    bad = stick.bundles()[1]
    bad.unlink()
    bad.mkdir()  # also for root, who may read what nobody may
    (stick.directory / "receipt_20260101T000000_000000_0.json").mkdir()

    report = Importer(office, stick).run()

    assert (report.imported, report.refused) == (2, 1)
    assert report.reasons == [(bad.name, "bundle: cannot be read: Is a directory")]
    assert Exporter(log, stick).run().received == 2


def test_nothing_pending_goes_for_what_comes_in(tmp_path, stick):
    """A full log stops the import; after a flush it goes on with the rest."""
    with EventLog(tmp_path / "device") as log:
        for number in range(40):
            log.append(Event.custom(value=str(number), images=[Image(JPEG + os.urandom(50_000))]))
        Exporter(log, stick).run()
        assert_conserved(log)
    with EventLog(tmp_path / "office", full="refuse", **SIZES) as office:
        report = Importer(office, stick).run()
        assert report.stopped_reason == "log-full"
        assert 0 < report.imported < 40
        assert office.stats().evicted == office.stats("media").evicted == 0
        seen = set(texts(office))
        for stream in ("events", "media"):
            office.mark([r.seq for r in office.read(stream)], "delivered", stream)

        rounds = 1
        while Importer(office, stick).run().stopped_reason and rounds < 10:
            seen |= set(texts(office))
            for stream in ("events", "media"):
                office.mark([r.seq for r in office.read(stream)], "delivered", stream)
            rounds += 1
        seen |= set(texts(office))
        assert seen == {str(n) for n in range(40)}
        assert_conserved(office)


def test_limits_end_an_export_and_the_next_goes_on(log, stick):
    fill(log, 7)

    report = Exporter(log, stick).run(max_events=3)
    assert (report.exported, report.stopped_reason) == (3, "max-events")
    report = Exporter(log, stick).run(max_bytes=1)
    assert (report.exported, report.awaiting_receipt, report.stopped_reason) == (1, 3, "max-bytes")
    report = Exporter(log, stick).run(max_events=3)
    assert (report.exported, report.stopped_reason) == (3, None)
    assert len(stick.bundles()) == 7


class Cut(BaseException):
    """Ends everything, as a SIGKILL would."""


@pytest.mark.parametrize("at", [1, 2, 99, 100, 101, 150])
def test_an_export_that_is_broken_off_leaves_complete_files_and_is_taken_up(
    log, stick, monkeypatch, at
):
    for number in range(150):
        log.append(Event.custom(value=str(number)))
    replace, calls = Path.rename, []

    def rename(self, target):
        calls.append(1)
        if len(calls) == at:
            raise Cut
        return replace(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(Cut):
        Exporter(log, stick).run()
    monkeypatch.undo()
    assert all(unpack(stick.read(path)) for path in stick.bundles())
    assert len(stick.bundles()) == at - 1
    assert log.stats().pending == 150

    report = Exporter(log, stick).run()
    assert report.exported + report.awaiting_receipt == 150
    values = {unpack(stick.read(path)).data["value"] for path in stick.bundles()}
    assert values == {str(n) for n in range(150)}
    assert not list(stick.directory.glob(".tmp_*"))


def test_what_died_before_its_note_is_found_by_its_file(log, stick, monkeypatch):
    fill(log, 3)
    monkeypatch.setattr(Exporter, "_settle", lambda *_: (_ for _ in ()).throw(Cut))
    with pytest.raises(Cut):
        Exporter(log, stick).run()
    monkeypatch.undo()

    report = Exporter(log, stick).run()

    assert (report.exported, report.already_there, report.bytes) == (3, 3, 0)
    assert Exporter(log, stick).run().awaiting_receipt == 3


def test_a_full_stick_keeps_what_fitted_and_loses_nothing(log, stick, monkeypatch):
    fill(log, 5)
    write, calls = Outbox.write, []

    def limited(self, name, data):
        calls.append(1)
        if len(calls) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, name, data)

    monkeypatch.setattr(Outbox, "write", limited)
    with pytest.raises(OSError, match="No space left"):
        Exporter(log, stick).run()
    monkeypatch.undo()

    assert len(stick.bundles()) == 3
    report = Exporter(log, stick).run()
    assert (report.exported, report.awaiting_receipt, log.stats().pending) == (2, 3, 5)


def test_a_full_stick_is_named(log, stick, monkeypatch):
    """Else nobody can tell whether it is the stick or the device that is full."""
    fill(log, 1)

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as found:
        Exporter(log, stick).run()

    assert Path(found.value.filename).parent == stick.directory
    assert Path(found.value.filename).name.startswith("event_")
    assert list(stick.directory.iterdir()) == []


def test_a_receipt_is_written_after_the_log_is_synced(log, office, stick, monkeypatch):
    fill(log, 2)
    Exporter(log, stick).run()
    order = []
    sync, receipt = EventLog.sync, Outbox.write_receipt
    monkeypatch.setattr(EventLog, "sync", lambda s: (order.append("sync"), sync(s))[1])
    monkeypatch.setattr(
        Outbox, "write_receipt", lambda *args: (order.append("receipt"), receipt(*args))[1]
    )

    Importer(office, stick).run()

    assert order == ["sync", "receipt"]


def test_a_ring_that_began_anew_is_exported_although_its_numbers_were(tmp_path, stick):
    with EventLog(tmp_path / "device", **SIZES) as log:
        fill(log, 2)
        Exporter(log, stick).run()
    (tmp_path / "device" / "events.ring").unlink()
    with EventLog(tmp_path / "device", **SIZES) as log:
        fill(log, 2)
        assert Exporter(log, stick).run().exported == 2
        assert log.stats().conserved


def test_two_exports_and_a_flush_do_not_run_at_once(log, stick):
    with flush_lock(log.directory), pytest.raises(FlushLockedError):
        Exporter(log, stick).run()


def test_times_of_a_device_whose_clock_was_wrong(log, stick, monkeypatch):
    """Corrected as a flush does it; kept back where nobody knows the time yet."""
    monkeypatch.setattr(EventLog, "now", staticmethod(_ffi.now))
    now = EventLog.now()
    hour_ns = 3600 * 10**9
    boot = now.boot ^ 1
    early = now._replace(wall_ns=hour_ns, mono_ns=hour_ns, boot=boot, synced=False)
    try:
        _ffi.set_clock(early)
        log.append(Event.custom(value="early"))
        given = datetime(2026, 10, 1, tzinfo=UTC)
        log.append(Event.custom(value="given", timestamp=given))
        report = Exporter(log, stick).run()
        assert (report.exported, report.clock_not_set) == (1, 1)

        set_at = datetime(2026, 10, 1, 12, tzinfo=UTC)
        set_ns = int(set_at.timestamp()) * 10**9
        _ffi.set_clock(early._replace(wall_ns=set_ns, mono_ns=2 * hour_ns, synced=True))
        report = Exporter(log, stick).run()
        assert (report.exported, report.clock_not_set) == (1, 0)
    finally:
        _ffi.set_clock(None)
    by_value = {e.data["value"]: e for e in (unpack(stick.read(p)) for p in stick.bundles())}
    assert by_value["early"].timestamp == set_at - timedelta(hours=1)
    assert by_value["early"].metadata["vevents_clock_source"] == "measured"
    assert by_value["given"].timestamp == given


def test_a_record_that_holds_no_event_stays_and_stops_nothing(log, stick):
    log.append_encoded(b"\x81\xa1a\x01", 4)
    fill(log, 1)

    report = Exporter(log, stick).run()

    assert (report.exported, report.unreadable, log.stats().pending) == (1, 1, 2)


def test_frames_that_were_evicted_are_said_to_be_missing(log, stick):
    log.append(Event.custom(value="first", images=[Image(JPEG, label="x")]))
    for _ in range(40):
        log.append_frame(JPEG + os.urandom(50_000))

    report = Exporter(log, stick).run()

    assert report.frames_missing == 1
    event = unpack(stick.read(stick.bundles()[0]))
    assert event.metadata["vevents_frames_missing_reason"] == "evicted"


def test_a_use_case_only_when_named(log, stick, tmp_path):
    fill(log, 1)
    Exporter(log, stick).run()
    assert unpack(stick.read(stick.bundles()[0])).use_case_id is None
    other = Outbox(tmp_path / "other", create=True)
    Exporter(log, other, use_case_id="uc-1", again=True).run()
    assert unpack(other.read(other.bundles()[0])).use_case_id == "uc-1"


def test_files_are_for_their_owner_and_names_are_safe(log, stick):
    long_id = "x" * 256
    for event_id in ("../../etc/passwd", long_id, "späte Schicht"):
        log.append(Event.custom(value="x", event_id=event_id))
    Exporter(log, stick).run()

    assert len(stick.bundles()) == len(list(stick.directory.iterdir())) == 3
    for path in stick.bundles():
        assert path.stat().st_mode & 0o777 == 0o600
        assert len(path.name) < 200
    assert {unpack(stick.read(p)).event_id for p in stick.bundles()} == {
        "../../etc/passwd",
        long_id,
        "späte Schicht",
    }
    at = datetime(2026, 8, 21, 14, 0, 0, 123456, UTC)
    assert bundle_name("a-b", at) == "event_20260821T140000_123456_a-b.tar.gz"


def test_a_stick_that_is_not_there_is_said_at_once(tmp_path):
    with pytest.raises(ConfigurationError, match="is it mounted"):
        Outbox(tmp_path / "media" / "stick", create=True)
    with pytest.raises(ConfigurationError, match="is it mounted"):
        Outbox(tmp_path / "stick")


def test_a_stick_that_takes_no_receipt_is_not_begun(office, stick, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)

    with pytest.raises(ConfigurationError, match="takes no receipt"):
        Importer(office, stick).run()


def test_what_a_receipt_says(log, office, stick):
    (made,) = fill(log, 1)
    Exporter(log, stick).run()
    Importer(office, stick).run()

    (path,) = stick.directory.glob("receipt_*.json")
    receipt = json.loads(path.read_text())
    assert receipt["veventsReceiptVersion"] == 1
    assert list(receipt["bundles"].values()) == [made.event_id]
