"""The demo's camera: real photographs, framed anew for every picture.

Four places are watched, each with photographs that come inside the scikit-image package:

    pad    one person: an astronaut's portrait, a photographer at work
    door   a sheet of twelve small photographs, some of faces and some not, with known labels
    bench  things: a coffee cup, a rocket, a motorcycle, a cat; now and then out of focus
    tray   twenty-four ancient coins

A few photographs give any number of frames, because each frame is a crop of its own, scaled,
perhaps mirrored, brighter or darker. Frame number `i` of a camera with a given seed is always the
same, so that a test can take it a second time.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vevents.demo.packages import opencv, photograph_directory

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PLACES = ("pad", "door", "bench", "tray")

FACE_SAMPLES = 100
"""In `lfw_subset.npy` the first hundred pictures are faces, the second hundred are not."""

# File, and the part of it that a crop must contain: left, top, right, bottom in pixels.
_PEOPLE = (("astronaut.png", (150, 20, 300, 200)), ("camera.png", (140, 60, 300, 230)))
_THINGS = (
    "coffee.png",
    "rocket.jpg",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "chelsea.png",
)
_JPEG_QUALITY = 85


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of the camera.

    Attributes:
        number: Which frame of the camera.
        place: One of `PLACES`.
        pixels: Shape `(height, width, 3)`, 8 bit, blue green red as OpenCV has it.
        jpeg: The same picture encoded, as a camera delivers it.
        face_count: How many faces are really there; None where nobody counted.
    """

    number: int
    place: str
    pixels: NDArray[np.uint8]
    jpeg: bytes
    face_count: int | None


def photograph(name: str) -> NDArray[np.uint8]:
    """Read one photograph of the scikit-image package.

    Returns:
        Shape `(height, width, 3)`, blue green red.

    Raises:
        ConfigurationError: The package is missing.
        FileNotFoundError: The package has no such photograph.
    """
    import numpy as np

    cv2 = opencv()
    # Decoded from memory, because imread would report a missing file by returning None.
    data = np.frombuffer((photograph_directory() / name).read_bytes(), dtype=np.uint8)
    pixels: NDArray[np.uint8] = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return pixels


def labelled_samples() -> NDArray[np.uint8]:
    """Read the two hundred labelled pictures: `FACE_SAMPLES` faces, then as many other things.

    Returns:
        Shape `(200, 25, 25)`, 8 bit gray.
    """
    import numpy as np

    samples = np.load(photograph_directory() / "lfw_subset.npy")
    gray: NDArray[np.uint8] = np.rint(samples.clip(0.0, 1.0) * 255.0).astype(np.uint8)
    return gray


class Camera:
    """Takes frames of the four places.

    Args:
        seed: Frames of cameras with the same seed are the same, byte by byte.

    Example:
        >>> camera = Camera(seed=7)
        >>> camera.take(3, "door").pixels.shape
        (240, 320, 3)
    """

    def __init__(self, seed: int = 0) -> None:
        self._cv2 = opencv()
        self._seed = seed
        names = (*(name for name, _ in _PEOPLE), *_THINGS, "coins.png")
        self._photographs = {name: photograph(name) for name in names}
        self._samples = labelled_samples()

    def take(self, number: int, place: str) -> Frame:
        """Take frame `number`, looking at `place`.

        Raises:
            ValueError: There is no such place.
        """
        dice = random.Random(f"{self._seed}/{number}/{place}")
        face_count: int | None = None
        if place == "pad":
            name, keep = dice.choice(_PEOPLE)
            pixels = self._crop(dice, self._photographs[name], keep, side=320)
        elif place == "door":
            pixels, face_count = self._sheet(dice)
        elif place == "bench":
            pixels = self._thing(dice)
        elif place == "tray":
            pixels = self._photographs["coins.png"]
        else:
            raise ValueError(f"no such place: {place!r}; one of {', '.join(PLACES)}")
        if dice.random() < 0.5:
            pixels = self._cv2.flip(pixels, 1)
        pixels = self._cv2.convertScaleAbs(pixels, alpha=dice.uniform(0.75, 1.15))
        return Frame(number, place, pixels, self._encode(pixels), face_count)

    def _crop(
        self, dice: random.Random, whole: Any, keep: tuple[int, int, int, int], side: int
    ) -> Any:
        """Cut a random square that holds the part `keep`, and scale it to `side` pixels."""
        height, width = whole.shape[:2]
        left, top, right, bottom = keep
        smallest = max(right - left, bottom - top, 240)
        size = dice.randint(smallest, min(height, width, 2 * smallest))
        x = dice.randint(max(0, right - size), min(left, width - size))
        y = dice.randint(max(0, bottom - size), min(top, height - size))
        cut = whole[y : y + size, x : x + size]
        return self._cv2.resize(cut, (side, side), interpolation=self._cv2.INTER_AREA)

    def _sheet(self, dice: random.Random) -> tuple[Any, int]:
        """Lay out twelve labelled samples in three rows of four."""
        import numpy as np

        count = len(self._samples)
        chosen = [
            dice.randrange(FACE_SAMPLES)
            if dice.random() < 0.6
            else dice.randrange(FACE_SAMPLES, count)
            for _ in range(12)
        ]
        tiles = [enlarged(self._samples[index], 80) for index in chosen]
        rows = [np.hstack(tiles[start : start + 4]) for start in (0, 4, 8)]
        sheet = self._cv2.cvtColor(np.vstack(rows), self._cv2.COLOR_GRAY2BGR)
        return sheet, sum(index < FACE_SAMPLES for index in chosen)

    def _thing(self, dice: random.Random) -> Any:
        """Cut a random view of a thing; one in three is out of focus."""
        whole = self._photographs[dice.choice(_THINGS)]
        height, width = whole.shape[:2]
        cut_width = dice.randint(320, min(width, height * 4 // 3))
        cut_height = cut_width * 3 // 4
        x = dice.randint(0, width - cut_width)
        y = dice.randint(0, height - cut_height)
        view = self._cv2.resize(
            whole[y : y + cut_height, x : x + cut_width],
            (320, 240),
            interpolation=self._cv2.INTER_AREA,
        )
        if dice.random() < 1 / 3:
            view = self._cv2.GaussianBlur(view, (0, 0), sigmaX=dice.uniform(2.0, 4.0))
        return view

    def _encode(self, pixels: Any) -> bytes:
        options = [self._cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
        done, data = self._cv2.imencode(".jpg", pixels, options)
        if not done:
            raise RuntimeError("OpenCV could not encode a frame as JPEG")
        return bytes(data)


def enlarged(sample: NDArray[np.uint8], side: int) -> Any:
    """Scale a small gray picture up to `side` pixels, smoothly."""
    cv2 = opencv()
    return cv2.resize(sample, (side, side), interpolation=cv2.INTER_CUBIC)
