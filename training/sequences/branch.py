"""A trained network as the branch of one frame: its lower stages stand still, its upper ones are fine-tuned.

What a few hundred faces of posed sequences cannot teach, edges and their corners, is taken over; its answers are
worked out once, for each image and its mirror image, so that an epoch costs the upper stages alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from edge_fer.errors import ConfigError, DataError
from training import models
from training.networks.scoring import last_map, stage_ends
from training.sequences.clips import views

DROPOUT = 0.2


class Trunk(NamedTuple):
    """A network cut in two.

    Attributes:
        lower: pixels (n, h, w, 1), 0-255 -> a map (n, h / 2, w / 2, c): the first half of the sizes it goes through.
        upper: that map -> the map before the global average.
    """

    lower: keras.Model
    upper: keras.Model

    def inputs(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What ``upper`` reads: uint8 (n, frames, h, w, 1) -> float32 (n, 2, frames, ...), as in ``clips.Examples``."""
        both = views(images)
        flat = both.reshape(-1, *both.shape[3:])
        maps = self.lower.predict(flat, batch_size=128, verbose=0)
        return np.asarray(maps.reshape(*both.shape[:3], *maps.shape[1:]), np.float32)


def cut(path: Path) -> Trunk:
    """Read a network and cut it where half of the sizes that it goes through are done.

    Args:
        path: a ``.keras`` file of ``training.models``.

    Raises:
        InputMissingError: no such file.
        DataError: it is no such network, or several trunks that are fused late.
    """
    model = models.load(path)
    try:
        ends = stage_ends(model)
    except ConfigError as error:
        raise DataError(f"{path} is no network for sequences. {error}") from None
    where = ends[max(0, len(ends) // 2 - 1)]
    return Trunk(keras.Model(model.input, where), keras.Model(where, last_map(model)))


def branch(trunk: Trunk, classes: int, deeper: int = 0) -> keras.Model:
    """The upper stages with a new last layer: map -> {"embedding": (n, d), "logits": (n, classes)}.

    Args:
        trunk: whose weights it begins with, as a copy.
        classes: of the data set.
        deeper: residual blocks behind it, which begin as the identity.
    """
    upper = keras.models.clone_model(trunk.upper)
    upper.set_weights(trunk.upper.get_weights())
    x = upper.output
    for number in range(deeper):
        y = layers.Conv2D(x.shape[-1], 3, padding="same", use_bias=False, name=f"deeper_{number}_convolution")(x)
        # gamma of zeros: what is added is nothing at first.
        norm = layers.BatchNormalization(momentum=0.9, gamma_initializer="zeros", name=f"deeper_{number}_norm")
        x = layers.ReLU(name=f"deeper_{number}_relu")(layers.Add(name=f"deeper_{number}_sum")([x, norm(y)]))
    embedding = layers.GlobalAveragePooling2D()(x)
    logits = layers.Dense(classes, name="logits")(layers.Dropout(DROPOUT)(embedding))
    return keras.Model(upper.input, {"embedding": embedding, "logits": logits})


def of_frames(network: keras.Model, inputs: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """What a branch says of the frames of clips, not mirrored: inputs (n, 2, frames, ...) -> (n, frames, d) each."""
    frames = inputs[:, 0]
    said = network.predict(frames.reshape(-1, *frames.shape[2:]), batch_size=128, verbose=0)
    return {name: values.reshape(*frames.shape[:2], -1) for name, values in said.items()}
