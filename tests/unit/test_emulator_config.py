"""Settings, keys and scopes."""

from __future__ import annotations

from typing import Any

import pytest

from vevents.emulator import ApiKey, EmulatorConfig
from vevents.emulator.gate import MANAGE, READ, WRITE, RateLimit
from vevents.errors import ConfigurationError


def test_a_key_is_made_when_none_is_given() -> None:
    first, second = EmulatorConfig().keys, EmulatorConfig().keys

    assert len(first) == 1
    assert first[0].value != second[0].value


def test_no_repr_shows_a_key() -> None:
    key = ApiKey("rf_secret", scopes=["device:read"])

    assert "rf_secret" not in f"{key!r} {EmulatorConfig(api_keys=[key, 'rf_secret'])!r}"


@pytest.mark.parametrize(
    ("scopes", "allowed"),
    [
        (None, [WRITE, READ, MANAGE]),
        ([], []),
        (["vision-events:write"], [WRITE]),
        (["visionEvents.write"], [WRITE]),
        (["device:update"], [WRITE]),
        (["device.update"], [WRITE]),
        (["vision-events:read"], [READ]),
        (["visionEvents.read", "device.read"], [READ]),
        (["vision-events:manage"], [MANAGE]),
        (["visionEvents.manage"], [MANAGE]),
        (["image:read"], []),
    ],
)
def test_scopes_in_both_spellings(scopes: Any, allowed: Any) -> None:
    key = ApiKey("k", scopes)

    assert [scope for scope in (WRITE, READ, MANAGE) if key.allows(scope)] == allowed


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("uc-1", ("uc-1", "uc-1")),
        ("uc-1=Line 3 = left", ("uc-1", "Line 3 = left")),
        ("uc-1=", ("uc-1", "uc-1")),
        (("uc-1", " Line 3 "), ("uc-1", "Line 3")),
    ],
)
def test_use_cases(given: str | tuple[str, str], read: tuple[str, str]) -> None:
    assert EmulatorConfig(use_cases=[given]).named_use_cases == (read,)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"use_cases": ["=Line 3"]}, "use case '=Line 3'"),
        ({"use_cases": [("u" * 257, "n")]}, "use case"),
        ({"use_cases": [("uc", " ")]}, "the name must have"),
        ({"api_keys": [""]}, "API key"),
        ({"api_keys": [" k"]}, "API key"),
        ({"json_size_max": 0}, "json_size_max"),
        ({"rate_limit_burst": 0}, "rate_limit_burst"),
        ({"image_kept_size_max": -1}, "image_kept_size_max"),
        ({"rate_limit_per_s": 0.0}, "rate_limit_per_s"),
        ({"rate_limit_per_s": float("nan")}, "rate_limit_per_s"),
    ],
)
def test_settings_that_make_no_sense(settings: Any, name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        EmulatorConfig(**settings)


def test_the_rate_limit_per_key() -> None:
    now = 0.0
    limit = RateLimit(0.5, 2, monotonic=lambda: now)
    key, other = ApiKey("a"), ApiKey("b")

    assert [limit.wait_s(key) for _ in range(3)] == [0, 0, 2]
    assert limit.wait_s(other) == 0
    now = 1.0
    assert limit.wait_s(key) == 1
    now = 2.0
    assert [limit.wait_s(key), limit.wait_s(key)] == [0, 2]
    now = 1000.0
    assert [limit.wait_s(key) for _ in range(3)] == [0, 0, 2]
