"""Events that go together with their frames in one request."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from fake_log import ProcessDiedError, Tripwire
from flush_site import BATCH, BUNDLE, EVENT, UPLOAD, USE_CASES, Site, always, at, jpeg, on, refuse
from test_flusher_threads import Crowd

from vevents.delivery.sender import RetryPolicy, StopReason
from vevents.event import Event, Image

ONE = {"bundle": True}
FOUR = ONE | {"uploads": 4}
ONCE = RetryPolicy(attempts=1)
WAIT_S = 20


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.log.assert_conserved()


def paths(site: Site) -> list[str]:
    return [path for _, path in site.server.requests]


def images_of(site: Site, event_id: str) -> list[bytes]:
    """What the server shows with an event."""
    images = site.server.events[event_id].get("images", [])
    keys = [image[key] for image in images for key in ("sourceId", "inputSourceId") if key in image]
    return [site.server.images[key] for key in keys]


# --- the way of a bundle --------------------------------------------------------------------


@pytest.mark.parametrize("options", [ONE, FOUR])
def test_event_and_frames_go_in_one_request_and_events_without_frames_in_batches(
    site: Site, options: dict[str, Any]
) -> None:
    for number in range(10):
        site.append(jpeg(f"{number}"), jpeg(f"{number}'"))
        site.append()

    report = site.flush(options=options)

    assert sorted(paths(site)) == [BATCH] + [BUNDLE] * 10
    assert (report.delivered, report.bundles, report.images_delivered) == (20, 10, 20)
    assert set(site.log.states() + site.log.states("media")) == {"delivered"}
    for number in range(10):
        record = site.log.streams["events"][2 * number]
        assert images_of(site, record.event_id) == [jpeg(f"{number}"), jpeg(f"{number}'")]
    assert site.flush(options=options).requests == 0


@pytest.mark.parametrize("answer", [httpx.Response(200, json={"login": "/"}), httpx.Response(204)])
@pytest.mark.parametrize("options", [ONE, FOUR])
def test_a_success_that_names_no_event_may_not_be_the_apis(
    site: Site, options: dict[str, Any], answer: httpx.Response
) -> None:
    for number in range(6):
        site.append(jpeg(f"{number}"))
    site.server.interfere = lambda _: answer

    report = site.flush(options=options)

    assert (report.delivered, report.stopped_reason) == (0, StopReason.OFFLINE)
    assert set(site.log.states() + site.log.states("media")) == {"pending"}


def test_a_success_that_names_no_event_counts_where_the_api_is(site: Site) -> None:
    for number in range(6):
        site.append(jpeg(f"{number}"))
    site.server.interfere = on(BUNDLE, *[httpx.Response(204)] * 6)

    report = site.flush(options=ONE)

    # Asked once, and it is the API that answers.
    assert sorted(paths(site)) == [BUNDLE] * 6 + [USE_CASES]
    assert (report.delivered, report.bundles) == (6, 6)


def test_a_bundle_that_is_answered_with_an_error_was_not_taken(site: Site) -> None:
    site.append(jpeg("a"))
    site.server.interfere = on(BUNDLE, httpx.Response(200, json={"error": "not now"}))

    report = site.flush(options=ONE, retry=ONCE)

    # The ordinary way.
    assert paths(site) == [BUNDLE, UPLOAD, EVENT]
    assert (report.delivered, report.bundles) == (1, 0)


def test_input_frame_label_and_detections_arrive_as_on_the_ordinary_way(tmp_path: Path) -> None:
    arrived = []
    for number, options in enumerate(({}, ONE)):
        (tmp_path / str(number)).mkdir()
        site = Site(tmp_path / str(number))
        image = Image(jpeg("shown"), input_frame=jpeg("seen"), label="top")
        site.log.append(Event.custom(value="x", images=[image], event_id="e-1", timestamp=at()))
        site.flush(options=options)
        assert images_of(site, "e-1") == [jpeg("shown"), jpeg("seen")]
        event = site.server.events["e-1"]
        [entry] = event["images"]
        del entry["sourceId"], entry["inputSourceId"]
        arrived.append(event)
    assert arrived[0] == arrived[1]


def test_the_use_case_of_the_event_wins_over_the_default(site: Site) -> None:
    own = site.append(jpeg("a"), use_case_id="uc-own")
    none = site.append(jpeg("b"))

    site.flush(options=ONE)

    assert site.server.events[own.event_id]["useCaseId"] == "uc-own"
    assert site.server.events[none.event_id]["useCaseId"] == "uc-default"


def test_bundles_go_side_by_side(site: Site) -> None:
    for number in range(8):
        site.append(jpeg(f"{number}"))
    site.server.interfere = crowd = Crowd(2, BUNDLE)

    assert site.flush(options=FOUR).bundles == 8
    assert 2 <= crowd.most <= 4


# --- the ordinary way all the same ----------------------------------------------------------


def test_what_is_too_large_for_a_bundle_goes_the_ordinary_way(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.append(jpeg("large frame", 30_000))
    site.append(jpeg("fits", 20_000))
    # 20,000 bytes of frame and 6,000 of event are too much for the tar with its padding.
    site.append(jpeg("large event", 20_000), metadata={f"key {i}": "x" * 900 for i in range(9)})
    monkeypatch.setattr("vevents.archive.BUNDLE_SIZE_MAX", 3 * 10_240)

    report = site.flush(options=ONE)

    assert (report.delivered, report.bundles, report.images_delivered) == (3, 1, 3)
    assert (paths(site).count(BUNDLE), paths(site).count(UPLOAD)) == (1, 2)
    for record in site.log.streams["events"]:
        assert len(images_of(site, record.event_id)) == 1


def test_frames_that_are_gone_are_said_to_be_missing(site: Site) -> None:
    half = site.append(jpeg("gone"), jpeg("there"))
    none = site.append(jpeg("gone too"))
    site.log.evicted |= {("media", 1), ("media", 3)}

    report = site.flush(options=ONE)

    assert (report.delivered, report.bundles, report.images_missing) == (2, 1, 2)
    assert images_of(site, half.event_id) == [jpeg("there")]
    for record in (half, none):
        metadata = site.server.events[record.event_id]["customMetadata"]
        assert metadata == {
            "vevents_frames_missing": 1,
            "vevents_frames_missing_reason": "evicted",
        }


def test_frames_that_the_server_has_already_are_not_sent_again(site: Site) -> None:
    site.append(jpeg("a"))
    site.flush()
    site.append(jpeg("a"))

    report = site.flush(options=ONE)

    assert (report.delivered, report.bundles) == (1, 0)
    assert list(site.server.images.values()) == [jpeg("a")]


@pytest.mark.parametrize("options", [ONE, FOUR])
@pytest.mark.parametrize("status", [400, 404, 405, 413, 415, 422])
def test_a_server_that_takes_no_bundles_gets_everything_the_ordinary_way(
    site: Site, status: int, options: dict[str, Any]
) -> None:
    for number in range(20):
        site.append(jpeg(f"{number}"))
    site.server.interfere = always(BUNDLE, status)

    report = site.flush(options=options)

    assert (report.delivered, report.rejected, report.bundles) == (20, 0, 0)
    # Three in a row say so; with several under way some more have begun.
    assert 3 <= paths(site).count(BUNDLE) <= 3 + 4
    for number, record in enumerate(site.log.streams["events"]):
        assert images_of(site, record.event_id) == [jpeg(f"{number}")]


@pytest.mark.parametrize("trouble", [httpx.Response(500), httpx.ReadTimeout("late")])
def test_a_server_that_keeps_failing_on_bundles_gets_them_the_ordinary_way(
    site: Site, trouble: Any
) -> None:
    for number in range(5):
        site.append(jpeg(f"{number}"))
    site.server.interfere = on(BUNDLE, *[trouble] * 5)

    report = site.flush(options=ONE, retry=ONCE)

    assert (report.delivered, report.stopped_reason) == (5, None)
    assert paths(site).count(BUNDLE) == 3


def test_a_success_in_between_keeps_bundles_going(site: Site) -> None:
    for number in range(12):
        site.append(jpeg(f"{number}"))
    no = httpx.Response(413, json={"error": "no"})
    site.server.interfere = on(BUNDLE, *[no, no, None] * 4)

    report = site.flush(options=ONE)

    assert (report.delivered, report.bundles) == (12, 4)


def test_a_bad_event_is_set_aside_and_a_bad_image_left_out(site: Site) -> None:
    site.append(jpeg("a"))
    bad = site.append(jpeg("b"))
    half = site.append(jpeg("bad image"))
    site.append(jpeg("c"))
    site.server.refuses = refuse("event 2")
    site.server.interfere = lambda request: (
        httpx.Response(415, json={"error": "not an image"})
        if b"bad image" in request.content and request.url.path in (BUNDLE, UPLOAD)
        else None
    )

    report = site.flush(options=ONE)

    assert (report.delivered, report.rejected, report.images_rejected) == (3, 1, 1)
    assert bad.event_id not in site.server.events
    assert images_of(site, half.event_id) == []
    [note] = site.log.notes_of("rejected")
    assert note["eventId"] == bad.event_id


def test_a_mistyped_default_use_case_sets_nothing_aside(site: Site) -> None:
    for number in range(6):
        site.append(jpeg(f"{number}"))
    site.server.refuses = lambda _: "unknown use case"

    report = site.flush(options=ONE, use_case_id="uc-typo")

    assert (report.delivered, report.rejected) == (0, 0)
    assert report.stopped_reason is StopReason.NO_USE_CASE


# --- trouble --------------------------------------------------------------------------------


def test_an_answer_that_is_lost_costs_a_repetition(site: Site) -> None:
    record = site.append(jpeg("a"))
    serve = site.server._serve_bundle

    def lose_the_first(*given: Any) -> httpx.Response:
        answer = serve(*given)
        if site.server.stored_counts[record.event_id] == 1:
            raise httpx.ReadTimeout("lost")
        return answer

    site.server._serve_bundle = lose_the_first  # type: ignore[method-assign]

    report = site.flush(options=ONE)

    assert (report.delivered, report.bundles, report.retries) == (1, 1, 1)
    assert images_of(site, record.event_id) == [jpeg("a")]


def test_offline_changes_nothing(site: Site) -> None:
    site.append(jpeg("a"))
    site.server.interfere = on(BUNDLE, httpx.ConnectError("gone"))

    report = site.flush(options=ONE)

    assert report.stopped_reason is StopReason.OFFLINE
    assert site.log.states() + site.log.states("media") == ["pending", "pending"]


@pytest.mark.parametrize("first", [(), (jpeg("first"),)])
def test_of_one_id_none_ever_overtakes(site: Site, first: tuple[bytes, ...]) -> None:
    """Whether the first goes in a batch or as a slow bundle."""
    site.append(*first, event_id="evt-1", device_id="old")
    site.append(jpeg("second"), event_id="evt-1", device_id="new")
    slow = threading.Event()

    def hold_back(request: httpx.Request) -> None:
        if b"old" in request.content and not slow.wait(0.2):
            slow.set()

    site.server.interfere = hold_back

    report = site.flush(options=FOUR)

    assert report.delivered == 2
    assert site.server.events["evt-1"]["deviceId"] == "new"
    assert images_of(site, "evt-1") == [jpeg("second")]


def test_what_arrived_is_written_down_though_the_pass_ends_before_its_turn(site: Site) -> None:
    site.append(jpeg("slow"))
    quick = [site.append(jpeg(f"quick {number}")) for number in range(3)]
    arrived = threading.Semaphore(0)

    def interfere(request: httpx.Request) -> httpx.Response | None:
        if jpeg("slow") in request.content:
            for _ in quick:
                assert arrived.acquire(timeout=WAIT_S)
            raise httpx.ConnectError("the network is gone")
        return None

    site.server.interfere = interfere
    serve = site.server._serve_bundle

    def serve_and_tell(*given: Any) -> httpx.Response:
        answer = serve(*given)
        arrived.release()
        return answer

    site.server._serve_bundle = serve_and_tell  # type: ignore[method-assign]

    report = site.flush(options=FOUR)

    assert report.stopped_reason is StopReason.OFFLINE
    assert (report.delivered, report.bundles, report.pending_after) == (3, 3, 1)
    assert site.log.states() == ["pending", "delivered", "delivered", "delivered"]


def test_limits(site: Site) -> None:
    for number in range(6):
        site.append(jpeg(f"{number}", 20_000))

    assert site.flush(options=ONE, max_events=2).delivered == 2
    report = site.flush(options=ONE, max_bytes=70_000)
    assert (report.delivered, report.stopped_reason) == (2, StopReason.MAX_BYTES)
    assert report.bytes_sent <= 70_000
    assert site.flush(options=FOUR, timeout_s=0).delivered == 0
    assert site.flush(options=FOUR | {"bytes_per_s": 10_000}).delivered == 2
    # 20,000 bytes and more at 10,000 a second.
    assert site.time.now_s - 1_790_000_000.0 >= 2


def test_max_bytes_keeps_room_for_the_events_before_a_bundle(site: Site) -> None:
    site.append(jpeg("a", 20_000))
    site.append_many(10)
    site.append(jpeg("b", 20_000))
    # Enough for both bundles, and not for the batch between them.
    bundle_size = 3 * 10_240

    report = site.flush(options=ONE, max_bytes=2 * bundle_size + 500)

    assert (report.delivered, report.bundles) == (11, 1)
    assert site.log.states()[-1] == "pending"


@pytest.mark.parametrize("options", [ONE, FOUR])
def test_a_crash_at_every_step_loses_nothing(tmp_path: Path, options: dict[str, Any]) -> None:
    def fill(site: Site) -> None:
        site.append(jpeg("a"))
        site.append(jpeg("a"), jpeg("b"))
        site.append()
        site.append(jpeg("c"))
        site.append(jpeg("d"))
        site.server.refuses = refuse("event 4")

    tripwire = Tripwire()
    site = Site(tmp_path, tripwire)
    fill(site)
    site.flush(options=options)
    total = len(tripwire.steps)
    assert total > 20

    for die_at in range(1, total + 1):
        tripwire = Tripwire(die_at)
        site = Site(tmp_path, tripwire)
        fill(site)
        with suppress(ProcessDiedError):
            site.flush(options=options)
        site.log.assert_conserved()
        for record in site.log.streams["events"]:
            assert record.state != "delivered" or record.event_id in site.server.events
        for record in site.log.streams["media"]:
            shown = record.payload in site.server.images.values()
            assert record.state != "delivered" or shown

        tripwire.die_at = None
        site.flush(options=options)

        states = ["delivered", "delivered", "delivered", "rejected", "delivered"]
        assert site.log.states() == states, die_at
        assert site.log.stats("media").pending == 0
        assert len(site.server.events) == 4
        for record in site.log.streams["events"]:
            if record.event_id in site.server.events:
                names = {"event 1": "a", "event 2": "ab", "event 3": "", "event 5": "d"}
                value = site.server.events[record.event_id]["eventData"]["value"]
                assert images_of(site, record.event_id) == [jpeg(name) for name in names[value]]


def test_without_the_option_nothing_goes_as_a_bundle(site: Site) -> None:
    site.append(jpeg("a"))

    site.flush()

    assert paths(site) == [UPLOAD, EVENT]
