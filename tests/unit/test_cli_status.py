"""`vevents status`."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cli_site import USE_CASE, clean_environment, small_log

from vevents.cli import main, status
from vevents.cli.common import human_duration, human_size
from vevents.cli.exit_codes import ExitCode
from vevents.delivery.notes import Notes
from vevents.event import Event
from vevents.log import EventLog, StreamStats


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean_environment(monkeypatch, tmp_path)


def stats(**fields: Any) -> StreamStats:
    names = [field.name for field in dataclasses.fields(StreamStats)]
    return StreamStats(**(dict.fromkeys(names, 0) | {"evicted_by_kind": [0] * 8} | fields))


def test_law_of_every_stream(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = small_log(tmp_path / "log", events=5)
    with EventLog(directory) as log:
        log.ack([1, 2])
        log.mark([3], "rejected")

    assert main(["status", "--dir", str(directory)]) == ExitCode.OK

    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith(f"{directory}: 2 events pending, the oldest ")
    assert printed[0].endswith(" old; events: 1 rejected")
    assert printed[1] == (
        "events    5 appended = 2 delivered + 2 pending + 1 rejected + 0 evicted + 0 lost  ✓"
    )
    assert printed[2].startswith("          durable up to 5 of 5; ")
    assert printed[3] == "          rejected: 1 unknown unknown"
    assert printed[4].startswith("media     0 appended")
    assert printed[6].startswith("delivery  0 appended")


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = small_log(tmp_path / "log", events=2)

    assert main(["status", "--json", "--dir", str(directory)]) == ExitCode.OK

    report = json.loads(capsys.readouterr().out)
    assert report["directory"] == str(directory)
    assert report["conserved"] is True
    assert set(report["streams"]) == {"events", "media", "delivery"}
    assert report["streams"]["events"]["pending"] == 2
    assert report["streams"]["events"]["durable_seq"] == 2
    assert report["streams"]["events"]["conserved"] is True
    assert 0 <= report["oldest_pending_age_s"] < 3600


def test_nothing_pending_has_no_age(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = small_log(tmp_path / "log")

    assert main(["status", "--json", "--dir", str(directory)]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["oldest_pending_age_s"] is None
    assert main(["status", "--dir", str(directory)]) == ExitCode.OK
    assert "oldest" not in capsys.readouterr().out


def test_while_a_writer_has_the_log_open(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with EventLog(small_log(tmp_path / "log")) as writer:
        for _ in range(3):
            writer.append(Event.custom(value="v", use_case_id=USE_CASE))

        assert main(["status", "--dir", str(tmp_path / "log")]) == ExitCode.OK
    assert "events    3 appended = 0 delivered + 3 pending" in capsys.readouterr().out


def test_changes_nothing(tmp_path: Path) -> None:
    directory = small_log(tmp_path / "log", events=2)
    before = {path.name: path.read_bytes() for path in directory.iterdir()}

    assert main(["status", "--dir", str(directory)]) == ExitCode.OK

    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_for_another_user_who_may_read() -> None:
    program = (
        "import os, sys\n"
        "from vevents.cli import main\n"
        "main(['status', '--dir', sys.argv[1]])  # loads what others may not be able to load\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "sys.exit(main(['status', '--dir', sys.argv[1]]))\n"
    )
    # Not in tmp_path, the way to which is closed to others.
    with tempfile.TemporaryDirectory() as parent:
        directory = small_log(Path(parent) / "log", events=2)
        Path(parent).chmod(0o755)
        directory.chmod(0o755)
        for path in directory.iterdir():
            path.chmod(0o644)
        command = [sys.executable, "-c", program, str(directory)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("2 appended = 0 delivered + 2 pending") == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize(("command", "code"), [("status", 1), ("flush", 1), ("verify", 9)])
def test_for_another_user_who_may_not_even_look(command: str, code: int) -> None:
    """He is told so, and not that there is no log: whoever believes that makes another one."""
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from vevents.cli import main\n"
        "main([sys.argv[2], '--dir', sys.argv[1]])  # loads what others may not be able to load\n"
        "Path.exists = lambda self: os.path.exists(self)  # as from Python 3.14 on\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "sys.exit(main([sys.argv[2], '--dir', sys.argv[1]]))\n"
    )
    with tempfile.TemporaryDirectory() as parent:
        directory = small_log(Path(parent) / "log")
        Path(parent).chmod(0o755)
        arguments = [sys.executable, "-c", program, str(directory), command]
        done = subprocess.run(
            arguments,
            capture_output=True,
            text=True,
            check=False,
            env=dict(os.environ, ROBOFLOW_API_KEY="rf_secret_0123456789"),
        )

    assert done.returncode == code
    assert "Permission denied" in done.stdout.splitlines()[-1] + done.stderr
    assert "there is no log" not in done.stderr


def test_no_log_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--dir", str(tmp_path / "typo")]) == ExitCode.USAGE
    assert "there is no log in" in capsys.readouterr().err
    assert not (tmp_path / "typo").exists()


def test_a_broken_law_is_shown_and_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = small_log(tmp_path / "log", events=1)
    monkeypatch.setattr(EventLog, "stats", lambda *_: stats(appended=5, pending=4))

    assert main(["status", "--dir", str(directory)]) == ExitCode.ERROR
    assert "0 lost  ✗ DOES NOT ADD UP" in capsys.readouterr().out
    assert main(["status", "--json", "--dir", str(directory)]) == ExitCode.ERROR
    assert json.loads(capsys.readouterr().out)["conserved"] is False


def test_figures_taken_in_the_middle_of_an_append_are_taken_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = small_log(tmp_path / "log", events=1)
    looks = iter([stats(appended=2, pending=1)] * 3 + [stats(appended=2, pending=2)] * 10)
    monkeypatch.setattr(EventLog, "stats", lambda *_: next(looks))

    assert main(["status", "--dir", str(directory)]) == ExitCode.OK


def test_description_of_trouble() -> None:
    text = status.describe(
        "events",
        stats(
            appended=9,
            evicted=9,
            evicted_by_kind=[2, 4, 0, 3, 0, 0, 0, 0],
            lost_unfinished=1,
            lost_missing=3,
            degraded=5,
            set_aside=1,
        ),
        True,
    )

    assert "evicted: 2 other, 4 quality_check, 3 safety_alert" in text
    assert "lost: 1 unfinished, 3 missing" in text
    assert "the disk failed (errno 5)" in text
    assert "an unusable file was found and set aside" in text


def test_terminal_without_the_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))

    assert status.describe("media", stats(), True).splitlines()[0].endswith("lost  adds up")
    assert status.describe("media", stats(), False).splitlines()[0].endswith("DOES NOT ADD UP")


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 << 29, "2.5 GiB"), (3 << 40, "3.0 TiB")],
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert human_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7_200, "2 h"), (864_000, "10 days")],
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text


# --- by reason ------------------------------------------------------------------------------


def refuse(directory: Path) -> None:
    """Let events of two types be refused for two reasons, and one without a note."""
    with EventLog(directory) as log:
        notes = Notes(log)
        for seq, code in ((1, "refused"), (2, "refused"), (3, "too-old")):
            payload = next(log.read(from_seq=seq)).payload
            note = {"kind": "rejected", "seq": seq, "eventId": f"evt-{seq}", "status": 400}
            notes.append(note | {"code": code, "reason": "x", "at": seq, "payload": payload})
        log.mark([1, 2, 3, 4], "rejected")


def test_rejections_by_reason_and_type(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = small_log(tmp_path / "log", events=5)
    refuse(directory)

    assert main(["status", "--dir", str(directory)]) == ExitCode.OK
    assert (
        "          rejected: 2 refused custom, 1 too-old custom, 1 unknown unknown"
        in capsys.readouterr().out.splitlines()
    )
    assert main(["status", "--json", "--dir", str(directory)]) == ExitCode.OK
    events = json.loads(capsys.readouterr().out)["streams"]["events"]
    assert events["rejected_by_reason"][0] == {"code": "refused", "type": "custom", "count": 2}
    assert sum(reason["count"] for reason in events["rejected_by_reason"]) == events["rejected"]
    assert events["evicted_by_kind"] == {}


# --- for monitoring -------------------------------------------------------------------------


def check(directory: Path, *arguments: str) -> int:
    return main(["status", "--check", "--dir", str(directory), *arguments])


def test_check_of_a_healthy_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = small_log(tmp_path / "log", events=2)

    assert check(directory, "--json") == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["problems"] == []


def test_check_of_old_events(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = small_log(tmp_path / "log")
    with EventLog(directory) as log:
        old = datetime.now(UTC) - timedelta(hours=30)
        log.append(Event.custom(value="v", use_case_id=USE_CASE, timestamp=old))

    assert check(directory) == ExitCode.ATTENTION
    assert "the oldest pending event is 30 h old, more than 24 h" in capsys.readouterr().err
    assert check(directory, "--max-age", "31h") == ExitCode.OK
    assert main(["status", "--dir", str(directory)]) == ExitCode.OK


def test_check_of_a_file_that_was_set_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = small_log(tmp_path / "log", events=2)
    (directory / "media.ring").write_bytes(b"no ring")
    with EventLog(directory):
        pass

    assert check(directory) == ExitCode.ATTENTION
    printed = capsys.readouterr()
    assert printed.err == "vevents: damaged and set aside: media.ring.damaged-1\n"
    assert printed.out.endswith("damaged and set aside: media.ring.damaged-1\n")


def test_check_of_a_disk_that_failed() -> None:
    healthy = stats()
    report = status.Report(
        Path(),
        {"events": stats(degraded=5), "media": healthy, "delivery": healthy},
        {},
        None,
    )

    assert list(status.problems_of(report, max_age_s=1)) == ["events: the disk failed (errno 5)"]


def test_check_against_the_one_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = small_log(tmp_path / "log", events=5)
    baseline = ["--baseline", str(tmp_path / "before.json")]
    assert check(directory, *baseline) == ExitCode.OK
    refuse(directory)

    assert check(directory, *baseline, "--json") == ExitCode.ATTENTION
    printed = capsys.readouterr()
    assert printed.err == "vevents: events: 4 rejected since the last check\n"
    problems = json.loads(printed.out.splitlines()[-1])["problems"]
    assert problems == ["events: 4 rejected since the last check"]
    assert check(directory, *baseline) == ExitCode.OK

    for path in directory.glob("*.ring"):
        path.unlink()
    small_log(directory)
    assert check(directory, *baseline) == ExitCode.ATTENTION
    assert "began anew" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["[]", "{", '{"events": 3}'])
def test_a_baseline_that_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    directory = small_log(tmp_path / "log")
    (tmp_path / "before.json").write_text(text)

    assert check(directory, "--baseline", str(tmp_path / "before.json")) == ExitCode.USAGE
    assert "holds no figures" in capsys.readouterr().err
    assert (tmp_path / "before.json").read_text() == text


def test_a_baseline_that_cannot_be_kept_hides_no_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A check is for the day on which the disk is full, too."""
    directory = small_log(tmp_path / "log", events=5)
    refuse(directory)
    set_aside = directory / "media.ring.damaged-1"
    set_aside.write_bytes(b"junk")

    code = check(directory, "--baseline", str(tmp_path / "no" / "before.json"), "--json")

    assert code == ExitCode.ATTENTION
    problems = json.loads(capsys.readouterr().out)["problems"]
    assert any(set_aside.name in problem for problem in problems)
    assert f"the baseline was not kept: [Errno 2] No such file or directory: '{tmp_path}" in str(
        problems
    ).replace('"', "")


def test_options_that_do_not_go_together(tmp_path: Path) -> None:
    directory = str(small_log(tmp_path / "log"))

    assert main(["status", "--dir", directory, "--json", "--prometheus"]) == ExitCode.USAGE
    assert main(["status", "--dir", directory, "--baseline", "x"]) == ExitCode.USAGE
    assert main(["status", "--dir", directory, "--max-age", "2h"]) == ExitCode.USAGE


def test_prometheus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = small_log(tmp_path / 'a "log"', events=5)
    refuse(directory)

    assert main(["status", "--prometheus", "--dir", str(directory)]) == ExitCode.OK

    lines = capsys.readouterr().out.splitlines()
    samples = {}
    for line in lines:
        if line.startswith("#"):
            assert re.fullmatch(r"# (HELP vevents_\w+ .+|TYPE vevents_\w+ (gauge|counter))", line)
            continue
        match = re.fullmatch(
            r'(vevents_\w+)\{((?:\w+="(?:[^"\\\n]|\\.)*",?)+)\} ([0-9.e+-]+)', line
        )
        assert match is not None, line
        assert match[2].startswith(r'dir="') and r"a \"log\"" in match[2]
        labels = match[2].partition(r'log\""')[2].strip(",")
        samples[match[1], labels] = float(match[3])
    assert samples["vevents_records", 'stream="events",state="pending"'] == 1
    assert samples["vevents_records", 'stream="events",state="rejected"'] == 4
    assert samples["vevents_appended_total", 'stream="events"'] == 5
    reason = 'stream="events",code="refused",type="custom"'
    assert samples["vevents_rejected_by_reason", reason] == 2
    assert samples["vevents_conserved", ""] == 1
    assert 0 <= samples["vevents_oldest_pending_seconds", ""] < 3600
    typed = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(set(typed)) == len(typed)


@pytest.fixture
def shed_log(tmp_path: Path) -> Path:
    directory = small_log(tmp_path / "log", events=2)
    with EventLog(directory) as log:
        for step, count in (("none", 2), ("quality", 1), ("none", 1)):
            told = {"vevents_frame_step": step, "vevents_frames_shed": count}
            log.append(Event.custom(value="v", use_case_id=USE_CASE, metadata=told))
        log.append(Event.custom(value="my own vevents_frame_step", use_case_id=USE_CASE))
        log.ack([3])
    return directory


def test_frames_that_the_ladder_shed(
    shed_log: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VEVENTS_PRESSURE", "0.5:quality=50,0.9:none")
    monkeypatch.setenv("VEVENTS_DIR", str(shed_log))

    assert main(["status"]) == ExitCode.OK
    assert "frames shed for want of room: 1 quality, 3 none\n" in capsys.readouterr().out
    assert main(["status", "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["frames_shed"] == {"quality": 1, "none": 3}
    assert main(["status", "--prometheus"]) == ExitCode.OK
    lines = capsys.readouterr().out.splitlines()
    assert f'vevents_frames_shed{{dir="{shed_log}",step="none"}} 3' in lines


def test_without_a_ladder_nobody_looks_for_its_traces(
    shed_log: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vevents.delivery.figures.frames_shed", lambda _: 1 / 0)

    assert main(["status", "--json", "--dir", str(shed_log)]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["frames_shed"] is None
