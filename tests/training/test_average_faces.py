"""The average faces: the right samples, a closed-form mean, the same bytes from the same data."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from faces_csv import write_csvs
from rich.console import Console

from datasets import Dataset
from datasets.fer2013 import FERPLUS_LABELS, ferplus_labels
from edge_fer.core import Expression
from edge_fer.sources.demo import EXPRESSIONS
from training import average_faces


def faces(count: int = 5) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (count, 48, 48, 1)).astype(np.uint8)


def test_samples_on_which_most_raters_agree_are_chosen() -> None:
    votes = np.zeros((10, 10), np.float32)
    votes[:, FERPLUS_LABELS.index(Expression.SADNESS)] = np.arange(10)
    votes[:, FERPLUS_LABELS.index(Expression.DISGUST)] = 9 - np.arange(10)
    data = Dataset(faces(10), {"ferplus": ferplus_labels(votes)}, np.zeros(10, np.bool_))
    assert np.flatnonzero(average_faces.chosen_samples(data, Expression.SADNESS)).tolist() == [8, 9]
    assert np.flatnonzero(average_faces.chosen_samples(data, Expression.DISGUST)).tolist() == [0, 1, 2, 3]
    assert not average_faces.chosen_samples(data, Expression.HAPPINESS).any()


def test_the_mean_is_symmetric_and_has_a_fixed_contrast() -> None:
    mean = average_faces.average_face(faces())
    assert mean.shape == (48, 48) and mean.dtype == np.uint8
    assert np.array_equal(mean, mean[:, ::-1])
    assert mean.mean() == pytest.approx(128, abs=2)
    assert mean.std() == pytest.approx(46, abs=3)


def test_a_mirrored_image_changes_nothing() -> None:
    images = faces()
    assert np.array_equal(average_faces.average_face(images), average_faces.average_face(images[:, :, ::-1]))


def test_every_image_counts_with_the_same_contrast() -> None:
    """A dark, flat copy of an image weighs as much as the image itself."""
    bright = faces(2)
    dim = bright.copy()
    dim[1] = np.rint(dim[1] * 0.25)
    difference = average_faces.average_face(bright).astype(int) - average_faces.average_face(dim)
    assert np.abs(difference).max() <= 2


def test_an_image_of_one_gray_adds_nothing() -> None:
    images = faces(3)
    flat = np.full((1, 48, 48, 1), 90, np.uint8)
    difference = average_faces.average_face(images).astype(int) - average_faces.average_face(np.vstack([images, flat]))
    assert np.abs(difference).max() <= 1


def test_strip_from_a_data_set(tmp_path: Path, call: Callable[..., Any]) -> None:
    write_csvs(tmp_path / "data", training=140, public=7)
    first, second = tmp_path / "first.png", tmp_path / "second.png"
    done = call(average_faces.main, "--data", tmp_path / "data", "-o", first)
    assert done.code == 0
    lines = done.out.splitlines()
    assert all(f"{expression:<10}    20 images" in lines for expression in EXPRESSIONS)
    average_faces.make_strip(tmp_path / "data", second, Console(file=io.StringIO()))
    assert first.read_bytes() == second.read_bytes()
    strip = cv2.imread(str(first), cv2.IMREAD_UNCHANGED)
    assert strip.shape == (48, 48 * 7) and strip.dtype == np.uint8


def test_one_photo_that_stands_twice_counts_once() -> None:
    images = faces(6)
    lighter = np.clip(images[:2].astype(int) + 9, 0, 255).astype(np.uint8)
    again = np.vstack([images, images[:3], images[:3, :, ::-1], lighter])
    difference = average_faces.average_face(again).astype(int) - average_faces.average_face(images)
    assert np.abs(difference).max() <= 6  # the lighter copies clip at white


def test_the_most_typical_faces_are_taken() -> None:
    base = faces(1).astype(int)
    noise = np.random.default_rng(2).integers(-60, 60, (average_faces.TYPICAL, 48, 48, 1))
    alike = np.clip(base + noise, 0, 255).astype(np.uint8)
    others = np.random.default_rng(9).integers(0, 256, (5, 48, 48, 1)).astype(np.uint8)
    assert np.array_equal(average_faces.average_face(np.vstack([others, alike])), average_faces.average_face(alike))


def test_missing_votes_are_one_clear_error(tmp_path: Path, call: Callable[..., Any]) -> None:
    write_csvs(tmp_path, votes=False)
    done = call(average_faces.main, "--data", tmp_path, "-o", tmp_path / "strip.png")
    assert done.code == 65
    assert "fer2013new.csv" in done.err
    assert not (tmp_path / "strip.png").exists()


def test_no_data_set_and_no_place_to_write(tmp_path: Path, call: Callable[..., Any]) -> None:
    done = call(average_faces.main, "--data", tmp_path / "none", "-o", tmp_path / "strip.png")
    assert done.code == 66
    write_csvs(tmp_path / "data")
    done = call(average_faces.main, "--data", tmp_path / "data", "-o", tmp_path / "none" / "strip.png")
    assert done.code == 73
    assert "cannot be written" in done.err
