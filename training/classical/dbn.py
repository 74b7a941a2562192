"""A deep belief network for expressions: greedy pre-training, then fine-tuning as one network.

    python -m training dbn --data ~/fer2013 --run runs/dbn

Each machine learns without labels what the one below gives (``rbm``); stacked, with a dense layer on top, they are a
network that learns the labels by gradient (Hinton and Salakhutdinov, Science 2006).
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console

from edge_fer.errors import ConfigError
from edge_fer.files import write_atomically
from training.classical.rbm import RBM, fit_stack
from training.recipe import DistillRecipe, Recipe
from training.runs import read_data, refuse_used, write_run
from training.tasks import TrainingNetwork, class_balance, compose, targets_of


def network_of(stack: Sequence[RBM], mean: NDArray[np.float32], sigma: float, classes: int) -> keras.Model:
    """The machines as a network: pixels (n, h, w, 1), 0-255 -> logits (n, classes).

    Args:
        stack: from below; the first one reads standardized pixels.
        mean: of each pixel, (h, w, 1).
        sigma: of all pixels.
        classes: of all heads together.
    """
    pixels = keras.Input(mean.shape, name="pixels")
    flat = mean.ravel()
    x = layers.Normalization(mean=flat, variance=np.full_like(flat, sigma**2))(layers.Flatten()(pixels))
    for number, machine in enumerate(stack):
        dense = layers.Dense(len(machine.hidden_bias), activation="sigmoid", name=f"machine_{number}")
        x = dense(x)
        dense.set_weights([machine.weights, machine.hidden_bias])
    return keras.Model(pixels, layers.Dense(classes, name="logits")(x), name="dbn")


def filters_png(machine: RBM, side: int, path: Path, columns: int = 16, rows: int = 6) -> None:
    """What the first hidden units look for: their weights as images, side by side, each from its least to its most."""
    shown = machine.weights.T[: columns * rows].reshape(-1, side, side)
    sheet = np.full((rows * (side + 1), columns * (side + 1)), 255, np.uint8)
    for at, one in enumerate(shown):
        scaled = (one - one.min()) / max(float(np.ptp(one)), 1e-9) * 255
        top, left = at // columns * (side + 1), at % columns * (side + 1)
        sheet[top : top + side, left : left + side] = scaled
    figure = Figure(figsize=(columns / 2, rows / 2))
    axes = figure.subplots()
    axes.imshow(sheet, cmap="gray")
    axes.axis("off")
    figure.savefig(path, dpi=150, bbox_inches="tight")


def curves_png(stack: Sequence[RBM], path: Path) -> None:
    """Reconstruction error of each machine by epoch."""
    figure = Figure(figsize=(6, 4))
    axes = figure.subplots()
    for number, machine in enumerate(stack):
        axes.plot(range(1, len(machine.errors) + 1), machine.errors, marker="o", label=f"machine {number + 1}")
    axes.set_xlabel("epoch")
    axes.set_ylabel("mean squared reconstruction error")
    axes.legend()
    figure.savefig(path, dpi=120, bbox_inches="tight")


def train(recipe: Recipe, data_folder: Path, run: Path, hidden: Sequence[int] = (500, 200), epochs: int = 10) -> None:
    """Train a deep belief network on the Training samples.

    Args:
        recipe: its ``epochs``, ``batch_size``, ``optimizer.learning_rate`` and ``seed`` are of the fine-tuning.
        data_folder: see ``datasets.load``.
        run: new folder: a run as all others, with errors.json, reconstruction.png and filters.png.
        hidden: units of each machine, from below.
        epochs: of each machine.

    Raises:
        EdgeFerError: recipe, data or run folder are not as they should be.
    """
    started, console = time.monotonic(), Console(stderr=True)
    refuse_used(run)
    if not hidden or min(hidden) < 1 or epochs < 1:
        raise ConfigError("--hidden and --epochs must be at least 1.")
    splits = read_data(data_folder, recipe)
    training = splits["Training"]
    images = training.images.astype(np.float32)
    # What all faces share is not what a machine of 500 units should spend them on.
    mean = images.mean(axis=0)
    sigma = float((images - mean).std())
    data = ((images - mean) / sigma).reshape(len(images), -1)

    def show(layer: int, epoch: int, error: float) -> None:
        console.print(f"machine {layer + 1}  epoch {epoch + 1:3d}  reconstruction error {error:.4f}", highlight=False)

    stack = fit_stack(data, hidden, epochs, recipe.seed, show)
    run.mkdir(parents=True, exist_ok=True)
    curves_png(stack, run / "reconstruction.png")
    filters_png(stack[0], images.shape[1], run / "filters.png")
    write_atomically(run / "errors.json", (json.dumps([machine.errors for machine in stack]) + "\n").encode())
    keras.utils.set_random_seed(recipe.seed)
    core = network_of(stack, mean, sigma, sum(len(head.labels) for head in training.heads))
    network = TrainingNetwork(core.input, {"logits": core.output})
    on_labels = dataclasses.replace(recipe, distill=DistillRecipe())
    network.tasks = compose(on_labels, training.heads, ["logits"], class_balance(recipe.class_balance, training))
    network.compile(keras.optimizers.Adam(recipe.optimizer.learning_rate), jit_compile=False)
    targets = targets_of(training, recipe.label_smoothing)
    told: Any = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: console.print(f"epoch {epoch + 1:3d}  loss {logs['loss']:.3f}")
    )
    network.fit(images, targets, batch_size=recipe.batch_size, epochs=recipe.epochs, callbacks=[told], verbose=0)
    facts = {"hidden": list(hidden), "machine_epochs": epochs, "seconds": round(time.monotonic() - started)}
    write_run(run, recipe, core, splits, facts)
