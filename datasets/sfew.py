"""SFEW 2.0 (Dhall et al., ICCV Workshops 2011; EmotiW 2015): frames of AFEW's clips.

``Train/Angry/Airheads_000519240_00000005.png`` (film, clip, number) and ``Val/...``, or the faces of these alone,
``Train_Aligned_Faces/Angry/...`` and ``Val_Aligned_Faces`` (or ``..._new``), as public loaders name them. The labels
of the test set are not public. SFEW 1.0 (``Set1``, ``Set2``) has other splits.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

from datasets.afew import LAYOUT as AFEW
from datasets.reading import files_below, folder_named, some_name_fits
from datasets.sample import Layout, Sample, Split, class_folders
from edge_fer.errors import DataError

_FACES: dict[Split, tuple[str, ...]] = {
    "train": ("Train_Aligned_Faces",),
    "validation": ("Val_Aligned_Faces", "Val_Aligned_Faces_new"),
}
_SCENES: dict[Split, tuple[str, ...]] = {
    "train": ("Train", "Train_SFEW_2_0"),
    "validation": ("Val", "Val_SFEW_2_0"),
}
_NAME = re.compile(r"(.+)_(\d{9})_(\d{8})(?:_.*)?")


def _is_faces(folder: Path) -> bool:
    return any(folder_named(folder, *names) for names in _FACES.values())


def _is_scenes(folder: Path) -> bool:
    homes = [home for names in _SCENES.values() if (home := folder_named(folder, *names))]
    places = [place for home in homes for place in home.iterdir() if place.name.capitalize() in AFEW.labels]
    return any(some_name_fits(place, _NAME) for place in places) or _is_first(folder)


def _is_first(folder: Path) -> bool:
    release = folder_named(folder, "SFEW-SPI-Release")
    return release is not None and folder_named(release, "Set1") is not None


def _samples(folder: Path, splits: dict[Split, tuple[str, ...]]) -> Iterator[Sample]:
    if _is_first(folder):
        raise DataError(f"{folder} is SFEW 1.0 (Set1, Set2), whose splits share films: get SFEW 2.0 (Train, Val).")
    for split, names in splits.items():
        home = folder_named(folder, *names)
        if home is None:
            raise DataError(f"{folder} has no {names[0]}: SFEW is for training and validation, side by side.")
        for label, place in class_folders(home, AFEW):
            expression = AFEW.labels[label]
            for path in files_below(place, ".png", ".jpg"):
                match = _NAME.fullmatch(path.stem)
                sequence = f"{match[1]}_{match[2]}" if match else None
                film = {"film": match[1]} if match else {}
                yield Sample(path, label, expression, sequence=sequence, split=split, attributes=film)


LAYOUT = Layout(
    name="sfew",
    title="SFEW 2.0 (Dhall et al., 2011)",
    wants="Train/Angry/Airheads_000519240_00000005.png and the like, Val",
    labels=AFEW.labels,
    recognizes=_is_scenes,
    read=lambda folder: _samples(folder, _SCENES),
    counts={"train": 958, "validation": 436},
    survey="1,766 images: 958 for training, 436 for validation, 372 without public labels.",
    licence="EmotiW agreement: research",
    splits=True,
)
FACES = dataclasses.replace(
    LAYOUT,
    name="sfew-faces",
    title="SFEW 2.0, faces cut out",
    wants="Train_Aligned_Faces/Angry/..., Val_Aligned_Faces",
    recognizes=_is_faces,
    read=lambda folder: _samples(folder, _FACES),
    counts={},
    survey="faces that were found in SFEW's images: fewer than these.",
    faces=True,
)
