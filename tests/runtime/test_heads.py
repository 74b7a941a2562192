"""Heads on the embedding: a linear machine and a forest in NumPy, their arrays refused where they fit nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_fer.core import Expression
from edge_fer.errors import BundleError
from edge_fer.model.heads import FLOOR, check_golden, open_head
from edge_fer.model.spec import Head

LABELS = (Expression.ANGER, Expression.FEAR)
LINEAR = Head("svm", LABELS, classifier="linear-svm")
FOREST = Head("trees", LABELS, classifier="random-forest")
LINEAR_ARRAYS: dict[str, Any] = {
    "heads.svm.weights": np.array([[1, -1], [0, 2], [0.5, 0]], np.float32),
    "heads.svm.bias": np.array([0.25, -0.5], np.float32),
}
# Two trees: [x0 > 1: (x2 > 0: c, d), else b] and a leaf alone, e.
FOREST_ARRAYS: dict[str, Any] = {
    "heads.trees.feature": np.array([0, 0, 2, 0, 0, 0], np.int16),
    "heads.trees.threshold": np.array([1, np.inf, 0, np.inf, np.inf, np.inf], np.float32),
    "heads.trees.left": np.array([1, 1, 3, 3, 4, 5], np.int32),
    "heads.trees.values": np.array([[0, 0], [1, 0], [0, 0], [0.25, 0.75], [0, 1], [0.5, 0.5]], np.float16),
    "heads.trees.roots": np.array([0, 5], np.int32),
}


def test_a_linear_head_is_a_product_and_a_bias() -> None:
    logits = open_head(LINEAR, LINEAR_ARRAYS, 3).logits(np.array([1, 2, 4], np.float32))
    assert logits == pytest.approx([1 + 2 + 0.25, -1 + 4 - 0.5])


@pytest.mark.parametrize(
    ("embedding", "leaf"),
    [
        ([1, 9, 9], [1, 0]),  # not larger than the threshold
        ([1.5, 0, 0], [0.25, 0.75]),
        ([1.5, 0, 0.1], [0, 1]),
    ],
)
def test_a_forest_walks_each_tree_to_its_leaf(embedding: list[float], leaf: list[float]) -> None:
    logits = open_head(FOREST, FOREST_ARRAYS, 3).logits(np.array(embedding, np.float32))
    mean = (np.array(leaf) + 0.5) / 2
    assert logits == pytest.approx(np.log(np.maximum(mean, FLOOR)), abs=1e-3)


def walked(arrays: dict[str, Any], embedding: np.ndarray) -> np.ndarray:
    """Of each tree its leaf's values, node by node."""
    leaves = []
    for node in arrays["heads.trees.roots"]:
        while np.isfinite(arrays["heads.trees.threshold"][node]):
            larger = embedding[arrays["heads.trees.feature"][node]] > arrays["heads.trees.threshold"][node]
            node = arrays["heads.trees.left"][node] + larger
        leaves.append(arrays["heads.trees.values"][node])
    return np.mean(leaves, axis=0, dtype=np.float32)


def grown(rng: np.random.Generator, trees: int, splits: int, features: int) -> dict[str, Any]:
    """Trees of random shape: one leaf after another is split, and the nodes stand as the splits came."""
    roots: list[int] = []
    left: list[int] = []
    for _ in range(trees):
        roots.append(len(left))
        leaves = [len(left)]
        left.append(leaves[0])
        for _ in range(splits):
            split = leaves.pop(int(rng.integers(len(leaves))))
            left[split] = len(left)
            leaves += [len(left), len(left) + 1]
            left += leaves[-2:]
    inner = np.array(left) != np.arange(len(left))
    return {
        "heads.trees.feature": rng.integers(0, features, len(left)).astype(np.int16),
        "heads.trees.threshold": np.where(inner, rng.normal(size=len(left)), np.inf).astype(np.float32),
        "heads.trees.left": np.array(left, np.int32),
        "heads.trees.values": rng.dirichlet((1, 1), len(left)).astype(np.float16),
        "heads.trees.roots": np.array(roots, np.int32),
    }


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(0, 30))
def test_all_trees_at_once_is_one_after_another(seed: int, trees: int, splits: int) -> None:
    rng = np.random.default_rng(seed)
    arrays = grown(rng, trees, splits, 4)
    forest = open_head(FOREST, arrays, 4)
    for embedding in rng.normal(size=(5, 4)).astype(np.float32):
        expected = np.log(np.maximum(walked(arrays, embedding), FLOOR))
        assert forest.logits(embedding) == pytest.approx(expected, abs=1e-5)


def changed(name: str, value: object) -> dict[str, Any]:
    arrays = {**LINEAR_ARRAYS, **FOREST_ARRAYS}
    arrays[name] = value if isinstance(value, np.ndarray) else np.array(value, arrays[name].dtype)
    return arrays


@pytest.mark.parametrize(
    ("head", "arrays"),
    [
        (LINEAR, {}),
        (LINEAR, {"heads.svm.weights": LINEAR_ARRAYS["heads.svm.weights"]}),
        (LINEAR, changed("heads.svm.weights", np.zeros((4, 2), np.float32))),  # of another network
        (LINEAR, changed("heads.svm.weights", np.zeros((3, 2)))),
        (LINEAR, changed("heads.svm.bias", [0, np.nan])),
        (LINEAR, changed("heads.svm.bias", [0, 0, 0])),
        (FOREST, changed("heads.trees.left", [1, 1, 3, 3, 4, 6])),  # a leaf that leads out of the list
        (FOREST, changed("heads.trees.left", [5, 1, 3, 3, 4, 5])),  # a right child beyond the end
        (FOREST, changed("heads.trees.left", [-3, 1, 3, 3, 4, 5])),
        (FOREST, changed("heads.trees.left", [0, 1, 3, 3, 4, 5])),  # a node that leads to itself, for ever
        (FOREST, changed("heads.trees.left", [1, 1, 0, 3, 4, 5])),  # a circle
        (FOREST, changed("heads.trees.threshold", [np.nan, np.inf, 0, np.inf, np.inf, np.inf])),
        (FOREST, changed("heads.trees.threshold", [-np.inf, np.inf, 0, np.inf, np.inf, -np.inf])),
        (FOREST, changed("heads.trees.feature", [3, 0, 2, 0, 0, 0])),
        (FOREST, changed("heads.trees.feature", [-1, 0, 2, 0, 0, 0])),
        (FOREST, changed("heads.trees.roots", [0, 6])),
        (FOREST, changed("heads.trees.roots", [])),
        (FOREST, changed("heads.trees.values", np.full((6, 2), 2, np.float16))),
        (FOREST, changed("heads.trees.values", np.full((6, 3), 0.5, np.float16))),
        (FOREST, changed("heads.trees.values", np.zeros((0, 2), np.float16))),
        (FOREST, changed("heads.trees.values", np.full((6, 2), np.nan, np.float16))),
    ],
)
def test_arrays_that_do_not_fit_are_refused(head: Head, arrays: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match=f"arrays of the head '{head.name}' are missing, or do not fit"):
        open_head(head, arrays, 3)


@pytest.mark.parametrize(("head", "arrays"), [(LINEAR, LINEAR_ARRAYS), (FOREST, FOREST_ARRAYS)])
def test_golden_logits_are_given_again_or_the_bundle_is_refused(head: Head, arrays: dict[str, Any]) -> None:
    embeddings = np.array([[1, 2, 3], [1.5, 0, 0.1]], np.float32)
    golden = np.stack([open_head(head, arrays, 3).logits(one) for one in embeddings])
    check_golden([head], {**arrays, f"heads.{head.name}.golden": golden}, embeddings)
    with pytest.raises(BundleError, match="fails its self-test"):
        check_golden([head], {**arrays, f"heads.{head.name}.golden": golden + np.float32(0.1)}, embeddings)
    with pytest.raises(BundleError, match="are missing, or do not fit"):
        check_golden([head], {**arrays, f"heads.{head.name}.golden": golden[:1]}, embeddings)
