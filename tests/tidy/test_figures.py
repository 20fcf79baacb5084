"""Figures in documents come from a run; `./dev bench --table` writes them only from a whole one."""

from __future__ import annotations

import json
import re
import sys
import xml.etree.ElementTree as ET

import pytest
from house import ROOT

sys.path.append(str(ROOT / "benchmarks"))

import report
import tables

README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENT = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
RESULTS = tables.load()


def test_the_readmes_figures_are_those_of_the_run():
    assert report.with_figures(README, tables.render_readme(RESULTS)) == README


def test_the_document_is_that_of_the_run():
    assert tables.render_document(RESULTS) == DOCUMENT


def test_the_run_was_a_whole_one():
    assert RESULTS["machine"]["scale"] == 1
    for name in ("cpu", "cores", "system", "file_system", "load", "versions"):
        assert RESULTS["machine"][name]


def test_the_pictures_are_there_and_small():
    named = re.findall(r"\]\((performance/[a-z]+\.svg)\)", DOCUMENT)

    assert len(named) == len(set(named)) >= 4
    there = {path.name for path in (ROOT / "docs" / "performance").iterdir()}
    assert there == {name.partition("/")[2] for name in named}
    for name in named:
        path = ROOT / "docs" / name
        assert path.stat().st_size < 64 * 1024
        assert ET.parse(path).getroot().tag.endswith("svg")


def as_run(**machine):
    """Return what pytest-benchmark would have said of the run."""
    return {
        "datetime": f"{RESULTS['date']}T12:00:00",
        "commit_info": {"id": RESULTS["commit"]},
        "machine_info": RESULTS["machine"] | machine,
        "benchmarks": [
            {"name": name, "extra_info": info} for name, info in RESULTS["benchmarks"].items()
        ],
    }


def test_a_run_becomes_the_documents(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    source = tmp_path / "run.json"
    source.write_text(json.dumps(as_run()), encoding="utf-8")

    assert report.main(["--from", str(source), "--to", str(tmp_path / "to")]) == 0

    written = capsys.readouterr().out.split()
    assert len(written) == 3 + len(list((ROOT / "docs" / "performance").iterdir()))
    for path in (tables.RESULTS, ROOT / "README.md", ROOT / "docs" / "performance.md"):
        copy = tmp_path / "to" / path.relative_to(ROOT)
        assert copy.read_bytes() == path.read_bytes(), path.name
        assert str(copy) in written


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (as_run(scale=0.05), "no whole run"),
        (as_run() | {"benchmarks": []}, "no benchmark"),
        (as_run() | {"benchmarks": as_run()["benchmarks"][1:]}, "test_append_beside_peers"),
        ({"benchmarks": {}}, "machine"),
    ],
)
def test_anything_less_changes_no_document(tmp_path, capsys, run, reason):
    source = tmp_path / "run.json"
    source.write_text(json.dumps(run), encoding="utf-8")
    before = (ROOT / "README.md").stat().st_mtime_ns, tables.RESULTS.stat().st_mtime_ns

    assert report.main(["--from", str(source)]) == 1

    assert "nothing was written" in (said := capsys.readouterr().err)
    assert reason in said
    assert before == ((ROOT / "README.md").stat().st_mtime_ns, tables.RESULTS.stat().st_mtime_ns)


def test_without_its_markers_the_readme_is_left_alone():
    with pytest.raises(report.ReportError, match="lacks"):
        report.with_figures("# vevents\n", "figures")


@pytest.mark.parametrize(
    ("column", "value", "shown"),
    [
        ("p50_us", 0.15, "150 ns"),
        ("p50_us", 1.798, "1.80 µs"),
        ("max_us", 16_384.0, "16.4 ms"),
        ("open_ms", 1200.0, "1.20 s"),
        ("4_gain", 1.604, "1.60"),
        ("bytes_per_event", 1699.4, "1,699"),
    ],
)
def test_how_figures_are_shown(column, value, shown):
    assert tables._cell(column, value) == shown


def test_threads_are_told_by_how_far_the_cores_are_apart():
    turns = [(28, 1.58), (181, 1.2), (30, 1.6)]
    measured = {
        "figures": {"append": {"4_gain": 1.58}},
        "by_turn": [{"core_distance_ns": ns, "4_gain": gain} for ns, gain in turns],
    }

    told, met = tables._threads({"benchmarks": {"test_threads_from_c": measured}})

    assert "; 1.59 in 2 turns with 29 ns from core to core; 1.20 in 1 turns with 181 ns" in told
    assert not met


def test_bytes_at_the_block_device_have_a_table_and_an_aim():
    row = {"written_per_event": 233.4, "ratio": 1.234, "compressed_per_event": 189.0}
    name = "test_bytes_on_the_device[a sync every 5 s-{}]"
    benchmarks = {name.format(rate): row for rate in (1, 30, 1000)}
    mounted = {"lazytime, 30 a second": row, "relatime, 30 a second": row | {"ratio": 1.5}}
    benchmarks["test_bytes_in_real_time"] = {"figures": mounted}
    document = tables.render_document({**RESULTS, "benchmarks": benchmarks})

    assert "| a sync every 5 s | 233 (1.23) | 233 (1.23) | 233 (1.23) |" in document
    assert re.search(r"every 5 s: .* \| 1\.23 times \(relatime, 30 a s.* 1\.50\) \| met", document)
    assert re.search(r"time being .* \| 1\.23 times \(1 a second 1\.23, 1000 .*\| met \|", document)
    assert "| relatime, 30 a second | 233 | 1.50 |" in document


def test_what_was_not_measured_is_said_to_be_so():
    fewer = {"test_append_beside_peers": RESULTS["benchmarks"]["test_append_beside_peers"]}
    document = tables.render_document({**RESULTS, "benchmarks": fewer})

    assert document.count("Not measured in this run.") == len(tables.SECTIONS) - 1 + 3
    assert "not measured" in document
