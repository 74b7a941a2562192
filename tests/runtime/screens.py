"""Terminals for tests: a real one (a pty), and what a person would see on it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest


class Tty:
    """A real terminal (a pty) in place of stdout; ``text`` is all that was sent to it so far."""

    def __init__(self, encoding: str) -> None:
        self._master, slave = pty.openpty()
        self.stdout = os.fdopen(slave, "w", encoding=encoding)
        self._text = b""

    @property
    def text(self) -> str:
        self.stdout.flush()
        while select.select([self._master], [], [], 0)[0]:
            self._text += os.read(self._master, 65536)
        return self._text.decode()

    def types(self, keys: bytes) -> None:
        """What a person or the terminal itself sends."""
        os.write(self._master, keys)

    def waits_for(self, part: str) -> None:
        """Until something was sent to it by another process."""
        while part not in self.text:
            assert select.select([self._master], [], [], 60)[0], self._text
            self._text += os.read(self._master, 65536)

    def resize(self, columns: int, rows: int, cell_wh: tuple[int, int] = (0, 0)) -> None:
        size = struct.pack("HHHH", rows, columns, columns * cell_wh[0], rows * cell_wh[1])
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)

    def close(self) -> None:
        self.stdout.close()
        os.close(self._master)


@contextmanager
def a_screen(monkeypatch: pytest.MonkeyPatch, encoding: str = "utf-8", **environ: str) -> Iterator[Tty]:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30", **environ}.items():
        monkeypatch.setenv(name, value)
    screen = Tty(encoding)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", screen.stdout)
        yield screen
    screen.close()


Cell = tuple[str, tuple[int, ...], tuple[int, ...]]
"""A letter, its color and that behind it: () for the terminal's own, (n,) of the 256, or (red, green, blue)."""


class Grid:
    """What a terminal shows after it got some bytes: enough of one for the live view, strict about all else."""

    def __init__(self, columns: int, rows: int) -> None:
        self.size = columns, rows
        self.cells: list[list[Cell]] = []
        self.clear()
        self._at = [0, 0]
        self._ink: tuple[int, ...] = ()
        self._ground: tuple[int, ...] = ()
        self.is_alternate = self.has_cursor = False

    def clear(self) -> None:
        self.cells = [[(" ", (), ())] * self.size[0] for _ in range(self.size[1])]

    def feed(self, text: str) -> None:
        parts = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|\x1b(\\)|([^\x1b])", re.DOTALL)
        at = 0
        while at < len(text):
            found = parts.match(text, at)
            assert found, repr(text[at : at + 40])
            at = found.end()
            if found[4]:
                row, column = self._at
                self.cells[row][column] = (found[4], self._ink, self._ground)
                self._at[1] += 1
            elif found[2]:
                self._act(found[1], found[2])

    def line(self, row: int) -> str:
        return "".join(letter for letter, _, _ in self.cells[row]).rstrip()

    @property
    def pixels(self) -> np.ndarray:
        """Of all cells that are half blocks, int (2 * rows, columns, 3); -1 elsewhere."""
        pixels = np.full((2 * self.size[1], self.size[0], 3), -1)
        for row, line in enumerate(self.cells):
            for column, (letter, ink, ground) in enumerate(line):
                if letter == "▀":
                    pixels[2 * row : 2 * row + 2, column] = ink, ground
        return pixels

    def _act(self, numbers: str, kind: str) -> None:
        match kind, numbers:
            case "H", _:
                self._at = [int(number) - 1 for number in numbers.split(";")]
            case "K", "":
                row, column = self._at
                assert not self._ground
                self.cells[row][column:] = [(" ", (), ())] * (self.size[0] - column)
            case "J", "2":
                self.clear()
            case "m", _:
                self._color([int(number) for number in numbers.split(";")])
            case (("h" | "l"), "?1049"):
                self.is_alternate = kind == "h"
            case (("h" | "l"), "?25"):
                self.has_cursor = kind == "h"
            case (("h" | "l"), "?2026"):
                pass
            case _:
                raise AssertionError((numbers, kind))

    def _color(self, numbers: list[int]) -> None:
        while numbers:
            match numbers:
                case [0, *rest]:
                    self._ink = self._ground = ()
                case [2, *rest]:
                    pass
                case [38 | 48 as which, 5, number, *rest]:
                    self._set(which, (number,))
                case [38 | 48 as which, 2, red, green, blue, *rest]:
                    self._set(which, (red, green, blue))
                case _:
                    raise AssertionError(numbers)
            numbers = rest

    def _set(self, which: int, color: tuple[int, ...]) -> None:
        if which == 38:
            self._ink = color
        else:
            self._ground = color
