"""Whatever is wrong with a file of a data set is one sentence: of every loader, by many kinds of damage."""

from __future__ import annotations

import re
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from faces_csv import write_csvs
from miniatures import MADE, write_image, write_text

import datasets
from datasets.boxes import read
from datasets.catalog import read_all, recognize
from datasets.contact_sheet import show
from datasets.faces import as_dataset
from datasets.landmarks_file import CropLandmarks, write_landmarks
from datasets.photos import load_photos
from datasets.reading import decoded, read_gray
from edge_fer.errors import DataError, EdgeFerError, InputMissingError

TEXTS = (".txt", ".csv", ".xml", ".lst")


def png(width: int, height: int) -> bytes:
    """Of which only the head is there."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def fields(content: bytes) -> list[tuple[int, int]]:
    """Where the fields of a text begin and end: some of them, spread over all of it."""
    places, begin = [], 0
    for place, byte in enumerate(content + b"\n"):
        if byte in b' \t,;\n"</>=':
            places += [(begin, place)] if place > begin else []
            begin = place + 1
    return places[:: max(1, len(places) // 8)]


def damaged_texts(content: bytes) -> list[bytes]:
    """A text as it comes from a wrong program, a torn download, another encoding, a tired hand."""
    whole = [
        b"",
        b"\n\n",
        b"x",
        content[: len(content) // 2],
        content[:-2],
        content + b"M\xfcller,\xe9,1\n",
        b"\xff\xfe",
    ]
    whole += [content.replace(b"\n", b"\0\n"), content + b"1\n", content + b'"', b"M\xfcller" + content]
    words = (b"", b"word", b"78.0", b"-1", b"nan", b"1e999", b"9" * 40, b"\xc2\xb2", b"1 2 3", b"1,2")
    return whole + [content[:begin] + word + content[end:] for begin, end in fields(content) for word in words]


def cut(content: bytes) -> list[bytes]:
    """Cut off at many places, and other files. In a .mat no byte is turned over: of that SciPy's reader may die."""
    return [content[:length] for length in range(0, len(content), max(1, len(content) // 40))] + [b"PK\3\4" * 30]


def damaged_arrays(content: bytes) -> list[bytes]:
    """Cut off, or with one byte turned over: many of its head, and some of what it holds."""
    places = [*range(0, min(len(content), 130), 2), *range(0, len(content), max(1, len(content) // 40))]
    return cut(content) + [content[:one] + bytes([content[one] ^ 0xFF]) + content[one + 1 :] for one in places]


def outcome(act: Callable[[], object]) -> None:
    """It works, or says in a sentence why not; any other error is a failed test."""
    try:
        act()
    except EdgeFerError as error:
        assert isinstance(error, DataError | InputMissingError) and "\n" not in str(error)


def raf_db_with_photographs(folder: Path) -> None:
    """RAF-DB whose boxes and landmarks count."""
    MADE["raf-db"](folder)
    home = folder / "basic" / "Image"
    (home / "aligned").rename(home / "original")
    for path in (home / "original").iterdir():
        path.rename(path.with_name(path.name.replace("_aligned", "")))


@pytest.mark.parametrize("name", [*MADE, "photographs of raf-db"])
def test_a_damaged_small_file_is_read_or_refused_in_a_sentence(name: str, tmp_path: Path) -> None:
    MADE.get(name, raf_db_with_photographs)(tmp_path)
    layout, place = recognize(tmp_path)
    sheet = tmp_path.with_suffix(".png")

    def all_of_it() -> None:
        samples = read_all(layout, place)
        show(tmp_path, sheet, 2)
        if name != "fer2013":
            as_dataset(layout, samples, (48, 48))

    for suffix, damage in {**dict.fromkeys(TEXTS, damaged_texts), ".npy": damaged_arrays, ".mat": cut}.items():
        alike = dict[str, Path]()  # of the many that each frame has, one
        for path in sorted(tmp_path.rglob(f"*{suffix}")):
            alike.setdefault(f"{path.parents[1].name} {path.stem.rpartition('_')[2]}", path)
        for path in list(alike.values())[:4]:
            whole = path.read_bytes()
            for content in damage(whole if len(whole) < 100_000 else whole[:20_000]):
                path.write_bytes(content)
                outcome(all_of_it)
            path.write_bytes(whole)
    outcome(all_of_it)


def faces_csv(folder: Path) -> Path:
    points = ",".join(
        f"{one}_{axis}" for one in ("right_eye", "left_eye", "nose", "right_mouth", "left_mouth") for axis in "xy"
    )
    rows = [f"a.png,1,2,40,44,0.9,{','.join(map(str, range(10)))},anger", f"b.png,,,,,,{',' * 9},"]
    write_text(folder / "faces.csv", "\n".join([f"photo,x,y,w,h,score,{points},expw_label", *rows]) + "\n")
    content = cv2.imencode(".png", np.zeros((60, 60), np.uint8))[1].tobytes()
    with zipfile.ZipFile(folder / "photos.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in ("a.png", "b.png"):
            packed.writestr(name, content)
    return folder / "faces.csv"


def yolo(folder: Path) -> Path:
    write_image(folder / "images" / "a.png")
    write_text(folder / "labels" / "a.txt", f"0 0.5 0.5 0.4 0.4 {' '.join(['0.5 0.4 2'] * 5)}\n0 0.1 0.1 0.1 0.1\n")
    return folder / "labels" / "a.txt"


def voc(folder: Path) -> Path:
    write_image(folder / "JPEGImages" / "a.png")
    box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>32</ymax></bndbox>"
    text = f'<?xml version="1.0" encoding="UTF-8"?><a><object><name>face</name>{box}</object></a>\n'
    write_text(folder / "Annotations" / "a.xml", text)
    return folder / "Annotations" / "a.xml"


@pytest.mark.parametrize("make", [faces_csv, yolo, voc])
def test_damaged_boxes_of_photos_are_read_or_refused_in_a_sentence(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    path = make(tmp_path)
    whole = path.read_bytes()
    for content in damaged_texts(whole):
        path.write_bytes(content)
        outcome(lambda: [photo.read() for photo in read(tmp_path)])
        if make is faces_csv:
            outcome(lambda: load_photos(tmp_path, (48, 48)))
    path.write_bytes(whole)
    assert [photo.read().dtype for photo in read(tmp_path)]
    if make is faces_csv:
        assert len(load_photos(tmp_path, (48, 48))) == 1
        for content in damaged_arrays((tmp_path / "photos.zip").read_bytes()):
            (tmp_path / "photos.zip").write_bytes(content)
            outcome(lambda: load_photos(tmp_path, (48, 48)))
            outcome(lambda: [photo.read() for photo in read(tmp_path)])


def test_damaged_landmarks_are_read_or_refused_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "landmarks.npz"
    write_landmarks(path, np.arange(48, dtype=np.uint8).reshape(3, 4, 4, 1), np.ones((3, 10), np.float32))
    for content in damaged_arrays(path.read_bytes()):
        path.write_bytes(content)
        outcome(lambda: CropLandmarks.read(path))


def test_damaged_lists_of_fer2013_are_read_or_refused_in_a_sentence(tmp_path: Path) -> None:
    write_csvs(tmp_path, training=7, public=7)
    for content in (b"row\n78.0\n", b"row\nM\xfcller\n", b"rows\n1\n", b"row\n" + b"9" * 5000, b"row,x\n1\n"):
        (tmp_path / "exclude.csv").write_bytes(content)
        with pytest.raises(DataError, match=r"exclude\.csv"):
            datasets.load(tmp_path, exclude="exclude.csv")


@pytest.mark.parametrize(
    ("name", "place", "content", "sentence"),
    [
        ("raf-db", "boundingbox/train_00001_boundingbox.txt", b"1 2 3\n", "left, top, right and bottom should stand"),
        ("raf-db", "distribution_basic.txt", b"train_00001.jpg 0 none 0 0 0 0 1\n", "line 1: an image and seven"),
        ("raf-db", "manual/train_00001_manu_attri.txt", b"1 2\n" * 5 + b"-1\n2\n3\n", "gender, race and age should"),
        ("affectnet", "training.csv", b"1/m\xfcller.jpg,1\n", "training.csv cannot be read as CSV in UTF-8"),
        ("fer+", "FER2013Train/label.csv", b"m\xfcller.png\n", "label.csv cannot be read as CSV in UTF-8"),
        (
            "tfd",
            "TFD_48x48.mat",
            b"MATLAB 5.0 MAT-file" + b" " * 105 + b"\0\1IM" + b"\x0f\0\0\0",
            "cannot be read as TFD",
        ),
        ("ck+", "S005_001_00000005_emotion.txt", b"1.2.3\n", "1.2.3 is no label of CK+"),
        ("ck+", "S005_001_00000005_facs.txt", b"12\n", "an action unit and its intensity"),
        ("emotionet", "dataFile_0001.txt", b"https://example.org/a.jpg\n", "line 1: two addresses and 60 numbers"),
        ("mmi", "1/session.xml", b'<?xml version="1.0" encoding="klingon"?><session/>', "session.xml is no XML"),
    ],
)
def test_what_the_sentence_says(name: str, place: str, content: bytes, sentence: str, tmp_path: Path) -> None:
    (raf_db_with_photographs if name == "raf-db" else MADE[name])(tmp_path)
    (path,) = [one for one in tmp_path.rglob(place.rpartition("/")[2]) if str(one).endswith(place)][:1]
    path.write_bytes(content)
    with pytest.raises(DataError, match=re.escape(sentence)):
        read_all(*recognize(tmp_path))


def test_an_image_that_claims_more_pixels_than_can_be(tmp_path: Path) -> None:
    MADE["folders"](tmp_path)
    path = tmp_path / "train" / "angry" / "1.png"
    path.write_bytes(png(60000, 60000))
    assert decoded(path.read_bytes()) is None
    for act in (lambda: read_gray(path), lambda: datasets.load(tmp_path)):
        with pytest.raises(DataError, match=r"1\.png cannot be read as an image"):
            act()
    show(tmp_path, tmp_path / "sheet.png")


@pytest.mark.parametrize(
    ("name", "place"),
    [("sfew", "Train/Angry"), ("sfew-faces", "Train_Aligned_Faces/Angry"), ("raf-db-folders", "train")],
)
def test_a_set_without_an_image_for_training(name: str, place: str, tmp_path: Path) -> None:
    MADE[name](tmp_path)
    for path in (tmp_path / "DATASET" if name == "raf-db-folders" else tmp_path).glob(f"{place}/**/*.*g"):
        path.unlink()
    with pytest.raises(DataError, match=f"is {name} and has no image for training"):
        datasets.load(tmp_path)


def test_a_second_download_of_a_frame_is_passed_over(tmp_path: Path) -> None:
    MADE["ck+"](tmp_path)
    first = min(tmp_path.rglob("S005_001_00000004.png"))
    shutil.copy(first, first.with_name("S005_001_00000004 (1).png"))
    assert len(read_all(*recognize(tmp_path))) == 15
