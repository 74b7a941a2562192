"""From the predictions of single frames to an answer that does not flicker."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from edge_fer.core import Expression, Prediction
from edge_fer.temporal.affect import IntensitySpec
from edge_fer.temporal.aggregation import LEAST_S, Kind, Probabilities, make_aggregator

LEAST = 1e-6
"""Against rounding of times, and against a hysteresis of 0."""


@dataclass(frozen=True)
class Smoothing:
    """A part of a model's metadata: how predictions of a track become one steady answer; see ``ExpressionFilter``.

    Attributes:
        time_constant_s: of the exponential mean of the probabilities; length of the window of another aggregation.
        hysteresis: how much more probable than the reported expression another one must be to replace it
        dwell_s: after this time; with a smaller lead it takes longer, in proportion.
        min_confidence: below it the answer of a bundle that has no ``Doubt`` is marked uncertain.
        min_size_px: so is that of a smaller face, in every bundle,
        min_blur: of one with a smaller variance of the Laplacian,
        min_brightness: of a darker one, 0-1,
        max_turn: and of one that is turned further away, see ``core.Quality.turn``.
        aggregation: how the frames' probabilities become one distribution, see ``temporal.aggregation``.
    """

    time_constant_s: float = 0.17
    hysteresis: float = 0.2
    dwell_s: float = 0.1
    min_confidence: float = 0.4
    min_size_px: float = 24.0
    min_blur: float = 5.0
    min_brightness: float = 0.08
    max_turn: float = 0.35
    aggregation: Kind = "exponential"


class ExpressionFilter:
    """What one face shows over time.

    Frame aggregation at decision level (``temporal.aggregation``): by default an exponential mean of the
    probabilities over time, so that it does not depend on the frame rate. The reported expression changes when another
    has been more probable for a while, by the hysteresis for the dwell; by less, for longer in proportion, so that of
    two expressions that are nearly tied the more probable one is reported in the end. This is a cumulative sum test
    (Page, Biometrika 41, 1954) whose steps are capped.

    Args:
        smoothing: from the model's metadata.
        aggregate: what takes the place of its aggregation: the recurrent head of a bundle that has one, with the state
            of this face (``TfliteClassifier.new_aggregate``).
        intensity: from the model's metadata. It is averaged over time with the time constant.

    Attributes:
        prediction: over time; None before the first frame.
        expression: what is reported.
    """

    def __init__(
        self,
        smoothing: Smoothing,
        aggregate: Callable[[Prediction, float], Probabilities] | None = None,
        intensity: IntensitySpec | None = None,
    ) -> None:
        self._smoothing = smoothing
        aggregator = make_aggregator(smoothing.aggregation, smoothing.time_constant_s)
        self._aggregate = aggregate or (lambda raw, step_s: aggregator.update(raw.probabilities, step_s))
        self._intensity_spec = intensity
        self._intensity: float | None = None
        self._time_s = 0.0
        self._since_s = 0.0
        self._beaten_s = 0.0
        self.prediction: Prediction | None = None
        self.expression: Expression | None = None

    def update(self, raw: Prediction, time_s: float) -> None:
        """Take the prediction of one frame; time that does not advance counts as no time."""
        smoothing = self._smoothing
        if self.prediction is None or self.expression is None:
            self.prediction = Prediction(self._aggregate(raw, 0.0))
            self._intensify(raw, 0.0)
            self.expression = self.prediction.expression
            self._time_s = self._since_s = time_s
            return
        step_s = max(0.0, time_s - self._time_s)
        self._time_s = max(self._time_s, time_s)
        mean = self._aggregate(raw, step_s)
        self._intensify(raw, step_s)
        self.prediction = Prediction(mean)
        rival = self.prediction.expression
        lead = mean[rival] - mean[self.expression]
        # Rivals may take turns: what counts is by how much, and for how long, the expression has not been the answer.
        share = min(lead / max(smoothing.hysteresis, LEAST), 1.0)
        self._beaten_s = self._beaten_s + share * step_s if lead > 0 else 0.0
        if lead > 0 and self._beaten_s >= smoothing.dwell_s - LEAST:
            self.expression, self._since_s, self._beaten_s = rival, self._time_s, 0.0

    def _intensify(self, raw: Prediction, step_s: float) -> None:
        if self._intensity_spec is None or raw.embedding is None:
            return
        new = self._intensity_spec.of(raw.embedding)
        keep = math.exp(-step_s / max(self._smoothing.time_constant_s, LEAST_S))
        self._intensity = new if self._intensity is None else keep * self._intensity + (1 - keep) * new

    @property
    def intensity(self) -> float | None:
        """How strongly the face shows the expression, 0-1, 0 for neutral; None where the bundle does not tell."""
        return 0.0 if self._intensity is not None and self.expression is Expression.NEUTRAL else self._intensity

    @property
    def stable_ms(self) -> float:
        """For how long the expression has been the same, in milliseconds of stream time."""
        return (self._time_s - self._since_s) * 1000
