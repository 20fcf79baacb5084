"""What several subcommands share: options, settings, opening the log, figures for people."""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vevents.errors import ConfigurationError
from vevents.settings import Settings, parse_duration, parse_size, resolve

if TYPE_CHECKING:
    from vevents.log import EventLog, Stream

STREAMS: tuple[Stream, ...] = ("events", "media", "delivery")
_Function = TypeVar("_Function", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--dir", "dir_", metavar="DIR", help="Directory of the log.  [env: VEVENTS_DIR]"),
    click.option(
        "--config",
        metavar="FILE",
        help="TOML file with settings.  [env: VEVENTS_CONFIG; default: ./vevents.toml, "
        "~/.config/vevents/config.toml, /etc/vevents.toml]",
    ),
    click.option(
        "--log-level",
        metavar="LEVEL",
        help="debug, info, warning or error.  [env: VEVENTS_LOG_LEVEL; default: warning]",
    ),
)


if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]
else:  # the click of Debian 12 takes no parameter
    _ParamType = click.ParamType


class Parsed(_ParamType):
    """An option that a function of `vevents.settings` parses."""

    def __init__(self, name: str, parse: Callable[[object], Any]) -> None:
        self.name = name
        self.parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


SIZE = Parsed("size", parse_size)
DURATION = Parsed("duration", parse_duration)


class GroupedOptions(click.Command):
    """A command whose help shows its options in groups.

    Args:
        groups: The names of the parameters by the group's heading; those in none join the last.
    """

    def __init__(self, *args: Any, groups: Mapping[str, Sequence[str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._groups = groups

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section for each group."""
        records = {
            param.name: record
            for param in self.get_params(ctx)
            if (record := param.get_help_record(ctx)) is not None
        }
        sections = {
            heading: [records.pop(name) for name in names]
            for heading, names in self._groups.items()
        }
        [*sections.values()][-1].extend(records.values())
        for heading, rows in sections.items():
            with formatter.section(heading):
                formatter.write_dl(rows)


def settings_options(function: _Function) -> _Function:
    """Add the options that every subcommand with a log has."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def load_settings(
    dir_: str | None, config: str | None, log_level: str | None, **flags: object
) -> Settings:
    """Gather the settings and set up the messages on standard error.

    Raises:
        ConfigurationError: A setting is wrong.
    """
    setup_messages("warning")
    settings = resolve({"dir": dir_, "config": config, "log_level": log_level, **flags})
    setup_messages(settings.log_level)
    return settings


def setup_messages(level: str, formatter: logging.Formatter | None = None) -> None:
    """Let the library's messages of this level and above appear on standard error."""
    handler = logging.StreamHandler(sys.stderr)
    usual = logging.Formatter("vevents: %(levelname)s: %(message)s")
    handler.setFormatter(usual if formatter is None else formatter)
    logger = logging.getLogger("vevents")
    logger.handlers[:] = [handler]
    logger.setLevel(level.upper())


@contextmanager
def progress_line() -> Iterator[Callable[[str, int, int], None]]:
    """Show how far something is, on a terminal; nothing where the output goes to a file.

    Yields:
        A function to call with what is being done, how much of it is done, and how much there is.
    """
    if not sys.stderr.isatty():
        yield lambda _what, _done, _total: None
        return
    with click.progressbar(length=1, file=sys.stderr, width=30) as bar:

        def show(what: str, done: int, total: int) -> None:
            bar.label = what
            bar.length = max(total, 1)
            bar.update(done - bar.pos)

        yield show


def say(text: str) -> None:
    """Print a report: with escapes for what standard output cannot spell, and to the end.

    A reader who has seen enough (`| head -1`) does not change what the command does or its exit
    code.
    """
    with reader_may_leave():
        click.echo(printable(text))


@contextmanager
def reader_may_leave() -> Iterator[None]:
    """Leave the block quietly when nobody reads standard output any more."""
    try:
        yield
    except BrokenPipeError:
        # The interpreter's last flush must not fail as well.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def printable(text: str) -> str:
    """Return a text with escapes in place of the letters that standard output cannot spell."""
    encoding = sys.stdout.encoding or "ascii"
    try:
        text.encode(encoding, sys.stdout.errors or "strict")
    except UnicodeEncodeError:
        return text.encode(encoding, "backslashreplace").decode(encoding)
    return text


def json_text(found: object, *, indent: int | None = None) -> str:
    """Return JSON for standard output, with its own escapes where `printable` would put others."""
    text = json.dumps(found, ensure_ascii=False, indent=indent)
    return text if printable(text) == text else json.dumps(found, indent=indent)


def require_log(settings: Settings) -> Path:
    """Return the log's directory, and make sure that there is one.

    Opening would create it, and a wrong path in a hook would then look like an empty log. A
    RAM-first log that is not there since the last boot is restored.

    Raises:
        ConfigurationError: No directory is named, or there is no log in it.
        LogError: It could not be restored.
        OSError: It could not be restored, or the directory may not be looked at.
    """
    from vevents.files import is_there

    directory = settings.require_directory()
    copied = settings.persist_dir is not None and is_there(settings.persist_dir / "events.copy")
    if copied and not is_there(directory / "events.ring"):
        restore_log(settings)
    if not is_there(directory / "events.ring"):
        raise ConfigurationError(f"there is no log in {directory}; is it the right directory?")
    return directory


def restore_log(settings: Settings) -> bool:
    """Make the log of the settings RAM-first. Returns whether it was taken from its copy.

    Raises:
        ConfigurationError: No copy is named.
    """
    from vevents.log import restore

    if settings.persist_dir is None:
        raise ConfigurationError(
            "where is the copy? Set VEVENTS_PERSIST_DIR, or persist_dir in vevents.toml"
        )
    return restore(settings.require_directory(), settings.persist_dir, settings.persist_interval_s)


def open_log(settings: Settings, *, read_only: bool = False) -> EventLog:
    """Open the log of the settings; one that is opened for writing is created if absent.

    A file that was no ring any more is set aside by that, which is said on standard error: the
    figures of the new one would look as if all were well.
    """
    from vevents.files import is_there
    from vevents.log import EventLog

    directory = settings.require_directory()
    try:
        log = EventLog(directory, read_only=read_only, **settings.log_options())
    except OSError as error:
        if error.errno != errno.EROFS or not is_there(directory / "events.ring"):
            raise
        # A card that is worn out, or an error of the file system, makes it so for good.
        reason = (
            f"{error.strerror}, and this has to write; `vevents recover {directory} --into DIR` "
            "copies the log to where it can be flushed from"
        )
        raise OSError(error.errno, reason, error.filename) from None
    for warning in set_aside(log):
        logging.getLogger("vevents").warning("%s", warning)
    return log


def set_aside(log: EventLog) -> list[str]:
    """Say which files of a log were no rings any more when it was opened."""
    found = []
    # No figures are asked for, which costs reads, where nothing was ever set aside.
    for stream in STREAMS:
        kept = sorted(path.name for path in log.directory.glob(f"{stream}.ring.damaged-*"))
        if kept and log.stats(stream).set_aside:
            found.append(
                f"{log.directory}: {stream}.ring was no ring any more; it is kept "
                f"({', '.join(kept)}), and a new one begins without what it held"
            )
    return found


def human_size(size: int) -> str:
    """Return bytes as people read them.

    Example:
        >>> human_size(67108864), human_size(900)
        ('64.0 MiB', '900 B')
    """
    if size < 1024:
        return f"{size} B"
    number = float(size)
    for unit in ("KiB", "MiB", "GiB"):
        number /= 1024
        if number < 1024:
            return f"{number:.1f} {unit}"
    return f"{number / 1024:.1f} TiB"


def human_duration(seconds: float) -> str:
    """Return a duration as people read it, in its largest sensible unit.

    Example:
        >>> human_duration(42), human_duration(5400), human_duration(3 * 86400)
        ('42 s', '90 min', '72 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7_200:
        return f"{seconds / 60:.0f} min"
    if seconds < 4 * 86_400:
        return f"{seconds / 3_600:.0f} h"
    return f"{seconds / 86_400:.0f} days"
