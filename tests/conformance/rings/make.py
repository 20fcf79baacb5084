"""Make a log that stays as test data for its format version: make.py TARGET.tar.xz

Run once for every released version; later versions must read the file for ever.
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
import tempfile
from pathlib import Path

from vevents import Event, EventLog, Image, ObjectDetection

JPEG = b"\xff\xd8\xff\xe0" + bytes(range(256))


def make(directory: Path) -> dict[str, object]:
    """Fill a log so that it has sealed, reclaimed and half-full segments; return what is in it."""
    with EventLog(directory, events_size=1 << 20, media_size=1 << 20, delivery_size=1 << 20) as log:
        for i in range(12_000):
            box = ObjectDetection("burr", 10.5 + i, 20, 30.25, 40, 0.913)
            image = Image(JPEG + i.to_bytes(2, "little")) if i % 600 == 0 else Image()
            image = Image(image.frame, object_detections=[box], label=f"camera {i % 3}")
            log.append(
                Event.quality_check(result="fail", external_id=f"lot-{i * 7919}", images=[image])
            )
        last = log.stats().last_seq
        log.ack(range(last - 100, last - 50))
        log.mark([last - 10], "rejected")
        log.append_note({"kind": "upload", "media": 1, "sourceId": "ve-img-1"})
    with EventLog(directory, read_only=True) as log:
        records = list(log.read(states=("pending", "delivered", "rejected")))
        stats = {name: getattr(log.stats(), name) for name in ("appended", "evicted", "pending")}
        return {
            "stats": stats,
            "notes": [note for _, note in log.notes()],
            "frames": [record.seq for record in log.read("media")],
            "newest": [
                [r.seq, r.state, r.event_id, r.wall_ns, r.payload.hex()] for r in records[-200:]
            ],
            "count": len(records),
        }


def main(target: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch) / "log"
        expected = json.dumps(make(directory)).encode()
        with tarfile.open(target, "x:xz") as archive:
            info = tarfile.TarInfo("expected.json")
            info.size = len(expected)
            archive.addfile(info, io.BytesIO(expected))
            for path in sorted(directory.glob("*.ring")):
                info = tarfile.TarInfo(f"log/{path.name}")
                info.size = path.stat().st_size
                archive.addfile(info, io.BytesIO(path.read_bytes()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
