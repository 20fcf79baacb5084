"""`vevents verify` and `vevents recover`."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from vevents import Event, EventLog, Image
from vevents.cli import main, recover

JPEG = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 20


@pytest.fixture
def log_directory(tmp_path: Path) -> Path:
    directory = tmp_path / "log"
    with EventLog(directory, events_size=1 << 20, media_size=1 << 20) as log:
        for i in range(200):
            image = Image(JPEG + i.to_bytes(2, "little"))
            log.append(Event.custom(value=os.urandom(60).hex(), images=[image] if i < 100 else []))
        log.ack(range(1, 51))
    return directory


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict]:
    code = main([*map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out)


def damage(path: Path, needle: bytes, size: int) -> int:
    """Overwrite bytes of the file from the first place of `needle` on."""
    data = bytearray(path.read_bytes())
    at = data.index(needle)
    data[at : at + size] = bytes(b ^ 0x5A for b in data[at : at + size])
    path.write_bytes(data)
    return at


def test_clean(log_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, report = run(capsys, "verify", "--dir", log_directory)
    assert code == 0
    assert report["streams"]["events"] == {"good": 200, "damaged": 0, "ranges": []}
    assert report["streams"]["media"]["good"] == 100


def test_damaged_frame_is_named(log_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (log_directory / "events.ring").read_bytes()
    at = damage(log_directory / "media.ring", JPEG + (60).to_bytes(2, "little"), 3)
    code, report = run(capsys, "verify", "--dir", log_directory)
    assert code == 8
    [found] = report["streams"]["media"]["ranges"]
    assert (found["first_seq"], found["record_count"]) == (61, 1)
    assert found["offset"] <= at < found["offset"] + found["size"]
    assert report["streams"]["media"]["good"] == 99
    assert (log_directory / "events.ring").read_bytes() == before  # it only looked
    with EventLog(log_directory, read_only=True) as log:
        assert log.stats("media").lost == 0  # nothing was marked


def test_no_ring(log_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (log_directory / "events.ring").write_bytes(b"junk" * 1000)
    code, report = run(capsys, "verify", "--dir", log_directory)
    assert code == 9
    assert report["usable"] is False


@pytest.mark.parametrize("name", ["media.ring", "delivery.ring"])
def test_a_missing_ring_is_named(
    log_directory: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (log_directory / name).unlink()
    code, report = run(capsys, "verify", "--dir", log_directory)
    assert code == 9
    assert report["error"].endswith(f"'{log_directory / name}'")
    assert not (log_directory / name).exists()


def test_recover_keeps_what_is_good(
    log_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with EventLog(log_directory, read_only=True) as log:
        every = ("pending", "delivered")
        expected = {r.seq: (r.payload, r.event_id, r.state) for r in log.read(states=every)}
    damage(log_directory / "media.ring", JPEG + (60).to_bytes(2, "little"), 3)
    source = {path.name: path.read_bytes() for path in log_directory.iterdir()}
    code, report = run(capsys, "recover", log_directory, "--into", tmp_path / "new")
    assert code == 8
    assert report["lost"] == {"events": 0, "media": 1, "delivery": 0}
    with EventLog(tmp_path / "new") as log:
        found = {r.seq: (r.payload, r.event_id, r.state) for r in log.read(states=every)}
        assert found == expected
        assert log.frame(60) == JPEG + (59).to_bytes(2, "little")
        assert log.frame(61) is None
        assert log.stats().conserved
        assert log.stats("media").conserved
        log.append(Event.custom(value="goes on"))
    assert {path.name: path.read_bytes() for path in log_directory.iterdir()} == source
    code = main(["recover", str(log_directory), "--into", str(tmp_path / "new")])
    assert code == 2
    assert "there is a log already" in capsys.readouterr().err


def test_recover_to_a_full_disk_leaves_nothing(
    log_directory: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full_at_the_second(_: int, __: int, size: int) -> None:
        sizes.append(size)
        if len(sizes) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    sizes: list[int] = []
    into = tmp_path / "new"
    with monkeypatch.context() as patch:
        patch.setattr(recover.os, "posix_fallocate", full_at_the_second)
        code = main(["recover", str(log_directory), "--into", str(into)])
    assert code == 1
    assert f"No space left on device: '{into / 'media.ring'}'" in capsys.readouterr().err
    assert list(into.iterdir()) == []
    code, report = run(capsys, "recover", log_directory, "--into", into)  # there is room again
    assert code == 0
    assert report["streams"]["media"]["good"] == 100


def test_recover_without_header(
    log_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (log_directory / "events.ring").open("r+b") as file:
        file.write(os.urandom(16384))  # header, copy and both ledgers
    code, report = run(capsys, "recover", log_directory, "--into", tmp_path / "new")
    assert code == 0
    assert report["streams"]["events"]["good"] == 200
    with EventLog(tmp_path / "new") as log:
        assert (log.stats().delivered, log.stats().pending) == (50, 150)


def test_recover_a_file_that_is_no_ring(
    log_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (log_directory / "delivery.ring").write_bytes(b"junk" * 1000)
    code, report = run(capsys, "recover", log_directory, "--into", tmp_path / "new")
    assert code == 9
    assert report["no_ring"] == ["delivery"]
    assert report["streams"]["events"]["good"] == 200
    assert (tmp_path / "new" / "delivery.ring.damaged-1").read_bytes() == b"junk" * 1000


@pytest.mark.parametrize("command", ["verify", "status"])
def test_the_ring_that_is_none_is_named(
    command: str, log_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (log_directory / "media.ring").write_bytes(b"junk" * 1000)

    code = main([command, "--dir", str(log_directory)])

    assert code == (9 if command == "verify" else 1)
    said = "".join(capsys.readouterr())
    assert f"{log_directory}/media.ring: " in said


def test_unreadable_blocks_are_left_out(
    log_directory: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = (log_directory / "media.ring").read_bytes()
    bad = data.index(JPEG + (60).to_bytes(2, "little")) // 4096 * 4096
    real = os.pread

    def failing(fd: int, size: int, offset: int) -> bytes:
        name = str(Path(f"/proc/self/fd/{fd}").readlink())
        if name == str(log_directory / "media.ring") and offset <= bad < offset + size:
            raise OSError(5, "Input/output error")
        return real(fd, size, offset)

    monkeypatch.setattr(recover.os, "pread", failing)
    code, report = run(capsys, "recover", log_directory, "--into", tmp_path / "new")
    assert code == 8
    assert report["unreadable_bytes"]["media.ring"] == 4096
    assert 1 <= report["lost"]["media"] <= 3
    assert report["streams"]["media"]["good"] == 100 - report["lost"]["media"]
