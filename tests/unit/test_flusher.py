"""The flusher: what goes, in which order, and what is left when something fails at any point."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from fake_log import ProcessDiedError, Tripwire
from flush_site import (
    BATCH,
    EVENT,
    NOW_S,
    UPLOAD,
    USE_CASES,
    Site,
    always,
    at,
    jpeg,
    on,
    refuse,
)

from vevents._ffi import Moment
from vevents.delivery import digests as digests_module
from vevents.delivery.sender import RetryPolicy, StopReason
from vevents.errors import FlushLockedError, LogDegradedError
from vevents.event import Classification, Event, Image


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


# --- when all is well -----------------------------------------------------------------------


def test_empty_log_needs_no_server(site: Site) -> None:
    report = site.flush()

    assert report.stopped_reason is None
    assert (report.delivered, report.requests, report.bytes_sent) == (0, 0, 0)
    assert site.log.sync_count == 0


def test_one_event_goes_by_itself(site: Site) -> None:
    event_id = site.append(device_id="press-1").event_id

    report = site.flush()

    assert report.delivered == 1
    assert report.stopped_reason is None
    assert site.server.requests == [("POST", EVENT)]
    assert site.log.states() == ["delivered"]
    stored = site.server.events[event_id]
    assert stored["deviceId"] == "press-1"
    assert stored["useCaseId"] == "uc-default"
    assert stored["timestamp"] == "2026-09-21T14:13:20.000000+00:00"
    assert site.log.sync_count == 1


def test_use_case_of_the_event_wins(site: Site) -> None:
    event_id = site.append(use_case_id="uc-own").event_id

    site.flush()

    assert site.server.events[event_id]["useCaseId"] == "uc-own"


def test_events_go_oldest_first_in_batches_of_100(site: Site) -> None:
    site.append_many(250)

    report = site.flush()

    assert site.posted() == [
        list(range(1, 101)),
        list(range(101, 201)),
        list(range(201, 251)),
    ]
    assert (report.delivered, report.requests, report.pending_after) == (250, 3, 0)
    assert set(site.log.states()) == {"delivered"}


def test_backlog_is_read_in_windows(site: Site) -> None:
    site.append_many(450)

    site.flush()

    assert max(site.log.window_sizes) <= 100


def test_batch_stays_below_five_megabytes(site: Site) -> None:
    # About 90 kB of JSON each. The server of these tests takes no body above 5 MB.
    for number in range(100):
        many = tuple(Classification(f"class-{number}-{i}" * 4, 0.5) for i in range(1000))
        site.log.append(Event.custom(value="big", images=[Image(classifications=many)]))

    report = site.flush()

    assert report.delivered == 100
    assert len(site.server.batches) == 2
    assert [seq for batch in site.posted() for seq in batch] == list(range(1, 101))


def test_delivered_events_are_not_sent_again(site: Site) -> None:
    site.append_many(3)
    site.flush()

    report = site.flush()

    assert (report.delivered, report.requests) == (0, 0)
    assert set(site.server.stored_counts.values()) == {1}


def test_what_is_appended_meanwhile_waits_for_the_next_pass(site: Site) -> None:
    # More than one window, so that the log is read again after the first request.
    site.append_many(150)
    site.server.interfere = lambda _: site.append() and None

    report = site.flush()

    assert (report.delivered, report.pending_after) == (150, 2)
    assert report.stopped_reason is None


def test_progress_tells_every_step(site: Site) -> None:
    site.append(jpeg("a"))
    site.append_many(150)

    report = site.flush()

    assert {step.total for step in site.steps} == {151}
    assert site.steps[-1].delivered == 151
    assert site.steps[-1].images_delivered == 1
    assert site.steps[-1].bytes_sent == report.bytes_sent
    # The upload shows before anything is delivered.
    assert (site.steps[0].bytes_sent, site.steps[0].delivered) == (len(jpeg("a")), 0)
    delivered = [step.delivered for step in site.steps]
    assert delivered == sorted(delivered)


def test_same_id_twice_goes_in_two_requests_in_order(site: Site) -> None:
    site.append(event_id="evt-1", device_id="old")
    site.append()
    site.append(event_id="evt-1", device_id="new")

    report = site.flush()

    assert report.delivered == 3
    assert [len(batch) for batch in site.server.batches] == [2, 1]
    assert site.server.events["evt-1"]["deviceId"] == "new"
    assert set(site.log.states()) == {"delivered"}


# --- frames ---------------------------------------------------------------------------------


def test_image_goes_before_its_event(site: Site) -> None:
    site.append()
    event_id = site.append(jpeg("a")).event_id

    report = site.flush()

    assert site.server.requests == [("POST", UPLOAD), ("POST", BATCH)]
    assert site.server.images == {"ve-img-1": jpeg("a")}
    assert site.server.events[event_id]["images"] == [{"sourceId": "ve-img-1"}]
    assert site.log.states("media") == ["delivered"]
    [note] = site.log.notes_of("upload")
    assert (note["media"], note["sourceId"]) == (1, "ve-img-1")
    assert (report.images_delivered, report.images_missing) == (1, 0)


def test_input_frame_and_frame(site: Site) -> None:
    record = site.log.append(
        Event.custom(value="v", images=[Image(jpeg("out"), input_frame=jpeg("in"))])
    )

    site.flush()

    [image] = site.server.events[record.event_id]["images"]
    assert site.server.images[image["sourceId"]] == jpeg("out")
    assert site.server.images[image["inputSourceId"]] == jpeg("in")


def test_same_frame_is_uploaded_once_even_in_later_passes(site: Site) -> None:
    site.append(jpeg("a"), jpeg("a"))
    site.append(jpeg("a"))
    site.flush()
    last = site.append(jpeg("a")).event_id

    report = site.flush()

    assert list(site.server.images) == ["ve-img-1"]
    assert report.images_delivered == 0
    assert site.server.events[last]["images"] == [{"sourceId": "ve-img-1"}]


def test_second_copy_of_a_frame_is_marked_as_well(site: Site) -> None:
    site.log.stores_copies = True
    site.append(jpeg("a"))
    site.append(jpeg("a"))

    site.flush()

    assert list(site.server.images) == ["ve-img-1"]
    assert site.log.states("media") == ["delivered", "delivered"]


def test_evicted_frame_does_not_hold_up_its_event(site: Site) -> None:
    found = [Classification("c", 1.0)]
    images = [Image(jpeg("gone"), classifications=found), Image(jpeg("here"))]
    record = site.log.append(Event.custom(value="v", images=images))
    site.log.evict("media", 1)

    report = site.flush()

    assert (report.delivered, report.images_missing, report.images_delivered) == (1, 1, 1)
    stored = site.server.events[record.event_id]
    assert stored["customMetadata"] == {
        "vevents_frames_missing": 1,
        "vevents_frames_missing_reason": "evicted",
    }
    assert stored["images"] == [
        {"classifications": [{"class": "c", "confidence": 1}]},
        {"sourceId": "ve-img-1"},
    ]


def test_refused_image_lets_its_event_go_without_it(site: Site) -> None:
    one = site.append(jpeg("bad"), jpeg("good")).event_id
    other = site.append(jpeg("bad")).event_id
    site.server.interfere = on(UPLOAD, httpx.Response(415, json={"error": "not an image"}))

    report = site.flush()

    assert (report.delivered, report.images_rejected, report.images_delivered) == (2, 1, 1)
    assert site.log.states("media") == ["rejected", "delivered"]
    [note] = site.log.notes_of("image-rejected")
    assert (note["media"], note["status"], note["reason"]) == (1, 415, "not an image")
    for event_id, images in ((one, [{"sourceId": "ve-img-1"}]), (other, None)):
        assert site.server.events[event_id].get("images") == images
        metadata = site.server.events[event_id]["customMetadata"]
        assert metadata["vevents_frames_missing_reason"] == "refused"
    assert site.server.requests.count(("POST", UPLOAD)) == 2


def test_failing_image_holds_up_its_event_only(site: Site) -> None:
    stuck = site.append(jpeg("slow")).event_id
    free = site.append().event_id
    site.server.interfere = always(UPLOAD, 500)

    report = site.flush(retry=RetryPolicy(attempts=2))

    assert list(site.server.events) == [free]
    assert (report.delivered, report.passed_over, report.pending_after) == (1, 1, 1)
    assert report.stopped_reason is StopReason.SERVER
    assert "1 events stay pending: the server failed (500" in str(report.message)
    assert stuck not in site.server.events
    assert site.log.states("media") == ["pending"]


@pytest.mark.parametrize("answer", [httpx.Response(500), httpx.ReadError("reset")])
def test_images_that_all_fail_hold_up_no_event_without_one(
    site: Site, answer: httpx.Response | Exception
) -> None:
    for number in range(30):
        site.append(jpeg(str(number)))
    site.append_many(150)
    site.server.interfere = on(UPLOAD, *[answer] * 1_000)

    report = site.flush()

    assert (report.delivered, report.passed_over) == (150, 30)
    assert report.stopped_reason is StopReason.SERVER
    # After twenty images, of five tries each, the pass goes on without any.
    assert [path for _, path in site.server.requests].count(UPLOAD) == 100
    site.server.interfere = lambda _: None
    assert site.flush().delivered == 30


def test_images_that_fail_slowly_hold_up_no_event_without_one(site: Site) -> None:
    for number in range(30):
        site.append(jpeg(str(number)))
    site.append()

    def stall(request: httpx.Request) -> httpx.Response | None:
        if request.url.path != UPLOAD:
            return None
        site.time.now_s += 60.0
        raise httpx.WriteTimeout("too slow")

    site.server.interfere = stall

    assert site.flush().delivered == 1
    assert [path for _, path in site.server.requests].count(UPLOAD) == 10


def test_uploaded_images_are_remembered_across_an_outage(site: Site) -> None:
    site.append(jpeg("a"))
    site.append(jpeg("b"))
    site.server.interfere = on(UPLOAD, None, httpx.ConnectError("gone"))

    assert site.flush().offline
    site.flush()

    assert sorted(site.server.images.values()) == [jpeg("a"), jpeg("b")]


def test_batch_goes_early_on_a_slow_link(site: Site) -> None:
    for name in "abcdef":
        site.append(jpeg(name))

    def slow(request: httpx.Request) -> None:
        site.time.now_s += 2.0 if request.url.path == UPLOAD else 0.0

    site.server.interfere = slow

    site.flush()

    assert site.posted() == [[1, 2, 3], [4, 5, 6]]


def test_notes_of_others_and_broken_ones_are_passed_over(site: Site) -> None:
    site.log.written_notes += [
        {"kind": "something-new", "digest": b"x" * 16, "sourceId": "no"},
        {"kind": "upload"},
        {"kind": "upload", "digest": b"", "sourceId": "no"},
        {},
    ]
    site.append(jpeg("a"))

    assert site.flush().images_delivered == 1


def test_digests_that_are_not_used_are_forgotten(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests_module, "_REMEMBERED_MAX", 2)
    for name in ("a", "b", "a", "c", "a", "b"):
        site.append(jpeg(name))

    site.flush()

    # `a` stayed in use; `b` was the one to go when `c` came.
    assert sorted(site.server.images.values()) == [jpeg("a"), jpeg("b"), jpeg("b"), jpeg("c")]


# --- refusals -------------------------------------------------------------------------------


def test_bad_event_is_found_by_halving_and_set_aside(site: Site) -> None:
    site.append_many(100)
    site.server.refuses = refuse("event 37")
    payload = site.log.streams["events"][36].payload

    report = site.flush()

    assert (report.delivered, report.rejected, report.pending_after) == (99, 1, 0)
    assert report.stopped_reason is None
    assert report.requests <= 1 + 2 * 7
    assert [i + 1 for i, state in enumerate(site.log.states()) if state == "rejected"] == [37]
    [note] = site.log.notes_of("rejected")
    assert note == {
        "kind": "rejected",
        "seq": 37,
        "eventId": site.log.streams["events"][36].event_id,
        "code": "refused",
        "status": 400,
        "reason": "no good",
        "at": int(NOW_S * 1e9),
        "wall_ns": int(NOW_S * 1e9),
        "payload": payload,
    }
    assert set(site.server.stored_counts.values()) == {1}


@pytest.mark.parametrize("bad", [(1,), (7,), (1, 2), (3, 4, 7), tuple(range(1, 8))])
def test_any_mixture_of_bad_events(site: Site, bad: tuple[int, ...]) -> None:
    site.append_many(7)
    site.server.refuses = refuse(*(f"event {number}" for number in bad))

    report = site.flush()

    assert (report.delivered, report.rejected) == (7 - len(bad), len(bad))
    assert [i + 1 for i, s in enumerate(site.log.states()) if s == "rejected"] == list(bad)


@pytest.mark.parametrize("status", [400, 422])
def test_a_status_that_judges_the_event_sets_it_aside(site: Site, status: int) -> None:
    site.append(use_case_id="uc-own")
    site.server.interfere = always(EVENT, status)

    report = site.flush()

    assert (report.rejected, report.requests) == (1, 1)
    assert report.rejected_by_reason == {"refused": 1}
    [note] = site.log.notes_of("rejected")
    assert (note["status"], note["code"]) == (status, "refused")


@pytest.mark.parametrize("status", [405, 409, 410, 413, 415, 431])
@pytest.mark.parametrize("first", [True, False])
def test_any_other_status_is_believed_once_another_event_goes(
    site: Site, status: int, first: bool
) -> None:
    def interfere(request: httpx.Request) -> httpx.Response | None:
        meant = b'"bad"' in request.content
        return httpx.Response(status, json={"error": "no"}) if meant else None

    site.server.interfere = interfere
    events = [Event.custom(value="bad"), Event.custom(value="good")]
    for event in events if first else reversed(events):
        site.log.append(event)

    report = site.flush()

    code = "too-large" if status == 413 else "refused"
    assert (report.stopped_reason, report.delivered) == (None, 1)
    assert report.rejected_by_reason == {code: 1}
    [note] = site.log.notes_of("rejected")
    assert (note["status"], note["code"]) == (status, code)


@pytest.mark.parametrize("status", [409, 413, 415])
@pytest.mark.parametrize(("count", "requests_max"), [(1, 1), (15, 40), (500, 60)])
def test_a_refusal_that_hits_every_event_is_not_the_events_fault(
    site: Site, status: int, count: int, requests_max: int
) -> None:
    ids = site.append_many(count)
    page = {"html": "<h1>no</h1>"} if status == 413 else {"json": {"error": "no"}}
    site.server.interfere = lambda _: httpx.Response(status, **page)  # type: ignore[arg-type]

    report = site.flush()

    assert (report.stopped_reason, report.rejected) == (StopReason.SERVER, 0)
    assert report.pending_after == count
    assert report.passed_over == min(count, 20)
    assert f"refused with {status}" in str(report.message)
    assert report.requests <= requests_max
    site.server.interfere = lambda _: None
    assert site.flush().stopped_reason is None
    assert site.server.events.keys() == set(ids)


def test_a_proxy_that_begins_to_refuse_in_mid_pass_sets_nothing_aside(site: Site) -> None:
    site.append_many(300)
    site.server.interfere = lambda _: (
        httpx.Response(413, html="too large") if len(site.server.events) >= 100 else None
    )

    report = site.flush()

    assert (report.stopped_reason, report.delivered) == (StopReason.SERVER, 100)
    assert (report.rejected, report.pending_after) == (0, 200)


def test_a_really_large_event_is_set_aside_at_once(site: Site) -> None:
    site.append(metadata={f"key {number}": "x" * 1_000 for number in range(80)})
    site.server.interfere = always(EVENT, 413)

    report = site.flush()

    assert (report.stopped_reason, report.rejected_by_reason) == (None, {"too-large": 1})


def test_a_bad_event_whose_image_was_uploaded_before_costs_one_more_upload(site: Site) -> None:
    site.append(jpeg("a"))
    site.server.interfere = always(EVENT, 500)
    site.flush(retry=RetryPolicy(attempts=1))
    site.server.interfere = always(EVENT, 400)

    report = site.flush(use_case_id="uc-default")

    # With the old image, with another, and without: it is the event.
    assert (report.rejected, report.images_delivered) == (1, 1)
    assert site.server.requests.count(("POST", EVENT)) == 4


def test_an_image_that_is_gone_here_and_there_costs_no_event(site: Site) -> None:
    site.append(jpeg("a"), use_case_id="uc-own")
    site.server.interfere = always(EVENT, 500)
    site.flush(retry=RetryPolicy(attempts=1))
    site.log.evict("media", 1)
    site.server.refuses = lambda event: "no such image" if event.get("images") else None
    site.server.interfere = lambda _: None

    report = site.flush()

    assert (report.delivered, report.images_missing) == (1, 1)
    [stored] = site.server.events.values()
    assert stored["customMetadata"]["vevents_frames_missing_reason"] == "evicted"
    assert len(site.log.notes_of("upload-forgotten")) == 1


def test_too_large_batch_is_halved_and_delivered(site: Site) -> None:
    site.append_many(8)

    def small_only(request: httpx.Request) -> httpx.Response | None:
        many = request.url.path == BATCH and len(json.loads(request.content)["events"]) > 2
        return httpx.Response(413, html="too large") if many else None

    site.server.interfere = small_only

    report = site.flush()

    assert (report.delivered, report.rejected) == (8, 0)
    assert site.posted()[-1] == [7, 8]


def test_rejected_event_is_not_sent_again(site: Site) -> None:
    site.append()
    site.server.interfere = always(EVENT, 400)
    site.flush()

    assert site.flush().requests == 0


def test_reason_is_kept_when_the_payload_does_not_fit(site: Site) -> None:
    site.log.note_size_max = 4
    site.append()
    site.server.interfere = always(EVENT, 422)

    site.flush()

    [note] = site.log.notes_of("rejected")
    assert (note["payload"], note["reason"]) == (None, "as scripted")
    assert site.log.states() == ["rejected"]


def test_not_found_is_believed_when_the_api_is_there(site: Site) -> None:
    site.append_many(2)
    site.server.interfere = lambda request: (
        httpx.Response(404, json={"error": "no such use case"})
        if request.url.path in (EVENT, BATCH)
        else None
    )

    report = site.flush()

    assert report.rejected == 2
    assert site.server.requests.count(("GET", USE_CASES)) == 1


def test_not_found_at_a_wrong_address_sets_nothing_aside(site: Site) -> None:
    site.append_many(2)
    site.server.interfere = lambda _: httpx.Response(404, json={"error": "Not Found"})

    report = site.flush()

    assert report.stopped_reason is StopReason.OFFLINE
    assert "check API_URL" in str(report.message)
    assert site.log.states() == ["pending", "pending"]
    assert site.log.written_notes == []


def test_upload_not_found_at_a_wrong_address_sets_nothing_aside(site: Site) -> None:
    site.append(jpeg("a"))
    site.server.interfere = lambda _: httpx.Response(404, json={"error": "Not Found"})

    assert site.flush().offline
    assert site.log.states("media") == ["pending"]
    assert site.log.written_notes == []


@pytest.mark.parametrize(
    ("answer", "reason", "rejected"),
    [
        # It is the API, but whether the use case exists stays unknown: so the event waits.
        (httpx.Response(403, json={"error": "no read scope"}), StopReason.NO_USE_CASE, 0),
        (httpx.Response(400, json={"error": "odd"}), StopReason.NO_USE_CASE, 0),
        (httpx.Response(401, json={"error": "bad key"}), StopReason.UNAUTHORIZED, 0),
        (httpx.Response(500), StopReason.SERVER, 0),
        (httpx.ReadTimeout("slow"), StopReason.OFFLINE, 0),
    ],
)
def test_what_confirms_the_api(
    site: Site,
    answer: httpx.Response | Exception,
    reason: StopReason | None,
    rejected: int,
) -> None:
    site.append()

    def interfere(request: httpx.Request) -> httpx.Response:
        if request.url.path == EVENT:
            return httpx.Response(404, json={"error": "no such use case"})
        if isinstance(answer, Exception):
            raise answer
        return answer

    site.server.interfere = interfere

    report = site.flush(retry=RetryPolicy(attempts=1))

    assert (report.stopped_reason, report.rejected) == (reason, rejected)


def test_record_that_cannot_be_read_is_set_aside(site: Site) -> None:
    site.log.append_payload(b"\xc1 no msgpack")
    good = site.append().event_id

    report = site.flush()

    assert (report.delivered, report.rejected) == (1, 1)
    assert list(site.server.events) == [good]
    [note] = site.log.notes_of("rejected")
    assert note["status"] is None
    assert note["reason"].startswith("the record cannot be read: ")


def test_partial_batch_is_completed_one_by_one(site: Site) -> None:
    ids = site.append_many(4)

    def partial(request: httpx.Request) -> httpx.Response | None:
        if request.url.path != BATCH:
            return None
        for event in json.loads(request.content)["events"][:2]:
            site.server.events[event["eventId"]] = event
        return httpx.Response(201, json={"created": 2, "eventIds": [ids[0], ids[1], "foreign"]})

    site.server.interfere = partial

    report = site.flush()

    assert site.posted() == [[1, 2, 3, 4], [3], [4]]
    assert report.delivered == 4
    assert set(site.server.events) == set(ids)


def test_event_missing_from_a_batch_and_refused_alone_is_set_aside(site: Site) -> None:
    ids = site.append_many(2)
    site.server.interfere = lambda request: (
        httpx.Response(201, json={"created": 1, "eventIds": ids[:1]})
        if request.url.path == BATCH
        else httpx.Response(422, json={"error": "no good"})
    )

    report = site.flush()

    assert site.log.states() == ["delivered", "rejected"]
    assert (report.delivered, report.rejected) == (1, 1)


def test_answer_for_another_event_leaves_it_pending(site: Site) -> None:
    site.append()
    site.server.interfere = on(EVENT, httpx.Response(201, json={"eventId": "other"}))

    report = site.flush()

    assert site.log.states() == ["pending"]
    assert report.stopped_reason is StopReason.SERVER
    assert "answered for event 'other'" in str(report.message)


def test_a_server_that_answers_for_nothing_that_was_sent_is_left_alone_soon(site: Site) -> None:
    site.append_many(300)
    site.server.interfere = lambda _: httpx.Response(201, json={"eventId": "x", "eventIds": ["x"]})

    report = site.flush()

    assert report.stopped_reason is StopReason.SERVER
    assert "answered for event 'x'" in str(report.message)
    assert report.requests <= 1 + 20
    assert set(site.log.states()) == {"pending"}


# --- the window of time ---------------------------------------------------------------------


def test_events_outside_the_servers_window_are_set_aside(site: Site) -> None:
    site.append(jpeg("old"), timestamp=at(days=365))
    site.append(timestamp=at(days=363.9))
    site.append(timestamp=at(hours=-22.9))
    site.append(timestamp=at(hours=-23.5))

    report = site.flush()

    assert site.log.states() == ["rejected", "delivered", "delivered", "rejected"]
    assert site.log.states("media") == ["rejected"]
    assert site.server.images == {}
    reasons = [note["reason"] for note in site.log.notes_of("rejected")]
    assert reasons == [
        "its time is 365.0 days ago; the server takes at most 365",
        "its time is 23.5 hours ahead; the server takes at most 24",
    ]
    assert report.rejected == 2


def test_frame_of_an_old_event_that_another_event_uploaded_stays_delivered(site: Site) -> None:
    site.append(jpeg("a"))
    site.append(jpeg("a"), timestamp=at(days=400))

    site.flush()

    assert site.log.states("media") == ["delivered"]


def test_nothing_is_set_aside_by_a_wrong_clock(site: Site) -> None:
    site.append()
    site.time.now_s = 1_000.0  # 1970: the board woke up without a clock
    site.server.interfere = lambda request: (
        httpx.Response(
            200, json={"useCases": []}, headers={"date": "Mon, 21 Sep 2026 14:20:00 GMT"}
        )
        if request.url.path == USE_CASES
        else None
    )

    report = site.flush()

    assert site.server.requests == [("GET", USE_CASES), ("POST", EVENT)]
    assert (report.delivered, report.rejected) == (1, 0)


@pytest.mark.parametrize("years", [-50, 10])
def test_nothing_is_set_aside_by_a_clock_that_nobody_vouches_for(
    site: Site, years: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.append(jpeg("a"))
    # A server without a date, and a kernel that knows no reference.
    monkeypatch.setattr(
        site.log, "now", lambda: Moment(int(site.time.now_s * 1e9), 0, 1, synced=False)
    )
    site.time.now_s += years * 365 * 86_400

    report = site.flush()

    assert (report.delivered, report.rejected) == (1, 0)
    assert site.log.states("media") == ["delivered"]


def test_nothing_is_set_aside_while_offline(site: Site) -> None:
    site.append(timestamp=at(days=400))
    site.server.interfere = on(USE_CASES, httpx.ConnectError("no route"))

    assert site.flush().offline
    assert site.log.states() == ["pending"]


# --- no use case ----------------------------------------------------------------------------


def test_events_without_a_use_case_wait_and_the_others_go(site: Site) -> None:
    site.append(jpeg("a"))
    site.append(use_case_id="uc")

    report = site.flush(use_case_id=None)

    assert site.log.states() == ["pending", "delivered"]
    assert (report.delivered, report.passed_over, report.pending_after) == (1, 1, 1)
    assert report.stopped_reason is StopReason.NO_USE_CASE
    assert "VEVENTS_USE_CASE" in str(report.message)
    assert site.server.images == {}
    assert site.flush().delivered == 1


# --- trouble --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        httpx.ConnectError("no route to host"),
        httpx.Response(511),
    ],
)
@pytest.mark.parametrize("path", [BATCH, UPLOAD])
def test_offline_stops_at_once_and_changes_nothing(
    site: Site, answer: httpx.Response | Exception, path: str
) -> None:
    site.append(jpeg("a")) if path == UPLOAD else site.append()
    site.append()
    site.server.interfere = on(path, answer)

    report = site.flush()

    assert report.offline
    assert report.stopped_reason is StopReason.OFFLINE
    assert (report.requests, report.retries, report.bytes_sent) == (1, 0, 0)
    assert site.time.slept == []
    assert set(site.log.states() + site.log.states("media")) == {"pending"}
    assert site.log.written_notes == []
    assert site.flush().delivered == 2


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, html="<html>Welcome to the hotel</html>"),
        httpx.Response(302, headers={"location": "https://login.test"}),
        httpx.Response(403, html="<html>Log in first</html>"),
        httpx.Response(403, json={"message": "Forbidden"}),
    ],
)
@pytest.mark.parametrize("with_image", [False, True])
def test_a_login_page_is_offline_and_changes_nothing(
    site: Site, answer: httpx.Response, with_image: bool
) -> None:
    site.append(jpeg("a")) if with_image else site.append()
    site.append()
    site.server.interfere = lambda _: answer

    report = site.flush()

    assert report.stopped_reason is StopReason.OFFLINE
    # The second one asks whether the API is there at all.
    assert (report.requests, report.retries) == (2, 0)
    assert site.time.slept == []
    assert set(site.log.states() + site.log.states("media")) == {"pending"}
    assert site.log.written_notes == []
    site.server.interfere = lambda _: None
    assert site.flush().delivered == 2


@pytest.mark.parametrize("status", [401, 402, 403, 423])
@pytest.mark.parametrize("path", [EVENT, UPLOAD])
def test_a_refused_key_stops_everything(site: Site, status: int, path: str) -> None:
    site.append(jpeg("a"))
    site.append()
    site.server.interfere = always(path, status) if path == UPLOAD else always(BATCH, status)

    report = site.flush()

    assert report.stopped_reason is StopReason.UNAUTHORIZED
    assert report.message
    assert report.retries == 0
    assert site.log.states() == ["pending", "pending"]
    assert site.log.notes_of("rejected") == []


@pytest.mark.parametrize(
    "failure",
    [
        httpx.Response(500),
        httpx.Response(503),
        httpx.Response(408),
        httpx.Response(425),
        httpx.Response(429),
        httpx.Response(529, json={"detail": "full"}),
        httpx.ReadTimeout("slow"),
        httpx.RemoteProtocolError("disconnected"),
        httpx.Response(201, headers={"content-type": "application/json"}, content=b'{"eve'),
    ],
)
@pytest.mark.parametrize("path", [BATCH, UPLOAD])
def test_passing_trouble_is_repeated(
    site: Site, failure: httpx.Response | Exception, path: str
) -> None:
    site.append(jpeg("a"))
    site.append()
    site.server.interfere = on(path, failure, failure)

    report = site.flush()

    assert (report.delivered, report.retries, report.stopped_reason) == (2, 2, None)
    assert report.requests == 4
    assert sum(site.time.slept) == pytest.approx(1.0 + 2.0)
    assert list(site.server.images) == ["ve-img-1"]


def test_answer_lost_after_the_server_stored_the_event(site: Site) -> None:
    event_id = site.append().event_id

    def stored_then_lost(request: httpx.Request) -> None:
        if not site.server.events:
            site.server._serve(request.url.path, request.content, [json.loads(request.content)])
            raise httpx.ReadError("reset")

    site.server.interfere = stored_then_lost

    report = site.flush()

    assert (report.delivered, report.retries) == (1, 1)
    assert list(site.server.events) == [event_id]


def test_one_event_that_breaks_the_server_is_passed_over(site: Site) -> None:
    site.append_many(100)
    bad = site.log.streams["events"][0].event_id
    site.server.interfere = lambda request: (
        httpx.Response(500) if bad in request.content.decode() else None
    )

    report = site.flush()

    assert (report.delivered, report.passed_over, report.pending_after) == (99, 1, 1)
    assert report.stopped_reason is StopReason.SERVER
    assert site.log.states()[0] == "pending"
    assert site.log.notes_of("rejected") == []


def test_newer_event_with_the_id_of_one_that_waits_waits_too(site: Site) -> None:
    site.append(event_id="evt-1", device_id="old")
    site.append(event_id="evt-1", device_id="new")
    site.server.interfere = lambda request: (
        httpx.Response(500) if b'"old"' in request.content else None
    )

    report = site.flush(retry=RetryPolicy(attempts=1))
    assert (report.delivered, report.passed_over) == (0, 2)
    site.server.interfere = lambda _: None
    site.flush()

    assert site.server.events["evt-1"]["deviceId"] == "new"


def test_a_server_that_only_fails_is_left_alone_soon(site: Site) -> None:
    site.append_many(300)
    site.server.interfere = lambda _: httpx.Response(503, json={"error": "as scripted"})

    report = site.flush()

    assert report.stopped_reason is StopReason.SERVER
    assert report.message == "the server failed (503): as scripted"
    assert report.requests <= 5 + 20
    assert set(site.log.states()) == {"pending"}


def test_the_log_is_not_marked_when_its_disk_fails(site: Site) -> None:
    site.append()

    def degraded(*_: object) -> int:
        raise LogDegradedError("EIO")

    site.log.ack = degraded  # type: ignore[method-assign, assignment]

    with pytest.raises(LogDegradedError):
        site.flush()
    del site.log.ack
    assert site.flush().delivered == 1
    assert len(site.server.events) == 1


# --- limits ---------------------------------------------------------------------------------


def test_max_events(site: Site) -> None:
    site.append_many(120)

    report = site.flush(max_events=110)

    assert (report.delivered, report.pending_after) == (110, 10)
    assert report.stopped_reason is StopReason.MAX_EVENTS
    assert site.flush(max_events=10).stopped_reason is None


def test_max_bytes_is_never_exceeded_and_passes_make_progress(site: Site) -> None:
    for name in "abcdefgh":
        site.append(jpeg(name, 1_000))

    passes = 0
    while site.log.stats().pending:
        report = site.flush(max_bytes=3_500)
        assert report.bytes_sent <= 3_500
        assert report.delivered > 0
        passes += 1
        assert passes <= 8

    assert passes > 1
    assert sorted(site.server.images.values()) == [jpeg(name, 1_000) for name in "abcdefgh"]


def test_max_bytes_keeps_room_for_events_whose_images_went(site: Site) -> None:
    for name in "abcd":
        site.append(jpeg(name, 1_000))

    report = site.flush(max_bytes=3_100)

    assert (report.images_delivered, report.delivered) == (2, 2)


def test_max_bytes_smaller_than_one_request_still_gets_there(site: Site) -> None:
    site.append(jpeg("a", 1_000))

    first, second = site.flush(max_bytes=10), site.flush(max_bytes=10)

    assert (first.requests, first.stopped_reason) == (1, StopReason.MAX_BYTES)
    assert (second.requests, second.delivered) == (1, 1)


def test_timeout_begins_no_request_after_it(site: Site) -> None:
    site.append_many(300)

    def slow(_: httpx.Request) -> None:
        site.time.now_s += 4.0

    site.server.interfere = slow

    report = site.flush(timeout_s=7.0)

    assert (report.requests, report.delivered) == (2, 200)
    assert report.stopped_reason is StopReason.TIMEOUT
    assert report.duration_s == 8.0


def test_timeout_of_zero_sends_nothing(site: Site) -> None:
    site.append()

    report = site.flush(timeout_s=0.0)

    assert (report.requests, report.stopped_reason) == (0, StopReason.TIMEOUT)


def test_stop_on_request_finishes_the_bookkeeping(site: Site) -> None:
    site.append_many(250)

    report = site.flush(should_stop=lambda: len(site.server.requests) >= 2)

    assert report.stopped_reason is StopReason.INTERRUPTED
    assert (report.delivered, report.pending_after) == (200, 50)


def test_stop_on_request_after_an_upload_does_not_forget_it(site: Site) -> None:
    site.append(jpeg("a"))
    site.append(jpeg("b"))

    site.flush(should_stop=lambda: bool(site.server.images))
    site.flush()

    assert sorted(site.server.images.values()) == [jpeg("a"), jpeg("b")]


# --- orphans --------------------------------------------------------------------------------


def test_frame_without_an_event_is_set_aside_after_an_hour(site: Site) -> None:
    site.log.append_frame(jpeg("orphan"))
    site.time.now_s += 3_599

    assert site.flush().orphans == 0
    site.time.now_s += 2
    assert site.flush().orphans == 1

    assert site.log.states("media") == ["rejected"]
    assert site.log.notes_of("orphan")[0]["media"] == [1]
    assert site.server.requests == []


def test_orphans_share_notes(site: Site) -> None:
    for number in range(130):
        site.log.append_frame(jpeg(f"orphan {number}"))
    site.time.now_s += 4_000

    assert site.flush().orphans == 130
    assert [len(note["media"]) for note in site.log.notes_of("orphan")] == [100, 30]


def test_no_frame_is_an_orphan_while_events_are_pending(site: Site) -> None:
    site.append(jpeg("a"))
    site.time.now_s += 4_000
    site.server.interfere = on(UPLOAD, httpx.ConnectError("gone"))
    assert site.flush().orphans == 0

    site.server.interfere = always(UPLOAD, 500)
    assert site.flush(retry=RetryPolicy(attempts=1)).orphans == 0

    assert site.flush(use_case_id=None).orphans == 0
    assert site.log.states("media") == ["pending"]


# --- one at a time --------------------------------------------------------------------------


def test_second_flush_of_the_same_log_is_refused(site: Site) -> None:
    site.append()
    with (site.log.directory / "flush.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)

        with pytest.raises(FlushLockedError, match="another flush of"):
            site.flush()
    assert site.server.requests == []
    assert site.flush().delivered == 1


def test_lock_dies_with_its_process(site: Site) -> None:
    path = site.log.directory / "flush.lock"
    program = (
        "import fcntl, os, signal, sys\n"
        "file = open(sys.argv[1], 'w')\n"
        "fcntl.flock(file, fcntl.LOCK_EX)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(path)], check=False)

    assert path.exists()
    assert site.flush().stopped_reason is None


def test_lock_is_given_back_after_an_error(site: Site) -> None:
    site.append()
    site.log.tripwire.die_at = 1
    with pytest.raises(ProcessDiedError):
        site.flush()
    site.log.tripwire.die_at = None

    assert site.flush().delivered == 1


def test_lock_file_is_private_and_no_link_is_followed(site: Site, tmp_path: Path) -> None:
    site.flush()
    path = tmp_path / "flush.lock"
    assert path.stat().st_mode & 0o777 == 0o600

    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        site.flush()
    assert not (tmp_path / "elsewhere").exists()


# --- a crash at every step ------------------------------------------------------------------


def fill(site: Site) -> None:
    """Eight events, a bad one among them, a bad image, a shared frame, an orphan, an old one."""
    site.log.append_frame(jpeg("orphan"))
    site.time.now_s += 4_000
    site.append(jpeg("a"))
    site.append(jpeg("a"), jpeg("b"))
    site.append()
    site.append(jpeg("bad image"))
    site.append(jpeg("c"), timestamp=at(days=400))
    site.append()
    site.append(jpeg("d"))
    site.append()
    site.server.refuses = refuse("event 6")
    site.server.interfere = lambda request: (
        httpx.Response(415, json={"error": "not an image"})
        if b"bad image" in request.content and request.url.path == UPLOAD
        else None
    )


def assert_nothing_is_claimed_too_early(site: Site) -> None:
    for record in site.log.streams["events"]:
        if record.state == "delivered":
            assert record.event_id in site.server.events
        if record.state == "rejected":
            assert any(note["seq"] == record.seq for note in site.log.notes_of("rejected"))
    noted = {note["media"] for note in site.log.notes_of("upload")}
    for record in site.log.streams["media"]:
        if record.state == "delivered":
            assert record.payload in site.server.images.values()
            assert record.seq in noted


def dry_run_steps(tmp_path: Path) -> list[str]:
    tripwire = Tripwire()
    site = Site(tmp_path, tripwire)
    fill(site)
    site.flush()
    return tripwire.steps


def test_a_crash_at_every_step_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    steps = dry_run_steps(tmp_path)
    assert len(steps) > 40

    for die_at in range(1, len(steps) + 1):
        tripwire = Tripwire(die_at)
        site = Site(tmp_path, tripwire)
        fill(site)
        with pytest.raises(ProcessDiedError) as death:
            site.flush()
        site.log.assert_conserved()
        assert_nothing_is_claimed_too_early(site)

        tripwire.die_at = None
        site.flush()

        where = f"died at step {die_at}, {death.value}"
        assert site.log.states() == [
            "delivered",
            "delivered",
            "delivered",
            "delivered",
            "rejected",
            "rejected",
            "delivered",
            "delivered",
        ], where
        # Media in the order of their first use: orphan, a, b, bad image, c, d.
        assert site.log.states("media") == [
            "rejected",
            "delivered",
            "delivered",
            "rejected",
            "rejected",
            "delivered",
        ], where
        delivered = [r for r in site.log.streams["events"] if r.state == "delivered"]
        assert set(site.server.events) == {r.event_id for r in delivered}, where
        uploads = list(site.server.images.values())
        # Between the server's 201 and the note nobody can know that the image is there. (A refused
        # image has no 201; asking again about it uploads nothing.)
        unknowable = str(death.value) == "before note upload" or (
            str(death.value) == f"after {UPLOAD}" and steps[die_at] == "before note upload"
        )
        assert len(uploads) - len(set(uploads)) == int(unknowable), where
        assert_nothing_is_claimed_too_early(site)


def test_two_crashes_in_a_row(tmp_path: Path) -> None:
    total = len(dry_run_steps(tmp_path))
    for die_at in range(1, total + 1, 5):
        for again_at in range(1, total + 1, 7):
            tripwire = Tripwire(die_at)
            site = Site(tmp_path, tripwire)
            fill(site)
            for extra in (0, again_at):
                tripwire.die_at = len(tripwire.steps) + extra if extra else die_at
                try:
                    site.flush()
                except ProcessDiedError:
                    site.log.assert_conserved()
                    assert_nothing_is_claimed_too_early(site)
            tripwire.die_at = None
            site.flush()

            assert site.log.states().count("delivered") == 6
            assert site.log.stats().pending == 0
            assert len(site.server.events) == 6
            assert len(site.server.images) <= 4 + 2
