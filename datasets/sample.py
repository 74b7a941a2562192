"""What the loaders give: one sample for each image or video of a data set, in the data set's own terms and in ours.

A loader is a ``Layout``: how to know the set by its files, and how to read its labels. It opens no image; whoever wants
pixels asks a sample for them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from datasets.core import Labels
from datasets.reading import frames_in, read_gray, subfolders
from edge_fer.core import Expression, FaceBox, Image
from edge_fer.errors import DataError
from edge_fer.sources.folder import STILL_SUFFIXES

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One image, one frame of a sequence, or one video.

    Attributes:
        path: the image or video; the file that holds it, where a set is one file of arrays.
        label: as the data set writes it; None where it has none.
        expression: what that is in our terms; None where it is none of ours.
        compound: two expressions at once ("happily surprised"), where the set has such labels.
        pixels: uint8 (height, width), where a set is one file of arrays; None: they are in ``path``.
        subject: who it is, as the set numbers its people.
        sequence: which sequence it is a frame of, or which film it is from.
        frame: number of the frame in its sequence or video.
        split: of the set's own split, the first where it has several; None where it has none.
        box: of the face, in pixels.
        landmarks: float32 (k, 2), x and y in pixels, in the set's own order.
        intensity: how strongly the expression is shown, 0-1.
        yaw_deg: from where the head is seen: 0 from the front, negative where more of its right side is visible.
        illumination: the light, in the set's words.
        votes: how many raters, or which part of them, chose each of the set's labels.
        valence: -1 to 1.
        arousal: -1 to 1.
        action_units: FACS action units that are there, with their intensity 1-5, or 0 where it is not rated.
        attributes: of the person or the recording, by name ("gender", "age"), in the set's words.
    """

    path: Path
    label: str | None = None
    expression: Expression | None = None
    compound: str | None = None
    pixels: Image | None = None
    subject: str | None = None
    sequence: str | None = None
    frame: int | None = None
    split: Split | None = None
    box: FaceBox | None = None
    landmarks: NDArray[np.float32] | None = None
    intensity: float | None = None
    yaw_deg: float | None = None
    illumination: str | None = None
    votes: tuple[float, ...] | None = None
    valence: float | None = None
    arousal: float | None = None
    action_units: Mapping[int, float] = field(default_factory=dict)
    attributes: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_video(self) -> bool:
        """Whether it is a video from beginning to end."""
        return self.frame is None and self._in_video

    @property
    def is_frame_of_video(self) -> bool:
        """Whether it is one frame of a video."""
        return self.frame is not None and self._in_video

    @property
    def _in_video(self) -> bool:
        return self.pixels is None and self.path.suffix.lower() not in STILL_SUFFIXES

    def replace(self, **changes: Any) -> Sample:
        """The same with other fields."""
        return dataclasses.replace(self, **changes)

    def images(self) -> Iterator[Image]:
        """Its image, or all frames of its video: uint8 (height, width).

        Raises:
            DataError: it cannot be read.
        """
        if self.pixels is not None:
            yield self.pixels
        elif not self._in_video:
            yield read_gray(self.path)
        else:
            yield from (frame.gray for frame in frames_in(self.path) if self.frame in (None, frame.seq))


@dataclass(frozen=True)
class Layout:
    """A data set as it lies on its owner's disk.

    Attributes:
        name: on the command line.
        title: with authors and year.
        wants: what a folder holds that is one, in a few words.
        labels: all labels of the set, with what they are in our terms; None for what is none of ours.
        recognizes: whether a folder holds the set, or what is left of it.
        read: its samples, in an order that is always the same. Raises DataError where a file is wrong or missing.
        counts: what a whole set has, by the names of ``counted``.
        survey: how the survey's table (Li & Deng, arXiv 1804.08348, Table 1) counts it, and where a digest of it errs.
        licence: on what terms people have it.
        splits: whether it has a split for training of its own.
        faces: whether its images are faces from edge to edge; else a face has to be found in them.
        stills: which frames of a sequence show its label: of all samples, so many frames of each, and whether a first
            frame is taken as neutral (``datasets.sequences``); None where each image stands for itself.
        task: what a labeling of the set is called: a head of that name is measured by it.
        rated: the labels of the raters' votes, float32 (n, k), where the set has them; None for those of the samples.
    """

    name: str
    title: str
    wants: str
    labels: Mapping[str, Expression | None]
    recognizes: Callable[[Path], bool]
    read: Callable[[Path], Iterable[Sample]]
    counts: Mapping[str, int]
    survey: str
    licence: str
    splits: bool = False
    faces: bool = False
    stills: Callable[[Sequence[Sample], int, bool], list[Sample]] | None = None
    task: str = "expression"
    rated: Callable[[NDArray[np.float32]], Labels] | None = None

    def expression(self, label: str, where: Path | str) -> Expression | None:
        """What a label is in our terms.

        Args:
            label: as the set writes it.
            where: what is said in the message of where it stands.

        Raises:
            DataError: the set has no such label.
        """
        if label not in self.labels:
            known = ", ".join(self.labels)
            raise DataError(f"{where}: {label!r} is no label of {self.name}; it has {known}.")
        return self.labels[label]


def counted(samples: Sequence[Sample]) -> dict[str, int]:
    """How many samples there are of each kind: what ``Layout.counts`` expects.

    Returns:
        "images" or "videos", "people", "sequences", "labeled" and "labeled sequences", "train", "validation" and
        "test", each where there are any.
    """
    labeled = [one for one in samples if one.label is not None]
    counts = {
        "images": sum(not one.is_video for one in samples),
        "videos": sum(one.is_video for one in samples),
        "people": len({one.subject for one in samples} - {None}),
        "sequences": len({one.sequence for one in samples} - {None}),
        "labeled": len(labeled),
        "labeled sequences": len({one.sequence for one in labeled} - {None}),
        **{split: sum(one.split == split for one in samples) for split in ("train", "validation", "test")},
    }
    return {name: count for name, count in counts.items() if count}


def class_folders(home: Path, layout: Layout) -> Iterator[tuple[str, Path]]:
    """The folders of a set's classes, by label, whatever their case.

    Beside them EmotiW's sets have faces that are cut out, and features: these are passed over.

    Raises:
        DataError: a folder is neither.
    """
    by_name = {label.lower(): label for label in layout.labels}
    for place in subfolders(home):
        if label := by_name.get(place.name.lower()):
            yield label, place
        elif not any(word in place.name.lower() for word in ("aligned", "lbp", "lpq", "phog", "points")):
            layout.expression(place.name, place)
