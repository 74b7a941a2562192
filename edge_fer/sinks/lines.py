"""What the terminal says of results: lines of colored pieces, for whatever prints them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from edge_fer.core import Expression, Face, FrameResult
from edge_fer.draw import COLORS, caption
from edge_fer.files import shown
from edge_fer.sinks.graphics import INK

_BAR_WIDTH = 24
_GROOVE = "#4a4a4a"


class Piece(NamedTuple):
    """A part of a line: its text, its colors as ``#f0e442``, and whether it is faint. Readable on light and dark."""

    text: str
    ink: str | None = None
    ground: str | None = None
    dim: bool = False


Line: TypeAlias = Sequence[Piece]


def bar(share: float, width: int = _BAR_WIDTH) -> tuple[str, str]:
    """The full and the empty part of a bar, in letters that stdout can show."""
    full = round(share * width)
    try:
        "█░".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return "#" * full, "." * (width - full)
    return "█" * full, "░" * (width - full)


def bar_pieces(share: float, expression: Expression, width: int = _BAR_WIDTH) -> list[Piece]:
    """A bar in the color of an expression."""
    full, rest = bar(share, width)
    return [Piece(full, COLORS[expression]), Piece(rest, _GROOVE, _GROOVE)]


def status(result: FrameResult, fps: float | None) -> Piece:
    """Where the frame comes from, and what it took."""
    frame = result.frame
    name = printing(shown(Path(frame.stream).name or frame.stream))
    stages = [f"{stage} {ms:.1f} ms" for stage, ms in result.latency_ms.items()]
    rate = "- fps" if fps is None else f"{fps:.1f} fps"
    return Piece("  ".join((name, f"frame {frame.seq}", f"{frame.time_s:.1f} s", rate, *stages)), dim=True)


def face_lines(result: FrameResult, most: int) -> list[Line]:
    """One line a face, in the order of their tracks."""
    faces = sorted(result.faces, key=lambda face: face.track)[: max(1, most)]
    lines: list[Line] = [
        [
            Piece(f"face {face.track}  "),
            Piece(f" {face.expression:<9} ", INK, COLORS[face.expression]),
            Piece("  "),
            *bar_pieces(face.confidence, face.expression),
            Piece(f"  {face.confidence * 100:3.0f} %  "),
            Piece(_doubt(face), dim=True),
        ]
        for face in faces
    ]
    return lines or [[Piece("no face", dim=True)]]


def side_lines(result: FrameResult, columns: int, most: int) -> list[Line]:
    """Four lines a face, the last one empty."""
    lines: list[Line] = []
    for face in sorted(result.faces, key=lambda face: face.track)[: most // 4]:
        lines.append([Piece(f" {' '.join(caption(face))} ", INK, COLORS[face.expression])])
        lines.append(bar_pieces(face.confidence, face.expression, min(columns, _BAR_WIDTH)))
        lines += [[Piece(_doubt(face), dim=True)], []]
    return lines or [[Piece("no face", dim=True)]]


def _doubt(face: Face) -> str:
    """Why not to rely on the answer, or else what is next to it."""
    others = (entry for entry in face.prediction.probabilities.items() if entry[0] != face.expression)
    second, runner_up = max(others, key=lambda entry: entry[1], default=(face.expression, face.confidence))
    return face.uncertain or f"{second} {runner_up * 100:.0f} %"


def printing(text: str) -> str:
    """A text without what would move the cursor."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
