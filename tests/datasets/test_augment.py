"""Offline augmentation: what is made of an image, the same each time, and never on both sides of a split."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from miniatures import MADE, write_image

import datasets
from datasets.__main__ import main
from datasets.augment import KINDS, augment, copies_of
from datasets.leaks import leaks
from edge_fer.errors import DataError, InputMissingError, UsageError

SMOOTH = cv2.GaussianBlur(np.random.default_rng(5).integers(0, 256, (48, 48)).astype(np.uint8), (0, 0), 3)


def files(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha1(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "augmented.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("kind", list(KINDS))
def test_each_kind_changes_an_image_and_keeps_its_size(kind: str) -> None:
    copies = dict(copies_of(SMOOTH, [kind], 3, seed=1))
    assert len(copies) == (10 if kind == "crops" else 3)
    for copy in copies.values():
        assert copy.shape == SMOOTH.shape and copy.dtype == np.uint8
        assert not np.array_equal(copy, SMOOTH)
    assert len({copy.tobytes() for copy in copies.values()}) == len(copies)


def test_crops_are_the_corners_and_the_middle_and_their_mirror_images() -> None:
    image = np.zeros((48, 48), np.uint8)
    image[:10, :10] = 255  # in the top left corner
    crops = [copy for _, copy in copies_of(image, ["crops"], 1, 0)]
    for one, mirrored in zip(crops[::2], crops[1::2], strict=True):
        assert np.array_equal(one[:, ::-1], mirrored)
    bright = [int((copy > 127).sum()) for copy in crops[::2]]
    assert bright[0] == max(bright) and bright[3] == min(bright)


def test_a_mean_change_is_as_small_as_it_is_said() -> None:
    gray = np.full((48, 48), 128, np.uint8)
    copies = {name: copy.astype(float) for name, copy in copies_of(gray, list(KINDS), 1, seed=3)}
    for kind in ("rotation0", "shift0", "scale0", "skew0", "crops4"):
        assert np.all(copies[kind] == 128)  # nothing black comes in from the edge
    assert 7 < copies["gaussian0"].std() < 13
    assert 10 < copies["speckle0"].std() < 16
    assert 0.01 < np.isin(copies["salt-and-pepper0"], (0, 255)).mean() < 0.06
    assert 12 <= abs(copies["brightness0"].mean() - 128) <= 25


@given(st.integers(0, 2**40), st.sampled_from(list(KINDS)))
def test_the_same_seed_gives_the_same_and_another_seed_another(seed: int, kind: str) -> None:
    def made(number: int) -> list[bytes]:
        return [copy.tobytes() for _, copy in copies_of(SMOOTH, [kind], 1, number)]

    assert made(seed) == made(seed)
    if kind in ("gaussian", "speckle", "salt-and-pepper"):
        assert made(seed) != made(seed + 1)


def test_a_copy_does_not_depend_on_the_other_images_and_kinds() -> None:
    alone = dict(copies_of(SMOOTH, ["gaussian"], 1, 7))
    among = dict(copies_of(SMOOTH, list(KINDS), 2, 7))
    assert np.array_equal(alone["gaussian0"], among["gaussian0"])
    assert not np.array_equal(among["gaussian0"], among["gaussian1"])


@pytest.fixture
def split(tmp_path: Path) -> Path:
    for place in ("train/angry", "train/happy", "validation/angry", "test/happy"):
        for number in range(3):
            write_image(tmp_path / "set" / place / f"{number}.png")
    return tmp_path / "set"


def test_only_training_has_copies_and_a_source_is_in_one_split(split: Path, tmp_path: Path) -> None:
    out = augment(split, tmp_path / "out", copies=2)
    made = rows(out)
    assert sorted(row["file"] for row in made) == [
        *sorted(str(path.relative_to(out)) for path in out.rglob("*.png")),
    ]
    splits_of = defaultdict(set)
    for row in made:
        splits_of[row["source"]].add(row["split"])
        assert row["kind"] == "original" or row["split"] == "train"
    assert {len(splits) for splits in splits_of.values()} == {1}
    read, before = datasets.load(out), datasets.load(split)
    assert {name: len(one) for name, one in read.items()} == {
        **{"Training": 6 * (1 + 8 * 2 + 10), "PublicTest": 3, "PrivateTest": 3},
    }
    for name in ("PublicTest", "PrivateTest"):
        assert sorted(image.tobytes() for image in read[name].images) == sorted(
            image.tobytes() for image in before[name].images
        )
        assert not leaks(read["Training"], read[name])


def test_the_same_seed_writes_the_same_files(split: Path, tmp_path: Path) -> None:
    first, second, other = (
        files(augment(split, tmp_path / str(number), ["gaussian", "crops"], seed=seed))
        for number, seed in enumerate((3, 3, 4))
    )
    assert first == second
    assert first.keys() == other.keys() and first != other


def test_a_set_without_splits_is_split_by_people_first(tmp_path: Path) -> None:
    for label in ("anger", "happy"):
        for subject in range(12):
            for frame in range(2):
                write_image(tmp_path / "set" / label / f"S{subject:03d}_{len(label):03d}_{frame:08d}.png")
    with pytest.raises(UsageError, match="has no splits, and copies must not cross one"):
        augment(tmp_path / "set", tmp_path / "out")
    data = datasets.load_test(tmp_path / "set")
    assert data.subjects is not None
    folds = [np.flatnonzero(np.isin(data.subjects, part)).tolist() for part in np.split(np.unique(data.subjects), 3)]
    (tmp_path / "folds.json").write_text(json.dumps(folds))
    out = augment(tmp_path / "set", tmp_path / "out", ["shift"], folds=tmp_path / "folds.json", fold=2)
    people = defaultdict(set)
    for row in rows(out):
        people[row["split"]].add(row["subject"])
    assert people["test"] == set(data.subjects[folds[1]].tolist())
    assert len(people["train"]) == 7 and len(people["validation"]) == 1
    assert not people["train"] & people["validation"] | people["train"] & people["test"]
    assert sum(row["split"] == "test" for row in rows(out)) == 16
    assert {row["kind"] for row in rows(out) if row["split"] != "train"} == {"original"}


@pytest.mark.parametrize(
    ("spoil", "error", "sentence"),
    [
        (lambda at: (at / "folds.json").write_text("[[0, 1]"), DataError, "holds no folds"),
        (lambda at: (at / "folds.json").write_text('{"a": 1}'), DataError, "holds no folds"),
        (
            lambda at: (at / "folds.json").write_text("[[0, 1], [2]]"),
            DataError,
            "folds of another data set: .* 9 images",
        ),
        (
            lambda at: (at / "folds.json").write_text("[[0, 1, 2, 3, 4, 5, 6, 7, 8]]"),
            UsageError,
            "--fold 2: .* has 1 folds",
        ),
        (lambda at: (at / "folds.json").unlink(), InputMissingError, "No file"),
        (lambda at: (at / "out" / "x").mkdir(parents=True), UsageError, "is not empty"),
    ],
)
def test_bad_folds(spoil: Callable[[Path], object], error: type[Exception], sentence: str, tmp_path: Path) -> None:
    MADE["ck+48"](tmp_path / "set")
    (tmp_path / "folds.json").write_text("[[0, 1, 2, 3, 4], [5, 6, 7, 8]]")
    spoil(tmp_path)
    with pytest.raises(error, match=sentence):
        augment(tmp_path / "set", tmp_path / "out", folds=tmp_path / "folds.json", fold=2)
    assert not list(tmp_path.glob("out/*.png")) and not (tmp_path / "out" / "augmented.csv").exists()


def test_copies_are_not_written_among_the_originals(split: Path, tmp_path: Path) -> None:
    before = files(split)
    for out in (split, split / "more", split / "train" / "angry"):
        with pytest.raises(UsageError, match="lies in"):
            augment(split, out)
    (tmp_path / "link").symlink_to(split)
    with pytest.raises(UsageError, match="lies in"):
        augment(split, tmp_path / "link" / "more")
    assert files(split) == before
    with pytest.raises(UsageError, match="has splits of its own"):
        augment(split, tmp_path / "out", folds=tmp_path / "folds.json")
    with pytest.raises(InputMissingError, match="No folder"):
        augment(tmp_path / "nowhere", tmp_path / "out")


def test_the_command(split: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["augment", str(split), "-o", str(tmp_path / "out"), "--kinds", "scale", "--seed", "2"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out'}\n"
    assert len(rows(tmp_path / "out")) == 6 * 2 + 6
    assert main(["augment", str(split), "-o", str(tmp_path / "out")]) == 2
    assert "is not empty" in capsys.readouterr().err
    for wrong in (("--seed", "-1"), ("--copies", "0"), ("--kinds", "magic"), ("--fold", "x")):
        with pytest.raises(SystemExit, match="2"):
            main(["augment", str(split), "-o", str(tmp_path / "new"), *wrong])
    capsys.readouterr()
    (tmp_path / "file").write_text("")
    assert main(["augment", str(split), "-o", str(tmp_path / "file" / "out")]) in (73, 74)
    assert capsys.readouterr().err.count("\n") == 1
