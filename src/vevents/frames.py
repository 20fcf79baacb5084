"""Frames as bytes: which format they are, how arrays become JPEG, and the digest that names them.

The log stores an encoded image as it comes, byte for byte. Only arrays are encoded here, and what
the pressure ladder (`vevents.pressure`) makes of a frame when the user set one.
"""

from __future__ import annotations

import io
import math
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal

from vevents import _ffi
from vevents.errors import ConfigurationError, EventTooLargeError, EventValidationError
from vevents.event import Frame, FrameRef, Pixels

# What is done to a frame so that it takes less room; "none": it is left out.
Action = Literal["quality", "smaller", "crops", "none"]

# The API's limit is not documented; its data set upload takes 20 MB.
FRAME_SIZE_MAX: Final = 20_000_000
# What the JPEG format's usual encoder takes.
_JPEG_SIDE_MAX: Final = 65_500

# Around a box that `flatten` keeps: so much of its longer side, and at least so many pixels.
_MARGIN_SHARE: Final = 0.1
_MARGIN_MIN: Final = 16
# JPEG with halved colors works in blocks of 16 x 16 pixels.
_BLOCK: Final = 16
_GRAY: Final = 128
_SINGLE_PICTURES: Final = frozenset(("image/jpeg", "image/png", "image/bmp", "image/webp"))

# What the media ring counts a frame as. There are eight kinds and 0 means "other", so there is none
# for AVIF. It is for counting alone; the exact format is always found in the bytes.
_KIND_OF_MIME: Final = {
    "image/jpeg": 1,
    "image/png": 2,
    "image/webp": 3,
    "image/gif": 4,
    "image/tiff": 5,
    "image/bmp": 6,
    "image/heic": 7,
}
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Sizes of the second header of a BMP file, of all versions of the format.
_BMP_HEADER_SIZES = frozenset((12, 16, 40, 52, 56, 64, 108, 124))
_AVIF_BRANDS = frozenset((b"avif", b"avis"))
_HEIC_BRANDS = frozenset(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
)


# So many bytes of an image tell its format.
SNIFF_SIZE: Final = 64


def sniff(data: bytes) -> str | None:
    """Name the format of an encoded image by its first bytes.

    Args:
        data: The image, or at least its first 64 bytes.

    Returns:
        The MIME type of one of the eight formats that the API takes (JPEG, PNG, WebP, GIF, TIFF,
        BMP, HEIC, AVIF), or None.

    Example:
        >>> sniff(bytes.fromhex("89504e470d0a1a0a"))
        'image/png'
        >>> sniff(b"%PDF-1.7") is None
        True
    """
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "image/webp"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if data.startswith(_TIFF_STARTS):
        return "image/tiff"
    # Two letters start many texts, too; the next header says how long it is.
    if data.startswith(b"BM") and int.from_bytes(data[14:18], "little") in _BMP_HEADER_SIZES:
        return "image/bmp"
    if data[4:8] == b"ftyp":
        return _sniff_heif(data)
    return None


def _sniff_heif(data: bytes) -> str | None:
    # The first box holds the main brand, a version, and the brands that the file is compatible
    # with. A neutral main brand (mif1) is common, so all of them are looked at.
    box = data[8 : min(int.from_bytes(data[:4], "big"), 64)]
    brands = {box[:4], *(box[i : i + 4] for i in range(8, len(box), 4))}
    if brands & _AVIF_BRANDS:
        return "image/avif"
    return "image/heic" if brands & _HEIC_BRANDS else None


def media_kind(mime: str | None) -> int:
    """Return the kind under which the media ring counts a format, 0 to 7.

    Args:
        mime: What `sniff()` returned.

    Returns:
        jpeg 1, png 2, webp 3, gif 4, tiff 5, bmp 6, heic 7, anything else 0.
    """
    return 0 if mime is None else _KIND_OF_MIME.get(mime, 0)


def digest(data: bytes) -> bytes:
    """Return the 16 bytes that name an image by its content, BLAKE2b-128."""
    # Python's would take 4 MiB of OpenSSL with it.
    return _ffi.frame_digest(data)


def encode_frame(frame: Frame, *, quality: int = 85, field: str = "frame") -> bytes:
    """Turn a frame into the bytes of an image file.

    Args:
        frame: An encoded image, which is returned as it is; the path of one, which is read; or
            an array of `uint8`, RGB of shape `(height, width, 3)` or gray of shape
            `(height, width)`, which is encoded as JPEG by OpenCV or, without it, by Pillow.
        quality: Of the JPEG, 1 to 100.
        field: Name of the frame in errors, for example `images[0].frame`.

    Returns:
        At most 20 MB.

    Raises:
        EventValidationError: It is not an image of a known format, or not such an array.
        EventTooLargeError: It has more than 20 MB.
        ConfigurationError: An array was given, and neither OpenCV nor Pillow is installed.
        OSError: The file cannot be read.
    """
    opened = open_frame(frame, field=field)
    return opened if isinstance(opened, bytes) else encode_pixels(opened, quality, field=field)


def open_frame(frame: Frame, *, field: str = "frame") -> bytes | Pixels:
    """Check a frame, and read it if it is a path; `encode_frame` without the encoding.

    Returns:
        The bytes of an image file, at most 20 MB, or the array as it was given.

    Raises:
        EventValidationError: It is not an image of a known format, or not such an array.
        EventTooLargeError: It has more than 20 MB.
        OSError: The file cannot be read.
    """
    if isinstance(frame, bytes):
        data = frame
    elif isinstance(frame, os.PathLike):
        data = _read(frame, field)
    elif isinstance(frame, FrameRef):
        raise EventValidationError(field, "is in the log already and needs no encoding")
    else:
        return _pixels(frame, field)
    if len(data) > FRAME_SIZE_MAX:
        raise _too_large(field, len(data))
    if sniff(data) is None:
        raise EventValidationError(
            field, "must be a JPEG, PNG, WebP, GIF, TIFF, BMP, HEIC or AVIF image"
        )
    return data


def encode_pixels(pixels: Pixels, quality: int, *, field: str = "frame") -> bytes:
    """Encode an array as JPEG, by OpenCV or, without it, by Pillow.

    Args:
        pixels: RGB of shape `(height, width, 3)` or gray of shape `(height, width)`.
        quality: 1 to 100.
        field: Name of the frame in errors.

    Raises:
        EventTooLargeError: The JPEG has more than 20 MB.
        ConfigurationError: Neither OpenCV nor Pillow is installed.
    """
    data = _encode_jpeg(pixels, quality)
    if len(data) > FRAME_SIZE_MAX:
        raise _too_large(field, len(data))
    return data


def _too_large(field: str, size: int) -> EventTooLargeError:
    return EventTooLargeError(field, f"must have at most {FRAME_SIZE_MAX:,} bytes, has {size:,}")


def _read(path: os.PathLike[str], field: str) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123, any os.PathLike will do
        size = os.fstat(file.fileno()).st_size
        if size > FRAME_SIZE_MAX:
            raise _too_large(field, size)
        # One byte more than allowed shows that a file grew, without reading all of it.
        return file.read(FRAME_SIZE_MAX + 1)


def _pixels(frame: Any, field: str) -> Pixels:
    # Whoever has an array has loaded numpy; without, there need not be any.
    loaded: Any = sys.modules.get("numpy")
    if loaded is None or not isinstance(frame, loaded.ndarray):
        raise EventValidationError(
            field, f"must be bytes, a path or a numpy array, not {type(frame).__name__}"
        )
    if frame.dtype != loaded.uint8:
        raise EventValidationError(field, f"must be an array of uint8, not of {frame.dtype}")
    if frame.ndim != 2 and (frame.ndim != 3 or frame.shape[2] != 3):
        raise EventValidationError(
            field,
            "must have the shape (height, width, 3) or (height, width), "
            f"not {frame.shape}; an encoded image is given as bytes",
        )
    if not all(1 <= side <= _JPEG_SIDE_MAX for side in frame.shape[:2]):
        raise EventValidationError(
            field, f"must have 1 to {_JPEG_SIDE_MAX:,} pixels on each side, has {frame.shape[:2]}"
        )
    pixels: Pixels = frame
    return pixels


def _encode_jpeg(pixels: Pixels, quality: int) -> bytes:
    try:
        return _encode_with_opencv(pixels, quality)
    except ImportError:
        pass
    try:
        return _encode_with_pillow(pixels, quality)
    except ImportError:
        raise ConfigurationError(
            "a frame that is an array needs Pillow or OpenCV to become a JPEG: "
            "pip install vevents[images], or give the frame as encoded bytes"
        ) from None


def _encode_with_opencv(pixels: Pixels, quality: int) -> bytes:
    import cv2

    # OpenCV keeps colors the other way round.
    image = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 else pixels
    _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return encoded.tobytes()


def _encode_with_pillow(pixels: Pixels, quality: int) -> bytes:
    import PIL.Image

    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


# --- Pictures again --------------------------------------------------------------------------


def decode_image(data: bytes) -> Pixels | None:
    """Turn an encoded image into pixels, as they are stored: no orientation is applied.

    Args:
        data: JPEG, PNG, BMP or a WebP without animation, with 8 bits for each color.

    Returns:
        RGB of shape `(height, width, 3)`, or gray of shape `(height, width)`; transparency is
        dropped. None for every other image, and for a broken one: what a JPEG cannot hold
        (16 bits, several pictures in one file) is not to be lost in passing.

    Raises:
        ConfigurationError: Neither OpenCV nor Pillow is installed.
    """
    mime = sniff(data)
    animated = mime == "image/webp" and data[12:16] == b"VP8X" and len(data) > 20 and data[20] & 2
    if mime not in _SINGLE_PICTURES or animated:
        return None
    for decode in (_decode_with_opencv, _decode_with_pillow):
        try:
            pixels = decode(data)
        except ImportError:
            continue
        except Exception:
            # A broken image makes the libraries raise nearly anything, SyntaxError among it.
            return None
        return pixels if pixels is None or max(pixels.shape[:2]) <= _JPEG_SIDE_MAX else None
    raise ConfigurationError(
        "making frames smaller needs Pillow or OpenCV: pip install vevents[images]"
    )


def _decode_with_opencv(data: bytes) -> Pixels | None:
    import cv2
    import numpy as np

    # UNCHANGED keeps gray as gray and 16 bits as 16 bits, and applies no orientation.
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype != np.uint8:
        return None
    if image.ndim == 3:
        rgb = cv2.COLOR_BGRA2RGB if image.shape[2] == 4 else cv2.COLOR_BGR2RGB
        image = cv2.cvtColor(image, rgb)
    return np.asarray(image, np.uint8)


def _decode_with_pillow(data: bytes) -> Pixels | None:
    import numpy as np
    import PIL.Image

    with PIL.Image.open(io.BytesIO(data)) as image:
        if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK"):
            return None
        gray = image.mode in ("1", "L", "LA")
        return np.asarray(image.convert("L" if gray else "RGB"), np.uint8)


def shrink(pixels: Pixels, scale: float) -> Pixels:
    """Make a picture smaller by averaging areas.

    Args:
        pixels: RGB or gray.
        scale: Between 0 and 1. Sides are rounded to whole pixels, at least one.

    Raises:
        ConfigurationError: Neither OpenCV nor Pillow is installed.
    """
    import numpy as np

    height, width = pixels.shape[:2]
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    try:
        import cv2

        return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    except ImportError:
        pass
    try:
        import PIL.Image
    except ImportError:
        raise ConfigurationError(
            "making frames smaller needs Pillow or OpenCV: pip install vevents[images]"
        ) from None
    return np.asarray(PIL.Image.fromarray(pixels).resize(size, PIL.Image.Resampling.BOX))


def flatten(pixels: Pixels, boxes: Sequence[tuple[float, float, float, float]]) -> Pixels | None:
    """Turn everything outside of some boxes to gray, which compresses to nearly nothing.

    Args:
        pixels: RGB or gray; not changed.
        boxes: Left, top, right and bottom of each, in pixels. A margin is kept around each: a
            tenth of its longer side, at least 16 pixels, and on to whole blocks of the JPEG.

    Returns:
        A picture of the same size, or None if no box is on it.
    """
    import numpy as np

    height, width = pixels.shape[:2]
    flat = np.full_like(pixels, _GRAY)
    kept = False
    for left, top, right, bottom in boxes:
        if right <= 0 or bottom <= 0 or left >= width or top >= height:
            continue
        margin = max(_MARGIN_MIN, _MARGIN_SHARE * max(right - left, bottom - top))
        columns = _blocks(left - margin, right + margin, width)
        rows = _blocks(top - margin, bottom + margin, height)
        flat[rows, columns] = pixels[rows, columns]
        kept = True
    return flat if kept else None


def _blocks(start: float, end: float, limit: int) -> slice:
    first = math.floor(max(0.0, start) / _BLOCK) * _BLOCK
    last = math.ceil(min(float(limit), end) / _BLOCK) * _BLOCK
    return slice(first, min(limit, last))


def pixel_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height that a JPEG or PNG states, or None; nothing is decoded."""
    if data.startswith(b"\x89PNG\r\n\x1a\n") and len(data) >= 24:
        return int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    for marker, segment in _jpeg_segments(data):
        # SOF0 to SOF15; the three numbers between them that mean something else are left out.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and len(segment) >= 9:
            return int.from_bytes(segment[7:9]), int.from_bytes(segment[5:7])
    return None


def exif_segment(data: bytes) -> bytes:
    """Return the Exif segment of a JPEG, marker included; empty if there is none."""
    for marker, segment in _jpeg_segments(data):
        if marker == 0xE1 and segment[4:10] == b"Exif\0\0":
            return segment
    return b""


def with_exif(jpeg: bytes, segment: bytes) -> bytes:
    """Return a JPEG with an Exif segment: orientation, place and time outlive a re-encoding."""
    return jpeg[:2] + segment + jpeg[2:]


def is_turned(exif: bytes) -> bool:
    """Whether an Exif segment says that viewers show the picture turned or mirrored."""
    tiff = exif[10:]
    order: Literal["little", "big"] = "little" if tiff.startswith(b"II") else "big"
    table = int.from_bytes(tiff[4:8], order)
    for i in range(int.from_bytes(tiff[table : table + 2], order)):
        entry = tiff[table + 2 + 12 * i :][:12]
        if int.from_bytes(entry[:2], order) == 0x0112:
            return int.from_bytes(entry[8:10], order) not in (0, 1)
    return False


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Walk the segments before the picture itself; ends at the first thing that is none."""
    at = 2 if data.startswith(b"\xff\xd8") else len(data)
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        if data[at + 1] == 0xFF:  # a fill byte
            at += 1
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
        yield data[at + 1], data[at:end]
        at = end
