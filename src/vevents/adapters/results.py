"""Whatever a detector returned: which adapter takes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from vevents.adapters.annotations import ImageFields, Seen
from vevents.adapters.inference import from_inference
from vevents.adapters.supervision import from_detections, from_key_points
from vevents.adapters.ultralytics import from_ultralytics
from vevents.detections import ClassNames


def from_result(
    result: Any, class_names: ClassNames | None = None, **fields: Unpack[ImageFields]
) -> Seen:
    """Make an image of any result that an adapter of this package takes.

    Args:
        result: `supervision.Detections` or `KeyPoints`, an Ultralytics `Results`, or a response of
            Roboflow's inference. A mapping whose `predictions` is one of the former, as a Workflow
            has it, stands for that.
        class_names: By class id, for results that hold ids alone.
        **fields: `frame`, `input_frame`, `label` of the `Image`.

    Raises:
        EventValidationError: It is none of these.
    """
    if isinstance(result, Mapping) and hasattr(result.get("predictions"), "xyxy"):
        result = result["predictions"]
    # By what they have, and not by their classes: no package is loaded for it, and whatever looks
    # like a result is one.
    if hasattr(result, "xyxy"):
        return from_detections(result, class_names, **fields)
    if hasattr(result, "xy"):
        return from_key_points(result, class_names, **fields)
    if hasattr(result, "names"):
        return from_ultralytics(result, **fields)
    return from_inference(result, **fields)
