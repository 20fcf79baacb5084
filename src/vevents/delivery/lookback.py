"""Whether the server still shows events that come as late as ours.

A workspace shows the events of the last days, 14 unless it is set otherwise. Older ones are taken
and never shown, which is worth a word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vevents.errors import DeliveryError
from vevents.settings import EVENT_AGE_MAX_S

if TYPE_CHECKING:
    from vevents.delivery.client import Client
    from vevents.log import EventLog

_DAY_S = 86_400
_RECORDS_READ = 100
# All is delivered by then, and nobody waits for more than a courtesy.
_PATIENCE_S = 5.0


def oldest_pending_age_s(log: EventLog, now_s: float) -> float | None:
    """Return the age in seconds of the oldest of the first pending events, or None.

    Args:
        log: The log.
        now_s: Seconds since 1970.
    """
    records, _ = log.read_batch("events", 0, ("pending",), _RECORDS_READ)
    ages = [now_s - record.wall_ns / 1e9 for record in records]
    # Beyond that the server refuses; such a time is that of a board without a clock.
    return max((age for age in ages if 0 <= age <= EVENT_AGE_MAX_S), default=None)


def lookback_warning(client: Client, oldest_age_s: float | None) -> str | None:
    """Return a warning if the server does not show events as old as that, else None.

    Asks the server, with one request, if no answer has said it yet and the events are at least a
    day old. No answer, or a key that may not read, is no warning.

    Args:
        client: The way to the server.
        oldest_age_s: Age of the oldest event that is or was pending; None for none.
    """
    if oldest_age_s is None or oldest_age_s < _DAY_S:
        return None
    if client.lookback_days is None:
        try:
            client.list_use_cases(within_s=_PATIENCE_S)
        except DeliveryError:
            return None
    days = client.lookback_days
    if days is None or oldest_age_s <= days * _DAY_S:
        return None
    return (
        f"the workspace shows the last {days} days, and the oldest pending event was "
        f"{oldest_age_s / _DAY_S:.0f} days old: such events are accepted and not shown; the "
        "workspace's settings say for how long"
    )
