"""The callback for `InferencePipeline`, given what a pipeline gives."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest

from vevents import Event, EventLog
from vevents.adapters import PipelineSink, VisionEventSink
from vevents.errors import EventValidationError

BOX = {"x": 5, "y": 6, "width": 2, "height": 4, "confidence": 0.9, "class": "nut", "class_id": 1}
ANSWER = {"predictions": [BOX], "image": {"width": 16, "height": 16}}
NOTHING = {"predictions": [], "image": {"width": 16, "height": 16}}


@dataclass(frozen=True)
class VideoFrame:
    """Of the attributes that the package's own class has."""

    image: Any
    frame_id: int
    frame_timestamp: datetime
    source_id: int | None = None
    fps: float | None = None
    comes_from_video_file: bool | None = None


def frame(number=1, source_id: int | None = 0, **fields):
    taken = datetime(2026, 10, 1, 6, 0, number % 60, tzinfo=UTC)
    values = {"image": np.zeros((16, 16, 3), np.uint8), "frame_timestamp": taken} | fields
    return VideoFrame(frame_id=number, source_id=source_id, **values)


class Clock:
    now_s = 100.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def log(tmp_path):
    with EventLog(tmp_path / "log", events_size=1 << 20, media_size=1 << 20) as log:
        yield log
        assert all(log.stats(stream).conserved for stream in ("events", "media"))


def events(log):
    return [log.decode(record) for record in log.read()]


def pipeline(log, event=None, **options):
    sink = VisionEventSink(log, event or Event.custom(value="seen"))
    return PipelineSink(sink, **({"every_s": 0} | options))


def test_an_event_has_frame_time_and_stream(log):
    pytest.importorskip("cv2")
    on_prediction = pipeline(log, streams={1: "press-03"})

    on_prediction(ANSWER, frame(7, source_id=1))
    on_prediction(ANSWER, frame(8, source_id=2))
    on_prediction(ANSWER, frame(9, source_id=None))

    first, second, third = events(log)
    assert first.timestamp == datetime(2026, 10, 1, 6, 0, 7, tzinfo=UTC)
    assert [each.stream_id for each in (first, second, third)] == ["press-03", "2", None]
    assert log.frame(first.images[0].frame).startswith(b"\xff\xd8\xff")
    assert first.images[0].object_detections[0].class_name == "nut"
    assert (on_prediction.appended, on_prediction.errors) == (3, 0)


def test_a_frame_time_without_an_offset_is_the_devices_local_time(log, monkeypatch):
    import time

    monkeypatch.setenv("TZ", "Etc/GMT-2")
    time.tzset()
    try:
        taken = datetime(2026, 10, 1, 8, 0)
        pipeline(log, frames=False)(ANSWER, frame(frame_timestamp=taken))
    finally:
        monkeypatch.undo()
        time.tzset()

    (event,) = events(log)
    assert event.timestamp == datetime(2026, 10, 1, 8, 0, tzinfo=timezone(timedelta(hours=2)))


def test_where_nobody_vouches_for_the_clock_the_log_gives_the_time(log, monkeypatch):
    unsure = EventLog.now()._replace(synced=False)
    monkeypatch.setattr(EventLog, "now", staticmethod(lambda: unsure))

    pipeline(log, frames=False)(ANSWER, frame())

    (record,) = log.read()
    assert not record.time_given


def test_several_sources_come_as_lists_with_gaps(log):
    on_prediction = pipeline(log, frames=False)

    on_prediction([ANSWER, None, ANSWER], [frame(1, 0), None, frame(1, 2)])

    assert [each.stream_id for each in events(log)] == ["0", "2"]
    assert on_prediction.errors == 0


def test_frames_without_anything_make_no_event_unless_asked_for(log):
    on_prediction = pipeline(log, frames=False)
    on_prediction(NOTHING, frame())
    assert (log.stats().appended, on_prediction.skipped) == (0, 0)

    pipeline(log, frames=False, empty=True)(NOTHING, frame())
    assert log.stats().appended == 1


@pytest.mark.parametrize("empty", [False, True])
def test_each_source_has_an_event_a_second_at_most_and_the_rest_is_counted(log, empty):
    clock = Clock()
    on_prediction = pipeline(log, frames=False, every_s=1.0, clock=clock, empty=empty)

    for tenth in range(25):
        clock.now_s = 100 + tenth / 10
        on_prediction(ANSWER, frame(tenth, 0))
    on_prediction(ANSWER, frame(25, 1))

    assert [each.stream_id for each in events(log)] == ["0", "0", "0", "1"]
    assert (on_prediction.appended, on_prediction.skipped) == (4, 22)


def test_a_frame_that_made_no_event_does_not_use_up_the_second(log):
    clock = Clock()
    decided = iter([None, Event.custom(value="now")])
    on_prediction = pipeline(log, lambda _: next(decided), frames=False, every_s=1.0, clock=clock)

    on_prediction(ANSWER, frame(1))
    on_prediction(ANSWER, frame(2))

    assert (on_prediction.appended, on_prediction.skipped) == (1, 0)


def test_errors_are_counted_logged_once_and_stop_nothing(log, caplog):
    on_prediction = pipeline(log)

    with caplog.at_level(logging.WARNING, "vevents"):
        on_prediction({"message": "no"}, frame())
        on_prediction(ANSWER, frame(image=np.zeros((4, 4), np.float32)))
        on_prediction(ANSWER, object())
        on_prediction([ANSWER], [])
        on_prediction(None, [frame()])
    assert on_prediction.errors == 5
    (said,) = caplog.messages
    assert "predictions: is missing" in said

    on_prediction(ANSWER, frame())
    assert on_prediction.appended == log.stats().appended == 1


def test_one_broken_frame_of_several_costs_the_others_nothing(log):
    on_prediction = pipeline(log, frames=False)

    on_prediction([ANSWER, {"no": 1}, ANSWER], [frame(1, 0), frame(1, 1), frame(1, 2)])

    assert [each.stream_id for each in events(log)] == ["0", "2"]
    assert on_prediction.errors == 1


def test_a_closed_log_stops_no_pipeline(tmp_path):
    sink = VisionEventSink(tmp_path / "log", Event.custom(value="x"))
    on_prediction = PipelineSink(sink)
    with sink:
        pass

    on_prediction(ANSWER, frame())

    assert on_prediction.errors == 1


def test_errors_come_out_if_asked_for(log):
    with pytest.raises(EventValidationError, match="predictions"):
        pipeline(log, raise_errors=True)({}, frame())


def test_the_outputs_of_a_workflow(log):
    sv = pytest.importorskip("supervision")
    found = sv.Detections(
        np.array([[0, 0, 4, 4.0]]),
        confidence=np.array([0.5]),
        class_id=np.array([1]),
        data={"class_name": np.array(["nut"])},
    )
    outputs = {"model_predictions": {"predictions": found}, "count": 1}

    pipeline(log, frames=False, output="model_predictions")(outputs, frame())
    pipeline(log, frames=False)({"predictions": found}, frame())

    assert [e.images[0].object_detections[0].class_name for e in events(log)] == ["nut", "nut"]
    missing = pipeline(log, frames=False, output="model", raise_errors=True)
    with pytest.raises(EventValidationError, match="there are model_predictions, count"):
        missing(outputs, frame())
