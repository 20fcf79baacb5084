"""Logs written by earlier versions are read, and written on, by this one."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from reader import crc32c

from vevents import Event, EventLog
from vevents.errors import LogVersionError

RINGS = sorted((Path(__file__).parent / "rings").glob("*.tar.xz"))


# Where the file's header and its copy begin.
HEADER_COPIES = (0, 4096)

EVERY = pytest.mark.parametrize("archive", RINGS, ids=lambda path: path.name.partition(".")[0])


def unpack(archive: Path, into: Path) -> Any:
    """Lay the log into `into`/log, and return what is in it."""
    with tarfile.open(archive) as file:
        for member in file:  # extractall() knows its filter only from 3.11.4 on
            content = file.extractfile(member)
            assert content is not None
            target = into / member.name
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(content.read())
    return json.loads((into / "expected.json").read_text())


@EVERY
@pytest.mark.parametrize("read_only", [True, False])
def test_a_log_of_an_earlier_version(tmp_path: Path, archive: Path, read_only: bool) -> None:
    expected = unpack(archive, tmp_path)
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


@EVERY
def test_an_earlier_log_is_delivered_and_written_on_for_a_lap(
    tmp_path: Path, archive: Path
) -> None:
    """Its segments are reclaimed one by one, with what was marked in them by either version."""
    expected = unpack(archive, tmp_path)
    with EventLog(tmp_path / "log") as log:
        before = log.stats()
        pending = [record.seq for record in log.read()]
        assert len(pending) == expected["stats"]["pending"]
        frames = {
            image.frame.seq: log.frame(image.frame)
            for record in log.read(states=("pending", "delivered"))
            for image in log.decode(record).images
            if image.frame is not None
        }
        assert set(frames) <= set(expected["frames"])
        assert len(frames) > 5
        assert all(frame.startswith(b"\xff\xd8\xff\xe0") for frame in frames.values())
        log.ack(pending[:5000])
        log.mark(pending[-1:], "rejected")
        between = log.stats()
        assert between.conserved
        assert between.delivered - before.delivered == 5000
        assert between.rejected - before.rejected == 1
        assert between.pending == before.pending - 5001

        first = log.append(Event.custom(value="goes on", use_case_id="uc")).seq
        assert first == before.last_seq + 1
        while next(iter(log.read(states=("pending", "delivered", "rejected")))).seq < first:
            for i in range(2000):
                log.append(Event.custom(value=f"goes on {i}", use_case_id="uc"))
        stats = log.stats()
        assert stats.conserved
        # What was undelivered then is evicted, and maybe some of the new ones.
        assert stats.evicted - before.evicted >= between.pending
        assert stats.delivered == between.delivered
        assert stats.rejected == between.rejected
        assert stats.lost == 0
        assert not log.verify("events").damaged
        assert [note for _, note in log.notes()] == expected["notes"]


def test_there_is_one_for_every_version() -> None:
    assert [path.name for path in RINGS] == ["v1.tar.xz"]


@pytest.mark.parametrize("read_only", [True, False])
@pytest.mark.parametrize(("field", "value"), [(8, 2), (12, 1)], ids=["version", "feature"])
def test_a_log_of_a_later_version_is_refused_and_left_alone(
    tmp_path: Path, read_only: bool, field: int, value: int
) -> None:
    with EventLog(tmp_path / "log") as log:
        log.append(Event.custom(value="v", use_case_id="uc"))
    ring = tmp_path / "log" / "events.ring"
    content = bytearray(ring.read_bytes())
    for start in HEADER_COPIES:
        block = content[start : start + 68]
        block[field : field + 4] = value.to_bytes(4, "little")
        block[64:68] = crc32c(bytes(block[:64])).to_bytes(4, "little")
        content[start : start + 68] = block
    ring.write_bytes(content)
    with pytest.raises(LogVersionError, match="written by a newer version of vevents"):
        EventLog(tmp_path / "log", read_only=read_only)
    assert ring.read_bytes() == content
    assert sorted(path.name for path in (tmp_path / "log").glob("events*")) == ["events.ring"]
