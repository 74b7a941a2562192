"""CK+ (Lucey et al., CVPR Workshops 2010): posed sequences from rest to the peak of an expression.

::

    cohn-kanade-images/S005/001/S005_001_00000011.png
    Emotion/S005/001/S005_001_00000011_emotion.txt         "   3.0000000e+00", for 327 of the 593 sequences
    FACS/S005/001/S005_001_00000011_facs.txt               "   9.0000000e+00   4.0000000e+00": unit, intensity
    Landmarks/S005/001/S005_001_00000011_landmarks.txt     68 points of an active appearance model

The label is that of the last frame. Archives unpack to ``Emotion_labels/Emotion`` and ``Landmarks/Landmarks`` too.
Paths and codes as github.com/Open-Debin/Emotion-FAN (data/frame/readme.md) and other public loaders have them. The
seventh expression is contempt; neutral is what the first frames show.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from datasets.reading import folder_named, landmarks_in, lines_of, numbers_in, numbers_of
from datasets.sample import Layout, Sample
from datasets.sequences import last_frames
from edge_fer.core import Expression as E
from edge_fer.errors import DataError

_CODES = {
    "0": ("neutral", E.NEUTRAL),
    "1": ("anger", E.ANGER),
    "2": ("contempt", E.CONTEMPT),
    "3": ("disgust", E.DISGUST),
    "4": ("fear", E.FEAR),
    "5": ("happy", E.HAPPINESS),
    "6": ("sadness", E.SADNESS),
    "7": ("surprise", E.SURPRISE),
}
_IMAGES = "cohn-kanade-images"


def _read(folder: Path) -> Iterator[Sample]:
    images = folder_named(folder, _IMAGES)
    emotion = folder_named(folder, "Emotion", "Emotion_labels")
    if images is None or emotion is None:
        raise DataError(
            f"{folder} has no {_IMAGES if images is None else 'Emotion'}: unpack the archives of CK+ side by side "
            "(the first version of CK has no Emotion and cannot be used)."
        )
    emotion = _inner(emotion)
    facs, landmarks = (found and _inner(found) for found in (folder_named(folder, n) for n in ("FACS", "Landmarks")))
    for sequence in sorted(path for path in images.glob("S*/*") if path.is_dir()):
        place = f"{sequence.parent.name}/{sequence.name}"
        label = _label(emotion / place)
        units = _units(facs / place) if facs else {}
        # What has no number at its end is none: a browser calls a second download "... (1).png".
        frames = sorted(path for path in sequence.glob("[!.]*.png") if path.stem.rpartition("_")[2].isdecimal())
        for path in frames:
            points = landmarks and landmarks / place / f"{path.stem}_landmarks.txt"
            yield Sample(
                path,
                label,
                LAYOUT.labels[label] if label else None,
                subject=sequence.parent.name,
                sequence=f"{sequence.parent.name}_{sequence.name}",
                frame=int(path.stem.rpartition("_")[2]),
                landmarks=landmarks_in(points, 68) if points and points.is_file() else None,
                action_units=units if path == frames[-1] else {},
            )


def _is_here(folder: Path) -> bool:
    emotion = folder_named(folder, "Emotion", "Emotion_labels")
    labels = emotion is not None and any(_inner(emotion).glob("S*/*/*_emotion.txt"))
    return labels or folder_named(folder, _IMAGES) is not None


def _inner(folder: Path) -> Path:
    """Where the subjects are: an archive has one folder around them, or two."""
    return next(
        (below for below in (folder / "Emotion", folder / "FACS", folder / "Landmarks") if below.is_dir()), folder
    )


def _label(folder: Path) -> str | None:
    for path in sorted(folder.glob("*_emotion.txt")):
        for number, line in lines_of(path):
            try:
                return _CODES[f"{numbers_of([line])[0]:g}"][0]
            except (ValueError, KeyError):
                raise DataError(f"{path}, line {number}: {line} is no label of CK+, which are 0 to 7.") from None
    return None


def _units(folder: Path) -> Mapping[int, float]:
    """0 is the intensity of a unit that was not rated."""
    units = dict[int, float]()
    for path in sorted(folder.glob("*_facs.txt")):
        table = numbers_in(path) if any(lines_of(path)) else np.zeros((0, 2), np.float32)
        if table.shape[1] < 2:
            raise DataError(f"{path}: an action unit and its intensity should stand in each line.")
        units |= {int(unit): float(intensity) for unit, intensity in table[:, :2]}
    return units


LAYOUT = Layout(
    name="ck+",
    title="CK+ (Lucey et al., 2010)",
    wants="cohn-kanade-images, Emotion; perhaps FACS, Landmarks",
    labels=dict(_CODES.values()),
    recognizes=_is_here,
    read=_read,
    counts={"people": 123, "sequences": 593, "labeled sequences": 327},
    survey="593 sequences of 123 people, 327 labeled; the seventh label is contempt, not neutral.",
    licence="consortium agreement: research",
    stills=last_frames,
)
