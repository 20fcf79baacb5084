"""The C library as its users meet it: installed, found, linked, run; and the README's own code."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from vevents import EventLog

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "c"
README = (ROOT / "README.md").read_text(encoding="utf-8")
JPEG = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 20


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prefix into which the library was installed, as a distribution would."""
    if not (BUILD / "build.ninja").exists():
        pytest.skip("./dev test-c has not built the C library")
    destination = tmp_path_factory.mktemp("prefix")
    environment = os.environ | {"PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}"}
    subprocess.run(
        ["meson", "install", "-C", str(BUILD), "--destdir", str(destination), "--quiet"],
        check=True,
        capture_output=True,
        env=environment,
    )
    [header] = destination.rglob("vevents.h")
    return header.parents[2]


def flags(prefix: Path) -> list[str]:
    """What the .pc file says, read by hand since pkg-config need not be there."""
    [pc] = prefix.rglob("vevents.pc")
    fields = dict(re.findall(r"^(\w+)=(.*)$", pc.read_text(), re.MULTILINE))
    library = prefix / Path(fields["libdir"].replace("${prefix}", ".")).relative_to(".")
    assert list(library.glob("libvevents.so*"))
    return [f"-I{prefix}/include", f"-L{library}", f"-Wl,-rpath,{library}", "-lvevents"]


def test_example_links_and_python_reads_its_log(installed: Path, tmp_path: Path) -> None:
    program = tmp_path / "c_loop"
    source = ROOT / "csrc" / "examples" / "c_loop.c"
    command = ["cc", "-Wall", "-Werror", "-o", str(program), str(source), *flags(installed)]
    subprocess.run(command, check=True)
    image = tmp_path / "image.jpg"
    image.write_bytes(JPEG)
    done = subprocess.run(
        [program, tmp_path / "log", *[image] * 3], check=True, capture_output=True, text=True
    )
    assert "appended 3, pending 3, durable up to 3" in done.stdout
    with EventLog(tmp_path / "log") as log:
        events = [log.decode(record) for record in log.read()]
        assert [len(e.images[0].object_detections) for e in events] == [0, 1, 2]
        assert [(e.data or {})["result"] for e in events] == ["pass", "fail", "fail"]
        frame = events[0].images[0].frame
        assert frame is not None
        assert log.frame(frame) == JPEG  # type: ignore[arg-type]


def test_library_exports_its_functions_only(installed: Path) -> None:
    [library] = [p for p in installed.rglob("libvevents.so.0") if p.is_file()]
    listed = subprocess.run(
        ["nm", "-D", "--defined-only", str(library)], check=True, capture_output=True, text=True
    )
    names = {line.split()[-1].partition("@")[0] for line in listed.stdout.splitlines()}
    assert {"vev_log_open", "vev_log_append", "vev_event_begin"} <= names
    assert {n for n in names if not n.startswith("vev_")} == {"VEVENTS_0.1"}


def test_readme_c_code_runs(installed: Path, tmp_path: Path) -> None:
    [code] = blocks("c")
    body = code.replace("/var/lib/camera-log", str(tmp_path / "log"))
    source = tmp_path / "readme.c"
    source.write_text(
        "#include <stdio.h>\n#include <vevents/event.h>\n"
        f"int main(void)\n{{\n{body}\nvev_log_close(log);\nreturn 0;\n}}\n"
    )
    program = tmp_path / "readme"
    subprocess.run(["cc", "-Wall", "-o", str(program), str(source), *flags(installed)], check=True)
    done = subprocess.run([program], check=True, capture_output=True, text=True)
    assert done.stderr == ""
    with EventLog(tmp_path / "log") as log:
        assert log.stats().pending == 1


def test_readme_python_code_runs(tmp_path: Path) -> None:
    [code] = blocks("python")
    code = code.replace("/var/lib/camera-log", str(tmp_path / "log"))
    exec(compile(code, "README.md", "exec"), {"frame": JPEG})
    with EventLog(tmp_path / "log") as log:
        [record] = log.read()
        [image] = log.decode(record).images
        assert image.object_detections[0].confidence == 0.913
        assert image.frame is not None
        assert log.frame(image.frame) == JPEG  # type: ignore[arg-type]
