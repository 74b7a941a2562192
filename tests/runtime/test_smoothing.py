"""One steady answer from the predictions of single frames."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_fer.core import Expression, Prediction, Quality
from edge_fer.temporal.affect import intensity, valence_arousal
from edge_fer.temporal.doubt import uncertainty
from edge_fer.temporal.smoothing import ExpressionFilter, Smoothing

CALM = Prediction({Expression.NEUTRAL: 0.9, Expression.HAPPINESS: 0.1})
GLAD = Prediction({Expression.NEUTRAL: 0.1, Expression.HAPPINESS: 0.9})
PLAIN = Smoothing(time_constant_s=0.2, hysteresis=0.1, dwell_s=0.1)


def answers(glad: list[bool], rate_hz: float = 30.0, smoothing: Smoothing = PLAIN) -> list[Expression | None]:
    steady, seen = ExpressionFilter(smoothing), []
    for frame, is_glad in enumerate(glad):
        steady.update(GLAD if is_glad else CALM, frame / rate_hz)
        seen.append(steady.expression)
    return seen


def test_the_mean_approaches_the_new_at_the_time_constant() -> None:
    steady = ExpressionFilter(PLAIN)
    steady.update(CALM, 0.0)
    steady.update(GLAD, 0.2)
    assert steady.prediction is not None
    assert steady.prediction.probabilities[Expression.NEUTRAL] == pytest.approx(0.1 + 0.8 / math.e)


def test_the_mean_does_not_depend_on_the_frame_rate() -> None:
    confidences = []
    for rate_hz in (10, 60):
        steady = ExpressionFilter(PLAIN)
        steady.update(CALM, 0.0)
        for frame in range(1, rate_hz + 1):
            steady.update(GLAD, frame / rate_hz)
        assert steady.prediction is not None
        confidences.append(steady.prediction.confidence)
    assert confidences[0] == pytest.approx(confidences[1])


def test_one_wrong_frame_changes_nothing() -> None:
    assert set(answers([frame == 20 for frame in range(60)])) == {Expression.NEUTRAL}


def test_a_change_is_reported_within_four_tenths_of_a_second() -> None:
    seen = answers([frame >= 30 for frame in range(60)])
    assert 30 < seen.index(Expression.HAPPINESS) <= 30 + 0.4 * 30


def test_flicker_between_two_is_no_change() -> None:
    assert set(answers([frame % 2 == 1 for frame in range(300)])) == {Expression.NEUTRAL}


def test_an_answer_that_is_beaten_goes_in_time_even_where_its_rivals_take_turns() -> None:
    sad = {Expression.NEUTRAL: 0.0, Expression.SADNESS: 0.6, Expression.FEAR: 0.4}
    afraid = {Expression.NEUTRAL: 0.0, Expression.SADNESS: 0.4, Expression.FEAR: 0.6}
    steady = ExpressionFilter(Smoothing(time_constant_s=0.01, hysteresis=0.1, dwell_s=0.1))
    steady.update(Prediction({Expression.NEUTRAL: 1.0, Expression.SADNESS: 0.0, Expression.FEAR: 0.0}), 0.0)
    for frame in range(1, 6):
        steady.update(Prediction(sad if frame % 2 else afraid), frame / 30)
    assert steady.expression in {Expression.SADNESS, Expression.FEAR}


@pytest.mark.parametrize(("lead", "after_s"), [(0.5, 0.2), (0.2, 0.2), (0.1, 0.4), (0.02, 2.0)])
def test_the_smaller_the_lead_the_longer_it_takes(lead: float, after_s: float) -> None:
    steady = ExpressionFilter(Smoothing(time_constant_s=1e-9, hysteresis=0.2, dwell_s=0.2))
    steady.update(CALM, 0.0)
    other = Prediction({Expression.NEUTRAL: 0.5 - lead / 2, Expression.HAPPINESS: 0.5 + lead / 2})
    times_s = [frame / 30 for frame in range(1, 100)]
    changed = []
    for time_s in times_s:
        steady.update(other, time_s)
        changed.append(steady.expression is Expression.HAPPINESS)
    assert times_s[changed.index(True)] == pytest.approx(after_s, abs=0.034)
    assert changed == sorted(changed)  # and stays


@pytest.mark.parametrize("hysteresis", [0.0, 0.2])
def test_two_that_are_even_do_not_take_turns(hysteresis: float) -> None:
    steady = ExpressionFilter(Smoothing(time_constant_s=0.2, hysteresis=hysteresis, dwell_s=0.1))
    for frame in range(100):
        steady.update(Prediction({Expression.NEUTRAL: 0.5, Expression.HAPPINESS: 0.5}), frame / 30)
        assert steady.expression is Expression.NEUTRAL


def test_stable_ms_counts_from_the_change() -> None:
    steady = ExpressionFilter(PLAIN)
    for frame in range(31):
        steady.update(CALM, frame / 30)
    assert steady.stable_ms == pytest.approx(1000)
    for frame in range(31, 91):
        steady.update(GLAD, frame / 30)
    assert steady.expression is Expression.HAPPINESS
    assert 1500 < steady.stable_ms < 2000


@given(st.lists(st.tuples(st.floats(0.01, 0.99), st.floats(-5, 100)), min_size=1, max_size=30))
def test_probabilities_stay_probabilities_even_when_time_runs_backwards(frames: list[tuple[float, float]]) -> None:
    steady = ExpressionFilter(Smoothing())
    for happy, time_s in frames:
        steady.update(Prediction({Expression.NEUTRAL: 1 - happy, Expression.HAPPINESS: happy}), time_s)
        assert steady.prediction is not None
        assert sum(steady.prediction.probabilities.values()) == pytest.approx(1)
        assert steady.stable_ms >= 0


@pytest.mark.parametrize(
    ("confidence", "quality", "why"),
    [
        (0.9, Quality(100, 50.0, 0.5), None),
        (0.9, Quality(23, 50.0, 0.5), "small"),
        (0.9, Quality(100, 50.0, 0.05), "dark"),
        (0.9, Quality(100, 1.0, 0.5), "blurred"),
        (0.3, Quality(100, 50.0, 0.5), "ambiguous"),
        (0.3, Quality(10, 1.0, 0.0), "small"),
    ],
)
def test_doubt_has_a_reason(confidence: float, quality: Quality, why: str | None) -> None:
    assert uncertainty(confidence, quality, Smoothing()) == why


def test_what_is_just_good_enough_is_not_doubted() -> None:
    limits = Smoothing()
    least = Quality(round(limits.min_size_px), limits.min_blur, limits.min_brightness)
    assert uncertainty(limits.min_confidence, least, limits) is None


def test_the_first_frame_may_have_any_time() -> None:
    steady = ExpressionFilter(PLAIN)
    steady.update(CALM, 50.0)
    assert (steady.expression, steady.prediction, steady.stable_ms) == (Expression.NEUTRAL, CALM, 0.0)
    steady.update(GLAD, 50.2)
    assert steady.prediction.probabilities[Expression.NEUTRAL] == pytest.approx(0.1 + 0.8 / math.e)


def test_after_a_change_the_next_one_takes_as_long() -> None:
    steady = ExpressionFilter(Smoothing(time_constant_s=1e-9, hysteresis=0.2, dwell_s=0.2))
    seen = []
    for frame in range(30):
        steady.update(CALM if frame < 5 or frame >= 15 else GLAD, frame / 20)
        seen.append(steady.expression is Expression.HAPPINESS)
    # A lead counts from the frame before that shows it: four frames of 0.05 s are the dwell of 0.2 s.
    assert seen == [False] * 8 + [True] * 10 + [False] * 12


def test_a_lead_that_ends_before_its_time_is_forgotten() -> None:
    steady = ExpressionFilter(Smoothing(time_constant_s=1e-9, hysteresis=0.2, dwell_s=0.2))
    for frame in range(60):
        steady.update(CALM if frame % 4 == 0 else GLAD, frame / 20)  # never ahead for more than 0.15 s
        assert steady.expression is Expression.NEUTRAL


def test_time_that_runs_backwards_counts_as_none() -> None:
    steady = ExpressionFilter(PLAIN)
    steady.update(CALM, 1.0)
    steady.update(CALM, 2.0)
    steady.update(GLAD, 1.5)
    assert steady.prediction == CALM
    assert steady.stable_ms == pytest.approx(1000)


def test_intensity_is_measured_against_neutral() -> None:
    mixed = Prediction({Expression.NEUTRAL: 0.2, Expression.ANGER: 0.6, Expression.FEAR: 0.2})
    assert intensity(mixed, Expression.ANGER) == pytest.approx(0.75)
    assert intensity(mixed, Expression.NEUTRAL) == 0
    assert intensity(Prediction({Expression.ANGER: 0.0, Expression.FEAR: 1.0}), Expression.ANGER) == 0
    # A model that does not know neutral has nothing to measure against.
    assert intensity(Prediction({Expression.ANGER: 0.4, Expression.FEAR: 0.6}), Expression.ANGER) == 1


def test_valence_and_arousal_are_means_of_the_circumplex() -> None:
    assert valence_arousal(Prediction({Expression.NEUTRAL: 1.0})) == (0.0, 0.0)
    happy, arousal = valence_arousal(GLAD)
    assert (happy, arousal) == pytest.approx((0.81, 0.36))
    assert valence_arousal(Prediction({Expression.SADNESS: 1.0}))[0] < 0


@pytest.mark.parametrize(
    ("expression", "place"),
    [
        (Expression.NEUTRAL, (0.0, 0.0)),
        (Expression.HAPPINESS, (0.9, 0.4)),
        (Expression.SURPRISE, (0.2, 0.8)),
        (Expression.SADNESS, (-0.8, -0.4)),
        (Expression.ANGER, (-0.6, 0.7)),
        (Expression.DISGUST, (-0.7, 0.3)),
        (Expression.FEAR, (-0.6, 0.8)),
        (Expression.CONTEMPT, (-0.6, 0.2)),
    ],
)
def test_places_on_the_circumplex_do_not_change(expression: Expression, place: tuple[float, float]) -> None:
    """Golden: when this fails, the same face has another valence in the events of this version than in older ones."""
    assert valence_arousal(Prediction({expression: 1.0})) == place
    assert math.hypot(*place) <= 1
