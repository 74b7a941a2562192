"""Doubt: what is measured of a face's quality, and when and why an answer is marked."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_fer.core import Expression, Image, Landmarks, Quality
from edge_fer.preprocess.quality import measure_quality, turn_of
from edge_fer.sources.demo import average_faces
from edge_fer.temporal.doubt import LEAST_LIMIT, MOST, MOST_LIMIT, Doubt, Limit, uncertainty
from edge_fer.temporal.smoothing import Smoothing

DOUBT = Doubt(
    (0.5,),
    1.0,
    noise=Limit(0.2, 2.0),
    blur=Limit(100, 1.0),
    brightness=Limit(0.2, 1.0),
    eyes=Limit(0.5, 3.0),
    mouth=Limit(0.5, 3.0),
    max_risk=0.5,
)
GOOD = Quality(100, 500.0, 0.5, noise=0.05, eyes=0.9, mouth=0.9)


@pytest.fixture(scope="module")
def face() -> Image:
    """uint8 (48, 48, 1), with the grain of a photograph."""
    grain = np.random.default_rng(0).normal(0, 2, (48, 48, 1))
    return np.clip(average_faces()[1][..., np.newaxis] + grain, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("sigma", [5, 10, 20, 30])
def test_the_sigma_of_noise_is_measured(sigma: int) -> None:
    noise = np.random.default_rng(1).normal(0, sigma, (48, 48, 1))
    ramp = np.linspace(80, 170, 48)[np.newaxis, :, np.newaxis]
    tensor = np.clip(np.rint(ramp + noise), 0, 255).astype(np.uint8)
    assert measure_quality(tensor, 48).noise * (tensor.std() + 1) == pytest.approx(sigma, rel=0.08)


def test_each_measure_sees_what_it_is_for(face: Image) -> None:
    clean = measure_quality(face, 48)
    noise = np.random.default_rng(1).normal(0, 25, face.shape)
    noisy = measure_quality(np.clip(face + noise, 0, 255).astype(np.uint8), 48)
    blurred = measure_quality(cv2.GaussianBlur(face, (0, 0), 2)[..., np.newaxis], 48)
    dark = measure_quality((face * 0.2).astype(np.uint8), 48)
    masked, blindfolded = face.copy(), face.copy()
    masked[32:46, 4:-4], blindfolded[10:23, 4:-4] = 120, 120
    assert noisy.noise > 4 * clean.noise
    assert blurred.blur < clean.blur / 4 and blurred.noise < clean.noise
    assert dark.brightness == pytest.approx(0.2 * clean.brightness, abs=0.01)
    assert measure_quality(masked, 48).mouth < 0.7 * clean.mouth
    assert measure_quality(blindfolded, 48).eyes < 0.7 * clean.eyes


@pytest.mark.parametrize("side", [16, 48, 64, 224])
@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_flat_image_has_finite_measures(side: int, level: int) -> None:
    quality = measure_quality(np.full((side, side, 1), level, np.uint8), 20)
    assert quality == Quality(20, 0.0, quality.brightness, 0.0, 0.0, 0.0, turn=0.0)
    assert quality.brightness == pytest.approx(level / 255)


@pytest.mark.parametrize(
    ("confidence", "quality", "why"),
    [
        (0.9, GOOD, None),
        (0.55, GOOD, "ambiguous"),
        (0.9, replace(GOOD, noise=1.0), "noisy"),
        (0.9, replace(GOOD, noise=0.21), None),
        (0.9, replace(GOOD, blur=10.0), "blurred"),
        (0.75, replace(GOOD, brightness=0.1), "dark"),
        (0.9, replace(GOOD, eyes=0.1), "occluded"),
        (0.9, replace(GOOD, mouth=0.1), "occluded"),
        (0.9, replace(GOOD, mouth=0.1, noise=9.0), "noisy"),
        (0.999, replace(GOOD, size_px=10), "small"),
        (0.999, replace(GOOD, brightness=0.01), "dark"),
        (0.999, replace(GOOD, blur=1.0), "blurred"),
        (0.999, replace(GOOD, turn=0.36), "turned"),
        (0.999, replace(GOOD, turn=0.35), None),
    ],
)
def test_a_marked_answer_has_its_reason(confidence: float, quality: Quality, why: str | None) -> None:
    assert uncertainty(confidence, quality, Smoothing(), DOUBT, offset=0.5) == why


def test_the_risk_is_a_probability_by_its_formula() -> None:
    odds = 0.5 - math.log(0.8 / 0.2) + 2.0 * math.log(0.6 / 0.2)
    assert DOUBT.risk(0.5, 0.8, replace(GOOD, noise=0.6)) == pytest.approx(1 / (1 + math.exp(-odds)))


@given(
    st.floats(0, 1),
    st.floats(0, 1),
    st.builds(
        Quality,
        *(st.integers(1, 1000), st.floats(0, 1e5), st.floats(0, 1)),
        *(st.floats(0, 50), st.floats(0, 5), st.floats(0, 5)),
    ),
)
def test_more_confidence_is_never_more_risk(low: float, high: float, quality: Quality) -> None:
    low, high = sorted((low, high))
    assert 0 <= DOUBT.risk(0.0, high, quality) <= DOUBT.risk(0.0, low, quality) <= 1


@pytest.mark.parametrize("offset", [-MOST, MOST])
@pytest.mark.parametrize("at", [LEAST_LIMIT, MOST_LIMIT])
@pytest.mark.parametrize("weight", [0.0, MOST])
@pytest.mark.parametrize("measured", [0.0, 1e5])
def test_the_widest_metadata_give_a_probability(offset: float, at: float, weight: float, measured: float) -> None:
    limit = Limit(at, weight)
    doubt = Doubt((offset,), MOST, limit, limit, limit, limit, limit, max_risk=0.5)
    doubt.check([Expression.FEAR], "x")
    quality = Quality(1, measured, measured, noise=measured, eyes=measured, mouth=measured)
    for confidence in (0.0, 1.0):
        assert 0 <= doubt.risk(offset, confidence, quality) <= 1
    assert doubt.reason(quality)


@pytest.mark.parametrize("degrees", [0, 15, 30, 45, 60])
@pytest.mark.parametrize("tilt", [0, 20])
def test_the_turn_of_a_head_is_seen_in_its_landmarks(degrees: int, tilt: int) -> None:
    # A head of 63 mm from eye to eye, whose nose stands out by 28 mm, turned and then tilted.
    yaw, roll = math.radians(degrees), math.radians(tilt)
    points = [(-31.5, 0.0, 0.0), (31.5, 0.0, 0.0), (0.0, 35.0, 28.0)]
    flat = [(x * math.cos(yaw) + z * math.sin(yaw), y) for x, y, z in points]
    right, left, nose = (
        (x * math.cos(roll) - y * math.sin(roll), x * math.sin(roll) + y * math.cos(roll)) for x, y in flat
    )
    turn = turn_of(Landmarks(right, left, nose, ((0.0, 70.0),)))
    assert turn == pytest.approx(28 / 63 * math.tan(yaw), abs=1e-6)
    assert (turn > Smoothing().max_turn) == (degrees > 38)


def test_a_profile_whose_eyes_are_one_point_is_turned() -> None:
    assert turn_of(Landmarks((5.0, 5.0), (5.0, 5.0), (9.0, 9.0), ((9.0, 12.0),))) == math.inf
