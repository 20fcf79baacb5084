"""Certificates and keys: every mistake in the files is named before the first connection."""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from vevents.delivery.tls import Tls
from vevents.errors import ConfigurationError
from vevents.settings import Secret

PASSWORD = "open sesame"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def device(authority: trustme.CA) -> trustme.LeafCert:
    return authority.issue_cert("device-7")


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)


@pytest.fixture
def ca(authority: trustme.CA, tmp_path: Path) -> Path:
    return write(tmp_path / "ca.pem", authority.cert_pem.bytes())


@pytest.fixture
def cert(device: trustme.LeafCert, tmp_path: Path) -> Path:
    return write(tmp_path / "device.pem", device.cert_chain_pems[0].bytes())


@pytest.fixture
def key(device: trustme.LeafCert, tmp_path: Path) -> Path:
    return write(tmp_path / "device.key", device.private_key_pem.bytes())


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    path.chmod(0o600)
    return path


def fault(tls: Tls) -> str:
    with pytest.raises(ConfigurationError) as caught:
        tls.check()
    with pytest.raises(ConfigurationError):
        tls.make_context()
    return str(caught.value)


def locked(device: trustme.LeafCert, path: Path) -> Path:
    key = serialization.load_pem_private_key(device.private_key_pem.bytes(), None)
    data = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(PASSWORD.encode()),
    )
    return write(path, data)


def test_usual_connection_needs_no_file() -> None:
    Tls().check()

    assert Tls().make_context().cert_store_stats()["x509_ca"] > 50


def test_named_authorities_are_the_only_ones(ca: Path, cert: Path, key: Path) -> None:
    tls = Tls(ca_files=(ca,), client_cert=cert, client_key=key)
    tls.check()

    assert tls.make_context().cert_store_stats()["x509"] == 1


def test_missing_files_are_named(ca: Path, cert: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone.pem"

    assert fault(Tls(ca_files=(ca, gone))) == f"ca_file: {gone}: No such file or directory"
    assert fault(Tls(client_cert=gone)) == f"client_cert: {gone}: No such file or directory"
    assert fault(Tls(client_cert=cert, client_key=gone)) == (
        f"client_key: {gone}: No such file or directory"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file_is_named(ca: Path) -> None:
    ca.chmod(0)

    assert fault(Tls(ca_files=(ca,))) == f"ca_file: {ca}: Permission denied"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "holds no certificate in PEM form"),
        (b"hello\n", "holds no certificate in PEM form"),
        (b"\x30\x82\x01\x00\xff", "is not in PEM form but in a binary one"),
        (b"-----BEGIN CERTIFICATE REQUEST-----\n", "holds no certificate but 'CERTIFICATE REQUEST"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "is damaged"),
    ],
)
def test_file_without_certificate(data: bytes, words: str, key: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "odd.pem", data)

    for tls in (Tls(ca_files=(path,)), Tls(client_cert=path, client_key=key)):
        message = fault(tls)
        assert words in message
        assert str(path) in message


def test_file_without_key(cert: Path, ca: Path) -> None:
    assert fault(Tls(client_cert=cert)) == (
        f"client_cert: {cert} holds no private key but 'CERTIFICATE'"
    )
    assert fault(Tls(client_cert=cert, client_key=ca)).startswith(f"client_key: {ca} holds no priv")


def test_key_of_another_certificate(authority: trustme.CA, cert: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "k", authority.issue_cert("other").private_key_pem.bytes())

    assert fault(Tls(client_cert=cert, client_key=other)) == (
        f"client_key: the key in {other} does not belong to the certificate in {cert}"
    )


def test_damaged_key(key: Path, cert: Path) -> None:
    key.write_text(key.read_text().replace("M", "N", 3))

    assert f"the key in {key} or the certificate in {cert} is damaged" in fault(
        Tls(client_cert=cert, client_key=key)
    )


def test_key_without_certificate(key: Path) -> None:
    with pytest.raises(ConfigurationError, match="client_key is set and client_cert is not"):
        Tls(client_key=key).check()


def test_locked_key(device: trustme.LeafCert, cert: Path, tmp_path: Path) -> None:
    path = locked(device, tmp_path / "locked.key")

    Tls(client_cert=cert, client_key=path, client_key_password=Secret(PASSWORD)).check()
    assert "is locked with a password; set VEVENTS_CLIENT_KEY_PASSWORD" in fault(
        Tls(client_cert=cert, client_key=path)
    )
    wrong = fault(Tls(client_cert=cert, client_key=path, client_key_password=Secret("guess")))
    assert wrong == (
        f"client_key: the key in {path} cannot be unlocked with VEVENTS_CLIENT_KEY_PASSWORD"
    )


def test_directory_of_authorities(ca: Path, key: Path, tmp_path: Path) -> None:
    directory = tmp_path / "trusted"
    (directory / "deeper").mkdir(parents=True)
    assert fault(Tls(ca_files=(directory,))) == (
        f"ca_file: no file in the directory {directory} holds a certificate in PEM form"
    )
    key.rename(directory / "some.key")
    write(directory / "binary", bytes(range(256)))
    ca.rename(directory / "plant.crt")

    assert Tls(ca_files=(directory,)).make_context().cert_store_stats()["x509"] == 1


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_variables_are_checked_unless_there_is_a_setting(
    name: str, ca: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(name, str(tmp_path / "gone"))

    with pytest.raises(ConfigurationError, match=f"{name}: .*gone"):
        Tls().check()
    Tls(ca_files=(ca,)).check()


def test_damaged_file_of_a_variable_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = write(tmp_path / "c", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    monkeypatch.setenv("SSL_CERT_FILE", str(path))

    with pytest.raises(ConfigurationError, match=r"SSL_CERT_FILE: a certificate in .* is damaged"):
        Tls().check()


def test_key_that_everybody_can_read_is_warned_about(
    cert: Path, key: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Tls(client_cert=cert, client_key=key).check()
    assert caplog.text == ""
    key.chmod(0o644)

    Tls(client_cert=cert, client_key=key).check()

    assert f"every user can read it: chmod 600 {key}" in caplog.text


def test_dates_are_read_from_the_certificate(authority: trustme.CA, tmp_path: Path) -> None:
    begin, end = datetime(2031, 5, 6, 7, 8, tzinfo=UTC), datetime(2052, 1, 2, tzinfo=UTC)
    leaf = authority.issue_cert("device-7", not_before=begin, not_after=end)
    path = write(tmp_path / "d.pem", leaf.private_key_and_cert_chain_pem.bytes())
    tls = Tls(client_cert=path)

    def said(moment: datetime) -> list[str]:
        return tls.out_of_date(moment.timestamp())

    assert said(begin) == said(end) == []
    [early] = said(begin - timedelta(seconds=1))
    assert early == (
        f"client_cert: the certificate in {path} is not valid before 2031-05-06 07:08 UTC; this "
        "device's clock says 2031-05-06 07:07 UTC"
    )
    [late] = said(end + timedelta(days=1))
    assert "expired on 2052-01-02 00:00 UTC" in late


def test_out_of_date_is_a_warning_and_no_refusal(
    authority: trustme.CA, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A board that boots without a clock has to get as far as setting it."""
    leaf = authority.issue_cert("d", not_after=datetime(2026, 1, 1, tzinfo=UTC))
    tls = Tls(client_cert=write(tmp_path / "d.pem", leaf.private_key_and_cert_chain_pem.bytes()))

    tls.check(clock=lambda: 60.0)
    tls.make_context()

    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "clock says 1970-01-01 00:01 UTC" in record.message


def test_one_expired_authority_among_good_ones_is_no_news(
    authority: trustme.CA, ca: Path, tmp_path: Path
) -> None:
    old = authority.issue_cert("old", not_after=datetime(2026, 1, 1, tzinfo=UTC))
    chain = old.cert_chain_pems[0].bytes()
    both = write(tmp_path / "both.pem", chain + ca.read_bytes())
    alone = write(tmp_path / "alone.pem", chain)
    now_s = datetime(2026, 6, 1, tzinfo=UTC).timestamp()

    assert Tls(ca_files=(both,)).out_of_date(now_s) == []
    assert len(Tls(ca_files=(alone,)).out_of_date(now_s)) == 1
