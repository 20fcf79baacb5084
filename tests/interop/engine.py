"""Runs in the Workflows engine's own environment: real workflows with the real sink block.

    python engine.py

reads one JSON object per line, runs a workflow once, and prints what its sink put out as one line.
The first line it prints is `{"ready": [NAMES]}`.

    {"case": NAME, "url": URL}      the official block, pointed at the event store of that address
    {"case": NAME, "dir": DIR}      our own block, writing to the log there; more keys are
                                    "settings", inputs of the block, "frame_time", ISO 8601, and
                                    "inputs", parameters of the workflow: "result", "priority"
    {"time": NAME, "url", "dir"}    both by turns, "runs" times, on pictures of a "size": how long
                                    each block took, in seconds
    {"close": DIR}                  end the workflows with our block in them

The detector is the one thing that is not real: a block of ours, in this very file, which the
engine imports as a plugin. No model is loaded, nothing but the store is talked to.
"""

from __future__ import annotations

import json
import os
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any, Literal

SINK = "roboflow_core/roboflow_vision_events@v1"
OUR_SINK = "vevents/vision_events@v1"
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


def workflow_of(case: str, sink: str, changes: dict[str, Any]) -> dict[str, Any]:
    """Return the definition of a workflow: picture -> detector -> sink."""
    settings = CASES[case] | changes
    return {
        "version": "1.3.0",
        "inputs": [
            {"type": "WorkflowImage", "name": "image"},
            {"type": "WorkflowParameter", "name": "result", "default_value": "fail"},
            {"type": "WorkflowParameter", "name": "priority", "default_value": 0},
        ],
        "steps": [
            {
                "type": "vevents_tests/detector@v1",
                "name": "detector",
                "image": "$inputs.image",
                "find": settings.pop("find"),
            },
            {
                "type": sink,
                "name": "sink",
                "solution": "uc-interop",
                "fire_and_forget": False,
                "cooldown_seconds": 0,
                "write_to_event_store": True,
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


class Site:
    """The engines of this process, one for each workflow, and the picture that they look at."""

    def __init__(self) -> None:
        self._engines: dict[str, Any] = {}

    def answer(self, told: dict[str, Any]) -> dict[str, Any]:
        """Do what one line says."""
        if "close" in told:
            ours = [key for key in self._engines if json.loads(key)[1] == told["close"]]
            for key in ours:
                self._engines.pop(key).close()
            return {"closed": len(ours)}
        if "time" in told:
            return self._times(told)
        return self._run(told)

    def _run(self, told: dict[str, Any]) -> dict[str, Any]:
        picture = _draw(*told.get("size", (WIDTH, HEIGHT)))
        if "frame_time" in told:
            video = {
                "video_identifier": "video-1",
                "frame_number": 1,
                "frame_timestamp": told["frame_time"],
                "fps": 30,
            }
            picture = {"type": "numpy_object", "value": picture, "video_metadata": video}
        given = {"image": [picture], **told.get("inputs", {})}
        [output] = self._engine(told).run(runtime_parameters=given)
        return output

    def _engine(self, told: dict[str, Any]) -> Any:
        from roboflow_workflows.execution_engine.core import ExecutionEngine

        changes = dict(told.get("settings", {}))
        if "dir" in told:
            os.environ["VEVENTS_DIR"] = told["dir"]
        else:
            changes["event_store_url"] = told["url"]
        key = json.dumps([told["case"], told.get("dir"), changes])
        if key not in self._engines:
            self._engines[key] = ExecutionEngine.init(
                workflow_definition=workflow_of(
                    told["case"], OUR_SINK if "dir" in told else SINK, changes
                ),
                init_parameters={"workflows_core.api_key": None},
                max_concurrent_steps=1,
            )
        return self._engines[key]

    def _times(self, told: dict[str, Any]) -> dict[str, Any]:
        """Time the sinks' own `run`, which the engine calls: the rest of a run is the same."""
        taken: dict[str, list[float]] = {"official": [], "ours": []}
        common = {"case": told["time"], "settings": told["settings"], "size": told["size"]}
        sides = {
            "official": common | {"url": told["url"]},
            "ours": common | {"dir": told["dir"]},
        }
        for side, one in sides.items():
            sink = self._engine(one)._engine._compiled_workflow.steps["sink"].step
            _time_calls(sink, taken[side])
        for _ in range(told["runs"]):
            for one in sides.values():
                output = self._run(one)
                assert output["error_status"] is False, output
        return taken


def _draw(width: int, height: int) -> Any:
    import numpy as np

    ramp = np.add.outer(np.arange(height) * 2, np.arange(width)) % 256
    return np.stack([ramp, ramp[::-1], ramp[:, ::-1]], axis=-1).astype(np.uint8)


def _time_calls(block: Any, taken: list[float]) -> None:
    run = block.run

    def timed(*given: Any, **inputs: Any) -> Any:
        begin = time.perf_counter()
        try:
            return run(*given, **inputs)
        finally:
            taken.append(time.perf_counter() - begin)

    block.run = timed


def main() -> None:
    """Answer one line after the other."""
    os.environ["WORKFLOWS_PLUGINS"] = f"{Path(__file__).stem},vevents.workflows"
    sys.path.insert(0, str(Path(__file__).parent))
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print goes elsewhere
    declare_missing_operators()
    site = Site()
    print(json.dumps({"ready": list(CASES)}), file=answers)
    for line in sys.stdin:
        print(json.dumps(site.answer(json.loads(line))), file=answers)


if __name__ == "__main__":
    main()
