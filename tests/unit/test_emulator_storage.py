"""The database: what replaces what, what is counted, what survives."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vevents.emulator.storage import NameTakenError, NewEvent, NewImage, Selection, Storage
from vevents.errors import ConfigurationError

JPEG = b"\xff\xd8\xff\xe0" + b"pixels"


def storage_at(database: Any = ":memory:", **options: Any) -> Storage:
    settings: dict[str, Any] = {
        "use_cases": [("uc-1", "Line 1"), ("uc-2", "Line 2")],
        "image_directory": None,
        "image_kept_size_max": 1_000_000,
        "clock": lambda: 1_790_000_000.0,
    }
    return Storage(database, **(settings | options))


@pytest.fixture
def storage() -> Iterator[Storage]:
    opened = storage_at()
    yield opened
    opened.close()


def new_event(event_id: str, *, at: int = 0, warnings: Any = (), **fields: Any) -> NewEvent:
    body = {
        "eventId": event_id,
        "eventType": "custom",
        "useCaseId": "uc-1",
        "eventData": {},
        **fields,
    }
    return NewEvent(body, at, warnings)


def selected(storage: Storage, **fields: Any) -> list[str]:
    events, _ = storage.select(
        Selection(use_case_id="uc-1", since_us=-(2**62), until_us=2**62, **fields)
    )
    return [event["eventId"] for event in events]


def test_a_repeated_event_replaces_the_whole_of_it(storage: Storage) -> None:
    storage.put_events([new_event("e", deviceId="d", customMetadata={"a": 1}), new_event("f")])
    storage.put_events([new_event("e", useCaseId="uc-2")])

    [row] = storage.list_events(use_case_id=None, event_id="e", after=0, limit=9)
    assert row["event"] == new_event("e", useCaseId="uc-2").body
    assert row["posts"] == 2
    assert row["seq"] == 1
    assert selected(storage) == ["f"]


def test_overwrites_are_counted_apart_from_events(storage: Storage) -> None:
    storage.put_events([new_event("e"), new_event("f")])
    storage.put_events([new_event("e")])
    storage.put_events([new_event("e", deviceId="d")])

    counts = storage.counts()
    assert (counts["events"], counts["posts"], counts["events_accepted"]) == (2, 3, 4)
    assert (counts["overwrites"], counts["overwrites_changed"]) == (2, 1)


def test_images_are_counted_by_who_names_them(storage: Storage) -> None:
    for source_id, data in (("i-1", JPEG), ("i-2", JPEG), ("i-3", JPEG + b"3")):
        storage.put_image(NewImage(data, "image/jpeg", source_id=source_id))
    images = [{"sourceId": "i-1", "inputSourceId": "i-9"}, {"sourceId": "i-1"}]
    storage.put_events([new_event("e", images=images)])

    counts = storage.counts()
    assert counts["images"] == 3
    assert counts["image_bytes"] == 3 * len(JPEG) + 1
    assert counts["images_duplicate"] == 1
    assert counts["images_orphaned"] == 2
    assert counts["images_missing"] == 1
    assert storage.missing_images(["i-1", "i-9"]) == ["i-9"]
    orphans = storage.list_images(orphaned=True, after=0, limit=9)
    assert [image["source_id"] for image in orphans] == ["i-2", "i-3"]
    assert orphans[1]["sha256"] == hashlib.sha256(JPEG + b"3").hexdigest()
    named = storage.list_images(orphaned=False, after=0, limit=9)
    assert [image["source_id"] for image in named] == ["i-1"]


def test_an_overwritten_event_lets_go_of_its_images(storage: Storage) -> None:
    storage.put_image(NewImage(JPEG, "image/jpeg", source_id="i-1"))
    storage.put_events([new_event("e", images=[{"sourceId": "i-1"}])])
    storage.put_events([new_event("e")])

    assert storage.counts()["images_orphaned"] == 1


def test_a_repeated_bundle_takes_its_earlier_images_with_it(storage: Storage) -> None:
    for source_id in ("b-1", "b-2"):
        image = NewImage(JPEG, "image/jpeg", source_id=source_id)
        storage.put_events([new_event("e", images=[{"sourceId": source_id}])], [image])

    [listed] = storage.list_images(orphaned=None, after=0, limit=9)
    assert listed["source_id"] == "b-2"
    assert listed["origin"] == "bundle"
    assert storage.counts()["images_orphaned"] == 0


def test_old_bytes_go_first_and_digests_stay() -> None:
    storage = storage_at(image_kept_size_max=2 * len(JPEG) + 1)
    data = {f"i-{n}": JPEG + bytes([n]) * (n > 0) for n in range(3)}
    for source_id, each in data.items():
        storage.put_image(NewImage(each, "image/jpeg", source_id=source_id))
    storage.put_image(NewImage(JPEG * 9, "image/jpeg", source_id="too-large"))

    kept = [source_id for source_id in data if storage.image_content(source_id) is not None]
    assert kept == ["i-2"]
    assert storage.image_content("i-2") == ("image/jpeg", data["i-2"])
    assert storage.image_content("too-large") is None
    assert storage.image_content("unknown") is None
    assert storage.counts()["images"] == 4
    storage.close()


def test_bytes_in_a_directory(tmp_path: Path) -> None:
    storage = storage_at(image_directory=tmp_path / "images", image_kept_size_max=0)
    for source_id in ("i-1", "i-2"):
        storage.put_image(NewImage(JPEG, "image/jpeg", source_id=source_id))

    assert storage.image_content("i-2") == ("image/jpeg", JPEG)
    [file] = (tmp_path / "images").iterdir()
    assert file.name == hashlib.sha256(JPEG).hexdigest()
    file.unlink()
    assert storage.image_content("i-2") is None
    storage.close()


def test_a_file_is_continued(tmp_path: Path) -> None:
    first = storage_at(tmp_path / "cloud.db")
    first.put_events([new_event("e", customMetadata={"line": 1}, images=[{"sourceId": "i"}])])
    first.count_refusal(400)
    first.put_image(NewImage(JPEG, "image/jpeg", name="n", metadata={"a": True}, source_id="i"))
    first.rename_use_case("uc-1", "Line 1 (left)")
    first.set_use_case_status("uc-2", "inactive")
    before = first.counts()
    first.close()

    second = storage_at(tmp_path / "cloud.db")
    assert second.counts() == before
    assert before["refused"] == {"400": 1}
    assert second.list_use_cases("active") == [
        {"id": "uc-1", "name": "Line 1 (left)", "status": "active", "eventCount": 1}
    ]
    assert second.metadata_fields("uc-1") == {"line": ["number"]}
    second.put_events([new_event("e", customMetadata={"line": "1"}, images=[{"sourceId": "i"}])])
    assert second.metadata_fields("uc-1") == {"line": ["number", "string"]}
    assert second.counts()["overwrites"] == 1
    assert second.image_content("i") == ("image/jpeg", JPEG)
    second.close()


def test_what_was_committed_survives_without_a_close(tmp_path: Path) -> None:
    storage = storage_at(tmp_path / "cloud.db")
    storage.put_events([new_event("e")])
    for suffix in ("", "-wal"):
        copied = (tmp_path / f"cloud.db{suffix}").read_bytes()
        (tmp_path / f"killed.db{suffix}").write_bytes(copied)

    after = storage_at(tmp_path / "killed.db")
    assert after.counts()["events"] == 1
    after.close()
    storage.close()


def test_nothing_of_a_failed_post_is_stored(storage: Storage) -> None:
    unstorable = new_event("f", useCaseId=object())
    with pytest.raises(TypeError):
        storage.put_events([new_event("e", customMetadata={"a": 1}), unstorable])

    assert storage.counts()["events"] == 0
    assert storage.counts()["posts"] == 0
    storage.put_events([new_event("e", customMetadata={"a": 1})])
    assert storage.metadata_fields("uc-1") == {"a": ["number"]}


def test_names_of_use_cases_are_unique(storage: Storage) -> None:
    created = storage.create_use_case("Line 3")

    with pytest.raises(NameTakenError):
        storage.create_use_case("Line 3")
    with pytest.raises(NameTakenError):
        storage.rename_use_case("uc-1", "Line 3")
    assert storage.rename_use_case(created, "Line 3")
    assert not storage.rename_use_case("unknown", "Line 4")
    storage.set_use_case_status("uc-1", "inactive")
    with pytest.raises(NameTakenError):
        storage.create_use_case("Line 1")


def test_a_name_that_is_taken_at_the_start(tmp_path: Path) -> None:
    storage_at(tmp_path / "cloud.db").close()

    with pytest.raises(ConfigurationError, match="uc-9"):
        storage_at(tmp_path / "cloud.db", use_cases=[("uc-9", "Line 1")])


def test_files_that_are_something_else(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database at all, but long enough to look at" * 20)
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE mine (a)")
    other.close()

    for database in (tmp_path / "text.db", tmp_path / "other.db", tmp_path / "no" / "cloud.db"):
        with pytest.raises(ConfigurationError, match=database.name):
            storage_at(database)


def test_a_temporary_database_is_deleted() -> None:
    storage = storage_at(None)
    storage.put_events([new_event("e")])
    [file] = [row[2] for row in storage._db.execute("PRAGMA database_list")]
    assert Path(file).exists()

    storage.close()

    assert not Path(file).parent.exists()
    assert storage.counts()["events"] == 1


def test_clear_keeps_the_use_cases(storage: Storage) -> None:
    storage.put_image(NewImage(JPEG, "image/jpeg"))
    storage.put_events([new_event("e", customMetadata={"a": 1})])
    storage.count_refusal(413)

    storage.clear()

    counts = storage.counts()
    assert counts.pop("refused") == {}
    assert counts.pop("use_cases") == 2
    assert set(counts.values()) == {0}
    assert storage.metadata_fields("uc-1") == {}
    storage.put_events([new_event("e", customMetadata={"a": 1})])
    assert storage.metadata_fields("uc-1") == {"a": ["number"]}


def test_many_threads(storage: Storage) -> None:
    def post(thread: int) -> None:
        for number in range(20):
            storage.put_events([new_event("same"), new_event(f"{thread}-{number}")])
            storage.put_image(NewImage(JPEG, "image/jpeg"))
            storage.counts()

    threads = [threading.Thread(target=post, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    counts = storage.counts()
    assert counts["events"] == 161
    assert counts["overwrites"] == 159
    assert counts["posts"] == counts["images"] == 160
    assert counts["images_duplicate"] == 159


def test_selection_pages_through_equal_times(storage: Storage) -> None:
    storage.put_events([new_event(f"e-{n}", at=n // 3) for n in range(10)])
    seen, after = [], None
    while True:
        events, after = storage.select(
            Selection(use_case_id="uc-1", since_us=0, until_us=9, limit=4, after=after)
        )
        seen.append([event["eventId"] for event in events])
        if after is None:
            break
        # What comes in between two pages must not shift them.
        storage.put_events([new_event(f"later-{len(seen)}", at=9)])

    assert seen == [["e-9", "e-8", "e-7", "e-6"], ["e-5", "e-4", "e-3", "e-2"], ["e-1", "e-0"]]


def test_a_full_last_page_says_that_it_is_the_last(storage: Storage) -> None:
    storage.put_events([new_event(f"e-{n}", at=n) for n in range(4)])

    events, after = storage.select(Selection(use_case_id="uc-1", since_us=0, until_us=9, limit=4))

    assert len(events) == 4
    assert after is None


def test_selection_by_columns(storage: Storage) -> None:
    storage.put_events(
        [
            new_event("a", deviceId="d-1", eventType="safety_alert"),
            new_event("b", deviceId="d-2", streamId="s"),
            new_event("c"),
        ]
    )

    assert selected(storage, columns=[("device_id", True, "d-1")]) == ["a"]
    assert selected(storage, columns=[("device_id", False, "d-1")]) == ["b"]
    assert selected(storage, columns=[("stream_id", True, "s")]) == ["b"]
    assert selected(storage, event_types=["custom"]) == ["c", "b"]
    assert selected(storage, matches=lambda event: "deviceId" in event) == ["b", "a"]


def test_warnings_are_shown_with_the_event(storage: Storage) -> None:
    storage.put_events([new_event("e", warnings=["all images were dropped"])])

    [event], _ = storage.select(Selection(use_case_id="uc-1", since_us=0, until_us=0))
    assert event["ingestionWarnings"] == ["all images were dropped"]
    assert storage.counts()["events_with_warnings"] == 1
