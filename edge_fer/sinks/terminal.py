"""Results for people at a terminal, and plain lines for a journal or a pipe."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from edge_fer.core import Expression, Face, Frame, FrameResult
from edge_fer.files import LineFile, shown
from edge_fer.sinks.lines import Line, Piece, bar_pieces
from edge_fer.sinks.live import open_view
from edge_fer.sinks.screen import is_background

_MIN_IOU = 0.3


class TerminalSink:
    """Shows a live view on a terminal, plain lines elsewhere, and a summary at the end; implements ``core.Sink``.

    Args:
        how: what a terminal shows: "text" for lines, "picture" for the picture with boxes and labels above them,
            "blocks" for it in half blocks where the terminal has better; "" for text, and the picture of the demo.
        clock: wall time in seconds.
    """

    def __init__(self, how: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self._how = how
        self._clock = clock
        self._summary = Summary()
        self._view: _View | None = None
        self._failed = False
        self._closed = False

    def write(self, result: FrameResult) -> None:
        """Show a result. Raises OutputError or BrokenPipeError."""
        now = self._clock()
        self._summary.add(result, now)
        if self._view is None:
            self._view = self._view_of(result.frame)
        if self._summary.interleaved and not isinstance(self._view, _PlainView):
            self._view.stop()  # a live view shows one camera
            self._view = _PlainView()
        self._failed = True
        self._view.show(result, now)
        self._failed = False

    def close(self) -> None:
        """Print the summary. Raises OutputError, but not again after ``write`` did."""
        if self._closed:
            return
        self._closed = True
        view = self._view or _PlainView()
        with suppress(BrokenPipeError):
            view.stop()
            if not self._failed:
                view.print(self._summary.lines())

    def _view_of(self, frame: Frame) -> _View:
        # Pictures are looked at one by one: a live view would show but the last.
        if frame.still or not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
            return _PlainView()
        if is_background(sys.stdout.fileno()):
            return _PlainView()
        return open_view(self._how, bool(frame.truth), self._clock)


class Summary:
    """Counts what a run has shown, in memory that does not grow with its length.

    Attributes:
        interleaved: the frames of several cameras come in turn.
    """

    def __init__(self) -> None:
        self._frames = 0
        self._faces = 0
        self._is_still = False
        self._first_s = self._last_s = 0.0
        self._stream_s = 0.0
        self._ends_s: dict[str, float] = {}
        self._stream = ""
        self.interleaved = False
        self._expressions: Counter[Expression] = Counter()
        self._latencies: dict[str, Counter[float]] = {}
        self._true = self._found = self._right = 0

    def add(self, result: FrameResult, now_s: float) -> None:
        """Count a result that came at ``now_s`` on any clock."""
        frame = result.frame
        if self._frames == 0:
            self._first_s = now_s
        self._last_s = now_s
        self._frames += 1
        self._is_still = frame.still
        if not frame.still:
            self.interleaved |= frame.stream != self._stream and frame.stream in self._ends_s
            self._stream_s += max(0.0, frame.time_s - self._ends_s.get(frame.stream, frame.time_s))
            self._stream, self._ends_s[frame.stream] = frame.stream, frame.time_s
        self._faces += sum(face.phase == "start" for face in result.faces)
        self._expressions.update(face.expression for face in result.faces)
        for stage, ms in result.latency_ms.items():
            # Three digits are all that is shown, and keep the number of different values small.
            self._latencies.setdefault(stage, Counter())[float(f"{ms:.3g}")] += 1
        for truth in frame.truth:
            if truth.expression is not None:
                self._true += 1
                best = max(result.faces, key=lambda face: face.box.iou(truth.box), default=None)
                if best is not None and best.box.iou(truth.box) >= _MIN_IOU:
                    self._found += 1
                    self._right += best.expression == truth.expression

    def lines(self) -> list[Line]:
        """The summary."""
        took_s = self._last_s - self._first_s
        # The first result marks the start: the time before it is not known.
        rate = f", {(self._frames - 1) / took_s:.1f} a second" if took_s > 0 else ""
        kind = "picture" if self._is_still else "frame"
        length = "" if self._is_still else f" ({self._stream_s:.1f} s)"
        lines: list[Line] = [[Piece(f"{_count(self._frames, kind)}{length}{rate}, {_count(self._faces, 'face')}")]]
        shown = self._expressions.most_common()
        total = self._expressions.total()
        for expression, count in shown:
            numbers = f" {count:>6} {count / total:>5.0%}".replace("%", " %")
            bar = bar_pieces(count / shown[0][1], expression)
            lines.append([Piece(f"  {expression:<10} "), *bar, Piece(numbers)])
        if self._latencies:
            stages = (f"{stage} {_median(counts):.1f} ms" for stage, counts in self._latencies.items())
            lines.append([Piece(f"median a frame: {', '.join(stages)}")])
        if self._true:
            lines.append([Piece(f"faces found: {self._found} of {self._true}")])
        if self._found:
            share = f"{100 * self._right / self._found:.1f} %"
            lines.append([Piece(f"right expression: {self._right} of {self._found} ({share})")])
        return lines


class _View(Protocol):
    def show(self, result: FrameResult, now_s: float) -> None: ...

    def stop(self) -> None: ...

    def print(self, lines: Sequence[Line]) -> None: ...


class _PlainView:
    """One line when a face appears, changes or leaves; one for each face of a still picture."""

    def __init__(self) -> None:
        self._out = LineFile("-")
        self._shown: dict[int, Expression] = {}
        self._streams: set[str] = set()

    def show(self, result: FrameResult, now_s: float) -> None:
        frame, lines = result.frame, []
        place = shown(Path(frame.stream).name) if frame.still else f"{frame.time_s:.1f} s"
        if not frame.still:
            self._streams.add(frame.stream)
            if len(self._streams) > 1:
                place = f"{shown(frame.stream)}  {place}"
        for face in result.ended:
            if self._shown.pop(face.track, None):
                lines.append(f"{place}  face {face.track}  left")
        for face in result.faces:
            expression = face.expression
            if self._shown.get(face.track) != expression:
                lines.append(f"{place}  face {face.track}  {_said(face)}")
            if not frame.still:
                self._shown[face.track] = expression
        if frame.still and not result.faces:
            lines.append(f"{place}  no face")
        self._out.write("".join(line + "\n" for line in lines))

    def stop(self) -> None:
        pass

    def print(self, lines: Sequence[Line]) -> None:
        self._out.write("".join("".join(piece.text for piece in line) + "\n" for line in lines))


def _said(face: Face) -> str:
    doubt = f", {face.uncertain}" if face.uncertain else ""
    return f"{face.expression} {face.confidence * 100:.0f} %{doubt}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _median(counts: Counter[float]) -> float:
    """The lower median of values that come with how often they occur."""
    half = counts.total() / 2
    seen = 0
    for value in sorted(counts):
        seen += counts[value]
        if seen >= half:
            return value
    return 0.0
