"""Recurrent heads: a GRU or an LSTM that learns what a face shows from the embeddings of a bundle's own int8 graph.

The embeddings are those that a device gives its head, so that nothing lies between training and device but the int8
weights (``export/sequence.py``). The sequences are synthetic (``embedded``): of people who show several expressions,
and of single faces of another set, which bring neutral, and teach nothing of people.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import datasets
from datasets import Dataset
from edge_fer.core import Expression
from edge_fer.errors import DataError, OutputError, UsageError
from edge_fer.files import make_folder, write_atomically
from edge_fer.model.bundle import Bundle
from edge_fer.model.decision import softmax
from edge_fer.temporal.affect import IntensitySpec
from edge_fer.temporal.recurrent import Kind
from evaluation.folds import k_folds
from export.sequence import DESCRIPTION, LOGITS, MODEL, NORMALIZE, RECURRENT, SEQUENCES, Description
from training.sequences.embedded import Clips, Embedder, Faces, arrivals, clips_of, faces_of
from training.sequences.intensity import Order, fit_ranking, order_of

BATCH, LEARNING_RATE = 64, 5e-3
KEPT = 16
"""Sequences that the export is tried on."""
DENSE = "dense.npz"
"""Of a run: a dense layer that learned from the same frames, one by one: what recurrence adds is more than it does."""


def build_head(kind: Kind, units: int, embeddings: NDArray[np.float32], labels: int) -> keras.Model:
    """A head that has learned nothing but the normalization of its embeddings.

    Args:
        kind: "gru" or "lstm".
        units: of its state.
        embeddings: float32 (n, embedding) in real units, to normalize by.
        labels: how many.

    Returns:
        Model (batch, frames, embedding) -> (batch, frames, labels) logits.
    """
    inputs = keras.Input((None, embeddings.shape[1]), name="embeddings")
    # A number that never changes says nothing, and must not be divided by nothing.
    variance = np.maximum(embeddings.var(axis=0), 1e-4 * embeddings.var() + 1e-12)
    x = keras.layers.Normalization(mean=embeddings.mean(axis=0), variance=variance, name=NORMALIZE)(inputs)
    layer = keras.layers.GRU if kind == "gru" else keras.layers.LSTM
    x = layer(units, return_sequences=True, name=RECURRENT)(x)
    return keras.Model(inputs, keras.layers.Dense(labels, name=LOGITS)(x), name=f"{kind}{units}")


def fit_head(kind: Kind, units: int, clips: Clips, embedder: Embedder, epochs: int, seed: int) -> keras.Model:
    """Train a head; each epoch sees other frames of the same sequences. Labels weigh alike, however frequent."""
    keras.utils.set_random_seed(seed)
    chance = np.random.default_rng(seed)
    labels = len(embedder.labels)
    model = build_head(
        kind, units, embedder.real(clips.embeddings[:, ::5].reshape(-1, embedder.spec.embedding)), labels
    )
    steps = epochs * -(-len(clips.truth) // BATCH)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps), clipnorm=1.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    for _ in track(range(epochs), f"{kind}{units}", console=Console(stderr=True)):
        raw, truth = arrivals(clips, chance)
        counts = np.bincount(truth[truth >= 0], minlength=labels)
        weights = np.where(truth >= 0, (counts.sum() / labels / np.maximum(counts, 1))[truth], 0)
        # Of a sequence of which few frames come, each weighs more.
        weights = weights * (truth.shape[1] / np.maximum((truth >= 0).sum(axis=1, keepdims=True), 1))
        model.fit(
            embedder.real(raw), np.maximum(truth, 0), sample_weight=weights, batch_size=BATCH, epochs=1, verbose=0
        )
    return model


def temperature_of(logits: NDArray[np.float32], truth: NDArray[np.int64]) -> float:
    """The temperature with the least cross-entropy, of a grid from 0.5 to 4 (Guo et al., arXiv 1706.04599).

    Args:
        logits: float32 (n, labels), of frames that the head did not learn from.
        truth: int64 (n,), places in the labels.
    """
    grid = np.geomspace(0.5, 4, 43)
    losses = [-np.log(softmax(logits / one)[np.arange(len(truth)), truth] + 1e-12).mean() for one in grid]
    return float(grid[int(np.argmin(losses))])


class Told(NamedTuple):
    """What a head says of frames that it did not learn from.

    Attributes:
        logits: float32 (n, labels).
        truth: int64 (n,), places in the labels.
    """

    logits: NDArray[np.float32]
    truth: NDArray[np.int64]

    @property
    def mean_recall(self) -> float:
        """Over the labels that there are."""
        hits = self.logits.argmax(axis=1) == self.truth
        return float(np.mean([hits[self.truth == label].mean() for label in np.unique(self.truth)]))


def told(model: keras.Model, clips: Clips, embedder: Embedder, seed: int) -> Told:
    """What a head says of all frames that come, at mixed rates."""
    raw, truth = arrivals(clips, np.random.default_rng(seed))
    logits = np.asarray(model(embedder.real(raw)))
    return Told(logits[truth >= 0], truth[truth >= 0])


def fit_intensity(
    data: Dataset, neutral: Faces, embedder: Embedder, folds: NDArray[np.int64]
) -> tuple[IntensitySpec | None, Order]:
    """A ranking regressor of the frames' order, and how well it orders frames of people that it has not met.

    Args:
        data: with sequences, their frames in order.
        neutral: faces that show nothing.
        embedder: of the bundle.
        folds: int64 (n,), in which each sample is tested.

    Returns:
        None where neutral faces do not come before peaks; and the order of the held-out sequences.
    """
    assert data.sequences is not None
    scaler = StandardScaler()
    scaled = scaler.fit_transform(embedder.real(np.array([embedder(one) for one in data.images])))
    rows = [np.flatnonzero(data.sequences == name) for name in np.unique(data.sequences)]
    scores = []
    for fold in np.unique(folds):
        weights = fit_ranking([scaled[one] for one in rows if folds[one[0]] != fold])
        scores += [scaled[one] @ weights for one in rows if folds[one[0]] == fold]
    order = order_of(scores)
    weights = fit_ranking([scaled[one] for one in rows])
    peak = float(np.median([scaled[one[-1]] @ weights for one in rows]))
    rest = scaler.transform(embedder.real(np.array([embedder(one) for one in neutral.images])))
    low = float(np.median(rest @ weights))
    if not low < peak:
        return None, order
    slope = 2 * np.log(9) / (peak - low)  # from log-odds of 0.1 to those of 0.9
    real = slope * weights / scaler.scale_
    offset = -np.log(9) - slope * low - float(real @ scaler.mean_)
    return IntensitySpec(tuple(float(one) for one in real), float(offset)), order


def train(
    bundle: Path | str,
    data_folder: Path,
    faces_folder: Path,
    run: Path,
    *,
    kind: Kind = "gru",
    units: int = 16,
    k: int = 5,
    count: int = 1500,
    epochs: int = 25,
    seed: int = 1,
) -> None:
    """Train a head for a bundle, and for each fold one that has met none of the fold's people.

    Writes into ``run`` what ``export/sequence.py`` reads, for all people; into ``run/fold-N`` likewise for the people
    of the other folds, for ``benchmarks/bench_temporal.py``.

    Args:
        bundle: name or file; it stays as it is.
        data_folder: see ``datasets.load_test``: people who show several expressions, in sequences up to the peak.
        faces_folder: see ``datasets.load``: single faces, neutral ones among them; PublicTest is not learned from.
        run: folder to write; it must not be there.
        kind: "gru" or "lstm".
        units: of its state.
        k: folds.
        count: sequences of each of the two sets.
        epochs: of each training.
        seed: of all that is drawn.

    Raises:
        EdgeFerError: bundle or data are not as they should be, or the folder is there.
    """
    if run.exists():
        raise OutputError(f"{run} exists: choose another --run.")
    for name, value, most in (("--units", units, 128), ("--sequences", count, 100_000), ("--epochs", epochs, 1000)):
        if not 1 <= value <= most:
            raise UsageError(f"{name} must be 1 to {most}, not {value}.")
    seen = _material(bundle, data_folder, faces_folder, k, count, seed)
    spec = dataclasses.replace(seen.embedder.spec, kind=kind, units=units)
    console, held_out = Console(highlight=False), []

    def fit_into(folder: Path, people: Clips, facts: dict[str, Any]) -> keras.Model:
        clips = _joined(people, seen.others)
        model = fit_head(kind, units, clips, seen.embedder, epochs, seed)
        # Faces that stand alone are the harder ones: by them the temperature is chosen.
        on_test = told(model, seen.test, seen.embedder, seed)
        facts = {**facts, "mean_recall_public_test": round(on_test.mean_recall, 4)}
        temperature = temperature_of(*on_test)
        description = Description(spec, seen.embedder.labels, temperature, seen.intensity, facts)
        _write(folder, model, description, seen.test)
        _write_dense(folder / DENSE, clips, seen.embedder)
        console.print(f"{folder}: mean recall of PublicTest's faces {on_test.mean_recall:.1%}", soft_wrap=True)
        return model

    fold_of = np.array([seen.folds[group] for group in seen.people.groups])
    for fold in range(k):
        names = sorted(name for name, number in seen.folds.items() if number == fold)
        model = fit_into(run / f"fold-{fold}", seen.people.only(fold_of != fold), {"held_out": names})
        if (fold_of == fold).any():
            held_out.append(told(model, seen.people.only(fold_of == fold), seen.embedder, seed))
            console.print(f"fold {fold}: mean recall of people not met {held_out[-1].mean_recall:.1%}")
    whole = Told(*(np.concatenate(parts) for parts in zip(*held_out, strict=True)))
    facts = {
        "synthetic": True,
        "people": len(seen.folds),
        "sequences": 2 * count,
        "data_sha256": list(seen.sha256),
        "mean_recall_people_not_met": round(whole.mean_recall, 4),
        "pairs_in_order": round(seen.order.pairs, 4),
    }
    fit_into(run, seen.people, facts)
    console.print(f"{kind}{units}: mean recall of people not met {whole.mean_recall:.1%}; all in synthetic sequences")
    console.print(
        f"intensity: {seen.order.pairs:.1%} of the pairs of frames of people not met are in order, and "
        f"{seen.order.monotone:.1%} of their sequences only grow"
        + ("" if seen.intensity else "; neutral faces do not come before peaks, so that the proxy stays"),
        soft_wrap=True,
    )
    console.print(
        f"Wrote {run}. python export/sequence.py {bundle} --head {run} -o OUT.tflite makes a bundle of it.",
        soft_wrap=True,
    )


class _Material(NamedTuple):
    """What heads learn from and are tried on.

    Attributes:
        embedder: of the bundle.
        people: sequences of people.
        others: of single faces of Training.
        test: of single faces of PublicTest.
        folds: in which each person is tested.
        intensity: see ``fit_intensity``.
        order: likewise.
        sha256: of both data sets.
    """

    embedder: Embedder
    people: Clips
    others: Clips
    test: Clips
    folds: Mapping[str, int]
    intensity: IntensitySpec | None
    order: Order
    sha256: tuple[str, str]


def _material(bundle: Path | str, data_folder: Path, faces_folder: Path, k: int, count: int, seed: int) -> _Material:
    embedder = Embedder(Bundle.load(bundle))
    data = datasets.load_test(data_folder, size_hw=embedder.size_hw)
    if data.subjects is None or data.sequences is None:
        raise DataError("--data does not tell its people and sequences: give a set like CK+48, with its file names.")
    faces = datasets.load(faces_folder, size_hw=embedder.size_hw)
    folds = np.zeros(len(data), np.int64)
    for number, rows in enumerate(k_folds(data, k)):
        folds[rows] = number
    singles, test = (faces_of(faces[split], embedder.labels, None) for split in ("Training", "PublicTest"))
    intensity, order = fit_intensity(data, _neutral(singles, embedder.labels), embedder, folds)
    return _Material(
        embedder,
        clips_of(faces_of(data, embedder.labels, data.subjects), embedder, count, seed),
        clips_of(singles, embedder, count, seed + 1),
        clips_of(test, embedder, max(1, count // 5), seed + 2),
        dict(zip(data.subjects.tolist(), folds.tolist(), strict=True)),
        intensity,
        order,
        (data.sha256, faces["Training"].sha256),
    )


def _neutral(faces: Faces, labels: tuple[Expression, ...], most: int = 500) -> Faces:
    if Expression.NEUTRAL not in labels or not (rows := faces.truth == labels.index(Expression.NEUTRAL)).any():
        raise DataError("--faces has no neutral faces: without them a head would never say that a face shows nothing.")
    return Faces(*(one[rows][:most] for one in faces))


def _joined(first: Clips, second: Clips) -> Clips:
    return Clips(
        np.concatenate((first.embeddings, second.embeddings)),
        np.concatenate((first.truth, second.truth)),
        np.concatenate((first.groups, second.groups)),
    )


def _write(run: Path, model: keras.Model, description: Description, test: Clips) -> None:
    """The files that ``export/sequence.py`` reads."""
    make_folder(run)
    model.save(run / MODEL)
    np.savez_compressed(run / SEQUENCES, embeddings=test.embeddings[:KEPT])
    table = {key: value for key, value in dataclasses.asdict(description).items() if value is not None}
    write_atomically(run / DESCRIPTION, json.dumps(table, indent=1).encode())


def _write_dense(path: Path, clips: Clips, embedder: Embedder) -> None:
    """A dense layer that learned from the same frames, each on its own: kernel (embedding, labels) and bias."""
    known = clips.truth[:, ::9] >= 0
    scaler = StandardScaler()
    frames = scaler.fit_transform(embedder.real(clips.embeddings[:, ::9][known]))
    learned = LogisticRegression(C=0.1, class_weight="balanced", max_iter=200).fit(frames, clips.truth[:, ::9][known])
    kernel = np.full((embedder.spec.embedding, len(embedder.labels)), 0.0)
    bias = np.full(len(embedder.labels), -30.0)  # of labels that never occur
    coefficients = learned.coef_
    if len(learned.classes_) == 2:  # scikit-learn keeps the second's alone
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
    kernel[:, learned.classes_] = (coefficients / scaler.scale_).T
    bias[learned.classes_] = learned.intercept_ - scaler.mean_ @ kernel[:, learned.classes_]
    np.savez(path, kernel=kernel.astype(np.float32), bias=bias.astype(np.float32))
