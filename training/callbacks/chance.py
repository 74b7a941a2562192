"""Chance depends on the seed and the epoch alone, so that a training that was cut off goes on as if it had not been."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from training.samples import Samples


class Batches(keras.utils.PyDataset):
    """Batches of samples in the order that ``ChanceByEpoch`` gave them.

    Args:
        images: uint8 (n, height, width, 1).
        targets: (n, ...), or several by name.
        batch_size: samples of a batch; the last one of an epoch may have fewer.
    """

    def __init__(self, images: NDArray[np.uint8], targets: Any, batch_size: int) -> None:
        super().__init__()
        self.images, self.targets, self.batch_size = images, targets, batch_size
        self.order = np.arange(len(images))

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def __getitem__(self, at: int) -> tuple[NDArray[np.float32], Any]:
        rows = self.order[at * self.batch_size : (at + 1) * self.batch_size]
        return self.images[rows].astype(np.float32), keras.tree.map_structure(lambda values: values[rows], self.targets)


class ChanceByEpoch(keras.callbacks.Callback):
    """Before each epoch, orders the samples anew and seeds all that draws in the network: augmentation, dropout.

    A checkpoint does not hold the state of Keras' seed generators, and its own shuffling begins anew in each process.

    Args:
        seed: of the recipe.
        batches: what is shuffled; None where the order is drawn elsewhere, as in ``jax_fit``.
        samples: whose next view the batches get; None where they have but one.
    """

    def __init__(self, seed: int, batches: Batches | None = None, samples: Samples | None = None) -> None:
        super().__init__()
        self.seed, self.batches, self.samples = seed, batches, samples

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        chance = np.random.default_rng([self.seed, epoch])
        if self.batches and self.samples:
            self.batches.images, self.batches.targets = self.samples.of_epoch(epoch)
        if self.batches:
            self.batches.order = chance.permutation(len(self.batches.images))
        for variable in self.model.non_trainable_variables:
            if variable.name == "seed_generator_state":
                variable.assign(chance.integers(0, 2**31, 2))
