"""`vevents status`: what the log holds, and whether its figures add up."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vevents.cli.common import (
    DURATION,
    SIZE,
    STREAMS,
    human_duration,
    human_size,
    load_settings,
    open_log,
    require_log,
    say,
    settings_options,
)
from vevents.cli.exit_codes import ExitCode
from vevents.errors import ConfigurationError
from vevents.settings import parse_duration

if TYPE_CHECKING:
    from vevents.delivery.sender import StopError
    from vevents.flash import FlashReport
    from vevents.log import CopyInfo, EventLog, Stream, StreamStats

_STATES = ("delivered", "pending", "rejected", "evicted", "lost")
# What `--check` takes for old that says no more.
_MAX_AGE = "24h"
# Growth of these means that something will never arrive; delivery.ring overwrites by design.
_LOSSES = ("rejected", "evicted", "lost")
# A writer may append between two of the figures; a law that is broken stays broken.
_LOOKS_MAX = 5

# Rejections by (code, type).
Reasons = Counter[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that `vevents status` knows of a log at one moment.

    Attributes:
        directory: Of the log.
        figures: By stream.
        rejected_by: By stream, the rejections by code and type.
        oldest_pending_age_s: None when no event is pending.
        set_aside: Names of the files into which something damaged was moved, now or earlier.
        held: Why no delivery may run now, or None.
        copy: The copy of a RAM-first log, or None.
        frames_shed: Frames that the pressure ladder shed, by its step, the mildest first; None
            without a ladder.
    """

    directory: Path
    figures: Mapping[Stream, StreamStats]
    rejected_by: Mapping[Stream, Reasons]
    oldest_pending_age_s: float | None
    set_aside: Sequence[str] = ()
    held: StopError | None = None
    copy: CopyInfo | None = None
    frames_shed: Mapping[str, int] | None = None

    @property
    def conserved(self) -> bool:
        """Whether everything appended is accounted for, in every stream."""
        return all(stats.conserved for stats in self.figures.values())

    def to_json(self) -> dict[str, Any]:
        """Return the object of `--json`; docs/operations.md says what its keys mean."""
        from vevents.delivery.figures import details

        return {
            "directory": str(self.directory),
            "conserved": self.conserved,
            "oldest_pending_age_s": self.oldest_pending_age_s,
            "held": None
            if self.held is None
            else {
                "reason": self.held.reason,
                "message": str(self.held),
                "retry_after_s": self.held.retry_after_s,
            },
            "set_aside_files": list(self.set_aside),
            "frames_shed": None if self.frames_shed is None else dict(self.frames_shed),
            "copy": None
            if self.copy is None
            else dataclasses.asdict(self.copy) | {"directory": str(self.copy.directory)},
            "streams": {
                stream: dataclasses.asdict(stats)
                | details(stream, stats)
                | {
                    "rejected_by_reason": [
                        {"code": code, "type": event_type, "count": count}
                        for (code, event_type), count in self.rejected_by[stream].most_common()
                    ],
                    "conserved": stats.conserved,
                }
                for stream, stats in self.figures.items()
            },
        }


@click.command(name="status")
@settings_options
@click.option("--json", "as_json", is_flag=True, help="Report as one JSON object.")
@click.option("--prometheus", is_flag=True, help="Report in Prometheus' text format.")
@click.option("--flash", is_flag=True, help="Report what is written to the flash, too.")
@click.option(
    "--endurance", type=SIZE, metavar="SIZE",
    help="For --flash: what the flash takes in its life (TBW), for example 60TB.",
)  # fmt: skip
@click.option("--check", is_flag=True, help="Exit with 11 if something needs attention.")
@click.option(
    "--max-age", type=DURATION,
    help=f"For --check: how old the oldest pending event may be.  [default: {_MAX_AGE}]",
)  # fmt: skip
@click.option(
    "--baseline", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
    help="For --check: compare with the figures in FILE, then write the present ones there.",
)  # fmt: skip
def command(
    dir_: str | None,
    config: str | None,
    log_level: str | None,
    as_json: bool,
    prometheus: bool,
    flash: bool,
    endurance: int | None,
    check: bool,
    max_age: float | None,
    baseline: Path | None,
) -> int:
    """Show what the log holds.

    Reads only: it works while a writer runs, and for every user who may read the directory. For
    each stream it prints the conservation law

        appended = delivered + pending + rejected + evicted + lost

    with ✓ when it holds. Exit code 1 when it does not.

    With --check the exit code is 11 when the disk or the copy of a RAM-first log failed, something
    damaged was set aside, or the oldest pending event is older than --max-age; with --baseline
    also when more was rejected, evicted or lost than at the check before.

    With --flash it says what the kernel has counted of writes to the flash under the log, or under
    the copy of a log in memory, and with --endurance how many years that will last.
    """
    if as_json and prometheus:
        raise click.UsageError("either --json or --prometheus")
    if prometheus and flash:
        raise click.UsageError(
            "--flash has no form for Prometheus: its node exporter has the disks"
        )
    if endurance is not None and not flash:
        raise click.UsageError("--endurance goes with --flash")
    for name, given in (("--max-age", max_age), ("--baseline", baseline)):
        if given is not None and not check:
            raise click.UsageError(f"{name} goes with --check")
    from vevents.delivery.schedule import Gate

    settings = load_settings(dir_, config, log_level)
    directory = require_log(settings)
    with open_log(settings, read_only=True) as log:
        report = look(
            log,
            directory,
            Gate(directory, settings.windows).closed(),
            has_ladder=bool(settings.pressure.steps),
        )
        wear = _look_at_flash(log) if flash else None
    problems: list[str] = []
    if check:
        max_age_s = parse_duration(_MAX_AGE) if max_age is None else max_age
        problems = list(problems_of(report, max_age_s=max_age_s))
        if baseline is not None:
            problems += _compare(report, baseline)
    if as_json:
        extra: dict[str, Any] = {"problems": problems} if check else {}
        if wear is not None:
            years = None if endurance is None else wear.years(endurance)
            extra["flash"] = flash_json(wear) | {"endurance": endurance, "years": years}
        say(json.dumps(report.to_json() | extra))
    elif prometheus:
        say("\n".join(prometheus_lines(report)))
    else:
        say(summary(report))
        for stream, stats in report.figures.items():
            say(describe(stream, stats, stats.conserved, report.rejected_by[stream]))
        if report.frames_shed:
            steps = ", ".join(f"{count} {step}" for step, count in report.frames_shed.items())
            say(f"frames shed for want of room: {steps}")
        if report.set_aside:
            say(f"damaged and set aside: {', '.join(report.set_aside)}")
        if report.copy is not None:
            say(f"in memory, {describe_copy(report.copy)}")
        if report.held is not None:
            say(f"{report.held.reason}: {report.held}")
        if wear is not None:
            say("\n".join(describe_flash(wear, endurance)))
    for problem in problems:
        click.echo(f"vevents: {problem}", err=True)
    if not report.conserved:
        return ExitCode.ERROR
    return ExitCode.ATTENTION if problems else ExitCode.OK


def look(
    log: EventLog, directory: Path, held: StopError | None = None, *, has_ladder: bool = False
) -> Report:
    """Take all figures of a log.

    Args:
        log: The log.
        directory: Where it is.
        held: Why no delivery may run now, or None.
        has_ladder: Whether the settings name a pressure ladder; looking for its traces takes time.
    """
    from vevents.delivery.figures import frames_shed

    figures = {stream: _look(log, stream) for stream in STREAMS}
    set_aside = sorted(path.name for path in directory.glob("*.ring.damaged-*"))
    return Report(
        directory,
        figures,
        _reasons(log, figures),
        _oldest_pending_age_s(log),
        set_aside,
        held,
        log.copy,
        frames_shed(log) if has_ladder else None,
    )


def summary(report: Report) -> str:
    """Return the one line that says how it stands."""
    events, media = report.figures["events"], report.figures["media"]
    parts = [f"{events.pending:,} events pending" if events.pending else "nothing pending"]
    if report.oldest_pending_age_s is not None:
        parts[0] += f", the oldest {human_duration(report.oldest_pending_age_s)} old"
    for stats, what in ((events, "events"), (media, "images")):
        losses = [f"{getattr(stats, x):,} {x}" for x in _LOSSES if getattr(stats, x)]
        if losses:
            parts.append(f"{what}: {', '.join(losses)}")
    return f"{report.directory}: {'; '.join(parts)}"


def describe(
    stream: str, stats: StreamStats, conserved: bool, rejected_by: Reasons | None = None
) -> str:
    """Return the figures of one stream for people."""
    from vevents.delivery.figures import details

    lines = [
        f"{stream:<9} {stats.appended} appended = {stats.delivered} delivered + "
        f"{stats.pending} pending + {stats.rejected} rejected + {stats.evicted} evicted + "
        f"{stats.lost} lost  {_verdict(conserved)}",
        f"{'':<9} durable up to {stats.durable_seq} of {stats.last_seq}; "
        f"{human_size(stats.bytes_used)} of {human_size(stats.bytes_on_disk)} used",
    ]
    if rejected_by:
        reasons = [
            f"{count} {code} {event_type}"
            for (code, event_type), count in rejected_by.most_common()
        ]
        lines.append(f"{'':<9} rejected: {', '.join(reasons)}")
    # Which type of note was overwritten interests nobody.
    if stream != "delivery":
        for name, counts in details(stream, stats).items():
            if counts:
                parts = [f"{count} {what}" for what, count in counts.items()]
                lines.append(f"{'':<9} {name.partition('_by_')[0]}: {', '.join(parts)}")
    if stats.degraded:
        lines.append(f"{'':<9} the disk failed (errno {stats.degraded}): no more appends")
    if stats.set_aside:
        lines.append(f"{'':<9} an unusable file was found and set aside")
    return "\n".join(lines)


def describe_copy(copy: CopyInfo) -> str:
    """Return how the copy of a RAM-first log is, in words."""
    age = (
        "not made yet"
        if copy.age_s is None
        else f"{human_duration(copy.age_s)} old, {human_size(copy.bytes_written)} in "
        f"{copy.passes} passes"
    )
    again = f", again within {human_duration(copy.interval_s)}" if copy.interval_s else ""
    failed = f"; the last pass failed: {copy.error}" if copy.error else ""
    return f"its copy in {copy.directory} {age}{again}{failed}"


def describe_flash(wear: FlashReport, endurance: int | None) -> Iterator[str]:
    """Yield what is written to the flash, in sentences."""

    def a_day(count: float | None) -> str:
        return "an unknown amount" if count is None else f"{human_size(round(count))} a day"

    yield f"flash under {wear.path}:"
    yield f"  the log takes {a_day(wear.log_bytes_per_day)}, compressed"
    if wear.copy_bytes_per_day is not None:
        yield f"  its copy is written with {a_day(wear.copy_bytes_per_day)}"
    device = wear.device
    if device is None:
        yield "  no block device is known here, so nobody counts what is written"
        return
    yield (
        f"  {device.name}: {a_day(device.bytes_per_day)} by all programs, "
        f"{human_size(device.bytes_written)} in {human_duration(device.uptime_s)}"
    )
    if device.file_system_bytes is not None:
        yield f"  {human_size(device.file_system_bytes)} since its file system was made"
    if device.life_used is not None:
        yield f"  up to {device.life_used:.0%} of its life is used, by its own count"
    if device.reserve is not None:
        yield f"  its reserve of blocks: {device.reserve}"
    if endurance is not None:
        years = wear.years(endurance)
        if years is None:
            rest = "for an unknown time: too little was counted yet"
        else:
            rest = f"{years:.1f} years" if years >= 1 else f"{years * 365.25:.0f} days"
        yield f"  at this rate {human_size(endurance)} last {rest}"


def flash_json(wear: FlashReport) -> dict[str, Any]:
    """Return what is written to the flash as an object of `--json`."""
    device = wear.device
    return {
        "path": str(wear.path),
        "log_bytes_per_day": wear.log_bytes_per_day,
        "copy_bytes_per_day": wear.copy_bytes_per_day,
        "device": None
        if device is None
        else dataclasses.asdict(device) | {"bytes_per_day": device.bytes_per_day},
    }


def _look_at_flash(log: EventLog) -> FlashReport:
    from vevents import flash

    return flash.look(log)


# --- for monitoring -------------------------------------------------------------------------


def problems_of(report: Report, *, max_age_s: float) -> Iterator[str]:
    """Say what needs somebody's attention, in sentences."""
    for stream, stats in report.figures.items():
        if stats.degraded:
            yield f"{stream}: the disk failed (errno {stats.degraded})"
    if report.set_aside:
        yield f"damaged and set aside: {', '.join(report.set_aside)}"
    if report.copy is not None and report.copy.error is not None:
        yield f"the copy in {report.copy.directory} is not up to date: {report.copy.error}"
    age_s = report.oldest_pending_age_s
    if age_s is not None and age_s > max_age_s:
        yield (
            f"the oldest pending event is {human_duration(age_s)} old, "
            f"more than {human_duration(max_age_s)}"
        )


def _compare(report: Report, path: Path) -> list[str]:
    """Say what grew since the figures in a file were taken, and put the present ones there."""
    present: dict[str, dict[str, int]] = {
        stream: {name: getattr(report.figures[stream], name) for name in ("appended", *_LOSSES)}
        for stream in STREAMS
        if stream != "delivery"
    }
    problems = []
    for stream, before in _read_baseline(path).items():
        now = present.get(stream, {})
        if now.get("appended", 0) < before.get("appended", 0):
            problems.append(f"{stream}: the log began anew since the last check")
            continue
        problems += [
            f"{stream}: {now[name] - before[name]} {name} since the last check"
            for name in _LOSSES
            if name in before and now.get(name, 0) > before[name]
        ]
    from vevents.files import replaced

    try:
        with replaced(path) as file:
            json.dump(present, file)
    except OSError as error:  # a full disk must not hide what else the check has found
        problems.append(f"the baseline was not kept: {error}")
    return problems


def _read_baseline(path: Path) -> dict[str, dict[str, int]]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {str(stream): dict(figures) for stream, figures in found.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"{path} holds no figures of a check: {error}") from None


def prometheus_lines(report: Report) -> Iterator[str]:
    """Yield the figures in Prometheus' text exposition format, version 0.0.4."""
    from vevents.delivery.figures import details

    def metric(
        name: str, kind: str, text: str, samples: list[tuple[dict[str, str], float]]
    ) -> Iterator[str]:
        yield f"# HELP vevents_{name} {text}"
        yield f"# TYPE vevents_{name} {kind}"
        for labels, value in samples:
            pairs = {"dir": str(report.directory)} | labels
            written = ",".join(f'{key}="{_escaped(text)}"' for key, text in pairs.items())
            yield f"vevents_{name}{{{written}}} {value}"

    figures = report.figures

    def each(field: str) -> list[tuple[dict[str, str], float]]:
        return [({"stream": stream}, getattr(stats, field)) for stream, stats in figures.items()]

    yield from metric("appended_total", "counter", "Records appended.", each("appended"))
    yield from metric(
        "records", "gauge", "What became of them; the states add up to vevents_appended_total.",
        [
            ({"stream": stream, "state": state}, getattr(stats, state))
            for stream, stats in figures.items()
            for state in _STATES
        ],
    )  # fmt: skip
    by_name: dict[str, list[tuple[dict[str, str], float]]] = {}
    for stream, stats in figures.items():
        for name, counts in details(stream, stats).items():
            label = name.partition("_by_")[2]
            by_name.setdefault(name, []).extend(
                ({"stream": stream, label: what}, count) for what, count in counts.items()
            )
    for name, samples in by_name.items():
        what, _, label = name.partition("_by_")
        yield from metric(f"{name}_total", "counter", f"Records {what}, by {label}.", samples)
    yield from metric(
        "rejected_by_reason", "gauge", "Records rejected, by code and type of event.",
        [
            ({"stream": stream, "code": code, "type": event_type}, count)
            for stream, reasons in report.rejected_by.items()
            for (code, event_type), count in reasons.items()
        ],
    )  # fmt: skip
    yield from metric(
        "oldest_pending_seconds", "gauge", "Age of the oldest pending event, 0 without any.",
        [({}, report.oldest_pending_age_s or 0.0)],
    )  # fmt: skip
    for field, name, text in (
        ("bytes_on_disk", "disk_bytes", "Size of the ring's file."),
        ("bytes_used", "used_bytes", "Bytes of records in it."),
        ("last_seq", "last_sequence", "Number of the newest record."),
        ("durable_seq", "durable_sequence", "Up to here a power cut loses nothing."),
        ("degraded", "disk_errno", "The error that stopped appends, or 0."),
    ):
        yield from metric(name, "gauge", text, each(field))
    if report.frames_shed is not None:
        yield from metric(
            "frames_shed", "gauge", "Frames of the events in the log that the ladder shed.",
            [({"step": step}, count) for step, count in report.frames_shed.items()],
        )  # fmt: skip
    yield from metric(
        "set_aside_files", "gauge", "Files into which something damaged was moved.",
        [({}, len(report.set_aside))],
    )  # fmt: skip
    yield from metric(
        "conserved", "gauge", "1 if the figures add up.", [({}, int(report.conserved))]
    )


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


# --- looking --------------------------------------------------------------------------------


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


def _reasons(log: EventLog, figures: Mapping[Stream, StreamStats]) -> dict[Stream, Reasons]:
    found: dict[Stream, Reasons] = {stream: Counter() for stream in figures}
    if any(figures[stream].rejected for stream in found if stream != "delivery"):
        from vevents.delivery.figures import split
        from vevents.delivery.notes import Notes

        for reason, count in Notes(log).update().counts.items():
            found[reason.stream][reason.code, reason.type] += count
        for stream, counts in found.items():
            found[stream] = split(counts, figures[stream].rejected)
    return found


def _oldest_pending_age_s(log: EventLog) -> float | None:
    records, _ = log.read_batch("events", 0, ("pending",), 1)
    return max(0.0, time.time() - records[0].wall_ns / 1e9) if records else None
