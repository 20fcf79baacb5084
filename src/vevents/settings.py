"""Where the settings come from: command-line flags, environment, one TOML file, defaults.

The first source that names a setting wins. An empty environment variable counts as not set, which
is what container tools make of a variable without a value. The API key has no flag on purpose:
command lines are readable by every user of the machine.
"""

from __future__ import annotations

import logging
import math
import os
import re
import stat
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from vevents.errors import ConfigurationError

DEFAULT_API_URL = "https://api.roboflow.com"

_SYSTEM_FILE = Path("/etc/vevents.toml")

_LOGGER = logging.getLogger(__name__)
_SIZE_UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_DURATION_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}
_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")
_LOG_LEVELS = ("debug", "info", "warning", "error")


class Secret:
    """A text that shows itself only when asked.

    Example:
        >>> key = Secret("rf_1234")
        >>> key
        Secret('***')
        >>> f"{key}"
        "Secret('***')"
        >>> key.reveal()
        'rf_1234'
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text itself; for the one place that sends it."""
        return self._text

    def __repr__(self) -> str:
        return "Secret('***')"

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a Secret is not to be pickled or copied")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set from outside.

    Attributes:
        directory: Where the log is, or None when nobody said so; see `require_directory()`.
        api_key: The key of the workspace, or None.
        api_url: Base of the API, without a slash at its end.
        use_case_id: Use case of the events that name none, or None.
        events_size: Bytes on disk of a new events ring; None leaves it to the log.
        media_size: Bytes on disk of a new media ring; None leaves it to the log.
        delivery_size: Bytes on disk of a new delivery ring; None leaves it to the log.
        full: What a full ring does: `drop-oldest` or `refuse`.
        sync_interval_s: Seconds between background syncs of the log; 0 turns them off.
        connect_timeout_s: Seconds to wait for a connection.
        read_timeout_s: Seconds to wait for the server's next bytes.
        write_timeout_s: Seconds to wait until the network takes the next bytes.
        attempts: How often one request is tried within a pass, the first one included.
        retry_wait_s: Longest wait between two attempts. A server that asks for more ends the pass.
        log_level: `debug`, `info`, `warning` or `error`.
        config_file: The TOML file that was read, or None.
    """

    directory: Path | None = None
    api_key: Secret | None = None
    api_url: str = DEFAULT_API_URL
    use_case_id: str | None = None
    events_size: int | None = None
    media_size: int | None = None
    delivery_size: int | None = None
    full: Literal["drop-oldest", "refuse"] = "drop-oldest"
    sync_interval_s: float = 5.0
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 30.0
    write_timeout_s: float = 30.0
    attempts: int = 5
    retry_wait_s: float = 60.0
    log_level: str = "warning"
    config_file: Path | None = None

    def require_directory(self) -> Path:
        """Return the log's directory.

        Raises:
            ConfigurationError: No source names one.
        """
        if self.directory is None:
            raise ConfigurationError(
                "where is the log? Give --dir, set VEVENTS_DIR, or set dir in vevents.toml"
            )
        return self.directory

    def require_api_key(self) -> Secret:
        """Return the API key.

        Raises:
            ConfigurationError: No source holds one.
        """
        if self.api_key is None:
            raise ConfigurationError(
                "no API key: set ROBOFLOW_API_KEY, or api_key in vevents.toml (mode 0600)"
            )
        return self.api_key


def parse_size(value: object) -> int:
    """Return a number of bytes.

    Args:
        value: A whole number of bytes, or a text such as `64MiB`, `1.5 GiB`, `200MB`, `65536`.

    Raises:
        ValueError: Not a size, negative, or not whole. `K`, `M` and `G` alone are refused: some
            read them as powers of 1000 and some as powers of 1024.

    Example:
        >>> parse_size("64MiB"), parse_size("1.5 kB"), parse_size(4096)
        (67108864, 1500, 4096)
    """
    number, unit = _quantity(value)
    factor = _SIZE_UNITS.get(unit.lower())
    if factor is None:
        raise ValueError(f"{value!r} has an unknown unit; use B, kB, MB, GB, KiB, MiB or GiB")
    size = number * factor
    if size != int(size):
        raise ValueError(f"{value!r} is not a whole number of bytes")
    return int(size)


def parse_duration(value: object) -> float:
    """Return a number of seconds.

    Args:
        value: A number of seconds, or a text such as `30s`, `500ms`, `5min`, `2h`, `1.5`.

    Raises:
        ValueError: Not a duration, or negative.

    Example:
        >>> parse_duration("500ms"), parse_duration("5min"), parse_duration(2)
        (0.5, 300.0, 2.0)
    """
    number, unit = _quantity(value)
    factor = _DURATION_UNITS.get(unit.lower())
    if factor is None:
        raise ValueError(f"{value!r} has an unknown unit; use ms, s, min or h")
    return number * factor


def resolve(
    flags: Mapping[str, object] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Settings:
    """Gather the settings: flags over environment over TOML file over defaults.

    Args:
        flags: Values by TOML key (`dir`, `api_url`, ...), plus `config` for the file itself. None
            counts as not given.
        environ: The environment; the process's own if None.
        cwd: Where relative paths and `./vevents.toml` are looked up; the current directory if None.

    Raises:
        ConfigurationError: A value makes no sense, the file holds an unknown key, or a file that
            was named cannot be read. The message names the source, never a secret.
    """
    flags = {} if flags is None else flags
    environ = os.environ if environ is None else environ
    cwd = Path.cwd() if cwd is None else cwd

    path = _config_path(flags, environ, cwd)
    table = {} if path is None else _read_table(path)
    values: dict[str, Any] = {"config_file": path}
    for source in _SOURCES:
        if flags.get(source.key) is not None:
            raw, where, base = flags[source.key], f"--{source.key.replace('_', '-')}", cwd
        elif environ.get(source.variable):
            raw, where, base = environ[source.variable], source.variable, cwd
        elif source.key in table and path is not None:
            raw, where, base = table[source.key], f"{source.key} in {path}", path.parent
        else:
            continue
        try:
            values[source.field] = source.parse(raw)
        except ValueError as error:
            # `from None`: the original error may quote the value, and the value may be the key.
            raise ConfigurationError(f"{where}: {error}") from None
        if source.field == "directory":
            values["directory"] = base / values["directory"]
    if "api_key" in table and path is not None:
        _warn_if_exposed(path)
    settings = Settings(**values)
    _warn_if_plain(settings)
    return settings


def _config_path(flags: Mapping[str, object], environ: Mapping[str, str], cwd: Path) -> Path | None:
    named = flags.get("config") or environ.get("VEVENTS_CONFIG")
    if named:
        return cwd / Path(str(named)).expanduser()
    home = environ.get("HOME", "")
    user = environ.get("XDG_CONFIG_HOME") or (str(Path(home) / ".config") if home else "")
    candidates = [cwd / "vevents.toml"]
    if user:
        candidates.append(Path(user) / "vevents" / "config.toml")
    candidates.append(_SYSTEM_FILE)
    for path in candidates:
        try:
            status = path.stat()
        except OSError:
            continue
        # A file that nobody named must not be able to send the key to somebody's own api_url.
        if status.st_uid not in (0, os.geteuid()) or status.st_mode & stat.S_IWOTH:
            raise ConfigurationError(
                f"{path}: found in passing, but it belongs to another user or anybody can write "
                "it; name it with --config or VEVENTS_CONFIG if it is meant"
            )
        return path
    return None


def _read_table(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            table = tomllib.load(file)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        reason = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "not UTF-8"
        # `from None`: the decoder's error can carry the whole text of the file.
        raise ConfigurationError(f"{path}: not valid TOML: {reason}") from None
    known = {source.key for source in _SOURCES}
    for key in table:
        if key not in known:
            raise ConfigurationError(
                f"{path}: unknown key {key!r}; known are {', '.join(sorted(known))}"
            )
    return table


def _warn_if_exposed(path: Path) -> None:
    if path.stat().st_mode & stat.S_IROTH:
        _LOGGER.warning("%s holds the API key and every user can read it: chmod 600 %s", path, path)


def _warn_if_plain(settings: Settings) -> None:
    if settings.api_key is None or not settings.api_url.startswith("http://"):
        return
    host = urlsplit(settings.api_url).hostname or ""
    if host not in ("localhost", "::1") and not host.startswith("127."):
        _LOGGER.warning("%s is not encrypted: the API key travels readable", settings.api_url)


def _quantity(value: object) -> tuple[float, str]:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError("expected a number, or a number with a unit in quotes")
    if isinstance(value, str):
        match = _QUANTITY.fullmatch(value)
        if match is None:
            raise ValueError(f"{value!r} is not a number with a unit")
        digits, unit = match.groups()
        return (float(digits) if "." in digits else int(digits)), unit
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{value!r} is out of range")
    return value, ""


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("expected a text in quotes")
    if not value.strip():
        raise ValueError("is empty")
    return value.strip()


def _path(value: object) -> Path:
    return value if isinstance(value, Path) else Path(_text(value)).expanduser()


def _api_key(value: object) -> Secret:
    text = _text(value)
    if not re.fullmatch(r"[!-~]+", text):
        raise ValueError("an API key has no spaces and no characters outside ASCII")
    return Secret(text)


def _api_url(value: object) -> str:
    text = _text(value).rstrip("/")
    try:
        url = urlsplit(text)
        sound = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        sound = False
    if not sound or re.search(r"[\s?#@]", text):
        raise ValueError("expected http:// or https:// and a host, without user, query or fragment")
    return text


def _use_case_id(value: object) -> str:
    text = _text(value)
    if len(text) > 256:
        raise ValueError("a use case has at most 256 characters")
    return text


def _one_of(*choices: str) -> Callable[[object], str]:
    def parse(value: object) -> str:
        if value not in choices:
            raise ValueError(f"{value!r} is none of {', '.join(choices)}")
        return str(value)

    return parse


def _timeout(value: object) -> float:
    seconds = parse_duration(value)
    if seconds <= 0:
        raise ValueError("must be more than 0")
    return seconds


def _attempts(value: object) -> int:
    number, unit = _quantity(value)
    if unit or number != int(number) or not 1 <= number <= 100:
        raise ValueError(f"{value!r} is not a whole number from 1 to 100")
    return int(number)


@dataclass(frozen=True, slots=True)
class _Source:
    field: str  # of Settings
    key: str  # in the TOML file and among the flags
    variable: str  # in the environment
    parse: Callable[[object], Any]


_SOURCES = (
    _Source("directory", "dir", "VEVENTS_DIR", _path),
    _Source("api_key", "api_key", "ROBOFLOW_API_KEY", _api_key),
    _Source("api_url", "api_url", "API_URL", _api_url),
    _Source("use_case_id", "use_case", "VEVENTS_USE_CASE", _use_case_id),
    _Source("events_size", "events_size", "VEVENTS_EVENTS_SIZE", parse_size),
    _Source("media_size", "media_size", "VEVENTS_MEDIA_SIZE", parse_size),
    _Source("delivery_size", "delivery_size", "VEVENTS_DELIVERY_SIZE", parse_size),
    _Source("full", "full", "VEVENTS_FULL", _one_of("drop-oldest", "refuse")),
    _Source("sync_interval_s", "sync_interval", "VEVENTS_SYNC_INTERVAL", parse_duration),
    _Source("connect_timeout_s", "connect_timeout", "VEVENTS_CONNECT_TIMEOUT", _timeout),
    _Source("read_timeout_s", "read_timeout", "VEVENTS_READ_TIMEOUT", _timeout),
    _Source("write_timeout_s", "write_timeout", "VEVENTS_WRITE_TIMEOUT", _timeout),
    _Source("attempts", "attempts", "VEVENTS_ATTEMPTS", _attempts),
    _Source("retry_wait_s", "retry_wait", "VEVENTS_RETRY_WAIT", parse_duration),
    _Source("log_level", "log_level", "VEVENTS_LOG_LEVEL", _one_of(*_LOG_LEVELS)),
)
