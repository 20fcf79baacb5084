"""`vevents install` and `vevents uninstall`: what they print, write and refuse."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from cli_site import KEY, clean_environment, small_log

from vevents import installation
from vevents.cli import install, main
from vevents.cli.exit_codes import ExitCode

UNIT = "etc/systemd/system/vevents-agent.service"
STORE = "etc/systemd/system/vevents-store.service"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean_environment(monkeypatch, tmp_path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "tree/usr/lib/systemd/systemd").mkdir(parents=True)
    return tmp_path / "tree"


def test_an_image_gets_its_files_and_loses_them_again(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["install", "--root", str(root), "--dir", "/var/lib/camera", "--user", "camera"]
    assert main([*arguments, "--command", "/usr/bin/vevents"]) == 0
    printed = capsys.readouterr().out
    assert f"wrote /{UNIT}" in printed
    assert "systemctl --root=DIR enable" in printed
    unit = (root / UNIT).read_text()
    assert "ExecStart=/usr/bin/vevents agent --dir /var/lib/camera\n" in unit
    assert "User=camera\n" in unit

    assert main([*arguments, "--command", "/usr/bin/vevents"]) == 0
    assert "kept  /etc/vevents.env" in capsys.readouterr().out

    assert main(["uninstall", "--root", str(root), "--dry-run"]) == 0
    assert f"would remove /{UNIT}" in capsys.readouterr().out
    assert main(["uninstall", "--root", str(root)]) == 0
    assert not [path for path in root.rglob("*") if path.is_file()]


def test_the_store_is_installed_and_removed_as_well(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["install", "--root", str(root), "--dir", "/var/lib/camera", "--store"]
    assert main([*arguments, "--command", "/usr/bin/vevents"]) == 0
    printed = capsys.readouterr().out
    assert f"wrote /{STORE}" in printed
    assert "enable vevents-agent.service vevents-store.service" in printed
    assert "ExecStart=/usr/bin/vevents serve --dir /var/lib/camera\n" in (root / STORE).read_text()

    assert main(["uninstall", "--root", str(root)]) == 0
    assert not [path for path in root.rglob("*") if path.is_file()]


def test_a_store_whose_packages_are_missing_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    arguments = ["install", "--dir", str(tmp_path / "log"), "--for", "systemd", "--dry-run"]

    assert main([*arguments, "--store"]) == ExitCode.USAGE
    assert "vevents[serve]" in capsys.readouterr().err
    assert main([*arguments, "--store", "--command", "/usr/bin/vevents"]) == 0


def test_a_dry_run_prints_and_writes_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ROBOFLOW_API_KEY", KEY)
    assert main(["install", "--root", str(root), "--dir", "/var/lib/camera", "--dry-run"]) == 0

    printed = capsys.readouterr().out
    assert "# ---- /etc/vevents.env (mode 0600)" in printed
    assert "User=vevents\n" in printed
    assert KEY not in printed
    assert not [path for path in root.rglob("*") if path.is_file()]


def test_an_edited_file_is_named_when_it_is_kept(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["install", "--root", str(root), "--dir", "/var/lib/camera"]
    main(arguments)
    with (root / UNIT).open("a") as unit:
        unit.write("# mine\n")

    assert main(arguments) == ExitCode.USAGE
    assert "not overwritten" in capsys.readouterr().err
    assert main(["uninstall", "--root", str(root)]) == 0
    assert f"kept /{UNIT}: it was edited" in capsys.readouterr().err


def test_a_system_without_systemd_gets_hooks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tree/etc/cron.d").mkdir(parents=True)
    assert main(["install", "--root", str(tmp_path / "tree"), "--dir", "/var/lib/camera"]) == 0

    assert "wrote /etc/cron.d/vevents" in capsys.readouterr().out
    assert not (tmp_path / "tree" / UNIT).exists()


def test_the_owner_of_the_log_runs_it(tmp_path: Path) -> None:
    log = small_log(tmp_path / "log")

    assert install._owner_of(log) == log.owner()
    assert install._owner_of(tmp_path / "none") == "vevents"
    assert install._owner_of(None) == "vevents"


def test_the_command_is_the_one_that_runs_now() -> None:
    assert installation.own_command().startswith("/")


@pytest.mark.parametrize(
    "arguments",
    [
        ["install"],
        ["install", "--dir", "/var/lib/camera", "--root", "/nowhere"],
        ["install", "--dir", "/var/lib/camera", "--root", ".", "--user", "a b"],
        ["install", "--dir", "/var/lib/my camera", "--root", "."],
        ["install", "--dir", "/var/lib/camera", "--root", ".", "--for", "upstart"],
        ["install", "--dir", "/var/lib/camera", "--root", ".", "--for", "plain", "--store"],
        ["uninstall", "--root", "/nowhere"],
    ],
)
def test_wrong_usage(arguments: list[str]) -> None:
    assert main(arguments) == ExitCode.USAGE
