"""The expression data sets that people have on disk, in the forms in which they have them: one file a data set."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from datasets.cache import cached
from datasets.catalog import read_all, recognize
from datasets.ck48 import LAYOUT as CK48
from datasets.core import Dataset, Labels, truth_for
from datasets.faces import as_dataset, print_note
from datasets.fer2013 import CSV_NAMES, SIDE, load_csv
from datasets.fer2013 import LAYOUT as FER2013
from datasets.folders import LAYOUT as FOLDERS
from datasets.folders import held_out, is_split, load_classes, load_folders
from datasets.landmarks_file import NAME as LANDMARKS
from datasets.landmarks_file import CropLandmarks, digest_of, marks_of_all
from datasets.photos import load_photos
from datasets.sample import Layout, Split
from datasets.sequences import FRAMES
from edge_fer.errors import DataError, InputMissingError
from edge_fer.model.spec import Head
from edge_fer.preprocess import Preprocessor, PreprocessSpec
from edge_fer.preprocess.alignment import BY_POINTS, Alignment
from edge_fer.preprocess.illumination import Illumination

__all__ = ["SIDE", "Dataset", "Labels", "has_splits", "labeled_like", "load", "load_test", "truth_for"]


def load(
    folder: Path,
    exclude: str | None = None,
    size_hw: tuple[int, int] = (SIDE, SIDE),
    alignment: Alignment = "none",
    further: str = "",
    illumination: tuple[Illumination, ...] = (),
    unlabeled: str = "",
    landmarks: bool = False,
) -> dict[str, Dataset]:
    """Read all splits of the data set in a folder.

    Args:
        folder: holds ``fer2013.csv`` or ``icml_face_data.csv``, perhaps with ``fer2013new.csv``; or ``train``; or
            another set of ``datasets.catalog`` that has splits.
        exclude: name of a CSV in the folder with Training rows of FER2013 to leave out, see ``fer2013.load_csv``.
        size_hw: what images of class folders are brought to. Those of FER2013 are 48x48 and stay so.
        alignment: how faces are turned and placed, as the runtime does it; as they are where no eyes or landmarks are
            found. By points it wants the folder's ``landmarks.npz`` (``datasets.landmarks_file``).
        further: name of a folder in the folder with class folders right in it, of another data set to learn from too;
            "" for none.
        illumination: what is done to their light, as the runtime does it.
        unlabeled: name of a folder in the folder with photos and a table of the faces in them (``datasets.photos``);
            "" for none.
        landmarks: whether to read the landmarks of all faces, for a model that aligns them itself.

    Returns:
        Datasets by split: "Training" and "PublicTest", and "PrivateTest" where there is one. Training samples
        whose pixels also stand in a test split are left out, so that no metric rests on memory. Under the name of
        ``further``, its samples with labels for the tasks of Training, without those that some task has no class for.
        Under that of ``unlabeled``, its faces. Of both those are left out that stand in a test split.

    Raises:
        InputMissingError: nothing readable is there.
        DataError: a file is there but its content is wrong.
    """
    if not folder.is_dir():
        raise InputMissingError(f"No folder {folder}: --data wants the folder that holds fer2013.csv.")
    folder = _place(folder)
    fer2013 = next((folder / name for name in CSV_NAMES if (folder / name).is_file()), None)
    if (known := _further(folder)) is not None:
        splits = _official(*known, size_hw)
    elif fer2013 is None:
        splits = load_folders(folder, size_hw)
    else:
        ferplus, unwanted = folder / "fer2013new.csv", folder / exclude if exclude else None
        splits = cached([fer2013, ferplus, *filter(None, [unwanted])], partial(load_csv, fer2013, ferplus, unwanted))
    splits = _without_leaks(splits)
    for name in filter(None, (further, unlabeled)):
        if name in splits:
            raise DataError(f"A folder of more faces cannot be called {name}, as a split is: rename {folder / name}.")
    if further:
        other = _unseen(load_test(folder / further, size_hw=size_hw), folder / further, splits)
        splits[further] = labeled_like(other, splits["Training"].heads)
        if not len(splits[further]):
            heads = ", ".join(head.name for head in splits["Training"].heads)
            raise DataError(f"{folder / further} has no sample that is of a class of {heads}.")
    if unlabeled:
        splits[unlabeled] = _unseen(load_photos(folder / unlabeled, size_hw), folder / unlabeled, splits)
    if landmarks or alignment in BY_POINTS:
        marks = CropLandmarks.read(folder / LANDMARKS)
        splits = {name: split.replace(landmarks=marks.of(split.images, name)) for name, split in splits.items()}
    if alignment != "none" or illumination:
        spec = PreprocessSpec(alignment=alignment, illumination=illumination)
        splits = {name: _preprocessed(split, spec) for name, split in splits.items()}
    return splits


def has_splits(folder: Path) -> bool:
    """Whether the data set in a folder says what is for training and what for a test."""
    if (known := _further(folder)) is not None:
        return known[0].splits
    return any((folder / name).is_file() for name in CSV_NAMES) or (folder.is_dir() and is_split(folder))


def load_test(
    folder: Path,
    split: str = "PublicTest",
    size_hw: tuple[int, int] = (SIDE, SIDE),
    frames: int = FRAMES,
    neutral: bool = True,
) -> Dataset:
    """Read what a model is tested on: a split of a data set that has some, else all of it.

    Args:
        folder: as for ``load``; or any other set of ``datasets.catalog``, or class folders ("angry", "happy", ...)
            right in it. Where the files are named as those of CK+48, the samples have subjects and sequences.
        split: "PublicTest" or "PrivateTest"; nothing where there are no splits.
        size_hw: what faces are brought to; those of FER2013 are 48x48 and stay so.
        frames: of each sequence, where a set has sequences.
        neutral: whether first frames are taken as neutral, where sequences begin at rest.

    Raises:
        InputMissingError: nothing readable is there, or no such split.
        DataError: a file is there but its content is wrong.
    """
    if known := _further(folder):
        layout, samples = known[0], read_all(*known)
        if not layout.splits:
            return as_dataset(layout, samples, size_hw, frames, neutral)
        if wanted := [one for one in samples if one.split and _SPLITS[one.split] == split]:
            return as_dataset(layout, wanted, size_hw, frames, neutral)  # of a large set its test is a small part
    folder = _place(folder)
    if folder.is_dir() and not has_splits(folder):
        return load_classes(folder, size_hw)
    splits = load(folder, size_hw=size_hw)
    if split not in splits:
        raise InputMissingError(f"{folder} has no {split} rows.")
    return splits[split]


def labeled_like(data: Dataset, heads: Sequence[Head]) -> Dataset:
    """The samples of a data set that all of some heads have a class for, with a labeling for each head."""
    truths = {head.name: truth_for(data, head) for head in heads}
    known = np.all([truth >= 0 for truth in truths.values()], axis=0)
    labels = {head.name: Labels.single(head.labels, truths[head.name]) for head in heads}
    return data.replace(labels=labels)[known]


def _preprocessed(data: Dataset, spec: PreprocessSpec) -> Dataset:
    if len(data) == 0:
        return data
    preprocessor = Preprocessor(spec, data.images.shape[1:3])
    console, marks = Console(stderr=True), marks_of_all(data.landmarks) or [None] * len(data)
    pairs = list(zip(data.images[..., 0], marks, strict=True))
    shown = track(pairs, "Preprocessing faces", console=console, transient=True, disable=not console.is_terminal)
    images = np.stack([preprocessor.crop(image, one) for image, one in shown])
    return data.replace(images=images, landmarks=None, source_sha256=data.sha256)


def _without_leaks(splits: dict[str, Dataset]) -> dict[str, Dataset]:
    hashes = {name: [digest_of(image) for image in split.images] for name, split in splits.items()}
    training = set(hashes["Training"])
    tests = {digest for name, split in hashes.items() if name != "Training" for digest in split}
    clean = {
        name: split.replace(also_in_training=np.array([digest in training for digest in hashes[name]], np.bool_))
        for name, split in splits.items()
    }
    leaks = np.array([digest in tests for digest in hashes["Training"]], np.bool_)
    clean["Training"] = clean["Training"][~leaks]
    return clean


def _unseen(more: Dataset, place: Path, splits: dict[str, Dataset]) -> Dataset:
    """Faces to learn from too, without those that stand in a test split; how many these are is printed."""
    tests = {digest_of(image) for name in _TESTS if name in splits for image in splits[name].images}
    seen = np.array([digest_of(image) in tests for image in more.images], np.bool_)
    if seen.all():
        raise DataError(f"{place}: all of its faces stand in a test split; nothing is left to learn from.")
    if seen.any():
        print_note(f"{place.name}: {seen.sum():,} of {len(more):,} faces stand in a test split too; they are left out.")
    return more[~seen]


_TESTS = ("PublicTest", "PrivateTest")
_SPLITS: dict[Split, str] = {"train": "Training", "validation": "PublicTest", "test": "PrivateTest"}
"""What a set's own splits are called here."""


def _known(folder: Path) -> tuple[Layout, Path] | None:
    try:
        return recognize(folder)
    except (DataError, InputMissingError):
        return None


def _further(folder: Path) -> tuple[Layout, Path] | None:
    """The set in a folder and its place, where it is none that this file reads into arrays by itself."""
    known = _known(folder)
    return None if known is None or known[0] in (FER2013, CK48, FOLDERS) else known


def _place(folder: Path) -> Path:
    """Where in a folder the set lies; the folder where it is none."""
    known = _known(folder)
    return folder if known is None else known[1]


def _official(layout: Layout, place: Path, size_hw: tuple[int, int]) -> dict[str, Dataset]:
    """A set's own splits, by the names of FER2013's; a tenth of Training for PublicTest where there is none."""
    if not layout.splits:
        raise InputMissingError(
            f"{place} is {layout.name}, which has no split for training: `python -m evaluation folds` makes folds."
        )
    samples = read_all(layout, place)
    parts = {name: [one for one in samples if one.split == part] for part, name in _SPLITS.items()}
    if not parts["Training"]:
        raise DataError(f"{place} is {layout.name} and has no image for training: it is not whole.")
    splits = {name: as_dataset(layout, part, size_hw) for name, part in parts.items() if part}
    if "PublicTest" not in splits:
        splits["Training"], splits["PublicTest"] = held_out(splits["Training"])
    return splits
