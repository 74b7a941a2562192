"""Would it pay to turn faces upright by their eyes before they are classified? A table for docs/adr/0005.

    python benchmarks/bench_alignment.py --data DIR
    python benchmarks/bench_alignment.py --data DIR --model runs/turned.tflite --yunet face_detection_yunet_2023mar.onnx

Faces of PublicTest, enlarged to 120 pixels as in a frame and tilted to either side. For each tilt: how many of them the
Haar cascade still finds, the model's accuracy as they are, and after turning them back by their eyes (as metadata with
alignment = "eyes" has it done; faces without a pair stay as they are), by the eyes that YuNet marks, and by the tilt
itself, which is the best that any eyes could do.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

# So that `python benchmarks/bench_alignment.py` finds `evaluation`, which is not installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

import datasets
from datasets.core import truth_for
from datasets.fer2013 import FERPLUS_LABELS
from edge_fer.board import describe_machine
from edge_fer.core import Detection, FaceBox, Image
from edge_fer.detection.cascade import CascadeDetector
from edge_fer.errors import EdgeFerError
from edge_fer.model.bundle import DEFAULT_MODEL, load_bundle
from edge_fer.model.classifier import TfliteClassifier
from edge_fer.model.spec import Head
from edge_fer.preprocess import Preprocessor
from edge_fer.preprocess.alignment import AS_FOUND, EyeFinder
from evaluation.metrics import evaluate_logits

TILTS_DEG = (0, 5, 10, 15, 20, 30)
FACE_PX = 120
SCENE_PX = 2 * FACE_PX
FACE = FaceBox(FACE_PX / 2, FACE_PX / 2, FACE_PX, FACE_PX)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="holds fer2013.csv and fer2013new.csv")
    parser.add_argument("--every", type=int, default=3, metavar="N", help="take every N-th face (default: 3)")
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL, metavar="TFLITE", help="default: the shipped one")
    parser.add_argument("--yunet", type=Path, metavar="ONNX", help="turn by its points too")
    args = parser.parse_args(arguments)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)
    try:
        data = datasets.load(args.data)["PublicTest"]
        measure(
            data[np.flatnonzero(truth_for(data, Head("ferplus", FERPLUS_LABELS)) >= 0)][:: args.every],
            args.model,
            args.yunet,
        )
    except EdgeFerError as error:
        print(f"bench_alignment: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def measure(data: datasets.Dataset, model: Path, yunet: Path | None) -> None:
    """Print the table."""
    bundle = load_bundle(model)
    classifier, detector = TfliteClassifier(bundle), CascadeDetector()
    eyes = EyeFinder()
    preprocessor = Preprocessor(bundle.metadata.preprocess, classifier.size_hw)
    points = YuNetTilt(yunet) if yunet else None
    head = classifier.heads[0].name

    def logits(scene: Image) -> np.ndarray:
        return classifier.logits(preprocessor(scene, Detection(FACE), AS_FOUND))

    def accuracy(rows: list[np.ndarray]) -> str:
        return f"{evaluate_logits(np.stack(rows), data, classifier.heads)[head]['accuracy']:.1%}"

    table = Table(
        "tilt", "found by Haar", "accuracy", "eyes found", "off by", "turned by eyes", "by YuNet (found)", "by truth"
    )
    eyes_ms, points_ms, network_ms = [], [], []
    for tilt in TILTS_DEG:
        found, errors = 0, []
        marked = 0
        plain, by_eyes, by_points, by_truth = [], [], [], []
        for number, image in enumerate(data.images[..., 0]):
            true = tilt if number % 2 else -tilt
            scene = turned(enlarged(image), true)
            found += any(one.box.iou(FACE) >= 0.4 for one in detector.detect(scene, FACE_PX / 2))
            started = time.process_time_ns()
            angle = eyes.tilt_deg(scene, FACE)
            eyes_ms.append((time.process_time_ns() - started) / 1e6)
            started = time.process_time_ns()
            plain.append(logits(scene))
            network_ms.append((time.process_time_ns() - started) / 1e6)
            if points:
                started = time.process_time_ns()
                marks = points(scene)
                points_ms.append((time.process_time_ns() - started) / 1e6)
                marked += marks is not None
                by_points.append(plain[-1] if marks is None else logits(turned(scene, -marks)))
            by_truth.append(logits(turned(scene, -true)))
            if angle == 0:
                by_eyes.append(plain[-1])
            else:
                errors.append(abs(angle - true))
                by_eyes.append(logits(turned(scene, -angle)))
        table.add_row(
            f"{tilt}°",
            f"{found / len(data):.1%}",
            accuracy(plain),
            f"{len(errors) / len(data):.1%}",
            f"{median(errors):.1f}°" if errors else "",
            accuracy(by_eyes),
            f"{accuracy(by_points)} ({marked / len(data):.1%})" if points else "",
            accuracy(by_truth),
        )
    console = Console(width=None if sys.stdout.isatty() else 140)
    facts = ", ".join(f"{name} {value}" for name, value in describe_machine().items())
    console.print(f"{datetime.now(UTC).date()}: {facts}", highlight=False)
    costs = f"finding eyes {median(eyes_ms):.2f} ms CPU a face, cutting out and classifying {median(network_ms):.2f} ms"
    if points:
        costs += f", YuNet {median(points_ms):.2f} ms"
    name = f"{bundle.metadata.name} {bundle.metadata.model_sha256[:12]}, {head}"
    console.print(f"{name}; N = {len(data)} of PublicTest; {costs}", highlight=False)
    console.print(table)


class YuNetTilt:
    """Tilt of the face in a scene by the eyes that YuNet marks, in degrees, clockwise as seen; None without a face."""

    def __init__(self, model: Path) -> None:
        self._net = cv2.FaceDetectorYN.create(str(model), "", (SCENE_PX, SCENE_PX), 0.6)

    def __call__(self, scene: Image) -> float | None:
        _, found = self._net.detect(cv2.cvtColor(scene, cv2.COLOR_GRAY2BGR))
        if found is None:
            return None
        _, _, _, _, right_x, right_y, left_x, left_y, *_ = max(found.tolist(), key=lambda face: face[-1])
        return math.degrees(math.atan2(left_y - right_y, left_x - right_x))


def enlarged(image: Image) -> Image:
    """A face in the middle of an image, its edges drawn out: uint8 (SCENE_PX, SCENE_PX)."""
    rim = image.shape[0] // 2
    padded = cv2.copyMakeBorder(image, rim, rim, rim, rim, cv2.BORDER_REPLICATE)
    return cv2.resize(padded, (SCENE_PX, SCENE_PX), interpolation=cv2.INTER_CUBIC).astype(np.uint8, copy=False)


def turned(scene: Image, angle_deg: float) -> Image:
    """The image turned about its middle, clockwise as seen."""
    if angle_deg == 0:
        return scene
    matrix = cv2.getRotationMatrix2D((SCENE_PX / 2 - 0.5, SCENE_PX / 2 - 0.5), -angle_deg, 1.0)
    size_wh = (SCENE_PX, SCENE_PX)
    return cv2.warpAffine(scene, matrix, size_wh, borderMode=cv2.BORDER_REPLICATE).astype(np.uint8, copy=False)


if __name__ == "__main__":
    sys.exit(main())
