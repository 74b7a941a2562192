"""Metrics in the text format of Prometheus, version 0.0.4: docs/web.md lists them."""

from __future__ import annotations

import bisect
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from edge_fer.board import THROTTLE_BITS, resident_bytes
from edge_fer.core import FrameResult
from edge_fer.events import Event
from edge_fer.service.live import camera_of
from edge_fer.version import __version__

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Upper bounds of the histograms' buckets."""

Labels: TypeAlias = Mapping[str, str]
Sample: TypeAlias = tuple[str, Labels, float]


class Histogram:
    """Durations, counted in buckets."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS_S) + 1)
        self._sum_s = 0.0

    def observe(self, duration_s: float) -> None:
        """Count one."""
        self._counts[bisect.bisect_left(BOUNDS_S, duration_s)] += 1
        self._sum_s += duration_s

    def samples(self, labels: Labels) -> Iterator[Sample]:
        """Buckets, sum and count, each with the end of its name."""
        total = 0
        for bound, count in zip((*BOUNDS_S, float("inf")), list(self._counts), strict=True):
            total += count
            yield "_bucket", {**labels, "le": _number(bound)}, total
        yield "_sum", labels, self._sum_s
        yield "_count", labels, total


class Metrics:
    """What has happened since the start. ``see`` is called by the loop, ``render`` by whoever asks.

    Attributes:
        stages: how long each stage took.
        latency: from when a camera took a frame until its result was there.
    """

    def __init__(self) -> None:
        self.stages: dict[str, Histogram] = {}
        self.latency = Histogram()
        self._frames: Counter[str] = Counter()
        self._last_s: dict[str, float] = {}
        self._appeared = 0
        self._expressions: Counter[str] = Counter()
        self._showing: dict[int, str] = {}
        self._started_s = time.time()

    def see(self, result: FrameResult, events: Iterable[Event]) -> None:
        """Count a frame.

        Args:
            result: of the frame.
            events: what ``Run.to_events`` made of it.
        """
        frame = result.frame
        camera = camera_of(frame)
        self._frames[camera] += 1
        self._last_s[camera] = time.time()
        for stage, ms in result.latency_ms.items():
            self.stages.setdefault(stage, Histogram()).observe(ms / 1000)
        if frame.captured_s is not None:
            self.latency.observe(max(0.0, time.monotonic() - frame.captured_s))
        for event in events:
            track, expression = event["track"], event["expression"]
            if event["phase"] == "end":
                self.end([event])
                continue
            self._appeared += event["phase"] == "start"
            if self._showing.get(track) != expression:
                self._expressions[expression] += 1
            if not frame.still:
                self._showing[track] = expression

    def end(self, events: Iterable[Event]) -> None:
        """Faces are followed no more."""
        for event in events:
            self._showing.pop(event["track"], None)

    def render(self, state: Mapping[str, Any]) -> str:
        """The text that Prometheus reads.

        Args:
            state: what ``/api/v1/state`` says now.
        """
        return "".join(_family(*family) for family in self._families(state))

    def _families(self, state: Mapping[str, Any]) -> Iterator[tuple[str, str, str, list[Sample]]]:
        """Name, type, help and samples of each metric."""
        cameras, board, web, sinks = state["cameras"], state["board"], state["web"], state["sinks"]

        def by_camera(values: Mapping[str, float]) -> list[Sample]:
            return [("", {"camera": camera}, value) for camera, value in list(values.items())]

        model = state["model"]
        yield (
            *("build_info", "gauge", "What runs: its version, and the model by name and hash."),
            [("", {"version": __version__, "model": model["name"], "model_sha256": model["sha256"]}, 1)],
        )
        yield "frames_total", "counter", "Frames in which faces were looked for.", by_camera(self._frames)
        yield (
            *("frames_dropped_total", "counter", "Frames that were not looked at: a newer one came, or damaged."),
            [
                ("", {"camera": camera["name"], "reason": reason}, count)
                for camera in cameras
                for reason, count in camera["dropped"].items()
            ],
        )
        yield (
            *("last_frame_timestamp_seconds", "gauge", "When the last frame was looked at, seconds since 1970."),
            by_camera(self._last_s),
        )
        yield (
            *("camera_reconnects_total", "counter", "How often a camera was lost, to be opened again."),
            [("", {"camera": camera["name"]}, camera["lost"]) for camera in cameras],
        )
        yield "faces_detected_total", "counter", "Faces that appeared.", [("", {}, self._appeared)]
        yield "tracks_active", "gauge", "Faces that are followed now.", [("", {}, len(self._showing))]
        yield (
            *("expressions_total", "counter", "How often a face began to show an expression."),
            [("", {"expression": name}, count) for name, count in sorted(self._expressions.items())],
        )
        yield (
            *("stage_duration_seconds", "histogram", "Time that a stage takes for a frame."),
            [one for stage, hist in list(self.stages.items()) for one in hist.samples({"stage": stage})],
        )
        yield (
            *("capture_to_result_seconds", "histogram", "From when a camera took a frame until its result was there."),
            list(self.latency.samples({})),
        )
        yield "enabled", "gauge", "0 while it is paused and the cameras are closed.", [("", {}, state["enabled"])]
        yield (
            *("state", "gauge", "1 for what the loop does now."),
            [("", {"state": one}, one == state["state"]) for one in state["states"]],
        )
        brokers = [sink["reached"] for sink in sinks if sink["name"].startswith("mqtt")]
        yield "mqtt_connected", "gauge", "1 while the broker takes messages.", [("", {}, one) for one in brokers[:1]]
        yield (
            *("sink_reached", "gauge", "1 while an output of the network takes messages."),
            [("", {"sink": sink["name"]}, sink["reached"]) for sink in sinks],
        )
        yield (
            *("sink_messages_total", "counter", "Messages of an output of the network, by what became of them."),
            [
                ("", {"sink": sink["name"], "result": result}, sink[result])
                for sink in sinks
                for result in ("sent", "dropped", "refused")
            ],
        )
        temperature, throttled = board["temperature_c"], board["throttled"]
        yield (
            *("cpu_temperature_celsius", "gauge", "Temperature of the processor."),
            [] if temperature is None else [("", {}, temperature)],
        )
        yield (
            *("throttled", "gauge", "1 while this slows the board down."),
            [] if throttled is None else [("", {"condition": one}, one in throttled) for one in THROTTLE_BITS.values()],
        )
        yield (
            *("http_clients", "gauge", "Clients that watch a stream."),
            [("", {"stream": kind}, web[kind]) for kind in ("events", "video")],
        )
        yield (
            *("http_requests_total", "counter", "Requests by the status of their answer."),
            [("", {"status": str(status)}, count) for status, count in sorted(web["requests"].items())],
        )
        yield (
            *("http_left_out_total", "counter", "Parts of a stream that a slow client was not sent."),
            [("", {}, web["left_out"])],
        )
        yield "memory_resident_bytes", "gauge", "Memory of the process.", [("", {}, resident_bytes())]
        yield "cpu_seconds_total", "counter", "Processor time of the process.", [("", {}, time.process_time())]
        yield "start_time_seconds", "gauge", "When it began, seconds since 1970.", [("", {}, self._started_s)]


def _family(name: str, kind: str, text: str, samples: list[Sample]) -> str:
    """The lines of a metric; none where there is nothing to say."""
    if not samples:
        return ""
    lines = [f"# HELP edge_fer_{name} {text}", f"# TYPE edge_fer_{name} {kind}"]
    for end, labels, value in samples:
        shown = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        lines.append(f"edge_fer_{name}{end}{f'{{{shown}}}' if shown else ''} {_number(float(value))}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    if value == float("inf"):
        return "+Inf"
    return str(int(value)) if value == int(value) else repr(value)
