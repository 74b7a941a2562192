"""How fast edge-fer is on this board, and which settings suit it: what ``edge-fer bench`` prints."""

from __future__ import annotations

import dataclasses
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import numpy as np

from edge_fer.address import printable
from edge_fer.board import describe_machine, read_health
from edge_fer.config import Settings
from edge_fer.core import Frame, Sink
from edge_fer.errors import DataError
from edge_fer.events import Run
from edge_fer.pipeline import build_recognizer, process
from edge_fer.recognizer import Recognizer
from edge_fer.sinks import open_sink
from edge_fer.sources import open_source
from edge_fer.threads import call_aside

WARM_UP = 5
"""Frames at the start that are not counted: caches fill, the first search covers the whole frame."""
TUNE_S = 60.0
"""How long ``tune`` may take, about. A quick board is done much sooner."""
TUNE_FRAMES = 120
TUNE_MIN_FACE_PX = (40, 60, 80)
TUNE_NEW_FACE_S = 1.0
"""How late a new face may be found where even large ones alone keep a board too busy."""
THREAD_GAIN = 0.9
"""Another thread has to bring the network's time below this share of what it was. A core kept free is worth more."""


def summary(times_ms: Sequence[float]) -> dict[str, float]:
    """Mean, median and tail of times in milliseconds: ``mean``, ``p50``, ``p95``, ``p99``."""
    p50, p95, p99 = np.percentile(times_ms, (50, 95, 99))
    figures = {"mean": float(np.mean(times_ms)), "p50": float(p50), "p95": float(p95), "p99": float(p99)}
    return {name: round(value, 3) for name, value in figures.items()}


def measure(
    frames: Iterable[Frame], recognizer: Recognizer, sink: Sink, limit_s: float = float("inf")
) -> dict[str, Any]:
    """Run the loop of ``edge-fer run`` over frames and take the wall time of each stage.

    Args:
        frames: as a source gives them; the time that it takes is the stage ``decode``, which with a camera is mostly
            waiting.
        recognizer: gives its own stages in ``FrameResult.latency_ms``.
        sink: its ``write`` is the stage ``sinks``.
        limit_s: stop after so many seconds.

    Returns:
        ``frames``: counted, without the first ``WARM_UP`` if there are more; ``fps``: of the whole loop;
        ``stages_ms``: ``summary`` by stage; ``frame_ms``: of all but ``decode``; ``cpu_ms``: CPU time of a frame on
        all cores, decoding included; ``latency_ms``: from capture until the events are written, None for what is not
        live.

    Raises:
        DataError: there are no frames.
    """
    stages: dict[str, list[float]] = defaultdict(list)
    totals, cpus, latencies = [], [], []
    started, cpu = time.perf_counter(), time.process_time()
    for step in process(frames, recognizer, [sink]):
        for stage, ms in step.stages_ms.items():
            stages[stage].append(ms)
        totals.append(step.frame_ms)
        if step.latency_ms is not None:
            latencies.append(step.latency_ms)
        cpu_before, cpu = cpu, time.process_time()
        cpus.append((cpu - cpu_before) * 1000)
        if time.perf_counter() - started > limit_s:
            break
    if not totals:
        raise DataError("The source gave no frame: nothing to measure.")
    skip = WARM_UP if len(totals) > WARM_UP else 0
    loop_ms = float(np.mean(stages["decode"][skip:]) + np.mean(totals[skip:]))
    return {
        "frames": len(totals) - skip,
        "fps": round(1000 / loop_ms, 1),
        "stages_ms": {stage: summary(times[skip:]) for stage, times in stages.items()},
        "frame_ms": summary(totals[skip:]),
        "cpu_ms": round(float(np.mean(cpus[skip:])), 3),
        "latency_ms": summary(latencies[skip:]) if latencies else None,
    }


def measure_settings(settings: Settings, frames: int) -> dict[str, Any]:
    """Measure at most so many frames of ``settings.camera``, with events written to nowhere.

    Returns:
        Date, machine, settings, the figures of ``measure`` and ``read_health`` after it; ready for ``json.dumps``.

    Raises:
        EdgeFerError: the source or the model cannot be opened.
    """
    recognizer = build_recognizer(settings)
    with (
        closing(call_aside(lambda: open_source(settings.all_cameras[0]))) as source,
        closing(_nowhere(recognizer)) as sink,
    ):
        figures = measure(islice(source, frames), recognizer, sink)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        **describe_machine(),
        "source": printable(settings.all_cameras[0].source),  # people are asked to pass this on
        "model": recognizer.bundle.metadata.name,
        "threads": settings.model.threads,
        "min_face_px": settings.detector.min_face_px,
        **figures,
        **read_health(),
    }


def tune(settings: Settings) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Find the threads, the smallest face and the pace of the search that suit this board and source.

    Within ``TUNE_S``. First the threads: as many as each make the network faster by a tenth. Then the smallest face
    with which 95 of 100 frames are done before the next one comes (``fps`` of the camera). If none is quick enough,
    the quickest, with new faces looked for more slowly where that is quicker still.

    Returns:
        Every trial (``threads``, ``min_face_px``, ``new_face_s``, and the figures of ``measure``), and the best values
        by dotted key of the configuration.
    """
    with closing(call_aside(lambda: open_source(settings.all_cameras[0]))) as source:
        # Without their color: a Pi Zero has no room for a hundred images in it.
        frames = [dataclasses.replace(frame, color=None) for frame in islice(source, TUNE_FRAMES)]
    cores = os.cpu_count() or 1
    limit_s = TUNE_S / (cores + len(TUNE_MIN_FACE_PX))
    trials: list[dict[str, Any]] = []

    def trial(threads: int, min_face_px: int, new_face_s: float = settings.detector.new_face_s) -> dict[str, Any]:
        looked_for = dataclasses.replace(settings.detector, min_face_px=min_face_px, new_face_s=new_face_s)
        model = dataclasses.replace(settings.model, threads=threads)
        recognizer = build_recognizer(dataclasses.replace(settings, model=model, detector=looked_for))
        with closing(_nowhere(recognizer)) as sink:
            figures = measure(frames, recognizer, sink, limit_s)
        trials.append({"threads": threads, "min_face_px": min_face_px, "new_face_s": new_face_s, **figures})
        return trials[-1]

    best = trial(1, TUNE_MIN_FACE_PX[0])
    for threads in range(2, cores + 1):
        more = trial(threads, TUNE_MIN_FACE_PX[0])
        if network_ms(more) < THREAD_GAIN ** (threads - best["threads"]) * network_ms(best):
            best = more
    sizes = [best, *(trial(best["threads"], min_px) for min_px in TUNE_MIN_FACE_PX[1:])]
    in_time = [one for one in sizes if _tail_ms(one) <= 1000 / settings.all_cameras[0].fps]
    if in_time:
        best = in_time[0]
    else:
        best = min(sizes, key=_tail_ms)
        if best["new_face_s"] < TUNE_NEW_FACE_S:
            best = min(best, trial(best["threads"], best["min_face_px"], TUNE_NEW_FACE_S), key=_tail_ms)
    keys = {"model.threads": "threads", "detector.min_face_px": "min_face_px", "detector.new_face_s": "new_face_s"}
    return trials, {key: best[name] for key, name in keys.items()}


def network_ms(trial: Mapping[str, Any]) -> float:
    """Mean time of the network in a trial, milliseconds."""
    # The mean: most frames are so like the last that the network is not asked, so their median says nothing.
    return float(trial["stages_ms"]["classify"]["mean"])


def _tail_ms(trial: Mapping[str, Any]) -> float:
    return float(trial["frame_ms"]["p95"])


def _nowhere(recognizer: Recognizer) -> Sink:
    metadata = recognizer.bundle.metadata
    return open_sink(f"jsonl:{os.devnull}", Run("bench", metadata.name, metadata.model_sha256))
