"""C++ of a bundle: it compiles, and the program reads the model that the bundle holds."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert", reason="the schema comes with ai-edge-litert")

from edge_fer.errors import DataError
from edge_fer.model.bundle import DEFAULT_MODEL, load_bundle
from export import microcontroller
from export.flatbuffer import Operator, read_operators

COMPILER = shutil.which("g++") or shutil.which("c++")

# A resolver that prints what is registered, and the model byte by byte on stdout.
PROGRAM = """
#include "accurate_model.h"
#include <cstdio>

struct Resolver {
  int AddAdd() { return std::fprintf(stderr, "Add\\n"); }
  int AddConv2D() { return std::fprintf(stderr, "Conv2D\\n"); }
  int AddFullyConnected() { return std::fprintf(stderr, "FullyConnected\\n"); }
  int AddMean() { return std::fprintf(stderr, "Mean\\n"); }
  int AddMul() { return std::fprintf(stderr, "Mul\\n"); }
  int AddQuantize() { return std::fprintf(stderr, "Quantize\\n"); }
};

int main() {
  using namespace accurate_model;
  static_assert(kInputHeight == 48 && kInputWidth == 48 && kOutputs == 15 && kFer2013First == 8, "");
  static_assert(sizeof(kFerplusLabels) / sizeof(kFerplusLabels[0]) == 8, "");
  Resolver resolver;
  AddOperators(resolver);
  std::fprintf(stderr, "%s %.9g %d %d\\n", kFerplusLabels[1], kOutputScale, kOutputZeroPoint, kOperators);
  if (reinterpret_cast<std::size_t>(kModel) % 16 != 0) return 1;
  return std::fwrite(kModel, 1, kModelBytes, stdout) != kModelBytes;
}
"""


@pytest.fixture
def without_micro(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without tflite-micro."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tflite_micro" else find(name))


@pytest.mark.usefixtures("without_micro")
@pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler")
def test_a_program_holds_the_model_of_the_bundle(tmp_path: Path, call: Callable[..., Any]) -> None:
    assert call(microcontroller.main, DEFAULT_MODEL, "-o", tmp_path / "accurate_model.cc").code == 0
    (tmp_path / "main.cc").write_text(PROGRAM)
    assert COMPILER
    command = [
        COMPILER,
        "-std=c++17",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-O0",
        "main.cc",
        "accurate_model.cc",
        "-o",
        "main",
    ]
    subprocess.run(command, cwd=tmp_path, check=True)
    done = subprocess.run([tmp_path / "main"], capture_output=True, check=True)
    bundle = load_bundle(DEFAULT_MODEL)
    assert done.stdout == bundle.model
    *operators, constants = done.stderr.decode().splitlines()
    assert operators == ["Add", "Conv2D", "FullyConnected", "Mean", "Mul", "Quantize"]
    label, scale, zero_point, count = constants.split()
    output = read_operators(bundle.model)[-1].outputs[0]
    assert (label, int(zero_point), int(count)) == ("happiness", output.zero_points[0], 6)
    assert np.float32(scale) == np.float32(output.scales[0])


@pytest.mark.usefixtures("without_micro")
def test_an_arena_that_is_not_measured_is_left_out(tmp_path: Path, call: Callable[..., Any]) -> None:
    done = call(microcontroller.main, DEFAULT_MODEL, "-o", tmp_path / "m.cc")
    assert done.code == 0
    assert "tflite-micro is not installed" in done.out
    header = (tmp_path / "m.h").read_text()
    assert "kArenaBytes" not in header and "not measured" in header


@pytest.mark.skipif(importlib.util.find_spec("tflite_micro") is None, reason="needs `pip install tflite-micro`")
def test_the_arena_is_measured_by_running_the_model(tmp_path: Path) -> None:
    bundle = load_bundle(DEFAULT_MODEL)
    arena = microcontroller.measure_arena(bundle)
    assert arena is not None
    assert arena.outputs == bundle.selftest.outputs.size
    assert arena.equal >= 0.9 * arena.outputs and arena.largest_difference <= 2
    microcontroller.write_sources(bundle, tmp_path / "m.cc")
    assert re.search(rf"kArenaBytes = {arena.size_bytes};", (tmp_path / "m.h").read_text())


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("CONV_2D", "AddConv2D"),
        ("DEPTHWISE_CONV_2D", "AddDepthwiseConv2D"),
        ("AVERAGE_POOL_2D", "AddAveragePool2D"),
        ("RELU6", "AddRelu6"),
        ("ADD_N", "AddAddN"),
        ("PADV2", "AddPadV2"),
        ("BATCH_MATMUL", "AddBatchMatMul"),
    ],
)
def test_methods_are_called_as_in_tensorflow_lite_micro(name: str, method: str) -> None:
    assert microcontroller.add_methods([Operator(name, 1, (), (), {})] * 2) == [method]


def test_a_compiled_model_is_refused() -> None:
    with pytest.raises(DataError, match="file for the CPU"):
        microcontroller.add_methods([Operator("CUSTOM", 1, (), (), {})])


@pytest.mark.parametrize("name", ["model.txt", "my-model.cc", "1.cc"])
def test_a_name_that_cpp_cannot_use_is_refused(tmp_path: Path, name: str, call: Callable[..., Any]) -> None:
    done = call(microcontroller.main, DEFAULT_MODEL, "-o", tmp_path / name)
    assert done.code == 65
    assert "NAME.cc" in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("without_micro")
def test_files_are_not_overwritten_without_force(tmp_path: Path, call: Callable[..., Any]) -> None:
    (tmp_path / "m.h").write_text("mine")
    arguments = [DEFAULT_MODEL, "-o", tmp_path / "m.cc"]
    assert call(microcontroller.main, *arguments).code == 73
    assert (tmp_path / "m.h").read_text() == "mine" and not (tmp_path / "m.cc").exists()
    assert call(microcontroller.main, *arguments, "--force").code == 0


def test_a_head_may_have_any_name() -> None:
    assert microcontroller._camel_case("my-own head") == "MyOwnHead"


def test_floats_are_written_so_that_they_are_read_back() -> None:
    assert microcontroller._float(1.0) == "1.0f"
    for value in (0.06192784, 1e-9, 123456.7):
        assert np.float32(microcontroller._float(value).rstrip("f")) == np.float32(value)
