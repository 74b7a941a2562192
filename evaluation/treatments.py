"""What can be done to faces before the network, by name, and done to whole sets of them: clean, and in bad light."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from datasets.landmarks_file import marks_of_all
from edge_fer.errors import DataError, UsageError
from edge_fer.preprocess import Preprocessor, PreprocessSpec
from edge_fer.preprocess.alignment import BY_POINTS, Alignment
from edge_fer.preprocess.illumination import MOST_STEPS, Illumination
from evaluation.corruptions import LIGHTS, side_light

METHODS: tuple[Illumination, ...] = get_args(Illumination)
CURVES = ("equalization", "equalization-mix", "gamma", "gamma-intensity", "log", "contrast-normalization")
"""Equalization after them is equalization again, or nearly."""
TREATMENTS = (
    "none",
    *METHODS,
    *(f"{method}+equalization" for method in METHODS if method not in CURVES),
    "lit",
    "lit+equalization",
    "lit+tan-triggs",
    "lit+contrast-normalization",
    "lit+gamma-intensity",
    "two-points",
    "five-points",
    "five-points+equalization",
)
"""All that is tried unless ``--rows`` says otherwise, the most telling first."""


@dataclass(frozen=True)
class Treatment:
    """One line of the table.

    Attributes:
        name: its parts, joined by "+": alignment, "lit", illumination in its order; "none" for nothing.
        spec: what is done to faces.
        lit: half of the Training faces are put into random light first.
    """

    name: str
    spec: PreprocessSpec = field(default_factory=PreprocessSpec)
    lit: bool = False

    @classmethod
    def parse(cls, name: str) -> Treatment:
        """Read a name.

        Raises:
            UsageError: a part of it is unknown.
        """
        parts = [] if name == "none" else name.split("+")
        alignments = [part for part in parts if part in get_args(Alignment) and part != "none"]
        steps = [part for part in parts if part in METHODS]
        unknown = [part for part in parts if part != "lit" and part not in (*alignments, *steps)]
        if unknown or len(alignments) > 1:
            known = ", ".join((*get_args(Alignment), "lit", *METHODS))
            raise UsageError(f"--rows {name!r}: join one alignment at most, and others, by '+'. Known are {known}.")
        if len(steps) > MOST_STEPS:
            raise UsageError(f"--rows {name!r}: join at most {MOST_STEPS} methods of light.")
        spec: Any = {"alignment": (alignments or ["none"])[0], "illumination": tuple(steps)}
        return cls(name, PreprocessSpec(**spec), "lit" in parts)


@dataclass(frozen=True)
class Faces:
    """What the rows start from.

    Attributes:
        training: uint8 (n, height, width, 1).
        test: likewise.
        landmarks: of either, float32 (n, 10), see ``datasets.landmarks_file``; None for a data set without.
    """

    training: NDArray[np.uint8]
    test: NDArray[np.uint8]
    landmarks: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None


Prepared = tuple[NDArray[np.uint8], dict[str, NDArray[np.uint8]]]
"""Training faces, and test faces by condition."""


def prepare(row: Treatment, faces: Faces) -> Prepared:
    """Do to all faces what a row says.

    Raises:
        DataError: it aligns by landmarks, and there are none.
    """
    if row.spec.alignment in BY_POINTS and faces.landmarks is None:
        raise DataError(f"{row.name} aligns by landmarks: give --landmarks.")
    of_training, of_test = faces.landmarks or (None, None)
    training = lit_at_random(faces.training) if row.lit else faces.training
    tests = {"clean": faces.test, **{name: light(faces.test) for name, light in LIGHTS.items()}}
    preprocessor = Preprocessor(row.spec, faces.test.shape[1:3])
    return (
        preprocessor.crops(training, marks_of_all(of_training)),
        {name: preprocessor.crops(images, marks_of_all(of_test)) for name, images in tests.items()},
    )


def lit_at_random(images: NDArray[np.uint8], seed: int = 0) -> NDArray[np.uint8]:
    """Half of the faces in other light: dimmer, by a gamma, or from one side; the rest as they are."""
    chance = np.random.default_rng(seed)
    result = images.copy()
    for place in np.flatnonzero(chance.random(len(images)) < 0.5):
        face = images[place]
        match chance.integers(3):
            case 0:
                face = np.clip(face * chance.uniform(0.15, 0.8) + chance.normal(0, 3, face.shape), 0, 255)
            case 1:
                face = 255 * (face / 255.0) ** np.exp(chance.uniform(-0.8, 0.8))
            case _:
                turns = int(chance.integers(4))
                lit = side_light(np.rot90(face, turns)[np.newaxis], chance.uniform(0.1, 0.6))[0]
                face = np.rot90(lit, -turns)
        result[place] = np.rint(face).astype(np.uint8)
    return result


_FACES: list[Faces] = []


def remember(faces: Faces) -> None:
    """Of a worker process: the faces of all that it will prepare."""
    _FACES[:] = [faces]


def prepare_remembered(row: Treatment) -> Prepared:
    """``prepare`` in a worker process."""
    return prepare(row, _FACES[0])
