"""The figures of a trained row: PublicTest, another data set, int8, the Edge TPU's list, and the paired test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from datasets import Dataset
from edge_fer.errors import EdgeFerError
from edge_fer.model.litert import Network, why_it_kills
from edge_fer.model.spec import Head, head_slices
from evaluation.metrics import evaluate_logits
from evaluation.paired import mcnemar
from training.finished import FinishedRun
from training.plan import Pipeline, Step

CALIBRATION = 200
"""Training faces that int8 is calibrated on."""


def on_test(run: FinishedRun) -> dict[str, dict[str, float]]:
    """N, accuracy and mean recall on PublicTest by the heads that were trained, those whose task has a weight."""
    weights = run.recipe.get("task_weights", {})
    return {head.name: _short(run.facts["public_test"][head.name]) for head in run.heads if weights.get(head.name, 1)}


def across(model: keras.Model, heads: Sequence[Head], data: Dataset) -> dict[str, Any]:
    """N, and mean recall by head, on faces of another data set that all heads have a class for."""
    metrics = evaluate_logits(model.predict(data.images, batch_size=512, verbose=0), data, heads)
    short = {head.name: _short(metrics[head.name]) for head in heads}
    return {"n": len(data), "mean_recall": {name: one["mean_recall"] for name, one in short.items()}}


def minutes(plan: Pipeline, step: Step) -> float:
    """What a stage took, and those that it was made from."""
    before = sum(minutes(plan, plan.known[key]) for key in step.stage.inputs if "/" in key)
    return before + float((step.record or {}).get("seconds", 0)) / 60


def quantized(
    model: keras.Model, training: Dataset, test: Dataset, heads: Sequence[Head]
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Accuracy of the network in int8 by head, and what the Edge TPU's list says of its operators.

    Without the exporter's remedies and gate: whether plain int8 keeps what the network can. It runs on the runtime's
    plain kernels; in a process of its own first, for there are networks that take these down too.

    Args:
        model: raw pixels -> logits.
        training: what it is calibrated on.
        test: what it is measured on.
        heads: of the network.

    Returns:
        ``int8`` and ``edge_tpu`` of ``results.Result``.
    """
    from export.convert import to_int8
    from export.edgetpu_rules import check
    from export.flatbuffer import read_operators

    faces = training.images[:: max(1, len(training) // CALIBRATION)][:CALIBRATION]
    try:
        flatbuffer = to_int8(model, faces, Console(quiet=True))
        operators = read_operators(flatbuffer)
        if reason := why_it_kills(flatbuffer, faces[:1], "builtin"):
            return {"refused": f"in the runtime it {reason}"}, None
        network = Network(flatbuffer, kernels="builtin")
    except EdgeFerError as error:
        return {"refused": str(error)}, None
    (target,) = network.outputs
    logits = np.stack([target.real(network.run(image[np.newaxis])[0][0]) for image in test.images])
    metrics = evaluate_logits(logits, test, heads)
    verdicts = check(operators)
    cut = next((at for at, one in enumerate(verdicts) if one.obstacle), len(verdicts))
    obstacle = f"{verdicts[cut].operator} {verdicts[cut].obstacle}" if cut < len(verdicts) else ""
    accuracy = {head.name: metrics[head.name]["accuracy"] for head in heads}
    return {"accuracy": accuracy}, {"operators": len(verdicts), "mapped": cut, "obstacle": obstacle}


def paired(run: FinishedRun, other: FinishedRun) -> dict[str, dict[str, float]]:
    """By head that both have learned: how far a run lies above another on the same images, and the p of that."""
    both = on_test(run).keys() & on_test(other).keys()
    compared = {}
    for place, head in enumerate(run.heads):
        if head.name not in both:
            continue
        truth = run.truth[:, place]
        theirs, ours = (_answers(one, head)[truth >= 0] for one in (other, run))
        test = mcnemar(truth[truth >= 0], theirs, ours)
        difference = (test["only_second"] - test["only_first"]) / max(1, len(ours))
        compared[head.name] = {"difference": round(difference, 5), "p": round(test["p"], 5)}
    return compared


def _answers(run: FinishedRun, head: Head) -> NDArray[np.int64]:
    answers: NDArray[np.int64] = run.logits[:, head_slices(run.heads)[head.name]].argmax(axis=1)
    return answers


def _short(metrics: Mapping[str, Any]) -> dict[str, float]:
    recalls = [one for one in metrics["recall"].values() if one is not None]
    return {"n": metrics["n"], "accuracy": metrics["accuracy"], "mean_recall": round(sum(recalls) / len(recalls), 4)}
