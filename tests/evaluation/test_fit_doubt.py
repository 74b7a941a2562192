"""Fitting doubt: risk and coverage by definition, and a threshold that keeps what it promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_fer.core import Quality
from edge_fer.temporal.doubt import uncertainty
from edge_fer.temporal.smoothing import Smoothing
from evaluation import doubt
from evaluation.doubt import CLEAN, Answers


def answers(noise: float, error: float, n: int = 2000, seed: int = 0) -> Answers:
    """Faces with so much noise on average, whose confidence tells nothing of the errors that noise adds."""
    chance = np.random.default_rng(seed)
    confidence = chance.uniform(0.4, 0.99, n)
    wrong = (chance.random(n) > confidence) | (chance.random(n) < error)
    quality = np.stack(
        [noise * chance.uniform(0.8, 1.2, n), chance.uniform(500, 900, n), *chance.uniform(0.5, 0.9, (3, n))], axis=1
    )
    return Answers(chance.integers(0, 2, n), confidence, wrong, quality)


def test_risk_coverage_by_hand() -> None:
    wrong = np.array([True, False, False, True])
    risk = np.array([0.9, 0.1, 0.2, 0.15])
    assert doubt.risk_coverage(wrong, risk) == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    assert doubt.wrong_left(wrong, risk, 0.75) == 0.5
    assert doubt.wrong_left(wrong, risk, 0.25) == 0.0


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=40))
def test_the_last_point_of_a_curve_is_the_error(pairs: list[tuple[bool, float]]) -> None:
    wrong, risk = np.array([one for one, _ in pairs]), np.array([one for _, one in pairs])
    curve = doubt.risk_coverage(wrong, risk)
    assert curve[-1] == pytest.approx(wrong.mean())
    assert ((curve >= 0) & (curve <= 1)).all()


def test_what_is_fitted_answers_clean_faces_and_marks_noise() -> None:
    given_ = {CLEAN: answers(0.1, 0.0), "noise": answers(0.5, 0.5, seed=1)}
    found = doubt.fit_doubt(given_, 2)
    clean, noisy = (doubt.risks(found, one) <= found.max_risk for one in given_.values())
    assert doubt.ANSWERED <= clean.mean() < doubt.ANSWERED + 0.01
    assert doubt.ANSWERED_CORRUPTED <= noisy.mean() < 0.9
    assert found.noise.weight > 10 * found.blur.weight
    assert given_["noise"].wrong[noisy].mean() < given_["noise"].wrong.mean() - 0.05


def test_the_device_reckons_as_the_fit_does() -> None:
    given_ = {CLEAN: answers(0.1, 0.0), "noise": answers(0.5, 0.5, seed=1)}
    found = doubt.fit_doubt(given_, 2)
    rows = given_["noise"]
    expected = doubt.risks(found, rows)
    for place in range(50):
        noise, blur, brightness, eyes, mouth = rows.quality[place].tolist()
        quality = Quality(100, blur, brightness, noise, eyes, mouth)
        offset, confidence = found.offsets[rows.answer[place]], float(rows.confidence[place])
        assert found.risk(offset, confidence, quality) == pytest.approx(expected[place], abs=1e-9)
        marked = uncertainty(confidence, quality, Smoothing(), found, offset) is not None
        assert marked == (expected[place] > found.max_risk)


def test_figures_are_cross_fitted_and_printable() -> None:
    given_ = {CLEAN: answers(0.1, 0.0), "noise": answers(0.5, 0.5, seed=1)}
    figures = doubt.measured(given_, np.arange(2000) % 3, 2)
    assert figures["conditions"][CLEAN]["answered"] == pytest.approx(doubt.ANSWERED, abs=0.02)
    assert figures["wrong_left_at_90"] < 0.9
    assert figures["curve"][-1] == pytest.approx(given_[CLEAN].wrong.mean(), abs=1e-4)
    doubt.table(figures)
