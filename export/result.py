"""What an export is asked for and what it knows so far: one value that every step hands on with more in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from datasets import Dataset
from edge_fer.model.bundle import Bundle
from edge_fer.model.spec import Metadata
from export.layers import Layer


@dataclass(frozen=True)
class Options:
    """What to export, and how; see ``quantize.main`` for the words."""

    model: Path
    data: Path
    output: Path
    calibration: int
    io: str
    per_tensor: bool
    correct_bias: bool
    also: tuple[str, ...]
    max_drop: float
    min_agreement: float
    min_gain: float
    max_ece: float
    report: Path | None
    c_array: Path | None
    force: bool

    def path_of(self, variant: str) -> Path:
        """Where a float variant is written."""
        return self.output.with_name(f"{self.output.stem}.{variant}.tflite")

    def files(self) -> list[Path]:
        """All files that will be written."""
        reports = [self.report, self.report.with_suffix(".json")] if self.report else []
        sources = [self.c_array, self.c_array.with_suffix(".h")] if self.c_array else []
        return [self.output, *map(self.path_of, self.also), *reports, *sources]


@dataclass(frozen=True)
class Comparison:
    """One head of one variant of a model against the float Keras model.

    Attributes:
        variant: "Keras", "float32", "float16" or "int8".
        head: name of the head.
        n: images with a label of the head.
        drop: points of accuracy (0-100) that the variant loses; below 0 it wins.
        agreement: fraction of all images for which both choose the same label, 0-1.
        largest_difference: between two logits of the same image.
        ece_raw: expected calibration error of the variant with temperature 1, 0-1.
        ece: the same with the head's temperature.
        accuracy: percent of the n that are right.
        commonest: percent that always the commonest label would get right.
        labels_given: how many different labels the variant gives to the n.
    """

    variant: str
    head: str
    n: int
    drop: float
    agreement: float
    largest_difference: float
    ece_raw: float
    ece: float
    accuracy: float
    commonest: float
    labels_given: int


@dataclass(frozen=True)
class Attempt:
    """A way to quantize that was tried.

    Attributes:
        words: what it is called.
        agreement: of the worst head with float, 0-1.
        drop: points of accuracy that the worst head loses.
    """

    words: str
    agreement: float
    drop: float


@dataclass(frozen=True)
class Original:
    """The model as it is in the user's file, and what its pixels were brought to in front of it."""

    model: keras.Model
    scale: float
    offset: float

    def predict(
        self, tensors: NDArray[np.uint8], scale: float | None = None, offset: float | None = None
    ) -> NDArray[np.float32]:
        """Its outputs, float32 (n, labels), for uint8 (n, height, width, 1); perhaps with other scaling."""
        scale, offset = (self.scale, self.offset) if scale is None or offset is None else (scale, offset)
        pixels = tensors.astype(np.float32) * np.float32(scale) + np.float32(offset)
        batch, channels = self.model.inputs[0].shape[0], self.model.inputs[0].shape[-1]
        outputs = self.model.predict(pixels.repeat(channels, axis=-1), batch_size=batch or 256, verbose=0)
        (rows,) = keras.tree.flatten(outputs)
        return np.asarray(rows, np.float32)


@dataclass(frozen=True)
class Export:
    """An export on its way: load -> remedies (convert -> verify, perhaps again) -> bundle.

    Attributes:
        options: what was asked for.
        metadata: load: of the TOML file beside the model. verify: with temperatures. bundle: as it is in the bundle.
        model: load: Keras, raw gray pixels -> logits, in float.
        original: load: what the user's file holds, untouched.
        calibration: load: uint8 (n, height, width, 1), what int8 is calibrated on.
        data: load: the rows of PublicTest.
        tensors: load: their faces as the model sees them, uint8 (n, height, width, 1).
        prepared: remedies: the model that becomes int8: ``model``, perhaps equalized, perhaps with biases corrected.
        equalized: remedies: it is.
        bias_corrected: remedies: they are.
        flatbuffers: convert: by variant: "float32", "float16", "int8".
        logits: verify: of all faces by variant, "Keras" included, float32 (n, logits).
        metrics: verify: of ``evaluate_logits`` by variant.
        comparisons: verify: of each variant and head with float.
        reasons: verify: why int8 does not pass the gate; empty when it does.
        layers: verify: of the int8 graph, where somebody will look at them.
        tried: remedies: all ways to quantize that were tried; the last one is this, or the best where none passed.
        bundle: bundle: what is written, if the gate is passed.
    """

    options: Options
    metadata: Metadata
    model: keras.Model
    original: Original
    calibration: NDArray[np.uint8]
    data: Dataset
    tensors: NDArray[np.uint8]
    prepared: keras.Model | None = None
    equalized: bool = False
    bias_corrected: bool = False
    flatbuffers: Mapping[str, bytes] = field(default_factory=dict)
    logits: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    metrics: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    comparisons: tuple[Comparison, ...] = ()
    reasons: tuple[str, ...] = ()
    layers: tuple[Layer, ...] = ()
    tried: tuple[Attempt, ...] = ()
    bundle: Bundle | None = None
