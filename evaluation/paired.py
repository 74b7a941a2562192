"""Whether two models differ on the same images, and a table of several models on several data sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE
from rich.table import Table
from scipy.stats import binomtest


def mcnemar(truth: NDArray[np.int64], ours: NDArray[np.int64], theirs: NDArray[np.int64]) -> dict[str, Any]:
    """McNemar's exact test of equal accuracy (Psychometrika 12, 1947; Dietterich, Neural Comput. 10, 1998).

    It takes images for independent. Where a set has several of one person its p is too small: there the bootstrap of
    people (``evaluation.intervals.paired_bootstrap``) tells.

    Args:
        truth: int64 (n,).
        ours: answers of one model, int64 (n,).
        theirs: of another, of the same images.

    Returns:
        JSON-able: ``only_first`` and ``only_second``, how many images one alone has right, and ``p``, two-sided: the
        probability of a split at least as uneven if both were as good; 1 where they never differ.
    """
    first, second = ours == truth, theirs == truth
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    trials = only_first + only_second
    p = float(binomtest(only_second, trials, 0.5).pvalue) if trials else 1.0
    return {"only_first": only_first, "only_second": only_second, "p": p}


def in_words(test: dict[str, Any]) -> str:
    """A result of ``mcnemar`` for people."""
    p = "p < 0.0001" if test["p"] < 0.0001 else f"p = {test['p']:.4f}"
    alone = f"right alone on {test['only_second']:,} images, the other on {test['only_first']:,}"
    return f"{alone}; McNemar's exact test {p} (images taken for independent)"


def matrix(rows: Sequence[dict[str, Any]]) -> Table:
    """The cross-database matrix: a row a bundle, a column a labeling, "accuracy / mean recall" in per cent.

    Args:
        rows: of ``evaluation.protocols``: ``data``, ``task``, ``model``, ``accuracy``, ``mean_recall``, ``recall``.
    """
    columns = list(dict.fromkeys((row["data"], row["task"]) for row in rows))
    table = Table("model", title="Across data sets: accuracy / mean recall, in per cent", box=SIMPLE, pad_edge=False)
    for data, task in columns:
        table.add_column(f"{data}, {task}", justify="right")
    for model in dict.fromkeys(row["model"] for row in rows):
        cells = {(row["data"], row["task"]): row for row in rows if row["model"] == model}
        table.add_row(model, *(_cell(cells.get(column)) for column in columns))
    classes = {column: next(row for row in rows if (row["data"], row["task"]) == column) for column in columns}
    table.add_section()
    table.add_row("classes", *(str(sum(one is not None for one in row["recall"].values())) for row in classes.values()))
    return table


def _cell(row: dict[str, Any] | None) -> str:
    return "-" if row is None else f"{100 * row['accuracy']:.1f} / {100 * row['mean_recall']:.1f}"
