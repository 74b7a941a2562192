"""AFEW 7.0 (Dhall et al., IEEE MultiMedia 19, 2012; EmotiW 2017): clips of films.

``Train_AFEW/Angry/000046280.avi`` and ``Val_AFEW/...``; the labels of ``Test_AFEW`` are not public. Or the faces of
the clips: ``train_afew/Angry/000046280/000001.jpg``. Both as in github.com/Open-Debin/Emotion-FAN
(data/frame/readme.md). Who is to be seen and in which film is not said: clips of one film may be in both splits.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from datasets.reading import files_below, folder_named
from datasets.sample import Layout, Sample, Split, class_folders
from datasets.sequences import middle_of_clips
from edge_fer.core import Expression as E
from edge_fer.errors import DataError

_FOLDERS: dict[str, Split] = {"Train_AFEW": "train", "Val_AFEW": "validation"}


def _read(folder: Path) -> Iterator[Sample]:
    for name, split in _FOLDERS.items():
        home = folder_named(folder, name)
        if home is None:
            raise DataError(f"{folder} has no {name}: AFEW is {' and '.join(_FOLDERS)}, side by side.")
        for label, place in class_folders(home, LAYOUT):
            expression = LAYOUT.labels[label]
            for path in files_below(place, ".avi", ".mp4"):
                yield Sample(path, label, expression, sequence=path.stem, split=split)
            for path in files_below(place, ".jpg", ".png"):
                frame = int("".join(one for one in path.stem if one.isdecimal()) or 0)
                yield Sample(path, label, expression, sequence=path.parent.name, frame=frame, split=split)


LAYOUT = Layout(
    name="afew",
    title="AFEW 7.0 (Dhall et al., 2012)",
    wants="Train_AFEW/Angry/000046280.avi and the like, Val_AFEW",
    labels={
        "Angry": E.ANGER,
        "Disgust": E.DISGUST,
        "Fear": E.FEAR,
        "Happy": E.HAPPINESS,
        "Neutral": E.NEUTRAL,
        "Sad": E.SADNESS,
        "Surprise": E.SURPRISE,
    },
    recognizes=lambda folder: any(folder_named(folder, name) for name in _FOLDERS),
    read=_read,
    counts={"sequences": 773 + 383},
    survey="1,809 videos: 773 for training, 383 for validation, 653 without public labels.",
    licence="EmotiW agreement: research",
    stills=middle_of_clips,
    splits=True,
)
