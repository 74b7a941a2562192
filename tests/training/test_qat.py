"""Quantisation-aware fine-tuning: fake quantisation does what the converter does, and a bad model is mended."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

from edge_fer.errors import DataError
from evaluation import datasets, figures
from export.convert import to_int8
from export.equalise import fold_batch_norm
from export.verify import run_flatbuffer
from training import models
from training.__main__ import main
from training.qat import (
    FakeQuantActivations,
    FakeQuantWeights,
    copy_weights_back,
    fake_quantise_weights,
    fake_quantised,
)

KERNEL = np.random.default_rng(0).normal(0, 1, (3, 3, 4, 5)).astype(np.float32) * np.array([1, 2, 4, 8, 16], np.float32)
RECIPE = """
name = "tiny"
epochs = 8
batch_size = 20
label_smoothing = 0.0
[model]
kind = "separable"
stages = [[8, 2], [16, 2], [16, 2]]
dropout = 0.0
[augment]
rotation_deg = 0
scale = 0
shift = 0.02
[optimizer]
learning_rate = 0.01
warmup_epochs = 1
"""


@pytest.mark.parametrize(("axes", "scales"), [((0, 1, 2), 5), ((0, 1, 2, 3), 1)])
def test_weights_lie_on_a_grid_of_at_most_255_values(axes: tuple[int, ...], scales: int) -> None:
    rounded = np.array(fake_quantise_weights(KERNEL, axes))
    scale = np.abs(KERNEL).max(axis=axes, keepdims=True) / 127
    assert scale.size == scales
    steps = rounded / scale
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)
    assert (np.abs(steps).max(), len(np.unique(np.round(steps)))) <= (127.001, 255)
    assert np.abs(rounded - KERNEL).max() <= scale.max() / 2 + 1e-5


def test_rounding_again_changes_nothing() -> None:
    once = np.array(fake_quantise_weights(KERNEL, (0, 1, 2)))
    np.testing.assert_allclose(np.array(fake_quantise_weights(once, (0, 1, 2))), once, atol=1e-5)


def test_gradients_go_straight_through_the_rounding_of_weights() -> None:
    kernel = tf.Variable(KERNEL)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(3.0 * fake_quantise_weights(kernel, (0, 1, 2)))
    np.testing.assert_allclose(tape.gradient(loss, kernel), 3.0)


def test_gradients_of_activations_end_where_the_range_ends() -> None:
    layer = FakeQuantActivations()
    layer(np.array([[-1.0, 1.0]], np.float32), training=True)
    x = tf.constant([[-3.0, -0.5, 0.0, 0.7, 3.0]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        rounded = layer(x)
    np.testing.assert_allclose(tape.gradient(rounded, x), [[0, 1, 1, 1, 0]])
    np.testing.assert_allclose(rounded, [[-1, -0.5, 0, 0.7, 1]], atol=2 / 255)
    assert rounded[0, 2] == 0  # zero is exact: padding is made of it


def test_ranges_follow_training_and_only_training() -> None:
    layer = FakeQuantActivations()
    layer(np.array([[-1.0, 3.0]], np.float32), training=True)
    assert (float(layer.low), float(layer.high)) == (-1, 3)
    layer(np.array([[-3.0, 5.0]], np.float32), training=True)
    assert (float(layer.low), float(layer.high)) == (-2, 4)
    layer(np.array([[-100.0, 100.0]], np.float32))
    assert (float(layer.low), float(layer.high)) == (-2, 4)
    for _ in range(400):
        layer(np.array([[0.0, 10.0]], np.float32), training=True)
    assert float(layer.high) == pytest.approx(10, abs=0.2)


def test_activations_take_256_values_at_most() -> None:
    layer = FakeQuantActivations()
    x = np.linspace(-1, 2, 5000, dtype=np.float32)[np.newaxis]
    layer(x, training=True)
    assert 250 < len(np.unique(np.array(layer(x)))) <= 256


def test_simulated_int8_is_near_the_real_one() -> None:
    keras.utils.set_random_seed(1)
    model = fold_batch_norm(models.build_separable([[8, 2], [16, 2], [16, 2]], dropout=0.0))
    faces = np.random.default_rng(0).integers(0, 256, (40, 48, 48, 1)).astype(np.uint8)
    simulated = fake_quantised(model, per_channel=True, name="x")
    simulated(faces.astype(np.float32), training=True)
    int8 = run_flatbuffer(to_int8(model, faces, Console(quiet=True)), faces, Console(quiet=True), "")
    exact = model.predict(faces.astype(np.float32), verbose=0)
    fake = simulated.predict(faces.astype(np.float32), verbose=0)
    step = np.ptp(exact) / 255
    assert np.abs(fake - exact).max() > 0
    assert np.abs(fake - int8).max() < 6 * step


def test_batch_norm_must_be_folded_first() -> None:
    with pytest.raises(DataError, match=r"export/equalise.py"):
        fake_quantised(models.build_separable([[4, 2]], dropout=0.0), per_channel=True, name="x")


def test_weights_come_back_and_the_copy_can_be_saved(tmp_path: Path) -> None:
    model = fold_batch_norm(models.build_plain([[4, 2]], dropout=0.0))
    quantised = fake_quantised(model, per_channel=False, name="x")
    quantised.save(tmp_path / "x.keras")
    again = keras.models.load_model(tmp_path / "x.keras")
    wrapped = [layer for layer in again.layers if isinstance(layer, FakeQuantWeights)]
    assert [layer.per_channel for layer in wrapped] == [False, False]
    wrapped[0].layer.kernel.assign(wrapped[0].layer.kernel + 1)
    copy_weights_back(again, model)
    np.testing.assert_allclose(model.layers[2].kernel, wrapped[0].layer.kernel)


@pytest.fixture(scope="module")
def bad(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose model works in float, and whose channels were driven apart until int8 does not."""
    run = tmp_path_factory.mktemp("runs") / "tiny"
    recipe = run.parent / "tiny.toml"
    recipe.write_text(RECIPE)
    assert main(["train", "--recipe", str(recipe), "--data", str(data), "--run", str(run)]) == 0
    model = fold_batch_norm(keras.models.load_model(run / "model.keras"))
    chance = np.random.default_rng(0)
    convolutions = [layer for layer in model.layers if hasattr(layer, "kernel")]
    for first, second in itertools.pairwise(convolutions):
        s = 10 ** chance.uniform(-1.2, 1.2, second.kernel.shape[-2]).astype(np.float32)
        depthwise = isinstance(first, keras.layers.DepthwiseConv2D)
        first.kernel.assign(np.array(first.kernel) * (s[:, np.newaxis] if depthwise else s))
        first.bias.assign(np.array(first.bias) * s)
        second.kernel.assign(np.array(second.kernel) / s[:, np.newaxis])
    model.save(run / "bad.keras")
    return run


def right(model: keras.Model, data: Path) -> tuple[float, float]:
    """Share of faces that float and per-tensor int8 get right."""
    splits = datasets.load(data)
    faces, head = splits["PublicTest"], models.HEADS[1]
    part = figures.head_slices(models.HEADS)[head.name]
    flatbuffer = to_int8(model, splits["Training"].images, Console(quiet=True), per_tensor=True)
    int8 = run_flatbuffer(flatbuffer, faces.images, Console(quiet=True), "")
    exact = model.predict(faces.images.astype(np.float32), verbose=0)
    return tuple(float((x[:, part].argmax(axis=1) == faces.fer2013).mean()) for x in (exact, int8))


def test_fine_tuning_wins_back_what_int8_lost(bad: Path, data: Path, tmp_path: Path) -> None:
    exact, int8 = right(keras.models.load_model(bad / "bad.keras"), data)
    assert int8 < exact - 0.1
    out = tmp_path / "qat"
    arguments = ["qat", "--model", str(bad / "bad.keras"), "--recipe", str(bad / "recipe.toml"), "--data", str(data)]
    assert main([*arguments, "--run", str(out), "--epochs", "6", "--learning-rate", "0.003", "--per-tensor"]) == 0
    model = keras.models.load_model(out / "model.keras")
    assert {type(layer) for layer in model.layers} <= {type(layer) for layer in fold_batch_norm(model).layers}
    assert not any(isinstance(layer, FakeQuantWeights | FakeQuantActivations) for layer in model.layers)
    assert right(model, data)[1] > int8 + 0.1
    names = {path.name for path in out.iterdir()}
    assert names == {
        *("recipe.toml", "run.json", "history.csv", "curves.png", "model.keras", "model.toml", "evaluation"),
    }
    facts = json.loads((out / "run.json").read_text())
    assert facts["quantisation_aware"] == {"epochs": 6, "learning_rate": 0.003, "per_channel": False}
    assert main([*arguments, "--run", str(out)]) == 78


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (["--model", "none.keras"], 66, "No model"),
        (["--epochs", "0"], 78, "at least 1"),
        (["--recipe", "none.toml"], 66, "training/recipes"),
    ],
)
def test_what_cannot_be_fine_tuned(
    bad: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: list[str],
    code: int,
    message: str,
) -> None:
    arguments = ["qat", "--model", str(bad / "model.keras"), "--recipe", str(bad / "recipe.toml"), "--data", str(data)]
    assert main([*arguments, "--run", str(tmp_path / "x"), *change]) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_model_with_batch_norm_is_told_what_to_do(
    bad: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["qat", "--model", str(bad / "model.keras"), "--recipe", str(bad / "recipe.toml"), "--data", str(data)]
    assert main([*arguments, "--run", str(tmp_path / "x")]) == 65
    assert "export/equalise.py" in capsys.readouterr().err
