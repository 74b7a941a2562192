"""Faces in photos, by a table of boxes: what can be learned from without labels (``[data] unlabeled`` of a recipe).

    FOLDER/faces.csv   a row a face: photo, x, y, w, h, score; and expw_label, what a rater called it, "" for nothing
    FOLDER/*.zip       the photos by the names in the table; or the files themselves

The boxes are YuNet's (``detection.yunet``), in pixels of the photo; rows without a box are photos without a face. The
labels of ExpW (Zhang et al., IJCV 2018) are noisy: a second opinion, and never a test.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets.core import Dataset, Labels
from datasets.reading import UNZIPPED_ERRORS, csv_table, decoded, numbers_of
from edge_fer.core import Expression, FaceBox
from edge_fer.detection.yunet import YuNetDetector
from edge_fer.errors import DataError, InputMissingError
from edge_fer.preprocess.face_tensor import face_tensor

LEAST_PX = 30.0
"""Faces of less height tell little."""
LEAST_SCORE = 0.6
"""Boxes of less are too often none."""
RATER = "rater"
"""Name of the one task that the table labels."""


def load_photos(folder: Path, size_hw: tuple[int, int]) -> Dataset:
    """Read the faces of a table, framed as the Haar cascade frames them (``YuNetDetector.side``).

    Args:
        folder: holds ``faces.csv``.
        size_hw: what faces are brought to.

    Raises:
        InputMissingError: there is no table, or a photo of it is not there.
        DataError: the table or a photo cannot be read, or no face is large and certain enough.
    """
    table = folder / "faces.csv"
    if not table.is_file():
        raise InputMissingError(f"No {table}: faces without labels want a table with their boxes.")
    archives: list[zipfile.ZipFile] = []
    try:
        for path in sorted(folder.glob("*.zip")):
            try:
                archives.append(zipfile.ZipFile(path))
            except UNZIPPED_ERRORS:
                raise DataError(f"{path} is no ZIP archive that can be read: copy it again, or move it away.") from None
        inside = {name: archive for archive in archives for name in archive.namelist()}
        return _read(table, inside, size_hw)
    finally:
        for archive in archives:
            archive.close()


def _read(table: Path, inside: Mapping[str, zipfile.ZipFile], size_hw: tuple[int, int]) -> Dataset:
    faces: list[NDArray[np.uint8]] = []
    raters: list[int] = []
    expressions = tuple(Expression)
    name, gray = "", np.zeros((1, 1), np.uint8)
    for number, row in csv_table(table, ("photo", "x", "y", "w", "h", "score")):
        if not row["score"]:
            continue
        try:
            x, y, w, h, score = numbers_of(row[key] for key in ("x", "y", "w", "h", "score"))
            label = row.get("expw_label", "")
            rater = expressions.index(Expression(label)) if label else -1
        except ValueError:
            raise DataError(f"{table}, line {number}: a box or a label is none.") from None
        if score < LEAST_SCORE or h < LEAST_PX or w <= 0:
            continue
        if row["photo"] != name:
            name, gray = row["photo"], _photo(table.parent, row["photo"], inside)
        side = YuNetDetector.side * (w * h) ** 0.5
        box = FaceBox(x + (w - side) / 2, y + (h - side) / 2, side, side)
        faces.append(face_tensor(gray, box, size_hw, margin=0.0))
        raters.append(rater)
    if not faces:
        raise DataError(f"{table} has no face of {LEAST_PX:g} pixels with a score of {LEAST_SCORE:g}.")
    labels = Labels.single(expressions, np.array(raters, np.int64))
    return Dataset(np.stack(faces), {RATER: labels}, np.zeros(len(faces), np.bool_))


def _photo(folder: Path, name: str, inside: Mapping[str, zipfile.ZipFile]) -> NDArray[np.uint8]:
    try:
        content = inside[name].read(name) if name in inside else (folder / name).read_bytes()
    except FileNotFoundError:
        raise InputMissingError(f"{folder}: faces.csv names {name}, which is in no ZIP file there.") from None
    except (OSError, *UNZIPPED_ERRORS):
        raise DataError(f"{folder}: {name} cannot be read.") from None
    gray = decoded(content)
    if gray is None:
        raise DataError(f"{folder}: {name} cannot be read as an image.")
    return gray
