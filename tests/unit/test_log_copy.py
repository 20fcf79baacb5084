"""RAM-first logs: what lives in memory, what its copy holds, what the commands say of it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_site import USE_CASE, clean_environment

from vevents.cli import main
from vevents.cli.exit_codes import ExitCode
from vevents.errors import ConfigurationError, LogError, LogForeignError
from vevents.event import Event
from vevents.log import EventLog, restore

SMALL: dict[str, Any] = {"events_size": 1 << 20, "media_size": 1 << 20, "delivery_size": 1 << 20}


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the log lives; a power cut is to remove it."""
    clean_environment(monkeypatch, tmp_path)
    return tmp_path / "memory"


@pytest.fixture
def flash(tmp_path: Path) -> Path:
    return tmp_path / "flash"


def ram_first(memory: Path, flash: Path, **options: Any) -> EventLog:
    return EventLog(memory, persist_dir=flash, persist_interval_s=0, **SMALL, **options)


def fill(log: EventLog, count: int, first: int = 1) -> None:
    for number in range(first, first + count):
        log.append(Event.custom(value=f"event {number}", use_case_id=USE_CASE))


def cut_power(memory: Path) -> None:
    shutil.rmtree(memory)


# --- the log --------------------------------------------------------------------------------


def test_a_sync_without_flash_names_the_log(memory: Path, flash: Path) -> None:
    """No file of the name 'event' is missing."""
    log = ram_first(memory, flash)
    shutil.rmtree(flash)

    with pytest.raises(FileNotFoundError) as found:
        log.append(Event.custom(value="alarm", use_case_id=USE_CASE), sync=True)

    assert found.value.filename == str(memory)
    assert log.stats().pending == 1
    log.close()


def test_a_power_cut_costs_what_came_since_the_last_pass(memory: Path, flash: Path) -> None:
    log = ram_first(memory, flash)
    fill(log, 20)
    log.ack([1, 2, 3])
    assert log.durable_seq == 0
    assert log.sync() == log.durable_seq == 20
    fill(log, 5, first=21)
    log.ack([4])
    assert (log.durable_seq, log.stats().durable_seq) == (20, 20)
    cut_power(memory)

    with ram_first(memory, flash) as again:
        stats = again.stats()
        assert (stats.appended, stats.delivered, stats.pending) == (20, 3, 17)
        assert stats.conserved
        # The acknowledgement of 4 is gone: it goes once more, under the same id.
        assert next(again.read("events")).seq == 4


def test_an_urgent_event_is_in_the_copy_when_append_returns(memory: Path, flash: Path) -> None:
    log = ram_first(memory, flash)
    fill(log, 3)
    log.append(Event.custom(value="alarm", use_case_id=USE_CASE), sync=True)
    assert log.durable_seq == 4
    cut_power(memory)

    with ram_first(memory, flash) as again:
        assert again.stats().pending == 4


def test_everybody_who_opens_the_log_finds_the_copy(memory: Path, flash: Path) -> None:
    ram_first(memory, flash).close()

    with EventLog(memory) as other:
        fill(other, 2)
        assert other.durable_seq == 0
        assert other.persist().durable_seq == 2
        assert other.copy is not None
        assert other.copy.directory == flash
    with EventLog(memory, read_only=True) as reader:
        assert reader.durable_seq == 2


def test_what_did_not_change_is_not_written(memory: Path, flash: Path) -> None:
    with ram_first(memory, flash) as log:
        fill(log, 100)
        assert log.persist().bytes_written > 0
        assert log.persist().bytes_written == 0
        fill(log, 1)
        report = log.persist()
        assert 0 < report.bytes_written <= 2 * 4096
        assert log.copy is not None
        assert (log.copy.passes, log.copy.error) == (3, None)


def test_a_log_on_a_disk_has_no_copy(memory: Path) -> None:
    with EventLog(memory, **SMALL) as log:
        assert log.copy is None
        with pytest.raises(LogError, match="not RAM-first"):
            log.persist()


def test_a_copy_of_another_log_is_left_alone(memory: Path, flash: Path) -> None:
    with ram_first(memory, flash) as log:
        fill(log, 3)
    cut_power(memory)
    with EventLog(memory, **SMALL) as log:  # opened before it was restored
        fill(log, 1)

    with pytest.raises(LogForeignError, match="do not belong together"):
        ram_first(memory, flash)
    cut_power(memory)
    with ram_first(memory, flash) as log:
        assert log.stats().pending == 3


def test_flash_that_is_not_there(memory: Path, tmp_path: Path, flash: Path) -> None:
    with pytest.raises(FileNotFoundError, match="not/mounted"):
        ram_first(memory, tmp_path / "not" / "mounted")
    with ram_first(memory, flash) as log:
        fill(log, 1)
        flash.rename(tmp_path / "unplugged")
        with pytest.raises(FileNotFoundError, match=str(flash)):
            log.sync()
        with pytest.raises(FileNotFoundError, match=str(flash)):
            log.persist()
        assert log.copy is not None
        assert log.copy.error == "No such file or directory"
        assert log.stats().durable_seq == 0
        (tmp_path / "unplugged").rename(flash)
        assert log.sync() == 1
        assert log.copy.error is None


def test_an_interval_out_of_range(memory: Path, flash: Path) -> None:
    with pytest.raises(ConfigurationError, match="persist_interval"):
        restore(memory, flash, -1)


def test_the_log_itself_is_no_place_for_the_copy(memory: Path, tmp_path: Path) -> None:
    memory.mkdir(exist_ok=True)
    other_name = tmp_path / "other name"
    other_name.symlink_to(memory)
    for same in (memory, other_name):
        with pytest.raises(ConfigurationError, match="persist_dir"):
            restore(memory, same)


def test_what_cannot_be_restored_names_both_directories(memory: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere" / "flash"
    with pytest.raises(FileNotFoundError) as caught:
        restore(memory, nowhere)
    assert str(caught.value).endswith(f": '{nowhere}' -> '{memory}'")


def test_restore_is_done_once(memory: Path, flash: Path) -> None:
    assert restore(memory, flash) is False
    with EventLog(memory, **SMALL) as log:
        fill(log, 1)
    assert restore(memory, flash) is False
    cut_power(memory)
    assert restore(memory, flash) is True
    assert restore(memory, flash) is False


# --- the commands ---------------------------------------------------------------------------


@pytest.fixture
def settings(memory: Path, flash: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "DIR": str(memory),
        "PERSIST_DIR": str(flash),
        "PERSIST_INTERVAL": "0",
        "EVENTS_SIZE": "1MiB",
        "MEDIA_SIZE": "1MiB",
        "DELIVERY_SIZE": "1MiB",
    }.items():
        monkeypatch.setenv(f"VEVENTS_{name}", value)


@pytest.mark.usefixtures("settings")
def test_restore_and_persist(memory: Path, flash: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["restore"]) == ExitCode.OK
    assert "nothing to restore" in capsys.readouterr().out
    log = EventLog(memory, **SMALL)
    fill(log, 7)
    assert main(["persist", "--json"]) == ExitCode.OK
    report = json.loads(capsys.readouterr().out)
    assert report["persist_dir"] == str(flash)
    assert report["durable_seq"] == 7
    assert report["bytes_written"] >= 4096
    cut_power(memory)

    assert main(["restore", "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out) == {
        "dir": str(memory),
        "persist_dir": str(flash),
        "restored": True,
    }
    assert main(["persist"]) == ExitCode.OK
    assert capsys.readouterr().out.endswith("durable up to event 7\n")


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize("command", ["status", "tail", "persist", "verify"])
def test_commands_restore_by_themselves(
    command: str, memory: Path, flash: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ram_first(memory, flash) as log:
        fill(log, 2)
    cut_power(memory)

    assert main([command, "--dir", str(memory)]) == ExitCode.OK

    assert capsys.readouterr().out
    with EventLog(memory) as log:
        assert log.stats().pending == 2


@pytest.mark.usefixtures("settings")
def test_status_tells_of_the_copy(
    memory: Path, flash: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = ram_first(memory, flash)
    fill(log, 2)
    log.sync()
    assert main(["status", "--check"]) == ExitCode.OK
    assert f"in memory, its copy in {flash} 0 s old, " in capsys.readouterr().out
    flash.rename(tmp_path / "unplugged")
    with pytest.raises(FileNotFoundError):
        log.sync()

    assert main(["status", "--check", "--json"]) == ExitCode.ATTENTION

    report = json.loads(capsys.readouterr().out)
    assert report["copy"]["error"] == "No such file or directory"
    assert report["copy"]["directory"] == str(flash)
    assert any("not up to date" in problem for problem in report["problems"])
    (tmp_path / "unplugged").rename(flash)
    log.close()


def test_persist_of_a_log_without_a_copy(memory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    EventLog(memory, **SMALL).close()

    assert main(["persist", "--dir", str(memory)]) == ExitCode.USAGE
    assert "not RAM-first" in capsys.readouterr().err
    assert main(["restore", "--dir", str(memory)]) == ExitCode.USAGE
    assert "VEVENTS_PERSIST_DIR" in capsys.readouterr().err
    assert main(["persist", "--dir", str(memory), "--interval", "0"]) == ExitCode.USAGE


@pytest.mark.usefixtures("settings")
def test_persist_without_flash(
    memory: Path, flash: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ram_first(memory, flash).close()
    shutil.rmtree(flash)

    assert main(["persist"]) == ExitCode.ERROR
    assert "No such file or directory" in capsys.readouterr().err


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_persist_at_an_interval(memory: Path, flash: Path, number: signal.Signals) -> None:
    log = ram_first(memory, flash)
    fill(log, 3)
    command = [sys.executable, "-m", "vevents", "persist", "--interval", "50ms", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["durable_seq"] == 3
        fill(log, 1, first=4)
        while json.loads(process.stdout.readline())["durable_seq"] < 4:
            pass
        fill(log, 1, first=5)
        process.send_signal(number)
        last = process.stdout.read().splitlines()[-1]
        assert process.wait(60) == ExitCode.OK
    assert json.loads(last)["durable_seq"] == 5
    log.close()


def test_recover_takes_a_copy(
    memory: Path, flash: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ram_first(memory, flash) as log:
        fill(log, 4)
        log.ack([1])

    assert main(["recover", str(flash), "--into", str(tmp_path / "rescued")]) == ExitCode.OK

    capsys.readouterr()
    with EventLog(tmp_path / "rescued") as rescued:
        stats = rescued.stats()
        assert (stats.pending, stats.delivered, stats.lost) == (3, 1, 0)
        assert stats.conserved
        assert rescued.copy is None
