"""Endurance: many frames in a row, streams that are cut, and files that are damaged, edited and forged.

    make soak N=10000                                   all of it; FRAMES=1000000 CUTS=200 are the other numbers
    python benchmarks/soak.py --mutations 500 --frames 20000 --cuts 20 --write

Every kind runs in child processes, a batch in each, so that a death is counted and the rest goes on. The number of a
file is the seed of what is done to it: the same N gives the same files. Ctrl-C ends a kind early: what is printed is
what was reached. ``--write`` puts the table into docs/reliability.md. The exit code is 1 where anything died, or ended
in something else than an answer or a sentence.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import io
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from threading import Thread

import cv2
import numpy as np

from edge_fer.config import CameraSettings
from edge_fer.errors import EdgeFerError, UnavailableError
from edge_fer.layers import load_settings
from edge_fer.model.bundle import BUNDLES, Bundle, sealed
from edge_fer.model.classifier import TfliteClassifier
from edge_fer.recognizer import Recognizer
from edge_fer.sources import open_source
from edge_fer.sources.demo import DemoSource

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reliability.md"
BEGIN = "<!-- written by benchmarks/soak.py --write -->"
BATCH = {"frames": 100_000, "cuts": 50, "bundles": 250, "configurations": 1000, "media": 100}
FORGED = 20
"""One bundle in so many has a forged graph: each takes a process of its own."""
WORDS = {
    "frames": "frames in a row",
    "cuts": "cuts of a stream, which then comes back",
    "bundles": "bundles: damaged, edited or forged",
    "configurations": "configurations: damaged or edited",
    "media": "images and videos: damaged",
}


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Damage as cards, cables and editors do it."""
    changed = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 5, 20])):
        place, length = chance.randrange(len(content)), chance.randrange(1, 600)
        match chance.choice(["byte", "bit", "zeros", "noise", "missing", "more", "end"]):
            case "byte":
                changed[place : place + 1] = chance.randbytes(1)
            case "bit":
                changed[place : place + 1] = bytes([content[place] ^ 1 << chance.randrange(8)])
            case "zeros":
                changed[place : place + length] = bytes(length)
            case "noise":
                changed[place : place + length] = chance.randbytes(length)
            case "missing":
                del changed[place : place + length]
            case "more":
                changed[place:place] = chance.randbytes(length)
            case "end":
                del changed[max(1, place) :]
    return bytes(changed)


def bundles(path: Path, chance: random.Random, number: int) -> str:
    """A bundle that was damaged, or edited or forged by somebody who made its hashes right again."""
    original = Bundle.load("nano")
    whole = (BUNDLES / "nano.tflite").read_bytes()
    edited = number % FORGED != 0 and chance.random() < 0.5
    if number % FORGED == 0:
        graph = bytearray(original.model)
        for _ in range(chance.choice([1, 3, 10])):
            place = chance.choice([chance.randrange(2000), chance.randrange(len(graph) - 12_000, len(graph))])
            graph[place] = chance.choice([0, 127, 255, chance.randrange(256)])
        if graph[4:8] != b"TFL3":
            graph[4:8] = b"TFL3"
        Bundle.new(bytes(graph), original.metadata, original.selftest).write(path)
    elif edited:
        file = io.BytesIO()
        file.write(original.model)
        members = original.members()
        which = chance.choice(["metadata.json", "selftest.npz"])
        members[which] = damaged(members[which], chance)
        with zipfile.ZipFile(file, "a") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        path.write_bytes(sealed(file.getvalue(), len(original.model)))
    else:
        path.write_bytes(damaged(whole, chance))
    try:
        predictions = TfliteClassifier(Bundle.load(path)).classify(list(original.selftest.inputs[:1]))
    except EdgeFerError:
        return "refused"
    assert len(predictions) == 1
    # Where nobody made the hashes right again, only the whole file may answer.
    return "answered" if edited or number % FORGED == 0 or path.read_bytes() == whole else "wrong"


def configurations(path: Path, chance: random.Random, number: int) -> str:
    """A configuration of which letters, or values, were changed."""
    text = (ROOT / "firmware_configs" / "edge-fer.toml").read_text(encoding="utf-8")
    if number % 2:
        lines = text.splitlines()
        values = [
            "-1",
            "0",
            "1e999",
            '"x"',
            "[]",
            "{}",
            "true",
            "nan",
            "9" * 30,
            '"\\u0000"',
            '""',
            "1979-05-27",
            "0.5",
        ]
        places = [place for place, line in enumerate(lines) if "=" in line]
        for place in chance.sample(places, min(len(places), chance.choice([1, 2]))):
            lines[place] = f"{lines[place].lstrip('# ').partition('=')[0]}= {chance.choice(values)}"
        path.write_text("\n".join(lines), encoding="utf-8")
    else:
        path.write_bytes(damaged(text.encode(), chance))
    try:
        load_settings(path, {}, {})
    except EdgeFerError as error:
        assert str(error).isprintable()
        return "refused"
    return "answered"


def media(path: Path, chance: random.Random, number: int) -> str:
    """An image or a video that was damaged."""
    samples = sorted(path.parent.glob("sample.*"))
    if not samples:
        frames = list(islice(DemoSource(), 20))
        for suffix in ("png", "jpg", "webp", "bmp", "tiff"):
            cv2.imwrite(str(path.with_name(f"sample.{suffix}")), frames[0].gray)
        for suffix, code in (("mp4", "mp4v"), ("avi", "MJPG"), ("mkv", "mp4v")):
            name = str(path.with_name(f"sample.{suffix}"))
            writer = cv2.VideoWriter(name, cv2.VideoWriter.fourcc(*code), 15, (640, 480))
            for frame in frames:
                writer.write(cv2.cvtColor(frame.gray, cv2.COLOR_GRAY2BGR))
            writer.release()
        samples = sorted(path.parent.glob("sample.*"))
    sample = samples[number % len(samples)]
    path = path.with_suffix(sample.suffix)
    path.write_bytes(damaged(sample.read_bytes(), chance))
    source = None
    try:
        source = open_source(CameraSettings(source=str(path)))
        for frame in islice(source, 40):
            assert frame.gray.dtype == np.uint8
    except EdgeFerError:
        return "refused"
    finally:
        if source is not None:
            source.close()
        path.unlink()
    return "answered"


def resident_mb() -> float:
    """Of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def run_frames(count: int) -> dict[str, float]:
    """The demo over and over, as one stream; memory after a tenth of the frames and at the end."""
    recognizer, done, first_mb = Recognizer.load("nano"), 0, 0.0
    for frame in islice(cycle(DemoSource()), count):
        recognizer.recognize(dataclasses.replace(frame, seq=done, time_s=done / 15))
        done += 1
        if done == max(1, count // 10):
            first_mb = resident_mb()
        if done % 1000 == 0:
            print(json.dumps({"answered": 1000}), flush=True)
    print(json.dumps({"answered": done % 1000}), flush=True)
    return {"grown_mb": round(resident_mb() - first_mb, 1)}


class CutCamera:
    """A camera that sends some JPEG images by http and then hangs up in the middle of one, again and again."""

    def __init__(self) -> None:
        self.connections = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/video.mjpg"
        self._images = [cv2.imencode(".jpg", frame.gray)[1].tobytes() for frame in islice(DemoSource(), 12)]
        Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            self.connections += 1
            with connection:
                try:
                    connection.recv(65536)
                    connection.sendall(
                        b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n"
                    )
                    for image in self._images:
                        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(image)}\r\n\r\n"
                        connection.sendall(head.encode() + image + b"\r\n")
                        time.sleep(0.02)
                    connection.sendall(head.encode() + image[: len(image) // 2])
                except OSError:
                    continue


def run_cuts(count: int) -> dict[str, float]:
    """A stream is read on until it was cut so often."""
    camera, seen, cuts = CutCamera(), 0, 0
    recognizer = Recognizer.load("nano")
    source = open_source(CameraSettings(source=camera.url, fps=15))
    try:
        for frame in source:
            recognizer.recognize(frame)
            seen += 1
            while cuts < camera.connections - 1:  # a connection more is a cut that was survived
                cuts += 1
                print(json.dumps({"answered": 1}), flush=True)
            if cuts >= count:
                break
    except UnavailableError as error:
        print(json.dumps({"wrong": 1, "error": str(error)}), flush=True)
    finally:
        source.close()
    return {"frames": seen}


def batch(kind: str, seed: int, count: int, folder: Path) -> None:
    """In a child process: so many of a kind, a line of JSON for each outcome."""
    match kind:
        case "frames":
            print(json.dumps(run_frames(count)))
            return
        case "cuts":
            print(json.dumps(run_cuts(count)))
            return
    act: Callable[[Path, random.Random, int], str] = {
        "bundles": bundles,
        "configurations": configurations,
        "media": media,
    }[kind]
    for number in range(seed, seed + count):
        path = folder / f"{kind}{'.toml' if kind == 'configurations' else '.tflite'}"
        try:
            outcome = act(path, random.Random(number), number)
        except Exception as error:
            outcome = "wrong"
            print(json.dumps({"error": f"{kind} {number}: {error!r}"[:300]}), flush=True)
        print(json.dumps({outcome: 1}), flush=True)


def soak(kind: str, count: int) -> Counter[str]:
    """All of a kind, batch by batch; Ctrl-C ends it."""
    outcomes: Counter[str] = Counter()
    notes: list[str] = []
    done = 0
    try:
        while done < count:
            size = min(BATCH[kind], count - done)
            for line in lines_of(kind, done, size, outcomes):
                for key, value in json.loads(line).items():
                    if key == "error":
                        notes.append(str(value))
                    elif key == "grown_mb":
                        outcomes["grown_kb"] = max(outcomes["grown_kb"], round(1000 * value))
                    else:
                        outcomes[key] += value
            done += size
            print(f"{kind}: {done:,} of {count:,}  {dict(outcomes)}", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        print(f"{kind}: ended early", file=sys.stderr)
    for note in notes[:10]:
        print(note, file=sys.stderr)
    return outcomes


def lines_of(kind: str, seed: int, count: int, outcomes: Counter[str]) -> Iterator[str]:
    """What a child process prints; where it dies after n of its files, another goes on with the one after."""
    with tempfile.TemporaryDirectory() as folder:
        while count > 0:
            command = [sys.executable, __file__, "--batch", kind, str(seed), str(count), folder]
            child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            assert child.stdout
            ended = 0
            for line in child.stdout:
                ended += any(key in line for key in ("answered", "refused", "wrong"))
                yield line
            if child.wait() == 0:
                return
            outcomes["died"] += 1
            print(f"{kind} {seed + ended}: a child ended with {child.returncode}", file=sys.stderr)
            seed, count = seed + ended + 1, count - ended - 1
            if kind in ("frames", "cuts"):
                return


def table(results: dict[str, Counter[str]]) -> str:
    """What was reached, as Markdown."""
    with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    model = (names or [os.uname().machine])[0]
    lines = [
        f"{datetime.date.today():%d %B %Y}, {model}, Python {sys.version.split()[0]}, OpenCV {cv2.__version__}:",
        "",
        "| what | N | answered | refused in a sentence | wrong | died |",
        "|---|---|---|---|---|---|",
    ]
    for kind, outcomes in results.items():
        counts = [outcomes[key] for key in ("answered", "refused", "wrong", "died")]
        lines.append(f"| {WORDS[kind]} | {sum(counts):,} | {' | '.join(f'{count:,}' for count in counts)} |")
    if "frames" in results:
        grown_mb = results["frames"]["grown_kb"] / 1000
        lines += ["", f"Memory grew by {grown_mb:.1f} MB after the first tenth of a batch of frames."]
    return "\n".join(lines)


def main() -> int:
    """Run the command; returns 1 where something died or was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=10_000, metavar="N", help="of each kind of file (10000)")
    parser.add_argument("--frames", type=int, default=1_000_000, metavar="N", help="in a row (1000000)")
    parser.add_argument("--cuts", type=int, default=200, metavar="N", help="of a stream (200)")
    parser.add_argument("--write", action="store_true", help="put the table into docs/reliability.md")
    parser.add_argument("--batch", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.batch:
        kind, seed, count, folder = args.batch
        batch(kind, int(seed), int(count), Path(folder))
        return 0
    numbers = {kind: args.mutations for kind in ("bundles", "configurations", "media")}
    numbers = {**numbers, "cuts": args.cuts, "frames": args.frames}
    results = {kind: soak(kind, number) for kind, number in numbers.items() if number}
    text = table(results)
    print(text)
    if args.write:
        before, _, _ = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n", encoding="utf-8")
    return int(any(outcomes["wrong"] or outcomes["died"] for outcomes in results.values()))


if __name__ == "__main__":
    sys.exit(main())
