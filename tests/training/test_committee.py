"""A hierarchical committee: its weights and rules on tables by hand, and the command on runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faces_csv import write_csvs

from training import committee
from training.__main__ import main
from training.ensemble import EXPONENTS, va_expo_weights

LABELS = np.array([0, 0, 0, 0])
RIGHT, WRONG = [0.9, 0.1], [0.2, 0.8]


def members(*hits: str) -> np.ndarray:
    """Of each member a text: "x" where it is right, "." where not."""
    return np.array([[RIGHT if one == "x" else WRONG for one in member] for member in hits])


def test_the_median_leaves_an_outlier_out() -> None:
    parts = np.array([[[0.6, 0.3, 0.1]], [[0.5, 0.3, 0.2]], [[0.0, 0.0, 1.0]]])
    assert committee.median(parts)[0] == pytest.approx([0.5, 0.3, 0.2])
    # That of an even number is the mean of the two in the middle; what does not sum to 1 is brought to it.
    assert committee.median(parts[1:])[0] == pytest.approx(np.array([0.25, 0.15, 0.6]))


def test_each_level_has_weights_by_its_own_accuracies() -> None:
    """Groups of (3/4, 1/4) and (2/4, 2/4): members by their power, then groups by theirs."""
    table = members("xxx.", "x...", "xx..", "..xx")
    fitted = committee.fit(table, LABELS, [[0, 1], [2, 3]], "va-expo")
    first, second, top = fitted.levels
    assert first.exponent in EXPONENTS
    assert first.weights == pytest.approx(va_expo_weights(np.array([0.75, 0.25]), first.exponent or 0))
    assert second.weights == pytest.approx([0.5, 0.5])
    answers = fitted.group_answers(table)
    assert answers[0] == pytest.approx(np.tensordot(first.weights, table[:2], axes=1))
    accuracies = (answers.argmax(axis=2) == 0).mean(axis=1)
    assert top.weights == pytest.approx(va_expo_weights(accuracies, top.exponent or 0))
    assert fitted.answer(table) == pytest.approx(np.tensordot(top.weights, answers, axes=1))


@pytest.mark.parametrize(("upper", "first"), [("majority", 2 / 3), ("median", 0.9), ("average", 2 / 3)])
def test_upper_rules(upper: committee.Upper, first: float) -> None:
    table = members("x", "x", ".")
    fitted = committee.fit(table, LABELS[:1], [[0], [1], [2]], upper)
    expected = {"majority": 2 / 3, "median": 0.9, "average": (0.9 + 0.9 + 0.2) / 3}[upper]
    assert fitted.answer(table)[0, 0] == pytest.approx(expected)
    assert fitted.levels[-1].exponent is None
    assert first == pytest.approx(expected)


def test_what_is_measured_was_not_fitted_to() -> None:
    """Members that know nothing: a committee fitted and measured on the same samples would seem to know something."""
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 4
    table = rng.dirichlet(np.ones(4), (12, 200))
    groups = [range(6), range(6, 12)]
    seen = committee.fit(table, labels, groups, "va-expo").answer(table).argmax(axis=1) == labels
    assert committee.cross_fitted(table, labels, groups, "va-expo") < seen.mean()


@pytest.mark.trains
def test_a_committee_of_runs(call: Callable[..., Any], data: Path, runs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    done = call(main, "committee", "--group", runs[0], "--group", runs[1], "--data", data, "-o", out)
    assert done.code == 0, done.err
    rows = [row for row in json.loads(out.read_text()) if row["head"] == "fer2013"]
    assert [row["name"] for row in rows if row["level"] == "member"] == ["tiny1", "tiny2"]
    assert sum(row["weight"] for row in rows if row["level"] == "group") == pytest.approx(1, abs=1e-3)
    assert {row["name"] for row in rows if row["level"] == "top"} >= {"va-expo", "majority", "median", "average"}
    one = call(main, "committee", "--group", runs[0], runs[1], "--data", data)
    assert (one.code, "at least two groups" in one.err) == (78, True)
    twice = call(main, "committee", "--group", runs[0], "--group", runs[0], "--data", data)
    assert (twice.code, "twice" in twice.err) == (78, True)
    none = call(main, "committee", "--group", runs[0], "--group", tmp_path, "--data", data)
    assert (none.code, "no finished run" in none.err) == (66, True)


@pytest.mark.trains
def test_what_cannot_be_measured_in_folds_is_refused(
    call: Callable[..., Any], unrated: Path, runs: list[Path], tmp_path: Path
) -> None:
    write_csvs(tmp_path, public=35)  # five of each class
    groups = ("--group", runs[0], "--group", runs[1])
    assert call(main, "committee", *groups, "--data", tmp_path).code == 0
    write_csvs(tmp_path, public=28)
    for folder in (tmp_path, unrated):
        refused = call(main, "committee", *groups, "--data", folder)
        assert (refused.code, refused.err.count("\n")) == (65, 1)
        assert "No class of ferplus has 5 PublicTest samples" in refused.err
