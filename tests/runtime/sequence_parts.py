"""A sequence bundle without any training: the graph of `nano` with its embedding, and a head drawn by chance."""

from __future__ import annotations

import dataclasses
import struct

import numpy as np

from edge_fer.model.bundle import Bundle, load_bundle
from edge_fer.model.litert import Network
from edge_fer.model.selftest import SelfTest
from edge_fer.temporal.affect import IntensitySpec
from edge_fer.temporal.recurrent import GATES, Kind, RecurrentHead, RecurrentSpec, Weights


def drawn_weights(kind: Kind, units: int, embedding: int, labels: int, seed: int = 0) -> Weights:
    chance, columns = np.random.default_rng(seed), GATES[kind] * units

    def matrix(*shape: int) -> np.ndarray:
        return chance.integers(-127, 128, shape).astype(np.int8)

    def scale(size: int, rows: int) -> np.ndarray:
        return np.full(size, 1.0 / (64 * rows**0.5), np.float32)

    return Weights(
        matrix(embedding, columns),
        scale(columns, embedding),
        matrix(units, columns),
        scale(columns, units),
        chance.normal(0, 0.3, (2, columns)).astype(np.float32),
        matrix(units, labels),
        scale(labels, units) * 4,
        chance.normal(0, 0.1, labels).astype(np.float32),
    )


def with_second_output(model: bytes) -> bytes:
    """The graph with what its last operator reads as a second output, without a library that writes FlatBuffers."""
    last = Network(model, kernels="builtin").operators()[-1]  # XNNPACK would be one operator
    content = bytearray(model)

    def number(at: int) -> int:
        return int(struct.unpack_from("<i", content, at)[0])

    def field(table: int, place: int) -> int:
        """Where the offset in a field of a table stands."""
        vtable = table - number(table)
        return table + int(struct.unpack_from("<H", content, vtable + 4 + 2 * place)[0])

    root = number(0)
    subgraphs = field(root, 2)  # Model: version, operator_codes, subgraphs
    vector = subgraphs + number(subgraphs)
    graph = vector + 4 + number(vector + 4)
    outputs = field(graph, 2)  # SubGraph: tensors, inputs, outputs
    before = outputs + number(outputs)
    assert number(before) == 1
    content += bytes(-len(content) % 4)
    struct.pack_into("<i", content, outputs, len(content) - outputs)
    content += struct.pack("<3i", 2, number(before + 4), int(last["inputs"][0]))
    return bytes(content)


def sequence_bundle(kind: Kind = "gru", units: int = 16, *, intensity: bool = True) -> Bundle:
    nano = load_bundle("nano")
    graph = with_second_output(nano.model)
    embedding = Network(graph).outputs[1]
    numbers = embedding.shape[1]
    spec = RecurrentSpec(kind, units, numbers, embedding.scale, embedding.zero_point)
    assert nano.metadata.decision
    weights = drawn_weights(kind, units, numbers, len(nano.metadata.decision.labels))
    selftest = SelfTest.measured(graph, nano.selftest.inputs)
    selftest = dataclasses.replace(selftest, sequence=selftest.replayed(RecurrentHead(spec, weights)))
    ranking = IntensitySpec(tuple(np.linspace(-1, 1, numbers).tolist()), 0.1) if intensity else None
    metadata = dataclasses.replace(nano.metadata, name="sequence", recurrent=spec, intensity=ranking)
    return Bundle.new(graph, metadata, selftest, weights)
