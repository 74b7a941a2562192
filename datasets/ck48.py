"""CK+48: the 48x48 copy of CK+'s peak frames that goes round, a folder for each class.

CK+ (Lucey et al., CVPR Workshops 2010) has posed sequences from neutral to the peak of an expression. The copy holds
the last three frames of each labeled sequence, as ``CLASS/SUBJECT_SEQUENCE_FRAME.png`` ("S011_004_00000019.png"), and
no neutral. Frames of one sequence are nearly alike: split it by subject, and count people, not frames, in an interval.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from datasets.core import Dataset
from datasets.reading import files_below
from datasets.sample import Layout, Sample
from edge_fer.core import Expression as E

_NAME = re.compile(r"(S\d{3})_(\d{3})_\d{8}")


def with_subjects(data: Dataset, files: Sequence[Path]) -> Dataset:
    """The samples of class folders with the subjects and sequences that their files' names tell.

    Args:
        data: n samples.
        files: of each, n.

    Returns:
        The same where a name is none of CK+48.
    """
    matches = [_NAME.fullmatch(file.stem) for file in files]
    found = [match for match in matches if match]
    if len(found) < len(data):
        return data
    return data.replace(
        subjects=np.array([match[1] for match in found]),
        sequences=np.array([f"{match[1]}_{match[2]}" for match in found]),
    )


def _files(folder: Path) -> Iterator[tuple[Path, re.Match[str]]]:
    for label in LAYOUT.labels:
        for path in files_below(folder / label, ".png", ".jpg"):
            if match := _NAME.fullmatch(path.stem):
                yield path, match


def _read(folder: Path) -> Iterator[Sample]:
    for path, match in _files(folder):
        label = path.parent.name
        yield Sample(
            path,
            label,
            LAYOUT.labels[label],
            subject=match[1],
            sequence=f"{match[1]}_{match[2]}",
            frame=int(path.stem.rpartition("_")[2]),
        )


LAYOUT = Layout(
    name="ck+48",
    title="CK+48: peak frames of CK+, cut to 48x48",
    wants="anger/S010_004_00000017.png and the like, contempt, ...",
    labels={
        "anger": E.ANGER,
        "contempt": E.CONTEMPT,
        "disgust": E.DISGUST,
        "fear": E.FEAR,
        "happy": E.HAPPINESS,
        "sadness": E.SADNESS,
        "surprise": E.SURPRISE,
    },
    recognizes=lambda folder: any(True for _ in _files(folder)),
    read=_read,
    counts={"images": 981, "people": 118, "sequences": 327},
    survey="not in the survey's table; 981 frames of CK+'s 327 labeled sequences, three of each, no neutral.",
    licence="as CK+: research",
    faces=True,
)
