"""What int8 costs a model, and what equalization, bias correction and quantization-aware training win back.

    python benchmarks/bench_quantization.py --data ~/fer2013 --run runs/separable
    python benchmarks/bench_quantization.py --data ~/fer2013 --run runs/separable --spread 0.5

RUN is a folder that ``python -m training train`` wrote. Accuracy on PublicTest of all heads, by the device's runtime,
with per-tensor and with per-channel weights. With --spread the channels are first driven apart, which changes nothing
in float: a stand-in for the unequal channels of published MobileNets (Nagel et al., arXiv 1906.04721, fig. 2).
Fine-tuned models are kept in RUN/spread-*, and used again.
"""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import datasets
from datasets import Dataset
from edge_fer.errors import EdgeFerError, InputMissingError
from evaluation.metrics import evaluate_logits
from export.convert import to_int8
from export.equalize import equalize, find_pairs
from export.flatbuffer import run_flatbuffer
from export.fold import correct_bias, fold_batch_norm
from export.load import calibration_faces
from training.qat import finetune
from training.recipe import load_recipe

CALIBRATION = 500


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with the data set")
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="with model.keras and recipe.toml")
    parser.add_argument("--spread", type=float, default=0.0, metavar="DECADES", help="scale channels by up to 10^this")
    parser.add_argument("--epochs", type=int, default=2, help="of fine-tuning (default: 2)")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="of fine-tuning (default: 0.001)")
    args = parser.parse_args(arguments)
    try:
        measure(args.data, args.run, args.spread, args.epochs, args.learning_rate)
    except EdgeFerError as error:
        print(f"bench_quantization: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def measure(data: Path, run: Path, spread: float, epochs: int, learning_rate: float) -> None:
    """Print the table.

    Raises:
        EdgeFerError: data or run are not as they should be.
    """
    if not (run / "model.keras").is_file():
        raise InputMissingError(f"No {run / 'model.keras'}: train it first, `python -m training train`.")
    progress = Console(stderr=True)
    recipe = load_recipe(run / "recipe.toml")
    splits = datasets.load(data)
    faces = splits["PublicTest"]
    folder = run / f"spread-{spread:g}"
    folder.mkdir(exist_ok=True)
    model = drive_apart(keras.models.load_model(run / "model.keras", compile=False), spread)
    model.save(folder / "folded.keras")
    tensors = calibration_faces(splits["Training"], faces.heads[0], CALIBRATION).images
    equalized = equalize(model)

    table = Table("weights", "model", title=f"{run.name}, spread {spread:g}, PublicTest")
    for head in faces.heads:
        table.add_column(f"{head.name}, %", justify="right")
        table.add_column("lost, points", justify="right")
    exact = accuracies(in_float(model, faces), faces)

    def add_row(weights: str, name: str, logits: NDArray[np.float32]) -> None:
        cells = zip(accuracies(logits, faces), exact, strict=True)
        row = [weights, name, *(text for now, then in cells for text in (f"{now:.2f}", f"{then - now:+.2f}"))]
        progress.print(*row)  # the whole table takes minutes
        table.add_row(*row)

    add_row("float", "as trained", in_float(model, faces))
    for weights in ("per tensor", "per channel"):
        convert = partial(to_int8, tensors=tensors, console=progress, per_tensor=weights == "per tensor")
        tuned = folder / f"qat {weights}".replace(" ", "-")
        if not (tuned / "model.keras").is_file():
            per_channel = weights == "per channel"
            finetune(folder / "folded.keras", recipe, data, tuned, epochs, learning_rate, per_channel)
        finetuned = keras.models.load_model(tuned / "model.keras", compile=False)
        for name, candidate in {
            "int8": model,
            "int8, bias-corrected": correct_bias(model, tensors, convert),
            "int8, equalized": equalized,
            "int8, fine-tuned": finetuned,
        }.items():
            add_row(weights, name, run_flatbuffer(convert(candidate), faces.images, progress, name))
        add_row("float", f"fine-tuned {weights}", in_float(finetuned, faces))
    Console().print(table)


def drive_apart(model: keras.Model, decades: float) -> keras.Model:
    """The opposite of ``equalize``: scale channels by random factors of up to 10^decades, outputs staying the same."""
    wide = fold_batch_norm(model)
    chance = np.random.default_rng(0)
    for names in find_pairs(wide)[0]:
        first, second = map(wide.get_layer, names)
        factor = (10 ** chance.uniform(-decades, decades, second.kernel.shape[-2])).astype(np.float32)
        depthwise = isinstance(first, keras.layers.DepthwiseConv2D)
        first.kernel.assign(first.kernel * (factor[:, np.newaxis] if depthwise else factor))
        first.bias.assign(first.bias * factor)
        second.kernel.assign(second.kernel / factor[:, np.newaxis])
    return wide


def in_float(model: keras.Model, faces: Dataset) -> NDArray[np.float32]:
    """Logits of the Keras model itself, float32 (n, logits)."""
    logits: NDArray[np.float32] = model.predict(faces.images, batch_size=512, verbose=0)
    return logits


def accuracies(logits: NDArray[np.float32], faces: Dataset) -> list[float]:
    """Percent of the faces that each head gets right."""
    results = evaluate_logits(logits, faces, faces.heads)
    return [100 * results[head.name]["accuracy"] for head in faces.heads]


if __name__ == "__main__":
    sys.exit(main())
