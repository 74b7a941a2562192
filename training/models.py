"""The networks. Each takes raw grey pixels, 0-255, and ends in logits."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import keras
from keras import layers

from edge_fer.bundle import Head
from edge_fer.errors import DataError, InputMissingError
from evaluation.datasets import FER2013_LABELS, FERPLUS_LABELS, SIDE

HEADS = (Head("ferplus", FERPLUS_LABELS, temperature=1.0), Head("fer2013", FER2013_LABELS, temperature=1.0))
"""Heads in the order of their logits in the one output, (batch, 15). The first is what the device reports."""


def build_plain(stages: list[list[int]], dropout: float) -> keras.Model:
    """A plain stack of 3x3 convolutions with batch normalisation and ReLU, global average, one dense layer.

    Plain convolutions lose nothing to int8 and run on every delegate. The input is declared float32 because
    calibration cannot feed a uint8 one; the exporter makes it uint8. One dense layer serves both heads: the
    trunk is shared, the tasks are not.

    Args:
        stages: [filters, stride] of each convolution.
        dropout: rate before the dense layer, in training only.

    Returns:
        Model (batch, 48, 48, 1) float32, 0-255 -> (batch, 15) logits, heads in the order of ``HEADS``.
    """
    inputs = keras.Input((SIDE, SIDE, 1), name="pixels")
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    for filters, stride in stages:
        x = layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False, kernel_initializer="he_normal")(x)
        x = layers.BatchNormalization(momentum=0.9)(x)
        x = layers.ReLU()(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(dropout)(x)
    outputs = layers.Dense(sum(len(head.labels) for head in HEADS), name="logits")(x)
    return keras.Model(inputs, outputs, name="plain")


def build_separable(stages: list[list[int]], dropout: float) -> keras.Model:
    """A MobileNet-like network: a 3x3 stem, then depthwise-separable convolutions, in the layout of ``build_plain``.

    With the stages of training/recipes it has a fifth of the plain network's parameters and work. Int8 can cost such
    networks more: see docs/quantisation.md. Howard et al., arXiv 1704.04861.

    Args:
        stages: [filters, stride] of the stem, then of each separable convolution.
        dropout: as in ``build_plain``.

    Returns:
        As in ``build_plain``.
    """
    inputs = keras.Input((SIDE, SIDE, 1), name="pixels")
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    (filters, stride), *blocks = stages
    x = _normalised(layers.Conv2D(filters, 3, stride, "same", use_bias=False, kernel_initializer="he_normal"), x)
    for filters, stride in blocks:
        x = _normalised(layers.DepthwiseConv2D(3, stride, "same", use_bias=False, depthwise_initializer="he_normal"), x)
        x = _normalised(layers.Conv2D(filters, 1, use_bias=False, kernel_initializer="he_normal"), x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(dropout)(x)
    outputs = layers.Dense(sum(len(head.labels) for head in HEADS), name="logits")(x)
    return keras.Model(inputs, outputs, name="separable")


def build_residual(stages: list[list[int]], dropout: float) -> keras.Model:
    """``build_plain`` with a shortcut around each convolution that keeps the shape (He et al., arXiv 1512.03385).

    A shortcut has no weights and next to no work, and lets a deeper network learn as fast as a shallow one.

    Args:
        stages: as in ``build_plain``.
        dropout: as in ``build_plain``.

    Returns:
        As in ``build_plain``.
    """
    inputs = keras.Input((SIDE, SIDE, 1), name="pixels")
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    for filters, stride in stages:
        convolution = layers.Conv2D(filters, 3, stride, "same", use_bias=False, kernel_initializer="he_normal")
        y = _normalised(convolution, x)
        x = layers.Add()([x, y]) if y.shape == x.shape else y
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(dropout)(x)
    outputs = layers.Dense(sum(len(head.labels) for head in HEADS), name="logits")(x)
    return keras.Model(inputs, outputs, name="residual")


def _normalised(convolution: keras.Layer, x: keras.KerasTensor) -> keras.KerasTensor:
    return layers.ReLU()(layers.BatchNormalization(momentum=0.9)(convolution(x)))


BUILDERS = {"plain": build_plain, "separable": build_separable, "residual": build_residual}
"""Networks by the recipe's ``kind``; each is a model of that name."""


def load(path: Path) -> keras.Model:
    """Read a ``.keras`` file.

    Raises:
        InputMissingError: no such file.
        DataError: it is not a Keras model.
    """
    if not path.is_file():
        raise InputMissingError(f"No model {path}.")
    try:
        return keras.models.load_model(path, compile=False)
    except (ValueError, OSError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0].split(". ")[0]
        raise DataError(f"{path} is not a Keras model that can be read: {reason}.") from None


def restore(network: keras.Model, checkpoint: Path) -> None:
    """Give a compiled network the weights and the state of the optimizer that a ``.keras`` file of the like holds.

    Reading the network itself would lose what the file does not hold: the weights that decay leaves alone.

    Raises:
        InputMissingError: no such file.
        DataError: it is not a Keras model, or not one of the like.
    """
    network.optimizer.build(network.trainable_variables)
    try:
        network.load_weights(checkpoint)
    except FileNotFoundError:
        raise InputMissingError(f"No model {checkpoint}.") from None
    except (ValueError, OSError, KeyError, TypeError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0].split(". ")[0]
        raise DataError(f"{checkpoint} is not a checkpoint that can be read: {reason}.") from None


def description(name: str) -> str:
    """The text of ``model.toml``, which tells the exporter what the network cannot say of itself.

    FER2013's crops are framed like a Haar detection, so the margin is 0.
    """
    heads = (f'\n[[heads]]\nname = "{head.name}"\nlabels = {json.dumps(head.labels)}\n' for head in HEADS)
    return f'name = "{name}"\nmargin = 0.0\n' + "".join(heads)
