"""Faces in photos, by a table of boxes."""

from __future__ import annotations

import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

import datasets
from datasets.photos import load_photos
from edge_fer.core import Expression as E
from edge_fer.errors import DataError, InputMissingError

HEAD = "photo,width,height,x,y,w,h,score,expw_label"


def folder_of(folder: Path, *rows: str, head: str = HEAD, archive: bool = False) -> Path:
    """Two photos, of which the first gets brighter to the right, and their table."""
    ramp = np.tile(np.arange(200, dtype=np.uint8), (160, 1))
    folder.mkdir(parents=True)
    for name, image in (("a.png", ramp), ("b.png", 255 - ramp)):
        content = cv2.imencode(".png", image)[1].tobytes()
        if archive:
            with zipfile.ZipFile(folder / f"photos_{name[0]}.zip", "w") as packed:
                packed.writestr(name, content)
        else:
            (folder / name).write_bytes(content)
    (folder / "faces.csv").write_text("\n".join([head, *rows]) + "\n")
    return folder


ROWS = (
    "a.png,200,160,60,40,60,80,0.9,anger",
    "a.png,200,160,0,0,30,29,0.9,fear",  # too small
    "a.png,200,160,60,40,60,80,0.5,fear",  # not certain
    "b.png,200,160,10,10,40,40,0.7,",
    "b.png,200,160,,,,,,",  # no face
)


@pytest.mark.parametrize("archive", [False, True])
def test_faces_are_framed_as_haar_frames_them(archive: bool, tmp_path: Path) -> None:
    data = load_photos(folder_of(tmp_path / "photos", *ROWS, archive=archive), (48, 48))
    assert data.images.shape == (2, 48, 48, 1)
    labels = data.labels["rater"]
    assert [labels.expressions[one] if one >= 0 else None for one in labels.truth] == [E.ANGER, None]
    # A square about the box's center, of 1.1 times the geometric mean of its sides: 76 pixels from 52 on.
    assert data.images[0][24, [0, -1], 0] == pytest.approx([52, 127], abs=2)
    # What reaches over the edge repeats it.
    assert data.images[1][24, 0, 0] == pytest.approx(255 - 8, abs=2)


@pytest.mark.parametrize(
    ("rows", "head", "error", "message"),
    [
        (["c.png,1,1,0,0,50,50,0.9,"], HEAD, InputMissingError, "names c.png, which is in no ZIP file"),
        (["a.png,1,1,0,0,50,50,0.9,bored"], HEAD, DataError, "line 2: a box or a label is none"),
        (["a.png,1,1,0,zero,50,50,0.9,"], HEAD, DataError, "line 2: a box or a label is none"),
        (["a.png,1,1,0,0,50,50,0.3,"], HEAD, DataError, "no face of 30 pixels"),
        ([], HEAD, DataError, "no face of 30 pixels"),
        ([], "photo,x,y,w,h", DataError, "has no column score"),
        (["faces.csv,1,1,0,0,50,50,0.9,"], HEAD, DataError, "cannot be read as an image"),
    ],
)
def test_what_is_no_such_table(
    rows: list[str], head: str, error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        load_photos(folder_of(tmp_path / "photos", *rows, head=head), (48, 48))


def test_a_folder_without_a_table(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match=r"No .*faces\.csv"):
        load_photos(tmp_path, (48, 48))


def test_they_stand_beside_the_splits_under_the_name_of_their_folder(data: Path, tmp_path: Path) -> None:
    for file in data.glob("*.csv"):
        (tmp_path / file.name).symlink_to(file)
    folder_of(tmp_path / "photos", *ROWS)
    splits = datasets.load(tmp_path, unlabeled="photos")
    assert (list(splits), len(splits["photos"])) == (["Training", "PublicTest", "photos"], 2)
    folder_of(tmp_path / "Training", *ROWS)
    with pytest.raises(DataError, match="cannot be called Training"):
        datasets.load(tmp_path, unlabeled="Training")
