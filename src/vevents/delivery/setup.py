"""From the settings to a client and a flusher; for everybody who delivers: command and agent."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vevents.delivery.client import Client, Timeouts
from vevents.delivery.flusher import Flusher
from vevents.delivery.pause import end_hold, hold_back
from vevents.delivery.report import FlushReport
from vevents.delivery.schedule import Gate
from vevents.delivery.sender import RetryPolicy, StopReason
from vevents.delivery.tls import Tls

if TYPE_CHECKING:
    from vevents.log import EventLog
    from vevents.settings import Settings

_LOGGER = logging.getLogger(__name__)


def make_client(settings: Settings) -> Client:
    """Return the way to the server that the settings describe. Close it after use.

    Raises:
        ConfigurationError: There is no API key, or a setting of the connection makes no sense.
    """
    return Client(
        settings.require_api_key(),
        api_url=settings.api_url,
        timeouts=Timeouts(
            connect_s=settings.connect_timeout_s,
            read_s=settings.read_timeout_s,
            write_s=settings.write_timeout_s,
            request_s=settings.request_timeout_s,
        ),
        proxy=settings.proxy,
        tls=Tls(
            ca_files=settings.ca_files,
            client_cert=settings.client_cert,
            client_key=settings.client_key,
            client_key_password=settings.client_key_password,
        ),
    )


def make_flusher(
    settings: Settings, log: EventLog, client: Client, *, any_time: bool = False
) -> Flusher:
    """Return a flusher that delivers as the settings say, and only while delivery may run.

    Args:
        settings: The settings.
        log: The log, open for writing.
        client: The way to the server; see `make_client()`.
        any_time: Whether to deliver outside the windows of the settings, too, and although the
            server asked to be left alone.

    Raises:
        ConfigurationError: A setting of the delivery makes no sense.
    """
    options: dict[str, Any] = {}
    if settings.priorities:
        options["priorities"] = settings.priorities
    if settings.event_age_max_s is not None:
        options["event_age_s_max"] = settings.event_age_max_s
    return _GatedFlusher(
        log,
        client,
        gate=Gate(log.directory, settings.windows, any_time=any_time),
        use_case_id=settings.use_case_id,
        retry=RetryPolicy(attempts=settings.attempts, wait_s_max=settings.retry_wait_s),
        order=settings.order,
        live_first=settings.live_first,
        uploads=settings.uploads,
        bundle=settings.bundle,
        bytes_per_s=settings.bytes_per_s,
        loss_report_s=settings.loss_report_s,
        **options,
    )


class _GatedFlusher(Flusher):
    """A flusher that stops where the gate closes, as if it had been asked to."""

    def __init__(self, log: EventLog, client: Client, *, gate: Gate, **options: Any) -> None:
        super().__init__(log, client, **options)
        self._gate = gate
        self._directory = log.directory

    def flush(
        self, *, should_stop: Callable[[], bool] | None = None, **options: Any
    ) -> FlushReport:
        """Hand over what is pending now, while the gate is open; see `Flusher.flush()`."""

        def stop() -> bool:
            self._gate.check()
            return should_stop is not None and should_stop()

        report = super().flush(should_stop=stop, **options)
        self._keep_wish(report)
        held = self._gate.closed()
        if held is None or report.requests or report.stopped_reason is not None:
            return report
        if held.reason is StopReason.THROTTLED:
            return report  # nothing was to be sent
        # With nothing pending nobody asked; whoever wants a pass is to learn of the pause.
        return dataclasses.replace(
            report,
            stopped_reason=held.reason,
            message=str(held),
            retry_after_s=held.retry_after_s,
        )

    def _keep_wish(self, report: FlushReport) -> None:
        """Note how long the server wants to be left alone, for the processes that come next."""
        if not report.requests:
            return
        try:
            asked = report.stopped_reason in (StopReason.THROTTLED, StopReason.SERVER)
            if asked and report.retry_after_s:
                hold_back(self._directory, report.retry_after_s)
            elif report.stopped_reason is None:
                end_hold(self._directory)
        except OSError as error:
            # What was delivered is delivered; the next one asks once more than it should.
            _LOGGER.warning("the server's wish to wait cannot be noted: %s", error)
