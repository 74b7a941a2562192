"""Photos with boxes of faces, as people have them: what a face detector is trained and measured on.

Three layouts are read:

* ``faces.csv`` beside photos, in folders or ZIP files: pseudo-labels with score and landmarks, a row a face, or a row
  without a box for a photo without faces. Faces of a score below ``CONFIDENT`` are ignored regions;
* YOLO: ``images/NAME.jpg`` and ``labels/NAME.txt`` with ``class x y width height`` a line, as fractions of the photo,
  and five landmarks ``x y`` or ``x y visibility`` behind, where there are any;
* VOC: ``JPEGImages/NAME.jpg`` and ``Annotations/NAME.xml``; difficult objects are ignored regions. Every object is
  taken for a face, unless one of them is named "face": then those alone.
"""

from __future__ import annotations

import hashlib
import math
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.reading import UNZIPPED_ERRORS, csv_table, decoded, xml_in
from edge_fer.errors import DataError, InputMissingError

POINTS = 5
"""Landmarks of a face: right eye, left eye, tip of the nose, right and left corner of the mouth (the person's own)."""
BACKGROUND, FACE, IGNORED = 0, 1, 2
"""What a box is: none at all, a face to find, a region that is neither reward nor error."""
CONFIDENT = 0.6
"""Score of a pseudo-label from which it is a face to find."""
HELD_OUT = 10
"""One photo in so many is held out."""
MOST_PX = 1e6
"""That a number of a box can be."""
PHOTOS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo and what is known to be in it.

    Attributes:
        name: in its data set.
        read: gives the gray image, uint8 (height, width).
        kinds: int32 (n,), ``FACE`` or ``IGNORED``.
        boxes: float32 (n, 4), left, top, width, height in pixels.
        points: float32 (n, 5, 2), NaN where nobody knows them.
    """

    name: str
    read: Callable[[], NDArray[np.uint8]]
    kinds: NDArray[np.int32]
    boxes: NDArray[np.float32]
    points: NDArray[np.float32]


def is_held_out(name: str) -> bool:
    """Whether a photo is one of the tenth that no training sees: its name's SHA-256 alone decides."""
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % HELD_OUT == 0


def read(folder: Path) -> list[Photo]:
    """The photos of a folder in one of the three layouts, in the order of their names.

    Raises:
        InputMissingError: there is no such folder.
        DataError: it is in none of the layouts, or a label cannot be read.
    """
    if not folder.is_dir():
        raise InputMissingError(f"There is no folder {folder}. Name one with photos and boxes of faces.")
    if (folder / "faces.csv").is_file():
        photos = _from_csv(folder)
    elif (folder / "labels").is_dir() and (folder / "images").is_dir():
        photos = [_from_yolo(folder, path) for path in _images(folder / "images")]
    elif (folder / "Annotations").is_dir() and (folder / "JPEGImages").is_dir():
        photos = _from_voc(folder)
    else:
        raise DataError(
            f"{folder} has neither faces.csv, nor images and labels (YOLO), nor JPEGImages and Annotations (VOC)."
        )
    for photo in photos:
        photo.kinds[(photo.boxes[:, 2:] == 0).any(axis=1)] = IGNORED
    if not any((photo.kinds == FACE).any() for photo in photos):
        raise DataError(f"{folder} has no box of a face.")
    return photos


def _from_csv(folder: Path) -> list[Photo]:
    archives = []
    for path in sorted(folder.glob("*.zip")):
        try:
            archives.append(zipfile.ZipFile(path))
        except UNZIPPED_ERRORS:
            raise DataError(f"{path} is no ZIP archive that can be read: copy it again, or move it away.") from None
    members = {name: archive for archive in archives for name in archive.namelist()}

    def reader(name: str) -> Callable[[], NDArray[np.uint8]]:
        if name in members:
            return lambda: _read_member(members[name], name, folder / name)
        return lambda: _read_image(folder / name)

    rows: dict[str, list[tuple[float, ...]]] = {}
    points_of = [
        f"{point}_{axis}" for point in ("right_eye", "left_eye", "nose", "right_mouth", "left_mouth") for axis in "xy"
    ]
    for number, row in csv_table(folder / "faces.csv", ("photo", "score", "x", "y", "w", "h", *points_of)):
        try:
            found = rows.setdefault(row["photo"], [])
            if row["x"]:
                values = [float(row[key]) for key in ("score", "x", "y", "w", "h")]
                if not math.isfinite(values[0]) or not _is_box(values[1:]):
                    raise ValueError("no box")
                found.append((*values, *(float(row[key] or "nan") for key in points_of)))
        except ValueError as error:
            raise DataError(f"{folder / 'faces.csv'}, line {number} cannot be read ({error!r}).") from None
    photos = []
    for name, found in sorted(rows.items()):
        table = np.array(found, np.float64).reshape(-1, 5 + 2 * POINTS)
        kinds = np.where(table[:, 0] >= CONFIDENT, FACE, IGNORED).astype(np.int32)
        photos.append(Photo(name, reader(name), kinds, table[:, 1:5].astype(np.float32), _points(table[:, 5:])))
    return photos


def _from_yolo(folder: Path, path: Path) -> Photo:
    labels = folder / "labels" / path.relative_to(folder / "images").with_suffix(".txt")
    gray = _read_image(path)
    size_wh = np.array(gray.shape[::-1], np.float32)
    boxes: list[NDArray[Any]] = []
    points: list[NDArray[Any]] = []
    lines = _text_of(labels).splitlines() if labels.is_file() else []  # without a file: no faces
    for number, line in enumerate(lines, start=1):
        try:
            _, x, y, width, height, *rest = (float(value) for value in line.split())
            if len(rest) not in (0, 2 * POINTS, 3 * POINTS) or not _is_box((x, y, width, height)):
                raise ValueError(f"{5 + len(rest)} numbers")
        except ValueError:
            raise DataError(
                f"{labels}, line {number} is not `class x y width height`, or with five landmarks behind."
            ) from None
        boxes.append(np.array([x - width / 2, y - height / 2, width, height]) * np.tile(size_wh, 2))
        marks = np.array(rest).reshape(POINTS, -1) if rest else np.full((POINTS, 2), np.nan)
        unseen = (marks[:, 2:] == 0).any() or (marks[:, :2] < 0).any()
        points.append(np.full((POINTS, 2), np.nan) if unseen else marks[:, :2] * size_wh)
    return _photo(path, folder, boxes, points, [FACE] * len(boxes))


def _from_voc(folder: Path) -> list[Photo]:
    trees = {path.stem: xml_in(path) for path in sorted((folder / "Annotations").glob("*.xml"))}
    only_faces = any(one.findtext("name") == "face" for tree in trees.values() for one in tree.iter("object"))
    images = {path.stem: path for path in _images(folder / "JPEGImages")}
    photos = []
    for name, tree in trees.items():
        if name not in images:
            raise DataError(f"{folder / 'Annotations' / name}.xml has no photo {name} in {folder / 'JPEGImages'}.")
        boxes, kinds = [], []
        for one in tree.iter("object"):
            if only_faces and one.findtext("name") != "face":
                continue
            try:
                left, top, right, bottom = (
                    float(one.findtext(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax")
                )
            except ValueError:
                raise DataError(f"{folder / 'Annotations' / name}.xml has an object without a bndbox.") from None
            if not _is_box((left, top, right - left, bottom - top)):
                raise DataError(f"{folder / 'Annotations' / name}.xml has a bndbox that is none.")
            boxes.append(np.array([left, top, right - left, bottom - top]))
            kinds.append(IGNORED if one.findtext("difficult") == "1" else FACE)
        photos.append(_photo(images[name], folder, boxes, [np.full((POINTS, 2), np.nan)] * len(boxes), kinds))
    return photos


def _is_box(numbers: Sequence[float]) -> bool:
    """Whether x, y, width and height can be a box. One without area is: WIDER FACE has such, and they are ignored."""
    return all(abs(one) <= MOST_PX for one in numbers) and min(numbers[2:]) >= 0


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise DataError(f"{path} is no text in UTF-8.") from None


def _photo(
    path: Path,
    folder: Path,
    boxes: Sequence[NDArray[Any]],
    points: Sequence[NDArray[Any]],
    kinds: Sequence[int],
) -> Photo:
    return Photo(
        name=path.relative_to(folder).as_posix(),
        read=lambda: _read_image(path),
        kinds=np.array(kinds, np.int32),
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        points=_points(np.array(points, np.float64)),
    )


def _points(numbers: NDArray[np.float64]) -> NDArray[np.float32]:
    """Float32 (n, 5, 2); what no place in a photo can be, nobody knows."""
    known = np.where(np.abs(numbers) <= MOST_PX, numbers, np.nan)
    return known.astype(np.float32).reshape(-1, POINTS, 2)


def _images(folder: Path) -> Iterator[Path]:
    yield from (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in PHOTOS)


def _read_image(path: Path) -> NDArray[np.uint8]:
    try:
        return _image(path.read_bytes(), path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from None
    except ValueError:  # a zero byte in its name
        raise DataError(f"{path} cannot be a file.") from None


def _read_member(archive: zipfile.ZipFile, name: str, path: Path) -> NDArray[np.uint8]:
    try:
        return _image(archive.read(name), path)
    except UNZIPPED_ERRORS as error:
        raise DataError(f"{path} cannot be read from {archive.filename} ({error}).") from None


def _image(content: bytes, path: Path) -> NDArray[np.uint8]:
    image = decoded(content)
    if image is None:
        raise DataError(f"{path} is no image that can be read.")
    return image
