"""SIGKILL in the middle of append and of flush, with a witness outside the killed process."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vevents import Event, EventLog, Image
from vevents.emulator import EmulatorConfig, RunningEmulator

JPEG = b"\xff\xd8\xff\xe0" + bytes(500)

APPENDER = """
import os, sys
from vevents import Event, EventLog, Image
log = EventLog(sys.argv[1], events_size=int(sys.argv[2]), media_size=1 << 20)
jpeg = b"\\xff\\xd8\\xff\\xe0" + bytes(500)
for i in range(10**9):
    images = [Image(jpeg + i.to_bytes(4, "little"))] if i % 5 == 0 else []
    receipt = log.append(Event.custom(value=f"{os.getpid()}-{i}", use_case_id="uc", images=images))
    os.write(1, f"{receipt.seq} {receipt.event_id}\\n".encode())
"""


def start(program: str, *arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def read_receipts(process: subprocess.Popen[bytes]) -> dict[int, str]:
    """What the process said before it died; the last line may be cut."""
    assert process.stdout is not None
    with process.stdout as stream:
        lines = stream.read().split(b"\n")[:-1]
    process.wait()
    return {int(seq): event_id.decode() for seq, event_id in (line.split() for line in lines)}


@pytest.mark.parametrize("writers", [1, 3])
def test_kill_while_appending(tmp_path: Path, writers: int) -> None:
    rng = random.Random(writers)
    directory = tmp_path / "log"
    witnessed: dict[int, str] = {}
    for _ in range(8):
        processes = [start(APPENDER, directory, 1 << 20) for _ in range(writers)]
        for process in processes:
            assert process.stdout is not None
            for _ in range(rng.randrange(1, 400)):
                line = process.stdout.readline()
                seq, event_id = line.split()
                witnessed[int(seq)] = event_id.decode()
        for process in processes:
            process.send_signal(signal.SIGKILL)
        for process in processes:
            witnessed |= read_receipts(process)
        with EventLog(directory, sync_interval_s=0) as log:
            found = {r.seq: r.event_id for r in log.read()}
            stats = log.stats()
            assert stats.conserved
            assert stats.pending == len(found)
            # What was evicted is known by number; everything newer must be there, as promised.
            kept = {seq: id_ for seq, id_ in witnessed.items() if seq >= stats.first_seq}
            assert kept
            assert kept.items() <= found.items()
            assert stats.lost <= 8 * writers  # at most what the killed were inside of
            assert log.stats("media").conserved


FLUSHER = """
import sys
from vevents import EventLog
from vevents.delivery.client import Client
from vevents.delivery.flusher import Flusher
with EventLog(sys.argv[1]) as log, Client(api_key=sys.argv[3], api_url=sys.argv[2]) as client:
    print("go", flush=True)
    Flusher(log, client).flush()
"""


def test_kill_while_flushing(tmp_path: Path) -> None:
    rng = random.Random(7)
    directory = tmp_path / "log"
    config = EmulatorConfig(use_cases=[("uc", "Test")])
    with RunningEmulator(config) as emulator, EventLog(directory) as log:
        sent = {
            log.append(
                Event.custom(
                    value=str(i), use_case_id="uc", images=[Image(JPEG + i.to_bytes(4, "little"))]
                )
            ).event_id
            for i in range(400)
        }
        kills = 0
        while log.stats().pending:
            process = start(FLUSHER, directory, emulator.url, emulator.api_key)
            assert process.stdout is not None
            assert process.stdout.readline() == b"go\n"
            try:
                process.wait(timeout=rng.uniform(0.02, 0.5) * (1 + kills / 5))
            except subprocess.TimeoutExpired:
                process.kill()
                kills += 1
            process.stdout.close()
            process.wait()
            assert log.stats().conserved
            assert log.stats("media").conserved
            assert kills < 100
        counts = emulator.counts()
        stats, media = log.stats(), log.stats("media")
    assert kills > 0
    assert stats.delivered == counts["events"] == len(sent)
    assert media.delivered == 400
    # A kill between the server's answers and our notes of them makes the uploads under way go
    # twice, at most four.
    assert 400 <= counts["images"] <= 400 + 4 * kills
