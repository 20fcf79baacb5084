"""A sink for loops that use `supervision`: each call appends one event."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from types import TracebackType
from typing import Any, Self, cast

from vevents.adapters.annotations import Seen, rgb
from vevents.adapters.results import from_result
from vevents.adapters.supervision import is_boxes_only
from vevents.detections import ClassNames, DetectionWriter
from vevents.errors import EventValidationError
from vevents.event import ANNOTATION_COUNT_MAX, Event, Frame, Image, Pixels
from vevents.log import EventLog

Decide = Callable[[Image], Event | None]


class VisionEventSink:
    """Appends what a detector found to a log; the interface of supervision's own sinks.

    Args:
        log: The log, or its directory. A directory is opened by `open()` (or `with`) and closed
            again; an open log is left open.
        event: What the events have in common: type, data, metadata, device and so on, without id,
            time and images. Or a function that looks at the annotations and returns such an event,
            or None for nothing to report.
        class_names: By class id, for results that hold ids alone. With it, boxes without a frame
            take the way of `DetectionWriter`, which is several times faster.
        label: Label of the image, for example the camera's name.
        bgr: Whether frames that are arrays are BGR, as OpenCV has them, and not RGB.

    Raises:
        EventValidationError: The event breaks the contract.

    Example:
        >>> import numpy as np
        >>> import supervision as sv
        >>> found = sv.Detections(np.array([[0, 0, 10, 20]]), class_id=np.array([1]))
        >>> alert = Event.safety_alert(alert_type="no_helmet", device_id="gate-7")
        >>> with VisionEventSink(directory, alert, class_names=["helmet", "head"]) as sink:
        ...     sink.append(found, custom_data={"frame": 1})
        1
    """

    def __init__(
        self,
        log: EventLog | str | os.PathLike[str],
        event: Event | Decide,
        *,
        class_names: ClassNames | None = None,
        label: str | None = None,
        bgr: bool = True,
    ) -> None:
        if isinstance(event, Event):
            _check_common(event)
        self._event = event
        self._directory = None if isinstance(log, EventLog) else log
        self._log = log if isinstance(log, EventLog) else None
        self.class_names = class_names
        self._label = label
        self._bgr = bgr
        self._writer: DetectionWriter | None = None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def open(self) -> None:
        """Open the log, if a directory was given; opening twice is fine."""
        if self._log is None:
            assert self._directory is not None
            self._log = EventLog(self._directory)

    def close(self) -> None:
        """Close the log, if this sink has opened it; closing twice is fine."""
        self._writer = None
        if self._directory is not None and self._log is not None:
            self._log.close()
            self._log = None

    def append(
        self,
        detections: Any,
        custom_data: Mapping[str, Any] | None = None,
        *,
        frame: Frame | None = None,
        timestamp: datetime | None = None,
        stream_id: str | None = None,
        sync: bool = False,
    ) -> int | None:
        """Append one event.

        Args:
            detections: What `from_result()` takes: `supervision.Detections` and others.
            custom_data: Goes into the event's metadata: texts, numbers and booleans. What is None
                is left out. Values for each detection have no place in an event.
            frame: The picture: an array (see `bgr`), encoded bytes, or a path.
            timestamp: When it was seen, timezone-aware; None for now.
            stream_id: Goes before the event's own.
            sync: As for `EventLog.append`.

        Returns:
            The event's sequence number, or None where the function decided against an event.

        Raises:
            EventValidationError: Something breaks the contract, or the log is not open; nothing is
                appended.
            VeventsError, OSError: As for `EventLog.append`.
        """
        log = self._opened()
        alone = not custom_data and frame is None and timestamp is None and stream_id is None
        if alone and self._is_fast(detections):
            try:
                return self._fast(log).append(
                    detections.xyxy, detections.confidence, detections.class_id, sync=sync
                )
            except EventValidationError:
                # The other way mends what can be mended (a confidence of 1.0000001, a class
                # without a name) and names the field of what cannot.
                pass
        return self.append_seen(
            from_result(detections, self.class_names),
            custom_data,
            frame=frame,
            timestamp=timestamp,
            stream_id=stream_id,
            sync=sync,
        )

    def append_seen(
        self,
        seen: Seen,
        custom_data: Mapping[str, Any] | None = None,
        *,
        frame: Frame | None = None,
        timestamp: datetime | None = None,
        stream_id: str | None = None,
        sync: bool = False,
    ) -> int | None:
        """Append one event of what an adapter returned; otherwise as `append()`."""
        log = self._opened()
        event = self._event
        if not isinstance(event, Event):
            decided = event(seen.image)
            if decided is None:
                return None
            _check_common(decided)
            event = decided
        if self._bgr and hasattr(frame, "dtype"):
            frame = rgb(cast("Pixels", frame))
        image = seen.image
        if frame is not None or self._label is not None:
            image = replace(image, frame=frame, label=self._label)
        metadata = {**(event.metadata or {}), **_metadata(custom_data), **seen.metadata}
        event = replace(
            event,
            images=(image,),
            metadata=metadata or None,
            timestamp=timestamp,
            stream_id=event.stream_id if stream_id is None else stream_id,
        )
        return log.append(event, sync=sync).seq

    def _opened(self) -> EventLog:
        if self._log is None:
            raise EventValidationError("log", "is not open; use the sink in a with statement")
        return self._log

    def _is_fast(self, detections: Any) -> bool:
        return (
            self.class_names is not None
            and isinstance(self._event, Event)
            and is_boxes_only(detections)
            and len(detections.xyxy) <= ANNOTATION_COUNT_MAX
        )

    def _fast(self, log: EventLog) -> DetectionWriter:
        if self._writer is None:
            assert isinstance(self._event, Event)
            assert self.class_names is not None
            self._writer = DetectionWriter(log, self._event, self.class_names, label=self._label)
        return self._writer


def _check_common(event: Event) -> None:
    for field in ("event_id", "timestamp", "display_image_position"):
        if getattr(event, field) is not None:
            raise EventValidationError(field, "differs from event to event; leave it out here")
    if event.images:
        raise EventValidationError("images", "each event gets its own; leave them out here")
    event.validate()


def _metadata(custom_data: Mapping[str, Any] | None) -> dict[str, Any]:
    # numpy's booleans are not Python's, and all its scalars have item().
    return {
        key: value.item() if hasattr(value, "dtype") and value.ndim == 0 else value
        for key, value in (custom_data or {}).items()
        if value is not None
    }
