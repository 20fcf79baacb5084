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


def serve(
    site: Site,
    emulator: RunningEmulator,
    monkeypatch: pytest.MonkeyPatch,
    certificate: trustme.LeafCert,
    clients: trustme.CA | None = None,
) -> int:
    """Put the emulator behind an encrypted front, and let it be the API."""
    behind = urlsplit(emulator.url).port
    assert behind is not None
    port = site.front(context_for(certificate, clients), behind)
    monkeypatch.setenv("API_URL", f"https://localhost:{port}")
    return port


def trust(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, authority: trustme.CA) -> Path:
    path = tmp_path / "plant-ca.pem"
    authority.cert_pem.write_to_path(str(path))
    monkeypatch.setenv("VEVENTS_CA_FILE", str(path))
    return path


def show(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, certificate: trustme.LeafCert
) -> tuple[Path, Path]:
    cert, key = tmp_path / "device.pem", tmp_path / "device.key"
    cert.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    key.write_bytes(certificate.private_key_pem.bytes())
    key.chmod(0o600)
    monkeypatch.setenv("VEVENTS_CLIENT_CERT", str(cert))
    monkeypatch.setenv("VEVENTS_CLIENT_KEY", str(key))
    return cert, key


def assert_delivered(emulator: RunningEmulator, tmp_path: Path) -> None:
    assert main(["flush"]) == ExitCode.OK
    assert emulator.counts()["events"] == EVENTS
    with EventLog(tmp_path / "log", read_only=True) as log:
        stats = log.stats()
    assert (stats.delivered, stats.pending, stats.conserved) == (EVENTS, 0, True)


def assert_offline(
    emulator: RunningEmulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> str:
    """Flush, see that nothing went and nothing changed, return the message."""
    capsys.readouterr()
    assert main(["flush"]) == ExitCode.TRY_LATER
    assert emulator.counts()["events"] == 0
    with EventLog(tmp_path / "log", read_only=True) as log:
        stats = log.stats()
    assert (stats.pending, stats.rejected, stats.conserved) == (EVENTS, 0, True)
    captured = capsys.readouterr()
    assert KEY not in captured.out + captured.err
    assert captured.err.count("vevents: offline: ") == 1
    return captured.err


# --- whom the device trusts -----------------------------------------------------------------


@pytest.mark.parametrize("form", ["file", "directory", "two files", "SSL_CERT_FILE"])
def test_own_authority(
    form: str,
    site: Site,
    emulator: RunningEmulator,
    authority: trustme.CA,
    stranger: trustme.CA,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    serve(site, emulator, monkeypatch, authority.issue_cert("localhost"))
    path = trust(monkeypatch, tmp_path, authority)
    if form == "directory":
        directory = tmp_path / "authorities"
        directory.mkdir()
        path.rename(directory / "any name")
        (directory / "README").write_text("what is in here")
        monkeypatch.setenv("VEVENTS_CA_FILE", str(directory))
    elif form == "two files":
        other = tmp_path / "other.pem"
        stranger.cert_pem.write_to_path(str(other))
        monkeypatch.setenv("VEVENTS_CA_FILE", f"{other}:{path}")
    elif form == "SSL_CERT_FILE":
        monkeypatch.delenv("VEVENTS_CA_FILE")
        monkeypatch.setenv("SSL_CERT_FILE", str(path))

    assert_delivered(emulator, tmp_path)


def test_intermediate_authority_alone_may_be_trusted(
    site: Site,
    emulator: RunningEmulator,
    authority: trustme.CA,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    child = authority.create_child_ca()
    serve(site, emulator, monkeypatch, child.issue_cert("localhost"))
    trust(monkeypatch, tmp_path, child)

    assert_delivered(emulator, tmp_path)


@pytest.mark.parametrize("named", [False, True])
def test_unknown_authority(
    named: bool,
    site: Site,
    emulator: RunningEmulator,
    authority: trustme.CA,
    stranger: trustme.CA,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    serve(site, emulator, monkeypatch, stranger.issue_cert("localhost"))
    if named:
        trust(monkeypatch, tmp_path, authority)

    message = assert_offline(emulator, tmp_path, capsys)

    assert "from an authority that is not trusted here" in message
    assert "name its authority in ca_file" in message


def test_named_authority_replaces_the_usual_ones(
    site: Site,
    emulator: RunningEmulator,
    authority: trustme.CA,
    stranger: trustme.CA,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    serve(site, emulator, monkeypatch, stranger.issue_cert("localhost"))
    usual = trust(monkeypatch, tmp_path, stranger)
    monkeypatch.setenv("SSL_CERT_FILE", str(usual.rename(tmp_path / "usual.pem")))
    trust(monkeypatch, tmp_path, authority)

    assert_offline(emulator, tmp_path, capsys)
    monkeypatch.delenv("VEVENTS_CA_FILE")
    assert_delivered(emulator, tmp_path)


@pytest.mark.parametrize(
    ("begin", "end", "words"),
    [
        (NOW - timedelta(days=9), NOW - timedelta(days=1), "certificate has expired, or the clock"),
        (NOW + timedelta(days=1), NOW + timedelta(days=9), "is not valid yet, or the clock"),
    ],
)
def test_certificate_out_of_date_or_wrong_clock(
    begin: datetime,
    end: datetime,
    words: str,
    site: Site,
    emulator: RunningEmulator,
    authority: trustme.CA,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    certificate = authority.issue_cert("localhost", not_before=begin, not_after=end)
    serve(site, emulator, monkeypatch, certificate)
    trust(monkeypatch, tmp_path, authority)

    message = assert_offline(emulator, tmp_path, capsys)

    assert words in message
    assert "of this device is wrong: it says 2" in message


def test_certificate_of_another_host(
    site: Site,
    emulator: RunningEmulator,
    authority: trustme.CA,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    serve(site, emulator, monkeypatch, authority.issue_cert("elsewhere.test"))
    trust(monkeypatch, tmp_path, authority)

    message = assert_offline(emulator, tmp_path, capsys)

    assert "certificate is not valid for 'localhost'" in message


# --- who the device is ----------------------------------------------------------------------


def test_client_certificate_is_shown(
    site: Site,
    emulator: RunningEmulator,
    authority: trustme.CA,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    serve(site, emulator, monkeypatch, authority.issue_cert("localhost"), clients=authority)
    trust(monkeypatch, tmp_path, authority)
    show(monkeypatch, tmp_path, authority.issue_cert("device-7"))

    assert_delivered(emulator, tmp_path)


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=str)
def refusing(
    request: pytest.FixtureRequest,
    authority: trustme.CA,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[None]:
    """A server that knows only the authority's devices, as both versions of TLS tell that."""
    context = context_for(authority.issue_cert("localhost"), clients=authority)
    context.maximum_version = request.param
    trust(monkeypatch, tmp_path, authority)
    with refusing_front(context) as port:
        monkeypatch.setenv("API_URL", f"https://localhost:{port}")
        yield


@pytest.mark.usefixtures("refusing")
def test_client_certificate_that_is_missing(
    emulator: RunningEmulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = assert_offline(emulator, tmp_path, capsys)

    assert "the server wants a certificate from this device: set client_cert" in message


@pytest.mark.usefixtures("refusing")
def test_client_certificate_that_is_not_accepted(
    emulator: RunningEmulator,
    stranger: trustme.CA,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cert, _ = show(monkeypatch, tmp_path, stranger.issue_cert("device-7"))

    message = assert_offline(emulator, tmp_path, capsys)

    assert f"the server does not accept the certificate in {cert}" in message


@pytest.mark.usefixtures("refusing")
def test_client_certificate_that_has_expired_is_said_and_tried(
    emulator: RunningEmulator,
    authority: trustme.CA,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    begin, end = datetime(2025, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    old = authority.issue_cert("device-7", not_before=begin, not_after=end)
    cert, _ = show(monkeypatch, tmp_path, old)

    warning, last = assert_offline(emulator, tmp_path, capsys).splitlines()

    words = f"the certificate in {cert} expired on 2026-01-02 03:04 UTC"
    assert warning.startswith(f"vevents: WARNING: client_cert: {words}")
    assert f"the server does not accept the certificate in {cert}" in last
    assert words in last


def test_server_that_hangs_up_for_an_expired_certificate_without_a_word(
    site: Site,
    emulator: RunningEmulator,
    authority: trustme.CA,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    serve(site, emulator, monkeypatch, authority.issue_cert("localhost"), clients=authority)
    trust(monkeypatch, tmp_path, authority)
    begin, end = datetime(2025, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
    show(monkeypatch, tmp_path, authority.issue_cert("d", not_before=begin, not_after=end))

    assert main(["flush"]) == ExitCode.TRY_LATER

    assert "device.pem expired on 2026-01-02" in capsys.readouterr().err.splitlines()[-1]


# --- proxies --------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["setting", "environment"])
def test_proxy_with_a_login(
    how: str,
    site: Site,
    emulator: RunningEmulator,
    authority: trustme.CA,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    port = serve(site, emulator, monkeypatch, authority.issue_cert("localhost"))
    trust(monkeypatch, tmp_path, authority)
    proxy = site.proxy(("ann", PASSWORD))
    name = "VEVENTS_PROXY" if how == "setting" else "HTTPS_PROXY"
    monkeypatch.setenv(name, f"http://ann:{ENCODED}@127.0.0.1:{proxy}")

    assert_delivered(emulator, tmp_path)

    assert [target for target, _ in site.connects] == [f"localhost:{port}"]


def test_proxy_that_wants_another_login(
    site: Site,
    emulator: RunningEmulator,
    authority: trustme.CA,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    serve(site, emulator, monkeypatch, authority.issue_cert("localhost"))
    trust(monkeypatch, tmp_path, authority)
    proxy = site.proxy(("ann", "another"))
    monkeypatch.setenv("VEVENTS_PROXY", f"http://ann:{ENCODED}@127.0.0.1:{proxy}")
    monkeypatch.setenv("VEVENTS_LOG_LEVEL", "debug")

    message = assert_offline(emulator, tmp_path, capsys)

    assert f"the proxy http://127.0.0.1:{proxy} does not let us through" in message
    assert "check the user and the password" in message
    for secret in (PASSWORD, ENCODED, "ann"):
        assert secret not in message


def test_proxy_that_is_not_there(
    emulator: RunningEmulator,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setenv("API_URL", "https://localhost:9")
    monkeypatch.setenv("VEVENTS_PROXY", f"ann:{ENCODED}@127.0.0.1:{port}")

    message = assert_offline(emulator, tmp_path, capsys)

    assert f"(through the proxy http://127.0.0.1:{port})" in message
    assert ENCODED not in message
    monkeypatch.setenv("HTTPS_PROXY", f"ann:{ENCODED}@127.0.0.1:{port}")
    monkeypatch.delenv("VEVENTS_PROXY")
    message = assert_offline(emulator, tmp_path, capsys)
    assert "(HTTPS_PROXY is set)" in message
    assert ENCODED not in message


def test_no_proxy_excepts_from_the_environment_and_not_from_the_setting(
    site: Site,
    emulator: RunningEmulator,
    authority: trustme.CA,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    serve(site, emulator, monkeypatch, authority.issue_cert("localhost"))
    trust(monkeypatch, tmp_path, authority)
    monkeypatch.setenv("NO_PROXY", "localhost")
    address = f"http://127.0.0.1:{site.proxy(('nobody', 'may'))}"
    monkeypatch.setenv("VEVENTS_PROXY", address)
    assert_offline(emulator, tmp_path, capsys)
    monkeypatch.delenv("VEVENTS_PROXY")
    monkeypatch.setenv("HTTPS_PROXY", address)

    assert_delivered(emulator, tmp_path)
    assert len(site.connects) == 1


def test_encrypted_proxy_is_checked_and_does_not_see_the_certificate_of_the_device(
    site: Site,
    emulator: RunningEmulator,
    authority: trustme.CA,
    stranger: trustme.CA,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    serve(site, emulator, monkeypatch, authority.issue_cert("localhost"), clients=authority)
    trust(monkeypatch, tmp_path, authority)
    show(monkeypatch, tmp_path, authority.issue_cert("device-7"))
    false_proxy = site.proxy(tls=context_for(stranger.issue_cert("127.0.0.1")))
    # Whoever is asked for a certificate and trusts nobody's fails if one is shown.
    context = context_for(authority.issue_cert("127.0.0.1"))
    context.verify_mode = ssl.CERT_OPTIONAL
    proxy = site.proxy(tls=context)
    monkeypatch.setenv("VEVENTS_PROXY", f"https://127.0.0.1:{false_proxy}")
    assert "not trusted here" in assert_offline(emulator, tmp_path, capsys)
    monkeypatch.setenv("VEVENTS_PROXY", f"https://127.0.0.1:{proxy}")

    assert_delivered(emulator, tmp_path)
    assert len(site.connects) == 1


# --- all of it ------------------------------------------------------------------------------


def test_check_takes_the_same_way(
    site: Site,
    emulator: RunningEmulator,
    authority: trustme.CA,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Everything from one file: authority, certificate in one piece, proxy; then a flush."""
    port = serve(site, emulator, monkeypatch, authority.issue_cert("localhost"), clients=authority)
    (tmp_path / "etc").mkdir()
    authority.cert_pem.write_to_path(str(tmp_path / "etc" / "ca.pem"))
    device = authority.issue_cert("device-7").private_key_and_cert_chain_pem
    device.write_to_path(str(tmp_path / "etc" / "device.pem"))
    (tmp_path / "etc" / "device.pem").chmod(0o600)
    file = tmp_path / "etc" / "vevents.toml"
    file.write_text(
        f'ca_file = ["ca.pem"]\nclient_cert = "device.pem"\nuse_case = "{USE_CASE}"\n'
        f'proxy = "http://127.0.0.1:{site.proxy()}"\n'
    )

    assert main(["check", "--json", "--config", str(file)]) == ExitCode.OK
    report = json.loads(capsys.readouterr().out)
    assert report["use_cases"] == [{"id": USE_CASE, "name": USE_CASE}]
    assert report["lookback_days"] == 14
    assert site.connects == [(f"localhost:{port}", None)]
    assert emulator.counts()["events"] == 0
    monkeypatch.setenv("VEVENTS_CONFIG", str(file))
    assert_delivered(emulator, tmp_path)
