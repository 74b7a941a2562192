"""Make C++ of a bundle for TensorFlow Lite Micro: the model as an array, and what a program needs to run it.

    python -m export.microcontroller accurate.tflite -o accurate_model.cc
    python export/quantize.py MODEL.keras --data DIR -o accurate.tflite --c-array accurate_model.cc

write ``accurate_model.cc`` and ``accurate_model.h``: the array, the operators for the resolver, the size of the arena,
labels and quantization. The arena is measured by running the self-test in TensorFlow Lite Micro's own interpreter
(``pip install tflite-micro``: Python 3.10 and 3.11 on x86-64 Linux); without it the header says that it is not known.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_fer.errors import DataError, EdgeFerError, OutputError
from edge_fer.files import write_atomically
from edge_fer.model.bundle import Bundle, load_bundle
from edge_fer.model.spec import Head, head_slices
from export.flatbuffer import Operator, read_operators

BYTES_A_LINE = 16

# Where TensorFlow Lite Micro's names do not follow from the schema's.
_ADD_METHODS = {"BATCH_MATMUL": "AddBatchMatMul", "CUMSUM": "AddCumSum", "PADV2": "AddPadV2"}

# In a process of its own: the interpreter prints the sizes to stderr and has no other way to tell them, and a kernel
# that fails may take the process with it.
_MEASURE = """
import sys
import numpy as np
from tflite_micro import runtime

folder = sys.argv[1]
# Room for any network; by default it is ten times the model, too little for a small one with large images.
interpreter = runtime.Interpreter.from_file(folder + "/model.tflite", arena_size=1 << 26)
outputs = []
for tensor in np.load(folder + "/inputs.npy"):
    interpreter.set_input(tensor[np.newaxis], 0)
    interpreter.invoke()
    outputs.append(interpreter.get_output(0)[0].copy())
np.save(folder + "/outputs.npy", np.stack(outputs))
interpreter.print_allocations()
"""


@dataclass(frozen=True)
class Arena:
    """What TensorFlow Lite Micro's interpreter said.

    Attributes:
        size_bytes: of the arena, on a 64-bit machine with the reference kernels.
        equal: outputs of the self-test that equal the exporter's,
        outputs: of so many.
        largest_difference: between two outputs, in LSB.
    """

    size_bytes: int
    equal: int
    outputs: int
    largest_difference: int


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m export.microcontroller",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", type=Path, help="a bundle made by export/quantize.py")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.cc", help="OUT.h is written beside it")
    parser.add_argument("--force", action="store_true", help="overwrite files")
    args = parser.parse_args(arguments)
    try:
        write_sources(load_bundle(args.bundle), args.output, args.force)
    except EdgeFerError as error:
        print(f"microcontroller: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def write_sources(bundle: Bundle, output: Path, force: bool = False) -> None:
    """Write OUT.cc and OUT.h, and say what is in them.

    Raises:
        DataError: TensorFlow Lite Micro cannot run the model, or the file is not called NAME.cc.
        OutputError: a file is there already, or cannot be written.
    """
    check_name(output)
    if bundle.metadata.reads_embedding:
        raise DataError(
            f"{bundle} has a recurrent head or intensity, which are no part of its graph: export the bundle that it "
            "was made from."
        )
    header = output.with_suffix(".h")
    for path in (output, header):
        if path.exists() and not force:
            raise OutputError(f"{path} exists; --force overwrites it.")
    operators = read_operators(bundle.model)
    arena = measure_arena(bundle)
    write_atomically(header, header_text(bundle, output.stem, operators, arena).encode())
    write_atomically(output, source_text(bundle, output.stem).encode())
    print(f"Wrote {output} and {header.name}: a model of {len(bundle.model):,} bytes.")
    if arena is None:
        print("The arena is not measured: tflite-micro is not installed (`pip install tflite-micro`).")
    else:
        print(
            f"It needs an arena of {arena.size_bytes:,} bytes. {arena.equal} of {arena.outputs} outputs of the "
            f"self-test are the exporter's; the others differ by at most {arena.largest_difference}."
        )


def check_name(output: Path) -> None:
    """The name of the file is that of a namespace.

    Raises:
        DataError: it cannot be.
    """
    if output.suffix != ".cc" or not re.fullmatch(r"[A-Za-z_]\w*", output.stem, re.ASCII):
        raise DataError(f"The C++ must be called NAME.cc, with a NAME that C++ can use, not {output.name}.")


def add_methods(operators: Sequence[Operator]) -> list[str]:
    """The methods of ``tflite::MicroMutableOpResolver`` that register the operators, sorted, each once.

    Raises:
        DataError: a custom operator.
    """
    names = sorted({operator.name for operator in operators})
    if "CUSTOM" in names:
        raise DataError(
            "The model has custom operators, as one compiled for the Edge TPU has; use the file for the CPU."
        )
    return [_ADD_METHODS.get(name) or f"Add{_camel_case(name)}" for name in names]


def _camel_case(name: str) -> str:
    """Also of a head's name, which may hold anything."""
    return "".join("2D" if word == "2D" else word.capitalize() for word in re.split(r"[^A-Za-z0-9]+", name))


def measure_arena(bundle: Bundle) -> Arena | None:
    """Run the self-test in TensorFlow Lite Micro; None where its interpreter is not installed.

    Raises:
        DataError: it cannot run the model.
    """
    if importlib.util.find_spec("tflite_micro") is None:
        return None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model.tflite").write_bytes(bundle.model)
        np.save(folder / "inputs.npy", bundle.selftest.inputs)
        child = subprocess.run(
            [sys.executable, "-c", _MEASURE, name], capture_output=True, text=True, errors="replace", check=False
        )
        size = re.search(r"Arena allocation total (\d+) bytes", child.stderr)
        if child.returncode != 0 or size is None:
            lines = child.stderr.strip().splitlines() or [f"exit code {child.returncode}"]
            raise DataError(f"TensorFlow Lite Micro cannot run the model: {lines[0]}.")
        outputs = np.load(folder / "outputs.npy").astype(np.int32)
    difference = np.abs(outputs - bundle.selftest.outputs)
    return Arena(int(size[1]), int((difference == 0).sum()), difference.size, int(difference.max()))


def header_text(bundle: Bundle, name: str, operators: Sequence[Operator], arena: Arena | None) -> str:
    """The header: what a program needs beside the array.

    Args:
        bundle: whose model it is.
        name: namespace of all that is declared.
        operators: of the model.
        arena: its measured size, or None.
    """
    source, target = operators[0].inputs[0], operators[-1].outputs[0]
    methods = add_methods(operators)
    metadata, spec = bundle.metadata, bundle.metadata.preprocess
    if arena is None:
        arena_lines = "// The arena is not measured. Try sizes until AllocateTensors succeeds."
    else:
        arena_lines = (
            "// Measured with tflite-micro on a 64-bit machine. 32 bits need less for pointers; optimized kernels may\n"
            "// need more for scratch buffers.\n"
            f"constexpr std::size_t kArenaBytes = {arena.size_bytes};"
        )
    heads = "\n".join(_head_text(head, head_slices(metadata.heads)[head.name].start) for head in metadata.heads)
    calls = "\n".join(f"  resolver.{method}();" for method in methods)
    upright = "" if spec.alignment == "none" else ", turn it upright by its eyes"
    light = f"\n// Then, as edge_fer/preprocess/illumination.py does it: {', '.join(spec.illumination)}." * bool(
        spec.illumination
    )
    pixels = "pixels" if source.dtype == "UINT8" else "pixels - 128"
    return f"""\
// Model "{metadata.name}" for TensorFlow Lite Micro. Made by `python -m export.microcontroller`; do not edit.
// SHA-256 of the model: {metadata.model_sha256}
#pragma once

#include <cstddef>
#include <cstdint>

namespace {name} {{

extern const unsigned char kModel[];
constexpr std::size_t kModelBytes = {len(bundle.model)};

{arena_lines}

// Input: {source.dtype.lower()} {pixels} of a face, row by row. Crop it with a margin of {spec.margin:g} of its
// sides{upright}, make it gray, and bring it to this size. Do not scale the values.{light}
constexpr int kInputHeight = {source.shape[1]};
constexpr int kInputWidth = {source.shape[2]};

// logit = ({target.dtype.lower()} - zero point) * scale, for all heads side by side.
constexpr int kOutputs = {target.shape[-1]};
constexpr float kOutputScale = {_float(target.scales[0])};
constexpr int kOutputZeroPoint = {target.zero_points[0]};
{heads}

// tflite::MicroMutableOpResolver<kOperators> resolver;
constexpr int kOperators = {len(methods)};

template <typename Resolver>
void AddOperators(Resolver& resolver) {{
{calls}
}}

}}  // namespace {name}
"""


def _head_text(head: Head, first: int) -> str:
    name = _camel_case(head.name)
    labels = ", ".join(f'"{label}"' for label in head.labels)
    return f"""
// Head "{head.name}": {len(head.labels)} outputs from {first}. Divide its logits by the temperature before softmax.
constexpr int k{name}First = {first};
constexpr float k{name}Temperature = {_float(head.temperature)};
constexpr const char* k{name}Labels[] = {{{labels}}};"""


def _float(value: float) -> str:
    """A C++ literal that is read back as the same float32."""
    return f"{np.format_float_positional(np.float32(value), trim='0')}f"


def source_text(bundle: Bundle, name: str) -> str:
    """The array. TensorFlow Lite Micro reads weights in place, so it is aligned for vector instructions."""
    rows = (bundle.model[start : start + BYTES_A_LINE] for start in range(0, len(bundle.model), BYTES_A_LINE))
    numbers = "\n".join("    " + ", ".join(f"0x{byte:02x}" for byte in row) + "," for row in rows)
    return f"""\
// Made by `python -m export.microcontroller`; do not edit.
#include "{name}.h"

namespace {name} {{

alignas(16) const unsigned char kModel[kModelBytes] = {{
{numbers}
}};

}}  // namespace {name}
"""


if __name__ == "__main__":
    sys.exit(main())
