"""What each illumination method costs at 48x48 pixels, and how alike it makes a face in two lights.

    python benchmarks/bench_illumination.py
    python benchmarks/bench_illumination.py --data DIR --every 20

The faces are the demo's average faces with noise, or those of PublicTest. Alike is the correlation between what a
method makes of a face and of the same face in another light, in the mean: 1 where the light does not matter. `none` is
the face as it is. The lights are those of the ablation, `python -m training.ablation`, which says whether it helps.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import get_args

# So that `python benchmarks/bench_illumination.py` finds `evaluation`, which is not installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import datasets
from edge_fer.board import describe_machine
from edge_fer.errors import EdgeFerError
from edge_fer.preprocess.illumination import Illumination, normalized_illumination
from edge_fer.sources.demo import average_faces
from evaluation.corruptions import LIGHTS

TIMES = 200


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="DIR", help="holds fer2013.csv")
    parser.add_argument("--every", type=int, default=20, metavar="N", help="take every N-th face (default: 20)")
    args = parser.parse_args(arguments)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)
    try:
        faces = datasets.load(args.data)["PublicTest"].images[:: args.every] if args.data else demo_faces()
    except EdgeFerError as error:
        print(f"bench_illumination: {error}", file=sys.stderr)
        return error.exit_code
    table = Table("method", "CPU ms", *(f"alike: {name}" for name in LIGHTS))
    lit = {name: light(faces) for name, light in LIGHTS.items()}
    methods: list[tuple[Illumination, ...]] = [(), *((one,) for one in get_args(Illumination))]
    for steps in methods:
        plain = [normalized_illumination(face, steps) for face in faces[..., 0]]
        cells = [
            f"{np.mean([alike(a, normalized_illumination(b, steps)) for a, b in zip(plain, of, strict=True)]):.2f}"
            for of in (images[..., 0] for images in lit.values())
        ]
        table.add_row("+".join(steps) or "none", f"{cost_ms(faces[..., 0], steps):.3f}", *cells)
    console = Console(width=None if sys.stdout.isatty() else 140)
    facts = ", ".join(f"{name} {value}" for name, value in describe_machine().items())
    console.print(f"{datetime.now(UTC).date()}: {facts}; N = {len(faces)}", highlight=False)
    console.print(table)
    return 0


def demo_faces() -> NDArray[np.uint8]:
    """The average faces with noise: uint8 (n, 48, 48, 1)."""
    faces = np.stack(average_faces())
    noise = np.random.default_rng(0).normal(0, 5, faces.shape)
    return np.clip(np.rint(faces + noise), 0, 255).astype(np.uint8)[..., np.newaxis]


def alike(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Correlation of two images; 0 where one is flat."""
    a, b = (image - image.mean() for image in (one, other))
    length = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / length if length else 0.0


def cost_ms(faces: NDArray[np.uint8], steps: tuple[Illumination, ...]) -> float:
    """Median CPU time of one face."""
    times = []
    for number in range(TIMES):
        face = faces[number % len(faces)]
        started = time.process_time_ns()
        normalized_illumination(face, steps)
        times.append((time.process_time_ns() - started) / 1e6)
    return median(times)


if __name__ == "__main__":
    sys.exit(main())
