"""What an export did, as one self-contained HTML page and as JSON with the same content."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from edge_fer.model.classifier import softmax
from edge_fer.model.spec import Head, head_slices
from evaluation.calibration import reliability
from evaluation.datasets import Dataset
from evaluation.metrics import plot_confusion, truth
from export.result import Export

FACES = 24
"""Disagreements shown for each head."""

BLUE, ORANGE, GRAY = "#2f6db3", "#d9772b", "#8a929c"


def content(export: Export) -> dict[str, Any]:
    """All that the report says of an export with its bundle, JSON-able."""
    assert export.bundle is not None, "the bundle comes first"
    sizes = {variant: len(flatbuffer) for variant, flatbuffer in export.flatbuffers.items()}
    heads = export.metadata.heads
    return {
        "metadata": export.metadata.to_table(),
        "passed": not export.reasons,
        "reasons": list(export.reasons),
        "tried": [asdict(one) for one in export.tried],
        "bytes": sizes | {"bundle": len(export.bundle.to_bytes())},
        "metrics": dict(export.metrics),
        "comparisons": [asdict(row) for row in export.comparisons],
        "reliability": {head.name: _reliability(head, export) for head in heads},
        "layers": [asdict(layer) for layer in export.layers],
        "disagreements": {head.name: _disagreements(head, export) for head in heads},
    }


def _reliability(head: Head, export: Export) -> dict[str, Any]:
    labels = truth(export.data, head)
    known = labels >= 0
    own = export.logits["int8"][known][:, head_slices(export.metadata.heads)[head.name]]
    diagrams = {}
    for name, temperature in (("raw", 1.0), ("calibrated", head.temperature)):
        count, confidence, accuracy = reliability(softmax(own / np.float32(temperature)), labels[known])
        diagrams[name] = {
            "temperature": temperature,
            "count": count.tolist(),
            "confidence": confidence.round(4).tolist(),
            "accuracy": accuracy.round(4).tolist(),
        }
    return diagrams


def _disagreements(head: Head, export: Export) -> list[dict[str, Any]]:
    """Faces that float and int8 see differently, those first where float was surest."""
    part, labels = head_slices(export.metadata.heads)[head.name], truth(export.data, head)
    before, after = (
        softmax(export.logits[variant][:, part] / np.float32(head.temperature)) for variant in ("Keras", "int8")
    )
    ours, theirs = before.argmax(axis=1), after.argmax(axis=1)
    rows = np.flatnonzero(ours != theirs)
    rows = rows[np.argsort(-before[rows].max(axis=1), kind="stable")][:FACES]
    return [
        {
            "row": int(row),
            "label": head.labels[labels[row]] if labels[row] >= 0 else None,
            "float": head.labels[ours[row]],
            "float_confidence": round(float(before[row].max()), 3),
            "int8": head.labels[theirs[row]],
            "int8_confidence": round(float(after[row].max()), 3),
        }
        for row in rows
    ]


def page(content: dict[str, Any], data: Dataset) -> str:
    """The report as HTML that needs no other file and no network.

    Args:
        content: what ``content`` gave.
        data: the faces, for the images of the disagreements.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["short"] = _short
    layers = content["layers"]
    order = [head["name"] for head in content["metadata"]["heads"]]
    faces = {face["row"] for rows in content["disagreements"].values() for face in rows}
    html: str = environment.get_template("report.html.j2").render(
        **content,
        ordered=sorted(content["comparisons"], key=lambda row: order.index(row["head"])),
        int8=[row for row in content["comparisons"] if row["variant"] == "int8"],
        confusions={head["name"]: list(_confusion_uris(content, head)) for head in content["metadata"]["heads"]},
        reliability_svg=_svg(_reliability_figure(content["reliability"])),
        noise_svg=_svg(_noise_figure(layers)),
        weights_svg=_svg(_histograms([layer for layer in layers if layer["macs"]], "weights", BLUE)),
        activations_svg=_svg(_histograms(layers, "activations", ORANGE, log=True)),
        face_uris={row: _data_uri(cv2.imencode(".png", data.images[row])[1].tobytes()) for row in faces},
        metadata_json=json.dumps(content["metadata"], indent=1),
    )
    return html


def _confusion_uris(content: dict[str, Any], head: dict[str, Any]) -> Iterator[str]:
    for variant in ("Keras", "int8"):
        file = io.BytesIO()
        confusion = np.array(content["metrics"][variant][head["name"]]["confusion"])
        plot_confusion(confusion, head["labels"], f"{head['name']}, {variant}", file)
        yield _data_uri(file.getvalue())


def _reliability_figure(heads: dict[str, Any]) -> Figure:
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
        axes.set_title(f"{head}, int8, T = {diagram['temperature']:g}")
        counts = axes.twinx()
        counts.step(
            np.arange(len(count) + 1) / len(count), [*count, count[-1]], where="post", color="black", linewidth=0.8
        )
        counts.set(ylim=(0, 3 * max(1, count.max())), yticks=[0, int(count.max())])
        _plain(axes)
    return figure


def _noise_figure(layers: Sequence[dict[str, Any]]) -> Figure:
    matched = [layer for layer in layers if layer["sqnr_db"] is not None]
    figure = Figure(figsize=(9, 1 + 0.24 * len(matched)), layout="constrained")
    axes = figure.add_subplot()
    worst = sorted(matched, key=lambda layer: -layer["lost_db"])[:3]
    colors = [ORANGE if layer in worst else BLUE for layer in matched]
    places = range(len(matched))
    axes.barh(places, [layer["sqnr_db"] for layer in matched], color=colors)
    axes.set_yticks(places, [_short(layer) for layer in matched], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("signal-to-quantization-noise ratio, dB (orange: the three layers that add most noise)")
    _plain(axes)
    return figure


def _histograms(layers: Sequence[dict[str, Any]], key: str, color: str, log: bool = False) -> Figure:
    """A small histogram for each layer that has one under the key."""
    shown = [(layer, layer[key]) for layer in layers if layer[key] is not None]
    rows = max(1, -(-len(shown) // 5))
    figure = Figure(figsize=(11, 1.6 * rows), layout="constrained")
    grid = figure.subplots(rows, 5, squeeze=False).flat
    for axes in grid:
        axes.set_axis_off()
    for axes, (layer, histogram) in zip(figure.axes, shown, strict=False):
        axes.set_axis_on()
        edges = np.linspace(histogram["low"], histogram["high"], len(histogram["counts"]) + 1)
        axes.stairs(histogram["counts"], edges, fill=True, color=color)
        if log:
            axes.set_yscale("symlog", linthresh=1)
        axes.set_title(_short(layer, 26), fontsize=7)
        axes.set_yticks([])
        axes.tick_params(labelsize=7)
        _plain(axes)
    return figure


def _short(layer: dict[str, Any], length: int = 44) -> str:
    name = layer["name"].split(";")[0].removeprefix("StatefulPartitionedCall_1:0") or "output"
    return str(name if len(name) <= length else "…" + name[1 - length :])


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _svg(figure: Figure) -> Markup:
    """Matplotlib escapes the texts in it itself."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return Markup(file.getvalue()[file.getvalue().index("<svg") :])
