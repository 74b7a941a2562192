"""Whole epochs as one compiled program, where JAX has a GPU: what keeps it busy with networks as small as these.

``Model.fit`` comes back to Python after each batch. Where a step takes a GPU one or two milliseconds, that is most of
the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import keras
import numpy as np
from jax import numpy as jnp
from numpy.typing import NDArray

from training.train import WeightAverage


def fit(
    network: keras.Model,
    images: NDArray[np.uint8],
    labels: NDArray[np.float32],
    *,
    batch_size: int,
    epochs: int,
    initial_epoch: int,
    callbacks: Sequence[keras.callbacks.Callback],
    seed: int,
    average: WeightAverage | None = None,
) -> None:
    """Train as ``network.fit`` does, with callbacks at the beginning and end of training and of epochs only.

    All pictures lie in the memory of the device. Where the rows do not fill the last batch of an epoch, rows from the
    beginning of its order do.

    Args:
        network: compiled, with one input and one output.
        images: (n, height, width, 1).
        labels: (n, columns), what the network's loss takes.
        batch_size: rows of a step.
        epochs: of the whole training.
        initial_epoch: those done before.
        callbacks: see above.
        seed: of the order of the rows, which is another in each epoch.
        average: is kept up here, after each step.
    """
    optimizer, loss_of = network.optimizer, network.loss
    optimizer.build(network.trainable_variables)
    weights, others = network.trainable_variables, network.non_trainable_variables
    place = {id(variable): at for at, variable in enumerate([*weights, *others])}
    sources = [place[id(variable)] for variable in average.core.weights] if average else []
    averaged = average.averaged.weights if average else []
    decay = average.decay if average else 0.0
    steps = -(-len(images) // batch_size)

    @jax.jit
    def epoch_of(state: Any, pictures: Any, targets: Any, key: Any) -> Any:
        def step(state: Any, rows: Any) -> Any:
            weights, others, slots, means, done = state

            def loss_and_others(weights: Any) -> Any:
                seen = pictures[rows].astype("float32")
                outputs, changed = network.stateless_call(weights, others, seen, training=True)
                return loss_of(targets[rows], outputs), changed

            (loss, others), gradients = jax.value_and_grad(loss_and_others, has_aux=True)(weights)
            weights, slots = optimizer.stateless_apply(slots, gradients, weights)
            done += 1
            keep = jnp.minimum(decay, done / (done + 10))
            now = [*weights, *others]
            means = [keep * mean + (1 - keep) * now[at] for mean, at in zip(means, sources, strict=True)]
            return (weights, others, slots, means, done), loss

        order = jnp.resize(jax.random.permutation(key, len(images)), (steps, batch_size))
        state, losses = jax.lax.scan(step, state, order)
        return state, losses.mean()

    pictures, targets = jnp.asarray(images), jnp.asarray(labels)
    key = jax.random.key(seed)
    held = [weights, others, optimizer.variables, averaged]
    watchers = keras.callbacks.CallbackList(list(callbacks), model=network, epochs=epochs, steps=steps)
    watchers.on_train_begin()
    for epoch in range(initial_epoch, epochs):
        watchers.on_epoch_begin(epoch)
        values = ([variable.value for variable in part] for part in held)
        state, loss = epoch_of((*values, np.float32(epoch * steps)), pictures, targets, jax.random.fold_in(key, epoch))
        for part, values in zip(held, state, strict=False):
            for variable, value in zip(part, values, strict=True):
                variable.assign(value)
        watchers.on_epoch_end(epoch, {"loss": float(loss)})
    watchers.on_train_end()
