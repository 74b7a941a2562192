"""Last step: the int8 model becomes a bundle, and is written if it passed the gate."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from datasets import Dataset
from edge_fer.core import FaceBox
from edge_fer.errors import DataError, EdgeFerError
from edge_fer.files import write_atomically
from edge_fer.model.bundle import Bundle
from edge_fer.model.classifier import TfliteClassifier
from edge_fer.model.selftest import SelfTest
from edge_fer.preprocess import Preprocessor
from edge_fer.preprocess.face_tensor import face_tensor
from edge_fer.sources.demo import average_faces
from evaluation import fit
from evaluation.decision import MAX_LOSS
from export import microcontroller, report
from export.flatbuffer import as_input, run_flatbuffer
from export.layers import noise_table
from export.result import Export
from export.saved_model import frozen

SELFTEST_FACES = 4


def bundle(export: Export) -> Export:
    """Put metadata and self-test around the int8 model."""
    model = export.flatbuffers["int8"]
    inputs = as_input(
        _selftest_faces(export.model.input_shape[1:3]), np.int8 if export.options.io == "int8" else np.uint8
    )
    metadata = dataclasses.replace(export.metadata, facts={**export.metadata.facts, **_facts(export)})
    made = Bundle.new(model, metadata, SelfTest.measured(model, inputs))
    if not export.reasons:
        made = _with_decision(made, export.data)
    return dataclasses.replace(export, metadata=made.metadata, bundle=made)


def _with_decision(made: Bundle, data: Dataset) -> Bundle:
    """The bundle with a decision rule and its doubt; as it is where the faces are too few to fit them."""
    console, heads = Console(), made.metadata.heads
    size_hw: tuple[int, int] = made.selftest.inputs.shape[1:3]

    def classify(tensors: NDArray[np.uint8], title: str) -> NDArray[np.float32]:
        return run_flatbuffer(made.model, tensors, Console(stderr=True), title)

    found = fit.fit(heads, Preprocessor(made.metadata.preprocess, size_hw), data, classify, MAX_LOSS)
    if found is None:
        console.print("Too few faces to fit a decision rule: the bundle answers as it was trained.", highlight=False)
        return made
    for line in fit.lines(found, heads[0]):
        console.print(line, highlight=False)
    return fit.fitted(made, heads, found)


def write(export: Export) -> None:
    """Write the report where one is wanted, and all else if the gate is passed.

    Raises:
        EdgeFerError: it is not passed, the bundle does not run, or a file cannot be written.
    """
    options, console = export.options, Console()
    assert export.bundle is not None, "bundle() comes first"
    if options.report:
        content = report.content(export)
        write_atomically(options.report.with_suffix(".json"), json.dumps(content, indent=1).encode())
        write_atomically(options.report, report.page(content, export.data).encode())
        console.print(f"Wrote {options.report}", highlight=False)
    if export.reasons:
        console.print(noise_table(export.layers))
        kept = "stays as it was" if options.output.exists() else "is not written"
        raise EdgeFerError(
            f"The int8 model is not good enough: {'; '.join(export.reasons)}. {options.output} {kept}. "
            + (f"Tried: {'; '.join(one.words for one in export.tried)}. " if len(export.tried) > 1 else "")
            + "The table above shows which layers lose most; docs/quantization.md shows what helps."
        )
    if options.io == "uint8":
        TfliteClassifier(export.bundle)  # as the device will: shapes, labels and self-test
    for variant in options.also:
        write_atomically(options.path_of(variant), export.flatbuffers[variant])
    written = export.bundle.write(options.output)
    console.print(f"Wrote {options.output}: {options.output.stat().st_size / 1000:.0f} kB", highlight=False)
    if options.c_array:
        microcontroller.write_sources(written, options.c_array, force=True)


def _selftest_faces(size_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """Faces of nobody, uint8 (n, height, width, 1): a bundle must not carry people from the data it was made with.

    They get noise: a good network hardly notices when a smooth face is a pixel off, and the self-test has to. Eight
    gray levels, because these are smaller in the bundle.
    """
    faces = average_faces()[:SELFTEST_FACES]
    tensors = np.stack([face_tensor(face, FaceBox(0, 0, *face.shape[::-1]), size_hw, margin=0.0) for face in faces])
    noise = np.random.default_rng(0).normal(0, 25, tensors.shape)
    return (np.clip(tensors + noise, 0, 255) // 32 * 32).astype(np.uint8)


def _facts(export: Export) -> dict[str, Any]:
    """What the metadata says for people."""
    options = export.options
    public_test = {
        name: {key: value for key, value in row.items() if key != "confusion"}
        | {"accuracy_float": export.metrics["Keras"][name]["accuracy"]}
        for name, row in export.metrics["int8"].items()
    }
    for row in export.comparisons:
        if row.variant == "int8":
            public_test[row.head] |= {"agreement": row.agreement, "ece": row.ece}
    return {
        "public_test": public_test,
        "quantization": {
            "calibration": len(export.calibration),
            "weights": "per tensor" if options.per_tensor else "per channel",
            "equalized": export.equalized,
            "bias_corrected": export.bias_corrected,
        },
        "training": training_facts(options.model),
        "parameters": graph.parameters if (graph := frozen(export.model)) else int(export.model.count_params()),
    }


def training_facts(model: Path) -> dict[str, Any]:
    """What ``run.json`` beside a model says of its training, for people; {} where there is none.

    Raises:
        DataError: it is no JSON object.
    """
    path = model.with_name("run.json")
    if not path.is_file():
        return {}
    try:
        facts = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict):
        raise DataError(f"{path} is not what a training writes: move it away, or train again.")
    kept = ("recipe", "seed", "alpha", "samples", "data_sha256", "subjects", "versions", "lineage")
    return {key: facts[key] for key in kept if key in facts}
