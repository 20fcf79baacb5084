"""The directory that bundles are carried in: names, atomic files, receipts.

    event_<UTC time>_<event id>.tar.gz      a bundle, complete from its first moment
    receipt_<UTC time>_<number>.json        which bundles have arrived
    .tmp_...                                being written, or left by a crash

A stick is mostly FAT: no links, no owners, and often pulled too early. So every file is written
under another name, synced, and renamed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import quote

from vevents.archive import BUNDLE_SIZE_MAX, BundleError
from vevents.errors import ConfigurationError

_TEMPORARY: Final = ".tmp_vevents_"
_SUFFIXES: Final = (".tar.gz", ".tar")
_ID_LENGTH_MAX: Final = 150
_RECEIPT_SIZE_MAX: Final = 16 * 2**20


class Outbox:
    """A directory with bundles.

    Args:
        directory: Where it is.
        create: Whether to make it if it is absent, with mode 0700; its parent must exist.

    Raises:
        ConfigurationError: It is not there.
    """

    def __init__(self, directory: Path, *, create: bool = False) -> None:
        self.directory = directory
        if create and not directory.exists():
            if not directory.parent.is_dir():
                raise ConfigurationError(f"{directory.parent}: no such directory; is it mounted?")
            directory.mkdir(mode=0o700)
        if not directory.is_dir():
            raise ConfigurationError(f"{directory}: no such directory; is it mounted?")

    def clean(self) -> None:
        """Remove what a crash has left half-written. Nobody else may be writing."""
        for path in self.directory.glob(f"{_TEMPORARY}*"):
            with suppress(FileNotFoundError):
                path.unlink()

    def write(self, name: str, data: bytes) -> bool:
        """Write a file, synced, unless it is there. Returns whether it was written.

        The directory is not synced yet; see `sync()`.

        Raises:
            OSError: It cannot be written, and is named; then there is no part of it, either.
        """
        path = self.directory / name
        if path.exists():
            return False
        temporary = self.directory / f"{_TEMPORARY}{secrets.token_hex(8)}"
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(path)
        except BaseException as error:
            with suppress(OSError):
                temporary.unlink()
            if isinstance(error, OSError):
                # A full stick names no file, and the temporary name is of no use to anybody.
                error.filename = os.fspath(path)
            raise
        return True

    def write_bundle(self, name: str, data: bytes) -> tuple[str, bool]:
        """Write a bundle, synced.

        A file of the same name and content is the work of an export that was broken off. One of
        the same name and other content holds another event of the same id and time; then the new
        one gets a name behind it in the alphabet, since the last one to arrive is to win.

        Returns:
            The name that it has, and whether it was written now.

        Raises:
            OSError: It cannot be written, or what is there cannot be read.
        """
        stem = name.removesuffix(_SUFFIXES[0])
        number = 1
        while not self.write(name, data):
            if (self.directory / name).read_bytes() == data:
                return name, False
            number += 1
            name = f"{stem}_{number:03}{_SUFFIXES[0]}"
        return name, True

    def sync(self) -> None:
        """Let the names of what was written survive a power cut."""
        descriptor = os.open(self.directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            # Some file systems of sticks have no such thing.
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        finally:
            os.close(descriptor)

    def bundles(self) -> list[Path]:
        """Return the bundles, the oldest event first."""
        return sorted(
            path for path in self.directory.glob("event_*") if path.name.endswith(_SUFFIXES)
        )

    def read(self, path: Path) -> bytes:
        """Return the bytes of a bundle.

        Raises:
            BundleError: It is larger than the API takes, or it cannot be read: one bad sector of a
                stick must not hold up the other files.
        """
        try:
            with path.open("rb") as file:
                data = file.read(BUNDLE_SIZE_MAX + 1)
        except OSError as error:
            raise BundleError("bundle", f"cannot be read: {error.strerror}") from error
        if len(data) > BUNDLE_SIZE_MAX:
            raise BundleError("bundle", f"has more than {BUNDLE_SIZE_MAX} bytes")
        return data

    def write_receipt(self, arrived: Mapping[str, str], at: datetime) -> None:
        """Say which bundles have arrived: their event ids by the names of their files."""
        name = f"receipt_{_stamp(at)}_{secrets.token_hex(4)}.json"
        receipt = {"veventsReceiptVersion": 1, "at": at.isoformat(), "bundles": dict(arrived)}
        self.write(name, json.dumps(receipt, indent=1).encode())
        self.sync()

    def receipts(self) -> Iterator[dict[str, str]]:
        """Yield what the receipts say; one that is damaged or cannot be read says nothing."""
        for path in sorted(self.directory.glob("receipt_*.json")):
            try:
                with path.open("rb") as file:
                    receipt = json.loads(file.read(_RECEIPT_SIZE_MAX))
            except (OSError, ValueError, RecursionError):
                continue
            bundles = receipt.get("bundles") if isinstance(receipt, dict) else None
            if isinstance(bundles, dict):
                yield {str(name): str(event_id) for name, event_id in bundles.items()}


def bundle_name(event_id: str, at: datetime) -> str:
    """Return the name of an event's bundle.

    Args:
        event_id: Any id. What a file system may not take is written as `%` and two digits, and
            what is too long as a checksum.
        at: The event's time.

    Example:
        >>> bundle_name("evt/7", datetime(2026, 8, 21, 12, tzinfo=UTC))
        'event_20260821T120000_000000_evt%2F7.tar.gz'
    """
    text = quote(event_id, safe="")
    if len(text) > _ID_LENGTH_MAX:
        text = hashlib.blake2b(event_id.encode(), digest_size=16).hexdigest()
    return f"event_{_stamp(at)}_{text}.tar.gz"


def _stamp(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y%m%dT%H%M%S_%f")
