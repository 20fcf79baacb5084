"""What a log holds no more, as counts with names: for `vevents status` and for the loss report."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING, Final

from vevents.event import EventType
from vevents.log import READABLE
from vevents.pressure import ACTIONS, COUNT_KEY, STEP_KEY

if TYPE_CHECKING:
    from vevents.log import EventLog, StreamStats

_TYPE_OF_KIND: Final = dict(enumerate(map(str, EventType), start=1))
_FORMAT_OF_KIND: Final = dict(enumerate(("jpeg", "png", "webp", "gif", "tiff", "bmp", "heic"), 1))


def details(stream: str, stats: StreamStats) -> dict[str, dict[str, int]]:
    """Return the counts that say more about one of the figures of the conservation law.

    Args:
        stream: Name of the ring; it decides what the kinds are called.
        stats: Its figures; the fields `<figure>_by_kind` and `lost_<reason>` are the details.

    Returns:
        By figure and what it is split by, the counts that are not 0 with their names: event types,
        image formats (`other` for kind 0), reasons.

    Example:
        >>> details("events", log.stats())  # doctest: +SKIP
        {'evicted_by_kind': {'custom': 812, 'safety_alert': 3}, 'lost_by_reason': {'damaged': 1}}
    """
    found: dict[str, dict[str, int]] = {"lost_by_reason": {}}
    names = _FORMAT_OF_KIND if stream == "media" else _TYPE_OF_KIND
    for field in dataclasses.fields(stats):
        value = getattr(stats, field.name)
        if field.name.endswith("_by_kind"):
            found[field.name] = {
                names.get(kind, str(kind) if kind else "other"): count
                for kind, count in enumerate(value)
                if count
            }
        elif field.name.startswith("lost_") and value:
            found["lost_by_reason"][field.name.removeprefix("lost_")] = value
    return dict(sorted(found.items()))


def frames_shed(log: EventLog) -> dict[str, int]:
    """Count the frames that the pressure ladder made smaller or left out, by its step.

    Goes by what the events in the log say of themselves, whatever became of them since, and reads
    all of them: some microseconds each. Frames of one event count for the harshest of its steps.

    Args:
        log: The log; open for reading only will do.

    Example:
        >>> frames_shed(log)  # doctest: +SKIP, the mildest step first
        {'quality': 1200, 'none': 31}
    """
    counts: Counter[str] = Counter()
    for record in log.read("events", states=READABLE):
        if STEP_KEY.encode() not in record.payload:
            continue
        try:
            metadata = log.decode(record).metadata or {}
            counts[str(metadata[STEP_KEY])] += int(metadata[COUNT_KEY])
        except (KeyError, ValueError):
            continue  # somebody else's key, or a record that holds no event
    return {step: counts[step] for step in ACTIONS if counts[step]}


def split(counts: Counter[tuple[str, str]], whole: int) -> Counter[tuple[str, str]]:
    """Return counts that add up to the whole: what has no known reason is `("unknown", "unknown")`.

    Args:
        counts: Rejections by code and type, as the notes tell.
        whole: All rejections, as the ring tells. It can be more, when the notes are gone; and
            less for a moment, since a refusal is noted before it is marked.
    """
    result = Counter({key: count for key, count in counts.items() if count > 0})
    missing = whole - result.total()
    if missing > 0:
        result["unknown", "unknown"] += missing
    return result
