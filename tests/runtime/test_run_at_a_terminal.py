"""``edge-fer run`` where somebody looks on: its pace, and the terminal that it leaves."""

from __future__ import annotations

import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from screens import a_screen

import edge_fer.cli.run
from edge_fer.cli import main

ROOT = Path(__file__).parents[2]


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now_s += seconds


@pytest.mark.parametrize(
    ("arguments", "is_terminal", "took_s"),
    [
        ([], True, 245 / 15),
        (["--fast"], True, 0),
        (["--output", "csv:faces.csv"], True, 0),
        ([], False, 0),
    ],
)
def test_the_pace_of_the_demo(
    arguments: list[str], is_terminal: bool, took_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    clock = Clock()
    monkeypatch.setattr(edge_fer.cli.run, "time", clock)
    if is_terminal:
        with a_screen(monkeypatch, TERM="dumb"):
            assert main(["run", "--camera", "demo", "--model", "nano", *arguments]) == 0
    else:
        assert main(["run", "--camera", "demo", "--model", "nano", *arguments]) == 0
    assert clock.now_s == pytest.approx(took_s)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_a_clean_terminal(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-m", "edge_fer", "run", "--camera", "demo", "--output", "terminal:blocks"]
    with a_screen(monkeypatch) as tty:
        tty.resize(40, 12)
        before = termios.tcgetattr(tty.stdout)
        with subprocess.Popen(command, cwd=ROOT, stdout=tty.stdout, process_group=0) as child:
            tty.waits_for("▀")
            tty.resize(36, 10)
            tty.waits_for("\x1b[0m\x1b[2J\x1b[?2026h")
            child.send_signal(number)
            tty.waits_for("a frame: detect")
            assert child.wait(60) == 0
        _, _, after = tty.text.rpartition("\x1b[2J\x1b[?25h\x1b[?1049l")
        assert after.splitlines()[0].endswith("2 faces")
        assert "\x1b[?" not in after
        assert termios.tcgetattr(tty.stdout) == before
