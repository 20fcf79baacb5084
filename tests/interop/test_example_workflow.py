"""The example in examples/workflow, as it is run by hand."""

from __future__ import annotations

import json
import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from engine_process import ENGINE_PYTHON

from vevents import EventLog

EXAMPLE = Path(__file__).parents[2] / "examples" / "workflow" / "run.py"
# The engine of the tests comes with a torchvision that has to be talked into being imported.
LAUNCH = (
    "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); import engine; "
    "engine.declare_missing_operators(); sys.argv.pop(0); "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)
PLACES = [(20, 30), (150, 60), (90, 140)]


def draw_tray(path: Path, part: Any, places: list[tuple[int, int]]) -> None:
    """Save a gray tray with parts on it."""
    tray = np.full((240, 320, 3), 90, np.uint8)
    for x, y in places:
        tray[y : y + part.shape[0], x : x + part.shape[1]] = part
    PIL.Image.fromarray(tray).save(path)


@pytest.mark.skipif(not ENGINE_PYTHON, reason="needs the engine: ./dev interop")
def test_the_example_counts_parts_into_a_log(tmp_path: Path) -> None:
    part = np.random.default_rng(7).integers(0, 255, (32, 40, 3), dtype=np.uint8)
    PIL.Image.fromarray(part).save(tmp_path / "part.png")
    pictures = [tmp_path / f"tray-{count}.png" for count in (1, 2, 3, 2)]
    made = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=5)
    for path in pictures:
        draw_tray(path, part, PLACES[: int(path.stem[-1])])
        os.utime(path, (made.timestamp(), made.timestamp()))

    command = [ENGINE_PYTHON, "-c", LAUNCH, str(Path(__file__).parent), str(EXAMPLE)]
    options = ["--dir", tmp_path / "log", "--part", tmp_path / "part.png", "--cooldown", "3600"]
    ran = subprocess.run(
        [*command, *map(str, [*options, *pictures])],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
    )

    outputs = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    assert [output["count"] for output in outputs] == [1, 2, 3, 2]
    assert [output["throttled"] for output in outputs] == [False, True, True, True]
    assert not any(output["failed"] for output in outputs), outputs
    with EventLog(tmp_path / "log", read_only=True) as log:
        [first, kept] = [log.decode(record) for record in log.read()]
        assert log.stats().conserved
    assert [event.data["itemCount"] for event in (first, kept)] == [1, 3]
    assert kept.metadata is not None
    assert kept.metadata["vevents_suppressed_inventory_count"] == 2
    [image] = kept.images
    boxes = {(round(box.x), round(box.y)) for box in image.object_detections}
    assert boxes == {(x + 20, y + 16) for x, y in PLACES}
    for event in (first, kept):
        age = timedelta(seconds=float((event.metadata or {}).get("vevents_frame_age_s", 0)))
        assert event.timestamp is not None
        assert abs(event.timestamp - age - made) < timedelta(milliseconds=100)
