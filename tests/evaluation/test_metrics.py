"""Metrics are what their definitions say."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

import datasets
from datasets.fer2013 import FERPLUS_LABELS
from edge_fer.core import Expression as E
from edge_fer.model.spec import Head
from evaluation import metrics


def test_metrics_of_a_known_confusion() -> None:
    row = metrics.metrics_of(np.array([0, 0, 0, 0, 1, 1, 2]), np.array([0, 0, 0, 1, 1, 0, 2]), ["a", "b", "c", "d"])
    assert row == {
        "n": 7,
        "accuracy": round(5 / 7, 4),
        "macro_f1": 0.75,  # F1 is 6/8, 2/4 and 1; the class that never occurs does not count
        "recall": {"a": 0.75, "b": 0.5, "c": 1.0, "d": None},
        "confusion": [[3, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]],
    }
    assert metrics.confused(row, ["a", "b", "c", "d"], "a", "b") == 0.25
    assert metrics.confused(row, ["a", "b", "c", "d"], "d", "a") == 0.0


def test_a_class_that_is_predicted_but_never_true_lowers_macro_f1() -> None:
    row = metrics.metrics_of(np.array([0, 0]), np.array([0, 1]), ["a", "b"])
    assert row["macro_f1"] == round(2 / 3 / 2, 4)
    assert row["recall"] == {"a": 0.5, "b": None}


def test_each_head_is_measured_by_its_own_labels(data: Path) -> None:
    rows = datasets.load(data)["PublicTest"]
    heads = (Head("ferplus", FERPLUS_LABELS, 1.0), Head("mine", (E.SURPRISE, E.ANGER), 1.0))
    logits = np.zeros((len(rows), 10), np.float32)
    logits[np.arange(len(rows)), rows.labels["ferplus"].truth] = 1
    logits[:, 9] = 1  # the second head always says anger
    result = metrics.evaluate_logits(logits, rows, heads)
    assert result["ferplus"]["accuracy"] == 1.0
    assert result["mine"]["n"] == 12  # only rows that it has a label for
    assert result["mine"]["recall"] == {"surprise": 0.0, "anger": 1.0}
    assert result["ferplus_unseen"]["n"] == 42


def test_metrics_are_written(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    heads = (Head("pair", (E.SURPRISE, E.ANGER), 1.0),)
    row = metrics.metrics_of(np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 1, 1, 1]), heads[0].labels)
    metrics.write_metrics({"pair": row}, heads, tmp_path / "out")
    assert (tmp_path / "out" / "metrics.json").read_text().startswith("{")
    assert cv2.imread(str(tmp_path / "out" / "confusion_pair.png")) is not None
