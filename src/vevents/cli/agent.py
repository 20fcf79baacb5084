"""`vevents agent`: deliver for as long as it runs."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from vevents.cli.common import DURATION, open_log, require_log, settings_options, setup_messages
from vevents.cli.exit_codes import ExitCode
from vevents.settings import resolve

if TYPE_CHECKING:
    from vevents.log import EventLog
    from vevents.settings import Settings

# What journald and the kernel call these levels.
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3}


@click.command(name="agent")
@settings_options
@click.option("--api-url", metavar="URL", help="Base of the API.  [env: API_URL]")
@click.option(
    "--use-case",
    metavar="ID",
    help="Use case of the events that name none.  [env: VEVENTS_USE_CASE]",
)
@click.option(
    "--interval",
    type=DURATION,
    help="How long a fresh event waits for company; a safety alert, or 100 events, wait for "
    "nothing.  [env: VEVENTS_AGENT_INTERVAL; default: 5s]",
)
@click.option(
    "--spread",
    type=DURATION,
    help="Begin at a random moment within this time after a start or a reconnect, so that the "
    "devices of a site do not begin together.  [env: VEVENTS_AGENT_SPREAD; default: 10s]",
)
@click.option("--json", "as_json", is_flag=True, help="Messages as lines of JSON.")
def command(
    dir_: str | None,
    config: str | None,
    log_level: str | None,
    api_url: str | None,
    use_case: str | None,
    interval: float | None,
    spread: float | None,
    as_json: bool,
) -> int:
    """Deliver for as long as it runs, as a service.

    It sends what is pending and what programs append meanwhile, as soon as the network lets it,
    and waits with growing pauses while it does not. Nothing that goes wrong with the delivery, the
    key or the disk ends it; messages on standard error say what is wrong, once.

    Signals: SIGTERM or Ctrl-C stops it within two seconds, SIGHUP reads the settings again,
    SIGUSR1 sends now, SIGUSR2 says that the network may be back. `vevents install` makes it a
    service; `vevents flush` may be used beside it.

    Exit codes: 0 stopped by a signal, 2 settings, 6 another agent of the log is running.
    """

    to_journal = goes_to_journal(os.environ, sys.stderr.fileno())
    formatter = JsonFormatter() if as_json else LineFormatter(journal=to_journal)
    if log_level is None and sys.stderr.isatty():
        log_level = "info"

    def load() -> Settings:
        setup_messages("warning", formatter)
        settings = resolve(
            {
                "dir": dir_,
                "config": config,
                "log_level": log_level,
                "api_url": api_url,
                "use_case": use_case,
                "agent_interval": interval,
                "agent_spread": spread,
            }
        )
        setup_messages(settings.log_level, formatter)
        return settings

    def open_existing(settings: Settings) -> EventLog:
        require_log(settings)
        return open_log(settings)

    from vevents.delivery.agent import Agent

    if not Agent(load, open_existing).run():
        # A thread still waits for the network. The interpreter's own end would wait for some of
        # its threads, and close the log under the others.
        logging.shutdown()
        os._exit(ExitCode.OK)
    return ExitCode.OK


class LineFormatter(logging.Formatter):
    """One line per message, for people and journals.

    Args:
        journal: Whether lines begin with `<priority>`, which journald takes off.

    Example:
        >>> record = logging.LogRecord("vevents", logging.ERROR, "", 0, "no key", None, None)
        >>> LineFormatter(journal=True).format(record)
        '<3>vevents: no key'
    """

    def __init__(self, *, journal: bool) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        text = " ".join(record.getMessage().split())
        if record.exc_info:
            text += " | " + " ".join(self.formatException(record.exc_info).split())
        if self._journal:
            return f"<{_PRIORITIES.get(record.levelno, 5)}>vevents: {text}"
        return f"vevents: {record.levelname}: {text}"


class JsonFormatter(logging.Formatter):
    """One JSON object per message, with time, level and message.

    Example:
        >>> record = logging.LogRecord("vevents", logging.ERROR, "", 0, "no key", None, None)
        >>> record.created = 0.0
        >>> JsonFormatter().format(record)
        '{"time": "1970-01-01T00:00:00+00:00", "level": "error", "message": "no key"}'
    """

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="auto"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def goes_to_journal(environ: Mapping[str, str], descriptor: int) -> bool:
    """Whether journald reads what is written to a file descriptor."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
