"""What a service tells systemd about itself (sd_notify): datagrams to the socket it was given."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping


class ServiceManager:
    """The service manager that started this process; without one, every call does nothing.

    Args:
        environ: Where `NOTIFY_SOCKET` and `WATCHDOG_USEC` are looked up.

    Attributes:
        watchdog_s: Seconds after which a silent service is restarted, or None.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        path = environ.get("NOTIFY_SOCKET", "")
        # "@" stands for the NUL of the abstract namespace.
        self._address = "\0" + path[1:] if path.startswith("@") else path
        microseconds = environ.get("WATCHDOG_USEC", "")
        # WATCHDOG_PID says for whom it is meant: a wrapper's children inherit it.
        meant = environ.get("WATCHDOG_PID") in (None, "", str(os.getpid()))
        self.watchdog_s = (
            int(microseconds) / 1e6
            if meant and microseconds.isdecimal() and int(microseconds) > 0
            else None
        )

    def ready(self) -> None:
        """The service runs, or has read its new settings."""
        self._send("READY=1")

    def reloading(self) -> None:
        """The service reads its settings; `ready()` follows."""
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={microseconds}")

    def stopping(self) -> None:
        """The service is about to end."""
        self._send("STOPPING=1")

    def alive(self) -> None:
        """The service is making progress."""
        self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """What `systemctl status` shows."""
        self._send(f"STATUS={' '.join(text.split())}")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
                # A manager that does not read must not hold the service up.
                to.setblocking(False)
                to.sendto(message.encode(), self._address)
        except OSError:
            # Nobody to tell; the service is none the worse for it.
            return
