"""``edge-fer models``: list, show, verify and extract bundles."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from edge_fer.cli.verbs import Verbs, add_verb

EXAMPLES = """examples:
  edge-fer models                  the models in the package
  edge-fer models show             the metadata of the default model
  edge-fer models show face-320x240   a face detector
  edge-fer models show my.tflite   the metadata of a file; ./nano where it is called like a model of the package
  edge-fer models verify my.tflite is the file whole, and does it compute the same here as where it was made?
  edge-fer models extract my.tflite -o parts/   model, metadata, self-test and labels as files
  edge-fer models --json           for programs
"""

_MOST = 1e18
"""Of a metric, by far: a percentage is a float, which does not take a number of 400 digits."""


def add_models(verbs: Verbs) -> None:
    """Add the verb."""
    models = add_verb(verbs, "models", "list models; show, verify or extract one", EXAMPLES)
    models.add_argument("--json", action="store_true", help="print JSON")
    models.set_defaults(act=_list_models)
    of_one = models.add_subparsers(metavar="show|verify|extract")
    show = of_one.add_parser("show", help="the metadata of one model")
    show.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")
    show.set_defaults(act=_show_model)
    verify = of_one.add_parser("verify", help="check a model's metadata, hash and self-test on this machine")
    verify.set_defaults(act=_verify_model)
    extract = of_one.add_parser("extract", help="write the parts of a bundle as files")
    extract.add_argument("-o", "--output", type=Path, metavar="DIR", help="folder (default: the model's name)")
    extract.set_defaults(act=_extract_model)
    for verb in (show, verify, extract):
        verb.add_argument(
            "file",
            nargs="?",
            default="accurate",
            metavar="NAME",
            help="a model of the package, or a bundle's file (default: accurate)",
        )


def _list_models(args: argparse.Namespace) -> None:
    from edge_fer.model.bundle import packaged

    models = [_described(path) for path in packaged()]
    if args.json:
        print(json.dumps(models, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("model", "kB", "reports", "accuracy on PublicTest", "")
    for model in models:
        metrics = _metrics(model)
        known = [head["name"] for head in model["heads"] if head["name"] in metrics]
        accuracy = "\n".join(f"{name} {metrics[name]['accuracy']:.1%}, N = {metrics[name]['n']:,}" for name in known)
        reports = "faces and landmarks"
        if model["kind"] == "classifier":
            reports = f"{len((model.get('decision') or model['heads'][0])['labels'])} expressions"
        default = "default" if model["default"] else ""
        table.add_row(model["name"], f"{model['bytes'] / 1000:.0f}", reports, accuracy, default)
    Console().print(table)


def _show_model(args: argparse.Namespace) -> None:
    model = _described(args.file)
    if args.json:
        print(json.dumps(model, indent=2))
    else:
        _print_model(model)


def _verify_model(args: argparse.Namespace) -> None:
    from edge_fer.errors import BundleError
    from edge_fer.model.bundle import Bundle
    from edge_fer.model.litert import why_it_kills

    bundle = Bundle.load(args.file, kind=None)
    if bundle.metadata.kind == "detector":
        from edge_fer.detection.ssd import SsdDetector

        SsdDetector([args.file])
    else:
        from edge_fer.model.classifier import TfliteClassifier

        TfliteClassifier(bundle)
    reason = None if bundle.is_packaged else why_it_kills(bundle.model, bundle.selftest.inputs, "reference")
    if reason:
        raise BundleError(f"{bundle} cannot be used: with reference kernels it {reason}. Export it again.")
    most_lsb = bundle.selftest.check_golden(bundle.model, str(bundle))
    exactly = f"within {most_lsb} LSB" if most_lsb else "to the bit"
    vectors = len(bundle.selftest.inputs)
    parts = [f"the head {head.name}" for head in bundle.metadata.heads if head.classifier != "network"]
    parts += ["recurrent head"] if bundle.recurrent else []
    graph = " and ".join(["graph", *parts])
    print(f"{bundle} is good: metadata, hash, self-test of {graph}, and {vectors} golden vectors {exactly}.")


def _extract_model(args: argparse.Namespace) -> None:
    from edge_fer.model.bundle import Bundle, extract

    for written in extract(Bundle.load(args.file, kind=None), args.output or Path(Path(args.file).stem)):
        print(written)


def _described(name: Path | str) -> dict[str, Any]:
    """All that a bundle says of itself, for people and for ``--json``."""
    from edge_fer.model.bundle import DEFAULT_MODEL, Bundle

    bundle = Bundle.load(name, kind=None)
    assert bundle.path
    place = {"file": str(bundle.path), "bytes": bundle.path.stat().st_size, "default": bundle.path == DEFAULT_MODEL}
    return {**place, **bundle.metadata.to_table()}


def _metrics(model: dict[str, Any]) -> dict[str, Any]:
    """What the facts say of each head on PublicTest, as far as it is what the exporter writes: nobody checks facts."""
    rows = model["facts"].get("public_test")
    metrics = {}
    for head in model["heads"]:
        row = rows.get(head["name"]) if isinstance(rows, dict) else None
        if not isinstance(row, dict) or not isinstance(row.get("recall"), dict):
            continue
        recall = {label: row["recall"].get(label) for label in head["labels"]}
        recall = {label: value for label, value in recall.items() if value is not None}
        numbers = [*(row.get(key) for key in ("n", "accuracy", "macro_f1")), *recall.values()]
        numbers.append(row.get("accuracy_float", 0))  # what is no layer of the graph has no float model
        if all(isinstance(number, int | float) and abs(number) < _MOST for number in numbers):
            metrics[head["name"]] = {**row, "recall": recall}
    return metrics


def _print_model(model: dict[str, Any]) -> None:
    print(f"{model['name']}  {model['file']}  {model['bytes'] / 1000:.0f} kB")
    if model["kind"] == "detector":
        for name, value in model["detector"].items():
            print(f"  {name:<15} {value:g}")
        print(f"\nsha256 {model['model_sha256']}")
        return
    preprocess = model["preprocess"]
    light = ", ".join(preprocess.get("illumination") or ["none"])
    print(
        f"crop margin {preprocess['margin']}, alignment {preprocess['alignment']}, illumination {light}, "
        f"preprocessing version {preprocess['version']}"
    )
    metrics, rule = _metrics(model), model.get("decision")
    if rule:
        weights = ", ".join(
            f"{head['name']} {one:g}" for head, one in zip(model["heads"], rule["weights"], strict=True)
        )
        print(f"\ndecision balanced: tau {rule['tau']:g}, weights {weights}, temperature {rule['temperature']:g}")
        print(f"  reports   {', '.join(rule['labels'])}")
    if recurrent := model.get("recurrent"):
        print(
            f"\nrecurrent head {recurrent['kind']}, {recurrent['units']} units on {recurrent['embedding']} numbers, "
            f"steps of {1000 * recurrent['step_s']:.1f} ms, memory {recurrent['memory_s']:g} s"
        )
    if model.get("intensity"):
        print("\nintensity by a ranking regressor on the embedding")
    for place, head in enumerate(model["heads"]):
        reported = " (reported)" if place == 0 and not rule else ""
        print(f"\nhead {head['name']}{reported}, temperature {head['temperature']}")
        if "classifier" in head:
            print(f"  is a      {head['classifier'].replace('-', ' ')} on the embedding, in NumPy")
        print(f"  labels    {', '.join(head['labels'])}")
        row = metrics.get(head["name"])
        if row:
            float_model = f" (float model: {row['accuracy_float']:.2%})" if "accuracy_float" in row else ""
            print(f"  accuracy  {row['accuracy']:.2%} of N = {row['n']:,}{float_model}")
            print(f"  macro F1  {row['macro_f1']:.3f}")
            recall = (f"{label} {value:.0%}" for label, value in row["recall"].items())
            print(f"  recall    {', '.join(recall)}")
    print(f"\nsha256 {model['model_sha256']}")
