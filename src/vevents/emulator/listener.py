"""Where uvicorn is bent: cutting a connection, saying when it listens, its log, its signals."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from vevents.emulator.faults import ABORT_EXTENSION, App, Receive, Scope, Send

# A request that is being answered may finish; nobody waits longer for a stand-in to stop.
_GRACE_S = 2
# As long as a load balancer would keep a quiet connection; uvicorn's 5 s surprise clients.
_KEEP_ALIVE_S = 65


class _AbortableProtocol(H11Protocol):
    """Lets the application cut the connection, which ASGI has no word for."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # The switch of uvicorn's configuration is overruled by any handler on its logger, and
        # its access log shows query strings, which may hold a key.
        self.access_log = False
        inner: Any = self.app

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            scope.setdefault("extensions", {})[ABORT_EXTENSION] = transport.abort
            await inner(scope, receive, send)

        self.app: Any = app


class Listener(uvicorn.Server):
    """A server that tells when it listens and leaves signals to its owner."""

    def __init__(self, app: App, on_listening: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=_AbortableProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=_GRACE_S,
            )
        )
        self._on_listening = on_listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say so."""
        await super().startup(sockets)
        self._on_listening()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: uvicorn would raise them again after a clean end."""
        yield
