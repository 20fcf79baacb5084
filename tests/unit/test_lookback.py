"""Events that come later than the server shows them."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from vevents.delivery.client import Client
from vevents.delivery.lookback import lookback_warning, oldest_pending_age_s
from vevents.event import Event
from vevents.log import EventLog

DAY_S = 86_400.0


def client_for(response: httpx.Response, requests: list[str] | None = None) -> Client:
    def handle(request: httpx.Request) -> httpx.Response:
        if requests is not None:
            requests.append(request.url.path)
        return response

    return Client("k", api_url="https://api.test", transport=httpx.MockTransport(handle))


def shows(days: object) -> httpx.Response:
    return httpx.Response(200, json={"useCases": [], "lookbackDays": days})


def test_warns_once_the_server_shows_fewer_days() -> None:
    requests: list[str] = []
    with client_for(shows(14), requests) as client:
        warning = lookback_warning(client, 40 * DAY_S)
        assert warning is not None
        assert "shows the last 14 days, and the oldest pending event was 40 days old" in warning
        assert lookback_warning(client, 14 * DAY_S) is None
        assert lookback_warning(client, 15 * DAY_S) is not None
    assert requests == ["/vision-events/use-cases"]


def test_a_flush_that_is_done_does_not_wait_long_for_a_word() -> None:
    seen: dict[str, float] = {}

    def handle(request: httpx.Request) -> httpx.Response:
        seen.update(request.extensions["timeout"])
        raise httpx.ReadTimeout("silence")

    transport = httpx.MockTransport(handle)
    with Client("k", api_url="https://api.test", transport=transport) as client:
        assert lookback_warning(client, 40 * DAY_S) is None

    assert max(seen.values()) <= 5.0


@pytest.mark.parametrize("age_s", [None, 0.0, DAY_S - 1])
def test_young_events_cost_no_request(age_s: float | None) -> None:
    requests: list[str] = []
    with client_for(shows(0), requests) as client:
        assert lookback_warning(client, age_s) is None
    assert requests == []


@pytest.mark.parametrize(
    "response",
    [
        shows(None),
        shows("14"),
        shows(60),
        httpx.Response(403, json={"error": "no"}),
        httpx.Response(503),
        httpx.Response(200, html="<html>login</html>"),
    ],
)
def test_no_figure_is_no_warning(response: httpx.Response) -> None:
    with client_for(response) as client:
        assert lookback_warning(client, 40 * DAY_S) is None


def test_age_of_the_oldest(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    with EventLog(
        tmp_path / "log", events_size=1 << 20, media_size=1 << 20, delivery_size=1 << 20
    ) as log:
        assert oldest_pending_age_s(log, time.time()) is None
        # A board without a clock, delivered ones and ones from the future say nothing.
        for age in (400, 200, -5, 30, 2):
            log.append(Event.custom(value="v", timestamp=now - timedelta(days=age)))
        log.ack([2])

        age_s = oldest_pending_age_s(log, now.timestamp())
        assert age_s == pytest.approx(30 * DAY_S, abs=1)
        assert log.stats().conserved
