"""What a detector returns, as an image of an event; and sinks for the loops that run detectors.

    supervision, Ultralytics, Roboflow inference, numpy -> Seen -> Event -> EventLog

Nothing of these packages is imported before an object of theirs is given, and numpy not before it
is needed. Coordinates are absolute pixels everywhere; boxes come out by their center.
"""

from __future__ import annotations

from vevents.adapters.annotations import Seen, from_arrays, rgb
from vevents.adapters.inference import from_inference
from vevents.adapters.pipeline import PipelineSink
from vevents.adapters.results import from_result
from vevents.adapters.sink import VisionEventSink
from vevents.adapters.supervision import from_detections, from_key_points
from vevents.adapters.ultralytics import from_ultralytics

__all__ = [
    "PipelineSink",
    "Seen",
    "VisionEventSink",
    "from_arrays",
    "from_detections",
    "from_inference",
    "from_key_points",
    "from_result",
    "from_ultralytics",
    "rgb",
]
