"""``python -m datasets show``: a picture of a data set, a row of images for each label, with boxes and landmarks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from datasets.catalog import read_all, recognize
from datasets.sample import Sample
from datasets.sequences import FRAMES
from edge_fer.core import Image
from edge_fer.errors import DataError, OutputError
from edge_fer.files import write_atomically

_CELL = 96
_HEAD = 28
_LABEL = 170
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def show(folder: Path, out: Path, columns: int = 10) -> Path:
    """Draw a contact sheet: PNG.

    Args:
        folder: with a data set.
        out: the file.
        columns: images of each label, evenly chosen over the set.

    Returns:
        The file.

    Raises:
        InputMissingError: there is no such folder, or nothing in it.
        DataError: it is no known set, or one of its files is wrong.
        OutputError: the sheet cannot be written.
    """
    layout, place = recognize(folder)
    samples = read_all(layout, place)
    stills = layout.stills(samples, FRAMES, True) if layout.stills else samples
    rows: dict[str, list[Sample]] = {}
    for sample in stills:
        rows.setdefault(sample.label or "no label", []).append(sample)
    sheet = np.full((_HEAD + _CELL * len(rows), _LABEL + _CELL * columns, 3), 255, np.uint8)
    _text(sheet, f"{layout.title}: {len(stills):,} images. Terms: {layout.licence}. Not to be passed on.", (8, 19))
    for row, (label, shown) in enumerate(sorted(rows.items())):
        top = _HEAD + row * _CELL
        expression = shown[0].expression or shown[0].compound or "-"
        for line, text in enumerate((label, expression, f"{len(shown):,}")):
            _text(sheet, text, (8, top + 30 + 20 * line))
        for column, sample in enumerate(_chosen(shown, columns)):
            left = _LABEL + column * _CELL
            sheet[top : top + _CELL, left : left + _CELL] = _cell(sample)
    encoded = cv2.imencode(".png", sheet)[1].tobytes()
    if out.suffix.lower() != ".png":
        raise OutputError(f"A contact sheet is a PNG: call it {out.with_suffix('.png')}.")
    write_atomically(out, encoded)
    return out


def _chosen(samples: Sequence[Sample], count: int) -> Iterator[Sample]:
    places = np.unique(np.linspace(0, len(samples) - 1, min(count, len(samples))).astype(int))
    return (samples[place] for place in places)


def _cell(sample: Sample) -> Image:
    """The image with its annotation, in BGR; a cross where it cannot be read."""
    cell = np.full((_CELL, _CELL, 3), 255, np.uint8)
    try:
        gray = next(sample.images())
    except (DataError, OSError, StopIteration):
        cv2.drawMarker(cell, (_CELL // 2, _CELL // 2), (0, 0, 200), cv2.MARKER_TILTED_CROSS, _CELL // 2)
        return cell
    factor = (_CELL - 4) / max(gray.shape)
    small = cv2.resize(gray, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    part = cell[2 : 2 + small.shape[0], 2 : 2 + small.shape[1]]
    part[:] = small[..., np.newaxis]
    if sample.box is not None:
        box = sample.box.scaled(factor)
        corners = ((round(box.x), round(box.y)), (round(box.x + box.w), round(box.y + box.h)))
        cv2.rectangle(part, *corners, (0, 160, 0))
    for x, y in [] if sample.landmarks is None else (sample.landmarks * factor).round().astype(int).tolist():
        cv2.circle(part, (x, y), 1, (0, 0, 220), cv2.FILLED)
    return cell


def _text(sheet: Image, text: str, place: tuple[int, int]) -> None:
    ascii_only = text.encode("ascii", "replace").decode()  # OpenCV's letters
    cv2.putText(sheet, ascii_only, place, _FONT, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
