"""`vevents export`: write what is pending as bundles."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from vevents.cli.common import (
    SIZE,
    human_size,
    load_settings,
    open_log,
    progress_line,
    require_log,
    say,
    settings_options,
)
from vevents.cli.exit_codes import ExitCode


@click.command(name="export")
@settings_options
@click.option(
    "--bundles",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Directory to write to, for example on a stick; made if its parent is there.",
)
@click.option(
    "--delivered",
    is_flag=True,
    help="Mark what was written as delivered; do not wait for a receipt.",
)
@click.option(
    "--again", is_flag=True, help="Write what was exported before, too: the stick was lost."
)
@click.option(
    "--use-case",
    metavar="ID",
    help="Name this use case in bundles of events that name none. Usually left to the other side.",
)
@click.option(
    "--max-events", type=click.IntRange(min=1), metavar="N", help="Write at most so many bundles."
)
@click.option(
    "--max-bytes",
    type=SIZE,
    metavar="SIZE",
    help="Begin no bundle once so much is written, for example 8GB.",
)
@click.option("--json", "as_json", is_flag=True, help="Report as one JSON object.")
def command(
    dir_: str | None,
    config: str | None,
    log_level: str | None,
    bundles: Path,
    delivered: bool,
    again: bool,
    use_case: str | None,
    max_events: int | None,
    max_bytes: int | None,
    as_json: bool,
) -> int:
    """Write what is pending as bundles, to be carried over an air gap.

    One file for each event, with its images, in the format that Roboflow's API and its bundle
    block use. Needs no network and no key. On the other side, `vevents import` puts them into
    another log or sends them, and leaves a receipt in the same directory.

    Exported events stay pending and are passed over by the next export. They become delivered when
    an export finds a receipt for them, or at once with --delivered. With --again they are written
    once more. Nothing doubles at the server in any case: an event keeps its id.

    Exit codes: 0 all is written, 5 some records hold no event and stay, 7 a limit was reached and
    events are left, 1 the directory is full or cannot be written (what is there is complete).
    """
    settings = load_settings(dir_, config, log_level)
    require_log(settings)

    from vevents.bundles import Exporter
    from vevents.bundles.outbox import Outbox

    outbox = Outbox(bundles, create=True)
    with open_log(settings) as log, progress_line() as show:
        exporter = Exporter(log, outbox, use_case_id=use_case, delivered=delivered, again=again)
        report = exporter.run(
            max_events=max_events,
            max_bytes=max_bytes,
            progress=lambda done, total: show("exporting", done, total),
        )
        pending = log.stats().pending
    code = ExitCode.OK
    if report.stopped_reason is not None:
        code = ExitCode.LIMIT
    elif report.unreadable:
        code = ExitCode.REJECTED
    if as_json:
        counted = dataclasses.asdict(report) | {"pending_after": pending, "exit_code": int(code)}
        say(json.dumps(counted))
        return code
    say(f"{report.exported} events exported to {bundles}, {human_size(report.bytes)} written")
    lines = {
        "are marked as delivered: they have a receipt": report.received,
        "are marked as delivered": report.marked,
        "were exported before and wait for their receipt (--again writes them once more)": (
            report.awaiting_receipt
        ),
        "stay: their time is not known before the clock is set": report.clock_not_set,
        "stay: their records hold no event; see vevents verify": report.unreadable,
    }
    for words, count in lines.items():
        if count:
            say(f"{count} events {words}")
    if report.frames_missing:
        say(f"{report.frames_missing} frames are gone or too large for a bundle")
    if report.stopped_reason is not None:
        say(f"stopped: {report.stopped_reason}; {pending} events are pending")
    return code
