"""Intensity, valence and arousal: by a bundle's regressor, or worked out from the probabilities of expressions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_fer.core import Expression, Prediction
from edge_fer.errors import ConfigError

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


@dataclass(frozen=True)
class IntensitySpec:
    """A part of a model's metadata: how strongly a face shows an expression, from its embedding.

    A ranking regressor (RankSVM: Herbrich et al., ICANN 1999): it learned from the order of frames alone, so that
    what grows from frame to frame of one face means something, and the number itself is a convention: neutral faces
    have 0.1 in the median, posed peaks 0.9.

    Attributes:
        weights: of the embedding in real units.
        offset: the log-odds of the intensity are their product plus this.
    """

    weights: tuple[float, ...]
    offset: float

    def check(self, origin: str) -> None:
        """See whether it can be used.

        Args:
            origin: file name for messages.

        Raises:
            ConfigError: a value is no number.
        """
        if not self.weights or not all(map(math.isfinite, (*self.weights, self.offset))):
            raise ConfigError(f"{origin}: intensity must have a number for each of the embedding, and an offset.")

    def of(self, embedding: NDArray[np.float32]) -> float:
        """Intensity of a frame, 0-1, from its embedding, float32 (n,) in real units."""
        log_odds = float(embedding @ np.asarray(self.weights, np.float32)) + self.offset
        return 0.5 + 0.5 * math.tanh(log_odds / 2)


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
