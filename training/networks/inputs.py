"""Diverse inputs: what a network sees beside the gray levels, made of them in the graph.

The survey's section 4.1.2: local binary patterns (Levi & Hassner, ICMI 2015), gradients, edges, and an equalized image
(Kim et al., JMUI 2016), fused early, as channels of one network, or late, as networks of their own.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

_AROUND = ((0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0))
"""The eight neighbors of a pixel, clockwise from the upper left: row and column of their place in a 3x3 window."""

PATCHES = {"eyes": (0.15, 0.55, 0.0, 1.0), "mouth": (0.55, 1.0, 0.2, 0.8)}
"""Top, bottom, left and right of a salient patch, fractions of a face as a Haar detector frames it: fixed places, where
methods of the survey take landmarks."""


@keras.saving.register_keras_serializable("edge_fer")
class Channel(layers.Layer):
    """One channel of gray images (n, h, w, 1), 0-255, with values around 0, mostly from -1 to 1.

    * gray: the image itself.
    * lbp: local binary patterns: a bit for each neighbor that is no darker than the pixel (Ojala et al., TPAMI 2002).
    * gradient: length of the gradient by central differences.
    * edges: magnitude of the Laplacian.
    * equalized: histogram equalization by the rank of a pixel in its image; equal ones share the mean of theirs.
    * eyes, mouth: salient patches, each enlarged to the whole size: the band of the brows and eyes, the mouth's part.

    Args:
        kind: one of these.
    """

    def __init__(self, kind: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kind = kind

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "kind": self.kind}

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def call(self, images: Any) -> Any:
        pixels = ops.cast(images, "float32")
        if self.kind == "gray":
            return pixels / 127.5 - 1
        if self.kind == "equalized":
            _, height, width, _ = images.shape
            flat = ops.reshape(pixels, (-1, height * width))
            # Equal pixels are ranked in their order: counted from either end, the mean is the same for all of them.
            first, last = _ranks(flat), ops.flip(_ranks(ops.flip(flat, axis=1)), axis=1)
            return ops.reshape(first + last, (-1, height, width, 1)) / (height * width - 1) - 1
        if self.kind in PATCHES:
            top, bottom, left, right = PATCHES[self.kind]
            _, height, width, _ = images.shape
            patch = pixels[:, round(top * height) : round(bottom * height), round(left * width) : round(right * width)]
            return ops.image.resize(patch, (height, width)) / 127.5 - 1
        around = [self._shifted(pixels, row, column) for row, column in _AROUND]
        if self.kind == "lbp":
            code = sum(2**bit * ops.cast(neighbor >= pixels, "float32") for bit, neighbor in enumerate(around))
            return code / 127.5 - 1
        above, right, below, left = around[1], around[3], around[5], around[7]
        if self.kind == "gradient":
            return ops.sqrt((right - left) ** 2 + (below - above) ** 2 + 1e-6) / 127.5
        return ops.abs(above + right + below + left - 4 * pixels) / 127.5

    @staticmethod
    def _shifted(pixels: Any, row: int, column: int) -> Any:
        height, width = pixels.shape[1:3]
        # The border repeats itself: nothing out there is brighter or darker.
        rows = ops.clip(ops.arange(height) + row - 1, 0, height - 1)
        columns = ops.clip(ops.arange(width) + column - 1, 0, width - 1)
        return ops.take(ops.take(pixels, rows, axis=1), columns, axis=2)


def _ranks(values: Any) -> Any:
    """Of each value in its row, from 0 on, float32: (n, m) -> (n, m)."""
    return ops.cast(ops.argsort(ops.argsort(values, axis=1), axis=1), "float32")
