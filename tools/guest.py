"""Power cuts in a virtual machine: guest.py ROOT PROGRAM NATIVE [--cuts N] [--seed S] [--minutes M]

An arm64 machine under qemu with a real kernel, ext4 and f2fs, boots, looks at the log on its disk
(csrc/tests/crash/guest.c), goes on appending to it, and is killed at a random moment. Then it boots
again. Half of the cuts take more than the machine's memory: of what it had written to the disk and
not flushed, a random part is gone, in no order, as with a disk that has a cache. For that, qemu
records every write and flush. On ext4, more such states of every cut are looked at here, by a loop
mount and the native program.

ROOT has a kernel with its modules and busybox (tools/foreign_root.sh), PROGRAM is the static
program for the machine, NATIVE the one for here. Needs root, qemu-system-aarch64, mkfs.ext4 and
mkfs.f2fs.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

# What of a write is there whole or not at all. f2fs takes for granted that no disk tears its
# blocks: of a torn inode, which has no checksum, it believes the half that is there.
TORN_UNIT = {"ext4": 512, "f2fs": 4096}
DISK_SIZE = {"ext4": 48 << 20, "f2fs": 64 << 20}
MODULES = ("virtio_mmio", "virtio_blk", "ext4", "f2fs")
# What the kernel says with nobody to read it costs time on an emulated console.
KERNEL = "console=ttyAMA0 quiet loglevel=3 panic=-1 rdinit=/init"
BOOT_S = 240.0
SILENCE_S = 120.0
STATES_HERE = 3

# Of a recording, as the kernel's dm-log-writes makes it.
LOG_MAGIC = 0x6A736677736872
LOG_FLUSH, LOG_FUA, LOG_DISCARD = 1, 2, 4

INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /run
for word in $(cat /proc/cmdline); do
    case $word in vev.*) export "vev_${word#vev.}" ;; esac
done
echo /bin/modprobe >/proc/sys/kernel/modprobe
for module in virtio_mmio virtio_blk "$vev_fs"; do modprobe "$module"; done
fail() { dmesg | tail -n 5; echo "FAILED: $*"; poweroff -f; }
mount -t "$vev_fs" /dev/vda /mnt || fail "mount"
dir=/mnt/log copy=-
[ "$vev_mode" = disk ] || { dir=/run/log; copy=/mnt/copy; }
/guest check "$dir" "$copy" "$vev_durable" "$vev_delivered" "$vev_gaps" || fail "check"
[ "$vev_only" = check ] || /guest write "$dir" "$copy" "$vev_seed" || fail "write"
poweroff -f
"""


class GuestError(Exception):
    """The machine, or what is needed for it, does not work."""


@dataclass
class Device:
    """A machine's disk and what its log said last."""

    file_system: str
    mode: str  # disk: the log is on it; memory: its copy is
    disk: Path
    durable: int = 0
    delivered: int = 0
    gaps: str = "-"  # what earlier cuts took, before it was durable
    cuts: int = 0
    torn: int = 0
    states_here: int = 0
    checks: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.file_system}, log in {'memory' if self.mode == 'memory' else 'files'}"


def build_initramfs(root: Path, program: Path, into: Path) -> Path:
    """Pack busybox, the modules and the program. Returns the kernel."""
    [kernel] = sorted((root / "boot").glob("vmlinuz-*"))[-1:]
    release = kernel.name.removeprefix("vmlinuz-")
    with tempfile.TemporaryDirectory(dir=into.parent) as folder:
        tree = Path(folder)
        for name in ("bin", "proc", "sys", "dev", "run", "mnt", f"lib/modules/{release}"):
            (tree / name).mkdir(parents=True)
        source = root / "lib" / "modules" / release
        run("depmod", "-b", str(root), release)
        for path in needed_modules(source):
            target = tree / "lib" / "modules" / release / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / path, target)
        for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
            if (source / name).exists():
                shutil.copy(source / name, tree / "lib" / "modules" / release)
        run("depmod", "-b", str(tree), release)
        shutil.copy(root / "bin" / "busybox", tree / "bin" / "busybox")
        shutil.copy(program, tree / "guest")
        (tree / "init").write_text(INIT)
        for name in ("init", "guest", "bin/busybox"):
            (tree / name).chmod(0o755)
        names = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
        packed = subprocess.run(
            ["cpio", "-o", "-H", "newc", "--quiet"],
            cwd=tree,
            input=names.encode(),
            capture_output=True,
            check=True,
        ).stdout
    into.write_bytes(packed)
    return kernel


def needed_modules(source: Path) -> set[str]:
    """Return the modules of `MODULES` and all that they need, as paths below `source`."""
    needs = {}
    for line in (source / "modules.dep").read_text().splitlines():
        path, _, others = line.partition(":")
        needs[path] = others.split()
    # f2fs and ext4 ask for these by the names of algorithms, which no file lists.
    wanted = {*MODULES, "crc32c_generic", "crc32_generic", "libcrc32c"}
    found = {path for path in needs if Path(path).name.partition(".")[0] in wanted}
    return found | {other for path in found for other in needs[path]}


def make_disk(device: Device) -> None:
    """Make an empty file system."""
    with device.disk.open("wb") as file:
        file.truncate(DISK_SIZE[device.file_system])
    options = {"ext4": ("-q", "-F"), "f2fs": ("-q", "-f")}[device.file_system]
    run(f"mkfs.{device.file_system}", *options, str(device.disk))


class Machine:
    """A running machine; what it prints is read by a thread.

    Args:
        kernel: Its kernel.
        initramfs: Its initramfs.
        device: Its disk.
        record: Where its writes are recorded.
        only_check: Whether it looks at the log and powers off.
        seed: Of what it appends.
    """

    def __init__(
        self,
        kernel: Path,
        initramfs: Path,
        device: Device,
        record: Path,
        *,
        only_check: bool,
        seed: int,
    ) -> None:
        record.write_bytes(b"")
        words = {
            "fs": device.file_system,
            "mode": device.mode,
            "durable": device.durable,
            "delivered": device.delivered,
            "gaps": device.gaps,
            "seed": seed,
            "only": "check" if only_check else "no",
        }
        append = " ".join([KERNEL, *(f"vev.{name}={value}" for name, value in words.items())])
        drives = (
            f"driver=file,filename={device.disk},node-name=disk,cache.direct=off",
            "driver=raw,file=disk,node-name=plain",
            f"driver=file,filename={record},node-name=record",
            "driver=blklogwrites,file=plain,log=record,node-name=recorded",
        )
        self._process = subprocess.Popen(
            [
                "qemu-system-aarch64",
                *("-M", "virt", "-cpu", "cortex-a53", "-m", "256", "-nographic", "-no-reboot"),
                *("-nodefaults", "-serial", "stdio", "-kernel", str(kernel)),
                *("-initrd", str(initramfs), "-append", append),
                *itertools.chain.from_iterable(("-blockdev", drive) for drive in drives),
                *("-device", "virtio-blk-device,drive=recorded,write-cache=on"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            # A line that the kill cut off says nothing.
            if not line.endswith(b"\n"):
                break
            with self._changed:
                self._lines.append(line.decode(errors="replace").strip())
                self._changed.notify()
        with self._changed:
            self._changed.notify()

    def wait_for(self, pattern: str, seconds: float) -> re.Match[str]:
        """Wait for a line. Raises GuestError when it does not come, or the log fails."""
        seen = 0
        deadline = time.monotonic() + seconds
        while True:
            with self._changed:
                if seen == len(self._lines):
                    self._changed.wait(0.5)
                lines = self._lines[seen:]
            for line in lines:
                if "FAILED" in line or "Kernel panic" in line:
                    raise GuestError("\n".join(self._lines[-20:]))
                if match := re.search(pattern, line):
                    return match
            seen += len(lines)
            if time.monotonic() > deadline or (not lines and self._process.poll() is not None):
                tail = "\n".join(self._lines[-15:])
                raise GuestError(
                    f"no line like {pattern!r} from the machine; the last were\n{tail}"
                )

    def safe(self) -> tuple[int, int] | None:
        """Return what the last line about safe events said."""
        for line in reversed(self._lines):
            if match := re.search(r"^safe (\d+) (\d+)$", line):
                return int(match[1]), int(match[2])
            if "FAILED" in line:
                raise GuestError(line)
        return None

    def gaps(self) -> str:
        """Return what it told of gaps in the numbers."""
        found = [line.removeprefix("gap ") for line in self._lines if line.startswith("gap ")]
        return "".join(f"{gap}," for gap in found) or "-"

    def lines(self) -> int:
        """Return how many lines it has printed."""
        return len(self._lines)

    def kill(self) -> None:
        """Cut the power."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._reader.join()


@dataclass(frozen=True)
class Write:
    """One recorded write."""

    offset: int
    data_at: int
    size: int
    forced: bool  # it bypassed the disk's cache


def read_record(record: Path) -> tuple[list[Write], int]:
    """Return the writes of a recording, and how many of them were flushed for sure."""
    size = record.stat().st_size
    writes: list[Write] = []
    flushed = 0
    with record.open("rb") as file:
        magic, _, _, sector = struct.unpack("<QQQI", file.read(28).ljust(28, b"\0"))
        if magic != LOG_MAGIC or sector == 0:
            return [], 0
        at = sector
        while at + 32 <= size:
            file.seek(at)
            start, count, flags, _ = struct.unpack("<QQQQ", file.read(32))
            at += sector
            if count == 0 and flags == 0:
                break  # behind the last
            if flags & LOG_FLUSH:
                flushed = len(writes)
            if count and not flags & LOG_DISCARD:  # what is discarded may as well still be there
                if at + count * sector > size:
                    break
                forced = bool(flags & LOG_FUA)
                writes.append(Write(start * sector, at, count * sector, forced))
                at += count * sector
    return writes, flushed


def cut_disk(before: Path, record: Path, after: Path, unit: int, chance: random.Random) -> float:
    """Make the disk that a cut leaves: of the writes behind the last flush, a random part.

    Returns:
        How many KiB of them are gone.
    """
    writes, flushed = read_record(record)
    copy_sparse(before, after)
    share = chance.choice((0.0, 0.1, 0.5, 0.9))
    gone = 0
    with record.open("rb") as source, after.open("r+b") as target:
        for number, write in enumerate(writes):
            source.seek(write.data_at)
            data = source.read(write.size)
            if number < flushed or write.forced:
                target.seek(write.offset)
                target.write(data)
                continue
            # A disk has its own order.
            for at in range(0, write.size, unit):
                if chance.random() < share:
                    target.seek(write.offset + at)
                    target.write(data[at : at + unit])
                else:
                    gone += len(data[at : at + unit])
    return gone / 1024


def copy_sparse(source: Path, target: Path) -> None:
    """Copy an image, its holes staying holes."""
    run("cp", "--sparse=always", str(source), str(target))


@contextlib.contextmanager
def mounted(image: Path, at: Path) -> Iterator[None]:
    """Mount an image for as long as the block runs."""
    at.mkdir(exist_ok=True)
    run("mount", "-o", "loop", str(image), str(at))
    try:
        yield
    finally:
        run("umount", str(at))


def check_here(device: Device, image: Path, folder: Path, native: Path) -> None:
    """Look at a state of an ext4 disk with the native program."""
    with mounted(image, folder / "mnt"):
        log, copy = folder / "mnt" / "log", "-"
        if device.mode == "memory":
            log, copy = folder / "memory", str(folder / "mnt" / "copy")
            shutil.rmtree(log, ignore_errors=True)
        done = subprocess.run(
            [native, "check", log, copy, str(device.durable), str(device.delivered), device.gaps],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    if done.returncode:
        raise GuestError(f"here: {done.stdout}{done.stderr}")
    device.states_here += 1


def one_cut(
    device: Device, folder: Path, kernel: Path, native: Path, chance: random.Random
) -> None:
    """Boot, look, write, cut."""
    before, record = folder / "before.img", folder / "record"
    copy_sparse(device.disk, before)
    machine = Machine(
        kernel,
        folder / "initramfs",
        device,
        record,
        only_check=False,
        seed=chance.randrange(1 << 30),
    )
    try:
        device.checks.append(machine.wait_for(r"^checked: .*", BOOT_S)[0])
        device.gaps = machine.gaps()
        machine.wait_for(r"^safe ", SILENCE_S)
        # By what it did, not by the clock: this machine may be busy with something else.
        wanted = machine.lines() + chance.choice((0, 1, 2, 5, 20, 60))
        deadline = time.monotonic() + SILENCE_S
        while machine.lines() < wanted and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(chance.random() * 0.3)
    finally:
        machine.kill()
    safe = machine.safe()
    assert safe is not None
    device.durable, device.delivered = safe
    device.cuts += 1
    unit = TORN_UNIT[device.file_system]
    if device.file_system == "ext4":
        for _ in range(STATES_HERE):
            cut_disk(before, record, folder / "state.img", unit, chance)
            check_here(device, folder / "state.img", folder, native)
    if chance.random() < 0.5:
        # For whoever has to tell what the next boot finds.
        for kept in (device.disk, before, record):
            copy_sparse(kept, folder / f"last-{kept.name}")
        gone = cut_disk(before, record, device.disk, unit, chance)
        device.torn += gone > 0
        device.checks[-1] += f"; then {gone} unflushed KiB lost"


def final_check(device: Device, folder: Path, kernel: Path) -> None:
    """Boot once more, and only look."""
    machine = Machine(
        kernel, folder / "initramfs", device, folder / "record", only_check=True, seed=0
    )
    try:
        device.checks.append(machine.wait_for(r"^checked: .*", BOOT_S)[0])
    finally:
        machine.kill()


def run(*words: str) -> None:
    """Run a program that has to succeed."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise GuestError(f"{' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")


def main() -> int:
    """Cut the power as often as told. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("program", type=Path)
    parser.add_argument("native", type=Path)
    parser.add_argument("--cuts", type=int, default=50, help="for each file system (50)")
    parser.add_argument("--minutes", type=float, default=0, help="stop after so many; 0: never")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--keep", type=Path, help="where the disk of a failure goes")
    options = parser.parse_args()
    missing = [
        name
        for name in ("qemu-system-aarch64", "mkfs.ext4", "mkfs.f2fs", "depmod", "cpio")
        if shutil.which(name) is None
    ]
    if missing or os.geteuid() != 0:
        print(f"guest: needs root and {', '.join(missing) or 'nothing more'}", file=sys.stderr)
        return 77
    print(f"guest: seed {options.seed}", flush=True)
    chance = random.Random(options.seed)
    deadline = time.monotonic() + options.minutes * 60 if options.minutes else float("inf")
    with tempfile.TemporaryDirectory(prefix="vevents-guest-") as name:
        folder = Path(name)
        kernel = build_initramfs(options.root, options.program, folder / "initramfs")
        devices = [
            Device(file_system, mode, folder / f"{file_system}-{mode}.img")
            for mode in ("disk", "memory")
            for file_system in ("ext4", "f2fs")
        ]
        for device in devices:
            make_disk(device)
        try:
            for _ in range((options.cuts + 1) // 2):
                for device in devices:
                    if time.monotonic() < deadline:
                        one_cut(device, folder, kernel, options.native.absolute(), chance)
                        print(f"{device.name}: cut {device.cuts}; {device.checks[-1]}", flush=True)
            for device in devices:
                if device.cuts:
                    final_check(device, folder, kernel)
        except GuestError as error:
            print(f"guest: {device.name}, cut {device.cuts}: {error}", file=sys.stderr)
            if options.keep:
                names = ("before.img", "record", "state.img")
                last = folder.glob("last-*")
                for image in (device.disk, *(folder / name for name in names), *last):
                    if image.exists():
                        copy_sparse(image, options.keep / f"guest-{image.name}")
            return 1
        for device in devices:
            print(
                f"{device.name}: {device.cuts} cuts, {device.torn} of them with unflushed writes "
                f"gone, {device.states_here} more states looked at here; {device.checks[-1]}"
            )
    print("guest: all good")
    return 0


if __name__ == "__main__":
    sys.exit(main())
