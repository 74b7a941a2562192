"""Restricted Boltzmann machines against their definition, and a stack that learns."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from training.classical.rbm import RBM, fit_stack


def machine(gaussian: bool = False) -> RBM:
    rng = np.random.default_rng(0)
    made = RBM.begun(4, 3, rng, gaussian)
    for part in (made.weights, made.visible_bias, made.hidden_bias):
        part += rng.normal(size=part.shape).astype(np.float32)
    return made


def energy(one: RBM, visible: np.ndarray, hidden: np.ndarray) -> float:
    own = ((visible - one.visible_bias) ** 2).sum() / 2 if one.gaussian else -one.visible_bias @ visible
    return float(own - one.hidden_bias @ hidden - visible @ one.weights @ hidden)


@pytest.mark.parametrize("gaussian", [False, True])
def test_hidden_units_and_free_energy_by_all_states(gaussian: bool) -> None:
    one = machine(gaussian)
    visible = np.array([1, 0, 1, 1], np.float32)
    states = [np.array(bits, np.float32) for bits in itertools.product((0, 1), repeat=3)]
    weights = np.array([np.exp(-energy(one, visible, hidden)) for hidden in states])
    expected = (weights[:, None] * np.array(states)).sum(axis=0) / weights.sum()
    np.testing.assert_allclose(one.hidden(visible[None])[0], expected, rtol=1e-5)
    np.testing.assert_allclose(one.free_energy(visible[None])[0], -np.log(weights.sum()), rtol=1e-5)


def test_visible_units_by_all_states() -> None:
    one = machine()
    hidden = np.array([1, 0, 1], np.float32)
    states = [np.array(bits, np.float32) for bits in itertools.product((0, 1), repeat=4)]
    weights = np.array([np.exp(-energy(one, visible, hidden)) for visible in states])
    expected = (weights[:, None] * np.array(states)).sum(axis=0) / weights.sum()
    np.testing.assert_allclose(one.visible(hidden[None])[0], expected, rtol=1e-5)


def test_gradient_is_of_the_data_less_of_the_reconstruction() -> None:
    one = machine(gaussian=True)
    one.weights[:] = 0  # then hidden and visible units do not hear of each other
    data = np.random.default_rng(1).normal(size=(500, 4)).astype(np.float32)
    (weights, visible, hidden), error = one.gradient(data, np.random.default_rng(2))
    np.testing.assert_allclose(visible, data.mean(axis=0) - one.visible_bias, rtol=1e-4)
    np.testing.assert_allclose(hidden, 0, atol=1e-6)
    np.testing.assert_allclose(weights, np.outer(visible, one.hidden(data)[0]), rtol=1e-3)
    assert error == pytest.approx(((data - one.visible_bias) ** 2).mean(), rel=1e-5)


@pytest.mark.parametrize("gaussian", [False, True])
def test_gradient_is_expected_over_the_hidden_bits(gaussian: bool) -> None:
    """Of many copies of a few samples, against the sum over all states of the hidden units."""
    one = machine(gaussian)
    one.weights *= 2  # so far from linear that bits and their probabilities give other reconstructions
    samples = np.random.default_rng(1).integers(0, 2, (3, 4)).astype(np.float32)
    states = np.array(list(itertools.product((0, 1), repeat=3)), np.float32)
    reconstructions = one.visible(states)
    again = one.hidden(reconstructions)
    driven = one.hidden(samples)
    chances = np.prod(np.where(states, driven[:, None], 1 - driven[:, None]), axis=2).mean(axis=0)
    expected = (
        samples.T @ driven / 3 - (chances[:, None] * reconstructions).T @ again,
        samples.mean(axis=0) - chances @ reconstructions,
        driven.mean(axis=0) - chances @ again,
    )
    gradient, _ = one.gradient(np.tile(samples, (50_000, 1)), np.random.default_rng(2))
    for ours, theirs in zip(gradient, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=0.02)


def bars(n: int, rng: np.random.Generator) -> np.ndarray:
    """Images of 4x4 bits with a bar or two: what an RBM is known to take apart."""
    images = np.zeros((n, 4, 4), np.float32)
    for image in images:
        image[rng.integers(4)] = 1
        if rng.random() < 0.5:
            image[:, rng.integers(4)] = 1
    return images.reshape(n, 16)


def test_what_it_learns_is_likelier_than_chance() -> None:
    rng = np.random.default_rng(3)
    data = bars(2000, rng)
    one = RBM.begun(16, 12, rng)
    one.fit(data, 30, rng, learning_rate=0.1)
    assert one.errors[-1] < 0.35 * one.errors[0]
    unseen, chance = bars(200, rng), (rng.random((200, 16)) < data.mean()).astype(np.float32)
    assert np.mean(one.free_energy(unseen)) < np.mean(one.free_energy(chance)) - 3


def test_a_stack_learns_from_below_and_the_same_each_time() -> None:
    data = np.random.default_rng(4).normal(size=(600, 20)).astype(np.float32)
    data[:, 10:] = data[:, :10]  # half of the numbers tell nothing new
    told: list[tuple[int, int]] = []
    stack = fit_stack(data, (16, 8), 8, seed=1, on_epoch=lambda layer, epoch, error: told.append((layer, epoch)))
    assert [one.weights.shape for one in stack] == [(20, 16), (16, 8)]
    assert [one.gaussian for one in stack] == [True, False]
    assert told == [(layer, epoch) for layer in (0, 1) for epoch in range(8)]
    assert all(one.errors[-1] < one.errors[0] for one in stack)
    again = fit_stack(data, (16, 8), 8, seed=1)
    np.testing.assert_array_equal(again[1].weights, stack[1].weights)


def test_it_learns_from_fewer_samples_than_a_batch() -> None:
    rng = np.random.default_rng(6)
    one = RBM.begun(16, 12, rng)
    one.fit(bars(60, rng), 30, rng, learning_rate=0.1)
    assert np.isfinite(one.errors).all()
    assert one.errors[-1] < 0.95 * one.errors[0]
