"""Whom the device trusts, and with which certificate it shows who it is.

The files are read and checked before the first connection, so that a mistake in them is named where
the settings are, and not hours later as a failed handshake. A certificate that has expired, or is
not valid yet, is warned about and used all the same: a board that boots without a clock would
otherwise refuse to start for a reason that cures itself.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vevents.errors import ConfigurationError
from vevents.settings import Secret

if TYPE_CHECKING:
    import ssl

_LOGGER = logging.getLogger(__name__)
_CERTIFICATE = "-----BEGIN CERTIFICATE-----"
_CERTIFICATE_END = "-----END CERTIFICATE-----"
_KEY = "PRIVATE KEY-----"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """What is to be different from the usual.

    Attributes:
        ca_files: PEM files, and directories of such, with the authorities to trust instead of the
            usual ones; empty for the usual ones.
        client_cert: PEM file with the certificate that the device shows, then the ones between it
            and its authority; None for none.
        client_key: PEM file with its key; None when that stands in `client_cert`.
        client_key_password: What the key is locked with, or None.
    """

    ca_files: tuple[Path, ...] = ()
    client_cert: Path | None = None
    client_key: Path | None = None
    client_key_password: Secret | None = None

    def make_context(self) -> ssl.SSLContext:
        """Return what a connection to the server needs to be encrypted.

        Raises:
            ConfigurationError: A file is missing, cannot be read, holds something else or does not
                fit the others. The message names it.
        """
        import ssl

        if self.ca_files:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            # An authority of one's own may be an intermediate one, or the server's own certificate.
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            for path in self.ca_files:
                _trust(context, path, "ca_file")
        else:
            context = _usual_context()
        self.show_certificate(context)
        return context

    def check(self, clock: Callable[[], float] = time.time) -> None:
        """Raise what `make_context()` would, and warn of certificates that are out of date.

        It loads no more than the files that are named: the usual authorities are many.
        """
        variable = next((n for n in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(n)), None)
        if self.ca_files:
            self.make_context()
        elif variable is not None:
            _check_variable(variable)
        if self.client_cert is None and self.client_key is not None:
            raise ConfigurationError("client_key is set and client_cert is not; set both")
        if self.client_cert is not None:
            import ssl

            self.show_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
            key = self.client_key or self.client_cert
            if key.stat().st_mode & stat.S_IROTH:
                _LOGGER.warning(
                    "%s holds a private key and every user can read it: chmod 600 %s", key, key
                )
        for fault in self.out_of_date(clock()):
            _LOGGER.warning("%s", fault)

    def show_certificate(self, context: ssl.SSLContext) -> None:
        """Let the connections of a context show the device's certificate, if it has one."""
        import ssl

        if self.client_cert is None:
            return
        _read_pem(self.client_cert, _CERTIFICATE, "client_cert", "certificate")
        key = self.client_key or self.client_cert
        name = "client_cert" if self.client_key is None else "client_key"
        locked = "ENCRYPTED" in _read_pem(key, _KEY, name, "private key")
        if locked and self.client_key_password is None:
            raise ConfigurationError(
                f"{name}: {key} is locked with a password; set VEVENTS_CLIENT_KEY_PASSWORD"
            )
        password = self.client_key_password
        try:
            # Never without a password: OpenSSL would ask for it on the terminal and wait.
            context.load_cert_chain(
                self.client_cert, self.client_key, "" if password is None else password.reveal()
            )
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                what = f"does not belong to the certificate in {self.client_cert}"
            elif locked:
                what = "cannot be unlocked with VEVENTS_CLIENT_KEY_PASSWORD"
            else:
                what = f"or the certificate in {self.client_cert} is damaged ({error.reason})"
            raise ConfigurationError(f"{name}: the key in {key} {what}") from error

    def out_of_date(self, now_s: float) -> list[str]:
        """Return a sentence for every file whose certificates are all not valid at this time.

        Args:
            now_s: Seconds since 1970.
        """
        faults = []
        paths = [("ca_file", path) for path in self.ca_files if path.is_file()]
        if self.client_cert is not None:
            paths.append(("client_cert", self.client_cert))
        for name, path in paths:
            certificates = _certificates(path)
            # The first one is the device's own; the ones behind it are its authorities'.
            ends = certificates[:1] if name == "client_cert" else certificates
            wrong = [_when_valid(begin_s, end_s, now_s) for begin_s, end_s in ends]
            if wrong and all(wrong):
                faults.append(
                    f"{name}: the certificate in {path} {wrong[0]}; this device's clock says "
                    f"{utc_text(now_s)}"
                )
        return faults


def utc_text(seconds: float) -> str:
    """Return a time for people, UTC, to the minute."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def _trust(context: ssl.SSLContext, path: Path, name: str) -> None:
    import ssl

    files = [path]
    if path.is_dir():
        files = sorted(item for item in _listed(path, name) if _CERTIFICATE in _text_of(item))
        if not files:
            raise ConfigurationError(
                f"{name}: no file in the directory {path} holds a certificate in PEM form"
            )
    for file in files:
        _read_pem(file, _CERTIFICATE, name, "certificate")
        try:
            context.load_verify_locations(cafile=file)
        except ssl.SSLError as error:
            raise ConfigurationError(
                f"{name}: a certificate in {file} is damaged ({error.reason})"
            ) from error


def _listed(directory: Path, name: str) -> list[Path]:
    try:
        return [item for item in directory.iterdir() if item.is_file()]
    except OSError as error:
        raise ConfigurationError(f"{name}: {directory}: {error.strerror}") from error


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        # Beside the certificates may lie what only others can read.
        return ""


def _usual_context() -> ssl.SSLContext:
    import httpx

    return httpx.create_ssl_context()


def _check_variable(variable: str) -> None:
    import ssl

    path = Path(os.environ[variable])
    if variable == "SSL_CERT_FILE":
        _trust(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), path, variable)
    elif not path.is_dir():
        raise ConfigurationError(f"{variable}: {path} is no directory")


def _read_pem(path: Path, mark: str, name: str, what: str) -> str:
    """Return the text of a PEM file that holds what it should."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{name}: {path}: {error.strerror}") from error
    text = data.decode("utf-8", errors="replace")
    if mark in text:
        return text
    if data[:1] == b"\x30":
        form = "is not in PEM form but in a binary one (DER or PKCS#12); convert it with openssl"
    elif "-----BEGIN " in text:
        form = f"holds no {what} but {text.split('-----BEGIN ', 1)[1].split('-----')[0]!r}"
    else:
        form = f"holds no {what} in PEM form"
    raise ConfigurationError(f"{name}: {path} {form}")


def _certificates(path: Path) -> list[tuple[float, float]]:
    """From when until when the certificates of a file are valid, seconds since 1970."""
    import ssl

    found = []
    for part in _text_of(path).split(_CERTIFICATE)[1:]:
        body, end, _ = part.partition(_CERTIFICATE_END)
        try:
            der = ssl.PEM_cert_to_DER_cert(_CERTIFICATE + body + end)
            found.append(_validity(der))
        except (ValueError, IndexError):
            # It was loaded, so it is one; a form that is not known here is not worth a refusal.
            continue
    return found


def _validity(der: bytes) -> tuple[float, float]:
    """Read `notBefore` and `notAfter` of a certificate (RFC 5280, 4.1); the library hides them."""
    import calendar

    _, begin, _ = _element(der, 0)  # Certificate
    _, at, _ = _element(der, begin)  # TBSCertificate
    tag, _, after = _element(der, at)
    if tag == 0xA0:  # the version may be absent
        _, _, after = _element(der, after)
    for _ in range(2):  # signature algorithm, issuer
        _, _, after = _element(der, after)
    _, at, _ = _element(der, after)
    times = []
    for _ in range(2):
        tag, begin, at = _element(der, at)
        text = der[begin:at].decode("ascii")
        if tag == 0x17:  # two digits for the year, 1950 to 2049
            text = ("19" if text >= "50" else "20") + text
        times.append(float(calendar.timegm(time.strptime(text, "%Y%m%d%H%M%SZ"))))
    return times[0], times[1]


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """Return the tag of the element at this place, where its content begins and where it ends."""
    size, begin = der[at + 1], at + 2
    if size & 0x80:
        count = size & 0x7F
        size, begin = int.from_bytes(der[begin : begin + count], "big"), begin + count
    return der[at], begin, begin + size


def _when_valid(begin_s: float, end_s: float, now_s: float) -> str:
    if now_s < begin_s:
        return f"is not valid before {utc_text(begin_s)}"
    return f"expired on {utc_text(end_s)}" if now_s > end_s else ""
