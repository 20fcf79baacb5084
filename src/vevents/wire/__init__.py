"""What is sent: pure functions from events to the JSON of an API. No file, no socket, no clock."""

from __future__ import annotations

from vevents.wire.cloud import (
    event_to_json,
    format_timestamp,
    payload_to_json,
    required_frames,
)

__all__ = ["event_to_json", "format_timestamp", "payload_to_json", "required_frames"]
