"""An AU-inspired deep network: fields of the face that tell an expression, and a deep belief network on each.

    python -m training audn --data ~/fer2013 --run runs/audn

Liu, Li, Shan & Chen, "AU-aware deep networks for facial expression recognition", FG 2013, and "AU-inspired deep
networks for facial expression feature learning", Neurocomputing 159, 2015. Three steps, none of which knows where a
brow is:

1. Micro-action patterns: an over-complete representation, by convolution with centers of clusters of patches and
   max-pooling (``represented``).
2. Receptive fields: for each expression the features that are relevant to it and not redundant among themselves, as
   combinations of action units would be (``selected``).
3. A multilayer restricted Boltzmann machine for each field (``rbm``); their hidden units, of all layers and fields side
   by side, go into a linear support vector machine.

Relevance and redundancy are absolute correlations, their difference is the criterion: MID of Peng, Long & Ding, PAMI
27, 2005, with correlation in place of mutual information, for features that are real numbers.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.cluster import MiniBatchKMeans
from sklearn.metrics import accuracy_score, recall_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from datasets import truth_for
from edge_fer.errors import ConfigError, InputMissingError
from edge_fer.files import write_atomically
from training.classical.rbm import RBM, fit_stack
from training.recipe import DataRecipe
from training.runs import load_data, refuse_used

Floats = NDArray[np.float32]

PATCH_PX, POOL_PX = 7, 6
"""Sides of a patch and of a cell of max-pooling."""
FILTERS, PATCHES = 32, 20_000
"""Clusters, and patches that they are of. A 48x48 face has 7 x 7 cells, and 32 x 49 features."""
FIELD = 64
"""Features of a receptive field."""


def patterns(images: Floats, filters: int, rng: np.random.Generator) -> Floats:
    """Filters: centers of k-means on patches of mean 0 and length 1, (filters, side, side), of length 1.

    Args:
        images: float32 (n, height, width).
        filters: how many.
        rng: of the patches and of the start.
    """
    n, height, width = images.shape
    rows, tops, lefts = (rng.integers(0, most, PATCHES) for most in (n, height - PATCH_PX + 1, width - PATCH_PX + 1))
    patches = np.stack(
        [
            images[row, top : top + PATCH_PX, left : left + PATCH_PX].ravel()
            for row, top, left in zip(rows, tops, lefts, strict=True)
        ]
    )
    patches = _normalized(patches)
    clusters = MiniBatchKMeans(filters, random_state=int(rng.integers(2**31)), n_init=1, batch_size=1024)
    return _normalized(clusters.fit(patches).cluster_centers_).reshape(filters, PATCH_PX, PATCH_PX)


def _normalized(patches: NDArray[Any]) -> Floats:
    centered = patches - patches.mean(axis=1, keepdims=True)
    # What is added leaves a patch of nearly one gray level small: it has no pattern.
    return np.asarray(centered / (np.linalg.norm(centered, axis=1, keepdims=True) + 1e-2), np.float32)


def represented(images: Floats, filters: Floats) -> Floats:
    """Responses to each filter, the largest of each cell: (n, h, w) -> (n, rows, columns, filters).

    Only whole cells of places where a filter lies within the image count.
    """
    n, height, width = images.shape
    half = filters.shape[1] // 2
    rows, columns = (height - 2 * half) // POOL_PX, (width - 2 * half) // POOL_PX
    pooled = np.empty((n, rows, columns, len(filters)), np.float32)
    for at, image in enumerate(images):
        for number, kernel in enumerate(filters):
            response = cv2.filter2D(image, cv2.CV_32F, kernel)
            response = response[half : half + rows * POOL_PX, half : half + columns * POOL_PX]
            pooled[at, :, :, number] = response.reshape(rows, POOL_PX, columns, POOL_PX).max(axis=(1, 3))
    return pooled


def selected(relevance: Floats, correlations: Floats, most: int) -> list[int]:
    """Features of a field, one after another: the largest relevance less mean redundancy with those before.

    Args:
        relevance: (features,), absolute correlation of each with the expression.
        correlations: (features, features), absolute, among themselves.
        most: how many.

    Returns:
        Their places, the most relevant first.
    """
    chosen = [int(relevance.argmax())]
    redundancy = correlations[chosen[0]].astype(np.float64)
    while len(chosen) < min(most, len(relevance)):
        score = relevance - redundancy / len(chosen)
        score[chosen] = -np.inf
        chosen.append(int(score.argmax()))
        redundancy += correlations[chosen[-1]]
    return chosen


def fields_of(features: Floats, truth: NDArray[np.int64], classes: int, most: int) -> list[list[int]]:
    """A receptive field for each class.

    Args:
        features: float32 (n, d), each of mean 0 and variance 1 or 0.
        truth: (n,), classes.
        classes: how many, each at least once and never all.
        most: features of a field.
    """
    correlations = np.abs(features.T @ features) / np.float32(len(features))
    own = np.eye(classes, dtype=np.float32)[truth]
    own = (own - own.mean(axis=0)) / own.std(axis=0)
    relevance = np.abs(features.T @ own) / np.float32(len(features))
    return [selected(relevance[:, one], correlations, most) for one in range(classes)]


def hidden_of(stack: Sequence[RBM], data: Floats) -> Floats:
    """The hidden units of all machines of a field, from below, side by side: (n, visible) -> (n, sum of hidden)."""
    layers = []
    for machine in stack:
        data = machine.hidden(data)
        layers.append(data)
    return np.concatenate(layers, axis=1)


def train(data_folder: Path, run: Path, hidden: Sequence[int], epochs: int, seed: int) -> list[dict[str, Any]]:
    """Train an AU-inspired deep network on the Training samples, and measure it on PublicTest.

    Args:
        data_folder: see ``datasets.load``.
        run: new folder for rows.json, errors.json, fields.json and fields.png.
        hidden: units of each machine of a field, from below.
        epochs: of each machine.
        seed: of all chance.

    Returns:
        A row for the network, one for its chosen features without machines, and one for as many fields drawn by chance
        with machines: name, n, accuracy, mean_recall, seconds.

    Raises:
        EdgeFerError: data or run folder are not as they should be, or Training is of one class.
    """
    refuse_used(run)
    if not hidden or min(hidden) < 1 or epochs < 1:
        raise ConfigError("--hidden and --epochs must be at least 1.")
    splits, console = load_data(data_folder, DataRecipe()), Console(stderr=True)
    for split in ("Training", "PublicTest"):
        if not len(splits.get(split, ())):
            raise InputMissingError(f"{data_folder} has no {split} rows.")
    head = splits["PublicTest"].heads[-1]
    rng = np.random.default_rng(seed)
    images, truths = [], []
    for split in ("Training", "PublicTest"):
        truth = truth_for(splits[split], head)
        gray = splits[split].images[truth >= 0, :, :, 0].astype(np.float32)
        mean, sigma = (getattr(gray, one)(axis=(1, 2), keepdims=True) for one in ("mean", "std"))
        images.append(np.asarray((gray - mean) / np.maximum(sigma, 1), np.float32))
        truths.append(truth[truth >= 0])
    classes, known = np.unique(truths[0], return_inverse=True)
    if len(classes) < 2:
        raise ConfigError(f"The Training samples of {head.name} are of one class: there is nothing to tell apart.")
    filters = patterns(images[0], FILTERS, rng)
    maps = [represented(one, filters) for one in images]
    scaler = StandardScaler().fit(maps[0].reshape(len(maps[0]), -1))
    features = [np.asarray(scaler.transform(one.reshape(len(one), -1)), np.float32) for one in maps]
    console.print(f"{features[0].shape[1]:,} features of {len(features[0]):,} faces", highlight=False)
    fields = fields_of(features[0], known, len(classes), FIELD)
    drawn = [rng.permutation(features[0].shape[1])[: len(field)].tolist() for field in fields]
    rows, errors = [], {}
    kinds = {"AUDN": fields, "its features without machines": fields, "fields drawn by chance": drawn}
    for name, of_field in kinds.items():
        began = time.monotonic()
        parts: list[list[Floats]] = [[], []]
        for number, field in enumerate(of_field):
            if name == "its features without machines":
                seen = [one[:, field] for one in features]
            else:
                stack = fit_stack(features[0][:, field], hidden, epochs, seed + number)
                seen = [hidden_of(stack, one[:, field]) for one in features]
                if of_field is fields:
                    errors[str(head.labels[classes[number]])] = [machine.errors for machine in stack]
            for part, one in zip(parts, seen, strict=True):
                part.append(one)
        fitted, asked = (np.concatenate(part, axis=1) for part in parts)
        machine = make_pipeline(StandardScaler(), LinearSVC(C=0.001, dual="auto", random_state=seed))
        predicted = machine.fit(fitted, truths[0]).predict(asked)
        recall = recall_score(truths[1], predicted, labels=np.unique(truths[1]), average="macro")
        rows.append(
            {
                "name": name,
                "n": len(asked),
                "accuracy": round(float(accuracy_score(truths[1], predicted)), 4),
                "mean_recall": round(float(recall), 4),
                "seconds": round(time.monotonic() - began, 1),
            }
        )
        console.print(f"{name}: {rows[-1]['accuracy']:.2%}", highlight=False)
    run.mkdir(parents=True, exist_ok=True)
    names = [str(head.labels[one]) for one in classes]
    fields_png(fields, maps[0].shape[1:], splits["Training"].images.mean(axis=0)[..., 0], names, run / "fields.png")
    content = {"rows": rows, "errors": errors, "fields": dict(zip(names, fields, strict=True))}
    for file, value in content.items():
        write_atomically(run / f"{file}.json", (json.dumps(value, indent=1) + "\n").encode())
    return rows


def fields_png(
    fields: Sequence[Sequence[int]], shape: tuple[int, ...], face: NDArray[Any], names: Sequence[str], path: Path
) -> None:
    """Where the features of each field lie, on the mean face: the brighter a cell, the more of them.

    Args:
        fields: places among the features.
        shape: rows, columns and filters of these.
        face: (height, width).
        names: of the fields.
        path: of the image.
    """
    figure = Figure(figsize=(2.2 * len(fields), 2.6))
    half = PATCH_PX // 2
    extent = (half - 0.5, half + shape[1] * POOL_PX - 0.5, half + shape[0] * POOL_PX - 0.5, half - 0.5)
    for number, (field, name) in enumerate(zip(fields, names, strict=True)):
        axes = figure.add_subplot(1, len(fields), number + 1)
        counts = np.zeros(shape)
        counts.ravel()[list(field)] = 1
        axes.imshow(face, cmap="gray")
        axes.imshow(counts.sum(axis=2), cmap="inferno", alpha=0.6, extent=extent)
        axes.set_title(name, fontsize=9)
        axes.axis("off")
    figure.savefig(path, dpi=120, bbox_inches="tight")


def table_of(rows: Sequence[dict[str, Any]]) -> Table:
    """The rows as a table for a terminal."""
    table = Table("", "N", "accuracy", "mean recall", "s")
    for row in rows:
        table.add_row(
            row["name"], f"{row['n']:,}", f"{row['accuracy']:.2%}", f"{row['mean_recall']:.2%}", str(row["seconds"])
        )
    return table
