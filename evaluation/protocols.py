"""``python -m evaluation protocols``: what a device would report on data sets that a model has never seen.

python -m evaluation protocols --data ~/fer2013 ~/CK+48 ~/faces --model accurate nano mine.tflite

A row for each bundle and labeling: what ``Recognizer`` reports of each image, held against the labels as far as the
model reports them, and a note where the bundle's lineage says that it learned from these very images or people. A data
set is one that ``python -m training`` takes, of which a test split is read, or a folder of class folders, of which all
is read; CK+48 is known by the names of its files.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn.metrics import recall_score

import datasets
from datasets import Dataset, Labels, labeled_like, truth_for
from edge_fer.config import DecisionKind
from edge_fer.core import Expression
from edge_fer.errors import DataError
from edge_fer.model.bundle import Bundle
from edge_fer.model.classifier import TfliteClassifier
from edge_fer.model.spec import Head
from evaluation.calibration import expected_calibration_error
from evaluation.ceiling import human_ceiling, in_words
from evaluation.device import Reports, reports_of
from evaluation.folds import add_frames
from evaluation.intervals import DRAWS, SEED, Interval, bootstrap, paired_bootstrap
from evaluation.metrics import metrics_of
from evaluation.paired import in_words as test_in_words
from evaluation.paired import matrix, mcnemar

FEW = 30
"""A note is made of a class with fewer images, as its recall is hardly known, and of fewer people, as a bootstrap's
intervals are then too narrow (Cameron, Gelbach & Miller, Rev. Econ. Stat. 90, 2008)."""


def row_of(data: Dataset, task: str, reports: Reports) -> dict[str, Any]:
    """The metrics of one bundle on one labeling.

    Args:
        data: n images.
        task: name of the labeling.
        reports: of the n images.

    Returns:
        JSON-able: ``n``, ``accuracy``, ``mean_recall`` (over the classes that have images), ``uncertain`` (fraction of
        the images), ``intervals`` of these three, ``accuracy_certain`` (of the images that are not uncertain; None if
        there are none), ``ece``, ``macro_f1``, ``recall``, ``confusion``, ``subjects`` (how many; None where the data
        set does not tell) and ``notes``: what cannot be measured.

    Raises:
        DataError: no image has a label that the model reports.
    """
    labeling, labels = data.labels[task], reports.labels
    truth = _truth(data, task, labels)
    known = truth >= 0
    if not known.any():
        theirs = ", ".join(labeling.expressions)
        raise DataError(f"No image has a label of {task} ({theirs}) that the model reports: nothing can be measured.")
    truth, reported, uncertain = truth[known], reports.reported[known], reports.uncertain[known]
    subjects = None if data.subjects is None else data.subjects[known]
    row = metrics_of(truth, reported, labels)
    recalls = [recall for recall in row["recall"].values() if recall is not None]
    certain = ~uncertain
    return {
        **row,
        "mean_recall": round(sum(recalls) / len(recalls), 4),
        "uncertain": round(float(uncertain.mean()), 4),
        "intervals": bootstrap(truth, reported, uncertain, len(labels), subjects),
        "accuracy_certain": round(float((truth == reported)[certain].mean()), 4) if certain.any() else None,
        "ece": round(expected_calibration_error(reports.probabilities[known], truth), 4),
        "subjects": None if subjects is None else len(np.unique(subjects)),
        "notes": list(_notes(labeling, labels, truth, subjects)),
    }


def difference_of(data: Dataset, task: str, first: Reports, second: Reports) -> dict[str, Any]:
    """How far one bundle lies above another, on the images whose label both report.

    Args:
        data: n images.
        task: name of the labeling.
        first: of the n images, by the one bundle.
        second: by the other.

    Returns:
        JSON-able: ``n``, ``accuracy`` and ``mean_recall`` of the second less that of the first, -1 to 1, their
        ``intervals``, and ``mcnemar``: a test of the accuracy.
    """
    labels = tuple(one for one in Expression if one in first.labels or one in second.labels)
    truths = [_truth(data, task, one.labels) for one in (first, second)]
    known = (truths[0] >= 0) & (truths[1] >= 0)
    truth = _truth(data, task, labels)[known]
    ours, theirs = (np.array([labels.index(one.labels[place]) for place in one.reported]) for one in (first, second))
    ours, theirs = ours[known], theirs[known]
    less, more = (recall_score(truth, one, labels=np.unique(truth), average="macro") for one in (ours, theirs))
    subjects = None if data.subjects is None else data.subjects[known]
    return {
        "n": int(known.sum()),
        "accuracy": round(float((theirs == truth).mean() - (ours == truth).mean()), 4),
        "mean_recall": round(float(more - less), 4),
        "intervals": paired_bootstrap(truth, ours, theirs, len(labels), subjects),
        "mcnemar": mcnemar(truth, ours, theirs),
    }


def _truth(data: Dataset, task: str, labels: tuple[Expression, ...]) -> NDArray[np.int64]:
    return truth_for(data.replace(labels={task: data.labels[task]}), Head(task, labels))


def _notes(
    labeling: Labels, labels: Sequence[Expression], truth: NDArray[np.int64], subjects: NDArray[np.str_] | None
) -> Iterator[str]:
    """What the images cannot tell of the model, and which of them were left out."""
    theirs = np.bincount(labeling.truth[labeling.truth >= 0], minlength=len(labeling.expressions)).tolist()
    unknown = [
        f"{one} ({count:,})"
        for one, count in zip(labeling.expressions, theirs, strict=True)
        if count and one not in labels
    ]
    if unknown:
        yield f"Left out, as the model does not report it: {', '.join(unknown)}."
    if without := int((labeling.truth < 0).sum()):
        yield f"Left out, as they have no label: {without:,} images."
    counts = dict(zip(labels, np.bincount(truth, minlength=len(labels)).tolist(), strict=True))
    if missing := [one for one, count in counts.items() if not count]:
        yield f"No images of {', '.join(missing)}: recall is not measured; as an answer it is wrong."
    if Expression.NEUTRAL in missing:
        yield "Without neutral faces nobody sees how often a face at rest is given an expression."
    if len(counts) - len(missing) == 1:
        yield "With one class alone nobody sees how often other expressions are taken for it."
    if few := [f"{one} ({count})" for one, count in counts.items() if 0 < count < FEW]:
        yield f"Fewer than {FEW} images, so that the recall is hardly known: {', '.join(few)}."
    if (drawn := len(truth if subjects is None else np.unique(subjects))) < FEW:
        units = "images" if subjects is None else "people"
        yield f"The intervals are too narrow, as they rest on {drawn} {units} alone."


def command(arguments: list[str]) -> None:
    """Measure and print.

    Raises:
        EdgeFerError: a data set or a bundle cannot be read, or the two have no label in common.
    """
    parser = argparse.ArgumentParser(
        prog="python -m evaluation protocols", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, nargs="+", required=True, metavar="DIR", help="folders with data sets")
    parser.add_argument(
        "--model",
        nargs="+",
        default=["accurate"],
        metavar="NAME",
        help="models of the package, or files of bundles (accurate)",
    )
    parser.add_argument(
        "--decision",
        default="balanced",
        choices=get_args(DecisionKind),
        help="the bundle's own rule (balanced), or its first head as it was trained",
    )
    parser.add_argument("--split", default="PublicTest", choices=["PublicTest", "PrivateTest"])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all metrics there too")
    add_frames(parser)
    args = parser.parse_args(arguments)
    classifiers = [TfliteClassifier(Bundle.load(model), decision=args.decision) for model in args.model]
    names = [one.bundle.metadata.name for one in classifiers]
    if len(set(names)) < len(names):
        names = args.model  # two versions of one model
    console, progress = Console(width=None if sys.stdout.isatty() else 120, highlight=False), Console(stderr=True)
    rows: list[dict[str, Any]] = []
    differences: list[dict[str, Any]] = []
    people = {}
    for folder in args.data:
        place = folder.resolve().name
        progress.print(f"Reading {folder} ...", highlight=False)
        how = (args.frames, not args.no_neutral)
        by_size = {one.size_hw: datasets.load_test(folder, args.split, one.size_hw, *how) for one in classifiers}
        reports = [reports_of(one, _tracked(by_size[one.size_hw], one.bundle, progress)) for one in classifiers]
        for task, labeling in by_size[classifiers[0].size_hw].labels.items():
            for name, classifier, report in zip(names, classifiers, reports, strict=True):
                data = by_size[classifier.size_hw]
                about = {"data": place, "task": task, "model": name}
                more = {"decision": classifier.decision, **seen_of(classifier.bundle, data)}
                rows.append({**about, **row_of(data, task, report), **more})
                if report is not reports[0]:
                    difference = difference_of(data, task, reports[0], report)
                    differences.append({**about, "against": names[0], **difference})
            if labeling.is_soft:
                people[f"{place}, {task}"] = human_ceiling(labeling)
    for row in rows:
        _print_confusion(row, console)
    console.print(_table(rows))
    if len({(row["data"], row["task"]) for row in rows}) > 1:
        console.print(matrix(rows))
    for one in differences:
        console.print(
            f"{one['data']}, {one['task']}: {one['model']} against {one['against']}, N = {one['n']:,}: accuracy "
            f"{_with_interval(one['accuracy'], one['intervals']['accuracy'], '+')}, mean recall "
            f"{_with_interval(one['mean_recall'], one['intervals']['mean_recall'], '+')}; "
            f"{test_in_words(one['mcnemar'])}."
        )
    for labels, ceiling in people.items():
        console.print(f"{labels}: {in_words(ceiling)}")
    console.print(
        f"In brackets: 95 % intervals, bootstrap of {DRAWS:,} draws, seed {SEED}. People are drawn where the data set "
        "names them, else images. If certain: accuracy where the device does not call its answer uncertain."
    )
    if any(row["seen"] or row["people_seen"] for row in rows):
        console.print("*: the bundle learned or was chosen from these images or people, as a note above says.")
    if args.json:
        results = {
            "rows": rows,
            "differences": differences,
            "people": {labels: vars(ceiling) for labels, ceiling in people.items()},
        }
        args.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def _tracked(data: Dataset, bundle: Bundle, console: Console) -> Iterator[NDArray[np.uint8]]:
    yield from track(
        data.images,
        f"{bundle.metadata.name}, {len(data):,} images",
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def seen_of(bundle: Bundle, data: Dataset) -> dict[str, Any]:
    """What a bundle learned or was chosen from, as far as its facts and their lineage tell.

    Returns:
        ``seen``: the name by which they call these very images, "Training", "PublicTest" or a folder's; None where they
        do not. ``people_seen``: how many of the people in the images it learned from; None where one of the two does
        not name them.
    """
    training = bundle.metadata.facts.get("training", {})
    stages = [training, *training.get("lineage", {}).values()]
    by_split = [stage.get("data_sha256", {}) for stage in stages]
    hashes = [item for one in by_split if isinstance(one, dict) for item in one.items()]  # cached logits have one alone
    # Of further faces those are hashed that all heads have a class for (``datasets.load``).
    ours = {data.sha256, labeled_like(data, bundle.metadata.heads).sha256}
    people = {one for stage in stages for names in stage.get("subjects", {}).values() for one in names}
    both = None if data.subjects is None or not people else len(people & set(data.subjects.tolist()))
    return {"seen": next((name for name, digest in hashes if digest in ours), None), "people_seen": both}


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    """A row a bundle and labeling. "if certain": accuracy where the device does not call its answer uncertain."""
    table = Table(
        "labels", "model", "decision", title="What the device reports, in per cent", box=SIMPLE, pad_edge=False
    )
    for name in ("N, people", "accuracy", "mean recall", "ECE", "uncertain", "if certain"):
        table.add_column(name, justify="right")
    for row in rows:
        certain = row["accuracy_certain"]
        table.add_row(
            f"{row['data']}, {row['task']}",
            f"{row['model']}{' *' if row['seen'] or row['people_seen'] else ''}",
            row["decision"],
            f"{row['n']:,}" if row["subjects"] is None else f"{row['n']:,}, {row['subjects']}",
            *(_with_interval(row[name], row["intervals"][name]) for name in ("accuracy", "mean_recall")),
            f"{100 * row['ece']:.1f}",
            _with_interval(row["uncertain"], row["intervals"]["uncertain"]),
            "-" if certain is None else f"{100 * certain:.1f}",
        )
    return table


def _with_interval(value: float, interval: Interval, sign: str = "") -> str:
    middle, low, high = (f"{100 * figure:{sign}.1f}" for figure in (value, *interval))
    return f"{middle} ({low}{' to ' if sign else '-'}{high})"


def _print_confusion(row: dict[str, Any], console: Console) -> None:
    """Images by label (rows) and answer (columns), and what has to be said of them."""
    table = Table(
        "label, answer", title=f"{row['model']} on {row['data']}, {row['task']}: N = {row['n']:,}", box=SIMPLE
    )
    for label in row["recall"]:
        table.add_column(label[:4], justify="right")
    table.add_column("recall", justify="right")
    for (label, recall), counts in zip(row["recall"].items(), row["confusion"], strict=True):
        if recall is not None:
            table.add_row(label, *map(str, counts), f"{recall:.1%}")
    console.print(table)
    notes = list(row["notes"])
    if row["seen"]:
        chosen = row["seen"] in ("PublicTest", "PrivateTest")
        notes.append(f"The bundle was {'chosen' if chosen else 'trained'} on these very images.")
    elif row["people_seen"]:
        notes.append(f"The bundle was trained on images of {row['people_seen']} of these {row['subjects']} people.")
    for note in notes:
        console.print(f"- {note}")
    console.print()
