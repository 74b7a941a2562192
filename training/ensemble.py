"""A teacher ensemble, fused by the survey's rules. It predicts the very image that a student sees: online distillation.

What it predicts can be cached for students, too: ``cached_logits``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from datasets import Dataset
from datasets.core import truth_for
from edge_fer.errors import ConfigError, DataError
from edge_fer.model.spec import Head, head_slices
from training import models
from training.recipe import Recipe, load_recipe
from training.runs import load_for, sha256_of

Floats = NDArray[np.float64]

EXPONENTS = np.round(np.arange(-50, 150.05, 0.1), 1)
"""Candidates for q of ``va_expo_weights``, as the method's authors searched them."""
LEAST = 1e-7
"""Probabilities below are taken for this, so that their logarithm is finite in float16."""


def majority(members: Floats) -> Floats:
    """Fraction of the members that vote for each class.

    Args:
        members: probabilities, (members, n, classes).

    Returns:
        (n, classes). A tie is a tie: ``argmax`` then takes the first class.
    """
    votes: Floats = np.eye(members.shape[2])[members.argmax(axis=2)].mean(axis=0)
    return votes


def weighted_average(members: Floats, weights: Floats) -> Floats:
    """Mean of the members' probabilities (members, n, classes) by weights (members,) that sum to 1: (n, classes)."""
    mean: Floats = np.tensordot(weights, members, axes=1)
    return mean


def va_expo_weights(accuracies: Floats, q: float) -> Floats:
    """Weights acc_i^q / sum acc_j^q, float (members,): the exponentially-weighted average by validation accuracy.

    Kim et al., "Hierarchical committee of deep convolutional neural networks for robust facial expression recognition",
    J. Multimodal User Interfaces 2016, VA-Expo-WA.
    """
    # From the largest power down, so that none overflows.
    powers = q * np.log(np.maximum(accuracies, 1e-9))
    weights: Floats = np.exp(powers - powers.max())
    return weights / weights.sum()


def best_exponent(members: Floats, labels: NDArray[np.int64]) -> float:
    """The q of ``va_expo_weights`` whose ensemble is right most often; of equals the one nearest to 0.

    Args:
        members: probabilities, (members, n, classes).
        labels: (n,), -1 where a sample has none; one has one.
    """
    members, labels = members[:, labels >= 0], labels[labels >= 0]
    accuracies = (members.argmax(axis=2) == labels).mean(axis=1)

    def hits(q: float) -> int:
        fused = weighted_average(members, va_expo_weights(accuracies, q))
        return int((fused.argmax(axis=1) == labels).sum())

    best: float = min(EXPONENTS.tolist(), key=lambda q: (-hits(q), abs(q)))
    return best


@keras.saving.register_keras_serializable("edge_fer")
class TeacherEnsemble(keras.layers.Layer):
    """What teachers predict together: images (n, 48, 48, 1) -> log-probabilities (n, classes). They do not learn.

    Args:
        members: the teachers.
        slices: where the logits of each head stand.
        weights: of each teacher in the mean of their probabilities, by head: (members,) that sum to 1.
    """

    def __init__(
        self, members: Sequence[keras.Model], slices: Mapping[str, slice], weights: Mapping[str, Floats], **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.members = list(members)
        self.parts = list(slices.values())
        for member in self.members:
            member.trainable = False  # of each by itself: a network gathers its weights past the layers between
        # A variable and not a constant, so that a compiled program serves for other weights too.
        self.by_head = self.add_weight(shape=(len(weights), len(members)), trainable=False, name="by_head")
        self.by_head.assign(list(weights.values()))

    def get_config(self) -> dict[str, Any]:
        # A checkpoint keeps the numbers alone: who goes on gathers the same teachers.
        return {**super().get_config(), "members": len(self.members)}

    def call(self, images: Any) -> Any:
        logits = keras.ops.stack([member(images, training=False) for member in self.members])
        columns = []
        for place, part in enumerate(self.parts):
            weights = keras.ops.reshape(self.by_head[place], (-1, 1, 1))
            columns.append(keras.ops.sum(weights * keras.ops.softmax(logits[:, :, part]), axis=0))
        return keras.ops.log(keras.ops.maximum(keras.ops.concatenate(columns, axis=1), LEAST))


def gather(runs: list[Path], recipe: Recipe, validation: Dataset) -> tuple[TeacherEnsemble, dict[str, Any]]:
    """An ensemble for online distillation, and what is known of it; prints how good each rule of fusion is.

    Args:
        runs: folders of ``python -m training train``.
        recipe: the student's, whose samples and precision are the teachers' too.
        validation: PublicTest, for the weights of VA-Expo-WA.

    Raises:
        EdgeFerError: a teacher is not as it should be.
    """
    theirs, ours = (
        dataclasses.replace(one.data, further="", further_times=1, further_alone=False, unlabeled="")
        for one in (data_recipe(runs), recipe)
    )
    if theirs != ours:
        raise ConfigError(f"The teachers saw other samples than {recipe.name}: the recipes differ in [data].")
    networks = [load_for(run / "model.keras", validation) for run in runs]
    logits = [network.predict(validation.images, batch_size=256, verbose=0) for network in networks]
    table, weights = measure(runs, logits, validation)
    Console(stderr=True).print(table)
    members = [models.in_precision(network, recipe.precision) for network in networks]
    facts = {
        "teachers": {run.name: sha256_of(run / "model.keras") for run in runs},
        "weights": {head: [round(float(one), 4) for one in each] for head, each in weights.items()},
    }
    return TeacherEnsemble(members, head_slices(validation.heads), weights, name="teachers"), facts


def data_recipe(teachers: list[Path]) -> Recipe:
    """The recipe of the first, whose data is that of all."""
    recipes = [load_recipe(run / "recipe.toml") for run in teachers]
    if any(recipe.data != recipes[0].data for recipe in recipes):
        raise ConfigError("The teachers saw different samples: their recipes differ in [data].")
    return recipes[0]


def fused(logits: list[NDArray[np.float32]], of: Sequence[Head], rule: Callable[[str, Floats], Floats]) -> Floats:
    """What an ensemble predicts for each image, all heads side by side: probabilities (n, classes)."""
    heads = head_slices(of).items()
    return np.column_stack([rule(head, probabilities(logits, part)) for head, part in heads])


def probabilities(logits: list[NDArray[np.float32]], part: slice) -> Floats:
    """Of the members on one head, (members, n, classes), from the logits of all heads, (n, logits) of each member."""
    members = np.stack(logits)[:, :, part].astype(np.float64)
    powers = np.exp(members - members.max(axis=2, keepdims=True))
    normalized: Floats = powers / powers.sum(axis=2, keepdims=True)
    return normalized


def measure(
    teachers: list[Path], logits: list[NDArray[np.float32]], validation: Dataset
) -> tuple[Table, dict[str, Floats]]:
    """Accuracy of each teacher and of each rule on PublicTest, and the weights of VA-Expo-WA by head.

    Raises:
        DataError: no PublicTest sample has a label of a head.
    """
    table = Table("PublicTest", *(head.name for head in validation.heads), title="Teachers, and how they are fused")
    members = {h: probabilities(logits, part) for h, part in head_slices(validation.heads).items()}
    labels = {head.name: truth_for(validation, head) for head in validation.heads}
    accuracies, weights, exponents = {}, {}, {}
    for head in members:
        known = labels[head] >= 0
        if not known.any():
            raise DataError(f"No PublicTest sample has a label of {head}: the teachers cannot be weighed.")
        accuracies[head] = (members[head][:, known].argmax(axis=2) == labels[head][known]).mean(axis=1)
        exponents[head] = best_exponent(members[head], labels[head])
        weights[head] = va_expo_weights(accuracies[head], exponents[head])
    for place, run in enumerate(teachers):
        table.add_row(run.name, *(f"{accuracies[head][place]:.2%}" for head in members))
    equal = np.full(len(teachers), 1 / len(teachers))
    rules: dict[str, Callable[[str], Floats]] = {
        "majority": lambda head: majority(members[head]),
        "score averaging": lambda head: weighted_average(members[head], equal),
        "weighted by accuracy": lambda head: weighted_average(members[head], va_expo_weights(accuracies[head], 1.0)),
        "VA-Expo-WA": lambda head: weighted_average(members[head], weights[head]),
    }
    for name, rule in rules.items():
        cells = []
        for head in members:
            known = labels[head] >= 0
            accuracy = (rule(head).argmax(axis=1)[known] == labels[head][known]).mean()
            cells.append(f"{accuracy:.2%}" + (f" (q = {exponents[head]})" if name == "VA-Expo-WA" else ""))
        table.add_row(name, *cells)
    return table, weights
