"""What is written to the flash under a log: where it is counted, and what is said of it."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cli_site import USE_CASE, clean_environment, small_log

from vevents import flash
from vevents.cli import main
from vevents.cli.exit_codes import ExitCode
from vevents.event import Event
from vevents.flash import Device, FlashReport, device_of, look, per_day
from vevents.log import EventLog

GIB = 1 << 30


def fake_sys(root: Path, path: Path, disk: str, partition: str) -> Path:
    """Make what the kernel shows of an eMMC on which a path is."""
    number = path.stat().st_dev
    folder = root / "devices" / disk / partition
    folder.mkdir(parents=True)
    (folder / "stat").write_text("1 2 3 4 5 6 2097152 8 9 10 11\n")
    (root / "dev" / "block").mkdir(parents=True)
    (root / "dev" / "block" / f"{os.major(number)}:{os.minor(number)}").symlink_to(folder)
    device = root / "devices" / disk / "device"
    device.mkdir()
    (device / "life_time").write_text("0x01 0x03\n")
    (device / "pre_eol_info").write_text("0x02\n")
    (root / "fs" / "ext4" / partition).mkdir(parents=True)
    (root / "fs" / "ext4" / partition / "lifetime_write_kbytes").write_text("4194304\n")
    return root


def test_counts_of_the_kernel(tmp_path: Path) -> None:
    device = device_of(tmp_path, fake_sys(tmp_path / "sys", tmp_path, "mmcblk0", "mmcblk0p2"))

    assert device is not None
    assert device.name == "mmcblk0p2"
    assert device.bytes_written == GIB
    assert device.file_system_bytes == 4 * GIB
    assert device.life_used == pytest.approx(0.3)
    assert device.reserve == "80 % of the reserve used"


def test_no_device_and_no_counts(tmp_path: Path) -> None:
    assert device_of(tmp_path, tmp_path / "sys") is None
    assert device_of(tmp_path / "nowhere") is None


def test_a_device_that_says_little(tmp_path: Path) -> None:
    sys = fake_sys(tmp_path / "sys", tmp_path, "sda", "sda1")
    for name in ("devices/sda/device/life_time", "devices/sda/device/pre_eol_info"):
        (sys / name).unlink()
    (sys / "fs/ext4/sda1/lifetime_write_kbytes").unlink()

    device = device_of(tmp_path, sys)

    assert device is not None
    assert (device.file_system_bytes, device.life_used, device.reserve) == (None, None, None)


def test_years(tmp_path: Path) -> None:
    device = Device("mmcblk0", 10 * GIB, 86_400.0, None, None, None)
    report = FlashReport(tmp_path, device, None, None)

    assert device.bytes_per_day == 10 * GIB
    assert report.years(3_652_500 * GIB // 1000) == pytest.approx(1.0, rel=0.01)
    assert FlashReport(tmp_path, None, None, None).years(1) is None
    assert per_day(5, 59.0) is None


def test_bytes_of_the_log(tmp_path: Path) -> None:
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    with EventLog(tmp_path / "log", events_size=1 << 20, media_size=1 << 20) as log:
        for hour in (0, 12):
            at = begin + timedelta(hours=hour)
            log.append(Event.custom(value="x", use_case_id=USE_CASE, timestamp=at))
        report = look(log)
        assert report.log_bytes_per_day == pytest.approx(2 * log.stats().bytes_used)
        assert report.path == log.directory
        assert report.copy_bytes_per_day is None


def test_a_copy_is_where_the_flash_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flash, "per_day", lambda count, _: float(count))
    with EventLog(tmp_path / "log", persist_dir=tmp_path / "copy", events_size=1 << 20) as log:
        log.append(Event.custom(value="x", use_case_id=USE_CASE))
        log.sync()
        report = look(log)
        assert report.path == tmp_path / "copy"
        assert report.copy_bytes_per_day is not None
        assert report.copy_bytes_per_day > 4096


def test_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clean_environment(monkeypatch, tmp_path)
    directory = small_log(tmp_path / "log", events=3)
    device = Device("mmcblk0p2", 10 * GIB, 86_400.0, 20 * GIB, 0.3, "normal")
    monkeypatch.setattr(flash, "device_of", lambda _: device)
    command = ["status", "--dir", str(directory), "--flash"]

    assert main([*command, "--endurance", "60TB"]) == ExitCode.OK

    printed = capsys.readouterr().out
    assert f"flash under {directory}:\n" in printed
    assert "mmcblk0p2: 10.0 GiB a day by all programs, 10.0 GiB in 24 h" in printed
    assert "20.0 GiB since its file system was made" in printed
    assert "up to 30% of its life is used" in printed
    assert "at this rate 54.6 TiB last 15.3 years" in printed

    assert main([*command, "--endurance", "60TB", "--json"]) == ExitCode.OK
    report = json.loads(capsys.readouterr().out)["flash"]
    assert report["device"]["bytes_per_day"] == 10 * GIB
    assert report["years"] == pytest.approx(15.3, abs=0.1)
    assert main([*command, "--prometheus"]) == ExitCode.USAGE
    assert main(["status", "--dir", str(directory), "--endurance", "1TB"]) == ExitCode.USAGE


def test_status_where_nobody_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clean_environment(monkeypatch, tmp_path)
    directory = small_log(tmp_path / "log", events=1)
    monkeypatch.setattr(flash, "device_of", lambda _: None)

    assert main(["status", "--dir", str(directory), "--flash"]) == ExitCode.OK

    assert "nobody counts what is written" in capsys.readouterr().out
