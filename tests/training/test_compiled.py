"""Compiled epochs train as ``fit`` does. Needs JAX: KERAS_BACKEND=jax pytest tests/training/test_compiled.py"""

from __future__ import annotations

import os

import numpy as np
import pytest

if os.environ.get("KERAS_BACKEND") != "jax":
    pytest.skip("runs with KERAS_BACKEND=jax, where JAX is installed", allow_module_level=True)

import keras

from training import compiled
from training.losses import TwoHeadLoss
from training.train import WeightAverage

pytestmark = pytest.mark.trains


class Watcher(keras.callbacks.Callback):
    def __init__(self) -> None:
        super().__init__()
        self.losses: list[float] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        assert logs
        self.losses.append(logs["loss"])


def network_and_data() -> tuple[keras.Model, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (50, 6, 6, 1)).astype(np.uint8)
    labels = np.zeros((50, 17), np.float32)
    labels[np.arange(50), images[:, 0, 0, 0] // 32] = labels[np.arange(50), 9 + images[:, 0, 0, 0] // 37] = 1
    labels[:, [8, 16]] = 1
    keras.utils.set_random_seed(1)
    network = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(15),
        ]
    )
    network.compile(keras.optimizers.SGD(0.1), loss=TwoHeadLoss(1.0))
    return network, images, labels


def test_one_batch_of_all_rows_is_the_step_of_fit() -> None:
    by_fit, images, labels = network_and_data()
    by_fit.fit(images, labels, batch_size=50, epochs=3, verbose=0)
    network, _, _ = network_and_data()
    compiled.fit(network, images, labels, batch_size=50, epochs=3, initial_epoch=0, callbacks=[], seed=1)
    for one, other in zip(network.get_weights(), by_fit.get_weights(), strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    assert int(network.optimizer.iterations.value) == 3


def test_epochs_cover_the_rows_go_on_and_average() -> None:
    network, images, labels = network_and_data()
    average = WeightAverage(network, keras.models.clone_model(network), decay=0.0)
    watcher = Watcher()
    options = {"batch_size": 20, "callbacks": [watcher], "seed": 1, "average": average}
    compiled.fit(network, images, labels, epochs=20, initial_epoch=0, **options)
    compiled.fit(network, images, labels, epochs=40, initial_epoch=20, **options)
    assert int(network.optimizer.iterations.value) == 40 * 3
    assert len(watcher.losses) == 40
    assert watcher.losses[-1] < 0.5 * watcher.losses[0]
    # With no decay, the average is what it follows.
    for one, other in zip(average.averaged.get_weights(), network.get_weights(), strict=True):
        assert one == pytest.approx(other)
