"""What the detectors find on photos and clips, and what they cost: ``python benchmarks/bench_detectors.py --help``.

Recall and false boxes on photos with known faces: a face is found where a box overlaps it with IoU >= 0.4; every box
that overlaps none is false. Faces marked "ignore" count neither way. Photos are doubled, as their faces are small.
With ``--labels`` the held-out tenth of photos in any layout of ``datasets/boxes.py`` is taken, doubled too, and turned
by ``--turn`` degrees: all of its labels, those that are as large as ``--min-face``, and these by yaw, which the labeled
landmarks tell. Labels that are other detectors' boxes make extras of faces that those missed: look at
them (``--extras DIR`` writes crops). The landmarks' error is the mean distance of the five points in distances of the
eyes, its median over the faces found; faces with eyes nearer than 8 pixels do not count.
The hit rate on a clip is the fraction of its frames with at least one box, each frame searched whole and on its own.
CPU time is that of one core, over the frames of all clips (or the photos, where there are no clips).
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

# So that `python benchmarks/bench_detectors.py` finds `datasets`, which is not installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from datasets import boxes
from edge_fer.config import CameraSettings, DetectorSettings
from edge_fer.core import Detection, FaceBox, FaceDetector, Image, Landmarks
from edge_fer.detection import open_detector
from edge_fer.errors import EdgeFerError
from edge_fer.preprocess.pose import pose_of
from edge_fer.sources import open_source

MIN_IOU = 0.4
SQUARE = 1.1
"""Side of the square that detectors report, in geometric means of the sides of YuNet's box (``yunet.py``)."""
YAWS_DEG = (0, 15, 30, 45, 60, 91)
"""Limits between which faces are counted by how far they are turned."""
VIDEO_SUFFIXES = {".mp4", ".mov", ".mkv", ".avi"}


class Timed:
    """A detector that adds up the CPU time of its calls, in seconds."""

    def __init__(self, detector: FaceDetector, min_px: float) -> None:
        self._detector, self._min_px = detector, min_px
        self.cpu_s = 0.0
        self.calls = 0

    def __call__(self, gray: Image) -> list[Detection]:
        since = time.process_time()
        found = self._detector.detect(gray, self._min_px)
        self.cpu_s += time.process_time() - since
        self.calls += 1
        return found

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
        found = [one.box for one in detect(gray)]
        hits += sum(any(box.iou(face) >= MIN_IOU for box in found) for face in faces)
        total += len(faces)
        false += sum(all(box.iou(face) < MIN_IOU for face in faces + ignored) for box in found)
    return hits, total, false


@dataclass
class OnLabels:
    """What a detector makes of labels.

    Attributes:
        found: for each face, that it is.
        large: for each, that it is as large as was asked for.
        yaw_deg: of each, by its labeled landmarks, to either side; NaN where they tell none.
        beside: boxes beside all labels.
        errors: of the landmarks, of each face that has been found and has them, in distances of the eyes.
    """

    found: list[bool] = field(default_factory=list)
    large: list[bool] = field(default_factory=list)
    yaw_deg: list[float] = field(default_factory=list)
    beside: int = 0
    errors: list[float] = field(default_factory=list)

    def row(self) -> list[str]:
        """Of all labels, of those that are large, of these by yaw; beside; the landmarks' median error."""
        found, large, yaw_deg = np.array(self.found), np.array(self.large), np.array(self.yaw_deg)
        parts = [np.ones(len(found), np.bool_), large]
        parts += [large & (yaw_deg >= low) & (yaw_deg < high) for low, high in itertools.pairwise(YAWS_DEG)]
        shares = [f"{found[part].mean() if part.any() else np.nan:.3f} of {part.sum()}" for part in parts]
        return [*shares, str(self.beside), f"{np.median(self.errors) if self.errors else np.nan:.3f}"]


def yaw_of(points: NDArray[np.float64]) -> float:
    """Degrees that a face is turned to either side, by five points (5, 2); NaN where they tell none."""
    eye, other, nose, *mouth = ((float(x), float(y)) for x, y in points)
    pose = pose_of(Landmarks(eye, other, nose, (mouth[0], mouth[1])))
    return math.nan if pose is None else abs(pose.yaw_deg)


def on_labels(
    detect: Timed, photos: Sequence[boxes.Photo], turn_deg: float, min_px: float, extras: Path | None
) -> OnLabels:
    """What a detector makes of the labels of photos that are doubled and turned."""
    made = OnLabels()
    for number, photo in enumerate(photos):
        large = cv2.resize(photo.read(), None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
        middle = (large.shape[1] / 2, large.shape[0] / 2)
        turn = cv2.getRotationMatrix2D(middle, turn_deg, 1.0)
        gray = cv2.warpAffine(large, turn, large.shape[::-1], borderValue=128.0).astype(np.uint8, copy=False)
        found = detect(gray)
        centers = (2 * (photo.boxes[:, :2] + photo.boxes[:, 2:] / 2)) @ turn[:, :2].T + turn[:, 2]
        sides = 2 * SQUARE * np.sqrt(photo.boxes[:, 2:].prod(axis=1))
        points = (2 * photo.points) @ turn[:, :2].T + turn[:, 2]
        known = [
            FaceBox(float(x - side / 2), float(y - side / 2), float(side), float(side))
            for (x, y), side in zip(centers, sides, strict=True)
        ]
        there = ((centers >= 0) & (centers < gray.shape[::-1])).all(axis=1) & (photo.kinds == boxes.FACE)
        for face, marks in ((known[at], points[at]) for at in np.flatnonzero(there)):
            best = max(found, key=lambda one: one.box.iou(face), default=None)
            made.found.append(best is not None and best.box.iou(face) >= MIN_IOU)
            made.large.append(face.w >= min_px)
            made.yaw_deg.append(yaw_of(marks))
            if best is None or not made.found[-1]:
                continue
            apart = np.linalg.norm(marks[0] - marks[1])
            if best.landmarks is not None and len(best.landmarks.mouth) == 2 and apart >= 8:
                mine = best.landmarks
                ours = np.array([mine.right_eye, mine.left_eye, mine.nose, *mine.mouth])
                made.errors.append(np.linalg.norm(ours - marks, axis=1).mean() / apart)
        for one in found:
            if all(one.box.iou(face) < MIN_IOU / 2 for face in known):
                made.beside += 1
                crop = one.box.clipped(gray.shape)
                if extras is not None and min(crop.w, crop.h) >= 1:
                    rows, columns = slice(int(crop.y), int(crop.y + crop.h)), slice(int(crop.x), int(crop.x + crop.w))
                    cv2.imwrite(str(extras / f"{one.score or 0:.2f}_{number}_{made.beside}.png"), gray[rows, columns])
    return made


def on_clip(detect: Timed, path: Path, every: int) -> float:
    """Fraction of the frames with a box."""
    source = open_source(CameraSettings(source=str(path)))
    hits = [bool(detect(frame.gray)) for frame in source if frame.seq % every == 0]
    source.close()
    return sum(hits) / len(hits)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="folder of images and boxes.json")
    parser.add_argument("--labels", type=Path, help="photos with boxes, of which the held-out tenth is taken")
    parser.add_argument("--turn", type=float, default=0.0, help="degrees by which those are turned (0)")
    parser.add_argument("--extras", type=Path, help="folder for what is found beside the labels")
    parser.add_argument("--videos", type=Path, help="folder of clips")
    parser.add_argument("--every", type=int, default=5, help="take every so-manieth frame of a clip (default: 5)")
    parser.add_argument("--min-face", type=int, default=40, help="smallest face in pixels (default: 40)")
    parser.add_argument("--cascade", nargs="*", default=[], help="more cascades to try (.xml)")
    parser.add_argument("--blazeface", nargs="*", default=[], help="BlazeFace models (.tflite)")
    parser.add_argument("--yunet", nargs="*", default=[], help="YuNet models (.onnx)")
    args = parser.parse_args()
    if not args.photos and not args.videos and not args.labels:
        parser.error("give --photos, --labels or --videos")
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)

    folder = Path(cv2.data.haarcascades)  # type: ignore[attr-defined]  # the stubs do not know it
    alt2 = str(folder / "haarcascade_frontalface_alt2.xml")
    settings = [DetectorSettings(kind="haar"), DetectorSettings(kind="haar", model=alt2)]
    settings += [DetectorSettings(kind="haar", model=path) for path in args.cascade]
    settings += [DetectorSettings(kind="ssd")]
    settings += [DetectorSettings(kind="blazeface", model=path) for path in args.blazeface]
    settings += [DetectorSettings(kind="yunet", model=path) for path in args.yunet]
    clips = sorted(path for path in args.videos.iterdir() if path.suffix in VIDEO_SUFFIXES) if args.videos else []
    columns = ["recall", "false"] if args.photos else []
    labeled = [photo for photo in boxes.read(args.labels) if boxes.is_held_out(photo.name)] if args.labels else []
    if labeled:
        turned = [f"yaw {low} to {high}" for low, high in itertools.pairwise(YAWS_DEG)]
        columns += ["of all labels", f"from {args.min_face} px", *turned, "beside", "landmarks"]
    table = Table("detector", *columns, *(clip.stem for clip in clips), "ms a frame")
    for one in settings:
        detect = Timed(open_detector(one), args.min_face)
        row = [Path(one.model).stem.removeprefix("haarcascade_frontalface_") or one.kind]
        if args.photos:
            hits, total, false = on_photos(detect, args.photos)
            row += [f"{hits / total:.2f} of {total}", str(false)]
        if labeled:
            extras = args.extras / row[0] if args.extras else None
            if extras is not None:
                extras.mkdir(parents=True, exist_ok=True)
            row += on_labels(detect, labeled, args.turn, args.min_face, extras).row()
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
