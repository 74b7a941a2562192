"""Intervals by bootstrap hold what they should, as often as they should."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.intervals import bootstrap
from evaluation.model_card import wilson


def test_an_interval_of_accuracy_is_that_of_a_binomial() -> None:
    truth = np.zeros(800, np.int64)
    reported = (np.arange(800) % 4 == 0).astype(np.int64)
    intervals = bootstrap(truth, reported, reported == 1, 2)
    assert intervals["accuracy"] == pytest.approx(wilson(0.75, 800), abs=0.004)
    assert intervals["mean_recall"] == intervals["accuracy"]  # one class has images
    assert intervals["uncertain"] == pytest.approx(wilson(0.25, 800), abs=0.004)


def test_images_of_one_person_do_not_count_as_many() -> None:
    """Forty people with twenty images each, of whom each is always right or always wrong."""
    person = np.repeat(np.arange(40), 20)
    truth, reported = np.zeros(800, np.int64), (person % 4 == 0).astype(np.int64)
    intervals = bootstrap(truth, reported, truth > 0, 2, np.char.mod("S%03d", person))
    assert intervals["accuracy"] == pytest.approx(wilson(0.75, 40), abs=0.03)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.booleans(), st.sampled_from("abc")), min_size=1),
)
def test_limits_are_in_order_and_repeat(rows: list[tuple[int, int, bool, str]]) -> None:
    truth, reported, uncertain, who = (np.array(column) for column in zip(*rows, strict=True))
    for groups in (None, who):
        intervals = bootstrap(truth, reported, uncertain, 3, groups)
        assert intervals == bootstrap(truth, reported, uncertain, 3, groups)
        assert all(0 <= low <= high <= 1 for low, high in intervals.values())


def test_what_never_varies_has_no_width() -> None:
    intervals = bootstrap(np.array([0, 1, 1]), np.array([0, 1, 1]), np.array([False] * 3), 2)
    assert intervals == {"accuracy": (1.0, 1.0), "mean_recall": (1.0, 1.0), "uncertain": (0.0, 0.0)}
