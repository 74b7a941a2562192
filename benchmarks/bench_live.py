"""What live cameras cost: memory, CPU, and the time from capture to event, against goals.

    python benchmarks/bench_live.py --video FILE

FILE is a clip with a face. It is sent as MJPEG by HTTP and as raw planes through a pipe, at 30 frames a second, as
cameras do, by processes of their own; `edge-fer run` is measured in processes that do nothing else. Each frame that is
sent holds its number, so that its way is timed from when it leaves the sender until the sinks have it.
"""

from __future__ import annotations

import argparse
import dataclasses
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from bench_stream import Row, at_most, print_tables
from numpy.typing import NDArray

from edge_fer.board import describe_machine
from edge_fer.config import CameraSettings
from edge_fer.core import Frame, Image
from edge_fer.recognizer import Recognizer
from edge_fer.sources import open_source
from edge_fer.sources.camera import reduced, reduction

FPS = 30
SIZES = ((640, 480), (1280, 720), (1920, 1080))
SECONDS = 10
BIT_PX = 24
BITS = 14
"""A frame's number is drawn as so many squares of ``BIT_PX``, black for 0 and white for 1, along its upper edge."""

_RUN = """
import os, signal, sys, threading
stop = threading.Timer(float(sys.argv[1]), os.kill, (os.getpid(), signal.SIGTERM))
stop.daemon = True
stop.start()
from edge_fer.cli import main
cameras = [argument for camera in sys.argv[2:] for argument in ("--camera", camera)]
code = main(["run", *cameras, "--output", "jsonl:" + os.devnull])
(peak,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(int(peak.split()[1]) * 1024 / 1e6, flush=True)
os._exit(code)
"""


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code. A goal that is missed is a line of the table, not a failure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path, required=True, metavar="FILE", help="a clip with a face")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--serve", nargs=3, type=int, metavar=("PORT", "WIDTH", "HEIGHT"), help=argparse.SUPPRESS)
    parser.add_argument("--pipe", nargs=2, type=int, metavar=("WIDTH", "HEIGHT"), help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.serve:
        serve(args.video, args.serve[0], (args.serve[1], args.serve[2]))
        return 0
    if args.pipe:
        feed(args.video, (args.pipe[0], args.pipe[1]))
        return 0
    cv2.setNumThreads(1)
    rows = [*memory_rows(args.video), cpu_row(args.video), *latency_rows(args.video)]
    if args.json:
        goals = [dataclasses.asdict(row) for row in rows]
        print(json.dumps({"date": datetime.now(UTC).date().isoformat(), **describe_machine(), "goals": goals}))
    else:
        print_tables(rows, [], describe_machine())
    return 0


# --- what sends


def images(video: Path, size_wh: tuple[int, int], most: int = 150) -> list[Image]:
    """The clip's first frames in a size, BGR."""
    capture = cv2.VideoCapture(str(video))
    found: list[Image] = []
    while len(found) < most and (got := capture.read())[0]:
        found.append(cv2.resize(got[1], size_wh).astype(np.uint8, copy=False))
    return found


def number(image: Image, count: int) -> Image:
    """Draw a frame's number into a copy of it."""
    image = image.copy()
    for bit in range(BITS):
        image[:BIT_PX, bit * BIT_PX : (bit + 1) * BIT_PX] = 255 * (count >> bit & 1)
    return image


def number_of(gray: Image, width: int) -> int:
    """The number of a frame that was sent with so many pixels a row."""
    px = BIT_PX * gray.shape[1] // width
    bits = [int(gray[px // 2, bit * px + px // 2] > 127) for bit in range(BITS)]
    return sum(value << bit for bit, value in enumerate(bits))


def serve(video: Path, port: int, size_wh: tuple[int, int]) -> None:
    """MJPEG by HTTP. Prints when each frame leaves, and its number."""
    pictures = images(video, size_wh)
    jpegs = [
        cv2.imencode(".jpg", number(pictures[n % len(pictures)], n))[1].tobytes() for n in range(SECONDS * 2 * FPS)
    ]

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            due_s = time.monotonic()
            with suppress(OSError):
                for count, jpeg in enumerate(jpegs):
                    time.sleep(max(0.0, due_s - time.monotonic()))
                    due_s += 1 / FPS
                    print(count, time.monotonic(), flush=True)
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                    self.wfile.write(head.encode() + jpeg + b"\r\n")

    http.server.ThreadingHTTPServer.daemon_threads = True
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    print("ready", flush=True)
    server.serve_forever()


def feed(video: Path, size_wh: tuple[int, int]) -> None:
    """YUV420 planes on stdout."""
    planes = [cv2.cvtColor(one, cv2.COLOR_BGR2YUV_I420).tobytes() for one in images(video, size_wh, 30)]
    due_s = time.monotonic()
    with suppress(BrokenPipeError):
        for count in range(SECONDS * FPS):
            time.sleep(max(0.0, due_s - time.monotonic()))
            due_s += 1 / FPS
            sys.stdout.buffer.write(planes[count % len(planes)])
            sys.stdout.buffer.flush()


@contextmanager
def server_of(video: Path, size_wh: tuple[int, int]) -> Iterator[tuple[str, dict[int, float]]]:
    """A camera in a process of its own: its address, and when each frame has left."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    command = [sys.executable, __file__, "--video", str(video), "--serve", str(port), *map(str, size_wh)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    process.stdout.readline()
    sent_s: dict[int, float] = {}

    def listen() -> None:
        for line in process.stdout or ():
            count, at_s = line.split()
            sent_s[int(count)] = float(at_s)

    threading.Thread(target=listen, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{port}/stream", sent_s
    finally:
        process.kill()
        process.wait()


# --- what is measured


def peak_mb(*cameras: str, stdin: Any = None) -> float:
    """Peak RSS of `edge-fer run` over some seconds of live cameras."""
    command = [sys.executable, "-c", _RUN, str(SECONDS), *cameras]
    done = subprocess.run(command, stdin=stdin, capture_output=True, text=True, check=True)
    return float(done.stdout.strip().splitlines()[-1])


def memory_rows(video: Path) -> list[Row]:
    """Peak RSS by size and kind, and what a second camera adds."""
    rows, alone = [], 0.0
    for size_wh in SIZES:
        with server_of(video, size_wh) as (address, _):
            mb = peak_mb(address)
        alone = mb
        rows.append(at_most(f"peak RSS, MJPEG of {size_wh[0]}x{size_wh[1]}", round(mb, 1), 90, "MB", f"{SECONDS} s"))
    width, height = SIZES[-1]
    command = [sys.executable, __file__, "--video", str(video), "--pipe", str(width), str(height)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        mb = peak_mb(f"pipe:{width}x{height}@{FPS}", stdin=process.stdout)
        process.kill()
    rows.append(at_most(f"peak RSS, raw planes of {width}x{height}", round(mb, 1), 90, "MB", f"{SECONDS} s"))
    with server_of(video, SIZES[-1]) as (one, _), server_of(video, SIZES[-1]) as (other, _):
        both = peak_mb(one, other)
    note = f"two MJPEG cameras of {width}x{height} {both:.1f} MB, one {alone:.1f} MB"
    return [*rows, at_most("a second camera", round(both - alone, 1), 25, "MB", note)]


def cpu_row(video: Path) -> Row:
    """CPU of recognition, beside decoding, in 1920x1080 and in 640x480."""
    costs_ms = []
    for width, height in (SIZES[0], SIZES[-1]):
        factor = reduction(width, height)
        grays = [cv2.cvtColor(reduced(one, factor), cv2.COLOR_BGR2GRAY) for one in images(video, (width, height))]
        costs_ms.append(recognition_ms([gray.astype(np.uint8, copy=False) for gray in grays]))
    note = f"{costs_ms[1]:.2f} / {costs_ms[0]:.2f} ms a frame"
    return at_most("CPU of 1920x1080 against 640x480", round(costs_ms[1] / costs_ms[0], 2), 1.5, "times", note)


def recognition_ms(grays: Sequence[Image]) -> float:
    """Mean CPU milliseconds of a frame after the first, which is searched whole."""
    recognizer = Recognizer.load()
    total_ns = 0
    for seq, gray in enumerate(grays):
        since_ns = time.process_time_ns()
        recognizer.recognize(Frame(gray, seq, seq / FPS, "bench"))
        total_ns += time.process_time_ns() - since_ns if seq else 0
    return total_ns / (len(grays) - 1) / 1e6


def latency_rows(video: Path) -> list[Row]:
    """From when a frame leaves the camera until the recognizer has its result."""
    rows = []
    for width, height in (SIZES[0], SIZES[-1]):
        recognizer = Recognizer.load()
        seen: list[tuple[int, float]] = []
        with server_of(video, (width, height)) as (address, sent_s):
            with closing(open_source(CameraSettings(source=address))) as source:
                for frame in source:
                    recognizer.recognize(frame)
                    seen.append((number_of(frame.gray, width), time.monotonic()))
                    if frame.time_s > SECONDS:
                        break
            # Without the first second, in which the reader catches up with what came while it looked at the stream.
            waits_ms = [1000 * (at_s - sent_s[count]) for count, at_s in seen[FPS:] if count in sent_s]
        p50, p95 = percentiles(np.array(waits_ms))
        note = f"median {p50:.1f} ms of {len(waits_ms)} frames; a frame's time is {1000 / FPS:.1f} ms"
        what = f"camera to result, p95, {width}x{height}"
        rows.append(at_most(what, round(p95, 1), round(1000 / FPS + 20, 1), "ms", note))
    return rows


def percentiles(values: NDArray[np.float64]) -> tuple[float, float]:
    """Median and 95th percentile."""
    p50, p95 = np.percentile(values, (50, 95))
    return float(p50), float(p95)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).parents[1]))
    sys.exit(main())
