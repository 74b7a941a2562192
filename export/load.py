"""First step: a Keras model and the TOML file beside it, made ready for the device, and the faces it is tried on."""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from edge_fer.errors import ConfigError, DataError, InputMissingError
from edge_fer.model.spec import Head, Metadata
from edge_fer.preprocess import Preprocessor
from edge_fer.strict import read_toml
from evaluation import datasets
from evaluation.datasets import Dataset
from evaluation.metrics import truth
from export.result import Export, Options


@dataclass(frozen=True)
class Description(Metadata):
    """The TOML file beside a model: its metadata, and how pixels were scaled in front of the network.

    Attributes:
        normalize: [scale, offset] of pixels in front of a network that does not do it itself: ``pixel * scale +
            offset``; empty when its first layer is a Rescaling or Normalization.
    """

    normalize: tuple[float, ...] = ()

    def metadata(self) -> Metadata:
        """What goes into the bundle."""
        return Metadata(**{field.name: getattr(self, field.name) for field in fields(Metadata)})


def load(options: Options) -> Export:
    """Read model, metadata and faces, and say what was changed in the model.

    Raises:
        EdgeFerError: one of them is not as it should be.
    """
    description = read_description(options.model.with_suffix(".toml"))
    model, notes = load_model(options.model, description)
    for note in notes:
        Console().print(note, highlight=False)
    Console(stderr=True).print(f"Reading {options.data} ...")
    size_hw = model.input_shape[1:3]
    splits = datasets.load(options.data, size_hw=size_hw)
    preprocessor = Preprocessor(description.preprocess, size_hw)
    calibration = calibration_faces(splits["Training"], description.heads[0], options.calibration)
    return Export(
        options=options,
        metadata=description.metadata(),
        model=model,
        calibration=preprocessor.crops(calibration.images),
        data=splits["PublicTest"],
        tensors=preprocessor.crops(splits["PublicTest"].images),
    )


def read_description(path: Path) -> Description:
    """Read the TOML file beside a model.

    Raises:
        InputMissingError: no such file.
        ConfigError: a key or value is wrong.
    """
    try:
        table = read_toml(path)
    except FileNotFoundError:
        raise InputMissingError(
            f"No {path}: it tells the model's name, and [[heads]] with name and labels; see export/README.md."
        ) from None
    description = Description.from_table(table, str(path))
    assert isinstance(description, Description)
    scaling = description.normalize
    if scaling and (len(scaling) != 2 or not all(map(math.isfinite, scaling)) or scaling[0] == 0):
        raise ConfigError(f"{path}: normalize must be [scale, offset] with a scale other than 0, not {list(scaling)}.")
    return description


def load_model(path: Path, description: Description) -> tuple[keras.Model, list[str]]:
    """Load a Keras classifier and make it one that takes raw gray pixels and gives logits.

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
        raise DataError(f"{path} is not a Keras model that can be read: {first_line(error)}") from None
    if isinstance(model, keras.Model) and len(model.inputs or ()) == len(model.outputs or ()) == 1:
        # Also where the one input or output stands in a list or under a name.
        model = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[0] or None in shape[1:] or shape[3] not in (1, 3):
        raise DataError(
            f"{path} takes {shape}; it must take one image, (None, height, width, 1) or (None, height, width, 3), "
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


def calibration_faces(training: Dataset, head: Head, count: int) -> Dataset:
    """Training faces, as many of each label of a head as there are, the same in every run.

    Raises:
        DataError: fewer than two labels of the head occur.
    """
    labels = truth(training, head)
    order = np.random.default_rng(0).permutation(len(training))
    by_label: list[NDArray[np.int64]] = [order[labels[order] == label] for label in range(len(head.labels))]
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


def first_line(error: Exception) -> str:
    """The first line of an error that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".") + "."


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
    model: keras.Model, description: Description, path: Path, notes: list[str]
) -> tuple[keras.Model, list[str]]:
    """Put in front what lies between raw gray pixels and the model's input."""
    toml, scaling = path.with_suffix(".toml").name, description.normalize
    rescales = _rescales_first(model)
    if rescales and scaling:
        raise DataError(
            f"{path} begins with a layer that rescales, and {toml} says normalize: pixels would be scaled twice. "
            "Leave normalize out."
        )
    if not rescales and not scaling:
        raise DataError(
            f"{path} has no Rescaling or Normalization layer in front; say in {toml} how its pixels were scaled: "
            "normalize = [scale, offset] for pixel * scale + offset, [1, 0] for raw 0-255."
        )
    height, width, channels = model.input_shape[1:]
    if channels == 1 and not scaling:
        return model, notes
    inputs = x = keras.Input((height, width, 1), name="pixels")
    if channels == 3:
        # Not by Concatenate: before a Normalization with three means the converter gives it a scale other than 1.
        x = keras.ops.multiply(x, np.ones(3, np.float32))
        notes.append("The model takes three channels: the gray image is repeated inside the graph.")
    if scaling:
        x = keras.layers.Rescaling(scaling[0], offset=scaling[1], name="normalize")(x)
        notes.append(f"Rescaling({scaling[0]}, {scaling[1]}) is put in front, as {toml} says.")
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
