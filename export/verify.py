"""Fourth step: is the int8 model as good as the float one? Both on all of PublicTest, and the gate they must pass."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table

from datasets import Dataset
from datasets.core import truth_for
from edge_fer.errors import DataError
from edge_fer.model.decision import softmax
from edge_fer.model.spec import Head, head_slices
from evaluation import metrics
from evaluation.calibration import expected_calibration_error, fit_temperature
from export.flatbuffer import run_flatbuffer, try_out
from export.layers import inspect_layers
from export.result import Comparison, Export

CLEARLY = 10.0
"""Points of accuracy by which another scaling has to be better to be named."""
TIE = 1e-6
"""Probabilities that differ by less are one: which is the larger means nothing."""
JUDGED_FACES = 100
"""With fewer faces of a head the floor is only a warning: chance alone does as much."""
SCALINGS = {
    "[0.00392156862745098, 0.0] (pixel / 255)": (1 / 255, 0.0),
    "[0.00784313725490196, -1.0] (pixel / 127.5 - 1)": (1 / 127.5, -1.0),
    "[0.00392156862745098, -0.5] (pixel / 255 - 0.5)": (1 / 255, -0.5),
    "[1.0, 0.0] (raw pixels)": (1.0, 0.0),
    "[1.0, -128.0] (pixel - 128)": (1.0, -128.0),
    "[0.01735207357, -1.98641975] (pixel / 255, less ImageNet's mean, by its sigma)": (0.01735207357, -1.98641975),
}
"""What people do with pixels in front of a network: tried where one answers no better than chance."""
NOISE_FACES = 32
"""Faces on which the noise of each layer is measured."""


def verify(export: Export) -> Export:
    """Measure all variants, fit the temperatures, compare with float, and print it.

    Raises:
        EdgeFerError: the runtime dies on a variant, there are no logits, or a head has nothing to be measured on.
    """
    options, data = export.options, export.data
    logits = dict(export.logits) or {"Keras": _predicted(export.model, export.tensors, options.model)}
    for variant, flatbuffer in export.flatbuffers.items():
        try_out(flatbuffer, variant)
        logits[variant] = run_flatbuffer(flatbuffer, export.tensors, Console(stderr=True), f"Measuring {variant}")

    parts = head_slices(export.metadata.heads)
    heads = tuple(fit_temperature(head, logits["Keras"][:, parts[head.name]], data) for head in export.metadata.heads)
    measured = {variant: metrics.evaluate_logits(rows, data, heads) for variant, rows in logits.items()}
    unknown = [head.name for head in heads if head.name not in measured["int8"]]
    if unknown:
        raise DataError(
            f"No PublicTest face of {options.data} has a label of the head {unknown[0]!r}: nothing to measure."
        )
    comparisons = [
        row for variant, rows in logits.items() for row in compare(variant, rows, logits["Keras"], data, heads)
    ]
    Console().print(metrics.report({"float": measured["Keras"], "int8": measured["int8"]}))
    Console().print(comparison_table(comparisons, heads))

    reasons = refusals(comparisons, options.max_drop, options.min_agreement)
    if low := shortfalls(comparisons, options.min_gain, options.max_ece):
        better = better_scaling(export, heads, [row for row in comparisons if row.variant == "int8"])
        cause = (
            f"its pixels are probably scaled otherwise than in training: try {better}"
            if better
            else "are its labels in the right order, and its pixels scaled as in training?"
        )
        words = [f"{_shortfall(row, options.min_gain, options.max_ece)} ({cause})" for row in low]
        if better or all(row.n >= JUDGED_FACES for row in low):
            reasons += words
        else:
            for one in words:
                Console().print(f"Warning: {one}. {low[0].n} faces are too few to judge by.", highlight=False)
    few = export.calibration[:: max(1, len(export.calibration) // NOISE_FACES)][:NOISE_FACES]
    wanted = reasons or options.report
    layers = inspect_layers(export.flatbuffers["float32"], export.flatbuffers["int8"], few) if wanted else []
    return dataclasses.replace(
        export,
        metadata=dataclasses.replace(export.metadata, heads=heads),
        logits=logits,
        metrics=measured,
        comparisons=tuple(comparisons),
        reasons=tuple(reasons),
        layers=tuple(layers),
    )


def compare(
    variant: str,
    logits: NDArray[np.float32],
    reference: NDArray[np.float32],
    data: Dataset,
    heads: Sequence[Head],
) -> list[Comparison]:
    """Compare a variant's logits with those of the float Keras model, head by head.

    Args:
        variant: name of it.
        logits: float32 (n, sum of labels).
        reference: the same of the Keras model.
        data: the n rows, some with a label of each head.
        heads: with their temperatures.
    """
    rows = []
    for head in heads:
        part = head_slices(heads)[head.name]
        ours, theirs, labels = logits[:, part], reference[:, part], truth_for(data, head)
        known = labels >= 0
        n = int(known.sum())
        hits, hits_reference = ((x[known].argmax(axis=1) == labels[known]).sum() for x in (ours, theirs))
        ece_raw, ece = (
            expected_calibration_error(softmax(ours[known] / np.float32(temperature)), labels[known])
            for temperature in (1.0, head.temperature)
        )
        rows.append(
            Comparison(
                variant,
                head.name,
                n,
                drop=round(100 * float(hits_reference - hits) / n, 4),
                agreement=round(agreement(ours, theirs), 4),
                largest_difference=round(float(np.abs(ours - theirs).max()), 3),
                ece_raw=round(ece_raw, 4),
                ece=round(ece, 4),
                accuracy=round(100 * float((ours[known].argmax(axis=1) == labels[known]).mean()), 4),
                commonest=round(100 * float(np.bincount(labels[known]).max()) / n, 4),
                labels_given=len(set(ours[known].argmax(axis=1))),
            )
        )
    return rows


def agreement(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    """Fraction of images, 0-1, for which both choose the same label, or one that is as likely to the second."""
    probabilities = softmax(theirs)
    chosen = probabilities[np.arange(len(ours)), ours.argmax(axis=1)]
    return float((chosen >= probabilities.max(axis=1) - TIE).mean())


def shortfalls(comparisons: Sequence[Comparison], min_gain: float, max_ece: float) -> list[Comparison]:
    """The heads whose int8 model is hardly worth having, whatever float says: no better than a guess, or unsure of it.

    Args:
        comparisons: of all variants.
        min_gain: points of accuracy by which a head must be better than always the commonest label.
        max_ece: percent that its confidence may be off on average, with its temperature.
    """
    return [row for row in comparisons if row.variant == "int8" and _shortfall(row, min_gain, max_ece)]


def _shortfall(row: Comparison, min_gain: float, max_ece: float) -> str:
    if row.labels_given == 1 and row.commonest < 100:
        return f"head {row.head} gives one label to all {row.n:,} faces"
    demanded = min(row.commonest + min_gain, (row.commonest + 100) / 2)
    if not row.accuracy >= demanded:
        return (
            f"head {row.head} is right on {row.accuracy:.2f} %, and always the commonest label would be on "
            f"{row.commonest:.2f} %: {demanded:.2f} are demanded"
        )
    if not 100 * row.ece <= max_ece:
        return f"head {row.head} is off by {row.ece:.2%} with its confidence, {max_ece:g} % are allowed"
    return ""


def better_scaling(export: Export, heads: Sequence[Head], rows: Sequence[Comparison]) -> str:
    """Which other scaling of the pixels makes the user's own model clearly better, as TOML has it; "" if none does.

    Args:
        export: with the model as it is in the file.
        heads: of it.
        rows: of int8, a head each, with the scaling that was said.
    """
    # Six are tried: with few faces one of them is better by chance.
    best = {row.head: row.accuracy + max(CLEARLY, 200 / math.sqrt(row.n)) for row in rows}
    found = ""
    for words, (scale, offset) in SCALINGS.items():
        outputs = export.original.predict(export.tensors, scale, offset)
        measured = metrics.evaluate_logits(outputs, export.data, heads)
        if all(100 * measured[name]["accuracy"] > most for name, most in best.items()):
            best = {name: 100 * measured[name]["accuracy"] for name in best}
            found = f"normalize = {words}, with which it is right on {min(best.values()):.2f} %"
    return found


def refusals(comparisons: Sequence[Comparison], max_drop: float, min_agreement: float) -> list[str]:
    """Why the int8 model does not pass the gate, a phrase for each reason; empty when it does.

    What cannot be compared, because one of the two is no number, does not pass.

    Args:
        comparisons: of all variants.
        max_drop: points of accuracy that a head may lose.
        min_agreement: percent of images for which int8 and float must choose the same label.
    """
    reasons = []
    for row in comparisons:
        if row.variant != "int8":
            continue
        if not row.drop <= max_drop:
            reasons.append(f"head {row.head} loses {row.drop:.2f} points of accuracy, {max_drop:g} are allowed")
        if not 100 * row.agreement >= min_agreement:
            reasons.append(
                f"head {row.head} agrees with float on {row.agreement:.2%}, {min_agreement:g} % are demanded"
            )
    return reasons


def comparison_table(comparisons: Sequence[Comparison], heads: Sequence[Head]) -> Table:
    """The comparisons for a terminal."""
    table = Table("head", "variant", box=box.SIMPLE, padding=(0, 0, 0, 1))
    for title in ("N", "lost", "agree", "max diff", "ECE T=1", "ECE", "T"):
        table.add_column(title, justify="right", no_wrap=True)
    temperatures = {head.name: head.temperature for head in heads}
    for row in sorted(comparisons, key=lambda row: list(temperatures).index(row.head)):
        table.add_row(
            row.head,
            row.variant,
            f"{row.n:,}",
            f"{row.drop:+.2f}",
            f"{row.agreement:.2%}",
            f"{row.largest_difference:.3f}",
            f"{row.ece_raw:.2%}",
            f"{row.ece:.2%}",
            f"{temperatures[row.head]:g}",
        )
    return table


def _predicted(model: keras.Model, faces: NDArray[np.uint8], path: Path) -> NDArray[np.float32]:
    """Logits of the float Keras model, float32 (n, logits).

    Raises:
        DataError: they are not numbers, or not logits.
    """
    logits: NDArray[np.float32] = model.predict(faces, batch_size=256, verbose=0)
    if not np.isfinite(logits).all():
        raise DataError(f"{path} gives outputs that are not numbers; is normalize right?")
    if (logits >= 0).all() and (logits <= 1).all():
        raise DataError(
            f"{path} ends in a softmax or sigmoid that cannot be taken off: all its outputs are from 0 to 1; save the "
            "network without it."
        )
    return logits
