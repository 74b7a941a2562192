"""``edge-fer run``: settings -> pipeline -> until the source ends or a signal comes."""

from __future__ import annotations

import argparse
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from edge_fer.cli.verbs import Verbs, add_verb
from edge_fer.config import Settings, load_settings
from edge_fer.errors import EXIT_CODES, UsageError

EXAMPLES = """examples:
  edge-fer run --camera demo                         faces that edge-fer draws itself: needs no camera
  edge-fer run --camera 0                            a USB webcam, live in the terminal
  edge-fer run --camera picamera:0                   a Raspberry Pi camera module
  edge-fer run --camera clip.mp4 --output video:annotated.mp4
  rpicam-vid -t 0 --codec mjpeg -o - | edge-fer run --camera -
  rpicam-vid -t 0 --codec yuv420 --width 640 --height 480 -o - | edge-fer run --camera pipe:640x480@30
  edge-fer run --camera photos/ --output jsonl:- | jq .expression
  edge-fer run --config /etc/edge-fer/config.toml    what the systemd service does

Ctrl-C stops cleanly: files are closed and complete.

exit codes:
""" + "".join(f"  {code:>3}  {meaning}\n" for code, meaning in EXIT_CODES.items())


def add_run(verbs: Verbs) -> None:
    """Add the verb."""
    run = add_verb(verbs, "run", "recognize expressions in a camera, video, image or folder", EXAMPLES)
    run.add_argument(
        "--camera",
        metavar="SOURCE",
        help="0, /dev/video2, picamera:0, rtsp://..., http://..., a video, an image, a folder, - for a video from "
        "stdin, pipe:WxH@HZ[:PATH] for YUV420 frames, or demo (default: 0)",
    )
    run.add_argument(
        "--output",
        metavar="SINK",
        action="append",
        help="terminal, jsonl:PATH, csv:PATH, video:PATH, pictures:DIR; may be given often; - is stdout",
    )
    run.add_argument("--model", metavar="NAME", help="a model of the package, or a bundle's file (default: accurate)")
    run.add_argument("--device", choices=["cpu", "edgetpu"], help="where the model runs (default: cpu)")
    run.add_argument("--threads", type=int, metavar="N", help="CPU threads of the model (default: 1)")
    run.add_argument(
        "--detector", choices=["haar", "lbp", "yunet", "blazeface"], help="what finds the faces (default: haar)"
    )
    run.add_argument(
        "--detector-model", metavar="FILE", help="its file: YuNet's .onnx, BlazeFace's .tflite, or a cascade's .xml"
    )
    run.add_argument("--min-face", type=int, metavar="PX", help="smallest face to look for (default: 40)")
    run.add_argument("--width", type=int, metavar="PX", help="image width to ask a camera for (default: 640)")
    run.add_argument("--height", type=int, metavar="PX", help="image height to ask a camera for (default: 480)")
    run.add_argument("--fps", type=int, metavar="HZ", help="frame rate to ask a camera for (default: 30)")
    run.add_argument("--name", help="name of this device in events (default: the host name)")
    run.add_argument(
        "--config",
        type=Path,
        metavar="TOML",
        help="configuration file; flags win over it (default: /etc/edge-fer/config.toml, else "
        "~/.config/edge-fer/config.toml, if there is one)",
    )
    run.set_defaults(act=_run)


def _run(args: argparse.Namespace) -> None:
    flags = {
        "name": args.name,
        "outputs": args.output,
        "camera.source": args.camera,
        "camera.width": args.width,
        "camera.height": args.height,
        "camera.fps": args.fps,
        "detector.kind": args.detector,
        "detector.model": args.detector_model,
        "detector.min_face_px": args.min_face,
        "model.path": args.model,
        "model.device": args.device,
        "model.threads": args.threads,
    }
    run(load_settings(args.config, os.environ, flags))


def run(settings: Settings) -> None:
    """Open everything, then loop: one frame, one result, every sink; until the source ends or a signal stops it.

    Raises:
        EdgeFerError: something cannot be opened, or broke on the way. What was written is closed and complete.
        BrokenPipeError: stdout was closed by its reader.
    """
    _check_outputs(settings)
    stopping = Stopping()

    from edge_fer.pipeline import Pipeline

    with Pipeline(settings) as pipeline:
        stopping.call(pipeline.stop)
        if not stopping.requested:
            for _ in pipeline:
                pass


def _check_outputs(settings: Settings) -> None:
    """Refuse outputs that would write into one another, or into the file that is read."""
    stdout_users = [spec for spec in settings.outputs if spec == "terminal" or spec.endswith(":-")]
    if len(stdout_users) > 1:
        raise UsageError(f"{' and '.join(stdout_users)} would mix on stdout; give one of them a file.")
    source = _resolved(settings.camera.source)
    written: dict[Path, str] = {}
    for spec in settings.outputs:
        name = spec.partition(":")[2]
        if name in ("", "-"):
            continue
        path = _resolved(name)
        if path == source and source.is_file():
            raise UsageError(f"{spec} would replace the file that is read; give it another name.")
        if path in written:
            raise UsageError(f"{written[path]} and {spec} would mix in one file; give one of them another name.")
        written[path] = spec


def _resolved(name: str) -> Path:
    return Path(os.path.expanduser(name)).resolve()  # noqa: PTH111 - pathlib's fails where there is no such user


class Stopping:
    """SIGINT and SIGTERM ask the loop to end after the frame in hand; the second one ends the process at once."""

    def __init__(self) -> None:
        self.requested = False
        self._act: Callable[[], None] | None = None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def call(self, act: Callable[[], None]) -> None:
        """Have a function called at the signal, so that a source that waits for a frame wakes up."""
        self._act = act

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        signal.signal(number, signal.SIG_DFL)
        if self._act is not None:
            self._act()
