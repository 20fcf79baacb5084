"""From the settings to a client and a flusher; for everybody who delivers: command and agent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vevents.delivery.client import Client, Timeouts
from vevents.delivery.flusher import Flusher
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
        ),
        proxy=settings.proxy,
        tls=Tls(
            ca_files=settings.ca_files,
            client_cert=settings.client_cert,
            client_key=settings.client_key,
            client_key_password=settings.client_key_password,
        ),
    )


def make_flusher(settings: Settings, log: EventLog, client: Client) -> Flusher:
    """Return a flusher that hands over as the settings say.

    Args:
        settings: The settings.
        log: The log, open for writing.
        client: The way to the server; see `make_client()`.
    """
    return Flusher(
        log,
        client,
        use_case_id=settings.use_case_id,
        retry=RetryPolicy(attempts=settings.attempts, wait_s_max=settings.retry_wait_s),
    )
