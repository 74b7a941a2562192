"""CK+48: the 48x48 copy of CK+'s peak frames that goes round, a folder for each class.

CK+ (Lucey et al., CVPR Workshops 2010) has posed sequences from neutral to the peak of an expression. The copy holds
the last three frames of each labeled sequence, as ``CLASS/SUBJECT_SEQUENCE_FRAME.png`` ("S011_004_00000019.png"), and
no neutral. Frames of one sequence are nearly alike: split it by subject, and count people, not frames, in an interval.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datasets.core import Dataset

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
