"""``python -m evaluation compounds``: two expressions at once, told from the calibrated probabilities of single ones.

python -m evaluation compounds --data ~/RAF-DB/compound --split PrivateTest --model accurate
python -m evaluation compounds --data ~/fer2013      faces on which FER+'s raters saw two expressions

Two questions are answered. Which compound is it, of those that the set has: the pair with the largest product of
probabilities. And does the device see that it is one: its rule (``edge_fer.compound``, the option ``model.compound``)
wants both above a threshold. Where a set has no compound labels but raters' votes, that rule, applied to the votes,
gives the truth: two expressions of at least 30 % of the raters each (Barsoum et al., arXiv 1608.01041).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

import datasets
from datasets import Dataset
from edge_fer.compound import COMPOUNDS, LEAST, compound_of
from edge_fer.errors import DataError
from edge_fer.model.bundle import Bundle
from edge_fer.model.classifier import TfliteClassifier
from evaluation.device import Reports, reports_of
from evaluation.intervals import DRAWS, SEED, bootstrap
from evaluation.metrics import metrics_of

THRESHOLDS = (0.15, 0.2, 0.25, LEAST, 0.35, 0.4)


def true_compounds(data: Dataset) -> NDArray[np.str_]:
    """The compound of each image, "" for none: texts (n,).

    Raises:
        DataError: the data set has neither compound labels nor votes.
    """
    if data.compounds is not None:
        return data.compounds
    rated = next((labels for labels in data.labels.values() if labels.votes is not None), None)
    if rated is None:
        raise DataError("The data set has neither labels of compound expressions nor raters' votes.")
    assert rated.votes is not None  # for mypy
    fractions = rated.votes / np.maximum(1, rated.votes.sum(axis=1, keepdims=True))
    rows = [dict(zip(rated.expressions, row, strict=False)) for row in fractions.tolist()]
    return np.array([compound_of(row) or "" for row in rows])


def which(truth: NDArray[np.str_], reports: Reports) -> dict[str, Any]:
    """Which compound it is, on the images that show one: metrics over the compounds that occur.

    Args:
        truth: texts (n,), "" for none.
        reports: of the n images.

    Returns:
        JSON-able: as ``evaluation.metrics.metrics_of``, with ``mean_recall``, ``intervals`` and ``chance`` (the
        accuracy of who always says the most frequent).

    Raises:
        DataError: no image shows a compound of expressions that the model reports, or all show the same.
    """
    classes = [name for pair, name in COMPOUNDS.items() if name in truth and pair <= set(reports.labels)]
    rows = np.flatnonzero(np.isin(truth, classes))
    if len(classes) < 2:
        shown = (
            f"All compounds are {classes[0]}" if classes else "No image shows two expressions that the model reports"
        )
        raise DataError(f"{shown}: which one it is cannot be measured.")
    places = {name: [reports.labels.index(one) for one in pair] for pair, name in COMPOUNDS.items() if name in classes}
    scores = np.stack([reports.probabilities[rows][:, places[name]].prod(axis=1) for name in classes], axis=1)
    codes = np.array([classes.index(one) for one in truth[rows]], np.int64)
    told = scores.argmax(axis=1).astype(np.int64)
    row = metrics_of(codes, told, classes)
    intervals = bootstrap(codes, told, np.zeros(len(rows), np.bool_), len(classes))
    recalls = [one for one in row["recall"].values() if one is not None]
    return {
        **row,
        "mean_recall": round(float(np.mean(recalls)), 4),
        "intervals": {name: intervals[name] for name in ("accuracy", "mean_recall")},
        "chance": round(float(np.bincount(codes).max() / len(codes)), 4),
    }


def whether(truth: NDArray[np.str_], reports: Reports, least: float) -> dict[str, Any]:
    """Whether the device's rule says that an image shows a compound.

    Args:
        truth: texts (n,), "" for none.
        reports: of the n images.
        least: the threshold of the rule.

    Returns:
        JSON-able: ``least``, ``said`` (how often it says one), ``precision`` (how many of these it names right; None
        where it says none), ``recall`` (how many compounds it names right; None without any), ``false`` (fraction of
        the images that show none, of which it says one; None without any).
    """
    rows = [dict(zip(reports.labels, row, strict=True)) for row in reports.probabilities.tolist()]
    said = np.array([compound_of(row, least) or "" for row in rows])
    right, shows, none = (said == truth) & (truth != ""), truth != "", truth == ""
    return {
        "least": least,
        "said": int((said != "").sum()),
        "precision": round(float(right.sum() / (said != "").sum()), 4) if (said != "").any() else None,
        "recall": round(float(right.sum() / shows.sum()), 4) if shows.any() else None,
        "false": round(float((said[none] != "").mean()), 4) if none.any() else None,
    }


def command(arguments: list[str]) -> None:
    """Measure and print.

    Raises:
        EdgeFerError: the data set or the bundle cannot be read, or no image shows a compound.
    """
    parser = argparse.ArgumentParser(
        prog="python -m evaluation compounds", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with the data set")
    parser.add_argument("--model", default="accurate", metavar="NAME", help="model, or a bundle's file (accurate)")
    parser.add_argument("--split", default="PublicTest", choices=["PublicTest", "PrivateTest"])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all metrics there too")
    args = parser.parse_args(arguments)
    classifier = TfliteClassifier(Bundle.load(args.model))
    data = datasets.load_test(args.data, args.split, classifier.size_hw)
    truth = true_compounds(data)
    reports = reports_of(classifier, data.images)
    told = which(truth, reports)
    rules = [whether(truth, reports, least) for least in THRESHOLDS]
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    name, source = classifier.bundle.metadata.name, "labels" if data.compounds is not None else "raters' votes"
    console.print(_which_table(told, f"{name} on {args.data.resolve().name}, compounds by {source}: N = {told['n']:,}"))
    accuracy, recall = (_with_interval(told, one) for one in ("accuracy", "mean_recall"))
    console.print(
        f"Which of {len(told['recall'])}: accuracy {accuracy}, mean recall {recall}; always the most frequent "
        f"one: {100 * told['chance']:.1f}."
    )
    console.print(_whether_table(rules, len(data)))
    console.print(f"In brackets: 95 % intervals, bootstrap of {DRAWS:,} draws, seed {SEED}.")
    if args.json:
        result = {"model": name, "which": told, "whether": rules}
        args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _which_table(told: dict[str, Any], title: str) -> Table:
    table = Table("compound", title=title, box=SIMPLE, pad_edge=False)
    for name in ("N", "recall", "most often told instead"):
        table.add_column(name, justify="right" if name != "most often told instead" else "left")
    for place, (name, counts) in enumerate(zip(told["recall"], told["confusion"], strict=True)):
        others = [count if other != place else -1 for other, count in enumerate(counts)]
        most = int(np.argmax(others))
        instead = f"{list(told['recall'])[most]} ({others[most]:,})" if others[most] > 0 else "-"
        table.add_row(name, f"{sum(counts):,}", f"{100 * (told['recall'][name] or 0):.1f}", instead)
    return table


def _whether_table(rules: Sequence[dict[str, Any]], n: int) -> Table:
    title = f"The device's rule: both expressions above a threshold, {n:,} images, in per cent"
    table = Table(title=title, box=SIMPLE, pad_edge=False)
    for name in ("threshold", "says one", "right of these", "of all compounds", "of images without one"):
        table.add_column(name, justify="right")
    for rule in rules:
        cells = ["-" if rule[name] is None else f"{100 * rule[name]:.1f}" for name in ("precision", "recall", "false")]
        table.add_row(f"{rule['least']:.2f}", f"{rule['said']:,}", *cells)
    return table


def _with_interval(row: dict[str, Any], name: str) -> str:
    low, high = row["intervals"][name]
    return f"{100 * row[name]:.1f} ({100 * low:.1f}-{100 * high:.1f})"
