"""One conformance case: an event, the bytes of its record, and what is sent for it.

A case is a folder of `cases/`, readable for a program in any language:

    event.json    the event as the cloud has it; `frame` and `inputFrame` name frames of the log
    context.json  what else is known, only where it matters:
                    useCaseId  the use case for events that name none
                    frames     for each frame its place in media.ring (seq, digest as hex, size)
                               and the id of its upload, or why it is missing
    payload.hex   the payload of the record, docs/format.md
    cloud.json    the object that is sent
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from vevents.codec import decode, encode, header_id
from vevents.event import Event, FrameRef
from vevents.wire import event_to_json, payload_to_json

CASES = Path(__file__).parent / "cases"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# What a record's header holds for an event whose id is no UUID: one that the log made.
HEADER_UUID = "00000000-0000-4000-8000-000000000000"


@dataclass(frozen=True, slots=True)
class Case:
    """A case as it stands on disk.

    Attributes:
        directory: Its folder.
        event: The event, with `FrameRef`s for its frames.
        source_ids: The uploaded frames by sequence number.
        missing: The reason for each missing frame.
        use_case_id: The default.
    """

    directory: Path
    event: Event
    source_ids: Mapping[int, str]
    missing: Mapping[int, str]
    use_case_id: str | None

    def payload(self) -> bytes:
        """Encode the event."""
        return encode(self.event)

    def cloud(self, payload: bytes) -> dict[str, Any]:
        """Read the record back and turn it into what is sent."""
        assert self.event.timestamp is not None
        event = decode(payload, event_id=self._header_uuid(), timestamp=self.event.timestamp)
        return event_to_json(
            event,
            source_ids=self.source_ids,
            missing=self.missing,
            use_case_id=self.use_case_id,
        )

    def cloud_at_once(self, payload: bytes) -> bytes | None:
        """Turn the record into what is sent without reading it back."""
        assert self.event.timestamp is not None
        found = payload_to_json(
            payload,
            record_id=bytes.fromhex(self._header_uuid().replace("-", "")),
            wall_ns=(self.event.timestamp - _EPOCH) // timedelta(microseconds=1) * 1_000,
            use_case_id=self.use_case_id,
        )
        return None if found is None else found[0]

    def _header_uuid(self) -> str:
        assert self.event.event_id is not None
        return HEADER_UUID if header_id(self.event.event_id) is None else self.event.event_id


def load(directory: Path) -> Case:
    """Read the inputs of a case."""
    event = Event.from_json(_json(directory / "event.json"))
    context_path = directory / "context.json"
    context = _json(context_path) if context_path.exists() else {}
    frames = context.get("frames", {})
    refs = {
        name: FrameRef(frame["seq"], bytes.fromhex(frame["digest"]), frame["size"])
        for name, frame in frames.items()
    }

    def ref(path: object) -> FrameRef | None:
        return None if path is None else refs[str(path)]

    images = [replace(i, frame=ref(i.frame), input_frame=ref(i.input_frame)) for i in event.images]
    return Case(
        directory,
        replace(event, images=images),
        {frame["seq"]: frame["sourceId"] for frame in frames.values() if "sourceId" in frame},
        {frame["seq"]: frame["missing"] for frame in frames.values() if "missing" in frame},
        context.get("useCaseId"),
    )


def directories() -> list[Path]:
    """Return the folders of all cases."""
    return sorted(path for path in CASES.iterdir() if path.is_dir())


def hex_text(payload: bytes) -> str:
    """Return the text of a payload.hex: 32 bytes a line."""
    return "".join(f"{payload[i : i + 32].hex()}\n" for i in range(0, len(payload), 32))


def json_text(obj: object) -> str:
    """Return the text of a cloud.json; it tells 403 from 403.0 and true from 1."""
    return json.dumps(obj, ensure_ascii=False, allow_nan=False, indent=2) + "\n"


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
