"""Fitting a decision rule: what is chosen, on data whose best rule is known, and when nothing is fitted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.core import Dataset, Labels
from edge_fer.core import Expression as E
from edge_fer.model.decision import Rule
from edge_fer.model.spec import Decision, Head
from evaluation import decision

LABELS = (E.NEUTRAL, E.ANGER, E.DISGUST)
PRIORS = (0.8, 0.15, 0.05)
HEAD = Head("expression", LABELS, 1.0, PRIORS)


def dataset(truth: np.ndarray) -> Dataset:
    images = np.zeros((len(truth), 48, 48, 1), np.uint8)
    return Dataset(images, {"expression": Labels.single(LABELS, truth)}, np.zeros(len(truth), np.bool_))


def biased(n: int = 2000) -> tuple[np.ndarray, Dataset]:
    """Logits that hold the prior besides the evidence, float32 (n, 3), and their faces."""
    chance = np.random.default_rng(0)
    truth = chance.choice(3, n, p=PRIORS)
    evidence = 1.5 * np.eye(3)[truth] + chance.normal(0, 0.7, (n, 3))
    return (evidence * 1.5 / 0.49 + np.log(PRIORS)).astype(np.float32), dataset(truth)


def test_priors_are_those_of_the_targets() -> None:
    data = dataset(np.array([0, 0, 0, 1, 2, -1]))
    assert decision.class_priors(data, HEAD) == (0.6, 0.2, 0.2)
    assert decision.class_priors(data, Head("other", LABELS[::-1])) == (0.2, 0.2, 0.6)
    assert decision.class_priors(dataset(np.array([0, 1, 0])), HEAD) == ()


def test_a_rule_gains_mean_recall_and_keeps_the_accuracy_it_must() -> None:
    logits, data = biased()
    as_trained = decision.curve(logits, data, (HEAD,), Decision(LABELS, (1.0,), 0.0))[0]
    found = decision.fit_decision(logits, data, (HEAD,), max_loss=3.0)
    assert found and found.weights == (1.0,) and found.tau > 0
    chosen = next(point for point in decision.curve(logits, data, (HEAD,), found) if point.tau == found.tau)
    assert chosen.mean_recall > as_trained.mean_recall + 0.02
    assert chosen.accuracy >= as_trained.accuracy - 0.03


def test_nothing_may_be_lost() -> None:
    logits, data = biased()
    found = decision.fit_decision(logits, data, (HEAD,), max_loss=0.0)
    assert found
    points = decision.curve(logits, data, (HEAD,), found)
    assert next(point for point in points if point.tau == found.tau).accuracy >= points[0].accuracy


def test_what_few_faces_vouch_for_is_not_reported() -> None:
    logits, data = biased(900)
    truth = data.labels["expression"].truth
    rare = np.flatnonzero(truth == 2)
    kept = np.setdiff1d(np.arange(900), rare[decision.LEAST_FACES - 1 :])
    found = decision.fit_decision(logits[kept], data[kept], (HEAD,))
    assert found and found.labels == LABELS[:2]
    kept = np.setdiff1d(np.arange(900), rare[decision.LEAST_FACES :])
    found = decision.fit_decision(logits[kept], data[kept], (HEAD,))
    assert found and found.labels == LABELS


def test_where_nothing_can_be_known_nothing_is_fitted() -> None:
    logits, data = biased(900)
    assert decision.fit_decision(logits[:50], data[np.arange(50)], (HEAD,)) is None
    assert decision.fit_decision(logits, data, (replace(HEAD, priors=()),)) is None
    assert decision.fit_decision(logits, dataset(np.zeros(900, np.int64)), (HEAD,)) is None


def test_a_second_head_without_a_reported_label_has_no_weight() -> None:
    logits, data = biased(900)
    other = Head("other", LABELS[:2], 1.0, (0.5, 0.5))
    found = decision.fit_decision(np.hstack([logits, logits[:, :2]]), data, (HEAD, other))
    assert found and found.weights == (1.0, 0.0)


def test_each_face_is_measured_by_a_rule_that_did_not_see_it() -> None:
    truth = np.array([0, 1, 2] * 40)
    seen = np.concatenate([measured for _, measured in decision.folds(truth)])
    assert sorted(seen) == list(range(120))
    assert all(not set(fitted) & set(measured) for fitted, measured in decision.folds(truth))


def test_calibration_where_all_classes_weigh_alike() -> None:
    # 90 sure and right answers of one class, 10 sure and wrong ones of another: half of the weight is off by one.
    probabilities = np.tile(np.array([[1.0, 0.0]], np.float32), (100, 1))
    truth = np.array([0] * 90 + [1] * 10)
    assert decision.balanced_calibration_error(probabilities, truth) == pytest.approx(0.5)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=50))
def test_classes_weigh_alike(truth: list[int]) -> None:
    labels = np.array(truth)
    weights = decision.balanced_weights(labels)
    shares = [weights[labels == label].sum() for label in set(truth)]
    assert shares == pytest.approx([1 / len(shares)] * len(shares))


def test_an_expression_that_is_not_reported_counts_as_wrong() -> None:
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.7, 0.3]], np.float32)
    row = decision.measured(probabilities, np.array([0, 1, 1, -1]), ("neutral", "anger"))
    assert (row["n"], row["accuracy"], row["mean_recall"]) == (4, 0.5, 0.75)
    assert row["recall"] == {"neutral": 1.0, "anger": 0.5} and row["faces"] == {"neutral": 1, "anger": 2}


def test_the_temperature_makes_a_sure_rule_less_sure() -> None:
    logits, data = biased()
    tempered = decision.fit_decision(logits * 4, data, (HEAD,))
    assert tempered
    known = data.labels["expression"].truth
    error = decision.balanced_calibration_error(Rule.balanced(tempered, (HEAD,)).probabilities(logits * 4), known)
    raw = Rule.balanced(replace(tempered, temperature=1.0), (HEAD,)).probabilities(logits * 4)
    assert error < 0.08 < decision.balanced_calibration_error(raw, known)
