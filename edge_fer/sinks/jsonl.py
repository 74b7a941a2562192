"""Events as JSON Lines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress

from edge_fer.core import FrameResult
from edge_fer.events import Event, Run
from edge_fer.files import LineFile


class JsonlSink:
    """Writes one JSON object a line for each event; implements ``core.Sink``.

    The file of a clip is replaced; that of a live camera is continued, so that a service that starts again loses
    nothing, unless the run overwrites.

    Args:
        path: the file, or "-" for stdout.
        run: makes the events.

    Raises:
        OutputError: the file cannot be written.
    """

    def __init__(self, path: str, run: Run) -> None:
        self._run = run
        self._file = LineFile(path, append=run.keeps_earlier)
        self._closed = False

    def write(self, result: FrameResult) -> None:
        """Write the events of a frame. Raises OutputError or BrokenPipeError."""
        self._send(self._run.to_events(result))

    def end(self, events: Sequence[Event]) -> None:
        """Write the ends of faces of a camera that shows nothing more. Raises OutputError or BrokenPipeError."""
        self._send(events)

    def close(self) -> None:
        """End the faces that are still there. Raises OutputError, but not again after ``write`` did."""
        if self._closed:
            return
        self._closed = True
        try:
            if not self._file.failed:
                with suppress(BrokenPipeError):
                    self._send(self._run.to_ends())
        finally:
            self._file.close()

    def _send(self, events: Sequence[Event]) -> None:
        if events:
            self._file.write("".join(json.dumps(event, separators=(",", ":")) + "\n" for event in events))
