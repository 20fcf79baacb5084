"""The demo's network: first it is down, then it comes back with the emulator behind it.

The emulator runs in a process of its own (`emulator_process`), as a server does, and is asked over
HTTP alone what it holds.
"""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vevents.errors import VeventsError

_STOP_TIMEOUT_S = 10.0


class Network:
    """A place at which there is no server until `come_back()`. Use it as a context manager.

    Args:
        database: The emulator's SQLite file; one that exists is continued.
        use_case_id: The use case that the emulator knows.

    Attributes:
        url: Where the API is, or will be.
        api_key: A key that it will accept; random, and only for this run.
    """

    def __init__(self, database: Path, use_case_id: str) -> None:
        self._database = database
        self._use_case_id = use_case_id
        self._process: subprocess.Popen[str] | None = None
        # Bound but not listening: connections are refused, and nobody else can take the port.
        self._placeholder = socket.socket()
        self._placeholder.bind(("127.0.0.1", 0))
        self._port: int = self._placeholder.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self.api_key = secrets.token_hex(16)

    def come_back(self) -> None:
        """Start the emulator and wait until it listens.

        Raises:
            VeventsError: It did not start; its own words are on standard error.
        """
        self._placeholder.close()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "vevents.demo.emulator_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        settings = {
            "database": str(self._database),
            "use_case_id": self._use_case_id,
            "api_key": self.api_key,
            "port": self._port,
        }
        # On standard input, because other users can read a command line.
        self._process.stdin.write(json.dumps(settings) + "\n")
        self._process.stdin.flush()
        if self._process.stdout.readline() != "listening\n":
            raise VeventsError(f"the emulator did not start (exit code {self._process.wait()})")

    def close(self) -> None:
        """Take the network away: stop the emulator, if it runs."""
        self._placeholder.close()
        if self._process is None:
            return
        process, self._process = self._process, None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Emulator:
    """Asks a running emulator what it holds, on the paths that are no part of the API.

    Args:
        url: Where it is.
    """

    def __init__(self, url: str) -> None:
        import httpx

        # trust_env: what is on this machine must not be looked for behind a proxy.
        self._http = httpx.Client(base_url=f"{url}/__emulator__", trust_env=False, timeout=60.0)

    def counts(self) -> dict[str, Any]:
        """Return what it has counted."""
        counts: dict[str, Any] = self._get("/counts")
        return counts

    def events(self) -> dict[str, dict[str, Any]]:
        """Return every event that it holds, as it was posted, by its id."""
        return {row["event"]["eventId"]: row["event"] for row in self._pages("events")}

    def image_digests(self) -> dict[str, str]:
        """Return the SHA-256 (hex) of every image that it was given, by its source id."""
        return {row["source_id"]: row["sha256"] for row in self._pages("images")}

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _pages(self, what: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        while True:
            after = rows[-1]["seq"] if rows else 0
            page = self._get(f"/{what}", after=after, limit=1_000)[what]
            if not page:
                return rows
            rows += page

    def _get(self, path: str, **params: int) -> Any:
        answer = self._http.get(path, params=params)
        answer.raise_for_status()
        return answer.json()
