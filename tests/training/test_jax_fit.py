"""Epochs as one program train as ``fit`` does. Needs JAX: ``make test-jax``."""

from __future__ import annotations

import os

import numpy as np
import pytest

if os.environ.get("KERAS_BACKEND") != "jax":
    pytest.skip("`make test-jax` runs this", allow_module_level=True)

import keras
from labeled import HEADS

from training import jax_fit, loop
from training.callbacks.ema import WeightEMA
from training.recipe import ModelRecipe, Recipe
from training.samples import Samples
from training.tasks import Classification, TrainingNetwork

pytestmark = pytest.mark.trains


class Watcher(keras.callbacks.Callback):
    def __init__(self) -> None:
        super().__init__()
        self.losses: list[float] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        assert logs
        self.losses.append(logs["loss"])


def network_and_data() -> tuple[TrainingNetwork, np.ndarray, dict[str, np.ndarray]]:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (50, 6, 6, 1)).astype(np.uint8)
    first = images[:, 0, 0, 0]
    targets = {"a": np.eye(8, dtype=np.float32)[first // 32], "b": np.eye(7, dtype=np.float32)[first // 37]}
    keras.utils.set_random_seed(1)
    pixels = keras.Input((6, 6, 1))
    x = keras.layers.BatchNormalization()(keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(pixels)))
    network = TrainingNetwork(pixels, {"logits": keras.layers.Dense(15)(x)})
    network.tasks = [Classification("a", slice(0, 8)), Classification("b", slice(8, 15))]
    network.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    return network, images, targets


def test_one_batch_of_all_samples_is_the_step_of_fit() -> None:
    by_fit, images, targets = network_and_data()
    by_fit.fit(images, targets, batch_size=50, epochs=3, verbose=0)
    network, _, _ = network_and_data()
    jax_fit.fit(network, Samples.plain(images, targets), batch_size=50, epochs=3, initial_epoch=0, callbacks=[], seed=1)
    for one, other in zip(network.get_weights(), by_fit.get_weights(), strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    assert int(network.optimizer.iterations.value) == 3


def test_epochs_cover_the_samples_go_on_and_keep_the_ema() -> None:
    network, images, targets = network_and_data()
    ema = WeightEMA(network, keras.models.clone_model(network), decay=0.0)
    watcher = Watcher()
    options = {"batch_size": 20, "callbacks": [watcher], "seed": 1, "ema": ema}
    jax_fit.fit(network, Samples.plain(images, targets), epochs=20, initial_epoch=0, **options)
    jax_fit.fit(network, Samples.plain(images, targets), epochs=40, initial_epoch=20, **options)
    assert int(network.optimizer.iterations.value) == 40 * 3
    assert len(watcher.losses) == 40
    assert watcher.losses[-1] < 0.5 * watcher.losses[0]
    # With no decay, the EMA is what it follows.
    for one, other in zip(ema.averaged.get_weights(), network.get_weights(), strict=True):
        assert one == pytest.approx(other)


def test_a_network_that_sees_corrupted_images_too_learns(seed: int) -> None:
    recipe = Recipe(
        "x", ModelRecipe([[4, 2], [8, 2]]), seed=seed, epochs=3, batch_size=20, consistency=2.0, mixup=0.2, center=0.01
    )
    network = loop.build(recipe, HEADS, 3)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (50, 48, 48, 1)).astype(np.uint8)
    targets = {head.name: np.eye(len(head.labels), dtype=np.float32)[np.arange(50) % 7] for head in HEADS}
    watcher = Watcher()
    options = {"batch_size": 20, "callbacks": [watcher], "seed": seed}
    jax_fit.fit(network, Samples.plain(images, targets), epochs=3, initial_epoch=0, **options)
    assert np.isfinite(watcher.losses).all()
    assert len(watcher.losses) == 3
