"""The demo's detector: OpenCV's trained cascades, a coin finder, and a measure of focus.

Every box, polygon and score comes from the pixels. A cascade reports, for each window that passed
all its stages, the weight with which the window passed the last one. That weight `w` is no
probability, so each detector has a curve `1 / (1 + exp(-(slope * w + intercept)))`, fitted (Platt
scaling) on pictures of which it is known what they show: `calibration.py` makes the figures below,
and a test makes them again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vevents.demo.packages import opencv
from vevents.event import (
    Classification,
    InstanceSegmentation,
    Keypoint,
    KeypointDetection,
    ObjectDetection,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Keypoint ids as in COCO; "left" and "right" are the person's own.
LEFT_EYE, RIGHT_EYE = 1, 2

_FACE_SIDE_MIN = 40
_COIN_AREA_MIN = 200.0


class Curve(NamedTuple):
    """Turns a detector's own figure into a confidence in (0, 1)."""

    slope: float
    intercept: float

    def confidence(self, figure: float) -> float:
        """Return the confidence, rounded to four decimals as a camera program would log it."""
        return round(1.0 / (1.0 + math.exp(-(self.slope * figure + self.intercept))), 4)


CURVES = {
    "face": Curve(1.1750, -2.5831),
    "profile": Curve(1.6498, 0.1334),
    "eye": Curve(1.0058, -0.6831),
    "focus": Curve(1.2212, -5.1428),
}
"""As printed by `python -m vevents.demo.calibration`."""


@dataclass(frozen=True, slots=True)
class Window:
    """What a cascade found: a box by its corner, in pixels, and the weight of the last stage."""

    x: int
    y: int
    width: int
    height: int
    weight: float

    @property
    def center(self) -> tuple[float, float]:
        """The middle of the box, as Vision Events wants it."""
        return self.x + self.width / 2, self.y + self.height / 2

    def holds(self, x: float, y: float) -> bool:
        """Tell whether a point lies inside."""
        return self.x <= x < self.x + self.width and self.y <= y < self.y + self.height


class Cascade:
    """One of the trained cascades that come with OpenCV.

    Args:
        name: `haarcascade_<name>.xml` in OpenCV's own folder.
    """

    def __init__(self, name: str) -> None:
        cv2 = opencv()
        path = Path(cv2.data.haarcascades) / f"haarcascade_{name}.xml"
        self._classifier = cv2.CascadeClassifier(str(path))
        if self._classifier.empty():
            raise FileNotFoundError(f"OpenCV has no cascade {path}")

    def windows(
        self, gray: Any, *, side_min: int, neighbours: int = 5, step: float = 1.1
    ) -> list[Window]:
        """Search a gray picture at every scale.

        Args:
            gray: Shape `(height, width)`, 8 bit.
            side_min: Smallest box, in pixels.
            neighbours: How many overlapping windows must agree.
            step: Factor from one scale to the next.

        Returns:
            What was found, the heaviest first.
        """
        boxes, _, weights = self._classifier.detectMultiScale3(
            gray,
            scaleFactor=step,
            minNeighbors=neighbours,
            minSize=(side_min, side_min),
            outputRejectLevels=True,
        )
        # With nothing found OpenCV returns empty tuples, otherwise arrays.
        found = [
            Window(int(x), int(y), int(width), int(height), float(weight))
            for (x, y, width, height), weight in zip(boxes, weights, strict=True)
        ]
        # In an order of our own, because OpenCV's threads finish in another one each time.
        return sorted(found, key=lambda window: (-window.weight, window.x, window.y))


class Detector:
    """Finds faces, eyes and coins, and judges the focus.

    Example:
        >>> from vevents.demo.photographs import photograph
        >>> [face] = Detector().faces(photograph("astronaut.png"))
        >>> face.class_name, face.confidence > 0.9
        ('face', True)
    """

    def __init__(self) -> None:
        self._cv2 = opencv()
        self._frontal = Cascade("frontalface_default")
        self._profile = Cascade("profileface")
        self._eye = Cascade("eye")

    def faces(self, pixels: NDArray[np.uint8]) -> list[ObjectDetection]:
        """Find faces that look at the camera."""
        windows = self._frontal.windows(self._gray(pixels), side_min=_FACE_SIDE_MIN)
        return [_detection("face", window, CURVES["face"]) for window in windows]

    def people(
        self, pixels: NDArray[np.uint8]
    ) -> tuple[list[ObjectDetection], list[KeypointDetection]]:
        """Find people by their faces, from the front or from the side.

        Returns:
            The faces, and for those from the front of which both eyes were found, the eyes as
            keypoints.
        """
        gray = self._gray(pixels)
        frontal = self._frontal.windows(gray, side_min=_FACE_SIDE_MIN)
        detections = [_detection("face", window, CURVES["face"]) for window in frontal]
        known = list(frontal)
        for window in self._profiles(gray):
            # One head may be found from the front, from the side and in the mirror.
            if not any(face.holds(*window.center) for face in known):
                known.append(window)
                detections.append(_detection("profile", window, CURVES["profile"]))
        keypoints = [found for face in frontal if (found := self._eyes(gray, face)) is not None]
        return detections, keypoints

    def coins(self, pixels: NDArray[np.uint8]) -> list[InstanceSegmentation]:
        """Outline the coins on a tray.

        What is brighter than its surroundings is cut out; the confidence is how round its outline
        is, `4 pi area / perimeter^2`, which is 1 for a disc.
        """
        cv2 = self._cv2
        near = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
        wide = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (61, 61))
        smooth = cv2.GaussianBlur(self._gray(pixels), (5, 5), 0)
        raised = cv2.morphologyEx(smooth, cv2.MORPH_TOPHAT, wide)
        _, mask = cv2.threshold(raised, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
        mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, near)
        mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, near)
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        coins = []
        for contour in contours:
            hull = cv2.convexHull(contour)
            area, perimeter = cv2.contourArea(hull), cv2.arcLength(hull, True)
            if area < _COIN_AREA_MIN:
                continue
            outline = cv2.approxPolyDP(hull, 0.01 * perimeter, True).reshape(-1, 2)
            x, y, width, height = cv2.boundingRect(outline)
            coins.append(
                InstanceSegmentation(
                    class_name="coin",
                    x=x + width / 2,
                    y=y + height / 2,
                    width=float(width),
                    height=float(height),
                    confidence=round(min(1.0, 4 * math.pi * area / perimeter**2), 4),
                    points=tuple((float(u), float(v)) for u, v in outline),
                )
            )
        return coins

    def focus(self, pixels: NDArray[np.uint8]) -> Classification:
        """Judge whether a picture is in focus.

        Returns:
            `in focus` or `out of focus`, whichever is the more likely.
        """
        sharp = CURVES["focus"].confidence(sharpness(pixels))
        if sharp >= 0.5:
            return Classification("in focus", sharp)
        return Classification("out of focus", round(1.0 - sharp, 4))

    def _profiles(self, gray: Any) -> list[Window]:
        # The cascade knows faces that look to one side; the mirrored picture gives the others.
        windows = self._profile.windows(gray, side_min=_FACE_SIDE_MIN)
        mirrored = self._profile.windows(self._cv2.flip(gray, 1), side_min=_FACE_SIDE_MIN)
        width = gray.shape[1]
        windows += [
            Window(width - found.x - found.width, found.y, found.width, found.height, found.weight)
            for found in mirrored
        ]
        return sorted(windows, key=lambda window: (-window.weight, window.x, window.y))

    def _eyes(self, gray: Any, face: Window) -> KeypointDetection | None:
        """Find both eyes in the upper half of a face: the heaviest window on either side."""
        found = eyes_in(self._eye, gray, face)
        middle, _ = face.center
        upper = [eye for eye in found if in_upper_half(eye, face)]
        sides = (
            [eye for eye in upper if eye.center[0] >= middle],
            [eye for eye in upper if eye.center[0] < middle],
        )
        if not all(sides):
            return None
        eyes = [max(side, key=lambda eye: eye.weight) for side in sides]
        box = _detection("face", face, CURVES["face"])
        return KeypointDetection(
            class_name="face",
            x=box.x,
            y=box.y,
            width=box.width,
            height=box.height,
            confidence=min(CURVES["eye"].confidence(eye.weight) for eye in eyes),
            keypoints=tuple(
                Keypoint(number, *eye.center)
                for number, eye in zip((LEFT_EYE, RIGHT_EYE), eyes, strict=True)
            ),
        )

    def _gray(self, pixels: Any) -> Any:
        return self._cv2.cvtColor(pixels, self._cv2.COLOR_BGR2GRAY)


def eyes_in(cascade: Cascade, gray: Any, face: Window) -> list[Window]:
    """Search one face for eyes; boxes are in pixels of the whole picture."""
    cut = gray[face.y : face.y + face.height, face.x : face.x + face.width]
    return [
        Window(face.x + eye.x, face.y + eye.y, eye.width, eye.height, eye.weight)
        for eye in cascade.windows(cut, side_min=face.width // 7, neighbours=3, step=1.05)
    ]


def in_upper_half(eye: Window, face: Window) -> bool:
    """Tell whether an eye is where eyes are, and not a nostril or the corner of a mouth."""
    return eye.center[1] < face.y + face.height * 0.55


def sharpness(pixels: NDArray[np.uint8]) -> float:
    """Measure how sharp a picture is: the logarithm of the variance of its Laplacian."""
    cv2 = opencv()
    gray = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
    return math.log(1e-6 + float(cv2.Laplacian(gray, cv2.CV_64F).var()))


def confidence_max(detections: Sequence[ObjectDetection]) -> float:
    """Return the highest confidence, 0 if nothing was found."""
    return max((detection.confidence for detection in detections), default=0.0)


def _detection(class_name: str, window: Window, curve: Curve) -> ObjectDetection:
    x, y = window.center
    return ObjectDetection(
        class_name=class_name,
        x=x,
        y=y,
        width=float(window.width),
        height=float(window.height),
        confidence=curve.confidence(window.weight),
    )
