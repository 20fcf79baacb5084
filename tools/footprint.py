"""What vevents takes on a device: disk, start, memory. footprint.py [--json] [--quick] WHEEL

    WHEEL -> an environment of its own -> sizes of what was installed
                                       -> processes of it, watched from outside

The memory of a process is what /proc/PID/smaps calls Rss, pages of the rings left out: those are
the log itself, belong to the kernel's cache and go back when it needs them. Shared libraries count
in full, although other processes share them. Times are medians and the fastest of 15 runs;
on a busy machine only the CPU time means much, and that is what the target is about. Runs in an
environment with vevents[emulate], which plays the server.

Exit code 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import distributions
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from statistics import median
from typing import Any

MIB = 1024.0  # in KiB
STARTS = 15

# What was promised, by figure.
TARGETS = {
    "append_adds_mib": 8.0,
    "append_frames_adds_mib": 8.0,
    "flush_idle_cpu_s": 0.3,
    "agent_peak_mib": 60.0,
}

LAST_WORDS = """
sys.stdout.write("ready\\n")
sys.stdout.flush()
sys.stdin.read()
"""

BARE = f"import sys{LAST_WORDS}"

# As a camera would: five boxes, and for each tenth event a picture of 100 kB.
APPEND = f"""
import os, sys
from vevents import Event, EventLog, Image, ObjectDetection
frames = sys.argv[2] == "frames"
boxes = [ObjectDetection("burr", x=812.5, y=403, width=37, height=22, confidence=0.913)] * 5
log = EventLog(sys.argv[1])
for i in range(20_000):
    frame = b"\\xff\\xd8\\xff\\xe0" + os.urandom(100_000) if frames and i % 10 == 0 else None
    image = Image(frame, object_detections=boxes)
    log.append(Event.quality_check(result="fail", use_case_id="uc", images=[image]))
stats = log.stats()
assert stats.conserved and stats.appended == 20_000{LAST_WORDS}
"""

BACKLOG = """
import os, sys
from vevents import Event, EventLog, Image
with EventLog(sys.argv[1]) as log:
    for i in range(1000):
        image = Image(b"\\xff\\xd8\\xff\\xe0" + os.urandom(100_000))
        log.append(Event.custom(value=str(i), use_case_id="uc", images=[image]))
"""


def install(folder: Path, *requirements: str) -> Path:
    """Make an environment with these packages.

    Returns:
        Its Python.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    subprocess.run([*pip, "install", "--quiet", *requirements], check=True)
    return python


def installed_sizes(folder: Path) -> dict[str, int]:
    """Return the bytes that each installed package takes, its compiled .pyc files included."""
    [site] = folder.glob("lib/python*/site-packages")
    sizes = {}
    for package in distributions(path=[str(site)]):
        files = [Path(str(package.locate_file(file))) for file in package.files or []]
        sizes[package.name] = sum(file.stat().st_size for file in files if file.is_file())
    return sizes


def rss_kib(pid: int, *, rings: bool = False) -> int:
    """Return the resident memory of a process in KiB, without (or with) pages of rings."""
    total, is_ring = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            is_ring = line.endswith(".ring")
        elif line.startswith("Rss:") and (rings or not is_ring):
            total += int(line.split()[1])
    return total


def peak_kib(pid: int) -> int:
    """Return the most that a process ever had resident, pages of rings included."""
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1])


def memory_of(python: Path, program: str, *arguments: str) -> int:
    """Return the resident KiB, without rings, of a program that has done its work."""
    command = [str(python), "-c", program, *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            sys.exit(f"footprint: the measured program ended with {process.wait()}")
        rss = rss_kib(process.pid)
        process.communicate()
    return rss


def start_times(command: Sequence[str], environment: dict[str, str]) -> dict[str, float]:
    """Return the seconds that a command takes which ends by itself, start of Python included."""
    walls, cpus = [], []
    for _ in range(STARTS + 1):
        before, began = getrusage(RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
        walls.append(time.perf_counter() - began)
        after = getrusage(RUSAGE_CHILDREN)
        cpus.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    del walls[0], cpus[0]  # the first one warms up
    return {"s": median(walls), "fastest_s": min(walls), "cpu_s": median(cpus)}


def agent_memory(python: Path, scratch: Path) -> dict[str, float]:
    """Let the agent deliver 1,000 events with pictures of 100 kB; return what it took."""
    from vevents import EventLog
    from vevents.emulator import EmulatorConfig, RunningEmulator

    log = scratch / "agent-log"
    subprocess.run([str(python), "-c", BACKLOG, str(log)], check=True)
    config = EmulatorConfig(api_keys=["footprint"], use_cases=["uc"])
    with RunningEmulator(config) as emulator:
        environment = os.environ | {
            "ROBOFLOW_API_KEY": "footprint",
            "API_URL": emulator.url,
            "NO_PROXY": "*",
        }
        command = [str(python), "-m", "vevents", "agent", "--dir", str(log)]
        agent = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        try:
            with EventLog(log, read_only=True) as reader:
                deadline = time.monotonic() + 600
                while reader.stats().pending and time.monotonic() < deadline:
                    if agent.poll() is not None:
                        sys.exit(f"footprint: the agent ended with {agent.returncode}")
                    time.sleep(0.2)
                stats = reader.stats()
                assert stats.conserved
                if stats.pending:
                    sys.exit("footprint: the agent did not deliver its backlog in 10 minutes")
            return {
                "agent_rss_mib": rss_kib(agent.pid) / MIB,
                "agent_peak_mib": peak_kib(agent.pid) / MIB,
            }
        finally:
            agent.terminate()
            agent.wait()


def measure(wheel: Path, scratch: Path, *, quick: bool) -> dict[str, Any]:
    """Return all figures; `quick` leaves out the extras' sizes."""
    figures: dict[str, Any] = {}
    core = scratch / "core"
    python = install(core, str(wheel))
    sizes = installed_sizes(core)
    figures["core_bytes"] = sizes
    for extra in [] if quick else ["arrays", "images", "serve", "emulate"]:
        install(scratch / extra, f"{wheel}[{extra}]")
        added = installed_sizes(scratch / extra)
        figures[f"{extra}_adds_bytes"] = {k: v for k, v in added.items() if k not in sizes}

    bare = memory_of(python, BARE)
    figures["python_mib"] = bare / MIB
    for what in ("append", "append_frames"):
        mode = "frames" if what == "append_frames" else "events"
        rss = memory_of(python, APPEND, str(scratch / what), mode)
        figures[f"{what}_adds_mib"] = (rss - bare) / MIB

    log = scratch / "idle-log"
    subprocess.run(
        [str(python), "-m", "vevents", "append", "--dir", str(log)], input=b"", check=True
    )
    environment = os.environ | {"ROBOFLOW_API_KEY": "footprint"}
    for name, words in {
        "python": ["-c", "pass"],
        "import": ["-c", "import vevents"],
        "help": ["-m", "vevents", "--help"],
        "flush_idle": ["-m", "vevents", "flush", "--dir", str(log)],
    }.items():
        times = start_times([str(python), *words], environment)
        figures |= {f"{name}_{key}": value for key, value in times.items()}
    return figures | agent_memory(python, scratch)


def show(figures: dict[str, Any]) -> None:
    """Print the figures as a table."""
    for name, value in figures.items():
        if isinstance(value, dict):
            total = sum(value.values()) / 1e6
            parts = sorted(value.items(), key=lambda part: -part[1])
            listed = ", ".join(f"{part} {size / 1e6:.1f}" for part, size in parts)
            print(f"{name.removesuffix('_bytes'):<24} {total:8.1f} MB     {listed}")
        else:
            stem, _, unit = name.rpartition("_")
            number = f"{1000 * value:8.0f} ms " if unit == "s" else f"{value:8.1f} MiB"
            target = TARGETS.get(name)
            judged = "" if target is None else f"    {'missed' if value > target else 'kept'}: "
            limit = "" if target is None else f"{1000 * target:.0f}" if unit == "s" else f"{target}"
            print(f"{stem:<24} {number}{judged}{limit}")


def main() -> int:
    parser = argparse.ArgumentParser(description="What vevents takes on a device.")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--quick", action="store_true", help="leave out the sizes of the extras")
    parser.add_argument("wheel", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        figures = measure(arguments.wheel.absolute(), Path(scratch), quick=arguments.quick)
    if arguments.json:
        print(json.dumps(figures, indent=2))
    else:
        show(figures)
    return int(any(figures[name] > target for name, target in TARGETS.items()))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
