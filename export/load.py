"""First step: a Keras model and the TOML file beside it, made ready for the device, and the faces it is tried on."""

from __future__ import annotations

import dataclasses
import math
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

import datasets
from datasets import Dataset
from datasets.core import truth_for
from datasets.landmarks_file import marks_of_all
from edge_fer.errors import ConfigError, DataError, InputMissingError, UnavailableError
from edge_fer.model.decision import softmax
from edge_fer.model.spec import Head, Metadata
from edge_fer.preprocess import Preprocessor
from edge_fer.preprocess.alignment import BY_POINTS
from edge_fer.strict import read_toml
from evaluation.fit import with_priors
from export import saved_model
from export.result import Export, Options, Original

COMPARED_FACES = 64
"""On which the model is compared with the user's file, before all else."""


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
    model, notes, original = load_model(options.model, description)
    for note in notes:
        Console().print(note, highlight=False)
    Console(stderr=True).print(f"Reading {options.data} ...")
    size_hw = model.input_shape[1:3]
    by_points = description.preprocess.alignment in BY_POINTS
    splits = datasets.load(options.data, size_hw=size_hw, landmarks=by_points)
    preprocessor = Preprocessor(description.preprocess, size_hw)
    metadata = description.metadata()
    calibration = calibration_faces(splits["Training"], description.heads[0], options.calibration)
    tensors, tests = (
        preprocessor.crops(one.images, marks_of_all(one.landmarks)) for one in (calibration, splits["PublicTest"])
    )
    _compare_with_original(model, original, tensors[:COMPARED_FACES], options.model)
    return Export(
        options=options,
        metadata=dataclasses.replace(metadata, heads=with_priors(metadata.heads, splits["Training"])),
        model=model,
        original=original,
        calibration=tensors,
        data=splits["PublicTest"],
        tensors=tests,
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
    # As such files had it before: people keep them beside their models.
    if "margin" in table and "preprocess" not in table:
        table["preprocess"] = {"margin": table.pop("margin")}
    if "normalise" in table and "normalize" not in table:
        table["normalize"] = table.pop("normalise")
    description = Description.from_table(table, str(path))
    assert isinstance(description, Description)
    scaling = description.normalize
    if scaling and (len(scaling) != 2 or not all(map(math.isfinite, scaling)) or scaling[0] == 0):
        raise ConfigError(f"{path}: normalize must be [scale, offset] with a scale other than 0, not {list(scaling)}.")
    return description


def load_model(path: Path, description: Description) -> tuple[keras.Model, list[str], Original]:
    """Load a Keras classifier and make it one that takes raw gray pixels and gives logits.

    Returns:
        Model (batch, height, width, 1) float32, 0-255 -> (batch, labels) logits; what was changed, a sentence each; and
        the model as it is in the file.

    Raises:
        InputMissingError: no such file.
        DataError: not a Keras model, or its input, output or weights will not do.
        UnavailableError: Keras runs on something else than TensorFlow.
    """
    if keras.backend.backend() != "tensorflow":
        raise UnavailableError(
            f"Keras runs on {keras.backend.backend()} here, and export needs TensorFlow: set KERAS_BACKEND=tensorflow."
        )
    # As they were when the network was made, whatever keras.json of other work says.
    keras.config.set_image_data_format("channels_last")
    keras.config.set_floatx("float32")
    if not path.exists():
        raise InputMissingError(f"No model {path}.")
    notes: list[str] = []
    if path.is_dir():
        untouched, model, notes = saved_model.read(path)
    else:
        untouched = model = _read(path)
    if isinstance(model, keras.Model) and len(model.inputs or ()) == len(model.outputs or ()) == 1:
        # Also where the one input or output stands in a list or under a name.
        model = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
        model = _for_any_batch(model)
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
    without, removed = _without_softmax(model)
    original = Original(untouched, *(description.normalize or (1.0, 0.0)))
    return *_with_front(_in_float32(without), description, path, notes + removed), original


def _read(path: Path) -> Any:
    """The model of a .keras or .h5 file.

    Raises:
        DataError: it is none.
    """
    try:
        try:
            return keras.models.load_model(path, compile=False)
        except TypeError:  # keywords of Keras 2
            return keras.models.load_model(path, compile=False, custom_objects=_KERAS_2)
    except (ValueError, OSError, KeyError, TypeError, ImportError, zipfile.BadZipFile) as error:
        if unknown := re.search(r"Could not locate (?:class|function) '(\w+)'", str(error)):
            raise DataError(
                f"{path} needs {unknown[1]}, which only the code that made it knows: build the network of Keras' own "
                "layers and save it again."
            ) from None
        cure = _cure(path)
        raise DataError(f"{path} is not a Keras model that can be read: {first_line(error)}{cure}") from None


def _cure(path: Path) -> str:
    """What helps where the file is one of Keras 2, whose layers took other keywords."""
    try:
        import h5py

        with h5py.File(path) as file:
            version = str(file.attrs.get("keras_version", ""))
    except (ImportError, OSError):
        return ""
    if not re.fullmatch(r"[12]\.[\d.]+", version):
        return ""
    return f" It is of Keras {version}: where that Keras is, save it as a SavedModel folder, which is read."


def _without_keywords(kind: type[keras.layers.Layer], *dropped: str) -> type[keras.layers.Layer]:
    class Old(kind):  # type: ignore[misc]
        @classmethod
        def from_config(cls, config: dict[str, Any]) -> keras.layers.Layer:
            return kind.from_config({key: value for key, value in config.items() if key not in dropped})

    return Old


_KERNEL = ("groups", "kernel_initializer", "kernel_regularizer", "kernel_constraint")
_KERAS_2: Mapping[str, type[keras.layers.Layer]] = {
    "DepthwiseConv2D": _without_keywords(keras.layers.DepthwiseConv2D, "filters", *_KERNEL),
    "SeparableConv2D": _without_keywords(keras.layers.SeparableConv2D, *_KERNEL),
    "Conv2DTranspose": _without_keywords(keras.layers.Conv2DTranspose, "groups"),
}
"""What Keras 2 wrote of layers that Keras 3 does not take. All of it is for training, or 1."""


def calibration_faces(training: Dataset, head: Head, count: int) -> Dataset:
    """Training faces, as many of each label of a head as there are, the same in every run.

    Raises:
        DataError: fewer than two labels of the head occur.
    """
    labels = truth_for(training, head)
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
    """The first line of an error that says something, of at most 160 letters: Keras' lines hold whole layers."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = (lines[0] if lines else type(error).__name__).rstrip(".")
    return (line if len(line) <= 160 else line[:157].rstrip() + "...") + "."


def _for_any_batch(model: keras.Model) -> keras.Model:
    """The model for batches of any size, where it was made for one: calibration and metrics run many faces at once."""
    if not isinstance(model.input_shape, tuple) or model.input_shape[0] is None:
        return model
    try:
        inputs = keras.Input(model.input_shape[1:], dtype=model.inputs[0].dtype, name=model.inputs[0].name)
        copy = keras.models.clone_model(model, input_tensors=inputs)
        copy.set_weights(model.get_weights())
    except (ValueError, TypeError, AttributeError):
        return model  # the check of its shape says what is wrong
    return copy


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
    """The model ending in logits, of new layers where it changes: 256 levels of int8 are too coarse for probabilities.

    Only the last use of a softmax is left out: the layer itself may serve elsewhere in the network, in an attention.
    """
    logits, name = _before_softmax(model.outputs[0])
    if logits is None:
        return model, []
    note = f"The final softmax ({name}) is left out: the bundle gives logits, the device applies softmax in float."
    return keras.Model(model.inputs, logits, name=model.name), [note]


def _before_softmax(output: Any) -> tuple[Any, str]:
    """The tensor that is softmaxed to an output, and the layer's name; None where it is not."""
    operation, place, _ = output._keras_history
    node = operation._inbound_nodes[place]
    if isinstance(operation, keras.Model):
        inner, name = _before_softmax(operation.outputs[0])
        if inner is None:
            return None, ""
        inside = keras.Model(operation.inputs, inner, name=f"{operation.name}_logits")
        return inside(node.input_tensors[0]), name
    if type(operation).__name__ == "Softmax":
        return node.input_tensors[0], operation.name
    if getattr(operation, "activation", None) is not keras.activations.softmax:
        return None, ""
    if isinstance(operation, keras.layers.Activation):
        return node.input_tensors[0], operation.name
    config = operation.get_config() | {"activation": "linear", "name": f"{operation.name}_logits"}
    linear = type(operation).from_config(config)
    logits = linear(node.input_tensors[0])
    linear.set_weights(operation.get_weights())
    return logits, operation.name


def _compare_with_original(model: keras.Model, original: Original, tensors: NDArray[np.uint8], path: Path) -> None:
    """Make sure that what was changed in the model changed none of its answers.

    Raises:
        DataError: it did.
    """
    theirs, ours = original.predict(tensors), model.predict(tensors.astype(np.float32), verbose=0)
    nearly = 0.02 * max(1e-3, float(np.ptp(theirs)))  # it may have been trained in mixed precision
    if not any(np.allclose(mine, theirs, atol=nearly) for mine in (ours, softmax(ours))):
        raise DataError(
            f"{path} gives other answers once it takes raw pixels and gives logits: the exporter does not know how to "
            "change such a network. Save it without its softmax, and with a Rescaling layer in front."
        )


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
    if (graph := saved_model.frozen(model)) is not None:
        return graph.rescales
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
