"""Deep belief networks: restricted Boltzmann machines, one on another.

Hinton, "Training Products of Experts by Minimizing Contrastive Divergence", Neural Computation 2002; Hinton and
Salakhutdinov, "Reducing the Dimensionality of Data with Neural Networks", Science 2006; Hinton, "A Practical Guide to
Training Restricted Boltzmann Machines", 2010, whose section numbers are named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def sigmoid(values: Floats) -> Floats:
    """1 / (1 + exp(-x)), without overflow."""
    return np.float32(0.5) * (1 + np.tanh(np.float32(0.5) * values))


@dataclass
class RBM:
    """A restricted Boltzmann machine: E(v, h) = -b'v - c'h - v'Wh.

    Attributes:
        weights: float32 (visible, hidden), W.
        visible_bias: (visible,), b.
        hidden_bias: (hidden,), c.
        gaussian: visible units are real numbers of variance 1, and not bits (section 13.2): E has (v - b)^2 / 2 then.
        errors: mean squared reconstruction error of a visible unit, of each epoch.
    """

    weights: Floats
    visible_bias: Floats
    hidden_bias: Floats
    gaussian: bool = False
    errors: list[float] = field(default_factory=list)

    @classmethod
    def begun(cls, visible: int, hidden: int, rng: np.random.Generator, gaussian: bool = False) -> RBM:
        """Small random weights, zero biases (section 8)."""
        weights = rng.normal(0, 0.01, (visible, hidden)).astype(np.float32)
        return cls(weights, np.zeros(visible, np.float32), np.zeros(hidden, np.float32), gaussian)

    def hidden(self, visible: Floats) -> Floats:
        """p(h = 1 | v): (n, visible) -> (n, hidden)."""
        return sigmoid(visible @ self.weights + self.hidden_bias)

    def visible(self, hidden: Floats) -> Floats:
        """E(v | h): (n, hidden) -> (n, visible)."""
        field = hidden @ self.weights.T + self.visible_bias
        return field if self.gaussian else sigmoid(field)

    def gradient(self, data: Floats, rng: np.random.Generator) -> tuple[tuple[Floats, Floats, Floats], float]:
        """One step of contrastive divergence, CD-1: <vh> of the data less <vh> of the reconstruction.

        Hidden units are bits when they are driven by the data, probabilities in the end (section 3).

        Args:
            data: (n, visible).
            rng: of the bits.

        Returns:
            Gradients for weights, visible and hidden bias, and the reconstruction error.
        """
        driven = self.hidden(data)
        reconstruction = self.visible((rng.random(driven.shape, np.float32) < driven).astype(np.float32))
        again = self.hidden(reconstruction)
        weights: Floats = np.divide(data.T @ driven - reconstruction.T @ again, np.float32(len(data)))
        visible, hidden = (data - reconstruction).mean(axis=0), (driven - again).mean(axis=0)
        return (weights, visible, hidden), float(((data - reconstruction) ** 2).mean())

    def fit(
        self,
        data: Floats,
        epochs: int,
        rng: np.random.Generator,
        learning_rate: float = 0.05,
        batch_size: int = 100,
        weight_decay: float = 2e-4,
        on_epoch: Callable[[int, float], None] = lambda epoch, error: None,
    ) -> None:
        """Learn by CD-1 with momentum, 0.5 in the first five epochs and 0.9 then (section 9).

        Args:
            data: (n, visible): of mean 0 and variance 1 where visible units are Gaussian, else 0-1.
            epochs: passes over it.
            rng: of order and bits.
            learning_rate: of a mini-batch; Gaussian units want a hundredth of it (section 13.2).
            batch_size: samples of a step.
            weight_decay: of the weights alone (section 10).
            on_epoch: is told the epoch and its reconstruction error.
        """
        parameters = (self.weights, self.visible_bias, self.hidden_bias)
        speeds = [np.zeros_like(one) for one in parameters]
        for epoch in range(epochs):
            momentum, errors = np.float32(0.5 if epoch < 5 else 0.9), []
            for rows in _batches(len(data), batch_size, rng):
                gradients, error = self.gradient(data[rows], rng)
                errors.append(error)
                for parameter, speed, gradient in zip(parameters, speeds, gradients, strict=True):
                    if parameter is self.weights:
                        gradient = gradient - np.float32(weight_decay) * parameter
                    speed *= momentum
                    speed += np.float32(learning_rate) * gradient
                    parameter += speed
            self.errors.append(float(np.mean(errors)))
            on_epoch(epoch, self.errors[-1])

    def free_energy(self, visible: Floats) -> Floats:
        """F(v) = -log of the sum over h of exp(-E(v, h)): (n,). What is likelier has less (section 16)."""
        own = ((visible - self.visible_bias) ** 2).sum(axis=1) / 2 if self.gaussian else -visible @ self.visible_bias
        energy: Floats = own - np.logaddexp(0, visible @ self.weights + self.hidden_bias).sum(axis=1)
        return energy


def fit_stack(
    data: Floats,
    hidden: Sequence[int],
    epochs: int,
    seed: int,
    on_epoch: Callable[[int, int, float], None] = lambda layer, epoch, error: None,
) -> list[RBM]:
    """Greedy pre-training: each machine learns what the one below makes of the data (Hinton & Salakhutdinov).

    Args:
        data: float32 (n, visible), standardized; the first machine's visible units are Gaussian.
        hidden: units of each machine, from below.
        epochs: of each.
        seed: of all chance.
        on_epoch: is told the machine, its epoch and its reconstruction error.

    Returns:
        The machines, from below.
    """
    rng = np.random.default_rng(seed)
    stack: list[RBM] = []
    for layer, units in enumerate(hidden):
        machine = RBM.begun(data.shape[1], units, rng, gaussian=layer == 0)
        rate = 0.001 if machine.gaussian else 0.05
        machine.fit(data, epochs, rng, rate, on_epoch=partial(on_epoch, layer))
        stack.append(machine)
        data = machine.hidden(data)
    return stack


def _batches(n: int, size: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    order, size = rng.permutation(n), min(size, n)
    for start in range(0, n - size + 1, size):
        yield order[start : start + size]
