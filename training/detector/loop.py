"""The training loop: many steps as one compiled program with JAX, single steps with TensorFlow; both the same."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from training.detector.assignment import Truth, cells, losses
from training.detector.augmentation import DRAWS, Augmentation, compose
from training.detector.photos import Packed

WARM_UP = 0.02
"""Fraction of the training in which the learning rate rises to its peak; from there it falls as a half cosine."""
LOWEST = 0.01
"""Fraction of the peak at which it ends."""
ROUND = 50
"""Steps at one learning rate: one compiled program with JAX, and a line of the log."""


@dataclass(frozen=True)
class Plan:
    """How long and how fast.

    Attributes:
        epochs: of so many images as there are photos.
        minutes: wall time after which it ends, however many epochs are done; the learning rate falls accordingly.
        batch: images of a step.
        side: of an image in pixels, a multiple of 32.
        learning_rate: at its peak.
        weight_decay: of AdamW (Loshchilov and Hutter, arXiv 1711.05101).
        ema: decay of the averaged weights.
        seed: of weights, photos and their augmentation.
    """

    epochs: int = 100
    minutes: float = math.inf
    batch: int = 32
    side: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    ema: float = 0.999
    seed: int = 0


def fit(
    network: keras.Model,
    photos: Packed,
    plan: Plan,
    options: Augmentation,
    after_round: Callable[[int, NDArray[np.float64], float, list[NDArray[np.float32]]], None],
) -> None:
    """Train, and leave the averaged weights in the network.

    Args:
        network: see ``network.build``, for any size of input.
        photos: to learn from.
        plan: see ``Plan``.
        options: of the images.
        after_round: gets the number of steps so far, the mean losses of scores, boxes and landmarks in this round, the
            fraction of the training that is done, and the averaged weights.
    """
    optimizer = keras.optimizers.AdamW(plan.learning_rate, weight_decay=plan.weight_decay, global_clipnorm=5.0)
    total = max(1, plan.epochs * len(photos.atlas) // plan.batch)
    steps = min(ROUND, total)
    grid = cells(plan.side, plan.side)

    def loss_parts(images_to_outputs: Callable[[Any], Any], photos: Packed, draws: Any, noise: Any) -> Any:
        images, truth = compose(photos, draws, noise, options)
        truth = Truth(*(ops.stop_gradient(getattr(truth, field.name)) for field in dataclasses.fields(Truth)))
        return losses(images_to_outputs(ops.stop_gradient(images)), truth, *grid)

    start = time.monotonic()
    run = (_jax_round if keras.backend.backend() == "jax" else _tensorflow_round)(
        network, optimizer, photos, plan, steps, loss_parts
    )
    done = 0.0
    for number in range(-(-total // steps)):
        warm, fall = min(1.0, (done + 0.1 * WARM_UP) / WARM_UP), 0.5 * (1 + math.cos(math.pi * done))
        optimizer.learning_rate.assign(plan.learning_rate * warm * (LOWEST + (1 - LOWEST) * fall))
        lost, averaged = run(number)
        minutes = (time.monotonic() - start) / 60
        done = max((number + 1) * steps / total, minutes / plan.minutes)
        after_round((number + 1) * steps, lost, min(done, 1.0), averaged)
        if done >= 1:
            break
    for variable, value in zip(network.weights, averaged, strict=True):
        variable.assign(value)


def _jax_round(
    network: keras.Model, optimizer: Any, photos: Packed, plan: Plan, steps: int, loss_parts: Callable[..., Any]
) -> Callable[[int], tuple[NDArray[np.float64], list[NDArray[np.float32]]]]:
    """A function that runs a round as one program; see training/jax_fit.py.

    All weights lie in one vector: two thousand operations fewer, of which a GPU would have to compile each.
    """
    import jax
    from jax import numpy as jnp
    from jax.flatten_util import ravel_pytree

    variables = network.trainable_variables, network.non_trainable_variables
    (weights, split), (others, split_others) = (ravel_pytree([one.value for one in part]) for part in variables)
    vector = keras.Variable(weights, name="weights")
    optimizer.build([vector])
    device_photos = [jnp.asarray(getattr(photos, field.name)) for field in dataclasses.fields(Packed)]

    @jax.jit
    def round_of(state: Any, photos: Any, key: Any) -> Any:
        def step(state: Any, number: Any) -> Any:
            weights, others, slots, mean, done = state
            uniform, normal = jax.random.split(jax.random.fold_in(key, number))
            draws = jax.random.uniform(uniform, (plan.batch, DRAWS))
            noise = jax.random.normal(normal, (plan.batch, plan.side, plan.side))

            def total(weights: Any) -> Any:
                changed = []

                def outputs(images: Any) -> Any:
                    found, now = network.stateless_call(split(weights), split_others(others), images, training=True)
                    changed.append(ravel_pytree(now)[0])
                    return found

                parts = jnp.stack(loss_parts(outputs, Packed(*photos), draws, noise))
                return parts.sum(), (parts, changed[0])

            (_, (parts, others)), gradient = jax.value_and_grad(total, has_aux=True)(weights)
            (weights,), slots = optimizer.stateless_apply(slots, [gradient], [weights])
            keep = jnp.minimum(plan.ema, (done + 1) / (done + 10))
            mean = keep * mean + (1 - keep) * jnp.concatenate([weights, others])
            return (weights, others, slots, mean, done + 1), parts

        state, parts = jax.lax.scan(step, state, jnp.arange(steps))
        return state, parts.mean(axis=0)

    key = jax.random.key(plan.seed)
    slots = [variable.value for variable in optimizer.variables]
    state = (weights, others, slots, jnp.concatenate([weights, others]), jnp.float32(0))
    begun = time.monotonic()
    lowered = round_of.lower(state, device_photos, key)
    traced = time.monotonic()
    program = lowered.compile()
    print(f"traced in {traced - begun:.1f} s, compiled in {time.monotonic() - traced:.1f} s", flush=True)

    def run(number: int) -> tuple[NDArray[np.float64], list[NDArray[np.float32]]]:
        nonlocal state
        weights, others, slots, mean, done = state
        rate = [one is optimizer.learning_rate for one in optimizer.variables].index(True)
        slots[rate] = optimizer.learning_rate.value
        state, parts = program((weights, others, slots, mean, done), device_photos, jax.random.fold_in(key, number))
        averaged = split(state[3][: len(weights)]), split_others(state[3][len(weights) :])
        values = {
            id(variable): np.asarray(value)
            for part, found in zip(variables, averaged, strict=True)
            for variable, value in zip(part, found, strict=True)
        }
        return np.asarray(parts, np.float64), [values[id(variable)] for variable in network.weights]

    return run


def _tensorflow_round(
    network: keras.Model, optimizer: Any, photos: Packed, plan: Plan, steps: int, loss_parts: Callable[..., Any]
) -> Callable[[int], tuple[NDArray[np.float64], list[NDArray[np.float32]]]]:
    """A function that runs a round step by step."""
    import tensorflow as tf

    optimizer.build(network.trainable_variables)
    held = Packed(*(tf.constant(getattr(photos, field.name)) for field in dataclasses.fields(Packed)))
    means = [tf.Variable(variable.value) for variable in network.weights]
    done = tf.Variable(0.0)

    @tf.function
    def step(draws: Any, noise: Any) -> Any:
        with tf.GradientTape() as tape:
            parts = tf.stack(loss_parts(lambda images: network(images, training=True), held, draws, noise))
            total = tf.reduce_sum(parts)
        trainable = network.trainable_variables
        optimizer.apply_gradients(
            zip(tape.gradient(total, [variable.value for variable in trainable]), trainable, strict=True)
        )
        keep = tf.minimum(plan.ema, (done + 1) / (done + 10))
        for mean, variable in zip(means, network.weights, strict=True):
            mean.assign(keep * mean + (1 - keep) * variable.value)
        done.assign_add(1.0)
        return parts

    def run(number: int) -> tuple[NDArray[np.float64], list[NDArray[np.float32]]]:
        rng = np.random.default_rng((plan.seed, number))
        parts = [
            step(
                tf.constant(rng.random((plan.batch, DRAWS), np.float32)),
                tf.constant(rng.standard_normal((plan.batch, plan.side, plan.side), np.float32)),
            ).numpy()
            for _ in range(steps)
        ]
        return np.mean(parts, axis=0, dtype=np.float64), [mean.numpy() for mean in means]

    return run
