"""What a training set and a test set must not share: people, sequences, and images that are nearly the same.

Near-duplicates are found by a perceptual hash (Zauner, Implementation and Benchmarking of Perceptual Image Hash
Functions, 2010, section 3.2.1: the signs of an image's low frequencies) and proved by correlation. In FER2013, of 24
pairs with a correlation of 0.95 and more all are by eye one picture, cropped, lit, written on or compressed otherwise.
Mirror images count as copies. What is shifted, turned or cropped by more than a few pixels is not found.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets.core import Dataset
from edge_fer.errors import DataError

MAX_DISTANCE = 8
"""Bits of 64 in which the hashes of one picture's copies may differ."""
MIN_CORRELATION = 0.95
"""Of the pixels of copies, Pearson's."""

Pairs = NDArray[np.int64]
"""int64 (m, 2): an image of the one set, and its copy in the other."""


@dataclass(frozen=True)
class Leaks:
    """What two sets share.

    Attributes:
        subjects: people who are in both.
        sequences: of which frames are in both.
        copies: near-duplicates, rows of the one and of the other.
    """

    subjects: tuple[str, ...]
    sequences: tuple[str, ...]
    copies: Pairs

    def __bool__(self) -> bool:
        return bool(self.subjects or self.sequences or len(self.copies))

    def __str__(self) -> str:
        parts = []
        for names, what in ((self.subjects, "people"), (self.sequences, "sequences")):
            if names:
                parts.append(f"{len(names):,} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})")
        if len(self.copies):
            parts.append(f"{len(self.copies):,} pairs of nearly the same image")
        return " and ".join(parts) or "nothing"


def leaks(training: Dataset, test: Dataset) -> Leaks:
    """What they share. Where a data set does not tell subjects or sequences, that cannot be seen."""
    return Leaks(
        _shared(training.subjects, test.subjects),
        _shared(training.sequences, test.sequences),
        near_duplicates(training.images, test.images),
    )


def refuse_leaks(training: Dataset, test: Dataset, names: tuple[str, str] = ("Training", "test")) -> None:
    """Let a split pass that shares nothing.

    Args:
        training: the one set.
        test: the other.
        names: of both, for the message.

    Raises:
        DataError: it shares something.
    """
    if found := leaks(training, test):
        raise DataError(
            f"{names[0]} and {names[1]} share {found}, so that what is measured is partly memory: "
            "leave them out of one of the two."
        )


def _shared(ours: NDArray[np.str_] | None, theirs: NDArray[np.str_] | None) -> tuple[str, ...]:
    return () if ours is None or theirs is None else tuple(np.intersect1d(ours, theirs).tolist())


def perceptual_hashes(images: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """64 bits for each image, few of which differ between copies of one picture.

    Args:
        images: uint8 (n, height, width, 1).

    Returns:
        uint64 (n,): the 8x8 lowest frequencies of the cosine transform at 32x32, each above their median or not.
    """
    bits = np.zeros((len(images), 64), np.bool_)
    for row, image in enumerate(images):
        small = cv2.resize(image[..., 0], (32, 32), interpolation=cv2.INTER_AREA)
        frequencies = cv2.dct(small.astype(np.float32))[:8, :8].ravel()
        bits[row] = frequencies > np.median(frequencies[1:])  # the first is the mean brightness
    hashes: NDArray[np.uint64] = np.packbits(bits, axis=1).view(np.uint64)[:, 0]
    return hashes


def near_duplicates(images: NDArray[np.uint8], others: NDArray[np.uint8] | None = None) -> Pairs:
    """Pairs of images that show one picture, or one its mirror image.

    Args:
        images: uint8 (n, height, width, 1).
        others: uint8 (k, height, width, 1) of the same size; None for pairs among ``images``.

    Returns:
        Rows of ``images`` and of ``others``; without ``others``, each pair once, the smaller row first.
    """
    alone = others is None
    others = images if others is None else others
    hashes, pairs = perceptual_hashes(images), set[tuple[int, int]]()
    for views in (others, np.ascontiguousarray(others[:, :, ::-1])):
        for there, fingerprint in enumerate(perceptual_hashes(views)):
            near = np.bitwise_count(hashes[: there if alone else None] ^ fingerprint) <= MAX_DISTANCE
            pairs |= {(int(here), there) for here in np.flatnonzero(near) if _same(images[here], views[there])}
    return np.array(sorted(pairs), np.int64).reshape(-1, 2)


def _same(image: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    if np.array_equal(image, other):
        return True  # of one gray level, too, where there is no correlation
    ours, theirs = (one.ravel() - one.mean() for one in (image, other))
    size = float(np.sqrt((ours @ ours) * (theirs @ theirs)))
    return size > 0 and bool(ours @ theirs >= MIN_CORRELATION * size)
