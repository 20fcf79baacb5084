"""The event model: what is valid, what is refused, and how the refusal reads."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from vevents.errors import EventValidationError
from vevents.event import (
    Classification,
    Event,
    EventType,
    FrameRef,
    Image,
    InstanceSegmentation,
    Keypoint,
    KeypointDetection,
    ObjectDetection,
    parse_timestamp,
    plain_number,
)

REF = FrameRef(1, bytes(16), 100)
TRIANGLE = ((0.0, 0.0), (4.0, 0.0), (4.0, 4.0))

# Events in the form in which the API documents them.
EXAMPLES: list[dict[str, Any]] = [
    {
        "eventId": "5f0b7c1e-3f6a-4d52-9a3e-0d8f2b6c41aa",
        "eventType": "quality_check",
        "useCaseId": "uc7d21f0",
        "timestamp": "2026-10-01T06:14:09.482Z",
        "deviceId": "press-03-cam-1",
        "streamId": "press-03",
        "workflowId": "stamped-part-check",
        "images": [
            {
                "sourceId": "ve-img-1c0a77d2e9",
                "inputSourceId": "ve-img-9b41f00c3d",
                "label": "workflow",
                "objectDetections": [
                    {
                        "class": "burr",
                        "x": 812.5,
                        "y": 403.0,
                        "width": 37.0,
                        "height": 22.0,
                        "confidence": 0.913,
                    }
                ],
            }
        ],
        "displayImagePosition": 0,
        "eventData": {"result": "fail", "externalId": "lot-88213-0047"},
        "customMetadata": {"line": "P3", "tool wear": 0.37, "operator_present": True},
    },
    {
        "eventType": "inventory_count",
        "timestamp": "2026-10-01T06:20:00+00:00",
        "images": [
            {
                "instanceSegmentations": [
                    {
                        "class": "pallet",
                        "x": 640,
                        "y": 512,
                        "width": 300,
                        "height": 180,
                        "confidence": 1,
                        "points": [[490.0, 422], [790.0, 424.5], [788.0, 602.0]],
                    }
                ]
            }
        ],
        "eventData": {"location": "yard", "itemCount": 17, "itemType": "euro pallet"},
    },
    {
        "eventType": "safety_alert",
        "timestamp": "2026-10-01T06:31:44.120493+00:00",
        "images": [
            {
                "inputSourceId": "ve-img-77f1b93e20",
                "keypoints": [
                    {
                        "class": "person",
                        "x": 422.0,
                        "y": 388.5,
                        "width": 160.0,
                        "height": 421.0,
                        "confidence": 0.887,
                        "keypoints": [{"id": 0, "x": 431.2, "y": 201.7}],
                    }
                ],
            }
        ],
        "eventData": {"alertType": "no_hardhat", "severity": "high", "description": "No helmet"},
    },
    {
        "eventType": "custom",
        "images": [{"classifications": [{"class": "door_open", "confidence": 0.994}]}],
        "eventData": {"value": "door open"},
    },
    {
        "eventType": "operator_feedback",
        "images": [],
        "eventData": {"relatedEventId": "5f0b7c1e", "feedback": "incorrect"},
    },
]


def box(**changes: Any) -> ObjectDetection:
    return replace(ObjectDetection("burr", 10.0, 20.0, 3.0, 4.0, 0.5), **changes)


def with_box(**changes: Any) -> Event:
    return Event.custom(value="v", images=[Image(object_detections=[box(), box(**changes)])])


def refusal(event: Event) -> EventValidationError:
    with pytest.raises(EventValidationError) as caught:
        event.validate()
    return caught.value


def field_of(event: Event) -> str:
    return refusal(event).field


# --- Valid events ---------------------------------------------------------------------------


@pytest.mark.parametrize("obj", EXAMPLES, ids=lambda obj: str(obj["eventType"]))
def test_from_json_takes_the_documented_forms(obj: dict[str, Any]) -> None:
    event = Event.from_json(json.loads(json.dumps(obj)))

    assert event.event_type is EventType(obj["eventType"])
    assert event.data == obj["eventData"]
    assert event.metadata == obj.get("customMetadata")


def test_from_json_fills_every_field() -> None:
    event = Event.from_json(EXAMPLES[0])

    assert event == Event.quality_check(
        result="fail",
        external_id="lot-88213-0047",
        event_id="5f0b7c1e-3f6a-4d52-9a3e-0d8f2b6c41aa",
        use_case_id="uc7d21f0",
        timestamp=datetime(2026, 10, 1, 6, 14, 9, 482_000, tzinfo=UTC),
        device_id="press-03-cam-1",
        stream_id="press-03",
        workflow_id="stamped-part-check",
        images=[
            Image(
                source_id="ve-img-1c0a77d2e9",
                input_source_id="ve-img-9b41f00c3d",
                label="workflow",
                object_detections=[ObjectDetection("burr", 812.5, 403.0, 37.0, 22.0, 0.913)],
            )
        ],
        display_image_position=0,
        metadata={"line": "P3", "tool wear": 0.37, "operator_present": True},
    )


def test_from_json_reads_the_other_annotations() -> None:
    [image] = Event.from_json(EXAMPLES[1]).images
    assert image.instance_segmentations == (
        InstanceSegmentation(
            "pallet", 640, 512, 300, 180, 1, ((490.0, 422), (790.0, 424.5), (788.0, 602.0))
        ),
    )
    [image] = Event.from_json(EXAMPLES[2]).images
    assert image.keypoints == (
        KeypointDetection(
            "person", 422.0, 388.5, 160.0, 421.0, 0.887, (Keypoint(0, 431.2, 201.7),)
        ),
    )
    [image] = Event.from_json(EXAMPLES[3]).images
    assert image.classifications == (Classification("door_open", 0.994),)


def test_from_json_takes_paths_of_image_files() -> None:
    event = Event.from_json(
        {
            "eventType": "custom",
            "eventData": {"value": "v"},
            "images": [{"frame": "out/a.jpg", "inputFrame": "in/a.jpg"}],
        }
    )

    assert event.images[0].frame == Path("out/a.jpg")
    assert event.images[0].input_frame == Path("in/a.jpg")


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (Event.quality_check(result="pass"), {"result": "pass"}),
        (
            Event.quality_check(result="fail", external_id="x"),
            {"result": "fail", "externalId": "x"},
        ),
        (
            Event.inventory_count(item_count=0, item_type="t", location="l", external_id="x"),
            {"location": "l", "itemCount": 0, "itemType": "t", "externalId": "x"},
        ),
        (Event.inventory_count(item_count=-3), {"itemCount": -3}),
        (
            Event.safety_alert(
                alert_type="a-Z_9", severity="medium", description="d", external_id="x"
            ),
            {"alertType": "a-Z_9", "severity": "medium", "description": "d", "externalId": "x"},
        ),
        (Event.safety_alert(alert_type="fire"), {"alertType": "fire"}),
        (Event.custom(value="v", external_id="x"), {"value": "v", "externalId": "x"}),
        (
            Event.operator_feedback(related_event_id="e", feedback="correct"),
            {"relatedEventId": "e", "feedback": "correct"},
        ),
    ],
)
def test_constructors_write_the_names_of_the_wire(event: Event, data: dict[str, object]) -> None:
    event.validate()

    assert event.data == data


def test_constructors_pass_the_common_fields_on() -> None:
    event = Event.custom(value="v", device_id="d", images=[Image(REF)], display_image_position=0)

    assert (event.device_id, event.images, event.display_image_position) == ("d", (Image(REF),), 0)


def test_an_event_type_may_be_a_plain_string() -> None:
    Event("custom", data={"value": "v"}).validate()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "moment",
    [datetime(1970, 1, 1, tzinfo=UTC), datetime(2261, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)],
)
def test_times_that_a_record_can_hold(moment: datetime) -> None:
    Event.custom(value="v", timestamp=moment).validate()


@pytest.mark.parametrize("bound", [np.float32(0), np.float32(1)])
def test_limits_are_inclusive_for_numbers_of_numpy(bound: Any) -> None:
    with_box(width=bound, height=bound, confidence=bound).validate()


def test_limits_are_inclusive() -> None:
    Event.safety_alert(
        alert_type="a",
        description="d" * 10_000,
        external_id="e" * 1_000,
        event_id="i" * 256,
        use_case_id="u" * 256,
        device_id="d" * 256,
        stream_id="s" * 256,
        workflow_id="w" * 256,
        images=[
            Image(object_detections=[box(confidence=0.0, width=0.0)] * 1_000),
            Image(classifications=[Classification("c", 1.0)] * 1_000),
            Image(FrameRef(1, bytes(16), 1)),
        ],
        display_image_position=1,
        metadata={f"{i:0100}": "v" * 1_000 for i in range(100)},
    ).validate()


@pytest.mark.parametrize(
    "number",
    [
        np.float32(0.25),
        np.float64(0.25),
        np.float16(0.25),
        Fraction(1, 4),
        np.int64(1),
        np.uint8(1),
    ],
    ids=lambda number: type(number).__name__,
)
def test_numbers_of_numpy_are_numbers(number: Any) -> None:
    event = Event.inventory_count(
        item_count=np.int32(3),  # type: ignore[arg-type]
        images=[
            Image(
                object_detections=[ObjectDetection("a", number, number, number, number, number)],
                instance_segmentations=[
                    InstanceSegmentation("a", 1, 2, 3, 4, 0.5, [(number, number)] * 3)
                ],
                keypoints=[
                    KeypointDetection("a", 1, 2, 3, 4, 0.5, [Keypoint(np.int64(4), number, 1)])  # type: ignore[arg-type]
                ],
                classifications=[Classification("a", number)],
            )
        ],
        display_image_position=np.int64(0),  # type: ignore[arg-type]
        metadata={"n": number},
    )

    event.validate()


def test_plain_number_keeps_the_value() -> None:
    assert plain_number(np.float32(0.1)) == 0.10000000149011612
    assert type(plain_number(np.float32(0.1))) is float
    assert type(plain_number(np.int64(3))) is int


def test_sequences_are_frozen() -> None:
    boxes = [box()]
    images = [Image(object_detections=boxes)]
    event = Event.custom(value="v", images=images)
    boxes.clear()
    images.clear()

    assert event.images == (Image(object_detections=(box(),)),)
    points: Any = [[0.0, 0.0], [4.0, 0.0], [4.0, 4.0]]
    assert InstanceSegmentation("a", 1, 2, 3, 4, 0.5, points).points == TRIANGLE
    with pytest.raises(FrozenInstanceError):
        event.event_id = "other"  # type: ignore[misc]


def test_repr_leaves_the_bytes_of_frames_out() -> None:
    assert len(repr(Event.custom(value="v", images=[Image(bytes(1_000_000))]))) < 1_000


# --- Refused events -------------------------------------------------------------------------

LONG_ID = "i" * 257


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"event_type": "other"}, "eventType"),
        ({"event_type": None}, "eventType"),
        ({"event_type": []}, "eventType"),
        ({"event_id": ""}, "eventId"),
        ({"event_id": LONG_ID}, "eventId"),
        ({"event_id": 7}, "eventId"),
        ({"event_id": "\ud800"}, "eventId"),
        ({"use_case_id": ""}, "useCaseId"),
        ({"use_case_id": LONG_ID}, "useCaseId"),
        ({"device_id": LONG_ID}, "deviceId"),
        ({"device_id": b"d"}, "deviceId"),
        ({"stream_id": ""}, "streamId"),
        ({"stream_id": LONG_ID}, "streamId"),
        ({"workflow_id": LONG_ID}, "workflowId"),
        ({"timestamp": "2026-10-01T00:00:00Z"}, "timestamp"),
        ({"timestamp": datetime(2026, 10, 1)}, "timestamp"),
        ({"timestamp": datetime(1969, 12, 31, tzinfo=UTC)}, "timestamp"),
        ({"timestamp": datetime(2262, 1, 1, tzinfo=UTC)}, "timestamp"),
        ({"timestamp": datetime.min.replace(tzinfo=timezone(timedelta(hours=14)))}, "timestamp"),
        ({"images": None}, "images"),
        ({"images": Image()}, "images"),
        ({"images": [None]}, "images[0]"),
        ({"images": [Image(), {"sourceId": "x"}]}, "images[1]"),
        ({"display_image_position": 0}, "displayImagePosition"),
        ({"images": [Image()], "display_image_position": 1}, "displayImagePosition"),
        ({"images": [Image()], "display_image_position": -1}, "displayImagePosition"),
        ({"images": [Image()], "display_image_position": True}, "displayImagePosition"),
        ({"images": [Image()], "display_image_position": 0.0}, "displayImagePosition"),
    ],
)
def test_fields_of_the_event(changes: dict[str, Any], field: str) -> None:
    assert field_of(replace(Event.custom(value="v"), **changes)) == field


def test_a_time_zone_without_an_offset_is_no_time_zone() -> None:
    class Nowhere(tzinfo):
        def utcoffset(self, _: datetime | None) -> None:
            return None

        def dst(self, _: datetime | None) -> None:
            return None

        def tzname(self, _: datetime | None) -> None:
            return None

    event = Event.custom(value="v", timestamp=datetime(2026, 1, 1, tzinfo=Nowhere()))
    assert "timezone-aware" in refusal(event).reason


@pytest.mark.parametrize(
    ("kind", "data", "field"),
    [
        ("quality_check", None, "eventData.result"),
        ("quality_check", {}, "eventData.result"),
        ("quality_check", {"externalId": "x"}, "eventData.result"),
        ("quality_check", {"result": "ok"}, "eventData.result"),
        ("quality_check", {"result": True}, "eventData.result"),
        ("quality_check", {"result": None}, "eventData.result"),
        ("quality_check", {"result": np.array(["pass"])}, "eventData.result"),
        ("quality_check", {"result": "pass", "confidence": 1}, "eventData.confidence"),
        ("quality_check", {"result": "pass", 1: "x"}, "eventData[1]"),
        ("quality_check", {"result": "pass", "\udc80": 1}, "eventData['\\udc80']"),
        ("quality_check", {"result": "pass", "externalId": "x" * 1001}, "eventData.externalId"),
        ("quality_check", {"result": "pass", "externalId": 7}, "eventData.externalId"),
        ("quality_check", {"result": "pass", "externalId": None}, "eventData.externalId"),
        ("quality_check", {"result": "pass", "value": "v"}, "eventData.value"),
        ("quality_check", [("result", "pass")], "eventData"),
        ("inventory_count", {}, "eventData.itemCount"),
        ("inventory_count", {"itemCount": "3"}, "eventData.itemCount"),
        ("inventory_count", {"itemCount": 3.0}, "eventData.itemCount"),
        ("inventory_count", {"itemCount": True}, "eventData.itemCount"),
        ("inventory_count", {"itemCount": 2**64}, "eventData.itemCount"),
        ("inventory_count", {"itemCount": -(2**63) - 1}, "eventData.itemCount"),
        ("inventory_count", {"itemCount": 10**400}, "eventData.itemCount"),
        ("inventory_count", {"itemCount": 1, "location": 7}, "eventData.location"),
        ("inventory_count", {"itemCount": 1, "itemType": 7}, "eventData.itemType"),
        ("inventory_count", {"itemCount": 1, "externalId": "x" * 1001}, "eventData.externalId"),
        ("safety_alert", {"severity": "low"}, "eventData.alertType"),
        ("safety_alert", {"alertType": ""}, "eventData.alertType"),
        ("safety_alert", {"alertType": "no hat"}, "eventData.alertType"),
        ("safety_alert", {"alertType": "hat\n"}, "eventData.alertType"),
        ("safety_alert", {"alertType": "größe"}, "eventData.alertType"),
        ("safety_alert", {"alertType": 3}, "eventData.alertType"),
        ("safety_alert", {"alertType": "a", "severity": "severe"}, "eventData.severity"),
        ("safety_alert", {"alertType": "a", "description": "d" * 10_001}, "eventData.description"),
        ("safety_alert", {"alertType": "a", "externalId": "x" * 1001}, "eventData.externalId"),
        ("custom", {"externalId": "x"}, "eventData.value"),
        ("custom", {"value": 3}, "eventData.value"),
        ("custom", {"value": "v" * 10_001}, "eventData.value"),
        ("custom", {"value": "a\udfffb"}, "eventData.value"),
        ("custom", {"value": "v", "externalId": "x" * 1001}, "eventData.externalId"),
        ("operator_feedback", {"feedback": "correct"}, "eventData.relatedEventId"),
        ("operator_feedback", {"relatedEventId": "e"}, "eventData.feedback"),
        ("operator_feedback", {"relatedEventId": "", "feedback": "x"}, "eventData.relatedEventId"),
        (
            "operator_feedback",
            {"relatedEventId": LONG_ID, "feedback": "correct"},
            "eventData.relatedEventId",
        ),
        (
            "operator_feedback",
            {"relatedEventId": "e", "feedback": "wrong"},
            "eventData.feedback",
        ),
        (
            "operator_feedback",
            {"relatedEventId": "e", "feedback": "correct", "externalId": "x"},
            "eventData.externalId",
        ),
    ],
)
def test_event_data(kind: str, data: Any, field: str) -> None:
    assert field_of(Event(EventType(kind), data=data)) == field


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ([("k", 1)], "customMetadata"),
        ({f"k{i}": i for i in range(101)}, "customMetadata"),
        ({"": 1}, "customMetadata['']"),
        ({"k" * 101: 1}, f"customMetadata['{'k' * 60}'...]"),
        ({"k.v": 1}, "customMetadata['k.v']"),
        ({"grün": 1}, "customMetadata['grün']"),
        ({"k\n": 1}, "customMetadata['k\\n']"),
        ({7: 1}, "customMetadata[7]"),
        ({"k": "v" * 1_001}, "customMetadata.k"),
        ({"k": "\ud83d"}, "customMetadata.k"),
        ({"k": None}, "customMetadata.k"),
        ({"k": []}, "customMetadata.k"),
        ({"k": {}}, "customMetadata.k"),
        ({"k": b"v"}, "customMetadata.k"),
        ({"k": 1j}, "customMetadata.k"),
        ({"k": Decimal(1)}, "customMetadata.k"),
        ({"k": math.nan}, "customMetadata.k"),
        ({"k": math.inf}, "customMetadata.k"),
        ({"k": -math.inf}, "customMetadata.k"),
        ({"k": np.float32("nan")}, "customMetadata.k"),
        ({"k": np.float64("inf")}, "customMetadata.k"),
        ({"k": Fraction(10**400)}, "customMetadata.k"),
        ({"k": 2**64}, "customMetadata.k"),
        ({"k": -(2**63) - 1}, "customMetadata.k"),
        ({"tool wear": np.bool_(True)}, "customMetadata['tool wear']"),
    ],
)
def test_metadata(metadata: Any, field: str) -> None:
    assert field_of(Event.custom(value="v", metadata=metadata)) == field


def test_metadata_takes_any_mapping() -> None:
    metadata: Mapping[str, str | float | bool] = MappingProxyType(
        {"a-b_c D9": "ü" * 1_000, "n": 2**64 - 1, "m": -(2**63), "yes": True, "f": 1e308}
    )

    Event.custom(value="v", metadata=metadata).validate()


NOT_NUMBERS: list[Any] = [None, "3", True, b"3", 1j, Decimal(1), np.bool_(True), np.array([1.0])]
NOT_COORDINATES: list[Any] = [math.nan, math.inf, -math.inf, 1e39, -1e39, 10**400]
NOT_COORDINATES += [np.float32("nan"), np.float64("-inf"), Fraction(10**400)]


@pytest.mark.parametrize("name", ["x", "y", "width", "height", "confidence"])
@pytest.mark.parametrize("value", NOT_NUMBERS + NOT_COORDINATES)
def test_numbers_of_a_box(name: str, value: Any) -> None:
    assert field_of(with_box(**{name: value})) == f"images[0].objectDetections[1].{name}"


@pytest.mark.parametrize("name", ["width", "height", "confidence"])
@pytest.mark.parametrize("value", [-1e-9, -1, np.float32(-0.5)])
def test_sizes_and_confidence_are_not_negative(name: str, value: Any) -> None:
    assert field_of(with_box(**{name: value})) == f"images[0].objectDetections[1].{name}"


@pytest.mark.parametrize("value", [1.0000001, 2, np.float64(1.5)])
def test_confidence_is_at_most_one(value: Any) -> None:
    assert refusal(with_box(confidence=value)).reason.startswith("must be 0 to 1, got ")


@pytest.mark.parametrize("value", [None, 3, b"burr", "\ud800", "burr\udc00"])
def test_class_names(value: Any) -> None:
    assert field_of(with_box(class_name=value)) == "images[0].objectDetections[1].class"


@pytest.mark.parametrize(
    ("image", "field"),
    [
        (Image(label=3), ".label"),  # type: ignore[arg-type]
        (Image(source_id=""), ".sourceId"),
        (Image(source_id=3), ".sourceId"),  # type: ignore[arg-type]
        (Image(input_source_id=""), ".inputSourceId"),
        (Image(REF, source_id="s"), ".sourceId"),
        (Image(input_frame=REF, input_source_id="s"), ".inputSourceId"),
        (Image("frame.jpg"), ".frame"),  # type: ignore[arg-type]
        (Image(3), ".frame"),  # type: ignore[arg-type]
        (Image(input_frame="frame.jpg"), ".inputFrame"),  # type: ignore[arg-type]
        (Image(FrameRef(0, bytes(16), 1)), ".frame.seq"),
        (Image(FrameRef(2**64, bytes(16), 1)), ".frame.seq"),
        (Image(FrameRef(1, bytes(15), 1)), ".frame.digest"),
        (Image(FrameRef(1, "0" * 16, 1)), ".frame.digest"),  # type: ignore[arg-type]
        (Image(input_frame=FrameRef(1, bytes(16), 0)), ".inputFrame.size"),
        (Image(object_detections=None), ".objectDetections"),  # type: ignore[arg-type]
        (Image(object_detections=np.zeros((2, 6))), ".objectDetections"),  # type: ignore[arg-type]
        (Image(object_detections=[box()] * 1_001), ".objectDetections"),
        (Image(object_detections=[box(), None]), ".objectDetections[1]"),  # type: ignore[list-item]
        (Image(object_detections=[Classification("c", 1)]), ".objectDetections[0]"),  # type: ignore[list-item]
        (Image(classifications=[Classification("c", 1)] * 1_001), ".classifications"),
        (Image(classifications=[box()]), ".classifications[0]"),  # type: ignore[list-item]
        (Image(classifications=[Classification(None, 1)]), ".classifications[0].class"),  # type: ignore[arg-type]
        (Image(classifications=[Classification("c", 1.1)]), ".classifications[0].confidence"),
        (Image(classifications=[Classification("c", math.nan)]), ".classifications[0].confidence"),
    ],
)
def test_images(image: Image, field: str) -> None:
    event = Event.custom(value="v", images=[Image(), image])

    assert field_of(event) == f"images[1]{field}"


@pytest.mark.parametrize(
    ("points", "field"),
    [
        (None, "points"),
        (np.zeros((3, 2)), "points"),
        (TRIANGLE[:2], "points"),
        ([], "points"),
        ([*TRIANGLE, (1.0, 2.0, 3.0)], "points[3]"),
        ([*TRIANGLE, 1.0], "points[3]"),
        ([*TRIANGLE, "ab"], "points[3]"),
        ([*TRIANGLE, (math.nan, 2.0)], "points[3][0]"),
        ([*TRIANGLE, (1.0, math.inf)], "points[3][1]"),
        ([*TRIANGLE, (1.0, True)], "points[3][1]"),
    ],
)
def test_polygons(points: Any, field: str) -> None:
    segmentation = InstanceSegmentation("a", 1, 2, 3, 4, 0.5, points)
    event = Event.custom(value="v", images=[Image(instance_segmentations=[segmentation])])

    assert field_of(event) == f"images[0].instanceSegmentations[0].{field}"


def test_the_box_of_a_polygon_and_of_a_skeleton_is_checked() -> None:
    segmentation = InstanceSegmentation("a", 1, 2, -3, 4, 0.5, TRIANGLE)
    skeleton = KeypointDetection("a", 1, 2, 3, math.nan, 0.5, ())

    event = Event.custom(value="v", images=[Image(instance_segmentations=[segmentation])])
    assert field_of(event) == "images[0].instanceSegmentations[0].width"
    event = Event.custom(value="v", images=[Image(keypoints=[skeleton])])
    assert field_of(event) == "images[0].keypoints[0].height"
    too_many = Event.custom(value="v", images=[Image(keypoints=[skeleton] * 1_001)])
    assert field_of(too_many) == "images[0].keypoints"


@pytest.mark.parametrize(
    ("keypoints", "field"),
    [
        (None, "keypoints"),
        ([(0, 1.0, 2.0)], "keypoints[0]"),
        ([Keypoint(0, 1.0, 2.0), Keypoint(1.0, 1.0, 2.0)], "keypoints[1].id"),  # type: ignore[arg-type]
        ([Keypoint(True, 1.0, 2.0)], "keypoints[0].id"),
        ([Keypoint(2**64, 1.0, 2.0)], "keypoints[0].id"),
        ([Keypoint(0, math.nan, 2.0)], "keypoints[0].x"),
        ([Keypoint(0, 1.0, 1e40)], "keypoints[0].y"),
    ],
)
def test_keypoints(keypoints: Any, field: str) -> None:
    skeleton = KeypointDetection("a", 1, 2, 3, 4, 0.5, keypoints)
    event = Event.custom(value="v", images=[Image(keypoints=[skeleton])])

    assert field_of(event) == f"images[0].keypoints[0].{field}"


def test_a_refusal_names_the_field_and_the_limit() -> None:
    error = refusal(with_box(confidence=1.5))

    assert str(error) == "images[0].objectDetections[1].confidence: must be 0 to 1, got 1.5"
    assert isinstance(error, ValueError)
    error = refusal(Event.custom(value="v", device_id="d" * 300))
    assert str(error) == "deviceId: must have at most 256 characters, has 300"


@pytest.mark.parametrize(
    "event",
    [
        Event.custom(value="v" * 10_000_000),
        Event.custom(value="v", event_id="\ud800" * 100_000),
        Event(EventType.CUSTOM, data={"k" * 100_000: 1}),
        Event("x" * 100_000),  # type: ignore[arg-type]
        Event.custom(value="v", metadata={"k" * 100_000: 1}),
        Event.custom(value="v", metadata={"\udfff": 1}),
        Event.inventory_count(item_count=10**100_000),
        with_box(x=-(10**100_000)),
    ],
)
def test_refusals_are_short_and_printable(event: Event) -> None:
    # They go to terminals and into the log, whatever it was that was refused.
    message = str(refusal(event))

    assert len(message) < 250
    message.encode()


def test_an_array_is_a_frame_and_a_list_is_none() -> None:
    pixels = np.zeros((2, 2, 3), np.uint8)
    Event.custom(value="v", images=[Image(pixels, input_frame=b"x"), Image(Path("a"))]).validate()

    event = Event.custom(value="v", images=[Image("a.jpg")])  # type: ignore[arg-type]
    assert refusal(event).reason == "must not be a str; wrap a path in pathlib.Path"
    event = Event.custom(value="v", images=[Image([[0]])])  # type: ignore[arg-type]
    assert refusal(event).reason == "must be bytes, a path, an array or a FrameRef, not list"


# --- JSON -----------------------------------------------------------------------------------

BOX = {"class": "a", "x": 1, "y": 2, "width": 3, "height": 4, "confidence": 0.5}


def without(obj: dict[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in obj.items() if k != key}


@pytest.mark.parametrize(
    ("obj", "field"),
    [
        ([], "event"),
        (None, "event"),
        ({}, "eventType"),
        ({"eventType": "other"}, "eventType"),
        ({"eventType": ["custom"]}, "eventType"),
        ({"eventType": "custom", "device_id": "d"}, "device_id"),
        ({"eventType": "custom", "Gerät": "d"}, "['Gerät']"),
        ({"eventType": "custom", "deviceId": None}, "deviceId"),
        ({"eventType": "custom", "deviceId": 3}, "deviceId"),
        ({"eventType": "custom", "timestamp": "yesterday"}, "timestamp"),
        ({"eventType": "custom", "timestamp": 1790000000}, "timestamp"),
        ({"eventType": "custom", "eventData": "v"}, "eventData"),
        ({"eventType": "custom"}, "eventData.value"),
        (
            {"eventType": "custom", "eventData": {"value": "v"}, "customMetadata": [1]},
            "customMetadata",
        ),
        ({"eventType": "custom", "images": {}}, "images"),
        ({"eventType": "custom", "images": ["a"]}, "images[0]"),
    ],
)
def test_from_json_names_what_is_wrong(obj: object, field: str) -> None:
    with pytest.raises(EventValidationError) as caught:
        Event.from_json(obj)

    assert caught.value.field == field


@pytest.mark.parametrize(
    ("image", "field"),
    [
        ({"frame": 3}, "frame"),
        ({"frame": ""}, "frame"),
        ({"frame": "a\0b"}, "frame"),
        ({"inputFrame": None}, "inputFrame"),
        ({"base64Image": "aGk="}, "base64Image"),
        ({"frame": "a.jpg", "sourceId": "s"}, "sourceId"),
        ({"label": 3}, "label"),
        ({"objectDetections": {}}, "objectDetections"),
        ({"objectDetections": [[]]}, "objectDetections[0]"),
        ({"objectDetections": [{**BOX, "classId": 3}]}, "objectDetections[0].classId"),
        ({"objectDetections": [BOX, without(BOX, "width")]}, "objectDetections[1].width"),
        ({"objectDetections": [{**BOX, "x": "1"}]}, "objectDetections[0].x"),
        ({"objectDetections": [{**BOX, "x": math.nan}]}, "objectDetections[0].x"),
        ({"classifications": [{"class": "a"}]}, "classifications[0].confidence"),
        ({"classifications": [BOX]}, "classifications[0].x"),
        ({"instanceSegmentations": [BOX]}, "instanceSegmentations[0].points"),
        ({"instanceSegmentations": [{**BOX, "points": 3}]}, "instanceSegmentations[0].points"),
        (
            {"instanceSegmentations": [{**BOX, "points": [[1, 2], [3, 4], [5]]}]},
            "instanceSegmentations[0].points[2]",
        ),
        ({"keypoints": [{**BOX, "keypoints": 3}]}, "keypoints[0].keypoints"),
        (
            {"keypoints": [{**BOX, "keypoints": [{"id": 1, "x": 2}]}]},
            "keypoints[0].keypoints[0].y",
        ),
    ],
)
def test_from_json_names_what_is_wrong_in_an_image(image: object, field: str) -> None:
    obj = {"eventType": "custom", "eventData": {"value": "v"}, "images": [{}, image]}
    with pytest.raises(EventValidationError) as caught:
        Event.from_json(obj)

    assert caught.value.field == f"images[1].{field}"


def test_a_skeleton_without_points_may_leave_the_list_out() -> None:
    obj = {"eventType": "custom", "eventData": {"value": "v"}, "images": [{"keypoints": [BOX]}]}

    assert Event.from_json(obj).images[0].keypoints[0].keypoints == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-01-15T10:30:00Z", datetime(2024, 1, 15, 10, 30, tzinfo=UTC)),
        ("2026-03-30T14:30:00.250Z", datetime(2026, 3, 30, 14, 30, 0, 250_000, tzinfo=UTC)),
        (
            "2026-08-21T12:00:00.123456+00:00",
            datetime(2026, 8, 21, 12, 0, 0, 123_456, tzinfo=UTC),
        ),
        ("2026-08-21T12:00:00.123456789Z", datetime(2026, 8, 21, 12, 0, 0, 123_456, tzinfo=UTC)),
        ("2026-08-21T12:00:00-05:30", datetime(2026, 8, 21, 17, 30, tzinfo=UTC)),
    ],
)
def test_parse_timestamp(text: str, expected: datetime) -> None:
    assert parse_timestamp(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-08-21",
        "2026-08-21T12:00:00",
        "2026-08-21T12:00:00.123456",
        "2026-08-21 12:00:00Z",
        "20260821T120000Z",
        "2026-08-21T12:00Z",
        "2026-08-21T12:00:00+0000",
        "2026-08-21T12:00:00Z\n",
        "2026-13-21T12:00:00Z",
        "2026-02-30T12:00:00Z",
        "2026-08-21T24:01:00Z",
        "2026-08-21T12:00:00+99:00",
        "٢٠٢٦-08-21T12:00:00Z",
    ],
)
def test_parse_timestamp_refuses(text: str) -> None:
    with pytest.raises(EventValidationError) as caught:
        parse_timestamp(text)

    assert caught.value.field == "timestamp"
