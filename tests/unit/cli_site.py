"""What the tests of the command line share: an environment in which nothing is set."""

from __future__ import annotations

from pathlib import Path

import pytest

from vevents import settings
from vevents.event import Event
from vevents.log import EventLog

KEY = "rf_secret_0123456789"
USE_CASE = "uc-1"
# After so long a process hangs; under qemu and on a busy machine a start takes half a minute.
PATIENCE_S = 180.0


def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Leave no setting of the machine, and no proxy, in the way."""
    for source in settings._SOURCES:
        monkeypatch.delenv(source.variable, raising=False)
    for name in ("VEVENTS_CONFIG", "XDG_CONFIG_HOME", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(settings, "_SYSTEM_FILE", tmp_path / "etc-vevents.toml")
    monkeypatch.chdir(tmp_path)


def small_log(directory: Path, events: int = 0) -> Path:
    """Make a log with so many events, numbered from 1."""
    with EventLog(directory, events_size=1 << 20, media_size=1 << 20, delivery_size=1 << 20) as log:
        for number in range(1, events + 1):
            log.append(Event.custom(value=f"event {number}", use_case_id=USE_CASE))
    return directory
