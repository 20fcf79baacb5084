"""Results of the real `supervision` package, as images of events."""

from __future__ import annotations

import numpy as np
import pytest

from vevents import EventValidationError, ObjectDetection
from vevents.adapters import from_arrays, from_detections, from_key_points, from_result, rgb
from vevents.event import Event, Keypoint

sv = pytest.importorskip("supervision")


def detections(**fields):
    xyxy = np.array([[10, 20, 30, 60], [0, 0, 5, 5]], np.float32)
    return sv.Detections(**({"xyxy": xyxy} | fields))


def valid(seen):
    """Make sure that the log would take it."""
    Event.custom(value="x", images=[seen.image], metadata=seen.metadata).validate()
    return seen.image


def test_boxes_come_out_by_their_center_with_plain_names_and_numbers():
    found = detections(
        confidence=np.array([0.913, 0.25], np.float32),
        class_id=np.array([1, 0]),
        tracker_id=np.array([7, 8]),
        data={"class_name": np.array(["nut", "bolt"])},
    )

    image = valid(from_detections(found, frame=b"\xff\xd8\xff", label="top"))

    first, second = image.object_detections
    assert (first.x, first.y, first.width, first.height) == (20, 40, 20, 40)
    assert (second.x, second.y, second.width, second.height) == (2.5, 2.5, 5, 5)
    assert first.confidence == pytest.approx(0.913)
    assert [type(first.class_name), first.class_name, second.class_name] == [str, "nut", "bolt"]
    assert type(first.x) is type(first.confidence) is float
    assert (image.frame, image.label) == (b"\xff\xd8\xff", "top")


@pytest.mark.parametrize(
    ("fields", "class_names", "expected"),
    [
        ({"class_id": np.array([1, 0])}, ["bolt", "nut"], ["nut", "bolt"]),
        ({"class_id": np.array([1, 0])}, {1: "nut"}, ["nut", "0"]),
        ({"class_id": np.array([1, 9])}, ["bolt", "nut"], ["nut", "9"]),
        ({"class_id": np.array([1, -1])}, ["bolt", "nut"], ["nut", "-1"]),
        ({"class_id": np.array([1, 0])}, None, ["1", "0"]),
        ({}, None, ["unknown", "unknown"]),
        ({}, ["bolt"], ["unknown", "unknown"]),
        ({"data": {"class_name": np.array(["a", "b"])}}, None, ["a", "b"]),
        ({"data": {"class_name": ["a", "b"]}, "class_id": np.array([0, 0])}, ["c"], ["c", "c"]),
    ],
)
def test_where_the_name_of_a_class_comes_from(fields, class_names, expected):
    image = valid(from_detections(detections(**fields), class_names))

    assert [each.class_name for each in image.object_detections] == expected


def test_without_confidences_they_are_zero_and_rounding_above_one_is_cut():
    assert valid(from_detections(detections())).object_detections[0].confidence == 0.0
    high = detections(confidence=np.array([1.0000001, -1e-9], np.float32))
    assert [d.confidence for d in valid(from_detections(high)).object_detections] == [1.0, 0.0]


def test_what_is_not_finite_is_refused_with_its_name():
    with pytest.raises(EventValidationError, match=r"images\[0\]\.objectDetections\[0\]\.x"):
        valid(from_arrays([[0, 0, np.nan, 1]], [0.5]))
    with pytest.raises(EventValidationError, match=r"objectDetections\[0\]\.confidence"):
        valid(from_detections(sv.Detections(np.zeros((1, 4)), confidence=np.array([np.nan]))))


def test_nothing_found_is_an_image_without_annotations():
    for nothing in (sv.Detections.empty(), sv.Detections(np.zeros((0, 4)))):
        seen = from_detections(nothing)
        assert seen.total == 0
        assert valid(seen).object_detections == ()


def test_masks_become_the_outline_of_their_largest_part():
    masks = np.zeros((2, 100, 120), bool)
    masks[0, 20:60, 10:30] = True
    masks[0, 90:93, 90:93] = True
    masks[1, 7, 7] = True  # one pixel has no outline
    seen = from_detections(detections(mask=masks, confidence=np.array([0.5, 0.6])))

    image = valid(seen)

    (segmentation,) = image.instance_segmentations
    assert sorted(segmentation.points) == [(10, 20), (10, 59), (29, 20), (29, 59)]
    assert (segmentation.x, segmentation.y, segmentation.confidence) == (20, 40, 0.5)
    assert image.object_detections == (ObjectDetection("unknown", 2.5, 2.5, 5, 5, 0.6),)
    assert seen.total == 2


def test_an_empty_mask_is_a_box():
    image = valid(from_detections(detections(mask=np.zeros((2, 10, 10), bool))))

    assert len(image.object_detections) == 2


def test_compact_masks():
    masks = np.zeros((2, 100, 120), bool)
    masks[0, 20:60, 10:30] = True
    masks[1, 0:5, 0:5] = True
    found = detections(mask=masks)
    if not hasattr(found, "to_compact_masks"):
        pytest.skip("this supervision has none")

    image = valid(from_detections(found.to_compact_masks()))

    assert image == from_detections(found).image
    assert len(image.instance_segmentations) == 2


def test_rotated_boxes_keep_their_corners():
    corners = np.array([[[20, 0], [40, 20], [20, 40], [0, 20]]] * 2, np.float32)

    image = valid(from_detections(detections(data={"xyxyxyxy": corners})))

    assert image.instance_segmentations[0].points == ((20, 0), (40, 20), (20, 40), (0, 20))


def test_what_a_workflow_puts_into_data():
    polygons = np.empty(2, object)
    polygons[:] = [np.array([[1, 2], [3, 4], [5, 0]]), np.array([[1, 2]])]
    image = valid(from_detections(detections(data={"polygon": polygons})))
    assert image.instance_segmentations[0].points == ((1, 2), (3, 4), (5, 0))
    assert len(image.object_detections) == 1

    points = np.array([[[1, 2], [3, 4]], [[5, 6], [0, 0]]], np.float32)
    data = {
        "keypoints_xy": points,
        "keypoints_class_id": np.array([[3, 1], [2, 0]]),
        "keypoints_class_name": np.array([["nose", "ear"], ["eye", ""]]),
    }
    image = valid(from_detections(detections(data=data)))
    assert [each.keypoints for each in image.keypoints] == [
        (Keypoint(3, 1, 2), Keypoint(1, 3, 4)),
        (Keypoint(2, 5, 6),),
    ]


def test_of_more_than_a_thousand_the_most_confident_stay_and_the_event_says_so():
    count = 1200
    confidence = np.linspace(0, 1, count)
    xyxy = np.tile([0.0, 0, 2, 2], (count, 1)) + np.arange(count)[:, None]
    found = sv.Detections(xyxy, confidence=confidence, class_id=np.arange(count))

    seen = from_detections(found)

    kept = valid(seen).object_detections
    assert seen.metadata == {"vevents_annotations_left_out": 200}
    assert [each.class_name for each in kept] == [str(i) for i in range(200, count)]
    assert kept[0].x == 201
    assert from_detections(found[200:]).metadata == {}


def test_the_largest_event_keeps_its_masks_with_their_boxes():
    count = 1001
    masks = np.zeros((count, 30, 40), bool)
    for i in range(count):
        masks[i, 1 : 3 + i % 20, 1:4] = True
    confidence = np.ones(count)
    confidence[500] = 0.1
    xyxy = np.tile([0.0, 0, 2, 2], (count, 1))

    image = valid(from_detections(sv.Detections(xyxy, mask=masks, confidence=confidence)))

    outlines = [max(y for _, y in each.points) for each in image.instance_segmentations]
    assert outlines == [2 + i % 20 for i in range(count) if i != 500]


def skeletons(**fields):
    xy = np.array(
        [[[10, 10], [0, 0], [20, 40]], [[5, 5], [np.nan, 1], [7, 9]], [[0, 0]] * 3], np.float32
    )
    return sv.KeyPoints(**({"xy": xy} | fields))


def test_keypoints_have_their_place_as_id_and_missing_ones_are_left_out():
    found = skeletons(class_id=np.array([0, 1, 0]))

    image = valid(from_key_points(found, ["person", "dog"]))

    person, dog = image.keypoints
    assert person.keypoints == (Keypoint(0, 10, 10), Keypoint(2, 20, 40))
    assert (person.x, person.y, person.width, person.height) == (15, 25, 10, 30)
    assert dog.keypoints == (Keypoint(0, 5, 5), Keypoint(2, 7, 9))
    assert [person.class_name, dog.class_name] == ["person", "dog"]
    assert person.confidence == 0.0


def test_keypoints_that_are_hidden_and_confidences_of_two_kinds():
    visible = np.array([[True, True, False], [True, True, True], [True] * 3])
    of_points = np.array([[0.5, 0.9, 0.9], [0.2, 0.9, 0.6], [0] * 3], np.float32)
    found = skeletons(visible=visible, keypoint_confidence=of_points)
    person, dog = valid(from_key_points(found)).keypoints
    assert person.keypoints == (Keypoint(0, 10, 10),)
    assert (person.confidence, dog.confidence) == pytest.approx((0.5, 0.4))

    found = skeletons(detection_confidence=np.array([0.7, 0.8, 0.9], np.float32))
    found.data["class_name"] = np.array(["a", "b", "c"])
    person, dog = valid(from_key_points(found)).keypoints
    assert (person.confidence, dog.confidence) == pytest.approx((0.7, 0.8))
    assert (person.class_name, dog.class_name) == ("a", "b")


def test_keypoints_with_boxes_of_their_own_and_none_at_all():
    found = skeletons(data={"xyxy": np.array([[0, 0, 30, 50], [0, 0, 10, 10], [0, 0, 1, 1]])})
    assert valid(from_key_points(found)).keypoints[0].width == 30
    assert from_key_points(sv.KeyPoints.empty()).total == 0


def test_plain_arrays_and_lists():
    seen = from_arrays([[794, 392, 831, 414]], [0.913], [0], ["burr"], label="top")

    assert valid(seen).object_detections == (ObjectDetection("burr", 812.5, 403, 37, 22, 0.913),)
    assert from_arrays([]).total == from_arrays(np.zeros((0, 4)), [], []).total == 0
    # Corners the other way round are the same box.
    assert from_arrays([[5, 6, 1, 2]]).image == from_arrays([[1, 2, 5, 6]]).image


@pytest.mark.parametrize(
    ("arrays", "field"),
    [
        (([1, 2, 3, 4],), "xyxy"),
        (([[1, 2, 3, 4]], [0.1, 0.2]), "confidence"),
        (([[1, 2, 3, 4]], None, [1, 2]), "class_id"),
        (([["a", 2, 3, 4]],), "xyxy"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(arrays, field):
    with pytest.raises(EventValidationError) as caught:
        from_arrays(*arrays)

    assert caught.value.field == field


def test_any_result_finds_its_adapter():
    found = detections(class_id=np.array([1, 0]))

    assert from_result(found, ["a", "b"]) == from_detections(found, ["a", "b"])
    assert from_result({"predictions": found}) == from_detections(found)
    assert from_result(skeletons()) == from_key_points(skeletons())


def test_colors_change_places_and_gray_stays():
    picture = np.zeros((2, 3, 3), np.uint8)
    picture[..., 0] = 200  # blue, as OpenCV has it
    assert rgb(picture)[0, 0].tolist() == [0, 0, 200]
    assert rgb(picture[..., 0]) is not None
    assert (rgb(picture[..., 0]) == 200).all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: rgb(None), "frame: must be an array, not NoneType"),
        (lambda: from_detections([]), "detections: must be supervision.Detections, not list"),
        (lambda: from_key_points(None), "key_points: must be supervision.KeyPoints, not NoneType"),
        (lambda: from_arrays([[1, 2, 3, 4]], None, [0], "burr"), "class_names: must be a list, or"),
        (lambda: from_arrays([[1, 2, 3, 4]], None, [0], 5), "class_names: must be a list, or"),
    ],
)
def test_what_is_nothing_of_the_kind_is_named(call, words):
    with pytest.raises(EventValidationError, match=words):
        call()
