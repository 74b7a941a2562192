"""Train the face detector.

    python -m training.detector --data DIR [--data DIR ...] --output runs/detector

DIR holds photos and boxes of faces: see ``datasets/boxes.py`` for the layouts. One photo in ten is held out.
Writes ``weights.npz`` (the averaged weights, after every half a minute and at the end), ``log.jsonl``, and at the end a
Keras model for each size of input, of which ``export/detector.py`` makes bundles. With ``--epochs 0`` it only makes
these of the weights that it begins with. Exit codes: 0 done, 65 bad data, 66 no such folder, 73 cannot write.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from datasets.boxes import is_held_out, read
from edge_fer.errors import EdgeFerError
from edge_fer.files import make_folder, write_atomically
from training import onednn
from training.detector import weights, yunet
from training.detector.augmentation import DRAWS, Augmentation, compose
from training.detector.loop import Plan, fit
from training.detector.network import STRIDES, build
from training.detector.photos import Packed, pack
from training.ranges import check_seeds

SIZES_WH = ((320, 240), (160, 120))
"""Inputs of the models that are made: one for whole frames, one for what lies around a known face."""
NORMALIZED_ON = 64
"""Images from which the normalization of YuNet's weights is told."""
SAVE_S = 30.0
"""Between two savings."""


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training.detector", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, action="append", default=[], metavar="DIR", help="may be given again")
    parser.add_argument("--output", type=Path, default=Path("runs/detector"), metavar="DIR")
    parser.add_argument(
        "--from",
        dest="start",
        type=Path,
        metavar="FILE",
        help="weights to begin with: those of a training, or YuNet's .onnx",
    )
    parser.add_argument("--epochs", type=int, default=Plan.epochs, help=f"({Plan.epochs})")
    parser.add_argument("--minutes", type=float, default=math.inf, help="end after this time at the latest")
    parser.add_argument("--batch", type=int, default=Plan.batch, help=f"images of a step ({Plan.batch})")
    parser.add_argument("--side", type=int, default=Plan.side, help=f"of an image in pixels ({Plan.side})")
    parser.add_argument("--learning-rate", type=float, default=Plan.learning_rate, help=f"({Plan.learning_rate})")
    parser.add_argument("--seed", type=int, default=0, help="(0)")
    parser.add_argument(
        "--share", type=float, default=1.0, help="of what was learned, where the rest is what it began with, 0-1 (1)"
    )
    args = parser.parse_args(arguments)
    if not 0 <= args.share <= 1:
        parser.error(f"--share is 0 to 1, not {args.share:g}.")
    for name, least, step in (("epochs", 0, 1), ("batch", 1, 1), ("side", STRIDES[-1], STRIDES[-1])):
        number = getattr(args, name)
        if number < least or number % step:
            parser.error(f"--{name} is a whole number from {least} on{f', a multiple of {step}' if step > 1 else ''}.")
    for name in ("minutes", "learning_rate"):
        if not getattr(args, name) > 0:
            parser.error(f"--{name.replace('_', '-')} is more than 0.")
    if not args.data and (args.epochs or _is_yunet(args.start)):
        parser.error("--data DIR is wanted: photos with boxes of faces, to learn from.")
    if math.isinf(args.learning_rate):
        parser.error("--learning-rate is a finite number.")
    plan = Plan(args.epochs, args.minutes, args.batch, args.side, args.learning_rate, seed=args.seed)
    try:
        check_seeds(args.seed)
        train(args.data, args.output, plan, args.start, args.share)
    except EdgeFerError as error:
        print(f"training.detector: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def train(folders: list[Path], output: Path, plan: Plan, start: Path | None = None, share: float = 1.0) -> None:
    """Train on the photos of the folders that are not held out.

    Args:
        folders: see ``photos.read``.
        output: where weights and log are written.
        plan: see ``Plan``.
        start: weights to begin with; YuNet's file or of ``weights.save``.
        share: of the trained weights in their mean with those that it began with, 0-1: in between it keeps what it
            knew of things that are not in the photos (Wortsman et al., arXiv 2109.01903).

    Raises:
        EdgeFerError: what is given is not as it should be, or the output cannot be written.
    """
    make_folder(output)
    keras.utils.set_random_seed(plan.seed)
    network = build()
    if start is not None and not _is_yunet(start):
        weights.load(network, start)
    if plan.epochs or _is_yunet(start):
        photos = pack([photo for folder in folders for photo in read(folder) if not is_held_out(photo.name)])
    if start is not None and _is_yunet(start):
        yunet.load(network, start, _some(photos, plan))
    if plan.epochs:
        began = network.get_weights()
        _fit(network, photos, output, plan)
        pairs = zip(began, network.get_weights(), strict=True)
        network.set_weights([(1 - share) * one + share * other for one, other in pairs])
        weights.save(network.get_weights(), output / "weights.npz")
    for width, height in SIZES_WH:
        sized = build(height, width)
        sized.set_weights(network.get_weights())
        sized.save(output / f"face-{width}x{height}.keras")


def _is_yunet(start: Path | None) -> bool:
    """Whether weights to begin with are YuNet's own, which are read with some of the photos."""
    return start is not None and start.suffix == ".onnx"


def _some(photos: Packed, plan: Plan) -> NDArray[np.float32]:
    """Images as they are trained on."""
    rng = np.random.default_rng(plan.seed)
    draws, noise = rng.random((NORMALIZED_ON, DRAWS)), rng.standard_normal((NORMALIZED_ON, plan.side, plan.side))
    images, _ = compose(photos, draws.astype(np.float32), noise.astype(np.float32), Augmentation())
    return np.asarray(keras.ops.convert_to_numpy(images))


def _fit(network: keras.Model, photos: Packed, output: Path, plan: Plan) -> None:
    faces = int((photos.kinds == 1).sum())
    print(f"{len(photos.atlas)} photos, {faces} faces; {network.count_params()} parameters", flush=True)
    begun = saved = time.monotonic()
    log: list[str] = []

    def after_round(step: int, lost: NDArray[np.float64], done: float, averaged: list[NDArray[np.float32]]) -> None:
        nonlocal saved
        now = time.monotonic()
        row = {"step": step, "s": round(now - begun, 1), "done": round(done, 4)}
        row |= {name: round(float(value), 4) for name, value in zip(("scores", "boxes", "points"), lost, strict=True)}
        log.append(json.dumps(row))
        print(log[-1], flush=True)
        if done >= 1 or now - saved >= SAVE_S:
            saved = now
            weights.save(averaged, output / "weights.npz")
            write_atomically(output / "log.jsonl", "".join(f"{line}\n" for line in log).encode())

    fit(network, photos, plan, Augmentation(), after_round)


if __name__ == "__main__":
    onednn.guard()
    sys.exit(main())
