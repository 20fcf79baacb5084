"""In which order the pending events of a log are handed over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from vevents.errors import ConfigurationError
from vevents.event import EventType

Order = Literal["oldest", "newest", "priority"]
ORDERS: Final[tuple[Order, ...]] = ("oldest", "newest", "priority")

DEFAULT_PRIORITIES: Final = (
    EventType.SAFETY_ALERT,
    EventType.QUALITY_CHECK,
    EventType.OPERATOR_FEEDBACK,
    EventType.INVENTORY_COUNT,
    EventType.CUSTOM,
)


def parse_priorities(names: Sequence[EventType | str]) -> tuple[EventType, ...]:
    """Return event types in the order of their importance.

    Args:
        names: Event types, the most important first.

    Raises:
        ConfigurationError: One is no event type, or stands there twice.

    Example:
        >>> [str(kind) for kind in parse_priorities(["custom", "safety_alert"])]
        ['custom', 'safety_alert']
    """
    kinds: list[EventType] = []
    for name in names:
        try:
            kind = EventType(name)
        except ValueError:
            known = ", ".join(map(str, EventType))
            raise ConfigurationError(f"priorities: {name!r}; one of {known}") from None
        if kind in kinds:
            raise ConfigurationError(f"priorities: {str(kind)!r} stands there twice")
        kinds.append(kind)
    return tuple(kinds)
