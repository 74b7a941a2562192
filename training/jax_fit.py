"""Whole epochs as one compiled program, where JAX has a GPU: what keeps it busy with networks as small as these.

``Model.fit`` comes back to Python after each batch. Where a step takes a GPU one or two milliseconds, that is most of
the time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import keras
import numpy as np
from jax import numpy as jnp

from edge_fer.errors import ConfigError
from training.callbacks.ema import WeightEMA
from training.samples import Samples
from training.tasks import TrainingNetwork

Program: TypeAlias = Callable[[Any, Any, Any, Any], Any]


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
    parallel: bool = False,
    program: Program | None = None,
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
        parallel: on all devices of all processes (``distributed``), each of which has a part of every batch. What
            callbacks see is the same in all of them.
        program: of ``compiled`` for the same network, batch size and EMA, where several trainings share it.

    Raises:
        ConfigError: a batch cannot be cut into equal parts.
    """
    whole, _ = _placements(batch_size, parallel)
    epoch_of = program or compiled(network, batch_size, ema, parallel)
    steps = -(-len(samples) // batch_size)

    def everywhere(values: Any) -> Any:
        """An array that each device has whole. That it is the same in all processes is not checked."""
        if jax.process_count() == 1:
            return jax.device_put(values, whole)
        host = np.asarray(values)
        return jax.make_array_from_callback(host.shape, whole, lambda index: host[index])

    held = [
        network.trainable_variables,
        network.non_trainable_variables,
        network.optimizer.variables,
        ema.averaged.weights if ema else [],
    ]
    callback_list = keras.callbacks.CallbackList(list(callbacks), model=network, epochs=epochs, steps=steps)
    callback_list.on_train_begin()
    for epoch in range(initial_epoch, epochs):
        if epoch == initial_epoch or samples.views > 1:
            pixels, wanted_of = jax.tree.map(everywhere, samples.of_epoch(epoch))
        callback_list.on_epoch_begin(epoch)
        values = ([everywhere(variable.value) for variable in part] for part in held)
        key = everywhere(jax.random.key_data(jax.random.fold_in(jax.random.key(seed), epoch)))
        state, loss = epoch_of((*values, everywhere(np.float32(epoch * steps))), pixels, wanted_of, key)
        for part, values in zip(held, state, strict=False):
            for variable, value in zip(part, values, strict=True):
                variable.assign(value.addressable_data(0))
        callback_list.on_epoch_end(epoch, {"loss": float(loss.addressable_data(0))})
    callback_list.on_train_end()


def _placements(batch_size: int, parallel: bool) -> tuple[jax.NamedSharding, jax.NamedSharding]:
    """Where values lie: whole on each device, and in equal parts of a batch."""
    devices = jax.devices() if parallel else jax.local_devices()[:1]
    if batch_size % len(devices):
        raise ConfigError(f"batch_size must be a multiple of the {len(devices)} devices, not {batch_size}.")
    mesh = jax.sharding.Mesh(np.array(devices), ("batch",))
    return jax.NamedSharding(mesh, jax.P()), jax.NamedSharding(mesh, jax.P("batch"))


def compiled(
    network: TrainingNetwork, batch_size: int, ema: WeightEMA | None = None, parallel: bool = False
) -> Program:
    """A program of one epoch: state, images, targets and the data of a key for the order -> state, mean loss.

    It is compiled when it is called first, and again for another number of samples. Its state is the values of all
    variables, so that trainings from other weights share it.

    Raises:
        ConfigError: see ``fit``.
    """
    whole, parts = _placements(batch_size, parallel)
    optimizer = network.optimizer
    optimizer.build(network.trainable_variables)
    weights, others = network.trainable_variables, network.non_trainable_variables
    place = {id(variable): at for at, variable in enumerate([*weights, *others])}
    sources = [place[id(variable)] for variable in ema.core.weights] if ema else []
    decay = ema.decay if ema else 0.0

    @functools.partial(jax.jit, out_shardings=whole)
    def epoch_of(state: Any, pixels: Any, targets: Any, key: Any) -> Any:
        steps = -(-len(pixels) // batch_size)

        def step(state: Any, batch: Any) -> Any:
            weights, others, slots, means, done = state

            def loss_and_others(weights: Any) -> Any:
                seen = jax.lax.with_sharding_constraint(pixels[batch].astype("float32"), parts)
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

        order = jnp.resize(jax.random.permutation(jax.random.wrap_key_data(key), len(pixels)), (steps, batch_size))
        state, losses = jax.lax.scan(step, state, order)
        return state, losses.mean()

    program: Program = epoch_of
    return program
