"""What all sequence methods share: epochs of examples that are drawn anew, and what a training leaves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

Drawn = tuple[Any, Mapping[str, NDArray[np.float32]]]


class Plan(NamedTuple):
    """How long and how fast a network learns.

    Attributes:
        epochs: passes.
        learning_rate: of Adam at the start; a cosine brings it to 0.
        batch_size: clips, or pairs of frames.
    """

    epochs: int
    learning_rate: float = 1e-3
    batch_size: int = 16


class Trained(NamedTuple):
    """What a training leaves of a fold.

    Attributes:
        probabilities: float64 (m, frames, classes) of the test's clips; one "frame" where a method answers for a whole
            clip.
        curves: measures by their name, after each epoch.
        parameters: of the network that answers.
        mmac: millions of multiply-accumulates of it, for a frame or a clip.
    """

    probabilities: NDArray[np.float64]
    curves: dict[str, list[float]]
    parameters: int
    mmac: float


def fit(
    network: keras.Model,
    draw: Callable[[np.random.Generator], Drawn],
    plan: Plan,
    chance: np.random.Generator,
    measure: Callable[[], dict[str, float]],
) -> dict[str, list[float]]:
    """Train a network that brings its own loss, or is given cross entropy with the target "expression".

    Args:
        network: ``tasks.TrainingNetwork``, or another model with logits.
        draw: inputs and targets of an epoch.
        plan: see there.
        chance: what is drawn from, order of the examples too.
        measure: named measures, asked after each epoch.

    Returns:
        The loss and the measures by epoch.
    """
    curves: dict[str, list[float]] = {}
    compiled = False
    for _ in range(plan.epochs):
        inputs, targets = draw(chance)
        count = len(next(iter(targets.values())))
        if not compiled:
            steps = plan.epochs * math.ceil(count / plan.batch_size)
            schedule = keras.optimizers.schedules.CosineDecay(plan.learning_rate, steps)
            network.compile(keras.optimizers.Adam(schedule), jit_compile=False)
            compiled = True
        order = chance.permutation(count)
        inputs, targets = keras.tree.map_structure(lambda values, order=order: values[order], (inputs, dict(targets)))
        history = network.fit(inputs, targets, batch_size=plan.batch_size, shuffle=False, verbose=0)
        for name, value in {"loss": float(history.history["loss"][0]), **measure()}.items():
            curves.setdefault(name, []).append(value)
    return curves


def one_hot(truth: NDArray[np.int64], classes: int) -> NDArray[np.float32]:
    """float32 (n, classes)."""
    return np.eye(classes, dtype=np.float32)[truth]


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Over the last axis."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def mmac(model: keras.Model) -> float:
    """Millions of multiply-accumulates for one clip or frame, of convolutions, dense and recurrent layers."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D | layers.Conv3D | layers.Dense):
            total += math.prod(layer.output.shape[1:-1]) * math.prod(layer.kernel.shape)
        elif isinstance(layer, layers.Bidirectional):
            # Each matrix of a recurrent layer is used once a step.
            total += layer.input.shape[1] * sum(math.prod(w.shape) for w in layer.weights if len(w.shape) == 2)
    return total / 1e6
