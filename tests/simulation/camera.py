"""What the device sees: events in the form of the API, and the frames that belong to them."""

from __future__ import annotations

import random
import uuid
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from vevents import Event

DEFAULT_USE_CASE, LINE_USE_CASE, LATER_USE_CASE = "uc-default", "uc-line", "uc-later"
POISON = "what this server never takes"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WORDS = ("burr", "scratch", "pallet", "person", "door", "Überlauf", "箱")


@dataclass(slots=True)
class Sighting:
    """One event to append.

    Attributes:
        body: As on the wire, without what is made by append and delivery.
        frames: By index of the image and name of the field: the bytes.
    """

    body: dict[str, Any]
    frames: dict[tuple[int, str], bytes] = field(default_factory=dict)

    def event(self) -> Event:
        """Return it as a program would hand it to the log."""
        event = Event.from_json(self.body | {"images": [dict(i) for i in self.body["images"]]})
        images = [
            replace(
                image,
                frame=self.frames.get((index, "sourceId")),
                input_frame=self.frames.get((index, "inputSourceId")),
            )
            for index, image in enumerate(event.images)
        ]
        return replace(event, images=tuple(images))


class Camera:
    """Draws events.

    Args:
        dice: Chance.
        frame_share: How many of the events bring frames, 0 to 1.
        frame_size_max: Bytes.
        shares_ids: Whether some events overwrite an earlier one.
    """

    def __init__(
        self, dice: random.Random, frame_share: float, frame_size_max: int, shares_ids: bool
    ) -> None:
        self._dice = dice
        self._frame_share = frame_share
        self._frame_size_max = frame_size_max
        self._shares_ids = shares_ids
        self._recent_frames: list[bytes] = []
        self._recent_ids: list[str] = []

    def look(self, wall_ns: int) -> Sighting:
        """Return what is seen now.

        Args:
            wall_ns: What the device's clock shows, for the events that bring their own time.
        """
        dice = self._dice
        kind = dice.choice(
            ("quality_check", "inventory_count", "safety_alert", "custom", "operator_feedback")
        )
        body: dict[str, Any] = {"eventType": kind, "eventData": self._data(kind), "images": []}
        if (use_case := self._use_case()) is not None:
            body["useCaseId"] = use_case
        if dice.random() < 0.5:
            body |= {"deviceId": "press-03", "streamId": f"cam {dice.randrange(4)}"}
        if dice.random() < 0.3:
            body["customMetadata"] = {
                "shift": dice.choice(_WORDS),
                "tool wear": dice.randrange(1000) / 64,
                "lot": dice.randrange(10**6),
                "manual": dice.random() < 0.5,
            }
        if dice.random() < 0.4:
            body["eventId"] = self._event_id()
        if dice.random() < 0.1:
            moment = datetime.fromtimestamp(wall_ns // 10**9, UTC)
            seen = max(
                moment - timedelta(seconds=dice.randrange(100)), datetime(1970, 1, 1, tzinfo=UTC)
            )
            body["timestamp"] = seen.isoformat(timespec="microseconds")
        sighting = Sighting(body)
        if dice.random() < 0.6:
            for index in range(dice.choice((1, 1, 1, 2, 3))):
                self._add_image(sighting, index)
            if dice.random() < 0.5:
                body["displayImagePosition"] = dice.randrange(len(body["images"]))
        return sighting

    def _use_case(self) -> str | None:
        chance = self._dice.random()
        if chance < 0.5:
            return None
        return LATER_USE_CASE if chance > 0.97 else LINE_USE_CASE

    def _data(self, kind: str) -> dict[str, Any]:
        dice = self._dice
        if kind == "quality_check":
            return {"result": dice.choice(("pass", "fail")), "externalId": str(dice.random())}
        if kind == "inventory_count":
            return {"itemCount": dice.randrange(10**6), "location": "yard/rack-b"}
        if kind == "safety_alert":
            return {"alertType": "no_hardhat", "severity": "high", "description": "x" * 40}
        if kind == "operator_feedback":
            return {"relatedEventId": str(dice.random()), "feedback": "incorrect"}
        return {"value": POISON if dice.random() < 0.03 else dice.choice(_WORDS)}

    def _event_id(self) -> str:
        dice = self._dice
        if self._shares_ids and self._recent_ids and dice.random() < 0.2:
            return dice.choice(self._recent_ids)
        made = uuid.UUID(int=dice.getrandbits(128), version=4)
        made_text = str(made) if dice.random() < 0.7 else f"evt-{made.hex[:12]}"
        self._recent_ids = [*self._recent_ids[-20:], made_text]
        return made_text

    def _add_image(self, sighting: Sighting, index: int) -> None:
        dice = self._dice
        image: dict[str, Any] = {}
        if dice.random() < 0.5:
            image["label"] = dice.choice(_WORDS)
        if dice.random() < 0.8:
            image["objectDetections"] = [self._box() for _ in range(dice.randrange(1, 6))]
        if dice.random() < 0.2:
            image["classifications"] = [{"class": "ok", "confidence": dice.randrange(65) / 64}]
        with_frame = dice.random() < self._frame_share
        if with_frame:
            sighting.frames[index, "sourceId"] = self._frame()
            if dice.random() < 0.2:
                sighting.frames[index, "inputSourceId"] = self._frame()
        if not image and not with_frame:
            image["label"] = "empty"
        sighting.body["images"].append(image)

    def _box(self) -> dict[str, Any]:
        # Values that float32 holds exactly: what arrives has to be equal and not just close.
        dice = self._dice
        numbers = {name: dice.randrange(8000) / 4 for name in ("x", "y", "width", "height")}
        return {"class": dice.choice(_WORDS), **numbers, "confidence": dice.randrange(65) / 64}

    def _frame(self) -> bytes:
        dice = self._dice
        if self._recent_frames and dice.random() < 0.3:
            return dice.choice(self._recent_frames)
        frame = b"\xff\xd8\xff\xe0" + dice.randbytes(dice.randrange(100, self._frame_size_max))
        self._recent_frames = [*self._recent_frames[-12:], frame]
        return frame
