"""An event on its way: as it was read from the log, and as it is ready to be posted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vevents.codec import payload_id
from vevents.errors import LogError
from vevents.wire import event_to_json, payload_to_json, required_frames

if TYPE_CHECKING:
    from vevents.delivery.clock import ClockRepair
    from vevents.event import Event, FrameRef
    from vevents.log import EventLog, Record

# How long the id of an image may be, to keep room for it within a limit of bytes.
_SOURCE_ID = "x" * 40
# Made once; and what `event_to_json` returns is a tree, so nobody has to look for circles.
_JSON = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
)


@dataclass(slots=True)
class Read:
    """One record that was read.

    Attributes:
        wall_ns: When it was seen, as far as that is known now.
        event: What it holds, if it has frames or could not be turned into JSON at once.
        fault: Why it cannot be read, or None.
        names_use_case: Whether it names its use case.
        frames: What has to be uploaded first.
        body: The event as JSON, if it has no frames.
        size: Bytes of the event as JSON, roughly.
    """

    record: Record
    event_id: str
    wall_ns: int
    event: Event | None = None
    fault: str | None = None
    names_use_case: bool = True
    frames: Sequence[FrameRef] = ()
    body: bytes | None = None
    size: int = 0


@dataclass(slots=True)
class ItemImages:
    """The images that an event names, in case the server does not know them.

    Attributes:
        source_ids: Their ids, by sequence number of the frame.
        missing: Why others are left out.
        suspects: Sequence numbers of those that may be unknown by now.
        renewed: Whether the suspects were uploaded again.
    """

    event: Event
    frames: Sequence[FrameRef]
    source_ids: dict[int, str]
    missing: dict[int, str]
    suspects: set[int]
    renewed: bool = False


@dataclass(frozen=True, slots=True)
class Item:
    """One event that is ready to be posted.

    Attributes:
        blocked: How often something before the server blocked it.
    """

    record: Record
    event_id: str
    body: bytes
    has_default_use_case: bool
    images: ItemImages | None = None
    blocked: int = 0


class Reader:
    """Makes events of records, and JSON of events. Changes nothing; for any thread.

    Args:
        log: The log.
        clock: Knows the true time of records.
        use_case_id: Use case of the events that name none; without one these get no JSON.
    """

    def __init__(self, log: EventLog, clock: ClockRepair, use_case_id: str | None) -> None:
        self._log = log
        self._clock = clock
        self._use_case_id = use_case_id

    def read(self, record: Record) -> Read:
        """Decode a record.

        Raises:
            LogError: The log cannot be read.
            OSError: The disk fails.
        """
        read = Read(record, record.event_id, record.wall_ns)
        try:
            correction = self._clock.correct(record)
            if correction is None and self._read_at_once(read):
                return read
            event = self._log.decode(record)
            if correction is not None:
                event = correction.apply(event)
                read.wall_ns = correction.wall_ns
            read.event_id = event.event_id or record.event_id
            read.frames = required_frames(event)
            read.names_use_case = event.use_case_id is not None
            if read.names_use_case or self._use_case_id is not None:
                # With frames it is encoded again when their ids are known. Small beside the images,
                # and so the size is known, and that it can be encoded at all.
                named = {frame.seq: _SOURCE_ID for frame in read.frames}
                body = self.encode(event, named, {})
                read.body, read.size = None if read.frames else body, len(body)
            read.event = event
        except (MemoryError, OSError, LogError):
            raise  # no fault of this record
        except Exception as error:
            # The bytes passed their checksum, so whatever wrote them did not keep to the format.
            # No such record may ever stop the ones behind it.
            read.fault = f"the record cannot be read: {error}"
        return read

    def _read_at_once(self, read: Read) -> bool:
        """Turn an event into JSON without decoding it. Returns whether that was possible."""
        record = read.record
        found = payload_to_json(
            record.payload,
            record_id=record.id,
            wall_ns=record.wall_ns,
            use_case_id=self._use_case_id,
        )
        if found is None:
            return False
        read.body, read.names_use_case = found
        read.size = len(read.body)
        read.event_id = payload_id(record.payload) or read.event_id
        return True

    def encode(
        self, event: Event, source_ids: Mapping[int, str], missing: Mapping[int, str]
    ) -> bytes:
        """Return an event as JSON; see `event_to_json` for the arguments."""
        obj = event_to_json(
            event, source_ids=source_ids, missing=missing, use_case_id=self._use_case_id
        )
        return _JSON.encode(obj).encode()
