"""The GAN for rare expressions: what goes in and out, and that both networks learn. Needs JAX: ``make test-jax``."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if os.environ.get("KERAS_BACKEND") != "jax":
    pytest.skip("`make test-jax` runs this", allow_module_level=True)

from labeled import HEADS
from numpy.typing import NDArray

from datasets import Dataset, Labels
from training import gan as gans
from training import pretrain
from training.gan import Gan, altered, build_discriminator, build_generator, compare, contact_sheet, exchanged
from training.probe import pooled_maps

pytestmark = pytest.mark.trains

LABELS = HEADS[0].labels


def faces(count: int = 80) -> Dataset:
    """Eight classes, each of its own gray."""
    truth = np.arange(count) % 8
    grays = (truth * 30 + 10).astype(np.uint8)
    images = np.tile(grays.reshape(-1, 1, 1, 1), (1, 48, 48, 1))
    return Dataset(images, {"ferplus": Labels.single(LABELS, truth)}, np.zeros(count, np.bool_))


def test_the_networks_have_their_shapes() -> None:
    assert build_generator(8, 8).output_shape == (None, 48, 48, 1)
    assert build_discriminator(8, 8).output_shape == (None, 1)


def test_faces_are_altered_alike_and_by_as_much_as_is_said() -> None:
    image = np.random.default_rng(0).uniform(-1, 1, (2, 48, 48, 1)).astype(np.float32)
    far = np.full((2, 2), 1000.0)
    seen = np.asarray(altered(image, np.array([2, -3]), far, np.zeros(2)))
    assert np.allclose(seen[:, :-2, 3:], image[:, 2:, :-3])
    assert np.allclose(seen[:, -2:], 0)
    hidden = np.asarray(altered(image, np.array([0, 0]), np.array([[24.0, 24.0], [1000, 1000]]), np.array([0.0, 0.5])))
    assert (hidden[0, 15:34, 15:34] == 0).all()
    assert np.allclose(hidden[1], image[1] + 0.5)
    assert np.allclose(hidden[0, :14], image[0, :14])


def test_a_discriminator_as_pre_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Gan, "steps", 8)
    monkeypatch.setattr(gans, "BATCH", 8)
    gan = Gan(faces(20).images, np.zeros(20, np.int64), 1, seed=1, width=8)
    lines: list[dict[str, float]] = []
    network = pretrain._play(gan, 2, lambda epoch, **values: lines.append(values))
    assert gan.done == 8  # the second epoch had its six already
    assert [sorted(line) for line in lines] == [["discriminator", "generator", "loss"]] * 2
    assert np.isfinite([line["loss"] for line in lines]).all()
    assert network.output_shape == (None, 3, 3, 32)
    assert pooled_maps(network).output_shape == (None, 16 * 8 + 16 * 16 + 2 * 9 * 32)


def test_a_few_steps_change_both_networks_and_losses_are_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Gan, "steps", 1)
    monkeypatch.setattr(gans, "BATCH", 8)
    data = faces()
    gan = Gan(data.images, data.labels["ferplus"].truth, 8, seed=1, width=8)
    before = [one.get_weights() for one in (gan.generator, gan.discriminator, gan.averaged)]
    said: list[str] = []
    gan.train(time.monotonic(), said.append)
    assert gan.done == 1
    assert "losses" in said[0]
    assert "nan" not in said[0]
    for old, network in zip(before, (gan.generator, gan.discriminator, gan.averaged), strict=True):
        assert any(not np.array_equal(a, b) for a, b in zip(old, network.get_weights(), strict=True))
    made = gan.generate(3, 5, seed=1)
    assert made.shape == (5, 48, 48, 1)
    assert made.dtype == np.uint8
    assert np.array_equal(made, gan.generate(3, 5, seed=1))
    assert contact_sheet([made, made]).shape == (96, 240)


class FakeGan:
    def generate(self, label: int, count: int, seed: int) -> NDArray[np.uint8]:
        return np.full((count, 48, 48, 1), 100 + label, np.uint8)


def test_rare_faces_take_the_place_of_others() -> None:
    data = faces()
    own = {"ferplus": data.labels["ferplus"].targets, "teacher": np.log(np.full((80, 8), 0.125, np.float32))}
    rare = [LABELS.index(one) for one in gans.RARE]
    images, targets = exchanged(data, own, "resampled", 30, None, 1)
    assert len(images) == 80
    counts = targets["ferplus"].sum(axis=0)
    assert all(counts[one] >= 10 for one in rare)
    assert np.array_equal(images[:, 0, 0, 0], targets["ferplus"].argmax(axis=1) * 30 + 10)
    made: Any = FakeGan()
    images, targets = exchanged(data, own, "generated", 30, made, 1)
    assert np.array_equal(images[50:, 0, 0, 0], np.repeat(rare, 10) + 100)
    assert np.array_equal(targets["ferplus"][50:].argmax(axis=1), np.repeat(rare, 10))
    assert np.allclose(targets["teacher"], np.log(0.125))
    assert all(values.dtype == np.float32 and len(values) == 80 for values in targets.values())


def test_all_ways_are_compared_at_equal_steps(tmp_path: Path) -> None:
    data = faces()
    lengths: list[int] = []

    class Fake:
        test = data

        def __init__(self) -> None:
            self.targets = {"ferplus": data.labels["ferplus"].targets}

        def train(self, images: NDArray[np.uint8], seed: int) -> None:
            assert len(images) == len(self.targets["ferplus"])
            lengths.append(len(images))

        def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
            return np.zeros((len(images), 8), np.float32)

    trainer, gan = Fake(), FakeGan()
    compare(data, trainer, gan, tmp_path, count=30, seeds=(1, 2), say=lambda line: None)  # type: ignore[arg-type]
    assert lengths == [80] * 6
    lines = (tmp_path / "recall.jsonl").read_text().splitlines()
    assert len(lines) == 2 * (3 + len(gans.TAUS))
    assert trainer.targets["ferplus"] is data.labels["ferplus"].targets
