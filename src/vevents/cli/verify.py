"""`vevents verify`: read everything and name what is damaged."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from vevents.cli.common import STREAMS, load_settings, open_log, require_log, say, settings_options
from vevents.cli.exit_codes import ExitCode
from vevents.errors import LogCorruptError, LogVersionError

if TYPE_CHECKING:
    from vevents.log import EventLog, Stream, Verification


@click.command(name="verify")
@settings_options
@click.option("--json", "as_json", is_flag=True, help="Report as one JSON object.")
def command(dir_: str | None, config: str | None, log_level: str | None, as_json: bool) -> int:
    """Read everything and name what is damaged.

    Every record is decompressed. Nothing is changed, and a writer may be running. Exit code 0:
    clean. 8: some records are damaged; the log works without them. 9: a file is no ring, or cannot
    be read.
    """
    settings = load_settings(dir_, config, log_level)
    try:
        require_log(settings)
        with open_log(settings, read_only=True) as log:
            found = look(log)
    except (LogCorruptError, LogVersionError, OSError) as error:
        if as_json:
            say(json.dumps({"usable": False, "error": str(error)}))
        else:
            say(f"unusable: {error}")
        return ExitCode.UNUSABLE
    if as_json:
        say(json.dumps({"usable": True, "streams": as_json_object(found)}))
    else:
        show(found)
    return ExitCode.DAMAGED if any(v.damaged for v in found.values()) else ExitCode.OK


def look(log: EventLog) -> dict[Stream, Verification]:
    """Verify all three rings."""
    return {stream: log.verify(stream) for stream in STREAMS}


def as_json_object(found: dict[Stream, Verification]) -> dict[str, Any]:
    """Return the findings by stream, ranges as objects."""
    return {
        stream: {
            "good": v.good,
            "damaged": v.damaged,
            "ranges": [r._asdict() for r in v.ranges],
        }
        for stream, v in found.items()
    }


def show(found: dict[Stream, Verification]) -> None:
    """Print the findings for a person."""
    for stream, v in found.items():
        verdict = "clean" if not v.damaged else f"{v.damaged} damaged ranges"
        say(f"{stream:9} {v.good} good records, {verdict}")
        for r in v.ranges:
            where = f"bytes {r.offset} to {r.offset + r.size}" if r.size else "a whole segment"
            what = (
                f"records {r.first_seq} to {r.first_seq + r.record_count - 1}"
                if r.record_count
                else "-"
            )
            say(f"          {where}: {what}")
        if len(v.ranges) < v.damaged:
            say(f"          and {v.damaged - len(v.ranges)} more")
