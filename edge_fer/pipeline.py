"""From settings to a loop that runs: what ``run`` and ``bench`` share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import NamedTuple, Self

from edge_fer.config import CameraSettings, Settings
from edge_fer.core import Frame, FrameSource, Sink
from edge_fer.detection import open_detector
from edge_fer.errors import UnavailableError
from edge_fer.events import Run
from edge_fer.model.bundle import DEFAULT_MODEL
from edge_fer.recognizer import Recognizer
from edge_fer.sinks import open_sink
from edge_fer.sources import open_source
from edge_fer.threads import call_aside


class Step(NamedTuple):
    """What one frame took, wall time in milliseconds.

    Attributes:
        stages_ms: ``decode``, which with a camera is mostly waiting, the recognizer's own stages, and ``sinks``.
        frame_ms: all but ``decode``.
    """

    stages_ms: Mapping[str, float]
    frame_ms: float


def process(frames: Iterable[Frame], recognizer: Recognizer, sinks: Sequence[Sink]) -> Iterator[Step]:
    """The loop: one frame, one result, every sink. Who drives it decides after each step whether to go on."""
    since = time.perf_counter()
    for frame in frames:
        read = time.perf_counter()
        result = recognizer.recognize(frame)
        recognized = time.perf_counter()
        for sink in sinks:
            sink.write(result)
        written = time.perf_counter()
        stages_ms = {"decode": (read - since) * 1000, **result.latency_ms, "sinks": (written - recognized) * 1000}
        del frame, result  # their images, before the source makes the next
        yield Step(stages_ms, (written - read) * 1000)
        since = time.perf_counter()


def build_recognizer(settings: Settings) -> Recognizer:
    """The recognizer that settings ask for.

    Raises:
        EdgeFerError: the model, the runtime or OpenCV is not as it should be.
    """
    return Recognizer.load(
        settings.model.path or DEFAULT_MODEL,
        detector=open_detector(settings.detector),
        min_face_px=settings.detector.min_face_px,
        new_face_s=settings.detector.new_face_s,
        device=settings.model.device,
        threads=settings.model.threads,
    )


def _open(camera: CameraSettings, wait: Callable[[UnavailableError], None] | None) -> FrameSource:
    while True:
        try:
            # Aside: this thread goes on hearing signals while a network camera does not answer.
            return call_aside(lambda: open_source(camera))
        except UnavailableError as error:
            if wait is None:
                raise
            wait(error)


class Pipeline:
    """A source, a recognizer and sinks, opened from settings. Iterating runs the loop; a context closes all.

    Args:
        settings: what to open.
        wait: called each time the camera is not to be had, before the next try; without it that is an error.

    Raises:
        EdgeFerError: something cannot be opened; what was open before it is closed again.
    """

    def __init__(self, settings: Settings, wait: Callable[[UnavailableError], None] | None = None) -> None:
        self._stopped = False
        self._recognizer = build_recognizer(settings)
        with ExitStack() as stack:
            self._source = _open(settings.camera, wait)
            stack.callback(self._source.close)
            metadata = self._recognizer.bundle.metadata
            run = Run(
                settings.name,
                metadata.name,
                metadata.model_sha256,
                fps=self._source.fps,
                live=self._source.live,
                overwrite=settings.overwrite,
            )
            self._sinks: list[Sink] = []
            for spec in settings.outputs:
                sink = open_sink(spec, run)
                stack.callback(sink.close)
                self._sinks.append(sink)
            self._open = stack.pop_all()

    def __iter__(self) -> Iterator[Step]:
        """The steps of the loop, until the source ends or ``stop``."""
        for step in process(self._source, self._recognizer, self._sinks):
            yield step
            if self._stopped:
                return

    def stop(self) -> None:
        """End the loop after the frame in hand; may be called by a signal handler or another thread."""
        self._stopped = True
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close sinks and source. Raises OutputError where a sink cannot finish."""
        self._open.__exit__(kind, error, traceback)
