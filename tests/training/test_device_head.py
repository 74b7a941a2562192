"""Classifiers as heads of a bundle: a device computes what scikit-learn does, and a recognizer takes the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faces_csv import write_csvs
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from edge_fer.cli import main as edge_fer
from edge_fer.core import Expression, Image
from edge_fer.errors import BundleError, DataError
from edge_fer.model.bundle import Bundle
from edge_fer.model.classifier import TfliteClassifier
from edge_fer.model.heads import open_head
from edge_fer.model.litert import Network
from edge_fer.model.spec import Head
from export.embedding import with_embedding
from training.__main__ import main
from training.classical import device_head

EIGHT = tuple(Expression)


def clouds(classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings around a center for each class, and their classes."""
    rng = np.random.default_rng(seed)
    truth = np.arange(200) % classes
    centers = rng.normal(0, 1.5, (classes, 6))
    return (centers[truth] + rng.normal(size=(200, 6))).astype(np.float32), truth


def opened(kind: Any, classes: int, arrays: dict[str, np.ndarray]) -> Any:
    head = Head("h", EIGHT[:classes], classifier=kind)
    return open_head(head, {f"heads.h.{name}": one for name, one in arrays.items()}, 6)


@pytest.mark.parametrize("classes", [3, 8])
def test_the_linear_head_gives_the_margins_of_scikit_learn(classes: int) -> None:
    embeddings, truth = clouds(classes, 0)
    head = opened("linear-svm", classes, device_head.linear_arrays(embeddings, truth, 1))
    theirs = make_pipeline(StandardScaler(), LinearSVC(C=device_head.COST, dual="auto", random_state=1))
    margins = theirs.fit(embeddings.astype(np.float64), truth).decision_function(embeddings)
    assert np.stack([head.logits(one) for one in embeddings]) == pytest.approx(margins, abs=1e-4)


def test_of_two_classes_both_have_a_margin() -> None:
    embeddings, truth = clouds(2, 0)
    head = opened("linear-svm", 2, device_head.linear_arrays(embeddings, truth, 1))
    margins = np.stack([head.logits(one) for one in embeddings])
    assert margins[:, 0] == pytest.approx(-margins[:, 1], abs=1e-5)
    assert (margins.argmax(axis=1) == truth).mean() > 0.9


def test_the_forest_gives_the_probabilities_of_scikit_learn() -> None:
    embeddings, truth = clouds(5, 0)
    # Numbers that stand between two others in no float32: int8 steps, as a device has them.
    embeddings = np.round(embeddings * 20) * np.float32(0.013)
    head = opened("random-forest", 5, device_head.forest_arrays(embeddings, truth, 1))
    theirs = RandomForestClassifier(
        device_head.TREES,
        max_depth=device_head.DEPTH,
        min_samples_leaf=device_head.LEAST_SAMPLES,
        random_state=1,
    ).fit(embeddings, truth)
    probabilities = theirs.predict_proba(embeddings)
    ours = np.exp([head.logits(one) for one in embeddings])
    assert ours == pytest.approx(np.maximum(probabilities, 1e-3), abs=1e-3)


def test_the_embedding_stands_behind_the_same_logits() -> None:
    bundle = Bundle.load("nano")
    model = with_embedding(bundle.model)
    both, alone = (Network(one).run_each(bundle.selftest.inputs) for one in (model, bundle.model))
    assert np.array_equal(both[:, : alone.shape[1]], alone)
    # The last layer by hand gives the logits back.
    network = Network(model)
    logits, embedding = network.outputs
    dense = next(one for one in network.operators() if one["op_name"] == "FULLY_CONNECTED")
    tensors = {one.index: one for one in network.tensors()}
    weights = network.value(dense["inputs"][1]).astype(np.float64)
    scales = tensors[dense["inputs"][1]].details["quantization_parameters"]["scales"]
    bias = network.value(dense["inputs"][2]) * scales * np.float64(embedding.scale)
    by_hand = embedding.real(both[:, alone.shape[1] :]) @ (weights * scales[:, None]).T + bias
    assert logits.real(both[:, : alone.shape[1]]) == pytest.approx(by_hand, abs=logits.scale)
    assert with_embedding(model) == model


def test_a_graph_that_ends_otherwise_has_no_embedding() -> None:
    model = Bundle.load("face-320x240", kind=None).model
    with pytest.raises(DataError, match="not in a dense layer"):
        with_embedding(model)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data of which every second angry face is contemptuous to FER+'s raters, and enough of it for a decision rule."""
    folder = tmp_path_factory.mktemp("data")
    write_csvs(folder, training=280, public=294)
    votes = (folder / "fer2013new.csv").read_text().splitlines()
    angry = [row for row, line in enumerate(votes) if line.split(",")[6] == "8"]
    for row in angry[::2]:
        cells = votes[row].split(",")
        cells[6], cells[9] = "0", "8"
        votes[row] = ",".join(cells)
    (folder / "fer2013new.csv").write_text("\n".join(votes) + "\n")
    return folder


@pytest.mark.parametrize("kind", device_head.KINDS)
def test_a_bundle_with_a_classifier_is_a_bundle(
    call: Callable[..., Any], folder: Path, tmp_path: Path, scene: Image, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path, rows_file = tmp_path / "mine.tflite", tmp_path / "rows.json"
    arguments = ["classifiers", "--bundle", "nano", "--data", folder, "--classifier", kind]
    done = call(main, *arguments, "--export", path, "-o", rows_file)
    assert done.code == 0, done.err
    rows = {row["classifier"]: row for row in json.loads(rows_file.read_text())}
    assert list(rows) == ["network", *device_head.KINDS]
    assert rows[kind]["accuracy"] > 0.5 > rows["network"]["accuracy"]  # nano knows faces, not bars

    bundle = Bundle.load(path)
    first, *others = bundle.metadata.heads
    assert (first.name, first.classifier) == (f"ferplus-{kind}", kind)
    assert [(head.name, head.classifier) for head in others] == [("ferplus", "network"), ("fer2013", "network")]
    assert bundle.metadata.facts["public_test"][first.name]["accuracy"] == rows[kind]["accuracy"]
    classifier = TfliteClassifier(bundle, decision="as-trained")
    face = bundle.selftest.inputs[0]
    logits = classifier.logits(face)
    assert logits[8:] == pytest.approx(TfliteClassifier(Bundle.load("nano")).logits(face))
    embedding = Network(bundle.model).run(face[np.newaxis])[1][0]
    scale = Network(bundle.model).outputs[1]
    assert logits[:8] == pytest.approx(open_head(first, bundle.arrays, 44).logits(scale.real(embedding)), abs=1e-5)

    assert edge_fer(["models", "verify", str(path)]) == 0
    assert f"self-test of graph and the head ferplus-{kind}, and" in capsys.readouterr().out
    assert edge_fer(["models", "show", str(path)]) == 0
    assert f"is a      {kind.replace('-', ' ')} on the embedding" in capsys.readouterr().out
    again = call(main, *arguments, "--export", path)
    assert again.code == 0 and path.read_bytes() == bundle.to_bytes()
    twice = call(main, "classifiers", "--bundle", path, "--data", folder, "--export", path, "--classifier", kind)
    assert (twice.code, "already" in twice.err) == (78, True)


def test_arrays_of_another_network_are_refused(folder: Path, tmp_path: Path) -> None:
    made = device_head.with_head(device_head.known_of("nano", folder), "linear-svm", 1)
    arrays = {name: one[:-1] if name.endswith("weights") else one for name, one in made.arrays.items()}
    for wrong in (arrays, {}):
        path = tmp_path / "wrong.tflite"
        Bundle.new(made.model, made.metadata, made.selftest, arrays=wrong).write(path)
        with pytest.raises(BundleError, match="do not fit its labels and the network"):
            TfliteClassifier(Bundle.load(path))
    alone = Bundle.load("nano")
    path = tmp_path / "no-embedding.tflite"
    Bundle.new(alone.model, made.metadata, alone.selftest, arrays=made.arrays).write(path)
    with pytest.raises(BundleError, match="its metadata has a use for 2"):
        TfliteClassifier(Bundle.load(path))


def test_what_cannot_be_learned_or_exported(call: Callable[..., Any], data: Path, runs: list[Path]) -> None:
    without = call(main, "classifiers", "--bundle", "nano", "--data", data)
    assert (without.code, "No Training sample is labeled contempt" in without.err) == (78, True)
    run = call(main, "classifiers", "--run", runs[0], "--data", data, "--export", "x.tflite")
    assert (run.code, "--export wants --bundle" in run.err) == (2, True)
    none = call(main, "classifiers", "--bundle", "none.tflite", "--data", data)
    assert none.code == 66
