"""Quantize the face detector to full int8, check it against the float one, and make a bundle of it.

    python export/detector.py runs/detector/face-320x240.keras --data DIR -o face-320x240.tflite

``python -m training.detector`` writes the Keras model. DIR holds photos and boxes of faces, see ``datasets/boxes.py``:
what it was trained on gives the ranges of the numbers, the tenth that is held out tells what int8 loses. Exit codes: 0
written, 1 the int8 model is not as good as the float one and is not written, 65 bad data, 66 no such file, 73 cannot
write.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# So that `python export/detector.py` finds the project's packages.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["KERAS_BACKEND"] = "tensorflow"  # what it converts

import cv2
import keras
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from datasets import boxes
from edge_fer.core import FaceBox
from edge_fer.detection.ssd import GRAY, SizedNetwork, suppressed
from edge_fer.errors import DataError, EdgeFerError, InputMissingError
from edge_fer.model.bundle import Bundle
from edge_fer.model.litert import Network
from edge_fer.model.selftest import SelfTest
from edge_fer.model.spec import DetectorSpec, Metadata
from edge_fer.preprocess.face_tensor import face_tensor
from edge_fer.sources.demo import average_faces
from export.convert import to_float, to_int8
from export.flatbuffer import slim

SAME = 0.6
"""Overlap from which a box of int8 and one of float are one."""
COMPARED = 200
"""Held-out photos on which int8 is compared with float."""


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="Keras model of one size of input")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="photos for calibration and metrics")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.tflite")
    parser.add_argument("--calibration", type=int, default=300, metavar="N", help="photos to calibrate on (300)")
    parser.add_argument("--smallest-px", type=float, default=DetectorSpec.smallest_px, metavar="PX")
    parser.add_argument("--min-score", type=float, default=DetectorSpec.min_score)
    parser.add_argument("--min-score-weak", type=float, default=DetectorSpec.min_score_weak)
    parser.add_argument(
        "--min-agreement", type=float, default=95.0, metavar="PERCENT", help="same faces as float demanded (95)"
    )
    args = parser.parse_args(arguments)
    spec = DetectorSpec(args.smallest_px, args.min_score, args.min_score_weak)
    try:
        export(args.model, args.data, args.output, spec, args.calibration, args.min_agreement)
    except EdgeFerError as error:
        print(f"detector: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def export(path: Path, data: Path, output: Path, spec: DetectorSpec, calibration: int, min_agreement: float) -> None:
    """Convert, compare, and write the bundle if it is good enough.

    Args:
        path: of the Keras model.
        data: see ``datasets.boxes.read``.
        output: of the bundle.
        spec: what the metadata says of the detector.
        calibration: photos to calibrate on.
        min_agreement: percent of the faces of float that int8 must find, and the other way round.

    Raises:
        EdgeFerError: something given is not as it should be, or int8 is not good enough.
    """
    spec.check("the command line")
    if calibration < 1:
        raise DataError(f"--calibration must be at least 1, not {calibration}.")
    if math.isnan(min_agreement):
        raise DataError("--min-agreement must be a number: nothing is above or below nan.")
    model = _loaded(path)
    size_hw: tuple[int, int] = model.input_shape[1:3]
    photos = boxes.read(data)
    seen = [photo for photo in photos if not boxes.is_held_out(photo.name)]
    unseen = [photo for photo in photos if boxes.is_held_out(photo.name)][:COMPARED]
    if not seen or not unseen:
        raise DataError(f"{data} has too few photos: some to calibrate on are needed, and some held out.")
    chosen = seen[:: max(1, len(seen) // calibration)][:calibration]
    console = Console(stderr=True)
    made = slim(to_int8(model, np.stack([_on_input(photo.read(), size_hw) for photo in chosen]), console))
    bundle = Bundle.new(
        made,
        Metadata(path.stem, (), detector=spec, kind="detector", facts={"parameters": int(model.count_params())}),
        SelfTest.measured(made, _selftest_image(size_hw)),
    )
    networks = [SizedNetwork(Network(one), path.name) for one in (to_float(model), made)]
    facts = _compared(networks, unseen, size_hw, spec)
    for name, value in facts.items():
        Console().print(f"{name}: {value:g}", highlight=False)
    if not min(facts["found_by_int8_too"], facts["found_by_float_too"]) >= min_agreement / 100:
        raise EdgeFerError(
            f"The int8 model finds other faces than the float one: {facts['found_by_int8_too']:.1%} of its, where "
            f"{min_agreement:g}% are wanted. {output} is not written. Train it longer, or calibrate on more photos."
        )
    metadata = bundle.metadata
    bundle = bundle.with_metadata(facts={**metadata.facts, "int8": {"calibration": len(chosen), **facts}})
    bundle.write(output)
    Console().print(f"Wrote {output}: {output.stat().st_size / 1000:.1f} kB", highlight=False)


def _loaded(path: Path) -> keras.Model:
    if not path.is_file():
        raise InputMissingError(f"There is no file {path}. `make detector` writes the models.")
    try:
        model = keras.models.load_model(path, compile=False)
        shapes = [shape[-1] for shape in model.output_shape]
        usable = shapes == [1, 4, 2 * boxes.POINTS] and None not in model.input_shape and model.input_shape[3] == 1
    except (ValueError, TypeError, OSError, zipfile.BadZipFile):
        usable = False
    if not usable:
        raise DataError(f"{path} is not a Keras model of this detector, for one size of input. Train it again.")
    return model


def _on_input(gray: NDArray[np.uint8], size_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """A photo as the device shows it to the network, uint8 (height, width, 1)."""
    scale = min(1.0, *(size / side for size, side in zip(size_hw, gray.shape, strict=True)))
    height, width = (max(1, round(side * scale)) for side in gray.shape)
    tensor = np.full((*size_hw, 1), GRAY, np.uint8)
    tensor[:height, :width, 0] = cv2.resize(gray, (width, height), interpolation=cv2.INTER_AREA)
    return tensor


def _selftest_image(size_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """Faces of nobody in two sizes, uint8 (1, height, width, 1): a bundle must not carry people.

    The rest is gray, and there are eight levels: the bundle is to be small.
    """
    image = np.full(size_hw, GRAY, np.uint8)
    left = size_hw[0] // 20
    for face, part in zip(average_faces(), (0.3, 0.15), strict=False):
        side = round(part * size_hw[0])
        image[left : left + side, left : left + side] = face_tensor(
            face, FaceBox(0, 0, *face.shape[::-1]), (side, side), margin=0.0
        )[..., 0]
        left += side
    return (image // 32 * 32)[np.newaxis, :, :, np.newaxis]


def _compared(
    networks: Sequence[SizedNetwork], photos: Sequence[boxes.Photo], size_hw: tuple[int, int], spec: DetectorSpec
) -> dict[str, Any]:
    """What int8 finds of what float finds, and the other way round."""
    found = [0, 0]
    counts, shifts = [0, 0], []
    for photo in photos:
        image = _on_input(photo.read(), size_hw)[..., 0]
        rows = [suppressed(*network.run(image, spec.min_score), spec.min_iou)[0] for network in networks]
        for at, (ours, theirs) in enumerate((rows, rows[::-1])):
            counts[at] += len(ours)
            for row in ours:
                overlaps = [_box(row).iou(_box(other)) for other in theirs]
                if overlaps and max(overlaps) >= SAME:
                    found[at] += 1
                    points = theirs[int(np.argmax(overlaps))][4:] - row[4:]
                    shifts.append(np.hypot(points[::2], points[1::2]).mean() / np.sqrt(row[2] * row[3]))
    return {
        "photos": len(photos),
        "faces": counts[0],
        "found_by_int8_too": round(found[0] / max(1, counts[0]), 4),
        "found_by_float_too": round(found[1] / max(1, counts[1]), 4),
        "landmarks_moved": round(float(np.median(shifts)) if shifts else 0.0, 4),
    }


def _box(row: NDArray[np.float32]) -> FaceBox:
    x, y, w, h = (float(value) for value in row[:4])
    return FaceBox(x - w / 2, y - h / 2, w, h)


if __name__ == "__main__":
    sys.exit(main())
