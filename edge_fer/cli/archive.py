"""``edge-fer archive``: thousands of videos into Parquet, on this machine or on an engine that is there already."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from edge_fer.cli.verbs import Verbs, add_verb
from edge_fer.config import DetectorKind
from edge_fer.errors import DataError, EdgeFerError, UsageError, printable
from edge_fer.layers import load_settings

if TYPE_CHECKING:
    from edge_fer.archive.folder import ArchiveFolder
    from edge_fer.archive.inputs import Video
    from edge_fer.archive.task import Job, Outcome

SAY_EVERY_S = 30.0
"""How often a line says how far it is, where nobody looks on."""
MOST_NAMED = 20
"""Of files that cannot be read; the table of videos has all."""

EXAMPLES = """examples:
  edge-fer archive videos/ -o archive                     all videos of a folder, on all cores
  edge-fer archive videos/ -o archive                     the same again: goes on where it was cut, takes what is new
  edge-fer archive videos/ more.mp4 -o archive --every 5 --min-size 60
  edge-fer archive -o archive --report                    archive/report.html, of what is there
  edge-fer archive /share/videos -o /share/archive --backend dask:tcp://10.0.0.5:8786
  edge-fer archive /share/videos -o /share/archive --shard $SLURM_ARRAY_TASK_ID/100
  duckdb -c "SELECT expression, count(*) FROM 'archive/faces/*.parquet' GROUP BY ALL"

Needs joblib and pyarrow, the report duckdb: pip install joblib pyarrow duckdb. The tables, the engines and what they
cost: docs/scale.md. With --every 1 and no --min-size the rows are what `edge-fer run` says of each file.
"""


def add_archive(verbs: Verbs) -> None:
    """Add the verb."""
    archive = add_verb(verbs, "archive", "recognize expressions in thousands of videos, into Parquet", EXAMPLES)
    archive.add_argument("inputs", nargs="*", metavar="INPUT", help="videos, and folders that are searched for them")
    archive.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT", help="folder of the archive, new or to go on with"
    )
    archive.add_argument(
        "-j", "--jobs", type=int, default=-1, metavar="N", help="videos at the same time (default: one for each core)"
    )
    archive.add_argument(
        "--backend",
        default="loky",
        metavar="ENGINE",
        help="loky, processes of this machine; or dask, ray or spark, with an address where one runs already: "
        "dask:tcp://HOST:8786, ray:auto, spark:yarn (default: loky)",
    )
    archive.add_argument("--shard", default="1/1", metavar="I/N", help="only part I of N, for jobs of a batch queue")
    archive.add_argument("--every", type=int, default=1, metavar="N", help="look at one frame of N (default: 1)")
    archive.add_argument(
        "--min-size", type=int, default=0, metavar="PX", help="leave out faces whose shorter side is less (default: 0)"
    )
    archive.add_argument("--retry", action="store_true", help="try files again that could not be read")
    archive.add_argument("--report", action="store_true", help="write OUT/report.html in the end")
    archive.add_argument("--json", action="store_true", help="print one line of JSON in the end")
    archive.add_argument("--model", metavar="NAME", help="as for run")
    archive.add_argument("--decision", choices=["balanced", "as-trained"], help="as for run")
    archive.add_argument("--tta", action="store_const", const=True, help="as for run")
    archive.add_argument("--detector", choices=get_args(DetectorKind), help="as for run")
    archive.add_argument("--detector-model", metavar="FILE", help="as for run")
    archive.add_argument("--min-face", type=int, metavar="PX", help="smallest face to look for, as for run")
    archive.add_argument("--config", type=Path, metavar="TOML", help="as for run; only [detector] and [model] count")
    archive.set_defaults(act=_archive)


def _archive(args: argparse.Namespace) -> None:
    for name, least in (("every", 1), ("min_size", 0)):
        if getattr(args, name) < least:
            raise UsageError(f"--{name.replace('_', '-')} must be at least {least}, not {getattr(args, name)}.")
    if args.jobs < 1 and args.jobs != -1:
        raise UsageError(f"--jobs must be at least 1, not {args.jobs}.")
    if not args.inputs and not args.report:
        raise UsageError("Name the videos, or folders with videos, as in: edge-fer archive videos/ -o archive.")
    if args.inputs:
        _process(args)
    if args.report:
        from edge_fer.archive.report import write_report

        print(write_report(args.output))


def _process(args: argparse.Namespace) -> None:
    import joblib
    import pyarrow.parquet  # noqa: F401 - both are extras: what is missing is said before anything is done

    from edge_fer.archive.engines import outcomes, parse_engine
    from edge_fer.archive.folder import ArchiveFolder
    from edge_fer.archive.inputs import Shard, find_videos
    from edge_fer.archive.task import outcome_of_row, process

    engine, address = parse_engine(args.backend)
    shard = Shard.parse(args.shard)
    found, others = find_videos(args.inputs)
    job = _job(args)
    folder = ArchiveFolder(job.folder)
    folder.open(job.made_with())
    wanted = [video for video in found if shard.holds(video)]
    progress = _Progress(wanted, others)

    def calls() -> list[Any]:
        return [joblib.delayed(process)(job, *one) for one in _left(wanted, folder, progress.ended, args.retry)]

    def left_after_death() -> list[Any]:
        # Who dies takes with it what its like had done and not yet told.
        done = folder.done()
        for video in wanted:
            if video.key in told and video.key in done and video.key not in progress.ended:
                progress.take(outcome_of_row(folder, video, good=done[video.key]))
        return calls()

    todo = calls()
    told = {call[1][1].key for call in todo}
    progress.begin(len(todo), sum(call[1][1].size for call in todo))
    number = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the workers too
    try:
        with progress.live:
            for outcome in outcomes(engine, address, args.jobs, todo, left_after_death):
                progress.take(outcome)
    except KeyboardInterrupt:
        folder.forget_deaths()
        print(f"edge-fer: Stopped. {progress.text()}. The same command goes on.", file=sys.stderr)
        raise
    finally:
        signal.signal(signal.SIGTERM, number)
    progress.conclude(as_json=args.json)


def _job(args: argparse.Namespace) -> Job:
    """What the flags, the environment and the configuration say; tried here before workers are sent for it."""
    flags = {
        "detector.kind": args.detector,
        "detector.model": args.detector_model,
        "detector.min_face_px": args.min_face,
        "model.path": args.model,
        "model.decision": args.decision,
        "model.tta": args.tta,
    }
    settings = load_settings(args.config, os.environ, flags)

    from edge_fer.archive.task import Job
    from edge_fer.pipeline import build_recognizer

    bundle = build_recognizer(settings).bundle
    model = settings.model
    if not bundle.is_packaged and bundle.path:  # workers may stand in another folder
        model = dataclasses.replace(model, path=str(bundle.path.absolute()))
    detector = settings.detector
    if detector.model:
        file = Path(os.path.expanduser(detector.model)).absolute()  # noqa: PTH111 - see ``open_detector``
        detector = dataclasses.replace(detector, model=str(file))
    sha256 = bundle.metadata.model_sha256
    return Job(args.output.absolute(), detector, model, sha256, args.every, args.min_size)


def _left(
    wanted: Sequence[Video], folder: ArchiveFolder, ended: set[str], retry: bool
) -> Iterator[tuple[Video, tuple[str, bool] | None]]:
    """The videos that are still to do, each with its results that no longer count."""
    done = folder.done()
    by_path = {key.partition("-")[0]: (key, good) for key, good in done.items()}
    for video in wanted:
        again = retry and not done.get(video.key, True)
        if video.key not in ended and (again or video.key not in done):
            yield video, by_path.get(video.path_hash)


class _Progress:
    """How far it is, for people at a terminal and for logs.

    Args:
        wanted: all videos of this call.
        others: how many files were passed over.
    """

    def __init__(self, wanted: Sequence[Video], others: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._wanted, self._others = len(wanted), others
        self._console = Console(stderr=True)
        self.live = Progress(
            BarColumn(), TextColumn("{task.description}"), console=self._console, disable=not self._console.is_terminal
        )
        self._bar = self.live.add_task("")
        self.ended: set[str] = set()
        self.counts: Counter[str] = Counter()
        self._frames = self._faces = self._bytes = self._bytes_done = self._before = self._todo = 0
        self._troubles: list[Outcome] = []
        self._since = self._said = time.monotonic()

    def begin(self, todo: int, size: int) -> None:
        """So many videos are to be done, of so many bytes."""
        self._todo, self._bytes, self._before = todo, size, self._wanted - todo
        self.live.update(self._bar, total=size or 1, description=self.text())

    def take(self, outcome: Outcome) -> None:
        """Count a video. Raises EdgeFerError where no other is worth trying."""
        if outcome.kind == "failed":
            error = EdgeFerError(f"{outcome.message} What is done stays done; the same command goes on.")
            error.exit_code = outcome.exit_code
            raise error
        self.ended.add(outcome.video.key)
        self.counts[outcome.kind] += 1
        self._frames += outcome.frames
        self._faces += outcome.faces
        self._bytes_done += outcome.video.size
        if outcome.kind in ("bad", "missing"):
            self._troubles.append(outcome)
        self.live.update(self._bar, completed=self._bytes_done, description=self.text())
        now = time.monotonic()
        if not self._console.is_terminal and now - self._said >= SAY_EVERY_S:
            self._said = now
            print(f"edge-fer: {self.text()}", file=sys.stderr)

    def text(self) -> str:
        """How far it is, the rate, and the time that is left, by the bytes of the files."""
        seconds = time.monotonic() - self._since
        done = self._before + self.counts["done"] + self.counts["bad"]
        text = f"{done:,} of {self._wanted:,} videos"
        if self.counts["bad"]:
            text += f", {self.counts['bad']:,} bad"
        if self._frames:
            text += f", {self._frames / seconds:,.0f} frames/s"
        if 0 < self._bytes_done < self._bytes:
            left_s = seconds * (self._bytes - self._bytes_done) / self._bytes_done
            text += f", {_duration(left_s)} left"
        return text

    def conclude(self, as_json: bool) -> None:
        """Say what came of it. Raises DataError where not one file could be read."""
        seconds = time.monotonic() - self._since
        for one in self._troubles[:MOST_NAMED]:
            name = "" if one.video.path in one.message else f"{printable(one.video.path)}: "
            print(f"edge-fer: {name}{one.message}", file=sys.stderr)
        if (more := len(self._troubles) - MOST_NAMED) > 0:
            print(f"edge-fer: ... and {more:,} more; videos/*.bad.parquet has them.", file=sys.stderr)
        if as_json:
            figures = {
                "videos": self._wanted,
                "done_before": self._before,
                **{kind: self.counts[kind] for kind in ("done", "bad", "missing", "elsewhere")},
                "passed_over": self._others,
                "frames": self._frames,
                "faces": self._faces,
                "seconds": round(seconds, 2),
            }
            print(json.dumps(figures))
        else:
            told = {"done": "done", "bad": "bad", "missing": "cannot be read now", "elsewhere": "in another's hand"}
            parts = [f"{self.counts[kind]:,} {words}" for kind, words in told.items() if self.counts[kind]]
            if self._before:
                parts.append(f"{self._before:,} done before")
            noun = "video" if self._wanted == 1 else "videos"
            print(f"{self._wanted:,} {noun}: {', '.join(parts) or 'none in this shard'}.", end="")
            if self._others:
                print(f" {self._others:,} other files passed over.", end="")
            print()
            if self._frames:
                rate = f"{self._frames / seconds:,.1f} frames/s"
                print(f"{self._frames:,} frames, {self._faces:,} faces in {_duration(seconds)}, {rate}.")
        if self._todo and self.counts["bad"] + self.counts["missing"] == self._todo == self._wanted:
            raise DataError("Not one of these files could be read as a video.")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
