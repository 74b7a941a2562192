"""One video: from its file to its two tables. What a worker does, in whatever process, on whatever machine."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2

from edge_fer.archive.folder import ArchiveFolder
from edge_fer.archive.inputs import Video
from edge_fer.archive.tables import FACES, VIDEOS, row_of, schema_of
from edge_fer.config import CameraSettings, DetectorSettings, ModelSettings, Settings
from edge_fer.core import FrameResult
from edge_fer.errors import EdgeFerError, InputMissingError, OutputError, UnavailableError, printable
from edge_fer.events import Run
from edge_fer.files import output_error, shown
from edge_fer.pipeline import build_recognizer
from edge_fer.recognizer import Recognizer
from edge_fer.sources import open_source
from edge_fer.threads import PerThread
from edge_fer.version import __version__

ROWS_AT_ONCE = 5_000
"""So many rows are held before they are written: a video of hours takes no more memory than one of minutes."""
MOST_DEATHS = 3
"""So often a worker may die with a video in hand before the video is held to be the reason."""

log = logging.getLogger("edge_fer")


@dataclass(frozen=True)
class Job:
    """What is done with every video; it travels to the workers.

    Attributes:
        folder: of the archive, absolute.
        detector: as for ``run``.
        model: likewise; its path absolute, or a name of the package.
        model_sha256: that it must have where it is loaded.
        every: of so many frames one is looked at.
        min_size_px: smaller faces have no row.
        edge_fer: version that the worker must have.
    """

    folder: Path
    detector: DetectorSettings
    model: ModelSettings
    model_sha256: str
    every: int = 1
    min_size_px: int = 0
    edge_fer: str = __version__

    def made_with(self) -> dict[str, Any]:
        """All that decides the rows."""
        return {
            "edge_fer": self.edge_fer,
            "model_sha256": self.model_sha256,
            "decision": self.model.decision,
            "tta": self.model.tta,
            "device": self.model.device,
            "detector": self.detector.kind,
            "detector_model": self.detector.model,
            "min_face_px": self.detector.min_face_px,
            "new_face_s": self.detector.new_face_s,
            "every": self.every,
            "min_size_px": self.min_size_px,
        }


class Outcome(NamedTuple):
    """What became of a video.

    Attributes:
        video: which.
        kind: "done"; "bad" is done too, as far as it could be read; "missing" has gone, or may not be read; "elsewhere"
            is in another's hand; after "failed" no other video is worth trying.
        frames: looked at.
        faces: rows.
        message: what is wrong; "" for nothing.
        exit_code: that a failure ends with.
    """

    video: Video
    kind: Literal["done", "bad", "missing", "elsewhere", "failed"]
    frames: int = 0
    faces: int = 0
    message: str = ""
    exit_code: int = 0


def process(job: Job, video: Video, stale: tuple[str, bool] | None = None) -> Outcome:
    """Write the tables of a video, unless another has it in hand or has done it.

    It raises nothing: an exception would not look the same after its way through every engine.

    Args:
        job: what to do.
        video: with which file.
        stale: key of its results from before it changed, or of those that are made again; and whether it was good.
    """
    folder = ArchiveFolder(job.folder)
    try:
        with folder.claim(video.key) as deaths:
            if deaths is None:
                return Outcome(video, "elsewhere")
            if folder.row_file(video.key, good=True).exists():
                return Outcome(video, "done")
            if stale:
                folder.remove(stale[0], good=stale[1])
            recognizer = None
            if deaths < MOST_DEATHS:
                recognizer = _recognizer(job)
            return _tables(job, video, folder, recognizer)
    except InputMissingError as error:
        return Outcome(video, "missing", message=str(error))
    except EdgeFerError as error:
        return Outcome(video, "failed", message=str(error), exit_code=error.exit_code)
    except ImportError as error:
        message = f"A worker cannot load {error.name}: {error}. Install the same packages wherever workers run."
        return Outcome(video, "failed", message=message, exit_code=UnavailableError.exit_code)
    except OSError as error:
        message = str(output_error(job.folder, error))
        return Outcome(video, "failed", message=message, exit_code=OutputError.exit_code)


def outcome_of_row(folder: ArchiveFolder, video: Video, *, good: bool) -> Outcome:
    """What became of a video by the row that is there, where nobody is left to tell."""
    import pyarrow.parquet

    (row,) = pyarrow.parquet.read_table(folder.row_file(video.key, good=good)).to_pylist()
    return Outcome(video, "done" if good else "bad", row["frames"], row["faces"], row["error"] or "")


_loaded: PerThread[tuple[object, Recognizer]] = PerThread()
"""The model of the last job: an engine may run tasks in several threads of one process."""


def _recognizer(job: Job) -> Recognizer:
    """One whose tracks begin at 1, as those of ``run`` do."""
    wanted = (job.model, job.detector, job.model_sha256)
    if _loaded.value is None or _loaded.value[0] != wanted:
        cv2.setNumThreads(1)  # each core has a video of its own
        _loaded.value = (wanted, build_recognizer(Settings(model=job.model, detector=job.detector)))
    recognizer = _loaded.value[1]
    here = recognizer.bundle.metadata.model_sha256
    if here != job.model_sha256 or job.edge_fer != __version__:
        raise UnavailableError(
            f"A worker has edge-fer {__version__} and a model {here[:12]}, this call edge-fer {job.edge_fer} and "
            f"{job.model_sha256[:12]}. Install the same wherever workers run."
        )
    return recognizer.restarted()


def _tables(job: Job, video: Video, folder: ArchiveFolder, recognizer: Recognizer | None) -> Outcome:
    """Write them; without a recognizer they say that nobody survives this video."""
    faces = _Rows(folder.draft(video.key, "faces"), schema_of(FACES))
    facts: dict[str, Any] = dict.fromkeys(column.name for column in VIDEOS)
    facts |= {"video": shown(video.path), "bytes": video.size, "modified_ns": video.modified_ns}
    facts |= {"frames": 0, "faces": 0, "tracks": 0, "duration_s": 0.0, "edge_fer": job.edge_fer}
    facts |= {"model_sha256": job.model_sha256, "decision": job.model.decision}
    with faces, _warnings() as warnings:
        if recognizer is None:
            facts["error"] = f"A worker died {MOST_DEATHS} times while it had this video in hand."
        else:
            metadata = recognizer.bundle.metadata
            facts |= {"model": metadata.name, "decision": recognizer.decision}
            run = Run("archive", metadata.name, metadata.model_sha256, decision=recognizer.decision, now=lambda: "")
            try:
                for result in _results(job, video, recognizer, facts):
                    _count(result, facts)
                    for event in run.to_events(result):
                        if event["phase"] != "end" and event["quality"]["size_px"] >= job.min_size_px:
                            facts["faces"] += 1
                            faces.add(row_of(facts["video"], event))
            except (InputMissingError, OutputError):
                raise
            except EdgeFerError as error:
                facts["error"] = str(error)
            except (cv2.error, MemoryError, ArithmeticError, LookupError, ValueError) as error:
                facts["error"] = printable(f"It breaks its reader: {error!r}")
    facts["warnings"] = [printable(one) for one in warnings]
    with _Rows(folder.draft(video.key, "video"), schema_of(VIDEOS)) as row:
        row.add(facts)
    good = facts["error"] is None
    folder.put(faces.path, folder.face_file(video.key))
    folder.put(row.path, folder.row_file(video.key, good=good))
    return Outcome(video, "done" if good else "bad", facts["frames"], facts["faces"], facts["error"] or "")


def _results(job: Job, video: Video, recognizer: Recognizer, facts: dict[str, Any]) -> Iterator[FrameResult]:
    with closing(open_source(CameraSettings(source=video.path))) as source:
        facts["fps"] = float(source.fps)
        for frame in source:
            if frame.seq % job.every == 0:
                yield recognizer.recognize(frame)


def _count(result: FrameResult, facts: dict[str, Any]) -> None:
    facts["frames"] += 1
    facts["duration_s"] = round(result.frame.time_s, 3)
    facts["height"], facts["width"] = result.frame.gray.shape
    facts["tracks"] = max([facts["tracks"], *(face.track for face in result.faces)])


class _Rows:
    """A Parquet file that takes row after row; it is complete when its context ends.

    Args:
        path: of the file.
        schema: ``pyarrow.Schema``.
    """

    def __init__(self, path: Path, schema: Any) -> None:
        import pyarrow.parquet

        self.path = path
        self._schema = schema
        self._rows: list[dict[str, Any]] = []
        self._file = path.open("wb")
        try:
            self._writer = pyarrow.parquet.ParquetWriter(self._file, schema, compression="zstd")
        except BaseException:
            self._file.close()
            raise

    def add(self, row: dict[str, Any]) -> None:
        """Raises OutputError."""
        self._rows.append(row)
        if len(self._rows) == ROWS_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        try:
            self._writer.write_table(pa.Table.from_pylist(self._rows, self._schema))
        except OSError as error:
            raise output_error(self.path, error) from None
        self._rows.clear()

    def __enter__(self) -> _Rows:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                if self._rows:
                    self._flush()
                self._writer.close()
                self._file.close()
        except OSError as error:
            raise output_error(self.path, error) from None
        finally:
            self._abandon()

    def _abandon(self) -> None:
        """Close what is still open, whatever the disk says; a file that is not complete goes away."""
        if self._file.closed:
            return
        for close in (self._writer.close, self._file.close):
            try:
                close()
            except OSError:
                log.debug("%s could not be closed", self.path)
        self.path.unlink(missing_ok=True)


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """What the readers of this thread log meanwhile, instead of the terminal."""
    said: list[str] = []
    own = logging.makeLogRecord({}).thread

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == own and record.levelno >= logging.WARNING:
                said.append(record.getMessage())

    listener, before = Listener(), log.propagate
    log.addHandler(listener)
    log.propagate = False
    try:
        yield said
    finally:
        log.removeHandler(listener)
        log.propagate = before
