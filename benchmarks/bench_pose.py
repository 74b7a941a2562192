"""Turned heads: what they cost in accuracy, whether the gate marks them, and whether frontalization helps.

    python benchmarks/bench_pose.py --data DIR --landmarks NPZ --yunet face_detection_yunet_2023mar.onnx

Faces of PublicTest that look ahead (by their landmarks, of `python -m datasets.landmarks`) are turned by the generic
head of datasets/frontalization.py. For each yaw: the model's accuracy as they are; how many are `turned` by the crop
alone and by YuNet's landmarks; the accuracy of those that the crop does not mark; and after frontalization, by the
landmarks that the head really has and by YuNet's (as they are where it finds none). The last row is of all faces of
PublicTest as they are, turned or not.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

# So that `python benchmarks/bench_pose.py` finds `evaluation`, which is not installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

import datasets
from datasets.core import truth_for
from datasets.frontalization import frontalized, landmarks_of_turned, turned
from datasets.landmarks_file import CropLandmarks, marks_of
from edge_fer.board import describe_machine
from edge_fer.core import Image, Landmarks
from edge_fer.errors import EdgeFerError
from edge_fer.model.bundle import load_bundle
from edge_fer.model.classifier import TfliteClassifier
from edge_fer.preprocess.pose import Pose, pose_of, turn_of_crop
from edge_fer.preprocess.quality import turn_of
from edge_fer.temporal.smoothing import Smoothing

YAWS_DEG = (0, 10, 20, 30, 40, 50, 60)
AHEAD = 0.05
"""``turn_of`` of a face that looks ahead."""
Figures = dict[str, list[float]]


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="holds fer2013.csv and fer2013new.csv")
    parser.add_argument(
        "--landmarks", type=Path, required=True, metavar="NPZ", help="of `python -m datasets.landmarks`"
    )
    parser.add_argument("--yunet", type=Path, required=True, metavar="ONNX")
    parser.add_argument("--model", default="nano", metavar="NAME", help="a model of the package, or a bundle's file")
    parser.add_argument("--every", type=int, default=2, metavar="N", help="take every N-th face (default: 2)")
    args = parser.parse_args(arguments)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)
    try:
        splits = datasets.load(args.data, "also_in_privatetest.csv")
        points = CropLandmarks.read(args.landmarks).of(splits["PublicTest"].images, "PublicTest")
        classifier = TfliteClassifier(load_bundle(args.model), decision="as-trained")
        console = Console(width=None if sys.stdout.isatty() else 150)
        console.print(_measured(splits["PublicTest"], points, classifier, Marks(args.yunet), args.every, console))
    except EdgeFerError as error:
        print(f"bench_pose: {error}", file=sys.stderr)
        return error.exit_code
    return 0


class Marks:
    """YuNet's landmarks of a crop, by the crop alone."""

    def __init__(self, model: Path) -> None:
        self._net = cv2.FaceDetectorYN.create(str(model), "", (240, 240), 0.6)

    def __call__(self, crop: Image) -> Landmarks | None:
        rim = crop.shape[0] // 2
        scene = cv2.copyMakeBorder(crop, rim, rim, rim, rim, cv2.BORDER_REPLICATE)
        scene = cv2.resize(scene, (240, 240), interpolation=cv2.INTER_CUBIC)
        _, found = self._net.detect(cv2.cvtColor(scene, cv2.COLOR_GRAY2BGR))
        if found is None:
            return None
        best = max(found.tolist(), key=lambda face: face[-1])
        points = np.array(best[4:14], np.float32) * (2 * crop.shape[0] / 240) - rim
        return marks_of(points)


def _measured(
    data: datasets.Dataset,
    points: NDArray[np.float32],
    classifier: TfliteClassifier,
    marks: Marks,
    every: int,
    console: Console,
) -> Table:
    head, limit = classifier.heads[0], Smoothing().max_turn
    truth = truth_for(data, head)
    landmarks = [marks_of(one) for one in points]
    ahead = [k for k, one in enumerate(landmarks) if one and turn_of(one) < AHEAD and truth[k] >= 0][::every]
    table = Table(
        "yaw",
        "N",
        "accuracy",
        "marked by crop",
        "accuracy of the rest",
        "marked by YuNet (found)",
        "yaw by YuNet",
        "frontalized, true",
        "frontalized, YuNet",
    )
    crop_ms, front_ms = [], []

    def right(crop: Image, k: int) -> bool:
        return int(classifier.logits(crop[..., np.newaxis])[: len(head.labels)].argmax()) == int(truth[k])

    for yaw in YAWS_DEG:
        rows: list[tuple[bool, bool, bool, bool, float, bool, bool]] = []
        for number, k in enumerate(track(ahead, f"{yaw} degrees", transient=True, disable=not sys.stderr.isatty())):
            pose = Pose(yaw if number % 2 else -yaw, 0, 0)
            crop = turned(data.images[k, ..., 0], pose) if yaw else data.images[k, ..., 0]
            started = time.process_time_ns()
            turned_away = turn_of_crop(crop[..., np.newaxis]) > limit
            crop_ms.append((time.process_time_ns() - started) / 1e6)
            seen_marks = marks(crop)
            seen = pose_of(seen_marks) if seen_marks else None
            started = time.process_time_ns()
            front = frontalized(crop, landmarks_of_turned(48, pose))
            front_ms.append((time.process_time_ns() - started) / 1e6)
            front_seen = frontalized(crop, seen_marks) if seen_marks else None
            as_it_is = right(crop, k)
            rows.append(
                (
                    as_it_is,
                    turned_away,
                    seen_marks is not None,
                    bool(seen_marks and turn_of(seen_marks) > limit),
                    seen.yaw_deg * np.sign(pose.yaw_deg or 1) if seen else np.nan,
                    right(front, k) if front is not None else as_it_is,
                    right(front_seen, k) if front_seen is not None else as_it_is,
                )
            )
        plain, marked, found, by_marks, seen_yaw, true, by_found = (np.array(one) for one in zip(*rows, strict=True))
        table.add_row(
            f"{yaw}°",
            str(len(rows)),
            f"{plain.mean():.1%}",
            f"{marked.mean():.1%}",
            f"{plain[~marked].mean():.1%}" if (~marked).any() else "",
            f"{by_marks[found].mean():.1%} ({found.mean():.1%})" if found.any() else "(0 %)",
            f"{np.nanmedian(seen_yaw):.0f}°" if found.any() else "",
            f"{true.mean():.1%}",
            f"{by_found.mean():.1%}",
        )
    known = np.flatnonzero(truth >= 0)
    crops = data.images[known, ..., 0]
    plain = np.array([right(crop, k) for crop, k in zip(crops, known.tolist(), strict=True)])
    marked = np.array([turn_of_crop(crop[..., np.newaxis]) > limit for crop in crops])
    of = [landmarks[k] for k in known]
    found = np.array([one is not None for one in of])
    by_marks = np.array([bool(one and turn_of(one) > limit) for one in of])
    fronts = [frontalized(crop, one) if one else None for crop, one in zip(crops, of, strict=True)]
    by_found = np.array(
        [right(one, k) if one is not None else p for one, k, p in zip(fronts, known.tolist(), plain, strict=True)]
    )
    table.add_row(
        "all",
        str(len(known)),
        f"{plain.mean():.1%}",
        f"{marked.mean():.1%}",
        f"{plain[~marked].mean():.1%}",
        f"{by_marks[found].mean():.1%} ({found.mean():.1%})",
        "",
        "",
        f"{by_found.mean():.1%}",
    )
    facts = ", ".join(f"{name} {value}" for name, value in describe_machine().items())
    metadata = classifier.bundle.metadata
    console.print(f"{datetime.now(UTC).date()}: {facts}", highlight=False)
    console.print(
        f"{metadata.name} {metadata.model_sha256[:12]}, {head.name}; of all that the crop marks, "
        f"{plain[marked].mean():.1%} are right; turn_of_crop {median(crop_ms):.3f} ms CPU, frontalized "
        f"{median(front_ms):.2f} ms",
        highlight=False,
    )
    return table


if __name__ == "__main__":
    sys.exit(main())
