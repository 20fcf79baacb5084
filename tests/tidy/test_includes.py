"""The order of the C rooms: each file includes only the headers of rooms above it."""

from __future__ import annotations

import re

from house import ROOT

SOURCES = ROOT / "csrc" / "src"
_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', re.MULTILINE)

# Headers that only one room may know.
OWNERS = {
    "zstd.h": {"vev_zstd"},
    "zstd_errors.h": {"vev_zstd"},
    "zdict.h": {"vev_zstd"},
    "fcntl.h": {"vev_io", "vev_clock"},
    "sys/mman.h": {"vev_io"},
    "sys/stat.h": {"vev_io"},
    "sys/file.h": {"vev_io"},
    # The guard catches SIGBUS; the keeper's thread keeps the program's signals away from itself.
    "signal.h": {"vev_guard", "vev_keeper"},
}


def rooms_in_order() -> list[str]:
    """Return the rooms as csrc/meson.build lists them; vev_base.h stands above all."""
    build = (ROOT / "csrc" / "meson.build").read_text(encoding="utf-8")
    listed = re.search(r"vev_sources = files\((.*?)\)", build, re.DOTALL)
    assert listed is not None
    return ["vev_base", *re.findall(r"'src/(\w+)\.c'", listed[1])]


def made_by_the_build() -> list[str]:
    """Return the headers that csrc/meson.build makes."""
    build = (ROOT / "csrc" / "meson.build").read_text(encoding="utf-8")
    return re.findall(r"output: '(\w+\.h)'", build)


def faults_of(name: str, text: str, order: list[str]) -> list[str]:
    """Return one sentence for every include of the file `name` that breaks a rule."""
    room = name.partition(".")[0]
    faults = []
    for match in _INCLUDE.finditer(text):
        kind, header = match.groups()
        line = text.count("\n", 0, match.start()) + 1
        if header in OWNERS and room not in OWNERS[header]:
            faults.append(f"{name}:{line}: {header} is for {', '.join(OWNERS[header])} alone")
        if (
            kind == "<"
            or header.startswith("vevents/")
            or header in (*made_by_the_build(), *OWNERS)
        ):
            continue
        other = header.removesuffix(".h")
        if other not in order:
            faults.append(f"{name}:{line}: {header} belongs to no room of csrc/meson.build")
        elif order.index(other) > order.index(room):
            faults.append(f"{name}:{line}: {room} stands above {other} and must not include it")
    return faults


def test_every_source_file_is_built():
    order = rooms_in_order()

    rooms = {path.stem for path in SOURCES.glob("*.[ch]")}

    assert rooms == set(order)


def test_every_file_includes_only_rooms_above_it():
    order = rooms_in_order()
    files = sorted(SOURCES.glob("*.[ch]"))
    assert files

    faults = [
        fault
        for path in files
        for fault in faults_of(path.name, path.read_text(encoding="utf-8"), order)
    ]

    assert not faults, "\n".join(faults)


def test_the_rules_catch_what_they_are_for():
    order = ["vev_base", "vev_io", "vev_ring"]

    assert faults_of("vev_io.c", '#include "vev_ring.h"', order)
    assert faults_of("vev_ring.c", '#  include "vev_tape.h"', order)
    assert faults_of("vev_ring.c", "#include <zstd.h>", order)
    assert not faults_of("vev_ring.c", '#include "vev_io.h"\n#include <stdio.h>', order)
    assert not faults_of("vev_ring.h", '#include "vevents/vevents.h"', order)


def test_a_room_begins_with_its_own_header():
    # So that every header is known to stand on its own.
    for path in sorted(SOURCES.glob("*.c")):
        first = _INCLUDE.search(path.read_text(encoding="utf-8"))
        assert first is not None
        if (SOURCES / f"{path.stem}.h").exists():
            assert first[2] == f"{path.stem}.h", path.name
