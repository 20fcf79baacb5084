"""What stands between a device and the API in a plant: an encrypted front, a proxy; on loopback."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Self

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


class Site:
    """Servers on loopback in a thread of their own. Use it as a context manager.

    Attributes:
        connects: `(target, Proxy-Authorization or None)` of every CONNECT, in order.
    """

    def __init__(self) -> None:
        self.connects: list[tuple[str, str | None]] = []
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda _loop, _context: None)
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def front(self, context: ssl.SSLContext, port_behind: int) -> int:
        """Serve with encryption what is behind a plain port of this machine; return the port."""

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await _join(reader, writer, *await asyncio.open_connection("127.0.0.1", port_behind))

        return self._serve(handle, context)

    def proxy(self, login: tuple[str, str] | None = None, tls: ssl.SSLContext | None = None) -> int:
        """Serve CONNECT, to whoever has the login if there is one; return the port."""
        wanted = None
        if login is not None:
            wanted = "Basic " + base64.b64encode(":".join(login).encode()).decode()

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            fields = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            words = dict(line.split(": ", 1) for line in head[1:] if line)
            method, target, _ = head[0].split(" ")
            assert method == "CONNECT", fields
            given = words.get("Proxy-Authorization")
            self.connects.append((target, given))
            if given != wanted:
                writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
                await writer.drain()
                return
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            host, port = target.rsplit(":", 1)
            await _join(reader, writer, *await asyncio.open_connection(host, int(port)))

        return self._serve(handle, tls)

    def _serve(self, handle: Handler, context: ssl.SSLContext | None) -> int:
        async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await handle(reader, writer)
            self._tasks.discard(task)
            writer.close()

        async def start() -> asyncio.Server:
            return await asyncio.start_server(served, "127.0.0.1", 0, ssl=context)

        server = asyncio.run_coroutine_threadsafe(start(), self._loop).result(10)
        self._servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def _stop(self) -> None:
        for server in self._servers:
            server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0.01)  # the transports close in a turn of their own


@contextmanager
def refusing_front(context: ssl.SSLContext) -> Iterator[int]:
    """Serve handshakes that fail, and say to the other side why, which asyncio does not.

    Yields:
        The port.
    """
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                try:
                    context.wrap_socket(connection, server_side=True, suppress_ragged_eofs=False)
                except ssl.SSLError:
                    # To close with something unread would take the reason back.
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(65_536):
                        pass

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(10)


async def _join(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    reader_behind: asyncio.StreamReader,
    writer_behind: asyncio.StreamWriter,
) -> None:
    await asyncio.gather(_pipe(reader, writer_behind), _pipe(reader_behind, writer))


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()
