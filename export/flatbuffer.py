"""What a ``.tflite`` FlatBuffer consists of, read with LiteRT's own schema."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from edge_fer.errors import DataError


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
        scales: none when the tensor is not quantised, one, or one for each output channel.
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


def in_float(operators: Sequence[Operator]) -> list[str]:
    """Names of the operators that compute in float, sorted, each once."""
    floating = {operator.name for operator in operators if operator.outputs[0].dtype == "FLOAT32"}
    return sorted(floating - {"DEQUANTIZE"})


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
