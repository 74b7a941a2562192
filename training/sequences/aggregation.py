"""Frame aggregation at feature level: the features of a sequence's frames become one vector for a linear classifier.

Li & Deng, arXiv 1804.08348, section 4.2.1, and what it cites there. A sequence is an image set: its order does not
count, nor how many frames it has.

* ``mean``, ``max``: of each feature over the frames.
* ``covariance``: of the features over the frames, a point on the manifold of symmetric positive definite (SPD)
  matrices; the log-Euclidean metric makes that flat (Arsigny et al., SIAM J. Matrix Anal. Appl. 29, 2007).
* ``subspace``: the linear subspace that the frames span, by its projection matrix, whose Euclidean distance is the
  projection metric between subspaces (Hamm & Lee, ICML 2008).
* ``gaussian``: mean and covariance together, as the SPD matrix of one more row that stands for a Gaussian
  (Lovric et al., J. Multivariate Anal. 74, 2000), with the log-Euclidean metric.

The last three are those that Liu et al. (ICMI 2014) put together for expressions in the wild. Frames are L2-normalized
before, so that a frame's contrast does not decide how much it counts.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from edge_fer.errors import DataError

Kind: TypeAlias = Literal["mean", "max", "covariance", "subspace", "gaussian"]
KINDS: tuple[Kind, ...] = get_args(Kind)

RIDGE = 1e-2
"""Of the trace's mean on the diagonal of a covariance: fewer frames than features leave it singular."""
LEAST = 1e-8
"""Where all frames are the same there is no trace to take a part of."""
DIMENSIONS = 3
"""Of a subspace, at most; fewer where there are fewer frames."""

Frames = NDArray[np.floating]


def normalized(frames: Frames) -> NDArray[np.float64]:
    """Features, (frames, d), with an L2 norm of 1 in each frame; one of zeros stays so.

    Raises:
        DataError: there is no frame, or a feature is not a number.
    """
    if frames.ndim != 2 or 0 in frames.shape:
        raise DataError(f"A sequence has at least one frame with features (frames, d), not {frames.shape}.")
    if not np.isfinite(frames).all():
        raise DataError("A feature of a frame is not a number.")
    frames = frames.astype(np.float64)
    norms = np.linalg.norm(frames, axis=1, keepdims=True)
    return np.divide(frames, norms, out=np.zeros_like(frames), where=norms > 0)


def fixed_length(frames: Frames, length: int) -> NDArray[np.float64]:
    """As many vectors as asked for: frame averaging and frame expansion (Kahou et al., ICMI 2013, section 3.1).

    More frames are cut into equal parts in their order, and each part averaged; of fewer, each is repeated, in order.

    Args:
        frames: (frames, d), at least one.
        length: of the result, at least 1.

    Returns:
        (length, d).
    """
    count = len(frames)
    if count >= length:
        edges = np.arange(length + 1) * count // length
        parts = [frames[begin:end] for begin, end in pairwise(edges)]
        return np.array([part.mean(axis=0) for part in parts])
    return frames[np.arange(length) * count // length].astype(np.float64)


def describe(kind: Kind, frames: Frames) -> NDArray[np.float64]:
    """One vector of a sequence, float64 (k,), whose inner products are the kernel of its kind.

    Args:
        kind: see above.
        frames: features, (frames, d), in any order.

    Raises:
        DataError: see ``normalized``.
    """
    unit = normalized(frames)
    match kind:
        case "mean":
            return unit.mean(axis=0)
        case "max":
            return unit.max(axis=0)
        case "covariance":
            return _flat(_logarithm(_covariance(unit)))
        case "subspace":
            _, values, rows = np.linalg.svd(unit, full_matrices=False)
            kept = rows[: min(DIMENSIONS, int((values > values[0] * 1e-6).sum()))]
            return _flat(kept.T @ kept)
        case "gaussian":
            mean = unit.mean(axis=0)[:, np.newaxis]
            spd = np.block([[_covariance(unit) + mean @ mean.T, mean], [mean.T, np.ones((1, 1))]])
            return _flat(_logarithm(spd))


def _covariance(unit: NDArray[np.float64]) -> NDArray[np.float64]:
    """Positive definite, (d, d)."""
    centered = unit - unit.mean(axis=0)
    covariance = centered.T @ centered / len(unit)
    ridge = RIDGE * float(np.trace(covariance)) / len(covariance) + LEAST
    return covariance + ridge * np.eye(len(covariance))


def _logarithm(spd: NDArray[np.float64]) -> NDArray[np.float64]:
    """The matrix logarithm of a symmetric positive definite matrix."""
    values, vectors = np.linalg.eigh(spd)
    return (vectors * np.log(np.maximum(values, LEAST**2))) @ vectors.T


def _flat(symmetric: NDArray[np.float64]) -> NDArray[np.float64]:
    """The upper triangle, off-diagonal entries times the root of 2: inner products are those of the matrices."""
    rows, columns = np.triu_indices(len(symmetric))
    return symmetric[rows, columns] * np.where(rows == columns, 1.0, np.sqrt(2.0))
