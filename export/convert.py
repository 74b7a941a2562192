"""Third step: the Keras model turned into FlatBuffers: float32, float16 and full int8."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import warnings
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from edge_fer.errors import BundleError, DataError
from edge_fer.model.litert import Network
from export.flatbuffer import in_float, read_operators
from export.load import first_line
from export.result import Export


def convert(export: Export) -> Export:
    """Make all FlatBuffers, and say what of int8 runs in float.

    Raises:
        EdgeFerError: an operator cannot be converted, or pixels would be changed.
    """
    options = export.options
    flatbuffers = {"float32": to_float(export.model)}
    if "float16" in options.also:
        flatbuffers["float16"] = to_float(export.model, half=True)
    flatbuffers["int8"] = to_int8(
        export.prepared or export.model,
        export.calibration,
        Console(stderr=True),
        input_type=options.io,
        per_tensor=options.per_tensor,
    )
    if floats := in_float(read_operators(flatbuffers["int8"])):
        Console().print(f"Not all is int8: {', '.join(floats)} has no such kernel and runs in float.", highlight=False)
    return dataclasses.replace(export, flatbuffers=flatbuffers)


def to_float(model: keras.Model, half: bool = False) -> bytes:
    """Convert to a FlatBuffer with float32 input and output; weights are float16 if ``half``.

    Raises:
        DataError: an operator cannot be converted.
    """
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if half:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    return _converted(converter)


def to_int8(
    model: keras.Model,
    tensors: NDArray[np.uint8],
    console: Console,
    input_type: str = "uint8",
    per_tensor: bool = False,
) -> bytes:
    """Convert to a full-int8 FlatBuffer with int8 logits.

    Jacob et al., arXiv 1712.05877. One black and one white image join the calibration set: with them the input
    has scale 1 and its zero point at black, so that pixels go in as they are. Without, images are silently read
    too dark.

    Args:
        model: see ``load.load_model``.
        tensors: uint8 (n, height, width, 1) to calibrate on.
        console: where progress is shown.
        input_type: "uint8" takes pixels; "int8" takes pixels - 128, for microcontrollers.
        per_tensor: one scale for all weights of a layer instead of one for each output channel: what compilers of
            old accelerators need, at a loss.

    Raises:
        DataError: an operator cannot be converted to int8.
        BundleError: the input is not scale 1 with its zero point at black.
    """
    import tensorflow as tf

    extremes = [np.zeros_like(tensors[0]), np.full_like(tensors[0], 255)]

    def representative_dataset() -> Iterator[list[NDArray[np.float32]]]:
        for tensor in track([*extremes, *tensors], "Calibrating", console=console):
            yield [tensor[np.newaxis].astype(np.float32)]

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative_dataset
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = {"uint8": tf.uint8, "int8": tf.int8}[input_type]
    converter.inference_output_type = tf.int8
    # Private, but the only switches there are.
    converter._experimental_disable_per_channel = per_tensor
    converter._experimental_disable_per_channel_quantization_for_dense_layers = per_tensor
    flatbuffer = _converted(converter)
    # Not by the optimized kernels, which may take the process with them: see ``flatbuffer.try_out``.
    (source,) = Network(flatbuffer, kernels="builtin").inputs
    black = {"uint8": 0, "int8": -128}[input_type]
    if (source.scale, source.zero_point) != (1.0, black):
        raise BundleError(
            f"The input has scale {source.scale} and zero point {source.zero_point}, not 1 and {black}: pixels would "
            "be changed. Begin the network with a Rescaling layer."
        )
    return flatbuffer


def _converted(converter: Any) -> bytes:
    from tensorflow.lite.python.convert_phase import ConverterError

    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
            flatbuffer: bytes = converter.convert()
    except (ConverterError, RuntimeError, ValueError, NotImplementedError) as error:
        # The converter names the operator, and the Keras layers that it comes from.
        place = re.search(r'fused\["(\w+):", "([^"@]+)', str(error))
        reason = f"TensorFlow Lite has no {place[1]} ({place[2]})." if place else first_line(error)
        raise DataError(
            f"The network cannot be converted: {reason} Replace the layer that uses this operator."
        ) from None
    return flatbuffer
