"""Frames as bytes: which format they are, how arrays become JPEG, and the digest that names them.

The log stores an encoded image as it comes, byte for byte. Only arrays are encoded here.
"""

from __future__ import annotations

import hashlib
import io
import os
from typing import TYPE_CHECKING, Any, Final

from vevents.errors import ConfigurationError, EventTooLargeError, EventValidationError
from vevents.event import DIGEST_SIZE, FrameRef

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vevents.event import Frame

# The API's limit is not documented; its data set upload takes 20 MB.
FRAME_SIZE_MAX: Final = 20_000_000
# What the JPEG format's usual encoder takes.
_JPEG_SIDE_MAX: Final = 65_500

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
    return hashlib.blake2b(data, digest_size=DIGEST_SIZE).digest()


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
    if isinstance(frame, bytes):
        data = frame
    elif isinstance(frame, os.PathLike):
        data = _read(frame, field)
    elif isinstance(frame, FrameRef):
        raise EventValidationError(field, "is in the log already and needs no encoding")
    else:
        data = _encode_jpeg(_pixels(frame, field), quality)
    if len(data) > FRAME_SIZE_MAX:
        raise _too_large(field, len(data))
    if sniff(data) is None:
        raise EventValidationError(
            field, "must be a JPEG, PNG, WebP, GIF, TIFF, BMP, HEIC or AVIF image"
        )
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


def _pixels(frame: Any, field: str) -> NDArray[np.uint8]:
    import numpy as np

    if not isinstance(frame, np.ndarray):
        raise EventValidationError(
            field, f"must be bytes, a path or a numpy array, not {type(frame).__name__}"
        )
    if frame.dtype != np.uint8:
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
    return frame


def _encode_jpeg(pixels: NDArray[np.uint8], quality: int) -> bytes:
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


def _encode_with_opencv(pixels: NDArray[np.uint8], quality: int) -> bytes:
    import cv2

    # OpenCV keeps colors the other way round.
    image = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 else pixels
    _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return encoded.tobytes()


def _encode_with_pillow(pixels: NDArray[np.uint8], quality: int) -> bytes:
    import PIL.Image

    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
