"""What came out of the rows: a JSON line for each row and seed, written as soon as it is measured.

results.jsonl beside this file has those of the project, so that docs/survey.md can be made anew without training.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_fer.files import make_folder, write_atomically
from training.runs import read_lines

PROJECT = Path(__file__).parent / "results.jsonl"


@dataclass(frozen=True)
class Result:
    """A row with one seed, measured on PublicTest.

    Attributes:
        row: "pipeline/stage".
        seed: of weights, order and augmentation.
        test_sha256: hash of PublicTest: figures of other data are not compared.
        epochs: that were trained.
        parameters: of the network to export.
        mmac: millions of multiply-accumulates of its convolutions and dense layers.
        minutes: that it and what it was made from took.
        heads: "n", "accuracy" and "mean_recall", 0-1, by the heads that were trained.
        cross: of another data set: "data", its folder's name, "n", and "mean_recall" by head; None where there is none.
        int8: "accuracy" by head, or "refused", why it cannot be converted or run; None where it was not tried.
        edge_tpu: "operators", how many the int8 graph has, "mapped", how many come before the first that the list of
            the Edge TPU's operators speaks against, and "obstacle", that one; None where there is no int8 graph.
        against: "row" that it was held against, and by head "difference" in accuracy and "p" of McNemar's exact test;
            None where that row was not there.
    """

    row: str
    seed: int
    test_sha256: str
    epochs: int
    parameters: int
    mmac: float
    minutes: float
    heads: Mapping[str, Mapping[str, float]]
    cross: Mapping[str, Any] | None
    int8: Mapping[str, Any] | None
    edge_tpu: Mapping[str, Any] | None
    against: Mapping[str, Any] | None


def read_results(path: Path) -> list[Result]:
    """The lines of a file; see ``runs.read_lines``."""
    return read_lines(path, Result, "`python -m training survey` wrote: move it away")


def write_results(path: Path, results: Sequence[Result]) -> None:
    """Write a file whole.

    Raises:
        OSError: it cannot be written.
    """
    make_folder(path.parent)
    write_atomically(path, "".join(json.dumps(dataclasses.asdict(one)) + "\n" for one in results).encode())


def with_project(own: Sequence[Result], project: Sequence[Result]) -> list[Result]:
    """Own results, and the project's of rows that were not run here; own ones alone where they are of other data."""
    theirs = {one.row: one.test_sha256 for one in project}
    if any(theirs.get(one.row, one.test_sha256) != one.test_sha256 for one in own):
        return list(own)
    rows = {one.row for one in own}
    return [one for one in project if one.row not in rows] + list(own)
