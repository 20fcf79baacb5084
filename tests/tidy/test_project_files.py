"""What must not be in any file of the project, and what every file must be."""

from __future__ import annotations

import re
import stat

import pytest
from house import ROOT, project_files

VENDORED = ROOT / "csrc" / "third_party"
OWN = [path for path in project_files() if VENDORED not in path.parents]

# Written in pieces, so that this file does not find itself.
LEFT_OVER = re.compile(r"\b(?:" + "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X"]) + r")\b")
# Somebody's machine: homes and working folders. System paths such as /etc and /dev are facts.
SOMEBODYS_PATH = re.compile(
    r"(?<![\w.~/-])/(?:" + "|".join(["ro" + "ot", "ho" + "me", "Us" + "ers", "wo" + "rk"]) + r")/\w"
)
REGISTRY = re.compile(
    r"\b(?:"
    + "|".join(["py" + r"pi\.org", "python" + "hosted", "npm" + r"js\.org", "crates" + r"\.io"])
    + r")\b"
)


def _texts():
    for path in OWN:
        data = path.read_bytes()
        if b"\0" not in data:
            yield path, data.decode("utf-8")


@pytest.mark.parametrize("pattern", [LEFT_OVER, SOMEBODYS_PATH, REGISTRY], ids=lambda p: p.pattern)
def test_no_file_holds(pattern):
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path, text in _texts()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]

    assert not found, "\n".join(found)


def test_the_patterns_find_what_they_are_for():
    assert LEFT_OVER.search("# TO" + "DO: later")
    assert SOMEBODYS_PATH.search('open("/ho' + 'me/ann/log")')
    assert not SOMEBODYS_PATH.search("tests/ho" + "me/log and $/ho" + "me")
    assert REGISTRY.search("https://py" + "pi.org/simple")


def test_text_ends_with_one_newline_and_no_line_with_a_blank():
    for path, text in _texts():
        if not text:
            continue
        name = path.relative_to(ROOT)
        assert text.endswith("\n"), name
        assert not text.endswith("\n\n"), name
        assert "\r" not in text, name
        assert not re.search(r"[ \t]+$", text, re.MULTILINE), name


def test_what_has_a_shebang_can_be_executed_and_nothing_else_can():
    for path in OWN:
        executable = bool(path.stat().st_mode & stat.S_IXUSR)
        assert executable == path.read_bytes().startswith(b"#!"), path.relative_to(ROOT)


def test_every_test_file_belongs_to_a_part_and_has_a_name_of_its_own():
    names = [path.name for path in OWN if path.match("tests/**/test_*.py")]

    assert len(names) > 5
    # pytest puts each folder on the path; a second file of one name would hide the first.
    assert len(set(names)) == len(names)


def test_every_unit_test_is_named_after_what_it_tests():
    modules = {path.stem for path in OWN if "src/vevents" in path.as_posix()}
    folders = {path.parent.name for path in OWN if path.parent.parent == ROOT / "src" / "vevents"}
    for path in OWN:
        if path.parent == ROOT / "tests" / "unit" and path.name.startswith("test_"):
            subject = path.stem.removeprefix("test_")
            assert any(
                subject == name.strip("_") or subject.startswith(f"{name.strip('_')}_")
                for name in modules | folders
            ), path.relative_to(ROOT)
