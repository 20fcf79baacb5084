"""What all benchmarks take and tell: `--scale`, the machine, and figures that are no durations."""

from __future__ import annotations

import os
import platform
import sqlite3
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from peers import PEERS

# What the figures depend on besides the peers.
_PACKAGES = ("numpy", "msgpack", "cffi", "zstandard")


def pytest_addoption(parser: Any) -> None:
    parser.addoption(
        "--scale",
        type=float,
        default=1.0,
        help="size of what is measured and how long: 0.01 takes seconds, and tells little",
    )


@pytest.fixture
def scale(request: pytest.FixtureRequest) -> float:
    return float(request.config.getoption("--scale"))


def pytest_benchmark_generate_machine_info(config: Any) -> dict[str, Any]:
    """In place of pytest-benchmark's own, which names the host and lists all flags of its CPU."""
    base = Path(config.option.basetemp or tempfile.gettempdir())
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "load": [round(load, 1) for load in os.getloadavg()],
        "system": f"{platform.system()} {platform.release().split('-')[0]} {platform.machine()}",
        "file_system": _file_system(base),
        "scale": config.getoption("--scale"),
        "versions": _versions(),
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model"):
            return value.strip()
    return platform.machine()


def _file_system(path: Path) -> str:
    """Name the type of the file system that a path is on: of the longest mount point."""
    best = ("", "unknown")
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _, mount, kind = line.split()[:3]
        if path.resolve().is_relative_to(mount) and len(mount) > len(best[0]):
            best = (mount, kind)
    return best[1]


def _versions() -> dict[str, str]:
    # Ours is named by the commit: what is measured is mostly between two versions.
    found = {"Python": platform.python_version(), "SQLite": sqlite3.sqlite_version}
    for package in (*_PACKAGES, *(peer.package for peer in PEERS.values() if peer.package)):
        try:
            found.setdefault(package, metadata.version(package))
        except metadata.PackageNotFoundError:
            continue
    return found


def pytest_terminal_summary(terminalreporter: Any, config: Any) -> None:
    """Print what pytest-benchmark's own table has no column for."""
    session = getattr(config, "_benchmarksession", None)
    for bench in session.benchmarks if session else []:
        plain = {k: v for k, v in bench.extra_info.items() if not isinstance(v, Mapping)}
        if bench.extra_info:
            terminalreporter.write_line(f"{bench.name}: {_shown(plain)}")
        for key, rows in bench.extra_info.items():
            if isinstance(rows, Mapping):
                terminalreporter.write_line(f"  {key}")
                for name, row in rows.items():
                    figures = _shown(row) if isinstance(row, Mapping) else _figure(row)
                    terminalreporter.write_line(f"    {name:34} {figures}")


def _shown(figures: Mapping[str, Any]) -> str:
    return ", ".join(f"{k} {_figure(v)}" for k, v in figures.items() if not isinstance(v, list))


def _figure(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
