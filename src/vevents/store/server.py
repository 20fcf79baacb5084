"""Running the event store: uvicorn with limits on connections and time, and an end on a signal.

uvicorn waits for ever on a connection that sends nothing, and on a client that does not take its
answer. A few hundred of those would be all the file descriptors of a small device.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final, NamedTuple

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from vevents.log import EventLog
from vevents.store.app import CROWDED_EXTENSION, Store
from vevents.store.config import BACKLOG, StoreConfig, is_open

_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
# A quiet connection may stay as long as a load balancer would keep it.
_KEEP_ALIVE_S: Final = 65
# Connections beyond the limit that are still told so; more are cut without a word.
_SPARE_CONNECTION_COUNT: Final = 64
# Files of this process that are no connections: the log's, the event loop's, what it was given.
_OTHER_FILE_COUNT: Final = 32
# Turns of the event loop, each of which accepts some, until the first of them are closed.
_TURNS_UNTIL_CUT: Final = 5

_LOGGER = logging.getLogger(__name__)


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


class Room(NamedTuple):
    """How many connections there may be.

    Attributes:
        served: At one time.
        spare: Beyond these, that are told so.
        burst: Beyond these, that are accepted at a time and cut.
    """

    served: int
    spare: int
    burst: int

    @property
    def file_count(self) -> int:
        """Files that are open at the worst moment."""
        return _OTHER_FILE_COUNT + self.served + self.spare + self.burst * _TURNS_UNTIL_CUT


def room_for(count: int) -> Room:
    """Return how many connections this process may have, and see to it that it may have so many.

    A connection for which there is no file descriptor cannot even be cut: it stays in the queue,
    in front of all that come later.

    Args:
        count: How many are wanted at one time.
    """
    wanted = Room(count, _SPARE_CONNECTION_COUNT, BACKLOG)
    need = wanted.file_count
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < need:
        soft = need if hard < 0 else min(need, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if not 0 <= soft < need:
        return wanted
    room = soft - _OTHER_FILE_COUNT
    spare = burst = max(1, room // 16)
    served = max(1, min(count, room - spare - burst * _TURNS_UNTIL_CUT))
    if served < count:
        _LOGGER.warning(
            "at most %d connections and not %d: this process may open %d files (ulimit -n)",
            served,
            count,
            soft,
        )
    return Room(served, spare, burst)


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
        allowed = room_for(config.connection_count_max)

        class Protocol(_LimitedProtocol):
            limits = config
            room = allowed

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
                backlog=allowed.burst,
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
        for one in sockets or ():
            # Few are accepted at a time, but many may wait: who finds no place there is not told.
            one.listen(BACKLOG)
        self._on_listening()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: uvicorn would raise them again after a clean end."""
        yield


class _LimitedProtocol(H11Protocol):
    """One connection, with an end to every wait."""

    limits: StoreConfig
    room: Room

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # uvicorn's switch is overruled by any handler on its logger.
        self.access_log = False
        # With no bytes allowed to wait, drain() returns when all of an answer has gone.
        transport.set_write_buffer_limits(0)
        self._header_timer: asyncio.TimerHandle | None = None
        if len(self.connections) > self.room.served + self.room.spare:
            transport.abort()
            return
        crowded = len(self.connections) > self.room.served
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
