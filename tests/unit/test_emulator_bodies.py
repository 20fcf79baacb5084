"""Bodies: JSON as strict as JSON.parse, gzip within its limit."""

from __future__ import annotations

import gzip
from typing import Any

import pytest

from vevents.emulator.bodies import RequestRefusedError, gunzip, parse_json


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b' {"a": [1, 2.5, true, null]}\r\n', {"a": [1, 2.5, True, None]}),
        (b'{"a": 1, "a": 2}', {"a": 2}),
        ('"é\\ud83d\\ude00"'.encode(), "é😀"),
        (b'"\\\\ud800"', "\\ud800"),
    ],
)
def test_json(raw: bytes, value: Any) -> None:
    assert parse_json(raw) == value


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"", "is not valid JSON"),
        (b'{"a": 1,}', "is not valid JSON"),
        (b"{'a': 1}", "is not valid JSON"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b'{"a": Infinity}', "Infinity is not JSON"),
        (b'{"a": -Infinity}', "-Infinity is not JSON"),
        (b"1" * 5000, "is not valid JSON"),
        (b"[" * 100_000, "is nested too deeply"),
        (b'"\xe9"', "is not UTF-8 (byte 1)"),
        ('{"a": 1}'.encode("utf-16"), "is not UTF-8"),
        (b'"\\ud800"', "half of a surrogate pair"),
        (b'{"\\uDE00": 1}', "half of a surrogate pair"),
    ],
)
def test_what_is_no_json(raw: bytes, text: str) -> None:
    with pytest.raises(RequestRefusedError) as refused:
        parse_json(raw, what="metadata")

    assert refused.value.status_code == 400
    assert refused.value.text.startswith("metadata ")
    assert text in refused.value.text


def test_gunzip() -> None:
    packed = gzip.compress(b"a" * 1000) + gzip.compress(b"b")

    assert gunzip(packed, 1001, what="the body") == b"a" * 1000 + b"b"


@pytest.mark.parametrize(
    ("packed", "status_code", "text"),
    [
        (gzip.compress(b"a" * 1002), 413, "the body unpacks to more than 1001 bytes"),
        (gzip.compress(b"a" * 1000) + gzip.compress(b"bc"), 413, "unpacks to more than"),
        (gzip.compress(b"a" * 1000)[:-1], 400, "ends too early"),
        (b"a" * 1000, 400, "is not valid gzip data"),
    ],
)
def test_gunzip_refuses(packed: bytes, status_code: int, text: str) -> None:
    with pytest.raises(RequestRefusedError, match=text) as refused:
        gunzip(packed, 1001, what="the body")

    assert refused.value.status_code == status_code
