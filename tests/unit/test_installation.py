"""The files of an installation: what they hold, whose file is left alone, what a removal leaves."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from importlib.resources import files
from pathlib import Path

import pytest

from vevents import installation, settings
from vevents.errors import ConfigurationError
from vevents.installation import File, State, System, plan, remove, state_of, system_of, write

UNIT = Path("/etc/systemd/system/vevents-agent.service")
STORE = Path("/etc/systemd/system/vevents-store.service")
DISPATCHER = Path("/etc/NetworkManager/dispatcher.d/90-vevents")
HOOK = Path("/usr/local/sbin/vevents-hook")
ENVIRONMENT = Path("/etc/vevents.env")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A file tree in which every hook has somebody who calls it."""
    tree = tmp_path / "tree"
    for folder in ("NetworkManager", "network/if-up.d", "udhcpc", "cron.d", "periodic/15min"):
        (tree / "etc" / folder).mkdir(parents=True)
    return tree


def planned(root: Path, system: System = System.SYSTEMD, **values: object) -> list[File]:
    given = {"directory": Path("/var/lib/vevents"), "user": "camera", "command": "/usr/bin/true"}
    return plan(system, root=root, **(given | values))  # type: ignore[arg-type]


def text_of(files_: list[File], path: Path) -> str:
    [text] = [file.text for file in files_ if file.path == path]
    return text


def snapshot(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def at(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")


# --- what they hold -------------------------------------------------------------------------


def test_every_template_has_its_place() -> None:
    templates = {one.name for one in (files("vevents") / "templates").iterdir()}

    placed = {place.template for places in installation._PLACES.values() for place in places}
    assert templates == {*placed, "sandbox"}


@pytest.mark.parametrize("system", System)
def test_nothing_is_left_to_fill_in(root: Path, system: System) -> None:
    store = system is System.SYSTEMD
    for file in planned(root, system, config=Path("/etc/camera/vevents.toml"), store=store):
        assert not re.search(r"@[A-Z_]+@", file.text), file.path


def test_the_unit_runs_the_agent_as_the_owner_of_the_log(root: Path) -> None:
    lines = text_of(planned(root, config=Path("/etc/v.toml")), UNIT).splitlines()

    assert "ExecStart=/usr/bin/true agent --dir /var/lib/vevents --config /etc/v.toml" in lines
    assert {"User=camera", "ReadWritePaths=/var/lib/vevents", "ProtectSystem=strict"} <= {*lines}
    assert {"Type=notify", "NoNewPrivileges=yes", "EnvironmentFile=-/etc/vevents.env"} <= {*lines}


def test_the_unit_of_a_log_in_memory_restores_it_and_waits_for_its_copy(root: Path) -> None:
    files_ = planned(root, directory=Path("/run/vevents/log"), persist_dir=Path("/var/lib/vevents"))

    lines = text_of(files_, UNIT).splitlines()
    assert "ExecStartPre=/usr/bin/true restore --dir /run/vevents/log" in lines
    assert "RequiresMountsFor=/var/lib/vevents" in lines
    assert "Environment=VEVENTS_PERSIST_DIR=/var/lib/vevents" in lines
    assert {
        "ReadWritePaths=/run/vevents/log /var/lib/vevents",
        "TimeoutStopSec=90",
        "MemoryMax=infinity",
    } <= {*lines}
    assert "\nVEVENTS_PERSIST_DIR=/var/lib/vevents\n" in text_of(files_, ENVIRONMENT)
    assert lines.index("ExecStart=/usr/bin/true agent --dir /run/vevents/log") > lines.index(
        "ExecStartPre=/usr/bin/true restore --dir /run/vevents/log"
    )


def test_a_unit_without_a_copy_says_nothing_of_one(root: Path) -> None:
    text = text_of(planned(root), UNIT)

    assert "restore" not in text
    assert "PERSIST" not in text
    assert "TimeoutStopSec=10\n" in text
    assert "MemoryMax=512M\n" in text


def test_a_store_is_there_for_those_who_want_it(root: Path) -> None:
    assert STORE not in {file.path for file in planned(root)}

    lines = text_of(planned(root, config=Path("/etc/v.toml"), store=True), STORE).splitlines()
    assert "ExecStart=/usr/bin/true serve --dir /var/lib/vevents --config /etc/v.toml" in lines
    assert {"User=camera", "Type=notify", "EnvironmentFile=-/etc/vevents.env"} <= {*lines}
    assert "After=network.target vevents-agent.service" in lines


def test_each_service_is_given_its_own_key_and_no_other(root: Path) -> None:
    files_ = planned(root, store=True)
    secrets = {
        source.variable
        for source in settings._SOURCES
        if re.search("Secret|ProxyUrl", settings.Settings.__annotations__[source.field])
    }
    assert {"ROBOFLOW_API_KEY", "EVENT_INGESTION_API_KEY"} < secrets

    [withheld] = re.findall("^UnsetEnvironment=(.*)", text_of(files_, UNIT), re.MULTILINE)
    assert withheld == "EVENT_INGESTION_API_KEY"
    [withheld] = re.findall("^UnsetEnvironment=(.*)", text_of(files_, STORE), re.MULTILINE)
    assert {*withheld.split()} == secrets - {"EVENT_INGESTION_API_KEY"}


def test_both_services_are_shut_in_alike(root: Path) -> None:
    files_ = planned(root, store=True, persist_dir=Path("/var/lib/vevents-copy"))
    sandboxes = [
        text[text.index("UMask=") : text.index("[Install]")]
        for text in (text_of(files_, UNIT), text_of(files_, STORE))
    ]

    assert sandboxes[0] == sandboxes[1]
    assert "\nReadWritePaths=/var/lib/vevents /var/lib/vevents-copy\n" in sandboxes[0]


def test_a_store_needs_systemd(root: Path) -> None:
    with pytest.raises(ConfigurationError, match="plain"):
        planned(root, System.PLAIN, store=True)


@pytest.mark.parametrize("unit", [UNIT, STORE])
@pytest.mark.parametrize("persist_dir", [None, Path("/var/lib/vevents-copy")])
def test_the_unit_stands_up_to_systemd(root: Path, persist_dir: Path | None, unit: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze here")
    write(planned(root, persist_dir=persist_dir, store=True), root)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(at(root, unit))],
        capture_output=True,
        text=True,
        check=False,
    )
    # What only a newer systemd knows is documented in the unit.
    strange = [
        line for line in done.stderr.splitlines() if "Restart" not in line and unit.name in line
    ]

    assert done.returncode == 0, done.stderr
    assert not strange


@pytest.mark.parametrize("system", System)
def test_the_scripts_are_scripts(root: Path, system: System) -> None:
    write(planned(root, system), root)
    scripts = [path for path in root.rglob("*") if path.is_file() and os.access(path, os.X_OK)]
    assert scripts
    for path in scripts:
        assert path.read_bytes().startswith(b"#!/bin/sh\n"), path
        subprocess.run(["sh", "-n", path], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", *scripts], check=True)


def test_a_hook_that_nobody_would_call_is_left_out(tmp_path: Path) -> None:
    assert {file.path for file in planned(tmp_path)} == {ENVIRONMENT, UNIT}
    assert {file.path for file in planned(tmp_path, System.PLAIN)} == {ENVIRONMENT, HOOK}


@pytest.mark.parametrize(
    "values",
    [
        {"directory": Path("relative/log")},
        {"directory": Path("/var/lib/my log")},
        {"directory": Path("/var/lib/%h")},
        {"directory": Path("/var/lib/$(reboot)")},
        {"config": Path("/etc/a'b.toml")},
        {"user": "Camera One"},
        {"user": "-r"},
        {"user": ""},
        {"command": "vevents"},
        {"command": "/usr/bin/vevents; reboot"},
        {"command": "/usr/bin/env  vevents"},
        {"command": ""},
    ],
)
def test_what_a_shell_or_a_unit_would_take_for_something_else_is_refused(
    root: Path, values: dict[str, object]
) -> None:
    with pytest.raises(ConfigurationError):
        planned(root, **values)


@pytest.mark.parametrize(
    "sign", ["run/systemd/system", "usr/lib/systemd/systemd", "lib/systemd/systemd"]
)
def test_a_system_is_known_by_its_files(tmp_path: Path, sign: str) -> None:
    assert system_of(tmp_path) is System.PLAIN
    (tmp_path / sign).mkdir(parents=True)
    assert system_of(tmp_path) is System.SYSTEMD


# --- writing and removing -------------------------------------------------------------------


@pytest.mark.parametrize("system", System)
def test_a_removal_leaves_what_was_there_before(root: Path, system: System) -> None:
    (root / "etc/cron.d/other").write_text("0 0 * * * root true\n")
    (root / "etc/systemd/system").mkdir(parents=True)
    (root / "etc/systemd/system/camera.service").write_text("[Service]\n")
    before = snapshot(root)
    files_ = planned(root, system, store=system is System.SYSTEMD)
    write(files_, root)
    assert len(snapshot(root)) == len(before) + len(files_)

    removed, kept = remove(root)

    assert snapshot(root) == before
    assert {*removed} == {file.path for file in files_}
    assert kept == []


def test_permissions_are_those_of_the_plan_whatever_the_umask(root: Path) -> None:
    before = os.umask(0)
    try:
        write(planned(root), root)
    finally:
        os.umask(before)

    assert at(root, ENVIRONMENT).stat().st_mode & 0o7777 == 0o600
    assert at(root, UNIT).stat().st_mode & 0o7777 == 0o644
    assert at(root, DISPATCHER).stat().st_mode & 0o7777 == 0o755


def test_writing_again_takes_new_values(root: Path) -> None:
    write(planned(root), root)
    done = write(planned(root, user="other"), root)

    assert "User=other" in at(root, UNIT).read_text()
    assert [file.path for file, written in done if not written] == [ENVIRONMENT]


def _foreign(path: Path) -> None:
    path.write_text("[Service]\nExecStart=/usr/bin/other\n")


def _edited(path: Path) -> None:
    path.write_text(path.read_text().replace("Nice=10", "Nice=0"))


def _linked(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("change", [_foreign, _edited, _linked, _directory])
def test_what_is_not_ours_is_neither_overwritten_nor_removed(root: Path, change: object) -> None:
    write(planned(root), root)
    change(at(root, UNIT))  # type: ignore[operator]
    before = snapshot(root)

    with pytest.raises(ConfigurationError, match=r"vevents-agent\.service .*Nothing was written"):
        write(planned(root, user="other"), root)
    assert snapshot(root) == before

    removed, kept = remove(root)
    assert at(root, UNIT).exists()
    assert removed == [ENVIRONMENT, DISPATCHER]
    assert kept == ([UNIT] if change is _edited else [])


def test_a_key_that_was_filled_in_is_kept(root: Path) -> None:
    write(planned(root), root)
    environment = at(root, ENVIRONMENT)
    text = environment.read_text().replace("API_KEY=", "API_KEY=rf_secret")
    environment.write_text(text)
    write(planned(root, user="other"), root)
    assert environment.read_text() == text

    removed, kept = remove(root)

    assert environment.read_text() == text
    assert kept == [ENVIRONMENT]
    assert UNIT in removed


def test_an_own_environment_file_is_left_alone(root: Path) -> None:
    at(root, ENVIRONMENT).write_text("ROBOFLOW_API_KEY=x\n")
    write(planned(root), root)
    remove(root)

    assert at(root, ENVIRONMENT).read_text() == "ROBOFLOW_API_KEY=x\n"


def test_a_dry_removal_removes_nothing(root: Path) -> None:
    write(planned(root), root)
    before = snapshot(root)
    removed, _ = remove(root, dry_run=True)

    assert snapshot(root) == before
    assert UNIT in removed


def test_a_write_that_fails_leaves_no_pieces(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write(planned(root), root)

    assert snapshot(root) == {}


def test_what_is_not_text_is_somebody_elses(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\x7fELF\xff\xfe")

    assert state_of(tmp_path / "file") is State.FOREIGN
    assert state_of(tmp_path / "none") is State.ABSENT


# --- the scripts at work --------------------------------------------------------------------


def run(script: Path, tools: Path, *arguments: str, **environ: str) -> int:
    path = f"{tools}:{os.environ['PATH']}"
    return subprocess.run(
        [script, *arguments], env={"PATH": path, "TOOLS": str(tools)} | environ, check=False
    ).returncode


def tool(tools: Path, name: str, then: str = "") -> None:
    """Put a program in the way that notes how it is called."""
    tools.mkdir(exist_ok=True)
    script = tools / name
    script.write_text(f'#!/bin/sh\necho "{name} $*" >>"$TOOLS/calls"\n{then}\n')
    script.chmod(0o755)


def calls(tools: Path) -> list[str]:
    noted = tools / "calls"
    return noted.read_text().splitlines() if noted.exists() else []


@pytest.mark.parametrize(
    ("event", "state", "told"),
    [
        ("up", "", True),
        ("connectivity-change", "FULL", True),
        ("connectivity-change", "", True),
        ("connectivity-change", "PORTAL", False),
        ("connectivity-change", "NONE", False),
        ("down", "", False),
        ("hostname", "", False),
    ],
)
def test_the_dispatcher_tells_the_agent_of_good_news(
    root: Path, tmp_path: Path, event: str, state: str, told: bool
) -> None:
    write(planned(root), root)
    tool(tmp_path / "tools", "systemctl")
    code = run(at(root, DISPATCHER), tmp_path / "tools", "wlan0", event, CONNECTIVITY_STATE=state)

    assert code == 0
    signalled = any("kill" in call and "SIGUSR2" in call for call in calls(tmp_path / "tools"))
    assert signalled is told


def test_the_dispatcher_leaves_an_agent_alone_that_does_not_run(root: Path, tmp_path: Path) -> None:
    write(planned(root), root)
    tool(tmp_path / "tools", "systemctl", "exit 3")

    assert run(at(root, DISPATCHER), tmp_path / "tools", "wlan0", "up") == 0
    assert not any("kill" in call for call in calls(tmp_path / "tools"))


def test_the_hook_flushes_as_the_owner_of_the_log_and_does_not_wait(
    root: Path, tmp_path: Path
) -> None:
    write(planned(root, System.PLAIN), root)
    tools = tmp_path / "tools"
    tool(tools, "sleep")
    tool(tools, "su")
    assert run(at(root, HOOK), tools, IFACE="eth0") == 0
    until_s = time.monotonic() + 60
    while len(calls(tools)) < 2 and time.monotonic() < until_s:
        time.sleep(0.02)

    [slept, flushed] = calls(tools)
    assert 0 <= int(slept.split()[1]) < 30
    assert flushed == (
        "su -s /bin/sh camera -c exec /usr/bin/true flush --dir /var/lib/vevents --timeout 10min"
    )


def test_the_hook_does_nothing_for_the_loopback_interface(root: Path, tmp_path: Path) -> None:
    write(planned(root, System.PLAIN), root)
    tool(tmp_path / "tools", "sleep")

    assert run(at(root, HOOK), tmp_path / "tools", IFACE="lo") == 0
    assert calls(tmp_path / "tools") == []
