"""The loss report: what it says, when it is made, and that no crash counts a loss twice."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rejected_site import SIZE, USE_CASE, Site, jpeg, noise

from vevents import Event, EventLog
from vevents.codec import KIND_OF
from vevents.delivery import losses
from vevents.delivery.figures import details, split
from vevents.delivery.losses import append_loss_report, compose, figures
from vevents.delivery.notes import Notes
from vevents.errors import LogFullError
from vevents.event import METADATA_KEY_COUNT_MAX
from vevents.log import Receipt

DAY_S = 86_400.0
T0 = 1_790_000_000 * 10**9


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "log")
    yield site
    site.assert_conserved()
    site.log.close()


def report(site: Site, day: float = 0, **options: Any) -> Receipt | None:
    fields = {"period_s": DAY_S, "use_case_id": USE_CASE, "now_ns": T0 + int(day * DAY_S * 1e9)}
    return append_loss_report(site.log, Notes(site.log), **(fields | options))


def reports(site: Site) -> dict[str, Event]:
    """What the cloud would hold: of several with one id the last."""
    found = {}
    for record in site.log.read(states=("pending", "delivered", "rejected")):
        event = site.log.decode(record)
        if (event.data or {}).get("externalId") == losses.EXTERNAL_ID:
            found[event.event_id or ""] = event
    return found


def metadata(site: Site, receipt: Receipt | None) -> dict[str, Any]:
    assert receipt is not None
    return dict(reports(site)[receipt.event_id].metadata or {})


def evict(site: Site, count: int = 1) -> int:
    """Append until at least so many more events are evicted. Returns how many are by now.

    It can be more a moment later: the log makes room ahead of the next append.
    """
    goal = site.log.stats().evicted + count
    while site.log.stats().evicted < goal:
        site.append(noise(site.log.stats().last_seq))
    return site.log.stats().evicted


def test_nothing_lost_nothing_appended(site: Site) -> None:
    site.append("good")

    assert [report(site, day) for day in range(3)] == [None] * 3
    assert site.log.stats().appended == 1
    assert sum(note["kind"] == "loss-report" for _, note in site.log.notes()) == 1


def test_what_was_lost_since_the_last_report(site: Site) -> None:
    report(site)
    first = evict(site)
    told = metadata(site, report(site, day=1))
    assert told["events_evicted"] == told["events_evicted_custom"] >= first
    first = told["total_events_evicted"]
    assert told["events_evicted"] == first
    assert told["since"] == "2026-09-21T14:13:20.000000+00:00"
    assert told["until"] == "2026-09-22T14:13:20.000000+00:00"
    assert told["events_seq_from"] == 1
    assert told["events_seq_to"] == first
    assert told["vevents_report"] == "loss"
    assert not any(key.startswith("media") for key in told)

    second = evict(site)
    told = metadata(site, report(site, day=2))
    assert told["total_events_evicted"] >= second
    second = told["total_events_evicted"]
    assert told["events_evicted"] == second - first
    assert told["since"] == "2026-09-22T14:13:20.000000+00:00"
    assert told["events_seq_from"] > 1
    [event] = [e for e in reports(site).values() if e.metadata == told]
    assert (event.data or {})["value"] == (
        "Not delivered from 2026-09-22T14:13:20.000000+00:00 to 2026-09-23T14:13:20.000000+00:00: "
        f"{second - first} events evicted."
    )


def test_refusals_are_told_by_reason_and_type(site: Site) -> None:
    report(site)
    site.refused_images.add(jpeg("a"))
    site.append("bad", jpeg("a"))
    site.append("late", timestamp=datetime(2020, 1, 1, tzinfo=UTC))
    site.flush()

    told = metadata(site, report(site, day=1))

    assert told["events_rejected"] == 2
    assert told["media_rejected"] == told["media_rejected_refused_image"] == 1
    by_reason = {key: n for key, n in told.items() if key.startswith("events_rejected_")}
    assert sum(by_reason.values()) == 2
    assert by_reason["events_rejected_refused_custom"] >= 1


def test_once_per_period(site: Site) -> None:
    report(site)
    evict(site)

    assert report(site, day=0.99) is None
    assert report(site, day=1.01) is not None
    evict(site)
    assert report(site, day=2.0) is None
    assert report(site, day=2.02) is not None


def test_a_quiet_time_belongs_to_the_next_report(site: Site) -> None:
    report(site)
    for day in range(1, 5):
        assert report(site, day=day) is None
    evict(site)

    assert metadata(site, report(site, day=5))["since"] == "2026-09-21T14:13:20.000000+00:00"


def test_a_clock_that_was_set_back_stops_no_reports(site: Site) -> None:
    report(site)
    evict(site)

    assert report(site, day=-1_000) is not None


def test_what_was_retried_is_no_gain(site: Site) -> None:
    site.append("bad")
    site.flush()
    report(site)
    site.log.mark([1], "pending")
    Notes(site.log).retried("events", [1], in_place=True)
    evict(site)

    told = metadata(site, report(site, day=1))
    assert "events_rejected" not in told
    assert told["events_evicted"] == told["total_events_evicted"]


class DiedError(BaseException):
    pass


def test_losses_after_a_retry_are_told(site: Site) -> None:
    report(site)
    seqs = [site.append("bad").seq for _ in range(10)]
    site.log.mark(seqs, "rejected")
    first = report(site, 1)
    assert metadata(site, first)["events_rejected"] == 10
    site.log.mark(seqs, "pending")
    site.log.ack(seqs)
    assert report(site, 2) is None
    site.log.mark([site.append("bad, too").seq for _ in range(10)], "rejected")

    assert metadata(site, report(site, 3))["events_rejected"] == 10


def test_a_refused_report_is_not_reported(site: Site) -> None:
    report(site)
    site.server.refuses = lambda _event: "use case is archived"
    site.append("x")
    site.flush()
    assert report(site, 1, use_case_id=None) is not None
    site.flush()
    assert site.log.stats().rejected == 2

    assert report(site, 2, use_case_id=None) is None
    assert report(site, 3, use_case_id=None) is None
    site.append("y")
    site.flush()
    assert metadata(site, report(site, 4, use_case_id=None))["events_rejected"] == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"state": "odd"},
        {"at": None},
        {"figures": None},
        {"figures": {"events_rejected": "x"}},
        {"figures": {}},
        {"state": "begun"},
    ],
)
def test_a_note_that_makes_no_sense_fails_no_flush(site: Site, fields: dict[str, Any]) -> None:
    good = {"kind": "loss-report", "state": "done", "at": T0, "figures": {}}
    site.log.append_note(good | fields)
    site.append("x")
    site.log.mark([1], "rejected")

    report(site, 5)


@pytest.mark.parametrize("die_at", range(1, 7))
def test_no_crash_tells_a_loss_twice(
    site: Site, monkeypatch: pytest.MonkeyPatch, die_at: int
) -> None:
    report(site)
    evict(site)
    left = [die_at]

    def dying(name: str) -> Any:
        real = getattr(EventLog, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                raise DiedError
            result = real(*args, **kwargs)
            left[0] -= 1
            if left[0] == 0:
                raise DiedError
            return result

        return call

    with monkeypatch.context() as patched:
        for name in ("append", "append_note"):
            patched.setattr(EventLog, name, dying(name))
        with pytest.raises(DiedError):
            report(site, day=1)
    site.reopen()
    total = evict(site)

    # A pass finishes what was begun; the one after it tells the rest.
    for day in (1.5, 3):
        report(site, day=day)

    told = [dict(event.metadata or {}) for event in reports(site).values()]
    told_total = max(one["total_events_evicted"] for one in told)
    assert sum(one["events_evicted"] for one in told) == told_total
    assert total <= told_total <= site.log.stats().evicted
    assert len(told) <= 2


def test_a_report_that_was_noted_survives_a_power_cut(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    report(site)
    evict(site)
    synced: list[str] = []
    real = EventLog.append_note

    def noting(self: EventLog, note: dict[str, Any], *, sync: bool = False) -> int:
        if sync:
            synced.append(note["state"])
        return real(self, note, sync=sync)

    monkeypatch.setattr(EventLog, "append_note", noting)
    report(site, day=1)

    assert synced == ["begun"]


def test_without_a_base_it_says_so(site: Site) -> None:
    total = evict(site)

    told = metadata(site, report(site))

    assert told["since"] == "unknown"
    assert told["total_events_evicted"] == told["total_events_evicted_custom"] >= total
    assert "events_evicted" not in told
    assert "what of it is new is not known" in str(next(iter(reports(site).values())).data)

    evict(site)
    then = metadata(site, report(site, day=1))
    assert then["events_evicted"] == then["total_events_evicted"] - told["total_events_evicted"]


def test_a_ring_that_began_anew_has_no_base(site: Site) -> None:
    for number in range(20):
        site.append(f"good {number}")
    report(site)
    site.log.close()
    (site.directory / "events.ring").unlink()
    site.log = EventLog(site.directory, **site.options)
    site.append("bad")
    site.flush()

    assert metadata(site, report(site, day=1))["since"] == "unknown"


def test_reports_outlive_the_uploads(site: Site) -> None:
    report(site)
    evict(site)
    before = report(site, day=1)
    site.note_uploads(20_000)

    evict(site)
    first, second = (metadata(site, receipt) for receipt in (before, report(site, day=2)))
    assert second["events_evicted"] == second["total_events_evicted"] - first["events_evicted"]


def test_use_case_and_device_of_the_newest_event(site: Site) -> None:
    report(site)
    evict(site)
    site.append("good", use_case_id="uc-own", device_id="press-1")

    receipt = report(site, day=1, use_case_id=None)

    assert receipt is not None
    event = reports(site)[receipt.event_id]
    assert (event.use_case_id, event.device_id) == ("uc-own", "press-1")


def test_no_report_without_a_use_case(site: Site) -> None:
    report(site)
    site.append("bad")
    site.flush()
    site.append("no use case", use_case_id=None)

    assert report(site, day=1, use_case_id=None) is None
    assert report(site, day=1.1) is not None


def test_a_full_log_that_refuses_gets_its_report_later(tmp_path: Path) -> None:
    site = Site(tmp_path / "log", full="refuse", events_size=SIZE)
    site.append("bad")
    site.flush(use_case_id=USE_CASE)
    report(site)  # since unknown
    site.append("bad")
    site.flush(use_case_id=USE_CASE)
    for size in (7_500, 1):
        with pytest.raises(LogFullError):
            for number in range(10_000):
                site.append(noise(number, size))
    before = reports(site)

    assert report(site, day=1) is None
    assert report(site, day=2) is None
    assert reports(site) == before
    site.flush(use_case_id=USE_CASE)
    told = metadata(site, report(site, day=3))
    assert told["events_rejected"] == 1
    site.assert_conserved()
    site.log.close()


def test_a_default_that_the_server_does_not_know_yet_costs_no_report(site: Site) -> None:
    evict(site)
    made = report(site)
    assert made is not None

    assert reports(site)[made.event_id].use_case_id is None  # the flusher's default goes with it


def test_the_flusher_makes_and_sends_it(site: Site) -> None:
    evict(site)

    assert site.flush(loss_report_s=DAY_S).delivered == site.log.stats().delivered
    sent = [
        event
        for event in site.server.events.values()
        if event["eventData"].get("externalId") == losses.EXTERNAL_ID
    ]
    assert len(sent) == 1
    assert sent[0]["customMetadata"]["total_events_evicted"] > 0
    assert site.flush(loss_report_s=DAY_S).requests == 0


def test_off_unless_asked_for(site: Site) -> None:
    evict(site)
    site.flush()

    assert reports(site) == {}


def test_it_stays_within_the_limits_of_an_event() -> None:
    base = {f"{s}_{w}": 0 for s in ("events", "media") for w in ("evicted", "lost", "rejected")}
    base |= {f"{s}_{w}": 0 for s in ("events", "media") for w in ("appended", "first_seq")}
    now = dict.fromkeys(base, 10_000)
    now |= {f"events_rejected_code-{n}!_ü_{'y' * 120}": n for n in range(1, 300)}

    value, told = compose(base, now, since_ns=T0, until_ns=T0 + 10**9)

    Event.custom(value=value, metadata=told, use_case_id="uc").validate()
    assert len(told) == METADATA_KEY_COUNT_MAX
    assert told["events_evicted"] == 10_000


def test_figures_add_up(site: Site) -> None:
    site.append("bad")
    site.flush()
    found = figures(site.log, Notes(site.log).update())

    assert found["events_rejected"] == found["events_rejected_refused_custom"] == 1
    assert found["events_appended"] == 1


def test_kinds_have_the_names_of_event_types() -> None:
    fields = [("lost", int), ("lost_torn", int), ("lost_late", int), ("evicted_by_kind", list)]
    stats = dataclasses.make_dataclass("Stats", fields)
    given = [0] * 8
    for number in KIND_OF.values():
        given[number] = number
    given[7] = 3

    found = details("events", stats(2, 2, 0, given))

    assert found == {
        "evicted_by_kind": {str(name): number for name, number in KIND_OF.items()} | {"7": 3},
        "lost_by_reason": {"torn": 2},
    }


def test_what_has_no_reason_is_unknown() -> None:
    assert split(Counter({("refused", "custom"): 2}), 5) == {
        ("refused", "custom"): 2,
        ("unknown", "unknown"): 3,
    }
    assert split(Counter({("refused", "custom"): 2, ("too-old", "custom"): 0}), 1) == {
        ("refused", "custom"): 2
    }
