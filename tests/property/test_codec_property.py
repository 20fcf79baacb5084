"""Any valid event survives its encoding; any bytes are an event or a PayloadError.

And the two ways from bytes to JSON, by an `Event` and in C at once, give the same bytes or nothing.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from datetime import UTC, datetime
from typing import Any

import msgpack
from hypothesis import given, settings
from hypothesis import strategies as st

from vevents.codec import PayloadError, decode, encode, header_id
from vevents.errors import EventValidationError
from vevents.event import (
    COORDINATE_MAX,
    Classification,
    Event,
    EventFields,
    FrameRef,
    Image,
    InstanceSegmentation,
    Keypoint,
    KeypointDetection,
    ObjectDetection,
)
from vevents.wire import event_to_json, payload_to_json, required_frames

UUID = "5f0b7c1e-3f6a-4d52-9a3e-0d8f2b6c41aa"
MOMENT = datetime(2026, 10, 1, tzinfo=UTC)

# Strings of everything that UTF-8 can hold: no surrogates.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
ids = texts.filter(bool)
integers = st.integers(-(2**63), 2**64 - 1)
coordinates = st.one_of(
    st.floats(-COORDINATE_MAX, COORDINATE_MAX),
    st.floats(-4000, 4000, width=32),
    st.integers(-(2**40), 2**40),
)
extents = coordinates.map(abs)
confidences = st.one_of(st.floats(0, 1), st.integers(0, 1))
boxes = (texts, coordinates, coordinates, extents, extents, confidences)
frames = st.builds(
    FrameRef,
    st.integers(1, 2**64 - 1),
    st.binary(min_size=16, max_size=16),
    st.integers(1, 20_000_000),
)


def few(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(strategy, max_size=3)


def frame_or_id(frame: str, source_id: str) -> st.SearchStrategy[dict[str, FrameRef | str]]:
    return st.one_of(
        st.just({}), st.fixed_dictionaries({frame: frames}), st.fixed_dictionaries({source_id: ids})
    )


@st.composite
def images(draw: st.DrawFn) -> Image:
    named: dict[str, Any] = draw(frame_or_id("frame", "source_id"))
    named |= draw(frame_or_id("input_frame", "input_source_id"))
    points = st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=6)
    skeleton = few(st.builds(Keypoint, integers, coordinates, coordinates))
    return Image(
        **named,
        label=draw(st.none() | texts),
        object_detections=draw(few(st.builds(ObjectDetection, *boxes))),
        classifications=draw(few(st.builds(Classification, texts, confidences))),
        instance_segmentations=draw(few(st.builds(InstanceSegmentation, *boxes, points))),
        keypoints=draw(few(st.builds(KeypointDetection, *boxes, skeleton))),
    )


@st.composite
def events(draw: st.DrawFn) -> Event:
    shown = draw(few(images()))
    keys = st.text("abcXYZ019_- ", min_size=1, max_size=100)
    values = st.one_of(
        texts, st.booleans(), integers, st.floats(allow_nan=False, allow_infinity=False)
    )
    common: EventFields = {
        "use_case_id": draw(st.none() | ids),
        "device_id": draw(st.none() | ids),
        "stream_id": draw(st.none() | ids),
        "workflow_id": draw(st.none() | ids),
        "event_id": draw(ids | st.uuids().map(str)),
        "timestamp": MOMENT,
        "images": shown,
        "display_image_position": (
            draw(st.none() | st.integers(0, len(shown) - 1)) if shown else None
        ),
        "metadata": draw(st.none() | st.dictionaries(keys, values, max_size=5)),
    }
    external_id = draw(st.none() | texts)
    match draw(st.integers(0, 4)):
        case 0:
            result = draw(st.sampled_from(["pass", "fail"]))
            return Event.quality_check(result=result, external_id=external_id, **common)
        case 1:
            return Event.inventory_count(
                item_count=draw(integers),
                item_type=draw(st.none() | texts),
                location=draw(st.none() | texts),
                external_id=external_id,
                **common,
            )
        case 2:
            return Event.safety_alert(
                alert_type=draw(st.text("abcXYZ019_-", min_size=1)),
                severity=draw(st.sampled_from([None, "low", "medium", "high"])),
                description=draw(st.none() | texts),
                external_id=external_id,
                **common,
            )
        case 3:
            return Event.custom(value=draw(texts), external_id=external_id, **common)
        case _:
            feedback = draw(st.sampled_from(["correct", "incorrect", "inconclusive"]))
            return Event.operator_feedback(related_event_id=draw(ids), feedback=feedback, **common)


def as_stored(value: Any, *, in_row: bool = False) -> Any:
    """Return the same value with the numbers of rows as float32, by another way than the codec."""
    if is_dataclass(value) and not isinstance(value, type):
        inside = in_row or type(value).__name__ not in ("Event", "Image", "FrameRef")
        changes: dict[str, Any] = {
            f.name: as_stored(getattr(value, f.name), in_row=inside)
            for f in fields(value)
            if not (isinstance(value, Keypoint) and f.name == "id")
        }
        return replace(value, **changes)
    if isinstance(value, tuple):
        return tuple(as_stored(item, in_row=in_row) for item in value)
    if in_row and isinstance(value, int | float):
        return struct.unpack("<f", struct.pack("<f", value))[0]
    return value


def decoded(payload: bytes, event: Event) -> Event:
    assert event.event_id is not None
    in_header = header_id(event.event_id) is not None
    return decode(payload, event_id=event.event_id if in_header else UUID, timestamp=MOMENT)


@given(events())
def test_a_valid_event_comes_back(event: Event) -> None:
    event.validate()

    found = decoded(encode(event), event)

    assert as_stored(found) == as_stored(event)
    # What came back is as near to what was written as a float32 can be, and stays what it is.
    assert decoded(encode(found), found) == found


@given(events())
def test_any_msgpack_reader_can_read_a_payload(event: Event) -> None:
    fields_read = msgpack.unpackb(encode(event), strict_map_key=True)

    assert fields_read["eventType"] == event.event_type
    assert fields_read["eventData"] == event.data
    assert fields_read.get("customMetadata") == event.metadata
    assert len(fields_read.get("images", [])) == len(event.images)
    assert ("eventId" in fields_read) == (header_id(event.event_id) is None)


@given(events(), st.sets(st.integers(0, 20)))
def test_what_is_sent_is_json_and_a_valid_event(event: Event, uploaded: set[int]) -> None:
    refs = required_frames(event)
    source_ids = {ref.seq: f"ve-{ref.seq}" for i, ref in enumerate(refs) if i in uploaded}

    found = decoded(encode(event), event)
    obj = event_to_json(found, source_ids=source_ids, use_case_id="default")

    # Strict as the server's parser: no NaN, no lone surrogate.
    text = json.dumps(obj, ensure_ascii=False, allow_nan=False).encode()
    back = Event.from_json(json.loads(text))
    assert (back.event_id, back.event_type, back.data) == (
        event.event_id,
        event.event_type,
        event.data,
    )
    assert len(back.images) <= len(event.images)
    assert [findings(i) for i in back.images if findings(i)] == [
        findings(i) for i in found.images if findings(i)
    ]


def findings(image: Image) -> Sequence[object]:
    return (
        *image.object_detections,
        *image.classifications,
        *image.instance_segmentations,
        *image.keypoints,
    )


def long_way(payload: bytes, use_case_id: str | None) -> bytes | None:
    """Return the JSON that is delivered for a payload without frames, by way of an `Event`."""
    try:
        event = decode(payload, event_id=UUID, timestamp=MOMENT)
        obj = event_to_json(event, source_ids={}, use_case_id=use_case_id)
    except EventValidationError:
        return None
    if required_frames(event):
        return None
    return json.dumps(obj, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def short_way(payload: bytes, use_case_id: str | None) -> tuple[bytes, bool] | None:
    return payload_to_json(
        payload,
        record_id=bytes.fromhex(UUID.replace("-", "")),
        wall_ns=int(MOMENT.timestamp()) * 10**9 + 999,
        use_case_id=use_case_id,
    )


@given(events(), st.none() | ids)
def test_both_ways_to_json_give_the_same(event: Event, use_case_id: str | None) -> None:
    payload = encode(event)

    found = short_way(payload, use_case_id)

    # Nothing that can go the short way is left to the long one.
    expected = long_way(payload, use_case_id)
    assert (None if found is None else found[0]) == expected
    if found is not None:
        assert found[1] == (event.use_case_id is not None)


# Of any size, and in most cases of the size of a coordinate or a confidence.
float32_bits = st.randoms(use_true_random=False).map(
    lambda random: random.choice([random.getrandbits(32), random.randint(0x39000000, 0x497FFFFF)])
)


@settings(max_examples=500)
@given(float32_bits)
def test_a_float32_is_written_with_the_fewest_digits_that_name_it(bits: int) -> None:
    raw = struct.pack("<I", bits)
    value = struct.unpack("<f", raw)[0]
    # What is as large needs to be a coordinate, and NaN is none.
    if not abs(value) <= COORDINATE_MAX:
        return
    row = ["x", value, value, 0, 0, 0]
    payload = msgpack.packb(
        {
            "eventType": "custom",
            "useCaseId": "uc",
            "eventData": {"value": "v"},
            "images": [{"objectDetections": [row]}],
        },
        use_single_float=True,
    )

    found = short_way(payload, None)

    assert found is not None
    number = json.loads(found[0])["images"][0]["objectDetections"][0]["x"]
    assert struct.pack("<f", number) == raw
    digits = min(n for n in range(1, 18) if float(f"{number:.{n - 1}e}") == number)
    # (A power of two beyond 2^86 may get one digit too many; the number is exact all the same.)
    assert digits <= 1 or abs(value) > 2**86 or not reads_as(raw, f"{value:.{digits - 2}e}")


def reads_as(raw: bytes, decimal: str) -> bool:
    try:
        return struct.pack("<f", float(decimal)) == raw
    except OverflowError:
        return False


def is_event_or_refused(payload: bytes) -> None:
    try:
        event = decode(payload, event_id=UUID, timestamp=MOMENT)
    except PayloadError as error:
        str(error).encode()
    else:
        event.validate()
    for use_case_id in (None, "default"):
        found = short_way(payload, use_case_id)
        assert found is None or found[0] == long_way(payload, use_case_id)


@given(st.binary())
def test_bytes_are_an_event_or_refused(payload: bytes) -> None:
    is_event_or_refused(payload)


@given(events(), st.data())
def test_a_damaged_payload_is_an_event_or_refused(event: Event, data: st.DataObject) -> None:
    payload = bytearray(encode(event))
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))

    is_event_or_refused(bytes(payload[: data.draw(st.integers(0, len(payload)))]))
    is_event_or_refused(bytes(payload))


leaves = st.none() | st.booleans() | integers | st.floats() | st.binary(max_size=8) | texts
shapes = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)
names = st.sampled_from(
    (
        "eventData",
        "customMetadata",
        "displayImagePosition",
        "deviceId",
        "eventId",
        "images",
        "frame",
        "inputFrame",
        "label",
        "sourceId",
        "objectDetections",
        "classifications",
        "instanceSegmentations",
        "keypoints",
    )
)


@given(
    st.dictionaries(
        names, shapes | st.lists(st.dictionaries(names, shapes, max_size=3), max_size=2)
    )
)
def test_a_map_of_any_shape_is_an_event_or_refused(fields_written: dict[str, Any]) -> None:
    is_event_or_refused(
        msgpack.packb({"eventType": "custom", "eventData": {"value": "v"}, **fields_written})
    )
