"""Each task against its closed form, what a recipe composes of them, and their sum. On JAX too: ``make test-jax``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from labeled import HEADS, labeled
from numpy.typing import NDArray

import datasets
from datasets import Dataset, Labels
from datasets.fer2013 import FER2013_LABELS, FERPLUS_LABELS
from edge_fer.core import Expression as E
from edge_fer.errors import ConfigError, DataError
from edge_fer.model.spec import Head
from training.__main__ import main
from training.recipe import ClassBalanceRecipe, DistillRecipe, ModelRecipe, Recipe
from training.tasks import (
    CenterLoss,
    ClassBalance,
    Classification,
    Consistency,
    Distillation,
    Task,
    TrainingNetwork,
    class_balance,
    compose,
    targets_of,
)

Floats = NDArray[np.float32]

FERPLUS, FER2013 = slice(0, 8), slice(8, 15)
LOGITS, TEACHER = np.random.default_rng(0).normal(size=(2, 4, 15)).astype(np.float32)
TARGETS = {  # one label; votes; smoothed; none
    "ferplus": np.array([np.eye(8)[1], [0.5, 0.25, 0, 0, 0, 0, 0, 0.25], np.eye(8)[7], [0] * 8], np.float32),
    "fer2013": np.array([np.eye(7)[0], np.eye(7)[6], np.eye(7)[2] * 0.3 + 0.1, [0] * 7], np.float32),
}


def said_by(task: Task, targets: Mapping[str, Any], outputs: Mapping[str, Any]) -> Floats:
    """The loss of each sample."""
    loss = keras.ops.convert_to_numpy(task(targets, {name: keras.ops.array(each) for name, each in outputs.items()}))
    assert loss.shape == (len(LOGITS),)
    return loss


def gradient(task: Task, targets: Mapping[str, Any], outputs: Mapping[str, Any], of: str = "logits") -> Floats:
    """Of the sum of the losses, by one output."""

    def total(values: Any) -> Any:
        return keras.ops.sum(task(targets, {**outputs, of: values}))

    if keras.backend.backend() == "jax":
        import jax

        return np.asarray(jax.grad(total)(outputs[of]))
    import tensorflow as tf

    values = tf.constant(outputs[of])
    with tf.GradientTape() as tape:
        tape.watch(values)
        loss = total(values)
    return np.asarray(tape.gradient(loss, values))


def softmax(logits: Floats) -> Floats:
    powers = np.exp(logits)
    return powers / powers.sum(axis=1, keepdims=True)


def cross_entropy(target: Floats, logits: Floats) -> Floats:
    return -(target * np.log(softmax(logits))).sum(axis=1)


# Labels


@pytest.mark.parametrize(("head", "part"), [("ferplus", FERPLUS), ("fer2013", FER2013)])
def test_classification_is_the_cross_entropy_with_labels_of_any_kind(head: str, part: slice) -> None:
    task, target = Classification(head, part, weight=2.0), TARGETS[head]
    loss = said_by(task, TARGETS, {"logits": LOGITS})
    assert loss == pytest.approx(2 * cross_entropy(target, LOGITS[:, part]), rel=1e-4)
    assert loss[3] == 0  # has no label
    slope = gradient(task, TARGETS, {"logits": LOGITS})
    known = target.sum(axis=1, keepdims=True)
    assert slope[:, part] == pytest.approx(2 * known * (softmax(LOGITS[:, part]) - target), abs=1e-5)
    assert np.delete(slope, np.arange(15)[part], axis=1).tolist() == np.zeros((4, 15 - len(target[0]))).tolist()


def test_who_says_nothing_has_the_logarithm_of_the_classes() -> None:
    nothing = {"logits": np.zeros((4, 15), np.float32)}
    assert said_by(Classification("ferplus", FERPLUS), TARGETS, nothing)[:3] == pytest.approx([np.log(8)] * 3, rel=1e-4)


def test_an_auxiliary_head_has_a_loss_of_its_own() -> None:
    outputs = {"logits": LOGITS, "auxiliary_0": TEACHER}
    loss = said_by(Classification("fer2013", FER2013, 0.3, output="auxiliary_0"), TARGETS, outputs)
    assert loss == pytest.approx(0.3 * cross_entropy(TARGETS["fer2013"], TEACHER[:, FER2013]), rel=1e-4)


def test_classes_weigh_by_the_target_and_offsets_move_the_logits() -> None:
    weights, offsets = (0.5, 1.0, 4.0, 1.0, 1.0, 1.0, 2.0), tuple(np.linspace(-2, 1, 7).tolist())
    target, plain = TARGETS["fer2013"], cross_entropy(TARGETS["fer2013"], LOGITS[:, FER2013])
    of_sample = np.array([0.5, 2.0, 0.1 * sum(weights) + 0.3 * 4.0, 0.0])
    loss = said_by(Classification("fer2013", FER2013, class_weights=weights), TARGETS, {"logits": LOGITS})
    assert loss == pytest.approx(of_sample * plain, rel=1e-4)
    moved = LOGITS[:, FER2013] + np.array(offsets, np.float32)
    loss = said_by(Classification("fer2013", FER2013, logit_offsets=offsets), TARGETS, {"logits": LOGITS})
    assert loss == pytest.approx(cross_entropy(target, moved), rel=1e-4)
    task = Distillation("fer2013", FER2013, 1.0, 2.0, offsets)
    soft = softmax(TEACHER[:, FER2013] / 2)
    loss = said_by(task, {**TARGETS, "teacher": TEACHER}, {"logits": LOGITS})
    assert loss == pytest.approx(4 * cross_entropy(soft, moved / 2), rel=1e-4)


def test_targets_are_votes_as_they_are_and_single_labels_smoothed(data: Path) -> None:
    targets = targets_of(datasets.load(data)["Training"], label_smoothing=0.7)
    assert {name: (each.shape, each.dtype) for name, each in targets.items()} == {
        "ferplus": ((140, 8), np.float32),
        "fer2013": ((140, 7), np.float32),
    }
    assert targets["ferplus"][0].tolist() == [float(label == E.ANGER) for label in FERPLUS_LABELS]
    assert targets["fer2013"][0] == pytest.approx([0.4, *[0.1] * 6])
    none = targets_of(labeled([None, E.DISGUST]), label_smoothing=0.7)
    assert none["fer2013"] == pytest.approx(np.array([[0] * 7, [0.1, 0.4, *[0.1] * 5]]))


# Teachers


def test_distillation_is_hintons() -> None:
    task, temperature = Distillation("ferplus", FERPLUS, weight=0.25, temperature=3.0), 3.0
    soft, own = (softmax(one[:, FERPLUS] / temperature) for one in (TEACHER, LOGITS))
    expected = 0.25 * temperature**2 * cross_entropy(soft, LOGITS[:, FERPLUS] / temperature)
    cached = {**TARGETS, "teacher": TEACHER}
    assert said_by(task, cached, {"logits": LOGITS}) == pytest.approx(expected, rel=1e-4)
    # T^2 is what keeps the gradient, which softening divides by T twice, as large as that of the labels.
    slope = gradient(task, cached, {"logits": LOGITS})
    assert slope[:, FERPLUS] == pytest.approx(0.25 * temperature * (own - soft), abs=1e-5)
    assert not slope[:, FER2013].any()
    # A student that says nothing has the cross entropy log(classes) with any teacher.
    loss = said_by(task, cached, {"logits": np.zeros((4, 15), np.float32)})
    assert loss == pytest.approx(0.25 * 9 * np.log(8), rel=1e-4)


def test_a_student_who_copies_the_teacher_has_no_gradient() -> None:
    task, targets = Distillation("fer2013", FER2013, 1.0, 3.0), {"teacher": TEACHER}
    assert gradient(task, targets, {"logits": TEACHER}) == pytest.approx(np.zeros((4, 15)), abs=1e-5)
    least = said_by(task, targets, {"logits": TEACHER})
    for change in np.random.default_rng(1).normal(0, 0.1, (5, 4, 15)).astype(np.float32):
        assert (said_by(task, targets, {"logits": TEACHER + change}) > least).all()


def test_a_teacher_that_is_asked_online_comes_before_cached_logits() -> None:
    task = Distillation("fer2013", FER2013, 1.0, 2.0)
    cached = said_by(task, {"teacher": TEACHER}, {"logits": LOGITS})
    online = said_by(task, {"teacher": LOGITS}, {"logits": LOGITS, "teacher": TEACHER})
    assert online.tolist() == cached.tolist()


# Two views


def test_consistency_is_the_divergence_of_the_corrupted_view_from_the_clean_one() -> None:
    task, outputs = Consistency(FER2013, weight=3.0), {"logits": LOGITS, "corrupted": TEACHER}
    clean, corrupted = softmax(LOGITS[:, FER2013]), softmax(TEACHER[:, FER2013])
    divergence = (clean * np.log(clean / corrupted)).sum(axis=1)
    assert said_by(task, {}, outputs) == pytest.approx(3.0 * divergence, rel=1e-4)
    assert said_by(task, {}, {"logits": LOGITS, "corrupted": LOGITS}) == pytest.approx(np.zeros(4), abs=1e-6)


def test_consistency_moves_the_answer_to_the_corrupted_image_alone() -> None:
    task, outputs = Consistency(FER2013, weight=3.0), {"logits": LOGITS, "corrupted": TEACHER}
    assert not gradient(task, {}, outputs).any()
    slope = gradient(task, {}, outputs, "corrupted")
    expected = np.zeros((4, 15))
    expected[:, FER2013] = 3.0 * (softmax(TEACHER[:, FER2013]) - softmax(LOGITS[:, FER2013]))
    assert slope == pytest.approx(expected, abs=1e-5)


# Centers


def test_the_center_loss_is_half_the_distance_to_the_own_center_and_the_island_loss_its_pairs() -> None:
    columns = np.column_stack([np.arange(28).reshape(4, 7), np.full(4, 6)]).astype(np.float32)
    task, outputs = CenterLoss("fer2013", weight=0.1, island=10.0), {"logits": LOGITS, "centers": columns}
    own = np.array([0, 7 + 6, 14 + 2, 0])  # smoothed labels have a class of their own too; the last sample has none
    assert said_by(task, TARGETS, outputs) == pytest.approx(0.1 * (own / 2 + 10 * 6), rel=1e-5)
    slope = gradient(task, TARGETS, outputs, "centers")
    expected = np.zeros((4, 8))
    expected[[0, 1, 2], [0, 6, 2]] = 0.05
    expected[:, 7] = 1.0
    assert slope == pytest.approx(expected)
    without = said_by(CenterLoss("fer2013", weight=0.1, island=0.0), TARGETS, outputs)
    assert without == pytest.approx(0.1 * own / 2, rel=1e-5)


# What a recipe says


def test_the_tasks_are_those_of_the_recipe() -> None:
    recipe = Recipe("x", ModelRecipe([[4, 2], [4, 2]]), task_weights={"ferplus": 2.0})
    assert compose(recipe, HEADS, ["logits"]) == [
        Classification("ferplus", FERPLUS, 2.0),
        Classification("fer2013", FER2013, 1.0),
    ]
    recipe = Recipe(
        "x",
        ModelRecipe([[4, 2], [4, 2]]),
        task_weights={"ferplus": 2.0},
        distill=DistillRecipe(weight=0.25, temperature=4.0),
        auxiliary_heads=0.5,
        consistency=3.0,
        center=0.01,
        island=10.0,
    )
    weights, offsets = (1.0,) * 8, (0.5,) * 7
    balance = {"ferplus": ClassBalance(class_weights=weights), "fer2013": ClassBalance(logit_offsets=offsets)}
    outputs = ["logits", "auxiliary_0", "centers", "corrupted", "teacher", "mixup"]
    assert compose(recipe, HEADS, outputs, balance) == [
        Classification("ferplus", FERPLUS, 2.0 * 0.75, weights, None, "logits"),
        Distillation("ferplus", FERPLUS, 2.0 * 0.25, 4.0, None, "logits"),
        Classification("fer2013", FER2013, 0.75, None, offsets, "logits"),
        Distillation("fer2013", FER2013, 0.25, 4.0, offsets, "logits"),
        Classification("ferplus", FERPLUS, 0.5 * 2.0 * 0.75, weights, None, "auxiliary_0"),
        Distillation("ferplus", FERPLUS, 0.5 * 2.0 * 0.25, 4.0, None, "auxiliary_0"),
        Classification("fer2013", FER2013, 0.5 * 0.75, None, offsets, "auxiliary_0"),
        Distillation("fer2013", FER2013, 0.5 * 0.25, 4.0, offsets, "auxiliary_0"),
        Consistency(FERPLUS, 3.0 * 2.0),
        Consistency(FER2013, 3.0),
        CenterLoss("fer2013", 0.01, 10.0),
    ]


def test_other_data_have_other_tasks() -> None:
    recipe = Recipe("x", ModelRecipe([[4, 2]]), center=0.1)
    head = Head("expression", (E.HAPPINESS, E.SADNESS))
    assert compose(recipe, [head], ["logits", "centers"]) == [
        Classification("expression", slice(0, 2)),
        CenterLoss("expression", 0.1, 0.0),
    ]


def test_a_weight_for_a_task_that_is_not_there_is_refused() -> None:
    recipe = Recipe("x", ModelRecipe([[4, 2]]), task_weights={"affectnet": 2.0})
    with pytest.raises(ConfigError, match="'affectnet'; the heads are ferplus, fer2013"):
        compose(recipe, HEADS, ["logits"])


# Rare classes

# Class 3 of FER2013 stands twice, all of FER+ once.
SAMPLES = labeled([*FER2013_LABELS, FER2013_LABELS[3]], FERPLUS_LABELS)


def test_logit_adjustment_adds_the_logarithm_of_the_priors() -> None:
    balance = class_balance(ClassBalanceRecipe("logit_adjustment", tau=2.0), SAMPLES)
    assert balance == {
        "ferplus": ClassBalance(logit_offsets=pytest.approx([2 * np.log(1 / 8)] * 8)),
        "fer2013": ClassBalance(logit_offsets=pytest.approx(2 * np.log([1 / 8, 1 / 8, 1 / 8, 2 / 8, *[1 / 8] * 3]))),
    }


def test_the_effective_number_weighs_samples() -> None:
    balance = class_balance(ClassBalanceRecipe("effective_number", beta=0.5), SAMPLES)
    raw = np.array([1, 1, 1, 0.5 / 0.75, 1, 1, 1])
    assert balance == {
        "ferplus": ClassBalance(class_weights=pytest.approx([1.0] * 8)),
        "fer2013": ClassBalance(class_weights=pytest.approx(raw / raw.mean())),
    }


def test_a_sample_counts_by_its_votes() -> None:
    targets = np.array([[0.75, 0.25], [1, 0], [0, 0]], np.float32)
    votes = Labels((E.FEAR, E.ANGER), np.array([0, 0, -1]), targets, votes=10 * targets)
    data = Dataset(np.zeros((3, 8, 8, 1), np.uint8), {"x": votes}, np.zeros(3, np.bool_))
    balance = class_balance(ClassBalanceRecipe("logit_adjustment"), data)
    assert balance["x"].logit_offsets == pytest.approx(np.log([1.75 / 2, 0.25 / 2]))


def test_an_empty_class_cannot_be_balanced(
    data: Path, recipe: Callable[..., Path], call: Callable[..., Any], tmp_path: Path
) -> None:
    assert class_balance(ClassBalanceRecipe(), SAMPLES[:3]) == {}
    with pytest.raises(DataError, match="No Training sample is surprise"):
        class_balance(ClassBalanceRecipe("logit_adjustment"), SAMPLES[np.array([0, 1, 3, 4, 5, 6, 7])])
    path, run = recipe({"class_balance.kind": "effective_number"}), tmp_path / "run"
    refused = call(main, "train", "--recipe", path, "--data", data, "--run", run)
    assert refused.code == 65
    assert "No Training sample is contempt (ferplus)" in refused.err.replace("\n", " ")
    assert not run.exists()


# All of them together


def network(tasks: list[Task], classes: int = 15) -> TrainingNetwork:
    """A dense layer that begins with zeros, on two numbers."""
    inputs = keras.Input((2,))
    made = TrainingNetwork(inputs, {"logits": keras.layers.Dense(classes, kernel_initializer="zeros")(inputs)})
    made.tasks = tasks
    return made


def loss_of(tasks: list[Task], targets: Mapping[str, Any], outputs: Mapping[str, Any]) -> float:
    outputs = {name: keras.ops.array(each) for name, each in outputs.items()}
    return float(keras.ops.convert_to_numpy(network(tasks).compute_loss(y=targets, y_pred=outputs)))


def test_the_loss_is_the_mean_of_the_sum_of_the_tasks() -> None:
    tasks: list[Task] = [Classification("ferplus", FERPLUS, 2.0), Classification("fer2013", FER2013)]
    each = [said_by(task, TARGETS, {"logits": LOGITS}) for task in tasks]
    assert loss_of(tasks, TARGETS, {"logits": LOGITS}) == pytest.approx(float(sum(each).mean()), rel=1e-5)


def test_the_loss_of_mixed_images_is_that_of_mixed_labels_and_teachers() -> None:
    lam = np.array([[0.9], [0.3], [0.6], [0.2]], np.float32)

    def mixed(values: Floats) -> Floats:
        return lam * values + (1 - lam) * values[::-1]

    labels: list[Task] = [Classification("ferplus", FERPLUS), Classification("fer2013", FER2013)]
    expected = cross_entropy(mixed(TARGETS["ferplus"]), LOGITS[:, FERPLUS])
    expected += cross_entropy(mixed(TARGETS["fer2013"]), LOGITS[:, FER2013])
    assert loss_of(labels, TARGETS, {"logits": LOGITS, "mixup": lam}) == pytest.approx(expected.mean(), rel=1e-4)
    teacher: list[Task] = [Distillation("ferplus", FERPLUS, 1.0, 2.0)]
    expected = 4 * cross_entropy(mixed(softmax(TEACHER[:, FERPLUS] / 2)), LOGITS[:, FERPLUS] / 2)
    loss = loss_of(teacher, {"teacher": TEACHER}, {"logits": LOGITS, "mixup": lam})
    assert loss == pytest.approx(expected.mean(), rel=1e-4)


def test_soft_targets_of_mixed_images_are_not_mixed_again() -> None:
    lam = np.array([[0.9], [0.3], [0.6], [0.2]], np.float32)
    label, teacher = Classification("fer2013", FER2013, 0.5), Distillation("fer2013", FER2013, 0.5, 2.0)
    seen = {"logits": LOGITS, "mixup": lam}
    online = loss_of([label, teacher], TARGETS, {**seen, "teacher": TEACHER})
    only = said_by(teacher, {"teacher": TEACHER}, {"logits": LOGITS}).mean()
    assert online == pytest.approx(loss_of([label], TARGETS, seen) + float(only), rel=1e-4)


@pytest.mark.trains
def test_fit_takes_targets_by_name_and_steps_down_the_gradient() -> None:
    small = network([Classification("ferplus", FERPLUS, 2.0), Classification("fer2013", FER2013)])
    small.compile(keras.optimizers.SGD(0.5), jit_compile=False)
    inputs = np.random.default_rng(2).normal(size=(4, 2)).astype(np.float32)
    history = small.fit(inputs, TARGETS, batch_size=4, epochs=1, shuffle=False, verbose=0).history
    assert history["loss"] == pytest.approx([(3 * 2 * np.log(8) + 3 * np.log(7)) / 4], rel=1e-4)
    slopes = np.column_stack([2 * (1 / 8 - TARGETS["ferplus"]), 1 / 7 - TARGETS["fer2013"]])
    slopes[3] = 0  # has no label
    kernel, bias = small.get_weights()
    assert kernel == pytest.approx(-0.5 * inputs.T @ slopes / 4, abs=1e-5)
    assert bias == pytest.approx(-0.5 * slopes.mean(axis=0), abs=1e-5)
