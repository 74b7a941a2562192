"""Checks for the Edge TPU, the compiler's log, and a bundle that comes out of it with its card."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert", reason="the schema comes with ai-edge-litert")

from edge_fer.errors import DataError
from edge_fer.model.bundle import DEFAULT_MODEL, load_bundle
from export import edgetpu
from export.flatbuffer import Operator, Tensor, read_operators

# What edgetpu_compiler -s prints, of a small classifier.
HEAD = """\
Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.
"""
FULL = (
    HEAD
    + """
Model compiled successfully in 412 ms.

Input model: model.tflite
Input size: 329.77KiB
Output model: model_edgetpu.tflite
Output size: 472.91KiB
On-chip memory used for caching model parameters: 341.00KiB
On-chip memory remaining for caching model parameters: 7.41MiB
Off-chip memory used for streaming uncached model parameters: 0.00B
Number of Edge TPU subgraphs: 1
Total number of operations: 12
Operation log: model_edgetpu.log

Operator                       Count      Status

ADD                            1          Mapped to Edge TPU
CONV_2D                        7          Mapped to Edge TPU
FULLY_CONNECTED                1          Mapped to Edge TPU
MEAN                           1          Mapped to Edge TPU
MUL                            1          Mapped to Edge TPU
QUANTIZE                       1          Mapped to Edge TPU
Compilation child process completed within timeout period.
Compilation succeeded!
"""
)
PARTIAL = (
    HEAD
    + """
Model compiled successfully in 97 ms.

Input model: model.tflite
Input size: 8.05MiB
Output model: model_edgetpu.tflite
Output size: 14.17MiB
On-chip memory used for caching model parameters: 6.91MiB
On-chip memory remaining for caching model parameters: 1.75KiB
Off-chip memory used for streaming uncached model parameters: 1.13MiB
Number of Edge TPU subgraphs: 1
Total number of operations: 12
Operation log: model_edgetpu.log

Model successfully compiled but not all operations are supported by the Edge TPU. A percentage of the model will instead run on the CPU, which is slower. If possible, consider updating your model to use only operations supported by the Edge TPU. For details, visit g.co/coral/model-reqs.
Number of operations that will run on Edge TPU: 10
Number of operations that will run on CPU: 2

Operator                       Count      Status

ADD                            1          Mapped to Edge TPU
CONV_2D                        7          Mapped to Edge TPU
FULLY_CONNECTED                1          More than one subgraph is not supported
MEAN                           1          Operation is otherwise supported, but not mapped due to some unspecified limitation
MUL                            1          Mapped to Edge TPU
QUANTIZE                       1          Mapped to Edge TPU
Compilation child process completed within timeout period.
Compilation succeeded!
"""  # noqa: E501
)
NOTHING = PARTIAL.replace("Edge TPU subgraphs: 1", "Edge TPU subgraphs: 0").replace("Edge TPU: 10", "Edge TPU: 0")
TOO_NEW = (
    HEAD
    + """\
ERROR: Didn't find op for builtin opcode 'FULLY_CONNECTED' version '12'. An older version of this builtin might be supported. Are you using an old TFLite binary with a newer model?

ERROR: Registration failed.

Invalid model: model.tflite
Model could not be parsed
"""  # noqa: E501
)
DYNAMIC = (
    HEAD
    + """\
ERROR: Attempting to use a delegate that only supports static-sized tensors with a graph that has dynamic-sized tensors.
Compilation failed: Model failed in Tflite interpreter. Please ensure model can be loaded/run in Tflite interpreter.
Compilation child process completed within timeout period.
Compilation failed!
"""
)
TOO_LARGE = (
    HEAD
    + """\
ERROR: Restored original execution plan after delegate application failure.
Compilation failed: Compilation failed due to large activation tensors in model.
Compilation child process completed within timeout period.
Compilation failed!
"""
)
CRASH = "Edge TPU Compiler version 15.0.340273435\n\nInternal compiler error. Aborting!\n"


# The log


def test_a_full_mapping_is_read() -> None:
    log = edgetpu.parse_log(FULL)
    assert (log.version, log.succeeded, log.subgraphs) == ("16.0.384591198", True, 1)
    assert (log.mapped, log.on_cpu, log.streamed, log.errors) == (12, 0, "0.00B", ())
    assert ("CONV_2D", 7, "Mapped to Edge TPU") in log.operators
    assert len(log.operators) == 6


def test_a_partial_mapping_says_what_stays_on_the_cpu() -> None:
    log = edgetpu.parse_log(PARTIAL)
    assert (log.succeeded, log.mapped, log.on_cpu, log.streamed) == (True, 10, 2, "1.13MiB")
    assert edgetpu.summary(log).splitlines() == [
        "Compiler 16.0.384591198 mapped 10 of 12 operators to the Edge TPU in 1 part(s); parameters streamed for each "
        "frame: 1.13MiB.",
        "On the CPU: 1 FULLY_CONNECTED: More than one subgraph is not supported.",
        "On the CPU: 1 MEAN: Operation is otherwise supported, but not mapped due to some unspecified limitation.",
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (TOO_NEW, "Didn't find op for builtin opcode 'FULLY_CONNECTED' version '12'"),
        (DYNAMIC, "dynamic-sized tensors"),
        (TOO_LARGE, "large activation tensors"),
        (CRASH, "Internal compiler error"),
    ],
)
def test_a_failure_is_read_with_its_reason(text: str, reason: str) -> None:
    log = edgetpu.parse_log(text)
    assert not log.succeeded
    assert reason in log.errors[0]
    assert log.operators == ()


def test_an_empty_log_is_a_failure() -> None:
    assert edgetpu.parse_log("").succeeded is False


# The check


def test_nothing_speaks_against_the_shipped_model() -> None:
    verdicts = edgetpu.check(read_operators(load_bundle(DEFAULT_MODEL).model))
    assert [verdict.operator for verdict in verdicts[:4]] == ["QUANTIZE", "MUL", "ADD", "CONV_2D"]
    assert [verdict.obstacle for verdict in verdicts] == [""] * len(verdicts)
    text = edgetpu.report(verdicts)
    assert "Nothing speaks against mapping all" in text
    assert "necessary, not sufficient" in text


def test_weights_with_many_scales_in_the_last_layer_are_doubted() -> None:
    last = read_operators(load_bundle(DEFAULT_MODEL).model)[-1]
    assert last.name == "FULLY_CONNECTED" and len(last.inputs[1].scales) == 15
    assert "--per-tensor" in edgetpu.check([last])[0].doubt
    weights = dataclasses.replace(last.inputs[1], scales=(0.1,))
    plain = dataclasses.replace(last, inputs=(last.inputs[0], weights, last.inputs[2]))
    assert "--per-tensor" not in edgetpu.check([plain])[0].doubt


def tensor(shape: tuple[int, ...], dtype: str = "INT8", constant: list[int] | None = None) -> Tensor:
    """A tensor; a constant holds int32 numbers."""
    held = None if constant is None else np.frombuffer(np.array(constant, np.int32).tobytes(), np.uint8)
    return Tensor("t", shape, True, dtype, (1.0,), (0,), held)


def operator(name: str, inputs: list[Tensor], output: tuple[int, ...] = (1, 8), **options: Any) -> Operator:
    """An operator of version 1."""
    return Operator(name, 1, tuple(inputs), (tensor(output),), options)


PICTURE = tensor((1, 6, 6, 8))
WEIGHTS = tensor((8, 3, 3, 8), constant=[1])
DENSE = tensor((8, 8), constant=[1])


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (operator("GATHER", [PICTURE]), "not in the list"),
        (operator("RELU", [tensor((1, 8), "FLOAT32")]), "works on FLOAT32"),
        (operator("ADD", [tensor((1, 8), "INT32"), PICTURE]), "works on INT32"),
        (operator("RELU", [tensor((1, 0, 8))]), "known only when it runs"),
        (operator("RELU", [tensor((2, 6, 6, 8))]), "more than three dimensions"),
        (operator("CONV_2D", [PICTURE, PICTURE], dilationWFactor=1, dilationHFactor=1), "weights that are computed"),
        (operator("CONV_2D", [PICTURE, WEIGHTS], dilationWFactor=2, dilationHFactor=1), "different dilations"),
        (operator("FULLY_CONNECTED", [PICTURE, DENSE], weightsFormat=1), "shuffled"),
        (operator("FULLY_CONNECTED", [PICTURE, DENSE], (6, 8), weightsFormat=0), "more than one dimension"),
        (operator("MAX_POOL_2D", [PICTURE], fusedActivationFunction=1), "fused activation"),
        (
            operator("CONCATENATION", [PICTURE, tensor((1, 8), constant=[1, 2])], fusedActivationFunction=0),
            "not zero",
        ),
        (operator("MEAN", [PICTURE, tensor((1,), "INT32", [0])]), "over the batch"),
        (operator("MEAN", [tensor((1, 6, 6, 6)), tensor((1,), "INT32", [-1])]), "6 channels"),
        (operator("MEAN", [PICTURE, tensor((1,), "INT32")]), "works on INT32"),
        (operator("PAD", [PICTURE, tensor((4, 2), "INT32", [1, 0, 0, 0, 0, 0, 0, 0])]), "pads the batch"),
        (operator("SOFTMAX", [tensor((1, 16_001))]), "16,000"),
    ],
)
def test_each_condition_keeps_an_operator_on_the_cpu(bad: Operator, reason: str) -> None:
    assert reason in edgetpu.check([bad])[0].obstacle


@pytest.mark.parametrize(
    "good",
    [
        operator("CONV_2D", [PICTURE, WEIGHTS], dilationWFactor=2, dilationHFactor=2),
        operator("CONCATENATION", [PICTURE, PICTURE, PICTURE], fusedActivationFunction=0),
        operator("CONCATENATION", [PICTURE, tensor((1, 8), constant=[0])], fusedActivationFunction=0),
        operator("MEAN", [PICTURE, tensor((2,), "INT32", [1, 2])]),
        operator("MEAN", [PICTURE, tensor((1,), "INT32", [3])]),
        operator("PAD", [PICTURE, tensor((4, 2), "INT32", [0, 0, 1, 1, 1, 1, 0, 0])]),
        operator("SOFTMAX", [tensor((1, 8))]),
    ],
)
def test_what_the_conditions_allow_passes(good: Operator) -> None:
    assert edgetpu.check([good])[0] == edgetpu.Verdict(good.name, "", "")


def test_the_report_says_where_the_graph_is_cut() -> None:
    verdicts = edgetpu.check([operator("RELU", [PICTURE]), operator("GATHER", [PICTURE]), operator("RELU", [PICTURE])])
    assert "cut at operator 1: of 3, 1 may run on the Edge TPU, 2 stay on the CPU" in edgetpu.report(verdicts)


def test_an_operator_newer_than_the_compiler_is_doubted() -> None:
    new = dataclasses.replace(operator("QUANTIZE", [PICTURE]), version=3)
    assert "may be newer than the compiler" in edgetpu.check([new])[0].doubt


def test_a_compiled_model_is_refused() -> None:
    with pytest.raises(DataError, match="file for the CPU"):
        edgetpu.check([operator("CUSTOM", [PICTURE])])


def test_a_damaged_flatbuffer_is_one_sentence() -> None:
    model = load_bundle(DEFAULT_MODEL).model
    with pytest.raises(DataError, match="cannot be read"):
        read_operators(model[:100])


# The compiler


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a program called edgetpu_compiler on the PATH that prints a log and may write a model."""

    def install(log: str, code: int = 0) -> None:
        folder = tmp_path / "bin"
        folder.mkdir()
        script = folder / "edgetpu_compiler"
        script.write_text(
            f"#!{sys.executable}\n"
            "import pathlib, sys\n"
            "flag_s, flag_o, folder, source = sys.argv[1:]\n"
            "assert (flag_s, flag_o) == ('-s', '-o')\n"
            f"log = {log!r}\n"
            "if 'compiled successfully' in log:\n"
            "    model = pathlib.Path(source).read_bytes() + b'edgetpu-custom-op'\n"
            "    pathlib.Path(folder, pathlib.Path(source).stem + '_edgetpu.tflite').write_bytes(model)\n"
            f"print(log)\nsys.exit({code})\n"
        )
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    return install


def test_the_card_is_attached_after_compiling(
    compiler: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compiler(FULL)
    output = tmp_path / "out" / "accurate_edgetpu.tflite"
    output.parent.mkdir()
    assert edgetpu.main([str(DEFAULT_MODEL), "-o", str(output)]) == 0
    before, after = load_bundle(DEFAULT_MODEL), load_bundle(output)
    assert after.model == before.model + b"edgetpu-custom-op"
    assert after.card.facts["edgetpu"] == {
        "compiler": "16.0.384591198",
        "operators_mapped": 12,
        "operators_on_cpu": 0,
    }
    assert (after.card.heads, after.card.smoothing) == (before.card.heads, before.card.smoothing)
    np.testing.assert_array_equal(after.selftest_outputs, before.selftest_outputs)
    assert (output.parent / DEFAULT_MODEL.name).read_bytes() == DEFAULT_MODEL.read_bytes()
    assert "mapped 12 of 12" in capsys.readouterr().out


def test_the_cpu_file_in_the_same_folder_stays_as_it_is(compiler: Callable[..., None], tmp_path: Path) -> None:
    compiler(FULL)
    source = tmp_path / "mine.tflite"
    source.write_bytes(DEFAULT_MODEL.read_bytes())
    assert edgetpu.main([str(source), "-o", str(tmp_path / "mine_edgetpu.tflite")]) == 0
    assert source.read_bytes() == DEFAULT_MODEL.read_bytes()
    assert edgetpu.main([str(source), "-o", str(source), "--force"]) == 73
    assert source.read_bytes() == DEFAULT_MODEL.read_bytes()


@pytest.mark.parametrize(
    ("log", "code", "reason"),
    [
        (TOO_NEW, 1, "version '12'"),
        (DYNAMIC, 0, "dynamic-sized"),
        (CRASH, 1, "Internal compiler error"),
        (NOTHING, 0, "maps no operator"),
        ("", 3, "exit code 3"),
    ],
)
def test_a_refusal_writes_nothing(
    compiler: Callable[..., None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    log: str,
    code: int,
    reason: str,
) -> None:
    compiler(log, code)
    assert edgetpu.main([str(DEFAULT_MODEL), "-o", str(tmp_path / "x.tflite")]) == 65
    error = capsys.readouterr().err
    assert reason in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]


def test_without_the_compiler_the_check_is_still_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert edgetpu.main([str(DEFAULT_MODEL), "-o", str(tmp_path / "x.tflite")]) == 69
    captured = capsys.readouterr()
    assert "necessary, not sufficient" in captured.out
    assert "not on the PATH" in captured.err
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_not_overwritten_without_force(compiler: Callable[..., None], tmp_path: Path) -> None:
    compiler(FULL)
    output = tmp_path / "x.tflite"
    output.write_text("mine")
    assert edgetpu.main([str(DEFAULT_MODEL), "-o", str(output)]) == 73
    assert output.read_text() == "mine"
    assert edgetpu.main([str(DEFAULT_MODEL), "-o", str(output), "--force"]) == 0


def test_a_folder_that_is_not_there_is_one_sentence(compiler: Callable[..., None], tmp_path: Path) -> None:
    compiler(FULL)
    assert edgetpu.main([str(DEFAULT_MODEL), "-o", str(tmp_path / "none" / "x.tflite")]) == 73
