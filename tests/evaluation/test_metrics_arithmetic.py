"""Figures against closed forms, on rows where the two data sets disagree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from edge_fer.core import Expression as E
from edge_fer.model.bundle import Head
from evaluation import figures
from evaluation.datasets import FER2013_LABELS, FERPLUS_LABELS, Dataset


def rows(fer2013: list[E | None], ferplus: list[E | None], unseen: list[bool] | None = None) -> Dataset:
    """A data set of black pictures with these labels; None where a row has none."""
    votes = np.zeros((len(ferplus), 10), np.float32)
    for row, label in enumerate(ferplus):
        if label is not None:
            votes[row, FERPLUS_LABELS.index(label)] = 10
    return Dataset(
        np.zeros((len(fer2013), 48, 48, 1), np.uint8),
        np.array([-1 if label is None else FER2013_LABELS.index(label) for label in fer2013]),
        votes,
        ~np.array(unseen if unseen is not None else [True] * len(fer2013)),
    )


DISAGREE = rows([E.ANGER, E.FEAR, None, E.NEUTRAL], [E.SADNESS, E.FEAR, E.HAPPINESS, None])


def test_the_head_ferplus_is_measured_by_votes_and_others_by_fer2013() -> None:
    by_votes = [FERPLUS_LABELS.index(E.SADNESS), FERPLUS_LABELS.index(E.FEAR), FERPLUS_LABELS.index(E.HAPPINESS), -1]
    assert figures.truth(DISAGREE, Head("ferplus", FERPLUS_LABELS, 1.0)).tolist() == by_votes
    by_code = [FER2013_LABELS.index(E.ANGER), FER2013_LABELS.index(E.FEAR), -1, FER2013_LABELS.index(E.NEUTRAL)]
    assert figures.truth(DISAGREE, Head("fer2013", FER2013_LABELS, 1.0)).tolist() == by_code


def test_a_head_with_contempt_goes_by_votes_where_there_are_any() -> None:
    head = Head("mine", (E.CONTEMPT, E.SADNESS, E.ANGER), 1.0)
    assert figures.truth(DISAGREE, head).tolist() == [1, -1, -1, -1]
    without_votes = rows([E.ANGER, E.SADNESS], [None, None])
    assert figures.truth(without_votes, head).tolist() == [2, 1]


def test_labels_that_a_head_does_not_know_are_none() -> None:
    # Its last label must not be taken for the -1 of a row without one.
    head = Head("two", (E.FEAR, E.ANGER), 1.0)
    assert figures.truth(DISAGREE, head).tolist() == [1, 0, -1, -1]


def test_heads_lie_side_by_side() -> None:
    heads = [Head("a", (E.FEAR, E.ANGER), 1.0), Head("b", (E.FEAR,), 1.0), Head("c", (E.FEAR, E.ANGER, E.NEUTRAL), 1.0)]
    assert figures.head_slices(heads) == {"a": slice(0, 2), "b": slice(2, 3), "c": slice(3, 6)}


@given(st.lists(st.lists(st.integers(0, 50), min_size=3, max_size=3), min_size=3, max_size=3))
def test_figures_follow_their_definitions(counts: list[list[int]]) -> None:
    result = figures.figures_of(np.array(counts), ["a", "b", "c"])
    n = sum(map(sum, counts))
    assert result["n"] == n
    assert result["accuracy"] == pytest.approx(sum(counts[i][i] for i in range(3)) / n if n else 0.0, abs=5.1e-5)
    f1 = []
    for i, label in enumerate("abc"):
        true, predicted = sum(counts[i]), sum(row[i] for row in counts)
        recall = result["recall"][label]
        assert (recall is None) == (true == 0)
        assert recall is None or recall == pytest.approx(counts[i][i] / true, abs=5.1e-5)
        if true + predicted:
            f1.append(2 * counts[i][i] / (true + predicted))
    assert result["macro_f1"] == pytest.approx(sum(f1) / len(f1) if f1 else 0.0, abs=5.1e-5)


def test_figures_have_four_digits() -> None:
    result = figures.figures_of(np.array([[1, 2], [0, 4]]), ["a", "b"])
    assert (result["accuracy"], result["recall"]["a"], result["macro_f1"]) == (0.7143, 0.3333, 0.65)


def test_one_face_is_enough() -> None:
    assert figures.figures_of(np.array([[1, 0], [0, 0]]), ["a", "b"])["accuracy"] == 1.0
    assert figures.mistaken(np.array([[0, 1], [0, 0]]), ["a", "b"], "a", "b") == 1.0


def test_a_drawn_confusion_says_shares_and_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = pytest.importorskip("matplotlib.figure")
    drawn = []
    monkeypatch.setattr(figure.Figure, "savefig", lambda self, path, **_: drawn.append(self.axes[0]))
    figures.plot_confusion(np.array([[3, 1], [0, 0]]), ["anger", "fear"], "mine", tmp_path / "x.png")
    (axes,) = drawn
    texts = {text.get_position(): (text.get_text(), text.get_color()) for text in axes.texts}
    assert texts[0, 0] == ("0.75\n3", "white")  # on the dark shade of a large share
    assert texts[1, 0] == ("0.25\n1", "black")
    assert texts[0, 1] == ("0.00\n0", "black")
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["anger", "fear"]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["anger", "fear"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")
    assert axes.get_title() == "mine: accuracy 75.00%, N = 4"


@pytest.mark.parametrize(
    ("true", "taken_for", "share"), [("a", "b", 0.6667), ("a", "a", 0.3333), ("b", "a", 0.0), ("c", "a", 0.0)]
)
def test_the_share_that_is_taken_for_another(true: str, taken_for: str, share: float) -> None:
    confusion = np.array([[1, 2, 0], [0, 1, 0], [0, 0, 0]])
    assert figures.mistaken(confusion, ["a", "b", "c"], true, taken_for) == share


def test_pictures_that_stand_in_training_too_are_left_out_of_the_unseen() -> None:
    data = rows([E.ANGER, E.FEAR, E.FEAR, None], [None] * 4, unseen=[True, False, True, True])
    logits = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
    result = figures.evaluate_logits(logits, data, [Head("two", (E.ANGER, E.FEAR), 1.0)])
    assert result["two"]["confusion"] == [[1, 0], [1, 1]]
    assert result["two_unseen"]["confusion"] == [[1, 0], [0, 1]]
    assert figures.evaluate_logits(logits[3:], data[3:], [Head("two", (E.ANGER, E.FEAR), 1.0)]) == {}


def test_models_stand_side_by_side() -> None:
    heads = [Head("two", (E.ANGER, E.FEAR), 1.0)]
    data = rows([E.ANGER, E.FEAR, E.FEAR], [None] * 3, unseen=[True, False, True])
    good = figures.evaluate_logits(np.array([[1, 0], [0, 1], [0, 1]], np.float32), data, heads)
    worse = figures.evaluate_logits(np.array([[1, 0], [0, 1], [1, 0]], np.float32), data, heads)
    console = Console(record=True, width=120)
    console.print(figures.report({"float": good, "int8": worse}))
    lines = [" ".join(line.replace("│", " ").replace("┃", " ").split()) for line in console.export_text().splitlines()]
    assert "head pictures N float accuracy macro F1 int8 accuracy macro F1" in lines
    assert "two all 3 100.00% 1.000 66.67% 0.667" in lines
    assert "two not in Training 2 100.00% 1.000 50.00% 0.333" in lines
    assert "two recall: anger 100%, fear 50%" in lines
