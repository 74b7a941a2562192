"""Muon steps kernels as matrices and leaves the rest to AdamW; a resumed optimizer is the one that was cut off."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from training import models, optimizers
from training.recipe import ModelRecipe, OptimizerRecipe, Recipe
from training.train import build


def step(shape: tuple[int, ...], kind: str) -> np.ndarray:
    """What the first step at full learning rate does to a variable of that shape, for a random gradient."""
    recipe = OptimizerRecipe(kind=kind, learning_rate=1.0, weight_decay=0.0, warmup_epochs=0)  # type: ignore[arg-type]
    optimizer = optimizers.make(recipe, epochs=10, steps_per_epoch=1000)
    variable = keras.Variable(np.zeros(shape, np.float32), name="kernel")
    optimizer.build([variable])
    gradient = np.random.default_rng(0).normal(size=shape).astype(np.float32) * np.geomspace(0.1, 1, shape[-1])
    optimizer.apply([keras.ops.convert_to_tensor(gradient.astype(np.float32))])
    return keras.ops.convert_to_numpy(variable)


@pytest.mark.parametrize("shape", [(3, 3, 8, 16), (1, 1, 16, 24)])
def test_muon_makes_all_directions_of_a_kernel_alike(shape: tuple[int, ...]) -> None:
    rows, columns = int(np.prod(shape[:3])), shape[3]
    values = np.linalg.svd(step(shape, "muon").reshape(rows, columns), compute_uv=False)
    # Five Newton-Schulz steps bring singular values near 1; the scale is that of Liu et al.
    assert values / (0.2 * np.sqrt(max(rows, columns))) == pytest.approx(np.ones(min(rows, columns)), abs=0.35)
    adam = np.linalg.svd(step(shape, "adamw").reshape(rows, columns), compute_uv=False)
    assert adam.max() / adam.min() > 2 > values.max() / values.min()


@pytest.mark.parametrize("shape", [(3, 3, 1, 16), (3, 3, 16, 1), (16, 15), (16,)], ids=["stem", "dw", "dense", "bias"])
def test_what_is_no_such_matrix_steps_as_with_adamw(shape: tuple[int, ...]) -> None:
    assert step(shape, "muon") == pytest.approx(step(shape, "adamw"), rel=1e-4)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_restored_optimizer_goes_on_as_the_one_that_was_cut_off(kind: str, tmp_path: Path) -> None:
    optimizer = OptimizerRecipe(kind=kind, weight_decay=0.5, warmup_epochs=0)  # type: ignore[arg-type]
    recipe = Recipe("tiny", ModelRecipe([[4, 2], [8, 2]], dropout=0.0), optimizer=optimizer)
    pictures = np.random.default_rng(0).integers(0, 256, (16, 48, 48, 1)).astype(np.float32)
    labels = np.tile(np.array([1, *[0] * 7, 1, 1, *[0] * 6, 1], np.float32), (16, 1))
    network = build(recipe, steps_per_epoch=4)
    network.train_on_batch(pictures, labels)
    network.save(tmp_path / "checkpoint.keras")
    again = build(recipe, steps_per_epoch=4)
    models.restore(again, tmp_path / "checkpoint.keras")
    assert int(again.optimizer.iterations) == 1
    for one in (network, again):
        one.layers[1].random.state.assign([5, 0])  # the same changes to the pictures
        one.train_on_batch(pictures, labels)
    for a, b in zip(network.get_weights(), again.get_weights(), strict=True):
        assert a == pytest.approx(b, abs=1e-5)
