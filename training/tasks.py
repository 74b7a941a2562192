"""What training minimizes: a loss for each task of each head, composed by the recipe.

The network that trains gives named outputs (``OUTPUTS``), the data named targets: one for each head, and the teacher's
logits where they were cached. Each task reads what it needs by its name, on TensorFlow and JAX alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from datasets import Dataset
from edge_fer.errors import ConfigError, DataError
from edge_fer.model.spec import Head, head_slices
from training.losses.contrastive import Contrastive, IdentityContrastive
from training.losses.hinge import SquaredHinge
from training.losses.locality import LocalityPreserving
from training.losses.tuplets import TupletClusters
from training.recipe import ClassBalanceRecipe, Recipe

OUTPUTS = {
    "logits": "(n, classes of all heads), what is exported",
    "auxiliary_0": "the same of the first auxiliary head; auxiliary_1 and so on follow",
    "centers": "(n, classes + 1), of models.ClassCenters",
    "teacher": "(n, classes of all heads), the teacher ensemble's logits in online distillation",
    "mixup": "(n, 1), the weight of each image itself in what the network saw",
    "embedding": "(n, d), what the last layer reads, for losses on pairs",
    "identity": "(n, d), of models.with_extras: who somebody is",
    "corrupted": "as logits, of the same images corrupted (corruption.Corrupt)",
}


class Task(Protocol):
    """A loss of its own: targets and outputs by name -> (n,)."""

    def __call__(self, targets: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any: ...


@dataclass(frozen=True)
class Classification:
    """Cross entropy with the labels of a head: one-hot, smoothed, or raters' votes as they are.

    With votes it is the loss of Barsoum et al., arXiv 1608.01041, eq. 4. A sample without a label has zeros for a
    target, and no loss.

    Attributes:
        head: name of the head, and of its targets.
        part: where its logits stand in the output.
        weight: of this task.
        class_weights: of the samples of each class; None for 1.
        logit_offsets: added to the logits in training; None for 0.
        output: name of the output.
    """

    head: str
    part: slice
    weight: float = 1.0
    class_weights: tuple[float, ...] | None = None
    logit_offsets: tuple[float, ...] | None = None
    output: str = "logits"

    def __call__(self, targets: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
        target = targets[self.head]
        loss = _cross_entropy(target, _logits(self, outputs))
        if self.class_weights:
            loss *= ops.sum(target * ops.convert_to_tensor(self.class_weights, "float32"), axis=1)
        return self.weight * loss


@dataclass(frozen=True)
class Distillation:
    """T^2 times the cross entropy with a teacher, both softened by T (Hinton et al., arXiv 1503.02531, section 2).

    Attributes:
        head: name of the head.
        part: where its logits stand in the outputs, the teacher's too.
        weight: of this task.
        temperature: T.
        logit_offsets: added to the logits in training; None for 0.
        output: name of the output.
    """

    head: str
    part: slice
    weight: float
    temperature: float
    logit_offsets: tuple[float, ...] | None = None
    output: str = "logits"

    def __call__(self, targets: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
        teacher = outputs["teacher"] if "teacher" in outputs else targets["teacher"]
        soft = ops.softmax(teacher[:, self.part] / self.temperature)
        loss = _cross_entropy(soft, _logits(self, outputs) / self.temperature)
        return self.weight * self.temperature**2 * loss


@dataclass(frozen=True)
class CenterLoss:
    """Half the squared distance of an embedding to the center of its class, and the island loss between the centers.

    Center loss: Wen et al., ECCV 2016, eq. 2, as a mean over the batch. Island loss: the cosines between the centers,
    each plus 1, over all ordered pairs (Cai et al., arXiv 1710.03144, eq. 6). Here the centers learn by gradient, as
    weights do.

    Attributes:
        head: whose classes have centers.
        weight: of this task.
        island: weight of the pairs in it.
    """

    head: str
    weight: float
    island: float

    def __call__(self, targets: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
        target, columns = targets[self.head], outputs["centers"]
        # Smoothed labels have a class of their own too; a sample without a label has none. Not the maximum of
        # the signs: TensorFlow 2.21 exchanges the two, and then takes the images for the target, the iterator's first.
        labeled = ops.sign(ops.max(target, axis=1, keepdims=True))
        own = ops.one_hot(ops.argmax(target, axis=1), target.shape[1]) * labeled
        return self.weight * (ops.sum(own * columns[:, :-1], axis=1) / 2 + self.island * columns[:, -1])


@dataclass(frozen=True)
class Consistency:
    """Kullback-Leibler divergence of a head's answer to the corrupted image from its answer to the clean one.

    A consistency loss between views, as in AugMix (Hendrycks et al., arXiv 1912.02781, section 3), with two views in
    place of three. The answer to the clean image stands still (Xie et al., arXiv 1904.12848, eq. 1): it has targets of
    its own, and is not to become as unsure as the other.

    Attributes:
        part: where the logits of the head stand in both outputs.
        weight: of this task.
    """

    part: slice
    weight: float

    def __call__(self, targets: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
        clean = ops.log_softmax(ops.stop_gradient(outputs["logits"][:, self.part]))
        corrupted = ops.log_softmax(outputs["corrupted"][:, self.part])
        return self.weight * ops.sum(ops.exp(clean) * (clean - corrupted), axis=1)


def _logits(task: Classification | Distillation, outputs: Mapping[str, Any]) -> Any:
    logits = outputs[task.output][:, task.part]
    return logits + ops.convert_to_tensor(task.logit_offsets, "float32") if task.logit_offsets else logits


def _cross_entropy(target: Any, logits: Any) -> Any:
    # Written out: TensorFlow's own has a gradient for a target of zeros too, as if it were a distribution.
    return -ops.sum(target * ops.log_softmax(logits), axis=1)


def compose(
    recipe: Recipe, heads: Sequence[Head], outputs: Sequence[str], balance: Mapping[str, ClassBalance] | None = None
) -> list[Task]:
    """The tasks of a recipe.

    Args:
        recipe: its weights count.
        heads: of the network.
        outputs: names of what it gives. Losses that read others are left out.
        balance: see ``class_balance``, by head.

    Raises:
        ConfigError: ``task_weights`` names no head.
    """
    unknown = set(recipe.task_weights) - {head.name for head in heads}
    if unknown:
        names = ", ".join(head.name for head in heads)
        raise ConfigError(f"task_weights names {sorted(unknown)[0]!r}; the heads are {names}.")
    tasks: list[Task] = []
    of_labels, of_teacher = 1 - recipe.distill.weight, recipe.distill.weight
    for output in outputs:
        if output != "logits" and not output.startswith("auxiliary"):
            continue
        share = 1.0 if output == "logits" else recipe.auxiliary_heads
        for name, part in head_slices(heads).items():
            weight = share * recipe.task_weights.get(name, 1.0)
            own = (balance or {}).get(name, ClassBalance())
            if recipe.classification == "l2_svm" and output == "logits":
                tasks.append(SquaredHinge(name, part, weight * of_labels, own.class_weights))
            else:
                tasks.append(
                    Classification(name, part, weight * of_labels, own.class_weights, own.logit_offsets, output)
                )
            if of_teacher:
                temperature = recipe.distill.temperature
                tasks.append(Distillation(name, part, weight * of_teacher, temperature, own.logit_offsets, output))
    if "corrupted" in outputs:
        for name, part in head_slices(heads).items():
            tasks.append(Consistency(part, recipe.consistency * recipe.task_weights.get(name, 1.0)))
    if "centers" in outputs:
        tasks.append(CenterLoss(heads[-1].name, recipe.center, recipe.island))
    if "embedding" in outputs:
        metric: dict[str, Callable[[str, float], Task]] = {
            "locality": LocalityPreserving,
            "contrastive": Contrastive,
            "tuplets": TupletClusters,
        }
        tasks += [loss(heads[-1].name, getattr(recipe, key)) for key, loss in metric.items() if getattr(recipe, key)]
    if "identity" in outputs:
        tasks.append(IdentityContrastive(recipe.identity))
    return tasks


@keras.saving.register_keras_serializable("edge_fer")
class TrainingNetwork(keras.Model):
    """A network with named outputs that minimizes the sum of its ``tasks``, set after it was made.

    With mixup an image is two: the loss is that of either image's targets, weighted as the images were. That is the
    same as mixing the targets, since the cross entropy is linear in them, and right for cached teacher logits too.
    """

    tasks: Sequence[Task] = ()

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """Mean over the batch of the sum of the tasks."""
        loss = self._summed(y, y_pred)
        if "mixup" in y_pred:
            other = self._summed({name: ops.flip(values, axis=0) for name, values in y.items()}, y_pred)
            lam = y_pred["mixup"][:, 0]
            loss = lam * loss + (1 - lam) * other
        return ops.mean(loss)

    def _summed(self, targets: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
        return sum(task(targets, outputs) for task in self.tasks)


def targets_of(data: Dataset, label_smoothing: float) -> dict[str, NDArray[np.float32]]:
    """The targets of a data set by task, float32 (n, classes) each; label smoothing where there is one label a sample.

    Szegedy et al., arXiv 1512.00567. Raters' votes are soft already.
    """
    targets = {}
    for name, labels in data.labels.items():
        targets[name] = labels.targets
        if not labels.is_soft:
            known = labels.targets.sum(axis=1, keepdims=True)
            smooth = labels.targets * (1 - label_smoothing) + known * label_smoothing / len(labels.expressions)
            targets[name] = smooth.astype(np.float32)
    return targets


@dataclass(frozen=True)
class ClassBalance:
    """What is done for the rare classes of a head, see ``Classification``."""

    class_weights: tuple[float, ...] | None = None
    logit_offsets: tuple[float, ...] | None = None


def class_balance(recipe: ClassBalanceRecipe, data: Dataset) -> dict[str, ClassBalance]:
    """What to do more for the rare classes of ``data``, by head.

    * effective_number: a class of n samples weighs (1 - beta) / (1 - beta^n), and all classes of a head weigh 1 in the
      mean (Cui et al., arXiv 1901.05555, eq. 10).
    * logit_adjustment: tau * log(prior of the class) is added to a logit in training, so that without it the network
      predicts as if all classes were as frequent (Menon et al., arXiv 2007.07314, eq. 10).

    A sample counts by its target: for FER+ by the distribution of its votes.

    Raises:
        DataError: a class has no samples.
    """
    if recipe.kind == "none":
        return {}
    balance = {}
    for name, labels in data.labels.items():
        counts = labels.targets.sum(axis=0, dtype=np.float64)
        if not counts.all():
            empty = labels.expressions[int(counts.argmin())]
            raise DataError(f"No Training sample is {empty} ({name}): class_balance wants some of each class.")
        if recipe.kind == "effective_number":
            weights = (1 - recipe.beta) / (1 - recipe.beta**counts)
            balance[name] = ClassBalance(class_weights=tuple((weights / weights.mean()).tolist()))
        else:
            balance[name] = ClassBalance(logit_offsets=tuple((recipe.tau * np.log(counts / counts.sum())).tolist()))
    return balance
