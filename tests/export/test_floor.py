"""A model that is hardly worth having is refused, whatever float says of int8, and the likely cause is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from faces_csv import write_csvs

import datasets
from datasets.fer2013 import FER2013_LABELS
from export.quantize import main

pytestmark = pytest.mark.trains

LENIENT = ["--max-drop", "100", "--min-agreement", "0", "--max-ece", "100", "--calibration", "20"]


def describe(path: Path, scale: float, offset: float) -> None:
    head = f'[[heads]]\nname = "fer2013"\nlabels = {json.dumps(FER2013_LABELS)}\n'
    path.write_text(f'name = "m"\nnormalize = [{scale}, {offset}]\n{head}')


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faces")
    write_csvs(folder, training=140, public=112)
    return folder


@pytest.fixture(scope="module")
def trained(faces: Path, tmp_path_factory: pytest.TempPathFactory, seed: int) -> Path:
    """A network that was fed pixel / 127.5 - 1, and does its work well."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((48, 48, 1))
    x = keras.layers.Flatten()(keras.layers.AveragePooling2D(4)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(7, activation="softmax")(x))
    training = datasets.load(faces)["Training"]
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    model.fit(training.images.astype(np.float32) / 127.5 - 1, training.labels["fer2013"].truth, epochs=20, verbose=0)
    path = tmp_path_factory.mktemp("trained") / "m.keras"
    model.save(path)
    return path


def test_as_it_was_trained_it_passes(trained: Path, faces: Path, tmp_path: Path, call: Callable[..., Any]) -> None:
    describe(trained.with_suffix(".toml"), 1 / 127.5, -1)
    assert call(main, trained, "--data", faces, "-o", tmp_path / "m.tflite").code == 0


@pytest.mark.parametrize(("scale", "offset"), [(-1 / 127.5, 1.0), (1e-9, -1.0)])
def test_pixels_scaled_otherwise_are_noticed_and_the_right_scaling_named(
    trained: Path, faces: Path, tmp_path: Path, call: Callable[..., Any], scale: float, offset: float
) -> None:
    describe(trained.with_suffix(".toml"), scale, offset)
    out = tmp_path / "m.tflite"
    out.write_text("before")
    done = call(main, trained, "--data", faces, "-o", out, *LENIENT, "--force")
    assert done.code == 1
    assert "try normalize = [0.00" in done.err
    assert "stays as it was" in done.err
    assert out.read_text() == "before"


def test_a_guess_is_refused_where_there_are_faces_enough_to_tell(
    run: Path, faces: Path, data: Path, tmp_path: Path, call: Callable[..., Any]
) -> None:
    """A network that was never trained: no scaling mends it."""
    out = tmp_path / "m.tflite"
    done = call(main, run / "model.keras", "--data", faces, "-o", out, *LENIENT)
    assert done.code == 1
    assert "are its labels in the right order" in done.err
    done = call(main, run / "model.keras", "--data", faces, "-o", out, *LENIENT, "--min-gain", "-100")
    assert done.code == ("gives one label" in done.err)
    done = call(main, run / "model.keras", "--data", data, "-o", tmp_path / "few.tflite", *LENIENT)
    assert done.code == 0
    assert "faces are too few to judge by" in " ".join(done.out.split())
