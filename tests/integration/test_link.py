"""Encryption, certificates and proxies on the way to the API, with real handshakes on loopback."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme
from tls_site import Site, refusing_front

from vevents import settings
from vevents.cli import main
from vevents.cli.exit_codes import ExitCode
from vevents.emulator import EmulatorConfig, RunningEmulator
from vevents.event import Event
from vevents.log import EventLog

KEY = "rf_secret_0123456789"
USE_CASE = "uc-1"
EVENTS = 3
PASSWORD = "pass:word with@signs"
ENCODED = "pass%3Aword%20with%40signs"
NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA(organization_name="plant")


@pytest.fixture(scope="module")
def stranger() -> trustme.CA:
    return trustme.CA(organization_name="somebody else")


@pytest.fixture
def emulator() -> Iterator[RunningEmulator]:
    with RunningEmulator(EmulatorConfig(api_keys=[KEY], use_cases=[USE_CASE])) as running:
        yield running


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as running:
        yield running


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for source in settings._SOURCES:
        monkeypatch.delenv(source.variable, raising=False)
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "VEVENTS_CONFIG", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(settings, "_SYSTEM_FILE", tmp_path / "none.toml")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ROBOFLOW_API_KEY", KEY)
    monkeypatch.setenv("VEVENTS_DIR", str(tmp_path / "log"))
    monkeypatch.setenv("VEVENTS_ATTEMPTS", "1")
    monkeypatch.setenv("VEVENTS_RETRY_WAIT", "1")
    monkeypatch.chdir(tmp_path)
    sizes = {"events_size": 1 << 20, "media_size": 1 << 20, "delivery_size": 1 << 20}
    with EventLog(tmp_path / "log", **sizes) as log:  # type: ignore[arg-type]
        for number in range(EVENTS):
            log.append(Event.custom(value=f"event {number}", use_case_id=USE_CASE))


def context_for(certificate: trustme.LeafCert, clients: trustme.CA | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    if clients is not None:
        clients.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


class Link:
    """A device with three events, the API, and what stands between them."""

    def __init__(
        self,
        site: Site,
        emulator: RunningEmulator,
        authority: trustme.CA,
        set_environment: pytest.MonkeyPatch,
        directory: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        self.site = site
        self.emulator = emulator
        self.set = set_environment.setenv
        self.unset = set_environment.delenv
        self.directory = directory
        self._authority = authority
        self._capsys = capsys

    def serve(
        self,
        certificate: trustme.LeafCert | None = None,
        clients: trustme.CA | None = None,
    ) -> int:
        """Put the emulator behind an encrypted front, and let it be the API."""
        behind = urlsplit(self.emulator.url).port
        assert behind is not None
        own = self._authority.issue_cert("localhost")
        port = self.site.front(context_for(certificate or own, clients), behind)
        self.set("API_URL", f"https://localhost:{port}")
        return port

    def trust(self, authority: trustme.CA | None = None) -> Path:
        """Name an authority in the device's settings; unless given, the one of `serve`."""
        path = self.directory / "plant-ca.pem"
        (authority or self._authority).cert_pem.write_to_path(str(path))
        self.set("VEVENTS_CA_FILE", str(path))
        return path

    def show(self, certificate: trustme.LeafCert) -> Path:
        """Give the device a certificate of its own."""
        cert, key = self.directory / "device.pem", self.directory / "device.key"
        cert.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
        key.write_bytes(certificate.private_key_pem.bytes())
        key.chmod(0o600)
        self.set("VEVENTS_CLIENT_CERT", str(cert))
        self.set("VEVENTS_CLIENT_KEY", str(key))
        return cert

    def delivers(self) -> None:
        """Flush, and see that everything went."""
        assert main(["flush"]) == ExitCode.OK
        assert self.emulator.counts()["events"] == EVENTS
        with EventLog(self.directory / "log", read_only=True) as log:
            stats = log.stats()
        assert (stats.delivered, stats.pending, stats.conserved) == (EVENTS, 0, True)

    def is_offline(self) -> str:
        """Flush, see that nothing went and nothing changed, return the message."""
        self._capsys.readouterr()
        assert main(["flush"]) == ExitCode.TRY_LATER
        assert self.emulator.counts()["events"] == 0
        with EventLog(self.directory / "log", read_only=True) as log:
            stats = log.stats()
        assert (stats.pending, stats.rejected, stats.conserved) == (EVENTS, 0, True)
        captured = self._capsys.readouterr()
        assert KEY not in captured.out + captured.err
        assert captured.err.count("vevents: offline: ") == 1
        return captured.err


@pytest.fixture
def link(
    site: Site,
    emulator: RunningEmulator,
    authority: trustme.CA,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> Link:
    return Link(site, emulator, authority, monkeypatch, tmp_path, capsys)


# --- whom the device trusts -----------------------------------------------------------------


@pytest.mark.parametrize("form", ["file", "directory", "two files", "SSL_CERT_FILE"])
def test_own_authority(form: str, link: Link, stranger: trustme.CA) -> None:
    link.serve()
    path = link.trust()
    if form == "directory":
        directory = link.directory / "authorities"
        directory.mkdir()
        path.rename(directory / "any name")
        (directory / "README").write_text("what is in here")
        link.set("VEVENTS_CA_FILE", str(directory))
    elif form == "two files":
        other = link.directory / "other.pem"
        stranger.cert_pem.write_to_path(str(other))
        link.set("VEVENTS_CA_FILE", f"{other}:{path}")
    elif form == "SSL_CERT_FILE":
        link.unset("VEVENTS_CA_FILE")
        link.set("SSL_CERT_FILE", str(path))

    link.delivers()


def test_intermediate_authority_alone_may_be_trusted(link: Link, authority: trustme.CA) -> None:
    child = authority.create_child_ca()
    link.serve(child.issue_cert("localhost"))
    link.trust(child)

    link.delivers()


@pytest.mark.parametrize("named", [False, True])
def test_unknown_authority(named: bool, link: Link, stranger: trustme.CA) -> None:
    link.serve(stranger.issue_cert("localhost"))
    if named:
        link.trust()

    message = link.is_offline()

    assert "from an authority that is not trusted here" in message
    assert "name its authority in ca_file" in message


def test_named_authority_replaces_the_usual_ones(link: Link, stranger: trustme.CA) -> None:
    link.serve(stranger.issue_cert("localhost"))
    usual = link.trust(stranger)
    link.set("SSL_CERT_FILE", str(usual.rename(link.directory / "usual.pem")))
    link.trust()

    link.is_offline()
    link.unset("VEVENTS_CA_FILE")
    link.delivers()


@pytest.mark.parametrize(
    ("begin", "end", "words"),
    [
        (NOW - timedelta(days=9), NOW - timedelta(days=1), "certificate has expired, or the clock"),
        (NOW + timedelta(days=1), NOW + timedelta(days=9), "is not valid yet, or the clock"),
    ],
)
def test_certificate_out_of_date_or_wrong_clock(
    begin: datetime, end: datetime, words: str, link: Link, authority: trustme.CA
) -> None:
    link.serve(authority.issue_cert("localhost", not_before=begin, not_after=end))
    link.trust()

    message = link.is_offline()

    assert words in message
    assert "of this device is wrong: it says 2" in message


def test_certificate_of_another_host(link: Link, authority: trustme.CA) -> None:
    link.serve(authority.issue_cert("elsewhere.test"))
    link.trust()

    message = link.is_offline()

    assert "certificate is not valid for 'localhost'" in message


# --- who the device is ----------------------------------------------------------------------


def test_client_certificate_is_shown(link: Link, authority: trustme.CA) -> None:
    link.serve(clients=authority)
    link.trust()
    link.show(authority.issue_cert("device-7"))

    link.delivers()


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=str)
def refusing(request: pytest.FixtureRequest, link: Link, authority: trustme.CA) -> Iterator[Link]:
    """A server that knows only the authority's devices, as both versions of TLS tell that."""
    context = context_for(authority.issue_cert("localhost"), clients=authority)
    context.maximum_version = request.param
    link.trust()
    with refusing_front(context) as port:
        link.set("API_URL", f"https://localhost:{port}")
        yield link


def test_client_certificate_that_is_missing(refusing: Link) -> None:
    message = refusing.is_offline()

    assert "the server wants a certificate from this device: set client_cert" in message


def test_client_certificate_that_is_not_accepted(refusing: Link, stranger: trustme.CA) -> None:
    cert = refusing.show(stranger.issue_cert("device-7"))

    message = refusing.is_offline()

    assert f"the server does not accept the certificate in {cert}" in message


def test_client_certificate_that_has_expired_is_said_and_tried(
    refusing: Link, authority: trustme.CA
) -> None:
    begin, end = datetime(2025, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    cert = refusing.show(authority.issue_cert("device-7", not_before=begin, not_after=end))

    warning, last = refusing.is_offline().splitlines()

    words = f"the certificate in {cert} expired on 2026-01-02 03:04 UTC"
    assert warning.startswith(f"vevents: WARNING: client_cert: {words}")
    assert f"the server does not accept the certificate in {cert}" in last
    assert words in last


def test_server_that_hangs_up_for_an_expired_certificate_without_a_word(
    link: Link, authority: trustme.CA, capsys: pytest.CaptureFixture[str]
) -> None:
    link.serve(clients=authority)
    link.trust()
    begin, end = datetime(2025, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
    link.show(authority.issue_cert("d", not_before=begin, not_after=end))

    assert main(["flush"]) == ExitCode.TRY_LATER

    assert "device.pem expired on 2026-01-02" in capsys.readouterr().err.splitlines()[-1]


# --- proxies --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["VEVENTS_PROXY", "HTTPS_PROXY"])
def test_proxy_with_a_login(name: str, link: Link) -> None:
    port = link.serve()
    link.trust()
    proxy = link.site.proxy(("ann", PASSWORD))
    link.set(name, f"http://ann:{ENCODED}@127.0.0.1:{proxy}")

    link.delivers()

    assert [target for target, _ in link.site.connects] == [f"localhost:{port}"]


def test_proxy_that_wants_another_login(link: Link) -> None:
    link.serve()
    link.trust()
    proxy = link.site.proxy(("ann", "another"))
    link.set("VEVENTS_PROXY", f"http://ann:{ENCODED}@127.0.0.1:{proxy}")
    link.set("VEVENTS_LOG_LEVEL", "debug")

    message = link.is_offline()

    assert f"the proxy http://127.0.0.1:{proxy} does not let us through" in message
    assert "check the user and the password" in message
    for secret in (PASSWORD, ENCODED, "ann"):
        assert secret not in message


def test_proxy_that_is_not_there(link: Link) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    link.set("API_URL", "https://localhost:9")
    link.set("VEVENTS_PROXY", f"ann:{ENCODED}@127.0.0.1:{port}")

    message = link.is_offline()

    assert f"(through the proxy http://127.0.0.1:{port})" in message
    assert ENCODED not in message
    link.set("HTTPS_PROXY", f"ann:{ENCODED}@127.0.0.1:{port}")
    link.unset("VEVENTS_PROXY")
    message = link.is_offline()
    assert "(HTTPS_PROXY is set)" in message
    assert ENCODED not in message


def test_no_proxy_excepts_from_the_environment_and_not_from_the_setting(link: Link) -> None:
    link.serve()
    link.trust()
    link.set("NO_PROXY", "localhost")
    address = f"http://127.0.0.1:{link.site.proxy(('nobody', 'may'))}"
    link.set("VEVENTS_PROXY", address)
    link.is_offline()
    link.unset("VEVENTS_PROXY")
    link.set("HTTPS_PROXY", address)

    link.delivers()
    assert len(link.site.connects) == 1


def test_encrypted_proxy_is_checked_and_does_not_see_the_certificate_of_the_device(
    link: Link, authority: trustme.CA, stranger: trustme.CA
) -> None:
    link.serve(clients=authority)
    link.trust()
    link.show(authority.issue_cert("device-7"))
    false_proxy = link.site.proxy(tls=context_for(stranger.issue_cert("127.0.0.1")))
    # Whoever is asked for a certificate and trusts nobody's fails if one is shown.
    context = context_for(authority.issue_cert("127.0.0.1"))
    context.verify_mode = ssl.CERT_OPTIONAL
    proxy = link.site.proxy(tls=context)
    link.set("VEVENTS_PROXY", f"https://127.0.0.1:{false_proxy}")
    assert "not trusted here" in link.is_offline()
    link.set("VEVENTS_PROXY", f"https://127.0.0.1:{proxy}")

    link.delivers()
    assert len(link.site.connects) == 1


# --- all of it ------------------------------------------------------------------------------


def test_check_takes_the_same_way(
    link: Link, authority: trustme.CA, capsys: pytest.CaptureFixture[str]
) -> None:
    """Everything from one file: authority, certificate in one piece, proxy; then a flush."""
    port = link.serve(clients=authority)
    etc = link.directory / "etc"
    etc.mkdir()
    authority.cert_pem.write_to_path(str(etc / "ca.pem"))
    device = authority.issue_cert("device-7").private_key_and_cert_chain_pem
    device.write_to_path(str(etc / "device.pem"))
    (etc / "device.pem").chmod(0o600)
    file = etc / "vevents.toml"
    file.write_text(
        f'ca_file = ["ca.pem"]\nclient_cert = "device.pem"\nuse_case = "{USE_CASE}"\n'
        f'proxy = "http://127.0.0.1:{link.site.proxy()}"\n'
    )

    assert main(["check", "--json", "--config", str(file)]) == ExitCode.OK
    report = json.loads(capsys.readouterr().out)
    assert report["use_cases"] == [{"id": USE_CASE, "name": USE_CASE}]
    assert report["lookback_days"] == 14
    assert link.site.connects == [(f"localhost:{port}", None)]
    assert link.emulator.counts()["events"] == 0
    link.set("VEVENTS_CONFIG", str(file))
    link.delivers()
