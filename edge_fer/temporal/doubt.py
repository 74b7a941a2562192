"""When not to rely on an answer, and why: selective classification (Geifman & El-Yaniv, NeurIPS 2017).

How probable it is that an answer is wrong is estimated from what was answered, how sure the model is, and how well the
face can be seen: a network is as sure of noise as of faces, and the crop alone shows which it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edge_fer.core import Expression, Quality
from edge_fer.errors import ConfigError
from edge_fer.temporal.smoothing import Smoothing

LEAST = 1e-3
"""Measures below it count as this: their logarithm is taken."""
MOST_CONFIDENT = 0.999
"""Above it, confidence says no more."""
MOST = 50.0
"""Of an offset, the slope and a weight; fitted ones are about 1, and far larger ones would overflow ``math.exp``."""
LEAST_LIMIT, MOST_LIMIT = 1e-6, 1e6
"""Of a limit: clean faces lie well within."""


@dataclass(frozen=True)
class Limit:
    """A measure of quality, and what it says where it is worse than that of nearly all clean faces.

    Attributes:
        at: the limit, in the measure's own unit.
        weight: what the log-odds of a wrong answer grow by for a measure that is worse by a factor of e.
    """

    at: float
    weight: float


@dataclass(frozen=True)
class Doubt:
    """A part of a model's metadata: a logistic regression of wrong answers, and the risk that is still taken.

    The log-odds that an answer is wrong are offset - slope * log-odds of its confidence + the sum of weight * log of
    how many times the limit is passed, over ``Quality``'s measures.

    Attributes:
        offsets: of the labels of the decision rule, in their order.
        slope: of the confidence.
        noise: of ``Quality.noise``, bad above its limit;
        blur: of ``Quality.blur``, bad below, as all that follow;
        brightness: of ``Quality.brightness``;
        eyes: of ``Quality.eyes``;
        mouth: of ``Quality.mouth``.
        max_risk: probability of a wrong answer, 0-1, above which it is marked.
    """

    offsets: tuple[float, ...]
    slope: float
    noise: Limit
    blur: Limit
    brightness: Limit
    eyes: Limit
    mouth: Limit
    max_risk: float

    def check(self, labels: Sequence[Expression], origin: str) -> None:
        """See whether it fits the decision rule.

        Args:
            labels: of the rule; empty where there is none.
            origin: file name for messages.

        Raises:
            ConfigError: it does not.
        """
        if len(self.offsets) != len(labels):
            raise ConfigError(f"{origin}: doubt.offsets must be a number for each label of the decision rule.")
        limits = {name: getattr(self, name) for name, _ in _MEASURES}
        for name, limit in limits.items():
            if not (LEAST_LIMIT <= limit.at <= MOST_LIMIT and 0 <= limit.weight <= MOST):
                raise ConfigError(
                    f"{origin}: doubt.{name} must have a limit from {LEAST_LIMIT:g} to {MOST_LIMIT:g} and a weight "
                    f"from 0 to {MOST:g}."
                )
        if not (all(abs(one) <= MOST for one in self.offsets) and 0 <= self.slope <= MOST and 0 < self.max_risk <= 1):
            raise ConfigError(
                f"{origin}: doubt must have offsets from -{MOST:g} to {MOST:g}, a slope from 0 to {MOST:g}, and a "
                "max_risk above 0 and up to 1."
            )

    def risk(self, offset: float, confidence: float, quality: Quality) -> float:
        """Probability that an answer is wrong, 0-1.

        Args:
            offset: of what was answered.
            confidence: of it, 0-1.
            quality: of the face.
        """
        odds = offset - self.slope * log_odds(confidence) + sum(one for _, one in self._passed(quality))
        return 1 / (1 + math.exp(-odds))

    def reason(self, quality: Quality) -> str:
        """What an answer that is marked suffers from most: "noisy", "blurred", "dark", "occluded"; else "ambiguous"."""
        worst, most = max(self._passed(quality), key=lambda one: one[1])
        return worst if most > 0 else "ambiguous"

    def _passed(self, quality: Quality) -> Iterator[tuple[str, float]]:
        """What each measure adds to the log-odds, by the word for it."""
        for name, word in _MEASURES:
            limit: Limit = getattr(self, name)
            yield word, limit.weight * passed(name, getattr(quality, name), limit.at)


_MEASURES = (
    ("noise", "noisy"),
    ("blur", "blurred"),
    ("brightness", "dark"),
    ("eyes", "occluded"),
    ("mouth", "occluded"),
)


def passed(measure: str, value: float, limit: float) -> float:
    """Logarithm of how many times a limit is passed, at least 0. Low noise is good, and high values of the rest."""
    worse = max(value, LEAST) / limit if measure == "noise" else limit / max(value, LEAST)
    return max(0.0, math.log(worse))


def log_odds(confidence: float) -> float:
    """Of a confidence, 0-1."""
    bounded = min(max(confidence, LEAST), MOST_CONFIDENT)
    return math.log(bounded / (1 - bounded))


def uncertainty(
    confidence: float, quality: Quality, smoothing: Smoothing, doubt: Doubt | None = None, offset: float = 0.0
) -> str | None:
    """Why an answer is uncertain, in a word; None if it is not.

    What is too small, dark, blurred or turned away is so whatever the model says. The rest is for ``doubt``, or in
    bundles that have none for the confidence alone.

    Args:
        confidence: of the answer, 0-1.
        quality: of the face.
        smoothing: of the model's metadata.
        doubt: likewise.
        offset: what ``doubt`` says of the expression that is the answer.
    """
    if quality.size_px < smoothing.min_size_px:
        return "small"
    if quality.brightness < smoothing.min_brightness:
        return "dark"
    if quality.blur < smoothing.min_blur:
        return "blurred"
    if quality.turn is not None and quality.turn > smoothing.max_turn:
        return "turned"
    if doubt is None:
        return "ambiguous" if confidence < smoothing.min_confidence else None
    return doubt.reason(quality) if doubt.risk(offset, confidence, quality) > doubt.max_risk else None
