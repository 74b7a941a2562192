"""Classifiers on the features of a trained network: support vector machines and forests beside its own last layer.

    python -m training classifiers --run runs/nano --data ~/fer2013
    python -m training classifiers --run runs/a --run runs/b --data ~/fer2013      # a feature-level ensemble

The survey's section 3.3. With several runs their features are concatenated, after a signed square root and l2
normalization of each, as in Bargal et al., "Emotion Recognition in the Wild from Videos using Images", ICMI 2016 (the
survey's Fig. 7, "SSR").
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import accuracy_score, recall_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from datasets import truth_for
from edge_fer.errors import ConfigError, DataError, InputMissingError
from edge_fer.files import write_atomically
from training import models
from training.recipe import load_recipe
from training.runs import load_data, load_for

Floats = NDArray[np.float32]

RBF_SAMPLES = 8000
"""An RBF machine takes time with the square of the samples: it learns from so many, drawn by the seed."""

CLASSIFIERS: dict[str, Callable[[int], Any]] = {
    "linear SVM": lambda seed: make_pipeline(StandardScaler(), LinearSVC(C=0.01, dual="auto", random_state=seed)),
    "RBF SVM": lambda seed: make_pipeline(StandardScaler(), SVC(C=4.0, gamma="scale", cache_size=500)),
    "random forest": lambda seed: RandomForestClassifier(100, min_samples_leaf=4, random_state=seed),
}
"""By name, what makes one from a seed."""


def embeddings_of(model: keras.Model, images: NDArray[np.uint8]) -> Floats:
    """What the last layer of a network reads: (n, h, w, 1) -> (n, d)."""
    network = keras.Model(model.input, models.embedding(model))
    features: Floats = network.predict(images.astype(np.float32), batch_size=512, verbose=0)
    return features


def fused(features: Sequence[Floats]) -> Floats:
    """Features of several networks as one: sign(x) * sqrt(|x|) of each, brought to length 1, side by side."""
    parts = []
    for one in features:
        rooted = np.sign(one) * np.sqrt(np.abs(one))
        parts.append(rooted / np.maximum(np.linalg.norm(rooted, axis=1, keepdims=True), 1e-12))
    return np.concatenate(parts, axis=1)


def compare(runs: Sequence[Path], data_folder: Path, seed: int = 1, out: Path | None = None) -> list[dict[str, Any]]:
    """Train each classifier on the Training features of one run, or of several fused, and measure it on PublicTest.

    Args:
        runs: run folders; all of one data recipe.
        data_folder: see ``datasets.load``.
        seed: of what is drawn.
        out: a JSON file to write; None for none.

    Returns:
        A row for each head and classifier: head, classifier, n, accuracy, mean_recall, seconds.

    Raises:
        EdgeFerError: runs or data are not as they should be.
    """
    recipes = []
    for run in runs:
        if not (run / "run.json").is_file():
            raise InputMissingError(f"{run} is no finished run: it has no run.json.")
        recipes.append(load_recipe(run / "recipe.toml").data)
    if any(recipe != recipes[0] for recipe in recipes):
        raise ConfigError("The runs were trained on other data: their features do not go together.")
    splits = load_data(data_folder, recipes[0])
    training, test = splits["Training"], splits["PublicTest"]
    for head in test.heads:
        if not (truth_for(test, head) >= 0).any():
            raise DataError(f"No PublicTest sample has a label of {head.name}: no classifier can be measured.")
    networks = [load_for(run / "model.keras", test) for run in runs]
    features = [[embeddings_of(network, split.images) for network in networks] for split in (training, test)]
    known, asked = (one[0] if len(one) == 1 else fused(one) for one in features)
    rows = []
    console = Console(stderr=True)
    for head in test.heads:
        truth, wanted = truth_for(training, head), truth_for(test, head)
        labeled, measured = np.flatnonzero(truth >= 0), wanted >= 0
        there = np.unique(wanted[measured])
        if len(np.unique(truth[labeled])) < 2:
            raise ConfigError(f"The Training samples of {head.name} are of one class: there is nothing to tell apart.")
        for name, made in CLASSIFIERS.items():
            began = time.monotonic()
            learned = labeled
            if name == "RBF SVM" and len(labeled) > RBF_SAMPLES:
                learned = np.random.default_rng(seed).choice(labeled, RBF_SAMPLES, replace=False)
            classifier = made(seed).fit(known[learned], truth[learned])
            predicted = classifier.predict(asked[measured])
            recall = recall_score(wanted[measured], predicted, labels=there, average="macro")
            rows.append(
                {
                    "head": head.name,
                    "classifier": name,
                    "learned_from": len(learned),
                    "n": int(measured.sum()),
                    "accuracy": round(float(accuracy_score(wanted[measured], predicted)), 4),
                    "mean_recall": round(float(recall), 4),
                    "seconds": round(time.monotonic() - began, 1),
                }
            )
            console.print(f"{head.name}: {name} {rows[-1]['accuracy']:.2%}", highlight=False)
    if out:
        write_atomically(out, (json.dumps(rows, indent=2) + "\n").encode())
    return rows


def table_of(rows: Sequence[dict[str, Any]]) -> Table:
    """The rows as a table for a terminal."""
    table = Table("head", "classifier", "learned from", "N", "accuracy", "mean recall", "s")
    for row in rows:
        percent = (f"{row[key]:.2%}" for key in ("accuracy", "mean_recall"))
        learned, n = f"{row['learned_from']:,}", f"{row['n']:,}"
        table.add_row(row["head"], row["classifier"], learned, n, *percent, str(row["seconds"]))
    return table
