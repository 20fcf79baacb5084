"""Runs seeds: `python -m simulation --help`."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from simulation.run import Outcome, simulate


def main() -> int:
    """Run what the command line asks for. Returns the exit code: 1 if a promise was broken."""
    parser = argparse.ArgumentParser(
        prog="./dev simulate",
        description="Simulate devices for months: outages, reboots, wrong clocks, server faults.",
    )
    parser.add_argument("--seed", type=int, default=1, help="the first seed (default: 1)")
    parser.add_argument("--seeds", type=int, default=1000, help="how many (default: 1000)")
    parser.add_argument("--months", type=float, default=1, help="how long each (default: 1)")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once (default: 1)")
    parser.add_argument("--trace", action="store_true", help="show everything that happens")
    options = parser.parse_args()
    show = print if options.trace else None
    run = partial(simulate, months=options.months, show=show)
    seeds = range(options.seed, options.seed + options.seeds)
    total: Counter[str] = Counter()
    failed: list[int] = []
    took_s = 0.0

    def take(outcome: Outcome) -> None:
        nonlocal took_s
        took_s += outcome.took_s
        total.update(outcome.counts)
        if outcome.failure is not None:
            failed.append(outcome.seed)
            print(outcome.report(), file=sys.stderr, flush=True)

    if options.jobs == 1:
        for seed in seeds:
            take(run(seed))
    else:
        with ProcessPoolExecutor(options.jobs) as pool:
            for outcome in pool.map(run, seeds):
                take(outcome)
    for name, count in sorted(total.items()):
        print(f"{count:10}  {name}")
    months = options.months * options.seeds
    print(f"{options.seeds} seeds, {months:g} months, {took_s / months:.2f} s per month")
    if failed:
        print(f"FAILED: {len(failed)} seeds: {failed}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
