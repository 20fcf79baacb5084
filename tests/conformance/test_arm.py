"""The C library on 64- and 32-bit ARM under qemu, and logs that go from one to the other.

A short part of `./dev arm`, which also installs what this needs. qemu shows neither ARM's weak
memory ordering nor its timing.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path

import pytest
from reader import STATES, RingFile

from vevents import Event, EventLog, Image

ROOT = Path(__file__).parents[2]
STREAMS = ("events", "media", "delivery")
PACKAGES = {
    "aarch64": "qemu-user-static gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
    "armhf": "qemu-user-static gcc-arm-linux-gnueabihf libc6-dev-armhf-cross",
}


class Foreign:
    """The C tests of one architecture, built, and how they are run here."""

    def __init__(self, name: str) -> None:
        self.name = name
        cross_file = ROOT / "tools" / "cross" / f"{name}.ini"
        cross = ConfigParser()
        cross.read(cross_file)
        compiler, self.runner = (
            [part.strip(" '[]") for part in cross["binaries"][key].split(",")]
            for key in ("c", "exe_wrapper")
        )
        # Those of the environment that pytest runs in come first.
        scripts = os.path.dirname(sys.executable)  # noqa: PTH120 (venv's python is a link)
        self.environment = os.environ | {"PATH": f"{scripts}:{os.environ['PATH']}"}
        for program in (compiler[0], "qemu-user", "meson", "ninja"):
            wanted = next(p for p in self.runner if "qemu" in p) if "qemu" in program else program
            if shutil.which(wanted, path=self.environment["PATH"]) is None:
                pytest.skip(f"{wanted} is missing: ./dev arm, or apt-get install {PACKAGES[name]}")
        self.programs = ROOT / "build" / f"arm-{name}" / "csrc" / "tests"
        build = self.programs.parents[1]
        if not (build / "build.ninja").exists():
            options = [f"--cross-file={cross_file}", "-Dtests=true", "-Dzstd=bundled"]
            self._do("meson", "setup", build, ROOT, *options)
        targets = [f"csrc/tests/{n}" for n in ("test_ring", "test_faults", "exchange")]
        self._do("ninja", "-C", build, *targets)

    def _do(self, *command: object) -> None:
        done = subprocess.run(
            [str(c) for c in command], capture_output=True, text=True, env=self.environment
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def command(self, program: str, *arguments: object) -> list[str]:
        return [*self.runner, str(self.programs / program), *map(str, arguments)]

    def run(self, program: str, *arguments: object, page_size: int = 4096) -> str:
        environment = self.environment | {"QEMU_PAGESIZE": str(page_size)}
        command = self.command(program, *arguments)
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module", params=["aarch64", "armhf"])
def foreign(request: pytest.FixtureRequest) -> Foreign:
    return Foreign(request.param)


@pytest.fixture(scope="module")
def both() -> list[Foreign]:
    return [Foreign("aarch64"), Foreign("armhf")]


@pytest.mark.slow
@pytest.mark.parametrize("program", ["test_ring", "test_faults"])
@pytest.mark.parametrize("page_size", [4096, 65536])
def test_c_tests_pass(foreign: Foreign, program: str, page_size: int) -> None:
    if foreign.name == "armhf" and page_size != 4096:
        pytest.skip("qemu-arm 7.2 starts nothing with other pages; 32-bit kernels have 4 KiB")
    assert foreign.run(program, page_size=page_size).endswith("ok\n")


def lines_of(directory: Path) -> Iterator[str]:
    """What `exchange dump` prints, by the library of this machine."""
    with EventLog(directory, read_only=True) as log:
        for stream in STREAMS:
            for r in log.read(stream, states=("pending", "delivered", "rejected")):
                yield (
                    f"{stream} {r.seq} {r.wall_ns} {r.mono_ns} {r.boot} {r.kind} "
                    f"{STATES.index(r.state)} {r.id.hex()} {r.payload.hex()}"
                )
            s = log.stats(stream)
            assert s.conserved
            yield (
                f"{stream} appended {s.appended} delivered {s.delivered} pending {s.pending} "
                f"rejected {s.rejected} evicted {s.evicted} lost {s.lost} "
                f"damaged {log.verify(stream).damaged}"
            )


def assert_all_read_the_same(directory: Path, readers: list[Foreign]) -> list[str]:
    here = list(lines_of(directory))
    for reader in readers:
        assert reader.run("exchange", "dump", directory).splitlines() == here, reader.name
    for stream in STREAMS:
        independent = [
            f"{stream} {r.seq} {r.wall_ns} {r.mono_ns} {r.boot} {r.kind} "
            f"{STATES.index(r.state)} {r.id.hex()} {r.payload.hex()}"
            for r in RingFile(directory / f"{stream}.ring").records()
        ]
        mine = [line for line in here if line.startswith(stream) and " appended " not in line]
        assert independent == mine
    return here


@pytest.mark.slow
@pytest.mark.parametrize("first", [0, 1])
def test_a_log_goes_from_one_architecture_to_the_next(
    both: list[Foreign], tmp_path: Path, first: int
) -> None:
    directory = tmp_path / "log"
    one, two = both[first], both[1 - first]
    one.run("exchange", "write", directory, 2000)
    assert len(assert_all_read_the_same(directory, both)) > 2000
    two.run("exchange", "write", directory, 6000)  # enough to reclaim what `one` wrote
    image = Image(b"\xff\xd8\xff\xe0" + bytes(200))
    with EventLog(directory) as log:
        for i in range(1000):
            log.append(Event.custom(value=f"here {i}", images=[image]))
        last = log.stats().last_seq
        log.ack(range(last - 500, last - 400))
    assert_all_read_the_same(directory, both)
    one.run("exchange", "write", directory, 100)
    lines = assert_all_read_the_same(directory, both)
    [figures] = [line for line in lines if line.startswith("events appended")]
    assert figures.startswith("events appended 9100 ")
    assert figures.endswith(" lost 0 damaged 0")


@pytest.mark.slow
def test_architectures_write_to_one_log_at_once_and_die(
    both: list[Foreign], tmp_path: Path
) -> None:
    """As on a 64-bit kernel with 32-bit programs; each is killed in the middle."""
    directory = tmp_path / "log"
    said: set[int] = set()
    with EventLog(directory, events_size=1 << 20, segment_size=1 << 16) as log:
        writers = [
            # Without `timeout`, whose death would leave qemu behind.
            subprocess.Popen(
                f.command("exchange", "append", directory)[f.runner.index("1500") + 1 :],
                stdout=subprocess.PIPE,
            )
            for f in both
        ]
        try:
            for _ in range(300):
                said.add(log.append(Event.custom(value="here")).seq)
                for writer in writers:
                    assert writer.stdout is not None
                    seq = int(writer.stdout.readline())
                    assert seq not in said
                    said.add(seq)
        finally:
            for writer in writers:
                writer.send_signal(signal.SIGKILL)
                assert writer.stdout is not None
                rest = writer.stdout.read().split(b"\n")[:-1]
                said.update(int(line) for line in rest if line)
                writer.wait()
                writer.stdout.close()
    lines = assert_all_read_the_same(directory, both)
    both[1].run("exchange", "write", directory, 1)  # opens, and repairs what the killed left
    lines = assert_all_read_the_same(directory, both)
    seqs = {int(line.split()[1]) for line in lines if line.startswith("events ") and line[7] < "a"}
    assert {seq for seq in said if seq >= min(seqs)} <= seqs
    [figures] = [line for line in lines if line.startswith("events appended")]
    assert int(figures.partition(" lost ")[2].split()[0]) <= len(writers)


DUMP = """
import sys
from pathlib import Path
from reader import RingFile
assert sys.byteorder == "big"
for record in RingFile(Path(sys.argv[1])).records():
    print(record)
"""


def test_a_big_endian_machine_can_read_a_log(tmp_path: Path) -> None:
    root = ROOT / "build" / "root-s390x"
    qemu = shutil.which("qemu-s390x-static")
    if qemu is None or not (root / "usr" / "bin" / "python3").exists():
        pytest.skip("qemu-user-static or build/root-s390x is missing: ./dev arm logs")
    with EventLog(tmp_path / "log") as log:
        for i in range(100):
            log.append(Event.custom(value=f"here {i}"))
        log.ack(range(10, 20))
    ring = tmp_path / "log" / "events.ring"
    python = (root / "usr" / "bin" / "python3").resolve()
    done = subprocess.run(
        ["timeout", "-k", "5", "120", qemu, "-L", root, python, "-c", DUMP, ring],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(r) for r in RingFile(ring).records()]


def test_a_big_endian_build_is_refused_with_a_sentence(tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    source = ROOT / "csrc" / "src" / "vev_base.c"
    big = ["-U__BYTE_ORDER__", "-D__BYTE_ORDER__=__ORDER_BIG_ENDIAN__"]
    includes = [f"-I{ROOT}/csrc/include", f"-I{ROOT}/csrc/src"]
    done = subprocess.run(
        [compiler, *big, *includes, "-c", source, "-o", tmp_path / "big.o"],
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "the log is little-endian" in done.stderr
