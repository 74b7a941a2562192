"""Lines and the live view."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from screens import a_screen
from story import a_face, a_result, a_run, a_story

from edge_fer.core import Expression, FaceBox, TrueFace
from edge_fer.sinks import open_sink
from edge_fer.sinks.terminal import TerminalSink


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_plain_lines_tell_what_changes(capsys: pytest.CaptureFixture[str]) -> None:
    sink = open_sink("terminal", a_run())
    for result in a_story():
        sink.write(result)
    sink.write(a_result(124, a_face(2, Expression.ANGER)))
    assert capsys.readouterr().out.splitlines() == [
        "0.1 s  face 1  happiness 79 %",
        "0.2 s  face 2  fear 79 %",
        "0.3 s  face 1  left",
        "12.4 s  face 2  anger 79 %",
    ]


def test_plain_lines_of_several_cameras(capsys: pytest.CaptureFixture[str]) -> None:
    sink = open_sink("terminal", a_run())
    sink.write(a_result(0, a_face(1), stream="door"))
    sink.write(a_result(0, a_face(2), stream="garden"))
    sink.write(a_result(10, a_face(1, Expression.FEAR), stream="door"))
    sink.write(a_result(20, a_face(2), stream="garden"))
    sink.close()
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "0.0 s  face 1  happiness 79 %",
        "garden  0.0 s  face 2  happiness 79 %",
        "door  1.0 s  face 1  fear 79 %",
    ]
    assert lines[3].startswith("4 frames (3.0 s)")


def test_a_live_view_gives_way_to_lines_where_cameras_take_turns(capsys: pytest.CaptureFixture[str]) -> None:
    class View:
        shown = stopped = 0

        def show(self, *_: object) -> None:
            self.shown += 1

        def stop(self) -> None:
            self.stopped += 1

    sink, view = TerminalSink(), View()
    sink._view = view  # type: ignore[assignment]
    for seq, stream in enumerate(["door", "garden", "door", "garden"]):
        sink.write(a_result(seq, a_face(1 + seq % 2), stream=stream))
    assert (view.shown, view.stopped) == (2, 1)
    assert capsys.readouterr().out.splitlines() == [
        "0.2 s  face 1  happiness 79 %",
        "garden  0.3 s  face 2  happiness 79 %",
    ]


def test_plain_lines_of_still_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    sink = open_sink("terminal", a_run())
    sink.write(a_result(0, a_face(1, phase="start"), a_face(2, phase="start"), stream="photos/one.jpg", still=True))
    sink.write(a_result(1, stream="photos/two.jpg", still=True))
    sink.close()
    assert capsys.readouterr().out.splitlines()[:3] == [
        "one.jpg  face 1  happiness 79 %",
        "one.jpg  face 2  happiness 79 %",
        "two.jpg  no face",
    ]


def test_the_summary(capsys: pytest.CaptureFixture[str]) -> None:
    clock = iter([100.0, 100.5, 101.0, 102.0])
    sink = TerminalSink(clock=lambda: next(clock))
    sink.write(a_result(0, a_face(1, phase="start")))
    sink.write(a_result(1, a_face(1), a_face(2, Expression.FEAR, "start")))
    sink.write(a_result(2, a_face(1), a_face(2, Expression.FEAR)))
    sink.write(a_result(3, a_face(1), stream="next"))
    capsys.readouterr()
    sink.close()
    assert capsys.readouterr().out.splitlines() == [
        "4 frames (0.2 s), 1.5 a second, 2 faces",
        "  happiness  ████████████████████████      4   67 %",
        "  fear       ████████████░░░░░░░░░░░░      2   33 %",
        "median a frame: detect 21.0 ms, classify 0.5 ms",
    ]


def test_the_summary_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    open_sink("terminal", a_run()).close()
    assert capsys.readouterr().out == "0 frames (0.0 s), 0 faces\n"


def test_the_summary_judges_by_the_truth(capsys: pytest.CaptureFixture[str]) -> None:
    def truth(x: float, expression: Expression | None) -> TrueFace:
        return TrueFace(FaceBox(x, 25, 60, 60), expression)

    sink = open_sink("terminal", a_run())
    happy, afraid = a_face(1, Expression.HAPPINESS), a_face(2, Expression.FEAR, x=95)
    # Both right. One wrong. The nearer of two detected counts. One between two expressions, one not found.
    sink.write(a_result(0, happy, afraid, truth=(truth(32, Expression.HAPPINESS), truth(90, Expression.FEAR))))
    sink.write(a_result(1, happy, truth=(truth(30, Expression.SADNESS),)))
    sink.write(a_result(2, happy, a_face(3, Expression.ANGER, x=50), truth=(truth(45, Expression.ANGER),)))
    sink.write(a_result(3, happy, truth=(truth(30, None), truth(80, Expression.HAPPINESS))))
    sink.close()
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == ["faces found: 4 of 5", "right expression: 3 of 4 (75.0 %)"]


def test_no_truth_no_judgement(capsys: pytest.CaptureFixture[str]) -> None:
    sink = open_sink("terminal", a_run())
    sink.write(a_result(0, a_face()))
    sink.close()
    assert "found" not in capsys.readouterr().out


def test_a_terminal_that_knows_only_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    sink = open_sink("terminal", a_run())
    sink.write(a_result(0, a_face(phase="start"), stream="photos/Ärger\udcff.jpg", still=True))
    sink.close()
    lines = raw.getvalue().decode("ascii").splitlines()
    assert lines[0] == "\\xc4rger\\xff.jpg  face 1  happiness 79 %"
    assert lines[2] == "  happiness  ########################      1  100 %"


def test_the_live_view(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    with a_screen(monkeypatch) as screen:
        sink = TerminalSink(clock=lambda: now_s)
        for seq in range(201):
            now_s = seq / 100
            sink.write(a_result(seq, a_face(3, Expression.ANGER), a_face(4, Expression.FEAR, x=95)))
            text = screen.text
        assert 10 <= text.count("frame ") <= 22  # two seconds at ten a second, and both ends
        for part in ("clip", "100.0 fps", "classify 0.5 ms", "face 3", "anger", "79 %", "█", "face 4", "fear"):
            assert part in text
        assert "\x1b[38;5;" in text
        sink.close()
        sink.close()
        summary = screen.text[len(text) :]
    assert "201 frames (20.0 s), 100.0 a second" in summary
    assert "\x1b[?25h" in summary  # the cursor is back


def test_the_live_view_without_color(monkeypatch: pytest.MonkeyPatch) -> None:
    with a_screen(monkeypatch, NO_COLOR="1") as screen:
        sink = open_sink("terminal", a_run())
        sink.write(a_result(0, a_face(3, Expression.ANGER)))
        sink.close()
        assert "anger" in screen.text
        assert "\x1b[38;" not in screen.text


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    with a_screen(monkeypatch, TERM="dumb") as screen:
        sink = open_sink("terminal", a_run())
        sink.write(a_result(0, a_face(3, Expression.ANGER)))
        sink.close()
        assert screen.text.startswith("0.0 s  face 3  anger 79 %\r\n1 frame (0.0 s), 0 faces\r\n")
        assert "\x1b" not in screen.text


def test_the_live_view_on_a_terminal_that_knows_only_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    with a_screen(monkeypatch, encoding="ascii") as screen:
        sink = open_sink("terminal", a_run())
        sink.write(a_result(0, a_face(3, Expression.ANGER), stream="Küche\udcff"))
        sink.close()
        assert "K?che\\xff" in screen.text
        assert "#####" in screen.text
