"""Change float weights so that int8 loses less, without any training: for models that post-training int8 hurts.

    python export/equalise.py runs/separable/model.keras -o runs/separable-equalised/model.keras

Batch normalisation is folded into the convolutions and the channels' ranges are equalised; the float outputs stay
the same. The result is exported like any model, and is what ``python -m training qat`` starts from.

Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", arXiv 1906.04721.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# So that `python export/equalise.py` finds the project's packages, as `python -m export.equalise` does.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray
from rich.console import Console

from edge_fer.errors import DataError, EdgeFerError, InputMissingError, OutputError
from export.verify import run_flatbuffer

Floats = NDArray[np.float32]

WEIGHTED = (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense)
"""Layers with a kernel whose channels can be scaled."""

_PASSING = (
    *(layers.Dropout, layers.Identity, layers.ZeroPadding2D, layers.MaxPooling2D),
    *(layers.AveragePooling2D, layers.GlobalAveragePooling2D),
)
"""Layers f with f(s x) = s f(x) for every positive factor s of a channel, besides ReLU."""


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="Keras model; the TOML file beside it is copied too")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.keras")
    args = parser.parse_args(arguments)
    try:
        _equalise_file(args.model, args.output)
    except EdgeFerError as error:
        print(f"equalise: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _equalise_file(source: Path, output: Path) -> None:
    if not source.is_file():
        raise InputMissingError(f"No model {source}.")
    if output.exists():
        raise OutputError(f"{output} exists: choose another --output.")
    try:
        model = keras.models.load_model(source, compile=False)
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise DataError(f"{source} is not a Keras model that can be read: {str(error).splitlines()[0]}") from None
    pairs, skipped = find_pairs(model)
    for line in skipped:
        print(f"equalise: skipped {line}", file=sys.stderr)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        equalise(model).save(output)
        if (description := source.with_suffix(".toml")).is_file():
            shutil.copyfile(description, output.with_suffix(".toml"))
    except OSError as error:
        raise OutputError(f"Cannot write {output}: {error.strerror or error}.") from None
    print(f"Wrote {output}: {len(pairs)} pairs of layers equalised")


def fold_batch_norm(model: keras.Model) -> keras.Model:
    """Fold each batch normalisation into the layer before it (Jacob et al., arXiv 1712.05877, eq. 14).

    Args:
        model: functional or sequential; it is not changed.

    Returns:
        A functional model with the same float outputs, of new layers. A batch normalisation that does not follow a
        linear convolution or dense layer, alone and over the last axis, stays as it is.
    """
    model = _functional(model)
    norms: dict[str, layers.BatchNormalization] = {}
    for layer in model.layers:
        following = _consumers(model, layer)
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
            mean, variance = _values(norm.moving_mean), _values(norm.moving_variance)
            factor = (_values(norm.gamma) if norm.scale else 1.0) / np.sqrt(variance + norm.epsilon)
            bias = _values(original.bias) if original.use_bias else 0.0
            layer.kernel.assign(_values(original.kernel) * _along_outputs(original, factor))
            layer.bias.assign((bias - mean) * factor + (_values(norm.beta) if norm.center else 0.0))
        else:
            layer.set_weights(original.get_weights())
    return folded


def find_pairs(model: keras.Model) -> tuple[list[tuple[str, str]], list[str]]:
    """Which layers of a model can be equalised.

    A pair is two layers with nothing between them but ReLU, pooling, padding and dropout, for which scaling a channel
    before is scaling it after, once batch normalisation is folded. ReLU6, other activations, sums and branches end
    a chain.

    Returns:
        Names of first and second layer of each pair, in the model's order; and a line for each layer that has a
        successor but cannot be paired with it, with the reason.
    """
    model = fold_batch_norm(model)
    pairs, skipped = [], []
    for first in model.layers:
        if not isinstance(first, WEIGHTED):
            continue
        layer, reason = first, _why_not(first)
        if reason is None and first.activation not in (keras.activations.linear, keras.activations.relu):
            reason = "its activation is not ReLU"
        while reason is None:
            following = _consumers(model, layer)
            if not following:
                break
            if len(following) > 1:
                reason = f"{layer.name} goes to several places"
            elif isinstance(following[0], WEIGHTED):
                reason = _why_not(following[0])
                if reason is None:
                    pairs.append((first.name, following[0].name))
                break
            elif not (isinstance(following[0], _PASSING) or _is_relu(following[0])):
                reason = f"{following[0].name} ({type(following[0]).__name__}) follows"
            layer = following[0]
        if reason is not None:
            skipped.append(f"{first.name}: {reason}")
    return pairs, skipped


def equalise(model: keras.Model) -> keras.Model:
    """Scale channels so that each has the same range in the weights before and after it (Nagel et al., eq. 7-11).

    For a pair of layers with channel ranges r1 and r2, the first layer's output channel i is divided by
    s_i = sqrt(r1_i r2_i) / r2_i and the second's input channel multiplied by it, until nothing changes any more.
    ReLU is positively homogeneous, so the outputs stay the same. Batch normalisation is folded first.

    Args:
        model: functional or sequential; it is not changed. ``find_pairs`` tells what will be left out.

    Returns:
        A functional model with the same float outputs.
    """
    equalised = fold_batch_norm(model)
    pairs, _ = find_pairs(equalised)
    chain = {name: equalised.get_layer(name) for pair in pairs for name in pair}
    kernels = {name: _values(layer.kernel) for name, layer in chain.items()}
    biases = {name: _values(layer.bias) for name, layer in chain.items() if layer.use_bias}
    change = 1.0
    for _ in range(100):
        if change < 1e-3:
            break
        change = 0.0
        for first, second in pairs:
            r1 = output_range(kernels[first], isinstance(chain[first], layers.DepthwiseConv2D))
            r2 = input_range(kernels[second])
            # A channel that is dead on either side has no range to share.
            s = np.where((r1 > 0) & (r2 > 0), np.sqrt(r1 / np.where(r2 > 0, r2, 1)), 1)
            s = np.where(s > 0, s, 1).astype(np.float32)
            kernels[first] = kernels[first] * _along_outputs(chain[first], np.reciprocal(s))
            kernels[second] = kernels[second] * s[:, np.newaxis]
            if first in biases:
                biases[first] = np.divide(biases[first], s, dtype=np.float32)
            change = max(change, float(np.abs(s - 1).max()))
    for name, layer in chain.items():
        layer.kernel.assign(kernels[name])
        if name in biases:
            layer.bias.assign(biases[name])
    return equalised


def correct_bias(
    model: keras.Model, tensors: NDArray[np.uint8], to_int8: Callable[[keras.Model], bytes]
) -> keras.Model:
    """Take the mean error that int8 makes in each channel out of the biases (Nagel et al., section 4.2, appendix D).

    Layer by layer, with all layers before it corrected: the part of the model up to this layer is really converted
    and run, and the mean difference from the float model's, over pictures and places, is taken from the bias. That
    takes one conversion a layer.

    Args:
        model: functional or sequential; it is not changed. Batch normalisation is folded.
        tensors: uint8 (n, height, width, channels), what to take means over.
        to_int8: converts a model to a FlatBuffer with uint8 input, as the whole model will be.

    Returns:
        A functional model to be converted by ``to_int8``; its float outputs are no longer those of ``model``.
    """
    console = Console(stderr=True)
    reference = fold_batch_norm(model)
    corrected = fold_batch_norm(model)
    for layer in corrected.layers:
        if isinstance(layer, WEIGHTED) and layer.use_bias:
            exact = _up_to(reference, layer.name).predict(tensors.astype(np.float32), batch_size=256, verbose=0)
            part = to_int8(_up_to(corrected, layer.name))
            rounded = run_flatbuffer(part, tensors, console, f"Correcting {layer.name}")
            error = (rounded - exact).mean(axis=tuple(range(exact.ndim - 1)), dtype=np.float64)
            layer.bias.assign(_values(layer.bias) - error)
    return corrected


def output_range(kernel: Floats, depthwise: bool = False) -> Floats:
    """Largest absolute weight of each output channel, float32 (channels,)."""
    return np.asarray(np.abs(kernel).max(axis=(0, 1, 3) if depthwise else tuple(range(kernel.ndim - 1))))


def input_range(kernel: Floats) -> Floats:
    """Largest absolute weight of each input channel, float32 (channels,)."""
    return np.asarray(np.abs(kernel).max(axis=(*range(kernel.ndim - 2), kernel.ndim - 1)))


def _values(variable: keras.Variable) -> Floats:
    return np.asarray(keras.ops.convert_to_numpy(variable))


def _along_outputs(layer: keras.Layer, factor: Floats) -> Floats:
    """A factor for each output channel, in a shape that multiplies the layer's kernel."""
    return factor.reshape(layer.kernel.shape[-2:]) if isinstance(layer, layers.DepthwiseConv2D) else factor


def _why_not(layer: keras.Layer) -> str | None:
    if isinstance(layer, layers.DepthwiseConv2D) and layer.depth_multiplier != 1:
        return f"{layer.name} has a depth multiplier"
    if isinstance(layer, layers.Conv2D) and layer.groups != 1:
        return f"{layer.name} has groups"
    return None


def _is_relu(layer: keras.Layer) -> bool:
    if isinstance(layer, layers.ReLU):
        return layer.max_value is None and not layer.negative_slope and not layer.threshold
    return isinstance(layer, layers.Activation) and layer.activation is keras.activations.relu


def _functional(model: keras.Model) -> keras.Model:
    if isinstance(model, keras.Sequential):
        return keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    return model


def _consumers(model: keras.Model, layer: keras.Layer) -> list[Any]:
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


if __name__ == "__main__":
    sys.exit(main())
