"""What ASGI has no words for: raw bytes on a connection, and the ways in which it ends badly."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_EXTENSION = "vevents.connection"
# On, for 0 seconds: closing throws away what was not sent, and says so with an RST.
_LINGER_NOT = struct.pack("ii", 1, 0)


class Connection:
    """The connection that a request came on.

    Args:
        transport: Of the server's event loop.
        date: Makes the `Date` of an answer.
    """

    def __init__(self, transport: asyncio.Transport, date: Callable[[], str]) -> None:
        self._transport = transport
        self.date = date

    @classmethod
    def of(cls, scope: Scope) -> Connection:
        """Return the connection of a request.

        Raises:
            ConnectionAbortedError: The server is not ours and gives no access to it.
        """
        found = scope.get("extensions", {}).get(_EXTENSION)
        if not isinstance(found, cls):
            raise ConnectionAbortedError("this server cannot cut a connection")
        return found

    def offer(self, scope: Scope) -> None:
        """Put the connection where `of` finds it."""
        scope.setdefault("extensions", {})[_EXTENSION] = self

    @property
    def unsent_size(self) -> int:
        """Bytes that were written and that the system has not taken yet."""
        return self._transport.get_write_buffer_size()

    def write(self, data: bytes) -> None:
        """Send bytes past the HTTP of the server; nothing of its own may follow."""
        self._transport.write(data)

    def close(self) -> None:
        """End with a FIN, behind everything that was written."""
        self._transport.close()

    def close_writing(self) -> None:
        """Send a FIN and go on reading, where that exists: TLS has no half of a connection."""
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def cut(self) -> None:
        """End at once, however the system words that."""
        self._transport.abort()

    def reset(self) -> None:
        """End at once with an RST."""
        connection = self._transport.get_extra_info("socket")
        # The client may have been faster, and the socket is closed.
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        self._transport.abort()
