"""Composed images: pixels and truth go the same way, and what the options say is what comes out."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
from keras import ops

from datasets.boxes import FACE, IGNORED, Photo
from edge_fer.errors import DataError
from training.detector.augmentation import DRAWS, TILES, Augmentation, compose
from training.detector.photos import LONGEST_PX, MOST_FACES, Packed, pack

SIDE = 128
PLAIN = Augmentation(mosaic=0.0, gamma=0.0, contrast=1.0, gradient=0.0, noise=0.0, blur=0.0, behind=0.0)
MIDDLE = (150.0, 90.0)


def photo(name: str, faces: int = 1, shape: tuple[int, int] = (200, 320), kind: int = FACE) -> Photo:
    """A dark photo with a bright square of 40 pixels in it, whose corners are the landmarks."""
    gray = np.full(shape, 40, np.uint8)
    x, y = MIDDLE
    gray[int(y) - 20 : int(y) + 20, int(x) - 20 : int(x) + 20] = 220
    points = np.array([(x - 10, y - 10), (x + 10, y - 10), (x, y), (x - 10, y + 10), (x + 10, y + 10)])
    return Photo(
        name,
        lambda: gray,
        np.full(faces, kind, np.int32),
        np.tile(np.array([x - 20, y - 20, 40, 40], np.float32), (faces, 1)),
        np.tile(points.astype(np.float32), (faces, 1, 1)),
    )


def empty(value: int) -> Photo:
    gray = np.full((200, 320), value, np.uint8)
    return Photo("empty", lambda: gray, np.zeros(0, np.int32), np.zeros((0, 4)), np.zeros((0, 5, 2)))


def composed(packed: Packed, options: Augmentation, count: int = 16, seed: int = 0) -> tuple[np.ndarray, dict]:
    rng = np.random.default_rng(seed)
    draws = rng.random((count, DRAWS), np.float32)
    draws[:, 8 * TILES + 3] = 0  # mid-gray where no photo lies
    noise = rng.standard_normal((count, SIDE, SIDE), np.float32)
    images, truth = compose(packed, draws, noise, options)
    named = {field.name: ops.convert_to_numpy(getattr(truth, field.name)) for field in dataclasses.fields(truth)}
    return ops.convert_to_numpy(images)[..., 0], named


@pytest.mark.parametrize("options", [PLAIN, dataclasses.replace(PLAIN, max_turn=0.0)])
def test_the_box_lies_where_the_face_went(options: Augmentation) -> None:
    images, truth = composed(pack([photo("one")]), options)
    checked = 0
    for image, kinds, (box, *_), (points, *_) in zip(
        images, truth["kinds"], truth["boxes"], truth["points"], strict=True
    ):
        assert (kinds[1:] == 0).all()
        if kinds[0] != FACE:
            continue
        bright = np.argwhere(image > 130) + 0.5
        middle = bright.mean(axis=0)[::-1]
        inside = (box >= 1).all() and (box <= SIDE - 1).all()
        if not inside:
            continue
        assert (box[:2] + box[2:]) / 2 == pytest.approx(middle, abs=1.0)
        # The square's area; its box is that of an ellipse, which turning leaves about as large.
        assert len(bright) == pytest.approx(np.prod(box[2:] - box[:2]), rel=0.2)
        assert points.mean(axis=0) == pytest.approx(middle, abs=1.0)
        # Also of the mirrored ones the right eye is on the left, and above the mouth.
        assert points[0, 0] < points[1, 0] and points[3, 0] < points[4, 0]
        assert points[:2, 1].mean() < points[3:, 1].mean()
        checked += 1
    assert checked >= 8


def test_faces_come_in_all_sizes() -> None:
    packed = pack([photo("one")])
    _, truth = composed(packed, PLAIN, count=200)
    found = truth["kinds"][:, 0] == FACE
    sizes = (truth["boxes"][found, 0, 2:] - truth["boxes"][found, 0, :2]).mean(axis=1)
    assert found.mean() > 0.9
    assert 9 < sizes.min() < 14 and 60 < sizes.max() < 130
    assert np.median(sizes) == pytest.approx(np.sqrt(10 * 0.9 * SIDE), rel=0.25)  # evenly on a log scale


def test_a_mosaic_shows_four_photos() -> None:
    packed = pack([photo("one"), photo("two")])
    _, truth = composed(packed, dataclasses.replace(PLAIN, mosaic=1.0))
    faces = (truth["kinds"] == FACE).sum(axis=1)
    assert faces.max() == TILES and faces.mean() > 3


def test_tiny_and_cut_faces_and_ignored_regions_are_ignored() -> None:
    _, truth = composed(pack([photo("one", kind=IGNORED)]), PLAIN)
    assert set(truth["kinds"].ravel()) <= {0, IGNORED}
    _, truth = composed(pack([photo("one")]), dataclasses.replace(PLAIN, smallest_px=1000.0))
    assert set(truth["kinds"].ravel()) <= {0, IGNORED}
    _, truth = composed(pack([photo("one")]), dataclasses.replace(PLAIN, min_visible=1.1))
    assert set(truth["kinds"].ravel()) <= {0, IGNORED}


def test_faces_come_before_ignored_regions_where_there_is_no_room() -> None:
    many = photo("many", faces=MOST_FACES)
    kinds = np.full(MOST_FACES, IGNORED, np.int32)
    kinds[-5:] = FACE
    packed = pack([dataclasses.replace(many, kinds=kinds)])
    _, truth = composed(packed, dataclasses.replace(PLAIN, mosaic=1.0))
    whole = (truth["kinds"] == FACE).sum(axis=1)
    assert whole.max() == 5 * TILES
    assert (truth["kinds"][whole == 5 * TILES][:, : 5 * TILES] == FACE).all()


def test_an_empty_photo_lies_behind() -> None:
    packed = pack([photo("one"), empty(99)])
    draws = np.zeros((1, DRAWS), np.float32)
    draws[0, 2] = 0.2
    draws[0, 8 * TILES] = 1.0
    noise = np.zeros((1, SIDE, SIDE), np.float32)
    images, _ = compose(packed, draws, noise, dataclasses.replace(PLAIN, behind=1.0, max_turn=0.0))
    shown = set(np.unique(ops.convert_to_numpy(images)).tolist())
    assert 99 in shown and 128 not in shown
    images, _ = compose(packed, draws, noise, dataclasses.replace(PLAIN, max_turn=0.0))
    assert 128 in np.unique(ops.convert_to_numpy(images))


def test_light_and_noise_stay_in_range() -> None:
    images, _ = composed(pack([photo("one"), empty(99)]), Augmentation())
    assert images.min() >= 0 and images.max() <= 255
    assert np.array_equal(images, np.round(images))
    assert len(np.unique(images)) > 100


def test_photos_are_reduced_halved_and_quartered() -> None:
    packed = pack([photo("large", shape=(400, 640))])
    assert packed.sizes_wh.tolist() == [[LONGEST_PX, 200]]
    assert packed.boxes[0, 0] == pytest.approx([65, 35, 20, 20])
    assert packed.points[0, 0, 2] == pytest.approx([75, 45])
    half = packed.atlas[0, :100, LONGEST_PX:]
    assert np.array_equal(
        half, cv2.resize(packed.atlas[0, :200, :LONGEST_PX], (160, 100), interpolation=cv2.INTER_AREA)
    )


def test_photos_with_too_many_faces_are_left_out() -> None:
    many = photo("many", faces=MOST_FACES + 1)
    assert len(pack([photo("one"), many]).atlas) == 1
    with pytest.raises(DataError, match=f"^All photos have more than {MOST_FACES} boxes: none is left to train on.$"):
        pack([many])
