"""Frame aggregation at feature level, by closed forms; and the comparison on a small data set of sequences."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from faces_csv import pattern
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from datasets import load_test
from edge_fer.core import Expression as E
from edge_fer.errors import DataError
from training.__main__ import main
from training.sequences.aggregation import KINDS, Kind, describe, fixed_length, normalized
from training.sequences.clips import sequences_of

framed = st.tuples(st.integers(1, 6), st.integers(1, 5)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.floats(-10, 10, width=32))
)


@pytest.mark.parametrize("kind", KINDS)
@given(frames=framed)
def test_neither_order_nor_scale_of_frames_counts(kind: Kind, frames: np.ndarray) -> None:
    whole = describe(kind, frames)
    assert np.isfinite(whole).all()
    assert describe(kind, frames[::-1]) == pytest.approx(whole, abs=1e-6)
    assert describe(kind, frames * 2.0) == pytest.approx(whole, abs=1e-6)


@pytest.mark.parametrize("kind", ["mean", "max", "covariance", "gaussian"])
@given(frames=framed, times=st.integers(2, 4))
def test_how_many_frames_there_are_does_not_count(kind: Kind, frames: np.ndarray, times: int) -> None:
    assert describe(kind, np.tile(frames, (times, 1))) == pytest.approx(describe(kind, frames), abs=1e-6)


def test_mean_and_max_by_hand() -> None:
    frames = np.array([[3.0, 4.0], [0.0, 2.0]])  # 0.6, 0.8 and 0, 1
    assert describe("mean", frames) == pytest.approx([0.3, 0.9])
    assert describe("max", frames) == pytest.approx([0.6, 1.0])


def spd(kind: Kind, frames: np.ndarray) -> np.ndarray:
    """The matrix whose logarithm a description is, (d, d)."""
    flat = describe(kind, frames)
    side = int((np.sqrt(8 * len(flat) + 1) - 1) / 2)
    logarithm = np.zeros((side, side))
    rows, columns = np.triu_indices(side)
    logarithm[rows, columns] = flat / np.where(rows == columns, 1, np.sqrt(2))
    logarithm = np.triu(logarithm) + np.triu(logarithm, 1).T
    values, vectors = np.linalg.eigh(logarithm)
    return (vectors * np.exp(values)) @ vectors.T


def test_the_covariance_is_that_of_numpy_in_the_log_euclidean_metric(chance: np.random.Generator) -> None:
    frames = chance.normal(size=(50, 4))
    unit = normalized(frames)
    wanted = np.cov(unit.T, bias=True)
    assert spd("covariance", frames) == pytest.approx(wanted + 0.01 * np.trace(wanted) / 4 * np.eye(4), abs=1e-6)


def test_a_gaussian_has_mean_and_covariance_in_one_matrix(chance: np.random.Generator) -> None:
    frames = chance.normal(size=(50, 3)) + 2
    unit = normalized(frames)
    matrix = spd("gaussian", frames)
    assert matrix[:3, 3] == pytest.approx(unit.mean(axis=0), abs=1e-6)
    assert matrix[3, 3] == pytest.approx(1.0, abs=1e-6)
    second = unit.T @ unit / len(unit)
    assert matrix[:3, :3] == pytest.approx(second, abs=0.01)  # but for the ridge


def test_the_distance_of_logarithms_is_that_of_scales() -> None:
    """Twice the covariance is as far from the covariance as that from half of it: that is what the metric is for."""
    frames = np.array([[1.0, 0.1], [1.0, -0.1], [1.0, 0.0]])
    first, second, third = (
        describe("covariance", np.array([[1.0, spread], [1.0, -spread], [1.0, 0.0]])) for spread in (0.05, 0.1, 0.2)
    )
    assert np.linalg.norm(first - second) == pytest.approx(np.linalg.norm(second - third), rel=0.1)
    assert describe("covariance", frames) == pytest.approx(second)


def test_a_subspace_is_its_projection(chance: np.random.Generator) -> None:
    basis = chance.normal(size=(2, 5))
    one, other = (chance.normal(size=(count, 2)) @ basis for count in (4, 7))
    projection = basis.T @ np.linalg.inv(basis @ basis.T) @ basis
    rows, columns = np.triu_indices(5)
    wanted = projection[rows, columns] * np.where(rows == columns, 1, np.sqrt(2))
    assert describe("subspace", one) == pytest.approx(wanted)
    assert describe("subspace", other) == pytest.approx(wanted)
    # Inner products are those of the projections: the squared cosines of the principal angles, summed.
    assert describe("subspace", one) @ describe("subspace", other) == pytest.approx(2.0)


@pytest.mark.parametrize("kind", KINDS)
def test_one_frame_is_a_sequence(kind: Kind) -> None:
    assert np.isfinite(describe(kind, np.array([[1.0, 2.0, 3.0]]))).all()
    assert np.isfinite(describe(kind, np.zeros((1, 3)))).all()


@pytest.mark.parametrize("frames", [np.zeros((0, 3)), np.zeros((3, 0)), np.zeros(3), np.array([[np.nan, 1.0]])])
def test_what_is_no_sequence_is_refused(frames: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"sequence has at least one frame|not a number"):
        describe("mean", frames)


@pytest.mark.parametrize(
    ("count", "wanted"),
    [
        (1, [0, 0, 0, 0]),
        (2, [0, 0, 1, 1]),
        (3, [0, 0, 1, 2]),
        (4, [0, 1, 2, 3]),
        (8, [0.5, 2.5, 4.5, 6.5]),
        (10, [0.5, 3, 5.5, 8]),
    ],
)
def test_frame_expansion_and_frame_averaging(count: int, wanted: list[float]) -> None:
    assert fixed_length(np.arange(count, dtype=float)[:, np.newaxis], 4)[:, 0].tolist() == wanted


@pytest.fixture(scope="module")
def sequences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six people, each with three sequences of three frames, named as in CK+48; bars whose places tell the class."""
    home, noise = tmp_path_factory.mktemp("ck48"), np.random.default_rng(5)
    for person in range(6):
        for number, name in enumerate(("anger", "happy", "surprise"), 1):
            (home / name).mkdir(exist_ok=True)
            for frame in range(3):
                image = pattern(2 * number, noise)
                cv2.imwrite(str(home / name / f"S{person:03}_{number:03}_{frame + 10:08}.png"), image)
    return home


@pytest.mark.trains
def test_the_comparison_of_a_small_data_set(sequences: Path, runs: list[Path], call: Callable[..., Any]) -> None:
    called = call(main, "sequences", "--model", runs[0] / "model.keras", "--data", sequences, "--k", 3)
    assert called.code == 0, called.err
    assert "18 sequences, 3 folds by people" in called.out
    rows = [line for line in called.out.splitlines() if line.strip().startswith(("frame", "decision", "feature"))]
    assert len(rows) == 11
    assert all(kind in called.out for kind in KINDS)


@pytest.fixture(scope="module")
def whole_sequences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six people of nobody in CK+'s layout: three expressions, each in five frames from rest (no bar) to the peak."""
    home, noise = tmp_path_factory.mktemp("ck+"), np.random.default_rng(5)
    points = [f"{60 + 40 * (number % 9) / 8} {40 + 40 * (number // 9) / 7}" for number in range(68)]
    for person in range(6):
        for number, code in enumerate((1, 5, 7), 1):
            place, stem = f"S{person:03}/{number:03}", f"S{person:03}_{number:03}"
            for name in ("cohn-kanade-images", "Landmarks", "Emotion"):
                (home / name / place).mkdir(parents=True)
            for frame in range(1, 6):
                face = noise.integers(0, 60, (48, 48)).astype(np.uint8) if frame == 1 else pattern(2 * number, noise)
                image = cv2.copyMakeBorder(cv2.resize(face, (80, 80)), 20, 20, 40, 40, cv2.BORDER_REPLICATE)
                cv2.imwrite(str(home / "cohn-kanade-images" / place / f"{stem}_{frame:08}.png"), image)
                (home / "Landmarks" / place / f"{stem}_{frame:08}_landmarks.txt").write_text("\n".join(points))
            (home / "Emotion" / place / f"{stem}_00000005_emotion.txt").write_text(f"   {code}.0000000e+00\n")
    return home


@pytest.mark.trains
def test_whole_sequences_show_their_peak_and_not_the_rest_that_they_begin_with(
    whole_sequences: Path, runs: list[Path], call: Callable[..., Any]
) -> None:
    command = (main, "sequences", "--model", runs[0] / "model.keras", "--data", whole_sequences, "--k", 3)
    called = call(*command)
    assert called.code == 0, called.err
    assert "18 sequences, 3 folds by people" in called.out
    assert "frame: last, SVM" in called.out
    wrong = call(*command, "--frames", 1)
    assert (wrong.code, wrong.err) == (2, "training: --frames must be 2 or more, not 1.\n")


def test_each_sequence_has_the_expression_of_its_peak(whole_sequences: Path) -> None:
    three, five = (load_test(whole_sequences, frames=frames, neutral=False) for frames in (3, 5))
    sequences = sequences_of(three, 3)
    assert [len(rows) for rows in sequences.rows] == [3] * 18
    assert [three.heads[0].labels[one] for one in sequences.truth] == [E.ANGER, E.HAPPINESS, E.SURPRISE] * 6
    assert [len(rows) for rows in sequences_of(five, 3).rows] == [5] * 18


def test_sequences_of_one_expression_are_refused(runs: list[Path], tmp_path: Path, call: Callable[..., Any]) -> None:
    noise = np.random.default_rng(5)
    (tmp_path / "happy").mkdir()
    for person in range(3):
        for frame in range(3):
            name = f"S{person:03}_001_{frame + 10:08}.png"
            cv2.imwrite(str(tmp_path / "happy" / name), pattern(2, noise))
    refused = call(main, "sequences", "--model", runs[0] / "model.keras", "--data", tmp_path, "--k", 3)
    assert (refused.code, refused.err.count("\n")) == (65, 1)
    assert "All sequences show happiness: there is nothing to tell apart" in refused.err


def test_data_without_sequences_are_refused(data: Path, runs: list[Path], call: Callable[..., Any]) -> None:
    called = call(main, "sequences", "--model", runs[0] / "model.keras", "--data", data)
    assert (called.code, called.err.count("does not tell its people and sequences")) == (65, 1)
