"""Fold squeeze-and-excitation into the batch normalization before it: each channel's scale becomes its mean.

    python -m training fold --of runs/se --data ~/fer2013 --run runs/se-folded

What is left is the network of the same recipe without ``model.squeeze_excitation``: smaller, and with nothing but
convolutions and sums in it. It is an initialization to train on from: where the scales vary from face to face, folding
costs accuracy.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from edge_fer.errors import ConfigError
from training import models
from training.recipe import ModelRecipe, load_recipe
from training.runs import load_for, read_data, refuse_used, sha256_of, write_run

FACES = 3000
"""Training faces over which the mean of a scale is taken, as they are."""


def fold_squeeze_excitation(network: keras.Model, recipe: ModelRecipe, images: NDArray[np.uint8]) -> keras.Model:
    """The recipe's network without squeeze-and-excitation: its mean scales over ``images`` go into batch normalization.

    A scale s >= 0 behind ReLU: s * ReLU(gamma * x + beta) = ReLU(s * gamma * x + s * beta).

    Args:
        network: made by ``models.build(recipe)``, trained.
        recipe: with ``squeeze_excitation``, without ``repvgg``.
        images: uint8 (n, height, width, 1).

    Raises:
        ConfigError: the network has no squeeze-and-excitation, or RepVGG blocks before it.
    """
    products = [layer for layer in network.layers if isinstance(layer, layers.Multiply)]
    if not products or recipe.repvgg:
        raise ConfigError("Only networks with model.squeeze_excitation and without model.repvgg can be folded.")
    scales = keras.Model(network.input, [product.input[1] for product in products])
    means = [scale.mean(axis=(0, 1, 2)) for scale in scales.predict(images, batch_size=256, verbose=0)]
    of_excitation = {
        variable.path
        for layer in network.layers
        if isinstance(layer, layers.Conv2D) and layer.kernel_size == (1, 1)
        for variable in layer.weights
    }
    folded = models.build(dataclasses.replace(recipe, squeeze_excitation=0), network.output_shape[1])
    pairs = zip(network.weights, network.get_weights(), strict=True)
    folded.set_weights([value for variable, value in pairs if variable.path not in of_excitation])
    norms = [layer for layer in folded.layers if isinstance(layer, layers.BatchNormalization)]
    for norm, mean in zip(norms, means, strict=True):
        norm.gamma.assign(norm.gamma * mean)
        norm.beta.assign(norm.beta * mean)
    return folded


def fold(first: Path, data_folder: Path, run: Path) -> None:
    """Write a run that is another one with its squeeze-and-excitation folded, for ``train --init-from``.

    Args:
        first: run folder of a recipe with ``model.squeeze_excitation``.
        data_folder: see ``datasets.load``; PublicTest is measured.
        run: new folder.

    Raises:
        EdgeFerError: the run, the data or the new folder is not as it should be.
    """
    refuse_used(run)
    recipe = load_recipe(first / "recipe.toml")
    path = first / "model.keras"
    splits = read_data(data_folder, recipe)
    network = load_for(path, splits["PublicTest"])
    folded = fold_squeeze_excitation(network, recipe.model, splits["Training"].images[:FACES])
    model = dataclasses.replace(recipe.model, squeeze_excitation=0)
    write_run(run, dataclasses.replace(recipe, model=model), folded, splits, {"folded": sha256_of(path)})
