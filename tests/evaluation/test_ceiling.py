"""What people would reach is estimated from their votes, and the estimate holds where the truth is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faces_csv import write_csvs
from labeled import labeled
from scipy.special import logsumexp

from datasets.fer2013 import ferplus_labels
from edge_fer.core import Expression as E
from edge_fer.errors import DataError
from evaluation.__main__ import main
from evaluation.ceiling import VoteMixture, human_ceiling

KINDS = np.array(
    [
        [0.95, 0.05, 0, 0, 0, 0, 0, 0, 0, 0],
        [0.60, 0, 0, 0.40, 0, 0, 0, 0, 0, 0],
        [0.05, 0.85, 0.10, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0.55, 0.25, 0.10, 0, 0.10, 0],
    ]
)
"""Four kinds of images: how a rater chooses."""


def votes(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Votes of ten for images of the four kinds, and of ten others for the same images."""
    generator = np.random.default_rng(seed)
    kinds = KINDS[generator.integers(0, len(KINDS), count)]
    first, second = generator.multinomial(10, kinds), generator.multinomial(10, kinds)
    return first, second


def test_a_panel_is_as_often_right_as_a_second_panel_that_is_really_drawn() -> None:
    first, second = votes(4000, seed=1)
    labels = ferplus_labels(first.astype(np.float32))
    ceiling = human_ceiling(labels)
    known = labels.truth >= 0
    top = second[:, :8] == second[:, :8].max(axis=1, keepdims=True)
    agrees = (top / top.sum(axis=1, keepdims=True))[np.arange(4000), labels.truth][known]
    assert (ceiling.n, ceiling.raters) == (known.sum(), 10)
    assert ceiling.accuracy == pytest.approx(agrees.mean(), abs=0.01)
    single = (second / 10)[np.arange(4000), labels.truth][known]
    assert ceiling.one_rater == pytest.approx(single.mean(), abs=0.01)
    assert ceiling.predicted == pytest.approx(ceiling.observed, abs=0.015)


def test_it_is_the_same_every_time() -> None:
    labels = ferplus_labels(votes(300, seed=2)[0].astype(np.float32))
    assert human_ceiling(labels) == human_ceiling(labels)


def test_other_votes_are_as_likely_under_the_fit_as_under_what_made_them() -> None:
    fit, true = VoteMixture.fit(votes(4000, seed=3)[0]), VoteMixture(np.full(4, 0.25), np.maximum(KINDS, 1e-12))
    fresh, _ = votes(4000, seed=4)

    def likelihood(mixture: VoteMixture) -> float:
        joint = fresh @ np.log(mixture.chances).T + np.log(mixture.weights)
        return float(logsumexp(joint, axis=1).mean())

    assert likelihood(fit) == pytest.approx(likelihood(true), abs=0.1)
    assert fit.weights.sum() == pytest.approx(1)
    assert fit.posterior(fresh).sum(axis=1) == pytest.approx(1)


def test_people_who_all_agree_are_always_right() -> None:
    ceiling = human_ceiling(labeled([E.ANGER, E.FEAR], [E.ANGER, E.HAPPINESS]).labels["ferplus"])
    assert ceiling.accuracy == pytest.approx(1, abs=0.01)
    assert ceiling.observed == 1.0


def test_half_of_the_votes_may_never_tell() -> None:
    """Two raters who never agree: a half of one vote is clear, and the other half says otherwise."""
    split = np.zeros((5, 10), np.float32)
    split[:, 0], split[:, 1] = 2, 2
    split[0] = [4, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    ceiling = human_ceiling(ferplus_labels(split))
    assert (ceiling.n, ceiling.raters) == (1, 4)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (labeled([E.ANGER]).labels["fer2013"], "no votes"),
        (labeled([E.ANGER], [None]).labels["ferplus"], "No image has a label"),
    ],
)
def test_without_votes_or_labels_there_is_no_estimate(labels: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        human_ceiling(labels)


def test_the_command(data: Path, tmp_path: Path, call: Callable[..., Any]) -> None:
    done = call(main, "ceiling", "--data", data)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("PublicTest: a fresh panel of 10 people would choose the label of")
    assert "the 42 labeled images" in done.out
    write_csvs(tmp_path, votes=False)
    done = call(main, "ceiling", "--data", tmp_path)
    assert (done.code, done.out) == (65, "")
    assert done.err == f"evaluation: {tmp_path} has no votes of raters: put FER+'s fer2013new.csv beside fer2013.csv.\n"
