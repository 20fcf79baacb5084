"""The calls of the official `roboflow` package for vision events, safe without a network.

    from roboflow.adapters import vision_events_api         import vevents.sdk as vision_events_api
    workspace = Roboflow(key).workspace()                   workspace = vevents.sdk.Workspace(key)

Writing goes to the log and returns at once; `vevents flush` delivers. What only the server knows is
asked of the server. Three things cannot be the same:

- A write that returned is on this device's disk, and not at the server yet. `created` is true
  nevertheless: the event will be there under this id. What the contract refuses is refused here, as
  `EventValidationError`; what the server refuses later is in `vevents rejected`.
- `upload_image()` returns an id of this log, for events of this log alone. It is exchanged for the
  server's when the event is delivered. There is no `url`, and a name and metadata of the image are
  not kept (warned about once).
- Errors are those of `vevents.errors`. `RoboflowError` of this module stands for all of them, also
  for the network's, which the official package lets through as errors of `requests`. A disk that
  fails is `OSError`. `query()` knows nothing of what is still pending.

The log is the one of the settings (`VEVENTS_DIR`, `vevents.toml`), or what `use()` was given. The
key is for the calls that ask the server; events are delivered with the key of the flush.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from vevents.errors import EventValidationError, VeventsError
from vevents.event import Event, FrameRef
from vevents.log import EventLog
from vevents.settings import Secret, Settings, resolve

if TYPE_CHECKING:
    from vevents.delivery.client import Client

RoboflowError = VeventsError
"""What `except RoboflowError` of an existing program has to catch."""

_LOGGER = logging.getLogger(__name__)
_LOCAL_ID: Final = re.compile(r"vevents-([0-9]{1,19})-([0-9]{1,12})-([0-9a-f]{32})")
_USE_CASES: Final = "/vision-events/use-cases"

_lock = threading.Lock()
_log: EventLog | None = None
_warned = False


def use(log: EventLog | str | os.PathLike[str] | None) -> None:
    """Choose the log that writes go to.

    Args:
        log: An open log, which stays the caller's to close; a directory; or None for the one of
            the settings, which is opened at the first write.
    """
    global _log
    with _lock:
        _log = log if isinstance(log, EventLog) or log is None else EventLog(log)


def write_event(api_key: str | None, event: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    """Append one event.

    Args:
        api_key: Not used: events are delivered with the key of the flush.
        event: As for the API. `eventId` and `timestamp` may be left out.

    Returns:
        `eventId`, and `created`: true.

    Raises:
        EventValidationError: A field breaks the contract; nothing is written.
        ConfigurationError: There is no log to write to.
        LogError, OSError: As for `EventLog.append`.

    Example:
        >>> use(directory)
        >>> event = {"eventId": "evt-1", "eventType": "custom", "eventData": {"value": "door"}}
        >>> write_event(None, event)
        {'eventId': 'evt-1', 'created': True}
    """
    return {"eventId": _opened().append(_parsed(event)).event_id, "created": True}


def write_batch(
    api_key: str | None,  # noqa: ARG001
    events: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Append any number of events, or none of them if one breaks the contract.

    Args:
        api_key: Not used.
        events: As for `write_event()`.

    Returns:
        `created`, how many, and `eventIds`.

    Raises:
        EventValidationError: A field breaks the contract; nothing is written.
        ConfigurationError: There is no log to write to.
        LogError, OSError: As for `EventLog.append`; events before it are written.
    """
    parsed = []
    for index, event in enumerate(events):
        try:
            parsed.append(_parsed(event))
        except EventValidationError as error:
            raise EventValidationError(f"events[{index}].{error.field}", error.reason) from None
    log = _opened()
    event_ids = [log.append(event).event_id for event in parsed]
    return {"created": len(event_ids), "eventIds": event_ids}


def upload_image(
    api_key: str | None,  # noqa: ARG001
    image_path: str | os.PathLike[str],
    name: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Put an image into the log.

    Args:
        api_key: Not used.
        image_path: The image file.
        name: Not kept.
        metadata: Not kept.

    Returns:
        `success`, and `sourceId` for events that are written to this log.

    Raises:
        EventValidationError: Not an image of a known format, or too large.
        ConfigurationError: There is no log to write to.
        LogError, OSError: As for `EventLog.append_frame`.
    """
    if name is not None or metadata:
        _warn_once()
    ref = _opened().append_frame(Path(image_path).read_bytes())
    return {"success": True, "sourceId": f"vevents-{ref.seq}-{ref.size}-{ref.digest.hex()}"}


def query(api_key: str | None, query_params: Mapping[str, Any]) -> dict[str, Any]:
    """Ask the server for events; those that are still pending here are not among them.

    Raises:
        DeliveryError: There is no answer.
        ConfigurationError: There is no key.
    """
    return _ask(api_key, "POST", "/vision-events/query", body=query_params)


def list_use_cases(api_key: str | None, status: str | None = None) -> dict[str, Any]:
    """Ask the server for the use cases; errors as for `query()`."""
    params = {} if status is None else {"status": status}
    answer = _ask(api_key, "GET", _USE_CASES, params=params)
    if "useCases" not in answer and "solutions" in answer:
        answer["useCases"] = answer["solutions"]
    return answer


def get_custom_metadata_schema(api_key: str | None, use_case_id: str) -> dict[str, Any]:
    """Ask the server for the metadata fields of a use case; errors as for `query()`."""
    return _ask(api_key, "GET", f"/vision-events/custom-metadata-schema/{_part(use_case_id)}")


def create_use_case(api_key: str | None, name: str) -> dict[str, Any]:
    """Let the server create a use case; errors as for `query()`."""
    return _ask(api_key, "POST", _USE_CASES, success=201, body={"name": name})


def rename_use_case(api_key: str | None, use_case_id: str, name: str) -> dict[str, Any]:
    """Let the server rename a use case; errors as for `query()`."""
    return _ask(api_key, "PUT", f"{_USE_CASES}/{_part(use_case_id)}", body={"name": name})


def archive_use_case(api_key: str | None, use_case_id: str) -> dict[str, Any]:
    """Let the server archive a use case; errors as for `query()`."""
    return _ask(api_key, "POST", f"{_USE_CASES}/{_part(use_case_id)}/archive")


def unarchive_use_case(api_key: str | None, use_case_id: str) -> dict[str, Any]:
    """Let the server bring a use case back; errors as for `query()`."""
    return _ask(api_key, "POST", f"{_USE_CASES}/{_part(use_case_id)}/unarchive")


class Workspace:
    """The vision-event methods of the official `Workspace`. Making one needs no network.

    Args:
        api_key: For the calls that ask the server; None takes the one of the settings.
    """

    def __init__(self, api_key: str | None = None) -> None:
        self._key = None if api_key is None else Secret(api_key)

    def write_vision_event(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """Append one event; see `write_event()`."""
        return write_event(None, event)

    def write_vision_events_batch(self, events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Append events; see `write_batch()`."""
        return write_batch(None, events)

    def upload_vision_event_image(
        self,
        image_path: str | os.PathLike[str],
        name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Put an image into the log; see `upload_image()`."""
        return upload_image(None, image_path, name, metadata)

    def query_vision_events(
        self,
        use_case: str,
        *,
        event_type: str | None = None,
        event_types: Sequence[str] | None = None,
        start_time: str | None = None,
        end_time: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
        **filters: Any,
    ) -> dict[str, Any]:
        """Ask the server for one page of events; see `query()`."""
        given = {
            "eventType": event_type,
            "eventTypes": event_types,
            "startTime": start_time,
            "endTime": end_time,
            "limit": limit,
            "cursor": cursor,
        }
        present = {key: value for key, value in given.items() if value is not None}
        return query(self._api_key, {"useCaseId": use_case} | present | filters)

    def query_all_vision_events(
        self, use_case: str, **filters: Any
    ) -> Iterator[list[dict[str, Any]]]:
        """Ask the server for all pages; arguments as for `query_vision_events()`."""
        cursor = None
        while True:
            page = self.query_vision_events(use_case, **filters, cursor=cursor)
            if not page.get("events"):
                return
            yield page["events"]
            cursor = page.get("nextCursor")
            if not cursor or not page.get("hasMore", False):
                return

    def list_vision_event_use_cases(self, status: str | None = None) -> dict[str, Any]:
        """Ask the server for the use cases; see `list_use_cases()`."""
        return list_use_cases(self._api_key, status)

    def create_vision_event_use_case(self, name: str) -> dict[str, Any]:
        """Let the server create a use case."""
        return create_use_case(self._api_key, name)

    def rename_vision_event_use_case(self, use_case: str, name: str) -> dict[str, Any]:
        """Let the server rename a use case."""
        return rename_use_case(self._api_key, use_case, name)

    def archive_vision_event_use_case(self, use_case: str) -> dict[str, Any]:
        """Let the server archive a use case."""
        return archive_use_case(self._api_key, use_case)

    def unarchive_vision_event_use_case(self, use_case: str) -> dict[str, Any]:
        """Let the server bring a use case back."""
        return unarchive_use_case(self._api_key, use_case)

    def get_vision_event_metadata_schema(self, use_case: str) -> dict[str, Any]:
        """Ask the server for the metadata fields of a use case."""
        return get_custom_metadata_schema(self._api_key, use_case)

    @property
    def _api_key(self) -> str | None:
        return None if self._key is None else self._key.reveal()


def _opened() -> EventLog:
    global _log
    log = _log
    if log is not None:
        return log
    with _lock:
        if _log is None:
            settings = resolve({})
            _log = EventLog(settings.require_directory(), **settings.log_options())
        return _log


def _parsed(event: Mapping[str, Any]) -> Event:
    """Return an event whose images name frames of the log where the dictionary has local ids."""
    if not isinstance(event, Mapping):
        raise EventValidationError("event", f"must be a dictionary, not {type(event).__name__}")
    parsed = Event.from_json({key: value for key, value in event.items() if value is not None})
    images = tuple(
        replace(
            image,
            frame=_frame(image.source_id) or image.frame,
            source_id=None if _frame(image.source_id) else image.source_id,
            input_frame=_frame(image.input_source_id) or image.input_frame,
            input_source_id=None if _frame(image.input_source_id) else image.input_source_id,
        )
        for image in parsed.images
    )
    return replace(parsed, images=images)


def _frame(source_id: str | None) -> FrameRef | None:
    found = None if source_id is None else _LOCAL_ID.fullmatch(source_id)
    if found is None:
        return None
    return FrameRef(int(found[1]), bytes.fromhex(found[3]), int(found[2]))


def _part(text: str) -> str:
    return quote(text, safe="")


def _warn_once() -> None:
    global _warned
    if not _warned:
        _warned = True
        _LOGGER.warning("the log keeps no name and no metadata of an image; said once")


def _ask(api_key: str | None, method: str, path: str, **options: Any) -> dict[str, Any]:
    with _client(api_key) as client:
        return client.request(method, path, **options)


def _client(api_key: str | None) -> Client:
    from vevents.delivery.setup import make_client

    settings: Settings = resolve({})
    if api_key is not None:
        settings = replace(settings, api_key=Secret(api_key))
    return make_client(settings)
