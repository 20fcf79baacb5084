"""The official `roboflow` package, unchanged, against the emulator.

The package fixes the address of the API when it is imported, so it runs in a process of its own
which prints what it got back.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from vevents.emulator import ApiKey, EmulatorConfig, RunningEmulator

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("roboflow") is None, reason="needs the roboflow package"
)

KEY = "rf_secret_0123456789"
READ_ONLY_KEY = "rf_read_0123456789"
JPEG = b"\xff\xd8\xff\xe0" + b"pixels"

# One event per type and per kind of annotation, in the shapes that clients send.
EVENTS: list[dict[str, Any]] = [
    {
        "eventType": "quality_check",
        "timestamp": "Z3",
        "deviceId": "weld-cell-2",
        "streamId": "seam",
        "workflowId": "seam-check",
        "images": [
            {
                "sourceId": "ve-img-a1",
                "inputSourceId": "ve-img-a2",
                "label": "workflow",
                "objectDetections": [
                    {
                        "class": "pore",
                        "x": 401.5,
                        "y": 77.0,
                        "width": 6.0,
                        "height": 5,
                        "confidence": 0.71,
                    }
                ],
            }
        ],
        "displayImagePosition": 0,
        "eventData": {"result": "fail", "externalId": "seam-0042"},
        "customMetadata": {"robot": "R7", "current a": 182.5, "night shift": False},
    },
    {
        "eventType": "quality_check",
        "timestamp": "offset",
        "images": [],
        "eventData": {"result": "pass"},
    },
    {
        "eventType": "inventory_count",
        "timestamp": "Z0",
        "images": [
            {
                "sourceId": "ve-img-b1",
                "instanceSegmentations": [
                    {
                        "class": "crate",
                        "x": 320,
                        "y": 240,
                        "width": 100,
                        "height": 80,
                        "confidence": 1,
                        "points": [[270, 200], [370, 200.5], [320, 280]],
                    }
                ],
            }
        ],
        "eventData": {"location": "dock/4", "itemCount": 0, "itemType": "crate"},
        "customMetadata": {"row": 2},
    },
    {
        "eventType": "safety_alert",
        "timestamp": "offset",
        "images": [
            {
                "inputSourceId": "ve-img-c1",
                "keypoints": [
                    {
                        "class": "person",
                        "x": 50.0,
                        "y": 90.0,
                        "width": 40.0,
                        "height": 120.0,
                        "confidence": 0.93,
                        "keypoints": [{"id": 0, "x": 51.5, "y": 40.0}, {"id": 16, "x": 48, "y": 1}],
                    }
                ],
            }
        ],
        "displayImagePosition": 0,
        "eventData": {
            "alertType": "fall_detected",
            "severity": "low",
            "description": "Someone lies on the floor – gate 7",
            "externalId": "g7",
        },
    },
    {
        "eventType": "custom",
        "timestamp": "Z3",
        "images": [
            {
                "sourceId": "ve-img-d1",
                "classifications": [{"class": "open", "confidence": 0.5}],
                "objectDetections": [],
            }
        ],
        "eventData": {"value": "door"},
    },
    {
        "eventType": "operator_feedback",
        "timestamp": "Z0",
        "eventData": {"relatedEventId": "sdk-0", "feedback": "inconclusive"},
        "customMetadata": {"reviewer": "station 2"},
    },
]

CLIENT = textwrap.dedent(
    """
    import json, sys
    from roboflow.adapters import vision_events_api as api
    from roboflow.adapters.rfapi import RoboflowError
    from roboflow.core.workspace import Workspace

    given = json.loads(sys.stdin.read())
    key, use_case, events, image = given["key"], given["use_case"], given["events"], given["image"]
    results = {}

    def refused(call, *args):
        try:
            return {"answer": call(*args)}
        except RoboflowError as error:
            return json.loads(str(error))

    def ids(page):
        return [event["eventId"] for event in page]

    results["uploaded"] = api.upload_image(key, image, name="part 7", metadata={"line": "P3"})
    results["uploaded_bare"] = api.upload_image(key, image)
    events[0]["images"][0]["sourceId"] = results["uploaded"]["sourceId"]
    results["single"] = api.write_event(key, events[0])
    results["again"] = api.write_event(key, events[0])
    results["batch"] = api.write_batch(key, events[1:])
    results["page"] = api.query(key, {"useCaseId": use_case, "eventType": "quality_check"})

    info = {"workspace": {"name": "w", "projects": [], "url": "w"}}
    workspace = Workspace(info, key, "w", "yolo")
    results["pages"] = [ids(page) for page in workspace.query_all_vision_events(use_case, limit=4)]
    failed = {"column": "result", "operator": "eq", "value": "fail"}
    results["failed"] = ids(
        workspace.query_vision_events(use_case, eventFieldFilters=[failed])["events"]
    )
    results["schema"] = api.get_custom_metadata_schema(key, use_case)

    created = results["created"] = api.create_use_case(key, " Gate 7 ")
    results["taken"] = refused(api.create_use_case, key, "Gate 7")
    results["renamed"] = api.rename_use_case(key, created["id"], "Gate 8")
    results["archived"] = api.archive_use_case(key, created["id"])
    results["active"] = workspace.list_vision_event_use_cases()
    results["inactive"] = api.list_use_cases(key, "inactive")
    results["unarchived"] = api.unarchive_use_case(key, created["id"])
    results["not_archived"] = refused(api.unarchive_use_case, key, created["id"])
    results["unknown"] = refused(api.archive_use_case, key, "unknown")

    results["wrong_key"] = refused(api.write_event, "wrong", events[0])
    results["no_scope"] = refused(api.write_event, given["read_only_key"], events[0])
    bad = dict(events[0], eventType="defect")
    results["bad_event"] = refused(api.write_event, key, bad)
    results["bad_batch"] = refused(api.write_batch, key, [events[0], bad])
    results["long_batch"] = refused(api.write_batch, key, [events[0]] * 101)
    results["bad_query"] = refused(api.query, key, {})
    print(json.dumps(results))
    """
)


Run = tuple[dict[str, Any], list[dict[str, Any]], RunningEmulator]


def sent_events() -> list[dict[str, Any]]:
    """Return the events with ids, the use case, and times of the last hours in three forms."""
    now = datetime.now(UTC)
    sent = []
    for number, each in enumerate(EVENTS):
        moment = now - timedelta(minutes=number)
        forms = {
            "offset": moment.isoformat(),
            "Z3": moment.strftime("%Y-%m-%dT%H:%M:%S.123Z"),
            "Z0": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        sent.append(
            {"eventId": f"sdk-{number}", "useCaseId": "uc-sdk"}
            | each
            | {"timestamp": forms[each["timestamp"]]}
        )
    return sent


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("sdk")
    image = folder / "part.jpg"
    image.write_bytes(JPEG)
    config = EmulatorConfig(
        database=":memory:",
        api_keys=[KEY, ApiKey(READ_ONLY_KEY, ["vision-events:read"])],
        use_cases=[("uc-sdk", "SDK")],
        strict_event_data=True,
        strict_fields=True,
    )
    events = sent_events()
    with RunningEmulator(config) as emulator:
        given = {
            "key": KEY,
            "read_only_key": READ_ONLY_KEY,
            "use_case": "uc-sdk",
            "events": events,
            "image": str(image),
        }
        ran = subprocess.run(
            [sys.executable, "-c", CLIENT],
            input=json.dumps(given),
            capture_output=True,
            text=True,
            timeout=120,
            env=os.environ
            | {"API_URL": emulator.url, "HOME": str(folder), "NO_PROXY": "127.0.0.1"},
        )
        assert ran.returncode == 0, ran.stderr
        yield json.loads(ran.stdout), events, emulator


def test_images(run: Run) -> None:
    results, _, emulator = run
    named, bare = emulator.images()

    assert results["uploaded"]["sourceId"] == named["source_id"]
    assert results["uploaded_bare"]["sourceId"] == bare["source_id"]
    assert (named["name"], named["metadata"]) == ("part 7", {"line": "P3"})
    assert bare["name"] == "part.jpg"
    assert {named["sha256"], bare["sha256"]} == {hashlib.sha256(JPEG).hexdigest()}
    assert (named["orphaned"], bare["orphaned"]) == (False, True)


def test_events(run: Run) -> None:
    results, events, emulator = run
    events[0]["images"][0]["sourceId"] = results["uploaded"]["sourceId"]

    assert results["single"] == results["again"] == {"eventId": "sdk-0", "created": True}
    assert results["batch"] == {"created": 5, "eventIds": [f"sdk-{n}" for n in range(1, 6)]}
    assert [row["event"] for row in emulator.events()] == events
    counts = emulator.counts()
    assert (counts["posts"], counts["events"], counts["overwrites"]) == (3, 6, 1)
    assert counts["overwrites_changed"] == 0


def test_queries(run: Run) -> None:
    results, events, _ = run
    events[0]["images"][0]["sourceId"] = results["uploaded"]["sourceId"]

    assert results["page"]["events"] == events[:2]
    assert (results["page"]["hasMore"], results["page"]["lookbackDays"]) == (False, 14)
    assert results["pages"] == [["sdk-0", "sdk-1", "sdk-2", "sdk-3"], ["sdk-4", "sdk-5"]]
    assert results["failed"] == ["sdk-0"]
    assert results["schema"]["fields"]["night shift"] == {"types": ["boolean"]}
    assert results["schema"]["fields"]["current a"] == {"types": ["number"]}


def test_use_cases(run: Run) -> None:
    results, _, _ = run
    use_case_id = results["created"]["id"]

    assert results["created"] == {"id": use_case_id, "name": "Gate 7"}
    assert results["taken"] == {"error": "A solution with this name already exists"}
    assert results["renamed"] == {"id": use_case_id, "name": "Gate 8"}
    assert results["archived"] == results["unarchived"] == {"success": True}
    assert [each["id"] for each in results["active"]["useCases"]] == ["uc-sdk"]
    assert [each["id"] for each in results["inactive"]["useCases"]] == [use_case_id]
    assert list(results["not_archived"]) == ["error"]
    assert list(results["unknown"]) == ["error"]


def test_refusals(run: Run) -> None:
    results, _, emulator = run

    assert results["no_scope"] == {"error": "Insufficient permissions for this resource."}
    assert "API key" in results["wrong_key"]["error"]
    assert results["bad_event"]["error"].startswith('eventType: "defect" is not one of')
    assert results["bad_batch"]["error"].startswith('events[1].eventType: "defect"')
    assert results["long_batch"]["error"] == "events: has 101 entries, at most 100 are allowed"
    assert results["bad_query"]["error"] == "useCaseId: is required"
    assert emulator.counts()["refused"] == {"400": 6, "401": 1, "403": 1, "404": 1}
