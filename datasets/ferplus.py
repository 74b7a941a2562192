"""FER+ as images: what its own script makes of ``fer2013.csv`` (Barsoum et al., arXiv 1608.01041).

``data/FER2013Train/label.csv``: ``fer0000000.png,"(0, 0, 48, 48)",4,0,0,1,3,2,0,0,0,0``, without a head: image, box,
ten raters' votes; beside it the images. Likewise ``FER2013Valid`` and ``FER2013Test``. From
github.com/microsoft/FERPlus (src/generate_training_data.py). Fewer rows than FER2013: those without a face are not
there. The two CSVs of FER2013 and FER+ are read by ``datasets.fer2013``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from datasets.fer2013 import FERPLUS_LABELS, ferplus_labels
from datasets.reading import csv_rows, numbers_of, refuse_missing
from datasets.sample import Layout, Sample, Split
from edge_fer.errors import DataError

_FOLDERS: dict[str, Split] = {"FER2013Train": "train", "FER2013Valid": "validation", "FER2013Test": "test"}


def _home(folder: Path) -> Path | None:
    return next((one for one in (folder, folder / "data") if any((one / name).is_dir() for name in _FOLDERS)), None)


def _read(folder: Path) -> Iterator[Sample]:
    home = _home(folder)
    if home is None:
        raise DataError(f"{folder} has no FER2013Train.")
    for name, split in _FOLDERS.items():
        yield from _split(home / name, split)


def _split(folder: Path, split: Split) -> Iterator[Sample]:
    path = folder / "label.csv"
    if not path.is_file():
        raise DataError(f"{path} is not there: run FER+'s generate_training_data.py to its end.")
    samples = []
    for number, row in csv_rows(path):
        try:
            votes = tuple(numbers_of(row[2:]))
        except ValueError:
            votes = ()
        if len(votes) != len(FERPLUS_LABELS) + 2:
            raise DataError(f"{path}, line {number}: an image, a box and ten votes should stand there.")
        truth = int(ferplus_labels(np.array([votes], np.float32)).truth[0])
        expression = FERPLUS_LABELS[truth] if truth >= 0 else None
        label = None if expression is None else expression.value
        samples.append(Sample(folder / row[0], label, expression, split=split, votes=votes))
    there = {image.name for image in folder.iterdir()}
    refuse_missing([one.path for one in samples if one.path.name not in there], len(samples), path)
    yield from samples


LAYOUT = Layout(
    name="fer+",
    title="FER+ as images (Barsoum et al., 2016)",
    wants="FER2013Train/label.csv and images, FER2013Valid, FER2013Test",
    labels={one.value: one for one in FERPLUS_LABELS},
    recognizes=lambda folder: _home(folder) is not None,
    read=_read,
    counts={},
    survey="not in the survey's table; FER2013's images with ten votes each.",
    licence="labels: MIT; images as FER2013",
    splits=True,
    faces=True,
    task="ferplus",
    rated=ferplus_labels,
)
