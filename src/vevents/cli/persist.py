"""`vevents persist`: bring the copy of a RAM-first log up to date."""

from __future__ import annotations

import json
import signal
import sys
import time
from typing import TYPE_CHECKING

import click

from vevents.cli.common import (
    DURATION,
    human_size,
    load_settings,
    open_log,
    require_log,
    say,
    settings_options,
)
from vevents.cli.exit_codes import ExitCode
from vevents.errors import ConfigurationError, LogError

if TYPE_CHECKING:
    from vevents.log import EventLog

_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@click.command(name="persist")
@settings_options
@click.option(
    "--interval",
    type=DURATION,
    metavar="TIME",
    help="Go on, once in this time, until SIGTERM or Ctrl-C; then once more.",
)
@click.option("--json", "as_json", is_flag=True, help="Report each time as one JSON object.")
def command(
    dir_: str | None,
    config: str | None,
    log_level: str | None,
    interval: float | None,
    as_json: bool,
) -> int:
    """Bring the copy of a RAM-first log up to date.

    Writes the pages that changed to the copy on flash, and returns when a power cut would lose
    nothing of what was appended before. Programs that hold the log open do so by themselves, once
    in the interval that the log was given; this is for a button, a timer, or a line in a script
    for when the power fails.

    With --interval it goes on when the flash fails, and tries again the next time.

    Exit codes: 0 done, 1 the flash failed or is not there, 2 settings, or the log has no copy.
    """
    if interval is not None and interval <= 0:
        raise click.UsageError("--interval must be more than 0")
    settings = load_settings(dir_, config, log_level)
    require_log(settings)
    if interval is None:
        with open_log(settings) as log:
            _require_copy(log)
            _persist(log, as_json)
        return ExitCode.OK
    # Blocked and waited for, so that none comes between the end of a pass and the next wait.
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    failed = False
    with open_log(settings) as log:
        _require_copy(log)
        stopped = False
        while not stopped:
            began_s = time.monotonic()
            failed = not _try(log, as_json)
            left_s = max(0.0, began_s + interval - time.monotonic())
            stopped = signal.sigtimedwait(_STOPPING, left_s) is not None
        failed = not _try(log, as_json)
    return ExitCode.ERROR if failed else ExitCode.OK


def _require_copy(log: EventLog) -> None:
    if log.copy is None:
        raise ConfigurationError(
            f"{log.directory} has no copy to bring up to date: it is not RAM-first; "
            "set persist_dir, see vevents restore"
        )


def _try(log: EventLog, as_json: bool) -> bool:
    try:
        _persist(log, as_json)
    except (LogError, OSError) as error:
        print(f"vevents: {error}", file=sys.stderr, flush=True)
        return False
    return True


def _persist(log: EventLog, as_json: bool) -> None:
    report = log.persist()
    copy = log.copy
    assert copy is not None
    if as_json:
        say(json.dumps({"persist_dir": str(copy.directory)} | report._asdict()))
    else:
        say(
            f"{copy.directory}: {human_size(report.bytes_written)} in {report.writes} writes and "
            f"{report.syncs} syncs; durable up to event {report.durable_seq}"
        )
    sys.stdout.flush()
