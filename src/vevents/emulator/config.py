"""What the emulator can be told: keys, use cases, limits, and how strict it is.

Every default follows what is documented of the Vision Events API, or the assumption that
docs/emulator.md lists where nothing is documented.
"""

from __future__ import annotations

import math
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from vevents.errors import ConfigurationError

# The pages of the API disagree on the spelling of scopes; both are understood.
_SCOPE_SPELLINGS = {
    "visionEvents.write": "vision-events:write",
    "visionEvents.read": "vision-events:read",
    "visionEvents.manage": "vision-events:manage",
    "device.update": "device:update",
    "device.read": "device:read",
}

# What may change while the emulator runs, with the types of its JSON.
_CHANGEABLE: Final[dict[str, tuple[type, ...]]] = {
    "api_keys": (list,),
    "partial_batches": (bool,),
    "strict_event_data": (bool,),
    "strict_fields": (bool,),
    "degrade_images": (bool,),
    "require_known_images": (bool,),
    "batch_count_max": (int,),
    "json_size_max": (int,),
    "image_size_max": (int,),
    "bundle_size_max": (int,),
    "bundle_unpacked_size_max": (int,),
    "rate_limit_per_s": (int, float, type(None)),
    "rate_limit_burst": (int,),
    "lookback_days": (int,),
}


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key that the emulator accepts.

    Attributes:
        value: The secret; never part of the repr.
        scopes: What the key may do, `vision-events:write` or `visionEvents.write` alike;
            None for a key without a list, which may do everything.
    """

    value: str = field(repr=False)
    scopes: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if not self.value or self.value != self.value.strip():
            raise ConfigurationError("an API key must not be empty or have spaces around it")
        if self.scopes is not None:
            spelled = tuple(_SCOPE_SPELLINGS.get(scope, scope) for scope in self.scopes)
            object.__setattr__(self, "scopes", spelled)

    def allows(self, scopes_any: frozenset[str]) -> bool:
        """Say whether the key holds at least one of these scopes (colon spelling)."""
        return self.scopes is None or not scopes_any.isdisjoint(self.scopes)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """What the emulator speaks TLS with.

    Attributes:
        certificate: PEM file: the certificate and what is between it and its root.
        key: PEM file: its private key, without a passphrase.
    """

    certificate: str | os.PathLike[str]
    key: str | os.PathLike[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatorConfig:
    """Settings of one emulator.

    Attributes:
        database: Path of the SQLite file, which a later emulator continues; `":memory:"`; or
            None for a temporary file that is deleted at the end.
        api_keys: Keys to accept, plain or as `ApiKey`; when empty, a random one is made.
        use_cases: Use cases to create at the start unless they exist, as `(id, name)` or as
            `"ID"` or `"ID=NAME"`.
        partial_batches: Store the good events of a batch with a bad one, instead of refusing
            the whole batch.
        strict_event_data: Refuse an event whose `eventData` is missing or lacks the key that
            its type is about (`result`, `itemCount`, `alertType`, `value`, `relatedEventId`
            and `feedback`).
        strict_fields: Refuse fields that are not documented, and a `displayImagePosition`
            outside `images`, instead of ignoring them.
        degrade_images: Answer 201 to an event with invalid images and drop all of them, as the
            service is said to do, instead of refusing the event.
        require_known_images: Refuse an event that names a `sourceId` that was never uploaded.
        batch_count_max: Events in a batch, at most the 100 that are documented.
        json_size_max: Bytes of a JSON body, unpacked.
        image_size_max: Bytes of one image.
        bundle_size_max: Bytes of a bundle as sent.
        bundle_unpacked_size_max: Bytes of a bundle unpacked.
        image_directory: Where to keep the bytes of images, one file per digest; None keeps them
            in the database.
        image_kept_size_max: Bytes of images kept in the database; beyond, the oldest bytes are
            dropped. Sizes and digests always stay. Without effect on `image_directory`.
        rate_limit_per_s: Requests per second and key before 429; None for no limit.
        rate_limit_burst: Requests that may come at once under the limit.
        lookback_days: How far back a query sees.
        access_log: Log one line per request, without its query string, at INFO to the logger
            `vevents.emulator.access`.
        clock: Seconds since 1970, for the window of timestamps and the `Date` of answers.

    Raises:
        ConfigurationError: A value makes no sense; the message names it.

    Example:
        >>> config = EmulatorConfig(api_keys=["demo-key"], use_cases=[("uc-demo", "Demo")])
        >>> config.keys[0].allows(frozenset({"vision-events:write"}))
        True
        >>> "demo-key" in repr(config)
        False
    """

    database: str | os.PathLike[str] | None = None
    api_keys: Sequence[str | ApiKey] = field(default=(), repr=False)
    use_cases: Sequence[str | tuple[str, str]] = ()
    partial_batches: bool = False
    strict_event_data: bool = False
    strict_fields: bool = False
    degrade_images: bool = False
    require_known_images: bool = False
    batch_count_max: int = 100
    json_size_max: int = 10_000_000
    image_size_max: int = 20_000_000
    bundle_size_max: int = 26_214_400
    bundle_unpacked_size_max: int = 104_857_600
    image_directory: str | os.PathLike[str] | None = None
    image_kept_size_max: int = 268_435_456
    rate_limit_per_s: float | None = None
    rate_limit_burst: int = 1
    lookback_days: int = 14
    access_log: bool = False
    clock: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        for name in (
            "batch_count_max",
            "json_size_max",
            "image_size_max",
            "bundle_size_max",
            "bundle_unpacked_size_max",
            "rate_limit_burst",
            "lookback_days",
        ):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name} must be at least 1")
        if self.image_kept_size_max < 0:
            raise ConfigurationError("image_kept_size_max must not be negative")
        rate = self.rate_limit_per_s
        if rate is not None and not (0 < rate < math.inf):
            raise ConfigurationError("rate_limit_per_s must be more than 0")
        given = self.api_keys or (f"emulator-{secrets.token_hex(8)}",)
        keys = tuple(map(_api_key, given))
        object.__setattr__(self, "api_keys", keys)
        object.__setattr__(self, "use_cases", tuple(map(_use_case, self.use_cases)))

    def changed(self, settings: Mapping[str, Any]) -> EmulatorConfig:
        """Return the same settings but for those given, as far as they may change in mid-run.

        Raises:
            ConfigurationError: One of them may not, or makes no sense.
        """
        for name, value in settings.items():
            if name not in _CHANGEABLE:
                known = ", ".join(_CHANGEABLE)
                raise ConfigurationError(f"{name} cannot be changed; what can: {known}")
            if type(value) not in _CHANGEABLE[name]:
                raise ConfigurationError(f"{name} has the wrong type")
        return replace(self, **settings)

    @property
    def changeable(self) -> dict[str, Any]:
        """What `changed` may change, as it is; without the keys."""
        return {name: getattr(self, name) for name in _CHANGEABLE if name != "api_keys"}

    @property
    def keys(self) -> tuple[ApiKey, ...]:
        """The accepted keys, at least one."""
        return tuple(key for key in self.api_keys if isinstance(key, ApiKey))

    @property
    def named_use_cases(self) -> tuple[tuple[str, str], ...]:
        """The use cases to create, as `(id, name)`."""
        return tuple(pair for pair in self.use_cases if not isinstance(pair, str))


def _api_key(given: object) -> ApiKey:
    if isinstance(given, ApiKey):
        return given
    if isinstance(given, dict) and given.keys() <= {"value", "scopes"}:
        value, scopes = given.get("value"), given.get("scopes")
    else:
        value, scopes = given, None
    is_list = isinstance(scopes, list) and all(isinstance(scope, str) for scope in scopes)
    if not isinstance(value, str) or not (scopes is None or is_list):
        # Without the value: it may be a key in the wrong place.
        raise ConfigurationError("api_keys: a key is a string, or value and scopes")
    return ApiKey(value, scopes)


def _use_case(given: str | tuple[str, str]) -> tuple[str, str]:
    if isinstance(given, str):
        use_case_id, _, name = given.partition("=")
        use_case_id, name = use_case_id.strip(), name.strip() or use_case_id.strip()
    else:
        use_case_id, name = given[0], given[1].strip()
    for what, text in (("id", use_case_id), ("name", name)):
        if not 1 <= len(text) <= 256:
            raise ConfigurationError(
                f"use case {given!r}: the {what} must have 1 to 256 characters"
            )
    return use_case_id, name
