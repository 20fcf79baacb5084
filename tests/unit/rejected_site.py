"""What the tests of the dead letters share: a real log, and a server that refuses on demand."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
from fake_log import FakeServer

from vevents import Event, EventLog, Image
from vevents.delivery import doubts as doubts_module
from vevents.delivery.client import Client
from vevents.delivery.flusher import Flusher
from vevents.delivery.notes import Notes
from vevents.delivery.rejected import DeadLetter, DeadLetters
from vevents.delivery.report import FlushReport
from vevents.delivery.sender import RetryPolicy
from vevents.log import Receipt

USE_CASE = "uc-1"
SIZE = 1 << 20


def jpeg(name: str, size: int = 200) -> bytes:
    return (b"\xff\xd8\xff\xe0" + name.encode()).ljust(size, b".")


class Site:
    """A log on disk and a server that refuses what says `bad` while it is strict."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self.directory = directory
        self.options = {"events_size": SIZE, "media_size": SIZE, "delivery_size": SIZE} | options
        self.log = EventLog(directory, **self.options)
        self.server = FakeServer()
        self.strict = True
        self.refused_images: set[bytes] = set()
        self.server.refuses = lambda event: (
            "value: says bad"
            if self.strict and "bad" in event["eventData"].get("value", "")
            else None
        )
        self.server.interfere = self._interfere

    def _interfere(self, request: httpx.Request) -> httpx.Response | None:
        if request.url.path == "/vision-events/upload" and any(
            image in request.content for image in self.refused_images
        ):
            return httpx.Response(415, json={"error": "no such image"})
        return None

    def reopen(self) -> None:
        self.log.close()
        self.log = EventLog(self.directory, **self.options)

    def append(self, value: str, *frames: bytes, **fields: Any) -> Receipt:
        images = [Image(frame) for frame in frames]
        fields = {"use_case_id": USE_CASE} | fields
        return self.log.append(Event.custom(value=value, images=images, **fields))

    @contextmanager
    def flusher(self, **options: Any) -> Iterator[Flusher]:
        transport = httpx.MockTransport(self.server.handle)
        retry = RetryPolicy(attempts=1, first_wait_s=0.0, wait_s_max=0.0)
        # A pass of nothing but refusals ends early; here many dead letters are wanted.
        believed = patch.object(doubts_module, "_REFUSED_ALONE_MAX", 10**9)
        with believed, Client("rf_key", api_url="https://api.test", transport=transport) as client:
            yield Flusher(self.log, client, retry=retry, **options)

    def flush(self, **options: Any) -> FlushReport:
        with self.flusher(**options) as flusher:
            return flusher.flush()

    def letters(self) -> list[DeadLetter]:
        return DeadLetters(self.log).letters

    def rejection(self) -> dict[str, Any]:
        """Return the first note of a refusal."""
        return next(note for _, note in self.log.notes() if note["kind"] == "rejected")

    def listed(self) -> list[str]:
        """The ids of what is listed, the newest first."""
        return [letter.id for letter in self.letters()]

    def letter(self, event_id: str) -> DeadLetter:
        [found] = [letter for letter in self.letters() if letter.id == event_id]
        return found

    def note_uploads(self, count: int, first: int = 1_000_000) -> None:
        """Write as many notes as that many uploaded images leave behind."""
        notes = Notes(self.log)
        for number in range(first, first + count):
            digest = number.to_bytes(16, "big")
            notes.append(
                {"kind": "upload", "sourceId": f"ve-{number:x}", "media": number, "digest": digest}
            )

    def overwrite_events(self) -> None:
        """Let delivered events take the place of all that is in events.ring."""
        first_seq = self.log.stats().last_seq
        while self.log.stats().first_seq <= first_seq:
            for number in range(20):
                self.append(f"{number}{first_seq}" * 1_500)
                self.append(noise(self.log.stats().last_seq))
            assert self.flush().stopped_reason is None

    def overwrite_media(self) -> None:
        first_seq = self.log.stats("media").last_seq
        while self.log.stats("media").first_seq <= first_seq:
            number = self.log.stats("media").last_seq
            self.append("a large image", jpeg(f"large {number}", 40_000))
            self.flush()

    def assert_conserved(self) -> None:
        for stream in ("events", "media", "delivery"):
            assert self.log.stats(stream).conserved, stream  # type: ignore[arg-type]

    def assert_counted(self) -> None:
        """The reasons add up to the rejected events."""
        counts = Notes(self.log).update().counts
        events = sum(count for reason, count in counts.items() if reason.stream == "events")
        assert events == self.log.stats().rejected


def noise(seed: int, size: int = 7_500) -> str:
    """Return text that does not compress, and is not bad."""
    return f"{random.Random(seed).getrandbits(4 * size):x}".replace("b", "-")


def ids(receipts: Sequence[Receipt]) -> list[str]:
    return [receipt.event_id for receipt in receipts]
