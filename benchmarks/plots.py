"""The pictures of docs/performance.md, as small SVGs that say the same for the same figures."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams |= {
    "svg.fonttype": "none",
    "svg.hashsalt": "vevents",
    "font.size": 9,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
}

import matplotlib.pyplot as plt  # noqa: E402

from workload import curve_shares  # noqa: E402

Measured = Mapping[str, Any]


def _tails(axes: Any, figures: Measured) -> None:
    """Durations by how many of the calls took no longer, a nine a step."""
    axes.set_prop_cycle(
        color=plt.get_cmap("tab20").colors[::2] + plt.get_cmap("tab20").colors[1::2]
    )
    for name, row in figures.items():
        shares = curve_shares(len(row["curve_us"]))
        nines = [k / 8 for k in range(len(shares))]
        axes.plot(nines, row["curve_us"], label=name, linewidth=2.5 if _ours(name) else 1.2)
    axes.set_yscale("log")
    axes.set_ylabel("µs")
    axes.set_xlabel("share of the calls")
    axes.set_xticks(range(6), ["0", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %"])


def _ours(name: str) -> bool:
    return name.startswith(("vevents", "append", "DetectionWriter"))


def _append(axes: Any, benchmarks: Measured) -> None:
    _tails(axes, benchmarks["test_append_beside_peers"]["figures"])
    axes.set_title("Append from Python: the tail")


def _latency(axes: Any, benchmarks: Measured) -> None:
    _tails(axes, benchmarks["test_latency_from_c"]["figures"])
    axes.set_title("Append from C")


def _threads(axes: Any, benchmarks: Measured) -> None:
    for language in ("c", "python"):
        measured = benchmarks.get(f"test_threads_from_{language}")
        for way, row in measured["figures"].items() if measured else ():
            gains = [1, row["2_gain"], row["4_gain"]]
            style = ":" if way.startswith("control") else "-" if language == "c" else "--"
            axes.plot([1, 2, 4], gains, style, marker="o", label=f"{way} ({language.title()})")
    axes.set_xticks([1, 2, 4])
    axes.set_xlabel("threads")
    axes.set_ylabel("events a second, of one thread's")
    axes.set_title("More threads")


def _sizes(axes: Any, benchmarks: Measured) -> None:
    rows = benchmarks["test_append_by_size_of_the_log"]["figures"]
    for column in ("p50_us", "p99_us", "p99.9_us"):
        axes.plot(list(rows), [row[column] for row in rows.values()], "o-", label=column[:-3])
    axes.set_yscale("log")
    axes.set_ylabel("µs")
    axes.set_xlabel("size of the log")
    axes.set_title("Append into a full log")


def _compression(axes: Any, benchmarks: Measured) -> None:
    streams = {
        name.removeprefix("test_compression[").removesuffix("]"): measured["figures"]
        for name, measured in benchmarks.items()
        if name.startswith("test_compression[")
    }
    ways = list(next(iter(streams.values())))
    height = 0.8 / len(ways)
    for i, way in enumerate(ways):
        places = [at + i * height - 0.4 for at in range(len(streams))]
        axes.barh(places, [rows[way]["ratio"] for rows in streams.values()], height, label=way)
    axes.set_yticks(range(len(streams)), list(streams))
    axes.invert_yaxis()
    axes.set_xlabel("bytes of msgpack, of those compressed")
    axes.set_title("Compression")


# By name: what draws it, and a benchmark without which it cannot be drawn.
PLOTS: dict[str, tuple[Callable[[Any, Measured], None], str]] = {
    "append": (_append, "test_append_beside_peers"),
    "latency": (_latency, "test_latency_from_c"),
    "threads": (_threads, "test_threads_from_c"),
    "sizes": (_sizes, "test_append_by_size_of_the_log"),
    "compression": (_compression, "test_compression["),
}


def draw_all(benchmarks: Measured, directory: Path) -> list[Path]:
    """Write a picture for each plot that a run has the figures for. Returns their files."""
    written = []
    directory.mkdir(parents=True, exist_ok=True)
    for name, (draw, needed) in PLOTS.items():
        if not any(each.startswith(needed) for each in benchmarks):
            continue
        figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
        draw(axes, benchmarks)
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
        plt.close(figure)
        lines = (line.rstrip() for line in text.getvalue().splitlines())
        path = directory / f"{name}.svg"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        written.append(path)
    return written
