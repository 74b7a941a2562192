"""What losses on pairs of a batch share: who is of which class, and how far apart two embeddings are."""

from __future__ import annotations

from typing import Any

from keras import ops


def classes_of(target: Any) -> Any:
    """The class of each sample, one-hot: its largest target; zeros for a sample that has none. (n, classes) float32."""
    labeled = ops.sign(ops.max(target, axis=1, keepdims=True))
    return ops.one_hot(ops.argmax(target, axis=1), target.shape[1]) * labeled


def squared_distances(embedding: Any) -> Any:
    """Between all samples of a batch: (n, d) -> (n, n), never negative."""
    products = embedding @ ops.transpose(embedding)
    lengths = ops.sum(embedding**2, axis=1)
    return ops.maximum(lengths[:, None] + lengths[None, :] - 2 * products, 0.0)


def unit(embedding: Any) -> Any:
    """Embeddings (n, d) of length 1."""
    return embedding / ops.sqrt(ops.sum(embedding**2, axis=1, keepdims=True) + 1e-12)
