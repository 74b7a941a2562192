"""A Keras model made ready for the device, and turned into FlatBuffers: float32, float16 and full int8."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from edge_fer.core import FaceBox
from edge_fer.errors import BundleError, DataError, InputMissingError
from edge_fer.model.spec import Head
from edge_fer.preprocess.alignment import Alignment
from edge_fer.preprocess.face_tensor import face_tensor
from evaluation import figures
from evaluation.datasets import Dataset


@dataclass(frozen=True)
class HeadDescription:
    """One ``[[heads]]`` of the model's TOML file: see ``edge_fer.model.bundle.Head``."""

    name: str
    labels: list[str]


@dataclass(frozen=True)
class ModelDescription:
    """The TOML file beside a model: what the network cannot say of itself.

    Attributes:
        name: see ``edge_fer.model.bundle.Card``.
        margin: see ``edge_fer.model.bundle.Card``.
        align: see ``edge_fer.model.bundle.Card``.
        heads: in the order of the logits.
        normalise: [scale, offset] of pixels in front of a network that does not do it itself: ``pixel * scale +
            offset``; empty when its first layer is a Rescaling or Normalization.
    """

    name: str
    margin: float
    heads: list[HeadDescription]
    normalise: list[float] = field(default_factory=list)
    align: Alignment = "none"


def load_model(path: Path, description: ModelDescription) -> tuple[keras.Model, list[str]]:
    """Load a Keras classifier and make it one that takes raw grey pixels and gives logits.

    Returns:
        Model (batch, height, width, 1) float32, 0-255 -> (batch, labels) logits; and what was changed, a sentence each.

    Raises:
        InputMissingError: no such file.
        DataError: not a Keras model, or its input, output or weights will not do.
    """
    if not path.is_file():
        raise InputMissingError(f"No model {path}.")
    try:
        model = keras.models.load_model(path, compile=False)
    except (ValueError, OSError, KeyError, TypeError, ImportError, zipfile.BadZipFile) as error:
        if unknown := re.search(r"Could not locate (?:class|function) '(\w+)'", str(error)):
            raise DataError(
                f"{path} needs {unknown[1]}, which only the code that made it knows: build the network of Keras' own "
                "layers and save it again."
            ) from None
        raise DataError(f"{path} is not a Keras model that can be read: {_first_line(error)}") from None
    if isinstance(model, keras.Model) and len(model.inputs or ()) == len(model.outputs or ()) == 1:
        # Also where the one input or output stands in a list or under a name.
        model = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[0] or None in shape[1:] or shape[3] not in (1, 3):
        raise DataError(
            f"{path} takes {shape}; it must take one picture, (None, height, width, 1) or (None, height, width, 3), "
            "with fixed height and width."
        )
    if str(model.inputs[0].dtype) != "float32":
        raise DataError(f"{path} takes {model.inputs[0].dtype}; declare its Input as float32 and save it again.")
    labels = sum(len(head.labels) for head in description.heads)
    if model.output_shape != (None, labels):
        raise DataError(
            f"{path} gives {model.output_shape}, {path.with_suffix('.toml').name} names {labels} labels: they must be "
            "equal."
        )
    if not all(np.isfinite(weights).all() for weights in model.get_weights()):
        raise DataError(f"{path} has weights that are not numbers: the training went wrong.")
    model, notes = _without_softmax(_in_float32(model))
    return _with_front(model, description, path, notes)


def _in_float32(model: keras.Model) -> keras.Model:
    """The model computing in float32, where it was trained in mixed precision: float16 has no int8 counterpart."""
    if all(layer.compute_dtype == "float32" for layer in _layers(model)):
        return model

    def clone(layer: keras.Layer) -> keras.Layer:
        return type(layer).from_config({**layer.get_config(), "dtype": "float32"})

    copy = keras.models.clone_model(model, clone_function=clone, recursive=True)
    copy.set_weights(model.get_weights())
    return copy


def _without_softmax(model: keras.Model) -> tuple[keras.Model, list[str]]:
    """The model ending in logits: 256 levels of int8 are too coarse for probabilities."""
    last = model
    while isinstance(last, keras.Model):
        last = last.outputs[0]._keras_history.operation
    note = f"The final softmax ({last.name}) is left out: the bundle gives logits, the device applies softmax in float."
    if getattr(last, "activation", None) is keras.activations.softmax:
        last.activation = keras.activations.linear
        return model, [note]
    if type(last).__name__ == "Softmax" and last is model.outputs[0]._keras_history.operation:
        return keras.Model(model.inputs, last.input), [note]
    return model, []


def _with_front(
    model: keras.Model, description: ModelDescription, path: Path, notes: list[str]
) -> tuple[keras.Model, list[str]]:
    """Put in front what lies between raw grey pixels and the model's input."""
    toml, normalise = path.with_suffix(".toml").name, description.normalise
    rescales = _rescales_first(model)
    if rescales and normalise:
        raise DataError(
            f"{path} begins with a layer that rescales, and {toml} says normalise: pixels would be scaled twice. "
            "Leave normalise out."
        )
    if not rescales and not normalise:
        raise DataError(
            f"{path} has no Rescaling or Normalization layer in front; say in {toml} how its pixels were scaled: "
            "normalise = [scale, offset] for pixel * scale + offset, [1, 0] for raw 0-255."
        )
    height, width, channels = model.input_shape[1:]
    if channels == 1 and not normalise:
        return model, notes
    inputs = x = keras.Input((height, width, 1), name="pixels")
    if channels == 3:
        # Not by Concatenate: before a Normalization with three means the converter gives it a scale other than 1.
        x = keras.ops.multiply(x, np.ones(3, np.float32))
        notes.append("The model takes three channels: the grey picture is repeated inside the graph.")
    if normalise:
        x = keras.layers.Rescaling(normalise[0], offset=normalise[1], name="normalise")(x)
        notes.append(f"Rescaling({normalise[0]}, {normalise[1]}) is put in front, as {toml} says.")
    return keras.Model(inputs, model(x), name=model.name), notes


def _rescales_first(model: keras.Model) -> bool:
    """Whether the first layer that does something to pixel values is a Rescaling or Normalization."""
    shapers = (keras.layers.InputLayer, keras.layers.Resizing, keras.layers.Reshape, keras.layers.Concatenate)
    for layer in _layers(model):
        if not isinstance(layer, shapers) and not type(layer).__name__.startswith("Random"):
            return isinstance(layer, keras.layers.Rescaling | keras.layers.Normalization)
    return False


def _layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _layers(layer)
        else:
            yield layer


def calibration_faces(training: Dataset, head: Head, count: int) -> Dataset:
    """Training faces, as many of each label of a head as there are, the same in every run.

    Raises:
        DataError: fewer than two labels of the head occur.
    """
    labels = figures.truth(training, head)
    order = np.random.default_rng(0).permutation(len(training))
    by_label = [order[labels[order] == label] for label in range(len(head.labels))]
    by_label = [rows for rows in by_label if len(rows)]
    if not by_label:
        raise DataError(f"No Training row has a label of the head {head.name!r}: nothing to calibrate on.")
    if len(by_label) == 1 < len(head.labels):
        raise DataError(
            f"All Training faces have one label of the head {head.name!r}: calibration needs faces of several."
        )
    # Deal the labels' faces in turn, until there are enough.
    dealt = [rows[turn] for turn in range(max(map(len, by_label))) for rows in by_label if turn < len(rows)]
    return training[np.array(dealt[:count])]


def as_tensors(data: Dataset, size_hw: tuple[int, int], margin: float) -> NDArray[np.uint8]:
    """The runtime's own tensors of faces, uint8 (n, height, width, 1)."""
    height, width = data.images.shape[1:3]
    # A data set's picture is already framed: undo the margin that face_tensor adds around a box.
    inner_hw = height / (1 + 2 * margin), width / (1 + 2 * margin)
    box = FaceBox((width - inner_hw[1]) / 2, (height - inner_hw[0]) / 2, inner_hw[1], inner_hw[0])
    return np.stack([face_tensor(image[..., 0], box, size_hw, margin) for image in data.images])


def to_float(model: keras.Model, half: bool = False) -> bytes:
    """Convert to a FlatBuffer with float32 input and output; weights are float16 if ``half``.

    Raises:
        DataError: an operator cannot be converted.
    """
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if half:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    return _converted(converter)


def to_int8(
    model: keras.Model,
    tensors: NDArray[np.uint8],
    console: Console,
    input_type: str = "uint8",
    per_tensor: bool = False,
) -> bytes:
    """Convert to a full-int8 FlatBuffer with int8 logits.

    Jacob et al., arXiv 1712.05877. One black and one white picture join the calibration set: with them the input
    has scale 1 and its zero point at black, so that pixels go in as they are. Without, pictures are silently read
    too dark.

    Args:
        model: see ``load_model``.
        tensors: uint8 (n, height, width, 1) to calibrate on.
        console: where progress is shown.
        input_type: "uint8" takes pixels; "int8" takes pixels - 128, for microcontrollers.
        per_tensor: one scale for all weights of a layer instead of one for each output channel: what compilers of
            old accelerators need, at a loss.

    Raises:
        DataError: an operator cannot be converted to int8.
        BundleError: the input is not scale 1 with its zero point at black.
    """
    import tensorflow as tf

    from edge_fer.model.classifier import load_runtime

    extremes = [np.zeros_like(tensors[0]), np.full_like(tensors[0], 255)]

    def representative_dataset() -> Iterator[list[NDArray[np.float32]]]:
        for tensor in track([*extremes, *tensors], "Calibrating", console=console):
            yield [tensor[np.newaxis].astype(np.float32)]

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative_dataset
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = {"uint8": tf.uint8, "int8": tf.int8}[input_type]
    converter.inference_output_type = tf.int8
    # Private, but the only switches there are.
    converter._experimental_disable_per_channel = per_tensor
    converter._experimental_disable_per_channel_quantization_for_dense_layers = per_tensor
    flatbuffer = _converted(converter)
    interpreter = load_runtime().Interpreter(model_content=flatbuffer)
    quantization = interpreter.get_input_details()[0]["quantization"]
    black = {"uint8": 0, "int8": -128}[input_type]
    if quantization != (1.0, black):
        raise BundleError(
            f"The input has scale and zero point {quantization}, not 1 and {black}: pixels would be changed. Begin the "
            "network with a Rescaling layer."
        )
    return flatbuffer


def _converted(converter: Any) -> bytes:
    from tensorflow.lite.python.convert_phase import ConverterError

    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
            flatbuffer: bytes = converter.convert()
    except (ConverterError, RuntimeError, ValueError, NotImplementedError) as error:
        # The converter names the operator, and the Keras layers that it comes from.
        place = re.search(r'fused\["(\w+):", "([^"@]+)', str(error))
        reason = f"TensorFlow Lite has no {place[1]} ({place[2]})." if place else _first_line(error)
        raise DataError(
            f"The network cannot be converted: {reason} Replace the layer that uses this operator."
        ) from None
    return flatbuffer


def _first_line(error: Exception) -> str:
    """The first line of an error that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".") + "."
