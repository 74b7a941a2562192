"""The metadata of a bundle: what makes a model right and its graph cannot say.

Training writes the same table as TOML beside a Keras model, without what only an export can know; the bundle holds it
as JSON (``metadata.schema.json``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from edge_fer.core import Expression
from edge_fer.errors import ConfigError
from edge_fer.preprocess import PreprocessSpec
from edge_fer.strict import from_table
from edge_fer.temporal.smoothing import Smoothing

METADATA_VERSION = 2
"""Grows when metadata of the version before can no longer be read, or would be read wrongly."""


@dataclass(frozen=True)
class Head:
    """A slice of the output that is a task of its own.

    Attributes:
        name: of the task: "ferplus", "fer2013".
        labels: expressions in the order of the logits.
        temperature: logits are divided by it before softmax, so that confidence is frequency (Guo et al.,
            arXiv 1706.04599).
    """

    name: str
    labels: tuple[Expression, ...]
    temperature: float = 1.0


@dataclass(frozen=True)
class Metadata:
    """What a model needs that its graph cannot say.

    Attributes:
        name: of the model.
        heads: in the order of their logits; the first is what the recognizer reports.
        preprocess: how a face is cut out for it.
        smoothing: how its answers become one steady answer.
        facts: what is said for people: metrics, training, quantization. Never read by the runtime.
        model_sha256: of the FlatBuffer, in hex; "" before there is one.
        metadata_version: ``METADATA_VERSION`` at export.
    """

    name: str
    heads: tuple[Head, ...]
    preprocess: PreprocessSpec = field(default_factory=PreprocessSpec)
    smoothing: Smoothing = field(default_factory=Smoothing)
    facts: Mapping[str, Any] = field(default_factory=dict)
    model_sha256: str = ""
    metadata_version: int = METADATA_VERSION

    @classmethod
    def from_table(cls, table: Mapping[str, Any], origin: str) -> Metadata:
        """Read a table of TOML or JSON, strictly.

        Args:
            table: as ``to_table`` makes it; all but ``name`` and ``heads`` may be left out.
            origin: file name for messages.

        Raises:
            ConfigError: a key or value is wrong.
        """
        metadata = from_table(cls, table, origin)
        if not metadata.heads:
            raise ConfigError(f"{origin} has no heads: name at least one, with its labels.")
        names = [head.name for head in metadata.heads]
        if not all(name and name.isprintable() and len(name) <= 100 for name in (metadata.name, *names)):
            raise ConfigError(f"{origin}: the names of model and heads must be texts of 1 to 100 letters.")
        if len(set(names)) < len(names):
            raise ConfigError(f"{origin}: two heads have the same name.")
        for head in metadata.heads:
            if not head.labels or len(set(head.labels)) < len(head.labels):
                raise ConfigError(f"{origin}: the labels of head {head.name!r} must be there, each once.")
            if not 0.01 <= head.temperature <= 100:
                raise ConfigError(
                    f"{origin}: the temperature of head {head.name!r} must be 0.01 to 100, not {head.temperature}."
                )
        if not 0 <= metadata.preprocess.margin <= 2:
            raise ConfigError(f"{origin}: preprocess.margin must be 0 to 2, not {metadata.preprocess.margin}.")
        for key, value in asdict(metadata.smoothing).items():
            if not 0 <= value < math.inf:
                raise ConfigError(f"{origin}: smoothing.{key} must be 0 or more, not {value}.")
        return metadata

    def to_table(self) -> dict[str, Any]:
        """The metadata as plain values, for JSON and TOML."""
        return asdict(self)


def head_slices(heads: Sequence[Head]) -> dict[str, slice]:
    """Where the logits of each head stand in the output, by its name."""
    slices, start = {}, 0
    for head in heads:
        slices[head.name] = slice(start, start + len(head.labels))
        start += len(head.labels)
    return slices
