"""The emulator over HTTP: every endpoint, with the statuses and bodies of the contract."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import logging
import tarfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from vevents.emulator import ApiKey, EmulatorConfig, Fault, RunningEmulator

KEY = "rf_secret_0123456789"
JPEG = b"\xff\xd8\xff\xe0" + b"pixels"
FORBIDDEN = {"error": "Insufficient permissions for this resource."}


@contextlib.contextmanager
def running(**settings: Any) -> Iterator[tuple[RunningEmulator, httpx.Client]]:
    defaults: dict[str, Any] = {
        "database": ":memory:",
        "api_keys": [KEY],
        "use_cases": [("uc-1", "Line 1")],
    }
    with (
        RunningEmulator(EmulatorConfig(**(defaults | settings))) as emulator,
        httpx.Client(
            base_url=emulator.url, headers={"Authorization": f"Bearer {KEY}"}, trust_env=False
        ) as client,
    ):
        yield emulator, client


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[RunningEmulator, httpx.Client]]:
    with running() as both:
        yield both


@pytest.fixture
def emulator(shared: tuple[RunningEmulator, httpx.Client]) -> RunningEmulator:
    shared[0].clear()
    return shared[0]


@pytest.fixture
def client(shared: tuple[RunningEmulator, httpx.Client]) -> httpx.Client:
    # One emulator serves most of this file; every test finds it empty.
    shared[0].clear()
    return shared[1]


def event(event_id: str = "e-1", **fields: Any) -> dict[str, Any]:
    whole = {
        "eventId": event_id,
        "eventType": "quality_check",
        "useCaseId": "uc-1",
        "timestamp": ago(minutes=5),
        "eventData": {"result": "pass"},
    }
    return {name: value for name, value in (whole | fields).items() if value is not ...}


def ago(**delta: float) -> str:
    return (datetime.now(UTC) - timedelta(**delta)).isoformat()


def stored(emulator: RunningEmulator) -> list[str]:
    return [row["event"]["eventId"] for row in emulator.events()]


# --- POST /vision-events ---------------------------------------------------------------------


def test_create_and_overwrite(emulator: RunningEmulator, client: httpx.Client) -> None:
    for body in (event(deviceId="d"), event()):
        answer = client.post("/vision-events", json=body)
        assert answer.status_code == 201
        assert answer.json() == {"eventId": "e-1", "created": True}

    [row] = emulator.events()
    assert "deviceId" not in row["event"]
    assert row["posts"] == 2
    assert emulator.counts()["overwrites"] == emulator.counts()["overwrites_changed"] == 1


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (event(eventType="?"), "eventType: "),
        (event(useCaseId="uc-2"), 'useCaseId: no use case "uc-2" exists'),
        (event(timestamp=ago(days=366)), "timestamp: is more than 365 days in the past"),
        (event(timestamp=ago(hours=-25)), "timestamp: is more than 24 hours in the future"),
        ([event()], "the request body must be a JSON object"),
        ({}, "eventId: is required; eventType: is required; useCaseId: is required; and 1 more"),
    ],
)
def test_an_invalid_event_is_400_and_counted(
    emulator: RunningEmulator, client: httpx.Client, body: Any, text: str
) -> None:
    answer = client.post("/vision-events", json=body)

    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]
    assert text in answer.json()["error"]
    assert stored(emulator) == []
    assert emulator.counts()["refused"] == {"400": 1}


@pytest.mark.parametrize(
    ("content", "headers", "status_code"),
    [
        (b'{"eventId": NaN}', {"Content-Type": "application/json"}, 400),
        (b"{", {"Content-Type": "application/json"}, 400),
        (b"", {"Content-Type": "application/json"}, 400),
        (b"{}", {"Content-Type": "text/plain"}, 400),
        (b"{}", {}, 400),
        (b"{}", {"Content-Type": "application/json", "Content-Encoding": "br"}, 415),
        (b"{}", {"Content-Type": "application/json", "Content-Encoding": "gzip"}, 400),
    ],
)
def test_bodies_that_are_no_json(
    client: httpx.Client, content: Any, headers: Any, status_code: int
) -> None:
    answer = client.post("/vision-events", content=content, headers=headers)

    assert answer.status_code == status_code
    assert answer.json()["error"]


def test_gzipped_bodies(emulator: RunningEmulator, client: httpx.Client) -> None:
    answer = client.post(
        "/vision-events",
        content=gzip.compress(json.dumps(event()).encode()),
        headers={"Content-Type": "application/json; charset=utf-8", "Content-Encoding": "gzip"},
    )

    assert answer.status_code == 201
    assert stored(emulator) == ["e-1"]


def test_the_limit_of_json_bodies() -> None:
    body = json.dumps(event()).encode()
    json_type = {"Content-Type": "application/json"}
    with running(json_size_max=len(body)) as (emulator, client):
        exact = client.post("/vision-events", content=body, headers=json_type)
        longer = client.post("/vision-events", content=body + b" ", headers=json_type)
        chunked = client.post("/vision-events", content=iter([body, b" "]), headers=json_type)
        packed = client.post(
            "/vision-events",
            content=gzip.compress(body + b" " * 100_000),
            headers=json_type | {"Content-Encoding": "gzip"},
        )
        counts = emulator.counts()

    assert exact.status_code == 201
    assert [each.status_code for each in (longer, chunked, packed)] == [413, 413, 413]
    assert longer.json() == {"error": f"the request body is larger than {len(body)} bytes"}
    assert counts["refused"] == {"413": 3}


def test_a_large_refused_body_does_not_break_the_connection() -> None:
    with running(json_size_max=1000) as (_, client):
        refused = client.post(
            "/vision-events",
            content=b" " * 3_000_000,
            headers={"Content-Type": "application/json"},
        )
        assert refused.status_code == 413
        assert client.post("/vision-events", json=event()).status_code == 201


# --- POST /vision-events/batch ---------------------------------------------------------------


def test_a_batch(emulator: RunningEmulator, client: httpx.Client) -> None:
    answer = client.post(
        "/vision-events/batch", json={"events": [event(f"e-{n}") for n in range(100)]}
    )

    assert answer.status_code == 201
    assert answer.json() == {"created": 100, "eventIds": [f"e-{n}" for n in range(100)]}
    assert stored(emulator) == answer.json()["eventIds"]
    assert emulator.counts()["posts"] == 1


def test_of_equal_ids_in_a_batch_the_last_wins(
    emulator: RunningEmulator, client: httpx.Client
) -> None:
    body = {"events": [event("a", deviceId="1"), event("b"), event("a", deviceId="2")]}

    answer = client.post("/vision-events/batch", json=body)

    assert answer.json() == {"created": 2, "eventIds": ["a", "b"]}
    assert emulator.events(event_id="a")[0]["event"]["deviceId"] == "2"
    assert emulator.counts()["overwrites"] == 0


BAD_BATCH = {"events": [event("a"), event("b", eventType="?"), event("c", timestamp="?"), 7]}


def test_one_bad_event_refuses_the_whole_batch(
    emulator: RunningEmulator, client: httpx.Client
) -> None:
    answer = client.post("/vision-events/batch", json=BAD_BATCH)

    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error.startswith('events[1].eventType: "?" is not one of')
    assert "; events[2].timestamp: " in error
    assert "; events[3]: must be an object, not a number" in error
    assert stored(emulator) == []


def test_a_partial_batch_stores_the_good_ones() -> None:
    with running(partial_batches=True) as (emulator, client):
        answer = client.post("/vision-events/batch", json=BAD_BATCH)
        none = client.post("/vision-events/batch", json={"events": [7]})

        assert answer.status_code == 201
        assert answer.json() == {"created": 1, "eventIds": ["a"]}
        assert stored(emulator) == ["a"]
        assert none.status_code == 400


@pytest.mark.parametrize("events", [[], [event(f"e-{n}") for n in range(101)], {}, None])
def test_batches_of_the_wrong_size(
    emulator: RunningEmulator, client: httpx.Client, events: Any
) -> None:
    answer = client.post("/vision-events/batch", json={"events": events})

    assert answer.status_code == 400
    assert answer.json()["error"].startswith("events: ")
    assert stored(emulator) == []


# --- POST /vision-events/upload ---------------------------------------------------------------


def test_upload(emulator: RunningEmulator, client: httpx.Client) -> None:
    answer = client.post(
        "/vision-events/upload",
        files={"file": ("part.jpg", JPEG, "application/octet-stream")},
        data={"name": "part 7", "metadata": '{"line": "P3", "hot": true}'},
    )

    assert answer.status_code == 201
    body = answer.json()
    assert body["success"] is True
    [image] = emulator.images()
    assert image["source_id"] == body["sourceId"]
    assert image["sha256"] == hashlib.sha256(JPEG).hexdigest()
    assert (image["size"], image["mime"], image["name"]) == (len(JPEG), "image/jpeg", "part 7")
    assert image["metadata"] == {"line": "P3", "hot": True}
    assert image["orphaned"] is True
    fetched = httpx.get(body["url"], trust_env=False)
    assert (fetched.content, fetched.headers["content-type"]) == (JPEG, "image/jpeg")


def test_the_same_image_twice_gives_two_ids_and_the_name_of_the_file(
    emulator: RunningEmulator, client: httpx.Client
) -> None:
    ids = {
        client.post("/vision-events/upload", files={"file": ("a.jpg", JPEG)}).json()["sourceId"]
        for _ in range(2)
    }

    assert len(ids) == 2
    assert emulator.images()[0]["name"] == "a.jpg"
    assert emulator.counts()["images_duplicate"] == 1


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ({"files": {"file": ("a.jpg", b"<html></html>")}}, "file: is not JPEG, PNG, WebP"),
        ({"files": {"file": ("a.jpg", b"")}}, "file: is not JPEG"),
        ({"files": {"image": ("a.jpg", JPEG)}}, "file: a part with a file is required"),
        ({"files": {"file": (None, JPEG)}}, "file: a part with a file is required"),
        ({"files": [("file", ("a", JPEG)), ("file", ("b", JPEG))]}, "Too many files"),
        ({"files": {"file": ("a", JPEG)}, "data": {"metadata": "{"}}, "metadata is not valid"),
        ({"files": {"file": ("a", JPEG)}, "data": {"metadata": "[]"}}, "metadata: must be an ob"),
        (
            {"files": {"file": ("a", JPEG)}, "data": {"metadata": '{"a": null}'}},
            "metadata.a: must be a string or a number or a boolean, not null",
        ),
        (
            {"files": {"file": ("a", JPEG)}, "data": {"metadata": '{"a.b": 1}'}},
            'metadata: key "a.b"',
        ),
        ({"data": {"file": "x"}}, "Content-Type must be multipart/form-data"),
        (
            {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}},
            "Missing boundary",
        ),
        (
            {"content": b"x", "headers": {"Content-Type": "multipart/form-data; boundary=b"}},
            "Invalid multipart data",
        ),
        (
            {"content": b"--b--", "headers": {"Content-Type": "multipart/form-data; boundary=b"}},
            "file: a part with a file is required",
        ),
    ],
)
def test_uploads_that_are_refused(
    emulator: RunningEmulator, client: httpx.Client, form: Any, text: str
) -> None:
    answer = client.post("/vision-events/upload", **form)

    assert answer.status_code == 400
    assert text in answer.json()["error"]
    assert emulator.counts()["images"] == 0


def test_the_limit_of_images() -> None:
    with running(image_size_max=2_000_000) as (emulator, client):
        exact, longer, far_longer = (
            client.post("/vision-events/upload", files={"file": ("a", JPEG.ljust(size))})
            for size in (2_000_000, 2_000_001, 4_000_000)
        )
        counts = emulator.counts()

    assert exact.status_code == 201
    assert [longer.status_code, far_longer.status_code] == [413, 413]
    assert "2000000" in longer.json()["error"]
    assert counts["images"] == 1


# --- POST /vision-events/bundle ---------------------------------------------------------------


def bundle(images: list[dict[str, Any]], **fields: Any) -> bytes:
    payload = event(bundleFormatVersion=1, images=images, **fields)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, data in (
            ("payload.json", json.dumps(payload).encode()),
            ("images/a.jpg", JPEG),
            ("images/b.jpg", JPEG + b"b"),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def post_bundle(client: httpx.Client, content: bytes, **params: str) -> httpx.Response:
    return client.post(
        "/vision-events/bundle",
        content=content,
        params=params,
        headers={"Content-Type": "application/gzip"},
    )


def test_a_bundle_brings_event_and_images(emulator: RunningEmulator, client: httpx.Client) -> None:
    content = bundle([{"file": "images/a.jpg", "inputFile": "images/b.jpg"}], useCaseId=...)

    for _ in range(2):
        answer = post_bundle(client, content, useCaseId="uc-1")
        assert answer.status_code == 201
        assert answer.json() == {"eventId": "e-1", "created": True}

    [row] = emulator.events()
    [entry] = row["event"]["images"]
    images = {image["source_id"]: image["sha256"] for image in emulator.images()}
    assert images[entry["sourceId"]] == hashlib.sha256(JPEG).hexdigest()
    assert images[entry["inputSourceId"]] == hashlib.sha256(JPEG + b"b").hexdigest()
    counts = emulator.counts()
    assert (counts["images"], counts["images_orphaned"], counts["overwrites"]) == (2, 0, 1)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"no archive", "the bundle is not a valid tar archive"),
        (bundle([], useCaseId=...), "useCaseId: is neither in the bundle"),
        (bundle([], useCaseId="uc-9"), 'useCaseId: no use case "uc-9" exists'),
        (bundle([], timestamp="?"), "timestamp: "),
        (bundle([{"file": "images/c.jpg"}]), "images[0].file: 'images/c.jpg' is not in the arc"),
        (bundle(["images/a.jpg"]), "images[0]: must be an object"),  # type: ignore[list-item]
    ],
)
def test_bundles_that_are_refused(
    emulator: RunningEmulator, client: httpx.Client, content: Any, text: str
) -> None:
    answer = post_bundle(client, content)

    assert answer.status_code == 400
    assert text in answer.json()["error"]
    assert (emulator.counts()["events"], emulator.counts()["images"]) == (0, 0)


def test_the_limit_of_bundles() -> None:
    content = bundle([])
    with running(bundle_size_max=len(content)) as (_, client):
        assert post_bundle(client, content).status_code == 201
        longer = post_bundle(client, content + b"\0")

    assert longer.status_code == 413
    assert longer.json() == {"error": f"the bundle is larger than {len(content)} bytes"}


def test_a_degraded_bundle_keeps_the_event_alone() -> None:
    with running(degrade_images=True) as (emulator, client):
        images = [{"file": "images/a.jpg"}, {"file": "images/c.jpg"}]
        answer = post_bundle(client, bundle(images, displayImagePosition=0))
        bad_event = post_bundle(client, bundle(images, eventId="e-2", eventType="?"))
        [row] = emulator.events()
        image_count = emulator.counts()["images"]

    assert answer.status_code == 201
    assert "images" not in row["event"]
    assert row["warnings"] == [
        "all images were dropped: images[1].file: 'images/c.jpg' is not in the archive"
    ]
    assert image_count == 0
    assert bad_event.status_code == 400


# --- POST /vision-events/query ----------------------------------------------------------------


def query(client: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = client.post("/vision-events/query", json={"useCaseId": "uc-1"} | body)
    assert answer.status_code == 200, answer.text
    page: dict[str, Any] = answer.json()
    return page


def test_query_gives_back_what_was_sent_newest_first(client: httpx.Client) -> None:
    sent = [event(f"e-{days}", timestamp=ago(days=days)) for days in (3, 1, 2)]
    client.post("/vision-events/batch", json={"events": sent})

    page = query(client)

    assert page["events"] == [sent[1], sent[2], sent[0]]
    assert (page["nextCursor"], page["hasMore"], page["lookbackDays"]) == (None, False, 14)


def test_query_pages(client: httpx.Client) -> None:
    client.post("/vision-events/batch", json={"events": [event(f"e-{n}") for n in range(5)]})

    first = query(client, limit=3)
    second = query(client, limit=3, cursor=first["nextCursor"])

    assert first["hasMore"] is True
    assert (second["hasMore"], second["nextCursor"]) == (False, None)
    seen = [each["eventId"] for page in (first, second) for each in page["events"]]
    assert sorted(seen) == [f"e-{n}" for n in range(5)]


def test_late_events_are_accepted_and_not_shown(
    emulator: RunningEmulator, client: httpx.Client
) -> None:
    client.post("/vision-events", json=event(timestamp=ago(days=15)))

    assert query(client)["events"] == []
    assert stored(emulator) == ["e-1"]


def test_query_filters(client: httpx.Client) -> None:
    client.post(
        "/vision-events/batch",
        json={
            "events": [
                event("a", deviceId="d-1", customMetadata={"temperature": 71}),
                event("b", deviceId="d-2", customMetadata={"temperature": 69}),
                event("c", eventData={"result": "fail"}),
            ]
        },
    )

    warm = {"field": "temperature", "operator": "gt", "value": 70, "type": "number"}
    failed = {"column": "result", "operator": "eq", "value": "fail"}
    for body, expected in (
        ({"customMetadataFilters": [warm]}, ["a"]),
        ({"eventFieldFilters": [failed]}, ["c"]),
        ({"deviceId": {"operator": "neq", "value": "d-1"}}, ["b"]),
        ({"eventTypes": ["custom"]}, []),
    ):
        assert [each["eventId"] for each in query(client, **body)["events"]] == expected


@pytest.mark.parametrize("body", [{}, {"useCaseId": "uc-9"}, {"useCaseId": "uc-1", "cursor": "?"}])
def test_queries_that_are_refused(client: httpx.Client, body: Any) -> None:
    answer = client.post("/vision-events/query", json=body)

    assert answer.status_code == 400
    assert answer.json()["error"]


# --- use cases ----------------------------------------------------------------------------------


def listed(client: httpx.Client, **params: str) -> dict[str, str]:
    answer = client.get("/vision-events/use-cases", params=params)
    assert answer.status_code == 200
    assert answer.json()["lookbackDays"] == 14
    return {each["name"]: each["status"] for each in answer.json()["useCases"]}


def test_the_life_of_a_use_case() -> None:
    with running() as (_, client):
        created = client.post("/vision-events/use-cases", json={"name": "  Line 2 "})
        path = f"/vision-events/use-cases/{created.json()['id']}"
        assert created.status_code == 201
        assert created.json() == {"id": path.rpartition("/")[2], "name": "Line 2"}
        assert listed(client) == {"Line 1": "active", "Line 2": "active"}

        renamed = client.put(path, json={"name": "Line two"})
        assert renamed.status_code == 200
        assert renamed.json() == created.json() | {"name": "Line two"}

        active = client.post(f"{path}/unarchive")
        assert (active.status_code, list(active.json())) == (400, ["error"])
        archived = client.post(f"{path}/archive")
        assert (archived.status_code, archived.json()) == (200, {"success": True})
        assert listed(client, status="active") == {"Line 1": "active"}
        assert listed(client, status="inactive") == {"Line two": "inactive"}

        # Archived ones still take events and can be read.
        into = event(useCaseId=created.json()["id"])
        assert client.post("/vision-events", json=into).status_code == 201
        assert query(client, useCaseId=created.json()["id"])["events"] == [into]

        unarchived = client.post(f"{path}/unarchive")
        assert (unarchived.status_code, unarchived.json()) == (200, {"success": True})
        assert listed(client) == {"Line 1": "active", "Line two": "active"}


def test_the_list_counts_events(client: httpx.Client) -> None:
    client.post("/vision-events/batch", json={"events": [event("a"), event("b")]})

    [use_case] = client.get("/vision-events/use-cases").json()["useCases"]

    assert use_case == {"id": "uc-1", "name": "Line 1", "status": "active", "eventCount": 2}


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"name": "Line 1"}, "A solution with this name already exists"),
        ({"name": " Line 1 "}, "A solution with this name already exists"),
        ({"name": "   "}, "name: must have 1 to 256 characters"),
        ({"name": "n" * 257}, "name: must have 1 to 256 characters"),
        ({"name": 7}, "name: must be a string, not a number"),
        ({}, "name: is required"),
    ],
)
def test_names_that_are_refused(client: httpx.Client, body: Any, error: Any) -> None:
    answer = client.post("/vision-events/use-cases", json=body)

    assert (answer.status_code, answer.json()) == (400, {"error": error})


def test_a_rename_to_a_taken_name() -> None:
    with running(use_cases=["uc-1=Line 1", "uc-2=Line 2"]) as (_, client):
        taken = client.put("/vision-events/use-cases/uc-2", json={"name": "Line 1"})

    assert taken.status_code == 400
    assert taken.json() == {"error": "A solution with this name already exists"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "use-cases/unknown"),
        ("POST", "use-cases/unknown/archive"),
        ("POST", "use-cases/unknown/unarchive"),
        ("GET", "custom-metadata-schema/unknown"),
    ],
)
def test_unknown_use_cases_are_404(client: httpx.Client, method: str, path: str) -> None:
    answer = client.request(method, f"/vision-events/{path}", json={"name": "Line 9"})

    assert answer.status_code == 404
    assert list(answer.json()) == ["error"]


def test_the_metadata_schema(client: httpx.Client) -> None:
    assert client.get("/vision-events/custom-metadata-schema/uc-1").json() == {"fields": {}}
    for event_id, metadata in (("a", {"row": 4, "hot": True}), ("b", {"row": "4"})):
        client.post("/vision-events", json=event(event_id, customMetadata=metadata))

    answer = client.get("/vision-events/custom-metadata-schema/uc-1")

    assert answer.status_code == 200
    assert answer.json() == {
        "fields": {"hot": {"types": ["boolean"]}, "row": {"types": ["number", "string"]}}
    }


# --- keys, scopes, limits ------------------------------------------------------------------------

ENDPOINTS = [
    ("POST", "", "write"),
    ("POST", "/batch", "write"),
    ("POST", "/upload", "write"),
    ("POST", "/bundle", "write"),
    ("POST", "/query", "read"),
    ("GET", "/use-cases", "read"),
    ("POST", "/use-cases", "manage"),
    ("PUT", "/use-cases/uc-1", "manage"),
    ("POST", "/use-cases/uc-1/archive", "manage"),
    ("POST", "/use-cases/uc-1/unarchive", "manage"),
    ("GET", "/custom-metadata-schema/uc-1", "read"),
]


@pytest.mark.parametrize(("method", "path", "_need"), ENDPOINTS)
def test_every_endpoint_wants_a_key(
    emulator: RunningEmulator, client: httpx.Client, method: str, path: str, _need: str
) -> None:
    for authorization in ("", "Bearer wrong", f"Basic {KEY}", "Bearer", KEY, "Bearer schlüssel"):
        answer = client.request(
            method,
            f"/vision-events{path}",
            headers=[(b"Authorization", authorization.encode())],
            params={"api_key": "wrong"},
        )
        assert answer.status_code == 401
        assert list(answer.json()) == ["error"]
        assert KEY not in answer.text
    assert emulator.counts()["refused"] == {"401": 6}


@pytest.mark.parametrize(
    ("headers", "params"),
    [
        ({"Authorization": f"Bearer {KEY}"}, {}),
        ({"Authorization": f"bearer {KEY}"}, {}),
        ({}, {"api_key": KEY}),
        ({"Authorization": "Bearer wrong"}, {"api_key": KEY}),
    ],
)
def test_both_ways_to_give_the_key(emulator: RunningEmulator, headers: Any, params: Any) -> None:
    answer = httpx.post(
        f"{emulator.url}/vision-events",
        json=event(),
        params=params,
        headers=headers,
        trust_env=False,
    )

    assert answer.status_code == 201


@pytest.fixture(scope="module")
def scoped() -> Iterator[httpx.Client]:
    keys = [
        KEY,
        ApiKey("write", ["visionEvents.write"]),
        ApiKey("read", ["vision-events:read"]),
        ApiKey("manage", ["vision-events:manage"]),
        ApiKey("device", ["device:read", "device.update"]),
    ]
    with running(api_keys=keys) as (_, client):
        yield client


@pytest.mark.parametrize(("method", "path", "need"), ENDPOINTS)
def test_scopes(scoped: httpx.Client, method: str, path: str, need: str) -> None:
    for key in ("write", "read", "manage", "device"):
        answer = scoped.request(
            method, f"/vision-events{path}", headers={"Authorization": f"Bearer {key}"}
        )
        if key == need or (key == "device" and need in ("read", "write")):
            assert answer.status_code in (200, 400)
        else:
            assert (answer.status_code, answer.json()) == (403, FORBIDDEN)


def test_the_rate_limit() -> None:
    with running(rate_limit_per_s=0.01, rate_limit_burst=2) as (emulator, client):
        answers = [client.get("/vision-events/use-cases") for _ in range(3)]
        counts = emulator.counts()

    assert [each.status_code for each in answers] == [200, 200, 429]
    assert 90 <= int(answers[2].headers["retry-after"]) <= 100
    assert list(answers[2].json()) == ["error"]
    assert counts["refused"] == {"429": 1}


@pytest.mark.parametrize(
    ("method", "path", "status_code"),
    [
        ("GET", "/", 404),
        ("GET", "/vision-events/unknown", 404),
        ("GET", "/vision-events/use-cases/uc-1/archive/x", 404),
        ("GET", "/vision-events/batch", 405),
        ("DELETE", "/vision-events", 405),
    ],
)
def test_paths_and_methods_that_do_not_exist(
    client: httpx.Client, method: str, path: str, status_code: int
) -> None:
    answer = client.request(method, path)

    assert answer.status_code == status_code
    assert list(answer.json()) == ["error"]


# --- options -------------------------------------------------------------------------------------


def test_strict_options() -> None:
    with running(strict_event_data=True, strict_fields=True, require_known_images=True) as both:
        emulator, client = both
        source_id = client.post("/vision-events/upload", files={"file": ("a.jpg", JPEG)}).json()[
            "sourceId"
        ]
        errors = [
            client.post("/vision-events", json=body).json().get("error")
            for body in (
                event(eventData=...),
                event(track=1),
                event(images=[{"sourceId": source_id}, {"inputSourceId": "ve-img-9"}]),
                event(images=[{"sourceId": source_id}]),
            )
        ]
        in_bundle = post_bundle(client, bundle([{"file": "images/a.jpg"}], eventId="e-2"))
        assert stored(emulator) == ["e-1", "e-2"]

    assert errors == [
        "eventData: is required",
        "track: is not a field of the API",
        "images: no image 've-img-9' was uploaded",
        None,
    ]
    assert in_bundle.status_code == 201


def test_degrading_answers_201_and_warns_in_the_stored_event() -> None:
    crowd = [{"class": "c", "confidence": 1}] * 1001
    with running(degrade_images=True) as (emulator, client):
        answer = client.post("/vision-events", json=event(images=[{"classifications": crowd}]))
        [found] = query(client)["events"]
        counts = emulator.counts()

    assert answer.status_code == 201
    assert "images" not in found
    assert "images[0].classifications: has 1001 entries" in found["ingestionWarnings"][0]
    assert counts["events_with_warnings"] == 1


def test_the_access_log_shows_no_key(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with running(access_log=True) as (_, client):
        client.post("/vision-events", json=event(), params={"api_key": KEY})

    # httpx, on the other side, logs whole addresses: that is the client's affair.
    lines = [each for each in caplog.records if each.name != "httpx"]
    assert KEY not in " ".join(each.getMessage() for each in lines)
    [access] = [each.getMessage() for each in lines if each.name == "vevents.emulator.access"]
    assert access.startswith("POST /vision-events 201 ")


def test_without_the_option_there_is_no_access_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with running() as (_, client):
        # Whoever sets up logging later must not bring uvicorn's access log back.
        logging.getLogger("uvicorn.access").addHandler(caplog.handler)
        try:
            client.post("/vision-events", json=event(), params={"api_key": KEY})
        finally:
            logging.getLogger("uvicorn.access").removeHandler(caplog.handler)

    names = {each.name for each in caplog.records}
    assert "httpx" in names
    assert not names & {"vevents.emulator.access", "uvicorn.access"}


# --- /__emulator__ -------------------------------------------------------------------------------


def test_counts_over_http_are_those_of_the_object(
    emulator: RunningEmulator, client: httpx.Client
) -> None:
    client.post("/vision-events", json=event())
    client.post("/vision-events", json={})

    counts = httpx.get(f"{emulator.url}/__emulator__/counts", trust_env=False).json()

    assert counts == emulator.counts()
    assert counts | {"events": 1, "posts": 1, "refused": {"400": 1}, "injected": {}} == counts


def test_events_over_http(client: httpx.Client) -> None:
    client.post("/vision-events/batch", json={"events": [event(f"e-{n}") for n in range(5)]})

    def ids(**params: Any) -> list[str]:
        rows = client.get("/__emulator__/events", params=params).json()["events"]
        return [row["event"]["eventId"] for row in rows]

    assert ids() == [f"e-{n}" for n in range(5)]
    assert ids(event_id="e-3") == ["e-3"]
    assert ids(use_case_id="uc-9") == []
    second = client.get("/__emulator__/events?limit=2").json()["events"][-1]["seq"]
    assert ids(after=second, limit=2) == ["e-2", "e-3"]
    assert client.get("/__emulator__/events?limit=-1").status_code == 400


def test_images_over_http(client: httpx.Client) -> None:
    source_id = client.post("/vision-events/upload", files={"file": ("a", JPEG)}).json()["sourceId"]
    client.post("/vision-events/upload", files={"file": ("b", JPEG)})
    client.post("/vision-events", json=event(images=[{"sourceId": source_id}]))

    def names(**params: Any) -> list[str]:
        rows = client.get("/__emulator__/images", params=params).json()["images"]
        return [row["name"] for row in rows]

    assert names() == ["a", "b"]
    assert names(orphaned="true") == ["b"]
    assert names(orphaned="false") == ["a"]
    assert client.get("/__emulator__/images?orphaned=yes").status_code == 400
    assert client.get("/__emulator__/images/unknown").status_code == 404


def test_emptying_over_http(emulator: RunningEmulator, client: httpx.Client) -> None:
    client.post("/vision-events", json=event())

    assert client.delete("/__emulator__/events").json() == {"success": True}
    assert emulator.counts()["events"] == 0


def test_the_schema_over_http(client: httpx.Client) -> None:
    assert "event" in client.get("/__emulator__/schema").json()["$defs"]


def test_faults_over_http(client: httpx.Client) -> None:
    faults = "/__emulator__/faults"
    script = {"path": "/vision-events", "faults": [{"status": 503}], "repeat": 2}
    assert client.post(faults, json=script).status_code == 201
    assert client.post("/vision-events", json=event()).status_code == 503
    assert client.get(faults).json()["pending"] == 1
    assert client.get(faults).json()["injected"] == {"503": 1}
    assert client.delete(faults).status_code == 200
    assert client.post("/vision-events", json=event()).status_code == 201
    wrong = client.post(faults, json={"faults": [{"status": 1}]})
    assert (wrong.status_code, list(wrong.json())) == (400, ["error"])


# --- faults --------------------------------------------------------------------------------------


def test_a_scripted_answer(emulator: RunningEmulator, client: httpx.Client) -> None:
    emulator.faults.script(
        "/vision-events",
        Fault(status=429, headers={"Retry-After": "7"}),
        Fault(status=200, headers={"Content-Type": "text/html"}, body="<html>Log in</html>"),
        Fault(status=502, body=b"\0", stored=True),
    )

    busy, portal, late = (client.post("/vision-events", json=event()) for _ in range(3))

    assert (busy.status_code, busy.headers["retry-after"]) == (429, "7")
    assert busy.json() == {"error": "injected fault"}
    assert (portal.status_code, portal.headers["content-type"]) == (200, "text/html")
    assert portal.text == "<html>Log in</html>"
    assert (late.status_code, late.content) == (502, b"\0")
    assert emulator.counts()["posts"] == 1
    # The emulator itself refused nothing.
    assert emulator.counts()["refused"] == {}


@pytest.mark.parametrize("stored_first", [False, True])
@pytest.mark.parametrize("size", [10, 2_000_000])
def test_a_cut_connection(
    emulator: RunningEmulator, client: httpx.Client, stored_first: bool, size: int
) -> None:
    emulator.faults.script("/vision-events", Fault(drop=True, stored=stored_first))
    body = event(ignored="x" * size)

    with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
        client.post("/vision-events", json=body)

    assert stored(emulator) == (["e-1"] if stored_first else [])
    assert client.post("/vision-events", json=body).status_code == 201
    assert emulator.counts()["overwrites"] == int(stored_first)


def test_a_slow_answer(emulator: RunningEmulator, client: httpx.Client) -> None:
    emulator.faults.script("/vision-events", Fault(delay_s=600))

    with pytest.raises(httpx.ReadTimeout):
        client.post("/vision-events", json=event(), timeout=httpx.Timeout(30, read=0.05))
    assert stored(emulator) == []

    # The client gave up, but the request is on its way: a late event must not surprise it.
    emulator.faults.release()
    until = time.monotonic() + 30
    while not stored(emulator) and time.monotonic() < until:
        time.sleep(0.001)
    assert stored(emulator) == ["e-1"]


@pytest.mark.parametrize("status", [200, 204, 304])
def test_an_answer_without_a_body(
    emulator: RunningEmulator, client: httpx.Client, status: int
) -> None:
    emulator.faults.script("/vision-events", Fault(status=status))

    for expected in (status, 201):
        answer = client.post("/vision-events", json=event())
        assert answer.status_code == expected
    assert emulator.counts()["posts"] == 1


def test_introspection_never_fails(emulator: RunningEmulator, client: httpx.Client) -> None:
    emulator.faults.at_random(1, Fault(status=500))
    try:
        assert client.get("/vision-events/use-cases").status_code == 500
        assert client.get("/__emulator__/counts").status_code == 200
    finally:
        emulator.faults.clear()
