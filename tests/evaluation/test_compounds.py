"""Which compound a face shows and whether a device sees it, on tables made by hand and through the command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from labeled import labeled
from miniatures import MADE

from datasets import Dataset
from datasets.fer2013 import ferplus_labels
from edge_fer.core import Expression as E
from edge_fer.errors import DataError
from evaluation.__main__ import main
from evaluation.compounds import true_compounds, whether, which
from evaluation.device import Reports

FOUR = (E.NEUTRAL, E.HAPPINESS, E.SURPRISE, E.FEAR)


def reports(*rows: tuple[float, ...]) -> Reports:
    table = np.array(rows, np.float32)
    return Reports(FOUR, table, table.argmax(axis=1), np.zeros(len(table), np.bool_))


def test_votes_tell_compounds_where_there_are_no_labels() -> None:
    data = labeled([None] * 4, [E.HAPPINESS] * 4)
    votes = np.array(
        [
            [0, 5, 5, 0, 0, 0, 0, 0, 0, 0],  # 50 % each
            [0, 7, 3, 0, 0, 0, 0, 0, 0, 0],
            [0, 6, 2, 0, 0, 0, 0, 0, 2, 0],  # 20 % are too few
            [5, 5, 0, 0, 0, 0, 0, 0, 0, 0],  # neutral is no second expression
        ],
        np.float32,
    )
    data = data.replace(labels={"fer2013": data.labels["fer2013"], "ferplus": ferplus_labels(votes)})
    assert true_compounds(data).tolist() == ["happily surprised", "happily surprised", "", ""]
    own = np.array(["", "sadly fearful", "", ""])
    assert true_compounds(data.replace(compounds=own)).tolist() == own.tolist()
    with pytest.raises(DataError, match="neither labels of compound expressions nor raters' votes"):
        true_compounds(labeled([E.ANGER]))


def test_which_compound_is_the_pair_with_the_largest_product() -> None:
    truth = np.array(["happily surprised", "fearfully surprised", "fearfully surprised", "", "sadly angry"])
    told = which(
        truth,
        reports((0.5, 0.3, 0.2, 0.0), (0.7, 0.1, 0.1, 0.1), (0.1, 0.5, 0.3, 0.1), (1, 0, 0, 0), (0, 0.4, 0.3, 0.3)),
    )
    # The second is a tie, which goes to the first in the order of their names; the last is not of what is reported.
    assert told["n"] == 3 and list(told["recall"]) == ["happily surprised", "fearfully surprised"]
    assert told["confusion"] == [[1, 0], [2, 0]]
    assert (told["accuracy"], told["mean_recall"], told["chance"]) == (0.3333, 0.5, 0.6667)
    with pytest.raises(DataError, match="No image shows two expressions that the model reports"):
        which(np.array(["", "sadly angry"]), reports((1, 0, 0, 0), (1, 0, 0, 0)))
    with pytest.raises(DataError, match="All compounds are happily surprised"):
        which(np.array(["", "happily surprised"]), reports((1, 0, 0, 0), (1, 0, 0, 0)))


def test_whether_a_device_says_so() -> None:
    truth = np.array(["happily surprised", "happily surprised", "", ""])
    told = reports((0, 0.6, 0.4, 0), (0.0, 0.3, 0.35, 0.35), (0.2, 0.4, 0.4, 0), (0.9, 0.1, 0, 0))
    expected = {"least": 0.3, "said": 3, "precision": 0.3333, "recall": 0.5, "false": 0.5}
    assert whether(truth, told, 0.3) == expected
    nothing = whether(truth, told, 0.5)
    assert (nothing["said"], nothing["precision"], nothing["recall"], nothing["false"]) == (0, None, 0.0, 0.0)
    assert whether(truth[:2], reports((1, 0, 0, 0), (1, 0, 0, 0)), 0.3)["false"] is None
    assert whether(truth[2:], reports((1, 0, 0, 0), (1, 0, 0, 0)), 0.3)["recall"] is None


def test_the_command(tmp_path: Path, data: Path, call: Callable[..., Any]) -> None:
    MADE["raf-db-compound"](tmp_path / "compound")
    out = tmp_path / "out.json"
    done = call(main, "compounds", "--data", tmp_path / "compound", "--split", "PrivateTest", "--json", out)
    assert done.code == 0, done.err
    assert "compounds by labels: N = 2" in done.out and "disgustedly surprised" in done.out
    assert " ".join(done.out.split()).endswith("In brackets: 95 % intervals, bootstrap of 2,000 draws, seed 0.")
    written = json.loads(out.read_text())
    assert written["which"]["n"] == 2 and len(written["whether"]) == 6
    done = call(main, "compounds", "--data", data)
    assert done.code == 65 and done.err.count("\n") == 1 and "No image shows two expressions" in done.err


def test_a_set_of_neither(tmp_path: Path, call: Callable[..., Any]) -> None:
    MADE["ck+48"](tmp_path)
    done = call(main, "compounds", "--data", tmp_path)
    assert done.code == 65 and "neither labels of compound expressions nor" in done.err


def test_labels_and_votes_of_rows_stay_together() -> None:
    both = Dataset(
        np.zeros((2, 4, 4, 1), np.uint8), {}, np.zeros(2, np.bool_), compounds=np.array(["happily surprised", ""])
    )
    assert true_compounds(both[np.array([1])]).tolist() == [""]
