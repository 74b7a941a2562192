"""What training minimises: cross entropy on both heads, and the distance to a teacher where there is one."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from evaluation import figures
from evaluation.datasets import FER2013_LABELS, Dataset
from training import models


@keras.saving.register_keras_serializable("edge_fer")
class TwoHeadLoss(keras.losses.Loss):
    """Cross entropy of both heads: FER2013 with smoothed labels, FER+ with votes as soft targets.

    The FER+ loss is that of Barsoum et al., arXiv 1608.01041, eq. 4. With a teacher, each head's loss is
    (1 - a) * cross entropy with the labels + a * T^2 * cross entropy with the teacher, both softened by T (Hinton et
    al., arXiv 1503.02531, section 2).

    Targets are what ``targets`` and ``with_teacher`` make.

    Args:
        ferplus_weight: of the FER+ head's loss; the FER2013 head's is 1.
        distill_weight: a, the share of the teacher; 0 for training without one.
        distill_temperature: T.
    """

    def __init__(
        self,
        ferplus_weight: float,
        distill_weight: float = 0.0,
        distill_temperature: float = 1.0,
        name: str = "two_heads",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.settings = {
            "ferplus_weight": ferplus_weight,
            "distill_weight": distill_weight,
            "distill_temperature": distill_temperature,
        }

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.settings}

    def call(self, y_true: Any, y_pred: Any) -> Any:
        share, temperature = self.settings["distill_weight"], self.settings["distill_temperature"]
        slices = figures.head_slices(models.HEADS)
        total, start = 0.0, 0
        for head, part in slices.items():
            width = part.stop - part.start
            target, known = y_true[:, start : start + width], y_true[:, start + width]
            start += width + 1
            loss = known * _cross_entropy(target, y_pred[:, part])
            if share:
                teacher = y_true[:, TARGETS:][:, part]
                soft = _cross_entropy(ops.softmax(teacher / temperature), y_pred[:, part] / temperature)
                loss = (1 - share) * loss + share * temperature**2 * soft
            total += loss * (self.settings["ferplus_weight"] if head == "ferplus" else 1.0)
        return total


def _cross_entropy(target: Any, logits: Any) -> Any:
    return keras.losses.categorical_crossentropy(target, logits, from_logits=True)


TARGETS = sum(len(head.labels) + 1 for head in models.HEADS)
"""Columns of the labels; a teacher's follow."""


def targets(data: Dataset, label_smoothing: float) -> NDArray[np.float32]:
    """The labels for ``TwoHeadLoss``, float32 (n, 17).

    A distribution and a weight (0 where a row has no such label) for each head, in the order of ``models.HEADS``.
    """
    votes, votes_known = data.ferplus_distribution()
    known = (data.fer2013 >= 0).astype(np.float32)
    one_hot = np.eye(len(FER2013_LABELS), dtype=np.float32)[np.maximum(data.fer2013, 0)]
    smooth = one_hot * (1 - label_smoothing) + label_smoothing / len(FER2013_LABELS)
    return np.column_stack([votes, votes_known, smooth, known]).astype(np.float32)


def with_teacher(labels: NDArray[np.float32], logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Labels with a teacher's logits behind them, float32 (n, 17 + 15)."""
    return np.column_stack([labels, logits]).astype(np.float32)
