"""Losses on pairs and hinges, against closed forms and by what they do to embeddings. On JAX too: ``make test-jax``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from edge_fer.core import Expression as E
from edge_fer.model.spec import Head
from training.losses.contrastive import Contrastive, IdentityContrastive
from training.losses.hinge import SquaredHinge
from training.losses.locality import LocalityPreserving
from training.losses.tuplets import TupletClusters
from training.recipe import ModelRecipe, Recipe
from training.tasks import Classification, Task, compose

Floats = NDArray[np.float32]
HEADS = (Head("one", tuple(E)[:3]),)


def said_by(task: Task, targets: Mapping[str, Floats], **outputs: Any) -> Floats:
    given = {name: keras.ops.array(np.asarray(values, np.float32)) for name, values in outputs.items()}
    loss: Floats = keras.ops.convert_to_numpy(task(targets, given))
    return loss


def classes(*numbers: int) -> dict[str, Floats]:
    """One-hot targets; -1 for none."""
    return {"one": np.array([np.eye(3)[one] if one >= 0 else np.zeros(3) for one in numbers], np.float32)}


def moved(task: Task, targets: Mapping[str, Floats], embedding: Floats, steps: int = 200) -> Floats:
    """Embeddings after gradient descent."""
    values = keras.Variable(embedding)
    for _ in range(steps):
        values.assign_sub(0.05 * _gradient(task, targets, values))
    return np.asarray(keras.ops.convert_to_numpy(values))


def _gradient(task: Task, targets: Mapping[str, Floats], values: Any) -> Any:
    def total(embedding: Any) -> Any:
        return keras.ops.sum(task(targets, {"embedding": embedding}))

    if keras.backend.backend() == "jax":
        import jax

        return jax.grad(total)(values.value)
    import tensorflow as tf

    with tf.GradientTape() as tape:
        loss = total(values.value)
    return tape.gradient(loss, values.value)


def test_locality_is_half_the_squared_distance_to_the_mean_of_the_nearest_of_the_class() -> None:
    embedding = [[0.0, 0.0], [1.0, 0.0], [0.0, 2.0], [9.0, 9.0], [8.0, 8.0], [1.0, 1.0]]
    targets = classes(0, 0, 0, 0, 1, -1)
    # The two nearest of the first are the second and third, of mean (0.5, 1); of the fourth, the third and the second.
    expected = [0.625, (1 + 1) / 2, (0.25 + 4) / 2, (8.5**2 + 8**2) / 2, 0.0, 0.0]
    loss = said_by(LocalityPreserving("one", 2.0, neighbors=2), targets, embedding=embedding)
    np.testing.assert_allclose(loss, 2 * np.array(expected), rtol=1e-5)
    # With fewer of a class than neighbors, all of them count.
    loss = said_by(LocalityPreserving("one", 1.0, neighbors=20), targets, embedding=embedding)
    np.testing.assert_allclose(loss[1], ((1 - 3) ** 2 + (11 / 3) ** 2) / 2, rtol=1e-5)


def test_neighbors_stand_still_in_the_gradient_of_locality() -> None:
    """Li et al., eq. 6: x less the mean of its neighbors, whoever has x for a neighbor."""
    embedding = np.random.default_rng(2).normal(size=(9, 3)).astype(np.float32)
    numbers = np.array([0, 0, 0, 0, 1, 1, 1, 2, -1])
    expected = np.zeros_like(embedding)
    for row, number in enumerate(numbers):
        others = np.flatnonzero((numbers == number) & (np.arange(9) != row))
        nearest = others[np.linalg.norm(embedding[others] - embedding[row], axis=1).argsort()][:2]
        if number >= 0 and len(nearest):
            expected[row] = embedding[row] - embedding[nearest].mean(axis=0)
    values = keras.Variable(embedding)
    gradient = _gradient(LocalityPreserving("one", 3.0, neighbors=2), classes(*numbers), values)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(gradient), 3 * expected, atol=1e-4)


def test_locality_leaves_two_clusters_of_a_class_where_they_are() -> None:
    rng = np.random.default_rng(0)
    embedding = np.concatenate([rng.normal(0, 1, (8, 2)), rng.normal(20, 1, (8, 2))]).astype(np.float32)
    after = moved(LocalityPreserving("one", 1.0, neighbors=5), classes(*[0] * 16), embedding)
    assert after[:8].std(axis=0).max() < 0.2 * embedding[:8].std(axis=0).min()
    assert np.linalg.norm(after[8:].mean(axis=0) - after[:8].mean(axis=0)) > 25  # no common center


def test_contrastive_pairs() -> None:
    embedding = [[2.0, 0.0], [0.0, 3.0], [1.0, 0.0], [5.0, 5.0]]
    loss = said_by(Contrastive("one", 1.0, margin=2.0), classes(0, 0, 1, -1), embedding=embedding)
    # Of length 1: the first two are sqrt(2) apart and of one class; the third is where the first is.
    push = (2 - np.sqrt(2)) ** 2
    np.testing.assert_allclose(loss, [(2 + 4) / 2, (2 + push) / 2, (4 + push) / 2 / 2, 0.0], atol=6e-3)


def test_contrastive_pulls_together_and_pushes_apart() -> None:
    rng = np.random.default_rng(1)
    embedding = rng.normal(size=(12, 4)).astype(np.float32)
    after = moved(Contrastive("one", 1.0), classes(*[0, 1, 2] * 4), embedding, steps=600)
    unit = after / np.linalg.norm(after, axis=1, keepdims=True)
    distances = np.linalg.norm(unit[:, None] - unit[None], axis=2)
    same = np.equal.outer(np.arange(12) % 3, np.arange(12) % 3)
    assert distances[same].max() < 0.3 < 0.8 < distances[~same].min()


def test_pairs_of_people_whatever_they_express() -> None:
    features = [[2.0, 0.0], [0.0, 3.0], [1.0, 0.0], [5.0, 5.0]]
    people = {**classes(0, 1, 2, 0), "subject": np.array([[7], [7], [4], [-1]], np.float32)}
    loss = said_by(IdentityContrastive(1.0, margin=2.0), people, identity=features)
    push = (2 - np.sqrt(2)) ** 2
    np.testing.assert_allclose(loss, [(2 + 4) / 2, (2 + push) / 2, (4 + push) / 2 / 2, 0.0], atol=6e-3)
    # Others together are another loss, if as many.
    other = said_by(
        IdentityContrastive(1.0, margin=2.0),
        {"subject": np.array([[7], [4], [7], [-1]], np.float32)},
        identity=features,
    )
    assert abs(other - loss).max() > 0.5


def test_squared_hinge_of_rare_classes_weighs_more() -> None:
    logits = [[2.0, -3.0, 0.5], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]
    weighed = said_by(SquaredHinge("one", slice(0, 3), 0.5, (0.5, 1.0, 1.5)), classes(0, 2, -1), logits=logits)
    np.testing.assert_allclose(weighed, [0.5 * 0.5 * 1.5**2, 1.5 * 0.5 * 3, 0.0])


def test_squared_hinge() -> None:
    logits = [[2.0, -3.0, 0.5], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]
    loss = said_by(SquaredHinge("one", slice(0, 3), 0.5), classes(0, 2, -1), logits=logits)
    np.testing.assert_allclose(loss, [0.5 * 1.5**2, 0.5 * 3, 0.0])


def test_tuplets_bound_positives_and_negatives_of_the_same_people() -> None:
    # On the unit circle: two people, "a" shows expressions 0 and 1, "b" 0 alone, "c" 1 alone.
    angles = np.deg2rad([0.0, 40.0, 60.0, 100.0])
    embedding = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    targets = {**classes(0, 0, 1, 1), "subject": np.array([[0], [1], [0], [2]], np.float32)}
    threshold, margin = 0.6, 0.4
    mean = embedding[:2].mean(axis=0)
    far = np.maximum(0, ((embedding[:2] - mean) ** 2).sum(axis=1) - threshold + margin / 2)
    near = np.maximum(0, threshold + margin / 2 - ((embedding[2] - mean) ** 2).sum())  # "c" is no positive of 0
    others = embedding[2:].mean(axis=0)
    far_other = np.maximum(0, ((embedding[2:] - others) ** 2).sum(axis=1) - threshold + margin / 2)
    near_other = np.maximum(0, threshold + margin / 2 - ((embedding[0] - others) ** 2).sum())  # "b" is none of 1
    expected = sum(
        one.sum() / max(1, (one > 0).sum()) for one in map(np.atleast_1d, (far, near, far_other, near_other))
    )
    loss = said_by(TupletClusters("one", 1.0, threshold, margin), targets, embedding=embedding)
    np.testing.assert_allclose(loss.mean(), expected, rtol=1e-5)
    assert near > 0


def test_tuplets_need_to_know_who_it_is() -> None:
    embedding = np.random.default_rng(2).normal(size=(6, 3))
    nobody = {**classes(0, 0, 1, 1, 2, 2), "subject": np.full((6, 1), -1, np.float32)}
    assert said_by(TupletClusters("one", 1.0), nobody, embedding=embedding).sum() == 0


def test_tuplets_make_expressions_of_one_person_differ_more_than_people() -> None:
    rng = np.random.default_rng(3)
    people, shown = np.repeat(np.arange(4), 3), np.tile(np.arange(3), 4)
    # At first who it is decides where a face lies.
    embedding = (0.6 * rng.normal(size=(4, 6))[people] + 0.1 * rng.normal(size=(12, 6))).astype(np.float32)
    targets = {**classes(*shown), "subject": people[:, None].astype(np.float32)}
    task = TupletClusters("one", 1.0)

    def gap(values: Floats) -> float:
        unit = values / np.linalg.norm(values, axis=1, keepdims=True)
        distances = ((unit[:, None] - unit[None]) ** 2).sum(axis=2)
        alike = np.equal.outer(shown, shown) & ~np.eye(12, dtype=bool)
        return float(
            distances[np.equal.outer(people, people) & ~np.eye(12, dtype=bool)].mean() - distances[alike].mean()
        )

    assert gap(embedding) < -1
    assert gap(moved(task, targets, embedding, steps=800)) > 0.1


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"locality": 0.003}, LocalityPreserving),
        ({"contrastive": 0.3}, Contrastive),
        ({"tuplets": 0.5}, TupletClusters),
        ({"identity": 0.5}, IdentityContrastive),
        ({"classification": "l2_svm"}, SquaredHinge),
    ],
)
def test_a_recipe_composes_them(changes: dict[str, Any], kind: type) -> None:
    recipe = Recipe("x", ModelRecipe([[8, 2]]), **changes)
    tasks = compose(recipe, HEADS, ["logits", "identity" if "identity" in changes else "embedding"])
    assert [type(task) for task in tasks].count(kind) == 1
    # A fine-tuning that gives logits alone has the losses on these alone.
    on_logits = compose(recipe, HEADS, ["logits"])
    assert {type(task) for task in on_logits} <= {Classification, SquaredHinge}
