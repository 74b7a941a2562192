"""TFD, the Toronto Face Database (Susskind et al., Univ. of Toronto TR 2010-001): many sets in one, cut to 48x48.

``TFD_48x48.mat`` (or ``TFD_96x96.mat``): ``images`` (n, 48, 48), ``labs_ex`` -1 or 1 to 7, ``labs_id`` -1 or a person,
``folds`` (n, 5): 0 unlabeled, 1 train, 2 validation, 3 test, in each of five official folds, of which
the first is its split here. Names and codes as in
github.com/lisa-lab/pylearn2 (pylearn2/datasets/tfd.py). It holds images of CK+, JAFFE, KDEF and MMI.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from datasets.sample import Layout, Sample, Split
from edge_fer.core import Expression as E
from edge_fer.errors import DataError, UnavailableError

_FILES = ("TFD_48x48.mat", "TFD_96x96.mat")
_CODES = (
    ("anger", E.ANGER),
    ("disgust", E.DISGUST),
    ("fear", E.FEAR),
    ("happy", E.HAPPINESS),
    ("sad", E.SADNESS),
    ("surprise", E.SURPRISE),
    ("neutral", E.NEUTRAL),
)
_SPLITS: tuple[Split | None, ...] = (None, "train", "validation", "test")


def _file(folder: Path) -> Path | None:
    return next((folder / name for name in _FILES if (folder / name).is_file()), None)


def _read(folder: Path) -> Iterator[Sample]:
    try:
        from scipy.io import loadmat
    except ImportError:
        raise UnavailableError("TFD is a file of Matlab: pip install scipy to read it.") from None
    path = _file(folder)
    if path is None:
        raise DataError(f"{folder} has neither {' nor '.join(_FILES)}.")
    try:
        table = loadmat(path)
        images, labels, people, folds = (table[name] for name in ("images", "labs_ex", "labs_id", "folds"))
        if not all(one.dtype.kind in "iuf" and np.isfinite(one).all() for one in (images, labels, people, folds)):
            raise ValueError("its tables are not of numbers")
        labels, people, folds = labels.astype(int).ravel(), people.astype(int).ravel(), folds.astype(int).clip(0, 3)
    except Exception as error:  # of SciPy's reader a damaged file brings out a dozen kinds
        raise DataError(f"{path} cannot be read as TFD, or is not whole: {error}.") from None
    if wrong := sorted(set(labels.tolist()) - {-1, *range(1, len(_CODES) + 1)}):
        raise DataError(f"{path}: {wrong[0]} is no label of TFD, which are 1 to 7, or -1 for none.")
    if not len(images) == len(labels) == len(people) == len(folds):
        raise DataError(f"{path}: {len(images):,} images and {len(labels):,} labels do not belong together.")
    if images.ndim != 3 or not images.size or folds.ndim != 2 or not folds.size:
        raise DataError(f"{path}: its images and folds have not the shape of TFD's.")
    for image, label, person, fold in zip(images, labels, people, folds, strict=True):
        name, expression = (None, None) if label < 0 else _CODES[label - 1]
        yield Sample(
            path,
            name,
            expression,
            pixels=image.astype(np.uint8),
            subject=None if person < 0 else str(person),
            split=_SPLITS[fold[0]],
            attributes={"folds": " ".join(_SPLITS[one] or "none" for one in fold)},
        )


LAYOUT = Layout(
    name="tfd",
    title="TFD (Susskind et al., 2010)",
    wants="TFD_48x48.mat",
    labels=dict(_CODES),
    recognizes=lambda folder: _file(folder) is not None,
    read=_read,
    counts={"images": 112234, "labeled": 4178},
    survey="112,234 images, 4,178 of them labeled, with seven expressions.",
    licence="by e-mail to its authors: research",
    splits=True,
    faces=True,
)
