"""Runs side by side: what each can do, what it costs, whether a difference may be chance, and what was done otherwise.

python -m training compare runs/a runs/b
python -m training compare runs/a runs/b runs/c --plot curves.png
python -m training compare runs/a runs/b --json
"""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table
from scipy.stats import binomtest

from edge_fer.errors import DataError
from edge_fer.files import write_atomically
from edge_fer.model.decision import softmax
from edge_fer.model.spec import Head, head_slices
from evaluation.calibration import expected_calibration_error
from evaluation.model_card import wilson
from training.curves import figure_of
from training.finished import FinishedRun, read_finished


def compare(folders: Sequence[Path], as_json: bool, plot: Path | None) -> None:
    """Print runs side by side.

    Args:
        folders: of two runs or more; all are measured against the first.
        as_json: for programs.
        plot: PNG to draw the curves of all runs into.

    Raises:
        EdgeFerError: a folder holds no finished run, or one of them has no head of the first; or ``plot`` cannot be
            written.
    """
    runs = [read_finished(folder) for folder in folders]
    content = content_of(runs)
    if plot:
        shown = {name: run.history for name, run in zip(_names(folders), runs, strict=True) if run.history}
        file = io.BytesIO()
        figure_of(shown, [head.name for head in runs[0].heads]).savefig(file, format="png", dpi=120)
        write_atomically(plot, file.getvalue())
    if as_json:
        print(json.dumps(content, indent=2))
    else:
        _print(content)


def content_of(runs: Sequence[FinishedRun]) -> dict[str, Any]:
    """All that is said of the runs, JSON-able.

    Raises:
        DataError: a run has no head of the first.
    """
    first = runs[0]
    for run in runs[1:]:
        if not _labels(run.heads).items() & _labels(first.heads).items():
            raise DataError(
                f"{run.folder} has other heads than {first.folder} ({', '.join(head.name for head in run.heads)}, not "
                f"{', '.join(head.name for head in first.heads)}), or other labels in them: nothing can be compared."
            )
    settings = [_flat({"recipe": run.recipe, **_origin(run.facts)}) for run in runs]
    keys = sorted({key for one in settings for key in one})
    return {
        "runs": [
            {
                "name": name,
                "folder": str(run.folder),
                "parameters": run.facts["parameters"],
                "mmac": run.facts["mmac"],
                "epochs": int(run.history[-1]["epoch"]) if run.history else None,
                "minutes": run.minutes,
                "seed": run.facts["seed"],
                "same_data": run.data_sha256 == first.data_sha256,
                "heads": {
                    head.name: _measured(run, first, head)
                    for head in first.heads
                    if head.name in run.facts["public_test"] and head.labels == _labels(run.heads).get(head.name)
                },
            }
            for name, run in zip(_names([run.folder for run in runs]), runs, strict=True)
        ],
        "differences": {
            key.removeprefix("recipe."): [one.get(key) for one in settings]
            for key in keys
            if any(one.get(key) != settings[0].get(key) for one in settings)
        },
    }


def mcnemar(ours: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> tuple[int, int, float]:
    """The paired test of two classifiers on the same samples, exact (McNemar, Psychometrika 1947).

    Args:
        ours: bool (n,), which samples one is right on.
        theirs: likewise, the other.

    Returns:
        Samples that only the one, and only the other is right on, and how likely it is that chance alone divides these
        so unevenly.
    """
    only_ours, only_theirs = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    either = only_ours + only_theirs
    return only_ours, only_theirs, float(binomtest(only_ours, either).pvalue) if either else 1.0


def _measured(run: FinishedRun, first: FinishedRun, head: Head) -> dict[str, Any]:
    metrics = run.facts["public_test"][head.name]
    logits, truth = _of(run, head)
    known = truth >= 0
    measured = {
        "n": metrics["n"],
        "accuracy": metrics["accuracy"],
        "interval": [round(bound, 4) for bound in wilson(metrics["accuracy"], metrics["n"])],
        "macro_f1": metrics["macro_f1"],
        "mean_recall": round(float(np.mean([one for one in metrics["recall"].values() if one is not None])), 4),
        "ece": round(expected_calibration_error(softmax(logits[known]), truth[known]), 4),
    }
    if run is not first and run.data_sha256 == first.data_sha256:
        hits, theirs = (one.argmax(axis=1)[known] == truth[known] for one in (logits, _of(first, head)[0]))
        only_this, only_first, p = mcnemar(hits, theirs)
        measured |= {
            "difference": round(metrics["accuracy"] - first.facts["public_test"][head.name]["accuracy"], 4),
            "only_this_right": only_this,
            "only_first_right": only_first,
            "p": p,
        }
    return measured


def _of(run: FinishedRun, head: Head) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    place = [one.name for one in run.heads].index(head.name)
    return run.logits[:, head_slices(run.heads)[head.name]], run.truth[:, place]


def _labels(heads: Sequence[Head]) -> dict[str, tuple[str, ...]]:
    return {head.name: head.labels for head in heads}


def _origin(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What is no setting of the recipe, and decides as well."""
    return {key: facts[key] for key in ("data_sha256", "init_from", "teacher", "versions") if key in facts}


def _flat(table: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= _flat(value, f"{before}{key}.") if isinstance(value, dict) else {before + key: value}
    return flat


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' own names; whole paths where two are called the same."""
    names = Counter(folder.resolve().name for folder in folders)
    return [folder.resolve().name if names[folder.resolve().name] == 1 else str(folder) for folder in folders]


def _print(content: dict[str, Any]) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=10_000)  # whoever reads a pipe wants whole lines
    runs = content["runs"]
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False)
    table.add_column("", no_wrap=True)
    for run in runs:
        table.add_column(run["name"], justify="right", overflow="fold")

    def row(title: str, key: str, form: str, of: Sequence[Mapping[str, Any] | None] = runs) -> None:
        values = [None if one is None else one.get(key) for one in of]
        table.add_row(title, *("-" if value is None else form.format(value) for value in values))

    row("parameters", "parameters", "{:,}")
    row("MMAC", "mmac", "{:.2f}")
    row("epochs", "epochs", "{}")
    row("minutes", "minutes", "{}")
    row("seed", "seed", "{}")
    for head in runs[0]["heads"]:
        of = [run["heads"].get(head) for run in runs]
        table.add_section()
        table.add_row(f"[bold]{head}[/]")
        row("  N", "n", "{:,}", of)
        row("  accuracy", "accuracy", "{:.2%}", of)
        intervals = [one and "{:.1f}-{:.1f}".format(*(100 * bound for bound in one["interval"])) for one in of]
        table.add_row("  95 % interval", *(interval or "-" for interval in intervals))
        row("  points gained", "points", "{:+.2f}", [one and _points(one) for one in of])
        row("  wins / losses", "duel", "{}", [one and _duel(one) for one in of])
        row("  McNemar's p", "p", "{:.3g}", of)
        row("  macro F1", "macro_f1", "{:.3f}", of)
        row("  mean recall", "mean_recall", "{:.2%}", of)
        row("  ECE", "ece", "{:.2%}", of)
    console.print(table)
    console.print(
        f"wins / losses: faces that only this run is right on, and only {runs[0]['name']}; p: how likely chance alone "
        "divides them so unevenly.",
        highlight=False,
    )
    others = [run["name"] for run in runs if not run["same_data"]]
    if others:
        console.print(f"Measured on other data than {runs[0]['name']}, so without a difference: {', '.join(others)}.")
    console.print("What differs:" if content["differences"] else "Recipes, data and versions are the same.")
    for key, values in content["differences"].items():
        console.print(f"  {key}: {' -> '.join(map(_short, values))}", markup=False)


def _points(head: Mapping[str, Any]) -> dict[str, float]:
    return {"points": 100 * head["difference"]} if "difference" in head else {}


def _duel(head: Mapping[str, Any]) -> dict[str, str]:
    return {"duel": f"{head['only_this_right']} / {head['only_first_right']}"} if "p" in head else {}


def _short(value: Any) -> str:
    """As text; of a hash the beginning tells it apart."""
    text = "-" if value is None else str(value)
    return f"{text[:12]}..." if re.fullmatch("[0-9a-f]{64}", text) else text
