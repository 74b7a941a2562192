"""How much a sequence tells beyond a frame: frame aggregation of both levels, on people not met before."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import datasets
from datasets import Dataset
from edge_fer.core import Expression
from edge_fer.errors import DataError, UsageError
from edge_fer.model.spec import Head
from evaluation.intervals import Interval, bootstrap
from training import models
from training.sequences.aggregation import KINDS, describe, fixed_length, normalized
from training.sequences.clips import Sequences, sequences_of
from training.sequences.intensity import Order, fit_ranking, order_of

PRINCIPAL = 24
"""Principal components that features are brought to, over the frames of training: a covariance wants few."""
LENGTH = 3
"""Frames of the fixed length."""


class Row(NamedTuple):
    """One method over all sequences.

    Attributes:
        level: "frame", "decision" or "feature".
        method: its name.
        accuracy: of n sequences.
        mean_recall: over the classes.
        accuracy_interval: of 95 %, people drawn.
        recall_interval: likewise.
    """

    level: str
    method: str
    accuracy: float
    mean_recall: float
    accuracy_interval: Interval
    recall_interval: Interval


def print_comparison(model_path: Path, data_folder: Path, k: int, frames: int) -> None:
    """Print a table of ``compare``, whose arguments and errors these are."""
    count, rows, orders = compare(model_path, data_folder, k, frames)
    table = Table("aggregation", "accuracy % (95 %)", "mean recall % (95 %)", box=SIMPLE)
    for row in rows:
        cells = []
        for value, (low, high) in ((row.accuracy, row.accuracy_interval), (row.mean_recall, row.recall_interval)):
            cells.append(f"{100 * value:.1f} ({100 * low:.1f}-{100 * high:.1f})")
        table.add_row(f"{row.level}: {row.method}", *cells)
    console = Console(highlight=False)
    console.print(f"{count} sequences, {k} folds by people; intervals draw people")
    console.print(table)
    table = Table("intensity", "pairs in order %", "sequences that only grow %", box=SIMPLE)
    for name, order in orders.items():
        table.add_row(name, f"{100 * order.pairs:.1f}", f"{100 * order.monotone:.1f}")
    console.print(table)


class Comparison(NamedTuple):
    """What ``compare`` finds.

    Attributes:
        sequences: how many.
        rows: of each way to tell their expression.
        orders: of each way to tell their intensity, by its name.
    """

    sequences: int
    rows: list[Row]
    orders: dict[str, Order]


def compare(model_path: Path, data_folder: Path, k: int, frames: int) -> Comparison:
    """Measure all ways on a data set that tells people and sequences.

    Classifiers are trained on the other folds' sequences (``evaluation.folds``: nobody is in two). What needs none, the
    pooled probabilities of the model's own first head, chooses among the data set's expressions.

    Args:
        model_path: a ``.keras`` file with ``model.toml`` beside it.
        data_folder: see ``datasets.load_test``; first frames are not taken as neutral.
        k: folds.
        frames: that are taken of each sequence of a set of whole ones.

    Raises:
        EdgeFerError: model or data are not as they should be, or there are too few people for the folds.
    """
    if frames < 2:
        raise UsageError(f"--frames must be 2 or more, not {frames}.")
    model, description = models.load(model_path), models.read_description(model_path)
    height, width = model.input_shape[1:3]
    data = datasets.load_test(data_folder, size_hw=(height, width), frames=frames, neutral=False)
    sequences = sequences_of(data, k)
    head = description.heads[0] if description else data.heads[0]
    both = keras.Model(model.input, [models.embedding(model), model.output])
    features, logits = both.predict(data.images, batch_size=256, verbose=0)
    probabilities = _probabilities(logits, head, data)
    classes = len(data.heads[0].labels)

    by_frame = [one.mean(axis=0) for one in _each(probabilities, [rows[-1:] for rows in sequences.rows])]
    answers: list[tuple[str, str, NDArray[np.int64]]] = [("frame", "last, the model's own", _most(by_frame))]
    shown = _each(probabilities, sequences.rows)
    votes = [np.eye(classes)[one.argmax(axis=1)] for one in shown]
    answers.append(("decision", "mean", _most([one.mean(axis=0) for one in shown])))
    answers.append(("decision", "max", _most([one.max(axis=0) for one in shown])))
    # Of frames that do not agree, the mean decides between those that have as many votes.
    majority = [vote.sum(axis=0) + one.mean(axis=0) / 2 for vote, one in zip(votes, shown, strict=True)]
    answers.append(("decision", "majority", _most(majority)))
    fixed = [fixed_length(one, LENGTH).ravel() for one in shown]
    answers.append(("decision", f"{LENGTH} frames abreast, SVM", _learned(sequences, lambda _: fixed)))

    def last(reduced: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        return [normalized(reduced[rows[-1:]])[0] for rows in sequences.rows]

    answers.append(("frame", "last, SVM", _learned(sequences, _reduced(features, sequences, last))))
    for kind in KINDS:

        def described(reduced: NDArray[np.float64], kind: Any = kind) -> list[NDArray[np.float64]]:
            return [describe(kind, reduced[rows]) for rows in sequences.rows]

        answers.append(("feature", f"{kind}, SVM", _learned(sequences, _reduced(features, sequences, described))))
    rows = [_row(level, method, found, sequences, classes) for level, method, found in answers]
    return Comparison(len(sequences.rows), rows, _orders(features, logits, head, sequences, data))


def _orders(
    features: NDArray[np.float32], logits: NDArray[np.float32], head: Head, sequences: Sequences, data: Dataset
) -> dict[str, Order]:
    """Whether the device's proxy, and a ranking regressor of the other folds' people, grow along a sequence."""
    labels = data.heads[0].labels
    known = [at for at, truth in enumerate(sequences.truth) if labels[truth] in head.labels]
    own = logits[:, : len(head.labels)].astype(np.float64) / head.temperature
    proxy = []
    for at in known:
        frames = own[sequences.rows[at]]
        # affect.intensity: the expression's probability over its own and neutral's.
        odds = frames[:, head.labels.index(labels[sequences.truth[at]])]
        odds = odds - (frames[:, head.labels.index(Expression.NEUTRAL)] if Expression.NEUTRAL in head.labels else 0.0)
        proxy.append(odds)

    def frames_of(reduced: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        return [reduced[rows] for rows in sequences.rows]

    described = _reduced(features, sequences, frames_of)
    scores: list[NDArray[np.float64]] = [np.zeros(0)] * len(sequences.rows)
    for fold in np.unique(sequences.folds):
        frames = described(int(fold))
        weights = fit_ranking([one for one, own_fold in zip(frames, sequences.folds, strict=True) if own_fold != fold])
        for place in np.flatnonzero(sequences.folds == fold):
            scores[place] = frames[place] @ weights
    return {"proxy of the probabilities": order_of(proxy), "ranking regressor": order_of(scores)}


def _probabilities(logits: NDArray[np.float32], head: Head, data: Dataset) -> NDArray[np.float64]:
    """Of the data set's expressions alone, (n, classes); 0 for one that the head does not know."""
    own = logits[:, : len(head.labels)].astype(np.float64) / head.temperature
    powers = np.exp(own - own.max(axis=1, keepdims=True))
    columns = [
        powers[:, head.labels.index(label)] if label in head.labels else np.zeros(len(powers))
        for label in data.heads[0].labels
    ]
    chosen = np.stack(columns, axis=1) + 1e-12
    return chosen / chosen.sum(axis=1, keepdims=True)


def _each(values: NDArray[Any], rows: Sequence[NDArray[np.int64]]) -> list[NDArray[Any]]:
    return [values[one] for one in rows]


def _most(scores: Sequence[NDArray[np.float64]]) -> NDArray[np.int64]:
    return np.array([one.argmax() for one in scores], np.int64)


def _reduced(features: NDArray[np.float32], sequences: Sequences, act: Any) -> Any:
    """Descriptors by fold, from principal components that were fitted to the frames of its training alone."""

    def of_fold(fold: int) -> list[NDArray[np.float64]]:
        seen = np.concatenate([rows for rows, own in zip(sequences.rows, sequences.folds, strict=True) if own != fold])
        components = min(PRINCIPAL, features.shape[1], len(seen))
        fitted = make_pipeline(StandardScaler(), PCA(components, random_state=0)).fit(features[seen])
        described: list[NDArray[np.float64]] = act(fitted.transform(features))
        return described

    return of_fold


def _learned(sequences: Sequences, descriptors: Any) -> NDArray[np.int64]:
    """What a linear SVM says of each sequence that learned from the other folds'.

    Raises:
        DataError: the sequences of the other folds are of one class.
    """
    found = np.zeros(len(sequences.rows), np.int64)
    for fold in np.unique(sequences.folds):
        vectors = np.array(descriptors(int(fold)))
        test = sequences.folds == fold
        if len(np.unique(sequences.truth[~test])) < 2:
            raise DataError("Without the people of one fold all sequences show one expression: give more people.")
        machine = make_pipeline(StandardScaler(), SVC(kernel="linear", C=1 / vectors.shape[1], class_weight="balanced"))
        found[test] = machine.fit(vectors[~test], sequences.truth[~test]).predict(vectors[test])
    return found


def _row(level: str, method: str, found: NDArray[np.int64], sequences: Sequences, classes: int) -> Row:
    truth = sequences.truth
    hits = found == truth
    intervals = bootstrap(truth, found, np.zeros(len(truth), bool), classes, sequences.subjects)
    recall = [hits[truth == label].mean() for label in np.unique(truth)]
    return Row(
        level, method, float(hits.mean()), float(np.mean(recall)), intervals["accuracy"], intervals["mean_recall"]
    )
