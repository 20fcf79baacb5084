"""What the interoperability tests share: the engine's process, and the cloud they deliver to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from engine_process import ENGINE_PYTHON, Engine
from store_site import USE_CASE

from vevents.emulator import EmulatorConfig, RunningEmulator

KEY = "rf_secret_0123456789"


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    if not ENGINE_PYTHON:
        pytest.skip("needs the engine: ./dev interop")
    running = Engine()
    yield running
    running.close()


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningEmulator]:
    monkeypatch.setenv("NO_PROXY", "*")
    config = EmulatorConfig(api_keys=[KEY], use_cases=[USE_CASE], require_known_images=True)
    with RunningEmulator(config) as running:
        monkeypatch.setenv("ROBOFLOW_API_KEY", KEY)
        monkeypatch.setenv("API_URL", running.url)
        yield running
