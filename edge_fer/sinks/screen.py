"""The terminal as a device: what it can show, and the whole of it for a view, left clean whatever happens."""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, Literal, NamedTuple, TypeAlias

Graphics: TypeAlias = Literal["kitty", "sixel", "blocks"]
"""How a picture is shown: kitty's graphics protocol, DEC's sixels, or half blocks, which are text."""

ANSWER_S = 0.5
"""How long a terminal may take to say what it can show. Its answer ends the wait."""

# DECSET 1049: the alternate screen, with the cursor kept; 25: the cursor; 2026: synchronized output. ST first: it ends
# whatever sequence, sixel or kitty's, was sent by half.
_ENTER = b"\x1b[?1049h\x1b[?25l\x1b[2J"
# It is emptied before it is left: tmux keeps lines of it that no longer fit.
_LEAVE = b"\x1b\\\x1b[?2026l\x1b[0m\x1b[2J\x1b[?25h\x1b[?1049l"
# Reads a line when all is well, and the end of its pipe when this process was killed.
_GUARD = """trap "" HUP INT QUIT TERM TSTP TTOU; read -r _ || printf %s "$1\""""

_KITTY = b"\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\"
_ATTRIBUTES = re.compile(rb"\x1b\[\?([\d;]*)c")
_CELL = re.compile(rb"\x1b\[6;(\d+);(\d+)t")


def is_background(file: int) -> bool:
    """Whether the shell gave the terminal to another program: what this one draws would land in the middle of it."""
    try:
        return os.tcgetpgrp(file) != os.getpgrp()
    except OSError:  # it is the terminal of no shell
        return False


class Size(NamedTuple):
    """Of a terminal in cells, and of a cell in pixels; (0, 0) where the terminal does not tell."""

    columns: int
    rows: int
    cell_wh: tuple[int, int] = (0, 0)


class Screen:
    """The alternate screen of a terminal, from the first ``begin`` to ``leave``.

    It is left when the process is suspended (Ctrl-Z), and entered again when that goes on. A shell waits beside it and
    leaves it in place of a process that was killed: by a second Ctrl-C, for want of memory, or within a library.

    Args:
        file: descriptor of the terminal.
        fallback_size: columns and rows where the terminal does not tell.
    """

    def __init__(self, file: int, fallback_size: tuple[int, int] = (80, 24)) -> None:
        self._file = file
        self._fallback = fallback_size
        self._cell_wh = (0, 0)
        self._modes: list[Any] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._suspends: Callable[[int, FrameType | None], Any] | int | None = None
        self._is_entered = False
        self._owes_answer = False
        self._last: Size | None = None

    def graphics(self, term: str, timeout_s: float = ANSWER_S) -> Graphics:
        """Ask the terminal what it can show. One that does not answer gets half blocks.

        Every terminal since DEC's VT100 takes the question for its attributes. Kitty's own is put only to those that
        the environment names: others might print it.

        Args:
            term: the variable TERM.
            timeout_s: how long to wait for the answer.
        """
        is_kitty = term in ("xterm-kitty", "xterm-ghostty")
        answer = self._ask(
            (b"\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\" if is_kitty else b"") + b"\x1b[16t", timeout_s
        )
        if b"\x1b_Gi=31;OK" in answer:
            return "kitty"
        if cell := _CELL.search(answer):
            self._cell_wh = int(cell[2]), int(cell[1])
        found = _ATTRIBUTES.search(answer)
        has_sixel = found is not None and b"4" in found[1].split(b";")
        return "sixel" if has_sixel and all(self._size().cell_wh) else "blocks"

    def begin(self) -> tuple[Size, bool]:
        """Before each picture: the size of the screen, and whether nothing is left on it of the last one.

        Raises:
            OSError: the terminal is gone.
        """
        size = self._size()
        if not self._is_entered:
            self._enter()
        elif size == self._last:
            return size, False
        else:
            self.write(b"\x1b[0m\x1b[2J")
        self._last = size
        return size, True

    def write(self, data: bytes) -> None:
        """Send bytes. Raises OSError."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._file, rest) :]

    def leave(self) -> None:
        """Give the terminal back as it was. Raises OSError."""
        if self._suspends is not None:
            signal.signal(signal.SIGTSTP, self._suspends)
            self._suspends = None
        self._exit()

    def _enter(self) -> None:
        # The modes first: the system suspends a process in the background that sets them.
        with suppress(termios.error):
            self._modes = termios.tcgetattr(self._file)
            quiet = termios.tcgetattr(self._file)
            quiet[3] &= ~termios.ECHO  # keys that somebody types would stand in the picture
            termios.tcsetattr(self._file, termios.TCSADRAIN, quiet)
        with suppress(OSError):  # no shell: go without
            command = ["/bin/sh", "-c", _GUARD, "sh", _LEAVE.decode()]
            self._guard = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=self._file, stderr=subprocess.DEVNULL)
        # Who ignores the signal, or is not the main thread, goes without.
        if self._suspends is None and signal.getsignal(signal.SIGTSTP) == signal.SIG_DFL:
            with suppress(ValueError):
                self._suspends = signal.signal(signal.SIGTSTP, self._on_suspend)
        self._is_entered = True
        self.write(_ENTER)

    def _exit(self) -> None:
        if not self._is_entered:
            return
        self._is_entered = False
        if self._modes is not None:
            with suppress(termios.error):
                if self._owes_answer:  # it would stand at the shell's prompt
                    termios.tcflush(self._file, termios.TCIFLUSH)
                termios.tcsetattr(self._file, termios.TCSANOW, self._modes)
        try:
            self.write(_LEAVE)
        finally:
            guard, self._guard = self._guard, None
            if guard is not None:
                guard.communicate(b"\n")

    def _on_suspend(self, number: int, frame: FrameType | None) -> None:
        with suppress(OSError):
            self._exit()
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
        signal.signal(number, self._on_suspend)  # it goes on: the next ``begin`` enters again

    def _ask(self, question: bytes, timeout_s: float) -> bytes:
        """What the terminal answers to a question, and to the one for its attributes, which every terminal knows."""
        answer = b""
        try:
            # Not the descriptor of stdout, which may be for writing alone.
            file = os.open(os.ttyname(self._file), os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:  # the terminal of another user
            return answer
        try:
            before = termios.tcgetattr(file)
            raw = termios.tcgetattr(file)
            raw[3] &= ~(termios.ECHO | termios.ICANON)
            termios.tcsetattr(file, termios.TCSANOW, raw)
            try:
                os.write(file, question + b"\x1b[c")
                until = time.monotonic() + timeout_s
                while not _ATTRIBUTES.search(answer):
                    if not select.select([file], [], [], max(0.0, until - time.monotonic()))[0]:
                        self._owes_answer = True
                        break
                    part = os.read(file, 1024)
                    if not part:  # it hung up
                        break
                    answer += part
            finally:
                termios.tcsetattr(file, termios.TCSANOW, before)
        except (OSError, termios.error):
            pass
        finally:
            os.close(file)
        return answer

    def _size(self) -> Size:
        rows = columns = width = height = 0
        with suppress(OSError):
            rows, columns, width, height = struct.unpack("HHHH", fcntl.ioctl(self._file, termios.TIOCGWINSZ, bytes(8)))
        if not rows or not columns:
            columns, rows = self._fallback
        cell_wh = (width // columns, height // rows) if width and height else self._cell_wh
        return Size(columns, rows, cell_wh)
