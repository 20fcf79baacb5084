"""Bodies of the event store: what is taken, what is refused and under which name, what is shown."""

from __future__ import annotations

import base64
import json
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vevents import codec
from vevents.errors import EventTooLargeError, EventValidationError
from vevents.event import Event, FrameRef, Image, ObjectDetection
from vevents.store.bodies import BodyError, describe, make_id, parse, refusal, to_event

JPEG = b"\xff\xd8\xff\xe0" + b"pixels"
BOX = {"class": "burr", "x": 10.5, "y": 20, "width": 3, "height": 4.5, "confidence": 0.75}
SALT = bytes(32)


def body(**fields: Any) -> dict[str, Any]:
    """Return a small body; None takes a field out."""
    whole = {
        "inference_timestamp": "2026-11-23T12:00:00.123456+00:00",
        "event_schema": "quality_check",
        "event_data": {"result": "fail"},
    } | fields
    return {key: value for key, value in whole.items() if value is not None}


def b64(data: bytes = JPEG) -> str:
    return base64.b64encode(data).decode()


def detail_of(fields: dict[str, Any]) -> str:
    with pytest.raises(BodyError) as refused:
        to_event(body(**fields))
    assert refused.value.status_code == 422
    return refused.value.detail


# --- parse ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "status", "part"),
    [
        (b"", 400, "not valid JSON"),
        (b"{", 400, "not valid JSON"),
        (b"\xff{}", 400, "not UTF-8"),
        ("{}".encode("utf-16"), 400, "not UTF-8"),
        (b"[" * 100_000 + b"]" * 100_000, 400, "nested too deeply"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 400, "nested too deeply"),
        (b'{"a": ' + b"9" * 5_000 + b"}", 400, "not valid JSON"),
        (b"[]", 422, "must be a JSON object"),
        (b"null", 422, "must be a JSON object"),
        (b"[" + b"[]," * 250_000 + b"0]", 413, "too many values"),
        (b"[" + b"0," * 1_000_001 + b"0]", 413, "too many values"),
    ],
)
def test_what_is_no_body(raw: bytes, status: int, part: str) -> None:
    with pytest.raises(BodyError) as refused:
        parse(raw)

    assert refused.value.status_code == status
    assert part in refused.value.detail
    assert len(refused.value.detail) < 200


def test_a_picture_is_no_bomb() -> None:
    raw = json.dumps(body(images=[{"base64Image": b64(bytes(range(256)) * 4_000)}])).encode()

    assert parse(raw)["images"][0]["base64Image"]


# --- to_event -------------------------------------------------------------------------------


def test_everything_has_its_place() -> None:
    event = to_event(
        body(
            solution="uc-1",
            device_id="press-03",
            stream_id="cam-1",
            workflow_id="wf",
            workflow_version="7",
            image_id="img-1",
            displayImagePosition=0,
            draft=False,
            custom_metadata={"line": "3", "count": 2, "hot": True},
            images=[
                {
                    "base64Image": b64(JPEG),
                    "inputBase64Image": b64(JPEG + b"in"),
                    "label": "workflow",
                    "objectDetections": [BOX],
                    "classifications": [{"class": "bad", "confidence": 1}],
                    "instanceSegmentations": [BOX | {"points": [[0, 0], [1, 0], [1, 1]]}],
                    "keypoints": [BOX | {"keypoints": [{"id": 3, "x": 1, "y": 2}]}, BOX],
                }
            ],
        ),
        "evt-1",
    )

    assert event.event_type == "quality_check"
    assert event.event_id == "evt-1"
    assert event.data == {"result": "fail"}
    assert event.timestamp == datetime(2026, 11, 23, 12, 0, 0, 123456, UTC)
    ids = (event.use_case_id, event.device_id, event.stream_id, event.workflow_id)
    assert ids == ("uc-1", "press-03", "cam-1", "wf")
    assert event.metadata == {
        "line": "3",
        "count": 2,
        "hot": True,
        "workflow_version": "7",
        "image_id": "img-1",
    }
    assert event.display_image_position == 0
    [image] = event.images
    assert (image.frame, image.input_frame, image.label) == (JPEG, JPEG + b"in", "workflow")
    assert image.object_detections == (ObjectDetection("burr", 10.5, 20, 3, 4.5, 0.75),)
    assert image.classifications[0].class_name == "bad"
    assert image.instance_segmentations[0].points == ((0, 0), (1, 0), (1, 1))
    assert [len(skeleton.keypoints) for skeleton in image.keypoints] == [1, 0]


def test_optional_fields_may_be_null_or_absent() -> None:
    keys = ["solution", "workflow_id", "workflow_version", "device_id", "stream_id", "image_id"]
    keys += ["displayImagePosition", "draft", "custom_metadata", "images"]

    event = to_event(body() | dict.fromkeys(keys))

    assert event == to_event(body())
    assert event == Event.quality_check(result="fail", timestamp=event.timestamp)


def test_null_within_data_metadata_and_images_is_absent() -> None:
    event = to_event(
        body(
            event_data={"result": "pass", "externalId": None},
            custom_metadata={"line": None, "a": 1},
            images=[{"base64Image": None, "label": None, "objectDetections": None}],
        )
    )

    assert event.data == {"result": "pass"}
    assert event.metadata == {"a": 1}
    assert event.images == (Image(),)


def test_unknown_fields_are_passed_over_except_where_the_contract_forbids_them() -> None:
    point = {"id": 1, "x": 2, "y": 3, "confidence": 0.5}
    image = {
        "objectDetections": [BOX | {"class_id": 3, "tracker_id": 9}],
        "keypoints": [BOX | {"keypoints": [point]}],
        "exif": {},
    }

    event = to_event(body(future_field={"a": [1]}, images=[image]))

    assert event.images[0].object_detections[0].class_name == "burr"
    assert event.images[0].keypoints[0].keypoints[0].id == 1
    assert "event_data.reason: is no key" in detail_of(
        {"event_data": {"result": "fail", "reason": "x"}}
    )


def test_the_two_official_producers() -> None:
    writer = body(images=[{"base64Image": b64(), "label": "x"}], custom_metadata={})
    block = body(images=[], solution="uc", displayImagePosition=0)

    assert to_event(writer).metadata is None
    assert to_event(block).display_image_position is None


@pytest.mark.parametrize("key", ["solution", "device_id", "stream_id", "workflow_id"])
def test_an_empty_id_is_none(key: str) -> None:
    assert to_event(body(**{key: ""})) == to_event(body())


def test_a_clock_that_was_never_set_leaves_the_time_to_the_log() -> None:
    event = to_event(body(inference_timestamp="1970-01-01T00:03:00Z"))

    assert event.timestamp is None
    assert event.metadata == {"vevents_inference_timestamp": "1970-01-01T00:03:00Z"}


def test_a_crowd_costs_the_event_neither_its_images_nor_itself() -> None:
    boxes = [BOX | {"class": str(number)} for number in range(1_003)]

    event = to_event(body(images=[{"base64Image": b64(), "objectDetections": boxes}]))

    assert [box.class_name for box in event.images[0].object_detections] == [
        str(number) for number in range(1_000)
    ]
    assert event.images[0].frame == JPEG
    assert event.metadata == {"vevents_annotations_dropped": 3}


def test_full_metadata_of_the_client_goes_before_ours() -> None:
    full = {f"k{number}": number for number in range(100)}

    assert to_event(body(custom_metadata=full, image_id="i")).metadata == full
    assert to_event(body(custom_metadata={"image_id": 7}, image_id="i")).metadata == {"image_id": 7}


@pytest.mark.parametrize(
    ("fields", "start"),
    [
        ({"inference_timestamp": None}, "inference_timestamp: is missing"),
        ({"event_schema": None}, "event_schema: is missing"),
        ({"event_data": None}, "event_data: is missing"),
        ({"inference_timestamp": 5}, "inference_timestamp: must be ISO 8601"),
        ({"inference_timestamp": "2026-11-23 12:00"}, "inference_timestamp: must be ISO 8601"),
        ({"inference_timestamp": "2026-13-23T12:00:00Z"}, "inference_timestamp: names no moment"),
        ({"event_schema": "alert"}, "event_schema: must be one of"),
        ({"event_schema": []}, "event_schema: must be one of"),
        ({"event_data": []}, "event_data: must be a mapping"),
        ({"event_data": {"result": "maybe"}}, "event_data.result: must be one of pass, fail"),
        ({"event_data": {}}, "event_data.result: is missing; quality_check needs it"),
        ({"solution": 3}, "solution: must be a string"),
        ({"solution": "u" * 257}, "solution: must have at most 256"),
        ({"device_id": "u" * 257}, "device_id: must have at most 256"),
        ({"stream_id": "u" * 257}, "stream_id: must have at most 256"),
        ({"workflow_id": "u" * 257}, "workflow_id: must have at most 256"),
        ({"workflow_version": "u" * 65}, "workflow_version: must have at most 64"),
        ({"workflow_version": 1.2}, "workflow_version: must be a string"),
        ({"image_id": "u" * 1_001}, "image_id: must have at most 1,000"),
        ({"draft": True}, "draft: is not supported"),
        ({"draft": "no"}, "draft: is not supported"),
        ({"displayImagePosition": 1, "images": [{}]}, "displayImagePosition: must be an index"),
        ({"displayImagePosition": -1, "images": [{}]}, "displayImagePosition: must be an index"),
        ({"displayImagePosition": "0", "images": [{}]}, "displayImagePosition: must be an integer"),
        ({"custom_metadata": []}, "custom_metadata: must be a mapping"),
        ({"custom_metadata": {"a": [1]}}, "custom_metadata.a: must be a string, number"),
        ({"custom_metadata": {"a": float("nan")}}, "custom_metadata.a: must be finite"),
        ({"custom_metadata": {"é": 1}}, "custom_metadata['é']: key must have"),
        ({"custom_metadata": {str(n): n for n in range(101)}}, "custom_metadata: must have at"),
        ({"images": {}}, "images: must be a JSON"),
        ({"images": ["x"]}, "images[0]: must be a JSON object"),
        ({"images": [{"label": 3}]}, "images[0].label: must be a string"),
        ({"images": [{}, {"base64Image": 3}]}, "images[1].base64Image: must be a string"),
        ({"images": [{"base64Image": "%%%%"}]}, "images[0].base64Image: is not base64"),
        ({"images": [{"base64Image": "/9j/4"}]}, "images[0].base64Image: is not base64"),
        ({"images": [{"inputBase64Image": "ä"}]}, "images[0].inputBase64Image: is not base64"),
        ({"images": [{"base64Image": "data:image/jpeg;base64,/9j/"}]}, "images[0].base64Image: mu"),
        (
            {"images": [{"objectDetections": {}}]},
            "images[0].objectDetections: must be a JSON array",
        ),
        ({"images": [{"objectDetections": [3]}]}, "images[0].objectDetections[0]: must be a JSON"),
        (
            {"images": [{"objectDetections": [BOX, BOX | {"x": float("nan")}]}]},
            "images[0].objectDetections[1].x: must be a finite float32",
        ),
        (
            {"images": [{"objectDetections": [BOX | {"confidence": 1.5}]}]},
            "images[0].objectDetections[0].confidence: must be 0 to 1",
        ),
        (
            {"images": [{"objectDetections": [BOX | {"class": None}]}]},
            "images[0].objectDetections[0].class: is missing",
        ),
        (
            {"images": [{"instanceSegmentations": [BOX | {"points": [[0, 0], [1, 1]]}]}]},
            "images[0].instanceSegmentations[0].points: must have at least 3",
        ),
        (
            {"images": [{"keypoints": [BOX | {"keypoints": [{"id": "a", "x": 1, "y": 1}]}]}]},
            "images[0].keypoints[0].keypoints[0].id: must be an integer",
        ),
    ],
)
def test_what_breaks_the_contract_is_named_as_the_client_wrote_it(
    fields: dict[str, Any], start: str
) -> None:
    whole = body() | fields
    for key in [key for key, value in fields.items() if value is None]:
        del whole[key]

    with pytest.raises(BodyError) as refused:
        to_event(whole)

    assert refused.value.status_code == 422
    assert refused.value.detail.startswith(start)


def test_no_picture_is_quoted() -> None:
    detail = detail_of({"images": [{"base64Image": "QUJD" * 50 + "%"}]})

    assert "QUJD" not in detail


@pytest.mark.parametrize(
    ("field", "shown"),
    [
        ("images[2].frame", "images[2].base64Image"),
        ("images[0].inputFrame", "images[0].inputBase64Image"),
        ("eventData.externalId", "event_data.externalId"),
        ("customMetadata['a b']", "custom_metadata['a b']"),
        ("event", "event"),
    ],
)
def test_errors_of_the_log_get_the_clients_names(field: str, shown: str) -> None:
    plain = refusal(EventValidationError(field, "is wrong"))
    large = refusal(EventTooLargeError(field, "is large"))

    assert (plain.status_code, plain.detail) == (422, f"{shown}: is wrong")
    assert (large.status_code, large.detail) == (413, f"{shown}: is large")


# --- make_id --------------------------------------------------------------------------------


def test_the_same_body_has_the_same_id_in_the_same_log() -> None:
    one = body(images=[{"base64Image": b64()}])
    turned = dict(reversed(one.items()))

    assert make_id(one, SALT) == make_id(turned, SALT)
    assert make_id(one, SALT) != make_id(one, b"another log's salt")
    assert uuid.UUID(make_id(one, SALT)).version == 4
    assert codec.header_id(make_id(one, SALT)) is not None


@pytest.mark.parametrize(
    "change",
    [
        {"inference_timestamp": "2026-11-23T12:00:00.123457+00:00"},
        {"inference_timestamp": "2026-11-23T12:00:10.123456+00:00"},
        {"event_data": {"result": "pass"}},
        {"stream_id": "cam-2"},
        {"images": [{"base64Image": b64(JPEG + b"!")}]},
        {"unknown": 1},
        {"unknown": "\ud800"},
    ],
)
def test_any_difference_makes_another_id(change: dict[str, Any]) -> None:
    assert make_id(body(), SALT) != make_id(body(**change), SALT)


# --- describe -------------------------------------------------------------------------------


def test_a_stored_event_is_shown_in_snake_case() -> None:
    event = to_event(
        body(
            solution="uc-1",
            event_data={"result": "fail", "externalId": "lot-7"},
            custom_metadata={"camelKey": 1},
            images=[{"label": "workflow", "objectDetections": [BOX]}, {}],
        ),
        "5f0b7c1e-3f6a-4d52-9a3e-0d8f2b6c41aa",
    )
    image = Image(FrameRef(3, bytes(16), 100), label="x")

    shown = describe(
        Event(
            event.event_type,
            event.use_case_id,
            event.data,
            images=(*event.images, image),
            metadata=event.metadata,
            event_id=event.event_id,
            timestamp=event.timestamp,
        ),
        seq=7,
        state="pending",
    )

    assert shown == {
        "id": "5f0b7c1e-3f6a-4d52-9a3e-0d8f2b6c41aa",
        "seq": 7,
        "state": "pending",
        "inference_timestamp": "2026-11-23T12:00:00.123456+00:00",
        "event_schema": "quality_check",
        "event_data": {"result": "fail", "external_id": "lot-7"},
        "solution": "uc-1",
        "workflow_id": None,
        "device_id": None,
        "stream_id": None,
        "custom_metadata": {"camelKey": 1},
        "display_image_position": None,
        "images": [
            {"label": "workflow", "object_detections": [BOX]},
            {},
            {"image": {"seq": 3, "size": 100}, "label": "x"},
        ],
    }


# --- any body -------------------------------------------------------------------------------

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=12,
)
_FIELDS = st.sampled_from(
    [
        "inference_timestamp",
        "event_schema",
        "event_data",
        "solution",
        "workflow_version",
        "image_id",
        "device_id",
        "draft",
        "displayImagePosition",
        "custom_metadata",
        "images",
    ]
)
_IMAGE = st.dictionaries(
    st.sampled_from(
        ["base64Image", "inputBase64Image", "label", "objectDetections", "keypoints", "points"]
    ),
    _JSON,
)


@settings(max_examples=150)
@given(st.dictionaries(_FIELDS, _JSON), st.lists(_IMAGE, max_size=2))
def test_any_body_becomes_an_event_or_is_refused(
    fields: dict[str, Any], images: list[dict[str, Any]]
) -> None:
    whole = body() | ({"images": images} if images else {}) | fields
    parsed = parse(json.dumps(whole).encode())
    make_id(parsed, SALT)
    try:
        event = to_event(parsed, "evt-1")
    except BodyError as refused:
        assert refused.status_code == 422
        refused.detail.encode()
    else:
        event.validate()
