"""Runs in the Workflows engine's own environment: what real packages return, through the adapters.

    python packages.py DIR

appends what each package returned to a log of its own under DIR, and prints one JSON object per
event: `{"log": NAME, ...}` with what the package itself says of the same result. No weights are
loaded: Ultralytics' models are built from their descriptions, and find what random numbers find.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

os.environ |= {
    "DISABLE_VERSION_CHECK": "True",
    "HF_HUB_OFFLINE": "1",
    "METRICS_ENABLED": "False",
    "NO_PROXY": "*",
    "TELEMETRY_OPT_OUT": "True",
    "WORKFLOWS_PLUGINS": "engine,vevents.workflows",
    "YOLO_AUTOINSTALL": "False",
    "YOLO_OFFLINE": "True",
}
sys.path.insert(0, str(Path(__file__).parent))

import engine

from vevents import Event, EventLog
from vevents.adapters import (
    PipelineSink,
    VisionEventSink,
    from_inference,
    from_ultralytics,
    rgb,
)

SEEN = Event.custom(value="seen")
WIDTH, HEIGHT = 96, 64
FRAMES = 5
BOX = {"x": 30.5, "y": 20.25, "width": 11, "height": 7.5, "confidence": 0.875, "class_id": 3}
MODELS = ["yolov8n", "yolov8n-seg", "yolov8n-pose", "yolov8n-obb", "yolov8n-cls", "yolo11n"]


def ultralytics(directory: Path) -> Iterator[dict[str, Any]]:
    """Every task of Ultralytics, each on one picture."""
    import numpy as np
    import torch
    import torchvision
    from ultralytics import YOLO
    from ultralytics.utils.nms import TorchNMS

    # torchvision's own is missing beside this torch; see engine.py.
    torchvision.ops.nms = TorchNMS.nms
    torch.manual_seed(7)
    picture = np.random.default_rng(7).integers(0, 255, (240, 320, 3), np.uint8)
    with EventLog(directory / "ultralytics") as log:
        for name in MODELS:
            [result] = YOLO(f"{name}.yaml").predict(picture, conf=0.0, max_det=15, verbose=False)
            seen = from_ultralytics(result, frame=rgb(result.orig_img), label=name)
            log.append(Event.custom(value=name, images=[seen.image], metadata=seen.metadata))
            yield {"log": "ultralytics", "model": name, "summary": result.summary(decimals=17)}


def responses() -> dict[str, Any]:
    """One response of each kind, as objects of the `inference` package."""
    from inference.core.entities.responses import inference as kinds

    size = kinds.InferenceResponseImage(width=WIDTH, height=HEIGHT)
    outline = [{"x": 25, "y": 17.5}, {"x": 36, "y": 17.5}, {"x": 36, "y": 24}]
    skeleton = [
        {"x": 26, "y": 18, "confidence": 0.5, "class_id": 4, "class": "wrist"},
        {"x": 35.5, "y": 23, "confidence": 0.5, "class_id": 0, "class": "nose"},
    ]
    box = BOX | {"class": "burr"}
    return {
        "boxes": kinds.ObjectDetectionInferenceResponse(
            image=size, predictions=[kinds.ObjectDetectionPrediction(**box)]
        ),
        "outlines": kinds.InstanceSegmentationInferenceResponse(
            image=size,
            predictions=[kinds.InstanceSegmentationPrediction(points=outline, **box)],
        ),
        "outlines of a workflow": kinds.InstanceSegmentationInferenceResponseDC(
            image=kinds.InferenceResponseImageDC(WIDTH, HEIGHT),
            predictions=[
                kinds.InstanceSegmentationPredictionDC(
                    class_name="burr", points=[kinds.PointDC(**p) for p in outline], **BOX
                )
            ],
        ),
        "skeletons": kinds.KeypointsDetectionInferenceResponse(
            image=size, predictions=[kinds.KeypointsPrediction(keypoints=skeleton, **box)]
        ),
        "class": kinds.ClassificationInferenceResponse(
            image=size,
            predictions=[
                kinds.ClassificationPrediction(**{"class": "good", "class_id": 0}, confidence=0.75),
                kinds.ClassificationPrediction(**{"class": "bad", "class_id": 1}, confidence=0.25),
            ],
            top="good",
            confidence=0.75,
        ),
        "labels": kinds.MultiLabelClassificationInferenceResponse(
            image=size,
            predictions={
                "wet": kinds.MultiLabelClassificationPrediction(confidence=0.75, class_id=0),
                "dry": kinds.MultiLabelClassificationPrediction(confidence=0.125, class_id=1),
            },
            predicted_classes=["wet"],
        ),
    }


def objects_of_inference(directory: Path) -> Iterator[dict[str, Any]]:
    """What `model.infer()` returns in one's own process."""
    with EventLog(directory / "inference") as log:
        for name, response in responses().items():
            seen = from_inference(response, label=name)
            log.append(Event.custom(value=name, images=[seen.image], metadata=seen.metadata))
            yield {"log": "inference", "name": name}


def answers_over_http(directory: Path) -> Iterator[dict[str, Any]]:
    """What the `inference_sdk` package makes of a server's answers."""
    import numpy as np
    from inference_sdk import InferenceHTTPClient

    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    sent = {name: one for name, one in responses().items() if hasattr(one, "model_dump_json")}
    with EventLog(directory / "http") as log, answering(sent) as url:
        client = InferenceHTTPClient(api_url=url, api_key="none").select_api_v0()
        for name in sent:
            answer = client.infer(picture, model_id=f"{name}/1")
            seen = from_inference(answer, label=name)
            log.append(Event.custom(value=name, images=[seen.image], metadata=seen.metadata))
            yield {"log": "http", "name": name}


@contextmanager
def answering(sent: dict[str, Any]) -> Iterator[str]:
    """Answer each request with the response that its path names; yields the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = sent[self.path.split("/")[1]].model_dump_json(by_alias=True, exclude_none=True)
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


def pipelines(directory: Path) -> Iterator[dict[str, Any]]:
    """A real InferencePipeline on a video: with a callback alone, and with a Workflow."""
    from inference import InferencePipeline

    video = draw_video(directory / "video.avi")
    with VisionEventSink(directory / "pipeline", SEEN) as sink:
        callback = PipelineSink(sink, every_s=0, streams={0: "press-03"})
        pipeline = InferencePipeline.init_with_custom_logic(
            video_reference=str(video),
            on_video_frame=lambda frames: [responses()["boxes"]] * len(frames),
            on_prediction=callback,
        )
        pipeline.start()
        pipeline.join()
        yield {"log": "pipeline", "appended": callback.appended, "errors": callback.errors}

    os.environ["VEVENTS_DIR"] = str(directory / "block")
    workflow = engine.workflow_of("quality_check", engine.OUR_SINK, {"stream_id": "press-04"})
    predictions = {"selector": "$steps.detector.predictions", "name": "found"}
    workflow["outputs"].append({"type": "JsonField", **predictions})
    with VisionEventSink(directory / "workflow", SEEN) as sink:
        callback = PipelineSink(sink, every_s=0, output="found")
        pipeline = InferencePipeline.init_with_workflow(
            video_reference=str(video), workflow_specification=workflow, on_prediction=callback
        )
        pipeline.start()
        pipeline.join()
        yield {"log": "workflow", "appended": callback.appended, "errors": callback.errors}


def draw_video(path: Path) -> Path:
    """Write a video of gray frames, each lighter than the one before."""
    import cv2
    import numpy as np

    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (WIDTH, HEIGHT))
    for number in range(FRAMES):
        writer.write(np.full((HEIGHT, WIDTH, 3), 40 * number, np.uint8))
    writer.release()
    return path


def main() -> None:
    """Try one package after the other."""
    directory = Path(sys.argv[1])
    os.environ["YOLO_CONFIG_DIR"] = str(directory)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print goes elsewhere
    engine.declare_missing_operators()
    for part in (ultralytics, objects_of_inference, answers_over_http, pipelines):
        for line in part(directory):
            print(json.dumps(line), file=answers)


if __name__ == "__main__":
    main()
