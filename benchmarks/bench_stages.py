"""What each stage costs alone: searching, cutting out, classifying, drawing, writing.

    python benchmarks/bench_stages.py

CPU time and wall time of one core, medians over the images of the demo; the network also with more threads, on all.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from rich.console import Console
from rich.table import Table

from edge_fer.board import describe_machine
from edge_fer.core import Detection, Frame, FrameResult, Sink
from edge_fer.detection.cascade import CascadeDetector
from edge_fer.draw import annotate
from edge_fer.events import Run
from edge_fer.model.bundle import DEFAULT_MODEL, load_bundle
from edge_fer.model.classifier import TfliteClassifier
from edge_fer.model.litert import Network
from edge_fer.preprocess import Preprocessor
from edge_fer.recognizer import Recognizer
from edge_fer.sinks import open_sink
from edge_fer.sinks.graphics import sixel
from edge_fer.sinks.live import PictureCanvas
from edge_fer.sinks.screen import Graphics, Screen
from edge_fer.sources.demo import DemoSource

BATCH = 4
GRAPHICS: tuple[Graphics, ...] = ("blocks", "kitty")


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=60, metavar="N", help="frames to measure on (default: 60)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(list(DemoSource())[: max(1, args.frames)], Path(folder))
    machine, date = describe_machine(), datetime.now(UTC).date().isoformat()
    if args.json:
        print(json.dumps({"date": date, **machine, "stages": rows}))
        return 0
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(f"{date}: " + ", ".join(f"{name} {value}" for name, value in machine.items()), highlight=False)
    table = Table("stage", "on", "threads", "CPU ms", "wall ms", "N")
    for row in rows:
        times = (f"{row['cpu_ms']:.3f}", f"{row['wall_ms']:.3f}", str(row["n"]))
        table.add_row(row["stage"], row["on"], str(row["threads"]), *times)
    console.print(table)
    return 0


def measure(frames: Sequence[Frame], folder: Path) -> list[dict[str, Any]]:
    """All stages; ``folder`` takes what is written."""
    cores = os.sched_getaffinity(0)
    cv2.setNumThreads(1)
    os.sched_setaffinity(0, {max(cores)})
    rows: list[dict[str, Any]] = []

    def stage(name: str, on: str, act: Callable[[int], object], count: int = len(frames), threads: int = 1) -> None:
        act(0)
        cpu_ms, wall_ms = [], []
        for index in range(count):
            wall, cpu = time.perf_counter_ns(), time.process_time_ns()
            act(index)
            cpu_ms.append((time.process_time_ns() - cpu) / 1e6)
            wall_ms.append((time.perf_counter_ns() - wall) / 1e6)
        times = {"cpu_ms": round(median(cpu_ms), 4), "wall_ms": round(median(wall_ms), 4)}
        rows.append({"stage": name, "on": on, "threads": threads, **times, "n": count})

    grays = [frame.gray for frame in frames]
    halves = [cv2.resize(gray, (320, 240), interpolation=cv2.INTER_AREA) for gray in grays]
    cascades = Path(cv2.data.haarcascades)  # type: ignore[attr-defined]  # the stubs do not know it
    cascade = cv2.CascadeClassifier(str(cascades / "haarcascade_frontalface_default.xml"))
    stage(
        "Haar, whole frame",
        "640x480, faces from 40 px",
        lambda i: cascade.detectMultiScale(grays[i], 1.1, 5, minSize=(40, 40)),
    )
    stage(
        "Haar, whole frame",
        "320x240, faces from 40 px",
        lambda i: cascade.detectMultiScale(halves[i], 1.1, 5, minSize=(40, 40)),
    )
    detector = CascadeDetector()
    stage("CascadeDetector, whole frame", "640x480, faces from 40 px", lambda i: detector.detect(grays[i], 40))

    bundle = load_bundle(DEFAULT_MODEL)
    classifier = TfliteClassifier(bundle)
    preprocessor = Preprocessor(bundle.metadata.preprocess, classifier.size_hw)
    faces = [Detection(frame.truth[0].box) for frame in frames]
    stage("Preprocessor", "one face of 120 to 240 px", lambda i: preprocessor(grays[i], faces[i]))
    tensors = [preprocessor(gray, face) for gray, face in zip(grays, faces, strict=True)]
    for threads in (1, 2, 4):
        os.sched_setaffinity(0, {max(cores)} if threads == 1 else cores)
        network = TfliteClassifier(bundle, threads)

        def classify(i: int, network: TfliteClassifier = network) -> object:
            return network.classify([tensors[i]])

        stage("classify", f"{bundle.metadata.name}, one face", classify, threads=threads)
    os.sched_setaffinity(0, {max(cores)})

    # One by one, or all faces in one batch: that `classify` takes them one by one rests on these two rows.
    batches = [np.stack([tensors[(i + face) % len(tensors)] for face in range(BATCH)]) for i in range(len(tensors))]
    one, all_at_once = Network(bundle.model), Network(with_batch(bundle.model, BATCH))
    stage(
        "network alone", f"{BATCH} faces, one by one", lambda i: [one.run(batches[i][n : n + 1]) for n in range(BATCH)]
    )
    stage("network alone", f"{BATCH} faces, in one batch", lambda i: all_at_once.run(batches[i]))

    recognizer = Recognizer.load()
    results: list[FrameResult] = []
    stage("recognize, as a stream", "640x480, two faces", lambda i: results.append(recognizer.recognize(frames[i])))
    results = results[1:]  # the first is the warm-up's
    stage("color", "640x480", lambda i: frames[i].picture())
    images = [frame.picture() for frame in frames]
    stage("draw", "640x480, two faces", lambda i: annotate(images[i], results[i].faces))
    stage("JPEG", "640x480", lambda i: cv2.imencode(".jpg", images[i]))
    about = Run("bench", bundle.metadata.name, bundle.metadata.model_sha256, fps=15.0, live=False)
    for spec in (f"jsonl:{os.devnull}", f"csv:{folder / 'faces.csv'}", f"video:{folder / 'annotated.mp4'}"):
        sink = open_sink(spec, about)

        def write(i: int, sink: Sink = sink) -> None:
            sink.write(results[i])

        stage(f"sink {spec.partition(':')[0]}", "two faces a frame", write)
        sink.close()
    with Path(os.devnull).open("wb") as terminal:
        for graphics, size in itertools.product(GRAPHICS, ((80, 24), (160, 50))):
            canvas = PictureCanvas(Screen(terminal.fileno(), size), graphics, truecolor=False)

            def draw(i: int, canvas: PictureCanvas = canvas) -> None:
                canvas.draw(results[i], 15.0, i / 15)

            stage(f"picture, {graphics}", f"a terminal of {size[0]}x{size[1]}, two faces", draw)
            canvas.stop()
    small = [
        cv2.resize(image, (456, 342), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False) for image in images
    ]
    stage("picture, sixel", "456x342", lambda i: sixel(small[i]))
    os.sched_setaffinity(0, cores)
    return rows


def with_batch(model: bytes, faces: int) -> bytes:
    """A FlatBuffer that takes so many faces at a time; the runtime works out the shapes behind the input."""
    table = schema.ModelT.InitFromPackedBuf(model, 0)
    (graph,) = table.subgraphs
    source = graph.tensors[graph.inputs[0]]
    source.shape = [faces, *source.shape[1:]]
    builder = flatbuffers.Builder(len(model))
    builder.Finish(table.Pack(builder), b"TFL3")
    return bytes(builder.Output())


if __name__ == "__main__":
    sys.exit(main())
