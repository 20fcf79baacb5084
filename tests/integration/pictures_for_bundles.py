"""A picture, and a bundle as Roboflow's block writes it."""

from __future__ import annotations

import io
import json
import tarfile
from datetime import UTC, datetime

import PIL.Image


def _jpeg() -> bytes:
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (32, 24), (200, 40, 40)).save(buffer, "JPEG")
    return buffer.getvalue()


def _official() -> bytes:
    payload = {
        "bundleFormatVersion": 1,
        "eventId": "0f0b7c1e-3f6a-4d52-9a3e-0d8f2b6c41aa",
        "eventType": "quality_check",
        "timestamp": datetime.now(UTC).isoformat(),
        "images": [{"file": "images/a.jpg", "inputFile": "images/b.jpg", "label": "workflow"}],
        "useCaseId": "uc-2",
        "eventData": {"result": "fail"},
        "displayImagePosition": 0,
    }
    members = {"payload.json": json.dumps(payload, indent=2).encode()}
    members |= {"images/a.jpg": JPEG, "images/b.jpg": JPEG + b"input"}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


JPEG = _jpeg()
OFFICIAL = _official()
