"""Metrics of a model on labeled faces: accuracy, macro F1, recall and confusion, always with N."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from rich.console import Group
from rich.table import Table
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, recall_score

from datasets.core import Dataset, truth_for
from edge_fer.model.spec import Head, head_slices


def metrics_of(true: NDArray[np.int64], predicted: NDArray[np.int64], labels: Sequence[str]) -> dict[str, Any]:
    """N, accuracy, macro F1, recall of each class, and the confusion matrix: rows are the truth.

    Macro F1 is the mean of the classes' F1, over classes that occur in truth or prediction. The recall of a class
    without images is None.

    Args:
        true: int64 (n,), indices into ``labels``; n > 0.
        predicted: likewise.
        labels: names of the classes.
    """
    classes = range(len(labels))
    recalls = recall_score(true, predicted, labels=classes, average=None, zero_division=np.nan)
    return {
        "n": len(true),
        "accuracy": round(float(accuracy_score(true, predicted)), 4),
        "macro_f1": round(float(f1_score(true, predicted, average="macro")), 4),
        "recall": {
            label: None if np.isnan(recall) else round(float(recall), 4)
            for label, recall in zip(labels, recalls, strict=True)
        },
        "confusion": confusion_matrix(true, predicted, labels=classes).tolist(),
    }


def confused(metrics: dict[str, Any], labels: Sequence[str], true: str, predicted: str) -> float:
    """Fraction of the faces of one label that are taken for another, 0-1.

    Args:
        metrics: of ``metrics_of``.
        labels: names of its classes.
        true: a label.
        predicted: another.
    """
    row = np.array(metrics["confusion"][labels.index(true)])
    return round(float(row[labels.index(predicted)] / max(1, row.sum())), 4)


def evaluate_logits(logits: NDArray[np.float32], data: Dataset, heads: Sequence[Head]) -> dict[str, Any]:
    """Metrics of all heads, whole and ("NAME_unseen") without the images that also stand in Training.

    Args:
        logits: float32 (n, sum of labels), heads in order.
        data: the n rows.
        heads: of the model.
    """
    metrics: dict[str, Any] = {}
    for head in heads:
        labels = truth_for(data, head)
        predicted = logits[:, head_slices(heads)[head.name]].argmax(axis=1)
        for suffix, rows in (("", labels >= 0), ("_unseen", (labels >= 0) & ~data.also_in_training)):
            if rows.any():
                metrics[head.name + suffix] = metrics_of(labels[rows], predicted[rows], head.labels)
    return metrics


def write_metrics(metrics: dict[str, Any], heads: Sequence[Head], out: Path) -> None:
    """Write ``metrics.json`` and an image of each head's confusion matrix into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    for head in heads:
        if head.name in metrics:
            confusion = np.array(metrics[head.name]["confusion"])
            plot_confusion(confusion, head.labels, head.name, out / f"confusion_{head.name}.png")


def report(columns: dict[str, dict[str, Any]]) -> Group:
    """Metrics of one or several models side by side, for a terminal.

    Args:
        columns: metrics of ``evaluate_logits`` by the name of what was measured ("float", "int8").
    """
    table = Table("head", "images", "N")
    for name in columns:
        table.add_column(f"{name} accuracy", justify="right")
        table.add_column("macro F1", justify="right")
    *_, last = columns.values()
    recalls = []
    for name, row in last.items():
        head = name.removesuffix("_unseen")
        cells = [
            cell
            for metrics in columns.values()
            for cell in (f"{metrics[name]['accuracy']:.2%}", f"{metrics[name]['macro_f1']:.3f}")
        ]
        table.add_row(head, "all" if name == head else "not in Training", f"{row['n']:,}", *cells)
        if name == head:
            recall = ", ".join(f"{label} {value:.0%}" for label, value in row["recall"].items() if value is not None)
            recalls.append(f"{head} recall: {recall}")
    return Group(table, *recalls)


def plot_confusion(confusion: NDArray[np.int64], labels: Sequence[str], title: str, file: Path | BinaryIO) -> None:
    """Draw a confusion matrix as PNG: shade and number are the fraction of the row, below it the count."""
    from matplotlib.figure import Figure

    fraction = confusion / np.maximum(1, confusion.sum(axis=1, keepdims=True))
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(fraction, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(labels)), labels, rotation=40, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    accuracy = np.trace(confusion) / max(1, confusion.sum())
    axes.set_title(f"{title}: accuracy {accuracy:.2%}, N = {confusion.sum():,}")
    for row, column in np.ndindex(confusion.shape):
        color = "white" if fraction[row, column] > 0.5 else "black"
        text = f"{fraction[row, column]:.2f}\n{confusion[row, column]}"
        axes.text(column, row, text, ha="center", va="center", fontsize=7, color=color)
    figure.savefig(file, dpi=120)
