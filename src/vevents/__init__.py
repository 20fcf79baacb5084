"""vevents: an embedded, crash-safe, bounded event log for computer vision.

    from vevents import Event, EventLog

    with EventLog("log") as log:
        log.append(Event.custom(value="door opened", use_case_id="dock-7"))

`vevents flush` delivers what was appended to Roboflow's Vision Events API.
"""

from __future__ import annotations

from vevents import errors
from vevents._ffi import version as _version
from vevents.detections import DetectionWriter
from vevents.errors import EventValidationError, VeventsError
from vevents.event import (
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
from vevents.log import EventLog, Receipt, Record, StreamStats

__version__ = _version()

__all__ = [
    "Classification",
    "DetectionWriter",
    "Event",
    "EventLog",
    "EventType",
    "EventValidationError",
    "FrameRef",
    "Image",
    "InstanceSegmentation",
    "Keypoint",
    "KeypointDetection",
    "ObjectDetection",
    "Receipt",
    "Record",
    "StreamStats",
    "VeventsError",
    "__version__",
    "errors",
]
