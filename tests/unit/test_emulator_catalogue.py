"""The faults with names: the same here and in docs/emulator.md, and all within reach."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest

from vevents.emulator import CATALOGUE, Fault
from vevents.emulator.catalogue import draw, parse_severity
from vevents.errors import ConfigurationError

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "emulator.md").read_text("utf-8")


def test_the_document_has_every_named_fault_as_it_is() -> None:
    section = DOCUMENT.partition("\n## 7.")[2]
    rows = re.findall(r"^\| `(.+?)` \| .+? \| `(.+)` \|$", section, re.MULTILINE)

    documented = {name: Fault.from_json({"name": name, **json.loads(text)}) for name, text in rows}

    assert documented == CATALOGUE
    assert list(documented) == list(CATALOGUE)


def test_other_examples_of_the_document_are_faults() -> None:
    section = DOCUMENT.partition("\n### A fault")[2].partition("\n## 7.")[0]
    [examples] = re.findall(r"```json\n(.*?)```", section, re.DOTALL)

    faults = [Fault.from_json(json.loads(line)) for line in examples.splitlines()]

    assert len(faults) == 4


def test_every_fault_is_counted_under_its_name() -> None:
    assert {name: fault.label for name, fault in CATALOGUE.items()} == {n: n for n in CATALOGUE}


def test_what_costs_a_timeout_is_not_drawn_at_low_severity() -> None:
    def drawn(severity: str) -> set[str]:
        dice = random.Random(1)
        faults = [draw(dice, parse_severity(severity), "/vision-events") for _ in range(20_000)]
        return {fault.name for fault in faults if fault is not None}

    costly = {"no-answer", "no-answer-stored", "answer-stalled", "request-stalled", "huge"}
    assert not costly & drawn("low")
    assert costly < drawn("medium") == drawn("high")


def test_a_severity_that_does_not_exist() -> None:
    with pytest.raises(ConfigurationError, match="'extreme' is none of low, medium, high"):
        parse_severity("extreme")
