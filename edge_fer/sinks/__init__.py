"""Where results go: one small class a file, chosen by ``open_sink``."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from edge_fer.address import printable
from edge_fer.config import Settings
from edge_fer.core import Sink
from edge_fer.errors import UsageError
from edge_fer.events import Run

EXAMPLES = {
    "terminal": "terminal",
    "jsonl": "jsonl:events.jsonl",
    "csv": "csv:faces.csv",
    "video": "video:annotated.mp4",
    "pictures": "pictures:annotated/",
    "mqtt": "mqtt://user@homeassistant.local",
    "mqtts": "mqtts://user@homeassistant.local",
}
"""One example of each output that ``open_sink`` knows."""


def open_sink(spec: str, run: Run | None = None, settings: Settings | None = None) -> Sink:
    """Open an output.

    Args:
        spec: ``terminal``, ``jsonl:PATH``, ``csv:PATH``, ``video:PATH`` or ``pictures:DIR``. The PATH of ``jsonl``
            and ``csv`` may be ``-`` for stdout. Folders that do not exist are made. ``terminal:picture`` shows the
            picture too, ``terminal:blocks`` does so in text alone, ``terminal:text`` never. Also
            ``mqtt://USER@HOST:PORT/TOPIC``, ``mqtts://...`` with TLS.
        run: what the output says about the run, the same for all its sinks; None for a run of its own.
        settings: what an output's name does not say; None for the defaults.

    Raises:
        UsageError: there is no such output, or it lacks a path.
        UnavailableError: a package that it needs is missing.
        ConfigError: its settings are wrong.
        OutputError: the place cannot be written.
    """
    run = run or Run()
    kind, path = check_spec(spec)
    # The shell does not see a ~ here: it does not begin a word. pathlib's fails where there is no such user.
    path = os.path.expanduser(path)  # noqa: PTH111
    match kind:
        case "jsonl":
            from edge_fer.sinks.jsonl import JsonlSink

            return JsonlSink(path, run)
        case "csv":
            from edge_fer.sinks.csv import CsvSink

            return CsvSink(path, run)
        case "video":
            from edge_fer.sinks.video import VideoSink

            return VideoSink(Path(path), run)
        case "pictures":
            from edge_fer.sinks.pictures import PicturesSink

            return PicturesSink(Path(path), run)
        case "mqtt" | "mqtts":
            from edge_fer.sinks.mqtt import MqttSink

            return MqttSink(spec, run, (settings or Settings()).mqtt)
        case _:
            from edge_fer.sinks.terminal import TerminalSink

            return TerminalSink(path)


def check_spec(spec: str) -> tuple[str, str]:
    """Kind and path of an output, without opening it.

    Raises:
        UsageError: there is no such output, or it lacks a path.
    """
    kind, _, path = spec.partition(":")
    if kind not in EXAMPLES:
        near = difflib.get_close_matches(kind, EXAMPLES, n=1)
        known = "" if near else ", ".join(EXAMPLES.values())
        raise UsageError(
            f"Unknown output '{printable(spec)}'. "
            + (f"Did you mean {EXAMPLES[near[0]]}?" if near else f"Known: {known}.")
        )
    if kind == "terminal" and path not in ("", "text", "picture", "blocks"):
        raise UsageError(
            f"The terminal does not show '{printable(path)}'. Write terminal, terminal:text, terminal:picture or "
            "terminal:blocks."
        )
    if kind != "terminal" and not path:
        raise UsageError(f"Output '{spec}' needs a path: write {EXAMPLES[kind]}.")
    if "\0" in path:
        raise UsageError(f"Output {spec!r} has a zero byte in its path.")
    return kind, path
