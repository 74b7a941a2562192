"""From a Keras model to a bundle that the device can trust."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest
from rich.console import Console

from edge_fer.core import Expression, FaceBox
from edge_fer.errors import BundleError, DataError
from edge_fer.model.bundle import Head, check_golden, golden_outputs, load_bundle
from edge_fer.model.classifier import TfliteClassifier, softmax
from edge_fer.preprocess.face_tensor import face_tensor
from edge_fer.sources.demo import average_faces
from evaluation import datasets, figures
from export.convert import HeadDescription, ModelDescription, as_tensors, calibration_faces, load_model, to_int8
from export.flatbuffer import in_float, read_operators
from export.quantize import load_description, main
from training import models

# The tiny networks here were never trained: their answers are near ties, which any rounding turns.
UNGATED = ["--max-drop", "100", "--min-agreement", "0", "--calibration", "20"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that was never trained, with its description."""
    folder = tmp_path_factory.mktemp("run")
    keras.utils.set_random_seed(1)
    models.build_plain([[8, 2], [16, 2], [16, 2]], dropout=0.0).save(folder / "model.keras")
    (folder / "model.toml").write_text(models.description("tiny"))
    return folder


@pytest.fixture(scope="module")
def exported(run: Path, data: Path) -> Path:
    out = run / "tiny.tflite"
    assert main([str(run / "model.keras"), "--data", str(data), "-o", str(out), *UNGATED, "--also", "float16"]) == 0
    return out


def test_the_bundle_runs_on_the_device_and_agrees_with_float(exported: Path, run: Path, data: Path) -> None:
    bundle = load_bundle(exported)
    assert bundle.card.name == "tiny"
    assert [head.labels for head in bundle.card.heads] == [head.labels for head in models.HEADS]
    classifier = TfliteClassifier(bundle)
    assert classifier._input["quantization"] == (1.0, 0)
    images = datasets.load(data)["PublicTest"].images
    float_logits = keras.models.load_model(run / "model.keras").predict(images, verbose=0)
    int8_logits = np.stack([classifier.logits(image) for image in images])
    assert np.abs(int8_logits - float_logits).max() < 0.15 * np.ptp(float_logits)


def test_cpp_comes_from_the_same_run(exported: Path, run: Path, data: Path, tmp_path: Path) -> None:
    arguments = [str(run / "model.keras"), "--data", str(data), "-o", str(tmp_path / "m.tflite"), *UNGATED]
    assert main([*arguments, "--c-array", str(tmp_path / "my-model.cc")]) == 65
    assert list(tmp_path.iterdir()) == []
    assert main([*arguments, "--c-array", str(tmp_path / "tiny_model.cc")]) == 0
    assert load_bundle(exported).card.model_sha256 in (tmp_path / "tiny_model.h").read_text()
    assert "kModel[kModelBytes] = {" in (tmp_path / "tiny_model.cc").read_text()


def test_biases_are_corrected_on_demand(exported: Path, run: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "corrected.tflite"
    assert main([str(run / "model.keras"), "--data", str(data), "-o", str(out), *UNGATED, "--correct-bias"]) == 0
    plain, corrected = load_bundle(exported), load_bundle(out)
    assert (
        plain.card.facts["quantisation"]["bias_corrected"],
        corrected.card.facts["quantisation"]["bias_corrected"],
    ) == (
        False,
        True,
    )
    assert corrected.model != plain.model


def test_the_self_test_shows_nobody_from_the_data(exported: Path) -> None:
    shown = load_bundle(exported).selftest_inputs[..., 0]
    for tensor, face in zip(shown, average_faces(), strict=False):  # with noise
        assert np.corrcoef(tensor.ravel(), face.ravel())[0, 1] > 0.8
    assert len(np.unique(shown)) == 8


def test_figures_stand_in_the_card(exported: Path) -> None:
    figures = load_bundle(exported).card.facts["public_test"]
    assert figures["fer2013"]["n"] == 42
    assert {"accuracy", "accuracy_float", "macro_f1", "recall", "agreement", "ece"} <= figures["ferplus"].keys()


def test_a_float_variant_stands_beside(exported: Path) -> None:
    half = exported.with_name("tiny.float16.tflite")
    assert half.stat().st_size > 0
    with pytest.raises(BundleError, match="has no card"):
        load_bundle(half)


def test_the_golden_outputs_are_exact_and_the_int8_input_takes_shifted_pixels(
    exported: Path, run: Path, data: Path, tmp_path: Path
) -> None:
    check_golden(load_bundle(exported))
    out = tmp_path / "int8.tflite"
    arguments = [str(run / "model.keras"), "--data", str(data), "-o", str(out), "--io", "int8", "--per-tensor"]
    assert main([*arguments, *UNGATED]) == 0
    bundle = load_bundle(out)
    check_golden(bundle)
    assert bundle.selftest_inputs.dtype == np.int8
    assert bundle.selftest_inputs.min() < -100
    assert bundle.card.facts["quantisation"]["weights"] == "per tensor"
    with pytest.raises(BundleError, match="takes int8"):
        TfliteClassifier(bundle)


def test_a_model_that_is_worse_is_not_written(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, page = tmp_path / "out.tflite", tmp_path / "out.html"
    arguments = [str(run / "model.keras"), "--data", str(data), "-o", str(out), "--calibration", "20"]
    assert main([*arguments, "--also", "float32", "--min-agreement", "100.1", "--report", str(page)]) == 1
    printed = capsys.readouterr()
    assert "100.1 % are demanded" in printed.err
    assert "Layers that lose most" in printed.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.html", "out.json"]
    content = json.loads(page.with_suffix(".json").read_text())
    assert not content["passed"]
    assert content["layers"]


def test_a_runtime_that_dies_does_not_take_the_export_with_it(
    run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = tmp_path / "path" / "ai_edge_litert"
    fake.mkdir(parents=True)
    (fake / "__init__.py").touch()
    (fake / "interpreter.py").write_text("import os\nos.abort()\n")
    monkeypatch.setenv("PYTHONPATH", str(fake.parent))  # only a new process looks there first
    out = tmp_path / "out.tflite"
    assert main([str(run / "model.keras"), "--data", str(data), "-o", str(out), *UNGATED]) == 1
    assert "The TFLite runtime died on the float32 model (SIGABRT)" in capsys.readouterr().err
    assert not out.exists()


def test_a_full_disk_leaves_no_half_file(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.tflite"
    out.write_text("before")
    (tmp_path / "out.tflite.part").symlink_to("/dev/full")
    assert main([str(run / "model.keras"), "--data", str(data), "-o", str(out), *UNGATED, "--force"]) == 73
    assert "No space left" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["out.tflite"]
    assert out.read_text() == "before"


def test_the_same_model_gives_the_same_bytes(exported: Path, run: Path, data: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.tflite"
    assert main([str(run / "model.keras"), "--data", str(data), "-o", str(again), *UNGATED]) == 0
    assert again.read_bytes() == exported.read_bytes()


def test_an_existing_file_is_kept(exported: Path, run: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = exported.read_bytes()
    assert main([str(run / "model.keras"), "--data", str(data), "-o", str(exported)]) == 73
    assert "--force overwrites it" in capsys.readouterr().err
    assert exported.read_bytes() == before


def test_nothing_is_left_when_the_place_cannot_be_written(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "none" / "out.tflite"
    assert main([str(run / "model.keras"), "--data", str(data), "-o", str(out)]) == 73
    assert "Cannot write" in capsys.readouterr().err
    assert not out.parent.exists()


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


GOOD = models.description("x")
SEVEN = ["anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral"]


def foreign(scaling: list[float]) -> ModelDescription:
    return ModelDescription("foreign", 0.0, [HeadDescription("mine", SEVEN)], scaling)


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
    model, notes = load_model(tmp_path / "m.keras", foreign([1 / 127.5, -1.0]))
    assert len(notes) == 3
    gray = np.random.default_rng(0).integers(0, 256, (5, 40, 36, 1)).astype(np.float32)
    expected = original.predict(gray.repeat(3, axis=-1) / 127.5 - 1, verbose=0)
    logits = model.predict(gray, verbose=0)
    assert np.abs(logits).max() > 0.01
    assert np.allclose(softmax(logits), expected, atol=1e-5)


def test_a_strangers_network_runs_on_the_device(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keras.utils.set_random_seed(2)
    original = unscaled(keras.layers.Dense(7, activation="softmax"))
    original.save(tmp_path / "m.keras")
    toml = f'name = "m"\nmargin = 0.0\nnormalise = [0.01, -1]\n[[heads]]\nname = "mine"\nlabels = {json.dumps(SEVEN)}\n'
    (tmp_path / "m.toml").write_text(toml)
    assert main([str(tmp_path / "m.keras"), "--data", str(data), "-o", str(tmp_path / "m.tflite"), *UNGATED]) == 0
    assert "softmax" in capsys.readouterr().out
    classifier = TfliteClassifier(load_bundle(tmp_path / "m.tflite"))
    tensors = as_tensors(datasets.load(data)["PublicTest"][:6], classifier.size_hw, 0.0)
    expected = original.predict(tensors.repeat(3, axis=-1) * np.float32(0.01) - 1, verbose=0)
    assert np.allclose([softmax(classifier.logits(tensor)) for tensor in tensors], expected, atol=0.02)


def test_a_network_with_a_mean_for_each_channel_takes_raw_pixels(tmp_path: Path) -> None:
    inputs = keras.Input((40, 36, 3))
    x = keras.layers.Normalization(mean=[120.0, 110.0, 100.0], variance=[3000.0, 3100.0, 3200.0])(inputs)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(8, 3)(x))
    original = keras.Model(inputs, keras.layers.Dense(7)(x))
    original.save(tmp_path / "m.keras")
    model, _ = load_model(tmp_path / "m.keras", foreign([]))
    gray = np.random.default_rng(0).integers(0, 256, (5, 40, 36, 1)).astype(np.uint8)
    expected = original.predict(gray.repeat(3, axis=-1).astype(np.float32), verbose=0)
    assert np.allclose(model.predict(gray.astype(np.float32), verbose=0), expected, atol=1e-4)
    to_int8(model, gray, Console(quiet=True))  # raises where pixels would be changed


def test_a_network_trained_in_mixed_precision_computes_in_float32(tmp_path: Path) -> None:
    inputs = keras.Input((40, 36, 1))
    x = keras.layers.Conv2D(4, 3, dtype="mixed_float16")(inputs)
    x = keras.Sequential([keras.layers.BatchNormalization(), keras.layers.ReLU()], name="block")(x)
    x = keras.layers.Dense(7, dtype="mixed_float16")(keras.layers.GlobalAveragePooling2D()(x))
    original = keras.Model(inputs, x)
    original.save(tmp_path / "m.keras")
    model, _ = load_model(tmp_path / "m.keras", foreign([1.0, 0.0]))
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    gray = np.random.default_rng(0).integers(0, 256, (5, 40, 36, 1)).astype(np.float32)
    expected = original.predict(gray, verbose=0).astype(np.float32)
    assert np.abs(model.predict(gray, verbose=0) - expected).max() < 0.01 * np.abs(expected).max()


def test_an_output_may_have_a_name(tmp_path: Path) -> None:
    inputs = keras.Input((40, 36, 1))
    logits = keras.layers.Dense(7)(keras.layers.Flatten()(inputs))
    keras.Model(inputs, {"expression": logits}).save(tmp_path / "m.keras")
    model, _ = load_model(tmp_path / "m.keras", foreign([1.0, 0.0]))
    assert model.predict(np.zeros((1, 40, 36, 1)), verbose=0).shape == (1, 7)


def test_an_operator_without_a_reference_kernel_is_compared_less_strictly() -> None:
    inputs = keras.Input((12, 12, 1))
    x = keras.layers.Conv2D(4, 3, activation="elu")(keras.layers.Rescaling(1 / 255)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(7)(keras.layers.GlobalAveragePooling2D()(x)))
    tensors = np.random.default_rng(0).integers(0, 256, (4, 12, 12, 1)).astype(np.uint8)
    flatbuffer = to_int8(model, tensors, Console(quiet=True))
    outputs, quanta = golden_outputs(flatbuffer, tensors)
    assert outputs.shape == (4, 7)
    assert quanta == 4
    assert in_float(read_operators(flatbuffer)) == ["ELU"]


def test_class_folders_are_read_at_the_size_of_the_model(tmp_path: Path) -> None:
    folder = faces(tmp_path, ["happy", "sad"], side=100)
    training = datasets.load(folder, size_hw=(90, 80))["Training"]
    picture = cv2.imread(str(folder / "train" / "happy" / "0.png"), cv2.IMREAD_GRAYSCALE)
    expected = face_tensor(picture, FaceBox(0, 0, 100, 100), (90, 80), 0.0)
    tensors = as_tensors(training, (90, 80), 0.1)
    assert any(np.array_equal(tensor, expected) for tensor in tensors)


def test_a_softmax_that_cannot_be_taken_off_is_refused(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    softly = [keras.layers.Dense(7, activation="softmax"), keras.layers.Reshape((7,))]
    unscaled(*softly).save(tmp_path / "m.keras")
    (tmp_path / "m.toml").write_text(
        f'name = "m"\nmargin = 0.0\nnormalise = [0.01, -1]\n[[heads]]\nname = "mine"\nlabels = {json.dumps(SEVEN)}\n'
    )
    assert main([str(tmp_path / "m.keras"), "--data", str(data), "-o", str(tmp_path / "m.tflite"), *UNGATED]) == 65
    assert "softmax or sigmoid that cannot be taken off" in capsys.readouterr().err


def faces(folder: Path, names: list[str], side: int = 48) -> Path:
    for number, name in enumerate(names * 20):
        (folder / "train" / name).mkdir(parents=True, exist_ok=True)
        picture = np.random.default_rng(number).integers(0, 256, (side, side)).astype(np.uint8)
        cv2.imwrite(str(folder / "train" / name / f"{number}.png"), picture)
    return folder


def broken(folder: Path) -> Path:
    (faces(folder, ["happy", "sad"]) / "train" / "sad" / "x.png").write_bytes(struct.pack("<I", 7))
    return folder


@pytest.mark.parametrize(
    ("make", "code", "message"),
    [
        (lambda folder: folder, 66, "has neither fer2013.csv"),
        (lambda folder: folder / "none", 66, "No folder"),
        (lambda folder: faces(folder, ["happy"]), 65, "All Training faces have one label"),
        (broken, 65, "cannot be read as a picture"),
    ],
)
def test_wrong_calibration_data(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], make: object, code: int, message: str
) -> None:
    where = make(tmp_path)  # type: ignore[operator]
    out = tmp_path / "out.tflite"
    assert main([str(run / "model.keras"), "--data", str(where), "-o", str(out), *UNGATED]) == code
    assert message in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("model", "toml", "code", "message"),
    [
        (lambda: None, GOOD, 66, "No model"),
        (lambda: network(outputs=7), GOOD, 65, "model.toml names 15 labels"),
        (lambda: network((None, None, 1)), GOOD, 65, "fixed height and width"),
        (lambda: network((48, 48, 2)), GOOD, 65, "must take"),
        (lambda: keras.Model(x := keras.Input((48, 48, 1), batch_size=4), network()(x)), GOOD, 65, "must take"),
        (lambda: unscaled(), GOOD, 65, "normalise = \\[scale, offset]"),
        (lambda: network(), "normalise = [0.1, 0]\n" + GOOD, 65, "scaled twice"),
        (lambda: network(), "normalise = [0, 1]\n" + GOOD, 78, "a scale other than 0"),
        (lambda: arctangent(), GOOD, 65, "cannot be converted: TensorFlow Lite has no Atan"),
        (lambda: homemade(), GOOD, 65, "needs Homemade, which only the code that made it knows"),
        (lambda: network(), GOOD.replace('"ferplus"', '"fer2013"'), 78, "the same name"),
        (lambda: network(), GOOD.replace('"anger"', '"fear"'), 78, "each once"),
        (lambda: network(), GOOD.replace("anger", "rage"), 78, "unknown label 'rage'"),
        (lambda: network(), GOOD.replace("margin", "margins"), 78, "Did you mean 'margin'"),
        (lambda: network(), 'name = "x"\nmargin = 0.0\nheads = []\n', 78, "no \\[\\[heads]]"),
        (lambda: network(), "name = ", 78, "not valid TOML"),
    ],
)
def test_models_that_cannot_be_exported(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str], model: object, toml: str, code: int, message: str
) -> None:
    path = described(tmp_path, model(), toml)  # type: ignore[operator]
    assert main([str(path), "--data", str(data), "-o", str(tmp_path / "out.tflite")]) == code
    assert message.replace("\\", "") in capsys.readouterr().err
    assert not (tmp_path / "out.tflite").exists()


def test_weights_that_are_not_numbers(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = network()
    model.layers[-1].bias.assign(np.full(15, np.nan))
    path = described(tmp_path, model, GOOD)
    assert main([str(path), "--data", str(data), "-o", str(tmp_path / "out.tflite")]) == 65
    assert "not numbers" in capsys.readouterr().err


def test_what_is_no_keras_model(run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(run / "model.toml", tmp_path)
    (tmp_path / "model.keras").write_text("hello")
    assert main([str(tmp_path / "model.keras"), "--data", str(data), "-o", str(tmp_path / "x.tflite")]) == 65
    assert "not a Keras model" in capsys.readouterr().err
    (tmp_path / "model.toml").unlink()
    assert main([str(tmp_path / "model.keras"), "--data", str(data), "-o", str(tmp_path / "x.tflite")]) == 66
    assert "model.toml" in capsys.readouterr().err


def test_calibration_is_balanced_over_labels(data: Path) -> None:
    training = datasets.load(data)["Training"]
    rare = np.flatnonzero(training.fer2013 == 1)[2:]
    training = training[np.setdiff1d(np.arange(len(training)), rare)]  # two faces of disgust are left
    chosen = calibration_faces(training, models.HEADS[1], 30)
    counts = np.bincount(chosen.fer2013, minlength=7)
    assert counts.sum() == 30
    assert counts[1] == 2
    assert sorted(np.delete(counts, 1)) == [4, 4, 5, 5, 5, 5]
    with pytest.raises(DataError, match="nothing to calibrate on"):
        calibration_faces(training, Head("x", (Expression.CONTEMPT,), 1.0), 10)


def test_a_head_that_knows_contempt_is_measured_by_votes(tmp_path: Path) -> None:
    training = datasets.load(faces(tmp_path, ["happy", "contempt"]))["Training"]
    truth = figures.truth(training, Head("mine", (Expression.CONTEMPT, Expression.HAPPINESS), 1.0))
    assert sorted(set(truth)) == [0, 1]


def test_a_data_sets_framing_is_kept_whatever_the_margin(data: Path) -> None:
    training = datasets.load(data)["Training"][:3]
    assert np.array_equal(as_tensors(training, (48, 48), 0.0), training.images)
    assert np.array_equal(as_tensors(training, (48, 48), 0.25), training.images)


def test_a_description_is_read(run: Path) -> None:
    description, heads = load_description(run / "model.toml")
    assert (description.name, description.margin) == ("tiny", 0.0)
    assert heads == models.HEADS
