"""Recurrent heads from sequences to a bundle: small ones, whose people and faces are drawn by chance."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import pytest

from edge_fer.cli import main as edge_fer_main
from edge_fer.core import Expression
from edge_fer.errors import DataError
from edge_fer.model.bundle import load_bundle
from edge_fer.model.classifier import TfliteClassifier
from edge_fer.temporal.recurrent import Kind, RecurrentHead, RecurrentSpec, replay
from export.sequence import main as export_main
from export.sequence import weights_of, with_head
from training.__main__ import main
from training.sequences.embedded import FRAMES, SETTLED, Clips, Embedder, Faces, arrivals, clips_of
from training.sequences.recurrent import DENSE, build_head, temperature_of
from training.sequences.synthetic import dissolved


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five people of nobody in CK+48's layout, two expressions of three frames each."""
    folder, chance = tmp_path_factory.mktemp("ck48"), np.random.default_rng(0)
    for person in range(5):
        for number, label in enumerate(("happy", "sadness")):
            (folder / label).mkdir(exist_ok=True)
            face = chance.integers(0, 256, (6, 6)).astype(np.uint8)
            for frame in range(3):
                image = cv2.resize(face, (48, 48), interpolation=cv2.INTER_CUBIC)
                image = np.clip(image + chance.normal(0, 10, image.shape), 0, 255).astype(np.uint8)
                cv2.imwrite(str(folder / label / f"S{person:03d}_{number:03d}_{frame:08d}.png"), image)
    return folder


@pytest.fixture(scope="session")
def run(call: Callable[..., Any], people: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heads") / "gru"
    done = call(main, "recurrent", *options(people, data, folder), "--units", 4, "--sequences", 10, "--epochs", 1)
    assert done.code == 0, done.err
    assert "mean recall of people not met" in done.out and "in synthetic sequences" in done.out
    return folder


def options(people: Path, data: Path, folder: Path) -> list[object]:
    return ["--bundle", "nano", "--data", people, "--faces", data, "--run", folder, "--k", 2]


@pytest.mark.trains
def test_a_trained_head_becomes_a_bundle_that_runs(
    run: Path, call: Callable[..., Any], tmp_path: Path, scene: np.ndarray
) -> None:
    path = tmp_path / "out.tflite"
    done = call(export_main, "nano", "--head", run, "-o", path, "--min-agreement", 0)
    assert done.code == 0 and "int8 answers as float in" in done.out and str(path) in done.out
    bundle = load_bundle(path)
    assert bundle.metadata.name == "nano-gru4"
    assert bundle.metadata.facts["sequence"]["synthetic"] is True
    assert bundle.metadata.doubt == load_bundle("nano").metadata.doubt
    assert call(edge_fer_main, "models", "verify", path).code == 0
    cv2.imwrite(str(tmp_path / "scene.png"), scene)
    done = call(edge_fer_main, "run", "--camera", tmp_path / "scene.png", "--model", path, "--output", "jsonl:-")
    assert done.code == 0 and json.loads(done.out.splitlines()[0])["model"]["name"] == "nano-gru4"
    again = call(export_main, "nano", "--head", run, "-o", path)
    assert again.code == 73 and "--force overwrites it" in again.err and again.err.count("\n") == 1


@pytest.mark.trains
def test_a_head_that_int8_changes_is_not_written(run: Path, call: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "out.tflite"
    done = call(export_main, "nano", "--head", run, "-o", path, "--min-agreement", 101)
    assert done.code == 1 and "not good enough" in done.err and not path.exists()


def test_a_demand_that_is_no_number_is_refused(call: Callable[..., Any], tmp_path: Path) -> None:
    done = call(export_main, "nano", "--head", tmp_path, "-o", tmp_path / "out.tflite", "--min-agreement", "nan")
    assert (done.code, done.err.count("\n")) == (65, 1) and "--min-agreement must be a number" in done.err


@pytest.mark.trains
def test_nobody_is_in_the_head_that_is_tested_on_them(run: Path) -> None:
    held_out = [
        json.loads((fold / "head.json").read_text())["facts"]["held_out"] for fold in sorted(run.glob("fold-*"))
    ]
    assert len(held_out) == 2 and sorted(one for names in held_out for one in names) == [
        f"S{person:03d}" for person in range(5)
    ]
    with np.load(run / DENSE) as layer:
        assert layer["kernel"].shape == (44, 7) and np.isfinite(layer["kernel"]).all()


@pytest.mark.trains
@pytest.mark.parametrize(
    ("bundle", "spoil", "code", "words"),
    [
        ("accurate", None, 65, "on the embeddings of another network"),
        ("nano", "missing", 66, "has no sequences.npz"),
        ("nano", "labels", 65, "no decision rule with just these labels"),
        ("nano", "json", 65, "no run of a recurrent head that can be read"),
        ("nano", "keras", 65, "no run of a recurrent head that can be read"),
        ("nano", "units", 78, "does not fit its metadata"),
        ("nano", "sequences", 65, "its files do not fit each other"),
    ],
)
def test_runs_that_do_not_fit(
    run: Path, call: Callable[..., Any], tmp_path: Path, bundle: str, spoil: str | None, code: int, words: str
) -> None:
    folder = tmp_path / "spoiled"
    folder.mkdir()
    for name in ("head.keras", "head.json", "sequences.npz"):
        (folder / name).write_bytes((run / name).read_bytes())
    table = json.loads((folder / "head.json").read_text())
    if spoil == "missing":
        (folder / "sequences.npz").unlink()
    elif spoil == "labels":
        table["labels"] = table["labels"][:2]
    elif spoil == "units":
        table["recurrent"]["units"] = 5
    elif spoil == "keras":
        (folder / "head.keras").write_bytes(b"no model")
    elif spoil == "sequences":
        np.savez(folder / "sequences.npz", embeddings=np.zeros((2, 3, 5), np.int8))
    (folder / "head.json").write_text("{" if spoil == "json" else json.dumps(table))
    done = call(export_main, bundle, "--head", folder, "-o", tmp_path / "out.tflite")
    assert done.code == code and words in done.err and done.err.count("\n") == 1
    assert not (tmp_path / "out.tflite").exists()


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        (["--units", 0], 2, "--units must be 1 to 128, not 0"),
        (["--epochs", 0], 2, "--epochs must be"),
        (["--sequences", 0], 2, "--sequences must be"),
        (["--bundle", "nowhere"], 66, "nowhere"),
        (["--data", "FACES"], 65, "does not tell its people and sequences"),
        (["--k", 99], 2, "--k 99 cannot be"),
        (["--run", "HERE"], 73, "exists: choose another --run"),
    ],
)
def test_what_cannot_be_trained(
    call: Callable[..., Any], people: Path, data: Path, tmp_path: Path, changes: list[object], code: int, words: str
) -> None:
    places = {"FACES": data, "HERE": tmp_path}
    changes = [places.get(str(one), one) for one in changes]
    done = call(main, "recurrent", *options(people, data, tmp_path / "run"), *changes)
    assert done.code == code and words in done.err
    assert done.err.splitlines()[-1].startswith("training: ") and not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_the_device_computes_what_keras_does(kind: Kind, chance: np.random.Generator) -> None:
    """On the grid of the head's steps, but for int8: so the float weights are made such that int8 has them exactly."""
    units, numbers, labels = 3, 6, 4
    embeddings = chance.normal(1, 2, (50, numbers)).astype(np.float32)
    model = build_head(kind, units, embeddings, labels)
    for layer in model.layers[2:]:
        layer.set_weights([chance.normal(0, 0.5, one.shape) for one in layer.get_weights()])
    weights = weights_of(model, temperature=2.0)
    normalize = model.get_layer("normalize")
    recurrent, logits = model.get_layer("recurrent"), model.get_layer("logits")
    sigma = np.sqrt(np.ravel(normalize.variance))[:, np.newaxis]
    bias = recurrent.get_weights()[2]
    kernel = weights.inputs * weights.inputs_scale * sigma
    mean = np.ravel(normalize.mean)
    whole = weights.bias[0] + mean @ (weights.inputs * weights.inputs_scale)
    recurrent.set_weights(
        [kernel, weights.state * weights.state_scale, np.stack([whole, bias[1]]) if kind == "gru" else whole]
    )
    logits.set_weights([2 * (weights.output * weights.output_scale), 2 * weights.output_bias])
    spec = RecurrentSpec(kind, units, numbers, 1.0, 0, memory_s=0.5)
    frames = chance.normal(1, 2, (20, numbers)).astype(np.float32)
    held = np.concatenate([np.repeat(frames[:1], 14, axis=0), frames])
    theirs = model.predict(held[np.newaxis], verbose=0)[0, 14:] / 2
    np.testing.assert_allclose(replay(RecurrentHead(spec, weights), frames, 1 / 30), theirs, atol=2e-4)


def test_int8_is_within_half_a_step_of_each_column(chance: np.random.Generator) -> None:
    model = build_head("gru", 3, chance.normal(0, 1, (50, 6)).astype(np.float32), 4)
    weights = weights_of(model)
    state = model.get_layer("recurrent").get_weights()[1]
    assert (np.abs(weights.state * weights.state_scale - state) <= weights.state_scale / 2 + 1e-7).all()
    assert np.abs(weights.state).max(axis=0).tolist() == [127] * 9


def test_a_bundle_without_a_rule_has_nothing_to_learn_for(tmp_path: Path, run: Path) -> None:
    plain = load_bundle("nano").with_metadata(decision=None, doubt=None)
    with pytest.raises(DataError, match="no decision rule"):
        Embedder(plain)
    with pytest.raises(DataError, match="no decision rule with just these labels"):
        with_head(plain, run)


def test_sequences_dissolve_within_a_group() -> None:
    images = np.stack([np.full((48, 48, 1), 40 * number, np.uint8) for number in range(6)])
    faces = Faces(images, np.array([0, 1, 1, 2, 2, 3]), np.array(["a", "a", "a", "b", "b", "b"]))
    embedder = Embedder(load_bundle("nano"))
    clips = clips_of(faces, embedder, 8, seed=0)
    assert clips.embeddings.shape == (8, FRAMES, 44) and clips.embeddings.dtype == np.int8
    for truth, group in zip(clips.truth, clips.groups, strict=True):
        shown = truth[truth >= 0]
        assert set(shown.tolist()) <= ({0, 1} if group == "a" else {2, 3})
        assert (np.diff(shown) != 0).sum() <= 1
    assert any(len(np.unique(truth)) > 1 for truth in clips.truth)
    with pytest.raises(DataError, match="No face has a label"):
        clips_of(Faces(images[:0], np.zeros(0, np.int64), np.zeros(0, str)), embedder, 1, seed=0)


def test_a_dissolve_goes_from_one_to_the_other(chance: np.random.Generator) -> None:
    dark, light = np.full((48, 48), 50, np.uint8), np.full((48, 48), 200, np.uint8)
    means = [image.mean() for image in dissolved(dark, light, np.array([0.0, 0.5, 1.0]), chance)]
    np.testing.assert_allclose(means, [50, 125, 200], atol=2)


def test_frames_that_do_not_come_are_held_and_have_no_truth(chance: np.random.Generator) -> None:
    numbers = np.arange(FRAMES, dtype=np.int8)[:, np.newaxis].repeat(2, axis=1)
    clips = Clips(np.stack([numbers] * 40), np.tile(np.arange(FRAMES), (40, 1)), np.array(["x"] * 40))
    held, truth = arrivals(clips, chance)
    assert held.shape == (40, SETTLED - 1 + FRAMES, 2) and (truth[:, : SETTLED - 1] == -1).all()
    assert (held[:, :SETTLED] == 0).all()
    came = truth >= 0
    assert came[:, SETTLED - 1].all() and (held[..., 0][came] == truth[came]).all()
    for row, comes in zip(held[..., 0], came, strict=True):
        last = int(np.flatnonzero(comes)[-1])
        waiting = row[SETTLED - 1 : last + 1]
        assert (waiting >= np.arange(len(waiting))).all()  # of the frames the next one that comes
    assert len({int(comes.sum()) for comes in came}) > 3


def test_the_temperature_is_the_one_that_made_the_logits(chance: np.random.Generator) -> None:
    logits = chance.normal(0, 2, (20000, 4)).astype(np.float32)
    powers = np.exp(logits)
    shares = powers / powers.sum(axis=1, keepdims=True)
    truth = (shares.cumsum(axis=1) > chance.random((20000, 1))).argmax(axis=1)
    assert temperature_of(logits * 2, truth) == pytest.approx(2, rel=0.08)


def test_the_embedder_sees_what_the_classifier_reads() -> None:
    assert Expression.NEUTRAL in Embedder(load_bundle("nano")).labels
    bundle = load_bundle("nano")
    embedder = Embedder(bundle)
    face = bundle.selftest.inputs[0]
    real = embedder.real(embedder(face))
    assert real.shape == (44,) and real.min() >= 0  # behind a ReLU
    assert TfliteClassifier(bundle).classify([face])[0].embedding is None
    keras.backend.clear_session()
