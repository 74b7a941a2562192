"""Pre-training without labels: what is corrupted, what counts, what is penalized, and what learns."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from edge_fer.errors import ConfigError
from training import models, pretrain
from training.__main__ import main
from training.networks import autoencoder
from training.recipe import AugmentRecipe, ModelRecipe, OptimizerRecipe, PretrainRecipe, Recipe

AS_THEY_ARE = AugmentRecipe(rotation_deg=0, scale=0, shift=0, brightness=0, contrast=0)


def made(kind: str, stages: list[list[int]] | None = None, **more: Any) -> Recipe:
    """A recipe of a small network that learns fast and whose images are mirrored at the most."""
    return Recipe(
        "x",
        ModelRecipe(stages or [[8, 2], [8, 2], [16, 2]], dropout=0.0),
        augment=AS_THEY_ARE,
        optimizer=OptimizerRecipe(learning_rate=0.02, warmup_epochs=0, weight_decay=0.0),
        pretrain=PretrainRecipe(kind=kind, epochs=20),  # type: ignore[arg-type]
        **more,
    )


@pytest.mark.trains
def test_masked_patches_are_the_mean_and_the_rest_is_noisy(chance: np.random.Generator) -> None:
    images = chance.uniform(60, 200, (32, 48, 48, 1)).astype(np.float32)
    layer = autoencoder.Corrupt(mask=0.4, patch_px=8, noise=5.0, seed=1)
    corrupted, masked = (keras.ops.convert_to_numpy(one) for one in layer(images))
    patches = masked.reshape(32, 6, 8, 6, 8).mean(axis=(2, 4))
    assert set(patches.ravel().tolist()) == {0.0, 1.0}
    assert patches.mean() == pytest.approx(0.4, abs=0.05)
    means = np.broadcast_to(images.mean(axis=(1, 2, 3), keepdims=True), images.shape)
    assert corrupted[masked > 0] == pytest.approx(means[masked > 0], rel=1e-4)
    assert (corrupted - images)[masked == 0].std() == pytest.approx(5, abs=0.2)


def test_the_error_is_that_of_the_masked_pixels() -> None:
    image = np.array([[0, 0], [20, 20]], np.float32).reshape(1, 2, 2, 1)  # mean 10, sigma 10
    reconstructed = np.array([[1, 0], [9, 9]], np.float32).reshape(1, 2, 2, 1)
    masked = np.array([[1, 1], [0, 0]], np.float32).reshape(1, 2, 2, 1)
    error = float(keras.ops.squeeze(autoencoder.ReconstructionError()([image, reconstructed, masked])))
    assert error == pytest.approx(((1 + 10 / 11) ** 2 + (10 / 11) ** 2) / 2, rel=1e-4)


def test_each_place_of_the_backbone_fills_in_its_own_square() -> None:
    recipe = made("masked", [[4, 2], [4, 2], [4, 2]])
    network = pretrain.build_autoencoder(recipe, models.build(recipe.model, 15))
    decoder = network.get_layer("decoder")
    decoder.set_weights([np.zeros(decoder.kernel.shape), np.arange(64)])
    error = next(layer for layer in network.layers if isinstance(layer, autoencoder.ReconstructionError))
    filled = keras.Model(network.input, error.input[1])(np.zeros((1, 48, 48, 1), np.float32))
    assert np.array_equal(np.squeeze(filled), np.tile(np.arange(64).reshape(8, 8), (6, 6)))


def jacobian(function: Callable[[np.ndarray], np.ndarray], at: np.ndarray, step: float = 1e-2) -> np.ndarray:
    """By central differences: (outputs, inputs)."""
    columns = []
    for place in range(at.size):
        moved = np.zeros(at.size, np.float32)
        moved[place] = step
        moved = moved.reshape(at.shape)
        columns.append((function(at + moved) - function(at - moved)).ravel() / (2 * step))
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("stride", [1, 2])
def test_the_contraction_is_the_norm_of_the_jacobian(chance: np.random.Generator, stride: int) -> None:
    inputs = keras.Input((6, 6, 2))
    convolution, norm = layers.Conv2D(3, 3, stride, "same", use_bias=False), layers.BatchNormalization()
    before = convolution(inputs)
    after = layers.ReLU()(norm(before))
    images = chance.normal(size=(4, 6, 6, 2)).astype(np.float32)
    norm.gamma.assign(chance.uniform(0.5, 2, 3))
    norm.beta.assign(chance.normal(size=3))
    # In inference normalization has the statistics it is given: those of the batch, as in training.
    linear = np.asarray(keras.Model(inputs, before)(images))
    norm.moving_mean.assign(linear.mean(axis=(0, 1, 2)))
    norm.moving_variance.assign(linear.var(axis=(0, 1, 2)))
    layer = autoencoder.Contraction(convolution, norm)
    network = keras.Model(inputs, after)
    values = keras.Model(inputs, [before, after])(images)
    ours = np.asarray(layer(values))[:, 0]
    for image, said in zip(images, ours, strict=True):
        full = jacobian(lambda one: np.asarray(network(one[None])), image, step=1e-3)
        assert said == pytest.approx((full**2).sum() / len(full), rel=2e-2)


def test_a_network_without_what_the_penalty_reads_is_refused() -> None:
    recipe = made("contractive")
    model = ModelRecipe(recipe.model.stages, repvgg=True)
    with pytest.raises(ConfigError, match=r"without model\.repvgg"):
        pretrain.build_autoencoder(recipe, models.build(model, 15))


@pytest.mark.parametrize("kind", ["masked", "convolutional"])
def test_stages_that_no_decoder_fits_are_refused(kind: str) -> None:
    recipe = made(kind, [[4, 2], [4, 2], [4, 2], [4, 2], [4, 2]])  # 48 becomes 2: not a divisor by halves
    if kind == "masked":
        pretrain.build_autoencoder(recipe, models.build(recipe.model, 15))
    else:
        with pytest.raises(ConfigError, match="64x64"):
            pretrain.build_autoencoder(recipe, models.build(recipe.model, 15))


@pytest.mark.trains
@pytest.mark.parametrize("kind", ["masked", "convolutional", "denoising", "contractive"])
def test_a_backbone_learns_to_reconstruct_and_its_head_is_left_alone(kind: str, seed: int) -> None:
    recipe = made(kind, seed=seed)
    core = models.build(recipe.model, 15)
    before = core.get_weights()
    network = pretrain.compiled(recipe, core, (1,), steps_per_epoch=1)
    ramps = np.tile(np.linspace(0, 255, 48, dtype=np.float32)[:, None, None], (16, 1, 48, 1))
    targets = dict.fromkeys(network.output, np.zeros((16, 1)))
    history = network.fit(ramps, targets, batch_size=16, epochs=20, verbose=0).history
    errors = history.get("error_loss", history["loss"])
    # Who says nothing has an error of 1.
    assert np.mean(errors[-3:]) < 0.65
    changed = [not np.array_equal(old, new) for old, new in zip(before, core.get_weights(), strict=True)]
    assert changed[:-2] == [True] * (len(changed) - 2)
    assert changed[-2:] == [False, False]  # kernel and bias of the logits


@pytest.mark.parametrize("attention", [{"squeeze_excitation": 4}, {"attention": "cbam", "kind": "residual"}])
def test_a_backbone_is_all_convolutions_those_with_attention_too(attention: Any) -> None:
    core = models.build(ModelRecipe([[8, 2], [8, 2], [16, 2]], **attention), 15)
    backbone = pretrain.backbone_of(core)
    assert backbone.output_shape == (None, 6, 6, 16)
    assert core.count_params() - backbone.count_params() == 16 * 15 + 15


@pytest.mark.trains
def test_a_penalty_makes_features_change_less(seed: int, chance: np.random.Generator) -> None:
    images = chance.uniform(0, 255, (16, 48, 48, 1)).astype(np.float32)
    norms = []
    for weight in (0.0, 10.0):
        keras.utils.set_random_seed(seed)
        recipe = made("contractive", seed=seed)
        object.__setattr__(recipe.pretrain, "contraction", weight)
        network = pretrain.compiled(recipe, models.build(recipe.model, 15), (1,), steps_per_epoch=1)
        targets = dict.fromkeys(network.output, np.zeros((16, 1)))
        norms.append(network.fit(images, targets, batch_size=16, epochs=15, verbose=0).history["contraction_loss"])
    assert norms[0][0] == pytest.approx(norms[1][0], rel=1e-3)
    assert norms[1][-1] < 0.5 * norms[0][-1]


def test_features_alike_have_no_distance_and_means_have_one(chance: np.random.Generator) -> None:
    features = chance.normal(size=(5, 4, 4, 3)).astype(np.float32)
    assert np.asarray(pretrain.feature_distance(features, ops.convert_to_tensor(features))).tolist() == [0.0] * 5
    standard = (features - features.mean(axis=(0, 1, 2))) / features.std(axis=(0, 1, 2))
    distance = np.asarray(pretrain.feature_distance(standard, ops.zeros_like(features)))
    assert distance.mean() == pytest.approx(1.0, rel=1e-4)


@pytest.mark.trains
def test_the_kinds_from_the_command_line(
    call: Callable[..., Any], data: Path, recipe: Callable[..., Path], tmp_path: Path
) -> None:
    path = recipe()
    options = ("--set", "pretrain.kind=contractive", "--set", "pretrain.epochs=2")
    done = call(main, "pretrain", "--recipe", path, "--data", data, "--run", tmp_path / "cae", *options)
    assert done.code == 0, done.err
    assert "squared norm of the Jacobian" in done.err
    with (tmp_path / "cae" / "history.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["epoch"] for line in lines] == ["1", "2"]
    assert float(lines[0]["loss"]) == pytest.approx(
        float(lines[0]["error"]) + 0.1 * float(lines[0]["contraction"]), rel=1e-3
    )
    facts = json.loads((tmp_path / "cae" / "run.json").read_text())
    assert facts["kind"] == "contractive"
    assert len(facts["error"]) == len(facts["contraction"]) == 2
    assert (tmp_path / "cae" / "curves.png").stat().st_size > 1000
    refused = call(
        main,
        "pretrain",
        "--recipe",
        path,
        "--data",
        data,
        "--run",
        tmp_path / "no",
        *options,
        "--set",
        "model.repvgg=true",
    )
    assert (refused.code, (tmp_path / "no").exists()) == (78, False)
