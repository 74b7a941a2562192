"""Intensity by ranking: no set says how strong an expression is, but of a posed sequence it is known that it grows.

A linear regressor learns from the order of frames alone (RankSVM: Herbrich et al., ICANN 1999; Joachims, KDD 2002). It
stands for all expressions: of each later frame less an earlier one it is to be positive, so that two sequences are
never compared.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.svm import LinearSVC

from edge_fer.errors import DataError


def differences(sequences: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Each later frame less each earlier one of its sequence, (pairs, d).

    Args:
        sequences: features of ordered frames, (frames, d) each; one of a single frame teaches nothing.

    Raises:
        DataError: no sequence has two frames.
    """
    pairs = [late - early for frames in sequences for early, late in itertools.combinations(frames, 2)]
    if not pairs:
        raise DataError("An order wants sequences of two frames or more.")
    return np.array(pairs)


def fit_ranking(sequences: Sequence[NDArray[np.float64]], c: float = 0.01) -> NDArray[np.float64]:
    """Weights, (d,), whose product with a frame's features grows along a sequence.

    Args:
        sequences: see ``differences``.
        c: of the SVM: less is smoother.

    Raises:
        DataError: see ``differences``.
    """
    later = differences(sequences)
    # Both signs, or there would be one class; through the origin, for an order has no offset.
    signs = np.repeat([1, -1], len(later))
    machine = LinearSVC(C=c, fit_intercept=False, random_state=0).fit(np.concatenate([later, -later]), signs)
    weights: NDArray[np.float64] = machine.coef_[0]
    return weights


class Order(NamedTuple):
    """How well scores follow the order of frames.

    Attributes:
        pairs: fraction of the pairs of a sequence whose later frame has the higher score; a tie counts half.
        monotone: fraction of the sequences whose scores grow from frame to frame.
    """

    pairs: float
    monotone: float


def order_of(scores: Sequence[NDArray[np.float64]]) -> Order:
    """Compare scores with the order of frames.

    Args:
        scores: of the frames of each sequence, in their order; those of single frames do not count.

    Raises:
        DataError: no sequence has two frames.
    """
    steps = differences([one[:, np.newaxis] for one in scores])[:, 0]
    several = [one for one in scores if len(one) > 1]
    return Order(
        float(((steps > 0) + (steps == 0) / 2).mean()), float(np.mean([(np.diff(one) > 0).all() for one in several]))
    )
