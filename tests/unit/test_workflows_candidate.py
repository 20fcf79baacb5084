"""From the inputs of the Workflows block to an event."""

from __future__ import annotations

import base64
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import pytest
import supervision as sv
from pictures import photograph, saved

from vevents import Event, EventValidationError
from vevents.event import Classification
from vevents.workflows.candidate import candidate_of, with_counts, with_sound_time

JPEG = saved(photograph(), "JPEG")
OTHER_JPEG = saved(photograph(), "JPEG", quality=30)
SEEN_AT = datetime(2026, 11, 23, 12, 0, 0, 250_000, tzinfo=UTC)
NOW_NS = 1_795_000_000_123_456_789
KINDS = [
    {"event_type": "safety_alert", "alert_type": "fire", "severity": "high"},
    {"event_type": "safety_alert", "alert_type": "fire", "severity": "medium"},
    {"event_type": "safety_alert", "alert_type": "fire"},
    {"event_type": "safety_alert", "alert_type": "fire", "severity": "low"},
    {"event_type": "operator_feedback", "related_event_id": "e1", "feedback": "correct"},
    {"event_type": "quality_check", "qc_result": "fail"},
    {"event_type": "custom", "custom_value": "door"},
    {"event_type": "inventory_count", "item_count": 3},
    {"event_type": "quality_check", "qc_result": "pass"},
]


class Picture:
    """What is used of the engine's WorkflowImageData."""

    def __init__(self, data=None, seen_at=SEEN_AT, video="video-1"):
        self.encoded = 0
        self._text = base64.b64encode(JPEG if data is None else data).decode()
        self.video_metadata = SimpleNamespace(frame_timestamp=seen_at, video_identifier=video)

    @property
    def base64_image(self):
        self.encoded += 1
        return self._text


def inputs(**changes):
    given = {"event_type": "quality_check", "solution": "uc1", "qc_result": "fail"}
    return given | changes


def boxes(*confidences):
    count = len(confidences)
    return sv.Detections(
        xyxy=np.array([[0, 0, 10, 20]] * count, float).reshape(-1, 4),
        confidence=np.array(confidences, np.float32),
        class_id=np.zeros(count, int),
        data={"class_name": np.array(["burr"] * count)},
    )


def test_all_inputs_of_every_type_arrive_under_their_names():
    by_type = {
        "quality_check": ({"qc_result": "pass"}, {"result": "pass"}),
        "inventory_count": (
            {"location": "dock", "item_count": 4, "item_type": "box"},
            {"location": "dock", "itemCount": 4, "itemType": "box"},
        ),
        "safety_alert": (
            {"alert_type": "fire", "severity": "low", "alert_description": "smoke"},
            {"alertType": "fire", "severity": "low", "description": "smoke"},
        ),
        "custom": ({"custom_value": "door"}, {"value": "door"}),
        "operator_feedback": (
            {"related_event_id": "e1", "feedback": "incorrect"},
            {"relatedEventId": "e1", "feedback": "incorrect"},
        ),
    }
    every = {name: value for given, _ in by_type.values() for name, value in given.items()}
    for event_type, (_, data) in by_type.items():
        candidate = candidate_of(
            every
            | {
                "event_type": event_type,
                "solution": "uc1",
                "external_id": "lot-7",
                "device_id": "press",
                "stream_id": "top",
                "custom_metadata": {"shift": np.int64(2), "rework": np.bool_(True), "no": None},
            }
        )

        event = candidate.complete(NOW_NS)

        external = {} if event_type == "operator_feedback" else {"externalId": "lot-7"}
        assert event.event_type == event_type
        assert event.data == data | external
        assert (event.use_case_id, event.device_id, event.stream_id) == ("uc1", "press", "top")
        assert event.metadata == {"shift": 2, "rework": True}
        assert candidate.stream == "top"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"event_type": "door"}, "eventType"),
        ({"event_type": 7}, "eventType"),
        ({"qc_result": None}, "eventData.result"),
        ({"qc_result": "maybe"}, "eventData.result"),
        ({"device_id": "x" * 300}, "deviceId"),
        ({"custom_metadata": {"a": [1]}}, "customMetadata.a"),
        ({"custom_metadata": {f"k{i}": i for i in range(89)}}, "customMetadata"),
        ({"priority": "urgent"}, "priority"),
        ({"priority": float("nan")}, "priority"),
    ],
)
def test_a_wrong_input_is_named(changes, field):
    with pytest.raises(EventValidationError) as caught:
        candidate_of(inputs(**changes))

    assert caught.value.field == field


def test_the_kinds_are_ranked_from_the_alert_to_the_check_that_passed():
    ranked = [candidate_of({"solution": "uc1", **given}).importance for given in KINDS]

    assert ranked == sorted(ranked, reverse=True)
    assert len(set(ranked)) == len(ranked)


def test_a_priority_goes_before_the_kind_and_the_kind_before_the_confidence():
    def importance(**changes):
        return candidate_of(inputs(**changes)).importance

    passed = {"qc_result": "pass"}
    assert importance(**passed, priority=1) > importance() > importance(**passed)
    assert importance(priority=-1) < importance(**passed)
    assert importance(predictions=boxes(0.1)) > importance(**passed, predictions=boxes(0.9))
    assert importance(predictions=boxes(0.2, 0.9)) > importance(predictions=boxes(0.8))
    assert importance(predictions=boxes()) == importance()


@pytest.mark.parametrize(
    "predictions",
    [
        {"predictions": [{"class": "good", "confidence": 0.75}], "top": "good", "confidence": 0.75},
        {"predictions": [{"class": "good", "confidence": 0.75}, {"class": "bad"}]},
        {"predictions": {"good": {"confidence": 0.75}}, "predicted_classes": ["good"]},
    ],
)
def test_classes_count_with_their_confidence(predictions):
    candidate = candidate_of(inputs(predictions=predictions))

    assert candidate.importance[2] == 0.75
    [image] = candidate.complete(NOW_NS).images
    assert image.classifications[0] == Classification("good", 0.75)


def test_images_predictions_and_the_frames_time_are_added_when_the_event_is_kept():
    seen, shown = Picture(JPEG), Picture(OTHER_JPEG)
    candidate = candidate_of(inputs(input_image=seen, output_image=shown, predictions=boxes(0.5)))
    assert seen.encoded == shown.encoded == 0

    event = candidate.complete(NOW_NS)

    [image] = event.images
    assert (image.frame, image.input_frame, image.label) == (OTHER_JPEG, JPEG, "workflow")
    assert [box.class_name for box in image.object_detections] == ["burr"]
    assert event.display_image_position == 0
    assert event.timestamp == SEEN_AT
    assert candidate.stream == "video-1"


def test_one_picture_for_both_inputs_is_encoded_once():
    picture = Picture()

    [image] = (
        candidate_of(inputs(input_image=picture, output_image=picture)).complete(NOW_NS).images
    )

    assert image.frame == image.input_frame == JPEG
    assert picture.encoded == 1


def test_a_frame_time_without_offset_is_local_time(monkeypatch):
    monkeypatch.setenv("TZ", "XST-5")
    time.tzset()
    naive = SEEN_AT.replace(tzinfo=None) + timedelta(hours=5)

    try:
        event = candidate_of(inputs(output_image=Picture(seen_at=naive))).complete(NOW_NS)
    finally:
        monkeypatch.undo()
        time.tzset()

    assert event.timestamp == SEEN_AT


def test_predictions_without_a_picture_are_not_dropped():
    event = candidate_of(inputs(predictions=boxes(0.5))).complete(NOW_NS)

    assert len(event.images[0].object_detections) == 1
    assert event.display_image_position is None
    assert event.timestamp == datetime(2026, 11, 18, 11, 6, 40, 123_456, tzinfo=UTC)


def test_no_picture_and_nothing_found_is_an_event_without_images():
    assert candidate_of(inputs(predictions=boxes())).complete(NOW_NS).images == ()


@pytest.mark.parametrize("text", ["bm8gcGljdHVyZQ==", "data:image/png;base64,bm8="])
def test_what_is_no_picture_is_named(text):
    picture = Picture()
    picture._text = text

    with pytest.raises(EventValidationError, match="input_image"):
        candidate_of(inputs(input_image=picture)).complete(NOW_NS)


def test_the_counts_stand_in_the_metadata():
    event = Event.custom(value="x", metadata={"line": 3})

    assert with_counts(event, {}) is event
    assert with_counts(event, {"quality_check_pass": 4, "custom": 1}).metadata == {
        "line": 3,
        "vevents_suppressed": 5,
        "vevents_suppressed_custom": 1,
        "vevents_suppressed_quality_check_pass": 4,
    }


def ns(moment):
    return int(moment.timestamp()) * 10**9 + moment.microsecond * 1000


def test_the_frames_time_is_the_events_time_where_the_clock_is_sound():
    event = Event.custom(value="x", timestamp=SEEN_AT)
    later = ns(SEEN_AT + timedelta(seconds=30))

    assert with_sound_time(event, later, clock_is_sound=True) is event


def test_a_clock_that_nobody_vouches_for_leaves_the_time_to_the_log_which_can_be_repaired():
    event = Event.custom(value="x", timestamp=SEEN_AT)

    told = with_sound_time(event, ns(SEEN_AT + timedelta(seconds=30)), clock_is_sound=False)
    assert (told.timestamp, told.metadata) == (None, {"vevents_frame_age_s": 30.0})

    fresh = with_sound_time(event, ns(SEEN_AT + timedelta(milliseconds=1)), clock_is_sound=False)
    assert (fresh.timestamp, fresh.metadata) == (None, None)

    # Neither the future nor a recording has its time from this machine's clock.
    for shift in (timedelta(seconds=-1), timedelta(hours=2)):
        given = with_sound_time(event, ns(SEEN_AT + shift), clock_is_sound=False)
        assert given is event


def test_a_frame_from_before_the_clock_was_set_gets_the_logs_time():
    event = Event.custom(value="x", timestamp=datetime(1970, 1, 1, 0, 5, tzinfo=UTC))

    told = with_sound_time(event, ns(SEEN_AT), clock_is_sound=True)

    assert told.timestamp is None
    assert told.metadata == {"vevents_frame_timestamp": "1970-01-01T00:05:00+00:00"}
