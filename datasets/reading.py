"""How loaders look through folders and read small files, each with a sentence where one is not as it should be."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_fer.core import Frame, Image
from edge_fer.errors import DataError
from edge_fer.sources.video import open_video

_LOOKED_AT = 20000
"""Names of files by which a set is known: some sets have hundreds of thousands."""


def read_gray(path: Path) -> Image:
    """The image in a file: uint8 (height, width).

    Raises:
        DataError: there is none.
    """
    # Read by Python: OpenCV cannot take a name that is not UTF-8.
    content = np.frombuffer(path.read_bytes(), np.uint8)
    gray = cv2.imdecode(content, cv2.IMREAD_GRAYSCALE) if content.size else None
    if gray is None:
        raise DataError(f"{path} cannot be read as an image.")
    return gray.astype(np.uint8, copy=False)


def frames_in(video: Path) -> Iterator[Frame]:
    """The frames of a video.

    Raises:
        DataError: it is none, or breaks off.
    """
    source = open_video(video)
    try:
        yield from source
    finally:
        source.close()


def folder_named(folder: Path, *names: str) -> Path | None:
    """The folder itself, or one up to two levels below it, that has one of the names, whatever their case."""
    wanted = {name.lower() for name in names}
    for level in ([folder], subfolders(folder), [below for one in subfolders(folder) for below in subfolders(one)]):
        for one in level:
            if one.name.lower() in wanted:
                return one
    return None


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted, without what macOS leaves behind."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__MACOSX")))


def files_below(folder: Path, *suffixes: str) -> list[Path]:
    """All files of these types, at any depth, sorted; what macOS and editors leave behind begins with a dot."""
    return sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in suffixes and not path.name.startswith((".", "__"))
    )


def files_named(folder: Path, pattern: re.Pattern[str], *suffixes: str) -> Iterator[tuple[Path, re.Match[str]]]:
    """The files below a folder whose names, without their type, are of a pattern, sorted, with what it says of each."""
    for path in files_below(folder, *suffixes):
        if match := pattern.fullmatch(path.stem.strip()):
            yield path, match


def some_name_fits(folder: Path, pattern: re.Pattern[str]) -> bool:
    """Whether a file at any depth has a name, without its type, of that pattern; of many, the first are looked at."""
    names = (Path(name).stem for _, _, files in os.walk(folder) for name in files)
    return any(pattern.fullmatch(name) for name in islice(names, _LOOKED_AT))


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text that are not empty, with their numbers from 1.

    Raises:
        DataError: it is no text.
    """
    try:
        for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
            if line.strip():
                yield number, line.strip()
    except UnicodeDecodeError:
        raise DataError(f"{path} is no text: it should hold labels, one a line.") from None


def numbers_in(path: Path) -> NDArray[np.float32]:
    """The table of numbers in a text: float32 (rows, columns).

    Raises:
        DataError: it holds none, or rows of unequal length.
    """
    try:
        table = np.array([[float(one) for one in line.replace(",", " ").split()] for _, line in lines_of(path)], "f4")
    except ValueError:
        raise DataError(f"{path} holds no table of numbers.") from None
    if table.ndim != 2:
        raise DataError(f"{path} is empty.")
    return table


def landmarks_in(path: Path, points: int) -> NDArray[np.float32]:
    """Landmarks in a text, x and y a line: float32 (points, 2).

    Raises:
        DataError: there are others than that many.
    """
    table = numbers_in(path)
    if table.shape != (points, 2):
        raise DataError(f"{path} holds {len(table)} landmarks, not {points}.")
    return table


def refuse_missing(missing: Sequence[Path], named: int, where: Path) -> None:
    """Let a list of images pass if all of them are there.

    Args:
        missing: those that are not.
        named: how many the list names.
        where: the list.

    Raises:
        DataError: some are missing.
    """
    if missing:
        raise DataError(
            f"{len(missing):,} of the {named:,} images that {where} names are not there ({missing[0]} is the first): "
            "the set is not whole; unpack all of its archives."
        )
