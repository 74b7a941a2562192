"""Is the int8 model as good as the float one? Figures of both on all validation faces, and the gate they must pass."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from edge_fer.errors import EdgeFerError
from edge_fer.model.classifier import load_runtime, softmax
from edge_fer.model.spec import Head
from evaluation import figures
from evaluation.datasets import Dataset

BINS = 15


@dataclass(frozen=True)
class Comparison:
    """One head of one variant of a model against the float Keras model.

    Attributes:
        variant: "Keras", "float32", "float16" or "int8".
        head: name of the head.
        n: pictures with a label of the head.
        drop: points of accuracy (0-100) that the variant loses; below 0 it wins.
        agreement: share of all pictures for which both choose the same label, 0-1.
        largest_difference: between two logits of the same picture.
        ece_raw: expected calibration error of the variant with temperature 1, 0-1.
        ece: the same with the head's temperature.
    """

    variant: str
    head: str
    n: int
    drop: float
    agreement: float
    largest_difference: float
    ece_raw: float
    ece: float


TRIAL = """
import sys
from edge_fer.model.classifier import load_runtime
interpreter = load_runtime().Interpreter(model_path=sys.argv[1])
interpreter.allocate_tensors()
interpreter.invoke()
"""


def try_out(model: bytes, variant: str) -> None:
    """Run a flatbuffer once in a process of its own: where the runtime dies, it must not take the export with it.

    LiteRT 2.3's XNNPACK frees memory twice when it takes over some int8 networks on a processor with AVX-512.

    Args:
        model: a TFLite flatbuffer.
        variant: what to call it.

    Raises:
        EdgeFerError: the process was killed by a signal.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trial.tflite"
        path.write_bytes(model)
        code = subprocess.run([sys.executable, "-c", TRIAL, str(path)], capture_output=True).returncode
    if code < 0:
        raise EdgeFerError(
            f"The TFLite runtime died on the {variant} model ({signal.Signals(-code).name}), as edge-fer would on "
            "such a processor; nothing is written. Change the network a little: take out its gates (python -m training "
            "fold), or use another number of layers."
        )


def run_flatbuffer(model: bytes, tensors: NDArray[np.uint8], console: Console, title: str) -> NDArray[np.float32]:
    """Logits of all faces by the runtime that the device has, float32 (n, logits).

    Args:
        model: takes float32, uint8 or int8 (1, height, width, 1).
        tensors: uint8 (n, height, width, 1).
        console: where progress is shown.
        title: of the progress bar.
    """
    interpreter = load_runtime().Interpreter(model_content=model, num_threads=os.cpu_count() or 1)
    interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    scale, zero_point = target["quantization"]
    logits = []
    for tensor in track(as_input(tensors, source["dtype"]), title, console=console):
        interpreter.set_tensor(source["index"], tensor[np.newaxis])
        interpreter.invoke()
        raw = interpreter.get_tensor(target["index"])[0]
        logits.append((raw.astype(np.float32) - zero_point) * np.float32(scale or 1.0))
    return np.stack(logits)


def as_input(tensors: NDArray[np.uint8], dtype: type) -> NDArray[np.generic]:
    """Pixels in the type that a model takes: int8 models take pixel - 128."""
    if dtype is np.int8:
        return (tensors.astype(np.int16) - 128).astype(np.int8)
    return tensors.astype(dtype, copy=False)


def reliability(
    probabilities: NDArray[np.float32], labels: NDArray[np.int64], bins: int = BINS
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Pictures, mean confidence and accuracy of each of equally wide bins of confidence; 0 in empty bins.

    Guo et al., arXiv 1706.04599, section 2.

    Args:
        probabilities: float32 (n, classes).
        labels: int64 (n,), the truth.
        bins: how many; a confidence on a border belongs to the lower bin.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    hits = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    some = np.maximum(count, 1)
    return count, np.bincount(place, confidence, bins) / some, np.bincount(place, hits, bins) / some


def expected_calibration_error(
    probabilities: NDArray[np.float32], labels: NDArray[np.int64], bins: int = BINS
) -> float:
    """Mean distance of confidence from accuracy over the bins, weighted by pictures, 0-1 (Guo et al., eq. 3)."""
    count, confidence, accuracy = reliability(probabilities, labels, bins)
    return float((count * np.abs(confidence - accuracy)).sum() / max(1, count.sum()))


def fitted(head: Head, logits: NDArray[np.float32], data: Dataset) -> Head:
    """The head with the temperature that gives its labels the highest likelihood on the data (Guo et al., eq. 9)."""
    labels = figures.truth(data, head)
    logits, labels = logits[labels >= 0], labels[labels >= 0]
    if len(labels) == 0:
        return head

    def loss(temperature: float) -> float:
        chosen = softmax(logits / np.float32(temperature))[np.arange(len(labels)), labels]
        return float(-np.log(np.maximum(chosen, 1e-12)).mean())

    candidates = np.round(np.geomspace(0.25, 4, 401), 3)
    return Head(head.name, head.labels, float(min(candidates, key=loss)))


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
        data: the n rows.
        heads: with their temperatures.
    """
    rows = []
    for head in heads:
        part = figures.head_slices(heads)[head.name]
        ours, theirs, labels = logits[:, part], reference[:, part], figures.truth(data, head)
        known = labels >= 0
        n = int(known.sum())
        hits, hits_reference = ((x[known].argmax(axis=1) == labels[known]).sum() for x in (ours, theirs))
        rows.append(
            Comparison(
                variant,
                head.name,
                n,
                drop=round(100 * float(hits_reference - hits) / max(1, n), 4),
                agreement=round(float((ours.argmax(axis=1) == theirs.argmax(axis=1)).mean()), 4),
                largest_difference=round(float(np.abs(ours - theirs).max()), 3),
                ece_raw=round(expected_calibration_error(softmax(ours[known]), labels[known]), 4),
                ece=round(
                    expected_calibration_error(softmax(ours[known] / np.float32(head.temperature)), labels[known]), 4
                ),
            )
        )
    return rows


def refusals(comparisons: Sequence[Comparison], max_drop: float, min_agreement: float) -> list[str]:
    """Why the int8 model does not pass the gate, a phrase for each reason; empty when it does.

    Args:
        comparisons: of all variants.
        max_drop: points of accuracy that a head may lose.
        min_agreement: percent of pictures for which int8 and float must choose the same label.
    """
    reasons = []
    for row in comparisons:
        if row.variant != "int8":
            continue
        if row.drop > max_drop:
            reasons.append(f"head {row.head} loses {row.drop:.2f} points of accuracy, {max_drop:g} are allowed")
        if 100 * row.agreement < min_agreement:
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
