"""Build the source distribution and the wheels, without containers: wheels.py DIRECTORY [TARGET...]

    sdist -> unpacked -> one wheel a platform, compiled by zig -> tagged -> bill of materials added
                                                     -> checked: symbols, C library, licences

Every wheel is built from the unpacked sdist, so that an sdist with a file missing fails here. zig
brings the headers and symbols of old C libraries with it; libzstd is the bundled one, hidden.

Runs in an environment with what `./dev wheels` installs. The sdist holds what is committed.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import sbom

ROOT = Path(__file__).parents[1]

# zig's target: the wheel's platform tags. glibc 2.27 is that of numpy's wheels, which we need
# anyway; musl 1.2 is that of all that Alpine supports.
TARGETS = {
    "x86_64-linux-gnu.2.27": "manylinux_2_27_x86_64.manylinux_2_28_x86_64",
    "aarch64-linux-gnu.2.27": "manylinux_2_27_aarch64.manylinux_2_28_aarch64",
    "x86_64-linux-musl": "musllinux_1_2_x86_64",
    "aarch64-linux-musl": "musllinux_1_2_aarch64",
}


def run(*command: object, cwd: Path = ROOT) -> str:
    """Run a command; its output is shown only if it fails."""
    text = [str(part) for part in command]
    # meson, ninja and the others stand beside the interpreter.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        text,
        cwd=cwd,
        env=os.environ | {"PATH": path},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode != 0:
        sys.exit(f"{done.stdout}\nwheels: failed: {' '.join(text)}")
    return done.stdout


def build_sdist(directory: Path) -> Path:
    """Return the path of the source distribution, made in `directory`."""
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", directory)
    [path] = directory.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        check_licenses(archive.getnames(), path.name.removesuffix(".tar.gz"))
    return path


def cross_file(target: str, scratch: Path) -> Path:
    """Write the meson cross file that compiles for `target` with zig."""
    cpu = target.partition("-")[0]
    zig = f"'{sys.executable}', '-m', 'ziglang'"
    path = scratch / "cross.ini"
    path.write_text(
        f"[binaries]\n"
        f"c = [{zig}, 'cc', '-target', '{target}']\n"
        f"ar = [{zig}, 'ar']\n"
        f"python = '{sys.executable}'\n"
        f"[host_machine]\n"
        f"system = 'linux'\ncpu_family = '{cpu}'\ncpu = '{cpu}'\nendian = 'little'\n"
    )
    return path


def build_wheel(source: Path, target: str, directory: Path) -> Path:
    """Build, check and tag one wheel.

    The headers are those of the Python that builds: for the limited API all that matters in them is
    the size of C's types, which all these targets have in common with it.

    Args:
        source: The unpacked sdist.
        target: Which of `TARGETS`.
        directory: Where the wheel is put.

    Returns:
        Its path.
    """
    with tempfile.TemporaryDirectory() as scratch_name:
        scratch = Path(scratch_name)
        settings = [
            f"-Csetup-args=--cross-file={cross_file(target, scratch)}",
            "-Csetup-args=-Dzstd=bundled",
            "-Csetup-args=-Dc_link_args=-s",
        ]
        command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", *settings]
        run(*command, "--outdir", scratch, cwd=source)
        [wheel] = scratch.glob("*.whl")
        tags = ("--platform-tag", TARGETS[target], "--abi-tag", "abi3", "--python-tag", "cp311")
        run(sys.executable, "-m", "wheel", "tags", "--remove", *tags, wheel)
        [wheel] = scratch.glob("*.whl")
        add_sbom(wheel)
        check_exports(wheel)
        with zipfile.ZipFile(wheel) as archive:
            stem = "-".join(wheel.name.split("-")[:2])
            check_licenses(archive.namelist(), f"{stem}.dist-info/licenses")
        if "-gnu" in target:
            check_symbols(wheel, target)
        return Path(wheel.rename(directory / wheel.name))


def add_sbom(wheel: Path) -> None:
    """Put the bill of materials where scanners of installed packages look for it."""
    with tempfile.TemporaryDirectory() as scratch:
        run(sys.executable, "-m", "wheel", "unpack", "--dest", scratch, wheel)
        [unpacked] = Path(scratch).iterdir()
        [metadata] = unpacked.glob("*.dist-info")
        (metadata / "sboms").mkdir()
        (metadata / "sboms" / "vevents.cdx.json").write_text(sbom.text())
        run(sys.executable, "-m", "wheel", "pack", "--dest-dir", wheel.parent, unpacked)


def check_licenses(names: Sequence[str], folder: str) -> None:
    """End with a sentence if a licence of what is in the archive is not in it, below `folder`."""
    for licence in ("LICENSE", "csrc/third_party/zstd/LICENSE"):
        if f"{folder}/{licence}" not in names:
            sys.exit(f"wheels: {folder}/{licence} is missing")


def check_exports(wheel: Path) -> None:
    """End with a sentence if the extension shows anything but its entry: zstd would clash."""
    from elftools.elf.elffile import ELFFile  # comes with auditwheel
    from elftools.elf.sections import SymbolTableSection

    with zipfile.ZipFile(wheel) as archive:
        elf = ELFFile(io.BytesIO(archive.read("vevents/_core.abi3.so")))
    dynamic = elf.get_section_by_name(".dynsym")
    assert isinstance(dynamic, SymbolTableSection)
    shown = {
        symbol.name
        for symbol in dynamic.iter_symbols()
        if symbol["st_shndx"] != "SHN_UNDEF" and symbol["st_info"]["type"] == "STT_FUNC"
    }
    if shown != {"PyInit__core", "PyInit__append"}:
        sys.exit(f"wheels: {wheel.name} exports {len(shown)} functions: {sorted(shown)[:5]} ...")


def check_symbols(wheel: Path, target: str) -> None:
    """End with a sentence if the wheel needs a newer C library than its tag says."""
    shown = json.loads(run(sys.executable, "-m", "auditwheel", "show", "--json", wheel))
    needed = str(shown["overall_tag"])
    minor = int(needed.split("_")[2]) if needed.startswith("manylinux_2_") else 99
    if minor > int(target.rpartition(".")[2]):
        sys.exit(f"wheels: {wheel.name} needs {needed}")


def main(directory: Path, targets: Sequence[str] = tuple(TARGETS)) -> None:
    """Leave in `directory` sdist, bill of materials and wheels for `targets`, and nothing older."""
    directory.mkdir(parents=True, exist_ok=True)
    for pattern in ("*.whl", "*.tar.gz", "*.cdx.json"):
        for old in directory.glob(pattern):
            old.unlink()
    sdist = build_sdist(directory)
    bill = directory / f"{sdist.name.removesuffix('.tar.gz')}.cdx.json"
    bill.write_text(sbom.text())
    made = [sdist, bill]
    with tempfile.TemporaryDirectory() as scratch:
        with tarfile.open(sdist) as archive:
            archive.extractall(scratch, filter="data")
        [source] = Path(scratch).iterdir()
        made += [build_wheel(source, target, directory) for target in targets]
    for path in made:
        print(f"{path.stat().st_size:>9,} bytes  {path}")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), sys.argv[2:] or tuple(TARGETS))
