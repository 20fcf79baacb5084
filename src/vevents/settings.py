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
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import unquote, urlsplit

from vevents.errors import ConfigurationError
from vevents.pressure import Ladder, parse_ladder

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
_DURATION_UNITS = {
    "": 1.0,
    "ms": 0.001,
    "s": 1.0,
    "min": 60.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86_400.0,
}
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAYS_LONG = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_TIMES = re.compile(r"(\d{1,2}):(\d{2})-(\d{1,2}):(\d{2})")
_BIT_UNITS = {"bit": 0.125, "kbit": 125.0, "mbit": 125e3, "gbit": 125e6}
# The server refuses what is older than a year; we stay a little inside.
EVENT_AGE_MAX_S: Final = 364 * 86_400.0
UPLOADS_MAX: Final = 32
_TRUTHS = {"true": True, "yes": True, "on": True, "1": True} | {
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}
_PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")
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


class ProxyUrl(Secret):
    """The address of a proxy. It shows itself without the user and the password in it.

    Args:
        text: `http://`, `https://`, `socks5://` or `socks5h://`, perhaps `user:password@`, a host
            and a port; without a scheme it is `http://`.

    Raises:
        ValueError: Not such an address. The message does not quote it.

    Example:
        >>> proxy = ProxyUrl("ann:secret@proxy.plant:3128")
        >>> proxy
        ProxyUrl('http://proxy.plant:3128')
        >>> proxy.login
        ('ann', 'secret')
    """

    __slots__ = ("address", "login")

    def __init__(self, text: str) -> None:
        super().__init__(text if "://" in text else f"http://{text}")
        try:
            url = urlsplit(self.reveal())
            host, port = url.hostname, url.port
        except ValueError:
            host = port = None
        sound = host is not None and url.scheme in _PROXY_SCHEMES and url.path in ("", "/")
        if not sound or url.query or url.fragment or re.search(r"\s", text):
            raise ValueError(
                "expected http://, https:// or socks5://, a host and a port, for example "
                "http://proxy.plant:3128"
            )
        name = f"[{host}]" if host is not None and ":" in host else host
        self.address = f"{url.scheme}://{name}" + ("" if port is None else f":{port}")
        self.login = (
            None if url.username is None else (unquote(url.username), unquote(url.password or ""))
        )

    def __repr__(self) -> str:
        return f"ProxyUrl({self.address!r})"


@dataclass(frozen=True, slots=True)
class Window:
    """A time of the day, on some days of the week, by the device's local time.

    Attributes:
        days: The days on which it begins, 0 is Monday.
        begin_min: Minutes after midnight.
        end_min: Minutes after midnight, 1 to 1440; not after `begin_min` means the next day.
    """

    days: frozenset[int]
    begin_min: int
    end_min: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set from outside.

    Attributes:
        directory: Where the log is, or None when nobody said so; see `require_directory()`.
        api_key: The key of the workspace, or None.
        api_url: Base of the API, without a slash at its end.
        store_key: What clients of `vevents serve` have to show, or None.
        use_case_id: Use case of the events that name none, or None.
        events_size: Bytes on disk of a new events ring; None leaves it to the log.
        media_size: Bytes on disk of a new media ring; None leaves it to the log.
        delivery_size: Bytes on disk of a new delivery ring; None leaves it to the log.
        full: What a full ring does: `drop-oldest` or `refuse`.
        pressure: What becomes of new frames while the media ring fills up.
        sync_interval_s: Seconds between background syncs of the log; 0 turns them off.
        persist_dir: Where the copy of a RAM-first log is, or None: the log is on a disk itself.
        persist_interval_s: Longest time in seconds until an event is in that copy.
        connect_timeout_s: Seconds to wait for a connection.
        read_timeout_s: Seconds to wait for the server's next bytes.
        write_timeout_s: Seconds to wait until the network takes the next bytes.
        request_timeout_s: Seconds for a whole request, and one more for every 1,000 bytes of it.
        attempts: How often one request is tried within a pass, the first one included.
        retry_wait_s: Longest wait between two attempts. A server that asks for more ends the pass.
        order: What goes first: `oldest`, `newest`, or `priority`, by type of event.
        priorities: For `priority`: event types, the most important first; empty for the usual.
        live_first: Whether what is appended during a pass goes ahead of the backlog.
        uploads: At most so many images are uploaded at the same time.
        bundle: Whether an event goes together with its images in one request.
        bytes_per_s: Bytes of requests per second, on average; None for as fast as it goes.
        event_age_max_s: Events older than so many seconds are set aside; None for all that the
            server would refuse.
        proxy: The proxy to go through; None leaves it to HTTPS_PROXY and its kin.
        ca_files: The authorities to trust, files and directories; empty means the usual ones.
        client_cert: The certificate with which the device shows who it is, or None.
        client_key: The key of it, or None when it is in the same file.
        client_key_password: What that key is locked with, or None.
        windows: When delivery may run; empty means always.
        agent_interval_s: How long a fresh event waits for company before the agent sends it.
        agent_spread_s: The agent begins at a random moment within so many seconds after a start
            or a reconnect.
        loss_report_s: Least seconds between two reports of what was lost; None for no reports.
        log_level: `debug`, `info`, `warning` or `error`.
        config_file: The TOML file that was read, or None.
    """

    directory: Path | None = None
    api_key: Secret | None = None
    api_url: str = DEFAULT_API_URL
    store_key: Secret | None = None
    use_case_id: str | None = None
    events_size: int | None = None
    media_size: int | None = None
    delivery_size: int | None = None
    full: Literal["drop-oldest", "refuse"] = "drop-oldest"
    pressure: Ladder = Ladder()  # noqa: RUF009, frozen
    sync_interval_s: float = 5.0
    persist_dir: Path | None = None
    persist_interval_s: float = 600.0
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 30.0
    write_timeout_s: float = 30.0
    request_timeout_s: float = 120.0
    attempts: int = 5
    retry_wait_s: float = 60.0
    order: Literal["oldest", "newest", "priority"] = "oldest"
    priorities: tuple[str, ...] = ()
    live_first: bool = False
    uploads: int = 4
    bundle: bool = False
    bytes_per_s: float | None = None
    event_age_max_s: float | None = None
    proxy: ProxyUrl | None = None
    ca_files: tuple[Path, ...] = ()
    client_cert: Path | None = None
    client_key: Path | None = None
    client_key_password: Secret | None = None
    windows: tuple[Window, ...] = ()
    agent_interval_s: float = 5.0
    agent_spread_s: float = 10.0
    loss_report_s: float | None = 86_400.0
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

    def log_options(self) -> dict[str, Any]:
        """Return what of the settings is for the log: keyword arguments of `EventLog`."""
        return {
            "events_size": self.events_size,
            "media_size": self.media_size,
            "delivery_size": self.delivery_size,
            "full": self.full,
            "pressure": self.pressure,
            "sync_interval_s": self.sync_interval_s,
            "persist_dir": self.persist_dir,
            "persist_interval_s": self.persist_interval_s,
        }

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
        raise ValueError(
            f"{value!r} has an unknown unit; use B, kB, MB, GB, TB, KiB, MiB, GiB or TiB"
        )
    size = number * factor
    if size != int(size):
        raise ValueError(f"{value!r} is not a whole number of bytes")
    return int(size)


def _retry_wait(value: object) -> float:
    wait_s = parse_duration(value)
    if wait_s < 1:
        raise ValueError("must be at least 1 s, else a server in trouble is asked without a pause")
    return wait_s


def parse_duration(value: object) -> float:
    """Return a number of seconds.

    Args:
        value: A number of seconds, or a text such as `30s`, `500ms`, `5min`, `2h`, `7d`, `1.5`.

    Raises:
        ValueError: Not a duration, or negative.

    Example:
        >>> parse_duration("500ms"), parse_duration("5min"), parse_duration(2)
        (0.5, 300.0, 2.0)
    """
    number, unit = _quantity(value)
    factor = _DURATION_UNITS.get(unit.lower())
    if factor is None:
        raise ValueError(f"{value!r} has an unknown unit; use ms, s, min, h or d")
    return number * factor


def parse_rate(value: object) -> float:
    """Return bytes per second.

    Args:
        value: A number of bytes, or a text such as `200kB`, `200kB/s`, `1.6Mbit/s`.

    Raises:
        ValueError: Not a rate, or less than one byte per second.

    Example:
        >>> parse_rate("200kB"), parse_rate("1.6Mbit/s")
        (200000.0, 200000.0)
    """
    number, unit = _quantity(value.strip().removesuffix("/s") if isinstance(value, str) else value)
    factor = _BIT_UNITS.get(unit.lower(), _SIZE_UNITS.get(unit.lower()))
    if factor is None:
        raise ValueError(f"{value!r} has an unknown unit; use B, kB, MB, KiB, MiB, kbit or Mbit")
    if number * factor < 1:
        raise ValueError(f"{value!r} is less than one byte per second")
    return float(number * factor)


def parse_windows(value: object) -> tuple[Window, ...]:
    """Return times of the day and of the week.

    Args:
        value: A text such as `22:00-06:00` or `Mon-Fri 22:00-06:00, 12:00-13:00; Sat,Sun
            00:00-24:00`, or a list of such texts. The days are the ones on which a time begins,
            and hold up to the next semicolon; without any it is every day.

    Raises:
        ValueError: Not such a text.

    Example:
        >>> parse_windows("Sat 22:00-06:00")
        (Window(days=frozenset({5}), begin_min=1320, end_min=360),)
    """
    texts = value if isinstance(value, list) else [value]
    windows: list[Window] = []
    for text in texts:
        for rule in _text(text).split(";"):
            if rule.strip():
                windows += _windows_of_rule(rule)
    if not windows:
        raise ValueError("is empty")
    return tuple(windows)


def _windows_of_rule(rule: str) -> list[Window]:
    days: set[int] = set()
    times: list[tuple[int, int]] = []
    for word in re.sub(r"\s*-\s*", "-", rule).replace(",", " ").lower().split():
        match = _TIMES.fullmatch(word)
        if match is not None:
            times.append(_times(match))
        elif times:
            raise ValueError(f"{word!r} stands behind a time; separate the two with a semicolon")
        else:
            days |= _days(word)
    if not times:
        raise ValueError(f"{rule.strip()!r} names no time such as 22:00-06:00")
    on = frozenset(days or range(7))
    return [Window(on, begin, end) for begin, end in times]


def _times(match: re.Match[str]) -> tuple[int, int]:
    begin_h, begin_min, end_h, end_min = map(int, match.groups())
    begin, end = begin_h * 60 + begin_min, end_h * 60 + end_min
    if max(begin_min, end_min) > 59 or begin >= 1440 or end > 1440:
        raise ValueError(f"{match.group()!r} is no time of the day, 00:00 to 24:00")
    if begin == end:
        raise ValueError(f"{match.group()!r} has no length; the whole day is 00:00-24:00")
    return begin, end or 1440


def _days(word: str) -> set[int]:
    first, dash, last = word.partition("-")
    begin = _day(first)
    end = _day(last) if dash else begin
    return {day % 7 for day in range(begin, begin + (end - begin) % 7 + 1)}


def _day(word: str) -> int:
    for names in (_DAYS, _DAYS_LONG):
        if word in names:
            return names.index(word)
    raise ValueError(f"{word!r} is neither a day such as Mon nor a time such as 22:00-06:00")


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
        key = source.key
        if key is not None and flags.get(key) is not None:
            raw, where, base = flags[key], f"--{key.replace('_', '-')}", cwd
        elif environ.get(source.variable):
            raw, where, base = environ[source.variable], source.variable, cwd
        elif key in table and path is not None:
            raw, where, base = table[key], f"{key} in {path}", path.parent
        else:
            continue
        try:
            value = source.parse(raw)
        except ValueError as error:
            # `from None`: the original error may quote the value, and the value may be the key.
            raise ConfigurationError(f"{where}: {error}") from None
        except (OverflowError, RuntimeError):
            # A number beyond all bounds, or the home of a user that there is not.
            raise ConfigurationError(f"{where}: makes no sense") from None
        if isinstance(value, Path):
            value = base / value
        elif source.parse is _paths:
            value = tuple(base / item for item in value)
        if path is not None and where.endswith(str(path)):
            _warn_if_exposed(path, value)
        values[source.field] = value
    settings = Settings(**values)
    _warn_if_plain(settings)
    if settings.priorities and settings.order != "priority":
        _LOGGER.warning("priorities change nothing with order = %r", settings.order)
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
    import tomllib

    try:
        # Some editors begin a file with a byte order mark, which TOML does not know.
        table = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        reason = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "not UTF-8"
        # `from None`: the decoder's error can carry the whole text of the file.
        raise ConfigurationError(f"{path}: not valid TOML: {reason}") from None
    except RecursionError:
        raise ConfigurationError(f"{path}: not valid TOML: nested too deeply") from None
    known = {source.key for source in _SOURCES if source.key is not None}
    for key in table:
        if key not in known:
            raise ConfigurationError(
                f"{path}: unknown key {key!r}; known are {', '.join(sorted(known))}"
            )
    return table


def _warn_if_exposed(path: Path, value: object) -> None:
    if isinstance(value, ProxyUrl):
        what = "" if value.login is None else "the proxy's password"
    else:
        what = "the API key" if isinstance(value, Secret) else ""
    if what and path.stat().st_mode & stat.S_IROTH:
        _LOGGER.warning("%s holds %s and every user can read it: chmod 600 %s", path, what, path)


def _warn_if_plain(settings: Settings) -> None:
    url = urlsplit(settings.api_url)
    if settings.api_key is None or url.scheme != "http":
        return
    host = url.hostname or ""
    if host not in ("localhost", "::1") and not re.fullmatch(r"127(\.\d+){3}", host):
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


def _paths(value: object) -> tuple[Path, ...]:
    if isinstance(value, str):
        value = [part for part in value.split(os.pathsep) if part.strip()]
    if not isinstance(value, list) or not value:
        raise ValueError("expected a path, or a list of paths")
    return tuple(_path(item) for item in value)


def _proxy(value: object) -> ProxyUrl:
    return ProxyUrl(_text(value))


def _password(value: object) -> Secret:
    # As it is: a blank may be part of it.
    return Secret(str(value))


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


def _ladder(value: object) -> Ladder:
    try:
        return parse_ladder(_text(value))
    except ConfigurationError as error:
        raise ValueError(str(error).removeprefix("pressure: ")) from None


def _timeout(value: object) -> float:
    seconds = parse_duration(value)
    if seconds <= 0:
        raise ValueError("must be more than 0")
    return seconds


def _whole(most: int) -> Callable[[object], int]:
    def parse(value: object) -> int:
        number, unit = _quantity(value)
        if unit or number != int(number) or not 1 <= number <= most:
            raise ValueError(f"{value!r} is not a whole number from 1 to {most}")
        return int(number)

    return parse


def _truth(value: object) -> bool:
    truth = _TRUTHS.get(str(value).strip().lower())
    if truth is None:
        raise ValueError(f"{value!r} is neither true nor false")
    return truth


def _names(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, list) or not value:
        raise ValueError("expected names, separated by commas or as a list")
    return tuple(_text(item) for item in value)


def _event_age(value: object) -> float:
    seconds = parse_duration(value)
    if not 0 < seconds <= EVENT_AGE_MAX_S:
        raise ValueError(
            f"{value!r} is not more than 0 and at most 364d; the server takes nothing older"
        )
    return seconds


def _loss_report(value: object) -> float | None:
    if value is False or value == "off":
        return None
    return _timeout(value)


@dataclass(frozen=True, slots=True)
class _Source:
    field: str  # of Settings
    key: str | None  # in the TOML file and among the flags; None: from the environment alone
    variable: str  # in the environment
    parse: Callable[[object], Any]


_SOURCES = (
    _Source("directory", "dir", "VEVENTS_DIR", _path),
    _Source("api_key", "api_key", "ROBOFLOW_API_KEY", _api_key),
    _Source("api_url", "api_url", "API_URL", _api_url),
    _Source("store_key", "store_key", "EVENT_INGESTION_API_KEY", _api_key),
    _Source("use_case_id", "use_case", "VEVENTS_USE_CASE", _use_case_id),
    _Source("events_size", "events_size", "VEVENTS_EVENTS_SIZE", parse_size),
    _Source("media_size", "media_size", "VEVENTS_MEDIA_SIZE", parse_size),
    _Source("delivery_size", "delivery_size", "VEVENTS_DELIVERY_SIZE", parse_size),
    _Source("full", "full", "VEVENTS_FULL", _one_of("drop-oldest", "refuse")),
    _Source("pressure", "pressure", "VEVENTS_PRESSURE", _ladder),
    _Source("sync_interval_s", "sync_interval", "VEVENTS_SYNC_INTERVAL", parse_duration),
    _Source("persist_dir", "persist_dir", "VEVENTS_PERSIST_DIR", _path),
    _Source("persist_interval_s", "persist_interval", "VEVENTS_PERSIST_INTERVAL", parse_duration),
    _Source("connect_timeout_s", "connect_timeout", "VEVENTS_CONNECT_TIMEOUT", _timeout),
    _Source("read_timeout_s", "read_timeout", "VEVENTS_READ_TIMEOUT", _timeout),
    _Source("write_timeout_s", "write_timeout", "VEVENTS_WRITE_TIMEOUT", _timeout),
    _Source("request_timeout_s", "request_timeout", "VEVENTS_REQUEST_TIMEOUT", _timeout),
    _Source("attempts", "attempts", "VEVENTS_ATTEMPTS", _whole(100)),
    _Source("retry_wait_s", "retry_wait", "VEVENTS_RETRY_WAIT", _retry_wait),
    _Source("order", "order", "VEVENTS_ORDER", _one_of("oldest", "newest", "priority")),
    _Source("priorities", "priorities", "VEVENTS_PRIORITIES", _names),
    _Source("live_first", "live_first", "VEVENTS_LIVE_FIRST", _truth),
    _Source("uploads", "uploads", "VEVENTS_UPLOADS", _whole(UPLOADS_MAX)),
    _Source("bundle", "bundle", "VEVENTS_BUNDLE", _truth),
    _Source("bytes_per_s", "max_rate", "VEVENTS_MAX_RATE", parse_rate),
    _Source("event_age_max_s", "event_age_max", "VEVENTS_EVENT_AGE_MAX", _event_age),
    _Source("proxy", "proxy", "VEVENTS_PROXY", _proxy),
    _Source("ca_files", "ca_file", "VEVENTS_CA_FILE", _paths),
    _Source("client_cert", "client_cert", "VEVENTS_CLIENT_CERT", _path),
    _Source("client_key", "client_key", "VEVENTS_CLIENT_KEY", _path),
    _Source("client_key_password", None, "VEVENTS_CLIENT_KEY_PASSWORD", _password),
    _Source("windows", "window", "VEVENTS_WINDOW", parse_windows),
    _Source("agent_interval_s", "agent_interval", "VEVENTS_AGENT_INTERVAL", parse_duration),
    _Source("agent_spread_s", "agent_spread", "VEVENTS_AGENT_SPREAD", parse_duration),
    _Source("loss_report_s", "loss_report", "VEVENTS_LOSS_REPORT", _loss_report),
    _Source("log_level", "log_level", "VEVENTS_LOG_LEVEL", _one_of(*_LOG_LEVELS)),
)
