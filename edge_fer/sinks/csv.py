"""Faces as a table, for spreadsheets and pandas."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from edge_fer.core import Expression, FrameResult
from edge_fer.events import Run
from edge_fer.files import LineFile, shown

COLUMNS = (
    *("ts", "time_s", "camera", "seq", "track", "phase", "x", "y", "w", "h", "expression", "confidence", "raw"),
    *(expression.value for expression in Expression),
    "size_px",
)
"""Of the header. ``x``, ``y``, ``w`` and ``h`` are pixels; an expression that the model does not know stays blank."""


class CsvSink:
    """Writes one row for each face and frame; implements ``core.Sink``.

    As with ``JsonlSink``, what a live camera's file holds is kept, unless the run overwrites; any other is replaced.

    Args:
        path: the file, or "-" for stdout.
        run: makes the events, whose time the rows have.

    Raises:
        OutputError: the file cannot be written.
    """

    def __init__(self, path: str, run: Run) -> None:
        self._run = run
        self._file = LineFile(path, append=run.keeps_earlier)
        try:
            if self._file.is_new:
                self._send([COLUMNS])
        except BaseException:
            self._file.close()
            raise

    def write(self, result: FrameResult) -> None:
        """Write the rows of a frame. Raises OutputError or BrokenPipeError."""
        frame, rows = result.frame, []
        events = [event for event in self._run.to_events(result) if event["phase"] != "end"]
        for face, event in zip(result.faces, events, strict=True):
            box, known = face.box, face.prediction.probabilities
            rows.append(
                (
                    *(event["ts"], round(frame.time_s, 3), shown(frame.stream), frame.seq, face.track, face.phase),
                    *(round(length, 1) for length in (box.x, box.y, box.w, box.h)),
                    *(face.expression.value, round(face.confidence, 4), face.raw.expression.value),
                    *(round(known[label], 4) if label in known else "" for label in Expression),
                    face.quality.size_px,
                )
            )
        if rows:
            self._send(rows)

    def close(self) -> None:
        """Close the file; it is complete after every frame."""
        self._file.close()

    def _send(self, rows: Sequence[Sequence[object]]) -> None:
        lines = io.StringIO()
        csv.writer(lines, lineterminator="\n").writerows(rows)
        self._file.write(lines.getvalue())
