"""What was appended and what may have become of it; and whether both sides agree.

The book is written by the simulation, from what it asked of the log and saw on the wire, and never
from what log or flusher say of themselves. After a power cut it is turned back with the log.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from simulation.camera import DEFAULT_USE_CASE, LATER_USE_CASE, Sighting
from simulation.server import Server
from simulation.world import DAY_S, HOUR_S, BrokenPromiseError, S, World
from vevents import Event, EventLog
from vevents.delivery.losses import EXTERNAL_ID

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FINAL = ("delivered", "rejected", "evicted")
# The window in which the flusher has to leave an event to the server.
_AGE_S_MAX, _AHEAD_S_MAX = 364 * DAY_S, 23 * HOUR_S
_SLACK_S = 60.0
# A clock that shows less than 2024 has never been set.
_PLAUSIBLE_NS = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp()) * S
# The flusher leaves small errors alone: 2 s, and 60 s where only the server tells the time.
_TIME_ERROR_NS = 62 * S
_ANNOTATIONS = ("objectDetections", "classifications", "instanceSegmentations", "keypoints")


@dataclass(slots=True, eq=False)
class Entry:
    """One event that was appended.

    Attributes:
        seq: In the events ring.
        event_id: Given, or made by the log.
        sighting: What was handed to the log.
        stamp_ns: What the device's clock showed, or the time that came with the event.
        true_ns: When it really was.
        boot: In which boot.
        time_given: The time came with the event and is nobody else's business.
        shed: What the pressure ladder did to its frames, or None.
        order: How many were appended before, those included that a power cut took back.
        state: What the log was told to have become of it.
    """

    seq: int
    event_id: str
    sighting: Sighting
    stamp_ns: int
    true_ns: int
    boot: int
    time_given: bool
    shed: str | None
    order: int
    state: str = "pending"


@dataclass(slots=True)
class _Mark:
    """Where the book stood when the log was synced."""

    count: int
    low: int
    answered: frozenset[str]
    measured: frozenset[int]


class Book:
    """What was appended, and what has become of it.

    Args:
        world: True time.
        server: Asked whether it really has what is called delivered.
        one_by_one: Requests are made one at a time, so that it is known which answer a crash cost.
    """

    def __init__(self, world: World, server: Server, one_by_one: bool) -> None:
        self._world = world
        self._server = server
        self._one_by_one = one_by_one
        self.entries: list[Entry] = []
        self.by_id: dict[str, list[Entry]] = {}
        self.appended = 0
        self.forgotten = 0
        self.states: Counter[str] = Counter()
        # By digest as the log names frames: SHA-256, as the server does.
        self.frames: dict[str, str] = {}
        self.answered: set[str] = set()
        self.uploads_seen: Counter[str] = Counter()
        self.noted: dict[int, Mapping[str, Any]] = {}
        self.measured_boots: set[int] = set()
        # By boot: when it really began.
        self.starts: dict[int, int] = {}
        # By boot: by how much its clock was wrong when something was stamped.
        self.clock_errors: dict[int, set[int]] = {}
        self._contents: set[str] = set()
        self._low = 0
        self._journal: list[tuple[Entry, str]] = []
        self._mark = _Mark(0, 0, frozenset(), frozenset())
        self._unnoted: str | None = None
        self.delivery_evicted = False

    @property
    def refused_images(self) -> set[str]:
        return self._server.stored.refused_images

    # --- writing ---------------------------------------------------------------------------------

    def append(self, entry: Entry) -> None:
        """Write down an event that the log has taken."""
        self._require(
            entry.seq == len(self.entries) + 1,
            f"append gave number {entry.seq} to event {len(self.entries) + 1}",
        )
        chain = self.by_id.setdefault(entry.event_id, [])
        if chain and chain[-1].sighting is entry.sighting:
            # What was set aside is appended once more, as the ladder has left it.
            entry.shed = entry.shed or chain[-1].shed
        self.entries.append(entry)
        chain.append(entry)
        self.states["pending"] += 1
        self.appended += 1
        if not entry.time_given:
            errors = self.clock_errors.setdefault(entry.boot, set())
            errors.add(entry.stamp_ns - entry.true_ns)
        for frame in entry.sighting.frames.values():
            digest = hashlib.blake2b(frame, digest_size=16).hexdigest()
            if digest not in self.frames:
                self.frames[digest] = hashlib.sha256(frame).hexdigest()
                self._contents.add(self.frames[digest])

    def note(self, note: Mapping[str, Any]) -> None:
        """Write down a note of the flusher."""
        if note["kind"] == "upload":
            self._unnoted = None
        elif note["kind"] == "upload-forgotten":
            # An event was refused, and it may be for the image: that one may go once more.
            self.answered.discard(self.frames[bytes(note["digest"]).hex()])
        elif note["kind"] == "rejected":
            self.noted[note["seq"]] = note
        elif note["kind"] == "clock":
            self.measured_boots.add(note["boot"])
        elif note["kind"] == "loss-report" and note["state"] == "begun":
            figures = note["figures"]
            for name, count in (
                ("appended", len(self.entries)),
                ("evicted", self.states["evicted"]),
                ("rejected", self.states["rejected"]),
            ):
                told = figures[f"events_{name}"]
                self._require(told == count, f"the loss report says {told} {name} and not {count}")

    def mark(self, seqs: Sequence[int], state: str, first_seq: int) -> None:
        """Judge that the log is told what became of events, before it is."""
        self.evict(first_seq)
        for seq in seqs:
            if seq <= self._low:
                continue  # overwritten: no mark reaches it
            entry = self.entries[seq - 1]
            if state == "delivered":
                self._require(
                    entry.event_id in self._server.stored.event_ids,
                    f"event {seq} is marked delivered and the server does not have it",
                )
            elif state == "rejected":
                self._judge_rejection(entry)
            self._set(entry, state)

    def evict(self, first_seq: int) -> None:
        """Follow the ring: what is before its first record is gone."""
        while self._low + 1 < first_seq:
            entry = self.entries[self._low]
            if entry.state == "pending":
                self._set(entry, "evicted")
            self._low += 1

    def upload_answered(self, digest: str) -> None:
        """Write down that the device was told the id of an image."""
        sha256 = self.frames[digest]
        self._unnoted = sha256
        self.answered.add(sha256)

    def upload_arrives(self, image: bytes) -> None:
        """Judge that an image reaches the server."""
        sha256 = hashlib.sha256(image).hexdigest()
        self.uploads_seen[sha256] += 1
        self._require(sha256 in self._contents, "an image that nobody took is uploaded")
        if self._one_by_one and not self.delivery_evicted:
            self._require(
                sha256 not in self.answered,
                f"image {sha256[:12]} is uploaded again though the device knew its id",
            )

    def crash(self) -> None:
        """The process died: what it was told last, it may not have written down."""
        if self._unnoted is not None:
            self.answered.discard(self._unnoted)
            self._unnoted = None

    def synced(self, durable_seq: int) -> None:
        """Remember this place: no power cut goes back behind it.

        Args:
            durable_seq: Up to which event the log says so.
        """
        self._require(
            durable_seq == len(self.entries),
            f"a sync makes {durable_seq} events durable, of {len(self.entries)}",
        )
        self._journal.clear()
        self._mark = _Mark(
            len(self.entries), self._low, frozenset(self.answered), frozenset(self.measured_boots)
        )

    def turn_back(self) -> None:
        """Forget what a power cut made undone."""
        for entry, state in reversed(self._journal):
            self._set(entry, state)
        self._journal.clear()
        for entry in self.entries[self._mark.count :]:
            self.states[entry.state] -= 1
            self.forgotten += 1
        del self.entries[self._mark.count :]
        self._low = self._mark.low
        self.answered = set(self._mark.answered)
        self.measured_boots = set(self._mark.measured)

    def _set(self, entry: Entry, state: str) -> None:
        self._journal.append((entry, entry.state))
        self.states[entry.state] -= 1
        self.states[state] += 1
        entry.state = state

    def _judge_rejection(self, entry: Entry) -> None:
        note = self.noted.get(entry.seq)
        what = f"event {entry.seq} is set aside"
        self._require(note is not None and note["eventId"] == entry.event_id, f"{what} unnoted")
        assert note is not None
        code = note["code"]
        if code in ("too-old", "in-the-future"):
            known = entry.boot in self.measured_boots or entry.stamp_ns < _PLAUSIBLE_NS
            when_ns = entry.true_ns if known and not entry.time_given else entry.stamp_ns
            age_s = self._world.now_s - when_ns / S
            outside = age_s > _AGE_S_MAX - _SLACK_S or -age_s > _AHEAD_S_MAX - _SLACK_S
            self._require(outside, f"{what} for its time, {age_s:.0f} s ago")
            return
        reasons = self._server.stored.refusals.get(entry.event_id, set())
        own_use_case = entry.sighting.body.get("useCaseId")
        if own_use_case != LATER_USE_CASE:
            reasons = reasons - {"use case"}
        self._require(bool(reasons), f"{what} ({code}, {note['reason']}) and was not refused")

    def sighting_of(self, event: Event) -> Sighting:
        """Return what an event is that comes from the delivery and not from the camera."""
        data = dict(event.data or {})
        if data.get("externalId") == EXTERNAL_ID:
            body: dict[str, Any] = {
                "eventType": "custom",
                "eventData": data,
                "customMetadata": dict(event.metadata or {}),
                "images": [],
            }
            if event.use_case_id is not None:
                body["useCaseId"] = event.use_case_id
            if event.device_id is not None:
                body["deviceId"] = event.device_id
            return Sighting(body)
        earlier = self.by_id.get(event.event_id or "", [])
        self._require(bool(earlier), f"the delivery made up an event {event.event_id}")
        return earlier[-1].sighting

    # --- the log's side --------------------------------------------------------------------------

    def check_log(self, log: EventLog, when: str) -> None:
        """Compare the log's figures with the book."""
        for stream in ("events", "media", "delivery"):
            stats = log.stats(stream)
            self._require(stats.conserved, f"{when}: {stream} does not add up: {stats}")
            self._require(stats.lost == 0, f"{when}: {stream} lost some: {stats}")
            if stream == "events":
                self.evict(stats.first_seq)
                for name in ("pending", *_FINAL):
                    self._require(
                        getattr(stats, name) == self.states[name],
                        f"{when}: {getattr(stats, name)} events are {name} and not "
                        f"{self.states[name]}",
                    )
                self._require(
                    stats.appended == len(self.entries),
                    f"{when}: {stats.appended} events appended and not {len(self.entries)}",
                )
            elif stream == "delivery":
                self.delivery_evicted = self.delivery_evicted or stats.evicted > 0

    # --- the server's side -----------------------------------------------------------------------

    def check_server(self) -> Counter[str]:
        """Compare what the server has with the book, field by field and byte by byte.

        Returns:
            How often what was seen.
        """
        seen: Counter[str] = Counter()
        storage = self._server.emulator.storage
        images = {
            image["source_id"]: image["sha256"]
            for image in storage.list_images(orphaned=None, after=0, limit=10**9)
        }
        for sha256 in images.values():
            self._require(sha256 in self._contents, "the server has an image that nobody took")
        events = storage.list_events(use_case_id=None, event_id=None, after=0, limit=10**9)
        there: dict[str, dict[str, Any]] = {}
        for row in events:
            event_id = row["event"]["eventId"]
            self._require(event_id not in there, f"event {event_id} is there twice")
            self._require(row["warnings"] == [], f"event {event_id}: {row['warnings']}")
            there[event_id] = row["event"]
        for event_id, event in there.items():
            self._check_event(event_id, event, images, seen)
        for entry in self.entries:
            self._require(entry.state in _FINAL, f"event {entry.seq} is left {entry.state}")
            if entry.state == "delivered":
                self._require(
                    entry.event_id in there, f"event {entry.seq} is delivered and not there"
                )
        seen["events"] = len(there)
        seen["images"] = len(images)
        seen["images twice"] = len(images) - len(set(images.values()))
        return seen

    def _check_event(
        self,
        event_id: str,
        event: dict[str, Any],
        images: Mapping[str, str],
        seen: Counter[str],
    ) -> None:
        chain = self.by_id.get(event_id, [])
        self._require(bool(chain), f"the server has an event {event_id} that nobody appended")
        delivered = [entry.order for entry in chain if self._is_delivered(entry)]
        # The last one that was delivered, or a later one that arrived without being marked.
        last = max(delivered, default=0)
        faults = []
        for entry in reversed(chain):
            if entry.order < last:
                break
            fault = _difference(self, entry, event, images, seen)
            if fault is None:
                return
            faults.append(f"event {entry.seq}: {fault}")
        self._require(False, "; ".join(faults) or f"event {event_id} was overwritten by an older")

    def _is_delivered(self, entry: Entry) -> bool:
        at = entry.seq - 1
        here = at < len(self.entries) and self.entries[at] is entry
        return here and entry.state == "delivered"

    def _require(self, held: bool, what: str) -> None:
        if not held:
            self._world.note(f"FAILURE: {what}")
            raise BrokenPromiseError(what)


def _difference(
    book: Book,
    entry: Entry,
    event: dict[str, Any],
    images: Mapping[str, str],
    seen: Counter[str],
) -> str | None:
    """Say how an event of the server differs from what was appended; None if it does not."""
    body = entry.sighting.body
    metadata = dict(event.get("customMetadata", {}))
    own = body.get("customMetadata", {})
    added = {
        key: metadata.pop(key)
        for key in list(metadata)
        if key.startswith("vevents_") and key not in own
    }
    expected = {
        "eventType": body["eventType"],
        "eventData": body["eventData"],
        "useCaseId": body.get("useCaseId", DEFAULT_USE_CASE),
        **{name: body[name] for name in ("deviceId", "streamId") if name in body},
    }
    got = {
        name: value
        for name, value in event.items()
        if name not in ("eventId", "timestamp", "images", "displayImagePosition", "customMetadata")
    }
    if got != expected:
        return f"{got} is not {expected}"
    if metadata != own:
        return f"metadata {metadata} is not {own}"
    fault = _time_difference(book, entry, event["timestamp"], added)
    fault = fault or _images_difference(entry, event, images, added, book.refused_images)
    if fault is None and added:
        seen.update(f"with {key}" for key in added)
        if "vevents_clock_source" in added:
            seen[f"time {added['vevents_clock_source']}"] += 1
        return f"unknown metadata {added}" if added.keys() - _UNDERSTOOD else None
    return fault


_UNDERSTOOD = frozenset(
    (
        "vevents_frames_missing",
        "vevents_frames_missing_reason",
        "vevents_frame_step",
        "vevents_frames_shed",
        "vevents_frame_original",
        "vevents_clock_behind_s",
        "vevents_clock_source",
    )
)


def _time_difference(book: Book, entry: Entry, timestamp: str, added: dict[str, Any]) -> str | None:
    """Judge the time of an event, and what its metadata says about it."""
    stamp_ns = entry.stamp_ns // 1000 * 1000
    got_ns = (datetime.fromisoformat(timestamp) - _EPOCH) // timedelta(microseconds=1) * 1000
    source = added.get("vevents_clock_source")
    off_ns = got_ns - entry.true_ns
    what = f"its time is {timestamp} ({source}), {off_ns / S:.1f} s from the truth"
    if source is None:
        if got_ns != stamp_ns:
            return f"{what}, and the stamp was another"
        known = entry.boot in book.measured_boots or stamp_ns < _PLAUSIBLE_NS
        wrong = known and not entry.time_given and abs(off_ns) > _TIME_ERROR_NS
        return f"{what}, though that could be known" if wrong else None
    if entry.time_given:
        return f"{what}, and it was given"
    if abs(got_ns - stamp_ns - added["vevents_clock_behind_s"] * S) > S // 100:
        return f"{what}, which is not {added['vevents_clock_behind_s']} s behind"
    if source == "measured":
        right = abs(off_ns) <= _TIME_ERROR_NS
    elif source == "recorded":
        # As the clock stood when a later event of that boot was stamped, right or wrong.
        right = any(
            abs(off_ns - error_ns) <= 2 * S for error_ns in book.clock_errors.get(entry.boot, ())
        )
    else:
        # Not before it was, and not after the beginning of the next boot that knew the time and
        # left a record: of the others nobody can tell when they were.
        later = [start for boot, start in book.starts.items() if boot > entry.boot]
        left = {each.boot for each in book.entries} & set(book.measured_boots)
        known = [book.starts[boot] for boot in left if boot > entry.boot]
        end_ns = min(known, default=max(later, default=0))
        right = off_ns >= -_TIME_ERROR_NS and got_ns <= end_ns + _TIME_ERROR_NS
    return None if right else what


def _images_difference(
    entry: Entry,
    event: dict[str, Any],
    images: Mapping[str, str],
    added: dict[str, Any],
    refused: set[str],
) -> str | None:
    """Compare the image entries; frames may be missing where the metadata says so."""
    wanted, found = entry.sighting.body["images"], event.get("images", [])
    frames = {
        place: hashlib.sha256(data).hexdigest() for place, data in entry.sighting.frames.items()
    }
    shed = _shed_frames(entry, added)
    missing: set[str] = set()
    position, shown, at = entry.sighting.body.get("displayImagePosition"), None, 0
    for index, image in enumerate(wanted):
        if index == position:
            shown = at
        had = [name for name in ("sourceId", "inputSourceId") if (index, name) in frames]
        there = found[at] if at < len(found) else {}
        fits = _without_ids(there) == image and all(
            (index, name) in frames and images.get(there[name]) == frames[index, name]
            for name in ("sourceId", "inputSourceId")
            if name in there
        )
        # What the ladder left out was never there for the flusher: a label alone stays then.
        kept = "label" in image and all(frames[index, name] in shed for name in had)
        vanished = had and not kept and not any(name in image for name in _ANNOTATIONS)
        if fits and there.keys() - {"label"}:
            at += 1
            missing.update(frames[index, name] for name in had if name not in there)
        elif vanished:
            missing.update(frames[index, name] for name in had)
        elif fits and there:
            at += 1
            missing.update(frames[index, name] for name in had)
        else:
            return f"image {index} is {there} and not {image}"
    if at != len(found):
        return f"{len(found) - at} images more than were appended"
    shown = None if shown is None or not found else max(0, min(shown, len(found) - 1))
    if event.get("displayImagePosition") != shown:
        return f"shows image {event.get('displayImagePosition')} and not {shown}"
    told = added.get("vevents_frames_missing", 0)
    if len(missing - shed) != told:
        return f"{len(missing - shed)} frames are missing and it says {told}"
    if added.get("vevents_frames_missing_reason") == "refused" and missing - shed - refused:
        return "a frame is missing as refused and was not"
    return None


def _shed_frames(entry: Entry, added: dict[str, Any]) -> set[str]:
    """Return the frames that the pressure ladder left out, as the metadata tells it."""
    if entry.shed is None:
        return set()
    text = added.get("vevents_frame_original", "")
    return {
        hashlib.sha256(frame).hexdigest()
        for frame in entry.sighting.frames.values()
        if hashlib.blake2b(frame, digest_size=16).hexdigest() in text
        and added.get("vevents_frame_step") == entry.shed
    }


def _without_ids(image: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in image.items() if k not in ("sourceId", "inputSourceId")}
