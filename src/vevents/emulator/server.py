"""Running an emulator: in the foreground for the command line, in a thread for tests and demos."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import signal
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from vevents.emulator.config import EmulatorConfig, TlsFiles
from vevents.errors import ConfigurationError

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from vevents.emulator.listener import Listener
    from vevents.emulator.plan import Chaos, FaultPlan
    from vevents.emulator.routes import Emulator

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_BACKLOG = 128


@dataclass(frozen=True, slots=True)
class Listening:
    """Where a running emulator is found.

    Attributes:
        url: Base URL, without a slash at the end.
        host: Address it is bound to.
        port: Port it is bound to, also when 0 was asked for.
        api_key: The first of the accepted keys; made at random when none was configured.
        open_introspection: Whether `/__emulator__` answers without a key.
    """

    url: str
    host: str
    port: int
    api_key: str = field(repr=False)
    open_introspection: bool


def create_app(config: EmulatorConfig, *, open_introspection: bool = False) -> Starlette:
    """Make the ASGI application, for a server of your own.

    Args:
        config: Settings.
        open_introspection: Whether `/__emulator__` answers without a key.

    Returns:
        The application; `app.state.emulator` has `counts()`, `faults` and `close()`. Its lifespan
        closes the database at the end.

    Raises:
        ConfigurationError: The packages of the emulator are missing, or the database cannot be
            used.
    """
    return _make(config, open_introspection=open_introspection).app


def serve(
    config: EmulatorConfig,
    host: str = "127.0.0.1",
    port: int = 8080,
    on_ready: Callable[[Listening], None] | None = None,
    *,
    tls: TlsFiles | None = None,
    chaos: Chaos | None = None,
) -> FaultPlan:
    """Serve in the foreground until SIGINT or SIGTERM, then return.

    Args:
        config: Settings.
        host: Address to bind; away from loopback, `/__emulator__` asks for a key.
        port: Port to bind, 0 for any free one.
        on_ready: Called once, when connections are accepted.
        tls: Speak HTTPS with this certificate and key.
        chaos: What requests meet from the start.

    Returns:
        The plan of failures, with its `injected` and `history`.

    Raises:
        ConfigurationError: As `create_app`; or the certificate or key cannot be used.
        OSError: The address cannot be bound.
    """
    with _bind(host, port) as bound, contextlib.ExitStack() as stack:
        emulator = stack.enter_context(contextlib.closing(_make_for(config, bound)))
        emulator.faults.chaos = chaos
        listening = _describe(config, bound, tls)

        def tell() -> None:
            if on_ready is not None:
                on_ready(listening)

        listener = _listener(emulator, tell, tls)

        def stop(_signal: int, _frame: FrameType | None) -> None:
            # The second time is meant: do not wait for requests that are being answered.
            listener.force_exit = listener.should_exit
            listener.should_exit = True
            emulator.faults.release(for_good=True)

        for number in _STOP_SIGNALS:
            stack.callback(signal.signal, number, signal.signal(number, stop))
        asyncio.run(listener.serve(sockets=[bound]))
        return emulator.faults


class RunningEmulator:
    """An emulator in a thread of this process, listening when the constructor returns.

    Args:
        config: Settings; defaults when None.
        host: Address to bind.
        port: Port to bind, 0 for any free one.
        tls: Speak HTTPS with this certificate and key.

    Attributes:
        url: Base URL, without a slash at the end.
        api_key: A key that it accepts, with every scope unless configured otherwise.
        faults: What shall go wrong; a `FaultPlan`.

    Raises:
        ConfigurationError: As `create_app`; or the certificate or key cannot be used.
        OSError: The address cannot be bound.

    Example:
        >>> with RunningEmulator(EmulatorConfig(use_cases=["uc-demo"])) as emulator:
        ...     emulator.counts()["use_cases"]
        1
    """

    def __init__(
        self,
        config: EmulatorConfig | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: TlsFiles | None = None,
    ) -> None:
        config = EmulatorConfig() if config is None else config
        with contextlib.ExitStack() as undo:
            bound = undo.enter_context(_bind(host, port))
            self._emulator = undo.enter_context(contextlib.closing(_make_for(config, bound)))
            listening = _describe(config, bound, tls)
            self.url: str = listening.url
            self.api_key: str = listening.api_key
            self.faults: FaultPlan = self._emulator.faults
            ready = threading.Event()
            self._listener = _listener(self._emulator, ready.set, tls)
            self._thread = threading.Thread(
                target=self._run, args=(bound, ready), name="vevents-emulator", daemon=True
            )
            self._failure: BaseException | None = None
            self._thread.start()
            ready.wait()
            if self._failure is not None:
                self._thread.join()
                raise self._failure
            undo.pop_all()

    def counts(self) -> dict[str, Any]:
        """Return everything that is counted, see docs/emulator.md; also after `stop()`."""
        return self._emulator.counts()

    def events(
        self,
        *,
        use_case_id: str | None = None,
        event_id: str | None = None,
        after: int = 0,
        limit: int = 10_000,
    ) -> list[dict[str, Any]]:
        """List stored events in the order they came, as `GET /__emulator__/events` does.

        Args:
            use_case_id: Only of this use case.
            event_id: Only this one.
            after: `seq` of the last one seen, 0 to begin.
            limit: At most so many.

        Returns:
            Maps with `seq`, `event`, `warnings`, `posts` and `received_at_s`.
        """
        return self._emulator.storage.list_events(
            use_case_id=use_case_id, event_id=event_id, after=after, limit=limit
        )

    def images(
        self, *, orphaned: bool | None = None, after: int = 0, limit: int = 10_000
    ) -> list[dict[str, Any]]:
        """List stored images in the order they came, as `GET /__emulator__/images` does.

        Args:
            orphaned: True for images that no event names, False for the others, None for both.
            after: `seq` of the last one seen, 0 to begin.
            limit: At most so many.

        Returns:
            Maps with `seq`, `source_id`, `sha256` (hex), `size`, `mime`, `name`, `metadata`,
            `origin` and `orphaned`.
        """
        return self._emulator.storage.list_images(orphaned=orphaned, after=after, limit=limit)

    def change(self, **settings: Any) -> None:
        """Go on with other settings from the next request on, as `PATCH /__emulator__/settings`.

        Raises:
            ConfigurationError: One of them makes no sense, or cannot change in mid-run.

        Example:
            >>> with RunningEmulator() as emulator:
            ...     emulator.change(api_keys=["another-key"], json_size_max=50_000)
        """
        self._emulator.change(settings)

    def clear(self) -> None:
        """Forget events, images and counters, as `DELETE /__emulator__/events` does."""
        self._emulator.storage.clear()

    def stop(self) -> None:
        """Stop listening, let requests finish for up to two seconds, close the database."""
        self._listener.should_exit = True
        self.faults.release(for_good=True)
        self._thread.join()
        self._emulator.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _run(self, bound: socket.socket, ready: threading.Event) -> None:
        try:
            with bound:
                asyncio.run(self._listener.serve(sockets=[bound]))
        except BaseException as failure:
            self._failure = failure
        finally:
            ready.set()


def _make(config: EmulatorConfig, *, open_introspection: bool) -> Emulator:
    try:
        import jsonschema  # noqa: F401
        import python_multipart  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as missing:
        raise ConfigurationError(
            f'the emulator needs {missing.name}: pip install "vevents[emulate]"'
        ) from missing
    from vevents.emulator.routes import Emulator

    return Emulator(config, open_introspection=open_introspection)


def _make_for(config: EmulatorConfig, bound: socket.socket) -> Emulator:
    return _make(config, open_introspection=_is_loopback(bound))


def _listener(
    emulator: Emulator, on_listening: Callable[[], None], tls: TlsFiles | None
) -> Listener:
    from vevents.emulator.listener import Listener

    if tls is not None:
        _check_tls(tls)
    return Listener(emulator.app, on_listening, clock=emulator.config.clock, tls=tls)


def _check_tls(tls: TlsFiles) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # With no passphrase at hand, OpenSSL would ask for one on the terminal.
        context.load_cert_chain(tls.certificate, tls.key, password="")
    except OSError as failed:
        raise ConfigurationError(
            f"TLS with {tls.certificate} and {tls.key}: {failed.strerror or failed}"
        ) from failed


def _bind(host: str, port: int) -> socket.socket:
    """Bind before anything else is made, so that a taken port leaves no trace."""
    # With the protocol named, asyncio switches Nagle's delay off; without, every answer on a
    # kept connection waits 40 ms for an acknowledgement.
    [(family, kind, protocol, _, address), *_] = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE
    )
    bound = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(_BACKLOG)
    except OSError as failed:
        bound.close()
        raise OSError(failed.errno, os.strerror(failed.errno or 0), f"{host}:{port}") from failed
    return bound


def _is_loopback(bound: socket.socket) -> bool:
    return ipaddress.ip_address(bound.getsockname()[0]).is_loopback


def _describe(config: EmulatorConfig, bound: socket.socket, tls: TlsFiles | None) -> Listening:
    host, port = bound.getsockname()[:2]
    shown = f"[{host}]" if bound.family == socket.AF_INET6 else host
    return Listening(
        url=f"{'http' if tls is None else 'https'}://{shown}:{port}",
        host=host,
        port=port,
        api_key=config.keys[0].value,
        open_introspection=_is_loopback(bound),
    )
