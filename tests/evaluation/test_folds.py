"""Folds keep people, sequences and copies together; a leaking split is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from miniatures import MADE

from datasets import Dataset, Labels
from datasets.leaks import leaks
from edge_fer.core import Expression as E
from edge_fer.errors import UsageError
from evaluation.__main__ import main
from evaluation.folds import groups_of, k_folds, leave_one_subject_out

CLASSES = (E.HAPPINESS, E.ANGER, E.FEAR)


def noise(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 48, 48, 1)).astype(np.uint8)


def faces(subjects: list[int] | None, count: int = 0, sequences: list[str] | None = None) -> Dataset:
    """Images of noise, whose classes go round."""
    count = len(subjects) if subjects is not None else count
    labels = Labels.single(CLASSES, np.arange(count) % 3)
    who = None if subjects is None else np.array([f"S{number:03d}" for number in subjects])
    what = None if sequences is None else np.array(sequences)
    return Dataset(noise(count), {"t": labels}, np.zeros(count, np.bool_), who, what)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 12), min_size=4, max_size=40), st.sampled_from([2, 3, 8, 10]))
def test_no_fold_leaks_and_every_image_is_tested_once(subjects: list[int], k: int) -> None:
    data = faces(subjects)
    if min(len(set(subjects)), (len(subjects) + 2) // 3) < k:
        with pytest.raises(UsageError, match="cannot be"):
            k_folds(data, k)
        return
    folds = k_folds(data, k)
    assert len(folds) == k
    assert sorted(np.concatenate(folds).tolist()) == list(range(len(data)))
    for fold in folds:
        rest = np.setdiff1d(np.arange(len(data)), fold)
        assert not leaks(data[rest], data[fold])


def test_leave_one_subject_out() -> None:
    data = faces([3, 1, 3, 2, 1])
    assert sorted(fold.tolist() for fold in leave_one_subject_out(data)) == [[0, 2], [1, 4], [3]]
    with pytest.raises(UsageError, match="does not tell who"):
        leave_one_subject_out(faces(None, 4))
    with pytest.raises(UsageError, match="one person alone"):
        leave_one_subject_out(faces([1, 1, 1]))


def test_copies_and_sequences_stay_together_where_nobody_is_named() -> None:
    data = faces(None, 6, ["a", "b", "b", "c", "d", "e"])
    images = data.images.copy()
    images[4] = images[0]
    groups = groups_of(data.replace(images=images)).tolist()
    assert groups[0] == groups[4] and groups[1] == groups[2]
    assert len(set(groups)) == 4


def test_who_shares_a_picture_with_another_goes_with_them() -> None:
    data = faces([1, 1, 2, 3])
    images = data.images.copy()
    images[2] = images[1]
    folds = leave_one_subject_out(data.replace(images=images))
    assert sorted(fold.tolist() for fold in folds) == [[0, 1, 2], [3]]


def test_folds_are_alike_in_size_and_mix_and_the_same_every_time() -> None:
    data = faces(np.repeat(np.arange(40), 3).tolist())
    folds = k_folds(data, 8)
    assert [len(fold) for fold in folds] == [15] * 8
    assert all(np.bincount(data.labels["t"].truth[fold]).tolist() == [5, 5, 5] for fold in folds)
    assert all(np.array_equal(one, other) for one, other in zip(folds, k_folds(data, 8), strict=True))


def write(folder: Path, name: str, images: np.ndarray, first: int = 0) -> None:
    (folder / name).mkdir(parents=True)
    for number, image in enumerate(images):
        cv2.imwrite(str(folder / name / f"S{first + number // 2:03d}_001_{number:08d}.png"), image)


def test_the_command_makes_folds(tmp_path: Path, call: Callable[..., Any]) -> None:
    write(tmp_path / "set", "anger", noise(8))
    write(tmp_path / "set", "happy", noise(8, seed=1))
    done = call(main, "folds", "--data", tmp_path / "set", "--k", 2, "--json", tmp_path / "folds.json")
    assert (done.code, done.err) == (0, "")
    folds = json.loads((tmp_path / "folds.json").read_text())
    assert sorted(row for fold in folds for row in fold) == list(range(16))
    assert "people" in done.out
    done = call(main, "folds", "--data", tmp_path / "set", "--leave-one-out", "--json", tmp_path / "folds.json")
    assert [len(fold) for fold in json.loads((tmp_path / "folds.json").read_text())] == [4] * 4


def test_the_command_refuses_a_split_that_leaks(tmp_path: Path, data: Path, call: Callable[..., Any]) -> None:
    images = noise(12)
    write(tmp_path / "leaks" / "train", "anger", images[:8])
    write(tmp_path / "leaks" / "test", "anger", images[8:], first=3)  # S003 is in training too
    write(tmp_path / "leaks" / "validation", "anger", noise(2, seed=5), first=9)
    done = call(main, "folds", "--data", tmp_path / "leaks", "--official")
    assert done.code == 65
    assert done.out == "PublicTest: 2 images, nothing shared with the 8 of Training.\n"
    assert done.err.startswith(
        "evaluation: Training and PrivateTest share 1 people (S003) and 1 sequences (S003_001), so that"
    )

    for split, one in (
        ("train", images[:4]),
        ("validation", images[4:6]),
        ("test", np.concatenate([images[6:8], images[:1] // 2 + 60])),
    ):
        (tmp_path / "copies" / split / "anger").mkdir(parents=True)
        for number, image in enumerate(one):
            cv2.imwrite(str(tmp_path / "copies" / split / "anger" / f"{number}.png"), image)
    done = call(main, "folds", "--data", tmp_path / "copies", "--official")
    assert done.code == 65, done.out
    assert "share 1 pairs of nearly the same image" in done.err


def test_copies_that_are_left_out_anyway_are_told(tmp_path: Path, call: Callable[..., Any]) -> None:
    images = noise(6)
    for split, one in (("train", images[:4]), ("validation", images[3:])):
        (tmp_path / split / "anger").mkdir(parents=True)
        for number, image in enumerate(one):
            cv2.imwrite(str(tmp_path / split / "anger" / f"{number}.png"), image)
    done = call(main, "folds", "--data", tmp_path, "--official")
    assert done.code == 0, done.err
    assert done.out.splitlines() == [
        "PublicTest: 1 images stand in Training too, byte for byte; there they are always left out.",
        "PublicTest: 3 images, nothing shared with the 3 of Training.",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--k", 3], "--k 3 cannot be: 2 folds are the least, and 2 have"),
        (["--k", 1], "--k 1 cannot be"),
        (["--leave-one-out"], "does not tell who is in its images"),
    ],
)
def test_what_cannot_be_split(
    arguments: list[Any], message: str, tmp_path: Path, data: Path, call: Callable[..., Any]
) -> None:
    (tmp_path / "anger").mkdir()
    for number, image in enumerate(noise(2)):
        cv2.imwrite(str(tmp_path / "anger" / f"{number}.png"), image)
    done = call(main, "folds", "--data", tmp_path, *arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    done = call(main, "folds", "--data", data, *arguments)
    assert (done.code, done.out) == (2, "")
    assert "has splits of its own" in done.err


def test_the_command_refuses_folds_of_ones_own_that_leak(tmp_path: Path, call: Callable[..., Any]) -> None:
    write(tmp_path / "set", "anger", noise(8))  # rows 0-7: two of each person
    check = ("folds", "--data", tmp_path / "set", "--check", tmp_path / "mine.json")
    for text, code, told in (
        ("[[0, 1], [2, 3, 4, 5]]", 0, ""),
        ("[[0, 1], [2, 4]]", 65, "Fold 2's training and test share 2 people (S001, S002) and 2 sequences"),
        ("[[0, 1, 1]]", 65, "fold 1: its rows should be 0 to 7, each once"),
        ("[[0, 8]]", 65, "fold 1: its rows should be 0 to 7, each once"),
        ("[[]]", 65, "fold 1: its rows should be 0 to 7, each once"),
        ("[0, 1]", 65, "holds no folds: it should be a JSON list of the test rows of each fold"),
        ("folds", 65, "holds no folds: it should be a JSON list"),
        ("[]", 65, "holds no folds: it should be a JSON list"),
        ('{"a": [1]}', 65, "holds no folds: it should be a JSON list"),
        ("[" * 100_000, 65, "holds no folds: it should be a JSON list"),
        ("[[1e999]]", 65, "holds no folds: its rows should be whole numbers"),
        ("[[0.5]]", 65, "holds no folds: its rows should be whole numbers"),
        (f"[[{10**30}]]", 65, "holds no folds: its rows should be whole numbers"),
    ):
        (tmp_path / "mine.json").write_text(text)
        done = call(main, *check)
        assert done.code == code and told in done.err, done.err
        assert done.err.count("\n") == (code != 0)
    (tmp_path / "mine.json").unlink()
    assert call(main, *check).code == 66


@pytest.mark.parametrize("name", ["ck+48", "tfd"])
def test_sets_are_split_as_their_layout_has_them(name: str, tmp_path: Path, call: Callable[..., Any]) -> None:
    MADE[name](tmp_path / "set")
    how = ("--official",) if name == "tfd" else ("--leave-one-out",)
    done = call(main, "folds", "--data", tmp_path / "set", *how)
    if name == "tfd":
        assert done.code == 0 and "PublicTest: 1 images, nothing shared" in done.out
    else:
        assert done.code == 0 and "9 images" in done.out


def test_frames_of_sequences_by_the_rules_of_the_tables(tmp_path: Path, call: Callable[..., Any]) -> None:
    MADE["ck+"](tmp_path / "set")  # two labeled sequences of one person
    for options, images in ((("--frames", 1, "--no-neutral"), 2), (("--frames", 1), 4), ((), 8)):
        (tmp_path / "all.json").write_text(json.dumps([[images]]))
        done = call(main, "folds", "--data", tmp_path / "set", "--check", tmp_path / "all.json", *options)
        assert done.code == 65 and f"its rows should be 0 to {images - 1}, each once" in done.err
