"""The way from the device to the server, and what happens to requests on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import httpx

from simulation.server import Server
from simulation.world import DAY_S, HOUR_S, MINUTE_S, World

_KINDS = ("offline", "offline", "captive portal", "flaky", "slow")
_LOGIN_PAGE = b"<html><body>Room number and surname, please</body></html>"
_CONNECT_S, _READ_S = 10.0, 30.0


class Network:
    """What lies between, on good days and on bad ones.

    Args:
        world: True time.
        server: At the other end.

    Attributes:
        state: "online", or what is wrong.
        counts: Requests that came to nothing, by how.
    """

    def __init__(self, world: World, server: Server) -> None:
        self._world = world
        self._server = server
        self._dice = world.dice("network")
        self._healed = False
        self._bytes_per_s = 1e6
        self.state = "online"
        self.counts: Counter[str] = Counter()
        self._plan()

    def heal(self) -> None:
        """Be online for ever."""
        self._healed = True
        self._set("online")

    def _plan(self) -> None:
        dice = self._dice

        def begin() -> None:
            if self._healed:
                return
            self._set(dice.choice(_KINDS))
            weeks = dice.random() < 0.1
            lasts_s = dice.uniform(2, 14) * DAY_S if weeks else dice.expovariate(1 / (5 * HOUR_S))
            self._world.after(lasts_s + MINUTE_S, end)

        def end() -> None:
            if not self._healed:
                self._set("online")
                self._plan()

        self._world.after(dice.expovariate(1 / (1.2 * DAY_S)), begin)

    def _set(self, state: str) -> None:
        if state != self.state:
            self._world.note(f"network: {state}")
        self.state = state
        self.counts[f"state {state}"] += 1
        self._bytes_per_s = self._dice.uniform(500, 20_000) if state == "slow" else 1e6

    def carry(self, request: httpx.Request, point: Callable[[str], None]) -> httpx.Response:
        """Take one request to the server and the answer back.

        Args:
            request: With its body read.
            point: Called wherever the device may lose its power.
        """
        dice, world = self._dice, self._world
        body, path = request.content, request.url.raw_path.decode()
        point("request begins")
        if self.state == "offline":
            self._lose("not connected", _CONNECT_S if dice.random() < 0.5 else 0.1)
            raise httpx.ConnectError("network unreachable", request=request)
        world.pass_time(dice.uniform(0.02, 0.3) + len(body) / self._bytes_per_s)
        if self.state == "captive portal":
            self.counts["portal"] += 1
            return self._portal(request)
        if self.state == "offline" or (self.state == "flaky" and dice.random() < 0.25):
            self._lose("lost on the way there", dice.uniform(0, _READ_S))
            kind = dice.choice((httpx.WriteError, httpx.ReadTimeout, httpx.RemoteProtocolError))
            raise kind("the connection broke", request=request)
        point("request arrives")
        headers = {name.lower(): value for name, value in request.headers.items()}
        answer = self._server.handle(request.method, path, headers, body)
        point("server is done")
        world.pass_time(dice.uniform(0.01, 0.2))
        if self.state == "offline" or (self.state == "flaky" and dice.random() < 0.25):
            self._lose("answer lost", dice.uniform(0, _READ_S))
            if dice.random() < 0.3:
                cut = _Cut(answer.body[: len(answer.body) // 2])
                return httpx.Response(
                    answer.status, headers=answer.headers, stream=cut, extensions={"cut": True}
                )
            raise httpx.ReadTimeout("no answer", request=request)
        point("answer arrives")
        return httpx.Response(answer.status, headers=answer.headers, content=answer.body)

    def _lose(self, how: str, wait_s: float) -> None:
        self.counts[how] += 1
        self._world.note(f"network: {how}")
        self._world.pass_time(wait_s)

    def _portal(self, request: httpx.Request) -> httpx.Response:
        html = {"content-type": "text/html"}
        kind = self._dice.choice(("page", "redirect", "511"))
        self._world.note(f"network: captive portal, {kind}")
        if kind == "redirect":
            return httpx.Response(302, headers={"location": "http://login.local/"})
        status = 511 if kind == "511" else 201 if self._dice.random() < 0.5 else 200
        return httpx.Response(status, headers=html, content=_LOGIN_PAGE, request=request)


class Transport(httpx.BaseTransport):
    """Stands in for the sockets of one process of the device.

    Args:
        world: True time.
        network: The way.
        point: Called wherever the process may die.
        on_answer: Called with every request and the answer that the process got.
    """

    def __init__(
        self,
        world: World,
        network: Network,
        point: Callable[[str], None],
        on_answer: Callable[[httpx.Request, httpx.Response], None],
    ) -> None:
        self._world = world
        self._network = network
        self._point = point
        self._on_answer = on_answer

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer a request, or raise what httpx raises."""
        request.read()
        with self._world.lock:
            response = self._network.carry(request, self._point)
            self._on_answer(request, response)
            return response


class _Cut(httpx.SyncByteStream):
    """An answer of which the second half never comes."""

    def __init__(self, half: bytes) -> None:
        self._half = half

    def __iter__(self) -> Iterator[bytes]:
        yield self._half
        raise httpx.RemoteProtocolError("peer closed the connection without a complete answer")
