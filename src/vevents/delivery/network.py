"""News of the network from the kernel: links, addresses and routes that appear (rtnetlink).

Only good news count. What goes away says nothing about when to try again.
"""

from __future__ import annotations

import logging
import socket
import struct
import sys
from collections.abc import Iterator

_LOGGER = logging.getLogger(__name__)

# <linux/netlink.h>, <linux/rtnetlink.h>, <linux/if.h>; the socket module knows none of them.
_NETLINK_ROUTE = 0
_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400  # link; addresses and routes of IPv4 and of IPv6
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence number, port
_NEW_LINK, _NEW_ADDRESS, _NEW_ROUTE = 16, 20, 24
_LINK = struct.Struct("=BxHiII")  # family, padding, device type, index, flags, mask of changes
_UP_AND_RUNNING = 0x1 | 0x40
_LOOPBACK = 0x8
_ADDRESS = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, lengths, tos, table, protocol, scope, type, flags
_SCOPE_HOST, _SCOPE_LINK = 254, 253
_TYPE_UNICAST = 1
# The largest message of the kernel fits; what is more comes with the next call.
_SIZE_MAX = 32_768
_MESSAGES_MAX = 1_000


class NetworkWatch:
    """Listens to the kernel. Where that cannot be done, it is silent.

    Without rtnetlink (another system, a sandbox that forbids it) nothing is announced, and the
    agent goes by its waits alone.
    """

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        if sys.platform != "linux":
            return
        kernel = None
        try:
            kernel = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_ROUTE
            )
            kernel.bind((0, _GROUPS))
            kernel.setblocking(False)
        except OSError as error:
            if kernel is not None:
                kernel.close()
            _LOGGER.info("no news of the network from the kernel: %s", error)
        else:
            self._socket = kernel

    def close(self) -> None:
        """Close the socket; closing twice is fine."""
        kernel, self._socket = self._socket, None
        if kernel is not None:
            kernel.close()

    def read(self) -> bool:
        """Take what the kernel has said since the last call.

        Returns:
            Whether something appeared over which a server may be reached.
        """
        if self._socket is None:
            return False
        good = False
        for _ in range(_MESSAGES_MAX):
            try:
                data = self._socket.recv(_SIZE_MAX)
            except BlockingIOError:
                break
            except OSError:
                # ENOBUFS: so much happened that the kernel could not keep it for us.
                good = True
                break
            good = any(is_good(kind, body) for kind, body in messages(data)) or good
        return good


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and body of each netlink message in a datagram; what is cut off is left out."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size or offset + length > len(data):
            return
        yield kind, data[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3


def is_good(kind: int, body: bytes) -> bool:
    """Whether a message tells of a link that runs, an address, or a route that leads out."""
    if kind == _NEW_LINK and len(body) >= _LINK.size:
        flags: int = _LINK.unpack_from(body)[3]
        return flags & _UP_AND_RUNNING == _UP_AND_RUNNING and not flags & _LOOPBACK
    if kind == _NEW_ADDRESS and len(body) >= _ADDRESS.size:
        scope: int = _ADDRESS.unpack_from(body)[3]
        return scope < _SCOPE_LINK
    if kind == _NEW_ROUTE and len(body) >= _ROUTE.size:
        *_, route_scope, route_type, _ = _ROUTE.unpack_from(body)
        return bool(route_scope < _SCOPE_HOST and route_type == _TYPE_UNICAST)
    return False
