"""``edge-fer replay``: recorded events -> outputs, at their pace or at once."""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from edge_fer.cli.run import Stopped, Stopping, check_outputs
from edge_fer.cli.verbs import Verbs, add_verb
from edge_fer.config import Settings
from edge_fer.control import Control, State
from edge_fer.errors import DataError, InputMissingError
from edge_fer.layers import load_settings

EXAMPLES = """examples:
  edge-fer run --camera 0 --output jsonl:events.jsonl                  record
  edge-fer replay events.jsonl                                         look at it in the terminal, as it was
  edge-fer replay events.jsonl --output web:127.0.0.1:8080             the same in the browser
  edge-fer replay events.jsonl --output webhook:http://127.0.0.1:1880/faces    try an automation, again and again
  edge-fer replay --fast events.jsonl --output csv:faces.csv           another format, at once
  zcat events.jsonl.gz | edge-fer replay -                             from standard input

The events are given to the outputs as they were recorded, with their times of day. Pictures are not recorded: those who
show one show boxes in an empty frame.
"""
_WAKE_S = 0.2


def add_replay(verbs: Verbs) -> None:
    """Add the verb."""
    replay = add_verb(verbs, "replay", "give recorded events to outputs, at their pace or at once", EXAMPLES)
    replay.add_argument("events", metavar="EVENTS.jsonl", help="what an output jsonl:PATH has written; - is stdin")
    replay.add_argument(
        "--output", metavar="SINK", action="append", help="as of `edge-fer run`; may be given often (default: terminal)"
    )
    replay.add_argument("--fast", action="store_true", help="do not wait: all at once")
    replay.add_argument(
        "--show-video", action="store_true", help="the page of web:HOST:PORT shows the empty frames too"
    )
    replay.add_argument("--web-token-file", metavar="FILE", default="", help="as of `edge-fer run`")
    replay.add_argument(
        "--config",
        type=Path,
        metavar="TOML",
        help="configuration file, for the settings of outputs (default: as of run)",
    )
    replay.set_defaults(act=_replay)


def _replay(args: argparse.Namespace) -> None:
    flags = {
        "outputs": args.output or ["terminal"],
        "camera.source": args.events,
        "cameras": [],
        "web.show_video": args.show_video or None,
        "web.token_file": args.web_token_file or None,
    }
    settings = load_settings(args.config, os.environ, flags)
    replay(settings, fast=args.fast)


def replay(settings: Settings, *, fast: bool = False) -> None:
    """Give the events of the file ``settings.camera.source`` to the outputs of the settings.

    Args:
        settings: what to do.
        fast: do not wait until an event is due.

    Raises:
        EdgeFerError: the file is no recording, or an output cannot be opened or written. What was written is complete.
        BrokenPipeError: stdout was closed by its reader.
    """
    check_outputs(settings, None)
    stopping = Stopping()

    from edge_fer.recording import RecordedRun, read_results
    from edge_fer.sinks import open_sink

    run, name = RecordedRun(), settings.camera.source
    with suppress(Stopped), ExitStack() as stack:
        stopping.interrupt()
        stack.callback(signal.setitimer, signal.ITIMER_REAL, 0)  # that of ``stopping`` must not outlive this
        results = read_results(stack.enter_context(_opened(name)), name)
        first = next(results, None)  # before an output is opened: what is no recording replaces nothing
        sinks = []
        for spec in settings.outputs:
            sinks.append(open_sink(spec, run, settings))
            stack.callback(sinks[-1].close)
        ticks = [tick for sink in sinks if (tick := getattr(sink, "tick", None))]
        waiting = _Waiting(run.control, fast, ticks)
        stopping.call(waiting.stop)
        for result in itertools.chain([] if first is None else [first], results):
            if not waiting.until(result.due_s):
                break
            for sink in sinks:
                sink.write(result)
        run.control.state = State.STOPPED


class _Waiting:
    """Waits until a result is due, and while it is paused; tells through the control that it lives.

    Args:
        control: of the run.
        fast: nothing is waited for but the end of a pause.
        ticks: called with each look at the clock: what ``core.Sink`` says of ``tick``.
    """

    def __init__(self, control: Control, fast: bool, ticks: Sequence[Callable[[], object]] = ()) -> None:
        self._control = control
        self._fast = fast
        self._ticks = ticks
        self._begun_s = time.monotonic()
        self._stopped = False

    def stop(self) -> None:
        """End it; may be called by a signal handler."""
        self._stopped = True

    def until(self, due_s: float) -> bool:
        """Wait; returns whether to go on. The time of a pause does not count."""
        control = self._control
        while not self._stopped:
            control.alive_s = control.clock()
            for tick in self._ticks:
                tick()
            left_s = 0.0 if self._fast else self._begun_s + due_s - time.monotonic()
            if control.paused:
                control.state = State.PAUSED
                self._begun_s += _WAKE_S
                left_s = _WAKE_S
            elif left_s <= 0:
                control.state, control.frames = State.RECOGNIZING, control.frames + 1
                control.last_frame_s = control.clock()
                return True
            time.sleep(min(left_s, _WAKE_S))
        return False


@contextmanager
def _opened(name: str) -> Iterator[Iterable[str]]:
    """The lines of a file, or of stdin for "-".

    Raises:
        InputMissingError: it cannot be read.
        DataError: it is no text.
    """
    with ExitStack() as stack:
        try:
            file = sys.stdin if name == "-" else stack.enter_context(Path(name).open(encoding="utf-8"))
        except OSError as error:
            raise InputMissingError(
                f"Cannot read {name}: {error.strerror}. Give what jsonl:PATH has written."
            ) from None
        try:
            yield file
        except UnicodeDecodeError:
            raise DataError(
                f"{name} is no text. A compressed file goes through `zcat {name} | edge-fer replay -`."
            ) from None
