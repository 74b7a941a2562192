"""Parts of autoencoders around a network's convolutions: what corrupts, what decodes, what is minimized.

Denoising: Vincent et al., ICML 2008. Convolutional: Masci et al., ICANN 2011. Contractive: Rifai et al., ICML 2011,
layer by layer as in Gu & Rigazio, arXiv 1412.5068. Masked patches: He et al., arXiv 2111.06377, with the decoder of one
linear layer of Xie et al., arXiv 2111.09886.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from edge_fer.errors import ConfigError


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
    """Mean squared error over the pixels that count: [images, reconstructed, mask] (n, h, w, 1) each -> (n, 1).

    Each image counts with mean 0 and standard deviation 1, which is what the reconstructed ones are to have.
    """

    def call(self, inputs: Any) -> Any:
        images, reconstructed, masked = inputs
        mean = ops.mean(images, axis=(1, 2, 3), keepdims=True)
        sigma = ops.std(images, axis=(1, 2, 3), keepdims=True)
        error = ops.square(reconstructed - (images - mean) / (sigma + 1.0)) * masked
        return ops.sum(error, axis=(1, 2)) / ops.maximum(ops.sum(masked, axis=(1, 2)), 1.0)


class Contraction(layers.Layer):
    """How much a convolution with batch normalization and ReLU changes with its input: its Jacobian's squared norm.

    Rifai et al., eq. 5, has the closed form for a dense layer with a sigmoid h: the sum over units of h'(a)^2 times the
    sum of its squared weights. Here h' is 1 where ReLU lets through and 0 elsewhere, a weight is what is left of it
    after normalization, gamma / sqrt(variance) times it, and at the border weights outside the image do not count.
    The variance is the batch's, and does not count as changing with the input. It is the mean over units, so that
    layers of all sizes weigh alike.

    Input: what the convolution gives (n, h, w, c), and that after normalization and ReLU. Output: (n, 1).

    Args:
        convolution: with "same" padding.
        norm: behind it.
    """

    def __init__(self, convolution: layers.Conv2D, norm: layers.BatchNormalization, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.convolution, self.norm = convolution, norm

    def call(self, inputs: Any) -> Any:
        before, after = inputs
        height, width, channels = self.convolution.input.shape[1:]
        inside = ops.ones((1, height, width, channels))
        squares = ops.conv(inside, self.convolution.kernel**2, self.convolution.strides, "same")
        scales = self.norm.gamma**2 / (ops.var(before, axis=(0, 1, 2)) + self.norm.epsilon)
        passes = ops.cast(after > 0, "float32")
        return ops.mean(passes * squares * scales, axis=(1, 2, 3), keepdims=True)[:, 0, 0]


def contraction_of(encoder: keras.Model, images: keras.KerasTensor) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """What an encoder makes of images, and the sum of ``Contraction`` over its convolutions, (n, 1).

    Raises:
        ConfigError: it has none followed by batch normalization and ReLU.
    """
    makers = {id(layer.output): layer for layer in encoder.layers}
    triples: list[tuple[keras.Layer, keras.Layer, keras.Layer]] = []
    for activation in encoder.layers:
        norm = makers.get(id(activation.input)) if isinstance(activation, layers.ReLU) else None
        convolution = makers.get(id(norm.input)) if isinstance(norm, layers.BatchNormalization) else None
        if type(convolution) is layers.Conv2D:
            triples.append((convolution, norm, activation))
    if not triples:
        raise ConfigError("The contractive penalty wants convolutions with ReLU: a network without model.repvgg.")
    inner = [one.output for convolution, _, activation in triples for one in (convolution, activation)]
    code, *values = keras.Model(encoder.input, [encoder.output, *inner])(images)
    norms = [
        Contraction(convolution, norm)([values[2 * at], values[2 * at + 1]])
        for at, (convolution, norm, _) in enumerate(triples)
    ]
    return code, layers.Add()(norms) if len(norms) > 1 else norms[0]


def linear_decoder(code: keras.KerasTensor, height: int, width: int) -> keras.KerasTensor:
    """Each place of a code (n, h, w, c) fills in its own part of the image: (n, height, width, 1).

    Raises:
        ConfigError: the places do not divide the image.
    """
    places = code.shape[1:3]
    if (height % places[0], width % places[1]) != (0, 0):
        raise ConfigError(f"model.stages end at {places[0]}x{places[1]}, which does not divide {height}x{width}.")
    rows, columns = height // places[0], width // places[1]
    x = layers.Conv2D(rows * columns, 1, name="decoder")(code)
    x = layers.Reshape((*places, rows, columns))(x)
    return layers.Reshape((height, width, 1))(layers.Permute((1, 3, 2, 4))(x))


def convolutional_decoder(
    code: keras.KerasTensor, stages: list[list[int]], height: int, width: int
) -> keras.KerasTensor:
    """Transposed convolutions back through the stages of an encoder: a code (n, h, w, c) -> images (n, H, W, 1).

    One for each stage that made the image smaller, with batch normalization and ReLU, then a 3x3 convolution.

    Args:
        code: of ``models.build``'s last convolution.
        stages: [filters, stride] of each convolution of the encoder.
        height: of the images.
        width: of the images.

    Raises:
        ConfigError: on its way the encoder rounded a height or width that is odd.
    """
    x = code
    for before, (_, stride) in reversed(list(zip([[stages[0][0], 1], *stages], stages, strict=False))):
        if stride > 1:
            x = layers.Conv2DTranspose(before[0], 3, stride, "same", use_bias=False)(x)
            x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    if x.shape[1:3] != (height, width):
        raise ConfigError(f"model.stages decode to {x.shape[1]}x{x.shape[2]}: halve {height}x{width} to whole numbers.")
    return layers.Conv2D(1, 3, padding="same", name="decoder")(x)
