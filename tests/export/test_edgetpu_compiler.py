"""The Edge TPU compiler's log, and a bundle that comes out of it with its metadata."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert", reason="the schema comes with ai-edge-litert")

from edge_fer.model.bundle import DEFAULT_MODEL, load_bundle
from export import edgetpu

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


def test_the_metadata_is_attached_after_compiling(
    compiler: Callable[..., None], tmp_path: Path, call: Callable[..., Any]
) -> None:
    compiler(FULL)
    output = tmp_path / "out" / "accurate_edgetpu.tflite"
    output.parent.mkdir()
    done = call(edgetpu.main, DEFAULT_MODEL, "-o", output)
    assert done.code == 0
    before, after = load_bundle(DEFAULT_MODEL), load_bundle(output)
    assert after.model == before.model + b"edgetpu-custom-op"
    assert after.metadata.facts["edgetpu"] == {
        "compiler": "16.0.384591198",
        "operators_mapped": 12,
        "operators_on_cpu": 0,
    }
    assert (after.metadata.heads, after.metadata.smoothing) == (before.metadata.heads, before.metadata.smoothing)
    np.testing.assert_array_equal(after.selftest.outputs, before.selftest.outputs)
    assert (output.parent / DEFAULT_MODEL.name).read_bytes() == DEFAULT_MODEL.read_bytes()
    assert "mapped 12 of 12" in done.out


def test_the_cpu_file_in_the_same_folder_stays_as_it_is(
    compiler: Callable[..., None], tmp_path: Path, call: Callable[..., Any]
) -> None:
    compiler(FULL)
    source = tmp_path / "mine.tflite"
    source.write_bytes(DEFAULT_MODEL.read_bytes())
    assert call(edgetpu.main, source, "-o", tmp_path / "mine_edgetpu.tflite").code == 0
    assert source.read_bytes() == DEFAULT_MODEL.read_bytes()
    assert call(edgetpu.main, source, "-o", source, "--force").code == 73
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
    compiler: Callable[..., None], tmp_path: Path, log: str, code: int, reason: str, call: Callable[..., Any]
) -> None:
    compiler(log, code)
    done = call(edgetpu.main, DEFAULT_MODEL, "-o", tmp_path / "x.tflite")
    assert done.code == 65
    error = done.err
    assert reason in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]


def test_without_the_compiler_the_check_is_still_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[..., Any]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = call(edgetpu.main, DEFAULT_MODEL, "-o", tmp_path / "x.tflite")
    assert done.code == 69
    assert "necessary, not sufficient" in done.out
    assert "not on the PATH" in done.err
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_not_overwritten_without_force(
    compiler: Callable[..., None], tmp_path: Path, call: Callable[..., Any]
) -> None:
    compiler(FULL)
    output = tmp_path / "x.tflite"
    output.write_text("mine")
    assert call(edgetpu.main, DEFAULT_MODEL, "-o", output).code == 73
    assert output.read_text() == "mine"
    assert call(edgetpu.main, DEFAULT_MODEL, "-o", output, "--force").code == 0


def test_a_folder_that_is_not_there_is_one_sentence(
    compiler: Callable[..., None], tmp_path: Path, call: Callable[..., Any]
) -> None:
    compiler(FULL)
    assert call(edgetpu.main, DEFAULT_MODEL, "-o", tmp_path / "none" / "x.tflite").code == 73
