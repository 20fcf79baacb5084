"""What is set aside and what is not: refusals of images, and firewalls that block a request."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from flush_site import BATCH, EVENT, UPLOAD, USE_CASES, Site, jpeg

from vevents.delivery import doubts as doubts_module
from vevents.delivery import images as images_module
from vevents.delivery.sender import StopReason

NOT_THE_API = [
    httpx.Response(403, html="<h1>Access denied. Incident 7f3a</h1>"),
    httpx.Response(200, html="<h1>The requested URL was rejected</h1>"),
    httpx.Response(302, headers={"location": "https://block.test/"}),
    httpx.Response(403, json={"message": "Forbidden"}),
]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture(params=[1, 4])
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"uploads": request.param}


def to_those_with(
    word: bytes, answer: httpx.Response, path: str | None = None
) -> Callable[[httpx.Request], httpx.Response | None]:
    """Answer requests whose body has this word, and serve the others."""
    return lambda request: (
        answer if word in request.content and path in (None, request.url.path) else None
    )


def refused(status: int, **body: Any) -> httpx.Response:
    return httpx.Response(status, **(body or {"json": {"error": "no"}}))


# --- images ---------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 415, 422])
def test_what_the_api_says_of_an_image_is_believed_at_once(
    site: Site, status: int, options: dict[str, Any]
) -> None:
    site.append(jpeg("naughty"))
    site.server.interfere = to_those_with(b"naughty", refused(status), UPLOAD)

    report = site.flush(options=options)

    assert (report.delivered, report.images_rejected, report.stopped_reason) == (1, 1, None)
    assert site.log.states("media") == ["rejected"]
    [event] = site.server.events.values()
    assert event["customMetadata"]["vevents_frames_missing_reason"] == "refused"


@pytest.mark.parametrize(
    "answer",
    [
        *(refused(status) for status in (404, 405, 409, 410, 413, 431)),
        refused(413, html="<h1>413</h1>"),
        refused(400, json={"message": "not the API's words"}),
        *NOT_THE_API,
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_any_other_refusal_of_an_image_is_believed_once_another_one_goes(
    site: Site, answer: httpx.Response, first: bool, options: dict[str, Any]
) -> None:
    for name in ("naughty", "good") if first else ("good", "naughty"):
        site.append(jpeg(name))
    site.server.interfere = to_those_with(b"naughty", answer, UPLOAD)

    report = site.flush(options=options)

    assert (report.delivered, report.stopped_reason) == (2, None)
    assert (report.images_delivered, report.images_rejected) == (1, 1)
    assert sorted(site.log.states("media")) == ["delivered", "rejected"]
    [note] = site.log.notes_of("image-rejected")
    assert note["status"] == answer.status_code


@pytest.mark.parametrize("answer", [refused(409), refused(413, html="<h1>413</h1>"), *NOT_THE_API])
@pytest.mark.parametrize("count", [1, 15, 60])
def test_a_refusal_that_hits_every_image_throws_none_away(
    site: Site, answer: httpx.Response, count: int, options: dict[str, Any]
) -> None:
    for number in range(count):
        site.append(jpeg(f"image {number}"))
        site.append()
    site.server.interfere = to_those_with(b"", answer, UPLOAD)

    report = site.flush(options=options)

    # The events that have no image are not to blame, and go.
    assert (report.stopped_reason, report.delivered) == (StopReason.SERVER, count)
    assert (report.images_rejected, report.passed_over, report.pending_after) == (0, count, count)
    assert site.log.states("media") == ["pending"] * count
    assert f"refused with {answer.status_code}" in str(report.message)
    if options["uploads"] == 1:
        assert site.server.requests.count(("POST", UPLOAD)) == min(count, 20)
    site.server.interfere = lambda _: None
    report = site.flush(options=options)
    assert (report.stopped_reason, report.images_delivered) == (None, count)


def test_a_proxy_that_begins_to_refuse_images_in_mid_pass_throws_none_away(
    site: Site, options: dict[str, Any]
) -> None:
    for number in range(60):
        site.append(jpeg(f"image {number}"))
    site.server.interfere = lambda request: (
        refused(409) if request.url.path == UPLOAD and len(site.server.images) >= 20 else None
    )

    report = site.flush(options=options)

    assert report.stopped_reason is StopReason.SERVER
    assert (report.images_rejected, report.images_delivered) == (0, 20)
    assert (report.delivered, report.pending_after) == (20, 40)


def test_wrong_words_about_every_image_end_with_twenty_of_them(site: Site) -> None:
    for number in range(30):
        site.append(jpeg(f"image {number}"))
    site.append()
    site.server.interfere = to_those_with(b"", refused(400), UPLOAD)

    report = site.flush()

    assert (report.stopped_reason, report.images_rejected) == (StopReason.SERVER, 20)
    assert (report.delivered, report.pending_after) == (21, 10)
    assert "20 images were refused and none accepted" in str(report.message)


def test_an_image_larger_than_any_server_takes_is_believed_at_once(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images_module, "_SURELY_TOO_LARGE", 1_000)
    site.append(jpeg("large", 1_001))
    site.server.interfere = to_those_with(b"", refused(413, html="<h1>413</h1>"), UPLOAD)

    report = site.flush()

    assert (report.delivered, report.images_rejected, report.stopped_reason) == (1, 1, None)


def test_events_that_share_a_doubted_image_wait_together(
    site: Site, options: dict[str, Any]
) -> None:
    site.append(jpeg("naughty"))
    site.append(jpeg("naughty"), jpeg("good"))
    site.append(jpeg("naughty"))
    site.server.interfere = to_those_with(b"naughty", refused(409), UPLOAD)

    report = site.flush(options=options)

    assert (report.delivered, report.images_delivered, report.images_rejected) == (3, 1, 1)
    assert site.server.requests.count(("POST", UPLOAD)) == 2


def test_nothing_overtakes_an_event_of_its_id_that_waits_for_a_verdict(
    site: Site, options: dict[str, Any]
) -> None:
    site.append(jpeg("naughty"), event_id="shared")
    site.append(event_id="shared")
    for number in range(3):
        site.append(jpeg(f"good {number}"))
    last = site.append(event_id="shared")
    site.server.interfere = to_those_with(b"naughty", refused(409), UPLOAD)

    report = site.flush(options=options)

    assert (report.delivered, report.stopped_reason) == (6, None)
    assert site.server.stored_counts["shared"] == 3
    assert site.server.events["shared"]["eventData"]["value"] == f"event {last.seq}"


def test_an_undecided_image_holds_back_the_later_events_of_the_id(
    site: Site, options: dict[str, Any]
) -> None:
    site.append(jpeg("naughty"), event_id="shared")
    site.append(event_id="shared")
    site.append()
    site.server.interfere = to_those_with(b"naughty", refused(409), UPLOAD)

    report = site.flush(options=options)

    assert (report.delivered, report.passed_over) == (1, 2)
    assert "shared" not in site.server.events
    site.server.interfere = lambda _: None
    site.flush(options=options)
    assert site.server.events["shared"]["eventData"]["value"] == "event 2"


def test_more_events_wait_for_a_verdict_than_are_kept(site: Site) -> None:
    for _ in range(120):
        site.append(jpeg("naughty"))
    site.append(jpeg("good"))
    site.server.interfere = to_those_with(b"naughty", refused(409), UPLOAD)

    report = site.flush()

    assert (report.delivered, report.passed_over) == (101, 20)
    assert site.log.states()[:100] == ["delivered"] * 100


# --- a firewall -----------------------------------------------------------------------------


@pytest.mark.parametrize("answer", NOT_THE_API)
@pytest.mark.parametrize("place", [0, 3, 149])
def test_an_event_that_a_firewall_blocks_is_set_aside_and_blocks_no_other(
    site: Site, answer: httpx.Response, place: int
) -> None:
    for number in range(150):
        site.append(metadata={"note": "' OR 1=1 --" if number == place else "fine"})
    site.server.interfere = to_those_with(b"OR 1=1", answer)

    report = site.flush()

    assert (report.delivered, report.stopped_reason) == (149, None)
    assert report.rejected_by_reason == {"blocked": 1}
    [note] = site.log.notes_of("rejected")
    assert (note["code"], note["status"]) == ("blocked", answer.status_code)
    assert "firewall" in note["reason"]
    assert site.log.states()[place] == "rejected"


@pytest.mark.parametrize("answer", NOT_THE_API)
@pytest.mark.parametrize("count", [1, 15, 500])
def test_a_firewall_that_blocks_every_event_sets_none_aside(
    site: Site, answer: httpx.Response, count: int
) -> None:
    site.append_many(count)
    site.server.interfere = lambda request: None if request.url.path == USE_CASES else answer

    report = site.flush()

    assert (report.stopped_reason, report.rejected) == (StopReason.SERVER, 0)
    assert report.pending_after == count
    assert "proxy or firewall" in str(report.message)
    assert report.requests <= 120


@pytest.mark.parametrize("answer", NOT_THE_API)
def test_a_login_page_in_mid_pass_sets_nothing_aside(site: Site, answer: httpx.Response) -> None:
    site.append_many(300)
    site.server.interfere = lambda _: answer if len(site.server.events) >= 100 else None

    report = site.flush()

    assert (report.stopped_reason, report.delivered) == (StopReason.OFFLINE, 100)
    assert (report.rejected, report.pending_after) == (0, 200)


@pytest.mark.parametrize("blocked", [1, 2])
def test_a_login_page_that_comes_and_goes_costs_no_event(site: Site, blocked: int) -> None:
    ids = site.append_many(3)
    left = iter([NOT_THE_API[0]] * blocked)
    site.server.interfere = lambda request: (
        next(left, None)
        if request.url.path != USE_CASES
        and ids[1].encode() in request.content
        and b"events" not in request.content
        else refused(400)
        if request.url.path == BATCH
        else None
    )

    report = site.flush()

    assert (report.delivered, report.stopped_reason) == (3, None)


@pytest.mark.parametrize("blocked", [1, 2])
def test_a_login_page_that_comes_and_goes_costs_no_image(
    site: Site, blocked: int, options: dict[str, Any]
) -> None:
    for name in ("meant", "good", "better"):
        site.append(jpeg(name))
    left = iter([NOT_THE_API[0]] * blocked)
    site.server.interfere = lambda request: (
        next(left, None) if request.url.path == UPLOAD and b"meant" in request.content else None
    )

    report = site.flush(options=options)

    assert (report.delivered, report.images_delivered, report.stopped_reason) == (3, 3, None)
    assert report.images_rejected == 0


def test_a_key_without_the_right_ends_the_pass_also_for_one_event(site: Site) -> None:
    site.append_many(3)
    answer = refused(403, json={"error": "Insufficient permissions for this resource."})
    site.server.interfere = lambda request: answer if request.url.path in (EVENT, BATCH) else None

    report = site.flush()

    assert (report.stopped_reason, report.rejected) == (StopReason.UNAUTHORIZED, 0)
    assert "vision-events:write or device:update" in str(report.message)
    assert site.server.requests == [("POST", BATCH)]


def test_the_limits_are_those_that_are_documented() -> None:
    assert doubts_module._DOUBTED_MAX == doubts_module._REFUSED_ALONE_MAX == 20


def test_a_bundle_that_a_firewall_blocks_goes_the_ordinary_way(
    site: Site, options: dict[str, Any]
) -> None:
    site.append(jpeg("naughty"))
    site.append(jpeg("good"))
    site.server.interfere = to_those_with(b"naughty", NOT_THE_API[0])

    report = site.flush(options=options | {"bundle": True})

    assert (report.delivered, report.bundles, report.images_rejected) == (2, 1, 1)


def test_no_bundle_overtakes_an_event_of_its_id_that_waits_for_a_verdict(
    site: Site, options: dict[str, Any]
) -> None:
    site.append(jpeg("naughty"), event_id="shared")
    last = site.append(jpeg("good"), event_id="shared")
    site.append(jpeg("better"))
    site.server.interfere = to_those_with(b"naughty", refused(409))

    report = site.flush(options=options | {"bundle": True})

    assert (report.delivered, report.stopped_reason) == (3, None)
    assert site.server.events["shared"]["eventData"]["value"] == f"event {last.seq}"
