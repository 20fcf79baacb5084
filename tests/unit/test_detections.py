"""Detections as arrays: the same events as the ones built from objects, byte for byte."""

from __future__ import annotations

import threading
from fractions import Fraction

import numpy as np
import pytest

from vevents import (
    DetectionWriter,
    Event,
    EventLog,
    EventValidationError,
    FrameRef,
    Image,
    ObjectDetection,
)
from vevents.errors import EventTooLargeError, LogError, LogReadOnlyError

NAMES = ["person", "forklift", "Gabelstapler äöü", ""]
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de"
    "0000000c49444154789c6360606000000004000127340a0b0000000049454e44ae426082"
)


@pytest.fixture
def log(tmp_path):
    with EventLog(tmp_path / "log", events_size=1 << 20, media_size=1 << 20) as opened:
        yield opened
        assert opened.stats().conserved


def constants(**more):
    return Event.quality_check(
        result="fail",
        use_case_id="press-line",
        device_id="press-03",
        stream_id="cam 1",
        workflow_id="wf",
        metadata={"shift": "night", "line": 3, "speed": 1.25, "wet": False},
        **more,
    )


def arrays(count, seed=1):
    rng = np.random.default_rng(seed)
    xyxy = rng.random((count, 4), dtype=np.float32) * 1000
    xyxy[:, 2:] += xyxy[:, :2]
    return xyxy, rng.random(count, dtype=np.float32), rng.integers(0, len(NAMES), count)


def as_objects(xyxy, confidence, class_id, names=NAMES):
    return tuple(
        ObjectDetection(
            class_name=names[int(i)],
            x=(float(b[0]) + float(b[2])) / 2,
            y=(float(b[1]) + float(b[3])) / 2,
            width=float(b[2]) - float(b[0]),
            height=float(b[3]) - float(b[1]),
            confidence=float(c),
        )
        for b, c, i in zip(xyxy, confidence, class_id, strict=True)
    )


def payloads(log):
    return [record.payload for record in log.read()]


@pytest.mark.parametrize("count", [0, 1, 5, 15, 16, 17, 300, 1000])
def test_arrays_give_the_bytes_of_the_same_event_from_objects(log, count):
    xyxy, confidence, class_id = arrays(count)
    writer = DetectionWriter(log, constants(), NAMES, label="top camera")

    seq = writer.append(xyxy, confidence, class_id)
    image = Image(label="top camera", object_detections=as_objects(xyxy, confidence, class_id))
    receipt = log.append(constants(images=(image,)))

    assert (seq, receipt.seq) == (1, 2)
    from_arrays, from_objects = payloads(log)
    assert from_arrays == from_objects


def test_a_frame_is_stored_once_and_referred_to(log):
    xyxy, confidence, class_id = arrays(2)
    writer = DetectionWriter(log, constants(), NAMES)

    writer.append(xyxy, confidence, class_id, frame=PNG)
    writer.append(xyxy, confidence, class_id, frame=log.append_frame(PNG))
    writer.append(xyxy, confidence, class_id)

    frames = [log.decode(record).images[0].frame for record in log.read()]
    assert frames[0] == frames[1]
    assert log.frame(frames[0]) == PNG
    assert frames[2] is None
    assert log.stats("media").appended == 1


@pytest.mark.parametrize(
    "convert",
    [
        lambda x, c, i: (x.astype(np.float64), c.astype(np.float64), i.astype(np.int32)),
        lambda x, c, i: (np.asfortranarray(x), c[::-1][::-1], i.astype(np.uint8)),
        lambda x, c, i: (np.repeat(x, 2, axis=0)[::2], np.repeat(c, 3)[::3], i.astype(np.float32)),
        lambda x, c, i: (x.tolist(), c.tolist(), i.tolist()),
        lambda x, c, i: (x.astype(">f4"), c.astype(">f8"), i.astype(">i8")),
        lambda x, c, i: (_readonly(x), _readonly(c), _readonly(i)),
        lambda x, c, i: (_unaligned(x), _unaligned(c), _unaligned(i)),
        lambda x, c, i: (x, _Column(c), _Column(i)),
    ],
    ids=["wide", "fortran", "strided", "lists", "big-endian", "read-only", "unaligned", "columns"],
)
def test_any_layout_of_the_same_numbers_gives_the_same_event(log, convert):
    given = arrays(7)
    writer = DetectionWriter(log, constants(), NAMES)

    writer.append(*given)
    writer.append(*convert(*given))

    one, other = payloads(log)
    assert one == other


def _readonly(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def _unaligned(array):
    bytes_ = bytearray(b"." + array.tobytes())
    return np.frombuffer(bytes_, array.dtype, offset=1).reshape(array.shape)


class _Column:
    """What becomes an array, with its dtype and shape, and is no buffer: a column of pandas."""

    def __init__(self, array):
        self._array, self.dtype, self.shape = array, array.dtype, array.shape

    def __array__(self, dtype=None, copy=None):
        return self._array


def as_rows(xyxy, confidence, class_id):
    return np.column_stack([xyxy, confidence, class_id]).astype(np.float32)


@pytest.mark.parametrize("count", [0, 1, 5, 300])
def test_rows_give_the_event_of_their_columns(log, count):
    given = arrays(count)
    writer = DetectionWriter(log, constants(), NAMES)

    writer.append(*given)
    writer.append_rows(as_rows(*given))

    one, other = payloads(log)
    assert one == other


@pytest.mark.parametrize(
    "convert",
    [
        np.float64,
        lambda rows: rows.tolist(),
        np.asfortranarray,
        lambda rows: np.repeat(rows, 2, axis=0)[::2],
        _unaligned,
        _readonly,
        _Column,
    ],
    ids=["wide", "list", "fortran", "strided", "unaligned", "read-only", "columns"],
)
def test_any_layout_of_rows_gives_the_same_event(log, convert):
    rows = as_rows(*arrays(7))
    writer = DetectionWriter(log, constants(), NAMES)

    writer.append_rows(rows, frame=PNG)
    writer.append_rows(convert(rows), frame=PNG)

    one, other = payloads(log)
    assert one == other
    assert log.stats("media").appended == 1


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.zeros((2, 7), np.float32), r"rows: must have shape \(n, 6\)"),
        (np.zeros(6, np.float32), r"rows: must have shape \(n, 6\)"),
        (np.zeros((1, 2, 6), np.float32), r"rows: must have shape \(n, 6\)"),
        ([[0, 0, 1, 1, 0.5, 1.5]], r"\[0\].class: must be a whole number"),
        ([[0, 0, 1, 1, 0.5, np.nan]], r"\[0\].class: must be a whole number"),
        ([[0, 0, 1, 1, 0.5, 4]], r"\[0\].class: is 4, but there are 4 names"),
        ([[0, 0, 1, 1, 1.5, 0]], r"\[0\].confidence: must be 0 to 1"),
        ([["a"] * 6], "rows: must be an array of numbers, not of <U1"),
    ],
)
def test_what_is_wrong_with_rows_is_named(log, rows, message):
    with pytest.raises(EventValidationError, match=message):
        DetectionWriter(log, constants(), NAMES).append_rows(rows)
    assert log.stats().appended == 0


def test_rows_with_long_names_grow_the_buffer(tmp_path):
    with EventLog(tmp_path / "log", events_size=8 << 20, segment_size=1 << 20) as log:
        writer = DetectionWriter(log, constants(), ["x" * 100])

        assert writer.append_rows(as_rows(*_of_class(0, 1000))) == 1
        assert len(log.decode(next(log.read())).images[0].object_detections) == 1000


def test_class_names_may_be_a_mapping_with_gaps(log):
    writer = DetectionWriter(log, constants(), {2: "pallet", 7: "box"})
    box, score = np.array([[0.0, 0, 4, 4]]), np.array([0.5])

    writer.append(box, score, np.array([7]))
    with pytest.raises(EventValidationError, match="class: is 3, which has no name"):
        writer.append(box, score, np.array([3]))

    (record,) = log.read()
    assert log.decode(record).images[0].object_detections[0].class_name == "box"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x, c, i: (x[:2], c, i), "shapes"),
        (lambda x, c, i: (x, c[:2], i), "shapes"),
        (lambda x, c, i: (x, c, i[:2]), "shapes"),
        (lambda x, c, i: (x.reshape(-1), c, i), "shapes"),
        (lambda x, c, i: (x, c.reshape(3, 1), i), "shapes"),
        (lambda x, c, i: (_set(x, (1, 2), -5), c, i), r"objectDetections\[1\].width: must be"),
        (lambda x, c, i: (_set(x, (2, 0), np.nan), c, i), r"\[2\].x: must be a finite"),
        (lambda x, c, i: (_set(x, (0, 3), np.inf), c, i), r"\[0\].y: must be a finite"),
        (lambda x, c, i: (x, _set(c, 1, 1.5), i), r"\[1\].confidence: must be 0 to 1"),
        (lambda x, c, i: (x, _set(c, 1, np.nan), i), r"\[1\].confidence: must be 0 to 1"),
        (lambda x, c, i: (x, c, _set(i, 2, 4)), r"\[2\].class: is 4, but there are 4 names"),
        (lambda x, c, i: (x, c, _set(i, 0, -1)), r"\[0\].class: is -1"),
        (lambda x, c, i: (x, c, i + 0.5), "class_id: must be whole numbers"),
        (
            lambda x, c, _: (x, c, np.array(["a", "b", "c"])),
            "class_id: must be an array of numbers, not of <U1",
        ),
        (lambda x, _, i: (x, [0.1, [0.2], 0.3], i), "confidence: must be an array of numbers"),
        (lambda x, c, i: (x > 3, c, i), "^xyxy: must be an array of numbers, not of bool"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_appended(log, spoil, message):
    xyxy, confidence, _ = arrays(3)
    writer = DetectionWriter(log, constants(), NAMES)

    with pytest.raises(EventValidationError, match=message):
        writer.append(*spoil(xyxy, confidence, np.arange(3)))

    assert log.stats().appended == 0
    assert writer.append(xyxy, confidence, np.arange(3)) == 1


def _set(array, where, value):
    array = array.copy()
    array[where] = value
    return array


def test_more_than_a_thousand_are_refused(log):
    writer = DetectionWriter(log, constants(), NAMES)

    with pytest.raises(EventValidationError, match="at most 1000"):
        writer.append(*arrays(1001))


def test_long_names_grow_the_buffer_up_to_what_the_ring_takes(tmp_path):
    with EventLog(tmp_path / "log", events_size=8 << 20, segment_size=1 << 20) as log:
        writer = DetectionWriter(log, constants(), ["x" * 100, "y" * 10_000])

        assert writer.append(*_of_class(0, 1000)) == 1  # 130 kB, twice the first buffer
        with pytest.raises(EventTooLargeError):
            writer.append(*_of_class(1, 1000))

        assert len(log.decode(next(log.read())).images[0].object_detections) == 1000
        assert log.stats().appended == 1


def test_class_ids_that_are_no_numbers_are_refused_without_a_warning(log):
    writer = DetectionWriter(log, constants(), NAMES)
    for wrong in (np.nan, np.inf, 2.0**70):
        with pytest.raises(EventValidationError, match="class_id: must be whole numbers"):
            writer.append([[0, 0, 1, 1]], [0.5], [wrong])
    with pytest.raises(EventValidationError, match="x: must be a finite float"):
        writer.append([[0, 0, 1e300, 1]], [0.5], [0])


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("burr", "class_names: must be a list, or a mapping by class id, not str"),
        (None, "class_names: must be a list, or a mapping by class id, not NoneType"),
        ({"burr"}, "class_names: must be a list, or a mapping by class id, not set"),
        (["burr", 5], r"class_names\[1\]: must be a string, not int"),
        ({3: b"burr"}, r"class_names\[3\]: must be a string, not bytes"),
        (["\ud800"], r"class_names\[0\]: has a lone surrogate"),
        (["a\0b"], r"class_names\[0\]: must not contain a NUL"),
        ({-1: "burr"}, "class_names: the ids must be whole numbers"),
    ],
)
def test_class_names_that_are_none(log, names, words):
    with pytest.raises(EventValidationError, match=words):
        DetectionWriter(log, constants(), names)


def test_class_ids_of_numpy_are_numbers(log):
    writer = DetectionWriter(log, constants(), {np.int64(2): "pallet"})

    assert writer.append([[0, 0, 1, 1]], [0.5], [2]) == 1


def test_arguments_of_another_kind_are_named(log):
    with pytest.raises(EventValidationError, match="event: must be an Event, not EventLog"):
        DetectionWriter(log, log, NAMES)
    with pytest.raises(TypeError, match="log: must be an EventLog, not NoneType"):
        DetectionWriter(None, constants(), NAMES)
    with pytest.raises(EventValidationError, match="label: must be a string, not int"):
        DetectionWriter(log, constants(), NAMES, label=5)


@pytest.mark.parametrize(
    "reference",
    [
        FrameRef(-1, bytes(16), 1),
        FrameRef(1, bytes(16), -5),
        FrameRef(2**64 + 1, bytes(16), 1),
        FrameRef(1, bytes(8), 1),
        FrameRef("1", bytes(16), 1),
        FrameRef(1, "digest", 1),
    ],
)
def test_a_reference_that_refers_to_nothing(log, reference):
    writer = DetectionWriter(log, constants(), NAMES)

    with pytest.raises(EventValidationError, match=r"frame: must have a sequence number"):
        writer.append(*arrays(1), frame=reference)
    assert log.stats().appended == 0


def _of_class(class_id, count):
    xyxy, confidence, _ = arrays(count)
    return xyxy, confidence, np.full(count, class_id)


@pytest.mark.parametrize(
    ("event", "field"),
    [
        (constants(event_id="e1"), "event_id"),
        (constants(display_image_position=0, images=(Image(),)), "display_image_position"),
        (constants(images=(Image(),)), "images"),
        (Event.custom(value="a\0b"), "value"),
        (Event.quality_check(result="perhaps"), "result"),
    ],
)
def test_a_writer_is_refused_where_it_is_made(log, event, field):
    with pytest.raises(EventValidationError, match=field):
        DetectionWriter(log, event, NAMES)


@pytest.mark.parametrize("names", [{-1: "a"}, {"a": "b"}, {10**9: "a"}, ["a\0"]])
def test_bad_class_names_are_refused_where_the_writer_is_made(log, names):
    with pytest.raises(EventValidationError):
        DetectionWriter(log, constants(), names)


def test_every_type_of_event_can_be_written(log):
    events = [
        Event.inventory_count(item_count=3, location="dock"),
        Event.safety_alert(alert_type="no_helmet", severity="high"),
        Event.custom(value="v"),
        Event.operator_feedback(related_event_id="e", feedback="correct"),
    ]
    for event in events:
        DetectionWriter(log, event, NAMES).append(*arrays(1))

    assert [log.decode(record).event_type for record in log.read()] == [
        event.event_type for event in events
    ]


def test_threads_share_a_writer(log):
    writer = DetectionWriter(log, constants(), NAMES)

    def work(seed):
        for _ in range(200):
            writer.append(*arrays(4, seed))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    expected = {seed: as_objects(*arrays(4, seed)) for seed in range(4)}
    counts = dict.fromkeys(range(4), 0)
    for record in log.read():
        found = log.decode(record).images[0].object_detections
        (seed,) = [
            s
            for s in expected
            if found[0].class_name == expected[s][0].class_name
            and found[0].x == pytest.approx(expected[s][0].x, rel=1e-6)
        ]
        counts[seed] += 1
    assert counts == dict.fromkeys(range(4), 200)


def test_a_synced_event_is_durable_and_a_closed_log_says_so(log):
    writer = DetectionWriter(log, constants(), NAMES)

    seq = writer.append(*arrays(1), sync=True)

    assert log.durable_seq == seq
    with EventLog(log.directory, read_only=True) as reader, pytest.raises(LogReadOnlyError):
        DetectionWriter(reader, constants(), NAMES).append(*arrays(1))
    with pytest.raises(LogError, match="closed"):
        DetectionWriter(reader, constants(), NAMES).append(*arrays(1))


def test_what_events_have_in_common_is_kept_as_in_an_event(log):
    event = Event.inventory_count(
        item_count=np.int32(3),
        metadata={
            "whole": np.int64(2**53 + 1),
            "negative": -(2**63),
            "float": np.float32(0.1),
            "fraction": Fraction(1, 4),
            "text": np.str_("x"),
            "ok": True,
        },
    )
    log.append(event)
    DetectionWriter(log, event, NAMES).append(*arrays(1))

    alone, written = (log.decode(record) for record in log.read())
    assert written.data == alone.data
    assert {key: (type(value), value) for key, value in (written.metadata or {}).items()} == {
        key: (type(value), value) for key, value in (alone.metadata or {}).items()
    }


@pytest.mark.parametrize(
    ("event", "field"),
    [
        (Event.inventory_count(item_count=2**63), "itemCount"),
        (Event.custom(value="x", metadata={"hash": 2**64 - 1}), "hash"),
    ],
)
def test_integers_that_c_does_not_take_are_named(log, event, field):
    with pytest.raises(EventValidationError, match=f"{field}: must be less than 2"):
        DetectionWriter(log, event, NAMES)
