"""`vevents check`: try the way to the API without sending an event."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from vevents.cli.common import human_duration, load_settings, say, settings_options
from vevents.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from vevents.delivery.client import UseCaseList
    from vevents.errors import DeliveryError

# A clock that is so far off is worth a word: beyond a day the server refuses events.
_CLOCK_OFF_S = 60


@click.command(name="check")
@settings_options
@click.option("--api-url", metavar="URL", help="Base of the API.  [env: API_URL]")
@click.option("--use-case", metavar="ID", help="Use case to look for.  [env: VEVENTS_USE_CASE]")
@click.option("--json", "as_json", is_flag=True, help="Report as one JSON object.")
def command(
    dir_: str | None,
    config: str | None,
    log_level: str | None,
    as_json: bool,
    **flags: object,
) -> int:
    """Try the connection, the key and the use case; send nothing.

    Makes one request with the settings of `vevents flush`, through its proxy and with its
    certificates, and asks for the list of use cases. Needs no log.

    Exit codes: 0 fine, 2 a setting is wrong or the use case is not there, 3 the API cannot be
    reached, 4 the key is not accepted.
    """
    settings = load_settings(dir_, config, log_level, **flags)

    from vevents.delivery.setup import make_client
    from vevents.errors import AuthorizationError, DeliveryError

    found: UseCaseList | None = None
    with make_client(settings) as client:
        try:
            found = client.list_use_cases()
            code, message = ExitCode.OK, f"{settings.api_url} accepts the key"
        except AuthorizationError as error:
            # A device's key may be allowed to send and not to read.
            allowed = error.status_code == 403
            code = ExitCode.OK if allowed else ExitCode.UNAUTHORIZED
            message = f"{settings.api_url} knows the key, which may not read: " if allowed else ""
            message += str(error)
        except DeliveryError as error:
            code, message = ExitCode.TRY_LATER, _unreachable(error)
        offset_s = client.clock_offset_s
    if found is not None and settings.use_case_id is not None:
        known = [case.id for case in found.use_cases]
        if settings.use_case_id not in known:
            code = ExitCode.USAGE
            message += (
                f"; the use case {settings.use_case_id!r} is not among its active ones: "
                f"{', '.join(known) or 'there are none'}"
            )
    if as_json:
        report: dict[str, Any] = {
            "api_url": settings.api_url,
            "exit_code": int(code),
            "message": message,
            "use_cases": None
            if found is None
            else [{"id": case.id, "name": case.name} for case in found.use_cases],
            "lookback_days": None if found is None else found.lookback_days,
            "clock_offset_s": offset_s,
        }
        say(json.dumps(report))
        return code
    if code is ExitCode.OK:
        say(message)
    else:
        click.echo(f"vevents: {message}", err=True)
    if found is not None:
        say(f"{len(found.use_cases)} active use cases; shows {_days(found.lookback_days)}")
    if offset_s is not None and abs(offset_s) > _CLOCK_OFF_S:
        side = "behind" if offset_s > 0 else "ahead of"
        click.echo(
            f"vevents: WARNING: this device's clock is {human_duration(abs(offset_s))} {side} the "
            "server's",
            err=True,
        )
    return code


def _unreachable(error: DeliveryError) -> str:
    if error.status_code == 404:
        return f"the API is not at this address, check API_URL: {error}"
    return str(error)


def _days(lookback_days: int | None) -> str:
    return "events" if lookback_days is None else f"events of the last {lookback_days} days"
