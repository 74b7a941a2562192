"""FER2013 and FER+ are read right or refused."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from faces_csv import write_csvs

import datasets
from datasets.fer2013 import FER2013_LABELS, FERPLUS_LABELS, ferplus_labels
from edge_fer.errors import DataError
from edge_fer.preprocess import Preprocessor, PreprocessSpec


@pytest.mark.parametrize(
    ("votes", "label", "target"),
    [
        ([6, 4, 0, 0, 0, 0, 0, 0, 0, 0], 0, [0.6, 0.4, 0, 0, 0, 0, 0, 0]),
        ([5, 5, 0, 0, 0, 0, 0, 0, 0, 0], -1, [0.5, 0.5, 0, 0, 0, 0, 0, 0]),  # a half is not more than a half
        ([1, 1, 1, 1, 1, 0, 5, 0, 0, 0], 6, [0, 0, 0, 0, 0, 0, 1, 0]),  # single votes are noise
        ([6, 3, 1, 0, 0, 0, 0, 0, 0, 0], 0, [2 / 3, 1 / 3, 0, 0, 0, 0, 0, 0]),
        ([0, 4, 0, 0, 0, 0, 0, 0, 6, 0], -1, [0] * 8),  # unknown is no expression
        ([2, 0, 0, 0, 0, 0, 0, 0, 8, 0], -1, [0] * 8),
        ([0, 3, 0, 3, 0, 0, 0, 0, 4, 0], -1, [0, 0.5, 0, 0.5, 0, 0, 0, 0]),  # most say one, none says which
        ([0, 5, 0, 0, 0, 0, 0, 0, 5, 0], -1, [0] * 8),
        ([0, 0, 0, 0, 0, 0, 0, 0, 0, 10], -1, [0] * 8),  # nor is not-a-face
        ([1, 1, 1, 1, 1, 1, 1, 1, 1, 1], -1, [0] * 8),
        ([0, 0, 0, 0, 0, 0, 0, 10, 0, 0], 7, [0, 0, 0, 0, 0, 0, 0, 1]),
    ],
)
def test_the_strict_rule_of_ferplus_and_votes_as_soft_targets(
    votes: list[int], label: int, target: list[float]
) -> None:
    labels = ferplus_labels(np.array([votes], np.float32))
    assert labels.truth.tolist() == [label]
    assert labels.targets[0] == pytest.approx(target)
    assert labels.is_soft
    assert labels.votes is not None and labels.votes.tolist() == [votes]


def test_both_csvs(tmp_path: Path) -> None:
    write_csvs(tmp_path)
    splits = datasets.load(tmp_path)
    assert {name: len(split) for name, split in splits.items()} == {"Training": 140, "PublicTest": 42}
    training = splits["Training"]
    assert training.images.shape == (140, 48, 48, 1)
    ferplus, fer2013 = training.labels.values()
    assert [(head.name, head.labels) for head in training.heads] == [
        ("ferplus", FERPLUS_LABELS),
        ("fer2013", FER2013_LABELS),
    ]
    assert fer2013.truth[:8].tolist() == [0, 1, 2, 3, 4, 5, 6, 0]
    # Both files mean the same expression, each in its own order of labels.
    for one, other in zip(fer2013.truth, ferplus.truth, strict=True):
        assert FER2013_LABELS[one] == FERPLUS_LABELS[other]


def test_without_votes_there_is_one_task(tmp_path: Path) -> None:
    write_csvs(tmp_path, votes=False)
    assert list(datasets.load(tmp_path)["Training"].labels) == ["fer2013"]


def test_cached_teacher_logits_still_know_the_samples(data: Path) -> None:
    """training/logits/ names the samples by a hash of the pixels, FER2013's codes and FER+'s ten votes."""
    for split in datasets.load(data).values():
        fer2013, votes = split.labels["fer2013"].truth, split.labels["ferplus"].votes
        assert (fer2013.dtype, votes is not None and votes.dtype) == (np.int64, np.float32)
        content = split.images.tobytes() + fer2013.tobytes() + np.asarray(votes).tobytes()
        assert split.sha256 == hashlib.sha256(content).hexdigest()


def test_icml_face_data_has_blanks_in_its_columns(tmp_path: Path) -> None:
    write_csvs(tmp_path, votes=False)
    text = (tmp_path / "fer2013.csv").read_text().replace("emotion,pixels,Usage", "emotion, pixels, Usage")
    (tmp_path / "fer2013.csv").unlink()
    (tmp_path / "icml_face_data.csv").write_text(text)
    assert len(datasets.load(tmp_path)["Training"]) == 140


def test_training_rows_that_stand_in_a_test_split_are_left_out(tmp_path: Path) -> None:
    write_csvs(tmp_path, training=20, public=10, votes=False)
    path = tmp_path / "fer2013.csv"
    lines = path.read_text().splitlines()
    lines[5] = lines[21].replace("PublicTest", "Training")
    path.write_text("\n".join(lines) + "\n")
    splits = datasets.load(tmp_path)
    assert len(splits["Training"]) == 19
    assert splits["PublicTest"].also_in_training.tolist() == [True] + [False] * 9


def test_rows_to_leave_out_are_training_rows_alone(tmp_path: Path) -> None:
    write_csvs(tmp_path, training=20, public=10)
    (tmp_path / "exclude.csv").write_text("row,usage\n3,Training\n22,PublicTest\n")
    splits = datasets.load(tmp_path, exclude="exclude.csv")
    assert (len(splits["Training"]), len(splits["PublicTest"])) == (19, 10)


def test_rows_to_leave_out_are_numbered_as_in_the_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without FER+'s names the place in the file is the number, if no row is lost; else nobody knows."""
    write_csvs(tmp_path, training=20, public=10)
    (tmp_path / "exclude.csv").write_text("row\n3\n5\n22\n")
    with_votes = datasets.load(tmp_path, exclude="exclude.csv")["Training"]
    (tmp_path / "fer2013new.csv").unlink()
    with pytest.raises(DataError, match=r"exclude\.csv numbers the rows of Kaggle's whole file.*fer2013new\.csv"):
        datasets.load(tmp_path, exclude="exclude.csv")
    assert len(datasets.load(tmp_path)["Training"]) == 20
    assert len(datasets.load(tmp_path, exclude="not there.csv")["Training"]) == 20
    monkeypatch.setattr("datasets.fer2013._WHOLE", 20)
    without = datasets.load(tmp_path, exclude="exclude.csv")["Training"]
    assert len(without) == 18 and np.array_equal(without.images, with_votes.images)


def test_rows_are_left_out_by_their_names_where_rows_are_lost(tmp_path: Path) -> None:
    write_csvs(tmp_path, training=20, public=10)
    whole = datasets.load(tmp_path)["Training"]
    for name in ("fer2013.csv", "fer2013new.csv"):  # the fifth row is gone, the third has no name
        lines = (tmp_path / name).read_text().splitlines()
        text = "\n".join(lines[:5] + lines[6:]) + "\n"
        (tmp_path / name).write_text(text.replace("fer0000002.png", ""))
    (tmp_path / "exclude.csv").write_text("row\n2\n7\n")
    left = datasets.load(tmp_path, exclude="exclude.csv")["Training"]
    assert np.array_equal(left.images, whole.images[[row for row in range(20) if row not in (4, 7)]])


def edit(name: str, change: Callable[[str], str]) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(change((folder / name).read_text()))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (edit("fer2013.csv", lambda text: text.replace("emotion,", "label,", 1)), "no column emotion"),
        (edit("fer2013.csv", lambda text: text.replace(",Training", " 7,Training", 1)), "line 2: 2305 pixels"),
        (edit("fer2013.csv", lambda text: text.replace("\n0,", "\n9,", 1)), "line 2: label 9 is not one of 0-6"),
        (edit("fer2013.csv", lambda text: text.replace("\n0,", "\nx,", 1)), "line 2: a label or a pixel"),
        (edit("fer2013.csv", lambda text: text.replace("\n0,", "\n0,999 ", 1)), "line 2: a label or a pixel"),
        (edit("fer2013.csv", lambda text: text + "3\n"), "row is too short"),
        (edit("fer2013.csv", lambda text: text.replace("Training", "train")), "no rows whose Usage is Training"),
        (edit("fer2013.csv", lambda text: text[:14] + text[14:].replace("\n", "\x00\n")), "."),
        (edit("fer2013.csv", lambda text: ""), "no column emotion, pixels, Usage"),
        (edit("fer2013new.csv", lambda text: text + text.splitlines()[-1] + "\n"), "has more rows"),
        (edit("fer2013new.csv", lambda text: "\n".join(text.splitlines()[:-2]) + "\n"), "has 180 rows and .* 182"),
        (edit("fer2013new.csv", lambda text: text.replace(",8,", ",many,", 1)), "a vote is not a whole number"),
        (edit("fer2013new.csv", lambda text: text.replace(",8,", f",{10**40},", 1)), "a vote is not a whole number"),
        (edit("fer2013new.csv", lambda text: text.replace("contempt", "scorn", 1)), "no column contempt"),
    ],
)
def test_damaged_csvs(tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    write_csvs(tmp_path)
    damage(tmp_path)
    with pytest.raises(DataError, match=message):
        datasets.load(tmp_path)


@pytest.mark.parametrize("kind", ["tar", "gztar", "xztar", "zip"])
@pytest.mark.parametrize("name", ["fer2013.csv", "fer2013new.csv"])
def test_an_archive_under_the_name_of_a_csv(tmp_path: Path, kind: str, name: str) -> None:
    write_csvs(tmp_path)
    (tmp_path / "download").mkdir()
    (tmp_path / name).rename(tmp_path / "download" / name)
    archive = shutil.make_archive(str(tmp_path / "archive"), kind, tmp_path / "download")
    Path(archive).rename(tmp_path / name)
    with pytest.raises(DataError, match=f"{name} is no CSV but a {'zip' if kind == 'zip' else 'tar'} archive: unpack"):
        datasets.load(tmp_path)


@pytest.mark.parametrize("name", ["fer2013.csv", "fer2013new.csv", "exclude.csv"])
@pytest.mark.parametrize("change", [lambda text: "\ufeff" + text, lambda text: text.replace("\n", "\r\n")])
def test_as_windows_writes_a_csv(tmp_path: Path, name: str, change: Callable[[str], str]) -> None:
    write_csvs(tmp_path)
    (tmp_path / "exclude.csv").write_text("row\n3\n")
    path = tmp_path / name
    path.write_bytes(change(path.read_text()).encode())
    splits = datasets.load(tmp_path, exclude="exclude.csv")
    assert {name: len(split) for name, split in splits.items()} == {"Training": 139, "PublicTest": 42}


@pytest.mark.parametrize("size_hw", [(48, 48), (40, 60), (61, 35)])
@pytest.mark.parametrize("margin", [0.0, 0.1, 0.5])
def test_a_data_sets_framing_is_kept_whatever_the_margin(size_hw: tuple[int, int], margin: float) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, *size_hw, 1)).astype(np.uint8)
    assert np.array_equal(Preprocessor(PreprocessSpec(margin=margin), size_hw).crops(images), images)
