"""`vevents flush`: hand what is pending over to the API."""

from __future__ import annotations

import dataclasses
import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from vevents.cli.common import (
    DURATION,
    SIZE,
    GroupedOptions,
    human_size,
    load_settings,
    open_log,
    progress_line,
    require_log,
    say,
    set_aside,
    settings_options,
)
from vevents.cli.exit_codes import ExitCode
from vevents.errors import FlushLockedError

if TYPE_CHECKING:
    from vevents.delivery.report import FlushReport

_SIGNAL_CODES = {
    signal.SIGINT: ExitCode.INTERRUPTED,
    signal.SIGTERM: ExitCode.TERMINATED,
    signal.SIGHUP: ExitCode.HUNG_UP,
}
# How long `--wait` waits that says no more.
_WAIT = "10min"
# What somebody has to do something about, also when nothing else is to be printed.
_NOT_QUIET = (ExitCode.USAGE, ExitCode.UNAUTHORIZED)


@click.command(
    name="flush",
    cls=GroupedOptions,
    groups={
        "Where from and where to": ("dir_", "api_url", "use_case", "config"),
        "What goes when": (
            "order",
            "priorities",
            "live_first",
            "uploads",
            "bundle",
            "max_rate",
            "event_age_max",
            "now",
        ),
        "Limits of this pass": ("wait", "timeout", "max_events", "max_bytes"),
        "Output": ("as_json", "quiet", "log_level"),
    },
)
@settings_options
@click.option("--api-url", metavar="URL", help="Base of the API.  [env: API_URL]")
@click.option(
    "--use-case",
    metavar="ID",
    help="Use case of the events that name none.  [env: VEVENTS_USE_CASE]",
)
@click.option(
    "--order",
    metavar="ORDER",
    help="oldest, newest, or priority: by type of event.  [env: VEVENTS_ORDER; default: oldest]",
)
@click.option(
    "--priorities",
    metavar="TYPES",
    help="For --order priority: types of events, the most important first, with commas between "
    "them.  [env: VEVENTS_PRIORITIES; default: safety alerts first]",
)
@click.option(
    "--live-first/--no-live-first",
    default=None,
    help="Send what is appended meanwhile ahead of the backlog.  [env: VEVENTS_LIVE_FIRST]",
)
@click.option(
    "--uploads",
    metavar="N",
    help="Upload at most so many images at the same time.  [env: VEVENTS_UPLOADS; default: 4]",
)
@click.option(
    "--bundle/--no-bundle",
    default=None,
    help="Send an event together with its images in one request.  [env: VEVENTS_BUNDLE]",
)
@click.option(
    "--max-rate",
    metavar="RATE",
    help="Send so many bytes per second on average, for example 200kB or 1.6Mbit.  "
    "[env: VEVENTS_MAX_RATE]",
)
@click.option(
    "--event-age-max",
    metavar="TIME",
    help="Set events aside that are older, for example 30d.  "
    "[env: VEVENTS_EVENT_AGE_MAX; default: 364d]",
)
@click.option(
    "--now",
    is_flag=True,
    help="Deliver outside the time windows, too, and although the server asked to wait (not during "
    "a pause).",
)
@click.option(
    "--wait",
    type=DURATION,
    is_flag=False,
    flag_value=_WAIT,
    metavar="TIME",
    help=f"Wait until another flush has ended, at most so long, instead of leaving with 6; without "
    f"a value {_WAIT}.",
)
@click.option(
    "--timeout",
    type=DURATION,
    metavar="TIME",
    help="Begin no request after this time, for example 90s or 5min.",
)
@click.option(
    "--max-events",
    type=click.IntRange(min=1),
    metavar="N",
    help="Hand over at most so many events.",
)
@click.option(
    "--max-bytes",
    type=SIZE,
    metavar="SIZE",
    help="Send at most so many bytes, for example 20MB.",
)
@click.option("--json", "as_json", is_flag=True, help="Report as one JSON object.")
@click.option(
    "-q", "--quiet", is_flag=True, help="Print only what somebody has to do something about."
)
def command(
    dir_: str | None,
    config: str | None,
    log_level: str | None,
    wait: float | None,
    timeout: float | None,
    max_events: int | None,
    max_bytes: int | None,
    now: bool,
    as_json: bool,
    quiet: bool,
    **flags: object,
) -> int:
    """Send what is pending to the API.

    Frames go first, then the events in batches. What is delivered is marked as such at once, so
    the command may be stopped or may crash at any moment. Ctrl-C lets the current request finish;
    a second one does not wait. The API key comes from ROBOFLOW_API_KEY or from the TOML file; with
    nothing pending no request is made and the key is not tried: `vevents check` does that.

    \b
    Exit codes:
      0    all that was pending is delivered
      1    unexpected error, or the log's disk failed
      2    wrong usage, or a setting is missing or wrong
      3    the API is not reachable or in trouble: try later
      4    the API does not accept the key
      5    some events were set aside
      6    another flush is running (see --wait)
      7    a limit was reached and events are left
      10   not now: paused, or outside the time windows
      129, 130, 143  hung up, Ctrl-C, SIGTERM; nothing is lost
    """
    with _stop_on_signal() as received:
        settings = load_settings(dir_, config, log_level, **flags)
        require_log(settings)
        settings.require_api_key()

        from vevents.delivery.lookback import lookback_warning, oldest_pending_age_s
        from vevents.delivery.setup import make_client, make_flusher

        with (
            open_log(settings) as log,
            make_client(settings) as client,
            nullcontext() if quiet else progress_line() as show,
        ):
            warnings = set_aside(log) if as_json else []  # a person was told at the opening
            oldest_age_s = oldest_pending_age_s(log, time.time())
            flusher = make_flusher(settings, log, client, any_time=now)
            try:
                report = flusher.flush(
                    progress=None
                    if show is None
                    else lambda step: show(
                        f"{step.images_delivered} images, events",
                        step.delivered + step.rejected,
                        step.total,
                    ),
                    should_stop=lambda: bool(received),
                    timeout_s=timeout,
                    max_events=max_events,
                    max_bytes=max_bytes,
                    wait_s=wait or 0.0,
                )
            except FlushLockedError:
                if received:
                    return _SIGNAL_CODES[signal.Signals(received[0])]
                raise
            # One more request; only the server that has just taken events, and wants no rest or
            # was given no limit, is asked.
            asks = report.delivered and report.stopped_reason is None and not received
            warning = lookback_warning(client, oldest_age_s) if asks else None
    code = exit_code(report, received)
    if as_json:
        more: dict[str, Any] = {
            "offline": report.offline,
            "exit_code": int(code),
            "oldest_pending_age_s": oldest_age_s,
            "lookback_days": client.lookback_days,
            "warnings": warnings if warning is None else [*warnings, warning],
        }
        say(json.dumps(dataclasses.asdict(report) | more))
    elif not quiet:
        say(describe(report))
    elif code is ExitCode.REJECTED:
        click.echo(f"vevents: {report.rejected} events were set aside", err=True)
    if report.message is not None and (not quiet or code in _NOT_QUIET):
        click.echo(f"vevents: {report.stopped_reason}: {report.message}", err=True)
    if warning is not None:
        click.echo(f"vevents: WARNING: {warning}", err=True)
    return code


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
        case StopReason.PAUSED | StopReason.OUTSIDE_WINDOW:
            return ExitCode.HELD
        case StopReason.INTERRUPTED:
            first = signal.Signals(received[0]) if received else signal.SIGINT
            return _SIGNAL_CODES[first]
        case _:
            return ExitCode.LIMIT


def describe(report: FlushReport) -> str:
    """Return a report for people: what happened, and what is left."""
    parts = [f"{report.delivered} events delivered"]
    reasons = ", ".join(
        f"{count} {reason}" for reason, count in sorted(report.rejected_by_reason.items())
    )
    optional = (
        (report.bundles, "of them together with their images"),
        (report.images_delivered, "images uploaded"),
        (report.rejected, f"events set aside ({reasons})"),
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
    """Collect SIGINT, SIGTERM and SIGHUP; after the first one they act as usual again."""
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in _SIGNAL_CODES}
    # What somebody had ignored (nohup, a shell's background) stays ignored.
    before = {number: was for number, was in before.items() if was is not signal.SIG_IGN}

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
