"""The demo's camera and detector, on photographs of which it is known what they show."""

from __future__ import annotations

import importlib.util
import sys
import types

import pytest

from vevents.demo import calibration, detector, packages, photographs
from vevents.demo.detector import CURVES, LEFT_EYE, RIGHT_EYE, Curve, Detector, sharpness
from vevents.demo.photographs import FACE_SAMPLES, PLACES, Camera
from vevents.errors import ConfigurationError


def _seeing() -> bool:
    try:
        packages.opencv()
        packages.photograph_directory()
    except ConfigurationError:
        return False
    return True


seeing = pytest.mark.skipif(not _seeing(), reason="needs the extra: pip install 'vevents[demo]'")


@pytest.fixture(scope="module")
def eyes() -> Detector:
    return Detector()


# --- Packages -------------------------------------------------------------------------------


def test_a_missing_opencv_is_named_with_the_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)

    with pytest.raises(ConfigurationError, match=r"OpenCV 4 .*vevents\[demo\]"):
        packages.opencv()


def test_an_opencv_without_cascades_is_named_by_its_version(monkeypatch):
    newer = types.ModuleType("cv2")
    newer.__version__ = "5.0.0"
    monkeypatch.setitem(sys.modules, "cv2", newer)

    with pytest.raises(ConfigurationError, match=r"5\.0\.0 is installed"):
        packages.opencv()


def test_missing_photographs_are_named_with_the_cure(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)

    with pytest.raises(ConfigurationError, match=r"scikit-image; .*vevents\[demo\]"):
        packages.photograph_directory()


# --- Camera ---------------------------------------------------------------------------------


@seeing
@pytest.mark.parametrize("place", PLACES)
def test_a_camera_with_the_same_seed_takes_the_same_frame(place):
    first, again, other = Camera(4), Camera(4), Camera(5)

    frame = first.take(11, place)

    first.take(12, place)  # the order in which frames are taken does not matter
    assert again.take(11, place).jpeg == frame.jpeg == first.take(11, place).jpeg
    assert other.take(11, place).jpeg != frame.jpeg
    assert frame.number == 11
    assert frame.place == place


@seeing
@pytest.mark.parametrize("place", PLACES)
def test_a_frame_is_a_jpeg_of_its_own_pixels(place):
    import cv2
    import numpy as np

    frame = Camera(0).take(3, place)

    decoded = cv2.imdecode(np.frombuffer(frame.jpeg, dtype=np.uint8), cv2.IMREAD_COLOR)
    assert decoded.shape == frame.pixels.shape
    difference = np.abs(decoded.astype(int) - frame.pixels.astype(int)).mean()
    assert difference < 12  # gray levels; two frames of one place are 30 apart and more


@seeing
def test_frames_of_one_place_are_not_all_the_same():
    camera = Camera(0)

    for place in ("pad", "door", "bench"):
        assert len({camera.take(number, place).jpeg for number in range(20)}) == 20


@seeing
def test_a_place_that_is_not_watched_is_refused():
    with pytest.raises(ValueError, match="no such place: 'roof'"):
        Camera(0).take(0, "roof")


@seeing
def test_a_photograph_that_is_not_in_the_package_is_an_error():
    with pytest.raises(FileNotFoundError):
        photographs.photograph("nobody.png")


# --- Detector -------------------------------------------------------------------------------


@seeing
def test_faces_are_found_among_labelled_pictures_and_nothing_else_is(eyes):
    import cv2

    found = []
    for sample in photographs.labelled_samples():
        gray = photographs.enlarged(sample, 80)
        gray = cv2.copyMakeBorder(gray, 16, 16, 16, 16, cv2.BORDER_REPLICATE)
        found.append(len(eyes.faces(cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR))))

    assert sum(count == 1 for count in found[:FACE_SAMPLES]) >= 90
    assert sum(count > 0 for count in found[FACE_SAMPLES:]) <= 2


@seeing
def test_a_portrait_gives_the_face_and_both_eyes_where_they_are(eyes):
    faces, keypoints = eyes.people(photographs.photograph("astronaut.png"))

    [face] = faces
    assert face.class_name == "face"
    assert (face.x, face.y) == pytest.approx((224, 113), abs=12)
    assert face.width == pytest.approx(95, abs=15)
    assert face.confidence > 0.9
    [skeleton] = keypoints
    eye = {point.id: (point.x, point.y) for point in skeleton.keypoints}
    # Her left eye is on the right side of the picture.
    assert eye[LEFT_EYE] == pytest.approx((246, 104), abs=8)
    assert eye[RIGHT_EYE] == pytest.approx((201, 100), abs=8)


@seeing
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_head_from_the_side_is_found_whichever_way_it_looks(eyes, mirrored):
    import cv2

    picture = photographs.photograph("camera.png")
    if mirrored:
        picture = cv2.flip(picture, 1)

    faces, keypoints = eyes.people(picture)

    best = max(faces, key=lambda face: face.confidence)
    assert best.class_name == "profile"
    expected_x = 512 - 208 if mirrored else 208
    assert (best.x, best.y) == pytest.approx((expected_x, 141), abs=25)
    assert keypoints == []


@seeing
def test_every_coin_is_outlined_inside_its_box(eyes):
    coins = eyes.coins(photographs.photograph("coins.png"))

    assert len(coins) == 24
    for coin in coins:
        assert 0.8 < coin.confidence <= 1.0
        assert len(coin.points) >= 6
        for x, y in coin.points:
            assert abs(x - coin.x) <= coin.width / 2
            assert abs(y - coin.y) <= coin.height / 2


@seeing
def test_a_photograph_is_in_focus_until_it_is_blurred(eyes):
    import cv2

    picture = photographs.photograph("coffee.png")

    sharp = eyes.focus(picture)
    blurred = eyes.focus(cv2.GaussianBlur(picture, (0, 0), sigmaX=4.0))

    assert (sharp.class_name, blurred.class_name) == ("in focus", "out of focus")
    assert min(sharp.confidence, blurred.confidence) >= 0.5
    assert sharpness(picture) > sharpness(cv2.GaussianBlur(picture, (0, 0), sigmaX=1.0))


@seeing
def test_the_same_picture_gives_the_same_detections_in_the_same_order(eyes):
    # OpenCV searches in several threads, which find things in another order each time.
    picture = Camera(3).take(1, "door").pixels

    first = eyes.faces(picture)

    assert len(first) > 3
    assert all(eyes.faces(picture) == first for _ in range(20))


@seeing
def test_detections_are_valid_events(eyes):
    from vevents.event import Event, Image

    camera = Camera(2)
    for place in PLACES:
        pixels = camera.take(1, place).pixels
        faces, keypoints = eyes.people(pixels)
        Event.custom(
            value=place,
            images=[
                Image(
                    object_detections=faces,
                    keypoints=keypoints,
                    classifications=[eyes.focus(pixels)],
                    instance_segmentations=eyes.coins(pixels),
                )
            ],
        ).validate()


# --- Scores ---------------------------------------------------------------------------------


def test_a_curve_rises_from_0_to_1():
    curve = Curve(2.0, -3.0)

    figures = [-4.0, 0.0, 1.5, 3.0, 7.0]

    confidences = [curve.confidence(figure) for figure in figures]
    assert confidences == sorted(confidences)
    assert confidences[2] == 0.5
    assert 0.0 <= confidences[0] < 0.001
    assert 0.999 < confidences[-1] <= 1.0


def test_a_fit_finds_the_curve_that_made_the_samples():
    random = pytest.importorskip("numpy").random.default_rng(1)
    truth = Curve(1.5, -2.0)
    figures = random.uniform(-4, 6, 20_000)
    right = random.random(20_000) < [truth.confidence(figure) for figure in figures]

    found = calibration.fit(list(figures[right]), list(figures[~right]))

    assert found == pytest.approx(truth, abs=0.1)


@pytest.mark.parametrize(("right", "wrong"), [([], [1.0]), ([1.0], [])])
def test_a_fit_needs_right_and_wrong_finds(right, wrong):
    with pytest.raises(ValueError, match="both needed"):
        calibration.fit(right, wrong)


@seeing
@pytest.mark.slow
def test_the_curves_in_use_are_those_that_the_calibration_gives():
    fitted = calibration.calibrate()

    assert fitted.keys() == CURVES.keys()
    for name, curve in fitted.items():
        assert curve == pytest.approx(CURVES[name], rel=0.05, abs=0.05), name


@seeing
def test_a_cascade_that_opencv_does_not_have_is_an_error():
    with pytest.raises(FileNotFoundError, match="no cascade"):
        detector.Cascade("unicorn")
