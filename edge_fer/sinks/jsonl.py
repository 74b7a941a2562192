"""Events as JSON Lines."""

from __future__ import annotations

import json
from contextlib import suppress

from edge_fer.core import FrameResult
from edge_fer.events import Event, EventStream, RunInfo
from edge_fer.sinks.files import LineFile


class JsonlSink:
    """Writes one JSON object a line for each event; implements ``core.Sink``.

    The file of a clip is replaced; that of a live camera is continued, so that a service that starts again loses
    nothing.

    Args:
        path: the file, or "-" for stdout.
        run: named in the events.

    Raises:
        OutputError: the file cannot be written.
    """

    def __init__(self, path: str, run: RunInfo) -> None:
        self._events = EventStream(run)
        self._file = LineFile(path, append=run.live)

    def write(self, result: FrameResult) -> None:
        """Write the events of a frame. Raises OutputError or BrokenPipeError."""
        self._send(self._events.events(result))

    def close(self) -> None:
        """End the faces that are still there. Raises OutputError, but not again after ``write`` did."""
        ends = self._events.closing()
        try:
            if not self._file.failed:
                with suppress(BrokenPipeError):
                    self._send(ends)
        finally:
            self._file.close()

    def _send(self, events: list[Event]) -> None:
        if events:
            self._file.write("".join(json.dumps(event, separators=(",", ":")) + "\n" for event in events))
