"""The figures of a run as Markdown: README's part, and docs/performance.md.

Pure functions of `results.json`, so that a test can hold the documents to it. What is said here
must be true whatever the figures are.
"""

from __future__ import annotations

import json
import statistics
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results.json")
README_BEGIN = "<!-- figures: ./dev bench --table writes what stands here -->"
README_END = "<!-- end of the figures -->"

Results = Mapping[str, Any]
Figures = Mapping[str, Any]
Rows = Mapping[str, Figures]

ON_DEVICE = "test_bytes_on_the_device"
REAL_TIME = "test_bytes_in_real_time"
OPEN = "test_open_by_size_of_the_log"
WRITE = "write(2) append, length + CRC"

# The names of columns whose figures are not durations.
_COLUMNS = {
    "bytes_per_event": "bytes on disk per event",
    "bytes": "bytes, compressed",
    "on_disk": "bytes on disk",
    "ratio": "ratio",
    "payload_bytes": "bytes of msgpack",
    "write2_bytes": "bytes by write(2)",
    "in_the_log": "bytes in the log",
    "json_bytes": "bytes of JSON",
    "max_us": "worst",
    "turn_max_us": "worst of a quarter of them, median",
    "disk_sync_max_us": "worst sync of the other writer",
    "page_faults": "page faults",
    "disk_megabytes": "MB written beside it",
    "calls": "calls",
    "waited_percent": "calls that had to wait, %",
}
_UNITS = {"_us": "us", "_ms": "ms", "_kib": "KiB", "_per_s": "per second", "_gain": "gain"}


@dataclass(frozen=True)
class Section:
    """One benchmark in docs/performance.md.

    Attributes:
        name: Of the benchmark in the results.
        title: Heading.
        text: What was measured.
        columns: Keys of the figures, in order.
        base: The row that `ratio_of` is given in multiples of.
        ratio_of: A column.
        plot: Name of the picture of it in docs/performance, which plots.py makes.
    """

    name: str
    title: str
    text: str
    columns: Sequence[str]
    base: str | None = None
    ratio_of: str | None = None
    plot: str | None = None


_TAILS = ("p50_us", "p99_us", "p99.9_us", "max_us")

SECTIONS = (
    Section(
        "test_append_beside_peers",
        "Appending beside other ways to keep an event",
        "One event with five detections at arbitrary float32 coordinates, encoded beforehand, from "
        "Python. Every peer at its best setting that keeps all events through SIGKILL; "
        "`benchmarks/test_peers.py` kills each to see that it does. All in one process by turns of "
        "5 ms, so that what the machine does to one it does to all. vevents has compressed the "
        "event when append returns, and its bytes contain a share of all fixed parts of its files.",
        (*_TAILS, "bytes_per_event"),
        base="vevents",
        ratio_of="p50_us",
        plot="append",
    ),
    Section(
        "test_append_by_level",
        "What compression costs an append",
        "The same events, by zstd level; -2 is the default, 100 stores them as they are.",
        (*_TAILS, "bytes_per_event"),
        base="-2",
        ratio_of="p50_us",
    ),
    Section(
        "test_detections[5]",
        "From a detector's arrays, 5 detections",
        "`DetectionWriter` and what a program would do by hand: a dict of the event with an id and "
        "a time, msgpack (JSON for logging), and one of the ways above to keep it. `append_rows` "
        "takes the detections of a frame in one array; level 100 does not compress, as none of the "
        "others does.",
        _TAILS,
        base="DetectionWriter",
        ratio_of="p50_us",
    ),
    Section(
        "test_detections[50]",
        "From a detector's arrays, 50 detections",
        "The same with more of them.",
        _TAILS,
        base="DetectionWriter",
        ratio_of="p50_us",
    ),
    Section(
        "test_threads_from_c",
        "Threads in C",
        "Events a second by all threads together, each measurement a process of its own, and what "
        "more threads gain. `control` compresses the same events into memory of each thread's own: "
        "what the machine had to give. `control, one order` counts them in one place besides, as "
        "any log must that keeps all threads' events in one order; what it loses is what it takes "
        "to hand one line of cache from core to core. `append, a log each` is processes that "
        "share nothing. With one thread the other core does the helper's work; with more than one "
        "the threads must.",
        ("1_per_s", "2_per_s", "4_per_s", "2_gain", "4_gain"),
        plot="threads",
    ),
    Section(
        "test_threads_from_python",
        "Threads in Python",
        "The same with threads of one Python, which keeps its lock during an append of up to 8 "
        "KiB: [design/0013](design/0013-pythons-lock.md).",
        ("1_per_s", "2_per_s", "4_per_s", "2_gain", "4_gain"),
    ),
    Section(
        "test_append_beside_a_busy_thread",
        "Appending beside a busy Python thread",
        "An append every few milliseconds, by turns, alone and while another thread of the same "
        "Python computes. Who lets go of Python's lock during a call has to get it back from that "
        "thread, which may take 5 ms and more. What the pauses do to the caches is in all rows.",
        ("p50_us", "p99_us", "max_us", "waited_percent"),
    ),
    Section(
        "test_latency_from_c",
        "The tail in C, with the disk busy",
        "Beside the loop another thread writes 1 MiB blocks to the same disk and syncs them. "
        "`control` compresses the payload into its own memory in place of appending it: what the "
        "machine itself does to such a loop, and what is in all the rows. Preemptions are how "
        "often the system took the core away. A loop without a pause fills 64 MiB in a fifth of a "
        "second, and at most a quarter of it is free ahead: when the disk does not answer for "
        "longer, an append waits, for what it overwrites has to be counted on the disk first. Such "
        "hangs are the worst cases of the other tables as well: this machine's disk, at more than "
        "some hundred megabytes a second, completes no request at all for tens of milliseconds to "
        "a second now and then.",
        (
            "p50_us",
            "p99_us",
            "p99.9_us",
            "p99.99_us",
            "turn_max_us",
            "max_us",
            "disk_sync_max_us",
            "calls",
            "page_faults",
            "preemptions",
        ),
        plot="latency",
    ),
    Section(
        "test_append_by_size_of_the_log",
        "Appending by size of the log",
        "Into full logs, so that every append is one into a ring that reclaims.",
        _TAILS,
        base="1 MiB",
        ratio_of="p50_us",
        plot="sizes",
    ),
    Section(
        OPEN,
        "Opening by size of the log",
        "Full logs whose process was killed, each time in a new process: open, read the first "
        "event, and ask for the figures of `vevents status`, twice. After a boot: in the first "
        "process that opens the log since. Medians of five.",
        ("open_ms", "first_read_ms", "status_ms", "status_again_ms", "status_after_boot_ms"),
    ),
    Section(
        "test_append_by_detections[encoded]",
        "Appending by size of the event",
        "Encoded beforehand, by number of detections.",
        (*_TAILS, "bytes_per_event"),
        base="10",
        ratio_of="p50_us",
    ),
    Section(
        "test_append_by_detections[arrays]",
        "The same from arrays",
        "Through `DetectionWriter`.",
        (*_TAILS, "bytes_per_event"),
        base="10",
        ratio_of="p50_us",
    ),
    Section(
        "test_memory_of_the_encoder",
        "Memory",
        "What malloc hands out when a log is opened, and when its first thread has appended 1,000 "
        "events.",
        ("payload_bytes", "thread_kib", "log_kib"),
    ),
)

_PREFACE = """\
# What it costs

Made by `./dev bench --table`, which runs the benchmarks named below and writes this file, the
figures in the README and the pictures. Everything here is from the one run that
`benchmarks/results.json` holds; nothing is edited by hand, and a test compares.
"""


def render_readme(results: Results) -> str:
    """Return the part of README.md between its markers."""
    section = SECTIONS[0]
    measured = _of(results, section.name)
    if measured is None:
        raise ValueError(f"{section.name} is missing in this run")
    said = [
        _wrapped(
            f"One event with five detections at arbitrary float32 coordinates, "
            f"{measured['payload_bytes']:.0f} bytes of msgpack made beforehand, appended from "
            "Python by turns in one process; every peer at its best setting that keeps all events "
            "through SIGKILL."
        ),
        "",
        *_table(
            measured["figures"],
            ("p50_us", "p99_us", "p99.9_us", "bytes_per_event"),
            base="vevents",
            ratio_of="p50_us",
            bold="vevents",
        ),
        "",
        _readme_closing(results),
    ]
    return "\n".join(said)


def _readme_closing(results: Results) -> str:
    said = ["Of these, vevents alone has compressed the event when append returns."]
    rows = "DetectionWriter, append_rows"
    gains = {
        count: f"{_gain(figures):.1f} and {_gain(figures, rows):.1f} times"
        for count in (5, 50)
        if (figures := _figures(results, f"test_detections[{count}]")) is not None
    }
    if len(gains) == 2:
        said.append(
            f"`DetectionWriter`, given a detector's 5 detections as three arrays and as one, is "
            f"{gains[5]} as fast as a dict, msgpack and write(2); with 50 detections, {gains[50]}."
        )
    opened = _figures(results, OPEN)
    if opened is not None and "1024 MiB" in opened:
        took = f"{opened['1024 MiB']['open_ms']:.0f} ms"
        cold = ", its cache cold" if results["benchmarks"][OPEN]["cold_cache"] else ""
        said.append(f"A full 1 GiB log opens in {took} after SIGKILL{cold}.")
    said.append(_machine(results))
    elsewhere = (
        "`./dev bench --table` makes these figures for your machine. Tails, threads, sizes and "
        "compression, with pictures, are in [docs/performance.md](docs/performance.md)."
    )
    return f"{_wrapped(' '.join(said))}\n\n{_wrapped(elsewhere)}"


def render_document(results: Results) -> str:
    """Return docs/performance.md."""
    parts = [_PREFACE, _wrapped(_machine(results)), "", "## Aims", "", *_aims(results)]
    for section in SECTIONS:
        measured = _of(results, section.name)
        parts += ["", f"## {section.title}", "", _wrapped(section.text), ""]
        if measured is None:
            parts.append("Not measured in this run.")
            continue
        parts += _table(
            measured["figures"], section.columns, base=section.base, ratio_of=section.ratio_of
        )
        left_out = measured.get("left_out")
        if left_out:
            parts += ["", f"Left out: {', '.join(left_out)}."]
        if section.plot:
            parts += ["", f"![{section.title}](performance/{section.plot}.svg)"]
    parts += [
        "",
        *_flash(results),
        "",
        *_compression(results),
        "",
        *_entropy(results),
        "",
        *_others(results),
    ]
    return "\n".join(parts).rstrip("\n") + "\n"


# ---- the aims ----


@dataclass(frozen=True)
class Aim:
    """What was aimed at; `found` returns the figure and whether it is met, or None."""

    text: str
    found: Callable[[Results], tuple[str, bool] | None]


def _aims(results: Results) -> list[str]:
    lines = ["| aim | found | |", "|---|---|---|"]
    for aim in AIMS:
        try:
            found = aim.found(results)
        except KeyError:
            found = None
        if found is None:
            lines.append(f"| {aim.text} | not measured | |")
        else:
            lines.append(f"| {aim.text} | {found[0]} | {'met' if found[1] else 'not met'} |")
    return lines


def _gain(figures: Rows, way: str = "DetectionWriter") -> float:
    """How many times as fast a way is as doing it by hand with write(2)."""
    gain: float = figures[WRITE]["p50_us"] / figures[way]["p50_us"]
    return gain


def _append_p50(results: Results) -> tuple[str, bool]:
    rows = results["benchmarks"]["test_append_beside_peers"]["figures"]
    ratio = rows["vevents"]["p50_us"] / rows[WRITE]["p50_us"]
    return f"{ratio:.2f} times that", ratio <= 1


def _append_p99(results: Results) -> tuple[str, bool]:
    p99 = results["benchmarks"]["test_append_beside_peers"]["figures"]["vevents"]["p99_us"]
    return _cell("p99_us", p99), p99 < 6


def _append_bytes(results: Results) -> tuple[str, bool]:
    rows = results["benchmarks"]["test_append_beside_peers"]["figures"]
    share = rows["vevents"]["bytes_per_event"] / rows[WRITE]["bytes_per_event"]
    return f"{share:.0%} of them", share <= 0.25


def _arrays(results: Results) -> tuple[str, bool]:
    rows = results["benchmarks"]["test_detections[5]"]["figures"]
    ways = {name: _gain(rows, name) for name in rows if name.startswith("DetectionWriter")}
    others = [
        f"{name.partition(', ')[2]} {gain:.1f}" for name, gain in ways.items() if ", " in name
    ]
    gain = ways["DetectionWriter"]
    return f"{gain:.1f} times ({', '.join(others)})", gain >= 4


def _latency(row: str, column: str, below_us: float) -> Callable[[Results], tuple[str, bool]]:
    def found(results: Results) -> tuple[str, bool]:
        rows = results["benchmarks"]["test_latency_from_c"]["figures"]
        value, control = rows[row][column], rows["control, disk busy"][column]
        beside = f" (control {_cell(column, control)})" if column != "p50_us" else ""
        return _cell(column, value) + beside, value < below_us

    return found


def _threads(results: Results) -> tuple[str, bool]:
    measured = results["benchmarks"]["test_threads_from_c"]
    rows = measured["figures"]
    others = ("control", "control, one order", "append, a log each")
    told = ", ".join(f"{way} {rows[way]['4_gain']:.2f}" for way in others if way in rows)
    gain = rows["append"]["4_gain"]
    by_distance = "".join(
        f"; {statistics.median(each['4_gain'] for each in turns):.2f} in {len(turns)} turns with "
        f"{statistics.median(each['core_distance_ns'] for each in turns):.0f} ns from core to core"
        for turns in _near_and_far(measured.get("by_turn", ()))
    )
    return f"{gain:.2f} times ({told}{by_distance})", gain >= 1.6


def _near_and_far(turns: Sequence[Figures]) -> list[list[Figures]]:
    """Split turns by whether the cores were as near each other as they were seen to be."""
    near_ns = 2 * min((turn["core_distance_ns"] for turn in turns), default=0)
    near = [turn for turn in turns if turn["core_distance_ns"] <= near_ns]
    far = [turn for turn in turns if turn["core_distance_ns"] > near_ns]
    return [group for group in (near, far) if group and near_ns > 0]


def _in_real_time(results: Results) -> tuple[str, bool]:
    rows = results["benchmarks"][REAL_TIME]["figures"]
    (_, first), *others = rows.items()
    told = ", ".join(f"{way} {row['ratio']:.2f}" for way, row in others)
    return f"{first['ratio']:.2f} times ({told})", first["ratio"] <= 1.3


def _written(way: str) -> Callable[[Results], tuple[str, bool]]:
    def found(results: Results) -> tuple[str, bool]:
        ratios = {rate: row["ratio"] for rate, row in _on_device(results)[way].items()}
        others = [f"{rate} a second {ratio:.2f}" for rate, ratio in ratios.items() if rate != "30"]
        return f"{ratios['30']:.2f} times ({', '.join(others)})", ratios["30"] <= 1.3

    return found


def _memory(row: str, below_kib: float) -> Callable[[Results], tuple[str, bool]]:
    def found(results: Results) -> tuple[str, bool]:
        kib = results["benchmarks"]["test_memory_of_the_encoder"]["figures"][row]["thread_kib"]
        return f"{kib:.0f} KiB", kib < below_kib

    return found


def _flat(name: str, column: str, allowed: float) -> Callable[[Results], tuple[str, bool]]:
    """From the smallest to the largest row: the factor between the cheapest and the dearest."""

    def found(results: Results) -> tuple[str, bool]:
        rows = results["benchmarks"][name]["figures"]
        first, *_, last = rows
        values = [row[column] for row in rows.values()]
        shown = f"{_cell(column, rows[first][column])} to {_cell(column, rows[last][column])}"
        return f"{shown} ({first} to {last})", max(values) <= allowed * min(values)

    return found


def _proportional(results: Results) -> tuple[str, bool]:
    rows = results["benchmarks"]["test_append_by_detections[encoded]"]["figures"]
    factor = rows["1000"]["p50_us"] / rows["10"]["p50_us"]
    return f"{factor:.0f} times for 100 times as many", factor <= 110


AIMS = (
    Aim("append from Python, median: at most that of write(2)", _append_p50),
    Aim("the same, p99: below 6 µs", _append_p99),
    Aim("its bytes on disk: a quarter of those of write(2) (see the end)", _append_bytes),
    Aim("5 detections from arrays: 4 times as fast as dict + msgpack + write(2)", _arrays),
    Aim(
        "append from C without compression, disk busy, median: below 500 ns",
        _latency("append, level 100, disk busy", "p50_us", 0.5),
    ),
    Aim("the same, p99.9: below 10 µs", _latency("append, level 100, disk busy", "p99.9_us", 10)),
    Aim(
        "append from C, compressed, disk busy, p99.9: below 10 µs",
        _latency("append, disk busy", "p99.9_us", 10),
    ),
    Aim(
        "the same, worst of ten million: below 1 ms", _latency("append, disk busy", "max_us", 1000)
    ),
    Aim("four threads from C on two cores: at least 1.6 times one", _threads),
    Aim(
        "bytes at the block device, 30 events a second, synced every 5 s: 1.3 times the compressed",
        _in_real_time,
    ),
    Aim("the same, time being played, without the helper", _written("a sync every 5 s")),
    Aim("the same, in memory, a copy every 60 s", _written("in memory, a copy every 60 s")),
    Aim(
        "encoder memory of a thread: below 512 KiB, on small devices below 128 KiB",
        _memory("level -2, 500 detections", 128),
    ),
    Aim(
        "append by size of the log: flat, within a quarter",
        _flat("test_append_by_size_of_the_log", "p50_us", 1.25),
    ),
    Aim("append by size of the event: in proportion", _proportional),
    Aim(
        "open by size of the log: flat, within a factor of 2",
        _flat(OPEN, "open_ms", 2),
    ),
    Aim(
        "first read by size of the log: flat, within a factor of 2",
        _flat(OPEN, "first_read_ms", 2),
    ),
    Aim(
        "status by size of the log: flat, within a factor of 2",
        _flat(OPEN, "status_ms", 2),
    ),
    Aim(
        "the same, asked again: flat, within a factor of 2",
        _flat(OPEN, "status_again_ms", 2),
    ),
    Aim(
        "the same, first in a boot: flat, within a factor of 2",
        _flat(OPEN, "status_after_boot_ms", 2),
    ),
)


# ---- bytes at the block device ----


def _on_device(results: Results) -> dict[str, dict[str, Mapping[str, Any]]]:
    """What test_flash.py found, by the way of syncing and the events a second."""
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for name, measured in results["benchmarks"].items():
        if name.startswith(ON_DEVICE):
            way, _, rate = name.removeprefix(ON_DEVICE).strip("[]").rpartition("-")
            found.setdefault(way, {})[rate] = measured
    return found


def _flash(results: Results) -> list[str]:
    lines = [
        "## Bytes at the block device",
        "",
        _wrapped(
            "What the kernel counts on a loop device with ext4, for each event of about "
            "190 bytes in the log, and in multiples of those. See [flash.md](flash.md)."
        ),
        "",
    ]
    found = _on_device(results)
    if not found:
        return [*lines, "Not measured in this run."]
    rates = sorted({rate for rows in found.values() for rate in rows}, key=int)
    titles = " | ".join(f"{int(rate):,} a second" for rate in rates)
    lines += [f"| | {titles} |", f"|---|{'---|' * len(rates)}"]
    for way, rows in found.items():
        cells = [
            f"{rows[rate]['written_per_event']:,.0f} ({rows[rate]['ratio']:.2f})"
            if rate in rows
            else ""
            for rate in rates
        ]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    real = results["benchmarks"].get(REAL_TIME)
    if real:
        lines += ["", "Not played, but in real time, with the helper:", ""]
        lines += ["| mounted | bytes of an event | |", "|---|---|---|"]
        for way, row in real["figures"].items():
            lines.append(f"| {way} | {row['written_per_event']:,.0f} | {row['ratio']:.2f} |")
    return lines


# ---- compression ----


def _compression(results: Results) -> list[str]:
    streams = {
        name.removeprefix("test_compression[").removesuffix("]"): measured
        for name, measured in results["benchmarks"].items()
        if name.startswith("test_compression[")
    }
    lines = [
        "## Compression",
        "",
        _wrapped(
            "Bytes per event, of the payload alone; a record has 40 more and is a multiple of 8. "
            "Blocks and MCAP are smaller because they compress many events together, and lose the "
            "open block when the process is killed. A log's first segment has the shipped "
            "dictionary; every later one the device's own events behind it. All at zstd's level "
            "1 but the last row, which is a real log as it comes, header and padding included."
        ),
        "",
    ]
    if not streams:
        return [*lines, "Not measured in this run."]
    ways = list(next(iter(streams.values()))["figures"])
    lines += [f"| | {' | '.join(streams)} |", f"|---|{'---|' * len(streams)}"]
    total = [f"{measured['json_bytes']:.0f}" for measured in streams.values()]
    lines.append(f"| JSON, as it is delivered | {' | '.join(total)} |")
    raw = [f"{measured['payload_bytes']:.0f}" for measured in streams.values()]
    lines.append(f"| msgpack | {' | '.join(raw)} |")
    for way in ways:
        cells = [
            f"{(row := measured['figures'][way])['bytes']:.0f} ({row['ratio']:.1f} : 1)"
            for measured in streams.values()
        ]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    stored = [f"{measured['in_the_log']:.0f}" for measured in streams.values()]
    lines.append(f"| a record in a log | {' | '.join(stored)} |")
    return [*lines, "", "![Compression](performance/compression.svg)"]


def _entropy(results: Results) -> list[str]:
    lines = ["## How small an event with arbitrary boxes can get", ""]
    measured = _of(results, "test_entropy")
    if measured is None:
        return [*lines, "Not measured in this run."]
    floor, header = measured["floor_bytes"], measured["record_header_bytes"]
    rows = measured["figures"]
    whole = rows["float32 as it is"]
    shares = "; ".join(f"{name}: {value:.1f}" for name, value in measured["floor"].items())
    quarter = whole["write2_bytes"] / 4
    least = floor + header
    said = (
        "A number drawn uniformly and rounded to float32 keeps about 25 bits of chance, of which "
        "no code can save one, so the event of the first table has an entropy of "
        f"{floor:.0f} bytes ({shares}). With the record's header of {header} bytes that is "
        f"{least:.0f}, and {least / whole['write2_bytes']:.0%} of the {whole['write2_bytes']:.0f} "
        f"bytes that write(2) leaves; a record has {whole['in_the_log']:.0f}. A quarter, "
        f"{quarter:.0f} bytes, "
        + (
            "is below that floor: no compression can give it to such events behind such a header."
            if quarter < least
            else "is above that floor."
        )
        + " What a device can do is to say less: the same events with their numbers rounded."
    )
    return [
        *lines,
        _wrapped(said),
        "",
        *_table(rows, ("payload_bytes", "write2_bytes", "in_the_log", "json_bytes")),
    ]


def _others(results: Results) -> list[str]:
    """Benchmarks with figures that have no section of their own."""
    known = {section.name for section in SECTIONS} | {"test_entropy", REAL_TIME}
    lines: list[str] = []
    for name, measured in results["benchmarks"].items():
        if name in known or name.startswith("test_compression[") or "figures" not in measured:
            continue
        rows = measured["figures"]
        columns = list(next(iter(rows.values())))
        lines += [f"## `{name}`", "", *_table(rows, columns), ""]
    return lines


# ---- how it looks ----


def _of(results: Results, name: str) -> Mapping[str, Any] | None:
    found: Mapping[str, Any] | None = results["benchmarks"].get(name)
    return found


def _figures(results: Results, name: str) -> Rows | None:
    found = _of(results, name)
    return None if found is None else found["figures"]


def _table(
    rows: Rows,
    columns: Sequence[str],
    *,
    base: str | None = None,
    ratio_of: str | None = None,
    bold: str | None = None,
) -> list[str]:
    shown = [column for column in columns if any(column in row for row in rows.values())]
    titles = [_title(column) for column in shown]
    if ratio_of is not None and base in rows:
        titles.insert(1, f"{_title(ratio_of)}, relative")
    lines = [f"| | {' | '.join(titles)} |", f"|---|{'---|' * len(titles)}"]
    for name, row in rows.items():
        cells = [_cell(column, row[column]) if column in row else "" for column in shown]
        if ratio_of is not None and base in rows:
            cells.insert(1, f"{row[ratio_of] / rows[base][ratio_of]:.2f}")
        label = f"**{name}**" if name == bold else name
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return lines


def _title(column: str) -> str:
    if column in _COLUMNS:
        return _COLUMNS[column]
    for suffix, unit in _UNITS.items():
        if column.endswith(suffix):
            stem = column.removesuffix(suffix).replace("_", " ")
            if unit in ("per second", "gain"):
                return f"{stem} threads, {unit}" if stem != "1" else f"1 thread, {unit}"
            return f"{stem}, KiB" if unit == "KiB" else stem
    return column.replace("_", " ")


def _cell(column: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if column.endswith("_us"):
        return _duration(value)
    if column.endswith("_ms"):
        return _duration(value * 1000)
    if column.endswith("_gain") or column == "ratio":
        return f"{value:.2f}"
    return f"{value:,.0f}"


def _duration(us: float) -> str:
    for unit, size in (("s", 1e6), ("ms", 1e3), ("µs", 1.0)):
        if us >= size:
            return f"{_three_digits(us / size)} {unit}"
    return f"{us * 1000:.0f} ns"


def _three_digits(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _machine(results: Results) -> str:
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    load = machine["load"][0]
    return (
        f"Measured on {results['date']} at commit {results['commit']}: {machine['cpu']}, "
        f"{machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}, "
        f"{machine['file_system']}, load {load} at the start; {versions}."
    )


def _wrapped(text: str, width: int = 100) -> str:
    return "\n".join(textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False))


def load(path: Path = RESULTS) -> Results:
    """Read the results of a run."""
    found: Results = json.loads(path.read_text(encoding="utf-8"))
    return found
