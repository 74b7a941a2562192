"""``python -m evaluation folds``: folds in which nobody is in training and test alike, and whether a split leaks.

python -m evaluation folds --data ~/CK+48 --k 10 --json folds.json
python -m evaluation folds --data ~/CK+48 --leave-one-out
python -m evaluation folds --data ~/my-faces --official      the data set's own splits: refused where they leak
python -m evaluation folds --data ~/CK+48 --check mine.json  folds of your own, as --json writes them: likewise
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold

import datasets
from datasets import Dataset
from datasets.leaks import near_duplicates, refuse_leaks
from datasets.reading import folds_in
from datasets.sequences import FRAMES
from edge_fer.errors import DataError, InputMissingError, UsageError

SEED = 0

Rows = NDArray[np.int64]


def groups_of(data: Dataset) -> Rows:
    """Images that have to stay together: of one person, of one sequence, or nearly the same.

    Returns:
        int64 (n,): the number of the group of each image.
    """
    links = [near_duplicates(data.images)]
    for names in (data.subjects, data.sequences):
        if names is not None:
            _, first, place = np.unique(names, return_index=True, return_inverse=True)
            links.append(np.stack([np.arange(len(data)), first[place]], axis=1))
    ends = np.concatenate(links)
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(len(data), len(data)))
    groups: Rows = connected_components(graph, directed=False)[1].astype(np.int64)
    return groups


def k_folds(data: Dataset, k: int) -> list[Rows]:
    """The test rows of each fold; all others are its training rows.

    Groups stay together, and each fold has about the data set's mix of the first labeling's classes
    (``sklearn.model_selection.StratifiedGroupKFold``).

    Args:
        data: n images.
        k: how many folds; 8 and 10 are usual for CK+ (Li & Deng, arXiv 1804.08348, section 3).

    Raises:
        UsageError: there are fewer groups than folds, no class with an image for each, or less than two folds.
    """
    groups = groups_of(data)
    truth = next(iter(data.labels.values())).truth
    most = min(len(np.unique(groups)), int(np.unique(truth, return_counts=True)[1].max()))
    if not 2 <= k <= most:
        raise UsageError(f"--k {k} cannot be: 2 folds are the least, and {most} have people and images of their own.")
    splitter = StratifiedGroupKFold(k, shuffle=True, random_state=SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with fewer images than folds: the table shows it
        return [test.astype(np.int64) for _, test in splitter.split(truth, truth, groups)]


def leave_one_subject_out(data: Dataset) -> list[Rows]:
    """The test rows of each fold, one person (with whoever shares an image with them) each.

    Raises:
        UsageError: the data set does not tell who is in its images, or there is one person alone.
    """
    if data.subjects is None:
        raise UsageError("The data set does not tell who is in its images: leave nobody out, use --k.")
    groups = groups_of(data)
    if groups.max() == 0:
        raise UsageError("There is one person alone: nobody is left to train on.")
    return [np.flatnonzero(groups == group) for group in range(int(groups.max()) + 1)]


def command(arguments: list[str]) -> None:
    """Split or check, and print.

    Raises:
        EdgeFerError: the data set cannot be read or split so, or its own splits leak.
    """
    parser = argparse.ArgumentParser(
        prog="python -m evaluation folds", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with the data set")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the test rows of each fold there")
    add_frames(parser)
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--k", type=int, help="so many folds")
    kind.add_argument("--leave-one-out", action="store_true", help="one fold for each person")
    kind.add_argument("--check", type=Path, metavar="FILE", help="check these test rows of each fold")
    kind.add_argument("--official", action="store_true", help="check the data set's own splits")
    args = parser.parse_args(arguments)
    if args.official:
        _check_official(args.data)
        return
    if datasets.has_splits(args.data):
        raise UsageError(f"{args.data} has splits of its own: folds are for what has none; --official checks them.")
    data = datasets.load_test(args.data, frames=args.frames, neutral=not args.no_neutral)
    if args.check:
        _check_folds(data, args.check)
        return
    folds = leave_one_subject_out(data) if args.leave_one_out else k_folds(data, args.k)
    Console(highlight=False).print(_table(data, folds))
    if args.json:
        args.json.write_text(json.dumps([fold.tolist() for fold in folds]) + "\n", encoding="utf-8")


def add_frames(parser: argparse.ArgumentParser) -> None:
    """The options that say which frames of sequences are taken."""
    parser.add_argument(
        "--frames",
        type=int,
        default=FRAMES,
        choices=range(1, 11),
        metavar="N",
        help=f"of each sequence: the last of CK+ and Oulu-CASIA, the middle of MMI and AFEW (1 to 10; {FRAMES})",
    )
    parser.add_argument("--no-neutral", action="store_true", help="take no first frames of sequences as neutral")


def _check_official(folder: Path) -> None:
    splits = datasets.load(folder)
    training = splits.pop("Training")
    for name, test in splits.items():
        if copies := int(test.also_in_training.sum()):
            print(f"{name}: {copies:,} images stand in Training too, byte for byte; there they are always left out.")
    for name, test in splits.items():
        refuse_leaks(training, test, ("Training", name))
        print(f"{name}: {len(test):,} images, nothing shared with the {len(training):,} of Training.")


def _check_folds(data: Dataset, path: Path) -> None:
    if not path.is_file():
        raise InputMissingError(f"No file {path}: --check wants a JSON list of the test rows of each fold.")
    for number, rows in enumerate(folds_in(path), 1):
        fold = np.array(rows, np.int64)
        if not len(fold) or len(np.unique(fold)) < len(fold) or fold.min() < 0 or fold.max() >= len(data):
            raise DataError(f"{path}, fold {number}: its rows should be 0 to {len(data) - 1:,}, each once.")
        rest = np.setdiff1d(np.arange(len(data)), fold)
        refuse_leaks(data[rest], data[fold], (f"Fold {number}'s training", "test"))
        print(f"Fold {number}: {len(fold):,} images, nothing shared with the other {len(rest):,}.")


def _table(data: Dataset, folds: list[Rows]) -> Table:
    labeling = next(iter(data.labels.values()))
    table = Table("fold", box=SIMPLE, title=f"{len(data):,} images: those of each fold's test")
    people = data.subjects is not None
    for name in (*(["people"] if people else []), "images", *(label[:4] for label in labeling.expressions)):
        table.add_column(name, justify="right")
    for number, fold in enumerate(folds, 1):
        counts = np.bincount(labeling.truth[fold], minlength=len(labeling.expressions))
        who = [] if data.subjects is None else [len(np.unique(data.subjects[fold]))]
        table.add_row(*(f"{count:,}" for count in (number, *who, len(fold), *counts)))
    return table
