"""Do more threads append more, up to the cores there are?

    ./dev bench benchmarks/test_threads.py

From C every measurement is a process of its own, by turns; `control` is the same loop without the
log, so what it gains is all that the machine has to give just then; `one order` is that and a
count of all events in one place, which any log needs that keeps them in one. With `a log each` the
threads are processes that share nothing: what they do not gain is not lost by waiting for each
other.
Under a hypervisor two cores may share a cache at one time and not at another, and take some 30 ns
or some 180 to hand each other a line of it. So each measurement tells which it was.
From Python all happens in one process, each count of threads by turns.

And what does a thread that computes in Python do to one that appends now and then?
"""

from __future__ import annotations

import os
import resource
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peers import PEERS
from vevents import DetectionWriter, Event, EventLog
from workload import append_bench, arrays_of, summary, typical_payloads

THREADS = (1, 2, 4)
WAYS_IN_C = {
    "append": (),
    "append, level 100": ("--level", 100),
    "arrays": ("--build",),
    "control": ("--control",),
    "control, one order": ("--shared-control",),
}


def _a_log_each(directory: Path, processes: int, events: int) -> float:
    """Return how many events a second all processes append together, as the slowest has it."""
    directory.mkdir(exist_ok=True)

    def rate_of(number: int) -> float:
        ran = append_bench(directory / str(number), "--events", events // processes)
        return float(ran["events_per_s"])

    with ThreadPoolExecutor(processes) as pool:
        return processes * min(pool.map(rate_of, range(processes)))


def test_threads_from_c(benchmark: Any, tmp_path: Path, scale: float) -> None:
    # Two seconds of them: in the first tenth a log finds out how fast it is, and until it has once
    # gone around its ring, the kernel has to find memory for every page.
    events = max(2_000, int(4_000_000 * scale))
    rates: dict[tuple[str, int], list[float]] = {}
    distances: list[float] = []  # of the cores, when four threads appended

    def by_turns() -> None:
        for turn in range(max(1, round(5 * min(1, 3 * scale)))):
            for way, options in WAYS_IN_C.items():
                for threads in THREADS:
                    share = ("--threads", threads, "--events", events // threads)
                    told = append_bench(tmp_path / f"{turn}", *options, *share)
                    rates.setdefault((way, threads), []).append(told["events_per_s"])
                    if (way, threads) == ("append", 4):
                        distances.append(max(told["core_distances_ns"]))
            for processes in THREADS:
                rate = _a_log_each(tmp_path / f"{turn}-each", processes, events)
                rates.setdefault(("append, a log each", processes), []).append(rate)

    benchmark.pedantic(by_turns)
    benchmark.extra_info |= _figures(rates)
    benchmark.extra_info["by_turn"] = [
        {"core_distance_ns": distance, "4_gain": gain}
        for distance, gain in zip(distances, _gains(rates, "append", 4), strict=True)
    ]


Ways = dict[str, tuple[Callable[..., object], Sequence[tuple[Any, ...]]]]


@contextmanager
def _ways_from_python(directory: Path) -> Iterator[tuple[Ways, DetectionWriter]]:
    """Ways to append an event of 5 detections, with what to give them; and a writer for others."""
    payloads = [(payload,) for payload in typical_payloads(5_000)]
    common = Event.quality_check(result="fail", use_case_id="press-line")
    (directory / "file").mkdir()
    write = PEERS["write(2) append, length + CRC"].open(directory / "file")
    with EventLog(directory / "log", events_size=256 << 20) as log:
        writer = DetectionWriter(log, common, ["person", "forklift", "pallet"])
        yield (
            {
                "append_encoded": (log.append_encoded, payloads),
                "DetectionWriter": (writer.append, arrays_of(5)),
                "write(2) append, length + CRC": (write.append, payloads),
            },
            writer,
        )
        assert log.stats().conserved
    write.close()


def test_threads_from_python(benchmark: Any, tmp_path: Path, scale: float) -> None:
    with _ways_from_python(tmp_path) as (ways, _):
        rates: dict[tuple[str, int], list[float]] = {}

        def by_turns() -> None:
            for _ in range(max(2, int(30 * scale))):
                for way, (call, given) in ways.items():
                    for threads in THREADS:
                        rate = _rate(call, given, threads, 12_000 // threads)
                        rates.setdefault((way, threads), []).append(rate)

        benchmark.pedantic(by_turns)
    benchmark.extra_info |= _figures(rates)


def test_append_beside_a_busy_thread(benchmark: Any, tmp_path: Path, scale: float) -> None:
    """As a camera's loop does: an append, then a while of something else, without Python's lock."""
    figures: dict[str, dict[str, float]] = {}
    with _ways_from_python(tmp_path) as (ways, writer):
        for count in (50, 500):
            ways[f"DetectionWriter, {count} detections"] = (writer.append, arrays_of(count))
        turns = max(20, int(1_500 * scale))

        def measure() -> None:
            alone = _now_and_then(ways, turns)
            stop = threading.Event()
            busy = threading.Thread(target=_compute, args=(stop,))
            busy.start()
            try:
                beside = _now_and_then(ways, turns)
            finally:
                stop.set()
                busy.join()
            figures.update({f"{way}, alone": row for way, row in alone.items()})
            figures.update({f"{way}, beside it": row for way, row in beside.items()})

        benchmark.pedantic(measure)
    benchmark.extra_info |= {"cores": os.cpu_count(), "figures": figures}


def _compute(stop: threading.Event) -> None:
    total = 0
    while not stop.is_set():
        for i in range(1_000):
            total += i * i


def _now_and_then(ways: Ways, turns: int) -> dict[str, dict[str, float]]:
    """Call each by turns, with pauses. Returns how long calls took, and how many had to wait."""
    taken: dict[str, list[int]] = {way: [] for way in ways}
    waited = dict.fromkeys(ways, 0)
    for turn in range(turns):
        for way, (call, given) in ways.items():
            time.sleep(0.002)
            before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
            began = time.perf_counter_ns()
            call(*given[turn % len(given)])
            taken[way].append(time.perf_counter_ns() - began)
            waited[way] += resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw > before
    return {
        way: summary(sorted(durations)) | {"waited_percent": 100 * waited[way] / turns}
        for way, durations in taken.items()
    }


def _rate(
    call: Callable[..., object], given: Sequence[tuple[Any, ...]], threads: int, calls: int
) -> float:
    """Return how many calls a second all threads make together, once all of them are there."""
    ready = threading.Barrier(threads + 1)

    def work(first: int) -> None:
        ready.wait()
        for i in range(first, first + calls):
            call(*given[i % len(given)])

    workers = [threading.Thread(target=work, args=(n * 1237,)) for n in range(threads)]
    for worker in workers:
        worker.start()
    ready.wait()
    began = time.perf_counter()
    for worker in workers:
        worker.join()
    return threads * calls / (time.perf_counter() - began)


def _figures(rates: dict[tuple[str, int], list[float]]) -> dict[str, Any]:
    """Medians, and the median over all turns of what more threads gained in that turn."""
    figures: dict[str, dict[str, float]] = {}
    for (way, threads), found in rates.items():
        row = figures.setdefault(way, {})
        row[f"{threads}_per_s"] = statistics.median(found)
        if threads > 1:
            row[f"{threads}_gain"] = statistics.median(_gains(rates, way, threads))
    return {"cores": os.cpu_count(), "figures": figures}


def _gains(rates: dict[tuple[str, int], list[float]], way: str, threads: int) -> list[float]:
    """What more threads gained, by turns."""
    return [more / one for more, one in zip(rates[way, threads], rates[way, 1], strict=True)]
