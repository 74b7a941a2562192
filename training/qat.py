"""Fine-tune a trained model under simulated int8, so that its weights learn to live with the rounding.

    python export/equalize.py runs/separable/model.keras -o runs/separable-equalized/model.keras
    python -m training qat --model runs/separable-equalized/model.keras --recipe training/recipes/separable.toml \\
        --data ~/fer2013 --run runs/separable-qat

For models that lose more than they may by post-training int8 (docs/quantization.md). What comes out is a plain Keras
model without fake-quant layers: the exporter takes it as any other, and rounds its weights to the grid they were
trained on.

Sources: Jacob et al., arXiv 1712.05877, section 3 (fake quantization, moving-average ranges); Bengio et al.,
arXiv 1308.3432 (straight-through gradients).
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
from keras import layers, ops
from rich.console import Console

from edge_fer.errors import ConfigError, DataError
from training import augmentation
from training.callbacks.chance import Batches, ChanceByEpoch
from training.callbacks.epoch_log import ALONE, EpochLog, Place
from training.recipe import DistillRecipe, Recipe
from training.runs import load_for, read_data, refuse_used, write_run
from training.tasks import TrainingNetwork, class_balance, compose, targets_of

WEIGHTED = (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense)
_LEVELS = 127.0  # int8 weights are symmetric: -127 to 127, zero point 0
_WINDOW = 100.0  # steps that the moving average of the ranges looks back


def straight_through(x: Any, quantized: Any) -> Any:
    """The value of ``quantized`` with the gradient of ``x`` (Bengio et al.)."""
    return x + ops.stop_gradient(quantized - x)


def fake_quantize_weights(kernel: Any, axes: tuple[int, ...]) -> Any:
    """Round a kernel to int8 and back, symmetrically (Jacob et al., eq. 12).

    Args:
        kernel: float tensor.
        axes: over which one scale is shared: all for per-tensor, all but the output channels' for per-channel.
    """
    scale = ops.maximum(ops.max(ops.abs(kernel), axis=axes, keepdims=True) / _LEVELS, 1e-9)
    # The scale is data to the gradient, as the converter's is: constant in a step.
    scale = ops.stop_gradient(scale)
    return straight_through(kernel, ops.clip(ops.round(kernel / scale), -_LEVELS, _LEVELS) * scale)


@keras.saving.register_keras_serializable("edge_fer")
class FakeQuantWeights(layers.Wrapper):
    """Runs a layer with its kernel rounded to int8. The wrapped layer keeps the float kernel, and learns.

    Args:
        layer: Conv2D, DepthwiseConv2D or Dense.
        per_channel: one scale for each output channel; otherwise one for the kernel.
    """

    def __init__(self, layer: keras.Layer, per_channel: bool, **kwargs: Any) -> None:
        super().__init__(layer, **kwargs)
        self.per_channel = per_channel

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "per_channel": self.per_channel}

    def call(self, inputs: Any) -> Any:
        kernel = self.layer.kernel
        channel_axis = 2 if isinstance(self.layer, layers.DepthwiseConv2D) else len(kernel.shape) - 1
        axes = tuple(axis for axis in range(len(kernel.shape)) if not (self.per_channel and axis == channel_axis))
        weights = [
            fake_quantize_weights(ops.convert_to_tensor(v), axes) if v is kernel else ops.convert_to_tensor(v)
            for v in self.layer.trainable_variables
        ]
        outputs, _ = self.layer.stateless_call(weights, self.layer.non_trainable_variables, inputs)
        return outputs


@keras.saving.register_keras_serializable("edge_fer")
class FakeQuantActivations(layers.Layer):
    """Rounds activations to 8 bits and back, in a range that follows a moving average of what training shows.

    Zero is always exactly representable (Jacob et al., section 3.1). What lies outside the range is cut off and gets
    no gradient, as in the int8 graph.
    """

    def build(self, input_shape: Any) -> None:
        self.low = self.add_weight(shape=(), initializer="zeros", trainable=False, name="low")
        self.high = self.add_weight(shape=(), initializer="zeros", trainable=False, name="high")
        self.steps = self.add_weight(shape=(), initializer="zeros", trainable=False, name="steps")

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        if training:
            # A plain mean at first, an exponential one later: the first range is that of the first batch.
            self.steps.assign_add(1.0)
            rate = 1 / ops.minimum(self.steps, _WINDOW)
            self.low.assign_add(rate * (ops.stop_gradient(ops.min(inputs)) - self.low))
            self.high.assign_add(rate * (ops.stop_gradient(ops.max(inputs)) - self.high))
        low, high = ops.minimum(self.low, 0.0), ops.maximum(self.high, 0.0)
        scale = ops.maximum((high - low) / 255, 1e-9)
        zero_point = ops.round(-low / scale)
        inside = ops.clip(inputs, -zero_point * scale, (255 - zero_point) * scale)
        return straight_through(inside, ops.round(inside / scale) * scale)


def fake_quantized(model: keras.Model, per_channel: bool, name: str) -> keras.Model:
    """A copy of a model that computes in simulated int8.

    Args:
        model: functional, without batch normalization (``export/equalize.py`` folds it).
        per_channel: see ``FakeQuantWeights``.
        name: of the copy.

    Raises:
        DataError: the model has batch normalization: its weights are not those that int8 will see.
    """
    if any(isinstance(layer, layers.BatchNormalization) for layer in model.layers):
        raise DataError("The model has batch normalization: fold it with `python export/equalize.py` first.")

    def clone(layer: keras.Layer) -> keras.Layer:
        copy = type(layer).from_config(layer.get_config())
        return FakeQuantWeights(copy, per_channel, name=layer.name) if isinstance(layer, WEIGHTED) else copy

    def call(layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        outputs = layer(*args, **kwargs)
        return FakeQuantActivations(name=f"{layer.name}_range")(outputs) if layer.name in rounded else outputs

    rounded = {layer.name for layer in model.layers if _is_rounded(model, layer)}
    copy = keras.models.clone_model(model, clone_function=clone, call_function=call)
    for layer, twin in _twins(model, copy):
        twin.set_weights(layer.get_weights())
    return keras.Model(copy.input, copy.output, name=name)


def _is_rounded(model: keras.Model, layer: keras.Layer) -> bool:
    """Whether int8 rounds a layer's output: not the pixels, and not what is fused with the ReLU behind it."""
    if isinstance(layer, layers.InputLayer | layers.Dropout):
        return False
    users = [other for other in model.layers if not isinstance(other, layers.InputLayer) and _reads(other, layer)]
    return not (len(users) == 1 and isinstance(users[0], layers.ReLU))


def _reads(layer: keras.Layer, before: keras.Layer) -> bool:
    return any(x is before.output for x in keras.tree.flatten(layer.input))


def copy_weights_back(quantized: keras.Model, model: keras.Model) -> None:
    """Give a model the weights that its ``fake_quantized`` copy has learned."""
    for layer, twin in _twins(model, quantized):
        layer.set_weights(twin.get_weights())


def _twins(model: keras.Model, quantized: keras.Model) -> Iterator[tuple[keras.Layer, keras.Layer]]:
    """Each layer with weights, and what it was wrapped as."""
    for layer in model.layers:
        if layer.weights:
            twin = quantized.get_layer(layer.name)
            yield layer, twin.layer if isinstance(twin, FakeQuantWeights) else twin


def finetune(
    model_path: Path,
    recipe: Recipe,
    data_folder: Path,
    run: Path,
    epochs: int,
    learning_rate: float,
    per_channel: bool,
    place: Place = ALONE,
) -> None:
    """Fine-tune a model under simulated int8, with its recipe's data, augmentation and loss on the labels.

    Adam with a cosine from ``learning_rate`` to 0.

    Args:
        model_path: a model for the data's heads without batch normalization.
        recipe: what it was trained by.
        data_folder: see ``datasets.load``.
        run: new folder: model.keras, model.toml, run.json, recipe.toml, history.csv, curves.png, evaluation.
        epochs: passes over the Training samples.
        learning_rate: at the start; about a twentieth of the training's.
        per_channel: see ``FakeQuantWeights``; as the exporter will do it.
        place: where this training stands in a plan of several stages.

    Raises:
        EdgeFerError: model, recipe, data or run folder are not as they should be.
    """
    started = time.monotonic()
    console = Console(stderr=True)
    if epochs < 1:
        raise ConfigError(f"--epochs is {epochs}; it must be at least 1.")
    if not 0 < learning_rate < math.inf:
        raise ConfigError(f"--learning-rate must be more than 0, not {learning_rate}.")
    refuse_used(run)
    splits = read_data(data_folder, recipe)
    training = splits["Training"]
    model = load_for(model_path, training)
    keras.utils.set_random_seed(recipe.seed)
    quantized = fake_quantized(model, per_channel, name=recipe.model.kind)
    run.mkdir(parents=True, exist_ok=True)

    pixels = keras.Input(model.input_shape[1:], name="pixels")
    augment, camera = augmentation.make(recipe.augment, recipe.seed)
    network = TrainingNetwork(pixels, {"logits": quantized(camera(augment(pixels)))})
    steps = -(-len(training) // recipe.batch_size)
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, decay_steps=epochs * steps)
    on_labels = dataclasses.replace(recipe, distill=DistillRecipe())
    network.tasks = compose(on_labels, training.heads, ["logits"], class_balance(recipe.class_balance, training))
    network.compile(keras.optimizers.Adam(schedule), jit_compile=False)
    log = EpochLog(epochs, run, quantized, None, splits["PublicTest"], [], steps, console, place)
    batches = Batches(training.images, targets_of(training, recipe.label_smoothing), recipe.batch_size)
    callbacks = [log, ChanceByEpoch(recipe.seed, batches)]
    with log.progress:
        network.fit(batches, epochs=epochs, shuffle=False, callbacks=callbacks, verbose=0)
    (run / "checkpoint.keras").unlink()  # for --resume, which so short a training does not have
    copy_weights_back(quantized, model)
    facts = {"epochs": epochs, "learning_rate": learning_rate, "per_channel": per_channel}
    write_run(run, recipe, model, splits, {"seconds": round(time.monotonic() - started), "quantization_aware": facts})
