"""Samples into arrays: the face of each, cut out as a device would."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from datasets.core import Dataset, Labels
from datasets.reading import frames_in
from datasets.sample import Layout, Sample
from datasets.sequences import FRAMES
from edge_fer.core import Detection, Expression, FaceBox, Image
from edge_fer.detection.cascade import CascadeDetector
from edge_fer.errors import DataError
from edge_fer.preprocess import Preprocessor, PreprocessSpec

_SEARCHED_PX = 400
"""A face in a photograph of a data set is large: it is looked for in a copy whose longer side has so many pixels."""
_LEAST_PART = 0.2
"""Of the shorter side, that a face is wide at least."""


def as_dataset(
    layout: Layout, samples: Sequence[Sample], size_hw: tuple[int, int], frames: int = FRAMES, neutral: bool = True
) -> Dataset:
    """The frames that show their label, cut to faces.

    A face is where the set says it is; else where the cascade finds it, the largest; else around the landmarks. What
    is no face by any of these is left out, and how much that is is printed.

    Args:
        layout: of the set.
        samples: of it; those without expression and compound are left out.
        size_hw: what faces are brought to.
        frames: of each sequence.
        neutral: whether first frames are taken as neutral, where a set's sequences begin at rest.

    Raises:
        DataError: there is no such sample, or a face in none.
    """
    stills = layout.stills(samples, frames, neutral) if layout.stills else samples
    wanted = [one for one in stills if one.expression is not None or one.compound is not None]
    if not wanted:
        raise DataError(f"No image of {layout.name} has an expression that edge-fer knows: there is nothing to read.")
    detector = None if layout.faces else CascadeDetector()
    preprocessor = Preprocessor(PreprocessSpec(), size_hw)
    images, found = np.empty((len(wanted), *size_hw, 1), np.uint8), list[Sample]()
    for sample, gray in _pixels(wanted):
        box = FaceBox(0, 0, *reversed(gray.shape)) if detector is None else sample.box or _face(gray, sample, detector)
        if box is not None:
            images[len(found)] = preprocessor(gray, Detection(box))
            found.append(sample)
    if not found:
        raise DataError(f"{layout.name}: no face was found in any of the {len(wanted):,} images.")
    if len(found) < len(wanted):
        lost = f"{len(wanted) - len(found):,} of {len(wanted):,}"
        print_note(f"{layout.name}: no face was found in {lost} images; they are left out.")
    return Dataset(
        images[: len(found)],
        {layout.task: _labels(layout, found)},
        np.zeros(len(found), np.bool_),
        _names([one.subject for one in found]),
        _names([one.sequence for one in found]),
        np.array([one.compound or "" for one in found]) if any(one.compound for one in found) else None,
        _attributes(found),
    )


def print_note(text: str) -> None:
    """Say something of a data set on stderr, beside the progress."""
    Console(stderr=True, highlight=False).print(text)


def _pixels(samples: Sequence[Sample]) -> Iterator[tuple[Sample, Image]]:
    """Each sample with its pixels; a video is decoded once for all of its frames."""
    console = Console(stderr=True)
    shown = track(samples, "Reading faces", console=console, transient=True, disable=not console.is_terminal)
    for path, group in groupby(shown, key=lambda one: one.path):
        alike = list(group)
        if alike[0].is_frame_of_video:
            frames = {one.frame: one for one in alike}
            yield from ((frames[frame.seq], frame.gray) for frame in frames_in(path) if frame.seq in frames)
        else:
            yield from ((one, next(one.images())) for one in alike)


def _face(gray: Image, sample: Sample, detector: CascadeDetector) -> FaceBox | None:
    factor = max(1.0, max(gray.shape) / _SEARCHED_PX)
    small = cv2.resize(gray, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA).astype(
        np.uint8, copy=False
    )
    faces = detector.detect(small, _LEAST_PART * min(small.shape))
    if faces:
        return faces[0].box.scaled(factor)
    if sample.landmarks is None:
        return None
    (left, top), (right, bottom) = sample.landmarks.min(axis=0), sample.landmarks.max(axis=0)
    side = float(max(right - left, bottom - top))
    return FaceBox(float(left + right - side) / 2, float(top + bottom - side) / 2, side, side)


def _labels(layout: Layout, samples: Sequence[Sample]) -> Labels:
    votes = [one.votes for one in samples if one.votes is not None]
    if layout.rated and len(votes) == len(samples):
        return layout.rated(np.array(votes, np.float32))
    present = {*layout.labels.values(), *(one.expression for one in samples)}
    classes = tuple(one for one in Expression if one in present) or tuple(Expression)
    truth = [classes.index(one.expression) if one.expression else -1 for one in samples]
    return Labels.single(classes, np.array(truth, np.int64))


def _names(values: Sequence[str | None]) -> NDArray[np.str_] | None:
    """As an array; None where none is known. Who is unknown is nobody else's: a name that no other has."""
    known = [f"unknown {row}" if one is None else one for row, one in enumerate(values)]
    return np.array(known) if any(one is not None for one in values) else None


def _attributes(samples: Sequence[Sample]) -> dict[str, NDArray[np.str_]]:
    tables = [{**one.attributes, **_measured(one)} for one in samples]
    names = sorted({name for table in tables for name in table})
    return {name: np.array([table.get(name, "") for table in tables]) for name in names}


def _measured(sample: Sample) -> dict[str, str]:
    """Pose, light and intensity, by which a report can group as by what people are."""
    pose = None if sample.yaw_deg is None else f"{sample.yaw_deg:+.0f}"
    intensity = None if sample.intensity is None else f"{sample.intensity:.2f}"
    known = {"yaw_deg": pose, "illumination": sample.illumination, "intensity": intensity}
    return {name: value for name, value in known.items() if value is not None}
