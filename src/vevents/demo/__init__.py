"""The whole way in one call: photographs, a detector, the log, an outage, the flush, the tally.

`run()` looks at real photographs with a real detector, appends what it saw (with the frames) to a
log on disk while there is no network, lets the network come back as an emulator in a process of its
own, flushes, and then asks the log and the emulator independently of each other what they hold.

Reading order: `photographs` (the camera), `detector`, `scenario` (the three phases), `compare` (the
two tallies), `report`.
"""

from __future__ import annotations

from vevents.demo.report import DemoReport
from vevents.demo.scenario import run

__all__ = ["DemoReport", "run"]
