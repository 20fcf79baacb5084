"""`vevents pause`: stop every delivery from a log for a while."""

from __future__ import annotations

import click

from vevents.cli.common import DURATION, load_settings, require_log, say, settings_options
from vevents.cli.exit_codes import ExitCode


@click.command(name="pause")
@settings_options
@click.option(
    "--for",
    "for_",
    type=DURATION,
    metavar="TIME",
    help="How long, for example 2h; default: no end.",
)
@click.option("--reason", metavar="TEXT", help="Shown by status and by every flush that is held.")
def command(
    dir_: str | None,
    config: str | None,
    log_level: str | None,
    for_: float | None,
    reason: str | None,
) -> int:
    """Stop every delivery from the log.

    A flush that runs ends within seconds, the agent waits, and a new flush ends at once with exit
    code 10. The log goes on taking events. The pause survives reboots. Whoever pauses again
    replaces the earlier pause. `vevents resume` ends it.
    """
    from vevents.delivery.pause import pause, read_pause

    directory = require_log(load_settings(dir_, config, log_level))
    if for_ == 0:
        raise click.UsageError("--for 0 pauses nothing; `vevents resume` ends a pause")
    pause(directory, for_s=for_, reason=reason)
    held = read_pause(directory)
    say("the pause is over already" if held is None else str(held))
    return ExitCode.OK
