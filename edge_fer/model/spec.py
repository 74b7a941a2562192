"""The metadata of a bundle: what makes a model right and its graph cannot say.

Training writes the same table as TOML beside a Keras model, without what only an export can know; the bundle holds it
as JSON (``metadata.schema.json``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from edge_fer.core import Expression
from edge_fer.errors import ConfigError
from edge_fer.preprocess import PreprocessSpec
from edge_fer.preprocess.illumination import MOST_STEPS
from edge_fer.strict import check_range, from_table
from edge_fer.temporal.affect import IntensitySpec
from edge_fer.temporal.doubt import Doubt
from edge_fer.temporal.recurrent import RecurrentSpec
from edge_fer.temporal.smoothing import Smoothing

METADATA_VERSION = 2
"""Grows when metadata of the version before can no longer be read, or would be read wrongly."""


HeadKind: TypeAlias = Literal["network", "linear-svm", "random-forest"]
"""What gives a head's logits: the last layer of the graph, or arrays of the bundle, from the embedding."""


@dataclass(frozen=True)
class Head:
    """A task of its own, with logits of its own: a slice of the network's output, unless ``classifier`` says otherwise.

    Attributes:
        name: of the task: "ferplus", "fer2013".
        labels: expressions in the order of the logits.
        temperature: logits are divided by it before softmax, so that confidence is frequency (Guo et al.,
            arXiv 1706.04599).
        priors: how frequent each label is in what the head learned from, summing to 1; empty where nobody knows.
        classifier: what gives the logits; see ``heads``.
    """

    name: str
    labels: tuple[Expression, ...]
    temperature: float = 1.0
    priors: tuple[float, ...] = ()
    classifier: HeadKind = "network"


@dataclass(frozen=True)
class Decision:
    """The balanced rule of a bundle, a part of its metadata.

    With z the logits of head h, T its temperature and p its priors, the score of a label is the sum over the heads of
    weight * (z / T - tau * log p); the probabilities are softmax(score / temperature).

    Attributes:
        labels: the expressions that are reported. A head may have others, on which nobody should rely.
        weights: of the heads, in their order.
        tau: how much of the prior is taken out: 0 none, 1 all of it.
        temperature: of the rule, so that confidence is frequency where all expressions are alike frequent.
    """

    labels: tuple[Expression, ...]
    weights: tuple[float, ...]
    tau: float
    temperature: float = 1.0

    def check(self, heads: Sequence[Head], origin: str) -> None:
        """See whether it fits the heads.

        Args:
            heads: of the same metadata.
            origin: file name for messages.

        Raises:
            ConfigError: it does not.
        """
        if len(self.labels) < 2 or len(set(self.labels)) < len(self.labels):
            raise ConfigError(f"{origin}: decision.labels must be at least two expressions, each once.")
        if len(self.weights) != len(heads) or not all(0 <= one <= 100 for one in self.weights) or not any(self.weights):
            raise ConfigError(f"{origin}: decision.weights must be a number from 0 to 100 for each head, not all 0.")
        for head, weight in zip(heads, self.weights, strict=True):
            if weight and not (set(self.labels) <= set(head.labels) and head.priors):
                raise ConfigError(
                    f"{origin}: the head {head.name!r} has a weight in the decision; it must have its labels, and "
                    "priors."
                )
        check_range("decision.tau", self.tau, 0, 10, origin)
        check_range("decision.temperature", self.temperature, 0.01, 100, origin)


Kind: TypeAlias = Literal["classifier", "detector"]
"""What a model is for: it tells the expression of a face, or finds the faces of an image."""


@dataclass(frozen=True)
class DetectorSpec:
    """How the numbers of a face detector are to be read, a part of its metadata.

    Attributes:
        smallest_px: width of a face that it finds nearly always, in pixels of its input.
        min_score: score from which a cell has found a face, 0-1.
        min_score_weak: the same where a face is expected, or a second look follows.
        min_iou: boxes that overlap a better one by more are of the same face.
        side: sides of the square that frames a face as FER2013 does, in geometric means of the box's sides.
    """

    smallest_px: float = 14.0
    min_score: float = 0.5
    min_score_weak: float = 0.3
    min_iou: float = 0.3
    side: float = 1.1

    def check(self, origin: str) -> None:
        """See whether it can be used.

        Args:
            origin: file name for messages.

        Raises:
            ConfigError: a value is out of its range.
        """
        for name, least, most in (
            ("smallest_px", 1, 1000),
            ("min_score", 0.001, 0.999),
            ("min_score_weak", 0.001, 0.999),
            ("min_iou", 0.01, 0.99),
            ("side", 0.1, 10),
        ):
            check_range(f"detector.{name}", getattr(self, name), least, most, origin)


@dataclass(frozen=True)
class Metadata:
    """What a model needs that its graph cannot say.

    Attributes:
        name: of the model.
        heads: in the order of their logits; the first is what the recognizer reports. A detector has none.
        preprocess: how a face is cut out for it.
        smoothing: how its answers become one steady answer.
        facts: what is said for people: metrics, training, quantization. Never read by the runtime.
        model_sha256: of the FlatBuffer, in hex; "" before there is one.
        metadata_version: ``METADATA_VERSION`` at export.
        decision: how its logits become an answer; None in older bundles, whose first head answers as it was trained.
        doubt: when not to rely on an answer; None in older bundles, which have ``Smoothing.min_confidence`` alone.
        kind: what the model is for.
        detector: of a detector alone.
        recurrent: of the recurrent head that makes of the frames of a face what the decision rule reports; its weights
            are a part of the bundle. None where the frames are aggregated as ``smoothing`` says.
        intensity: how strongly a face shows an expression; None where nobody trained it, and a proxy serves.
    """

    name: str
    heads: tuple[Head, ...]
    preprocess: PreprocessSpec = field(default_factory=PreprocessSpec)
    smoothing: Smoothing = field(default_factory=Smoothing)
    facts: Mapping[str, Any] = field(default_factory=dict)
    model_sha256: str = ""
    metadata_version: int = METADATA_VERSION
    decision: Decision | None = None
    doubt: Doubt | None = None
    kind: Kind = "classifier"
    detector: DetectorSpec | None = None
    recurrent: RecurrentSpec | None = None
    intensity: IntensitySpec | None = None

    @property
    def reads_embedding(self) -> bool:
        """Whether its graph has to give the embedding behind the logits."""
        on_it = any(head.classifier != "network" for head in self.heads)
        return on_it or self.recurrent is not None or self.intensity is not None

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
        if (metadata.kind == "detector") != (metadata.detector is not None):
            raise ConfigError(f"{origin}: a detector has a part `detector`, and no other kind of model has one.")
        if metadata.detector:
            metadata.detector.check(origin)
            if metadata.heads or metadata.decision or metadata.doubt or metadata.reads_embedding:
                raise ConfigError(f"{origin}: a detector has no heads, decision, doubt, recurrent head or intensity.")
        elif not metadata.heads:
            raise ConfigError(f"{origin} has no heads: name at least one, with its labels.")
        names = [head.name for head in metadata.heads]
        if not all(name and name.isprintable() and len(name) <= 100 for name in (metadata.name, *names)):
            raise ConfigError(f"{origin}: the names of model and heads must be texts of 1 to 100 letters.")
        if len(set(names)) < len(names):
            raise ConfigError(f"{origin}: two heads have the same name.")
        for head in metadata.heads:
            if not head.labels or len(set(head.labels)) < len(head.labels):
                raise ConfigError(f"{origin}: the labels of head {head.name!r} must be there, each once.")
            check_range(f"the temperature of head {head.name!r}", head.temperature, 0.01, 100, origin)
            if head.priors and not (
                len(head.priors) == len(head.labels)
                and all(0 < prior < 1 for prior in head.priors)
                and abs(sum(head.priors) - 1) < 0.01
            ):
                raise ConfigError(
                    f"{origin}: the priors of head {head.name!r} must be one for each label, summing to 1."
                )
        if metadata.decision:
            metadata.decision.check(metadata.heads, origin)
        if metadata.doubt:
            metadata.doubt.check(metadata.decision.labels if metadata.decision else (), origin)
        if metadata.recurrent:
            metadata.recurrent.check(origin)
            if metadata.decision is None:
                raise ConfigError(f"{origin}: a recurrent head answers for a decision rule, and there is none.")
        if metadata.intensity:
            metadata.intensity.check(origin)
        check_range("preprocess.margin", metadata.preprocess.margin, 0, 2, origin)
        if len(metadata.preprocess.illumination) > MOST_STEPS:
            raise ConfigError(f"{origin}: preprocess.illumination must be at most {MOST_STEPS} steps.")
        for key, value in asdict(metadata.smoothing).items():
            if key != "aggregation" and not 0 <= value < math.inf:
                raise ConfigError(f"{origin}: smoothing.{key} must be 0 or more, not {value}.")
        return metadata

    def to_table(self) -> dict[str, Any]:
        """The metadata as plain values, for JSON and TOML; what is None is left out, and what all heads are."""
        table = {key: value for key, value in asdict(self).items() if value is not None}
        for head in table["heads"]:
            if head["classifier"] == "network":
                del head["classifier"]
        return table


def head_slices(heads: Sequence[Head]) -> dict[str, slice]:
    """Where the logits of each head stand in the output, by its name."""
    slices, start = {}, 0
    for head in heads:
        slices[head.name] = slice(start, start + len(head.labels))
        start += len(head.labels)
    return slices
