"""Intensity, valence and arousal, worked out from the probabilities of expressions."""

from __future__ import annotations

from edge_fer.core import Expression, Prediction

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
