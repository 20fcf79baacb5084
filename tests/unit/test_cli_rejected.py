"""`vevents rejected`."""

from __future__ import annotations

import io
import json
import os
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_site import clean_environment, small_log
from rejected_site import Site, jpeg

from vevents.cli import main, rejected
from vevents.cli.exit_codes import ExitCode
from vevents.delivery.lock import flush_lock


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean_environment(monkeypatch, tmp_path)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A log with one good event and three refused: 1111..., 1122... and one of text id."""
    site = Site(tmp_path / "log")
    monkeypatch.setenv("VEVENTS_DIR", str(tmp_path / "log"))
    site.append("good")
    site.append("bad", jpeg("a"), event_id="11111111-3f6a-4d52-9a3e-0d8f2b6c41aa")
    site.flush()
    site.append("bad", event_id="11220000-3f6a-4d52-9a3e-0d8f2b6c41aa")
    site.append("bad\nvery bad", event_id="press 7")
    site.flush()
    yield site
    site.assert_conserved()
    site.log.close()


def run(*arguments: str) -> int:
    return main(["rejected", *arguments])


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    assert run("list", "--json", *arguments) == ExitCode.OK
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.usefixtures("site")
def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list") == ExitCode.OK

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["ID", "REFUSED", "TYPE", "CODE", "HTTP", "KEPT", "REASON"]
    assert [line.split()[0] for line in lines[1:4]] == ["press", "11220000", "11111111"]
    assert "custom  refused  400   log" in lines[2]
    assert lines[2].rstrip().endswith("value: says bad")
    assert lines[4] == "3 refused and listed"


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize("command", [["list"], ["retry"], ["drop"], ["export", "--to", "-"]])
@pytest.mark.parametrize(
    ("filters", "words"),
    [
        (["--code", "refuse"], "--code refuse: one of refused, blocked, "),
        (["--type", "safety-alert"], "--type safety-alert: one of quality_check, "),
        (["--type", "image", "--type", "imgae"], "--type imgae: one of "),
    ],
)
def test_words_that_nothing_can_be_refused_by(
    command: list[str], filters: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*command, *filters) == ExitCode.USAGE

    said = capsys.readouterr()
    assert said.out == ""
    assert words in said.err


@pytest.mark.usefixtures("site")
def test_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    objects = listed(capsys)

    assert objects[0]["id"] == "press 7"
    assert objects[0].keys() == {
        "id",
        "type",
        "code",
        "status",
        "reason",
        "rejected_at",
        "stream",
        "seq",
        "kept_in",
    }
    assert len(listed(capsys, "-n", "2")) == 2


def test_nothing_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = small_log(tmp_path / "empty", events=1)

    assert run("list", "--dir", str(directory)) == ExitCode.OK
    assert capsys.readouterr().out == f"nothing to list in {directory}\n"
    assert listed(capsys, "--dir", str(directory)) == []


def test_list_changes_nothing(site: Site) -> None:
    site.log.close()
    before = {path.name: path.read_bytes() for path in site.directory.iterdir()}
    assert run("list") == run("show", "1111") == ExitCode.OK
    assert {path.name: path.read_bytes() for path in site.directory.iterdir()} == before
    site.reopen()


def test_filters(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.refused_images.add(jpeg("c"))
    site.append("good", jpeg("c"))
    site.flush()

    assert [obj["type"] for obj in listed(capsys, "--type", "image")] == ["image"]
    assert len(listed(capsys, "--type", "image", "--type", "custom")) == 4
    assert listed(capsys, "--type", "safety_alert") == []
    assert len(listed(capsys, "--code", "refused", "--type", "custom")) == 3
    assert listed(capsys, "--code", "too-old") == []
    assert len(listed(capsys, "--since", "1h")) == 4
    assert len(listed(capsys, "--since", "3d")) == 4
    assert listed(capsys, "--since", "0s") == []
    assert len(listed(capsys, "--since", "2026-01-01")) == 4
    assert listed(capsys, "--since", "2126-01-01T06:00") == []


@pytest.mark.usefixtures("site")
def test_since_that_is_no_time(capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("yesterday", "2026-99-01"):
        assert run("list", "--since", text) == ExitCode.USAGE
        assert "--since" in capsys.readouterr().err


@pytest.mark.usefixtures("site")
def test_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", "1111") == ExitCode.OK

    shown = json.loads(capsys.readouterr().out)
    assert shown["event"]["eventId"] == "11111111-3f6a-4d52-9a3e-0d8f2b6c41aa"
    assert shown["event"]["images"][0]["frame"]["seq"] == 1
    assert "says bad" in shown["reason"]
    assert shown["images"][0]["state"] == "delivered"
    assert shown["images"][0]["sourceId"] == "ve-img-1"


def test_show_what_cannot_be_read(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.log.append_encoded(b"\x81\xa9eventType\xa7unheard", 4)
    site.flush()
    unreadable = site.listed()[0]

    assert run("show", unreadable) == ExitCode.OK
    shown = json.loads(capsys.readouterr().out)
    assert "eventType" in shown["unreadable"]
    assert shown["images"] == []


@pytest.mark.parametrize(
    ("wanted", "words"),
    [("11", "several ids begin like this: 1111"), ("ffff", "nothing that is listed has this id")],
)
def test_an_id_that_is_not_one(
    site: Site, capsys: pytest.CaptureFixture[str], wanted: str, words: str
) -> None:
    for command in ("show", "retry", "drop"):
        assert run(command, wanted) == ExitCode.USAGE
        assert words in capsys.readouterr().err
    assert len(site.letters()) == 3


def test_retry(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("retry", "1111", "press") == ExitCode.OK

    assert capsys.readouterr().out == "2 pending again, 0 appended anew\n"
    assert site.listed() == ["11220000-3f6a-4d52-9a3e-0d8f2b6c41aa"]
    assert site.log.stats().pending == 2
    assert run("retry", "--code", "refused", "--json") == ExitCode.OK
    assert json.loads(capsys.readouterr().out) == {"in_place": 1, "appended": 0, "failed": []}
    site.strict = False
    assert site.flush().delivered == 3


def test_what_is_in_no_list_is_reached_with_unlisted(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    # Refusals without a note, as its being overwritten leaves them.
    seq = site.append("odd").seq
    site.log.mark([seq], "rejected")
    capsys.readouterr()

    [found] = listed(capsys, "--unlisted")
    assert (found["code"], found["seq"], found["kept_in"]) == ("unknown", seq, "log")
    assert run("list") == ExitCode.OK
    assert "1 without a note any more (see --unlisted)" in capsys.readouterr().out
    assert run("retry", "--unlisted", "--all") == ExitCode.OK
    assert capsys.readouterr().out == "1 pending again, 0 appended anew\n"
    assert len(site.letters()) == 3
    assert site.flush().delivered == 1


def test_retry_of_what_is_gone(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    note = next(note for _, note in site.log.notes() if note.get("eventId") == "press 7")
    site.log.append_note(note | {"payload": None})
    site.overwrite_events()

    assert run("retry", "--all") == ExitCode.REJECTED
    printed = capsys.readouterr()
    assert printed.out == "0 pending again, 2 appended anew\n"
    assert "press 7: it was overwritten" in printed.err
    assert run("retry", "--all", "--json") == ExitCode.REJECTED
    [failed] = json.loads(capsys.readouterr().out)["failed"]
    assert failed["id"] == "press 7"
    assert failed["problem"]
    assert run("list") == ExitCode.OK
    assert "events not listed: 2 appended anew" in capsys.readouterr().out


def test_which_ones_has_to_be_said(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("retry", "drop"):
        assert run(command) == ExitCode.USAGE
        assert "which ones?" in capsys.readouterr().err
        assert run(command, "1111", "--all") == ExitCode.USAGE
    assert len(site.letters()) == 3


def test_dry_runs_change_nothing(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    before = [note for _, note in site.log.notes()]

    assert run("retry", "--all", "--dry-run") == ExitCode.OK
    assert capsys.readouterr().out.endswith("3 would be retried\n")
    assert run("drop", "1111", "--dry-run", "--json") == ExitCode.OK
    assert [x["id"][:4] for x in json.loads(capsys.readouterr().out)["chosen"]] == ["1111"]

    assert [note for _, note in site.log.notes()] == before
    assert len(site.letters()) == 3


def test_drop(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("drop", "1111") == ExitCode.OK
    assert capsys.readouterr().out == "1 dropped from the list\n"
    assert run("drop", "--all", "--json") == ExitCode.OK
    assert json.loads(capsys.readouterr().out) == {"dropped": 2}
    assert run("list") == ExitCode.OK
    assert capsys.readouterr().out.endswith("events not listed: 3 dropped\n")
    assert site.log.stats().rejected == 3


@pytest.mark.parametrize(("answer", "left"), [("y\n", 0), ("n\n", 3)])
def test_drop_asks_on_a_terminal(
    site: Site, monkeypatch: pytest.MonkeyPatch, answer: str, left: int
) -> None:
    stdin = io.StringIO(answer)
    monkeypatch.setattr(stdin, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", stdin)

    code = run("drop", "--all")

    assert code == (ExitCode.OK if left == 0 else ExitCode.INTERRUPTED)
    assert len(site.letters()) == left
    assert run("drop", "--all", "--yes") == ExitCode.OK
    assert site.letters() == []


def test_while_a_flush_runs(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    with flush_lock(site.directory):
        for command in ("retry", "drop"):
            assert run(command, "--all", "--wait", "0s") == ExitCode.LOCKED
            assert "another flush" in capsys.readouterr().err
        assert run("list") == ExitCode.OK
    assert len(site.letters()) == 3


@pytest.mark.usefixtures("site")
def test_export_to_a_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "usb"

    assert run("export", "--to", str(out)) == ExitCode.OK
    assert capsys.readouterr().out == "3 events and 1 frames exported\n"
    assert len((out / "events.jsonl").read_text().splitlines()) == 3
    assert len((out / "reasons.jsonl").read_text().splitlines()) == 3
    assert len(list((out / "frames").iterdir())) == 1

    assert run("export", "--to", str(out)) == ExitCode.USAGE
    assert "--force" in capsys.readouterr().err
    assert run("export", "1111", "--to", str(out), "--force", "--json") == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["events"] == 1
    assert len((out / "events.jsonl").read_text().splitlines()) == 1


@pytest.mark.usefixtures("site")
def test_an_export_can_be_appended_to_another_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("export", "--to", str(tmp_path / "usb")) == ExitCode.OK
    monkeypatch.chdir(tmp_path / "usb")

    assert main(["append", "events.jsonl", "--dir", str(tmp_path / "other")]) == ExitCode.OK

    assert "3 events appended, 0 lines refused" in capsys.readouterr().out


@pytest.mark.usefixtures("site")
def test_export_to_a_file(tmp_path: Path) -> None:
    out = tmp_path / "refused.jsonl"

    assert run("export", "--to", str(out), "--type", "custom") == ExitCode.OK
    events = [json.loads(line) for line in out.read_text().splitlines()]
    assert events[0]["images"] == [{"sourceId": "ve-img-1"}]
    assert stat.S_IMODE(out.stat().st_mode) == 0o600

    assert run("export", "--to", str(out)) == ExitCode.USAGE
    assert run("export", "--to", str(out), "--force") == ExitCode.OK
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "refused.jsonl"]
    (tmp_path / "plain").touch()
    assert run("export", "--to", str(tmp_path / "plain")) == ExitCode.USAGE


@pytest.mark.usefixtures("site")
def test_export_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("export", "--to", "-") == ExitCode.OK

    printed = capsys.readouterr()
    assert len([json.loads(line) for line in printed.out.splitlines()]) == 3
    assert printed.err == "3 events and 0 frames exported\n"


@pytest.mark.usefixtures("site")
def test_export_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "nowhere" / "out.jsonl"

    assert run("export", "--to", str(missing)) == ExitCode.ERROR
    assert str(missing.parent) in capsys.readouterr().err


def test_no_log_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["list"], ["show", "1"], ["retry", "--all"], ["drop", "--all"]):
        assert run(*arguments, "--dir", str(tmp_path / "typo")) == ExitCode.USAGE
        assert "there is no log in" in capsys.readouterr().err
    assert not (tmp_path / "typo").exists()


@pytest.mark.usefixtures("capfd")
def test_a_reader_that_has_seen_enough() -> None:
    def broken() -> Iterator[str]:
        yield "one"
        raise BrokenPipeError

    kept = os.dup(1)
    try:
        rejected._print_lines(broken())
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def test_times_for_people() -> None:
    now_ns = time.time_ns()
    assert rejected._ago(now_ns - 300 * 10**9) == "5 min ago"
    assert rejected._ago(now_ns + 10**9 * 86_400 * 400)[:2] == "20"
