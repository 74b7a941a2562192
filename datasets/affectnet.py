"""AffectNet (Mollahosseini et al., IEEE TAC 10, 2019): web photographs with label, valence and arousal.

As it was first given out::

    Manually_Annotated_file_lists/training.csv, validation.csv     subDirectory_filePath, face_x, face_y, face_width,
                                  face_height, facial_landmarks ("x;y;x;y;..."), expression, valence, arousal
    Manually_Annotated/Manually_Annotated_Images/103/29a3....jpg

and as it is now, the faces cut out, of the eight expressions alone::

    train_set/images/0.jpg, train_set/annotations/0_exp.npy, 0_val.npy, 0_aro.npy, 0_lnd.npy;  val_set likewise

Columns, paths and codes as in github.com/coder-xinxiaohai/AffectNet_Processing and other public loaders. The test set
is not public. -2 stands for no valence and no arousal.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.lib.format import read_array

from datasets.reading import MOST, csv_rows, folder_named, numbers_of, refuse_missing
from datasets.sample import Layout, Sample, Split
from edge_fer.core import Expression as E
from edge_fer.core import FaceBox
from edge_fer.errors import DataError

_CODES: dict[str, E | None] = {
    "0": E.NEUTRAL,
    "1": E.HAPPINESS,
    "2": E.SADNESS,
    "3": E.SURPRISE,
    "4": E.FEAR,
    "5": E.DISGUST,
    "6": E.ANGER,
    "7": E.CONTEMPT,
    "8": None,
    "9": None,
    "10": None,
}
_LISTS: dict[str, Split] = {"training.csv": "train", "validation.csv": "validation"}
_SETS: dict[str, Split] = {"train_set": "train", "val_set": "validation"}
_POINTS = 68


def _lists(folder: Path) -> Path | None:
    places = (folder, *(folder / name for name in ("Manually_Annotated_file_lists", "Manually_Annotated")))
    return next((one for one in places if (one / "training.csv").is_file() or (one / "validation.csv").is_file()), None)


def _read_lists(folder: Path) -> Iterator[Sample]:
    lists, images = _lists(folder), folder_named(folder, "Manually_Annotated_Images")
    if lists is None or images is None:
        lacking = "training.csv" if lists is None else "Manually_Annotated_Images"
        raise DataError(f"{folder} has no {lacking}: unpack both the lists and the images of AffectNet.")
    for name, split in _LISTS.items():
        path = lists / name
        if not path.is_file():
            raise DataError(f"{path} is not there: AffectNet is training.csv and validation.csv.")
        samples = list(_rows(path, images, split))
        refuse_missing([one.path for one in samples if not one.path.is_file()], len(samples), path)
        yield from samples


def _rows(path: Path, images: Path, split: Split) -> Iterator[Sample]:
    for number, row in csv_rows(path):
        if number == 1 and row[:1] == ["subDirectory_filePath"]:  # not every copy has a head in both lists
            continue
        try:
            name, *sides, landmarks, label, valence_text, arousal_text = row
            x, y, w, h = numbers_of(sides)
            points = np.array(numbers_of(landmarks.split(";")), np.float32).reshape(-1, 2)
            valence, arousal = numbers_of((valence_text, arousal_text))
        except ValueError:
            raise DataError(f"{path}, line {number}: not the nine columns of AffectNet's lists.") from None
        if len(points) != _POINTS:
            raise DataError(f"{path}, line {number}: {len(points)} landmarks, not {_POINTS}.")
        yield Sample(
            images / name,
            label,
            LAYOUT.expression(label, f"{path}, line {number}"),
            split=split,
            box=FaceBox(x, y, w, h),
            landmarks=points,
            valence=None if valence < -1 else valence,
            arousal=None if arousal < -1 else arousal,
        )


def _has_sets(folder: Path) -> bool:
    homes = [home for name in _SETS if (home := folder_named(folder, name))]
    return any((home / part).is_dir() for home in homes for part in ("images", "annotations"))


def _read_sets(folder: Path) -> Iterator[Sample]:
    for name, split in _SETS.items():
        home = folder_named(folder, name)
        if home is None or not (home / "images").is_dir() or not (home / "annotations").is_dir():
            raise DataError(
                f"{folder} has no {name}/images with {name}/annotations: AffectNet is train_set and val_set."
            )
        files = sorted((home / "annotations").glob("*_exp.npy"))
        if not files:
            raise DataError(f"{home} has no annotations/*_exp.npy: it is not whole, or AffectNet+, which is in JSON.")
        samples = [_annotated(path, home / "images", split) for path in files]
        refuse_missing([one.path for one in samples if not one.path.is_file()], len(samples), home / "annotations")
        yield from samples


def _annotated(path: Path, images: Path, split: Split) -> Sample:
    stem = path.name.removesuffix("_exp.npy")
    try:
        parts = {what: path.with_name(f"{stem}_{what}.npy").read_bytes() for what in ("exp", "val", "aro", "lnd")}
    except FileNotFoundError as error:
        raise DataError(f"{error.filename} is not there: the annotations are not whole; unpack them anew.") from None
    try:
        values = {what: read_array(io.BytesIO(content), allow_pickle=False) for what, content in parts.items()}
        label = str(int(values["exp"]))
        valence, arousal = numbers_of(str(values[what].item()) for what in ("val", "aro"))
        points = values["lnd"].astype(float).reshape(_POINTS, 2)
        if not (np.abs(points) <= MOST).all():
            raise ValueError("no landmarks")
    except Exception:  # NumPy brings out a dozen kinds of a damaged file
        raise DataError(
            f"{path}: its annotation is none of AffectNet ({_POINTS} landmarks and three numbers)."
        ) from None
    return Sample(
        images / f"{stem}.jpg",
        label,
        FACES.expression(label, path),
        split=split,
        landmarks=points.astype(np.float32),
        valence=None if valence < -1 else valence,
        arousal=None if arousal < -1 else arousal,
    )


LAYOUT = Layout(
    name="affectnet",
    title="AffectNet (Mollahosseini et al., 2019)",
    wants="training.csv, validation.csv, Manually_Annotated_Images",
    labels=_CODES,
    recognizes=lambda folder: (
        _lists(folder) is not None or folder_named(folder, "Manually_Annotated_Images") is not None
    ),
    read=_read_lists,
    counts={"train": 414799, "validation": 5500},
    survey="450,000 labeled by hand, 420,299 of them public; a fifth of these is not a face, or not clear.",
    licence="research, signed agreement of a professor",
    splits=True,
)
FACES = dataclasses.replace(
    LAYOUT,
    name="affectnet-faces",
    title="AffectNet, faces cut out",
    wants="train_set/images, train_set/annotations, val_set",
    labels={code: expression for code, expression in _CODES.items() if expression},
    recognizes=_has_sets,
    read=_read_sets,
    counts={"train": 287651, "validation": 3999},
    survey="287,651 and 3,999 of the eight expressions; 283,901 and 3,500 without contempt.",
    faces=True,
)
