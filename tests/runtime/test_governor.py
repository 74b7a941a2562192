"""The governor, on files as the kernel of a Raspberry Pi shows them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_fer.board import BoardFiles, read_health
from edge_fer.config import GovernorSettings
from edge_fer.errors import ConfigError
from edge_fer.service.governor import CALM_S, LOOK_S, SETTLE_S, STEPS, Governor

SETTINGS = GovernorSettings(hot_c=80, hysteresis_c=10)


class Board:
    """A board whose heat and throttle bits the test sets, and a clock."""

    def __init__(self, folder: Path, settings: GovernorSettings = SETTINGS) -> None:
        self.files = BoardFiles(temperature=folder / "temp", throttled=folder / "get_throttled")
        self.now_s = 1000.0
        self.looks = 0
        self.governor = Governor(settings, self.read, lambda: self.now_s)

    def read(self) -> dict[str, object]:
        self.looks += 1
        return read_health(self.files)

    def become(self, temperature_c: float | None = None, bits: int | None = None) -> None:
        if temperature_c is not None:
            self.files.temperature.write_text(f"{round(temperature_c * 1000)}\n")
        if bits is not None:
            self.files.throttled.write_text(f"{bits:x}\n")

    def run(self, seconds: float) -> list[int]:
        """Let time pass as the loop does, five looks a second; returns the steps that were taken."""
        steps = []
        for _ in range(round(seconds * 5)):
            self.now_s += 0.2
            if self.governor.look():
                steps.append(self.governor.step)
        return steps


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path)


def test_a_cool_board_does_all(board: Board) -> None:
    board.become(55, 0)
    assert board.run(300) == []
    assert (board.governor.effort, board.governor.text) == (STEPS[0], "")
    assert board.looks == 300 / LOOK_S


def test_a_hot_board_steps_down_and_says_why(board: Board) -> None:
    board.become(81.3, 0)
    assert board.run(LOOK_S) == [1]
    assert board.governor.text == "at most 10 frames a second, because of 81.3 °C"
    assert board.run(SETTLE_S - LOOK_S) == [], "a step is given time to show"
    assert board.run(3600) == [2, 3]
    assert board.governor.effort == STEPS[-1]


def test_it_goes_up_again_after_a_calm_and_not_before(board: Board) -> None:
    board.become(81, 0)
    board.run(SETTLE_S + 2 * LOOK_S)
    assert board.governor.step == 2
    board.become(75)  # neither hot nor cool: it stays
    assert board.run(1000) == []
    board.become(69.9)
    assert board.run(CALM_S - LOOK_S) == []
    assert board.run(2 * LOOK_S) == [1]
    assert board.run(CALM_S - 2 * LOOK_S) == []
    assert board.run(3 * LOOK_S) == [0]
    assert board.governor.text == ""


@pytest.mark.parametrize(
    ("bits", "why"),
    [
        (0x1, "under-voltage"),
        (0x2, "frequency capped"),
        (0x4, "throttled"),
        (0x8, "soft temperature limit"),
        (0xF000F, "under-voltage and frequency capped and throttled and soft temperature limit"),
    ],
)
def test_throttle_bits_of_now_count(board: Board, bits: int, why: str) -> None:
    board.become(60, bits)
    board.run(LOOK_S)
    assert board.governor.text == f"at most 10 frames a second, because of {why}"


def test_what_was_since_boot_does_not(board: Board) -> None:
    board.become(60, 0xF0000)
    assert board.run(300) == []


def test_a_board_that_tells_nothing_is_let_alone(board: Board) -> None:
    assert board.run(300) == []


def test_a_sensor_that_goes_away_ends_in_full_effort(board: Board) -> None:
    board.become(90)
    board.run(LOOK_S)
    board.files.temperature.unlink()
    assert board.run(2 * CALM_S) == [0]


def test_it_can_be_switched_off_while_it_runs(board: Board) -> None:
    board.become(90)
    board.run(300)
    assert board.governor.step == 3
    board.governor.settings = GovernorSettings(on=False)
    assert board.run(300) == [0]


@given(st.lists(st.tuples(st.floats(20, 100), st.integers(0, 15), st.floats(1, 200)), max_size=12))
def test_steps_are_single_and_never_alternate_fast(
    tmp_path_factory: pytest.TempPathFactory, weather: list[tuple[float, int, float]]
) -> None:
    board = Board(tmp_path_factory.mktemp("board"))
    taken: list[tuple[float, int]] = [(0.0, 0)]
    for temperature_c, bits, seconds in weather:
        board.become(temperature_c, bits)
        for _ in range(int(seconds)):
            board.now_s += 1
            if board.governor.look():
                taken.append((board.now_s, board.governor.step))
    for (before_s, before), (now_s, now) in pairwise(taken):
        assert abs(now - before) == 1 and 0 <= now < len(STEPS)
        assert now_s - before_s >= (SETTLE_S if now > before else CALM_S)


def test_settings_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match=r"governor\.hysteresis_c must be from 1 to 40"):
        GovernorSettings(hysteresis_c=0)
    with pytest.raises(ConfigError, match=r"governor\.hot_c must be from 40 to 110"):
        GovernorSettings(hot_c=float("nan"))
