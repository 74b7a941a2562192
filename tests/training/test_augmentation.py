"""Images are augmented in training alone, as far as the recipe says, and each on its own."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest

from training.augmentation import Augment, Camera, Mixup
from training.callbacks.mixup import MixupUntil

pytestmark = pytest.mark.trains

IMAGES = np.random.default_rng(0).integers(0, 256, (64, 48, 48, 1)).astype(np.float32)


@pytest.fixture
def augment(seed: int) -> Callable[..., Augment]:
    """Makes the layer with the changes that are named, and no others."""

    def make(**settings: float) -> Augment:
        nothing = {"rotation_deg": 0, "scale": 0, "shift": 0, "brightness": 0, "contrast": 0, "cutout_px": 0}
        return Augment(**{**nothing, "seed": seed, **settings})  # type: ignore[arg-type]

    return make


def test_augmentation_is_for_training_alone(augment: Callable[..., Augment], seed: int) -> None:
    for layer in (augment(rotation_deg=20, cutout_px=10), Camera(noise=12, blur=1, seed=seed)):
        assert np.array_equal(layer(IMAGES, training=False), IMAGES)


def test_without_any_change_images_are_mirrored_or_left(augment: Callable[..., Augment]) -> None:
    changed = np.asarray(augment()(IMAGES, training=True))
    same = [np.allclose(new, old, atol=0.6) for new, old in zip(changed, IMAGES, strict=True)]
    mirrored = [np.allclose(new, old[:, ::-1], atol=0.6) for new, old in zip(changed, IMAGES, strict=True)]
    assert all(a or b for a, b in zip(same, mirrored, strict=True))
    assert 12 < sum(same) < 52


@pytest.mark.parametrize("change", [{"rotation_deg": 15}, {"scale": 0.2}, {"shift": 0.1}, {"contrast": 0.4}])
def test_every_change_keeps_the_range_and_differs_by_image(
    change: dict[str, float], augment: Callable[..., Augment]
) -> None:
    ramp = np.tile(np.linspace(0, 255, 48, dtype=np.float32)[:, np.newaxis, np.newaxis], (64, 1, 48, 1))
    changed = np.asarray(augment(**change)(ramp, training=True))
    assert changed.shape == ramp.shape
    assert changed.min() >= 0
    assert changed.max() <= 255.01
    assert len({image.tobytes() for image in changed}) >= 60


def test_the_scale_is_about_the_center(augment: Callable[..., Augment]) -> None:
    dot = np.zeros((64, 49, 49, 1), np.float32)
    dot[:, 24, 24] = 255
    changed = np.asarray(augment(rotation_deg=30, scale=0.2)(dot, training=True))
    assert (changed[:, 24, 24, 0] > 250).all()


def test_cutout_covers_a_square_in_half_of_the_images(augment: Callable[..., Augment]) -> None:
    changed = np.asarray(augment(cutout_px=12)(IMAGES, training=True))
    means = IMAGES.mean(axis=(1, 2, 3), keepdims=True)
    covered = (np.abs(changed - means) < 0.01).sum(axis=(1, 2, 3))
    assert 12 < (covered > 20).sum() < 52
    assert covered.max() <= 13 * 13 + 20


def test_noise_has_the_sigma_it_says_and_each_image_its_own(seed: int) -> None:
    flat = np.full((64, 48, 48, 1), 128, np.float32)
    sigmas = np.asarray(Camera(noise=12, blur=0, seed=seed)(flat, training=True)).std(axis=(1, 2, 3))
    assert 9 < sigmas.max() < 12.5
    assert sigmas.min() < 3
    assert 4 < sigmas.mean() < 8


def test_blur_takes_detail_and_keeps_the_mean(seed: int) -> None:
    changed = np.asarray(Camera(noise=0, blur=1, seed=seed)(IMAGES, training=True))
    left = changed[:, 2:-2, 2:-2].std(axis=(1, 2, 3)) / IMAGES[:, 2:-2, 2:-2].std(axis=(1, 2, 3))
    assert 0.3 < left.min() < 0.55  # the mean of nine has a third of the sigma
    assert left.max() > 0.8
    assert changed.mean() == pytest.approx(IMAGES.mean(), rel=0.02)


def test_augmentation_follows_its_seed_and_is_saved(augment: Callable[..., Augment], seed: int) -> None:
    for first in (augment(rotation_deg=10), Camera(noise=12, blur=1, seed=seed)):
        again = type(first).from_config(first.get_config())
        assert np.array_equal(first(IMAGES, training=True), again(IMAGES, training=True))


def test_edges_are_flat_borders_in_half_of_the_images(
    chance: np.random.Generator, augment: Callable[..., Augment]
) -> None:
    images = chance.uniform(0, 255, (64, 48, 48, 1)).astype(np.float32)
    changed = keras.ops.convert_to_numpy(augment(edges=0.25)(images, training=True))[..., 0]
    # The middle of the uppermost row is flat where there is a border.
    framed = np.ptp(changed[:, 0, 12:36], axis=1) == 0
    assert 12 < framed.sum() < 52
    widths = [(np.ptp(image[:24, 12:36], axis=1) == 0).sum() for image in changed[framed]]
    assert len(set(widths)) > 5
    assert max(widths) <= 12
    assert len({image[0, 20] for image in changed[framed]}) > 10
    assert (np.ptp(changed[:, 20, 12:36], axis=1) > 50).all()


def test_mixup_mixes_each_image_with_its_partner_by_lambda(chance: np.random.Generator, seed: int) -> None:
    images = chance.uniform(0, 255, (32, 6, 6, 1)).astype(np.float32)
    layer = Mixup(alpha=0.4, seed=seed)
    mixed, lam = (keras.ops.convert_to_numpy(one) for one in layer(images, training=True))
    wide = lam[:, :, None, None]
    assert mixed == pytest.approx(wide * images + (1 - wide) * images[::-1], rel=1e-4)
    assert len(set(lam.ravel().tolist())) > 25
    # Beta(0.4, 0.4) has mean 0.5 and variance 1 / (4 * 1.8).
    lambdas = keras.ops.convert_to_numpy(layer(np.zeros((4000, 1, 1, 1), np.float32), training=True)[1])
    assert (lambdas.mean(), lambdas.var()) == (pytest.approx(0.5, abs=0.03), pytest.approx(1 / 7.2, abs=0.01))
    still, ones = (keras.ops.convert_to_numpy(one) for one in layer(images, training=False))
    assert np.array_equal(still, images)
    assert (ones == 1).all()


def test_mixup_ends_before_training_does(chance: np.random.Generator) -> None:
    pixels = keras.Input((6, 6, 1))
    network = keras.Model(pixels, Mixup(0.4, seed=1, name="mixup")(pixels)[0])
    end = MixupUntil(9)
    end.set_model(network)
    for epoch, on in ((0, 1.0), (8, 1.0), (9, 0.0)):
        end.on_epoch_begin(epoch)
        assert float(network.get_layer("mixup").on) == on
    images = chance.uniform(0, 255, (8, 6, 6, 1)).astype(np.float32)
    assert keras.ops.convert_to_numpy(network(images, training=True)) == pytest.approx(images)
