"""Files that appear whole, and belong to their directory's owner."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from vevents.delivery.agent import _lock
from vevents.files import open_lock, replaced
from vevents.store.recent import load_salt

OWNER = (4242, 4243)
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def owner(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_uid, status.st_gid


@only_root
def test_what_root_makes_belongs_to_the_owner_of_the_directory(tmp_path: Path) -> None:
    os.chown(tmp_path, *OWNER)

    os.close(open_lock(tmp_path / "flush.lock"))
    with _lock(tmp_path):
        pass
    load_salt(tmp_path)
    with replaced(tmp_path / "text") as file:
        file.write("text")

    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"flush.lock", "agent.lock", "store.salt", "text"}
    for path in tmp_path.iterdir():
        assert owner(path) == OWNER
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@only_root
def test_a_lock_that_root_left_behind_is_given_back(tmp_path: Path) -> None:
    (tmp_path / "flush.lock").touch()
    (tmp_path / "with something in it").write_text("secret")
    (tmp_path / "other").touch()
    (tmp_path / "another name").hardlink_to(tmp_path / "other")
    os.chown(tmp_path, *OWNER)

    for name in ("flush.lock", "with something in it", "another name"):
        os.close(open_lock(tmp_path / name))

    assert owner(tmp_path / "flush.lock") == OWNER
    assert owner(tmp_path / "with something in it") == owner(tmp_path / "other") == (0, 0)


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("old")
    (tmp_path / "lock").symlink_to("target")
    temporary = tmp_path / f".name.new-{os.getpid()}"
    temporary.symlink_to("target")

    with pytest.raises(OSError, match="symbolic"):
        open_lock(tmp_path / "lock")
    with replaced(tmp_path / "name") as file:
        file.write("new")

    assert (tmp_path / "target").read_text() == "old"
    assert (tmp_path / "name").read_text() == "new"


def test_what_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the name that its caller knows, also where the system names no file (a full disk)."""
    with pytest.raises(FileNotFoundError) as found, replaced(tmp_path / "no" / "figures"):
        pass
    assert found.value.filename == str(tmp_path / "no" / "figures")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as failed, replaced(tmp_path / "paused"):
        pass
    assert failed.value.filename == str(tmp_path / "paused")
    assert list(tmp_path.iterdir()) == []


def test_that_no_inode_is_left_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is room then, and whoever looks for what takes it finds nothing."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "somewhere")

    real = os.statvfs(tmp_path)
    monkeypatch.setattr(os, "open", full)
    for files, free, words in ((1000, 0, "no inode is left"), (1000, 1, "left"), (0, 0, "left")):
        figures = os.statvfs_result((*real[:5], files, free, free, *real[8:]))
        monkeypatch.setattr(os, "statvfs", lambda _, figures=figures: figures)
        with pytest.raises(OSError, match=words) as locked:
            open_lock(tmp_path / "flush.lock")
        with pytest.raises(OSError, match=words), replaced(tmp_path / "paused"):
            pass
        assert ("inode" in str(locked.value)) == ("inode" in words)
