"""The dictionary that the library carries, and the events that it is trained on."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import zstandard

from vevents.codec import encode
from vevents.event import EventType

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    path = ROOT / "tools" / "train_dictionary.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # A dataclass looks its own module up while it is made.
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def test_the_dictionary_is_one_of_zstd(tool: ModuleType) -> None:
    data = (ROOT / "csrc" / "dictionary" / "events.zdict").read_bytes()

    assert data[:4] == (0xEC30A437).to_bytes(4, "little")
    assert zstandard.ZstdCompressionDict(data).dict_id() == tool.DICTIONARY_ID
    assert len(data) == tool.DICTIONARY_SIZE


def test_the_events_are_valid_varied_and_the_same_for_the_same_seed(tool: ModuleType) -> None:
    events = list(tool.sample_events(7, 300))
    for event in events:
        event.validate()

    assert events == list(tool.sample_events(7, 300))
    assert events != list(tool.sample_events(8, 300))
    assert {event.event_type for event in events} == set(EventType)
    assert len({encode(event) for event in events}) > 295
    assert sorted(e.timestamp for e in events) == [e.timestamp for e in events]


def test_events_come_from_as_many_devices_as_asked_for(tool: ModuleType) -> None:
    events = list(tool.sample_events(7, 60, events_per_device=20))

    assert len({event.device_id for event in events}) == 3


@pytest.mark.parametrize("domains", ["DOMAINS", "UNSEEN_DOMAINS"])
def test_the_dictionary_pays_for_words_it_knows_and_for_others(
    tool: ModuleType, domains: str
) -> None:
    data = (ROOT / "csrc" / "dictionary" / "events.zdict").read_bytes()
    dictionary = zstandard.ZstdCompressionDict(data)
    payloads = [encode(e) for e in tool.sample_events(11, 300, domains=getattr(tool, domains))]

    with_it = tool.compressed_sizes(payloads, dictionary)
    without = tool.compressed_sizes(payloads, None)

    # Small events gain most; crowded ones are mostly coordinates, which nothing can shrink.
    ratios = sorted(b / a for a, b in zip(with_it, without, strict=True))
    assert ratios[len(ratios) // 2] > 1.5
    assert sum(with_it) < 0.8 * sum(without)
