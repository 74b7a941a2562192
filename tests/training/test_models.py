"""Networks and what they can be turned into: auxiliary heads, re-parameterized or folded blocks, another precision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from labeled import HEADS

from edge_fer.errors import ConfigError
from training import models
from training.__main__ import main
from training.fixed_statistics import with_statistics
from training.fold import fold_squeeze_excitation
from training.loop import build
from training.recipe import ModelRecipe, Recipe

pytestmark = pytest.mark.trains

STAGES = [[8, 2], [8, 1], [16, 2], [16, 1], [16, 2], [16, 1]]
THREE = dict.fromkeys(("logits", "auxiliary_0", "auxiliary_1"), (None, 15))


def shapes(network: keras.Model) -> dict[str, tuple[int | None, ...]]:
    """Of its outputs, by name."""
    found: dict[str, tuple[int | None, ...]] = network.compute_output_shape(network.input_shape)
    return found


def test_the_network_takes_pixels_and_starts_with_rescaling() -> None:
    model = models.build_plain([[4, 2]], dropout=0.0, classes=15)
    assert isinstance(model.layers[1], keras.layers.Rescaling)
    assert (model.input_shape, model.output_shape) == ((None, 48, 48, 1), (None, 15))


def test_multiply_accumulates_by_hand() -> None:
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same")(inputs)  # 16 places * 9 * 1 * 4
    x = keras.layers.DepthwiseConv2D(3, padding="same")(x)  # 16 * 9 * 4
    x = keras.layers.Conv2D(8, 1)(x)  # 16 * 4 * 8
    x = keras.layers.Dense(5)(keras.layers.GlobalAveragePooling2D()(x))  # 8 * 5
    assert models.mmac(keras.Model(inputs, x)) * 1e6 == pytest.approx(576 + 576 + 512 + 40)


@pytest.mark.parametrize(
    ("text", "message"),
    [("[preprocess", "not valid TOML"), ('[preprocess]\nalignment = "nose"', "must be one of none")],
)
def test_a_wrong_description_beside_a_model(tmp_path: Path, text: str, message: str) -> None:
    assert models.read_description(tmp_path / "model.keras") is None
    (tmp_path / "model.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        models.read_description(tmp_path / "model.keras")


# Centers and heads for training alone


def test_centers_give_distances_and_cosines() -> None:
    layer = models.ClassCenters(3)
    layer.build((None, 2))
    layer.set_weights([np.array([[1, 0], [0, 2], [-3, 0]], np.float32)])
    columns = keras.ops.convert_to_numpy(layer(np.array([[1, 1], [0, 0]], np.float32)))
    # Cosines 0, -1 and 0, each plus 1, over ordered pairs.
    assert columns == pytest.approx(np.array([[1, 2, 17, 4], [1, 4, 9, 4]]), abs=1e-4)


def test_centers_and_heads_stay_behind(chance: np.random.Generator, tmp_path: Path) -> None:
    recipe = Recipe("x", ModelRecipe(STAGES, kind="residual"), center=0.1, island=1.0, auxiliary_heads=0.3, mixup=0.2)
    network = build(recipe, HEADS, 10)
    assert shapes(network) == {**THREE, "centers": (None, 7 + 1), "mixup": (None, 1)}
    core, plain = models.core_of(network, "residual"), models.build(recipe.model, 15)
    assert [one.shape for one in core.get_weights()] == [one.shape for one in plain.get_weights()]
    images = chance.uniform(0, 255, (4, 48, 48, 1)).astype(np.float32)
    said = network.predict(images, verbose=0)
    assert core.predict(images, verbose=0) == pytest.approx(said["logits"], abs=1e-4)
    layer = next(one for one in network.get_layer("residual").layers if isinstance(one, models.ClassCenters))
    centers = layer.get_weights()[0]
    embeddings = keras.Model(core.input, models.embedding(core)).predict(images, verbose=0)
    distances = ((embeddings[:, None] - centers) ** 2).sum(axis=2)
    assert said["centers"][:, :7] == pytest.approx(distances, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("kind", ["plain", "residual", "separable"])
def test_heads_stand_at_the_ends_of_the_earlier_stages(kind: str) -> None:
    core = models.BUILDERS[kind](STAGES, 0.0, 15)  # type: ignore[operator]
    network = models.with_extras(core, auxiliary_heads=True, center_classes=0)
    assert shapes(network) == THREE
    pools = [layer for layer in network.layers if isinstance(layer, keras.layers.GlobalAveragePooling2D)]
    assert {pool.input.shape[1:] for pool in pools} == {(24, 24, 8), (12, 12, 16), (6, 6, 16)}
    assert all("re_lu" in pool.input._keras_history.operation.name or kind == "residual" for pool in pools)


# Fixed statistics


def test_fixed_statistics_stay_while_gamma_and_beta_learn(chance: np.random.Generator) -> None:
    core = models.build(ModelRecipe(STAGES, kind="residual"), 15)
    for layer in core.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([chance.uniform(0.5, 2, value.shape) for value in layer.get_weights()])
    fixed = with_statistics(core, fixed=True)
    images = chance.uniform(0, 255, (8, 48, 48, 1)).astype(np.float32)
    assert np.asarray(fixed(images)) == pytest.approx(np.asarray(core(images)), abs=1e-4)
    before = {one.path: np.array(one) for one in fixed.weights}
    fixed.compile(keras.optimizers.SGD(0.01), keras.losses.MeanSquaredError(), jit_compile=False)
    fixed.fit(images, chance.normal(0, 1, (8, 15)), epochs=2, verbose=0)
    moved = {one.path.rsplit("/")[-1] for one in fixed.weights if not np.array_equal(before[one.path], np.array(one))}
    assert moved == {"kernel", "gamma", "beta", "bias"}
    again = with_statistics(fixed, fixed=False)
    assert again.predict(images, verbose=0) == pytest.approx(fixed.predict(images, verbose=0), abs=1e-4)
    assert {type(layer) for layer in again.layers} == {type(layer) for layer in core.layers}
    assert again.name == core.name


def test_a_training_with_fixed_statistics_leaves_what_it_began_with(
    data: Path, recipe: Callable[..., Path], call: Callable[..., Any], runs: list[Path], tmp_path: Path
) -> None:
    path, run = recipe({"fixed_statistics": True, "consistency": 1.0, "optimizer.ema": 0.9}), tmp_path / "run"
    arguments = ["train", "--recipe", path, "--data", data, "--run", run]
    refused = call(main, *arguments)
    assert (refused.code, "give --init-from" in refused.err, run.exists()) == (78, True, False)
    assert call(main, *arguments, "--init-from", runs[0] / "model.keras").code == 0
    first, second = (models.load(one / "model.keras") for one in (runs[0], run))
    norms, twins = (
        [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
        for model in (first, second)
    )
    assert len(norms) == 3
    for norm, twin in zip(norms, twins, strict=True):
        assert type(twin) is keras.layers.BatchNormalization
        assert not np.array_equal(twin.gamma, norm.gamma)
        assert np.asarray(twin.moving_mean) == pytest.approx(np.asarray(norm.moving_mean), rel=1e-5)
        assert np.asarray(twin.moving_variance) == pytest.approx(np.asarray(norm.moving_variance), rel=1e-5)


# RepVGG


@pytest.mark.parametrize("kind", ["plain", "residual"])
def test_reparameterized_blocks_say_the_same(chance: np.random.Generator, kind: str) -> None:
    # 48 is halved to 3, an odd side, on which "same" padding is another one.
    stages = [[6, 2], [6, 1], [8, 2], [8, 2], [8, 2], [8, 2], [8, 1]]
    multibranch = models.build(ModelRecipe(stages, kind=kind, repvgg=True), 15)  # type: ignore[arg-type]
    for layer in multibranch.layers:
        for norm in getattr(layer, "norms", []):
            norm.set_weights([chance.uniform(0.5, 1.5, one.shape) for one in norm.get_weights()])
    single = models.reparameterize(multibranch)
    images = chance.uniform(0, 255, (4, 48, 48, 1)).astype(np.float32)
    said = multibranch.predict(images, verbose=0)
    assert single.predict(images, verbose=0) == pytest.approx(said, abs=1e-4 * float(np.abs(said).max()))
    kinds = {type(layer).__name__ for layer in single.layers}
    assert not kinds & {"RepVGGBlock", "BatchNormalization"}
    assert models.reparameterize(single) is single


# Squeeze-and-excitation


def test_squeeze_excitation_scales_channels_by_their_means(chance: np.random.Generator) -> None:
    inputs = keras.Input((5, 4, 8))
    network = keras.Model(inputs, models.squeeze_excitation(inputs, 2))
    images = chance.uniform(0, 2, (3, 5, 4, 8)).astype(np.float32)
    assert network(images).numpy() == pytest.approx(images / 2)  # as it begins
    down, up = chance.normal(0, 1, (8, 4)), chance.normal(0, 3, (4, 8))
    squeeze, excite = (layer for layer in network.layers if isinstance(layer, keras.layers.Conv2D))
    squeeze.kernel.assign(down[None, None])
    excite.kernel.assign(up[None, None])
    hidden = np.maximum(images.mean(axis=(1, 2)) @ down, 0)
    weights = np.clip(hidden @ up + 3, 0, 6) / 6
    assert network(images).numpy() == pytest.approx(images * weights[:, None, None, :], abs=1e-5)


def test_squeeze_excitation_goes_with_auxiliary_heads_and_centers() -> None:
    core = models.build(ModelRecipe(STAGES, kind="residual", squeeze_excitation=4), 15)
    assert models.embedding(core).shape == (None, 16)
    extended = models.with_extras(core, auxiliary_heads=True, center_classes=7)
    assert shapes(extended) == {**THREE, "centers": (None, 7 + 1)}
    kinds = {type(layer).__module__.split(".")[0] for layer in core.layers}
    assert kinds == {"keras"}  # what the exporter reads without this project's classes


def test_scales_that_do_not_vary_are_folded_without_a_trace(chance: np.random.Generator) -> None:
    recipe = ModelRecipe(STAGES, kind="residual", squeeze_excitation=4)
    network = models.build(recipe, 15)
    for product in (layer for layer in network.layers if isinstance(layer, keras.layers.Multiply)):
        excite = product.input[1]._keras_history.operation
        excite.bias.assign(chance.uniform(-2, 2, excite.bias.shape))  # its kernel is zero: the same for all faces
    images = chance.integers(0, 256, (4, 48, 48, 1)).astype(np.uint8)
    folded = fold_squeeze_excitation(network, recipe, images)
    assert not [layer for layer in folded.layers if isinstance(layer, keras.layers.Multiply)]
    assert folded.predict(images, verbose=0) == pytest.approx(network.predict(images, verbose=0), abs=1e-4)
    with pytest.raises(ConfigError, match=r"Only networks with model\.squeeze"):
        fold_squeeze_excitation(folded, ModelRecipe(STAGES, kind="residual"), images)


# Precision


def test_a_network_in_bfloat16_keeps_weights_and_logits_in_float32_and_goes_back(
    chance: np.random.Generator,
) -> None:
    network = models.build(ModelRecipe(STAGES, kind="residual", squeeze_excitation=4), 15, "bfloat16")
    convolution = next(layer for layer in network.layers if isinstance(layer, keras.layers.Conv2D))
    assert (convolution.compute_dtype, convolution.kernel.dtype) == ("bfloat16", "float32")
    assert network.output.dtype == "float32"
    assert keras.config.dtype_policy().name == "float32"  # of what is built next
    exact = models.in_precision(network, "float32")
    assert {layer.compute_dtype for layer in exact.layers} == {"float32"}
    assert [layer.name for layer in exact.layers] == [layer.name for layer in network.layers]
    images = chance.uniform(0, 255, (8, 48, 48, 1)).astype(np.float32)
    for each in (exact, network):
        each.compile(jit_compile=True)  # XLA has bfloat16 for every processor, oneDNN not below AVX-512
    said, rounded = (each.predict(images, verbose=0) for each in (exact, network))
    # bfloat16 has 8 bits: each layer rounds by up to 0.4 %.
    assert 0 < np.abs(said - rounded).max() < 0.1 * np.abs(said).max()
