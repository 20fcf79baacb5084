"""The cooldown of the Workflows block: nothing is forgotten, and it keeps what matters most."""

from __future__ import annotations

import itertools
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from vevents.workflows.cooldown import Cooldown

# Exact in binary, so that sums of them are, too.
EIGHTHS = st.integers(0, 16).map(lambda number: number / 8)
OFFERS = st.tuples(
    st.just("offer"), st.sampled_from(["pass", "fail", "alert"]), st.integers(0, 3).map(float)
)
STEPS = st.lists(
    st.tuples(
        st.floats(0, 3),  # seconds since the step before
        st.sampled_from([0.0, 1.0, 1.0, 1.0, 5.0]),  # the cooldown, which may change
        OFFERS | st.just(("timer",)) | st.just(("flush",)) | st.just(("disk fails",)),
    ),
    max_size=60,
)


class Sink:
    """Counts what it is given, as the cloud does; can fail."""

    def __init__(self) -> None:
        self.kept: list[tuple[float, int]] = []
        self.accounted: Counter[str] = Counter()
        self.fails = False

    def take(self, cooldown, kept, now_s):
        if kept is None:
            return
        if self.fails:
            self.fails = False
            cooldown.give_back(kept)
            return
        self.kept.append((now_s, kept.item))
        self.accounted[kept.kind] += 1
        self.accounted.update(kept.counts)


@given(STEPS)
def test_what_was_kept_and_what_was_counted_is_all_that_was_seen(steps):
    cooldown, sink, seen, now_s = Cooldown(), Sink(), Counter(), 100.0

    for number, (pause_s, cooldown_s, (what, *args)) in enumerate(steps):
        now_s += pause_s
        if what == "offer":
            kind, importance = args
            seen[kind] += 1
            sink.take(cooldown, cooldown.release(now_s, cooldown_s), now_s)
            if cooldown.keeps((importance,), now_s):
                sink.take(cooldown, cooldown.offer(number, kind, (importance,), now_s), now_s)
            else:
                cooldown.count(kind)
        elif what == "timer":
            sink.take(cooldown, cooldown.release(now_s), now_s)
        elif what == "flush":
            sink.take(cooldown, cooldown.drain(now_s), now_s)
        else:
            sink.fails = True
    # One more that is kept carries whatever was still only counted.
    sink.fails = False
    sink.take(cooldown, cooldown.drain(now_s), now_s)
    sink.take(cooldown, cooldown.release(now_s + 10), now_s + 10)
    sink.take(cooldown, cooldown.offer(-1, "last", (9.0,), now_s + 10), now_s + 10)

    assert sink.accounted == seen + Counter(last=1)
    assert len({item for _, item in sink.kept}) == len(sink.kept)


@given(st.lists(st.tuples(EIGHTHS, st.integers(0, 3)), min_size=1, max_size=60))
def test_windows_are_never_shorter_than_the_cooldown_and_keep_the_most_important(offers):
    cooldown, now_s = Cooldown(), 0.0
    times: list[float] = []
    window: list[tuple[float, int]] = []  # importance and minus the place, of what was held back

    def take(kept):
        if kept is not None:
            times.append(now_s)
            if window:
                # The greatest, and of equals the first.
                assert kept.item == max(window)
                assert sum(kept.counts.values()) == len(window) - 1
                window.clear()

    for place, (pause_s, importance) in enumerate(offers):
        now_s += pause_s
        take(cooldown.release(now_s, 1.0))
        item = (importance, -place)
        kept = cooldown.offer(item, "any", (float(importance),), now_s)
        if kept is None:
            window.append(item)
        take(kept)

    assert all(later - earlier >= 1.0 for earlier, later in itertools.pairwise(times))
    assert (cooldown.due_s is not None) == bool(window)
