#!/usr/bin/env python3
"""A producer without vevents: events over HTTP to `vevents serve`; the standard library is enough.

    vevents serve --dir ./log &
    python examples/post_event.py --result fail frame.jpg

What got no answer, or the answer that there is no room now, is sent again as it was. The store
takes a body that comes again as the same event, so nothing doubles. A key, where the store has one,
comes from EVENT_INGESTION_API_KEY.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

# Full, at capacity, failed: later it may be otherwise. Any other refusal is for good.
TRY_AGAIN = (408, 503, 529)


def post(url: str, event: dict[str, object], patience_s: float) -> str:
    """Send an event until it is taken, and return its id."""
    # Made once: with another moment in it, it would be another event.
    body = json.dumps(event).encode()
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get("EVENT_INGESTION_API_KEY"):
        headers["X-API-Key"] = key
    # The store is on this machine: no proxy that the environment may name.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    give_up_s = time.monotonic() + patience_s
    wait_s = 0.1
    while True:
        request = urllib.request.Request(f"{url}/v2/events", body, headers)
        try:
            with opener.open(request, timeout=30) as answer:
                return str(json.load(answer)["id"])
        except urllib.error.HTTPError as error:
            reason = f"{error.code}: {error.read().decode(errors='replace')}"
            if error.code not in TRY_AGAIN:
                raise SystemExit(f"refused with {reason}") from None
        except OSError as error:
            reason = str(error)
        if time.monotonic() + wait_s > give_up_s:
            raise SystemExit(f"not taken: {reason}")
        time.sleep(wait_s)
        wait_s = min(2 * wait_s, 5.0)


def main() -> None:
    """Send one quality check with a picture."""
    parser = argparse.ArgumentParser(description="Send a quality check to the local event store.")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--result", choices=("pass", "fail"), default="pass")
    parser.add_argument("--url", default="http://127.0.0.1:8001")
    parser.add_argument("--patience", type=float, default=60.0, help="seconds to go on trying")
    given = parser.parse_args()

    picture = base64.b64encode(given.picture.read_bytes()).decode()
    event = {
        "inference_timestamp": datetime.now(UTC).isoformat(timespec="microseconds"),
        "event_schema": "quality_check",
        "event_data": {"result": given.result},
        "device_id": "press-03",
        "images": [{"base64Image": picture, "label": "top"}],
    }
    print(post(given.url, event, given.patience))


if __name__ == "__main__":
    main()
