"""Treatments: what a name says is done to training and test faces alike."""

from __future__ import annotations

import numpy as np
import pytest

from edge_fer.errors import DataError, UsageError
from edge_fer.preprocess.illumination import normalized_illumination
from edge_fer.sources.demo import average_faces
from evaluation.corruptions import LIGHTS, side_light
from evaluation.treatments import (
    TREATMENTS,
    Faces,
    Treatment,
    lit_at_random,
    prepare,
    prepare_remembered,
    remember,
)

IMAGES = np.stack(average_faces())[..., np.newaxis].astype(np.uint8)
UPRIGHT = np.array([15, 18.7, 32, 18.7, 23.5, 28.5, 16.8, 36, 30.2, 36], np.float32)


def test_names_are_read() -> None:
    both = Treatment.parse("five-points+tan-triggs+equalization")
    assert (both.spec.alignment, both.spec.illumination) == ("five-points", ("tan-triggs", "equalization"))
    assert Treatment.parse("none") == Treatment("none")
    assert Treatment.parse("lit+equalization").lit
    assert all(Treatment.parse(name).name == name for name in TREATMENTS)
    assert len(set(TREATMENTS)) == len(TREATMENTS)


@pytest.mark.parametrize("name", ["", "candle", "eyes+two-points", "tan-triggs+", "none+log"])
def test_wrong_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="Known are"):
        Treatment.parse(name)


def test_more_methods_than_a_bundle_can_have_are_refused() -> None:
    with pytest.raises(UsageError, match="at most 3 methods of light"):
        Treatment.parse("log+gamma+dct+dog")


def test_training_and_test_get_the_same_after_the_light() -> None:
    training, tests = prepare(Treatment.parse("retinex"), Faces(IMAGES, IMAGES[:3]))
    assert list(tests) == ["clean", *LIGHTS]
    for name, light in LIGHTS.items():
        lit = light(IMAGES[:3])
        expected = [normalized_illumination(one, ["retinex"]) for one in lit[..., 0]]
        assert np.array_equal(tests[name][..., 0], expected)
    assert np.array_equal(training[:3], tests["clean"])
    remember(Faces(IMAGES, IMAGES[:3]))
    again, _ = prepare_remembered(Treatment.parse("retinex"))
    assert np.array_equal(again, training)


def test_alignment_wants_landmarks_and_leaves_faces_without_any() -> None:
    with pytest.raises(DataError, match="--landmarks"):
        prepare(Treatment.parse("two-points"), Faces(IMAGES, IMAGES))
    none, upright = np.full((len(IMAGES), 10), np.nan, np.float32), np.tile(UPRIGHT, (len(IMAGES), 1))
    training, tests = prepare(Treatment.parse("two-points"), Faces(IMAGES, IMAGES, (none, upright)))
    assert np.array_equal(training, IMAGES)
    assert not np.array_equal(tests["clean"], IMAGES)
    assert np.abs(tests["clean"].astype(int) - IMAGES).mean() < 16


def test_light_at_random_leaves_half_and_is_the_same_again() -> None:
    images = np.concatenate([IMAGES] * 30)
    lit = lit_at_random(images)
    changed = (lit != images).any(axis=(1, 2, 3)).mean()
    assert 0.4 < changed < 0.6
    assert np.array_equal(lit, lit_at_random(images))
    assert not np.array_equal(lit, lit_at_random(images, seed=1))


def test_light_from_the_side_falls_off_from_column_to_column() -> None:
    white = np.full((2, 48, 48, 1), 255, np.uint8)
    left, right = side_light(white, 0.25)[..., 0]
    assert left[0, [0, 47]].tolist() == [255, 64]
    assert np.array_equal(left, right[:, ::-1])
    assert np.allclose(left[0, 1:] / left[0, :-1], 0.25 ** (1 / 47), atol=0.01)
