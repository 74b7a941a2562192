"""A bundle's int8 network as a float one that can be trained on: for models whose training run is lost.

    python -m training from-bundle --bundle mine.tflite --recipe mine.toml --data ~/fer2013 --run runs/mine

The kernels and biases of the graph, times their scales, are the weights of the recipe's network without batch
normalization. Each batch normalization is put back so that it changes nothing: its statistics are those that its
convolution has on Training faces, and its gamma and beta undo them. What comes out predicts as the bundle does, up to
the rounding of activations, and learns as any other network.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from edge_fer.errors import ConfigError, DataError
from edge_fer.model.bundle import Bundle
from edge_fer.model.spec import head_slices
from export.flatbuffer import Operator, Tensor, read_operators
from training import models
from training.recipe import ModelRecipe, Recipe
from training.runs import read_data, refuse_used, write_run

FACES = 3000
"""Training faces over which the statistics of batch normalization are taken, as they are."""

_KERNEL_AXES = {
    "CONV_2D": (1, 2, 3, 0),  # (out, height, width, in) to (height, width, in, out)
    "DEPTHWISE_CONV_2D": (1, 2, 3, 0),  # (1, height, width, channels) to (height, width, channels, 1)
    "FULLY_CONNECTED": (1, 0),
}
_WEIGHTED = (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense)


def dequantized(tensor: Tensor) -> NDArray[np.float32]:
    """A constant of a graph in real units, (q - zero point) * scale, of its own shape.

    Jacob et al., arXiv 1712.05877, eq. 1. Scales by channel are along the only axis that has as many entries and holds
    the output channels: the first, or the last of a depthwise kernel.

    Raises:
        DataError: it is no quantized constant of int8 or int32.
    """
    types = {"INT8": np.int8, "INT32": np.int32}
    if tensor.constant is None or tensor.dtype not in types or not tensor.scales:
        raise DataError(f"{tensor.name} of the graph is no constant of int8: only full-integer models are taken.")
    values = np.frombuffer(bytes(tensor.constant), types[tensor.dtype]).reshape(tensor.shape).astype(np.float64)
    scales, points = np.array(tensor.scales), np.array(tensor.zero_points)
    if len(scales) > 1:
        axis = 0 if tensor.shape[0] == len(scales) else len(tensor.shape) - 1
        sides = [-1 if place == axis else 1 for place in range(len(tensor.shape))]
        scales, points = scales.reshape(sides), points.reshape(sides)
    return ((values - points) * scales).astype(np.float32)


def float_network(graph: bytes, recipe: ModelRecipe, classes: int, images: NDArray[np.uint8]) -> keras.Model:
    """The recipe's network with the weights of an int8 graph.

    Args:
        graph: FlatBuffer of a network that was exported from one of this recipe.
        recipe: without squeeze-and-excitation and RepVGG, which are no layers of a bundle.
        classes: of all heads together.
        images: uint8 (n, height, width, 1), for the statistics of batch normalization.

    Raises:
        DataError: the graph has other layers.
    """
    network = models.build(recipe, classes)
    operators = [one for one in read_operators(graph) if one.name in _KERNEL_AXES]
    weighted = [layer for layer in network.layers if isinstance(layer, _WEIGHTED)]
    shapes = [_kernel(one).shape for one in operators]
    if shapes != [layer.kernel.shape for layer in weighted]:
        raise DataError(
            "The bundle has other layers than the recipe's [model]: give the recipe of the network that it is."
        )
    norms = [layer for layer in network.layers if isinstance(layer, layers.BatchNormalization)]
    for operator, layer in zip(operators, weighted, strict=True):
        bias = dequantized(operator.inputs[2])
        if isinstance(layer, layers.Dense):
            layer.set_weights([_kernel(operator), bias])
        else:
            layer.set_weights([_kernel(operator)])
            norm = norms[weighted.index(layer)]
            norm.set_weights([np.ones_like(bias), bias, np.zeros_like(bias), np.full_like(bias, 1 - norm.epsilon)])
    means, variances = _statistics(network, norms, images)
    for layer, norm, mean, variance in zip(weighted, norms, means, variances, strict=False):
        factor = _factor(layer)
        layer.set_weights([layer.get_weights()[0] * factor])
        mean, variance, factor = mean * factor.ravel(), variance * factor.ravel() ** 2, factor.ravel()
        gamma = np.sqrt(variance + norm.epsilon) / factor
        norm.set_weights([gamma, norm.get_weights()[1] + mean / factor, mean, variance])
    return network


def _kernel(operator: Operator) -> NDArray[np.float32]:
    """In the layout of Keras."""
    return dequantized(operator.inputs[1]).transpose(_KERNEL_AXES[operator.name])


def _factor(layer: keras.Layer) -> NDArray[np.float64]:
    """What brings the kernel of each channel to the size with which a training begins (He et al., arXiv 1502.01852).

    Batch normalization takes it out again; but by it an optimizer's steps are as large, in proportion, as a recipe
    means them.
    """
    kernel = layer.get_weights()[0].astype(np.float64)
    channel = 2 if isinstance(layer, layers.DepthwiseConv2D) else 3
    others = tuple(axis for axis in range(4) if axis != channel)
    size = np.sqrt((kernel**2).mean(axis=others, keepdims=True))
    wanted = np.sqrt(2 * kernel.shape[channel] / kernel.size)
    return wanted / np.where(size > 0, size, wanted)


def _statistics(
    network: keras.Model, norms: Sequence[keras.Layer], images: NDArray[np.uint8]
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    """Mean and variance by channel of what each batch normalization reads."""
    convolved = keras.Model(network.input, [norm.input for norm in norms])
    sums, squares = ([np.zeros(norm.input.shape[-1]) for norm in norms] for _ in range(2))
    count = len(images)
    for start in range(0, count, 128):
        for place, values in enumerate(convolved.predict_on_batch(images[start : start + 128].astype(np.float32))):
            values = np.asarray(values, np.float64)
            sums[place] += values.mean(axis=(1, 2)).sum(axis=0) / count
            squares[place] += (values**2).mean(axis=(1, 2)).sum(axis=0) / count
    return sums, [np.maximum(square - mean**2, 0) for mean, square in zip(sums, squares, strict=True)]


def from_bundle(name: str, recipe: Recipe, data_folder: Path, run: Path) -> None:
    """Write a run whose network is that of a bundle, in float.

    Args:
        name: see ``Bundle.load``.
        recipe: of the network that the bundle was exported from.
        data_folder: see ``datasets.load``.
        run: new folder.

    Raises:
        EdgeFerError: the bundle, the recipe, the data or the new folder is not as it should be.
    """
    refuse_used(run)
    bundle = Bundle.load(name)
    if recipe.model.squeeze_excitation or recipe.model.repvgg:
        raise ConfigError("A bundle has no squeeze-and-excitation and no RepVGG blocks: give a [model] without them.")
    spec = bundle.metadata.preprocess
    if spec.alignment != recipe.data.alignment:
        raise ConfigError(f"{bundle} turns faces otherwise: set data.alignment to {spec.alignment!r}.")
    if spec.illumination != recipe.data.illumination:
        raise ConfigError(
            f"{bundle} wants faces in other light: set data.illumination to {json.dumps(spec.illumination)}."
        )
    splits = read_data(data_folder, recipe)
    heads = splits["Training"].heads
    theirs, ours = ([(one.name, one.labels) for one in each] for each in (bundle.metadata.heads, heads))
    if theirs != ours:
        raise DataError(
            f"{bundle} has other heads than the data set, which has {', '.join(one.name for one in heads)}."
        )
    classes = sum(part.stop - part.start for part in head_slices(heads).values())
    network = float_network(bundle.model, recipe.model, classes, splits["Training"].images[:FACES])
    write_run(run, recipe, network, splits, {"bundle": facts_of(bundle)})


def facts_of(bundle: Bundle) -> dict[str, Any]:
    """What a bundle says of how it came about, for the lineage of what is made of it."""
    metadata = bundle.metadata
    return {
        "name": metadata.name,
        "model_sha256": metadata.model_sha256,
        "training": metadata.facts.get("training", {}),
    }
