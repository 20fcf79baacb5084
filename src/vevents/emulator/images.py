"""Telling image formats apart by their first bytes: the eight that the API takes."""

from __future__ import annotations

ACCEPTED_FORMATS = "JPEG, PNG, WebP, GIF, TIFF, BMP, HEIC or AVIF"

_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
# Containers of still images that do not say in the main brand how the picture is coded.
_NEUTRAL_BRANDS = {b"mif1", b"msf1"}


def image_mime(data: bytes) -> str | None:
    """Name the format of an image.

    Args:
        data: The whole file or its first 64 bytes.

    Returns:
        A MIME type such as `image/jpeg`, or None when it is none of the accepted formats.

    Example:
        >>> image_mime(bytes.fromhex("ffd8ffe000104a464946"))
        'image/jpeg'
        >>> image_mime(b"<html>") is None
        True
    """
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if data.startswith(_TIFF_STARTS):
        return "image/tiff"
    # Two letters prove little; the reserved field of the header is zero in every BMP.
    if data.startswith(b"BM") and len(data) >= 26 and data[6:10] == bytes(4):
        return "image/bmp"
    if data[4:8] == b"ftyp":
        return _iso_media_mime(data)
    return None


def _iso_media_mime(data: bytes) -> str | None:
    box = data[: min(int.from_bytes(data[:4], "big"), 64)]
    major = box[8:12]
    brands = {major}
    if major in _NEUTRAL_BRANDS:
        brands |= {box[at : at + 4] for at in range(16, len(box) - 3, 4)}
    if brands & _AVIF_BRANDS:
        return "image/avif"
    if brands & (_HEIC_BRANDS | _NEUTRAL_BRANDS):
        return "image/heic"
    return None
