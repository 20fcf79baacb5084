"""What is sent for an event."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgpack
import numpy as np
import pytest

from vevents.errors import EventValidationError
from vevents.event import (
    Classification,
    Event,
    FrameRef,
    Image,
    InstanceSegmentation,
    Keypoint,
    KeypointDetection,
    ObjectDetection,
)
from vevents.wire import event_to_json, format_timestamp, payload_to_json, required_frames

MOMENT = datetime(2026, 10, 1, 6, 14, 9, 482_000, tzinfo=UTC)
EVENT = Event.custom(value="v", event_id="evt-1", use_case_id="uc7d21f0", timestamp=MOMENT)


def ref(seq: int) -> FrameRef:
    return FrameRef(seq, bytes(16), 100)


def sent(images: list[Image], source_ids: dict[int, str], **changes: Any) -> dict[str, Any]:
    event = replace(EVENT, images=images, **changes)
    event.validate()
    return event_to_json(event, source_ids=source_ids)


def test_every_field_has_the_name_of_the_wire() -> None:
    event = Event.quality_check(
        result="fail",
        external_id="lot-7",
        event_id="evt-1",
        use_case_id="uc7d21f0",
        timestamp=MOMENT,
        device_id="press-03",
        stream_id="cam-1",
        workflow_id="check",
        metadata={"tool wear": 0.37, "n": 3, "ok": True, "s": "é"},
        display_image_position=0,
        images=[
            Image(
                ref(1),
                input_frame=ref(2),
                label="top",
                object_detections=[ObjectDetection("burr", 812.5, 403, 37, 22, 0.913)],
                classifications=[Classification("bad", 0.75)],
                instance_segmentations=[
                    InstanceSegmentation("a", 1, 2, 3, 4, 1, [(0.5, 1), (2, 3.5), (4, 5)])
                ],
                keypoints=[KeypointDetection("p", 1, 2, 3, 4, 0.5, [Keypoint(7, 1.5, 2)])],
            ),
            Image(source_id="ve-9", input_source_id="ve-8"),
        ],
    )

    assert event_to_json(event, source_ids={1: "ve-1", 2: "ve-2"}) == {
        "eventId": "evt-1",
        "eventType": "quality_check",
        "useCaseId": "uc7d21f0",
        "timestamp": "2026-10-01T06:14:09.482000+00:00",
        "deviceId": "press-03",
        "streamId": "cam-1",
        "workflowId": "check",
        "images": [
            {
                "sourceId": "ve-1",
                "inputSourceId": "ve-2",
                "label": "top",
                "objectDetections": [
                    {
                        "class": "burr",
                        "x": 812.5,
                        "y": 403,
                        "width": 37,
                        "height": 22,
                        "confidence": 0.913,
                    }
                ],
                "classifications": [{"class": "bad", "confidence": 0.75}],
                "instanceSegmentations": [
                    {
                        "class": "a",
                        "x": 1,
                        "y": 2,
                        "width": 3,
                        "height": 4,
                        "confidence": 1,
                        "points": [[0.5, 1], [2, 3.5], [4, 5]],
                    }
                ],
                "keypoints": [
                    {
                        "class": "p",
                        "x": 1,
                        "y": 2,
                        "width": 3,
                        "height": 4,
                        "confidence": 0.5,
                        "keypoints": [{"id": 7, "x": 1.5, "y": 2}],
                    }
                ],
            },
            {"sourceId": "ve-9", "inputSourceId": "ve-8"},
        ],
        "displayImagePosition": 0,
        "eventData": {"result": "fail", "externalId": "lot-7"},
        "customMetadata": {"tool wear": 0.37, "n": 3, "ok": True, "s": "é"},
    }


def test_what_is_sent_can_be_read_as_an_event_again() -> None:
    event = replace(EVENT, images=[Image(source_id="ve-9", label="a")], metadata={"k": 1})

    assert Event.from_json(event_to_json(event, source_ids={})) == event


def test_only_what_applies_is_sent() -> None:
    assert event_to_json(EVENT, source_ids={}) == {
        "eventId": "evt-1",
        "eventType": "custom",
        "useCaseId": "uc7d21f0",
        "timestamp": "2026-10-01T06:14:09.482000+00:00",
        "eventData": {"value": "v"},
    }


def test_event_data_is_sent_even_when_there_is_none() -> None:
    assert event_to_json(replace(EVENT, data=None), source_ids={})["eventData"] == {}


def test_the_event_is_not_changed_through_what_is_sent() -> None:
    event = replace(EVENT, metadata={"k": 1}, images=[Image(ref(1))])

    obj = event_to_json(event, source_ids={})
    obj["eventData"]["value"] = "other"
    obj["customMetadata"]["k"] = 2

    assert event.data == {"value": "v"}
    assert event.metadata == {"k": 1}


def test_numbers_of_numpy_become_json() -> None:
    half: Any = np.float32(0.5)
    metadata: dict[str, Any] = {"n": np.int16(3), "f": half}
    event = replace(
        EVENT,
        images=[
            Image(
                object_detections=[ObjectDetection("a", half, half, half, half, half)],
                keypoints=[
                    KeypointDetection("p", 1, 2, 3, 4, 0.5, [Keypoint(np.int64(7), 1, 2)])  # type: ignore[arg-type]
                ],
            )
        ],
        display_image_position=np.int64(0),  # type: ignore[arg-type]
        metadata=metadata,
    )
    event.validate()

    obj = json.loads(json.dumps(event_to_json(event, source_ids={}), allow_nan=False))

    assert obj["images"][0]["objectDetections"][0]["x"] == 0.5
    assert obj["images"][0]["keypoints"][0]["keypoints"][0]["id"] == 7
    assert obj["displayImagePosition"] == 0
    assert obj["customMetadata"] == {"n": 3, "f": 0.5}


def test_the_use_case_of_the_event_goes_before_the_default() -> None:
    def use_case_id(event: Event) -> object:
        return event_to_json(event, source_ids={}, use_case_id="default")["useCaseId"]

    assert use_case_id(EVENT) == "uc7d21f0"
    assert use_case_id(replace(EVENT, use_case_id=None)) == "default"


@pytest.mark.parametrize(
    ("name", "field"),
    [("event_id", "eventId"), ("timestamp", "timestamp"), ("use_case_id", "useCaseId")],
)
def test_an_incomplete_event_is_refused(name: str, field: str) -> None:
    absent: dict[str, Any] = {name: None}
    event = replace(EVENT, **absent)

    with pytest.raises(EventValidationError) as caught:
        event_to_json(event, source_ids={})
    assert caught.value.field == field


def test_a_frame_that_is_not_in_the_log_is_refused() -> None:
    with pytest.raises(TypeError, match="in the log before it is sent"):
        event_to_json(replace(EVENT, images=[Image(b"\xff\xd8\xff")]), source_ids={})


# --- Missing frames -------------------------------------------------------------------------

FOUND = [Classification("c", 0.5)]


def test_a_missing_frame_is_left_out_and_counted() -> None:
    obj = sent([Image(ref(1), input_frame=ref(2), label="top")], {2: "ve-2"})

    assert obj["images"] == [{"inputSourceId": "ve-2", "label": "top"}]
    assert obj["customMetadata"] == {"vevents_frames_missing": 1}


def test_a_frame_that_is_missing_twice_counts_once() -> None:
    obj = sent([Image(ref(1), input_frame=ref(1)), Image(ref(1)), Image(ref(2))], {})

    assert obj["customMetadata"] == {"vevents_frames_missing": 2}


def test_the_reasons_are_given_once_each() -> None:
    event = replace(EVENT, images=[Image(ref(seq)) for seq in (1, 2, 3, 4, 5)], metadata={"k": 1})
    missing = {1: "refused", 2: "evicted", 3: "refused", 5: "not missing after all"}

    obj = event_to_json(event, source_ids={5: "ve-5"}, missing=missing)

    assert obj["customMetadata"] == {
        "k": 1,
        "vevents_frames_missing": 4,
        "vevents_frames_missing_reason": "evicted, refused",
    }


@pytest.mark.parametrize(
    ("key_count", "noted"),
    [
        (98, ["vevents_frames_missing", "vevents_frames_missing_reason"]),
        (99, ["vevents_frames_missing"]),
        (100, []),
    ],
)
def test_the_count_is_noted_if_there_is_room(key_count: int, noted: list[str]) -> None:
    metadata = {f"k{i}": i for i in range(key_count)}
    event = replace(EVENT, images=[Image(ref(1))], metadata=metadata)

    obj = event_to_json(event, source_ids={}, missing={1: "evicted"})

    assert list(obj["customMetadata"]) == [*metadata, *noted]
    assert len(obj["customMetadata"]) <= 100


def test_the_count_replaces_a_value_of_its_own_name() -> None:
    metadata = {f"k{i}": i for i in range(99)} | {"vevents_frames_missing": 0}

    obj = sent([Image(ref(1))], {}, metadata=metadata)

    assert obj["customMetadata"]["vevents_frames_missing"] == 1
    assert len(obj["customMetadata"]) == 100


def test_nothing_is_noted_when_nothing_is_missing() -> None:
    obj = sent([Image(ref(1)), Image(source_id="ve-9"), Image(label="none")], {1: "ve-1"})

    assert "customMetadata" not in obj
    assert obj["images"] == [{"sourceId": "ve-1"}, {"sourceId": "ve-9"}, {"label": "none"}]


@pytest.mark.parametrize(
    ("images", "position", "expected_images", "expected_position"),
    [
        # Annotations stay, and with them the entry and its place.
        ([Image(ref(1), classifications=FOUND)], 0, 1, 0),
        # An entry of which nothing is left goes; the position follows its image,
        ([Image(ref(1)), Image(ref(9))], 1, 1, 0),
        ([Image(ref(1)), Image(ref(2)), Image(ref(9)), Image(ref(8))], 2, 2, 0),
        ([Image(input_frame=ref(1), label="gone"), Image(ref(9))], 1, 1, 0),
        # or goes to the next one when its own image is the one that went,
        ([Image(ref(1)), Image(ref(9))], 0, 1, 0),
        ([Image(ref(9)), Image(ref(1)), Image(ref(8))], 1, 2, 1),
        # or to the last one, when there is none behind it.
        ([Image(ref(9)), Image(ref(8)), Image(ref(1), label="gone")], 2, 2, 1),
        ([Image(ref(9)), Image(ref(1))], None, 1, None),
        ([Image(ref(1)), Image(ref(2))], 1, None, None),
    ],
)
def test_the_position_stays_inside_the_images(
    images: list[Image],
    position: int | None,
    expected_images: int | None,
    expected_position: int | None,
) -> None:
    obj = sent(images, {8: "ve-8", 9: "ve-9"}, display_image_position=position)

    assert (len(obj["images"]) if "images" in obj else None) == expected_images
    assert obj.get("displayImagePosition") == expected_position


def test_required_frames_are_named_once_in_the_order_of_their_use() -> None:
    images = [
        Image(ref(5), input_frame=ref(3)),
        Image(source_id="ve-1", input_frame=ref(5)),
        Image(),
        Image(ref(1)),
    ]

    assert required_frames(replace(EVENT, images=images)) == [ref(5), ref(3), ref(1)]
    assert required_frames(EVENT) == []


# --- Times ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2026, 8, 21, 12, tzinfo=UTC), "2026-08-21T12:00:00.000000+00:00"),
        (MOMENT, "2026-10-01T06:14:09.482000+00:00"),
        (
            datetime(2026, 8, 21, 1, tzinfo=timezone(timedelta(hours=2))),
            "2026-08-20T23:00:00.000000+00:00",
        ),
        (0, "1970-01-01T00:00:00.000000+00:00"),
        (1_790_000_000_123_456_999, "2026-09-21T14:13:20.123456+00:00"),
        (2**63 - 1, "2262-04-11T23:47:16.854775+00:00"),
        (-1, "1969-12-31T23:59:59.999999+00:00"),
    ],
)
def test_format_timestamp(moment: datetime | int, text: str) -> None:
    assert format_timestamp(moment) == text


def test_a_naive_time_is_refused() -> None:
    with pytest.raises(ValueError, match="not timezone-aware"):
        format_timestamp(datetime(2026, 8, 21))


ROW = ["x", 1, 2, 3, 4, 0.5]


@pytest.mark.parametrize(
    "fields",
    [
        {"eventType": "nonsense"},
        {"eventData": {}},
        {"eventData": {"value": "v", "result": "pass"}},
        {"eventData": {"value": "v" * 10_001}},
        {"useCaseId": ""},
        {"deviceId": "d" * 257},
        {"unknown": 1},
        {"customMetadata": {"a.b": 1}},
        {"customMetadata": {"a": float("inf")}},
        {"customMetadata": {"a": "v" * 1_001}},
        {"customMetadata": {str(number): 1 for number in range(101)}},
        {"displayImagePosition": 0},
        {"images": [{}], "displayImagePosition": 1},
        {"images": [{"sourceId": ""}]},
        {"images": [{"frame": [1, bytes(16), 3]}]},
        {"images": [{"objectDetections": [ROW[:5]]}]},
        {"images": [{"objectDetections": [[*ROW[:5], 1.5]]}]},
        {"images": [{"objectDetections": [[*ROW[:3], -1, 4, 0.5]]}]},
        {"images": [{"objectDetections": [["x", float("nan"), 2, 3, 4, 0.5]]}]},
        {"images": [{"objectDetections": [ROW] * 1_001}]},
        {"images": [{"instanceSegmentations": [[*ROW, [1, 2, 3, 4]]]}]},
        {"images": [{"keypoints": [[*ROW, [1, 2]]]}]},
    ],
)
def test_the_short_way_leaves_alone_what_the_contract_does_not_allow(fields: Any) -> None:
    good = {"eventType": "custom", "useCaseId": "uc", "eventData": {"value": "v"}}

    def short_way(event: Any) -> Any:
        payload = msgpack.packb(event, use_single_float="images" in event)
        return payload_to_json(payload, record_id=bytes(16), wall_ns=0)

    assert short_way(good) is not None
    assert short_way(good | fields) is None


def test_the_short_way_leaves_alone_what_is_given_twice() -> None:
    once = msgpack.packb({"eventType": "custom", "useCaseId": "uc", "eventData": {"value": "v"}})
    twice = bytes([once[0] + 1]) + once[1:] + msgpack.packb("useCaseId") + msgpack.packb("uc")

    assert payload_to_json(once, record_id=bytes(16), wall_ns=0) is not None
    assert payload_to_json(twice, record_id=bytes(16), wall_ns=0) is None
