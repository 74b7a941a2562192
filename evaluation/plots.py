"""What reports share: one page of HTML that needs no other file, figures and images in it, reliability diagrams."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from edge_fer.model.decision import softmax
from edge_fer.model.spec import Head
from evaluation.calibration import reliability
from evaluation.metrics import plot_confusion

BLUE, ORANGE, GRAY = "#2f6db3", "#d9772b", "#8a929c"


def environment(folder: Path) -> Environment:
    """For the templates of a folder, which extend ``page.html.j2``; all that they show is escaped."""
    return Environment(
        loader=FileSystemLoader([folder, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def reliability_of(head: Head, logits: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, dict[str, Any]]:
    """Reliability of a head as it is ("raw") and with its temperature ("calibrated"), JSON-able.

    Args:
        head: with its temperature.
        logits: float32 (n, labels of the head).
        labels: int64 (n,), the truth.
    """
    diagrams = {}
    for name, temperature in (("raw", 1.0), ("calibrated", head.temperature)):
        count, confidence, accuracy = reliability(softmax(logits / np.float32(temperature)), labels)
        diagrams[name] = {
            "temperature": temperature,
            "count": count.tolist(),
            "confidence": confidence.round(4).tolist(),
            "accuracy": accuracy.round(4).tolist(),
        }
    return diagrams


def reliability_figure(heads: Mapping[str, dict[str, dict[str, Any]]], title: str) -> Figure:
    """Two diagrams for each head.

    Args:
        heads: of ``reliability_of``, by the name of the head.
        title: {head} and {temperature} are filled in.
    """
    figure = Figure(figsize=(9, 4 * len(heads)), layout="constrained")
    for axes, (head, kind) in zip(
        figure.subplots(len(heads), 2, squeeze=False).flat,
        [(head, kind) for head in heads for kind in ("raw", "calibrated")],
        strict=True,
    ):
        diagram = heads[head][kind]
        count = np.array(diagram["count"])
        some = count > 0
        axes.plot([0, 1], [0, 1], color=GRAY, linewidth=1, linestyle="--")
        axes.bar(
            (np.arange(len(count)) + 0.5)[some] / len(count),
            np.array(diagram["accuracy"])[some],
            width=0.9 / len(count),
            color=BLUE,
        )
        axes.plot(
            np.array(diagram["confidence"])[some], np.array(diagram["accuracy"])[some], "o", color=ORANGE, markersize=4
        )
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
        axes.set_title(title.format(head=head, temperature=f"{diagram['temperature']:g}"))
        counts = axes.twinx()
        counts.step(
            np.arange(len(count) + 1) / len(count), [*count, count[-1]], where="post", color="black", linewidth=0.8
        )
        counts.set(ylim=(0, 3 * max(1, count.max())), yticks=[0, int(count.max())])
        plain(axes)
    return figure


def plain(axes: Axes) -> None:
    """Take away the frame at the top and on the right."""
    axes.spines[["top", "right"]].set_visible(False)


def confusion_uri(metrics: Mapping[str, Any], labels: tuple[str, ...] | list[str], title: str) -> str:
    """A confusion matrix for ``<img src=...>``; see ``metrics.plot_confusion``."""
    file = io.BytesIO()
    plot_confusion(np.array(metrics["confusion"]), labels, title, file)
    return _uri(file.getvalue())


def image_uri(image: NDArray[np.uint8]) -> str:
    """An image for ``<img src=...>``, as PNG."""
    return _uri(cv2.imencode(".png", image)[1].tobytes())


def _uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def svg(figure: Figure) -> Markup:
    """A figure to stand in HTML. Matplotlib escapes the texts in it itself."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return Markup(file.getvalue()[file.getvalue().index("<svg") :])
