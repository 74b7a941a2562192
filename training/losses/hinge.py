"""The L2-SVM loss in place of cross entropy: what won the FER2013 challenge.

Tang, "Deep Learning using Linear Support Vector Machines", ICML 2013 workshop, arXiv 1306.0239, eq. 5 and 10.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keras import ops

from training.losses.pairs import classes_of


@dataclass(frozen=True)
class SquaredHinge:
    """Sum over the classes of max(0, 1 - t * logit)^2, t = 1 for the sample's own class and -1 for the others.

    One machine against the rest for each class. Its penalty of the weights is the optimizer's weight decay. The class
    is the target's largest; a sample without a label has no loss.

    Attributes:
        head: name of the head, and of its targets.
        part: where its logits stand in the output.
        weight: of this task.
        class_weights: of the samples of each class; None for 1.
    """

    head: str
    part: slice
    weight: float
    class_weights: tuple[float, ...] | None = None

    def __call__(self, targets: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
        own = classes_of(targets[self.head])
        margins = ops.maximum(0.0, 1 - (2 * own - 1) * outputs["logits"][:, self.part])
        weights = 1.0 if self.class_weights is None else ops.convert_to_tensor(self.class_weights, "float32")
        return self.weight * ops.sum(own * weights, axis=1) * ops.sum(margins**2, axis=1)
