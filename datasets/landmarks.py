"""Landmarks of a data set's faces, by one detector or several combined: an offline tool.

    python -m datasets.landmarks --data ~/fer2013 --by ssd -o ~/fer2013/landmarks.npz
    python -m datasets.landmarks --data ~/fer2013 --by yunet:Y.onnx mtcnn blazeface:B.tflite --fuse vote -o L.npz
    python -m datasets.landmarks --data ~/fer2013 --by haar mesh:face_landmark.tflite --fuse mean -o L.npz

DIR/landmarks.npz is where recipes with `data.alignment = "five-points"` look for landmarks, and the export of what they
train (`datasets.landmarks_file`).

Detectors find a face in the enlarged crop: haar, lbp, ssd, yunet:FILE, blazeface:FILE, and mtcnn (its package `mtcnn`).
Aligners mark the face that the first detector found, or the whole crop: mesh:FILE (MediaPipe's 468 points, with
LiteRT), dlib:FILE (68 points; of the package `dlib`). --fuse says what is taken of what they find: the `best` alone,
the median of a `vote` of at least half of them, or the `mean` of all. It prints how many faces each of them missed.

`read_points` reads what other programs write: five points, the 49 of IntraFace (SDM), the 66 of DRMF, the 68 of dlib
and of the mixture of trees, the 468 of a mesh. `five_of` makes five of them.
"""

from __future__ import annotations

import argparse
import importlib
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias, get_args

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

import datasets
from datasets.fusion import Fusion, fused, points_of
from datasets.landmarks_file import write_landmarks
from edge_fer.config import DetectorSettings
from edge_fer.core import Detection, FaceBox, FaceDetector, Image, Landmarks
from edge_fer.detection import open_detector
from edge_fer.errors import OS_ERROR, DataError, EdgeFerError, InputMissingError, UnavailableError, UsageError
from edge_fer.files import read_file
from edge_fer.model.litert import Network

Aligner: TypeAlias = Callable[[Image, FaceBox], NDArray[np.float64] | None]
"""Image and face -> points (n, 2) as ``core.Landmarks`` has them, or None."""

SCENE_PX = 240
"""A crop is enlarged to half of it, with a rim that goes on from its edges: detectors want faces of 80 pixels and more,
and something around them."""
POINTS: Mapping[int, tuple[Sequence[int], Sequence[int], int, int, int]] = {
    5: ((0,), (1,), 2, 3, 4),
    49: (range(19, 25), range(25, 31), 13, 31, 37),
    66: (range(36, 42), range(42, 48), 30, 48, 54),
    68: (range(36, 42), range(42, 48), 30, 48, 54),
    468: ((33, 133, 159, 145), (362, 263, 386, 374), 1, 61, 291),
}
"""By how many points there are: which of them lie around the person's right eye and the left, the tip of the nose, and
the right and left corner of the mouth. 68: Multi-PIE's scheme, as dlib and iBUG number it. 66 (DRMF) leaves the inner
corners of the mouth out, 49 (IntraFace) the outline of the face too. 468: MediaPipe's mesh."""
MOST_BYTES = 200 << 20


def five_of(points: NDArray[np.float64]) -> Landmarks:
    """Five landmarks of any of the known schemes; an eye is the mean of the points around it.

    Args:
        points: (n, 2), in pixels.

    Raises:
        DataError: there is no scheme with so many points, or one of them is no number.
    """
    scheme = POINTS.get(len(points))
    if scheme is None or points.shape != (len(points), 2) or not np.isfinite(points).all():
        known = ", ".join(map(str, POINTS))
        raise DataError(f"{points.shape} are no landmarks that are known: finite x and y of {known} points.")
    right_eye, left_eye, *rest = scheme
    around = [list(right_eye), list(left_eye), *([place] for place in rest if isinstance(place, int))]
    first, second, tip, *mouth = ((float(x), float(y)) for x, y in (points[places].mean(axis=0) for places in around))
    return Landmarks(first, second, tip, (mouth[0], mouth[1]))


def read_points(path: Path) -> NDArray[np.float64]:
    """Points (n, 2) of a text file: a line of x and y each, by spaces or commas; or iBUG's .pts, which counts from 1.

    Programs that write such files number pixels, so that a whole number is the middle of one: see ``core.Landmarks``.

    Raises:
        InputMissingError: no such file.
        DataError: it has other lines.
    """
    text = read_file(path, 1 << 20, "file of landmarks", "Name a text file of x and y.").decode("utf-8", "replace")
    lines = text.splitlines()
    if "{" in text:
        inside = text.partition("{")[2].partition("}")[0]
        lines = inside.splitlines()
    try:
        rows = [[float(word) for word in line.replace(",", " ").split()] for line in lines if line.strip()]
        points = np.array(rows, np.float64).reshape(-1, 2)
    except ValueError:
        raise DataError(f"{path} has lines that are not an x and a y.") from None
    five_of(points)
    return points - 0.5 if "{" in text else points + 0.5


class Mtcnn:
    """Multi-task cascaded networks (Zhang et al., IEEE Signal Processing Letters 23, 2016), of the package `mtcnn`.

    Implements ``core.FaceDetector``. It runs on TensorFlow: offline only.

    Raises:
        UnavailableError: the package is not installed.
    """

    slow_on_large = True
    enough_px = 40.0

    def __init__(self) -> None:
        try:
            self._net = importlib.import_module("mtcnn").MTCNN()
        except ImportError as error:
            raise UnavailableError(
                f"The detector mtcnn needs its package: run `pip install mtcnn` ({error})."
            ) from None

    def detect(
        self, gray: Image, min_px: float, max_px: float = math.inf, *, expected: bool = False, coarse: bool = False
    ) -> list[Detection]:
        """See ``core.FaceDetector``. Its boxes are reduced to a Haar box's width, which frames brows to chin."""
        detections = []
        for one in self._net.detect_faces(cv2.cvtColor(gray, cv2.COLOR_GRAY2RGB)):
            x, y, w, h = one["box"]
            side = math.sqrt(w * h)
            # It numbers pixels, see `core.Landmarks`.
            marks = {name: (place[0] + 0.5, place[1] + 0.5) for name, place in one["keypoints"].items()}
            if min_px <= side <= max_px:
                # Its "left" eye is the one at the left of the image.
                eyes, mouth = (
                    sorted((marks["left_eye"], marks["right_eye"])),
                    (marks["mouth_left"], marks["mouth_right"]),
                )
                first, second = sorted(mouth)
                landmarks = Landmarks(eyes[0], eyes[1], marks["nose"], (first, second))
                box = FaceBox(x + w / 2 - side / 2, y + h / 2 - side / 2, side, side)
                detections.append(Detection(box, float(one["confidence"]), landmarks))
        return sorted(detections, key=lambda one: -one.box.area)


class Mesh:
    """MediaPipe's face mesh (Kartynnik et al., arXiv 1907.06724): 468 points, in LiteRT.

    Args:
        model: face_landmark.tflite.

    Raises:
        EdgeFerError: it cannot be read, or is another model.
    """

    margin = 0.25

    def __init__(self, model: Path) -> None:
        self._network = Network(read_file(model, MOST_BYTES, "face mesh", "Get MediaPipe's face_landmark.tflite."))
        shapes = [tensor.shape for tensor in self._network.inputs]
        sizes = [math.prod(tensor.shape) for tensor in self._network.outputs]
        self._place = sizes.index(3 * 468) if 3 * 468 in sizes else -1
        self._presence = sizes.index(1) if 1 in sizes else None
        if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][3] != 3 or self._place < 0:
            raise DataError(f"{model} is not MediaPipe's face mesh of 468 points.")
        self.side = int(shapes[0][1])

    def __call__(self, gray: Image, box: FaceBox) -> NDArray[np.float64] | None:
        """See ``Aligner``."""
        width = box.w * (1 + 2 * self.margin)
        x, y = box.center
        left, top, scale = x - width / 2, y - width / 2, self.side / width
        warp = np.array([[scale, 0, -left * scale], [0, scale, -top * scale]])
        crop = cv2.warpAffine(gray, warp, (self.side, self.side), borderMode=cv2.BORDER_REPLICATE)
        tensor = np.repeat(crop[np.newaxis, ..., np.newaxis].astype(np.float32) / 255, 3, axis=3)
        outputs = self._network.run(tensor)
        if self._presence is not None and outputs[self._presence].item() < 0:  # a logit: there is no face
            return None
        points = outputs[self._place].reshape(468, 3)[:, :2].astype(np.float64)
        # It numbers pixels, as the warp does; see `core.Landmarks`.
        return np.asarray(points / scale + (left, top) + 0.5)


class DlibShape:
    """dlib's ensemble of regression trees (Kazemi & Sullivan, CVPR 2014): 68 points, of the package `dlib`.

    Args:
        model: shape_predictor_68_face_landmarks.dat.

    Raises:
        UnavailableError: the package is not installed.
        InputMissingError: no such file.
        DataError: dlib cannot read it.
    """

    def __init__(self, model: Path) -> None:
        try:
            self._dlib: Any = importlib.import_module("dlib")
        except ImportError:
            raise UnavailableError("The aligner dlib needs its package: run `pip install dlib`.") from None
        if not model.is_file():
            raise InputMissingError(f"No {model}: get dlib's shape_predictor_68_face_landmarks.dat.")
        try:
            self._predict = self._dlib.shape_predictor(str(model))
        except RuntimeError as error:
            raise DataError(f"{model} is no shape predictor of dlib: {error}.") from None

    def __call__(self, gray: Image, box: FaceBox) -> NDArray[np.float64]:
        """See ``Aligner``."""
        corners = (round(box.x), round(box.y), round(box.x + box.w), round(box.y + box.h))
        shape = self._predict(gray, self._dlib.rectangle(*corners))
        # It numbers pixels, see `core.Landmarks`.
        return np.array([(shape.part(k).x, shape.part(k).y) for k in range(shape.num_parts)], np.float64) + 0.5


def open_finder(text: str) -> FaceDetector | Mesh | DlibShape:
    """A detector or an aligner by its name and file, as in --by.

    Raises:
        EdgeFerError: there is no such, or it cannot be opened.
    """
    kind, _, file = text.partition(":")
    match kind:
        case "mtcnn":
            return Mtcnn()
        case "mesh":
            return Mesh(Path(file))
        case "dlib":
            return DlibShape(Path(file))
        case "haar" | "lbp" | "ssd" | "yunet" | "blazeface":
            return open_detector(DetectorSettings(kind=kind, model=file))
    raise UsageError(
        f"--by {text!r}: known are haar, lbp, ssd, yunet:FILE, blazeface:FILE, mtcnn, mesh:FILE, dlib:FILE."
    )


@dataclass
class Account:
    """Of one finder over a set of faces, or of all together.

    Attributes:
        missed: faces that it did not find.
        off: how far its landmarks are from the fused ones, in distances of the eyes, of each face.
        seconds: CPU time.
    """

    missed: int = 0
    off: list[float] = field(default_factory=list)
    seconds: float = 0.0


def find(
    images: NDArray[np.uint8], finders: Mapping[str, FaceDetector | Mesh | DlibShape], how: Fusion, title: str = ""
) -> tuple[NDArray[np.float32], dict[str, Account]]:
    """Landmarks of faces that fill their images.

    Args:
        images: uint8 (n, height, width, 1), square.
        finders: by name.
        how: see ``fused``.
        title: of the progress.

    Returns:
        float32 (n, 10), x and y of right eye, left eye, nose, right and left corner of the mouth in pixels of the
        image, NaN where there are none; and an account of each finder, and of all together ("fused").
    """
    side = images.shape[1]
    accounts = {name: Account() for name in (*finders, "fused")}
    result = np.full((len(images), 10), np.nan, np.float32)
    for place, image in enumerate(track(images[..., 0], title, transient=True, disable=not sys.stderr.isatty())):
        scene = enlarged(image)
        found: list[Detection | None] = []
        for name, finder in finders.items():
            started = time.process_time()
            found.append(_found_by(finder, scene, found))
            accounts[name].seconds += time.process_time() - started
            accounts[name].missed += found[-1] is None
        face = fused(found, how)
        marks = face.landmarks if face else None
        if marks is None or len(marks.mouth) != 2:
            accounts["fused"].missed += 1
            continue
        eyes = math.dist(marks.right_eye, marks.left_eye)
        for name, one in zip(finders, found, strict=True):
            if one is not None and one.landmarks is not None and len(one.landmarks.mouth) == 2 and eyes >= 1:
                pairs = zip(points_of(marks), points_of(one.landmarks), strict=True)
                accounts[name].off.append(sum(math.dist(*pair) for pair in pairs) / 5 / eyes)
        points = np.array(points_of(marks))
        result[place] = (points * (2 * side / SCENE_PX) - side / 2).ravel()
    return result, accounts


def enlarged(image: Image) -> Image:
    """A crop in the middle of a scene, its edges drawn out: uint8 (SCENE_PX, SCENE_PX)."""
    rim = image.shape[0] // 2
    padded = cv2.copyMakeBorder(image, rim, rim, rim, rim, cv2.BORDER_REPLICATE)
    return cv2.resize(padded, (SCENE_PX, SCENE_PX), interpolation=cv2.INTER_CUBIC).astype(np.uint8, copy=False)


def _found_by(
    finder: FaceDetector | Mesh | DlibShape, scene: Image, before: Sequence[Detection | None]
) -> Detection | None:
    whole = FaceBox(SCENE_PX / 4, SCENE_PX / 4, SCENE_PX / 2, SCENE_PX / 2)
    if isinstance(finder, Mesh | DlibShape):
        box = next((one.box for one in before if one is not None), whole)
        points = finder(scene, box)
        return None if points is None else Detection(box, None, five_of(points))
    faces = finder.detect(scene, SCENE_PX / 6, expected=True)
    best = max(faces, key=lambda one: one.box.iou(whole), default=None)
    return best if best is not None and best.box.iou(whole) >= 0.25 else None


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m datasets.landmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with FER2013")
    parser.add_argument("--by", nargs="+", required=True, metavar="FINDER", help="detectors and aligners, see above")
    parser.add_argument("--fuse", choices=get_args(Fusion), default="best", help="(default: best)")
    parser.add_argument("--further", default="", metavar="FOLDER", help="as in the recipe's [data]")
    parser.add_argument("--unlabeled", default="", metavar="FOLDER", help="as in the recipe's [data]")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="every N-th face alone, to try it")
    parser.add_argument("-o", "--out", type=Path, metavar="NPZ", help="the landmarks to write")
    args = parser.parse_args(arguments)
    console = Console(stderr=True)
    try:
        if args.every < 1:
            raise UsageError(f"--every must be at least 1, not {args.every}.")
        if args.out and args.every != 1:
            raise UsageError("-o wants the landmarks of all faces: leave --every out.")
        finders = {text: open_finder(text) for text in args.by}
        splits = datasets.load(args.data, further=args.further, unlabeled=args.unlabeled)
        faces = {name: split.images[:: args.every] for name, split in splits.items()}
        points = []
        for split, images in faces.items():
            marked, accounts = find(images, finders, args.fuse, split)
            points.append(marked)
            table = Table(
                "finder", "missed", "landmarks off the fused", "ms CPU", title=f"{split}, {len(images)} faces"
            )
            for name, one in accounts.items():
                count = max(len(images), 1)
                off = f"{median(one.off):.1%} of the eyes' distance" if one.off else ""
                table.add_row(name, f"{one.missed / count:.1%}", off, f"{1000 * one.seconds / count:.1f}")
            console.print(table)
        if args.out:
            write_landmarks(args.out, np.concatenate(list(faces.values())), np.concatenate(points))
    except EdgeFerError as error:
        print(f"landmarks: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"landmarks: {error.filename or 'a file'}: {error.strerror or error}.", file=sys.stderr)
        return OS_ERROR
    return 0


if __name__ == "__main__":
    sys.exit(main())
