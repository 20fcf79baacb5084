"""What every test takes for granted."""

from __future__ import annotations

import pytest

from vevents import EventLog, _ffi


@pytest.fixture(autouse=True)
def the_kernels_clock_is_synchronised(monkeypatch):
    """Whether it is differs from machine to machine, and with it what a pass asks the server."""
    monkeypatch.setattr(
        EventLog, "now", staticmethod(lambda: _ffi.now()._replace(synced=True)), raising=True
    )
