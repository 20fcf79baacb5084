"""Power cuts under a real ext4: a short run of csrc/tests/crash/block_lab.c."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

LAB = Path(__file__).parents[2] / "build" / "c" / "csrc" / "tests" / "block_lab"
SKIPPED = 77
HANG_S = 60


def command(*arguments: object) -> list[str]:
    if not LAB.exists():
        pytest.skip("./dev test-c has not built the block lab")
    return [str(LAB), *map(str, arguments)]


def skip_if_told(code: int, errors: str) -> None:
    """Not root, no /dev/fuse, no loop devices, no mkfs.ext4: the lab names what is missing."""
    if code == SKIPPED:
        pytest.skip(errors.strip())


def loop_devices(lab: int) -> int:
    """How many loop devices a lab has: on images of its own name, or on a disk that is served."""
    count = 0
    for entry in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            file = entry.read_text().strip()
        except OSError:  # let go of meanwhile
            continue
        count += file == "/" or f"block-lab-{lab} " in file
    return count


def test_nothing_durable_is_lost_by_a_power_cut_under_ext4(tmp_path: Path) -> None:
    done = subprocess.run(
        command("--states", 150, "--seed", 20, "--keep", tmp_path),
        capture_output=True,
        text=True,
        timeout=10 * HANG_S,
    )
    skip_if_told(done.returncode, done.stderr)
    assert done.returncode == 0, done.stderr
    counts = re.search(
        r"(\d+) states of (\d+) recordings.* (\d+) rings had reclaimed, (\d+) had lost "
        r".* (\d+) could not be mounted; all good",
        done.stdout,
    )
    assert counts, done.stdout
    states, recordings, reclaimed, lost, unmountable = map(int, counts.groups())
    assert states == 150
    assert recordings >= 5
    # The run was about something: rings went round, unsynced records did go, and hardly ever did
    # the file system itself not come back.
    assert reclaimed > 0
    assert lost > 0
    assert unmountable <= states // 20
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_lab_that_is_killed_leaves_no_loop_devices(number: signal.Signals, tmp_path: Path) -> None:
    arguments = command("--states", 10**6, "--keep", tmp_path)
    mounts = Path("/proc/mounts").read_text()
    lab = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + HANG_S
    while not loop_devices(lab.pid) and lab.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    lab.send_signal(number)
    _, errors = lab.communicate()
    skip_if_told(lab.returncode, errors)
    assert lab.returncode == -number
    # The kernel unmounts what the last process of the lab leaves, in its own time.
    while loop_devices(lab.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not loop_devices(lab.pid)
    assert Path("/proc/mounts").read_text() == mounts
