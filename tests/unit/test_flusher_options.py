"""What can be set on the flusher, what it learns during a pass, and from one pass to the next."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import msgpack
import pytest
from flush_site import BATCH, EVENT, UPLOAD, USE_CASES, Site, always, at, jpeg, refuse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vevents.delivery.flusher import Flusher
from vevents.delivery.report import Rejection
from vevents.delivery.sender import RetryPolicy, StopReason
from vevents.errors import ConfigurationError
from vevents.event import Event


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


# --- options --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"order": "random"}, "order: 'random'; one of 'oldest', 'newest', 'priority'"),
        ({"priorities": ["alarm"]}, "priorities: 'alarm'"),
        ({"uploads": 0}, "uploads: 0; from 1 to 32"),
        ({"uploads": 33}, "uploads: 33"),
        ({"bytes_per_s": 0}, "bytes_per_s: 0; at least 1"),
        ({"bytes_per_s": float("nan")}, "bytes_per_s: nan"),
        ({"event_age_s_max": 0}, "event_age_s_max: 0; more than 0"),
        ({"event_age_s_max": 365 * 86_400}, "at most 31449600"),
    ],
)
def test_options_are_checked(site: Site, options: dict[str, Any], words: str) -> None:
    with site.client() as client, pytest.raises(ConfigurationError, match=words):
        Flusher(site.log, client, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("uploads", [1, 4])
def test_newest_first(site: Site, uploads: int) -> None:
    site.append_many(150)

    site.flush(options={"order": "newest", "uploads": uploads})

    assert [seq for batch in site.posted() for seq in batch] == list(range(150, 0, -1))


@pytest.mark.parametrize("uploads", [1, 4])
def test_priority(site: Site, uploads: int) -> None:
    site.append()
    site.log.append(Event.quality_check(result="pass"))
    site.log.append(Event.safety_alert(alert_type="fall_detected"))
    site.append()
    options = {"order": "priority", "uploads": uploads}

    site.flush(options=options, max_events=1)
    assert site.posted() == [[3]]
    site.flush(options=options)
    assert site.posted() == [[3], [2, 1, 4]]

    site.log.append(Event.quality_check(result="pass"))
    site.append()
    site.flush(options=options | {"priorities": ["custom"]})
    assert site.posted()[-1] == [6, 5]


@pytest.mark.parametrize("uploads", [1, 4])
def test_live_before_backlog(site: Site, uploads: int) -> None:
    site.append_many(1_000)
    appended = iter([site.append])

    def interfere(_: httpx.Request) -> None:
        for append in appended:
            append()

    site.server.interfere = interfere

    report = site.flush(options={"live_first": True, "uploads": uploads})

    sent = [seq for batch in site.posted() for seq in batch]
    assert sorted(sent) == list(range(1, 1_002))
    # One batch was under way, and at most two windows were read ahead.
    assert 100 <= sent.index(1_001) <= 400
    assert (report.delivered, report.stopped_reason) == (1_001, None)
    assert site.steps[-1].total == site.steps[-1].delivered == 1_001


def test_age_limit(site: Site) -> None:
    site.append(timestamp=at(days=8))
    site.append(timestamp=at(days=6))

    report = site.flush(options={"event_age_s_max": 7 * 86_400})

    assert site.log.states() == ["rejected", "delivered"]
    assert report.rejected_by_reason == {"too-old": 1}
    [note] = site.log.notes_of("rejected")
    assert note["reason"] == "its time is 8.0 days ago; the limit is 7"


@pytest.mark.parametrize("uploads", [1, 4])
def test_bytes_per_second(site: Site, uploads: int) -> None:
    for number in range(10):
        site.append(jpeg(str(number), 5_000))
    began_s = site.time.now_s

    report = site.flush(options={"bytes_per_s": 1_000, "uploads": uploads})

    took_s = site.time.now_s - began_s
    assert report.delivered == 10
    # Everything but the last request is waited off.
    assert took_s == pytest.approx(50.0, rel=0.1)
    assert max(site.time.slept) <= 0.2


def test_bytes_per_second_hold_over_passes(site: Site) -> None:
    with site.client() as client:
        flusher = Flusher(
            site.log,  # type: ignore[arg-type]
            client,
            use_case_id="uc-default",
            time=site.time.as_time(),
            uploads=1,
            bytes_per_s=1_000,
        )
        began_s = site.time.now_s
        for _ in range(5):
            site.log.append(Event.custom(value="x" * 10_000))
            assert flusher.flush().requests == 1

    # Each pass waits for what the one before it sent.
    assert site.time.now_s - began_s == pytest.approx(4 * 10.2, rel=0.05)


def test_passes_that_end_while_waiting_for_the_pace_are_not_charged_for_it(site: Site) -> None:
    with site.client() as client:
        flusher = Flusher(
            site.log,  # type: ignore[arg-type]
            client,
            use_case_id="uc-default",
            time=site.time.as_time(),
            uploads=1,
            bytes_per_s=1_000,
        )
        for number in range(3):
            site.append(jpeg(str(number), 100_000))
        began_s = site.time.now_s
        while site.log.stats().pending:
            flusher.flush(timeout_s=60, should_stop=lambda: False)
            site.time.now_s += 10

    assert site.time.now_s - began_s < 400


def test_waiting_for_the_pace_ends_with_the_pass(site: Site) -> None:
    site.append(jpeg("a", 100_000))
    site.append(jpeg("b", 100_000))
    options = {"bytes_per_s": 1_000}
    began_s = site.time.now_s

    report = site.flush(options=options, should_stop=lambda: site.time.now_s > began_s + 30)
    assert report.stopped_reason is StopReason.INTERRUPTED
    assert site.time.now_s < began_s + 31

    report = site.flush(options=options, timeout_s=50)
    assert (report.stopped_reason, report.images_delivered) == (StopReason.TIMEOUT, 1)


def test_no_frame_is_an_orphan_while_its_event_waits_for_the_next_pass(site: Site) -> None:
    site.append(jpeg("a"))
    site.append()
    site.log.mark([1], "rejected")
    site.time.now_s += 4_000
    with site.client() as client:
        flusher = Flusher(
            site.log,  # type: ignore[arg-type]
            client,
            use_case_id="uc-default",
            time=site.time.as_time(),
            order="newest",
        )
        site.log.streams["media"][0].wall_ns += 4_000 * 10**9  # not an orphan yet
        assert flusher.flush().delivered == 1
        site.log.mark([1], "pending")
        site.time.now_s += 4_000

        assert (flusher.flush().orphans, site.log.states("media")) == (0, ["pending"])
        assert flusher.flush().images_delivered == 1


# --- what a pass costs ----------------------------------------------------------------------


def test_a_pass_with_nothing_to_do_reads_nothing(site: Site) -> None:
    site.append(jpeg("a"))
    site.flush(options={"order": "priority", "uploads": 4})
    site.log.tripwire.steps.clear()
    requests = len(site.server.requests)

    for order in ("oldest", "newest", "priority"):
        site.flush(options={"order": order, "uploads": 4, "live_first": True})

    assert site.log.tripwire.steps == []
    assert len(site.server.requests) == requests


def test_of_the_notes_only_those_of_others_are_read(site: Site) -> None:
    read: list[int] = []
    notes = site.log.notes

    def counted(from_seq: int = 0, *states: Any) -> Any:
        for seq, note in notes(from_seq, *states):
            read.append(seq)
            yield seq, note

    site.log.notes = counted  # type: ignore[method-assign]
    with site.client() as client:
        flusher = Flusher(
            site.log,  # type: ignore[arg-type]
            client,
            use_case_id="uc-default",
            time=site.time.as_time(),
            uploads=1,
        )
        site.append()
        flusher.flush()
        assert read == []
        for name in "abc":
            site.append(jpeg(name))
        flusher.flush()
        site.append(jpeg("a"))
        flusher.flush()
        site.append(jpeg("b"))
        flusher.flush()

    assert read == []  # all of them are the flusher's own
    assert len(site.server.images) == 3


def test_one_bad_event_among_a_hundred_costs_few_requests(tmp_path: Path) -> None:
    worst = 0
    for bad in (1, 2, 25, 26, 37, 50, 51, 64, 76, 99, 100):
        site = Site(tmp_path)
        site.append_many(100)
        site.server.refuses = refuse(f"event {bad}")
        report = site.flush(use_case_id="uc-default")
        assert (report.delivered, report.rejected) == (99, 1)
        worst = max(worst, report.requests)
        assert set(site.server.stored_counts.values()) == {1}

    # The whole, two for each halving at most, the list of use cases.
    assert worst <= 1 + 2 * 7 + 1


def test_a_good_left_half_says_that_the_right_one_is_bad(site: Site) -> None:
    site.append_many(64)
    site.server.refuses = refuse("event 64")

    report = site.flush()

    # The whole, one for each of six halvings, the bad one alone.
    assert [len(batch) for batch in site.server.batches] == [64, 32, 16, 8, 4, 2, 1, 1]
    assert report.rejected == 1


def test_a_server_that_refuses_everything_does_not_empty_the_backlog(site: Site) -> None:
    for _ in range(200):
        site.append(use_case_id="uc-own")
    site.server.interfere = lambda request: (
        httpx.Response(422, json={"error": "no good"})
        if request.url.path in (EVENT, BATCH)
        else None
    )

    report = site.flush()

    assert (report.rejected, report.stopped_reason) == (20, StopReason.SERVER)
    assert report.requests <= 20 + 2 + 7 + 7
    assert report.pending_after == 180
    site.server.interfere = lambda _request: None
    assert site.flush().delivered == 180
    site.log.assert_conserved()


def test_the_size_that_the_server_takes_is_kept_for_the_pass(site: Site) -> None:
    site.append_many(400)
    limit = 6_000

    def small_only(request: httpx.Request) -> httpx.Response | None:
        return httpx.Response(413, html="too large") if len(request.content) > limit else None

    site.server.interfere = small_only

    report = site.flush()

    too_large = [batch for batch in site.server.batches if len(batch) > 30]
    assert report.delivered == 400
    # 100, 50 and perhaps 25 events are too many; nobody has to learn that twice.
    assert len(too_large) <= 3
    assert report.requests < 40


def test_an_event_larger_than_the_server_takes_is_set_aside(site: Site) -> None:
    site.append_many(3)
    site.log.append(Event.custom(value="x" * 5_000))
    site.append_many(3)
    site.server.interfere = lambda request: (
        httpx.Response(413, html="too large") if len(request.content) > 4_000 else None
    )

    report = site.flush()

    assert (report.delivered, report.rejected_by_reason) == (6, {"too-large": 1})


# --- the default use case -------------------------------------------------------------------


def unknown(use_case: str, status: int = 400) -> Any:
    def interfere(request: httpx.Request) -> httpx.Response | None:
        if request.url.path in (EVENT, BATCH) and f'"{use_case}"' in request.content.decode():
            return httpx.Response(status, json={"error": f"unknown use case {use_case}"})
        return None

    return interfere


@pytest.mark.parametrize("uploads", [1, 4])
@pytest.mark.parametrize("status", [400, 404, 422])
def test_a_mistyped_default_use_case_sets_nothing_aside(
    site: Site, status: int, uploads: int
) -> None:
    site.append(jpeg("a"))
    site.append_many(250)
    site.append(use_case_id="uc-own")
    site.server.interfere = unknown("uc-typo", status)

    report = site.flush(use_case_id="uc-typo", options={"uploads": uploads})

    assert report.stopped_reason is StopReason.NO_USE_CASE
    assert "'uc-typo' is not among the active ones" in str(report.message)
    assert "VEVENTS_USE_CASE" in str(report.message)
    assert (report.delivered, report.rejected, report.passed_over) == (1, 0, 251)
    assert site.log.states() == ["pending"] * 251 + ["delivered"]
    assert report.requests < 40

    site.server.interfere = lambda _: None
    assert site.flush().delivered == 251


def test_a_use_case_that_the_list_does_not_show_is_no_excuse_for_bad_events(site: Site) -> None:
    site.server.use_cases = ["another"]
    site.append_many(50)
    site.server.refuses = refuse("event 1", "event 2", "event 40")

    report = site.flush()

    assert (report.delivered, report.rejected) == (47, 3)
    assert report.stopped_reason is None
    assert report.passed_over == 0
    assert site.log.states()[0] == "rejected"


def test_an_accepted_default_use_case_is_remembered(site: Site) -> None:
    site.server.use_cases = []
    site.server.refuses = refuse("event 2")
    with site.client() as client:
        flusher = Flusher(
            site.log,  # type: ignore[arg-type]
            client,
            use_case_id="uc-default",
            time=site.time.as_time(),
        )
        site.append()
        flusher.flush()
        site.append()
        assert flusher.flush().rejected == 1
    assert site.server.requests.count(("GET", USE_CASES)) == 0


def test_an_unknown_use_case_of_the_event_itself_is_named(site: Site) -> None:
    site.append(use_case_id="uc-gone")
    site.append()
    site.server.interfere = unknown("uc-gone", 404)

    report = site.flush()

    assert (report.delivered, report.rejected_by_reason) == (1, {"unknown-use-case": 1})
    assert site.log.notes_of("rejected")[0]["code"] == "unknown-use-case"


# --- answers that make no sense -------------------------------------------------------------


@pytest.mark.parametrize("uploads", [1, 4])
def test_images_taken_without_an_id_are_not_sent_again_and_again(site: Site, uploads: int) -> None:
    for number in range(30):
        site.append(jpeg(str(number)))
    site.server.interfere = lambda request: (
        httpx.Response(201, json={"success": True}) if request.url.path == UPLOAD else None
    )

    report = site.flush(options={"uploads": uploads})

    assert report.stopped_reason is StopReason.SERVER
    assert "sourceId" in str(report.message)
    assert site.server.requests.count(("POST", UPLOAD)) <= 3 + uploads - 1
    assert set(site.log.states()) == {"pending"}


def test_one_image_taken_without_an_id_holds_up_its_event_only(site: Site) -> None:
    site.append(jpeg("odd"))
    site.append(jpeg("good"))
    site.server.interfere = lambda request: (
        httpx.Response(201, json={"success": True, "sourceId": ""})
        if jpeg("odd") in request.content
        else None
    )

    report = site.flush()

    assert site.log.states() == ["pending", "delivered"]
    assert (report.retries, report.passed_over) == (0, 1)


@pytest.mark.parametrize(
    "payload",
    [
        {"eventType": "custom", "eventData": {"value": float("nan")}},
        {"eventType": "custom", "eventData": {"value": "v"}, "customMetadata": {"a": float("inf")}},
        {"eventType": "custom", "images": [{"frame": ["x", 5, None]}]},
        {"eventType": "custom", "images": [{"frame": [1, "no bytes", 3]}]},
        {"eventType": "custom", "eventId": 7},
        {"eventType": ["custom"]},
        [],
    ],
)
def test_odd_payloads_never_stop_the_ones_behind_them(site: Site, payload: object) -> None:
    site.log.append_payload(msgpack.packb(payload))
    site.append()

    report = site.flush()

    assert site.log.states() == ["rejected", "delivered"]
    assert report.rejected_by_reason == {"unreadable": 1}


scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text()
values = st.recursive(
    scalars | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
keys = st.sampled_from(
    ["eventType", "useCaseId", "eventId", "eventData", "customMetadata", "images", "deviceId"]
)


@settings(
    max_examples=80,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(st.dictionaries(keys, values) | values, st.booleans())
def test_no_payload_whatever_stops_a_pass(tmp_path: Path, payload: Any, typed: bool) -> None:
    site = Site(tmp_path)
    if typed and isinstance(payload, dict):
        payload["eventType"] = "custom"
    site.log.append_payload(msgpack.packb(payload, unicode_errors="surrogatepass"))
    site.append()

    report = site.flush(retry=RetryPolicy(attempts=1))

    assert report.stopped_reason is None
    assert site.log.states()[1] == "delivered"


def test_every_code_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()

    for code in Rejection:
        assert f"`{code}`" in text


def test_batch_whose_answer_names_nothing_is_confirmed_one_by_one(site: Site) -> None:
    ids = site.append_many(5)
    site.server.interfere = lambda request: (
        httpx.Response(201, json={"created": 0, "eventIds": []})
        if request.url.path == BATCH
        else None
    )

    assert site.flush().delivered == 5
    assert set(site.server.events) == set(ids)


def test_requests_without_an_answer_are_repeated_safely(site: Site) -> None:
    site.append_many(150)
    lost = iter([True, False, True, False])

    def answer_is_lost(request: httpx.Request) -> None:
        if next(lost, False):
            events = json.loads(request.content)["events"]
            site.server._serve(request.url.path, request.content, events)
            raise httpx.ReadTimeout("silence")

    site.server.interfere = answer_is_lost

    report = site.flush()

    assert (report.delivered, report.retries) == (150, 2)
    assert len(site.server.events) == 150
    assert max(site.server.stored_counts.values()) == 2


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_says_what_to_do(site: Site, status: int) -> None:
    site.append_many(2)
    site.server.interfere = always(BATCH, status)

    report = site.flush()

    assert report.stopped_reason is StopReason.UNAUTHORIZED
    assert ("ROBOFLOW_API_KEY" if status == 401 else "vision-events:write") in str(report.message)


@pytest.mark.parametrize("error", [TypeError("odd"), KeyError("odd"), RecursionError("deep")])
@pytest.mark.parametrize("uploads", [1, 4])
def test_no_fault_of_one_record_stops_the_ones_behind_it(
    site: Site, error: Exception, uploads: int
) -> None:
    site.log.append_payload(b"no event")  # so it is decoded, to hear what is wrong
    site.append()

    def fail(_: Any) -> Event:
        raise error

    site.log.decode = fail  # type: ignore[method-assign]

    report = site.flush(options={"uploads": uploads})

    assert site.log.states() == ["rejected", "delivered"]
    assert report.rejected_by_reason == {"unreadable": 1}
