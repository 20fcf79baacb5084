"""How long does it take to import the package, and to show the command's help?"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import vevents": ["-c", "import vevents"],
    "vevents --help": ["-m", "vevents", "--help"],
    "vevents flush --help": ["-m", "vevents", "flush", "--help"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_start(benchmark: Any, name: str) -> None:
    command = [sys.executable, *COMMANDS[name]]
    benchmark.pedantic(
        subprocess.run,
        args=(command,),
        kwargs={"check": True, "capture_output": True},
        rounds=15,
        warmup_rounds=2,
    )
