"""`vevents tail`: print the newest events."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from vevents.cli.common import (
    json_text,
    load_settings,
    open_log,
    reader_may_leave,
    require_log,
    settings_options,
)
from vevents.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from vevents.event import Event
    from vevents.log import EventLog, Record

_LOOK_INTERVAL_S = 0.5
_WINDOW = 256


@click.command(name="tail")
@settings_options
@click.option(
    "-n", "--events", "count", type=click.IntRange(min=0), default=10, show_default=True,
    help="How many of the newest events to print.",
)  # fmt: skip
@click.option("-f", "--follow", is_flag=True, help="Go on with every event that is appended.")
def command(
    dir_: str | None, config: str | None, log_level: str | None, count: int, follow: bool
) -> int:
    """Print the newest events as JSON lines.

    Each line has `seq`, `state` (pending, delivered or rejected) and `event`, the event in the
    shape that the API takes; where that has `sourceId`, a frame of the log shows as `frame` with
    its sequence number in media.ring and its size in bytes.

    Reads only: it works while a writer runs.
    """
    settings = load_settings(dir_, config, log_level)
    require_log(settings)
    with open_log(settings, read_only=True) as log, reader_may_leave():
        next_seq = _print_from(log, max(1, log.stats("events").last_seq - count + 1))
        while follow:
            time.sleep(_LOOK_INTERVAL_S)
            next_seq = _print_from(log, next_seq)
    return ExitCode.OK


def _print_from(log: EventLog, next_seq: int) -> int:
    from vevents.log import READABLE

    while True:
        records, _ = log.read_batch("events", next_seq, READABLE, _WINDOW)
        if not records:
            return next_seq
        for record in records:
            click.echo(json_text(_line(log, record)))
        next_seq = records[-1].seq + 1


def _line(log: EventLog, record: Record) -> dict[str, Any]:
    line: dict[str, Any] = {"seq": record.seq, "state": record.state}
    try:
        return line | {"event": event_as_json(log.decode(record))}
    except ValueError as error:
        return line | {"unreadable": str(error)}


def event_as_json(event: Event) -> dict[str, Any]:
    """Return an event in the API's shape, with the log's frames in place of uploaded images."""
    from vevents.event import FrameRef
    from vevents.wire import event_to_json, required_frames

    shown = event_to_json(
        event,
        source_ids={frame.seq: "" for frame in required_frames(event)},
        use_case_id="",
    )
    if event.use_case_id is None:
        del shown["useCaseId"]
    for image, entry in zip(event.images, shown.get("images", ()), strict=True):
        for frame, id_key, key in (
            (image.frame, "sourceId", "frame"),
            (image.input_frame, "inputSourceId", "inputFrame"),
        ):
            if isinstance(frame, FrameRef):
                del entry[id_key]
                entry[key] = {"seq": frame.seq, "size": frame.size}
    return shown
