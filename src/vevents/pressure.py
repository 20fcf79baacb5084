"""The pressure ladder: what becomes of a new frame while media.ring runs out of room.

    share of media.ring that is not delivered -> step of the ladder -> what is stored of a frame

Without a ladder, the oldest frames make room for the newest (or are refused), whole. With one,
new frames get cheaper step by step, so that an outage costs detail before it costs moments:

    quality   the same picture as a JPEG of lower quality; coordinates hold
    smaller   fewer pixels; the boxes, outlines and keypoints of that image are scaled with it
    crops     everything but the detections is flattened to gray; coordinates hold
    none      the frame is left out; the event, its label and its detections stay

No step changes what an event says. Each one is recorded in the event's metadata, and a frame is
only ever replaced by fewer bytes. What cannot be re-encoded (a broken image, a format that JPEG
cannot stand for, no library to do it) stays as it is until a step that leaves frames out.

Re-encoding happens on the thread that appends; finding out how full the ring is does not.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from vevents import forks, frames
from vevents.errors import ConfigurationError, LogError
from vevents.event import (
    METADATA_KEY_COUNT_MAX,
    METADATA_TEXT_LENGTH_MAX,
    Event,
    EventType,
    Frame,
    FrameRef,
    Image,
    InstanceSegmentation,
    Keypoint,
    KeypointDetection,
    Pixels,
)
from vevents.frames import Action

STEP_KEY: Final = "vevents_frame_step"
COUNT_KEY: Final = "vevents_frames_shed"
ORIGINAL_KEY: Final = "vevents_frame_original"

# From the mildest to the harshest.
ACTIONS: Final[tuple[Action, ...]] = ("quality", "smaller", "crops", "none")
_KEYS: Final = (STEP_KEY, COUNT_KEY, ORIGINAL_KEY)
# How old the figure may get before it is measured again, beside the caller.
_REFRESH_S: Final = 2.0
# Nothing is shed on a figure older than this: the backlog may have gone out since.
_STALE_S: Final = 10.0
# A ring with less than this in it is as good as empty.
_EMPTY_SHARE: Final = 0.01

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a ladder.

    Attributes:
        above: Share of media.ring, 0 to 1, that undelivered frames fill when the step begins.
        action: `"quality"`, `"smaller"`, `"crops"` or `"none"`.
        quality: Of the JPEG that is made, 1 to 100; not used by `"none"`.
        scale: Of both sides, between 0 and 1; used by `"smaller"` alone.

    Raises:
        ConfigurationError: A value is out of range.
    """

    above: float
    action: Action
    quality: int = 50
    scale: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.above <= 1:
            raise ConfigurationError(f"pressure: a step begins above {self.above}; from 0 to 1")
        if self.action not in ACTIONS:
            raise ConfigurationError(
                f"pressure: {self.action!r} is no action; there are {', '.join(ACTIONS)}"
            )
        if not 1 <= self.quality <= 100:
            raise ConfigurationError(f"pressure: quality={self.quality}; from 1 to 100")
        if not 0 < self.scale < 1:
            raise ConfigurationError(f"pressure: scale={self.scale}; more than 0, less than 1")


@dataclass(frozen=True, slots=True)
class Ladder:
    """Steps in the order of their thresholds, and who is spared them.

    Attributes:
        steps: Thresholds rise from each to the next; none at all turns the ladder off.
        exempt: Events of these types keep their frames whole at every step.
        slack: A step ends when the share has fallen by so much below its threshold, so that a
            share that wavers around it does not make every other frame look different.

    Raises:
        ConfigurationError: A value is out of range.
    """

    steps: Sequence[Step] = ()
    exempt: frozenset[EventType] = frozenset((EventType.SAFETY_ALERT,))
    slack: float = 0.05

    def __post_init__(self) -> None:
        listed = isinstance(self.steps, Iterable)
        object.__setattr__(self, "steps", tuple(self.steps) if listed else ())
        object.__setattr__(self, "exempt", frozenset(map(_event_type, self.exempt)))
        if not listed or not all(isinstance(step, Step) for step in self.steps):
            raise ConfigurationError("pressure: expected steps; a text is read by parse_ladder()")
        for lower, higher in zip(self.steps, self.steps[1:], strict=False):
            if higher.above <= lower.above:
                raise ConfigurationError(
                    f"pressure: a step above {higher.above} follows one above {lower.above}; "
                    "thresholds must rise"
                )
        if not 0 <= self.slack <= 1:
            raise ConfigurationError(f"pressure: slack={self.slack}; from 0 to 1")

    def level(self, share: float, level: int = 0) -> int:
        """Return how many steps are climbed at a share, coming from `level`.

        Example:
            >>> ladder = Ladder([Step(0.5, "quality"), Step(0.9, "none")])
            >>> ladder.level(0.6), ladder.level(0.86, level=2), ladder.level(0.84, level=2)
            (1, 2, 1)
        """
        up = sum(share >= step.above for step in self.steps)
        # A step at 0 is the user's "always": no slack reaches below an empty ring.
        held = sum(share >= max(0.0, step.above - self.slack) for step in self.steps)
        return max(up, min(level, held))


class Pressure(NamedTuple):
    """How full media.ring is and what the ladder has done since the log was opened.

    Attributes:
        share: Of media.ring, that undelivered frames fill; 0 to 1.
        action: What is done to new frames now, or None.
        shed: Frames by what was done to them.
    """

    share: float
    action: Action | None
    shed: dict[Action, int]


def parse_ladder(text: str) -> Ladder:
    """Read a ladder as it stands in a setting.

    Args:
        text: Steps with commas between them, each `ABOVE:ACTION`. An action is `quality=50`,
            `scale=0.5` (smaller), `crops` or `none`; another quality is added with a plus, as in
            `scale=0.5+quality=60`. `exempt=TYPE+TYPE` names the event types that keep their
            frames, instead of `safety_alert`; `exempt=` none. `off` is no ladder.

    Raises:
        ConfigurationError: It is not such a text, or a value is out of range.

    Example:
        >>> ladder = parse_ladder("0.5:quality=40,0.9:none")
        >>> [(step.above, step.action) for step in ladder.steps], ladder.steps[0].quality
        ([(0.5, 'quality'), (0.9, 'none')], 40)
    """
    if text.strip() == "off":
        return Ladder()
    steps: list[Step] = []
    exempt = Ladder().exempt
    for part in text.split(","):
        name, equals, names = part.strip().partition("=")
        if name.strip() == "exempt" and equals:
            exempt = frozenset(_event_type(one) for one in names.split("+") if one.strip())
        else:
            steps.append(_parse_step(part.strip()))
    return Ladder(steps, exempt)


def _parse_step(text: str) -> Step:
    above, _, actions = text.partition(":")
    words: dict[str, str] = {}
    for word in actions.split("+"):
        key, _, value = word.partition("=")
        words[key.strip()] = value.strip()
    try:
        values: dict[str, Any] = {"above": float(above)}
        if words.keys() - {"quality", "scale", "crops", "none"}:
            raise ValueError
        if "quality" in words:
            values["quality"] = int(words["quality"])
        if "scale" in words:
            values["scale"] = float(words["scale"])
        named = [name for name in ("scale", "crops", "none") if name in words]
        # A quality beside "none" or two actions at once say that something else was meant.
        if len(named) > 1 or (named == ["none"] and len(words) > 1):
            raise ValueError
        if any(words.get(flag) for flag in ("crops", "none")):
            raise ValueError
    except ValueError:
        raise ConfigurationError(
            f"pressure: {text!r} is no step; one is like 0.5:quality=50, 0.7:scale=0.5+quality=50, "
            "0.85:crops or 0.95:none"
        ) from None
    actions_by_word: dict[str, Action] = {"scale": "smaller", "crops": "crops", "none": "none"}
    return Step(action=actions_by_word[named[0]] if named else "quality", **values)


def _event_type(text: str) -> EventType:
    try:
        return EventType(text.strip())
    except ValueError:
        raise ConfigurationError(
            f"pressure: {text!r} is no event type; there are {', '.join(EventType)}"
        ) from None


class Filling(NamedTuple):
    """What one measurement of the ring shows.

    Attributes:
        share: Of the ring, that is not delivered, if all frames were of one size; 0 to 1.
        pending: Frames that are not delivered.
        mean_size: Bytes of a frame, delivered or not.
        capacity: Bytes that the ring holds.
    """

    share: float
    pending: int
    mean_size: float
    capacity: int


class Gauge:
    """How full media.ring is, cheap enough to be asked before every frame.

    Measuring reads the delivery states of the whole ring, which takes milliseconds. So it is done
    beside the caller, on a thread that lives no longer than that, and what this log appends in
    between is added to the last figure. What other processes append and deliver shows after the
    next measurement.

    The ring knows how many frames are not delivered, and not how large they are. Behind an outage
    that ended with small frames, a few whole ones would look like nothing. So the frames that this
    log appended since the ring was last empty count with their own sizes.

    Args:
        measure: Looks at the ring.
        clock: Seconds that never go back.
    """

    def __init__(
        self, measure: Callable[[], Filling], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._measure = measure
        self._clock = clock
        self.renew_locks()
        self._count = 0
        self._bytes = 0
        self._count_when_empty = 0
        self._bytes_when_empty = 0
        self._share = 0.0
        self._capacity = 1
        self._bytes_then = 0
        self._measured_s = -math.inf
        self._thread: threading.Thread | None = None
        forks.call_in_children(self.renew_locks)

    def renew_locks(self) -> None:
        """In the child of a fork nobody is left to open the ones that were held."""
        self._lock = threading.RLock()  # a signal's handler may append amid an append
        self._starting = threading.Lock()

    @property
    def age_s(self) -> float:
        """Seconds since the ring was measured; infinite before the first time."""
        return self._clock() - self._measured_s

    def share(self) -> float:
        """Return the share of the ring that undelivered frames fill, 0 to 1."""
        with self._lock:
            return min(1.0, self._share + (self._bytes - self._bytes_then) / self._capacity)

    def add(self, size: int) -> None:
        """Count a frame that was appended to the ring."""
        with self._lock:
            self._count += 1
            self._bytes += size

    def refresh(self) -> None:
        """Measure now."""
        with self._lock:
            began_s, count, size = self._clock(), self._count, self._bytes
        share, pending, mean_size, capacity = self._measure()
        with self._lock:
            own = count - self._count_when_empty
            if own > 0:
                own_size = (size - self._bytes_when_empty) * min(1.0, pending / own)
                others_size = max(0, pending - own) * mean_size
                share = max(share, (own_size + others_size) / capacity)
            if share < _EMPTY_SHARE:
                self._count_when_empty, self._bytes_when_empty = count, size
            self._share, self._capacity = share, capacity
            self._bytes_then, self._measured_s = size, began_s

    def refresh_beside(self) -> None:
        """Measure on another thread if the figure is old and nobody is at it."""
        if self.age_s < _REFRESH_S or not self._starting.acquire(blocking=False):
            return
        try:
            if self._thread is not None and self._thread.is_alive():
                return
            # Not a daemon: an interpreter that ends waits the milliseconds, instead of taking the
            # log away from under the thread.
            self._thread = threading.Thread(target=self._refresh_quietly, name="vevents-pressure")
            try:
                self._thread.start()
            except RuntimeError:
                # No more threads, or the interpreter ends: the old figure has to do.
                self._thread = None
        finally:
            self._starting.release()

    def _refresh_quietly(self) -> None:
        try:
            self.refresh()
        except (LogError, OSError) as error:
            # A failing disk is reported by the append itself.
            _LOGGER.debug("media.ring cannot be measured: %s", error)

    def close(self) -> None:
        """Wait for the measurement that is under way."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()


class Shedder:
    """Applies a ladder to events, and counts what it did. Any thread may call any method.

    Args:
        ladder: With one step or more.
        gauge: How full the ring is.
        jpeg_quality: With which arrays are encoded when nothing is shed, 1 to 100.
    """

    def __init__(self, ladder: Ladder, gauge: Gauge, jpeg_quality: int) -> None:
        self.gauge = gauge
        self._ladder = ladder
        self._jpeg_quality = jpeg_quality
        self.renew_locks()
        self._level = 0
        self._counts: dict[Action, int] = dict.fromkeys(ACTIONS, 0)
        self._warned = False
        forks.call_in_children(self.renew_locks)

    def renew_locks(self) -> None:
        """As for the gauge."""
        self._lock = threading.RLock()

    def look(self) -> Pressure:
        """Measure now, and return the figures."""
        self.gauge.refresh()
        step = self._climb()
        with self._lock:
            shed = dict(self._counts)
        return Pressure(self.gauge.share(), None if step is None else step.action, shed)

    def shed(self, event: Event, is_stored: Callable[[bytes], bool]) -> tuple[Event, Action | None]:
        """Do to the frames of an event what the ladder wants now.

        Args:
            event: A valid event.
            is_stored: Whether the frame with this digest is in the ring already. It costs no room
                again, and stays as it is.

        Returns:
            The event with the frames that are to be stored, and the harshest thing that was done
            to one of them; the event as it came and None when nothing was.

        Raises:
            EventValidationError: A frame is no image.
            EventTooLargeError: A frame has more than 20 MB.
            OSError: The file of a frame cannot be read.
        """
        if not any(map(_brings_frames, event.images)):
            return event, None
        # What is shed has to be told. Where there is no room to tell it, frames stay whole.
        if len(event.metadata or ()) + len(_KEYS) > METADATA_KEY_COUNT_MAX:
            return event, None
        step = self._step_for(event.event_type)
        if step is None:
            return event, None
        done: list[_Done] = []
        images: list[Image] = []
        position = event.display_image_position
        for index, image in enumerate(event.images):
            made = self._shed_image(_open_frames(image, index, is_stored), image, step)
            done += made
            changed = _with_frames(image, made)
            if made and step.action == "none" and changed == Image():
                # Nothing is left of this entry, and an empty one is not to be sent.
                if position is not None and index < int(event.display_image_position or 0):
                    position -= 1
                continue
            images.append(changed)
        if not done:
            return event, None
        if position is not None:
            position = min(position, len(images) - 1) if images else None
        harshest = max((one.action for one in done), key=ACTIONS.index)
        with self._lock:
            for one in done:
                self._counts[one.action] += 1
        told = {STEP_KEY: harshest, COUNT_KEY: len(done), ORIGINAL_KEY: _describe_all(done)}
        return replace(
            event,
            images=tuple(images),
            display_image_position=position,
            metadata={**(event.metadata or {}), **told},
        ), harshest

    def _step_for(self, event_type: EventType) -> Step | None:
        if event_type in self._ladder.exempt:
            return None
        gauge = self.gauge
        if math.isinf(gauge.age_s):
            self._refresh()
        step = self._climb()
        if step is not None and gauge.age_s > _STALE_S:
            self._refresh()
            step = self._climb()
        gauge.refresh_beside()
        return step

    def _refresh(self) -> None:
        try:
            self.gauge.refresh()
        except OSError as error:
            # A failing disk is reported by the append itself.
            _LOGGER.warning("media.ring cannot be measured: %s", error)

    def _climb(self) -> Step | None:
        share = self.gauge.share()
        with self._lock:
            before, self._level = self._level, self._ladder.level(share, self._level)
            level = self._level
        step = self._ladder.steps[level - 1] if level else None
        if level != before:
            now = "whole again" if step is None else f"shed now: {step.action}"
            _LOGGER.info("%.0f%% of media.ring is undelivered; new frames are %s", share * 100, now)
        return step

    def _shed_image(self, opened: list[_Frame], image: Image, step: Step) -> list[_Done]:
        """Return what was made of the frames of one image entry; those left alone are not in it."""
        if step.action == "none":
            return [_Done(frame, "none", None, None) for frame in opened]
        if step.action == "smaller" and _is_complete(image, opened):
            # All or none: a viewer may draw the annotations on either of the two.
            made = [self._remake(frame, step, "smaller", ()) for frame in opened]
            if None not in made:
                return [one for one in made if one is not None]
        boxes = _boxes(image) if step.action == "crops" else []
        # The annotations refer to the input image; to the one that is shown if there is no other.
        has_input = image.input_frame is not None or image.input_source_id is not None
        reference = "input_frame" if has_input else "frame"
        seen = next((frame for frame in opened if reference in frame.names), None)
        made = []
        for frame in opened:
            cut = boxes and seen is not None and self._lies_on(frame, seen)
            made.append(self._remake(frame, step, "crops" if cut else "quality", boxes))
        return [one for one in made if one is not None]

    def _lies_on(self, frame: _Frame, seen: _Frame) -> bool:
        """Whether the boxes found on one frame mark the same places on another."""
        try:
            mine, its = frame.pixels(), seen.pixels()
        except ConfigurationError:
            return False
        if mine is None or its is None or mine.shape[:2] != its.shape[:2]:
            return False
        # Whether the boxes of a turned picture are turned as well is not known here.
        return not any(frames.is_turned(one.exif) for one in (frame, seen))

    def _remake(
        self, frame: _Frame, step: Step, action: Action, boxes: Sequence[_Corners]
    ) -> _Done | None:
        """Encode a frame anew, or return None when it is to stay as it is."""
        given, quality = frame.given, step.quality
        try:
            pixels = frame.pixels()
            if pixels is None:
                return None
            if action == "smaller":
                pixels = frames.shrink(pixels, step.scale)
            elif action == "crops":
                flat = frames.flatten(pixels, boxes)
                action, pixels = ("quality", pixels) if flat is None else (action, flat)
            if not isinstance(given, bytes):
                quality = min(quality, self._jpeg_quality)
                if action == "quality" and quality == self._jpeg_quality:
                    return None
            data = frames.encode_pixels(pixels, quality, field=frame.field)
        except ConfigurationError as error:
            if not self._warned:
                self._warned = True
                _LOGGER.warning("%s; until then frames are stored whole, or not at all", error)
            return None
        except Exception as error:
            # Whatever one picture does to the libraries, its event goes into the log.
            _LOGGER.debug("%s cannot be encoded anew: %r", frame.field, error)
            return None
        if isinstance(given, bytes):
            data = frames.with_exif(data, frame.exif)
            if len(data) >= len(given):
                return None
        return _Done(frame, action, data, (pixels.shape[1], pixels.shape[0]))


# --- One frame -------------------------------------------------------------------------------

# Left, top, right and bottom in pixels.
_Corners = tuple[float, float, float, float]


@dataclass(slots=True)
class _Frame:
    """One picture of an image entry, shown or seen by the model or both.

    Attributes:
        field: Where it stands in the event, for messages.
        names: `frame`, `input_frame` or both: the fields of `Image` that hold it.
        given: An encoded image, or an array.
        digest: Of an encoded image.
    """

    field: str
    names: list[str]
    given: bytes | Pixels
    digest: bytes | None
    _pixels: Pixels | None = None
    _decoded: bool = False

    def pixels(self) -> Pixels | None:
        """Decode it, once; None if that cannot be done."""
        if not self._decoded:
            given = self.given
            self._pixels = frames.decode_image(given) if isinstance(given, bytes) else given
            self._decoded = True
        return self._pixels

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height if they are known without decoding."""
        if self._pixels is not None:
            return self._pixels.shape[1], self._pixels.shape[0]
        if isinstance(self.given, bytes):
            return frames.pixel_size(self.given)
        return self.given.shape[1], self.given.shape[0]

    @property
    def exif(self) -> bytes:
        return frames.exif_segment(self.given) if isinstance(self.given, bytes) else b""


class _Done(NamedTuple):
    """What was made of a frame: its new bytes and pixels, both None if it was left out."""

    frame: _Frame
    action: Action
    data: bytes | None
    size: tuple[int, int] | None


def _brings_frames(image: Image) -> bool:
    return any(
        frame is not None and not isinstance(frame, FrameRef)
        for frame in (image.frame, image.input_frame)
    )


def _open_frames(image: Image, index: int, is_stored: Callable[[bytes], bool]) -> list[_Frame]:
    """Return the frames of an image entry that would take room in the ring, each once."""
    found: list[_Frame] = []
    for name, key in (("frame", "frame"), ("input_frame", "inputFrame")):
        frame: Frame | None = getattr(image, name)
        if frame is None or isinstance(frame, FrameRef):
            continue
        path = f"images[{index}].{key}"
        given = frames.open_frame(frame, field=path)
        digest = frames.digest(given) if isinstance(given, bytes) else None
        same = [one for one in found if one.given is given or (digest and one.digest == digest)]
        if same:
            same[0].names.append(name)
        elif digest is None or not is_stored(digest):
            found.append(_Frame(path, [name], given, digest))
    return found


def _is_complete(image: Image, opened: Sequence[_Frame]) -> bool:
    """Whether these are all the pictures of an entry: none is uploaded or in the ring already."""
    pictures = (image.frame, image.source_id, image.input_frame, image.input_source_id)
    return sum(len(one.names) for one in opened) == sum(one is not None for one in pictures)


def _with_frames(image: Image, made: Sequence[_Done]) -> Image:
    """Return an image entry with what was made of its frames, its annotations scaled with them."""
    if not made:
        return image
    new: dict[str, bytes | None] = {name: one.data for one in made for name in one.frame.names}
    image = replace(
        image,
        frame=new.get("frame", image.frame),
        input_frame=new.get("input_frame", image.input_frame),
    )
    # The annotations refer to the last of the two: the input image if there is one.
    seen = made[-1]
    if seen.action != "smaller" or seen.size is None or seen.frame.size is None:
        return image
    scale_x, scale_y = (new / old for new, old in zip(seen.size, seen.frame.size, strict=True))

    def scaled(boxes: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(
            replace(
                box,
                x=box.x * scale_x,
                y=box.y * scale_y,
                width=box.width * scale_x,
                height=box.height * scale_y,
            )
            for box in boxes
        )

    return replace(
        image,
        object_detections=scaled(image.object_detections),
        instance_segmentations=tuple(
            replace(one, points=tuple((x * scale_x, y * scale_y) for x, y in one.points))
            for one in scaled(image.instance_segmentations)
        ),
        keypoints=tuple(
            replace(
                one,
                keypoints=tuple(
                    Keypoint(point.id, point.x * scale_x, point.y * scale_y)
                    for point in one.keypoints
                ),
            )
            for one in scaled(image.keypoints)
        ),
    )


def _boxes(image: Image) -> list[_Corners]:
    """Return what to keep of an image: each detection with its outline or its keypoints."""
    found = []
    for box in (*image.object_detections, *image.instance_segmentations, *image.keypoints):
        half_width, half_height = box.width / 2, box.height / 2
        xs = [box.x - half_width, box.x + half_width]
        ys = [box.y - half_height, box.y + half_height]
        if isinstance(box, InstanceSegmentation):
            xs += [x for x, _ in box.points]
            ys += [y for _, y in box.points]
        elif isinstance(box, KeypointDetection):
            xs += [point.x for point in box.keypoints]
            ys += [point.y for point in box.keypoints]
        found.append((float(min(xs)), float(min(ys)), float(max(xs)), float(max(ys))))
    return found


def _describe_all(done: Sequence[_Done]) -> str:
    """Say in one text of metadata what the frames were; as many as find room in it."""
    text = ""
    for one in done:
        line = _describe(one)
        if len(text) + len(line) + 2 > METADATA_TEXT_LENGTH_MAX:
            break
        text += f"; {line}" if text else line
    return text


def _describe(done: _Done) -> str:
    frame = done.frame
    words = [str(done.action)]
    if frame.size is not None:
        words.append("{}x{}".format(*frame.size))
        if done.size not in (None, frame.size):
            words[-1] += " to {}x{}".format(*done.size or ())
    before = f"{len(frame.given)} bytes" if isinstance(frame.given, bytes) else "array"
    words.append(before if done.data is None else f"{before} to {len(done.data)} bytes")
    if frame.digest is not None:
        words.append(f"blake2b-128 {frame.digest.hex()}")
    return f"{frame.field}: {', '.join(words)}"
