"""The live views of a terminal: a few lines, or the picture with boxes and labels and the lines beside it."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from io import TextIOWrapper
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from edge_fer.core import FrameResult
from edge_fer.draw import annotate
from edge_fer.files import output_error
from edge_fer.sinks.graphics import HalfBlocks, kitty, sgr, shrunk, sixel
from edge_fer.sinks.lines import Line, Piece, face_lines, printing, side_lines, status
from edge_fer.sinks.screen import Graphics, Screen, Size

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

log = logging.getLogger("edge_fer")

_MOST_SHARE = 0.2
"""Of the time that may go into drawing pictures: a slow board or line gets fewer of them."""
_REPAIR_S = 5.0
"""All is drawn anew so often: a driver's library may have written on the screen."""
_NEWS_S = 10.0
_FPS_WINDOW_S = 1.0
_SIDE_COLUMNS, _BELOW_ROWS = 23, 2
_LEAST_COLUMNS, _LEAST_ROWS = 16, 6
_MOST_PX = 640

_SYNC, _SHOW = b"\x1b[?2026h", b"\x1b[?2026l"  # synchronized output: the terminal shows all of it at once


class LiveView:
    """Draws results on a canvas, not more often than people, the board and the line to the terminal can follow.

    Args:
        console: of the terminal.
        canvas: what is drawn on.
        clock: wall time in seconds.
    """

    def __init__(self, console: Console, canvas: LinesCanvas | PictureCanvas, clock: Callable[[], float]) -> None:
        self._console = console
        self._canvas = canvas
        self._clock = clock
        self._next_s = float("-inf")
        self._frames = 0
        self._window_s: float | None = None
        self._fps: float | None = None

    def show(self, result: FrameResult, now_s: float) -> None:
        """Draw a result, unless the last one was drawn a moment ago. Raises OutputError or BrokenPipeError."""
        if self._window_s is None:
            self._window_s = now_s
        elif now_s - self._window_s >= _FPS_WINDOW_S:
            self._fps = self._frames / (now_s - self._window_s)
            self._frames, self._window_s = 0, now_s
        self._frames += 1
        if now_s < self._next_s:
            return
        with _terminal_errors():
            self._canvas.draw(result, self._fps, now_s)
        took_s = self._clock() - now_s
        self._next_s = now_s + max(self._canvas.refresh_s, took_s / _MOST_SHARE)

    def stop(self) -> None:
        """Leave the terminal as it was."""
        with suppress(OSError):  # the terminal is gone
            self._canvas.stop()

    def print(self, lines: Sequence[Line]) -> None:
        """Lines that stay. Raises OutputError or BrokenPipeError."""
        with _terminal_errors():
            for line in lines:
                self._console.print(_rich(line), soft_wrap=True)


class LinesCanvas:
    """A few lines that are drawn over and over, below what the shell has printed.

    Args:
        console: of the terminal.
    """

    refresh_s = 0.1

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        self._console = console
        # Refreshed by hand: Rich's own refreshing takes a thread.
        self._live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False)

    def draw(self, result: FrameResult, fps: float | None, now_s: float) -> None:
        """Draw the lines of a result. Raises OSError."""
        from rich.console import Group

        self._live.start()
        lines = [[status(result, fps)], *face_lines(result, self._console.height - 2)]
        texts = [_rich(line) for line in lines]
        for text in texts:
            text.truncate(self._console.width, overflow="ellipsis")
        self._live.update(Group(*texts), refresh=True)

    def stop(self) -> None:
        """Take the lines away. Raises OSError."""
        self._live.stop()


class PictureCanvas:
    """The picture with boxes and labels, a status line above it, and lines for the faces where there is room.

    Args:
        screen: to draw on.
        graphics: how the terminal shows pictures.
        truecolor: it has 24-bit colors for text.
    """

    refresh_s = 0.06

    def __init__(self, screen: Screen, graphics: Graphics, truecolor: bool) -> None:
        self._screen = screen
        self._graphics = graphics
        self._truecolor = truecolor
        self._blocks = HalfBlocks(truecolor)
        self._lines: dict[tuple[int, int], bytes] = {}
        self._repaired_s = float("-inf")
        self._messages = _HeldMessages()

    def draw(self, result: FrameResult, fps: float | None, now_s: float) -> None:
        """Draw a result. Raises OSError."""
        self._messages.hold()
        size, is_fresh = self._screen.begin()
        if is_fresh or now_s - self._repaired_s >= _REPAIR_S:
            self._repaired_s = now_s
            self._lines.clear()
            self._blocks.forget()
        height, width = result.frame.gray.shape
        if self._graphics == "sixel":  # below a picture that ends in the last row, xterm makes room for the cursor
            size = size._replace(rows=size.rows - 1)
        layout = Layout.of(size, width / height)
        parts = [_SYNC]
        if layout.rows:
            parts.append(self._picture(result, layout, size))
        news = self._messages.latest()
        first = Piece(news) if news else status(result, fps)
        lines = {(1, 1): self._encoded([first], size.columns)}
        if layout.side:
            column = layout.columns + 2
            texts = side_lines(result, layout.side - 1, size.rows - 1)
            lines |= {(2 + row, column): self._encoded(text, layout.side - 1) for row, text in enumerate(texts)}
        else:
            texts = face_lines(result, layout.below)
            top = 2 + layout.rows
            lines |= {(top + row, 1): self._encoded(text, size.columns) for row, text in enumerate(texts)}
        for place in self._lines.keys() | lines.keys():
            line = lines.get(place, b"")
            if self._lines.get(place) != line:
                parts.append(b"\x1b[%d;%dH\x1b[0m\x1b[K%s" % (*place, line))
        self._lines = lines
        parts.append(b"\x1b[0m" + _SHOW)
        self._screen.write(b"".join(parts))

    def stop(self) -> None:
        """Leave the screen, and say what was said meanwhile. Raises OSError."""
        try:
            self._screen.leave()
        finally:
            self._messages.hand_on()

    def _picture(self, result: FrameResult, layout: Layout, size: Size) -> bytes:
        frame, cells = result.frame, (layout.columns, layout.rows)
        if self._graphics == "blocks":
            picture = frame.picture() if self._truecolor and frame.color else frame.gray
            return self._blocks.draw(picture, result.faces, (2, 1), cells)
        height, width = frame.gray.shape
        if self._graphics == "kitty":  # which scales pictures itself
            scale = min(1.0, _MOST_PX / max(width, height))
            picture = shrunk(frame.picture(), (round(width * scale), round(height * scale)))
        else:
            across, down = (count * px for count, px in zip(cells, size.cell_wh, strict=True))
            gray = shrunk(frame.gray, (across, down))
            picture = cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR).astype(np.uint8, copy=False)
        scale = picture.shape[1] / width
        annotate(picture, [replace(face, box=face.box.scaled(scale)) for face in result.faces])
        return b"\x1b[2;1H" + (kitty(picture, cells) if self._graphics == "kitty" else sixel(picture))

    def _encoded(self, line: Line, columns: int) -> bytes:
        from rich.cells import cell_len, set_cell_size

        parts = []
        for piece in line:
            text = set_cell_size(piece.text, min(columns, cell_len(piece.text)))
            columns -= cell_len(text)
            parts.append(sgr(piece.ink, piece.ground, dim=piece.dim, truecolor=self._truecolor) + text)
        return "".join(parts).encode(errors="replace")


class Layout(NamedTuple):
    """Where a screen has the picture, in cells, below the status line.

    Attributes:
        columns: of the picture.
        rows: of the picture; 0 where the screen is too small for one.
        side: columns right of it, for lines about the faces; 0 where they are below.
        below: rows below it.
    """

    columns: int
    rows: int
    side: int
    below: int

    @classmethod
    def of(cls, size: Size, aspect: float) -> Layout:
        """The larger picture of two: with the lines beside it, or below.

        Args:
            size: of the screen.
            aspect: width of the picture by its height.
        """
        across, down = size.cell_wh if all(size.cell_wh) else (1, 2)
        in_cells = aspect * down / across
        rows = size.rows - 1

        def fitted(columns: int, rows: int) -> tuple[int, int]:
            wide = min(columns, max(1, round(rows * in_cells)))
            return wide, min(rows, max(1, round(wide / in_cells)))

        beside = fitted(size.columns - _SIDE_COLUMNS, rows)
        above = fitted(size.columns, rows - _BELOW_ROWS)
        columns, high = max(beside, above)
        if columns < _LEAST_COLUMNS or high < _LEAST_ROWS:
            return cls(0, 0, 0, rows)
        if beside >= above:
            return cls(columns, high, size.columns - columns, 0)
        return cls(columns, high, 0, rows - high)


class _HeldMessages(logging.Handler):
    """Keeps the log off a screen that it shares with a picture, and hands it on afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self._records: deque[logging.LogRecord] = deque(maxlen=50)
        self._handlers: list[logging.Handler] = []

    def hold(self) -> None:
        """From now on."""
        root = logging.getLogger()
        if self in root.handlers:
            return
        self._handlers = [
            one for one in root.handlers if isinstance(one, logging.StreamHandler) and one.stream.isatty()
        ]
        for handler in self._handlers:
            root.removeHandler(handler)
        if self._handlers:
            root.addHandler(self)

    def hand_on(self) -> None:
        """The handlers from before are back, and have what was said."""
        root = logging.getLogger()
        root.removeHandler(self)
        for handler in self._handlers:
            root.addHandler(handler)
            for record in self._records:
                handler.handle(record)
        self._handlers.clear()
        self._records.clear()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        self._records.append(record)

    def latest(self) -> str:
        """What was said in the last seconds; "" if nothing."""
        if not self._records or time.time() - self._records[-1].created > _NEWS_S:
            return ""
        return printing(self._records[-1].getMessage())


def open_view(how: str, is_drawn: bool, clock: Callable[[], float]) -> LiveView:
    """The view of the terminal that stdout is.

    Args:
        how: "text", "picture", "blocks", or "" for what is usual: text, and the picture where it shows no person.
        is_drawn: the source drew the picture itself.
        clock: wall time in seconds.
    """
    from rich.console import Console

    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a file name may hold what the terminal cannot show
    console = Console(highlight=False)
    if how in ("picture", "blocks") or (how == "" and is_drawn and not console.no_color):
        sys.stdout.flush()
        screen = Screen(sys.stdout.fileno(), console.size)
        graphics = screen.graphics(os.environ.get("TERM", "")) if how != "blocks" else "blocks"
        if graphics != "blocks" or _has_blocks(console):
            return LiveView(console, PictureCanvas(screen, graphics, console.color_system == "truecolor"), clock)
        if how:
            log.warning("This terminal shows no picture: it has not 256 colors, or no UTF-8. Here are the lines.")
    return LiveView(console, LinesCanvas(console), clock)


def _has_blocks(console: Console) -> bool:
    try:
        "▀".encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        return False
    return console.color_system in ("256", "truecolor")


@contextmanager
def _terminal_errors() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise output_error("to the terminal", error) from None


def _rich(line: Line) -> Text:
    from rich.text import Text

    text = Text()
    for piece in line:
        ground = f" on {piece.ground}" if piece.ground else ""
        text.append(piece.text, f"{'dim ' if piece.dim else ''}{piece.ink or ''}{ground}".strip())
    return text
