"""Runs seeds: `python -m simulation --help`."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

from simulation.run import simulate
from vevents.cli.common import progress_line

# How often a run says how far it is where nobody looks at a bar.
_LINE_EVERY_S = 60
_INTERRUPTED = 128 + signal.SIGINT


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for.

    Args:
        arguments: In place of the command line's.

    Returns:
        The exit code: 1 if a promise was broken; 130 if the run was interrupted, whose counts are
        those of the seeds that it had done.
    """
    parser = argparse.ArgumentParser(
        prog="./dev simulate",
        description="Simulate devices for months: outages, reboots, wrong clocks, server faults.",
    )
    parser.add_argument("--seed", type=int, default=1, help="the first seed (default: 1)")
    parser.add_argument("--seeds", type=int, default=1000, help="how many (default: 1000)")
    parser.add_argument("--months", type=float, default=1, help="how long each (default: 1)")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once (default: 1)")
    parser.add_argument("--trace", action="store_true", help="show everything that happens")
    options = parser.parse_args(arguments)
    show = print if options.trace else None
    run = partial(simulate, months=options.months, show=show)
    seeds = range(options.seed, options.seed + options.seeds)
    total: Counter[str] = Counter()
    failed: list[int] = []
    done, took_s = 0, 0.0
    interrupted = False
    with _pool(options.jobs) as pool:
        outcomes = map(run, seeds) if pool is None else pool.map(run, seeds)
        with _progress(options.seeds, quiet=options.trace) as tell:
            try:
                for outcome in outcomes:
                    done += 1
                    took_s += outcome.took_s
                    total.update(outcome.counts)
                    if outcome.failure is not None:
                        failed.append(outcome.seed)
                        print(outcome.report(), file=sys.stderr, flush=True)
                    tell(done, len(failed))
            except KeyboardInterrupt:
                interrupted = True
                if pool is not None:
                    pool.shutdown(wait=False, cancel_futures=True)
    for name, count in sorted(total.items()):
        print(f"{count:10}  {name}")
    months = options.months * done
    per_month = f", {took_s / months:.2f} s per month" if months else ""
    print(f"{done} seeds, {months:g} months{per_month}")
    if failed:
        print(f"FAILED: {len(failed)} seeds: {failed}", file=sys.stderr)
    if interrupted:
        print(f"interrupted: {options.seeds - done} seeds were not run", file=sys.stderr)
        return _INTERRUPTED
    return 1 if failed else 0


def _pool(jobs: int) -> AbstractContextManager[ProcessPoolExecutor | None]:
    """Return processes for the seeds, which a Ctrl-C leaves alone: it is meant for this one."""
    if jobs == 1:
        return nullcontext()
    ignored = (signal.SIGINT, signal.SIG_IGN)
    return ProcessPoolExecutor(jobs, initializer=signal.signal, initargs=ignored)


@contextmanager
def _progress(seeds: int, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Tell how far a run is: a bar on a terminal, else a line now and then.

    Yields:
        A function to call with how many seeds are done and how many of them failed.
    """
    if quiet:
        yield lambda _done, _failed: None
        return
    began_s = told_s = time.monotonic()
    with progress_line() as show:

        def tell(done: int, failed: int) -> None:
            nonlocal told_s
            show(f"{failed} failed" if failed else "seeds", done, seeds)
            now_s = time.monotonic()
            if sys.stderr.isatty() or now_s - told_s < _LINE_EVERY_S:
                return
            told_s = now_s
            print(
                f"{done} of {seeds} seeds, {failed} failed, {(now_s - began_s) / 60:.0f} minutes",
                file=sys.stderr,
                flush=True,
            )

        yield tell


if __name__ == "__main__":
    sys.exit(main())
