"""The flusher with several uploads at once: the same promises, whatever the threads do."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from fake_log import ProcessDiedError, Tripwire
from flush_site import BATCH, UPLOAD, Site, at, jpeg, on, refuse

from vevents.delivery.sender import RetryPolicy, StopReason
from vevents.errors import LogDegradedError
from vevents.event import FrameRef

FOUR = {"uploads": 4}
WAIT_S = 20.0


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


class Crowd:
    """Counts the uploads under way, and holds each until `company` of them are there."""

    def __init__(self, company: int, path: str = UPLOAD) -> None:
        self.company = company
        self.path = path
        self.most = 0
        self._there = 0
        self._changed = threading.Condition()

    def __call__(self, request: httpx.Request) -> None:
        if request.url.path != self.path:
            return
        with self._changed:
            self._there += 1
            self.most = max(self.most, self._there)
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: self.most >= self.company, WAIT_S):
                raise AssertionError("nobody came")
            self._there -= 1


def test_images_go_side_by_side_and_events_stay_in_order(site: Site) -> None:
    for number in range(40):
        site.append(jpeg(str(number)))
        site.append()
    site.server.interfere = crowd = Crowd(2)

    report = site.flush(options=FOUR)

    assert (report.delivered, report.images_delivered) == (80, 40)
    assert 2 <= crowd.most <= 4
    assert [seq for batch in site.posted() for seq in batch] == list(range(1, 81))
    assert set(site.log.states("media")) == {"delivered"}


def test_a_late_image_holds_back_the_events_behind_it(site: Site) -> None:
    for name in "abc":
        site.append(jpeg(name))
    others_are_there = threading.Event()

    def first_comes_last(request: httpx.Request) -> None:
        if request.url.path == UPLOAD and jpeg("a") in request.content:
            assert others_are_there.wait(WAIT_S)
        elif request.url.path == UPLOAD and jpeg("c") in request.content:
            others_are_there.set()

    site.server.interfere = first_comes_last

    site.flush(options=FOUR)

    assert list(site.server.images.values())[-1] == jpeg("a")
    assert site.posted() == [[1, 2, 3]]


def test_the_same_frame_is_never_uploaded_twice(site: Site) -> None:
    site.log.stores_copies = True
    for number in range(60):
        site.append(jpeg(str(number % 3)), jpeg(str(number % 2)))
    site.server.interfere = Crowd(2)

    report = site.flush(options=FOUR)

    assert Counter(site.server.images.values()) == Counter(jpeg(str(number)) for number in range(3))
    assert (report.delivered, report.images_delivered) == (60, 3)
    assert set(site.log.states("media")) == {"delivered"}


def test_no_more_frames_are_held_than_there_are_uploads(site: Site) -> None:
    for number in range(60):
        site.append(jpeg(str(number)))
    held: set[int] = set()
    most = 0
    lock = threading.Lock()
    read = site.log.frame
    mark = site.log.mark

    def frame(ref: FrameRef) -> bytes | None:
        nonlocal most
        with lock:
            held.add(ref.seq)
            most = max(most, len(held))
        return read(ref)

    def marked(seqs: Any, state: str, stream: str = "events") -> int:
        if stream == "media":
            with lock:
                held.difference_update(seqs)
        return mark(seqs, state, stream)

    site.log.frame = frame  # type: ignore[method-assign]
    site.log.mark = marked  # type: ignore[method-assign]
    site.server.interfere = Crowd(2)

    assert site.flush(options=FOUR).images_delivered == 60
    assert 2 <= most <= 4


def test_a_copy_stands_in_for_one_that_was_evicted(site: Site) -> None:
    site.log.stores_copies = True
    site.append(jpeg("a"))
    second = site.append(jpeg("a"))
    site.log.evict("media", 1)
    began = threading.Event()
    read = site.log.frame

    def frame(ref: FrameRef) -> bytes | None:
        # The second event is in the line before the first one's frame is found to be gone.
        assert ref.seq == 2 or began.wait(WAIT_S)
        return read(ref)

    decode = site.log.decode

    def decoded(record: Any) -> Any:
        if record.seq == second.seq:
            began.set()
        return decode(record)

    site.log.frame = frame  # type: ignore[method-assign]
    site.log.decode = decoded  # type: ignore[method-assign]

    report = site.flush(options=FOUR)

    assert (report.delivered, report.images_missing, report.images_delivered) == (2, 1, 1)
    assert site.server.events[second.event_id]["images"] == [{"sourceId": "ve-img-1"}]


def test_throttling_of_one_holds_up_all(site: Site) -> None:
    for number in range(30):
        site.append(jpeg(str(number)))
    told: list[float] = []
    begun_while_told: list[float] = []

    def interfere(request: httpx.Request) -> httpx.Response | None:
        now_s = site.time.now_s
        if told and now_s < told[0] + 30.0:
            begun_while_told.append(now_s)
        if request.url.path == UPLOAD and len(site.server.images) == 10 and not told:
            told.append(now_s)
            return httpx.Response(429, headers={"Retry-After": "30"})
        return None

    site.server.interfere = interfere

    report = site.flush(options=FOUR)

    assert (report.delivered, report.images_delivered) == (30, 30)
    # Those that were under way at that moment are all that the server saw before its time.
    assert len(begun_while_told) <= 3


def test_a_failing_image_holds_up_its_event_only(site: Site) -> None:
    for name in ("good 1", "slow", "good 2", "good 3"):
        site.append(jpeg(name))
    site.server.interfere = lambda request: (
        httpx.Response(500) if jpeg("slow") in request.content else None
    )

    report = site.flush(options=FOUR, retry=RetryPolicy(attempts=2))

    assert site.log.states() == ["delivered", "pending", "delivered", "delivered"]
    assert (report.passed_over, report.stopped_reason) == (1, StopReason.SERVER)


def test_offline_ends_the_pass_and_keeps_what_was_achieved(site: Site) -> None:
    for number in range(50):
        site.append(jpeg(str(number)))

    def interfere(_: httpx.Request) -> None:
        if len(site.server.images) >= 10:
            raise httpx.ConnectError("gone")

    site.server.interfere = interfere

    report = site.flush(options=FOUR)

    assert report.offline
    assert report.images_delivered == len(site.server.images) == 10
    assert len(site.log.notes_of("upload")) == 10
    assert report.requests <= 10 + 4
    site.server.interfere = lambda _: None
    assert site.flush(options=FOUR).delivered == 50
    assert len(site.server.images) == 50


def test_stop_waits_for_the_uploads_under_way_and_notes_them(site: Site) -> None:
    for number in range(50):
        site.append(jpeg(str(number)))
    site.server.interfere = Crowd(2)

    report = site.flush(options=FOUR, should_stop=lambda: len(site.server.images) >= 2)

    assert report.stopped_reason is StopReason.INTERRUPTED
    assert 2 <= len(site.server.images) <= 2 + 4
    assert len(site.log.notes_of("upload")) == len(site.server.images)
    assert site.log.states("media").count("delivered") == len(site.server.images)
    site.server.interfere = lambda _: None
    site.flush(options=FOUR)
    assert sorted(site.server.images.values()) == sorted(jpeg(str(number)) for number in range(50))


def test_limit_of_bytes_holds_for_all_threads_together(site: Site) -> None:
    for number in range(40):
        site.append(jpeg(str(number), 1_000))

    passes = 0
    while site.log.stats().pending:
        report = site.flush(options=FOUR, max_bytes=6_500)
        assert report.bytes_sent <= 6_500
        assert report.delivered > 0
        passes += 1

    assert 40 * 1_000 / 6_500 < passes <= 14
    assert len(site.server.images) == 40


def test_limit_of_events(site: Site) -> None:
    for number in range(40):
        site.append(jpeg(str(number)))

    report = site.flush(options=FOUR, max_events=25)

    assert (report.delivered, report.images_delivered) == (25, 25)
    assert report.stopped_reason is StopReason.MAX_EVENTS


def test_log_that_fails_under_an_upload_ends_the_pass(site: Site) -> None:
    for number in range(10):
        site.append(jpeg(str(number)))

    def degraded(_: object) -> int:
        raise LogDegradedError("EIO")

    site.log.append_note = degraded  # type: ignore[method-assign, assignment]

    with pytest.raises(LogDegradedError):
        site.flush(options=FOUR)
    assert set(site.log.states() + site.log.states("media")) == {"pending"}


def test_an_impatient_ctrl_c_leaves_at_once_and_the_log_alone(site: Site) -> None:
    for number in range(10):
        site.append(jpeg(str(number)))
    go_on = threading.Event()
    begun = threading.Event()

    def hang(_: httpx.Request) -> None:
        begun.set()
        assert go_on.wait(WAIT_S)

    def interrupt() -> bool:
        if begun.is_set() and threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        return False

    site.server.interfere = hang
    before = set(threading.enumerate())

    with pytest.raises(KeyboardInterrupt):
        site.flush(options=FOUR, should_stop=interrupt)
    left = set(threading.enumerate()) - before
    assert left
    go_on.set()
    for thread in left:
        thread.join(WAIT_S)

    # As after a crash: the images are there, and nothing was written about them.
    assert site.log.written_notes == []
    assert set(site.log.states("media")) == {"pending"}
    site.server.interfere = lambda _: None
    assert site.flush(options=FOUR).delivered == 10


def test_no_thread_outlives_its_pass(site: Site) -> None:
    before = threading.active_count()
    for number in range(30):
        site.append(jpeg(str(number)))
    site.flush(options=FOUR)
    site.append_many(300)
    site.server.interfere = on(BATCH, None, httpx.ConnectError("gone"))
    site.flush(options=FOUR)

    assert threading.active_count() == before


def test_progress_is_told_by_the_thread_that_flushes(site: Site) -> None:
    for number in range(20):
        site.append(jpeg(str(number)))
    tellers: set[int] = set()
    append = site.steps.append
    site.steps = type("Steps", (list,), {})()
    site.steps.append = lambda step: (tellers.add(threading.get_ident()), append(step))  # type: ignore[method-assign, assignment]

    site.flush(options=FOUR)

    assert tellers == {threading.get_ident()}


def test_newer_event_with_the_id_of_one_that_waits_waits_too(site: Site) -> None:
    site.append(jpeg("slow"), event_id="evt-1", device_id="old")
    site.append(jpeg("quick"), event_id="evt-1", device_id="new")
    site.server.interfere = lambda request: (
        httpx.Response(500) if jpeg("slow") in request.content else None
    )

    report = site.flush(options=FOUR, retry=RetryPolicy(attempts=1))
    assert (report.delivered, report.passed_over) == (0, 2)
    site.server.interfere = lambda _: None
    site.flush(options=FOUR)

    assert site.server.events["evt-1"]["deviceId"] == "new"


@pytest.mark.parametrize("order", ["oldest", "newest", "priority"])
def test_equal_ids_keep_their_order_in_every_order(site: Site, order: str) -> None:
    for number in range(300):
        site.append(event_id=f"evt-{number % 40}", device_id=str(number))

    report = site.flush(options={"uploads": 4, "order": order})

    assert report.delivered == 300
    for number in range(260, 300):
        assert site.server.events[f"evt-{number % 40}"]["deviceId"] == str(number)


# --- a crash at every step ------------------------------------------------------------------


def fill(site: Site) -> None:
    """Shared frames, a bad event, a bad image, an orphan, one that is too old."""
    site.log.append_frame(jpeg("orphan"))
    site.time.now_s += 4_000
    for name in "abcdef":
        site.append(jpeg(name))
        site.append(jpeg(name), jpeg(name + "'"))
    site.append()
    site.append(jpeg("bad image"))
    site.append(jpeg("g"), timestamp=at(days=400))
    site.append()
    site.server.refuses = refuse("event 13")
    site.server.interfere = lambda request: (
        httpx.Response(415, json={"error": "not an image"})
        if b"bad image" in request.content and request.url.path == UPLOAD
        else None
    )


def test_a_crash_at_every_step_loses_nothing_and_repeats_little(tmp_path: Path) -> None:
    tripwire = Tripwire()
    site = Site(tmp_path, tripwire)
    fill(site)
    site.flush(options=FOUR)
    total = len(tripwire.steps)
    assert total > 100

    deaths = 0
    for die_at in range(1, total + 1):
        tripwire = Tripwire(die_at)
        site = Site(tmp_path, tripwire)
        fill(site)
        try:
            site.flush(options=FOUR)
        except ProcessDiedError:
            deaths += 1
        site.log.assert_conserved()
        noted = {note["media"] for note in site.log.notes_of("upload")}
        for record in site.log.streams["media"]:
            assert record.state != "delivered" or record.seq in noted
        for record in site.log.streams["events"]:
            assert record.state != "delivered" or record.event_id in site.server.events
        unknowable = len(site.server.images) - len(noted)
        assert unknowable <= 4

        tripwire.die_at = None
        site.flush(options=FOUR)

        expected = ["delivered"] * 12 + ["rejected", "delivered", "rejected", "delivered"]
        assert site.log.states() == expected, die_at
        assert site.log.stats("media").pending == 0
        uploads = list(site.server.images.values())
        assert len(set(uploads)) == 12
        # Requests under way when the process died may arrive later, and an event that is refused
        # may be so for an image that was uploaded before the crash.
        allowed = 4 + len(site.log.notes_of("upload-forgotten"))
        assert len(uploads) - len(set(uploads)) <= allowed, die_at
    assert deaths > total * 0.9


def test_posts_and_uploads_overlap(site: Site) -> None:
    for number in range(1, 151):
        site.append(jpeg(f"frame {number}"))
    begun, posting, uploaded_meanwhile = threading.Event(), threading.Event(), threading.Event()

    def interfere(request: httpx.Request) -> None:
        if jpeg("frame 101") in request.content:
            # It completes the first batch; by then another upload is under way.
            assert begun.wait(WAIT_S)
        elif jpeg("frame 103") in request.content:
            begun.set()
            assert posting.wait(WAIT_S)
            uploaded_meanwhile.set()
        elif request.url.path == BATCH and not posting.is_set():
            posting.set()
            assert uploaded_meanwhile.wait(WAIT_S)

    site.server.interfere = interfere

    assert site.flush(options=FOUR).delivered == 150


def test_frame_of_an_old_event_that_goes_for_another_stays_delivered(site: Site) -> None:
    site.append(jpeg("shared"), jpeg("slow"))
    site.append(jpeg("shared"), timestamp=at(days=400))
    shared_is_there, old_is_rejected = threading.Event(), threading.Event()
    mark = site.log.mark
    asked = iter([None])

    def wait_before_the_second(*_: object) -> bool:
        if threading.current_thread() is threading.main_thread() and next(asked, asked):
            assert shared_is_there.wait(WAIT_S)
        return False

    def marked(seqs: Any, state: str, stream: str = "events") -> int:
        changed = mark(seqs, state, stream)
        if (stream, state) == ("media", "delivered"):
            shared_is_there.set()
        if (stream, state) == ("events", "rejected"):
            old_is_rejected.set()
        return changed

    def gone(request: httpx.Request) -> None:
        if jpeg("slow") in request.content:
            assert old_is_rejected.wait(WAIT_S)
            raise httpx.ConnectError("gone")

    site.log.mark = marked  # type: ignore[method-assign]
    site.server.interfere = gone

    assert site.flush(options=FOUR, should_stop=wait_before_the_second).offline
    assert site.log.states() == ["pending", "rejected"]
    assert site.log.states("media") == ["delivered", "pending"]
