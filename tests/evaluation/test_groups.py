"""Groups of people are compared with an interval, and only where it is known who is in them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from miniatures import MADE

from datasets import Dataset, Labels
from edge_fer.core import Expression as E
from edge_fer.errors import DataError, InputMissingError, UsageError
from evaluation.__main__ import main
from evaluation.device import Reports
from evaluation.groups import by_group, with_people
from evaluation.intervals import paired_bootstrap, unpaired_bootstrap

TWO = (E.NEUTRAL, E.ANGER)


def faces(groups: list[str], right: list[bool], subjects: list[str] | None = None) -> tuple[Dataset, Reports]:
    n = len(groups)
    truth = np.arange(n) % 2
    reported = np.where(right, truth, 1 - truth)
    data = Dataset(
        np.zeros((n, 8, 8, 1), np.uint8),
        {"t": Labels.single(TWO, truth)},
        np.zeros(n, np.bool_),
        None if subjects is None else np.array(subjects),
        attributes={"gender": np.array(groups)},
    )
    return data, Reports(TWO, np.eye(2, dtype=np.float32)[reported], reported, np.zeros(n, np.bool_))


def test_each_group_is_held_against_the_largest() -> None:
    data, reports = faces(["b"] * 4 + ["a"] * 6 + ["", "unsure"], [True, True, True, False] + [True] * 6 + [False] * 2)
    largest, other = by_group(data, "t", reports, "gender")
    assert (largest["group"], largest["n"], largest["accuracy"], largest["gap"]) == ("a", 6, 1.0, None)
    assert (other["group"], other["n"], other["accuracy"]) == ("b", 4, 0.75)
    assert other["gap"]["accuracy"] == -0.25
    low, high = other["gap"]["intervals"]["accuracy"]
    assert -1 <= low <= -0.25 <= high <= 0
    assert other["attribute"] == "gender" and json.dumps([largest, other])


def test_a_group_without_a_label_that_the_model_reports_is_left_out() -> None:
    data, reports = faces(["a", "a", "b"], [True, True, True])
    labels = data.labels["t"]
    unlabeled = Labels.single(labels.expressions, np.array([0, 1, -1]))
    assert [row["group"] for row in by_group(data.replace(labels={"t": unlabeled}), "t", reports, "gender")] == ["a"]


def test_people_are_drawn_and_not_their_images() -> None:
    right = [True] * 20 + [False] * 20 + [True] * 30
    groups = ["b"] * 40 + ["a"] * 30
    images, reports = faces(groups + ["a"] * 20, right + [True] * 20)
    people = images.replace(subjects=np.array([f"{group}{row // 20}" for row, group in enumerate(groups + ["a"] * 20)]))
    (_, alone), (_, together) = (by_group(data, "t", reports, "gender") for data in (images, people))
    widths = [row["gap"]["intervals"]["accuracy"] for row in (alone, together)]
    assert widths[1][1] - widths[1][0] > 2 * (widths[0][1] - widths[0][0])
    assert together["subjects"] == 2


def test_two_equal_parts_are_not_drawn_alike() -> None:
    """With one seed for both the draws would go together, and the interval would be none."""
    truth = np.zeros(40, np.int64)
    reported = np.arange(40) % 2
    interval = unpaired_bootstrap((truth, reported, None), (truth, reported, None), 2)["accuracy"]
    assert interval[0] < -0.1 and interval[1] > 0.1


def test_who_is_in_both_groups_is_drawn_once_for_both() -> None:
    """Forty people in two poses, each of whom is read alike in both: there is no gap, and nothing uncertain in it."""
    who = np.repeat([f"S{number:02d}" for number in range(40)], 10)
    right = (np.arange(400) // 10 % 3 > 0).tolist()
    data, reports = faces(["front"] * 400 + ["side"] * 400, right * 2, [*who, *who])
    (_, row) = by_group(data, "t", reports, "gender")
    assert row["gap"] == {
        **{"accuracy": 0.0, "mean_recall": 0.0},
        "intervals": {"accuracy": (0.0, 0.0), "mean_recall": (0.0, 0.0)},
    }


def test_people_in_both_groups_are_drawn_as_for_two_models() -> None:
    truth = np.tile(np.arange(2), 200)
    ours, theirs = np.where(np.arange(400) % 7 == 0, 1 - truth, truth), np.where(np.arange(400) % 5, truth, 1 - truth)
    who = np.char.mod("S%02d", np.arange(400) // 10)
    gap = unpaired_bootstrap((truth, ours, who), (truth, theirs, who), 2)
    together = paired_bootstrap(truth, ours, theirs, 2, who)
    for name, limits in gap.items():
        assert limits == pytest.approx(together[name], abs=0.01)
    # Half of the people are in one group alone: between drawn apart and drawn together.
    widths = []
    for shift in (0, 20, 40):
        other = np.char.mod("S%02d", np.arange(400) // 10 + shift)
        hard = (np.char.str_len(who) > 0) & (np.arange(400) // 10 % 2 == 0)
        answers = np.where(hard, 1 - truth, truth)
        low, high = unpaired_bootstrap((truth, answers, who), (truth, answers, other), 2)["accuracy"]
        widths.append(high - low)
    assert widths[0] == 0 < widths[1] < widths[2]


def test_what_people_are_is_joined_by_subject(tmp_path: Path) -> None:
    data, _ = faces(["", "", ""], [True] * 3, ["S1", "S2", "S1"])
    path = tmp_path / "people.csv"
    path.write_text("subject,gender,age\nS1,female,20-39\nS9,male,4-19\n")
    joined = with_people(data, path)
    assert joined.attributes["age"].tolist() == ["20-39", "", "20-39"]
    assert joined.attributes["gender"].tolist() == ["female", "", "female"]
    for text, sentence in (("who,gender\nS1,f\n", "has not the columns"), ("subject,gender\nX,f\n", "names nobody")):
        path.write_text(text)
        with pytest.raises(DataError, match=sentence):
            with_people(data, path)
    path.write_bytes("subject,name\nS1,M\u00fcller\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"people\.csv cannot be read as CSV in UTF-8"):
        with_people(data, path)
    path.write_text("subject,gender\n\nS1\nS2,male,more\n")
    assert with_people(data, path).attributes["gender"].tolist() == ["", "male", ""]
    with pytest.raises(InputMissingError, match="No file"):
        with_people(data, tmp_path / "nowhere.csv")
    with pytest.raises(UsageError, match="does not tell who"):
        with_people(data.replace(subjects=None), path)


def test_the_command(tmp_path: Path, call: Callable[..., Any]) -> None:
    MADE["raf-db"](tmp_path / "raf")
    out = tmp_path / "out.json"
    asked = ("groups", "--data", tmp_path / "raf" / "basic", "--split", "PrivateTest")
    done = call(main, *asked, "--json", out)
    assert done.code == 0, done.err
    assert [row["attribute"] for row in json.loads(out.read_text())["rows"]] == ["age", "gender", "race"]
    assert "Asian" in done.out and "1 *" in done.out
    done = call(main, *asked, "--by", "shoe size")
    assert done.code == 2 and "the data set has age, gender, race" in done.err
    MADE["ck+48"](tmp_path / "ck")
    done = call(main, "groups", "--data", tmp_path / "ck")
    assert done.code == 65 and "give --people" in done.err
    (tmp_path / "people.csv").write_text("subject,gender\nS010,female\nS011,male\n")
    done = call(main, "groups", "--data", tmp_path / "ck", "--people", tmp_path / "people.csv")
    assert done.code == 0 and "female" in done.out
