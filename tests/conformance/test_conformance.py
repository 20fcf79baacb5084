"""The pinned cases: event to bytes, bytes to what is sent."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
from conformance_case import directories, hex_text, json_text, load

from vevents.event import EventType, Image
from vevents.wire import required_frames

CASES = directories()


@pytest.mark.parametrize("directory", CASES, ids=lambda path: path.name)
def test_event_becomes_the_pinned_bytes(directory: Path) -> None:
    assert hex_text(load(directory).payload()) == (directory / "payload.hex").read_text()


@pytest.mark.parametrize("directory", CASES, ids=lambda path: path.name)
def test_pinned_bytes_become_the_pinned_object(directory: Path) -> None:
    payload = bytes.fromhex((directory / "payload.hex").read_text())

    expected = (directory / "cloud.json").read_text(encoding="utf-8")
    assert json_text(load(directory).cloud(payload)) == expected


@pytest.mark.parametrize("directory", CASES, ids=lambda path: path.name)
def test_the_short_way_gives_the_pinned_object_unless_there_are_frames(directory: Path) -> None:
    case = load(directory)

    found = case.cloud_at_once(bytes.fromhex((directory / "payload.hex").read_text()))

    if required_frames(case.event):
        assert found is None
    else:
        assert found is not None
        assert json_text(json.loads(found)) == (directory / "cloud.json").read_text("utf-8")


def test_the_cases_cover_every_type_and_every_list() -> None:
    events = [load(directory).event for directory in CASES]
    images = [image for event in events for image in event.images]
    empty = Image()

    assert {event.event_type for event in events} == set(EventType)
    used = {
        f.name
        for f in fields(Image)
        for i in images
        if getattr(i, f.name) != getattr(empty, f.name)
    }
    assert used == {f.name for f in fields(Image)}


def test_regenerating_leaves_existing_bytes_alone(tmp_path: Path) -> None:
    here = Path(__file__).parent
    for name in ("conformance_case.py", "regenerate.py"):
        shutil.copy(here / name, tmp_path)
    for name in ("custom", "minimal"):
        shutil.copytree(here / "cases" / name, tmp_path / "cases" / name)
    pinned, new = tmp_path / "cases/custom/payload.hex", tmp_path / "cases/minimal/payload.hex"
    right = pinned.read_text()
    pinned.write_text("00\n")
    new.unlink()

    def regenerate(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(tmp_path / "regenerate.py"), *options]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    refused = regenerate()
    assert refused.returncode == 1
    assert "custom/payload.hex differs" in refused.stderr
    assert pinned.read_text() == "00\n"
    assert new.read_text() == (here / "cases/minimal/payload.hex").read_text()

    assert regenerate("--force").returncode == 0
    assert pinned.read_text() == right


def test_a_changed_event_changes_the_bytes() -> None:
    # The comparison above is only worth something if the bytes follow the event.
    case = load(CASES[0])
    other = replace(case.event, device_id="another device")

    assert replace(case, event=other).payload() != case.payload()
