"""Write the expected bytes of new conformance cases. For existing ones it only looks.

Usage: regenerate.py [--force]

The bytes of a released format stay: logs of those days have to be read. So an existing
payload.hex or cloud.json that differs is reported, and overwritten with --force alone.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from conformance_case import directories, hex_text, json_text, load


def write(path: Path, text: str, *, force: bool) -> bool:
    """Write what a case expects, unless something else stands there. False: it does."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return True
    if path.exists() and not force:
        print(f"{path.parent.name}/{path.name} differs; left as it is", file=sys.stderr)
        return False
    path.write_text(text, encoding="utf-8")
    print(f"{path.parent.name}/{path.name} written")
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the expected bytes of new cases.")
    parser.add_argument("--force", action="store_true", help="overwrite what differs")
    force = parser.parse_args().force
    done = True
    for directory in directories():
        case = load(directory)
        payload = case.payload()
        done &= write(directory / "payload.hex", hex_text(payload), force=force)
        done &= write(directory / "cloud.json", json_text(case.cloud(payload)), force=force)
    return 0 if done else 1


if __name__ == "__main__":
    sys.exit(main())
