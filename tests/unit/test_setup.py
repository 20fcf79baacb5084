"""From settings to a client and a flusher."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import httpx
import pytest
from cli_site import small_log

from vevents import Event
from vevents.delivery.client import Client
from vevents.delivery.flusher import Flusher
from vevents.delivery.pause import pause, resume
from vevents.delivery.sender import RetryPolicy, StopReason
from vevents.delivery.setup import make_client, make_flusher
from vevents.errors import ConfigurationError, UnreachableError
from vevents.log import EventLog
from vevents.settings import ProxyUrl, Secret, Settings, parse_windows

KEY = Secret("rf_secret_0123456789")
# Nowhere: whatever asks fails.
SETTINGS = Settings(api_key=KEY, api_url="http://127.0.0.1:9", attempts=1, retry_wait_s=0.0)


def changed(**fields: Any) -> Settings:
    known = {name: getattr(SETTINGS, name) for name in Settings.__dataclass_fields__}
    return Settings(**(known | fields))


def test_no_key_no_client() -> None:
    with pytest.raises(ConfigurationError, match="no API key"):
        make_client(Settings())


@pytest.mark.parametrize("name", ["ca_files", "client_cert"])
def test_client_checks_the_files(name: str, tmp_path: Path) -> None:
    path = tmp_path / "gone.pem"
    value = (path,) if name == "ca_files" else path

    with pytest.raises(ConfigurationError, match=r"gone\.pem: No such file"):
        make_client(changed(**{name: value}))


def test_client_goes_through_the_proxy_of_the_settings() -> None:
    settings = changed(proxy=ProxyUrl("http://ann:secret@127.0.0.1:9"))
    with (
        make_client(settings) as client,
        pytest.raises(UnreachableError, match=r"through the proxy http://127\.0\.0\.1:9") as caught,
    ):
        client.list_use_cases()
    assert "secret" not in str(caught.value)


def test_flusher_gets_every_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def init(_self: Flusher, _log: EventLog, _client: Client, **options: Any) -> None:
        seen.update(options)

    known = set(inspect.signature(Flusher.__init__).parameters) - {"self", "log", "client", "time"}
    monkeypatch.setattr(Flusher, "__init__", init)
    settings = changed(
        use_case_id="uc",
        attempts=7,
        retry_wait_s=8.0,
        order="priority",
        priorities=("custom",),
        live_first=True,
        uploads=3,
        bundle=True,
        bytes_per_s=1000.0,
        event_age_max_s=86_400.0,
        loss_report_s=7.0,
    )
    with EventLog(small_log(tmp_path / "log")) as log, make_client(settings) as client:
        make_flusher(settings, log, client)

    assert seen == {
        "use_case_id": "uc",
        "retry": RetryPolicy(attempts=7, wait_s_max=8.0),
        "order": "priority",
        "priorities": ("custom",),
        "live_first": True,
        "uploads": 3,
        "bundle": True,
        "bytes_per_s": 1000.0,
        "event_age_s_max": 86_400.0,
        "loss_report_s": 7.0,
    }
    assert set(seen) == known


def test_defaults_are_the_flushers_own() -> None:
    parameters = inspect.signature(Flusher.__init__).parameters

    for name in ("order", "live_first", "uploads", "bundle", "bytes_per_s"):
        assert getattr(Settings(), name) == parameters[name].default


def test_wrong_priority_is_named(tmp_path: Path) -> None:
    settings = changed(order="priority", priorities=("safety_alert", "typo"))
    with (
        EventLog(small_log(tmp_path / "log")) as log,
        make_client(settings) as client,
        pytest.raises(ConfigurationError, match="priorities: 'typo'"),
    ):
        make_flusher(settings, log, client)


def test_no_loss_is_reported_during_a_pause(tmp_path: Path) -> None:
    directory = small_log(tmp_path / "log", events=2)
    settings = changed(loss_report_s=0.0, use_case_id="uc")
    with EventLog(directory) as log, make_client(settings) as client:
        make_flusher(settings, log, client).flush()
        log.mark([1], "rejected")
        pause(directory, for_s=3600)

        report = make_flusher(settings, log, client).flush()

        assert (report.stopped_reason, log.stats().appended) == (StopReason.PAUSED, 2)
        resume(directory)
        make_flusher(settings, log, client).flush()
        assert log.stats().appended == 3


@pytest.mark.parametrize("events", [0, 3])
def test_flusher_keeps_to_the_switch_at_any_time(tmp_path: Path, events: int) -> None:
    directory = small_log(tmp_path / "log", events=events)
    with EventLog(directory) as log, make_client(SETTINGS) as client:
        pause(directory, for_s=3600)
        report = make_flusher(SETTINGS, log, client, any_time=True).flush()
        assert (report.stopped_reason, report.requests) == (StopReason.PAUSED, 0)
        assert report.retry_after_s == pytest.approx(3600, abs=5)
        assert report.pending_after == log.stats().pending == events
        assert log.stats().conserved


@pytest.mark.parametrize("events", [0, 3])
def test_window(tmp_path: Path, events: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vevents.delivery.schedule.is_open", lambda windows, _now: not windows)
    settings = changed(windows=parse_windows("22:00-06:00"))
    with EventLog(small_log(tmp_path / "log", events=events)) as log:
        with make_client(settings) as client:
            held = make_flusher(settings, log, client).flush()
            tried = make_flusher(settings, log, client, any_time=True).flush()
        assert (held.stopped_reason, held.requests) == (StopReason.OUTSIDE_WINDOW, 0)
        assert tried.stopped_reason is (StopReason.OFFLINE if events else None)
        assert log.stats().pending == events
        assert log.stats().conserved


@pytest.mark.parametrize(
    ("status", "reason"), [(429, StopReason.THROTTLED), (503, StopReason.SERVER)]
)
def test_a_server_that_wants_to_be_left_alone_is_asked_by_nobody(
    tmp_path: Path, status: int, reason: StopReason
) -> None:
    small_log(tmp_path / "log")
    answers = [httpx.Response(status, json={"error": "slow"}, headers={"Retry-After": "3600"})]
    requests = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request.url.path)
        return answers[0]

    with (
        EventLog(tmp_path / "log") as log,
        Client("key", api_url="https://a.test", transport=httpx.MockTransport(answer)) as client,
    ):
        log.append(Event.custom(value="x", use_case_id="uc"))
        settings = changed(retry_wait_s=1.0)
        report = make_flusher(settings, log, client).flush()
        assert (report.stopped_reason, report.retry_after_s) == (reason, 3600.0)
        assert "asks to wait 3600 s" in str(report.message)
        count = len(requests)

        # As another process: a hook, or an agent that was started anew.
        report = make_flusher(settings, log, client).flush()

        assert (report.stopped_reason, len(requests)) == (StopReason.THROTTLED, count)
        assert report.retry_after_s is not None
        assert 3500 < report.retry_after_s <= 3600
        make_flusher(settings, log, client, any_time=True).flush()
        assert len(requests) > count
