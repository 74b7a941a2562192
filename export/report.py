"""What an export did, as one self-contained HTML page and as JSON with the same content."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from datasets import Dataset
from datasets.core import truth_for
from edge_fer.model.decision import softmax
from edge_fer.model.spec import Head, head_slices
from evaluation.plots import (
    BLUE,
    ORANGE,
    confusion_uri,
    environment,
    image_uri,
    plain,
    reliability_figure,
    reliability_of,
    svg,
)
from export.result import Export

FACES = 24
"""Disagreements shown for each head."""


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
    labels = truth_for(export.data, head)
    known = labels >= 0
    own = export.logits["int8"][known][:, head_slices(export.metadata.heads)[head.name]]
    return reliability_of(head, own, labels[known])


def _disagreements(head: Head, export: Export) -> list[dict[str, Any]]:
    """Faces that float and int8 see differently, those first where float was surest."""
    part, labels = head_slices(export.metadata.heads)[head.name], truth_for(export.data, head)
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
    templates = environment(Path(__file__).parent)
    templates.filters["short"] = _short
    layers = content["layers"]
    order = [head["name"] for head in content["metadata"]["heads"]]
    faces = {face["row"] for rows in content["disagreements"].values() for face in rows}
    html: str = templates.get_template("report.html.j2").render(
        **content,
        ordered=sorted(content["comparisons"], key=lambda row: order.index(row["head"])),
        int8=[row for row in content["comparisons"] if row["variant"] == "int8"],
        confusions={
            head["name"]: [
                confusion_uri(content["metrics"][variant][head["name"]], head["labels"], f"{head['name']}, {variant}")
                for variant in ("Keras", "int8")
            ]
            for head in content["metadata"]["heads"]
        },
        reliability_svg=svg(reliability_figure(content["reliability"], "{head}, int8, T = {temperature}")),
        noise_svg=svg(_noise_figure(layers)),
        weights_svg=svg(_histograms([layer for layer in layers if layer["macs"]], "weights", BLUE)),
        activations_svg=svg(_histograms(layers, "activations", ORANGE, log=True)),
        face_uris={row: image_uri(data.images[row]) for row in faces},
        metadata_json=json.dumps(content["metadata"], indent=1),
    )
    return html


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
    plain(axes)
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
        plain(axes)
    return figure


def _short(layer: dict[str, Any], length: int = 44) -> str:
    name = layer["name"].split(";")[0].removeprefix("StatefulPartitionedCall_1:0") or "output"
    return str(name if len(name) <= length else "…" + name[1 - length :])
