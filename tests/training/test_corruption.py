"""Images are corrupted in training alone, each in its own way, and as evaluation/corruptions.py does it."""

from __future__ import annotations

import cv2
import keras
import numpy as np
import pytest
from keras import ops

from datasets import SIDE
from training import corruption
from training.corruption import Corrupt, Halves

pytestmark = pytest.mark.trains

FACES = cv2.GaussianBlur(np.random.default_rng(0).uniform(0, 255, (SIDE, SIDE * 256)).astype(np.float32), (0, 0), 2)
FACES = (
    np.clip((FACES - 127.5) * 6 + 127.5, 0, 255).reshape(SIDE, 256, SIDE).transpose(1, 0, 2)[..., np.newaxis].round()
)
"""Textures, float32 (256, 48, 48, 1)."""


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch, seed: int) -> Corrupt:
    """A layer each of whose steps happens to all images."""
    layer = Corrupt(seed)
    monkeypatch.setattr(layer, "_chosen", lambda images, chance: ops.ones((len(images), 1, 1, 1), "bool"))
    return layer


def test_images_are_corrupted_in_training_alone(seed: int) -> None:
    layer = Corrupt(seed)
    assert np.array_equal(layer(FACES, training=False), FACES)
    corrupted = np.asarray(layer(FACES, training=True))
    assert corrupted.shape == FACES.shape
    assert corrupted.min() >= 0
    assert corrupted.max() <= 255
    assert np.array_equal(corrupted, corrupted.round())


def test_a_part_of_the_images_stays_as_it_is_and_no_two_are_alike(seed: int) -> None:
    same = np.tile(FACES[:1], (256, 1, 1, 1))
    corrupted = np.asarray(Corrupt(seed)(same, training=True))
    kept = (np.abs(corrupted - same) < 1).all(axis=(1, 2, 3)).sum()
    assert 8 < kept < 60  # one in nine is left alone by all five
    assert len({image.tobytes() for image in corrupted}) > 256 - kept - 10


def test_the_same_seed_corrupts_alike_and_survives_its_config(seed: int) -> None:
    one, other = Corrupt(seed), Corrupt.from_config(Corrupt(seed).get_config())
    assert np.array_equal(one(FACES, training=True), other(FACES, training=True))


def test_the_optics_are_those_of_opencv() -> None:
    bank = corruption._optics()
    face = FACES[0, ..., 0]
    assert np.array_equal(bank[0] @ face @ bank[0].T, face)
    for sigma, matrix in zip(corruption.BLUR_SIGMAS_PX, bank[1:], strict=False):
        side = 2 * round(3 * float(sigma)) + 1
        assert np.abs(matrix @ face @ matrix.T - cv2.GaussianBlur(face, (side, side), float(sigma))).max() < 0.05
    for width, matrix in zip(corruption.WIDTHS_PX, bank[1 + len(corruption.BLUR_SIGMAS_PX) :], strict=True):
        small = cv2.resize(face, (width, width), interpolation=cv2.INTER_AREA)
        large = cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
        assert np.abs(matrix @ face @ matrix.T - large).max() < 0.05
    assert np.allclose(bank.sum(axis=2), 1, atol=1e-5)


def test_what_is_covered_is_one_gray_band_over_eyes_or_mouth(seed: int) -> None:
    covered = np.asarray(Corrupt(seed)._covered(ops.convert_to_tensor(FACES)))
    rows = [np.flatnonzero((new != old).any(axis=(1, 2))) for new, old in zip(covered, FACES, strict=True)]
    changed = [one for one in rows if len(one)]
    assert 256 * 0.2 < len(changed) < 256 * 0.5
    kinds = {"eyes": 0, "mouth": 0}
    for one in changed:
        kinds["eyes" if one[0] < corruption.EYES[0][1] + 1 else "mouth"] += 1
        assert one[-1] - one[0] + 1 <= 17
        assert one[0] >= corruption.EYES[0][0]
    assert min(kinds.values()) > len(changed) / 4
    number = next(at for at, one in enumerate(rows) if len(one))
    band = covered[number, rows[number][1], :, 0][
        covered[number, rows[number][1], :, 0] != FACES[number, rows[number][1], :, 0]
    ]
    assert np.ptp(band) == 0


def test_dark_images_are_darker_and_say_so(seed: int) -> None:
    lit, dark = (np.asarray(one) for one in Corrupt(seed)._lit(ops.convert_to_tensor(FACES)))
    dark = dark[:, 0, 0, 0]
    assert 256 * 0.15 < dark.sum() < 256 * 0.35
    gains = lit.mean(axis=(1, 2, 3)) / FACES.mean(axis=(1, 2, 3))
    assert gains[dark].max() <= 1.001
    assert 0.16 < gains[dark].min() < 0.3
    bent = ~dark & (np.abs(gains - 1) > 0.01)
    assert 256 * 0.08 < bent.sum() < 256 * 0.35
    assert gains[bent].min() < 1 < gains[bent].max()


def test_noise_is_of_several_strengths(always: Corrupt) -> None:
    flat = np.full((256, SIDE, SIDE, 1), 128, np.float32)
    never = ops.zeros((256, 1, 1, 1), "bool")
    sigmas = np.asarray(always._noisy(ops.convert_to_tensor(flat), never)).std(axis=(1, 2, 3))
    assert sigmas.min() < 6
    assert 28 < sigmas.max() < 34
    of_dark = np.asarray(always._noisy(ops.convert_to_tensor(flat), ops.logical_not(never))).std(axis=(1, 2, 3))
    assert of_dark.max() < 7


def test_compression_is_jpeg_s(always: Corrupt, monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps of the DCT are libjpeg's; what is left are its integers."""
    for quality in (15, 30, 75):
        monkeypatch.setattr(
            always, "_between", lambda images, low, high, q=quality: ops.full((len(images), 1, 1, 1), float(q))
        )
        ours = np.asarray(always._compressed(ops.convert_to_tensor(FACES[:16])))[..., 0]
        for face, image in zip(FACES[:16, ..., 0].astype(np.uint8), ours, strict=True):
            _, data = cv2.imencode(".jpg", face, [cv2.IMWRITE_JPEG_QUALITY, quality])
            theirs = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE).astype(np.float32)
            assert np.abs(image - theirs).mean() < 0.5
            assert np.abs(theirs - face).mean() > 1.5 * np.abs(image - theirs).mean()


def test_halves_are_two_batches() -> None:
    both = np.arange(12, dtype=np.float32).reshape(6, 2)
    first, second = (np.asarray(one) for one in Halves()(both))
    assert np.array_equal(first, both[:3])
    assert np.array_equal(second, both[3:])
    symbolic = Halves()(keras.Input((4, 4, 1)))
    assert [one.shape for one in symbolic] == [(None, 4, 4, 1)] * 2
