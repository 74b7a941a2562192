"""Two models on the same images, and several models on several data sets."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from miniatures import MADE
from rich.console import Console

from evaluation.__main__ import main
from evaluation.paired import in_words, matrix, mcnemar


def answers(text: str) -> np.ndarray:
    return np.array([int(one) for one in text], np.int64)


@pytest.mark.parametrize(
    ("truth", "ours", "theirs", "only", "p"),
    [
        ("0000", "0000", "0000", (0, 0), 1.0),
        ("0123", "1230", "2301", (0, 0), 1.0),  # both wrong, and differently
        ("0000", "0001", "1110", (3, 1), 2 * (1 + 4) / 16),
        ("000000", "000000", "111111", (6, 0), 2 / 64),
        ("0000000000", "1111111111", "0000000000", (0, 10), 2 / 1024),
        ("01", "00", "11", (1, 1), 1.0),
    ],
)
def test_mcnemar_by_hand(truth: str, ours: str, theirs: str, only: tuple[int, int], p: float) -> None:
    result = mcnemar(answers(truth), answers(ours), answers(theirs))
    assert (result["only_first"], result["only_second"]) == only
    assert result["p"] == pytest.approx(p)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=60))
def test_it_does_not_matter_which_is_first(rows: list[tuple[int, int, int]]) -> None:
    truth, ours, theirs = (np.array(one) for one in zip(*rows, strict=True))
    one, other = mcnemar(truth, ours, theirs), mcnemar(truth, theirs, ours)
    assert (one["only_first"], one["only_second"]) == (other["only_second"], other["only_first"])
    assert one["p"] == pytest.approx(other["p"])
    n, k = one["only_first"] + one["only_second"], min(one["only_first"], one["only_second"])
    tail = 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n
    assert one["p"] == pytest.approx(min(1.0, tail))


def test_words() -> None:
    assert "p < 0.0001" in in_words({"only_first": 60, "only_second": 1, "p": 1e-9})
    assert "right alone on 1 images, the other on 60" in in_words({"only_first": 60, "only_second": 1, "p": 0.5})


def test_the_matrix_has_a_row_a_model_and_a_column_a_labeling() -> None:
    def row(data: str, model: str, accuracy: float) -> dict[str, Any]:
        recall = {"neutral": 0.5, "anger": None if data == "a" else 0.5}
        return {
            **{"data": data, "task": "t", "model": model, "accuracy": accuracy},
            "mean_recall": 0.5,
            "recall": recall,
        }

    console = Console(width=100)
    with console.capture() as captured:
        console.print(matrix([row("a", "x", 0.9), row("a", "y", 0.8), row("b", "x", 0.123)]))
    lines = [" ".join(line.split()) for line in captured.get().splitlines()]
    assert "model a, t b, t" in lines
    assert "x 90.0 / 50.0 12.3 / 50.0" in lines and "y 80.0 / 50.0 -" in lines and "classes 1 2" in lines


def test_the_command_prints_the_matrix_over_the_loaders(tmp_path: Path, call: Callable[..., Any]) -> None:
    """Two sets in layouts of their own, two models."""
    for name in ("ck+48", "tfd"):
        MADE[name](tmp_path / name)
    done = call(main, "protocols", "--data", tmp_path / "ck+48", tmp_path / "tfd", "--model", "accurate", "nano")
    assert done.code == 0, done.err
    text = " ".join(done.out.split())
    assert "Across data sets" in text and "McNemar's exact test p = " in text
