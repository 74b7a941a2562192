"""How loaders look through folders and read small files, each with a sentence where one is not as it should be."""

from __future__ import annotations

import csv
import json
import os
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_fer.core import Frame, Image
from edge_fer.errors import DataError
from edge_fer.sources.video import open_video

_LOOKED_AT = 20000
"""Names of files by which a set is known: some sets have hundreds of thousands."""
UNZIPPED_ERRORS = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, KeyError, RuntimeError)
"""What Python's reader of ZIP archives says of one that is damaged, encrypted or packed otherwise."""
MOST = 20_000.0
"""That a number in a small file can be: a place in pixels, votes, a measure. No photograph is larger."""


def read_gray(path: Path) -> Image:
    """The image in a file: uint8 (height, width).

    Raises:
        DataError: there is none.
    """
    # Read by Python: OpenCV cannot take a name that is not UTF-8.
    gray = decoded(path.read_bytes())
    if gray is None:
        raise DataError(f"{path} cannot be read as an image.")
    return gray


def decoded(content: bytes) -> Image | None:
    """The gray image that a file's content is: uint8 (height, width); None where it is none."""
    try:
        gray = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE) if content else None
    except cv2.error:  # its head claims more pixels than OpenCV takes
        return None
    return None if gray is None else gray.astype(np.uint8, copy=False)


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
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path} is no text in UTF-8: it should hold labels or numbers, line by line.") from None
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield number, line.strip()


def csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV that are not empty, with the numbers of their lines from 1.

    Raises:
        DataError: it is no CSV in UTF-8.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        try:
            for row in reader:
                if row:
                    yield reader.line_num, row
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(_about_archive(path) or f"{path} cannot be read as CSV in UTF-8: {error}.") from None


def csv_table(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a CSV by the names of its columns, which are stripped of blanks, with the numbers of their lines.

    Raises:
        DataError: it is no CSV, lacks one of ``columns``, or a row is too short.
    """
    rows = csv_rows(path)
    names = [name.strip() for name in next(rows, (1, list[str]()))[1]]
    if missing := [column for column in columns if column not in names]:
        raise DataError(_about_archive(path) or f"{path} has no column {', '.join(missing)}.")
    for number, row in rows:
        if len(row) < len(names):
            raise DataError(f"{path}, line {number}: the row is too short.")
        yield number, dict(zip(names, row, strict=False))


def _about_archive(path: Path) -> str | None:
    """What to do with a download that was unpacked once and is still an archive, under the CSV's name."""
    kind = "tar" if tarfile.is_tarfile(path) else "zip" if zipfile.is_zipfile(path) else None
    return kind and f"{path} is no CSV but a {kind} archive: unpack it, and give the folder that then holds the CSV."


def xml_in(path: Path) -> ElementTree.Element:
    """The root of an XML file.

    Raises:
        DataError: it is none.
    """
    try:
        return ElementTree.fromstring(path.read_bytes())
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # the latter two for its encoding
        raise DataError(f"{path} is no XML ({error}).") from None


def folds_in(path: Path) -> list[list[int]]:
    """The test rows of each fold, as ``python -m evaluation folds --json`` writes them: a list of lists, of JSON.

    Raises:
        DataError: it holds something else, or none.
    """
    try:
        folds = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        folds = None
    if not isinstance(folds, list) or not folds or not all(isinstance(fold, list) for fold in folds):
        raise DataError(f"{path} holds no folds: it should be a JSON list of the test rows of each fold.")
    if not all(type(row) is int and 0 <= row < 1 << 31 for fold in folds for row in fold):
        raise DataError(f"{path} holds no folds: its rows should be whole numbers from 0.")
    return folds


def numbers_of(texts: Iterable[str]) -> list[float]:
    """Texts as numbers.

    Raises:
        ValueError: one is none, or none that a pixel, a vote or a measure can be.
    """
    numbers = [float(text) for text in texts]
    if not all(abs(number) <= MOST for number in numbers):
        raise ValueError("not finite, or too large")
    return numbers


def numbers_in(path: Path) -> NDArray[np.float32]:
    """The table of numbers in a text: float32 (rows, columns).

    Raises:
        DataError: it holds none, or rows of unequal length.
    """
    try:
        table = np.array([numbers_of(line.replace(",", " ").split()) for _, line in lines_of(path)], np.float32)
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
