"""Ultralytics, inference, inference_sdk and InferencePipeline themselves, through the adapters.

They are large and live beside the engine: `./dev interop` installs them and runs this.
"""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import PIL.Image
import pytest
from engine_process import ENGINE_PYTHON

from vevents import Event, EventLog, FrameRef, Image

PROGRAM = Path(__file__).with_name("packages.py")
BOX = {"x": 30.5, "y": 20.25, "width": 11, "height": 7.5, "confidence": 0.875}
FRAMES = 5


class Found(NamedTuple):
    """What the program printed, and where its logs are."""

    lines: list[dict[str, Any]]
    directory: Path

    def of(self, log: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["log"] == log]

    def events(self, log: str) -> list[Event]:
        with EventLog(self.directory / log, read_only=True) as opened:
            for stream in ("events", "media"):
                stats = opened.stats(stream)  # type: ignore[arg-type]
                assert stats.conserved
                assert stats.pending == stats.appended
            return [opened.decode(record) for record in opened.read()]

    def frame(self, log: str, ref: Any) -> bytes:
        assert isinstance(ref, FrameRef)
        with EventLog(self.directory / log, read_only=True) as opened:
            found = opened.frame(ref)
        assert found is not None
        return found


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Found]:
    if not ENGINE_PYTHON:
        pytest.skip("needs the packages: ./dev interop")
    directory = tmp_path_factory.mktemp("packages")
    ran = subprocess.run(
        [ENGINE_PYTHON, str(PROGRAM), str(directory)],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=directory,
        env=os.environ | {"HOME": str(directory)},
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
    yield Found([json.loads(line) for line in ran.stdout.splitlines()], directory)


def near(ours: float, theirs: float) -> bool:
    """Compare pixels: events hold them as float32."""
    return math.isclose(ours, theirs, rel_tol=1e-6, abs_tol=1e-4)


def check_box(ours: Any, theirs: dict[str, Any]) -> None:
    assert ours.class_name == theirs["name"]
    assert math.isclose(ours.confidence, theirs["confidence"], rel_tol=1e-6)
    box = theirs["box"]
    if "x3" not in box:
        assert near(ours.x - ours.width / 2, box["x1"])
        assert near(ours.x + ours.width / 2, box["x2"])
        assert near(ours.y - ours.height / 2, box["y1"])
        assert near(ours.y + ours.height / 2, box["y2"])


def outline_in(theirs: dict[str, Any]) -> list[tuple[float, float]]:
    """Return the corners of a rotated box, or the outline of a mask."""
    box, outline = theirs["box"], theirs.get("segments", {"x": [], "y": []})
    if "x3" in box:
        return [(box[f"x{i}"], box[f"y{i}"]) for i in range(1, 5)]
    return list(zip(outline["x"], outline["y"], strict=True))


def skeleton_in(theirs: dict[str, Any]) -> dict[int, tuple[float, float]]:
    """Return the sure points of a skeleton by their place in it."""
    points = theirs.get("keypoints", {"x": [], "y": [], "visible": []})
    rows = zip(points["x"], points["y"], points["visible"], strict=True)
    return {place: (x, y) for place, (x, y, sure) in enumerate(rows) if sure >= 0.25}


def check_annotations(image: Image, summary: list[dict[str, Any]]) -> set[str]:
    """Compare all annotations of an image, and return of which kinds they were."""
    boxes, outlines = iter(image.object_detections), iter(image.instance_segmentations)
    skeletons, classes = iter(image.keypoints), iter(image.classifications)
    kinds = set()
    for theirs in summary:
        if "box" not in theirs:
            kinds.add("class")
            label = next(classes)
            assert label.class_name == theirs["name"]
            assert math.isclose(label.confidence, theirs["confidence"], rel_tol=1e-6)
        elif points := skeleton_in(theirs):
            kinds.add("skeleton")
            skeleton = next(skeletons)
            check_box(skeleton, theirs)
            assert [point.id for point in skeleton.keypoints] == list(points)
            for point in skeleton.keypoints:
                x, y = points[point.id]
                assert near(point.x, x)
                assert near(point.y, y)
        elif len(outline := outline_in(theirs)) >= 3:
            kinds.add("corners" if "x3" in theirs["box"] else "outline")
            segmentation = next(outlines)
            check_box(segmentation, theirs)
            for (x, y), (their_x, their_y) in zip(segmentation.points, outline, strict=True):
                assert near(x, their_x)
                assert near(y, their_y)
        else:
            kinds.add("box")
            check_box(next(boxes), theirs)
    assert not [one for rest in (boxes, outlines, skeletons, classes) for one in rest]
    return kinds


def test_ultralytics(found: Found) -> None:
    lines, events = found.of("ultralytics"), found.events("ultralytics")

    assert len(lines) == len(events) == 6
    kinds = set()
    for line, event in zip(lines, events, strict=True):
        [image] = event.images
        assert image.label == line["model"]
        assert line["summary"]
        kinds |= check_annotations(image, line["summary"])
        assert found.frame("ultralytics", image.frame).startswith(b"\xff\xd8\xff")
    assert kinds == {"box", "outline", "skeleton", "corners", "class"}


@pytest.mark.parametrize("log", ["inference", "http"])
def test_inference(found: Found, log: str) -> None:
    images = {event.images[0].label: event.images[0] for event in found.events(log)}

    assert list(images) == [line["name"] for line in found.of(log)]
    in_process = {"outlines of a workflow"}
    assert images.keys() - in_process == {"boxes", "outlines", "skeletons", "class", "labels"}
    assert (in_process < images.keys()) == (log == "inference")
    box = {"class_name": "burr", **BOX}
    assert [asdict(one) for one in images["boxes"].object_detections] == [box]
    for name in images.keys() & {"outlines", "outlines of a workflow"}:
        points = ((25, 17.5), (36, 17.5), (36, 24))
        assert [asdict(one) for one in images[name].instance_segmentations] == [
            box | {"points": points}
        ]
    points = ({"id": 4, "x": 26, "y": 18}, {"id": 0, "x": 35.5, "y": 23})
    assert [asdict(one) for one in images["skeletons"].keypoints] == [box | {"keypoints": points}]
    labels = [(one.class_name, one.confidence) for one in images["class"].classifications]
    assert labels == [("good", 0.75), ("bad", 0.25)]
    labels = [(one.class_name, one.confidence) for one in images["labels"].classifications]
    assert labels == [("wet", 0.75)]


def test_a_pipeline_with_the_callback(found: Found) -> None:
    [line] = found.of("pipeline")
    events = found.events("pipeline")

    assert (line["appended"], line["errors"], len(events)) == (FRAMES, 0, FRAMES)
    for event in events:
        assert event.stream_id == "press-03"
        [image] = event.images
        assert [asdict(one) for one in image.object_detections] == [{"class_name": "burr", **BOX}]
    assert lightness(found, "pipeline", events) == [0, 40, 80, 120, 160]


def test_a_pipeline_with_a_workflow_the_callback_and_our_block(found: Found) -> None:
    [line] = found.of("workflow")
    by_callback, by_block = found.events("workflow"), found.events("block")

    assert (line["appended"], line["errors"]) == (FRAMES, 0)
    assert len(by_callback) == len(by_block) == FRAMES
    for ours, theirs in zip(by_callback, by_block, strict=True):
        assert (ours.stream_id, theirs.stream_id) == ("0", "press-04")
        assert len(ours.images[0].object_detections) == 5
        assert ours.images[0].object_detections == theirs.images[0].object_detections
    assert lightness(found, "workflow", by_callback) == [0, 40, 80, 120, 160]


def lightness(found: Found, log: str, events: list[Event]) -> list[int]:
    """Return how light the frames of the events are, to the next of the video's five grays."""
    grays = []
    for event in events:
        with PIL.Image.open(io.BytesIO(found.frame(log, event.images[0].frame))) as picture:
            grays.append(round(picture.convert("L").resize((1, 1)).getpixel((0, 0)) / 40) * 40)
    return grays
