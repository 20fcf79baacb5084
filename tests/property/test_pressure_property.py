"""The ladder as a function of the share, for any ladder and any course that the share takes."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from vevents.errors import ConfigurationError
from vevents.pressure import Ladder, Step, parse_ladder

shares = st.floats(0, 1)
courses = st.lists(shares, max_size=60)


@st.composite
def steps(draw: st.DrawFn) -> Step:
    action = draw(st.sampled_from(["quality", "smaller", "crops", "none"]))
    if action == "none":
        return Step(draw(shares), "none")
    scale = draw(st.floats(0.01, 0.99)) if action == "smaller" else 0.5
    return Step(draw(shares), action, draw(st.integers(1, 100)), scale)  # type: ignore[arg-type]


@st.composite
def ladders(draw: st.DrawFn) -> Ladder:
    chosen = draw(st.lists(steps(), max_size=5, unique_by=lambda step: step.above))
    return Ladder(sorted(chosen, key=lambda step: step.above), slack=draw(st.floats(0, 0.5)))


def walk(ladder: Ladder, course: list[float]) -> list[int]:
    levels, level = [], 0
    for share in course:
        level = ladder.level(share, level)
        levels.append(level)
    return levels


@given(ladders(), courses)
def test_a_step_begins_at_its_threshold_and_ends_a_slack_below(
    ladder: Ladder, course: list[float]
) -> None:
    for share, level in zip(course, walk(ladder, course), strict=True):
        begun = [step for step in ladder.steps if share >= step.above]
        assert level >= len(begun)
        if level > 0:
            assert share >= max(0.0, ladder.steps[level - 1].above - ladder.slack)


@given(ladders(), courses)
def test_levels_follow_the_share_in_its_own_direction(ladder: Ladder, course: list[float]) -> None:
    levels = walk(ladder, course)
    for (was, now), (before, after) in zip(
        itertools.pairwise(course), itertools.pairwise(levels), strict=True
    ):
        assert (after - before) * (now - was) >= 0


@given(ladders(), shares, st.lists(st.floats(0, 1), max_size=60))
def test_a_share_that_wavers_by_less_than_the_slack_changes_nothing_twice(
    ladder: Ladder, low: float, wavering: list[float]
) -> None:
    course = [min(1.0, low + 0.99 * ladder.slack * one) for one in wavering]
    levels = walk(ladder, course)

    assert levels == sorted(levels)


@given(ladders(), shares, st.integers(0, 5), shares, st.integers(0, 5))
def test_more_pressure_never_means_less_shedding(
    ladder: Ladder, share: float, level: int, more: float, higher: int
) -> None:
    [share, more], [level, higher] = sorted((share, more)), sorted((level, higher))
    count = len(ladder.steps)

    assert ladder.level(share, min(level, count)) <= ladder.level(more, min(higher, count))


@given(ladders())
def test_every_ladder_can_be_written_as_text(ladder: Ladder) -> None:
    words = {
        "quality": "quality={q}",
        "smaller": "scale={s}+quality={q}",
        "crops": "crops+quality={q}",
    }
    parts = [
        f"{step.above!r}:"
        + words.get(step.action, "none").format(q=step.quality, s=repr(step.scale))
        for step in ladder.steps
    ]

    assert parse_ladder(",".join(parts) or "off") == Ladder(ladder.steps)


@given(st.text(st.sampled_from("0.59:=+,qualityscropne xempt"), max_size=40))
def test_any_text_is_a_ladder_or_says_what_is_wrong(text: str) -> None:
    try:
        parse_ladder(text)
    except ConfigurationError as error:
        assert str(error).startswith("pressure: ")
