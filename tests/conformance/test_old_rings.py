"""Logs written by earlier versions are read, and written on, by this one."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from vevents import Event, EventLog

RINGS = sorted((Path(__file__).parent / "rings").glob("*.tar.xz"))


@pytest.mark.parametrize("archive", RINGS, ids=lambda path: path.name.partition(".")[0])
@pytest.mark.parametrize("read_only", [True, False])
def test_a_log_of_an_earlier_version(tmp_path: Path, archive: Path, read_only: bool) -> None:
    with tarfile.open(archive) as file:
        for member in file:  # extractall() knows its filter only from 3.11.4 on
            content = file.extractfile(member)
            assert content is not None
            target = tmp_path / member.name
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(content.read())
    expected = json.loads((tmp_path / "expected.json").read_text())
    with EventLog(tmp_path / "log", read_only=read_only) as log:
        every = ("pending", "delivered", "rejected")
        records = list(log.read(states=every))
        assert len(records) == expected["count"]
        newest = [[r.seq, r.state, r.event_id, r.wall_ns, r.payload.hex()] for r in records[-200:]]
        assert newest == expected["newest"]
        assert log.decode(records[-1]).images[0].object_detections[0].confidence == 0.913
        assert [note for _, note in log.notes()] == expected["notes"]
        assert [r.seq for r in log.read("media")] == expected["frames"]
        stats = log.stats()
        assert stats.conserved
        assert {name: getattr(stats, name) for name in expected["stats"]} == expected["stats"]
        assert not any(log.verify(stream).damaged for stream in ("events", "media", "delivery"))
        if not read_only:
            assert log.append(Event.custom(value="goes on")).seq == stats.last_seq + 1


def test_there_is_one_for_every_version() -> None:
    assert [path.name for path in RINGS] == ["v1.tar.xz"]
