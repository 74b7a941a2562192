"""(N+M)-tuplet clusters loss: what two people show alike lies nearer than what one person shows otherwise.

Liu, Vijaya Kumar, You and Jia, "Adaptive Deep Metric Learning for Identity-Aware Facial Expression Recognition", CVPR
Workshops 2017, eq. 5, with identity-aware mining of hard negatives and online mining of positives (section 3.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keras import ops

from training.losses.pairs import classes_of, unit


@dataclass(frozen=True)
class TupletClusters:
    """Positives within threshold - margin / 2 of their mean, negatives beyond threshold + margin / 2, both squared.

    Each expression of a batch makes a tuplet: the samples of it are positives, around their mean; the negatives are
    samples of other expressions, of people who are among the positives, since who they are is what must not count. A
    positive that is nearer to the mean of another expression is left out of its own mean: it may be mislabeled. Means
    over those that break the bound, as in the paper; embeddings have length 1.

    Attributes:
        head: whose expressions count.
        weight: of this task.
        threshold: T, a squared distance, 0 to 4. The paper learns it; here it is given.
        margin: tau, the width of the band between the two.
    """

    head: str
    weight: float
    threshold: float = 0.6
    margin: float = 0.4

    def __call__(self, targets: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
        classes = classes_of(targets[self.head])
        subjects = targets["subject"][:, 0]
        embedding = unit(outputs["embedding"])
        same_person = ops.cast(subjects[:, None] == subjects[None, :], "float32")
        known = ops.cast(subjects >= 0, "float32") * ops.sum(classes, axis=1)
        classes = classes * known[:, None]
        first = _to_means(embedding, classes)
        # Mining of positives: 1 where no other expression's mean is nearer.
        nearest = ops.one_hot(ops.argmin(ops.where(_present(classes), first, 9.0), axis=1), classes.shape[1])
        distances = _to_means(embedding, classes * nearest)
        # Mining of negatives: (n, classes), of another expression, and somebody of the same name is a positive of it.
        named = ops.cast(same_person @ classes > 0, "float32") * known[:, None]
        negative = named * (1 - classes)
        too_far = classes * ops.maximum(0.0, distances - self.threshold + self.margin / 2)
        too_near = negative * ops.maximum(0.0, self.threshold + self.margin / 2 - distances)
        present = ops.cast(_present(classes * nearest), "float32")
        loss = sum(one * present / ops.maximum(ops.sum(ops.sign(one), axis=0), 1) for one in (too_far, too_near))
        # The sum over the batch is the paper's; the mean of all samples, which training takes, then is that over n.
        return self.weight * ops.cast(ops.shape(loss)[0], "float32") * ops.sum(loss, axis=1)


def _present(classes: Any) -> Any:
    return ops.sum(classes, axis=0, keepdims=True) > 0


def _to_means(embedding: Any, classes: Any) -> Any:
    """Squared distances (n, classes) of all embeddings to the mean of those that ``classes`` (n, classes) picks."""
    means = ops.transpose(classes) @ embedding / ops.maximum(ops.sum(classes, axis=0)[:, None], 1)
    return ops.sum((embedding[:, None] - means[None]) ** 2, axis=2)
