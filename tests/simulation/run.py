"""One seed, from the first day to the last."""

from __future__ import annotations

import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from simulation.device import Device
from simulation.network import Network
from simulation.server import Server, by_itself
from simulation.world import BrokenPromiseError, World
from vevents._ffi import set_clock

_DAYS_PER_MONTH = 30
_LINES_SHOWN = 60
_MEMORY = Path("/dev/shm")


@dataclass(slots=True)
class Outcome:
    """What a seed came to.

    Attributes:
        seed: Which.
        months: How long it was.
        counts: What happened, by what it was.
        trace: Every line of it.
        failure: What was broken, or None.
        took_s: Seconds of the processor.
    """

    seed: int
    months: float
    counts: Counter[str] = field(default_factory=Counter)
    trace: list[str] = field(default_factory=list)
    failure: str | None = None
    took_s: float = 0.0

    def report(self) -> str:
        """Return what somebody has to know who wants to repair it."""
        last = "\n".join(f"    {line}" for line in self.trace[-_LINES_SHOWN:])
        return (
            f"seed {self.seed}: {self.failure}\n{last}\n"
            f"all of it: ./dev simulate --seed {self.seed} --seeds 1 --months {self.months:g} "
            "--trace"
        )


def simulate(seed: int, months: float, show: Callable[[str], object] | None = None) -> Outcome:
    """Simulate one device.

    Args:
        seed: Everything follows from it; every tenth uploads with several threads, whose order
            does not.
        months: How long, simulated.
        show: Called with every line of the trace.
    """
    outcome = Outcome(seed, months)
    world = World(seed, show)
    began_s = time.process_time()
    counts = outcome.counts
    # In memory where that is possible: nothing here depends on what a disk does.
    place = _MEMORY if _MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="vevents-simulation-", dir=place) as directory:
        try:
            with by_itself():
                _run(world, Path(directory) / "log", months, counts)
        except Exception as error:
            broken = isinstance(error, BrokenPromiseError)
            outcome.failure = str(error) if broken else "".join(traceback.format_exception(error))
        finally:
            set_clock(None)
    outcome.took_s = time.process_time() - began_s
    outcome.trace = [world.line(when_ns, text) for when_ns, text in world.trace]
    return outcome


def _run(world: World, directory: Path, months: float, counts: Counter[str]) -> None:
    server = Server(world, needs_setup=world.dice("setup").random() < 0.2)
    network = Network(world, server)
    uploads = 4 if world.seed % 10 == 9 else 1
    device = Device(world, directory, network, server, uploads)
    try:
        device.live(months * _DAYS_PER_MONTH)
        seen = device.book.check_server()
    finally:
        device.close()
        server.close()
    counts.update({f"at the end: {name}": count for name, count in seen.items()})
    counts.update(device.counts)
    counts.update({f"server: {name}": count for name, count in server.counts.items()})
    counts.update({f"network: {name}": count for name, count in network.counts.items()})
    counts.update({f"events {name}": count for name, count in device.book.states.items()})
    counts["events forgotten by a power cut"] = device.book.forgotten
