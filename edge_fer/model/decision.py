"""From logits to the answer: how the heads are combined, and what class mix the answer supposes.

A network that learned from data in which a third of the faces are neutral says "neutral" where it is in doubt. The
balanced rule takes the class priors of its data out again, by logit adjustment after training (Menon et al., arXiv
2007.07314, section 4.1), and pools the heads in the log domain (Genest & Zidek, Stat. Sci. 1, 1986, section 3).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_fer.core import Expression
from edge_fer.model.spec import Decision, Head


class Rule:
    """A decision rule as what it comes down to: a linear map of all logits, and a softmax.

    Args:
        labels: the expressions that it tells apart.
        matrix: float32 (logits of all heads, labels).
        bias: float32 (labels,).

    Attributes:
        labels: as given.
    """

    def __init__(self, labels: tuple[Expression, ...], matrix: NDArray[np.float32], bias: NDArray[np.float32]) -> None:
        self.labels = labels
        self._matrix = matrix
        self._bias = bias

    @classmethod
    def balanced(cls, decision: Decision, heads: Sequence[Head]) -> Rule:
        """The rule of a bundle."""
        blocks, bias = [], np.zeros(len(decision.labels))
        for head, weight in zip(heads, decision.weights, strict=True):
            share = weight / decision.temperature
            block = np.zeros((len(head.labels), len(decision.labels)))
            if share:
                places = [head.labels.index(label) for label in decision.labels]
                block[places, range(len(places))] = share / head.temperature
                bias -= share * decision.tau * np.log(np.array(head.priors)[places])
            blocks.append(block)
        return cls(decision.labels, np.concatenate(blocks).astype(np.float32), bias.astype(np.float32))

    @classmethod
    def as_trained(cls, heads: Sequence[Head]) -> Rule:
        """The first head with its temperature, and nothing else."""
        outputs, labels = sum(len(head.labels) for head in heads), heads[0].labels
        matrix = np.eye(outputs, len(labels), dtype=np.float32) / np.float32(heads[0].temperature)
        return cls(labels, matrix, np.zeros(len(labels), np.float32))

    def probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Of the rule's labels, float32 (..., labels), for logits of all heads, float32 (..., logits)."""
        return softmax(logits @ self._matrix + self._bias)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities over the last axis, float32, summing to 1."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: NDArray[np.float32] = shifted / shifted.sum(axis=-1, keepdims=True)
    return probabilities
