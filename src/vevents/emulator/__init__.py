"""An emulator of the Vision Events cloud API: try vevents, or test an integration, offline.

    with RunningEmulator(EmulatorConfig(use_cases=[("uc-demo", "Demo")])) as emulator:
        ...  # emulator.url, emulator.api_key, emulator.counts(), emulator.faults

Needs `pip install "vevents[emulate]"`. What it answers, and which of its answers are assumptions,
is in docs/emulator.md.
"""

from __future__ import annotations

from vevents.emulator.catalogue import CATALOGUE
from vevents.emulator.config import ApiKey, EmulatorConfig, TlsFiles
from vevents.emulator.faults import Content, Events, Fault, Flow, Which
from vevents.emulator.plan import Chaos, FaultPlan
from vevents.emulator.server import Listening, RunningEmulator, create_app, serve

__all__ = [
    "CATALOGUE",
    "ApiKey",
    "Chaos",
    "Content",
    "EmulatorConfig",
    "Events",
    "Fault",
    "FaultPlan",
    "Flow",
    "Listening",
    "RunningEmulator",
    "TlsFiles",
    "Which",
    "create_app",
    "serve",
]
