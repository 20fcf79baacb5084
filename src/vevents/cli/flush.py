"""`vevents flush`: hand what is pending over to the API."""

from __future__ import annotations

import dataclasses
import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

import click

from vevents.cli.common import (
    DURATION,
    SIZE,
    human_size,
    load_settings,
    open_log,
    progress_line,
    require_log,
    settings_options,
)
from vevents.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from vevents.delivery.flusher import FlushReport


@click.command(name="flush")
@settings_options
@click.option("--api-url", metavar="URL", help="Base of the API.  [env: API_URL]")
@click.option(
    "--use-case",
    metavar="ID",
    help="Use case of the events that name none.  [env: VEVENTS_USE_CASE]",
)
@click.option(
    "--timeout", type=DURATION, help="Begin no request after this time, for example 90s or 5min."
)
@click.option("--max-events", type=click.IntRange(min=1), help="Hand over at most so many events.")
@click.option("--max-bytes", type=SIZE, help="Send at most so many bytes, for example 20MB.")
@click.option("--json", "as_json", is_flag=True, help="Report as one JSON object.")
def command(
    dir_: str | None,
    config: str | None,
    log_level: str | None,
    api_url: str | None,
    use_case: str | None,
    timeout: float | None,
    max_events: int | None,
    max_bytes: int | None,
    as_json: bool,
) -> int:
    """Send what is pending to the API.

    Frames go first, then the events in batches. What is delivered is marked as such at once, so
    the command may be stopped or may crash at any moment. Ctrl-C lets the current request finish;
    a second one does not wait. The API key comes from ROBOFLOW_API_KEY or from the TOML file.

    Exit codes: 0 all delivered, 1 error, 2 settings, 3 try later, 4 key not accepted, 5 some
    events were set aside, 6 another flush is running, 7 a limit was reached, 130 interrupted.
    """
    settings = load_settings(dir_, config, log_level, api_url=api_url, use_case=use_case)
    require_log(settings)
    settings.require_api_key()

    from vevents.delivery.setup import make_client, make_flusher

    with (
        _stop_on_signal() as received,
        open_log(settings) as log,
        make_client(settings) as client,
        progress_line() as show,
    ):
        report = make_flusher(settings, log, client).flush(
            progress=lambda step: show(
                f"{step.images_delivered} images, events",
                step.delivered + step.rejected,
                step.total,
            ),
            should_stop=lambda: bool(received),
            timeout_s=timeout,
            max_events=max_events,
            max_bytes=max_bytes,
        )
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(report) | {"offline": report.offline}))
    else:
        click.echo(describe(report))
    if report.message is not None:
        click.echo(f"vevents: {report.stopped_reason}: {report.message}", err=True)
    return exit_code(report, received)


def exit_code(report: FlushReport, received: list[int]) -> ExitCode:
    """Return the exit code for a report.

    Args:
        report: What the pass did.
        received: The signals that asked the pass to stop.
    """
    from vevents.delivery.sender import StopReason

    match report.stopped_reason:
        case None:
            return ExitCode.REJECTED if report.rejected else ExitCode.OK
        case StopReason.OFFLINE | StopReason.SERVER | StopReason.THROTTLED:
            return ExitCode.TRY_LATER
        case StopReason.UNAUTHORIZED:
            return ExitCode.UNAUTHORIZED
        case StopReason.NO_USE_CASE:
            return ExitCode.USAGE
        case StopReason.INTERRUPTED:
            terminated = received[:1] == [signal.SIGTERM]
            return ExitCode.TERMINATED if terminated else ExitCode.INTERRUPTED
        case _:
            return ExitCode.LIMIT


def describe(report: FlushReport) -> str:
    """Return a report for people: what happened, and what is left."""
    parts = [f"{report.delivered} events delivered"]
    optional = (
        (report.images_delivered, "images uploaded"),
        (report.rejected, "events set aside"),
        (report.images_rejected, "images refused"),
        (report.images_missing, "images gone before they could be sent"),
        (report.orphans, "images without an event set aside"),
    )
    parts += [f"{count} {what}" for count, what in optional if count]
    parts.append(f"{report.pending_after} pending")
    return (
        f"{', '.join(parts)} ({human_size(report.bytes_sent)} in {report.requests} requests, "
        f"{report.duration_s:.1f} s)"
    )


@contextmanager
def _stop_on_signal() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM; after the first one they act as usual again."""
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, _: FrameType | None) -> None:
        received.append(number)
        restore()

    for number in before:
        signal.signal(number, note)
    try:
        yield received
    finally:
        restore()
