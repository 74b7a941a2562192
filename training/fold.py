"""Take the gates of squeeze and excitation out of a trained network: each becomes its mean, in the layer before it.

    python -m training fold --of runs/gated --data ~/fer2013 --run runs/gated-folded

What is left is the network of the same recipe without ``model.squeeze``: smaller, and with nothing but convolutions and
sums in it. It is a beginning to learn on from: where gates vary from face to face, folding costs accuracy.
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray
from rich.console import Console

from edge_fer.errors import ConfigError
from evaluation import datasets
from training import models
from training.recipe import ModelRecipe, load_recipe, read_table, to_toml
from training.train import write_run

FACES = 3000
"""Training faces over which a gate's mean is taken, as they are."""


def fold_gates(network: keras.Model, recipe: ModelRecipe, images: NDArray[np.uint8]) -> keras.Model:
    """The recipe's network without gates, with each gate's mean over ``images`` in the batch normalisation before it.

    A gate g >= 0 behind ReLU: g * ReLU(gamma * x + beta) = ReLU(g * gamma * x + g * beta).

    Args:
        network: made by ``models.build(recipe)``, trained.
        recipe: with ``squeeze``, without ``branches``.
        images: uint8 (n, height, width, 1).

    Raises:
        ConfigError: the network has no such gates.
    """
    products = [layer for layer in network.layers if isinstance(layer, layers.Multiply)]
    if not products or recipe.branches:
        raise ConfigError("Only networks with model.squeeze and without model.branches have gates to fold.")
    gates = keras.Model(network.input, [product.input[1] for product in products])
    means = [gate.mean(axis=(0, 1, 2)) for gate in gates.predict(images, batch_size=256, verbose=0)]
    of_gates = {
        variable.path
        for layer in network.layers
        if isinstance(layer, layers.Conv2D) and layer.kernel_size == (1, 1)
        for variable in layer.weights
    }
    folded = models.build(dataclasses.replace(recipe, squeeze=0))
    pairs = zip(network.weights, network.get_weights(), strict=True)
    folded.set_weights([value for variable, value in pairs if variable.path not in of_gates])
    norms = [layer for layer in folded.layers if isinstance(layer, layers.BatchNormalization)]
    for norm, mean in zip(norms, means, strict=True):
        norm.gamma.assign(norm.gamma * mean)
        norm.beta.assign(norm.beta * mean)
    return folded


def fold(first: Path, data_folder: Path, run: Path) -> None:
    """Write a run that is another one without its gates, for ``train --begin-with``.

    Args:
        first: run folder of a recipe with ``model.squeeze``.
        data_folder: see ``datasets.load``; PublicTest is measured.
        run: new folder.

    Raises:
        EdgeFerError: the run, the data or the new folder is not as it should be.
    """
    if run.exists() and any(run.iterdir()):
        raise ConfigError(f"{run} is not empty: choose another --run.")
    recipe = load_recipe(first / "recipe.toml")
    path = first / "model.keras"
    network = models.load(path)
    Console(stderr=True).print(f"Reading {data_folder} ...")
    splits = datasets.load(data_folder, recipe.data.exclude or None, alignment=recipe.data.alignment)
    folded = fold_gates(network, recipe.model, splits["Training"].images[:FACES])
    run.mkdir(parents=True, exist_ok=True)
    table = read_table(first / "recipe.toml", ["model.squeeze=0"])
    (run / "recipe.toml").write_text(to_toml(table), encoding="utf-8")
    write_run(run, recipe, folded, splits, {"folded": hashlib.sha256(path.read_bytes()).hexdigest()})
