"""A quantized network that gives its embedding, what its last layer reads, as a second output beside the logits.

The numbers are computed anyway; only the graph's list of outputs grows. So the logits stay the same to the bit, and
what learns from the embedding (``training.classical.device_head``) learns from the very integers that a device sees.
"""

from __future__ import annotations

from ai_edge_litert import schema_py_generated as schema

from edge_fer.errors import DataError
from export.flatbuffer import OPERATOR_NAMES, packed


def with_embedding(model: bytes) -> bytes:
    """The same graph with two outputs: logits (1, n), as before, and embedding (1, d), what the last layer reads.

    Args:
        model: a FlatBuffer without an archive behind it, whose one output a dense layer makes; or one that has both
            outputs already, which stays as it is.

    Raises:
        DataError: it does not end in a dense layer.
    """
    table = schema.ModelT.InitFromPackedBuf(model, 0)
    graph = table.subgraphs[0]
    (last,) = [one for one in graph.operators if graph.outputs[0] in one.outputs] or [None]
    code = table.operatorCodes[last.opcodeIndex] if last else None
    name = OPERATOR_NAMES[max(code.builtinCode, code.deprecatedBuiltinCode)] if code else "nothing"
    if name != "FULLY_CONNECTED" or len(graph.tensors[last.inputs[0]].shape) != 2:
        raise DataError(f"The network ends in {name}, not in a dense layer: it has no embedding to give.")
    embedding = int(last.inputs[0])
    if [int(one) for one in graph.outputs[1:]] == [embedding]:
        return model
    graph.outputs = [int(graph.outputs[0]), embedding]
    table.signatureDefs = []  # they name one output alone, and nobody asks for it by its name
    return packed(table)
