"""The engine's process, as the tests see it.

The engine is large and has an environment of its own: `./dev interop` makes it.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

ENGINE_PYTHON = os.environ.get("VEVENTS_ENGINE_PYTHON", "")


class Engine:
    """The engine's process; one line in, one line out."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [ENGINE_PYTHON, str(Path(__file__).with_name("engine.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"NO_PROXY": "*"},
            text=True,
        )
        self.cases: list[str] = self._read()["ready"]

    def run(self, case: str, url: str) -> dict[str, Any]:
        """Run the workflow of a case once, with the official block."""
        return self.tell(case=case, url=url)

    def tell(self, **told: Any) -> dict[str, Any]:
        """Say something to the engine's process, and return its answer; see engine.py."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(told) + "\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        """End it."""
        self._process.communicate(timeout=60)

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        loaded = json.loads(self._process.stdout.readline())
        assert isinstance(loaded, dict)
        return loaded
