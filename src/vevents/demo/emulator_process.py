"""The process in which the demo's emulator runs: `python -m vevents.demo.emulator_process`.

It learns its settings on standard input and says on standard output that it listens. When its
standard input ends, it stops: so it never outlives the demo, however the demo ends.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading

from vevents.emulator import EmulatorConfig, serve


def main() -> None:
    """Serve until standard input ends."""
    settings = json.loads(sys.stdin.readline())
    # As strict as it can be: whatever it lets pass is documented to be right.
    config = EmulatorConfig(
        database=settings["database"],
        api_keys=[settings["api_key"]],
        use_cases=[(settings["use_case_id"], "vevents demo")],
        strict_event_data=True,
        strict_fields=True,
        require_known_images=True,
    )
    threading.Thread(target=_stop_with_the_demo, daemon=True).start()
    serve(config, port=settings["port"], on_ready=lambda _: print("listening", flush=True))


def _stop_with_the_demo() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
