"""`vevents flush` against a log on disk and an emulator on loopback."""

from __future__ import annotations

import fcntl
import json
import os
import pkgutil
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cli_site import KEY, PATIENCE_S, USE_CASE, clean_environment, small_log

from vevents.cli import main
from vevents.cli.exit_codes import ExitCode
from vevents.cli.flush import describe, exit_code
from vevents.delivery import flusher as flusher_module
from vevents.delivery import sender as sender_module
from vevents.delivery.flusher import Flusher
from vevents.delivery.pause import pause, resume
from vevents.delivery.report import FlushReport
from vevents.delivery.sender import StopReason
from vevents.delivery.setup import make_flusher
from vevents.emulator import EmulatorConfig, Fault, RunningEmulator
from vevents.event import Event
from vevents.log import EventLog
from vevents.settings import Settings


@pytest.fixture
def emulator() -> Iterator[RunningEmulator]:
    with RunningEmulator(EmulatorConfig(api_keys=[KEY], use_cases=[USE_CASE])) as running:
        yield running


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, emulator: RunningEmulator) -> None:
    clean_environment(monkeypatch, tmp_path)
    monkeypatch.setenv("ROBOFLOW_API_KEY", KEY)
    monkeypatch.setenv("API_URL", emulator.url)
    monkeypatch.setenv("VEVENTS_DIR", str(tmp_path / "log"))
    # One attempt: what the emulator is told to refuse need not be waited for.
    monkeypatch.setenv("VEVENTS_ATTEMPTS", "1")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return small_log(tmp_path / "log", events=3)


def pending(directory: Path) -> int:
    with EventLog(directory, read_only=True) as log:
        stats = log.stats()
        assert stats.conserved
        return stats.pending


def test_log_on_a_file_system_that_became_read_only(
    tmp_path: Path, emulator: RunningEmulator, capsys: pytest.CaptureFixture[str]
) -> None:
    log = small_log(tmp_path / "log", 3)
    mount = ["mount", "--bind", str(log), str(log)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(log)], check=True)
        assert main(["flush"]) == ExitCode.ERROR
        way_out = f"vevents recover {log} --into DIR"
        assert f"`{way_out}`" in capsys.readouterr().err
        copy = str(tmp_path / "copy")
        assert main(way_out.replace("DIR", copy).split()[1:]) == ExitCode.OK
        assert main(["flush", "--dir", copy]) == ExitCode.OK
    finally:
        subprocess.run(["umount", str(log)], check=True)
    assert emulator.counts()["events"] == 3


def test_everything_delivered(
    log: Path, emulator: RunningEmulator, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["flush"]) == ExitCode.OK

    captured = capsys.readouterr()
    assert captured.out.startswith("3 events delivered, 0 pending (")
    assert captured.err == ""
    assert emulator.counts()["events"] == 3
    assert pending(log) == 0


@pytest.mark.parametrize("options", [[], ["--quiet"], ["--json"]])
def test_a_ring_that_was_set_aside_is_not_passed_over(
    log: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """All that was pending in it is not delivered, whatever the figures of the new one say."""
    (log / "events.ring").write_bytes(b"junk" * 1000)

    assert main(["flush", *options]) == ExitCode.OK

    said = capsys.readouterr()
    warning = f"{log}: events.ring was no ring any more; it is kept (events.ring.damaged-1)"
    assert f"WARNING: {warning}" in said.err
    if "--json" in options:
        [found] = json.loads(said.out)["warnings"]
        assert found.startswith(warning)
    assert main(["flush", *options]) == ExitCode.OK
    said = capsys.readouterr()
    assert said.err == ""
    assert "no ring" not in said.out


def test_json_is_one_object_and_the_rest_is_on_standard_error(
    log: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_URL", "http://127.0.0.1:9")

    assert main(["flush", "--json", "--dir", str(log)]) == ExitCode.TRY_LATER

    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert (report["stopped_reason"], report["offline"], report["delivered"]) == (
        "offline",
        True,
        0,
    )
    assert report["pending_after"] == 3
    assert captured.err.startswith("vevents: offline: http://127.0.0.1:9: ")


def test_options_win_over_the_environment(
    log: Path, emulator: RunningEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EventLog(log) as open_log:
        open_log.append(Event.custom(value="no use case"))
    monkeypatch.setenv("API_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("VEVENTS_DIR", "/nowhere")
    monkeypatch.setenv("VEVENTS_USE_CASE", "uc-unknown")

    options = ["--dir", str(log), "--api-url", emulator.url, "--use-case", USE_CASE]

    assert main(["flush", *options]) == ExitCode.OK
    assert emulator.counts()["events"] == 4


def test_settings_file(log: Path, emulator: RunningEmulator, tmp_path: Path) -> None:
    for name in ("ROBOFLOW_API_KEY", "API_URL", "VEVENTS_DIR"):
        del os.environ[name]
    file = tmp_path / "settings.toml"
    file.write_text(f'dir = "{log.name}"\napi_key = "{KEY}"\napi_url = "{emulator.url}"\n')
    file.chmod(0o600)

    assert main(["flush", "--config", str(file)]) == ExitCode.OK
    assert emulator.counts()["events"] == 3


@pytest.mark.parametrize(
    ("unset", "options", "message"),
    [
        ("VEVENTS_DIR", [], "where is the log?"),
        ("ROBOFLOW_API_KEY", [], "no API key"),
        (None, ["--dir", "nowhere"], "there is no log in"),
        (None, ["--timeout", "soon"], "'soon' is not a number"),
        (None, ["--max-bytes", "3 parsecs"], "unknown unit"),
        (None, ["--max-events", "0"], "0 is not in the range"),
        (None, ["--api-url", "nonsense"], "--api-url: expected http"),
        (None, ["--log-level", "loud"], "--log-level: 'loud' is none of"),
        (None, ["--config", "gone.toml"], "No such file"),
    ],
)
def test_wrong_settings(
    log: Path,
    unset: str | None,
    options: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if unset is not None:
        monkeypatch.delenv(unset)

    assert main(["flush", *options]) == ExitCode.USAGE
    assert message in capsys.readouterr().err
    assert pending(log) == 3


def test_a_wrong_directory_is_not_made(tmp_path: Path) -> None:
    assert main(["flush", "--dir", str(tmp_path / "typo")]) == ExitCode.USAGE
    assert not (tmp_path / "typo").exists()


def test_key_is_refused(
    log: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ROBOFLOW_API_KEY", "rf_wrong_key")

    assert main(["flush", "--log-level", "debug"]) == ExitCode.UNAUTHORIZED

    captured = capsys.readouterr()
    assert "check ROBOFLOW_API_KEY" in captured.err
    assert "rf_wrong_key" not in captured.out + captured.err
    assert pending(log) == 3


def test_some_events_are_set_aside(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with EventLog(log) as open_log:
        open_log.append(Event.custom(value="v", use_case_id="uc-unknown"))

    assert main(["flush"]) == ExitCode.REJECTED

    said = capsys.readouterr().out
    assert re.match(r"3 events delivered, 1 events set aside \(1 [a-z-]+\), 0 pending", said)
    with EventLog(log, read_only=True) as open_log:
        [note] = [note for _, note in open_log.notes() if note["kind"] == "rejected"]
    assert (note["seq"], note["status"]) == (4, 400)
    assert "uc-unknown" in note["reason"]


def test_no_use_case(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with EventLog(log) as open_log:
        open_log.append(Event.custom(value="v"))

    assert main(["flush"]) == ExitCode.USAGE
    assert "set VEVENTS_USE_CASE" in capsys.readouterr().err
    assert pending(log) == 1


def test_server_in_trouble(log: Path, emulator: RunningEmulator) -> None:
    emulator.faults.at_random(1.0, Fault(status=503, headers={"Retry-After": "3600"}))

    assert main(["flush"]) == ExitCode.TRY_LATER
    assert pending(log) == 3


def test_limits(log: Path) -> None:
    assert main(["flush", "--max-events", "2"]) == ExitCode.LIMIT
    assert pending(log) == 1
    assert main(["flush", "--timeout", "0"]) == ExitCode.LIMIT
    assert pending(log) == 1
    assert main(["flush", "--max-bytes", "1kB", "--timeout", "1h"]) == ExitCode.OK


def test_another_flush_is_running(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (log / "flush.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)

        assert main(["flush"]) == ExitCode.LOCKED
    assert "another flush of" in capsys.readouterr().err
    assert pending(log) == 3


@pytest.mark.usefixtures("emulator")
@pytest.mark.parametrize("option", ["--wait", "--wait=1min"])
def test_wait_for_another_flush(log: Path, option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with (log / "flush.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        looks = iter(range(3))

        def end_the_other(_: float) -> None:
            if next(looks) == 2:
                fcntl.flock(file, fcntl.LOCK_UN)

        monkeypatch.setattr(sender_module, "Time", partial(sender_module.Time, sleep=end_the_other))
        monkeypatch.setattr(flusher_module, "Time", sender_module.Time)

        assert main(["flush", option]) == ExitCode.OK

    assert next(looks, None) is None
    assert pending(log) == 0


def test_the_wait_for_another_flush_is_bounded(log: Path) -> None:
    with (log / "flush.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)

        assert main(["flush", "--wait=10ms"]) == ExitCode.LOCKED


def test_ctrl_c_ends_the_wait_for_another_flush(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        flusher_module,
        "Time",
        partial(sender_module.Time, sleep=lambda _: signal.raise_signal(signal.SIGINT)),
    )
    with (log / "flush.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)

        assert main(["flush", "--wait"]) == ExitCode.INTERRUPTED


def test_flush_works_while_a_writer_has_the_log_open(log: Path) -> None:
    with EventLog(log) as writer:
        writer.append(Event.custom(value="v", use_case_id=USE_CASE))

        assert main(["flush"]) == ExitCode.OK
        assert writer.stats().pending == 0
        writer.append(Event.custom(value="v", use_case_id=USE_CASE))
        assert writer.stats().pending == 1


# --- when it may run ------------------------------------------------------------------------


def test_paused(log: Path, emulator: RunningEmulator, capsys: pytest.CaptureFixture[str]) -> None:
    pause(log, for_s=3600, reason="roaming")

    assert main(["flush", "--json", "--now"]) == ExitCode.HELD

    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert (report["stopped_reason"], report["exit_code"]) == ("paused", 10)
    assert (report["requests"], report["pending_after"]) == (0, 3)
    assert report["retry_after_s"] == pytest.approx(3600, abs=10)
    assert captured.err.startswith("vevents: paused: delivery is paused until ")
    assert "roaming; `vevents resume` ends that" in captured.err
    assert pending(log) == 3
    resume(log)
    assert main(["flush"]) == ExitCode.OK
    assert emulator.counts()["events"] == 3


def window_around_now(begin_h: int, end_h: int) -> str:
    """A window from so many hours after now to so many hours after now."""
    now_s = time.time()
    return "-".join(
        time.strftime("%H:%M", time.localtime(now_s + hours * 3600)) for hours in (begin_h, end_h)
    )


def test_outside_the_window(
    log: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VEVENTS_WINDOW", window_around_now(2, 4))

    assert main(["flush"]) == ExitCode.HELD
    assert "vevents: outside-window: the next window for delivery" in capsys.readouterr().err
    assert pending(log) == 3
    assert main(["flush", "--now"]) == ExitCode.OK
    assert pending(log) == 0


def test_inside_the_window(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VEVENTS_WINDOW", window_around_now(-2, 2))

    assert main(["flush"]) == ExitCode.OK
    assert pending(log) == 0


@pytest.mark.parametrize("events", [150])
def test_pause_ends_a_running_pass_after_its_request(
    tmp_path: Path, emulator: RunningEmulator, events: int
) -> None:
    log = small_log(tmp_path / "log", events=events)
    emulator.faults.script("/vision-events/batch", Fault(delay_s=0.5))

    process = start("--json")
    wait_for_request(emulator)
    assert main(["pause", "--for", "1h"]) == ExitCode.OK
    out, _ = process.communicate(timeout=PATIENCE_S)

    assert process.returncode == ExitCode.HELD
    report = json.loads(out)
    assert (report["delivered"], report["stopped_reason"]) == (100, "paused")
    assert pending(log) == 50
    assert main(["resume"]) == ExitCode.OK
    assert main(["flush"]) == ExitCode.OK
    assert emulator.counts()["events"] == events


def test_window_that_closes_ends_a_running_pass(
    log: Path, monkeypatch: pytest.MonkeyPatch, emulator: RunningEmulator
) -> None:
    """The window closes while the server makes the pass wait."""
    looks = iter([True] * 4)
    monkeypatch.setattr("vevents.delivery.schedule.is_open", lambda *_: next(looks, False))
    monkeypatch.setattr("vevents.delivery.schedule.opens_in_s", lambda *_: 60.0)
    monkeypatch.setenv("VEVENTS_WINDOW", "22:00-06:00")
    monkeypatch.setenv("VEVENTS_ATTEMPTS", "5")
    emulator.faults.at_random(1.0, Fault(status=503, headers={"Retry-After": "30"}))
    began_s = time.monotonic()

    assert main(["flush"]) == ExitCode.HELD
    assert time.monotonic() - began_s < 29
    assert pending(log) == 3


# --- what is said ---------------------------------------------------------------------------


def test_quiet_says_what_somebody_has_to_do(
    log: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*options: str) -> tuple[int, str]:
        code = main(["flush", "--quiet", *options])
        captured = capsys.readouterr()
        assert captured.out == ""
        return code, captured.err

    assert said("--api-url", "http://127.0.0.1:9") == (ExitCode.TRY_LATER, "")
    assert said("--max-events", "1") == (ExitCode.LIMIT, "")
    pause(log)
    assert said() == (ExitCode.HELD, "")
    resume(log)
    with EventLog(log) as open_log:
        open_log.append(Event.custom(value="v", use_case_id="uc-unknown"))
    assert said() == (ExitCode.REJECTED, "vevents: 1 events were set aside\n")
    assert said() == (ExitCode.OK, "")
    with EventLog(log) as open_log:
        open_log.append(Event.custom(value="v"))
    code, err = said()
    assert (code, "set VEVENTS_USE_CASE" in err) == (ExitCode.USAGE, True)
    monkeypatch.setenv("ROBOFLOW_API_KEY", "rf_wrong_key")
    code, err = said("--use-case", USE_CASE)
    assert (code, "check ROBOFLOW_API_KEY" in err) == (ExitCode.UNAUTHORIZED, True)
    assert main(["flush", "--quiet", "--json"]) == ExitCode.USAGE
    assert json.loads(capsys.readouterr().out)["pending_after"] == 1


@pytest.mark.parametrize("days", [10, 40])
def test_events_older_than_the_server_shows(
    log: Path, emulator: RunningEmulator, days: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with EventLog(log) as open_log:
        for age in (days, 3):
            moment = datetime.now(UTC) - timedelta(days=age)
            open_log.append(Event.custom(value="v", use_case_id=USE_CASE, timestamp=moment))

    assert main(["flush", "--json"]) == ExitCode.OK

    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert report["lookback_days"] == 14
    assert report["oldest_pending_age_s"] == pytest.approx(days * 86_400, abs=60)
    assert len(report["warnings"]) == captured.err.count("shows the last 14 days") == (days > 14)
    assert emulator.counts()["events"] == 5


def test_options_of_the_delivery(
    log: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Settings] = []

    def note(settings: Settings, *arguments: Any, **options: Any) -> Flusher:
        seen.append(settings)
        return make_flusher(settings, *arguments, **options)

    monkeypatch.setattr("vevents.delivery.setup.make_flusher", note)
    options = (
        "--order priority --priorities safety_alert,custom --live-first --uploads 2 --bundle "
        "--max-rate 1MB/s --event-age-max 30d"
    )

    assert main(["flush", *options.split()]) == ExitCode.OK

    [settings] = seen
    assert (settings.order, settings.priorities) == ("priority", ("safety_alert", "custom"))
    assert (settings.live_first, settings.uploads, settings.bytes_per_s) == (True, 2, 1e6)
    assert settings.bundle is True
    assert settings.event_age_max_s == 30 * 86_400
    monkeypatch.setenv("VEVENTS_LIVE_FIRST", "true")
    assert main(["flush", "--no-live-first"]) == ExitCode.OK
    assert seen[-1].live_first is False
    assert main(["flush", "--priorities", "typo", "--order", "priority"]) == ExitCode.USAGE
    assert "priorities: 'typo'" in capsys.readouterr().err
    assert pending(log) == 0


def test_nothing_pending_loads_no_http_library_and_asks_nobody(
    log: Path, emulator: RunningEmulator
) -> None:
    assert main(["flush"]) == ExitCode.OK
    asked = emulator.counts()
    program = (
        "import sys\n"
        "from vevents.cli import main\n"
        "assert main(['flush']) == 0\n"
        "print(sorted({'httpx', 'ssl', 'numpy'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert done.stdout.splitlines()[-1] == "[]", done.stderr
    assert emulator.counts() == asked
    assert pending(log) == 0


# --- signals --------------------------------------------------------------------------------


def start(*options: str, **streams: Any) -> subprocess.Popen[str]:
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
    return subprocess.Popen(
        [sys.executable, "-m", "vevents", "flush", *options], text=True, **streams
    )


def wait_for_request(emulator: RunningEmulator) -> None:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        if emulator.counts()["injected"]:
            return
        time.sleep(0.01)
    raise AssertionError("no request came")


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, ExitCode.INTERRUPTED),
        (signal.SIGTERM, ExitCode.TERMINATED),
        (signal.SIGHUP, ExitCode.HUNG_UP),
    ],
)
def test_signal_lets_the_current_request_finish(
    tmp_path: Path, emulator: RunningEmulator, number: signal.Signals, code: ExitCode
) -> None:
    log = small_log(tmp_path / "log", events=150)
    emulator.faults.script("/vision-events/batch", Fault(delay_s=0.5))

    process = start()
    wait_for_request(emulator)
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE_S)

    assert process.returncode == code
    assert out.startswith("100 events delivered, 50 pending")
    assert err == "vevents: interrupted: stopped on request\n"
    assert pending(log) == 50
    assert main(["flush"]) == ExitCode.OK
    assert emulator.counts()["events"] == 150


def test_ignored_signal_stays_ignored(tmp_path: Path, emulator: RunningEmulator) -> None:
    """As with nohup."""
    log = small_log(tmp_path / "log", events=150)
    emulator.faults.script("/vision-events/batch", Fault(delay_s=0.3))

    process = start(preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    wait_for_request(emulator)
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=PATIENCE_S)

    assert process.returncode == ExitCode.OK
    assert pending(log) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(
    ("phase", "left"),
    [
        ("vevents.cli.common.resolve", 150),
        ("vevents.log.EventLog.__init__", 150),
        ("vevents.delivery.setup.make_client", 150),
        ("vevents.delivery.flusher.Flusher.flush", 150),
        ("vevents.delivery.client.Client._connect", 50),
        ("vevents.delivery.client.Client.create_batch", 50),
        ("vevents.log.EventLog.mark", 50),
        ("vevents.log.EventLog.sync", 0),
        ("vevents.log.EventLog.close", 0),
        ("vevents.delivery.client.Client.close", 0),
    ],
)
def test_signal_in_any_phase_loses_nothing(
    tmp_path: Path,
    emulator: RunningEmulator,
    monkeypatch: pytest.MonkeyPatch,
    phase: str,
    left: int,
    number: signal.Signals,
) -> None:
    log = small_log(tmp_path / "log", events=150)
    owner, _, name = phase.rpartition(".")
    place = pkgutil.resolve_name(owner)
    function = getattr(place, name)
    sent: list[int] = []
    unhandled: list[int] = []

    def interrupted(*arguments: Any, **options: Any) -> Any:
        if not sent:
            sent.append(number)
            os.kill(os.getpid(), number)
        return function(*arguments, **options)

    was = signal.signal(number, lambda found, _: unhandled.append(found))
    try:
        with monkeypatch.context() as patch:
            patch.setattr(place, name, interrupted)
            code = main(["flush"])
    finally:
        signal.signal(number, was)

    assert (sent, unhandled) == ([number], [])
    assert code == (128 + number if left else ExitCode.OK)
    assert pending(log) == left
    assert main(["flush"]) == ExitCode.OK
    assert pending(log) == 0
    assert emulator.counts()["events"] == 150


def test_second_ctrl_c_does_not_wait(log: Path, emulator: RunningEmulator) -> None:
    emulator.faults.script("/vision-events/batch", Fault(delay_s=60.0))

    process = start()
    wait_for_request(emulator)
    process.send_signal(signal.SIGINT)
    # The handler of the first one has to have run, or the system merges the two.
    time.sleep(0.2)
    assert process.poll() is None
    began_s = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE_S)

    assert process.returncode == ExitCode.INTERRUPTED
    assert time.monotonic() - began_s < 50
    assert pending(log) == 3


def test_killed_at_once_loses_nothing(log: Path, emulator: RunningEmulator) -> None:
    emulator.faults.script("/vision-events/batch", Fault(drop=True, stored=True, delay_s=0.3))

    process = start()
    wait_for_request(emulator)
    process.kill()
    process.communicate(timeout=PATIENCE_S)

    assert pending(log) == 3
    assert main(["flush"]) == ExitCode.OK
    assert emulator.counts()["events"] == 3


@pytest.mark.usefixtures("log")
def test_progress_on_a_terminal() -> None:
    try:
        terminal, other_end = os.openpty()
    except OSError as error:  # a container root without /dev/pts
        pytest.skip(f"no terminal to be had here: {error}")
    process = start(stderr=other_end)
    os.close(other_end)
    out, _ = process.communicate(timeout=PATIENCE_S)
    shown = b""
    # The system reports the end of a terminal whose other end is closed as an error.
    while True:
        try:
            shown += os.read(terminal, 4096)
        except OSError:
            break
    os.close(terminal)

    assert process.returncode == 0
    assert b"events" in shown
    assert b"100%" in shown
    assert out.startswith("3 events delivered")


# --- reports --------------------------------------------------------------------------------


def report(**fields: Any) -> FlushReport:
    return FlushReport(
        **{
            name: 0
            for name in FlushReport.__dataclass_fields__
            if name not in ("stopped_reason", "message", "retry_after_s")
        }
        | {"rejected_by_reason": {}, "stopped_reason": None}
        | {"message": None, "retry_after_s": None}
        | fields
    )


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (StopReason.OFFLINE, 3),
        (StopReason.SERVER, 3),
        (StopReason.THROTTLED, 3),
        (StopReason.UNAUTHORIZED, 4),
        (StopReason.NO_USE_CASE, 2),
        (StopReason.TIMEOUT, 7),
        (StopReason.MAX_EVENTS, 7),
        (StopReason.MAX_BYTES, 7),
        (StopReason.PAUSED, 10),
        (StopReason.OUTSIDE_WINDOW, 10),
        (StopReason.INTERRUPTED, 130),
    ],
)
def test_every_reason_has_its_exit_code(reason: StopReason, code: int) -> None:
    assert exit_code(report(stopped_reason=reason, rejected=1), []) == code


def test_every_reason_is_tested() -> None:
    marks = test_every_reason_has_its_exit_code.pytestmark  # type: ignore[attr-defined]

    assert {case[0] for case in marks[0].args[1]} == set(StopReason)


def test_exit_code_of_a_complete_pass() -> None:
    assert exit_code(report(), []) == 0
    assert exit_code(report(rejected=1), []) == 5
    interrupted = report(stopped_reason=StopReason.INTERRUPTED)
    assert exit_code(interrupted, [signal.SIGTERM]) == 143
    assert exit_code(interrupted, [signal.SIGHUP, signal.SIGINT]) == 129


def test_description_names_what_happened() -> None:
    text = describe(
        report(
            delivered=5,
            rejected=3,
            rejected_by_reason={"too-old": 2, "refused": 1},
            bundles=1,
            images_delivered=4,
            images_rejected=3,
            images_missing=2,
            orphans=6,
            pending_after=7,
            bytes_sent=2048,
            requests=9,
            duration_s=1.25,
        )
    )

    assert text == (
        "5 events delivered, 1 of them together with their images, 4 images uploaded, "
        "3 events set aside (1 refused, 2 too-old), 3 images refused, 2 images gone "
        "before they could be sent, 6 images without an event set aside, 7 pending "
        "(2.0 KiB in 9 requests, 1.2 s)"
    )
