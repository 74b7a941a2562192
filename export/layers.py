"""What happens inside a quantized graph: operators, multiply-accumulates, noise and histograms, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.table import Table

from edge_fer.model.litert import Network
from export.flatbuffer import as_input

CLEAN_DB = 60.0
"""A signal-to-noise ratio that counts as no noise at all: eight bits cannot say more."""

_HISTOGRAM_BINS = 32


@dataclass(frozen=True)
class Histogram:
    """Counts in equally wide bins from ``low`` to ``high``, in real units, not in LSB."""

    low: float
    high: float
    counts: list[int]


@dataclass(frozen=True)
class Layer:
    """One operator of the int8 graph.

    Attributes:
        name: of its output tensor, as the converter made it of the Keras layers' names.
        operator: TensorFlow Lite's name for it.
        shape: of its output.
        macs: multiply-accumulate operations for one image; 0 where there are none.
        constants: weights, biases and other constants, in bytes.
        sqnr_db: signal-to-quantization-noise ratio of its output, 10 log10(sum float^2 / sum (float - int8)^2), at
            most ``CLEAN_DB``. It holds the noise of all layers before too. None where the float graph has no
            such tensor.
        lost_db: how much lower that is than at the noisiest of its inputs: what this layer adds.
        weights: of its largest constant, None where there is none.
        activations: of its output, over all images; None where it is not of eight bits.
    """

    name: str
    operator: str
    shape: tuple[int, ...]
    macs: int
    constants: int
    sqnr_db: float | None
    lost_db: float | None
    weights: Histogram | None
    activations: Histogram | None


def inspect_layers(float_model: bytes, int8_model: bytes, tensors: NDArray[np.uint8]) -> list[Layer]:
    """Run both graphs with the builtin kernels, keep every tensor, and compare those of the same name and shape.

    Args:
        float_model: float32 FlatBuffer.
        int8_model: full-int8 FlatBuffer of the same network.
        tensors: uint8 (n, height, width, 1); some 32 faces are enough.

    Returns:
        The operators of the int8 graph in the order in which they run.
    """
    exact, coarse = _Graph(float_model), _Graph(int8_model)
    twins = {(name, shape): index for index, (name, shape) in exact.outputs().items()}
    # The converter calls the outputs of the graph differently each time.
    twins |= {coarse.key(b): a for a, b in zip(exact.results, coarse.results, strict=True)}
    pairs = {index: twins[key] for index, key in coarse.outputs().items() if key in twins}
    signal, noise = dict.fromkeys(pairs, 0.0), dict.fromkeys(pairs, 0.0)
    eight_bits = [index for index in coarse.outputs() if coarse.tensors[index].dtype in (np.int8, np.uint8)]
    codes = {index: np.zeros(256, np.int64) for index in eight_bits}
    for tensor in tensors:
        exact.run(tensor)
        coarse.run(tensor)
        for index in codes:
            codes[index] += np.bincount(coarse.network.value(index).astype(np.int64).ravel() % 256, minlength=256)
        for index, twin in pairs.items():
            truth = exact.real(twin)
            signal[index] += float((truth**2).sum())
            noise[index] += float(((coarse.real(index) - truth) ** 2).sum())
    layers = []
    known: dict[int, float] = {}
    for operator in coarse.operators:
        inputs = [int(index) for index in operator["inputs"] if index >= 0]
        before = min((known[index] for index in inputs if index in known), default=CLEAN_DB)
        constants = [index for index in inputs if index in coarse.constants]
        for index in map(int, operator["outputs"]):
            ratio = _decibel(signal[index], noise[index]) if index in pairs else None
            known[index] = before if ratio is None else ratio
            largest = max(constants, key=coarse.size, default=None)
            name, shape = coarse.key(index)
            layers.append(
                Layer(
                    name=name,
                    operator=operator["op_name"],
                    shape=shape,
                    macs=_macs(operator["op_name"], shape, coarse, inputs),
                    constants=sum(coarse.bytes_of(constant) for constant in constants),
                    sqnr_db=ratio,
                    lost_db=None if ratio is None else round(before - ratio, 2),
                    weights=coarse.histogram_of_constant(largest) if largest is not None else None,
                    activations=coarse.histogram_of_codes(index, codes[index]) if index in codes else None,
                )
            )
    return layers


def noise_table(layers: Sequence[Layer], count: int = 10) -> Table:
    """The layers that lose most, for a terminal, with a bar for what is left of the signal."""
    table = Table(title="Layers that lose most, float against int8", box=box.SIMPLE, padding=(0, 0, 0, 1))
    table.add_column("layer", no_wrap=True)
    table.add_column("operator", no_wrap=True)
    for title in ("lost here", "SQNR"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    matched = [layer for layer in layers if layer.sqnr_db is not None and layer.lost_db is not None]
    for layer in sorted(matched, key=lambda layer: -(layer.lost_db or 0))[:count]:
        ratio = layer.sqnr_db or 0.0
        name = layer.name.split(";")[0][-26:]
        bar = "█" * max(0, round(ratio / 8))
        table.add_row(name, layer.operator, f"{layer.lost_db:.1f} dB", f"{ratio:.1f} dB", bar)
    unmatched = len(layers) - len(matched)
    if unmatched:
        table.caption = f"{unmatched} of {len(layers)} tensors have no counterpart in the float graph"
    return table


class _Graph:
    """A network by the builtin kernels that keeps all tensors, and its operators."""

    def __init__(self, model: bytes) -> None:
        self.network = Network(model, kernels="builtin", keep_all=True)
        self.tensors = {tensor.index: tensor for tensor in self.network.tensors()}
        self.operators = self.network.operators()
        self.results = [tensor.index for tensor in self.network.outputs]
        made = {int(index) for operator in self.operators for index in operator["outputs"]}
        (self._input,) = self.network.inputs
        self.constants = set(self.tensors) - made - {self._input.index}

    def outputs(self) -> dict[int, tuple[str, tuple[int, ...]]]:
        """Name and shape of every tensor that an operator makes, by its index."""
        return {int(index): self.key(int(index)) for operator in self.operators for index in operator["outputs"]}

    def key(self, index: int) -> tuple[str, tuple[int, ...]]:
        return self.tensors[index].name, self.tensors[index].shape

    def size(self, index: int) -> int:
        return int(np.prod(self.tensors[index].shape))

    def bytes_of(self, index: int) -> int:
        return self.size(index) * int(np.dtype(self.tensors[index].dtype).itemsize)

    def run(self, tensor: NDArray[np.uint8]) -> None:
        self.network.run(as_input(tensor[np.newaxis], self._input.dtype))

    def real(self, index: int) -> NDArray[np.float64]:
        """A tensor in real units."""
        raw = self.network.value(index).astype(np.float64)
        parameters = self.tensors[index].details["quantization_parameters"]
        scales, zero_points = parameters["scales"], parameters["zero_points"]
        if len(scales) == 0:
            return np.asarray(raw)
        shape = np.ones(raw.ndim, np.int64)
        if len(scales) > 1:
            shape[parameters["quantized_dimension"]] = len(scales)
        return np.asarray((raw - zero_points.reshape(shape)) * scales.reshape(shape))

    def histogram_of_constant(self, index: int) -> Histogram:
        values = self.real(index)
        counts, edges = np.histogram(values, _HISTOGRAM_BINS)
        return Histogram(round(float(edges[0]), 6), round(float(edges[-1]), 6), counts.tolist())

    def histogram_of_codes(self, index: int, codes: NDArray[np.int64]) -> Histogram:
        """Eight-bit codes, counted modulo 256, as a histogram over the whole range that the tensor can express."""
        lowest = -128 if self.tensors[index].dtype is np.int8 else 0
        tensor = self.tensors[index]
        low, high = ((code - tensor.zero_point) * (tensor.scale or 1.0) for code in (lowest, lowest + 256))
        counts = np.roll(codes, -lowest).reshape(_HISTOGRAM_BINS, -1).sum(axis=1)
        return Histogram(round(float(low), 6), round(float(high), 6), counts.tolist())


def _decibel(signal: float, noise: float) -> float:
    if noise == 0:
        return CLEAN_DB
    return round(min(CLEAN_DB, 10 * float(np.log10(max(signal, 1e-30) / noise))), 2)


def _macs(operator: str, shape: tuple[int, ...], graph: _Graph, inputs: list[int]) -> int:
    if operator not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
        return 0
    _, weights = graph.key(inputs[1])
    # Weights are (out, height, width, in), (1, height, width, out) and (out, in).
    each = {"CONV_2D": weights[1:], "DEPTHWISE_CONV_2D": weights[1:3], "FULLY_CONNECTED": weights[1:]}[operator]
    return int(np.prod(shape) * np.prod(each))
