"""Times of boots that did not know the time, and what the repair makes of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from vevents import Event, EventLog, _ffi
from vevents._ffi import Moment
from vevents.delivery.clock import ClockRepair
from vevents.delivery.notes import Notes

S = 10**9


@pytest.fixture(autouse=True)
def the_kernels_clock_is_synchronised():
    """Not here: what the clock says of itself is what these tests are about."""


TRUE_NS = int(datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()) * S


@pytest.fixture
def device(tmp_path):
    made = Device(tmp_path / "log")
    yield made
    made.close()


class Device:
    """A log on a device with a true time, a wall clock that may be wrong, and boots."""

    def __init__(self, directory):
        self.directory = directory
        self.true_ns = TRUE_NS
        self.boot, self.booted_ns, self.error_ns, self.synced = 1, TRUE_NS, 0, True
        self.log = None
        self.truth = {}
        self.reboot(error_s=0, down_s=0)

    def reboot(self, *, error_s, down_s=10, synced=False):
        self.close()
        self.true_ns += down_s * S
        self.boot += 1
        self.booted_ns, self.error_ns, self.synced = self.true_ns, error_s * S, synced
        self._stamp()
        self.log = EventLog(self.directory, events_size=1 << 20, media_size=1 << 20)

    def close(self):
        if self.log is not None:
            self.log.close()
        _ffi.set_clock(None)

    def run(self, seconds):
        self.true_ns += seconds * S
        self._stamp()

    def set_clock(self, *, error_s=0, synced=True):
        self.error_ns, self.synced = error_s * S, synced
        self._stamp()

    def _stamp(self):
        wall_ns = self.true_ns + self.error_ns
        _ffi.set_clock(Moment(wall_ns, self.true_ns - self.booted_ns, self.boot, self.synced))

    def append(self, **fields):
        seq = self.log.append(Event.custom(value="v", **fields)).seq
        self.truth[seq] = self.true_ns
        return seq

    def repair(self, *, server=True):
        """Return the corrections by sequence number, as a pass would make them."""
        repair = ClockRepair(self.log, Notes(self.log))
        repair.begin()
        if repair.needs_server:
            repair.ask_server(-self.error_ns / S if server else None)
        corrections = {record.seq: repair.correct(record) for record in self.log.read()}
        return {seq: found for seq, found in corrections.items() if found is not None}

    def errors_s(self, corrections):
        return {seq: (found.wall_ns - self.truth[seq]) / S for seq, found in corrections.items()}


def test_times_of_a_good_clock_stay(device):
    for _ in range(3):
        device.append()
        device.run(3600)

    assert device.repair() == {}


def test_events_before_the_clock_was_set_get_their_time_when_it_is(device):
    device.reboot(error_s=-40 * 365 * 86_400)
    early = [device.append(), device.run(500), device.append()]
    device.set_clock(error_s=0)
    device.run(60)
    device.append()

    found = device.repair()

    assert device.errors_s(found) == {early[0]: 0.0, early[2]: 0.0}
    assert {each.source for each in found.values()} == {"measured"}


@pytest.mark.parametrize("error_s", [-86_400, 3_600, -50 * 365 * 86_400])
def test_without_a_synchronised_clock_the_server_tells_the_time(device, error_s):
    device.reboot(error_s=error_s)
    seq = device.append()
    device.run(100)

    assert device.errors_s(device.repair()) == {seq: 0.0}


def test_when_nobody_knows_the_time_nothing_is_made_up(device):
    device.reboot(error_s=-86_400)
    device.append()

    assert device.repair(server=False) == {}


def test_seconds_are_not_corrected_and_the_servers_minute_is_not_believed(device):
    device.reboot(error_s=30)
    device.append()
    device.set_clock(error_s=29, synced=False)

    assert device.repair() == {}


def test_a_boot_that_was_measured_is_known_after_the_next(device):
    device.reboot(error_s=-1_000_000)
    seq = device.append()
    device.repair()  # a pass in that boot, which notes its base
    device.run(10)
    later = device.append()
    device.reboot(error_s=0, down_s=5000, synced=True)
    device.append()

    found = device.repair()

    assert device.errors_s(found) == {seq: 0.0, later: 0.0}
    assert {each.source for each in found.values()} == {"measured"}


def test_a_boot_nobody_measured_is_read_from_its_last_record(device):
    device.reboot(error_s=-56 * 365 * 86_400)
    early = device.append()
    device.run(100)
    device.set_clock(error_s=0)
    device.append()
    device.reboot(error_s=0, down_s=5000, synced=True)

    found = device.repair()

    assert device.errors_s(found) == {early: 0.0}
    assert found[early].source == "recorded"


def test_boots_that_never_knew_the_time_end_when_the_next_begins(device):
    sequences = []
    for _ in range(3):
        device.reboot(error_s=-56 * 365 * 86_400, down_s=30)
        sequences.append(device.append())
        device.run(1000)
        sequences.append(device.append())
    device.reboot(error_s=0, down_s=30, synced=True)
    device.append()

    found = device.repair()

    assert sorted(found) == sequences
    assert {each.source for each in found.values()} == {"estimated"}
    # Each boot is off by the time that the device was down after it, and those add up.
    assert list(device.errors_s(found).values()) == [90.0, 90.0, 60.0, 60.0, 30.0, 30.0]


def test_a_boot_without_the_time_leans_on_the_present_one_though_it_has_no_record(device):
    device.reboot(error_s=-56 * 365 * 86_400)
    seq = device.append()
    device.reboot(error_s=-5_000_000, down_s=30)

    assert device.repair(server=False) == {}
    assert device.errors_s(device.repair()) == {seq: 30.0}


def test_a_time_that_the_caller_gave_is_not_touched(device):
    device.reboot(error_s=-1_000_000)
    device.append(timestamp=datetime(2026, 2, 1, tzinfo=UTC))
    seq = device.append()
    device.append(timestamp=datetime(2026, 2, 1, tzinfo=UTC))

    assert list(device.repair()) == [seq]


def test_the_base_of_a_boot_is_noted_once_and_again_when_it_changes(device):
    device.reboot(error_s=-1000)
    for _ in range(3):
        device.repair()
    device.set_clock(error_s=0)
    device.repair()
    device.set_clock(error_s=500, synced=True)
    device.repair()

    notes = [note for _, note in device.log.notes() if note["kind"] == "clock"]
    assert len(notes) == 2
    assert notes[0]["boot"] == notes[1]["boot"] == device.boot
    assert notes[1]["base_ns"] - notes[0]["base_ns"] == 500 * S


def test_a_correction_is_said_in_the_event(device):
    device.reboot(error_s=-3600)
    seq = device.append(metadata={"line": 3})
    (record,) = device.log.read(from_seq=seq)

    event = device.repair()[seq].apply(device.log.decode(record))

    assert event.timestamp == datetime(2026, 3, 1, 12, tzinfo=UTC) + timedelta(seconds=10)
    assert event.metadata == {
        "line": 3,
        "vevents_clock_behind_s": 3600.0,
        "vevents_clock_source": "measured",
    }
    event.validate()


def test_an_event_with_all_the_metadata_it_may_have_is_corrected_in_silence(device):
    device.reboot(error_s=-3600)
    full = {f"key {i}": i for i in range(100)}
    seq = device.append(metadata=full)
    (record,) = device.log.read(from_seq=seq)

    event = device.repair()[seq].apply(device.log.decode(record))

    assert event.metadata == full
    event.validate()
