"""Contrastive loss: two faces of one class are pulled together, two of different classes pushed apart.

The verification signal of the multi-signal CNN (MSCNN: Zhang et al., "Facial Expression Recognition Based on Deep
Evolutional Spatial-Temporal Networks", IEEE TIP 2017), and, with people for classes, the identity-sensitive loss of
identity-aware CNNs (Meng et al., FG 2017). Hadsell, Chopra and LeCun, CVPR 2006, eq. 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keras import ops

from training.losses.pairs import classes_of, squared_distances, unit


@dataclass(frozen=True)
class Contrastive:
    """d^2 / 2 of a pair of one class, max(0, margin - d)^2 / 2 of others, as a mean over the pairs of each sample.

    d is the distance of the embeddings, brought to length 1: 0 to 2. Pairs are all of a batch of which both have a
    label. Each of the two kinds of pairs weighs the same, however many there are of it.

    Attributes:
        head: whose classes count.
        weight: of this task.
        margin: beyond which two classes do not push each other.
    """

    head: str
    weight: float
    margin: float = 1.0

    def __call__(self, targets: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
        classes = classes_of(targets[self.head])
        known = ops.sum(classes, axis=1)
        others = known[:, None] * known[None, :] * (1 - ops.eye(ops.shape(classes)[0]))
        same = classes @ ops.transpose(classes) * others
        different = others - same
        squared = squared_distances(unit(outputs["embedding"]))
        # The gradient of a square root has no bound at 0.
        distance = ops.sqrt(squared + 1e-6)
        pull = _mean(squared, same)
        push = _mean(ops.maximum(0.0, self.margin - distance) ** 2, different)
        return self.weight * (pull + push) / 2


def _mean(values: Any, chosen: Any) -> Any:
    return ops.sum(values * chosen, axis=1) / ops.maximum(ops.sum(chosen, axis=1), 1)
