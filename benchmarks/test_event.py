"""What does the whole way cost in Python: build an event, check it, encode it, append it?"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from vevents import EventLog, codec
from workload import latencies_ns, summary, typical_event


def test_append_event(benchmark: Any, tmp_path: Path) -> None:
    rng = random.Random(1)
    events = [typical_event(rng) for _ in range(20_000)]
    with EventLog(tmp_path / "log") as log:
        taken = benchmark.pedantic(latencies_ns, args=(log.append, events), rounds=1)
    benchmark.extra_info |= summary(taken)


def test_encode(benchmark: Any) -> None:
    event = typical_event(random.Random(1))
    benchmark(codec.encode, event)


def test_validate(benchmark: Any) -> None:
    event = typical_event(random.Random(1))
    benchmark(event.validate)
