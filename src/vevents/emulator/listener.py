"""Where uvicorn is bent: ends of connections, the date, when it listens, its log, its signals."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from email.utils import formatdate
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from vevents.emulator.config import TlsFiles
from vevents.emulator.connection import App, Connection, Message, Receive, Scope, Send

# A request that is being answered may finish; nobody waits longer for a stand-in to stop.
_GRACE_S = 2
# As long as a load balancer would keep a quiet connection; uvicorn's 5 s surprise clients.
_KEEP_ALIVE_S = 65


class _BendableProtocol(H11Protocol):
    """Gives the application its connection, which ASGI has no word for, and dates the answers."""

    date: Callable[[], str]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # The switch of uvicorn's configuration is overruled by any handler on its logger, and
        # its access log shows query strings, which may hold a key.
        self.access_log = False
        connection = Connection(transport, self.date)
        inner: Any = self.app

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            async def send_dated(message: Message) -> None:
                if message["type"] == "http.response.start":
                    headers = list(message.get("headers", ()))
                    if not any(name == b"date" for name, _ in headers):
                        message = {
                            **message,
                            "headers": [*headers, (b"date", connection.date().encode())],
                        }
                await send(message)

            connection.offer(scope)
            await inner(scope, receive, send_dated)

        self.app: Any = app


class Listener(uvicorn.Server):
    """A server that tells when it listens and leaves signals to its owner.

    Args:
        app: What it serves.
        on_listening: Called once, when connections are accepted.
        clock: Seconds since 1970, for the `Date` of its answers.
        tls: Certificate and key to speak TLS with.
    """

    def __init__(
        self,
        app: App,
        on_listening: Callable[[], None],
        *,
        clock: Callable[[], float],
        tls: TlsFiles | None,
    ) -> None:
        def date() -> str:
            return formatdate(clock(), usegmt=True)

        super().__init__(
            uvicorn.Config(
                app,
                http=type("_Protocol", (_BendableProtocol,), {"date": staticmethod(date)}),
                ssl_certfile=None if tls is None else tls.certificate,
                ssl_keyfile=None if tls is None else tls.key,
                date_header=False,
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
