"""Losses against closed forms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_fer.core import Expression
from edge_fer.errors import DataError
from evaluation import datasets
from training import models
from training.__main__ import main
from training.losses import TwoHeadLoss, class_balance, targets, with_teacher
from training.recipe import ClassBalanceRecipe

LOGITS = np.random.default_rng(0).normal(size=(4, 15)).astype(np.float32)
LABELS = np.zeros((4, 17), np.float32)  # classes 0-3 of each head, all known
LABELS[np.arange(4), np.arange(4)] = LABELS[np.arange(4), 9 + np.arange(4)] = 1
LABELS[:, [8, 16]] = 1


def cross_entropy(logits: NDArray[np.float32], one_hot: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.log(np.exp(logits).sum(axis=1)) - (logits * one_hot).sum(axis=1)


HEADS = cross_entropy(LOGITS[:, :8], LABELS[:, :8]), cross_entropy(LOGITS[:, 8:], LABELS[:, 9:16])


def test_the_loss_is_the_cross_entropy_of_both_heads() -> None:
    logits = np.log(np.array([[*[1 / 8] * 8, *[1 / 7] * 7]], np.float32))
    votes = [0.5, 0.5, 0, 0, 0, 0, 0, 0]
    one_hot = [1, 0, 0, 0, 0, 0, 0]
    both = TwoHeadLoss(ferplus_weight=2.0)(np.array([[*votes, 1, *one_hot, 1]], np.float32), logits)
    assert float(both) == pytest.approx(2 * np.log(8) + np.log(7), rel=1e-4)
    one = TwoHeadLoss(ferplus_weight=2.0)(np.array([[*votes, 0, *one_hot, 1]], np.float32), logits)
    assert float(one) == pytest.approx(np.log(7), rel=1e-4)


def test_targets(data: Path) -> None:
    labels = targets(datasets.load(data)["Training"], label_smoothing=0.7)
    assert labels.shape == (140, 17)
    anger = list(models.HEADS[0].labels).index(Expression.ANGER)
    assert labels[0, :8].tolist() == [1.0 if place == anger else 0.0 for place in range(8)]
    assert labels[0, 9:16] == pytest.approx([0.4, *[0.1] * 6])
    assert labels[:, [8, 16]].min() == 1


# Mixup


def test_the_loss_of_mixed_images_is_that_of_mixed_labels_and_teachers(chance: np.random.Generator) -> None:
    lam = np.array([[0.9], [0.3], [0.6], [0.2]], np.float32)
    mixed = lam * LABELS + (1 - lam) * LABELS[::-1]
    expected = (cross_entropy(LOGITS[:, :8], mixed[:, :8]) + cross_entropy(LOGITS[:, 8:], mixed[:, 9:16])).mean()
    loss = TwoHeadLoss(1.0, mixup=True)(LABELS, np.column_stack([LOGITS, lam]))
    assert float(loss) == pytest.approx(expected, rel=1e-4)
    teacher = chance.normal(size=(4, 15)).astype(np.float32)
    chance = np.exp(teacher[:, :8]) / np.exp(teacher[:, :8]).sum(axis=1, keepdims=True)
    other = np.exp(teacher[:, 8:]) / np.exp(teacher[:, 8:]).sum(axis=1, keepdims=True)
    chance, other = (lam * one + (1 - lam) * one[::-1] for one in (chance, other))
    expected = (cross_entropy(LOGITS[:, :8], chance) + cross_entropy(LOGITS[:, 8:], other)).mean()
    loss = TwoHeadLoss(1.0, 1.0, 1.0, mixup=True)(with_teacher(LABELS, teacher), np.column_stack([LOGITS, lam]))
    assert float(loss) == pytest.approx(expected, rel=1e-4)


# Rare classes


def faces(fer2013: list[int], votes: list[int]) -> datasets.Dataset:
    """Samples of those classes; ten raters agree on each."""
    counts = np.zeros((len(votes), 10), np.float32)
    counts[np.arange(len(votes)), votes] = 10
    no = np.zeros(len(votes), np.bool_)
    return datasets.Dataset(np.zeros((len(votes), 48, 48, 1), np.uint8), np.array(fer2013), counts, no)


SAMPLES = faces([*range(7), 3], [*range(8)])  # class 3 of FER2013 stands twice, all of FER+ once


def test_logit_adjustment_adds_the_logarithm_of_the_priors() -> None:
    settings = class_balance(ClassBalanceRecipe("logit_adjustment", tau=2.0), SAMPLES)
    priors = np.array([1 / 8] * 8 + [1 / 8] * 3 + [2 / 8] + [1 / 8] * 3)
    assert settings == {"logit_offsets": pytest.approx(2 * np.log(priors))}
    changed = LOGITS + 2 * np.log(priors)
    expected = (cross_entropy(changed[:, :8], LABELS[:, :8]) + cross_entropy(changed[:, 8:], LABELS[:, 9:16])).mean()
    assert float(TwoHeadLoss(1.0, **settings)(LABELS, LOGITS)) == pytest.approx(expected, rel=1e-4)


def test_the_effective_number_weighs_samples() -> None:
    settings = class_balance(ClassBalanceRecipe("effective_number", beta=0.5), SAMPLES)
    raw = np.array([1, 1, 1, 0.5 / 0.75, 1, 1, 1])
    weights = raw / raw.mean()
    assert settings == {"class_weights": pytest.approx([*[1.0] * 8, *weights])}
    expected = (HEADS[0] + HEADS[1] * weights[:4]).mean()
    assert float(TwoHeadLoss(1.0, **settings)(LABELS, LOGITS)) == pytest.approx(expected, rel=1e-4)


def test_an_empty_class_cannot_be_balanced(
    data: Path, recipe: Callable[..., Path], call: Callable[..., Any], tmp_path: Path
) -> None:
    assert class_balance(ClassBalanceRecipe(), SAMPLES[:3]) == {}
    with pytest.raises(DataError, match="No Training sample is surprise"):
        class_balance(ClassBalanceRecipe("logit_adjustment"), SAMPLES[np.array([0, 1, 3, 4, 5, 6, 7])])
    path, run = recipe({"class_balance.kind": "effective_number"}), tmp_path / "run"
    refused = call(main, "train", "--recipe", path, "--data", data, "--run", run)
    assert refused.code == 65
    assert "No Training sample is contempt (ferplus)" in refused.err.replace("\n", " ")
    assert not run.exists()


# Center and island loss, auxiliary heads


def test_the_center_loss_is_half_the_distance_to_the_own_center() -> None:
    distances = np.arange(28, dtype=np.float32).reshape(4, 7)
    outputs = np.column_stack([LOGITS, distances, np.full(4, 6.0, np.float32)])
    plain, known = (HEADS[0] + HEADS[1]).mean(), LABELS.copy()
    own = np.array([0, 8, 16, 24])
    loss = float(TwoHeadLoss(1.0, center=0.1, island=10.0)(LABELS, outputs))
    assert loss == pytest.approx(plain + 0.1 * (own.mean() / 2 + 10 * 6), rel=1e-4)
    known[3, 16] = 0  # has no FER2013 label
    loss = float(TwoHeadLoss(1.0, center=0.1)(known, outputs))
    expected = (HEADS[0].sum() + HEADS[1][:3].sum() + 0.1 * own[:3].sum() / 2) / 4
    assert loss == pytest.approx(expected, rel=1e-4)


def test_every_head_has_its_loss() -> None:
    outputs = np.column_stack([LOGITS, np.zeros((4, 30), np.float32)])
    expected = (HEADS[0] + HEADS[1]).mean() + 0.3 * 2 * (np.log(8) + np.log(7))
    assert float(TwoHeadLoss(1.0, auxiliary_heads=0.3)(LABELS, outputs)) == pytest.approx(expected, rel=1e-4)
