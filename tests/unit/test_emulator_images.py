"""Image formats by their first bytes, held against files that an image library wrote."""

from __future__ import annotations

import io

import pytest
from PIL import Image, features

from vevents.emulator.images import image_mime


@pytest.mark.parametrize(
    ("written_as", "mime"),
    [
        ("JPEG", "image/jpeg"),
        ("PNG", "image/png"),
        ("WEBP", "image/webp"),
        ("GIF", "image/gif"),
        ("TIFF", "image/tiff"),
        ("BMP", "image/bmp"),
        ("AVIF", "image/avif"),
    ],
)
def test_what_a_library_writes(written_as: str, mime: str) -> None:
    if written_as == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow cannot write AVIF")
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 30, 30)).save(file, written_as)

    assert image_mime(file.getvalue()) == mime
    assert image_mime(file.getvalue()[:64]) == mime


@pytest.mark.parametrize(
    ("start", "mime"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "image/heic"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "image/heic"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif", "image/avif"),
        (b"\0\0\0\x10ftypmif1\0\0\0\0" + b"avif" * 4, "image/heic"),
        (b"MM\0*\0\0\0\x08", "image/tiff"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isomavc1", None),
        (b"BMW 320 parked in front of the gate", None),
        (b"RIFF\0\0\0\0WAVEfmt ", None),
        (b"<!doctype html>", None),
        (b"", None),
    ],
)
def test_by_the_first_bytes(start: bytes, mime: str | None) -> None:
    assert image_mime(start) == mime
