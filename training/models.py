"""The networks. Each takes raw gray pixels, 0-255, and ends in logits."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from keras import layers, ops

from datasets import SIDE
from edge_fer.errors import ConfigError, DataError, InputMissingError
from edge_fer.model.spec import Head, Metadata
from edge_fer.preprocess.alignment import Alignment
from edge_fer.preprocess.illumination import Illumination
from edge_fer.strict import read_toml
from training.networks.attention import cbam
from training.networks.forest import NeuralForest
from training.networks.inputs import Channel
from training.networks.scoring import SCORE, stage_ends, with_scoring
from training.recipe import ModelRecipe, Precision


def build_plain(
    stages: list[list[int]], dropout: float, classes: int, repvgg: bool = False, squeeze_excitation: int = 0
) -> keras.Model:
    """A plain stack of 3x3 convolutions with batch normalization and ReLU, global average, one dense layer.

    Plain convolutions lose nothing to int8 and run on every delegate. The input is declared float32 because
    calibration cannot feed a uint8 one; the exporter makes it uint8. One dense layer serves all heads: the
    trunk is shared, the tasks are not.

    Args:
        stages: [filters, stride] of each convolution.
        dropout: rate before the dense layer, in training only.
        classes: of all heads together.
        repvgg: each convolution as a ``RepVGGBlock``.
        squeeze_excitation: reduction of ``squeeze_excitation`` behind each convolution; 0 for none.

    Returns:
        Model (batch, 48, 48, 1) float32, 0-255 -> (batch, classes) logits, head by head.
    """
    inputs = keras.Input((SIDE, SIDE, 1), name="pixels")
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    for filters, stride in stages:
        x = _convolved(x, filters, stride, repvgg, squeeze_excitation)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(dropout)(x)
    outputs = layers.Dense(classes, dtype="float32", name="logits")(x)
    return keras.Model(inputs, outputs, name="plain")


def build_separable(stages: list[list[int]], dropout: float, classes: int) -> keras.Model:
    """A MobileNet-like network: a 3x3 stem, then depthwise-separable convolutions, in the layout of ``build_plain``.

    With the stages of training/recipes it has a fifth of the plain network's parameters and work. Int8 can cost such
    networks more: see docs/quantization.md. Howard et al., arXiv 1704.04861.

    Args:
        stages: [filters, stride] of the stem, then of each separable convolution.
        dropout: as in ``build_plain``.
        classes: as in ``build_plain``.

    Returns:
        As in ``build_plain``.
    """
    inputs = keras.Input((SIDE, SIDE, 1), name="pixels")
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    (filters, stride), *blocks = stages
    x = _normalized(layers.Conv2D(filters, 3, stride, "same", use_bias=False, kernel_initializer="he_normal"), x)
    for filters, stride in blocks:
        x = _normalized(layers.DepthwiseConv2D(3, stride, "same", use_bias=False, depthwise_initializer="he_normal"), x)
        x = _normalized(layers.Conv2D(filters, 1, use_bias=False, kernel_initializer="he_normal"), x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(dropout)(x)
    outputs = layers.Dense(classes, dtype="float32", name="logits")(x)
    return keras.Model(inputs, outputs, name="separable")


def build_residual(
    stages: list[list[int]],
    dropout: float,
    classes: int,
    repvgg: bool = False,
    squeeze_excitation: int = 0,
    attention: Literal["none", "cbam"] = "none",
    inputs: Sequence[str] = ("gray",),
    fusion: Literal["early", "late"] = "early",
    forest: int = 0,
) -> keras.Model:
    """``build_plain`` with a shortcut around each convolution that keeps the shape (He et al., arXiv 1512.03385).

    A shortcut has no weights and next to no work, and lets a deeper network learn as fast as a shallow one.

    Args:
        stages: as in ``build_plain``.
        dropout: as in ``build_plain``.
        classes: as in ``build_plain``.
        repvgg: as in ``build_plain``.
        squeeze_excitation: as in ``build_plain``.
        attention: "cbam" puts ``attention.cbam`` behind the last convolution of each size.
        inputs: kinds of ``inputs.Channel``.
        fusion: of several inputs: "early" as channels of one trunk, "late" as trunks of their own, joined at their
            embeddings.
        forest: trees of a ``forest.NeuralForest`` in place of the dense layer; 0 for none.

    Returns:
        As in ``build_plain``.
    """
    pixels = keras.Input((SIDE, SIDE, 1), name="pixels")
    seen = [Channel(kind)(pixels) if kind != "gray" else layers.Rescaling(1 / 127.5, -1.0)(pixels) for kind in inputs]
    if fusion == "early" and len(seen) > 1:
        seen = [layers.Concatenate()(seen)]
    embeddings = []
    for x in seen:
        for at, (filters, stride) in enumerate(stages):
            y = _convolved(x, filters, stride, repvgg, squeeze_excitation)
            if attention == "cbam" and (at + 1 == len(stages) or stages[at + 1][1] > 1):
                y = cbam(y, reduction=8)
            x = layers.Add()([x, y]) if y.shape == x.shape else y
        embeddings.append(layers.GlobalAveragePooling2D()(x))
    embedded = layers.Concatenate()(embeddings) if len(embeddings) > 1 else embeddings[0]
    embedded = layers.Dropout(dropout)(embedded)
    if forest:
        outputs = NeuralForest(classes, trees=forest, dtype="float32", name="logits")(embedded)
    else:
        outputs = layers.Dense(classes, dtype="float32", name="logits")(embedded)
    return keras.Model(pixels, outputs, name="residual")


def _convolved(x: keras.KerasTensor, filters: int, stride: int, repvgg: bool, reduction: int) -> keras.KerasTensor:
    if repvgg:
        x = layers.ReLU()(RepVGGBlock(filters, stride)(x))
    else:
        x = _normalized(layers.Conv2D(filters, 3, stride, "same", use_bias=False, kernel_initializer="he_normal"), x)
    return squeeze_excitation(x, reduction) if reduction else x


def squeeze_excitation(x: keras.KerasTensor, reduction: int) -> keras.KerasTensor:
    """Channels scaled by what all of the image shows (squeeze-and-excitation, Hu et al., arXiv 1709.01507).

    It ends in a hard sigmoid, ReLU6(x + 3) / 6, which int8 and the Edge TPU have. All are Keras' own layers, so that
    the exporter can read them. On a processor with AVX-512, though, LiteRT 2.3's XNNPACK died on a trained int8 network
    with squeeze-and-excitation: ``fold`` takes it out.

    Args:
        x: (batch, height, width, channels).
        reduction: channels for one unit of the bottleneck.
    """
    channels = x.shape[-1]
    # 1x1 convolutions, where dense layers would need a reshape that the Edge TPU lacks.
    scale = layers.GlobalAveragePooling2D(keepdims=True)(x)
    scale = layers.Conv2D(max(4, channels // reduction), 1, activation="relu")(scale)
    # From zeros, every scale starts at one half: the network begins as one without them.
    scale = layers.Conv2D(channels, 1, activation="hard_sigmoid", kernel_initializer="zeros")(scale)
    return layers.Multiply()([x, scale])


def _normalized(convolution: keras.Layer, x: keras.KerasTensor) -> keras.KerasTensor:
    return layers.ReLU()(layers.BatchNormalization(momentum=0.9)(convolution(x)))


BUILDERS = {"plain": build_plain, "separable": build_separable, "residual": build_residual}
"""Networks by the recipe's ``kind``; each is a model of that name."""


def build(recipe: ModelRecipe, classes: int, precision: Precision = "float32") -> keras.Model:
    """The network of a recipe, as ``BUILDERS`` make it.

    Args:
        recipe: which.
        classes: of all heads together.
        precision: what its layers calculate in; with "bfloat16", weights and logits stay float32. ``in_precision`` is
            the way back.
    """
    names = ("repvgg", "squeeze_excitation", "attention", "inputs", "fusion", "forest")
    options = {name: getattr(recipe, name) for name in names if getattr(recipe, name) != getattr(ModelRecipe, name)}
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16" if precision == "bfloat16" else "float32")
    try:
        core = BUILDERS[recipe.kind](recipe.stages, recipe.dropout, classes, **options)
        return with_scoring(core, recipe.scoring) if recipe.scoring else core
    finally:
        keras.config.set_dtype_policy(before)


def in_precision(model: keras.Model, precision: Precision) -> keras.Model:
    """The same functional model with all layers calculating in ``precision``, the last in float32."""
    policy = "mixed_bfloat16" if precision == "bfloat16" else "float32"

    def clone(layer: keras.Layer) -> keras.Layer:
        if not isinstance(layer, keras.Layer):  # an operation, as ops.mean in CBAM, calculates in what it is given
            return type(layer).from_config(layer.get_config())
        dtype = "float32" if layer is model.layers[-1] else policy
        return type(layer).from_config({**layer.get_config(), "dtype": dtype})

    copy = keras.models.clone_model(model, clone_function=clone)
    copy.set_weights(model.get_weights())
    return copy


@keras.saving.register_keras_serializable("edge_fer")
class RepVGGBlock(layers.Layer):
    """A 3x3 convolution trained as a sum of up to three branches, each with its own batch normalization.

    They are a 3x3 convolution, a 1x1 convolution and, where the shape stays, the identity (RepVGG, Ding et al.,
    arXiv 2101.03697). ``reparameterize`` makes one convolution of them.

    Args:
        filters: channels of the output.
        stride: of the convolutions.
    """

    def __init__(self, filters: int, stride: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters, self.stride = filters, stride

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "filters": self.filters, "stride": self.stride}

    def build(self, input_shape: Any) -> None:
        self.convolutions = [
            layers.Conv2D(self.filters, size, self.stride, "same", use_bias=False, kernel_initializer="he_normal")
            for size in (3, 1)
        ]
        keeps_shape = self.stride == 1 and input_shape[-1] == self.filters
        self.norms = [layers.BatchNormalization(momentum=0.9) for _ in range(2 + keeps_shape)]
        for convolution in self.convolutions:
            convolution.build(input_shape)
        for norm in self.norms:
            norm.build(self.compute_output_shape(input_shape))

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        n, height, width, _ = input_shape
        return n, -(-height // self.stride), -(-width // self.stride), self.filters

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        branches = [convolution(inputs) for convolution in self.convolutions] + [inputs]
        return sum(norm(branch, training=training) for norm, branch in zip(self.norms, branches, strict=False))

    def reparameterized(self) -> tuple[np.ndarray, np.ndarray]:
        """Kernel (3, 3, in, out) and bias (out,) of the one convolution with the same output as in inference."""
        _, height, width, channels = self.input.shape
        three, one = (np.asarray(ops.convert_to_numpy(c.kernel), np.float64) for c in self.convolutions)
        kernels = [three, np.zeros_like(three), np.zeros_like(three)]
        # Where "same" padding puts the pixel that a 1x1 convolution of this stride reads: the corner of the window
        # where nothing is padded before it, the middle where one row is.
        row, column = (max((-(-side // self.stride) - 1) * self.stride + 3 - side, 0) // 2 for side in (height, width))
        kernels[1][row, column] = one[0, 0]
        kernels[2][1, 1] = np.eye(channels, self.filters)
        kernel, bias = np.zeros_like(three), np.zeros(self.filters)
        for norm, branch in zip(self.norms, kernels, strict=False):
            gamma, beta, mean, variance = (np.asarray(value, np.float64) for value in norm.get_weights())
            factor = gamma / np.sqrt(variance + norm.epsilon)
            kernel += branch * factor
            bias += beta - mean * factor
        return kernel, bias


def reparameterize(model: keras.Model) -> keras.Model:
    """The same function with one convolution, with a bias, for each ``RepVGGBlock``; the model itself without any."""
    if not any(isinstance(layer, RepVGGBlock) for layer in model.layers):
        return model

    def clone(layer: keras.Layer) -> keras.Layer:
        if isinstance(layer, RepVGGBlock):
            return layers.Conv2D(layer.filters, 3, layer.stride, "same", name=layer.name)
        return type(layer).from_config(layer.get_config())

    copy = keras.models.clone_model(model, clone_function=clone)
    for layer in model.layers:
        weights = layer.reparameterized() if isinstance(layer, RepVGGBlock) else layer.get_weights()
        copy.get_layer(layer.name).set_weights(weights)
    return copy


IDENTITY_UNITS = 64
"""Features of who somebody is, in training alone."""


@keras.saving.register_keras_serializable("edge_fer")
class ClassCenters(layers.Layer):
    """A center for each class among embeddings (n, d): squared distances to them, and how near they are to each other.

    Output: (n, classes + 1), the distances and, in each row, the sum of (cosine + 1) over all ordered pairs of centers.

    Args:
        classes: how many.
    """

    def __init__(self, classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.classes = classes

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "classes": self.classes}

    def build(self, input_shape: Any) -> None:
        shape = (self.classes, input_shape[-1])
        self.centers = self.add_weight(shape=shape, initializer=keras.initializers.RandomNormal(0, 0.1), name="centers")

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, int]:
        return input_shape[0], self.classes + 1

    def call(self, embeddings: Any) -> Any:
        distances = ops.sum((embeddings[:, None] - self.centers) ** 2, axis=2)
        directions = self.centers / ops.sqrt(ops.sum(self.centers**2, axis=1, keepdims=True) + 1e-12)
        cosines = directions @ ops.transpose(directions)
        pairs = ops.sum((cosines + 1) * (1 - ops.eye(self.classes)))
        return ops.concatenate([distances, ops.zeros_like(distances[:, :1]) + pairs], axis=1)


def with_extras(
    core: keras.Model, auxiliary_heads: bool, center_classes: int, embedded: bool = False, identity: bool = False
) -> keras.Model:
    """A network with further outputs for its training beside its logits; ``core_of`` is the way back.

    Args:
        core: made by ``build``.
        auxiliary_heads: add the logits of a head at the end of each stage but the last: of what has one height and
            width. A head is a global average pooling and a dense layer, as the last one is (deep supervision as in the
            supervised blocks of Hu et al., "Learning supervised scoring ensemble for emotion recognition in the wild",
            2017). A network with a scoring ensemble has its blocks for heads.
        center_classes: add the columns of ``ClassCenters`` for so many classes, on the embedding that the logits come
            from; 0 for none.
        embedded: add that embedding itself, for losses on pairs.
        identity: add features of their own of who somebody is, a dense layer on that embedding.

    Returns:
        A model of the same name and layers, with its outputs by their names in ``tasks.OUTPUTS``.

    Raises:
        ConfigError: there is one stage only, or several trunks.
    """
    outputs = {"logits": core.output}
    blocks = [layer.output for layer in core.layers if layer.name.startswith(SCORE)]
    if auxiliary_heads and blocks:
        outputs |= {f"auxiliary_{number}": block for number, block in enumerate(blocks)}
    elif auxiliary_heads:
        ends = stage_ends(core)
        if len(ends) < 2:
            raise ConfigError("model.stages has one height and width only: auxiliary_heads wants an earlier stage.")
        for number, end in enumerate(ends[:-1]):
            pooled = layers.GlobalAveragePooling2D()(end)
            outputs[f"auxiliary_{number}"] = layers.Dense(core.output.shape[1], dtype="float32")(pooled)
    if center_classes:
        outputs["centers"] = ClassCenters(center_classes)(embedding(core))
    if embedded:
        # In float32 whatever the network calculates in: distances are differences of what is nearly alike.
        outputs["embedding"] = layers.Activation("linear", dtype="float32")(embedding(core))
    if identity:
        outputs["identity"] = layers.Dense(IDENTITY_UNITS, dtype="float32")(embedding(core))
    return keras.Model(core.input, outputs, name=core.name)


def embedding(core: keras.Model) -> keras.KerasTensor:
    """What the last layer reads, before dropout where there is one: (batch, channels)."""
    dropouts = [layer for layer in core.layers if isinstance(layer, layers.Dropout)]
    embedded: keras.KerasTensor = (dropouts or core.layers)[-1].input
    return embedded


def core_of(network: keras.Model, kind: str) -> keras.Model:
    """The network to export, which shares its weights with the one inside ``network`` that trains.

    Args:
        network: made by ``train.build``.
        kind: the recipe's.
    """
    inner = network.get_layer(kind)
    return keras.Model(inner.input, inner.get_layer("logits").output, name=kind)


def mmac(model: keras.Model) -> float:
    """Millions of multiply-accumulates that a functional model takes for one image, biases and sums not counted."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, layers.DepthwiseConv2D | layers.Conv2D | layers.Dense):
            # Each number of the kernel is used once for each place of the output.
            places = math.prod(layer.output.shape[1:-1])
            total += places * math.prod(layer.kernel.shape)
    return total / 1e6


def load(path: Path) -> keras.Model:
    """Read a ``.keras`` file.

    Raises:
        InputMissingError: no such file.
        DataError: it is not a Keras model.
    """
    if not path.is_file():
        raise InputMissingError(f"No model {path}.")
    try:
        return keras.models.load_model(path, compile=False)
    except (ValueError, OSError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0].split(". ")[0]
        raise DataError(f"{path} is not a Keras model that can be read: {reason}.") from None


def restore(network: keras.Model, checkpoint: Path) -> None:
    """Give a compiled network the weights and the state of the optimizer that a ``.keras`` file of the like holds.

    Reading the network itself would lose what the file does not hold: the weights that decay leaves alone.

    Raises:
        InputMissingError: no such file.
        DataError: it is not a Keras model, or not one of the like.
    """
    network.optimizer.build(network.trainable_variables)
    try:
        network.load_weights(checkpoint)
    except FileNotFoundError:
        raise InputMissingError(f"No model {checkpoint}.") from None
    except (ValueError, OSError, KeyError, TypeError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0].split(". ")[0]
        raise DataError(f"{checkpoint} is not a checkpoint that can be read: {reason}.") from None


def description(
    name: str, heads: Sequence[Head], alignment: Alignment = "none", illumination: Sequence[Illumination] = ()
) -> str:
    """The text of ``model.toml``: the metadata that the network cannot say of itself; see ``edge_fer.model.spec``.

    The crops of data sets are framed like a Haar detection, so the margin is 0.
    """
    texts = (f'\n[[heads]]\nname = "{head.name}"\nlabels = {json.dumps(head.labels)}\n' for head in heads)
    light = f"illumination = {json.dumps(list(illumination))}\n" if illumination else ""
    return f'name = "{name}"\n\n[preprocess]\nmargin = 0.0\nalignment = "{alignment}"\n{light}' + "".join(texts)


def read_description(path: Path) -> Metadata | None:
    """What the ``model.toml`` beside a model says of it; None where there is no such file.

    Raises:
        ConfigError: it is not TOML, or a key is wrong.
    """
    toml = path.with_suffix(".toml")
    try:
        table = read_toml(toml)
    except FileNotFoundError:
        return None
    # What lies before the network is the exporter's.
    return Metadata.from_table({key: value for key, value in table.items() if key != "normalize"}, str(toml))
