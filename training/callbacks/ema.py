"""An exponential moving average (EMA) of a network's weights, which is then what is measured and exported."""

from __future__ import annotations

from typing import Any

import keras


class WeightEMA(keras.callbacks.Callback):
    """Keeps the EMA of a network's weights, statistics of batch normalization included.

    It starts from the weights after the first steps, not from the random ones: the decay grows with the steps (as in
    Tan & Le, arXiv 1905.11946, and TensorFlow's ExponentialMovingAverage). ``jax_fit.fit`` does the same by itself. Of
    a training that ends before the first look, it is the trained weights.

    Args:
        core: the network that trains.
        averaged: its copy, which gets the EMA.
        decay: of one step.
    """

    every = 8  # steps from one look at the weights to the next: looking costs as much as a hundredth of a step

    def __init__(self, core: keras.Model, averaged: keras.Model, decay: float) -> None:
        super().__init__()
        self.core, self.averaged, self.decay = core, averaged, decay

    def on_train_begin(self, logs: Any = None) -> None:
        self.steps = int(self.model.optimizer.iterations.numpy())
        self.last = self.params["epochs"] * self.params["steps"]

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.steps += 1
        never = self.steps == self.last < self.every  # looked at: the EMA would be the network before its training
        if never or self.steps % self.every == 0:
            assert self.model  # with JAX, asking for it is what brings the weights up to date
            decay = 0.0 if never else min(self.decay**self.every, self.steps / (self.steps + 10 * self.every))
            pairs = zip(self.averaged.get_weights(), self.core.get_weights(), strict=True)
            self.averaged.set_weights([decay * old + (1 - decay) * new for old, new in pairs])
