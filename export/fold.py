"""Second step, on demand: batch normalization folded, and biases corrected for what int8 gets wrong on average.

Sources: Jacob et al., arXiv 1712.05877; Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
Correction", arXiv 1906.04721.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray
from rich.console import Console

from export.convert import to_int8
from export.flatbuffer import run_flatbuffer
from export.result import Export

Floats: TypeAlias = NDArray[np.float32]

WEIGHTED = (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense)
"""Layers with a kernel whose channels can be scaled."""


def fold(export: Export) -> Export:
    """Correct the biases for int8, by the conversion that the whole model will have."""
    convert = partial(
        to_int8, tensors=export.calibration, console=Console(stderr=True), per_tensor=export.options.per_tensor
    )
    return dataclasses.replace(export, corrected=correct_bias(export.model, export.calibration, convert))


def fold_batch_norm(model: keras.Model) -> keras.Model:
    """Fold each batch normalization into the layer before it (Jacob et al., arXiv 1712.05877, eq. 14).

    Args:
        model: functional or sequential; it is not changed.

    Returns:
        A functional model with the same float outputs, of new layers. A batch normalization that does not follow a
        linear convolution or dense layer, alone and over the last axis, stays as it is.
    """
    model = _functional(model)
    norms: dict[str, layers.BatchNormalization] = {}
    for layer in model.layers:
        following = consumers(model, layer)
        if (
            isinstance(layer, WEIGHTED)
            and layer.activation is keras.activations.linear
            and len(following) == 1
            and isinstance(following[0], layers.BatchNormalization)
            and following[0].axis in (-1, len(layer.output.shape) - 1)
        ):
            norms[layer.name] = following[0]
    folded_away = {norm.name for norm in norms.values()}

    def clone(layer: keras.Layer) -> keras.Layer:
        bias = {"use_bias": True} if layer.name in norms else {}
        return type(layer).from_config({**layer.get_config(), **bias})

    def call(layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        return args[0] if layer.name in folded_away else layer(*args, **kwargs)

    folded = keras.models.clone_model(model, clone_function=clone, call_function=call)
    for original in model.layers:
        if not original.weights or original.name in folded_away:
            continue
        layer = folded.get_layer(original.name)
        if original.name in norms:
            norm = norms[original.name]
            mean, variance = values(norm.moving_mean), values(norm.moving_variance)
            factor = (values(norm.gamma) if norm.scale else 1.0) / np.sqrt(variance + norm.epsilon)
            bias = values(original.bias) if original.use_bias else 0.0
            layer.kernel.assign(values(original.kernel) * along_outputs(original, factor))
            layer.bias.assign((bias - mean) * factor + (values(norm.beta) if norm.center else 0.0))
        else:
            layer.set_weights(original.get_weights())
    return folded


def correct_bias(
    model: keras.Model, tensors: NDArray[np.uint8], convert: Callable[[keras.Model], bytes]
) -> keras.Model:
    """Take the mean error that int8 makes in each channel out of the biases (Nagel et al., section 4.2, appendix D).

    Layer by layer, with all layers before it corrected: the part of the model up to this layer is really converted
    and run, and the mean difference from the float model's, over images and places, is taken from the bias. That
    takes one conversion a layer.

    Args:
        model: functional or sequential; it is not changed. Batch normalization is folded.
        tensors: uint8 (n, height, width, channels), what to take means over.
        convert: converts a model to a FlatBuffer with uint8 input, as the whole model will be.

    Returns:
        A functional model to be converted by ``convert``; its float outputs are no longer those of ``model``.
    """
    console = Console(stderr=True)
    reference = fold_batch_norm(model)
    corrected = fold_batch_norm(model)
    for layer in corrected.layers:
        if isinstance(layer, WEIGHTED) and layer.use_bias:
            exact = _up_to(reference, layer.name).predict(tensors.astype(np.float32), batch_size=256, verbose=0)
            part = convert(_up_to(corrected, layer.name))
            rounded = run_flatbuffer(part, tensors, console, f"Correcting {layer.name}")
            error = (rounded - exact).mean(axis=tuple(range(exact.ndim - 1)), dtype=np.float64)
            layer.bias.assign(values(layer.bias) - error)
    return corrected


def values(variable: keras.Variable) -> Floats:
    """A variable's values, float32."""
    return np.asarray(keras.ops.convert_to_numpy(variable))


def along_outputs(layer: keras.Layer, factor: Floats) -> Floats:
    """A factor for each output channel, in a shape that multiplies the layer's kernel."""
    return factor.reshape(layer.kernel.shape[-2:]) if isinstance(layer, layers.DepthwiseConv2D) else factor


def _functional(model: keras.Model) -> keras.Model:
    if isinstance(model, keras.Sequential):
        return keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    return model


def consumers(model: keras.Model, layer: keras.Layer) -> list[Any]:
    """The layers that take a layer's output; the model itself where it is an output of the model."""
    users: list[Any] = [
        other
        for other in model.layers
        if not isinstance(other, layers.InputLayer) and any(x is layer.output for x in keras.tree.flatten(other.input))
    ]
    # A last layer has nothing behind it; an output that is also read further on has, besides, the caller.
    return users + [model] * (bool(users) and any(x is layer.output for x in model.outputs))


def _up_to(model: keras.Model, name: str) -> keras.Model:
    """A copy of a model that ends in one layer, before its activation."""
    part = keras.Model(model.input, model.get_layer(name).output)
    copy = keras.models.clone_model(part)
    copy.set_weights(part.get_weights())
    copy.get_layer(name).activation = keras.activations.linear
    return copy
