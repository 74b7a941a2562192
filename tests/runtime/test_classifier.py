"""The network on the device: right numbers, and every wrong model refused in one sentence."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import pytest

from edge_fer.errors import BundleError, UnavailableError
from edge_fer.model import litert
from edge_fer.model.bundle import DEFAULT_MODEL, load_bundle
from edge_fer.model.classifier import TfliteClassifier
from edge_fer.model.decision import softmax
from edge_fer.model.litert import load_runtime


def test_softmax_of_known_logits() -> None:
    probabilities = softmax(np.log(np.array([1, 2, 5], np.float32)))
    assert probabilities == pytest.approx([0.125, 0.25, 0.625])
    assert softmax(np.array([1000, 1000], np.float32)) == pytest.approx([0.5, 0.5])


def test_optimized_kernels_agree_with_the_self_test() -> None:
    bundle = load_bundle(DEFAULT_MODEL)
    classifier = TfliteClassifier(bundle)
    outputs = classifier._network.run_each(bundle.selftest.inputs).astype(int)
    difference = np.abs(outputs - bundle.selftest.outputs)
    assert difference.mean() <= 1
    assert difference.max() <= 8


@pytest.mark.parametrize("shift", [1, -1, 2, -2, 3, -3])
def test_the_self_test_notices_pixels_that_moved(bundle_with: Callable[..., Path], shift: int) -> None:
    path = bundle_with(inputs=lambda inputs: np.roll(inputs, shift, axis=2))
    with pytest.raises(BundleError, match="fails its self-test"):
        TfliteClassifier(load_bundle(path))


def test_the_shipped_model_takes_raw_pixels() -> None:
    classifier = TfliteClassifier(load_bundle(DEFAULT_MODEL))
    assert classifier.size_hw == (48, 48)
    assert classifier._input.dtype == np.uint8
    assert (classifier._input.scale, classifier._input.zero_point) == (1.0, 0)


@pytest.mark.parametrize("decision", ["balanced", "as-trained"])
def test_classify_answers_by_the_rule_with_its_temperature(
    bundle_with: Callable[..., Path], decision: Literal["balanced", "as-trained"]
) -> None:
    def hotter(table: dict[str, Any]) -> None:
        table["heads"][0]["temperature"] = table["decision"]["temperature"] = 100
        table["decision"]["tau"] = 0

    bundle = load_bundle(DEFAULT_MODEL)
    assert bundle.metadata.decision
    labels = bundle.metadata.decision.labels if decision == "balanced" else bundle.metadata.heads[0].labels
    tensor = bundle.selftest.inputs[0]
    (prediction,) = TfliteClassifier(bundle, decision=decision).classify([tensor])
    assert list(prediction.probabilities) == list(labels)
    assert sum(prediction.probabilities.values()) == pytest.approx(1, abs=1e-5)
    (vague,) = TfliteClassifier(load_bundle(bundle_with(metadata=hotter)), decision=decision).classify([tensor])
    assert vague.expression == prediction.expression
    assert vague.confidence < 0.2 < prediction.confidence


def without_rule(table: dict[str, Any]) -> None:
    """As the bundles of earlier versions are."""
    del table["decision"], table["doubt"]
    for head in table["heads"]:
        del head["priors"]


def test_a_bundle_without_priors_is_used_as_trained_and_says_so_once(
    bundle_with: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    older = load_bundle(bundle_with(metadata=without_rule))
    classifier = TfliteClassifier(older)
    tensors = list(older.selftest.inputs)
    answers = classifier.classify(tensors)
    assert classifier.decision == "as-trained"
    assert len(caplog.messages) == 1 and "no class priors" in caplog.messages[0]
    caplog.clear()
    asked = TfliteClassifier(load_bundle(DEFAULT_MODEL), decision="as-trained")
    assert [one.probabilities for one in asked.classify(tensors)] == [one.probabilities for one in answers]
    assert TfliteClassifier(older, decision="as-trained").decision == "as-trained"
    assert caplog.messages == []


def test_tta_gives_a_face_and_its_mirror_image_one_answer() -> None:
    bundle = load_bundle("nano")
    twice, once = TfliteClassifier(bundle, tta=True), TfliteClassifier(bundle)
    tensor = bundle.selftest.inputs[0]
    face, mirrored = twice.classify([tensor, np.ascontiguousarray(tensor[:, ::-1])])
    assert face.probabilities == pytest.approx(mirrored.probabilities, abs=1e-6)
    mean = (once.logits(tensor) + once.logits(tensor[:, ::-1])) / 2
    assert face.probabilities == pytest.approx(once.prediction(mean).probabilities, abs=1e-6)


def test_a_failing_self_test_is_refused(bundle_with: Callable[..., Path]) -> None:
    path = bundle_with(outputs=lambda outputs: outputs[:, ::-1])
    with pytest.raises(BundleError, match="fails its self-test"):
        TfliteClassifier(load_bundle(path))


def test_a_self_test_of_another_shape_is_refused(bundle_with: Callable[..., Path]) -> None:
    path = bundle_with(inputs=lambda inputs: inputs[:, :32])
    with pytest.raises(BundleError, match="another shape"):
        TfliteClassifier(load_bundle(path))


def test_labels_must_match_the_outputs(bundle_with: Callable[..., Path]) -> None:
    def fewer(table: dict[str, Any]) -> None:
        del table["decision"], table["doubt"]
        table["heads"].pop()

    path = bundle_with(metadata=fewer)
    with pytest.raises(BundleError, match="15 outputs and 8 labels"):
        TfliteClassifier(load_bundle(path))


def test_runtimes_are_tried_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    older = ModuleType("tflite_runtime.interpreter")
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    monkeypatch.setitem(sys.modules, "tflite_runtime", ModuleType("tflite_runtime"))
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", older)
    assert load_runtime() is older
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", None)
    monkeypatch.setitem(sys.modules, "tensorflow.lite", None)
    with pytest.raises(UnavailableError, match="pip install ai-edge-litert"):
        load_runtime()


def test_without_an_edge_tpu_the_cpu_does_the_work(caplog: pytest.LogCaptureFixture) -> None:
    """Real: no test machine has a Coral, and most have no libedgetpu."""
    classifier = TfliteClassifier(load_bundle(DEFAULT_MODEL), device="edgetpu")
    if classifier.device == "cpu":
        assert "The CPU does the work instead" in caplog.text


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise ValueError('Failed to load delegate')", "is the Coral plugged in"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crashes with this runtime (signal 11)"),
        ("raise OSError('libedgetpu.so.1: cannot open shared object file')", "is not installed"),
    ],
)
def test_the_edge_tpu_is_probed_in_a_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, reason: str
) -> None:
    """A package that stands in for the runtime does in the child what a bad library does."""
    fake = tmp_path / "ai_edge_litert"
    fake.mkdir()
    (fake / "__init__.py").write_text("")
    (fake / "interpreter.py").write_text(f"def load_delegate(library):\n    {code}\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    problem = litert.probe_edgetpu()
    assert problem is not None
    assert reason in problem


def test_a_working_edge_tpu_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[Any] = []
    runtime = load_runtime()
    real = runtime.Interpreter

    class Interpreter(real):  # type: ignore[misc, valid-type]
        def __init__(self, experimental_delegates: Any = None, **arguments: Any) -> None:
            used.append(experimental_delegates)
            super().__init__(**arguments)

    monkeypatch.setattr(runtime, "Interpreter", Interpreter)
    monkeypatch.setattr("edge_fer.model.classifier.probe_edgetpu", lambda: None)
    monkeypatch.setattr(litert, "load_delegate", lambda runtime: "the delegate")
    assert TfliteClassifier(load_bundle(DEFAULT_MODEL), device="edgetpu").device == "edgetpu"
    assert used == [["the delegate"]]


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ([1, 48, 48, 3], np.uint8, r"takes uint8 \(1, 48, 48, 3\); edge-fer feeds"),
        ([2, 48, 48, 1], np.uint8, r"takes uint8 \(2, 48, 48, 1\)"),
        ([1, 48, 48], np.uint8, r"takes uint8 \(1, 48, 48\)"),
        ([1, 48, 48, 1], np.float32, r"takes float32 \(1, 48, 48, 1\)"),
    ],
)
def test_a_model_that_takes_something_else_is_refused(shape: list[int], dtype: type, message: str) -> None:
    classifier = TfliteClassifier(load_bundle(DEFAULT_MODEL))
    classifier._input = replace(classifier._input, shape=tuple(shape), dtype=dtype)
    with pytest.raises(BundleError, match=message):
        classifier._checked_shape()


def test_logits_are_outputs_less_the_zero_point_times_the_scale() -> None:
    classifier = TfliteClassifier(load_bundle(DEFAULT_MODEL))
    face = classifier.bundle.selftest.inputs[0]
    raw = classifier._network.run(face[np.newaxis])[0][0].astype(np.float64)
    classifier._output = replace(classifier._output, scale=0.25, zero_point=-7)
    assert classifier.logits(face) == pytest.approx((raw + 7) / 4)
    classifier._output = replace(classifier._output, scale=0.0, zero_point=0)  # as float outputs have it
    assert classifier.logits(face) == pytest.approx(raw)


@pytest.mark.parametrize(
    ("part", "error", "message"),
    [
        (b"edgetpu-custom-op", UnavailableError, "is compiled for the Edge TPU, and there is none"),
        (b"", BundleError, "cannot load the model: Encountered unresolved custom op"),
    ],
)
def test_a_model_for_the_edge_tpu_says_so_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch, part: bytes, error: type[Exception], message: str
) -> None:
    def refuse(**_: object) -> None:
        raise RuntimeError("Encountered unresolved custom op: edgetpu-custom-op.\nSee the documentation")

    runtime = ModuleType("runtime")
    runtime.Interpreter = refuse  # type: ignore[attr-defined]
    monkeypatch.setattr(litert, "load_runtime", lambda: runtime)
    bundle = load_bundle(DEFAULT_MODEL)
    with pytest.raises(error, match=message):
        TfliteClassifier(replace(bundle, model=bundle.model + part))


def test_quiet_gives_stderr_back_and_keeps_no_file_open(capfd: pytest.CaptureFixture[str]) -> None:
    before = set(Path("/proc/self/fd").iterdir())
    for _ in range(3):
        os.write(2, b"before ")
        with pytest.raises(KeyError), litert.quiet():
            os.write(2, b"chatter ")
            raise KeyError
    os.write(2, b"after")
    assert capfd.readouterr().err == "before before before after"
    assert set(Path("/proc/self/fd").iterdir()) <= before
