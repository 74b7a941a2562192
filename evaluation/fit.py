"""``python -m evaluation fit``: how a bundle's logits become an answer, and when not to rely on it.

python -m evaluation fit --model edge_fer/bundles/accurate.tflite --data ~/fer2013
python -m evaluation fit --model mine.tflite --data ~/fer2013 --max-loss 1 -o mine-balanced.tflite

Fitted on PublicTest. The graph stays as it is, to the byte: only the metadata gets the class priors of the data, a
decision rule, and the limits of doubt.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

import datasets
from datasets import SIDE, Dataset, truth_for
from datasets.landmarks_file import marks_of_all
from edge_fer.errors import DataError, InputMissingError, UsageError
from edge_fer.model.bundle import Bundle
from edge_fer.model.classifier import TfliteClassifier
from edge_fer.model.decision import Rule
from edge_fer.model.spec import Decision, Head
from edge_fer.preprocess import Preprocessor
from edge_fer.preprocess.alignment import BY_POINTS
from edge_fer.preprocess.quality import measure_quality
from edge_fer.temporal.doubt import Doubt
from evaluation import corruptions, decision, doubt

Classify: TypeAlias = Callable[[NDArray[np.uint8], str], NDArray[np.float32]]
"""Logits, float32 (n, logits), of tensors, uint8 (n, height, width, 1); the text says what they are."""
SPLIT = "PublicTest"


@dataclass(frozen=True)
class Fitted:
    """What was found.

    Attributes:
        decision: the rule.
        doubt: None where the faces are not of 48x48 pixels, for which the corruptions are made.
        facts: its figures, cross-fitted, for the metadata.
        logits: of the faces, float32 (n, logits).
    """

    decision: Decision
    doubt: Doubt | None
    facts: Mapping[str, Any]
    logits: NDArray[np.float32]


def with_priors(heads: tuple[Head, ...], training: Dataset) -> tuple[Head, ...]:
    """The heads; those without priors get how frequent their labels are in what they learned from, if that is known."""
    return tuple(
        dataclasses.replace(head, priors=head.priors or decision.class_priors(training, head)) for head in heads
    )


def fit(
    heads: tuple[Head, ...], preprocessor: Preprocessor, data: Dataset, classify: Classify, max_loss: float
) -> Fitted | None:
    """Fit the decision rule and the doubt of a model; None where the faces are too few for it.

    Args:
        heads: of the model, with temperatures and priors.
        preprocessor: of the model.
        data: what is fitted on, never PrivateTest.
        classify: runs the model.
        max_loss: points of accuracy that the rule may cost.
    """
    logits = classify(preprocessor.crops(data.images, marks_of_all(data.landmarks)), "clean faces")
    rule = decision.fit_decision(logits, data, heads, max_loss)
    if rule is None:
        return None
    known = truth_for(data, heads[0]) >= 0
    every = truth_for(data, heads[0])[known]
    truth = decision.positions(every, heads[0], rule.labels)
    crossed = decision.cross_fitted(logits, data, heads, rule.labels, max_loss)
    facts: dict[str, Any] = {"split": SPLIT, "folds": decision.FOLDS, "max_loss": max_loss}
    facts |= decision.measured(crossed, truth, rule.labels)
    if data.images.shape[1:3] != (SIDE, SIDE):
        return Fitted(rule, None, facts, logits)
    answers = {}
    for name, corrupt in {doubt.CLEAN: lambda faces: faces, **corruptions.CORRUPTIONS}.items():
        images = corrupt(data.images[known])
        points = None if data.landmarks is None else data.landmarks[known]
        marks = marks_of_all(corruptions.landmarks_after(corrupt, points)) or [None] * len(images)
        framed = [preprocessor.framed(image, one) for image, one in zip(images[..., 0], marks, strict=True)]
        tensors = np.stack([preprocessor.normalized(one) for one in framed])
        rows = logits[known] if name == doubt.CLEAN else classify(tensors, name)
        probabilities = Rule.balanced(rule, heads).probabilities(rows)
        answers[name] = doubt.Answers.of(probabilities, truth, [measure_quality(one, SIDE) for one in framed])
    facts["doubt"] = doubt.measured(answers, every, len(rule.labels))
    return Fitted(rule, doubt.fit_doubt(answers, len(rule.labels)), facts, logits)


def fitted(bundle: Bundle, heads: tuple[Head, ...], found: Fitted) -> Bundle:
    """The bundle with what was found in its metadata."""
    facts = {**bundle.metadata.facts, "decision": dict(found.facts)}
    return bundle.with_metadata(heads=heads, decision=found.decision, doubt=found.doubt, facts=facts)


def run(arguments: list[str]) -> None:
    """The command.

    Raises:
        EdgeFerError: something given is not as it should be.
    """
    parser = argparse.ArgumentParser(
        prog="python -m evaluation fit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", default="accurate", metavar="NAME", help="a model of the package, or a bundle's file"
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with what it learned from")
    parser.add_argument(
        "--max-loss",
        type=float,
        default=decision.MAX_LOSS,
        metavar="POINTS",
        help=f"accuracy that the rule may cost ({decision.MAX_LOSS:g})",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write curves and figures there")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="OUT.tflite", help="write the bundle with the new metadata"
    )
    args = parser.parse_args(arguments)
    if not 0 <= args.max_loss <= 100:
        raise UsageError(f"--max-loss must be 0 to 100 points, not {args.max_loss:g}.")
    console, progress = Console(), Console(stderr=True)
    bundle = Bundle.load(args.model)
    classifier = TfliteClassifier(bundle, decision="as-trained")
    preprocessor = Preprocessor(bundle.metadata.preprocess, classifier.size_hw)
    progress.print(f"Reading {args.data} ...")
    by_points = bundle.metadata.preprocess.alignment in BY_POINTS
    splits = datasets.load(args.data, size_hw=classifier.size_hw, landmarks=by_points)
    for split in ("Training", SPLIT):
        if not len(splits.get(split, ())):
            raise InputMissingError(f"{args.data} has no {split} rows.")
    data = splits[SPLIT]

    def classify(tensors: NDArray[np.uint8], title: str) -> NDArray[np.float32]:
        shown = track(tensors, title, console=progress, transient=True, disable=not progress.is_terminal)
        return np.stack([classifier.logits(tensor) for tensor in shown])

    heads = with_priors(bundle.metadata.heads, splits["Training"])
    found = fit(heads, preprocessor, data, classify, args.max_loss)
    if found is None:
        raise DataError(
            f"{args.data} has too few faces of {SPLIT} with labels that {bundle} knows, or lacks one of them in "
            "Training: a decision rule cannot be fitted. The bundle answers as it was trained."
        )
    points = decision.curve(found.logits, data, heads, found.decision)
    console.print(decision.curve_table(points, found.decision))
    for line in lines(found, heads[0]):
        console.print(line, highlight=False)
    if "doubt" in found.facts:
        console.print(doubt.table(found.facts["doubt"]))
    if args.json:
        curve = [
            {"tau": p.tau, "accuracy": round(p.accuracy, 4), "mean_recall": round(p.mean_recall, 4)} for p in points
        ]
        content = {"model": bundle.metadata.name, **found.facts, "curve": curve}
        args.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if args.output:
        fitted(bundle, heads, found).write(args.output)
        console.print(f"Wrote {args.output}", highlight=False)


def lines(found: Fitted, head: Head) -> list[str]:
    """The rule and its figures in sentences."""
    rule, facts = found.decision, found.facts
    left_out = [str(label) for label in head.labels if label not in rule.labels]
    weights = ", ".join(f"{weight:g}" for weight in rule.weights)
    said = [
        f"Rule: tau {rule.tau:g}, weights of the heads {weights}, temperature {rule.temperature:g}.",
        f"Cross-fitted in {facts['folds']} folds: accuracy {facts['accuracy']:.2%}, mean recall "
        f"{facts['mean_recall']:.2%} +- {facts['mean_recall_95']:.2%}, "
        f"class-balanced ECE {facts['balanced_ece']:.3f}, N = {facts['n']:,}.",
        "Recall: " + ", ".join(f"{name} {one:.0%} of {facts['faces'][name]}" for name, one in facts["recall"].items()),
    ]
    if left_out:
        said.append(
            f"Not reported, with fewer than {decision.LEAST_FACES} faces to vouch for it: {', '.join(left_out)}."
        )
    return said
