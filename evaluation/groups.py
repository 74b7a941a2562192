"""``python -m evaluation groups``: what a device reports of each group of people, poses, lights or intensities.

python -m evaluation groups --data ~/RAF-DB --split PrivateTest --model accurate
python -m evaluation groups --data ~/KDEF --by yaw_deg gender
python -m evaluation groups --data ~/CK+ --people people.csv     columns: subject, and what people are ("gender")

The groups are those that the data set has, in its own words. A gap is held against the largest group, with an interval:
people are drawn where they are known, who is in both groups for both at once. Where a group has few people or images,
no gap can be told from chance.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

import datasets
from datasets import Dataset, truth_for
from datasets.reading import csv_rows
from edge_fer.errors import DataError, InputMissingError, UsageError
from edge_fer.model.bundle import Bundle
from edge_fer.model.classifier import TfliteClassifier
from edge_fer.model.spec import Head
from evaluation.device import Reports, reports_of
from evaluation.intervals import DRAWS, SEED, unpaired_bootstrap
from evaluation.protocols import FEW, row_of

_UNKNOWN = ("", "unsure", "unknown")


def by_group(data: Dataset, task: str, reports: Reports, attribute: str) -> list[dict[str, Any]]:
    """The metrics of each group, the largest first.

    Args:
        data: n images.
        task: name of the labeling.
        reports: of the n images.
        attribute: by which they are grouped; of whom it is not known is in no group.

    Returns:
        JSON-able: ``evaluation.protocols.row_of``, with ``attribute`` and ``group``; and ``gap``: how far it lies above
        the largest group in ``accuracy`` and ``mean_recall`` -1 to 1, with their ``intervals``; None for the largest.
    """
    truth = truth_for(data.replace(labels={task: data.labels[task]}), Head(task, reports.labels))
    values = data.attributes[attribute]
    sizes = Counter(value for value in values[truth >= 0].tolist() if value not in _UNKNOWN)
    result: list[dict[str, Any]] = []
    parts = []
    for group, _ in sorted(sizes.items(), key=lambda item: (-item[1], item[0])):
        rows = np.flatnonzero((values == group) & (truth >= 0))
        parts.append((truth[rows], reports.reported[rows], None if data.subjects is None else data.subjects[rows]))
        row = {"attribute": attribute, "group": group, **row_of(data[rows], task, _part(reports, rows)), "gap": None}
        if result:
            row["gap"] = {
                **{name: round(row[name] - result[0][name], 4) for name in ("accuracy", "mean_recall")},
                "intervals": unpaired_bootstrap(parts[0], parts[-1], len(reports.labels)),
            }
        result.append(row)
    return result


def with_people(data: Dataset, path: Path) -> Dataset:
    """The data set with what a CSV says of its people.

    Args:
        data: whose subjects are known.
        path: a CSV with a column ``subject``; the others are attributes.

    Raises:
        InputMissingError: there is no such file.
        DataError: it has no such column, or nobody of the data set.
        UsageError: the data set does not tell who is in its images.
    """
    if data.subjects is None:
        raise UsageError(f"The data set does not tell who is in its images: {path} cannot be joined to it.")
    if not path.is_file():
        raise InputMissingError(f"No file {path}: --people wants a CSV with the columns subject and, say, gender.")
    rows = csv_rows(path)
    columns = next(rows, (1, list[str]()))[1]
    if "subject" not in columns or len(columns) < 2:
        raise DataError(f"{path} has not the columns subject and one more.")
    people = [dict(zip(columns, row, strict=False)) for _, row in rows]
    known = {one.get("subject", ""): one for one in people}
    if not known.keys() & set(data.subjects.tolist()):
        raise DataError(
            f"{path} names nobody of the data set, whose people are called {data.subjects[0]} and the like."
        )
    more = {
        name: np.array([known.get(one, {}).get(name) or "" for one in data.subjects.tolist()])
        for name in columns
        if name != "subject"
    }
    return data.replace(attributes={**data.attributes, **more})


def _part(reports: Reports, rows: NDArray[np.int64]) -> Reports:
    return Reports(reports.labels, reports.probabilities[rows], reports.reported[rows], reports.uncertain[rows])


def command(arguments: list[str]) -> None:
    """Measure and print.

    Raises:
        EdgeFerError: the data set or the bundle cannot be read, or there are no groups.
    """
    parser = argparse.ArgumentParser(
        prog="python -m evaluation groups", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with the data set")
    parser.add_argument("--model", default="accurate", metavar="NAME", help="model, or a bundle's file (accurate)")
    parser.add_argument("--split", default="PublicTest", choices=["PublicTest", "PrivateTest"])
    parser.add_argument("--by", nargs="+", metavar="ATTRIBUTE", help="of the data set (all that it has)")
    parser.add_argument("--people", type=Path, metavar="CSV", help="what the people are, by subject")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all metrics there too")
    args = parser.parse_args(arguments)
    classifier = TfliteClassifier(Bundle.load(args.model))
    data = datasets.load_test(args.data, args.split, classifier.size_hw)
    if args.people:
        data = with_people(data, args.people)
    if not data.attributes:
        raise DataError(f"{args.data} says nothing of its people or images to group them by: give --people.")
    by = args.by or sorted(data.attributes)
    if unknown := [name for name in by if name not in data.attributes]:
        raise UsageError(f"--by {unknown[0]}: the data set has {', '.join(sorted(data.attributes))}.")
    reports = reports_of(classifier, data.images)
    task = next(iter(data.labels))
    rows = [row for name in by for row in by_group(data, task, reports, name)]
    if not rows:
        raise DataError(f"{args.data}: of no image with a label is known to which group it belongs.")
    name = classifier.bundle.metadata.name
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    console.print(_table(rows, f"{name} on {args.data.resolve().name}, {task}, in per cent"))
    console.print(
        f"In brackets: 95 % intervals, bootstrap of {DRAWS:,} draws, seed {SEED}. Gap: against the largest group. "
        f"*: fewer than {FEW} {'images' if data.subjects is None else 'people'}, so that the intervals are too narrow."
    )
    if args.json:
        args.json.write_text(json.dumps({"model": name, "task": task, "rows": rows}, indent=1) + "\n", encoding="utf-8")


def _table(rows: Sequence[dict[str, Any]], title: str) -> Table:
    table = Table("attribute", "group", title=title, box=SIMPLE, pad_edge=False)
    for name in ("N, people", "accuracy", "gap", "mean recall", "gap"):
        table.add_column(name, justify="right")
    for row in rows:
        people = "" if row["subjects"] is None else f", {row['subjects']}"
        few = " *" if (row["n"] if row["subjects"] is None else row["subjects"]) < FEW else ""
        cells = []
        for name in ("accuracy", "mean_recall"):
            cells += [_interval(row[name], row["intervals"][name], ""), "-"]
            if gap := row["gap"]:
                cells[-1] = _interval(gap[name], gap["intervals"][name], "+")
        table.add_row(row["attribute"], row["group"], f"{row['n']:,}{people}{few}", *cells)
    return table


def _interval(value: float, interval: Sequence[float], sign: str) -> str:
    middle, low, high = (f"{100 * figure:{sign}.1f}" for figure in (value, *interval))
    return f"{middle} ({low}{' to ' if sign else '-'}{high})"
