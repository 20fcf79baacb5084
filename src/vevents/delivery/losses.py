"""Tells the cloud what will never arrive there: one event per period, if anything was lost.

A log that is full overwrites its oldest events, damage costs some, the server refuses some. All of
that is counted on the device, where nobody looks. So the flusher appends an event of type `custom`
that says how much it was since the last such report, by ring, reason and type of event.

What was reported last is a note in delivery.ring, and the order of the steps survives a crash at
any point with the same numbers under the same `eventId`, so that the cloud holds them once:

    1. note, durably:   the report with its `eventId` and all figures (`begun`)
    2. append:          the event
    3. note:            the figures alone (`done`)

A pass that finds a report begun and not done appends it once more, as it was noted. When the note
of the last report is gone (a damaged delivery.ring, an older version before), nobody can tell what
of the figures is new: the report then gives the totals since the log was made and says `unknown`
for its beginning.
"""

from __future__ import annotations

import uuid
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from vevents.delivery.figures import details, split
from vevents.errors import LogFullError
from vevents.event import METADATA_KEY_COUNT_MAX, Event
from vevents.log import READABLE
from vevents.wire import format_timestamp

if TYPE_CHECKING:
    from vevents.delivery.notes import Notes, Stream
    from vevents.log import EventLog, Receipt

Figures = dict[str, int]

EXTERNAL_ID: Final = "vevents-loss-report"
"""The `externalId` by which the reports are found in the cloud."""

_STREAMS: Final[tuple[Stream, ...]] = ("events", "media")
_LOSSES: Final = ("evicted", "lost", "rejected")


def append_loss_report(
    log: EventLog,
    notes: Notes,
    *,
    period_s: float,
    use_case_id: str | None,
    now_ns: int,
) -> Receipt | None:
    """Append an event that says what was lost since the last one, if it is time for one.

    Hold the flush lock.

    Args:
        log: The log, open for writing.
        notes: Its notes.
        period_s: Least time in seconds between two reports.
        use_case_id: The default that the report leaves to the flusher, as other events do; with
            None it takes the one that the newest event names.
        now_ns: Nanoseconds since 1970.

    Returns:
        The receipt of the report. None if nothing was lost, the period is not over, no use case
        is known, or the log is full and told to refuse; the losses are then in a later report.

    Raises:
        LogError: The log cannot be read or written.
        OSError: The disk fails.
    """
    last = notes.update().loss_report
    if last is not None and last["state"] == "begun":
        return _finish(log, notes, last)
    # A clock that was set back cannot tell how long ago that was.
    if last is not None and 0 <= now_ns - last["at"] < period_s * 1e9:
        return None
    now = figures(log, notes)
    if last is None and not _total(now):
        # From here on it is known what is new.
        notes.append(_note("done", now_ns, now))
        return None
    base = None if last is None else _with_own_refusal(last, notes)
    if base is not None and _restarted(base, now):
        base = None
    if base is not None and last is not None and not _total(_difference(base, now)):
        # What was retried made figures fall; the next losses must not hide behind that.
        lower = {key: min(count, now.get(key, 0)) for key, count in last["figures"].items()}
        if lower != last["figures"]:
            notes.append(last | {"figures": lower})
        return None
    newest = _newest(log)
    named = newest.use_case_id if newest and use_case_id is None else None
    if named is None and use_case_id is None:
        return None
    since_ns = None if base is None or last is None else last["at"]
    value, metadata = compose(base, now, since_ns=since_ns, until_ns=now_ns)
    begun = _note("begun", now_ns, now) | {
        "eventId": str(uuid.uuid4()),
        # A default that the server does not know yet is no fault of the report's: it waits then.
        "useCaseId": named,
        "deviceId": newest.device_id if newest else None,
        "value": value,
        "metadata": metadata,
    }
    notes.append(begun, sync=True)
    return _finish(log, notes, begun)


def figures(log: EventLog, notes: Notes) -> Figures:
    """Return what a report compares with the last one; every key is a name and every value counts.

    Example:
        >>> figures(log, Notes(log).update())["events_evicted_custom"]  # doctest: +SKIP
        812
    """
    found: Figures = {}
    for stream in _STREAMS:
        stats = log.stats(stream)
        found[f"{stream}_appended"] = stats.appended
        found[f"{stream}_first_seq"] = stats.first_seq
        for what in _LOSSES:
            found[f"{stream}_{what}"] = getattr(stats, what)
        for name, counts in details(stream, stats).items():
            what = name.partition("_by_")[0]
            for detail, count in counts.items():
                found[f"{stream}_{what}_{detail}"] = count
        reasons = Counter(
            {(r.code, r.type): count for r, count in notes.counts.items() if r.stream == stream}
        )
        for (code, event_type), count in split(reasons, stats.rejected).items():
            found[f"{stream}_rejected_{code}_{event_type}"] = count
    return found


def compose(
    base: Figures | None, now: Figures, *, since_ns: int | None, until_ns: int
) -> tuple[str, dict[str, Any]]:
    """Return what a report says: a sentence for people, and the counts for programs.

    Args:
        base: The figures of the last report, or None when they are not known.
        now: The present figures.
        since_ns: When the last report was made; None with `base`.
        until_ns: Now, in nanoseconds since 1970.

    Returns:
        The event's `value` and its `customMetadata`: `since`, `until`, the counts of the period
        (without a base none), and with `total_` before their names the counts since the log was
        made. `events_seq_from` and `events_seq_to` are the sequence numbers that were overwritten
        in the period, the delivered ones among them.
    """
    since = "unknown" if since_ns is None else format_timestamp(since_ns)
    until = format_timestamp(until_ns)
    metadata: dict[str, Any] = {"vevents_report": "loss", "since": since, "until": until}
    new = now if base is None else _difference(base, now)
    for stream in _STREAMS:
        key = f"{stream}_first_seq"
        if base is not None and now[key] > base.get(key, now[key]):
            metadata[f"{stream}_seq_from"] = base[key]
            metadata[f"{stream}_seq_to"] = now[key] - 1
        for what in _LOSSES:
            if now[f"{stream}_{what}"]:
                metadata[f"total_{stream}_{what}"] = now[f"{stream}_{what}"]
    counts = {key: count for key, count in new.items() if count and _counts(key)}
    if base is None:
        span = "since the log was made (what of it is new is not known)"
        # The totals proper are in already; what is left are their details.
        counts = {f"total_{key}": count for key, count in counts.items()}
    else:
        span = f"from {since} to {until}"
    # The largest first, so that what finds no room matters least.
    for key, count in sorted(counts.items(), key=lambda item: -item[1]):
        if len(metadata) < METADATA_KEY_COUNT_MAX or key in metadata:
            metadata[_key(key)] = count
    parts = [
        f"{new[f'{stream}_{what}']} {'events' if stream == 'events' else 'images'} {what}"
        for stream in _STREAMS
        for what in _LOSSES
        if new[f"{stream}_{what}"]
    ]
    return f"Not delivered {span}: {', '.join(parts)}.", metadata


def _finish(log: EventLog, notes: Notes, begun: dict[str, Any]) -> Receipt | None:
    event = Event.custom(
        value=begun["value"],
        external_id=EXTERNAL_ID,
        use_case_id=begun["useCaseId"],
        device_id=begun["deviceId"],
        metadata=begun["metadata"],
        event_id=begun["eventId"],
    )
    try:
        # Stamped by the log, so that the time can be repaired like that of any other event.
        receipt = log.append(event)
    except LogFullError:
        return None
    done = _note("done", begun["at"], begun["figures"])
    notes.append(done | {"seq": receipt.seq, "eventId": receipt.event_id})
    return receipt


def _with_own_refusal(last: dict[str, Any], notes: Notes) -> Figures:
    """Return the figures of the last report; if it was refused itself, that is nothing to report.

    Else a use case that takes no events any more would get a report of each report.
    """
    base: Figures = last["figures"]
    letter = notes.letters.get(("events", last.get("seq", 0)))
    if letter is None or letter.id != last.get("eventId"):
        return base
    detail = f"events_rejected_{letter.reason.code}_{letter.reason.type}"
    return base | {key: base.get(key, 0) + 1 for key in ("events_rejected", detail)}


def _note(state: str, at_ns: int, now: Figures) -> dict[str, Any]:
    return {"kind": "loss-report", "state": state, "at": at_ns, "figures": now}


def _counts(key: str) -> bool:
    return not key.endswith(("_appended", "_first_seq"))


def _total(difference: Figures) -> int:
    return sum(difference[f"{stream}_{what}"] for stream in _STREAMS for what in _LOSSES)


def _difference(base: Figures, now: Figures) -> Figures:
    # What was retried is rejected no more; that is no loss, and no gain to set against others.
    return {key: max(0, count - base.get(key, 0)) for key, count in now.items()}


def _restarted(base: Figures, now: Figures) -> bool:
    """Whether a ring began anew: an unusable file was set aside, and a new one counts from 0."""
    return any(now[f"{stream}_appended"] < base.get(f"{stream}_appended", 0) for stream in _STREAMS)


def _newest(log: EventLog) -> Event | None:
    records, _ = log.read_batch("events", log.stats("events").last_seq, READABLE, 1)
    try:
        return log.decode(records[0]) if records else None
    except ValueError:
        return None


def _key(name: str) -> str:
    """Return a name as a key of the metadata may be: codes are not made for it."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in name)[:100]
