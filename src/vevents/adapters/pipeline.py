"""The callback for Roboflow's `InferencePipeline`, which nothing that goes wrong here can stop."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from vevents.adapters.results import from_result
from vevents.adapters.sink import VisionEventSink
from vevents.errors import EventValidationError
from vevents.log import EventLog

_LOGGER = logging.getLogger(__name__)


class PipelineSink:
    """Appends an event for what a pipeline sees: give it as `on_prediction`.

    An error costs that one event: it is counted, and the first one is logged as a warning.

    Args:
        sink: Where events go, open as long as the pipeline runs.
        every_s: At least so many seconds between two events of one source; 0 for every frame. A
            camera at 30 frames a second fills a log, and a workspace, within hours.
        empty: Whether frames on which nothing was found make events, too.
        frames: Whether the event keeps the frame. It is encoded on the pipeline's sink thread.
        streams: Stream ids by source id; a source that is not in it has its number.
        output: For Workflows: the name of the output that holds the predictions.
        raise_errors: Let errors out, for tests.
        clock: Seconds that never go back.

    Attributes:
        appended: Events so far.
        skipped: Frames with something on them that came too early after an event, see `every_s`.
        errors: Frames that raised an error.

    Example:
        >>> with VisionEventSink(directory, Event.custom(value="seen")) as sink:
        ...     pipeline = InferencePipeline.init(  # doctest: +SKIP
        ...         model_id="bolts/3",
        ...         video_reference=0,
        ...         on_prediction=PipelineSink(sink, streams={0: "press-03"}),
        ...     )
    """

    def __init__(
        self,
        sink: VisionEventSink,
        *,
        every_s: float = 1.0,
        empty: bool = False,
        frames: bool = True,
        streams: Mapping[int, str] | None = None,
        output: str | None = None,
        raise_errors: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sink = sink
        self._every_s = every_s
        self._empty = empty
        self._frames = frames
        self._streams = streams or {}
        self._output = output
        self._raise_errors = raise_errors
        self._clock = clock
        self._last_s: dict[Any, float] = {}
        self.appended = 0
        self.skipped = 0
        self.errors = 0

    def __call__(self, predictions: Any, video_frame: Any) -> None:
        """Append what there is on one frame, or on one of each source.

        Args:
            predictions: A response of a model, the outputs of a Workflow, or a list of them.
            video_frame: The frame that belongs to it, or a list; None in a list is no frame.
        """
        one = not isinstance(video_frame, list)
        frames = [video_frame] if one else video_frame
        answers = [predictions] if one else predictions
        try:
            pairs = list(zip(answers, frames, strict=True))
        except (TypeError, ValueError) as error:
            self._fail(error)
            return
        for answer, frame in pairs:
            if answer is None or frame is None:
                continue
            try:
                self._append(answer, frame)
            except Exception as error:
                self._fail(error)

    def _fail(self, error: Exception) -> None:
        self.errors += 1
        if self._raise_errors:
            raise error
        if self.errors == 1:
            _LOGGER.warning("a frame made no event, and later ones are only counted: %s", error)

    def _append(self, answer: Any, frame: Any) -> None:
        source = getattr(frame, "source_id", None)
        now_s = self._clock()
        early = now_s - self._last_s.get(source, -self._every_s) < self._every_s
        if early and self._empty:
            self.skipped += 1
            return
        seen = from_result(self._predictions(answer), self._sink.class_names)
        if not seen.total and not self._empty:
            return
        if early:
            self.skipped += 1
            return
        seq = self._sink.append_seen(
            seen,
            frame=frame.image if self._frames else None,
            timestamp=_moment(getattr(frame, "frame_timestamp", None)),
            stream_id=self._stream(source),
        )
        if seq is not None:
            self._last_s[source] = now_s
            self.appended += 1

    def _predictions(self, answer: Any) -> Any:
        if self._output is None:
            return answer
        if not isinstance(answer, Mapping) or self._output not in answer:
            there = ", ".join(map(str, answer)) if isinstance(answer, Mapping) else "none"
            raise EventValidationError("output", f"there is no {self._output!r}; there are {there}")
        return answer[self._output]

    def _stream(self, source: Any) -> str | None:
        return None if source is None else self._streams.get(source, str(source))


def _moment(timestamp: datetime | None) -> datetime | None:
    """Return when a frame was taken; None leaves it to the log."""
    # A time that is given is never repaired. Where nobody vouches for the device's clock, which
    # the frame's time is from, the log's own time is worth more: a flush can correct it.
    if timestamp is None or not EventLog.now().synced:
        return None
    # Without an offset it is the device's local time.
    return timestamp.astimezone() if timestamp.utcoffset() is None else timestamp
