"""Running the event store: uvicorn with limits on connections and time, and an end on a signal.

uvicorn waits for ever on a connection that sends nothing, and on a client that does not take its
answer. A few hundred of those would be all the file descriptors of a small device.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from vevents.log import EventLog
from vevents.store.app import CROWDED_EXTENSION, Store
from vevents.store.config import StoreConfig, is_open

_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
# A quiet connection may stay as long as a load balancer would keep it.
_KEEP_ALIVE_S: Final = 65
# Connections beyond the limit that are still told so; more are cut without a word.
_SPARE_CONNECTION_COUNT: Final = 64


def run(
    log: EventLog, config: StoreConfig, bound: socket.socket, on_ready: Callable[[], None]
) -> None:
    """Serve until SIGINT or SIGTERM; see `vevents.store.serve`."""
    with bound, contextlib.ExitStack() as stack:
        store = stack.enter_context(
            contextlib.closing(Store(log, config, open_to_all=is_open(bound)))
        )
        listener = Listener(store.app, config, on_ready)

        def stop(_signal: int, _frame: FrameType | None) -> None:
            # The second time is meant: do not wait for requests that are being answered.
            listener.force_exit = listener.should_exit
            listener.should_exit = True

        for number in _STOP_SIGNALS:
            stack.callback(signal.signal, number, signal.signal(number, stop))
        asyncio.run(listener.serve(sockets=[bound]))


class Listener(uvicorn.Server):
    """A server that tells when it listens and leaves signals to its owner.

    Args:
        app: The ASGI application.
        config: Limits.
        on_listening: Called once, when connections are accepted.
    """

    def __init__(
        self, app: Any, config: StoreConfig, on_listening: Callable[[], None] = lambda: None
    ) -> None:
        class Protocol(_LimitedProtocol):
            limits = config

        # What strangers send is no news for the device's journal.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        super().__init__(
            uvicorn.Config(
                app,
                http=Protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=max(1, round(config.grace_s)),
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


class _LimitedProtocol(H11Protocol):
    """One connection, with an end to every wait."""

    limits: StoreConfig

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # uvicorn's switch is overruled by any handler on its logger.
        self.access_log = False
        # With no bytes allowed to wait, drain() returns when all of an answer has gone.
        transport.set_write_buffer_limits(0)
        self._header_timer: asyncio.TimerHandle | None = None
        count_max = self.limits.connection_count_max
        if len(self.connections) > count_max + _SPARE_CONNECTION_COUNT:
            transport.abort()
            return
        crowded = len(self.connections) > count_max
        self._await_headers()
        inner: Any = self.app

        async def app(scope: Any, receive: Any, send: Any) -> None:
            async def send_in_time(message: Any) -> None:
                try:
                    async with asyncio.timeout(self.limits.write_timeout_s):
                        await send(message)
                        await self.flow.drain()
                except TimeoutError:
                    transport.abort()

            if crowded:
                scope.setdefault("extensions", {})[CROWDED_EXTENSION] = True
            await inner(scope, receive, send_in_time)

        self.app: Any = app

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection and its timer."""
        self._stop_header_timer()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Answer a client that has closed its side behind a whole request; then close ours.

        Returns:
            Whether the connection stays open until then.
        """
        cycle = self.cycle
        if cycle is None or cycle.more_body or cycle.response_complete:
            return False
        cycle.keep_alive = False
        return True

    def data_received(self, data: bytes) -> None:
        """Take what came; between requests, the next one's headers have to follow in time."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_header_timer()
        elif self._header_timer is None:
            self._await_headers()

    def _await_headers(self) -> None:
        self._header_timer = self.loop.call_later(
            self.limits.header_timeout_s, self.transport.abort
        )

    def _stop_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None
