"""The files that make the agent, a hook that flushes, or the store part of a system; their removal.

Every file carries a line with a checksum of the rest. So a file that was edited, or that somebody
else put there, is told from one that may be replaced or removed, without a list of what was done.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files
from pathlib import Path

from vevents.errors import ConfigurationError
from vevents.files import replaced

_MARK = "Written by vevents install, checksum "
_MARK_LINE = re.compile(rf"^# {_MARK}([0-9a-f]{{64}})$", re.MULTILINE)
_PLACEHOLDER = "# @MARK@"
# What shells, systemd and cron take as it is.
_PLAIN_TEXT = re.compile(r"[A-Za-z0-9_./+:,=-]+")
_USER_NAME = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_ENVIRONMENT = Path("/etc/vevents.env")


class System(StrEnum):
    """What starts services on a device."""

    SYSTEMD = "systemd"
    PLAIN = "plain"


class State(StrEnum):
    """What stands where a file of ours belongs."""

    ABSENT = "absent"
    OURS = "ours"
    EDITED = "edited"
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a template belongs.

    Attributes:
        template: Its name.
        path: Where it belongs on the device.
        mode: Permissions of the file.
        needs: A directory without which nobody would call the file, or None.
        store: Whether only those want it who run the event store.
    """

    template: str
    path: Path
    mode: int
    needs: Path | None = None
    store: bool = False


_PLACES = {
    System.SYSTEMD: (
        Place("vevents.env", _ENVIRONMENT, 0o600),
        Place("vevents-agent.service", Path("/etc/systemd/system/vevents-agent.service"), 0o644),
        Place(
            "vevents-store.service",
            Path("/etc/systemd/system/vevents-store.service"),
            0o644,
            store=True,
        ),
        Place(
            "90-vevents",
            Path("/etc/NetworkManager/dispatcher.d/90-vevents"),
            0o755,
            Path("/etc/NetworkManager"),
        ),
    ),
    System.PLAIN: (
        Place("vevents.env", _ENVIRONMENT, 0o600),
        Place("vevents-hook", Path("/usr/local/sbin/vevents-hook"), 0o755),
        Place(
            "vevents-wrapper",
            Path("/etc/network/if-up.d/vevents"),
            0o755,
            Path("/etc/network/if-up.d"),
        ),
        Place(
            "vevents-wrapper", Path("/etc/udhcpc/post-bound/vevents"), 0o755, Path("/etc/udhcpc")
        ),
        Place("vevents.cron", Path("/etc/cron.d/vevents"), 0o644, Path("/etc/cron.d")),
        # BusyBox's cron has no /etc/cron.d; this is where Alpine looks.
        Place(
            "vevents-wrapper",
            Path("/etc/periodic/15min/vevents"),
            0o755,
            Path("/etc/periodic/15min"),
        ),
    ),
}


@dataclass(frozen=True, slots=True)
class File:
    """One file to be written.

    Attributes:
        path: Where it belongs on the device.
        text: What it holds.
        mode: Its permissions.
    """

    path: Path
    text: str
    mode: int

    def is_for_editing(self) -> bool:
        """Whether it is there to be filled in, so that an existing one is left alone."""
        return self.path == _ENVIRONMENT


def system_of(root: Path) -> System:
    """Return what starts services in a file tree."""
    places = ("run/systemd/system", "usr/lib/systemd/systemd", "lib/systemd/systemd")
    return System.SYSTEMD if any((root / place).exists() for place in places) else System.PLAIN


def own_command() -> str:
    """Return how the program that runs now is started."""
    python = Path(sys.executable)
    script = python.with_name("vevents")
    return str(script) if script.exists() else f"{python} -m vevents"


def plan(
    system: System,
    *,
    root: Path,
    directory: Path,
    user: str,
    command: str,
    config: Path | None = None,
    persist_dir: Path | None = None,
    store: bool = False,
) -> list[File]:
    """Return the files for a device.

    Args:
        system: What starts services there.
        root: Its file tree; some files are left out where nobody would call them.
        directory: Of the log, as the device sees it.
        user: Who is to run it, the owner of the log.
        command: How `vevents` is started there, an absolute path first.
        config: The TOML file to name, as the device sees it, or None.
        persist_dir: Of the copy of a RAM-first log, as the device sees it, or None.
        store: Whether the device runs the event store as well.

    Raises:
        ConfigurationError: A value would not survive in a shell or a unit, or there is no file of
            the store for such a system.
    """
    if store and not any(place.store for place in _PLACES[system]):
        raise ConfigurationError(f"there is no service for the store on a {system} system")
    paths = {
        "the log's directory": directory,
        "the settings file": config,
        "the copy's directory": persist_dir,
    }
    for what, path in paths.items():
        if path is not None and not (path.is_absolute() and _PLAIN_TEXT.fullmatch(str(path))):
            raise ConfigurationError(
                f"{what}, {str(path)!r}, must be absolute and of letters, digits and _./+:,=-"
            )
    if not _USER_NAME.fullmatch(user):
        raise ConfigurationError(f"{user!r} is not the name of a user")
    words = command.split(" ")
    if not words[0].startswith("/") or not all(map(_PLAIN_TEXT.fullmatch, words)):
        raise ConfigurationError(
            f"the command {command!r} must begin with an absolute path and hold nothing but "
            "letters, digits, single spaces and _./+:,=-"
        )
    options = f"--dir {directory}" + ("" if config is None else f" --config {config}")
    values = {
        "SANDBOX": _template("sandbox").strip(),
        "USER": user,
        "DIR": str(directory),
        "COMMAND": command,
        "OPTIONS": options,
        # A log in memory: the copy has to be there first, and to be written at last.
        "MOUNTS": "" if persist_dir is None else f"\nRequiresMountsFor={persist_dir}",
        "DIRS": str(directory) if persist_dir is None else f"{directory} {persist_dir}",
        "PERSIST": ""
        if persist_dir is None
        else f"\nEnvironment=VEVENTS_PERSIST_DIR={persist_dir}",
        "RESTORE": "" if persist_dir is None else f"\nExecStartPre={command} restore {options}",
        "STOP_S": "10" if persist_dir is None else "90",
        # What is restored into memory counts as the service's.
        "MEMORY_MAX": "512M" if persist_dir is None else "infinity",
        "PERSIST_SETTING": "#VEVENTS_PERSIST_DIR="
        if persist_dir is None
        else f"VEVENTS_PERSIST_DIR={persist_dir}",
    }
    return [
        File(place.path, _filled(place.template, values), place.mode)
        for place in _PLACES[system]
        if (store or not place.store)
        and (place.needs is None or _below(root, place.needs).is_dir())
    ]


def state_of(path: Path) -> State:
    """Return what stands at a path.

    Raises:
        OSError: It cannot be read.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        return State.FOREIGN
    try:
        text = path.read_bytes().decode("utf-8", "replace")
    except FileNotFoundError:
        return State.ABSENT
    mark = _MARK_LINE.search(text)
    if mark is None:
        return State.FOREIGN
    unmarked = text[: mark.start()] + _PLACEHOLDER + text[mark.end() :]
    return State.OURS if mark[1] == _checksum(unmarked) else State.EDITED


def write(planned: Sequence[File], root: Path) -> list[tuple[File, bool]]:
    """Write files into a file tree; all of them, or none if one of them must not be replaced.

    Returns:
        Each file, and whether it was written; the others were there and are left as they are.

    Raises:
        ConfigurationError: Something else stands where a file belongs.
        OSError: A file cannot be written.
    """
    states = {file.path: state_of(_below(root, file.path)) for file in planned}
    strange = [
        f"{file.path} ({states[file.path]})"
        for file in planned
        if states[file.path] in (State.EDITED, State.FOREIGN) and not file.is_for_editing()
    ]
    if strange:
        raise ConfigurationError(
            f"not overwritten: {', '.join(strange)}; move it away first. Nothing was written"
        )
    done = []
    for file in planned:
        wanted = not (file.is_for_editing() and states[file.path] is not State.ABSENT)
        if wanted:
            _replace(_below(root, file.path), file)
        done.append((file, wanted))
    return done


def remove(root: Path, *, dry_run: bool = False) -> tuple[list[Path], list[Path]]:
    """Remove from a file tree what `write` wrote and nobody edited.

    Returns:
        The paths of what was removed, and of what was edited and is kept.

    Raises:
        OSError: A file cannot be removed.
    """
    removed, kept = [], []
    every = {place.path: None for places in _PLACES.values() for place in places}
    for path in every:
        match state_of(_below(root, path)):
            case State.OURS:
                if not dry_run:
                    _below(root, path).unlink()
                removed.append(path)
            case State.EDITED:
                kept.append(path)
    return removed, kept


def _template(name: str) -> str:
    return (files("vevents") / "templates" / name).read_text(encoding="utf-8")


def _filled(template: str, values: dict[str, str]) -> str:
    text = _template(template)
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text.replace(_PLACEHOLDER, f"# {_MARK}{_checksum(text)}", 1)


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _below(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")


def _replace(path: Path, file: File) -> None:
    """Put a file in its place, whole or not at all, and never readable for more than it may be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path, mode=file.mode, to_owner=False) as opened:
        opened.write(file.text)
