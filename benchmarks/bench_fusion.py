"""Offline detectors, alone and fused, on the held-out tenth of photos: ``python benchmarks/bench_fusion.py --help``.

    python benchmarks/bench_fusion.py --labels DIR --by haar ssd mtcnn yunet:Y.onnx --fuse vote mean

Measured as in bench_detectors.py (doubled photos, IoU of 0.4, landmarks in distances of the eyes): the same functions
do it. A line is written as it is known: MTCNN takes most of a second a photo.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import get_args

# So that it finds `datasets`, which is not installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2
from bench_detectors import Timed, on_labels

from datasets import boxes
from datasets.fusion import FusedDetector, Fusion
from datasets.landmarks import DlibShape, Mesh, open_finder
from edge_fer.core import FaceDetector
from edge_fer.errors import EdgeFerError, UsageError


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, required=True, metavar="DIR", help="photos of datasets/boxes.py")
    parser.add_argument("--by", nargs="+", required=True, metavar="FINDER", help="see `python -m datasets.landmarks`")
    parser.add_argument("--fuse", nargs="*", default=[], choices=get_args(Fusion), help="all of them together, too")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take every N-th photo")
    parser.add_argument("--min-face", type=int, default=40, help="smallest face in pixels (default: 40)")
    args = parser.parse_args(arguments)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)
    try:
        rows: dict[str, FaceDetector] = {}
        for text in args.by:
            finder = open_finder(text)
            if isinstance(finder, Mesh | DlibShape):
                raise UsageError(f"--by {text}: it marks a face and finds none; give detectors.")
            kind, _, file = text.partition(":")
            rows[f"{kind} {Path(file).stem}".strip()] = finder
        rows |= {how: FusedDetector(list(rows.values()), how) for how in args.fuse}
        photos = [one for one in boxes.read(args.labels) if boxes.is_held_out(one.name)][:: args.every]
        print(f"{len(photos)} photos\n\n| detector | of the labels | beside | landmarks | ms |\n|---|---|---|---|---|")
        for name, detector in rows.items():
            detect = Timed(detector, args.min_face)
            found, *_, beside, error = on_labels(detect, photos, 0.0, args.min_face, None).row()
            cost = 1000 * detect.cpu_s / max(detect.calls, 1)
            print(f"| {name} | {found} | {beside} | {error} | {cost:.1f} |", flush=True)
    except EdgeFerError as error:
        print(f"bench_fusion: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
