"""Pre-train a backbone without labels: an autoencoder, or one that learns to see what a face network sees.

    python -m training pretrain --recipe training/recipes/plain.toml --data ~/fer2013 --run runs/plain-faces
    python -m training train --recipe training/recipes/plain.toml --data ~/fer2013 \\
        --init-from runs/plain-faces/model.keras

Kinds, by the recipe's ``pretrain.kind``:

* masked: faces of which patches are masked and the rest is noisy; what was masked is to be reconstructed.
* convolutional: faces as they are; all of a face is to be reconstructed, by transposed convolutions.
* denoising: the same, of corrupted faces.
* contractive: as convolutional, while features are to change little with the image.
* face-features: FaceNet2ExpNet's first stage (Ding et al., FG 2017, arXiv 1609.06591): the convolutions are to give
  what those of a frozen face network give. The second stage is ``train --init-from``, with a dense layer on top.
* gan: a discriminator learns to tell faces from generated ones (``gan.Gan``, of one class: it sees no label). It is a
  network of its own, whose features ``probe`` judges (Radford et al., arXiv 1511.06434, section 5.1).

``networks.autoencoder`` names the sources of the first four.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray
from rich.console import Console

from edge_fer.errors import ConfigError
from edge_fer.files import write_atomically
from training import augmentation, models, optimizers
from training.callbacks.chance import Batches, ChanceByEpoch
from training.curves import panels_of, write_lines
from training.networks import face_net
from training.networks.autoencoder import (
    Corrupt,
    ReconstructionError,
    contraction_of,
    convolutional_decoder,
    linear_decoder,
)
from training.networks.scoring import last_map
from training.recipe import Recipe
from training.runs import read_data, refuse_used, replace, sha256_of, write_recipe

if TYPE_CHECKING:
    from training.gan import Gan

PARTS = {
    "error": "reconstruction error",
    "contraction": "squared norm of the Jacobian",
    "distance": "distance to the face network's features",
    "generator": "loss of the generator",
    "discriminator": "loss of the discriminator",
}
"""Columns of history.csv, and what they are."""


def backbone_of(core: keras.Model) -> keras.Model:
    """The convolutions of a network: images (n, h, w, 1) -> (n, rows, columns, channels).

    Raises:
        ConfigError: they are several networks side by side.
    """
    return keras.Model(core.input, last_map(core), name="backbone")


def build_autoencoder(recipe: Recipe, core: keras.Model) -> keras.Model:
    """A network around the backbone of ``core`` from images to what training minimizes: parts by name, (n, 1) each.

    Raises:
        ConfigError: the recipe's network does not go with its kind.
    """
    settings = recipe.pretrain
    backbone = backbone_of(core)
    pixels = keras.Input(core.input_shape[1:], name="pixels")
    # No blur and noise of a camera, and no cutout: they would be in the images that are to be reconstructed.
    augment, _ = augmentation.make(dataclasses.replace(recipe.augment, cutout_px=0), recipe.seed)
    images = augment(pixels)
    seen, counted = images, ops.ones_like(images)
    if settings.kind in ("masked", "denoising"):
        corrupt = Corrupt(settings.mask, settings.patch_px, settings.noise, seed=recipe.seed)
        seen, masked = corrupt(images)
        counted = masked if settings.kind == "masked" else counted
    parts = {}
    if settings.kind == "contractive":
        code, parts["contraction"] = contraction_of(backbone, seen)
    else:
        code = backbone(seen)
    if settings.kind == "masked":
        reconstructed = linear_decoder(code, *core.input_shape[1:3])
    else:
        reconstructed = convolutional_decoder(code, recipe.model.stages, *core.input_shape[1:3])
    return keras.Model(pixels, {"error": ReconstructionError()([images, reconstructed, counted]), **parts})


def build_regressor(core: keras.Model, target: tuple[int, ...]) -> keras.Model:
    """A network from images to a map of a face network's shape, through the backbone of ``core``.

    The paper's expression net ends in maps of the same shape as the face net's; a small network's are brought to it by
    a 1x1 convolution that is dropped afterwards (FitNets, Romero et al., arXiv 1412.6550).

    Args:
        core: the network.
        target: (rows, columns, channels).
    """
    pixels = keras.Input(core.input_shape[1:], name="pixels")
    # Not augmented: each place of the map is to see what the face network saw there.
    places = layers.Resizing(*target[:2])(backbone_of(core)(pixels))
    return keras.Model(pixels, layers.Conv2D(target[2], 1, name="regressor")(places))


def feature_distance(target: Any, features: Any) -> Any:
    """Mean squared distance of features (n, h, w, c) to those they are to be: (n,)."""
    return ops.mean(ops.square(ops.cast(target, "float32") - features), axis=(1, 2, 3))


def face_features(images: NDArray[np.uint8], network: keras.Model) -> NDArray[np.float16]:
    """The maps of a face network of faces (n, h, w, 1), less their mean; each channel has standard deviation 1.

    The mean is of each place by itself: what the maps of all faces share, five sixths of their variance, is no news. So
    the distance of who knows nothing of a face is 1.
    """
    batches = (images[at : at + 128].astype(np.float32) for at in range(0, len(images), 128))
    maps = np.concatenate([network.predict_on_batch(batch)["map"].astype(np.float16) for batch in batches])
    maps -= maps.mean(axis=0, dtype=np.float32).astype(np.float16)
    sigma = maps.std(axis=(0, 1, 2), dtype=np.float32)
    return maps / (sigma + 1e-3).astype(np.float16)


def pretrain(recipe: Recipe, data_folder: Path, run: Path) -> None:
    """Pre-train the backbone of a recipe's network without labels, on the Training samples alone.

    Args:
        recipe: its ``pretrain.epochs`` count here.
        data_folder: see ``datasets.load``.
        run: new folder: model.keras, for ``train --init-from`` and ``probe``, history.csv and curves.png, recipe.toml
            and run.json.

    Raises:
        EdgeFerError: recipe, data or run folder are not as they should be; or a package is missing.
    """
    started, kind = time.monotonic(), recipe.pretrain.kind
    console = Console(stderr=True)
    if recipe.pretrain.epochs <= recipe.optimizer.warmup_epochs and kind != "gan":
        raise ConfigError(f"pretrain.epochs ({recipe.pretrain.epochs}) must be more than optimizer.warmup_epochs.")
    refuse_used(run)
    weights = face_net.installed() if kind == "face-features" else None
    training = read_data(data_folder, recipe)["Training"]
    keras.utils.set_random_seed(recipe.seed)
    if kind == "gan":
        from training.gan import Gan

        gan = Gan(training.images, np.zeros(len(training), np.int64), 1, recipe.seed, recipe.pretrain.width)
    else:
        core = models.build(recipe.model, sum(len(head.labels) for head in training.heads))
        face_network = face_net.load(weights, training.images.shape[1]) if weights else None
        target = face_network.output["map"].shape[1:] if face_network else (1,)
        network = compiled(recipe, core, target, -(-len(training) // recipe.batch_size))
    run.mkdir(parents=True, exist_ok=True)  # once all that may be refused was built
    write_recipe(run, recipe)
    lines: list[dict[str, float]] = []

    def show(epoch: int, **values: float) -> None:
        lines.append({"epoch": epoch + 1, **values, "seconds": round(time.monotonic() - started, 1)})
        said = "  ".join(f"{PARTS[name]} {values[name]:.4f}" for name in PARTS if name in values)
        console.print(f"epoch {epoch + 1:3d}  {said}  {time.monotonic() - started:.0f} s", highlight=False)

    if kind == "gan":
        made = _play(gan, recipe.pretrain.epochs, show)
    else:
        made, targets = core, np.zeros((len(training), 1), np.float16)
        if face_network:
            console.print(f"The face network looks at {len(training):,} faces: some minutes on a processor.")
            targets = face_features(training.images, face_network)
        _fit(recipe, network, training.images, targets, show)
    replace(run / "model.keras", made.save)
    write_lines(run / "history.csv", lines)
    panels = {name: title for name, title in PARTS.items() if name in lines[0]}
    panels_of({recipe.name: lines}, panels).savefig(run / "curves.png", dpi=120)
    facts = {
        "recipe": recipe.name,
        "kind": kind,
        "seed": recipe.seed,
        "samples": len(training),
        "data_sha256": training.sha256,
        **({"face_network": sha256_of(weights)} if weights else {}),
        **{name: [round(line[name], 5) for line in lines] for name in panels},
        "seconds": round(time.monotonic() - started),
    }
    write_atomically(run / "run.json", (json.dumps(facts, indent=2) + "\n").encode())
    console.print(f"Wrote {run / 'model.keras'}")


def compiled(recipe: Recipe, core: keras.Model, target: tuple[int, ...], steps_per_epoch: int) -> keras.Model:
    """The network that trains the backbone of ``core`` by the recipe's kind, ready to fit.

    Args:
        recipe: which.
        core: made by ``models.build``.
        target: shape of a sample's target: of the face network's map; else it does not count.
        steps_per_epoch: batches.
    """
    optimizer = optimizers.make(recipe.optimizer, recipe.pretrain.epochs, steps_per_epoch)
    if recipe.pretrain.kind == "face-features":
        network = build_regressor(core, target)
        network.compile(optimizer, loss=feature_distance, jit_compile=False)
        return network
    network = build_autoencoder(recipe, core)
    weights = {"error": 1.0, "contraction": recipe.pretrain.contraction}
    losses = {name: _output_itself for name in network.output}
    parts = [weights[name] for name in network.output]
    network.compile(optimizer, loss=losses, loss_weights=dict(zip(losses, parts, strict=True)), jit_compile=False)
    return network


def _output_itself(y_true: Any, y_pred: Any) -> Any:
    return y_pred[:, 0]


def _fit(
    recipe: Recipe,
    network: keras.Model,
    images: NDArray[np.uint8],
    targets: NDArray[np.float16],
    show: Callable[..., None],
) -> None:
    if isinstance(network.output, dict):
        batches = Batches(images, dict.fromkeys(network.output, targets), recipe.batch_size)
    else:
        batches = Batches(images, targets, recipe.batch_size)

    def epoch_ended(epoch: int, logs: dict[str, float]) -> None:
        own = {name.removesuffix("_loss"): float(value) for name, value in logs.items() if name != "loss"}
        only = "distance" if recipe.pretrain.kind == "face-features" else "error"
        show(epoch, loss=float(logs["loss"]), **(own or {only: float(logs["loss"])}))

    told = keras.callbacks.LambdaCallback(on_epoch_end=epoch_ended)
    callbacks = [ChanceByEpoch(recipe.seed, batches), told]
    network.fit(batches, epochs=recipe.pretrain.epochs, shuffle=False, callbacks=callbacks, verbose=0)


def _play(gan: Gan, epochs: int, show: Callable[..., None]) -> keras.Model:
    """Train a GAN; the convolutions of its discriminator as a network: images (n, 48, 48, 1), 0-255 -> (n, 3, 3, c)."""
    for epoch in range(epochs):
        steps = (epoch + 1) * gan.steps_per_epoch
        generator, discriminator = gan.train(steps=steps)
        show(epoch, loss=discriminator, generator=generator, discriminator=discriminator)
    pixels = keras.Input(gan.discriminator.input_shape[0][1:], name="pixels")
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(pixels)
    for layer in gan.discriminator.layers:
        if isinstance(layer, layers.Flatten):
            break
        if isinstance(layer, layers.Conv2D | layers.LeakyReLU):
            copy = type(layer).from_config(layer.get_config())
            x = copy(x)
            copy.set_weights(layer.get_weights())
    return keras.Model(pixels, x, name="discriminator")
