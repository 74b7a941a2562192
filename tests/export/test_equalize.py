"""Folding, equalization and bias correction, on networks built to be bad."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from labeled import HEADS
from rich.console import Console

from export.convert import to_int8
from export.equalize import equalize, find_pairs, input_range, main, output_range
from export.flatbuffer import run_flatbuffer
from export.fold import correct_bias, fold_batch_norm
from training import models

pytestmark = pytest.mark.trains

FACES = np.random.default_rng(0).integers(0, 256, (24, 48, 48, 1)).astype(np.uint8)


def logits(model: keras.Model) -> np.ndarray:
    return model.predict(FACES.astype(np.float32), verbose=0)


@pytest.fixture(scope="module")
def uneven(seed: int) -> keras.Model:
    """A separable network as training can leave it, with channels that differ by a hundred times."""
    keras.utils.set_random_seed(seed)
    model = models.build_separable([[8, 2], [8, 2], [16, 2]], dropout=0.1, classes=15)
    chance = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            gamma = 10 ** chance.uniform(-1, 1, layer.gamma.shape)
            beta, mean = chance.normal(0, 0.3, (2, *layer.gamma.shape))
            layer.set_weights([gamma, beta, mean, chance.uniform(0.2, 3, layer.gamma.shape)])
    return model


def test_folding_keeps_the_outputs_and_leaves_no_batch_norm(uneven: keras.Model) -> None:
    folded = fold_batch_norm(uneven)
    assert not any(isinstance(layer, layers.BatchNormalization) for layer in folded.layers)
    np.testing.assert_allclose(logits(folded), logits(uneven), rtol=1e-3, atol=1e-3 * np.ptp(logits(uneven)))


def test_layers_in_models_in_the_model_are_folded_too(uneven: keras.Model) -> None:
    inputs = keras.Input((48, 48, 1))
    x = keras.Sequential([keras.Input((48, 48, 1)), layers.Rescaling(2.0), layers.Rescaling(0.5)], name="front")(inputs)
    nested = keras.Model(inputs, uneven(x))
    assert len(find_pairs(nested)[0]) == 5
    np.testing.assert_allclose(logits(equalize(nested)), logits(uneven), rtol=1e-3, atol=1e-3 * np.ptp(logits(uneven)))
    twice = keras.Model(inputs, layers.Add()([uneven(inputs), uneven(inputs)]))
    np.testing.assert_allclose(logits(equalize(twice)), 2 * logits(uneven), rtol=1e-3, atol=1e-3)


def test_separable_convolutions_are_folded_in_their_two_parts(chance: np.random.Generator) -> None:
    inputs = keras.Input((48, 48, 1))
    x = layers.Conv2D(4, 3, activation="relu")(inputs)
    for multiplier in (1, 2):
        x = layers.SeparableConv2D(6, 3, strides=2, padding="same", depth_multiplier=multiplier)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    model = scattered(keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x))), chance)
    assert len(find_pairs(model)[0]) >= 3
    assert not any(isinstance(layer, layers.BatchNormalization) for layer in equalize(model).layers)
    np.testing.assert_allclose(logits(equalize(model)), logits(model), rtol=1e-3, atol=1e-4 * np.ptp(logits(model)))


def test_folding_does_not_touch_its_argument(uneven: keras.Model) -> None:
    before = [weights.copy() for weights in uneven.get_weights()]
    equalize(uneven)
    assert all(np.array_equal(old, new) for old, new in zip(before, uneven.get_weights(), strict=True))


def test_a_sequential_model_with_biases_and_several_multipliers_is_folded() -> None:
    model = keras.Sequential(
        [
            keras.Input((48, 48, 1)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(3, 3, strides=4, bias_initializer="ones"),
            layers.BatchNormalization(center=False),
            layers.DepthwiseConv2D(3, depth_multiplier=2),
            layers.BatchNormalization(scale=False),
            layers.Flatten(),
            layers.Dense(5),
            layers.BatchNormalization(),
        ]
    )
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([np.random.default_rng(2).uniform(0.5, 2, w.shape) for w in layer.get_weights()])
    folded = fold_batch_norm(model)
    assert not any(isinstance(layer, layers.BatchNormalization) for layer in folded.layers)
    np.testing.assert_allclose(logits(folded), logits(model), rtol=1e-4, atol=1e-5)


def scattered(model: keras.Model, chance: np.random.Generator) -> keras.Model:
    """The model with batch normalizations as training can leave them, some factors below 0."""
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            size = layer.moving_mean.shape
            gamma = [chance.choice([-1, 1, 1, 1], size) * 10 ** chance.uniform(-1, 1, size)] * layer.scale
            beta = [chance.normal(0, 0.3, size)] * layer.center
            layer.set_weights([*gamma, *beta, chance.normal(0, 0.3, size), chance.uniform(0.2, 3, size)])
        elif getattr(layer, "use_bias", False):
            layer.bias.assign(chance.normal(0, 0.3, layer.bias.shape))
    return model


def vgg(
    late: bool, padding: str = "same", fused: bool = False, pooling: object = layers.MaxPooling2D, **norm: bool
) -> keras.Model:
    """Blocks of convolution, ReLU and batch normalization, in this order or with the last two turned."""
    inputs = keras.Input((48, 48, 1))
    x = layers.Rescaling(1 / 255)(inputs)
    for width in (4, 4, 8):
        x = layers.Conv2D(width, 3, padding=padding, activation="relu" if fused else None)(x)
        order = [layers.BatchNormalization(**norm), *([] if fused else [layers.ReLU()])]
        for layer in reversed(order) if late else order:
            x = layer(x)
        x = layers.Dropout(0.2)(pooling(2)(x))  # type: ignore[operator]
    return keras.Model(inputs, layers.Dense(3)(layers.Dense(5, activation="relu")(layers.Flatten()(x))))


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("pooling", [layers.MaxPooling2D, layers.AveragePooling2D])
@pytest.mark.parametrize("norm", [{}, {"center": False}, {"scale": False}])
def test_a_vgg_with_batch_norm_behind_relu_is_folded_and_equalized(
    padding: str, fused: bool, pooling: object, norm: dict[str, bool], chance: np.random.Generator
) -> None:
    model = scattered(vgg(True, padding, fused, pooling, **norm), chance)
    expected = logits(model)
    for changed in (fold_batch_norm(model), equalize(model)):
        np.testing.assert_allclose(logits(changed), expected, rtol=1e-3, atol=1e-4 * np.ptp(expected))


@pytest.mark.parametrize("late", [False, True])
def test_its_layers_are_paired_in_either_order(late: bool, chance: np.random.Generator) -> None:
    model = vgg(late)
    assert len(find_pairs(model)[0]) == 3  # two of convolutions, and the dense layers
    left = [layer for layer in fold_batch_norm(model).layers if isinstance(layer, layers.BatchNormalization)]
    assert len(left) == (2 if late else 0)  # zeros are padded behind two; only their shifts are left
    assert all(np.allclose(layer.gamma, 1) for layer in left)
    before, after = (
        ratios(change(scattered(model, chance)), *find_pairs(model)[0][0]) for change in (fold_batch_norm, equalize)
    )
    assert before.max() / before.min() > 1.5
    np.testing.assert_allclose(after, 1, rtol=0.01)


def test_equalizing_keeps_the_outputs(uneven: keras.Model) -> None:
    np.testing.assert_allclose(logits(equalize(uneven)), logits(uneven), rtol=1e-3, atol=1e-3 * np.ptp(logits(uneven)))


def ratios(model: keras.Model, first: str, second: str) -> np.ndarray:
    """Range before a channel over range after it."""
    before, after = model.get_layer(first), model.get_layer(second)
    depthwise = isinstance(before, layers.DepthwiseConv2D)
    return output_range(before.kernel.numpy(), depthwise) / input_range(after.kernel.numpy())


def test_equalized_channels_have_the_same_range_before_and_after(uneven: keras.Model) -> None:
    pairs, skipped = find_pairs(uneven)
    assert (len(pairs), skipped) == (5, [])
    before, after = fold_batch_norm(uneven), equalize(uneven)
    for first, second in pairs:
        old, new = ratios(before, first, second), ratios(after, first, second)
        assert old.max() / old.min() > 3
        np.testing.assert_allclose(new, 1, rtol=0.01)


def test_a_dead_channel_does_no_harm(uneven: keras.Model) -> None:
    model = fold_batch_norm(uneven)
    stem = model.layers[2]
    kernel = stem.kernel.numpy()
    kernel[..., 0] = 0
    stem.kernel.assign(kernel)
    equalized = equalize(model)
    assert all(np.isfinite(weights).all() for weights in equalized.get_weights())
    np.testing.assert_allclose(logits(equalized), logits(model), rtol=1e-3, atol=1e-3 * np.ptp(logits(model)))


@pytest.mark.parametrize(
    ("between", "reason"),
    [
        (lambda x: layers.ReLU(max_value=6.0, name="six")(x), r"six \(ReLU\) follows"),
        (lambda x: layers.Activation("sigmoid", name="s")(x), r"s \(Activation\) follows"),
        (lambda x: layers.Add(name="sum")([x, layers.ReLU()(x)]), "first goes to several places"),
        (lambda x: layers.Add(name="sum")([x, layers.Conv2D(2, 1, name="b")(layers.ReLU()(x))]), "b: sum"),
        (lambda x: layers.DepthwiseConv2D(3, depth_multiplier=2, name="many")(x), "many has a depth multiplier"),
        (lambda x: layers.Conv2D(4, 3, groups=2, name="grouped")(x), "grouped has groups"),
    ],
)
def test_what_cannot_be_equalized_is_skipped_with_the_reason(between: object, reason: str) -> None:
    inputs = keras.Input((48, 48, 1))
    x = between(layers.Conv2D(2, 3, name="first")(inputs))  # type: ignore[operator]
    model = keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    _, skipped = find_pairs(model)
    assert any(re.search(reason, line) for line in skipped), skipped
    np.testing.assert_allclose(logits(equalize(model)), logits(model), rtol=1e-4, atol=1e-4)


def test_bias_correction_reduces_the_mean_error_of_a_bad_model(uneven: keras.Model) -> None:
    convert = partial(to_int8, tensors=FACES, console=Console(quiet=True), per_tensor=True)

    def error(model: keras.Model) -> float:
        int8 = run_flatbuffer(convert(model), FACES, Console(quiet=True), "")
        return float(np.abs((int8 - logits(uneven)).mean(axis=0)).mean())

    assert error(correct_bias(uneven, FACES, convert)) < 0.5 * error(uneven)


def test_the_command_writes_a_model_with_its_description(
    uneven: keras.Model, tmp_path: Path, call: Callable[..., Any]
) -> None:
    uneven.save(tmp_path / "model.keras")
    (tmp_path / "model.toml").write_text(models.description("x", HEADS))
    out = tmp_path / "new" / "model.keras"
    done = call(main, tmp_path / "model.keras", "-o", out)
    assert done.code == 0
    assert "5 pairs" in done.out
    assert out.with_suffix(".toml").read_text() == models.description("x", HEADS)
    np.testing.assert_allclose(logits(keras.models.load_model(out)), logits(equalize(uneven)), rtol=1e-4, atol=1e-3)
    done = call(main, tmp_path / "model.keras", "-o", out)
    assert done.code == 73


def test_the_command_refuses_what_is_no_model(tmp_path: Path, call: Callable[..., Any]) -> None:
    (tmp_path / "x.keras").write_text("hello")
    done = call(main, tmp_path / "x.keras", "-o", tmp_path / "y.keras")
    assert done.code == 65
    done = call(main, tmp_path / "none.keras", "-o", tmp_path / "y.keras")
    assert done.code == 66
    assert "Traceback" not in done.err
    done = call(main, tmp_path / "x.keras", "-o", tmp_path / "y")
    assert (done.code, done.err) == (73, "equalize: --output must end in .keras, not 'y'.\n")
