"""What a network learns from in each epoch: images and targets, further faces, faces without labels, cached views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datasets import Dataset
from edge_fer.errors import ConfigError
from training.cached_logits import CachedLogits
from training.ensemble import LEAST
from training.recipe import Recipe
from training.tasks import targets_of


@dataclass(frozen=True)
class Samples:
    """What a network learns from.

    Attributes:
        images: uint8 (views, n, height, width, 1); one view where the network's own augmentation changes images.
        targets: float32 (n, classes) by task.
        teacher: float16 (views, n, classes of all heads), a teacher's logits; None where none were cached. One view
            where they were averaged over views.
        rows: int64 (m,), which of the n an epoch has, and how often.
    """

    images: NDArray[np.uint8]
    targets: Mapping[str, NDArray[np.float32]]
    teacher: NDArray[np.float16] | None
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def plain(cls, images: NDArray[np.uint8], targets: Mapping[str, NDArray[np.float32]]) -> Samples:
        """All images (n, height, width, 1) once, with targets (n, classes) by task."""
        return cls(images[None], targets, None, np.arange(len(images)))

    @property
    def views(self) -> int:
        """How many epochs differ."""
        return max(len(self.images), 1 if self.teacher is None else len(self.teacher))

    def of_epoch(self, epoch: int) -> tuple[NDArray[np.uint8], dict[str, NDArray[np.float32]]]:
        """Images uint8 (m, height, width, 1) and targets float32 (m, classes) by task; each epoch has the next view."""
        targets = {name: values[self.rows] for name, values in self.targets.items()}
        if self.teacher is not None:
            targets["teacher"] = self.teacher[epoch % len(self.teacher)][self.rows].astype(np.float32)
        return self.images[epoch % len(self.images)][self.rows], targets


def gather_samples(recipe: Recipe, splits: Mapping[str, Dataset], cached: CachedLogits | None = None) -> Samples:
    """What a recipe learns from.

    The targets of faces without labels are the teacher's alone, where it is sure (``ensemble.sure``): self-training
    (Xie et al., arXiv 1911.04252). The teacher's logits for further labeled faces are the logarithms of their smoothed
    labels: it has seen none of the like.

    Args:
        recipe: its ``data`` and ``label_smoothing`` count.
        splits: see ``datasets.load``.
        cached: teacher logits for the Training samples, and for those without labels where the recipe has some.

    Raises:
        ConfigError: the recipe has faces without labels, and ``cached`` has no logits for them; or a loss that asks who
            a face is, and no face's person is known.
    """
    training, data = splits["Training"], recipe.data
    parts, images = [targets_of(training, recipe.label_smoothing)], [training.images]
    rows = [np.arange(0 if data.further_alone else len(training))]
    if data.unlabeled and (cached is None or cached.sure is None):
        raise ConfigError(
            f"{recipe.name} has data.unlabeled: give --teacher-logits that were cached with --unlabeled "
            f"{data.unlabeled}."
        )
    # In views the faces without labels have their places whether the recipe learns from them or not.
    placed = cached is not None and (data.unlabeled or cached.images is not None)
    count = len(cached.sure) if cached and placed and cached.sure is not None else 0
    if count:
        parts.append({name: np.zeros((count, one.shape[1]), np.float32) for name, one in parts[0].items()})
    if data.unlabeled and cached and cached.sure is not None:
        images.append(splits[data.unlabeled].images)
        rows.append(len(training) + np.flatnonzero(cached.sure))
    behind = len(training) + count
    if data.further:
        further = splits[data.further]
        parts.append(targets_of(further, recipe.label_smoothing))
        images.append(further.images)
        rows.append(behind + np.tile(np.arange(len(further)), data.further_times))
    targets = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    if recipe.tuplets or recipe.identity:
        known = [splits[name].subjects for name in ("Training", *filter(None, [data.further]))]
        if all(one is None for one in known):
            own = "tuplets" if recipe.tuplets else "identity"
            raise ConfigError(f"{recipe.name} has {own}, which asks who a face is: no sample of this data set tells.")
        people = [known[0], np.full(count, ""), *known[1:]]
        lengths = [len(training), count, len(targets[training.heads[0].name]) - behind]
        targets["subject"] = _numbered(people, lengths)
    teacher = cached.logits[:, :behind] if cached else None
    if teacher is not None and data.further:
        labels = np.log(np.maximum(np.concatenate(list(parts[-1].values()), axis=1), LEAST)).astype(np.float16)
        teacher = np.concatenate([teacher, np.repeat(labels[None], len(teacher), axis=0)], axis=1)
    pixels = np.concatenate(images)[None] if cached is None or cached.images is None else cached.images
    return Samples(pixels, targets, teacher, np.concatenate(rows))


def _numbered(people: Sequence[NDArray[np.str_] | None], lengths: Sequence[int]) -> NDArray[np.float32]:
    """A number for each person, float32 (n, 1), parts behind one another; -1 where it is not known who it is."""
    named = [np.full(length, "") if one is None else one for one, length in zip(people, lengths, strict=False)]
    texts = np.concatenate(named)
    numbers = np.unique(texts, return_inverse=True)[1].astype(np.float32)
    return np.where(texts == "", np.float32(-1), numbers)[:, None]
