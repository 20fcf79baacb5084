"""The sink with the interface of supervision's own."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from pictures import TURNED_JPEG as JPEG

from vevents import Event, EventLog, EventValidationError
from vevents.adapters import VisionEventSink

sv = pytest.importorskip("supervision")

FAILED = Event.quality_check(result="fail", device_id="press-03", metadata={"shift": "night"})


def found(**fields):
    values = {
        "xyxy": np.array([[10, 20, 30, 60], [0, 0, 5, 5]], np.float32),
        "confidence": np.array([0.75, 0.5], np.float32),
        "class_id": np.array([1, 0]),
    }
    return sv.Detections(**(values | fields))


@pytest.fixture
def log(tmp_path):
    with EventLog(tmp_path / "log", events_size=1 << 20, media_size=1 << 20) as log:
        yield log
        assert all(log.stats(stream).conserved for stream in ("events", "media"))


def events(log):
    return [log.decode(record) for record in log.read()]


def count_calls(monkeypatch):
    """Return a list that grows by one with each event on the fast way."""
    from vevents.adapters import sink

    calls = []
    original = sink.DetectionWriter.append
    monkeypatch.setattr(
        sink.DetectionWriter,
        "append",
        lambda self, *args, **kw: (calls.append(1), original(self, *args, **kw))[1],
    )
    return calls


def test_it_is_used_as_supervisions_own_sinks_are(tmp_path):
    with VisionEventSink(tmp_path / "log", FAILED) as sink:
        sink.append(found(), custom_data={"frame": np.int64(7), "night": np.True_, "x": None})
        sink.append(found())

    with EventLog(tmp_path / "log", read_only=True) as log:
        first, second = events(log)
        assert log.stats().conserved
    assert first.metadata == {"shift": "night", "frame": 7, "night": True}
    assert second.metadata == {"shift": "night"}
    assert first.device_id == "press-03"
    assert [each.class_name for each in first.images[0].object_detections] == ["1", "0"]


def test_both_ways_write_the_same_event(log, monkeypatch):
    calls = count_calls(monkeypatch)
    sink = VisionEventSink(log, FAILED, class_names=["bolt", "nut"], label="top")

    sink.append(found())
    assert calls == [1]
    sink.append(found(), timestamp=datetime(2026, 10, 1, tzinfo=UTC))
    assert calls == [1]

    fast, slow = events(log)
    assert fast.images == slow.images
    assert fast.images[0].label == "top"
    assert (fast.event_type, fast.data, fast.metadata) == (
        slow.event_type,
        slow.data,
        slow.metadata,
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"confidence": np.array([1.0000001, 0.5], np.float32)},
        {"class_id": np.array([9, 0])},
        {"confidence": None},
        {"class_id": None},
        {"mask": np.ones((2, 5, 5), bool)},
        {"data": {"xyxyxyxy": np.ones((2, 4, 2))}},
    ],
)
def test_what_the_fast_way_does_not_take_goes_the_other(log, fields):
    sink = VisionEventSink(log, FAILED, class_names=["bolt", "nut"])

    sink.append(found(**fields))

    (event,) = events(log)
    image = event.images[0]
    assert len(image.object_detections) + len(image.instance_segmentations) == 2
    assert bool(image.instance_segmentations) == bool({"mask", "data"} & fields.keys())


def test_empty_detections_are_an_event_of_their_own_on_both_ways(log):
    VisionEventSink(log, FAILED, class_names=["bolt"]).append(sv.Detections.empty())
    VisionEventSink(log, FAILED).append(sv.Detections.empty())

    assert all(not each.images[0].object_detections for each in events(log))


def test_more_than_a_thousand_are_cut_and_said_on_the_way_that_is_fast_for_fewer(log):
    many = sv.Detections(
        np.tile([0.0, 0, 2, 2], (1100, 1)),
        confidence=np.linspace(0, 1, 1100),
        class_id=np.zeros(1100, int),
    )

    VisionEventSink(log, FAILED, class_names=["bolt"]).append(many)

    (event,) = events(log)
    assert event.metadata["vevents_annotations_left_out"] == 100
    assert len(event.images[0].object_detections) == 1000


def test_frames_are_bgr_unless_said_otherwise(log):
    cv2 = pytest.importorskip("cv2")
    blue = np.zeros((16, 16, 3), np.uint8)
    blue[..., 0] = 250

    VisionEventSink(log, FAILED).append(found(), frame=blue)
    VisionEventSink(log, FAILED, bgr=False).append(found(), frame=blue)
    VisionEventSink(log, FAILED).append(found(), frame=JPEG)

    pictures = [log.frame(each.images[0].frame) for each in events(log)]
    assert pictures[2] == JPEG
    first, second = (cv2.imdecode(np.frombuffer(p, np.uint8), 1)[8, 8] for p in pictures[:2])
    assert first.argmax() == 0
    assert second.argmax() == 2


def test_a_function_decides_what_is_an_event(log):
    def decide(image):
        nuts = [each for each in image.object_detections if each.class_name == "nut"]
        return Event.inventory_count(item_count=len(nuts), item_type="nut") if nuts else None

    sink = VisionEventSink(log, decide, class_names=["bolt", "nut"])

    assert sink.append(found()) == 1
    assert sink.append(found(class_id=np.array([0, 0]))) is None
    (event,) = events(log)
    assert event.data == {"itemCount": 1, "itemType": "nut"}


@pytest.mark.parametrize(
    ("custom_data", "field"),
    [
        ({"ids": [1, 2]}, "customMetadata.ids"),
        ({"box": np.zeros(2)}, "customMetadata.box"),
        ({"späte": 1}, "customMetadata['späte']"),
        ({f"k{i}": i for i in range(100)}, "customMetadata"),
    ],
)
def test_data_that_an_event_cannot_hold_is_refused_and_nothing_is_written(log, custom_data, field):
    with pytest.raises(EventValidationError) as caught:
        VisionEventSink(log, FAILED).append(found(), custom_data)

    assert caught.value.field == field
    assert log.stats().appended == 0


@pytest.mark.parametrize(
    "fields",
    [{"event_id": "x"}, {"timestamp": datetime.now(UTC)}, {"device_id": ""}],
)
def test_what_cannot_be_common_to_all_events_is_refused_at_once(log, fields):
    with pytest.raises(EventValidationError):
        VisionEventSink(log, Event.custom(value="x", **fields))


def test_a_sink_that_is_not_open_says_so_and_can_be_opened_again(tmp_path):
    sink = VisionEventSink(tmp_path / "log", FAILED)
    with pytest.raises(EventValidationError, match="is not open"):
        sink.append(found())
    for _ in range(2):
        with sink:
            sink.open()
            sink.append(found())
        sink.close()
    with EventLog(tmp_path / "log", read_only=True) as log:
        assert log.stats().appended == log.stats().pending == 2


def test_a_log_that_was_given_open_stays_open(log):
    with VisionEventSink(log, FAILED) as sink:
        sink.append(found())
    log.append(FAILED)

    assert log.stats().pending == 2
