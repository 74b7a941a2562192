"""Pre-train a backbone without labels: it reconstructs faces of which patches are masked and the rest is noisy.

    python -m training pretrain --recipe training/recipes/plain.toml --data ~/fer2013 --run runs/plain-faces
    python -m training train --recipe training/recipes/plain.toml --data ~/fer2013 \\
        --init-from runs/plain-faces/model.keras

Sources: Vincent et al., ICML 2008 (denoising); He et al., arXiv 2111.06377 (masked patches, loss on those alone);
Xie et al., arXiv 2111.09886 (a decoder of one linear layer).
"""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from rich.console import Console

from edge_fer.errors import ConfigError
from evaluation import datasets
from training import augmentation, models, optimizers
from training.recipe import Recipe, load_recipe


@keras.saving.register_keras_serializable("edge_fer")
class Corrupt(layers.Layer):
    """Masks patches of images (n, h, w, 1), 0-255, with their mean and adds noise, always.

    Output: the corrupted images, and the mask float32 (n, h, w, 1), 1 where a pixel is masked.

    Args:
        mask: probability that a patch is masked.
        patch_px: side of a patch.
        noise: sigma, gray levels.
        seed: of the random numbers.
    """

    def __init__(self, mask: float, patch_px: int, noise: float, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.settings = {"mask": mask, "patch_px": patch_px, "noise": noise, "seed": seed}
        self.random = keras.random.SeedGenerator(seed)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.settings}

    def call(self, images: Any) -> Any:
        n, (height, width), side = ops.shape(images)[0], images.shape[1:3], self.settings["patch_px"]
        patches = (n, -(-height // side), -(-width // side), 1)
        masked = ops.cast(keras.random.uniform(patches, seed=self.random) < self.settings["mask"], "float32")
        masked = ops.repeat(ops.repeat(masked, side, axis=1), side, axis=2)[:, :height, :width]
        mean = ops.mean(images, axis=(1, 2, 3), keepdims=True)
        noise = self.settings["noise"] * keras.random.normal(ops.shape(images), seed=self.random)
        return ops.where(masked > 0, mean, ops.clip(images + noise, 0, 255)), masked


@keras.saving.register_keras_serializable("edge_fer")
class ReconstructionError(layers.Layer):
    """Mean squared error over the masked pixels: [images, reconstructed images, mask] (n, h, w, 1) each -> (n, 1).

    Each image counts with mean 0 and standard deviation 1, which is what the reconstructed ones are to have.
    """

    def call(self, inputs: Any) -> Any:
        images, reconstructed, masked = inputs
        mean = ops.mean(images, axis=(1, 2, 3), keepdims=True)
        sigma = ops.std(images, axis=(1, 2, 3), keepdims=True)
        error = ops.square(reconstructed - (images - mean) / (sigma + 1.0)) * masked
        return ops.sum(error, axis=(1, 2)) / ops.maximum(ops.sum(masked, axis=(1, 2)), 1.0)


def build(recipe: Recipe, core: keras.Model, steps_per_epoch: int) -> keras.Model:
    """A network from images to the error of each, ready to fit, around the backbone of ``core``.

    Its one output is what training minimises; no labels are looked at.
    """
    pixels = keras.Input(core.input_shape[1:], name="pixels")
    # No blur and noise of a camera, and no cutout: they would be in the images that are to be reconstructed.
    augment, _ = augmentation.make(dataclasses.replace(recipe.augment, cutout_px=0), recipe.seed)
    images = augment(pixels)
    settings = recipe.pretrain
    corrupt = Corrupt(settings.mask, settings.patch_px, settings.noise, seed=recipe.seed)
    corrupted, masked = corrupt(images)
    pooling = next(layer for layer in core.layers if isinstance(layer, layers.GlobalAveragePooling2D))
    backbone = keras.Model(core.input, pooling.input, name="backbone")
    places = backbone.output.shape[1:3]
    height, width = core.input_shape[1:3]
    if (height % places[0], width % places[1]) != (0, 0):
        raise ConfigError(f"model.stages end at {places[0]}x{places[1]}, which does not divide {height}x{width}.")
    rows, columns = height // places[0], width // places[1]
    x = layers.Conv2D(rows * columns, 1, name="decoder")(backbone(corrupted))
    x = layers.Reshape((*places, rows, columns))(x)
    reconstructed = layers.Reshape((height, width, 1))(layers.Permute((1, 3, 2, 4))(x))
    network = keras.Model(pixels, ReconstructionError()([images, reconstructed, masked]))
    optimizer = optimizers.make(recipe.optimizer, settings.epochs, steps_per_epoch)
    network.compile(optimizer, loss=_output_itself, jit_compile=False)
    return network


def _output_itself(y_true: Any, y_pred: Any) -> Any:
    return y_pred[:, 0]


def pretrain(recipe_path: Path, data_folder: Path, run: Path) -> None:
    """Pre-train the backbone of a recipe's network without labels, on the Training samples alone.

    Args:
        recipe_path: see ``load_recipe``; its ``pretrain.epochs`` count here.
        data_folder: see ``datasets.load``.
        run: new folder: model.keras, for ``train --init-from``, recipe.toml and run.json.

    Raises:
        EdgeFerError: recipe, data or run folder are not as they should be.
    """
    started = time.monotonic()
    console = Console(stderr=True)
    recipe = load_recipe(recipe_path)
    if recipe.pretrain.epochs <= recipe.optimizer.warmup_epochs:
        raise ConfigError(f"pretrain.epochs ({recipe.pretrain.epochs}) must be more than optimizer.warmup_epochs.")
    if run.exists() and any(run.iterdir()):
        raise ConfigError(f"{run} is not empty: choose another --run.")
    console.print(f"Reading {data_folder} ...")
    training = datasets.load(data_folder, recipe.data.exclude or None, alignment=recipe.data.alignment)["Training"]
    keras.utils.set_random_seed(recipe.seed)
    core = models.build(recipe.model)
    network = build(recipe, core, -(-len(training) // recipe.batch_size))
    run.mkdir(parents=True, exist_ok=True)
    (run / "recipe.toml").write_text(recipe_path.read_text(encoding="utf-8"), encoding="utf-8")
    show = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: console.print(
            f"epoch {epoch + 1:3d}  error of masked pixels {logs['loss']:.4f}  {time.monotonic() - started:.0f} s"
        )
    )
    history = network.fit(
        training.images,
        np.zeros((len(training), 1), np.float32),
        batch_size=recipe.batch_size,
        epochs=recipe.pretrain.epochs,
        callbacks=[show],
        verbose=0,
    )
    core.save(run / "model.keras")
    facts = {
        "recipe": recipe.name,
        "seed": recipe.seed,
        "samples": len(training),
        "data_sha256": training.sha256,
        "error": [round(float(loss), 5) for loss in history.history["loss"]],
        "seconds": round(time.monotonic() - started),
    }
    (run / "run.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    console.print(f"Wrote {run / 'model.keras'}")
