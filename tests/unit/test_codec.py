"""Events as bytes and back: the numbers, the ids, and bytes that are no event."""

from __future__ import annotations

import math
import random
import struct
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from types import MappingProxyType
from typing import Any

import msgpack
import numpy as np
import pytest

from vevents import codec
from vevents.codec import KIND_OF, PayloadError, decode, encode, header_id
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
)

UUID = "5f0b7c1e-3f6a-4d52-9a3e-0d8f2b6c41aa"
OTHER_UUID = "00000000-0000-4000-8000-000000000000"
MOMENT = datetime(2026, 10, 1, 6, 14, 9, 482_000, tzinfo=UTC)
REF = FrameRef(300, bytes(range(16)), 70_000)

FULL = Event.quality_check(
    result="fail",
    external_id="lot-7",
    use_case_id="uc7d21f0",
    device_id="press-03",
    stream_id="cam-1",
    workflow_id="check",
    metadata={"n": 1, "f": 0.1, "s": "ü", "b": True},
    display_image_position=1,
    event_id=UUID,
    timestamp=MOMENT,
    images=[
        Image(REF, input_frame=REF, label="top"),
        Image(
            source_id="ve-1",
            input_source_id="ve-2",
            object_detections=[ObjectDetection("burr", 812.5, 403.0, 37.0, 22.0, 0.913)],
            classifications=[Classification("bad", 0.75), Classification("good", 0.25)],
            instance_segmentations=[
                InstanceSegmentation("a", 1.0, 2.5, 3.0, 4.0, 1.0, [(0.5, 1.0), (2.0, 3.5), (4, 5)])
            ],
            keypoints=[
                KeypointDetection(
                    "p", 1.0, 2.5, 3.0, 4.0, 0.5, [Keypoint(7, 1.5, 2.0), Keypoint(-1, 3.0, 4.5)]
                ),
                KeypointDetection("q", 1.0, 2.5, 3.0, 4.0, 0.5, []),
            ],
        ),
    ],
)


def round_trip(event: Event) -> Event:
    return decode(encode(event), event_id=event.event_id or UUID, timestamp=MOMENT)


def with_x(x: Any) -> bytes:
    """Return the bytes that stand for one coordinate."""
    detection = ObjectDetection("a", x, 2, 3, 4, 1)
    payload = encode(Event.custom(value="v", images=[Image(object_detections=[detection])]))
    start = payload.index(b"\x96\xa1a") + 3
    assert payload.endswith(b"\x02\x03\x04\x01")
    return payload[start:-4]


# --- Writing --------------------------------------------------------------------------------


def test_the_payload_is_one_map_in_the_order_of_the_format() -> None:
    fields = msgpack.unpackb(encode(replace(FULL, event_id="evt-1")))

    assert list(fields) == [
        "eventType",
        "useCaseId",
        "eventId",
        "deviceId",
        "streamId",
        "workflowId",
        "eventData",
        "customMetadata",
        "displayImagePosition",
        "images",
    ]
    assert list(fields["images"][0]) == ["label", "frame", "inputFrame"]
    assert list(fields["images"][1]) == [
        "sourceId",
        "inputSourceId",
        "objectDetections",
        "classifications",
        "instanceSegmentations",
        "keypoints",
    ]
    assert fields["images"][0]["frame"] == [300, bytes(range(16)), 70_000]
    assert fields["images"][1]["keypoints"][0][6] == [7, 1.5, 2, -1, 3, 4.5]
    assert fields["images"][1]["instanceSegmentations"][0][6] == [0.5, 1, 2, 3.5, 4, 5]


def test_what_does_not_apply_is_absent() -> None:
    assert msgpack.unpackb(encode(Event.custom(value="v", images=[Image()]))) == {
        "eventType": "custom",
        "eventData": {"value": "v"},
        "images": [{}],
    }
    assert "images" not in msgpack.unpackb(encode(Event.custom(value="v")))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (403.0, b"\xcd\x01\x93"),
        (403, b"\xcd\x01\x93"),
        (0.0, b"\x00"),
        (-0.0, b"\x00"),
        (-1.0, b"\xff"),
        (127, b"\x7f"),
        (128, b"\xcc\x80"),
        (2.0**24, b"\xce\x01\x00\x00\x00"),
        (-(2.0**24), b"\xd2\xff\x00\x00\x00"),
        (2**24 + 1, b"\xca\x4b\x80\x00\x00"),
        (2.0**24 + 2, b"\xca\x4b\x80\x00\x01"),
        (-(2**30), b"\xca\xce\x80\x00\x00"),
        (10**38, b"\xca" + struct.pack(">f", 1e38)),
        (0.5, b"\xca\x3f\x00\x00\x00"),
        (0.1, b"\xca\x3d\xcc\xcc\xcd"),
        (16777215.5, b"\xca\x4b\x80\x00\x00"),
        (3.4028235e38, b"\xca\x7f\x7f\xff\xff"),
        (-3.4028235e38, b"\xca\xff\x7f\xff\xff"),
        (1e-50, b"\xca\x00\x00\x00\x00"),
        (np.float32(403), b"\xcd\x01\x93"),
        (np.float32(0.1), b"\xca\x3d\xcc\xcc\xcd"),
        (np.float64(0.5), b"\xca\x3f\x00\x00\x00"),
        (np.float16(0.5), b"\xca\x3f\x00\x00\x00"),
        (np.uint8(128), b"\xcc\x80"),
        (np.int64(2**24 + 1), b"\xca\x4b\x80\x00\x00"),
    ],
)
def test_a_number_in_a_row_is_an_integer_or_a_float32(value: Any, expected: bytes) -> None:
    assert with_x(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.1, b"\xcb\x3f\xb9\x99\x99\x99\x99\x99\x9a"),
        (1.0, b"\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00"),
        (1, b"\x01"),
        (True, b"\xc3"),
        (2**64 - 1, b"\xcf" + b"\xff" * 8),
        (-(2**63), b"\xd3\x80" + b"\x00" * 7),
        (np.float32(0.5), b"\xcb\x3f\xe0\x00\x00\x00\x00\x00\x00"),
        (np.int16(-5), b"\xfb"),
    ],
)
def test_metadata_keeps_its_precision(value: Any, expected: bytes) -> None:
    images = [Image(classifications=[Classification("c", 0.5)])]
    for event in (
        Event.custom(value="v", metadata={"k": value}),
        Event.custom(value="v", metadata=MappingProxyType({"k": value}), images=images),
    ):
        payload = encode(event)
        start = payload.index(b"\xa1k") + 2
        assert payload[start : start + len(expected)] == expected
        assert msgpack.unpackb(payload)["customMetadata"] == {"k": value}


def test_numbers_of_numpy_in_other_places() -> None:
    event = Event.inventory_count(
        item_count=np.int32(17),  # type: ignore[arg-type]
        images=[Image(FrameRef(np.uint64(5), bytes(16), np.int64(9)))],  # type: ignore[arg-type]
        display_image_position=np.int64(0),  # type: ignore[arg-type]
    )

    found = round_trip(event)

    assert (found.data, found.display_image_position) == ({"itemCount": 17}, 0)
    assert found.images[0].frame == FrameRef(5, bytes(16), 9)


@pytest.mark.parametrize("frame", [b"\xff\xd8\xff", "frame.jpg"])
def test_a_frame_that_is_not_in_the_log_is_refused(frame: Any) -> None:
    for image in (Image(frame), Image(input_frame=frame)):
        with pytest.raises(TypeError, match="in the log before its event"):
            encode(Event.custom(value="v", images=[image]))


# --- Ids ------------------------------------------------------------------------------------


def test_a_uuid_goes_into_the_header() -> None:
    assert header_id(UUID) == bytes.fromhex(UUID.replace("-", ""))
    assert b"eventId" not in encode(FULL)
    assert round_trip(FULL).event_id == UUID


@pytest.mark.parametrize(
    "event_id",
    [
        "evt-001",
        "",
        UUID.upper(),
        UUID.replace("-", ""),
        f"{{{UUID}}}",
        f"urn:uuid:{UUID}",
        f"{UUID}\n",
        UUID[:-1],
        UUID.replace("5", "g"),
        "٥f0b7c1e-3f6a-4d52-9a3e-0d8f2b6c41aa",
    ],
)
def test_any_other_id_goes_into_the_payload(event_id: str) -> None:
    assert header_id(event_id) is None
    payload = encode(replace(FULL, event_id=event_id))
    assert msgpack.unpackb(payload)["eventId"] == event_id


def test_the_id_of_the_payload_goes_before_that_of_the_header() -> None:
    payload = encode(replace(FULL, event_id="evt-001"))

    assert decode(payload, event_id=OTHER_UUID, timestamp=MOMENT).event_id == "evt-001"


def test_without_an_id_the_log_makes_one() -> None:
    event = replace(FULL, event_id=None)

    assert header_id(None) is None
    assert encode(event) == encode(FULL)
    assert decode(encode(event), event_id=OTHER_UUID, timestamp=MOMENT).event_id == OTHER_UUID


def test_kinds_are_those_of_the_header_file() -> None:
    assert {str(event_type): kind for event_type, kind in KIND_OF.items()} == {
        "quality_check": 1,
        "inventory_count": 2,
        "safety_alert": 3,
        "custom": 4,
        "operator_feedback": 5,
    }
    assert set(KIND_OF) == set(EventType)


# --- Reading --------------------------------------------------------------------------------


def test_an_event_comes_back() -> None:
    assert round_trip(FULL) == FULL


def test_a_float32_comes_back_as_the_shortest_decimal() -> None:
    values = [
        0.913,
        0.1,
        1234.5679,
        98765.43,
        1.1754944e-38,
        1e-45,
        0.001,
        9.536743e-07,
        3.4028235e38,
    ]
    detections = [ObjectDetection("a", value, -value, 1, 1, 1) for value in values]
    event = Event.custom(value="v", images=[Image(object_detections=detections)])

    found = round_trip(event).images[0].object_detections

    assert [d.x for d in found] == values
    assert [d.y for d in found] == [-value for value in values]


def test_shortest_decimals_agree_with_numpy() -> None:
    bits = [e << 23 | m for e, m in product(range(0, 255), (1, 2, 3, 0x55555, 0x7FFFFE, 0x7FFFFF))]
    values = np.array(bits, np.uint32).view(np.float32)
    values = values[values != np.trunc(values)]
    assert len(values) > 500
    detections = [ObjectDetection("a", float(v), 1, 1, 1, 1) for v in values[:1_000]]
    event = Event.custom(value="v", images=[Image(object_detections=detections)])

    found = round_trip(event).images[0].object_detections

    assert [d.x for d in found] == [float(str(v)) for v in values[:1_000]]


def test_integers_stay_integers() -> None:
    detection = ObjectDetection("a", 403.0, 2.0**24, 3.0, 4.5, 1.0)
    event = Event.custom(value="v", images=[Image(object_detections=[detection])])

    [found] = round_trip(event).images[0].object_detections

    assert found == detection
    assert [type(v) for v in (found.x, found.y, found.height)] == [int, int, float]


def packed(**changes: Any) -> bytes:
    fields: dict[str, Any] = {"eventType": "custom", "eventData": {"value": "v"}, **changes}
    return bytes(msgpack.packb({k: v for k, v in fields.items() if v is not ...}))


def image_with(**fields: Any) -> bytes:
    return packed(images=[fields])


REFUSED: list[tuple[bytes, str]] = [
    (b"", "payload"),
    (b"\xc1", "payload"),
    (b"\x81", "payload"),
    (packed() + b"\x00", "payload"),
    (packed()[:-1], "payload"),
    (b"\xc0", "payload"),
    (b"\x90", "payload"),
    (b"\xa6custom", "payload"),
    (b"\x81\xa9eventType\xa1\xff", "payload"),
    (b"\x81\x01\x02", "payload"),
    (b"\x81\xc4\x09eventType\xa6custom", "payload"),
    (b"\xdd\xff\xff\xff\xff", "payload"),
    (b"\xdf\xff\xff\xff\xff", "payload"),
    (b"\x91" * 100_000, "payload"),
    (b"\xd6\xff\x00\x00\x00\x00", "payload"),
    (packed(other=1), "payload"),
    (packed(sequenceNumber="x" * 100), "payload"),
    (packed(eventType=...), "eventType"),
    (packed(eventType="other"), "eventType"),
    (packed(eventType=3), "eventType"),
    (packed(eventType=["custom"]), "eventType"),
    (packed(eventData=...), "eventData.value"),
    (packed(eventData=[]), "eventData"),
    (packed(eventData={"value": None}), "eventData.value"),
    (packed(eventData={"value": b"v"}), "eventData.value"),
    (packed(eventData={b"value": "v"}), "eventData[bytes]"),
    (packed(deviceId=None), "deviceId"),
    (packed(deviceId=3), "deviceId"),
    (packed(streamId=""), "streamId"),
    (packed(useCaseId=b"u"), "useCaseId"),
    (packed(eventId=""), "eventId"),
    (packed(eventId=None), "eventId"),
    (packed(customMetadata=[]), "customMetadata"),
    (packed(customMetadata={"k": {}}), "customMetadata.k"),
    (packed(customMetadata={"k": math.nan}), "customMetadata.k"),
    (packed(customMetadata={"k": msgpack.ExtType(5, b"x")}), "customMetadata.k"),
    (packed(customMetadata={"k": msgpack.Timestamp(0)}), "customMetadata.k"),
    (packed(displayImagePosition=0), "displayImagePosition"),
    (packed(displayImagePosition="0", images=[{}]), "displayImagePosition"),
    (packed(images={}), "images"),
    (packed(images=3), "images"),
    (packed(images=[[]]), "images[0]"),
    (packed(images=[None]), "images[0]"),
    (image_with(other=1), "images[0]"),
    (image_with(label=None), "images[0].label"),
    (image_with(label=3), "images[0].label"),
    (image_with(sourceId=""), "images[0].sourceId"),
    (image_with(frame=[1, bytes(16)]), "images[0].frame"),
    (image_with(frame=b"x"), "images[0].frame"),
    (image_with(frame=[0, bytes(16), 1]), "images[0].frame.seq"),
    (image_with(frame=[1.5, bytes(16), 1]), "images[0].frame.seq"),
    (image_with(frame=[1, bytes(15), 1]), "images[0].frame.digest"),
    (image_with(frame=[1, "0" * 16, 1]), "images[0].frame.digest"),
    (image_with(inputFrame=[1, bytes(16), -1]), "images[0].inputFrame.size"),
    (image_with(frame=[1, bytes(16), 1], sourceId="s"), "images[0].sourceId"),
    (image_with(objectDetections={}), "images[0].objectDetections"),
    (image_with(objectDetections=[3]), "images[0].objectDetections[0]"),
    (image_with(objectDetections=[["a", 1, 2, 3, 4]]), "images[0].objectDetections[0]"),
    (image_with(objectDetections=[["a", 1, 2, 3, 4, 1, 1]]), "images[0].objectDetections[0]"),
    (image_with(objectDetections=[[3, 1, 2, 3, 4, 1]]), "images[0].objectDetections[0].class"),
    (image_with(objectDetections=[["a", "1", 2, 3, 4, 1]]), "images[0].objectDetections[0].x"),
    (image_with(objectDetections=[["a", True, 2, 3, 4, 1]]), "images[0].objectDetections[0].x"),
    (image_with(objectDetections=[["a", math.nan, 2, 3, 4, 1]]), "images[0].objectDetections[0].x"),
    (image_with(objectDetections=[["a", 1e300, 2, 3, 4, 1]]), "images[0].objectDetections[0].x"),
    (image_with(objectDetections=[["a", 1, 2, -3, 4, 1]]), "images[0].objectDetections[0].width"),
    (
        image_with(objectDetections=[["a", 1, 2, 3, 4, 5]]),
        "images[0].objectDetections[0].confidence",
    ),
    (image_with(objectDetections=[["a", 1, 2, 3, 4, 1]] * 1_001), "images[0].objectDetections"),
    (image_with(classifications=[["a"]]), "images[0].classifications[0]"),
    (image_with(classifications=[["a", math.inf]]), "images[0].classifications[0].confidence"),
    (
        image_with(instanceSegmentations=[["a", 1, 2, 3, 4, 1]]),
        "images[0].instanceSegmentations[0]",
    ),
    (
        image_with(instanceSegmentations=[["a", 1, 2, 3, 4, 1, 7]]),
        "images[0].instanceSegmentations[0]",
    ),
    (
        image_with(instanceSegmentations=[["a", 1, 2, 3, 4, 1, [0, 0, 1, 1, 2]]]),
        "images[0].instanceSegmentations[0]",
    ),
    (
        image_with(instanceSegmentations=[["a", 1, 2, 3, 4, 1, [0, 0, 1, 1]]]),
        "images[0].instanceSegmentations[0].points",
    ),
    (
        image_with(instanceSegmentations=[["a", 1, 2, 3, 4, 1, [0, 0, 1, 1, 2, "2"]]]),
        "images[0].instanceSegmentations[0].points[2][1]",
    ),
    (image_with(keypoints=[["a", 1, 2, 3, 4, 1, [0, 1]]]), "images[0].keypoints[0]"),
    (
        image_with(keypoints=[["a", 1, 2, 3, 4, 1, [0.5, 1, 2]]]),
        "images[0].keypoints[0].keypoints[0].id",
    ),
    (
        image_with(keypoints=[["a", 1, 2, 3, 4, 1, [0, None, 2]]]),
        "images[0].keypoints[0].keypoints[0].x",
    ),
]


@pytest.mark.parametrize(("payload", "field"), REFUSED, ids=[f"{i}" for i in range(len(REFUSED))])
def test_bytes_that_are_no_event(payload: bytes, field: str) -> None:
    with pytest.raises(PayloadError) as caught:
        decode(payload, event_id=UUID, timestamp=MOMENT)

    assert caught.value.field == field
    assert len(str(caught.value)) < 300
    assert isinstance(caught.value, EventValidationError)


def test_what_is_not_even_bytes() -> None:
    with pytest.raises(PayloadError, match="payload: must be bytes, not NoneType"):
        decode(None, event_id=UUID, timestamp=MOMENT)  # type: ignore[arg-type]


def test_the_valid_neighbours_of_the_refused_are_read() -> None:
    # So that none of the cases above is refused for another reason than its own.
    decode(packed(), event_id=UUID, timestamp=MOMENT)
    image = {
        "frame": [1, bytes(16), 1],
        "objectDetections": [["a", 1, 2, 3, 4, 1]],
        "classifications": [["a", 1]],
        "instanceSegmentations": [["a", 1, 2, 3, 4, 1, [0, 0, 1, 1, 2, 2]]],
        "keypoints": [["a", 1, 2, 3, 4, 1, [0, 1, 2]]],
    }
    event = decode(image_with(**image), event_id=UUID, timestamp=MOMENT)
    assert event.images[0].instance_segmentations[0].points == ((0, 0), (1, 1), (2, 2))


def test_a_double_in_a_row_is_read_as_it_is() -> None:
    payload = image_with(classifications=[["a", 0.123456789012]])

    event = decode(payload, event_id=UUID, timestamp=MOMENT)

    assert event.images[0].classifications[0].confidence == 0.123456789012


def test_coordinates_are_read_in_their_shortest_form() -> None:
    dice = random.Random(1)
    plain = [dice.uniform(-1, 1) * 10.0 ** dice.randrange(-6, 9) for _ in range(20_000)]
    rounded = [round(value, dice.randrange(7)) for value in plain]
    powers = [math.ldexp(1.0 + ulp * 2.0**-23, two) for two in range(-20, 27) for ulp in (-1, 0, 1)]
    for value in (*plain, *rounded, *powers):
        (number,) = struct.unpack("<f", struct.pack("<f", value))
        forms = (float(f"%.{digits}g" % number) for digits in range(6, 10))
        shortest = next(x for x in forms if struct.unpack("<f", struct.pack("<f", x))[0] == number)
        assert codec._shortest(number) == shortest


@pytest.mark.parametrize(
    ("payload", "found"),
    [
        (encode(Event.custom(value="v", event_id="evt-1")), "evt-1"),
        (encode(Event.custom(value="v", event_id="5f0b7c1e-3f6a-4d52-9a3e-0d8f2b6c41aa")), None),
        (encode(Event.custom(value="v", metadata={"eventId": "no"}, device_id="d")), None),
        (msgpack.packb({"eventData": {"eventId": "no"}, "eventId": "yes"}), "yes"),
        (msgpack.packb({"eventId": 7}), None),
        (b"\xa7eventId", None),
        (b"\x81\xa7eventId", None),
        (b"\x82\xa7eventId\xc1\xc1", None),
        (b"", None),
    ],
)
def test_the_id_is_found_without_decoding_the_rest(payload: bytes, found: str | None) -> None:
    assert codec.payload_id(payload) == found
