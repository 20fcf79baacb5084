"""Counts parts on pictures with a Workflow whose sink is the event log.

    pip install roboflow-workflows vevents
    python examples/workflow/run.py --dir ./log --part part.png tray-1.png tray-2.png
    vevents tail --dir ./log

No account, no model and no network: the Workflow (count_parts.json) finds the picture of a part on
the picture of a tray. One line is printed for each picture. The time of an event is the time at
which its picture was saved.
"""

from __future__ import annotations

import argparse
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

WORKFLOW = Path(__file__).with_name("count_parts.json")


def read_picture(path: Path, number: int) -> dict[str, Any]:
    """Return a picture as the engine takes it, with the time at which it was made."""
    import cv2

    pixels = cv2.imread(str(path))
    if pixels is None:
        raise SystemExit(f"{path}: no picture")
    made = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return {
        "type": "numpy_object",
        "value": pixels,
        "video_metadata": {
            "video_identifier": "tray",
            "frame_number": number,
            "frame_timestamp": made.isoformat(),
        },
    }


def main() -> None:
    """Run the Workflow once for each picture."""
    parser = argparse.ArgumentParser(description="Count parts on pictures, into an event log.")
    parser.add_argument("--dir", required=True, help="directory of the log")
    parser.add_argument("--part", required=True, type=Path, help="picture of one part")
    parser.add_argument("--cooldown", type=float, default=1.0, help="seconds between two events")
    parser.add_argument("pictures", nargs="+", type=Path)
    told = parser.parse_args()

    # Both before the engine is imported, as they would be in the environment of a service.
    os.environ["WORKFLOWS_PLUGINS"] = "vevents.workflows"
    os.environ["VEVENTS_DIR"] = told.dir
    from roboflow_workflows.execution_engine.core import ExecutionEngine

    engine = ExecutionEngine.init(
        workflow_definition=json.loads(WORKFLOW.read_text()),
        init_parameters={"workflows_core.api_key": None},
        max_concurrent_steps=1,
    )
    try:
        for number, path in enumerate(told.pictures, 1):
            [output] = engine.run(
                runtime_parameters={
                    "image": [read_picture(path, number)],
                    "part": [read_picture(told.part, 0)],
                    "cooldown_seconds": told.cooldown,
                }
            )
            print(json.dumps({"picture": path.name, **output}))
    finally:
        # Writes what the cooldown still holds; the end of the program would do it, too.
        engine.close()


if __name__ == "__main__":
    main()
