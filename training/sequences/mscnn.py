"""MSCNN, the multi-signal network: recognition of both faces of a pair, and verification between them.

Zhang, Huang, Du and Wang, "Facial Expression Recognition Based on Deep Evolutional Spatial-Temporal Networks", IEEE TIP
2017: the spatial half of their system (``phrnn`` is the temporal one). Its verification asks whether two faces show one
expression; surveys read it as face verification, whether they are one person. Both can be asked here, of the same
pairs: two people with one expression, or one person with two. Data without people cannot make them.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import keras
import numpy as np
from numpy.typing import NDArray

from training.losses.verification import Verification
from training.sequences.branch import Trunk, branch, of_frames
from training.sequences.clips import Examples
from training.sequences.fit import Drawn, Plan, Trained, fit, mmac, one_hot, softmax
from training.tasks import Classification, TrainingNetwork

Asked: TypeAlias = Literal["expression", "identity"]


def pair_network(core: keras.Model, verification: Verification) -> TrainingNetwork:
    """A branch on both faces of a pair: inputs "first" and "second"."""
    inputs = {name: keras.Input(core.input.shape[1:], name=name) for name in ("first", "second")}
    outputs = {f"{name}_{layer}": value for name in inputs for layer, value in core(inputs[name]).items()}
    network = TrainingNetwork(inputs, outputs)
    whole = slice(0, core.output["logits"].shape[1])
    network.tasks = [*(Classification(name, whole, output=f"{name}_logits") for name in inputs), verification]
    return network


def partners(
    truth: NDArray[np.int64], subjects: NDArray[np.str_], chance: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A pair of clips for each clip and each kind: (2 n,) places of the first and of the second.

    Of the first n pairs the second is of another person with the same expression, or the clip itself where nobody
    else shows it; of the last n it is of the same person with another expression, or of anybody with another one where
    the person has but one.
    """
    count = len(truth)
    same_expression, same_person = truth[:, np.newaxis] == truth, subjects[:, np.newaxis] == subjects
    itself, anybody = np.eye(count, dtype=bool), ~same_expression
    seconds = []
    for wanted, otherwise in (
        (same_expression & ~same_person, itself),
        (same_person & ~same_expression, anybody),
    ):
        pool = np.where(wanted.any(axis=1, keepdims=True), wanted, otherwise)
        seconds += [chance.choice(np.flatnonzero(row)) for row in pool]
    return np.tile(np.arange(count), 2), np.array(seconds, np.int64)


def pairs(examples: Examples, asked: Asked, chance: np.random.Generator) -> Drawn:
    """``partners`` with a frame of each clip, mirrored or not, by chance."""
    first, second = partners(examples.truth, examples.subjects, chance)
    code = examples.truth if asked == "expression" else examples.subjects
    inputs, targets = {}, {"alike": (code[first] == code[second])[:, np.newaxis].astype(np.float32)}
    for name, rows in (("first", first), ("second", second)):
        view, frame = (chance.integers(0, high, len(rows)) for high in (2, examples.inputs.shape[2]))
        inputs[name] = examples.inputs[rows, view, frame]
        targets[name] = one_hot(examples.truth[rows], examples.classes)
    return inputs, targets


def distances(embedding: NDArray[Any], truth: NDArray[np.int64], subjects: NDArray[np.str_]) -> dict[str, float]:
    """Mean distances, 0 to 2, between peaks of people: of one expression, of one person; and of all others.

    Args:
        embedding: (n, frames, d); the last frame counts.
        truth: int64 (n,).
        subjects: texts (n,).

    Returns:
        NaN where there is no such pair.
    """
    peaks = embedding[:, -1].astype(np.float64)
    peaks = peaks / np.maximum(np.linalg.norm(peaks, axis=1, keepdims=True), 1e-12)
    far = np.linalg.norm(peaks[:, np.newaxis] - peaks, axis=2)
    same_expression, same_person = truth[:, np.newaxis] == truth, subjects[:, np.newaxis] == subjects
    kinds = {
        "distance of one expression, two people": same_expression & ~same_person,
        "distance of one person, two expressions": same_person & ~same_expression,
        "distance of two people, two expressions": ~same_person & ~same_expression,
    }
    return {name: float(far[rows].mean()) if rows.any() else float("nan") for name, rows in kinds.items()}


def train(trunk: Trunk, training: Examples, test: Examples, plan: Plan, seed: int, asked: Asked) -> Trained:
    """Train on pairs; ``asked`` says what verification asks."""
    keras.utils.set_random_seed(seed)
    core = branch(trunk, training.classes)

    def measure() -> dict[str, float]:
        return distances(of_frames(core, test.inputs)["embedding"], test.truth, test.subjects)

    def draw(chance: np.random.Generator) -> Drawn:
        return pairs(training, asked, chance)

    curves = fit(pair_network(core, Verification()), draw, plan, np.random.default_rng(seed), measure)
    probabilities = softmax(of_frames(core, test.inputs)["logits"])
    parameters = trunk.lower.count_params() + core.count_params()
    return Trained(probabilities, curves, parameters, mmac(trunk.lower) + mmac(core))
