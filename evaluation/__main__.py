"""``python -m evaluation``: what a bundle is worth, on clean faces, on corrupted ones, and through the detector.

python -m evaluation --model edge_fer/bundles/accurate.tflite --data ~/fer2013
python -m evaluation --model mine.tflite --data ~/fer2013 --faces 300 --json out.json
python -m evaluation protocols --help   what a device would report on other data sets: the cross-database table
python -m evaluation ceiling --help     how often people would agree with the labels
python -m evaluation groups --help      by gender, age, pose, light: what the data set tells of its people and images
python -m evaluation compounds --help   two expressions at once
python -m evaluation folds --help       folds without leaks, and a check of a data set's own splits
python -m evaluation fit --help         the decision rule of a bundle and its doubt: fit and measure them
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

import datasets
from datasets import Dataset, truth_for
from datasets.landmarks_file import marks_of_all
from edge_fer.config import DetectorSettings
from edge_fer.core import Expression, FaceDetector
from edge_fer.detection import open_detector
from edge_fer.errors import OS_ERROR, DataError, EdgeFerError, InputMissingError, UsageError
from edge_fer.model.bundle import Bundle
from edge_fer.model.classifier import TfliteClassifier
from edge_fer.model.decision import Rule
from edge_fer.preprocess import Preprocessor
from edge_fer.preprocess.alignment import BY_POINTS
from evaluation import ceiling, compounds, corruptions, decision, fit, folds, groups, metrics, protocols
from evaluation.model_card import model_card

CONSISTENCY_FACES = 1000
"""On which other views of a face are tried."""


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    try:
        match sys.argv[1:] if arguments is None else arguments:
            case ["protocols", *rest]:
                protocols.command(rest)
            case ["ceiling", *rest]:
                ceiling.command(rest)
            case ["fit", *rest]:
                fit.run(rest)
            case ["groups", *rest]:
                groups.command(rest)
            case ["compounds", *rest]:
                compounds.command(rest)
            case ["folds", *rest]:
                folds.command(rest)
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
    parser.add_argument("--detector", choices=["ssd", "haar"], default="ssd", help="that finds them (default: ssd)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all metrics there too")
    parser.add_argument(
        "--model-card", type=Path, metavar="MD", help="write the model card there, of the default detector"
    )
    args = parser.parse_args(arguments)
    if args.faces < 1:
        raise UsageError(f"--faces must be at least 1, not {args.faces}.")
    if args.model_card and args.detector != "ssd":
        raise UsageError("The model card is of the default detector: leave --detector out.")
    detector = open_detector(DetectorSettings(kind=args.detector))
    _evaluate(args.model, args.data, args.split, detector, args.faces, args.json, args.model_card)


def _evaluate(
    model: str,
    folder: Path,
    split: str,
    detector: FaceDetector,
    count: int,
    json_file: Path | None,
    card_file: Path | None,
) -> None:
    bundle = Bundle.load(model)
    classifier = TfliteClassifier(bundle, decision="as-trained")
    preprocessor = Preprocessor(bundle.metadata.preprocess, classifier.size_hw)
    console, progress = Console(), Console(stderr=True)
    progress.print(f"Reading {folder} ...")
    splits = datasets.load(folder, landmarks=bundle.metadata.preprocess.alignment in BY_POINTS)
    if split not in splits:
        raise InputMissingError(f"{folder} has no {split} rows.")
    data = splits[split]
    results: dict[str, Any] = {"model": bundle.metadata.name, "split": split}

    def logits_of(rows: NDArray[np.int64], corrupt: corruptions.Corruption | None, title: str) -> NDArray[np.float32]:
        images, points = data.images[rows], None if data.landmarks is None else data.landmarks[rows]
        if corrupt is not None:
            images, points = corrupt(images), corruptions.landmarks_after(corrupt, points)
        pairs = list(zip(images[..., 0], marks_of_all(points) or [None] * len(images), strict=True))
        return np.stack([classifier.logits(preprocessor.crop(*pair)) for pair in _tracked(pairs, title, progress)])

    every = np.arange(len(data))
    clean = logits_of(every, None, "clean faces")
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

    results["decision"] = _decisions(clean, data, bundle)
    for rule, row in results["decision"].items():
        console.print(
            f"{rule}: accuracy {row['accuracy']:.2%}, mean recall {row['mean_recall']:.2%} +- "
            f"{row['mean_recall_95']:.2%}, class-balanced ECE {row['balanced_ece']:.3f}, N = {row['n']:,}",
            highlight=False,
        )
    results["consistency"] = _consistency(logits_of, TfliteClassifier(bundle), data, clean)
    for name, fraction in results["consistency"]["same"].items():
        console.print(f"same answer, {name}: {fraction:.1%} of {results['consistency']['n']:,} faces", highlight=False)

    table = Table("faces", *(head.name for head in heads), title=f"Corruptions, {split}")
    results["corruptions"] = {"none": _accuracies(clean, data, classifier)}
    for name, corrupt in corruptions.CORRUPTIONS.items():
        results["corruptions"][name] = _accuracies(logits_of(every, corrupt, name), data, classifier)
    for name, row in results["corruptions"].items():
        table.add_row(name, *(f"{accuracy:.2%}" for accuracy in row.values()))
    console.print(table)

    console.print(_through_detector(classifier, preprocessor, data, detector, count, results, progress))
    if json_file:
        json_file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if card_file:
        card_file.write_text(model_card(bundle, len(bundle.to_bytes()), results), encoding="utf-8")


def _decisions(clean: NDArray[np.float32], data: Dataset, bundle: Bundle) -> dict[str, Any]:
    """What the answers of both rules are worth, by rule, on faces that the first head knows; nothing where none is."""
    heads, rule = bundle.metadata.heads, bundle.metadata.decision
    truth = truth_for(data, heads[0])
    known = truth >= 0
    few = [label for label in heads[0].labels if rule and label not in rule.labels]
    if not {heads[0].labels[place] for place in truth[known]} - set(few):
        return {}
    trained = Rule.as_trained(heads).probabilities(clean[known])
    rows = {"as-trained": decision.measured(trained, truth[known], heads[0].labels, few)}
    if rule:
        places = decision.positions(truth[known], heads[0], rule.labels)
        balanced = Rule.balanced(rule, heads).probabilities(clean[known])
        rows["balanced"] = decision.measured(balanced, places, rule.labels)
    return rows


def _consistency(
    logits_of: Callable[[NDArray[np.int64], corruptions.Corruption | None, str], NDArray[np.float32]],
    classifier: TfliteClassifier,
    data: Dataset,
    clean: NDArray[np.float32],
) -> dict[str, Any]:
    """How often a face gets the same answer in other views, 0-1, by the rule that the device has."""
    chosen = np.random.default_rng(0).permutation(len(data))[:CONSISTENCY_FACES]
    before = [classifier.prediction(row).expression for row in clean[chosen]]
    same = {}
    for name, views in corruptions.FRAMINGS.items():
        hits = []
        for view in views:
            rows = logits_of(chosen, view, name)
            hits += [classifier.prediction(row).expression == one for row, one in zip(rows, before, strict=True)]
        same[name] = round(float(np.mean(hits)), 4)
    return {"n": len(chosen), "same": same}


def _accuracies(logits: NDArray[np.float32], data: Dataset, classifier: TfliteClassifier) -> dict[str, float]:
    rows = metrics.evaluate_logits(logits, data, classifier.heads)
    return {head.name: rows[head.name]["accuracy"] for head in classifier.heads if head.name in rows}


def _through_detector(
    classifier: TfliteClassifier,
    preprocessor: Preprocessor,
    data: Dataset,
    detector: FaceDetector,
    count: int,
    results: dict[str, Any],
    progress: Console,
) -> Table:
    """Accuracy of the same faces as crops and through the detector, scene by scene, and of all together."""
    heads = [head for head in classifier.heads if head.name in results["clean"]]
    chosen = np.sort(np.random.default_rng(0).permutation(len(data))[:count])
    part = data[chosen]
    tensors_of_crops = preprocessor.crops(part.images, marks_of_all(part.landmarks))
    crops = np.stack([classifier.logits(tensor) for tensor in tensors_of_crops])
    columns = [f"{head.name} {kind}" for head in heads for kind in ("crop", "found")]
    table = Table("face", "found", *columns, title=f"Through the detector, {len(part)} faces of each kind")
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
