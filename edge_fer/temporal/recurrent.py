"""A recurrent head: what a face shows, from the embeddings of its frames in their order.

A gated recurrent unit (GRU: Cho et al., EMNLP 2014, with the reset gate behind the product, as in cuDNN and Keras) or a
long short-term memory (LSTM: Hochreiter & Schmidhuber, Neural Comput. 9, 1997, with the forget gate of Gers et al.,
2000), and a dense layer on its state. It takes the place of frame aggregation in bundles that have one.

A recurrent network counts frames, a camera does not deliver them evenly. Here a step stands for ``step_s`` of stream
time. A frame's embedding is held for the time since the frame before, in steps of at most that length; of a shorter
step the forgetting gate z, the fraction of the state that a whole step keeps, counts as z ** (part of the step), which
is the exact solution of the linear equation that the state follows while its gates stand still. Frames that hold
the same face give the same state at 5, 15 and 30 frames a second; above the network's own rate nearly so.

Weights are int8 with a scale for each column; states and gates are float32, for a small part of a step changes a state
by less than one of 256 levels, and rounding would hold it where it is.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge_fer.errors import ConfigError
from edge_fer.strict import check_range

Kind: TypeAlias = Literal["gru", "lstm"]
Floats: TypeAlias = NDArray[np.float32]

GATES = {"gru": 3, "lstm": 4}
"""Columns of the weights for each unit: update, reset and candidate; input, forget, candidate and output."""
MOST_UNITS, MOST_EMBEDDING, MOST_STEPS = 128, 2048, 300
"""What a frame may cost at most."""
LEAST = 1e-3
"""Of a step: times are rounded, and 0.0667 s are two steps of 1/30 s, not three."""


@dataclass(frozen=True)
class RecurrentSpec:
    """A part of a model's metadata: what the weights of its recurrent head are for.

    Attributes:
        kind: "gru" or "lstm".
        units: numbers of its state (of an LSTM twice as many).
        embedding: numbers of an embedding, which the graph gives behind its logits.
        scale: of the graph's embedding when the head was made: another graph would give it numbers it does not know.
        zero_point: likewise.
        step_s: stream time of a step.
        memory_s: a face starts as if its first frame had been held for so long, and starts anew after a longer gap.
    """

    kind: Kind
    units: int
    embedding: int
    scale: float
    zero_point: int
    step_s: float = 1 / 30
    memory_s: float = 1.0

    def check(self, origin: str) -> None:
        """See whether it can be used.

        Args:
            origin: file name for messages.

        Raises:
            ConfigError: a value is out of its range.
        """
        for name, least, most in (
            ("units", 1, MOST_UNITS),
            ("embedding", 1, MOST_EMBEDDING),
            ("scale", 1e-9, 1e9),
            ("zero_point", -128, 255),
            ("step_s", 0.001, 1),
            ("memory_s", self.step_s, MOST_STEPS * self.step_s),
        ):
            check_range(f"recurrent.{name}", getattr(self, name), least, most, origin)


@dataclass(frozen=True, eq=False)
class Weights:
    """Of a recurrent head, as the bundle holds them; c = gates * units columns, n labels.

    A column of int8 weights times its scale is in real units.

    Attributes:
        inputs: int8 (embedding, c), for an embedding in real units.
        inputs_scale: float32 (c,).
        state: int8 (units, c).
        state_scale: float32 (c,).
        bias: float32 (2, c), of the products with the embedding and with the state.
        output: int8 (units, n).
        output_scale: float32 (n,).
        output_bias: float32 (n,).
    """

    inputs: NDArray[np.int8]
    inputs_scale: Floats
    state: NDArray[np.int8]
    state_scale: Floats
    bias: Floats
    output: NDArray[np.int8]
    output_scale: Floats
    output_bias: Floats

    def arrays(self) -> dict[str, NDArray[Any]]:
        """By name, as the bundle's archive has them."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def check(self, spec: RecurrentSpec, labels: int, origin: str) -> None:
        """See whether they are what the metadata says.

        Args:
            spec: of the same bundle.
            labels: of its decision rule.
            origin: file name for messages.

        Raises:
            ConfigError: they are not.
        """
        columns = GATES[spec.kind] * spec.units
        expected = {
            "inputs": (spec.embedding, columns),
            "inputs_scale": (columns,),
            "state": (spec.units, columns),
            "state_scale": (columns,),
            "bias": (2, columns),
            "output": (spec.units, labels),
            "output_scale": (labels,),
            "output_bias": (labels,),
        }
        for name, shape in expected.items():
            array = getattr(self, name)
            dtype = np.int8 if name in ("inputs", "state", "output") else np.float32
            if array.shape != shape or array.dtype != dtype or not np.isfinite(array).all():
                raise ConfigError(
                    f"{origin}: the recurrent head does not fit its metadata: {name} is {array.dtype.name} "
                    f"{array.shape}, not {np.dtype(dtype).name} {shape}, or not all of it are numbers."
                )


class RecurrentHead:
    """The head of a bundle in real units; what single faces need is in ``Recurrence``.

    Args:
        spec: of the bundle's metadata.
        weights: of the bundle, checked.
    """

    def __init__(self, spec: RecurrentSpec, weights: Weights) -> None:
        self.spec = spec
        self._inputs = weights.inputs * weights.inputs_scale
        self._state = weights.state * weights.state_scale
        self._bias = weights.bias
        self._output = weights.output * weights.output_scale
        self._output_bias = weights.output_bias

    def started(self) -> Floats:
        """The state before all frames, float32 (units,), of an LSTM (2, units): output and cell."""
        units = self.spec.units
        return np.zeros(units if self.spec.kind == "gru" else (2, units), np.float32)

    def advanced(self, state: Floats, embedding: Floats, elapsed_s: float) -> Floats:
        """The state after an embedding was held for some time.

        Args:
            state: before; it is not changed.
            embedding: float32 (embedding,) in real units.
            elapsed_s: 0 or more, in seconds of stream time.
        """
        whole = elapsed_s / self.spec.step_s
        steps = math.ceil(whole - LEAST)
        if steps < 1:  # less than a thousandth of a step is rounding, or time that does not advance
            return state
        from_embedding = embedding @ self._inputs + self._bias[0]
        step = self._gru if self.spec.kind == "gru" else self._lstm
        for _ in range(steps):
            state = step(state, from_embedding, whole / steps)
        return state

    def logits(self, state: Floats) -> Floats:
        """Of the labels of the decision rule, float32 (labels,)."""
        output = state if self.spec.kind == "gru" else state[0]
        logits: Floats = output @ self._output + self._output_bias
        return logits

    def _gru(self, state: Floats, from_embedding: Floats, part: float) -> Floats:
        units = self.spec.units
        from_state = state @ self._state + self._bias[1]
        gates = _sigmoid(from_embedding[: 2 * units] + from_state[: 2 * units])
        candidate = np.tanh(from_embedding[2 * units :] + gates[units:] * from_state[2 * units :])
        kept = gates[:units] ** np.float32(part)
        new: Floats = candidate + kept * (state - candidate)
        return new

    def _lstm(self, state: Floats, from_embedding: Floats, part: float) -> Floats:
        units, (output, cell) = self.spec.units, state
        gates = from_embedding + output @ self._state + self._bias[1]
        taken, forget = _sigmoid(gates[: 2 * units]).reshape(2, units)
        kept = forget ** np.float32(part)
        # What a whole step adds, i * g, adds up over a part of it while it is forgotten.
        lasting = np.divide(1 - kept, 1 - forget, out=np.full(units, part, np.float32), where=forget < 1)
        cell = kept * cell + lasting * taken * np.tanh(gates[2 * units : 3 * units])
        return np.stack([_sigmoid(gates[3 * units :]) * np.tanh(cell), cell])


class Recurrence:
    """The state of one face, from frame to frame.

    Args:
        head: of the bundle.
    """

    def __init__(self, head: RecurrentHead) -> None:
        self._head = head
        self._state: Floats | None = None

    def update(self, embedding: Floats, step_s: float) -> Floats:
        """Logits after a frame, float32 (labels,).

        Args:
            embedding: of the frame, float32 (embedding,) in real units.
            step_s: since the last frame, 0 or more, in seconds of stream time; 0 changes nothing but a first frame.
        """
        memory_s = self._head.spec.memory_s
        if self._state is None or step_s >= memory_s:
            self._state, step_s = self._head.started(), memory_s
        self._state = self._head.advanced(self._state, embedding, step_s)
        return self._head.logits(self._state)


def replay(head: RecurrentHead, embeddings: Floats, step_s: float) -> Floats:
    """Logits after each frame of a sequence, float32 (frames, labels).

    Args:
        head: of the bundle.
        embeddings: float32 (frames, embedding) in real units.
        step_s: from frame to frame.
    """
    face = Recurrence(head)
    return np.stack([face.update(embedding, step_s) for embedding in embeddings])


def _sigmoid(values: Floats) -> Floats:
    halved: Floats = np.tanh(values / np.float32(2)) / np.float32(2) + np.float32(0.5)  # does not overflow
    return halved
