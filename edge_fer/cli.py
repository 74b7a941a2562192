"""The command line: verbs -> settings -> objects -> the loop."""

from __future__ import annotations

import argparse
import difflib
import errno
import json
import logging
import os
import platform
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from edge_fer.config import Settings, default_files, load_settings, update_file
from edge_fer.errors import EdgeFerError, OutputError, UsageError
from edge_fer.version import __version__

if TYPE_CHECKING:
    from edge_fer.recognizer import Recognizer

# Heavy imports (OpenCV, LiteRT, rich) wait until a verb needs them: --help and errors answer at once.

RUN_EXAMPLES = """examples:
  edge-fer run --camera demo                         faces that edge-fer draws itself: needs no camera
  edge-fer run --camera 0                            a USB webcam, live in the terminal
  edge-fer run --camera picamera:0                   a Raspberry Pi camera module
  edge-fer run --camera clip.mp4 --output video:annotated.mp4
  edge-fer run --camera photos/ --output jsonl:- | jq .expression
  edge-fer run --config /etc/edge-fer/config.toml    what the systemd service does

Ctrl-C stops cleanly: files are closed and complete. Exit codes: 0 done or stopped, 2 usage, 65 bad data,
66 no such file, 69 camera or package not available, 73 cannot write, 78 configuration.
"""
MODELS_EXAMPLES = """examples:
  edge-fer models                  the models in the package
  edge-fer models show             the card of the default model
  edge-fer models show my.tflite   the card of a file
  edge-fer models verify my.tflite is the file whole, and does it compute the same here as where it was made?
  edge-fer models extract my.tflite -o parts/   model, card, self-test and labels as files
  edge-fer models --json           for programs
"""
BENCH_EXAMPLES = """examples:
  edge-fer bench                              on the faces of the demo
  edge-fer bench --camera clip.mp4 --frames 500
  edge-fer bench --json                       one line for the table of boards in docs/benchmarks.md
  edge-fer bench --tune --camera 0            try settings for up to a minute, and write the best to the configuration
"""


class _Parser(argparse.ArgumentParser):
    """argparse, with one line for an error instead of the usage text."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}. See `{self.prog} --help`.")


def build_parser() -> argparse.ArgumentParser:
    """The parser of all verbs; ``firmware_configs`` is tested against it."""
    parser = _Parser(
        prog="edge-fer",
        description="Facial-expression recognition for small boards.",
        epilog="`edge-fer VERB --help` shows the options of a verb, with examples.",
    )
    parser.add_argument("--version", action="version", version=f"edge-fer {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def add_verb(name: str, text: str, examples: str) -> argparse.ArgumentParser:
        verb = verbs.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog=examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        verb.add_argument("-v", "--verbose", action="store_true", help="log more, and show tracebacks")
        return verb

    run = add_verb("run", "recognise expressions in a camera, video, picture or folder", RUN_EXAMPLES)
    run.add_argument(
        "--camera",
        metavar="SOURCE",
        help="0, /dev/video2, picamera:0, rtsp://..., a video, a picture, a folder, or demo (default: 0)",
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
    run.add_argument("--width", type=int, metavar="PX", help="picture width to ask a camera for (default: 640)")
    run.add_argument("--height", type=int, metavar="PX", help="picture height to ask a camera for (default: 480)")
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

    models = add_verb("models", "list models; show, verify or extract one", MODELS_EXAMPLES)
    models.add_argument("--json", action="store_true", help="print JSON")
    models.set_defaults(act=_list_models)
    of_one = models.add_subparsers(metavar="show|verify|extract")
    show = of_one.add_parser("show", help="the card of one model")
    show.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")
    show.set_defaults(act=_show_model)
    verify = of_one.add_parser("verify", help="check a model's card, hash and self-test on this machine")
    verify.set_defaults(act=_verify_model)
    extract = of_one.add_parser("extract", help="write the parts of a bundle as files")
    extract.add_argument("-o", "--output", type=Path, metavar="DIR", help="folder (default: the model's name)")
    extract.set_defaults(act=_extract_model)
    for verb in (show, verify, extract):
        verb.add_argument(
            "file",
            nargs="?",
            type=Path,
            metavar="NAME",
            help="a model of the package, or a bundle's file (default: accurate)",
        )

    cameras = add_verb("cameras", "list the cameras of this machine", "example:\n  edge-fer cameras --json\n")
    cameras.add_argument("--json", action="store_true", help="print JSON")
    cameras.set_defaults(act=_cameras)

    bench = add_verb("bench", "measure how fast this board is", BENCH_EXAMPLES)
    bench.add_argument("--camera", metavar="SOURCE", default="demo", help="as for run (default: demo)")
    bench.add_argument("--frames", type=int, metavar="N", default=300, help="measure at most so many (default: 300)")
    bench.add_argument("--json", action="store_true", help="print one line of JSON")
    bench.add_argument("--tune", action="store_true", help="find the best settings and write them to the configuration")
    bench.add_argument(
        "--config", type=Path, metavar="TOML", help="configuration file to read, and to write with --tune"
    )
    bench.set_defaults(act=_bench)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    _open_closed_streams()
    verbose = "-v" in (arguments or sys.argv) or "--verbose" in (arguments or sys.argv)
    logging.basicConfig(format="edge-fer: %(message)s", level=logging.INFO if verbose else logging.WARNING)
    try:
        parser = build_parser()
        args, unknown = parser.parse_known_args(arguments)
        if unknown:
            raise UsageError(_about_unknown(parser, args.verb, unknown[0]))
        act: Callable[[argparse.Namespace], None] = args.act
        act(args)
        sys.stdout.flush()
    except EdgeFerError as error:
        print(f"edge-fer: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # The reader of our stdout has left, as `head` does. Python would complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            # Sinks say so themselves; this is what a table or a list on stdout has met.
            print(f"edge-fer: Cannot write to stdout: {error.strerror}. Make room on the disk.", file=sys.stderr)
            return OutputError.exit_code
        if verbose:
            raise
        print(f"edge-fer: internal error: {error!r}. --verbose shows where; please report it.", file=sys.stderr)
        return 70
    return 0


def _open_closed_streams() -> None:
    """Put /dev/null where stdout or stderr is closed, else the next file that is opened would take its number."""
    # In this order: the lowest free number is taken, and stdout's is 1.
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123 - it stays open


def _about_unknown(parser: argparse.ArgumentParser, verb: str, argument: str) -> str:
    if not argument.startswith("-"):
        hint = f" Did you mean --camera {argument}?" if verb == "run" else ""
        return f"Unexpected argument {argument}.{hint} See `edge-fer {verb} --help`."
    (verbs,) = (action.choices for action in parser._actions if isinstance(action.choices, dict))
    near = difflib.get_close_matches(argument.split("=")[0], verbs[verb]._option_string_actions, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"Unknown option {argument}.{hint} See `edge-fer {verb} --help`."


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

    from edge_fer.events import RunInfo
    from edge_fer.sinks import open_sink
    from edge_fer.sources import open_source

    recognizer = build_recognizer(settings)
    card = recognizer.bundle.card
    with ExitStack() as stack:
        source = open_source(settings.camera)
        stack.callback(source.close)
        info = RunInfo(
            device=settings.name or platform.node(),
            model=card.name,
            model_sha256=card.model_sha256,
            fps=source.fps,
            live=source.live,
        )
        sinks = []
        for spec in settings.outputs:
            sink = open_sink(spec, info)
            stack.callback(sink.close)
            sinks.append(sink)
        stopping.call(source.close)
        if stopping.requested:
            return
        for frame in source:
            result = recognizer.recognize(frame)
            for sink in sinks:
                sink.write(result)
            del frame, result  # their pictures, before the source makes the next
            if stopping.requested:
                break


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


def build_recognizer(settings: Settings) -> Recognizer:
    """The recognizer that settings ask for: what ``run`` uses, and ``bench`` measures.

    Raises:
        EdgeFerError: the model, the runtime or OpenCV is not as it should be.
    """
    from edge_fer.bundle import DEFAULT_MODEL, load_bundle
    from edge_fer.classifier import TfliteClassifier
    from edge_fer.detectors import open_detector
    from edge_fer.recognizer import Recognizer

    bundle = load_bundle(Path(settings.model.path or DEFAULT_MODEL))
    classifier = TfliteClassifier(bundle, settings.model.threads, settings.model.device)
    return Recognizer(
        open_detector(settings.detector),
        classifier,
        min_face_px=settings.detector.min_face_px,
        new_face_s=settings.detector.new_face_s,
    )


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


def _list_models(args: argparse.Namespace) -> None:
    from edge_fer.bundle import MODELS

    cards = [_card(path) for path in sorted(MODELS.glob("*.tflite"))]
    if args.json:
        print(json.dumps(cards, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("model", "kB", "reports", "accuracy on PublicTest", "")
    for card in cards:
        figures = card["facts"].get("public_test", {})
        known = [head["name"] for head in card["heads"] if head["name"] in figures]
        accuracy = "\n".join(f"{name} {figures[name]['accuracy']:.1%}, N = {figures[name]['n']:,}" for name in known)
        reports = f"{len(card['heads'][0]['labels'])} expressions"
        default = "default" if card["default"] else ""
        table.add_row(card["name"], f"{card['bytes'] / 1000:.0f}", reports, accuracy, default)
    Console().print(table)


def _show_model(args: argparse.Namespace) -> None:
    from edge_fer.bundle import DEFAULT_MODEL

    card = _card(args.file or DEFAULT_MODEL)
    if args.json:
        print(json.dumps(card, indent=2))
    else:
        _print_card(card)


def _verify_model(args: argparse.Namespace) -> None:
    from edge_fer.bundle import DEFAULT_MODEL, check_golden, load_bundle
    from edge_fer.classifier import TfliteClassifier

    bundle = load_bundle(args.file or DEFAULT_MODEL)
    TfliteClassifier(bundle)
    quanta = check_golden(bundle)
    exactly = f"within {quanta} quanta" if quanta else "to the bit"
    print(f"{bundle.path} is good: card, hash, self-test, and {len(bundle.selftest_inputs)} golden vectors {exactly}.")


def _extract_model(args: argparse.Namespace) -> None:
    from edge_fer.bundle import DEFAULT_MODEL, extract

    path = args.file or DEFAULT_MODEL
    for written in extract(path, args.output or Path(path.stem)):
        print(written)


def _card(path: Path) -> dict[str, Any]:
    """All that a bundle's card says, for people and for ``--json``."""
    from edge_fer.bundle import DEFAULT_MODEL, load_bundle

    bundle = load_bundle(path)
    card = bundle.card
    return {
        "file": str(bundle.path),
        "bytes": bundle.path.stat().st_size,
        "default": bundle.path == DEFAULT_MODEL,
        "name": card.name,
        "heads": [
            {"name": head.name, "labels": list(head.labels), "temperature": head.temperature} for head in card.heads
        ],
        "margin": card.margin,
        "align": card.align,
        "preprocess_version": card.preprocess_version,
        "model_sha256": card.model_sha256,
        "facts": card.facts,
    }


def _print_card(card: dict[str, Any]) -> None:
    print(f"{card['name']}  {card['file']}  {card['bytes'] / 1000:.0f} kB")
    print(
        f"crop margin {card['margin']}, alignment {card['align']}, preprocessing version {card['preprocess_version']}"
    )
    figures = card["facts"].get("public_test", {})
    for place, head in enumerate(card["heads"]):
        print(f"\nhead {head['name']}{' (reported)' if place == 0 else ''}, temperature {head['temperature']}")
        print(f"  labels    {', '.join(head['labels'])}")
        row = figures.get(head["name"])
        if row:
            print(f"  accuracy  {row['accuracy']:.2%} of N = {row['n']:,} (float model: {row['accuracy_float']:.2%})")
            print(f"  macro F1  {row['macro_f1']:.3f}")
            recall = (f"{label} {value:.0%}" for label, value in row["recall"].items() if value is not None)
            print(f"  recall    {', '.join(recall)}")
    print(f"\nsha256 {card['model_sha256']}")


def _bench(args: argparse.Namespace) -> None:
    if args.frames < 1:
        raise UsageError(f"--frames must be at least 1, not {args.frames}.")
    settings = load_settings(args.config, os.environ, {"camera.source": args.camera})

    from edge_fer import bench

    if not args.tune:
        figures = bench.bench(settings, args.frames)
        if args.json:
            print(json.dumps(figures))
        else:
            bench.print_figures(figures)
        return
    path = args.config or next((file for file in default_files() if file.is_file()), default_files()[-1])
    if path.exists():
        update_file(path, {})  # what cannot be written is refused now, not after a minute
    trials, best = bench.tune(settings)
    update_file(path, best)
    if args.json:
        print(json.dumps({"trials": trials, "best": best, "written_to": str(path)}))
    else:
        bench.print_trials(trials)
        print(f"{', '.join(f'{key} = {value}' for key, value in best.items())} written to {path}.")


def _cameras(args: argparse.Namespace) -> None:
    from edge_fer.sources import list_cameras

    cameras = list_cameras()
    if args.json:
        print(json.dumps([{"device": device, "name": name} for device, name in cameras]))
    elif cameras:
        for device, name in cameras:
            print(f"{device}  {name}")
    else:
        print("No USB or V4L2 camera found. A Raspberry Pi camera module is --camera picamera:0.")
