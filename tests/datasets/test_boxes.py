"""Photos with boxes of faces, in the layouts that people have; what is wrong is said in one sentence."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from datasets import boxes
from datasets.boxes import FACE, HELD_OUT, IGNORED, is_held_out, read
from edge_fer.errors import DataError, InputMissingError

GRAY = np.arange(60 * 80, dtype=np.uint32).reshape(60, 80).astype(np.uint8)
HEADER = "photo,x,y,w,h,score," + ",".join(
    f"{point}_{axis}" for point in ("right_eye", "left_eye", "nose", "right_mouth", "left_mouth") for axis in "xy"
)
ROW = "a.png,10,20,30,40,{score},11,12,13,14,15,16,17,18,19,20"


def image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), GRAY)
    return path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_pseudo_labels(tmp_path: Path) -> None:
    write(
        tmp_path / "faces.csv",
        "\n".join([HEADER, ROW.format(score=0.9), ROW.format(score=0.59), "b.png" + "," * 15, ""]),
    )
    image(tmp_path / "a.png")
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.write(image(tmp_path / "elsewhere" / "b.png"), "b.png")
    one, other = read(tmp_path)
    assert (one.name, other.name) == ("a.png", "b.png")
    assert one.kinds.tolist() == [FACE, IGNORED] and other.kinds.tolist() == []
    assert one.boxes[0].tolist() == [10, 20, 30, 40]
    assert one.points[0].tolist() == [[11, 12], [13, 14], [15, 16], [17, 18], [19, 20]]
    assert np.array_equal(one.read(), GRAY) and np.array_equal(other.read(), GRAY)
    assert other.boxes.shape == (0, 4) and other.points.shape == (0, 5, 2)


def test_yolo(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        image(tmp_path / "images" / "train" / f"{name}.png")
    points = " ".join(f"{0.1 * n:.1f} {0.1 * n:.1f}" for n in range(1, 6))
    seen = " ".join(f"{0.1 * n:.1f} {0.1 * n:.1f} 2" for n in range(1, 6))
    unseen = " ".join(f"{0.1 * n:.1f} {0.1 * n:.1f} {n % 2}" for n in range(1, 6))
    write(
        tmp_path / "labels" / "train" / "a.txt",
        f"0 0.5 0.5 0.25 0.5\n0 0.5 0.5 0.25 0.5 {points}\n1 0.5 0.5 0.25 0.5 {seen}\n0 0.5 0.5 0.25 0.5 {unseen}\n",
    )
    write(tmp_path / "labels" / "train" / "b.txt", "")
    one, other, without = read(tmp_path)
    assert one.name == "images/train/a.png"
    assert one.boxes.tolist() == [[30, 15, 20, 30]] * 4
    assert one.points[1] == pytest.approx(np.array([[8, 6], [16, 12], [24, 18], [32, 24], [40, 30]]))
    assert one.points[2] == pytest.approx(one.points[1])
    assert np.isnan(one.points[[0, 3]]).all()
    assert len(other.kinds) == len(without.kinds) == 0


VOC_BOX = "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"


def annotation(name: str, *, difficult: int = 0, box: str = "") -> str:
    box = box or VOC_BOX.format(10, 20, 40, 60)
    return f"<object><name>{name}</name><difficult>{difficult}</difficult>{box}</object>"


def test_voc(tmp_path: Path) -> None:
    image(tmp_path / "JPEGImages" / "a.png")
    path = tmp_path / "Annotations" / "a.xml"
    objects = annotation("face") + annotation("face", difficult=1) + annotation("hand")
    write(path, f"<annotation>{objects}</annotation>")
    (one,) = read(tmp_path)
    assert one.kinds.tolist() == [FACE, IGNORED]
    assert one.boxes.tolist() == [[10, 20, 30, 40]] * 2
    assert np.isnan(one.points).all()
    write(path, f"<annotation>{annotation('head')}</annotation>")
    assert read(tmp_path)[0].kinds.tolist() == [FACE]


def test_boxes_without_area_are_ignored_and_landmarks_that_are_no_numbers_unknown(tmp_path: Path) -> None:
    write(tmp_path / "faces.csv", "\n".join([HEADER, ROW.format(score=0.9), "a.png,1,2,0,4,0.9,inf" + ",1" * 9]))
    (one,) = read(tmp_path)
    assert one.kinds.tolist() == [FACE, IGNORED]
    assert np.isnan(one.points[1, 0, 0])
    path = write(tmp_path / "yolo" / "labels" / "a.txt", "0 0.5 0.5 0 0.1\n0 0.5 0.5 0.1 0.1\n")
    image(path.parents[1] / "images" / "a.png")
    assert read(path.parents[1])[0].kinds.tolist() == [IGNORED, FACE]


def test_labels_and_archives_that_are_none_are_said(tmp_path: Path) -> None:
    write(tmp_path / "faces.csv", "\n".join([HEADER, ROW.format(score=0.9)]))
    write(tmp_path / "more.zip", "no archive")
    with pytest.raises(DataError, match=r"more\.zip is no ZIP archive that can be read"):
        read(tmp_path)
    (tmp_path / "faces.csv").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "more.zip").unlink()
    with pytest.raises(DataError, match=r"faces\.csv cannot be read as CSV in UTF-8: "):
        read(tmp_path)
    (tmp_path / "faces.csv").unlink()
    image(tmp_path / "images" / "a.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_bytes(b"\xff 1 1 1 1")
    with pytest.raises(DataError, match=r"a\.txt is no text in UTF-8\.$"):
        read(tmp_path)


def test_a_tenth_is_held_out_by_its_name_alone() -> None:
    held = [is_held_out(f"photo_{number}.jpg") for number in range(5000)]
    assert sum(held) == pytest.approx(5000 / HELD_OUT, rel=0.1)
    # Of all time: a photo that was held out once must not be trained on later.
    assert [number for number in range(20) if is_held_out(f"photo_{number}.jpg")] == [11, 12, 15]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"^\S+ has neither faces\.csv, nor images and labels \(YOLO\), nor JPEGImages and Annotations \(VOC\)\.$"),
        ({"faces.csv": HEADER + "\nb.png" + "," * 15}, r"^\S+ has no box of a face\.$"),
        ({"faces.csv": HEADER + "\na.png,1,2,x,4,0.9" + "," * 10}, r"^\S+faces\.csv, line 2 cannot be read \("),
        ({"faces.csv": "photo\na.png"}, r"^\S+faces\.csv has no column score, x, y, w, h, right_eye_x, "),
        ({"faces.csv": HEADER + "\na.png,1,2"}, r"^\S+faces\.csv, line 2: the row is too short\.$"),
        ({"labels/a.txt": "0 0.5 0.5 0.1"}, r"^\S+a\.txt, line 1 is not `class x y width height`, or with five"),
        ({"labels/a.txt": "0 0.5 0.5 0.1 0.1 0.3"}, r"^\S+a\.txt, line 1 is not `class x y width height`"),
        ({"labels/a.txt": "0 0.5 0.5 nan 0.1"}, r"^\S+a\.txt, line 1 is not `class x y width height`"),
        ({"faces.csv": HEADER + "\na.png,nan,2,3,4,0.9" + "," * 10}, r"^\S+faces\.csv, line 2 cannot be read \("),
        ({"faces.csv": HEADER + "\na.png,1,2,3,inf,0.9" + "," * 10}, r"^\S+faces\.csv, line 2 cannot be read \("),
        ({"faces.csv": HEADER + "\na.png,1,2,1e30,4,0.9" + "," * 10}, r"^\S+faces\.csv, line 2 cannot be read \("),
        ({"faces.csv": HEADER + "\na.png,1,2,-3,4,0.9" + "," * 10}, r"^\S+faces\.csv, line 2 cannot be read \("),
        ({"faces.csv": HEADER + "\na.png,1,2,3,4,nan" + "," * 10}, r"^\S+faces\.csv, line 2 cannot be read \("),
        ({"labels/a.txt": "0 0.5 0.5 -0.1 0.1"}, r"^\S+a\.txt, line 1 is not `class x y width height`"),
        (
            {"Annotations/a.xml": f"<annotation>{annotation('face', box=VOC_BOX.format(30, 1, 9, 9))}</annotation>"},
            r"^\S+a\.xml has a bndbox that is none\.$",
        ),
        (
            {"Annotations/a.xml": f"<annotation>{annotation('face', box=VOC_BOX.format('nan', 1, 9, 9))}</annotation>"},
            r"^\S+a\.xml has a bndbox that is none\.$",
        ),
        ({"Annotations/a.xml": "<annotation>"}, r"^\S+a\.xml is no XML \("),
        ({"Annotations/b.xml": "<annotation/>"}, r"^\S+b\.xml has no photo b in \S+JPEGImages\.$"),
        (
            {"Annotations/a.xml": f"<annotation>{annotation('face', box='<bndbox/>')}</annotation>"},
            r"^\S+a\.xml has an object without a bndbox\.$",
        ),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, text in files.items():
        write(tmp_path / name, text)
        image(tmp_path / ("images" if name.startswith("labels") else "JPEGImages") / "a.png")
    with pytest.raises(DataError, match=message) as raised:
        read(tmp_path)
    assert "\n" not in str(raised.value)


def test_no_folder_and_no_image(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match=r"^There is no folder \S+\. Name one with photos and boxes"):
        read(tmp_path / "none")
    write(tmp_path / "faces.csv", HEADER + "\n" + ROW.format(score=0.9))
    (photo,) = read(tmp_path)
    with pytest.raises(DataError, match=rf"^{re.escape(str(tmp_path))}/a.png cannot be read \(No such file"):
        photo.read()
    for content in (b"", b"no image"):
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(DataError, match=r"a\.png is no image that can be read\.$"):
            photo.read()


def test_names_of_photos_are_case_blind(tmp_path: Path) -> None:
    image(tmp_path / "images" / "A.PNG")
    write(tmp_path / "labels" / "A.txt", "0 0.5 0.5 0.5 0.5")
    assert [photo.name for photo in read(tmp_path)] == ["images/A.PNG"]
    assert ".png" in boxes.PHOTOS
