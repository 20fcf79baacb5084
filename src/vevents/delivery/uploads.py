"""Threads that upload frames side by side, and one that reads ahead.

`Uploads` takes frames in the order in which they are wanted and hands each to a thread, as far as
`Lanes` has room. A thread holds one frame, so memory is bounded by the number of threads. With one
thread there is none: the frame is uploaded at once by whoever asks. Bundles are sent in the same
way, each with an event and all its frames.

A pass that ends waits for the requests that are under way and lets them write down what they
achieved; none begins any more. If there is no time even for that (a second Ctrl-C), `abandon` takes
the log away from the threads: what they achieve then is forgotten, as in a crash.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

from vevents.delivery.sender import StopError, StopReason

if TYPE_CHECKING:
    from vevents.errors import DeliveryError
    from vevents.event import FrameRef

_Item = TypeVar("_Item")


class Job(Protocol):
    """What a thread has to do.

    Attributes:
        done: Whether it is over.
    """

    done: bool


_Job = TypeVar("_Job", bound=Job)

_CHUNK_COUNT: Final = 50
_CHUNKS_AHEAD: Final = 2


class Upload:
    """One frame on its way.

    Attributes:
        frame: Which.
        ahead: Bytes of all the events up to the one that wants the frame.
        done: Whether it is over; what follows is valid then.
        source_id: The id that the server gave it, or None.
        missing: The frame was not in the log any more.
        error: Why the server did not take it, or None.
        begun: When its request began, and
        answered: when it was answered, on a count of these moments of all uploads.
        blocked: How often something before the server blocked it, in this upload and those before.
    """

    __slots__ = (
        "ahead",
        "answered",
        "begun",
        "blocked",
        "done",
        "error",
        "frame",
        "missing",
        "source_id",
    )

    def __init__(self, frame: FrameRef, ahead: int) -> None:
        self.frame = frame
        self.ahead = ahead
        self.done = False
        self.source_id: str | None = None
        self.missing = False
        self.error: DeliveryError | None = None
        self.begun = self.answered = self.blocked = 0


class Uploads:
    """Uploads with up to so many threads.

    Args:
        count: Threads; with 1, everything is done in the caller's.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._changed = threading.Condition()
        self._queue: deque[tuple[Job, Callable[[], None]]] = deque()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._ending = False
        self._failure: BaseException | None = None
        # Held by a thread while it uses the log, so that the log can be taken away from it.
        self._log_lock = threading.Lock()
        self._abandoned = False

    def add(self, job: _Job, run: Callable[[_Job], None]) -> None:
        """Do something as soon as there is room.

        Args:
            job: What.
            run: Does it and sets the result. What it raises ends everything, and is raised to the
                caller of `wait`.
        """
        if self._count == 1:
            run(job)
            job.done = True
            return
        with self._changed:
            self._queue.append((job, lambda: run(job)))
            if self._idle < len(self._queue) and len(self._threads) < self._count:
                # A daemon: a process that is told to end does not wait for a slow upload.
                thread = threading.Thread(target=self._work, name="vevents-upload", daemon=True)
                self._threads.append(thread)
                thread.start()
            self._changed.notify_all()

    def wait(self, job: Job, timeout_s: float) -> bool:
        """Wait until something is over, or so many seconds. Returns whether it is over.

        Raises:
            StopError: An upload found that the pass is to end.
            Exception: The log failed under an upload.
        """
        with self._changed:
            self._changed.wait_for(lambda: job.done or self._failure is not None, timeout_s)
            if not job.done:
                self.raise_failure()
            return job.done

    def raise_failure(self) -> None:
        """Raise what ended an upload's thread, if anything did."""
        if self._failure is not None:
            raise self._failure

    def check(self) -> None:
        """Raise `StopError` in an upload's thread when no request may begin any more."""
        if self._ending:
            raise StopError(StopReason.INTERRUPTED, "the pass is ending")

    def log_lock(self) -> _LogLock:
        """Return a context in which an upload's thread may use the log."""
        return _LogLock(self)

    def finish(self) -> None:
        """Begin nothing more, and wait for what is under way.

        Raises:
            Exception: The log failed under an upload.
        """
        with self._changed:
            self._ending = True
            self._queue.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        # Trouble with the log matters more than why the pass ends.
        if self._failure is not None and not isinstance(self._failure, StopError):
            raise self._failure

    def abandon(self) -> None:
        """Begin nothing more, wait for nothing, and keep the threads off the log."""
        self._ending = True
        with self._log_lock:
            self._abandoned = True

    def _work(self) -> None:
        while (next_ := self._next()) is not None:
            job, run = next_
            try:
                run()
            except BaseException as error:
                # Nobody sees what ends a thread, so it is handed to the one that waits.
                with self._changed:
                    if not isinstance(error, StopError) or not self._ending:
                        self._failure = self._failure or error
                    self._ending = True
                    self._queue.clear()
                    self._changed.notify_all()
                return
            with self._changed:
                job.done = True
                self._changed.notify_all()

    def _next(self) -> tuple[Job, Callable[[], None]] | None:
        with self._changed:
            self._idle += 1
            self._changed.wait_for(lambda: self._queue or self._ending)
            self._idle -= 1
            return self._queue.popleft() if self._queue else None


class _LogLock:
    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads

    def __enter__(self) -> None:
        self._uploads._log_lock.acquire()
        if self._uploads._abandoned:
            self._uploads._log_lock.release()
            raise StopError(StopReason.INTERRUPTED, "the pass is abandoned")

    def __exit__(self, *_: object) -> None:
        self._uploads._log_lock.release()


class ReadAhead(Generic[_Item]):
    """Iterates in a thread of its own, a little ahead of whoever takes.

    Args:
        source: What to iterate over.
        size_of: Bytes that an item takes, to bound what is read ahead.
        size_max: So many bytes make a chunk full; two chunks are held.
    """

    def __init__(
        self, source: Iterator[_Item], size_of: Callable[[_Item], int], size_max: int
    ) -> None:
        self._source = source
        self._size_of = size_of
        self._size_max = size_max
        self._changed = threading.Condition()
        self._chunks: deque[list[_Item]] = deque()
        self._over = False
        self._closed = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="vevents-read", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[_Item]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._chunks or self._over)
                if not self._chunks:
                    if self._failure is not None:
                        raise self._failure
                    return
                chunk = self._chunks.popleft()
                self._changed.notify_all()
            yield from chunk

    def close(self) -> None:
        """Stop reading. The thread is out of the log when this returns."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _work(self) -> None:
        chunk: list[_Item] = []
        size = 0
        try:
            for item in self._source:
                chunk.append(item)
                size += self._size_of(item)
                if len(chunk) >= _CHUNK_COUNT or size >= self._size_max:
                    if not self._hand_over(chunk):
                        return
                    chunk, size = [], 0
            if chunk:
                self._hand_over(chunk)
        except BaseException as error:
            # What was read before the trouble is as good as ever.
            if chunk:
                self._hand_over(chunk)
            self._failure = error
        finally:
            with self._changed:
                self._over = True
                self._changed.notify_all()

    def _hand_over(self, chunk: list[_Item]) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: len(self._chunks) < _CHUNKS_AHEAD or self._closed)
            self._chunks.append(chunk)
            self._changed.notify_all()
            return not self._closed
