"""What becomes of an event: delivered, set aside for good, or left pending.

The server's refusals are believed with care, since what is set aside does not come back by itself:

    a default use case that the server does not know is a wrong setting and no fault of the events:
                       they stay pending
    a refusal that says nothing of an event (409, 413 for a small one, what is not the API's, ...)
                       is believed once the server accepts another; if all meet it, it is the
                       fault of something else
    nothing but refusals end the pass after some events were set aside

Of events with the same id the later one never overtakes: what waits holds back what follows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from vevents.delivery.backlog import IdFilter
from vevents.delivery.doubts import BLOCKED_TRIES, Doubts
from vevents.delivery.report import Counts, Rejection
from vevents.delivery.sender import StopError, StopReason
from vevents.errors import DeliveryError, EventTooLargeError, RefusedError
from vevents.settings import EVENT_AGE_MAX_S

if TYPE_CHECKING:
    from vevents.delivery.api import Api
    from vevents.delivery.items import Item, Read
    from vevents.delivery.notes import Notes
    from vevents.log import EventLog, Record

_EVENT_AHEAD_S_MAX = 23 * 3_600
# So many events that name no use case are refused, and none is accepted: the default is wrong.
_DEFAULT_REFUSED_MAX = 3
# What a server may say of an event whose use case it does not know. These judge what is in an
# event; any other status may come from something that stands before the server.
_MAY_MEAN_USE_CASE = frozenset((400, 404, 422))
# No server takes events and finds this too large.
_SURELY_SMALL = 65_536


@dataclass(slots=True)
class DefaultUseCase:
    """The use case of the events that name none.

    Attributes:
        id: Its id, or None if there is no default.
        accepted: Whether the server took an event for it, in this pass or an earlier one.
    """

    id: str | None
    accepted: bool = False


class Verdicts:
    """Judges the events of one pass. For the thread that flushes.

    Args:
        log: The log, open for writing.
        notes: Its notes.
        api: The server.
        default: The default use case; what is learned of it is kept there.
        counts: Where verdicts are counted.
        clock: Seconds since 1970.
        is_vouched_for: Whether the kernel says that this clock follows a reference.
        event_age_s_max: Older events are set aside.
        changed: Called when events were delivered or set aside.
    """

    def __init__(
        self,
        log: EventLog,
        notes: Notes,
        api: Api,
        default: DefaultUseCase,
        *,
        counts: Counts,
        clock: Callable[[], float],
        is_vouched_for: Callable[[], bool],
        event_age_s_max: float,
        changed: Callable[[], object],
    ) -> None:
        self._log = log
        self._notes = notes
        self._api = api
        self._default = default
        self._counts = counts
        self._clock = clock
        self._is_vouched_for = is_vouched_for
        self._event_age_s_max = event_age_s_max
        self._changed = changed
        self._held_ids: IdFilter | None = None
        self._without_use_case = 0
        self._doubts: Doubts[Item] = Doubts("events", "they stay pending", self._believe)
        self._blocked: list[Item] = []
        self._default_refusals = 0  # since one was accepted
        self._default_refused: list[tuple[Item, RefusedError]] = []

    # --- before the server is asked --------------------------------------------------------

    def passes_over(self, read: Read) -> bool:
        """Leave an event pending if it cannot go in this pass. Returns whether that is so."""
        if self.is_held(read.event_id):
            # An earlier event with this id has to wait; it would overwrite this one later.
            self.pass_over(read.event_id)
            return True
        if not read.names_use_case and (self._default.id is None or self._default_is_unknown()):
            self._without_use_case += self._default.id is None
            self.pass_over(read.event_id)
            return True
        return False

    def without_unknown_default(self, items: Sequence[Item]) -> Sequence[Item]:
        """Leave those pending whose default use case the server does not know; return the rest."""
        if not self._default_is_unknown():
            return items
        for item in items:
            if item.has_default_use_case:
                self.pass_over(item.event_id)
        return [item for item in items if not item.has_default_use_case]

    def outside_window(self, wall_ns: int) -> tuple[Rejection, str] | None:
        """Why the server would refuse an event for its time, or None.

        Raises:
            StopError: The server has to be asked for its time, and does not answer.
        """
        outside = self._judge_time(wall_ns)
        while outside is not None and not self._api.clock_is_sure:
            # Our own clock may be the wrong one, or one date of the server: ask before judging.
            if not self._api.ask_time():
                break
            outside = self._judge_time(wall_ns)
        if self._api.clock_offset_s is None and not self._is_vouched_for():
            # Nobody knows the time here; the server may judge.
            return None
        return outside

    def _judge_time(self, wall_ns: int) -> tuple[Rejection, str] | None:
        server_s = self._clock() + (self._api.clock_offset_s or 0.0)
        age_s = server_s - wall_ns / 1e9
        if age_s > self._event_age_s_max:
            limit = (
                "the server takes at most 365"
                if self._event_age_s_max == EVENT_AGE_MAX_S
                else f"the limit is {self._event_age_s_max / 86_400:.4g}"
            )
            return Rejection.TOO_OLD, f"its time is {age_s / 86_400:.1f} days ago; {limit}"
        if -age_s > _EVENT_AHEAD_S_MAX:
            return (
                Rejection.IN_THE_FUTURE,
                f"its time is {-age_s / 3_600:.1f} hours ahead; the server takes at most 24",
            )
        return None

    # --- what the server said --------------------------------------------------------------

    def accept(self, items: Sequence[Item]) -> None:
        """Mark events that the server took."""
        self._notes.settle({item.record.seq: item.event_id for item in items})
        self._log.ack([item.record.seq for item in items])
        self._counts.delivered += len(items)
        default_accepted = any(item.has_default_use_case for item in items)
        if default_accepted:
            self._default_refusals = 0
        self._doubts.accepted()
        if default_accepted and not self._default.accepted:
            # So it was not the use case that the server refused before.
            self._default.accepted = True
            refused, self._default_refused = self._default_refused, []
            for item, error in refused:
                self._set_aside(item, error)
        self._changed()

    def refuse(self, item: Item, error: RefusedError) -> None:
        """Set an event aside that was refused alone, unless something else is to blame for it.

        Raises:
            StopError: The server refuses one event after the other.
        """
        status = error.status_code
        if status == 413 and len(item.body) > _SURELY_SMALL:
            self._set_aside(item, error)
            return
        if error.blocked:
            item = replace(item, blocked=item.blocked + 1)
        if status not in _MAY_MEAN_USE_CASE or not error.from_api:
            self._hold(item.event_id)
            self._doubts.add(item, error)
            return
        if item.has_default_use_case:
            self._default_refusals += 1
            if self._default_refusals > _DEFAULT_REFUSED_MAX:
                # It was accepted once, but what is missing by now may be the use case.
                self._default.accepted = False
        if status == 404 or (item.has_default_use_case and not self._default.accepted):
            self._api.confirm()
        self._doubts.count(error)
        known = self._api.use_cases
        if not item.has_default_use_case:
            use_case_id = self._log.decode(item.record).use_case_id
            unknown = status == 404 and known is not None and use_case_id not in known
            self._set_aside(item, error, Rejection.UNKNOWN_USE_CASE if unknown else None)
        elif self._default.accepted or self._default.id in (known or ()):
            self._set_aside(item, error)
        else:
            # Not judged yet: the list may not show all of them.
            self._default_refused.append((item, error))
            self._hold(item.event_id)

    def take_blocked(self) -> list[Item]:
        """Return the events to be posted once more, as what blocked them may be gone."""
        blocked, self._blocked = self._blocked, []
        return blocked

    def conclude(self) -> bool:
        """No more events come: believe what was refused if the server took any.

        Returns:
            Whether some are to be posted once more.
        """
        if self._doubts and self._counts.delivered:
            self._doubts.accepted()
        return bool(self._blocked)

    def _believe(self, item: Item, error: RefusedError) -> None:
        if 0 < item.blocked < BLOCKED_TRIES:
            self._blocked.append(item)
        else:
            self._set_aside(item, error)

    def _set_aside(self, item: Item, error: RefusedError, code: Rejection | None = None) -> None:
        """Set an event aside whose refusal is believed."""
        if code is None and error.blocked:
            code = Rejection.BLOCKED
        elif code is None:
            code = Rejection.TOO_LARGE if error.status_code == 413 else Rejection.REFUSED
        self.reject(item.record, item.event_id, code, str(error), error.status_code)

    def _default_is_unknown(self) -> bool:
        return len(self._default_refused) >= _DEFAULT_REFUSED_MAX

    # --- the verdicts ----------------------------------------------------------------------

    def reject(
        self,
        record: Record,
        event_id: str,
        code: Rejection,
        reason: str,
        status: int | None = None,
    ) -> None:
        """Set an event aside for good."""
        note: dict[str, Any] = {
            "kind": "rejected",
            "seq": record.seq,
            "eventId": event_id,
            "code": str(code),
            "status": status,
            "reason": reason,
            "at": int(self._clock() * 1e9),
            "wall_ns": record.wall_ns,
            "payload": record.payload,
        }
        try:
            self._notes.append(note)
        except EventTooLargeError:
            # delivery.ring may take smaller records than events.ring. The reason matters most, and
            # the event itself stays readable in events.ring until that is overwritten.
            self._notes.append(note | {"payload": None})
        self._log.mark([record.seq], "rejected")
        self._counts.rejected[str(code)] += 1
        self._changed()

    def pass_over(self, event_id: str) -> None:
        """Leave an event pending for this pass, and what follows under its id."""
        self._counts.passed_over += 1
        self._hold(event_id)

    def is_held(self, event_id: str) -> bool:
        """Whether an earlier event under this id may have to wait."""
        return self._held_ids is not None and event_id in self._held_ids

    def _hold(self, event_id: str) -> None:
        """Let no later event with this id go before this one."""
        if self._held_ids is None:
            self._held_ids = IdFilter()
        self._held_ids.add(event_id)

    # --- at the end of the pass ------------------------------------------------------------

    @property
    def undecided(self) -> int:
        """How many events were refused and not judged; they stay pending."""
        return len(self._default_refused) + len(self._doubts)

    def left_behind(self, last_failure: DeliveryError | None) -> StopError | None:
        """What to say of the events that stay pending behind a pass, if there are any.

        Args:
            last_failure: The last error that repetition did not cure.
        """
        if self._doubts:
            return self._doubts.disbelief()
        if self._without_use_case:
            return StopError(
                StopReason.NO_USE_CASE,
                f"{self._without_use_case} events name no use case and there is no default; they "
                "stay pending: set VEVENTS_USE_CASE, or use_case in vevents.toml",
            )
        if self._default_refused:
            _, error = self._default_refused[0]
            return StopError(
                StopReason.NO_USE_CASE,
                f"the server refuses the events that name no use case ({error}), and the default "
                f"use case {self._default.id!r} is not among the active ones of the workspace; "
                "they stay pending: check VEVENTS_USE_CASE, or use_case in vevents.toml",
            )
        if self._counts.passed_over:
            return StopError(
                StopReason.SERVER,
                f"{self._counts.passed_over} events stay pending: {last_failure}",
            )
        return None
