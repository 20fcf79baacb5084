"""Where the detector's confidence curves come from.

Each curve is fitted on pictures of which it is known what they show (Platt 1999: two parameters,
maximum likelihood, targets pulled in from 0 and 1 so that few samples do not make it certain):

    face, profile   the hundred labelled faces, against what the cascades take for faces in
                    photographs of things
    eye             what the cascade finds in the upper half of those faces, against what it takes
                    for eyes in the lower half
    focus           the photographs as they are, against the same ones blurred

`python -m vevents.demo.calibration` prints the figures that stand in `detector.CURVES`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from vevents.demo.detector import CURVES, Cascade, Curve, eyes_in, in_upper_half, sharpness
from vevents.demo.packages import opencv
from vevents.demo.photographs import FACE_SAMPLES, enlarged, labelled_samples, photograph

_THINGS = (
    "brick.png",
    "chelsea.png",
    "coffee.png",
    "grass.png",
    "gravel.png",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "rocket.jpg",
)


def fit(positives: Sequence[float], negatives: Sequence[float]) -> Curve:
    """Fit a curve to the figures of right and of wrong finds, by Newton's method.

    Raises:
        ValueError: One of the two is empty.
    """
    import numpy as np

    if not positives or not negatives:
        raise ValueError("right and wrong finds are both needed")
    count_right, count_wrong = len(positives), len(negatives)
    figures = np.array([*positives, *negatives])
    targets = np.repeat(
        [(count_right + 1) / (count_right + 2), 1 / (count_wrong + 2)], [count_right, count_wrong]
    )
    rows = np.stack([figures, np.ones_like(figures)], axis=1)
    curve = np.zeros(2)
    for _ in range(50):
        likely = 1.0 / (1.0 + np.exp(-rows @ curve))
        bend = rows.T @ (rows * (likely * (1.0 - likely))[:, None])
        step = np.linalg.solve(bend, rows.T @ (targets - likely))
        curve += step
        if float(np.abs(step).max()) < 1e-10:
            break
    return Curve(float(curve[0]), float(curve[1]))


def calibrate() -> dict[str, Curve]:
    """Fit every curve of the detector anew; takes some seconds."""
    cascades = {"face": Cascade("frontalface_default"), "profile": Cascade("profileface")}
    curves = {}
    for name, cascade in cascades.items():
        right = [
            max(window.weight for window in found)
            for face in _faces()
            if (found := cascade.windows(face, side_min=40))
        ]
        wrong = [
            window.weight
            for thing in _things()
            for window in cascade.windows(thing, side_min=40, neighbours=1)
        ]
        curves[name] = fit(right, wrong)
    curves["eye"] = fit(*_eyes(cascades["face"]))
    curves["focus"] = fit(*_focus())
    return curves


def _faces() -> Iterator[Any]:
    """Yield the labelled faces, and their mirror images, with a margin around them."""
    cv2 = opencv()
    for sample in labelled_samples()[:FACE_SAMPLES]:
        face = cv2.copyMakeBorder(enlarged(sample, 80), 16, 16, 16, 16, cv2.BORDER_REPLICATE)
        yield face
        yield cv2.flip(face, 1)


def _things() -> Iterator[Any]:
    """Yield photographs without people, and their mirror images, in gray."""
    cv2 = opencv()
    for name in _THINGS:
        gray = cv2.cvtColor(photograph(name), cv2.COLOR_BGR2GRAY)
        yield gray
        yield cv2.flip(gray, 1)


def _eyes(frontal: Cascade) -> tuple[list[float], list[float]]:
    cv2 = opencv()
    cascade = Cascade("eye")
    right: list[float] = []
    wrong: list[float] = []
    for small in _faces():
        gray = cv2.resize(small, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
        for face in frontal.windows(gray, side_min=80):
            for eye in eyes_in(cascade, gray, face):
                (right if in_upper_half(eye, face) else wrong).append(eye.weight)
    return right, wrong


def _focus() -> tuple[list[float], list[float]]:
    cv2 = opencv()
    photographs = [photograph(name) for name in _THINGS]
    scaled = [
        cv2.resize(whole, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        for whole in photographs
        for scale in (0.4, 0.6, 0.8)
    ]
    blurred = [
        cv2.GaussianBlur(view, (0, 0), sigmaX=sigma)
        for view, sigma in zip(scaled, (2.0, 3.0, 4.0) * len(photographs), strict=True)
    ]
    return [sharpness(view) for view in scaled], [sharpness(view) for view in blurred]


def main() -> None:
    """Print the curves, and how far the ones in use are from them."""
    for name, curve in calibrate().items():
        used = CURVES[name]
        print(
            f"{name:8} Curve({curve.slope:.4f}, {curve.intercept:.4f})"
            f"   in use Curve({used.slope:.4f}, {used.intercept:.4f})"
        )


if __name__ == "__main__":
    main()
