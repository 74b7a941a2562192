"""What an export did, as one self-contained HTML page and as JSON with the same content."""

from __future__ import annotations

import base64
import html
import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from string import Template
from typing import Any

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from edge_fer.model.classifier import softmax
from edge_fer.model.spec import Head
from evaluation import figures
from evaluation.datasets import Dataset
from export.layers import Layer
from export.verify import Comparison, reliability

FACES = 24
"""Disagreements shown for each head."""

BLUE, ORANGE, GRAY = "#2f6db3", "#d9772b", "#8a929c"


def content(
    bundle: bytes,
    sizes: dict[str, int],
    heads: Sequence[Head],
    measured: dict[str, Any],
    comparisons: Sequence[Comparison],
    reasons: Sequence[str],
    layers: Sequence[Layer],
    logits: dict[str, NDArray[np.float32]],
    data: Dataset,
) -> dict[str, Any]:
    """All that the report says, JSON-able.

    Args:
        bundle: the file that is or would be written.
        sizes: bytes of each FlatBuffer, by variant.
        heads: with their temperatures.
        measured: figures of ``evaluate_logits`` by variant.
        comparisons: see ``verify.compare``.
        reasons: why the gate was not passed; empty when it was.
        layers: see ``layers.inspect_layers``.
        logits: of "Keras" and "int8", float32 (n, labels).
        data: the n faces.
    """
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        card = json.loads(archive.read("card.json"))
    return {
        "card": card,
        "passed": not reasons,
        "reasons": list(reasons),
        "bytes": sizes | {"bundle": len(bundle)},
        "figures": measured,
        "comparisons": [asdict(row) for row in comparisons],
        "reliability": {head.name: _reliability(head, heads, logits["int8"], data) for head in heads},
        "layers": [asdict(layer) for layer in layers],
        "disagreements": {head.name: _disagreements(head, heads, logits, data) for head in heads},
    }


def _reliability(head: Head, heads: Sequence[Head], logits: NDArray[np.float32], data: Dataset) -> dict[str, Any]:
    labels = figures.truth(data, head)
    known = labels >= 0
    own = logits[known][:, figures.head_slices(heads)[head.name]]
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


def _disagreements(
    head: Head, heads: Sequence[Head], logits: dict[str, NDArray[np.float32]], data: Dataset
) -> list[dict[str, Any]]:
    """Faces that float and int8 see differently, those first where float was surest."""
    part, labels = figures.head_slices(heads)[head.name], figures.truth(data, head)
    before, after = (softmax(logits[variant][:, part] / np.float32(head.temperature)) for variant in ("Keras", "int8"))
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
        data: the faces, for the pictures of the disagreements.
    """
    card = content["card"]
    heads = [head["name"] for head in card["heads"]]
    passed = content["passed"]
    verdict = "int8 is as good as float" if passed else "refused: " + "; ".join(content["reasons"])
    layers = content["layers"]
    return PAGE.substitute(
        name=html.escape(card["name"]),
        state="good" if passed else "bad",
        verdict=html.escape(verdict),
        tiles="".join(_tile(*tile) for tile in _tiles(content)),
        comparisons=_comparisons(content),
        recall="".join(_recall(content, head) for head in card["heads"]),
        confusions="".join(_confusions(content, head) for head in card["heads"]),
        reliability=_svg(_reliability_figure(content)),
        noise=_svg(_noise_figure(layers)),
        operators=_operators(layers),
        weights=_svg(_histograms([layer for layer in layers if layer["macs"]], "weights", BLUE)),
        activations=_svg(_histograms(layers, "activations", ORANGE, log=True)),
        disagreements="".join(_faces(name, content["disagreements"][name], data) for name in heads),
        card=html.escape(json.dumps(card, indent=1)),
    )


def _tiles(content: dict[str, Any]) -> list[tuple[str, str]]:
    int8 = [row for row in content["comparisons"] if row["variant"] == "int8"]
    tiles = []
    for row in int8:
        accuracy = content["figures"]["int8"][row["head"]]["accuracy"]
        tiles.append((f"{accuracy:.2%}", f"{row['head']}, int8, N = {row['n']:,}; lost {row['drop']:+.2f} points"))
        tiles.append((f"{row['agreement']:.2%}", f"{row['head']}: same answer as float"))
    macs = sum(layer["macs"] for layer in content["layers"])
    tiles.append(
        (f"{content['bytes']['bundle'] / 1000:,.0f} kB", f"bundle; float {_kilo(content['bytes']['float32'])}")
    )
    tiles.append((f"{macs / 1e6:,.1f} M", "multiply-accumulates a face"))
    return tiles


def _tile(value: str, text: str) -> str:
    return f"<div class=tile><b>{html.escape(value)}</b><span>{html.escape(text)}</span></div>"


def _comparisons(content: dict[str, Any]) -> str:
    rows = []
    for row in content["comparisons"]:
        figures_of = content["figures"][row["variant"]][row["head"]]
        rows.append(
            [
                row["head"],
                row["variant"],
                f"{row['n']:,}",
                f"{figures_of['accuracy']:.2%}",
                f"{figures_of['macro_f1']:.3f}",
                f"{row['drop']:+.2f}",
                f"{row['agreement']:.2%}",
                f"{row['largest_difference']:.3f}",
                f"{row['ece_raw']:.2%}",
                f"{row['ece']:.2%}",
                _kilo(content["bytes"][row["variant"]]) if row["variant"] in content["bytes"] else "",
            ]
        )
    order = [head["name"] for head in content["card"]["heads"]]
    rows.sort(key=lambda row: order.index(row[0]))
    titles = ["head", "variant", "N", "accuracy", "macro F1", "points lost", "agreement", "largest difference"]
    return _table([*titles, "ECE, T = 1", "ECE", "size"], rows)


def _recall(content: dict[str, Any], head: dict[str, Any]) -> str:
    variants = list(content["figures"])
    rows = []
    for label in head["labels"]:
        recalls = (content["figures"][variant][head["name"]]["recall"][label] for variant in variants)
        rows.append([label, *("-" if recall is None else f"{recall:.1%}" for recall in recalls)])
    return f"<div><h3>{html.escape(head['name'])}</h3>{_table(['recall', *variants], rows)}</div>"


def _confusions(content: dict[str, Any], head: dict[str, Any]) -> str:
    pictures = []
    for variant in ("Keras", "int8"):
        file = io.BytesIO()
        confusion = np.array(content["figures"][variant][head["name"]]["confusion"])
        figures.plot_confusion(confusion, head["labels"], f"{head['name']}, {variant}", file)
        pictures.append(f'<img alt="confusion matrix" src="{_data_uri(file.getvalue())}">')
    return f"<div class=pair>{''.join(pictures)}</div>"


def _reliability_figure(content: dict[str, Any]) -> Figure:
    heads = content["reliability"]
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
        share = axes.twinx()
        share.step(
            np.arange(len(count) + 1) / len(count), [*count, count[-1]], where="post", color="black", linewidth=0.8
        )
        share.set(ylim=(0, 3 * max(1, count.max())), yticks=[0, int(count.max())])
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
    axes.set_xlabel("signal-to-quantisation-noise ratio, dB (orange: the three layers that add most noise)")
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


def _operators(layers: Sequence[dict[str, Any]]) -> str:
    rows = []
    for number, layer in enumerate(layers):
        ratio = "no twin" if layer["sqnr_db"] is None else f"{layer['sqnr_db']:.1f}"
        rows.append(
            [
                str(number),
                layer["operator"],
                _short(layer, 42),
                "x".join(map(str, layer["shape"])),
                f"{layer['macs'] / 1e6:.3f}" if layer["macs"] else "",
                f"{layer['constants']:,}" if layer["constants"] else "",
                ratio,
                "" if layer["lost_db"] is None else f"{layer['lost_db']:+.1f}",
            ]
        )
    macs, constants = (sum(layer[key] for layer in layers) for key in ("macs", "constants"))
    rows.append(["", "all", "", "", f"{macs / 1e6:.3f}", f"{constants:,}", "", ""])
    return _table(["", "operator", "output", "shape", "M MACs", "constants, bytes", "SQNR, dB", "lost here, dB"], rows)


def _faces(head: str, disagreements: Sequence[dict[str, Any]], data: Dataset) -> str:
    if not disagreements:
        return f"<h3>{html.escape(head)}</h3><p>None.</p>"
    faces = []
    for face in disagreements:
        _, png = cv2.imencode(".png", data.images[face["row"]])
        text = f"{face['float']} {face['float_confidence']:.2f} &rarr; {face['int8']} {face['int8_confidence']:.2f}"
        faces.append(
            f'<figure><img alt="face {face["row"]}" src="{_data_uri(png.tobytes())}">'
            f"<figcaption>{text}<br><i>label: {face['label'] or 'none'}</i></figcaption></figure>"
        )
    return f"<h3>{html.escape(head)}</h3><div class=faces>{''.join(faces)}</div>"


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(title)}" for title in titles)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}" for cell in row) for row in rows)
    return f"<div class=scroll><table><tr>{head}{body}</table></div>"


def _short(layer: dict[str, Any], length: int = 44) -> str:
    name = layer["name"].split(";")[0].removeprefix("StatefulPartitionedCall_1:0") or "output"
    return name if len(name) <= length else "…" + name[1 - length :]


def _kilo(size: int) -> str:
    return f"{size / 1000:,.0f} kB"


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _svg(figure: Figure) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()[file.getvalue().index("<svg") :]


PAGE = Template((Path(__file__).parent / "report.html").read_text(encoding="utf-8"))
