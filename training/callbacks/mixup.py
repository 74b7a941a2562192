"""Mixup that ends before the training does."""

from __future__ import annotations

from typing import Any

import keras

from training.augmentation import Mixup


class MixupUntil(keras.callbacks.Callback):
    """Turns a network's ``Mixup`` off from an epoch on: the last steps are on images as they are."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.last = epoch

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Set it for this epoch."""
        for layer in self.model.layers:
            if isinstance(layer, Mixup):
                layer.on.assign(float(epoch < self.last))
