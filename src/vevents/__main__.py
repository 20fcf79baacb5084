"""`python -m vevents` is the same as `vevents`."""

from __future__ import annotations

import sys

from vevents.cli import main

if __name__ == "__main__":
    sys.exit(main())
