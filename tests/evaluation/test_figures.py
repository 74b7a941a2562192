"""Data sets are read right or refused, and figures are what their definitions say."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from faces_csv import write_csvs

from edge_fer.core import Expression as E
from edge_fer.model.bundle import Head
from evaluation import datasets, figures
from evaluation.datasets import FERPLUS_LABELS


def test_figures_of_a_known_confusion() -> None:
    confusion = figures.confusion_matrix(np.array([0, 0, 0, 0, 1, 1, 2]), np.array([0, 0, 0, 1, 1, 0, 2]), 4)
    assert confusion.tolist() == [[3, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    result = figures.figures_of(confusion, ["a", "b", "c", "d"])
    assert result["n"] == 7
    assert result["accuracy"] == round(5 / 7, 4)
    assert result["recall"] == {"a": 0.75, "b": 0.5, "c": 1.0, "d": None}
    # F1 is 6/8, 2/4 and 1; the class that never occurs does not count.
    assert result["macro_f1"] == 0.75


def test_each_head_is_measured_by_its_own_labels(tmp_path: Path) -> None:
    write_csvs(tmp_path)
    data = datasets.load(tmp_path)["PublicTest"]
    heads = (Head("ferplus", FERPLUS_LABELS, 1.0), Head("mine", (E.SURPRISE, E.ANGER), 1.0))
    logits = np.zeros((len(data), 10), np.float32)
    logits[np.arange(len(data)), data.ferplus] = 1
    logits[:, 9] = 1  # the second head always says anger
    result = figures.evaluate_logits(logits, data, heads)
    assert result["ferplus"]["accuracy"] == 1.0
    assert result["mine"]["n"] == 12  # only rows that it has a label for
    assert result["mine"]["recall"] == {"surprise": 0.0, "anger": 1.0}
    assert result["ferplus_unseen"]["n"] == 42


def test_figures_are_written(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    heads = (Head("pair", (E.SURPRISE, E.ANGER), 1.0),)
    row = {**figures.figures_of(np.array([[2, 1], [0, 3]]), heads[0].labels), "confusion": [[2, 1], [0, 3]]}
    figures.write_figures({"pair": row}, heads, tmp_path / "out")
    assert (tmp_path / "out" / "metrics.json").read_text().startswith("{")
    assert cv2.imread(str(tmp_path / "out" / "confusion_pair.png")) is not None
