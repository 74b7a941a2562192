"""Heads that are no layer of the graph: a linear support vector machine or a random forest on the network's embedding.

Their arrays travel in the bundle, each named heads.NAME.ARRAY, with their logits for the golden outputs of the
self-test, heads.NAME.golden. Logits here are what softmax makes probabilities of: the margins of the one-vs-rest
machines, or the logarithm of the forest's mean probabilities. The head's temperature makes confidence of them
frequency, as in any head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_fer.errors import BundleError
from edge_fer.model.spec import Head

Arrays = Mapping[str, NDArray[Any]]

FLOOR = 1e-3
"""Probabilities of a forest below are taken for this, so that their logarithm is finite."""
_TOLERANCE = 1e-3
"""Of a golden logit: the order of a sum differs from machine to machine, and so its last bits."""


class FeatureHead(Protocol):
    """Logits from an embedding."""

    def logits(self, embedding: NDArray[np.float32]) -> NDArray[np.float32]:
        """Float32 (labels,) for one embedding, float32 (d,)."""
        ...


class LinearHead:
    """A linear machine: embedding @ weights + bias.

    Args:
        weights: float32 (d, labels).
        bias: float32 (labels,).
    """

    def __init__(self, weights: NDArray[np.float32], bias: NDArray[np.float32]) -> None:
        self._weights, self._bias = weights, bias

    def logits(self, embedding: NDArray[np.float32]) -> NDArray[np.float32]:
        margins: NDArray[np.float32] = embedding @ self._weights + self._bias
        return margins


class ForestHead:
    """A random forest, all trees walked at once, a level a step.

    The nodes of all trees stand in one list. A node sends an embedding to ``left``, or to the node behind that one
    where ``embedding[feature] > threshold``. A leaf is its own left child, and nothing is larger than its threshold.

    Args:
        feature: int16 (nodes,), a place in the embedding.
        threshold: float32 (nodes,), infinite in leaves.
        left: int32 (nodes,).
        values: float16 (nodes, labels), probabilities, 0-1; those of inner nodes are not read.
        roots: int32 (trees,).
        depth: steps from a root to the deepest leaf.
    """

    def __init__(
        self,
        feature: NDArray[np.int16],
        threshold: NDArray[np.float32],
        left: NDArray[np.int32],
        values: NDArray[np.float16],
        roots: NDArray[np.int32],
        depth: int,
    ) -> None:
        self._feature, self._threshold, self._left = feature.astype(np.intp), threshold, left.astype(np.intp)
        self._values, self._roots, self._depth = values.astype(np.float32), roots.astype(np.intp), depth

    def logits(self, embedding: NDArray[np.float32]) -> NDArray[np.float32]:
        nodes = self._roots
        for _ in range(self._depth):
            nodes = self._left[nodes] + (embedding[self._feature[nodes]] > self._threshold[nodes])
        logarithms: NDArray[np.float32] = np.log(np.maximum(self._values[nodes].mean(axis=0), np.float32(FLOOR)))
        return logarithms


def open_head(head: Head, arrays: Arrays, features: int) -> FeatureHead:
    """A head from the arrays of its bundle, whoever wrote them.

    Args:
        head: of the metadata; it is no layer of the graph.
        arrays: of the bundle.
        features: length of the embedding.

    Raises:
        BundleError: an array is missing, or does not fit the head or the embedding.
    """
    labels = len(head.labels)
    if head.classifier == "linear-svm":
        weights = _array(head, arrays, "weights", np.float32, (features, labels))
        return LinearHead(weights, _array(head, arrays, "bias", np.float32, (labels,)))
    values = _array(head, arrays, "values", np.float16, (None, labels))
    nodes = len(values)
    feature = _array(head, arrays, "feature", np.int16, (nodes,))
    threshold = _array(head, arrays, "threshold", np.float32, (nodes,), finite=False)
    left = _array(head, arrays, "left", np.int32, (nodes,))
    roots = _array(head, arrays, "roots", np.int32, (None,))
    places, leaves = np.arange(nodes), np.isposinf(threshold)
    # Children come behind their parents, so that every way ends; and in the depth that is worked out here.
    sound = len(roots) > 0 and bool(((roots >= 0) & (roots < nodes)).all())
    sound = sound and bool(((feature >= 0) & (feature < features)).all()) and not np.isnan(threshold).any()
    sound = sound and bool((left[leaves] == places[leaves]).all())
    sound = sound and bool(((left > places) & (left < nodes - 1))[~leaves].all())
    if not sound or not ((values >= 0) & (values <= 1)).all():
        raise _unfit(head)
    return ForestHead(feature, threshold, left, values, roots, _depth(left, leaves))


def check_golden(heads: Sequence[Head], arrays: Arrays, embeddings: NDArray[np.float32]) -> None:
    """See whether heads give on this machine what they gave where they were made.

    Args:
        heads: those that are no layer of the graph.
        arrays: of the bundle.
        embeddings: float32 (n, d), the golden ones of its self-test.

    Raises:
        BundleError: one does not, or its golden logits are missing.
    """
    for head in heads:
        opened = open_head(head, arrays, embeddings.shape[1])
        golden = _array(head, arrays, "golden", np.float32, (len(embeddings), len(head.labels)))
        logits = np.stack([opened.logits(embedding) for embedding in embeddings])
        if not np.abs(logits - golden).max() <= _TOLERANCE * max(1.0, float(np.abs(golden).max())):
            raise BundleError(f"The head {head.name!r} fails its self-test on this device. Export the bundle again.")


def _depth(left: NDArray[np.int32], leaves: NDArray[np.bool_]) -> int:
    depths = np.zeros(len(left), np.int32)
    for node in np.flatnonzero(~leaves):  # in order: all that lead to a node are before it
        children = slice(left[node], left[node] + 2)
        depths[children] = np.maximum(depths[children], depths[node] + 1)
    return int(depths.max())


def _array(
    head: Head, arrays: Arrays, name: str, dtype: type[np.generic], shape: tuple[int | None, ...], finite: bool = True
) -> NDArray[Any]:
    array = arrays.get(f"heads.{head.name}.{name}")
    if array is None or array.dtype != dtype or array.ndim != len(shape):
        raise _unfit(head)
    if any(wanted not in (None, side) for wanted, side in zip(shape, array.shape, strict=True)):
        raise _unfit(head)
    if finite and not np.isfinite(array).all():
        raise _unfit(head)
    return array


def _unfit(head: Head) -> BundleError:
    return BundleError(
        f"The arrays of the head {head.name!r} are missing, or do not fit its labels and the network. Export the "
        "bundle again."
    )
