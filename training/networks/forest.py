"""A deep neural forest in place of the last dense layer.

Kontschieder et al., "Deep Neural Decision Forests", ICCV 2015: trees whose splits are differentiable. Its leaves learn
by gradient here, as the splits do, where the paper alternates with an update of their own.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops


@keras.saving.register_keras_serializable("edge_fer")
class NeuralForest(layers.Layer):
    """Trees of soft splits over an embedding (n, d); the logarithms of their mean answer (n, classes).

    A split sends a sample left with d_n = sigmoid(f_n(x)) (eq. 3); a leaf is reached with the product along its path
    (eq. 2), and holds a distribution over the classes; a tree answers with the mean of its leaves (eq. 1),
    the forest with the mean of its trees (eq. 4).

    With several heads the distribution is one over the classes of all: what a head says is its own part of it, since a
    task takes the softmax of that part alone.

    Args:
        classes: of all heads together.
        trees: how many.
        depth: splits on the way to a leaf.
    """

    def __init__(self, classes: int, trees: int = 10, depth: int = 5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.classes, self.trees, self.depth = classes, trees, depth

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "classes": self.classes, "trees": self.trees, "depth": self.depth}

    def build(self, input_shape: Any) -> None:
        splits, leaves = 2**self.depth - 1, 2**self.depth
        self.kernel = self.add_weight(shape=(input_shape[-1], self.trees * splits), name="splits")
        self.bias = self.add_weight(shape=(self.trees * splits,), initializer="zeros", name="thresholds")
        shape = (self.trees, leaves, self.classes)
        self.leaves = self.add_weight(shape=shape, initializer="random_normal", name="leaves")

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, int]:
        return input_shape[0], self.classes

    def reached(self, embedding: Any) -> Any:
        """With which probability a sample comes to each leaf: (n, trees, leaves), 1 in sum over the leaves."""
        splits = ops.sigmoid(embedding @ self.kernel + self.bias)
        splits = ops.reshape(splits, (-1, self.trees, 2**self.depth - 1))
        reached = ops.ones_like(splits[:, :, :1])
        for level in range(self.depth):
            left = splits[:, :, 2**level - 1 : 2 ** (level + 1) - 1]
            both = ops.stack([reached * left, reached * (1 - left)], axis=3)
            reached = ops.reshape(both, (-1, self.trees, 2 ** (level + 1)))
        return reached

    def call(self, embedding: Any) -> Any:
        reached = self.reached(ops.cast(embedding, "float32"))
        answer = ops.einsum("ntl,tlc->nc", reached, ops.softmax(self.leaves)) / self.trees
        return ops.log(answer + 1e-7)
