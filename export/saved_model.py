"""A SavedModel folder, whoever wrote it, as a Keras model: its graph frozen, without the softmax at its end.

``model.export``, ``tf.saved_model.save`` and Keras 2's ``model.save`` write such folders. No layer is left in them, so
that none can be equalized or have its bias corrected.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras

from edge_fer.errors import DataError

_SHAPES = {"Identity", "Cast", "Reshape", "ExpandDims", "Squeeze", "ResizeBilinear", "ResizeNearestNeighbor", "Pad"}
"""Operators that leave pixel values as they are."""
_SCALES = {"Mul", "AddV2", "Add", "BiasAdd", "Sub", "RealDiv"}


class Frozen(keras.layers.Layer):  # type: ignore[misc]
    """A graph of TensorFlow as a layer.

    Args:
        function: what it computes: one tensor of one tensor.
        rescales: the graph begins with arithmetic on pixels.
        parameters: numbers that it holds.
    """

    def __init__(self, function: Any, rescales: bool, parameters: int) -> None:
        super().__init__(name="saved_model", trainable=False)
        self.function, self.rescales, self.parameters = function, rescales, parameters

    def call(self, inputs: Any) -> Any:
        return self.function(inputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0], *self.function.outputs[0].shape[1:])


def frozen(model: keras.Model) -> Frozen | None:
    """The graph in a model that was read here; None in any other."""
    for layer in model.layers:
        found = frozen(layer) if isinstance(layer, keras.Model) else layer
        if isinstance(found, Frozen):
            return found
    return None


def read(path: Path) -> tuple[keras.Model, keras.Model, list[str]]:
    """Read a SavedModel.

    Args:
        path: the folder.

    Returns:
        The model as it is; the model without a softmax at its end; and what was changed, a sentence each.

    Raises:
        DataError: it is none, or not one of one image to one row of numbers.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    try:
        loaded = tf.saved_model.load(str(path))
        (name, *others) = loaded.signatures
        signature = loaded.signatures["serving_default" if "serving_default" in (name, *others) else name]
        constant = convert_variables_to_constants_v2(signature)
        (source,), (target,) = constant.inputs, constant.outputs
    except (OSError, ValueError, KeyError, AttributeError, tf.errors.OpError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(
            f"{path} is not a SavedModel with one input and one output: {reason[0][:200]} Save it with "
            "model.export(FOLDER), or as a .keras file."
        ) from None
    graph = constant.graph.as_graph_def()
    end = target.op
    while end.type == "Identity":
        end = end.inputs[0].op
    notes = []
    logits = end.outputs[0]
    if end.type == "Softmax":
        notes = [f"The final softmax ({end.name.split('/')[-2:][0]}) is left out: the device applies it in float."]
        logits = end.inputs[0]
    first = [use for use in source.consumers() if use.type not in ("NoOp",)]
    while first and first[0].type in _SHAPES:
        first = first[0].outputs[0].consumers()
    rescales = bool(first) and first[0].type in _SCALES
    parameters = sum(
        int(op.outputs[0].shape.num_elements() or 0) for op in constant.graph.get_operations() if op.type == "Const"
    )
    inputs = keras.Input(source.shape[1:], batch_size=source.shape[0], dtype=source.dtype.name)
    models = []
    for tensor in (target, logits):

        def build(value: Any, wanted: str = tensor.name) -> Any:
            return tf.graph_util.import_graph_def(graph, {source.name: value}, [wanted], name="")[0]

        function = tf.compat.v1.wrap_function(build, [tf.TensorSpec(source.shape, source.dtype)])
        models.append(keras.Model(inputs, Frozen(function, rescales, parameters)(inputs), name=path.name))
    return models[0], models[1], notes
