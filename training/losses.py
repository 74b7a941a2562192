"""What training minimizes: cross entropy on both heads, and what a recipe adds to it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from edge_fer.errors import DataError
from edge_fer.model.spec import head_slices
from evaluation.datasets import FER2013_LABELS, Dataset
from training import models
from training.recipe import ClassBalanceRecipe


@keras.saving.register_keras_serializable("edge_fer")
class TwoHeadLoss(keras.losses.Loss):
    """Cross entropy of both heads: FER2013 with smoothed labels, FER+ with votes as soft targets.

    The FER+ loss is that of Barsoum et al., arXiv 1608.01041, eq. 4. With a teacher, each head's loss is
    (1 - a) * cross entropy with the labels + a * T^2 * cross entropy with the teacher, both softened by T (Hinton et
    al., arXiv 1503.02531, section 2).

    Targets are what ``targets`` and ``with_teacher`` make. Outputs are logits and, in this order, what
    ``models.with_extras``, ``ensemble.TeacherEnsemble`` and ``augmentation.Mixup`` put behind them.

    The center loss is half the squared distance of an embedding to the center of its FER2013 class (Wen et al., ECCV
    2016, eq. 2), as a mean over the batch; the island loss adds the cosines between the centers, each plus 1, over all
    ordered pairs (Cai et al., arXiv 1710.03144, eq. 6). Here the centers learn by gradient, as weights do.

    Args:
        ferplus_weight: of the FER+ head's loss; the FER2013 head's is 1.
        distill_weight: a, the weight of the soft targets; 0 for training without a teacher.
        distill_temperature: T.
        class_weights: of the samples of each class in the cross entropy with the labels, by logit; None for 1.
        logit_offsets: added to the logits in training, by logit; None for 0.
        auxiliary_heads: weight of the logits of each auxiliary head (deep supervision).
        center: weight of the center loss; over 0 where the outputs have the columns of ``models.ClassCenters``.
        island: weight of the pairs in it.
        online: whether the teacher's logits are among the outputs (online distillation), and not behind the targets.
        mixup: whether the last column holds the lambda of ``augmentation.Mixup``.
    """

    def __init__(
        self,
        ferplus_weight: float,
        distill_weight: float = 0.0,
        distill_temperature: float = 1.0,
        class_weights: list[float] | None = None,
        logit_offsets: list[float] | None = None,
        auxiliary_heads: float = 0.0,
        center: float = 0.0,
        island: float = 0.0,
        online: bool = False,
        mixup: bool = False,
        name: str = "two_heads",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.settings = {
            "ferplus_weight": ferplus_weight,
            "distill_weight": distill_weight,
            "distill_temperature": distill_temperature,
            "class_weights": class_weights,
            "logit_offsets": logit_offsets,
            "auxiliary_heads": auxiliary_heads,
            "center": center,
            "island": island,
            "online": online,
            "mixup": mixup,
        }

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.settings}

    def call(self, y_true: Any, y_pred: Any) -> Any:
        if not self.settings["mixup"]:
            return self._of_samples(y_true, y_pred)
        y_pred, lam = y_pred[:, :-1], y_pred[:, -1]
        return lam * self._of_samples(y_true, y_pred) + (1 - lam) * self._of_samples(ops.flip(y_true, axis=0), y_pred)

    def _of_samples(self, y_true: Any, y_pred: Any) -> Any:
        if self.settings["online"]:  # of the mixed image: its soft targets are no sample's alone
            y_true = ops.concatenate([y_true, y_pred[:, -models.LOGITS :]], axis=1)
            y_pred = y_pred[:, : -models.LOGITS]
        total = self._of_heads(y_true, y_pred[:, : models.LOGITS])
        centers = FER2013_CLASSES + 1 if self.settings["center"] else 0
        for start in range(models.LOGITS, y_pred.shape[1] - centers, models.LOGITS):
            total += self.settings["auxiliary_heads"] * self._of_heads(y_true, y_pred[:, start : start + models.LOGITS])
        if centers:
            total += self.settings["center"] * self._of_centers(y_true, y_pred[:, -centers:])
        return total

    def _of_centers(self, y_true: Any, columns: Any) -> Any:
        one_hot = y_true[:, TARGETS - 1 - FER2013_CLASSES : TARGETS - 1]
        known = y_true[:, TARGETS - 1]
        own = ops.one_hot(ops.argmax(one_hot, axis=1), FER2013_CLASSES)  # smoothed labels have their own class too
        return known * ops.sum(own * columns[:, :-1], axis=1) / 2 + self.settings["island"] * columns[:, -1]

    def _of_heads(self, y_true: Any, y_pred: Any) -> Any:
        distill, temperature = self.settings["distill_weight"], self.settings["distill_temperature"]
        weights, offsets = self.settings["class_weights"], self.settings["logit_offsets"]
        if offsets:
            y_pred += ops.convert_to_tensor(offsets, "float32")
        slices = head_slices(models.HEADS)
        total, start = 0.0, 0
        for head, part in slices.items():
            width = part.stop - part.start
            target, known = y_true[:, start : start + width], y_true[:, start + width]
            start += width + 1
            loss = known * _cross_entropy(target, y_pred[:, part])
            if weights:
                loss *= ops.sum(target * ops.convert_to_tensor(weights[part], "float32"), axis=1)
            if distill:
                teacher = y_true[:, TARGETS:][:, part]
                soft = _cross_entropy(ops.softmax(teacher / temperature), y_pred[:, part] / temperature)
                loss = (1 - distill) * loss + distill * temperature**2 * soft
            total += loss * (self.settings["ferplus_weight"] if head == "ferplus" else 1.0)
        return total


def _cross_entropy(target: Any, logits: Any) -> Any:
    return keras.losses.categorical_crossentropy(target, logits, from_logits=True)


FER2013_CLASSES = len(FER2013_LABELS)
TARGETS = sum(len(head.labels) + 1 for head in models.HEADS)
"""Columns of the labels; a teacher's follow."""


def targets(data: Dataset, label_smoothing: float) -> NDArray[np.float32]:
    """The labels for ``TwoHeadLoss``, float32 (n, 17).

    A distribution and a weight (0 where a sample has no such label) for each head, in the order of ``models.HEADS``.
    """
    votes, votes_known = data.ferplus_distribution()
    known = (data.fer2013 >= 0).astype(np.float32)
    one_hot = np.eye(len(FER2013_LABELS), dtype=np.float32)[np.maximum(data.fer2013, 0)]
    smooth = one_hot * (1 - label_smoothing) + label_smoothing / len(FER2013_LABELS)
    return np.column_stack([votes, votes_known, smooth, known]).astype(np.float32)


def with_teacher(labels: NDArray[np.float32], logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Labels with a teacher's logits behind them, float32 (n, 17 + 15)."""
    return np.column_stack([labels, logits]).astype(np.float32)


def class_balance(recipe: ClassBalanceRecipe, data: Dataset) -> dict[str, list[float]]:
    """What ``TwoHeadLoss`` needs to do more for the rare classes of ``data``: its arguments.

    * effective_number: a class of n samples weighs (1 - beta) / (1 - beta^n), and all classes of a head weigh 1 in the
      mean (Cui et al., arXiv 1901.05555, eq. 10).
    * logit_adjustment: tau * log(prior of the class) is added to a logit in training, so that without it the network
      predicts as if all classes were as frequent (Menon et al., arXiv 2007.07314, eq. 10).

    A sample counts for FER+ by the distribution of its votes.

    Raises:
        DataError: a class has no samples.
    """
    if recipe.kind == "none":
        return {}
    labels = targets(data, label_smoothing=0.0)
    values: list[float] = []
    start = 0
    for head in models.HEADS:
        width = len(head.labels)
        counts = (labels[:, start : start + width] * labels[:, [start + width]]).sum(axis=0, dtype=np.float64)
        start += width + 1
        if not counts.all():
            empty = head.labels[int(counts.argmin())]
            raise DataError(f"No Training sample is {empty} ({head.name}): class_balance wants some of each class.")
        if recipe.kind == "effective_number":
            weights = (1 - recipe.beta) / (1 - recipe.beta**counts)
            values += (weights / weights.mean()).tolist()
        else:
            values += (recipe.tau * np.log(counts / counts.sum())).tolist()
    return {"class_weights" if recipe.kind == "effective_number" else "logit_offsets": values}
