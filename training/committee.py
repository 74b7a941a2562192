"""A hierarchical committee: members -> groups -> top, each level fused by a rule, the weights shown.

    python -m training committee --group runs/a runs/b --group runs/c runs/d --data ~/fer2013

Kim, Lee, Roh & Lee, "Hierarchical committee of deep CNNs with exponentially-weighted decision fusion for static facial
expression recognition", ICMI 2015, and Kim, Roh, Dong & Lee, J. Multimodal User Interfaces 10, 2016. On the first level
the members of a group are weighed by a power of their accuracy on validation data (``ensemble.va_expo_weights``); on
the upper level the groups are, or their majority, median or average counts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from datasets import truth_for
from edge_fer.errors import ConfigError, DataError, InputMissingError
from edge_fer.files import write_atomically
from edge_fer.model.spec import head_slices
from evaluation.decision import FOLDS, folds
from training import ensemble
from training.ensemble import Floats
from training.runs import load_data, load_for

Upper: TypeAlias = Literal["va-expo", "majority", "median", "average"]


@dataclass(frozen=True)
class Level:
    """How the parts of a level are fused.

    Attributes:
        weights: float (parts,), summing to 1; equal for rules without weights.
        exponent: q of the weights; None for rules without.
        rule: which.
    """

    weights: Floats
    exponent: float | None
    rule: Upper

    def fused(self, parts: Floats) -> Floats:
        """Probabilities (parts, n, classes) -> (n, classes)."""
        if self.rule == "majority":
            return ensemble.majority(parts)
        if self.rule == "median":
            return median(parts)
        return ensemble.weighted_average(parts, self.weights)


@dataclass(frozen=True)
class Committee:
    """A committee of three levels, fitted.

    Attributes:
        groups: members of each group, as places among all.
        levels: of each group; then the top's.
    """

    groups: tuple[tuple[int, ...], ...]
    levels: tuple[Level, ...]

    def group_answers(self, members: Floats) -> Floats:
        """Probabilities (members, n, classes) -> (groups, n, classes)."""
        levels = self.levels[:-1]
        return np.stack([level.fused(members[list(own)]) for own, level in zip(self.groups, levels, strict=True)])

    def answer(self, members: Floats) -> Floats:
        """Probabilities (members, n, classes) -> (n, classes)."""
        return self.levels[-1].fused(self.group_answers(members))


def median(parts: Floats) -> Floats:
    """The median of each class's probability, (parts, n, classes) -> (n, classes), brought to sum to 1."""
    middle = np.median(parts, axis=0)
    normalized: Floats = middle / np.maximum(middle.sum(axis=1, keepdims=True), 1e-12)
    return normalized


def level_of(parts: Floats, labels: NDArray[np.int64], rule: Upper) -> Level:
    """A level fitted to validation data.

    Args:
        parts: probabilities, (parts, n, classes).
        labels: (n,), -1 where a sample has none.
        rule: which.
    """
    if rule != "va-expo":
        return Level(np.full(len(parts), 1 / len(parts)), None, rule)
    known = labels >= 0
    accuracies = (parts[:, known].argmax(axis=2) == labels[known]).mean(axis=1)
    q = ensemble.best_exponent(parts, labels)
    return Level(ensemble.va_expo_weights(accuracies, q), q, rule)


def fit(members: Floats, labels: NDArray[np.int64], groups: Sequence[Sequence[int]], upper: Upper) -> Committee:
    """A committee fitted to validation data, from below.

    Args:
        members: probabilities, (members, n, classes).
        labels: (n,), -1 where a sample has none.
        groups: members of each group, as places among all.
        upper: how the groups are fused; members of a group are by VA-Expo-WA.
    """
    own = [level_of(members[list(group)], labels, "va-expo") for group in groups]
    answers = np.stack([level.fused(members[list(group)]) for level, group in zip(own, groups, strict=True)])
    top = level_of(answers, labels, upper)
    return Committee(tuple(tuple(group) for group in groups), (*own, top))


def cross_fitted(members: Floats, labels: NDArray[np.int64], groups: Sequence[Sequence[int]], upper: Upper) -> float:
    """Accuracy, 0-1, of committees on the samples that they were not fitted to: five folds.

    Args:
        members: probabilities, (members, n, classes).
        labels: (n,), no -1 in it; some class has as many samples as there are folds.
        groups: see ``fit``.
        upper: see ``fit``.
    """
    hits = np.zeros(len(labels), bool)
    for fitted_on, measured_on in folds(labels):
        committee = fit(members[:, fitted_on], labels[fitted_on], groups, upper)
        hits[measured_on] = committee.answer(members[:, measured_on]).argmax(axis=1) == labels[measured_on]
    return float(hits.mean())


def compare(groups: Sequence[Sequence[Path]], data_folder: Path, out: Path | None = None) -> list[dict[str, Any]]:
    """Fit a committee of runs on PublicTest by each upper rule.

    Args:
        groups: run folders of each group; all of one data recipe.
        data_folder: see ``datasets.load``.
        out: a JSON file to write; None for none.

    Returns:
        A row for each member, group and upper rule of each head: head, level, name, weight (None where it has none),
        accuracy (of members and groups on all of PublicTest; of a top cross-fitted), n.

    Raises:
        EdgeFerError: runs or data are not as they should be.
    """
    if len(groups) < 2:
        raise ConfigError("A committee of three levels has at least two groups: give --group again.")
    runs = [run for group in groups for run in group]
    if len(set(runs)) < len(runs):
        raise ConfigError("A run is in the committee twice: name each once.")
    for run in runs:
        if not (run / "run.json").is_file():
            raise InputMissingError(f"{run} is no finished run: it has no run.json.")
    test = load_data(data_folder, ensemble.data_recipe(runs).data)["PublicTest"]
    for head in test.heads:
        truth = truth_for(test, head)
        if np.bincount(truth[truth >= 0], minlength=1).max() < FOLDS:
            raise DataError(
                f"No class of {head.name} has {FOLDS} PublicTest samples: a committee is measured in {FOLDS} folds."
            )
    logits = [load_for(run / "model.keras", test).predict(test.images, batch_size=512, verbose=0) for run in runs]
    ends = np.cumsum([len(group) for group in groups])
    places = [range(end - len(group), end) for end, group in zip(ends.tolist(), groups, strict=True)]
    rows: list[dict[str, Any]] = []
    for head in test.heads:
        part = head_slices(test.heads)[head.name]
        truth = truth_for(test, head)
        members = ensemble.probabilities(logits, part)[:, truth >= 0]
        rows += _rows(head.name, members, truth[truth >= 0], places, [run.name for run in runs])
    if out:
        write_atomically(out, (json.dumps(rows, indent=2) + "\n").encode())
    return rows


def _rows(
    head: str, members: Floats, truth: NDArray[np.int64], groups: Sequence[Sequence[int]], names: Sequence[str]
) -> list[dict[str, Any]]:
    def row(level: str, name: str, accuracy: float, weight: float | None = None) -> dict[str, Any]:
        rounded = None if weight is None else round(float(weight), 4)
        return {
            "head": head,
            "level": level,
            "name": name,
            "weight": rounded,
            "accuracy": round(accuracy, 4),
            "n": len(truth),
        }

    def accuracy(answer: Floats) -> float:
        return float((answer.argmax(axis=1) == truth).mean())

    committee = fit(members, truth, groups, "va-expo")
    rows, answers = [], committee.group_answers(members)
    for number, (group, level) in enumerate(zip(groups, committee.levels[:-1], strict=True)):
        rows += [
            row("member", names[at], accuracy(members[at]), weight)
            for at, weight in zip(group, level.weights, strict=True)
        ]
        name = f"group {number + 1} (q = {level.exponent:g})"
        rows.append(row("group", name, accuracy(answers[number]), committee.levels[-1].weights[number]))
    everyone = [[at] for at in range(len(members))]
    rows.append(row("top", "all members, average", accuracy(members.mean(axis=0))))
    rows.append(row("top", "all members, va-expo", cross_fitted(members, truth, everyone, "va-expo")))
    rows += [row("top", rule, cross_fitted(members, truth, groups, rule)) for rule in get_args(Upper)]
    return rows


def table_of(rows: Sequence[dict[str, Any]]) -> Table:
    """The rows as a table for a terminal."""
    table = Table("head", "level", "", "weight", "accuracy", "N", title="Committee; tops are cross-fitted")
    for row in rows:
        weight = "" if row["weight"] is None else f"{row['weight']:.3f}"
        table.add_row(row["head"], row["level"], row["name"], weight, f"{row['accuracy']:.2%}", f"{row['n']:,}")
    return table
