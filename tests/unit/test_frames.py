"""Frames: formats by their first bytes, arrays as JPEG, limits."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from vevents import frames
from vevents.errors import ConfigurationError, EventTooLargeError, EventValidationError
from vevents.event import FrameRef
from vevents.frames import FRAME_SIZE_MAX, digest, encode_frame, media_kind, sniff

JPEG = b"\xff\xd8\xff\xe0" + bytes(60)
PIXELS = np.zeros((24, 32, 3), np.uint8)
PIXELS[..., 0] = 200


def ftyp(major: bytes, *compatible: bytes) -> bytes:
    brands = b"".join(compatible)
    return (16 + len(brands)).to_bytes(4, "big") + b"ftyp" + major + bytes(4) + brands + bytes(40)


def drawn(format_name: str) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(PIXELS).save(buffer, format_name)
    return buffer.getvalue()


def opened(data: bytes) -> PIL.Image.Image:
    return PIL.Image.open(io.BytesIO(data))


@pytest.mark.parametrize("name", ["jpeg", "png", "webp", "gif", "tiff", "bmp", "avif"])
def test_sniff_knows_what_pillow_writes(name: str) -> None:
    assert sniff(drawn(name)) == f"image/{name}"
    assert sniff(drawn(name)[:64]) == f"image/{name}"


@pytest.mark.parametrize(
    ("data", "mime"),
    [
        (b"\xff\xd8\xff\xdb", "image/jpeg"),
        (b"GIF87a", "image/gif"),
        (b"II*\0", "image/tiff"),
        (b"MM\0*", "image/tiff"),
        (b"II+\0", "image/tiff"),
        (b"MM\0+", "image/tiff"),
        (ftyp(b"heic", b"mif1"), "image/heic"),
        (ftyp(b"heix"), "image/heic"),
        (ftyp(b"hevc"), "image/heic"),
        (ftyp(b"mif1", b"heic"), "image/heic"),
        (ftyp(b"mif1"), "image/heic"),
        (ftyp(b"avif", b"mif1", b"miaf"), "image/avif"),
        (ftyp(b"avis"), "image/avif"),
        (ftyp(b"mif1", b"miaf", b"avif"), "image/avif"),
        (ftyp(b"mif1", b"avif", b"miaf"), "image/avif"),
        (ftyp(b"mif1", b"avif")[:20], "image/avif"),
        *[
            (b"BM" + bytes(12) + size.to_bytes(4, "little"), "image/bmp")
            for size in (12, 16, 40, 52, 56, 64, 108, 124)
        ],
    ],
)
def test_sniff(data: bytes, mime: str) -> None:
    assert sniff(data) == mime


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"\xff\xd8",
        b"\x89PNG\r\n\x1a\r",
        b"RIFF\0\0\0\0WAVE",
        b"RIFF",
        b"RIFX\0\0\0\0WEBP",
        b"CM" + bytes(12) + (40).to_bytes(4, "little"),
        b"BM" + bytes(12) + (41).to_bytes(4, "little"),
        b"GIF88a",
        b"II*",
        b"BM",
        b"BMW is a car maker, and this is a text",
        b"<html>",
        b"%PDF-1.7",
        ftyp(b"isom", b"mp42"),
        ftyp(b"mp41"),
        b"\0\0\0\x14ftyp",
        # The brand stands behind the end of the box and belongs to something else.
        (16).to_bytes(4, "big") + b"ftypisom" + bytes(4) + b"avif",
    ],
)
def test_sniff_refuses_what_is_no_image(data: bytes) -> None:
    assert sniff(data) is None


def test_media_kinds() -> None:
    mimes = ["jpeg", "png", "webp", "gif", "tiff", "bmp", "heic"]

    assert [media_kind(f"image/{name}") for name in mimes] == [1, 2, 3, 4, 5, 6, 7]
    assert [media_kind(mime) for mime in ("image/avif", "text/html", None)] == [0, 0, 0]


def test_digest() -> None:
    assert digest(b"abc").hex() == hashlib.blake2b(b"abc", digest_size=16).hexdigest()
    assert digest(b"abc").hex() == "cf4ab791c62b8d2b2109c90275287816"


def test_bytes_pass_through_unchanged() -> None:
    assert encode_frame(JPEG) is JPEG


def test_paths_are_read(tmp_path: Path) -> None:
    path = tmp_path / "frame.jpg"
    path.write_bytes(JPEG)

    class Elsewhere:
        def __fspath__(self) -> str:
            return str(path)

    assert encode_frame(path) == JPEG
    assert encode_frame(Elsewhere()) == JPEG


def test_a_missing_file_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        encode_frame(tmp_path / "none.jpg")


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "page.jpg"
    path.write_bytes(b"<html>")
    for frame in (b"<html>", b"", path):
        with pytest.raises(EventValidationError, match="must be a JPEG") as caught:
            encode_frame(frame, field="images[2].inputFrame")
        assert caught.value.field == "images[2].inputFrame"


def test_the_size_limit_names_the_field(tmp_path: Path) -> None:
    largest = JPEG + bytes(FRAME_SIZE_MAX - len(JPEG))
    assert len(encode_frame(largest)) == 20_000_000
    path = tmp_path / "large.jpg"
    path.write_bytes(largest)
    assert len(encode_frame(path)) == 20_000_000
    with path.open("ab") as file:
        file.write(b"x")

    for frame in (largest + b"x", path):
        with pytest.raises(EventTooLargeError) as caught:
            encode_frame(frame, field="images[0].frame")
        assert (
            str(caught.value)
            == "images[0].frame: must have at most 20,000,000 bytes, has 20,000,001"
        )


def without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    for package in packages:
        for name in [n for n in sys.modules if n == package or n.startswith(f"{package}.")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, package, None)


@pytest.mark.parametrize("encoder", ["opencv", "pillow"])
@pytest.mark.parametrize(
    ("pixels", "mode", "color"),
    [
        (PIXELS, "RGB", (200, 0, 0)),
        (PIXELS[..., ::-1], "RGB", (0, 0, 200)),
        (PIXELS[::2, ::2], "RGB", (200, 0, 0)),
        (PIXELS[:, :, 0], "L", 200),
        (PIXELS[:1, :1], "RGB", (200, 0, 0)),
        (np.zeros((1, 65_500), np.uint8), "L", 0),
    ],
    ids=["rgb", "reversed view", "strided view", "gray", "one pixel", "widest"],
)
def test_arrays_become_jpeg(
    encoder: str,
    pixels: Any,
    mode: str,
    color: object,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if encoder == "opencv":
        pytest.importorskip("cv2")
        without(monkeypatch, "PIL")
    else:
        without(monkeypatch, "cv2")

    data = encode_frame(pixels)

    monkeypatch.undo()
    assert sniff(data) == "image/jpeg"
    image = opened(data)
    assert (image.mode, image.size) == (mode, (pixels.shape[1], pixels.shape[0]))
    assert np.abs(np.asarray(image).astype(int) - np.asarray(color)).max() <= 2


@pytest.mark.parametrize("package", ["cv2", "PIL"])
def test_quality_is_that_of_the_jpeg(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(package)
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    without(monkeypatch, "PIL" if package == "cv2" else "cv2")

    sizes = [len(encode_frame(noise, quality=quality)) for quality in (10, 85, 100)]

    assert sizes == sorted(set(sizes))


def test_without_an_encoder_arrays_are_refused_and_bytes_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without(monkeypatch, "PIL", "cv2")

    with pytest.raises(ConfigurationError, match=r"pip install vevents\[images\]"):
        encode_frame(PIXELS)
    assert encode_frame(JPEG) == JPEG


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (PIXELS.astype(np.float32), "must be an array of uint8, not of float32"),
        (PIXELS[..., :2], "must have the shape"),
        (np.zeros((4, 4, 4), np.uint8), "must have the shape"),
        (np.frombuffer(JPEG, np.uint8), "an encoded image is given as bytes"),
        (np.zeros((0, 4, 3), np.uint8), "must have 1 to 65,500 pixels"),
        (np.zeros((1, 65_501), np.uint8), "must have 1 to 65,500 pixels"),
        ([[0]], "must be bytes, a path or a numpy array, not list"),
        (bytearray(JPEG), "must be bytes, a path or a numpy array, not bytearray"),
        ("frame.jpg", "must be bytes, a path or a numpy array, not str"),
        (None, "must be bytes, a path or a numpy array, not NoneType"),
        (FrameRef(1, bytes(16), 1), "is in the log already"),
    ],
)
def test_other_frames_are_refused(frame: Any, reason: str) -> None:
    with pytest.raises(EventValidationError) as caught:
        encode_frame(frame, field="images[0].frame")

    assert caught.value.field == "images[0].frame"
    assert reason in caught.value.reason


def test_an_array_whose_jpeg_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "FRAME_SIZE_MAX", 100)

    with pytest.raises(EventTooLargeError):
        encode_frame(PIXELS)


def test_encoders_are_loaded_for_arrays_alone() -> None:
    code = (
        "import sys; from vevents.frames import encode_frame; "
        "encode_frame(bytes.fromhex('ffd8ff')); "
        "sys.exit(bool({'numpy', 'cv2', 'PIL'} & set(sys.modules)))"
    )

    subprocess.run([sys.executable, "-c", code], check=True)
