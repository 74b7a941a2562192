"""A linear support vector machine or a small forest as a head of a bundle, which a device runs in NumPy.

    python -m training classifiers --bundle nano --data ~/fer2013
    python -m training classifiers --bundle nano --classifier linear-svm --data ~/fer2013 --export nano-svm.tflite

They learn from the embedding that the bundle's int8 network gives, to the very integer, so nothing is lost between here
and the device. Temperature, decision rule and doubt are fitted on PublicTest, as those of any head.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

import datasets
from datasets import Dataset, truth_for
from edge_fer.errors import ConfigError, DataError, InputMissingError
from edge_fer.model.bundle import Bundle
from edge_fer.model.decision import softmax
from edge_fer.model.heads import open_head
from edge_fer.model.litert import Network
from edge_fer.model.selftest import SelfTest
from edge_fer.model.spec import Head, HeadKind, head_slices
from edge_fer.preprocess import Preprocessor
from evaluation import fit
from evaluation.calibration import expected_calibration_error, fit_temperature
from evaluation.decision import MAX_LOSS, class_priors
from evaluation.metrics import metrics_of
from export.embedding import with_embedding
from training.recipe import DataRecipe

Floats = NDArray[np.float32]
Arrays = dict[str, NDArray[Any]]

KINDS: tuple[HeadKind, ...] = ("linear-svm", "random-forest")
TREES, DEPTH, LEAST_SAMPLES = 32, 10, 10
"""Of the forest; the latter of a leaf. A forest without limits has some megabytes."""
COST = 0.01
"""C of the linear machine, as in ``classifiers``."""


@dataclass(frozen=True)
class Known:
    """A bundle whose graph gives its embedding, and what that is for the faces of a data set.

    Attributes:
        bundle: with two outputs.
        embeddings: float32 (n, d) of Training and of PublicTest.
        splits: these two.
        logits: of the network's heads, float32 (n, logits), of PublicTest.
    """

    bundle: Bundle
    embeddings: tuple[Floats, Floats]
    splits: tuple[Dataset, Dataset]
    logits: Floats

    @property
    def own(self) -> tuple[Head, ...]:
        """The network's own heads, in the order of their logits."""
        return tuple(head for head in self.bundle.metadata.heads if head.classifier == "network")


def known_of(name: str, data_folder: Path) -> Known:
    """Run a bundle on a data set.

    Args:
        name: of a model of the package, or a bundle's file.
        data_folder: see ``datasets.load``.

    Raises:
        EdgeFerError: bundle or data are not as they should be, or the network has no embedding to give.
    """
    bundle = Bundle.load(name)
    model = with_embedding(bundle.model)
    selftest = dataclasses.replace(SelfTest.measured(model, bundle.selftest.inputs), sequence=bundle.selftest.sequence)
    bundle = Bundle.new(model, bundle.metadata, selftest, bundle.recurrent, bundle.arrays)
    size_hw: tuple[int, int] = bundle.selftest.inputs.shape[1:3]
    console = Console(stderr=True)
    console.print(f"Reading {data_folder} ...")
    splits = datasets.load(data_folder, DataRecipe().exclude, size_hw)
    for split in ("Training", fit.SPLIT):
        if not len(splits.get(split, ())):
            raise InputMissingError(f"{data_folder} has no {split} rows.")
    training, test = splits["Training"], splits[fit.SPLIT]
    theirs = next(head for head in bundle.metadata.heads if head.classifier == "network")
    if not (truth_for(test, theirs) >= 0).any():
        raise DataError(f"No {fit.SPLIT} sample has a label of {theirs.name}: no classifier can be measured.")
    preprocessor, network = Preprocessor(bundle.metadata.preprocess, size_hw), Network(model)
    _, known = _run(network, preprocessor.crops(training.images), console, "Training")
    logits, asked = _run(network, preprocessor.crops(test.images), console, fit.SPLIT)
    return Known(bundle, (known, asked), (training, test), logits)


def _run(network: Network, tensors: NDArray[np.uint8], console: Console, title: str) -> tuple[Floats, Floats]:
    """Logits and embeddings in real units."""
    first, second = network.outputs
    shown = track(tensors, title, console=console, transient=True, disable=not console.is_terminal)
    rows = np.concatenate([network.run_each(tensor[np.newaxis]) for tensor in shown])
    columns = first.shape[1]
    return first.real(rows[:, :columns]), second.real(rows[:, columns:])


def linear_arrays(embeddings: Floats, truth: NDArray[np.int64], seed: int) -> Arrays:
    """A linear SVM, one-vs-rest with the squared hinge (Tang, arXiv 1306.0239), as arrays for ``heads.LinearHead``.

    Args:
        embeddings: float32 (n, d).
        truth: int64 (n,), each of the labels from 0 on at least once.
        seed: of the solver.
    """
    scaler, machine = StandardScaler(), LinearSVC(C=COST, dual="auto", random_state=seed)
    make_pipeline(scaler, machine).fit(embeddings.astype(np.float64), truth)
    coefficients, intercepts = machine.coef_, machine.intercept_
    if len(coefficients) == 1:  # of two classes it knows the second alone
        coefficients, intercepts = np.concatenate([-coefficients, coefficients]), np.append(-intercepts, intercepts)
    weights = (coefficients / scaler.scale_).T
    return {
        "weights": weights.astype(np.float32),
        "bias": (intercepts - scaler.mean_ @ weights).astype(np.float32),
    }


def forest_arrays(embeddings: Floats, truth: NDArray[np.int64], seed: int) -> Arrays:
    """A random forest (Breiman, Machine Learning 45, 2001) as arrays for ``heads.ForestHead``.

    Args:
        embeddings: float32 (n, d).
        truth: int64 (n,), each of the labels from 0 on at least once.
        seed: of what is drawn.
    """
    forest = RandomForestClassifier(TREES, max_depth=DEPTH, min_samples_leaf=LEAST_SAMPLES, random_state=seed)
    forest.fit(embeddings, truth)
    return packed([tree.tree_ for tree in forest.estimators_])


def packed(trees: Sequence[Any]) -> Arrays:
    """Trees of scikit-learn with their nodes in one list, breadth first, so that siblings are neighbors."""
    feature: list[int] = []
    threshold: list[float] = []
    left: list[int] = []
    values: list[NDArray[np.float64]] = []
    roots: list[int] = []
    for tree in trees:
        roots.append(len(left))
        order = [0]
        for node in order:  # it grows as it is read
            leaf = tree.children_left[node] < 0
            left.append(len(left) if leaf else roots[-1] + len(order))
            if not leaf:
                order += [tree.children_left[node], tree.children_right[node]]
            feature.append(0 if leaf else tree.feature[node])
            threshold.append(np.inf if leaf else tree.threshold[node])
            values.append(tree.value[node, 0] / tree.value[node, 0].sum() if leaf else 0 * tree.value[node, 0])
    exact = np.array(threshold)
    rounded = exact.astype(np.float32)
    # Downwards: no float32 lies between, so that each embedding goes where it went.
    rounded = np.where(rounded > exact, np.nextafter(rounded, np.float32(-np.inf)), rounded)
    return {
        "feature": np.array(feature, np.int16),
        "threshold": rounded,
        "left": np.array(left, np.int32),
        "values": np.array(values, np.float16),
        "roots": np.array(roots, np.int32),
    }


def fitted_head(known: Known, kind: HeadKind, seed: int) -> tuple[Head, Arrays, Floats]:
    """A head beside the first one of the network, for the same labels.

    Args:
        known: a bundle on its data.
        kind: what it is.
        seed: of what is drawn.

    Returns:
        The head, with temperature and priors; its arrays by their names in the bundle, without golden logits; its
        logits on PublicTest, float32 (n, labels).

    Raises:
        ConfigError: a label has no Training sample.
    """
    theirs = known.own[0]
    training, test = known.splits
    truth = truth_for(training, theirs)
    counts = np.bincount(truth[truth >= 0], minlength=len(theirs.labels))
    if not counts.all():
        missing = theirs.labels[int(np.argmin(counts))]
        raise ConfigError(f"No Training sample is labeled {missing}: the head {theirs.name!r} cannot be learned anew.")
    head = Head(f"{theirs.name}-{kind}", theirs.labels, priors=class_priors(training, theirs), classifier=kind)
    make = linear_arrays if kind == "linear-svm" else forest_arrays
    rows = truth >= 0
    arrays = {
        f"heads.{head.name}.{name}": one for name, one in make(known.embeddings[0][rows], truth[rows], seed).items()
    }
    opened = open_head(head, arrays, known.embeddings[1].shape[1])
    logits = np.stack([opened.logits(embedding) for embedding in known.embeddings[1]])
    return fit_temperature(head, logits, test), arrays, logits


def compare(known: Known, seed: int) -> list[dict[str, Any]]:
    """The network's first head beside each kind of classifier on its embedding.

    Args:
        known: a bundle on its data.
        seed: of what is drawn.

    Returns:
        A row for each: classifier, n, accuracy, mean_recall, ece, kilobytes (of its arrays) and microseconds (of a
        face, beside the network's time).

    Raises:
        ConfigError: a label has no Training sample.
    """
    theirs = known.own[0]
    own = known.logits[:, head_slices(known.own)[theirs.name]]
    rows = [{"classifier": "network", **measured(theirs, own, known.splits[1])}]
    for kind in KINDS:
        head, arrays, logits = fitted_head(known, kind, seed)
        cost = {"kilobytes": round(sum(one.nbytes for one in arrays.values()) / 1000, 1)}
        rows.append(
            {"classifier": kind, **measured(head, logits, known.splits[1]), **cost, **_time(head, arrays, known)}
        )
    return rows


def measured(head: Head, logits: Floats, test: Dataset) -> dict[str, Any]:
    """N, accuracy, mean recall and expected calibration error of a head as trained, on PublicTest."""
    truth = truth_for(test, head)
    rows = truth >= 0
    metrics = metrics_of(truth[rows], logits[rows].argmax(axis=1), head.labels)
    recalls = [one for one in metrics["recall"].values() if one is not None]
    probabilities = softmax(logits[rows] / np.float32(head.temperature))
    return {
        "n": metrics["n"],
        "accuracy": metrics["accuracy"],
        "mean_recall": round(float(np.mean(recalls)), 4),
        "ece": round(expected_calibration_error(probabilities, truth[rows]), 4),
    }


def _time(head: Head, arrays: Arrays, known: Known) -> dict[str, float]:
    opened = open_head(head, arrays, known.embeddings[1].shape[1])
    faces = known.embeddings[1][:500]
    began = time.perf_counter()
    for embedding in faces:
        opened.logits(embedding)
    return {"microseconds": round((time.perf_counter() - began) / len(faces) * 1e6, 1)}


def with_head(known: Known, kind: HeadKind, seed: int) -> Bundle:
    """The bundle with a classifier in front of its heads: what a device reports is the classifier's, and its alone.

    The network's heads stay in the bundle, with a weight of 0.

    Args:
        known: a bundle on its data.
        kind: of classifier.
        seed: of what is drawn.

    Raises:
        ConfigError: a label has no Training sample, or the bundle has such a head already.
    """
    head, arrays, logits = fitted_head(known, kind, seed)
    bundle = known.bundle
    if head.name in (one.name for one in bundle.metadata.heads):
        raise ConfigError(f"{bundle.metadata.name} has a head {head.name!r} already: begin with another bundle.")
    network, console = Network(bundle.model), Console(stderr=True)
    opened = open_head(head, arrays, known.embeddings[1].shape[1])

    def logits_of(embeddings: Floats) -> Floats:
        return np.stack([opened.logits(embedding) for embedding in embeddings])

    def classify(tensors: NDArray[np.uint8], title: str) -> Floats:
        return logits_of(_run(network, tensors, console, title)[1])

    golden = bundle.selftest.outputs[:, -known.embeddings[1].shape[1] :]
    arrays[f"heads.{head.name}.golden"] = logits_of(network.outputs[1].real(golden))
    heads = (head, *bundle.metadata.heads)
    training, test = known.splits
    truth = truth_for(test, head)
    rows = truth >= 0
    metrics = metrics_of(truth[rows], logits[rows].argmax(axis=1), head.labels)
    facts = {
        **bundle.metadata.facts,
        "public_test": {**bundle.metadata.facts.get("public_test", {}), head.name: metrics},
    }
    facts["classifier"] = {"kind": kind, "seed": seed, "data_sha256": training.sha256}
    name = f"{bundle.metadata.name}-{kind}"
    metadata = dataclasses.replace(bundle.metadata, name=name, heads=heads, decision=None, doubt=None, facts=facts)
    made = dataclasses.replace(bundle, metadata=metadata, arrays={**bundle.arrays, **arrays})
    size_hw: tuple[int, int] = bundle.selftest.inputs.shape[1:3]
    found = fit.fit((head,), Preprocessor(bundle.metadata.preprocess, size_hw), test, classify, MAX_LOSS)
    if found is None:
        console.print("Too few faces to fit a decision rule: the bundle answers as its classifier was trained.")
        return made
    for line in fit.lines(found, head):
        console.print(line, highlight=False)
    weights = (*found.decision.weights, *(0.0 for _ in bundle.metadata.heads))
    rule = dataclasses.replace(found.decision, weights=weights)
    return fit.fitted(made, heads, dataclasses.replace(found, decision=rule))


def table_of(rows: Sequence[dict[str, Any]]) -> Table:
    """The rows as a table for a terminal."""
    table = Table("classifier", "N", "accuracy", "mean recall", "ECE", "kB", "us a face")
    for row in rows:
        percent = (f"{row[key]:.2%}" for key in ("accuracy", "mean_recall"))
        cost = (str(row.get(key, "")) for key in ("kilobytes", "microseconds"))
        table.add_row(row["classifier"], f"{row['n']:,}", *percent, f"{row['ece']:.3f}", *cost)
    return table
