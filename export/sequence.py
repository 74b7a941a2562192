"""Make a sequence bundle: a bundle whose recurrent head answers for the frames of a face, in one file.

    python export/sequence.py nano --head runs/nano-gru -o nano-gru.tflite

``python -m training recurrent`` writes the run folder of the head. The bundle's graph stays as it is to the bit, but
for one more output: the embedding, which its last dense layer reads. The head's weights become int8, its answers are
compared with the float head's, and its part of the self-test is written. Exit codes: 0 written, 1 the int8 head does
not answer as the float one, 65 bad data or a head of another network, 66 no such file, 73 cannot write.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# So that `python export/sequence.py` finds the project's packages, as `python -m export.sequence` does.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from numpy.typing import NDArray

from edge_fer.core import Expression
from edge_fer.errors import DataError, EdgeFerError, InputMissingError, OutputError
from edge_fer.model.bundle import Bundle
from edge_fer.model.classifier import TfliteClassifier
from edge_fer.model.litert import Network
from edge_fer.model.selftest import SelfTest
from edge_fer.strict import from_table
from edge_fer.temporal.affect import IntensitySpec
from edge_fer.temporal.recurrent import RecurrentHead, RecurrentSpec, Weights, replay
from export.embedding import with_embedding

MODEL, DESCRIPTION, SEQUENCES = "head.keras", "head.json", "sequences.npz"
"""What a run folder holds."""
NORMALIZE, RECURRENT, LOGITS = "normalize", "recurrent", "logits"
"""The layers of a head: normalization of the embedding, GRU or LSTM, dense."""


@dataclass(frozen=True)
class Description:
    """``head.json``: what the Keras model beside it does not say.

    Attributes:
        recurrent: what goes into the metadata.
        labels: of its logits, in order.
        temperature: its logits are divided by it before softmax.
        intensity: what goes into the metadata; None for none.
        facts: what is said for people: data, folds, metrics.
    """

    recurrent: RecurrentSpec
    labels: tuple[Expression, ...]
    temperature: float = 1.0
    intensity: IntensitySpec | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", metavar="NAME", help="a model of the package, or a bundle's file")
    parser.add_argument("--head", type=Path, required=True, metavar="RUN", help="folder of the trained head")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.tflite")
    parser.add_argument(
        "--min-agreement", type=float, default=97.0, metavar="PERCENT", help="same answers as float demanded (97)"
    )
    parser.add_argument("--force", action="store_true", help="overwrite the output")
    args = parser.parse_args(arguments)
    try:
        if math.isnan(args.min_agreement):
            raise DataError("--min-agreement must be a number: nothing is above or below nan.")
        if args.output.exists() and not args.force:
            raise OutputError(f"{args.output} exists; --force overwrites it.")
        bundle, agreement = with_head(Bundle.load(args.bundle), args.head)
        print(f"int8 answers as float in {agreement:.2%} of the frames of {args.head / SEQUENCES}.")
        if not agreement >= args.min_agreement / 100:
            raise EdgeFerError(
                f"The int8 head is not good enough: {args.min_agreement:g} % are demanded. {args.output} is not "
                "written. Train the head anew, with another seed or number of units."
            )
        TfliteClassifier(bundle)  # as the device will
        bundle.write(args.output)
    except EdgeFerError as error:
        print(f"sequence: {error}", file=sys.stderr)
        return error.exit_code
    size = args.output.stat().st_size
    print(f"Wrote {args.output}: {size / 1000:.0f} kB. `edge-fer run --model {args.output}` runs it.")
    return 0


def with_head(bundle: Bundle, run: Path) -> tuple[Bundle, float]:
    """A bundle with a recurrent head in it.

    Args:
        bundle: of expressions, with a decision rule.
        run: the folder of the head.

    Returns:
        The sequence bundle, and the fraction of the frames of the run's sequences that int8 answers as float, 0-1.

    Raises:
        InputMissingError: a file of the run is not there.
        DataError: one cannot be read, or the head was trained for another network or other labels, or the bundle has
            one already.
    """
    if bundle.recurrent:
        raise DataError(f"{bundle} has a recurrent head: take the bundle that it was made from.")
    model, description, sequences = read_run(run)
    spec, rule = description.recurrent, bundle.metadata.decision
    if rule is None or rule.labels != description.labels:
        raise DataError(
            f"{run} answers with {', '.join(description.labels)}, and {bundle} has no decision rule with just these "
            "labels: train a head for it with `python -m training recurrent`."
        )
    graph = with_embedding(bundle.model)
    embedding = Network(graph).outputs[1]
    if (spec.embedding, spec.scale, spec.zero_point) != (embedding.shape[1], embedding.scale, embedding.zero_point):
        raise DataError(
            f"{run} was trained on the embeddings of another network than {bundle}: train a head for it with "
            "`python -m training recurrent`."
        )
    weights = weights_of(model, description.temperature)
    weights.check(spec, len(rule.labels), str(run))
    head = RecurrentHead(spec, weights)
    selftest = SelfTest.measured(graph, bundle.selftest.inputs)
    selftest = dataclasses.replace(selftest, sequence=selftest.replayed(head))
    metadata = dataclasses.replace(
        bundle.metadata,
        name=f"{bundle.metadata.name}-{spec.kind}{spec.units}",
        recurrent=spec,
        intensity=description.intensity,
        facts={**bundle.metadata.facts, "sequence": dict(description.facts)},
    )
    return Bundle.new(graph, metadata, selftest, weights, bundle.arrays), _agreement(head, model, sequences)


def read_run(run: Path) -> tuple[keras.Model, Description, NDArray[np.float32]]:
    """What a run folder holds: the Keras head, what is said of it, and embeddings to try it on.

    Returns:
        Model (batch, frames, embedding) -> (batch, frames, labels) logits, a step of the head each; its description;
        embeddings of n sequences in real units, float32 (n, frames, embedding).

    Raises:
        InputMissingError: a file is not there.
        DataError: one cannot be read, or is of another shape.
    """
    for name in (MODEL, DESCRIPTION, SEQUENCES):
        if not (run / name).is_file():
            raise InputMissingError(f"{run} has no {name}: `python -m training recurrent --run {run}` makes it.")
    try:
        description = from_table(Description, json.loads((run / DESCRIPTION).read_text(encoding="utf-8")), DESCRIPTION)
        model = keras.models.load_model(run / MODEL, compile=False)
        with np.load(run / SEQUENCES) as arrays:
            raw = arrays["embeddings"]
    except (ValueError, OSError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(f"{run} is no run of a recurrent head that can be read ({error}): train it again.") from None
    spec = description.recurrent
    spec.check(str(run / DESCRIPTION))
    there = {layer.name for layer in model.layers}
    if not {NORMALIZE, RECURRENT, LOGITS} <= there or raw.ndim != 3 or raw.shape[2] != spec.embedding or not len(raw):
        raise DataError(f"{run} is no run of a recurrent head: its files do not fit each other. Train it again.")
    return model, description, (raw.astype(np.float32) - spec.zero_point) * np.float32(spec.scale)


def weights_of(model: keras.Model, temperature: float = 1.0) -> Weights:
    """The int8 weights of a Keras head, in which normalization and temperature are folded.

    Args:
        model: see ``read_run``.
        temperature: its logits are divided by it.
    """
    normalize, recurrent, logits = (model.get_layer(name) for name in (NORMALIZE, RECURRENT, LOGITS))
    mean, sigma = np.ravel(normalize.mean), np.sqrt(np.ravel(normalize.variance))
    kernel, state, bias = (np.asarray(one) for one in recurrent.get_weights())
    bias = bias if bias.ndim == 2 else np.stack([bias, np.zeros_like(bias)])  # an LSTM has one
    inputs = kernel / np.maximum(sigma, keras.config.epsilon())[:, np.newaxis]
    bias = np.stack([bias[0] - mean @ inputs, bias[1]]).astype(np.float32)
    output, output_bias = (np.asarray(one) / temperature for one in logits.get_weights())
    return Weights(*_int8(inputs), *_int8(state), bias, *_int8(output), output_bias.astype(np.float32))


def _int8(matrix: NDArray[Any]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """A matrix in int8, symmetric with a scale for each column (Jacob et al., arXiv 1712.05877, section 2.1)."""
    scale = np.maximum(np.abs(matrix).max(axis=0), 1e-12).astype(np.float32) / np.float32(127)
    return np.round(matrix / scale).astype(np.int8), scale


def _agreement(head: RecurrentHead, model: keras.Model, sequences: NDArray[np.float32]) -> float:
    """Fraction of the frames whose most probable label is the same in int8 and float; the first frames count too."""
    spec = head.spec
    settled = round(spec.memory_s / spec.step_s)
    held = np.concatenate([np.repeat(sequences[:, :1], settled - 1, axis=1), sequences], axis=1)
    theirs = np.asarray(model(held))[:, settled - 1 :].argmax(axis=2)
    ours = np.stack([replay(head, sequence, spec.step_s).argmax(axis=1) for sequence in sequences])
    return float((ours == theirs).mean())


if __name__ == "__main__":
    sys.exit(main())
