"""The pressure ladder: its steps, its gauge, and what it does to frames and says about it."""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from pictures import TURNED_JPEG, saved, with_alone, without

from vevents import (
    Classification,
    Event,
    EventType,
    FrameRef,
    Image,
    InstanceSegmentation,
    Keypoint,
    KeypointDetection,
    ObjectDetection,
    frames,
)
from vevents.errors import ConfigurationError, EventValidationError
from vevents.pressure import Filling, Gauge, Ladder, Shedder, Step, parse_ladder

WIDTH, HEIGHT = 320, 240


def textured(seed: int = 1) -> Any:
    """Detail everywhere, so that every step finds something to save."""
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


PIXELS = textured()
JPEG = saved(PIXELS, "JPEG", quality=92)
BOX = ObjectDetection("burr", 160, 120, 40, 20, 0.5)


def size_of(data: object) -> tuple[int, int]:
    assert isinstance(data, bytes)
    return PIL.Image.open(io.BytesIO(data)).size


def event(*images: Image, **fields: Any) -> Event:
    return Event.custom(value="x", images=images or [Image(JPEG)], **fields)


def at(action: Any, **values: Any) -> Shedder:
    """A shedder that has climbed a ladder of one step."""
    ladder = Ladder([Step(0.5, action, **values)])
    return Shedder(ladder, Gauge(lambda: Filling(0.6, 60, 1000.0, 100_000)), 85)


def shed(shedder: Shedder, given: Event, stored: bytes = b"") -> Event:
    """Do what the ladder wants, and check the promises that hold for every step."""
    result, action = shedder.shed(given, lambda digest: digest == frames.digest(stored))
    result.validate()
    told = result.metadata or {}
    assert told.get("vevents_frame_step") == action
    assert (action is None) == (result is given)
    return result


def only(result: Event) -> Image:
    [image] = result.images
    return image


# --- The ladder ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("off", ()),
        ("0.95:none", (Step(0.95, "none"),)),
        (
            "0.5:quality=50,0.7:scale=0.5,0.85:crops,0.95:none",
            (
                Step(0.5, "quality", 50),
                Step(0.7, "smaller", scale=0.5),
                Step(0.85, "crops"),
                Step(0.95, "none"),
            ),
        ),
        (
            " 0 : quality = 30 , 1:scale=0.25+quality=60",
            (Step(0, "quality", 30), Step(1, "smaller", 60, 0.25)),
        ),
        ("0.5:crops+quality=20", (Step(0.5, "crops", 20),)),
    ],
)
def test_a_ladder_as_text(text: str, steps: Any) -> None:
    assert parse_ladder(text) == Ladder(steps)


@pytest.mark.parametrize(
    ("text", "exempt"),
    [
        ("0.9:none", {EventType.SAFETY_ALERT}),
        ("0.9:none,exempt=", set()),
        ("exempt=custom + quality_check,0.9:none", {EventType.CUSTOM, EventType.QUALITY_CHECK}),
    ],
)
def test_exempt_types_as_text(text: str, exempt: set[EventType]) -> None:
    assert parse_ladder(text).exempt == exempt


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is no step"),
        ("0.5", "is no step"),
        ("0.5:", "is no step"),
        ("half:none", "is no step"),
        ("0.5:quality", "is no step"),
        ("0.5:quality=high", "is no step"),
        ("0.5:drop", "is no step"),
        ("0.5:none=1", "is no step"),
        ("0.5:none+quality=3", "is no step"),
        ("0.5:crops+scale=0.5", "is no step"),
        ("0.5:none,", "is no step"),
        ("0.5:quality=0", "quality=0; from 1 to 100"),
        ("0.5:scale=1", "scale=1.0; more than 0"),
        ("0.5:scale=nan", "scale=nan"),
        ("1.5:none", "above 1.5; from 0 to 1"),
        ("nan:none", "above nan"),
        ("0.5:crops,0.5:none", "thresholds must rise"),
        ("0.9:crops,0.5:none", "thresholds must rise"),
        ("0.9:none,exempt=alerts", "'alerts' is no event type; there are quality_check"),
    ],
)
def test_a_wrong_ladder_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_ladder(text)

    assert reason in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Step(0.5, "shrink"),  # type: ignore[arg-type]
        lambda: Ladder("0.5:none"),  # type: ignore[arg-type]
        lambda: Ladder([], slack=2),
        lambda: Ladder([], exempt=["alarm"]),  # type: ignore[arg-type]
    ],
)
def test_wrong_values_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ConfigurationError, match="pressure: "):
        make()


def test_a_step_holds_until_the_share_is_well_below_it() -> None:
    ladder = Ladder([Step(0.5, "quality"), Step(0.8, "none")], slack=0.1)
    level, seen = 0, []
    for share in (0.1, 0.49, 0.5, 0.45, 0.41, 0.39, 0.45, 0.9, 0.75, 0.69, 0.85, 0.0):
        level = ladder.level(share, level)
        seen.append(level)

    assert seen == [0, 0, 1, 1, 1, 0, 0, 2, 2, 1, 2, 0]


# --- The gauge -------------------------------------------------------------------------------


class Ring:
    def __init__(self, share: float) -> None:
        self.share = share
        self.measured = 0
        self.now_s = 100.0

    def measure(self) -> Filling:
        self.measured += 1
        return Filling(self.share, round(self.share * 10), 100.0, 1000)

    def gauge(self) -> Gauge:
        return Gauge(self.measure, lambda: self.now_s)


def test_the_gauge_goes_on_from_its_last_figure() -> None:
    ring = Ring(0.25)
    gauge = ring.gauge()
    gauge.refresh()
    gauge.add(100)
    gauge.add(150)

    assert gauge.share() == pytest.approx(0.5)
    gauge.add(100_000)
    assert gauge.share() == 1.0
    ring.share = 0.0
    gauge.refresh()
    assert gauge.share() == 0.0


def test_frames_count_with_their_own_sizes_where_they_are_known() -> None:
    filling = Filling(0.0, 0, 10.0, 10_000)
    gauge = Gauge(lambda: filling)
    gauge.add(5_000)  # delivered before the first look
    gauge.refresh()
    assert gauge.share() == 0.0
    # The ring is full of small delivered frames; five large ones have come, and ten of others.
    for _ in range(5):
        gauge.add(1_000)
    filling = Filling(0.02, 15, 10.0, 10_000)
    gauge.refresh()
    assert gauge.share() == pytest.approx((5 * 1_000 + 10 * 10) / 10_000)
    # Some were delivered: the oldest, whichever they were.
    filling = Filling(0.02, 2, 10.0, 10_000)
    gauge.refresh()
    assert gauge.share() == pytest.approx(2 * 1_000 / 10_000)
    # What fills a ring of large segments badly is not seen in bytes.
    filling = Filling(0.9, 5, 10.0, 10_000)
    gauge.refresh()
    assert gauge.share() == 0.9
    # Empty again: what came before counts no more.
    filling = Filling(0.0, 0, 10.0, 10_000)
    gauge.refresh()
    gauge.add(2_000)
    filling = Filling(0.001, 1, 10.0, 10_000)
    gauge.refresh()
    assert gauge.share() == 0.2


def test_the_gauge_measures_beside_the_caller_and_not_too_often() -> None:
    ring = Ring(0.25)
    gauge = ring.gauge()
    caller, measured_on = threading.get_ident(), []
    may_measure = threading.Event()

    def slow() -> Filling:
        measured_on.append(threading.get_ident())
        assert may_measure.wait(30)
        return ring.measure()

    gauge = Gauge(slow, lambda: ring.now_s)
    gauge.refresh_beside()
    for _ in range(5):
        gauge.refresh_beside()
    assert gauge.share() == 0.0
    may_measure.set()
    gauge.close()
    assert (gauge.share(), ring.measured) == (0.25, 1)
    assert caller not in measured_on

    ring.now_s += 1.9
    gauge.refresh_beside()
    gauge.close()
    assert ring.measured == 1
    ring.now_s += 0.2
    gauge.refresh_beside()
    gauge.close()
    assert ring.measured == 2


def test_a_ring_that_cannot_be_measured_does_not_trouble_the_caller(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails() -> Filling:
        raise OSError(5, "Input/output error")

    gauge = Gauge(fails)
    gauge.refresh_beside()
    gauge.close()
    assert gauge.share() == 0.0
    given = event()
    assert Shedder(Ladder([Step(0.5, "none")]), gauge, 85).shed(given, lambda _: False) == (
        given,
        None,
    )
    assert "Input/output error" in caplog.text


def test_without_another_thread_the_old_figure_has_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fails)
    gauge = Ring(0.9).gauge()
    gauge.refresh_beside()
    gauge.close()
    assert gauge.share() == 0.0


def test_nothing_is_shed_on_an_old_figure() -> None:
    ring = Ring(0.9)
    shedder = Shedder(Ladder([Step(0.5, "none")]), ring.gauge(), 85)
    assert shedder.shed(event(), lambda _: False)[1] == "none"
    # A flush emptied the ring, and then nothing happened for a while.
    ring.share = 0.0
    ring.now_s += 11
    assert shedder.shed(event(), lambda _: False)[1] is None
    shedder.gauge.close()


def test_the_ring_is_measured_again_while_frames_come() -> None:
    ring = Ring(0.1)
    shedder = Shedder(Ladder([Step(0.5, "none")]), ring.gauge(), 85)
    assert shedder.shed(event(), lambda _: False)[1] is None
    # Another process fills the ring.
    ring.share = 0.9
    ring.now_s += 3
    assert shedder.shed(event(), lambda _: False)[1] is None
    shedder.gauge.close()
    assert shedder.shed(event(), lambda _: False)[1] == "none"


# --- What the steps do -----------------------------------------------------------------------

LISTS: dict[str, Any] = {
    "object_detections": [ObjectDetection("a", 160, 120, 40, 20, 0.5)],
    "classifications": [Classification("scene", 0.9)],
    "instance_segmentations": [
        InstanceSegmentation("b", 50, 60, 20, 10, 0.25, [(40, 55), (60, 55), (50, 65.5)])
    ],
    "keypoints": [KeypointDetection("c", 200, 100, 30, 60, 1.0, [Keypoint(0, 190, 75.5)])],
}


@pytest.mark.parametrize("library", ["cv2", "PIL"])
def test_quality_keeps_pixels_and_coordinates(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_alone(monkeypatch, library)
    given = event(Image(JPEG, label="top", **LISTS))
    result = shed(at("quality", quality=40), given)
    monkeypatch.undo()

    image = only(result)
    assert isinstance(image.frame, bytes)
    assert len(image.frame) < len(JPEG)
    assert size_of(image.frame) == (WIDTH, HEIGHT)
    assert image == Image(image.frame, label="top", **LISTS)
    assert result.metadata == {
        "vevents_frame_step": "quality",
        "vevents_frames_shed": 1,
        "vevents_frame_original": (
            f"images[0].frame: quality, 320x240, {len(JPEG)} bytes to {len(image.frame)} bytes, "
            f"blake2b-128 {frames.digest(JPEG).hex()}"
        ),
    }


@pytest.mark.parametrize("library", ["cv2", "PIL"])
def test_smaller_scales_the_annotations_with_the_frame(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_alone(monkeypatch, library)
    result = shed(at("smaller", scale=0.5), event(Image(JPEG, label="top", **LISTS)))
    monkeypatch.undo()

    image = only(result)
    assert size_of(image.frame) == (160, 120)
    assert image == Image(
        image.frame,
        label="top",
        object_detections=[ObjectDetection("a", 80, 60, 20, 10, 0.5)],
        classifications=[Classification("scene", 0.9)],
        instance_segmentations=[
            InstanceSegmentation("b", 25, 30, 10, 5, 0.25, [(20, 27.5), (30, 27.5), (25, 32.75)])
        ],
        keypoints=[KeypointDetection("c", 100, 50, 15, 30, 1.0, [Keypoint(0, 95, 37.75)])],
    )
    assert "smaller, 320x240 to 160x120, " in str((result.metadata or {})["vevents_frame_original"])


def test_smaller_scales_by_what_the_sides_really_became() -> None:
    data = saved(textured()[:99, :101], "JPEG", quality=95)
    image = only(shed(at("smaller", scale=0.3), event(Image(data, object_detections=[BOX]))))

    assert size_of(image.frame) == (30, 30)
    [box] = image.object_detections
    assert (box.x, box.y) == (pytest.approx(160 * 30 / 101), pytest.approx(120 * 30 / 99))
    assert (box.width, box.height) == (pytest.approx(40 * 30 / 101), pytest.approx(20 * 30 / 99))


@pytest.mark.parametrize("library", ["cv2", "PIL"])
def test_crops_keeps_the_detections_alone(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with_alone(monkeypatch, library)
    result = shed(at("crops", quality=95), event(Image(JPEG, **LISTS)))
    monkeypatch.undo()

    image = only(result)
    assert isinstance(image.frame, bytes)
    assert len(image.frame) < len(JPEG) / 2
    assert image == Image(image.frame, **LISTS)
    now = np.asarray(PIL.Image.open(io.BytesIO(image.frame))).astype(int)
    was = np.asarray(PIL.Image.open(io.BytesIO(JPEG))).astype(int)
    for x0, y0, x1, y1 in ((140, 110, 180, 130), (40, 55, 60, 65), (185, 70, 215, 130)):
        assert np.abs(now[y0:y1, x0:x1] - was[y0:y1, x0:x1]).mean() < 12
    assert np.abs(now[200:, :] - 128).max() <= 2
    assert np.abs(now[:, 280:] - 128).max() <= 2


@pytest.mark.parametrize(
    "annotations",
    [
        {"instance_segmentations": [InstanceSegmentation("b", 20, 20, 9, 9, 1, [(250, 20)] * 3)]},
        {"instance_segmentations": [InstanceSegmentation("b", 250, 20, 9, 9, 1, [(20, 20)] * 3)]},
        {"keypoints": [KeypointDetection("c", 20, 20, 9, 9, 1, [Keypoint(0, 250, 20)])]},
    ],
)
def test_crops_keeps_outlines_and_keypoints(annotations: Any) -> None:
    image = only(shed(at("crops", quality=95), event(Image(JPEG, **annotations))))

    assert isinstance(image.frame, bytes)
    now = np.asarray(PIL.Image.open(io.BytesIO(image.frame))).astype(int)
    was = np.asarray(PIL.Image.open(io.BytesIO(JPEG))).astype(int)
    assert np.abs(now[10:30, 10:260] - was[10:30, 10:260]).mean() < 12
    assert np.abs(now[80:] - 128).max() <= 2


@pytest.mark.parametrize(
    "annotations",
    [{}, {"classifications": LISTS["classifications"]}, {"object_detections": [BOX]}],
    ids=["nothing found", "no box", "box outside"],
)
def test_crops_without_a_detection_on_the_picture_is_quality(annotations: Any) -> None:
    if "object_detections" in annotations:
        annotations = {"object_detections": [ObjectDetection("a", 900, 900, 9, 9, 0.5)]}
    result = shed(at("crops"), event(Image(JPEG, **annotations)))

    assert (result.metadata or {})["vevents_frame_step"] == "quality"
    assert size_of(only(result).frame) == (WIDTH, HEIGHT)


def test_none_leaves_the_facts() -> None:
    result = shed(at("none"), event(Image(JPEG, input_frame=JPEG, label="top", **LISTS)))

    assert only(result) == Image(label="top", **LISTS)
    original = f"images[0].frame: none, 320x240, {len(JPEG)} bytes, blake2b-128 "
    assert str((result.metadata or {})["vevents_frame_original"]).startswith(original)
    assert (result.metadata or {})["vevents_frames_shed"] == 1


@pytest.mark.parametrize(
    ("position", "expected"), [(None, None), (0, 0), (1, 0), (2, 1), (3, 1), (4, 1)]
)
def test_none_leaves_no_empty_entries(position: int | None, expected: int | None) -> None:
    labels = [None, "a", None, "b", None]
    images = [Image(saved(textured(i), "PNG"), label=label) for i, label in enumerate(labels)]
    result = shed(at("none"), event(*images, display_image_position=position))

    assert list(result.images) == [Image(label="a"), Image(label="b")]
    assert result.display_image_position == expected
    nothing = shed(at("none"), event(display_image_position=0))
    assert (nothing.images, nothing.display_image_position) == ((), None)


# --- Two frames of one moment ----------------------------------------------------------------


def test_annotations_follow_the_input_frame() -> None:
    shown = saved(textured(2)[:99, :101], "JPEG", quality=92)
    given = Image(shown, input_frame=JPEG, object_detections=[BOX])
    image = only(shed(at("smaller", scale=0.3), event(given)))

    assert (size_of(image.frame), size_of(image.input_frame)) == ((30, 30), (96, 72))
    [box] = image.object_detections
    numbers = (box.x, box.y, box.width, box.height)
    assert numbers == pytest.approx((48, 36, 12, 6))


@pytest.mark.parametrize(
    "fields",
    [
        {"input_source_id": "ve-img-1"},
        {"input_frame": FrameRef(7, bytes(16), 1000)},
        {"input_frame": saved(textured(3), "GIF")},
    ],
    ids=["uploaded", "in the log", "not to be decoded"],
)
@pytest.mark.parametrize("action", ["smaller", "crops"])
def test_annotations_stay_if_what_they_refer_to_stays(action: Any, fields: Any) -> None:
    given = Image(JPEG, object_detections=[BOX], **fields)
    result = shed(at(action), event(given))

    image = only(result)
    assert (result.metadata or {})["vevents_frame_step"] == "quality"
    assert size_of(image.frame) == (WIDTH, HEIGHT)
    assert image.object_detections == given.object_detections
    assert (image.input_frame, image.input_source_id) == (given.input_frame, given.input_source_id)


@pytest.mark.parametrize(
    "fields",
    [
        {"source_id": "ve-img-1"},
        {"frame": FrameRef(7, bytes(16), 1000)},
        {"frame": saved(textured(3), "GIF")},
    ],
    ids=["uploaded", "in the log", "not to be decoded"],
)
def test_frames_of_one_moment_get_smaller_together_or_not_at_all(fields: Any) -> None:
    given = Image(input_frame=JPEG, object_detections=[BOX], **fields)
    result = shed(at("smaller"), event(given))

    image = only(result)
    assert (result.metadata or {})["vevents_frame_step"] == "quality"
    assert size_of(image.input_frame) == (WIDTH, HEIGHT)
    assert image.object_detections == given.object_detections
    assert (image.frame, image.source_id) == (given.frame, given.source_id)


def test_crops_cuts_the_shown_frame_if_it_has_the_same_pixels() -> None:
    same = saved(textured(2), "JPEG", quality=92)
    other = saved(textured(2)[:120, :160], "JPEG", quality=92)
    for shown, action in ((same, "crops"), (other, "quality")):
        given = event(Image(shown, input_frame=JPEG, object_detections=[BOX]))
        original = str((shed(at("crops"), given).metadata or {})["vevents_frame_original"])
        assert "images[0].inputFrame: crops" in original
        assert f"images[0].frame: {action}" in original


def test_one_frame_in_both_places_is_made_once() -> None:
    for frame in (JPEG, PIXELS):
        shedder = at("smaller")
        image = only(shed(shedder, event(Image(frame, input_frame=frame))))
        assert image.frame is image.input_frame
        assert shedder.look().shed == {"quality": 0, "smaller": 1, "crops": 0, "none": 0}


def test_what_is_in_the_ring_already_costs_nothing_and_stays() -> None:
    for action in ("quality", "smaller", "crops", "none"):
        given = event(Image(JPEG, object_detections=[BOX]), Image(FrameRef(1, bytes(16), 9)))
        assert shed(at(action), given, stored=JPEG) == given


# --- Frames that are not to be re-encoded ----------------------------------------------------


@pytest.mark.parametrize("action", ["quality", "smaller", "crops"])
@pytest.mark.parametrize(
    "data",
    [
        saved(np.zeros((1, 1), np.uint8), "JPEG", quality=1),
        saved(np.arange(4096, dtype=np.uint16).reshape(64, 64), "PNG"),
        saved(PIXELS, "GIF"),
        b"\xff\xd8\xff\xe0" + bytes(500),
        JPEG[:300],
    ],
    ids=["small already", "16 bits", "gif", "broken", "cut"],
)
def test_what_cannot_get_smaller_stays_until_frames_are_left_out(action: Any, data: bytes) -> None:
    given = event(Image(data, object_detections=[BOX]))

    assert shed(at(action, quality=60, scale=0.9), given) == given
    assert only(shed(at("none"), given)).frame is None


def test_what_is_no_image_is_refused_under_pressure_as_without() -> None:
    for action in ("quality", "smaller", "crops", "none"):
        with pytest.raises(EventValidationError, match=r"images\[0\]\.frame: must be a JPEG"):
            shed(at(action), event(Image(b"<html>")))


def test_without_a_library_frames_stay_whole_and_that_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    without(monkeypatch, "PIL", "cv2")
    given = event(Image(JPEG, object_detections=[BOX]))
    for action in ("quality", "smaller", "crops"):
        caplog.clear()
        shedder = at(action)
        for _ in range(3):
            assert shed(shedder, given) == given
        [line] = [r for r in caplog.records if r.levelno == logging.WARNING]
        assert "pip install vevents[images]" in line.getMessage()
    assert only(shed(at("none"), given)).frame is None


def test_whatever_a_picture_does_to_the_libraries_its_event_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(frames, "encode_pixels", fails)
    given = event(Image(JPEG, object_detections=[BOX]))
    for action in ("quality", "smaller", "crops"):
        assert shed(at(action), given) == given


@pytest.mark.parametrize("action", ["quality", "smaller"])
def test_orientation_is_kept(action: Any) -> None:
    turned = frames.with_exif(JPEG, frames.exif_segment(TURNED_JPEG))
    image = only(shed(at(action), event(Image(turned))))

    assert isinstance(image.frame, bytes)
    assert frames.exif_segment(image.frame) == frames.exif_segment(turned)


def test_nothing_is_cut_out_of_a_turned_picture() -> None:
    turned = frames.with_exif(JPEG, frames.exif_segment(TURNED_JPEG))
    result = shed(at("crops"), event(Image(turned, object_detections=[BOX])))

    assert (result.metadata or {})["vevents_frame_step"] == "quality"


def test_arrays_are_encoded_once() -> None:
    result = shed(at("quality", quality=30), event(Image(PIXELS)))
    data = only(result).frame
    assert data == frames.encode_frame(PIXELS, quality=30)
    original = f"images[0].frame: quality, 320x240, array to {len(data)} bytes"  # type: ignore[arg-type]
    assert (result.metadata or {})["vevents_frame_original"] == original

    assert size_of(only(shed(at("smaller"), event(Image(PIXELS)))).frame) == (160, 120)
    left_out = shed(at("none"), event(Image(PIXELS, label="a")))
    assert (left_out.metadata or {})["vevents_frame_original"] == (
        "images[0].frame: none, 320x240, array"
    )
    gray = only(shed(at("crops"), event(Image(PIXELS[..., 0], object_detections=[BOX])))).frame
    assert PIL.Image.open(io.BytesIO(gray)).mode == "L"  # type: ignore[arg-type]


def test_an_array_gets_no_better_than_without_pressure() -> None:
    given = event(Image(PIXELS))
    result, action = at("quality", quality=95).shed(given, lambda _: False)

    assert (result is given, action) == (True, None)


def test_paths_are_read(tmp_path: Path) -> None:
    path = tmp_path / "frame.jpg"
    path.write_bytes(JPEG)

    image = only(shed(at("quality"), event(Image(path))))
    assert isinstance(image.frame, bytes)
    assert len(image.frame) < len(JPEG)


# --- Who is spared, and what is told ---------------------------------------------------------


def test_exempt_types_are_spared_at_every_step() -> None:
    alert = Event.safety_alert(alert_type="fire", images=[Image(JPEG)])
    for action in ("quality", "smaller", "crops", "none"):
        assert shed(at(action), alert) == alert
    everyone = Ladder([Step(0.5, "none")], exempt=frozenset())
    shedder = Shedder(everyone, Ring(1.0).gauge(), 85)
    assert shed(shedder, alert).images == ()


def test_events_without_frames_are_not_looked_at() -> None:
    def fails() -> Filling:
        raise AssertionError("measured")

    shedder = Shedder(Ladder([Step(0, "none")]), Gauge(fails), 85)
    given = event(Image(object_detections=[BOX]), Image(FrameRef(1, bytes(16), 9)))
    assert shedder.shed(given, lambda _: False) == (given, None)


def test_what_cannot_be_told_is_not_done() -> None:
    metadata: dict[str, str | float | bool] = {f"key {i}": i for i in range(98)}
    assert shed(at("none"), event(metadata=metadata)).metadata == metadata
    del metadata["key 0"]
    result = shed(at("none"), event(metadata=metadata))
    assert metadata.items() < (result.metadata or {}).items()
    assert len(result.metadata or {}) == 100


def test_many_frames_are_told_as_far_as_there_is_room() -> None:
    images = [Image(saved(textured(i)[:40, :40], "PNG")) for i in range(30)]
    metadata = shed(at("none"), event(*images)).metadata or {}

    assert metadata["vevents_frames_shed"] == 30
    lines = str(metadata["vevents_frame_original"]).split("; ")
    assert 5 < len(lines) < 30
    for index, line in enumerate(lines):
        assert line.endswith(frames.digest(images[index].frame).hex())  # type: ignore[arg-type]


def test_the_harshest_step_names_the_event() -> None:
    found = Image(JPEG, object_detections=[BOX])
    empty = Image(saved(textured(5), "JPEG", quality=92))
    shedder = at("crops")

    result = shed(shedder, event(empty, found, empty))

    assert (result.metadata or {})["vevents_frame_step"] == "crops"
    assert shedder.look().shed == {"quality": 2, "smaller": 0, "crops": 1, "none": 0}
    assert shedder.look().action == "crops"
