"""How many instructions an append takes: a gate that a noisy machine cannot blur.

The baseline is stated for the vendored libzstd and Python 3.11. It moves with the compiler and with
Python by some percent; what the gate is for (a dictionary that is not used, a table built for every
record, a conversion of arrays that need none) moves it by a fifth and more.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from built import APPEND_BENCH

# Way in, detections in each event, zstd level (100: no compression): instructions for each append.
BASELINE = {
    ("encoded, from C", 5, -2): 12_500,
    ("encoded, from C", 5, 100): 1_050,
    ("encoded, from C", 50, -2): 54_200,
    ("arrays, from C", 5, -2): 16_100,
    ("arrays, from C", 5, 100): 4_740,
    ("arrays, from C", 50, -2): 86_000,
    ("encoded, from Python", 5, -2): 15_200,
    ("arrays, from Python", 5, -2): 21_200,
    ("arrays, from Python", 5, 100): 9_780,
    ("arrays, from Python", 50, -2): 97_400,
    ("rows, from Python", 5, -2): 19_900,
    ("objects, from Python", 5, -2): 158_000,
}
# The same behind the first segments, with a dictionary of the device's own events.
TRAINED = 6_850
TOLERANCE = 0.15

# Counting begins where version() calls into the library, and ends where now() does.
IN_PYTHON = """
import sys
import numpy as np
from vevents import DetectionWriter, Event, EventLog, Image, ObjectDetection, _ffi, codec

way, directory = sys.argv[1:3]
count, level, appends = map(int, sys.argv[3:])
names = ["person", "forklift", "pallet"]
common = {"result": "fail", "use_case_id": "press-line", "device_id": "press-03"}
rng = np.random.default_rng(1)
arrays = []
for _ in range(200):
    xyxy = rng.random((count, 4), dtype=np.float32) * 500
    xyxy[:, 2:] += xyxy[:, :2]
    arrays.append((xyxy, rng.random(count, dtype=np.float32), rng.integers(0, 3, count)))
objects = [
    Event.quality_check(**common, images=[Image(label="top camera", object_detections=[
        ObjectDetection(names[i], *box, score)
        for box, score, i in zip(xyxy.tolist(), confidence.tolist(), ids.tolist())
    ])])
    for xyxy, confidence, ids in arrays
]
with EventLog(directory, level=level, sync_interval_s=0) as log:
    if way.startswith(("arrays", "rows")):
        event = Event.quality_check(**common)
        writer = DetectionWriter(log, event, names, label="top camera")
        append, given = writer.append, arrays
        if way.startswith("rows"):
            append = writer.append_rows
            given = [(np.column_stack(each).astype(np.float32),) for each in arrays]
    elif way.startswith("encoded"):
        append, given = log.append_encoded, [(codec.encode(event),) for event in objects]
    else:
        append, given = log.append, [(event,) for event in objects]
    for each in given[:50]:
        append(*each)
    _ffi.version()
    for i in range(appends):
        append(*given[i % 200])
    _ffi.now()
    assert log.stats().conserved
"""


@pytest.fixture(autouse=True)
def valgrind():
    if shutil.which("valgrind") is None:
        pytest.skip("valgrind is not installed")


def callgrind(out, *arguments):
    """Run under callgrind, files and hashes as always. Returns the finished process."""
    return subprocess.run(
        ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
        env=os.environ | {"PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1"},
    )


def instructions_in_c(tmp_path, way, detections, level, appends=10_000):
    if not APPEND_BENCH.exists():
        pytest.skip("./dev test-c has not built append_bench")
    tmp_path.mkdir(exist_ok=True)
    options = ["--detections", detections, "--level", level, "--events", appends, "--sync-ms", 0]
    if way == "arrays, from C":
        options.append("--build")
    log = tmp_path / "log"
    toggle = "--toggle-collect=append_one"
    ran = callgrind(tmp_path / "out", toggle, APPEND_BENCH, log, *options)
    assert json.loads(ran.stdout)["events"] == appends
    found = re.search(r"Collected : (\d+)", ran.stderr)
    assert found is not None
    return int(found.group(1)) / appends


def instructions_in_python(tmp_path, way, detections, level, appends=1_000):
    if sys.version_info[:2] != (3, 11):
        pytest.skip("the baseline is stated for Python 3.11")
    span = ["--zero-before=vev_version", "--dump-before=vev_now"]
    program = [sys.executable, "-c", IN_PYTHON, way, tmp_path / "log", detections, level, appends]
    callgrind(tmp_path / "out", *span, *program)
    counted = (tmp_path / "out.1").read_text(encoding="utf-8")
    assert "Trigger: --dump-before=vev_now" in counted
    found = re.search(r"^summary: (\d+)", counted, re.MULTILINE)
    assert found is not None
    return int(found.group(1)) / appends


@pytest.mark.parametrize("case", BASELINE, ids=lambda case: "{}-{}-{}".format(*case))
def test_instructions_of_an_append(tmp_path, case):
    count = instructions_in_c if case[0].endswith("from C") else instructions_in_python
    each = count(tmp_path, *case)
    print(f"{each:.0f} instructions")
    assert each == pytest.approx(BASELINE[case], rel=TOLERANCE)


def test_instructions_of_an_append_with_the_devices_own_dictionary(tmp_path):
    first, more = 10_000, 40_000
    counted = [
        appends * instructions_in_c(tmp_path / str(appends), "encoded, from C", 5, -2, appends)
        for appends in (first, more)
    ]
    each = (counted[1] - counted[0]) / (more - first)
    print(f"{each:.0f} instructions")
    assert each == pytest.approx(TRAINED, rel=TOLERANCE)
