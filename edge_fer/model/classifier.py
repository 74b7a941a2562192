"""The expression network: logits, probabilities, and the self-test that guards them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_fer.config import DecisionKind
from edge_fer.core import Expression, Image, Prediction
from edge_fer.errors import BundleError
from edge_fer.model.bundle import Bundle
from edge_fer.model.decision import Rule, softmax
from edge_fer.model.heads import FeatureHead, check_golden, open_head
from edge_fer.model.litert import Tensor, probe_edgetpu
from edge_fer.model.opening import open_network
from edge_fer.model.spec import Head, head_slices
from edge_fer.temporal.recurrent import Recurrence, RecurrentHead

log = logging.getLogger(__name__)


class TfliteClassifier:
    """Runs the model of a bundle; implements ``core.Classifier``.

    Single frames are answered by the decision rule. The recurrent head of a bundle that has one answers for the frames
    of a face, where the rule is the bundle's own (``new_aggregate``).

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
        reads_embedding = bundle.metadata.reads_embedding
        try:
            self._network = open_network(bundle, threads, edgetpu=device == "edgetpu")
            (self._input,), (self._output, *self._embeddings) = self._network.inputs, self._network.outputs
        except ValueError:
            raise BundleError(f"{bundle} has several inputs, or no output; edge-fer takes one of each.") from None
        self._tensor_shape = self._checked_shape()
        if len(self._embeddings) != reads_embedding:
            raise BundleError(
                f"{bundle} gives {1 + len(self._embeddings)} outputs and its metadata has a use for "
                f"{1 + reads_embedding}: logits, and behind them an embedding where there is a recurrent head, "
                "intensity or a head on the embedding. Export it again."
            )
        for tensor in self._embeddings:
            self._check_embedding(tensor)
        self.size_hw = self._tensor_shape[1:3]
        bundle.selftest.check(self._network, str(bundle))
        self._parts = self._opened_heads()
        self._head = None
        if bundle.recurrent and bundle.metadata.recurrent:
            head = RecurrentHead(bundle.metadata.recurrent, bundle.recurrent)
            bundle.selftest.check_sequence(head, str(bundle))
            self._head = head if self.decision == "balanced" else None

    @property
    def heads(self) -> tuple[Head, ...]:
        """The heads of the model, in the order of the logits that ``logits`` gives."""
        return self.bundle.metadata.heads

    def classify(self, tensors: Sequence[Image]) -> list[Prediction]:
        """See ``core.Classifier``: uint8 (height, width, 1) each, as ``preprocess.Preprocessor`` gives them."""
        return [self.prediction(*self._seen(one)) for one in tensors]

    def prediction(self, logits: NDArray[np.float32], embedding: NDArray[np.float32] | None = None) -> Prediction:
        """What the decision rule makes of the logits of a face, float32 (n,)."""
        return Prediction(self._by_label(self._rule.probabilities(logits)), embedding)

    def logits(self, tensor: Image) -> NDArray[np.float32]:
        """Logits of all heads, float32 (n,), for one uint8 (height, width, 1)."""
        return self._run(tensor)[0]

    def new_aggregate(self) -> Callable[[Prediction, float], dict[Expression, float]] | None:
        """What the recurrent head makes of the frames of one face; None where the bundle's smoothing is to do it.

        Returns:
            A function with the state of a face that has shown nothing yet. It takes the prediction of a frame and the
            seconds since the last one, and gives the probabilities of the decision rule's labels.
        """
        if self._head is None:
            return None
        face = Recurrence(self._head)

        def aggregate(raw: Prediction, step_s: float) -> dict[Expression, float]:
            assert raw.embedding is not None, "of this classifier"
            return self._by_label(softmax(face.update(raw.embedding, step_s)))

        return aggregate

    def _by_label(self, probabilities: NDArray[np.float32]) -> dict[Expression, float]:
        return dict(zip(self._rule.labels, probabilities.tolist(), strict=True))

    def _seen(self, tensor: Image) -> list[NDArray[np.float32]]:
        """Logits, and the embedding where the bundle has a use for it, of a face or as the mean of its two sides."""
        if not self._tta:
            return self._run(tensor)
        sides = zip(self._run(tensor), self._run(tensor[:, ::-1]), strict=True)
        return [np.mean(pair, axis=0, dtype=np.float32) for pair in sides]

    def _run(self, tensor: NDArray[Any]) -> list[NDArray[np.float32]]:
        outputs = self._network.run(tensor.reshape(self._tensor_shape))
        logits, *embeddings = [
            one.real(raw[0]) for one, raw in zip((self._output, *self._embeddings), outputs, strict=True)
        ]
        for embedding in embeddings:  # one at most
            parts = [logits[one] if isinstance(one, slice) else one.logits(embedding) for one in self._parts]
            logits = np.concatenate(parts)
        return [logits, *embeddings]

    def _opened_heads(self) -> list[slice | FeatureHead]:
        """Where the logits of each head come from: a slice of the network's, or what makes them from the embedding."""
        slices = head_slices([head for head in self.heads if head.classifier == "network"])
        others = [head for head in self.heads if head.classifier != "network"]
        for tensor in self._embeddings if others else ():
            features, arrays = int(np.prod(tensor.shape)), self.bundle.arrays
            check_golden(others, arrays, tensor.real(self.bundle.selftest.outputs[:, -features:]))
            return [slices.get(head.name) or open_head(head, arrays, features) for head in self.heads]
        return list(slices.values())

    def _check_embedding(self, tensor: Tensor) -> None:
        """Raises BundleError where the head, or the intensity, was not made for the graph."""
        metadata = self.bundle.metadata
        spec, intensity = metadata.recurrent, metadata.intensity
        (numbers,) = tensor.shape[1:] if len(tensor.shape) == 2 else (0,)
        if spec and (spec.embedding, spec.scale, spec.zero_point) != (numbers, tensor.scale, tensor.zero_point):
            raise BundleError(
                f"{self.bundle} has a recurrent head for another network: it reads {spec.embedding} numbers in steps "
                f"of {spec.scale:.4g}, and the graph gives {numbers} in steps of {tensor.scale:.4g}. Export it again."
            )
        if intensity and len(intensity.weights) != numbers:
            raise BundleError(
                f"{self.bundle} tells the intensity from {len(intensity.weights)} numbers, and its graph gives "
                f"{numbers}. Export it again."
            )

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
