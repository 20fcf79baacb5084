"""Responses of Roboflow's inference, as dictionaries from HTTP and as pydantic objects."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pydantic
import pytest

from vevents import Classification, EventValidationError, ObjectDetection
from vevents.adapters import from_inference, from_result
from vevents.event import Event, Keypoint

IMAGE = {"width": 640, "height": 480}
BOX: dict[str, Any] = {
    "x": 189.5,
    "y": 100,
    "width": 163,
    "height": 186.25,
    "class": "helmet",
    "confidence": 0.544,
    "class_id": 0,
    "detection_id": "f2d2ea54",
}


def valid(seen):
    Event.custom(value="x", images=[seen.image], metadata=seen.metadata).validate()
    return seen.image


def test_object_detection():
    answer = {"inference_id": "1", "time": 0.1, "image": IMAGE, "predictions": [BOX]}

    image = valid(from_inference(json.loads(json.dumps(answer)), label="gate"))

    assert image.object_detections == (ObjectDetection("helmet", 189.5, 100, 163, 186.25, 0.544),)
    assert image.label == "gate"


def test_coordinates_pass_unchanged():
    odd = BOX | {"x": 0.1 + 0.2, "width": 1e-3, "y": 1e6 + 0.1}

    (found,) = valid(from_inference({"predictions": [odd]})).object_detections

    assert (found.x, found.width, found.y) == (odd["x"], odd["width"], odd["y"])


def test_nothing_found():
    assert from_inference({"image": IMAGE, "predictions": []}).total == 0
    assert from_inference({"predictions": {}, "predicted_classes": []}).total == 0


def test_segmentation_and_a_prediction_without_a_sound_outline():
    points = [{"x": 1.5, "y": 2}, {"x": 30, "y": 2.25}, {"x": 30, "y": 40}]
    answer = {"predictions": [BOX | {"points": points}, BOX | {"points": points[:2]}]}

    image = valid(from_inference(answer))

    assert image.instance_segmentations[0].points == ((1.5, 2), (30, 2.25), (30, 40))
    assert len(image.instance_segmentations) == len(image.object_detections) == 1


def test_what_a_workflow_gets_from_a_segmentation_model():
    """Plain objects, which say themselves what they are on the wire."""

    class Response:
        def to_dict(self):
            points = [{"x": 1, "y": 2}, {"x": 30, "y": 2}, {"x": 30, "y": 40}]
            return {"image": IMAGE, "predictions": [BOX | {"points": points}]}

    (found,) = valid(from_inference(Response())).instance_segmentations

    assert found.points == ((1, 2), (30, 2), (30, 40))


def test_a_class_for_each_pixel_has_no_place_in_an_event():
    answer = {"predictions": {"segmentation_mask": "iVBORw0K", "class_map": {"0": "road"}}}

    with pytest.raises(EventValidationError, match="predictions: are a class for each pixel"):
        from_inference(answer)


def test_keypoints_have_the_class_id_of_the_point():
    points = [
        {"x": 1, "y": 2, "confidence": 0.9, "class_id": 5, "class": "wrist"},
        {"x": 3, "y": 4, "confidence": 0.9, "class_id": 2, "class": "eye"},
    ]

    image = valid(from_inference({"predictions": [BOX | {"keypoints": points}]}))

    assert image.keypoints[0].keypoints == (Keypoint(5, 1, 2), Keypoint(2, 3, 4))
    assert image.keypoints[0].class_name == "helmet"


def test_classification():
    answer = {
        "image": IMAGE,
        "predictions": [
            {"class": "ok", "class_id": 0, "confidence": 0.8},
            {"class": "burr", "class_id": 1, "confidence": 0.2},
        ],
        "top": "ok",
        "confidence": 0.8,
    }

    image = valid(from_inference(answer))

    assert image.classifications == (Classification("ok", 0.8), Classification("burr", 0.2))


@pytest.mark.parametrize("wrap", [lambda score: {"confidence": score, "class_id": 1}, float])
def test_of_several_labels_the_predicted_ones_are_taken(wrap):
    labels = {"red": wrap(0.9), "round": wrap(0.7), "blue": wrap(0.1)}
    answer = {"predictions": labels, "predicted_classes": ["red", "round"]}

    image = valid(from_inference(answer))

    assert image.classifications == (Classification("red", 0.9), Classification("round", 0.7))
    assert from_inference({"predictions": labels}).total == 3


class Prediction(pydantic.BaseModel):
    """Of the fields and aliases that the package's own class has."""

    x: float
    y: float
    width: float
    height: float
    confidence: float
    class_name: str = pydantic.Field(alias="class")
    class_confidence: float | None = None
    class_id: int
    points: list[dict[str, float]] | None = None


class Response(pydantic.BaseModel):
    inference_id: str | None = None
    image: dict[str, int]
    predictions: list[Prediction]


def test_objects_of_the_python_package():
    found = Response(image=IMAGE, predictions=[Prediction(**BOX)])

    assert from_inference(found) == from_inference({"predictions": [BOX]})
    assert from_inference({"predictions": found.predictions}) == from_inference(found)
    assert from_result(found) == from_inference(found)


def test_objects_of_an_old_pydantic():
    old = SimpleNamespace(dict=lambda **options: {"predictions": [BOX]} if options else {})

    assert from_inference(old) == from_inference({"predictions": [BOX]})


@pytest.mark.parametrize(
    ("answer", "field"),
    [
        ([{"predictions": []}], "response"),
        (None, "response"),
        ({}, "predictions"),
        ({"message": "Forbidden"}, "predictions"),
        ({"predictions": "none"}, "predictions"),
        ({"predictions": [1]}, "predictions[0]"),
        ({"predictions": [BOX, {**BOX, "width": None}]}, "predictions[1].width"),
        ({"predictions": [BOX | {"y": "low"}]}, "predictions[0].y"),
        ({"predictions": [BOX | {"confidence": "high"}]}, "confidence"),
    ],
)
def test_what_is_no_response_is_refused_with_its_field(answer, field):
    with pytest.raises(EventValidationError) as caught:
        from_inference(answer)

    assert caught.value.field == field


def test_of_more_than_a_thousand_the_most_confident_stay():
    rows = [BOX | {"confidence": i / 2000, "class": f"c{i}"} for i in range(1500)]

    seen = from_inference({"predictions": rows})

    assert seen.metadata == {"vevents_annotations_left_out": 500}
    assert valid(seen).object_detections[0].class_name == "c500"
    classes = [{"class": f"c{i}", "confidence": i / 2000} for i in range(1500)]
    seen = from_inference({"predictions": classes, "top": "c1499"})
    assert seen.metadata == {"vevents_annotations_left_out": 500}
    assert valid(seen).classifications[0].class_name == "c500"


def test_a_box_without_confidence_counts_as_unsure():
    row = {key: value for key, value in BOX.items() if key not in ("confidence", "class")}

    (found,) = valid(from_inference({"predictions": [row]})).object_detections

    assert (found.class_name, found.confidence) == ("unknown", 0.0)
