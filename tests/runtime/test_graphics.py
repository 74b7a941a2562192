"""Pictures as terminals take them, decoded again."""

from __future__ import annotations

import base64
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from screens import Grid
from story import a_face

from edge_fer.core import Expression, FaceBox, Image
from edge_fer.sinks.graphics import HalfBlocks, kitty, sgr, sixel

COLUMNS, ROWS = 12, 6
TINY = arrays(np.uint8, (2 * ROWS, COLUMNS, 3))


def a_grid(*drawn: bytes, columns: int = COLUMNS, rows: int = ROWS) -> Grid:
    grid = Grid(columns, rows)
    for data in drawn:
        grid.feed(data.decode())
    return grid


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((None, None, False, True), "\x1b[0m"),
        ((None, None, True, True), "\x1b[0;2m"),
        (("#f0e442", None, False, True), "\x1b[0;38;2;240;228;66m"),
        (("#201c18", "#f0e442", True, True), "\x1b[0;2;38;2;32;28;24;48;2;240;228;66m"),
        ((None, "#000000", False, False), "\x1b[0;48;5;16m"),
        (("#ffffff", None, False, False), "\x1b[0;38;5;231m"),
        (("#ff8700", None, False, False), "\x1b[0;38;5;208m"),
    ],
)
def test_colors(arguments: tuple[str | None, str | None, bool, bool], text: str) -> None:
    ink, ground, dim, truecolor = arguments
    assert sgr(ink, ground, dim=dim, truecolor=truecolor) == text


@settings(deadline=None)
@given(st.lists(TINY, min_size=1, max_size=4))
def test_half_blocks_show_the_picture_whatever_was_there_before(pictures: list[Image]) -> None:
    blocks, grid = HalfBlocks(truecolor=True), Grid(COLUMNS, ROWS)
    for picture in pictures:
        grid.feed(blocks.draw(picture, (), (1, 1), (COLUMNS, ROWS)).decode())
        assert np.abs(grid.pixels - picture[..., ::-1]).max() < 5


def test_a_gray_picture_with_24_bit_colors() -> None:
    picture = np.arange(2 * ROWS * COLUMNS, dtype=np.uint8).reshape(2 * ROWS, COLUMNS)
    grid = a_grid(HalfBlocks(truecolor=True).draw(picture, (), (1, 1), (COLUMNS, ROWS)))
    assert (grid.pixels == picture[..., None]).all()


@pytest.mark.parametrize(
    ("gray", "number"),
    [(0, 16), (2, 16), (3, 232), (12, 232), (13, 233), (128, 244), (237, 255), (242, 255), (243, 231), (255, 231)],
)
def test_grays_of_256_colors(gray: int, number: int) -> None:
    picture = np.full((4, 2, 3), gray, np.uint8)
    grid = a_grid(HalfBlocks(truecolor=False).draw(picture, (), (1, 1), (2, 2)), columns=2, rows=2)
    assert grid.cells == [[("▀", (number,), (number,))] * 2] * 2


def test_what_stays_is_not_sent_again() -> None:
    blocks = HalfBlocks(truecolor=True)
    picture = np.full((2 * ROWS, COLUMNS), 100, np.uint8)
    first = blocks.draw(picture, (), (1, 1), (COLUMNS, ROWS))
    assert blocks.draw(picture, (), (1, 1), (COLUMNS, ROWS)) == b""
    assert blocks.draw(picture + np.uint8(4), (), (1, 1), (COLUMNS, ROWS)) == b""  # as a camera's noise
    picture[5, 7] = 200
    assert blocks.draw(picture, (), (1, 1), (COLUMNS, ROWS)) == (
        b"\x1b[3;8H\x1b[38;2;100;100;100;48;2;200;200;200m" + "▀".encode()
    )
    blocks.forget()
    again = blocks.draw(picture, (), (1, 1), (COLUMNS, ROWS))
    assert (a_grid(again).pixels == picture[..., None]).all()
    assert len(again) > len(first)


def test_changes_that_creep_are_shown() -> None:
    """Each is below what counts as noise, all together are not."""
    blocks, grid = HalfBlocks(truecolor=True), Grid(COLUMNS, ROWS)
    for gray in range(100, 160, 2):
        picture = np.full((2 * ROWS, COLUMNS), gray, np.uint8)
        grid.feed(blocks.draw(picture, (), (1, 1), (COLUMNS, ROWS)).decode())
        assert np.abs(grid.pixels - gray).max() < 5


@pytest.mark.parametrize("truecolor", [True, False])
def test_boxes_and_labels(truecolor: bool) -> None:
    picture = np.zeros((120, 160), np.uint8)
    face = a_face(3, Expression.FEAR)  # at 30, 25, of 60 pixels
    drawn = HalfBlocks(truecolor).draw(picture, [face], (2, 1), (40, 15))
    grid = a_grid(drawn, columns=40, rows=16)
    edge = (204, 121, 167) if truecolor else (175,)
    assert grid.line(0) == ""  # its place begins in the second row
    label = "".join(letter for letter, _, _ in grid.cells[3][8:22])
    assert label == " 3 fear 79 % ▀"
    assert {cell[2] for cell in grid.cells[3][8:21]} == {edge}
    assert [cell[1] for cell in grid.cells[4][8:23]] == [edge] * 15
    assert [cell[2] == edge for cell in grid.cells[4][8:23]] == [True, *[False] * 13, True]
    assert [grid.cells[row][8][1] for row in (5, 8, 11)] == [edge] * 3
    assert grid.cells[8][10][1] != edge


@settings(deadline=None)
@given(
    *[st.floats(-300, 300) for _ in range(2)],
    *[st.floats(0, 500) for _ in range(2)],
    st.integers(1, 40),
    st.integers(1, 20),
)
def test_no_box_leaves_the_picture(x: float, y: float, w: float, h: float, columns: int, rows: int) -> None:
    face = replace(a_face(), box=FaceBox(x, y, w, h))
    drawn = HalfBlocks(truecolor=True).draw(np.zeros((120, 160), np.uint8), [face], (1, 1), (columns, rows))
    grid = a_grid(drawn, columns=columns, rows=rows)
    assert all(letter != " " or ground for line in grid.cells for letter, _, ground in line)


def test_kitty() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    chunks = re.findall(rb"\x1b_G([^;]*);([A-Za-z0-9+/=]*)\x1b\\", kitty(picture, (40, 15)))
    assert len(chunks) > 2
    assert max(len(data) for _, data in chunks) == 4096
    controls = [dict(entry.split(b"=") for entry in control.split(b",")) for control, _ in chunks]
    assert controls[0] == {
        b"a": b"T",
        b"f": b"100",
        b"i": b"1",
        b"p": b"1",
        b"C": b"1",
        b"q": b"2",
        b"c": b"40",
        b"r": b"15",
        b"m": b"1",
    }
    assert controls[1:] == [{b"q": b"2", b"m": b"1"}] * (len(chunks) - 2) + [{b"q": b"2", b"m": b"0"}]
    png = np.frombuffer(base64.b64decode(b"".join(data for _, data in chunks)), np.uint8)
    assert (cv2.imdecode(png, cv2.IMREAD_COLOR) == picture).all()


def unsixel(data: bytes) -> np.ndarray:
    """The picture in sixels, BGR in percent; -1 where nothing was painted."""
    head = re.match(rb'\x1bP0;1q"1;1;(\d+);(\d+)', data)
    assert head and data.endswith(b"\x1b\\")
    picture = np.full((int(head[2]), int(head[1]), 3), -1)
    registers: dict[int, tuple[int, ...]] = {}
    x = y = color = 0
    for register, values, count, sixels, other in re.findall(
        rb"#(\d+)((?:;\d+)*)|(?:!(\d+))?([?-~])|([$-])", data[head.end() : -2]
    ):
        if values:
            kind, *parts = (int(value) for value in values[1:].split(b";"))
            assert kind == 2
            registers[int(register)] = tuple(parts[::-1])
        elif register:
            color = int(register)
        elif other:
            x, y = 0, y + 6 * (other == b"-")
        else:
            width = int(count or 1)
            for bit in range(6):
                if sixels[0] - 63 >> bit & 1:
                    picture[y + bit, x : x + width] = registers[color]
            x += width
    return picture


def test_sixel() -> None:
    picture = cv2.cvtColor(np.add.outer(np.arange(31), np.arange(50)).astype(np.uint8) * 3, cv2.COLOR_GRAY2BGR)
    picture[10:20, 5:40] = (66, 228, 240)  # happiness, BGR
    shown = unsixel(sixel(picture))
    assert shown.shape == (30, 50, 3)
    assert (shown[10:20, 5:40] == (26, 89, 94)).all()
    grays = np.ones((30, 50), bool)
    grays[10:20, 5:40] = False
    assert np.abs(shown[grays] * 2.55 - picture[:30][grays]).max() < 10
