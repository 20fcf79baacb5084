"""Results of Ultralytics: stand-ins with the attributes and shapes that its documentation names.

The package itself needs PyTorch, which is too much for a test; where it is installed, the last
test uses its own classes.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from vevents import Classification, EventValidationError
from vevents.adapters import from_result, from_ultralytics
from vevents.event import Event, Keypoint

NAMES = {0: "person", 16: "dog"}


class Tensor:
    """An array on another device: numpy may not touch it before it is brought over."""

    def __init__(self, values, steps=("detach", "cpu")):
        self._values = np.asarray(values, np.float32)
        self._steps = steps

    def __len__(self):
        return len(self._values)

    def detach(self):
        return Tensor(self._values, self._steps[1:]) if self._steps[:1] == ("detach",) else self

    def cpu(self):
        return Tensor(self._values, self._steps[1:]) if self._steps[:1] == ("cpu",) else self

    def __array__(self, dtype=None, copy=None):
        if self._steps:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        return self._values.astype(dtype)


def result(**fields):
    given = {"boxes": None, "masks": None, "probs": None, "keypoints": None, "obb": None}
    shape = {"names": NAMES, "orig_shape": (480, 640)}
    return SimpleNamespace(**(shape | given | fields))


def boxes(convert=Tensor, **fields):
    values = {
        "xyxy": [[10, 20, 30, 60], [0, 0, 5, 5]],
        "conf": [0.75, 0.5],
        "cls": [16.0, 0.0],
    } | fields
    return SimpleNamespace(id=None, **{key: convert(value) for key, value in values.items()})


def valid(seen):
    Event.custom(value="x", images=[seen.image], metadata=seen.metadata).validate()
    return seen.image


@pytest.mark.parametrize("convert", [Tensor, lambda values: np.asarray(values, np.float32)])
def test_boxes(convert):
    image = valid(from_ultralytics(result(boxes=boxes(convert)), label="yard"))

    first, second = image.object_detections
    assert (first.x, first.y, first.width, first.height, first.confidence) == (20, 40, 20, 40, 0.75)
    assert [first.class_name, second.class_name, image.label] == ["dog", "person", "yard"]
    assert image == from_result(result(boxes=boxes()), label="yard").image


def test_nothing_found():
    nothing = boxes(xyxy=np.zeros((0, 4)), conf=np.zeros(0), cls=np.zeros(0))

    assert from_ultralytics(result(boxes=nothing)).total == 0
    assert from_ultralytics(result()).total == 0
    masks = SimpleNamespace(xy=[])
    assert from_ultralytics(result(boxes=nothing, masks=masks)).total == 0


def test_masks_and_one_without_an_outline():
    outline = np.array([[1, 2], [3.5, 4], [5, 0]], np.float32)
    masks = SimpleNamespace(xy=[outline, np.zeros((0, 2), np.float32)])

    image = valid(from_ultralytics(result(boxes=boxes(), masks=masks)))

    assert image.instance_segmentations[0].points == ((1, 2), (3.5, 4), (5, 0))
    assert image.instance_segmentations[0].class_name == "dog"
    assert image.object_detections[0].class_name == "person"


def test_keypoints_at_the_origin_are_missing():
    xy = Tensor([[[1, 2], [0, 0], [5, 6]], [[0, 0], [0, 7], [0, 0]]])

    image = valid(from_ultralytics(result(boxes=boxes(), keypoints=SimpleNamespace(xy=xy))))

    assert [each.keypoints for each in image.keypoints] == [
        (Keypoint(0, 1, 2), Keypoint(2, 5, 6)),
        (Keypoint(1, 0, 7),),
    ]


def test_keypoints_that_nobody_would_draw_are_left_out():
    xy = Tensor([[[1, 2], [3, 4], [5, 6]]] * 2)
    conf = Tensor([[0.9, 0.2, 0.25], [0.1, 0.1, 0.1]])
    points = SimpleNamespace(xy=xy, conf=conf)

    image = valid(from_ultralytics(result(boxes=boxes(), keypoints=points)))

    assert [each.keypoints for each in image.keypoints] == [
        (Keypoint(0, 1, 2), Keypoint(2, 5, 6)),
        (),
    ]


def test_rotated_boxes():
    corners = Tensor([[[20, 0], [40, 20], [20, 40], [0, 20]], [[0, 0], [1, 0], [1, 1], [0, 1]]])
    rotated = boxes()
    rotated.xyxyxyxy = corners

    image = valid(from_ultralytics(result(obb=rotated)))

    assert image.instance_segmentations[0].points == ((20, 0), (40, 20), (20, 40), (0, 20))


def test_classes():
    data = Tensor([0.125, 0.0625, 0.5, 0.25, 0.03125, 0.03125, 0])
    probs = SimpleNamespace(data=data, top5=[2, 3, 0, 1, 4])

    image = valid(from_ultralytics(result(probs=probs)))

    assert image.classifications[:3] == (
        Classification("2", 0.5),
        Classification("3", 0.25),
        Classification("person", 0.125),
    )
    assert len(image.classifications) == 5


def test_of_more_than_a_thousand_the_most_confident_stay():
    count = 1100
    many = boxes(
        xyxy=np.tile([0.0, 0, 1, 1], (count, 1)),
        conf=np.linspace(0, 1, count),
        cls=np.arange(count) % 2 * 16,
    )
    masks = SimpleNamespace(xy=[np.full((3, 2), i, np.float32) for i in range(count)])

    seen = from_ultralytics(result(boxes=many, masks=masks))

    assert seen.metadata == {"vevents_annotations_left_out": 100}
    kept = valid(seen).instance_segmentations
    assert [each.points[0][0] for each in kept] == list(range(100, count))


def test_the_list_of_several_images_is_refused():
    with pytest.raises(EventValidationError, match="the result of one image, not list"):
        from_ultralytics([result(boxes=boxes())])


def test_its_own_classes():
    pytest.importorskip("torch")
    results = pytest.importorskip("ultralytics.engine.results")
    rows = np.array([[10, 20, 30, 60, 0.75, 16], [0, 0, 5, 5, 0.5, 0]], np.float32)
    own = results.Results(np.zeros((480, 640, 3), np.uint8), "x.jpg", NAMES, boxes=rows)

    assert from_ultralytics(own) == from_ultralytics(result(boxes=boxes()))
