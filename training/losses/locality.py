"""Locality-preserving loss: embeddings of a class gather around their neighbors rather than one center.

Li, Deng and Du, "Reliable Crowdsourcing and Deep Locality-Preserving Learning for Expression Recognition in the Wild",
CVPR 2017, eq. 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keras import ops

from training.losses.pairs import classes_of, squared_distances


@dataclass(frozen=True)
class LocalityPreserving:
    """Half the squared distance of an embedding to the mean of its ``neighbors`` nearest of the same class.

    Neighbors are looked for in the batch, and stand still, as in the paper's gradient (eq. 6). A sample that is alone
    in its class has no loss.

    Attributes:
        head: whose classes count.
        weight: of this task.
        neighbors: k; the paper's is 20.
    """

    head: str
    weight: float
    neighbors: int = 20

    def __call__(self, targets: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
        embedding = outputs["embedding"]
        same = classes_of(targets[self.head])
        same = (same @ ops.transpose(same)) * (1 - ops.eye(ops.shape(same)[0]))
        far = 1 + ops.max(squared_distances(embedding))
        # The rank of a distance in its row, since a batch may hold fewer samples than there are neighbors.
        distances = ops.where(same > 0, squared_distances(embedding), far)
        ranks = ops.argsort(ops.argsort(distances, axis=1), axis=1)
        near = same * ops.cast(ranks < self.neighbors, "float32")
        count = ops.sum(near, axis=1, keepdims=True)
        mean = ops.stop_gradient(near @ embedding / ops.maximum(count, 1))
        return self.weight * ops.sign(count[:, 0]) * ops.sum((embedding - mean) ** 2, axis=1) / 2
