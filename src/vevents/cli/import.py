"""`vevents import`: take bundles in."""  # noqa: N999, the name of the command

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vevents.cli.common import load_settings, open_log, progress_line, say, settings_options
from vevents.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from vevents.bundles import ImportReport
    from vevents.bundles.outbox import Outbox
    from vevents.settings import Settings

_CODES = {
    "log-full": ExitCode.LIMIT,
    "unauthorized": ExitCode.UNAUTHORIZED,
}


@click.command(name="import")
@settings_options
@click.argument(
    "bundles", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="BUNDLES"
)
@click.option(
    "--upload", is_flag=True, help="Send each bundle to the API as it is; no log is needed."
)
@click.option("--api-url", metavar="URL", help="With --upload: base of the API.  [env: API_URL]")
@click.option(
    "--use-case",
    metavar="ID",
    help="With --upload: use case of bundles that name none.  [env: VEVENTS_USE_CASE]",
)
@click.option(
    "--again", is_flag=True, help="Take in what has a receipt, too: what took it in was lost."
)
@click.option("--json", "as_json", is_flag=True, help="Report as one JSON object.")
def command(
    dir_: str | None,
    config: str | None,
    log_level: str | None,
    bundles: Path,
    upload: bool,
    again: bool,
    as_json: bool,
    **flags: object,
) -> int:
    """Take bundles in, from export or from Roboflow's block.

    Appends the event of each file in BUNDLES to the log, with its id, its time and its images, for
    `vevents flush` to deliver; the log is created if there is none. With --upload each file is sent
    to the API instead, event and images in one request.

    The files stay. A receipt is written beside them, so that a second import passes over them and
    the device that exported them can mark its events as delivered. Importing twice all the same
    makes no doubles at the server: events keep their ids. Nothing pending is overwritten to make
    room.

    Exit codes: 0 all is taken in, 5 some files were refused and stay, 7 the log is full: flush it
    and go on, 3 and 4 with --upload as for flush.
    """
    settings = load_settings(dir_, config, log_level, **flags)

    from vevents.bundles.outbox import Outbox

    outbox = Outbox(bundles)
    with progress_line() as show:

        def progress(done: int, total: int) -> None:
            show("importing", done, total)

        if upload:
            report = _upload(settings, outbox, again, progress)
        else:
            report = _append(settings, outbox, again, progress)
    code = ExitCode.REJECTED if report.refused else ExitCode.OK
    if report.failed:
        code = ExitCode.TRY_LATER
    if report.stopped_reason is not None:
        code = _CODES.get(report.stopped_reason, ExitCode.TRY_LATER)
    for name, reason in report.reasons:
        click.echo(f"vevents: {name}: {reason}", err=True)
    if report.message is not None:
        click.echo(f"vevents: {report.message}", err=True)
    if as_json:
        say(json.dumps(dataclasses.asdict(report) | {"exit_code": int(code)}))
    else:
        done = "sent" if upload else "imported"
        say(f"{report.imported} events {done}, {report.refused} files refused")
        if report.failed:
            say(f"{report.failed} files stay: the server kept failing on them")
        if report.already:
            say(f"{report.already} files have a receipt already (--again takes them, too)")
    return code


def _append(
    settings: Settings, outbox: Outbox, again: bool, progress: Callable[[int, int], None]
) -> ImportReport:
    from vevents.bundles import Importer

    # Events that wait for a flush must not go for the ones that come in.
    careful = dataclasses.replace(settings, full="refuse")
    with open_log(careful) as log:
        return Importer(log, outbox, again=again).run(progress)


def _upload(
    settings: Settings, outbox: Outbox, again: bool, progress: Callable[[int, int], None]
) -> ImportReport:
    from vevents.bundles import Uploader
    from vevents.delivery.sender import RetryPolicy
    from vevents.delivery.setup import make_client

    retry = RetryPolicy(attempts=settings.attempts, wait_s_max=settings.retry_wait_s)
    with make_client(settings) as client:
        uploader = Uploader(
            client, outbox, use_case_id=settings.use_case_id, again=again, retry=retry
        )
        return uploader.run(progress)
