"""Results for people at a terminal, and plain lines for a journal or a pipe."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Protocol

from edge_fer.core import Expression, Face, FrameResult
from edge_fer.draw import COLORS
from edge_fer.files import LineFile, output_error, shown

_REFRESH_S = 0.1
_FPS_WINDOW_S = 1.0
_MIN_IOU = 0.3
_BAR_WIDTH = 24


class TerminalSink:
    """Shows a live view on a terminal, plain lines elsewhere, and a summary at the end; implements ``core.Sink``.

    Args:
        clock: wall time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
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
            # Pictures are looked at one by one: a live view would show but the last.
            is_live = sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and not result.frame.still
            self._view = _LiveView() if is_live else _PlainView()
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

    def lines(self) -> list[tuple[str, Expression | None]]:
        """The summary, line by line, each with the expression that it is about."""
        took_s = self._last_s - self._first_s
        # The first result marks the start: the time before it is not known.
        rate = f", {(self._frames - 1) / took_s:.1f} a second" if took_s > 0 else ""
        kind = "picture" if self._is_still else "frame"
        length = "" if self._is_still else f" ({self._stream_s:.1f} s)"
        lines: list[tuple[str, Expression | None]] = [
            (f"{_count(self._frames, kind)}{length}{rate}, {_count(self._faces, 'face')}", None)
        ]
        shown = self._expressions.most_common()
        total = self._expressions.total()
        for expression, count in shown:
            bar = _bar(count / shown[0][1])
            lines.append((f"  {expression:<10} {bar} {count:>6} {count / total:>5.0%}".replace("%", " %"), expression))
        if self._latencies:
            stages = (f"{stage} {_median(counts):.1f} ms" for stage, counts in self._latencies.items())
            lines.append((f"median a frame: {', '.join(stages)}", None))
        if self._true:
            lines.append((f"faces found: {self._found} of {self._true}", None))
        if self._found:
            share = f"{100 * self._right / self._found:.1f} %"
            lines.append((f"right expression: {self._right} of {self._found} ({share})", None))
        return lines


class _View(Protocol):
    def show(self, result: FrameResult, now_s: float) -> None: ...

    def stop(self) -> None: ...

    def print(self, lines: list[tuple[str, Expression | None]]) -> None: ...


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

    def print(self, lines: list[tuple[str, Expression | None]]) -> None:
        self._out.write("".join(text + "\n" for text, _ in lines))


class _LiveView:
    """A few lines that are drawn over and over, at most ten times a second."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        if isinstance(sys.stdout, TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # a file name may hold what the terminal cannot show
        self._console = Console(highlight=False)
        # Refreshed by hand: Rich's own refreshing takes a thread.
        self._live = Live(console=self._console, auto_refresh=False, transient=True, redirect_stdout=False)
        self._drawn_s = float("-inf")
        self._frames = 0
        self._window_s: float | None = None
        self._fps = 0.0

    def show(self, result: FrameResult, now_s: float) -> None:
        if self._window_s is None:
            self._window_s = now_s
        elif now_s - self._window_s >= _FPS_WINDOW_S:
            self._fps = self._frames / (now_s - self._window_s)
            self._frames, self._window_s = 0, now_s
        self._frames += 1
        if now_s - self._drawn_s < _REFRESH_S:
            return
        self._drawn_s = now_s
        try:
            self._live.start()
            self._draw(result)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise output_error("to the terminal", error) from None

    def stop(self) -> None:
        with suppress(OSError):  # the terminal is gone
            self._live.stop()

    def print(self, lines: list[tuple[str, Expression | None]]) -> None:
        from rich.text import Text

        try:
            for text, expression in lines:
                self._console.print(Text(text, COLORS[expression] if expression else ""), soft_wrap=True)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise output_error("to the terminal", error) from None

    def _draw(self, result: FrameResult) -> None:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        frame = result.frame
        name = shown(Path(frame.stream).name or frame.stream)
        stages = [f"{stage} {ms:.1f} ms" for stage, ms in result.latency_ms.items()]
        fps = f"{self._fps:.1f} fps" if self._fps else "- fps"
        status = Text("  ".join((name, f"frame {frame.seq}", f"{frame.time_s:.1f} s", fps, *stages)), "dim")
        status.truncate(self._console.width, overflow="ellipsis")
        table = Table.grid(padding=(0, 2))
        for face in sorted(result.faces, key=lambda face: face.track)[: max(1, self._console.height - 2)]:
            first, confidence = face.expression, face.confidence
            others = (entry for entry in face.prediction.probabilities.items() if entry[0] != first)
            second, runner_up = max(others, key=lambda entry: entry[1], default=(first, confidence))
            table.add_row(
                Text(f"face {face.track}"),
                Text(f"{first:<9}", f"bold {COLORS[first]}"),
                Text(_bar(confidence), COLORS[first]),
                Text(f"{confidence * 100:3.0f} %"),
                Text(face.uncertain or f"{second} {runner_up * 100:.0f} %", "dim"),
            )
        self._live.update(Group(status, table if result.faces else Text("no face", "dim")), refresh=True)


def _said(face: Face) -> str:
    doubt = f", {face.uncertain}" if face.uncertain else ""
    return f"{face.expression} {face.confidence * 100:.0f} %{doubt}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _bar(share: float) -> str:
    full = round(share * _BAR_WIDTH)
    try:
        "█░".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return "#" * full + "." * (_BAR_WIDTH - full)
    return "█" * full + "░" * (_BAR_WIDTH - full)


def _median(counts: Counter[float]) -> float:
    """The lower median of values that come with how often they occur."""
    half = counts.total() / 2
    seen = 0
    for value in sorted(counts):
        seen += counts[value]
        if seen >= half:
            return value
    return 0.0
