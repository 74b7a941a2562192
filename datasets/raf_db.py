"""RAF-DB (Li et al., CVPR 2017; Li & Deng, IEEE TIP 28, 2019): web photographs labeled by some forty people each.

::

    basic/EmoLabel/list_patition_label.txt        "train_00001.jpg 5", spelled so
    basic/EmoLabel/distribution_basic.txt         perhaps: "train_00001.jpg 0.1 ...", the raters' choices
    basic/Image/aligned/train_00001_aligned.jpg   100x100, a face; or Image/original/train_00001.jpg, the photograph
    basic/Annotation/manual/train_00001_manu_attri.txt   five landmarks of the photograph, gender, race, age
    basic/Annotation/boundingbox/train_00001_boundingbox.txt   left, top, right, bottom in the photograph
    compound/...                                  likewise

What each image has as in github.com/Jasp012/EmotionReco (README.md), files and codes as public loaders read them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from datasets.reading import files_below, lines_of, numbers_in, numbers_of, refuse_missing
from datasets.sample import Layout, Sample, Split
from edge_fer.core import Expression as E
from edge_fer.core import FaceBox
from edge_fer.errors import DataError

_LISTS = ("list_patition_label.txt", "list_partition_label.txt")
_BASIC: Mapping[str, E | None] = {
    "1": E.SURPRISE,
    "2": E.FEAR,
    "3": E.DISGUST,
    "4": E.HAPPINESS,
    "5": E.SADNESS,
    "6": E.ANGER,
    "7": E.NEUTRAL,
}
_COMPOUND = (
    *("happily surprised", "happily disgusted", "sadly fearful", "sadly angry", "sadly surprised", "sadly disgusted"),
    *("fearfully angry", "fearfully surprised", "angrily surprised", "angrily disgusted", "disgustedly surprised"),
)
_GENDERS = ("male", "female", "unsure")
_RACES = ("Caucasian", "African-American", "Asian")
_AGES = ("0-3", "4-19", "20-39", "40-69", "70+")


def _home(folder: Path, part: str) -> Path | None:
    """Where the lists of a part are, and where its label list is."""
    alone = [folder] if (folder.name == "compound") == (part == "compound") else []
    names = (folder / part, folder / part / part, *alone)
    return next((one for one in names if (one / "EmoLabel").is_dir() or (one / "Image" / "aligned").is_dir()), None)


def _read(folder: Path, layout: Layout, part: str) -> Iterator[Sample]:
    home = _home(folder, part)
    found = home and next((home / "EmoLabel" / name for name in _LISTS if (home / "EmoLabel" / name).is_file()), None)
    if home is None or found is None:
        raise DataError(f"{folder} has no EmoLabel/{_LISTS[0]}: the labels of RAF-DB are an archive of their own.")
    aligned, original = home / "Image" / "aligned", home / "Image" / "original"
    if not aligned.is_dir() and not original.is_dir():
        raise DataError(f"{home} has neither Image/aligned nor Image/original: unpack aligned.zip in Image.")
    votes = _votes(home / "EmoLabel" / "distribution_basic.txt")
    samples = []
    for number, line in lines_of(found):
        name, _, label = line.partition(" ")
        stem = Path(name).stem
        samples.append(
            Sample(
                aligned / f"{stem}_aligned.jpg" if aligned.is_dir() else original / name,
                label.strip(),
                layout.expression(label.strip(), f"{found}, line {number}"),
                compound=_COMPOUND[int(label) - 1] if part == "compound" else None,
                split="train" if name.startswith("train") else "test",
                votes=votes.get(name),
                **_annotated(home / "Annotation", stem, not aligned.is_dir()),
            )
        )
    there = {path.name for path in (aligned if aligned.is_dir() else original).iterdir()}
    refuse_missing([one.path for one in samples if one.path.name not in there], len(samples), found)
    yield from samples


def _annotated(folder: Path, stem: str, scene: bool) -> dict[str, Any]:
    """What is known of a person; landmarks and box only with the photograph, whose pixels they count."""
    known: dict[str, Any] = {}
    manual, box = folder / "manual" / f"{stem}_manu_attri.txt", folder / "boundingbox" / f"{stem}_boundingbox.txt"
    if manual.is_file():
        rows = [line.split() for _, line in lines_of(manual)]
        try:
            points = np.array([numbers_of(row) for row in rows[:5]], np.float32).reshape(5, 2)
            gender, race, age = (tuple("01234").index(row[0]) for row in rows[5:8])
            known["attributes"] = {"gender": _GENDERS[gender], "race": _RACES[race], "age": _AGES[age]}
        except (ValueError, IndexError):
            raise DataError(f"{manual}: five landmarks, gender, race and age should stand there.") from None
        if scene:
            known["landmarks"] = points
    if scene and box.is_file():
        sides = numbers_in(box).ravel().tolist()
        if len(sides) != 4:
            raise DataError(f"{box}: left, top, right and bottom should stand there, not {len(sides)} numbers.")
        left, top, right, bottom = sides
        known["box"] = FaceBox(left, top, right - left, bottom - top)
    return known


def _votes(path: Path) -> dict[str, tuple[float, ...]]:
    if not path.is_file():
        return {}
    votes = {}
    for number, line in lines_of(path):
        name, *choices = line.split()
        try:
            votes[name] = tuple(numbers_of(choices))
        except ValueError:
            votes[name] = ()
        if len(votes[name]) != len(_BASIC):
            raise DataError(f"{path}, line {number}: an image and seven numbers should stand there.")
    return votes


LAYOUT: Layout = Layout(
    name="raf-db",
    title="RAF-DB, basic (Li et al., 2017)",
    wants="basic/EmoLabel, basic/Image/aligned",
    labels=_BASIC,
    recognizes=lambda folder: _home(folder, "basic") is not None,
    read=lambda folder: _read(folder, LAYOUT, "basic"),
    counts={"train": 12271, "test": 3068},
    survey="29,672 images; the published basic and compound parts are 15,339 and 3,954 of them.",
    licence="research, signed agreement",
    splits=True,
    faces=True,
)
COMPOUND: Layout = dataclasses.replace(
    LAYOUT,
    name="raf-db-compound",
    title="RAF-DB, compound (Li et al., 2017)",
    wants="compound/EmoLabel, compound/Image/aligned",
    labels={str(code): None for code in range(1, len(_COMPOUND) + 1)},
    recognizes=lambda folder: _home(folder, "compound") is not None and _home(folder, "basic") is None,
    read=lambda folder: _read(folder, COMPOUND, "compound"),
    counts={"images": 3954},
)


def _kaggle(folder: Path) -> Path | None:
    return next(
        (one for one in (folder, folder / "DATASET") if (one / "train" / "1").is_dir() and (one / "test").is_dir()),
        None,
    )


def _read_folders(folder: Path) -> Iterator[Sample]:
    home = _kaggle(folder)
    splits: tuple[Split, ...] = ("train", "test")
    for split in splits:
        for place in sorted(path for path in (home or folder).glob(f"{split}/*") if path.is_dir()):
            expression = FOLDERS.expression(place.name, place)
            for path in files_below(place, ".jpg", ".png"):
                yield Sample(path, place.name, expression, split=split)


FOLDERS = dataclasses.replace(
    LAYOUT,
    name="raf-db-folders",
    title="RAF-DB, basic, a folder for each code",
    wants="DATASET/train/1/train_00001_aligned.jpg and the like, DATASET/test",
    recognizes=lambda folder: _kaggle(folder) is not None,
    read=_read_folders,
)
