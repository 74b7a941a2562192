"""Muon steps kernels as matrices and leaves the rest to AdamW; a resumed optimizer is the one that was cut off."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from labeled import HEADS

from training import models, optimizers
from training.loop import build
from training.recipe import ModelRecipe, OptimizerRecipe, Recipe


def step(shape: tuple[int, ...], kind: str, seed: int) -> np.ndarray:
    """What the first step at full learning rate does to a variable of that shape, for a random gradient."""
    recipe = OptimizerRecipe(kind=kind, learning_rate=1.0, weight_decay=0.0, warmup_epochs=0)  # type: ignore[arg-type]
    optimizer = optimizers.make(recipe, epochs=10, steps_per_epoch=1000)
    variable = keras.Variable(np.zeros(shape, np.float32), name="kernel")
    optimizer.build([variable])
    gradient = np.random.default_rng(seed).normal(size=shape).astype(np.float32) * np.geomspace(0.1, 1, shape[-1])
    optimizer.apply([keras.ops.convert_to_tensor(gradient.astype(np.float32))])
    return keras.ops.convert_to_numpy(variable)


@pytest.mark.trains
@pytest.mark.parametrize("shape", [(3, 3, 8, 16), (1, 1, 16, 24)])
def test_muon_makes_all_directions_of_a_kernel_alike(shape: tuple[int, ...], seed: int) -> None:
    rows, columns = int(np.prod(shape[:3])), shape[3]
    values = np.linalg.svd(step(shape, "muon", seed).reshape(rows, columns), compute_uv=False)
    # Five Newton-Schulz steps bring singular values near 1; the scale is that of Liu et al.
    assert values / (0.2 * np.sqrt(max(rows, columns))) == pytest.approx(np.ones(min(rows, columns)), abs=0.35)
    adam = np.linalg.svd(step(shape, "adamw", seed).reshape(rows, columns), compute_uv=False)
    assert adam.max() / adam.min() > 2 > values.max() / values.min()


@pytest.mark.trains
@pytest.mark.parametrize("shape", [(3, 3, 1, 16), (3, 3, 16, 1), (16, 15), (16,)], ids=["stem", "dw", "dense", "bias"])
def test_what_is_no_such_matrix_steps_as_with_adamw(shape: tuple[int, ...], seed: int) -> None:
    assert step(shape, "muon", seed) == pytest.approx(step(shape, "adamw", seed), rel=1e-4)


@pytest.mark.trains
@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_restored_optimizer_goes_on_as_the_one_that_was_cut_off(
    kind: str, chance: np.random.Generator, tmp_path: Path
) -> None:
    optimizer = OptimizerRecipe(kind=kind, weight_decay=0.5, warmup_epochs=0)  # type: ignore[arg-type]
    recipe = Recipe("tiny", ModelRecipe([[4, 2], [8, 2]], dropout=0.0), optimizer=optimizer)
    network, again = (build(recipe, HEADS, steps_per_epoch=4) for _ in range(2))
    first, second = ([chance.normal(size=one.shape) for one in network.trainable_variables] for _ in range(2))

    def step(one: keras.Model, gradients: list[np.ndarray]) -> None:
        tensors = [keras.ops.convert_to_tensor(each, dtype="float32") for each in gradients]
        one.optimizer.apply(tensors, one.trainable_variables)

    step(network, first)
    network.save(tmp_path / "checkpoint.keras")
    models.restore(again, tmp_path / "checkpoint.keras")
    assert int(again.optimizer.iterations) == 1
    before = again.get_weights()
    step(network, second)
    step(again, second)
    for a, b in zip(network.get_weights(), again.get_weights(), strict=True):
        assert a == pytest.approx(b, rel=1e-5, abs=1e-6)
    assert any(not np.array_equal(a, b) for a, b in zip(before, again.get_weights(), strict=True))


@pytest.mark.trains
@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_weight_decay_leaves_alone_what_is_no_weight(kind: str) -> None:
    """Biases, those of a forest's splits too, and the distributions in its leaves: its paper has no penalty on them."""
    core = models.build(ModelRecipe([[4, 2]], kind="residual", forest=2), 15)
    optimizer = optimizers.make(OptimizerRecipe(kind=kind, warmup_epochs=0), epochs=10, steps_per_epoch=10)  # type: ignore[arg-type]
    for one in core.trainable_variables:
        one.assign(np.ones(one.shape))
    optimizer.build(core.trainable_variables)
    for _ in range(20):
        optimizer.apply([keras.ops.zeros_like(one) for one in core.trainable_variables])
    kept = {one.name for one in core.trainable_variables if (keras.ops.convert_to_numpy(one) == 1).all()}
    assert kept == {"gamma", "beta", "thresholds", "leaves"}
