"""`vevents restore`: put a RAM-first log into memory, from its copy on flash."""

from __future__ import annotations

import json

import click

from vevents.cli.common import load_settings, restore_log, say, settings_options
from vevents.cli.exit_codes import ExitCode


@click.command(name="restore")
@settings_options
@click.option(
    "--persist-dir",
    metavar="DIR",
    help="Directory of the copy, on flash.  [env: VEVENTS_PERSIST_DIR]",
)
@click.option(
    "--persist-interval",
    metavar="TIME",
    help="Longest time until an event is in the copy, 0 for only when asked.  "
    "[env: VEVENTS_PERSIST_INTERVAL; default: 10min]",
)
@click.option("--json", "as_json", is_flag=True, help="Report as one JSON object.")
def command(
    dir_: str | None,
    config: str | None,
    log_level: str | None,
    persist_dir: str | None,
    persist_interval: str | None,
    as_json: bool,
) -> int:
    """Put a RAM-first log into memory, from its copy on flash.

    Once after each boot, before anybody opens the log: the copy in --persist-dir goes to --dir,
    which is on a tmpfs. Where there is no copy yet, the next who opens the log makes it, and the
    copy with it. Where the log is in memory already, nothing is done. With persist_dir in the
    settings, every command of vevents that opens the log does this by itself; programs in C call
    vev_log_restore().

    Exit codes: 0 the log can be opened, 1 it could not be restored, 2 settings.
    """
    settings = load_settings(
        dir_, config, log_level, persist_dir=persist_dir, persist_interval=persist_interval
    )
    restored = restore_log(settings)
    if as_json:
        report = {
            "dir": str(settings.directory),
            "persist_dir": str(settings.persist_dir),
            "restored": restored,
        }
        say(json.dumps(report))
    elif restored:
        say(f"{settings.directory} restored from {settings.persist_dir}")
    else:
        say(f"nothing to restore; {settings.directory} has its copy in {settings.persist_dir}")
    return ExitCode.OK
