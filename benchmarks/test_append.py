"""How long does an append take, and how many bytes does it leave, beside other ways to keep it?

    ./dev bench benchmarks/test_append.py

All in one process, by turns of a few milliseconds, on the same events; that every peer keeps them
through SIGKILL is what test_peers.py shows. Peers get what they take (msgpack, or for those that
want text JSON) made beforehand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peers import PEERS
from vevents import EventLog
from workload import by_turns, disk_bytes, ring_bytes_per_event, told, typical_payloads

LEVELS = (-2, 1, 3, -5, 100)  # the default first


def test_append_beside_peers(benchmark: Any, tmp_path: Path, scale: float) -> None:
    payloads = typical_payloads(20_000)
    opened, given = {}, {}
    for number, (name, peer) in enumerate(PEERS.items()):
        if peer.installed:
            folder = tmp_path / str(number)
            folder.mkdir()
            opened[name] = peer.open(folder)
            given[name] = [(peer.prepare(payload),) for payload in payloads]

    taken = benchmark.pedantic(
        by_turns,
        args=({name: each.append for name, each in opened.items()}, given),
        kwargs={"rounds": max(2, int(400 * scale))},
    )

    figures = {name: told(durations) for name, durations in taken.items()}
    for number, name in enumerate(PEERS):
        if name not in opened:
            continue
        if name == "vevents":
            with EventLog(tmp_path / str(number) / "log", read_only=True) as log:
                each = ring_bytes_per_event(log.stats())
        else:
            # Some of the last ones are still in memory; with this many that is nothing.
            each = disk_bytes(tmp_path / str(number)) / (figures[name]["calls"] + 50)
        figures[name]["bytes_per_event"] = each
        opened[name].close()
    benchmark.extra_info |= {
        "payload_bytes": sum(map(len, payloads)) / len(payloads),
        "left_out": sorted(set(PEERS) - set(opened)),
        "figures": figures,
    }


def test_append_by_level(benchmark: Any, tmp_path: Path, scale: float) -> None:
    payloads = [(payload,) for payload in typical_payloads(20_000)]
    logs = {str(level): EventLog(tmp_path / str(level), level=level) for level in LEVELS}

    taken = benchmark.pedantic(
        by_turns,
        args=(
            {level: log.append_encoded for level, log in logs.items()},
            dict.fromkeys(logs, payloads),
        ),
        kwargs={"rounds": max(2, int(400 * scale))},
    )

    figures = {}
    for level, log in logs.items():
        stats = log.stats()
        assert stats.conserved
        figures[level] = told(taken[level]) | {"bytes_per_event": ring_bytes_per_event(stats)}
        log.close()
    benchmark.extra_info["figures"] = figures
