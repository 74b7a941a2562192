"""Quantise a Keras model to full int8, check it against the float one, and make a bundle of it.

    python export/quantize.py runs/accurate/model.keras --data ~/fer2013 -o accurate.tflite

A TOML file of the same name beside the model (``model.toml``) says its name, heads and framing; ``python -m training
train`` writes it, for a model from elsewhere see export/README.md. Exit codes: 0 written, 1 the int8 model is not as
good as the float one and is not written, 65 bad data, 66 no such file, 73 cannot write, 78 wrong TOML.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

# So that `python export/quantize.py` finds the project's packages, as `python -m export` does.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tomllib

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from edge_fer.config import from_table
from edge_fer.core import Expression, FaceBox
from edge_fer.errors import ConfigError, DataError, EdgeFerError, InputMissingError, OutputError
from edge_fer.model.bundle import (
    Head,
    Smoothing,
    bundle_bytes,
    golden_outputs,
    load_bundle,
    measured_tolerance,
    write_whole,
)
from edge_fer.model.classifier import TfliteClassifier
from edge_fer.preprocess.face_tensor import face_tensor
from edge_fer.sources.demo import average_faces
from evaluation import datasets, figures
from export import microcontroller, report
from export.convert import ModelDescription, as_tensors, calibration_faces, load_model, to_float, to_int8
from export.equalise import correct_bias
from export.flatbuffer import in_float, read_operators
from export.layers import inspect_layers, noise_table
from export.verify import (
    Comparison,
    as_input,
    compare,
    comparison_table,
    fitted,
    refusals,
    run_flatbuffer,
    try_out,
)

SELFTEST_FACES = 4
NOISE_FACES = 32


@dataclass(frozen=True)
class Options:
    """What to export, and how; see ``main`` for the words."""

    model: Path
    data: Path
    output: Path
    calibration: int
    io: str
    per_tensor: bool
    correct_bias: bool
    also: tuple[str, ...]
    max_drop: float
    min_agreement: float
    report: Path | None
    c_array: Path | None
    force: bool

    def path_of(self, variant: str) -> Path:
        """Where a float variant is written."""
        return self.output.with_name(f"{self.output.stem}.{variant}.tflite")

    def files(self) -> list[Path]:
        """All files that will be written."""
        reports = [self.report, self.report.with_suffix(".json")] if self.report else []
        sources = [self.c_array, self.c_array.with_suffix(".h")] if self.c_array else []
        return [self.output, *map(self.path_of, self.also), *reports, *sources]


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="Keras model, with a TOML file of the same name beside it")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="data set for calibration and figures")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.tflite")
    parser.add_argument("--calibration", type=int, default=500, metavar="N", help="faces to calibrate on (500)")
    parser.add_argument(
        "--io", choices=["uint8", "int8"], default="uint8", help="input type; edge-fer feeds uint8, int8 is for others"
    )
    parser.add_argument("--per-tensor", action="store_true", help="one scale a layer, for old Edge TPU compilers")
    parser.add_argument(
        "--correct-bias", action="store_true", help="take the mean error of int8 out of each layer, in some minutes"
    )
    parser.add_argument(
        "--also", choices=["float32", "float16"], action="append", help="write OUT.float32.tflite too, without a card"
    )
    parser.add_argument("--max-drop", type=float, default=0.5, metavar="POINTS", help="accuracy int8 may lose (0.5)")
    parser.add_argument(
        "--min-agreement", type=float, default=97.0, metavar="PERCENT", help="same answers as float demanded (97)"
    )
    parser.add_argument("--report", type=Path, metavar="OUT.html", help="write a report, also as JSON, passed or not")
    parser.add_argument(
        "--c-array", type=Path, metavar="OUT.cc", help="write C++ for TensorFlow Lite Micro too: OUT.cc and OUT.h"
    )
    parser.add_argument("--force", action="store_true", help="overwrite files")
    args = vars(parser.parse_args(arguments))
    try:
        export(Options(**args | {"also": tuple(dict.fromkeys(args["also"] or ()))}))
    except EdgeFerError as error:
        print(f"quantize: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def export(options: Options) -> None:
    """Quantise, compare with float on PublicTest, and write the bundle if it passes.

    Raises:
        EdgeFerError: something given is not as it should be, or int8 is not as good as float; no model is written then.
    """
    _check(options)
    console, progress = Console(), Console(stderr=True)
    description, heads = load_description(options.model.with_suffix(".toml"))
    model, notes = load_model(options.model, description)
    for note in notes:
        console.print(note, highlight=False)
    progress.print(f"Reading {options.data} ...")
    size_hw = model.input_shape[1:3]
    splits = datasets.load(options.data, size_hw=size_hw, align=description.align, margin=description.margin)
    validation = splits["PublicTest"]
    tensors = as_tensors(
        calibration_faces(splits["Training"], heads[0], options.calibration), size_hw, description.margin
    )
    faces = as_tensors(validation, size_hw, description.margin)

    flatbuffers = {"float32": to_float(model)}
    if "float16" in options.also:
        flatbuffers["float16"] = to_float(model, half=True)
    convert = partial(to_int8, tensors=tensors, console=progress, per_tensor=options.per_tensor)
    rounded = correct_bias(model, tensors, convert) if options.correct_bias else model
    flatbuffers["int8"] = convert(rounded, input_type=options.io)
    if floats := in_float(read_operators(flatbuffers["int8"])):
        console.print(f"Not all is int8: {', '.join(floats)} has no such kernel and runs in float.", highlight=False)
    logits = {"Keras": _predicted(model, faces, options.model)}
    for variant, flatbuffer in flatbuffers.items():
        try_out(flatbuffer, variant)
        logits[variant] = run_flatbuffer(flatbuffer, faces, progress, f"Measuring {variant}")

    heads = tuple(fitted(head, logits["Keras"][:, part], validation) for head, part in _parts(heads))
    measured = {variant: figures.evaluate_logits(rows, validation, heads) for variant, rows in logits.items()}
    unknown = [head.name for head in heads if head.name not in measured["int8"]]
    if unknown:
        raise DataError(
            f"No PublicTest face of {options.data} has a label of the head {unknown[0]!r}: nothing to measure."
        )
    comparisons = [
        row for variant, rows in logits.items() for row in compare(variant, rows, logits["Keras"], validation, heads)
    ]
    console.print(figures.report({"float": measured["Keras"], "int8": measured["int8"]}))
    console.print(comparison_table(comparisons, heads))

    selftest = as_input(_selftest_faces(size_hw), np.int8 if options.io == "int8" else np.uint8)
    golden = golden_outputs(flatbuffers["int8"], selftest)[0]
    bundle = bundle_bytes(
        flatbuffers["int8"],
        description.name,
        heads,
        description.margin,
        Smoothing(),
        _facts(options, measured, comparisons, len(tensors), int(model.count_params())),
        selftest,
        golden,
        measured_tolerance(flatbuffers["int8"], selftest, golden),
        description.align,
    )
    reasons = refusals(comparisons, options.max_drop, options.min_agreement)
    layers = []
    if reasons or options.report:
        layers = inspect_layers(flatbuffers["float32"], flatbuffers["int8"], _spread(tensors, NOISE_FACES))
    if options.report:
        sizes = {variant: len(flatbuffer) for variant, flatbuffer in flatbuffers.items()}
        content = report.content(bundle, sizes, heads, measured, comparisons, reasons, layers, logits, validation)
        write_whole(options.report.with_suffix(".json"), json.dumps(content, indent=1).encode())
        write_whole(options.report, report.page(content, validation).encode())
        console.print(f"Wrote {options.report}", highlight=False)
    if reasons:
        console.print(noise_table(layers))
        raise EdgeFerError(
            f"The int8 model is not as good as the float one: {'; '.join(reasons)}. {options.output} is not written. "
            "The table above shows which layers lose most; docs/quantisation.md shows what helps."
        )
    if options.io == "uint8":
        _try_out(bundle)
    for variant in options.also:
        write_whole(options.path_of(variant), flatbuffers[variant])
    write_whole(options.output, bundle)
    console.print(f"Wrote {options.output}: {options.output.stat().st_size / 1000:.0f} kB", highlight=False)
    if options.c_array:
        microcontroller.write_sources(load_bundle(options.output), options.c_array, force=True)


def load_description(path: Path) -> tuple[ModelDescription, tuple[Head, ...]]:
    """Read the TOML file beside a model.

    Raises:
        InputMissingError: no such file.
        ConfigError: a key or label is wrong.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputMissingError(
            f"No {path}: it tells the model's name, margin and [[heads]] with name and labels; see export/README.md."
        ) from None
    except OSError as error:
        raise ConfigError(f"Cannot read {path}: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.") from None
    description = from_table(ModelDescription, table, str(path))
    if not description.heads:
        raise ConfigError(f"{path} has no [[heads]].")
    if not 0 <= description.margin <= 2:
        raise ConfigError(f"{path}: margin must be 0 to 2, not {description.margin}.")
    if len({head.name for head in description.heads}) < len(description.heads):
        raise ConfigError(f"{path}: two heads have the same name.")
    for head in description.heads:
        unknown = [label for label in head.labels if label not in set(Expression)]
        if unknown:
            raise ConfigError(f"{path}: unknown label {unknown[0]!r}; known are {', '.join(Expression)}.")
        if not head.labels or len(set(head.labels)) < len(head.labels):
            raise ConfigError(f"{path}: the labels of head {head.name!r} must be there, each once.")
    scaling = description.normalise
    if scaling and (len(scaling) != 2 or not all(map(math.isfinite, scaling)) or scaling[0] == 0):
        raise ConfigError(f"{path}: normalise must be [scale, offset] with a scale other than 0, not {scaling}.")
    heads = tuple(Head(head.name, tuple(map(Expression, head.labels)), 1.0) for head in description.heads)
    return description, heads


def _check(options: Options) -> None:
    """Refuse at once what would fail after a minute of work."""
    if options.calibration < 1:
        raise DataError(f"--calibration must be at least 1, not {options.calibration}.")
    if options.report and options.report.suffix != ".html":
        raise OutputError(f"--report must end in .html, not {options.report.name!r}.")
    if options.c_array:
        microcontroller.check_name(options.c_array)
    for path in options.files():
        if path.exists() and not options.force:
            raise OutputError(f"{path} exists; --force overwrites it.")
        if not path.parent.is_dir():
            raise OutputError(f"Cannot write {path}: there is no folder {path.parent}.")


def _predicted(model: Any, faces: NDArray[np.uint8], path: Path) -> NDArray[np.float32]:
    """Logits of the float Keras model, float32 (n, logits).

    Raises:
        DataError: they are not numbers, or not logits.
    """
    logits: NDArray[np.float32] = model.predict(faces, batch_size=256, verbose=0)
    if not np.isfinite(logits).all():
        raise DataError(f"{path} gives outputs that are not numbers; is normalise right?")
    if (logits >= 0).all() and (logits <= 1).all():
        raise DataError(
            f"{path} ends in a softmax or sigmoid that cannot be taken off: all its outputs are from 0 to 1; save the "
            "network without it."
        )
    return logits


def _spread(tensors: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    return tensors[:: max(1, len(tensors) // count)][:count]


def _selftest_faces(size_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """Faces of nobody, uint8 (n, height, width, 1): a bundle must not carry people from the data it was made with.

    They get noise: a good network hardly notices when a smooth face is a pixel off, and the self-test has to. Eight
    grey levels, because these are smaller in the bundle.
    """
    faces = average_faces()[:SELFTEST_FACES]
    tensors = np.stack([face_tensor(face, FaceBox(0, 0, *face.shape[::-1]), size_hw, margin=0.0) for face in faces])
    noise = np.random.default_rng(0).normal(0, 25, tensors.shape)
    return (np.clip(tensors + noise, 0, 255) // 32 * 32).astype(np.uint8)


def _try_out(bundle: bytes) -> None:
    """Load the bundle as the device will: card, hash and self-test."""
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "draft.tflite"
        draft.write_bytes(bundle)
        TfliteClassifier(load_bundle(draft))


def _parts(heads: tuple[Head, ...]) -> list[tuple[Head, slice]]:
    slices = figures.head_slices(heads)
    return [(head, slices[head.name]) for head in heads]


def _facts(
    options: Options, measured: dict[str, Any], comparisons: list[Comparison], calibration: int, parameters: int
) -> dict[str, Any]:
    """What the card says for people."""
    run = options.model.with_name("run.json")
    public_test = {
        name: {key: value for key, value in row.items() if key != "confusion"}
        | {"accuracy_float": measured["Keras"][name]["accuracy"]}
        for name, row in measured["int8"].items()
    }
    for row in comparisons:
        if row.variant == "int8":
            public_test[row.head] |= {"agreement": row.agreement, "ece": row.ece}
    return {
        "public_test": public_test,
        "quantisation": {
            "calibration": calibration,
            "weights": "per tensor" if options.per_tensor else "per channel",
            "bias_corrected": options.correct_bias,
        },
        "training": _training_facts(run) if run.is_file() else {},
        "parameters": parameters,
    }


def _training_facts(path: Path) -> dict[str, Any]:
    facts = json.loads(path.read_text(encoding="utf-8"))
    kept = ("recipe", "seed", "share", "rows", "data_sha256", "versions")
    return {key: facts[key] for key in kept if key in facts}


if __name__ == "__main__":
    sys.exit(main())
