"""`vevents resume`: end the pause."""

from __future__ import annotations

import click

from vevents.cli.common import load_settings, require_log, say, settings_options
from vevents.cli.exit_codes import ExitCode


@click.command(name="resume")
@settings_options
def command(dir_: str | None, config: str | None, log_level: str | None) -> int:
    """Let deliveries go on after a pause.

    A running agent goes on by itself within seconds; otherwise the next flush delivers.
    """
    from vevents.delivery.pause import resume

    directory = require_log(load_settings(dir_, config, log_level))
    held = resume(directory)
    say("delivery may go on" if held else "delivery was not paused")
    return ExitCode.OK
