"""The GAN for rare expressions: what goes in and out, and that both networks learn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import pytest
from keras import layers
from labeled import HEADS
from numpy.typing import NDArray

from datasets import Dataset, Labels
from edge_fer.core import Expression as E
from edge_fer.errors import DataError
from training import gan as gans
from training import pretrain
from training.gan import Gan, altered, build_discriminator, build_generator, compare, contact_sheet, exchanged, generate
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


def test_the_discriminator_asks_whether_a_face_is_real_and_of_its_class() -> None:
    """Miyato & Koyama, eq. 4: a number for the features, and their product with what stands for the class."""
    network = build_discriminator(3, 8)
    rng = np.random.default_rng(1)
    for weight in network.weights:
        weight.assign(rng.normal(0, 0.1, weight.shape))
    images = rng.uniform(-1, 1, (2, 48, 48, 1)).astype(np.float32)
    scores = np.stack([network.predict([images, np.tile(one, (2, 1))], verbose=0)[:, 0] for one in np.eye(3)], 1)
    last = [one for one in network.layers if isinstance(one, layers.LeakyReLU)][-1]
    features = keras.Model(network.inputs[0], last.output).predict(images, verbose=0)
    dense = [one for one in network.layers if isinstance(one, layers.Dense)]
    kernel, bias = next(one for one in dense if one.units == 1).get_weights()
    by_class = next(one for one in dense if one.input.shape == (None, 3)).get_weights()[0]
    expected = features @ kernel + bias + features @ by_class.T
    np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-4)
    assert np.ptp(scores - scores[:, :1], axis=0)[1:].min() > 0.01  # what a class adds hangs on the face


def test_the_discriminator_is_held_back_by_its_slope_at_real_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    """R1 (Mescheder et al., eq. 9): half its weight times the squared slope, in a linear one the same everywhere."""
    slope = np.where(np.arange(48 * 48) % 2, 2.0, -2.0).reshape(-1, 1)

    def linear(classes: int, width: int = 64) -> keras.Model:
        face, label = keras.Input((48, 48, 1)), keras.Input((classes,))
        network = keras.Model([face, label], layers.Dense(1)(layers.Flatten()(face)))
        network.set_weights([slope, np.zeros(1)])
        return network

    monkeypatch.setattr(gans, "build_discriminator", linear)
    losses, slopes = [], []
    for weight in (gans.R1, 0.0):
        monkeypatch.setattr(gans, "R1", weight)
        gan = Gan(faces(16).images, np.zeros(16, np.int64), 1, seed=1, width=8, batch=8)
        losses.append(gan.train(say=lambda line: None)[1])
        slopes.append(np.abs(gan.discriminator.get_weights()[0]))
    assert losses[0] - losses[1] == pytest.approx(5.0 / 2 * (slope**2).sum(), rel=1e-3)
    assert slopes[0].max() < 2  # and the step makes it less, everywhere
    assert slopes[1].max() > 2


def test_faces_are_altered_alike_and_by_as_much_as_is_said() -> None:
    image = np.random.default_rng(0).uniform(-1, 1, (2, 48, 48, 1)).astype(np.float32)
    far = np.full((2, 2), 1000.0)
    seen = np.asarray(altered(image, np.array([2, -3]), far, np.zeros(2, np.float32)))
    assert np.allclose(seen[:, :-2, 3:], image[:, 2:, :-3])
    assert np.allclose(seen[:, -2:], 0)
    places, brighter = np.array([[24.0, 24.0], [1000, 1000]]), np.array([0.0, 0.5], np.float32)
    hidden = np.asarray(altered(image, np.array([0, 0]), places, brighter))
    assert (hidden[0, 14:34, 14:34] == 0).all()
    assert (hidden[0] == 0).sum() == 20 * 20
    assert np.allclose(hidden[1], image[1] + 0.5)
    assert np.allclose(hidden[0, :14], image[0, :14])


def test_a_discriminator_as_pre_training() -> None:
    gan = Gan(faces(20).images, np.zeros(20, np.int64), 1, seed=1, width=8, batch=8)
    lines: list[dict[str, float]] = []
    network = pretrain._play(gan, 2, lambda epoch, **values: lines.append(values))
    assert gan.done == 6
    assert [sorted(line) for line in lines] == [["discriminator", "generator", "loss"]] * 2
    assert np.isfinite([line["loss"] for line in lines]).all()
    assert network.output_shape == (None, 3, 3, 32)
    assert pooled_maps(network).output_shape == (None, 16 * 8 + 16 * 16 + 2 * 9 * 32)


def test_a_few_steps_change_both_networks_and_losses_are_finite(tmp_path: Path) -> None:
    data, kept = faces(), tmp_path / "gan.npz"
    gan = Gan(data.images, data.labels["ferplus"].truth, 8, seed=1, width=8, batch=8)
    before = [one.get_weights() for one in (gan.generator, gan.discriminator, gan.averaged)]
    said: list[str] = []
    gan.train(0.0, kept, said.append)
    assert gan.done == 1
    assert "losses" in said[0]
    assert "nan" not in said[0]
    for old, network in zip(before, (gan.generator, gan.discriminator, gan.averaged), strict=True):
        assert any(not np.array_equal(a, b) for a, b in zip(old, network.get_weights(), strict=True))
    made = generate(gan.averaged, 3, 5, seed=1)
    assert made.shape == (5, 48, 48, 1)
    assert made.dtype == np.uint8
    assert np.array_equal(made, generate(gan.averaged, 3, 5, seed=1))
    assert contact_sheet([made, made]).shape == (96, 240)
    assert not contact_sheet([made, made[:2]])[48:, 96:].any()
    # It goes on from what it kept, and its time is over.
    again = Gan(data.images, data.labels["ferplus"].truth, 8, seed=2, width=8, batch=8)
    again.train(0.0, kept, said.append)
    assert (again.done, len(said)) == (1, 1)
    assert np.array_equal(made, generate(again.averaged, 3, 5, seed=1))
    with pytest.raises(DataError, match="--width"):
        Gan(data.images, data.labels["ferplus"].truth, 8, seed=1, width=16, batch=8).train(0.0, kept)


def fake(generator: None, label: int, count: int, seed: int) -> NDArray[np.uint8]:
    return np.full((count, 48, 48, 1), 100 + label, np.uint8)


def test_rare_faces_take_the_place_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gans, "generate", fake)
    data = faces()
    own = {"ferplus": data.labels["ferplus"].targets, "teacher": np.log(np.full((80, 8), 0.125, np.float32))}
    rare = [LABELS.index(one) for one in gans.RARE]
    images, targets = exchanged(data, own, "resampled", 30, None, 1)
    assert len(images) == 80
    counts = targets["ferplus"].sum(axis=0)
    assert all(counts[one] >= 10 for one in rare)
    assert np.array_equal(images[:, 0, 0, 0], targets["ferplus"].argmax(axis=1) * 30 + 10)
    images, targets = exchanged(data, own, "generated", 30, None, 1)
    assert np.array_equal(images[50:, 0, 0, 0], np.repeat(rare, 10) + 100)
    assert np.array_equal(targets["ferplus"][50:].argmax(axis=1), np.repeat(rare, 10))
    assert np.allclose(targets["teacher"], np.log(0.125))
    assert all(values.dtype == np.float32 and len(values) == 80 for values in targets.values())


def test_all_ways_are_compared_at_equal_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gans, "generate", fake)
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

    trainer: Any = Fake()

    def go(seeds: tuple[int, ...]) -> list[str]:
        compare(data, trainer, None, tmp_path, count=30, seeds=seeds, say=lambda line: None)
        return (tmp_path / "recall.jsonl").read_text().splitlines(keepends=True)

    lines = go((1, 2))
    assert lengths == [80] * 6
    assert len(lines) == 2 * (3 + len(gans.TAUS))
    assert trainer.targets["ferplus"] is data.labels["ferplus"].targets
    # Cut off in a line, it goes on with that training; done, with nothing.
    (tmp_path / "recall.jsonl").write_text("".join(lines[:-1]) + lines[-1][:9])
    assert go((1, 2)) == lines
    assert len(lengths) == 7
    assert go((2, 1)) == lines
    assert len(lengths) == 7
    (tmp_path / "recall.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match="give another -o"):
        go((1,))


def test_the_command_leaves_a_generator_a_sheet_and_recalls(
    data: Path, recipe: Callable[..., Path], call: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gans, "RARE", (E.DISGUST, E.FEAR))  # no face of this set is of contempt
    run = tmp_path / "run"
    arguments = ["--data", data, "--recipe", recipe({"epochs": 2}), "--width", 8, "--batch", 4, "--seeds", 1]
    arguments += ["--minutes", 0, "--count", 20]
    assert call(gans.main, *arguments, "-o", run).code == 0
    assert cv2.imread(str(run / "faces.png")).shape == (7 * 48, 16 * 48, 3)
    assert len((run / "recall.jsonl").read_text().splitlines()) == 3 + len(gans.TAUS)
    before = (run / "generator.keras").read_bytes()
    assert call(gans.main, *arguments, "-o", run).code == 0
    assert (run / "generator.keras").read_bytes() == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    refused = call(gans.main, *arguments, "-o", tmp_path / "other")
    assert (refused.code, len(refused.err.splitlines())) == (78, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--count", 1000], "--count must be 1 to"),
        (["--count", 0], "--count must be 1 to"),
        (["--width", 4], "--width must be a multiple of 8, not 4"),
        (["--batch", 0], "--batch must be 1 to"),
        (["--minutes", -1], "--minutes must be 0 or more, not -1"),
        (["--minutes", "nan"], "--minutes must be 0 or more, not nan"),
        (["--seeds", 1, -1], "A seed must be 0 to 2147483647, not -1"),
        ([], "No Training face shows contempt"),
    ],
)
def test_what_cannot_be_compared_is_said_before_the_gan_is_trained(
    data: Path, recipe: Callable[..., Path], call: Callable[..., Any], tmp_path: Path, change: list[Any], message: str
) -> None:
    asked = ["--data", data, "--recipe", recipe({"epochs": 2}), "--width", 8, "--batch", 4, "--count", 20]
    refused = call(gans.main, *asked, *change, "-o", tmp_path / "run")
    assert refused.code in (2, 65) and message in refused.err and len(refused.err.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_file_is_no_folder_for_a_gan(
    data: Path, recipe: Callable[..., Path], call: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "run").write_text("mine")
    refused = call(gans.main, "--data", data, "--recipe", recipe(), "-o", tmp_path / "run")
    assert (refused.code, refused.err) == (78, f"gan: {tmp_path / 'run'} is a file: choose another -o, a folder.\n")
