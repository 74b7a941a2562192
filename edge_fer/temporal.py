"""From the predictions of single frames to an answer that does not flicker."""

from __future__ import annotations

import math

from edge_fer.bundle import Smoothing
from edge_fer.core import Expression, Prediction, Quality

_CIRCUMPLEX = {
    Expression.NEUTRAL: (0.0, 0.0),
    Expression.HAPPINESS: (0.9, 0.4),
    Expression.SURPRISE: (0.2, 0.8),
    Expression.SADNESS: (-0.8, -0.4),
    Expression.ANGER: (-0.6, 0.7),
    Expression.DISGUST: (-0.7, 0.3),
    Expression.FEAR: (-0.6, 0.8),
    Expression.CONTEMPT: (-0.6, 0.2),
}
"""Valence and arousal of each expression, -1 to 1: its place on Russell's circumplex (J. Pers. Soc. Psychol. 39, 1980),
read off by eye. A convention, not a measurement."""

LEAST = 1e-6
"""Against rounding of times, and against a hysteresis of 0."""


class ExpressionFilter:
    """What one face shows over time.

    Frame aggregation at decision level (Li & Deng, arXiv 1804.08348, section 4.2.1): an exponential mean of the
    probabilities over time, so that it does not depend on the frame rate. The reported expression changes when another
    has been more probable for a while, by the card's hysteresis for its dwell; by less, for longer in proportion, so
    that of two expressions that are nearly tied the more probable one is reported in the end. This is a cumulative sum
    test (Page, Biometrika 41, 1954) whose steps are capped.

    Args:
        smoothing: from the model's card.
    """

    def __init__(self, smoothing: Smoothing) -> None:
        self._smoothing = smoothing
        self._time_s = 0.0
        self._since_s = 0.0
        self._beaten_s = 0.0
        self.prediction: Prediction | None = None
        self.expression: Expression | None = None

    def update(self, raw: Prediction, time_s: float) -> None:
        """Take the prediction of one frame; time that does not advance counts as no time."""
        smoothing = self._smoothing
        if self.prediction is None or self.expression is None:
            self.prediction, self.expression = raw, raw.expression
            self._time_s = self._since_s = time_s
            return
        step_s = max(0.0, time_s - self._time_s)
        self._time_s = max(self._time_s, time_s)
        keep = math.exp(-step_s / smoothing.time_constant_s)
        old = self.prediction.probabilities
        mean = {label: keep * old[label] + (1 - keep) * new for label, new in raw.probabilities.items()}
        self.prediction = Prediction(mean)
        rival = self.prediction.expression
        lead = mean[rival] - mean[self.expression]
        # Rivals may take turns: what counts is by how much, and for how long, the expression has not been the answer.
        share = min(lead / max(smoothing.hysteresis, LEAST), 1.0)
        self._beaten_s = self._beaten_s + share * step_s if lead > 0 else 0.0
        if lead > 0 and self._beaten_s >= smoothing.dwell_s - LEAST:
            self.expression, self._since_s, self._beaten_s = rival, self._time_s, 0.0

    @property
    def stable_ms(self) -> float:
        """For how long the expression has been the same, in milliseconds of stream time."""
        return (self._time_s - self._since_s) * 1000


def doubt(confidence: float, quality: Quality, smoothing: Smoothing) -> str | None:
    """Why an answer is uncertain: "small", "blurred", "dark" or "ambiguous"; None if it is not."""
    if quality.size_px < smoothing.min_size_px:
        return "small"
    if quality.brightness < smoothing.min_brightness:
        return "dark"
    if quality.blur < smoothing.min_blur:
        return "blurred"
    return "ambiguous" if confidence < smoothing.min_confidence else None


def intensity(prediction: Prediction, expression: Expression) -> float:
    """How strongly a face shows an expression, 0-1: its probability over its own and neutral's.

    A proxy: a model that is unsure between faint and strong says so by putting some probability on neutral.
    Neutral itself has no intensity.
    """
    if expression is Expression.NEUTRAL:
        return 0.0
    own, neutral = prediction.probabilities[expression], prediction.probabilities.get(Expression.NEUTRAL, 0.0)
    return own / (own + neutral) if own + neutral > 0 else 0.0


def valence_arousal(prediction: Prediction) -> tuple[float, float]:
    """Expected place on the circumplex, -1 to 1 each: the mean of the expressions' places by their probabilities.

    A proxy: no annotated valence or arousal was ever seen in training.
    """
    places = [(p, _CIRCUMPLEX[label]) for label, p in prediction.probabilities.items()]
    return sum(p * valence for p, (valence, _) in places), sum(p * arousal for p, (_, arousal) in places)
