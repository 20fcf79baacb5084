"""Runs in the Workflows engine's own environment: real workflows with the real sink block.

    python engine.py

reads one JSON object per line, `{"case": NAME, "url": URL}`, runs the workflow of that name once
with its sink pointed at the event store of that address, and prints what the sink put out as one
line. The first line it prints is `{"ready": [NAMES]}`.

The detector is the one thing that is not real: a block of ours, in this very file, which the
engine imports as a plugin. No model is loaded, nothing but the store is talked to.
"""

from __future__ import annotations

import json
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any, Literal

SINK = "roboflow_core/roboflow_vision_events@v1"
WIDTH, HEIGHT = 96, 64
COUNT = 5

# What the sink is told in each case; `find` is what our detector finds.
CASES: dict[str, dict[str, Any]] = {
    "quality_check": {
        "find": "boxes",
        "input_image": "$inputs.image",
        "output_image": "$steps.detector.shown",
        "predictions": "$steps.detector.predictions",
        "event_type": "quality_check",
        "qc_result": "fail",
        "external_id": "batch-7",
        "custom_metadata": {"line_id": "line-3", "shift": 2, "rework": True, "humidity": 0.4},
    },
    "inventory_count": {
        "find": "boxes",
        "predictions": "$steps.detector.predictions",
        "event_type": "inventory_count",
        "location": "dock-7",
        "item_count": COUNT,
        "item_type": "pallet",
    },
    "safety_alert": {
        "find": "skeletons",
        "input_image": "$inputs.image",
        "predictions": "$steps.detector.predictions",
        "event_type": "safety_alert",
        "alert_type": "no_hardhat",
        "severity": "high",
        "alert_description": "person without a hard hat, gate 2 – Süd",
    },
    "custom": {
        "find": "outlines",
        "input_image": "$inputs.image",
        "predictions": "$steps.detector.predictions",
        "event_type": "custom",
        "custom_value": "spill",
    },
    "classification": {
        "find": "class",
        "input_image": "$inputs.image",
        "predictions": "$steps.detector.predictions",
        "event_type": "quality_check",
        "qc_result": "pass",
    },
    "operator_feedback": {
        "find": "nothing",
        "event_type": "operator_feedback",
        "related_event_id": "evt-001",
        "feedback": "incorrect",
    },
}


@cache
def load_blocks() -> list[type]:
    """What the engine asks a plugin for, and for the same classes each time."""
    import numpy as np
    import supervision as sv
    from roboflow_workflows.execution_engine.entities.base import (
        OutputDefinition,
        WorkflowImageData,
    )
    from roboflow_workflows.execution_engine.entities.types import (
        IMAGE_KIND,
        WILDCARD_KIND,
        Selector,
    )
    from roboflow_workflows.prototypes.block import WorkflowBlock, WorkflowBlockManifest

    class Manifest(WorkflowBlockManifest):
        type: Literal["vevents_tests/detector@v1"]
        image: Selector(kind=[IMAGE_KIND])  # type: ignore[valid-type]
        find: str

        @classmethod
        def describe_outputs(cls) -> list[OutputDefinition]:
            return [
                OutputDefinition(name="predictions", kind=[WILDCARD_KIND]),
                OutputDefinition(name="shown", kind=[IMAGE_KIND]),
            ]

        @classmethod
        def get_execution_engine_compatibility(cls) -> str | None:
            return ">=1.3.0,<2.0.0"

    # The engine evaluates annotations; the names of this function are not in reach there.
    Manifest.model_rebuild(_types_namespace={**globals(), "Selector": Selector, **locals()})

    class Detector(WorkflowBlock):
        @classmethod
        def get_manifest(cls) -> type[WorkflowBlockManifest]:
            return Manifest

        def run(self, image: WorkflowImageData, find: str) -> dict[str, Any]:
            shown = WorkflowImageData.copy_and_replace(
                origin_image_data=image, numpy_image=255 - image.numpy_image
            )
            return {"predictions": _find(find), "shown": shown}

    def _find(what: str) -> Any:
        if what == "nothing":
            return None
        if what == "class":
            return {
                "predictions": [{"class": "good", "class_name": "good", "confidence": 0.9375}],
                "top": "good",
                "confidence": 0.9375,
            }
        dice = np.random.default_rng(7)
        corner = dice.uniform(0, [WIDTH - 30, HEIGHT - 30], size=(COUNT, 2))
        xyxy = np.concatenate([corner, corner + dice.uniform(5, 30, size=(COUNT, 2))], axis=1)
        data: dict[str, Any] = {
            "class_name": np.array(["burr"] * COUNT),
            "detection_id": np.array([f"d{number}" for number in range(COUNT)]),
        }
        mask = None
        if what == "outlines":
            mask = np.zeros((COUNT, HEIGHT, WIDTH), dtype=bool)
            for number, (x1, y1, x2, y2) in enumerate(xyxy.astype(int)):
                mask[number, y1 : y2 + 1, x1 : x2 + 1] = True
        if what == "skeletons":
            data["keypoints_xy"] = dice.uniform(0, HEIGHT, size=(COUNT, 3, 2)).astype(np.float32)
            data["keypoints_class_id"] = np.tile(np.arange(3), (COUNT, 1))
            data["keypoints_class_name"] = np.tile(["nose", "eye", "ear"], (COUNT, 1))
        return sv.Detections(
            xyxy=xyxy.astype(np.float32),
            mask=mask,
            confidence=dice.uniform(0.5, 1, COUNT).astype(np.float32),
            class_id=np.zeros(COUNT, dtype=int),
            data=data,
        )

    return [Detector]


def workflow_of(case: str, url: str) -> dict[str, Any]:
    """Return the definition of a workflow: picture -> detector -> sink."""
    settings = dict(CASES[case])
    return {
        "version": "1.3.0",
        "inputs": [{"type": "WorkflowImage", "name": "image"}],
        "steps": [
            {
                "type": "vevents_tests/detector@v1",
                "name": "detector",
                "image": "$inputs.image",
                "find": settings.pop("find"),
            },
            {
                "type": SINK,
                "name": "sink",
                "solution": "uc-interop",
                "fire_and_forget": False,
                "cooldown_seconds": 0,
                "write_to_event_store": True,
                "event_store_url": url,
                **settings,
            },
        ],
        "outputs": [
            {"type": "JsonField", "name": name, "selector": f"$steps.sink.{name}"}
            for name in ("error_status", "throttling_status", "event_id", "message")
        ],
    }


def declare_missing_operators() -> None:
    """Let torchvision be imported: its wheel from the index is for CUDA, torch's here is not."""
    import importlib.util

    import torch

    found = importlib.util.find_spec("torchvision")
    if torch.version.cuda is not None or found is None or found.origin is None:
        return
    try:
        torch.ops.load_library(str(Path(found.origin).with_name("_C.so")))
    except OSError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEPT.append(library)


# What is declared goes with the object that declared it.
_KEPT: list[Any] = []


def main() -> None:
    """Answer one line after the other."""
    os.environ["WORKFLOWS_PLUGINS"] = Path(__file__).stem
    sys.path.insert(0, str(Path(__file__).parent))
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print goes elsewhere
    declare_missing_operators()
    import numpy as np
    from roboflow_workflows.execution_engine.core import ExecutionEngine

    ramp = np.add.outer(np.arange(HEIGHT) * 2, np.arange(WIDTH)) % 256
    picture = np.stack([ramp, ramp[::-1], ramp[:, ::-1]], axis=-1).astype(np.uint8)
    engines: dict[tuple[str, str], Any] = {}
    print(json.dumps({"ready": list(CASES)}), file=answers)
    for line in sys.stdin:
        told = json.loads(line)
        case, url = told["case"], told["url"]
        if (case, url) not in engines:
            engines[case, url] = ExecutionEngine.init(
                workflow_definition=workflow_of(case, url),
                init_parameters={"workflows_core.api_key": None},
                max_concurrent_steps=1,
            )
        [output] = engines[case, url].run(runtime_parameters={"image": [picture]})
        print(json.dumps(output), file=answers)


if __name__ == "__main__":
    main()
