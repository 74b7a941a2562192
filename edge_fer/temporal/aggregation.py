"""Frame aggregation at decision level: the probabilities of a track's frames become one distribution.

Li & Deng, arXiv 1804.08348, section 4.2.1. What the literature counts in frames is counted in seconds here, so that it
means the same at any frame rate and where frames are dropped.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Literal, Protocol, TypeAlias

from edge_fer.core import Expression

LEAST_S = 1e-6
"""A time constant of 0 keeps nothing."""

Probabilities: TypeAlias = Mapping[Expression, float]
Kind: TypeAlias = Literal["exponential", "mean", "max", "majority"]


class Aggregator(Protocol):
    """Takes the probabilities of one frame after another and gives those of all."""

    def update(self, new: Probabilities, step_s: float) -> Probabilities:
        """The distribution after a frame.

        Args:
            new: of the frame; they sum to 1.
            step_s: since the last frame, 0 or more, in seconds of stream time.
        """
        ...


class ExponentialMean:
    """An exponential mean over time.

    Args:
        time_constant_s: after which an old frame's weight has fallen to 1/e.
    """

    def __init__(self, time_constant_s: float) -> None:
        self._time_constant_s = max(time_constant_s, LEAST_S)
        self._mean: Probabilities = {}

    def update(self, new: Probabilities, step_s: float) -> Probabilities:
        """See ``Aggregator``."""
        keep = math.exp(-step_s / self._time_constant_s) if self._mean else 0.0
        old = self._mean or new
        self._mean = {label: keep * old[label] + (1 - keep) * p for label, p in new.items()}
        return self._mean


class Window:
    """The frames of the last seconds, the newest always among them.

    * ``mean``: of their probabilities (average pooling);
    * ``max``: of each expression the highest probability, scaled to sum to 1 (max pooling);
    * ``majority``: the fraction of frames in which an expression was the most probable one.

    Args:
        kind: which.
        length_s: frames that are older do not count.
    """

    def __init__(self, kind: Literal["mean", "max", "majority"], length_s: float) -> None:
        self._kind, self._length_s = kind, length_s
        self._frames: deque[tuple[float, Probabilities]] = deque()
        self._now_s = 0.0

    def update(self, new: Probabilities, step_s: float) -> Probabilities:
        """See ``Aggregator``."""
        self._now_s += step_s
        if self._kind == "majority":
            most = max(new, key=new.__getitem__)
            new = {label: float(label is most) for label in new}
        self._frames.append((self._now_s, new))
        while self._frames[0][0] < self._now_s - self._length_s:
            self._frames.popleft()
        pool = max if self._kind == "max" else sum
        pooled = {label: pool(frame[label] for _, frame in self._frames) for label in new}
        whole = sum(pooled.values())
        return {label: p / whole for label, p in pooled.items()}


def make_aggregator(kind: Kind, length_s: float) -> Aggregator:
    """The aggregator of a new track.

    Args:
        kind: which.
        length_s: time constant of the exponential mean, or length of the window.
    """
    return ExponentialMean(length_s) if kind == "exponential" else Window(kind, length_s)
