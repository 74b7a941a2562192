"""Faces and their expressions in one pass: a head on the detector's trunk, against two networks one after the other.

    python -m training.detector.one_pass --data ~/fer2013 --output runs/one-pass
    python -m training.detector.one_pass --data ~/fer2013 --output runs/one-pass-trained --trunk trained --epochs 4

The R-CNN family classifies what a detector's features show of a region (Ren et al., arXiv 1506.01497). Here each cell
of our detector's grids answers for the face that it finds: two more blocks and a layer of logits on each grid. A face's
answer is the mean over its cells, weighted with their scores. Soft labels are the teachers' and the raters', half each.
With ``--trunk frozen`` the detector stays what it is, to the bit; with ``trained`` its trunk learns too, and is pulled
to the outputs that it had.

Faces of Training are pasted into scenes, and a window of 160x120 pixels with one of them is what is seen. Faces of
PublicTest in such windows are then read both ways, in int8: in one pass, and by the package's detector with a bundle
behind it. Exit codes: 0 done, 65 bad data, 66 no such folder, 73 cannot write.

OUTPUT/one-pass.keras   the network: pixels -> scores, boxes, landmarks, expressions; kept after each epoch
OUTPUT/one-pass.json    the table that is printed
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import datasets
from datasets import Dataset
from edge_fer.core import Detection, FaceBox, Image
from edge_fer.detection.ssd import SizedNetwork, SsdDetector, decoded, sigmoid
from edge_fer.errors import DataError, EdgeFerError, UsageError
from edge_fer.files import make_folder, write_atomically
from edge_fer.model.bundle import DETECTORS, Bundle
from edge_fer.model.classifier import TfliteClassifier
from edge_fer.model.decision import softmax
from edge_fer.model.litert import Network
from edge_fer.model.spec import Head, head_slices
from edge_fer.preprocess import Preprocessor
from evaluation.corruptions import SAME_FACE, Scene, scenes
from evaluation.metrics import evaluate_logits
from training import models, onednn
from training.cached_logits import load_logits
from training.detector import weights
from training.detector.assignment import cells
from training.detector.network import CHANNELS, STRIDES, block, build, joined
from training.ranges import check_seeds
from training.recipe import DataRecipe
from training.runs import replace

Floats = NDArray[np.float32]

WINDOW_HW = (120, 160)
SIDES_PX = (48, 96)
"""Of the faces in training, from and to."""
TILT_DEG = 15.0
KINDS = tuple((side, tilt) for side in (48, 64, 96) for tilt in (-10.0, 0.0, 10.0))
"""Of the faces that are measured."""
CENTRAL = 0.5
"""Part of a face's sides, around its middle, whose cells answer for it in training."""
PULL = 1.0
"""Weight of how far the detections of a trained trunk are from those before."""
CALIBRATION = 200
"""Training faces, a window each, that int8 is calibrated on."""
SMALLEST_PX = 40.0
"""Of the faces that are looked for, as the device does it."""


def with_expressions(detector: keras.Model, classes: int) -> keras.Model:
    """The detector with one more output: expressions (n, cells, classes), logits of each cell."""
    grids = []
    for stride in STRIDES:
        x = detector.get_layer(f"scores{stride}").input
        for place in range(2):
            x = block(x, CHANNELS, f"expressions{stride}_{place}")
        grids.append(layers.Conv2D(classes, 1, name=f"expressions{stride}")(x))
    return keras.Model(detector.input, [*detector.outputs, joined(grids, "expressions")])


def pooled(logits: Any, scores: Any, mask: Any) -> Any:
    """What a face is answered: the mean of the logits of its cells, weighted with their scores.

    Args:
        logits: (n, cells, classes).
        scores: (n, cells, 1), as logits.
        mask: (n, cells), 1 for the cells of the face.
    """
    shares = ops.sigmoid(scores) * ops.expand_dims(mask, -1) + 1e-6 * ops.expand_dims(mask, -1)
    return ops.sum(shares * logits, 1) / ops.sum(shares, 1)


def window(scene: Scene, chance: np.random.Generator) -> Scene:
    """A part of a scene, ``WINDOW_HW``, that has its face whole, wherever that lies in it."""
    corner = []
    for length, side, start, extent in zip(
        scene.gray.shape[::-1], WINDOW_HW[::-1], (scene.box.x, scene.box.y), (scene.box.w, scene.box.h), strict=True
    ):
        low, high = max(0, round(start + extent) - side), min(length - side, round(start))
        corner.append(int(chance.integers(min(low, high), max(low, high) + 1)))
    x, y = corner
    gray = scene.gray[y : y + WINDOW_HW[0], x : x + WINDOW_HW[1]]
    return Scene(gray, FaceBox(scene.box.x - x, scene.box.y - y, scene.box.w, scene.box.h))


def central_cells(boxes: Sequence[FaceBox]) -> Floats:
    """Which cells of a window answer for its face, (n, cells): those in the middle of it, 1."""
    centers, _ = cells(*WINDOW_HW)
    sides = np.array([[box.w, box.h] for box in boxes])[:, np.newaxis]
    middles = np.array([[box.x + box.w / 2, box.y + box.h / 2] for box in boxes])[:, np.newaxis]
    inside: Floats = (np.abs(centers - middles) < CENTRAL / 2 * sides).all(axis=-1).astype(np.float32)
    return inside


def soft_labels(training: Dataset, heads: Sequence[Head], teacher: NDArray[np.float16]) -> Floats:
    """Targets (n, classes of all heads): the teachers' probabilities and the raters' votes, half each."""
    targets = np.zeros(teacher.shape, np.float32)
    for head in heads:
        part = head_slices(heads)[head.name]
        labels = training.labels[head.name].targets
        known = labels.sum(axis=1, keepdims=True) > 0
        taught = softmax(teacher[:, part].astype(np.float32))
        targets[:, part] = np.where(known, (labels + taught) / 2, taught)
    return targets


class _Windows(keras.utils.PyDataset):
    """An epoch of faces in windows; each batch has a size and a tilt of its own."""

    def __init__(self, images: NDArray[np.uint8], targets: Floats, batch: int, seed: int) -> None:
        super().__init__()
        self._images, self._targets, self._batch, self._seed = images, targets, batch, seed
        self._epoch = 0

    def __len__(self) -> int:
        return len(self._images) // self._batch

    def on_epoch_end(self) -> None:
        self._epoch += 1

    def __getitem__(self, place: int) -> Any:
        order = np.random.default_rng((self._seed, self._epoch)).permutation(len(self._images))
        chance = np.random.default_rng((self._seed, self._epoch, place))
        rows = order[place * self._batch : (place + 1) * self._batch]
        faces = np.stack([self._images[row][:, :: chance.choice((-1, 1))] for row in rows])
        side, tilt = int(chance.integers(SIDES_PX[0], SIDES_PX[1] + 1)), float(chance.uniform(-TILT_DEG, TILT_DEG))
        seen = [window(scene, chance) for scene in scenes(faces, side, tilt, int(chance.integers(1 << 31)))]
        pixels = np.stack([one.gray for one in seen])[..., np.newaxis].astype(np.float32)
        return (pixels, central_cells([one.box for one in seen])), self._targets[rows]


class Taught(keras.Model):
    """What trains: windows and the cells of their face -> the loss of the answers, and the pull on the detections."""

    def __init__(self, network: keras.Model, heads: Sequence[Head], before: keras.Model | None) -> None:
        super().__init__(name="taught")
        self.network, self._parts, self._before = network, list(head_slices(heads).values()), before

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        pixels, mask = inputs
        scores, boxes, points, logits = self.network(pixels, training=training)
        if self._before is not None:
            known, *places = self._before(pixels, training=False)
            sure = ops.stop_gradient(ops.sigmoid(known))
            self.add_loss(PULL * ops.mean(ops.square(ops.sigmoid(scores) - sure)) * scores.shape[1])
            for found, wanted in zip((boxes, points), places, strict=True):
                self.add_loss(PULL * ops.sum(sure * ops.square(found - wanted)) / (ops.sum(sure) + 1.0))
        return pooled(logits, ops.stop_gradient(scores), mask)

    def answered(self, targets: Any, logits: Any) -> Any:
        """Cross-entropy of the soft labels, of all heads together."""
        return sum(
            keras.losses.categorical_crossentropy(targets[:, part], logits[:, part], from_logits=True)
            for part in self._parts
        )


def train(
    training: Dataset,
    teacher: NDArray[np.float16],
    output: Path,
    *,
    trunk: Literal["frozen", "trained"],
    epochs: int,
    batch: int,
    seed: int,
) -> keras.Model:
    """Train the head, or the head and the trunk; returns the network with four outputs, for ``WINDOW_HW``."""
    keras.utils.set_random_seed(seed)
    detector = build(*WINDOW_HW)
    weights.load(detector, Path(__file__).with_name("weights.npz"))
    before = None
    if trunk == "frozen":
        detector.trainable = False
    else:
        before = build(*WINDOW_HW)
        before.set_weights(detector.get_weights())
        before.trainable = False
    network = with_expressions(detector, sum(len(head.labels) for head in training.heads))
    data = _Windows(training.images, soft_labels(training, training.heads, teacher), batch, seed)
    taught = Taught(network, training.heads, before)
    peak = 2e-3 if trunk == "frozen" else 1e-3
    steps, warm = epochs * len(data), max(1, len(data) // 4)
    rate = keras.optimizers.schedules.CosineDecay(peak / 20, steps, alpha=0.01, warmup_target=peak, warmup_steps=warm)
    taught.compile(keras.optimizers.AdamW(rate, weight_decay=1e-4, global_clipnorm=5.0), taught.answered)
    kept = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: replace(output / "one-pass.keras", network.save)
    )
    taught.fit(data, epochs=epochs, verbose=2, callbacks=[kept], shuffle=False)
    return network


def _of_face(rows: Floats, scores: Floats, logits: Floats, box: FaceBox) -> tuple[Floats, float]:
    """A face's logits: of the cells whose boxes are about its box, weighted with their scores; and the best score."""
    low, high = rows[:, :2] - rows[:, 2:4] / 2, rows[:, :2] + rows[:, 2:4] / 2
    corner, far = np.array([box.x, box.y]), np.array([box.x + box.w, box.y + box.h])
    shared = (np.minimum(high, far) - np.maximum(low, corner)).clip(min=0).prod(axis=1)
    overlap = shared / (rows[:, 2:4].prod(axis=1) + box.w * box.h - shared)
    shares = np.where(overlap >= SAME_FACE, scores, 0.0)
    answer: Floats = ((shares + 1e-9)[:, np.newaxis] * logits).sum(axis=0) / (shares + 1e-9).sum()
    return answer, float(shares.max())


class OnePass:
    """The network in int8.

    Args:
        flatbuffer: of four outputs.
        classes: of the fourth.
    """

    def __init__(self, flatbuffer: bytes, classes: int) -> None:
        self.network = Network(flatbuffer)
        SizedNetwork(self.network, "one-pass")  # that it is a detector
        place = {output.shape[-1]: at for at, output in enumerate(self.network.outputs)}
        self._places = [place[values] for values in (1, 4, 10, classes)]
        self._centers, self._strides = cells(*WINDOW_HW)

    def __call__(self, gray: Image, box: FaceBox) -> tuple[Floats, float]:
        """Logits (classes,) of the face that is at ``box``, and the score with which the network itself finds it."""
        raw = self.network.run(np.ascontiguousarray(gray)[np.newaxis, ..., np.newaxis])
        scores, boxes, points, logits = (self.network.outputs[at].real(raw[at][0]) for at in self._places)
        rows = decoded(boxes, points, self._centers, self._strides)
        return _of_face(rows, sigmoid(scores[:, 0]), logits, box)


def measure(
    network: keras.Model, training: Dataset, test: Dataset, bundles: Sequence[str], faces: int, console: Console
) -> list[dict[str, Any]]:
    """Both ways on the same faces of PublicTest, those that the package's detector finds; a row a way.

    Returns:
        Rows with ``way``, ``found`` (n, of how many, and how many of the n the way finds itself), ``accuracy`` by head,
        ``parameters``, ``mmac`` and ``ms`` of a window, detection included.
    """
    from export.convert import to_int8

    drawn = np.stack([one.gray for one in _windows(training.images[:: -(-len(training) // CALIBRATION)], KINDS[4], 99)])
    one_pass = OnePass(
        to_int8(network, drawn[..., np.newaxis], Console(quiet=True)), sum(len(head.labels) for head in test.heads)
    )
    detector = SsdDetector([DETECTORS / "face-160x120.tflite"])
    chosen = np.sort(np.random.default_rng(0).permutation(len(test))[:faces])
    found: list[tuple[int, Image, Detection]] = []
    for number, kind in enumerate(KINDS):
        for row, seen in zip(chosen, _windows(test.images[chosen], kind, number), strict=True):
            detections = detector.detect(np.ascontiguousarray(seen.gray), SMALLEST_PX)
            best = max(detections, key=lambda one: one.box.iou(seen.box), default=None)
            if best is not None and best.box.iou(seen.box) >= SAME_FACE:
                found.append((int(row), np.ascontiguousarray(seen.gray), best))
    if not found:
        raise DataError("The detector finds none of these faces: 48x48 pixels from chin to brow are wanted.")
    rows = np.array([row for row, _, _ in found])
    spec = Bundle.load(DETECTORS / "face-160x120.tflite", "detector").metadata.detector
    assert spec is not None, "a bundle of this kind has one"
    began = time.process_time()
    for _, gray, _ in found:
        detector.detect(gray, SMALLEST_PX)
    alone_ms = 1e3 * (time.process_time() - began) / len(found)
    detecting = sum(layer.count_params() for layer in network.layers if not layer.name.startswith("expressions"))
    told: list[dict[str, Any]] = []

    def tell(way: str, logits: list[Floats], own: int, ms: float, parameters: int, mmac: float | None) -> None:
        metrics = evaluate_logits(np.stack(logits), test[rows], test.heads)
        accuracy = {head.name: round(metrics[head.name]["accuracy"], 4) for head in test.heads}
        part = {"n": len(found), "of": len(chosen) * len(KINDS), "own": own}
        row = {"way": way, "found": part, "accuracy": accuracy, "parameters": parameters, "mmac": mmac}
        told.append({**row, "ms": round(ms, 2)})

    began = time.process_time()
    answers = [one_pass(gray, detection.box) for _, gray, detection in found]
    one_ms = 1e3 * (time.process_time() - began) / len(found)
    own = sum(score >= spec.min_score for _, score in answers)
    mmac = round(models.mmac(network), 1)
    tell("one pass", [logits for logits, _ in answers], own, one_ms, network.count_params(), mmac)
    for name in bundles:
        classifier = TfliteClassifier(Bundle.load(name))
        preprocessor = Preprocessor(classifier.bundle.metadata.preprocess, classifier.size_hw)
        began = time.process_time()
        logits = [classifier.logits(preprocessor(gray, detection)) for _, gray, detection in found]
        ms = alone_ms + 1e3 * (time.process_time() - began) / len(found)
        tell(f"two stages, {name}", logits, len(found), ms, detecting, None)
    title = f"{len(found):,} faces of {len(chosen) * len(KINDS):,}, those that the package's detector finds"
    table = Table("way", "finds", *(head.name for head in test.heads), "MMAC", "ms, one core", title=title)
    for one in told:
        right = (f"{one['accuracy'][head.name]:.2%}" for head in test.heads)
        table.add_row(one["way"], f"{one['found']['own']:,}", *right, str(one["mmac"] or ""), f"{one['ms']:.2f}")
    console.print(table)
    return told


def _windows(images: NDArray[np.uint8], kind: tuple[int, float], seed: int) -> Iterator[Scene]:
    chance = np.random.default_rng(seed)
    return (window(scene, chance) for scene in scenes(images, *kind, seed))


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training.detector.one_pass",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with FER2013 and FER+")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--trunk", choices=["frozen", "trained"], default="frozen", help="(frozen)")
    parser.add_argument("--epochs", type=int, default=8, help="0 measures what is in OUTPUT (8)")
    parser.add_argument("--batch", type=int, default=64, help="(64)")
    parser.add_argument("--faces", type=int, default=400, help="of PublicTest, each in nine windows (400)")
    parser.add_argument("--against", nargs="+", default=["nano"], metavar="BUNDLE", help="(nano)")
    parser.add_argument("--seed", type=int, default=1, help="(1)")
    logits = Path(__file__).resolve().parents[1] / "logits" / "t1-t4.npz"
    parser.add_argument("--teacher-logits", type=Path, default=logits, metavar="NPZ", help="default: t1-t4")
    args = parser.parse_args(arguments)
    console = Console(stderr=True)
    try:
        check_seeds(args.seed)
        for name, least in (("epochs", 0), ("batch", 1), ("faces", 1)):
            if (number := getattr(args, name)) < least:
                raise UsageError(f"--{name} must be at least {least}, not {number}.")
        splits = datasets.load(args.data, DataRecipe().exclude)
        training, test = splits["Training"], splits["PublicTest"]
        if args.epochs:
            teacher = load_logits(args.teacher_logits, splits, DataRecipe()).logits[0]
            make_folder(args.output)
            how = {"trunk": args.trunk, "epochs": args.epochs, "batch": args.batch, "seed": args.seed}
            network = train(training, teacher, args.output, **how)
        else:
            network = models.load(args.output / "one-pass.keras")
        rows = measure(network, training, test, args.against, args.faces, console)
        write_atomically(args.output / "one-pass.json", (json.dumps(rows, indent=1) + "\n").encode())
    except EdgeFerError as error:
        print(f"training.detector.one_pass: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    onednn.guard()
    sys.exit(main())
