"""Does every peer keep what it acknowledged, when its process is killed? If not, it is no peer.

A test rather than a benchmark, with the other benchmarks because it needs the same packages.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from peers import MCAP_IN_CHUNKS, PEERS, Peer
from workload import typical_payloads

CHILD = """
import os, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from peers import MCAP_IN_CHUNKS, PEERS
from workload import typical_payloads
peer = PEERS.get(sys.argv[2], MCAP_IN_CHUNKS)
payloads = typical_payloads(500)
opened = peer.open(Path(sys.argv[3]))
for i in range(1_000_000):
    opened.append(peer.prepare(payloads[i % 500]))
    os.write(1, b".")
"""
ACKNOWLEDGED = 1_200


def kept_and_acknowledged(peer: Peer, name: str, directory: Path) -> tuple[list[object], int]:
    """Kill a process in the middle of appending. Returns what is there then, and how much it said.

    Stopping at the first reading of that many acknowledgements is as good as any moment.
    """
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(Path(__file__).parent), name, str(directory)],
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    said = len(child.stdout.read(ACKNOWLEDGED))
    child.kill()
    said += len(child.stdout.read())
    child.stdout.close()
    assert child.wait() == -9, "it ended before it was killed"
    return peer.read(directory), said


@pytest.mark.parametrize("name", PEERS)
def test_a_killed_process_loses_nothing_it_acknowledged(tmp_path: Path, name: str) -> None:
    peer = PEERS[name]
    if not peer.installed:
        pytest.skip(f"{peer.package} is not installed")

    kept, said = kept_and_acknowledged(peer, name, tmp_path)

    # The last one may have been appended and not acknowledged.
    assert said <= len(kept) <= said + 1
    payloads = typical_payloads(500)
    assert kept[:said] == [peer.prepare(payloads[i % 500]) for i in range(said)]


def test_what_keeps_a_chunk_in_memory_is_found_out(tmp_path: Path) -> None:
    pytest.importorskip("mcap")

    kept, said = kept_and_acknowledged(MCAP_IN_CHUNKS, "MCAP in chunks", tmp_path)

    assert len(kept) < said
