"""The live view with the picture: what a person sees, how often it is drawn, and what becomes of messages."""

from __future__ import annotations

import io
import logging
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from screens import Grid, Tty, a_screen
from story import a_face, a_result, a_run

from edge_fer.core import Expression, FaceBox, TrueFace
from edge_fer.sinks import open_sink
from edge_fer.sinks.live import Layout
from edge_fer.sinks.screen import Size
from edge_fer.sinks.terminal import TerminalSink

TWO = a_face(3, Expression.ANGER), a_face(4, Expression.FEAR, x=95)


def seen(tty: Tty, columns: int, rows: int) -> Grid:
    grid = Grid(columns, rows)
    grid.feed(tty.text.removeprefix("\x1b[16t\x1b[c"))
    return grid


@pytest.mark.parametrize(
    ("size", "lines"),
    [
        (  # beside the picture
            (80, 24),
            {
                0: "clip  frame 0  0.0 s  - fps  detect 20.0 ms  classify 0.5 ms",
                1: " 3 anger 79 %",
                2: "█" * 17 + "░" * 5,
                3: "neutral 3 %",
                4: "",
                5: " 4 fear 79 %",
            },
        ),
        (  # below it
            (50, 24),
            {
                20: "face 3   anger      " + " " + "█" * 19 + "░" * 5 + "   79",
                21: "face 4   fear       " + " " + "█" * 19 + "░" * 5 + "   79",
            },
        ),
        ((15, 4), {0: "clip  frame 0", 1: "face 3   anger", 2: "face 4   fear"}),  # too small for one
    ],
)
def test_what_is_seen(size: tuple[int, int], lines: dict[int, str], monkeypatch: pytest.MonkeyPatch) -> None:
    with a_screen(monkeypatch) as tty:
        tty.resize(*size)
        sink = open_sink("terminal:blocks", a_run())
        sink.write(a_result(0, *TWO))
        grid = seen(tty, *size)
        sink.close()
    width = max(sum(letter == "▀" for letter, _, _ in row) for row in grid.cells)
    side = size[0] == 80
    texts = {
        row: grid.line(row) if not (side and row) else "".join(cell[0] for cell in grid.cells[row][58:])
        for row in lines
    }
    assert {row: text.rstrip() for row, text in texts.items()} == {row: text.rstrip() for row, text in lines.items()}
    assert width == {80: 57, 50: 50, 15: 0}[size[0]]
    assert grid.is_alternate and not grid.has_cursor


def test_the_picture_is_in_color_where_there_are_24_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    result = a_result(0)
    colored = np.full((120, 160, 3), (10, 20, 30), np.uint8)
    object.__setattr__(result.frame, "color", lambda: colored)
    for environ, pixel in ({"COLORTERM": "truecolor"}, [30, 20, 10]), ({}, [244] * 3):
        with a_screen(monkeypatch, **environ) as tty:
            tty.resize(80, 24)
            sink = open_sink("terminal:blocks", a_run())
            sink.write(result)
            pixels = seen(tty, 80, 24).pixels[2:, :57] if "COLORTERM" in environ else None
            if pixels is not None:
                assert pixels[10, 10].tolist() == pixel
            else:
                assert {cell[1] for cell in seen(tty, 80, 24).cells[5][:57]} == {(244,)}
            sink.close()


def test_lines_follow_the_faces_and_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    with a_screen(monkeypatch) as tty:
        tty.resize(80, 24)
        sink = TerminalSink("blocks", clock=lambda: now_s)
        sink.write(a_result(0, *TWO))
        now_s = 1.0
        sink.write(a_result(1, a_face(4, Expression.FEAR, x=95)))
        grid = seen(tty, 80, 24)
        right = ["".join(cell[0] for cell in row[58:]).strip() for row in grid.cells]
        assert right[1:8] == ["4 fear 79 %", "█" * 17 + "░" * 5, "neutral 3 %", "", "", "", ""]
        assert "1.0 fps" in grid.line(0)
        drawn = len(tty.text)
        tty.resize(50, 24)
        now_s = 2.0
        sink.write(a_result(2))
        grid = Grid(50, 24)
        grid.feed(tty.text[drawn:])
        assert grid.line(20) == "no face"
        sink.close()


def test_it_is_drawn_some_sixteen_times_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    with a_screen(monkeypatch) as tty:
        tty.resize(80, 24)
        sink = TerminalSink("blocks", clock=lambda: now_s)
        for seq in range(300):
            now_s = seq / 100
            sink.write(a_result(seq, *TWO))
            assert tty.text  # which makes room for more
        drawn = tty.text.count("\x1b[?2026h")
        sink.close()
    assert 45 <= drawn <= 51


def test_drawing_takes_a_fifth_of_the_time_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a slow board, or a slow line to the terminal."""
    now_s = 0.0

    def clock() -> float:
        """Each look at it is half a drawing later."""
        nonlocal now_s
        now_s += 0.05
        return now_s

    with a_screen(monkeypatch) as tty:
        tty.resize(80, 24)
        sink = TerminalSink("blocks", clock=clock)
        for seq in range(200):
            sink.write(a_result(seq))
            assert tty.text  # which makes room for more
        drawn = tty.text.count("\x1b[?2026h")
        sink.close()
    assert 0.9 <= drawn * 0.05 / now_s / 0.2 <= 1.1


def test_it_mends_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some libraries write to stderr whatever they are told."""
    now_s = 0.0
    with a_screen(monkeypatch) as tty:
        tty.resize(80, 24)
        sink = TerminalSink("blocks", clock=lambda: now_s)
        sink.write(a_result(0))
        sent = len(tty.text)
        for at_s, picture in (1.0, False), (4.9, False), (5.1, True), (6.0, False):
            now_s = at_s
            sink.write(a_result(0))
            assert ("▀" in tty.text[sent:]) == picture
            sent = len(tty.text)
        sink.close()


class Stderr(io.StringIO):
    """Of a program at a terminal, or not."""

    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self.isatty = lambda: is_terminal  # type: ignore[method-assign]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_messages_wait_until_the_screen_is_left(is_terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    root, stderr = logging.getLogger(), Stderr(is_terminal)
    handler = logging.StreamHandler(stderr)
    monkeypatch.setattr(root, "handlers", [handler])
    with a_screen(monkeypatch) as tty:
        tty.resize(80, 24)
        sink = TerminalSink("blocks", clock=lambda: now_s)
        sink.write(a_result(0))
        logging.getLogger("edge_fer").warning("Camera %s is\x1b[2J lost.", "0")
        assert stderr.getvalue() == ("" if is_terminal else "Camera 0 is\x1b[2J lost.\n")
        now_s = 1.0
        sink.write(a_result(1))
        assert seen(tty, 80, 24).line(0).startswith("Camera 0 is?[2J lost." if is_terminal else "clip  frame 1")
        sink.close()
    assert stderr.getvalue() == "Camera 0 is\x1b[2J lost.\n"
    assert root.handlers == [handler]


@pytest.mark.parametrize(
    ("how", "environ", "shows"),
    [
        ("", {}, False),
        ("text", {}, False),
        ("picture", {}, True),
        ("blocks", {"NO_COLOR": "1"}, True),
        ("blocks", {"TERM": "linux"}, False),
        ("picture", {"TERM": "dumb"}, False),
    ],
)
def test_a_camera_is_shown_where_that_is_asked_for_and_can_be(
    how: str, environ: dict[str, str], shows: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with a_screen(monkeypatch, **environ) as tty:
        tty.resize(80, 24)
        tty.types(b"\x1b[?1;2c" if how == "picture" else b"")
        sink = TerminalSink(how)
        sink.write(a_result(0, *TWO))
        sink.close()
        assert ("▀" in tty.text) == shows
        assert "anger" in tty.text
    assert ("shows no picture" in caplog.text) == (environ == {"TERM": "linux"})


@pytest.mark.parametrize(("environ", "shows"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "xterm"}, False)])
def test_faces_that_the_source_drew_are_shown_unasked(
    environ: dict[str, str], shows: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with a_screen(monkeypatch, **environ) as tty:
        tty.resize(80, 24)
        tty.types(b"\x1b[?1;2c")
        sink = open_sink("terminal", a_run())
        sink.write(a_result(0, *TWO, truth=(TrueFace(FaceBox(30, 25, 60, 60), Expression.ANGER),)))
        sink.close()
        assert ("▀" in tty.text) == shows
    assert caplog.text == ""


def test_in_the_background_it_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with a_screen(monkeypatch) as tty:
        monkeypatch.setattr(os, "tcgetpgrp", lambda file: os.getpgrp() + 1)
        sink = open_sink("terminal:picture", a_run())
        sink.write(a_result(0, *TWO))
        sink.close()
        assert tty.text.startswith("0.0 s  face 3  anger 79 %\r\n")
        assert "\x1b" not in tty.text


@pytest.mark.parametrize(
    ("term", "answer", "begins"),
    [
        ("xterm", "\x1b[6;8;4t\x1b[?62;4c", '\x1bP0;1q"1;1;84;60'),
        ("xterm-kitty", "\x1b_Gi=31;OK\x1b\\\x1b[?62c", "\x1b_Ga=T,f=100,i=1,p=1,C=1,q=2,c=24,r=9,m="),
    ],
)
def test_better_pictures_where_the_terminal_has_them(
    term: str, answer: str, begins: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with a_screen(monkeypatch, TERM=term) as tty:
        tty.resize(40, 12)  # what fits into the buffer of a pty
        tty.types(answer.encode())
        sink = open_sink("terminal:picture", a_run())
        sink.write(a_result(0, *TWO))
        assert f"\x1b[2;1H{begins}" in tty.text
        assert "▀" not in tty.text
        assert "face 3" in tty.text
        sink.close()


def test_a_name_cannot_move_the_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    for how in "blocks", "text":
        with a_screen(monkeypatch) as tty:
            tty.resize(80, 24)
            sink = TerminalSink(how)
            sink.write(a_result(0, stream="a\x1b[2Jb\n表情"))
            assert "a?[2Jb?表情  frame 0" in tty.text
            sink.close()


@given(
    st.integers(1, 400), st.integers(1, 200), st.floats(0.1, 10), st.sampled_from([(0, 0), (8, 15), (10, 20), (9, 9)])
)
def test_all_of_a_layout_is_on_the_screen(columns: int, rows: int, aspect: float, cell_wh: tuple[int, int]) -> None:
    layout = Layout.of(Size(columns, rows, cell_wh), aspect)
    assert layout.columns + layout.side <= columns
    assert 1 + layout.rows + layout.below <= rows
    assert layout.side == 0 or layout.side >= 20
    assert bool(layout.rows) == bool(layout.columns)
    if layout.rows:
        across, down = cell_wh if cell_wh[0] else (1, 2)
        shown = layout.columns * across / (layout.rows * down)
        assert abs(shown / aspect - 1) < 0.6 / min(layout.rows, layout.columns) + 0.1
