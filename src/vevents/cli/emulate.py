"""`vevents emulate`: run a local stand-in for the API."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from vevents.cli.common import say, setup_messages
from vevents.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from vevents.emulator import Listening


@click.command(name="emulate")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="Port to listen on; 0 takes a free one.",
)
@click.option(
    "--api-key",
    "api_keys",
    multiple=True,
    metavar="KEY",
    help="Key to accept; may be repeated. One is made up and printed if there is none. Not for "
    "real keys: other users can read a command line.",
)
@click.option(
    "--use-case",
    "use_cases",
    multiple=True,
    metavar="ID[=NAME]",
    default=("uc-demo=Demo",),
    show_default=True,
    help="Use case that exists; may be repeated.",
)
@click.option(
    "--database", metavar="FILE", help="SQLite file to keep everything in, and to continue."
)
@click.option("--partial-batches", is_flag=True, help="Keep the good events of a bad batch.")
@click.option("--degrade-images", is_flag=True, help="Drop bad images instead of refusing events.")
@click.option("--strict", is_flag=True, help="Refuse undocumented fields and incomplete eventData.")
@click.option(
    "--rate-limit",
    type=click.FloatRange(min=0, min_open=True),
    metavar="N",
    help="Answer 429 beyond N requests per second.",
)
@click.option(
    "--chaos",
    metavar="SEED[:SEVERITY]",
    help="Let requests fail at random: 1 in 20 with severity low, 1 in 5 with medium (the "
    "default), 1 in 2 with high. The same seed gives the same failures.",
)
@click.option(
    "--tls-certificate",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="Speak HTTPS with this certificate (PEM). Needs --tls-key.",
)
@click.option(
    "--tls-key",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="Its private key (PEM, without a passphrase).",
)
@click.option("--access-log", is_flag=True, help="Print a line for every request.")
@click.option("--json", "as_json", is_flag=True, help="Print the address as one JSON object.")
def command(
    host: str,
    port: int,
    api_keys: tuple[str, ...],
    use_cases: tuple[str, ...],
    database: str | None,
    partial_batches: bool,
    degrade_images: bool,
    strict: bool,
    rate_limit: float | None,
    chaos: str | None,
    tls_certificate: str | None,
    tls_key: str | None,
    access_log: bool,
    as_json: bool,
) -> int:
    """Run a local stand-in for the API.

    It runs until Ctrl-C, takes events and images as the API does, and refuses what the API refuses.
    Needs `pip install "vevents[emulate]"`.
    """
    from vevents.emulator import Chaos, EmulatorConfig, TlsFiles, serve

    setup_messages("info" if access_log else "warning")
    tls = None
    if tls_certificate is not None and tls_key is not None:
        tls = TlsFiles(tls_certificate, tls_key)
    elif tls_certificate is not None or tls_key is not None:
        raise click.UsageError("--tls-certificate and --tls-key need each other")
    drawn = None if chaos is None else Chaos.parse(chaos)

    def show(listening: Listening) -> None:
        shown = {"API_URL": listening.url}
        if not api_keys:
            shown["ROBOFLOW_API_KEY"] = listening.api_key
        if drawn is not None:
            click.echo(f"chaos {drawn}: requests will fail on purpose", err=True)
        if as_json:
            say(json.dumps(shown if drawn is None else {**shown, "chaos": str(drawn)}))
        else:
            say("\n".join(f"export {name}={value}" for name, value in shown.items()))

    plan = serve(
        EmulatorConfig(
            database=database,
            api_keys=api_keys,
            use_cases=use_cases,
            partial_batches=partial_batches,
            degrade_images=degrade_images,
            strict_event_data=strict,
            strict_fields=strict,
            rate_limit_per_s=rate_limit,
            access_log=access_log,
        ),
        host=host,
        port=port,
        on_ready=show,
        tls=tls,
        chaos=drawn,
    )
    if drawn is not None:
        met = ", ".join(f"{name} {count}" for name, count in plan.injected.items())
        struck = sum(plan.injected.values())
        click.echo(f"chaos {drawn}: {struck} of {plan.requests} requests: {met}", err=True)
    return ExitCode.OK
