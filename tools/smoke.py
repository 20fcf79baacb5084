"""What an installed vevents does for its user, in one go: append, read, deliver to the emulator.

Needs `vevents[emulate]`; `./dev wheels` runs it for its wheels.
"""

from __future__ import annotations

import os
import platform
import tempfile
from pathlib import Path

import vevents
from vevents import Event, EventLog, Image, ObjectDetection
from vevents.cli import main as cli
from vevents.emulator import EmulatorConfig, RunningEmulator

COUNT = 150


def main() -> None:
    box = ObjectDetection("burr", x=812.5, y=403, width=37, height=22, confidence=0.913)
    with (
        tempfile.TemporaryDirectory() as scratch,
        RunningEmulator(EmulatorConfig(api_keys=["smoke"], use_cases=["uc"])) as emulator,
    ):
        directory = Path(scratch) / "log"
        with EventLog(directory) as log:
            for i in range(COUNT):
                frame = b"\xff\xd8\xff\xe0" + i.to_bytes(300, "little")
                image = Image(frame if i % 10 == 0 else None, object_detections=[box])
                log.append(Event.quality_check(result="fail", use_case_id="uc", images=[image]))
            read = [log.decode(record) for record in log.read()]
            assert len(read) == COUNT
            assert read[0].images[0].object_detections[0].confidence == box.confidence
        os.environ |= {"ROBOFLOW_API_KEY": "smoke", "API_URL": emulator.url, "NO_PROXY": "*"}
        code = cli(["flush", "--dir", str(directory)])
        assert code == 0, f"vevents flush ended with {code}"
        with EventLog(directory, read_only=True) as log:
            stats = log.stats()
        assert stats.conserved
        assert stats.delivered == COUNT, stats
    print(f"{vevents.__version__} on {platform.machine()}: {COUNT} events appended and delivered")


if __name__ == "__main__":
    main()
