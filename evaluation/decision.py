"""The decision rule of a bundle: fitted on PublicTest, and measured on faces that its fit has not seen.

The reported expressions are those that enough faces can vouch for. Weights of the heads and tau are chosen for the best
mean recall at a bounded loss of accuracy, the temperature for the highest likelihood where all classes weigh alike. All
figures are cross-fitted: each fold is measured by the rule that the others gave.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from scipy.special import log_softmax
from sklearn.model_selection import StratifiedKFold

from datasets.core import Dataset, truth_for
from edge_fer.core import Expression
from edge_fer.model.decision import Rule
from edge_fer.model.spec import Decision, Head, head_slices
from evaluation.calibration import BINS

MAX_LOSS = 2.5
"""Points of accuracy that the balanced rule may cost: where classes are as in the data, leaning on priors is right."""
LEAST_FACES = 20
"""An expression with fewer in the test split is not reported: with 20 the 95 % interval of a recall of one half is
still 40 points wide."""
FOLDS = 5
_TAUS = np.round(np.arange(0, 1.51, 0.05), 2)
_WEIGHTS = np.round(np.arange(0, 0.51, 0.1), 1)
"""Of the second head, where there are two; the first has the rest."""
_TEMPERATURES = np.round(np.geomspace(0.25, 4, 201), 3)


@dataclass(frozen=True)
class Point:
    """What a rule is worth on faces.

    Attributes:
        tau: how much of the priors it takes out.
        weights: of the heads.
        accuracy: of all faces, 0-1; one whose expression is not reported counts as wrong.
        recall: of each reported expression, 0-1.
    """

    tau: float
    weights: tuple[float, ...]
    accuracy: float
    recall: NDArray[np.float64]

    @property
    def mean_recall(self) -> float:
        """Over the reported expressions, 0-1."""
        return float(self.recall.mean())


def class_priors(data: Dataset, head: Head) -> tuple[float, ...]:
    """How frequent each label of a head is in the targets of a split; () where one never occurs, or no sample is known.

    Args:
        data: what the head learned from.
        head: the head.
    """
    labels = data.labels.get(head.name)
    if labels is None or not set(head.labels) <= set(labels.expressions):
        counts = np.bincount(truth_for(data, head) + 1, minlength=len(head.labels) + 1)[1:].astype(np.float64)
    else:
        counts = labels.targets.sum(axis=0, dtype=np.float64)[[labels.expressions.index(one) for one in head.labels]]
    return tuple(np.round(counts / counts.sum(), 5).tolist()) if counts.min() >= 1 else ()


def fit_decision(
    logits: NDArray[np.float32], data: Dataset, heads: Sequence[Head], max_loss: float = MAX_LOSS
) -> Decision | None:
    """The rule for a model; None where its first head has no priors, or the faces are too few.

    Args:
        logits: float32 (n, sum of labels).
        data: the n rows; the labels of the first head count.
        heads: of the model, with temperatures and priors.
        max_loss: points of accuracy that it may cost, against the first head as trained.
    """
    truth = truth_for(data, heads[0])
    counts = np.bincount(truth[truth >= 0], minlength=len(heads[0].labels))
    labels = tuple(label for label, count in zip(heads[0].labels, counts, strict=True) if count >= LEAST_FACES)
    usable = heads[0].priors and len(labels) >= 2 and counts.sum() >= LEAST_FACES * len(heads[0].labels)
    if not usable:
        return None
    known = truth >= 0
    return _fitted(logits[known], truth[known], heads, labels, max_loss)


def cross_fitted(
    logits: NDArray[np.float32], data: Dataset, heads: Sequence[Head], labels: tuple[Expression, ...], max_loss: float
) -> NDArray[np.float32]:
    """Probabilities of the faces that the first head knows, float32 (known, labels), each by a rule fitted on others.

    Args:
        logits: float32 (n, sum of labels).
        data: the n rows.
        heads: of the model.
        labels: the expressions that are reported.
        max_loss: see ``fit_decision``.
    """
    truth = truth_for(data, heads[0])
    rows, truth = logits[truth >= 0], truth[truth >= 0]
    probabilities = np.zeros((len(rows), len(labels)), np.float32)
    for fitted_on, measured_on in folds(truth):
        rule = Rule.balanced(_fitted(rows[fitted_on], truth[fitted_on], heads, labels, max_loss), heads)
        probabilities[measured_on] = rule.probabilities(rows[measured_on])
    return probabilities


def folds(truth: NDArray[np.int64]) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows to fit on and rows to measure on, the same in every run; each class is spread over all."""
    return list(StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(truth, truth))


def curve(logits: NDArray[np.float32], data: Dataset, heads: Sequence[Head], decision: Decision) -> list[Point]:
    """Mean recall against accuracy, tau swept from 0, with the weights of a rule.

    Args:
        logits: float32 (n, sum of labels).
        data: the n rows.
        heads: of the model.
        decision: the rule.
    """
    truth = truth_for(data, heads[0])
    rows, truth = logits[truth >= 0], truth[truth >= 0]
    return [_point(rows, truth, heads, dataclasses.replace(decision, tau=float(tau))) for tau in _TAUS]


def curve_table(points: Sequence[Point], decision: Decision) -> Table:
    """Every other point of a curve for a terminal, and the chosen one."""
    table = Table("tau", "accuracy", "mean recall", *decision.labels, title="Mean recall against accuracy, tau swept")
    for place, point in enumerate(points):
        if place % 2 == 0 or point.tau == decision.tau:
            mark = " <" if point.tau == decision.tau else ""
            recalls = (f"{recall:.0%}" for recall in point.recall)
            table.add_row(f"{point.tau:g}{mark}", f"{point.accuracy:.2%}", f"{point.mean_recall:.2%}", *recalls)
    return table


def positions(truth: NDArray[np.int64], head: Head, labels: Sequence[Expression]) -> NDArray[np.int64]:
    """Labels of a head as places among the reported ones, int64 (n,); -1 for one that is not reported."""
    places = np.array([labels.index(one) if one in labels else -1 for one in head.labels])
    return places[truth]


def balanced_weights(truth: NDArray[np.int64]) -> NDArray[np.float64]:
    """Of each face, float64 (n,), so that all classes that occur weigh alike; they sum to 1."""
    counts = np.bincount(truth)
    weights = 1 / counts[truth]
    return np.asarray(weights / weights.sum())


def balanced_calibration_error(probabilities: NDArray[np.float32], truth: NDArray[np.int64], bins: int = BINS) -> float:
    """Expected calibration error, 0-1, where all classes weigh alike (Guo et al., equation 3, with weighted faces).

    Args:
        probabilities: float32 (n, classes).
        truth: int64 (n,), no -1 in it.
        bins: how many.
    """
    weights, confidences = balanced_weights(truth), probabilities.max(axis=1).astype(np.float64)
    off = weights * ((probabilities.argmax(axis=1) == truth) - confidences)
    places = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], confidences)
    return float(np.abs(np.bincount(places, off, minlength=bins)).sum())


def measured(
    probabilities: NDArray[np.float32], truth: NDArray[np.int64], labels: Sequence[str], few: Sequence[str] = ()
) -> dict[str, Any]:
    """N, accuracy, mean recall, recall and class-balanced ECE of a rule.

    Args:
        probabilities: float32 (n, labels).
        truth: int64 (n,), places among the labels; -1 for an expression that is not reported, which is then wrong. One
            at least is reported.
        labels: names of the expressions.
        few: those of them whose recall does not count in the mean.

    Returns:
        Fractions 0-1 beside ``n`` and ``faces``; ``mean_recall_95`` is half the 95 % interval of the mean recall, by
        the binomial variance of each class.
    """
    hits, known = probabilities.argmax(axis=1) == truth, truth >= 0
    faces = np.bincount(truth[known], minlength=len(labels)).tolist()
    recalls = [float(hits[truth == place].sum()) / max(1, count) for place, count in enumerate(faces)]
    counted = [place for place, label in enumerate(labels) if label not in few and faces[place]]
    variance = sum(recalls[place] * (1 - recalls[place]) / faces[place] for place in counted)
    return {
        "n": len(truth),
        "accuracy": round(float(hits.mean()), 4),
        "mean_recall": round(float(np.mean([recalls[place] for place in counted])), 4),
        "mean_recall_95": round(1.96 * variance**0.5 / len(counted), 4),
        "recall": {str(labels[place]): round(recalls[place], 4) for place in range(len(labels)) if faces[place]},
        "faces": {str(label): count for label, count in zip(labels, faces, strict=True)},
        "balanced_ece": round(balanced_calibration_error(probabilities[known], truth[known]), 4),
    }


def _fitted(
    logits: NDArray[np.float32],
    truth: NDArray[np.int64],
    heads: Sequence[Head],
    labels: tuple[Expression, ...],
    max_loss: float,
) -> Decision:
    own = logits[:, head_slices(heads)[heads[0].name]]
    floor = float((own.argmax(axis=1) == truth).mean()) - max_loss / 100
    candidates = [
        Decision(labels, weights, float(tau)) for weights, tau in product(_weights(heads, labels), _TAUS.tolist())
    ]
    points = [_point(logits, truth, heads, candidate) for candidate in candidates]
    # Where nothing is so accurate, as with an expression left out that is common, accuracy alone decides.
    allowed = [place for place, point in enumerate(points) if point.accuracy >= floor]
    best = (
        max(allowed, key=lambda place: points[place].mean_recall)
        if allowed
        else max(range(len(points)), key=lambda place: points[place].accuracy)
    )
    return dataclasses.replace(candidates[best], temperature=_temperature(logits, truth, heads, candidates[best]))


def _weights(heads: Sequence[Head], labels: Sequence[Expression]) -> list[tuple[float, ...]]:
    """What heads may weigh: the first all, or the first two, where the second can tell all labels apart too."""
    rest = (0.0,) * (len(heads) - 2)
    if len(heads) < 2 or not (heads[1].priors and set(labels) <= set(heads[1].labels)):
        return [(1.0, *(0.0 for _ in heads[1:]))]
    return [(round(1 - weight, 1), weight, *rest) for weight in _WEIGHTS.tolist()]


def _point(logits: NDArray[np.float32], truth: NDArray[np.int64], heads: Sequence[Head], decision: Decision) -> Point:
    predicted = Rule.balanced(decision, heads).probabilities(logits).argmax(axis=1)
    places = positions(truth, heads[0], decision.labels)
    recall = np.array([(predicted[places == place] == place).mean() for place in range(len(decision.labels))])
    return Point(decision.tau, decision.weights, float((predicted == places).mean()), recall)


def _temperature(
    logits: NDArray[np.float32], truth: NDArray[np.int64], heads: Sequence[Head], decision: Decision
) -> float:
    """By the highest likelihood where all classes weigh alike (Guo et al., equation 9, with weighted faces)."""
    places = positions(truth, heads[0], decision.labels)
    rows, places = logits[places >= 0], places[places >= 0]
    weights = balanced_weights(places)
    scores = np.log(np.maximum(Rule.balanced(decision, heads).probabilities(rows).astype(np.float64), 1e-30))

    def loss(temperature: float) -> float:
        return -float((weights * log_softmax(scores / temperature, axis=1)[np.arange(len(places)), places]).sum())

    return float(min(_TEMPERATURES, key=loss))
