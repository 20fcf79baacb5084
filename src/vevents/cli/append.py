"""`vevents append`: write events that come as JSON lines."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from vevents.cli.common import load_settings, open_log, say, settings_options
from vevents.cli.exit_codes import ExitCode
from vevents.errors import EventValidationError, LogError

if TYPE_CHECKING:
    from vevents.event import Event, Frame


@click.command(name="append")
@settings_options
@click.argument("lines", type=click.File("rb"), default="-", metavar="[FILE]")
@click.option("--strict", is_flag=True, help="Stop at the first line that is refused.")
@click.option("--sync", is_flag=True, help="Return only when the events would survive a power cut.")
@click.option("--json", "as_json", is_flag=True, help="Report as one JSON object.")
def command(
    dir_: str | None,
    config: str | None,
    log_level: str | None,
    lines: IO[bytes],
    strict: bool,
    sync: bool,
    as_json: bool,
) -> int:
    """Append events given as JSON lines.

    Reads FILE, or standard input, with one event per line in the shape that the API takes.
    `eventId` and `timestamp` may be left out. An image entry may name files with `frame` and
    `inputFrame`; they are stored with the event. The log is created if there is none.

    A line that is no valid event is reported with its number and passed over, and the exit code
    is 5. With --strict the lines behind it are not read. When the log takes no more, because it is
    full and told to refuse or the disk failed, the exit code is 1, and the line is named from which
    on nothing is appended.
    """
    from vevents.event import Event

    settings = load_settings(dir_, config, log_level)
    appended = 0
    refused = 0
    first_seq = last_seq = None
    failed = False
    with open_log(settings) as log:
        number = 0
        try:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                try:
                    receipt = log.append(_with_frames(Event.from_json(_parse(line))))
                except EventValidationError as error:
                    refused += 1
                    click.echo(f"vevents: line {number}: {error}", err=True)
                    if strict:
                        break
                    continue
                appended += 1
                first_seq = receipt.seq if first_seq is None else first_seq
                last_seq = receipt.seq
        except (LogError, OSError) as error:
            # Whoever goes on later has to know where: a line that is appended twice is two events.
            failed = True
            click.echo(
                f"vevents: line {number}: {error}; nothing is appended from here on", err=True
            )
        if sync:
            try:
                log.sync()
            except OSError as error:
                failed = True
                click.echo(f"vevents: not synced: {error}", err=True)
    if as_json:
        say(
            json.dumps(
                {
                    "appended": appended,
                    "refused": refused,
                    "first_seq": first_seq,
                    "last_seq": last_seq,
                }
            )
        )
    else:
        say(f"{appended} events appended, {refused} lines refused")
    if failed:
        return ExitCode.ERROR
    return ExitCode.REJECTED if refused else ExitCode.OK


def _with_frames(event: Event) -> Event:
    """Read the image files here, so that a missing file is the line's fault and not the log's."""
    images = tuple(
        replace(
            image,
            frame=_read(image.frame, f"images[{index}].frame"),
            input_frame=_read(image.input_frame, f"images[{index}].inputFrame"),
        )
        for index, image in enumerate(event.images)
    )
    return replace(event, images=images)


def _read(frame: Frame | None, field: str) -> Frame | None:
    if not isinstance(frame, Path):
        return frame
    try:
        return frame.read_bytes()
    except OSError as error:
        raise EventValidationError(field, f"{frame}: {error.strerror}") from error


def _parse(line: bytes) -> object:
    try:
        return json.loads(line, parse_constant=_refuse_constant)
    except ValueError as error:
        raise EventValidationError("event", f"not JSON: {error}") from None
    except RecursionError:
        raise EventValidationError("event", "not an event: nested too deeply") from None


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")
