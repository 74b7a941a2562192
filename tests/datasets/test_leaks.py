"""A split that shares people, sequences or pictures is refused; one that shares nothing passes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from datasets import Dataset, Labels
from datasets.leaks import leaks, near_duplicates, perceptual_hashes, refuse_leaks
from edge_fer.core import Expression as E
from edge_fer.errors import DataError


def pictures(count: int, seed: int = 0) -> np.ndarray:
    """Images that have nothing in common: smooth noise, uint8 (count, 48, 48, 1)."""
    noise = np.random.default_rng(seed).normal(0, 1, (count, 48, 48))
    smooth = [cv2.GaussianBlur(one, (0, 0), 3) for one in noise]
    return np.stack([cv2.normalize(one, None, 10, 245, cv2.NORM_MINMAX) for one in smooth]).astype(np.uint8)[..., None]


def people(images: np.ndarray, subjects: list[str] | None = None, sequences: list[str] | None = None) -> Dataset:
    labels = Labels.single((E.ANGER,), np.zeros(len(images), np.int64))
    who, what = (None if names is None else np.array(names) for names in (subjects, sequences))
    return Dataset(images, {"t": labels}, np.zeros(len(images), np.bool_), who, what)


COPIES = {
    "the same": lambda image: image,
    "brighter": lambda image: cv2.add(image // 2, 60),
    "JPEG": lambda image: cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], 0),
    "smaller and back": lambda image: cv2.resize(cv2.resize(image, (24, 24), interpolation=cv2.INTER_AREA), (48, 48)),
    "noise": lambda image: np.clip(image + np.random.default_rng(1).normal(0, 8, image.shape), 0, 255),
    "a mirror image": lambda image: image[:, ::-1],
    "a mirror image, darker": lambda image: image[:, ::-1] // 2,
    "written on": lambda image: cv2.putText(image.copy(), "x", (2, 46), 0, 0.3, 255),
}


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_is_found_among_others(kind: str) -> None:
    images, others = pictures(40), pictures(30, seed=9)
    others[17, ..., 0] = COPIES[kind](images[5, ..., 0])
    assert near_duplicates(images, others).tolist() == [[5, 17]]


def test_pairs_within_one_set_come_once() -> None:
    images = pictures(20)
    images[[3, 11]] = images[7]
    assert near_duplicates(images).tolist() == [[3, 7], [3, 11], [7, 11]]
    assert near_duplicates(images[:1]).shape == (0, 2)


def test_a_symmetric_image_is_no_copy_of_itself() -> None:
    images = pictures(4)
    images[2] = images[2][:, ::-1] // 2 + images[2] // 2
    assert near_duplicates(images).tolist() == []
    assert near_duplicates(images, images).tolist() == [[row, row] for row in range(4)]


def test_other_pictures_of_one_hash_are_no_copies() -> None:
    """A gradient under other details: the low frequencies are nearly alike, the pixels are not."""
    waves = np.tile(128 + 60 * np.sin(np.arange(48) * np.pi), (48, 1))
    ramp = np.tile(np.linspace(100, 130, 48), (48, 1))
    first, second = (np.clip(ramp + sign * (waves - 128) * 1e15, 60, 190) for sign in (1, -1))
    images = np.stack([first, second]).astype(np.uint8)[..., None]
    correlation = np.corrcoef(images[0].ravel(), images[1].ravel())[0, 1]
    assert correlation < 0.95
    assert near_duplicates(images).tolist() == []


def test_flat_images_are_copies_only_of_the_same_gray() -> None:
    images = np.stack([np.full((48, 48, 1), gray, np.uint8) for gray in (0, 90, 90)])
    assert near_duplicates(images).tolist() == [[1, 2]]


def test_a_hash_has_half_of_its_bits() -> None:
    counts = np.bitwise_count(perceptual_hashes(pictures(50)))
    assert set(counts.tolist()) <= {31, 32, 33}


def test_what_is_shared_is_named() -> None:
    images = pictures(6)
    training = people(images[:3], ["S1", "S2", "S2"], ["S1_1", "S2_1", "S2_2"])
    clean = people(images[3:5], ["S3", "S4"], ["S3_1", "S4_1"])
    assert not leaks(training, clean)
    assert str(leaks(training, clean)) == "nothing"
    refuse_leaks(training, clean)

    leaking = people(images[[3, 2]], ["S1", "S2"], ["S1_9", "S2_2"])
    with pytest.raises(DataError) as refusal:
        refuse_leaks(training, leaking, ("Training", "PublicTest"))
    assert str(refusal.value) == (
        "Training and PublicTest share 2 people (S1, S2) and 1 sequences (S2_2) and 1 pairs of nearly the same image, "
        "so that what is measured is partly memory: leave them out of one of the two."
    )


def test_many_names_are_cut_short() -> None:
    names = [f"S{number}" for number in range(5)]
    found = leaks(people(pictures(5), names), people(pictures(5, seed=3), names))
    assert str(found) == "5 people (S0, S1, S2, ...)"


def test_where_nobody_is_named_pictures_alone_tell() -> None:
    images = pictures(4)
    assert not leaks(people(images[:2]), people(images[2:], ["S1", "S2"]))
    assert len(leaks(people(images[:2]), people(images[1:3])).copies) == 1
