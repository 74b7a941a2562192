"""Faces and expressions in one pass: what a face is answered, what is trained, and that both ways are measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from labeled import HEADS
from rich.console import Console

from datasets import Dataset, Labels
from edge_fer.core import FaceBox
from edge_fer.sources.demo import average_faces
from evaluation.corruptions import scenes
from training import models
from training.detector import one_pass, weights
from training.detector.network import build

pytestmark = pytest.mark.trains


def faces() -> Dataset:
    """The demo's faces, which a detector finds."""
    images = np.stack(average_faces() * 12)[:80, ..., np.newaxis].astype(np.uint8)
    truth = np.arange(len(images))
    labels = {head.name: Labels.single(head.labels, truth % len(head.labels)) for head in HEADS}
    return Dataset(images, labels, np.zeros(len(images), np.bool_))


def detector() -> keras.Model:
    """The shipped one."""
    network = build(*one_pass.WINDOW_HW)
    weights.load(network, Path(one_pass.__file__).with_name("weights.npz"))
    return network


def test_a_face_is_answered_by_its_cells_as_far_as_they_are_sure() -> None:
    logits = np.array([[[1.0, 0.0], [0.0, 4.0], [9.0, 9.0]]], np.float32)
    scores = np.array([[[0.0], [np.log(3.0)], [50.0]]], np.float32)  # 1/2 and 3/4, and a cell of something else
    answer = np.asarray(one_pass.pooled(logits, scores, np.array([[1.0, 1.0, 0.0]], np.float32)))
    assert np.allclose(answer, [[0.4, 2.4]], atol=1e-4)
    nobody = np.asarray(one_pass.pooled(logits, np.full((1, 3, 1), -90.0, np.float32), np.ones((1, 3), np.float32)))
    assert np.isfinite(nobody).all()


@pytest.mark.parametrize("side", [48, 96])
def test_a_window_has_its_face_whole(side: int) -> None:
    data, chance = faces(), np.random.default_rng(0)
    for scene in scenes(data.images[:8], side, 0.0, 1):
        seen = one_pass.window(scene, chance)
        box = seen.box
        assert seen.gray.shape == one_pass.WINDOW_HW
        assert box.x >= 0 and box.y >= 0 and box.x + box.w <= 160 and box.y + box.h <= 120
        x, y, w, h = (round(value) for value in (box.x, box.y, box.w, box.h))
        left, top = round(scene.box.x), round(scene.box.y)
        assert np.array_equal(seen.gray[y : y + h, x : x + w], scene.gray[top : top + h, left : left + w])


def test_the_cells_in_the_middle_of_a_face_answer_for_it() -> None:
    (inside,) = one_pass.central_cells([FaceBox(40, 40, 64, 64)])
    # Half of its sides, from 56 to 88: 4 x 4 cells of 8 pixels, and one each of 16 and 32.
    assert inside.sum() == 16 + 1 + 1


def test_soft_labels_are_half_the_raters() -> None:
    data = faces()
    targets = one_pass.soft_labels(data, data.heads, np.zeros((len(data), 15), np.float16))
    assert targets[0, 0] == pytest.approx(0.5 + 0.5 / 8)
    assert targets[0, 8] == pytest.approx(0.5 + 0.5 / 7)
    assert np.allclose(targets.sum(axis=1), 2)


def test_a_frozen_trunk_stays(tmp_path: Path) -> None:
    data = faces()[np.arange(16)]
    network = one_pass.train(
        data, np.zeros((len(data), 15), np.float16), tmp_path, trunk="frozen", epochs=1, batch=8, seed=1
    )
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 120, 160, 1)).astype(np.float32)
    for one, other in zip(detector()(pixels, training=False), network(pixels, training=False), strict=False):
        assert np.allclose(one, other, atol=1e-4)
    kept = models.load(tmp_path / "one-pass.keras")
    assert [one.shape[-1] for one in kept.outputs] == [1, 4, 10, 15]


def test_a_trained_trunk_is_pulled_to_what_it_found() -> None:
    before, network = detector(), one_pass.with_expressions(detector(), 15)
    taught = one_pass.Taught(network, HEADS, before)
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 120, 160, 1)).astype(np.float32)
    mask = one_pass.central_cells([FaceBox(40, 40, 64, 64)] * 2)
    assert taught((pixels, mask), training=False).shape == (2, 15)
    assert [float(one) for one in taught.losses] == [0, 0, 0]
    network.get_layer("scores8").bias.assign_add([1.0])
    network.get_layer("boxes16").bias.assign_add([1.0] * 4)
    taught((pixels, mask), training=False)
    scores, boxes, points = (float(one) for one in taught.losses)
    assert scores > 0 and boxes > 0 and points == 0


def test_both_ways_are_measured_on_the_faces_that_are_found(
    call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data = faces()
    keras.utils.set_random_seed(1)
    one_pass.with_expressions(detector(), 15).save(tmp_path / "one-pass.keras")
    monkeypatch.setattr(one_pass.datasets, "load", lambda *given: {"Training": data, "PublicTest": data})
    done = call(one_pass.main, "--data", tmp_path, "--output", tmp_path, "--epochs", 0, "--faces", 4)
    assert done.code == 0, done.err
    one, two = json.loads((tmp_path / "one-pass.json").read_text())
    assert (one["way"], two["way"]) == ("one pass", "two stages, nano")
    assert one["found"]["n"] == two["found"]["n"] == two["found"]["own"] and one["found"]["of"] == 36
    assert one["found"]["n"] > 18 and abs(one["found"]["own"] - one["found"]["n"]) < 3  # its int8 is another
    assert one["parameters"] > two["parameters"] == detector().count_params()
    gray = Dataset(np.full_like(data.images, 90), data.labels, data.also_in_training)
    with pytest.raises(one_pass.DataError, match="finds none"):
        one_pass.measure(models.load(tmp_path / "one-pass.keras"), gray, gray, ["nano"], 2, Console(quiet=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--seed", "-1"], "A seed must be 0 to 2147483647, not -1."),
        (["--epochs", "-1"], "--epochs must be at least 0, not -1."),
        (["--batch", "0"], "--batch must be at least 1, not 0."),
        (["--faces", "0"], "--faces must be at least 1, not 0."),
    ],
)
def test_numbers_that_cannot_be_are_said_before_the_data_are_read(
    call: Callable[..., Any], tmp_path: Path, change: list[str], message: str
) -> None:
    refused = call(one_pass.main, "--data", tmp_path / "none", "--output", tmp_path / "run", *change)
    assert (refused.code, refused.err) == (2, f"training.detector.one_pass: {message}\n")
