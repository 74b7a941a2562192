"""Make the faces of ``edge-fer run --camera demo``: the average face of each expression.

    python -m training.average_faces --data ~/fer2013 -o edge_fer/data/average_faces.png

The mean of many faces is nobody's face, so it can be shown and shipped where a photo of a person could not. The strip
is one gray PNG, faces of 48x48 from left to right in the order of ``edge_fer.sources.demo.EXPRESSIONS``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

import datasets
from datasets import Dataset
from datasets.fer2013 import FERPLUS_LABELS
from edge_fer.core import Expression, Image
from edge_fer.errors import DataError, EdgeFerError, OutputError
from edge_fer.sources.demo import EXPRESSIONS

VOTES = 8
"""How many of the ten raters must agree on an image."""
VOTES_RARE = 6
"""... for disgust and fear, on which eight agree a dozen and a few dozen times in all."""
RARE = (Expression.DISGUST, Expression.FEAR)
TYPICAL = 24
"""Images in a mean: those most like the mean of all. A mean of thousands loses the wrinkles that tell sadness from a
smile, and the gaping mouths of a few make it worse."""
ROUNDS = 2
"""The second time the most typical are those most like the mean of the first ones: clearer than the mean of all."""
MIDDLE_PX = 14.0
"""Sigma of the weight of a pixel in the similarity: eyes and mouth count, hair and backdrop hardly."""
SAME = 0.9
"""Correlation above which two images are taken for the same photo: FER2013 has many twice. A mean in which one photo
stood several times would be a picture of that person."""


def chosen_samples(data: Dataset, expression: Expression) -> NDArray[np.bool_]:
    """The images on which most raters agree that they show ``expression``: bool (n,)."""
    votes = VOTES_RARE if expression in RARE else VOTES
    ferplus = data.labels.get("ferplus")
    if ferplus is None or ferplus.votes is None:
        return np.zeros(len(data), np.bool_)
    return ferplus.votes[:, FERPLUS_LABELS.index(expression)] >= votes


def average_face(images: NDArray[np.uint8]) -> Image:
    """The mean of the most typical of some faces and their mirror images.

    Each image counts with the same contrast, however dark or flat it is. All means are brought to the same amount of
    fine detail.

    Args:
        images: uint8 (n, 48, 48, 1), n >= 1.

    Returns:
        uint8 (48, 48), symmetric, mean about 128.
    """
    faces = images[..., 0].astype(np.float64)
    mean = _most_typical(np.stack([_standardized(face) for face in faces])).mean(axis=0)
    mean = _standardized((mean + mean[:, ::-1]) / 2)
    soft = cv2.GaussianBlur(mean, (0, 0), 2.0)
    detail = mean - soft
    mean = _standardized(soft + 0.6 * detail / max(detail.std(), 1e-6))
    return np.clip(np.rint(128 + 46 * mean), 0, 255).astype(np.uint8)


def _most_typical(faces: NDArray[np.float64]) -> NDArray[np.float64]:
    """The ``TYPICAL`` different faces that are most like each other and each other's mirror images."""
    profile = cv2.getGaussianKernel(faces.shape[1], MIDDLE_PX)
    weight = profile @ profile.T
    chosen = faces
    for _ in range(ROUNDS):
        mean = chosen.mean(axis=0)
        # Rounding keeps the order the same on every machine.
        similarity = np.tensordot(faces, weight / weight.mean() * (mean + mean[:, ::-1]), axes=2).round(6)
        chosen = _different(faces[np.argsort(-similarity, kind="stable")])
    return chosen


def _different(faces: NDArray[np.float64]) -> NDArray[np.float64]:
    """The first ``TYPICAL`` faces of which no two are the same photo."""
    chosen: list[NDArray[np.float64]] = []
    for face in faces:
        both_ways = (face, face[:, ::-1])
        if all(np.mean(side * other) < SAME for other in chosen for side in both_ways):
            chosen.append(face)
        if len(chosen) == TYPICAL:
            break
    return np.stack(chosen)


def _standardized(face: NDArray[np.float64]) -> NDArray[np.float64]:
    # An image of one gray has no contrast to normalize: it adds nothing.
    standardized: NDArray[np.float64] = (face - face.mean()) / max(face.std(), 1e-6)
    return standardized


def main(arguments: list[str] | None = None) -> int:
    """Write the strip; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training.average_faces", description="Make the average faces of the demo."
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with FER2013 and FER+")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="PNG", help="the strip to write")
    args = parser.parse_args(arguments)
    try:
        make_strip(args.data, args.out, Console())
    except EdgeFerError as error:
        print(f"average_faces: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def make_strip(folder: Path, out: Path, console: Console) -> None:
    """Average the Training faces of a data set and write the strip of seven.

    Raises:
        InputMissingError: there is no data set in the folder.
        DataError: it cannot be read, or no raters agree on an expression.
        OutputError: the strip cannot be written.
    """
    faces, counts = [], {}
    with Progress(console=console, transient=True) as progress:
        reading = progress.add_task("reading", total=None)
        data = datasets.load(folder)["Training"]
        progress.update(reading, total=1, completed=1)
        for expression in progress.track(EXPRESSIONS, description="averaging"):
            chosen = chosen_samples(data, expression)
            counts[expression] = int(chosen.sum())
            if not counts[expression]:
                raise DataError(
                    f"{folder} has no image on which the raters agree that it shows {expression}: "
                    "put FER+'s fer2013new.csv beside fer2013.csv."
                )
            faces.append(average_face(data.images[chosen]))
    done, png = cv2.imencode(".png", np.hstack(faces), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    assert done
    try:
        out.write_bytes(png.tobytes())
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror}.") from None
    for expression, count in counts.items():
        console.print(f"{expression:<10}{count:>6} images")
    console.print(f"{out}: {out.stat().st_size} bytes", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
