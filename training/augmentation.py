"""Augmentation as the first layers of the network that trains, so that it runs wherever the network runs."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
from keras import ops

from training.recipe import AugmentRecipe


@keras.saving.register_keras_serializable("edge_fer")
class Augment(keras.layers.Layer):
    """Augments every image of a batch at random, in training only. Input and output: (n, h, w, 1), 0-255.

    One affine warp (flip, rotation, scale, shift) stands for several: pixels are interpolated once. Shift and
    scale also mimic how a face detector's box jitters.

    Args:
        rotation_deg: largest rotation to either side, degrees.
        scale: largest change of size, 0.1 is 0.9-1.1.
        shift: largest shift, as a fraction of the side.
        brightness: largest change of all pixels, as a fraction of 255.
        contrast: largest change of contrast, 0.3 is 0.7-1.3.
        cutout_px: side of a square set to the mean of its image, in half of the images (cutout, DeVries & Taylor,
            arXiv 1708.04552). 0: none.
        seed: of the random numbers.
        edges: in half of the images, a border of up to this fraction of the side gets a random gray, on each of the
            four sides: what a face detector's box may catch of the background. 0: none.
    """

    def __init__(
        self,
        rotation_deg: float,
        scale: float,
        shift: float,
        brightness: float,
        contrast: float,
        cutout_px: int,
        seed: int,
        edges: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.settings = {
            "rotation_deg": rotation_deg,
            "scale": scale,
            "shift": shift,
            "brightness": brightness,
            "contrast": contrast,
            "cutout_px": cutout_px,
            "seed": seed,
            "edges": edges,
        }
        self.random = keras.random.SeedGenerator(seed)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.settings}

    def call(self, images: Any, training: bool | None = None) -> Any:
        return self._augment(images) if training else images

    def _uniform(self, count: Any, largest: float) -> Any:
        return keras.random.uniform((count,), -largest, largest, seed=self.random)

    def _augment(self, images: Any) -> Any:
        settings = self.settings
        n = ops.shape(images)[0]
        height, width = images.shape[1:3]
        angle = self._uniform(n, settings["rotation_deg"] * 3.14159265 / 180)
        zoom = 1 + self._uniform(n, settings["scale"])
        flip = ops.sign(self._uniform(n, 1.0))
        cos, sin = ops.cos(angle) / zoom, ops.sin(angle) / zoom
        # The warp maps each output pixel to where it comes from: rotate and scale about the center, then shift.
        center_x, center_y = (width - 1) / 2, (height - 1) / 2
        from_x = center_x - flip * (cos * center_x - sin * center_y) + self._uniform(n, settings["shift"] * width)
        from_y = center_y - (sin * center_x + cos * center_y) + self._uniform(n, settings["shift"] * height)
        zero = ops.zeros_like(angle)
        warp = ops.stack([flip * cos, -flip * sin, from_x, sin, cos, from_y, zero, zero], axis=1)
        images = ops.image.affine_transform(images, warp, interpolation="bilinear", fill_mode="nearest")

        if settings["edges"]:
            images = self._with_edges(images)
        mean = ops.mean(images, axis=(1, 2, 3), keepdims=True)
        contrast = ops.reshape(1 + self._uniform(n, settings["contrast"]), (-1, 1, 1, 1))
        brightness = ops.reshape(self._uniform(n, settings["brightness"] * 255), (-1, 1, 1, 1))
        images = ops.clip((images - mean) * contrast + mean + brightness, 0, 255)
        if settings["cutout_px"]:
            rows = ops.reshape(ops.arange(height, dtype="float32"), (1, -1, 1, 1))
            columns = ops.reshape(ops.arange(width, dtype="float32"), (1, 1, -1, 1))
            # Where chance says no, the center of the square lies far outside.
            away = 1000 * ops.cast(self._uniform(n, 1.0) > 0, "float32")
            y = ops.reshape((self._uniform(n, 0.5) + 0.5) * height + away, (-1, 1, 1, 1))
            x = ops.reshape((self._uniform(n, 0.5) + 0.5) * width, (-1, 1, 1, 1))
            half = settings["cutout_px"] / 2
            inside = ops.logical_and(ops.abs(rows - y) < half, ops.abs(columns - x) < half)
            images = ops.where(inside, mean, images)
        return images

    def _with_edges(self, images: Any) -> Any:
        n, (height, width) = ops.shape(images)[0], images.shape[1:3]
        rows = ops.reshape(ops.arange(height, dtype="float32"), (1, -1, 1, 1))
        columns = ops.reshape(ops.arange(width, dtype="float32"), (1, 1, -1, 1))
        chosen = ops.cast(self._uniform(n, 1.0) > 0, "float32")
        sides = ((rows, height), (height - 1 - rows, height), (columns, width), (width - 1 - columns, width))
        for distance, side in sides:
            border = ops.round(ops.abs(self._uniform(n, self.settings["edges"])) * chosen * side)
            gray = ops.abs(self._uniform(n, 255.0))
            inside = distance < ops.reshape(border, (-1, 1, 1, 1))
            images = ops.where(inside, ops.reshape(gray, (-1, 1, 1, 1)), images)
        return images


@keras.saving.register_keras_serializable("edge_fer")
class Camera(keras.layers.Layer):
    """Blurs every image of a batch and adds noise, as a cheap camera does, in training only. (n, h, w, 1), 0-255.

    It comes last: in online distillation the teachers see the image before it, so that their soft targets are no worse
    for the noise.

    Args:
        noise: largest sigma of Gaussian noise, in gray levels; each image has its own.
        blur: largest weight of the mean over 3x3 pixels, 0-1; each image has its own.
        seed: of the random numbers.
    """

    def __init__(self, noise: float, blur: float, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.settings = {"noise": noise, "blur": blur, "seed": seed}
        self.random = keras.random.SeedGenerator(seed)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.settings}

    def call(self, images: Any, training: bool | None = None) -> Any:
        if not training:
            return images
        largest = self.settings
        if largest["blur"]:
            weight = keras.random.uniform((ops.shape(images)[0], 1, 1, 1), 0, largest["blur"], seed=self.random)
            images += weight * (ops.average_pool(images, 3, strides=1, padding="same") - images)
        if largest["noise"]:
            sigma = keras.random.uniform((ops.shape(images)[0], 1, 1, 1), 0, largest["noise"], seed=self.random)
            images += sigma * keras.random.normal(ops.shape(images), seed=self.random)
            images = ops.clip(images, 0, 255)
        return images


def make(recipe: AugmentRecipe, seed: int) -> tuple[Augment, Camera]:
    """The layers that augment images as a recipe says; each has random numbers of its own."""
    settings = dataclasses.asdict(recipe)
    camera = Camera(settings.pop("noise"), settings.pop("blur"), seed=seed + 1)
    return Augment(**settings, seed=seed), camera


@keras.saving.register_keras_serializable("edge_fer")
class Mixup(keras.layers.Layer):
    """Mixes each image of a batch with the one that stands as far from the batch's end (Zhang et al., 1710.09412).

    A batch is in random order already. Each lambda comes out too, for ``tasks.TrainingNetwork``, which mixes the losses
    of both images' targets.

    Input (n, h, w, 1); output the images and float32 (n, 1), lambda: the weight of each image itself.

    Args:
        alpha: of the beta distribution of lambda.
        seed: of the random numbers.
    """

    def __init__(self, alpha: float, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.settings = {"alpha": alpha, "seed": seed}
        self.random = keras.random.SeedGenerator(seed)
        # From a table: to sample the distribution itself is a loop, for which a GPU waits in each step.
        self.lambdas = np.random.default_rng(seed).beta(alpha, alpha, 4096).astype(np.float32)
        self.on = self.add_weight(shape=(), initializer="ones", trainable=False, name="on")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.settings}

    def call(self, images: Any, training: bool | None = None) -> Any:
        n = ops.shape(images)[0]
        if not training:
            return images, ops.ones((n, 1))
        places = keras.random.randint((n, 1), 0, len(self.lambdas), seed=self.random)
        lam = 1 - self.on * (1 - ops.take(self.lambdas, places))
        of_image = ops.reshape(lam, (-1, 1, 1, 1))
        return of_image * images + (1 - of_image) * ops.flip(images, axis=0), lam
