"""YuNet's published weights as the beginning of a training: what it learned from color, our network has in gray.

The weights are Shiqi Yu's, under the MIT license: see ``THIRD-PARTY.md``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from datasets.boxes import POINTS
from edge_fer.errors import DataError, InputMissingError
from training.detector.network import STRIDES

Floats = NDArray[np.float32]
NAME = "face_detection_yunet_2023mar.onnx"
BLOCKS = (
    "quarter_0",
    *(f"eighth_{number}" for number in range(4)),
    *(f"grid{stride}_{number}" for stride in STRIDES for number in range(2)),
    "merged32",
    "merged16",
    "merged8",
)
"""Of our network, in the order of YuNet's; a block is a pointwise and a depthwise convolution."""


def load(network: keras.Model, path: Path, images: Floats) -> None:
    """Read YuNet's weights into a network of ``network.build``.

    Gray pixels stand for three equal colors, so their kernels are added up. Keras pads a halving convolution at the
    bottom and the right, YuNet all around: the picture seems shifted by a pixel, which the predicted offsets take
    back, as they do half a stride, since YuNet counts from the corner of a cell and we from its center. The score is
    the mean of the logits of YuNet's two.

    YuNet's file has its normalization inside its convolutions. Here it takes up the images' own mean and variance and
    undoes them, so that it changes nothing at first and can be trained on.

    Args:
        network: gets the weights.
        path: of face_detection_yunet_2023mar.onnx, from OpenCV's model zoo.
        images: float32 (batch, height, width, 1), 0-255, of the kind that will be trained on.

    Raises:
        InputMissingError: no such file.
        DataError: it is not YuNet.
    """
    if not path.is_file():
        raise InputMissingError(f"There is no file {path}. `make real-models` fetches {NAME}.")
    try:
        read = cv2.dnn.readNetFromONNX(str(path))
        found = [
            read.getLayer(name).blobs for name in read.getLayerNames() if read.getLayer(name).type == "Convolution"
        ]
        _fill(
            network, [(np.asarray(kernel, np.float32), np.asarray(bias, np.float32).ravel()) for kernel, bias in found]
        )
    except (cv2.error, ValueError, IndexError, StopIteration):
        raise DataError(
            f"{path} is not the YuNet that this network is made like: `make real-models` fetches {NAME}."
        ) from None
    norms = [layer for layer in network.layers if isinstance(layer, layers.BatchNormalization)]
    for norm, values in zip(norms, keras.Model(network.input, [norm.input for norm in norms])(images), strict=True):
        mean, variance = (np.asarray(one) for one in ops.moments(values, axes=(0, 1, 2)))
        norm.set_weights([np.sqrt(variance + norm.epsilon), np.asarray(norm.beta) + mean, mean, variance])


def _fill(network: keras.Model, found: Sequence[tuple[Floats, Floats]]) -> None:
    rest = iter(found)

    def pair() -> tuple[Floats, Floats, Floats, Floats]:
        """The next pointwise and depthwise convolution, (in, out), (out,), (3, 3, out, 1) and (out,)."""
        (mix, mix_bias), (near, near_bias) = next(rest), next(rest)
        return mix[:, :, 0, 0].T, mix_bias, near.transpose(2, 3, 0, 1), near_bias

    def normalized(name: str, bias: Floats) -> None:
        """Scale 1 and this bias, while the variance of the data is taken as 1."""
        norm = network.get_layer(f"{name}_norm")
        one = np.ones_like(bias)
        norm.set_weights([one * math.sqrt(1 + norm.epsilon), bias, 0 * one, one])

    kernel, bias = next(rest)
    # Ours takes (gray / 127.5 - 1).
    gray = kernel.sum(axis=1).transpose(1, 2, 0)[:, :, np.newaxis] * 127.5
    network.get_layer("stem").set_weights([gray])
    normalized("stem", bias + gray.sum(axis=(0, 1, 2)))
    for name in BLOCKS:
        mix, mix_bias, near, near_bias = pair()
        network.get_layer(name).set_weights([mix[np.newaxis, np.newaxis], mix_bias])
        network.get_layer(f"{name}_near").set_weights([near])
        normalized(name, near_bias)
    pairs = {(name, stride): pair() for name in ("class", "boxes", "object", "points") for stride in STRIDES}
    for stride in STRIDES:
        kernels, biases = [], []
        for name in ("class", "object"):
            mix, mix_bias, near, near_bias = pairs[name, stride]
            kernels.append(near[:, :, 0] * mix[:, 0])
            biases.append(near_bias + mix_bias * near.sum())
        network.get_layer(f"scores{stride}").set_weights(
            [np.mean(kernels, axis=0)[..., np.newaxis], np.mean(biases, axis=0)]
        )
        shift = 1 / stride - 0.5
        for name, shifts in (("boxes", np.array([shift, shift, 0, 0])), ("points", np.full(2 * POINTS, shift))):
            mix, mix_bias, near, near_bias = pairs[name, stride]
            network.get_layer(f"{name}{stride}").set_weights([mix[np.newaxis, np.newaxis], mix_bias])
            network.get_layer(f"{name}{stride}_near").set_weights([near, near_bias + shifts])
