"""Prints what pytest-benchmark's own table has no column for; `--scale` makes a run shorter."""

from __future__ import annotations

from typing import Any


def pytest_addoption(parser: Any) -> None:
    parser.addoption(
        "--scale",
        type=float,
        default=1.0,
        help="size of the backlogs of test_flush.py: 0.01 takes seconds",
    )


def pytest_terminal_summary(terminalreporter: Any, config: Any) -> None:
    session = getattr(config, "_benchmarksession", None)
    for bench in session.benchmarks if session else []:
        info = ", ".join(
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in bench.extra_info.items()
        )
        if info:
            terminalreporter.write_line(f"{bench.name}: {info}")
