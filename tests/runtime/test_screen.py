"""The terminal as a device, on a real one (a pty): questions, the alternate screen, and how it is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from screens import Tty, a_screen

from edge_fer.sinks.screen import Screen, Size, is_background

ENTER = "\x1b[?1049h\x1b[?25l\x1b[2J"
LEAVE = "\x1b\\\x1b[?2026l\x1b[0m\x1b[2J\x1b[?25h\x1b[?1049l"
IS_KITTY = "\x1b_Gi=31;OK\x1b\\"


@pytest.mark.parametrize(
    ("term", "answer", "graphics"),
    [
        ("xterm-256color", "\x1b[?62;4;22c", "blocks"),  # sixels of cells whose size it does not tell
        ("xterm-256color", "\x1b[6;20;10t\x1b[?62;4;22c", "sixel"),
        ("xterm-256color", "\x1b[6;20;10t\x1b[?4c", "sixel"),
        ("xterm-256color", "\x1b[6;20;10t\x1b[?64;1;2c", "blocks"),
        ("xterm-256color", "\x1b[6;20;10t\x1b[?14;44c", "blocks"),
        ("tmux-256color", "\x1b[?1;2c", "blocks"),
        ("xterm-kitty", IS_KITTY + "\x1b[6;20;10t\x1b[?62c", "kitty"),
        ("xterm-kitty", "\x1b_Gi=31;ENOTSUPPORTED\x1b\\\x1b[?62c", "blocks"),
        ("xterm-kitty", "\x1b[?62c", "blocks"),
        ("xterm-ghostty", "typed before" + IS_KITTY + "\x1b[?62c", "kitty"),
    ],
)
def test_what_a_terminal_says_of_itself(term: str, answer: str, graphics: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with a_screen(monkeypatch) as tty:
        tty.types(answer.encode())
        before = termios.tcgetattr(tty.stdout)
        assert Screen(tty.stdout.fileno()).graphics(term, timeout_s=60) == graphics
        assert termios.tcgetattr(tty.stdout) == before
        question = tty.text.removeprefix(answer.replace("\x1b", "^["))  # echoed while nobody had asked
    assert question.endswith("\x1b[16t\x1b[c")
    assert ("\x1b_G" in question) == (term in ("xterm-kitty", "xterm-ghostty"))


def test_the_size_of_a_cell_comes_from_the_system_where_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    with a_screen(monkeypatch) as tty:
        tty.resize(80, 24, (9, 18))
        tty.types(b"\x1b[?62;4c")
        screen = Screen(tty.stdout.fileno())
        assert screen.graphics("xterm", timeout_s=60) == "sixel"
        assert screen.begin() == (Size(80, 24, (9, 18)), True)
        screen.leave()


def test_a_late_answer_does_not_reach_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    with a_screen(monkeypatch) as tty:
        screen = Screen(tty.stdout.fileno())
        assert screen.graphics("xterm", timeout_s=0) == "blocks"
        screen.begin()
        tty.types(b"\x1b[?62;4c\n")
        screen.leave()
        tty.types(b"ls\n")
        assert os.read(tty.stdout.fileno(), 100) == b"ls\n"


def test_what_is_no_terminal_is_asked_nothing() -> None:
    out, into = os.pipe()
    assert Screen(into).graphics("xterm-kitty", timeout_s=0) == "blocks"
    os.close(into)
    assert os.read(out, 100) == b""
    os.close(out)


def test_a_screen_is_entered_once_and_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    with a_screen(monkeypatch) as tty:
        tty.resize(80, 24)
        before = termios.tcgetattr(tty.stdout)
        screen = Screen(tty.stdout.fileno())
        screen.leave()
        assert tty.text == ""
        assert screen.begin() == (Size(80, 24), True)
        assert screen.begin() == (Size(80, 24), False)
        assert not termios.tcgetattr(tty.stdout)[3] & termios.ECHO
        tty.types(b"keys that nobody asked for")
        assert tty.text == ENTER
        tty.resize(50, 10)
        assert screen.begin() == (Size(50, 10), True)
        assert tty.text == ENTER + "\x1b[0m\x1b[2J"
        screen.leave()
        screen.leave()
        assert tty.text == ENTER + "\x1b[0m\x1b[2J" + LEAVE
        assert termios.tcgetattr(tty.stdout) == before
        assert signal.getsignal(signal.SIGTSTP) == signal.SIG_DFL


def test_a_terminal_without_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    with a_screen(monkeypatch) as tty:
        screen = Screen(tty.stdout.fileno(), (70, 20))
        assert screen.begin() == (Size(70, 20), True)
        screen.leave()


def test_a_terminal_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    out, into = os.pipe()
    os.close(out)
    screen = Screen(into)
    with pytest.raises(BrokenPipeError):
        screen.begin()
    with pytest.raises(BrokenPipeError):
        screen.leave()
    os.close(into)


def test_without_a_shell_to_guard_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*args: object, **kwargs: object) -> None:
        raise FileNotFoundError("/bin/sh")

    monkeypatch.setattr(subprocess, "Popen", none)
    with a_screen(monkeypatch) as tty:
        screen = Screen(tty.stdout.fileno())
        screen.begin()
        screen.leave()
        assert tty.text == ENTER + LEAVE


SCRIPT = """
import sys
from edge_fer.sinks.screen import Screen
screen = Screen(1)
while True:
    screen.begin()
    screen.write(b"drawn ")
    sys.stdin.readline()
"""


def drawing(tty: Tty) -> subprocess.Popen[str]:
    """A process that draws at each line from its stdin; in a group of its own, as a shell starts its jobs."""
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT], cwd=root, stdin=subprocess.PIPE, stdout=tty.stdout, text=True, process_group=0
    )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_screen_is_left_whatever_ends_the_process(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    with a_screen(monkeypatch) as tty, drawing(tty) as child:
        tty.waits_for(ENTER + "drawn ")
        child.send_signal(number)
        assert child.wait(60) == -number
        tty.waits_for(LEAVE)
        assert tty.text == ENTER + "drawn " + LEAVE


def test_a_screen_is_left_while_the_process_is_suspended(monkeypatch: pytest.MonkeyPatch) -> None:
    with a_screen(monkeypatch) as tty, drawing(tty) as child:
        assert child.stdin
        tty.waits_for(ENTER + "drawn ")
        child.send_signal(signal.SIGTSTP)
        assert os.WIFSTOPPED(os.waitpid(child.pid, os.WUNTRACED)[1])
        assert tty.text == ENTER + "drawn " + LEAVE
        child.send_signal(signal.SIGCONT)
        child.stdin.write("\n")
        child.stdin.flush()
        tty.waits_for(LEAVE + ENTER + "drawn ")
        child.kill()
        child.wait(60)
        tty.waits_for(LEAVE + ENTER + "drawn " + LEAVE)


def test_who_is_in_the_background(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "tcgetpgrp", lambda file: os.getpgrp())
    assert not is_background(1)
    monkeypatch.setattr(os, "tcgetpgrp", lambda file: os.getpgrp() + 1)
    assert is_background(1)
    out, into = os.pipe()
    monkeypatch.undo()
    assert not is_background(into)
    os.close(out)
    os.close(into)
