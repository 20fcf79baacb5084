"""The exceptions of vevents.

VeventsError
├─ EventValidationError (ValueError)   an event breaks the contract; nothing was written
│  └─ EventTooLargeError               an event or a frame is larger than its ring accepts
├─ LogError                            the log on disk
│  ├─ LogFullError                     no room, and the log was told to refuse
│  ├─ LogBusyError                     too many processes, or every segment is in use
│  ├─ LogReadOnlyError                 opened for reading only
│  ├─ LogDegradedError                 the disk failed or the files are gone; no more appends
│  ├─ LogVersionError                  written by a newer vevents
│  ├─ LogForeignError                  the copy on flash is of another log
│  └─ LogCorruptError                  not a log, or broken beyond use (open repairs instead)
├─ ConfigurationError                  a setting is missing or makes no sense
├─ FlushLockedError                    another flush of the same log is running
└─ DeliveryError                       the way to the server; `retryable` says it all
   ├─ UnreachableError                 no network, or not the API; retryable, costs no attempt
   │  ├─ NoAnswerError                 the request went out, no usable answer came back
   │  └─ BlockedError                  an answer that is not the API's: a login page, a firewall
   ├─ ThrottledError                   429 and 529; retryable, see `retry_after_s`
   ├─ ServerError                      408, 425 and 5xx; retryable
   ├─ AuthorizationError               401, 402, 403, 423: stop and tell the operator
   └─ RefusedError                     any other 4xx: final for this event

Failures of the operating system come as plain `OSError` with errno and path; calls that no log
could answer (a stream or a state that there is not) as plain `ValueError` or `TypeError`.
"""

from __future__ import annotations


class VeventsError(Exception):
    """Base of everything that vevents raises on purpose."""


class EventValidationError(VeventsError, ValueError):
    """An event breaks the contract. Raised before anything is written.

    Attributes:
        field: Path of the offending field, for example `images[0].objectDetections[2].confidence`.
        reason: What is wrong with it, with the limit.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason

    def __reduce__(self) -> tuple[object, ...]:
        # Else it is made anew of its message alone, which fails in whoever takes it from a worker
        # process: a pool waits for ever then.
        return type(self), (self.field, self.reason), self.__dict__


class EventTooLargeError(EventValidationError):
    """An event or a frame is larger than its ring accepts."""


class LogError(VeventsError):
    """The log on disk cannot do what was asked."""


class LogFullError(LogError):
    """No room, and the log was opened with `full="refuse"`."""


class LogBusyError(LogError):
    """Too many processes have the log open, or stopped processes hold every segment."""


class LogReadOnlyError(LogError):
    """The log was opened for reading only."""


class LogDegradedError(LogError):
    """The log's disk failed, or its files are gone; it takes no more until it is opened again."""


class LogVersionError(LogError):
    """The log was written by a newer vevents."""


class LogForeignError(LogError):
    """A log in memory and the copy on flash do not belong together; nothing was written."""


class LogCorruptError(LogError):
    """The file is not a log, or is broken beyond use."""


class ConfigurationError(VeventsError):
    """A setting is missing or makes no sense."""


class FlushLockedError(VeventsError):
    """Another flush of the same log is running; one at a time is enough."""


class DeliveryError(VeventsError):
    """A request did not succeed.

    Attributes:
        retryable: Whether the same request may succeed later.
        status_code: The HTTP status, or None when there was no answer.
        retry_after_s: Seconds that the server asked to wait, or None.
    """

    retryable = True

    def __init__(
        self,
        message: str,
        *,
        status_code: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.retry_after_s = retry_after_s


class UnreachableError(DeliveryError):
    """There was no answer, or not one from the API. `__cause__` is the transport's error."""


class NoAnswerError(UnreachableError):
    """The request went out and no usable answer came back; the server may have acted on it."""


class BlockedError(UnreachableError):
    """Something answered in place of the API: a guest network to all, or a firewall to this one."""


class ThrottledError(DeliveryError):
    """The server asked to slow down."""


class ServerError(DeliveryError):
    """The server failed; the request may be repeated."""


class AuthorizationError(DeliveryError):
    """The key is missing, wrong, or lacks the right; nothing will succeed until it is changed."""

    retryable = False


class RefusedError(DeliveryError):
    """The server refuses this request for good.

    Attributes:
        from_api: Whether the answer has the form of the API's own; else something before the
            server may have given it.
        blocked: Whether it was a `BlockedError`, of this request only.
    """

    retryable = False

    def __init__(
        self,
        message: str,
        *,
        status_code: int | None = None,
        from_api: bool = True,
        blocked: bool = False,
    ) -> None:
        super().__init__(message, status_code=status_code)
        self.from_api = from_api and not blocked
        self.blocked = blocked
