"""The event builder of the C library against the Python codec: equal events have equal bytes."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vevents import codec
from vevents.errors import EventValidationError
from vevents.event import (
    COORDINATE_MAX,
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

CSRC = Path(__file__).resolve().parents[2] / "csrc"
# What the builder needs of the library.
ROOMS = (
    "vev_base",
    "vev_msgpack",
    "vev_blake2b",
    "vev_contract",
    "vev_draft",
    "vev_event",
    "vev_image",
)
STRICT = ("-Wall", "-Wextra", "-Werror")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

VEV_E_INVALID = -10
VEV_APPEND_TIME = 2
VEV_APPEND_ID = 4


def _compiler(variable: str, usual: str) -> list[str]:
    command = os.environ.get(variable, usual).split()
    assert shutil.which(command[0]), f"{command[0]} is needed; name a compiler with ${variable}"
    return command


class Builder:
    """The C program that builds an event from the lines it is given."""

    def __init__(self, program: Path) -> None:
        self._process = subprocess.Popen(
            [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
        )

    def run(self, lines: list[str]) -> list[str]:
        """Send the calls of one event, `finish` included, and return the words of the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n".join(lines) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().rstrip("\n")
        assert answer, "the C program ended"
        return answer.split(" ", 1) if answer[0] == "-" else answer.split(" ")

    def close(self) -> None:
        self._process.communicate()
        assert self._process.returncode == 0


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    program = tmp_path_factory.mktemp("builder") / "event_script"
    sources = [CSRC / "tests/unit/event_script.c", *(CSRC / f"src/{room}.c" for room in ROOMS)]
    subprocess.run(
        [
            *_compiler("CC", "cc"),
            *("-std=gnu11", "-O1", "-g", "-fno-strict-aliasing", *STRICT),
            *("-D_GNU_SOURCE", "-D_FILE_OFFSET_BITS=64"),
            *(f"-I{CSRC / folder}" for folder in ("include", "src")),
            *("-o", program),
            *sources,
        ],
        check=True,
    )
    running = Builder(program)
    yield running
    running.close()


# --- An event as calls of the C library -----------------------------------------------------


def _text(value: str | bytes | None) -> str:
    if value is None:
        return "-"
    return "x" + (value.encode() if isinstance(value, str) else value).hex()


def _number(value: float) -> str:
    return float(value).hex()


def _box(entry) -> str:
    numbers = (entry.x, entry.y, entry.width, entry.height, entry.confidence)
    return " ".join((_text(entry.class_name), *map(_number, numbers)))


def _value_call(name: str, key: str, value: object) -> str:
    if isinstance(value, bool):
        return f"{name}_bool {_text(key)} {int(value)}"
    if isinstance(value, int):
        return f"{name}_int {_text(key)} {value}"
    if isinstance(value, float):
        return f"{name}_num {_text(key)} {_number(value)}"
    return f"{name}_str {_text(key)} {_text(value)}"


def _image_calls(image: Image) -> list[str]:
    calls = []
    if image.frame is not None:
        ref = image.frame
        calls.append(f"image_frame {ref.seq} {_text(ref.digest)} {ref.size}")
    if image.input_frame is not None:
        ref = image.input_frame
        calls.append(f"image_input_frame {ref.seq} {_text(ref.digest)} {ref.size}")
    calls.append(f"image_source {_text(image.source_id)}")
    calls.append(f"image_input_source {_text(image.input_source_id)}")
    calls += [f"detection {_box(d)}" for d in image.object_detections]
    calls += [
        f"classification {_text(c.class_name)} {_number(c.confidence)}"
        for c in image.classifications
    ]
    for entry in image.instance_segmentations:
        points = ",".join(_number(value) for point in entry.points for value in point)
        calls.append(f"segmentation {_box(entry)} {points}")
    for entry in image.keypoints:
        points = ",".join(f"{p.id},{_number(p.x)},{_number(p.y)}" for p in entry.keypoints)
        calls.append(f"keypoints {_box(entry)} {points}")
    return calls


def _calls(event: Event) -> tuple[list[str], list[str]]:
    """Return the calls that build an event: the first one with those of the images, the others.

    The others may stand anywhere between the first and `finish`.
    """
    begin = f"begin {codec.KIND_OF[event.event_type]} {_text(event.use_case_id)}"
    images = [begin]
    for image in event.images:
        images += [f"image_begin {_text(image.label)}", *_image_calls(image), "image_end"]
    others = [
        f"id {_text(event.event_id)}",
        f"device {_text(event.device_id)}",
        f"stream {_text(event.stream_id)}",
        f"workflow {_text(event.workflow_id)}",
        *(_value_call("data", key, value) for key, value in (event.data or {}).items()),
        *(_value_call("meta", key, value) for key, value in (event.metadata or {}).items()),
    ]
    if event.timestamp is not None:
        others.append(f"time {(event.timestamp - EPOCH) // timedelta(microseconds=1) * 1000}")
    if event.display_image_position is not None:
        others.append(f"display_image {event.display_image_position}")
    return images, others


# --- Any event ------------------------------------------------------------------------------

# A C string ends at its first NUL, and UTF-8 has no surrogates.
characters = st.characters(exclude_characters="\0", exclude_categories=("Cs",))


def _texts(size_max: int, size_min: int = 0):
    return st.text(characters, min_size=size_min, max_size=size_max)


ids = st.none() | _texts(256, 1)
# Points come to C as floats; a box comes as doubles and is rounded there.
single = st.floats(width=32, allow_nan=False, allow_infinity=False) | st.integers(-100, 5000).map(
    float
)
coordinates = (
    st.floats(-COORDINATE_MAX, COORDINATE_MAX)
    | st.integers(-(2**24) - 2, 2**24 + 2)
    | st.integers(0, 19200).map(lambda tenths: tenths / 10)
)
extents = coordinates.map(abs)
confidences = st.floats(0, 1) | st.integers(0, 1)
int64 = st.integers(-(2**63), 2**63 - 1)
frames = st.none() | st.builds(
    FrameRef,
    seq=st.integers(1, 2**64 - 1),
    digest=st.binary(min_size=16, max_size=16),
    size=st.integers(1, 2**64 - 1),
)
box = {
    "class_name": _texts(40),
    "x": coordinates,
    "y": coordinates,
    "width": extents,
    "height": extents,
    "confidence": confidences,
}
few = {"max_size": 3}


@st.composite
def images(draw):
    frame, input_frame = draw(frames), draw(frames)
    return Image(
        frame,
        input_frame=input_frame,
        label=draw(st.none() | _texts(40)),
        source_id=draw(st.none() | _texts(40, 1)) if frame is None else None,
        input_source_id=draw(st.none() | _texts(40, 1)) if input_frame is None else None,
        # Seventeen is more than fits into the header of one byte.
        object_detections=draw(st.lists(st.builds(ObjectDetection, **box), max_size=17)),
        classifications=draw(
            st.lists(st.builds(Classification, class_name=_texts(9), confidence=confidences), **few)
        ),
        instance_segmentations=draw(
            st.lists(
                st.builds(
                    InstanceSegmentation,
                    **box,
                    points=st.lists(st.tuples(single, single), min_size=3, max_size=20),
                ),
                **few,
            )
        ),
        keypoints=draw(
            st.lists(
                st.builds(
                    KeypointDetection,
                    **box,
                    keypoints=st.lists(
                        st.builds(Keypoint, id=int64, x=single, y=single), max_size=20
                    ),
                ),
                **few,
            )
        ),
    )


external_id = _texts(1000)
data_of = {
    EventType.QUALITY_CHECK: ({"result": st.sampled_from(("pass", "fail"))}, {}),
    EventType.INVENTORY_COUNT: (
        {"itemCount": int64},
        {"location": _texts(50), "itemType": _texts(50)},
    ),
    EventType.SAFETY_ALERT: (
        {"alertType": st.text("abXYZ019_-", min_size=1)},
        {"severity": st.sampled_from(("low", "medium", "high")), "description": _texts(300)},
    ),
    EventType.CUSTOM: ({"value": _texts(300)}, {}),
    EventType.OPERATOR_FEEDBACK: (
        {
            "relatedEventId": _texts(256, 1),
            "feedback": st.sampled_from(("correct", "incorrect", "inconclusive")),
        },
        {},
    ),
}
metadata = st.dictionaries(
    st.text("abcXYZ019_ -", min_size=1, max_size=100),
    _texts(1000) | int64 | st.floats(allow_nan=False, allow_infinity=False) | st.booleans(),
    min_size=1,
    max_size=20,
)


@st.composite
def events(draw):
    event_type = draw(st.sampled_from(EventType))
    mandatory, optional = data_of[event_type]
    if event_type is not EventType.OPERATOR_FEEDBACK:
        optional = {**optional, "externalId": external_id}
    data = draw(st.fixed_dictionaries(mandatory, optional=optional))
    # Data keep the order in which they are given.
    keys = draw(st.permutations(list(data)))
    entries = draw(st.lists(images(), max_size=3))
    return Event(
        event_type,
        draw(ids),
        {key: data[key] for key in keys},
        images=entries,
        device_id=draw(ids),
        stream_id=draw(ids),
        workflow_id=draw(ids),
        metadata=draw(st.none() | metadata),
        display_image_position=draw(st.none() | st.integers(0, len(entries) - 1))
        if entries
        else None,
        event_id=draw(ids | st.uuids().map(str)),
        timestamp=draw(
            st.none()
            | st.datetimes(datetime(1970, 1, 1), datetime(2261, 12, 31), timezones=st.just(UTC))
        ),
    )


@settings(max_examples=150)
@given(event=events(), choice=st.randoms(use_true_random=False))
def test_the_bytes_are_those_of_the_codec(builder, event, choice):
    event.validate()
    calls, others = _calls(event)
    place = 1
    for call in others:  # anywhere behind the first call, in their order
        place = choice.randint(place, len(calls))
        calls.insert(place, call)
        place += 1

    answer = builder.run([*calls, "finish"])

    assert answer[0] == "ok", answer
    flags, kind, wall_ns, header_id, payload = answer[1:]
    assert bytes.fromhex(payload) == codec.encode(event)
    assert int(kind) == codec.KIND_OF[event.event_type]
    assert bool(int(flags) & VEV_APPEND_TIME) == (event.timestamp is not None)
    if event.timestamp is not None:
        assert EPOCH + timedelta(microseconds=int(wall_ns) // 1000) == event.timestamp
    uuid = codec.header_id(event.event_id)
    assert bool(int(flags) & VEV_APPEND_ID) == (uuid is not None)
    assert uuid is None or bytes.fromhex(header_id) == uuid


def test_the_codec_reads_what_c_wrote(builder):
    event = Event.quality_check(
        result="fail",
        device_id="press-03",
        images=[Image(object_detections=[ObjectDetection("burr", 812.5, 403, 37, 22, 0.913)])],
    )
    calls, others = _calls(event)

    payload = bytes.fromhex(builder.run([*calls, *others, "finish"])[-1])

    decoded = codec.decode(payload, event_id="e", timestamp=EPOCH)
    assert decoded.images[0].object_detections == event.images[0].object_detections
    assert decoded.device_id == "press-03"


def _detected(*detections: ObjectDetection) -> Event:
    return Event.custom(value="v", images=[Image(), Image(object_detections=detections)])


GOOD = ObjectDetection("c", 1, 2, 3, 4, 0.5)
LONG = "\N{GRINNING FACE}"
POLYGON = InstanceSegmentation("c", 1, 2, 3, 4, 0.5, [(0.0, 0.0), (1.0, 1.0)])


@pytest.mark.parametrize(
    "event",
    [
        Event.quality_check(result="maybe"),
        Event(EventType.QUALITY_CHECK, data={"externalId": "x"}),
        Event(EventType.OPERATOR_FEEDBACK, data={"relatedEventId": "x"}),
        Event(EventType.INVENTORY_COUNT, data={"itemCount": "4"}),
        Event.safety_alert(alert_type="no hat"),
        Event.safety_alert(alert_type="x", severity="severe"),
        Event.safety_alert(alert_type="x", description=LONG * 10_001),
        Event.custom(value=LONG * 10_001),
        Event.custom(value="v", external_id=LONG * 1_001),
        Event(EventType.CUSTOM, data={"value": "v", "result": "pass"}),
        Event.custom(value="v", use_case_id=""),
        Event.custom(value="v", use_case_id=LONG * 257),
        Event.custom(value="v", event_id=LONG * 257),
        Event.custom(value="v", device_id=""),
        Event.custom(value="v", stream_id=LONG * 257),
        Event.custom(value="v", workflow_id=LONG * 257),
        Event.custom(value="v", metadata={"key": LONG * 1_001}),
        Event.custom(value="v", metadata={"key": float("nan")}),
        Event.custom(value="v", metadata={f"k{n}": n for n in range(101)}),
        Event.custom(value="v", display_image_position=0),
        Event.custom(value="v", display_image_position=1, images=[Image()]),
        Event.custom(value="v", timestamp=datetime(1969, 12, 31, tzinfo=UTC)),
        Event.custom(value="v", timestamp=datetime(2262, 1, 1, tzinfo=UTC)),
        Event.custom(value="v", images=[Image(source_id="")]),
        Event.custom(value="v", images=[Image(FrameRef(1, bytes(16), 1), source_id="x")]),
        Event.custom(value="v", images=[Image(classifications=[Classification("c", 1.01)])]),
        Event.custom(value="v", images=[Image(instance_segmentations=[POLYGON])]),
        _detected(GOOD, ObjectDetection("c", float("nan"), 2, 3, 4, 0.5)),
        _detected(GOOD, ObjectDetection("c", 1, float("inf"), 3, 4, 0.5)),
        _detected(GOOD, ObjectDetection("c", 1, 2, -0.1, 4, 0.5)),
        _detected(GOOD, ObjectDetection("c", math.nextafter(COORDINATE_MAX, math.inf), 2, 3, 4, 1)),
        _detected(GOOD, ObjectDetection("c", 1, 2, 3, 3.5e38, 0.5)),
        _detected(GOOD, ObjectDetection("c", 1, 2, 3, 4, -0.0001)),
        _detected(*[GOOD] * 1_001),
    ],
)
def test_both_refuse_the_same_field(builder, event):
    with pytest.raises(EventValidationError) as refusal:
        event.validate()
    calls, others = _calls(event)

    status, sentence = builder.run([*calls, *others, "finish"])

    assert int(status) == VEV_E_INVALID
    assert sentence.partition(":")[0] == refusal.value.field


@pytest.mark.parametrize("language", ["c", "c++"])
def test_the_header_stands_on_its_own_in(language, tmp_path):
    compiler, standard = (
        (_compiler("CC", "cc"), "-std=c11")
        if language == "c"
        else (_compiler("CXX", "c++"), "-std=c++17")
    )
    source = tmp_path / "alone.c"
    source.write_text(
        '#include "vevents/event.h"\n'
        "int main(void) { vev_event event; return (int)sizeof event - 512; }\n"
    )

    result = subprocess.run(
        [
            *compiler,
            *("-x", language, standard, "-pedantic", "-Wconversion", "-Wshadow", *STRICT),
            *("-fsyntax-only", f"-I{CSRC / 'include'}", source),
        ],
        check=False,
        capture_output=True,
        encoding="utf-8",
    )

    assert result.returncode == 0, result.stderr
