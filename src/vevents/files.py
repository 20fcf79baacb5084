"""Small files that appear whole or not at all, and belong to whom their directory belongs to.

An administrator looks after a device as root, and the service comes after him as another user: a
lock or a switch that root left behind must not shut the service out. So whatever root makes in a
directory is given to the directory's owner.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

_PRIVATE = 0o600


@contextmanager
def replaced(
    path: Path, *, binary: bool = False, mode: int = _PRIVATE, to_owner: bool = True
) -> Iterator[IO[Any]]:
    """Write a file that appears under its name only when it is whole, and safe from a power cut.

    Args:
        path: Where it appears.
        binary: Whether bytes are written, instead of text in UTF-8.
        mode: Of the whole file; while it is written nobody else can read it.
        to_owner: Whether a file that root writes belongs to the directory's owner.

    Yields:
        The open file, mode 0600 under a temporary name beside `path`.

    Raises:
        OSError: It cannot be written, and names `path`; what was there still is.
    """
    new = path.with_name(f".{path.name}.new-{os.getpid()}")
    try:
        # A power cut may have left one, and after a reboot process ids come again.
        new.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(new, flags, _PRIVATE)
        try:
            encoding = None if binary else "utf-8"
            with os.fdopen(descriptor, "wb" if binary else "w", encoding=encoding) as file:
                yield file
                file.flush()
                if to_owner:
                    _give_to_owner(descriptor, path.parent)
                if mode != _PRIVATE:  # the file systems of sticks know no modes, either
                    os.fchmod(descriptor, mode)
                os.fsync(descriptor)
            new.replace(path)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)
    except OSError as error:
        # A full disk names no file, and the temporary name would puzzle whoever reads it.
        if error.filename in (None, os.fspath(new)):
            error.filename = os.fspath(path)
        _tell_of_inodes(error, path.parent)
        raise


@contextmanager
def held_lock(
    path: Path,
    refusal: Callable[[], Exception],
    try_again: Callable[[], bool] = lambda: False,
) -> Iterator[None]:
    """Hold a lock file. The system takes the lock back when the process dies.

    Args:
        path: The file; made if absent, and it stays.
        refusal: Makes what is raised when another process holds it.
        try_again: Called when it does: waits a moment and returns True, or False to give up.

    Raises:
        Exception: What `refusal` made.
        OSError: It cannot be opened, or it is a symbolic link.
    """
    descriptor = open_lock(path)
    try:
        while not _locked(descriptor):
            if not try_again():
                raise refusal()
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def open_lock(path: Path) -> int:
    """Open a lock file, made with mode 0600 if absent, and return its descriptor.

    One that root left behind is given back as well, if there is nothing in it and no other name
    of it: root must not give away what somebody else has put there.

    Raises:
        OSError: It cannot be opened, or it is a symbolic link.
    """
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, _PRIVATE)
    except FileExistsError:
        descriptor = os.open(path, flags)
    except OSError as error:
        _tell_of_inodes(error, path.parent)
        raise
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_size == 0:
        _give_to_owner(descriptor, path.parent)
    return descriptor


def has_inodes(directory: Path) -> bool:
    """Say whether the file system takes another file, however small.

    Raises:
        OSError: Nobody can tell.
    """
    figures = os.statvfs(directory)
    return figures.f_favail > 0 or figures.f_files == 0  # some make them as they need them


def _tell_of_inodes(error: OSError, directory: Path) -> None:
    """Say it where it is not room that ran out: `df` shows plenty then."""
    with suppress(OSError):
        if error.errno == errno.ENOSPC and not has_inodes(directory):
            error.strerror = f"{error.strerror}: no inode is left for another file, see df -i"


def is_there(path: Path) -> bool:
    """Say whether a path exists; from Python 3.14 on `Path.exists` denies what it may not look at.

    Raises:
        OSError: Nobody can tell, for example because the directory may not be read.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def sync_directory(directory: Path) -> None:
    """Make names that came or went in a directory survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _give_to_owner(descriptor: int, directory: Path) -> None:
    if os.geteuid() == 0:
        owner = directory.stat()
        # The file systems of sticks know no owners.
        with suppress(PermissionError):
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
