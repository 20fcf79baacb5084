"""Settings: which source wins, what is refused, and that the key shows nowhere."""

from __future__ import annotations

import copy
import os
import pickle
from pathlib import Path

import pytest

from vevents import settings as settings_module
from vevents.errors import ConfigurationError
from vevents.pressure import Ladder, Step
from vevents.settings import (
    ProxyUrl,
    Secret,
    Settings,
    Window,
    parse_duration,
    parse_rate,
    parse_size,
    parse_windows,
    resolve,
)

KEY = "rf_secret_0123456789"


@pytest.fixture(autouse=True)
def no_system_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings_module, "_SYSTEM_FILE", tmp_path / "etc-vevents.toml")


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def from_file(tmp_path: Path, text: str, **environ: str) -> Settings:
    path = write(tmp_path / "some.toml", text)
    return resolve({"config": str(path)}, environ=environ, cwd=tmp_path)


def test_defaults_where_nothing_is_said(tmp_path: Path) -> None:
    settings = resolve(environ={}, cwd=tmp_path)

    assert settings == Settings()
    assert settings.api_url == "https://api.roboflow.com"


def test_flag_wins_over_environment_over_file(tmp_path: Path) -> None:
    path = write(tmp_path / "v.toml", 'use_case = "file"\napi_url = "https://file.test"\ndir = "d"')
    environ = {"VEVENTS_USE_CASE": "env", "API_URL": "https://env.test"}

    settings = resolve(
        {"config": str(path), "use_case": "flag", "api_url": None}, environ=environ, cwd=tmp_path
    )

    assert settings.use_case_id == "flag"
    assert settings.api_url == "https://env.test"
    assert settings.directory == tmp_path / "d"
    assert settings.config_file == path


def test_empty_variable_counts_as_not_set(tmp_path: Path) -> None:
    settings = from_file(tmp_path, 'use_case = "file"', VEVENTS_USE_CASE="")

    assert settings.use_case_id == "file"


@pytest.mark.parametrize(
    ("line", "variable", "value", "field", "expected"),
    [
        ('dir = "/data/log"', "VEVENTS_DIR", "/data/log", "directory", Path("/data/log")),
        ('use_case = "uc"', "VEVENTS_USE_CASE", "uc", "use_case_id", "uc"),
        ('api_url = "http://h:1/p/"', "API_URL", "http://h:1/p/", "api_url", "http://h:1/p"),
        ('events_size = "2MiB"', "VEVENTS_EVENTS_SIZE", "2MiB", "events_size", 2 << 20),
        ("media_size = 1048576", "VEVENTS_MEDIA_SIZE", "1048576", "media_size", 1 << 20),
        ('delivery_size = "4MB"', "VEVENTS_DELIVERY_SIZE", "4 MB", "delivery_size", 4_000_000),
        ('full = "refuse"', "VEVENTS_FULL", "refuse", "full", "refuse"),
        (
            'pressure = "0.9:none"',
            "VEVENTS_PRESSURE",
            "0.9:none",
            "pressure",
            Ladder([Step(0.9, "none")]),
        ),
        ("sync_interval = 0", "VEVENTS_SYNC_INTERVAL", "0", "sync_interval_s", 0.0),
        ('connect_timeout = "3s"', "VEVENTS_CONNECT_TIMEOUT", "3s", "connect_timeout_s", 3.0),
        ('read_timeout = "2min"', "VEVENTS_READ_TIMEOUT", "2min", "read_timeout_s", 120.0),
        ("request_timeout = 90", "VEVENTS_REQUEST_TIMEOUT", "90", "request_timeout_s", 90.0),
        ("write_timeout = 1.5", "VEVENTS_WRITE_TIMEOUT", "1.5", "write_timeout_s", 1.5),
        ("attempts = 3", "VEVENTS_ATTEMPTS", "3", "attempts", 3),
        ('retry_wait = "10s"', "VEVENTS_RETRY_WAIT", "10s", "retry_wait_s", 10.0),
        ('order = "newest"', "VEVENTS_ORDER", "newest", "order", "newest"),
        ("live_first = true", "VEVENTS_LIVE_FIRST", "1", "live_first", True),
        ("live_first = false", "VEVENTS_LIVE_FIRST", "No", "live_first", False),
        ("uploads = 8", "VEVENTS_UPLOADS", "8", "uploads", 8),
        ("bundle = true", "VEVENTS_BUNDLE", "yes", "bundle", True),
        ('max_rate = "200kB/s"', "VEVENTS_MAX_RATE", "1.6Mbit", "bytes_per_s", 200_000.0),
        ('event_age_max = "30d"', "VEVENTS_EVENT_AGE_MAX", "720h", "event_age_max_s", 2_592_000.0),
        (
            'ca_file = ["/a", "/b"]',
            "VEVENTS_CA_FILE",
            "/a:/b",
            "ca_files",
            (Path("/a"), Path("/b")),
        ),
        ('client_cert = "/c"', "VEVENTS_CLIENT_CERT", "/c", "client_cert", Path("/c")),
        ('client_key = "/k"', "VEVENTS_CLIENT_KEY", "/k", "client_key", Path("/k")),
        (
            'window = ["22:00-24:00"]',
            "VEVENTS_WINDOW",
            "22:00-24:00",
            "windows",
            (Window(frozenset(range(7)), 1320, 1440),),
        ),
        ('loss_report = "12h"', "VEVENTS_LOSS_REPORT", "12h", "loss_report_s", 43_200.0),
        ("loss_report = false", "VEVENTS_LOSS_REPORT", "off", "loss_report_s", None),
        ('log_level = "debug"', "VEVENTS_LOG_LEVEL", "debug", "log_level", "debug"),
    ],
)
def test_every_setting_from_file_and_from_environment(
    tmp_path: Path, line: str, variable: str, value: str, field: str, expected: object
) -> None:
    from_toml = from_file(tmp_path, line)
    from_environment = resolve(environ={variable: value}, cwd=tmp_path)

    assert getattr(from_toml, field) == expected
    assert getattr(from_environment, field) == expected


def test_priorities_from_file_and_from_environment(tmp_path: Path) -> None:
    types = ("safety_alert", "custom")
    text = 'order = "priority"\npriorities = ["safety_alert", "custom"]'

    assert from_file(tmp_path, text).priorities == types
    environ = {"VEVENTS_ORDER": "priority", "VEVENTS_PRIORITIES": "safety_alert, custom"}
    assert resolve(environ=environ, cwd=tmp_path).priorities == types


def test_priorities_without_their_order_are_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from_file(tmp_path, 'priorities = ["custom"]')

    assert "priorities change nothing with order = 'oldest'" in caplog.text


def test_every_setting_has_a_source() -> None:
    fields = set(Settings.__dataclass_fields__) - {"config_file"}

    assert {source.field for source in settings_module._SOURCES} == fields


def test_every_setting_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")

    for source in settings_module._SOURCES:
        key = "none" if source.key is None else f"`{source.key}`"
        assert f"| {key} | `{source.variable}` |" in text


def test_relative_directory_in_a_file_is_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    path = write(tmp_path / "etc" / "v.toml", 'dir = "log"')

    assert resolve({"config": str(path)}, environ={}, cwd=tmp_path).directory == path.parent / "log"
    assert resolve({"dir": "log"}, environ={}, cwd=tmp_path).directory == tmp_path / "log"


def test_other_relative_paths_are_beside_the_file_as_well(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    path = write(tmp_path / "etc" / "v.toml", 'ca_file = ["ca.pem", "/b"]\nclient_cert = "d.pem"')

    settings = resolve({"config": str(path)}, environ={}, cwd=tmp_path)

    assert settings.ca_files == (tmp_path / "etc" / "ca.pem", Path("/b"))
    assert settings.client_cert == tmp_path / "etc" / "d.pem"
    environ = {"VEVENTS_CA_FILE": "ca.pem"}
    assert resolve(environ=environ, cwd=tmp_path).ca_files == (tmp_path / "ca.pem",)


def test_config_file_is_searched_in_order(tmp_path: Path) -> None:
    cwd, home = tmp_path / "cwd", tmp_path / "home"
    (home / ".config" / "vevents").mkdir(parents=True)
    (tmp_path / "xdg" / "vevents").mkdir(parents=True)
    cwd.mkdir()
    write(home / ".config" / "vevents" / "config.toml", 'use_case = "home"')
    write(tmp_path / "xdg" / "vevents" / "config.toml", 'use_case = "xdg"')

    write(tmp_path / "etc-vevents.toml", 'use_case = "system"')
    assert resolve(environ={}, cwd=cwd).use_case_id == "system"
    environ = {"HOME": str(home)}
    assert resolve(environ=environ, cwd=cwd).use_case_id == "home"
    environ["XDG_CONFIG_HOME"] = str(tmp_path / "xdg")
    assert resolve(environ=environ, cwd=cwd).use_case_id == "xdg"
    write(cwd / "vevents.toml", 'use_case = "cwd"')
    assert resolve(environ=environ, cwd=cwd).use_case_id == "cwd"
    named = write(tmp_path / "named.toml", 'use_case = "named"')
    environ["VEVENTS_CONFIG"] = str(named)
    assert resolve(environ=environ, cwd=cwd).use_case_id == "named"


def test_named_config_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"gone\.toml: No such file"):
        resolve({"config": "gone.toml"}, environ={}, cwd=tmp_path)


def test_found_config_file_that_anybody_can_write_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "vevents.toml", 'api_url = "https://elsewhere.test"', mode=0o666)

    with pytest.raises(ConfigurationError, match="anybody can write"):
        resolve(environ={}, cwd=tmp_path)
    assert resolve({"config": str(path)}, environ={}, cwd=tmp_path).api_url.endswith("where.test")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
def test_found_config_file_of_another_user_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "vevents.toml", 'api_url = "https://elsewhere.test"')
    os.chown(path, 4242, -1)

    with pytest.raises(ConfigurationError, match="another user"):
        resolve(environ={}, cwd=tmp_path)


def test_unknown_key_is_named_with_its_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"some\.toml: unknown key 'api-url'; known are"):
        from_file(tmp_path, '"api-url" = "https://x.test"')


def test_broken_toml_is_an_error_without_its_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"some\.toml: not valid TOML") as caught:
        from_file(tmp_path, f'api_key = "{KEY}"\nuse_case = ')

    assert KEY not in str(caught.value)
    assert caught.value.__cause__ is None


def test_byte_order_mark_before_the_settings(tmp_path: Path) -> None:
    (tmp_path / "some.toml").write_bytes(b"\xef\xbb\xbfuse_case = 'uc-1'\r\n")

    settings = resolve({"config": "some.toml"}, environ={}, cwd=tmp_path)

    assert settings.use_case_id == "uc-1"


def test_config_file_that_is_not_text_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "v.toml").write_bytes(b"\xff\xfe\x00")

    with pytest.raises(ConfigurationError, match=r"v\.toml: not valid TOML: not UTF-8"):
        resolve({"config": "v.toml"}, environ={}, cwd=tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("dir = 3", r"dir in .*some\.toml: expected a text"),
        ('use_case = " "', "use_case in .*: is empty"),
        (f'use_case = "{"u" * 257}"', "at most 256"),
        ('api_url = "api.roboflow.com"', "expected http:// or https://"),
        ('api_url = "https://user@host.test"', "without user"),
        ('api_url = "https://host.test:99999"', "expected http:// or https://"),
        ('api_url = "https://[::1"', "expected http:// or https://"),
        ('api_url = "https:///path"', "expected http:// or https://"),
        ('api_url = "https://host.test/?api_key=x"', "without user, query"),
        ("attempts = 0", "whole number from 1 to 100"),
        ("attempts = true", "expected a number"),
        ("attempts = 2.5", "whole number"),
        ('events_size = "12 parsecs"', "unknown unit"),
        ('events_size = "64M"', "use B, kB, MB, GB, TB, KiB, MiB, GiB or TiB"),
        ("events_size = -1", "out of range"),
        ("read_timeout = 0", "more than 0"),
        ("loss_report = 0", "more than 0"),
        ("loss_report = true", "expected a number"),
        ("sync_interval = inf", "out of range"),
        ('order = "random"', "order in .*: 'random' is none of oldest, newest, priority"),
        ("priorities = []", "priorities in .*: expected names"),
        ("priorities = [3]", "expected a text"),
        ('live_first = "perhaps"', "neither true nor false"),
        ("uploads = 0", "whole number from 1 to 32"),
        ("uploads = 33", "whole number from 1 to 32"),
        ('max_rate = "fast"', "max_rate in .*: 'fast' is not a number"),
        ('max_rate = "3 knots"', "use B, kB"),
        ("max_rate = 0", "less than one byte"),
        (
            'event_age_max = "365d"',
            "event_age_max in .*: '365d' is not more than 0 and at most 364d",
        ),
        ("event_age_max = 0", "more than 0"),
        ("ca_file = []", "expected a path, or a list"),
        ("ca_file = [3]", "expected a text"),
        ("client_cert = 3", "client_cert in .*: expected a text"),
        ('client_key_password = "x"', "unknown key 'client_key_password'"),
        ('window = "at night"', "window in .*: 'at' is neither a day"),
        ('full = "explode"', "none of drop-oldest, refuse"),
        ('log_level = "loud"', "none of debug"),
        ("log_level = ['debug']", "none of debug"),
    ],
)
def test_values_that_make_no_sense(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        from_file(tmp_path, line)


def test_error_names_the_source(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^VEVENTS_ATTEMPTS: 'many' is not a number"):
        resolve(environ={"VEVENTS_ATTEMPTS": "many"}, cwd=tmp_path)
    with pytest.raises(ConfigurationError, match=r"^--api-url: expected"):
        resolve({"api_url": "nonsense"}, environ={}, cwd=tmp_path)


@pytest.mark.parametrize("key", [KEY + "\n" + KEY, KEY + " x", KEY + "é"])
def test_key_that_cannot_go_into_a_header_is_refused_without_showing_it(
    tmp_path: Path, key: str
) -> None:
    with pytest.raises(ConfigurationError, match="ROBOFLOW_API_KEY") as caught:
        resolve(environ={"ROBOFLOW_API_KEY": key}, cwd=tmp_path)

    assert KEY not in str(caught.value)
    assert caught.value.__cause__ is None


def test_key_is_stripped_and_never_shown(tmp_path: Path) -> None:
    settings = resolve(environ={"ROBOFLOW_API_KEY": f" {KEY}\n"}, cwd=tmp_path)

    secret = settings.require_api_key()
    assert secret.reveal() == KEY
    for text in (repr(settings), str(settings), repr(secret), str(secret), f"{secret}"):
        assert KEY not in text
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not to be pickled"):
            leak(secret)


@pytest.mark.parametrize(("mode", "warns"), [(0o600, False), (0o640, False), (0o644, True)])
def test_key_in_a_file_that_everybody_can_read_is_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, warns: bool
) -> None:
    path = write(tmp_path / "v.toml", f'api_key = "{KEY}"', mode)

    settings = resolve({"config": str(path)}, environ={}, cwd=tmp_path)

    assert settings.require_api_key().reveal() == KEY
    assert ("chmod 600" in caplog.text) is warns
    assert KEY not in caplog.text


def test_readable_file_without_a_key_is_fine(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "v.toml", 'use_case = "uc"', 0o644)

    resolve({"config": str(path)}, environ={}, cwd=tmp_path)

    assert caplog.text == ""


@pytest.mark.parametrize(
    ("url", "warns"),
    [
        ("https://api.test", False),
        ("http://127.0.0.1:8080", False),
        ("http://localhost:8080/x", False),
        ("http://[::1]:8080", False),
        ("http://[::1]", False),
        ("http://localhost.evil.test", True),
        ("http://gateway.test:8080", True),
        ("HTTP://gateway.test:8080", True),
        ("http://127.0.0.1.evil.test", True),
    ],
)
def test_key_over_plain_http_is_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, url: str, warns: bool
) -> None:
    resolve(environ={"ROBOFLOW_API_KEY": KEY, "API_URL": url}, cwd=tmp_path)

    assert ("not encrypted" in caplog.text) is warns


@pytest.mark.parametrize(
    ("text", "address", "login"),
    [
        ("http://proxy.plant:3128", "http://proxy.plant:3128", None),
        ("proxy.plant:3128", "http://proxy.plant:3128", None),
        ("HTTPS://proxy.plant/", "https://proxy.plant", None),
        ("socks5h://10.0.0.1:1080", "socks5h://10.0.0.1:1080", None),
        ("http://[fe80::1]:3128", "http://[fe80::1]:3128", None),
        ("http://ann:s%40crt@proxy:1", "http://proxy:1", ("ann", "s@crt")),
        ("ann:s@crt@proxy:1", "http://proxy:1", ("ann", "s@crt")),
        ("http://ann@proxy:1", "http://proxy:1", ("ann", "")),
    ],
)
def test_proxies(text: str, address: str, login: tuple[str, str] | None) -> None:
    proxy = ProxyUrl(text)

    assert (proxy.address, proxy.login) == (address, login)


@pytest.mark.parametrize(
    "text",
    [
        "ftp://ann:secret@proxy:1",
        "http://ann:secret@:1",
        "http://ann:secret@proxy:port",
        "http://ann:secret@proxy:1/path",
        "http://ann:secret@proxy:1?x",
        "http://ann:secret@pro xy:1",
        "http://ann:secret@[proxy:1",
    ],
)
def test_proxies_that_are_none_are_not_quoted(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^VEVENTS_PROXY: expected http://") as caught:
        resolve(environ={"VEVENTS_PROXY": text}, cwd=tmp_path)

    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_secrets_of_the_way_are_never_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "v.toml", 'proxy = "http://ann:hush@proxy:1"', 0o644)
    environ = {"VEVENTS_CLIENT_KEY_PASSWORD": " hush "}

    settings = resolve({"config": str(path)}, environ=environ, cwd=tmp_path)

    assert settings.client_key_password is not None
    assert settings.client_key_password.reveal() == " hush "
    assert "ProxyUrl('http://proxy:1')" in repr(settings)
    assert "holds the proxy's password and every user can read it" in caplog.text
    for text in (repr(settings), str(settings), f"{settings.proxy}", caplog.text):
        assert "hush" not in text


def test_proxy_without_a_password_may_be_read_by_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "v.toml", 'proxy = "http://proxy:1"', 0o644)

    resolve({"config": str(path)}, environ={}, cwd=tmp_path)

    assert caplog.text == ""


ALL_DAYS = frozenset(range(7))


@pytest.mark.parametrize(
    ("value", "windows"),
    [
        ("22:00-06:00", [(ALL_DAYS, 1320, 360)]),
        (" 22:00 - 6:00 ", [(ALL_DAYS, 1320, 360)]),
        ("22:00-00:00", [(ALL_DAYS, 1320, 1440)]),
        ("Mon 1:00-2:30", [({0}, 60, 150)]),
        ("mon-FRI 01:00-02:00", [({0, 1, 2, 3, 4}, 60, 120)]),
        ("Saturday, Sun 01:00-02:00", [({5, 6}, 60, 120)]),
        ("Sun-Tue 01:00-02:00", [({6, 0, 1}, 60, 120)]),
        ("Mon 01:00-02:00, 03:00-04:00", [({0}, 60, 120), ({0}, 180, 240)]),
        ("Mon 01:00-02:00; 03:00-04:00;", [({0}, 60, 120), (ALL_DAYS, 180, 240)]),
        (["Mon 01:00-02:00", "03:00-04:00"], [({0}, 60, 120), (ALL_DAYS, 180, 240)]),
    ],
)
def test_windows(value: object, windows: list[tuple[set[int], int, int]]) -> None:
    assert parse_windows(value) == tuple(
        Window(frozenset(days), begin, end) for days, begin, end in windows
    )


@pytest.mark.parametrize(
    "value",
    [
        "",
        ";",
        "Mon",
        "22:00",
        "22:00-22:00",
        "24:00-06:00",
        "22:60-23:00",
        "22:00-25:00",
        "Funday 22:00-23:00",
        "Mon-Funday 22:00-23:00",
        "mo 22:00-23:00",
        "22:00-23:00 Mon 01:00-02:00",
        [],
        [22],
        2200,
    ],
)
def test_windows_that_are_none(value: object) -> None:
    with pytest.raises(ValueError, match=r"time|day|empty|text|length"):
        parse_windows(value)


@pytest.mark.parametrize(
    ("value", "rate"),
    [(1, 1.0), ("200kB", 2e5), ("200 kB/s", 2e5), ("1MiB/s", 1048576.0), ("64kbit/s", 8e3)],
)
def test_rates(value: object, rate: float) -> None:
    assert parse_rate(value) == rate


@pytest.mark.parametrize("value", ["", "0", "fast", "1 M", "7bit", -1, True, None])
def test_rates_that_are_none(value: object) -> None:
    with pytest.raises(ValueError, match=r"number|unit|range|byte"):
        parse_rate(value)


def test_what_is_required_says_how_to_give_it() -> None:
    with pytest.raises(ConfigurationError, match="VEVENTS_DIR"):
        Settings().require_directory()
    with pytest.raises(ConfigurationError, match="ROBOFLOW_API_KEY"):
        Settings().require_api_key()


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (0, 0),
        (4096, 4096),
        ("4096", 4096),
        ("1kB", 1000),
        ("1KiB", 1024),
        ("1.5 GiB", 3 << 29),
        ("64mib", 64 << 20),
        (" 2 TB ", 2 * 10**12),
        ("3TiB", 3 << 40),
    ],
)
def test_sizes(value: object, size: int) -> None:
    assert parse_size(value) == size


@pytest.mark.parametrize("value", ["", "MiB", "-1", "1.2", "1e6", "1 2", "64M", None, [], 1.5])
def test_sizes_that_are_none(value: object) -> None:
    with pytest.raises(ValueError, match=r"number|unit|whole"):
        parse_size(value)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7d", 604_800.0),
        (3, 3.0),
        ("3", 3.0),
        ("250ms", 0.25),
        ("1.5s", 1.5),
        ("2m", 120.0),
        ("2 h", 7200.0),
    ],
)
def test_durations(value: object, seconds: float) -> None:
    assert parse_duration(value) == pytest.approx(seconds)


@pytest.mark.parametrize("value", ["soon", "3 days", "-1s", float("nan"), True])
def test_durations_that_are_none(value: object) -> None:
    with pytest.raises(ValueError, match=r"number|unit|range"):
        parse_duration(value)


def test_secret_is_used_as_it_is() -> None:
    assert Secret("x").reveal() == "x"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("VEVENTS_DIR", "~nosuchuser/log"),
        ("VEVENTS_AGENT_INTERVAL", "9" * 400),
        ("VEVENTS_MAX_RATE", "9" * 400),
        ("VEVENTS_RETRY_WAIT", "0"),
        ("VEVENTS_RETRY_WAIT", "500ms"),
    ],
)
def test_values_beyond_all_bounds_are_named(variable: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=variable):
        resolve({}, environ={variable: value}, cwd=tmp_path)


def test_a_file_that_is_nested_too_deeply_is_named(tmp_path: Path) -> None:
    (tmp_path / "deep.toml").write_text("dir = " + "[" * 5_000 + "]" * 5_000)

    with pytest.raises(ConfigurationError, match=r"deep\.toml: "):
        resolve({"config": str(tmp_path / "deep.toml")}, environ={}, cwd=tmp_path)
