"""Simulated devices, and the simulation itself: the same seed is the same story."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from simulation import __main__ as command
from simulation.run import simulate
from vevents import EventLog, _ffi

SEEDS = 50
MONTHS = 0.1


@pytest.fixture(scope="module")
def total() -> Counter[str]:
    return Counter()


@pytest.mark.parametrize("seed", range(1, SEEDS + 1))
def test_both_sides_agree_after_simulated_days(seed: int, total: Counter[str]) -> None:
    outcome = simulate(seed, MONTHS)
    total.update(outcome.counts)

    assert outcome.failure is None, outcome.report()


def test_the_seeds_met_what_they_are_for(total: Counter[str]) -> None:
    if total["starts"] < SEEDS:
        pytest.skip("not all the seeds ran")

    missed = [
        what
        for what in (
            "at the end: images twice",
            "at the end: with vevents_clock_source",
            "at the end: with vevents_frames_missing",
            "cut in a pass",
            "kill in a pass",
            "network: answer lost",
            "network: portal",
            "passes ended: offline",
            "passes to the flash",
            "passes ended: unauthorized",
            "server: 429",
            "server: 503",
            "shutdown",
            "events forgotten by a power cut",
            "events rejected",
        )
        if not total[what]
    ]
    assert not missed


def test_the_same_seed_is_the_same_story() -> None:
    first, second = simulate(3, 0.2), simulate(3, 0.2)

    assert first.trace == second.trace
    assert len(first.trace) > 10


def test_a_failure_tells_its_seed_and_what_happened(monkeypatch: pytest.MonkeyPatch) -> None:
    # A log that marks nothing: every pass would hand over the same events again.
    monkeypatch.setattr("vevents.log.EventLog.mark", lambda *_, **__: 0)

    outcome = simulate(3, 0.1)

    assert outcome.failure is not None
    report = outcome.report()
    assert report.startswith("seed 3: ")
    assert "server: POST /vision-events" in report
    assert "./dev simulate --seed 3 --seeds 1 --months 0.1 --trace" in report


def test_flash_that_does_not_hold_what_the_log_says_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Of seed 11, a log in memory: it believes that every pass to the flash brings all there.
    monkeypatch.setattr(_ffi.Handle, "persist", lambda _: (0, 0, 0, 0))
    monkeypatch.setattr(EventLog, "durable_seq", property(lambda log: log.stats().last_seq))

    outcome = simulate(11, 0.2)

    assert outcome.failure is not None
    assert "after opening" in outcome.failure


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_run_tells_how_far_it_is(
    jobs: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "_LINE_EVERY_S", 0)

    code = command.main(["--seed=3", "--seeds=2", "--months=0.02", f"--jobs={jobs}"])

    out, errors = capsys.readouterr()
    assert code == 0
    assert errors.splitlines() == [f"{done} of 2 seeds, 0 failed, 0 minutes" for done in (1, 2)]
    assert "2 seeds, 0.04 months" in out


def test_a_run_that_is_interrupted_counts_what_it_did(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted_at_4(seed: int, *_: object, **__: object) -> object:
        if seed == 4:
            raise KeyboardInterrupt
        return simulate(seed, 0.02)

    monkeypatch.setattr(command, "simulate", interrupted_at_4)

    code = command.main(["--seed=3", "--seeds=5", "--months=0.02"])

    out, errors = capsys.readouterr()
    assert code == 130
    assert "1 seeds, 0.02 months" in out
    assert "interrupted: 4 seeds were not run" in errors


def test_the_command_shows_every_step() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "simulation", "--seed=3", "--seeds=1", "--months=0.02", "--trace"],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr
    assert "day   0 00:00:00.000  device: process 1" in ran.stdout
    assert "1 seeds, 0.02 months" in ran.stdout
