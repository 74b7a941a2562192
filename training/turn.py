"""Train what tells from its crop alone whether a face is turned away: edge_fer/data/turn.npz.

    python -m datasets.landmarks --data ~/fer2013 --by yunet:face_detection_yunet_2023mar.onnx -o runs/landmarks.npz
    python -m training.turn --data ~/fer2013 --landmarks runs/landmarks.npz -o edge_fer/data/turn.npz

The teacher is where the nose is between the eyes (``core.Quality.turn``), as a detector with landmarks marks them. The
student is a layer of a few units on the reduced crop, minus the same on its mirror image, so that a mirrored face has
the opposite turn, and what is alike on both sides counts for nothing. Its answer is scaled so that the default limit
for landmarks marks two in a hundred of Training's faces that look ahead.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray
from rich.console import Console

import datasets
from datasets.landmarks_file import CropLandmarks, marks_of
from edge_fer.core import FaceBox
from edge_fer.errors import EdgeFerError
from edge_fer.preprocess import pose, quality
from edge_fer.preprocess.face_tensor import face_tensor
from edge_fer.temporal.smoothing import Smoothing
from evaluation.treatments import lit_at_random
from training.ranges import check_seeds

UNITS = 32
VIEWS = 4
"""Of each face: moved, scaled, tilted and lit at random, as detectors and lamps do it."""
EPOCHS = 20
AHEAD_DEG = 15.0
"""A face that is turned by less looks ahead."""
MARKED = 0.02
"""Of the faces that look ahead."""


def signed_turn(points: NDArray[np.float32]) -> NDArray[np.float64]:
    """``core.Quality.turn`` with its sign: positive where the nose is to the right; NaN where there are no landmarks.

    Args:
        points: (n, 10), see ``datasets.landmarks_file``.
    """
    turns = np.full(len(points), np.nan)
    for place, one in enumerate(points):
        landmarks = marks_of(one)
        if landmarks is not None:
            middle = (landmarks.right_eye[0] + landmarks.left_eye[0]) / 2
            turns[place] = np.copysign(quality.turn_of(landmarks), landmarks.nose[0] - middle)
    return turns


def views_of(images: NDArray[np.uint8], seed: int) -> NDArray[np.float32]:
    """What ``pose.turn_of_crop`` sees of each face in one random view: (n, inputs)."""
    chance = np.random.default_rng(seed)
    side = images.shape[1]
    seen = []
    for image in lit_at_random(images, seed):
        scale, x, y = 1 + chance.uniform(-0.12, 0.12), *chance.uniform(-0.08, 0.08, 2)
        width = scale * side
        box = FaceBox((side - width) / 2 + x * side, (side - width) / 2 + y * side, width, width)
        crop = face_tensor(image[..., 0], box, (side, side), 0.0, chance.uniform(-8, 8))
        seen.append(pose.reduced(crop[..., 0]).ravel())
    return np.stack(seen).astype(np.float32)


def train(images: NDArray[np.uint8], turns: NDArray[np.float64], seed: int) -> dict[str, NDArray[np.generic]]:
    """Weights for ``pose.turn_of_crop``.

    Args:
        images: uint8 (n, 48, 48, 1), of faces with landmarks.
        turns: of them, signed.
        seed: of everything.
    """
    keras.utils.set_random_seed(seed)
    degrees = np.degrees(np.arctan(np.clip(turns, -1.5, 1.5) / pose.TURN_OF_45_DEG)).astype(np.float32)
    inputs = np.concatenate([views_of(images, seed + view) for view in range(VIEWS)])
    network = keras.Sequential(
        [keras.Input((pose.SIDE**2,)), layers.Dense(UNITS, "relu"), layers.Dense(1, use_bias=False)]
    )
    seen = keras.Input((pose.SIDE**2,))
    mirrored = layers.Reshape((-1,))(layers.Reshape((pose.SIDE, pose.SIDE))(seen)[:, :, ::-1])
    odd = keras.Model(seen, layers.Subtract()([network(seen), network(mirrored)]))
    schedule = keras.optimizers.schedules.CosineDecay(2e-3, EPOCHS * -(-len(inputs) // 256))
    odd.compile(keras.optimizers.AdamW(schedule, weight_decay=0.1), "huber")
    odd.fit(inputs, np.tile(degrees, VIEWS) / 30, batch_size=256, epochs=EPOCHS, verbose=0)
    kernel, bias, last = (weight.astype(np.float32) for weight in network.get_weights())
    scale = np.abs(kernel).max(axis=0) / 127
    weights = {
        "kernel": np.rint(kernel / scale).astype(np.int8),
        "scale": scale,
        "bias": bias,
        "last": last[:, 0],
    }
    ahead = np.abs(degrees) < AHEAD_DEG
    answers = np.array([pose.turn_of_crop(image, weights=weights) for image in images[ahead]])
    weights["last"] = (last[:, 0] * Smoothing().max_turn / np.quantile(answers, 1 - MARKED)).astype(np.float32)
    return weights


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training.turn", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with FER2013")
    parser.add_argument(
        "--landmarks", type=Path, required=True, metavar="NPZ", help="of `python -m datasets.landmarks`"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="NPZ")
    args = parser.parse_args(arguments)
    console = Console(stderr=True)
    try:
        check_seeds(args.seed)
        splits = datasets.load(args.data, "also_in_privatetest.csv")
        training, test = splits["Training"], splits["PublicTest"]
        marks = CropLandmarks.read(args.landmarks)
        turns, of_test = (
            signed_turn(marks.of(split.images, name)) for name, split in (("Training", training), ("PublicTest", test))
        )
        known = np.isfinite(turns)
        weights = train(training.images[known], turns[known], args.seed)
        np.savez_compressed(args.out, **weights)  # type: ignore[arg-type]  # it has a keyword of its own, which no array is
        known = np.isfinite(of_test)
        answers = np.array([pose.turn_of_crop(image, weights=weights) for image in test.images])
        report(console, np.degrees(np.arctan(np.abs(of_test[known]) / pose.TURN_OF_45_DEG)), answers[known])
    except EdgeFerError as error:
        print(f"turn: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def report(console: Console, degrees: NDArray[np.float64], answers: NDArray[np.float64]) -> None:
    """Print how many faces of PublicTest are marked, by how far their landmarks say that they are turned."""
    limit = Smoothing().max_turn
    for low, high in ((0, 10), (10, 15), (15, 20), (20, 25), (25, 30), (30, 40), (40, 90)):
        rows = (degrees >= low) & (degrees < high)
        console.print(f"{low} to {high} degrees: {rows.sum()} faces, {(answers[rows] > limit).mean():.1%} marked")
    ahead, turned = answers[degrees < AHEAD_DEG], answers[degrees > 30]
    above = (turned[:, np.newaxis] > ahead).mean()
    console.print(f"area under the curve, over 30 against under {AHEAD_DEG:g} degrees: {above:.3f}")


if __name__ == "__main__":
    sys.exit(main())
