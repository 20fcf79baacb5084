"""The pause switch in the log's directory."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from vevents import _ffi, files
from vevents.delivery.pause import (
    FILE_NAME,
    NOT_BEFORE_NAME,
    Pause,
    end_hold,
    held_back_s,
    hold_back,
    pause,
    read_pause,
    resume,
)
from vevents.delivery.schedule import Gate
from vevents.delivery.sender import StopReason

BEGIN_S = 1_790_000_000
BOOT, LATER_BOOT = 17, 18


@pytest.fixture(autouse=True)
def clocks() -> Iterator[None]:
    set_clocks(0)
    yield
    _ffi.set_clock(None)


def set_clocks(passed_s: float, *, wall_s: float | None = None, boot: int = BOOT) -> None:
    """So many seconds after the beginning; the wall clock may show something else."""
    wall_s = BEGIN_S + passed_s if wall_s is None else wall_s
    _ffi.set_clock(
        _ffi.now()._replace(
            wall_ns=int(wall_s * 1e9), mono_ns=int((500 + passed_s) * 1e9), boot=boot
        )
    )


def left_s(directory: Path) -> float | None:
    found = read_pause(directory)
    assert found is not None
    return found.left_s


def test_pause_without_an_end(tmp_path: Path) -> None:
    assert read_pause(tmp_path) is None
    pause(tmp_path)
    set_clocks(1e6, boot=LATER_BOOT)

    assert read_pause(tmp_path) == Pause(datetime.fromtimestamp(BEGIN_S, UTC), None, None)
    assert resume(tmp_path) is True
    assert read_pause(tmp_path) is None
    assert resume(tmp_path) is False


def test_pause_ends_by_itself(tmp_path: Path) -> None:
    pause(tmp_path, for_s=60, reason="roaming")

    assert read_pause(tmp_path) == Pause(datetime.fromtimestamp(BEGIN_S, UTC), 60.0, "roaming")
    set_clocks(59)
    assert left_s(tmp_path) == 1.0
    set_clocks(60)
    assert read_pause(tmp_path) is None


def test_clock_that_is_set_changes_nothing_within_a_boot(tmp_path: Path) -> None:
    pause(tmp_path, for_s=60)

    set_clocks(10, wall_s=BEGIN_S + 1e9)
    assert left_s(tmp_path) == 50.0
    set_clocks(61, wall_s=0)
    assert read_pause(tmp_path) is None


def test_wall_clock_decides_after_a_reboot(tmp_path: Path) -> None:
    pause(tmp_path, for_s=7200)

    set_clocks(-400, wall_s=BEGIN_S + 3600, boot=LATER_BOOT)
    assert left_s(tmp_path) == 3600.0
    set_clocks(-400, wall_s=BEGIN_S + 7200, boot=LATER_BOOT)
    assert read_pause(tmp_path) is None


def test_later_pause_replaces_the_earlier_one(tmp_path: Path) -> None:
    pause(tmp_path, reason="first")
    pause(tmp_path, for_s=60, reason="second")

    found = read_pause(tmp_path)
    assert found is not None
    assert (found.left_s, found.reason) == (60.0, "second")


def test_only_the_owner_may_read_it_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        pause(tmp_path, reason="x" * 10_000)
    finally:
        os.umask(mask)

    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]
    assert stat.S_IMODE((tmp_path / FILE_NAME).stat().st_mode) == 0o600
    note = json.loads((tmp_path / FILE_NAME).read_text())
    assert len(note["reason"]) == 500


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
def test_pause_by_root_can_be_read_by_the_service(tmp_path: Path) -> None:
    os.chown(tmp_path, 4242, 4243)
    pause(tmp_path)

    status = (tmp_path / FILE_NAME).stat()
    assert (status.st_uid, status.st_gid) == (4242, 4243)


def test_failure_keeps_the_earlier_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pause(tmp_path, reason="first")

    def fail(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        pause(tmp_path, reason="second")
    monkeypatch.undo()

    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]
    found = read_pause(tmp_path)
    assert found is not None
    assert found.reason == "first"


def test_what_a_power_cut_left_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / f"{FILE_NAME}.new-{os.getpid()}").write_text("x" * 1000)
    pause(tmp_path, reason="again")

    found = read_pause(tmp_path)
    assert found is not None
    assert found.reason == "again"


def huge(until: str) -> bytes:
    """A note of this boot whose end is beyond any date."""
    note = {"since": "2026-01-01T00:00:00+00:00", "until": until, "reason": None}
    return json.dumps(note | {"boot": BOOT, "until_mono_ns": 10**400}).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nonsense",
        b"{}",
        b"[]",
        b'{"since": 7}',
        b"\xff",
        b'{"since": null}',
        b"[" * 100_000,
        huge("2026-01-01T00:00:00+00:00"),
    ],
)
def test_what_cannot_be_understood_is_a_pause(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)

    assert read_pause(tmp_path) == Pause(None, None, None)
    assert resume(tmp_path) is True
    assert read_pause(tmp_path) is None


def test_what_cannot_be_read_is_a_pause(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).mkdir()

    found = read_pause(tmp_path)
    assert found is not None
    assert "cannot be read" in str(found)


def test_pause_in_words(tmp_path: Path) -> None:
    pause(tmp_path)
    assert str(read_pause(tmp_path)) == "delivery is paused"
    pause(tmp_path, for_s=3600, reason="roaming")
    text = str(read_pause(tmp_path))
    assert text.startswith("delivery is paused until ")
    assert text.endswith(" local time: roaming")


def test_the_servers_wish_is_kept_over_processes_and_reboots(tmp_path: Path) -> None:
    assert held_back_s(tmp_path) is None
    hold_back(tmp_path, 600)

    assert stat.S_IMODE((tmp_path / NOT_BEFORE_NAME).stat().st_mode) == 0o600
    closed = Gate(tmp_path).closed()
    assert closed is not None
    assert (closed.reason, closed.retry_after_s) == (StopReason.THROTTLED, 600.0)
    assert Gate(tmp_path, any_time=True).closed() is None
    set_clocks(100, boot=LATER_BOOT)
    assert held_back_s(tmp_path) == 500.0
    # In the same boot the clock that nobody sets counts.
    set_clocks(599, wall_s=BEGIN_S + 1e9)
    assert held_back_s(tmp_path) == 1.0
    set_clocks(600)
    assert Gate(tmp_path).closed() is None


@pytest.mark.parametrize("content", [b"[" * 100_000, huge("2026-01-01T00:00:00+00:00")])
def test_a_wish_that_cannot_be_understood_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / NOT_BEFORE_NAME).write_bytes(content)

    assert held_back_s(tmp_path) is None


def test_a_pause_of_a_million_years_can_be_written_and_read(tmp_path: Path) -> None:
    pause(tmp_path, for_s=1e6 * 365 * 86_400)

    assert "until 21" in str(read_pause(tmp_path))


def test_the_servers_wish_holds_nobody_up_for_good(tmp_path: Path) -> None:
    hold_back(tmp_path, 1e9)
    assert held_back_s(tmp_path) == 86_400.0
    set_clocks(0, wall_s=0, boot=LATER_BOOT)
    assert held_back_s(tmp_path) is None
    for text in ("", "[]", "{}", '{"boot": 17, "until_mono_ns": null}'):
        (tmp_path / NOT_BEFORE_NAME).write_text(text)
        set_clocks(0)
        assert held_back_s(tmp_path) is None
    end_hold(tmp_path)
    assert not (tmp_path / NOT_BEFORE_NAME).exists()
