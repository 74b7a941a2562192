"""Networks from elsewhere get what they miss, or are refused in one sentence."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from labeled import HEADS
from rich.console import Console

import datasets
from datasets.fer2013 import FER2013_LABELS
from edge_fer.errors import DataError, UnavailableError
from edge_fer.model.bundle import load_bundle
from edge_fer.model.classifier import TfliteClassifier
from edge_fer.model.decision import softmax
from edge_fer.model.selftest import golden_outputs
from edge_fer.model.spec import Head
from edge_fer.preprocess import Preprocessor
from export.convert import to_int8
from export.flatbuffer import in_float, read_operators
from export.load import Description, load_model
from export.quantize import main
from training import models

UNGATED = ["--max-drop", "100", "--min-agreement", "0", "--calibration", "20"]  # see test_export.py


def described(tmp_path: Path, model: keras.Model | None, toml: str) -> Path:
    if model is not None:
        model.save(tmp_path / "model.keras")
    (tmp_path / "model.toml").write_text(toml)
    return tmp_path / "model.keras"


def network(shape: tuple[int | None, ...] = (48, 48, 1), outputs: int = 15) -> keras.Model:
    inputs = keras.Input(shape)
    x = keras.layers.Conv2D(2, 3)(keras.layers.Rescaling(1 / 255)(inputs))
    return keras.Model(inputs, keras.layers.Dense(outputs)(keras.layers.GlobalAveragePooling2D()(x)))


def unscaled(*tail: keras.layers.Layer) -> keras.Model:
    """A network from elsewhere: three channels, depthwise, ReLU6 and swish; pixels are scaled before it."""
    inputs = keras.Input((40, 36, 3))
    x = keras.layers.Conv2D(8, 3, strides=2, padding="same")(inputs)
    x = keras.layers.ReLU(6.0)(keras.layers.BatchNormalization()(x))
    x = keras.layers.DepthwiseConv2D(3, strides=2)(x)
    x = keras.layers.Activation("swish")(keras.layers.Conv2D(16, 1)(x))
    x = keras.layers.Dense(15)(keras.layers.GlobalAveragePooling2D()(x)) if not tail else keras.layers.Flatten()(x)
    for layer in tail:
        x = layer(x)
    return keras.Model(inputs, x)


def arctangent() -> keras.Model:
    """Begins well, then asks for an operator that TensorFlow Lite does not have."""
    inputs = keras.Input((48, 48, 1))
    x = keras.ops.arctan(keras.layers.Conv2D(2, 3)(keras.layers.Rescaling(1 / 255)(inputs)))
    return keras.Model(inputs, keras.layers.Dense(15)(keras.layers.GlobalAveragePooling2D()(x)))


class Homemade(keras.layers.Layer):
    """A layer that Keras cannot load without this file."""

    def call(self, inputs: object) -> object:
        return inputs


def homemade() -> keras.Model:
    inputs = keras.Input((48, 48, 1))
    return keras.Model(inputs, keras.layers.Dense(15)(keras.layers.Flatten()(Homemade()(inputs))))


GOOD = models.description("x", HEADS)
MINE = f'name = "m"\nnormalize = [0.01, -1]\n[[heads]]\nname = "mine"\nlabels = {json.dumps(FER2013_LABELS)}\n'


def foreign(*scaling: float) -> Description:
    return Description("foreign", (Head("mine", FER2013_LABELS),), normalize=scaling)


@pytest.mark.trains
@pytest.mark.parametrize(
    "tail",
    [
        lambda: [keras.layers.Dense(7, activation="softmax")],
        lambda: [keras.layers.Dense(7), keras.layers.Softmax()],
        lambda: [keras.layers.Dense(7), keras.layers.Activation("softmax")],
        lambda: [keras.Sequential([keras.layers.Dense(7, activation="softmax")])],
    ],
)
def test_a_strangers_network_gets_what_it_misses(tmp_path: Path, tail: object) -> None:
    original = unscaled(*tail())  # type: ignore[operator]
    original.save(tmp_path / "m.keras")
    model, notes, _ = load_model(tmp_path / "m.keras", foreign(1 / 127.5, -1.0))
    assert len(notes) == 3
    gray = np.random.default_rng(0).integers(0, 256, (5, 40, 36, 1)).astype(np.float32)
    expected = original.predict(gray.repeat(3, axis=-1) / 127.5 - 1, verbose=0)
    logits = model.predict(gray, verbose=0)
    assert np.abs(logits).max() > 0.01
    assert np.allclose(softmax(logits), expected, atol=1e-5)


@pytest.mark.trains
def test_a_strangers_network_runs_on_the_device(tmp_path: Path, data: Path, call: Callable[..., Any]) -> None:
    original = unscaled(keras.layers.Dense(7, activation="softmax"))
    original.save(tmp_path / "m.keras")
    (tmp_path / "m.toml").write_text(MINE)
    done = call(main, tmp_path / "m.keras", "--data", data, "-o", tmp_path / "m.tflite", *UNGATED)
    assert done.code == 0
    assert "softmax" in done.out
    classifier = TfliteClassifier(load_bundle(tmp_path / "m.tflite"))
    preprocessor = Preprocessor(classifier.bundle.metadata.preprocess, classifier.size_hw)
    tensors = preprocessor.crops(datasets.load(data)["PublicTest"].images[:6])
    expected = original.predict(tensors.repeat(3, axis=-1) * np.float32(0.01) - 1, verbose=0)
    assert np.allclose([softmax(classifier.logits(tensor)) for tensor in tensors], expected, atol=0.02)


@pytest.mark.trains
def test_a_network_with_a_mean_for_each_channel_takes_raw_pixels(tmp_path: Path) -> None:
    inputs = keras.Input((40, 36, 3))
    x = keras.layers.Normalization(mean=[120.0, 110.0, 100.0], variance=[3000.0, 3100.0, 3200.0])(inputs)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(8, 3)(x))
    original = keras.Model(inputs, keras.layers.Dense(7)(x))
    original.save(tmp_path / "m.keras")
    model, _, _ = load_model(tmp_path / "m.keras", foreign())
    gray = np.random.default_rng(0).integers(0, 256, (5, 40, 36, 1)).astype(np.uint8)
    expected = original.predict(gray.repeat(3, axis=-1).astype(np.float32), verbose=0)
    assert np.allclose(model.predict(gray.astype(np.float32), verbose=0), expected, atol=1e-4)
    to_int8(model, gray, Console(quiet=True))  # raises where pixels would be changed


@pytest.mark.trains
def test_a_network_trained_in_mixed_precision_computes_in_float32(tmp_path: Path) -> None:
    inputs = keras.Input((40, 36, 1))
    x = keras.layers.Conv2D(4, 3, dtype="mixed_float16")(inputs)
    x = keras.Sequential([keras.layers.BatchNormalization(), keras.layers.ReLU()], name="block")(x)
    x = keras.layers.Dense(7, dtype="mixed_float16")(keras.layers.GlobalAveragePooling2D()(x))
    original = keras.Model(inputs, x)
    original.save(tmp_path / "m.keras")
    model, _, _ = load_model(tmp_path / "m.keras", foreign(1.0, 0.0))
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    gray = np.random.default_rng(0).integers(0, 256, (5, 40, 36, 1)).astype(np.float32)
    expected = original.predict(gray, verbose=0).astype(np.float32)
    assert np.abs(model.predict(gray, verbose=0) - expected).max() < 0.01 * np.abs(expected).max()


def test_an_output_may_have_a_name(tmp_path: Path) -> None:
    inputs = keras.Input((40, 36, 1))
    logits = keras.layers.Dense(7)(keras.layers.Flatten()(inputs))
    keras.Model(inputs, {"expression": logits}).save(tmp_path / "m.keras")
    model, _, _ = load_model(tmp_path / "m.keras", foreign(1.0, 0.0))
    assert model.predict(np.zeros((1, 40, 36, 1)), verbose=0).shape == (1, 7)


def test_an_operator_without_a_reference_kernel_is_compared_less_strictly() -> None:
    inputs = keras.Input((12, 12, 1))
    x = keras.layers.Conv2D(4, 3, activation="elu")(keras.layers.Rescaling(1 / 255)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(7)(keras.layers.GlobalAveragePooling2D()(x)))
    tensors = np.random.default_rng(0).integers(0, 256, (4, 12, 12, 1)).astype(np.uint8)
    flatbuffer = to_int8(model, tensors, Console(quiet=True))
    outputs, most_lsb = golden_outputs(flatbuffer, tensors)
    assert outputs.shape == (4, 7)
    assert most_lsb == 4
    assert in_float(read_operators(flatbuffer)) == ["ELU"]


def test_a_softmax_that_cannot_be_taken_off_is_refused(tmp_path: Path, data: Path, call: Callable[..., Any]) -> None:
    softly = [keras.layers.Dense(7, activation="softmax"), keras.layers.Reshape((7,))]
    unscaled(*softly).save(tmp_path / "m.keras")
    (tmp_path / "m.toml").write_text(MINE)
    done = call(main, tmp_path / "m.keras", "--data", data, "-o", tmp_path / "m.tflite", *UNGATED)
    assert done.code == 65
    assert "softmax or sigmoid that cannot be taken off" in done.err


@pytest.mark.parametrize(
    ("model", "toml", "code", "message"),
    [
        (lambda: None, GOOD, 66, "No model"),
        (lambda: network(outputs=7), GOOD, 65, "model.toml names 15 labels"),
        (lambda: network((None, None, 1)), GOOD, 65, "fixed height and width"),
        (lambda: network((48, 48, 2)), GOOD, 65, "must take"),
        (lambda: unscaled(), GOOD, 65, "normalize = [scale, offset]"),
        (lambda: network(), "normalize = [0.1, 0]\n" + GOOD, 65, "scaled twice"),
        (lambda: network(), "normalize = [0, 1]\n" + GOOD, 78, "a scale other than 0"),
        (lambda: arctangent(), GOOD, 65, "cannot be converted: TensorFlow Lite has no Atan"),
        (lambda: homemade(), GOOD, 65, "needs Homemade, which only the code that made it knows"),
        (lambda: network(), GOOD.replace('"ferplus"', '"fer2013"'), 78, "the same name"),
        (lambda: network(), GOOD.replace('"anger"', '"fear"'), 78, "each once"),
        (lambda: network(), GOOD.replace("anger", "rage"), 78, "unknown value 'rage'"),
        (lambda: network(), GOOD.replace("margin", "margins"), 78, "Did you mean 'preprocess.margin'"),
        (lambda: network(), "margin = 0.1\n" + GOOD, 78, "unknown key 'margin'"),  # GOOD says it itself
        (lambda: network(), "normalise = [0.1, 0]\n" + GOOD, 65, "scaled twice"),
        (lambda: network(), 'name = "x"\nheads = []\n', 78, "has no heads"),
        (lambda: network(), "name = ", 78, "not valid TOML"),
    ],
)
def test_models_that_cannot_be_exported(
    tmp_path: Path, data: Path, model: object, toml: str, code: int, message: str, call: Callable[..., Any]
) -> None:
    path = described(tmp_path, model(), toml)  # type: ignore[operator]
    done = call(main, path, "--data", data, "-o", tmp_path / "out.tflite")
    assert done.code == code
    assert message in done.err
    assert not (tmp_path / "out.tflite").exists()


def test_weights_that_are_not_numbers(tmp_path: Path, data: Path, call: Callable[..., Any]) -> None:
    model = network()
    model.layers[-1].bias.assign(np.full(15, np.nan))
    path = described(tmp_path, model, GOOD)
    done = call(main, path, "--data", data, "-o", tmp_path / "out.tflite")
    assert done.code == 65
    assert "not numbers" in done.err


def test_what_is_no_keras_model(run: Path, data: Path, tmp_path: Path, call: Callable[..., Any]) -> None:
    shutil.copy(run / "model.toml", tmp_path)
    (tmp_path / "model.keras").write_text("hello")
    done = call(main, tmp_path / "model.keras", "--data", data, "-o", tmp_path / "x.tflite")
    assert done.code == 65
    assert "not a Keras model" in done.err
    (tmp_path / "model.toml").unlink()
    done = call(main, tmp_path / "model.keras", "--data", data, "-o", tmp_path / "x.tflite")
    assert done.code == 66
    assert "model.toml" in done.err


def predictions(model: keras.Model, gray: np.ndarray) -> np.ndarray:
    return np.asarray(softmax(model.predict(gray, verbose=0)))


GRAY = np.random.default_rng(0).integers(0, 256, (5, 40, 36, 1)).astype(np.float32)


@pytest.mark.parametrize("kind", ["dense", "layer", "activation"])
def test_only_the_last_use_of_a_softmax_is_left_out(tmp_path: Path, kind: str) -> None:
    """The same layer weighs channels first, as in an attention."""
    soft = {
        "dense": lambda: keras.layers.Dense(7, activation="softmax"),
        "layer": lambda: keras.layers.Softmax(),
        "activation": lambda: keras.layers.Activation("softmax"),
    }[kind]()
    inputs = keras.Input((40, 36, 1))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(7, 3)(keras.layers.Rescaling(1 / 255)(inputs)))
    original = keras.Model(inputs, soft(20 * x * soft(9 * x)))
    original.save(tmp_path / "m.keras")
    model, notes, untouched = load_model(tmp_path / "m.keras", foreign())
    assert len(notes) == 1
    expected = original.predict(GRAY, verbose=0)
    assert np.ptp(expected) > 0.01
    assert np.allclose(predictions(model, GRAY), expected, atol=1e-5)
    assert np.allclose(untouched.predict(GRAY.astype(np.uint8)), expected, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 4])
def test_a_model_for_a_fixed_batch_takes_any(tmp_path: Path, batch: int) -> None:
    inputs = keras.Input((40, 36, 1), batch_size=batch)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(7, 3)(keras.layers.Rescaling(1 / 255)(inputs)))
    original = keras.Model(inputs, keras.layers.Dense(7, activation="softmax")(x))
    original.save(tmp_path / "m.keras")
    model, _, untouched = load_model(tmp_path / "m.keras", foreign())
    four = GRAY[:4]
    expected = original.predict(four, batch_size=batch, verbose=0)
    assert np.allclose(predictions(model, four), expected, atol=1e-5)
    assert np.allclose(untouched.predict(four.astype(np.uint8)), expected, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("inside", [True, False])
def test_a_saved_model_is_read(tmp_path: Path, channels: int, inside: bool) -> None:
    inputs = x = keras.Input((40, 36, channels))
    if inside:
        x = keras.layers.Rescaling(1 / 127.5, offset=-1)(x)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.BatchNormalization()(keras.layers.Conv2D(7, 3)(x)))
    original = keras.Model(inputs, keras.layers.Dense(7, activation="softmax")(x))
    original.export(tmp_path / "saved", verbose=False)
    model, _, untouched = load_model(tmp_path / "saved", foreign() if inside else foreign(1 / 127.5, -1.0))
    scaled = GRAY.repeat(channels, axis=-1) if inside else GRAY.repeat(channels, axis=-1) / 127.5 - 1
    expected = original.predict(scaled, verbose=0)
    assert np.allclose(predictions(model, GRAY), expected, atol=1e-5)
    assert np.allclose(untouched.predict(GRAY.astype(np.uint8)), expected, atol=1e-5)
    with pytest.raises(DataError, match=r"scaled twice|has no Rescaling"):
        load_model(tmp_path / "saved", foreign(1 / 127.5, -1.0) if inside else foreign())


def test_a_saved_model_becomes_a_bundle(tmp_path: Path, data: Path, call: Callable[..., Any]) -> None:
    network((48, 48, 3)).export(tmp_path / "saved", verbose=False)
    (tmp_path / "saved.toml").write_text(GOOD)
    done = call(main, tmp_path / "saved", "--data", data, "-o", tmp_path / "m.tflite", *UNGATED)
    assert done.code == 0, done.err
    assert load_bundle(tmp_path / "m.tflite").metadata.facts["parameters"] > 0


@pytest.mark.parametrize("content", [{}, {"saved_model.pb": b"hello"}, {"saved_model.pb": b""}])
def test_a_folder_that_is_no_saved_model_is_refused(
    tmp_path: Path, data: Path, call: Callable[..., Any], content: dict[str, bytes]
) -> None:
    (tmp_path / "saved").mkdir()
    for name, what in content.items():
        (tmp_path / "saved" / name).write_bytes(what)
    (tmp_path / "saved.toml").write_text(GOOD)
    done = call(main, tmp_path / "saved", "--data", data, "-o", tmp_path / "m.tflite")
    assert done.code == 65
    assert "is not a SavedModel" in done.err
    assert len(done.err.splitlines()[-1]) < 500


def of_keras_2(path: Path, **keywords: object) -> None:
    """What Keras 2 wrote of layers, put into a file of Keras 3."""
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        for layer in config["config"]["layers"]:
            if layer["class_name"].endswith("Conv2D"):
                layer["config"].update(keywords)
        file.attrs["model_config"] = json.dumps(config)
        file.attrs["keras_version"] = "2.9.0"


@pytest.mark.parametrize("kind", [keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D])
def test_files_of_keras_2_are_read(tmp_path: Path, kind: type, recwarn: pytest.WarningsRecorder) -> None:
    inputs = keras.Input((40, 36, 1))
    x = kind(3, 3)(inputs) if kind is keras.layers.SeparableConv2D else kind(3)(inputs)
    original = keras.Model(inputs, keras.layers.Dense(7)(keras.layers.Flatten()(x)))
    original.save(tmp_path / "m.h5")
    initial = {"class_name": "GlorotUniform", "config": {"seed": None}}
    of_keras_2(tmp_path / "m.h5", groups=1, kernel_initializer=initial, kernel_regularizer=None)
    model, _, _ = load_model(tmp_path / "m.h5", foreign(1.0, 0.0))
    assert np.allclose(model.predict(GRAY, verbose=0), original.predict(GRAY, verbose=0), atol=1e-3)


def test_a_file_of_keras_2_that_cannot_be_read_says_so(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    network().save(tmp_path / "m.h5")
    of_keras_2(tmp_path / "m.h5", nonsense="x" * 2000)
    with pytest.raises(DataError, match=r"is of Keras 2\.9\.0") as caught:
        load_model(tmp_path / "m.h5", foreign(1.0, 0.0))
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "setting", [{"backend": "torch", "image_data_format": "channels_first"}, {"backend": "jax", "floatx": "float16"}]
)
def test_settings_of_keras_for_other_work_do_not_matter(
    run: Path, data: Path, tmp_path: Path, setting: dict[str, str]
) -> None:
    (tmp_path / "keras.json").write_text(json.dumps(setting))
    out = tmp_path / "m.tflite"
    done = subprocess.run(
        [sys.executable, "-m", "export", run / "model.keras", "--data", data, "-o", out, *UNGATED],
        env=os.environ | {"KERAS_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert load_bundle(out).metadata.name == "tiny"


def test_another_backend_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(UnavailableError, match="KERAS_BACKEND=tensorflow"):
        load_model(tmp_path / "m.keras", foreign())
