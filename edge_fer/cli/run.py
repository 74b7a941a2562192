"""``edge-fer run``: settings -> pipeline -> until the source ends or a signal comes."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from types import FrameType
from typing import Any, get_args

from edge_fer.address import NETWORK, printable
from edge_fer.cli.verbs import Verbs, add_verb
from edge_fer.config import CameraSettings, DetectorKind, Settings, default_file
from edge_fer.config_file import variable
from edge_fer.errors import EXIT_CODES, UsageError
from edge_fer.files import mode_of, resolved
from edge_fer.layers import load_settings
from edge_fer.systemd import Service

GRACE_S = 1.2
"""How long the frame in hand may take after a signal."""

EXAMPLES = """examples:
  edge-fer run --camera demo                         faces that edge-fer draws itself: needs no camera
  edge-fer run --camera 0                            a USB webcam, live in the terminal
  edge-fer run --camera 0 --output terminal:picture  with the picture, over SSH too
  edge-fer run --camera picamera:0                   a Raspberry Pi camera module, through picamera2
  edge-fer run --camera rpicam:0                     the same through rpicam-vid: where picamera2 is not to be had
  edge-fer run --camera 0 --camera rtsp://10.0.0.7/live --output jsonl:faces.jsonl
  edge-fer run --camera clip.mp4 --output video:annotated.mp4
  rpicam-vid -t 0 --codec mjpeg -o - | edge-fer run --camera -
  rpicam-vid -t 0 --codec yuv420 --width 640 --height 480 -o - | edge-fer run --camera pipe:640x480@30
  edge-fer run --camera photos/ --output jsonl:- | jq .expression
  edge-fer run --camera 0 --output web:127.0.0.1:8080                a page for the browser
  edge-fer run --config /etc/edge-fer/config.toml    what the systemd service does

Ctrl-C stops cleanly: files are closed and complete.

What an output finds where it writes: the results of a file, folder or the demo replace those of the last run. Of a
camera nothing is lost: jsonl and csv go on in their file, video writes annotated-2.mp4 beside annotated.mp4, and
pictures a folder annotated/2/ into annotated/. With --overwrite they are replaced too.

exit codes:
""" + "".join(f"  {code:>3}  {meaning}\n" for code, meaning in EXIT_CODES.items())


def add_run(verbs: Verbs) -> None:
    """Add the verb."""
    run = add_verb(verbs, "run", "recognize expressions in a camera, video, image or folder", EXAMPLES)
    run.add_argument(
        "--camera",
        metavar="SOURCE",
        action="append",
        help="0, /dev/video2, picamera:0, rpicam:0, rtsp://..., http://..., a video, an image, a folder, - for a video "
        "from stdin, pipe:WxH@HZ[:PATH] for YUV420 frames, demo, or demo:loop without end; may be given often "
        "(default: 0)",
    )
    run.add_argument(
        "--output",
        metavar="SINK",
        action="append",
        help="terminal, jsonl:PATH, csv:PATH, video:PATH, pictures:DIR, mqtt://USER@HOST, web:HOST:PORT, webhook:URL; "
        "may be given often; - is stdout; terminal:picture shows what the camera sees, terminal:blocks does so in text "
        "alone",
    )
    run.add_argument(
        "--fast", action="store_true", help="play the demo as fast as it goes, in a terminal too: it takes 16 s there"
    )
    run.add_argument(
        "--overwrite", action="store_const", const=True, help="replace what an earlier recording of a camera has left"
    )
    run.add_argument("--model", metavar="NAME", help="a model of the package, or a bundle's file (default: accurate)")
    run.add_argument("--device", choices=["cpu", "edgetpu"], help="where the model runs (default: cpu)")
    run.add_argument(
        "--decision",
        choices=["balanced", "as-trained"],
        help="what the answer supposes: all expressions alike frequent, or the class mix of the training data "
        "(default: balanced)",
    )
    run.add_argument(
        "--tta",
        action="store_const",
        const=True,
        help="answer by the mean of a face and its mirror image: a little steadier, and the network runs twice",
    )
    run.add_argument(
        "--compound",
        action="store_const",
        const=True,
        help="events also say which two expressions a face shows at once, where both are probable",
    )
    run.add_argument("--threads", type=int, metavar="N", help="CPU threads of the model (default: 1)")
    run.add_argument(
        "--detector",
        choices=get_args(DetectorKind),
        help="what finds the faces (default: auto, which is ssd, or haar where that cannot be opened)",
    )
    run.add_argument(
        "--detector-model",
        metavar="FILE",
        help="its file: YuNet's .onnx, BlazeFace's .tflite, a cascade's .xml, or a bundle",
    )
    run.add_argument("--min-face", type=int, metavar="PX", help="smallest face to look for (default: 40)")
    run.add_argument("--width", type=int, metavar="PX", help="image width to ask a camera for (default: 640)")
    run.add_argument("--height", type=int, metavar="PX", help="image height to ask a camera for (default: 480)")
    run.add_argument("--fps", type=int, metavar="HZ", help="frame rate to ask a camera for (default: 30)")
    run.add_argument(
        "--show-video",
        action="store_const",
        const=True,
        help="the page of web:HOST:PORT shows pictures; else boxes on an empty stage",
    )
    run.add_argument(
        "--web-token-file", metavar="FILE", help="the token that opens the page: at least 16 letters in a file"
    )
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
        "overwrite": args.overwrite,
        "camera.source": args.camera[0] if args.camera else None,
        "cameras": [] if args.camera else None,
        "camera.width": args.width,
        "camera.height": args.height,
        "camera.fps": args.fps,
        "detector.kind": args.detector,
        "detector.model": args.detector_model,
        "detector.min_face_px": args.min_face,
        "model.path": args.model,
        "model.device": args.device,
        "model.threads": args.threads,
        "model.decision": args.decision,
        "model.compound": args.compound,
        "model.tta": args.tta,
        "web.show_video": args.show_video,
        "web.token_file": args.web_token_file,
    }

    def load() -> Settings:
        settings = load_settings(args.config, os.environ, flags)
        cameras = settings.cameras
        if len(args.camera or ()) > 1:
            cameras = [replace(settings.camera, source=source, name="") for source in args.camera]
        asked = {name: getattr(args, name) for name in ("width", "height", "fps") if getattr(args, name) is not None}
        settings = replace(settings, cameras=[replace(one, **asked) for one in cameras])
        if args.camera:
            recorded = [_as_recorded(one, os.environ) for one in (settings.camera, *settings.cameras)]
            settings = replace(settings, camera=recorded[0], cameras=recorded[1:])
        return settings

    run(load(), args.config or default_file(), fast=args.fast, load=load)


def _as_recorded(camera: CameraSettings, environ: Mapping[str, str]) -> CameraSettings:
    """A camera of the command line without the name and the mounting of the configuration's, if it is a file or folder.

    What a camera that hangs upside down has recorded stands upright. Variables are taken to be meant.
    """
    mode = mode_of(resolved(camera.source))
    if not (S_ISREG(mode) or S_ISDIR(mode)) or camera.source.isdecimal():
        return camera
    others: dict[str, Any] = {"name": "", "rotation": 0, "flip": "none"}
    return replace(camera, **{key: value for key, value in others.items() if variable(f"camera.{key}") not in environ})


def run(
    settings: Settings, config: Path | None = None, *, fast: bool = False, load: Callable[[], Settings] | None = None
) -> None:
    """Open everything, then loop: one frame, one result, every sink; until the source ends or a signal stops it.

    As a service of systemd (``Type=notify``) it says what it does, feeds the watchdog with every frame, waits for a
    camera that is not there, and shows the demo again and again. On SIGHUP it reads its settings again.

    Args:
        settings: what to do.
        config: the file that they come from, which no output may replace.
        fast: the demo does not wait for its time, as it does where somebody looks on.
        load: reads the settings again; None where nothing can have changed.

    Raises:
        EdgeFerError: something cannot be opened, or broke on the way. What was written is closed and complete.
        BrokenPipeError: stdout was closed by its reader.
    """
    check_outputs(settings, config)
    stopping = Stopping()
    service = Service.from_environ(os.environ)
    if service:
        settings = _without_end(settings)

    from edge_fer.pipeline import Pipeline
    from edge_fer.service.daemon import Daemon

    daemon = service and Daemon(service, settings, lambda: _without_end(load() if load else settings), os.environ)
    if daemon:
        signal.signal(signal.SIGHUP, lambda number, frame: daemon.request_reload())

    with suppress(Stopped):
        try:
            stopping.interrupt()
            with Pipeline(settings, *((True, daemon.idle, daemon.control) if daemon else ())) as pipeline:
                stopping.call(pipeline.stop)
                if daemon:
                    daemon.pipeline = pipeline
                frame_s = _frame_s(settings, fast)
                due_s = time.monotonic()
                for _ in pipeline:
                    now_s = time.monotonic()
                    due_s = max(due_s + max(frame_s, daemon.frame_s if daemon else 0.0), now_s)
                    time.sleep(due_s - now_s)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            if service:
                service.stopping()


def _without_end(settings: Settings) -> Settings:
    """The settings with the demo again and again in place of the demo."""

    def endless(camera: CameraSettings) -> CameraSettings:
        return replace(camera, source="demo:loop") if camera.source == "demo" else camera

    return replace(settings, camera=endless(settings.camera), cameras=[endless(one) for one in settings.cameras])


def _frame_s(settings: Settings, fast: bool) -> float:
    """How long a frame of the demo lasts where somebody looks on; 0 for no longer than it takes."""
    is_seen = sys.stdout.isatty() and any(map(_is_terminal, settings.outputs))
    if any(camera.source != "demo" for camera in settings.all_cameras) or fast or not is_seen:
        return 0.0
    from edge_fer.sources.demo import DemoSource

    return 1 / DemoSource.fps


def _is_terminal(spec: str) -> bool:
    return spec.partition(":")[0] == "terminal"


def check_outputs(settings: Settings, config: Path | None) -> None:
    """Refuse outputs that would write into one another, or into what is read.

    Args:
        settings: what is read and written.
        config: the file that they come from.

    Raises:
        UsageError: names the output.
    """
    stdout_users = [spec for spec in settings.outputs if _is_terminal(spec) or spec.endswith(":-")]
    if len(stdout_users) > 1:
        raise UsageError(f"{' and '.join(stdout_users)} would mix on stdout; leave one out, or give it a file.")
    if len(brokers := [spec for spec in settings.outputs if spec.partition(":")[0] in ("mqtt", "mqtts")]) > 1:
        raise UsageError(f"{' and '.join(map(printable, brokers))}: [mqtt] speaks of one broker; leave one out.")
    sources = [resolved(camera.source) for camera in settings.all_cameras]
    read: list[tuple[str, Path | str | None]] = [("file that is read", source) for source in sources]
    read += [("configuration", config), ("model", settings.model.path), ("detector's model", settings.detector.model)]
    written: dict[Path, str] = {}
    for spec in settings.outputs:
        kind, _, name = spec.partition(":")
        if kind == "terminal" or kind in NETWORK or name in ("", "-"):
            continue
        path = resolved(name)
        for what, file in read:
            if file and S_ISREG(mode_of(there := resolved(file))) and _is_same(path, there):
                raise UsageError(f"{spec} would replace the {what}; give it another name.")
        if Path(__file__).parents[1] in path.parents:
            raise UsageError(f"{spec} would write among the files of edge-fer itself; give it another place.")
        if kind == "pictures" and any(_holds_source(path, source) for source in sources):
            raise UsageError(f"{spec}: {name} holds the pictures that are read. Choose another folder for output.")
        if S_ISREG(mode_of(path)) and any(_is_same(path, file) for source in sources for file in _pictures_in(source)):
            raise UsageError(f"{spec} would replace a picture that is read; give it another name.")
        same = next((other for there, other in written.items() if _is_same(path, there)), None)
        if same is not None:
            raise UsageError(f"{same} and {spec} would mix in one file; give one of them another name.")
        written[path] = spec


def _is_same(one: Path, other: Path) -> bool:
    """Whether two paths are one file, by name or by a hard link."""
    try:
        return one == other or one.samefile(other)
    except OSError:  # there is none yet
        return False


def _holds_source(folder: Path, source: Path) -> bool:
    """Whether pictures of the source, a file or a folder, lie in an output's folder."""
    if S_ISREG(mode_of(source)):
        return source.parent == folder
    return (folder == source or source in folder.parents) and next(_pictures_in(folder), None) is not None


def _pictures_in(folder: Path) -> Iterator[Path]:
    from edge_fer.sources.folder import is_candidate

    files = (Path(place, name) for place, _, names in os.walk(folder) for name in names)
    return filter(is_candidate, files)


class Stopped(BaseException):
    """Ends whatever the main thread waits for, after a signal."""


class Stopping:
    """SIGINT, SIGTERM and SIGHUP ask the loop to end after the frame in hand; the second one ends the process at once.

    What holds the loop for longer than ``GRACE_S``, such as a pipe that nobody reads, is interrupted by ``Stopped``,
    and so is what the pipeline waits for while it is opened.
    """

    def __init__(self) -> None:
        self._requested = False
        self._interrupts = False
        self._act: Callable[[], None] | None = None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        if "NOTIFY_SOCKET" in os.environ:
            # To a service of systemd SIGHUP means: read the configuration again. Until it can it must not die of it.
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        elif signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup sets it
            signal.signal(signal.SIGHUP, self._on_signal)

    def interrupt(self) -> None:
        """From now on a signal raises ``Stopped``, and so does this if one has come: libraries are loaded."""
        self._interrupts = True
        if self._requested:
            raise Stopped

    def call(self, act: Callable[[], None]) -> None:
        """From now on a function is called at the signal instead, so that a source that waits for a frame wakes up."""
        self._act = act

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._requested = True
        signal.signal(number, signal.SIG_DFL)
        if self._act is not None:
            signal.signal(signal.SIGALRM, self._on_alarm)
            signal.setitimer(signal.ITIMER_REAL, GRACE_S, GRACE_S)
            self._act()
        elif self._interrupts:
            raise Stopped

    def _on_alarm(self, number: int, frame: FrameType | None) -> None:
        raise Stopped
