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
from pictures import TURNED_JPEG, photograph, saved, without

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


# --- What the pressure ladder is made of ------------------------------------------------------


@pytest.fixture(params=["opencv", "pillow"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The test runs once with OpenCV alone and once with Pillow alone."""
    pytest.importorskip("cv2")
    without(monkeypatch, "PIL" if request.param == "opencv" else "cv2")
    return request.param


LOSSLESS = {
    "PNG": saved(photograph(), "PNG"),
    "BMP": saved(photograph(), "BMP"),
    "WEBP": saved(photograph(), "WEBP", lossless=True),
}
GRAY_PNG = saved(photograph()[..., 0], "PNG")
ALPHA_PNG = saved(np.dstack([photograph(), np.full((64, 96), 255, np.uint8)]), "PNG")
ALPHA_WEBP = saved(np.dstack([photograph(), photograph()[..., 0]]), "WEBP", lossless=True)
DEEP_PNG = saved(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000, "PNG")
ANIMATED_WEBP = io.BytesIO()
PIL.Image.fromarray(photograph()).save(
    ANIMATED_WEBP, "WEBP", save_all=True, append_images=[PIL.Image.fromarray(photograph() // 2)]
)
OTHER = {name: drawn(name) for name in ("gif", "tiff", "avif")}


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("name", LOSSLESS)
def test_decoding_gives_the_pixels_back(name: str) -> None:
    pixels = frames.decode_image(LOSSLESS[name])

    assert pixels is not None
    assert np.array_equal(pixels, photograph())


@pytest.mark.usefixtures("library")
def test_decoding_keeps_gray_and_drops_transparency() -> None:
    gray, alpha = frames.decode_image(GRAY_PNG), frames.decode_image(ALPHA_PNG)

    assert gray is not None
    assert np.array_equal(gray, photograph()[..., 0])
    assert alpha is not None
    assert np.array_equal(alpha, photograph())
    transparent = frames.decode_image(ALPHA_WEBP)
    assert transparent is not None
    assert transparent.shape == (64, 96, 3)


@pytest.mark.usefixtures("library")
def test_decoding_turns_nothing() -> None:
    pixels = frames.decode_image(TURNED_JPEG)

    assert pixels is not None
    assert pixels.shape == (64, 96, 3)


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(
    "data",
    [
        DEEP_PNG,
        ANIMATED_WEBP.getvalue(),
        *OTHER.values(),
        JPEG,
        LOSSLESS["PNG"][:60],
        b"RIFF\0\0\0\0WEBPVP8X",
        saved(np.zeros((1, 65_501), np.uint8), "PNG"),
        b"",
    ],
    ids=["16 bits", "animated", *OTHER, "broken", "cut", "header", "too wide", "empty"],
)
def test_what_a_jpeg_cannot_stand_for_is_not_decoded(data: bytes) -> None:
    assert frames.decode_image(data) is None


def test_decoding_without_a_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "PIL", "cv2")

    with pytest.raises(ConfigurationError, match=r"pip install vevents\[images\]"):
        frames.decode_image(LOSSLESS["PNG"])
    with pytest.raises(ConfigurationError, match=r"pip install vevents\[images\]"):
        frames.shrink(PIXELS, 0.5)
    assert frames.decode_image(OTHER["gif"]) is None


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(
    ("shape", "scale", "expected"),
    [
        ((64, 96, 3), 0.5, (32, 48, 3)),
        ((65, 97), 0.5, (32, 48)),
        ((7, 1000, 3), 0.01, (1, 10, 3)),
    ],
)
def test_shrinking_averages(shape: Any, scale: float, expected: Any) -> None:
    pixels = np.indices(shape).sum(axis=0).astype(np.uint8) % 2 * 200

    small = frames.shrink(pixels.astype(np.uint8), scale)

    assert small.shape == expected
    assert small.dtype == np.uint8
    assert abs(float(small.mean()) - 100) < 15


def test_flattening_keeps_the_boxes_and_grays_the_rest() -> None:
    pixels = np.random.default_rng(1).integers(0, 100, (200, 300, 3), np.uint8)

    flat = frames.flatten(pixels, [(100, 60, 120, 80), (290, 190, 400, 500)])

    assert flat is not None
    # 16 pixels of margin, then on to multiples of 16.
    kept = np.zeros((200, 300), bool)
    kept[32:96, 80:144] = True
    kept[144:200, 256:300] = True
    assert np.array_equal(flat[kept], pixels[kept])
    assert (flat[~kept] == 128).all()
    assert (pixels < 100).all()


@pytest.mark.parametrize(
    "boxes", [[], [(-50, 0, -1, 10)], [(300, 0, 310, 10)], [(0, 200, 9, 210)], [(0, -9, 9, 0)]]
)
def test_no_box_on_the_picture_flattens_nothing(boxes: Any) -> None:
    assert frames.flatten(np.zeros((200, 300), np.uint8), boxes) is None


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (saved(photograph(), "JPEG"), (96, 64)),
        (saved(photograph(), "JPEG", progressive=True), (96, 64)),
        (TURNED_JPEG, (96, 64)),
        (LOSSLESS["PNG"], (96, 64)),
        (b"\xff\xd8\xff" + saved(photograph(), "JPEG")[2:], (96, 64)),
        (LOSSLESS["BMP"], None),
        (JPEG, None),
        (b"\xff\xd8\xff\xc0\x00\x11\x08", None),
        (LOSSLESS["PNG"][:20], None),
        (b"", None),
    ],
)
def test_pixel_size(data: bytes, size: Any) -> None:
    assert frames.pixel_size(data) == size


def test_exif_is_carried_over() -> None:
    exif = frames.exif_segment(TURNED_JPEG)
    plain = saved(photograph(), "JPEG")

    assert frames.exif_segment(plain) == frames.exif_segment(LOSSLESS["PNG"]) == b""
    assert frames.with_exif(plain, b"") == plain
    assert opened(frames.with_exif(plain, exif)).getexif() == opened(TURNED_JPEG).getexif()
    assert np.array_equal(np.asarray(opened(frames.with_exif(plain, exif))), opened(plain))


@pytest.mark.parametrize("orientation", [None, 0, 1, 2, 3, 6, 8])
@pytest.mark.parametrize("order", ["II", "MM"])
def test_turned_is_what_viewers_turn(orientation: int | None, order: str) -> None:
    little = order == "II"
    number = lambda n, size: n.to_bytes(size, "little" if little else "big")  # noqa: E731
    entries = [(0x010F, 4, 77)] + ([] if orientation is None else [(0x0112, 3, orientation)])
    table = number(len(entries), 2)
    for tag, kind, value in entries:
        table += number(tag, 2) + number(kind, 2) + number(1, 4)
        table += number(value, 2) + bytes(2) if kind == 3 else number(value, 4)
    tiff = order.encode() + number(42, 2) + number(8, 4) + table
    segment = b"\xff\xe1" + (8 + len(tiff)).to_bytes(2) + b"Exif\0\0" + tiff

    assert frames.is_turned(segment) == (orientation not in (None, 0, 1))
    for size in range(len(segment)):
        frames.is_turned(segment[:size])
