"""A run as one self-contained HTML page: how it was trained, what it can do, and what it gets wrong.

python -m training report runs/plain --data ~/fer2013
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

import datasets
from datasets import Dataset, truth_for
from edge_fer.errors import DataError
from edge_fer.files import write_atomically
from edge_fer.model.decision import softmax
from edge_fer.model.spec import Head, head_slices
from evaluation.calibration import expected_calibration_error, fit_temperature
from evaluation.model_card import wilson
from evaluation.plots import confusion_uri, environment, image_uri, reliability_figure, reliability_of, svg
from training.curves import figure_of
from training.finished import FACTS, FinishedRun, read_finished

FACES = 24
"""Mistakes shown for each head."""


def write_report(run: Path, data_folder: Path, output: Path) -> None:
    """Write the page of a run.

    Args:
        run: its folder.
        data_folder: what it was trained on, see ``datasets.load``.
        output: HTML.

    Raises:
        EdgeFerError: the run is not finished, the data are others, or the page cannot be written.
    """
    finished = read_finished(run)
    settings = finished.recipe.get("data", {})
    splits = datasets.load(
        data_folder,
        settings.get("exclude"),
        alignment=settings.get("alignment", "none"),
        illumination=tuple(settings.get("illumination", ())),
    )
    data = splits.get("PublicTest")
    if data is None or data.sha256 != finished.data_sha256:
        raise DataError(f"{data_folder} holds other PublicTest images or labels than {run} was measured on.")
    write_atomically(output, page(finished, data).encode())
    Console(stderr=True).print(f"Wrote {output}", highlight=False)


def page(run: FinishedRun, data: Dataset) -> str:
    """The report as HTML that needs no other file and no network.

    Args:
        run: what to report.
        data: PublicTest.
    """
    heads = [_of(run, head, data) for head in run.heads if head.name in run.facts["public_test"]]
    faces = {face["row"] for head in heads for face in head["mistakes"]}
    figure = figure_of({run.folder.name: run.history}, [head.name for head in run.heads]) if run.history else None
    html: str = (
        environment(Path(__file__).parent)
        .get_template("report.html.j2")
        .render(
            name=run.folder.resolve().name,
            facts=run.facts,
            minutes=run.minutes,
            epochs=int(run.history[-1]["epoch"]) if run.history else None,
            heads=heads,
            curves_svg=svg(figure) if figure else None,
            reliability_svg=svg(
                reliability_figure({head["name"]: head["reliability"] for head in heads}, "{head}, T = {temperature}")
            ),
            face_uris={row: image_uri(data.images[row]) for row in faces},
            recipe=(run.folder / "recipe.toml").read_text(encoding="utf-8"),
            lineage=json.dumps(run.facts["lineage"], indent=1) if "lineage" in run.facts else None,
            more={key: json.dumps(value) for key, value in run.facts.items() if key not in {*FACTS, "lineage"}},
        )
    )
    return html


def _of(run: FinishedRun, head: Head, data: Dataset) -> dict[str, Any]:
    """What the page says of a head."""
    logits, labels = run.logits[:, head_slices(run.heads)[head.name]], truth_for(data, head)
    known = labels >= 0
    calibrated = fit_temperature(head, logits, data)
    metrics = run.facts["public_test"]
    confusion = np.array(metrics[head.name]["confusion"])
    counts = confusion.sum(axis=1)
    probabilities = softmax(logits / np.float32(calibrated.temperature))
    return {
        "name": head.name,
        "rows": [
            {"images": images, **metrics[key], "interval": wilson(metrics[key]["accuracy"], metrics[key]["n"])}
            | {"mean_recall": np.mean([one for one in metrics[key]["recall"].values() if one is not None])}
            for key, images in ((head.name, "all"), (f"{head.name}_unseen", "not in Training"))
            if key in metrics
        ],
        "recalls": [
            (label, int(n), int(hits), wilson(hits / n, n) if n else None)
            for label, n, hits in zip(head.labels, counts, confusion.diagonal(), strict=True)
        ],
        "confusion_uri": confusion_uri(metrics[head.name], head.labels, head.name),
        "temperature": calibrated.temperature,
        "ece_raw": expected_calibration_error(softmax(logits[known]), labels[known]),
        "ece": expected_calibration_error(probabilities[known], labels[known]),
        "reliability": reliability_of(calibrated, logits[known], labels[known]),
        "mistakes": worst_mistakes(head, probabilities, data),
    }


def worst_mistakes(head: Head, probabilities: NDArray[np.float32], data: Dataset) -> list[dict[str, Any]]:
    """The faces on which a head is wrong, those first on which it is surest.

    Args:
        head: of the model.
        probabilities: float32 (n, labels of the head).
        data: the n rows. What their other tasks say is told too: often the label is what is wrong.
    """
    labels, predicted, confidence = truth_for(data, head), probabilities.argmax(axis=1), probabilities.max(axis=1)
    rows = np.flatnonzero((labels >= 0) & (predicted != labels))
    return [
        {
            "row": int(row),
            "label": head.labels[labels[row]],
            "predicted": head.labels[predicted[row]],
            "confidence": float(confidence[row]),
            "elsewhere": {
                name: task.expressions[task.truth[row]]
                for name, task in data.labels.items()
                if name != head.name and task.truth[row] >= 0
            },
        }
        for row in rows[np.argsort(-confidence[rows], kind="stable")][:FACES]
    ]
