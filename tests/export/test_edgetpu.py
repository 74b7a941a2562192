"""Which operators the Edge TPU may map, and what speaks against the others."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert", reason="the schema comes with ai-edge-litert")

from edge_fer.errors import DataError
from edge_fer.model.bundle import DEFAULT_MODEL, load_bundle
from export import edgetpu
from export.edgetpu_rules import Verdict, check
from export.flatbuffer import Operator, Tensor, read_operators


def test_nothing_speaks_against_the_shipped_model() -> None:
    verdicts = check(read_operators(load_bundle(DEFAULT_MODEL).model))
    assert [verdict.operator for verdict in verdicts[:4]] == ["QUANTIZE", "MUL", "ADD", "CONV_2D"]
    assert [verdict.obstacle for verdict in verdicts] == [""] * len(verdicts)
    text = edgetpu.report(verdicts)
    assert "Nothing speaks against mapping all" in text
    assert "necessary, not sufficient" in text


def test_weights_with_many_scales_in_the_last_layer_are_doubted() -> None:
    last = read_operators(load_bundle(DEFAULT_MODEL).model)[-1]
    assert last.name == "FULLY_CONNECTED" and len(last.inputs[1].scales) == 15
    assert "--per-tensor" in check([last])[0].doubt
    weights = dataclasses.replace(last.inputs[1], scales=(0.1,))
    plain = dataclasses.replace(last, inputs=(last.inputs[0], weights, last.inputs[2]))
    assert "--per-tensor" not in check([plain])[0].doubt


def tensor(shape: tuple[int, ...], dtype: str = "INT8", constant: list[int] | None = None) -> Tensor:
    """A tensor; a constant holds int32 numbers."""
    held = None if constant is None else np.frombuffer(np.array(constant, np.int32).tobytes(), np.uint8)
    return Tensor("t", shape, True, dtype, (1.0,), (0,), held)


def operator(name: str, inputs: list[Tensor], output: tuple[int, ...] = (1, 8), **options: Any) -> Operator:
    """An operator of version 1."""
    return Operator(name, 1, tuple(inputs), (tensor(output),), options)


IMAGE = tensor((1, 6, 6, 8))
WEIGHTS = tensor((8, 3, 3, 8), constant=[1])
DENSE = tensor((8, 8), constant=[1])


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (operator("GATHER", [IMAGE]), "not in the list"),
        (operator("RELU", [tensor((1, 8), "FLOAT32")]), "works on FLOAT32"),
        (operator("ADD", [tensor((1, 8), "INT32"), IMAGE]), "works on INT32"),
        (operator("RELU", [tensor((1, 0, 8))]), "known only when it runs"),
        (operator("RELU", [tensor((2, 6, 6, 8))]), "more than three dimensions"),
        (operator("CONV_2D", [IMAGE, IMAGE], dilationWFactor=1, dilationHFactor=1), "weights that are computed"),
        (operator("CONV_2D", [IMAGE, WEIGHTS], dilationWFactor=2, dilationHFactor=1), "different dilations"),
        (operator("FULLY_CONNECTED", [IMAGE, DENSE], weightsFormat=1), "shuffled"),
        (operator("FULLY_CONNECTED", [IMAGE, DENSE], (6, 8), weightsFormat=0), "more than one dimension"),
        (operator("MAX_POOL_2D", [IMAGE], fusedActivationFunction=1), "fused activation"),
        (
            operator("CONCATENATION", [IMAGE, tensor((1, 8), constant=[1, 2])], fusedActivationFunction=0),
            "not zero",
        ),
        (operator("MEAN", [IMAGE, tensor((1,), "INT32", [0])]), "over the batch"),
        (operator("MEAN", [tensor((1, 6, 6, 6)), tensor((1,), "INT32", [-1])]), "6 channels"),
        (operator("MEAN", [IMAGE, tensor((1,), "INT32")]), "works on INT32"),
        (operator("PAD", [IMAGE, tensor((4, 2), "INT32", [1, 0, 0, 0, 0, 0, 0, 0])]), "pads the batch"),
        (operator("SOFTMAX", [tensor((1, 16_001))]), "16,000"),
    ],
)
def test_each_condition_keeps_an_operator_on_the_cpu(bad: Operator, reason: str) -> None:
    assert reason in check([bad])[0].obstacle


@pytest.mark.parametrize(
    "good",
    [
        operator("CONV_2D", [IMAGE, WEIGHTS], dilationWFactor=2, dilationHFactor=2),
        operator("CONCATENATION", [IMAGE, IMAGE, IMAGE], fusedActivationFunction=0),
        operator("CONCATENATION", [IMAGE, tensor((1, 8), constant=[0])], fusedActivationFunction=0),
        operator("MEAN", [IMAGE, tensor((2,), "INT32", [1, 2])]),
        operator("MEAN", [IMAGE, tensor((1,), "INT32", [3])]),
        operator("PAD", [IMAGE, tensor((4, 2), "INT32", [0, 0, 1, 1, 1, 1, 0, 0])]),
        operator("SOFTMAX", [tensor((1, 8))]),
    ],
)
def test_what_the_conditions_allow_passes(good: Operator) -> None:
    assert check([good])[0] == Verdict(good.name, "", "")


def test_the_report_says_where_the_graph_is_cut() -> None:
    verdicts = check([operator("RELU", [IMAGE]), operator("GATHER", [IMAGE]), operator("RELU", [IMAGE])])
    assert "cut at operator 1: of 3, 1 may run on the Edge TPU, 2 stay on the CPU" in edgetpu.report(verdicts)


def test_an_operator_newer_than_the_compiler_is_doubted() -> None:
    new = dataclasses.replace(operator("QUANTIZE", [IMAGE]), version=3)
    assert "may be newer than the compiler" in check([new])[0].doubt


def test_a_compiled_model_is_refused() -> None:
    with pytest.raises(DataError, match="file for the CPU"):
        check([operator("CUSTOM", [IMAGE])])


def test_a_damaged_flatbuffer_is_one_sentence() -> None:
    model = load_bundle(DEFAULT_MODEL).model
    with pytest.raises(DataError, match="cannot be read"):
        read_operators(model[:100])
