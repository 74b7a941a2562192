"""Landmarks of the crops of a data set, in one file beside it, which models that align by points are trained with.

    DIR/landmarks.npz   sha1: uint8 (n, 20), of the pixels of each crop
                        points: float32 (n, 10), x and y of the person's right eye, left eye, nose, right and left
                        corner of the mouth in pixels of the crop, as `core.Landmarks`; NaN where
                        nobody found them

A crop is known by its pixels, not by its row: so the file serves whichever rows a recipe or an export leaves out.
``python -m datasets.landmarks`` writes it.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_fer.core import Landmarks
from edge_fer.errors import DataError, InputMissingError
from edge_fer.files import write_atomically

NAME = "landmarks.npz"
"""Of the file, in the folder of the data set."""
_MAKE = "`python -m datasets.landmarks -o FILE` makes it"


def digest_of(image: NDArray[np.uint8]) -> bytes:
    """What a crop is known by: SHA-1 of its pixels, 20 bytes."""
    return hashlib.sha1(np.ascontiguousarray(image).data).digest()


@dataclass(frozen=True)
class CropLandmarks:
    """Landmarks of crops.

    Attributes:
        path: of their file.
        points: float32 (10,), by the digest of the crop.
    """

    path: Path
    points: Mapping[bytes, NDArray[np.float32]]

    @classmethod
    def read(cls, path: Path) -> CropLandmarks:
        """Read a file of landmarks.

        Raises:
            InputMissingError: there is none.
            DataError: it is another file.
        """
        if not path.is_file():
            raise InputMissingError(f"No {path}: faces are aligned by their landmarks; {_MAKE}.")
        try:
            with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                sha1, points = file["sha1"], file["points"].astype(np.float32)
            if sha1.dtype != np.uint8 or sha1.shape != (len(points), 20) or points.shape != (len(sha1), 10):
                raise ValueError(f"shapes {sha1.shape} and {points.shape}")
        except Exception as error:  # NumPy brings out a dozen kinds of a damaged file
            raise DataError(f"{path} is no file of landmarks ({error}); {_MAKE}.") from None
        return cls(path, {row.tobytes(): one for row, one in zip(sha1, points, strict=True)})

    def of(self, images: NDArray[np.uint8], name: str) -> NDArray[np.float32]:
        """Landmarks of crops, float32 (n, 10); NaN where nobody found them.

        Args:
            images: uint8 (n, height, width, 1).
            name: what they are called where some are not in the file.

        Raises:
            DataError: some are not in the file.
        """
        found = [self.points.get(digest_of(image)) for image in images]
        if missing := sum(one is None for one in found):
            raise DataError(f"{self.path} lacks {missing:,} of the {len(images):,} faces of {name}; {_MAKE} anew.")
        return np.array(found, np.float32).reshape(-1, 10)


def write_landmarks(path: Path, images: NDArray[np.uint8], points: NDArray[np.float32]) -> None:
    """Write landmarks (n, 10) of crops (n, height, width, 1), whole or not at all; of equal crops the first counts."""
    first = {digest_of(image): row for row, image in reversed(list(enumerate(images)))}
    digests = np.frombuffer(b"".join(first), np.uint8).reshape(-1, 20)
    content = io.BytesIO()
    np.savez_compressed(content, sha1=digests, points=points[list(first.values())].astype(np.float32))
    write_atomically(path, content.getvalue())


def marks_of(points: NDArray[np.float32]) -> Landmarks | None:
    """Ten numbers as landmarks; None where one is NaN."""
    if not np.isfinite(points).all():
        return None
    right_eye, left_eye, nose, right, left = ((float(x), float(y)) for x, y in points.reshape(5, 2))
    return Landmarks(right_eye, left_eye, nose, (right, left))


def marks_of_all(points: NDArray[np.float32] | None) -> list[Landmarks | None] | None:
    """Rows of ten numbers as landmarks, as ``Preprocessor.crops`` takes them; None for none at all."""
    return None if points is None else [marks_of(one) for one in points]
