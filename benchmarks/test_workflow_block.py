"""How long does a Workflow wait for its sink: our block, and the official one beside it?

Both run by turns in one process of the real engine, which `./dev interop` installs. The official
one writes to `vevents serve` on the same machine, so that both end with the event in a log.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ENGINE_PYTHON = os.environ.get("VEVENTS_ENGINE_PYTHON", "")
ENGINE = Path(__file__).parents[1] / "tests" / "interop" / "engine.py"
RUNS = 200
SMALL, LARGE = (96, 64), (1920, 1080)
CASES: dict[str, dict[str, Any]] = {
    "no image, no predictions": {"time": "operator_feedback", "size": SMALL},
    "5 skeletons, image 96 x 64": {"time": "safety_alert", "size": SMALL},
    "5 skeletons, image 1920 x 1080": {"time": "safety_alert", "size": LARGE},
    "5 boxes, two images 1920 x 1080": {"time": "quality_check", "size": LARGE},
    "the same, within the cooldown": {
        "time": "quality_check",
        "size": LARGE,
        "settings": {"cooldown_seconds": 3600},
    },
}


@pytest.mark.skipif(not ENGINE_PYTHON, reason="needs the engine: ./dev interop --bench")
def test_time_that_a_workflow_waits_for_its_sink(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    serve = [sys.executable, "-m", "vevents", "serve", "--json", "--port", "0"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "text": True}
    with (
        subprocess.Popen([*serve, "--dir", str(tmp_path / "store")], **pipes) as store,
        subprocess.Popen(
            [ENGINE_PYTHON, str(ENGINE)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"NO_PROXY": "*"},
            **pipes,
        ) as engine,
    ):
        assert store.stdout and engine.stdin and engine.stdout
        url = json.loads(store.stdout.readline())["url"]
        engine.stdout.readline()
        lines = []
        for name, told in CASES.items():
            place = {"url": url, "dir": str(tmp_path / "log"), "runs": RUNS}
            engine.stdin.write(json.dumps({"settings": {}} | told | place) + "\n")
            engine.stdin.flush()
            for side, taken in json.loads(engine.stdout.readline()).items():
                lines.append(f"{name:34} {side:9} {_shown(taken[10:])}")
        engine.stdin.close()
        engine.wait(60)
        store.send_signal(signal.SIGTERM)
    with capsys.disabled():
        print("", *lines, sep="\n")


def _shown(taken: list[float]) -> str:
    percentiles = statistics.quantiles(taken, n=100)
    return f"p50 {percentiles[49] * 1e6:9.0f} us   p99 {percentiles[98] * 1e6:9.0f} us"
