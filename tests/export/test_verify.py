"""The gate between float and int8, and the layers that are to blame."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import keras
import numpy as np
import pytest
from labeled import HEADS
from rich.console import Console

import datasets
from edge_fer.model.bundle import DEFAULT_MODEL, load_bundle
from export.convert import to_float, to_int8
from export.flatbuffer import run_flatbuffer
from export.layers import inspect_layers, noise_table
from export.verify import compare, refusals, shortfalls


@pytest.fixture(scope="module")
def rows(data: Path) -> datasets.Dataset:
    return datasets.load(data)["Training"]


def logits_of(rows: datasets.Dataset, wrong: int) -> np.ndarray:
    """Logits that are right on every FER2013 label but the first ones."""
    logits = np.zeros((len(rows), 15), np.float32)
    logits[np.arange(len(rows)), rows.labels["ferplus"].truth] = 5
    logits[np.arange(len(rows)), 8 + (rows.labels["fer2013"].truth + (np.arange(len(rows)) < wrong)) % 7] = 5
    return logits


def test_the_gate_counts_points_and_agreement(rows: datasets.Dataset) -> None:
    exact, worse = logits_of(rows, 0), logits_of(rows, 7)  # 7 of 140
    comparisons = compare("int8", worse, exact, rows, HEADS)
    assert [row.drop for row in comparisons] == [0.0, 5.0]
    assert [row.agreement for row in comparisons] == [1.0, 0.95]
    assert [row.largest_difference for row in comparisons] == [0.0, 5.0]
    assert len(refusals(comparisons, 0.5, 97)) == 2
    assert all("fer2013" in reason for reason in refusals(comparisons, 0.5, 97))
    assert refusals(comparisons, 5.0, 95) == []
    assert refusals(compare("float16", worse, exact, rows, HEADS), 0.5, 97) == []


def test_what_cannot_be_compared_does_not_pass_the_gate(rows: datasets.Dataset) -> None:
    exact = logits_of(rows, 0)
    comparisons = compare("int8", exact, exact, rows, HEADS)
    assert refusals(comparisons, 0.5, 97) == [] and shortfalls(comparisons, 5, 100) == []
    assert len(refusals(comparisons, math.nan, math.nan)) == 4  # both heads, both demands
    assert len(shortfalls(comparisons, math.nan, 100)) == 2
    assert len(shortfalls(comparisons, 5, math.nan)) == 2
    unknown = [dataclasses.replace(row, drop=math.nan, agreement=math.nan) for row in comparisons]
    assert len(refusals(unknown, 0.5, 97)) == 4


def test_a_model_has_no_noise_against_itself() -> None:
    bundle = load_bundle(DEFAULT_MODEL)
    layers = inspect_layers(bundle.model, bundle.model, bundle.selftest.inputs)
    assert {layer.sqnr_db for layer in layers} == {60.0}
    assert {layer.lost_db for layer in layers} == {0.0}
    # 3x3 convolutions on 48x48 with 1 channel, stride 1, 24 filters: 48 * 48 * 24 * 9.
    first = next(layer for layer in layers if layer.operator == "CONV_2D")
    assert first.macs == 48 * 48 * 24 * 9
    assert first.constants == 24 * 9 + 24 * 4
    assert first.activations is not None
    assert sum(first.activations.counts) == 48 * 48 * 24 * len(bundle.selftest.inputs)
    assert first.weights is not None
    assert sum(first.weights.counts) == 24 * 9


@pytest.mark.trains
def test_the_layer_that_is_to_blame_is_named() -> None:
    """Huge weights that cancel each other in float leave int8 no room for the others of their layer."""
    good, bad = (keras.layers.Conv2D(8, 3, strides=3, name=name) for name in ("good", "bad"))
    tail = [keras.layers.Flatten(), keras.layers.Dense(15)]
    model = keras.Sequential([keras.Input((48, 48, 1)), keras.layers.Rescaling(1 / 255), good, bad, *tail])
    kernel = np.array(good.kernel)
    kernel[..., 1] = kernel[..., 0]
    good.kernel.assign(kernel)
    kernel = np.array(bad.kernel)
    kernel[0, 0, 0] += 100
    kernel[0, 0, 1] -= 100
    bad.kernel.assign(kernel)
    tensors = load_bundle(DEFAULT_MODEL).selftest.inputs
    exact, coarse = to_float(model), to_int8(model, tensors, Console(stderr=True))
    logits = run_flatbuffer(exact, tensors, Console(stderr=True), "")
    assert np.allclose(logits, model.predict(tensors, verbose=0), atol=1e-3)
    layers = inspect_layers(exact, coarse, tensors)
    worst = max(layers, key=lambda layer: layer.lost_db or 0)
    assert "bad" in worst.name
    console = Console(record=True, width=140)
    console.print(noise_table(layers, 1))
    assert "bad" in console.export_text()
