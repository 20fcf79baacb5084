"""How long does it take to open a full 1 GiB log after a crash, and to get the first event?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from vevents import EventLog

GIB = 1 << 30

FILL = """
import os, sys
from vevents import EventLog
log = EventLog(sys.argv[1], events_size=1 << 30)
payload = os.urandom(2000)
while log.stats().evicted == 0:
    for _ in range(20_000):
        log.append_encoded(payload)
os.kill(os.getpid(), 9)
"""

OPEN = """
import json, sys, time
from vevents import EventLog
t0 = time.perf_counter()
log = EventLog(sys.argv[1])
t1 = time.perf_counter()
next(log.read())
t2 = time.perf_counter()
stats = log.stats()
t3 = time.perf_counter()
assert stats.conserved and stats.pending > 400_000, stats
print(json.dumps({"open_s": t1 - t0, "first_read_s": t2 - t1, "stats_s": t3 - t2}))
"""


def test_open_after_crash(benchmark: Any, tmp_path: Path) -> None:
    log = tmp_path / "log"
    killed = subprocess.run([sys.executable, "-c", FILL, str(log)])
    assert killed.returncode == -9
    os.sync()
    cold = _drop_caches()
    figures = benchmark.pedantic(_open, args=(log,), rounds=1)
    benchmark.extra_info |= figures | {"cold_cache": cold}


def test_open_again(benchmark: Any, tmp_path: Path) -> None:
    """The same by a process that finds everything in the page cache, on a small log."""
    with EventLog(tmp_path / "log") as log:
        log.append_encoded(b"\x80")
    benchmark(lambda: EventLog(tmp_path / "log").close())


def _open(log: Path) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", OPEN, str(log)], check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout)


def _drop_caches() -> bool:
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        return False
    return True
