"""The report: one page that needs nothing else, and says what the JSON says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import datasets
from edge_fer.model.bundle import DEFAULT_MODEL, load_bundle
from evaluation.metrics import evaluate_logits
from export import report
from export.layers import inspect_layers
from export.result import Export
from export.verify import compare


@pytest.fixture(scope="module")
def rows(data: Path) -> datasets.Dataset:
    return datasets.load(data)["PublicTest"]


@pytest.fixture(scope="module")
def content(rows: datasets.Dataset) -> dict[str, Any]:
    bundle = load_bundle(DEFAULT_MODEL)
    heads = bundle.metadata.heads
    logits = np.random.default_rng(1).normal(0, 2, (len(rows), 15)).astype(np.float32)
    turned = logits.copy()
    turned[3, :8] = np.roll(turned[3, :8], 1)  # one face, and the first head alone
    both = {"Keras": logits, "int8": turned}
    export = Export(
        options=None,  # type: ignore[arg-type]  # the report asks for neither options nor the Keras model
        metadata=bundle.metadata,
        model=None,
        original=None,  # type: ignore[arg-type]
        calibration=rows.images,
        data=rows,
        tensors=rows.images,
        flatbuffers={"float32": b"float", "int8": bundle.model},
        logits=both,
        metrics={variant: evaluate_logits(said, rows, heads) for variant, said in both.items()},
        comparisons=tuple(row for variant, said in both.items() for row in compare(variant, said, logits, rows, heads)),
        reasons=("<b>too coarse</b>",),
        layers=tuple(inspect_layers(bundle.model, bundle.model, bundle.selftest.inputs[:2])),
        bundle=bundle,
    )
    return report.content(export)


def test_the_content_is_json_and_complete(content: dict[str, Any]) -> None:
    again = json.loads(json.dumps(content))
    assert again["metadata"]["name"] == "accurate"
    assert again["bytes"]["bundle"] == DEFAULT_MODEL.stat().st_size
    assert {"operator", "macs", "sqnr_db", "weights", "activations"} <= again["layers"][0].keys()
    assert sum(again["reliability"]["fer2013"]["raw"]["count"]) == 42


def test_the_faces_that_turned_are_shown(content: dict[str, Any]) -> None:
    assert [face["row"] for face in content["disagreements"]["ferplus"]] == [3]
    assert content["disagreements"]["fer2013"] == []


def test_the_page_needs_no_network_and_escapes_what_it_shows(
    content: dict[str, Any], rows: datasets.Dataset, tmp_path: Path
) -> None:
    page = report.page(content, rows)
    assert not re.search(r"""(src|href)=["']?(https?:|//|file:)|@import|url\(http|<script|<link""", page)
    assert "<b>too coarse</b>" not in page
    assert "&lt;b&gt;too coarse" in page
    assert page.count("data:image/png;base64,") == 4 + 1  # four confusion matrices, one face
    assert page.count("<svg") == 4
    assert not re.search("{{|{%|>None<", re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL))
    for layer in content["layers"]:
        assert layer["operator"] in page
