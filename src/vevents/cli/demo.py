"""`vevents demo`: the whole way on real photographs, with an outage in the middle."""

from __future__ import annotations

import json
import shutil
import tempfile
from typing import TYPE_CHECKING

import click

from vevents.cli.common import SIZE, human_size, progress_line, say
from vevents.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from vevents.demo.report import DemoReport


@click.command(name="demo")
@click.option(
    "--events",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    help="How many events to append.",
)
@click.option(
    "--dir",
    "dir_",
    metavar="DIR",
    help="Directory for the log, which is kept and continued; a temporary one if not given.",
)
@click.option("--keep", is_flag=True, help="Keep the temporary directory.")
@click.option("--seed", type=int, default=0, show_default=True, help="Another seed, other frames.")
@click.option("--events-size", type=SIZE, help="Bytes on disk for events, for example 1MiB.")
@click.option("--media-size", type=SIZE, help="Bytes on disk for frames, for example 4MiB.")
@click.option("--json", "as_json", is_flag=True, help="Report as one JSON object.")
def command(
    events: int,
    dir_: str | None,
    keep: bool,
    seed: int,
    events_size: int | None,
    media_size: int | None,
    as_json: bool,
) -> int:
    """Show the whole way, from photographs through an outage to the API.

    A detector looks at photographs and appends what it sees to a log while there is no network.
    Then a stand-in for the API comes up, the log is flushed, and both sides are asked what they
    hold and compared. Exit code 1 if they disagree. Needs `pip install "vevents[demo]"`.
    """
    from vevents.demo import run

    directory = tempfile.mkdtemp(prefix="vevents-demo-") if dir_ is None else dir_
    try:
        with progress_line() as show:
            report = run(
                directory,
                events=events,
                seed=seed,
                events_size=events_size,
                media_size=media_size,
                progress=lambda step: show(step.phase, step.done, step.total),
            )
    finally:
        if dir_ is None and not keep:
            shutil.rmtree(directory, ignore_errors=True)
    say(json.dumps(report.as_dict()) if as_json else describe(report))
    return ExitCode.OK if report.ok else ExitCode.ERROR


def _latency(us: float) -> str:
    return f"{us:.0f} µs" if us < 1000 else f"{us / 1000:.1f} ms"


def describe(report: DemoReport) -> str:
    """Return the figures of a run for people."""
    lines = [
        f"watched   {report.frames} frames, {report.detections} findings, "
        f"{report.new_events} events appended while offline "
        f"(half of them within {_latency(report.append_p50_us)}, 99 % within "
        f"{_latency(report.append_p99_us)}, frames included)",
        f"log       {report.appended} appended = {report.delivered} delivered + "
        f"{report.pending} pending + {report.rejected} rejected + {report.evicted} evicted + "
        f"{report.lost} lost; {report.images_delivered} images delivered, "
        f"{human_size(report.bytes_on_disk)} on disk",
        f"emulator  {report.emulator_events} events, {report.emulator_images} images; flushed in "
        f"{report.flush_s:.1f} s",
        f"compared  {report.compared_events} events and {report.compared_images} images: "
        + ("all the same" if report.ok else f"{len(report.mismatches)} MISMATCHES"),
    ]
    return "\n".join([*lines, *report.mismatches])
