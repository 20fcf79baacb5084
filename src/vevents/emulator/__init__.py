"""An emulator of the Vision Events cloud API: try vevents, or test an integration, offline.

    with RunningEmulator(EmulatorConfig(use_cases=[("uc-demo", "Demo")])) as emulator:
        ...  # emulator.url, emulator.api_key, emulator.counts(), emulator.faults

Needs `pip install "vevents[emulate]"`. What it answers, and which of its answers are assumptions,
is in docs/emulator.md.
"""

from __future__ import annotations

from vevents.emulator.config import ApiKey, EmulatorConfig
from vevents.emulator.faults import Fault, FaultPlan
from vevents.emulator.server import Listening, RunningEmulator, create_app, serve

__all__ = [
    "ApiKey",
    "EmulatorConfig",
    "Fault",
    "FaultPlan",
    "Listening",
    "RunningEmulator",
    "create_app",
    "serve",
]
