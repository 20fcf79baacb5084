"""The server of a pass: is it the API, which use cases does it know, what time is it there?"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from vevents.delivery.clock import SERVER_TOLERANCE_S, ClockRepair
from vevents.delivery.sender import Request, StopError, StopReason
from vevents.errors import (
    AuthorizationError,
    BlockedError,
    NoAnswerError,
    RefusedError,
    ServerError,
)

if TYPE_CHECKING:
    from vevents.delivery.client import Client
    from vevents.delivery.sender import Sender

_Answer = TypeVar("_Answer")

# Requests of one pass for nothing but the server's time.
_TIMES_ASKED_MAX = 4


class Api:
    """The server of one pass. `send` and `confirm` are for any thread, all else for the one that
    flushes.

    Args:
        client: The way to it.
        sender: Makes the requests.

    Attributes:
        use_cases: The ids of the workspace's active use cases; None as long as nobody asked, or
            when the key may not read them.
    """

    def __init__(self, client: Client, sender: Sender) -> None:
        self._client = client
        self._sender = sender
        self._confirmed = False
        self._times_asked = 0
        self.use_cases: set[str] | None = None

    def send(self, request: Request[_Answer]) -> _Answer:
        """Make one request, as `Sender.send()` does.

        What is answered in place of the API may be for everybody: a guest network's login page.
        Or a firewall dislikes what is in this request, and would stop the pass at it for ever. So
        the API is asked for something harmless: if that gets through, it is the request.

        Raises:
            RefusedError: The server refuses it for good, or something before the server does.
            ServerError, NoAnswerError: It still fails at the last attempt.
            StopError: The pass is over.
        """
        try:
            return self._sender.send(request)
        except BlockedError as error:
            self._ask()
            raise RefusedError(str(error), status_code=error.status_code, blocked=True) from error

    def confirm(self) -> None:
        """Make sure, once per pass, that the API is where we think it is.

        A 404 can mean an unknown use case or a wrong address. With a wrong address the whole log
        would be set aside as rejected. And a success that does not name the event could be the
        answer of a guest network. The answer also tells the server's time.

        Raises:
            StopError: It is not there, or does not answer.
        """
        if not self._confirmed:
            self._ask()

    @property
    def clock_is_sure(self) -> bool:
        """Whether the server's time is known well enough to judge by it."""
        return self._client.clock_is_sure

    @property
    def clock_offset_s(self) -> float | None:
        """Seconds by which the server's clock is ahead of ours, or None if it has not said."""
        return self._client.clock_offset_s

    def ask_time(self) -> bool:
        """Ask the server for its time; False when it would be asked too often in this pass."""
        self._times_asked += 1
        if self._times_asked > _TIMES_ASKED_MAX:
            return False
        self._ask()
        return True

    def teach_time(self, clock: ClockRepair) -> None:
        """Find out what the true time is, and so when the events of this boot were seen.

        Where nobody vouches for our clock, the server is asked: once if it agrees with us, often
        enough to be sure if it does not.
        """
        clock.begin()
        if not clock.needs_server:
            return
        while not self.clock_is_sure:
            offset_s = self.clock_offset_s
            if offset_s is not None and abs(offset_s) < SERVER_TOLERANCE_S:
                break
            if not self.ask_time():
                return
        clock.ask_server(self.clock_offset_s)

    def _ask(self) -> None:
        try:
            self._sender.send(Request(self._list_use_cases, 0))
        except RefusedError as error:
            if error.status_code == 404:
                raise StopError(
                    StopReason.OFFLINE, f"the API is not at this address, check API_URL: {error}"
                ) from error
        except (BlockedError, ServerError, NoAnswerError) as error:
            raise StopError.because_of(error) from error
        self._confirmed = True

    def _list_use_cases(self, within_s: float | None) -> None:
        try:
            listed = self._client.list_use_cases(within_s=within_s)
        except AuthorizationError as error:
            # A device's key may be allowed to send and not to read; that answer is the API's, too.
            if error.status_code != 403:
                raise
        else:
            self.use_cases = {use_case.id for use_case in listed.use_cases}
