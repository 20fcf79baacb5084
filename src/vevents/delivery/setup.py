"""From the settings to a client and a flusher; for everybody who delivers: command and agent."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vevents.delivery.client import Client, Timeouts
from vevents.delivery.flusher import Flusher, FlushReport
from vevents.delivery.schedule import Gate
from vevents.delivery.sender import RetryPolicy
from vevents.delivery.tls import Tls

if TYPE_CHECKING:
    from vevents.log import EventLog
    from vevents.settings import Settings


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
        any_time: Whether to deliver outside the windows of the settings, too.

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
        gate=Gate(log.directory, () if any_time else settings.windows),
        use_case_id=settings.use_case_id,
        retry=RetryPolicy(attempts=settings.attempts, wait_s_max=settings.retry_wait_s),
        order=settings.order,
        live_first=settings.live_first,
        uploads=settings.uploads,
        bytes_per_s=settings.bytes_per_s,
        loss_report_s=settings.loss_report_s,
        **options,
    )


class _GatedFlusher(Flusher):
    """A flusher that stops where the gate closes, as if it had been asked to."""

    def __init__(self, log: EventLog, client: Client, *, gate: Gate, **options: Any) -> None:
        super().__init__(log, client, **options)
        self._gate = gate

    def flush(
        self, *, should_stop: Callable[[], bool] | None = None, **options: Any
    ) -> FlushReport:
        """Hand over what is pending now, while the gate is open; see `Flusher.flush()`."""

        def stop() -> bool:
            self._gate.check()
            return should_stop is not None and should_stop()

        report = super().flush(should_stop=stop, **options)
        held = self._gate.closed()
        if held is None or report.requests or report.stopped_reason is not None:
            return report
        # With nothing pending nobody asked; whoever wants a pass is to learn of the pause.
        return dataclasses.replace(
            report,
            stopped_reason=held.reason,
            message=str(held),
            retry_after_s=held.retry_after_s,
        )
