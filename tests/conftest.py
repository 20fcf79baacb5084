"""What every test takes for granted."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from vevents import EventLog, _ffi

# How long an example takes says what else the machine does, and whether this is qemu.
settings.register_profile(
    "patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("patient")


@pytest.fixture(autouse=True)
def the_kernels_clock_is_synchronised(monkeypatch):
    """Whether it is differs from machine to machine, and with it what a pass asks the server."""
    monkeypatch.setattr(
        EventLog, "now", staticmethod(lambda: _ffi.now()._replace(synced=True)), raising=True
    )
