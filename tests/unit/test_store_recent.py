"""What the event store remembers of the events it took."""

from __future__ import annotations

import logging
import stat
import threading
from pathlib import Path

import pytest
from cli_site import small_log

from vevents.event import Event
from vevents.log import EventLog
from vevents.store.recent import RecentEvents, load_salt, read_back


def test_the_first_is_new_and_the_second_is_not() -> None:
    recent = RecentEvents()

    with recent.claim("a") as new:
        assert new
    with recent.claim("a") as new:
        assert not new
    with recent.claim("b") as new:
        assert new


def test_what_failed_is_not_remembered() -> None:
    recent = RecentEvents()

    with pytest.raises(OSError, match="disk"), recent.claim("a"):
        raise OSError("disk")

    with recent.claim("a") as new:
        assert new


def test_memory_is_bounded_and_the_oldest_is_forgotten() -> None:
    recent = RecentEvents(["a", "b"], count_max=2)

    with recent.claim("c") as new:
        assert new
    with recent.claim("b") as new:
        assert not new
    with recent.claim("a") as new:
        assert new


@pytest.mark.parametrize("fails", [False, True])
def test_a_repeat_waits_for_the_first_to_end(fails: bool) -> None:
    recent = RecentEvents()
    claimed, finish = threading.Event(), threading.Event()
    seen: list[bool] = []

    def first() -> None:
        try:
            with recent.claim("a"):
                claimed.set()
                finish.wait(10)
                if fails:
                    raise OSError("disk")
        except OSError:
            pass

    def second() -> None:
        with recent.claim("a") as new:
            seen.append(new)

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    assert claimed.wait(10)
    threads[1].start()
    threads[1].join(0.05)
    assert not seen
    finish.set()
    for thread in threads:
        thread.join(10)

    assert seen == [fails]


def test_the_newest_ids_are_read_back(tmp_path: Path) -> None:
    with EventLog(small_log(tmp_path / "log", 5)) as log:
        ids = [record.event_id for record in log.read()]
        log.ack([4])

        assert list(read_back(log)) == ids
        assert list(read_back(log, 2)) == ids[-2:]
        log.append(Event.custom(value="x", event_id="7" * 8 + "-7777-4777-8777-" + "7" * 12))
        assert list(read_back(log, 1)) == ["77777777-7777-4777-8777-777777777777"]


def test_an_empty_log_has_nothing_to_read_back(tmp_path: Path) -> None:
    with EventLog(small_log(tmp_path / "log")) as log:
        assert list(read_back(log)) == []


def test_the_salt_stays_and_is_nobody_elses(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()

    salt = load_salt(tmp_path)

    assert len(salt) == 32
    assert load_salt(tmp_path) == salt
    assert load_salt(tmp_path / "other") != salt
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["store.salt"]
    assert stat.S_IMODE((tmp_path / "store.salt").stat().st_mode) == 0o600


def test_a_damaged_salt_does_not_stop_the_service(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "store.salt").write_bytes(b"")

    with caplog.at_level(logging.WARNING):
        salt = load_salt(tmp_path)

    assert len(salt) == 32
    assert load_salt(tmp_path) == salt
    assert "store.salt is damaged" in caplog.text
