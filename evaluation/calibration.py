"""Is confidence frequency? Reliability, its error, and the temperature that mends it (Guo et al., arXiv 1706.04599)."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss

from datasets.core import Dataset, truth_for
from edge_fer.model.spec import Head

BINS = 15


def reliability(
    probabilities: NDArray[np.float32], labels: NDArray[np.int64], bins: int = BINS
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Images, mean confidence and accuracy of each of equally wide bins of confidence; 0 in empty bins.

    Guo et al., section 2. A confidence on a border belongs to the lower bin.

    Args:
        probabilities: float32 (n, classes), n > 0.
        labels: int64 (n,), the truth.
        bins: how many.
    """
    confidences = probabilities.max(axis=1).astype(np.float64)
    hits = probabilities.argmax(axis=1) == labels
    inner_edges = np.linspace(0, 1, bins + 1)[1:-1]
    count = np.bincount(np.searchsorted(inner_edges, confidences), minlength=bins)
    confidence, accuracy = np.zeros(bins), np.zeros(bins)
    # scikit-learn leaves empty bins out, and does not tell how many images the others hold.
    accuracy[count > 0], confidence[count > 0] = calibration_curve(hits, confidences, n_bins=bins)
    return count, confidence, accuracy


def expected_calibration_error(
    probabilities: NDArray[np.float32], labels: NDArray[np.int64], bins: int = BINS
) -> float:
    """Mean distance of confidence from accuracy over the bins, weighted by images, 0-1 (Guo et al., eq. 3)."""
    count, confidence, accuracy = reliability(probabilities, labels, bins)
    return float((count * np.abs(confidence - accuracy)).sum() / count.sum())


def fit_temperature(head: Head, logits: NDArray[np.float32], data: Dataset) -> Head:
    """The head with the temperature that gives its labels the highest likelihood on the data (Guo et al., eq. 9).

    Args:
        head: of the model.
        logits: float32 (n, labels of the head).
        data: the n rows; without a label of the head it stays as it is.
    """
    labels = truth_for(data, head)
    known = labels >= 0
    if not known.any():
        return head

    def loss(temperature: float) -> float:
        probabilities = softmax(logits[known].astype(np.float64) / temperature, axis=1)
        return float(log_loss(labels[known], probabilities, labels=range(len(head.labels))))

    candidates = np.round(np.geomspace(0.25, 4, 401), 3)
    return dataclasses.replace(head, temperature=float(min(candidates, key=loss)))
