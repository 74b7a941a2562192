"""Linear probe: what frozen features of networks tell of expressions, from few labels: how pre-training is judged.

    python -m training probe --run runs/plain-faces --run runs/contractive --data ~/fer2013 -o runs/probe.csv

A linear classifier learns from a tenth of the Training labels; the network stays as it is. Beside the runs stands their
network untrained, with the random weights of the first run's seed. Features are the last maps of each size, each
brought to at most 4x4 places by max pooling, as Radford et al. judged a GAN's discriminator (arXiv 1511.06434, section
5.1). The classifier is ridge regression to +1 and -1 by class; its penalty is chosen by leave-one-out among the same
labels (Rifkin & Lippert, 2007).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import RidgeClassifierCV
from sklearn.metrics import accuracy_score, recall_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from datasets import truth_for
from edge_fer.errors import ConfigError, DataError, InputMissingError
from training import models
from training.curves import write_lines
from training.networks import face_net
from training.recipe import load_recipe
from training.runs import load_data, replace

GRID = 4
"""Places of a map that are told apart, in each direction."""
PENALTIES = 10.0 ** np.arange(0, 7)
UNTRAINED = "untrained"
FACE_NETWORK = "face network"

Features = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Images uint8 (n, h, w, 1) -> (n, d)."""


def pooled_maps(model: keras.Model, name: object = "The network") -> keras.Model:
    """A network from images to its features: the last map of each size, of at most ``GRID`` places a side, (n, d).

    Args:
        model: the network.
        name: of it in the error.

    Raises:
        DataError: it has no maps.
    """
    ends = {}
    for layer in model.layers[1:]:
        shape = layer.output.shape
        if len(shape) == 4 and shape[1] > 1 and shape[3] > 1:
            ends[shape[1]] = layer.output
    if not ends:
        raise DataError(f"{name} has no convolutions, whose maps a probe reads: leave it out.")
    parts = [
        layers.Flatten()(layers.MaxPooling2D(math.ceil(side / GRID), padding="same")(one)) for side, one in ends.items()
    ]
    return keras.Model(model.input, layers.Concatenate()(parts) if len(parts) > 1 else parts[0])


def labeled_rows(truth: NDArray[np.int64], fraction: float, seed: int) -> NDArray[np.int64]:
    """Rows of a part of the labels: of each class the same fraction, at least two, or all of a class of fewer.

    Args:
        truth: (n,), -1 where there is no label.
        fraction: above 0, to 1.
        seed: of what is drawn.

    Raises:
        ConfigError: there are fewer than two classes.
    """
    classes = np.unique(truth[truth >= 0])
    if len(classes) < 2:
        raise ConfigError("The Training samples are of one class: there is nothing that a probe could tell apart.")
    chance = np.random.default_rng(seed)
    rows = []
    for one in classes:
        own = np.flatnonzero(truth == one)
        rows.append(chance.choice(own, min(len(own), max(2, round(fraction * len(own)))), replace=False))
    return np.sort(np.concatenate(rows))


def probe(
    runs: Sequence[Path],
    data_folder: Path,
    out: Path,
    *,
    fraction: float = 0.1,
    seeds: int = 3,
    face_network: bool = False,
) -> list[dict[str, Any]]:
    """Probe runs, their network untrained, and a face network.

    Args:
        runs: folders with model.keras and recipe.toml, of ``train`` or ``pretrain``; all of one data recipe.
        data_folder: see ``datasets.load``.
        out: CSV to write; its figure goes beside it, as .png.
        fraction: of the Training labels, above 0, to 1.
        seeds: how often labels are drawn.
        face_network: probe dlib's face network too.

    Returns:
        A row for each network, head and seed: network, features, head, labels, seed, n, accuracy, mean_recall.

    Raises:
        EdgeFerError: runs or data are not as they should be, or a package is missing.
    """
    if not 0 < fraction <= 1 or seeds < 1:
        raise ConfigError(f"--fraction must be above 0 and at most 1, --seeds at least 1, not {fraction} and {seeds}.")
    weights = face_net.installed() if face_network else None
    recipes = []
    for run in runs:
        if not (run / "model.keras").is_file() or not (run / "recipe.toml").is_file():
            raise InputMissingError(f"{run} is no run: it has no model.keras or no recipe.toml.")
        recipes.append(load_recipe(run / "recipe.toml"))
    if any(one.data != recipes[0].data for one in recipes):
        raise ConfigError("The runs were trained on other data: their features cannot be compared.")
    if len({run.name for run in runs}) < len(runs):
        raise ConfigError("Two of the runs have folders of one name, by which they are told apart.")
    splits = load_data(data_folder, recipes[0].data)
    training, test = splits["Training"], splits["PublicTest"]
    for head in test.heads:
        if not (truth_for(test, head) >= 0).any():
            raise DataError(f"No PublicTest sample has a label of {head.name}: no probe can be measured.")
    drawn = {
        (head.name, seed): labeled_rows(truth_for(training, head), fraction, seed)
        for head in test.heads
        for seed in range(1, seeds + 1)
    }
    # Only what some probe learns from is looked at: a face network takes its time.
    needed = np.unique(np.concatenate(list(drawn.values())))
    keras.utils.set_random_seed(recipes[0].seed)
    untrained = models.build(recipes[0].model, sum(len(head.labels) for head in test.heads))
    networks: dict[str, Features] = {UNTRAINED: _features_of(pooled_maps(untrained))}
    networks |= {run.name: _features_of(pooled_maps(models.load(run / "model.keras"), run)) for run in runs}
    if weights:
        whole = face_net.load(weights, training.images.shape[1])
        networks[FACE_NETWORK] = _features_of(keras.Model(whole.input, layers.Flatten()(whole.output["map"])))
    console, rows = Console(stderr=True), []
    for name, features in networks.items():
        known, asked = features(training.images[needed]), features(test.images)
        for head in test.heads:
            truth, wanted = truth_for(training, head), truth_for(test, head)
            for seed in range(1, seeds + 1):
                learned = drawn[head.name, seed]
                classifier = make_pipeline(StandardScaler(), RidgeClassifierCV(PENALTIES))
                classifier.fit(known[np.searchsorted(needed, learned)], truth[learned])
                predicted, measured = classifier.predict(asked[wanted >= 0]), wanted[wanted >= 0]
                recall = recall_score(measured, predicted, labels=np.unique(measured), average="macro")
                rows.append(
                    {
                        "network": name,
                        "features": known.shape[1],
                        "head": head.name,
                        "labels": len(learned),
                        "seed": seed,
                        "n": len(measured),
                        "accuracy": round(float(accuracy_score(measured, predicted)), 4),
                        "mean_recall": round(float(recall), 4),
                    }
                )
            console.print(f"{name}, {head.name}: {_mean(rows[-seeds:], 'accuracy'):.2%}", highlight=False)
    out.parent.mkdir(parents=True, exist_ok=True)
    replace(out.with_suffix(".png"), figure_of(rows).savefig)
    replace(out, lambda path: write_lines(path, rows))
    return rows


def _features_of(network: keras.Model) -> Features:
    def features(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        batches = (images[at : at + 256].astype(np.float32) for at in range(0, len(images), 256))
        return np.concatenate([np.asarray(network.predict_on_batch(batch), np.float32) for batch in batches])

    return features


def _mean(rows: Sequence[dict[str, Any]], key: str) -> float:
    return float(np.mean([row[key] for row in rows]))


def _grouped(rows: Sequence[dict[str, Any]], head: str) -> dict[str, list[dict[str, Any]]]:
    """The rows of a head by network."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["head"] == head:
            groups.setdefault(row["network"], []).append(row)
    return groups


def figure_of(rows: Sequence[dict[str, Any]]) -> Figure:
    """Accuracy of each network, a panel for each head: a bar for the mean, a point for each seed."""
    heads = list(dict.fromkeys(row["head"] for row in rows))
    names = list(dict.fromkeys(row["network"] for row in rows))
    figure = Figure(figsize=(5 * len(heads), 1 + 0.4 * len(names)), layout="constrained")
    for axes, head in zip(figure.subplots(1, len(heads), squeeze=False, sharey=True).flat, heads, strict=True):
        for name, own in _grouped(rows, head).items():
            axes.barh(name, _mean(own, "accuracy"), color="0.8")
            axes.plot([row["accuracy"] for row in own], [name] * len(own), "k.", markersize=4)
        axes.set(title=head, xlabel="accuracy on PublicTest")
        axes.grid(axis="x", alpha=0.3)
    figure.axes[0].invert_yaxis()
    return figure


def table_of(rows: Sequence[dict[str, Any]]) -> Table:
    """The means over the seeds as a table for a terminal, with the lowest and highest accuracy in brackets."""
    table = Table("head", "network", "labels", "N", "accuracy %", "mean recall %", box=SIMPLE)
    for head in dict.fromkeys(row["head"] for row in rows):
        for name, own in _grouped(rows, head).items():
            accuracies = [row["accuracy"] for row in own]
            table.add_row(
                head,
                name,
                f"{own[0]['labels']:,}",
                f"{own[0]['n']:,}",
                f"{100 * np.mean(accuracies):.1f} ({100 * min(accuracies):.1f}-{100 * max(accuracies):.1f})",
                f"{100 * _mean(own, 'mean_recall'):.1f}",
            )
    return table
