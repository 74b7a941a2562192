"""The network: gray pixels in; for each cell of three grids a score, a box and five landmarks out."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers

from datasets.boxes import POINTS

STRIDES = (8, 16, 32)
"""Pixels of the input between the cells of each grid."""
STEM = 16
"""Channels at half the input's size."""
EARLY = 32
"""Channels at a quarter of it."""
CHANNELS = 72
"""Channels of the three grids."""
BLOCKS = (3, 3, 2)
"""Separable convolutions of each grid; the first one halves the size."""


def build(height: int | None = None, width: int | None = None) -> keras.Model:
    """A MobileNet-like trunk with a pyramid and one anchor-free head a grid, in the layout of YuNet.

    Depthwise-separable 3x3 convolutions with ReLU6 (Howard et al., arXiv 1704.04861), features added from coarse to
    fine (Lin et al., arXiv 1612.03144), one prediction a cell (Wu et al., Machine Intelligence Research 2023). All of
    it becomes int8 without a float operator.

    Where a side is no multiple of 32, mid-gray is added at the bottom or the right: the grids then lie in the same
    place for any size of input, and weights learned at one serve at another.

    Args:
        height: of the input in pixels; None for any multiple of 32.
        width: likewise.

    Returns:
        Model (batch, height, width, 1) float32, 0-255 -> scores (batch, cells, 1), as logits; boxes (batch, cells, 4)
        and landmarks (batch, cells, 10) as ``assignment.decode`` reads them. Cells are in the order of
        ``assignment.cells``.
    """
    inputs = keras.Input((height, width, 1), batch_size=None if height is None else 1, name="pixels")
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    below, beside = (-(side or 0) % STRIDES[-1] for side in (height, width))
    if below or beside:
        x = layers.ZeroPadding2D(((0, below), (0, beside)))(x)
    x = _normalized(layers.Conv2D(STEM, 3, 2, "same", use_bias=False, kernel_initializer="he_normal"), x)
    x = _normalized(layers.Conv2D(EARLY, 3, 2, "same", use_bias=False, kernel_initializer="he_normal"), x)
    x = _separable(x, EARLY)
    grids = []
    for blocks in BLOCKS:
        x = _separable(x, CHANNELS, 2)
        for _ in range(blocks - 1):
            x = _separable(x, CHANNELS)
        grids.append(x)
    fine, middle, coarse = grids
    middle = _separable(layers.Add()([middle, _doubled(coarse)]), CHANNELS)
    fine = _separable(layers.Add()([fine, _doubled(middle)]), CHANNELS)
    heads = [_separable(grid, CHANNELS) for grid in (fine, middle, coarse)]
    return keras.Model(
        inputs,
        [_predicted(heads, 1, "scores", -4.0), _predicted(heads, 4, "boxes"), _predicted(heads, 2 * POINTS, "points")],
        name="detector",
    )


def _predicted(grids: Sequence[keras.KerasTensor], values: int, name: str, bias: float = 0.0) -> keras.KerasTensor:
    """So many values for each cell of all grids.

    The scores' bias begins where nearly no cell is a face (Lin et al., arXiv 1708.02002, 4.1).
    """
    parts = []
    for grid in grids:
        convolution = layers.Conv2D(
            values, 1, bias_initializer=keras.initializers.Constant(bias), kernel_initializer="glorot_normal"
        )
        parts.append(layers.Reshape((-1, values))(convolution(grid)))
    return layers.Concatenate(axis=1, name=name)(parts)


def _doubled(grid: keras.KerasTensor) -> keras.KerasTensor:
    return layers.UpSampling2D(interpolation="bilinear")(grid)  # nearest becomes three operators, two of them slow


def _separable(x: keras.KerasTensor, filters: int, stride: int = 1) -> keras.KerasTensor:
    x = _normalized(layers.DepthwiseConv2D(3, stride, "same", use_bias=False, depthwise_initializer="he_normal"), x)
    return _normalized(layers.Conv2D(filters, 1, use_bias=False, kernel_initializer="he_normal"), x)


def _normalized(convolution: keras.Layer, x: keras.KerasTensor) -> keras.KerasTensor:
    return layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.97)(convolution(x)))
