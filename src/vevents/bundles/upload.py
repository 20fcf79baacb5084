"""From bundles to the API: each goes in one request, event and images together or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vevents.archive import BundleError, read_payload
from vevents.bundles.intake import ImportReport, IntakeEndedError, Progress, take_in
from vevents.delivery.api import Api
from vevents.delivery.sender import Limits, Request, RetryPolicy, Sender, StopError, Time
from vevents.errors import RefusedError

if TYPE_CHECKING:
    from vevents.bundles.outbox import Outbox
    from vevents.delivery.client import Client

_CHUNK_COUNT: Final = 25


class Uploader:
    """Sends the bundles in a directory, without a log.

    Args:
        client: The way to the server.
        outbox: The directory.
        use_case_id: For bundles that name none.
        again: Send what has a receipt, too.
        retry: How failed requests are repeated.
        time: Where time and chance come from.
    """

    def __init__(
        self,
        client: Client,
        outbox: Outbox,
        *,
        use_case_id: str | None = None,
        again: bool = False,
        retry: RetryPolicy | None = None,
        time: Time | None = None,
    ) -> None:
        self._client = client
        self._outbox = outbox
        self._use_case_id = use_case_id
        self._again = again
        sender = Sender(retry or RetryPolicy(), Limits(), time or Time(), lambda: None)
        self._api = Api(client, sender)

    def run(self, progress: Progress = lambda _done, _total: None) -> ImportReport:
        """Send everything that is there; after every 25 bundles with a receipt.

        Returns:
            The report; `stopped_reason` is that of a flush when the server could not be reached.

        Raises:
            ConfigurationError: The directory cannot be written.
            OSError: The directory cannot be read or takes no receipt.
        """
        return take_in(
            self._outbox,
            self._send,
            chunk_count=_CHUNK_COUNT,
            again=self._again,
            progress=progress,
        )

    def _send(self, archive: bytes) -> str:
        _, payload = read_payload(archive)
        # The one in the query would go before the bundle's own.
        use_case_id = None if "useCaseId" in payload else self._use_case_id
        if use_case_id is None and "useCaseId" not in payload:
            raise BundleError("useCaseId", "is missing, and there is no default")
        event_id = payload.get("eventId")
        if not isinstance(event_id, str) or not event_id:
            raise BundleError("eventId", "is missing")
        try:
            if self._post(archive, use_case_id) != event_id:
                self._api.confirm()
        except StopError as stop:
            raise IntakeEndedError(stop.reason, str(stop)) from stop
        return event_id

    def _post(self, archive: bytes, use_case_id: str | None) -> str | None:
        try:
            return self._api.send(
                Request(
                    lambda within_s: self._client.create_bundle(
                        archive, use_case_id=use_case_id, within_s=within_s
                    ),
                    len(archive),
                )
            )
        except RefusedError as error:
            if error.status_code == 404:
                self._api.confirm()
            raise
