"""A plugin of Roboflow Workflows: a block that writes vision events to the log, in process.

    WORKFLOWS_PLUGINS=vevents.workflows

    inputs of the block -> Candidate -> cooldown: most important of a window -> EventLog

The names at the end of this file are what the Workflows engine looks for. The engine itself is
imported when it asks for the blocks, and not before.
"""

from __future__ import annotations

from typing import Final

from vevents.workflows.outlet import Outlet, outlet_of_settings

__all__ = ["BLOCKS_SOURCE", "REGISTERED_INITIALIZERS", "Outlet", "load_blocks"]

# Under this name the engine's host says whether sinks are switched off, as in a preview.
BLOCKS_SOURCE: Final = "workflows_core"

REGISTERED_INITIALIZERS: Final = {"vevents_log": outlet_of_settings}


def load_blocks() -> list[type]:
    """Return the blocks of this plugin.

    Raises:
        ImportError: The Workflows engine is not installed.
    """
    from vevents.workflows.block import VisionEventLogBlock

    return [VisionEventLogBlock]
