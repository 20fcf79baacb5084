"""From a closed network to the cloud: export, a stick, import, and the emulator at the end."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest
from pictures_for_bundles import JPEG, OFFICIAL

from vevents.cli import main
from vevents.cli.exit_codes import ExitCode
from vevents.delivery.sender import StopReason
from vevents.emulator import EmulatorConfig, Fault, RunningEmulator
from vevents.event import Event, Image
from vevents.log import EventLog

KEY = "rf_secret_0123456789"


@pytest.fixture
def emulator(monkeypatch, tmp_path):
    config = EmulatorConfig(
        database=":memory:", api_keys=[KEY], use_cases=[("uc-1", "One"), ("uc-2", "Two")]
    )
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with RunningEmulator(config) as running:
        monkeypatch.setenv("API_URL", running.url)
        monkeypatch.setenv("ROBOFLOW_API_KEY", KEY)
        yield running


@pytest.fixture
def device(tmp_path):
    with EventLog(tmp_path / "device") as log:
        for number in range(6):
            image = Image(JPEG + bytes([number]), label="gate")
            log.append(Event.custom(value=f"event {number}", images=[image]))
    return tmp_path / "device"


def answer(capsys):
    return json.loads(capsys.readouterr().out)


def figures(directory):
    with EventLog(directory, read_only=True) as log:
        assert all(log.stats(stream).conserved for stream in ("events", "media"))
        return log.stats()


def test_through_another_log(emulator, device, tmp_path, capsys):
    stick, office = tmp_path / "stick", tmp_path / "office"
    assert main(["export", "--dir", str(device), "--bundles", str(stick), "--json"]) == 0
    assert answer(capsys)["exported"] == 6
    assert main(["import", str(stick), "--dir", str(office), "--json"]) == 0
    assert answer(capsys)["imported"] == 6
    assert main(["flush", "--dir", str(office), "--use-case", "uc-1", "--quiet"]) == 0

    events = emulator.events()
    assert {row["event"]["useCaseId"] for row in events} == {"uc-1"}
    values = sorted(row["event"]["eventData"]["value"] for row in events)
    assert values == [f"event {n}" for n in range(6)]
    assert not [image for image in emulator.images() if image["orphaned"]]
    assert figures(device).pending == 6

    capsys.readouterr()
    assert main(["export", "--dir", str(device), "--bundles", str(stick)]) == 0
    assert "6 events are marked as delivered: they have a receipt" in capsys.readouterr().out
    assert figures(device).delivered == 6
    # Everything once more, from the device's log, changes nothing there.
    with EventLog(device) as log:
        log.mark(range(1, 7), "pending")
    assert main(["flush", "--dir", str(device), "--use-case", "uc-1", "--quiet"]) == 0
    assert emulator.counts()["events"] == 6


def test_straight_to_the_api_event_and_image_together(emulator, device, tmp_path, capsys):
    stick = tmp_path / "stick"
    main(["export", "--dir", str(device), "--bundles", str(stick)])
    (stick / "event_0_official.tar.gz").write_bytes(OFFICIAL)
    (stick / "event_1_bad.tar.gz").write_bytes(b"no bundle")
    capsys.readouterr()

    code = main(["import", str(stick), "--upload", "--use-case", "uc-1", "--json"])

    report = answer(capsys)
    assert code == report["exit_code"] == ExitCode.REJECTED
    assert (report["imported"], report["refused"]) == (7, 1)
    rows = {row["event"]["eventId"]: row["event"] for row in emulator.events()}
    assert len(rows) == 7
    # The bundle's own use case stays, and the others get the one that was given.
    assert sorted(event["useCaseId"] for event in rows.values()) == ["uc-1"] * 6 + ["uc-2"]
    assert not [image for image in emulator.images() if image["orphaned"]]
    assert emulator.counts()["posts"] == 7

    assert main(["import", str(stick), "--upload", "--use-case", "uc-1", "--json"]) == 5
    assert answer(capsys)["already"] == 7
    assert main(["export", "--dir", str(device), "--bundles", str(stick), "--json"]) == 0
    assert answer(capsys)["received"] == 6


def test_an_upload_without_a_use_case_or_with_an_unknown_one(emulator, device, tmp_path, capsys):
    stick = tmp_path / "stick"
    main(["export", "--dir", str(device), "--bundles", str(stick)])

    assert main(["import", str(stick), "--upload"]) == ExitCode.REJECTED
    assert "useCaseId: is missing, and there is no default" in capsys.readouterr().err
    assert main(["import", str(stick), "--upload", "--use-case", "uc-9"]) == ExitCode.REJECTED
    assert emulator.counts()["events"] == 0
    assert not list(stick.glob("receipt_*"))


@pytest.mark.usefixtures("emulator")
def test_an_upload_that_does_not_get_through(device, tmp_path, capsys, monkeypatch):
    stick = tmp_path / "stick"
    main(["export", "--dir", str(device), "--bundles", str(stick)])
    upload = ["import", str(stick), "--upload", "--use-case", "uc-1", "--json"]
    capsys.readouterr()
    monkeypatch.setenv("ROBOFLOW_API_KEY", "rf_wrong")
    assert main(upload) == ExitCode.UNAUTHORIZED
    assert answer(capsys)["stopped_reason"] == StopReason.UNAUTHORIZED
    monkeypatch.setenv("ROBOFLOW_API_KEY", KEY)
    monkeypatch.setenv("API_URL", "http://127.0.0.1:9")
    assert main(upload) == ExitCode.TRY_LATER
    printed = capsys.readouterr()
    assert json.loads(printed.out)["stopped_reason"] == StopReason.OFFLINE
    assert KEY not in printed.err + printed.out
    monkeypatch.delenv("ROBOFLOW_API_KEY")
    assert main(upload) == ExitCode.USAGE


def test_a_bundle_that_the_server_fails_on_holds_up_no_other(
    emulator, device, tmp_path, capsys, monkeypatch
):
    stick = tmp_path / "stick"
    main(["export", "--dir", str(device), "--bundles", str(stick)])
    monkeypatch.setenv("VEVENTS_ATTEMPTS", "1")
    emulator.faults.script("/vision-events/bundle", Fault(status=500))
    upload = ["import", str(stick), "--upload", "--use-case", "uc-1", "--json"]
    capsys.readouterr()

    assert main(upload) == ExitCode.TRY_LATER

    report = answer(capsys)
    assert (report["imported"], report["failed"], report["stopped_reason"]) == (5, 1, None)
    [[name, reason]] = report["reasons"]
    assert name == min(path.name for path in stick.glob("event_*"))
    assert "the server failed (500)" in reason
    assert emulator.counts()["events"] == 5
    assert main(upload) == ExitCode.OK
    report = answer(capsys)
    assert (report["imported"], report["failed"], report["already"]) == (1, 0, 5)
    assert emulator.counts()["events"] == 6


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=200, body="<h1>log in</h1>"),
        Fault(status=200, body={"login": "/"}),
        Fault(status=404, body="<h1>404</h1>"),
    ],
)
def test_an_upload_into_a_guest_network_is_not_tried_with_every_file(
    emulator, device, tmp_path, capsys, fault
):
    stick = tmp_path / "stick"
    main(["export", "--dir", str(device), "--bundles", str(stick)])
    emulator.faults.at_random(1.0, fault)
    capsys.readouterr()

    code = main(["import", str(stick), "--upload", "--use-case", "uc-1", "--json"])

    report = answer(capsys)
    assert (code, report["stopped_reason"]) == (ExitCode.TRY_LATER, StopReason.OFFLINE)
    assert (report["imported"], report["refused"], report["failed"]) == (0, 0, 0)


def test_an_upload_to_a_wrong_address_refuses_no_file(
    emulator, device, tmp_path, capsys, monkeypatch
):
    stick = tmp_path / "stick"
    main(["export", "--dir", str(device), "--bundles", str(stick)])
    monkeypatch.setenv("API_URL", f"{emulator.url}/elsewhere")
    capsys.readouterr()

    assert main(["import", str(stick), "--upload", "--use-case", "uc-1"]) == ExitCode.TRY_LATER
    assert "check API_URL" in capsys.readouterr().err


@pytest.mark.usefixtures("emulator")
def test_limits_refusals_and_a_stick_that_is_not_there(device, tmp_path, capsys):
    stick = tmp_path / "stick"
    export = ["export", "--dir", str(device), "--bundles", str(stick)]
    assert main([*export, "--max-events", "2", "--json"]) == ExitCode.LIMIT
    report = answer(capsys)
    assert (report["exported"], report["pending_after"], report["exit_code"]) == (2, 6, 7)
    assert main([*export, "--max-bytes", "1B"]) == ExitCode.LIMIT
    assert "stopped: max-bytes; 6 events are pending" in capsys.readouterr().out
    assert main([*export, "--again", "--delivered"]) == ExitCode.OK
    assert "6 events are marked as delivered" in capsys.readouterr().out

    assert main(["export", "--dir", str(device), "--bundles", str(tmp_path / "a/b")]) == 2
    assert "is it mounted" in capsys.readouterr().err
    assert main(["export", "--dir", str(tmp_path / "no"), "--bundles", str(stick)]) == 2
    assert not (tmp_path / "no").exists()
    assert main(["import", str(tmp_path / "no"), "--dir", str(tmp_path / "office")]) == 2


def test_a_producer_goes_on_appending_during_an_export(device, tmp_path):
    stop = threading.Event()

    def produce():
        with EventLog(device) as log:
            while not stop.is_set():
                log.append(Event.custom(value="live"))

    producer = threading.Thread(target=produce)
    producer.start()
    try:
        code = main(["export", "--dir", str(device), "--bundles", str(tmp_path / "stick")])
    finally:
        stop.set()
        producer.join()

    assert code == ExitCode.OK
    assert len(list(Path(tmp_path / "stick").glob("event_*"))) >= 6
    assert figures(device).conserved


def test_an_import_never_pushes_out_what_is_pending(tmp_path, capsys, monkeypatch):
    """Although the log would drop its oldest events for new ones of its own."""
    monkeypatch.setenv("VEVENTS_EVENTS_SIZE", "1MiB")
    monkeypatch.setenv("VEVENTS_FULL", "drop-oldest")
    stick, office = tmp_path / "stick", tmp_path / "office"
    with EventLog(tmp_path / "device") as log:
        for _ in range(60):
            noise = {f"key {i}": os.urandom(500).hex() for i in range(40)}
            log.append(Event.custom(value="x", metadata=noise))
    assert main(["export", "--dir", str(tmp_path / "device"), "--bundles", str(stick)]) == 0
    capsys.readouterr()

    code = main(["import", str(stick), "--dir", str(office), "--json"])

    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert code == ExitCode.LIMIT
    assert report["stopped_reason"] == "log-full"
    assert "flush it, then go on" in printed.err
    now = figures(office)
    assert (now.pending, now.evicted) == (report["imported"], 0)
    taken = report["imported"]
    while code == ExitCode.LIMIT and report["imported"]:
        with EventLog(office) as log:
            log.ack([record.seq for record in log.read()])
        code = main(["import", str(stick), "--dir", str(office), "--json"])
        report = answer(capsys)
        taken += report["imported"]
    assert (code, taken, figures(office).evicted) == (ExitCode.OK, 60, 0)
