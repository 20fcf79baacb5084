"""`vevents status`: what the log holds, and whether its figures add up."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from vevents.cli.common import (
    human_duration,
    human_size,
    load_settings,
    open_log,
    require_log,
    settings_options,
)
from vevents.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from vevents.log import EventLog, Stream, StreamStats

_STREAMS: tuple[Stream, ...] = ("events", "media", "delivery")
# A writer may append between two of the figures; a law that is broken stays broken.
_LOOKS_MAX = 5


@click.command(name="status")
@settings_options
@click.option("--json", "as_json", is_flag=True, help="Report as one JSON object.")
def command(dir_: str | None, config: str | None, log_level: str | None, as_json: bool) -> int:
    """Show what the log holds.

    Reads only: it works while a writer runs, and for every user who may read the directory. For
    each stream it prints the conservation law

        appended = delivered + pending + rejected + evicted + lost

    with ✓ when it holds. Exit code 1 when it does not.
    """
    from vevents.delivery.schedule import Gate

    settings = load_settings(dir_, config, log_level)
    directory = require_log(settings)
    with open_log(settings, read_only=True) as log:
        figures = {stream: _look(log, stream) for stream in _STREAMS}
        age_s = _oldest_pending_age_s(log)
    held = Gate(directory, settings.windows).closed()
    conserved = {stream: stats.conserved for stream, stats in figures.items()}
    if as_json:
        report: dict[str, Any] = {
            "directory": str(directory),
            "conserved": all(conserved.values()),
            "oldest_pending_age_s": age_s,
            "held": None
            if held is None
            else {
                "reason": held.reason,
                "message": str(held),
                "retry_after_s": held.retry_after_s,
            },
            "streams": {
                stream: dataclasses.asdict(stats) | {"conserved": conserved[stream]}
                for stream, stats in figures.items()
            },
        }
        click.echo(json.dumps(report))
    else:
        click.echo(f"{directory}")
        for stream, stats in figures.items():
            click.echo(describe(stream, stats, conserved[stream]))
        if age_s is not None:
            click.echo(f"oldest pending event: {human_duration(age_s)} old")
        if held is not None:
            click.echo(f"{held.reason}: {held}")
    return ExitCode.OK if all(conserved.values()) else ExitCode.ERROR


def describe(stream: str, stats: StreamStats, conserved: bool) -> str:
    """Return the figures of one stream for people."""
    lines = [
        f"{stream:<9} {stats.appended} appended = {stats.delivered} delivered + "
        f"{stats.pending} pending + {stats.rejected} rejected + {stats.evicted} evicted + "
        f"{stats.lost} lost  {_verdict(conserved)}",
        f"{'':<9} durable up to {stats.durable_seq} of {stats.last_seq}; "
        f"{human_size(stats.bytes_used)} of {human_size(stats.bytes_on_disk)} used",
    ]
    if stream == "events" and stats.evicted:
        from vevents.codec import KIND_OF

        names = {kind: str(event_type) for event_type, kind in KIND_OF.items()}
        kinds = [
            f"{count} {names.get(kind, 'of unknown type')}"
            for kind, count in enumerate(stats.evicted_by_kind)
            if count
        ]
        lines.append(f"{'':<9} evicted: {', '.join(kinds)}")
    if stats.degraded:
        lines.append(f"{'':<9} the disk failed (errno {stats.degraded}): no more appends")
    if stats.set_aside:
        lines.append(f"{'':<9} an unusable file was found and set aside")
    return "\n".join(lines)


def _verdict(conserved: bool) -> str:
    sign, word = ("✓", "adds up") if conserved else ("✗", "DOES NOT ADD UP")
    try:
        sign.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return word
    return sign if conserved else f"{sign} {word}"


def _look(log: EventLog, stream: Stream) -> StreamStats:
    stats = log.stats(stream)
    for _ in range(_LOOKS_MAX - 1):
        if stats.conserved:
            break
        stats = log.stats(stream)
    return stats


def _oldest_pending_age_s(log: EventLog) -> float | None:
    records, _ = log.read_batch("events", 0, ("pending",), 1)
    return max(0.0, time.time() - records[0].wall_ns / 1e9) if records else None
