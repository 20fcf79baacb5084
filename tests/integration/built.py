"""Where `./dev test-c` puts what the tests start."""

from __future__ import annotations

from pathlib import Path

APPEND_BENCH = Path(__file__).parents[2] / "build" / "c" / "csrc" / "bench" / "append_bench"
