"""How the parts of a face move: 51 points of brows, nose, eyes and mouth in each frame of a clip.

The points are those of the 68-point scheme of iBUG and dlib without the outline of the face, in its order. An aligner
of ``datasets.landmarks`` finds them on the enlarged crop: dlib's 68 points, or those of the 468-point mesh that lie
there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from datasets.landmarks import SCENE_PX, DlibShape, Mesh, enlarged, open_finder
from edge_fer.core import FaceBox
from edge_fer.errors import DataError, UsageError

Floats = NDArray[np.float64]

PARTS: Mapping[str, range] = {
    "brows": range(0, 10),
    "nose": range(10, 19),
    "eyes": range(19, 31),
    "mouth": range(31, 51),
}
"""Which of the 51 points are of a part; dlib's numbers are 17 more."""

# fmt: off
MESH = (
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300,  # brows, from the person's right to the left
    168, 197, 5, 4, 75, 97, 2, 326, 305,  # the bridge of the nose downward, then below it
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,  # eyes, each around from its right corner
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181,  # the outer edge of the lips
    78, 82, 13, 312, 308, 317, 14, 87,  # and the inner one
)
"""The points of MediaPipe's mesh that stand for the 51."""
MIRROR = (
    9, 8, 7, 6, 5, 4, 3, 2, 1, 0,
    10, 11, 12, 13, 18, 17, 16, 15, 14,
    28, 27, 26, 25, 30, 29, 22, 21, 20, 19, 24, 23,
    37, 36, 35, 34, 33, 32, 31, 42, 41, 40, 39, 38,
    47, 46, 45, 44, 43, 50, 49, 48,
)
"""Which of the 51 points stands in the place of each in a mirror."""
# fmt: on


def open_aligner(text: str) -> Mesh | DlibShape:
    """An aligner by its name and file: "mesh:FILE" or "dlib:FILE".

    Raises:
        EdgeFerError: it is another kind of finder, or cannot be opened.
    """
    if text.partition(":")[0] not in ("mesh", "dlib"):
        raise UsageError(f"--landmarks {text!r}: PHRNN wants many points, mesh:FILE or dlib:FILE.")
    finder = open_finder(text)
    assert isinstance(finder, Mesh | DlibShape)
    return finder


def fifty_one(points: Floats) -> Floats:
    """The 51 points of 468 or 68: (k, 2) -> (51, 2).

    Raises:
        DataError: there are neither 468 nor 68.
    """
    if points.shape == (468, 2):
        return points[list(MESH)]
    if points.shape == (68, 2):
        return points[17:]
    raise DataError(f"Trajectories want 468 points of a mesh or 68 of dlib, not {points.shape}.")


class Found(NamedTuple):
    """The points of clips.

    Attributes:
        points: float64 (n, frames, 51, 2), x and y, as ``normalized`` makes them.
        missed: frames in which the aligner found no face.
        lost: bool (n,), no frame of the clip has any; its points are zeros.
    """

    points: Floats
    missed: int
    lost: NDArray[np.bool_]


def find(images: NDArray[np.uint8], aligner: Callable[[NDArray[np.uint8], FaceBox], Floats | None]) -> Found:
    """The points of all frames; a frame without any takes those of the nearest of its clip that has some.

    Args:
        images: uint8 (n, frames, side, side, 1), faces that fill their images.
        aligner: see ``datasets.landmarks.Aligner``.
    """
    whole = FaceBox(SCENE_PX / 4, SCENE_PX / 4, SCENE_PX / 2, SCENE_PX / 2)
    points = np.full((*images.shape[:2], len(MESH), 2), np.nan)
    for at in np.ndindex(images.shape[:2]):
        if (found := aligner(enlarged(images[at][..., 0]), whole)) is not None:
            points[at] = normalized(fifty_one(np.asarray(found, np.float64)))
    seen: NDArray[np.bool_] = np.asarray(np.isfinite(points).all(axis=(2, 3)))
    for clip, there in zip(points, seen, strict=True):
        known = np.flatnonzero(there)
        for frame in np.flatnonzero(~there):
            clip[frame] = clip[known[np.abs(known - frame).argmin()]] if len(known) else 0.0
    return Found(points, int((~seen).sum()), np.asarray(~seen.any(axis=1)))


def normalized(points: Floats) -> Floats:
    """Points (51, 2) around (0, 0), with a mean squared distance of 1 from it: place and size in the image are gone.

    Turns in the image are left: posed faces are upright.
    """
    centered = points - points.mean(axis=0)
    return np.asarray(centered / max(float(np.sqrt((centered**2).sum(axis=1).mean())), 1e-9))


def views(points: Floats) -> NDArray[np.float32]:
    """Trajectories as they are and mirrored: (n, frames, 51, 2) -> (n, 2, frames, 51, 2), as in ``clips.Examples``."""
    return np.stack([points, points[..., MIRROR, :] * (-1, 1)], axis=1).astype(np.float32)


def of_clips(images: NDArray[np.uint8], aligner: str) -> Found:
    """``find`` with an aligner by its name and file.

    Raises:
        EdgeFerError: see ``open_aligner``; or no face was found at all.
    """
    found = find(images, open_aligner(aligner))
    if found.lost.all():
        raise DataError(f"{Path(aligner.partition(':')[2]).name} finds no face in any of the clips.")
    return found
