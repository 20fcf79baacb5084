"""Settings: which source wins, what is refused, and that the key shows nowhere."""

from __future__ import annotations

import copy
import os
import pickle
from pathlib import Path

import pytest

from vevents import settings as settings_module
from vevents.errors import ConfigurationError
from vevents.settings import Secret, Settings, parse_duration, parse_size, resolve

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
        ("sync_interval = 0", "VEVENTS_SYNC_INTERVAL", "0", "sync_interval_s", 0.0),
        ('connect_timeout = "3s"', "VEVENTS_CONNECT_TIMEOUT", "3s", "connect_timeout_s", 3.0),
        ('read_timeout = "2min"', "VEVENTS_READ_TIMEOUT", "2min", "read_timeout_s", 120.0),
        ("write_timeout = 1.5", "VEVENTS_WRITE_TIMEOUT", "1.5", "write_timeout_s", 1.5),
        ("attempts = 3", "VEVENTS_ATTEMPTS", "3", "attempts", 3),
        ('retry_wait = "10s"', "VEVENTS_RETRY_WAIT", "10s", "retry_wait_s", 10.0),
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
        ('events_size = "64M"', "use B, kB, MB"),
        ("events_size = -1", "out of range"),
        ("read_timeout = 0", "more than 0"),
        ("sync_interval = inf", "out of range"),
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
    ],
)
def test_key_over_plain_http_is_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, url: str, warns: bool
) -> None:
    resolve(environ={"ROBOFLOW_API_KEY": KEY, "API_URL": url}, cwd=tmp_path)

    assert ("not encrypted" in caplog.text) is warns


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
    [(3, 3.0), ("3", 3.0), ("250ms", 0.25), ("1.5s", 1.5), ("2m", 120.0), ("2 h", 7200.0)],
)
def test_durations(value: object, seconds: float) -> None:
    assert parse_duration(value) == pytest.approx(seconds)


@pytest.mark.parametrize("value", ["soon", "3 days", "-1s", float("nan"), True])
def test_durations_that_are_none(value: object) -> None:
    with pytest.raises(ValueError, match=r"number|unit|range"):
        parse_duration(value)


def test_secret_is_used_as_it_is() -> None:
    assert Secret("x").reveal() == "x"
