"""The block as the Workflows engine sees it: manifest, inputs, outputs.

Names and kinds of the inputs and outputs are those of `roboflow_core/roboflow_vision_events@v1`,
plus `device_id`, `stream_id` and `priority`. Nothing that happens here ends a Workflow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, Field, NonNegativeFloat, NonNegativeInt
from roboflow_workflows.execution_engine.entities.base import OutputDefinition
from roboflow_workflows.execution_engine.entities.types import (
    BOOLEAN_KIND,
    CLASSIFICATION_PREDICTION_KIND,
    FLOAT_KIND,
    IMAGE_KIND,
    INSTANCE_SEGMENTATION_PREDICTION_KIND,
    INTEGER_KIND,
    KEYPOINT_DETECTION_PREDICTION_KIND,
    OBJECT_DETECTION_PREDICTION_KIND,
    ROBOFLOW_SOLUTION_KIND,
    STRING_KIND,
    Selector,
)
from roboflow_workflows.prototypes.block import WorkflowBlock, WorkflowBlockManifest

from vevents.log import EventLog
from vevents.workflows.candidate import candidate_of
from vevents.workflows.outlet import Outlet

if TYPE_CHECKING:
    AnyValue = Any
    FromImage = Any
    FromPredictions = Any
    FromText = Any
    FromInteger = Any
    FromNumber = Any
    FromBoolean = Any
    FromUseCase = Any
else:
    # The engine's selectors are made by a call, which a type checker takes for no type.
    AnyValue = Selector()
    FromImage = Selector(kind=[IMAGE_KIND])
    FromPredictions = Selector(
        kind=[
            OBJECT_DETECTION_PREDICTION_KIND,
            INSTANCE_SEGMENTATION_PREDICTION_KIND,
            KEYPOINT_DETECTION_PREDICTION_KIND,
            CLASSIFICATION_PREDICTION_KIND,
        ]
    )
    FromText = Selector(kind=[STRING_KIND])
    FromInteger = Selector(kind=[INTEGER_KIND])
    FromNumber = Selector(kind=[INTEGER_KIND, FLOAT_KIND])
    FromBoolean = Selector(kind=[BOOLEAN_KIND])
    FromUseCase = Selector(kind=[ROBOFLOW_SOLUTION_KIND, STRING_KIND])

_LONG_DESCRIPTION = """
Writes a vision event, with its images and predictions, to the vevents log on this device. Nothing
is sent from here: `vevents flush` or `vevents agent` delivers the log to the Vision Events API when
there is a network, each event once.

The inputs are those of the Roboflow Vision Events block, so changing the type of the block is all
it takes. Where the log is, says the environment (`VEVENTS_DIR`) or vevents.toml, and not the
Workflow.

Within a cooldown the most important event of each stream is held and written when the window ends.
The others are counted, and the counts stand in the metadata of the event that is written
(`vevents_suppressed`). The most important event is the one with the highest priority, then of the
gravest type (alerts before failed checks before counts before passed checks), then with the surest
prediction.
"""


def _relevant(*event_types: str, required: bool = True) -> dict[str, Any]:
    relevant: dict[str, Any] = {"values": list(event_types)}
    if required:
        relevant["required"] = True
    return {"relevant_for": {"event_type": relevant}}


class VisionEventLogManifest(WorkflowBlockManifest):
    """What the engine and the editor know about the block."""

    model_config = ConfigDict(
        json_schema_extra={
            "name": "Vision Event Log",
            "version": "v1",
            "short_description": "Write vision events to the crash-safe log on this device.",
            "long_description": _LONG_DESCRIPTION,
            "license": "MIT",
            "block_type": "sink",
            "ui_manifest": {
                "section": "data_storage",
                "icon": "fal fa-hard-drive",
                "requires_rf_key": False,
            },
        }
    )
    type: Literal["vevents/vision_events@v1"]
    input_image: FromImage | None = Field(
        default=None,
        title="Input Image",
        description="The image that the model saw; predictions refer to it. Its frame's time "
        "becomes the time of the event.",
        examples=["$inputs.image"],
        json_schema_extra={"always_visible": True},
    )
    output_image: FromImage | None = Field(
        default=None,
        title="Output Image",
        description="The image to show, for example that of a visualization block.",
        examples=["$steps.visualization.image"],
        json_schema_extra={"always_visible": True},
    )
    predictions: FromPredictions | None = Field(
        default=None,
        title="Predictions",
        description="What a model found: detections, outlines, keypoints or classes.",
        examples=["$steps.object_detection_model.predictions"],
        json_schema_extra={"always_visible": True},
    )
    event_type: (
        Literal["quality_check", "inventory_count", "safety_alert", "custom", "operator_feedback"]
        | FromText
    ) = Field(
        title="Event Type",
        description="What the event reports.",
        examples=["quality_check", "$inputs.event_type"],
        json_schema_extra={"always_visible": True},
    )
    solution: FromUseCase | str = Field(
        title="Use Case",
        description="The use case that receives the event.",
        examples=["my-use-case", "$inputs.use_case"],
    )
    external_id: FromText | str | None = Field(
        default=None,
        title="External ID",
        description="Id of the item in another system, at most 1,000 characters.",
        examples=["batch-2025-001", "$inputs.external_id"],
        json_schema_extra=_relevant(
            "quality_check", "inventory_count", "safety_alert", "custom", required=False
        ),
    )
    qc_result: FromText | Literal["pass", "fail"] | None = Field(
        default=None,
        title="Result",
        description="Result of the quality check.",
        examples=["pass", "$steps.qc_logic.result"],
        json_schema_extra={**_relevant("quality_check"), "always_visible": True},
    )
    location: FromText | str | None = Field(
        default=None,
        title="Location",
        description="Where was counted.",
        examples=["warehouse-A", "$inputs.location"],
        json_schema_extra=_relevant("inventory_count"),
    )
    item_count: FromInteger | int | None = Field(
        default=None,
        title="Item Count",
        description="How many items there are.",
        examples=[42, "$steps.counter.count"],
        json_schema_extra={**_relevant("inventory_count"), "always_visible": True},
    )
    item_type: FromText | str | None = Field(
        default=None,
        title="Item Type",
        description="What was counted.",
        examples=["widget", "$inputs.item_type"],
        json_schema_extra=_relevant("inventory_count"),
    )
    alert_type: FromText | str | None = Field(
        default=None,
        title="Alert Type",
        description="Letters, digits, '_' and '-'.",
        examples=["no_hardhat", "$steps.classifier.top_class"],
        json_schema_extra={**_relevant("safety_alert"), "always_visible": True},
    )
    severity: FromText | Literal["low", "medium", "high"] | None = Field(
        default=None,
        title="Severity",
        description="How grave the alert is.",
        examples=["high", "$inputs.severity"],
        json_schema_extra=_relevant("safety_alert"),
    )
    alert_description: FromText | str | None = Field(
        default=None,
        title="Description",
        description="What happened, at most 10,000 characters.",
        examples=["Person without a hard hat at gate 2"],
        json_schema_extra=_relevant("safety_alert"),
    )
    custom_value: FromText | str | None = Field(
        default=None,
        title="Value",
        description="Free text, at most 10,000 characters.",
        examples=["door opened"],
        json_schema_extra={**_relevant("custom"), "always_visible": True},
    )
    related_event_id: FromText | str | None = Field(
        default=None,
        title="Related Event ID",
        description="The event that the feedback is about.",
        examples=["$inputs.related_event_id"],
        json_schema_extra={**_relevant("operator_feedback"), "always_visible": True},
    )
    feedback: FromText | Literal["correct", "incorrect", "inconclusive"] | None = Field(
        default=None,
        title="Feedback",
        description="The operator's verdict on that event.",
        examples=["correct", "$inputs.feedback"],
        json_schema_extra=_relevant("operator_feedback"),
    )
    device_id: FromText | str | None = Field(
        default=None,
        title="Device ID",
        description="The device that the event comes from, at most 256 characters.",
        examples=["press-03", "$inputs.device_id"],
    )
    stream_id: FromText | str | None = Field(
        default=None,
        title="Stream ID",
        description="The camera or stream on the device. Each has a cooldown of its own; without "
        "one, each video of the engine has.",
        examples=["top-camera", "$inputs.stream_id"],
    )
    priority: FromNumber | int | float | None = Field(
        default=None,
        title="Priority",
        description="How much the event matters beside others of the same cooldown: the highest "
        "is kept. Without a number it counts as 0, and between equals the type of the event "
        "decides, then its severity or result, then the surest prediction.",
        examples=[10, "$steps.rating.score"],
    )
    custom_metadata: dict[str, str | int | float | bool | AnyValue] = Field(
        default_factory=dict,
        title="Custom Metadata",
        description="Flat metadata of the event, at most 88 keys of letters, digits, '_', '-' and "
        "spaces.",
        examples=[{"camera_id": "cam_01", "location": "$inputs.location"}],
        json_schema_extra={"additional_section": True},
    )
    disable_sink: bool | FromBoolean = Field(
        default=False,
        title="Disable Sink",
        description="Write nothing.",
        examples=[False, "$inputs.disable_vision_events"],
    )
    cooldown_seconds: NonNegativeInt | NonNegativeFloat | FromNumber = Field(
        default=1,
        title="Cooldown",
        description="Least number of seconds between two events of one stream. What comes in "
        "between is held or counted, and `throttling_status` is True. 0 writes every event.",
        examples=[1, 0.5, "$inputs.cooldown_seconds"],
        json_schema_extra={"always_visible": True},
    )
    fire_and_forget: bool | FromBoolean = Field(
        default=True,
        title="Fire and Forget",
        description="Changes nothing: the event is in the log before the block returns.",
        examples=[True],
    )
    write_to_event_store: bool | FromBoolean = Field(
        default=True,
        title="Write to Local Event Store",
        description="Changes nothing: the block writes to the log of this device, and to no "
        "service.",
        examples=[True],
    )
    event_store_url: FromText | str = Field(
        default="",
        title="Event Store URL",
        description="Changes nothing; where the log is, says VEVENTS_DIR or vevents.toml.",
        examples=[""],
    )

    @classmethod
    def describe_outputs(cls) -> list[OutputDefinition]:
        """Return the outputs: whether it failed, was throttled, the id, and a sentence."""
        return [
            OutputDefinition(name="error_status", kind=[BOOLEAN_KIND]),
            OutputDefinition(name="throttling_status", kind=[BOOLEAN_KIND]),
            OutputDefinition(name="event_id", kind=[STRING_KIND]),
            OutputDefinition(name="message", kind=[STRING_KIND]),
        ]

    @classmethod
    def get_execution_engine_compatibility(cls) -> str | None:
        """Return the versions of the execution engine that the block is made for."""
        return ">=1.3.0,<2.0.0"

    def discover_dependent_resources(self) -> list[Any]:
        """Say that the block needs no model and no project."""
        return []


class VisionEventLogBlock(WorkflowBlock):
    """Writes events to the log.

    Args:
        vevents_log: The log, or where to get it.
        disable_sinks: Whether the engine's host wants no sink to do anything.
    """

    def __init__(self, vevents_log: Outlet | EventLog, disable_sinks: bool = False) -> None:
        outlet = Outlet(vevents_log) if isinstance(vevents_log, EventLog) else vevents_log
        self._outlet = outlet
        self._gate = outlet.gate()
        self._disable_sinks = disable_sinks

    @classmethod
    def get_init_parameters(cls) -> list[str]:
        """Return the names of what `__init__` takes."""
        return ["vevents_log", "disable_sinks"]

    @classmethod
    def get_manifest(cls) -> type[WorkflowBlockManifest]:
        """Return the manifest."""
        return VisionEventLogManifest

    def run(
        self, disable_sink: bool = False, cooldown_seconds: float = 1, **inputs: Any
    ) -> dict[str, Any]:
        """Write, hold or count one event; errors come out as outputs."""
        if self._disable_sinks or disable_sink:
            by = "the engine's host" if self._disable_sinks else "the input disable_sink"
            return _outputs(f"Switched off by {by}")
        try:
            # A value of a selector was checked by nobody.
            cooldown_s = max(0.0, float(cooldown_seconds))
            receipt = self._gate.submit(candidate_of(inputs), cooldown_s)
        except Exception as error:
            message = f"The event was not written. {type(error).__name__}: {error}"
            self._outlet.complain(message)
            return _outputs(message, error_status=True)
        if receipt is None:
            return _outputs(
                "Within the cooldown: the most important event is written when it ends, the "
                "others are counted",
                throttling_status=True,
            )
        return _outputs("Written to the event log", event_id=receipt.event_id)

    def close(self) -> None:
        """Write what is held; the engine calls this when the Workflow ends."""
        self._gate.flush()


def _outputs(
    message: str,
    *,
    error_status: bool = False,
    throttling_status: bool = False,
    event_id: str = "",
) -> dict[str, Any]:
    return {
        "error_status": error_status,
        "throttling_status": throttling_status,
        "event_id": event_id,
        "message": message,
    }
