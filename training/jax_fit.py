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

from training.callbacks.ema import WeightEMA
from training.samples import Samples
from training.tasks import TrainingNetwork


def fit(
    network: TrainingNetwork,
    samples: Samples,
    *,
    batch_size: int,
    epochs: int,
    initial_epoch: int,
    callbacks: Sequence[keras.callbacks.Callback],
    seed: int,
    ema: WeightEMA | None = None,
) -> None:
    """Train as ``network.fit`` does, with callbacks at the beginning and end of training and of epochs only.

    All images of an epoch lie in the memory of the device. Where the samples do not fill the last batch of an epoch,
    samples from the beginning of its order do.

    Args:
        network: compiled.
        samples: what is learned from.
        batch_size: samples of a step.
        epochs: of the whole training.
        initial_epoch: those done before.
        callbacks: see above.
        seed: of the order of the samples, which is another in each epoch.
        ema: is updated here, after each step.
    """
    optimizer = network.optimizer
    optimizer.build(network.trainable_variables)
    weights, others = network.trainable_variables, network.non_trainable_variables
    place = {id(variable): at for at, variable in enumerate([*weights, *others])}
    sources = [place[id(variable)] for variable in ema.core.weights] if ema else []
    averaged = ema.averaged.weights if ema else []
    decay = ema.decay if ema else 0.0
    steps = -(-len(samples) // batch_size)

    @jax.jit
    def epoch_of(state: Any, pixels: Any, targets: Any, key: Any) -> Any:
        def step(state: Any, batch: Any) -> Any:
            weights, others, slots, means, done = state

            def loss_and_others(weights: Any) -> Any:
                seen = pixels[batch].astype("float32")
                outputs, changed = network.stateless_call(weights, others, seen, training=True)
                wanted = {name: values[batch] for name, values in targets.items()}
                return network.compute_loss(y=wanted, y_pred=outputs), changed

            (loss, others), gradients = jax.value_and_grad(loss_and_others, has_aux=True)(weights)
            weights, slots = optimizer.stateless_apply(slots, gradients, weights)
            done += 1
            keep = jnp.minimum(decay, done / (done + 10))
            now = [*weights, *others]
            means = [keep * mean + (1 - keep) * now[at] for mean, at in zip(means, sources, strict=True)]
            return (weights, others, slots, means, done), loss

        order = jnp.resize(jax.random.permutation(key, len(samples)), (steps, batch_size))
        state, losses = jax.lax.scan(step, state, order)
        return state, losses.mean()

    key = jax.random.key(seed)
    held = [weights, others, optimizer.variables, averaged]
    callback_list = keras.callbacks.CallbackList(list(callbacks), model=network, epochs=epochs, steps=steps)
    callback_list.on_train_begin()
    for epoch in range(initial_epoch, epochs):
        if epoch == initial_epoch or samples.views > 1:
            pixels, wanted_of = jax.tree.map(jnp.asarray, samples.of_epoch(epoch))
        callback_list.on_epoch_begin(epoch)
        values = ([variable.value for variable in part] for part in held)
        state, loss = epoch_of((*values, np.float32(epoch * steps)), pixels, wanted_of, jax.random.fold_in(key, epoch))
        for part, values in zip(held, state, strict=False):
            for variable, value in zip(part, values, strict=True):
                variable.assign(value)
        callback_list.on_epoch_end(epoch, {"loss": float(loss)})
    callback_list.on_train_end()
