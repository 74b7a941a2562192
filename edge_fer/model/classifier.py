"""The expression network: logits, probabilities, and the self-test that guards them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_fer.config import DecisionKind
from edge_fer.core import Image, Prediction
from edge_fer.errors import BundleError
from edge_fer.model.bundle import Bundle
from edge_fer.model.decision import Rule
from edge_fer.model.heads import FeatureHead, check_golden, open_head
from edge_fer.model.litert import probe_edgetpu
from edge_fer.model.opening import open_network
from edge_fer.model.spec import Head, head_slices

log = logging.getLogger(__name__)


class TfliteClassifier:
    """Runs the model of a bundle; implements ``core.Classifier``.

    Args:
        bundle: the model with its metadata.
        threads: CPU threads of the interpreter.
        device: "cpu", or "edgetpu" for a Coral. Without a working Edge TPU the CPU does the work, and the log says so.
        decision: "balanced" for the bundle's own rule, or "as-trained" for its first head. A bundle that has no rule is
            used as trained, and the log says so.
        tta: test-time augmentation: the logits of a face and of its mirror image are averaged, at twice the cost.

    Attributes:
        bundle: as given.
        decision: the rule that really answers.
        size_hw: height and width of the tensors that the model takes.
        device: what really does the work.

    Raises:
        BundleError: the model cannot be loaded, does not fit its metadata, or fails its self-test.
        UnavailableError: no runtime is installed, or the model needs an Edge TPU and there is none.
    """

    def __init__(
        self,
        bundle: Bundle,
        threads: int = 1,
        device: str = "cpu",
        decision: DecisionKind = "balanced",
        *,
        tta: bool = False,
    ) -> None:
        self.bundle = bundle
        self._tta = tta
        rule = bundle.metadata.decision
        if rule is None and decision == "balanced":
            decision = "as-trained"
            log.warning(
                "%s has no class priors: it answers as it was trained. `python -m evaluation fit` gives it a rule.",
                bundle,
            )
        self.decision: DecisionKind = decision
        self._rule = Rule.as_trained(self.heads)
        if rule and decision == "balanced":
            self._rule = Rule.balanced(rule, self.heads)
        if device == "edgetpu" and (problem := probe_edgetpu()) is not None:
            device = "cpu"
            log.warning("The Edge TPU cannot be used (%s). The CPU does the work instead.", problem)
        self.device = device
        self._network = open_network(bundle, threads, edgetpu=device == "edgetpu")
        inputs, outputs = self._network.inputs, self._network.outputs
        if len(inputs) != 1 or len(outputs) not in (1, 2):
            raise BundleError(
                f"{bundle} has several inputs or outputs; edge-fer takes one input, logits and perhaps an embedding."
            )
        self._input, self._output = inputs[0], outputs[0]
        self._embedding = outputs[1] if len(outputs) == 2 else None
        self._tensor_shape = self._checked_shape()
        self.size_hw = self._tensor_shape[1:3]
        bundle.selftest.check(self._network, str(bundle))
        self._parts = self._opened_heads()

    @property
    def heads(self) -> tuple[Head, ...]:
        """The heads of the model, in the order of the logits that ``logits`` gives."""
        return self.bundle.metadata.heads

    def classify(self, tensors: Sequence[Image]) -> list[Prediction]:
        """See ``core.Classifier``: uint8 (height, width, 1) each, as ``preprocess.Preprocessor`` gives them."""
        if self._tta:
            pairs = [np.stack([self.logits(one), self.logits(one[:, ::-1])]) for one in tensors]
            return [self.prediction(pair.mean(axis=0, dtype=np.float32)) for pair in pairs]
        return [self.prediction(self.logits(one)) for one in tensors]

    def prediction(self, logits: NDArray[np.float32]) -> Prediction:
        """What the decision rule makes of the logits of a face, float32 (n,)."""
        return Prediction(dict(zip(self._rule.labels, self._rule.probabilities(logits).tolist(), strict=True)))

    def logits(self, tensor: Image) -> NDArray[np.float32]:
        """Logits of all heads, float32 (n,), for one uint8 (height, width, 1)."""
        raw, *further = self._raw(tensor)
        logits = self._output.real(raw)
        if self._embedding is None:
            return logits
        embedding = self._embedding.real(further[0])
        return np.concatenate([logits[one] if isinstance(one, slice) else one.logits(embedding) for one in self._parts])

    def _raw(self, tensor: Image) -> list[NDArray[Any]]:
        """Logits, and the embedding where the graph gives it, in the graph's own numbers: (n,) each."""
        return [output[0] for output in self._network.run(tensor.reshape(self._tensor_shape))]

    def _opened_heads(self) -> list[slice | FeatureHead]:
        """Where the logits of each head come from: a slice of the network's, or what makes them from the embedding."""
        slices = head_slices([head for head in self.heads if head.classifier == "network"])
        others = [head for head in self.heads if head.classifier != "network"]
        if not others:
            return list(slices.values())
        if self._embedding is None or len(self._embedding.shape) != 2:
            raise BundleError(f"{self.bundle} has no embedding for its head {others[0].name!r}. Export it again.")
        features, arrays = self._embedding.shape[1], self.bundle.arrays
        check_golden(others, arrays, self._embedding.real(self.bundle.selftest.outputs[:, -features:]))
        return [slices.get(head.name) or open_head(head, arrays, features) for head in self.heads]

    def _checked_shape(self) -> tuple[int, int, int, int]:
        shape = self._input.shape
        if len(shape) != 4 or shape[0] != 1 or shape[3] != 1 or self._input.dtype != np.uint8:
            kind = np.dtype(self._input.dtype).name
            raise BundleError(f"{self.bundle} takes {kind} {shape}; edge-fer feeds uint8 (1, height, width, 1).")
        labels = sum(len(head.labels) for head in self.heads if head.classifier == "network")
        outputs = int(np.prod(self._output.shape))
        if labels != outputs:
            raise BundleError(
                f"{self.bundle} has {outputs} outputs and {labels} labels in its metadata. Export it again."
            )
        return shape
