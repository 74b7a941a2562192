"""PHRNN: how the parts of a face move, in a hierarchy of bidirectional recurrent networks.

Zhang, Huang, Du and Wang, "Facial Expression Recognition Based on Deep Evolutional Spatial-Temporal Networks", IEEE TIP
2017, after the hierarchy for skeletons of Du, Wang and Wang, CVPR 2015: a network for each of brows, eyes, nose and
mouth; what they say over time is joined by pairs, then to the whole face, where an LSTM gathers it. The paper joins it
with MSCNN's answer to the still face, as ``fused`` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from training.sequences.clips import Examples
from training.sequences.fit import Drawn, Plan, Trained, fit, mmac, one_hot, softmax
from training.sequences.trajectories import PARTS
from training.tasks import Classification, TrainingNetwork

HALVES = {"upper": ("brows", "eyes"), "lower": ("nose", "mouth")}
"""Which parts are joined."""
PART_UNITS, HALF_UNITS, FACE_UNITS = 16, 24, 32
"""Of each direction, from below."""
NOISE = 0.3
"""Sigma of what is added to a coordinate in training; 1 is how much it differs between faces."""


def build(trajectories: NDArray[np.float32], classes: int) -> keras.Model:
    """Points (n, frames, 51, 2) -> logits (n, classes).

    Args:
        trajectories: of training, (n, frames, 51, 2): of each point mean and variance are taken out.
        classes: of the data set.
    """
    points = keras.Input(trajectories.shape[1:], name="points")
    standard = layers.Normalization(axis=(2, 3), name="standard")
    standard.adapt(trajectories)
    x = layers.GaussianNoise(NOISE)(standard(points))

    def both_ways(layer: Any, units: int, name: str, steps: bool = True) -> Any:
        return layers.Bidirectional(layer(units, return_sequences=steps, unroll=True), name=name)

    frames = trajectories.shape[1]
    parts = {}
    for name, where in PARTS.items():
        own = layers.Reshape((frames, 2 * len(where)))(x[:, :, where.start : where.stop])
        parts[name] = both_ways(layers.SimpleRNN, PART_UNITS, name)(own)
    halves = [
        both_ways(layers.SimpleRNN, HALF_UNITS, half)(layers.Concatenate()([parts[name] for name in names]))
        for half, names in HALVES.items()
    ]
    face = both_ways(layers.LSTM, FACE_UNITS, "face", steps=False)(layers.Concatenate()(halves))
    return keras.Model(points, layers.Dense(classes, name="logits")(layers.Dropout(0.3)(face)), name="phrnn")


def train(training: Examples, test: Examples, plan: Plan, seed: int) -> Trained:
    """Train from scratch on trajectories as ``trajectories.views`` makes them."""
    keras.utils.set_random_seed(seed)
    core = build(training.inputs.reshape(-1, *training.inputs.shape[2:]), training.classes)
    network = TrainingNetwork(core.input, {"logits": core.output})
    network.tasks = [Classification("expression", slice(0, training.classes))]

    def draw(chance: np.random.Generator) -> Drawn:
        view = chance.integers(0, 2, len(training.truth))
        return training.inputs[np.arange(len(view)), view], {"expression": one_hot(training.truth, training.classes)}

    def measure() -> dict[str, float]:
        found = core.predict_on_batch(test.inputs[:, 0]).argmax(axis=1)
        return {"held-out": float((found == test.truth).mean())}

    curves = fit(network, draw, plan, np.random.default_rng(seed), measure)
    logits = core.predict(test.inputs[:, 0], verbose=0)
    return Trained(softmax(logits)[:, np.newaxis], curves, core.count_params(), mmac(core))


def fused(answers: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The mean of several networks' probabilities of a clip: (n, frames, classes) each, of which the last frame counts.

    Returns:
        (n, 1, classes).
    """
    return np.asarray(np.mean([one[:, -1:] for one in answers], axis=0))
