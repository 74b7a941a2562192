"""face_tensor: one definition of the model's view of a face."""

import hashlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_fer.core import FaceBox
from edge_fer.preprocess import PREPROCESS_VERSION
from edge_fer.preprocess.face_tensor import face_tensor

RAMP = (np.arange(100 * 120, dtype=np.uint32).reshape(100, 120) * 7919 % 251).astype(np.uint8)


def test_a_face_of_the_right_size_passes_unchanged() -> None:
    tensor = face_tensor(RAMP, FaceBox(10, 20, 48, 48), (48, 48), margin=0)
    assert np.array_equal(tensor[..., 0], RAMP[20:68, 10:58])


def test_the_margin_widens_on_every_side() -> None:
    tensor = face_tensor(RAMP, FaceBox(30, 30, 24, 24), (48, 48), margin=0.5)
    assert np.array_equal(tensor[..., 0], RAMP[18:66, 18:66])


def test_edge_pixels_are_repeated_beyond_the_picture() -> None:
    tensor = face_tensor(RAMP, FaceBox(-24, 10, 48, 48), (48, 48), margin=0)
    assert np.array_equal(tensor[:, :24, 0], np.repeat(RAMP[10:58, :1], 24, axis=1))
    assert np.array_equal(tensor[:, 24:, 0], RAMP[10:58, :24])


def test_shrinking_averages_and_does_not_alias() -> None:
    stripes = np.tile(np.array([0, 255], np.uint8), (96, 48))
    tensor = face_tensor(stripes, FaceBox(0, 0, 96, 96), (48, 48), margin=0)
    assert set(np.unique(tensor)) <= {127, 128}


def test_pixels_of_this_version_do_not_change() -> None:
    """Golden: when this fails, models see other pixels than they were made for, and PREPROCESS_VERSION must grow."""
    digest = hashlib.sha256()
    for box in (FaceBox(10, 20, 48, 48), FaceBox(5, 5, 96, 96), FaceBox(3.4, 7.6, 20.2, 30.9), FaceBox(-9, 70, 60, 60)):
        digest.update(face_tensor(RAMP, box, (48, 48), margin=0.1))
    assert PREPROCESS_VERSION == 1
    assert digest.hexdigest() == "4814707658bd510cfb3639bf7b134513e8e486d4590b4513fdc06e7e7c821121"


@pytest.mark.parametrize(("x", "left"), [(10.0, 10), (10.3, 10), (10.5, 11), (10.7, 11), (-0.4, 0)])
def test_a_box_begins_at_the_nearest_pixel(x: float, left: int) -> None:
    tensor = face_tensor(RAMP, FaceBox(x, 20, 48, 48), (48, 48), margin=0)
    assert np.array_equal(tensor[..., 0], RAMP[20:68, left : left + 48])
    tensor = face_tensor(RAMP, FaceBox(20, x, 48.4, 47.6), (48, 48), margin=0)
    assert np.array_equal(tensor[..., 0], RAMP[left : left + 48, 20:68])


@pytest.mark.parametrize(("tilt_deg", "turns"), [(90.0, 1), (180.0, 2), (-90.0, 3)])
def test_a_quarter_turn_is_exact_and_about_the_middle(tilt_deg: float, turns: int) -> None:
    """A face that lies on its right side, 90 degrees clockwise, is turned back counterclockwise."""
    tensor = face_tensor(RAMP, FaceBox(30, 20, 48, 48), (48, 48), 0.0, tilt_deg)
    assert np.array_equal(tensor[..., 0], np.rot90(RAMP[20:68, 30:78], turns))


@pytest.mark.parametrize(
    ("height", "width", "method"),
    [
        (60, 60, cv2.INTER_AREA),
        (48, 60, cv2.INTER_AREA),
        (60, 40, cv2.INTER_AREA),
        (30, 30, cv2.INTER_LINEAR_EXACT),
        (30, 60, cv2.INTER_LINEAR_EXACT),  # shrinks one way and grows the other
        (60, 30, cv2.INTER_LINEAR_EXACT),
        (47, 40, cv2.INTER_LINEAR_EXACT),
    ],
)
def test_only_what_shrinks_both_ways_is_averaged(height: int, width: int, method: int) -> None:
    """Here the model's image is 48 high and 40 wide. Golden as well: another method is another version."""
    tensor = face_tensor(RAMP, FaceBox(20, 10, width, height), (48, 40), margin=0)
    expected = cv2.resize(RAMP[10 : 10 + height, 20 : 20 + width], (40, 48), interpolation=method)
    assert np.array_equal(tensor[..., 0], expected)


@given(st.integers(48, 130), st.integers(40, 130), st.integers(0, 2**32 - 1))
def test_averaging_is_exact(height: int, width: int, seed: int) -> None:
    """Area by area in whole numbers: nothing is left to the last digits of a processor."""
    image = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    # Each pixel as so many equal parts that every area is made of whole ones, one direction after the other.
    sums = np.repeat(image.astype(np.int64), 48, axis=0).reshape(48, height, width).sum(axis=1)
    sums = np.repeat(sums, 40, axis=1).reshape(48, 40, width).sum(axis=2)
    rest, whole = sums % (height * width) * 2, sums // (height * width)
    expected = whole + ((rest > height * width) | ((rest == height * width) & (whole % 2 == 1)))
    tensor = face_tensor(image, FaceBox(0, 0, width, height), (48, 40), margin=0)
    assert np.array_equal(tensor[..., 0], expected)


def test_the_sum_of_a_large_face_does_not_run_over() -> None:
    """More than 32 bits of it: a face that fills a photo."""
    assert (face_tensor(np.full((2950, 2900), 255, np.uint8), FaceBox(0, 0, 2900, 2950), (48, 48), 0) == 255).all()


def test_a_box_smaller_than_a_pixel_is_that_pixel() -> None:
    assert (face_tensor(RAMP, FaceBox(11, 12, 0.2, 0.2), (48, 48), margin=0) == RAMP[12, 11]).all()


numbers = st.floats(-300, 400)
sides = st.floats(0.1, 500)


@given(st.integers(1, 40), st.integers(1, 40), numbers, numbers, sides, sides, st.floats(0, 1))
def test_any_box_gives_a_whole_tensor(
    height: int, width: int, x: float, y: float, w: float, h: float, margin: float
) -> None:
    gray = np.full((height, width), 77, np.uint8)
    tensor = face_tensor(gray, FaceBox(x, y, w, h), (48, 48), margin)
    assert tensor.shape == (48, 48, 1)
    assert tensor.dtype == np.uint8
    assert (tensor == 77).all()
