"""`vevents serve`: take events over HTTP, as the on-device event store does."""

from __future__ import annotations

import json
from pathlib import Path

import click

from vevents.cli.common import SIZE, load_settings, open_log, say, settings_options
from vevents.cli.exit_codes import ExitCode


@click.command(name="serve")
@settings_options
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8001,
    show_default=True,
    help="Port to listen on; 0 takes a free one.",
)
@click.option(
    "--unix",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="Listen on a Unix socket instead; it is made with mode 0600.",
)
@click.option(
    "--key-file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="File with the key that X-API-Key has to hold.  [env: EVENT_INGESTION_API_KEY holds the "
    "key itself]",
)
@click.option("--sync", is_flag=True, help="Answer only when the event would survive a power cut.")
@click.option(
    "--keep-repeats", is_flag=True, help="Take a request that comes again as another event."
)
@click.option(
    "--max-body",
    type=SIZE,
    default="32MiB",
    show_default=True,
    help="Largest request; larger ones are answered 413.",
)
@click.option(
    "--max-connections",
    type=click.IntRange(1, 10_000),
    default=256,
    show_default=True,
    help="Connections at one time; more are answered 529.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the address as one JSON object.")
def command(
    dir_: str | None,
    config: str | None,
    log_level: str | None,
    host: str,
    port: int,
    unix: Path | None,
    key_file: Path | None,
    sync: bool,
    keep_repeats: bool,
    max_body: int,
    max_connections: int,
    as_json: bool,
) -> int:
    """Take events over HTTP, as the on-device event store does.

    Speaks the protocol of the on-device event store, so that the Vision Events block of Roboflow
    Workflows writes to it with `write_to_event_store` and no other change. It runs until Ctrl-C or
    SIGTERM, lets requests under way finish, and closes the log. `vevents flush` sends what it took.

    Away from loopback it needs a key. The log is created if there is none. Needs
    `pip install "vevents[serve]"`.
    """
    from vevents import store
    from vevents.delivery.sdnotify import ServiceManager

    settings = load_settings(dir_, config, log_level)
    store.require_packages()
    settings.require_directory()
    chosen = store.StoreConfig(
        host=host,
        port=port,
        unix=unix,
        key=settings.store_key if key_file is None else store.read_key(key_file),
        sync=sync,
        merge_repeats=not keep_repeats,
        body_size_max=max_body,
        held_size_max=2 * max_body,
        connection_count_max=max_connections,
    )
    manager = ServiceManager()
    bound = store.bind(chosen)
    url = store.describe(bound)

    with bound, open_log(settings) as log:

        def show() -> None:
            if as_json:
                say(json.dumps({"url": url, "dir": str(log.directory)}))
            else:
                say(f"listening on {url}, writing to {log.directory}")
            manager.status(f"listening on {url}")
            manager.ready()

        try:
            store.serve(log, chosen, bound, show)
        finally:
            manager.stopping()
            if unix is not None:
                unix.unlink(missing_ok=True)
    return ExitCode.OK
