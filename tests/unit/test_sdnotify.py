"""What systemd is told, on a socket of the test's own."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from vevents.delivery.sdnotify import ServiceManager


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    name = f"vevents-test-{os.getpid()}"
    address = str(tmp_path / "notify") if request.param == "path" else f"\0{name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(address)
        bound.settimeout(5)
        yield bound, address.replace("\0", "@")


def test_every_message(manager: tuple[socket.socket, str]) -> None:
    bound, address = manager
    service = ServiceManager({"NOTIFY_SOCKET": address})
    service.ready()
    service.status("two\nlines, 3 pending …")
    service.alive()
    service.reloading()
    service.stopping()

    assert bound.recv(999) == b"READY=1"
    assert bound.recv(999).decode() == "STATUS=two lines, 3 pending …"
    assert bound.recv(999) == b"WATCHDOG=1"
    reloading, _, stamp = bound.recv(999).partition(b"\nMONOTONIC_USEC=")
    assert reloading == b"RELOADING=1"
    assert int(stamp) > 0
    assert bound.recv(999) == b"STOPPING=1"


def test_without_a_manager_nothing_happens() -> None:
    ServiceManager({}).ready()


def test_a_manager_that_is_gone_or_does_not_read_holds_nothing_up(tmp_path: Path) -> None:
    service = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "notify")})
    service.ready()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "notify"))
        for _ in range(2_000):
            service.status("x" * 1_000)


@pytest.mark.parametrize(
    ("environ", "watchdog_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_the_one_meant_for_this_process(
    environ: dict[str, str], watchdog_s: float | None
) -> None:
    assert ServiceManager(environ).watchdog_s == watchdog_s
