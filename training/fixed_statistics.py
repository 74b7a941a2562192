"""Batch normalization whose statistics do not move, for fine-tuning."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers


@keras.saving.register_keras_serializable("edge_fer")
class FixedStatistics(layers.BatchNormalization):
    """Batch normalization that keeps its mean and variance in training; gamma and beta learn.

    For fine-tuning on images unlike those before (``corruption.Corrupt``): with the statistics of such batches, a
    network forgets what it knew of clean images before it has learned anything.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        return super().call(inputs, training=False, mask=mask)


def with_statistics(model: keras.Model, fixed: bool) -> keras.Model:
    """The same functional model with ``FixedStatistics`` in place of each batch normalization, or the way back."""
    kind = FixedStatistics if fixed else layers.BatchNormalization

    def clone(layer: keras.Layer) -> keras.Layer:
        of = kind if isinstance(layer, layers.BatchNormalization) else type(layer)
        copy: keras.Layer = of.from_config(layer.get_config())
        return copy

    copy = keras.models.clone_model(model, clone_function=clone)
    copy.set_weights(model.get_weights())
    return copy
