"""What a process that only appends has in memory: listed here, so that nothing is added unseen."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

APPEND = """
import sys
from vevents import Event, EventLog, Image, ObjectDetection
box = ObjectDetection("burr", x=812.5, y=403, width=37, height=22, confidence=0.913)
image = Image(b"\\xff\\xd8\\xff\\xe0" + bytes(300), object_detections=[box])
with EventLog(sys.argv[1]) as log:
    log.append(Event.quality_check(result="fail", use_case_id="uc", images=[image]), sync=True)
    stats = log.stats()
    assert stats.appended == stats.pending == 1 and stats.conserved
    print(*sys.modules)
"""

OURS = {
    "vevents",
    "vevents._core",
    "vevents._core.lib",
    "vevents._ffi",
    "vevents.codec",
    "vevents.detections",
    "vevents.errors",
    "vevents.event",
    "vevents.frames",
    "vevents.log",
}
THEIRS = {"_cffi_backend", "msgpack"}
# Of the standard library: what takes memory, or belongs to a network.
COSTLY = {
    "_hashlib",
    "asyncio",
    "ctypes",
    "email",
    "hashlib",
    "http",
    "json",
    "logging",
    "pathlib",
    "random",
    "secrets",
    "socket",
    "ssl",
    "sqlite3",
    "subprocess",
    "tempfile",
    "unittest",
    "urllib",
    "uuid",
}


def test_an_append_loads_no_more_than_it_needs(tmp_path: Path) -> None:
    # -S -E with the path by hand: what site-packages run at every start is not ours.
    program = f"import sys; sys.path[:0] = {[p for p in sys.path if p]!r}\n{APPEND}"
    ran = subprocess.run(
        [sys.executable, "-S", "-E", "-c", program, tmp_path / "log"],
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    loaded = set(ran.stdout.split())
    assert {name for name in loaded if name.partition(".")[0] == "vevents"} == OURS
    # msgpack is made with Cython, which leaves modules of its own.
    roots = {name.partition(".")[0] for name in loaded if "cython" not in name}
    assert roots - sys.stdlib_module_names - {"vevents", "__main__"} == THEIRS
    assert not loaded & COSTLY


WITHOUT_NUMPY = """
import sys
sys.modules["numpy"] = None
from vevents import DetectionWriter, Event, EventLog, EventValidationError, Image
from vevents.errors import ConfigurationError
class Tensor:
    dtype = "uint8"
with EventLog(sys.argv[1]) as log:
    event = Event.custom(value="v", use_case_id="uc", images=[Image(b"\\xff\\xd8\\xff\\xe0")])
    log.append(event)
    try:
        log.append(Event.custom(value="v", use_case_id="uc", images=[Image(Tensor())]))
    except EventValidationError as error:
        print(error)
    try:
        DetectionWriter(log, Event.custom(value="v", use_case_id="uc"), ["burr"])
    except ConfigurationError as error:
        print(error)
    stats = log.stats()
    assert stats.appended == stats.pending == 1 and stats.conserved
"""


def test_without_numpy_all_but_arrays_works(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_NUMPY, tmp_path / "log"], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    frame, writer = ran.stdout.splitlines()
    assert frame.endswith("must be bytes, a path or a numpy array, not Tensor")
    assert writer == "detections given as arrays need numpy: pip install vevents[arrays]"
