"""Confidence against frequency, and the temperature between them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from labeled import labeled

import datasets
from datasets import Labels
from datasets.fer2013 import FER2013_LABELS
from edge_fer.core import Expression as E
from edge_fer.model.spec import Head
from evaluation.calibration import expected_calibration_error, fit_temperature, reliability

PAIR = Head("pair", (E.ANGER, E.FEAR))


def test_calibration_error_is_the_distance_of_confidence_from_accuracy() -> None:
    # Ten answers at confidence 0.9 of which six are right, ten at 0.6 of which all are: (0.3 + 0.4) / 2.
    probabilities = np.array([[0.9, 0.1]] * 10 + [[0.6, 0.4]] * 10, np.float32)
    labels = np.array([0] * 6 + [1] * 4 + [0] * 10)
    assert expected_calibration_error(probabilities, labels) == pytest.approx(0.35, abs=1e-6)
    count, confidence, accuracy = reliability(probabilities, labels)
    assert count.sum() == 20
    assert confidence[count > 0] == pytest.approx([0.6, 0.9])
    assert accuracy[count > 0] == pytest.approx([1.0, 0.6])


def test_certainty_and_indifference_have_a_bin() -> None:
    probabilities = np.array([[1.0, 0.0], [0.5, 0.5]], np.float32)
    assert expected_calibration_error(probabilities, np.array([0, 1])) == pytest.approx(0.25)


def test_a_confidence_on_a_border_belongs_to_the_lower_bin() -> None:
    probabilities = np.array([[0.75, 0.25], [0.5, 0.5]], np.float32)
    count, confidence, accuracy = reliability(probabilities, np.array([0, 1]), bins=4)
    assert count.tolist() == [0, 1, 1, 0]
    assert confidence.tolist() == [0, 0.5, 0.75, 0]
    assert accuracy.tolist() == [0, 0, 1, 0]


def test_there_are_fifteen_bins_as_in_the_paper() -> None:
    count, confidence, accuracy = reliability(np.array([[0.9, 0.1]], np.float32), np.array([0]))
    assert len(count) == len(confidence) == len(accuracy) == 15


@given(st.lists(st.tuples(st.floats(0.5, 1), st.booleans()), min_size=1, max_size=40), st.integers(1, 12))
def test_the_calibration_error_is_that_of_its_definition(drawn: list[tuple[float, bool]], bins: int) -> None:
    probabilities = np.array([(confidence, 1 - confidence) for confidence, _ in drawn], np.float32)
    # What the function sees is float32: a border is met or missed there.
    confidences = [float(confidence) for confidence in probabilities.max(axis=1).astype(np.float64)]
    labels = np.array([0 if hit else 1 for _, hit in drawn])
    hits = probabilities.argmax(axis=1) == labels
    expected = 0.0
    for number in range(bins):
        inside = [i for i, c in enumerate(confidences) if min(max(int(np.ceil(c * bins)), 1), bins) - 1 == number]
        expected += abs(sum(confidences[i] for i in inside) - sum(hits[i] for i in inside)) / len(drawn)
    assert expected_calibration_error(probabilities, labels, bins) == pytest.approx(expected, abs=1e-6)


def test_the_temperature_lies_between_a_quarter_and_four() -> None:
    # Ten times too unsure, and ten times too sure: the end of the range, no further.
    rows = labeled([E.ANGER, E.FEAR] * 10)
    logits = np.array([[1, -1], [-1, 1]] * 10, np.float32)
    assert fit_temperature(PAIR, 0.1 * logits, rows).temperature == 0.25
    assert fit_temperature(PAIR, -9 * logits, rows).temperature == 4.0


@pytest.mark.parametrize("temperature", [0.3, 0.5, 1.0, 1.7, 3.5])
def test_the_temperature_makes_confidence_frequency(temperature: float) -> None:
    # Of ten answers eight are right: at the best temperature the confidence is 0.8. Rows without a label do not count.
    rows = labeled([E.ANGER] * 8 + [E.FEAR] * 2 + [None] * 30)
    logits = np.log(np.array([[0.8, 0.2]] * 10 + [[0.1, 0.9]] * 30)) * ([[temperature]] * 10 + [[9]] * 30)
    head = fit_temperature(PAIR, logits.astype(np.float32), rows)
    assert head.temperature == pytest.approx(temperature, rel=0.006)
    assert head == dataclasses.replace(PAIR, temperature=round(head.temperature, 3))


@pytest.mark.trains
def test_the_temperature_restores_the_true_one(data: Path, chance: np.random.Generator) -> None:
    head, rows = Head("fer2013", FER2013_LABELS), datasets.load(data)["Training"]
    logits = chance.normal(0, 1, (len(rows) * 30, 7)).astype(np.float32)
    labels = (logits + chance.gumbel(size=logits.shape)).argmax(axis=1)  # drawn from softmax(logits)
    many = rows[np.tile(np.arange(len(rows)), 30)]
    many = many.replace(labels={"fer2013": Labels.single(FER2013_LABELS, labels)})
    assert fit_temperature(head, 2 * logits, many).temperature == pytest.approx(2, rel=0.08)


def test_without_a_label_the_temperature_stays() -> None:
    rows = labeled([E.ANGER, None], [E.ANGER, None])
    head = Head("mine", (E.CONTEMPT,), temperature=1.5)
    assert fit_temperature(head, np.zeros((len(rows), 1), np.float32), rows) is head
