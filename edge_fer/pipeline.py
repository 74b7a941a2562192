"""From settings to a loop that runs: what ``run`` and ``bench`` share."""

from __future__ import annotations

import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from edge_fer.address import printable, split_address
from edge_fer.config import CameraSettings, Settings, told_apart
from edge_fer.control import Control, State
from edge_fer.core import Frame, FrameSource, Sink
from edge_fer.detection import open_detector
from edge_fer.detection.cascade import CascadeDetector
from edge_fer.errors import UnavailableError
from edge_fer.events import Run
from edge_fer.model.bundle import DEFAULT_MODEL
from edge_fer.preprocess.alignment import BY_POINTS
from edge_fer.recognizer import Recognizer
from edge_fer.sinks import open_sink
from edge_fer.sources import open_source
from edge_fer.threads import WAKE_S, LatestFrame, SeveralSources, begin_aside, call_aside

PER_CAMERA = ("video", "pictures")
"""Outputs that cannot hold two cameras."""

NO_FRAME_S = 5.0
"""From then on it waits for a camera, and the faces that it showed have gone."""

log = logging.getLogger("edge_fer")


class Step(NamedTuple):
    """What one frame took, wall time in milliseconds.

    Attributes:
        stages_ms: ``decode``, which with a camera is mostly waiting, the recognizer's own stages, and ``sinks``.
        frame_ms: all but ``decode``.
        latency_ms: from when a camera took the frame until all sinks had it; None for what is not live.
    """

    stages_ms: Mapping[str, float]
    frame_ms: float
    latency_ms: float | None


class Lane(NamedTuple):
    """What the frames of one camera go through."""

    recognizer: Recognizer
    sinks: Sequence[Sink]


def process(frames: Iterable[Frame], recognizer: Recognizer, sinks: Sequence[Sink]) -> Iterator[Step]:
    """The loop: one frame, one result, every sink. Who drives it decides after each step whether to go on."""
    for _, step in _process(_numbered(frames), [Lane(recognizer, sinks)]):
        yield step


def _process(frames: Iterable[tuple[int, Frame]], lanes: Sequence[Lane]) -> Iterator[tuple[int, Step]]:
    """The loop over the frames of several cameras, each with its place among the lanes."""
    since = time.perf_counter()
    for place, frame in frames:
        read = time.perf_counter()
        result = lanes[place].recognizer.recognize(frame)
        recognized = time.perf_counter()
        for sink in lanes[place].sinks:
            sink.write(result)
        written = time.perf_counter()
        captured_s = frame.captured_s
        latency_ms = None if captured_s is None else max(0.0, (time.monotonic() - captured_s) * 1000)
        stages_ms = {"decode": (read - since) * 1000, **result.latency_ms, "sinks": (written - recognized) * 1000}
        del frame, result  # their images, before the source makes the next
        yield place, Step(stages_ms, (written - read) * 1000, latency_ms)
        since = time.perf_counter()


def build_recognizer(settings: Settings) -> Recognizer:
    """The recognizer that settings ask for; a model that wants landmarks of a detector that has none is warned of.

    Raises:
        EdgeFerError: the model, the runtime or OpenCV is not as it should be.
    """
    detector = open_detector(settings.detector)
    recognizer = Recognizer.load(
        settings.model.path or DEFAULT_MODEL,
        detector=detector,
        min_face_px=settings.detector.min_face_px,
        new_face_s=settings.detector.new_face_s,
        device=settings.model.device,
        threads=settings.model.threads,
        decision=settings.model.decision,
        tta=settings.model.tta,
    )
    if isinstance(detector, CascadeDetector) and recognizer.bundle.metadata.preprocess.alignment in BY_POINTS:
        log.warning(
            "%s aligns faces by landmarks, and a cascade marks none: they are cut out as they are found. "
            "Choose --detector ssd.",
            recognizer.bundle.metadata.name,
        )
    return recognizer


class Pipeline:
    """Sources, recognizers and sinks, opened from settings. Iterating runs the loop; a context closes all.

    ``control`` pauses it and tells what it does. While it is paused no frame is looked at, and cameras are closed; what
    cannot be opened again, as a file or a pipe, is held where it is. Faces end at a pause, and where a camera has sent
    nothing for ``NO_FRAME_S``.

    Each camera has a recognizer of its own; jsonl, csv and terminal take the results of all, a video or a folder of
    pictures those of one. Where there are several cameras, one that is not there, is lost or breaks leaves the others
    running.

    Args:
        settings: what to open.
        service: a camera that is not there is waited for; without this that is an error, unless another is there.
        idle: called after each frame, and at least five times a second while none comes.
        control: one that has been shared already; else it makes its own.

    Attributes:
        control: see above.

    Raises:
        EdgeFerError: something cannot be opened; what was open before it is closed again.
    """

    def __init__(
        self,
        settings: Settings,
        service: bool = False,
        idle: Callable[[], None] = lambda: None,
        control: Control | None = None,
    ) -> None:
        self.control = control or Control()
        self._stopped = False
        self._new_face_s, self._search_factor = settings.detector.new_face_s, 1.0
        self._off = False
        self._since_s = self.control.clock()
        self._idle = idle
        recognizer = build_recognizer(settings)
        cameras = told_apart(settings.all_cameras)
        with ExitStack() as stack:
            self._sources = _open_sources(cameras, stack, service, self.control)
            read = [source for source in self._sources if isinstance(source, LatestFrame)]
            # Those that can be lost, as a LiveSource counts it.
            self.control.cameras = {source.name: source.counts for source in read if "lost" in source.counts}
            metadata = recognizer.bundle.metadata

            def run_of(sources: Sequence[FrameSource]) -> Run:
                return Run(
                    settings.name,
                    metadata.name,
                    metadata.model_sha256,
                    decision=recognizer.decision,
                    compound=settings.model.compound,
                    fps=max(source.fps for source in sources),
                    live=any(source.live for source in sources),
                    overwrite=settings.overwrite,
                    control=self.control,
                )

            def opened(spec: str, run: Run) -> Sink:
                sink = open_sink(spec, run, settings)
                stack.callback(sink.close)
                return sink

            run = run_of(self._sources)
            several = len(cameras) > 1
            own = [spec for spec in settings.outputs if several and spec.partition(":")[0] in PER_CAMERA]
            # In the order of the settings, since the first one's failure is the one that is told.
            shared = [opened(spec, run) for spec in settings.outputs if spec not in own]
            self._lanes = [Lane(recognizer, shared)]
            self._lanes += [Lane(recognizer.for_another_stream(), shared) for _ in cameras[1:]]
            own_runs: list[Run] = []
            if own:
                own_runs = [run_of([source]) for source in self._sources]
                self._lanes = [
                    Lane(lane.recognizer, [*shared, *(opened(_own_output(spec, name), own_run) for spec in own)])
                    for lane, own_run, name in zip(self._lanes, own_runs, _file_names(cameras), strict=True)
                ]
            self._runs = [run, *own_runs]
            # Sinks that have something to say where no frame comes.
            sinks = {id(sink): sink for lane in self._lanes for sink in lane.sinks}
            self._ticks = [tick for sink in sinks.values() if (tick := getattr(sink, "tick", None))]
            self._latencies = [Latencies() for _ in cameras]
            self._seen_s = [float("-inf")] * len(cameras)  # when the last frame of each was looked at
            self._open = stack.pop_all()

    def __iter__(self) -> Iterator[Step]:
        """The steps of the loop, until the sources end or ``stop``."""
        if len(self._sources) > 1 or isinstance(self._sources[0], LatestFrame):
            frames: Iterable[tuple[int, Frame]] = SeveralSources(self._sources, self._tend)
        else:
            frames = self._held(self._sources[0])
        self._since_s = self.control.clock()
        try:
            self._tend()
            for place, step in _process(frames, self._lanes):
                self.control.frames += 1
                self.control.last_frame_s = self._seen_s[place] = self.control.clock()
                if step.latency_ms is not None:
                    self._latencies[place].add(step.latency_ms)
                yield step
                if self._stopped:
                    return
                self._tend()
        finally:
            self.control.state = State.STOPPED
            self._report()

    def _held(self, source: FrameSource) -> Iterator[tuple[int, Frame]]:
        """The frames of the only source, one that waits; none while it is paused."""
        for numbered in _numbered(source):
            while self.control.paused and not self._stopped:
                self._tend()
                time.sleep(WAKE_S)
            yield numbered
            del numbered  # its images, before the source makes the next

    def _tend(self) -> None:
        """Do what was asked through ``control``, and tell there what the loop does."""
        control = self.control
        control.alive_s = control.clock()
        live = [source for source in self._sources if isinstance(source, LatestFrame)]
        if control.paused != self._off:
            self._off = control.paused
            log.warning("It is paused." if self._off else "It goes on.")
            for source in live:
                source.switch(not self._off)
            for lane in self._lanes:
                self._end_faces(lane)
            self._since_s = control.clock()
        for lane, seen_s in zip(self._lanes, self._seen_s, strict=True):
            if control.clock() - seen_s > NO_FRAME_S:
                self._end_faces(lane)
        if self._off:
            control.state = State.PAUSING if any(source.is_open() for source in live) else State.PAUSED
        else:
            last_s = control.last_frame_s
            if control.clock() - max(last_s or self._since_s, self._since_s) > NO_FRAME_S:
                control.state = State.WAITING
            elif last_s is not None and last_s >= self._since_s:
                control.state, control.reason = State.RECOGNIZING, ""
            else:
                control.state = State.WAITING if control.reason else State.STARTING
        for tick in self._ticks:
            tick()
        self._idle()

    def _end_faces(self, lane: Lane) -> None:
        """Nobody is seen there any more: who acts on that hears it now, and not with a frame that may never come."""
        if events := self._runs[0].end(lane.recognizer.end()):
            for sink in lane.sinks:
                if end := getattr(sink, "end", None):
                    end(events)

    def reload(self, settings: Settings) -> None:
        """Take over detector and model of other settings, between two frames. Cameras and sinks stay as they are.

        Raises:
            EdgeFerError: they cannot be used; those before go on.
        """
        recognizer = build_recognizer(settings)
        for place, lane in enumerate(self._lanes):
            successor = recognizer.for_another_stream() if place else recognizer
            successor.succeed(lane.recognizer)
            self._lanes[place] = Lane(successor, lane.sinks)
        metadata = recognizer.bundle.metadata
        for run in self._runs:
            run.model, run.model_sha256, run.decision = metadata.name, metadata.model_sha256, recognizer.decision
            run.compound = settings.model.compound
        self._new_face_s = settings.detector.new_face_s
        self.search_later(self._search_factor)

    def search_later(self, factor: float) -> None:
        """Give the search for new faces so many times the time of the settings, which costs less."""
        self._search_factor = factor
        for lane in self._lanes:
            lane.recognizer.search_within(factor * self._new_face_s)

    def stop(self) -> None:
        """End the loop after the frame in hand; may be called by a signal handler or another thread."""
        self._stopped = True
        for source in self._sources:
            source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close sinks and source. Raises OutputError where a sink cannot finish."""
        self._open.__exit__(kind, error, traceback)

    def _report(self) -> None:
        """Say what became of the frames of each live camera."""
        for source, latencies in zip(self._sources, self._latencies, strict=True):
            if isinstance(source, LatestFrame) and source.live:
                became = ", ".join(f"{count} {what}" for what, count in sorted(source.counts.items()))
                log.info("%s: %s; from capture to the last output %s.", source.name, became, latencies)


class Latencies:
    """Times in milliseconds, as a histogram that does not grow with their number."""

    def __init__(self) -> None:
        self._counts: Counter[float] = Counter()

    def add(self, ms: float) -> None:
        """Count one, to two digits."""
        self._counts[float(f"{ms:.2g}")] += 1

    def percentile(self, percent: float) -> float:
        """The smallest time that so many percent of all do not pass; 0 where there is none."""
        wanted, seen = self._counts.total() * percent / 100, 0
        for ms in sorted(self._counts):
            seen += self._counts[ms]
            if seen >= wanted:
                return ms
        return 0.0

    def __str__(self) -> str:
        return f"median {self.percentile(50):g} ms, 95th percentile {self.percentile(95):g} ms"


def _numbered(frames: Iterable[Frame]) -> Iterator[tuple[int, Frame]]:
    """The frames of the only camera."""
    for frame in frames:
        yield 0, frame
        del frame  # its images, before the source makes the next


def _file_names(cameras: Sequence[CameraSettings]) -> list[str]:
    """What the files of each camera are told apart by: its name in letters that any file system takes."""
    names: list[str] = []
    for number, camera in enumerate(cameras, 1):
        name = re.sub(r"[^\w.-]+", "-", camera.name).strip("-.")[-64:] or "camera"
        names.append(f"{name}-{number}" if name in names else name)
    return names


def _own_output(spec: str, name: str) -> str:
    """An output for one camera: video:a.mp4 becomes video:a-NAME.mp4, pictures:a becomes pictures:a/NAME."""
    kind, _, path = spec.partition(":")
    if not path or kind != "video":
        return f"{kind}:{Path(path) / name}" if path else spec
    return f"{kind}:{Path(path).with_stem(f'{Path(path).stem}-{name}')}"


def _open_sources(
    cameras: Sequence[CameraSettings], stack: ExitStack, service: bool, control: Control
) -> list[FrameSource]:
    """All sources. Cameras that are not there now are waited for in the background, if one is or in a service.

    Raises:
        UnavailableError: none is there, and it is no service; or it is nothing that comes by itself.
        EdgeFerError: a source is wrong.
    """
    opened: dict[int, FrameSource] = {}
    missing: dict[int, UnavailableError | None] = dict.fromkeys(range(len(cameras)))
    if not control.paused:
        missing = {**_open_those_there(cameras, opened, stack)}
        if not opened and not service:
            raise next(error for error in missing.values() if error)
    for place, reason in missing.items():
        if reason:
            control.reason = control.reason or printable(str(reason))
            log.warning("%s It is tried again until it is there.", reason)
        opened[place] = open_source(cameras[place], later=True)
        stack.callback(opened[place].close)
    sources = [opened[place] for place in range(len(cameras))]
    if len(sources) == 1:
        return sources
    return [one if isinstance(one, LatestFrame) else LatestFrame(one, drops=False) for one in sources]


def _open_those_there(
    cameras: Sequence[CameraSettings], opened: dict[int, FrameSource], stack: ExitStack
) -> dict[int, UnavailableError]:
    """Open what can be opened, by place; returns why the others cannot."""
    missing: dict[int, UnavailableError] = {}
    # Those in the network all at once: each one that does not answer takes its ten seconds.
    begun = {
        place: begin_aside(partial(open_source, camera))
        for place, camera in enumerate(cameras)
        if split_address(camera.source)
    }
    for place, camera in enumerate(cameras):
        try:
            # Aside: this thread goes on hearing signals while a camera does not answer.
            opened[place] = begun[place]() if place in begun else call_aside(partial(open_source, camera))
            stack.callback(opened[place].close)
        except UnavailableError as error:
            missing[place] = error
    return missing
