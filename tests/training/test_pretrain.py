"""Pre-training without labels: what is masked, what counts, and what learns."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from training import models, pretrain
from training.recipe import AugmentRecipe, ModelRecipe, OptimizerRecipe, PretrainRecipe, Recipe


@pytest.mark.trains
def test_masked_patches_are_the_mean_and_the_rest_is_noisy(chance: np.random.Generator) -> None:
    images = chance.uniform(60, 200, (32, 48, 48, 1)).astype(np.float32)
    layer = pretrain.Corrupt(mask=0.4, patch_px=8, noise=5.0, seed=1)
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
    error = float(keras.ops.squeeze(pretrain.ReconstructionError()([image, reconstructed, masked])))
    assert error == pytest.approx(((1 + 10 / 11) ** 2 + (10 / 11) ** 2) / 2, rel=1e-4)


def test_each_place_of_the_backbone_fills_in_its_own_square() -> None:
    recipe = Recipe("x", ModelRecipe([[4, 2], [4, 2], [4, 2]]))
    network = pretrain.build(recipe, models.build(recipe.model, 15), steps_per_epoch=1)
    decoder = network.get_layer("decoder")
    decoder.set_weights([np.zeros(decoder.kernel.shape), np.arange(64)])
    error = next(layer for layer in network.layers if isinstance(layer, pretrain.ReconstructionError))
    filled = keras.Model(network.input, error.input[1])(np.zeros((1, 48, 48, 1), np.float32))
    assert np.array_equal(np.squeeze(filled), np.tile(np.arange(64).reshape(8, 8), (6, 6)))


@pytest.mark.trains
def test_a_backbone_learns_to_reconstruct_and_its_head_is_left_alone(seed: int) -> None:
    recipe = Recipe(
        "x",
        ModelRecipe([[8, 2], [8, 2], [16, 2]], dropout=0.0),
        seed=seed,
        augment=AugmentRecipe(rotation_deg=0, scale=0, shift=0, brightness=0, contrast=0),
        optimizer=OptimizerRecipe(learning_rate=0.02, warmup_epochs=0, weight_decay=0.0),
        pretrain=PretrainRecipe(epochs=20),
    )
    core = models.build(recipe.model, 15)
    before = core.get_weights()
    network = pretrain.build(recipe, core, steps_per_epoch=1)
    ramps = np.tile(np.linspace(0, 255, 48, dtype=np.float32)[:, None, None], (16, 1, 48, 1))
    errors = network.fit(ramps, np.zeros((16, 1)), batch_size=16, epochs=20, verbose=0).history["loss"]
    # Who says nothing has an error of 1. Ten seeds ended below 0.4.
    assert np.mean(errors[-3:]) < 0.65
    changed = [not np.array_equal(old, new) for old, new in zip(before, core.get_weights(), strict=True)]
    assert changed[:-2] == [True] * (len(changed) - 2)
    assert changed[-2:] == [False, False]  # kernel and bias of the logits
