"""Batch normalization folded, and biases corrected for what int8 gets wrong on average.

Sources: Jacob et al., arXiv 1712.05877; Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
Correction", arXiv 1906.04721.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray
from rich.console import Console

from export.flatbuffer import run_flatbuffer

Floats: TypeAlias = NDArray[np.float32]

WEIGHTED = (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense)
"""Layers with a kernel whose channels can be scaled."""


def fold_batch_norm(model: keras.Model) -> keras.Model:
    """Fold each batch normalization into the layer before it (Jacob et al., arXiv 1712.05877, eq. 14).

    Args:
        model: functional or sequential; it is not changed.

    Returns:
        A functional model with the same float outputs, of new layers. A batch normalization that follows a ReLU goes
        into the layer behind it where no zeros are padded in between; else its scale goes through the ReLU into the
        layer before, and only the shift stays. Others that do not follow a linear convolution or dense layer, alone and
        over the last axis, stay as they are.
    """
    return _fold_late_norms(_fold_early_norms(_in_parts(_functional(model))))


def _in_parts(model: keras.Model) -> keras.Model:
    """Each separable convolution as the two layers that it is: between them channels can be scaled too."""
    if not any(isinstance(layer, layers.SeparableConv2D) for layer in model.layers):
        return model

    def call(layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(layer, layers.SeparableConv2D):
            return layer(*args, **kwargs)
        shared = {key: getattr(layer, key) for key in ("kernel_size", "strides", "padding", "dilation_rate")}
        depthwise = layers.DepthwiseConv2D(
            **shared, depth_multiplier=layer.depth_multiplier, use_bias=False, name=f"{layer.name}_depthwise"
        )
        pointwise = layers.Conv2D(
            layer.filters, 1, use_bias=layer.use_bias, activation=layer.activation, name=f"{layer.name}_pointwise"
        )
        return pointwise(depthwise(*args))

    copy = keras.models.clone_model(model, call_function=call)
    for layer in model.layers:
        if isinstance(layer, layers.SeparableConv2D):
            depth, *point = layer.get_weights()
            copy.get_layer(f"{layer.name}_depthwise").set_weights([depth])
            copy.get_layer(f"{layer.name}_pointwise").set_weights(point)
        elif layer.weights:
            copy.get_layer(layer.name).set_weights(layer.get_weights())
    return copy


def _fold_early_norms(model: keras.Model) -> keras.Model:
    """Those that follow a linear layer."""
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


def _fold_late_norms(model: keras.Model) -> keras.Model:
    """Those that follow a ReLU, as in networks of convolution, ReLU, batch normalization."""
    before: dict[str, str] = {}  # by the layer that takes a factor for each channel of its outputs: the norm
    behind: dict[str, str] = {}  # by the layer that takes factor and shift of its inputs
    for layer in model.layers:
        norm = _norm_after_relu(model, layer) if isinstance(layer, WEIGHTED) else None
        if norm is None:
            continue
        if (taker := _takes_shifts(model, norm)) is not None and taker.use_bias and taker.name not in behind:
            behind[taker.name] = norm.name
        else:
            before[layer.name] = norm.name
    gone = set(behind.values())
    folded = keras.models.clone_model(
        model, call_function=lambda layer, *args, **kwargs: args[0] if layer.name in gone else layer(*args, **kwargs)
    )
    for original in model.layers:
        if original.weights and original.name not in gone:
            folded.get_layer(original.name).set_weights(original.get_weights())
    for name, norm_name in behind.items():
        factor, shift = _factor_and_shift(model.get_layer(norm_name))
        layer = folded.get_layer(name)
        kernel = values(layer.kernel)
        depthwise = isinstance(layer, layers.DepthwiseConv2D)
        inputs = kernel.shape[-2]  # a Flatten in between repeats the channels
        factor, shift = np.tile(factor, inputs // len(factor)), np.tile(shift, inputs // len(shift))
        moved = kernel * shift[:, np.newaxis]
        layer.bias.assign(values(layer.bias) + (moved.sum(axis=(0, 1)).ravel() if depthwise else _summed(moved)))
        layer.kernel.assign(kernel * factor[:, np.newaxis])
    for name, norm_name in before.items():
        factor, shift = _factor_and_shift(model.get_layer(norm_name))
        layer, norm, size = (
            folded.get_layer(name),
            folded.get_layer(norm_name),
            np.where(factor == 0, 1, np.abs(factor)),
        )
        layer.kernel.assign(values(layer.kernel) * along_outputs(layer, size))
        if layer.use_bias:
            layer.bias.assign(values(layer.bias) * size)
        # What is left of it: a sign, which no ReLU lets through, and the shift.
        sign, one = np.sign(factor), np.ones_like(shift) - norm.epsilon
        norm.set_weights([sign, shift, 0 * shift, one] if norm.center else [sign, -shift * sign, one])
    return folded


def _norm_after_relu(model: keras.Model, layer: keras.Layer) -> Any:
    """The batch normalization behind the ReLU behind a layer, if there is nothing else; None otherwise."""
    following = consumers(model, layer)
    relu = layer.activation is keras.activations.relu
    if layer.activation is keras.activations.linear and len(following) == 1 and is_relu(following[0]):
        relu, following = True, consumers(model, following[0])
    if not relu or len(following) != 1 or not isinstance(following[0], layers.BatchNormalization):
        return None
    norm = following[0]
    # Without a scale of its own its factor cannot become a sign.
    return norm if norm.axis in (-1, len(norm.output.shape) - 1) and norm.scale else None


def _takes_shifts(model: keras.Model, norm: keras.Layer) -> Any:
    """The layer behind a batch normalization, if it can take what that does; None otherwise."""
    layer = norm
    while len(following := consumers(model, layer)) == 1:
        layer = following[0]
        if isinstance(layer, layers.Dense):
            return layer
        if isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D):
            usable = layer.padding == "valid" and getattr(layer, "groups", 1) == 1
            return layer if usable else None
        pooled = isinstance(layer, layers.AveragePooling2D) and layer.padding == "valid"
        largest = isinstance(layer, layers.MaxPooling2D) and bool(np.all(_factor_and_shift(norm)[0] > 0))
        plain = (layers.Dropout, layers.Identity, layers.Flatten, layers.GlobalAveragePooling2D)
        if not (pooled or largest or isinstance(layer, plain)):
            return None
    return None


def _factor_and_shift(norm: keras.Layer) -> tuple[Floats, Floats]:
    """What a batch normalization does to a channel: x * factor + shift."""
    factor = np.reciprocal(np.sqrt(values(norm.moving_variance) + norm.epsilon))
    factor = np.asarray(factor * (values(norm.gamma) if norm.scale else 1.0), np.float32)
    return factor, np.asarray(
        (values(norm.beta) if norm.center else 0.0) - values(norm.moving_mean) * factor, np.float32
    )


def _summed(kernel: Floats) -> Floats:
    return np.asarray(kernel.sum(axis=tuple(range(kernel.ndim - 1))))


def is_relu(layer: keras.Layer) -> bool:
    """Whether a layer is ReLU and nothing else: f(s x) = s f(x) for every positive s."""
    if isinstance(layer, layers.ReLU):
        return layer.max_value is None and not layer.negative_slope and not layer.threshold
    return isinstance(layer, layers.Activation) and layer.activation is keras.activations.relu


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
    """The model as one graph, with the layers of models inside it as its own; as it is where one serves twice."""
    if isinstance(model, keras.Sequential):
        model = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    if not any(isinstance(layer, keras.Model) for layer in model.layers):
        return model
    copies: dict[int, tuple[Any, Any]] = {}

    def clone(layer: Any) -> Any:
        if isinstance(layer, keras.Model):
            return layer
        copy, _ = copies.setdefault(id(layer), (type(layer).from_config(layer.get_config()), layer))
        return copy

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(layer, keras.Model):
            return layer(*args, **kwargs)
        graph = keras.Model(layer.inputs, layer.outputs)
        # Private, but Keras' own way of running a graph by other layers; clone_model goes it too.
        (outputs,) = keras.tree.flatten(graph._run_through_graph(args[0], operation_fn=clone, call_fn=call))
        return outputs

    try:
        flat = keras.models.clone_model(model, clone_function=clone, call_function=call)
    except ValueError:  # two layers of one name: a model that serves twice
        return model
    for copy, layer in copies.values():
        if isinstance(layer, keras.Layer) and layer.weights:
            copy.set_weights(layer.get_weights())
    return flat


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
