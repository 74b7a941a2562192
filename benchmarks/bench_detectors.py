"""What the detectors find on photos and clips, and what they cost: ``python benchmarks/bench_detectors.py --help``.

Recall and false boxes on photos with known faces: a face is found where a box overlaps it with IoU >= 0.4; every box
that overlaps none is false. Faces marked "ignore" count neither way. Photos are doubled, as their faces are small.
The hit rate on a clip is the fraction of its frames with at least one box, each frame searched whole and on its own.
CPU time is that of one core, over the frames of all clips (or the photos, where there are no clips).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from edge_fer.config import CameraSettings, DetectorSettings
from edge_fer.core import FaceBox, FaceDetector, Image
from edge_fer.detection import open_detector
from edge_fer.errors import EdgeFerError
from edge_fer.sources import open_source

MIN_IOU = 0.4
VIDEO_SUFFIXES = {".mp4", ".mov", ".mkv", ".avi"}


class Timed:
    """A detector that adds up the CPU time of its calls, in seconds."""

    def __init__(self, detector: FaceDetector, min_px: float) -> None:
        self._detector, self._min_px = detector, min_px
        self.cpu_s = 0.0
        self.calls = 0

    def __call__(self, gray: Image) -> list[FaceBox]:
        since = time.process_time()
        boxes = [one.box for one in self._detector.detect(gray, self._min_px)]
        self.cpu_s += time.process_time() - since
        self.calls += 1
        return boxes

    def restart(self) -> None:
        self.cpu_s, self.calls = 0.0, 0


def photos_with_faces(folder: Path) -> Iterator[tuple[Image, list[FaceBox], list[FaceBox]]]:
    """Doubled photos, with the faces to find and those to ignore."""
    table = json.loads((folder / "boxes.json").read_text(encoding="utf-8"))
    for name, rows in table["images"].items():
        gray = cv2.imread(str(folder / name), cv2.IMREAD_GRAYSCALE)
        if gray is None:
            raise SystemExit(f"{folder / name} cannot be read.")
        doubled = cv2.resize(gray, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)
        faces: tuple[list[FaceBox], list[FaceBox]] = ([], [])
        for left, top, width, height, ignore in rows:
            faces[ignore].append(FaceBox(2 * left, 2 * top, 2 * width, 2 * height))
        yield doubled, *faces


def on_photos(detect: Timed, folder: Path) -> tuple[int, int, int]:
    """Faces found, faces there, false boxes."""
    hits = total = false = 0
    for gray, faces, ignored in photos_with_faces(folder):
        boxes = detect(gray)
        hits += sum(any(box.iou(face) >= MIN_IOU for box in boxes) for face in faces)
        total += len(faces)
        false += sum(all(box.iou(face) < MIN_IOU for face in faces + ignored) for box in boxes)
    return hits, total, false


def on_clip(detect: Timed, path: Path, every: int) -> float:
    """Fraction of the frames with a box."""
    source = open_source(CameraSettings(source=str(path)))
    hits = [bool(detect(frame.gray)) for frame in source if frame.seq % every == 0]
    source.close()
    return sum(hits) / len(hits)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="folder of images and boxes.json")
    parser.add_argument("--videos", type=Path, help="folder of clips")
    parser.add_argument("--every", type=int, default=5, help="take every so-manieth frame of a clip (default: 5)")
    parser.add_argument("--min-face", type=int, default=40, help="smallest face in pixels (default: 40)")
    parser.add_argument("--cascade", nargs="*", default=[], help="more cascades to try (.xml)")
    parser.add_argument("--blazeface", nargs="*", default=[], help="BlazeFace models (.tflite)")
    parser.add_argument("--yunet", nargs="*", default=[], help="YuNet models (.onnx)")
    args = parser.parse_args()
    if not args.photos and not args.videos:
        parser.error("give --photos, --videos or both")
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)

    alt2 = str(Path(cv2.data.haarcascades) / "haarcascade_frontalface_alt2.xml")
    settings = [DetectorSettings(kind="haar"), DetectorSettings(kind="haar", model=alt2)]
    settings += [DetectorSettings(kind="haar", model=path) for path in args.cascade]
    settings += [DetectorSettings(kind="blazeface", model=path) for path in args.blazeface]
    settings += [DetectorSettings(kind="yunet", model=path) for path in args.yunet]
    clips = sorted(path for path in args.videos.iterdir() if path.suffix in VIDEO_SUFFIXES) if args.videos else []
    columns = ["recall", "false"] if args.photos else []
    table = Table("detector", *columns, *(clip.stem for clip in clips), "ms a frame")
    for one in settings:
        detect = Timed(open_detector(one), args.min_face)
        row = [Path(one.model).stem.removeprefix("haarcascade_frontalface_") or "haar default"]
        if args.photos:
            hits, total, false = on_photos(detect, args.photos)
            row += [f"{hits / total:.2f} of {total}", str(false)]
        if clips:
            detect.restart()
        row += [f"{on_clip(detect, clip, args.every):.2f}" for clip in clips]
        table.add_row(*row, f"{1000 * detect.cpu_s / detect.calls:.1f}")
    Console(width=None if sys.stdout.isatty() else 140).print(table)


if __name__ == "__main__":
    try:
        main()
    except EdgeFerError as error:
        raise SystemExit(str(error)) from None
