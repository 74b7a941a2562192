"""``python -m evaluation``: what a bundle is worth, on clean faces, on corrupted ones, and through the detector.

python -m evaluation --model edge_fer/bundles/accurate.tflite --data ~/fer2013
python -m evaluation --model mine.tflite --data ~/fer2013 --faces 300 --json out.json
python -m evaluation protocols --help   what a device would report on other data sets: the cross-database table
python -m evaluation ceiling --help     how often people would agree with the labels
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

import datasets
from datasets import Dataset
from edge_fer.core import Expression
from edge_fer.detection.cascade import CascadeDetector
from edge_fer.errors import OS_ERROR, DataError, EdgeFerError, InputMissingError, UsageError
from edge_fer.model.bundle import Bundle
from edge_fer.model.classifier import TfliteClassifier
from edge_fer.preprocess import Preprocessor
from evaluation import ceiling, corruptions, metrics, protocols
from evaluation.model_card import model_card


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    try:
        match sys.argv[1:] if arguments is None else arguments:
            case ["protocols", *rest]:
                protocols.command(rest)
            case ["ceiling", *rest]:
                ceiling.command(rest)
            case rest:
                _command(rest)
    except EdgeFerError as error:
        print(f"evaluation: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"evaluation: {error.filename or 'a file'}: {error.strerror or error}.", file=sys.stderr)
        return OS_ERROR
    return 0


def _command(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", default="accurate", metavar="NAME", help="a model of the package, or a bundle's file (accurate)"
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with the data set")
    parser.add_argument("--split", default="PublicTest", choices=["PublicTest", "PrivateTest"])
    parser.add_argument(
        "--faces", type=int, default=400, help="faces that are pasted into scenes for the detector (default: 400)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all metrics there too")
    parser.add_argument("--model-card", type=Path, metavar="MD", help="write the model card there")
    args = parser.parse_args(arguments)
    if args.faces < 1:
        raise UsageError(f"--faces must be at least 1, not {args.faces}.")
    _evaluate(args.model, args.data, args.split, args.faces, args.json, args.model_card)


def _evaluate(model: str, folder: Path, split: str, count: int, json_file: Path | None, card_file: Path | None) -> None:
    bundle = Bundle.load(model)
    classifier = TfliteClassifier(bundle)
    preprocessor = Preprocessor(bundle.metadata.preprocess, classifier.size_hw)
    console, progress = Console(), Console(stderr=True)
    progress.print(f"Reading {folder} ...")
    splits = datasets.load(folder)
    if split not in splits:
        raise InputMissingError(f"{folder} has no {split} rows.")
    data = splits[split]
    results: dict[str, Any] = {"model": bundle.metadata.name, "split": split}

    def logits_of(faces: corruptions.Faces, title: str) -> NDArray[np.float32]:
        shown = _tracked(list(faces), title, progress)
        return np.stack([classifier.logits(preprocessor.crop(face[..., 0])) for face in shown])

    clean = logits_of(data.images, "clean faces")
    results["clean"] = metrics.evaluate_logits(clean, data, classifier.heads)
    heads = [head for head in classifier.heads if head.name in results["clean"]]
    if not heads:
        raise DataError(f"No {split} row of {folder} has a label that {bundle} knows: there is nothing to measure.")
    console.print(metrics.report({"int8": results["clean"]}))
    results["confused"] = {}
    for head in heads:
        if not {Expression.NEUTRAL, Expression.SADNESS} <= set(head.labels):
            continue
        fraction = metrics.confused(results["clean"][head.name], head.labels, Expression.NEUTRAL, Expression.SADNESS)
        results["confused"][head.name] = fraction
        console.print(f"{head.name}: {fraction:.1%} of the neutral faces are called sad")

    table = Table("faces", *(head.name for head in heads), title=f"Corruptions, {split}")
    results["corruptions"] = {"none": _accuracies(clean, data, classifier)}
    for name, corrupt in corruptions.CORRUPTIONS.items():
        results["corruptions"][name] = _accuracies(logits_of(corrupt(data.images), name), data, classifier)
    for name, row in results["corruptions"].items():
        table.add_row(name, *(f"{accuracy:.2%}" for accuracy in row.values()))
    console.print(table)

    console.print(_through_detector(classifier, preprocessor, data, count, results, progress))
    if json_file:
        json_file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if card_file:
        card_file.write_text(model_card(bundle, len(bundle.to_bytes()), results), encoding="utf-8")


def _accuracies(logits: NDArray[np.float32], data: Dataset, classifier: TfliteClassifier) -> dict[str, float]:
    rows = metrics.evaluate_logits(logits, data, classifier.heads)
    return {head.name: rows[head.name]["accuracy"] for head in classifier.heads if head.name in rows}


def _through_detector(
    classifier: TfliteClassifier,
    preprocessor: Preprocessor,
    data: Dataset,
    count: int,
    results: dict[str, Any],
    progress: Console,
) -> Table:
    """Accuracy of the same faces as crops and through Haar, scene by scene, and of all together."""
    heads = [head for head in classifier.heads if head.name in results["clean"]]
    chosen = np.sort(np.random.default_rng(0).permutation(len(data))[:count])
    part = data[chosen]
    crops = np.stack([classifier.logits(face) for face in preprocessor.crops(part.images)])
    columns = [f"{head.name} {kind}" for head in heads for kind in ("crop", "found")]
    table = Table("face", "found", *columns, title=f"Through the Haar detector, {len(part)} faces of each kind")
    detector = CascadeDetector()
    kinds = [(side, tilt) for side in corruptions.FACE_SIDES_PX for tilt in corruptions.TILTS_DEG]
    rows_of_all, logits_of_all = [], []
    results["through_detector"] = {}
    for seed, (side, tilt) in enumerate(_tracked(kinds, "through the detector", progress)):
        scenes = corruptions.scenes(part.images, side, tilt, seed)
        tensors = corruptions.found_tensors(detector, scenes, preprocessor)
        found = np.array([place for place, tensor in enumerate(tensors) if tensor is not None], np.int64)
        if len(found) == 0:
            continue
        logits = np.stack([classifier.logits(tensor) for tensor in tensors if tensor is not None])
        rows_of_all.append(found)
        logits_of_all.append(logits)
        _add_row(table, results, f"{side} px, {tilt:+.0f} degrees", part, crops, found, logits, len(part), classifier)
    if rows_of_all:
        found, logits = np.concatenate(rows_of_all), np.concatenate(logits_of_all)
        _add_row(table, results, "all", part, crops, found, logits, len(part) * len(kinds), classifier)
    else:
        table.add_row("all", "0.0%")
    return table


def _tracked(items: Sequence[Any], title: str, console: Console) -> Iterable[Any]:
    return track(items, title, console=console, transient=True, disable=not console.is_terminal)


def _add_row(
    table: Table,
    results: dict[str, Any],
    name: str,
    part: Dataset,
    crops: NDArray[np.float32],
    found: NDArray[np.int64],
    logits: NDArray[np.float32],
    drawn: int,
    classifier: TfliteClassifier,
) -> None:
    """Both accuracies are of the faces that were found: a face that is missed has no expression to be wrong."""
    crop = _accuracies(crops[found], part[found], classifier)
    through = _accuracies(logits, part[found], classifier)
    results["through_detector"][name] = {"found": len(found) / drawn, "crop": crop, "through": through}
    cells = [f"{row[head]:.2%}" for head in crop for row in (crop, through)]
    table.add_row(name, f"{len(found) / drawn:.1%}", *cells)


if __name__ == "__main__":
    sys.exit(main())
