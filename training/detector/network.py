"""The network: gray pixels in; for each cell of three grids a score, a box and five landmarks out."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers

from datasets.boxes import POINTS

STRIDES = (8, 16, 32)
"""Pixels of the input between the cells of each grid."""
CHANNELS = 64
"""Of the three grids."""


def build(height: int | None = None, width: int | None = None) -> keras.Model:
    """YuNet (Wu et al., Machine Intelligence Research 2023) for gray pixels, with one score a cell.

    Pointwise and depthwise 3x3 convolutions in turn, features added from coarse to fine (Lin et al., arXiv 1612.03144),
    one prediction a cell. All of it becomes int8 without a float operator. What differs: one score, where YuNet takes
    the geometric mean of two; and grids are doubled bilinearly, as nearest becomes three operators, two of them slow.

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
    x = layers.Conv2D(16, 3, 2, "same", use_bias=False, kernel_initializer="he_normal", name="stem")(x)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.97, name="stem_norm")(x))
    x = layers.MaxPooling2D()(block(x, 16, "quarter_0"))
    for number, filters in enumerate((16, 32, 32, CHANNELS)):
        x = block(x, filters, f"eighth_{number}")
    grids = []
    for stride in STRIDES:
        x = block(layers.MaxPooling2D()(x), CHANNELS, f"grid{stride}_0")
        x = block(x, CHANNELS, f"grid{stride}_1")
        grids.append(x)
    coarse = block(grids[2], CHANNELS, "merged32")
    middle = block(layers.Add()([grids[1], _doubled(coarse)]), CHANNELS, "merged16")
    fine = block(layers.Add()([grids[0], _doubled(middle)]), CHANNELS, "merged8")
    merged = dict(zip(STRIDES, (fine, middle, coarse), strict=True))
    # The scores' bias begins where nearly no cell is a face (Lin et al., arXiv 1708.02002, 4.1).
    bias = keras.initializers.Constant(-4.0)
    scores = [
        layers.Conv2D(1, 3, padding="same", bias_initializer=bias, name=f"scores{stride}")(grid)
        for stride, grid in merged.items()
    ]
    boxes, points = (
        [
            layers.DepthwiseConv2D(3, padding="same", name=f"{name}{stride}_near")(
                layers.Conv2D(values, 1, name=f"{name}{stride}")(grid)
            )
            for stride, grid in merged.items()
        ]
        for name, values in (("boxes", 4), ("points", 2 * POINTS))
    )
    return keras.Model(
        inputs, [joined(scores, "scores"), joined(boxes, "boxes"), joined(points, "points")], name="detector"
    )


def joined(grids: Sequence[keras.KerasTensor], name: str) -> keras.KerasTensor:
    """The values of all grids, cell by cell: (batch, cells, values)."""
    return layers.Concatenate(axis=1, name=name)([layers.Reshape((-1, grid.shape[-1]))(grid) for grid in grids])


def _doubled(grid: keras.KerasTensor) -> keras.KerasTensor:
    return layers.UpSampling2D(interpolation="bilinear")(grid)


def block(x: keras.KerasTensor, filters: int, name: str) -> keras.KerasTensor:
    """A pointwise and a depthwise 3x3 convolution, normalized and rectified."""
    x = layers.Conv2D(filters, 1, kernel_initializer="he_normal", name=name)(x)
    near = layers.DepthwiseConv2D(3, 1, "same", use_bias=False, depthwise_initializer="he_normal", name=f"{name}_near")
    return layers.ReLU()(layers.BatchNormalization(momentum=0.97, name=f"{name}_norm")(near(x)))
