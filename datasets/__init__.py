"""The expression data sets that people have on disk, in the forms in which they have them: one file a data set."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from datasets.cache import cached
from datasets.core import Dataset, Labels, truth_for
from datasets.fer2013 import CSV_NAMES, SIDE, load_csv
from datasets.folders import is_split, load_classes, load_folders
from edge_fer.errors import DataError, InputMissingError
from edge_fer.preprocess import Preprocessor, PreprocessSpec
from edge_fer.preprocess.alignment import Alignment
from edge_fer.preprocess.illumination import Illumination

__all__ = ["SIDE", "Dataset", "Labels", "has_splits", "load", "load_test", "truth_for"]


def load(
    folder: Path,
    exclude: str | None = None,
    size_hw: tuple[int, int] = (SIDE, SIDE),
    alignment: Alignment = "none",
    further: str = "",
    illumination: tuple[Illumination, ...] = (),
) -> dict[str, Dataset]:
    """Read all splits of the data set in a folder.

    Args:
        folder: holds ``fer2013.csv`` or ``icml_face_data.csv``, perhaps with ``fer2013new.csv``; or ``train``.
        exclude: name of a CSV in the folder with Training rows of FER2013 to leave out, see ``fer2013.load_csv``.
        size_hw: what images of class folders are brought to. Those of FER2013 are 48x48 and stay so.
        alignment: how faces are turned, as the runtime turns them; as they are where no eyes are found.
        further: name of a folder in the folder with class folders right in it, of another data set to learn from too;
            "" for none.
        illumination: what is done to their light, as the runtime does it.

    Returns:
        Datasets by split: "Training" and "PublicTest", and "PrivateTest" where there is one. Training samples
        whose pixels also stand in a test split are left out, so that no metric rests on memory. Under the name of
        ``further``, its samples with labels for the tasks of Training, without those that some task has no class for.

    Raises:
        InputMissingError: nothing readable is there.
        DataError: a file is there but its content is wrong.
    """
    if not folder.is_dir():
        raise InputMissingError(f"No folder {folder}: --data wants the folder that holds fer2013.csv.")
    fer2013 = next((folder / name for name in CSV_NAMES if (folder / name).is_file()), None)
    if fer2013 is None:
        splits = load_folders(folder, size_hw)
    else:
        ferplus, unwanted = folder / "fer2013new.csv", folder / exclude if exclude else None
        splits = cached([fer2013, ferplus, *filter(None, [unwanted])], partial(load_csv, fer2013, ferplus, unwanted))
    splits = _without_leaks(splits)
    if further in splits:
        raise DataError(
            f"A folder of further faces cannot be called {further}, as a split is: rename {folder / further}."
        )
    if further:
        splits[further] = _labeled_like(
            splits["Training"], load_test(folder / further, size_hw=size_hw), folder / further
        )
    if alignment in ("two-points", "five-points"):
        raise DataError(
            f"Faces of data sets have no landmarks, which data.alignment {alignment!r} wants; `python -m "
            "training.ablation` takes them by --landmarks."
        )
    if alignment != "none" or illumination:
        spec = PreprocessSpec(alignment=alignment, illumination=illumination)
        splits = {name: _preprocessed(split, spec) for name, split in splits.items()}
    return splits


def has_splits(folder: Path) -> bool:
    """Whether the data set in a folder says what is for training and what for a test."""
    return any((folder / name).is_file() for name in CSV_NAMES) or (folder.is_dir() and is_split(folder))


def load_test(folder: Path, split: str = "PublicTest", size_hw: tuple[int, int] = (SIDE, SIDE)) -> Dataset:
    """Read what a model is tested on: a split of a data set that has some, else all of class folders.

    Args:
        folder: as for ``load``, or with class folders ("angry", "happy", ...) right in it. Where the files are named as
            those of CK+48, the samples have subjects and sequences.
        split: "PublicTest" or "PrivateTest"; nothing where there are no splits.
        size_hw: what images of class folders are brought to.

    Raises:
        InputMissingError: nothing readable is there, or no such split.
        DataError: a file is there but its content is wrong.
    """
    if folder.is_dir() and not has_splits(folder):
        return load_classes(folder, size_hw)
    splits = load(folder, size_hw=size_hw)
    if split not in splits:
        raise InputMissingError(f"{folder} has no {split} rows.")
    return splits[split]


def _labeled_like(training: Dataset, data: Dataset, folder: Path) -> Dataset:
    truths = {head.name: truth_for(data, head) for head in training.heads}
    known = np.all([truth >= 0 for truth in truths.values()], axis=0)
    if not known.any():
        raise DataError(f"{folder} has no sample that is of a class of {', '.join(truths)}.")
    labels = {head.name: Labels.single(head.labels, truths[head.name]) for head in training.heads}
    return data.replace(labels=labels)[known]


def _preprocessed(data: Dataset, spec: PreprocessSpec) -> Dataset:
    if len(data) == 0:
        return data
    preprocessor = Preprocessor(spec, data.images.shape[1:3])
    console = Console(stderr=True)
    shown = track(data.images, "Preprocessing faces", console=console, transient=True, disable=not console.is_terminal)
    return data.replace(images=np.stack([preprocessor.crop(image[..., 0]) for image in shown]))


def _without_leaks(splits: dict[str, Dataset]) -> dict[str, Dataset]:
    hashes = {name: [hashlib.sha1(image).digest() for image in split.images] for name, split in splits.items()}
    training = set(hashes["Training"])
    tests = {digest for name, split in hashes.items() if name != "Training" for digest in split}
    clean = {
        name: split.replace(also_in_training=np.array([digest in training for digest in hashes[name]], np.bool_))
        for name, split in splits.items()
    }
    leaks = np.array([digest in tests for digest in hashes["Training"]], np.bool_)
    clean["Training"] = clean["Training"][~leaks]
    return clean
