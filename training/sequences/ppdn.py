"""Peak-piloted networks: a frame of weak expression learns from the peak of its sequence, and not the other way round.

PPDN: Zhao et al., "Peak-Piloted Deep Network for Facial Expression Recognition", ECCV 2016. A pair of a sequence's peak
and an earlier frame goes through one network; the loss is the cross entropy of both and the squared distance of their
features. Peak gradient suppression (PGS) takes the peak's features in that distance for constants: the peak would else
give up what the other frame lacks.

DCPN: Yu, Liu and Liu, "Deeper cascaded peak-piloted network for weak expression recognition", The Visual Computer 2018:
a deeper network, trained by cascaded fine-tuning so that few faces do not overfit it. How its stages are cut is not
taken from the paper: here two residual blocks are added, and trained first with the last layer; then also what
lies right below them; then all upper stages, each time with half of the learning rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from training.sequences.branch import Trunk, branch, of_frames
from training.sequences.clips import Examples
from training.sequences.fit import Drawn, Plan, Trained, fit, mmac, one_hot, softmax
from training.tasks import Classification, Task, TrainingNetwork

LAYERS = ("embedding",)
"""Whose features of the weak frame are brought to those of the peak: what the last layer reads. Behind it is dropout,
whose noise would be taken for a distance: with the logits too, accuracy fell (docs/sequences-offline.md)."""
STAGES = 3
"""Of cascaded fine-tuning."""


@dataclass(frozen=True)
class PeakPiloting:
    """Squared distance of the weak frame's features to the peak's, which stand still (PGS).

    A ``tasks.Task``; outputs are "peak_L" and "weak_L" for each layer L, (n, d).

    Attributes:
        weight: of this task.
        suppress: whether the peak's gradient is suppressed; without it the two only meet.
    """

    weight: float = 1.0
    suppress: bool = True

    def __call__(self, targets: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
        still = ops.stop_gradient if self.suppress else ops.convert_to_tensor
        distances = (
            ops.sum((outputs[f"weak_{layer}"] - still(outputs[f"peak_{layer}"])) ** 2, axis=1) for layer in LAYERS
        )
        return self.weight * sum(distances)


def pair_network(core: keras.Model, piloting: PeakPiloting | None) -> TrainingNetwork:
    """A branch on both frames of a pair: inputs "peak" and "weak", cross entropy of both, and the piloting."""
    inputs = {name: keras.Input(core.input.shape[1:], name=name) for name in ("peak", "weak")}
    outputs = {f"{name}_{layer}": value for name in inputs for layer, value in core(inputs[name]).items()}
    network = TrainingNetwork(inputs, outputs)
    whole = slice(0, core.output["logits"].shape[1])
    tasks: list[Task] = [Classification("expression", whole, output=f"{name}_logits") for name in inputs]
    network.tasks = [*tasks, piloting] if piloting else tasks
    return network


def pairs(examples: Examples, chance: np.random.Generator) -> Drawn:
    """The peak of each clip with each of its earlier frames, mirrored or not by chance."""
    weak = examples.inputs.shape[2] - 1
    rows = np.repeat(np.arange(len(examples.truth)), weak)
    frames = np.tile(np.arange(weak), len(examples.truth))
    view = chance.integers(0, 2, len(rows))
    inputs = {"peak": examples.inputs[rows, view, -1], "weak": examples.inputs[rows, view, frames]}
    return inputs, {"expression": one_hot(examples.truth[rows], examples.classes)}


def gap(embedding: NDArray[Any]) -> float:
    """How far weak frames are from the peak of their clip, in parts of how far the peaks of clips are from each other.

    Args:
        embedding: (n, frames, d), n of 2 or more.

    Returns:
        A ratio of mean squared distances; 0: weak frames look like peaks. It is none of scale.
    """
    peaks = embedding[:, -1].astype(np.float64)
    inside = ((embedding[:, :-1] - peaks[:, np.newaxis]) ** 2).sum(axis=2).mean()
    others = 2 * ((peaks - peaks.mean(axis=0)) ** 2).sum(axis=1).sum() / (len(peaks) - 1)
    return float(inside / max(others, 1e-12))


def train(
    trunk: Trunk, training: Examples, test: Examples, plan: Plan, seed: int, piloting: PeakPiloting | None
) -> Trained:
    """PPDN; without ``piloting`` cross entropy alone, on the same pairs, which is what it is to be measured against."""
    keras.utils.set_random_seed(seed)
    chance = np.random.default_rng(seed)
    core = branch(trunk, training.classes)
    curves = _fitted(core, training, test, plan, chance, piloting)
    return _trained(trunk, core, test, curves)


def train_cascaded(trunk: Trunk, training: Examples, test: Examples, plan: Plan, seed: int) -> Trained:
    """DCPN: a deeper branch in stages from the top, ``plan.epochs`` in all."""
    keras.utils.set_random_seed(seed)
    chance = np.random.default_rng(seed)
    core = branch(trunk, training.classes, deeper=2)
    curves: dict[str, list[float]] = {}
    for stage in range(STAGES):
        unfreeze(core, stage / (STAGES - 1))
        epochs = plan.epochs * (stage + 1) // STAGES - plan.epochs * stage // STAGES
        part = plan._replace(epochs=epochs, learning_rate=plan.learning_rate / 2**stage)
        for name, values in _fitted(core, training, test, part, chance, PeakPiloting()).items():
            curves.setdefault(name, []).extend(values)
    return _trained(trunk, core, test, curves)


def unfreeze(core: keras.Model, fraction: float) -> None:
    """Let the uppermost fraction of the layers taken over learn, and all that are new; the others stand still."""
    new = ("deeper_", "logits")
    taken = [layer for layer in core.layers if layer.weights and not layer.name.startswith(new)]
    still = len(taken) - round(fraction * len(taken))
    for number, layer in enumerate(taken):
        layer.trainable = number >= still


def _fitted(
    core: keras.Model,
    training: Examples,
    test: Examples,
    plan: Plan,
    chance: np.random.Generator,
    piloting: PeakPiloting | None,
) -> dict[str, list[float]]:
    def measure() -> dict[str, float]:
        return {"gap of held-out weak frames": gap(of_frames(core, test.inputs)["embedding"])}

    return fit(pair_network(core, piloting), lambda drawn: pairs(training, drawn), plan, chance, measure)


def _trained(trunk: Trunk, core: keras.Model, test: Examples, curves: dict[str, list[float]]) -> Trained:
    probabilities = softmax(of_frames(core, test.inputs)["logits"])
    parameters = trunk.lower.count_params() + core.count_params()
    return Trained(probabilities, curves, parameters, mmac(trunk.lower) + mmac(core))
