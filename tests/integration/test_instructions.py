"""How many instructions an append takes: a gate that a noisy machine cannot blur.

The baseline is stated for the vendored libzstd. It moves with the compiler by some percent; what
the gate is for (a dictionary that is not used, a table built for every record, a lock) moves it by
half.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCH = ROOT / "build" / "c" / "csrc" / "bench" / "append_bench"
EVENTS = 10_000

# Arguments of append_bench: instructions for each vev_log_append().
BASELINE = {
    ("--detections", "5"): 21_100,
    ("--detections", "5", "--level", "100"): 1_050,
    ("--detections", "50"): 151_000,
}
TOLERANCE = 0.25


@pytest.mark.parametrize("arguments", BASELINE, ids=" ".join)
def test_instructions_of_an_append(tmp_path, arguments):
    if shutil.which("valgrind") is None:
        pytest.skip("valgrind is not installed")
    if not BENCH.exists():
        pytest.skip("./dev test-c has not built append_bench")

    ran = subprocess.run(
        [
            "valgrind",
            "--tool=callgrind",
            f"--callgrind-out-file={tmp_path}/out",
            "--toggle-collect=vev_log_append",
            BENCH,
            tmp_path / "log",
            *arguments,
            "--events",
            str(EVENTS),
            "--sync-ms",
            "0",
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )

    assert json.loads(ran.stdout)["events"] == EVENTS
    found = re.search(r"Collected : (\d+)", ran.stderr)
    assert found is not None
    each = int(found.group(1)) / EVENTS
    print(f"{each:.0f} instructions")
    assert each == pytest.approx(BASELINE[arguments], rel=TOLERANCE)
