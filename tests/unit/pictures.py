"""Pictures to test with, and machines that lack what draws them."""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
import PIL.Image
import pytest


def without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    for package in packages:
        for name in [n for n in sys.modules if n == package or n.startswith(f"{package}.")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, package, None)


def with_alone(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    """Leave one of the two libraries that draw, cv2 or PIL; skip where it is not."""
    pytest.importorskip(library)
    without(monkeypatch, *({"cv2", "PIL"} - {library}))


def photograph(width: int = 96, height: int = 64) -> Any:
    """Smooth colors that a JPEG keeps nearly as they are."""
    y, x = np.mgrid[0:height, 0:width]
    return np.dstack([x * 255 // width, y * 255 // height, (x + y) % 200]).astype(np.uint8)


def saved(pixels: Any, format_name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, format_name, **options)
    return buffer.getvalue()


TURNED = PIL.Image.Exif()
TURNED[0x0112] = 6
TURNED_JPEG = saved(photograph(), "JPEG", exif=TURNED.tobytes())
