"""Corruption of the images that a network sees in training, beside the clean ones: what makes its answers hold.

The kinds are those that evaluation/corruptions.py measures, drawn at random in strength and place: noise, blur, few
pixels, low light, gamma, JPEG, covered eyes and mouth. So that table shows how a network trained with them stands
corruptions of kinds that it knows.
"""

from __future__ import annotations

from typing import Any

import cv2
import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from datasets import SIDE

BLUR_SIGMAS_PX = np.linspace(0.5, 2.3, 10)
"""Of the Gaussian blurs to draw from."""
WIDTHS_PX = range(14, 36, 2)
"""Widths to draw from, in which a face had less pixels before it was enlarged."""
EYES = ((8.0, 14.0), (6.0, 13.0))
"""Range of the first row of what covers the eyes, and of its height, in pixels of 48."""
MOUTH = ((28.0, 34.0), (9.0, 16.0))
"""The same of the mouth."""

_LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    np.float32,
)
"""ITU-T T.81, table K.1: steps of the DCT's coefficients at JPEG quality 50."""


@keras.saving.register_keras_serializable("edge_fer")
class Corrupt(keras.layers.Layer):
    """Corrupts each image of a batch at random, in training only. Input and output: (n, 48, 48, 1), 0-255.

    In the order of a camera: optics, what covers the face, light, the sensor's noise, compression. Each step has a
    chance of its own, so that some images have several of them and one in seven has none.

    Args:
        seed: of the random numbers.
    """

    def __init__(self, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = seed
        self.random = keras.random.SeedGenerator(seed)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "seed": self.seed}

    def call(self, images: Any, training: bool | None = None) -> Any:
        if not training:
            return images
        images = self._covered(self._defocused(images))
        images, dark = self._lit(images)
        return self._compressed(self._noisy(images, dark))

    def _between(self, images: Any, low: float, high: float) -> Any:
        """A random number for each image: (n, 1, 1, 1)."""
        return keras.random.uniform((ops.shape(images)[0], 1, 1, 1), low, high, seed=self.random)

    def _chosen(self, images: Any, chance: float) -> Any:
        return self._between(images, 0.0, 1.0) < chance

    def _defocused(self, images: Any) -> Any:
        bank = ops.convert_to_tensor(_optics())
        shape = (ops.shape(images)[0],)
        drawn = keras.random.randint(shape, 1, bank.shape[0], seed=self.random)
        chosen = self._chosen(images, 0.35)[:, 0, 0, 0]
        matrices = ops.take(bank, ops.where(chosen, drawn, 0), axis=0)
        blurred = ops.matmul(ops.matmul(matrices, images[..., 0]), ops.transpose(matrices, (0, 2, 1)))
        return blurred[..., None]

    def _covered(self, images: Any) -> Any:
        rows = ops.reshape(ops.arange(SIDE, dtype="float32"), (1, -1, 1, 1))
        columns = ops.reshape(ops.arange(SIDE, dtype="float32"), (1, 1, -1, 1))
        eyes = self._chosen(images, 0.5)
        first, height = (
            ops.where(eyes, self._between(images, *of_eyes), self._between(images, *of_mouth))
            for of_eyes, of_mouth in zip(EYES, MOUTH, strict=True)
        )
        left, right = self._between(images, 0, 10), SIDE - self._between(images, 0, 10)
        mean = ops.mean(images, axis=(1, 2, 3), keepdims=True)
        gray = ops.where(self._chosen(images, 0.5), mean, self._between(images, 0, 255))
        inside = ops.logical_and(rows >= first, rows < first + height)
        inside = ops.logical_and(inside, ops.logical_and(columns >= left, columns < right))
        return ops.where(ops.logical_and(inside, self._chosen(images, 0.35)), gray, images)

    def _lit(self, images: Any) -> tuple[Any, Any]:
        """The images, and which of them are dark: those get no gamma too, which would leave nothing to be seen."""
        dark, bent = self._chosen(images, 0.25), self._chosen(images, 0.25)
        gain = ops.where(dark, ops.exp(self._between(images, float(np.log(0.17)), 0.0)), 1.0)
        exponent = ops.where(
            ops.logical_and(bent, ops.logical_not(dark)), ops.exp(self._between(images, -0.9, 0.9)), 1.0
        )
        return 255 * gain * (ops.clip(images, 1e-3, 255) / 255) ** exponent, dark

    def _noisy(self, images: Any, dark: Any) -> Any:
        sigma = ops.where(self._chosen(images, 0.4), self._between(images, 2, 32), 0.0)
        sigma = ops.where(dark, self._between(images, 2, 6), sigma)
        noise = keras.random.normal(ops.shape(images), seed=self.random)
        return ops.round(ops.clip(images + sigma * noise, 0, 255))

    def _compressed(self, images: Any) -> Any:
        quality = self._between(images, 10, 60)[..., 0]
        scale = ops.where(quality < 50, 5000 / quality, 200 - 2 * quality)
        tiles = SIDE // 8
        table = ops.convert_to_tensor(np.tile(_LUMINANCE, (tiles, tiles)))
        steps = ops.clip(ops.floor((table * scale + 50) / 100), 1, 255)
        cosines = ops.convert_to_tensor(np.kron(np.eye(tiles), _dct()).astype(np.float32))
        back = ops.transpose(cosines)
        coefficients = ops.matmul(ops.matmul(cosines, images[..., 0] - 128), back)
        decoded = ops.matmul(ops.matmul(back, ops.round(coefficients / steps) * steps), cosines) + 128
        decoded = ops.clip(ops.round(decoded), 0, 255)[..., None]
        return ops.where(self._chosen(images, 0.3), decoded, images)


def _optics() -> NDArray[np.float32]:
    """Matrices M so that M @ image @ M.T is the image as it is, blurred or of less pixels: float32 (k, 48, 48)."""
    sharp = np.eye(SIDE, dtype=np.float32)
    bank: list[NDArray[np.float32]] = [sharp]
    for sigma in BLUR_SIGMAS_PX:
        side = 2 * round(3 * float(sigma)) + 1
        bank.append(np.asarray(cv2.GaussianBlur(sharp, (1, side), sigmaX=1, sigmaY=float(sigma)), np.float32))
    for width in WIDTHS_PX:
        smaller = cv2.resize(sharp, (SIDE, width), interpolation=cv2.INTER_AREA)
        bank.append(np.asarray(cv2.resize(smaller, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR), np.float32))
    return np.stack(bank)


def _dct() -> NDArray[np.float64]:
    """The DCT-II of eight numbers as an orthonormal matrix: ITU-T T.81, A.3.3."""
    frequencies, places = np.arange(8)[:, np.newaxis], np.arange(8)[np.newaxis]
    matrix = np.cos((2 * places + 1) * frequencies * np.pi / 16) / 2
    matrix[0] /= np.sqrt(2)
    return matrix


@keras.saving.register_keras_serializable("edge_fer")
class Halves(keras.layers.Layer):
    """Splits a batch that is two batches, one behind the other: (2 n, ...) -> (n, ...), (n, ...)."""

    def call(self, both: Any) -> tuple[Any, Any]:
        half = ops.shape(both)[0] // 2
        return both[:half], both[half:]

    def compute_output_shape(self, input_shape: Any) -> Any:
        half = None if input_shape[0] is None else input_shape[0] // 2
        return ((half, *input_shape[1:]),) * 2
