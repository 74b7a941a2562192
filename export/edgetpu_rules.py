"""What can be said of a graph's operators on the Coral Edge TPU without its compiler.

The rules are those of "TensorFlow models on the Edge TPU" (coral.ai/docs/edgetpu/models-intro). They are necessary, not
sufficient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from edge_fer.errors import DataError
from export.flatbuffer import Operator, Tensor

# The last compiler (16.0) is built on TensorFlow 2.5 and refuses a whole file for one operator of a later version:
# CONV_2D 6, QUANTIZE 3, TRANSPOSE_CONV 4 (google-coral/edgetpu issues 631, 879, 845). These are known to be older:
# the highest that lite/kernels/register.cc had in mid-2020.
_KNOWN_VERSIONS = {
    "ADD": 2,
    "AVERAGE_POOL_2D": 2,
    "CONCATENATION": 2,
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "FULLY_CONNECTED": 6,
    "L2_NORMALIZATION": 2,
    "LOGISTIC": 2,
    "MAXIMUM": 4,
    "MAX_POOL_2D": 2,
    "MEAN": 2,
    "MINIMUM": 4,
    "MUL": 3,
    "PACK": 3,
    "PAD": 2,
    "QUANTIZE": 2,
    "REDUCE_MAX": 2,
    "REDUCE_MIN": 2,
    "RELU": 2,
    "RELU6": 2,
    "RESIZE_BILINEAR": 3,
    "RESIZE_NEAREST_NEIGHBOR": 2,
    "SLICE": 3,
    "SOFTMAX": 2,
    "SPACE_TO_DEPTH": 2,
    "SPLIT": 3,
    "STRIDED_SLICE": 4,
    "SUB": 3,
    "SUM": 2,
    "TANH": 2,
    "TRANSPOSE_CONV": 2,
}


@dataclass(frozen=True)
class Verdict:
    """What can be said of one operator without the compiler.

    Attributes:
        operator: name in the schema.
        obstacle: why it will stay on the CPU; empty when nothing is known against it.
        doubt: what may go wrong though the rules allow it; empty when nothing is known.
    """

    operator: str
    obstacle: str
    doubt: str


def check(operators: Sequence[Operator]) -> list[Verdict]:
    """What speaks against running each operator on the Edge TPU.

    Raises:
        DataError: the model is compiled already.
    """
    if any(operator.name == "CUSTOM" for operator in operators):
        raise DataError("The model has custom operators; check and compile the file for the CPU.")
    verdicts = [Verdict(operator.name, _obstacle(operator), _doubt(operator)) for operator in operators]
    if verdicts and not verdicts[0].doubt and not all(tensor.fixed for tensor in operators[0].inputs):
        verdicts[0] = replace(
            verdicts[0], doubt="the batch is not fixed: Coral's examples fix it to 1 before they convert"
        )
    return verdicts


def _obstacle(operator: Operator) -> str:
    if operator.name not in _RULES:
        return "not in the list of supported operators"
    for tensor in (*operator.inputs, *operator.outputs):
        # Biases, axes and paddings are int32 constants.
        allowed = ("INT8", "UINT8") if tensor.constant is None else ("INT8", "UINT8", "INT32")
        if tensor.dtype not in allowed:
            return f"works on {tensor.dtype}, not on 8 bits"
        if any(side < 1 for side in tensor.shape):
            return f"has a shape that is known only when it runs, {tensor.shape}"
        if any(side > 1 for side in tensor.shape[:-3]) and tensor.constant is None:
            return f"has more than three dimensions, {tensor.shape}"
    return next((text for rule in _RULES[operator.name] if (text := rule(operator))), "")


def _constant_weights(operator: Operator) -> str:
    constant = all(tensor.constant is not None for tensor in operator.inputs[1:])
    return "" if constant else "has weights that are computed"


def _one_dilation(operator: Operator) -> str:
    x, y = operator.options["dilationWFactor"], operator.options["dilationHFactor"]
    return "" if x == y else f"has different dilations in x and y, {x} and {y}"


def _default_weights(operator: Operator) -> str:
    return "" if operator.options["weightsFormat"] == 0 else "has shuffled weights"


def _flat_output(operator: Operator) -> str:
    shape = operator.outputs[0].shape
    return "" if all(side == 1 for side in shape[:-1]) else f"has an output of more than one dimension, {shape}"


def _no_activation(operator: Operator) -> str:
    return "has a fused activation" if operator.options["fusedActivationFunction"] else ""


def _zero_padding_only(operator: Operator) -> str:
    constants = [tensor for tensor in operator.inputs if tensor.constant is not None]
    if not constants or (len(operator.inputs) == 2 and all(_is_zero(tensor) for tensor in constants)):
        return ""
    return "joins constants that are not zero, or more than one tensor with a constant"


def _is_zero(tensor: Tensor) -> bool:
    return tensor.constant is not None and not tensor.constant.any()


def _numbers(tensor: Tensor) -> list[int]:
    """The values of an int32 constant; none of a computed tensor."""
    return [] if tensor.constant is None else np.frombuffer(tensor.constant.tobytes(), np.int32).tolist()


def _no_batch_axis(operator: Operator) -> str:
    rank = len(operator.inputs[0].shape)
    axes = {axis % rank for axis in _numbers(operator.inputs[1])}
    if not axes:
        return "reduces over axes that are computed"
    # "Batch" is the first of four dimensions.
    return "reduces over the batch" if rank == 4 and 0 in axes else ""


def _depth_of_four(operator: Operator) -> str:
    shape = operator.inputs[0].shape
    over_depth = len(shape) - 1 in {axis % len(shape) for axis in _numbers(operator.inputs[1])}
    return f"reduces over {shape[-1]} channels, not a multiple of 4" if over_depth and shape[-1] % 4 else ""


def _no_batch_padding(operator: Operator) -> str:
    return "pads the batch" if any(_numbers(operator.inputs[1])[:2]) else ""


def _short_vector(operator: Operator) -> str:
    shape = operator.inputs[0].shape
    return "" if np.prod(shape) == shape[-1] <= 16_000 else f"is not of one vector of at most 16,000, {shape}"


Rule: TypeAlias = Callable[[Operator], str]
_CONVOLUTION: tuple[Rule, ...] = (_constant_weights, _one_dilation)
# Operators with an empty tuple have no condition, or one that image classifiers do not touch.
_RULES: dict[str, tuple[Rule, ...]] = {
    "ADD": (),
    "AVERAGE_POOL_2D": (_no_activation,),
    "CONCATENATION": (_no_activation, _zero_padding_only),
    "CONV_2D": _CONVOLUTION,
    "DEPTHWISE_CONV_2D": _CONVOLUTION,
    "EXPAND_DIMS": (),
    "FULLY_CONNECTED": (_constant_weights, _default_weights, _flat_output),
    "L2_NORMALIZATION": (),
    "LOGISTIC": (),
    "MAXIMUM": (),
    "MAX_POOL_2D": (_no_activation,),
    "MEAN": (_no_batch_axis, _depth_of_four),
    "MINIMUM": (),
    "MUL": (),
    "PACK": (),
    "PAD": (_no_batch_padding,),
    "PRELU": (),
    "QUANTIZE": (),
    "REDUCE_MAX": (_no_batch_axis,),
    "REDUCE_MIN": (_no_batch_axis,),
    "RELU": (),
    "RELU6": (),
    "RELU_N1_TO_1": (),
    "RESHAPE": (),
    "RESIZE_BILINEAR": (),
    "RESIZE_NEAREST_NEIGHBOR": (),
    "RSQRT": (),
    "SLICE": (),
    "SOFTMAX": (_short_vector,),
    "SPACE_TO_DEPTH": (),
    "SPLIT": (),
    "SQUARED_DIFFERENCE": (),
    "SQUEEZE": (),
    "STRIDED_SLICE": (),
    "SUB": (),
    "SUM": (_no_batch_axis,),
    "TANH": (),
    "TRANSPOSE_CONV": (),
}


def _doubt(operator: Operator) -> str:
    if operator.version > _KNOWN_VERSIONS.get(operator.name, 1):
        return f"version {operator.version} may be newer than the compiler, which then refuses the file"
    if operator.name == "FULLY_CONNECTED" and len(operator.inputs[1].scales) > 1:
        # The converter writes them since 2024. Kernels not made for it read one scale (tflite-micro pull request 2602).
        return "one scale for each output, newer than the compiler: export with --per-tensor to be sure"
    return ""
