"""Sets as arrays: which frames, which part of them, and what is known of each."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from miniatures import MADE, write_video

import datasets
from datasets.catalog import LAYOUTS, read_all, recognize
from datasets.sample import Sample
from datasets.sequences import last_frames, middle_frames, middle_of_clips
from edge_fer.core import Expression as E
from edge_fer.core import Image
from edge_fer.detection.cascade import CascadeDetector
from edge_fer.errors import DataError, InputMissingError

CUT_OUT = [layout.name for layout in LAYOUTS if layout.faces and layout.name not in ("raf-db-compound", "folders")]


def frames(count: int, label: str | None = "happy", sequence: str = "a") -> list[Sample]:
    return [Sample(Path(f"{n}.png"), label, label and E.HAPPINESS, sequence=sequence, frame=n) for n in range(count)]


@pytest.mark.parametrize(
    ("count", "last", "middle"),
    [
        (9, [0, 6, 7, 8], [0, 3, 4, 5]),
        (10, [0, 7, 8, 9], [0, 3, 4, 5]),
        (5, [0, 2, 3, 4], [0, 1, 2, 3]),
        (4, [0, 1, 2, 3], [0, 1, 2]),  # too short for a frame at rest before the middle
        (3, [0, 1, 2], [0, 1, 2]),
        (1, [0], [0]),
    ],
)
def test_frames_of_a_sequence(count: int, last: list[int], middle: list[int]) -> None:
    shuffled = frames(count)[::-1]
    for rule, numbers in ((last_frames, last), (middle_frames, middle)):
        taken = rule(shuffled)
        assert [one.frame for one in taken] == numbers
        at_rest = len(numbers) > 3
        assert taken[0].expression is (E.NEUTRAL if at_rest else E.HAPPINESS)
        assert {one.expression for one in taken[1:]} <= {E.HAPPINESS}
    assert {one.expression for one in middle_of_clips(shuffled)} == {E.HAPPINESS}


def test_sequences_are_kept_apart_and_those_without_a_label_are_left_out() -> None:
    taken = last_frames([*frames(5, sequence="b"), *frames(5, None, "c"), *frames(5), Sample(Path("x.png"), "happy")])
    assert [(one.sequence, one.frame) for one in taken] == [
        *(("a", number) for number in (0, 2, 3, 4)),
        *(("b", number) for number in (0, 2, 3, 4)),
    ]
    assert [one.frame for one in last_frames(frames(5), frames=1, neutral=False)] == [4]


@pytest.mark.parametrize("name", CUT_OUT)
def test_faces_that_are_cut_out_are_taken_whole(name: str, tmp_path: Path) -> None:
    MADE[name](tmp_path)
    # Of two images the tenth to choose by is none.
    data = datasets.load_test(tmp_path, "PrivateTest" if name.startswith("raf") else "PublicTest", size_hw=(48, 48))
    assert len(data) > 0 and data.images.shape[1:] == (48, 48, 1)
    assert all(labels.truth.max() >= 0 for labels in data.labels.values())


@pytest.mark.parametrize("name", [layout.name for layout in LAYOUTS if layout.splits and layout.name in CUT_OUT])
def test_official_splits_have_the_names_and_the_order_of_classes_of_all(name: str, tmp_path: Path) -> None:
    MADE[name](tmp_path)
    splits = datasets.load(tmp_path)
    assert {"Training", "PublicTest"} <= set(splits)
    assert len({tuple(head.labels for head in split.heads) for split in splits.values()}) == 1
    layout, place = recognize(tmp_path)
    assert sum(len(split) for split in splits.values()) <= len(read_all(layout, place))


def test_who_and_what_is_known_stays_with_the_faces(tmp_path: Path) -> None:
    MADE["tfd"](tmp_path / "tfd")
    tfd = datasets.load(tmp_path / "tfd")
    assert tfd["Training"].subjects is not None and tfd["Training"].subjects.tolist() == ["3", "3", "unknown 2"]
    MADE["raf-db"](tmp_path / "raf")
    raf = datasets.load_test(tmp_path / "raf", "PrivateTest")
    assert {name: values.tolist() for name, values in raf.attributes.items()} == {
        **{"age": ["40-69"], "gender": ["female"], "race": ["Asian"]},
    }
    assert raf[np.array([False])].attributes["age"].tolist() == []
    MADE["fer+"](tmp_path / "fer+")
    ferplus = datasets.load(tmp_path / "fer+")
    assert [(head.name, len(head.labels)) for head in ferplus["Training"].heads] == [("ferplus", 8)]
    assert ferplus["Training"].labels["ferplus"].votes is not None
    MADE["raf-db-compound"](tmp_path / "compound")
    compound = datasets.load_test(tmp_path / "compound", "PrivateTest")
    assert compound.compounds is not None and compound.compounds.tolist() == [
        "disgustedly surprised",
        "happily surprised",
    ]


@pytest.fixture
def face(scene: Image) -> Image:
    """A photograph with one face, 240x240."""
    box = CascadeDetector().detect(scene, 40)[0].box
    left, top = max(0, int(box.x - box.w / 2)), max(0, int(box.y - box.h / 2))
    return cv2.resize(scene[top : top + int(2 * box.h), left : left + int(2 * box.w)], (240, 240)).astype(np.uint8)


def test_a_face_is_looked_for_where_the_set_does_not_tell(
    face: Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    MADE["jaffe"](tmp_path)
    for name in ("KA.AN1.39", "KA.HA2.30"):
        cv2.imwrite(str(tmp_path / "jaffe" / f"{name}.tiff"), face)
    data = datasets.load_test(tmp_path)
    assert len(data) == 2 and data.subjects is not None and data.subjects.tolist() == ["KA", "KA"]
    assert "no face was found in 2 of 4 images; they are left out" in capsys.readouterr().err
    whole = cv2.resize(face, (48, 48), interpolation=cv2.INTER_AREA).astype(float)
    cut = data.images[0, ..., 0].astype(float)
    middle = cv2.resize(face[60:180, 60:180], (48, 48), interpolation=cv2.INTER_AREA).astype(float)
    assert np.corrcoef(cut.ravel(), middle.ravel())[0, 1] > np.corrcoef(cut.ravel(), whole.ravel())[0, 1]


def test_a_set_without_a_face_is_refused(tmp_path: Path) -> None:
    MADE["kdef"](tmp_path / "kdef")
    with pytest.raises(DataError, match="no face was found in any of the 3 images"):
        datasets.load_test(tmp_path / "kdef")


def test_where_the_set_tells_nothing_is_looked_for(tmp_path: Path) -> None:
    MADE["expw"](tmp_path / "expw")
    data = datasets.load_test(tmp_path / "expw")
    assert len(data) == 3 and data.labels["expression"].truth.tolist() == [1, 0, 4]
    MADE["affectnet"](tmp_path / "affectnet")
    assert len(datasets.load_test(tmp_path / "affectnet")) == 1
    assert len(datasets.load(tmp_path / "affectnet")["Training"]) == 1  # the other is no face


@pytest.mark.parametrize(("frames", "neutral", "count"), [(1, True, 4), (1, False, 2), (3, False, 6), (4, True, 10)])
def test_so_many_frames_and_a_neutral_one_if_asked(frames: int, neutral: bool, count: int, tmp_path: Path) -> None:
    MADE["ck+"](tmp_path)
    data = datasets.load_test(tmp_path, frames=frames, neutral=neutral)
    labels = data.labels["expression"]
    assert len(data) == count
    assert int((labels.truth == labels.expressions.index(E.NEUTRAL)).sum()) == (2 if neutral else 0)


def test_landmarks_frame_a_face_that_is_not_found(tmp_path: Path) -> None:
    MADE["ck+"](tmp_path)
    data = datasets.load_test(tmp_path)
    assert len(data) == 2 * (3 + 1)
    assert data.sequences is not None and set(data.sequences.tolist()) == {"S005_001", "S005_002"}
    labels = data.labels["expression"]
    assert [labels.expressions[code] for code in labels.truth] == [
        *(E.NEUTRAL, E.HAPPINESS, E.HAPPINESS, E.HAPPINESS, E.NEUTRAL, E.CONTEMPT, E.CONTEMPT, E.CONTEMPT)
    ]


def test_the_frames_of_a_video_are_decoded_together(face: Image, tmp_path: Path) -> None:
    MADE["mmi"](tmp_path)
    path = tmp_path / "Sessions" / "1" / "S001-001.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (240, 240))
    for number in range(9):
        writer.write(cv2.cvtColor(np.clip(face.astype(int) + number, 0, 255).astype(np.uint8), cv2.COLOR_GRAY2BGR))
    writer.release()
    data = datasets.load_test(tmp_path)
    labels = data.labels["expression"]
    assert [labels.expressions[code] for code in labels.truth] == [E.NEUTRAL, *[E.HAPPINESS] * 3]
    means = data.images.mean(axis=(1, 2, 3))
    assert np.all(np.diff(means) > 0)  # frames 0, 3, 4 and 5, in order
    assert data.attributes["view"].tolist() == ["front"] * 4


def test_a_video_that_is_none(tmp_path: Path) -> None:
    write_video(tmp_path / "Train_AFEW" / "Angry" / "1.avi", 3)
    (tmp_path / "Val_AFEW").mkdir()
    (tmp_path / "Train_AFEW" / "Angry" / "1.avi").write_bytes(b"nothing")
    with pytest.raises(DataError, match="neither a picture nor a video"):
        datasets.load(tmp_path)


def test_a_set_without_splits_is_not_for_training(tmp_path: Path) -> None:
    MADE["ck+"](tmp_path)
    assert not datasets.has_splits(tmp_path)
    with pytest.raises(InputMissingError, match=r"is ck[+], which has no split for training"):
        datasets.load(tmp_path)


def test_the_folder_around_a_set_is_as_good(tmp_path: Path) -> None:
    MADE["ck+48"](tmp_path / "archive" / "CK+48")
    assert len(datasets.load_test(tmp_path)) == 9
    MADE["fer2013"](tmp_path / "other" / "fer2013")
    assert len(datasets.load(tmp_path / "other")["Training"]) == 21
    assert datasets.has_splits(tmp_path / "other" / "fer2013")


def test_a_set_of_labels_that_are_none_of_ours(tmp_path: Path) -> None:
    MADE["multi-pie"](tmp_path)
    for path in tmp_path.rglob("*.png"):
        if path.stem not in ("001_02_03_110_00", "002_04_03_191_19"):  # squint, scream
            path.unlink()
    with pytest.raises(DataError, match="No image of multi-pie has an expression that edge-fer knows"):
        datasets.load_test(tmp_path)
