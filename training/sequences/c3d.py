"""C3D in small: convolutions over time, height and width, whose weights are the same at each moment.

Tran et al., "Learning Spatiotemporal Features with 3D Convolutional Networks", ICCV 2015, whose kernels are 3x3x3
throughout. Theirs see 16 frames of 112x112 pixels with 78 million parameters; this one is for the few faces of posed
sequences, and keeps all frames to the end.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from training.sequences.clips import Examples
from training.sequences.fit import Drawn, Plan, Trained, fit, mmac, one_hot, softmax
from training.tasks import Classification, TrainingNetwork

FILTERS = (16, 32, 48)
SHIFT_PX = 3
"""How far clips are shifted by chance in training, each way."""


def build(clip: tuple[int, ...], classes: int) -> keras.Model:
    """Pixels (n, frames, height, width, 1), 0-255 -> logits (n, classes), for any number of frames.

    Args:
        clip: (frames, height, width, 1).
        classes: of the data set.
    """
    pixels = keras.Input(clip, name="pixels")
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(pixels)
    for filters in FILTERS:
        x = layers.Conv3D(filters, 3, (1, 2, 2), "same", use_bias=False, kernel_initializer="he_normal")(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    x = layers.Dropout(0.3)(layers.GlobalAveragePooling3D()(x))
    return keras.Model(pixels, layers.Dense(classes, name="logits")(x), name="c3d")


def shifted(clips: NDArray[np.float32], by: NDArray[np.int64]) -> NDArray[np.float32]:
    """Clips (n, frames, height, width, 1), each moved by its rows and columns of ``by``, (n, 2); edges are repeated."""
    height, width = clips.shape[2:4]
    rows = np.clip(np.arange(height) - by[:, :1], 0, height - 1)
    columns = np.clip(np.arange(width) - by[:, 1:], 0, width - 1)
    moved = np.take_along_axis(clips, rows[:, np.newaxis, :, np.newaxis, np.newaxis], axis=2)
    return np.take_along_axis(moved, columns[:, np.newaxis, np.newaxis, :, np.newaxis], axis=3)


def train(training: Examples, test: Examples, plan: Plan, seed: int) -> Trained:
    """Train from scratch; beside the loss, its curves say what is left without movement and with time reversed."""
    keras.utils.set_random_seed(seed)
    core = build(training.inputs.shape[2:], training.classes)
    network = TrainingNetwork(core.input, {"logits": core.output})
    network.tasks = [Classification("expression", slice(0, training.classes))]

    def draw(chance: np.random.Generator) -> Drawn:
        view = chance.integers(0, 2, len(training.truth))
        clips = training.inputs[np.arange(len(view)), view]
        by = chance.integers(-SHIFT_PX, SHIFT_PX + 1, (len(view), 2))
        return shifted(clips, by), {"expression": one_hot(training.truth, training.classes)}

    def measure() -> dict[str, float]:
        clips = test.inputs[:, 0]
        still = np.repeat(clips[:, -1:], clips.shape[1], axis=1)
        shown = {"held-out": clips, "held-out, the peak alone": still, "held-out, reversed": clips[:, ::-1]}
        return {
            name: float((core.predict_on_batch(one).argmax(axis=1) == test.truth).mean()) for name, one in shown.items()
        }

    curves = fit(network, draw, plan, np.random.default_rng(seed), measure)
    logits = core.predict(test.inputs[:, 0], verbose=0)
    return Trained(softmax(logits)[:, np.newaxis], curves, core.count_params(), mmac(core))
