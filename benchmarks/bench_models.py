"""What each model gives for its size: kilobytes, multiply-accumulates, milliseconds, accuracy.

    python benchmarks/bench_models.py --data ~/fer2013 build/*.tflite

Without files: the models in the package. CPU time of one core, medians.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

# So that `python benchmarks/bench_models.py` finds `evaluation` and `export`, which are not installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import datasets
from datasets import Dataset
from edge_fer.board import describe_machine
from edge_fer.errors import EdgeFerError, InputMissingError
from edge_fer.model.bundle import BUNDLES, load_bundle
from edge_fer.model.classifier import TfliteClassifier
from edge_fer.preprocess import Preprocessor
from evaluation.metrics import evaluate_logits
from export.layers import inspect_layers

TIMED = 500
"""Faces whose time is taken."""


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", type=Path, nargs="*", metavar="BUNDLE")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with FER2013 and FER+")
    parser.add_argument("--split", default="PublicTest", choices=["PublicTest", "PrivateTest"])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(arguments)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    try:
        splits = datasets.load(args.data)
        if args.split not in splits:
            raise InputMissingError(f"{args.data} has no {args.split} rows.")
        paths = args.bundles or sorted(BUNDLES.glob("*.tflite"))
        rows = [measure(path, splits[args.split]) for path in paths]
    except EdgeFerError as error:
        print(f"bench_models: {error}", file=sys.stderr)
        return error.exit_code
    machine, date = describe_machine(), datetime.now(UTC).date().isoformat()
    if args.json:
        print(json.dumps({"date": date, **machine, "split": args.split, "models": rows}))
        return 0
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(f"{date}: " + ", ".join(f"{name} {value}" for name, value in machine.items()), highlight=False)
    heads = [name for name in rows[0] if isinstance(rows[0][name], dict)]
    columns = [f"{head}, N = {rows[0][head]['n']:,}" for head in heads]
    table = Table("model", "file", "kB", "MMAC", "CPU ms", *columns, "macro F1", title=f"int8, {args.split}")
    for row in sorted(rows, key=lambda row: row["kB"]):
        known = [row[head] for head in heads]
        table.add_row(
            row["name"],
            row["file"],
            f"{row['kB']:.0f}",
            f"{row['mmac']:.1f}",
            f"{row['cpu_ms']:.2f}",
            *(f"{one['accuracy']:.2%}" for one in known),
            ", ".join(f"{one['macro_f1']:.3f}" for one in known),
        )
    console.print(table)
    return 0


def measure(path: Path, data: Dataset) -> dict[str, Any]:
    """A row of the table: size, work, time and accuracy of a bundle."""
    bundle = load_bundle(path)
    classifier = TfliteClassifier(bundle)
    faces = Preprocessor(bundle.metadata.preprocess, classifier.size_hw).crops(data.images)
    console = Console(stderr=True)
    logits, times = [], []
    for face in track(faces, path.name, console=console, transient=True, disable=not console.is_terminal):
        began = time.process_time()
        logits.append(classifier.logits(face))
        times.append(time.process_time() - began)
    results = evaluate_logits(np.stack(logits), data, classifier.heads)
    layers = inspect_layers(bundle.model, bundle.model, faces[:1])
    return {
        "name": bundle.metadata.name,
        "file": path.name,
        "kB": path.stat().st_size / 1000,
        "mmac": sum(layer.macs for layer in layers) / 1e6,
        "cpu_ms": 1000 * median(times[:TIMED]),
        **{
            head.name: {key: results[head.name][key] for key in ("n", "accuracy", "macro_f1")}
            for head in classifier.heads
            if head.name in results
        },
    }


if __name__ == "__main__":
    sys.exit(main())
