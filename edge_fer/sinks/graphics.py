"""Pictures as terminals take them: half blocks, sixels, and the graphics of kitty. Arrays in, bytes out."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_fer.core import Face, FaceBox, Image
from edge_fer.draw import COLORS, caption

INK = "#201c18"
"""Of letters on the colors of expressions."""
_TOLERANCE = 5
"""A pixel that changed by less is left as it is: noise of a camera costs no bytes."""
_UPPER_HALF = "▀"
_CHUNK = 4096

# xterm's 256 colors: a cube of 6x6x6, and 24 grays between its black (16) and its white (231).
_CUBE = np.array([0, 95, 135, 175, 215, 255])
_GRAYS: NDArray[np.int32] = np.array([16, *range(232, 256), 231], np.int32)
_SIXEL_GRAYS = 32


def sgr(ink: str | None = None, ground: str | None = None, *, dim: bool = False, truecolor: bool) -> str:
    """The escape sequence (ECMA-48 SGR) that sets the colors of text, after a reset.

    Args:
        ink: of the letters, as ``#f0e442``; None for the terminal's own.
        ground: behind them, likewise.
        dim: letters are drawn faintly.
        truecolor: the terminal has 24-bit colors; else the nearest of 256 is taken.
    """
    parts = ["0", *(["2"] if dim else [])]
    for kind, color in ((38, ink), (48, ground)):
        parts += [f"{kind};{_parameters(_code(color, truecolor), truecolor)}"] if color else []
    return f"\x1b[{';'.join(parts)}m"


class HalfBlocks:
    """A picture of text: each cell shows two pixels, one above the other, as ink and ground of an upper half block.

    What a cell shows is remembered, and only cells that change are sent again.

    Args:
        truecolor: the terminal has 24-bit colors. With 256 the picture is gray.
    """

    def __init__(self, truecolor: bool) -> None:
        self._truecolor = truecolor
        self._pixels: Image | None = None
        self._cells: NDArray[np.int32] | None = None

    def forget(self) -> None:
        """Nothing is left on the screen of the last picture."""
        self._pixels = self._cells = None

    def draw(self, picture: Image, faces: Sequence[Face], place: tuple[int, int], size: tuple[int, int]) -> bytes:
        """What turns the screen's last picture into this one.

        Args:
            picture: uint8 (height, width) or (height, width, 3), BGR.
            faces: largest first, with boxes in its pixels.
            place: row and column of the upper left corner, from 1. The same as for the last picture, unless ``forget``.
            size: columns and rows, likewise.
        """
        columns, rows = size
        pixels = shrunk(picture, (columns, 2 * rows))
        if self._pixels is not None and self._pixels.shape == pixels.shape:
            pixels = np.where(cv2.absdiff(pixels, self._pixels) < _TOLERANCE, self._pixels, pixels)
        self._pixels = pixels
        codes = self._coded(pixels)
        scale = columns / picture.shape[1], 2 * rows / picture.shape[0]
        outlines = [_outline(face.box, scale, (columns, 2 * rows)) for face in faces]
        for face, (left, top, right, bottom) in reversed(list(zip(faces, outlines, strict=True))):
            edge = _code(COLORS[face.expression], self._truecolor)
            codes[[top, bottom], left : right + 1] = edge
            codes[top : bottom + 1, [left, right]] = edge
        # A cell: the upper pixel, the lower one, the letter.
        cells = np.stack((codes[::2], codes[1::2], np.full((rows, columns), ord(_UPPER_HALF), np.int32)), axis=2)
        for face, (left, top, _, _) in reversed(list(zip(faces, outlines, strict=True))):
            text = f" {' '.join(caption(face))} "[:columns]
            row, column = max(0, top // 2 - 1), min(left, columns - len(text))
            chip = cells[row, column : column + len(text)]
            chip[:, 0] = _code(INK, self._truecolor)
            chip[:, 1] = _code(COLORS[face.expression], self._truecolor)
            chip[:, 2] = [ord(letter) for letter in text]
        changed = np.ones((rows, columns), bool) if self._cells is None else (cells != self._cells).any(axis=2)
        self._cells = cells
        return self._sent(cells, changed, place)

    def _coded(self, pixels: Image) -> NDArray[np.int32]:
        """Each pixel as a color's number, int32 (height, width): of the 256, or 0xRRGGBB."""
        if self._truecolor:
            wide = cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR) if pixels.ndim == 2 else pixels
            blue, green, red = np.moveaxis(wide.astype(np.int32), 2, 0)
            codes: NDArray[np.int32] = red << 16 | green << 8 | blue
            return codes
        gray = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY) if pixels.ndim == 3 else pixels
        return _GRAYS[np.minimum((gray.astype(np.int32) + 7) // 10, 25)]  # they are 0, 8, 18, ..., 238, 255

    def _sent(self, cells: NDArray[np.int32], changed: NDArray[np.bool_], place: tuple[int, int]) -> bytes:
        parts = []
        last_upper = last_lower = -1
        for row in np.flatnonzero(changed.any(axis=1)):
            columns = np.flatnonzero(changed[row])
            next_column = -1
            for column, (upper, lower, letter) in zip(columns.tolist(), cells[row, columns].tolist(), strict=True):
                if column != next_column:
                    parts.append(f"\x1b[{place[0] + row};{place[1] + column}H")
                next_column = column + 1
                if upper != last_upper and lower != last_lower:
                    ink, ground = _parameters(upper, self._truecolor), _parameters(lower, self._truecolor)
                    parts.append(f"\x1b[38;{ink};48;{ground}m")
                elif upper != last_upper:
                    parts.append(f"\x1b[38;{_parameters(upper, self._truecolor)}m")
                elif lower != last_lower:
                    parts.append(f"\x1b[48;{_parameters(lower, self._truecolor)}m")
                last_upper, last_lower = upper, lower
                parts.append(chr(letter))
        return "".join(parts).encode()


def shrunk(picture: Image, size_wh: tuple[int, int]) -> Image:
    """A picture in another size; where that is smaller, each pixel is the mean of those that it takes the place of."""
    return cv2.resize(picture, size_wh, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def kitty(picture: Image, size: tuple[int, int]) -> bytes:
    """A picture at the cursor, in place of the one before, by kitty's graphics protocol.

    https://sw.kovidgoyal.net/kitty/graphics-protocol: transmit and show (a=T) a PNG (f=100) as image 1, placement 1,
    without an answer (q=2) and without moving the cursor (C=1).

    Args:
        picture: uint8 (height, width, 3), BGR; the terminal scales it.
        size: columns and rows that it takes.
    """
    data = base64.b64encode(cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes())
    chunks = [data[at : at + _CHUNK] for at in range(0, len(data), _CHUNK)]
    first = b"a=T,f=100,i=1,p=1,C=1,q=2,c=%d,r=%d," % size
    return b"".join(
        b"\x1b_G%sm=%d;%s\x1b\\" % (first if not at else b"q=2,", at < len(chunks) - 1, chunk)
        for at, chunk in enumerate(chunks)
    )


def sixel(picture: Image) -> bytes:
    """A picture at the cursor as DEC sixels (VT330/VT340 Programmer Reference, chapter 14): grays, and colors of faces.

    Args:
        picture: uint8 (height, width, 3), BGR. Its height is cut to whole sixels, of six pixels each.
    """
    height, width = picture.shape[0] // 6 * 6, picture.shape[1]
    indices = _indexed(picture[:height])
    bands = []
    weights = (1 << np.arange(6, dtype=np.uint8))[:, None]
    for band in indices.reshape(-1, 6, width):
        rows = []
        for color in np.flatnonzero(np.bincount(band.ravel())):
            row = ((band == color) * weights).sum(axis=0, dtype=np.uint8) + 63
            rows.append(b"#%d%s" % (color, _REPEATED.sub(_run, row.tobytes().rstrip(b"?"))))
        bands.append(b"$".join(rows))
    # No line feed after the last band, which might scroll the screen.
    return b'\x1bP0;1q"1;1;%d;%d' % (width, height) + _PALETTE + b"-".join(bands) + b"\x1b\\"


_REPEATED = re.compile(rb"([?-~])\1{3,}", re.DOTALL)


def _run(found: re.Match[bytes]) -> bytes:
    return b"!%d%s" % (len(found[0]), found[1])


def _palette() -> NDArray[np.int32]:
    """What the registers hold, int32 (56, 3), BGR: 32 grays, then each expression's color, bright and towards black."""
    grays = np.linspace(0, 255, _SIXEL_GRAYS)[:, None].repeat(3, axis=1)
    colors = np.array([_rgb(color)[::-1] for color in COLORS.values()])
    registers: NDArray[np.int32] = np.rint(np.concatenate((grays, colors, colors * 0.66, colors * 0.33))).astype(
        np.int32
    )
    return registers


def _indexed(picture: Image) -> Image:
    """The nearest register of each pixel, uint8 (height, width)."""
    gray = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY).astype(np.uint8, copy=False)
    indices: Image = gray // np.uint8(256 // _SIXEL_GRAYS)
    colored = picture.max(axis=2) - picture.min(axis=2) > 24
    blue, green, red = (picture[colored] >> 4).astype(np.int32).T
    indices[colored] = _nearest()[blue << 8 | green << 4 | red]
    return indices


@cache
def _nearest() -> Image:
    """The nearest register to each color of four bits a part, uint8 (4096,): blue << 8 | green << 4 | red."""
    parts = np.indices((16, 16, 16)).reshape(3, -1).T * 16 + 8
    distances = np.stack([np.square(parts - color).sum(axis=1) for color in _REGISTERS])
    nearest: Image = distances.argmin(axis=0).astype(np.uint8)
    return nearest


def _outline(box: FaceBox, scale: tuple[float, float], size_wh: tuple[int, int]) -> tuple[int, int, int, int]:
    """First and last column and row of a box on a small picture: left, top, right, bottom, all inside."""
    (across, down), (width, height) = scale, size_wh
    left, right = (min(max(round(x * across), 0), width - 1) for x in (box.x, box.x + box.w))
    top, bottom = (min(max(round(y * down), 0), height - 1) for y in (box.y, box.y + box.h))
    return left, top, right, bottom


def _rgb(color: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(color[1:])
    return red, green, blue


@cache
def _code(color: str, truecolor: bool) -> int:
    red, green, blue = _rgb(color)
    if truecolor:
        return red << 16 | green << 8 | blue
    steps = [int(np.abs(_CUBE - part).argmin()) for part in (red, green, blue)]
    return 16 + 36 * steps[0] + 6 * steps[1] + steps[2]


def _parameters(code: int, truecolor: bool) -> str:
    return f"2;{code >> 16};{code >> 8 & 255};{code & 255}" if truecolor else f"5;{code}"


_REGISTERS = _palette()
# DECGCI: number; 2 for RGB; red; green; blue in percent.
_PALETTE = b"".join(
    b"#%d;2;%d;%d;%d" % (number, *np.rint(color[::-1] / 2.55).astype(int)) for number, color in enumerate(_REGISTERS)
)
