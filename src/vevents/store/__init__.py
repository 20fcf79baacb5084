"""The local event store: takes events over HTTP and puts them into the log.

    config      what can be set, and where it listens
    bodies      body -> event, record -> answer; pure
    recent      which events were taken lately, so that a repeated request makes no second one
    app         the routes: who may, how much, what is answered
    server      uvicorn with limits on connections and time; signals

Needs `pip install "vevents[serve]"`. What it answers is in docs/store.md. It hosts the log and
forwards nothing: `vevents flush` does.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from vevents.errors import ConfigurationError
from vevents.store.config import StoreConfig, bind, describe, read_key

if TYPE_CHECKING:
    from vevents.log import EventLog

__all__ = ["StoreConfig", "bind", "describe", "read_key", "require_packages", "serve"]


def require_packages() -> None:
    """Make sure that the packages of the extra are there.

    Raises:
        ConfigurationError: One is missing; the message says what to install.
    """
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as missing:
        raise ConfigurationError(
            f'the event store needs {missing.name}: pip install "vevents[serve]"'
        ) from missing


def serve(
    log: EventLog,
    config: StoreConfig,
    bound: socket.socket,
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Serve in the foreground until SIGINT or SIGTERM.

    Args:
        log: Open for writing; it stays open.
        config: Settings.
        bound: From `bind()`; closed at the end.
        on_ready: Called once, when connections are accepted.

    Raises:
        ConfigurationError: As `require_packages`.
    """
    require_packages()
    from vevents.store.server import run

    run(log, config, bound, on_ready)
