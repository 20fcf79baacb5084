"""What the kernel says about the network, and which of it is good news."""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
import sys

import pytest

from vevents.delivery import network
from vevents.delivery.network import NetworkWatch, is_good, messages

NEW_LINK, DELETED_LINK, NEW_ADDRESS, DELETED_ADDRESS, NEW_ROUTE, DELETED_ROUTE = (
    16,
    17,
    20,
    21,
    24,
    25,
)
UP, LOOPBACK, RUNNING = 0x1, 0x8, 0x40


def message(kind: int, body: bytes) -> bytes:
    data = struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body
    return data + bytes(-len(data) % 4)


def link(flags: int) -> bytes:
    return struct.pack("=BBHiII", 0, 0, 1, 2, flags, 0)


def address(scope: int) -> bytes:
    return struct.pack("=BBBBI", 2, 24, 0, scope, 2)


def route(scope: int, kind: int = 1) -> bytes:
    return struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 254, 3, scope, kind, 0)


@pytest.mark.parametrize(
    ("kind", "body", "good"),
    [
        (NEW_LINK, link(UP | RUNNING), True),
        (NEW_LINK, link(UP), False),
        (NEW_LINK, link(UP | RUNNING | LOOPBACK), False),
        (DELETED_LINK, link(UP | RUNNING), False),
        (NEW_ADDRESS, address(0), True),
        (NEW_ADDRESS, address(253), False),
        (NEW_ADDRESS, address(254), False),
        (DELETED_ADDRESS, address(0), False),
        (NEW_ROUTE, route(0), True),
        (NEW_ROUTE, route(254), False),
        (NEW_ROUTE, route(0, kind=2), False),
        (DELETED_ROUTE, route(0), False),
        (NEW_LINK, b"", False),
        (NEW_ADDRESS, b"\0", False),
        (NEW_ROUTE, b"\0\0", False),
        (2, b"", False),
    ],
)
def test_only_what_leads_out_is_good(kind: int, body: bytes, good: bool) -> None:
    assert is_good(kind, body) is good


def test_several_messages_come_in_one_datagram() -> None:
    data = message(NEW_LINK, b"abc") + message(NEW_ROUTE, b"") + message(NEW_ADDRESS, b"abcd")

    assert list(messages(data)) == [(NEW_LINK, b"abc"), (NEW_ROUTE, b""), (NEW_ADDRESS, b"abcd")]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"abc",
        struct.pack("=IHHII", 0, 16, 0, 0, 0),
        struct.pack("=IHHII", 15, 16, 0, 0, 0),
        struct.pack("=IHHII", 2**32 - 1, 16, 0, 0, 0) + bytes(100),
    ],
)
def test_a_damaged_datagram_ends_the_reading(data: bytes) -> None:
    assert list(messages(data)) == []


class FakeKernel:
    """A socket from which these come, in turn."""

    def __init__(self, *answers: bytes | OSError) -> None:
        self.answers = list(answers)
        self.closed = False

    def recv(self, _: int) -> bytes:
        answer = self.answers.pop(0) if self.answers else BlockingIOError()
        if isinstance(answer, OSError):
            raise answer
        return answer

    def close(self) -> None:
        self.closed = True


def watching(*answers: bytes | OSError) -> NetworkWatch:
    watch = NetworkWatch()
    watch.close()
    watch._socket = FakeKernel(*answers)  # type: ignore[assignment]
    return watch


def test_one_good_message_among_others_is_enough() -> None:
    bad, good = message(NEW_LINK, link(UP)), message(NEW_ADDRESS, address(0))
    watch = watching(bad, good, bad)

    assert watch.read()
    assert not watch.read()


def test_a_kernel_that_lost_messages_counts_as_news() -> None:
    assert watching(OSError(105, "No buffer space available")).read()


def test_a_storm_of_messages_does_not_hold_the_agent() -> None:
    watch = watching(*[message(NEW_LINK, link(UP))] * 3_000)
    watch.read()

    assert len(watch._socket.answers) == 2_000  # type: ignore[union-attr]


def test_without_rtnetlink_it_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(socket, "socket", refuse)
    watch = NetworkWatch()

    assert watch._socket is None
    assert not watch.read()
    watch.close()


def test_on_another_system_it_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network.sys, "platform", "darwin")

    assert NetworkWatch()._socket is None


@pytest.mark.skipif(sys.platform != "linux", reason="rtnetlink is Linux's")
def test_the_kernel_is_heard_and_closing_twice_is_fine() -> None:
    watch = NetworkWatch()
    if watch._socket is None:
        pytest.skip("rtnetlink is not permitted here")
    assert not watch.read()
    watch.close()
    watch.close()
    assert watch._socket is None


_IN_A_NAMESPACE = """
import select, subprocess, time
from vevents.delivery.network import NetworkWatch
watch = NetworkWatch()
def news(*command, within_s=10.0):
    subprocess.run(["ip", *command], check=True)
    until_s = time.monotonic() + within_s
    good = False
    # The kernel takes up to a second to find out that a link carries.
    while not good and (left_s := until_s - time.monotonic()) > 0:
        select.select([watch._socket], [], [], left_s)
        good = watch.read()
    return good
assert not news("link", "set", "lo", "up", within_s=0.1)
subprocess.run(["ip", "link", "add", "va", "type", "veth", "peer", "name", "vb"], check=True)
news("link", "set", "va", "up", within_s=0.1)
assert news("link", "set", "vb", "up")
while news("link", "show", within_s=1.5):
    pass
assert news("addr", "add", "192.0.2.1/24", "dev", "va")
while news("link", "show", within_s=0.3):
    pass
assert not news("addr", "del", "192.0.2.1/24", "dev", "va", within_s=0.3)
print("heard")
"""


@pytest.mark.skipif(not shutil.which("unshare") or not shutil.which("ip"), reason="needs iproute2")
def test_a_real_address_on_a_real_link_is_good_news() -> None:
    namespace = ["unshare", "--user", "--map-root-user", "--net"]
    if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no network namespaces here")
    done = subprocess.run(
        [*namespace, sys.executable, "-c", _IN_A_NAMESPACE],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    if "Operation not supported" in done.stderr or "Unknown device type" in done.stderr:
        pytest.skip("no veth here")

    assert done.stdout.endswith("heard\n"), done.stderr
