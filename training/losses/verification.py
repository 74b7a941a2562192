"""Verification of given pairs: what is alike is pulled together, what is not is pushed apart.

The verification signal of the multi-signal CNN (MSCNN: Zhang et al., "Facial Expression Recognition Based on Deep
Evolutional Spatial-Temporal Networks", IEEE TIP 2017). ``contrastive`` is the same on all pairs of a batch; here pairs
are inputs, as in the paper, and who draws them decides what is compared. Hadsell, Chopra and LeCun, CVPR 2006, eq. 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keras import ops

from training.losses.pairs import unit


@dataclass(frozen=True)
class Verification:
    """y d^2 / 2 + (1 - y) max(0, margin - d)^2 / 2 of each pair; d is the distance of embeddings of length 1, 0 to 2.

    y is the target "alike", (n, 1): 1 for a pair that is alike, 0 for one that is not. The outputs are
    "first_embedding" and "second_embedding", (n, d).

    Attributes:
        weight: of this task.
        margin: beyond which what is not alike does not push.
    """

    weight: float = 1.0
    margin: float = 1.0

    def __call__(self, targets: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
        alike = targets["alike"][:, 0]
        difference = unit(outputs["first_embedding"]) - unit(outputs["second_embedding"])
        squared = ops.sum(difference**2, axis=1)
        # The gradient of a square root has no bound at 0.
        distance = ops.sqrt(squared + 1e-12)
        push = ops.maximum(0.0, self.margin - distance) ** 2
        return self.weight * (alike * squared + (1 - alike) * push) / 2
