"""What following faces through a stream costs and gives, against goals: on clips and on scenes of the demo's faces.

    python benchmarks/bench_stream.py --videos DIR [--detector haar]

DIR holds clips with one face. One whose name begins with ``no_face`` shows nobody. All is measured on one core, as CPU
time of ``Recognizer.recognize``; frames are decoded before. The reference is OpenCV's cascade over every whole frame.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, median
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from edge_fer.board import describe_machine
from edge_fer.config import CameraSettings, DetectorKind
from edge_fer.core import Expression, FaceBox, Frame, FrameResult, Image
from edge_fer.errors import DataError, EdgeFerError, InputMissingError
from edge_fer.recognizer import Recognizer
from edge_fer.sources import open_source
from edge_fer.sources.demo import DemoSource

FOUND_IOU = 0.4
FPS = 30
CANVAS_WH = (640, 480)
WARM_UP_FRAMES = 10
CHANGE_S = 0.25
"""Within which a change of expression is to be reported."""
SURE = 0.5
DETECTOR = "EDGE_FER_DETECTOR__KIND"
"""The variable that says which detector is measured."""
STARTS = 5
"""Processes that are started to measure one; the median counts."""


@dataclass(frozen=True)
class Row:
    """One line of the table. ``passed`` is None where nothing could be measured."""

    what: str
    measured: str
    goal: str
    passed: bool | None
    on: str


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code. A goal that is missed is a line of the table, not a failure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, required=True, metavar="DIR", help="clips with one face, and no_face*")
    parser.add_argument("--soak", type=int, default=20_000, metavar="N", help="frames of the memory test")
    parser.add_argument("--detector", choices=["auto", "ssd", "haar"], default="auto", help="that finds faces (auto)")
    parser.add_argument("--core", type=int, metavar="N", help="core to run on (default: the last)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(arguments)
    core = max(os.sched_getaffinity(0)) if args.core is None else args.core
    os.sched_setaffinity(0, {core})
    os.environ[DETECTOR] = args.detector  # the children of process_rows read it too
    cv2.setNumThreads(1)
    try:
        folder = args.videos.resolve()  # the children of process_rows run elsewhere
        paths = sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
        if not paths:
            raise InputMissingError(f"There is no clip in {args.videos}.")
        rows, clips = measure(paths, args.soak)
    except EdgeFerError as error:
        print(f"bench_stream: {error}", file=sys.stderr)
        return error.exit_code
    machine = describe_machine()
    if args.json:
        tables = {"clips": clips, "goals": [dataclasses.asdict(row) for row in rows]}
        print(json.dumps({"date": datetime.now(UTC).date().isoformat(), **machine, **tables}))
    else:
        print_tables(rows, clips, machine)
    return 0


def measure(paths: Sequence[Path], soak_frames: int) -> tuple[list[Row], list[dict[str, Any]]]:
    """All goals, and the metrics of each clip."""
    clips = {path: gray_frames(path) for path in paths}
    metrics = []
    with_face: list[ClipMetrics] = []
    without: list[float] = []
    for path, frames in clips.items():
        if path.name.startswith("no_face"):
            ms, results = run(frames)
            without += ms
            false = round(mean(bool(result.faces) for result in results), 3)
            metrics.append({"clip": path.name, "frames": len(frames), **cost(ms), "false": false})
        else:
            clip = follow(frames)
            with_face.append(clip)
            metrics.append({"clip": path.name, "frames": len(frames), **cost(clip.ms), **clip.quality()})
    rows = [
        *stream_rows(with_face),
        four_faces_row(),
        nobody_row(without),
        new_face_row(),
        change_row(),
        *(
            [steady_row(next(frames for path, frames in clips.items() if not path.name.startswith("no_face")))]
            if with_face
            else []
        ),
        *process_rows(
            {path: frames[0].gray.shape for path, frames in clips.items() if not path.name.startswith("no_face")},
            soak_frames,
        ),
    ]
    return rows, metrics


# --- on clips


@dataclass(frozen=True)
class ClipMetrics:
    """One clip with a face: CPU ms a frame of ours and of the reference, and how our boxes overlap with its largest."""

    ms: list[float]
    reference_ms: list[float]
    ious: list[float]

    def quality(self) -> dict[str, float | None]:
        """Cost against the reference, fraction of its faces found, mean overlap of those."""
        found = [iou for iou in self.ious if iou >= FOUND_IOU]
        return {
            "times_less": round(sum(self.reference_ms) / sum(self.ms), 1),
            "found": round(len(found) / len(self.ious), 3) if self.ious else None,
            "iou": round(mean(found), 3) if found else None,
        }


def gray_frames(path: Path) -> list[Frame]:
    """All frames of a clip in memory, without color."""
    with closing(open_source(CameraSettings(source=str(path)))) as source:
        frames = [dataclasses.replace(frame, color=None) for frame in source]
    if not frames:
        raise DataError(f"{path} holds no frame.")
    return frames


def load() -> Recognizer:
    """A recognizer with the detector that is measured."""
    return Recognizer.load(detector=cast(DetectorKind, os.environ[DETECTOR]))


def run(frames: Iterable[Frame], recognizer: Recognizer | None = None) -> tuple[list[float], list[FrameResult]]:
    """CPU milliseconds and result of every frame, on a recognizer that is warm but has not seen the stream."""
    frames = iter(frames)
    recognizer = recognizer or load()
    first = next(frames)
    for count in range(WARM_UP_FRAMES):
        recognizer.recognize(dataclasses.replace(first, stream="warm-up", time_s=count / FPS))
    times_ms, results = [], []
    for frame in itertools.chain([first], frames):
        started = time.process_time_ns()
        result = recognizer.recognize(frame)
        times_ms.append((time.process_time_ns() - started) / 1e6)
        # Only what is looked at later: a minute of images would fill the memory.
        results.append(dataclasses.replace(result, frame=dataclasses.replace(frame, gray=frame.gray[:0])))
    return times_ms, results


def follow(frames: Sequence[Frame]) -> ClipMetrics:
    """A clip with a face, ours beside the reference."""
    ms, results = run(frames)
    folder = Path(cv2.data.haarcascades)  # type: ignore[attr-defined]  # the stubs do not know it
    cascade = cv2.CascadeClassifier(str(folder / "haarcascade_frontalface_default.xml"))
    reference_ms, ious = [], []
    for frame, result in zip(frames, results, strict=True):
        started = time.process_time_ns()
        found = cascade.detectMultiScale(frame.gray, 1.1, 5, minSize=(40, 40))
        reference_ms.append((time.process_time_ns() - started) / 1e6)
        if len(found):
            largest = FaceBox(*(float(side) for side in max(found, key=lambda box: box[2] * box[3])))
            ious.append(max((face.box.iou(largest) for face in result.faces), default=0.0))
    return ClipMetrics(ms, reference_ms, ious)


def cost(ms: Sequence[float]) -> dict[str, float]:
    """Mean, median and 99th percentile, in milliseconds."""
    return {
        "mean_ms": round(mean(ms), 2),
        "median_ms": round(median(ms), 2),
        "p99_ms": round(float(np.percentile(ms, 99)), 2),
    }


def stream_rows(clips: Sequence[ClipMetrics]) -> list[Row]:
    """Cost of a frame, and ours against the reference, over all frames of all clips with a face."""
    if not clips:
        return [Row("one face", "no clip with a face", "", None, "")]
    pooled = ClipMetrics(
        [ms for clip in clips for ms in clip.ms],
        [ms for clip in clips for ms in clip.reference_ms],
        [iou for clip in clips for iou in clip.ious],
    )
    frame_cost, quality = cost(pooled.ms), pooled.quality()
    frames = f"{len(pooled.ms)} frames, {len(clips)} clips"
    in_reference = f"{len(pooled.ious)} frames in which it finds one"
    reference_ms = mean(pooled.reference_ms)
    return [
        at_most("a frame, mean", frame_cost["mean_ms"], 3, "ms", frames),
        at_most("a frame, median", frame_cost["median_ms"], 2, "ms", frames),
        at_most("a frame, p99", frame_cost["p99_ms"], 12, "ms", frames),
        at_least(
            "CPU against whole-frame Haar", quality["times_less"], 20, "times less", f"Haar {reference_ms:.1f} ms"
        ),
        at_least("faces of Haar that are found", percent(quality["found"]), 97, "%", in_reference),
        at_least("mean IoU with them", quality["iou"], 0.75, "", f"IoU >= {FOUND_IOU}"),
    ]


def percent(fraction: float | None) -> float | None:
    return None if fraction is None else round(100 * fraction, 1)


# --- on scenes made of the demo's faces


@dataclass(frozen=True)
class Portrait:
    """A person of the demo holding an expression: gray image, and the face's box in it."""

    image: Image
    face: FaceBox


def portraits() -> dict[Expression, Portrait]:
    """The left person of the demo with each expression, where the face is largest."""
    largest: dict[Expression, Portrait] = {}
    for frame in DemoSource():
        true = frame.truth[0]
        if true.expression is None or (true.expression in largest and largest[true.expression].face.w >= true.box.w):
            continue
        box = true.box
        left, top = max(0, round(box.x - 0.3 * box.w)), max(0, round(box.y - 0.4 * box.h))
        right, bottom = round(box.x + 1.3 * box.w), round(box.y + 1.4 * box.h)
        face = FaceBox(box.x - left, box.y - top, box.w, box.h)
        largest[true.expression] = Portrait(frame.gray[top:bottom, left:right].copy(), face)
    return largest


def backdrop(rng: np.random.Generator) -> Image:
    """A wall with soft light and some structure, uint8 (480, 640)."""
    width, height = CANVAS_WH
    blots = cv2.GaussianBlur(rng.normal(0, 1, (height, width)), (0, 0), 12)
    wall = 110 + 12 * blots / blots.std() + np.linspace(-20, 20, width)
    drawn: Image = np.clip(wall, 0, 255).astype(np.uint8)
    return drawn


def put(canvas: Image, portrait: Portrait, box: FaceBox) -> None:
    """Draw a portrait so that its face fills ``box``; what reaches over the edge is cut."""
    scale = box.w / portrait.face.w
    matrix = np.array([[scale, 0, box.x - scale * portrait.face.x], [0, scale, box.y - scale * portrait.face.y]])
    size_wh = (canvas.shape[1], canvas.shape[0])
    mask = cv2.warpAffine(np.full(portrait.image.shape, 255, np.uint8), matrix, size_wh)
    drawn = cv2.warpAffine(portrait.image, matrix, size_wh, flags=cv2.INTER_AREA)
    np.copyto(canvas, drawn, where=mask > 127)


class Noise:
    """Sensor noise, normal with a given sigma in gray levels, from a few fields that are shifted about: it is quick."""

    def __init__(self, rng: np.random.Generator, sigma: float, shape: tuple[int, int]) -> None:
        self._rng = rng
        self._fields = np.rint(rng.normal(0, sigma, (8, *shape))).astype(np.int16)

    def __call__(self, gray: Image | NDArray[np.floating[Any]]) -> Image:
        field = self._fields[self._rng.integers(len(self._fields))]
        rows, columns = (int(self._rng.integers(side)) for side in gray.shape)
        shifted = np.roll(field, (rows, columns), (0, 1))
        noisy: Image = np.clip(np.rint(gray) + shifted, 0, 255).astype(np.uint8)
        return noisy


def stream(images: Iterable[Image], name: str) -> Iterator[Frame]:
    """Images as frames of a camera with ``FPS``."""
    for seq, gray in enumerate(images):
        yield Frame(gray, seq, seq / FPS, name)


def four_faces_row() -> Row:
    """Four moving faces against one of them, on the same canvas."""

    def scene(people: int) -> Iterator[Image]:
        rng = np.random.default_rng(1)
        wall, noise, faces = backdrop(rng), Noise(rng, 2, CANVAS_WH[::-1]), list(portraits().values())
        for count in range(10 * FPS):
            canvas = wall.copy()
            for person in range(people):
                turn = 2 * np.pi * (count / (4 * FPS) + person / 4)
                size = 85 + 15 * np.sin(turn / 2)
                x = 160 + 320 * (person % 2) + 25 * np.sin(turn)
                y = 120 + 240 * (person // 2) + 12 * np.cos(turn)
                put(canvas, faces[person], FaceBox(x - size / 2, y - size / 2, size, size))
            yield noise(canvas)

    costs, seen = [], []
    for people in (1, 4):
        ms, results = run(stream(scene(people), str(people)))
        costs.append(mean(ms))
        seen.append(mean(len(result.faces) for result in results))
    note = f"{costs[1]:.2f} / {costs[0]:.2f} ms; {seen[1]:.2f} / {seen[0]:.2f} faces found a frame, N = {10 * FPS}"
    return at_most("four faces against one", round(costs[1] / costs[0], 2), 3, "times", note)


def nobody_row(clip_ms: list[float]) -> Row:
    """Cost while there is no face: the clips without one, and an empty room with sensor noise."""
    rng = np.random.default_rng(2)
    wall, noise = backdrop(rng), Noise(rng, 4, CANVAS_WH[::-1])
    room_ms, _ = run(stream((noise(wall) for _ in range(10 * FPS)), "room"))
    parts = [f"empty room {mean(room_ms):.2f} ms, N = {len(room_ms)}"]
    if clip_ms:
        parts.insert(0, f"clips without a face {mean(clip_ms):.2f} ms, N = {len(clip_ms)}")
    worst = max(mean(room_ms), mean(clip_ms) if clip_ms else 0.0)
    return at_most("nobody there, mean", round(worst, 2), 3, "ms", "; ".join(parts))


def new_face_row() -> Row:
    """A face appears in an empty room: time to the first result that has it; the worst of sizes, places and moments."""
    rng = np.random.default_rng(3)
    wall, noise = backdrop(rng), Noise(rng, 4, CANVAS_WH[::-1])
    portrait = portraits()[Expression.NEUTRAL]
    waits_s = []
    recognizer = load()
    boxes = [
        FaceBox(40, 50, 60, 60),
        FaceBox(520, 300, 60, 60),
        FaceBox(300, 150, 110, 110),
        FaceBox(200, 100, 220, 220),
    ]
    for case, (box, start) in enumerate(itertools.product(boxes, range(30, 45, 2))):
        with_face = wall.copy()
        put(with_face, portrait, box)
        images = (noise(wall if count < start else with_face) for count in range(start + 3 * FPS))
        wait_s = float("inf")
        for frame in stream(images, f"case {case}"):
            faces = recognizer.recognize(frame).faces
            if frame.seq >= start and any(face.box.iou(box) >= FOUND_IOU for face in faces):
                wait_s = (frame.seq - start) / FPS
                break
        waits_s.append(wait_s)
    note = f"median {median(waits_s):.2f} s of {len(waits_s)} cases, faces of 60 to 220 px"
    return at_most("a new face is found, worst", round(max(waits_s), 2), 0.25, "s", note)


def change_row() -> Row:
    """A held expression is cut to another: time until the answer is the other one, worst of all pairs.

    Only expressions that the model is sure of (mean probability of at least ``SURE`` when held) and tells apart: where
    it wavers, there is no moment from which the answer should be another.
    """
    rng = np.random.default_rng(4)
    wall, noise = backdrop(rng), Noise(rng, 2, CANVAS_WH[::-1])
    recognizer = load()
    held: list[tuple[Image, Expression, Expression]] = []
    for expression, portrait in portraits().items():
        canvas = wall.copy()
        put(canvas, portrait, FaceBox(240, 150, 150, 150))
        raws = [
            face.raw.probabilities
            for frame in stream((noise(canvas) for _ in range(15)), f"held {expression}")
            for face in recognizer.recognize(frame).faces
        ]
        for label in raws[0] if raws else ():
            if mean(raw[label] for raw in raws) >= SURE:
                held.append((canvas, label, expression))
    waits_s: list[tuple[float, str]] = []
    cut = 45
    for (before, old, _), (after, new, portrait_of) in itertools.permutations(held, 2):
        if old == new:
            continue
        wait_s = float("inf")
        images = (noise(before if count < cut else after) for count in range(cut + 2 * FPS))
        for frame in stream(images, f"{old} {new}"):
            faces = recognizer.recognize(frame).faces
            if frame.seq >= cut and faces and faces[0].expression == new:
                wait_s = (frame.seq - cut) / FPS
                break
        waits_s.append((wait_s, f"from {old} to {new} on the portrait of {portrait_of}"))
    middle = median(wait_s for wait_s, _ in waits_s)
    note = f"median {middle:.2f} s of {len(waits_s)} changes between expressions that the model is sure of"
    if slow := [f"{which}: {wait_s:.2f} s" for wait_s, which in waits_s if wait_s > CHANGE_S]:
        note += f"; too late {', '.join(slow)}"
    return at_most("a change of expression, worst", round(max(waits_s)[0], 2), CHANGE_S, "s", note)


def steady_row(clip: Sequence[Frame]) -> Row:
    """A minute of one image with noise, exposure, blur and jitter added: how often the answer changes."""
    rng = np.random.default_rng(5)
    stills = {}
    for expression in (Expression.NEUTRAL, Expression.HAPPINESS, Expression.SADNESS):
        stills[f"demo, {expression}"] = backdrop(rng)
        put(stills[f"demo, {expression}"], portraits()[expression], FaceBox(240, 150, 130, 130))
    stills[f"{Path(clip[0].stream).name}, its middle"] = clip[len(clip) // 2].gray
    changes = {}
    for name, gray in stills.items():
        noise = Noise(rng, 4, gray.shape)
        _, results = run(stream((disturbed(gray, noise, rng) for _ in range(60 * FPS)), name))
        shown = [result.faces[0].expression for result in results if result.faces]
        changes[name] = sum(a != b for a, b in itertools.pairwise(shown))
        if len(shown) < len(results) / 2:
            changes[name] = 60 * FPS  # a face that is not there is not steady
    worst = max(changes.values()) / 6
    note = ", ".join(f"{name}: {count} in 60 s" for name, count in changes.items())
    return at_most("label changes in 10 s, worst", round(worst, 2), 1, "", note)


def disturbed(gray: Image, noise: Noise, rng: np.random.Generator) -> Image:
    """The image as a poor camera sees it: exposure +-10 %, a shift of up to 1 px, a little blur, noise of sigma 4."""
    dx, dy = rng.uniform(-1, 1, 2)
    moved = cv2.warpAffine(gray, np.array([[1, 0, dx], [0, 1, dy]]), gray.shape[::-1], borderMode=cv2.BORDER_REPLICATE)
    blurred = cv2.GaussianBlur(moved, (0, 0), rng.uniform(0.3, 1.0))
    return noise(blurred * rng.uniform(0.9, 1.1))


# --- of whole processes

_TO_FIRST_RESULT = """
import os, sys, time
class First:
    buffer = property(lambda self: self)
    encoding = "utf-8"
    def flush(self): pass
    def isatty(self): return False
    def write(self, data):
        sys.stderr.write(str(time.process_time()))
        sys.stderr.flush()
        os._exit(0)
sys.stdout = First()
from edge_fer.cli import main
main(["run", "--camera", sys.argv[1], "--output", "jsonl:-"])
"""
_WHOLE_RUN = """
import sys
from edge_fer.cli import main
code = main(["run", "--camera", sys.argv[1], "--output", "jsonl:" + sys.argv[2]])
(peak,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(int(peak.split()[1]) * 1024 / 1e6, file=sys.stderr)
sys.exit(code)
"""


def process_rows(clips: Mapping[Path, tuple[int, ...]], soak_frames: int) -> list[Row]:
    """Start, memory, and memory over many frames, of processes that hold nothing of this one's images.

    Clips come with their height and width: a decoder keeps several frames, so that larger ones need more memory.
    """
    if not clips:
        return []
    starts_s = [float(child(_TO_FIRST_RESULT, str(next(iter(clips))))) for _ in range(STARTS)]
    with tempfile.TemporaryDirectory() as folder:
        peaks = {clip: float(child(_WHOLE_RUN, str(clip), str(Path(folder) / "events.jsonl"))) for clip in clips}
    up_to_vga = [clip for clip, shape in clips.items() if math.prod(shape) <= math.prod(CANVAS_WH)]
    before_mb, after_mb = map(float, child(f"import bench_stream; bench_stream.soak({soak_frames})").split())
    return [
        at_most("start to first result, CPU", round(median(starts_s), 2), 0.6, "s", f"median of {STARTS} starts"),
        *[
            at_most(
                f"peak RSS of `edge-fer run`, {sizes}",
                round(max(peaks[clip] for clip in group), 1),
                90,
                "MB",
                f"most of {len(group)}: {max(group, key=lambda clip: peaks[clip]).name}",
            )
            for sizes, group in (
                ("up to 640x480", up_to_vga),
                ("larger clips", [clip for clip in clips if clip not in up_to_vga]),
            )
            if group
        ],
        at_most(
            f"RSS growth over {soak_frames:,} frames",
            round(after_mb - before_mb, 2),
            2,
            "MB",
            f"from {before_mb:.1f} MB",
        ),
    ]


def child(script: str, *arguments: str) -> str:
    """Run Python code in a process of its own; what it says last on stderr.

    The code reads its peak memory itself: the kernel counts a forked child's parent into ``ru_maxrss``.
    """
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EdgeFerError(f"A measured process failed: {done.stderr.strip()[-300:]}")
    return done.stderr.strip().splitlines()[-1]


def soak(count: int) -> None:
    """Recognize so many frames of the demo, in a circle, with events; tell RSS in MB after a tenth and at the end."""
    from edge_fer.events import Run
    from edge_fer.sinks import open_sink

    cv2.setNumThreads(1)
    frames = [dataclasses.replace(frame, color=None) for frame in DemoSource()]
    recognizer = load()
    sink = open_sink(f"jsonl:{os.devnull}", Run("bench", fps=FPS, live=False))
    begun_mb = 0.0
    for seq in range(count):
        frame = dataclasses.replace(frames[seq % len(frames)], seq=seq, time_s=seq / FPS)
        sink.write(recognizer.recognize(frame))
        if seq == count // 10:
            begun_mb = rss_mb()
    print(begun_mb, rss_mb(), file=sys.stderr)


def rss_mb() -> float:
    """Memory that this process holds now, in MB of a million bytes."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


# --- tables


def at_most(what: str, value: float | None, limit: float, unit: str, on: str) -> Row:
    return _row(what, value, f"<= {limit:g} {unit}", lambda measured: measured <= limit, unit, on)


def at_least(what: str, value: float | None, limit: float, unit: str, on: str) -> Row:
    return _row(what, value, f">= {limit:g} {unit}", lambda measured: measured >= limit, unit, on)


def _row(what: str, value: float | None, goal: str, test: Callable[[float], bool], unit: str, on: str) -> Row:
    if value is None:
        return Row(what, "not measured", goal.strip(), None, on)
    return Row(what, f"{value:g} {unit}".strip(), goal.strip(), bool(test(value)), on)


def print_tables(rows: Sequence[Row], clips: Sequence[dict[str, Any]], machine: dict[str, Any]) -> None:
    """For people, and for docs/benchmarks.md."""
    console = Console(width=None if sys.stdout.isatty() else 140)
    facts = ", ".join(f"{name} {value}" for name, value in machine.items())
    console.print(f"{datetime.now(UTC).date()}: {facts}; one core, CPU time", highlight=False)
    names = ("clip", "frames", "mean_ms", "median_ms", "p99_ms", "times_less", "found", "iou", "false")
    by_clip = Table(*(name.replace("_", " ") for name in names))
    for clip in clips:
        by_clip.add_row(*(str(clip.get(name, "")) for name in names))
    if clips:
        console.print(by_clip)
    goals = Table("what", "measured", "goal", "", "on")
    for row in rows:
        verdict = {True: "[green]pass", False: "[red]FAIL", None: ""}[row.passed]
        goals.add_row(row.what, row.measured, row.goal, verdict, row.on)
    console.print(goals)


if __name__ == "__main__":
    sys.exit(main())
