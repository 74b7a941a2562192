"""From a Keras model to a bundle that the device can trust."""

from __future__ import annotations

import json
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import pytest
from labeled import HEADS

import datasets
from edge_fer.core import Expression
from edge_fer.errors import BundleError, DataError
from edge_fer.model.bundle import load_bundle
from edge_fer.model.classifier import TfliteClassifier
from edge_fer.model.spec import Head
from edge_fer.sources.demo import average_faces
from export.load import calibration_faces, read_description
from export.quantize import main

# A network that was never trained has near ties, which any rounding turns.
UNGATED = ["--max-drop", "100", "--min-agreement", "0", "--calibration", "20"]


@pytest.fixture(scope="module")
def exported(run: Path, data: Path, call: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "tiny.tflite"
    assert call(main, run / "model.keras", "--data", data, "-o", out, *UNGATED, "--also", "float16").code == 0
    return out


@pytest.mark.trains
def test_the_bundle_runs_on_the_device_and_agrees_with_float(exported: Path, run: Path, data: Path) -> None:
    bundle = load_bundle(exported)
    assert bundle.metadata.name == "tiny"
    assert [head.labels for head in bundle.metadata.heads] == [head.labels for head in HEADS]
    classifier = TfliteClassifier(bundle)
    assert (classifier._input.scale, classifier._input.zero_point) == (1.0, 0)
    images = datasets.load(data)["PublicTest"].images
    float_logits = keras.models.load_model(run / "model.keras").predict(images, verbose=0)
    int8_logits = np.stack([classifier.logits(image) for image in images])
    assert np.abs(int8_logits - float_logits).max() < 0.15 * np.ptp(float_logits)


def test_cpp_comes_from_the_same_run(
    exported: Path, run: Path, data: Path, tmp_path: Path, call: Callable[..., Any]
) -> None:
    arguments = [run / "model.keras", "--data", data, "-o", tmp_path / "m.tflite", *UNGATED]
    assert call(main, *arguments, "--c-array", tmp_path / "my-model.cc").code == 65
    assert list(tmp_path.iterdir()) == []
    assert call(main, *arguments, "--c-array", tmp_path / "tiny_model.cc").code == 0
    assert load_bundle(exported).metadata.model_sha256 in (tmp_path / "tiny_model.h").read_text()
    assert "kModel[kModelBytes] = {" in (tmp_path / "tiny_model.cc").read_text()


def test_biases_are_corrected_on_demand(
    exported: Path, run: Path, data: Path, tmp_path: Path, call: Callable[..., Any]
) -> None:
    out = tmp_path / "corrected.tflite"
    assert call(main, run / "model.keras", "--data", data, "-o", out, *UNGATED, "--correct-bias").code == 0
    plain, corrected = load_bundle(exported), load_bundle(out)
    assert [one.metadata.facts["quantization"]["bias_corrected"] for one in (plain, corrected)] == [False, True]
    assert corrected.model != plain.model


def test_the_self_test_shows_nobody_from_the_data(exported: Path) -> None:
    shown = load_bundle(exported).selftest.inputs[..., 0]
    for tensor, face in zip(shown, average_faces(), strict=False):  # with noise
        assert np.corrcoef(tensor.ravel(), face.ravel())[0, 1] > 0.8
    assert len(np.unique(shown)) == 8


def test_metrics_stand_in_the_metadata(exported: Path) -> None:
    metrics = load_bundle(exported).metadata.facts["public_test"]
    assert metrics["fer2013"]["n"] == 42
    assert {"accuracy", "accuracy_float", "macro_f1", "recall", "agreement", "ece"} <= metrics["ferplus"].keys()


def test_a_float_variant_stands_beside(exported: Path) -> None:
    half = exported.with_name("tiny.float16.tflite")
    assert half.stat().st_size > 0
    with pytest.raises(BundleError, match="has no metadata"):
        load_bundle(half)


def test_the_golden_outputs_are_exact_and_the_int8_input_takes_shifted_pixels(
    exported: Path, run: Path, data: Path, tmp_path: Path, call: Callable[..., Any]
) -> None:
    tiny = load_bundle(exported)
    assert tiny.selftest.check_golden(tiny.model, "tiny") == 0
    out = tmp_path / "int8.tflite"
    arguments = [run / "model.keras", "--data", data, "-o", out, "--io", "int8", "--per-tensor"]
    assert call(main, *arguments, *UNGATED).code == 0
    bundle = load_bundle(out)
    assert bundle.selftest.check_golden(bundle.model, "int8") == 0
    assert bundle.selftest.inputs.dtype == np.int8
    assert bundle.selftest.inputs.min() < -100
    assert bundle.metadata.facts["quantization"]["weights"] == "per tensor"
    with pytest.raises(BundleError, match="takes int8"):
        TfliteClassifier(bundle)


def test_a_model_that_is_worse_is_not_written(run: Path, data: Path, tmp_path: Path, call: Callable[..., Any]) -> None:
    out, page = tmp_path / "out.tflite", tmp_path / "out.html"
    arguments = [run / "model.keras", "--data", data, "-o", out, "--calibration", "20"]
    done = call(main, *arguments, "--also", "float32", "--min-agreement", "100.1", "--report", page)
    assert done.code == 1
    assert "100.1 % are demanded" in done.err
    assert (
        "Tried: as it is; equalized; biases corrected; equalized and biases corrected." in done.err
    )  # a fifth of 20 faces is too few
    assert "Layers that lose most" in done.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.html", "out.json"]
    content = json.loads(page.with_suffix(".json").read_text())
    assert not content["passed"]
    assert [one["words"] for one in content["tried"]] == [
        "as it is",
        "equalized",
        "biases corrected",
        "equalized and biases corrected",
    ]
    assert content["layers"]


@pytest.mark.parametrize("option", ["--max-drop", "--min-agreement", "--min-gain", "--max-ece"])
def test_a_gate_that_is_no_number_is_refused(
    run: Path, data: Path, tmp_path: Path, call: Callable[..., Any], option: str
) -> None:
    done = call(main, run / "model.keras", "--data", data, "-o", tmp_path / "out.tflite", *UNGATED, option, "nan")
    assert (done.code, done.err.count("\n")) == (65, 1)
    assert f"{option} must be a number" in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff", b"[" * 100_000])
def test_facts_of_a_training_that_cannot_be_read_are_said_before_anything_is_quantized(
    run: Path, tmp_path: Path, call: Callable[..., Any], content: bytes
) -> None:
    shutil.copy(run / "model.keras", tmp_path)
    (tmp_path / "run.json").write_bytes(content)
    # Neither the data nor the model's description are there: nothing has been looked at yet.
    done = call(main, tmp_path / "model.keras", "--data", tmp_path / "none", "-o", tmp_path / "out.tflite")
    assert (done.code, done.err.count("\n")) == (65, 1)
    assert "run.json is not what a training writes" in done.err
    assert not (tmp_path / "out.tflite").exists()


def test_a_runtime_that_dies_does_not_take_the_export_with_it(
    run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[..., Any]
) -> None:
    fake = tmp_path / "path" / "ai_edge_litert"
    fake.mkdir(parents=True)
    (fake / "__init__.py").touch()
    (fake / "interpreter.py").write_text("import os\nos.abort()\n")
    monkeypatch.setenv("PYTHONPATH", str(fake.parent))  # only a new process looks there first
    out = tmp_path / "out.tflite"
    done = call(main, run / "model.keras", "--data", data, "-o", out, *UNGATED)
    assert done.code == 1
    assert "The TFLite runtime died on the float32 model (SIGABRT)" in done.err
    assert not out.exists()


def test_a_full_disk_leaves_no_half_file(run: Path, data: Path, tmp_path: Path, call: Callable[..., Any]) -> None:
    out = tmp_path / "out.tflite"
    out.write_text("before")
    (tmp_path / "out.tflite.part").symlink_to("/dev/full")
    done = call(main, run / "model.keras", "--data", data, "-o", out, *UNGATED, "--force")
    assert done.code == 73
    assert "No space left" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["out.tflite"]
    assert out.read_text() == "before"


def test_the_same_model_gives_the_same_bytes(
    exported: Path, run: Path, data: Path, tmp_path: Path, call: Callable[..., Any]
) -> None:
    again = tmp_path / "again.tflite"
    assert call(main, run / "model.keras", "--data", data, "-o", again, *UNGATED).code == 0
    assert again.read_bytes() == exported.read_bytes()


@pytest.mark.parametrize("there", ["notes.txt", "model.keras", "photos.zip"])
def test_a_file_that_is_no_bundle_is_kept(
    run: Path, data: Path, tmp_path: Path, call: Callable[..., Any], there: str
) -> None:
    path = tmp_path / there
    path.write_text("mine")
    if there == "model.keras":
        shutil.copy(run / "model.keras", path)
    if there == "photos.zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("metadata.json", "{}")
    before = path.read_bytes()
    done = call(main, run / "model.keras", "--data", data, "-o", path)
    assert done.code == 73
    assert "--force overwrites it" in done.err
    assert path.read_bytes() == before


def test_an_earlier_bundle_is_replaced_by_one_that_passes_alone(
    exported: Path, run: Path, data: Path, tmp_path: Path, call: Callable[..., Any]
) -> None:
    path = tmp_path / "m.tflite"
    shutil.copy(exported, path)
    refused = call(main, run / "model.keras", "--data", data, "-o", path, "--min-agreement", "101")
    assert refused.code == 1 and "stays as it was" in refused.err
    assert path.read_bytes() == exported.read_bytes()
    again = call(main, run / "model.keras", "--data", data, "-o", path, *UNGATED, "--calibration", "30")
    assert again.code == 0
    assert path.read_bytes() != exported.read_bytes()


def test_nothing_is_left_when_the_place_cannot_be_written(
    run: Path, data: Path, tmp_path: Path, call: Callable[..., Any]
) -> None:
    out = tmp_path / "none" / "out.tflite"
    done = call(main, run / "model.keras", "--data", data, "-o", out)
    assert done.code == 73
    assert "Cannot write" in done.err
    assert not out.parent.exists()


def faces(folder: Path, names: list[str], side: int = 48) -> Path:
    for number, name in enumerate(names * 20):
        (folder / "train" / name).mkdir(parents=True, exist_ok=True)
        image = np.random.default_rng(number).integers(0, 256, (side, side)).astype(np.uint8)
        cv2.imwrite(str(folder / "train" / name / f"{number}.png"), image)
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
        (broken, 65, "cannot be read as an image"),
    ],
)
def test_wrong_calibration_data(
    run: Path, tmp_path: Path, make: object, code: int, message: str, call: Callable[..., Any]
) -> None:
    where = make(tmp_path)  # type: ignore[operator]
    out = tmp_path / "out.tflite"
    done = call(main, run / "model.keras", "--data", where, "-o", out, *UNGATED)
    assert done.code == code
    assert message in done.err
    assert not out.exists()


def test_calibration_is_balanced_over_labels(data: Path) -> None:
    training = datasets.load(data)["Training"]
    rare = np.flatnonzero(training.labels["fer2013"].truth == 1)[2:]
    training = training[np.setdiff1d(np.arange(len(training)), rare)]  # two faces of disgust are left
    chosen = calibration_faces(training, HEADS[1], 30)
    counts = np.bincount(chosen.labels["fer2013"].truth, minlength=7)
    assert counts.sum() == 30
    assert counts[1] == 2
    assert sorted(np.delete(counts, 1)) == [4, 4, 5, 5, 5, 5]
    with pytest.raises(DataError, match="nothing to calibrate on"):
        calibration_faces(training, Head("x", (Expression.CONTEMPT,), 1.0), 10)


def test_a_description_is_read(run: Path) -> None:
    description = read_description(run / "model.toml")
    assert (description.name, description.preprocess.margin, description.normalize) == ("tiny", 0.0, ())
    assert description.heads == HEADS


def test_the_file_beside_a_model_may_say_how_to_smooth(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.toml"
    path.write_text("normalize = [0.5, 2]\n" + (run / "model.toml").read_text() + "\n[smoothing]\ndwell_s = 0.4\n")
    description = read_description(path)
    assert description.normalize == (0.5, 2.0)
    metadata = description.metadata()
    assert metadata.smoothing.dwell_s == 0.4
    assert "normalize" not in metadata.to_table()
