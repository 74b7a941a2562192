"""Intensity by ranking: what grows along each sequence has a higher score."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_fer.errors import DataError
from training.sequences.intensity import Order, differences, fit_ranking, order_of


def growing(chance: np.random.Generator, count: int, noise: float) -> list[np.ndarray]:
    """Sequences of four frames: the second feature grows, the first is the person, far larger."""
    people = chance.normal(0, 10, count)
    return [np.stack([np.full(4, who), np.arange(4) + chance.normal(0, noise, 4)], axis=1) for who in people]


def test_the_order_of_new_people_is_found(chance: np.random.Generator) -> None:
    weights = fit_ranking(growing(chance, 30, 0.1))
    held_out = growing(chance, 30, 0.1)
    assert order_of([frames @ weights for frames in held_out]) == Order(1.0, 1.0)
    assert abs(weights[0]) < 1e-6 < weights[1]  # who it is says nothing


def test_differences_by_hand() -> None:
    frames = np.array([[0.0], [1.0], [5.0]])
    assert differences([frames, np.zeros((1, 1))])[:, 0].tolist() == [1, 5, 4]


def test_the_order_by_hand() -> None:
    assert order_of([np.array([0.0, 1.0, 2.0]), np.array([2.0, 1.0]), np.array([1.0, 1.0])]) == Order(3.5 / 5, 1 / 3)
    assert order_of([np.array([0.0, 1.0]), np.array([7.0])]) == Order(1.0, 1.0)


@given(st.lists(st.lists(st.floats(-5, 5, width=16), min_size=2, max_size=5), min_size=1))
def test_scores_and_their_negatives_share_the_pairs(scores: list[list[float]]) -> None:
    ordered = order_of([np.array(one) for one in scores])
    turned = order_of([-np.array(one) for one in scores])
    assert ordered.pairs + turned.pairs == pytest.approx(1)
    assert 0 <= ordered.monotone + turned.monotone <= 1


@pytest.mark.parametrize("act", [fit_ranking, order_of])
def test_single_frames_have_no_order(act: object) -> None:
    with pytest.raises(DataError, match="two frames or more"):
        act([np.zeros((1, 2))] if act is fit_ranking else [np.zeros(1)])  # type: ignore[operator]
