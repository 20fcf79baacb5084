"""The official package's calls, backed by the log: the same code against both."""

from __future__ import annotations

import importlib
import inspect
import logging
from datetime import UTC, datetime

import pytest
from pictures_for_bundles import JPEG

from vevents import EventLog, EventValidationError, sdk
from vevents.cli import main
from vevents.emulator import EmulatorConfig, RunningEmulator
from vevents.errors import AuthorizationError, ConfigurationError, RefusedError, UnreachableError

KEY = "rf_secret_0123456789"
NOW = datetime.now(UTC).isoformat()


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VEVENTS_DIR", str(tmp_path / "log"))
    monkeypatch.setenv("API_URL", "http://127.0.0.1:9")
    monkeypatch.delenv("ROBOFLOW_API_KEY", raising=False)
    monkeypatch.setattr(sdk, "_warned", False)
    yield
    if sdk._log is not None:
        assert all(sdk._log.stats(stream).conserved for stream in ("events", "media"))
        sdk._log.close()
    sdk.use(None)


@pytest.fixture
def emulator(monkeypatch):
    config = EmulatorConfig(database=":memory:", api_keys=[KEY], use_cases=[("uc-1", "One")])
    with RunningEmulator(config) as running:
        monkeypatch.setenv("API_URL", running.url)
        yield running


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "part.jpg"
    path.write_bytes(JPEG)
    return str(path)


def event(number=1, **fields):
    return {
        "eventId": f"evt-{number}",
        "eventType": "quality_check",
        "useCaseId": "uc-1",
        "timestamp": NOW,
        "eventData": {"result": "pass"},
    } | fields


def shift(api, key, picture):
    """What somebody's existing program does."""
    image = api.upload_image(key, picture)
    first = event(1, images=[{"sourceId": image["sourceId"], "label": "frame"}])
    single = api.write_event(key, first)
    batch = api.write_batch(key, [event(2), event(3)])
    return single, batch


def stored(emulator):
    rows = []
    for row in emulator.events():
        for image in row["event"].get("images", []):
            assert image.pop("sourceId")
        rows.append(row["event"])
    return rows


def test_the_same_program_has_the_same_result_only_later(emulator, picture, monkeypatch, tmp_path):
    """First offline with the log, then delivered; compared with the official package."""
    online = emulator.url
    monkeypatch.setenv("API_URL", "http://127.0.0.1:9")
    single, batch = shift(sdk, KEY, picture)
    assert emulator.counts()["posts"] == 0
    monkeypatch.setenv("API_URL", online)
    monkeypatch.setenv("ROBOFLOW_API_KEY", KEY)
    assert main(["flush", "--quiet"]) == 0
    ours = stored(emulator)
    assert single == {"eventId": "evt-1", "created": True}
    assert batch == {"created": 2, "eventIds": ["evt-2", "evt-3"]}
    assert not [image for image in emulator.images() if image["orphaned"]]

    api = pytest.importorskip("roboflow.adapters.vision_events_api")
    monkeypatch.setattr(api, "_BASE", f"{online}/vision-events")
    assert shift(api, KEY, picture) == (single, batch)
    theirs = stored(emulator)
    for each in (*ours, *theirs):
        each["timestamp"] = datetime.fromisoformat(each["timestamp"])
    assert ours == theirs
    assert tmp_path.joinpath("log", "events.ring").exists()


def test_signatures_are_those_of_the_official_package():
    api = pytest.importorskip("roboflow.adapters.vision_events_api")
    theirs = {
        name: function
        for name, function in inspect.getmembers(api, inspect.isfunction)
        if function.__module__ == api.__name__ and not name.startswith("_")
    }
    assert len(theirs) >= 10
    for name, function in theirs.items():
        ours = inspect.signature(getattr(sdk, name)).parameters
        assert list(ours) == list(inspect.signature(function).parameters), name

    workspace = importlib.import_module("roboflow.core.workspace").Workspace
    for name, method in inspect.getmembers(workspace, inspect.isfunction):
        if "vision_event" not in name:
            continue
        ours = inspect.signature(getattr(sdk.Workspace, name)).parameters
        if name != "query_all_vision_events":
            assert list(ours) == list(inspect.signature(method).parameters), name


def test_what_only_the_server_knows_is_asked_of_it(emulator, monkeypatch):
    created = sdk.create_use_case(KEY, "Gate 7")
    assert created["name"] == "Gate 7"
    assert sdk.rename_use_case(KEY, created["id"], "Gate 8")["name"] == "Gate 8"
    assert sdk.archive_use_case(KEY, created["id"]) == {"success": True}
    assert [u["id"] for u in sdk.list_use_cases(KEY, "inactive")["useCases"]] == [created["id"]]
    assert sdk.unarchive_use_case(KEY, created["id"]) == {"success": True}
    assert len(sdk.list_use_cases(KEY)["useCases"]) == 2
    with pytest.raises(RefusedError):
        sdk.archive_use_case(KEY, "unknown")

    sdk.write_batch(None, [event(n, customMetadata={"line": 3}) for n in range(5)])
    assert sdk.query(KEY, {"useCaseId": "uc-1"})["events"] == []
    monkeypatch.setenv("ROBOFLOW_API_KEY", KEY)
    assert main(["flush", "--quiet"]) == 0
    workspace = sdk.Workspace()
    pages = list(workspace.query_all_vision_events("uc-1", limit=2, event_type="quality_check"))
    assert [len(page) for page in pages] == [2, 2, 1]
    schema = workspace.get_vision_event_metadata_schema("uc-1")
    assert schema["fields"] == {"line": {"types": ["number"]}}
    assert emulator.counts()["events"] == 5


def test_the_workspace_object_writes_without_a_network(picture):
    workspace = sdk.Workspace(KEY)
    image = workspace.upload_vision_event_image(picture)
    written = workspace.write_vision_event(event(images=[{"inputSourceId": image["sourceId"]}]))
    assert written["eventId"] == "evt-1"
    assert workspace.write_vision_events_batch([event(2)])["created"] == 1
    assert KEY not in repr(vars(workspace))
    with pytest.raises(UnreachableError):
        workspace.list_vision_event_use_cases()

    (first, _) = [sdk._log.decode(record) for record in sdk._log.read()]
    assert sdk._log.frame(first.images[0].input_frame) == JPEG


def test_an_image_of_the_log_may_be_named_by_another_process(picture, tmp_path):
    image = sdk.upload_image(None, picture)
    sdk._log.close()
    sdk.use(tmp_path / "log")

    sdk.write_event(None, event(images=[{"sourceId": image["sourceId"]}]))

    (record,) = sdk._log.read()
    assert sdk._log.frame(sdk._log.decode(record).images[0].frame) == JPEG


def test_ids_of_the_server_and_what_only_looks_like_ours_are_kept():
    ids = ["ve-img-abc123def456", "vevents-1-2-short"]
    sdk.write_event(None, event(images=[{"sourceId": each} for each in ids]))

    (record,) = sdk._log.read()
    assert [image.source_id for image in sdk._log.decode(record).images] == ids


def test_ids_and_times_may_be_left_out_and_none_is_left_out():
    written = sdk.write_event(
        None, {"eventType": "custom", "eventData": {"value": "x"}, "deviceId": None}
    )

    (record,) = sdk._log.read()
    assert written == {"eventId": record.event_id, "created": True}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"eventType": "defect"}, "eventType"),
        ({"eventData": {"result": "perhaps"}}, "eventData.result"),
        ({"timestamp": "yesterday"}, "timestamp"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_what_the_contract_refuses_is_refused_here_and_nothing_of_a_batch_is_written(change, field):
    with pytest.raises(EventValidationError) as caught:
        sdk.write_event(None, event(**change))
    assert caught.value.field == field
    with pytest.raises(EventValidationError) as caught:
        sdk.write_batch(None, [event(1), event(2, **change)])
    assert caught.value.field == f"events[1].{field}"
    with pytest.raises(EventValidationError, match="must be a dictionary"):
        sdk.write_event(None, [event()])
    sdk.write_event(None, event())
    assert sdk._log.stats().appended == 1


def test_more_than_a_hundred_at_once():
    assert sdk.write_batch(None, [event(n) for n in range(250)])["created"] == 250


def test_a_name_or_metadata_of_an_image_is_warned_about_once(picture, caplog):
    with caplog.at_level(logging.WARNING, "vevents"):
        sdk.upload_image(None, picture, name="part 7")
        sdk.upload_image(None, picture, metadata={"line": "P3"})

    assert len(caplog.messages) == 1
    assert sdk._log.stats("media").appended == 1


def test_an_existing_except_clause_catches_what_is_raised_here(emulator):
    """By the name under which the official module has it, too."""
    api = pytest.importorskip("roboflow.adapters.vision_events_api")
    assert issubclass(api.RoboflowError, Exception)
    for call in (
        lambda: sdk.write_event(KEY, {"eventType": "defect"}),
        lambda: sdk.query("rf_wrong", {"useCaseId": "uc-1"}),
        lambda: sdk.archive_use_case(KEY, "unknown"),
        lambda: sdk.query(None, {"useCaseId": "uc-1"}),
    ):
        with pytest.raises(sdk.RoboflowError):
            call()
    emulator.stop()
    with pytest.raises(sdk.RoboflowError):
        sdk.list_use_cases(KEY)


def test_missing_settings_are_named(monkeypatch, emulator):
    monkeypatch.delenv("VEVENTS_DIR")
    with pytest.raises(ConfigurationError, match="VEVENTS_DIR"):
        sdk.write_event(None, event())
    with pytest.raises(ConfigurationError, match="ROBOFLOW_API_KEY"):
        sdk.query(None, {"useCaseId": "uc-1"})
    with pytest.raises(AuthorizationError):
        sdk.query("rf_wrong", {"useCaseId": "uc-1"})
    assert emulator.counts()["events"] == 0


def test_a_log_of_the_callers_is_used_and_stays_open(tmp_path):
    with EventLog(tmp_path / "mine") as log:
        sdk.use(log)
        sdk.write_event(None, event())
        sdk.use(None)
        assert log.stats().pending == 1


def test_an_id_cannot_lead_to_another_endpoint(monkeypatch):
    paths = []
    monkeypatch.setattr(sdk, "_ask", lambda _key, _method, path, **_: paths.append(path))

    sdk.unarchive_use_case(KEY, "../upload?x#y")
    sdk.get_custom_metadata_schema(KEY, "a/b")

    assert paths == [
        "/vision-events/use-cases/..%2Fupload%3Fx%23y/unarchive",
        "/vision-events/custom-metadata-schema/a%2Fb",
    ]
