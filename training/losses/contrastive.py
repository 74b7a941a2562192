"""Contrastive loss: two faces of one class are pulled together, two of different classes pushed apart.

The two losses of identity-aware CNNs (IACNN: Meng et al., FG 2017): by expression on the features that the last layer
reads, by person on features of their own. Its joint layer over both is left out: what an exported network answers must
not hang on who somebody is. The pairs' loss is that of Hadsell, Chopra and LeCun, CVPR 2006, eq. 4. What MSCNN does
with pairs is in ``verification``.
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
        same, known = classes @ ops.transpose(classes), ops.sum(classes, axis=1)
        return self.weight * _of_pairs(same, known, outputs["embedding"], self.margin)


@dataclass(frozen=True)
class IdentityContrastive:
    """``Contrastive`` of people: two faces of one person are pulled together, those of two pushed apart.

    Pairs are all of a batch of which it is known who both are: ``targets["subject"]`` (n, 1), a number for each person,
    -1 for nobody.

    Attributes:
        weight: of this task.
        margin: beyond which two people do not push each other.
    """

    weight: float
    margin: float = 1.0

    def __call__(self, targets: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
        people = targets["subject"][:, 0]
        same = ops.cast(people[:, None] == people[None, :], "float32")
        return self.weight * _of_pairs(same, ops.cast(people >= 0, "float32"), outputs["identity"], self.margin)


def _of_pairs(same: Any, known: Any, embedding: Any, margin: float) -> Any:
    """The loss of each sample: (n, n) which are the same, (n,) of which it is known, features (n, d) -> (n,)."""
    others = known[:, None] * known[None, :] * (1 - ops.eye(ops.shape(known)[0]))
    same = same * others
    squared = squared_distances(unit(embedding))
    # The gradient of a square root has no bound at 0.
    distance = ops.sqrt(squared + 1e-6)
    pull = _mean(squared, same)
    push = _mean(ops.maximum(0.0, margin - distance) ** 2, others - same)
    return (pull + push) / 2


def _mean(values: Any, chosen: Any) -> Any:
    return ops.sum(values * chosen, axis=1) / ops.maximum(ops.sum(chosen, axis=1), 1)
