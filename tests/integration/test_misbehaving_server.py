"""The real log, flusher and client against an emulator that misbehaves in every way it can.

Each test lets something go wrong, looks at what the pass reports, lifts it, passes again, and ends
with the same oracle: every event at the server exactly once, field by field as it was appended,
with the bytes of its frames, and both sides' figures add up. Waiting is done on a clock of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import socket
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from vevents import Event, EventLog, Image, ObjectDetection
from vevents.delivery.client import Client, Timeouts
from vevents.delivery.flusher import Flusher
from vevents.delivery.report import FlushProgress, FlushReport
from vevents.delivery.sender import RetryPolicy, StopReason, Time
from vevents.emulator import (
    CATALOGUE,
    ApiKey,
    Chaos,
    EmulatorConfig,
    Events,
    Fault,
    Flow,
    RunningEmulator,
    TlsFiles,
    Which,
)
from vevents.frames import digest

KEY = "rf_secret_0123456789"
USE_CASE = "uc-1"
API, BATCH, UPLOAD = "/vision-events*", "/vision-events/batch", "/vision-events/upload"
EVENT_COUNT, FRAME_COUNT = 14, 3
TIMEOUTS = Timeouts(connect_s=5.0, read_s=5.0, write_s=5.0)
# A server that stalls costs a timeout in earnest.
IMPATIENT = Timeouts(connect_s=5.0, read_s=0.2, write_s=0.2)
RETRY = RetryPolicy(attempts=2, first_wait_s=1.0, wait_s_max=30.0)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


class FastTime:
    """A clock on which waiting takes no time."""

    def __init__(self, seed: int = 0) -> None:
        self.slept_s = 0.0
        self._dice = random.Random(seed)

    def time(self) -> Time:
        return Time(monotonic=self._monotonic, sleep=self._sleep, draw=self._dice.random)

    def _monotonic(self) -> float:
        return time.monotonic() + self.slept_s

    def _sleep(self, duration_s: float) -> None:
        self.slept_s += duration_s
        assert self.slept_s < 86_400, "a pass that waits for a day"


@dataclass
class Site:
    """A device with a backlog, and the server."""

    log: EventLog
    emulator: RunningEmulator
    # What was appended, as the API shall get it, by event id; in place of ids, SHA-256 of frames.
    appended: dict[str, dict[str, Any]] = field(default_factory=dict)
    # These by the digest that the log knows frames by.
    frames: dict[bytes, str] = field(default_factory=dict)
    clock: FastTime = field(default_factory=FastTime)
    faults_before: int = 0

    def append(
        self, count: int = EVENT_COUNT, frames: int = FRAME_COUNT, size: int = 3_000
    ) -> None:
        """Append events, of which every third has a frame of its own until there are so many."""
        base = datetime.now(UTC) - timedelta(minutes=10)
        for number in range(count):
            at = base + timedelta(seconds=number)
            sent: dict[str, Any] = {
                "eventType": "custom",
                "useCaseId": USE_CASE,
                "timestamp": at.isoformat(timespec="microseconds"),
                "deviceId": "camera-7",
                "eventData": {"value": f"event {number}, Straße"},
                "customMetadata": {"line": number % 3, "share": 0.5},
            }
            images = []
            if number % 3 == 0 and number // 3 < frames:
                frame = b"\xff\xd8\xff\xe0" + random.Random(number).randbytes(size)
                sha256 = hashlib.sha256(frame).hexdigest()
                self.frames[digest(frame)] = sha256
                box = ObjectDetection("burr", 10.5, 20.25, 4.0, 2.0, 0.75)
                images = [Image(frame, label="top", object_detections=[box])]
                sent["images"] = [
                    {
                        "sourceId": sha256,
                        "label": "top",
                        "objectDetections": [
                            {
                                "class": "burr",
                                "x": 10.5,
                                "y": 20.25,
                                "width": 4.0,
                                "height": 2.0,
                                "confidence": 0.75,
                            }
                        ],
                    }
                ]
            # Ids decide whom a fault of a share of them strikes: the same ones on every run.
            event_id = uuid.UUID(int=random.Random(len(self.appended)).getrandbits(128), version=4)
            receipt = self.log.append(
                Event.custom(
                    event_id=str(event_id),
                    value=sent["eventData"]["value"],
                    use_case_id=USE_CASE,
                    timestamp=at,
                    device_id="camera-7",
                    images=images,
                    metadata=sent["customMetadata"],
                )
            )
            self.appended[receipt.event_id] = {"eventId": receipt.event_id, **sent}

    def flush(
        self, *, api_url: str | None = None, timeouts: Timeouts = TIMEOUTS, **limits: Any
    ) -> FlushReport:
        url = self.emulator.url if api_url is None else api_url
        with Client(KEY, api_url=url, timeouts=timeouts) as client:
            flusher = Flusher(self.log, client, retry=RETRY, time=self.clock.time())
            return flusher.flush(**limits)


# As EmulatorConfig has them; tests change them in mid-run.
SETTINGS: dict[str, Any] = {
    "api_keys": [KEY],
    "batch_count_max": 100,
    "json_size_max": 10_000_000,
    "image_size_max": 20_000_000,
    "rate_limit_per_s": None,
    "require_known_images": False,
}


@pytest.fixture(scope="module")
def shared() -> Iterator[RunningEmulator]:
    config = EmulatorConfig(
        database=":memory:", use_cases=[USE_CASE], strict_fields=True, **SETTINGS
    )
    with RunningEmulator(config) as emulator:
        yield emulator


@pytest.fixture
def site(tmp_path: Path, shared: RunningEmulator, request: pytest.FixtureRequest) -> Iterator[Site]:
    """Parametrized, with a ring of that many bytes for frames."""
    shared.faults.clear()
    shared.change(**SETTINGS)
    shared.clear()
    media_size = getattr(request, "param", 4 << 20)
    with EventLog(
        tmp_path / "log", events_size=1 << 20, media_size=media_size, delivery_size=1 << 20
    ) as log:
        yield Site(log, shared, faults_before=sum(shared.faults.injected.values()))


# --- the oracle ---------------------------------------------------------------------------------


def assert_all_is_where_it_belongs(site: Site) -> None:
    """Every event once: at the server as it was appended, or set aside with its reason."""
    for stream in ("events", "media"):
        stats = site.log.stats(stream)  # type: ignore[arg-type]
        assert stats.conserved, stream
        assert (stats.pending, stats.lost, stats.evicted) == (0, 0, 0), stream
    delivered = {record.event_id for record in site.log.read(states=("delivered",))}
    rejected = {record.event_id for record in site.log.read(states=("rejected",))}
    assert delivered | rejected == site.appended.keys()
    notes = [note for _, note in site.log.notes()]
    assert {note["eventId"] for note in notes if note["kind"] == "rejected"} == rejected

    rows = site.emulator.events()
    assert len(rows) == len({row["event"]["eventId"] for row in rows})
    stored = {row["event"]["eventId"]: row["event"] for row in rows}
    assert stored.keys() >= delivered
    digest_of = {row["source_id"]: row["sha256"] for row in site.emulator.images()}
    # What was refused may have been taken later.
    last = {note["digest"]: note["kind"] for note in notes if "digest" in note}
    refused = {site.frames[name] for name, kind in last.items() if kind == "image-rejected"}
    for event_id in delivered:
        arrived, sent = dict(stored[event_id]), dict(site.appended[event_id])
        images = [dict(image) for image in arrived.get("images", ())]
        for image in images:
            if "sourceId" in image:
                image["sourceId"] = digest_of[image["sourceId"]]
        if images:
            arrived["images"] = images
        # An event whose frame was refused goes without it and says so.
        expected = [dict(image) for image in sent.get("images", ())]
        without = [image for image in expected if image["sourceId"] in refused]
        for image in without:
            del image["sourceId"]
        if expected:
            sent["images"] = expected
        if without:
            sent["customMetadata"] = sent["customMetadata"] | {
                "vevents_frames_missing": len(without),
                "vevents_frames_missing_reason": "refused",
            }
        arrived["timestamp"] = datetime.fromisoformat(arrived["timestamp"])
        sent["timestamp"] = datetime.fromisoformat(sent["timestamp"])
        assert arrived == sent
    # The server's figures. What was sent twice was sent twice the same.
    counts = site.emulator.counts()
    assert counts["events"] == len(stored)
    assert counts["overwrites_changed"] == 0
    assert counts["images_missing"] == 0
    plan = site.emulator.faults
    # An upload is repeated only where its answer went wrong.
    assert counts["images_duplicate"] <= sum(plan.injected.values()) - site.faults_before


def lift_and_pass_again(site: Site, passes_max: int = 1) -> None:
    """Let everything go well, and pass until all is handed over."""
    site.emulator.faults.clear()
    for _ in range(passes_max):
        report = site.flush()
        if report.stopped_reason is None:
            break
    assert report.stopped_reason is None, report.message
    assert report.pending_after == 0


# --- every fault that has a name -----------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a pass may say of itself while requests meet a fault.

    Attributes:
        stops: Reasons to end, any of them; None is a complete pass.
        delivered_min: Events that get through at least.
        rejected: Events that are set aside.
        images_rejected: Frames that are set aside.
        requests_max: A server in trouble is not flooded.
        times: So many requests meet the fault; None for all.
        path: Only requests to this path do.
        slept_s_min: The pass waits so long at least.
        timeouts: Of the client.
        retry_after_s: From and to: what the server asked for, passed on in the report.
    """

    stops: tuple[StopReason | None, ...]
    delivered_min: int = 0
    rejected: int = 0
    images_rejected: int = 0
    requests_max: int = 40
    times: int | None = None
    path: str = API
    slept_s_min: float = 0.0
    timeouts: Timeouts = TIMEOUTS
    retry_after_s: tuple[float, float] | None = None


GOES_THROUGH = Outcome(stops=(None,), delivered_min=EVENT_COUNT, requests_max=8)
# Repeated, halved, passed over; in the end the pass gives up.
KEEPS_FAILING = Outcome(stops=(StopReason.SERVER, StopReason.OFFLINE), slept_s_min=0.5)
# A few uploads may be on their way when the first answer comes.
AT_ONCE = Outcome(stops=(StopReason.OFFLINE,), requests_max=6)
KEY_REFUSED = replace(AT_ONCE, stops=(StopReason.UNAUTHORIZED,))
SLOW_DOWN = Outcome(stops=(StopReason.THROTTLED,), requests_max=12)
# Only the first requests: each costs a read timeout. The pass goes on behind what is passed over.
STALLS = replace(
    KEEPS_FAILING, times=4, stops=(StopReason.SERVER,), delivered_min=1, timeouts=IMPATIENT
)
REFUSES_ALL = Outcome(stops=(None,), rejected=EVENT_COUNT)
# Says nothing of the events, and hits them all: something else is the matter.
NOT_BELIEVED = Outcome(stops=(StopReason.SERVER,))

OUTCOMES = {
    "server-error": KEEPS_FAILING,
    "server-error-stored": KEEPS_FAILING,
    "bad-gateway": KEEPS_FAILING,
    "unavailable": replace(KEEPS_FAILING, slept_s_min=2.0),
    "unavailable-until": replace(KEEPS_FAILING, slept_s_min=2.0),
    "unavailable-for-years": Outcome(
        stops=(StopReason.SERVER,), requests_max=6, retry_after_s=(1e10, 1e11)
    ),
    "gateway-timeout": KEEPS_FAILING,
    "request-timeout": KEEPS_FAILING,
    "throttled": replace(SLOW_DOWN, slept_s_min=1.0, retry_after_s=(1.0, 1.0)),
    "throttled-silent": SLOW_DOWN,
    "throttled-until": replace(SLOW_DOWN, slept_s_min=1.0, retry_after_s=(0.5, 2.0)),
    "throttled-for-years": replace(SLOW_DOWN, requests_max=6, retry_after_s=(1e10, 1e11)),
    "throttled-negative": SLOW_DOWN,
    "throttled-in-the-past": SLOW_DOWN,
    "throttled-garbage": SLOW_DOWN,
    "overloaded": replace(SLOW_DOWN, slept_s_min=1.0, retry_after_s=(1.0, 1.0)),
    "unauthorized": KEY_REFUSED,
    "payment-required": KEY_REFUSED,
    "forbidden": KEY_REFUSED,
    "locked": KEY_REFUSED,
    "not-found": AT_ONCE,
    "not-found-page": AT_ONCE,
    "conflict": NOT_BELIEVED,
    "too-large": NOT_BELIEVED,
    "too-large-page": NOT_BELIEVED,
    "refused": REFUSES_ALL,
    "refused-unnamed": REFUSES_ALL,
    "events-partly": Outcome(stops=(StopReason.SERVER,), delivered_min=1),
    "events-unnamed": Outcome(stops=(StopReason.SERVER,), delivered_min=1),
    # Given up soon: each repetition would leave another image behind.
    "image-unnamed": Outcome(
        stops=(StopReason.SERVER,), delivered_min=EVENT_COUNT - FRAME_COUNT, requests_max=8
    ),
    "dropped": KEEPS_FAILING,
    "answer-lost": KEEPS_FAILING,
    "request-reset": KEEPS_FAILING,
    "request-closed": KEEPS_FAILING,
    "request-stalled": STALLS,
    "answer-reset": KEEPS_FAILING,
    "answer-closed": KEEPS_FAILING,
    "answer-stalled": STALLS,
    "no-answer": STALLS,
    "no-answer-stored": STALLS,
    "slow-request": GOES_THROUGH,
    "slow-answer": replace(GOES_THROUGH, times=2),
    "late": GOES_THROUGH,
    "empty-200": AT_ONCE,
    "empty-201": KEEPS_FAILING,
    "no-content": AT_ONCE,
    "half-json": KEEPS_FAILING,
    "answer-without-ids": KEEPS_FAILING,
    "length-too-long": KEEPS_FAILING,
    "length-too-short": KEEPS_FAILING,
    "wrong-type": AT_ONCE,
    "wrong-charset": GOES_THROUGH,
    "utf-16": GOES_THROUGH,
    "gzipped": GOES_THROUGH,
    "gzip-announced": AT_ONCE,
    "huge": AT_ONCE,
    "http-1.0": GOES_THROUGH,
    "early-hints": GOES_THROUGH,
    "switching-protocols": KEEPS_FAILING,
    "redirect": AT_ONCE,
    "captive-portal": AT_ONCE,
    "captive-portal-511": AT_ONCE,
    "another-api": AT_ONCE,
    "proxy-login": AT_ONCE,
    "date-ahead": GOES_THROUGH,
    "date-behind": GOES_THROUGH,
    "date-garbage": GOES_THROUGH,
}
# What nobody can see; these have tests of their own.
LIES = {"events-lost", "image-lost"}


def test_every_fault_with_a_name_is_tried() -> None:
    assert OUTCOMES.keys() | LIES == CATALOGUE.keys()


@pytest.mark.parametrize("name", OUTCOMES)
def test_what_a_pass_makes_of(name: str, site: Site) -> None:
    expected, plan = OUTCOMES[name], site.emulator.faults
    met_before = plan.injected.get(name, 0)
    site.append()
    if expected.times is None:
        plan.at_random(1.0, CATALOGUE[name], path=expected.path)
    else:
        plan.script(expected.path, *[CATALOGUE[name]] * expected.times)

    report = site.flush(timeouts=expected.timeouts)

    assert plan.injected[name] > met_before
    assert report.stopped_reason in expected.stops, report.message
    assert report.delivered >= expected.delivered_min
    assert (report.rejected, report.images_rejected) == (
        expected.rejected,
        expected.images_rejected,
    )
    assert report.delivered + report.rejected + report.pending_after == EVENT_COUNT
    assert report.requests <= expected.requests_max
    assert site.clock.slept_s >= expected.slept_s_min
    if expected.retry_after_s is not None:
        low, high = expected.retry_after_s
        assert report.retry_after_s is not None
        assert low <= report.retry_after_s <= high
    lift_and_pass_again(site)
    assert_all_is_where_it_belongs(site)


@pytest.mark.parametrize(
    ("value", "waits_s"),
    [
        ("7", (7.0, 8.0)),
        ("1.5", (1.5, 2.5)),
        ("{date+9}", (6.0, 10.0)),
        ("0", (0.0, 1.0)),
        ("-1", (0.0, 1.0)),
        ("{date-999999999}", (0.0, 1.0)),
        ("31", None),
        ("1e9", None),
        ("{date+999999999999}", None),
        ("", (0.0, 1.0)),
        ("nan", (0.0, 1.0)),
        ("inf", (0.0, 1.0)),
        ("1e999", (0.0, 1.0)),
        ("9" * 500, (0.0, 1.0)),
        ("Sun, 99 Foo 2026 99:99:99 GMT", (0.0, 1.0)),
        ("1, 2", (0.0, 1.0)),
    ],
)
def test_how_long_a_pass_waits_for_a_server_that_asks(
    site: Site, value: str, waits_s: tuple[float, float] | None
) -> None:
    for status in (429, 503, 529):
        site.append(4, frames=0)
        site.clock = FastTime()
        site.emulator.faults.script(BATCH, Fault(status=status, headers={"Retry-After": value}))

        report = site.flush()

        if waits_s is not None:
            assert (report.stopped_reason, report.requests) == (None, 2)
            assert waits_s[0] <= site.clock.slept_s <= waits_s[1]
            continue
        # Longer than it may wait: it leaves, and says how long to stay away.
        assert report.stopped_reason in (StopReason.THROTTLED, StopReason.SERVER)
        assert (report.requests, site.clock.slept_s) == (1, 0.0)
        assert (report.retry_after_s or 0.0) > RETRY.wait_s_max
        lift_and_pass_again(site)
    assert_all_is_where_it_belongs(site)


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"null",
        b"7",
        b"{}",
        b'{"eventIds": null, "eventId": null, "sourceId": null}',
        b'{"eventIds": {}, "eventId": {}, "sourceId": {}}',
        b'{"eventIds": [1, null, {}, []], "eventId": 1, "sourceId": 1}',
        b'{"eventIds": ["x"], "eventId": "x", "sourceId": ""}',
        b'{"eventIds": [], "eventId": "", "sourceId": ""}',
        b'{"eventIds": NaN, "eventId": NaN, "sourceId": NaN}',
        b"[" * 100_000,
        b"\xff\xfe\xfd",
        b"\0" * 1_000,
        b'{"error": "all is well"}',
    ],
    ids=lambda body: repr(body[:30]),
)
def test_an_answer_of_201_that_makes_no_sense(site: Site, body: bytes) -> None:
    site.append()
    headers = {"Content-Type": "application/json"}
    site.emulator.faults.at_random(1.0, Fault(status=201, headers=headers, body=body))

    report = site.flush()

    assert report.stopped_reason in (StopReason.SERVER, StopReason.OFFLINE)
    assert (report.delivered, report.rejected, report.images_delivered) == (0, 0, 0)
    lift_and_pass_again(site)
    assert_all_is_where_it_belongs(site)


def test_an_event_that_the_server_claims_and_loses_cannot_be_seen_from_here(site: Site) -> None:
    site.append()
    site.emulator.faults.at_random(1.0, CATALOGUE["events-lost"])

    report = site.flush()

    lost = EVENT_COUNT - len(site.emulator.events())
    assert 0 < lost < EVENT_COUNT
    assert (report.stopped_reason, report.delivered) == (None, EVENT_COUNT)
    assert site.log.stats().conserved


def test_an_image_that_the_server_claims_and_loses_costs_no_event(site: Site) -> None:
    site.append()
    site.emulator.faults.at_random(1.0, CATALOGUE["image-lost"])

    report = site.flush()

    assert (report.stopped_reason, report.delivered) == (None, EVENT_COUNT)
    assert len(site.emulator.events()) == EVENT_COUNT
    assert site.emulator.counts()["images_missing"] == FRAME_COUNT


def test_an_event_outlives_an_image_that_the_server_forgets_at_once(site: Site) -> None:
    site.append()
    site.emulator.change(require_known_images=True)
    site.emulator.faults.at_random(1.0, CATALOGUE["image-lost"])

    report = site.flush()

    assert (report.stopped_reason, report.delivered) == (None, EVENT_COUNT)
    assert (report.images_delivered, report.images_missing) == (2 * FRAME_COUNT, FRAME_COUNT)
    stored = [row["event"] for row in site.emulator.events()]
    reasons = [event["customMetadata"].get("vevents_frames_missing_reason") for event in stored]
    assert Counter(reasons) == {None: EVENT_COUNT - FRAME_COUNT, "unknown to the server": 3}
    assert site.log.stats().conserved
    assert site.log.stats("media").conserved


def test_an_image_that_the_server_forgot_is_uploaded_again(site: Site) -> None:
    # The id of an upload is kept for as long as the log keeps its note; nobody says how long the
    # server does.
    site.append()
    site.emulator.change(require_known_images=True)
    site.emulator.faults.at_random(1.0, CATALOGUE["server-error"], path=BATCH)
    site.emulator.faults.at_random(1.0, CATALOGUE["server-error"], path="/vision-events")
    assert site.flush().images_delivered == FRAME_COUNT
    site.emulator.clear()
    site.emulator.faults.clear()

    report = site.flush()

    assert (report.stopped_reason, report.delivered) == (None, EVENT_COUNT)
    assert (report.images_delivered, report.images_missing) == (FRAME_COUNT, 0)
    notes = [note["kind"] for _, note in site.log.notes()]
    assert notes.count("upload-forgotten") == FRAME_COUNT
    assert_all_is_where_it_belongs(site)


# --- some of the events --------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", ["refused", "refused-unnamed"])
@pytest.mark.parametrize(
    ("which", "values"),
    [
        (Which(field="eventData.value", value="event 60, Straße"), {60}),
        (Which(field="customMetadata.line", value=0), set(range(0, 100, 3))),
        (Which(event_type="safety_alert"), set()),
        (Which(share=0.05, seed=3), None),
    ],
)
def test_bad_events_are_found_in_their_batch(
    site: Site, outcome: Any, which: Which, values: set[int] | None
) -> None:
    site.append(100, frames=0)
    site.emulator.faults.at_random(1.0, Fault(events=Events(outcome=outcome, which=which)))

    report = site.flush()

    bad = {event_id for event_id, event in site.appended.items() if which.matches(event)}
    if values is not None:
        texts = {f"event {number}, Straße" for number in values}
        assert {site.appended[each]["eventData"]["value"] for each in bad} == texts
    assert (report.stopped_reason, report.rejected) == (None, len(bad))
    assert report.delivered == 100 - len(bad)
    # Halving: every bad event costs at most two requests on each of seven levels.
    assert report.requests <= 1 + 14 * len(bad)
    assert {record.event_id for record in site.log.read(states=("rejected",))} == bad
    assert_all_is_where_it_belongs(site)


def test_all_of_them_bad_is_not_believed_at_once(site: Site) -> None:
    site.append(100, frames=0)
    site.emulator.faults.at_random(1.0, Fault(events=Events(outcome="refused", which=Which())))

    report = site.flush()

    assert (report.stopped_reason, report.rejected) == (StopReason.SERVER, 20)
    assert report.pending_after == 80
    site.emulator.faults.clear()
    assert site.flush().delivered == 80
    assert_all_is_where_it_belongs(site)


@pytest.mark.parametrize("outcome", ["partly", "unnamed"])
def test_events_that_an_answer_does_not_name_go_again(site: Site, outcome: Any) -> None:
    site.append(40)
    fault = Fault(events=Events(outcome=outcome, which=Which(share=0.5, seed=1)))
    site.emulator.faults.script(BATCH, fault)

    report = site.flush()

    assert (report.stopped_reason, report.delivered) == (None, 40)
    assert_all_is_where_it_belongs(site)


# --- limits that the server does not document ----------------------------------------------------


def test_a_server_that_takes_smaller_batches(site: Site) -> None:
    site.append(90)
    site.emulator.change(batch_count_max=7)

    assert site.flush().stopped_reason is None

    assert site.log.stats().delivered == 90
    assert_all_is_where_it_belongs(site)


def test_a_server_that_takes_smaller_bodies(site: Site) -> None:
    site.append(90)
    site.emulator.change(json_size_max=4_000)

    assert site.flush().stopped_reason is None

    assert site.log.stats().delivered == 90
    assert site.emulator.counts()["refused"]["413"] > 0
    assert_all_is_where_it_belongs(site)


def test_a_server_that_takes_smaller_images(site: Site) -> None:
    site.append(size=30_000)
    site.append(size=3_000)
    site.emulator.change(image_size_max=10_000)

    report = site.flush()

    assert (report.delivered, report.images_rejected) == (2 * EVENT_COUNT, FRAME_COUNT)
    assert_all_is_where_it_belongs(site)


def test_a_server_with_a_rate_limit(site: Site) -> None:
    site.append()
    site.emulator.change(rate_limit_per_s=40.0, rate_limit_burst=2)
    reasons = []
    for _ in range(100):
        reasons.append(site.flush().stopped_reason)
        if reasons[-1] is None:
            break

    assert set(reasons) <= {None, StopReason.THROTTLED}
    assert reasons[-1] is None
    assert site.emulator.counts()["refused"].keys() == {"429"}
    assert_all_is_where_it_belongs(site)


@pytest.mark.parametrize("scopes", [None, []], ids=["revoked", "without scopes"])
def test_a_key_that_is_revoked_in_mid_run(site: Site, scopes: list[str] | None) -> None:
    site.append()
    revoked = [ApiKey("another-key")] if scopes is None else [ApiKey(KEY, scopes)]

    def revoke(progress: FlushProgress) -> None:
        if progress.images_delivered:
            site.emulator.change(api_keys=revoked)

    report = site.flush(progress=revoke)

    assert report.stopped_reason is StopReason.UNAUTHORIZED
    assert KEY not in str(report.message)
    assert report.rejected == 0
    site.emulator.change(api_keys=[KEY])
    lift_and_pass_again(site)
    assert_all_is_where_it_belongs(site)


@pytest.mark.parametrize("name", ["unauthorized", "captive-portal", "dropped", "throttled"])
def test_all_is_well_until_a_moment(site: Site, name: str) -> None:
    site.append()
    site.emulator.faults.at_random(1.0, CATALOGUE[name], after=2)

    assert site.flush().stopped_reason is not None

    assert site.emulator.counts()["images"] + site.emulator.counts()["posts"] == 2
    lift_and_pass_again(site)
    assert_all_is_where_it_belongs(site)


# --- never blocks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("site", [128 << 20], indirect=True, ids=["large frames"])
@pytest.mark.parametrize("then", ["stall", "reset", "close"])
def test_a_large_image_that_is_cut_on_its_way(site: Site, then: Any) -> None:
    # Larger than the buffers between the two sides: the client is stopped while it writes.
    site.append(count=2, frames=1, size=6_000_000)
    fault = Fault(request=Flow(stop_at=0.1, then=then))
    site.emulator.faults.script(UPLOAD, *[fault] * 2)

    report = site.flush(timeouts=IMPATIENT)

    assert (report.stopped_reason, report.delivered) == (StopReason.SERVER, 1)
    lift_and_pass_again(site)
    assert_all_is_where_it_belongs(site)


def test_events_are_appended_while_a_pass_hangs(site: Site) -> None:
    site.append()
    site.emulator.faults.script(API, CATALOGUE["no-answer"])
    report: list[FlushReport] = []
    passing = threading.Thread(target=lambda: report.append(site.flush(timeouts=IMPATIENT)))
    passing.start()
    while site.emulator.faults.pending:
        time.sleep(0.001)

    site.append(50)

    assert not report
    passing.join()
    lift_and_pass_again(site)
    assert site.log.stats().delivered == EVENT_COUNT + 50
    assert_all_is_where_it_belongs(site)


def test_an_answer_that_trickles_is_given_up(site: Site) -> None:
    # A byte each second: every read ends well within its timeout, and the answer takes minutes.
    site.append(count=1, frames=0)
    site.emulator.faults.at_random(1.0, Fault(answer=Flow(bytes_per_s=1)))
    reports: list[FlushReport] = []
    passing = threading.Thread(target=lambda: reports.append(site.flush(timeout_s=0.2)))
    passing.start()
    try:
        passing.join(20.0)
        assert not passing.is_alive()
    finally:
        site.emulator.faults.clear()
        passing.join()

    assert [report.stopped_reason for report in reports] == [StopReason.TIMEOUT]
    assert "was not over after" in str(reports[0].message)
    lift_and_pass_again(site)
    assert_all_is_where_it_belongs(site)


def test_an_answer_that_trickles_counts_as_none(site: Site) -> None:
    site.append(frames=0)
    site.emulator.faults.script(BATCH, Fault(answer=Flow(bytes_per_s=20)))

    report = site.flush(timeouts=replace(TIMEOUTS, request_s=0.1))

    # Repeated as any other request without an answer.
    assert (report.stopped_reason, report.retries) == (None, 1)
    assert_all_is_where_it_belongs(site)


# --- no server at all -----------------------------------------------------------------------------


def assert_nothing_happened(site: Site, report: FlushReport) -> None:
    assert report.stopped_reason is StopReason.OFFLINE
    assert (report.delivered, report.rejected, report.passed_over) == (0, 0, 0)
    assert report.requests <= 6
    assert report.pending_after == EVENT_COUNT
    assert site.clock.slept_s == 0.0
    lift_and_pass_again(site)
    assert_all_is_where_it_belongs(site)


@pytest.mark.parametrize("error", [socket.EAI_NONAME, socket.EAI_AGAIN, socket.EAI_FAIL])
def test_a_name_that_does_not_resolve(
    site: Site, error: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.append()

    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(error, "no such name")

    with monkeypatch.context() as patched:
        patched.setattr(socket, "getaddrinfo", fail)
        report = site.flush(api_url="https://api.roboflow.invalid")

    assert "no such name" in str(report.message)
    assert_nothing_happened(site, report)


def test_a_connection_that_is_refused(site: Site) -> None:
    site.append()
    with socket.socket() as bound:
        # Bound and not listening.
        bound.bind(("127.0.0.1", 0))

        report = site.flush(api_url=f"http://127.0.0.1:{bound.getsockname()[1]}")

    assert_nothing_happened(site, report)


def test_a_black_hole(site: Site) -> None:
    # A queue that is full: the system drops what knocks, as a firewall does.
    site.append()
    with socket.socket() as hole, contextlib.ExitStack() as stack:
        hole.bind(("127.0.0.1", 0))
        hole.listen(0)
        for _ in range(4):
            knocking = stack.enter_context(socket.socket())
            knocking.setblocking(False)
            knocking.connect_ex(hole.getsockname())

        report = site.flush(
            api_url=f"http://127.0.0.1:{hole.getsockname()[1]}",
            timeouts=replace(TIMEOUTS, connect_s=0.2),
        )

    assert_nothing_happened(site, report)


def test_an_open_port_behind_which_nobody_is(site: Site) -> None:
    site.append()
    with socket.create_server(("127.0.0.1", 0)) as mute:
        report = site.flush(
            api_url=f"http://127.0.0.1:{mute.getsockname()[1]}",
            timeouts=replace(TIMEOUTS, read_s=0.02),
        )

    assert report.stopped_reason in (StopReason.OFFLINE, StopReason.SERVER)
    assert (report.delivered, report.rejected, report.pending_after) == (0, 0, EVENT_COUNT)
    lift_and_pass_again(site)
    assert_all_is_where_it_belongs(site)


# --- TLS ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def self_signed(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    directory = tmp_path_factory.mktemp("tls")
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    issued = trustme.CA().issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(str(key))
    for blob in issued.cert_chain_pems:
        blob.write_to_path(str(certificate), append=True)
    return TlsFiles(certificate, key)


def test_a_certificate_that_nobody_vouches_for(site: Site, self_signed: TlsFiles) -> None:
    site.append()
    with RunningEmulator(tls=self_signed) as impostor:
        report = site.flush(api_url=impostor.url)
        assert impostor.counts()["refused"] == {}

    assert "certificate" in str(report.message)
    assert_nothing_happened(site, report)


def test_https_spoken_where_http_is(site: Site) -> None:
    site.append()

    report = site.flush(api_url=site.emulator.url.replace("http:", "https:"))

    assert_nothing_happened(site, report)


def test_http_spoken_where_https_is(site: Site, self_signed: TlsFiles) -> None:
    site.append()
    with RunningEmulator(tls=self_signed) as secured:
        report = site.flush(api_url=secured.url.replace("https:", "http:"))

    assert report.stopped_reason in (StopReason.OFFLINE, StopReason.SERVER)
    assert (report.delivered, report.rejected, report.pending_after) == (0, 0, EVENT_COUNT)
    lift_and_pass_again(site)
    assert_all_is_where_it_belongs(site)


# --- everything at once ---------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(30))
def test_chaos(site: Site, seed: int) -> None:
    site.append(20, frames=4)
    site.emulator.faults.chaos = Chaos(seed, "high")
    site.clock = FastTime(seed)
    reasons: Counter[StopReason | None] = Counter()
    for _ in range(50):
        report = site.flush(timeouts=IMPATIENT)
        reasons[report.stopped_reason] += 1
        assert site.log.stats().conserved
        assert site.log.stats("media").conserved
        if report.stopped_reason is None:
            break

    told = f"chaos {site.emulator.faults.chaos}: {site.emulator.faults.history}"
    assert reasons[None] == 1, told
    assert report.rejected == 0, told
    assert site.log.stats().delivered == 20, told
    assert_all_is_where_it_belongs(site)
