"""Compound expressions: two expressions on one face at once (Du, Tao & Martinez, PNAS 111, 2014)."""

from __future__ import annotations

from collections.abc import Mapping

from edge_fer.core import Expression as E

COMPOUNDS: Mapping[frozenset[E], str] = {
    frozenset({E.HAPPINESS, E.SURPRISE}): "happily surprised",
    frozenset({E.HAPPINESS, E.DISGUST}): "happily disgusted",
    frozenset({E.SADNESS, E.FEAR}): "sadly fearful",
    frozenset({E.SADNESS, E.ANGER}): "sadly angry",
    frozenset({E.SADNESS, E.SURPRISE}): "sadly surprised",
    frozenset({E.SADNESS, E.DISGUST}): "sadly disgusted",
    frozenset({E.FEAR, E.ANGER}): "fearfully angry",
    frozenset({E.FEAR, E.SURPRISE}): "fearfully surprised",
    frozenset({E.ANGER, E.SURPRISE}): "angrily surprised",
    frozenset({E.ANGER, E.DISGUST}): "angrily disgusted",
    frozenset({E.DISGUST, E.SURPRISE}): "disgustedly surprised",
    frozenset({E.FEAR, E.DISGUST}): "fearfully disgusted",
    frozenset({E.HAPPINESS, E.SADNESS}): "happily sad",
    frozenset({E.HAPPINESS, E.FEAR}): "happily fearful",
}
"""Names by the pair: RAF-DB's eleven first, then what EmotioNet has beyond them."""

LEAST = 0.3
"""Probability that both must have: FER+'s rule for several labels (Barsoum et al., arXiv 1608.01041,
section 3): a label counts that at least 30 % of the raters chose."""


def compound_of(probabilities: Mapping[E, float], least: float = LEAST) -> str | None:
    """What two expressions a face shows at once.

    Args:
        probabilities: calibrated, of all expressions.
        least: probability that each of the two must have.

    Returns:
        The name of the two most probable ones; None where they have none, as with neutral, or one is below ``least``.
    """
    first, second = sorted(probabilities, key=probabilities.__getitem__, reverse=True)[:2]
    return COMPOUNDS.get(frozenset({first, second})) if probabilities[second] >= least else None
