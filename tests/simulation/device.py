"""One device: a camera, the log, a flusher, and whatever ends a boot."""

from __future__ import annotations

import random
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import httpx

from simulation.camera import DEFAULT_USE_CASE, Camera, Sighting
from simulation.clock import Clock
from simulation.network import Network, Transport
from simulation.oracle import Book, Entry
from simulation.server import API_KEY, Server
from simulation.world import DAY_S, HOUR_S, MINUTE_S, BrokenPromiseError, PowerLost, S, World
from vevents import Event, EventLog, _ffi
from vevents._ffi import Moment
from vevents.delivery.client import Client
from vevents.delivery.flusher import Flusher
from vevents.delivery.rejected import DeadLetters, waiting_lock
from vevents.delivery.report import FlushReport
from vevents.delivery.sender import StopReason, Time
from vevents.errors import EventTooLargeError, LogFullError
from vevents.log import PersistReport, Receipt
from vevents.pressure import Ladder, Step

Doom = Literal["shutdown", "kill", "cut"]

_PASSES_AT_THE_END = 100
_FILE_NAME = re.compile(rb'filename="([0-9a-f]{32})\.')


@dataclass(frozen=True, slots=True)
class Habits:
    """What kind of device it is; drawn from the seed.

    Attributes:
        persist_every_s: Of a log in memory, how often its copy on flash is brought up to date; 0:
            only when the delivery or the end of a boot asks. None: the log itself is on flash.
    """

    events_per_day: float
    frame_share: float
    frame_size_max: int
    ballast: int
    shares_ids: bool
    log: dict[str, Any]
    flusher: dict[str, Any]
    flush_every_s: float
    limited: bool
    boot_days: float
    retries: bool
    persist_every_s: float | None

    @classmethod
    def draw(cls, dice: random.Random) -> Habits:
        """Draw a device."""
        # The pictures are none: of the steps, only this one changes them.
        ladder = Ladder([Step(0.5, "none")])
        shares_ids = dice.random() < 0.3
        drawn = cls(
            events_per_day=dice.choice((10, 30, 60, 120)),
            frame_share=dice.choice((0, 0.1, 0.3, 0.8)),
            frame_size_max=dice.choice((2_000, 10_000, 40_000)),
            ballast=dice.choice((0, 0, 900, 900)),
            shares_ids=shares_ids,
            log={
                "events_size": 1 << 20,
                "media_size": dice.choice((1 << 20, 1 << 21, 1 << 22)),
                "delivery_size": 1 << 20,
                "segment_size": 1 << 16,
                "full": "refuse" if dice.random() < 0.2 else "drop-oldest",
                "pressure": ladder if dice.random() < 0.2 else (),
            },
            flusher={
                "order": dice.choice(("oldest", "oldest", "newest", "priority")),
                "live_first": dice.random() < 0.2,
                "uploads": 1,
                "bytes_per_s": dice.choice((None, None, None, 20_000)),
                "loss_report_s": dice.choice((None, None, float(DAY_S))),
            },
            flush_every_s=dice.choice((2, 4, 8, 16)) * HOUR_S,
            limited=dice.random() < 0.3,
            boot_days=dice.choice((0.3, 1, 4, 10)),
            # What is sent again after something later under its id would overwrite it.
            retries=not shares_ids and dice.random() < 0.5,
            persist_every_s=None,
        )
        drawn.flusher["bundle"] = dice.random() < 0.25
        # Log in memory, copy on flash; 0: only when asked.
        every_s = dice.choice((None,) * 6 + (0, HOUR_S, 6 * HOUR_S))
        return replace(drawn, persist_every_s=every_s)


class Device:
    """One device for its whole life.

    Args:
        world: True time.
        directory: Where its log is; the copies of it that a power cut leaves are beside it.
        network: The way to the server.
        server: The server.
        uploads: Images at the same time; with more than one, threads decide about the order.

    Attributes:
        counts: What happened, by what it was.
    """

    def __init__(
        self, world: World, directory: Path, network: Network, server: Server, uploads: int
    ) -> None:
        self._world = world
        self._directory = directory
        self._network = network
        self._server = server
        self._dice = world.dice("device")
        self.habits = habits = Habits.draw(world.dice("habits"))
        habits.flusher["uploads"] = uploads
        self._camera = Camera(
            world.dice("camera"), habits.frame_share, habits.frame_size_max, habits.shares_ids
        )
        self._clock = Clock(world)
        self.book = Book(world, server, one_by_one=uploads == 1)
        server.on_upload = self.book.upload_arrives
        self.counts: Counter[str] = Counter()
        # One process of the device: what belongs to an earlier one does nothing any more.
        self._process = 0
        self._dead = False
        self._countdown: int | None = None
        self._doom: Doom = "shutdown"
        self._doomed = False
        self._keeps_copies = False
        self._flush_due = False
        self._in_pass = False
        self._resting = False
        self._stopped_ns = world.now_ns
        self._start(new_boot=True)

    # --- life ------------------------------------------------------------------------------------

    def live(self, days: float) -> None:
        """Let the device do what it does for so many days, and then hand everything over."""
        end_ns = self._world.now_ns + int(days * DAY_S * S)
        while self._world.now_ns < end_ns:
            self._step()
        self._finish()

    def close(self) -> None:
        """Close the log."""
        self._log.close()

    def _step(self) -> None:
        try:
            self._world.pass_on()
            if self._flush_due:
                self._flush_due = False
                if self.habits.retries and self._dice.random() < 0.05:
                    self._retry()
                self._flush(**self._limits())
            if self._doomed and self._doom != "shutdown":
                self._die("out of the blue")
            if self._doomed:
                self._shut_down()
        except PowerLost:
            self._end_of_power()

    def _finish(self) -> None:
        """With everything well again, hand over what is left."""
        self._resting = True
        self._countdown, self._doomed = None, False
        self._network.heal()
        self._server.heal()
        for _ in range(_PASSES_AT_THE_END):
            self._step_of_rest()
            report = self._flush()
            if report.stopped_reason is None and report.pending_after == 0:
                return
        raise self._failure(f"{self.book.states['pending']} events are never delivered: {report}")

    def _step_of_rest(self) -> None:
        self._clock.set_right()
        self._world.pass_time(HOUR_S)

    # --- processes -------------------------------------------------------------------------------

    def _start(self, *, new_boot: bool) -> None:
        dice, habits = self._dice, self.habits
        self._process += 1
        self._dead = self._doomed = self._in_pass = self._keeps_copies = False
        self._flush_due = False
        self._countdown = None
        if new_boot:
            self._clock.start(self._stopped_ns)
            self.book.starts[self._clock.boot] = self._world.now_ns
        self._log = SimulatedLog(self._directory, self, self._log_options)
        self.counts["starts"] += 1
        self._world.note(
            f"device: process {self._process}, boot {self._clock.boot}, wall clock wrong by "
            f"{self._clock.error_ns / S:.0f} s"
        )
        self.book.check_log(self._log, "after opening")
        process = self._process
        transport = Transport(
            self._world, self._network, lambda where: self.point(where, process), self._on_answer
        )
        client = Client(
            API_KEY,
            api_url="http://api.local",
            transport=transport,
            clock=lambda: self._clock.wall_s,
            monotonic=lambda: self._clock.since_boot_s,
        )
        self._flusher = Flusher(
            self._log,
            client,
            use_case_id=DEFAULT_USE_CASE,
            time=Time(
                clock=lambda: self._clock.wall_s,
                monotonic=lambda: self._clock.since_boot_s,
                sleep=self._world.pass_time,
                draw=dice.random,
            ),
            **habits.flusher,
        )
        if self._resting:
            return
        self._later(dice.expovariate(habits.events_per_day / DAY_S), self._see)
        self._later(dice.uniform(MINUTE_S, habits.flush_every_s), self._want_flush)
        if habits.persist_every_s:
            self._later(dice.uniform(MINUTE_S, habits.persist_every_s), self._persist)
        self._plan_end()

    def _later(self, seconds: float, action: Any) -> None:
        """Let this process do something later, if it lives."""
        process = self._process

        def act() -> None:
            if self._process == process and not self._resting and not self._dead:
                action()

        self._world.after(seconds, act)

    def _plan_end(self) -> None:
        dice = self._dice
        wait_s = dice.expovariate(1 / (self.habits.boot_days * DAY_S)) + MINUTE_S
        self._doom = dice.choice(("shutdown", "kill", "kill", "cut"))
        self._later(wait_s, self._end)
        if self._doom == "cut":
            self._later(max(0, wait_s - dice.uniform(0, 3 * HOUR_S)), self._last_sync)

    def _last_sync(self) -> None:
        self._keeps_copies = True
        # A copy in flash is where it was brought up to date last, however long ago.
        if not self.is_ram_first:
            self._log.sync()

    def _persist(self) -> None:
        assert self.habits.persist_every_s is not None
        self._log.persist()
        self._later(self.habits.persist_every_s, self._persist)

    def _end(self) -> None:
        """The end of this process has come, or will come in its next pass."""
        if self._doom != "shutdown" and (self._in_pass or self._dice.random() < 0.7):
            self._countdown = self._dice.randrange(3 if self._in_pass else 60)
            self._world.note(f"power: {self._doom} in {self._countdown} points")
            if not self._in_pass:
                # Not for ever: there may never be anything to send.
                self._later(2 * self.habits.flush_every_s, self._doom_now)
            return
        self._doom_now()

    def _doom_now(self) -> None:
        self._doomed = True

    def point(self, where: str, process: int | None = None) -> None:
        """Stand where the process may die."""
        with self._world.lock:
            if self._dead or process not in (None, self._process):
                raise PowerLost
            if self._countdown is not None:
                self._countdown -= 1
                if self._countdown < 0:
                    self._die(where)

    def _die(self, where: str) -> None:
        self._dead = True
        self._world.note(f"power: {self._doom}, {where}")
        self.counts[f"{self._doom} {'in a pass' if self._in_pass else 'between passes'}"] += 1
        raise PowerLost

    def _end_of_power(self) -> None:
        """Leave on the disk what such an end leaves, and start again."""
        log = self._log
        self.book.crash()
        killed = self._doom == "kill"
        if killed:
            # The page cache outlives the process: this is what the next one finds.
            _copy(self._directory, self._copy_path)
        else:
            self.book.turn_back()
        if self.is_ram_first:
            # Closing brings the flash up to date, which nobody does who is dead.
            _copy(self._flash, self._flash_copy)
        log.close()
        shutil.rmtree(self._directory)
        if self.is_ram_first:
            shutil.rmtree(self._flash)
            self._flash_copy.rename(self._flash)
        if killed or not self.is_ram_first:
            self._copy_path.rename(self._directory)
        self._restart(new_boot=self._doom == "cut")

    def _shut_down(self) -> None:
        self._world.note("power: shutdown")
        self.counts["shutdown"] += 1
        self._log.close()
        if self.is_ram_first:
            # Closing has brought the flash up to date, and the next boot finds nothing else.
            shutil.rmtree(self._directory)
            self.book.synced(len(self.book.entries))
        self._restart(new_boot=True)

    def _restart(self, *, new_boot: bool) -> None:
        dice = self._dice
        self._process += 1
        self._stopped_ns = self._clock.wall_ns
        long = new_boot and dice.random() < 0.1
        self._world.pass_time(dice.uniform(0, 3 * DAY_S) if long else dice.uniform(1, 5 * MINUTE_S))
        self._start(new_boot=new_boot)

    @property
    def is_ram_first(self) -> bool:
        """Whether the log is in memory, which a power cut empties."""
        return self.habits.persist_every_s is not None

    @property
    def _log_options(self) -> dict[str, Any]:
        # By the simulated clock: the device asks for every pass itself.
        copy = {"persist_dir": self._flash, "persist_interval_s": 0} if self.is_ram_first else {}
        return {**self.habits.log, **copy}

    @property
    def _copy_path(self) -> Path:
        return self._directory.with_name("copy")

    @property
    def _flash(self) -> Path:
        return self._directory.with_name("flash")

    @property
    def _flash_copy(self) -> Path:
        return self._directory.with_name("flash-copy")

    # --- what it does ----------------------------------------------------------------------------

    def _see(self) -> None:
        dice = self._dice
        for _ in range(1 if dice.random() < 0.9 else dice.randrange(2, 12)):
            self._append()
        self._later(dice.expovariate(self.habits.events_per_day / DAY_S), self._see)

    def _append(self) -> None:
        sighting = self._camera.look(self._clock.wall_ns)
        if self.habits.ballast:
            extra = self._dice.randbytes(self.habits.ballast // 2).hex()
            sighting.body.setdefault("customMetadata", {})["ballast"] = extra
        if sighting.frames and self.habits.log["pressure"]:
            # The ladder measures by the real clock, which hardly moves here.
            self._log.pressure()
        try:
            self._log.append(sighting.event(), sighting=sighting)
        except (LogFullError, EventTooLargeError) as error:
            self.counts[type(error).__name__] += 1

    def took(self, receipt: Receipt, sighting: Sighting, event: Event) -> None:
        """Write down what was appended, by whomever."""
        stamp_ns = round(receipt.timestamp.timestamp() * 1e6) * 1000
        if event.timestamp is None and stamp_ns != self._clock.wall_ns // 1000 * 1000:
            raise self._failure(f"event {receipt.seq} is stamped {receipt.timestamp}")
        self.counts["appended"] += 1
        self.counts["frames"] += len(sighting.frames)
        self.book.append(
            Entry(
                receipt.seq,
                receipt.event_id,
                sighting,
                stamp_ns,
                self._world.now_ns,
                self._clock.boot,
                event.timestamp is not None,
                receipt.shed,
                self.book.appended + 1,
            )
        )

    def _retry(self) -> None:
        """Somebody looks at what was refused, and tries some of it again."""
        with waiting_lock(self._directory, 0):
            dead = DeadLetters(self._log)
            some = [letter for letter in dead.letters if self._dice.random() < 0.5]
            try:
                done = dead.retry(some)
            except LogFullError:
                self._world.note("retry: the log is full")
                return
        self.counts["letters tried again"] += done.in_place + done.appended
        self._world.note(
            f"retry: {done.in_place} in place, {done.appended} anew, {len(done.failed)} not"
        )

    def _want_flush(self) -> None:
        self._flush_due = True
        self._later(self._dice.uniform(0.5, 1.5) * self.habits.flush_every_s, self._want_flush)

    def _limits(self) -> dict[str, Any]:
        dice = self._dice
        if not self.habits.limited:
            return {}
        return {
            dice.choice(("timeout_s", "max_events", "max_bytes")): dice.choice((1, 20, 300, 9_000))
        }

    def _flush(self, **limits: Any) -> FlushReport:
        world, book = self._world, self.book
        book.check_log(self._log, "before a pass")
        pending, appended, delivered = (
            book.states["pending"],
            book.appended,
            book.states["delivered"],
        )
        began_s = world.now_s
        self._in_pass = True
        try:
            report = self._flusher.flush(should_stop=self._should_stop, **limits)
        except PowerLost:
            raise
        except Exception as error:
            raise self._failure(f"a pass raised {error!r}") from error
        finally:
            self._in_pass = False
        self.counts["passes"] += 1
        self.counts[f"passes ended: {report.stopped_reason or 'complete'}"] += 1
        self.counts["requests"] += report.requests
        world.note(
            f"pass: delivered {report.delivered}, rejected {report.rejected}, pending "
            f"{report.pending_after}, {report.requests} requests, {report.stopped_reason}"
        )
        book.check_log(self._log, "after a pass")
        new = book.appended - appended
        if report.delivered != book.states["delivered"] - delivered:
            raise self._failure(f"the report says {report.delivered} delivered")
        if report.stopped_reason is None and report.pending_after > new:
            raise self._failure(f"complete, and {report.pending_after} are pending, {new} new")
        if report.requests > 60 + 12 * (pending + new):
            raise self._failure(f"{report.requests} requests for {pending + new} events")
        if world.now_s - began_s > 3 * DAY_S:
            raise self._failure(f"a pass took {(world.now_s - began_s) / DAY_S:.1f} days")
        if report.stopped_reason is StopReason.INTERRUPTED and not self._doomed:
            raise self._failure("a pass was interrupted by nobody")
        return report

    def _should_stop(self) -> bool:
        return self._doomed and self._doom == "shutdown"

    def _on_answer(self, request: httpx.Request, response: httpx.Response) -> None:
        if not request.url.path.endswith("/upload") or response.status_code != 201:
            return
        if "cut" in response.extensions or "json" not in response.headers["content-type"]:
            return
        name = _FILE_NAME.search(request.content)
        assert name is not None
        self.book.upload_answered(name[1].decode())

    def _failure(self, what: str) -> BrokenPromiseError:
        self._world.note(f"FAILURE: {what}")
        return BrokenPromiseError(what)


class SimulatedLog(EventLog):
    """The log, which tells the book what it is told, and may die at every step."""

    def __init__(self, directory: Path, device: Device, options: dict[str, Any]) -> None:
        self._device = device
        self._world = device._world
        # The library's own thread would work by the real clock, and in the middle of a copy.
        with mock.patch.object(_ffi, "Handle", partial(_ffi.Handle, helper=False)):
            super().__init__(directory, sync_interval_s=0, **options)

    @staticmethod
    def now() -> Moment:
        """Return what the simulated clocks say, whatever other tests make of this function."""
        return _ffi.now()

    def append(
        self, event: Event, *, sync: bool = False, sighting: Sighting | None = None
    ) -> Receipt:
        """Append, and have it written down."""
        with self._world.lock:
            self._device.point("before an append")
            receipt = super().append(event, sync=sync)
            self._device.took(receipt, sighting or self._device.book.sighting_of(event), event)
            if sync and self._device.is_ram_first:
                self._has_synced()
            self._device.point("after an append")
            return receipt

    def _keep_frames(self, event: Event) -> Event:
        # Between the frames and their event is a place to die.
        kept = super()._keep_frames(event)
        self._device.point("between frame and event")
        return kept

    def mark(self, seqs: Sequence[int], state: Any, stream: Any = "events") -> int:
        """Mark, after the book has judged it."""
        with self._world.lock:
            self._device.point(f"before marking {stream} {state}")
            if stream == "events":
                self._device.book.mark(seqs, state, self.stats().first_seq)
            changed = super().mark(seqs, state, stream)
            self._device.point(f"after marking {stream} {state}")
            return changed

    def append_note(self, note: Mapping[str, Any], *, sync: bool = False) -> int:
        """Take a note."""
        with self._world.lock:
            self._device.point(f"before noting {note['kind']}")
            seq = super().append_note(note, sync=sync)
            self._device.book.note(note)
            if sync and self._device.is_ram_first:
                self._has_synced()
            self._device.point(f"after noting {note['kind']}")
            return seq

    def sync(self) -> int:
        """Sync; what is on the disk then is what a power cut leaves."""
        with self._world.lock:
            self._device.point("before a sync")
            durable = super().sync()
            self._has_synced()
            return durable

    def persist(self) -> PersistReport:
        """Bring the copy on flash up to date: of a log in memory a power cut leaves that."""
        with self._world.lock:
            self._device.point("before a pass to the flash")
            report = super().persist()
            self._has_synced()
            self._device.counts["passes to the flash"] += 1
            return report

    def _has_synced(self) -> None:
        """Have it written down that no power cut goes back behind this moment.

        A log that is itself on flash is copied for that, but only when a cut is near.
        """
        if self._device.is_ram_first:
            self._device.book.synced(self.durable_seq)
        elif self._device._keeps_copies:
            _copy(self.directory, self._device._copy_path)
            self._device.book.synced(self.durable_seq)
        else:
            return
        self._world.note("log: synced")


def _copy(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
