"""Whatever is appended, refused, retried, dropped, overwritten: nothing is lost or told twice."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from rejected_site import Site, jpeg

from vevents.delivery.notes import Notes
from vevents.delivery.rejected import DeadLetter, DeadLetters


class RefusedEvents(RuleBasedStateMachine):
    """A device and a server against three sets of event ids.

    The server refuses what says `bad` while it is strict. Every event is pending, delivered,
    listed or dropped; which of them is what the model says.
    """

    def __init__(self) -> None:
        super().__init__()
        os.environ["NO_PROXY"] = "*"
        self._directory = tempfile.TemporaryDirectory()
        self.site = Site(Path(self._directory.name) / "log")
        self.pending: dict[str, bool] = {}  # -> whether it says bad
        self.listed: set[str] = set()
        self.dropped: set[str] = set()
        self.number = 0

    def teardown(self) -> None:
        self.site.log.close()
        self._directory.cleanup()

    @rule(bad=st.booleans(), count=st.integers(1, 30), with_frame=st.booleans())
    def append(self, bad: bool, count: int, with_frame: bool) -> None:
        for _ in range(count):
            self.number += 1
            frames = [jpeg(f"{self.number % 7}")] if with_frame else []
            value = f"{'bad' if bad else 'good'} {self.number}"
            self.pending[self.site.append(value, *frames).event_id] = bad

    @rule(strict=st.booleans())
    def flush(self, strict: bool) -> None:
        self.site.strict = strict
        report = self.site.flush()
        assert report.stopped_reason is None
        refused = {event_id for event_id, bad in self.pending.items() if bad and strict}
        assert report.rejected == len(refused)
        assert report.delivered == len(self.pending) - len(refused)
        self.listed |= refused
        self.pending.clear()

    def _some(self, data: Any) -> tuple[DeadLetters, list[DeadLetter]]:
        dead = DeadLetters(self.site.log)
        indices = data.draw(st.sets(st.sampled_from(range(len(dead.letters)))))
        return dead, [dead.letters[index] for index in sorted(indices)]

    @precondition(lambda self: self.listed)
    @rule(data=st.data())
    def retry(self, data: Any) -> None:
        dead, chosen = self._some(data)
        done = dead.retry(chosen)
        assert not done.failed
        assert done.in_place + done.appended == len(chosen)
        self.listed -= {letter.id for letter in chosen}
        self.pending |= {letter.id: True for letter in chosen}

    @precondition(lambda self: self.listed)
    @rule(data=st.data())
    def drop(self, data: Any) -> None:
        dead, chosen = self._some(data)
        dead.drop(chosen)
        self.listed -= {letter.id for letter in chosen}
        self.dropped |= {letter.id for letter in chosen}

    @rule(count=st.sampled_from([10, 1_000, 8_000]))
    def uploads_fill_the_notes(self, count: int) -> None:
        self.site.note_uploads(count)

    @precondition(lambda self: not self.pending)
    @rule()
    def delivered_events_overwrite_the_others(self) -> None:
        self.site.overwrite_events()

    @rule()
    def restart(self) -> None:
        self.site.reopen()

    @invariant()
    def every_figure_adds_up(self) -> None:
        self.site.assert_conserved()
        stats = self.site.log.stats()
        assert (stats.evicted, stats.lost) == (0, 0)
        assert stats.pending == len(self.pending)
        self.site.assert_counted()

    @invariant()
    def listed_is_what_was_refused_each_once(self) -> None:
        found = self.site.listed()
        assert len(found) == len(set(found))
        assert set(found) == self.listed
        unlisted = DeadLetters(self.site.log).unlisted()
        assert unlisted.overwritten == 0
        assert unlisted.dropped == len(self.dropped)
        counts = Notes(self.site.log).update().counts
        assert {reason.code for reason in counts if reason.stream == "events"} <= {"refused"}


TestRefusedEvents = RefusedEvents.TestCase
TestRefusedEvents.settings = settings(
    max_examples=8,
    stateful_step_count=15,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
