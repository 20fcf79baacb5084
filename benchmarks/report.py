"""Run the benchmarks that the documents tell of, and write their figures into them.

Writes benchmarks/results.json (all that the documents show, of one run), the part of README.md
between its markers, docs/performance.md and the pictures beside it. A run that failed, was cut
short or was made smaller than it should be (`--quick`) changes none of them.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tables import README_BEGIN, README_END, RESULTS, render_document, render_readme

ROOT = Path(__file__).parents[1]
RUN = ROOT / "build" / "bench.json"
QUICK_SCALE = 0.05

# In the order of their run. Others are no less true, but no document shows their figures.
SHOWN = (
    "test_peers.py",
    "test_append.py",
    "test_detections.py",
    "test_threads.py",
    "test_latency.py",
    "test_compression.py",
    "test_memory.py::test_memory_of_the_encoder",
    "test_flash.py",
    "test_scaling.py",
)

# What has no smaller size, and takes minutes.
WHOLE_ONLY = {"test_flash.py"}


class ReportError(Exception):
    """Why nothing was written."""


def run(scale: float, keep: Path = RUN) -> Any:
    """Run the benchmarks. Returns what pytest-benchmark says of them."""
    keep.parent.mkdir(exist_ok=True)
    keep.unlink(missing_ok=True)
    here = Path(__file__).parent
    names = [name for name in SHOWN if scale == 1 or name not in WHOLE_ONLY]
    shown = [str(here / name) for name in names]
    options = ["--verbose", "--benchmark-columns=median", "--benchmark-sort=fullname"]
    command = [sys.executable, "-m", "pytest", *options, f"--scale={scale}"]
    done = subprocess.run([*command, f"--benchmark-json={keep}", *shown], cwd=ROOT)
    if done.returncode != 0:
        raise ReportError("the benchmarks did not all pass")
    return json.loads(keep.read_text(encoding="utf-8"))


def reduce(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return of a run what the documents show; what has been reduced already stays as it is."""
    if "machine_info" not in run:
        return dict(run)
    benchmarks = {bench["name"]: bench["extra_info"] for bench in run["benchmarks"]}
    if not benchmarks:
        raise ReportError("no benchmark is in this run")
    return {
        "date": run["datetime"][:10],
        "commit": run["commit_info"].get("id", "unknown")[:12],
        "machine": run["machine_info"],
        "benchmarks": {name: _rounded(info) for name, info in benchmarks.items()},
    }


def _rounded(value: Any) -> Any:
    """Four digits are more than any figure here is good for."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, Mapping):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return value


def write(results: Mapping[str, Any], to: Path) -> list[Path]:
    """Write all documents into a copy of the tree, or the tree itself. Returns what was written."""
    from plots import draw_all

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    texts = {
        to / RESULTS.relative_to(ROOT): _as_text(results),
        to / "README.md": with_figures(readme, render_readme(results)),
        to / "docs" / "performance.md": render_document(results),
    }
    # The pictures first: what can fail halfway is to fail before the texts name them.
    pictures = draw_all(results["benchmarks"], to / "docs" / "performance")
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return [*texts, *pictures]


def with_figures(readme: str, figures: str) -> str:
    """Return README.md with these figures between its markers."""
    before, begin, rest = readme.partition(README_BEGIN)
    _, end, after = rest.partition(README_END)
    if not begin or not end:
        raise ReportError(f"README.md lacks {README_BEGIN!r} or {README_END!r}")
    return f"{before}{begin}\n\n{figures}\n\n{end}{after}"


def _as_text(results: Mapping[str, Any]) -> str:
    """Return JSON in which a list of numbers stands on one line."""
    text = json.dumps(results, indent=1, ensure_ascii=False)
    numbers = re.compile(r"\[\s+([^][{}]*?)\s+\]")
    return numbers.sub(lambda found: f"[{' '.join(found[1].split())}]", text) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="./dev bench --table",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="two minutes instead of ten, into build/report: for a look, not for the documents",
    )
    parser.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="JSON",
        help="run nothing: take pytest-benchmark's JSON of a run, or a results.json",
    )
    parser.add_argument(
        "--to", type=Path, metavar="FOLDER", help="write there, not into the documents"
    )
    given = parser.parse_args(arguments)
    try:
        if given.source is not None:
            results = reduce(json.loads(given.source.read_text(encoding="utf-8")))
        else:
            results = reduce(run(QUICK_SCALE if given.quick else 1.0))
        to = given.to or (ROOT / "build" / "report" if given.quick else ROOT)
        if to.resolve() == ROOT and results["machine"]["scale"] != 1:
            raise ReportError("this was no whole run; --to FOLDER writes it elsewhere")
        written = write(results, to)
    except (ReportError, OSError, ValueError, KeyError) as error:
        print(f"./dev bench --table: nothing was written: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("./dev bench --table: stopped; nothing was written", file=sys.stderr)
        return 130
    for path in written:
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
