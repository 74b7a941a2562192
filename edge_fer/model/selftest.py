"""The self-test of a bundle: inputs, and the outputs that a device must give for them.

The golden outputs come from LiteRT's reference kernels, which give the same bits on every processor. The optimized
kernels of a device round in ways of their own (docs/runtimes.md), so they may differ by a tolerance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_fer.errors import BundleError
from edge_fer.model.litert import Network, load_runtime
from edge_fer.temporal.recurrent import RecurrentHead, replay

TOLERANCE_LSB = 2.0
"""By how many LSB of the quantized outputs a device may differ on average. Optimized kernels round otherwise than the
reference: in a network of ten layers by 0.8 on average, by up to 8 in one output in thousands. Images mirrored or
shifted by one pixel differ by 6. Deep networks differ by more, and their bundles say by how much."""
SEQUENCE_STEP_S = 0.05
"""From face to face where they are taken as a sequence: one and a half steps of a recurrent head."""
SEQUENCE_TOLERANCE = 0.01
"""By how much a logit of a recurrent head may differ: processors sum up float32 in orders of their own."""


@dataclass(frozen=True)
class SelfTest:
    """What a bundle is tested with when it is loaded.

    Attributes:
        inputs: uint8 or int8 (n, height, width, channels).
        outputs: int8, uint8 or float32 (n, values), by the reference kernels of the exporter; where a graph has several
            outputs, one behind the other.
        tolerance_lsb: by how many LSB a device may differ from them on average.
        sequence: float32 (n, labels), logits of the bundle's recurrent head after each of the outputs' embeddings,
            taken as a sequence; None where it has none.
    """

    inputs: NDArray[Any]
    outputs: NDArray[Any]
    tolerance_lsb: float = TOLERANCE_LSB
    sequence: NDArray[Any] | None = None

    @classmethod
    def measured(cls, model: bytes, inputs: NDArray[Any]) -> SelfTest:
        """A self-test for a model; its tolerance is twice what the optimized kernels of this machine differ by.

        Args:
            model: the FlatBuffer.
            inputs: (n, height, width, channels) in the model's own type.

        Raises:
            UnavailableError: no runtime is installed.
            BundleError: the runtime cannot load the model.
        """
        outputs, _ = golden_outputs(model, inputs)
        difference = np.abs(Network(model).run_each(inputs).astype(np.float64) - outputs).mean()
        return cls(inputs, outputs, max(TOLERANCE_LSB, float(np.ceil(2 * difference))))

    def check(self, network: Network, name: str) -> None:
        """Replay it on this device.

        Args:
            network: with the model.
            name: of the bundle, for messages.

        Raises:
            BundleError: the outputs are too far off, or of another shape.
        """
        (source,) = network.inputs
        if self.inputs.shape[1:] != source.shape[1:] or self.inputs.dtype != source.dtype:
            raise BundleError(f"{name} has a self-test of another shape than its model. Export it again.")
        outputs = network.run_each(self.inputs).astype(np.float64)
        if outputs.shape != self.outputs.shape:
            raise BundleError(f"{name} has a self-test of another shape than its model. Export it again.")
        difference = float(np.abs(outputs - self.outputs).mean())
        if not difference <= self.tolerance_lsb:
            raise BundleError(
                f"{name} fails its self-test on this device: its outputs are {difference:.1f} LSB off, "
                f"{self.tolerance_lsb:.0f} are allowed. Export it again, or use another version of the runtime."
            )

    def replayed(self, head: RecurrentHead) -> NDArray[np.float32]:
        """Logits, float32 (n, labels), of a recurrent head for the golden embeddings, taken as a sequence."""
        spec = head.spec
        raw = self.outputs[:, -spec.embedding :].astype(np.float32)
        return replay(head, (raw - spec.zero_point) * np.float32(spec.scale), SEQUENCE_STEP_S)

    def check_sequence(self, head: RecurrentHead, name: str) -> None:
        """Replay the golden embeddings through the recurrent head of the same bundle.

        Args:
            head: in real units.
            name: of the bundle, for messages.

        Raises:
            BundleError: it gives other logits than at the export.
        """
        logits = self.replayed(head)
        if self.sequence is None or self.sequence.shape != logits.shape:
            raise BundleError(f"{name} has no self-test of its recurrent head. Export it again.")
        difference = float(np.abs(logits - self.sequence).max())
        if not difference <= SEQUENCE_TOLERANCE:
            raise BundleError(
                f"{name} fails its self-test: a logit of its recurrent head is {difference:.2g} off. Export it again."
            )

    def check_golden(self, model: bytes, name: str) -> int:
        """Replay it with the reference kernels, which must give the exporter's outputs.

        Args:
            model: the FlatBuffer.
            name: of the bundle, for messages.

        Returns:
            By how many LSB they might have differed: 0 is to the bit; see ``golden_outputs``.

        Raises:
            BundleError: they do not.
            UnavailableError: no runtime is installed.
        """
        outputs, most_lsb = golden_outputs(model, self.inputs)
        different = int((np.abs(outputs.astype(np.float64) - self.outputs) > most_lsb).sum())
        if different:
            raise BundleError(
                f"{name}: {different} of {outputs.size} golden outputs differ on this machine with reference "
                "kernels. Export it again, or use another version of the runtime."
            )
        return most_lsb


def golden_outputs(model: bytes, inputs: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Raw outputs (n, values) of the reference kernels, and by how many LSB those of another machine may differ.

    LiteRT's reference kernels give the same bits on every processor, those of tflite-runtime 2.14 round a dense layer
    otherwise. Where an operator, such as ELU, has no reference kernel, the builtin ones serve.

    Args:
        model: the FlatBuffer.
        inputs: (n, height, width, channels) in the model's own type.

    Raises:
        UnavailableError: no runtime is installed.
        BundleError: the runtime cannot load the model.
    """
    try:
        network = Network(model, kernels="reference")
        most_lsb = int(load_runtime().__name__.startswith("tflite_runtime"))
    except BundleError:
        network, most_lsb = Network(model, kernels="builtin"), 4
    return network.run_each(inputs), most_lsb
