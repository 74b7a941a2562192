"""Change float weights so that int8 loses less, without any training: for models that post-training int8 hurts.

    python export/equalize.py runs/separable/model.keras -o runs/separable-equalized/model.keras

Batch normalization is folded into the convolutions and the channels' ranges are equalized; the float outputs stay
the same. The result is exported like any model, and is what ``python -m training qat`` starts from.

Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", arXiv 1906.04721.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

# So that `python export/equalize.py` finds the project's packages, as `python -m export.equalize` does.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np
from keras import layers

from edge_fer.errors import DataError, EdgeFerError, InputMissingError, OutputError
from export.fold import WEIGHTED, Floats, along_outputs, consumers, fold_batch_norm, is_relu, values
from export.load import first_line

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
        _equalize_file(args.model, args.output)
    except EdgeFerError as error:
        print(f"equalize: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _equalize_file(source: Path, output: Path) -> None:
    if not source.is_file():
        raise InputMissingError(f"No model {source}.")
    if output.suffix != ".keras":
        raise OutputError(f"--output must end in .keras, not {output.name!r}.")
    if output.exists():
        raise OutputError(f"{output} exists: choose another --output.")
    try:
        model = keras.models.load_model(source, compile=False)
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise DataError(f"{source} is not a Keras model that can be read: {first_line(error)}") from None
    pairs, skipped = find_pairs(model)
    for line in skipped:
        print(f"equalize: skipped {line}", file=sys.stderr)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        equalize(model).save(output)
        if (description := source.with_suffix(".toml")).is_file():
            shutil.copyfile(description, output.with_suffix(".toml"))
    except OSError as error:
        raise OutputError(f"Cannot write {output}: {error.strerror or error}.") from None
    print(f"Wrote {output}: {len(pairs)} pairs of layers equalized")


def find_pairs(model: keras.Model) -> tuple[list[tuple[str, str]], list[str]]:
    """Which layers of a model can be equalized.

    A pair is two layers with nothing between them but ReLU, batch normalization behind it, pooling, padding and
    dropout, for which scaling a channel before is scaling it after. ReLU6, other activations, sums and branches end a
    chain.

    Returns:
        Names of first and second layer of each pair, in the model's order; and a line for each layer that has a
        successor but cannot be paired with it, with the reason.
    """
    pairs, skipped = _find_pairs(fold_batch_norm(model))
    return [(first, second) for first, second, _ in pairs], skipped


def _find_pairs(model: keras.Model) -> tuple[list[tuple[str, str, list[str]]], list[str]]:
    """The same of a model that is folded, each pair with the batch normalizations between."""
    pairs: list[tuple[str, str, list[str]]] = []
    skipped = []
    for first in model.layers:
        if not isinstance(first, WEIGHTED):
            continue
        layer, reason = first, _why_not(first)
        norms: list[str] = []
        if reason is None and first.activation not in (keras.activations.linear, keras.activations.relu):
            reason = "its activation is not ReLU"
        while reason is None:
            following = consumers(model, layer)
            if not following:
                break
            if len(following) > 1:
                reason = f"{layer.name} goes to several places"
            elif isinstance(following[0], WEIGHTED):
                reason = _why_not(following[0])
                if reason is None:
                    pairs.append((first.name, following[0].name, norms))
                break
            elif _is_norm(following[0]):
                norms.append(following[0].name)
            elif not (isinstance(following[0], _PASSING) or is_relu(following[0])):
                reason = f"{following[0].name} ({type(following[0]).__name__}) follows"
            layer = following[0]
        if reason is not None:
            skipped.append(f"{first.name}: {reason}")
    return pairs, skipped


def equalize(model: keras.Model) -> keras.Model:
    """Scale channels so that each has the same range in the weights before and after it (Nagel et al., eq. 7-11).

    For a pair of layers with channel ranges r1 and r2, the first layer's output channel i is divided by
    s_i = sqrt(r1_i r2_i) / r2_i and the second's input channel multiplied by it, until nothing changes any more.
    ReLU is positively homogeneous, so the outputs stay the same. Batch normalization is folded first.

    Args:
        model: functional or sequential; it is not changed. ``find_pairs`` tells what will be left out.

    Returns:
        A functional model with the same float outputs.
    """
    equalized = fold_batch_norm(model)
    pairs, _ = _find_pairs(equalized)
    chain = {name: equalized.get_layer(name) for first, second, _ in pairs for name in (first, second)}
    norms = {name: equalized.get_layer(name) for *_, names in pairs for name in names}
    shifts = {name: (values(norm.moving_mean), values(norm.beta)) for name, norm in norms.items()}
    kernels = {name: values(layer.kernel) for name, layer in chain.items()}
    biases = {name: values(layer.bias) for name, layer in chain.items() if layer.use_bias}
    change = 1.0
    for _ in range(100):
        if change < 1e-3:
            break
        change = 0.0
        for first, second, between in pairs:
            r1 = output_range(kernels[first], isinstance(chain[first], layers.DepthwiseConv2D))
            r2 = input_range(kernels[second])
            # A channel that is dead on either side has no range to share.
            s = np.where((r1 > 0) & (r2 > 0), np.sqrt(r1 / np.where(r2 > 0, r2, 1)), 1)
            s = np.where(s > 0, s, 1).astype(np.float32)
            kernels[first] = kernels[first] * along_outputs(chain[first], np.reciprocal(s))
            kernels[second] = kernels[second] * s[:, np.newaxis]
            if first in biases:
                biases[first] = np.divide(biases[first], s, dtype=np.float32)
            for name in between:  # (x - mean) * factor + beta, with x and the outcome divided by s
                mean, beta = shifts[name]
                shifts[name] = np.divide(mean, s, dtype=np.float32), np.divide(beta, s, dtype=np.float32)
            change = max(change, float(np.abs(s - 1).max()))
    for name, layer in chain.items():
        layer.kernel.assign(kernels[name])
        if name in biases:
            layer.bias.assign(biases[name])
    for name, norm in norms.items():
        norm.moving_mean.assign(shifts[name][0])
        norm.beta.assign(shifts[name][1])
    return equalized


def output_range(kernel: Floats, depthwise: bool = False) -> Floats:
    """Largest absolute weight of each output channel, float32 (channels,)."""
    return np.asarray(np.abs(kernel).max(axis=(0, 1, 3) if depthwise else tuple(range(kernel.ndim - 1))))


def input_range(kernel: Floats) -> Floats:
    """Largest absolute weight of each input channel, float32 (channels,)."""
    return np.asarray(np.abs(kernel).max(axis=(*range(kernel.ndim - 2), kernel.ndim - 1)))


def _why_not(layer: keras.Layer) -> str | None:
    if isinstance(layer, layers.DepthwiseConv2D) and layer.depth_multiplier != 1:
        return f"{layer.name} has a depth multiplier"
    if isinstance(layer, layers.Conv2D) and layer.groups != 1:
        return f"{layer.name} has groups"
    return None


def _is_norm(layer: keras.Layer) -> bool:
    """Whether a layer is a batch normalization of channels, whose mean and shift can be scaled with them."""
    is_norm = isinstance(layer, layers.BatchNormalization)
    return is_norm and layer.center and layer.axis in (-1, len(layer.output.shape) - 1)


if __name__ == "__main__":
    sys.exit(main())
