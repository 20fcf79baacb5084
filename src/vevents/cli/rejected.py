"""`vevents rejected`: the dead letters, and what to do with them."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vevents.cli.common import (
    DURATION,
    Parsed,
    human_duration,
    json_text,
    load_settings,
    open_log,
    printable,
    reader_may_leave,
    require_log,
    say,
    settings_options,
)
from vevents.cli.exit_codes import ExitCode
from vevents.settings import parse_duration

if TYPE_CHECKING:
    from vevents.delivery.rejected import DeadLetter, DeadLetters

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _parse_since(value: object) -> datetime | float:
    """Return a moment, or for `3d`, `2h`, `90s` the seconds that it is ago."""
    if isinstance(value, str) and "-" in value:
        moment = datetime.fromisoformat(value)
        return moment if moment.tzinfo is not None else moment.astimezone()
    return parse_duration(value)


_SINCE = Parsed("time", _parse_since)


def _filters(function: _Function) -> _Function:
    """Add the options that choose among the dead letters."""
    for option in (
        click.option(
            "--since",
            type=_SINCE,
            metavar="TIME",
            help="Only what was refused after TIME: 2h or 3d ago, or 2026-10-01T06:00.",
        ),
        click.option(
            "--type", "types", multiple=True, metavar="TYPE",
            help="Only this type of event, or image; may be given several times.",
        ),
        click.option(
            "--code", "codes", multiple=True, metavar="CODE",
            help="Only what was refused for this reason; may be given several times.",
        ),
    ):  # fmt: skip
        function = option(function)
    return function


def _chosen_by_id(function: _Function) -> _Function:
    function = click.option("--all", "every", is_flag=True, help="All of them.")(function)
    return click.argument("ids", nargs=-1, metavar="[ID]...")(function)


_WAIT = click.option(
    "--wait", type=DURATION, default="10s", show_default=True,
    help="How long to wait for a flush that is running.",
)  # fmt: skip
_UNLISTED = click.option(
    "--unlisted", is_flag=True,
    help="Instead of those on the list: what is still in the log and was refused so long ago that "
    "the note of why was overwritten. Their time is that of the event.",
)  # fmt: skip
_DRY_RUN = click.option("--dry-run", is_flag=True, help="Only say what would be done.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Report as one JSON object.")


@click.group(name="rejected")
def command() -> None:
    """Show, retry, export or drop what was refused for good.

    What the server refuses, and what it would refuse for its time, is set aside by `vevents flush`
    with its reason, so that it does not hold up the rest. It stays listed until a newer refusal
    needs its place (half of delivery.ring is for them) and until then can be sent again with its
    id, exported, or dropped from the list.

    An ID is that of an event, or of an image, or any beginning of it that is unique.
    """


@command.command(name="list")
@settings_options
@_filters
@click.option(
    "-n", "--limit", type=click.IntRange(min=1), metavar="N", help="Only the newest N of them."
)
@_UNLISTED
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def list_(
    dir_: str | None,
    config: str | None,
    log_level: str | None,
    codes: tuple[str, ...],
    types: tuple[str, ...],
    since: datetime | float | None,
    limit: int | None,
    unlisted: bool,
    as_json: bool,
) -> int:
    """List what was refused, the newest first.

    Reads only: it works while a writer or a flush runs. KEPT says where the event itself is: in
    the log, in the note of its refusal only (a retry appends it anew), or gone.
    """
    settings = load_settings(dir_, config, log_level)
    directory = require_log(settings)
    with open_log(settings, read_only=True) as log:
        from vevents.delivery.rejected import DeadLetters

        dead = DeadLetters(log)
        letters = _filtered(_letters(dead, unlisted), codes, types, since)
        shown = letters[:limit]
        if as_json:
            _print_lines(json_text(letter.to_json()) for letter in shown)
            return ExitCode.OK
        lines = _table(shown)
        if len(shown) < len(letters):
            lines.append(f"and {len(letters) - len(shown)} more")
        lines += _footer(dead, len(letters), str(directory))
        _print_lines(lines)
    return ExitCode.OK


@command.command(name="show")
@settings_options
@click.argument("id_", metavar="ID")
def show(dir_: str | None, config: str | None, log_level: str | None, id_: str) -> int:
    """Print one as JSON, with its reason and its images.

    The event is in the shape that the API takes, as `vevents tail` prints it; of each image it
    says what became of it.
    """
    settings = load_settings(dir_, config, log_level)
    require_log(settings)
    with open_log(settings, read_only=True) as log:
        from vevents.delivery.rejected import DeadLetters

        dead = DeadLetters(log)
        for letter in _by_id(dead.letters, [id_]):
            shown = letter.to_json()
            if letter.stream == "events":
                from vevents.cli.tail import event_as_json

                try:
                    shown["event"] = event_as_json(dead.event(letter))
                except ValueError as error:
                    shown["unreadable"] = str(error)
            say(json_text(shown | {"images": dead.images(letter)}, indent=2))
    return ExitCode.OK


@command.command(name="retry")
@settings_options
@_filters
@_chosen_by_id
@_UNLISTED
@_DRY_RUN
@_WAIT
@_JSON
def retry(
    dir_: str | None,
    config: str | None,
    log_level: str | None,
    codes: tuple[str, ...],
    types: tuple[str, ...],
    since: datetime | float | None,
    ids: tuple[str, ...],
    every: bool,
    unlisted: bool,
    dry_run: bool,
    wait: float,
    as_json: bool,
) -> int:
    """Make events and images pending again; the next flush sends them.

    Name them by ID, with --all, or with --code, --type, --since. An event keeps its id and its
    time, so what the server has of it already is overwritten. One that is in the log no more is
    appended anew. An image goes with its events, which are sent again.

    Exit code 5 if some cannot be retried: nothing is left of them, a later event of the same id
    was sent or is pending, or the log is full and told to refuse. The others are retried.
    """
    settings = load_settings(dir_, config, log_level)
    directory = require_log(settings)
    _require_choice(ids, every, codes, types, since)
    from vevents.delivery.rejected import DeadLetters, waiting_lock

    def choose(dead: DeadLetters) -> list[DeadLetter]:
        return _chosen(_letters(dead, unlisted), ids, codes, types, since)

    with open_log(settings, read_only=dry_run) as log:
        if dry_run:
            return _report_dry_run("retried", choose(DeadLetters(log)), as_json)
        with waiting_lock(directory, wait):
            dead = DeadLetters(log)
            done = dead.retry(choose(dead))
    if as_json:
        report = {
            "in_place": done.in_place,
            "appended": done.appended,
            "failed": [letter.to_json() | {"problem": why} for letter, why in done.failed],
        }
        say(json_text(report))
    else:
        say(f"{done.in_place} pending again, {done.appended} appended anew")
        for letter, why in done.failed:
            click.echo(f"vevents: {letter.id}: {why}", err=True)
    return ExitCode.REJECTED if done.failed else ExitCode.OK


@command.command(name="export")
@settings_options
@_filters
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option(
    "--to", required=True, metavar="PATH",
    help="A directory, or a file that ends in .jsonl; - for standard output.",
)  # fmt: skip
@click.option("--use-case", metavar="ID", help="Use case of the events that name none.")
@click.option("--force", is_flag=True, help="Overwrite an earlier export.")
@_JSON
def export(
    dir_: str | None,
    config: str | None,
    log_level: str | None,
    codes: tuple[str, ...],
    types: tuple[str, ...],
    since: datetime | float | None,
    ids: tuple[str, ...],
    to: str,
    use_case: str | None,
    force: bool,
    as_json: bool,
) -> int:
    """Write events as JSON lines, and their frames as files.

    Without IDs and filters all of them. Into a directory go events.jsonl, which `vevents append`
    takes when it runs there, frames/ and reasons.jsonl; into a file only the events, with the ids
    of those images that were uploaded. The list stays as it is.
    """
    settings = load_settings(dir_, config, log_level, use_case=use_case)
    require_log(settings)
    path = Path(to)
    to_directory = path.is_dir() or (to != "-" and path.suffix != ".jsonl")
    if to_directory and path.exists() and not path.is_dir():
        raise click.BadParameter(f"{to} is a file, and does not end in .jsonl", param_hint="--to")
    if to != "-" and not to_directory and path.exists() and not force:
        raise click.BadParameter(f"{to} exists; --force overwrites it", param_hint="--to")
    from vevents.delivery.rejected import EVENTS_FILE, DeadLetters
    from vevents.files import replaced

    if to_directory and not force and (path / EVENTS_FILE).exists():
        raise click.BadParameter(
            f"{path / EVENTS_FILE} exists; --force overwrites it", param_hint="--to"
        )
    with open_log(settings, read_only=True) as log:
        dead = DeadLetters(log)
        letters = _chosen(dead.letters, ids, codes, types, since)
        done = None
        if to == "-":
            with reader_may_leave():
                done = dead.write_lines(letters, sys.stdout, use_case_id=settings.use_case_id)
                sys.stdout.flush()
        elif to_directory:
            done = dead.write_directory(
                letters, path, use_case_id=settings.use_case_id, overwrite=force
            )
        else:
            with replaced(path) as file:
                done = dead.write_lines(letters, file, use_case_id=settings.use_case_id)
    if done is None:  # whoever read it has seen enough
        return ExitCode.OK
    report = {
        "events": done.events,
        "unreadable": done.unreadable,
        "frames": done.frames,
        "frames_missing": done.frames_missing,
    }
    if as_json:
        click.echo(json.dumps(report), err=to == "-")
    else:
        text = f"{done.events} events and {done.frames} frames exported"
        if done.frames_missing:
            text += f"; {done.frames_missing} frames are not in it"
        if done.unreadable:
            text += f"; {done.unreadable} events could not be read"
        click.echo(text, err=to == "-")
    return ExitCode.OK


@command.command(name="drop")
@settings_options
@_filters
@_chosen_by_id
@_DRY_RUN
@click.option("--yes", is_flag=True, help="Do not ask.")
@_WAIT
@_JSON
def drop(
    dir_: str | None,
    config: str | None,
    log_level: str | None,
    codes: tuple[str, ...],
    types: tuple[str, ...],
    since: datetime | float | None,
    ids: tuple[str, ...],
    every: bool,
    dry_run: bool,
    yes: bool,
    wait: float,
    as_json: bool,
) -> int:
    """Strike off the list what is of no use any more.

    Name them by ID, with --all, or with --code, --type, --since. They stay counted as rejected.
    There is no way back; on a terminal it asks first.
    """
    settings = load_settings(dir_, config, log_level)
    directory = require_log(settings)
    _require_choice(ids, every, codes, types, since)
    from vevents.delivery.rejected import DeadLetters, waiting_lock

    with open_log(settings, read_only=True) as log:
        letters = _chosen(DeadLetters(log).letters, ids, codes, types, since)
    if dry_run:
        return _report_dry_run("dropped", letters, as_json)
    if letters and not yes and sys.stdin.isatty():
        # Before the lock is taken: nobody's flush waits for an answer.
        click.confirm(f"Drop {len(letters)} from the list?", abort=True, err=True)
    agreed = {(letter.stream, letter.seq, letter.at_ns) for letter in letters}
    with open_log(settings) as log, waiting_lock(directory, wait):
        dead = DeadLetters(log)
        dropped = dead.drop([x for x in dead.letters if (x.stream, x.seq, x.at_ns) in agreed])
        log.sync()
    say(json.dumps({"dropped": dropped}) if as_json else f"{dropped} dropped from the list")
    return ExitCode.OK


# --- choosing -------------------------------------------------------------------------------


def _require_choice(
    ids: Sequence[str],
    every: bool,
    codes: Sequence[str],
    types: Sequence[str],
    since: datetime | float | None,
) -> None:
    if ids and every:
        raise click.UsageError("either IDs or --all")
    if not (ids or every or codes or types or since is not None):
        raise click.UsageError("which ones? Give IDs, --all, --code, --type or --since")


def _letters(dead: DeadLetters, unlisted: bool) -> list[DeadLetter]:
    return dead.without_note() if unlisted else dead.letters


def _chosen(
    letters: Sequence[DeadLetter],
    ids: Sequence[str],
    codes: Sequence[str],
    types: Sequence[str],
    since: datetime | float | None,
) -> list[DeadLetter]:
    return _filtered(_by_id(letters, ids) if ids else letters, codes, types, since)


def _filtered(
    letters: Sequence[DeadLetter],
    codes: Sequence[str],
    types: Sequence[str],
    since: datetime | float | None,
) -> list[DeadLetter]:
    _require_known(letters, codes, types)
    since_s = since.timestamp() if isinstance(since, datetime) else None
    if isinstance(since, float | int):
        since_s = time.time() - since
    return [
        letter
        for letter in letters
        if (not codes or letter.code in codes)
        and (not types or letter.type in types)
        and (since_s is None or letter.at_ns >= since_s * 1e9)
    ]


def _require_known(
    letters: Sequence[DeadLetter], codes: Sequence[str], types: Sequence[str]
) -> None:
    """Refuse words that are neither known nor in the log: else a slip looks like good news."""
    from vevents.delivery.notes import UNKNOWN
    from vevents.delivery.report import Rejection
    from vevents.event import EventType

    for option, given, known, listed in (
        ("--code", codes, [*Rejection, UNKNOWN], {letter.code for letter in letters}),
        ("--type", types, [*EventType, "image", UNKNOWN], {letter.type for letter in letters}),
    ):
        for word in given:
            if word not in known and word not in listed:
                raise click.UsageError(f"{option} {word}: one of {', '.join(known)}")


def _by_id(letters: Sequence[DeadLetter], ids: Sequence[str]) -> list[DeadLetter]:
    from vevents.delivery.rejected import matching

    chosen: dict[tuple[str, int], DeadLetter] = {}
    for prefix in ids:
        found = matching(letters, prefix)
        exact = [letter for letter in found if letter.id == prefix]
        if not found:
            raise click.UsageError(f"{prefix}: nothing that is listed has this id")
        if len({letter.id for letter in exact or found}) > 1:
            names = ", ".join(sorted({letter.id for letter in found})[:5])
            raise click.UsageError(f"{prefix}: several ids begin like this: {names}")
        chosen |= {(letter.stream, letter.seq): letter for letter in exact or found}
    return list(chosen.values())


# --- printing -------------------------------------------------------------------------------


def _table(letters: Sequence[DeadLetter]) -> list[str]:
    if not letters:
        return []
    from vevents.delivery.rejected import short_id_size

    size = short_id_size(letters)
    rows = [("ID", "REFUSED", "TYPE", "CODE", "HTTP", "KEPT", "REASON")]
    rows += [
        (
            letter.id[:size],
            _ago(letter.at_ns),
            letter.type,
            letter.code,
            "-" if letter.status is None else str(letter.status),
            letter.place,
            " ".join(letter.reason.split()),
        )
        for letter in letters
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    # Cut for people; in a file or a pipe nothing is left out.
    limit = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        lines.append("  ".join([*cells, row[-1]])[:limit].rstrip())
    return lines


def _footer(dead: DeadLetters, count: int, directory: str) -> list[str]:
    unlisted = dead.unlisted()
    others = [
        f"{number} {what}"
        for number, what in (
            (unlisted.dropped, "dropped"),
            (unlisted.appended_anew, "appended anew"),
            (unlisted.overwritten, "without a note any more (see --unlisted)"),
        )
        if number
    ]
    line = f"{count} refused and listed" if count else f"nothing to list in {directory}"
    return [f"{line}; events not listed: {', '.join(others)}" if others else line]


def _ago(at_ns: int) -> str:
    age_s = time.time() - at_ns / 1e9
    if age_s < 0:
        return datetime.fromtimestamp(at_ns / 1e9, UTC).strftime("%Y-%m-%d")
    return f"{human_duration(age_s)} ago"


def _report_dry_run(what: str, letters: Sequence[DeadLetter], as_json: bool) -> int:
    if as_json:
        say(json.dumps({"dry_run": True, "chosen": [x.to_json() for x in letters]}))
    else:
        _print_lines([*_table(letters), f"{len(letters)} would be {what}"])
    return ExitCode.OK


def _print_lines(lines: Any) -> None:
    with reader_may_leave():
        for line in lines:
            click.echo(printable(line))
