"""A ``.tflite`` FlatBuffer: what it consists of, by LiteRT's own schema, and what it answers, by its runtime."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from edge_fer.errors import DataError, EdgeFerError
from edge_fer.model.litert import Network


def _names(enumeration: type) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


OPERATOR_NAMES = _names(schema.BuiltinOperator)
_TYPE_NAMES = _names(schema.TensorType)


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor of a graph.

    Attributes:
        name: as the converter left it.
        shape: as the model runs if nobody asks for another one; () for a scalar.
        fixed: no other shape can be asked for. A Keras model whose batch is None gives shapes that are not fixed.
        dtype: name in the schema: "INT8", "UINT8", "INT32", "FLOAT32".
        scales: none when the tensor is not quantized, one, or one for each output channel.
        zero_points: as many as scales.
        constant: the bytes that the file holds for it, uint8 (n,); None for what is computed or put in.
    """

    name: str
    shape: tuple[int, ...]
    fixed: bool
    dtype: str
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    constant: NDArray[np.uint8] | None


@dataclass(frozen=True, eq=False)
class Operator:
    """One step of a graph.

    Attributes:
        name: name in the schema: "CONV_2D".
        version: of the operator: it grows when the operator learns something that old runtimes cannot do.
        inputs: tensors it reads, weights included.
        outputs: tensors it writes.
        options: by their names in the schema: ``strideW``, ``fusedActivationFunction``.
    """

    name: str
    version: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    options: Mapping[str, Any]


def read_operators(model: bytes) -> list[Operator]:
    """The operators of a FlatBuffer in the order in which they run.

    Raises:
        DataError: it cannot be read, or it has branches or loops.
    """
    try:
        table = schema.ModelT.InitFromPackedBuf(model, 0)
        (graph,) = table.subgraphs
        tensors = [_tensor(tensor, table.buffers) for tensor in graph.tensors]
        return [
            Operator(
                # A file from before 2020 has its small codes in the old field alone.
                name=OPERATOR_NAMES[max(code.builtinCode, code.deprecatedBuiltinCode)],
                version=code.version,
                inputs=tuple(tensors[i] for i in operator.inputs if i >= 0),
                outputs=tuple(tensors[i] for i in operator.outputs),
                options=vars(operator.builtinOptions) if operator.builtinOptions else {},
            )
            for operator in graph.operators
            for code in [table.operatorCodes[operator.opcodeIndex]]
        ]
    except (struct.error, ValueError, TypeError, IndexError, KeyError) as error:
        raise DataError(f"The model cannot be read ({error}): it is damaged, or it has branches or loops.") from None


class _SharingBuilder(flatbuffers.Builder):  # type: ignore[misc]  # it comes without types
    """Writes equal vectors once. A network's zero points alone are eight zero bytes for each of its channels."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._written: dict[tuple[str, bytes], int] = {}

    def CreateNumpyVector(self, x: NDArray[Any]) -> int:  # the schema's name
        key = (x.dtype.str, x.tobytes())
        if key not in self._written:
            if x.dtype == np.uint8:
                self.Prep(16, x.size)  # constants are read in place, as what they are
            self._written[key] = super().CreateNumpyVector(x)
        return self._written[key]


def slim(model: bytes) -> bytes:
    """The same graph in fewer bytes: tensors are numbered, not named, and equal vectors stand in it once.

    Args:
        model: the FlatBuffer, without an archive behind it.
    """
    table = schema.ModelT.InitFromPackedBuf(model, 0)
    for graph in table.subgraphs:
        for number, tensor in enumerate(graph.tensors):
            tensor.name = str(number)
    return packed(table)


def packed(table: schema.ModelT) -> bytes:
    """The FlatBuffer of a graph that was taken apart by LiteRT's schema; equal vectors stand in it once."""
    builder = _SharingBuilder(1 << 16)
    builder.Finish(table.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def in_float(operators: Sequence[Operator]) -> list[str]:
    """Names of the operators that compute in float, sorted, each once."""
    floating = {operator.name for operator in operators if operator.outputs[0].dtype == "FLOAT32"}
    return sorted(floating - {"DEQUANTIZE"})


def as_input(tensors: NDArray[np.uint8], dtype: type[np.generic]) -> NDArray[Any]:
    """Pixels in the type that a model takes: int8 models take pixel - 128."""
    if dtype is np.int8:
        return (tensors.astype(np.int16) - 128).astype(np.int8)
    return tensors.astype(dtype, copy=False)


def run_flatbuffer(model: bytes, tensors: NDArray[np.uint8], console: Console, title: str) -> NDArray[np.float32]:
    """Outputs in real units for all faces, by the runtime and kernels that the device has: float32 (n, ...).

    Args:
        model: takes float32, uint8 or int8 (1, height, width, 1).
        tensors: uint8 (n, height, width, 1).
        console: where progress is shown.
        title: of the progress bar.
    """
    network = Network(model, threads=os.cpu_count() or 1)
    (source,), (target,) = network.inputs, network.outputs
    shown = track(as_input(tensors, source.dtype), title, console=console)
    return np.stack([target.real(network.run(tensor[np.newaxis])[0][0]) for tensor in shown])


_TRIAL = """
import sys
from pathlib import Path
import numpy as np
from edge_fer.model.litert import Network
network = Network(Path(sys.argv[1]).read_bytes())
network.run(*(np.zeros(tensor.shape, tensor.dtype) for tensor in network.inputs))
"""


def try_out(model: bytes, variant: str) -> None:
    """Run a FlatBuffer once in a process of its own: where the runtime dies, it must not take the export with it.

    LiteRT 2.3's XNNPACK frees memory twice when it takes over some int8 networks on a processor with AVX-512.

    Args:
        model: the FlatBuffer.
        variant: what to call it.

    Raises:
        EdgeFerError: the process was killed by a signal.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trial.tflite"
        path.write_bytes(model)
        code = subprocess.run([sys.executable, "-c", _TRIAL, str(path)], capture_output=True).returncode
    if code < 0:
        raise EdgeFerError(
            f"The TFLite runtime died on the {variant} model ({signal.Signals(-code).name}), as edge-fer would on "
            "such a processor; nothing is written. Change the network a little: take out squeeze-and-excitation "
            "(python -m training fold), or use another number of layers."
        )


def _tensor(tensor: Any, buffers: Any) -> Tensor:
    quantization = tensor.quantization if tensor.quantization is not None else schema.QuantizationParametersT()
    return Tensor(
        name=(tensor.name or b"").decode(errors="replace"),
        shape=tuple(int(side) for side in _listed(tensor.shape)),
        fixed=tensor.shapeSignature is None or all(side >= 0 for side in tensor.shapeSignature),
        dtype=_TYPE_NAMES[tensor.type],
        scales=tuple(float(scale) for scale in _listed(quantization.scale)),
        zero_points=tuple(int(point) for point in _listed(quantization.zeroPoint)),
        constant=buffers[tensor.buffer].data,
    )


def _listed(vector: Any) -> Any:
    """A vector of the schema; what is empty is left out of the file."""
    return () if vector is None else vector
