"""Metrics against closed forms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from labeled import labeled
from rich.console import Console

from edge_fer.core import Expression as E
from edge_fer.model.spec import Head, head_slices
from evaluation import metrics

TWO = Head("two", (E.ANGER, E.FEAR))


def test_the_logits_of_heads_stand_side_by_side() -> None:
    heads = [Head("a", (E.FEAR, E.ANGER)), Head("b", (E.FEAR,)), Head("c", (E.FEAR, E.ANGER, E.NEUTRAL))]
    assert head_slices(heads) == {"a": slice(0, 2), "b": slice(2, 3), "c": slice(3, 6)}


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=60))
def test_metrics_follow_their_definitions(pairs: list[tuple[int, int]]) -> None:
    result = metrics.metrics_of(*np.array(pairs).T, ["a", "b", "c"])
    assert result["confusion"] == [[pairs.count((i, j)) for j in range(3)] for i in range(3)]
    assert result["n"] == len(pairs)
    assert result["accuracy"] == pytest.approx(sum(i == j for i, j in pairs) / len(pairs), abs=5.1e-5)
    f1 = []
    for i, label in enumerate("abc"):
        true, predicted = (sum(pair[side] == i for pair in pairs) for side in range(2))
        recall = result["recall"][label]
        assert (recall is None) == (true == 0)
        assert recall is None or recall == pytest.approx(pairs.count((i, i)) / true, abs=5.1e-5)
        if true + predicted:
            f1.append(2 * pairs.count((i, i)) / (true + predicted))
    assert result["macro_f1"] == pytest.approx(sum(f1) / len(f1), abs=5.1e-5)


def test_metrics_have_four_digits() -> None:
    result = metrics.metrics_of(np.array([0, 0, 0, 1, 1, 1, 1]), np.array([0, 1, 1, 1, 1, 1, 1]), ["a", "b"])
    assert (result["accuracy"], result["recall"]["a"], result["macro_f1"]) == (0.7143, 0.3333, 0.65)


@pytest.mark.parametrize(
    ("true", "predicted", "fraction"),
    [("a", "b", 0.6667), ("a", "a", 0.3333), ("b", "a", 0.0), ("b", "b", 1.0), ("c", "a", 0.0)],
)
def test_the_fraction_that_is_confused_with_another(true: str, predicted: str, fraction: float) -> None:
    row = metrics.metrics_of(np.array([0, 0, 0, 1]), np.array([0, 1, 1, 1]), ["a", "b", "c"])
    assert metrics.confused(row, ["a", "b", "c"], true, predicted) == fraction


def test_a_drawn_confusion_says_fractions_and_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = pytest.importorskip("matplotlib.figure")
    drawn = []
    monkeypatch.setattr(figure.Figure, "savefig", lambda self, path, **_: drawn.append(self.axes[0]))
    metrics.plot_confusion(np.array([[3, 1], [0, 0]]), ["anger", "fear"], "mine", tmp_path / "x.png")
    (axes,) = drawn
    texts = {text.get_position(): (text.get_text(), text.get_color()) for text in axes.texts}
    assert texts[0, 0] == ("0.75\n3", "white")  # on the dark shade of a large fraction
    assert texts[1, 0] == ("0.25\n1", "black")
    assert texts[0, 1] == ("0.00\n0", "black")
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["anger", "fear"]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["anger", "fear"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")
    assert axes.get_title() == "mine: accuracy 75.00%, N = 4"


def test_images_that_stand_in_training_too_are_left_out_of_the_unseen() -> None:
    data = labeled([E.ANGER, E.FEAR, E.FEAR, None], seen=[False, True, False, False])
    logits = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
    result = metrics.evaluate_logits(logits, data, [TWO])
    assert result["two"]["confusion"] == [[1, 0], [1, 1]]
    assert result["two_unseen"]["confusion"] == [[1, 0], [0, 1]]
    assert metrics.evaluate_logits(logits[3:], data[3:], [TWO]) == {}


def test_models_stand_side_by_side() -> None:
    data = labeled([E.ANGER, E.FEAR, E.FEAR], seen=[False, True, False])
    good = metrics.evaluate_logits(np.array([[1, 0], [0, 1], [0, 1]], np.float32), data, [TWO])
    worse = metrics.evaluate_logits(np.array([[1, 0], [0, 1], [1, 0]], np.float32), data, [TWO])
    console = Console(record=True, width=120)
    console.print(metrics.report({"float": good, "int8": worse}))
    lines = [" ".join(line.replace("│", " ").replace("┃", " ").split()) for line in console.export_text().splitlines()]
    assert "head images N float accuracy macro F1 int8 accuracy macro F1" in lines
    assert "two all 3 100.00% 1.000 66.67% 0.667" in lines
    assert "two not in Training 2 100.00% 1.000 50.00% 0.333" in lines
    assert "two recall: anger 100%, fear 50%" in lines
